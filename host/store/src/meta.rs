//! `meta.json`: which format the store has, and which features a program must know to use it.
//!
//! ```json
//! { "format": 1, "compatible": [], "read_only_compatible": [], "incompatible": [] }
//! ```
//!
//! A later version that changes the store adds a name to one of the lists. Who does not know a *compatible* feature may
//! ignore it, who does not know a *read-only-compatible* one may read, who does not know an *incompatible* one stays out.

use std::sync::Arc;

use cap_std::fs::Dir;
use cofferdam_core::error::{Error, Escaped, Result};
use serde::{Deserialize, Serialize};

use crate::file;
use crate::migrate::CURRENT;

pub(super) const NAME: &str = "meta.json";

/// The largest `meta.json` that is read, in bytes.
const LIMIT: u64 = 64 << 10;

/// Features that this version knows, by list. None were needed so far.
const KNOWN_READ_ONLY_COMPATIBLE: [&str; 0] = [];
const KNOWN_INCOMPATIBLE: [&str; 0] = [];

#[derive(Debug, Serialize, Deserialize)]
struct Meta {
    format: u32,
    #[serde(default)]
    compatible: Vec<String>,
    #[serde(default)]
    read_only_compatible: Vec<String>,
    #[serde(default)]
    incompatible: Vec<String>,
}

impl Meta {
    fn new(format: u32) -> Self {
        Self { format, compatible: Vec::new(), read_only_compatible: Vec::new(), incompatible: Vec::new() }
    }
}

/// What may be done with a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Access {
    /// The store's path, escaped.
    path: String,
    /// The feature for which it may only be read.
    read_only: Option<String>,
}

impl Access {
    /// Of a store of which it is not known what it needs.
    pub(super) fn unknown(shown: &[u8]) -> Self {
        Self { path: Escaped(shown).to_string(), read_only: Some(format!("whatever {NAME} says")) }
    }

    /// Refuses what would change a store that may only be read.
    pub(super) fn writable(&self) -> Result<()> {
        match &self.read_only {
            None => Ok(()),
            Some(feature) => Err(Error::StoreFeature { path: self.path.clone(), feature: feature.clone() }),
        }
    }
}

/// Reads the store's `meta.json`; nothing if there is none. `shown` is the store's path, for messages.
pub(super) fn read(root: &Dir, shown: &[u8]) -> Result<Option<Access>> {
    read_for(root, shown, CURRENT)
}

/// The same, for a version that knows formats up to this one.
pub(super) fn read_for(root: &Dir, shown: &[u8], newest: u32) -> Result<Option<Access>> {
    parse(root, shown, newest)?.map(|meta| judge(meta, shown)).transpose()
}

/// The format of a store; nothing if it has no `meta.json`.
pub(super) fn format(root: &Dir, shown: &[u8], newest: u32) -> Result<Option<u32>> {
    Ok(parse(root, shown, newest)?.map(|meta| meta.format))
}

fn parse(root: &Dir, shown: &[u8], newest: u32) -> Result<Option<Meta>> {
    let text = match file::read_trusted(root, NAME, LIMIT) {
        Ok(Some(text)) => text,
        Ok(None) if !is_there(root) => return Ok(None),
        Ok(None) => return Err(corrupt(shown, &"it is not a regular file")),
        Err(Error::Limit { .. }) => return Err(corrupt(shown, &"it is too large")),
        Err(error) => return Err(error),
    };
    let meta: Meta = serde_json::from_slice(&text).map_err(|e| corrupt(shown, &e))?;
    if meta.format > newest {
        let feature = format!("format {}", meta.format);
        return Err(Error::StoreFeature { path: Escaped(shown).to_string(), feature });
    }
    Ok(Some(meta))
}

/// Whether there is a `meta.json`, whatever it says.
pub(super) fn is_there(root: &Dir) -> bool {
    rustix::fs::statat(root, NAME, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).is_ok()
}

