//! What inspectors said of a layer: `records/sha256-<hex>.reports`, beside the record of its tree, which names it by its hash.
//!
//! A report is found by what made it: the component and its settings. With another plugin, another version of it or other
//! settings the layer is inspected again, from its blob. Derived data, as the tree is: what is damaged is made anew.

use std::fs::File;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use cofferdam_core::Watch;
use cofferdam_core::digest::Digest;
use cofferdam_core::error::{Error, Result};
use cofferdam_documents::LayerDescriptor;
use cofferdam_documents::plugin::InspectorReport;
use serde::{Deserialize, Serialize};

use crate::ensure::reader_of;
use crate::file::{self, Flush};
use crate::record::{FilePart, TreeRecord};
use crate::storage::ImageStorage;
use crate::trees::Trees;
use crate::unpacker::inspect_stored;

/// How the names of these files end.
pub(super) const SUFFIX: &str = ".reports";

/// Reports of one layer that are kept. Older ones go first.
const MOST: usize = 32;

/// The largest file of reports that is read, in bytes.
const LIMIT: u64 = 1 << 30;

pub(super) fn reports_name(digest: &Digest) -> String {
    format!("{}{SUFFIX}", digest.file_stem())
}

/// A report as it is kept.
#[derive(Serialize, Deserialize)]
struct Kept {
    #[serde(flatten)]
    about: InspectorReport,
    /// The report's bytes in base64.
    report: String,
}

impl Trees {
    /// The reports that a record names; none if they are not what was written.
    pub(super) fn reports(&self, record: &TreeRecord) -> Result<Vec<InspectorReport>> {
        let Some(part) = &record.reports else { return Ok(Vec::new()) };
        let name = reports_name(&record.digest);
        let bytes = match file::read(&self.0.records, &name, part.bytes.min(LIMIT)) {
            Err(Error::Limit { .. }) => None,
            other => other?,
        };
        let Some(bytes) = bytes.filter(|bytes| Digest::of(bytes) == part.digest) else {
            tracing::warn!(layer = %record.digest, "the reports about a layer are damaged, and will be made anew");
            return Ok(Vec::new());
        };
        let kept: Vec<Kept> = serde_json::from_slice(&bytes).unwrap_or_default();
        let open = |Kept { about, report }| {
            BASE64_STANDARD.decode(report).ok().map(|report| InspectorReport { report, ..about })
        };
        Ok(kept.into_iter().filter_map(open).collect())
    }

    /// Adds reports to those that a record names. The tree's lock is held; the caller writes the record.
    pub(super) fn add_reports(&self, record: &mut TreeRecord, reports: Vec<InspectorReport>) -> Result<()> {
        if reports.is_empty() {
            return Ok(());
        }
        let is_new = |old: &InspectorReport| reports.iter().any(|new| new.identity == old.identity);
        let mut all = self.reports(record)?;
        all.retain(|old| !is_new(old));
        all.extend(reports);
        all.drain(..all.len().saturating_sub(MOST));
        let kept: Vec<Kept> =
            all.into_iter().map(|about| Kept { report: BASE64_STANDARD.encode(&about.report), about }).collect();
        let name = reports_name(&record.digest);
        let bytes = serde_json::to_vec(&kept).map_err(|e| Error::io("write", name.as_bytes(), e))?;
        // What outlives a power cut has reports that do.
        let flush = if record.synced { Flush::Now } else { Flush::Later };
        file::replace(&self.0.records, &name, &bytes, flush)?;
        record.reports = Some(FilePart { digest: Digest::of(&bytes), bytes: bytes.len() as u64 });
        Ok(())
    }

    /// Which of these inspectors have left no report about a layer whose tree is there, as this reader gives it: what they said of
    /// another reading of the same blob does not count.
    pub fn uninspected(&self, digest: &Digest, reader: Option<&Digest>, inspectors: &[Digest]) -> Result<Vec<Digest>> {
        if inspectors.is_empty() {
            return Ok(Vec::new());
        }
        let reports = match self.vouched(digest)?.filter(|(_, record)| record.reader.as_ref() == reader) {
            Some((_, record)) => self.reports(&record)?,
            None => Vec::new(),
        };
        let lacks = |identity: &&Digest| !reports.iter().any(|report| report.identity == **identity);
        Ok(inspectors.iter().filter(lacks).cloned().collect())
    }

    /// Keeps reports about a layer whose tree, made by this reader, is there.
    pub fn keep_reports(&self, digest: &Digest, reader: Option<&Digest>, reports: Vec<InspectorReport>) -> Result<()> {
        let _lock = self.0.locks.acquire_unless(&self.lock_name(digest), None)?;
        let vouched = self.vouched(digest)?.filter(|(_, record)| record.reader.as_ref() == reader);
        let Some((_, mut record)) = vouched else { return Ok(()) };
        self.add_reports(&mut record, reports)?;
        self.write_record(&record)
    }
}

impl ImageStorage {
    /// What inspectors said of a layer whose tree is there, oldest first.
    pub fn layer_reports(&self, layer: &Digest) -> Result<Vec<InspectorReport>> {
        let trees = self.trees();
        trees.vouched(layer)?.map_or_else(|| Ok(Vec::new()), |(_, record)| trees.reports(&record))
    }

    /// Has a layer inspected by those of the unpacker's inspectors that have not seen it: from its blob, `open`ed when there
    /// are any. Blocks.
    ///
    /// # Errors
    ///
    /// What the inspectors say, and all that reading a layer may fail with.
    pub fn ensure_inspected(
        &self,
        layer: &LayerDescriptor,
        open: impl Fn() -> Result<File>,
        watch: &Watch,
    ) -> Result<()> {
        let unpacker = self.unpacker();
        let inspectors = unpacker.inspectors();
        if inspectors.is_empty() {
            return Ok(());
        }
        let reader = reader_of(unpacker, layer, &open)?;
        if self.trees().uninspected(&layer.digest, reader.as_ref(), &inspectors)?.is_empty() {
            return Ok(());
        }
        let inspected = open().and_then(|blob| inspect_stored(unpacker, blob, layer, watch));
        let reports = inspected.map_err(|error| error.context(format!("inspecting layer {}", layer.digest)))?;
        self.trees().keep_reports(&layer.digest, reader.as_ref(), reports)
    }
}
