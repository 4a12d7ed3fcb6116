//! Disks that are full, files that are too many, directories that may not be written to.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use cofferdam_tests::cofferdam::exit;
use cofferdam_tests::disk::Disk;
use cofferdam_tests::layers::{self, Item};
use cofferdam_tests::small::{NEW, OLD, Small};
use cofferdam_tests::{Cofferdam, Scratch, require, store};
use rustix::io::Errno;

/// Who has no rights.
const NOBODY: u32 = 65534;

/// Fails unless the pull fails with this word and a hint, and leaves a store without the image and without leftovers.
fn fails_and_leaves_nothing(small: &Small, cofferdam: &Cofferdam, word: &str) -> Result<()> {
    let run = cofferdam.fails(exit::FAILED, small.pull(NEW))?.has_hint()?;
    ensure!(run.err().contains(word), "not about `{word}`: {}", run.err());
    store::ensure_nothing_staged(cofferdam.store())?;
    ensure!(!small.ensure_intact(cofferdam.store())?.contains(&NEW), "an image appeared");
    ensure!(store::trees(cofferdam.store())?.len() <= 2, "trees of no image are left");
    Ok(())
}

fn succeeds(small: &Small, cofferdam: &Cofferdam) -> Result<()> {
    cofferdam.ok(small.pull(NEW)).context("when the fault was gone")?;
    small.ensure_intact(cofferdam.store())?;
    store::ensure_no_lock_is_left(cofferdam.store())?;
    small.ensure_unpacks(cofferdam, NEW)
}

#[test]
fn too_little_space_is_known_before_a_download_begins() -> Result<()> {
    require!("root", "gzip", "zstd", "docker-registry", "skopeo");
    let small = Small::new(true)?;
    let scratch = Scratch::new()?;
    let cofferdam = Cofferdam::new(scratch.dir("store")?)?;
    let disk = Disk::tmpfs(cofferdam.store(), "size=100k")?;
    let asked = || -> Result<usize> {
        let layers = cofferdam_tests::layout::layers_of(small.layout(), NEW)?;
        let gets = small.registry()?.blob_gets()?;
        Ok(gets.iter().filter(|get| layers.iter().any(|layer| get.path.contains(&layer.digest))).count())
    };
    let run = cofferdam.fails(exit::FAILED, small.pull(NEW))?.has_hint()?;
    ensure!(run.err().contains("needs") && run.err().contains("room for"), "{}", run.err());
    ensure!(run.err().contains("cofferdam gc"), "{}", run.err());
    ensure!(asked()? == 0, "a layer was asked for all the same");
    fails_and_leaves_nothing(&small, &cofferdam, "needs")?;
    disk.remount("size=10m")?;
    succeeds(&small, &cofferdam)?;
    // What is there needs no room.
    disk.remount("size=440k")?;
    cofferdam.ok(small.pull(NEW)).map(drop)
}

/// There is room for the blobs, but not for the trees.
#[test]
fn a_disk_that_fills_up_harms_nothing() -> Result<()> {
    require!("root", "gzip", "zstd");
    let small = Small::new(false)?;
    let scratch = Scratch::new()?;
    let cofferdam = Cofferdam::new(scratch.dir("store")?)?;
    let disk = Disk::tmpfs(cofferdam.store(), "size=10m")?;
    cofferdam.ok(small.pull(OLD))?;
    let mut met = 0;
    // From hardly enough for the blobs up to nearly enough for all.
    for kibibytes in (300..=440).step_by(20) {
        disk.remount(&format!("size={kibibytes}k"))?;
        if cofferdam.run(small.pull(NEW))?.code() == Some(exit::OK) {
            cofferdam.ok(["rm", small.manifest(NEW)])?;
            continue;
        }
        // Again, now with blobs that are there.
        fails_and_leaves_nothing(&small, &cofferdam, "space")?;
        met += 1;
    }
    ensure!(met > 2, "the disk was full {met} times only");
    disk.remount("size=10m")?;
    small.ensure_unpacks(&cofferdam, OLD)?;
    succeeds(&small, &cofferdam)
}

