//! The command as scripts see it: exit codes, what goes to which stream, JSON, hints.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use cofferdam_tests::cofferdam::exit;
use cofferdam_tests::layers::{self, Item, noise};
use cofferdam_tests::proxy::{Fault, Proxy};
use cofferdam_tests::registry::{Kind, PASSWORD, USER};
use cofferdam_tests::{Cofferdam, OciLayout, Registry, Scratch, Snapshot, require, store};
use rustix::process::Signal;

struct Bench {
    scratch: Scratch,
    cofferdam: Cofferdam,
    layout: OciLayout,
}

/// A store, and a layout with the small image `v1`.
fn bench() -> Result<Bench> {
    let scratch = Scratch::new()?;
    let mut layout = OciLayout::create(scratch.join("layout"))?;
    let lower = layout.add_gzip(&layers::tar(&[
        Item::Dir("bin/"),
        Item::File("bin/tool", b"#!/bin/sh\n".to_vec()),
        Item::File("gone", b"x".to_vec()),
        Item::Hardlink("bin/same", "bin/tool"),
    ])?)?;
    let upper =
        layout.add_tar(&layers::tar(&[Item::File(".wh.gone", Vec::new()), Item::Symlink("link", "bin/tool")])?)?;
    layout.add_image("v1", &[lower, upper])?;
    let cofferdam = Cofferdam::new(scratch.join("store"))?;
    Ok(Bench { scratch, cofferdam, layout })
}

impl Bench {
    fn path(&self, name: &str) -> String {
        self.scratch.join(name).display().to_string()
    }

    fn names(&self, tree: &str) -> Result<Vec<String>> {
        let tree = Snapshot::read(&self.scratch.join(tree))?;
        Ok(tree.entries.keys().map(|name| String::from_utf8_lossy(name).into_owned()).collect())
    }
}

#[test]
fn a_request_that_makes_no_sense_is_2() -> Result<()> {
    let bench = bench()?;
    let layout = bench.layout.source("v1");
    let empty: [&str; 0] = [];
    bench.cofferdam.fails(exit::USAGE, empty)?;
    for line in ["frobnicate", "pull", "pull --no-such-flag x", "unpack", "layer", "layer extract", "guest"] {
        let run = bench.cofferdam.fails(exit::USAGE, line.split(' '))?;
        ensure!(run.stdout.is_empty() && !run.stderr.is_empty(), "`{line}` says so on the wrong stream");
    }
    bench.cofferdam.fails(exit::USAGE, ["unpack", "--strategy", "magic", &layout, &bench.path("out")])?;
    bench.cofferdam.fails(exit::USAGE, ["pull", "Not A Reference"])?;
    bench.cofferdam.fails(exit::USAGE, ["layer", "extract", "--mode", "magic", "a", "b"])?;
    ensure!(!bench.scratch.join("out").exists(), "something was unpacked");
    Ok(())
}

#[test]
fn help_and_version_are_data() -> Result<()> {
    let bench = bench()?;
    for flag in ["--help", "--version"] {
        let run = bench.cofferdam.ok([flag])?;
        ensure!(run.out().contains("cofferdam") && run.stderr.is_empty(), "{flag}: {}{}", run.out(), run.err());
    }
    let help = bench.cofferdam.ok(["--help"])?.out();
    for verb in ["pull", "unpack", "layer", "images", "inspect", "rm", "guest"] {
        ensure!(help.contains(verb), "`{verb}` is not in the help");
    }
    Ok(())
}

#[test]
fn what_does_not_exist_is_3() -> Result<()> {
    let bench = bench()?;
    bench.cofferdam.fails(exit::NOT_FOUND, ["inspect", "example.test/none:1"])?.has_hint()?;
    bench.cofferdam.fails(exit::NOT_FOUND, ["rm", "example.test/none:1"])?;
    bench.cofferdam.fails(exit::NOT_FOUND, ["unpack", "example.test/none:1", &bench.path("out")])?.has_hint()?;
    bench.cofferdam.fails(exit::NOT_FOUND, ["unpack", "oci:/no/such/layout", &bench.path("out")])?;
    bench.cofferdam.fails(exit::NOT_FOUND, ["unpack", &bench.layout.source("v9"), &bench.path("out")])?;
    fs::create_dir(bench.scratch.join("out"))?;
    bench.cofferdam.fails(exit::NOT_FOUND, ["layer", "extract", &bench.path("no-layer"), &bench.path("out")])?;
    store::ensure_holds(&bench.scratch.join("out"), &[])
}

