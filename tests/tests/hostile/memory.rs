//! What the host takes while it is attacked: bounded, whatever the guest does.

use std::env;
use std::fs;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use crate::attack::{Attack, Scene};
use crate::{claims, engine, streams};

/// The memory of a decoder, and as much again for the host.
const CEILING: u64 = 512 << 20;

/// One process runs all attacks one after the other, and tells the most memory that was resident during each.
#[test]
fn host_memory_is_bounded_under_every_attack() -> Result<()> {
    let output = Command::new(env::current_exe()?)
        .args(["--exact", "memory::every_attack", "--ignored", "--nocapture"])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start the attacks")?;
    let text = String::from_utf8(output.stdout)?;
    ensure!(output.status.success(), "the attacks ended with {}:\n{text}", output.status);
    let mut peaks = Vec::new();
    for line in text.lines().filter_map(|line| line.strip_prefix("peak\t")) {
        let (bytes, name) = line.split_once('\t').context("no name")?;
        peaks.push((bytes.parse::<u64>()?, name));
    }
    ensure!(peaks.len() > 200, "only {} attacks", peaks.len());
    let (most, name) = *peaks.iter().max().context("nothing was measured")?;
    println!("{} attacks; the most memory was {} MiB, for: {name}", peaks.len(), most >> 20);
    ensure!(most < CEILING, "{name} took {} MiB", most >> 20);
    // A decoder that takes all that it may have is seen: the measure is not blind.
    ensure!(most > 200 << 20, "no attack took more than {} MiB", most >> 20);
    Ok(())
}

#[test]
#[ignore = "the attacks whose memory is measured, started by the test that measures"]
fn every_attack() -> Result<()> {
    let attacks: Vec<Attack> = [
        claims::paths_out_of_the_root(),
        claims::paths_without_measure(),
        claims::roots(),
        claims::links_out_of_the_root(),
        claims::sizes(),
        claims::numbers(),
        claims::lists(),
        claims::counts(),
        streams::reads(),
        streams::loops(),
        streams::idleness(),
        engine::lies(),
        engine::callbacks(),
        engine::resources(),
    ]
    .concat();
    let scene = Scene::new()?;
    for attack in attacks {
        let mode = attack.modes()[0];
        let dest = scene.dest(mode)?;
        // Forgets the peak so far (proc(5), `clear_refs`).
        fs::write("/proc/self/clear_refs", "5").context("cannot reset the peak")?;
        attack.judge(attack.unpack(&dest, mode)?, mode)?;
        println!("peak\t{}\t{}", peak()?, attack.name);
    }
    Ok(())
}

/// The most memory that was resident, in bytes.
fn peak() -> Result<u64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? << 10)
}
