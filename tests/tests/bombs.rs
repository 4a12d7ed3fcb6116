//! Inputs that are small and ask for much. Whatever they are, the command ends with a plain answer and stays small itself.
//!
//! How long each takes is printed; judged is only that it is no multiple of what is said in SECURITY.md. To measure:
//!
//! ```text
//! COFFERDAM_BIN=target/release/cofferdam cargo nextest run --workspace -E 'binary(bombs)' --no-capture -j 1
//! ```

use std::fmt::Write as _;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Result, ensure};
use cofferdam_tests::bombs::{extended, gzip_archive, gzip_zeros, header, record, zstd_zeros};
use cofferdam_tests::cofferdam::{binary, exit};
use cofferdam_tests::{Cofferdam, Run, Scratch, require};
use tar::EntryType;

/// Most processor time that a bomb may take.
const PROCESSOR: Duration = Duration::from_mins(3);

/// Most memory that any input may take.
const MEMORY: u64 = 512 << 20;

struct Bench {
    scratch: Scratch,
    cofferdam: Cofferdam,
}

/// A million inodes and a few GiB: in memory where there is room for that, since removing them keeps a disk busy for minutes.
fn scratch() -> Result<Scratch> {
    let memory = Path::new("/dev/shm");
    let is_roomy = rustix::fs::statvfs(memory)
        .is_ok_and(|free| free.f_favail > 2_500_000 && free.f_bavail.saturating_mul(free.f_frsize) > 16 << 30);
    if is_roomy { Scratch::new_in(memory) } else { Scratch::new() }
}

impl Bench {
    fn new() -> Result<Self> {
        let scratch = scratch()?;
        Ok(Self { cofferdam: Cofferdam::new(scratch.join("store"))?, scratch })
    }

    /// Makes an input and unpacks it. It must end with this code, within the memory.
    fn goes_off(&self, what: &str, code: i32, args: &[&str], make: impl FnOnce(&Path) -> Result<()>) -> Result<Run> {
        let (blob, dest) = (self.scratch.join("blob"), self.scratch.join("dest"));
        make(&blob)?;
        let size = std::fs::metadata(&blob)?.len();
        let [blob, at] = [&blob, &dest].map(|path| path.display().to_string());
        let mut line = vec!["layer", "extract", &blob, &at];
        line.extend_from_slice(args);
        let run = self.cofferdam.run(line)?;
        let (wall, peak) = (run.usage.wall.as_secs_f64(), run.usage.peak_rss >> 20);
        let code_seen = run.code();
        eprintln!("| {what} | {size} | {code_seen:?} | {wall:.1} | {peak} |\n{}", run.err());
        let run = run.expect(code)?;
        ensure!(run.usage.peak_rss < MEMORY, "{what}: {peak} MiB");
        // CONFORMANCE 3 gives 20 s; a build for tests gets several times that. What hangs, or takes quadratic time, takes more.
        ensure!(run.usage.cpu() < PROCESSOR, "{what}: {:?} of processor time", run.usage.cpu());
        cofferdam_tests::scratch::remove_tree(&dest);
        Ok(run)
    }

    /// As [`Bench::goes_off`], and refused because of this limit.
    fn crosses(&self, what: &str, limit: &str, make: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        let run = self.goes_off(what, exit::REFUSED, &[], make)?;
        ensure!(run.err().contains(&format!("--limit {limit}=")), "{what}: {}", run.err());
        Ok(())
    }
}

fn plain(to: &Path, write: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
    let mut file = std::io::BufWriter::with_capacity(1 << 20, File::create(to)?);
    write(&mut file)?;
    file.write_all(&[0; 1024])?;
    Ok(file.flush()?)
}

/// CVE-2017-14992: zeros without end.
#[test]
fn cve_2017_14992_zeros_in_gzip() -> Result<()> {
    let bench = Bench::new()?;
    bench.crosses("10 GiB of zeros in gzip, in files", "ratio", |blob| gzip_zeros(blob, true))?;
    bench.crosses("10 GiB of zeros in gzip, behind the end", "ratio", |blob| gzip_zeros(blob, false))
}

/// GHSA-gcpm-8w8q-gp9v: blocks of four bytes that decode to 128 KiB, and less striking ones.
#[test]
fn ghsa_gcpm_8w8q_gp9v_zeros_in_zstd() -> Result<()> {
    const TOTAL: u64 = 100_000_000_000;
    const FILE: u64 = 40_000 * 512;
    let bench = Bench::new()?;
    // A repeated byte is the most that a block can be: 128 KiB in four bytes. Such a blob is too small for any ratio.
    bench
        .crosses("10¹¹ bytes of zeros in zstd, 1:32768", "ratio", |blob| zstd_zeros(blob, 128 << 10, TOTAL, None))?;
    bench.crosses("10¹¹ bytes of zeros in zstd, 1:10⁴, behind the end", "ratio", |blob| {
        zstd_zeros(blob, 40_000, TOTAL, None)
    })?;
    bench.crosses("10¹¹ bytes of zeros in zstd, 1:10⁴, in files", "ratio", |blob| {
        zstd_zeros(blob, 40_000, TOTAL, Some(FILE))
    })?;
    bench.goes_off("64 MiB of honest zeros in zstd", exit::OK, &[], |blob| {
        zstd_zeros(blob, 128 << 10, 64 << 20, None)
    })?;
    Ok(())
}

