//! The verifier of cosign's signatures, against a real registry, with signatures that OpenSSL makes over statements in the
//! form of cosign's specification.

use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use cofferdam_tests::cofferdam::exit;
use cofferdam_tests::layers::{self, Item};
use cofferdam_tests::registry::{self, Kind};
use cofferdam_tests::{Registry, require};
use serde_json::json;

use crate::bench::Bench;

/// A key pair in two files.
struct Key {
    private: String,
    public: String,
}

fn key(bench: &Bench, name: &str) -> Result<Key> {
    let path = |end: &str| bench.scratch.join(format!("{name}.{end}")).display().to_string();
    let key = Key { private: path("key"), public: path("pub") };
    let generate = ["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", &key.private];
    registry::run(Command::new("openssl").args(generate))?;
    registry::run(Command::new("openssl").args(["ec", "-in", &key.private, "-pubout", "-out", &key.public]))?;
    Ok(key)
}

/// Publishes a signature of the image of this digest, as `cosign sign --key` does.
fn sign(bench: &Bench, registry: &Registry, repository: &str, digest: &str, key: &Key) -> Result<()> {
    let statement = json!({
        "critical": {
            "identity": { "docker-reference": format!("{}/{repository}", registry.host()) },
            "image": { "docker-manifest-digest": digest },
            "type": "cosign container image signature",
        },
        "optional": null,
    });
    let file = bench.scratch.join("statement.json");
    fs::write(&file, statement.to_string())?;
    let signed = Command::new("openssl").args(["dgst", "-sha256", "-sign", &key.private]).arg(&file).output()?;
    ensure!(signed.status.success(), "{}", String::from_utf8_lossy(&signed.stderr));
    let signature = bench.scratch.join("signature");
    fs::write(&signature, signed.stdout)?;
    let encoded = Command::new("openssl").args(["base64", "-A", "-in"]).arg(&signature).output()?;
    let encoded = String::from_utf8(encoded.stdout)?;
    let statement = fs::read(&file)?;
    let config = b"{}".to_vec();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {
            "mediaType": "application/vnd.oci.image.config.v1+json",
            "digest": layers::digest(&config),
            "size": config.len(),
        },
        "layers": [{
            "mediaType": "application/vnd.dev.cosign.simplesigning.v1+json",
            "digest": layers::digest(&statement),
            "size": statement.len(),
            "annotations": { "dev.cosignproject.cosign/signature": encoded.trim() },
        }],
    });
    for blob in [&statement, &config] {
        registry.upload(repository, blob)?;
    }
    registry.upload_manifest(repository, &format!("{}.sig", digest.replace(':', "-")), manifest.to_string().as_bytes())
}

fn config(bench: &Bench, registry: &Registry, key: &Key) -> Result<String> {
    let text = format!(
        "[[policy]]\nimages = ['{}/**']\nverify = ['cosign']\n\
         [policy.settings.cosign]\nkey = {{ file = '{}' }}\nidentity = 'reference'\n",
        registry.host(),
        key.public
    );
    Ok(bench.config(&text)?.display().to_string())
}

