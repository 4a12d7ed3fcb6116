use std::collections::BTreeSet;

use cofferdam_sdk::testing::{Host, Sample};
use cofferdam_sdk::{Entry, Node};
use serde_json::Value;

use super::Sbom;

const STATUS: &str = "\
Package: adduser
Status: install ok installed
Maintainer: Debian <a@b>
Architecture: all
Version: 3.134
Description: add and remove users
 a line: that is no field

Package: gone
Status: deinstall ok config-files
Architecture: amd64
Version: 1

Package: libc6
Status: install ok installed
Architecture: amd64
Source: glibc (2.36-9)
Version: 2.36-9+deb12u4
";

const APK: &str = "C:Q1=\nP:musl\nV:1.2.5-r0\nA:x86_64\nL:MIT\no:musl\nF:lib\nR:ld\n\nP:zlib\nV:1.3.1-r1\nL:Zlib\n\n";

const LOCK: &str = r#"{"name": "app", "lockfileVersion": 3, "packages": {
    "": {"name": "app", "version": "1.0.0", "dependencies": {"a": "^1"}},
    "node_modules/a": {"version": "1.0.1", "license": "ISC", "dependencies": {"b": "2"}},
    "node_modules/a/node_modules/@s/b": {"version": "2.0.0", "dev": true},
    "node_modules/alias": {"name": "real", "version": "3.0.0"},
    "packages/own": {"version": "0.0.1"},
    "node_modules/own": {"resolved": "packages/own", "link": true}}}"#;

const OLD_LOCK: &str = r#"{"lockfileVersion": 1, "dependencies": {
    "a": {"version": "1.0.0", "requires": {"b": "^1"}, "dependencies": {"b": {"version": "1.5.0"}}}}}"#;