#[test]
fn a_disk_without_inodes_harms_nothing() -> Result<()> {
    require!("root", "gzip", "zstd");
    let small = Small::new(false)?;
    let scratch = Scratch::new()?;
    let cofferdam = Cofferdam::new(scratch.dir("store")?)?;
    let disk = Disk::tmpfs(cofferdam.store(), "size=10m,nr_inodes=1000")?;
    cofferdam.ok(small.pull(OLD))?;
    let mut met = 0;
    for inodes in (44..=72).step_by(4) {
        disk.remount(&format!("nr_inodes={inodes}"))?;
        if cofferdam.run(small.pull(NEW))?.code() == Some(exit::OK) {
            cofferdam.ok(["rm", small.manifest(NEW)])?;
            continue;
        }
        fails_and_leaves_nothing(&small, &cofferdam, "No space left on device")?;
        met += 1;
    }
    ensure!(met > 2, "there were too few inodes {met} times only");
    disk.remount("nr_inodes=1000")?;
    small.ensure_unpacks(&cofferdam, OLD)?;
    succeeds(&small, &cofferdam)
}

/// A real file system, which finds out late: blocks are allocated when they are written back.
#[test]
fn a_full_ext4_harms_nothing() -> Result<()> {
    require!("root", "gzip", "zstd", "mkfs.ext4");
    let small = Small::new(false)?;
    let scratch = Scratch::new()?;
    let cofferdam = Cofferdam::new(scratch.dir("store")?)?;
    let Ok(disk) = Disk::ext4(cofferdam.store(), &scratch.join("disk"), 8 << 20) else {
        require::skip("there are no loop devices");
        return Ok(());
    };
    cofferdam.ok(small.pull(OLD))?;
    let ballast = cofferdam.store().join("ballast");
    // The second one is room for the blobs, but not for the trees.
    for (spare, word) in [(60_u64 << 10, "needs"), (130 << 10, "No space left on device")] {
        let free = rustix::fs::statvfs(cofferdam.store())?;
        let fill = (free.f_bavail * free.f_frsize).saturating_sub(spare);
        fs::write(&ballast, vec![7; usize::try_from(fill)?])?;
        // What was written is allocated when it is on disk.
        fs::File::open(&ballast)?.sync_all()?;
        fails_and_leaves_nothing(&small, &cofferdam, word)?;
        small.ensure_unpacks(&cofferdam, OLD)?;
        fs::remove_file(&ballast)?;
    }
    succeeds(&small, &cofferdam)?;
    drop(disk);
    Ok(())
}

/// However few files it may open: an error, never a panic, and nothing is left half made.
#[test]
fn too_few_open_files_harm_nothing() -> Result<()> {
    require!("root", "gzip", "zstd", "prlimit");
    let small = Small::new(false)?;
    let scratch = Scratch::new()?;
    let mut met = 0;
    for limit in (5..60).step_by(4) {
        let dir = scratch.dir(&limit.to_string())?;
        let plain = Cofferdam::new(dir.join("store"))?;
        plain.ok(small.pull(OLD))?;
        let tight = Cofferdam::new(dir.join("store"))?.by(&["prlimit", &format!("--nofile={limit}")]);
        let run = tight.run(small.pull(NEW))?.expect_one_of(&[exit::OK, exit::FAILED]);
        let run = run.with_context(|| format!("with {limit} files"))?;
        if run.code() == Some(exit::FAILED) {
            met += 1;
            ensure!(run.err().contains("Too many open files"), "with {limit} files: {}", run.err());
            run.has_hint().with_context(|| format!("with {limit} files"))?;
            store::ensure_nothing_staged(plain.store()).with_context(|| format!("with {limit} files"))?;
            ensure!(small.ensure_intact(plain.store())? == [OLD], "with {limit} files: an image was lost, or appeared");
        }
        succeeds(&small, &plain)?;
        small.ensure_unpacks(&plain, OLD)?;
    }
    ensure!(met > 5, "files were too few {met} times only");
    Ok(())
}