#[test]
fn a_tag_or_platform_that_a_registry_does_not_have_is_3() -> Result<()> {
    require!("gzip", "skopeo", "docker-registry");
    let bench = bench()?;
    let registry = Registry::start(Kind::Plain)?;
    registry.push(&bench.layout.source("v1"), "team/app:1")?;
    for name in ["team/app:2", "team/none:1"] {
        let pull = ["pull", &registry.reference(name), "--plain-http", &registry.host()].map(str::to_owned);
        bench.cofferdam.fails(exit::NOT_FOUND, &pull)?;
    }
    Ok(())
}

#[test]
fn credentials_that_are_missing_or_wrong_are_4() -> Result<()> {
    require!("gzip", "skopeo", "docker-registry");
    let bench = bench()?;
    let registry = Registry::start(Kind::Password)?;
    registry.push(&bench.layout.source("v1"), "team/app:1")?;
    let (image, host) = (registry.reference("team/app:1"), registry.host());
    let pull = ["pull", &image, "--plain-http", &host];
    bench.cofferdam.fails(exit::AUTHENTICATION, pull)?.has_hint()?;
    let wrong = format!("{host}={USER}:wrong");
    let run =
        bench.cofferdam.fails(exit::AUTHENTICATION, pull.iter().copied().chain(["--user", &wrong]))?.has_hint()?;
    ensure!(!run.err().contains("wrong"), "the password is in the message:\n{}", run.err());
    // Credentials of another host are no credentials here, and a host that is spelled wrong is not passed over.
    let elsewhere = format!("example.test={USER}:{PASSWORD}");
    let run = bench.cofferdam.fails(exit::USAGE, pull.iter().copied().chain(["--user", &elsewhere]))?;
    ensure!(run.err().contains("example.test") && !run.err().contains(PASSWORD), "{}", run.err());
    for wrong in [format!("{host}/team={USER}:{PASSWORD}"), format!("{host}:{USER}:{PASSWORD}"), PASSWORD.to_owned()] {
        for json in [&["--json"][..], &[]] {
            let words = pull.iter().chain(json).copied().chain(["--user", &wrong]);
            let run = bench.cofferdam.fails(exit::USAGE, words)?;
            ensure!(!run.err().contains(PASSWORD), "the password is in the message:\n{}", run.err());
        }
    }
    let right = format!("{host}={USER}:{PASSWORD}");
    bench.cofferdam.ok(pull.iter().copied().chain(["--user", &right]))?;
    Ok(())
}

#[test]
fn a_registry_that_does_not_answer_is_5() -> Result<()> {
    let bench = bench()?;
    // The port of a connection's other end: it is taken, so that nobody else gets it, and nobody listens there.
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let taken = TcpStream::connect(listener.local_addr()?)?;
    let host = taken.local_addr()?.to_string();
    let image = format!("{host}/team/app:1");
    bench.cofferdam.fails(exit::NETWORK, ["pull", &image, "--plain-http", &host])?.has_hint()?;
    store::ensure_nothing_staged(bench.cofferdam.store())
}

#[test]
fn transport_security_is_given_up_only_on_request() -> Result<()> {
    require!("gzip", "skopeo", "docker-registry", "openssl");
    let bench = bench()?;
    let tls = Registry::start(Kind::Tls)?;
    tls.push(&bench.layout.source("v1"), "team/app:1")?;
    let image = tls.reference("team/app:1");
    bench.cofferdam.fails(exit::NETWORK, ["pull", &image])?;
    bench.cofferdam.fails(exit::NETWORK, ["pull", &image, "--insecure", "example.test"])?;
    bench.cofferdam.ok(["pull", &image, "--insecure", &tls.host()])?;
    Ok(())
}

#[test]
fn hostile_content_is_7() -> Result<()> {
    let bench = bench()?;
    let layer = bench.scratch.join("layer.tar");
    let dest = bench.scratch.dir("dest")?.display().to_string();
    for name in ["../victim", "a/.wh.", "/../x"] {
        fs::write(&layer, layers::tar(&[Item::File(name, b"x".to_vec())])?)?;
        let run = bench.cofferdam.fails(exit::REFUSED, ["layer", "extract", &bench.path("layer.tar"), &dest])?;
        ensure!(!run.err().is_empty() && run.stdout.is_empty(), "`{name}` was refused without a word");
        ensure!(!bench.scratch.join("victim").exists(), "`{name}` got out");
    }
    // A media type that the bytes do not agree with.
    fs::write(&layer, layers::tar(&[Item::File("a", b"x".to_vec())])?)?;
    let zstd = "application/vnd.oci.image.layer.v1.tar+zstd";
    let run = bench.cofferdam.run(["layer", "extract", "--media-type", zstd, &bench.path("layer.tar"), &dest])?;
    run.expect_one_of(&[exit::INTEGRITY, exit::REFUSED])?;
    Ok(())
}

