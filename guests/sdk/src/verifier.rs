//! The world `verifier`: says whether an image may be used, before any of its layers is fetched.

use crate::failure::Failure;

/// Judges images. The macro `verifier!` makes a component of it.
pub trait Verifier {
    /// Accepts an image, and says in one line why; or refuses it, with the reason as a failure. Any failure refuses.
    fn verify(image: Image) -> Result<String, Failure>;
}

/// What was asked for, and what the registry gave for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    /// The reference as it was resolved, such as `docker.io/library/debian:12`.
    pub reference: String,
    /// The registry's authority, `host[:port]`, such as `registry-1.docker.io`.
    pub registry: String,
    /// Whether the registry is spoken to in clear text.
    pub insecure: bool,
    /// The repository, such as `library/debian`.
    pub repository: String,
    /// The digest that the reference stands for: of the index, if it names one. Signatures are of this one.
    pub digest: String,
    /// The bytes that hash to `digest`.
    pub document: Vec<u8>,
    /// The digest of the platform's manifest; the same as `digest` if the reference names no index.
    pub manifest_digest: String,
    /// The bytes that hash to `manifest_digest`.
    pub manifest: Vec<u8>,
}
