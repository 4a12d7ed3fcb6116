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
fn an_empty_setting_is_not_set() {
    let run = Host::new().setting("mode", "").setting("allow", "").inspect::<Policy>(&layer());
    assert!(run.reason().starts_with("`usr/bin/su`"), "{}", run.reason());
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

/// What `refuse` says of this layer, if `su` and what else is named are allowed.
fn refusal(allow: &str, layer: &Sample) -> String {
    Host::new().setting("allow", format!("usr/bin/su {allow}")).inspect::<Policy>(layer).reason()
}

/// The paths that `report` lists, those that are unclear with a question mark.
fn listed(layer: &Sample) -> Vec<String> {
    let report = report(Host::new().setting("mode", "report"), layer);
    let text = |finding: &Value| {
        let mark = if finding["unclear"] == true { "?" } else { "" };
        [finding["path"].as_str().expect("a text"), mark].concat()
    };
    report["findings"].as_array().expect("a list").iter().map(text).collect()
}

fn su(layer: Sample) -> Sample {
    layer.file("usr/bin/su", "su").mode(0o4755)
}

#[test]
fn a_hard_link_may_come_first() {
    let layer = su(Sample::new().hard_link("tmp/evil", "usr/bin/su"));
    let reason = "`tmp/evil`: links to `usr/bin/su`, which is set-uid (owner 0), and `allow` does not name it";
    assert_eq!(refusal("", &layer), reason);
    assert_eq!(refusal("tmp/evil", &layer), "");
    assert_eq!(listed(&layer), ["tmp/evil", "usr/bin/su"]);
    // Also a chain of them, in either order.
    let forth = Sample::new().hard_link("a", "b").hard_link("b", "c").hard_link("c", "usr/bin/su");
    let back = Sample::new().hard_link("c", "usr/bin/su").hard_link("b", "c").hard_link("a", "b");
    for chain in [su(forth), su(back)] {
        assert!(refusal("b c", &chain).starts_with("`a`: "), "{}", refusal("b c", &chain));
        assert_eq!(listed(&chain), ["a", "b", "c", "usr/bin/su"]);
    }
}

#[test]
fn a_link_that_is_replaced_before_its_target_comes_is_none() {
    let layer =
        su(Sample::new().hard_link("a", "usr/bin/su").file("a", "").hard_link("b/c", "usr/bin/su").file("b", ""));
    assert_eq!((refusal("", &layer), listed(&layer)), (String::new(), vec!["usr/bin/su".to_owned()]));
    // What was linked to it meanwhile keeps what it was.
    let layer = su(Sample::new()).symlink("l", "usr/bin").hard_link("a", "l/su").hard_link("b", "a").file("a", "");
    assert_eq!(listed(&layer), ["b?", "usr/bin/su"]);
    assert!(refusal("b", &layer).starts_with("`b`: "), "{}", refusal("b", &layer));
}

#[test]
fn a_hard_link_may_lead_through_a_symbolic_link() {
    let behind = |layer: Sample| layer.symlink("l", "usr/bin").hard_link("tmp/evil", "l/su");
    let ahead = su(Sample::new()).hard_link("tmp/evil", "l/su").symlink("l", "/usr/bin");
    let gone = behind(su(Sample::new())).directory("l");
    for layer in [behind(su(Sample::new())), su(behind(Sample::new())), ahead, gone] {
        let reason = "`tmp/evil`: links to `l/su`, which may be one that is set-uid (owner 0); a link of the layer lies on \
            the way, so the place is not known, and `allow` does not count";
        assert_eq!(refusal("tmp/evil", &layer), reason);
        assert_eq!(listed(&layer), ["tmp/evil?", "usr/bin/su"]);
    }
    // The link keeps what its target was, though that is replaced.
    let replaced = behind(su(Sample::new())).file("usr/bin/su", "");
    assert!(refusal("**", &replaced).starts_with("`tmp/evil`: "), "{}", refusal("**", &replaced));
    assert_eq!(listed(&replaced), ["tmp/evil?"]);
    // Nothing of this name has rights.
    assert_eq!(refusal("", &su(Sample::new()).symlink("l", "usr/bin").hard_link("tmp/fine", "l/ls")), "");
}

#[test]
fn what_lies_behind_a_link_is_never_allowed() {
    let evil = |layer: Sample, path: &str| layer.file(path, "").mode(0o4755);
    let link = Sample::new().symlink("opt/lnk", "/usr/bin");
    for layer in [
        evil(link.clone(), "opt/lnk/evil"),
        evil(link.clone().hard_link("opt/hard", "opt/lnk"), "opt/hard/evil"),
        // The second link lies in usr/bin.
        evil(link.clone().symlink("opt/lnk/x", "/tmp"), "usr/bin/x/evil"),
        su(link.clone()).hard_link("opt/lnk/evil", "usr/bin/su"),
        su(link.clone().hard_link("opt/lnk/evil", "usr/bin/su")),
    ] {
        let reason = refusal("**", &layer);
        assert!(reason.contains("evil`: ") && reason.contains("a link of the layer lies on the way"), "{reason}");
        assert!(listed(&layer).iter().any(|path| path.ends_with("evil?")), "{:?}", listed(&layer));
    }
    // A directory takes the link's place, and what got through it stays where it is.
    let layer = evil(evil(link, "opt/lnk/evil").directory("opt/lnk"), "opt/lnk/fine");
    assert_eq!(listed(&layer), ["opt/lnk/evil?", "opt/lnk/fine"]);
}

#[test]
fn what_is_replaced_with_its_directory_is_not_reported() {
    let layer = Sample::new().file("d/e/su", "").mode(0o4755).file("d-", "").mode(0o4755);
    assert_eq!(listed(&layer.clone().directory("d/e").directory("d")), ["d-", "d/e/su"]);
    assert_eq!(listed(&layer.clone().whiteout("d").whiteout("d/e/su")), ["d-", "d/e/su"]);
    for gone in [
        layer.clone().directory("d/e/su"),
        layer.clone().file("d/e/su/below", ""),
        layer.clone().file("d/e", ""),
        layer.clone().symlink("d", "x"),
        layer.clone().hard_link("d", "x"),
    ] {
        assert_eq!(listed(&gone), ["d-"]);
    }
    assert_eq!(listed(&layer.hard_link("d/e/su", "d/e/su")), ["d-", "d/e/su"], "a link to itself");
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

#[test]
fn the_links_are_bounded() {
    let target = "x".repeat(4000);
    let hard = (0..9000).fold(Sample::new(), |layer, number| layer.hard_link(format!("{number}"), target.clone()));
    let soft = (0..9000).fold(Sample::new(), |layer, number| layer.symlink(format!("{number}{target}"), "y"));
    for layer in [hard, soft] {
        let run = Host::new().inspect::<Policy>(&layer);
        assert_eq!(run.result, Err(Failure::limit("too many links")));
        let run = Host::new().setting("mode", "report").inspect::<Policy>(&layer);
        assert!(run.report().contains(r#""complete":false"#), "{}", run.report());
    }
}

#[test]
fn many_links_are_judged_in_time() {
    // Each name waits for the next, and all of them for one name.
    let chain =
        (0..20_000).fold(Sample::new(), |layer, at| layer.hard_link(format!("d{at}/su"), format!("d{}/su", at + 1)));
    let layer = su(chain.hard_link("d20000/su", "l/su")).symlink("l", "usr/bin");
    assert!(refusal("**", &layer).starts_with("`d20000/su`: "), "{}", refusal("**", &layer));
    let run = Host::new().setting("mode", "report").inspect::<Policy>(&layer);
    assert!(run.report().contains(r#""complete":false"#) && run.report().len() < 2 << 20);
}
