//! Manifests: what is asked for, what is taken, and what a registry in trouble is given.

use std::sync::atomic::{AtomicUsize, Ordering};

use cofferdam_core::error::ErrorKind;
use cofferdam_documents::RawDocument;

use super::*;
use crate::image_source::{Failure, Retry};

async fn resolve(server: &Server, rest: &str) -> Result<RawDocument, Failure> {
    registries(server, Auth::Anonymous).source(reference(server, rest)).resolve().await
}

#[tokio::test]
async fn a_manifest_comes_as_it_is() {
    let image = Image::new(&[b"layer"]);
    let served = image.clone();
    let server = Server::new(move |request| served.serve(request));
    let document = resolve(&server, "a/b").await.unwrap();
    assert_eq!((document.bytes.as_ref(), &document.digest), (image.manifest.as_bytes(), &image.digest()));
    let request = server.requests().remove(0);
    assert_eq!(request.path, "/v2/a/b/manifests/latest");
    assert!(request.header("accept").unwrap().contains(MANIFEST));
    assert_eq!(request.header("authorization"), None);
}

#[tokio::test]
async fn a_manifest_that_is_not_what_was_asked_for_is_refused() {
    let image = Image::new(&[b"layer"]);
    let server = Server::new(move |_| Reply::ok(&image.manifest).with("Content-Type", MANIFEST));
    let failure = resolve(&server, &format!("a@{}", Digest::of(b"other"))).await.unwrap_err();
    assert!(matches!(failure.error, Error::DigestMismatch { .. }), "{}", failure.error);
    assert_eq!(failure.retry, Retry::Never);
}

#[tokio::test]
async fn a_registry_that_contradicts_itself_is_refused() {
    let image = Image::new(&[b"layer"]);
    let said = Digest::of(b"other").to_string();
    let server = Server::new(move |_| Reply::ok(&image.manifest).with("Docker-Content-Digest", &said));
    let failure = resolve(&server, "a").await.unwrap_err();
    assert!(matches!(failure.error, Error::DigestMismatch { .. }), "{}", failure.error);
}

/// Caching and rewriting registries send the digest of something else.
#[tokio::test]
async fn what_was_asked_for_by_digest_goes_by_its_digest() {
    let image = Image::new(&[b"layer"]);
    for said in [Digest::of(b"other").to_string(), image.digest().hex().to_owned(), format!("\"{}\"", image.digest())] {
        let (served, wrong) = (image.clone(), said.clone());
        let server = Server::new(move |request| served.serve(request).with("Docker-Content-Digest", &wrong));
        let document = resolve(&server, &format!("a@{}", image.digest())).await.unwrap_or_else(|_| panic!("{said}"));
        assert_eq!(document.digest, image.digest());
    }
}

#[tokio::test]
async fn a_huge_manifest_is_not_read() {
    let endless = Reply::ok(vec![b' '; 1 << 20]).endless();
    let declared = endless.clone().with("Content-Length", "5000000");
    let chunked = endless.with("Transfer-Encoding", "chunked");
    for reply in [declared, chunked] {
        let server = Server::new(move |_| reply.clone());
        let failure = resolve(&server, "a").await.unwrap_err();
        assert!(matches!(failure.error, Error::Limit { limit: 4_194_304, .. }), "{}", failure.error);
        assert!(server.sent() < 64 << 20, "{} bytes were taken", server.sent());
    }
}

#[tokio::test]
async fn the_body_of_an_error_is_bounded_too() {
    for status in [404, 401, 500] {
        let server = Server::new(move |_| {
            let reply = Reply::new(status, vec![b' '; 1 << 16]).with("Transfer-Encoding", "chunked").endless();
            reply.with("WWW-Authenticate", "Basic realm=x")
        });
        resolve(&server, "a").await.unwrap_err();
        assert!(server.sent() < 64 << 20, "{} bytes were taken", server.sent());
    }
}

#[tokio::test]
async fn silence_ends_in_time() {
    for reply in [Reply::ok("{}").silent_at(0), Reply::ok("{}").silent_at(1)] {
        let server = Server::new(move |_| reply.clone());
        let failure = short_of_time(&server).source(reference(&server, "a")).resolve().await.unwrap_err();
        assert_eq!((failure.error.kind(), failure.retry), (ErrorKind::Network, Retry::Soon), "{}", failure.error);
        assert!(failure.error.to_string().contains("0.3 s"), "{}", failure.error);
    }
}