/// A user of whom nobody else has a process.
const LONELY: &str = "54321";

/// Ends with success or with an error that says what is short and what helps; and soon. Not by a signal, not by a panic, not by
/// blaming the layer. Says whether it was an error.
fn ends_well(run: cofferdam_tests::Run, words: &[&str]) -> Result<bool> {
    let run = run.expect_one_of(&[exit::OK, exit::FAILED])?;
    ensure!(!run.err().contains("panicked"), "{}", run.err());
    if run.code() == Some(exit::OK) {
        return Ok(false);
    }
    ensure!(words.iter().any(|word| run.err().contains(word)), "not about {words:?}: {}", run.err());
    run.has_hint().map(|_| true)
}

/// The binary with a store that a user can make, and what it is to work on: an image and a layer that everybody can read.
struct Shortage {
    scratch: Scratch,
    image: String,
    layer: String,
    cache: String,
}

impl Shortage {
    fn new() -> Result<Self> {
        let small = Small::new(false)?;
        let scratch = Scratch::new_in(Path::new("/tmp"))?;
        let open = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode));
        open(scratch.path(), 0o755)?;
        let layout = scratch.join("layout");
        cofferdam_tests::registry::run(std::process::Command::new("cp").arg("-r").arg(small.layout()).arg(&layout))?;
        cofferdam_tests::registry::run(std::process::Command::new("chmod").args(["-R", "a+rX"]).arg(&layout))?;
        let layer = scratch.join("layer.tar.gz");
        fs::copy(small.layer(0)?, &layer)?;
        open(&layer, 0o644)?;
        let user = LONELY.parse()?;
        for dir in ["cache", "work"] {
            chown(scratch.dir(dir)?, Some(user), Some(user))?;
        }
        let cache = scratch.join("cache").display().to_string();
        let image = format!("oci:{}:{OLD}", layout.display());
        Ok(Self { image, layer: layer.display().to_string(), cache, scratch })
    }

    /// Runs each kind of verb as that user, by a program that takes something away from it.
    fn run(&self, wrapper: &[&str], mut judge: impl FnMut(cofferdam_tests::Run) -> Result<()>) -> Result<()> {
        // Whatever waits for ever is killed, which is no exit code of ours.
        let user = ["--reuid", LONELY, "--regid", LONELY, "--clear-groups"];
        let wrapper = [&["timeout", "-s", "KILL", "60", "setpriv"], &user[..], wrapper].concat();
        let work = self.scratch.join("work");
        let (store, dest) = (work.join("store"), work.join("dest").display().to_string());
        let cofferdam = Cofferdam::new(&store)?.for_others()?.setting("COFFERDAM_CACHE", &self.cache).by(&wrapper);
        for words in
            [&["layer", "extract", &self.layer, &dest][..], &["pull", &self.image], &["unpack", &self.image, &dest]]
        {
            judge(cofferdam.run(words)?).with_context(|| format!("{wrapper:?} {words:?}"))?;
            for made in [store.as_path(), Path::new(&dest)] {
                if made.exists() && words[0] != "pull" {
                    fs::remove_dir_all(made)?;
                }
            }
        }
        Ok(())
    }
}

/// However few threads it may have.
#[test]
fn too_few_threads_are_an_error() -> Result<()> {
    require!("root", "gzip", "zstd", "prlimit", "setpriv", "timeout");
    let shortage = Shortage::new()?;
    // Guests are compiled before.
    shortage.run(&[], |run| run.expect(exit::OK).map(drop))?;
    let mut met = 0;
    for limit in 1..=9 {
        shortage.run(&["prlimit", &format!("--nproc={limit}")], |run| {
            met += usize::from(ends_well(run, &["start a thread", "wait for signals"])?);
            Ok(())
        })?;
    }
    ensure!(met > 9, "threads were too few {met} times only");
    Ok(())
}

