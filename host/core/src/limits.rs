//! Every limit, in one place. Each has a default that real images do not reach, and a test that crosses it.
//!
//! One table makes the fields, their defaults, and the names under which a command line or a file sets them. Bounds that
//! nobody can raise are not in it, and stand where they are used: those of the kernel (a symlink's target below 4096
//! bytes, an attribute's name of 255, 12 bits of major device number, 65 000 links to an inode), those of protocols (a
//! download has exactly its descriptor's size, a token or an error message of a registry at most 1 MiB and 16 KiB, 10
//! redirects), those of our own files (a tree's record 256 MiB), and the sizes of buffers and queues, on which no
//! input has any influence (8 chunks of 256 KiB between stages).

use std::time::Duration;

use crate::error::{Error, Result};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
const MIB64: u64 = 1 << 20;
const GIB64: u64 = 1 << 30;

/// What a limit counts, which decides how its value is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Unit {
    /// Bytes: `4096`, `64KiB`, `32GiB` (or `64K`, `32G`).
    Bytes,
    /// Things: `4000000`, `4M`, `10K` (thousands and millions).
    Count,
    /// Time: `5s`, `100ms`.
    Time,
}

/// A limit by its name.
#[derive(Clone, Copy)]
pub struct Limit {
    /// As it is written: the field's name with `-` for `_`.
    pub name: &'static str,
    /// What it counts.
    pub unit: Unit,
    /// What it bounds.
    pub about: &'static str,
    /// What errors call it, after a number: how [`Error::Limit`] is told from another one's.
    phrases: &'static [&'static str],
    get: fn(&Limits) -> u64,
    set: fn(&mut Limits, u64),
}

impl std::fmt::Debug for Limit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}

/// How a field's type is told as a number; times are in milliseconds.
trait Number {
    fn as_number(&self) -> u64;
    fn of_number(value: u64) -> Self;
}

impl Number for u64 {
    fn as_number(&self) -> u64 {
        *self
    }

    fn of_number(value: u64) -> Self {
        value
    }
}

impl Number for usize {
    fn as_number(&self) -> u64 {
        *self as u64
    }

    fn of_number(value: u64) -> Self {
        Self::try_from(value).unwrap_or(Self::MAX)
    }
}

impl Number for Duration {
    fn as_number(&self) -> u64 {
        u64::try_from(self.as_millis()).unwrap_or(u64::MAX)
    }

    fn of_number(value: u64) -> Self {
        Self::from_millis(value)
    }
}

