//! The maps of sparse files, in their four forms.
//!
//! | form | map | the file's size |
//! |---|---|---|
//! | old GNU, type `S` | slots in the header, then in blocks behind it | the header's `realsize` |
//! | PAX 0.0 | records `offset`, `numbytes`, repeated | `size` |
//! | PAX 0.1 | record `map`, numbers joined by commas | `size` |
//! | PAX 1.0 | text in front of the body, padded to whole blocks | `realsize` |
//!
//! Names stand behind `GNU.sparse.`. `size` and `realsize` are taken for each other, as GNU tar and Go do. All that a map
//! says twice must agree, and its extents must be exactly the body.

use crate::entry::Extent;
use crate::failure::Fault;
use crate::limits::Limits;
use crate::number;
use crate::pax::Span;

/// What the keys of PAX sparse records begin with.
pub(crate) const KEYS: &[u8] = b"GNU.sparse.";

/// How a member's map is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// In the records: 0.0 and 0.1.
    Records,
    /// In front of the body: 1.0.
    Body,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Listed {
    #[default]
    Nothing,
    Pairs,
    Map,
}

/// The `GNU.sparse.*` records of a member.
#[derive(Debug, Default)]
pub(crate) struct Records {
    present: bool,
    major: Option<u64>,
    minor: Option<u64>,
    size: Option<u64>,
    real_size: Option<u64>,
    blocks: Option<u64>,
    listed: Listed,
    /// The offset whose length is still to come.
    offset: Option<u64>,
    pub(crate) name: Option<Span>,
    pub(crate) extents: Vec<Extent>,
}

impl Records {
    pub(crate) fn clear(&mut self) {
        let extents = std::mem::take(&mut self.extents);
        *self = Self { extents, ..Self::default() };
        self.extents.clear();
    }

    /// Whether there is any.
    pub(crate) fn is_present(&self) -> bool {
        self.present
    }

    /// Takes a record; `key` is what stands behind [`KEYS`].
    pub(crate) fn set(&mut self, key: &[u8], span: Span, value: &[u8], limits: &Limits) -> Result<(), Fault> {
        self.present = true;
        match key {
            b"major" => self.major = Some(decimal(value)?),
            b"minor" => self.minor = Some(decimal(value)?),
            b"size" => self.size = Some(decimal(value)?),
            b"realsize" => self.real_size = Some(decimal(value)?),
            b"numblocks" => self.blocks = Some(decimal(value)?),
            b"name" if value.contains(&0) => return Err(Fault::refused("a path with a NUL")),
            b"name" => self.name = Some(span),
            b"offset" => {
                self.list(Listed::Pairs)?;
                if self.offset.replace(decimal(value)?).is_some() {
                    return Err(malformed("two offsets in a row"));
                }
            }
            b"numbytes" => {
                self.list(Listed::Pairs)?;
                let offset = self.offset.take().ok_or_else(|| malformed("a length without an offset"))?;
                push(&mut self.extents, offset, decimal(value)?, limits)?;
            }
            b"map" => {
                self.list(Listed::Map)?;
                self.extents.clear();
                let mut numbers = value.split(|&byte| byte == b',');
                while let Some(offset) = numbers.next() {
                    match numbers.next() {
                        Some(length) => push(&mut self.extents, decimal(offset)?, decimal(length)?, limits)?,
                        None if value.is_empty() => {}
                        None => return Err(malformed("an offset without a length")),
                    }
                }
            }
            _ => return Err(malformed("a record of a form that is not known")),
        }
        Ok(())
    }

    fn list(&mut self, how: Listed) -> Result<(), Fault> {
        if self.listed == Listed::Nothing {
            self.listed = how;
        }
        if self.listed == how { Ok(()) } else { Err(malformed("both pairs and a list")) }
    }

    /// Which form the records are of, and the file's size.
    pub(crate) fn form(&self) -> Result<(Form, u64), Fault> {
        let size = match (self.size, self.real_size) {
            (Some(size), Some(real_size)) if size != real_size => return Err(malformed("two sizes")),
            (size, real_size) => size.or(real_size).ok_or_else(|| malformed("no size"))?,
        };
        let form = match (self.major, self.minor, self.listed) {
            (Some(1), Some(0), Listed::Nothing) if self.blocks.is_none() => return Ok((Form::Body, size)),
            (None, None, _)
            | (Some(0), Some(0), Listed::Nothing | Listed::Pairs)
            | (Some(0), Some(1), Listed::Nothing | Listed::Map) => Form::Records,
            _ => return Err(malformed("records of different forms, or of one that is not known")),
        };
        if self.offset.is_some() {
            return Err(malformed("an offset without a length"));
        }
        if self.blocks != Some(self.extents.len() as u64) {
            return Err(malformed("more or fewer extents than it says"));
        }
        Ok((form, size))
    }
}

