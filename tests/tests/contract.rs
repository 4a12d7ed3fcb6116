//! The contract in `wit/` means what its version has always meant.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use sha2::{Digest as _, Sha256};

/// What a contract says: its words, without comments and without how they are laid out.
fn meaning(text: &str) -> String {
    let code = text.lines().map(|line| line.split_once("//").map_or(line, |(code, _)| code));
    code.flat_map(str::split_whitespace).collect::<Vec<_>>().join(" ")
}

fn digest(meanings: &[String]) -> String {
    let hash = Sha256::digest(meanings.join("\n"));
    hash.iter().fold("sha256:".to_owned(), |text, byte| format!("{text}{byte:02x}"))
}

#[test]
fn a_version_of_the_contract_never_changes_its_meaning() -> Result<()> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../wit");
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(&dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "wit") {
            files.insert(path.clone(), meaning(&fs::read_to_string(&path)?));
        }
    }
    let meanings: Vec<String> = files.into_values().collect();
    let package = meanings.iter().find_map(|text| text.strip_prefix("package cofferdam:layer@"));
    let (version, _) = package.and_then(|rest| rest.split_once(';')).context("no package")?;
    let frozen = fs::read_to_string(dir.join("frozen.txt"))?;
    let line = frozen.lines().find_map(|line| line.strip_prefix(version)?.strip_prefix(' '));
    let (line, now) = (line.with_context(|| format!("{version} is not in wit/frozen.txt"))?, digest(&meanings));
    ensure!(line == now, "the contract no longer says what {version} says: give it another version ({now})");
    Ok(())
}

#[test]
fn comments_and_layout_have_no_meaning() {
    let one = "package a:b@1.0.0;\n/// Says a lot.\ninterface i {\n    f: func(); // and more\n}\n";
    let other = "package a:b@1.0.0;\ninterface i { f: func(); }";
    assert_eq!(meaning(one), meaning(other));
    assert_ne!(meaning(one), meaning(&one.replace("f: func()", "f: func(x: u32)")));
}
