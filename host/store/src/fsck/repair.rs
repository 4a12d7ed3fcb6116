//! Repairs, once everything was checked. Each judges again under its lock.

use std::sync::PoisonError;

use cofferdam_core::Watch;
use cofferdam_core::digest::Digest;
use cofferdam_core::error::Result;
use cofferdam_documents::LayerDescriptor;

use super::blobs::Judged;
use super::{Check, Finding, Of, Part, Problem, sentence};
use crate::layout::BlobKind;
use crate::set_aside::Aside;
use crate::trees::Trees;

impl Check<'_> {
    pub(super) fn repair(&self) -> Result<()> {
        let mut findings = std::mem::take(&mut *self.findings.lock().unwrap_or_else(PoisonError::into_inner));
        // Blobs before trees: a tree is extracted from a good one.
        findings.sort_by_key(|finding| matches!(finding.part, Part::Record | Part::LayerRecord | Part::Tree));
        for finding in &mut findings {
            self.options.cancel.check()?;
            if finding.repaired {
                continue;
            }
            let outcome = match finding.part {
                Part::Reference => self.repair_reference(finding),
                Part::Manifest | Part::Config | Part::Layer => self.repair_blob(finding),
                Part::Record | Part::LayerRecord | Part::Tree => self.repair_tree(finding),
                Part::TreeList => self.repair_list(finding),
                Part::Plugin => self.repair_note(finding),
                Part::PluginComponent => self.repair_component(finding),
                _ => continue,
            };
            match outcome {
                Ok(Some(outcome)) => finding.settle(outcome),
                Ok(None) => {}
                Err(error) if error.is_interrupted() => return Err(error),
                Err(error) => finding.settle(Err(sentence(&error))),
            }
        }
        // Leftovers of the dead, of whatever kind.
        if let Err(error) = self.storage.sweep() {
            tracing::warn!(%error, "cannot remove all that dead processes left in the store");
        } else {
            let swept = |f: &&mut Finding| f.problem == Problem::Leftover && f.part != Part::Reference;
            for finding in findings.iter_mut().filter(swept) {
                finding.settle(Ok("removed".into()));
            }
        }
        self.findings.lock().unwrap_or_else(PoisonError::into_inner).extend(findings);
        Ok(())
    }

    fn repair_reference(&self, finding: &Finding) -> Result<Option<Result<String, String>>> {
        let Some(name) = finding.path.as_deref().and_then(|path| path.strip_prefix("refs/")) else { return Ok(None) };
        Ok(Some(Ok(match self.storage.refs().set_aside(name)? {
            Some(aside) => format!("moved to `refs/{aside}`; pull it again: cofferdam pull {}", finding.subject),
            None => "somebody else has mended it".into(),
        })))
    }

    fn repair_blob(&self, finding: &Finding) -> Result<Option<Result<String, String>>> {
        if finding.problem != Problem::Damaged {
            return Ok(None);
        }
        let kind = match finding.part {
            Part::Manifest => BlobKind::Manifest,
            Part::Config => BlobKind::Config,
            _ => BlobKind::Layer,
        };
        let digest: Digest = finding.subject.parse()?;
        Ok(Some(match self.storage.set_aside_now(kind, &digest)? {
            Aside::Removed => Ok("removed, so that it is fetched again by the next pull".into()),
            Aside::Renamed => Ok("moved aside, so that it is fetched again by the next pull".into()),
            Aside::Gone => Ok("it is gone".into()),
            Aside::Busy => Err("somebody is at work on it".into()),
            Aside::Good => {
                self.mark_good(finding.part, &digest);
                Ok("somebody else has mended it".into())
            }
        }))
    }

    fn repair_tree(&self, finding: &Finding) -> Result<Option<Result<String, String>>> {
        let unvouched = finding.problem == Problem::Unvouched;
        // What could not be read may be fine.
        if !finding.damage && !unvouched || finding.problem == Problem::Unreadable {
            return Ok(None);
        }
        let path = finding.path.as_deref().unwrap_or_default();
        let Some(place) = self.place_of(path) else { return Ok(None) };
        let trees = &self.open(place)?;
        // What nothing vouches for may be what another program counts on.
        if unvouched && self.storage.keeps_unreferenced() {
            return Ok(None);
        }
        let digest: Digest = finding.subject.parse()?;
        if !trees.retire(&digest, finding.mark.as_deref())? {
            let now = trees.vouched(&digest)?.map(|(_, record)| record.mark);
            let replaced = now.is_some() && now != finding.mark;
            return Ok(Some(if replaced {
                Ok("somebody else has mended it".into())
            } else {
                Err("somebody is at work on it, or reads it".into())
            }));
        }
        if !matches!(place.of, Of::Registry) || finding.images.is_empty() {
            return Ok(Some(Ok("removed".into())));
        }
        self.extract_again(trees, &digest).map(Some)
    }

    /// A list that cannot be made again is forgotten.
    fn repair_list(&self, finding: &Finding) -> Result<Option<Result<String, String>>> {
        let path = finding.path.as_deref().unwrap_or_default();
        let digest: Digest = finding.subject.parse()?;
        let Some(place) = self.place_of(path) else { return Ok(None) };
        let trees = self.open(place)?;
        let forgotten = trees.forget_list(&digest, finding.mark.as_deref())?;
        let what = "forgotten: the tree counts as before, but cannot be checked";
        Ok(Some(if forgotten { Ok(what.into()) } else { Err("somebody is at work on it".into()) }))
    }

    fn extract_again(&self, trees: &Trees, digest: &Digest) -> Result<Result<String, String>> {
        match self.judge(BlobKind::Layer, digest)? {
            Judged::Good => {}
            Judged::Gone | Judged::Bad(_) | Judged::Unreadable(_) => {
                return Ok(Ok("removed; its layer has to be fetched to extract it again".into()));
            }
        }
        let layer = self.needs.layers.get(digest).cloned().unwrap_or_else(|| LayerDescriptor::of(digest.clone()));
        let watch = Watch { cancel: self.options.cancel.clone(), ..Watch::default() };
        match self.storage.ensure_tree_watched(&layer, &watch) {
            Ok(_) => {
                self.mark_whole(digest);
                trees.list_now(digest, &self.options.cancel)?;
                Ok(Ok("removed, and extracted again".into()))
            }
            Err(error) if error.is_interrupted() => Err(error),
            Err(error) => Ok(Err(format!("it was removed, but cannot be extracted again: {}", sentence(&error)))),
        }
    }
}
