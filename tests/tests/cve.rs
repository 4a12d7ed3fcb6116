//! Known mechanisms of attack that no layer alone can show, each test named after the advisories that describe it; and a
//! list of all of them, each of which must have a test, here or anywhere. Those of layers are in `tests/conformance/cve/`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use cofferdam_tests::cofferdam::{binary, exit};
use cofferdam_tests::layers::{self, Item};
use cofferdam_tests::layout::TAR;
use cofferdam_tests::{Cofferdam, OciLayout, Run, Scratch, Snapshot, paths, require, store};
use serde_json::{Value, json};

/// Every identifier of the contract's third section.
const ADVISORIES: [&str; 52] = [
    "CVE-2014-9356",
    "CVE-2014-9357",
    "CVE-2014-9358",
    "CVE-2017-14992",
    "CVE-2018-15664",
    "CVE-2018-20990",
    "CVE-2019-14271",
    "CVE-2021-21272",
    "CVE-2021-29136",
    "CVE-2021-32760",
    "CVE-2021-38511",
    "CVE-2021-41091",
    "CVE-2022-2879",
    "CVE-2024-3727",
    "CVE-2024-25621",
    "CVE-2025-4517",
    "CVE-2025-47290",
    "CVE-2025-58183",
    "CVE-2025-62518",
    "CVE-2026-11940",
    "CVE-2026-17106",
    "CVE-2026-32288",
    "CVE-2026-32766",
    "CVE-2026-33055",
    "CVE-2026-33056",
    "CVE-2026-41567",
    "CVE-2026-46703",
    "CVE-2026-47218",
    "CVE-2026-50163",
    "CVE-2026-53486",
    "CVE-2026-53655",
    "CVE-2026-59874",
    "CVE-2026-59875",
    "CVE-2026-95838",
    "CVE-2026-95839",
    "GHSA-3pv8-6f4r-ffg2",
    "GHSA-3wgq-wrwc-vqmv",
    "GHSA-697p-8837-37h3",
    "GHSA-7pxx-6hq6-x3jj",
    "GHSA-f689-h8m7-3jp2",
    "GHSA-g3rx-2m58-rr63",
    "GHSA-gcpm-8w8q-gp9v",
    "GHSA-m9f7-9w4p-gv38",
    "GHSA-vgfc-2cjj-9qwc",
    "GHSA-vqjp-4c8c-hfgg",
    "RUSTSEC-2026-0112",
    "RUSTSEC-2026-0113",
    "RUSTSEC-2026-0145",
    "boxlite: owners truncated",
    "containerd 0205398ac",
    "moby#53299",
    "nbc#85",
];

#[test]
fn every_advisory_has_a_test_of_its_name() -> Result<()> {
    let names = test_names()?;
    // Else nothing was found because nothing was read.
    ensure!(names.contains(&plain("every_advisory_has_a_test_of_its_name")), "this test is not among the tests");
    let without: Vec<_> = ADVISORIES.iter().filter(|id| !names.iter().any(|name| holds(name, &plain(id)))).collect();
    ensure!(without.is_empty(), "no test is named after {without:?}");
    ensure!(!names.iter().any(|name| holds(name, "cve_1999_1")), "names are compared wrongly");
    Ok(())
}

/// Whether a name holds an identifier that does not go on in it: `cve_2022_2879` is not in `cve_2022_28790`.
fn holds(name: &str, id: &str) -> bool {
    name.match_indices(id).any(|(at, _)| {
        let before = name[..at].chars().next_back();
        let after = name[at + id.len()..].chars().next();
        [before, after].into_iter().flatten().all(|c| !c.is_ascii_alphanumeric())
    })
}

/// In lower case, words joined by `_`.
fn plain(text: &str) -> String {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join("_").to_ascii_lowercase()
}

/// The names of all scenarios and of all functions under `#[test]`.
fn test_names() -> Result<BTreeSet<String>> {
    let mut names: BTreeSet<_> = cofferdam_tests::conformance::names()?.iter().map(|name| plain(name)).collect();
    let root = paths::workspace();
    let mut todo: Vec<PathBuf> = ["host/src", "guests", "tests/src", "tests/tests"].map(|dir| root.join(dir)).into();
    while let Some(path) = todo.pop() {
        if path.is_dir() {
            for name in store::list(&path)?.iter().filter(|name| *name != "target") {
                todo.push(path.join(name));
            }
        } else if path.extension().is_some_and(|end| end == "rs") {
            let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            let mut marked = false;
            for line in text.lines().map(str::trim) {
                let function = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ");
                if line == "#[test]" || line.starts_with("#[tokio::test") {
                    marked = true;
                } else if line.starts_with("#[ignore") {
                    marked = false;
                } else if let Some(function) = function {
                    let name = function.split(['(', '<']).next().unwrap_or_default();
                    names.extend(marked.then(|| plain(name)));
                    marked = false;
                }
            }
        }
    }
    Ok(names)
}

