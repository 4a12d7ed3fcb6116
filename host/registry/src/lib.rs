//! Sources of images: registries and OCI layouts, and the pull that brings an image into a store.
//!
//! A source ([`ImageSource`]) delivers bytes and promises nothing about them. Documents are checked here against the digest and the
//! size that were declared for them; blobs, which are streams, are checked in size here and hashed where they are stored.
//!
//! ```text
//! reference ─▶ search ─▶ source ─▶ authorize ─▶ client ─▶ proxy ─▶ network
//!                          │
//!              pull ─▶ layer ─▶ fetch ─▶ tail ─▶ the unpacker
//! ```
//!
//! Requests are our own, on hyper, and not those of `oci-client`: its client buffers manifests and the bodies of
//! errors without a bound, hides `Retry-After`, follows redirects from HTTPS to HTTP, and turns a token that cannot be
//! renewed into an anonymous request; none of that can be mended from outside.

mod access;
mod admission;
mod answer;
mod artifact;
mod authorize;
mod candidate;
mod challenge;
mod client;
mod fetch;
mod http;
pub mod image_source;
mod layer;
#[cfg(test)]
mod layout_tests;
mod oci_layout;
mod pace;
mod proxy;
mod pull;
mod retry;
mod search;
mod source;
mod tail;
mod tasks;
#[cfg(test)]
mod tests;

pub use access::{AccessList, Auth, HostAccess, Transport};
pub use admission::{Admission, Candidate};
pub use artifact::{COMPONENT_TYPE, CONFIG_TYPE, PluginArtifact, fetch_plugin};
pub use candidate::candidate;
pub use client::{NetworkOptions, Registries};
pub use cofferdam_documents::{Reference, RegistryHost};
pub use image_source::{Blob, Failure, ImageSource, Retry, Server};
pub use oci_layout::{OciLayout, layout_reference};
pub use proxy::check_proxy;
pub use pull::{PullOptions, Pulled, pull};
pub use retry::{Attempts, RetryPolicy};
pub use search::RegistrySearch;
pub use source::RegistrySource;