fn layer() -> Sample {
    Sample::new()
        .named(
            "sha256:b5bb9d8014a0f9b1d61e21e796d78dccdf1352f23cd32812f4850b878ae4944c",
            "application/vnd.oci.image.layer.v1.tar",
        )
        .file("usr/lib/os-release", "NAME=\"Debian\"\nID=debian\nVERSION_ID=\"12\"\n")
        .file("var/lib/dpkg/status", STATUS)
        .file("var/lib/dpkg/status.d/tzdata", "Package: tzdata\nVersion: 2024a\nArchitecture: all\n")
        .file("var/lib/dpkg/status.d/tzdata.md5sums", "Package: no\nVersion: 1\n")
        .file("app/package-lock.json", LOCK)
        .file("app/node_modules/a/package.json", r#"{"name": "a", "version": "1.0.1", "license": {"type": "ISC"}}"#)
        .file("app/node_modules/@s/b/package.json", r#"{"name": "@s/b", "version": "2.0.0", "license": ["x"]}"#)
        .file("app/node_modules/a/esm/package.json", r#"{"type": "module"}"#)
        .file("app/package.json", r#"{"name": "app", "version": "1.0.0"}"#)
        .file(
            "usr/lib/python3/dist-packages/Foo_Bar-1.0.dist-info/METADATA",
            "Metadata-Version: 2.1\nName: Foo_Bar\nVersion: 1.0\nLicense: MIT\n\nName: description\n",
        )
        .file("usr/lib/python3/dist-packages/six.egg-info", "Name: six\nVersion: 1.16.0\nLicense: UNKNOWN\n")
}

fn bom(layer: &Sample) -> Value {
    serde_json::from_str(Host::new().piece(1000).inspect::<Sbom>(layer).report()).expect("JSON")
}

fn components(bom: &Value) -> &[Value] {
    bom["components"].as_array().expect("a list")
}

/// What is named as not read.
fn unread(bom: &Value) -> Vec<&str> {
    let properties = bom["metadata"]["properties"].as_array().map(Vec::as_slice).unwrap_or_default();
    let named = properties.iter().filter(|property| property["name"] == "cofferdam:sbom:unread");
    named.map(|property| property["value"].as_str().expect("a text")).collect()
}

fn urls(bom: &Value) -> Vec<&str> {
    components(bom).iter().map(|c| c["purl"].as_str().expect("a text")).collect()
}

#[test]
fn packages_of_every_kind_are_found() {
    let bom = bom(&layer());
    assert_eq!(
        urls(&bom),
        [
            "pkg:deb/debian/adduser@3.134?arch=all&distro=debian-12",
            "pkg:deb/debian/libc6@2.36-9%2Bdeb12u4?arch=amd64&distro=debian-12",
            "pkg:deb/debian/tzdata@2024a?arch=all&distro=debian-12",
            "pkg:npm/%40s/b@2.0.0",
            "pkg:npm/a@1.0.1",
            "pkg:npm/real@3.0.0",
            "pkg:pypi/foo-bar@1.0",
            "pkg:pypi/six@1.16.0",
        ]
    );
    let a = &bom["components"][4];
    assert_eq!(a["licenses"][0]["license"]["name"], "ISC");
    assert_eq!(a["evidence"]["occurrences"].as_array().map(Vec::len), Some(2), "the lock file and the package");
    assert_eq!(bom["components"][1]["properties"][0]["value"], "glibc (2.36-9)");
    assert_eq!(bom["components"][7]["licenses"], Value::Null);
    assert_eq!(bom["metadata"]["properties"], Value::Null);
}

#[test]
fn packages_of_apk_are_found() {
    let layer = Sample::new().file("etc/os-release", "ID=alpine\n").file("package-lock.json", OLD_LOCK);
    for text in [APK.to_owned(), APK.replace('\n', "\r\n"), APK.trim_end().to_owned()] {
        assert_eq!(
            urls(&bom(&layer.clone().file("usr/lib/apk/db/installed", text))),
            [
                "pkg:apk/alpine/musl@1.2.5-r0?arch=x86_64",
                "pkg:apk/alpine/zlib@1.3.1-r1",
                "pkg:npm/a@1.0.0",
                "pkg:npm/b@1.5.0"
            ]
        );
    }
}

#[test]
fn packages_between_two_states_are_there() {
    let stanza = |state: &str| format!("Package: {state}\nStatus: install ok {state}\nVersion: 1\n\n");
    let states = [
        "installed",
        "unpacked",
        "half-configured",
        "half-installed",
        "triggers-awaited",
        "triggers-pending",
        "config-files",
        "not-installed",
    ];
    let bom = bom(&Sample::new().file("var/lib/dpkg/status", states.map(stanza).concat()));
    let names: BTreeSet<_> = components(&bom).iter().map(|c| c["name"].as_str().expect("a text")).collect();
    assert_eq!(names, states[..6].iter().copied().collect());
    assert_eq!(unread(&bom), [""; 0]);
}

#[test]
fn the_distribution_is_not_guessed() {
    let layer = Sample::new().file("var/lib/dpkg/status", STATUS);
    let bom = |setting: &str, layer: &Sample| -> Value {
        let run = Host::new().setting("distribution", setting).inspect::<Sbom>(layer);
        serde_json::from_str(run.report()).expect("JSON")
    };
    let unknown = bom("", &layer);
    let component = &components(&unknown)[0];
    assert_eq!((&component["name"], &component["version"]), (&"adduser".into(), &"3.134".into()));
    assert_eq!((&component["bom-ref"], &component["purl"]), (&"deb/adduser@3.134?arch=all".into(), &Value::Null));
    assert_eq!(unknown["metadata"]["properties"][0]["name"], "cofferdam:sbom:distribution");
    let noble = bom("ubuntu-24.04", &layer);
    assert_eq!(urls(&noble)[0], "pkg:deb/ubuntu/adduser@3.134?arch=all&distro=ubuntu-24.04");
    assert_eq!(noble["metadata"]["properties"], Value::Null);
    assert_eq!(urls(&bom("ubuntu", &layer))[0], "pkg:deb/ubuntu/adduser@3.134?arch=all");
    // What the layer says counts more.
    let layer = layer.file("usr/lib/os-release", "ID=debian\n").symlink("etc/os-release", "../usr/lib/os-release");
    let said = bom("ubuntu", &layer);
    assert_eq!(urls(&said)[0], "pkg:deb/debian/adduser@3.134?arch=all");
    assert_eq!(said["metadata"]["properties"], Value::Null, "a link to os-release is no package's");
    let run = Host::new().setting("distribution", "Ubuntu 24.04").inspect::<Sbom>(&layer);
    assert!(run.reason().starts_with("the setting `distribution` is `Ubuntu 24.04`"), "{}", run.reason());
}

#[test]
fn old_lock_files_say_where_packages_are_from() {
    let lock = r#"{"lockfileVersion": 1, "dependencies": {
        "al": {"version": "npm:real@1.0.0"},
        "am": {"version": "npm:@scope/real@2.0.0-rc.1+x"},
        "fi": {"version": "file:../fi"},
        "gi": {"version": "git+ssh://git@github.com/a/gi.git#12ab", "resolved": false},
        "hu": {"version": "github:a/hu#34cd"},
        "ta": {"version": "https://user:key@host/ta-1.0.0.tgz", "integrity": "sha512-x"}}}"#;
    let bom = bom(&Sample::new().file("package-lock.json", lock));
    let names: Vec<_> = components(&bom).iter().map(|c| (c["bom-ref"].as_str(), c["version"].as_str())).collect();
    assert_eq!(
        names,
        [
            (Some("pkg:npm/%40scope/real@2.0.0-rc.1%2Bx"), Some("2.0.0-rc.1+x")),
            (Some("pkg:npm/gi?vcs_url=git%2Bssh:%2F%2Fgit%40github.com%2Fa%2Fgi.git%4012ab"), None),
            (Some("pkg:npm/hu?vcs_url=git%2Bhttps:%2F%2Fgithub.com%2Fa%2Fhu%4034cd"), None),
            (Some("pkg:npm/real@1.0.0"), Some("1.0.0")),
            (Some("pkg:npm/ta?download_url=https:%2F%2Fhost%2Fta-1.0.0.tgz"), None),
            (Some("npm/fi"), None),
        ]
    );
    assert_eq!(components(&bom)[5]["purl"], Value::Null);
    assert_eq!(unread(&bom), [""; 0]);
}

#[test]
fn new_lock_files_too() {
    let lock = r#"{"lockfileVersion": 3, "packages": {
        "node_modules/gi": {"version": "1.0.0", "resolved": "git+ssh://git@github.com/a/gi.git#12ab"},
        "node_modules/re": {"version": "1.0.0", "resolved": "https://registry.npmjs.org/re/-/re-1.0.0.tgz"}}}"#;
    let wanted = ["pkg:npm/gi@1.0.0?vcs_url=git%2Bssh:%2F%2Fgit%40github.com%2Fa%2Fgi.git%4012ab", "pkg:npm/re@1.0.0"];
    assert_eq!(urls(&bom(&Sample::new().file("package-lock.json", lock))), wanted);
}

