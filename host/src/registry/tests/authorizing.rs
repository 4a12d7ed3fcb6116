//! Credentials: when they are sent, to whom, and what happens when they are not accepted.

use std::sync::Mutex;

use super::*;
use crate::error::ErrorKind;

fn me() -> Auth {
    Auth::Basic { user: "me".into(), password: "pass:word".into() }
}

/// `me` in the form of RFC 7617.
const ME: &str = "Basic bWU6cGFzczp3b3Jk";

async fn pull_as(server: &Server, auth: Auth) -> Result<Pulled> {
    let source = registries(server, auth).source(reference(server, "a"));
    Store::new().pull(&source).await
}

fn basic_registry(image: Image) -> Server {
    Server::new(move |request| match request.header("authorization") {
        Some(ME) => image.serve(request),
        _ => Reply::status(401).with("WWW-Authenticate", "Basic realm=\"test\""),
    })
}

#[tokio::test]
async fn a_password_is_sent_when_it_is_asked_for() {
    let server = basic_registry(Image::new(&[b"one", b"two"]));
    pull_as(&server, me()).await.unwrap();
    let anonymous = server.requests().iter().filter(|request| request.header("authorization").is_none()).count();
    assert_eq!(anonymous, 1, "asked once, known from then on");
}

#[tokio::test]
async fn a_wrong_password_is_an_error_and_not_a_reason_to_try_without() {
    let server = basic_registry(Image::new(&[b"one"]));
    let wrong = Auth::Basic { user: "me".into(), password: "other".into() };
    let error = pull_as(&server, wrong).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Authentication, "{error}");
    let sent: Vec<_> = server.requests().iter().map(|request| request.header("authorization").is_some()).collect();
    assert_eq!(sent, [false, true]);
}

#[tokio::test]
async fn nobody_is_told_that_credentials_are_wanted() {
    for challenge in ["Basic realm=x", "Negotiate", ""] {
        let server = Server::new(move |_| Reply::status(401).with("WWW-Authenticate", challenge));
        let error = pull_as(&server, Auth::Anonymous).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Authentication, "{error}");
        assert_eq!(server.requests().len(), 1);
    }
}

#[tokio::test]
async fn a_challenge_that_cannot_be_answered_is_an_error() {
    for reply in [Reply::status(401), Reply::status(401).with("WWW-Authenticate", "Digest realm=\"x\"")] {
        let server = Server::new(move |_| reply.clone());
        let error = pull_as(&server, me()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Authentication, "{error}");
        assert_eq!(server.requests().len(), 1, "no credentials were sent to find out");
    }
}