/// A store, a destination with neighbours, and a layout.
struct Bench {
    scratch: Scratch,
    cofferdam: Cofferdam,
    layout: OciLayout,
    victim: Snapshot,
}

impl Bench {
    fn new() -> Result<Self> {
        let scratch = Scratch::new()?;
        let victim = scratch.dir("out/victim")?;
        fs::write(victim.join("hello"), "untouched")?;
        Ok(Self {
            cofferdam: Cofferdam::new(scratch.join("store"))?,
            layout: OciLayout::create(scratch.join("layout"))?,
            victim: Snapshot::read(&victim)?,
            scratch,
        })
    }

    fn path(&self, name: &str) -> String {
        self.scratch.join(name).display().to_string()
    }

    fn ensure_contained(&self, names: &[&str]) -> Result<()> {
        store::ensure_holds(&self.scratch.join("out"), names)?;
        let victim = Snapshot::read(&self.scratch.join("out/victim"))?;
        cofferdam_tests::tree::ensure_same(("before", &self.victim), ("after", &victim), |_, _| false)
    }
}

/// Where an image names a blob by its digest.
#[derive(Clone, Copy, Debug)]
enum Place {
    Manifest,
    Config,
    Layer,
    DiffId,
}

/// Makes the layout hold one image `v1` that is in order, but for the text of one digest.
fn image_with(layout: &OciLayout, place: Place, text: Option<&str>) -> Result<()> {
    let said = |here: &str, good: String| match text {
        Some(text) if format!("{place:?}") == here => text.to_owned(),
        _ => good,
    };
    let layer = layers::tar(&[Item::File("f", b"x".to_vec())])?;
    let digest = layout.add(&layer)?;
    let config = serde_json::to_vec(&json!({
        "architecture": cofferdam_tests::layout::architecture(),
        "os": "linux",
        "rootfs": { "type": "layers", "diff_ids": [said("DiffId", digest.clone())] },
    }))?;
    let describe = |kind: &str, digest: String, bytes: &[u8]| -> Value {
        json!({ "mediaType": kind, "digest": digest, "size": bytes.len() })
    };
    let kind = "application/vnd.oci.image.manifest.v1+json";
    let manifest = serde_json::to_vec(&json!({
        "schemaVersion": 2,
        "mediaType": kind,
        "config": describe(
            "application/vnd.oci.image.config.v1+json",
            said("Config", layout.add(&config)?),
            &config,
        ),
        "layers": [describe(TAR, said("Layer", digest), &layer)],
    }))?;
    let mut entry = describe(kind, said("Manifest", layout.add(&manifest)?), &manifest);
    entry["annotations"] = json!({ "org.opencontainers.image.ref.name": "v1" });
    // What a path made of the text would lead to: the very bytes that are asked for.
    for (name, bytes) in [("Manifest", &manifest), ("Config", &config), ("Layer", &layer), ("DiffId", &layer)] {
        if format!("{place:?}") == name {
            fs::write(layout.dir().join("planted"), bytes)?;
        }
    }
    let index = json!({ "schemaVersion": 2, "manifests": [entry] });
    Ok(fs::write(layout.dir().join("index.json"), serde_json::to_vec(&index)?)?)
}

