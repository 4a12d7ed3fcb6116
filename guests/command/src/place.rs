//! Where a path of a layer lies: as in a `chroot`, with links followed inside of the destination.
//!
//! The WASI host follows links too, but refuses absolute ones and those that climb: so each name is looked at here, and what the
//! host is given is a path without links.

use std::collections::VecDeque;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::problem::Problem;

/// Links that may be followed in one path, as in the kernel.
const HOPS: u32 = 40;

/// What becomes of what is not there, or in the way.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// Directories are made, also in the place of other things.
    Make,
    /// Nothing is touched.
    Look,
}

/// The destination.
pub(crate) struct Root(PathBuf);

impl Root {
    pub(crate) fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// Where a path's last component lies. Nothing if the way to it is not there and nothing may be made.
    pub(crate) fn place(&self, path: &[u8], way: Way) -> Result<Option<PathBuf>, Problem> {
        let text = std::str::from_utf8(path).map_err(|_| Problem::refused(path, "WASI knows names in UTF-8 only"))?;
        let (parent, name) = text.rsplit_once('/').unwrap_or(("", text));
        let Some(real) = self.directory(path, parent, way)? else { return Ok(None) };
        Ok(Some(self.at(&real).join(name)))
    }

    fn at(&self, real: &[String]) -> PathBuf {
        let mut path = self.0.clone();
        path.extend(real);
        path
    }

    /// The components of the directory that `parent` leads to, none of them a link.
    fn directory(&self, path: &[u8], parent: &str, way: Way) -> Result<Option<Vec<String>>, Problem> {
        let mut todo: VecDeque<String> = parent.split('/').map(str::to_owned).collect();
        let mut real: Vec<String> = Vec::new();
        let mut hops = 0;
        while let Some(name) = todo.pop_front() {
            match name.as_str() {
                "" | "." => continue,
                // At the root it stays there.
                ".." => {
                    real.pop();
                    continue;
                }
                _ => real.push(name),
            }
            let here = self.at(&real);
            let failed = |error| Problem::io(&format!("look at `{}`", here.display()), error);
            let found = match fs::symlink_metadata(&here) {
                Ok(found) => Some(found),
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                Err(error) => return Err(failed(error)),
            };
            if found.as_ref().is_some_and(fs::Metadata::is_dir) {
                continue;
            }
            if found.as_ref().is_some_and(|found| found.file_type().is_symlink()) {
                hops += 1;
                if hops > HOPS {
                    return Err(Problem::refused(path, format!("more than {HOPS} links in one path")));
                }
                let target = fs::read_link(&here).map_err(failed)?;
                let target = target.to_str().ok_or_else(|| Problem::refused(path, "a link in the way is not UTF-8"))?;
                real.pop();
                if target.starts_with('/') {
                    real.clear();
                }
                target.split('/').rev().for_each(|name| todo.push_front(name.to_owned()));
                continue;
            }
            if way == Way::Look {
                return Ok(None);
            }
            if found.is_some() {
                fs::remove_file(&here).map_err(|error| Problem::io(&format!("replace `{}`", here.display()), error))?;
            }
            fs::create_dir(&here).map_err(|error| Problem::io(&format!("make `{}`", here.display()), error))?;
        }
        Ok(Some(real))
    }
}
