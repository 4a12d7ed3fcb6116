//! Layers made for a test: tar streams from a list of entries, and their compressed forms.

use std::fs;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use sha2::{Digest as _, Sha256};
use tar::{Builder, EntryType, Header};

/// The modification time of all entries made here.
pub const MTIME: u64 = 1_700_000_000;

/// One entry to be.
#[derive(Clone, Debug)]
pub enum Item {
    /// A directory, 0755.
    Dir(&'static str),
    /// A directory with this mode.
    ModeDir(&'static str, u32),
    /// A file, 0644.
    File(&'static str, Vec<u8>),
    /// A file with this mode.
    Mode(&'static str, u32, Vec<u8>),
    /// A symbolic link: name and target.
    Symlink(&'static str, &'static str),
    /// A hard link: name and target.
    Hardlink(&'static str, &'static str),
}

/// An uncompressed layer. Names go into the headers as they are, also climbing ones.
pub fn tar(items: &[Item]) -> Result<Vec<u8>> {
    let mut builder = Builder::new(Vec::new());
    for item in items {
        let (name, kind, mode, target, content): (_, _, _, _, &[u8]) = match item {
            Item::Dir(name) => (*name, EntryType::Directory, 0o755, None, &[]),
            Item::ModeDir(name, mode) => (*name, EntryType::Directory, *mode, None, &[]),
            Item::File(name, content) => (*name, EntryType::Regular, 0o644, None, content),
            Item::Mode(name, mode, content) => (*name, EntryType::Regular, *mode, None, content),
            Item::Symlink(name, target) => (*name, EntryType::Symlink, 0o777, Some(*target), &[]),
            Item::Hardlink(name, target) => (*name, EntryType::Link, 0o644, Some(*target), &[]),
        };
        let mut header = Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_mtime(MTIME);
        header.set_size(content.len() as u64);
        header.set_uid(0);
        header.set_gid(0);
        let fields = header.as_ustar_mut().context("not a ustar header")?;
        put(&mut fields.name, name)?;
        put(&mut fields.linkname, target.unwrap_or_default())?;
        header.set_cksum();
        builder.append(&header, content)?;
    }
    Ok(builder.into_inner()?)
}

/// A layer of one file, 0755, with these extended attributes.
pub fn with_attributes(name: &str, attributes: &[(&str, &[u8])]) -> Result<Vec<u8>> {
    let mut builder = Builder::new(Vec::new());
    let keys: Vec<_> = attributes.iter().map(|(name, _)| format!("SCHILY.xattr.{name}")).collect();
    builder.append_pax_extensions(keys.iter().map(String::as_str).zip(attributes.iter().map(|(_, value)| *value)))?;
    let mut header = Header::new_ustar();
    header.set_mode(0o755);
    header.set_mtime(MTIME);
    header.set_size(1);
    header.set_uid(0);
    header.set_gid(0);
    builder.append_data(&mut header, name, &b"x"[..])?;
    Ok(builder.into_inner()?)
}

/// A value of `security.capability`: `cap_net_raw=p`.
pub const CAPABILITY: &[u8] = b"\x01\0\0\x02\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0\0";

fn put(field: &mut [u8], text: &str) -> Result<()> {
    ensure!(text.len() <= field.len(), "`{text}` is too long for a header");
    field[..text.len()].copy_from_slice(text.as_bytes());
    Ok(())
}

/// Bytes that no compressor makes smaller, the same for the same seed.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// Compresses with a program that reads standard input: `gzip -n`, `zstd -q`.
pub fn compress(program: &str, args: &[&str], bytes: &[u8]) -> Result<Vec<u8>> {
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {program}"))?;
    let mut stdin = child.stdin.take().context("no standard input")?;
    let output = std::thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(bytes));
        child.wait_with_output()
    })?;
    ensure!(output.status.success(), "{program} ended with {}", output.status);
    Ok(output.stdout)
}

/// As one gzip member.
pub fn gzip(bytes: &[u8]) -> Result<Vec<u8>> {
    compress("gzip", &["-n", "-c"], bytes)
}

/// `sha256:` and the hash of some bytes.
pub fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().fold("sha256:".to_owned(), |text, byte| format!("{text}{byte:02x}"))
}

/// `sha256:` and the hash of a file.
pub fn digest_of_file(path: &Path) -> Result<String> {
    let mut hasher = Sha256::new();
    let mut file = fs::File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    let mut buffer = vec![0; 1 << 17];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            count => hasher.update(&buffer[..count]),
        }
    }
    Ok(hasher.finalize().iter().fold("sha256:".to_owned(), |text, byte| format!("{text}{byte:02x}")))
}
