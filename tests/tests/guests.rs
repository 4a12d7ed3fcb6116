//! The guests that ship with the binary import our interfaces and nothing else: no WASI, no authority.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Context as _, Result, bail, ensure};
use cofferdam_tests::cofferdam::exit;
use cofferdam_tests::{Cofferdam, Scratch};
use wasmparser::{ComponentTypeRef, Parser, Payload, TypeBounds};

/// What a component imports and exports at its top level.
fn interface(bytes: &[u8]) -> Result<(BTreeSet<String>, BTreeSet<String>)> {
    ensure!(Parser::is_component(bytes), "not a component");
    let (mut imports, mut exports, mut depth) = (BTreeSet::new(), BTreeSet::new(), 0);
    for payload in Parser::new(0).parse_all(bytes) {
        match payload? {
            Payload::Version { .. } => depth += 1,
            Payload::End(_) => depth -= 1,
            Payload::ComponentImportSection(section) if depth == 1 => {
                for import in section {
                    let import = import?;
                    // A name for a type that is defined elsewhere grants nothing; anything else counts.
                    if !matches!(import.ty, ComponentTypeRef::Type(TypeBounds::Eq(_))) {
                        imports.insert(import.name.name.to_owned());
                    }
                }
            }
            Payload::ComponentExportSection(section) if depth == 1 => {
                for export in section {
                    exports.insert(export?.name.name.to_owned());
                }
            }
            _ => {}
        }
    }
    Ok((imports, exports))
}

/// What each guest may import of `cofferdam:layer`. A new import is a decision, made here.
fn granted(guest: &str) -> Result<&'static [&'static str]> {
    Ok(match guest {
        "gunzip" => &["types", "input", "output", "log"],
        "unzstd" => &["types", "input", "output", "log", "bounds"],
        "untar" => &["types", "input", "tree", "log", "bounds"],
        other => bail!("nobody has said what the guest `{other}` may import"),
    })
}

#[test]
fn each_guest_imports_our_interfaces_only() -> Result<()> {
    let scratch = Scratch::new()?;
    let cofferdam = Cofferdam::new(scratch.join("store"))?;
    let dir = scratch.join("guests");
    cofferdam.ok(["guest", "export", &dir.display().to_string()])?;
    let mut seen = BTreeSet::new();
    for entry in fs::read_dir(&dir)? {
        let path = entry?.path();
        let guest = path.file_stem().context("no name")?.to_string_lossy().into_owned();
        ensure!(path.extension().is_some_and(|extension| extension == "wasm"), "{} is no guest", path.display());
        let (imports, exports) = interface(&fs::read(&path)?).with_context(|| guest.clone())?;
        let granted = granted(&guest)?;
        for import in &imports {
            let name = import.strip_prefix("cofferdam:layer/").and_then(|rest| rest.split('@').next());
            ensure!(name.is_some_and(|name| granted.contains(&name)), "{guest} imports {import}");
        }
        ensure!(imports.iter().any(|import| import.starts_with("cofferdam:layer/input")), "{guest} reads no input?");
        ensure!(!exports.is_empty(), "{guest} exports nothing");
        seen.insert(guest);
    }
    let all = ["gunzip", "untar", "unzstd"].map(str::to_owned);
    ensure!(seen == all.into(), "exported: {seen:?}");
    Ok(())
}

#[test]
fn every_guest_is_listed_and_can_be_inspected() -> Result<()> {
    let scratch = Scratch::new()?;
    let cofferdam = Cofferdam::new(scratch.join("store"))?;
    let list = cofferdam.ok(["guest", "list", "--json"])?.json()?.to_string();
    for guest in ["gunzip", "untar", "unzstd"] {
        ensure!(list.contains(&format!("\"{guest}\"")), "{guest} is not listed: {list}");
        let inspected = cofferdam.ok(["guest", "inspect", guest])?.out();
        ensure!(inspected.contains("cofferdam:layer/input"), "no imports in:\n{inspected}");
        ensure!(!inspected.contains("wasi:"), "{inspected}");
        cofferdam.ok(["guest", "inspect", guest, "--json"])?.json()?;
    }
    let unknown = cofferdam.run(["guest", "inspect", "no-such-guest"])?;
    unknown.expect_one_of(&[exit::USAGE, exit::NOT_FOUND])?.has_hint()?;
    Ok(())
}