#[test]
fn a_destination_that_holds_something_stays_as_it_is() -> Result<()> {
    require!("gzip");
    let bench = bench()?;
    let out = bench.scratch.dir("out")?;
    fs::write(out.join("mine"), "precious")?;
    let before = Snapshot::read(&out)?;
    let run = bench.cofferdam.run(["unpack", &bench.layout.source("v1"), &bench.path("out")])?;
    ensure!(run.code().is_some_and(|code| code != 0), "it was unpacked over other files");
    run.has_hint()?;
    cofferdam_tests::tree::ensure_same(("before", &before), ("after", &Snapshot::read(&out)?), |_, _| false)
}

#[test]
fn an_image_goes_in_and_out() -> Result<()> {
    require!("root", "gzip", "skopeo", "docker-registry");
    let bench = bench()?;
    let registry = Registry::start(Kind::Plain)?;
    registry.push(&bench.layout.source("v1"), "team/app:1")?;
    let image = registry.reference("team/app:1");
    bench.cofferdam.ok(["pull", &image, "--plain-http", &registry.host()])?;
    bench.cofferdam.ok(["unpack", &image, &bench.path("rootfs")])?;
    ensure!(bench.names("rootfs")? == ["", "bin", "bin/same", "bin/tool", "link"], "{:?}", bench.names("rootfs")?);
    ensure!(bench.cofferdam.ok(["images"])?.out().contains("team/app"), "not among the images");
    ensure!(bench.cofferdam.ok(["inspect", &image])?.out().contains("sha256:"), "no digest");
    bench.cofferdam.ok(["rm", &image])?;
    ensure!(!bench.cofferdam.ok(["images"])?.out().contains("team/app"), "still among the images");
    bench.cofferdam.fails(exit::NOT_FOUND, ["inspect", &image])?;
    Ok(())
}

/// Standard output holds data and nothing else: it parses as it is, and progress of any kind goes elsewhere.
#[test]
fn json_is_all_there_is_on_stdout() -> Result<()> {
    require!("root", "gzip", "skopeo", "docker-registry");
    let bench = bench()?;
    let registry = Registry::start(Kind::Plain)?;
    registry.push(&bench.layout.source("v1"), "team/app:1")?;
    let image = registry.reference("team/app:1");
    for progress in ["auto", "bar", "plain", "json", "none"] {
        let store = Cofferdam::new(bench.path(&format!("store-{progress}")))?;
        let pull =
            ["pull", "--json", "--progress", progress, &image, "--plain-http", &registry.host()].map(str::to_owned);
        store.ok(&pull)?.json()?;
        let dest = bench.path(&format!("rootfs-{progress}"));
        store.ok(["unpack", "--json", "--progress", progress, &image, &dest])?.json()?;
        for arguments in [&["images"][..], &["inspect", &image], &["guest", "list"]] {
            store.ok(arguments.iter().copied().chain(["--json"]))?.json()?;
        }
    }
    let layer = bench.scratch.join("layer.tar");
    fs::write(&layer, layers::tar(&[Item::File("a", b"x".to_vec())])?)?;
    let list = bench.cofferdam.ok(["layer", "list", "--json", &bench.path("layer.tar")])?.json()?;
    ensure!(list.to_string().contains("\"a\""), "{list}");
    Ok(())
}

#[test]
fn the_three_modes_of_extraction() -> Result<()> {
    require!("root");
    let bench = bench()?;
    let layer = bench.scratch.join("layer.tar");
    fs::write(&layer, layers::tar(&[Item::File("d/new", b"x".to_vec()), Item::File("d/.wh.old", Vec::new())])?)?;
    for (mode, names) in [
        ("apply", &["", "d", "d/new"][..]),
        ("preserve", &["", "d", "d/.wh.old", "d/new"]),
        ("overlay", &["", "d", "d/new", "d/old"]),
    ] {
        let dest = bench.scratch.dir(mode)?;
        if mode == "apply" {
            fs::create_dir(dest.join("d"))?;
            fs::write(dest.join("d/old"), "lower")?;
        }
        bench.cofferdam.ok(["layer", "extract", "--mode", mode, &bench.path("layer.tar"), &bench.path(mode)])?;
        ensure!(bench.names(mode)? == names, "{mode}: {:?}", bench.names(mode)?);
    }
    let marker = Snapshot::read(&bench.scratch.join("overlay"))?.entries[&b"d/old"[..]].clone();
    ensure!(marker.node == cofferdam_tests::tree::Node::CharDevice(0, 0), "{marker:?}");
    Ok(())
}

