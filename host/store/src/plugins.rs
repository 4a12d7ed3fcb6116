//! The plugins that were added: `plugins/<name>.json`, and their components by digest.
//!
//! A name stands for one component, by its digest, until a person changes that: what a tag in a registry stands for
//! later has no influence. Grants belong to that component; another one under the same name begins without any.
//!
//! A note is written after its component, and removed before it: who is killed between leaves a component that no note names, which
//! `components.rs` frees. A note that cannot be read keeps its own plugin from being used and no other.

use std::path::PathBuf;
use std::sync::Arc;

use cap_std::fs::Dir;
use cofferdam_core::digest::Digest;
use cofferdam_core::error::{Error, Result};
use cofferdam_documents::plugin::{Capabilities, PluginManifest, check_name, manifest_in};
use rustix::fs::AtFlags;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::file::{self, Flush};
use crate::layout;
use crate::promote;
use crate::storage::ImageStorage;

/// The directory.
pub(super) const ROOM: &str = "plugins";

/// The lock of who changes what is in it.
pub(super) const LOCK: &str = "plugins.lock";

/// The largest note about a plugin that is read, in bytes.
const LIMIT: u64 = 1 << 20;

/// A plugin that was added.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstalledPlugin {
    /// What it is called here.
    pub name: String,
    /// The digest of its component.
    pub digest: Digest,
    /// Where it came from, for people.
    pub source: String,
    /// What its manifest says.
    pub manifest: PluginManifest,
    /// What it was granted.
    #[serde(default)]
    pub granted: Capabilities,
    /// When it was added: seconds since 1970, UTC.
    pub added_at: u64,
}

impl InstalledPlugin {
    /// How to add it again.
    pub(super) fn remedy(&self) -> String {
        let name = if self.name == self.manifest.name { String::new() } else { format!(" --name {}", self.name) };
        format!("add it again: cofferdam plugin add {}{name}", self.source)
    }
}

/// What adding a plugin came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Added {
    /// There was none of this name.
    New,
    /// The very same component was there; its grants were added to.
    Same,
    /// Another component was there, and its grants are gone.
    Replaced,
}

/// The plugins of a store.
#[derive(Debug)]
pub struct Plugins {
    pub(super) dir: Option<Arc<Dir>>,
    pub(super) storage: ImageStorage,
}

impl ImageStorage {
    /// The plugins that were added to this store.
    pub fn plugins(&self) -> Result<Plugins> {
        let dir = match layout::trusted_dir(&self.rooms().root, ROOM) {
            Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => None,
            dir => Some(Arc::new(dir?)),
        };
        Ok(Plugins { dir, storage: self.clone() })
    }
}

impl Plugins {
    /// Where they get their scratch directories.
    pub fn scratch_dir(&self) -> PathBuf {
        self.storage.scratch_dir()
    }

    /// Adds a plugin: its component, which carries its manifest. Without `replace`, a name that stands for another component
    /// keeps it; one whose note is damaged stands for nothing.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] if the name stands for another component; [`Error::Refused`] for what is no plugin.
    pub fn add(
        &mut self,
        name: Option<&str>,
        component: &[u8],
        source: &str,
        granted: &Capabilities,
        replace: bool,
    ) -> Result<(InstalledPlugin, Added)> {
        self.storage.writable()?;
        let manifest = manifest_in(component)?.ok_or_else(|| Error::Refused {
            subject: "the plugin's component".into(),
            reason: "it carries no manifest; pack one into it: cofferdam plugin pack DIR -o FILE".into(),
        })?;
        let name = name.unwrap_or(&manifest.name).to_owned();
        check_name(&name)?;
        granted.check()?;
        let digest = Digest::of(component);
        let dir = self.room()?;
        let _lock = self.storage.locks().acquire(LOCK)?;
        let before = match self.read(&name) {
            Err(error) if replace || matches!(error, Error::Damaged { .. }) => None,
            before => before?,
        };
        let (granted, added) = match &before {
            Some(before) if before.digest == digest => (before.granted.or(granted), Added::Same),
            Some(before) if !replace => {
                return Err(Error::Usage {
                    reason: format!("the plugin `{name}` is {}, and this is {digest}", before.digest),
                    hint: Some("give --replace to have this one in its place, without its grants; or --name".into()),
                });
            }
            Some(_) => (granted.clone(), Added::Replaced),
            None => (granted.clone(), Added::New),
        };
        let file = component_name(&digest);
        if !self.is_whole(&digest) {
            file::replace(&dir, &file, component, Flush::Now)?;
        }
        let (source, added_at) = (source.to_owned(), promote::seconds());
        let plugin = InstalledPlugin { name, digest, source, manifest, granted, added_at };
        self.write(&plugin)?;
        self.free_unnamed();
        Ok((plugin, added))
    }

    /// All plugins, by name.
    ///
    /// # Errors
    ///
    /// [`Error::Damaged`] if one of the notes about them is: see [`Plugins::survey`].
    pub fn list(&self) -> Result<Vec<InstalledPlugin>> {
        let (plugins, damaged) = self.survey()?;
        damaged.into_iter().next().map_or(Ok(plugins), Err)
    }

