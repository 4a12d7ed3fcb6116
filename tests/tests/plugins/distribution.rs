//! Plugins come from files, layouts and registries, and stay what they were.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use cofferdam_tests::cofferdam::exit;
use cofferdam_tests::layers::Item;
use cofferdam_tests::registry::Kind;
use cofferdam_tests::{Registry, plugins, require};

use crate::bench::Bench;

fn pack(bench: &Bench, plugin: &str, tag: &str) -> Result<String> {
    let target = format!("oci:{}:{tag}", bench.scratch.join(format!("artifact-{tag}")).display());
    let dir = plugins::example(plugin)?.display().to_string();
    bench.cofferdam.ok(["plugin", "pack", &dir, "-o", &target])?;
    Ok(target)
}

fn digest(bench: &Bench, name: &str) -> Result<String> {
    let inspected = bench.cofferdam.ok(["plugin", "inspect", name, "--json"])?.json()?;
    Ok(inspected["plugin"]["digest"].as_str().context("no digest")?.to_owned())
}

/// However it came, it is the same component.
#[test]
fn a_plugin_is_an_artifact() -> Result<()> {
    require!("docker-registry", "skopeo");
    let bench = Bench::new()?;
    let registry = Registry::start(Kind::Plain)?;
    let layout = pack(&bench, "setuid-policy", "v1")?;
    registry.push(&layout, "plugins/setuid:v1")?;
    let reference = registry.reference("plugins/setuid:v1");
    let file = bench.scratch.join("packed.wasm").display().to_string();
    let dir = plugins::example("setuid-policy")?.display().to_string();
    bench.cofferdam.ok(["plugin", "pack", &dir, "-o", &file])?;
    let plain = ["--plain-http".to_owned(), registry.host()];
    let mut digests = Vec::new();
    for (name, source, more) in
        [("a", &dir, &[][..]), ("b", &file, &[]), ("c", &layout, &[]), ("d", &reference, &plain)]
    {
        let words = ["plugin", "add", source, "--name", name].map(str::to_owned);
        bench.cofferdam.ok(words.iter().chain(more))?;
        digests.push(digest(&bench, name)?);
    }
    ensure!(digests.iter().all(|digest| *digest == digests[0]), "{digests:?}");
    let source = bench.cofferdam.ok(["plugin", "inspect", "d", "--json"])?.json()?["plugin"]["source"].clone();
    ensure!(source.as_str().is_some_and(|source| source.contains("@sha256:")), "{source}");
    Ok(())
}

/// A tag that moved has no influence: a name stands for a digest until a person says otherwise, and grants go with the digest.
#[test]
fn a_plugin_is_pinned() -> Result<()> {
    require!("docker-registry", "skopeo");
    let bench = Bench::new()?;
    let registry = Registry::start(Kind::Plain)?;
    let reference = registry.reference("plugins/p:latest");
    registry.push(&pack(&bench, "setuid-policy", "one")?, "plugins/p:latest")?;
    let add = |more: &[&str]| {
        let host = registry.host();
        let words: Vec<_> = ["plugin", "add", &reference, "--name", "p", "--plain-http", &host]
            .iter()
            .chain(more)
            .copied()
            .map(str::to_owned)
            .collect();
        bench.cofferdam.run(&words)
    };
    add(&[])?.expect(exit::OK)?;
    let before = digest(&bench, "p")?;
    registry.push(&pack(&bench, "sbom", "two")?, "plugins/p:latest")?;
    let refused = add(&[])?.expect(exit::USAGE)?.has_hint()?;
    ensure!(refused.err().contains(&before), "{}", refused.err());
    ensure!(digest(&bench, "p")? == before, "it moved with the tag");
    add(&["--replace"])?.expect(exit::OK)?;
    ensure!(digest(&bench, "p")? != before, "it was not replaced");
    Ok(())
}

#[test]
fn what_is_no_plugin_is_not_added() -> Result<()> {
    let mut bench = Bench::new()?;
    let image = bench.image("v1", &[Item::File("a", b"a".to_vec())])?;
    let refused = bench.cofferdam.fails(exit::REFUSED, ["plugin", "add", &image])?;
    ensure!(refused.err().contains("as a plugin"), "{}", refused.err());
    let file = bench.scratch.join("x.wasm");
    let path = file.display().to_string();
    bench.cofferdam.fails(exit::NOT_FOUND, ["plugin", "add", &path])?;
    for content in [&b""[..], b"garbage", b"\0asm\x01\0\0\0"] {
        fs::write(&file, content)?;
        bench.cofferdam.fails(exit::REFUSED, ["plugin", "add", &path])?;
    }
    // A component without a manifest.
    fs::copy(plugins::example("xz")?.join("xz.wasm"), &file)?;
    bench.cofferdam.fails(exit::USAGE, ["plugin", "add", &path])?.has_hint()?;
    let dir = plugins::example("xz")?.display().to_string();
    let refused = bench.cofferdam.fails(exit::REFUSED, ["plugin", "add", &dir, "--limit", "plugin-bytes=1000"])?;
    ensure!(refused.err().contains("plugin-bytes"), "{}", refused.err());
    // One that says that it is of another world.
    let dir = bench.scratch.dir("liar")?;
    fs::copy(&file, dir.join("liar.wasm"))?;
    fs::write(dir.join("plugin.toml"), "name = 'liar'\nversion = '1'\nworld = 'verifier'\n")?;
    bench.cofferdam.fails(exit::REFUSED, ["plugin", "add", &dir.display().to_string()])?;
    ensure!(bench.cofferdam.ok(["plugin", "list", "--json"])?.json()?["plugins"].as_array().is_some_and(Vec::is_empty));
    Ok(())
}

