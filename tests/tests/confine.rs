//! The second wall: what a tree writer that does wrong can still reach when the process is confined, and that the command
//! confines itself before it reads anything.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use cofferdam::ambient;
use cofferdam::confine::{Confinement, Enforced};
use cofferdam_tests::cofferdam::exit;
use cofferdam_tests::layers::{self, Item};
use cofferdam_tests::{Cofferdam, Scratch, Snapshot, require};

/// Where the broken writer is told what to break.
const LAB: &str = "BROKEN_WRITER_LAB";
/// A port on which somebody listens.
const PORT: &str = "BROKEN_WRITER_PORT";

/// Whether the kernel has a Landlock that can be used: asked with a confinement of a thread that then ends.
fn has_landlock() -> bool {
    let enforced = std::thread::spawn(|| Confinement::new().enforce()).join();
    let has = matches!(enforced, Ok(Ok(Enforced::Fully | Enforced::Partly)));
    if !has {
        require::skip("this kernel has no Landlock of version 2 or later");
    }
    has
}

/// Something that a broken writer does.
type Attempt = (String, Box<dyn Fn() -> io::Result<()>>);

/// What a writer does that forgot all about roots: each by an absolute path, and through a link that a layer planted.
fn attempts(lab: &Path, port: u16) -> Vec<Attempt> {
    let (dest, victim) = (lab.join("dest"), lab.join("victim"));
    let planted = dest.join("planted");
    let mut all: Vec<Attempt> = Vec::new();
    for (way, victim) in [("by its path", &victim), ("through a link", &planted)] {
        let mut attempt = |what: &str, act: fn(&Path, &Path) -> io::Result<()>| {
            let (victim, dest) = (victim.clone(), dest.clone());
            all.push((format!("{what} {way}"), Box::new(move || act(&victim, &dest))));
        };
        attempt("read", |victim, _| fs::read(victim.join("hello")).map(drop));
        attempt("list", |victim, _| fs::read_dir(victim).map(drop));
        attempt("write", |victim, _| OpenOptions::new().write(true).open(victim.join("hello")).map(drop));
        attempt("append", |victim, _| OpenOptions::new().append(true).open(victim.join("hello")).map(drop));
        attempt("truncate", |victim, _| truncate(&victim.join("hello")));
        attempt("create", |victim, _| File::create_new(victim.join("new")).map(drop));
        attempt("make a directory", |victim, _| fs::create_dir(victim.join("new")));
        attempt("make a link", |victim, _| symlink("x", victim.join("new")));
        attempt("make a pipe", |victim, _| pipe(&victim.join("new")));
        attempt("remove", |victim, _| fs::remove_file(victim.join("hello")));
        attempt("remove a directory", |victim, _| fs::remove_dir(victim.join("empty")));
        attempt("rename inside", |victim, _| fs::rename(victim.join("hello"), victim.join("new")));
        attempt("rename out of the tree", |victim, dest| fs::rename(dest.join("own"), victim.join("new")));
        attempt("rename into the tree", |victim, dest| fs::rename(victim.join("hello"), dest.join("new")));
        attempt("link out of the tree", |victim, dest| fs::hard_link(dest.join("own"), victim.join("new")));
        attempt("link into the tree", |victim, dest| fs::hard_link(victim.join("hello"), dest.join("new")));
    }
    all.push(("connect".into(), Box::new(move || TcpStream::connect(("127.0.0.1", port)).map(drop))));
    all.push(("listen".into(), Box::new(|| TcpListener::bind("127.0.0.1:0").map(drop))));
    all.push(("run a program".into(), Box::new(|| Command::new("/bin/true").status().map(drop))));
    all
}

/// A destination with a link that leads out, and a victim beside it.
fn furnish(lab: &Path) -> Result<()> {
    for dir in ["dest", "victim"] {
        let _ = fs::remove_dir_all(lab.join(dir));
        fs::create_dir(lab.join(dir))?;
    }
    fs::create_dir(lab.join("victim/empty"))?;
    fs::write(lab.join("victim/hello"), "untouched")?;
    fs::write(lab.join("dest/own"), "own")?;
    Ok(symlink("../victim", lab.join("dest/planted"))?)
}