#[test]
fn cve_2014_9358_cve_2024_3727_cve_2026_95839_ghsa_f689_h8m7_3jp2_a_digest_is_no_path() -> Result<()> {
    require!("root");
    let bench = Bench::new()?;
    let (image, dest) = (bench.layout.source("v1"), bench.path("out/dest"));
    let planted = bench.layout.dir().join("planted").display().to_string();
    let texts = [
        String::new(),
        ":".into(),
        "sha256".into(),
        "sha256:".into(),
        "..".into(),
        planted.clone(),
        format!("sha256:{planted}"),
        "sha256:../../planted".into(),
        "sha256:x/../../../planted".into(),
        // As long as a digest.
        format!("sha256:{}../../planted", "./".repeat(25)),
        format!("sha256:{}", "é".repeat(32)),
        format!("sha256:a{}b", "é".repeat(31)),
        format!("sha256:{}\n", "a".repeat(63)),
        format!("sha256:{}\0", "a".repeat(63)),
        format!("sha256:{}", "A".repeat(64)),
        format!("sha512:{}", "a".repeat(64)),
        format!("../../planted:{}", "a".repeat(64)),
        format!("md5:{}", "a".repeat(32)),
    ];
    for place in [Place::Manifest, Place::Config, Place::Layer, Place::DiffId] {
        for text in &texts {
            image_with(&bench.layout, place, Some(text))?;
            for strategy in ["copy", "apply"] {
                let run = bench.cofferdam.run(["unpack", "--strategy", strategy, &image, &dest])?;
                let context = || format!("{place:?} is {text:?}, {strategy}");
                let run = run.expect_one_of(&[exit::INTEGRITY, exit::REFUSED]).with_context(context)?;
                ensure!(!run.err().contains("panicked"), "{}: {}", context(), run.err());
                bench.ensure_contained(&["victim"]).with_context(context)?;
                let trees = store::trees(bench.cofferdam.store())?;
                ensure!(trees.is_empty(), "{}: {trees:?}", context());
            }
        }
        // What was refused all the time was that text.
        image_with(&bench.layout, place, None)?;
        bench.cofferdam.ok(["unpack", &image, &dest])?;
        cofferdam_tests::scratch::remove_tree(Path::new(&dest));
        fs::remove_dir_all(bench.cofferdam.store())?;
    }
    Ok(())
}

/// A layer with all the programs and libraries that somebody may want for his work, each of which would leave a trace.
fn helpers() -> Result<Vec<u8>> {
    const PROGRAMS: [&str; 12] = [
        "usr/bin/tar",
        "usr/bin/gzip",
        "usr/bin/gunzip",
        "usr/bin/unpigz",
        "usr/bin/igzip",
        "usr/bin/xz",
        "usr/bin/zstd",
        "usr/bin/sh",
        "usr/bin/newuidmap",
        "usr/bin/newgidmap",
        "usr/bin/mount",
        "usr/bin/cofferdam",
    ];
    const LIBRARIES: [&str; 5] = [
        "lib/libnss_files.so.2",
        "lib/x86_64-linux-gnu/libnss_dns.so.2",
        "lib/x86_64-linux-gnu/libc.so.6",
        "usr/lib/libgcc_s.so.1",
        "lib64/ld-linux-x86-64.so.2",
    ];
    let mut builder = tar::Builder::new(Vec::new());
    let mut add = |name: &str, content: &[u8]| -> Result<()> {
        let mut header = tar::Header::new_ustar();
        header.set_mode(0o755);
        header.set_size(content.len() as u64);
        Ok(builder.append_data(&mut header, name, content)?)
    };
    for name in PROGRAMS {
        add(name, b"#!/bin/sh\n: > ../victim/ran\n")?;
    }
    for name in LIBRARIES {
        add(name, b"\x7fELF: no library at all")?;
    }
    add("etc/nsswitch.conf", b"passwd: files dns\ngroup: files dns\nhosts: files dns\n")?;
    add("etc/passwd", b"root:x:0:0::/:/usr/bin/sh\n")?;
    add("etc/ld.so.preload", b"/lib/libnss_files.so.2\n")?;
    Ok(builder.into_inner()?)
}

/// What a process and its children ran, and what they mapped to be run.
struct Watched {
    executed: Vec<String>,
    mapped: Vec<String>,
}

/// Runs the command in a directory, with that directory's programs before the system's, under the eyes of `strace`.
fn watched(bench: &Bench, at: &Path, args: &[&str]) -> Result<(Run, Watched)> {
    let log = bench.scratch.join("strace");
    let words = ["strace", "-f", "-qq", "-y", "-s", "4096", "-e", "trace=execve,execveat,mmap", "-o"];
    let log_name = log.display().to_string();
    let wrapper: Vec<&str> = words.into_iter().chain([log_name.as_str()]).collect();
    let cofferdam = Cofferdam::new(bench.cofferdam.store())?.by(&wrapper);
    // The wrapper itself is found by the path of this process.
    let path = format!("{}:{}", at.join("usr/bin").display(), std::env::var("PATH")?);
    let running = cofferdam.spawn_with(args, |command| {
        command.current_dir(at).env("PATH", path);
    })?;
    let run = running.wait()?;
    let text = fs::read_to_string(&log)?;
    let calls = |name: &str| text.lines().filter(|line| line.contains(name)).map(str::to_owned).collect::<Vec<_>>();
    let mapped = calls("mmap(").into_iter().filter(|line| line.contains("PROT_EXEC")).collect();
    Ok((run, Watched { executed: calls("execve"), mapped }))
}

