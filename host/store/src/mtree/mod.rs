//! A list of everything in a tree, in the field's own form (mtree(5)): what a tree must look like, so that it can be checked.
//!
//! ```text
//! #mtree
//! . type=dir mode=0755 uid=0 gid=0 time=0.000000000
//! ./etc/motd type=file mode=0644 uid=0 gid=0 time=1700000000.000000000 nlink=1 size=8 sha256digest=5891b5…
//! ./etc/link type=link mode=0777 uid=0 gid=0 time=1700000000.000000000 nlink=1 link=motd
//! ./dev/null type=char mode=0666 uid=0 gid=0 time=0.000000000 nlink=1 device=linux,1,3
//! ```
//!
//! One line per entry, the whole path first, each directory before what is in it, names in the order of their bytes: the
//! same tree always gives the same bytes, and a list is compared with a tree in one pass. `bsdtar`, `mtree` and `gomtree` read it.
//! Attributes are written as go-mtree spells them, `xattr.NAME=base64`. A directory has no `nlink`: file systems do not agree on
//! what that counts. What is not the layer's is left out: the store's own mark, and the labels of security modules.
//!
//! A large file that is mostly holes has, instead of `sha256digest`, the keyword `sparsesha256digest`: the hash of its blocks of 4 KiB that
//! are not zero, each behind its offset. A hole of a terabyte costs nothing that way, as it costs the layer nothing.

mod check;
mod content;
mod line;
mod names;
#[cfg(test)]
mod tests;
mod walk;

use std::io::Write;
use std::os::fd::BorrowedFd;

use cofferdam_core::cancel::Cancel;
use cofferdam_core::error::{Error, Result};

pub(super) use check::{Checked, check};
use content::Contents;
use walk::{Found, Visitor, walk};

/// The first line of a list.
const HEADER: &[u8] = b"#mtree\n";

/// Writes the list of the tree at `root`. Opens nothing but directories and regular files, and follows no link.
pub(super) fn write(root: BorrowedFd<'_>, out: &mut dyn Write, cancel: &Cancel) -> Result<()> {
    let mut lister = Lister { out, contents: Contents::default(), cancel };
    lister.out.write_all(HEADER).map_err(failed)?;
    walk(root, &mut lister)
}

struct Lister<'a> {
    out: &'a mut dyn Write,
    contents: Contents,
    cancel: &'a Cancel,
}

impl Visitor for Lister<'_> {
    fn entry(&mut self, found: &Found<'_>) -> Result<()> {
        self.cancel.check()?;
        let line = line::describe(found, &mut self.contents, None, self.cancel)?;
        self.out.write_all(line.as_bytes()).and_then(|()| self.out.write_all(b"\n")).map_err(failed)
    }

    fn failed(&mut self, _path: &[u8], error: Error) -> Result<()> {
        Err(error)
    }
}

fn failed(error: std::io::Error) -> Error {
    Error::io("write", b"the list of a tree", error)
}
