//! A directory that the reference wrote: used after verification only, never trusted blindly.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use cofferdam_tests::cofferdam::exit;
use cofferdam_tests::{Cofferdam, require, scratch, store};
use serde_json::Value;

use crate::bench::{Bench, damage, stem};

/// Makes of the bench's image a directory as the reference leaves it: manifests in its own form, trees that nobody verified, one of
/// them manipulated, a layer that was cut short, what was staged when it was killed, and a local bundle.
fn reference_directory(bench: &Bench) -> Result<Cofferdam> {
    let images = bench.scratch.dir("reference")?;
    for room in ["layers", "configs", "manifests", "extracted", "local"] {
        fs::create_dir(images.join(room))?;
    }
    let text: Value = serde_json::from_slice(&fs::read(bench.layout.blob(&bench.manifest))?)?;
    let manifest = serde_json::to_vec_pretty(&text)?;
    fs::write(images.join(format!("manifests/{}.json", stem(&bench.manifest))), manifest)?;
    fs::copy(bench.layout.blob(&bench.config), images.join(format!("configs/{}.json", stem(&bench.config))))?;
    let [lower, upper] = &bench.layers[..] else { anyhow::bail!("not two layers") };
    fs::copy(bench.layout.blob(&lower.digest), images.join(format!("layers/{}.tar.gz", stem(&lower.digest))))?;
    let whole = fs::read(bench.layout.blob(&upper.digest))?;
    fs::write(images.join(format!("layers/{}.tar.gz", stem(&upper.digest))), &whole[..whole.len() / 2])?;
    for (layer, text) in [(lower, "set-uid shell"), (upper, "half of it")] {
        let tree = images.join("extracted").join(stem(&layer.digest));
        fs::create_dir_all(tree.join("etc"))?;
        fs::write(tree.join("etc/motd"), text)?;
        fs::write(tree.join("etc/backdoor"), text)?;
    }
    let theirs = "0123456789ab4def8123456789abcdef";
    fs::write(images.join(format!("layers/{}.{theirs}.downloading", stem(&lower.digest))), "half")?;
    fs::create_dir_all(images.join(format!("extracted/{}.{theirs}.extracting/etc", stem(&lower.digest))))?;
    let bundle = images.join("local").join("0".repeat(64)).join("extracted").join(stem(&lower.digest));
    fs::create_dir_all(&bundle)?;
    fs::write(bundle.join("backdoor"), "x")?;
    Cofferdam::new(images)
}

/// Has it taken over, by a verb that then finds nothing to do.
fn adopt(cofferdam: &Cofferdam) -> Result<()> {
    cofferdam.fails(exit::NOT_FOUND, ["rm", "none.test/none:1"]).map(drop)
}

#[test]
fn what_the_reference_wrote_is_used_after_verification_only() -> Result<()> {
    require!("gzip", "skopeo", "docker-registry");
    let bench = Bench::new()?;
    let cofferdam = reference_directory(&bench)?;
    let images = cofferdam.store().to_owned();
    let before = store::list(&images)?;
    let listed = cofferdam.ok(["images", "--json"])?.json()?;
    ensure!(listed["images"].as_array().is_some_and(Vec::is_empty), "it has no references");
    ensure!(store::list(&images)? == before, "a look has changed it");
    adopt(&cofferdam)?;
    ensure!(images.join("keep-unreferenced").is_file() && images.join("meta.json").is_file());

    // Checked before anything of it is used: nothing counts, so nothing that counts is damaged but the layer that was cut.
    let run = cofferdam.fails(exit::INTEGRITY, ["fsck", "--json"])?;
    let found = crate::bench::findings(&run)?;
    let damaged: Vec<_> = damage(&found).iter().map(|finding| finding["subject"].clone()).collect();
    ensure!(damaged == [bench.layers[1].digest.as_str()], "{damaged:?}");
    let count = |problem: &str| found.iter().filter(|finding| finding["problem"] == problem).count();
    ensure!((count("unvouched"), count("foreign")) == (3, 1), "{found:#?}");

    let before = bench.registry.blob_gets()?.len();
    cofferdam.ok(["pull", &bench.image, "--plain-http", &bench.registry.host()])?;
    let gets = bench.registry.blob_gets()?;
    let fetched: Vec<_> = gets[before..].iter().map(|get| get.path.clone()).collect();
    ensure!(fetched.len() == 1 && fetched[0].ends_with(&bench.layers[1].digest), "only what was cut: {fetched:?}");
    for layer in &bench.layers {
        let tree = images.join("extracted").join(stem(&layer.digest));
        ensure!(!tree.join("etc/backdoor").exists(), "what the reference extracted is still there");
    }
    let manifest = fs::read(images.join(format!("manifests/{}.json", stem(&bench.manifest))))?;
    ensure!(manifest == fs::read(bench.layout.blob(&bench.manifest))?, "the exact bytes are there now");
    let dest = bench.scratch.join("out/adopted").display().to_string();
    cofferdam.ok(["unpack", &bench.image, &dest])?;
    ensure!(fs::read(format!("{dest}/etc/motd"))? == b"welcome\n");
    // What may be at work is left alone, and what nobody verified stays out of use.
    let staged = store::staged(&images)?;
    ensure!(staged.len() == 2, "{staged:?}");
    ensure!(images.join("local").join("0".repeat(64)).is_dir());
    ensure!(damage(&crate::bench::findings(&cofferdam.ok(["fsck", "--json"])?)?).is_empty());
    Ok(())
}

