//! Requests: the rules, the addresses, and the budgets.

use std::io::Write as _;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use cofferdam::sandbox::Resolver;
use cofferdam::{Error, GuestFailure};

use crate::server::{Server, answer, drain, read_chunks};
use crate::trial::Trial;

/// A resolver in whose world each name has these addresses.
fn resolver(names: &[(&str, &[&str])]) -> Resolver {
    let names: Vec<(String, Vec<IpAddr>)> = (names.iter())
        .map(|(name, addresses)| {
            ((*name).to_owned(), addresses.iter().map(|address| address.parse().expect("an address")).collect())
        })
        .collect();
    Resolver::new(move |name| {
        let found = names.iter().find(|(known, _)| known == name);
        found.map(|(_, addresses)| addresses.clone()).ok_or_else(|| std::io::Error::other("no such name"))
    })
}

#[test]
fn a_granted_request_is_made() {
    let server = Server::hello();
    let url = server.at("127.0.0.1");
    let outcome = Trial::new(format!("get {url}/a?b=c\nsend HEAD {url}/")).http(&url).run();
    let report = outcome.report.clone().expect("a report");
    assert_eq!((report.requests, report.denials.len()), (2, 0));
    assert!(report.bytes > 5 && report.bytes < 1000, "{}", report.bytes);
    assert_eq!(outcome.said(), "200, 5 bytes: hello; 200, 0 bytes: ");
    let heads = server.heads();
    assert!(heads[0].starts_with("GET /a?b=c HTTP/1.1\r\n"), "{heads:?}");
    assert!(
        !heads[0].to_lowercase().contains("content-length") && !heads[0].to_lowercase().contains("transfer-encoding")
    );
}

#[test]
fn a_body_is_sent_where_the_method_is_granted() {
    let server = Server::new(|_, stream| {
        let length = read_chunks(stream);
        answer(stream, "201 Created", "", length.to_string().as_bytes());
    });
    let url = server.at("127.0.0.1");
    let rule = format!("POST {url}");
    assert_eq!(Trial::new(format!("send PUT {url}/ 5000")).http(&rule).run().said(), "not: HttpRequestDenied");
    let sent = format!("send POST {url}/ 5000 content-type:text/plain");
    assert_eq!(Trial::new(&sent).http(&rule).run().said(), "201, 4 bytes: 5000");
    assert_eq!(Trial::new(&sent).http(&url).run().said(), "not: HttpRequestDenied");
    assert_eq!(server.heads().len(), 1);
}

#[test]
fn what_no_rule_allows_is_denied_before_anything_is_sent() {
    let (granted, other) = (Server::hello(), Server::hello());
    let (url, port) = (granted.at("127.0.0.1"), granted.port());
    for attempt in [
        format!("get {}/", other.at("127.0.0.1")),
        format!("get http://localhost:{port}/"),
        format!("get https://127.0.0.1:{port}/"),
        format!("get http://127.0.0.1.:{port}/"),
        format!("get http://127.1:{port}/"),
        format!("get http://2130706433:{port}/"),
        format!("get http://0x7f000001:{port}/"),
        format!("get http://[::ffff:127.0.0.1]:{port}/"),
        format!("get http://127.0.0.1:{port}@127.0.0.1:{}/", other.port()),
        format!("get http://user@127.0.0.1:{port}/"),
        "get http://169.254.169.254/latest/meta-data".to_owned(),
        format!("send PUT {url}/"),
        format!("send CONNECT {url}/"),
        format!("send TRACE {url}/"),
        format!("send GETX {url}/"),
        format!("send get {url}/"),
    ] {
        let outcome = Trial::new(&attempt).http(&url).run();
        let report = outcome.report.clone().expect("a report");
        assert_eq!((report.requests, report.bytes), (0, 0), "{attempt}");
        let said = outcome.said();
        assert!(said.starts_with("not: "), "{attempt}: {said}");
    }
    assert!(granted.heads().is_empty() && other.heads().is_empty());
}

#[test]
fn a_denied_request_is_told_with_its_grant() {
    let server = Server::hello();
    let url = server.at("127.0.0.1");
    let trial = || Trial::new(format!("get {url}/")).http(&url).withholds(&format!("http = ['{url}']"));
    let outcome = trial().run();
    let denial = outcome.report.clone().expect("a report").denials.pop().expect("a denial");
    assert_eq!(denial.what, format!("GET {url}"));
    assert_eq!(denial.grant, Some(format!("cofferdam plugin grant hostile --http {url}")));
    assert_eq!(outcome.said(), "not: HttpRequestDenied");
    let error = trial().setting("must", "").run().error();
    assert_eq!(error.hint(), Some(format!("if you trust it: cofferdam plugin grant hostile --http {url}")));
    // What it does not even ask for, no command grants.
    let error = Trial::new(format!("get {url}/")).setting("must", "").run().error();
    assert!(matches!(error, Error::Refused { .. }) && error.hint().is_none(), "{error:?}");
}

