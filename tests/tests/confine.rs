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
use cofferdam_tests::small::{NEW, OLD, Small};
use cofferdam_tests::{Cofferdam, Scratch, Snapshot, require, tracer};

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

/// A directory with what passes for a plugin until it is run: its manifest is read, and its component compiled.
fn plugin(scratch: &Scratch) -> Result<String> {
    let dir = scratch.dir("seen")?;
    fs::write(dir.join("plugin.toml"), "name = \"seen\"\nversion = \"1.0.0\"\nworld = \"inspector\"\n")?;
    fs::write(dir.join("seen.wasm"), wat::parse_str("(component)")?)?;
    Ok(dir.display().to_string())
}

/// Every verb that there is, by what `--help` lists.
fn verbs(cofferdam: &Cofferdam, above: &[&str]) -> Result<Vec<String>> {
    let help = cofferdam.ok(above.iter().chain(&["--help"]))?.out();
    let listed = help.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let mut verbs = Vec::new();
    // Behind a name that is too long for its column, the explanation has a line of its own, further in.
    for name in listed.filter(|line| !line.starts_with("   ")).filter_map(|line| line.split_whitespace().next()) {
        let words = [above, &[name]].concat();
        let below = if name == "help" { continue } else { self::verbs(cofferdam, &words)? };
        verbs.extend(if below.is_empty() { vec![words.join(" ")] } else { below });
    }
    Ok(verbs)
}

/// A wall holds for the thread that closes it and for those that it starts later: so there is none before. What a verb comes to does
/// not matter here.
#[test]
fn every_verb_confines_itself_before_its_first_thread() -> Result<()> {
    require!("gzip", "zstd");
    if !tracer::available() || fs::read_to_string("/proc/self/status")?.lines().any(|line| line == "NoNewPrivs:\t1") {
        require::skip("threads cannot be told apart here");
        return Ok(());
    }
    let (small, scratch) = (Small::new(false)?, Scratch::new()?);
    let cofferdam = Cofferdam::new(scratch.join("store"))?;
    cofferdam.ok(small.pull(OLD))?;
    let path = |name: &str| scratch.join(name).display().to_string();
    let (image, new, layer, plugin) = (small.manifest(OLD), small.local(NEW), small.layer(0)?, plugin(&scratch)?);
    let (dest, other, made, packed) = (path("dest"), path("other"), path("made"), path("packed.wasm"));
    let (layer, exported) = (layer.display().to_string(), path("exported"));
    // With the least number of threads that it starts.
    let table: &[(&str, &[&str], usize)] = &[
        ("pull", &[&new], 4),
        ("unpack", &[&new, &dest], 4),
        ("mount-spec", &[image], 1),
        ("images", &[], 0),
        ("inspect", &[image], 0),
        ("tag", &[image, "other:1"], 1),
        ("gc", &["--dry-run"], 0),
        ("df", &[], 0),
        ("fsck", &[], 1),
        ("rm", &["other:1"], 1),
        ("layer extract", &[&layer, &other], 3),
        ("layer list", &[&layer], 3),
        ("layer verify", &[&layer], 3),
        ("guest list", &[], 1),
        ("guest inspect", &[], 1),
        ("guest export", &[&exported], 0),
        ("plugin add", &[&plugin], 1),
        ("plugin list", &[], 0),
        ("plugin inspect", &[&plugin], 1),
        ("plugin grant", &["seen", "--clock"], 1),
        ("plugin revoke", &["seen", "--all"], 1),
        ("plugin rm", &["seen"], 1),
        ("plugin test", &[&plugin, "--all-asked"], 1),
        ("plugin new", &["--world", "inspector", &made], 0),
        ("plugin pack", &[&plugin, "-o", &packed], 0),
        ("limits", &[], 0),
        ("completions", &["bash"], 0),
    ];
    for verb in verbs(&cofferdam, &[])? {
        ensure!(table.iter().any(|(listed, ..)| *listed == verb), "`{verb}` is not in the table: add it");
    }
    for (verb, words, least) in table {
        let threads = cofferdam.threads(verb.split(' ').chain(words.iter().copied()))?;
        let said = || format!("{verb}: {} threads\n{}", threads.started, threads.run.err());
        ensure!(threads.unconfined.is_empty(), "not confined: {:?}\n{}", threads.unconfined, said());
        ensure!(threads.started >= *least, "{}", said());
    }
    Ok(())
}

/// Who requires the wall wants nothing to be done without: not even the directories to be made that the wall would be around.
#[test]
fn where_a_required_wall_cannot_be_nothing_is_made() -> Result<()> {
    require!("gzip", "zstd");
    let (small, scratch) = (Small::new(false)?, Scratch::new()?);
    let room = scratch.dir("room")?;
    let path = |name: &str| room.join(name).display().to_string();
    let cofferdam = Cofferdam::new(room.join("store"))?
        .setting("COFFERDAM_CACHE", &path("cache/below"))
        .denied(libc::SYS_landlock_create_ruleset, rustix::io::Errno::NOSYS);
    let (new, layer, plugin) = (small.local(NEW), small.layer(0)?.display().to_string(), plugin(&scratch)?);
    let (dest, packed) = (path("dest"), path("packed.wasm"));
    for words in [
        &["pull", &new][..],
        &["unpack", &new, &dest],
        &["mount-spec", "a:1"],
        &["images"],
        &["gc"],
        &["fsck"],
        &["layer", "extract", &layer, &dest],
        &["layer", "list", &layer],
        &["guest", "list"],
        &["guest", "export", &dest],
        &["plugin", "add", &plugin],
        &["plugin", "test", &plugin, "--write", "--all-asked"],
        &["plugin", "new", "--world", "inspector", &dest],
        &["plugin", "pack", &plugin, "-o", &packed],
    ] {
        let run = cofferdam.fails(exit::REFUSED, ["--confine", "require"].iter().chain(words))?;
        ensure!(run.err().contains("the confinement"), "{words:?}: {}", run.err());
        ensure!(fs::read_dir(&room)?.next().is_none(), "{words:?} made something");
    }
    // Without the word, what the kernel lacks is done without.
    cofferdam.ok(["layer", "extract", &layer, &dest]).map(drop)
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
