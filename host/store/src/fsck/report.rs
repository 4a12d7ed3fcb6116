//! What a check of the store says.

use serde::Serialize;

/// What was checked, and what was found.
#[derive(Clone, Debug, Default, Serialize)]
#[non_exhaustive]
pub struct FsckReport {
    /// How much was checked.
    pub checked: Counts,
    /// What was found, in the order of kinds and names.
    pub findings: Vec<Finding>,
}

/// How much was checked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Counts {
    /// References.
    pub images: u64,
    /// Manifests and indexes.
    pub manifests: u64,
    /// Image configurations.
    pub configs: u64,
    /// Layers' blobs.
    pub layers: u64,
    /// Trees.
    pub trees: u64,
    /// Plugins.
    pub plugins: u64,
    /// Entries of trees.
    pub entries: u64,
    /// Bytes that were read and hashed.
    pub bytes: u64,
}

/// What a finding is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Part {
    /// `meta.json`.
    Meta,
    /// A directory of the store.
    Room,
    /// An image: whether all of it is there.
    Image,
    /// The file of a reference.
    Reference,
    /// A manifest or an index.
    Manifest,
    /// An image configuration.
    Config,
    /// A layer's blob.
    Layer,
    /// What vouches for a tree.
    Record,
    /// What a merge must know beside a tree.
    LayerRecord,
    /// The list of all that is in a tree.
    TreeList,
    /// A layer's tree.
    Tree,
    /// A plugin: the note about it, and whether it has its component.
    Plugin,
    /// The component of a plugin.
    PluginComponent,
    /// Something else that lies in the store.
    Other,
}

impl Part {
    /// The word for it, as in the report's JSON.
    pub fn word(self) -> &'static str {
        match self {
            Self::Meta => "meta",
            Self::Room => "room",
            Self::Image => "image",
            Self::Reference => "reference",
            Self::Manifest => "manifest",
            Self::Config => "config",
            Self::Layer => "layer",
            Self::Record => "record",
            Self::LayerRecord => "layer-record",
            Self::TreeList => "tree-list",
            Self::Tree => "tree",
            Self::Plugin => "plugin",
            Self::PluginComponent => "plugin-component",
            Self::Other => "other",
        }
    }
}

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Problem {
    /// It is not what was written, or not what its name says.
    Damaged,
    /// It should be there and is not.
    Missing,
    /// An image or a plugin lacks a part.
    Incomplete,
    /// The system does not let it be read.
    Unreadable,
    /// There is no list by which a tree could be checked.
    Unlisted,
    /// Nothing vouches for a tree: it does not count, and is extracted again when it is needed.
    Unvouched,
    /// Another program wrote it, and it cannot be verified: it does not count.
    Foreign,
    /// Somebody who is gone left it behind.
    Leftover,
    /// It is nothing of the store's.
    Stray,
}

impl Problem {
    /// The word for it, as in the report's JSON.
    pub fn word(self) -> &'static str {
        match self {
            Self::Damaged => "damaged",
            Self::Missing => "missing",
            Self::Incomplete => "incomplete",
            Self::Unreadable => "unreadable",
            Self::Unlisted => "unlisted",
            Self::Unvouched => "unvouched",
            Self::Foreign => "foreign",
            Self::Leftover => "leftover",
            Self::Stray => "stray",
        }
    }

    /// Whether it means that something which counts is not as it should be. All else is only worth knowing.
    pub fn is_damage(self) -> bool {
        matches!(self, Self::Damaged | Self::Missing | Self::Incomplete | Self::Unreadable)
    }
}

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Finding {
    /// What it is about.
    pub part: Part,
    /// What is wrong.
    pub problem: Problem,
    /// Whether that is damage, or only worth knowing.
    pub damage: bool,
    /// Whether it was repaired just now.
    pub repaired: bool,
    /// The image's reference, the blob's digest, the plugin's name, or a path in the store.
    pub subject: String,
    /// Where it is: a path in the store.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// What was found, in a sentence.
    pub what: String,
    /// What was done, or can be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
    /// In what a tree differs from its list: the first few.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub differences: Vec<TreeDifference>,
    /// In how many entries it does.
    #[serde(skip_serializing_if = "is_zero")]
    pub different: u64,
    /// The images that need it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub images: Vec<String>,
    /// The mark of the tree that was judged.
    #[serde(skip)]
    pub(super) mark: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "the signature that serde wants")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// An entry of a tree that is not as it was extracted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct TreeDifference {
    /// Its path in the tree, escaped.
    pub path: String,
    /// What differs.
    pub what: String,
}

impl Finding {
    pub(super) fn new(part: Part, problem: Problem, subject: impl ToString, what: impl Into<String>) -> Self {
        Self {
            mark: None,
            part,
            problem,
            damage: problem.is_damage(),
            repaired: false,
            subject: subject.to_string(),
            path: None,
            what: what.into(),
            remedy: None,
            differences: Vec::new(),
            different: 0,
            images: Vec::new(),
        }
    }

    pub(super) fn at(self, path: impl Into<String>) -> Self {
        Self { path: Some(path.into()), ..self }
    }

    pub(super) fn remedy(self, remedy: impl Into<String>) -> Self {
        Self { remedy: Some(remedy.into()), ..self }
    }

    /// Notes what came of a repair: what was done, or why nothing was.
    pub(super) fn settle(&mut self, outcome: Result<String, String>) {
        self.repaired = outcome.is_ok();
        self.remedy = Some(match outcome {
            Ok(done) => done,
            Err(why) => format!("not repaired: {why}"),
        });
    }
}

impl FsckReport {
    /// Whether there is damage that was not repaired.
    pub fn is_damaged(&self) -> bool {
        self.findings.iter().any(|finding| finding.damage && !finding.repaired)
    }
}
