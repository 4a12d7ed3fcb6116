//! A store, a layout with small images, and a configuration file.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use cofferdam_tests::layers::{self, Item};
use cofferdam_tests::{Cofferdam, OciLayout, Scratch, plugins};
use serde_json::Value;

pub struct Bench {
    pub scratch: Scratch,
    pub cofferdam: Cofferdam,
    pub layout: OciLayout,
}

impl Bench {
    pub fn new() -> Result<Self> {
        let scratch = Scratch::new()?;
        let cofferdam = Cofferdam::new(scratch.join("store"))?;
        let layout = OciLayout::create(scratch.join("layout"))?;
        Ok(Self { scratch, cofferdam, layout })
    }

    /// An image of one layer with these entries, under this tag; gives the name to pull.
    pub fn image(&mut self, tag: &str, items: &[Item]) -> Result<String> {
        let layer = self.layout.add_gzip(&layers::tar(items)?)?;
        self.layout.add_image(tag, &[layer])?;
        Ok(self.layout.source(tag))
    }

    /// Adds an example plugin, with all that it asks for.
    pub fn add(&self, plugin: &str) -> Result<()> {
        let dir = plugins::example(plugin)?.display().to_string();
        self.cofferdam.ok(["plugin", "add", &dir, "--all-asked"]).map(drop)
    }

    /// A configuration file with this text.
    pub fn config(&self, text: &str) -> Result<PathBuf> {
        let path = self.scratch.join("config.toml");
        fs::write(&path, text)?;
        Ok(path)
    }

    /// What `inspect` says of an image.
    pub fn inspect(&self, image: &str) -> Result<Value> {
        self.cofferdam.ok(["inspect", image, "--json"])?.json()
    }

    /// The report of a plugin about the image's first layer.
    pub fn report(&self, image: &str, plugin: &str) -> Result<Value> {
        let inspected = self.inspect(image)?;
        let reports = inspected["reports"].as_array().context("no reports")?;
        let found = reports.iter().rev().find(|report| report["plugin"] == plugin);
        Ok(found.with_context(|| format!("no report of {plugin}: {inspected}"))?["report"].clone())
    }
}

/// A file that is set-uid root.
pub fn setuid(path: &'static str) -> Item {
    Item::Mode(path, 0o4755, b"#!/bin/sh\n".to_vec())
}
