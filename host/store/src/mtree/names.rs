//! The names in one directory, sorted, in little memory: a layer may put millions into one.

use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;

use rustix::fs::RawDir;

use cofferdam_core::error::Result;
use cofferdam_tree::Explain as _;

/// Names, end to end, and where each begins, in their order.
#[derive(Debug)]
pub(super) struct Names {
    bytes: Vec<u8>,
    starts: std::vec::IntoIter<usize>,
}

impl Names {
    /// The names in an open directory, but for `.` and `..`.
    pub(super) fn of(dir: BorrowedFd<'_>, path: &[u8]) -> Result<Self> {
        let (mut bytes, mut starts) = (Vec::new(), Vec::new());
        let mut buffer = vec![MaybeUninit::uninit(); 32 << 10];
        let mut entries = RawDir::new(dir, &mut buffer);
        while let Some(entry) = entries.next() {
            let entry = entry.explain("list", path)?;
            let name = entry.file_name().to_bytes_with_nul();
            if !matches!(name, b".\0" | b"..\0") {
                starts.push(bytes.len());
                bytes.extend_from_slice(name);
            }
        }
        starts.sort_unstable_by(|&a, &b| name_at(&bytes, a).cmp(name_at(&bytes, b)));
        Ok(Self { bytes, starts: starts.into_iter() })
    }

    /// The next name, put behind what `path` holds.
    pub(super) fn next_onto(&mut self, path: &mut Vec<u8>) -> bool {
        let Some(start) = self.starts.next() else { return false };
        path.extend_from_slice(name_at(&self.bytes, start));
        true
    }
}

fn name_at(bytes: &[u8], start: usize) -> &[u8] {
    let rest = bytes.get(start..).unwrap_or_default();
    rest.split(|&byte| byte == 0).next().unwrap_or_default()
}
