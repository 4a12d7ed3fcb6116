//! The real images that `tests/images/make-images.sh` makes; see the README beside it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::{paths, require};

/// The images that are there.
#[derive(Debug)]
pub struct Images {
    dir: PathBuf,
    layers: BTreeMap<String, Layer>,
    tags: Vec<(String, String, String)>,
}

/// One layer, in one encoding.
#[derive(Clone, Debug)]
pub struct Layer {
    /// The blob.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// Its digest.
    pub digest: String,
    /// The digest of the tar in it.
    pub diff_id: String,
}

impl Images {
    /// The images in [`paths::images`] if all of these layers are among them (such as `edit.tar.gz`); else a skip.
    pub fn with(layers: &[&str]) -> Result<Option<Self>> {
        let dir = paths::images();
        let found = if dir.join("layers.tsv").is_file() { Some(Self::read(&dir)?) } else { None };
        let there = |name: &str| found.as_ref().is_some_and(|images| images.layers.contains_key(name));
        let missing: Vec<_> = layers.iter().copied().filter(|name| !there(name)).collect();
        if !missing.is_empty() {
            require::skip(&format!(
                "{} does not hold {}; make them with `cargo xtask images`",
                dir.display(),
                missing.join(", ")
            ));
            return Ok(None);
        }
        Ok(found)
    }

    /// The images in a directory.
    pub fn read(dir: &Path) -> Result<Self> {
        let table = |name: &str| -> Result<Vec<Vec<String>>> {
            let path = dir.join(name);
            let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
            Ok(text.lines().skip(1).map(|line| line.split('\t').map(str::to_owned).collect()).collect())
        };
        let mut layers = BTreeMap::new();
        for row in table("layers.tsv")? {
            let [name, bytes, digest, diff_id] = &row[..] else {
                anyhow::bail!("a strange line in layers.tsv: {row:?}")
            };
            let path = fs::canonicalize(dir.join("layers").join(name)).with_context(|| format!("no layer {name}"))?;
            let (digest, diff_id) = (digest.clone(), diff_id.clone());
            layers.insert(name.clone(), Layer { path, bytes: bytes.parse()?, digest, diff_id });
        }
        let mut tags = Vec::new();
        for row in table("images.tsv")? {
            let [layout, tag, digest] = &row[..] else { anyhow::bail!("a strange line in images.tsv: {row:?}") };
            tags.push((layout.clone(), tag.clone(), digest.clone()));
        }
        Ok(Self { dir: dir.to_path_buf(), layers, tags })
    }

    /// A layer by its file name, such as `python.bgzf.tar.gz`.
    pub fn layer(&self, name: &str) -> Result<&Layer> {
        self.layers.get(name).with_context(|| format!("there is no layer {name} in {}", self.dir.display()))
    }

    /// The directory of an OCI layout: `store`, `plain`, `zstd` or `overlay`.
    pub fn layout(&self, name: &str) -> PathBuf {
        self.dir.join("oci").join(name)
    }

    /// An image in skopeo's and our own form: `oci:DIR:TAG`.
    pub fn source(&self, layout: &str, tag: &str) -> String {
        format!("oci:{}:{tag}", self.layout(layout).display())
    }

    /// The digest of an image's manifest.
    pub fn manifest(&self, layout: &str, tag: &str) -> Result<&str> {
        let row = self.tags.iter().find(|row| row.0 == layout && row.1 == tag);
        Ok(&row.with_context(|| format!("there is no image {layout}:{tag}"))?.2)
    }
}
