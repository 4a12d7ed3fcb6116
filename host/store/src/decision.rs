//! Why an image was let in: kept with its reference.

use serde::{Deserialize, Serialize};

use cofferdam_core::digest::Digest;
use cofferdam_documents::plugin::World;

/// What was decided about an image when it was pulled, and by whom.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// The name under which the image was judged.
    #[serde(default)]
    pub reference: String,
    /// The pattern of the policy's rule that was applied; nothing if the plugins were asked for by hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// What each plugin said, in the order in which they were asked.
    pub verdicts: Vec<Verdict>,
}

/// A plugin that accepted the image. There are no others: one that refuses ends the pull.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// The plugin's name at that time.
    pub plugin: String,
    /// A verifier, which judged the image; or an inspector, which saw each of its layers.
    pub world: World,
    /// What ran: the digest of the component and its settings.
    pub identity: Digest,
    /// What a verifier said, in one line. What inspectors said is with the layers.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub said: String,
}

impl Decision {
    /// Whether this plugin, with these settings, accepted the image under this name. An inspector sees layers, which have no names.
    pub fn covers(&self, identity: &Digest, reference: &str) -> bool {
        self.verdicts.iter().any(|verdict| {
            verdict.identity == *identity && (verdict.world == World::Inspector || self.reference == reference)
        })
    }
}
