//! The committed image of a few kilobytes: it needs no tools and no root, and runs everywhere.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use anyhow::{Result, ensure};
use cofferdam_tests::layers::{self, Item};
use cofferdam_tests::layout::{LayerRef, ZSTD, layers_of};
use cofferdam_tests::tree::Node;
use cofferdam_tests::{Cofferdam, OciLayout, Scratch, Snapshot, paths, scratch, store};

/// What the image holds, layer by layer: a gzip layer, a zstd layer with whiteouts, a plain one with an opaque directory.
fn contents() -> [Vec<Item>; 3] {
    let text = |text: &str| text.as_bytes().to_vec();
    [
        vec![
            Item::Dir("etc/"),
            Item::File("etc/os-release", text("NAME=hello\nPRETTY_NAME=\"Hello from a cofferdam\"\n")),
            Item::File("etc/removed", text("a whiteout removes this\n")),
            Item::Dir("usr/"),
            Item::Dir("usr/bin/"),
            Item::File("usr/bin/hello", text("#!/bin/sh\necho hello\n")),
            Item::Hardlink("usr/bin/hi", "usr/bin/hello"),
            Item::Symlink("bin", "usr/bin"),
            Item::Dir("var/"),
            Item::Dir("var/cache/"),
            Item::File("var/cache/old", text("an opaque marker hides this\n")),
        ],
        vec![
            Item::File("etc/.wh.removed", Vec::new()),
            Item::File("bin/through-the-link", text("written through /bin, which is a link\n")),
            Item::File("etc/motd", text("the second layer was here\n")),
        ],
        vec![
            Item::File("var/cache/new", text("only this is left\n")),
            Item::File("var/cache/.wh..wh..opq", Vec::new()),
            Item::File("usr/bin/hi", text("no longer a link\n")),
        ],
    ]
}

/// Makes the fixture anew: `cargo test -p cofferdam-tests --test fixture -- --ignored`. Needs gzip and zstd.
#[test]
#[ignore = "writes into the checkout"]
fn make() -> Result<()> {
    let dir = paths::hello_layout();
    scratch::remove_tree(&dir);
    let mut layout = OciLayout::create(dir)?;
    let [lower, middle, upper] = contents().map(|items| layers::tar(&items));
    let lower = layout.add_gzip(&lower?)?;
    let middle = middle?;
    let blob = layers::compress("zstd", &["-q", "-c", "--check", "-19"], &middle)?;
    let (digest, diff_id) = (layout.add(&blob)?, layers::digest(&middle));
    let middle = LayerRef { media_type: ZSTD.into(), digest, size: blob.len() as u64, diff_id };
    let upper = layout.add_tar(&upper?)?;
    layout.add_image("hello", &[lower, middle, upper])?;
    Ok(())
}

#[test]
fn it_is_what_the_list_says() -> Result<()> {
    let expected = contents().map(|items| layers::tar(&items).map(|tar| layers::digest(&tar)));
    let layers = layers_of(&paths::hello_layout(), "hello")?;
    ensure!(layers.len() == expected.len(), "{} layers", layers.len());
    for (layer, diff_id) in layers.iter().zip(expected) {
        ensure!(layer.diff_id == diff_id?, "run `make` in this file: {layer:?}");
        let blob = fs::read(paths::hello_layout().join("blobs").join(layer.digest.replacen(':', "/", 1)))?;
        ensure!(layers::digest(&blob) == layer.digest && blob.len() as u64 == layer.size, "{layer:?}");
    }
    Ok(())
}

#[test]
fn it_unpacks_by_both_strategies() -> Result<()> {
    let scratch = Scratch::new()?;
    let image = format!("oci:{}:hello", paths::hello_layout().display());
    let cofferdam = Cofferdam::new(scratch.join("store"))?;
    let mut trees = Vec::new();
    for strategy in ["copy", "apply"] {
        let dest = scratch.dir(strategy)?.join("rootfs");
        cofferdam.ok(["unpack", "--strategy", strategy, &image, &dest.display().to_string()])?;
        store::ensure_holds(&scratch.join(strategy), &["rootfs"])?;
        let tree = Snapshot::read(&dest)?;
        let names: Vec<_> = tree.entries.keys().map(|name| String::from_utf8_lossy(name)).collect();
        ensure!(
            names.join(" ").trim()
                == "bin etc etc/motd etc/os-release usr usr/bin usr/bin/hello usr/bin/hi usr/bin/through-the-link \
                    var var/cache var/cache/new",
            "{strategy}: {names:?}"
        );
        ensure!(tree.entries[&b"bin"[..]].node == Node::Symlink(b"usr/bin".to_vec()), "{strategy}: /bin");
        ensure!(fs::read(dest.join("usr/bin/hello"))? == b"#!/bin/sh\necho hello\n", "written through a hard link");
        ensure!(fs::read(dest.join("usr/bin/hi"))? == b"no longer a link\n", "{strategy}: /usr/bin/hi");
        for name in ["etc", "etc/motd", "var/cache/new", "usr/bin/hi"] {
            let mtime = fs::symlink_metadata(dest.join(name))?.mtime();
            ensure!(mtime.unsigned_abs() == layers::MTIME, "{strategy}: mtime of {name} is {mtime}");
        }
        trees.push(tree);
    }
    // The root is not in the image: its time is nobody's.
    let root = |path: &[u8], _| path.is_empty();
    cofferdam_tests::tree::ensure_same(("copy", &trees[0]), ("apply", &trees[1]), root)
}