/// A component that is not what was added is not run.
#[test]
fn a_plugin_that_was_changed_on_disk_is_not_run() -> Result<()> {
    let mut bench = Bench::new()?;
    bench.add("setuid-policy")?;
    let image = bench.image("v1", &[Item::File("a", b"a".to_vec())])?;
    for file in fs::read_dir(bench.cofferdam.store().join("plugins"))? {
        let path = file?.path();
        if path.extension().is_some_and(|ending| ending == "wasm") {
            let sbom = fs::read(plugins::example("sbom")?.join("sbom.wasm"))?;
            fs::write(path, sbom)?;
        }
    }
    bench.cofferdam.fails(exit::INTEGRITY, ["pull", &image, "--inspect", "setuid-policy"])?.has_hint()?;
    bench.add("setuid-policy")?;
    bench.cofferdam.ok(["pull", &image, "--inspect", "setuid-policy"])?;
    Ok(())
}

/// The whole life of a plugin, as `plugin …` shows it; what it takes on disk is accounted for.
#[test]
fn plugins_are_listed_counted_and_removed() -> Result<()> {
    let bench = Bench::new()?;
    bench.cofferdam.ok(["plugin", "list"])?;
    bench.add("xz")?;
    bench.add("sbom")?;
    let listed = bench.cofferdam.ok(["plugin", "list"])?.out();
    ensure!(listed.lines().count() == 3 && listed.contains("decoder") && listed.contains("ready"), "{listed}");
    bench.cofferdam.ok(["fsck"])?;
    let df = bench.cofferdam.ok(["df"])?.out();
    ensure!(df.contains("plugin"), "{df}");
    bench.cofferdam.ok(["gc"])?;
    ensure!(bench.cofferdam.ok(["plugin", "list"])?.out().lines().count() == 3, "gc took a plugin");
    bench.cofferdam.ok(["plugin", "rm", "xz", "sbom"])?;
    bench.cofferdam.fails(exit::NOT_FOUND, ["plugin", "rm", "xz"])?.has_hint()?;
    ensure!(fs::read_dir(bench.cofferdam.store().join("plugins"))?.next().is_none(), "a component is left");
    Ok(())
}

#[test]
fn a_grant_that_nobody_asked_for_is_refused() -> Result<()> {
    let bench = Bench::new()?;
    bench.add("sbom")?;
    for words in [&["--clock"][..], &["--read", "/etc"], &["--http", "https://example.com"], &["--write", "--random"]] {
        let words: Vec<_> = ["plugin", "grant", "sbom"].iter().chain(words).collect();
        bench.cofferdam.fails(exit::USAGE, words)?.has_hint()?;
    }
    bench.cofferdam.fails(exit::USAGE, ["plugin", "grant", "sbom", "--http", "*"])?;
    bench.cofferdam.fails(exit::USAGE, ["plugin", "grant", "sbom"])?;
    bench.cofferdam.fails(exit::NOT_FOUND, ["plugin", "grant", "nobody", "--clock"])?;
    Ok(())
}

/// What is mistyped changes nothing.
#[test]
fn a_grant_is_asked_for_and_a_removal_is_of_what_is_there() -> Result<()> {
    let bench = Bench::new()?;
    let dir = plugins::example("setuid-policy")?.display().to_string();
    let refused = bench.cofferdam.fails(exit::USAGE, ["plugin", "add", &dir, "--http", "https://a.example"])?;
    ensure!(refused.err().contains("does not ask for --http https://a.example"), "{}", refused.err());
    bench.cofferdam.ok(["plugin", "add", &dir])?;
    bench.cofferdam.fails(exit::NOT_FOUND, ["plugin", "rm", "setuid-policy", "nobody"])?;
    bench.cofferdam.ok(["plugin", "inspect", "setuid-policy"])?;
    Ok(())
}

/// What is a path here may be a name that somebody took in a registry: nobody is asked who is meant.
#[test]
fn a_path_is_not_asked_for_in_a_registry() -> Result<()> {
    let bench = Bench::new()?;
    bench.scratch.dir("out/mine")?;
    let words = ["plugin", "add", "out/mine"];
    let run = bench.cofferdam.spawn_with(words, |command| {
        command.current_dir(bench.scratch.path());
    })?;
    let refused = run.wait()?.expect(exit::USAGE)?.has_hint()?;
    ensure!(refused.err().contains("./out/mine"), "{}", refused.err());
    Ok(())
}