#[test]
fn a_public_name_does_not_lead_to_a_private_address() {
    let server = Server::hello();
    let url = server.at("public.test");
    for addresses in [
        &["127.0.0.1"][..],
        &["169.254.169.254"],
        &["::1"],
        &["::ffff:127.0.0.1"],
        &["64:ff9b::7f00:1"],
        &["10.0.0.1"],
        &["fd00::1"],
        &["0.0.0.0"],
        // One among others.
        &["93.184.215.14", "127.0.0.1"],
    ] {
        let mut trial = Trial::new(format!("get {url}/")).http(&url);
        trial.context.resolver = Some(resolver(&[("public.test", addresses)]));
        let outcome = trial.run();
        let denials = outcome.report.clone().expect("a report").denials;
        assert_eq!(denials.len(), 1, "{addresses:?}");
        assert_eq!(denials[0].grant, Some(format!("cofferdam plugin grant hostile --http-private {url}")));
        assert_eq!(outcome.said(), "not: DestinationIpProhibited", "{addresses:?}");
    }
    assert!(server.heads().is_empty());
}

/// The control, and that nobody asks twice: an answer that changes between two questions is of no use.
#[test]
fn a_private_address_is_reached_by_who_was_granted_it_and_resolved_once() {
    let server = Server::hello();
    let url = server.at("private.test");
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let mut trial = Trial::new(format!("get {url}/")).http(&url).private(&url);
    trial.context.resolver = Some(Resolver::new(move |_| {
        let first = count.fetch_add(1, Ordering::Relaxed) == 0;
        Ok(vec![if first { "127.0.0.1" } else { "169.254.169.254" }.parse().expect("an address")])
    }));
    assert_eq!(trial.run().said(), "200, 5 bytes: hello");
    assert_eq!(asked.load(Ordering::Relaxed), 1);
    let host = format!("host: private.test:{}\r\n", server.port());
    assert!(server.heads()[0].to_lowercase().contains(&host), "{:?}", server.heads());
}

#[test]
fn a_private_address_is_granted_for_one_name() {
    let server = Server::hello();
    let (one, other) = (server.at("one.test"), server.at("other.test"));
    let mut trial = Trial::new(format!("get {one}/\nget {other}/")).http(&one).http(&other).private(&one);
    trial.context.resolver = Some(resolver(&[("one.test", &["127.0.0.1"]), ("other.test", &["127.0.0.1"])]));
    assert_eq!(trial.run().said(), "200, 5 bytes: hello; not: DestinationIpProhibited");
}

#[test]
fn the_registry_is_that_of_the_image_wherever_it_lies() {
    let server = Server::hello();
    let url = server.at("registry.test");
    let attempt = format!("get {url}/v2/");
    let mut trial = Trial::new(&attempt).http("registry");
    trial.context.resolver = Some(resolver(&[("registry.test", &["127.0.0.1"])]));
    trial.context.registry = Some(url.parse().expect("an authority"));
    assert_eq!(trial.run().said(), "200, 5 bytes: hello");
    // Of another image it is another one.
    for registry in [None, Some("http://other.test"), Some("https://registry.test")] {
        let mut trial = Trial::new(&attempt).http("registry");
        trial.context.resolver = Some(resolver(&[("registry.test", &["127.0.0.1"])]));
        trial.context.registry = registry.map(|text| text.parse().expect("an authority"));
        assert_eq!(trial.run().said(), "not: HttpRequestDenied", "{registry:?}");
    }
}

#[test]
fn a_redirect_is_the_plugins_to_follow_and_is_held_against_the_rules_again() {
    let inner = Server::hello();
    let target = format!("{}/latest", inner.at("127.0.0.1"));
    let to = target.clone();
    let outer = Server::new(move |_, stream| answer(stream, "302 Found", &format!("Location: {to}\r\n"), b""));
    let url = outer.at("127.0.0.1");
    let said = Trial::new(format!("get {url}/\nget {target}")).http(&url).run().said();
    assert_eq!(said, format!("302 to {target}, 0 bytes: ; not: HttpRequestDenied"));
    assert!(inner.heads().is_empty());
}

