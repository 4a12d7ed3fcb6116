use cofferdam_sdk::testing::{Host, Sample};
use cofferdam_sdk::{Entry, Failure, Node};
use serde_json::{Value, json};

use super::Policy;

const RAW: [u8; 20] = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

fn layer() -> Sample {
    Sample::new()
        .directory("usr/bin")
        .file("usr/bin/su", "su")
        .mode(0o4755)
        .file("usr/bin/wall", "wall")
        .mode(0o2755)
        .owner(0, 5)
        .file("usr/bin/ping", "ping")
        .mode(0o755)
        .attribute("security.capability", RAW)
        .file("usr/bin/ls", "ls")
        .mode(0o755)
        .directory("var/local")
        .mode(0o2775)
}

fn report(host: Host, layer: &Sample) -> Value {
    serde_json::from_str(host.inspect::<Policy>(layer).report()).expect("JSON")
}

#[test]
fn a_file_that_is_not_allowed_refuses_the_layer() {
    let run = Host::new().inspect::<Policy>(&layer());
    let reason = "is set-uid (owner 0), and `allow` does not name it";
    assert_eq!(run.result, Err(Failure::refused_at("usr/bin/su", reason)));
    assert_eq!(run.entries.len(), 2, "nothing is seen after the refusal");
    let run = Host::new().setting("allow", "usr/bin/su").inspect::<Policy>(&layer());
    assert_eq!(run.reason(), "`usr/bin/wall`: is set-gid (group 5), and `allow` does not name it");
    let run = Host::new().setting("allow", "/usr/bin/su usr/bin/w*").inspect::<Policy>(&layer());
    assert_eq!(run.reason(), "`usr/bin/ping`: has cap_net_raw=ep, and `allow` does not name it");
}

#[test]
fn allowed_files_are_reported() {
    let report = report(Host::new().setting("allow", "usr/bin/{su} usr/bin/*"), &layer());
    assert_eq!(
        report["findings"][0],
        json!({"path": "usr/bin/ping", "mode": "0755", "uid": 0, "gid": 0, "setuid": false, "setgid": false,
            "capabilities": "cap_net_raw=ep", "allowed": true})
    );
    assert_eq!((report["findings"].as_array().map(Vec::len), &report["complete"]), (Some(3), &json!(true)));
}

#[test]
fn in_mode_report_nothing_is_refused() {
    let report = report(Host::new().setting("mode", "report").setting("allow", "**/su"), &layer());
    let allowed: Vec<_> = report["findings"].as_array().expect("a list").iter().map(|f| &f["allowed"]).collect();
    assert_eq!(allowed, [&json!(false), &json!(true), &json!(false)]);
}

#[test]
fn a_slip_in_the_policy_refuses() {
    let run = Host::new().setting("mode", "reprot").inspect::<Policy>(&Sample::new());
    assert_eq!(run.reason(), "the setting `mode` is `reprot`: refuse or report");
}

#[test]
fn a_hard_link_to_an_allowed_file_is_a_file_of_its_own() {
    let layer = layer().hard_link("tmp/innocent", "usr/bin/su");
    let host = || Host::new().setting("allow", "usr/bin/*");
    let run = host().inspect::<Policy>(&layer);
    let reason = "`tmp/innocent`: links to `usr/bin/su`, which is set-uid (owner 0), and `allow` does not name it";
    assert_eq!(run.reason(), reason);
    let run = host().setting("allow", "usr/bin/* tmp/innocent").inspect::<Policy>(&layer);
    assert!(run.report().contains(r#""link-to":"usr/bin/su""#));
    // What links to a link is a link too.
    let chain = layer.hard_link("tmp/second", "tmp/innocent");
    let run = host().setting("allow", "usr/bin/* tmp/innocent").inspect::<Policy>(&chain);
    assert!(run.reason().starts_with("`tmp/second`"), "{}", run.reason());
}

#[test]
fn what_is_replaced_is_not_reported() {
    let layer = Sample::new().file("a", "x").mode(0o4755).file("a", "y").hard_link("b", "a").whiteout("c");
    assert_eq!(report(Host::new().setting("mode", "report"), &layer)["findings"], json!([]));
}

#[test]
fn paths_that_are_no_text_are_given_in_hex_too() {
    let layer = Sample::new().file(b"a\xff".to_vec(), "x").mode(0o4755);
    let report = report(Host::new().setting("mode", "report"), &layer);
    assert_eq!(report["findings"][0]["path-hex"], "61ff");
}

#[test]
fn the_report_is_bounded() {
    let mut layer = Sample::new();
    for number in 0..20_000 {
        let mut entry = Entry::new(format!("{number}"), Node::File { size: 0 });
        entry.mode = 0o4755;
        layer = layer.entry(entry, "");
    }
    let run = Host::new().setting("mode", "report").inspect::<Policy>(&layer);
    assert!(run.report().len() < 2 << 20 && run.report().contains(r#""complete":false"#));
    let run = Host::new().setting("allow", "**").inspect::<Policy>(&layer);
    assert!(matches!(run.result, Err(Failure::Limit(_))));
}
