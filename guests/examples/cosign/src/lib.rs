//! A verifier: an image is accepted if it has a signature that cosign made with the key in the setting `key`.
//!
//! It knows what `cosign sign --key` has always written: beside the image, under the tag `sha256-<digest>.sig`, a manifest
//! whose layers are signed statements, each with its signature in an annotation. Of each, in this order, it is checked that
//!
//! 1. the statement hashes to the digest under which the manifest names it,
//! 2. the signature (ECDSA on P-256 over SHA-256) is the key's,
//! 3. the statement is a cosign signature, of the image's digest and, if the setting `identity` asks, of this name.
//!
//! One good signature suffices. Without one the image is refused, and the reason says what is wrong with each. Whatever goes
//! wrong, from a slip in the settings to a registry that does not answer, refuses too. Keyless signatures, transparency logs and
//! the newer sigstore bundles are not looked at.
//!
//! For an index the signature must be of the index; the host makes sure that the platform's manifest is one of it.

mod registry;
mod statement;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cofferdam_sdk::{Failure, Image, Verifier, log, settings};
use p256::ecdsa::signature::Verifier as _;
use p256::ecdsa::{Signature, VerifyingKey};
use p256::pkcs8::DecodePublicKey;
use registry::{Descriptor, Registry};
use sha2::{Digest, Sha256};

cofferdam_sdk::verifier!(Cosign);

struct Cosign;

/// The annotation of a layer that holds its signature.
const SIGNATURE: &str = "dev.cosignproject.cosign/signature";

/// The media type of a statement.
const STATEMENT: &str = "application/vnd.dev.cosign.simplesigning.v1+json";

/// How many signatures are looked at. Anybody who may push may add some.
const SIGNATURES: usize = 64;

impl Verifier for Cosign {
    fn verify(image: Image) -> Result<String, Failure> {
        let rules = Rules::from_settings(&image)?;
        let mut registry = Registry::new(&image);
        let tag = format!("{}.sig", image.digest.replacen(':', "-", 1));
        let Some(manifest) = registry.manifest(&tag)? else {
            return Err(format!("not signed: {} has no tag {tag}", image.repository).into());
        };
        if manifest.layers.is_empty() {
            return Err("the signature's manifest holds no signatures".into());
        }
        if manifest.layers.len() > SIGNATURES {
            return Err(Failure::limit(format!("{} signatures; {SIGNATURES} are looked at", manifest.layers.len())));
        }
        let mut wrong = Vec::new();
        for (number, layer) in manifest.layers.iter().enumerate() {
            match check(layer, &rules, &mut registry) {
                Ok(name) => return Ok(format!("signed as {name} by the key {}", rules.fingerprint)),
                Err(reason) => {
                    let reason = format!("signature {} of {}: {reason}", number + 1, manifest.layers.len());
                    log::info(&reason);
                    wrong.push(reason);
                }
            }
        }
        Err(wrong.join("; ").into())
    }
}

/// What a signature must be.
struct Rules {
    key: VerifyingKey,
    fingerprint: String,
    digest: String,
    identity: Option<String>,
}

impl Rules {
    fn from_settings(image: &Image) -> Result<Self, Failure> {
        let pem = settings::get("key").ok_or("the setting `key` is missing: the public key, as PEM")?;
        let key = VerifyingKey::from_public_key_pem(pem.trim())
            .map_err(|e| format!("the setting `key` is not the PEM of a public key on P-256: {e}"))?;
        let hex = image.digest.strip_prefix("sha256:").filter(|hex| hex.len() == 64);
        if !hex.is_some_and(|hex| hex.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))) {
            return Err(format!("`{}` is not a digest that cosign signs", image.digest).into());
        }
        let identity = settings::get("identity").map(|identity| match identity.trim() {
            "reference" => statement::name(&image.reference).to_owned(),
            name => name.to_owned(),
        });
        let mut fingerprint = registry::hex(&Sha256::digest(key.to_sec1_point(true).as_bytes()));
        fingerprint.truncate(16);
        Ok(Self { key, fingerprint, digest: image.digest.clone(), identity })
    }
}

/// Checks one signature; says under which name the image was signed.
fn check(layer: &Descriptor, rules: &Rules, registry: &mut Registry<'_>) -> Result<String, String> {
    if layer.media_type != STATEMENT {
        return Err(format!("its type is `{}`", layer.media_type.escape_debug()));
    }
    let encoded = layer.annotations.get(SIGNATURE).ok_or("it has no signature in its annotations")?;
    let signature = STANDARD.decode(encoded.trim()).map_err(|e| format!("its signature is not base64: {e}"))?;
    let signature = Signature::from_der(&signature).map_err(|_| "its signature is not one of ECDSA on P-256")?;
    let statement = registry.blob(layer)?;
    rules.key.verify(&statement, &signature).map_err(|_| "it was not made by the key, or not over this statement")?;
    statement::check(&statement, &rules.digest, rules.identity.as_deref())
}

#[cfg(test)]
mod tests;
