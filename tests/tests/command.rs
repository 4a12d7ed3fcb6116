//! The command guest under the real `wasmtime`: what it lists, makes, verifies and refuses, beside what `cofferdam` does.
//!
//! What WASI has no words for is left out of every comparison; `conformance/wasi.rs` says what that is.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::{Context as _, Result, ensure};
use cofferdam_tests::bombs::gzip_zeros;
use cofferdam_tests::cofferdam::exit;
use cofferdam_tests::conformance::{self, Lab, Verdict, Way, wasi::expressible_snapshot};
use cofferdam_tests::layers::{self, Item};
use cofferdam_tests::tree::{Field, Snapshot, ensure_same};
use cofferdam_tests::wasi::Wasi;
use cofferdam_tests::{Cofferdam, Images, Run, Scratch, require};

/// A directory with layers, one to extract to, and one beside it.
struct Bench {
    wasi: Wasi,
    scratch: Scratch,
}

impl Bench {
    fn new() -> Result<Option<Self>> {
        let Some(wasi) = Wasi::new()? else { return Ok(None) };
        let scratch = Scratch::new()?;
        for name in ["in", "out"] {
            scratch.dir(name)?;
        }
        fs::create_dir_all(scratch.join("out/victim"))?;
        fs::write(scratch.join("out/victim/hello"), "untouched")?;
        Ok(Some(Self { wasi, scratch }))
    }

    fn layer(&self, name: &str, bytes: &[u8]) -> Result<()> {
        Ok(fs::write(self.scratch.join("in").join(name), bytes)?)
    }

    fn dest(&self) -> PathBuf {
        self.scratch.join("out/dest")
    }

    fn run(&self, words: &[&str]) -> Result<Run> {
        self.wasi.run(&[(&self.scratch.join("in"), "/in"), (&self.scratch.join("out"), "/out")], words)
    }

    /// Runs it on a layer that lies somewhere else.
    fn run_at(&self, layer: &Path, words: impl FnOnce(&str) -> Vec<String>) -> Result<Run> {
        let name = layer.file_name().and_then(|name| name.to_str()).context("a strange name")?;
        let words = words(&format!("/in/{name}"));
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        let grants = [(layer.parent().context("a root")?, "/in"), (&*self.scratch.join("out"), "/out")];
        self.wasi.run(&grants, &words)
    }
}