/// An image that is signed with the key is let in, and nothing of any other is fetched but its manifest.
#[test]
fn only_signed_images_are_let_in() -> Result<()> {
    require!("docker-registry", "skopeo", "openssl", "curl");
    let mut bench = Bench::new()?;
    bench.add("cosign")?;
    let registry = Registry::start(Kind::Plain)?;
    for (tag, content) in [("signed", "1"), ("unsigned", "2"), ("other-key", "3")] {
        let image = bench.image(tag, &[Item::File("a", content.into())])?;
        registry.push(&image, &format!("app:{tag}"))?;
    }
    let digests: Vec<String> =
        ["signed", "unsigned", "other-key"].iter().map(|tag| registry.digest("app", tag)).collect::<Result<_>>()?;
    let (ours, other) = (key(&bench, "ours")?, key(&bench, "other")?);
    sign(&bench, &registry, "app", &digests[0], &ours)?;
    sign(&bench, &registry, "app", &digests[2], &other)?;
    let config = config(&bench, &registry, &ours)?;
    let host = registry.host();
    let pull = |tag: &str| {
        let reference = registry.reference(&format!("app:{tag}"));
        bench.cofferdam.run(["pull", &reference, "--plain-http", &host, "--config", &config])
    };
    for (tag, why) in [("unsigned", "not signed"), ("other-key", "signature")] {
        let before = registry.blob_gets()?.len();
        let refused = pull(tag)?.expect(exit::REFUSED)?;
        ensure!(refused.err().contains("cosign") && refused.err().contains(why), "{}", refused.err());
        // The configuration of the image and the statement of a signature; no layer.
        let layer = layers::digest(&layers::gzip(&layers::tar(&[Item::File(
            "a",
            if tag == "unsigned" { "2" } else { "3" }.into(),
        )])?)?);
        ensure!(!registry.blob_gets()?[before..].iter().any(|get| get.path.contains(&layer)), "a layer was fetched");
    }
    pull("signed")?.expect(exit::OK)?;
    let decision = bench.inspect(&registry.reference("app:signed"))?["decision"].clone();
    let said = decision["verdicts"][0]["said"].as_str().context("nothing said")?;
    ensure!(decision["verdicts"][0]["plugin"] == "cosign" && !said.is_empty(), "{decision}");
    // A signature of one repository's image says nothing of another repository.
    registry.push(&bench.layout.source("signed"), "copy:signed")?;
    sign_copy(&registry, &digests[0])?;
    let copied = registry.reference("copy:signed");
    let refused =
        bench.cofferdam.fails(exit::REFUSED, ["pull", &copied, "--plain-http", &host, "--config", &config])?;
    ensure!(refused.err().contains("names the image"), "{}", refused.err());
    Ok(())
}

/// Copies the signature into another repository, as it is.
fn sign_copy(registry: &Registry, digest: &str) -> Result<()> {
    let tag = format!("{}.sig", digest.replace(':', "-"));
    let manifest = registry.manifest("app", &tag)?;
    let parsed: serde_json::Value = serde_json::from_slice(&manifest)?;
    for part in [&parsed["config"]["digest"], &parsed["layers"][0]["digest"]] {
        let digest = part.as_str().context("a digest")?;
        registry.upload("copy", &fs::read(registry.blob(digest)?)?)?;
    }
    registry.upload_manifest("copy", &tag, &manifest)
}

/// Without the network it asks for, a verifier cannot accept; the refusal says how to grant it.
#[test]
fn a_verifier_without_its_grant_refuses() -> Result<()> {
    require!("docker-registry", "skopeo", "openssl");
    let mut bench = Bench::new()?;
    bench.add("cosign")?;
    bench.cofferdam.ok(["plugin", "revoke", "cosign", "--http", "registry"])?;
    let registry = Registry::start(Kind::Plain)?;
    let image = bench.image("v1", &[Item::File("a", b"a".to_vec())])?;
    registry.push(&image, "app:v1")?;
    let ours = key(&bench, "ours")?;
    let config = config(&bench, &registry, &ours)?;
    let (reference, host) = (registry.reference("app:v1"), registry.host());
    let pull = ["pull", &reference, "--plain-http", &host, "--config", &config];
    let refused = bench.cofferdam.fails(exit::REFUSED, pull)?.has_hint()?;
    ensure!(refused.err().contains("cofferdam plugin grant cosign --http registry"), "{}", refused.err());
    bench.cofferdam.ok(["plugin", "revoke", "cosign", "--all"])?;
    let refused = bench.cofferdam.fails(exit::REFUSED, pull)?.has_hint()?;
    ensure!(refused.err().contains("cofferdam plugin grant cosign"), "{}", refused.err());
    Ok(())
}
