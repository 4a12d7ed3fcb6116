//! Credentials: when they are sent, to whom, and what happens when they are not accepted.

use std::sync::Mutex;

use cofferdam_core::error::ErrorKind;

use super::*;

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
        assert_eq!(server.count("/manifests/"), 1);
    }
}

/// Nothing is sent to find out, and nothing that was not sent is said to be wrong.
#[tokio::test]
async fn a_challenge_that_cannot_be_answered_is_an_error() {
    for (challenge, reason) in [
        (None, "does not say of which kind"),
        (Some("Digest realm=\"x\""), "Digest"),
        (Some("Bearer service=x"), "names no token service"),
        (Some("Bearer realm=\"http://127.0.0.1"), "cannot be read"),
    ] {
        let server = Server::new(move |_| match challenge {
            Some(challenge) => Reply::status(401).with("WWW-Authenticate", challenge),
            None => Reply::status(401),
        });
        let error = pull_as(&server, me()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Authentication, "{error}");
        let said = error.to_string();
        assert!(said.contains(reason) && said.contains("no credentials were sent"), "{said}");
        assert!(server.requests().iter().all(|request| request.header("authorization").is_none()), "{challenge:?}");
    }
}

/// Values without the quotes that they need, several schemes in one field and in several, the odd blank.
#[tokio::test]
async fn a_challenge_is_answered_in_whatever_spelling() {
    for fields in [
        &["Basic realm=/"][..],
        &["Basic"],
        &["Negotiate a/b==", "BASIC realm=x,"],
        &["Digest realm=\"d\", nonce=\"n\", Basic realm=\"x\""],
        &["Bearer realm=http://HOST/token,service=it"],
        &["Negotiate, bearer  realm = \"http://HOST/token\" , service=it, Basic realm=x"],
        &["Basic realm=x", "Bearer realm=http://HOST/token?service=it"],
    ] {
        let image = Image::new(&[b"one"]);
        let server = Server::new(move |request| match request.header("authorization") {
            Some(ME) if request.path == "/token?service=it&scope=repository%3Aa%3Apull" => {
                Reply::ok("{\"token\":\"t\"}")
            }
            Some("Bearer t" | ME) if !request.path.starts_with("/token") => image.serve(request),
            _ => fields.iter().fold(Reply::status(401), |reply, field| {
                reply.with("WWW-Authenticate", &field.replace("HOST", request.header("host").unwrap()))
            }),
        });
        pull_as(&server, me()).await.unwrap_or_else(|error| panic!("{fields:?}: {error}"));
        let bearer = fields.concat().contains("/token");
        assert_eq!(server.count("/token"), usize::from(bearer), "{fields:?}");
    }
}

/// Some registries answer strangers that there is no such thing, and say at their root only that a login would help.
#[tokio::test]
async fn a_login_that_is_asked_for_at_the_root_is_used() {
    for status in [401, 403, 404] {
        for bearer in [true, false] {
            let image = Image::new(&[b"one", b"two"]);
            let server = Server::new(move |request| match (&*request.path, request.header("authorization")) {
                ("/v2/", None) => {
                    let realm = format!("Bearer realm=\"http://{}/token\"", request.header("host").unwrap());
                    Reply::status(401).with("WWW-Authenticate", if bearer { &realm } else { "Basic realm=x" })
                }
                (path, Some(ME)) if path.starts_with("/token") => Reply::ok("{\"token\":\"t\"}"),
                (_, Some("Bearer t")) if bearer => image.serve(request),
                (_, Some(ME)) if !bearer => image.serve(request),
                _ => Reply::status(status),
            });
            pull_as(&server, me()).await.unwrap_or_else(|error| panic!("{status}: {error}"));
            assert_eq!(server.requests().iter().filter(|request| request.path == "/v2/").count(), 1, "{status}");
            // A stranger is told what a stranger is told.
            let error = pull_as(&server, Auth::Anonymous).await.unwrap_err();
            let kind = if status == 404 { ErrorKind::NotFound } else { ErrorKind::Authentication };
            assert_eq!(error.kind(), kind, "{status} {error}");
        }
    }
}