fn owned(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

#[test]
fn it_lists_what_the_host_lists() -> Result<()> {
    const LAYERS: [&str; 6] =
        ["edit.tar", "edit.tar.gz", "edit.tar.zst", "opq.tar.gz", "quirk.tar.gz", "python.long27.tar.zst"];
    let (Some(bench), Some(images)) = (Bench::new()?, Images::with(&LAYERS)?) else { return Ok(()) };
    let cofferdam = Cofferdam::new(bench.scratch.join("store"))?;
    for name in LAYERS {
        let layer = images.layer(name)?;
        let ours = bench.run_at(&layer.path, |path| owned(&["list", path, "--diff-id", &layer.diff_id]))?.expect(0)?;
        let hosts = cofferdam.ok(["layer", "list", &*layer.path.to_string_lossy()])?;
        ensure!(!ours.stdout.is_empty() && ours.stdout == hosts.stdout, "{name} is listed otherwise");
    }
    Ok(())
}

/// Real layers, one on the other: what `cofferdam layer extract` makes, but for what WASI cannot say.
#[test]
fn it_makes_the_trees_of_real_layers() -> Result<()> {
    let stacks: [&[&str]; 2] = [&["base.tar.gz", "edit.tar.zst", "opq.tar.gz", "quirk.tar.gz"], &["python.tar.zst"]];
    let (Some(bench), Some(images)) = (Bench::new()?, Images::with(&stacks.concat())?) else { return Ok(()) };
    require!("root");
    let cofferdam = Cofferdam::new(bench.scratch.join("store"))?;
    for (index, stack) in stacks.into_iter().enumerate() {
        let (ours, hosts) = (format!("out/ours-{index}"), bench.scratch.join(format!("hosts-{index}")));
        for name in stack {
            let layer = images.layer(name)?;
            let run = bench.run_at(&layer.path, |path| {
                owned(&["extract", "--diff-id", &layer.diff_id, path, &format!("/{ours}")])
            })?;
            let run = run.expect(exit::OK)?;
            ensure!(run.out().contains(&layer.diff_id), "{}", run.out());
            ensure!(run.err().contains("left out: owners and modes"), "{}", run.err());
            cofferdam.ok(["layer", "extract", &*layer.path.to_string_lossy(), &*hosts.to_string_lossy()])?;
        }
        let ours = Snapshot::read(&bench.scratch.join(ours))?;
        let hosts = expressible_snapshot(Snapshot::read(&hosts)?);
        ensure!(hosts.entries.len() > 1000, "only {} entries", hosts.entries.len());
        // No layer lists the root of the second stack.
        ensure_same(("ours", &ours), ("the host's", &hosts), |path, field| {
            matches!(field, Field::Mode | Field::Owner | Field::Xattrs) || (path.is_empty() && field == Field::Mtime)
        })?;
        println!("{}: {} entries compared", stack.join(" + "), ours.entries.len());
    }
    Ok(())
}

/// The whole corpus: every scenario's layers applied in their order, and the last one preserved, where the destination's
/// neighbours are within reach of the WASI host.
#[test]
fn it_keeps_to_the_corpus() -> Result<()> {
    if Wasi::new()?.is_none() {
        return Ok(());
    }
    let names = conformance::names()?;
    let (next, failures) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let counts = Mutex::new(BTreeMap::<&str, (usize, usize)>::new());
    let note = |way: Way, name: &str, verdict: Result<Verdict>| {
        let mut counts = counts.lock().unwrap();
        let (passed, not_applicable) = counts.entry(way.name()).or_default();
        match verdict {
            Ok(Verdict::Passed) => *passed += 1,
            Ok(Verdict::NotApplicable(why)) => {
                *not_applicable += 1;
                println!("{name} by {}: {}", way.name(), why.lines().next().unwrap_or_default());
            }
            Ok(Verdict::Failed(why)) => failures.lock().unwrap().push(format!("{name} by {}: {why}", way.name())),
            Err(error) => failures.lock().unwrap().push(format!("{name} by {}: {error:#}", way.name())),
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                while let Some(name) = names.get(next.fetch_add(1, Ordering::Relaxed)) {
                    for way in [Way::Wasi, Way::WasiPreserve] {
                        note(way, name, Lab::new(name, way).and_then(|lab| lab.run()));
                    }
                }
            });
        }
    });
    let counts = counts.into_inner().unwrap();
    for (way, (passed, not_applicable)) in &counts {
        println!("{way}: {passed} of {} scenarios hold, {not_applicable} cannot be expressed", names.len());
        ensure!(*not_applicable < 10 && *passed + *not_applicable > 500, "too few are compared");
    }
    let failures = failures.into_inner().unwrap();
    ensure!(failures.is_empty(), "{} do not hold:\n{}", failures.len(), failures.join("\n"));
    Ok(())
}

#[test]
fn it_verifies() -> Result<()> {
    let Some(bench) = Bench::new()? else { return Ok(()) };
    require!("gzip", "zstd");
    let tar = layers::tar(&[Item::Dir("d/"), Item::File("d/f", layers::noise(1, 300_000))])?;
    let (right, wrong) = (layers::digest(&tar), layers::digest(b"another"));
    bench.layer("plain", &tar)?;
    bench.layer("gzip", &layers::gzip(&tar)?)?;
    bench.layer("zstd", &layers::compress("zstd", &["-q", "-c"], &tar)?)?;
    for name in ["/in/plain", "/in/gzip", "/in/zstd"] {
        let run = bench.run(&["verify", name])?.expect(exit::OK)?;
        ensure!(run.out() == format!("{right} ({} bytes decoded)\n", tar.len()), "{}", run.out());
        bench.run(&["verify", "--diff-id", &right, name])?.expect(exit::OK)?;
        for words in [&["verify", name][..], &["list", name], &["extract", name, "/out/dest"]] {
            let run = bench.run(&[words, &["--diff-id", &wrong]].concat())?.expect(exit::INTEGRITY)?;
            ensure!(run.err().contains(&right) && run.err().contains(&wrong), "{}", run.err());
            fs::remove_dir_all(bench.dest()).or_else(
                |error| {
                    if words[0] == "extract" { Err(error) } else { Ok(()) }
                },
            )?;
        }
    }
    let layer = File::open(bench.scratch.join("in/gzip"))?;
    let run = bench.wasi.run_on(Stdio::from(layer), &[], &["verify", "--diff-id", &right, "-"])?;
    run.expect(exit::OK)?;
    Ok(())
}

