//! Registries: what images are called there, how they are asked, and how a pull brings one into a store.

mod reference;

pub use reference::{Reference, RegistryHost};