/// A registry with a token service of its own. Tokens are numbered; the registry takes those that `valid` says.
fn token_registry(image: Image, accept: &'static [&'static str], valid: fn(&str, &Request) -> bool) -> Server {
    let issued = Mutex::new(0);
    Server::new(move |request| {
        if request.path.starts_with("/token") {
            let me = request.header("authorization").unwrap_or("nobody");
            if !accept.contains(&me) {
                return Reply::new(401, r#"{"errors":[{"code":"UNAUTHORIZED","message":"wrong password"}]}"#);
            }
            let mut issued = issued.lock().unwrap();
            *issued += 1;
            return Reply::ok(format!(r#"{{"token":"t{issued}","expires_in":1}}"#));
        }
        match request.header("authorization").and_then(|header| header.strip_prefix("Bearer ")) {
            Some(token) if valid(token, request) => image.serve(request),
            _ => {
                let host = request.header("host").unwrap();
                let challenge = format!(r#"Bearer realm="http://{host}/token",service="it",scope="repository:x:push""#);
                Reply::status(401).with("WWW-Authenticate", &challenge)
            }
        }
    })
}

#[tokio::test]
async fn a_token_is_fetched_once_for_what_is_pulled() {
    for (auth, accept) in [(Auth::Anonymous, "nobody"), (me(), ME)] {
        let accept: &'static [&'static str] = if accept == ME { &[ME] } else { &["nobody"] };
        let server = token_registry(Image::new(&[b"one", b"two", b"three"]), accept, |token, _| token == "t1");
        pull_as(&server, auth).await.unwrap();
        assert_eq!(server.count("/token"), 1);
        assert_eq!(server.count("/token?service=it&scope=repository%3Aa%3Apull"), 1, "{:?}", server.requests());
    }
}

#[tokio::test]
async fn a_token_that_ran_out_is_renewed() {
    let image = Image::new(&[b"one", b"two"]);
    // The first token is good for manifests only, as if it had run out by the time of the blobs.
    let server = token_registry(image, &[ME], |token, request| token == "t2" || request.path.contains("/manifests/"));
    pull_as(&server, me()).await.unwrap();
    assert_eq!(server.count("/token"), 2);
}

#[tokio::test]
async fn a_refused_login_never_becomes_an_anonymous_request() {
    // The service would give a token to nobody, and the registry would take it.
    let server = token_registry(Image::new(&[b"one"]), &["nobody"], |_, _| true);
    let error = pull_as(&server, me()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Authentication, "{error}");
    assert!(error.to_string().contains("wrong password"), "{error}");
    let token_requests: Vec<_> =
        server.requests().into_iter().filter(|request| request.path.contains("token")).collect();
    assert_eq!(token_requests.len(), 1);
    assert_eq!(token_requests[0].header("authorization"), Some(ME));
}

#[tokio::test]
async fn a_token_that_is_not_taken_is_an_error() {
    let server = token_registry(Image::new(&[b"one"]), &[ME], |_, _| false);
    let error = pull_as(&server, me()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Authentication, "{error}");
    assert_eq!(server.count("/token"), 1);
}

#[tokio::test]
async fn a_given_token_is_sent_at_once_and_not_replaced() {
    let image = Image::new(&[b"one"]);
    let server = token_registry(image, &["nobody"], |token, _| token == "given");
    pull_as(&server, Auth::Bearer("given".into())).await.unwrap();
    let error = pull_as(&server, Auth::Bearer("other".into())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Authentication, "{error}");
    assert_eq!(server.count("/token"), 0);
}

#[tokio::test]
async fn token_services_that_talk_nonsense_are_errors() {
    for answer in ["", "{}", "[]", r#"{"token":""}"#, r#"{"token":"a\nb"}"#] {
        let server = Server::new(move |request| match request.path.as_str() {
            path if path.starts_with("/token") => Reply::ok(answer),
            _ => {
                let realm = format!("Bearer realm=\"http://{}/token\"", request.header("host").unwrap());
                Reply::status(401).with("WWW-Authenticate", &realm)
            }
        });
        let error = pull_as(&server, Auth::Anonymous).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Network, "{answer}: {error}");
    }
}

/// CVE-2020-15157: credentials follow a redirect or a descriptor's address to somebody else.
#[tokio::test]
async fn credentials_stay_with_their_registry() {
    let image = Image::new(&[b"one"]);
    let served = image.clone();
    let elsewhere = Server::new(move |request| served.serve(request));
    let other = elsewhere.host();
    let server = Server::new(move |request| match request.header("authorization") {
        Some(ME) if request.path.contains("/blobs/") => {
            Reply::status(307).with("Location", &format!("http://{other}{}", request.path))
        }
        Some(ME) => image.serve(request),
        _ => Reply::status(401).with("WWW-Authenticate", "Basic realm=x"),
    });
    pull_as(&server, me()).await.unwrap();
    assert_eq!(elsewhere.requests().len(), 2);
    assert!(elsewhere.requests().iter().all(|request| request.header("authorization").is_none()));
}

#[tokio::test]
async fn a_place_that_a_registry_redirects_to_is_not_given_credentials_when_it_asks() {
    let elsewhere = Server::new(|_| Reply::status(401).with("WWW-Authenticate", "Basic realm=x"));
    let address = format!("http://{}/x", elsewhere.host());
    let server = Server::new(move |_| Reply::status(302).with("Location", &address));
    let error = pull_as(&server, me()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Authentication, "{error}");
    assert_eq!(elsewhere.requests().len(), 1);
    assert_eq!(elsewhere.requests()[0].header("authorization"), None);
}

/// A registry that names somebody else's address as its token service gets no password sent there, unless the user said
/// that it may.
#[tokio::test]
async fn a_password_is_not_sent_to_whoever_a_registry_names() {
    let service = || {
        Server::new(|request| match request.header("authorization") {
            Some(ME) | None => Reply::ok(r#"{"token":"t"}"#),
            Some(_) => Reply::status(401),
        })
    };
    for (auth, allowed, pulled, asked) in
        [(me(), false, false, 0), (me(), true, true, 1), (Auth::Anonymous, false, true, 1)]
    {
        let (elsewhere, image) = (service(), Image::new(&[b"one"]));
        let other = elsewhere.host();
        let server = Server::new(move |request| match request.header("authorization") {
            Some("Bearer t") => image.serve(request),
            _ => Reply::status(401).with("WWW-Authenticate", &format!("Bearer realm=\"http://{other}/token\"")),
        });
        let token_hosts = if allowed { vec![elsewhere.host()] } else { Vec::new() };
        let access = HostAccess { transport: Transport::PlainHttp, auth, token_hosts };
        let access = AccessList::new().with(server.host(), access);
        let registries = Registries::new(access, NetworkOptions::default(), Limits::default()).unwrap();
        let result = Store::new().pull(&registries.source(reference(&server, "a"))).await;
        assert_eq!(elsewhere.requests().len(), asked);
        match result {
            Ok(_) => assert!(pulled, "it was pulled without a password"),
            Err(error) => {
                assert!(!pulled, "{error}");
                assert_eq!(error.kind(), ErrorKind::Authentication, "{error}");
                assert!(error.to_string().contains(elsewhere.host().as_str()), "{error}");
            }
        }
        assert!(server.requests().iter().all(|request| request.header("authorization").is_none_or(|h| h != ME)));
    }
}
