use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cofferdam_sdk::http::{Error, Request, Response};
use cofferdam_sdk::testing::{Host, Run};
use cofferdam_sdk::{Failure, Image};
use p256::ecdsa::signature::Signer;
use p256::ecdsa::{Signature, SigningKey};
use p256::pkcs8::{EncodePublicKey, LineEnding};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{Cosign, SIGNATURE, STATEMENT};
use crate::registry::hex;

/// A key and a signature that OpenSSL made, over a statement as cosign writes it.
const OPENSSL_KEY: &str = "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEwTuPhXXwV7qCQLK5DD7AOtW37m+B\nLozxQJ2LY366OUYsaWTQXR3SnXbmJ9s0idsCFyXuq+v/VqussrCdJ8K4uw==\n-----END PUBLIC KEY-----\n";
const OPENSSL_SIGNATURE: &str =
    "MEUCIQDDNzia/4IISRtsruvbEHojjDAnPlhIH9zrU+h3RmakLgIgenhymOxTUF1RXg/f7gBEXvm4Jy7k/iSdE8R1vQU65bM=";
const OPENSSL_STATEMENT: &str = concat!(
    r#"{"critical":{"identity":{"docker-reference":"index.docker.io/library/debian"},"image":{"docker-manifest-digest":"#,
    r#""sha256:b802ab9f53cad6bd4004f3c99d9ae71d7a8ff28686bbdc04a30862ee255374dc"},"#,
    r#""type":"cosign container image signature"},"optional":null}"#
);

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(&Sha256::digest(bytes)))
}

fn image() -> Image {
    let document = b"the manifest".to_vec();
    Image {
        reference: "docker.io/library/debian:12".to_owned(),
        registry: "registry-1.docker.io".to_owned(),
        insecure: false,
        repository: "library/debian".to_owned(),
        digest: digest(&document),
        manifest_digest: digest(&document),
        manifest: document.clone(),
        document,
    }
}

fn key(seed: u8) -> SigningKey {
    SigningKey::from_slice(&[seed; 32]).unwrap()
}

fn pem(key: &SigningKey) -> String {
    key.verifying_key().to_public_key_pem(LineEnding::LF).unwrap()
}

fn statement() -> Value {
    json!({
        "critical": {
            "identity": {"docker-reference": "index.docker.io/library/debian"},
            "image": {"docker-manifest-digest": image().digest},
            "type": "cosign container image signature",
        },
        "optional": {"creator": "somebody"},
    })
}

/// A registry in memory: answers by URL, and what was asked.
#[derive(Clone, Default)]
struct Fake {
    answers: BTreeMap<String, Response>,
    asked: Rc<RefCell<Vec<Request>>>,
}

const BASE: &str = "https://registry-1.docker.io/v2/library/debian";

impl Fake {
    fn answer(mut self, url: impl Into<String>, status: u16, body: impl Into<Vec<u8>>) -> Self {
        self.answers.insert(url.into(), Response { status, headers: Vec::new(), body: body.into() });
        self
    }

