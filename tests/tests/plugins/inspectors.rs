//! Inspectors: what they see, refuse and report, and when they are asked.

use std::fs;
use std::process::Command;

use anyhow::{Result, ensure};
use cofferdam_tests::cofferdam::exit;
use cofferdam_tests::layers::Item;
use cofferdam_tests::{Images, plugins};
use serde_json::Value;

use crate::bench::{Bench, setuid};

/// A refused layer leaves no tree and no name, as any other refusal does.
#[test]
fn an_inspector_refuses_an_image() -> Result<()> {
    let mut bench = Bench::new()?;
    bench.add("setuid-policy")?;
    let image = bench.image("v1", &[Item::Dir("bin/"), setuid("bin/su")])?;
    let refused = bench.cofferdam.fails(exit::REFUSED, ["pull", &image, "--inspect", "setuid-policy"])?;
    ensure!(refused.err().contains("setuid-policy") && refused.err().contains("`bin/su`"), "{}", refused.err());
    ensure!(fs::read_dir(bench.cofferdam.store().join("extracted"))?.next().is_none(), "a tree is left");
    let images = bench.cofferdam.ok(["images", "--json"])?.json()?;
    ensure!(images["images"] == Value::Array(Vec::new()), "{images}");
    // Nobody is asked unless somebody says so.
    bench.cofferdam.ok(["pull", &image])?;
    // And the tree that is there now does not keep an inspector from being asked.
    let refused = bench.cofferdam.fails(exit::REFUSED, ["pull", &image, "--inspect", "setuid-policy"])?;
    ensure!(refused.err().contains("`bin/su`"), "{}", refused.err());
    Ok(())
}

/// Hard links to an allowed file, by every way by which the tree gets them, and what a symbolic link moves elsewhere.
#[test]
fn links_do_not_hide_a_setuid_file() -> Result<()> {
    let mut bench = Bench::new()?;
    bench.add("setuid-policy")?;
    let config = bench.config(
        "[[policy]]\nimages = ['**']\ninspect = ['setuid-policy']\n\
         [policy.settings.setuid-policy]\nallow = 'usr/bin/su opt/**'\n",
    )?;
    let config = config.display().to_string();
    let su = || setuid("usr/bin/su");
    for (tag, items, path) in [
        ("first", [Item::Hardlink("tmp/evil", "usr/bin/su"), Item::Dir("usr/"), su()], "`tmp/evil`"),
        ("through", [su(), Item::Symlink("l", "usr/bin"), Item::Hardlink("tmp/evil", "l/su")], "`tmp/evil`"),
        ("moved", [su(), Item::Symlink("opt/l", "/usr/bin"), setuid("opt/l/evil")], "`opt/l/evil`"),
    ] {
        let image = bench.image(tag, &items)?;
        let refused = bench.cofferdam.fails(exit::REFUSED, ["pull", &image, "--config", &config])?;
        ensure!(refused.err().contains("setuid-policy") && refused.err().contains(path), "{tag}: {}", refused.err());
    }
    let image = bench.image("fine", &[su(), setuid("opt/evil"), Item::Symlink("l", "usr/bin")])?;
    bench.cofferdam.ok(["pull", &image, "--config", &config])?;
    Ok(())
}

/// A report is kept beside the tree: made once for a layer, a component and its settings, and again when one of them is new.
#[test]
fn reports_are_kept_and_made_again() -> Result<()> {
    let mut bench = Bench::new()?;
    bench.add("setuid-policy")?;
    let image = bench.image("v1", &[Item::Dir("bin/"), setuid("bin/su"), Item::File("bin/ls", b"ls".to_vec())])?;
    let config = |mode: &str, allow: &str| {
        format!(
            "[[policy]]\nimages = ['**']\ninspect = ['setuid-policy']\n\
             [policy.settings.setuid-policy]\nmode = '{mode}'\nallow = '{allow}'\n"
        )
    };
    let reporting = bench.config(&config("report", ""))?.display().to_string();
    bench.cofferdam.ok(["pull", &image, "--config", &reporting])?;
    let report = bench.report(&image, "setuid-policy")?;
    ensure!(report.to_string().contains("bin/su") && !report.to_string().contains("bin/ls"), "{report}");
    let reports = |count: usize| -> Result<()> {
        let inspected = bench.inspect(&image)?;
        let found = inspected["reports"].as_array().map_or(0, Vec::len);
        ensure!(found == count, "{found} reports: {inspected}");
        Ok(())
    };
    bench.cofferdam.ok(["pull", &image, "--config", &reporting])?;
    reports(1)?;
    let allowing = bench.config(&config("refuse", "bin/su"))?.display().to_string();
    bench.cofferdam.ok(["pull", &image, "--config", &allowing])?;
    reports(2)?;
    // Damage is noticed, and the layer is inspected again.
    let records = bench.cofferdam.store().join("records");
    let kept = fs::read_dir(&records)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|ending| ending == "reports"));
    let Some(kept) = kept else { anyhow::bail!("no file of reports in {}", records.display()) };
    fs::write(&kept, b"[]")?;
    reports(0)?;
    bench.cofferdam.ok(["pull", &image, "--config", &allowing])?;
    reports(1)?;
    // What is kept about a layer goes with it.
    bench.cofferdam.ok(["fsck"])?;
    bench.cofferdam.ok(["rm", &image])?;
    ensure!(!kept.exists(), "{} is left", kept.display());
    Ok(())
}

