//! What was not granted is not linked.

use cofferdam::plugin::Capabilities;
use cofferdam::{Error, GuestFailure};

use crate::trial::{Trial, manifest, sandbox};

/// A verifier by its imports: each is an interface with one function.
fn importing(interfaces: &[&str]) -> Vec<u8> {
    let imports: Vec<_> = (interfaces.iter())
        .map(|interface| format!(r#"(import "{interface}" (instance (export "f" (func (result u64)))))"#))
        .collect();
    wat::parse_str(format!("(component {})", imports.join("\n"))).expect("a component")
}

/// Loads a plugin that imports these, asks for `asks` and was granted `granted`.
fn load(interfaces: &[&str], asks: &str, granted: &str) -> Error {
    let granted = manifest("verifier", granted).capabilities;
    let asked = manifest("verifier", asks);
    sandbox()
        .plugin("p", &asked, &importing(interfaces), &granted, &std::collections::BTreeMap::new())
        .expect_err("it exports nothing")
}

/// The interfaces behind each capability, and the words that grant it.
const DOORS: &[(&str, &str, &str)] = &[
    ("wasi:cli/environment@0.2.0", "runtime = true", "--runtime"),
    ("wasi:cli/exit@0.2.3", "runtime = true", "--runtime"),
    ("wasi:cli/stdout@0.2.0", "runtime = true", "--runtime"),
    ("wasi:filesystem/types@0.2.0", "runtime = true", "--runtime"),
    ("wasi:filesystem/preopens@0.2.0", "runtime = true", "--runtime"),
    ("wasi:io/streams@0.2.0", "runtime = true", "--runtime"),
    ("wasi:random/insecure@0.2.0", "runtime = true", "--runtime"),
    ("wasi:random/insecure-seed@0.2.0", "runtime = true", "--runtime"),
    ("wasi:clocks/wall-clock@0.2.0", "clock = true", "--clock"),
    ("wasi:clocks/monotonic-clock@0.2.0", "clock = true", "--clock"),
    ("wasi:random/random@0.2.0", "random = true", "--random"),
    (
        "wasi:http/outgoing-handler@0.2.0",
        "http = ['https://a.b', 'POST https://c.d']",
        "--http 'POST https://c.d' --http https://a.b",
    ),
    ("wasi:http/types@0.2.0", "http = ['registry']", "--http registry"),
];

#[test]
fn what_is_asked_for_and_not_granted_prints_its_grant() {
    for (interface, asks, flags) in DOORS {
        let error = load(&[interface], asks, "");
        let expected = format!("cofferdam plugin grant p {flags}");
        match &error {
            Error::Denied { plugin, grant: Some(grant), .. } => {
                assert_eq!(plugin, "p", "{interface}");
                let sorted = |text: &str| {
                    let mut flags: Vec<_> = text.split(" --").map(str::to_owned).collect();
                    flags[1..].sort();
                    flags
                };
                assert_eq!(sorted(grant), sorted(&expected), "{interface}");
            }
            other => panic!("{interface}: {other:?}"),
        }
        assert!(error.hint().is_some_and(|hint| hint.contains("plugin grant p")), "{interface}");
    }
}

#[test]
fn what_is_granted_and_not_asked_for_is_not_had() {
    for (interface, grants, _) in DOORS {
        match load(&[interface], "", grants) {
            Error::Denied { grant: None, what, .. } => assert!(what.contains("does not ask"), "{interface}: {what}"),
            other => panic!("{interface}: {other:?}"),
        }
    }
}

/// The control: what is asked for and granted is no obstacle. The component then has nothing to export.
#[test]
fn what_is_asked_for_and_granted_is_linked() {
    for (interface, both, _) in DOORS {
        match load(&[interface], both, both) {
            Error::Guest { failure: GuestFailure::Load(reason), .. } => {
                assert!(reason.contains("does not export"), "{interface}: {reason}");
            }
            other => panic!("{interface}: {other:?}"),
        }
    }
}

#[test]
fn nobody_can_have_sockets_or_what_is_unknown() {
    let all = "runtime = true\nclock = true\nrandom = true\nwrite = true\nhttp = ['https://a.b']";
    for interface in [
        "wasi:sockets/tcp@0.2.0",
        "wasi:sockets/network@0.2.0",
        "wasi:sockets/ip-name-lookup@0.2.0",
        "wasi:http/incoming-handler@0.2.0",
        "wasi:keyvalue/store@0.2.0",
        "cofferdam:layer/tree@0.1.0",
        "cofferdam:layer/input@0.1.0",
        "cofferdam:layer/settings@0.2.0",
        "env",
    ] {
        let error = load(&[interface], all, all);
        assert!(
            matches!(&error, Error::Guest { failure: GuestFailure::Load(why), .. } if why.contains("neither the world")),
            "{interface}: {error:?}"
        );
    }
}

#[test]
fn streams_come_with_whatever_speaks_of_them() {
    for with in ["clock = true", "http = ['https://a.b']", "runtime = true"] {
        let error = load(&["wasi:io/poll@0.2.0"], with, with);
        assert!(
            matches!(&error, Error::Guest { failure: GuestFailure::Load(why), .. } if why.contains("does not export")),
            "{with}: {error:?}"
        );
    }
    let error = load(&["wasi:io/poll@0.2.0"], "clock = true", "");
    assert!(error.hint().is_some_and(|hint| hint.ends_with("grant p --clock")), "{error:?}");
}

/// The hostile plugin imports all four, each of which is missed by itself.
#[test]
fn a_real_plugin_runs_with_all_that_it_imports_and_not_without() {
    assert_eq!(Trial::new("arguments").run().said(), "0 0");
    for (withheld, flag) in [
        ("runtime = true", "--runtime"),
        ("clock = true", "--clock"),
        ("random = true", "--random"),
        ("http = ['https://unused.invalid']", "--http https://unused.invalid"),
    ] {
        let outcome = Trial::new("").withholds(withheld).run();
        assert!(outcome.report.is_none(), "it ran without {flag}");
        let hint = outcome.error().hint().expect("a hint");
        assert_eq!(hint, format!("if you trust it: cofferdam plugin grant hostile {flag}"));
    }
}

/// What is held is what was asked for *and* granted, part by part.
#[test]
fn no_more_is_held_than_was_asked_for_and_granted() {
    let of = |text: &str| -> Capabilities { manifest("verifier", text).capabilities };
    let asked = of("runtime = true\nclock = true\nread = ['/etc']\nhttp = ['https://a.b', 'https://c.d']");
    let granted =
        of("clock = true\nrandom = true\nwrite = true\nread = ['/etc', '/var']\nhttp = ['https://c.d', 'https://e.f']");
    assert_eq!(asked.effective(&granted), of("clock = true\nread = ['/etc']\nhttp = ['https://c.d']"));
    assert!(asked.effective(&Capabilities::default()).is_empty());
}
