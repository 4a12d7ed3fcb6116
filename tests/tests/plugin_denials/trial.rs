//! One run of the hostile plugin.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, LazyLock};

use cofferdam::plugin::{Capabilities, PluginManifest};
use cofferdam::sandbox::{Context, Program, RunReport, RunReports, Sandbox, SandboxOptions, verification};
use cofferdam::tree::claim;
use cofferdam::{Error, Limits};
use cofferdam_tests::{guests, paths};

/// Built once for each process; compiled once for all of them.
static COMPONENT: LazyLock<Vec<u8>> = LazyLock::new(|| {
    /// What has a standard library is compiled for this.
    const TARGET: &str = "wasm32-wasip2";
    let arguments = ["build", "--quiet", "--locked", "--release", "--package", "hostile-plugin", "--target", TARGET];
    let mut cargo = guests::cargo(&guests::hostile_workspace(), &arguments).expect("cargo");
    let target = cargo.get_envs().find(|(name, _)| *name == "CARGO_TARGET_DIR").and_then(|(_, value)| value);
    let file = Path::new(target.expect("a target directory")).join(TARGET).join("release/hostile_plugin.wasm");
    let output = cargo.stdin(Stdio::null()).output().expect("cargo starts");
    assert!(output.status.success(), "the hostile plugin: {}", String::from_utf8_lossy(&output.stderr));
    std::fs::read(file).expect("the hostile plugin")
});

static SANDBOX: LazyLock<Arc<Sandbox>> = LazyLock::new(|| {
    let sandbox = Sandbox::new(&SandboxOptions::default().with_cache(paths::target().join("tmp/plugin-cache")));
    Arc::new(sandbox.expect("a sandbox"))
});

/// The sandbox of this process.
pub(crate) fn sandbox() -> &'static Arc<Sandbox> {
    &SANDBOX
}

/// A manifest with these lines under `[capabilities]`.
pub(crate) fn manifest(world: &str, capabilities: &str) -> PluginManifest {
    let text = format!("name = \"hostile\"\nversion = \"1\"\nworld = \"{world}\"\n[capabilities]\n{capabilities}\n");
    PluginManifest::parse(&text).expect("a manifest")
}

/// What is tried, and under which conditions. All that is asked for is granted, but where the test says otherwise.
pub(crate) struct Trial {
    asks: String,
    http: Vec<String>,
    settings: BTreeMap<String, String>,
    withheld: Capabilities,
    memory: Option<&'static str>,
    private: Vec<String>,
    pub(crate) limits: Limits,
    pub(crate) context: Context,
}

impl Trial {
    /// These attempts, a line each. What the plugin cannot do without (it imports it) is asked for and granted.
    pub(crate) fn new(attempts: impl Into<String>) -> Self {
        let settings = BTreeMap::from([("do".to_owned(), attempts.into())]);
        Self {
            asks: "runtime = true\nclock = true\nrandom = true".into(),
            http: vec!["https://unused.invalid".into()],
            settings,
            withheld: Capabilities::default(),
            memory: None,
            private: Vec::new(),
            limits: Limits::default(),
            context: Context::default(),
        }
    }

    /// Asks for more.
    pub(crate) fn asks(mut self, line: &str) -> Self {
        self.asks = format!("{}\n{line}", self.asks);
        self
    }

    /// Asks for these requests.
    pub(crate) fn http(mut self, rule: impl Into<String>) -> Self {
        self.http.push(rule.into());
        self
    }

    /// Grants a private address for this authority.
    pub(crate) fn private(mut self, rule: impl Into<String>) -> Self {
        self.private.push(rule.into());
        self
    }

    /// Does not grant these.
    pub(crate) fn withholds(mut self, withheld: &str) -> Self {
        self.withheld = manifest("verifier", withheld).capabilities;
        self
    }

    pub(crate) fn setting(mut self, key: &str, value: &str) -> Self {
        self.settings.insert(key.into(), value.into());
        self
    }

    pub(crate) fn limit(mut self, name: &str, value: &str) -> Self {
        self.limits.set(name, value).expect("a limit");
        self
    }

    /// Its manifest wants this much memory.
    pub(crate) fn memory(mut self, memory: &'static str) -> Self {
        self.memory = Some(memory);
        self
    }

    /// Gives a place for scratch directories.
    pub(crate) fn scratch(mut self, place: &Path) -> Self {
        self.context.scratch = Some(place.to_owned());
        self.asks("write = true")
    }

    /// The plugin, of this world.
    pub(crate) fn program(&self, world: &str) -> Result<Program, Error> {
        let http: Vec<_> = self.http.iter().map(|rule| format!("{rule:?}")).collect();
        let memory = self.memory.map(|memory| format!("[limits]\nmemory = {memory:?}")).unwrap_or_default();
        let mut manifest = manifest(world, &format!("{}\nhttp = [{}]\n{memory}", self.asks, http.join(", ")));
        manifest.settings = self.settings.keys().map(|key| (key.clone(), String::new())).collect();
        let mut granted = manifest.capabilities.without(&self.withheld);
        granted.http_private = self.private.iter().map(|rule| rule.parse().expect("a rule")).collect();
        sandbox().plugin("hostile", &manifest, &COMPONENT, &granted, &self.settings)
    }

    /// Runs it as a verifier.
    pub(crate) fn run(mut self) -> Outcome {
        let reports = RunReports::default();
        self.context.reports = Some(reports.clone());
        let subject = verification::Subject {
            reference: "registry.test/image:1".into(),
            registry: "registry.test".into(),
            insecure: false,
            repository: "image".into(),
            digest: "sha256:00".into(),
            document: Vec::new(),
            manifest_digest: "sha256:00".into(),
            manifest: Vec::new(),
        };
        let said = self
            .program("verifier")
            .and_then(|program| sandbox().verify(&program, &self.limits, &self.context, &subject));
        Outcome { said, report: reports.last() }
    }

    /// Runs it as an inspector of a layer with one entry; gives its report.
    pub(crate) fn inspect(mut self) -> (Result<Vec<u8>, Error>, Option<RunReport>) {
        let reports = RunReports::default();
        self.context.reports = Some(reports.clone());
        let inspected = self.program("inspector").and_then(|program| {
            let program = program.in_context(self.context.clone());
            let mut inspection = sandbox().inspection(&program, &self.limits, "", "")?;
            let entry = claim::Entry {
                path: b"file".to_vec(),
                node: claim::Node::File(1),
                mode: 0o644,
                uid: 0,
                gid: 0,
                modified: claim::Timestamp { seconds: 0, nanoseconds: 0 },
                attributes: Vec::new(),
            };
            if inspection.see(entry)? {
                inspection.content(b"x")?;
            }
            inspection.finish()
        });
        (inspected, reports.last())
    }
}

/// What came of a trial.
pub(crate) struct Outcome {
    pub(crate) said: Result<String, Error>,
    /// Nothing if it never ran.
    pub(crate) report: Option<RunReport>,
}

impl Outcome {
    /// What the plugin said of its attempts.
    #[track_caller]
    pub(crate) fn said(self) -> String {
        self.said.expect("the plugin answers")
    }

    /// Why the plugin was ended, or did not begin.
    #[track_caller]
    pub(crate) fn error(self) -> Error {
        self.said.expect_err("the plugin fails")
    }

    /// Of which limit it crossed what.
    #[track_caller]
    pub(crate) fn limit(self) -> &'static str {
        match self.error() {
            Error::Limit { what, .. } => what,
            other => panic!("no limit: {other:?}"),
        }
    }
}