/// Extracts the helpers, and then more over them in each encoding: nothing in `dest` is run or mapped meanwhile.
fn nothing_of_the_image_is_used(judge: impl Fn(&Path, &Watched) -> Result<()>) -> Result<()> {
    let mut bench = Bench::new()?;
    // As the kernel and `strace` spell it.
    let dest = bench.scratch.dir("out/dest")?.canonicalize()?;
    let tar = helpers()?;
    let blobs = [
        ("plain", tar.clone()),
        ("gzip", layers::gzip(&tar)?),
        ("zstd", layers::compress("zstd", &["-q", "-c"], &tar)?),
    ];
    let at = dest.display().to_string();
    for (name, blob) in &blobs {
        fs::write(bench.scratch.join(name), blob)?;
        // The first time into an empty directory, later over what is there.
        for _ in 0..2 {
            let (run, seen) = watched(&bench, &dest, &["layer", "extract", &bench.path(name), &at])?;
            run.expect(exit::OK)?;
            judge(&dest, &seen).with_context(|| format!("{name}, extracted"))?;
        }
    }
    let layer = bench.layout.add_gzip(&tar)?;
    bench.layout.add_image("v1", &[layer.clone(), layer])?;
    let image = bench.layout.source("v1");
    for strategy in ["copy", "apply"] {
        let rootfs = bench.path(&format!("out/{strategy}"));
        let (run, seen) = watched(&bench, &dest, &["unpack", "--strategy", strategy, &image, &rootfs])?;
        run.expect(exit::OK)?;
        ensure!(Path::new(&rootfs).join("usr/bin/tar").exists(), "{strategy}: nothing was unpacked");
        judge(&dest, &seen).with_context(|| format!("{strategy}, unpacked"))?;
    }
    bench.ensure_contained(&["apply", "copy", "dest", "victim"])
}

#[test]
fn cve_2014_9357_cve_2026_41567_no_helper_of_the_image_is_run() -> Result<()> {
    require!("root", "gzip", "strace", "zstd");
    let own = format!("execve(\"{}\"", binary()?.display());
    nothing_of_the_image_is_used(|_, seen| {
        ensure!(seen.executed.len() == 1, "more was run than the command itself: {:#?}", seen.executed);
        ensure!(seen.executed[0].contains(&own), "something else was run: {:?}", seen.executed);
        Ok(())
    })
}

#[test]
fn cve_2019_14271_cve_2026_41567_no_library_of_the_image_is_loaded() -> Result<()> {
    require!("root", "gzip", "strace", "zstd");
    let own = binary()?.canonicalize()?.display().to_string();
    nothing_of_the_image_is_used(|dest, seen| {
        let out = dest.parent().context("no parent")?.display().to_string();
        // The binary is mapped by the kernel, its libraries by the loader: if none is seen, nothing was watched.
        ensure!(!seen.mapped.is_empty(), "{own} mapped nothing at all");
        let wrong: Vec<_> = seen.mapped.iter().filter(|line| line.contains(&out)).collect();
        ensure!(wrong.is_empty(), "mapped to be run: {wrong:#?}");
        Ok(())
    })
}

/// The files of a cache of compiled guests, but for the notes on how often each was used.
fn compiled(cache: &Path) -> Result<BTreeMap<PathBuf, Vec<u8>>> {
    let mut found = BTreeMap::new();
    let mut todo = vec![cache.to_path_buf()];
    while let Some(path) = todo.pop() {
        if path.is_dir() {
            todo.extend(store::list(&path)?.iter().map(|name| path.join(name)));
        } else if !path.to_string_lossy().contains("stats") {
            found.insert(path.strip_prefix(cache)?.to_owned(), fs::read(&path)?);
        }
    }
    Ok(found)
}

