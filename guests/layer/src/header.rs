//! The header block of a member.
//!
//! A v7 header has no magic; a ustar one has `ustar\0` and any version bytes, and only then a prefix; a GNU one has
//! `ustar`, two spaces and a NUL, and other fields, of which the first are numbers, where the prefix would be. Whatever the format, strings end at their
//! first NUL.

use tar_core::{Header as Fields, OldHeader, UstarHeader};

use crate::BLOCK;
use crate::entry::Device;
use crate::failure::Fault;
use crate::number::{self, NumberError};

/// The blocks in front of a member that say more about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extension {
    /// `x`: PAX records for the next member.
    Records,
    /// `g`: PAX records for all members that follow.
    Global,
    /// `L`: the next member's name.
    LongName,
    /// `K`: the next member's link target.
    LongLink,
}

/// What a member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `0`, `7`, and NUL, which may turn out to be a directory.
    Regular,
    /// `S`: a regular file with a sparse map of the old GNU form.
    OldSparse,
    HardLink,
    Symlink,
    CharacterDevice,
    BlockDevice,
    Directory,
    Fifo,
}

/// What a block begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Type {
    Extension(Extension),
    Member(Kind),
    /// Anything else; holds the type flag.
    Unknown(u8),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    V7,
    Ustar,
    Gnu,
}

/// A header block whose checksum is right.
#[derive(Clone, Copy)]
pub(crate) struct Header<'a> {
    fields: &'a Fields,
    format: Format,
}

/// Whether a block is one of those that end an archive.
pub(crate) fn is_zero(block: &[u8; BLOCK]) -> bool {
    block.iter().all(|&byte| byte == 0)
}

/// Checks the checksum of a header block, over bytes or, as some old writers have it, signed bytes.
fn check_sum(block: &[u8; BLOCK]) -> Result<(), Fault> {
    let ustar = Fields::from_bytes(block).as_ustar();
    // The sum is over a checksum field of spaces.
    let total = |bytes: &[u8]| bytes.iter().map(|&byte| i64::from(byte)).sum::<i64>();
    let unsigned = i64::from(block.iter().map(|&byte| u32::from(byte)).sum::<u32>()) - total(&ustar.cksum) + 8 * 32;
    // A blank field counts as 0 elsewhere. Here it would make a header of any block that sums to it.
    if !ustar.cksum.iter().any(u8::is_ascii_digit) {
        return Err(Fault::corrupt("a header without a checksum"));
    }
    if number::octal(&ustar.cksum) != Ok(unsigned) {
        let high = |bytes: &[u8]| total(bytes) - bytes.iter().map(|&byte| i64::from(byte.cast_signed())).sum::<i64>();
        let signed = unsigned - (high(block) - high(&ustar.cksum));
        if number::octal(&ustar.cksum) != Ok(signed) {
            return Err(Fault::corrupt("the checksum of a header is wrong"));
        }
    }
    Ok(())
}

/// Returns true for a block that can stand where a header is due: one with a right checksum, or the end marker.
pub(crate) fn is_due(block: &[u8; BLOCK]) -> bool {
    is_zero(block) || check_sum(block).is_ok()
}

impl<'a> Header<'a> {
    /// Takes a block for a header if its checksum is right.
    pub(crate) fn new(block: &'a [u8; BLOCK]) -> Result<Self, Fault> {
        check_sum(block)?;
        let fields = Fields::from_bytes(block);
        let ustar = fields.as_ustar();
        let format = match (&ustar.magic, &ustar.version) {
            (b"ustar\0", _) => Format::Ustar,
            (b"ustar ", b" \0") => Format::Gnu,
            _ => Format::V7,
        };
        if format == Format::Gnu {
            // Go before 1.8 wrote a prefix over these fields, and Go still reads one there if they are not numbers
            // (golang.org/issue/21005); other readers do not. To refuse is to agree with both.
            let gnu = fields.as_gnu();
            named("time of access", &gnu.atime)?;
            named("time of change", &gnu.ctime)?;
            // libarchive takes a map or a real size for what it is in a header of any type.
            let map = block.get(386..495).unwrap_or_default();
            if ustar.typeflag != *b"S" && map.iter().any(|&byte| byte != 0) {
                return Err(Fault::corrupt("the map of a sparse file in the header of something else"));
            }
        }
        Ok(Self { fields, format })
    }

    /// Checks the numbers that nothing else reads here: readers disagree about headers in which they are none.
    pub(crate) fn check_unused(&self) -> Result<(), Fault> {
        self.mode()?;
        self.owner()?;
        self.modified()?;
        if self.format != Format::V7 {
            named("major number", &self.ustar().dev_major)?;
            named("minor number", &self.ustar().dev_minor)?;
        }
        Ok(())
    }