macro_rules! limits {
    ($($(#[doc = $about:literal])+ $field:ident ($name:literal, $unit:ident, $phrases:expr): $type:ty = $default:expr;)+) => {
        /// Bounds on what a layer, an image or a guest may ask for. Crossing one is [`Error::Limit`].
        #[derive(Clone, Debug, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Limits {
            $($(#[doc = $about])+ pub $field: $type,)+
        }

        impl Default for Limits {
            fn default() -> Self {
                Self { $($field: $default,)+ }
            }
        }

        impl Limits {
            /// All limits, in the order of the fields.
            pub const ALL: &[Limit] = &[$(Limit {
                name: $name,
                unit: Unit::$unit,
                about: concat!($($about),+).trim_ascii_start(),
                phrases: &$phrases,
                get: |limits| limits.$field.as_number(),
                set: |limits, value| limits.$field = Number::of_number(value),
            },)+];
        }

        /// Names and fields, for the test that they agree.
        #[cfg(test)]
        const FIELDS: &[(&str, &str)] = &[$(($name, stringify!($field)),)+];
    };
}

limits! {
    /// Decoded bytes of one layer, all of the stream: what follows the archive's end marker counts too.
    layer_bytes ("layer-bytes", Bytes, ["decoded bytes", "bytes that the layer may still decode to", "bytes in a layer", "bytes of the blob"]): u64 = 32 * GIB64;
    /// Bytes of all layers of an image: as its manifest declares them, and decoded. Each layer counts once.
    image_bytes ("image-bytes", Bytes, ["bytes in the layers of an image", "decoded bytes in the layers of an image"]): u64 = 128 * GIB64;
    /// Decoded bytes per byte of the blob, once `ratio-from` bytes are decoded.
    ratio ("ratio", Count, ["decoded bytes for each byte of the blob", "decoded bytes for a blob of this size", "bytes that a blob of this size may still decode to", "bytes that sparse files of a blob of this size may take"]): u64 = 512;
    /// Decoded bytes from which `ratio` holds.
    ratio_from ("ratio-from", Bytes, ["decoded bytes for so small a blob", "bytes that so small a blob may still decode to"]): u64 = GIB64;
    /// Entries of one layer.
    entries ("entries", Count, ["entries"]): u64 = 4_000_000;
    /// Entries, and stretches of sparse files, that a layer may hold however small its blob is; each further one needs 64
    /// bytes of blob.
    free_entries ("free-entries", Count, ["entries for a blob of this size"]): u64 = 1_000_000;
    /// Directories that a layer may have made without listing them; each entry adds 2.
    implied_directories ("implied-directories", Count, ["directories that are made without being listed"]): u64 = 200_000;
    /// Bytes in a path or a hard link's target.
    path_bytes ("path-bytes", Bytes, ["bytes in a path", "bytes in a resolved path"]): usize = 4096;
    /// Bytes in one component of a path.
    component_bytes ("component-bytes", Bytes, ["bytes in a component of a path"]): usize = 255;
    /// Components in a path.
    depth ("depth", Count, ["components in a path", "components in a resolved path"]): usize = 256;
    /// Bytes of PAX and GNU metadata of one entry. Kept by the guest, and backed by `guest-memory`.
    entry_metadata_bytes ("entry-metadata-bytes", Bytes, ["bytes of extended headers for one member"]): usize = MIB;
    /// Bytes of names and values of one entry's extended attributes.
    xattr_bytes ("xattr-bytes", Bytes, ["bytes of extended attributes"]): usize = 64 * KIB;
    /// Extended attributes of one entry.
    xattrs ("xattrs", Count, ["extended attributes"]): usize = 256;
    /// Extents of a sparse file.
    sparse_extents ("sparse-extents", Count, ["extents in a sparse file"]): usize = 10_000;
    /// Size of one regular file, holes included.
    file_bytes ("file-bytes", Bytes, ["bytes in a file"]): u64 = 1024 * GIB64;
    /// Symbolic links that are followed in one path.
    link_hops ("link-hops", Count, ["symbolic links in a path"]): usize = 40;
    /// Steps of one layer in following links; each entry adds 16.
    link_steps ("link-steps", Count, ["steps in following links"]): u64 = 2_000_000;
    /// Bytes of names that the tree writer remembers until a layer's end: hard links whose target is still to come,
    /// directories whose times are set last. Each costs 64 bytes more.
    deferred_bytes ("deferred-bytes", Bytes, ["bytes of names to remember until its end", "bytes of names of hard links"]): usize = 80 * MIB;
    /// Bytes of a manifest or an index.
    manifest_bytes ("manifest-bytes", Bytes, ["bytes in a manifest", "bytes in an index"]): u64 = 4 * MIB64;
    /// Bytes of an image configuration.
    config_bytes ("config-bytes", Bytes, ["bytes in an image configuration"]): u64 = 8 * MIB64;
    /// Indexes inside of indexes.
    index_depth ("index-depth", Count, ["indexes inside of indexes"]): usize = 2;
    /// Layers of an image.
    layers ("layers", Count, ["layers"]): usize = 512;
    /// The window of a zstd frame. Kept by the guest, and backed by `decoder-memory`.
    zstd_window ("zstd-window", Bytes, ["bytes in the window of a zstd frame"]): u64 = 128 * MIB64;
    /// Linear memory of a decoder guest.
    decoder_memory ("decoder-memory", Bytes, []): u64 = 256 * MIB64;
    /// Linear memory of any other guest.
    guest_memory ("guest-memory", Bytes, []): u64 = 64 * MIB64;
    /// Processor time of a guest, whatever its input.
    guest_time ("guest-time", Time, []): Duration = Duration::from_secs(5);
    /// Further processor time of a guest for each MiB that passes through it.
    guest_time_per_mib ("guest-time-per-mib", Time, []): Duration = Duration::from_millis(25);
    /// Host calls of a guest that move nothing: empty reads and writes.
    idle_calls ("idle-calls", Count, []): u64 = 1024;
    /// Messages of a guest that reach the log; the others are dropped.
    log_messages ("log-messages", Count, []): u64 = 256;
    /// Time that a plugin with capabilities may take in all for one layer or image, waiting included; that a decoder
    /// or an extractor may wait.
    plugin_wait ("plugin-wait", Time, []): Duration = Duration::from_mins(1);
    /// Linear memory of a plugin that asks for more than `guest-memory`.
    plugin_memory ("plugin-memory", Bytes, []): u64 = 256 * MIB64;
    /// Bytes of a plugin's component.
    plugin_bytes ("plugin-bytes", Bytes, ["bytes in a plugin's component"]): u64 = 128 * MIB64;
    /// Bytes of the report of an inspector.
    report_bytes ("report-bytes", Bytes, ["bytes in a plugin's report"]): u64 = 16 * MIB64;
    /// Requests of a plugin in one run.
    http_requests ("http-requests", Count, ["requests of a plugin"]): u64 = 64;
    /// Bytes that a plugin may send and receive in one run, in all.
    http_bytes ("http-bytes", Bytes, ["bytes sent and received by a plugin"]): u64 = 32 * MIB64;
    /// Bytes on disk in a plugin's scratch directory.
    scratch_bytes ("scratch-bytes", Bytes, ["bytes in a plugin's scratch directory"]): u64 = 256 * MIB64;
    /// Files and directories in a plugin's scratch directory.
    scratch_files ("scratch-files", Count, ["files in a plugin's scratch directory"]): u64 = 4096;
}

impl Limits {
    /// Returns these limits after a change, such as `|limits| limits.layers = 10`.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    /// The limit of this name.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`], with the name that may have been meant.
    pub fn named(name: &str) -> Result<&'static Limit> {
        Self::ALL.iter().find(|limit| limit.name == name).ok_or_else(|| {
            let near = Self::ALL.iter().map(|limit| (distance(name, limit.name), limit.name)).min();
            let hint = match near {
                Some((distance, near)) if distance <= 3 => format!("did you mean {near}?"),
                _ => {
                    let names: Vec<_> = Self::ALL.iter().map(|limit| limit.name).collect();
                    format!("the limits are {}", names.join(", "))
                }
            };
            Error::Usage { reason: format!("there is no limit {name:?}"), hint: Some(hint) }
        })
    }

    /// The limit that an error means by `what` is counted, and those very words.
    pub fn meant(what: &str) -> Option<(&'static Limit, &'static str)> {
        Self::ALL.iter().find_map(|limit| Some((limit, *limit.phrases.iter().find(|phrase| **phrase == what)?)))
    }

    /// Sets a limit by its name to a value that is written as its unit says: `entries` to `4M`, `path-bytes` to `4KiB`,
    /// `guest-time` to `500ms`.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`] for an unknown name or a value that cannot be read.
    pub fn set(&mut self, name: &str, value: &str) -> Result<()> {
        let limit = Self::named(name)?;
        let value = limit.unit.read(value).ok_or_else(|| Error::Usage {
            reason: format!("{value:?} is no value for the limit {name}"),
            hint: Some(format!("write {}", limit.unit.examples())),
        })?;
        (limit.set)(self, value);
        Ok(())
    }

    /// A limit's value, written so that [`Limits::set`] reads it.
    pub fn show(&self, limit: &Limit) -> String {
        limit.unit.show((limit.get)(self))
    }

    /// A limit's value as a number: bytes, things, or milliseconds.
    pub fn value(&self, limit: &Limit) -> u64 {
        (limit.get)(self)
    }
}

impl Unit {
    /// Suffixes, the largest first, and by what they multiply. The first of each size is the one that is shown.
    fn suffixes(self) -> &'static [(&'static str, u64)] {
        match self {
            Self::Bytes => &[("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("", 1)],
            Self::Count => &[("G", 1_000_000_000), ("M", 1_000_000), ("K", 1000), ("", 1)],
            Self::Time => {
                &[("w", 604_800_000), ("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)]
            }
        }
    }

    /// Reads a value, in the one way in which they are written everywhere: bytes as `4096`, `64KiB`, `64K` or `64kb`, all by 1024; counts
    /// as `500`, `10K` or `4M`, by 1000; times as `500ms`, `5s`, `1h30m` or `30d`, in milliseconds.
    ///
    /// # Errors
    ///
    /// [`Error::Usage`], with examples.
    pub fn parse(self, text: &str) -> Result<u64> {
        self.read(text).ok_or_else(|| Error::Usage {
            reason: format!("{text:?} is not {}", self.noun()),
            hint: Some(format!("write {}", self.examples())),
        })
    }

    fn read(self, text: &str) -> Option<u64> {
        match self {
            // Several parts, each with its unit.
            Self::Time => {
                let mut rest = text;
                let mut sum: u64 = 0;
                while !rest.is_empty() {
                    let (number, tail) = leading_number(rest)?;
                    let unit = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
                    let (suffix, tail) = tail.split_at(unit);
                    let factor = self.suffixes().iter().find(|(known, _)| *known == suffix)?.1;
                    sum = sum.checked_add(number.checked_mul(factor)?)?;
                    rest = tail;
                }
                (!text.is_empty()).then_some(sum)
            }
            Self::Bytes => {
                let (number, suffix) = leading_number(text)?;
                let suffix = suffix.to_ascii_lowercase();
                let letter = suffix.strip_suffix("ib").or_else(|| suffix.strip_suffix('b')).unwrap_or(&suffix);
                let shift = ["", "k", "m", "g", "t"].iter().position(|known| *known == letter)?;
                // `5ib` has no letter for what is to be multiplied.
                (suffix != "ib").then(|| number.checked_mul(1 << (10 * shift)))?
            }
            Self::Count => {
                let (number, suffix) = leading_number(text)?;
                let factor = self.suffixes().iter().find(|(known, _)| known.eq_ignore_ascii_case(suffix))?.1;
                number.checked_mul(factor)
            }
        }
    }

    fn noun(self) -> &'static str {
        match self {
            Self::Bytes => "a number of bytes",
            Self::Count => "a number",
            Self::Time => "a time",
        }
    }

    fn show(self, value: u64) -> String {
        let suffixes = self.suffixes().iter();
        let fits = |(_, factor): &&(&str, u64)| value != 0 && value.is_multiple_of(*factor);
        match self {
            Self::Time if value.is_multiple_of(1000) => format!("{}s", value / 1000),
            Self::Time => format!("{value}ms"),
            Self::Bytes => suffixes.clone().find(fits).map_or("0".into(), |(name, by)| format!("{}{name}", value / by)),
            Self::Count => value.to_string(),
        }
    }

    /// How a value is written, for people.
    pub fn examples(self) -> &'static str {
        match self {
            Self::Bytes => "bytes: 4096, 64KiB, 10MiB, 2GiB",
            Self::Count => "a number: 500, 10K, 4M",
            Self::Time => "a time: 500ms, 5s, 1h30m, 30d",
        }
    }
}

/// The number that a text begins with, and what follows.
fn leading_number(text: &str) -> Option<(u64, &str)> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, rest) = text.split_at(digits);
    Some((number.parse().ok()?, rest))
}