    /// The plugins of which the note can be read, and why those of the others cannot; both by name.
    ///
    /// # Errors
    ///
    /// Only what keeps their names from being known.
    pub fn survey(&self) -> Result<(Vec<InstalledPlugin>, Vec<Error>)> {
        let (mut plugins, mut unreadable) = (Vec::new(), Vec::new());
        for (_, note) in self.notes()? {
            match note {
                Ok(plugin) => plugins.push(plugin),
                Err(error) => unreadable.push(error),
            }
        }
        Ok((plugins, unreadable))
    }

    /// All notes, by the names of their plugins.
    pub(super) fn notes(&self) -> Result<Vec<(String, Result<InstalledPlugin>)>> {
        let Some(dir) = &self.dir else { return Ok(Vec::new()) };
        let mut names = layout::names(dir, ROOM)?;
        names.sort();
        let names = names.iter().filter_map(|name| name.strip_suffix(".json")).filter(|name| check_name(name).is_ok());
        // What is gone by now was removed meanwhile.
        Ok(names.filter_map(|name| Some((name.to_owned(), self.read(name).transpose()?))).collect())
    }

    /// A plugin.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] if there is none of this name.
    pub fn get(&self, name: &str) -> Result<InstalledPlugin> {
        check_name(name)?;
        self.read(name)?.ok_or_else(|| Error::NotFound {
            what: format!("a plugin named `{name}`"),
            hint: Some("cofferdam plugin list; cofferdam plugin add FILE".into()),
        })
    }

    /// A plugin's component, verified.
    ///
    /// # Errors
    ///
    /// [`Error::Damaged`] if it is not what was added.
    pub fn component(&self, plugin: &InstalledPlugin) -> Result<Vec<u8>> {
        let limit = self.storage.limits().plugin_bytes;
        let bytes = match &self.dir {
            Some(dir) => file::read(dir, &component_name(&plugin.digest), limit)?,
            None => None,
        };
        bytes.filter(|bytes| Digest::of(bytes) == plugin.digest).ok_or_else(|| Error::Damaged {
            subject: format!("the component of the plugin `{}`", plugin.name),
            reason: "it is not what was added".into(),
            hint: plugin.remedy(),
        })
    }

    /// Changes what a plugin was granted, and gives it as it is then.
    pub fn change_grants(
        &mut self,
        name: &str,
        change: impl FnOnce(&InstalledPlugin) -> Result<Capabilities>,
    ) -> Result<InstalledPlugin> {
        self.storage.writable()?;
        let _lock = self.storage.locks().acquire(LOCK)?;
        let mut plugin = self.get(name)?;
        plugin.granted = change(&plugin)?;
        plugin.granted.check()?;
        self.write(&plugin)?;
        Ok(plugin)
    }

    /// Removes a plugin, and says what it was, if its note could be read. Its reports stay with the layers.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] if there is none of this name.
    pub fn remove(&mut self, name: &str) -> Result<Option<InstalledPlugin>> {
        self.storage.writable()?;
        let _lock = self.storage.locks().acquire(LOCK)?;
        let plugin = match self.get(name) {
            Err(error @ (Error::NotFound { .. } | Error::Usage { .. })) => return Err(error),
            plugin => plugin.ok(),
        };
        file::remove(&*self.room()?, &note_name(name))?;
        self.free_unnamed();
        Ok(plugin)
    }

    /// The directory, made if it is not there.
    fn room(&mut self) -> Result<Arc<Dir>> {
        if let Some(dir) = &self.dir {
            return Ok(Arc::clone(dir));
        }
        let dir = Arc::new(layout::private_dir(&self.storage.rooms().root, ROOM)?);
        self.dir = Some(Arc::clone(&dir));
        Ok(dir)
    }

    /// The note about a plugin, if there is one.
    pub(super) fn read(&self, name: &str) -> Result<Option<InstalledPlugin>> {
        let Some(dir) = &self.dir else { return Ok(None) };
        let damaged = |reason: String| Error::Damaged {
            subject: format!("the note about the plugin `{name}`"),
            reason,
            hint: format!("add the plugin again, or remove it: cofferdam plugin rm {name}"),
        };
        let file = note_name(name);
        let text = match file::read_trusted(dir, &file, LIMIT) {
            Ok(Some(text)) => text,
            Ok(None) => match rustix::fs::statat(&**dir, &file, AtFlags::SYMLINK_NOFOLLOW) {
                Err(Errno::NOENT) => return Ok(None),
                _ => return Err(damaged("it is not a regular file".into())),
            },
            Err(Error::Limit { .. }) => return Err(damaged("it is too large".into())),
            Err(error) => return Err(error),
        };
        let plugin: InstalledPlugin = serde_json::from_slice(&text).map_err(|error| damaged(error.to_string()))?;
        if plugin.name == name { Ok(Some(plugin)) } else { Err(damaged("it holds another name".into())) }
    }