/// However little address space it may have, from what it takes to start at all.
#[test]
fn too_little_address_space_is_an_error() -> Result<()> {
    require!("root", "gzip", "zstd", "prlimit", "setpriv", "timeout");
    let shortage = Shortage::new()?;
    shortage.run(&[], |run| run.expect(exit::OK).map(drop))?;
    let starts = |mebibytes: u64| -> Result<bool> {
        let limit = format!("--as={}", mebibytes << 20);
        let tight = Cofferdam::new(shortage.scratch.join("none"))?.by(&["prlimit", &limit]);
        Ok(tight.run(["--version"])?.code() == Some(exit::OK))
    };
    let (mut too_few, mut enough) = (8_u64, 1024_u64);
    while enough - too_few > 1 {
        let middle = too_few.midpoint(enough);
        *(if starts(middle)? { &mut enough } else { &mut too_few }) = middle;
    }
    let mut met = 0;
    // What starting takes, what threads and engine take, and with one guest's memory but not with two, which is 4 GiB each.
    let more = (0..24).step_by(4).chain([60, 400, 4096 + 150, 8192 + 300]);
    for limit in more.map(|more| (enough + more) << 20) {
        shortage.run(&["prlimit", &format!("--as={limit}")], |run| {
            met += usize::from(ends_well(run, &["memory", "allocate"])?);
            Ok(())
        })?;
    }
    ensure!(met > 15, "there was too little address space {met} times only");
    Ok(())
}

/// A file that may not grow any more is an error of the call that writes, and not a signal.
#[test]
fn files_that_may_not_grow_are_an_error() -> Result<()> {
    require!("root", "gzip", "zstd", "prlimit", "setpriv", "timeout");
    let shortage = Shortage::new()?;
    shortage.run(&[], |run| run.expect(exit::OK).map(drop))?;
    let mut met = 0;
    for limit in [0, 100, 4000, 20_000, 40_000] {
        shortage.run(&["prlimit", &format!("--fsize={limit}")], |run| {
            // Standard error is a file here, too.
            if limit >= 4000 {
                met += usize::from(ends_well(run, &["File too large"])?);
            } else {
                run.expect_one_of(&[exit::OK, exit::FAILED])?;
            }
            Ok(())
        })?;
    }
    ensure!(met > 2, "files were too large {met} times only");
    Ok(())
}

/// Files in memory make guests start faster; where they are forbidden or not there, guests start all the same.
#[test]
fn no_files_in_memory_are_no_error() -> Result<()> {
    let scratch = Scratch::new()?;
    let layer = scratch.join("layer.tar");
    fs::write(&layer, layers::tar(&[Item::File("a", b"b".to_vec())])?)?;
    for (errno, dest) in [(Errno::NOSYS, "none"), (Errno::PERM, "forbidden")] {
        let cofferdam = Cofferdam::new(scratch.join("store"))?.denied(libc::SYS_memfd_create, errno);
        let dest = scratch.join(dest);
        cofferdam.ok(["layer", "extract", &layer.display().to_string(), &dest.display().to_string()])?;
        ensure!(fs::read(dest.join("a"))? == b"b", "{errno}");
    }
    Ok(())
}

/// `sudo -E`: root, with the home directory of a user. Machine code that the user put there is not run, and nothing is made there
/// that is root's.
#[test]
fn the_cache_of_another_user_is_left_alone() -> Result<()> {
    require!("root");
    let scratch = Scratch::new_in(Path::new("/tmp"))?;
    let cofferdam = Cofferdam::new(scratch.join("store"))?;
    for (user, used) in [(NOBODY, false), (0, true)] {
        let home = scratch.dir(&format!("home-{user}"))?;
        chown(&home, Some(user), Some(user))?;
        let guests = || {
            let change = |command: &mut std::process::Command| {
                command.env_remove("COFFERDAM_CACHE").env_remove("XDG_CACHE_HOME").env("HOME", &home);
            };
            cofferdam.spawn_with(["guest", "list", "--json"], change)?.wait()?.expect(exit::OK)
        };
        let said = guests()?.err();
        ensure!(said.matches("WARN").count() == usize::from(!used), "{said}");
        ensure!(said.contains(&home.display().to_string()) != used, "{said}");
        let made = store::list(&home)?;
        ensure!(made.is_empty() != used, "made in the home directory of {user}: {made:?}");
        // One that is there, with what would be run.
        if !used {
            let cache = home.join(".cache/cofferdam");
            fs::create_dir_all(&cache)?;
            guests()?;
            ensure!(
                store::list(&cache)?.is_empty(),
                "something was made in a directory of root's below one of a user's"
            );
        }
    }
    Ok(())
}

