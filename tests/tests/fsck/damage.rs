//! Each kind of damage to each kind of file: found by `fsck`, mended by its repair and by what is done every day.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use cofferdam_tests::cofferdam::exit;
use cofferdam_tests::{require, store};

use crate::bench::{Bench, Damage, damage, expect};

/// What there is to be damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    Layer,
    Config,
    Manifest,
    Reference,
    Record,
    LayerRecord,
    TreeList,
    Meta,
}

impl Target {
    const ALL: [Self; 8] = [
        Self::Layer,
        Self::Config,
        Self::Manifest,
        Self::Reference,
        Self::Record,
        Self::LayerRecord,
        Self::TreeList,
        Self::Meta,
    ];

    fn path(self, bench: &Bench) -> Result<std::path::PathBuf> {
        Ok(match self {
            Self::Layer => bench.blob("layers", bench.layer()),
            Self::Config => bench.blob("configs", &bench.config),
            Self::Manifest => bench.blob("manifests", &bench.manifest),
            Self::Reference => bench.reference()?,
            Self::Record => bench.record(".json"),
            Self::LayerRecord => bench.record(".layer.json"),
            Self::TreeList => bench.record(".mtree"),
            Self::Meta => bench.path("meta.json"),
        })
    }

    fn part(self) -> &'static str {
        match self {
            Self::Layer => "layer",
            Self::Config => "config",
            Self::Manifest => "manifest",
            Self::Reference => "reference",
            Self::Record => "record",
            Self::LayerRecord => "layer-record",
            Self::TreeList => "tree-list",
            Self::Meta => "meta",
        }
    }

    /// Whether only a registry has what is needed to mend it. A layer's tree stands for its blob.
    fn needs_pull(self) -> bool {
        matches!(self, Self::Config | Self::Manifest)
    }
}

/// What nobody mended, but lies beside: what is not a file was moved aside, and is somebody's.
fn remove_what_was_set_aside(bench: &Bench) -> Result<()> {
    for room in ["layers", "configs", "manifests", "records", "refs", "."] {
        for name in store::list(&bench.path(room))?.iter().filter(|name| name.ends_with(".damaged")) {
            let path = bench.path(room).join(name);
            if path.symlink_metadata()?.is_dir() {
                ensure!(fs::read(path.join("mine"))? == b"x", "it was emptied");
                fs::remove_dir_all(path)?;
            } else {
                fs::remove_file(path)?;
            }
        }
    }
    Ok(())
}

#[test]
fn fsck_finds_and_repairs_each_damage_of_each_file() -> Result<()> {
    require!("gzip", "skopeo", "docker-registry");
    let bench = Bench::new()?;
    // Trees get their lists.
    ensure!(damage(&bench.passes(&[])?).is_empty());
    ensure!(bench.passes(&[])?.is_empty(), "a second check finds nothing to say");
    for target in Target::ALL {
        for how in Damage::ALL {
            check(&bench, target, how).with_context(|| format!("{how:?} of the {target:?}"))?;
        }
    }
    Ok(())
}

fn check(bench: &Bench, target: Target, how: Damage) -> Result<()> {
    let path = target.path(bench)?;
    how.of(&path)?;
    // An empty reference is what a power cut leaves of one that was not to be durable: it counts for nothing.
    let blank = target == Target::Reference && how == Damage::Empty;
    // What counts as broken and what is only not there any more differ for a layer record: its size is looked at on use.
    let found = if blank { bench.passes(&[])? } else { bench.finds(&[])? };
    let problems: Vec<_> = found.iter().filter(|finding| finding["part"] == target.part()).collect();
    ensure!(problems.len() == 1, "not one finding about it: {found:#?}");
    ensure!(problems[0]["repaired"] == false);
    ensure!(path.symlink_metadata().is_ok(), "a mere check has taken it away");
    // A second check says the same: the first has changed nothing.
    let again = if blank { bench.passes(&[])? } else { bench.finds(&[])? };
    ensure!(again == found, "{again:#?}\nis not\n{found:#?}");

    if target.needs_pull() {
        let repaired = bench.finds(&["--repair"])?;
        ensure!(expect(&repaired, target.part(), "damaged")?["repaired"] == true);
        let image = expect(&repaired, "image", "incomplete")?;
        ensure!(image["subject"] == bench.image.as_str() && image["repaired"] == false);
        ensure!(
            image["remedy"].as_str().is_some_and(|remedy| remedy.contains(&format!("cofferdam pull {}", bench.image)))
        );
    } else {
        let repaired = bench.passes(&["--repair"])?;
        let it = repaired.iter().find(|finding| finding["part"] == target.part()).context("not reported")?;
        ensure!(blank || it["repaired"] == true, "{it}");
    }
    remove_what_was_set_aside(bench)?;
    let fetched = bench.pull()?;
    let expected: &[&str] = match target {
        Target::Config => &[&bench.config],
        // Its tree stands for it, but does not keep it from being fetched.
        Target::Layer => &[bench.layer()],
        _ => &[],
    };
    ensure!(fetched == expected, "fetched {fetched:?}");
    let left = bench.passes(&["--deep"])?;
    ensure!(damage(&left).is_empty());
    bench.unpacks_right()?;
    store::ensure_nothing_staged(bench.cofferdam.store())
}