#[test]
fn broken_streams_are_found() -> Result<()> {
    let Some(bench) = Bench::new()? else { return Ok(()) };
    require!("gzip", "zstd");
    let tar = layers::tar(&[Item::File("f", layers::noise(2, 50_000)), Item::Dir("d/")])?;
    for whole in [layers::gzip(&tar)?, layers::compress("zstd", &["-q", "--check", "-c"], &tar)?] {
        let mut broken: Vec<Vec<u8>> = Vec::new();
        broken.extend([1, 9, 30_000].map(|cut| whole[..whole.len() - cut].to_vec()));
        broken.extend([20, 25_000, whole.len() - 2].map(|at| {
            let mut flipped = whole.clone();
            flipped[at] ^= 0x10;
            flipped
        }));
        broken.push([&whole[..], b"garbage"].concat());
        for (index, bytes) in broken.iter().enumerate() {
            bench.layer("broken", bytes)?;
            for words in
                [&["verify", "/in/broken"][..], &["list", "/in/broken"], &["extract", "/in/broken", "/out/dest"]]
            {
                let run = bench.run(words)?.expect(exit::INTEGRITY).with_context(|| format!("number {index}"))?;
                ensure!(run.err().starts_with("error: "), "{}", run.err());
            }
        }
    }
    bench.layer("broken", &tar[..tar.len() - 30_000])?;
    bench.run(&["list", "/in/broken"])?.expect_one_of(&[exit::INTEGRITY, exit::REFUSED])?;
    Ok(())
}

/// Beside the destination lies what the WASI host would let it write to.
#[test]
fn hostile_layers_reach_nothing_outside() -> Result<()> {
    let Some(bench) = Bench::new()? else { return Ok(()) };
    let file = |name| Item::File(name, b"evil".to_vec());
    let layers: [(&[Item], i32); 9] = [
        (&[file("../victim/hello")], exit::REFUSED),
        (&[file("/../victim/new")], exit::REFUSED),
        (&[Item::Dir("..")], exit::REFUSED),
        (&[Item::Symlink("out", "../victim"), file("out/hello")], exit::OK),
        (&[Item::Symlink("l", "/out/victim"), file("l/hello")], exit::OK),
        (&[Item::Symlink("out", "../victim"), Item::Hardlink("h", "out/hello")], exit::REFUSED),
        (&[Item::Hardlink("h", "../victim/hello")], exit::REFUSED),
        (&[Item::Symlink("out", "../victim"), file("out/.wh.hello"), file("out/.wh..wh..opq")], exit::OK),
        (&[Item::Symlink("a", "b"), Item::Symlink("b", "a"), file("a/x")], exit::REFUSED),
    ];
    for (index, (items, code)) in layers.into_iter().enumerate() {
        // A marker is empty.
        let items: Vec<Item> = items
            .iter()
            .map(|item| match item {
                Item::File(name, _) if name.contains(".wh.") => Item::File(name, Vec::new()),
                other => other.clone(),
            })
            .collect();
        bench.layer("layer", &layers::tar(&items)?)?;
        // Something to remove below, so that markers are not void.
        fs::create_dir_all(bench.dest().join("lower"))?;
        for grant in ["out", "out/dest"] {
            let granted = bench.scratch.join(grant);
            let dest = if grant == "out" { "/out/dest" } else { "/out" };
            let grants = [(&*bench.scratch.join("in"), "/in"), (&*granted, "/out")];
            let run = bench.wasi.run(&grants, &["extract", "/in/layer", dest])?;
            run.expect(code).with_context(|| format!("layer {index} with {grant}"))?;
            let left: Vec<_> = fs::read_dir(bench.scratch.join("out"))?.collect::<Result<_, _>>()?;
            ensure!(left.len() == 2 && fs::read_dir(bench.scratch.join("out/victim"))?.count() == 1, "{left:?}");
            ensure!(fs::read(bench.scratch.join("out/victim/hello"))? == b"untouched", "layer {index} wrote outside");
        }
        fs::remove_dir_all(bench.dest())?;
    }
    Ok(())
}

