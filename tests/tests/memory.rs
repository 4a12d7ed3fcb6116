//! Memory is constant in the layer's size.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use cofferdam_tests::layers::{self, noise};
use cofferdam_tests::{Cofferdam, Images, OciLayout, Scratch, paths, require};

/// Most memory that extracting any layer may take, the guests' included.
const CEILING: u64 = 128 << 20;
/// Bytes of the layer that is made here.
const LAYER: u64 = 500_000_000;

/// Writes a layer of one large and many middling files, half of it incompressible.
fn write_layer(to: impl Write) -> Result<()> {
    let mut block = noise(7, 32 << 10);
    block.extend(b"the same line again and again\n".iter().copied().cycle().take(32 << 10));
    let mut tar = tar::Builder::new(BufWriter::with_capacity(1 << 20, to));
    let mut add = |name: String, size: u64| -> Result<()> {
        let mut header = tar::Header::new_ustar();
        header.set_size(size);
        header.set_mode(0o644);
        header.set_mtime(1_700_000_000);
        Ok(tar.append_data(&mut header, name, Repeat { block: &block, at: 0, left: size })?)
    };
    add("one".into(), LAYER / 2)?;
    for index in 0..1000 {
        add(format!("many/{index}"), LAYER / 2000)?;
    }
    tar.into_inner()?.flush()?;
    Ok(())
}

/// A block, over and over, with the round number in its first bytes.
struct Repeat<'a> {
    block: &'a [u8],
    at: usize,
    left: u64,
}

impl std::io::Read for Repeat<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let rest = &self.block[self.at..];
        let count = rest.len().min(buffer.len()).min(usize::try_from(self.left).unwrap_or(usize::MAX));
        buffer[..count].copy_from_slice(&rest[..count]);
        self.at = (self.at + count) % self.block.len();
        self.left -= count as u64;
        Ok(count)
    }
}

/// Extracts a layer, which holds so many bytes at least, and returns the most memory that was resident.
fn peak(layer: &Path, diff_id: Option<&str>, content: u64) -> Result<u64> {
    let scratch = Scratch::new()?;
    let dest = scratch.dir("dest")?;
    let cofferdam = Cofferdam::new(scratch.join("store"))?;
    let [layer, at] = [layer, &dest].map(|path| path.display().to_string());
    let mut arguments = vec!["layer", "extract"];
    if let Some(diff_id) = diff_id {
        arguments.extend(["--diff-id", diff_id]);
    }
    arguments.extend([&*layer, &at]);
    let run = cofferdam.ok(arguments)?;
    let bytes = cofferdam_tests::Snapshot::read(&dest)?.content_bytes();
    ensure!(bytes > content, "only {bytes} bytes were extracted");
    println!("{layer}: {} MiB at most, {:?}", run.usage.peak_rss >> 20, run.usage.wall);
    Ok(run.usage.peak_rss)
}

#[test]
fn extracting_500_megabytes_stays_below_128_mib() -> Result<()> {
    require!("gzip", "zstd");
    let scratch = Scratch::new()?;
    let plain = scratch.join("layer.tar");
    write_layer(File::create(&plain)?)?;
    ensure!(fs::metadata(&plain)?.len() > LAYER, "a small layer");
    let gzip = require::first_of(&["pigz", "gzip"]);
    for (program, extension, options) in [(gzip, "gz", &["-1"][..]), ("zstd".as_ref(), "zst", &["-q", "-3"])] {
        let path = scratch.join(format!("layer.tar.{extension}"));
        let mut compress = Command::new(program);
        compress
            .args(options)
            .arg("-c")
            .stdin(File::open(&plain)?)
            .stdout(File::create(&path)?)
            .stderr(Stdio::inherit());
        ensure!(compress.status().context("cannot compress")?.success(), "{compress:?} failed");
    }
    for name in ["layer.tar", "layer.tar.gz", "layer.tar.zst"] {
        let peak = peak(&scratch.join(name), None, LAYER / 2)?;
        ensure!(peak < CEILING, "{name} took {} MiB", peak >> 20);
    }
    Ok(())
}

/// Real layers: those of the small set, and the large ones where `cargo xtask images full` has made them.
#[test]
fn extracting_real_layers_stays_below_128_mib() -> Result<()> {
    const SMALL: [&str; 3] = ["base.tar", "python.tar.gz", "python.tar.zst"];
    const LARGE: [&str; 4] = ["big.tar", "big.tar.gz", "big.tar.zst", "node.tar.gz"];
    require!("root");
    let Some(images) = Images::with(&SMALL)? else { return Ok(()) };
    let large = LARGE.iter().filter(|name| paths::images().join("layers").join(name).exists());
    for name in SMALL.iter().chain(large) {
        let layer = images.layer(name)?;
        let peak = peak(&layer.path, Some(&layer.diff_id), layer.path.metadata()?.len() / 2)?;
        ensure!(peak < CEILING, "{name} took {} MiB", peak >> 20);
    }
    Ok(())
}

/// A configuration at the limit, most of it things that nobody asked for, takes about what its text takes.
#[test]
fn a_large_configuration_takes_little_memory() -> Result<()> {
    // As many values as fit, in the places where a reader that keeps what it does not need would pay the most for them.
    for (field, value) in [("history", "{}"), ("x", "0"), ("x", "{}"), ("x", "\"\"")] {
        let scratch = Scratch::new()?;
        let mut layout = OciLayout::create(scratch.join("layout"))?;
        let layer = layout.add_tar(&layers::tar(&[layers::Item::Dir("d/")])?)?;
        let many = vec![value; (8_300_000 - 1000) / (value.len() + 1)].join(",");
        let extra = format!(r#","{field}":[{many}]}}"#);
        layout.add_image_with("v1", &[layer], |config| {
            let text = String::from_utf8_lossy(&config).into_owned();
            [text.trim_end_matches('}'), "}", &extra].concat().into_bytes()
        })?;
        let cofferdam = Cofferdam::new(scratch.join("store"))?;
        let dest = scratch.join("out").display().to_string();
        let run = cofferdam.ok(["unpack", &layout.source("v1"), &dest])?;
        println!("{field} of {value}: {} MiB at most", run.usage.peak_rss >> 20);
        ensure!(run.usage.peak_rss < CEILING, "{field} of {value} took {} MiB", run.usage.peak_rss >> 20);
    }
    Ok(())
}