#[test]
fn a_claimed_size_is_refused_before_a_byte_is_written() -> Result<()> {
    let bench = Bench::new()?;
    let run = bench.goes_off("a file of 1 TiB, claimed", exit::REFUSED, &[], |blob| {
        gzip_archive(blob, |to| {
            // Base-256: the size does not fit into octal digits.
            let mut block = header("huge", EntryType::Regular, "", 0)?;
            block[124..136].copy_from_slice(&[0x80, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0]);
            block[148..156].fill(b' ');
            let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            to.write_all(&block)?;
            Ok(std::io::copy(&mut std::io::Read::take(std::io::repeat(b'x'), 64 << 20), to).map(drop)?)
        })
    })?;
    ensure!(run.err().contains("may still decode to"), "{}", run.err());
    Ok(())
}

#[test]
fn a_million_entries() -> Result<()> {
    let bench = Bench::new()?;
    bench.goes_off("10⁶ empty files", exit::OK, &[], |blob| {
        gzip_archive(blob, |to| {
            (0..1_000_000).try_for_each(|index| {
                let name = format!("{}/{index}", index / 1000);
                Ok(to.write_all(&header(&name, EntryType::Regular, "", 0)?)?)
            })
        })
    })?;
    Ok(())
}

#[test]
fn a_million_directories() -> Result<()> {
    let bench = Bench::new()?;
    let make = |count: u32| {
        move |blob: &Path| {
            gzip_archive(blob, |to| {
                (0..count).try_for_each(|index| {
                    let name = format!("{}/{index}", index / 1000);
                    Ok(to.write_all(&header(&name, EntryType::Directory, "", 0)?)?)
                })
            })
        }
    };
    bench.goes_off("10⁶ directories", exit::OK, &[], make(1_000_000))?;
    Ok(())
}

#[test]
fn links_in_their_hundred_thousands() -> Result<()> {
    const COUNT: u32 = 100_000;
    let bench = Bench::new()?;
    bench.goes_off("10⁵ hard links, each to the next", exit::OK, &[], |blob| {
        gzip_archive(blob, |to| {
            for index in 0..COUNT {
                let (name, next) = (format!("{index}/l"), format!("{}/l", index + 1));
                // A directory each, since a file system has a limit on the links of one file.
                if index % 50_000 == 49_999 {
                    to.write_all(&header(&name, EntryType::Regular, "", 0)?)?;
                } else {
                    to.write_all(&header(&name, EntryType::Link, &next, 0)?)?;
                }
            }
            Ok(())
        })
    })?;
    bench.goes_off("10⁵ links in circles, gone through", exit::REFUSED, &[], |blob| {
        gzip_archive(blob, |to| {
            for index in 0..COUNT {
                to.write_all(&header(&format!("a{index}"), EntryType::Symlink, &format!("b{index}"), 0)?)?;
                to.write_all(&header(&format!("b{index}"), EntryType::Symlink, &format!("a{index}"), 0)?)?;
            }
            Ok(to.write_all(&header("a7/f", EntryType::Regular, "", 0)?)?)
        })
    })?;
    Ok(())
}