#[test]
fn a_store_that_cannot_be_written_to_says_so() -> Result<()> {
    require!("root", "gzip", "zstd");
    let small = Small::new(false)?;
    let scratch = Scratch::new()?;
    let cofferdam = Cofferdam::new(scratch.join("store"))?;
    cofferdam.ok(small.pull(OLD))?;
    let disk = Disk::read_only(cofferdam.store())?;
    for words in [small.pull(NEW), vec!["rm".into(), small.manifest(OLD).into()]] {
        let run = cofferdam.fails(exit::FAILED, &words)?.has_hint()?;
        ensure!(run.err().contains("Read-only file system"), "{words:?}: {}", run.err());
    }
    drop(disk);
    ensure!(small.ensure_intact(cofferdam.store())? == [OLD], "an image was lost, or appeared");
    small.ensure_unpacks(&cofferdam, OLD)?;
    succeeds(&small, &cofferdam)
}

/// As a user who may not: of the store, of one of its directories, of the destination.
#[test]
fn directories_of_others_are_an_error_that_names_them() -> Result<()> {
    require!("root", "gzip", "zstd", "setpriv");
    let small = Small::new(false)?;
    let scratch = Scratch::new_in(Path::new("/tmp"))?;
    fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o755))?;
    // What the user must be able to read: the layout.
    let layout = scratch.join("layout");
    cofferdam_tests::registry::run(std::process::Command::new("cp").arg("-r").arg(small.layout()).arg(&layout))?;
    cofferdam_tests::registry::run(std::process::Command::new("chmod").args(["-R", "a+rX"]).arg(&layout))?;
    let pull = ["pull".to_owned(), format!("oci:{}:{OLD}", layout.display())];
    let home = scratch.dir("home")?;
    chown(&home, Some(NOBODY), Some(NOBODY))?;
    let cache = home.join("cache").display().to_string();
    let user = NOBODY.to_string();
    let cofferdam = Cofferdam::new(home.join("store"))?.for_others()?.setting("COFFERDAM_CACHE", &cache).by(&[
        "setpriv",
        "--reuid",
        &user,
        "--regid",
        &user,
        "--clear-groups",
    ]);
    cofferdam.ok(&pull)?;
    let rooms = store::list(cofferdam.store())?;
    let rooms = rooms.iter().filter(|name| cofferdam.store().join(name).is_dir() && *name != "guests");
    let mut refused = 0;
    for room in rooms.map(String::as_str).chain([""]) {
        let dir = cofferdam.store().join(room);
        chown(&dir, Some(0), Some(0))?;
        let run = cofferdam.fails(exit::FAILED, &pull)?.has_hint().with_context(|| format!("`{room}` of another"))?;
        let word = if room.is_empty() { "store" } else { room };
        ensure!(run.err().contains(word), "not about `{word}`: {}", run.err());
        chown(&dir, Some(NOBODY), Some(NOBODY))?;
        cofferdam.ok(&pull).with_context(|| format!("when `{room}` was theirs again"))?;
        refused += 1;
    }
    ensure!(refused > 5, "only {refused} directories");
    let closed = scratch.dir("closed")?;
    let dest = closed.join("rootfs").display().to_string();
    cofferdam.fails(exit::FAILED, ["unpack", small.manifest(OLD), &dest])?.has_hint()?;
    ensure!(store::list(&closed)?.is_empty() && store::staged(cofferdam.store())?.is_empty(), "something is left");
    cofferdam.ok(["unpack", small.manifest(OLD), &home.join("rootfs").display().to_string()]).map(drop)
}