#[test]
fn what_is_not_granted_is_not_there() -> Result<()> {
    let Some(bench) = Bench::new()? else { return Ok(()) };
    bench.layer("layer", &layers::tar(&[Item::Dir("d/")])?)?;
    std::os::unix::fs::symlink("../out/victim/hello", bench.scratch.join("in/leads-out"))?;
    let input = bench.scratch.join("in");
    for (grants, words) in [
        (&[][..], &["list", "/in/layer"][..]),
        (&[(&*input, "/in")], &["list", "/in/none"]),
        (&[(&*input, "/in")], &["list", "/in/leads-out"]),
        (&[(&*input, "/in")], &["extract", "/in/layer", "/out/dest"]),
        (&[(&*input, "/in")], &["extract", "/in/layer", "/in/../out"]),
    ] {
        let run = bench.wasi.run(grants, words)?.expect(exit::NOT_FOUND)?.has_hint()?;
        ensure!(run.err().contains("--dir"), "{}", run.err());
    }
    for words in
        [&[][..], &["list"], &["extract", "/in/layer"], &["list", "--mode", "apply", "/in/layer"], &["list", "/in"]]
    {
        bench.run(words)?.expect(exit::USAGE)?;
    }
    // Preserved markers want a directory that holds nothing.
    bench.run(&["extract", "--mode", "preserve", "/in/layer", "/out"])?.expect(exit::USAGE)?;
    bench.run(&["extract", "--mode", "overlay", "/in/layer", "/out/dest"])?.expect(exit::USAGE)?;
    Ok(())
}

/// Each limit, crossed by a small layer, and named in what is said about it.
#[test]
fn limits_hold() -> Result<()> {
    let Some(bench) = Bench::new()? else { return Ok(()) };
    require!("gzip", "zstd");
    let file = |name| Item::File(name, b"content".to_vec());
    let chain = [Item::Symlink("a", "b"), Item::Symlink("b", "c"), Item::Symlink("c", "d"), file("a/x")];
    let waiting = [Item::Hardlink("link", "target"), file("target")];
    for (setting, items) in [
        ("layer-bytes=1K", &[file("a"), file("b")][..]),
        ("entries=1", &[file("a"), file("b")]),
        ("file-bytes=6", &[file("a")]),
        ("implied-directories=1", &[file("a/b/c/d/e")]),
        ("link-hops=2", &chain),
        (
            "link-steps=0",
            &[
                Item::Symlink("a", "b/b/b/b/b/b/b/b/b/b/b/b/b/b/b/b/b/b/b/b/b/b/b/b/b/b/b/b/b/b/b/b/b/b/b/b/b"),
                file("a/x"),
            ],
        ),
        ("deferred-bytes=100", &waiting),
        ("path-bytes=5", &[file("longer")]),
        ("component-bytes=5", &[file("longer")]),
        ("depth=2", &[file("a/b/c")]),
    ] {
        bench.layer("layer", &layers::tar(items)?)?;
        bench.run(&["extract", "/in/layer", "/out/dest"])?.expect(exit::OK).context(setting)?;
        fs::remove_dir_all(bench.dest())?;
        let run = bench.run(&["extract", "--limit", setting, "/in/layer", "/out/dest"])?.expect(exit::REFUSED);
        let run = run.context(setting)?;
        let name = setting.split('=').next().unwrap_or_default();
        let is_named = run.err().contains(name) || matches!(name, "path-bytes" | "component-bytes" | "depth");
        ensure!(is_named, "{setting}: {}", run.err());
        let _ = fs::remove_dir_all(bench.dest());
    }
    let noise = layers::tar(&[Item::File("f", layers::noise(3, 3 << 20))])?;
    bench.layer("zstd", &layers::compress("zstd", &["-q", "-c", "--long=24"], &noise)?)?;
    bench.run(&["verify", "--limit", "zstd-window=1MiB", "/in/zstd"])?.expect(exit::REFUSED)?;
    // However well a small blob compresses.
    bench.layer("zeros", &layers::gzip(&layers::tar(&[Item::File("f", vec![0; 3 << 20])])?)?)?;
    for words in [&["list"][..], &["verify"]] {
        let words = [words, &["--limit", "ratio-from=1MiB", "--limit", "ratio=10", "/in/zeros"]].concat();
        bench.run(&words)?.expect(exit::REFUSED)?.has_hint()?;
    }
    Ok(())
}

/// Ten GiB of zeros in ten MB, as one refuses them with no option at all.
#[test]
fn bombs_are_refused() -> Result<()> {
    let Some(bench) = Bench::new()? else { return Ok(()) };
    require!("gzip");
    for in_a_file in [false, true] {
        gzip_zeros(&bench.scratch.join("in/zeros"), in_a_file)?;
        let run = bench.run(&["list", "/in/zeros"])?.expect(exit::REFUSED)?;
        ensure!(run.err().contains("crosses the limit"), "{}", run.err());
        ensure!(run.usage.peak_rss < 512 << 20, "{} bytes of memory", run.usage.peak_rss);
    }
    Ok(())
}