    fn ustar(&self) -> &'a UstarHeader {
        self.fields.as_ustar()
    }

    /// What the block begins. The types that came with later formats do not exist in a v7 header: some readers take them
    /// for files there, others do not.
    pub(crate) fn of_type(&self) -> Type {
        let [flag] = self.ustar().typeflag;
        match flag {
            0 | b'0' | b'7' => Type::Member(Kind::Regular),
            b'1' => Type::Member(Kind::HardLink),
            b'2' => Type::Member(Kind::Symlink),
            b'5' => Type::Member(Kind::Directory),
            b'6' => Type::Member(Kind::Fifo),
            b'3' => Type::Member(Kind::CharacterDevice),
            b'4' => Type::Member(Kind::BlockDevice),
            b'S' if self.format == Format::Gnu => Type::Member(Kind::OldSparse),
            b'x' if self.format != Format::V7 => Type::Extension(Extension::Records),
            b'g' if self.format != Format::V7 => Type::Extension(Extension::Global),
            b'L' if self.format != Format::V7 => Type::Extension(Extension::LongName),
            b'K' if self.format != Format::V7 => Type::Extension(Extension::LongLink),
            other => Type::Unknown(other),
        }
    }

    /// Whether the type is the NUL of v7, where directories are files whose name ends in a slash.
    pub(crate) fn is_untyped(&self) -> bool {
        self.ustar().typeflag == [0]
    }

    /// Writes the name into `into`, which it replaces.
    pub(crate) fn name(&self, into: &mut Vec<u8>) {
        into.clear();
        if self.format == Format::Ustar {
            let prefix = until_nul(&self.ustar().prefix);
            if !prefix.is_empty() {
                into.extend_from_slice(prefix);
                into.push(b'/');
            }
        }
        into.extend_from_slice(until_nul(&self.ustar().name));
    }

    /// The link target.
    pub(crate) fn link(&self) -> &'a [u8] {
        let old: &OldHeader = self.fields.as_old();
        until_nul(&old.linkname)
    }

    /// The size of the body.
    pub(crate) fn size(&self) -> Result<u64, Fault> {
        let size = named("size", &self.ustar().size)?;
        u64::try_from(size).map_err(|_| Fault::corrupt("the size in a header is negative"))
    }

    /// The permission bits; what else is in the field, such as the file's type, is cut off.
    pub(crate) fn mode(&self) -> Result<u32, Fault> {
        let mode = u64::try_from(named("mode", &self.ustar().mode)?);
        let mode = mode.map_err(|_| Fault::refused("the mode is negative"))?;
        Ok(u32::try_from(mode & 0o7777).unwrap_or_default())
    }

    /// The owner and the group.
    pub(crate) fn owner(&self) -> Result<(i64, i64), Fault> {
        Ok((named("owner", &self.ustar().uid)?, named("group", &self.ustar().gid)?))
    }

    /// Seconds since 1970.
    pub(crate) fn modified(&self) -> Result<i64, Fault> {
        named("time of modification", &self.ustar().mtime)
    }

    /// The number of a device, as far as Linux has bits for it (containerd 0205398ac).
    pub(crate) fn device(&self) -> Result<Device, Fault> {
        if self.format == Format::V7 {
            return Err(Fault::refused("a device in a header that has no field for its number"));
        }
        let part = |what, field, bits: u32| {
            let value = u32::try_from(named(what, field)?).ok().filter(|value| value >> bits == 0);
            value.ok_or_else(|| Fault::refused(format!("the {what} of a device has more than {bits} bits")))
        };
        let ustar = self.ustar();
        Ok(Device {
            major: part("major number", &ustar.dev_major, 12)?,
            minor: part("minor number", &ustar.dev_minor, 20)?,
        })
    }

    /// The parts of an old GNU sparse map: the file's size, the slots, and whether more of them follow.
    pub(crate) fn old_sparse(&self) -> Result<(u64, &'a [u8], bool), Fault> {
        let gnu = self.fields.as_gnu();
        let size = u64::try_from(named("real size", &gnu.realsize)?);
        let size = size.map_err(|_| Fault::corrupt("the real size of a sparse file is negative"))?;
        let slots = self.fields.as_bytes().get(386..482).unwrap_or_default();
        Ok((size, slots, gnu.isextended != [0]))
    }
}

fn named(what: &str, field: &[u8]) -> Result<i64, Fault> {
    number::field(field).map_err(|error| match error {
        NumberError::Syntax => Fault::corrupt(format!("the {what} in a header is not a number")),
        NumberError::Range => Fault::refused(format!("the {what} in a header is out of range")),
    })
}

/// The bytes in front of the first NUL.
pub(crate) fn until_nul(field: &[u8]) -> &[u8] {
    field.iter().position(|&byte| byte == 0).and_then(|end| field.get(..end)).unwrap_or(field)
}
