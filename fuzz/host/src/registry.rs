//! References.

#[path = "../../../host/src/registry/reference.rs"]
mod reference;

pub use reference::{Reference, RegistryHost};

/// The host that is connected to, and the last part of a manifest's address: what goes into a URL.
pub fn address(reference: &Reference) -> (String, String) {
    (reference.registry().authority().to_owned(), reference.manifest_key())
}

/// The registry that a client reaches by a text, and its host without the port.
pub fn reached_by(text: &str) -> Option<(RegistryHost, String)> {
    let registry = RegistryHost::reached_by(text)?;
    let host = registry.parts().0.to_owned();
    Some((registry, host))
}