    fn write(&mut self, plugin: &InstalledPlugin) -> Result<()> {
        let name = note_name(&plugin.name);
        let mut text = serde_json::to_vec_pretty(plugin).map_err(|e| Error::io("write", name.as_bytes(), e))?;
        text.push(b'\n');
        file::replace(&self.room()?, &name, &text, Flush::Now)
    }

    /// Whether a component is there and right. One that cannot be read to its end is not.
    pub(super) fn is_whole(&self, digest: &Digest) -> bool {
        let Some(dir) = &self.dir else { return false };
        let name = component_name(digest);
        let Ok(Some(mut file)) = file::open(dir, &name) else { return false };
        file::hash(&mut file, digest.algorithm(), &name).is_ok_and(|(actual, _)| actual == *digest)
    }
}

/// The name of the note about a plugin.
pub(super) fn note_name(name: &str) -> String {
    format!("{name}.json")
}

/// The name of a component.
pub(super) fn component_name(digest: &Digest) -> String {
    format!("{}.wasm", digest.file_stem())
}

/// The digest that a component's name holds.
pub(super) fn component_digest(name: &str) -> Option<Digest> {
    Digest::from_file_stem(name.strip_suffix(".wasm")?)
}

/// Whether a name is one of those that this keeps in its directory.
pub(super) fn is_known(name: &str) -> bool {
    component_digest(name).is_some() || name.strip_suffix(".json").is_some_and(|name| check_name(name).is_ok())
}

#[cfg(test)]
mod tests {
    use cofferdam_documents::plugin::pack;

    use super::*;

    fn component(version: &str) -> Vec<u8> {
        let bare = wat::parse_str("(component)").unwrap();
        pack(bare, &format!("name = 'p'\nversion = '{version}'\nworld = 'inspector'\n")).unwrap()
    }

    fn granted(text: &str) -> Capabilities {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn a_name_keeps_its_component_until_it_is_told_otherwise() {
        let temp = tempfile::tempdir().unwrap();
        let storage = crate::tests::try_open(temp.path().join("store")).unwrap();
        let mut plugins = storage.plugins().unwrap();
        assert_eq!(plugins.list().unwrap(), []);
        let none = Capabilities::default();
        let (one, added) = plugins.add(None, &component("1"), "a.wasm", &granted("clock = true"), false).unwrap();
        assert_eq!((added, one.name.as_str()), (Added::New, "p"));
        let (again, added) = plugins.add(None, &component("1"), "a.wasm", &granted("random = true"), false).unwrap();
        assert_eq!((added, again.granted), (Added::Same, granted("clock = true\nrandom = true")));
        assert!(matches!(plugins.add(None, &component("2"), "b", &none, false), Err(Error::Usage { .. })));
        assert_eq!(plugins.get("p").unwrap().digest, one.digest);
        let (two, added) = plugins.add(None, &component("2"), "b", &none, true).unwrap();
        assert_eq!((added, two.granted.is_empty()), (Added::Replaced, true));
        assert_eq!(plugins.component(&two).unwrap(), component("2"));
        assert!(plugins.component(&one).is_err(), "its component is gone");
        plugins.add(Some("other"), &component("2"), "b", &none, false).unwrap();
        plugins.remove("p").unwrap();
        let other = plugins.get("other").unwrap();
        assert_eq!(plugins.component(&other).unwrap(), component("2"), "another name stands for it");
        assert!(matches!(plugins.get("p"), Err(Error::NotFound { .. })));
    }

    #[test]
    fn a_component_that_was_changed_is_not_given_out() {
        let temp = tempfile::tempdir().unwrap();
        let storage = crate::tests::try_open(temp.path().join("store")).unwrap();
        let mut plugins = storage.plugins().unwrap();
        let (plugin, _) = plugins.add(None, &component("1"), "a", &Capabilities::default(), false).unwrap();
        let dir = plugins.room().unwrap();
        dir.write(component_name(&plugin.digest), component("2")).unwrap();
        assert!(matches!(plugins.component(&plugin), Err(Error::Damaged { .. })));
        plugins.add(None, &component("1"), "a", &Capabilities::default(), false).unwrap();
        assert_eq!(plugins.component(&plugin).unwrap(), component("1"), "adding it again mends it");
        dir.write("p.json", "{").unwrap();
        assert!(matches!(plugins.get("p"), Err(Error::Damaged { .. })));
    }

    #[test]
    fn names_are_names() {
        let temp = tempfile::tempdir().unwrap();
        let storage = crate::tests::try_open(temp.path().join("store")).unwrap();
        let mut plugins = storage.plugins().unwrap();
        for name in ["", "../x", "a/b", ".", "A", "-a", "x.json"] {
            assert!(
                plugins.add(Some(name), &component("1"), "a", &Capabilities::default(), false).is_err(),
                "{name:?}"
            );
            assert!(plugins.get(name).is_err(), "{name:?}");
        }
    }
}