/// Layers that are already there as blobs, and a blob that is damaged: an inspector is shown verified bytes, or the pull fails.
#[test]
fn an_inspector_is_shown_the_layer_itself() -> Result<()> {
    let mut bench = Bench::new()?;
    bench.add("setuid-policy")?;
    let image = bench.image("v1", &[Item::File("a", b"a".to_vec())])?;
    bench.cofferdam.ok(["pull", &image])?;
    let layers = bench.cofferdam.store().join("layers");
    for blob in fs::read_dir(&layers)? {
        fs::write(blob?.path(), b"something else")?;
    }
    bench.cofferdam.fails(exit::INTEGRITY, ["pull", &image, "--inspect", "setuid-policy"])?;
    Ok(())
}

/// The packages of a real image, as `CycloneDX` by its own schema.
#[test]
fn the_bill_of_materials_of_a_real_image() -> Result<()> {
    let Some(python) = plugins::python() else { return Ok(()) };
    let Some(images) = Images::with(&["base.tar.gz"])? else { return Ok(()) };
    let bench = Bench::new()?;
    bench.add("sbom")?;
    let image = images.source("store", "base");
    bench.cofferdam.ok(["pull", &image, "--inspect", "sbom"])?;
    let report = bench.report(&image, "sbom")?;
    let components = report["components"].as_array().cloned().unwrap_or_default();
    let named = |name: &str| components.iter().any(|component| component["name"] == name);
    ensure!(components.len() > 50 && named("bash") && named("libc6"), "{} components", components.len());
    ensure!(components.iter().all(|c| c["purl"].as_str().is_some_and(|purl| purl.starts_with("pkg:deb/"))), "a purl");
    let file = bench.scratch.join("bom.json");
    fs::write(&file, serde_json::to_vec(&report)?)?;
    let script = plugins::workspace().join("sbom/validate.py");
    let output = Command::new(python).arg(script).arg(&file).output()?;
    ensure!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// A layer that installs packages on another has no `os-release`: a person says which distribution it is.
#[test]
fn the_distribution_of_a_layer_without_os_release() -> Result<()> {
    let mut bench = Bench::new()?;
    bench.add("sbom")?;
    let status = "Package: curl\nStatus: install ok installed\nArchitecture: amd64\nVersion: 8.5.0-2\n";
    let image = bench.image("v1", &[Item::File("var/lib/dpkg/status", status.as_bytes().to_vec())])?;
    bench.cofferdam.ok(["pull", &image, "--inspect", "sbom"])?;
    let component = bench.report(&image, "sbom")?["components"][0].clone();
    ensure!(component["name"] == "curl" && component["purl"] == Value::Null, "{component}");
    let config = bench.config(
        "[[policy]]\nimages = ['**']\ninspect = ['sbom']\n[policy.settings.sbom]\ndistribution = 'ubuntu-24.04'\n",
    )?;
    bench.cofferdam.ok(["pull", &image, "--config", &config.display().to_string()])?;
    // The reports of both settings are kept.
    let reports = bench.inspect(&image)?["reports"].to_string();
    ensure!(reports.contains("pkg:deb/ubuntu/curl@8.5.0-2?arch=amd64&distro=ubuntu-24.04"), "{reports}");
    Ok(())
}

/// The contract is WIT, not Rust: a plugin in Python.
#[test]
fn an_inspector_in_python() -> Result<()> {
    let Some(dir) = plugins::in_python()? else { return Ok(()) };
    let mut bench = Bench::new()?;
    bench.cofferdam.ok(["plugin", "add", &dir.display().to_string(), "--all-asked"])?;
    let copyright = "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\n\
        Files: *\nCopyright: 2026 Somebody\nLicense: AGPL-3\n";
    let image = bench.image(
        "v1",
        &[
            Item::Dir("usr/"),
            Item::Dir("usr/share/"),
            Item::Dir("usr/share/doc/"),
            Item::Dir("usr/share/doc/app/"),
            Item::File("usr/share/doc/app/copyright", copyright.as_bytes().to_vec()),
        ],
    )?;
    bench.cofferdam.ok(["pull", &image, "--inspect", "debian-licenses"])?;
    let report = bench.report(&image, "debian-licenses")?.to_string();
    ensure!(report.contains("AGPL-3") && report.contains("app"), "{report}");
    let config = bench.config(
        "[[policy]]\nimages = ['**']\ninspect = ['debian-licenses']\n\
         [policy.settings.debian-licenses]\ndeny = 'AGPL-*'\n",
    )?;
    let config = config.display().to_string();
    let refused = bench.cofferdam.fails(exit::REFUSED, ["pull", &image, "--config", &config])?;
    ensure!(refused.err().contains("AGPL-3"), "{}", refused.err());
    Ok(())
}