/// Behind a gateway the registry knows the repository by another name, and says so.
#[tokio::test]
async fn what_a_challenge_wants_is_asked_for_beside_what_is_pulled() {
    let image = Image::new(&[b"one", b"two"]);
    let server = Server::new(move |request| {
        if request.path.starts_with("/token") {
            let scopes = ["scope=repository%3Aa%3Apull", "scope=repository%3Ainner%2Fa%3Apull", "scope=other"];
            let good = scopes.iter().all(|scope| request.path.split(['?', '&']).any(|part| part == *scope));
            return Reply::ok(if good { "{\"token\":\"good\"}" } else { "{\"token\":\"bad\"}" });
        }
        if request.header("authorization") == Some("Bearer good") {
            return image.serve(request);
        }
        let host = request.header("host").unwrap();
        let challenge = format!("Bearer realm=\"http://{host}/token\",scope=\"repository:inner/a:pull other\"");
        Reply::status(401).with("WWW-Authenticate", &challenge)
    });
    pull_as(&server, me()).await.unwrap();
    assert_eq!(server.count("/token"), 1);
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
    for answer in
        ["", "{}", "[]", r#""t""#, r#"{"token":""}"#, r#"{"token":"a\nb"}"#, r#"{"token":7}"#, r#"{"token":null}"#]
    {
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

#[tokio::test]
async fn any_token_of_an_answer_serves() {
    for answer in [
        r#"{"token":"t"}"#,
        r#"{"access_token":"t"}"#,
        r#"{"token":"","access_token":"t"}"#,
        r#"{"token":null,"access_token":"t","expires_in":"soon"}"#,
        r#"{"token":"t","access_token":null,"expires_in":-1.5e300,"issued_at":0}"#,
        r#"{"token":7,"access_token":"t","refresh_token":{}}"#,
        r#"{"token":"a\nb","access_token":"t"}"#,
        r#"{"token":" t\n"}"#,
        r#"{"token":"old","token":"t"}"#,
    ] {
        let image = Image::new(&[b"one"]);
        let server = Server::new(move |request| match request.header("authorization") {
            _ if request.path.starts_with("/token") => Reply::ok(answer),
            Some("Bearer t") => image.serve(request),
            _ => {
                let realm = format!("Bearer realm=\"http://{}/token\"", request.header("host").unwrap());
                Reply::status(401).with("WWW-Authenticate", &realm)
            }
        });
        pull_as(&server, Auth::Anonymous).await.unwrap_or_else(|error| panic!("{answer}: {error}"));
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
    assert!(error.to_string().starts_with(elsewhere.host().as_str()), "{error}");
    assert_eq!(elsewhere.requests().len(), 1);
    assert_eq!(elsewhere.requests()[0].header("authorization"), None);
}

/// A registry in front of another one: that one is answered with what was given for it, or with a token for anybody.
#[tokio::test]
async fn a_place_that_a_registry_redirects_to_is_given_its_own_credentials() {
    const YOU: &str = "Basic eW91OnNlY3JldA==";
    let you = || Auth::Basic { user: "you".into(), password: "secret".into() };
    for (bearer, theirs, declared, pulled) in [
        (true, Auth::Anonymous, true, true),
        (true, Auth::Anonymous, false, true),
        (true, you(), true, true),
        (false, you(), true, true),
        (false, Auth::Anonymous, true, false),
        // A password that was given for HTTPS.
        (false, you(), false, false),
    ] {
        let image = Image::new(&[b"one", b"two"]);
        let elsewhere = Server::new(move |request| match request.header("authorization") {
            None | Some(YOU) if request.path.starts_with("/token") => {
                assert_eq!(request.path, "/token?scope=repository%3Aother%3Apull");
                Reply::ok("{\"token\":\"t\"}")
            }
            Some("Bearer t") if bearer => image.serve(request),
            Some(YOU) if !bearer => image.serve(request),
            _ => {
                let realm = format!("Bearer realm=http://{}/token", request.header("host").unwrap());
                let bearer_too = format!("{realm},scope=repository:other:pull");
                Reply::status(401).with("WWW-Authenticate", if bearer { &bearer_too } else { "Basic realm=x" })
            }
        });
        let other = elsewhere.host();
        let server = Server::new(move |request| match request.header("authorization") {
            Some(ME) => Reply::status(307).with("Location", &format!("http://{other}{}", request.path)),
            _ => Reply::status(401).with("WWW-Authenticate", "Basic realm=x"),
        });
        let transport = if declared { Transport::PlainHttp } else { Transport::Https };
        let there = HostAccess { transport, auth: theirs, ..HostAccess::default() };
        let here = HostAccess { transport: Transport::PlainHttp, auth: me(), ..HostAccess::default() };
        let access = AccessList::new().with(server.host(), here).with(elsewhere.host(), there);
        let registries = Registries::new(access, NetworkOptions::default(), Limits::default()).unwrap();
        let result = Store::new().pull(&registries.source(reference(&server, "a"))).await;
        match result {
            Ok(_) => assert!(pulled),
            Err(error) => {
                assert!(!pulled, "{error}");
                assert_eq!(error.kind(), ErrorKind::Authentication, "{error}");
                assert!(error.to_string().starts_with(elsewhere.host().as_str()), "{error}");
            }
        }
        assert!(elsewhere.requests().iter().all(|request| request.header("authorization") != Some(ME)));
        assert!(server.requests().iter().all(|request| [None, Some(ME)].contains(&request.header("authorization"))));
    }
}

/// What is missing is missing at the place that the registry redirected to.
#[tokio::test]
async fn errors_name_the_place_that_a_registry_redirects_to() {
    for status in [403, 404, 500, 400] {
        let elsewhere = Server::new(move |_| Reply::status(status));
        let address = format!("http://{}/x", elsewhere.host());
        let server = Server::new(move |_| Reply::status(302).with("Location", &address));
        let failure = source(&server).resolve().await.unwrap_err();
        let (said, host) = (failure.error.to_string(), elsewhere.host());
        assert!(said.contains(host.as_str()), "{said}");
    }
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