#[test]
fn cve_2026_47218_precompiled_code_of_a_layer_is_never_taken() -> Result<()> {
    require!("root", "gzip");
    let bench = Bench::new()?;
    let cache = bench.scratch.join("cache");
    let extract = |layer: &str, dest: &str| -> Result<Run> {
        let args = ["layer", "extract", &bench.path(layer), &bench.path(dest)];
        let running = bench.cofferdam.spawn_with(args, |command| {
            command.env("COFFERDAM_CACHE", &cache);
        })?;
        running.wait()
    };
    // Fills the cache with all guests: what comes to it later comes from a layer.
    let list = bench.cofferdam.spawn_with(["guest", "list"], |command| {
        command.env("COFFERDAM_CACHE", &cache);
    })?;
    list.wait()?.expect(exit::OK)?;
    let honest = layers::tar(&[Item::File("f", b"x".to_vec())])?;
    fs::write(bench.scratch.join("honest"), layers::gzip(&honest)?)?;
    let before = compiled(&cache)?;
    ensure!(!before.is_empty(), "nothing was compiled");

    // Compiled code, and what looks like it, as a layer.
    let (name, code) = before.iter().max_by_key(|(_, code)| code.len()).context("nothing compiled")?;
    let elf = fs::read(binary()?)?.into_iter().take(1 << 16).collect::<Vec<_>>();
    let lookalikes = [("artifact", code.clone()), ("elf", elf), ("wasm", b"\0asm\x0d\0\x01\0".to_vec())];
    for (what, bytes) in lookalikes {
        for (form, blob) in [("plain", bytes.clone()), ("gzip", layers::gzip(&bytes)?)] {
            fs::write(bench.scratch.join("layer"), blob)?;
            let context = || format!("{what}, {form}");
            extract("layer", "out/dest")?.expect_one_of(&[exit::INTEGRITY, exit::REFUSED]).with_context(context)?;
            ensure!(compiled(&cache)? == before, "{}: the cache has changed", context());
        }
    }

    // The same in a layer, under the names by which the cache would find it, also through a link to the cache.
    let poison = b"not the code that was compiled".to_vec();
    let mut builder = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Symlink);
    header.set_size(0);
    builder.append_link(&mut header, "link", &cache)?;
    let absolute = cache.strip_prefix("/").context("a relative cache")?.to_path_buf();
    for dir in [Path::new(""), Path::new("link"), &absolute, Path::new("root/.cache/cofferdam")] {
        for file in [name.as_path(), Path::new("guest.cwasm")] {
            let mut header = tar::Header::new_gnu();
            header.set_mode(0o755);
            header.set_size(poison.len() as u64);
            builder.append_data(&mut header, dir.join(file), poison.as_slice())?;
        }
    }
    fs::write(bench.scratch.join("layer"), builder.into_inner()?)?;
    extract("layer", "out/dest")?.expect(exit::OK)?;
    ensure!(fs::read(bench.scratch.join("out/dest").join(name))? == poison, "the files are not in the tree");
    ensure!(compiled(&cache)? == before, "the cache has changed");
    // And what is run afterwards is still what was compiled.
    extract("honest", "out/dest2")?.expect(exit::OK)?;
    ensure!(compiled(&cache)? == before, "the cache has changed");
    bench.ensure_contained(&["dest", "dest2", "victim"])
}

/// The directories of a store, but for what is inside of trees: their own directory closes those to others.
fn directories(dir: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    found.push(dir.to_path_buf());
    for name in store::list(dir)? {
        let path = dir.join(name);
        if fs::symlink_metadata(&path)?.is_dir() {
            if dir.file_name().is_some_and(|name| name == "extracted") {
                found.push(path);
            } else {
                directories(&path, found)?;
            }
        }
    }
    Ok(())
}

#[test]
fn cve_2021_41091_cve_2024_25621_directories_of_the_store_are_private() -> Result<()> {
    require!("root", "gzip");
    let mut bench = Bench::new()?;
    let layer = bench.layout.add_gzip(&layers::tar(&[Item::Dir("d/"), Item::File("d/f", b"x".to_vec())])?)?;
    bench.layout.add_image("v1", &[layer])?;
    let image = bench.layout.source("v1");
    let open = Cofferdam::new(bench.cofferdam.store())?.by(&["sh", "-c", "umask 000; exec \"$@\"", "sh"]);
    let ensure_private = |when: &str, skipped: usize| -> Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        directories(bench.cofferdam.store(), &mut found)?;
        // The store's own directory is closed if the store made it: one that was there is its owner's business.
        for dir in found.iter().skip(skipped) {
            let mode = fs::metadata(dir)?.permissions().mode() & 0o7777;
            let tree = dir.parent().and_then(Path::file_name).is_some_and(|name| name == "extracted");
            // A tree's root has the mode that the image gives it: what is above closes it.
            ensure!(tree || mode == 0o700, "{when}: {} has {mode:o}", dir.display());
        }
        ensure!(found.len() > 5, "{when}: only {found:?}");
        Ok(found)
    };
    open.ok(["pull", &image])?;
    open.ok(["unpack", &image, &bench.path("out/dest")])?;
    let found = ensure_private("made without a umask", 0)?;
    ensure!(found.iter().any(|dir| dir.ends_with("extracted")), "no trees: {found:?}");
    // A store of another program's, or of an older version's, is closed when it is opened.
    for dir in ["", "manifests", "configs", "layers", "extracted"] {
        fs::set_permissions(bench.cofferdam.store().join(dir), Permissions::from_mode(0o755))?;
    }
    open.ok(["images"])?;
    ensure_private("opened again", 1).map(drop)
}
