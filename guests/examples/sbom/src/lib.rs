//! An inspector whose report says what is installed in a layer, as CycloneDX 1.6 in JSON: packages of dpkg (also as
//! distroless images have them), of apk, of npm (installed ones and those of lock files), and of Python.
//!
//! The same layer gives the same bytes: there is no time and no serial number in the report. It speaks of one layer, and
//! where a layer changes a database it holds all of that database. What claims to be a package's description and cannot be
//! read, or is too large, is named as a property `cofferdam:sbom:unread`, so that nothing is left out unsaid.

mod apk;
mod dpkg;
mod fields;
mod npm;
mod package;
mod purl;
mod python;
mod report;

use std::collections::BTreeMap;

use cofferdam_sdk::{Entry, Failure, Inspector, Interest, Layer, log};
use package::Package;
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
        Ok(Self {
            layer,
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
        let release = self.release.into_values().next().unwrap_or_default();
        let report = report::Report::new(self.found, &release, &self.unread);
        log::info(format!("{} packages", report.packages()));
        Ok(report.to_json(&self.layer, self.bytes))
    }
}

impl Sbom {
    /// Reads the file whose content is complete.
    fn close(&mut self) {
        let Some((source, path, content)) = self.open.take() else { return };
        let text = String::from_utf8_lossy(&content);
        let packages = match source {
            Source::Dpkg => Some(dpkg::packages(&text)),
            Source::Apk => Some(apk::packages(&text)),
            Source::NpmPackage => npm::installed(&text),
            Source::NpmLock => npm::locked(&text),
            Source::Python => python::package(&text).map(|package| vec![package]),
            Source::OsRelease => {
                self.release.insert(path, fields::assignments(&text));
                return;
            }
        };
        let Some(packages) = packages else { return self.leave(path) };
        let bytes = packages.iter().map(|package| report::bytes(package, &path)).sum::<usize>();
        if self.bytes + bytes > TOTAL {
            return self.leave(path);
        }
        self.bytes += bytes;
        self.found.insert(path, packages);
    }

    /// Remembers a file that was not read.
    fn leave(&mut self, path: Vec<u8>) {
        let named: usize = self.unread.paths.iter().map(Vec::len).sum();
        if named + path.len() <= UNREAD {
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
