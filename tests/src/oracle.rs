//! Other implementations, whose results ours must equal.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use crate::registry::run;
use crate::tree::Name;
use crate::{Images, paths};

/// The root file system that `umoci unpack` makes of an image in the set, unpacked once per image and kept.
pub fn umoci(images: &Images, layout: &str, tag: &str) -> Result<PathBuf> {
    let digest = images.manifest(layout, tag)?.replace(':', "-");
    let base = paths::target().join("tmp/umoci");
    fs::create_dir_all(&base)?;
    let lock = File::create(base.join("lock"))?;
    lock.lock()?;
    let bundle = base.join(&digest);
    if !bundle.exists() {
        let part = base.join("part");
        crate::scratch::remove_tree(&part);
        run(Command::new("umoci").args(["unpack", "--image"]).arg(umoci_name(&images.layout(layout), tag)).arg(&part))?;
        fs::rename(&part, &bundle)?;
    }
    Ok(bundle.join("rootfs"))
}

/// An image as umoci names it.
pub fn umoci_name(layout: &Path, tag: &str) -> String {
    format!("{}:{tag}", layout.display())
}

/// Extracts one layer with GNU tar into a directory that is created, as root with everything that a layer can hold.
/// GNU tar knows no whiteouts: they become files.
pub fn gnu_tar(layer: &Path, dest: &Path) -> Result<()> {
    fs::create_dir_all(dest)?;
    // Without the delay, entries that come back to a directory would touch it after its time was set.
    let options = "--xattrs --xattrs-include=* --numeric-owner --same-owner --delay-directory-restore -p -x -f";
    run(Command::new("tar").args(options.split(' ')).arg(layer).arg("-C").arg(dest).env("LC_ALL", "C").env("TZ", "UTC"))
}

/// The paths that a layer lists itself, canonical. Extractors agree on their times, but not on those of parents that
/// they had to invent.
pub fn listed(layer: &Path) -> Result<BTreeSet<Name>> {
    let output = Command::new("tar")
        .args(["--list", "--quoting-style=escape", "--show-transformed-names", "-f"])
        .arg(layer)
        .env("LC_ALL", "C")
        .output()
        .context("cannot start tar")?;
    ensure!(output.status.success(), "tar cannot list {}", layer.display());
    let lines = output.stdout.split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
    Ok(lines.map(|line| canonical(&unescape(line))).collect())
}

fn canonical(path: &[u8]) -> Name {
    let parts: Vec<_> = path.split(|&byte| byte == b'/').filter(|part| !matches!(*part, b"" | b".")).collect();
    parts.join(&b'/')
}

/// Undoes tar's `--quoting-style=escape`: `\\`, `\n` and friends, `\ooo`.
fn unescape(line: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = line;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'\\' {
            bytes.push(byte);
            continue;
        }
        let octal = rest.iter().take(3).take_while(|digit| matches!(digit, b'0'..=b'7')).count();
        if octal == 3 {
            let value = rest[..3].iter().fold(0u32, |value, digit| value * 8 + u32::from(digit - b'0'));
            bytes.push(u8::try_from(value).unwrap_or(b'?'));
            rest = &rest[3..];
        } else if let Some((&code, after)) = rest.split_first() {
            rest = after;
            bytes.push(match code {
                b'a' => 7,
                b'b' => 8,
                b't' => b'\t',
                b'n' => b'\n',
                b'v' => 11,
                b'f' => 12,
                b'r' => b'\r',
                other => other,
            });
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_tar_are_understood() {
        assert_eq!(unescape(br"a\\b\n\377\303\251 c"), b"a\\b\n\xff\xc3\xa9 c");
        assert_eq!(canonical(b"./a//b/./c/"), b"a/b/c");
        assert_eq!(canonical(b"./"), b"");
    }
}