/// How many letters must be changed, added or dropped to make one word of another.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (above, a) in one.chars().take(64).enumerate() {
        let mut diagonal = above;
        row[0] = above + 1;
        for (at, b) in other.iter().enumerate() {
            let changed = diagonal + usize::from(a != *b);
            diagonal = row[at + 1];
            row[at + 1] = changed.min(row[at] + 1).min(diagonal + 1);
        }
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_fields() {
        for (name, field) in FIELDS {
            assert_eq!(*name, field.replace('_', "-"));
        }
    }

    #[test]
    fn no_two_limits_are_called_the_same() {
        for (at, one) in Limits::ALL.iter().enumerate() {
            for phrase in one.phrases {
                let meant = Limits::ALL.iter().filter(|other| other.phrases.contains(phrase)).count();
                assert_eq!(meant, 1, "{phrase}");
            }
            assert!(Limits::ALL[at + 1..].iter().all(|other| other.name != one.name));
        }
    }

    #[test]
    fn what_is_shown_can_be_set() {
        let defaults = Limits::default();
        for limit in Limits::ALL {
            let mut limits = Limits::default();
            (limit.set)(&mut limits, 1);
            assert_ne!(limits, defaults, "{limit:?}");
            limits.set(limit.name, &defaults.show(limit)).unwrap();
            assert_eq!(limits, defaults, "{limit:?}");
            assert!(!limit.about.trim().is_empty());
        }
    }

    #[test]
    fn values_are_read_as_they_are_written() {
        let mut limits = Limits::default();
        for (name, text, value) in [
            ("layer-bytes", "10", 10),
            ("layer-bytes", "2KiB", 2048),
            ("layer-bytes", "3G", 3 << 30),
            ("entries", "10K", 10_000),
            ("guest-time", "2s", 2000),
            ("guest-time", "7ms", 7),
            ("guest-time", "1h30m", 5_400_000),
            ("guest-time", "1w2d3s4ms", 777_603_004),
            ("plugin-wait", "30d", 2_592_000_000),
            ("layer-bytes", "2kib", 2048),
            ("layer-bytes", "2KB", 2048),
            ("layer-bytes", "2k", 2048),
            ("layer-bytes", "5B", 5),
            ("entries", "2k", 2000),
            ("entries", "1G", 1_000_000_000),
            ("layer-bytes", "18446744073709551615", u64::MAX),
        ] {
            limits.set(name, text).unwrap();
            assert_eq!(limits.value(Limits::named(name).unwrap()), value, "{name}={text}");
        }
        for (name, text) in [
            ("layer-bytes", ""),
            ("layer-bytes", "KiB"),
            ("layer-bytes", "-1"),
            ("layer-bytes", "1.5GiB"),
            ("layer-bytes", "1 GiB"),
            ("layer-bytes", "18446744073709551616"),
            ("layer-bytes", "16777216TiB"),
            ("layer-bytes", "1KK"),
            ("layer-bytes", "1iB"),
            ("layer-bytes", "1PiB"),
            ("entries", "1KiB"),
            ("guest-time", "5"),
            ("guest-time", "5S"),
            ("guest-time", "1h5"),
            ("guest-time", "s"),
            ("guest-time", "1.5h"),
            ("guest-time", "18446744073709551615w"),
        ] {
            assert!(matches!(limits.set(name, text), Err(Error::Usage { hint: Some(_), .. })), "{name}={text}");
        }
    }

    #[test]
    fn a_wrong_name_gets_the_right_one() {
        for (wrong, right) in [("entrys", "entries"), ("path_bytes", "path-bytes"), ("Depth", "depth")] {
            let hint = Limits::named(wrong).unwrap_err().hint().unwrap();
            assert_eq!(hint, format!("did you mean {right}?"));
        }
        assert!(Limits::named("nonsense").unwrap_err().hint().unwrap().contains("entries, free-entries"));
    }
}