#[tokio::test]
async fn a_manifest_that_never_gets_done_ends_in_time() {
    let server = Server::new(|_| Reply::ok([b' '; 1000]).dripping(Duration::from_millis(100)));
    let network = NetworkOptions { document_timeout: Duration::from_millis(1500), ..NetworkOptions::default() };
    let source = registries_with(&server, Auth::Anonymous, network).source(reference(&server, "a"));
    let failure = source.resolve().await.unwrap_err();
    assert_eq!((failure.error.kind(), failure.retry), (ErrorKind::Network, Retry::Soon), "{}", failure.error);
    assert!(failure.error.to_string().contains("1.5 s"), "{}", failure.error);
}

fn plain(host: &RegistryHost) -> super::super::RegistrySource {
    let access = HostAccess { transport: Transport::PlainHttp, ..HostAccess::default() };
    let access = AccessList::new().with(host.clone(), access);
    let registries = Registries::new(access, NetworkOptions::default(), Limits::default()).unwrap();
    registries.source(format!("{host}/a").parse().unwrap())
}

/// A host that was mistyped is said at once; one that answered before may come back.
#[tokio::test]
async fn nobody_there_is_a_network_error() {
    // The port of a connection's other end: it is taken, so that nobody else gets it, and nobody listens there.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let host: RegistryHost = taken.local_addr().unwrap().to_string().parse().unwrap();
    for host in [host, "there-is-no-such-host.invalid".parse().unwrap()] {
        let failure = plain(&host).resolve().await.unwrap_err();
        assert_eq!((failure.error.kind(), failure.retry), (ErrorKind::Network, Retry::Never), "{}", failure.error);
        assert!(failure.error.to_string().contains(host.as_str()), "{}", failure.error);
    }
    let image = Image::new(&[b"layer"]);
    let server = Server::new(move |request| image.serve(request).with("Connection", "close"));
    let source = plain(&server.host());
    source.resolve().await.unwrap();
    drop(server);
    let failure = source.resolve().await.unwrap_err();
    assert_eq!((failure.error.kind(), failure.retry), (ErrorKind::Network, Retry::Soon), "{}", failure.error);
}

#[tokio::test]
async fn plain_http_is_never_a_fallback() {
    let image = Image::new(&[b"layer"]);
    let server = Server::new(move |request| image.serve(request));
    let registries = Registries::new(AccessList::new(), NetworkOptions::default(), Limits::default()).unwrap();
    let failure = registries.source(reference(&server, "a")).resolve().await.unwrap_err();
    assert_eq!((failure.error.kind(), failure.retry), (ErrorKind::Network, Retry::Never), "{}", failure.error);
    assert!(failure.error.to_string().contains("plain HTTP"), "{}", failure.error);
}

#[tokio::test]
async fn answers_have_their_meaning() {
    let body = r#"{"errors":[{"code":"X","message":"own\u001b[31m words"}]}"#;
    for (status, kind, retry) in [
        (403, ErrorKind::Authentication, Retry::Never),
        (404, ErrorKind::NotFound, Retry::Never),
        (400, ErrorKind::Network, Retry::Never),
        (501, ErrorKind::Network, Retry::Never),
        (206, ErrorKind::Network, Retry::Never),
        (408, ErrorKind::Network, Retry::After(Duration::from_secs(7))),
        (429, ErrorKind::Network, Retry::After(Duration::from_secs(7))),
        (503, ErrorKind::Network, Retry::After(Duration::from_secs(7))),
    ] {
        let server = Server::new(move |_| Reply::new(status, body).with("Retry-After", "7"));
        let failure = resolve(&server, "a").await.unwrap_err();
        assert_eq!((failure.error.kind(), failure.retry), (kind, retry), "{status}: {}", failure.error);
        let said = format!("{} {:?}", failure.error, failure.error.hint());
        assert!(said.contains("words") && !said.contains('\u{1b}'), "{status}: {said}");
    }
}

#[tokio::test]
async fn bad_luck_is_tried_again_and_bad_manners_are_not() {
    // Replies before the right one, and how many requests that makes.
    let cases: [(&[Reply], usize); 5] = [
        (&[Reply::status(500), Reply::status(502)], 3),
        (&[Reply::status(429).with("Retry-After", "0")], 2),
        (&[Reply::ok("{}").cut_at(1)], 2),
        (&[Reply::status(429).with("Retry-After", "3600")], 0),
        (&[Reply::status(404)], 0),
    ];
    for (first, requests) in cases {
        let image = Image::new(&[b"layer"]);
        let (replies, asked) = (first.to_vec(), AtomicUsize::new(0));
        let server = Server::new(move |request| {
            if !request.path.contains("/manifests/") {
                return image.serve(request);
            }
            replies.get(asked.fetch_add(1, Ordering::SeqCst)).cloned().unwrap_or_else(|| image.serve(request))
        });
        let store = Store::new();
        let source = registries(&server, Auth::Anonymous).source(reference(&server, "a"));
        let pulled = store.pull(&source).await;
        assert_eq!(pulled.is_ok(), requests > 0, "{first:?}: {:?}", pulled.err());
        assert_eq!(server.count("/manifests/"), requests.max(1), "{first:?}");
    }
}

