//! What stands in front of a member: `x`, `L` and `K`, kept until the member comes.

use std::ops::Range;

use crate::failure::Fault;
use crate::header::{Extension, until_nul};
use crate::limits::Limits;
use crate::pax;

/// The payloads of the extensions that wait for their member.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    bytes: Vec<u8>,
    /// Bytes that the payloads had in the archive.
    read: usize,
    records: Option<Range<usize>>,
    name: Option<Range<usize>>,
    link: Option<Range<usize>>,
}

impl Pending {
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.read = 0;
        self.records = None;
        self.name = None;
        self.link = None;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.records.is_none() && self.name.is_none() && self.link.is_none()
    }

    /// Decides, before the payload is read, whether an extension may stand here and be this large.
    pub(crate) fn admit(&self, extension: Extension, size: u64, limits: &Limits) -> Result<usize, Fault> {
        let (read, twice) = match extension {
            Extension::Records => (self.read, self.records.is_some()),
            Extension::LongName => (self.read, self.name.is_some()),
            Extension::LongLink => (self.read, self.link.is_some()),
            Extension::Global if self.records.is_some() => {
                return Err(Fault::corrupt("an extended header in front of a global one"));
            }
            Extension::Global => (0, false),
        };
        if twice {
            return Err(Fault::corrupt("two extended headers of a kind for one member"));
        }
        // CVE-2022-2879: the budget is for all that is said about one member.
        let left = limits.metadata_bytes.min(1 << 30).saturating_sub(read);
        match usize::try_from(size) {
            Ok(size) if size <= left => Ok(size),
            _ => Err(Fault::limit(limits.metadata_bytes, "bytes of extended headers for one member")),
        }
    }

    /// Takes the payload of an admitted extension.
    pub(crate) fn take(&mut self, extension: Extension, payload: &[u8]) -> Result<(), Fault> {
        let slot = match extension {
            Extension::Global => return pax::check_global(payload),
            Extension::Records => &mut self.records,
            Extension::LongName => &mut self.name,
            Extension::LongLink => &mut self.link,
        };
        self.read += payload.len();
        let kept = if extension == Extension::Records { payload } else { until_nul(payload) };
        let start = self.bytes.len();
        self.bytes.extend_from_slice(kept);
        *slot = Some(start..self.bytes.len());
        Ok(())
    }

    /// The payload of `x`, empty if there is none.
    pub(crate) fn records(&self) -> &[u8] {
        self.part(self.records.as_ref()).unwrap_or_default()
    }

    /// The name of `L`.
    pub(crate) fn name(&self) -> Option<&[u8]> {
        self.part(self.name.as_ref())
    }

    /// The link target of `K`.
    pub(crate) fn link(&self) -> Option<&[u8]> {
        self.part(self.link.as_ref())
    }

    fn part(&self, range: Option<&Range<usize>>) -> Option<&[u8]> {
        self.bytes.get(range?.clone())
    }
}