    fn header(mut self, url: &str, name: &str, value: &str) -> Self {
        self.answers.get_mut(url).unwrap().headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Signatures, each a statement and the layer that names it.
    fn signed(mut self, signatures: Vec<(Vec<u8>, Value)>) -> Self {
        let (statements, layers): (Vec<_>, Vec<_>) = signatures.into_iter().unzip();
        for (statement, layer) in statements.into_iter().zip(&layers) {
            self = self.answer(format!("{BASE}/blobs/{}", layer["digest"].as_str().unwrap()), 200, statement);
        }
        self.answer(tag(), 200, json!({"schemaVersion": 2, "layers": layers}).to_string())
    }

    fn network(&self) -> impl FnMut(&Request) -> Result<Response, Error> + use<> {
        let fake = self.clone();
        move |request| {
            fake.asked.borrow_mut().push(request.clone());
            fake.answers.get(&request.url).cloned().ok_or_else(|| Error::Denied(request.url.clone()))
        }
    }

    fn verify(&self, settings: &[(&str, &str)]) -> Run<String> {
        let host = Host::new().setting("key", pem(&key(7))).network(self.network());
        settings.iter().fold(host, |host, (name, value)| host.setting(*name, *value)).verify::<Cosign>(&image())
    }

    fn urls(&self) -> Vec<String> {
        self.asked.borrow().iter().map(|request| request.url.clone()).collect()
    }
}

fn tag() -> String {
    format!("{BASE}/manifests/{}.sig", image().digest.replace(':', "-"))
}

fn layer(statement: &[u8], signature: &[u8]) -> Value {
    json!({
        "mediaType": STATEMENT,
        "digest": digest(statement),
        "size": statement.len(),
        "annotations": {SIGNATURE: STANDARD.encode(signature)},
    })
}

fn sign(statement: &Value, key: &SigningKey) -> (Vec<u8>, Value) {
    let statement = statement.to_string().into_bytes();
    let signature: Signature = key.sign(&statement);
    let layer = layer(&statement, signature.to_der().as_bytes());
    (statement, layer)
}

fn good() -> (Vec<u8>, Value) {
    sign(&statement(), &key(7))
}

#[test]
fn a_signed_image_is_accepted() {
    let fake = Fake::default().signed(vec![good()]);
    for identity in [None, Some("reference"), Some("docker.io/library/debian"), Some("index.docker.io/library/debian")]
    {
        let settings: Vec<_> = identity.map(|identity| ("identity", identity)).into_iter().collect();
        let reason = fake.verify(&settings).result.unwrap();
        assert!(reason.starts_with("signed as index.docker.io/library/debian by the key "), "{reason}");
    }
    assert_eq!(fake.urls()[..2], [tag(), format!("{BASE}/blobs/{}", digest(&good().0))]);
}

#[test]
fn what_openssl_signed_is_accepted() {
    let signature = STANDARD.decode(OPENSSL_SIGNATURE).unwrap();
    let statement = OPENSSL_STATEMENT.as_bytes();
    let fake = Fake::default().signed(vec![(statement.to_vec(), layer(statement, &signature))]);
    let run = fake.verify(&[("key", OPENSSL_KEY), ("identity", "reference")]);
    assert!(run.result.is_ok(), "{}", run.reason());
    assert!(fake.verify(&[]).result.is_err(), "by another key");
}

/// Refused, and for this reason.
fn refused(what: &str, fake: &Fake, settings: &[(&str, &str)], reason: &str) {
    let run = fake.verify(settings);
    assert!(matches!(run.result, Err(Failure::Refused { .. })), "{what}: {:?}", run.result);
    assert!(run.reason().contains(reason), "{what}: {}", run.reason());
}

#[test]
fn each_field_of_the_statement_counts() {
    for (what, pointer, value, reason) in [
        ("type", "/critical/type", json!("something else"), "is of type `something else`"),
        ("digest", "/critical/image/docker-manifest-digest", json!(digest(b"other")), "is of another image, sha256:"),
        ("digest", "/critical/image/docker-manifest-digest", json!(""), "is of another image"),
        ("digest", "/critical/image/docker-manifest-digest", json!(null), "cannot be read"),
        ("reference", "/critical/identity/docker-reference", json!("evil.example/debian"), "names the image `evil"),
        ("critical", "/critical", json!([]), "cannot be read"),
    ] {
        let mut statement = statement();
        *statement.pointer_mut(pointer).unwrap() = value;
        let fake = Fake::default().signed(vec![sign(&statement, &key(7))]);
        refused(what, &fake, &[("identity", "reference")], reason);
    }
    // Whom nobody asks about the name takes any.
    let mut statement = statement();
    statement["critical"]["identity"]["docker-reference"] = "".into();
    assert!(Fake::default().signed(vec![sign(&statement, &key(7))]).verify(&[]).result.is_ok());
}

#[test]
fn each_field_of_the_layer_counts() {
    let annotation = format!("/annotations/{}", SIGNATURE.replace('/', "~1"));
    let other: Signature = key(7).sign(b"other");
    for (what, pointer, value, reason) in [
        ("type", "/mediaType", json!("text/plain"), "its type is `text/plain`"),
        ("digest", "/digest", json!(digest(b"other")), "does not hash to"),
        ("digest", "/digest", json!("sha512:00"), "has the digest `sha512:00`"),
        ("digest", "/digest", json!("sha256:../../x"), "has the digest"),
        ("annotations", "/annotations", json!({}), "no signature"),
        ("signature", &annotation, json!("!"), "not base64"),
        ("signature", &annotation, json!(""), "not one of ECDSA"),
        ("signature", &annotation, json!(STANDARD.encode("x")), "not one of ECDSA"),
        ("signature", &annotation, json!(STANDARD.encode(other.to_der().as_bytes())), "not made by the key"),
    ] {
        let (statement, mut layer) = good();
        *layer.pointer_mut(pointer).unwrap() = value;
        refused(what, &Fake::default().signed(vec![(statement, layer)]), &[], reason);
    }
}

#[test]
fn no_bit_of_statement_or_signature_can_be_turned() {
    let (statement, layer) = good();
    let signature = STANDARD.decode(layer["annotations"][SIGNATURE].as_str().unwrap()).unwrap();
    for bit in 0..statement.len() * 8 {
        let mut turned = statement.clone();
        turned[bit / 8] ^= 1 << (bit % 8);
        // With the old digest and with the right one.
        let fake = Fake::default().signed(vec![(turned.clone(), layer.clone())]);
        refused("statement", &fake, &[], "does not hash to");
        if bit % 16 == 0 {
            let fake = Fake::default().signed(vec![(turned.clone(), super::tests::layer(&turned, &signature))]);
            refused("statement", &fake, &[], "not made by the key");
        }
    }
    for bit in 0..signature.len() * 8 {
        let mut turned = signature.clone();
        turned[bit / 8] ^= 1 << (bit % 8);
        let fake = Fake::default().signed(vec![(statement.clone(), super::tests::layer(&statement, &turned))]);
        assert!(fake.verify(&[]).result.is_err(), "bit {bit} of the signature");
    }
}

#[test]
fn one_good_signature_suffices_and_none_names_what_is_wrong_with_each() {
    let (other, mut unsigned) = (sign(&statement(), &key(8)), good());
    unsigned.1["annotations"] = json!({});
    let fake = Fake::default().signed(vec![other.clone(), unsigned.clone()]);
    let reason =
        "signature 1 of 2: it was not made by the key, or not over this statement; signature 2 of 2: it has no";
    refused("two bad", &fake, &[], reason);
    // The statements are the same, so the blob is too.
    assert!(Fake::default().signed(vec![other, unsigned, good()]).verify(&[]).result.is_ok());
    let many = Fake::default().signed(vec![good(); 65]).verify(&[]);
    assert!(matches!(many.result, Err(Failure::Limit(_))));
}

#[test]
fn what_is_not_signed_is_refused() {
    refused("no tag", &Fake::default().answer(tag(), 404, "{}"), &[], "not signed: library/debian has no tag sha256-");
    refused("no signature", &Fake::default().answer(tag(), 200, r#"{"layers": []}"#), &[], "holds no signatures");
    refused("no layers", &Fake::default().answer(tag(), 200, "{}"), &[], "holds no signatures");
    refused("no manifest", &Fake::default().answer(tag(), 200, "<html>"), &[], "cannot be read");
    refused("broken", &Fake::default().answer(tag(), 500, ""), &[], "status 500");
    refused("no network", &Fake::default(), &[], "was not granted");
    let long = Fake::default().answer(tag(), 200, vec![b' '; (1 << 20) + 1]).verify(&[]);
    assert!(matches!(long.result, Err(Failure::Limit(_))));
    let mut lost = Fake::default().signed(vec![good()]);
    lost.answers.retain(|url, _| !url.contains("/blobs/"));
    refused("no statement", &lost, &[], "its statement: https://registry-1.docker.io");
}

#[test]
fn a_slip_in_the_settings_refuses() {
    let fake = Fake::default().signed(vec![good()]);
    let secret = "-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n";
    for key in ["x", secret, "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----"] {
        refused("key", &fake, &[("key", key)], "the setting `key` is not the PEM of a public key");
    }
    for key in ["", " \n"] {
        refused("no key", &fake, &[("key", key)], "the setting `key` is missing");
    }
    for digest in ["", "sha256:00", "sha512:00", "sha256:../x"] {
        let image = Image { digest: digest.to_owned(), ..image() };
        let run = Host::new().setting("key", pem(&key(7))).network(fake.network()).verify::<Cosign>(&image);
        assert!(run.reason().contains("is not a digest"), "{}", run.reason());
    }
    assert_eq!(fake.urls(), [""; 0], "nothing is asked before the settings are read");
}

/// A registry that wants a token, and gives it away.
fn guarded(realm: &str, token: &str) -> impl FnMut(&Request) -> Result<Response, Error> + use<> {
    let mut open = Fake::default().signed(vec![good()]).network();
    let (realm, token) = (realm.to_owned(), token.to_owned());
    move |request| {
        let sent = request.headers.iter().find(|(name, _)| name == "authorization").map(|(_, value)| value.as_str());
        if request.url.starts_with(&realm) {
            let wanted = format!("{realm}?scope=repository:library/debian:pull&service=registry%20one");
            assert_eq!((request.url.as_str(), sent), (wanted.as_str(), None));
            return Ok(Response { status: 200, headers: Vec::new(), body: token.clone().into_bytes() });
        }
        if sent == Some("Bearer t0ken") {
            return open(request);
        }
        let challenge = format!(r#"Bearer realm="{realm}",service="registry one",scope="x""#);
        Ok(Response { status: 401, headers: vec![("www-authenticate".to_owned(), challenge)], body: Vec::new() })
    }
}

#[test]
fn a_token_is_fetched_where_one_is_wanted() {
    let verify = |realm, token| {
        Host::new().setting("key", pem(&key(7))).network(guarded(realm, token)).verify::<Cosign>(&image())
    };
    let realm = "https://auth.docker.io/token";
    for token in [r#"{"token": "t0ken"}"#, r#"{"access_token": "t0ken"}"#] {
        assert!(verify(realm, token).result.is_ok());
    }
    for (token, reason) in [
        (r#"{"token": "other"}"#, "status 401"),
        ("{}", "no token in the answer"),
        (r#"{"token": "t0ken\r\nx: y"}"#, "no token in the answer"),
    ] {
        assert!(verify(realm, token).reason().contains(reason), "{}", verify(realm, token).reason());
    }
    assert!(verify("http://auth.docker.io/token", r#"{"token": "t0ken"}"#).reason().contains("in clear text"));
}

#[test]
fn a_statement_may_lie_elsewhere() {
    let (statement, layer) = good();
    let blob = format!("{BASE}/blobs/{}", digest(&statement));
    let elsewhere = |to: &str| {
        Fake::default()
            .signed(vec![(statement.clone(), layer.clone())])
            .answer(&blob, 307, "")
            .header(&blob, "location", to)
            .answer("https://cdn.example/x", 200, statement.clone())
            .answer("https://registry-1.docker.io/y", 200, statement.clone())
    };
    for to in ["https://cdn.example/x", "/y"] {
        assert!(elsewhere(to).verify(&[]).result.is_ok(), "{to}");
    }
    refused("clear text", &elsewhere("http://cdn.example/x"), &[], "leads to `http://cdn.example/x`");
    refused("nowhere", &elsewhere("//cdn.example/x"), &[], "leads to");
    refused("not granted", &elsewhere("https://other.example/x"), &[], "was not granted");
    refused("a circle", &elsewhere(&blob), &[], "status 307");
}

#[test]
fn an_insecure_registry_is_asked_in_clear_text() {
    let image = Image { insecure: true, registry: "localhost:5000".to_owned(), ..image() };
    let asked = Rc::new(RefCell::new(String::new()));
    let record = Rc::clone(&asked);
    let network = move |request: &Request| {
        record.borrow_mut().push_str(&request.url);
        Err(Error::Failed("closed".to_owned()))
    };
    Host::new().setting("key", pem(&key(7))).network(network).verify::<Cosign>(&image);
    assert!(asked.borrow().starts_with("http://localhost:5000/v2/library/debian/manifests/sha256-"));
}

#[test]
fn hostile_answers_are_survived() {
    let mut state = 5_u64;
    let mut random = move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    let (statement, layer) = good();
    let manifest = json!({"layers": [layer]}).to_string().into_bytes();
    for round in 0..2000 {
        let mut bytes = manifest.clone();
        let at = bytes.len() * usize::from(random()) / 256;
        bytes[at] = random();
        if round % 3 == 0 {
            bytes.truncate(at);
        }
        let fake = Fake::default().signed(vec![(statement.clone(), layer.clone())]).answer(tag(), 200, bytes.clone());
        let run = fake.verify(&[]);
        // What is accepted may differ only where nothing is signed: around the layer, and in its size.
        if run.result.is_ok() {
            let read: Value = serde_json::from_slice(&bytes).unwrap();
            assert_eq!(read["layers"][0]["annotations"], layer["annotations"]);
            assert_eq!(read["layers"][0]["digest"], layer["digest"]);
        }
    }
}
