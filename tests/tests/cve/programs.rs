//! Nothing of an image is run, loaded or taken for a compiled guest.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use cofferdam_tests::cofferdam::{binary, exit};
use cofferdam_tests::layers::{self, Item};
use cofferdam_tests::{Cofferdam, Run, require, store};

use super::Bench;

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
