//! The process behind a disk whose power will be cut: see `cofferdam_tests::power`.
//!
//! `power-disk MOUNTPOINT IMAGE LOG` mounts the disk over a file, says `ready`, and ends when it is unmounted.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use cofferdam_tests::power::{fuse, log};

fn main() -> Result<()> {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let [mountpoint, image, log] = arguments.as_slice() else { bail!("usage: power-disk MOUNTPOINT IMAGE LOG") };
    let image = File::options().read(true).write(true).open(image).context("cannot open the image")?;
    let log = log::Writer::create(Path::new(log))?;
    let device = fuse::mount(Path::new(mountpoint))?;
    let mut stdout = std::io::stdout();
    stdout.write_all(b"ready\n")?;
    stdout.flush()?;
    fuse::serve(device, image, log)
}