/// `DEST` may be relative, behind a link, or end in slashes; the umask is not asked.
#[test]
fn the_destination_may_be_spelled_in_any_way() -> Result<()> {
    require!("root", "gzip");
    let bench = bench()?;
    fs::create_dir_all(bench.scratch.join("real"))?;
    std::os::unix::fs::symlink("real", bench.scratch.join("link"))?;
    let image = bench.layout.source("v1");
    for dest in ["relative", "./dot//spelled/", "link/inside"] {
        if let Some(parent) = Path::new(dest).parent().filter(|parent| *parent != Path::new("")) {
            fs::create_dir_all(bench.scratch.join(parent))?;
        }
        let running = bench.cofferdam.spawn_with(["unpack", &image, dest], |command| {
            command.current_dir(bench.scratch.path());
        })?;
        running.wait()?.expect(exit::OK)?;
        ensure!(bench.scratch.join(dest).join("bin/tool").is_file(), "{dest}");
    }
    Ok(())
}

/// Ctrl-C in the middle of a download: exit code 130, and nothing half-done stays.
#[test]
fn an_interrupt_is_130() -> Result<()> {
    require!("gzip", "skopeo", "docker-registry");
    let mut bench = bench()?;
    let layer = bench.layout.add_gzip(&layers::tar(&[Item::File("noise", noise(3, 8_000_000))])?)?;
    bench.layout.add_image("large", std::slice::from_ref(&layer))?;
    let registry = Registry::start(Kind::Plain)?;
    registry.push(&bench.layout.source("large"), "team/large:1")?;
    // A stalled download waits for us for sure.
    let proxy = Proxy::start(&registry.host(), Fault::StallAfter(1_000_000))?;
    let image = format!("{}/team/large:1", proxy.host());
    let mut running = bench.cofferdam.spawn(["pull", &image, "--plain-http", &proxy.host()])?;
    let patience = Instant::now();
    while proxy.faults() == 0 || store::staged(bench.cofferdam.store())?.is_empty() {
        ensure!(!running.has_ended()?, "it ended by itself: {}", running.wait()?.err());
        ensure!(patience.elapsed() < Duration::from_mins(1), "the download does not begin");
        std::thread::sleep(Duration::from_millis(1));
    }
    running.signal(Signal::INT)?;
    running.wait()?.expect(exit::INTERRUPTED)?;
    store::ensure_nothing_staged(bench.cofferdam.store())
}

/// Rule 4 of extraction: how the destination is spelled, the locale and the working directory change nothing.
#[test]
fn a_destination_may_be_spelled_in_any_way() -> Result<()> {
    let scratch = Scratch::new()?;
    let cofferdam = Cofferdam::new(scratch.join("store"))?;
    let layer = scratch.join("layer.tar");
    fs::write(&layer, layers::tar(&[Item::Dir("d"), Item::File("d/f", b"content".to_vec())])?)?;
    let work = scratch.dir("work")?;
    fs::create_dir(work.join("real"))?;
    std::os::unix::fs::symlink("real", work.join("link"))?;
    let mut trees = Vec::new();
    for dest in ["plain", "slashes//", "./dots/.", "../work/up", "link", "link/", "link/../real/."] {
        let words = ["layer".as_ref(), "extract".as_ref(), layer.as_os_str(), dest.as_ref()];
        let run = cofferdam.spawn_with(words, |command| {
            command.current_dir(&work).env("LC_ALL", "tr_TR.UTF-8");
        })?;
        run.wait()?.expect(exit::OK)?;
        trees.push(Snapshot::read(&work.join(dest).join("d"))?);
        ensure!(work.join("link").is_symlink(), "the link was replaced");
        let real = work.join("real/d");
        if dest.contains("link") || dest.contains("real") {
            ensure!(real.join("f").exists(), "`{dest}` led elsewhere");
            fs::remove_dir_all(real)?;
        }
    }
    ensure!(trees.iter().all(|tree| tree.entries.len() == 2 && *tree == trees[0]), "the trees differ");
    Ok(())
}
