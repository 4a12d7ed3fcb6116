//! An extractor for archives of `ar`, as GNU writes them, with names of up to 15 bytes: files in the root, and nothing else.

use cofferdam_sdk::{Archive, Entry, Extractor, Failure, Node, Timestamp, Tree};

cofferdam_sdk::extractor!(Ar);

struct Ar;

impl Extractor for Ar {
    fn extract(archive: &mut Archive, tree: &mut Tree) -> Result<(), Failure> {
        if archive.array()? != Some(*b"!<arch>\n") {
            return Err(Failure::corrupt("not an archive of ar"));
        }
        while let Some(header) = archive.array()? {
            let (entry, size) = entry(&header)?;
            tree.put(entry);
            // The host takes the content. What pads it to an even length is skipped here, if there is anything behind it.
            if size % 2 == 1
                && archive
                    .array()?
                    .is_some_and(|padding: [u8; 1]| padding != *b"\n")
            {
                return Err(Failure::corrupt("padding that is none"));
            }
        }
        Ok(())
    }
}

/// Reads a header: name (16 bytes), time (12), owner (6), group (6), mode (8, octal), size (10), end (2).
fn entry(header: &[u8; 60]) -> Result<(Entry, u64), Failure> {
    if !header.ends_with(b"`\n") {
        return Err(Failure::corrupt("a header without its end"));
    }
    let name = header[..16].trim_ascii_end();
    let name = name.strip_suffix(b"/").unwrap_or(name);
    if name.is_empty()
        || name == b"."
        || name == b".."
        || name.starts_with(b".wh.")
        || name.contains(&0)
    {
        return Err(Failure::refused_at(name, "cannot be a file's name"));
    }
    if name.contains(&b'/') {
        return Err(Failure::refused_at(
            name,
            "a long name or a table: more than this extractor reads",
        ));
    }
    let number = |from: usize, to: usize, radix: u32| {
        let digits = str::from_utf8(header[from..to].trim_ascii()).unwrap_or("?");
        // Only digits: the standard library would take a sign too.
        let plain = digits.chars().all(|digit| digit.is_digit(radix));
        let value = if digits.is_empty() {
            Ok(0)
        } else {
            u64::from_str_radix(digits, radix)
        };
        value
            .ok()
            .filter(|_| plain)
            .ok_or_else(|| Failure::corrupt("a header with a number that is none"))
    };
    let small = |value: u64| {
        u32::try_from(value).map_err(|_| Failure::corrupt("a header with a number too large"))
    };
    let size = number(48, 58, 10)?;
    let mut entry = Entry::new(name, Node::File { size });
    entry.modified = Timestamp {
        seconds: i64::from(small(number(16, 28, 10)?)?),
        nanoseconds: 0,
    };
    entry.uid = small(number(28, 34, 10)?)?;
    entry.gid = small(number(34, 40, 10)?)?;
    entry.mode = small(number(40, 48, 8)? & 0o7777)?;
    Ok((entry, size))
}

#[cfg(test)]
mod tests {
    use cofferdam_sdk::Failure;
    use cofferdam_sdk::testing::Host;

    use super::Ar;

    const ARCHIVE: &[u8] = b"!<arch>\n\
        hello.txt/      1700000000  1000  1000  100644  3         `\nhi\n\n\
        su/             0           0     0     104755  2         `\nsu";

    #[test]
    fn files_are_put() {
        let run = Host::new().extract::<Ar>(ARCHIVE);
        assert_eq!(run.result, Ok(()));
        assert_eq!(run.contents, [b"hi\n", &b"su"[..]]);
        let [hello, su] = &run.entries[..] else {
            panic!("{:?}", run.entries)
        };
        assert_eq!(
            (&*hello.path_lossy(), hello.mode, hello.uid),
            ("hello.txt", 0o644, 1000)
        );
        assert_eq!(
            (&*su.path_lossy(), su.is_setuid(), su.modified.seconds),
            ("su", true, 0)
        );
    }

    #[test]
    fn what_is_no_archive_is_corrupt() {
        for (at, byte) in [
            (0, b'?'),
            (8 + 48, b'-'),
            (8 + 58, b'x'),
            (8 + 60 + 3, b'x'),
        ] {
            let mut archive = ARCHIVE.to_vec();
            archive[at] = byte;
            let run = Host::new().extract::<Ar>(&archive);
            assert!(
                matches!(run.result, Err(Failure::Corrupt(_))),
                "byte {at}: {:?}",
                run.result
            );
        }
    }

    #[test]
    fn a_name_cannot_lead_out() {
        for name in ["..", ".", "/etc", "a/b"] {
            let archive =
                format!("!<arch>\n{name:<16}0           0     0     644     0         `\n");
            let run = Host::new().extract::<Ar>(archive.as_bytes());
            assert!(
                matches!(run.result, Err(Failure::Refused { .. })),
                "{name}: {:?}",
                run.result
            );
        }
    }
}
