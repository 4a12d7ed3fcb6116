//! Opening a store to check it: as it is, with whatever is wrong with it.

use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use cofferdam_core::ambient;
use cofferdam_core::error::{Error, Result};
use cofferdam_core::limits::Limits;
use cofferdam_core::progress::Progress;
use cofferdam_tree::LayerUnpacker;

use super::{Check, Counts, Finding, FsckOptions, FsckReport, Part, Problem, sentence};
use crate::file;
use crate::layout::{self, Rooms};
use crate::meta::{self, Access};
use crate::storage::ImageStorage;
use crate::trust;

impl ImageStorage {
    /// Checks the store at `images_dir`, as [`ImageStorage::fsck`], without opening it for use before: what the dead left is still
    /// there to be found, and so is a `meta.json` that is damaged.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] if there is no store, [`Error::StoreFeature`] if a later version changed it.
    pub fn fsck_at(
        images_dir: impl Into<PathBuf>,
        limits: Limits,
        unpacker: Arc<dyn LayerUnpacker>,
        options: &FsckOptions,
        progress: &Progress,
    ) -> Result<FsckReport> {
        let path = images_dir.into();
        let shown = path.as_os_str().as_bytes();
        let root = match ambient::hold(&path) {
            Err(Error::NotFound { .. }) => return Err(no_store(&path)),
            _ => Arc::new(ambient::open_dir(&path)?),
        };
        if !meta::is_there(&root) {
            return Err(no_store(&path));
        }
        trust::ensure(&root, shown)?;
        let mut findings = Vec::new();
        let access = match meta::read(&root, shown) {
            Ok(Some(access)) => access,
            Ok(None) => return Err(no_store(&path)),
            Err(error @ Error::Damaged { .. }) => {
                let (finding, access) = mend_meta(&root, shown, &error, options.repair)?;
                findings.push(finding);
                access
            }
            Err(error) => return Err(error),
        };
        for room in layout::NEEDED.into_iter().filter(|room| !root.is_dir(room)) {
            // Empty, it is as good as absent.
            let mut finding =
                Finding::new(Part::Room, Problem::Missing, room, "a directory of the store is gone").at(room);
            if options.repair {
                finding.settle(Ok("it was made again".into()));
            } else {
                finding = finding.remedy("with --repair it is made again; nothing else was checked without it");
            }
            findings.push(finding);
        }
        let rooms = if options.repair { Rooms::open(root).map(Some) } else { Rooms::look(root) };
        let Some(rooms) = rooms.map_err(|error| layout::within(error, shown))? else {
            return Ok(FsckReport { checked: Counts::default(), findings });
        };
        let storage = Self::of(path, rooms, access, limits, unpacker);
        // A store whose `meta.json` cannot be mended is not changed; one that may only be read is not to be repaired at all.
        let unknown = findings.iter().any(|finding| finding.part == Part::Meta && !finding.repaired);
        if options.repair && !unknown {
            storage.writable()?;
        }
        let repair = options.repair && !unknown;
        let mut report = storage.fsck(&FsckOptions { repair, ..options.clone() }, progress)?;
        findings.append(&mut report.findings);
        report.findings = findings;
        Ok(report)
    }
}

fn no_store(path: &std::path::Path) -> Error {
    Error::NotFound {
        what: format!("a store at `{}`", cofferdam_core::error::Escaped(path.as_os_str().as_bytes())),
        hint: Some("if another program's images are there, the first pull takes them over".into()),
    }
}

/// Writes a damaged `meta.json` again, if it can be known what it said: there was nothing to say but the format, as long as there is
/// nothing in the store that this version does not know.
fn mend_meta(root: &Arc<cap_std::fs::Dir>, shown: &[u8], error: &Error, repair: bool) -> Result<(Finding, Access)> {
    let mut finding = Finding::new(Part::Meta, Problem::Damaged, meta::NAME, sentence(error)).at(meta::NAME);
    let unknown = layout::names(root, "the store")?.into_iter().find(|name| !Check::is_known_in_root(name));
    if let Some(name) = unknown {
        let why = format!("it may have been a later version's, for `{name}` is not known to this one");
        finding = finding.remedy(format!("restore it from a backup; {why}"));
        return Ok((finding, Access::unknown(shown)));
    }
    if !repair {
        finding = finding.remedy("with --repair it is moved aside and written again");
        return Ok((finding, Access::unknown(shown)));
    }
    let aside = file::set_aside(root, meta::NAME)?.unwrap_or_default();
    let access = meta::write(root, shown)?;
    finding.settle(Ok(format!("written again; what was there is `{aside}` now")));
    Ok((finding, access))
}
