//! Two images of a few kilobytes that share a layer and have of everything: for tests that run the same thing a thousand
//! times.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use crate::layers::{self, Item, noise};
use crate::layout::{LayerRef, ZSTD};
use crate::registry::Kind;
use crate::tree::{self, Field, Node};
use crate::{Cofferdam, OciLayout, Registry, Scratch, Snapshot, store};

/// The image that is in the store before.
pub const OLD: &str = "old";
/// The image that something is done with. It shares its first layer with the other.
pub const NEW: &str = "new";

/// The images in a layout and, if wanted, in a registry; and what becomes of them when nothing goes wrong.
#[derive(Debug)]
pub struct Small {
    scratch: Scratch,
    layout: OciLayout,
    manifests: BTreeMap<&'static str, String>,
    registry: Option<Registry>,
    /// The root filesystem of each image.
    pub roots: BTreeMap<&'static str, Snapshot>,
    /// Each layer's tree, by its name in a store.
    pub trees: BTreeMap<String, Snapshot>,
}

fn base() -> Vec<Item> {
    vec![
        Item::Dir("./"),
        Item::Dir("etc/"),
        Item::File("etc/hosts", b"127.0.0.1 old\n".to_vec()),
        Item::Dir("opq/"),
        Item::File("opq/hidden", b"hidden".to_vec()),
        Item::File("gone", b"gone".to_vec()),
        Item::Dir("bin/"),
        Item::File("bin/tool", noise(1, 40 << 10)),
        Item::Hardlink("bin/alias", "bin/tool"),
        Item::Symlink("bin/link", "tool"),
    ]
}

fn edit() -> Vec<Item> {
    vec![
        Item::Dir("./"),
        Item::File(".wh.gone", Vec::new()),
        Item::Dir("opq/"),
        Item::File("opq/.wh..wh..opq", Vec::new()),
        Item::File("opq/shown", b"shown".to_vec()),
        Item::File("etc/hosts", b"127.0.0.1 new\n".to_vec()),
    ]
}

fn more() -> Vec<Item> {
    vec![
        Item::Dir("./"),
        Item::Dir("lib/"),
        Item::File("lib/one", noise(2, 90 << 10)),
        Item::Hardlink("lib/two", "lib/one"),
        Item::File("bin/.wh.alias", Vec::new()),
    ]
}

fn other() -> Vec<Item> {
    vec![
        Item::Dir("./"),
        Item::Dir("srv/"),
        Item::File("srv/data", noise(3, 10 << 10)),
        Item::File(".wh.opq", Vec::new()),
    ]
}

impl Small {
    /// Makes them, and runs everything once. Needs `gzip`, `zstd`; with a registry also `docker-registry`, `skopeo`.
    pub fn new(with_registry: bool) -> Result<Self> {
        let scratch = Scratch::new()?;
        let mut layout = OciLayout::create(scratch.join("layout"))?;
        let base = layout.add_gzip(&layers::tar(&base())?)?;
        let edit = add_zstd(&layout, &layers::tar(&edit())?)?;
        let more = layout.add_tar(&layers::tar(&more())?)?;
        let other = layout.add_gzip(&layers::tar(&other())?)?;
        let mut manifests = BTreeMap::new();
        manifests.insert(OLD, layout.add_image(OLD, &[base.clone(), other])?);
        manifests.insert(NEW, layout.add_image(NEW, &[base, edit, more])?);
        let registry = with_registry.then(|| Registry::start(Kind::Plain)).transpose()?;
        for name in [OLD, NEW].into_iter().filter(|_| with_registry) {
            registry.as_ref().context("no registry")?.push(&layout.source(name), &format!("small/{name}:1"))?;
        }
        let mut small = Self { scratch, layout, manifests, registry, roots: BTreeMap::new(), trees: BTreeMap::new() };
        small.run_once()?;
        Ok(small)
    }

    /// What nothing disturbs, which the rest is compared with.
    fn run_once(&mut self) -> Result<()> {
        let cofferdam = Cofferdam::new(self.scratch.join("undisturbed"))?;
        for name in [OLD, NEW] {
            cofferdam.ok(["pull", &self.local(name)])?;
            let mut made = Vec::new();
            for strategy in ["copy", "apply"] {
                let dest = self.scratch.join(format!("{name}-{strategy}"));
                cofferdam.ok(["unpack", "--strategy", strategy, self.manifest(name), &dest.display().to_string()])?;
                made.push(Snapshot::read(&dest)?);
            }
            tree::ensure_same(("copied", &made[0]), ("applied", &made[1]), |_, _| false)?;
            self.roots.insert(name, made.swap_remove(0));
        }
        for name in store::trees(cofferdam.store())? {
            let tree = without_mark(Snapshot::read(&cofferdam.store().join("extracted").join(&name))?);
            self.trees.insert(name, tree);
        }
        ensure!(self.trees.len() == 4, "{} trees", self.trees.len());
        // Whether it is what the layers say, so that two wrongs are not taken for a right.
        let paths = |name: &str| -> Vec<String> {
            let names = self.roots[name].entries.keys();
            names.map(|name| String::from_utf8_lossy(name).into_owned()).filter(|name| !name.is_empty()).collect()
        };
        let old = "bin bin/alias bin/link bin/tool etc etc/hosts gone srv srv/data";
        let new = "bin bin/link bin/tool etc etc/hosts lib lib/one lib/two opq opq/shown";
        ensure!(paths(OLD).join(" ") == old, "{:?}", paths(OLD));
        ensure!(paths(NEW).join(" ") == new, "{:?}", paths(NEW));
        let file = |path: &str| self.roots[NEW].entries.get(path.as_bytes()).context("no such file");
        ensure!(matches!(file("etc/hosts")?.node, Node::File { size: 14, .. }), "etc/hosts is not the new one");
        ensure!(file("lib/one")?.links.len() == 2, "a hard link was lost");
        Ok(())
    }