#[test]
fn headers_of_the_connection_are_the_hosts() {
    let server = Server::hello();
    let url = server.at("127.0.0.1");
    for header in [
        "host:evil.test",
        "Host:evil.test",
        "connection:keep-alive",
        "transfer-encoding:chunked",
        "upgrade:h2c",
        "proxy-authorization:x",
        "keep-alive:1",
    ] {
        let said = Trial::new(format!("send GET {url}/ {header}")).http(&url).run().said();
        assert!(said.contains("Forbidden"), "{header}: {said}");
    }
    assert!(server.heads().is_empty());
    let said = Trial::new(format!("send GET {url}/ x-own:1 te:trailers expect:100-continue")).http(&url).run().said();
    assert_eq!(said, "200, 5 bytes: hello");
    let head = server.heads()[0].to_lowercase();
    assert!(
        head.contains("x-own: 1\r\n") && head.contains(&format!("host: 127.0.0.1:{}\r\n", server.port())),
        "{head}"
    );
    for gone in ["te:", "expect:", "authorization:", "cookie:", "via:", "proxy"] {
        assert!(!head.contains(&format!("\n{gone}")), "{head}");
    }
}

#[test]
fn requests_are_counted() {
    let server = Server::hello();
    let url = server.at("127.0.0.1");
    let trial = |times: usize| Trial::new(format!("get {url}/\n").repeat(times)).http(&url).limit("http-requests", "3");
    assert_eq!(trial(3).run().said.expect("three requests").matches("200").count(), 3);
    let outcome = trial(5).run();
    assert_eq!(outcome.report.as_ref().map(|report| report.requests), Some(3));
    assert_eq!(outcome.limit(), "requests of a plugin");
    assert_eq!(server.heads().len(), 6);
}

#[test]
fn what_arrives_is_counted() {
    let endless = Server::new(|_, stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n");
        while stream.write_all(&[b'x'; 4096]).is_ok() {}
    });
    let url = endless.at("127.0.0.1");
    let outcome = Trial::new(format!("get {url}/")).http(&url).limit("http-bytes", "100KiB").run();
    assert_eq!(outcome.limit(), "bytes sent and received by a plugin");
    // Headers are bytes too.
    let wordy = Server::new(|_, stream| {
        answer(stream, "200 OK", &format!("X-Long: {}\r\n", "x".repeat(20_000)), b"");
    });
    let url = wordy.at("127.0.0.1");
    let trial = |limit: &str| Trial::new(format!("get {url}/")).http(&url).limit("http-bytes", limit).run();
    assert_eq!(trial("10KiB").limit(), "bytes sent and received by a plugin");
    assert_eq!(trial("100KiB").said(), "200, 0 bytes: ");
}

#[test]
fn what_is_sent_is_counted() {
    let server = Server::new(|_, stream| drain(stream));
    let url = server.at("127.0.0.1");
    let trial = |attempt: String| Trial::new(attempt).http(format!("POST {url}")).limit("http-bytes", "100KiB");
    let outcome = trial(format!("send POST {url}/ 10000000")).run();
    assert_eq!(outcome.limit(), "bytes sent and received by a plugin");
    let header = "x".repeat(120_000);
    assert_eq!(trial(format!("send POST {url}/ x-long:{header}")).run().limit(), "bytes sent and received by a plugin");
    assert!(server.heads().len() <= 1);
}

#[test]
fn a_silent_server_is_not_waited_for_for_ever() {
    let server = Server::silent();
    let url = server.at("127.0.0.1");
    let outcome = Trial::new(format!("get {url}/")).http(&url).limit("plugin-wait", "500ms").run();
    assert!(matches!(outcome.error(), Error::Guest { failure: GuestFailure::Waited, .. }));
    // One that comes in drops.
    let dripping = Server::new(|_, stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nx");
        drain(stream);
    });
    let url = dripping.at("127.0.0.1");
    let outcome = Trial::new(format!("get {url}/")).http(&url).limit("plugin-wait", "500ms").run();
    assert!(matches!(outcome.error(), Error::Guest { failure: GuestFailure::Waited, .. }));
}

/// A plugin that is in a hurry can say so, and goes on.
#[test]
fn the_plugins_own_patience_counts() {
    let server = Server::silent();
    let url = server.at("127.0.0.1");
    let said = Trial::new(format!("get {url}/\narguments")).http(&url).setting("connect-ms", "200").run().said();
    assert!(said.starts_with("not: ") && said.contains("Timeout") && said.ends_with("; 0 0"), "{said}");
}

#[test]
fn what_is_not_there_is_told() {
    let port = Server::hello().port();
    let url = format!("http://127.0.0.1:{port}");
    assert_eq!(Trial::new(format!("get {url}/")).http(&url).run().said(), "not: ConnectionRefused");
    let mut trial = Trial::new("get http://no.test/").http("http://no.test");
    trial.context.resolver = Some(resolver(&[]));
    assert!(trial.run().said().starts_with("not: D"));
}

/// TLS that does not suit is no reason to speak without.
#[test]
fn https_is_never_http() {
    let server = Server::hello();
    let url = format!("https://127.0.0.1:{}", server.port());
    let said = Trial::new(format!("get {url}/")).http(&url).run().said();
    assert!(said.starts_with("not: "), "{said}");
    assert!(server.heads().is_empty());
}
