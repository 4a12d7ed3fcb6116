//! Small files that grow: archives and compressed streams whose decoded form is out of all proportion.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use tar::{EntryType, Header};

use crate::layers;

const MIB: usize = 1 << 20;

/// A ustar header; content is the caller's to add.
pub fn header(name: &str, kind: EntryType, link: &str, size: u64) -> Result<[u8; 512]> {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(0o755);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(layers::MTIME);
    header.set_size(size);
    let fields = header.as_ustar_mut().context("not a ustar header")?;
    fields.name.get_mut(..name.len()).context("a long name")?.copy_from_slice(name.as_bytes());
    fields.linkname.get_mut(..link.len()).context("a long link")?.copy_from_slice(link.as_bytes());
    header.set_cksum();
    Ok(*header.as_bytes())
}

/// A `x` header with these records as they are, and the padding behind.
pub fn extended(records: &[u8]) -> Result<Vec<u8>> {
    let mut bytes = header("x", EntryType::XHeader, "", records.len() as u64)?.to_vec();
    bytes.extend_from_slice(records);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    Ok(bytes)
}

/// One record of a `x` header.
pub fn record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    [length.to_string().as_bytes(), b" ", key.as_bytes(), b"=", value, b"\n"].concat()
}

/// 10 GiB of zeros as 10 MB of gzip: as the content of a file, or behind the end of an empty archive.
pub fn gzip_zeros(to: &Path, in_a_file: bool) -> Result<()> {
    const MEMBER: usize = 64 * MIB;
    const MEMBERS: usize = 160;
    let zeros = layers::compress("gzip", &["-9", "-n", "-c"], &vec![0; MEMBER])?;
    let mut file = File::create(to)?;
    if in_a_file {
        // The host would refuse a claim of more than is left; so many files, none of them too large.
        let size = (MEMBER * 8) as u64;
        for index in 0..MEMBERS / 8 {
            file.write_all(&layers::gzip(&header(&index.to_string(), EntryType::Regular, "", size)?)?)?;
            for _ in 0..8 {
                file.write_all(&zeros)?;
            }
        }
    } else {
        for _ in 0..MEMBERS {
            file.write_all(&zeros)?;
        }
    }
    Ok(())
}

/// A zstd frame of blocks that repeat a zero, each of this size, until `total` bytes are decoded; four bytes a block.
/// With `file_size`, a header for a file of that size comes before each so many bytes.
pub fn zstd_zeros(to: &Path, block: u32, total: u64, file_size: Option<u64>) -> Result<()> {
    let mut file = BufWriter::new(File::create(to)?);
    // No checksum, no size; a window of 1 MiB.
    file.write_all(&[0x28, 0xb5, 0x2f, 0xfd, 0, 10 << 3])?;
    let head = |size: u32, kind: u32, last: bool| (size << 3 | kind << 1 | u32::from(last)).to_le_bytes();
    let mut done = 0;
    let mut index = 0_u32;
    while done < total {
        if let Some(size) = file_size
            && done.is_multiple_of(size)
        {
            file.write_all(&head(512, 0, false)[..3])?;
            file.write_all(&header(&index.to_string(), EntryType::Regular, "", size)?)?;
            index += 1;
        }
        done += u64::from(block);
        file.write_all(&head(block, 1, done >= total)[..3])?;
        file.write_all(&[0])?;
    }
    Ok(file.flush()?)
}

/// An archive that a function writes, compressed by gzip on the way.
pub fn gzip_archive(to: &Path, write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    let mut child = Command::new("gzip").args(["-1", "-n"]).stdin(Stdio::piped()).stdout(File::create(to)?).spawn()?;
    let mut stdin = BufWriter::with_capacity(MIB, child.stdin.take().context("no standard input")?);
    write(&mut stdin)?;
    stdin.write_all(&[0; 1024])?;
    drop(stdin.into_inner().map_err(io::IntoInnerError::into_error)?);
    ensure!(child.wait()?.success(), "gzip failed");
    Ok(())
}
