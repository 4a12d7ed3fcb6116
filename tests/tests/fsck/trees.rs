//! Trees: what was changed in them is named, entry by entry.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::time::SystemTime;

use anyhow::{Context as _, Result, ensure};
use cofferdam_tests::cofferdam::exit;
use cofferdam_tests::{require, store};

use crate::bench::{Bench, damage, expect, stem};

type Change<'a> = &'a dyn Fn() -> std::io::Result<()>;

#[test]
fn changed_missing_and_additional_entries_are_named_and_mended() -> Result<()> {
    require!("gzip", "skopeo", "docker-registry");
    let bench = Bench::new()?;
    bench.passes(&[])?;
    let tree = bench.tree();
    let motd = tree.join("etc/motd");
    let changes: [(&str, Change<'_>, &str); 5] = [
        (
            "etc/motd",
            &|| {
                let modified = motd.metadata()?.modified()?;
                fs::write(&motd, "welcomE\n")?;
                fs::File::open(&motd)?.set_modified(modified)
            },
            "sha256digest is ",
        ),
        ("etc/noise", &|| fs::write(tree.join("etc/noise"), ""), "size is 0, not 200000"),
        ("etc/link", &|| fs::remove_file(tree.join("etc/link")), "it is missing"),
        ("etc/more", &|| fs::write(tree.join("etc/more"), ""), "it is not in the layer"),
        ("etc", &|| fs::set_permissions(tree.join("etc"), fs::Permissions::from_mode(0o700)), "mode is 0700, not 0755"),
    ];
    for (path, change, said) in changes {
        change()?;
        let found = bench.finds(&[])?;
        let finding = expect(&found, "tree", "damaged")?;
        ensure!(finding["subject"] == bench.layer() && finding["images"][0] == bench.image.as_str(), "{finding}");
        let differences = finding["differences"].as_array().context("no differences")?;
        let named = differences.iter().find(|d| d["path"] == path).with_context(|| format!("{path}: {finding}"))?;
        ensure!(named["what"].as_str().is_some_and(|what| what.contains(said)), "{path}: {named}");
        let text = bench.cofferdam.fails(exit::INTEGRITY, ["fsck"])?.has_hint()?.out();
        ensure!(text.contains(path) && text.contains("damaged"), "{text}");

        let repaired = bench.passes(&["--repair"])?;
        ensure!(expect(&repaired, "tree", "damaged")?["repaired"] == true);
        ensure!(bench.passes(&[])?.is_empty(), "{path}: not mended");
        bench.unpacks_right()?;
    }
    ensure!(bench.pull()?.is_empty(), "nothing had to be fetched");
    Ok(())
}

/// Without its blob, a damaged tree can only go; and says what brings it back.
#[test]
fn a_damaged_tree_without_its_blob_has_to_be_pulled() -> Result<()> {
    require!("gzip", "skopeo", "docker-registry");
    let bench = Bench::new()?;
    bench.passes(&[])?;
    fs::remove_file(bench.blob("layers", bench.layer()))?;
    ensure!(bench.passes(&[])?.is_empty(), "a tree is as good as a blob");
    bench.unpacks_right()?;
    fs::write(bench.tree().join("etc/motd"), "else")?;
    let repaired = bench.finds(&["--repair"])?;
    ensure!(expect(&repaired, "image", "incomplete")?["remedy"].as_str().is_some_and(|r| r.contains("cofferdam pull")));
    ensure!(!bench.tree().exists());
    ensure!(bench.pull()? == [bench.layer()]);
    bench.unpacks_right()?;
    ensure!(damage(&bench.passes(&[])?).is_empty());
    Ok(())
}

/// A tree that was changed before it had a list is not listed as it is.
#[test]
fn a_tree_that_was_never_listed_is_compared_with_its_layer() -> Result<()> {
    require!("gzip", "skopeo", "docker-registry");
    let bench = Bench::new()?;
    fs::write(bench.tree().join("etc/motd"), "else")?;
    let found = bench.finds(&[])?;
    ensure!(expect(&found, "tree", "damaged")?["different"] == 2, "the file, by both of its names: {found:#?}");
    ensure!(!bench.record(".mtree").exists());
    // The other layer's tree is right, and has its list now.
    let other = stem(&bench.layers[1].digest);
    expect(&found, "tree", "unlisted")?;
    ensure!(bench.path(&format!("records/{other}.mtree")).is_file());
    bench.passes(&["--repair"])?;
    ensure!(bench.passes(&[])?.is_empty());
    bench.unpacks_right()
}

/// Lists are of the field's own form: another tool reads them, and finds the tree as they say.
#[test]
fn a_list_is_read_by_another_tool() -> Result<()> {
    require!("gzip", "skopeo", "docker-registry", "bsdtar");
    let bench = Bench::new()?;
    bench.passes(&[])?;
    let list = bench.record(".mtree");
    let output = std::process::Command::new("bsdtar").arg("-tvf").arg(&list).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout)?;
    for line in ["-rw-r--r--", "lrwxrwxrwx", "drwxr-xr-x", "etc/motd", "etc/link -> motd", "200000"] {
        ensure!(text.contains(line), "no {line} in\n{text}");
    }
    Ok(())
}