/// Takes the slots of an old GNU header or continuation block: 24 bytes each, used ones first. Returns whether all are
/// used.
pub(crate) fn slots(slots: &[u8], extents: &mut Vec<Extent>, limits: &Limits) -> Result<bool, Fault> {
    let (slots, _) = slots.as_chunks::<24>();
    let used = slots.iter().position(|slot| slot == &[0; 24]).unwrap_or(slots.len());
    for slot in &slots[..used] {
        let (offset, length) = slot.split_at(12);
        if offset.first() == Some(&0) || length.first() == Some(&0) {
            // To some readers the map ends here, to others it does not.
            return Err(malformed("a slot that is half empty"));
        }
        let value = |field| number::field(field).ok().and_then(|value| u64::try_from(value).ok());
        match (value(offset), value(length)) {
            (Some(offset), Some(length)) => push(extents, offset, length, limits)?,
            _ => return Err(malformed("something that is not a number")),
        }
    }
    if slots[used..].iter().any(|slot| slot != &[0; 24]) {
        return Err(malformed("a gap"));
    }
    Ok(used == slots.len())
}

/// Reads the map of the 1.0 form, block by block: how many extents, then offset and length of each, a number a line.
#[derive(Debug, Default)]
pub(crate) struct Text {
    count: Option<usize>,
    offset: Option<u64>,
    value: Option<u64>,
    digits: usize,
}

impl Text {
    /// Takes more of the text. Returns whether the map is complete; what follows in the block is padding.
    pub(crate) fn feed(&mut self, block: &[u8], extents: &mut Vec<Extent>, limits: &Limits) -> Result<bool, Fault> {
        for &byte in block {
            match byte {
                b'0'..=b'9' => {
                    // Leading zeros are numbers too, but must not go on for a gigabyte.
                    self.digits += 1;
                    let value = self.value.unwrap_or(0).checked_mul(10);
                    let value = value.and_then(|value| value.checked_add(u64::from(byte - b'0')));
                    self.value = value.filter(|_| self.digits <= 20);
                    if self.value.is_none() {
                        return Err(malformed("a number that is out of range"));
                    }
                }
                b'\n' => {
                    let value = self.value.take().ok_or_else(|| malformed("an empty line"))?;
                    self.digits = 0;
                    match (self.count, self.offset.take()) {
                        (None, _) => match usize::try_from(value) {
                            Ok(count) if count <= limits.sparse_extents => self.count = Some(count),
                            _ => return Err(Fault::limit(limits.sparse_extents, "extents in a sparse file")),
                        },
                        (Some(_), None) => self.offset = Some(value),
                        (Some(_), Some(offset)) => push(extents, offset, value, limits)?,
                    }
                    if self.count == Some(extents.len()) && self.offset.is_none() {
                        return Ok(true);
                    }
                }
                _ => return Err(malformed("something that is not a number")),
            }
        }
        Ok(false)
    }
}

/// Checks that a map is in order and covers exactly `data` bytes of a file of `size`; takes empty extents out of it.
pub(crate) fn check(extents: &mut Vec<Extent>, size: u64, data: u64) -> Result<(), Fault> {
    if i64::try_from(size).is_err() {
        return Err(Fault::refused("the size of a sparse file is out of range"));
    }
    let mut end = 0_u64;
    let mut covered = 0_u64;
    for extent in &*extents {
        let next = extent.offset.checked_add(extent.length).filter(|&next| next <= size);
        let next = next.ok_or_else(|| malformed("an extent behind the file's end"))?;
        if extent.offset < end {
            return Err(malformed("extents that overlap or are out of order"));
        }
        end = next;
        covered += extent.length; // at most `size`, since extents are apart
    }
    if covered != data {
        return Err(malformed("more or less than the member's body"));
    }
    extents.retain(|extent| extent.length > 0);
    Ok(())
}

fn push(extents: &mut Vec<Extent>, offset: u64, length: u64, limits: &Limits) -> Result<(), Fault> {
    // CVE-2022-2879, CVE-2025-58183, CVE-2026-32288.
    if extents.len() >= limits.sparse_extents {
        return Err(Fault::limit(limits.sparse_extents, "extents in a sparse file"));
    }
    extents.push(Extent { offset, length });
    Ok(())
}