/// CVE-2022-2879, CVE-2025-58183, CVE-2026-32288: what is said about one entry.
#[test]
fn cve_2022_2879_cve_2025_58183_cve_2026_32288_much_about_one_entry() -> Result<()> {
    // An extent of the old form: where it is, and how long.
    const EMPTY: &[u8; 24] = b"00000000000\x0000000000000\0";
    let bench = Bench::new()?;
    bench.crosses("an extended header of 1 GiB, claimed", "entry-metadata-bytes", |blob| {
        plain(blob, |to| Ok(to.write_all(&header("x", EntryType::XHeader, "", 1 << 30)?)?))
    })?;
    bench.crosses("a map of 10⁶ extents", "sparse-extents", |blob| {
        let mut map = String::from("1000000\n");
        (0..1_000_000).try_for_each(|index| writeln!(map, "{index}\n0"))?;
        map.extend(std::iter::repeat_n('\0', map.len().next_multiple_of(512) - map.len()));
        let records = [
            record("GNU.sparse.major", b"1"),
            record("GNU.sparse.minor", b"0"),
            record("GNU.sparse.realsize", b"1000000"),
        ]
        .concat();
        plain(blob, |to| {
            to.write_all(&extended(&records)?)?;
            to.write_all(&header("sparse", EntryType::Regular, "", map.len() as u64)?)?;
            Ok(to.write_all(map.as_bytes())?)
        })
    })?;
    bench.crosses("a map of 2·10⁶ extents that goes on and on in the old form", "sparse-extents", |blob| {
        let mut head = header("sparse", EntryType::GNUSparse, "", 0)?;
        head[257..265].copy_from_slice(b"ustar  \0");
        for extent in head[386..482].chunks_exact_mut(24) {
            extent.copy_from_slice(EMPTY);
        }
        head[482] = 1;
        head[483..495].copy_from_slice(b"00000000000\0");
        head[148..156].fill(b' ');
        let sum: u32 = head.iter().map(|&byte| u32::from(byte)).sum();
        head[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        let mut more = [0; 512];
        for extent in more[..504].chunks_exact_mut(24) {
            extent.copy_from_slice(EMPTY);
        }
        more[504] = 1;
        plain(blob, |to| {
            to.write_all(&head)?;
            (0..100_000).try_for_each(|_| Ok(to.write_all(&more)?))
        })
    })?;
    bench.crosses("10⁶ bytes of attributes", "xattr-bytes", |blob| {
        let value = vec![b'v'; 1_000_000];
        plain(blob, |to| {
            to.write_all(&extended(&record("SCHILY.xattr.user.big", &value))?)?;
            Ok(to.write_all(&header("f", EntryType::Regular, "", 0)?)?)
        })
    })?;
    bench.goes_off("a file of 1 TiB that is a hole", exit::OK, &[], |blob| {
        let records = [
            record("GNU.sparse.size", (1_u64 << 40).to_string().as_bytes()),
            record("GNU.sparse.numblocks", b"0"),
            record("GNU.sparse.map", b""),
        ]
        .concat();
        plain(blob, |to| {
            to.write_all(&extended(&records)?)?;
            Ok(to.write_all(&header("hole", EntryType::Regular, "", 0)?)?)
        })
    })?;
    Ok(())
}

/// CVE-2026-95838, through the command: linear work is what the unit tests count, this is what it comes to.
#[test]
fn cve_2026_95838_markers_in_their_hundred_thousands() -> Result<()> {
    const COUNT: u32 = 100_000;
    let bench = Bench::new()?;
    let lower = bench.scratch.join("lower");
    gzip_archive(&lower, |to| {
        (0..COUNT).try_for_each(|index| Ok(to.write_all(&header(&format!("d/{index}"), EntryType::Regular, "", 0)?)?))
    })?;
    let [lower, dest] = [lower, bench.scratch.join("dest")].map(|path| path.display().to_string());
    bench.cofferdam.ok(["layer", "extract", &lower, &dest])?;
    bench.goes_off("10⁵ opaque markers on a directory of 10⁵", exit::OK, &[], |blob| {
        gzip_archive(blob, |to| {
            for index in 0..COUNT {
                to.write_all(&header(&format!("d/own{index}"), EntryType::Regular, "", 0)?)?;
                to.write_all(&header("d/.wh..wh..opq", EntryType::Regular, "", 0)?)?;
            }
            Ok(())
        })
    })?;
    Ok(())
}

/// Deeper than a path can be, with few open files allowed. No layer makes such a tree; a destination may hold one. (A unit
/// test removes one of 100 000 levels: for a confined process, the kernel's work on each file grows with its depth.)
#[test]
fn a_deep_tree_goes_away() -> Result<()> {
    use rustix::fs::{Mode, OFlags, mkdirat, openat};
    const DEPTH: u32 = 3000;
    require!("prlimit");
    let bench = Bench::new()?;
    let dest = bench.scratch.dir("dest")?;
    let mut dir = openat(rustix::fs::CWD, &dest, OFlags::DIRECTORY, Mode::empty())?;
    for _ in 0..DEPTH {
        mkdirat(&dir, "d", Mode::RWXU)?;
        dir = openat(&dir, "d", OFlags::DIRECTORY, Mode::empty())?;
    }
    drop(dir);
    let layer = bench.scratch.join("layer");
    plain(&layer, |to| Ok(to.write_all(&header(".wh.d", EntryType::Regular, "", 0)?)?))?;
    let args = ["layer", "extract", &layer.display().to_string(), &dest.display().to_string()];
    let status = Command::new("prlimit")
        .arg("--nofile=256")
        .arg(binary()?)
        .args(args)
        .env_remove("COFFERDAM_LIMITS")
        .stdout(Stdio::null())
        .status()?;
    ensure!(status.success(), "it ended with {status}");
    ensure!(std::fs::read_dir(&dest)?.next().is_none(), "something is left");
    Ok(())
}

/// Each entry in another deep directory, by a long path that nobody has seen lately.
#[test]
fn long_ways() -> Result<()> {
    let bench = Bench::new()?;
    bench.goes_off("2·10⁴ entries by ways of 150 directories", exit::OK, &[], |blob| {
        gzip_archive(blob, |to| {
            let way = ["fifteen-letters"; 150].join("/");
            for index in 0..20_000 {
                let path = format!("{}/{way}/{index}", index % 200);
                to.write_all(&extended(&record("path", path.as_bytes()))?)?;
                to.write_all(&header("f", EntryType::Regular, "", 0)?)?;
            }
            Ok(())
        })
    })?;
    Ok(())
}
