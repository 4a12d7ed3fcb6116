//! A real registry (`docker-registry`) for one test, on a port of its own.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use crate::Scratch;

/// The name of the one user of a registry with passwords.
pub const USER: &str = "tester";
/// That user's password.
pub const PASSWORD: &str = "sesame";
/// The two of them as `htpasswd -B` writes it (a bcrypt hash, the only kind that the registry takes).
const HTPASSWD: &str = "tester:$2b$04$CFk7fiwlGmyrNCxDRSRS.u9V3DBpWxhGjAiLGJe2eVd8mgBrBtY5y\n";

/// How a registry is reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// Plain HTTP, open to all.
    #[default]
    Plain,
    /// Plain HTTP, for [`USER`] with [`PASSWORD`] only.
    Password,
    /// TLS with a certificate that nobody has signed.
    Tls,
}

/// A running registry, which ends when this goes out of scope.
#[derive(Debug)]
pub struct Registry {
    kind: Kind,
    child: Option<Child>,
    port: u16,
    dir: Scratch,
}

/// One line of a registry's access log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// `GET`, `HEAD` and so on.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// The answer's status.
    pub status: u16,
}

impl Registry {
    /// Starts one. Needs the tool `docker-registry`, and `openssl` for [`Kind::Tls`].
    pub fn start(kind: Kind) -> Result<Self> {
        let dir = Scratch::new()?;
        fs::create_dir(dir.join("data"))?;
        match kind {
            Kind::Plain => {}
            Kind::Password => fs::write(dir.join("htpasswd"), HTPASSWD)?,
            Kind::Tls => certify(dir.path())?,
        }
        fs::write(dir.join("config.yml"), config(kind, dir.path()).to_string())?;
        let log = File::create(dir.join("log"))?;
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(dir.join("config.yml"))
            .env_remove("REGISTRY_HTTP_ADDR")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("cannot start docker-registry")?;
        let mut registry = Self { kind, child: Some(child), port: 0, dir };
        registry.port = registry.until_ready()?;
        Ok(registry)
    }

    /// Its `host:port`.
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// A reference to a repository and tag in it: `127.0.0.1:port/name`.
    pub fn reference(&self, name: &str) -> String {
        format!("{}/{name}", self.host())
    }

    /// Copies an image into it. `source` is in skopeo's form, for example `oci:DIR:TAG`. Digests stay as they are.
    pub fn push(&self, source: &str, name: &str) -> Result<()> {
        let mut skopeo = Command::new("skopeo");
        skopeo.args(["--insecure-policy", "copy", "--quiet", "--preserve-digests", "--dest-tls-verify=false"]);
        if self.kind == Kind::Password {
            skopeo.arg(format!("--dest-creds={USER}:{PASSWORD}"));
        }
        run(skopeo.args([source, &format!("docker://{}", self.reference(name))]))
    }