/// What the dead left, and what is nothing of the store's: told, and not damage.
#[test]
fn leftovers_are_told_and_swept_and_strangers_are_told_and_stay() -> Result<()> {
    require!("gzip", "skopeo", "docker-registry");
    let bench = Bench::new()?;
    bench.passes(&[])?;
    let ours = "0123456789ab8def8123456789abcdef";
    let layer = stem(bench.layer());
    let leftovers = [
        format!("layers/{layer}.{ours}.downloading"),
        format!("records/{ours}.writing"),
        format!("extracted/{layer}.{ours}.extracting"),
    ];
    for leftover in &leftovers {
        if leftover.starts_with("extracted") {
            fs::create_dir_all(bench.path(leftover).join("half"))?;
        } else {
            fs::write(bench.path(leftover), "half")?;
        }
    }
    let strange = ["layers/notes.txt", "extracted/mine", "records/x.json"];
    for name in strange {
        fs::write(bench.path(name), "mine")?;
    }
    let old = SystemTime::now() - std::time::Duration::from_hours(2);
    let foreign = bench.path(&format!("configs/{layer}.0123456789ab4def8123456789abcdef.downloading"));
    fs::write(&foreign, "of a program that takes no locks")?;
    fs::File::open(&foreign)?.set_modified(old)?;

    let found = bench.passes(&[])?;
    let paths = |problem: &str| -> Vec<String> {
        let found = found.iter().filter(|finding| finding["problem"] == problem);
        found.filter_map(|finding| finding["path"].as_str().map(str::to_owned)).collect()
    };
    let mut told = paths("leftover");
    told.sort();
    let mut expected = leftovers.to_vec();
    expected.sort();
    ensure!(told == expected, "{told:?}");
    let mut told = paths("stray");
    told.sort();
    ensure!(told == ["extracted/mine", "layers/notes.txt", "records/x.json"], "{told:?}");
    ensure!(bench.path(&leftovers[0]).exists(), "a check removes nothing");

    bench.passes(&["--repair"])?;
    ensure!(store::staged(bench.cofferdam.store())? == [foreign], "all but the one that may be alive");
    for name in strange {
        ensure!(fs::read(bench.path(name))? == b"mine");
    }
    Ok(())
}

/// Nothing is written to a store that may only be read, and it is checked all the same.
#[test]
fn a_store_that_may_only_be_read_is_checked() -> Result<()> {
    require!("root", "gzip", "skopeo", "docker-registry");
    let bench = Bench::new()?;
    bench.passes(&[])?;
    let cofferdam = cofferdam_tests::Cofferdam::new(bench.cofferdam.store())?;
    let mount = format!(
        "mount --bind {0} {0} && mount -o remount,bind,ro {0} && exec \"$@\"",
        bench.cofferdam.store().display()
    );
    let cofferdam = cofferdam.by(&["unshare", "--mount", "sh", "-c", &mount, "sh"]);
    let run = cofferdam.ok(["fsck", "--json"])?;
    ensure!(crate::bench::findings(&run)?.is_empty(), "{}", run.out());
    fs::write(bench.tree().join("etc/motd"), "else")?;
    let run = cofferdam.fails(exit::INTEGRITY, ["fsck", "--json"])?;
    expect(&crate::bench::findings(&run)?, "tree", "damaged")?;
    Ok(())
}

/// Checks and repairs beside everything else: nobody is in anybody's way, and nothing that is right is taken for damaged.
#[test]
fn a_repair_beside_pulls_and_unpacks_harms_nobody() -> Result<()> {
    require!("gzip", "skopeo", "docker-registry");
    let bench = Bench::new()?;
    let host = bench.registry.host();
    let other = bench.registry.reference("test/other:1");
    bench.registry.push(&bench.layout.source("v1"), "test/other:1")?;
    let outcome = |args: &[&str]| -> Result<()> { bench.cofferdam.ok(args).map(drop) };
    std::thread::scope(|scope| -> Result<()> {
        let mut threads = Vec::new();
        for worker in 0..6 {
            let (host, other, bench, outcome) = (&host, &other, &bench, &outcome);
            threads.push(scope.spawn(move || -> Result<()> {
                for round in 0..4 {
                    let dest = bench.scratch.join(format!("out/{worker}-{round}")).display().to_string();
                    match worker % 3 {
                        0 => outcome(&["fsck", "--repair", "--json"])?,
                        1 => outcome(&["pull", other, "--plain-http", host])?,
                        _ => outcome(&["unpack", &bench.image, &dest])?,
                    }
                }
                Ok(())
            }));
        }
        threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| anyhow::anyhow!("a panic"))?)
    })?;
    ensure!(damage(&bench.passes(&["--deep"])?).is_empty());
    ensure!(bench.pull()?.is_empty());
    bench.unpacks_right()?;
    store::ensure_nothing_staged(bench.cofferdam.store())
}

/// A directory that is no store is not made one by being checked.
#[test]
fn what_is_no_store_is_said_to_be_none() -> Result<()> {
    let scratch = cofferdam_tests::Scratch::new()?;
    let cofferdam = cofferdam_tests::Cofferdam::new(scratch.join("none"))?;
    cofferdam.fails(exit::NOT_FOUND, ["fsck"])?.has_hint()?;
    ensure!(!scratch.join("none").exists());
    let cofferdam = cofferdam_tests::Cofferdam::new(scratch.dir("empty")?)?;
    cofferdam.fails(exit::NOT_FOUND, ["fsck", "--repair"])?.has_hint()?;
    store::ensure_holds(&scratch.join("empty"), &[])
}