/// A repair does not take away what only the other program knows of.
#[test]
fn a_repair_leaves_the_other_programs_things() -> Result<()> {
    require!("gzip", "skopeo", "docker-registry");
    let bench = Bench::new()?;
    let cofferdam = reference_directory(&bench)?;
    adopt(&cofferdam)?;
    cofferdam.ok(["fsck", "--repair"])?;
    let images = cofferdam.store();
    let names = store::list(&images.join("manifests"))?;
    ensure!(names == [format!("{}.json", stem(&bench.manifest))], "{names:?}");
    ensure!(store::trees(images)?.len() == 3);
    let names = store::blobs(images)?;
    ensure!(names == [format!("{}.tar.gz", stem(bench.layer()))], "only what was cut is gone: {names:?}");
    Ok(())
}

#[test]
fn a_check_does_not_adopt() -> Result<()> {
    require!("gzip", "skopeo", "docker-registry");
    let bench = Bench::new()?;
    let cofferdam = reference_directory(&bench)?;
    let before = store::list(cofferdam.store())?;
    let run = cofferdam.fails(exit::NOT_FOUND, ["fsck", "--repair"])?.has_hint()?;
    ensure!(run.err().contains("pull"), "{}", run.err());
    ensure!(store::list(cofferdam.store())? == before);
    scratch::remove_tree(&cofferdam.store().join("extracted"));
    Ok(())
}

#[test]
fn a_later_version_s_store_is_refused_with_a_hint() -> Result<()> {
    let scratch = cofferdam_tests::Scratch::new()?;
    let cofferdam = Cofferdam::new(scratch.join("store"))?;
    cofferdam.ok(["gc"])?;
    let meta = scratch.join("store/meta.json");
    let now = fs::read_to_string(&meta)?;
    ensure!(serde_json::from_str::<Value>(&now)?["format"] == 1);
    for (text, word) in [
        (r#"{"format":2}"#, "format 2"),
        (r#"{"format":1,"incompatible":["packs"]}"#, "`packs`"),
        (r#"{"format":99,"incompatible":["packs"]}"#, "format 99"),
    ] {
        fs::write(&meta, text)?;
        for args in
            [&["images"][..], &["fsck"], &["fsck", "--repair"], &["rm", "a:1"], &["unpack", "a:1", "/nowhere/x"]]
        {
            let args = args.iter().map(|arg| arg.replace("/nowhere", &scratch.path().display().to_string()));
            let run = cofferdam.fails(exit::REFUSED, args)?.has_hint()?;
            ensure!(run.err().contains(word) && run.err().contains("newer cofferdam"), "{}", run.err());
        }
        ensure!(fs::read_to_string(&meta)? == text, "it was touched");
    }
    // One that may be read is read, and not changed.
    fs::write(&meta, r#"{"format":1,"read_only_compatible":["packs"]}"#)?;
    cofferdam.ok(["images"])?;
    cofferdam.ok(["fsck"])?;
    cofferdam.fails(exit::REFUSED, ["fsck", "--repair"])?.has_hint().context("repair")?;
    Ok(())
}