#[test]
fn the_same_layer_gives_the_same_report() {
    let report = |piece| Host::new().piece(piece).inspect::<Sbom>(&layer()).report().to_owned();
    assert_eq!(report(1), report(1 << 20));
}

#[test]
fn a_later_file_replaces_an_earlier_one() {
    let layer = Sample::new().file("var/lib/dpkg/status", STATUS).file("var/lib/dpkg/status", "");
    assert_eq!(urls(&bom(&layer)), [""; 0]);
    let layer = Sample::new().file("var/lib/dpkg/status", STATUS).symlink("var/lib/dpkg/status", "x");
    let linked = bom(&layer);
    assert_eq!((urls(&linked), unread(&linked)), (vec![], vec!["var/lib/dpkg/status"]));
    let layer = layer.file("var/lib/dpkg/status", "");
    assert_eq!(unread(&bom(&layer)), [""; 0]);
}

#[test]
fn what_cannot_be_read_is_named() {
    let layer = Sample::new()
        .file("a/node_modules/x/package.json", r#"{"name": "x", "#)
        .file("package-lock.json", "[]")
        .file("var/lib/dpkg/status", vec![b'\n'; (8 << 20) + 1])
        .file("x.dist-info/METADATA", b"\xff\0\0".to_vec());
    let named = ["a/node_modules/x/package.json", "package-lock.json", "var/lib/dpkg/status", "x.dist-info/METADATA"];
    assert_eq!(unread(&bom(&layer)), named);
    for (path, text) in [
        ("var/lib/dpkg/status", "garbage"),
        ("var/lib/dpkg/status", "Name: garbage\n"),
        ("var/lib/dpkg/status", "Package: a\nStatus: install ok installed\n"),
        ("var/lib/dpkg/status.d/a", "\u{1}"),
        ("lib/apk/db/installed", "garbage"),
        ("package-lock.json", r#"{"dependencies": {"": {"version": "1.0.0"}}}"#),
        ("node_modules/x/package.json", r#"{"name": "x", "version": "1\n"}"#),
    ] {
        let bom = bom(&Sample::new().file(path, text));
        assert_eq!((components(&bom), unread(&bom)), (&[][..], vec![path]), "{text}");
    }
    // What is in order beside it is there.
    let bom = bom(&Sample::new().file("lib/apk/db/installed", format!("{APK}P:nothing\n")));
    assert_eq!((components(&bom).len(), unread(&bom)), (2, vec!["lib/apk/db/installed"]));
}

#[test]
fn links_and_devices_are_named() {
    let paths = [
        "node_modules/.pnpm/x@1/node_modules/x/package.json",
        "node_modules/@s/y/package.json",
        "package-lock.json",
        "usr/lib/apk/db/installed",
        "var/lib/dpkg/status",
        "x.dist-info/METADATA",
        "y.egg-info",
    ];
    for make in [
        |layer: Sample, path: &str| layer.hard_link(path, "else/where"),
        |layer: Sample, path: &str| layer.symlink(path, "/else/where"),
        |layer: Sample, path: &str| layer.entry(Entry::new(path, Node::Fifo), ""),
    ] {
        let bom = bom(&paths.iter().fold(Sample::new(), |layer, path| make(layer, path)));
        assert_eq!((components(&bom), unread(&bom)), (&[][..], paths.to_vec()));
    }
    // Directories are no descriptions, and what only removes is nothing of this layer.
    let none = paths.iter().fold(Sample::new(), |layer, path| layer.directory(*path).whiteout(*path));
    assert_eq!(unread(&bom(&none)), [""; 0]);
}

#[test]
fn the_report_is_bounded() {
    let mut status = String::new();
    for number in 0..10_000 {
        status += &["Package: p", &number.to_string(), "\nVersion: 1\nSource: ", &"s".repeat(100), "\n\n"].concat();
    }
    let mut layer = Sample::new();
    for number in 0..24 {
        layer = layer.file(format!("var/lib/dpkg/status.d/{number}"), status.clone());
    }
    let run = Host::new().inspect::<Sbom>(&layer);
    assert!(run.report().len() < 13 << 20, "{} bytes", run.report().len());
    assert!(run.report().contains("cofferdam:sbom:unread"));
    let mut layer = Sample::new();
    for number in 0..4000 {
        layer = layer.file(format!("{}{number}/package-lock.json", "\u{1}".repeat(200)), "?");
    }
    let run = Host::new().inspect::<Sbom>(&layer);
    assert!(run.report().len() < 2 << 20, "{} bytes", run.report().len());
    assert!(run.report().contains("cofferdam:sbom:unread-more"));
}

#[test]
fn hostile_files_are_survived() {
    let mut state = 3_u64;
    let mut random = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    let paths = [
        "var/lib/dpkg/status",
        "lib/apk/db/installed",
        "package-lock.json",
        "node_modules/a/package.json",
        "x.dist-info/METADATA",
        "etc/os-release",
    ];
    let deep = format!(r#"{{"dependencies": {}"#, r#"{"a": {"version": "1", "dependencies": "#.repeat(2000));
    for path in paths {
        for text in [STATUS, APK, LOCK, OLD_LOCK, &deep] {
            for _ in 0..40 {
                let mut bytes = text.as_bytes().to_vec();
                let at = bytes.len() * usize::from(random()) / 256;
                bytes[at] = random();
                bytes.truncate(bytes.len() - usize::from(random()).min(bytes.len()));
                let run = Host::new().inspect::<Sbom>(&Sample::new().file(path, bytes));
                serde_json::from_str::<Value>(run.report()).expect("JSON");
            }
        }
    }
}

/// For `validate.py` of the host's tests, by hand: `SBOM=out.json cargo test -p sbom`.
#[test]
fn a_report_is_written_where_it_is_asked_for() {
    let Some(path) = std::env::var_os("SBOM") else { return };
    let layer = std::env::var_os("SBOM_LAYER").map_or_else(layer, |path| Sample::from_file(path).expect("a layer"));
    std::fs::write(path, Host::new().inspect::<Sbom>(&layer).report()).expect("a writable path");
}