    /// An image's name in the layout.
    pub fn local(&self, name: &str) -> String {
        self.layout.source(name)
    }

    /// The layout's directory.
    pub fn layout(&self) -> &Path {
        self.layout.dir()
    }

    /// The file of a layer of the image [`NEW`] in the layout.
    pub fn layer(&self, index: usize) -> Result<PathBuf> {
        let layers = crate::layout::layers_of(self.layout.dir(), NEW)?;
        Ok(self.layout.blob(&layers.get(index).context("no such layer")?.digest))
    }

    /// The digest of an image's manifest, by which a store that has the image finds it.
    pub fn manifest(&self, name: &str) -> &str {
        self.manifests.get(name).map_or("", String::as_str)
    }

    /// The registry.
    pub fn registry(&self) -> Result<&Registry> {
        self.registry.as_ref().context("there is no registry")
    }

    /// Whether the registry has been asked for.
    pub fn has_registry(&self) -> bool {
        self.registry.is_some()
    }

    /// How an image is pulled: from the registry if there is one, else from the layout.
    pub fn pull(&self, name: &str) -> Vec<String> {
        match &self.registry {
            Some(registry) => vec![
                "pull".into(),
                registry.reference(&format!("small/{name}:1")),
                "--plain-http".into(),
                registry.host(),
            ],
            None => vec!["pull".into(), self.local(name)],
        }
    }

    /// The images that a store's references name; each of them complete, every document and blob what its name says, and
    /// every tree that has a record as it should be. Looks at the disk only and changes nothing.
    pub fn ensure_intact(&self, store: &Path) -> Result<Vec<&'static str>> {
        store::ensure_blobs_are_whole(store)?;
        store::ensure_documents_are_whole(store)?;
        for tree in store::recorded_trees(store)? {
            let name = tree.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let expected = self.trees.get(&name).with_context(|| format!("a tree of another layer: {name}"))?;
            let found = without_mark(Snapshot::read(&tree)?);
            tree::ensure_same(("a tree with a record", &found), ("what it should be", expected), |_, _| false)?;
        }
        let mut names = Vec::new();
        for manifest in store::ensure_images_are_complete(store)? {
            let found = self.manifests.iter().find(|(_, digest)| **digest == manifest);
            names.push(*found.with_context(|| format!("a reference to {manifest}"))?.0);
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Fails unless an image that the store has unpacks to what it should be.
    pub fn ensure_unpacks(&self, cofferdam: &Cofferdam, name: &str) -> Result<()> {
        let scratch = Scratch::new()?;
        let dest = scratch.join("rootfs");
        cofferdam.ok(["unpack", self.manifest(name), &dest.display().to_string()])?;
        store::ensure_holds(scratch.path(), &["rootfs"])?;
        self.ensure_root(name, &dest)
    }

    /// Fails unless a mount shows an image's root filesystem, as far as a mount of several layers tells.
    pub fn ensure_shows(&self, name: &str, mount: &Path) -> Result<()> {
        let expected = self.roots.get(name).context("no such image")?;
        let found = without_mark(Snapshot::read(mount)?);
        tree::ensure_same(("mounted", &found), ("expected", expected), |_, field| field == Field::Links)
    }

    /// Fails unless a root filesystem is an image's.
    pub fn ensure_root(&self, name: &str, dest: &Path) -> Result<()> {
        let expected = self.roots.get(name).context("no such image")?;
        tree::ensure_same(("found", &Snapshot::read(dest)?), ("expected", expected), |_, _| false)
    }
}

fn add_zstd(layout: &OciLayout, tar: &[u8]) -> Result<LayerRef> {
    let blob = layers::compress("zstd", &["-q", "-c"], tar)?;
    let (digest, size) = (layout.add(&blob)?, blob.len() as u64);
    Ok(LayerRef { media_type: ZSTD.into(), digest, size, diff_id: layers::digest(tar) })
}

/// A tree of a store without the mark by which the store knows it again, which differs each time.
fn without_mark(mut tree: Snapshot) -> Snapshot {
    for entry in tree.entries.values_mut() {
        entry.xattrs.remove(b"user.cofferdam.tree".as_slice());
    }
    tree
}