fn decimal(value: &[u8]) -> Result<u64, Fault> {
    number::decimal(value).map_err(|_| malformed("something that is not a number"))
}

pub(crate) fn malformed(reason: &str) -> Fault {
    Fault::corrupt(format!("the map of a sparse file holds {reason}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extent(offset: u64, length: u64) -> Extent {
        Extent { offset, length }
    }

    #[test]
    fn maps_are_ordered_apart_inside_and_whole() {
        let mut map = vec![extent(0, 0), extent(0, 3), extent(3, 2), extent(8, 2), extent(10, 0)];
        assert_eq!(check(&mut map, 10, 7), Ok(()));
        assert_eq!(map, [extent(0, 3), extent(3, 2), extent(8, 2)]);
        for (mut map, size, data) in [
            (vec![extent(5, 1), extent(0, 1)], 10, 2),
            (vec![extent(0, 2), extent(1, 2)], 10, 4),
            (vec![extent(0, 2), extent(1, 0)], 10, 2),
            (vec![extent(9, 2)], 10, 2),
            (vec![extent(11, 0)], 10, 0),
            (vec![extent(u64::MAX, 2)], i64::MAX as u64, 2),
            (vec![], u64::MAX, 0),
            (vec![extent(0, 2)], 10, 3),
            (vec![extent(0, 2)], 10, 1),
            (vec![], 10, 1),
        ] {
            assert!(check(&mut map, size, data).is_err(), "{map:?} of {size} with {data}");
        }
    }

    #[test]
    fn the_text_form_may_be_cut_anywhere() {
        let text = b"2\n0\n3\n1024\n0005\n and padding";
        for cut in 0..text.len() {
            let (mut parser, mut map) = (Text::default(), Vec::new());
            let limits = Limits::default();
            let done = parser.feed(&text[..cut], &mut map, &limits).unwrap();
            assert_eq!(done, cut >= 16, "{cut}");
            if !done {
                assert_eq!(parser.feed(&text[cut..], &mut map, &limits), Ok(true));
            }
            assert_eq!(map, [extent(0, 3), extent(1024, 5)]);
        }
        assert_eq!(Text::default().feed(b"0\nx", &mut Vec::new(), &Limits::default()), Ok(true));
    }

    #[test]
    fn the_text_form_is_bare_decimals_in_bounds() {
        for text in
            ["\n", "-1\n", "+1\n", " 1\n", "1 \n", "1,0,1\n", "1\n\n", "1\n0\n\0", "18446744073709551616\n", "x"]
        {
            let result = Text::default().feed(text.as_bytes(), &mut Vec::new(), &Limits::default());
            assert!(result.is_err(), "{text:?}: {result:?}");
        }
        for text in ["10001\n", "18446744073709551615\n"] {
            let result = Text::default().feed(text.as_bytes(), &mut Vec::new(), &Limits::default());
            assert!(matches!(result, Err(Fault::Limit(_))), "{text:?}: {result:?}");
        }
        assert!(Text::default().feed(&[b'0'; 21], &mut Vec::new(), &Limits::default()).is_err());
    }

    #[test]
    fn slots_have_no_gaps() {
        let slot = |offset: &str, length: &str| {
            let mut slot = [0; 24];
            slot[..offset.len()].copy_from_slice(offset.as_bytes());
            slot[12..12 + length.len()].copy_from_slice(length.as_bytes());
            slot
        };
        let (used, empty) = (slot("00000000010\0", "00000000002"), [0; 24]);
        let parse = |list: &[[u8; 24]]| {
            let mut map = Vec::new();
            slots(list.as_flattened(), &mut map, &Limits::default()).map(|full| (full, map))
        };
        assert_eq!(parse(&[empty; 4]), Ok((false, vec![])));
        assert_eq!(parse(&[used, empty]), Ok((false, vec![extent(8, 2)])));
        assert_eq!(parse(&[used, used]), Ok((true, vec![extent(8, 2), extent(8, 2)])));
        assert!(parse(&[empty, used]).is_err());
        assert!(parse(&[slot("", "1")]).is_err());
        assert!(parse(&[slot("1", "")]).is_err());
        assert!(parse(&[slot("9", "1")]).is_err());
        assert!(parse(&[[0xff; 24]]).is_err());
    }
}