/// Writes the `meta.json` of a new store, unless somebody else has, and reads it then. To be done last of all that makes a
/// store: where it is, everything else is.
pub(super) fn write(root: &Arc<Dir>, shown: &[u8]) -> Result<Access> {
    // Somebody else may open the same new store: the first to write is the one to be read.
    if file::create(root, NAME, &text(&Meta::new(CURRENT), shown)?)? == file::Publication::Done {
        return Ok(Access { path: Escaped(shown).to_string(), read_only: None });
    }
    read(root, shown)?.ok_or_else(|| not_there(shown))
}

/// Says that the store has another format now. Its features stay.
pub(super) fn advance(root: &Arc<Dir>, shown: &[u8], format: u32) -> Result<()> {
    let old = parse(root, shown, u32::MAX)?;
    let meta = old.map_or_else(|| Meta::new(format), |old| Meta { format, ..old });
    file::replace(root, NAME, &text(&meta, shown)?, file::Flush::Now)
}

fn text(meta: &Meta, shown: &[u8]) -> Result<Vec<u8>> {
    let mut text = serde_json::to_vec_pretty(meta).map_err(|e| corrupt(shown, &e))?;
    text.push(b'\n');
    Ok(text)
}

/// The error of a store that has lost its `meta.json` while it was opened.
pub(super) fn not_there(shown: &[u8]) -> Error {
    corrupt(shown, &"it was removed meanwhile")
}

fn judge(meta: Meta, shown: &[u8]) -> Result<Access> {
    let unknown = |feature: String| Error::StoreFeature { path: Escaped(shown).to_string(), feature };
    if let Some(feature) = meta.incompatible.into_iter().find(|f| !KNOWN_INCOMPATIBLE.contains(&f.as_str())) {
        return Err(unknown(feature));
    }
    let readable = meta.read_only_compatible.iter().find(|f| !KNOWN_READ_ONLY_COMPATIBLE.contains(&f.as_str()));
    if let Some(feature) = &readable {
        tracing::warn!(
            feature,
            "the store has a feature that this version does not know: it is opened for reading only"
        );
    }
    Ok(Access { path: Escaped(shown).to_string(), read_only: readable.cloned() })
}

fn corrupt(shown: &[u8], reason: &dyn std::fmt::Display) -> Error {
    Error::Damaged {
        subject: format!("`{}/{NAME}`", Escaped(shown)),
        reason: reason.to_string(),
        hint: "repair it: cofferdam fsck --repair".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(text: &str) -> Result<Access> {
        let temp = tempfile::tempdir().unwrap();
        let root = cofferdam_core::ambient::open_dir(temp.path()).unwrap();
        root.write(NAME, text).unwrap();
        read(&root, b"/store").map(Option::unwrap)
    }

    fn may_write(text: &str) -> bool {
        judged(text).unwrap().writable().is_ok()
    }

    #[test]
    fn features_decide() {
        assert!(may_write(r#"{"format":1}"#));
        assert!(may_write(r#"{"format":1,"compatible":["nice"],"new":[]}"#));
        assert!(!may_write(r#"{"format":1,"read_only_compatible":["packs"]}"#));
        let refused = judged(r#"{"format":1,"incompatible":["packs"]}"#).unwrap_err();
        assert!(refused.to_string().contains("`packs`"), "{refused}");
        assert!(refused.hint().is_some());
        assert!(matches!(judged(r#"{"format":2}"#), Err(Error::StoreFeature { .. })));
        assert!(matches!(judged(""), Err(Error::Damaged { .. })));
    }

    #[test]
    fn two_that_open_a_new_store_agree() {
        let temp = tempfile::tempdir().unwrap();
        let root = Arc::new(cofferdam_core::ambient::open_dir(temp.path()).unwrap());
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| write(&root, b"/store").unwrap().writable().unwrap());
            }
        });
        let names: Vec<_> = temp.path().read_dir().unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, [NAME]);
    }
}
