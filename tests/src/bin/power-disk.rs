//! The process behind a disk whose power will be cut: see `cofferdam_tests::power`.
//!
//! `power-disk IMAGE LOG` serves the disk that is mounted already, by `/dev/fuse` as its standard input; it says `ready`, and
//! ends when the disk is unmounted. It has to be started in a mount namespace of its own, which it empties.

use std::fs::File;
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use cofferdam_tests::power::{fuse, log};
use cofferdam_tests::registry::run;

fn main() -> Result<()> {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let [image, log] = arguments.as_slice() else { bail!("usage: power-disk IMAGE LOG") };
    let image = File::options().read(true).write(true).open(image).context("cannot open the image")?;
    let log = log::Writer::create(Path::new(log))?;
    let device = File::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    // A process that is killed gives up its mounts before it closes its files. Were the disk's file system among them, the
    // kernel would wait here for answers that are to come from this process, for ever, and each `sync` of the machine with it.
    run(Command::new("umount").args(["--lazy", "/"]))?;
    let mut stdout = std::io::stdout();
    stdout.write_all(b"ready\n")?;
    stdout.flush()?;
    fuse::serve(device, image, log)
}
