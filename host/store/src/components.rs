//! The components of plugins: which of them no note names, and which are not what their names say.

use std::collections::BTreeSet;

use cofferdam_core::digest::Digest;
use cofferdam_core::error::{Error, Result};

use crate::plugins::{LOCK, Plugins, ROOM, component_digest, component_name, note_name};
use crate::reach::Culprit;
use crate::set_aside::Aside;
use crate::{file, layout};

impl Plugins {
    /// The digests under which there are components.
    pub(super) fn components(&self) -> Result<BTreeSet<Digest>> {
        let Some(dir) = &self.dir else { return Ok(BTreeSet::new()) };
        Ok(layout::names(dir, ROOM)?.iter().filter_map(|name| component_digest(name)).collect())
    }

    /// The components that no note names; if that cannot be known, for any may be that of a note that cannot be read, which note is
    /// the reason. Only a look: somebody may be adding one.
    pub(super) fn unnamed(&self) -> Result<Result<BTreeSet<Digest>, Culprit>> {
        let Some(dir) = &self.dir else { return Ok(Ok(BTreeSet::new())) };
        let mut unnamed = self.components()?;
        // What is not a regular file nobody here made.
        unnamed.retain(|digest| layout::file_size(dir, &component_name(digest)).is_some());
        let mut culprit = None;
        for (name, note) in self.notes()? {
            match note {
                Ok(plugin) => drop(unnamed.remove(&plugin.digest)),
                Err(_) => drop(culprit.get_or_insert(name)),
            }
        }
        Ok(match culprit {
            Some(name) if !unnamed.is_empty() => Err(format!("the note about the plugin `{name}` cannot be read")),
            _ => Ok(unnamed),
        })
    }

    /// Whether somebody is at work on the plugins: then a component may be about to get its note.
    pub(super) fn is_busy(&self) -> bool {
        self.storage.locks().is_held(LOCK)
    }

    /// Frees the components that no note names, unless somebody is at work on the plugins, who does the same in the end.
    pub(super) fn sweep(&self) -> Result<()> {
        if self.dir.is_some()
            && let Some(_lock) = self.storage.locks().try_acquire(LOCK)?
        {
            self.free_unnamed();
        }
        Ok(())
    }

    /// Frees the components that no note names; the caller has the lock. What cannot be freed is left for the next time: it is in
    /// nobody's way.
    pub(super) fn free_unnamed(&self) {
        let Some(dir) = &self.dir else { return };
        let freed = self.unnamed().and_then(|unnamed| match unnamed {
            Ok(unnamed) => unnamed.iter().try_for_each(|digest| file::remove(dir, &component_name(digest)).map(drop)),
            Err(why) => {
                tracing::debug!(why, "components that no plugin may need are kept");
                Ok(())
            }
        });
        if let Err(error) = freed {
            tracing::warn!(%error, "cannot free the components that no plugin needs");
        }
    }

    /// Sets the note about a plugin aside if it is damaged, and says how it is called now. Nothing if it is right, or gone.
    pub(super) fn set_note_aside(&self, name: &str) -> Result<Option<String>> {
        let _lock = self.storage.locks().acquire(LOCK)?;
        match (&self.dir, self.read(name)) {
            (Some(dir), Err(Error::Damaged { .. })) => file::set_aside(dir, &note_name(name)),
            (_, Err(error)) => Err(error),
            _ => Ok(None),
        }
    }

    /// Removes a component that is not what its name says, unless somebody is at work on the plugins.
    pub(super) fn set_component_aside(&self, digest: &Digest) -> Result<Aside> {
        let Some(dir) = &self.dir else { return Ok(Aside::Gone) };
        let Some(_lock) = self.storage.locks().try_acquire(LOCK)? else { return Ok(Aside::Busy) };
        let name = component_name(digest);
        if let Some(mut file) = file::open(dir, &name)? {
            let (actual, _) = file::hash(&mut file, digest.algorithm(), &name)?;
            if actual == *digest {
                return Ok(Aside::Good);
            }
            return Ok(if file::remove(dir, &name)? { Aside::Removed } else { Aside::Gone });
        }
        Ok(if file::set_aside(dir, &name)?.is_some() { Aside::Renamed } else { Aside::Gone })
    }
}