#[tokio::test]
async fn attempts_end() {
    let server = Server::new(|_| Reply::status(500));
    let source = registries(&server, Auth::Anonymous).source(reference(&server, "a"));
    let error = Store::new().pull(&source).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Network, "{error}");
    assert_eq!(server.requests().len(), 5);
}

#[tokio::test]
async fn redirects_are_followed_but_not_everywhere() {
    let image = Image::new(&[b"layer"]);
    let elsewhere = Server::new(move |request| image.serve(request));
    let address = format!("http://{}/v2/a/manifests/latest", elsewhere.host());
    let server = Server::new(move |_| Reply::status(307).with("Location", &address));
    resolve(&server, "a").await.unwrap();

    for bad in ["ftp://127.0.0.1/x", "file:///etc/passwd", "http://user:pass@127.0.0.1/x", "http://"] {
        let server = Server::new(move |_| Reply::status(302).with("Location", bad));
        let failure = resolve(&server, "a").await.unwrap_err();
        assert_eq!((failure.error.kind(), failure.retry), (ErrorKind::Network, Retry::Never), "{}", failure.error);
    }
    let server = Server::new(|request| Reply::status(301).with("Location", &request.path));
    let failure = resolve(&server, "a").await.unwrap_err();
    assert!(failure.error.to_string().contains("redirects"), "{}", failure.error);
    assert_eq!(server.requests().len(), 11);
}

#[tokio::test]
async fn a_search_goes_on_only_where_the_name_is_unknown() {
    let image = Image::new(&[b"layer"]);
    let last = Server::new(move |request| image.serve(request));
    for (reply, found) in [
        (Reply::status(404), true),
        (Reply::status(401).with("WWW-Authenticate", "Basic realm=x"), true),
        (Reply::status(500), false),
        (Reply::status(400), false),
    ] {
        let first = Server::new(move |_| reply.clone());
        let plain = || HostAccess { transport: Transport::PlainHttp, ..HostAccess::default() };
        let access = AccessList::new().with(first.host(), plain()).with(last.host(), plain());
        let registries = Registries::new(access, NetworkOptions::default(), Limits::default()).unwrap();
        let search = registries.search("a", &[first.host(), last.host()]).unwrap();
        assert_eq!(search.resolve().await.is_ok(), found);
        assert_eq!(first.requests().len(), 1);
        if found {
            assert_eq!(search.name(), format!("{}/a:latest", last.host()));
        }
    }
}

#[test]
fn options_that_make_no_client_are_an_error() {
    let network = NetworkOptions { https_proxy: Some("not a url".into()), ..NetworkOptions::default() };
    assert!(matches!(Registries::new(AccessList::new(), network, Limits::default()), Err(Error::Usage { .. })));
}

/// A host that was mistyped may be anybody's web server.
#[tokio::test]
async fn a_web_page_is_no_answer_of_a_registry() {
    let server =
        Server::new(|_| Reply::ok("\n<!doctype html><html></html>").with("Content-Type", "Text/HTML; charset=utf-8"));
    let failure = resolve(&server, "a").await.unwrap_err();
    assert_eq!((failure.error.kind(), failure.retry), (ErrorKind::Network, Retry::Never), "{}", failure.error);
    let said = failure.error.to_string();
    assert!(said.contains("web page") && said.contains(server.host().as_str()), "{said}");
}

/// A few informational answers are passed over. Without an end they would keep a processor busy for as long as they arrive.
#[tokio::test]
async fn informational_answers_are_bounded() {
    let image = Image::new(&[b"layer"]);
    let manifest = image.manifest.clone();
    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{manifest}", manifest.len());
    for (count, taken) in [(0, true), (3, true), (100, true), (101, false)] {
        let reply = Reply::raw("HTTP/1.1 103 Early Hints\r\nLink: </v2/>\r\n\r\n".repeat(count) + &answer);
        let server = Server::new(move |_| reply.clone());
        let resolved = registries(&server, Auth::Anonymous).source(reference(&server, "a")).resolve().await;
        match resolved {
            Ok(document) => assert!(taken && document.bytes == manifest.as_bytes(), "{count}"),
            Err(failure) => {
                assert!(!taken, "{count}: {}", failure.error);
                assert_eq!((failure.error.kind(), failure.retry), (ErrorKind::Network, Retry::Never));
                let text = failure.error.to_string();
                assert!(text.contains("informational") && text.contains(server.host().as_str()), "{text}");
            }
        }
    }
}