fn truncate(path: &Path) -> io::Result<()> {
    let path = std::ffi::CString::new(path.as_os_str().as_encoded_bytes())?;
    #[expect(unsafe_code, reason = "neither std nor rustix truncates by path")]
    // SAFETY: the path is a live string that ends with a NUL.
    let done = unsafe { libc::truncate(path.as_ptr(), 0) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn pipe(path: &Path) -> io::Result<()> {
    Ok(rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0)?)
}

/// The program of the test below, in a process of its own.
#[test]
#[ignore = "started by another test"]
fn broken_writer() -> Result<()> {
    let Some(lab) = std::env::var_os(LAB).map(PathBuf::from) else { return Ok(()) };
    let port = std::env::var(PORT)?.parse()?;
    let dest = lab.join("dest");
    // As `layer extract` does it.
    Confinement::new().write(ambient::open_dest(&dest)?)?.enforce()?;
    for (what, act) in attempts(&lab, port) {
        let outcome = act();
        let denied = outcome.as_ref().is_err_and(|error| {
            // A rename or link between directories is denied as one between file systems is.
            matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::CrossesDevices)
        });
        ensure!(denied, "{what}: {outcome:?}");
    }
    // What it is for still works.
    fs::create_dir_all(dest.join("a/b"))?;
    fs::write(dest.join("a/file"), "content")?;
    fs::hard_link(dest.join("a/file"), dest.join("a/b/same"))?;
    fs::rename(dest.join("a/file"), dest.join("a/b/moved"))?;
    truncate(&dest.join("a/b/moved"))?;
    pipe(&dest.join("a/pipe"))?;
    fs::remove_dir_all(dest.join("a"))?;
    println!("the wall held");
    Ok(())
}

#[test]
fn a_broken_tree_writer_is_stopped() -> Result<()> {
    if !has_landlock() {
        return Ok(());
    }
    let scratch = Scratch::new()?;
    let lab = scratch.path();
    furnish(lab)?;
    let before = Snapshot::read(&lab.join("victim"))?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let output = Command::new(std::env::current_exe()?)
        .args(["--exact", "broken_writer", "--ignored", "--nocapture"])
        .env(LAB, lab)
        .env(PORT, listener.local_addr()?.port().to_string())
        .output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success() && said.contains("the wall held"), "{said}\n{:?}", output.stderr.escape_ascii());
    ensure!(Snapshot::read(&lab.join("victim"))? == before, "the victim was changed");
    ensure!(fs::read(lab.join("dest/own"))? == b"own", "what was to be moved out is gone");
    // Without the wall the same writer does all of it.
    for (what, act) in attempts(lab, listener.local_addr()?.port()) {
        furnish(lab)?;
        act().with_context(|| what)?;
    }
    Ok(())
}

/// Until the first byte of a layer comes, the command waits behind its wall.
#[test]
fn the_command_is_confined_before_it_reads() -> Result<()> {
    if !has_landlock() {
        return Ok(());
    }
    let scratch = Scratch::new()?;
    let cofferdam = Cofferdam::new(scratch.join("store"))?;
    if fs::read_to_string("/proc/self/status")?.lines().any(|line| line == "NoNewPrivs:\t1") {
        require::skip("new privileges are given up already, so that nothing can be seen");
        return Ok(());
    }
    for verb in [&["layer", "list", "-"][..], &["layer", "verify", "-"], &["layer", "extract", "-", "DEST"]] {
        let dest = scratch.join("dest").display().to_string();
        let words = verb.iter().map(|word| if *word == "DEST" { dest.as_str() } else { *word });
        let mut child =
            cofferdam.command(words)?.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let status = PathBuf::from(format!("/proc/{}/status", child.id()));
        let start = Instant::now();
        // The kernel shows no more of it than this: confining oneself takes giving up new privileges first.
        let confined = loop {
            if fs::read_to_string(&status)?.lines().any(|line| line == "NoNewPrivs:\t1") {
                break true;
            }
            if start.elapsed() > Duration::from_secs(30) {
                break false;
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        let mut stdin = child.stdin.take().context("no standard input")?;
        let written = stdin.write_all(&layers::tar(&[Item::File("a", b"b".to_vec())])?);
        drop(stdin);
        let ended = child.wait()?;
        ensure!(confined, "{verb:?} waits for its layer without a wall");
        ensure!(written.is_ok() && ended.success(), "{verb:?} ended with {ended}");
    }
    Ok(())
}

#[test]
fn whether_to_confine_is_the_users_choice() -> Result<()> {
    if !has_landlock() {
        return Ok(());
    }
    let scratch = Scratch::new()?;
    let cofferdam = Cofferdam::new(scratch.join("store"))?;
    let layer = scratch.join("layer.tar");
    fs::write(&layer, layers::tar(&[Item::File("a", b"b".to_vec())])?)?;
    let layer = layer.display().to_string();
    for (mode, confined) in [("auto", true), ("require", true), ("off", false)] {
        let run = cofferdam.run(["-v", "--confine", mode, "layer", "list", &layer])?.expect_one_of(&[exit::OK])?;
        ensure!(run.err().contains("confined by Landlock") == confined, "{mode}: {}", run.err());
    }
    Ok(())
}
