//! Plugins: each note can be read, each component is what its name says, and who has a note has its component.

use cofferdam_core::digest::Digest;
use cofferdam_core::error::{Error, Result};

use super::{Check, Finding, Part, Problem, sentence};
use crate::InstalledPlugin;
use crate::fsck::blobs::Judged;
use crate::plugins::{ROOM, component_name, note_name};
use crate::set_aside::Aside;

impl Check<'_> {
    /// Reads all notes about plugins.
    pub(super) fn notes(&self) -> Result<Vec<InstalledPlugin>> {
        let mut installed = Vec::new();
        for (name, note) in self.plugins.notes()? {
            self.count(|counts| counts.plugins += 1);
            let finding = match note {
                Ok(plugin) => {
                    installed.push(plugin);
                    continue;
                }
                Err(error @ Error::Damaged { .. }) => {
                    Finding::new(Part::Plugin, Problem::Damaged, &name, sentence(&error)).remedy(
                        "with --repair it is moved aside; then add the plugin again: cofferdam plugin add SOURCE",
                    )
                }
                Err(error) => Finding::new(Part::Plugin, Problem::Unreadable, &name, sentence(&error))
                    .remedy("see to it that the user who runs this may read it, and that the disk is well"),
            };
            self.find(finding.at(note_path(&name)));
        }
        Ok(installed)
    }

    /// Hashes a component.
    pub(super) fn component(&self, digest: &Digest) -> Result<()> {
        let Some(dir) = &self.plugins.dir else { return Ok(()) };
        let name = component_name(digest);
        let finding = match self.judge_file(dir, &name, digest)? {
            Judged::Gone => return Ok(()),
            Judged::Good => {
                self.mark_good(Part::PluginComponent, digest);
                return Ok(());
            }
            Judged::Bad(what) => {
                Finding::new(Part::PluginComponent, Problem::Damaged, digest, self.of_whom(digest, what))
                    .remedy("with --repair it is removed, so that it can be added again")
            }
            Judged::Unreadable(what) => {
                Finding::new(Part::PluginComponent, Problem::Unreadable, digest, self.of_whom(digest, what))
                    .remedy("see to it that the user who runs this may read it, and that the disk is well")
            }
        };
        self.find(finding.at(format!("{ROOM}/{name}")));
        Ok(())
    }

    /// What is wrong with a component, and whose it is.
    fn of_whom(&self, digest: &Digest, what: String) -> String {
        let names: Vec<_> = (self.installed.iter())
            .filter(|plugin| plugin.digest == *digest)
            .map(|plugin| format!("`{}`", plugin.name))
            .collect();
        if names.is_empty() { what } else { format!("{what}; it is what {} runs", names.join(", ")) }
    }

    /// Reports the plugins of which the component is missing or damaged now, after all repairs.
    pub(super) fn incomplete_plugins(&self) {
        for plugin in &self.installed {
            if self.is_good(Part::PluginComponent, &plugin.digest) || self.plugins.is_whole(&plugin.digest) {
                continue;
            }
            // A note goes before its component: whoever has removed or replaced the plugin meanwhile has changed the note by now.
            if !matches!(self.plugins.read(&plugin.name), Ok(Some(now)) if now.digest == plugin.digest) {
                continue;
            }
            let what = format!("it lacks its component {}", plugin.digest);
            self.find(
                Finding::new(Part::Plugin, Problem::Incomplete, &plugin.name, what)
                    .at(note_path(&plugin.name))
                    .remedy(plugin.remedy()),
            );
        }
    }

    pub(super) fn repair_note(&self, finding: &Finding) -> Result<Option<Result<String, String>>> {
        if finding.problem != Problem::Damaged {
            return Ok(None);
        }
        Ok(Some(Ok(match self.plugins.set_note_aside(&finding.subject)? {
            Some(aside) => {
                format!("moved to `{ROOM}/{aside}`; add the plugin again: cofferdam plugin add SOURCE")
            }
            None => "somebody else has mended it".into(),
        })))
    }

    pub(super) fn repair_component(&self, finding: &Finding) -> Result<Option<Result<String, String>>> {
        if finding.problem != Problem::Damaged {
            return Ok(None);
        }
        let digest: Digest = finding.subject.parse()?;
        Ok(Some(match self.plugins.set_component_aside(&digest)? {
            Aside::Removed => Ok("removed, so that it can be added again".into()),
            Aside::Renamed => Ok("moved aside, so that it can be added again".into()),
            Aside::Gone => Ok("it is gone".into()),
            Aside::Busy => Err("somebody is at work on the plugins".into()),
            Aside::Good => {
                self.mark_good(Part::PluginComponent, &digest);
                Ok("somebody else has mended it".into())
            }
        }))
    }
}

fn note_path(name: &str) -> String {
    format!("{ROOM}/{}", note_name(name))
}