/// Whatever is sent in place of a manifest: an error, in little time, after few bytes, and never a retry for ever.
#[tokio::test]
async fn hostile_answers_are_errors() {
    let head = |fields: &str| format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n");
    let fields = |count: usize| "X-Y: z\r\n".repeat(count);
    let image = Image::new(&[b"layer"]);
    let manifest = image.manifest.clone();
    let length = manifest.len();
    let chunked = head("Transfer-Encoding: chunked");
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut gzip, manifest.as_bytes()).unwrap();
    let gzip = gzip.finish().unwrap();
    let answers = [
        ("nothing", Reply::raw("")),
        ("no HTTP", Reply::raw("SSH-2.0-OpenSSH_9.2\r\n")),
        ("go on for ever", Reply::raw("HTTP/1.1 100 Continue\r\n\r\n").raw_endless()),
        ("hints for ever", Reply::raw("HTTP/1.1 103 Early Hints\r\nLink: </v2/>; rel=preload\r\n\r\n").raw_endless()),
        ("zeros for ever", Reply::raw([0; 4096]).raw_endless()),
        ("no end of a line", Reply::raw(vec![b'H'; 4096]).raw_endless()),
        ("HTTP/0.9", Reply::raw(&manifest)),
        ("HTTP/2", Reply::raw(b"\0\0\x12\x04\0\0\0\0\0")),
        ("a status that is none", Reply::raw("HTTP/1.1 099 X\r\nContent-Length: 0\r\n\r\n")),
        ("a status of four digits", Reply::raw("HTTP/1.1 2000 X\r\nContent-Length: 0\r\n\r\n")),
        ("fields for ever", Reply::raw(fields(100)).raw_endless()),
        ("too many fields", Reply::raw(format!("HTTP/1.1 200 OK\r\n{}\r\n{manifest}", fields(20_000)))),
        ("a field without an end", Reply::raw(format!("HTTP/1.1 200 OK\r\nX: {}", "y".repeat(1 << 20)))),
        ("a name that is none", Reply::raw(head(&format!("Content-Length: {length}\r\nX\0Y: z")) + &manifest)),
        ("a length below zero", Reply::raw(head("Content-Length: -1") + &manifest)),
        ("a length that is none", Reply::raw(head("Content-Length: 0x10") + &manifest)),
        ("a length that cannot be counted", Reply::raw(head("Content-Length: 99999999999999999999") + &manifest)),
        ("two lengths", Reply::raw(head(&format!("Content-Length: {length}\r\nContent-Length: 5")) + &manifest)),
        ("chunks of no size", Reply::raw(format!("{chunked}x\r\n{manifest}"))),
        ("a chunk that cannot be counted", Reply::raw(format!("{chunked}ffffffffffffffffff\r\n{manifest}"))),
        ("a chunk that is longer than it says", Reply::raw(format!("{chunked}5\r\n{manifest}\r\n0\r\n\r\n"))),
        ("a chunk's extension for ever", Reply::raw(format!("{chunked}5;x={}", "y".repeat(1 << 20)))),
        ("an encoding that was not asked for", Reply::ok(&gzip).with("Content-Encoding", "gzip")),
        (
            "another protocol",
            Reply::raw("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"),
        ),
        ("no content", Reply::status(204)),
        ("a part", Reply::new(206, &manifest).with("Content-Range", "bytes 0-1/2")),
        ("not modified", Reply::status(304)),
        ("a choice", Reply::status(300).with("Location", "/v2/")),
        ("a redirect to nowhere", Reply::status(307)),
        ("a redirect to itself", Reply::status(308).with("Location", "")),
        ("a web page", Reply::ok("<html><body>Log in</body></html>").with("Content-Type", "text/html")),
        ("lists in lists", Reply::ok("[".repeat(1 << 20))),
        ("a word", Reply::ok("\"manifest\"")),
    ];
    for (what, reply) in answers {
        let server = Server::new(move |_| reply.clone());
        let mut options = options();
        options.retry.attempts = 2;
        let store = Store::new();
        let source = short_of_time(&server).source(reference(&server, "a"));
        let pull = tokio::time::timeout(Duration::from_secs(20), store.pull_with(&source, &options));
        let error = pull.await.unwrap_or_else(|_| panic!("{what}: it takes for ever")).expect_err(what);
        let kinds = [ErrorKind::Network, ErrorKind::Refused, ErrorKind::Integrity];
        assert!(kinds.contains(&error.kind()), "{what}: {error}");
        assert!(server.sent() < 64 << 20, "{what}: {} bytes were taken", server.sent());
        assert_eq!(store.staged(), [""; 0], "{what}");
    }
}