    /// Uploads a blob as it is. For [`Kind::Plain`] only.
    pub fn upload(&self, repository: &str, bytes: &[u8]) -> Result<()> {
        let base = format!("http://{}/v2/{repository}/blobs/uploads/", self.host());
        let begun = self.curl(&["-X", "POST", "-D", "-", &base], &[])?;
        let text = String::from_utf8_lossy(&begun).into_owned();
        let place = text.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("location").then(|| value.trim().to_owned())
        });
        let place = place.context("the registry gives no place for an upload")?;
        let place = if place.starts_with('/') { format!("http://{}{place}", self.host()) } else { place };
        let and = if place.contains('?') { '&' } else { '?' };
        let place = format!("{place}{and}digest={}", crate::layers::digest(bytes));
        let kind = "Content-Type: application/octet-stream";
        self.curl(&["-X", "PUT", "-H", kind, "--data-binary", "@-", &place], bytes).map(drop)
    }

    /// Publishes a manifest as it is under a tag. For [`Kind::Plain`] only.
    pub fn upload_manifest(&self, repository: &str, tag: &str, bytes: &[u8]) -> Result<()> {
        let place = format!("http://{}/v2/{repository}/manifests/{tag}", self.host());
        let kind = "Content-Type: application/vnd.oci.image.manifest.v1+json";
        self.curl(&["-X", "PUT", "-H", kind, "--data-binary", "@-", &place], bytes).map(drop)
    }

    /// A manifest. For [`Kind::Plain`] only.
    pub fn manifest(&self, repository: &str, tag: &str) -> Result<Vec<u8>> {
        let place = format!("http://{}/v2/{repository}/manifests/{tag}", self.host());
        self.curl(&["-H", "Accept: application/vnd.oci.image.manifest.v1+json", &place], &[])
    }

    /// The digest that a tag stands for. For [`Kind::Plain`] only.
    pub fn digest(&self, repository: &str, tag: &str) -> Result<String> {
        Ok(crate::layers::digest(&self.manifest(repository, tag)?))
    }

    fn curl(&self, arguments: &[&str], input: &[u8]) -> Result<Vec<u8>> {
        ensure!(self.kind == Kind::Plain, "only a plain registry is written to in this way");
        let words: Vec<&str> = ["-sS", "--fail", "--noproxy", "*"].iter().chain(arguments).copied().collect();
        crate::layers::compress("curl", &words, input)
    }

    /// The file in which it keeps a blob: to break it.
    pub fn blob(&self, digest: &str) -> Result<PathBuf> {
        let (algorithm, hex) = digest.split_once(':').context("not a digest")?;
        let start = hex.get(..2).context("not a digest")?;
        let path = self.dir.join(format!("data/docker/registry/v2/blobs/{algorithm}/{start}/{hex}/data"));
        ensure!(path.is_file(), "the registry has no blob {digest}");
        Ok(path)
    }

    /// The requests that it has answered.
    pub fn requests(&self) -> Result<Vec<Request>> {
        Ok(self.log()?.lines().filter_map(parse_access).collect())
    }

    /// The requests that wanted a blob's bytes.
    pub fn blob_gets(&self) -> Result<Vec<Request>> {
        let mut requests = self.requests()?;
        requests.retain(|request| request.method == "GET" && request.path.contains("/blobs/"));
        Ok(requests)
    }

    /// Ends it; what was pushed is out of reach from now on.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn log(&self) -> Result<String> {
        Ok(String::from_utf8_lossy(&fs::read(self.dir.join("log"))?).into_owned())
    }

    /// Waits until it takes connections, and returns its port.
    fn until_ready(&mut self) -> Result<u16> {
        const PATIENCE: Duration = Duration::from_secs(20);
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            let log = self.log()?;
            if let Some(port) = log.lines().find_map(parse_port)
                && TcpStream::connect(("127.0.0.1", port)).is_ok()
            {
                return Ok(port);
            }
            if let Some(status) = self.child.as_mut().map(Child::try_wait).transpose()?.flatten() {
                bail!("docker-registry ended with {status}:\n{log}");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        bail!("docker-registry is not ready after {PATIENCE:?}:\n{}", self.log()?)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Its configuration, as JSON, which YAML includes.
fn config(kind: Kind, dir: &Path) -> Value {
    // Port 0: the kernel chooses a free one, and the log says which.
    let mut http = json!({ "addr": "127.0.0.1:0", "secret": "cofferdam-tests" });
    let mut auth = json!({});
    match kind {
        Kind::Plain => {}
        Kind::Password => auth = json!({ "htpasswd": { "realm": "cofferdam-tests", "path": dir.join("htpasswd") } }),
        Kind::Tls => http["tls"] = json!({ "certificate": dir.join("cert.pem"), "key": dir.join("key.pem") }),
    }
    json!({
        "version": "0.1",
        "log": { "level": "info", "accesslog": { "disabled": false } },
        "storage": { "filesystem": { "rootdirectory": dir.join("data") }, "delete": { "enabled": true } },
        "auth": auth,
        "http": http,
    })
}

fn parse_port(line: &str) -> Option<u16> {
    let (_, rest) = line.split_once("listening on 127.0.0.1:")?;
    let digits = rest.find(|c: char| !c.is_ascii_digit()).map_or(rest, |end| &rest[..end]);
    digits.parse().ok()
}

/// `127.0.0.1 - - [time] "GET /v2/ HTTP/1.1" 200 2 "" "agent"`
fn parse_access(line: &str) -> Option<Request> {
    let (_, rest) = line.split_once("] \"")?;
    let (request, rest) = rest.split_once("\" ")?;
    let mut words = request.split(' ');
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    Some(Request { method, path, status: rest.split(' ').next()?.parse().ok()? })
}

/// A key and a certificate for 127.0.0.1, signed by itself.
fn certify(dir: &Path) -> Result<()> {
    let request = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1";
    run(Command::new("openssl")
        .args(request.split(' '))
        .args([OsStr::new("-keyout"), dir.join("key.pem").as_os_str()])
        .args([OsStr::new("-out"), dir.join("cert.pem").as_os_str()]))
}

/// Runs a helper program; its output appears only when it fails.
pub fn run(command: &mut Command) -> Result<()> {
    let output = command.stdin(Stdio::null()).output();
    let output = output.with_context(|| format!("cannot start {}", command.get_program().display()))?;
    if !output.status.success() {
        bail!("{command:?} ended with {}:\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layers::{Item, tar};
    use crate::{OciLayout, require};

    /// Each kind takes an image, keeps its blobs where we break them, and logs who fetches them.
    #[test]
    fn every_kind_takes_an_image() -> Result<()> {
        require!("docker-registry", "skopeo", "openssl", "gzip");
        let scratch = Scratch::new()?;
        let mut layout = OciLayout::create(scratch.join("layout"))?;
        let layer = layout.add_gzip(&tar(&[Item::File("a", b"hello".to_vec())])?)?;
        layout.add_image("one", std::slice::from_ref(&layer))?;
        for kind in [Kind::Plain, Kind::Password, Kind::Tls] {
            let mut registry = Registry::start(kind)?;
            registry.push(&layout.source("one"), "team/app:1")?;
            assert_eq!(fs::read(registry.blob(&layer.digest)?)?, fs::read(layout.blob(&layer.digest))?);
            assert_eq!(registry.blob_gets()?, [], "{kind:?}");
            if kind == Kind::Plain {
                let back = format!("oci:{}:back", scratch.join("back").display());
                let from = format!("docker://{}", registry.reference("team/app:1"));
                run(Command::new("skopeo").args([
                    "--insecure-policy",
                    "copy",
                    "--src-tls-verify=false",
                    &from,
                    &back,
                ]))?;
                assert_eq!(registry.blob_gets()?.len(), 2, "a configuration and a layer");
            }
            registry.stop();
            assert!(TcpStream::connect(("127.0.0.1", registry.port)).is_err());
        }
        Ok(())
    }

    #[test]
    fn its_log_lines_are_understood() {
        let line = r#"127.0.0.1 - - [21/Nov/2026:10:39:09 +0000] "GET /v2/a/blobs/x HTTP/1.1" 200 2 "" "curl/7.88.1""#;
        let request = Request { method: "GET".into(), path: "/v2/a/blobs/x".into(), status: 200 };
        assert_eq!(parse_access(line), Some(request));
        assert_eq!(parse_port(r#"level=info msg="listening on 127.0.0.1:36207" go.version=1"#), Some(36207));
        assert_eq!(parse_port(r#"level=info msg="listening on 127.0.0.1:36207, tls""#), Some(36207));
    }
}
