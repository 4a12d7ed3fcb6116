//! What inspectors cost: pulls of one image with none, one and several of them looking on.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use cofferdam_tests::{Images, plugins, usage};

use super::disk::Disk;
use super::{Row, tools};

/// Who looks on. The last one is Python, in a component.
const PANELS: [&[&str]; 5] = [&[], &["setuid-policy"], &["sbom"], &["setuid-policy", "sbom"], &["debian-licenses"]];

/// The image that is pulled: the one with the most files that is there.
const TAGS: [&str; 3] = ["node", "python", "base"];

/// Pulls from a layout into a new store each time, one panel after the other. Says which image it was.
pub(super) fn measure(images: &Images, binary: &Path, work: &Path, rounds: usize) -> Result<(String, Vec<Row>)> {
    let tag = TAGS.into_iter().find(|tag| images.manifest("store", tag).is_ok()).context("no image to pull")?;
    let source = images.source("store", tag);
    let mut dirs = vec![plugins::example("setuid-policy")?, plugins::example("sbom")?];
    dirs.extend(plugins::in_python()?);
    let disk = Disk::new(work)?;
    let name = |panel: &[&str]| if panel.is_empty() { "no inspector".to_owned() } else { panel.join(", ") };
    let mut rows: Vec<Row> = PANELS.iter().map(|panel| Row { name: name(panel), runs: Vec::new() }).collect();
    for round in 0..rounds {
        for (number, (panel, row)) in PANELS.iter().zip(&mut rows).enumerate() {
            if panel.contains(&"debian-licenses") && dirs.len() < 3 {
                continue;
            }
            eprintln!("inspectors, round {} of {rounds}: {}", round + 1, row.name);
            let store = disk.path().join(format!("{number}-{round}"));
            fs::create_dir(&store)?;
            for dir in &dirs {
                succeed(tools::ours(binary, &store).args(["plugin", "add"]).arg(dir))?;
            }
            let config = work.join("inspectors.toml");
            let settings = if panel.contains(&"setuid-policy") {
                "[policy.settings.setuid-policy]\nmode = 'report'\n"
            } else {
                ""
            };
            fs::write(&config, format!("[[policy]]\nimages = ['**']\ninspect = {panel:?}\n{settings}"))?;
            rustix::fs::sync();
            let mut command = tools::ours(binary, &store);
            command.args(["--progress", "none", "pull", "--durability", "none", &source, "--config"]).arg(&config);
            command.stdout(std::process::Stdio::null());
            let run = usage::measure(&mut command)?;
            ensure!(run.status.success(), "the pull ended with {}", run.status);
            row.runs.push(run);
        }
    }
    rows.retain(|row| !row.runs.is_empty());
    Ok((tag.to_owned(), rows))
}

fn succeed(command: &mut Command) -> Result<()> {
    let output = command.output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
