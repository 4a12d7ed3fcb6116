//! Manifests, indexes, configurations, and the names of layouts and platforms.

#[path = "../../../host/src/transport/config.rs"]
mod config;
#[path = "../../../host/src/transport/descriptor.rs"]
mod descriptor;
#[path = "../../../host/src/transport/json.rs"]
mod json;
#[path = "../../../host/src/transport/layout_name.rs"]
mod layout_name;
#[path = "../../../host/src/transport/manifest.rs"]
mod manifest;
#[path = "../../../host/src/transport/media_type.rs"]
mod media_type;
#[path = "../../../host/src/transport/platform.rs"]
mod platform;
#[path = "../../../host/src/transport/source.rs"]
mod source;

pub use config::Configuration;
pub use descriptor::Descriptor;
pub use layout_name::{LayoutName, LayoutSelector};
pub use manifest::{Document, Index, IndexEntry, Manifest};
pub use media_type::{DocumentKind, MediaType};
pub use platform::Platform;
pub use source::RawDocument;
