//! Reports of inspectors.

use cofferdam_core::Digest;
use serde::{Deserialize, Serialize};

/// The report of an inspector about a layer that it accepted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InspectorReport {
    /// The name under which the inspector was added.
    pub plugin: String,
    /// The digest of the component and its settings.
    pub identity: Digest,
    /// The report: any bytes, possibly none.
    #[serde(skip)]
    pub report: Vec<u8>,
}
