//! An inspector whose report says what is installed in a layer, as CycloneDX 1.6 in JSON: packages of dpkg (also as
//! distroless images have them), of apk, of npm (installed ones and those of lock files), and of Python.
//!
//! The same layer gives the same bytes: there is no time and no serial number in the report. It speaks of one layer, and
//! where a layer changes a database it holds all of that database. What lies where packages are described and cannot be
//! read, or only in part, or is too large, or is a link, is named as a property `cofferdam:sbom:unread`, so that nothing is
//! left out unsaid. Databases are found where they are by rights, not through a link to one of the directories on the way.
//!
//! The package URLs of dpkg and apk name the distribution: that of the layer's `os-release`, or else that of the setting
//! `distribution`, since a layer on top of another has no `os-release` of its own. Without both, these packages have no URL,
//! and a property `cofferdam:sbom:distribution` says `unknown`. A package that a lock file has from a repository or an archive
//! has a URL that says so, without credentials, and no version if that is not said; one from a file has no URL.

mod apk;
mod dpkg;
mod fields;
mod npm;
mod origin;
mod package;
mod purl;
mod python;
mod report;

use std::collections::BTreeMap;

use cofferdam_sdk::{Entry, Failure, Inspector, Interest, Layer, Node, log, settings};
use package::Package;
use purl::Distribution;
use report::Unread;

cofferdam_sdk::inspector!(Sbom);

/// What describes packages, by where it lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Source {
    Dpkg,
    Apk,
    NpmPackage,
    NpmLock,
    Python,
    OsRelease,
}

struct Sbom {
    layer: Layer,
    /// Which it is if the layer does not say.
    distribution: Distribution,
    /// The file whose content is being read.
    open: Option<(Source, Vec<u8>, Vec<u8>)>,
    found: BTreeMap<Vec<u8>, Vec<Package>>,
    release: BTreeMap<Vec<u8>, Vec<(String, String)>>,
    unread: Unread,
    bytes: usize,
}

/// The largest file that is read: twice the largest dpkg database that was seen.
const FILE: u64 = 8 << 20;

/// What the packages of all of them take in the report. The host takes reports of 16 MiB, and gives a plugin 64 MiB of memory.
const TOTAL: usize = 12 << 20;

/// What the names of files take that were not read; six times as much in the report.
const UNREAD: usize = 128 << 10;

impl Inspector for Sbom {
    fn begin(layer: Layer) -> Result<Self, Failure> {
        let distribution = match settings::get("distribution").as_deref().map(str::trim) {
            None | Some("") => Distribution::default(),
            Some(text) => Distribution::of_setting(text).ok_or_else(|| {
                format!("the setting `distribution` is `{text}`, not such as `ubuntu-24.04` or `ubuntu`")
            })?,
        };
        Ok(Self {
            layer,
            distribution,
            open: None,
            found: BTreeMap::new(),
            release: BTreeMap::new(),
            unread: Unread::default(),
            bytes: 0,
        })
    }

    fn see(&mut self, entry: Entry) -> Result<Interest, Failure> {
        self.close();
        let Some(source) = Source::of(&entry.path).filter(|_| !entry.is_removal()) else { return Ok(Interest::None) };
        self.found.remove(&entry.path);
        self.release.remove(&entry.path);
        self.unread.paths.remove(&entry.path);
        if !entry.is_file() {
            // Directories describe nothing, though some are called as such files are. `/etc/os-release` is a symbolic link by
            // rights.
            let usual = source == Source::OsRelease && matches!(entry.node, Node::Symlink { .. });
            if !entry.is_directory() && !usual {
                self.leave(entry.path);
            }
            return Ok(Interest::None);
        }
        if entry.size() > FILE || entry.size() != entry.content_bytes() {
            self.leave(entry.path);
            return Ok(Interest::None);
        }
        let size = usize::try_from(entry.size()).unwrap_or_default();
        self.open = Some((source, entry.path, Vec::with_capacity(size)));
        Ok(Interest::Content)
    }

    fn content(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        if let Some((_, _, content)) = &mut self.open {
            content.extend_from_slice(bytes);
        }
        Ok(())
    }

    fn finish(mut self) -> Result<Vec<u8>, Failure> {
        self.close();
        let release = self.release.values().find_map(|release| Distribution::of_release(release));
        let report = report::Report::new(self.found, &release.unwrap_or(self.distribution), &self.unread);
        log::info(format!("{} packages", report.packages()));
        Ok(report.to_json(&self.layer, self.bytes))
    }
}

impl Sbom {
    /// Reads the file whose content is complete.
    fn close(&mut self) {
        let Some((source, path, content)) = self.open.take() else { return };
        let text = String::from_utf8_lossy(&content);
        let reading = match source {
            Source::Dpkg => dpkg::packages(&text),
            Source::Apk => apk::packages(&text),
            Source::NpmPackage => npm::installed(&text),
            Source::NpmLock => npm::locked(&text),
            Source::Python => python::packages(&text),
            Source::OsRelease => {
                self.release.insert(path, fields::assignments(&text));
                return;
            }
        };
        if reading.damaged {
            self.leave(path.clone());
        }
        let bytes = reading.packages.iter().map(|package| report::bytes(package, &path)).sum::<usize>();
        if self.bytes + bytes > TOTAL {
            return self.leave(path);
        }
        self.bytes += bytes;
        self.found.insert(path, reading.packages);
    }

    /// Remembers a file that was not read, or only in part.
    fn leave(&mut self, path: Vec<u8>) {
        // Who is out of room stays so: counting again for each of a million links would take long.
        let named = || self.unread.paths.iter().map(Vec::len).sum::<usize>();
        if !self.unread.more && named() + path.len() <= UNREAD {
            self.unread.paths.insert(path);
        } else {
            self.unread.more = true;
        }
    }
}

impl Source {
    fn of(path: &[u8]) -> Option<Self> {
        match path {
            b"var/lib/dpkg/status" => return Some(Self::Dpkg),
            b"lib/apk/db/installed" | b"usr/lib/apk/db/installed" => return Some(Self::Apk),
            b"etc/os-release" | b"usr/lib/os-release" => return Some(Self::OsRelease),
            _ => {}
        }
        if let Some(name) = path.strip_prefix(b"var/lib/dpkg/status.d/") {
            return (!name.ends_with(b".md5sums")).then_some(Self::Dpkg);
        }
        let mut components = path.rsplit(|&byte| byte == b'/');
        let name = components.next()?;
        let parents: [&[u8]; 3] = std::array::from_fn(|_| components.next().unwrap_or_default());
        match name {
            b"package-lock.json" | b"npm-shrinkwrap.json" | b".package-lock.json" => Some(Self::NpmLock),
            b"package.json" if parents[1] == b"node_modules" => Some(Self::NpmPackage),
            b"package.json" if parents[2] == b"node_modules" && parents[1].starts_with(b"@") => Some(Self::NpmPackage),
            b"METADATA" if parents[0].ends_with(b".dist-info") => Some(Self::Python),
            b"PKG-INFO" if parents[0].ends_with(b".egg-info") => Some(Self::Python),
            name if name.ends_with(b".egg-info") => Some(Self::Python),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