/// The same without `fsck`: who uses the image meets the damage.
#[test]
fn use_notices_each_damage_of_each_file() -> Result<()> {
    require!("gzip", "skopeo", "docker-registry");
    let bench = Bench::new()?;
    bench.passes(&[])?;
    for target in Target::ALL {
        for how in Damage::ALL {
            use_it(&bench, target, how).with_context(|| format!("{how:?} of the {target:?}"))?;
        }
    }
    Ok(())
}

fn use_it(bench: &Bench, target: Target, how: Damage) -> Result<()> {
    how.of(&target.path(bench)?)?;
    let digest = match target {
        Target::Layer => {
            // While its tree is there, nobody needs it.
            bench.unpacks_right()?;
            cofferdam_tests::scratch::remove_tree(&bench.tree());
            Some(bench.layer())
        }
        Target::Config => Some(&*bench.config),
        Target::Manifest => Some(&*bench.manifest),
        _ => None,
    };
    match target {
        Target::Layer | Target::Config | Target::Manifest => {
            let run = bench.unpack()?.expect(exit::INTEGRITY)?.has_hint()?;
            ensure!(run.err().contains(digest.context("no digest")?), "it does not name the blob:\n{}", run.err());
            ensure!(run.err().contains(&format!("cofferdam pull {}", bench.image)), "what helps?\n{}", run.err());
        }
        Target::Reference if how == Damage::Empty => drop(bench.unpack()?.expect(exit::NOT_FOUND)?.has_hint()?),
        Target::Reference => {
            let run = bench.unpack()?.expect(exit::INTEGRITY)?.has_hint()?;
            ensure!(run.err().contains(&format!("cofferdam pull {}", bench.image)), "what helps?\n{}", run.err());
        }
        Target::Record | Target::LayerRecord | Target::TreeList => bench.unpacks_right()?,
        Target::Meta => {
            let run = bench.unpack()?.expect(exit::INTEGRITY)?.has_hint()?;
            ensure!(run.err().contains("cofferdam fsck --repair"), "what helps?\n{}", run.err());
            bench.passes(&["--repair"])?;
        }
    }
    let fetched = bench.pull()?;
    let expected: &[&str] = match target {
        Target::Layer | Target::Config => &[digest.context("no digest")?],
        _ => &[],
    };
    ensure!(fetched == expected, "fetched {fetched:?}, not {expected:?}");
    bench.unpacks_right()?;
    // What is not looked at on use is for `fsck`.
    if target == Target::TreeList && how != Damage::Empty {
        bench.finds(&[])?;
    }
    bench.passes(&["--repair"])?;
    remove_what_was_set_aside(bench)?;
    ensure!(damage(&bench.passes(&[])?).is_empty());
    store::ensure_nothing_staged(bench.cofferdam.store())
}

/// Pull alone, without an unpack before it, and by the other strategy.
#[test]
fn pull_and_apply_mend_a_damaged_layer() -> Result<()> {
    require!("gzip", "skopeo", "docker-registry");
    let bench = Bench::new()?;
    for how in Damage::ALL {
        how.of(&Target::Layer.path(&bench)?)?;
        cofferdam_tests::scratch::remove_tree(&bench.tree());
        ensure!(bench.pull()? == [bench.layer()], "{how:?}");
        how.of(&Target::Layer.path(&bench)?)?;
        let dest = bench.scratch.join("out/applied").display().to_string();
        let run = bench.cofferdam.fails(exit::INTEGRITY, ["unpack", "--strategy", "apply", &bench.image, &dest])?;
        ensure!(run.err().contains(bench.layer()) && run.err().contains(&format!("cofferdam pull {}", bench.image)));
        store::ensure_holds(&bench.scratch.join("out"), &["right"])?;
        // The blob was set aside; that its tree is there does not keep it from being fetched.
        ensure!(bench.pull()? == [bench.layer()], "{how:?}");
    }
    bench.unpacks_right()
}

/// An index is only needed to pull. It is fetched again then.
#[test]
fn a_damaged_index_is_found_and_brought_again() -> Result<()> {
    require!("gzip", "skopeo", "docker-registry");
    let bench = Bench::new()?;
    let manifest = fs::read(bench.layout.blob(&bench.manifest))?;
    let index = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [{
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": bench.manifest,
            "size": manifest.len(),
            "platform": { "os": "linux", "architecture": cofferdam_tests::layout::architecture() },
        }],
    });
    let index = serde_json::to_vec(&index)?;
    let digest = bench.layout.add(&index)?;
    let top = serde_json::json!({ "schemaVersion": 2, "manifests": [{
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "digest": digest,
        "size": index.len(),
        "annotations": { "org.opencontainers.image.ref.name": "multi" },
    }]});
    fs::write(bench.layout.dir().join("index.json"), top.to_string())?;
    let image = bench.layout.source("multi");
    bench.cofferdam.ok(["pull", &image])?;
    bench.passes(&[])?;
    for how in Damage::ALL {
        how.of(&bench.blob("manifests", &digest))?;
        let found = bench.finds(&[])?;
        ensure!(expect(&found, "manifest", "damaged")?["subject"] == digest.as_str());
        ensure!(
            expect(&found, "image", "incomplete")?["subject"].as_str().is_some_and(|name| name.starts_with("oci:"))
        );
        bench.finds(&["--repair"])?;
        bench.cofferdam.ok(["pull", &image])?;
        remove_what_was_set_aside(&bench)?;
        ensure!(bench.passes(&[])?.is_empty(), "{how:?}");
    }
    Ok(())
}
