//! Every rule number that the repository cites stands in `docs/layer-rules.md`.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

use crate::paths;

/// Directories and documents that cite rules.
const PLACES: [&str; 9] =
    ["ARCHITECTURE.md", "README.md", "SECURITY.md", "docs", "fuzz", "guests", "host", "tests", "xtask"];

/// Collects the files below a path that people wrote.
fn sources(path: &Path, found: &mut Vec<std::path::PathBuf>) -> Result<()> {
    if path.is_dir() {
        for entry in fs::read_dir(path).with_context(|| format!("cannot read {}", path.display()))? {
            let entry = entry?;
            if entry.file_name() != "target" {
                sources(&entry.path(), found)?;
            }
        }
    } else if path.extension().is_some_and(|end| ["md", "rs", "scenario", "wit"].iter().any(|text| end == *text)) {
        found.push(path.to_path_buf());
    }
    Ok(())
}

/// Returns the numbers behind each "rule" or "rules" of a text: `rule 17`, `rules 8, 9 and 12`.
fn cited(text: &str) -> Vec<u32> {
    let text = text.to_lowercase();
    let mut numbers = Vec::new();
    for (at, _) in text.match_indices("rule") {
        let before = text[..at].chars().next_back();
        let mut rest = &text[at + "rule".len()..];
        rest = rest.strip_prefix('s').unwrap_or(rest);
        if before.is_some_and(char::is_alphanumeric) || !rest.starts_with(' ') {
            continue;
        }
        loop {
            rest = rest.trim_start_matches([',', ' ']);
            rest = rest.strip_prefix("and ").unwrap_or(rest);
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            // "rule 17th" or "rules 4x" would be no citation.
            if digits == 0 || rest[digits..].starts_with(char::is_alphanumeric) {
                break;
            }
            numbers.extend(rest[..digits].parse::<u32>());
            rest = &rest[digits..];
        }
    }
    numbers
}

#[test]
fn lists_of_numbers_are_read() {
    assert_eq!(cited("see Rules 8, 9 and 12; rule 3. An overrule 7, rule x, rules."), [8, 9, 12, 3]);
}

#[test]
fn every_rule_that_is_cited_exists() -> Result<()> {
    let document = fs::read_to_string(paths::workspace().join("docs/layer-rules.md"))?;
    let rules: BTreeSet<u32> =
        document.lines().filter_map(|line| line.strip_prefix("**Rule ")?.split_once(".**")?.0.parse().ok()).collect();
    ensure!(rules.iter().copied().eq(1..=26), "the document has the rules {rules:?}");
    let mut files = Vec::new();
    for place in PLACES {
        sources(&paths::workspace().join(place), &mut files)?;
    }
    let mut citations = 0;
    for file in files {
        let text = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        for number in cited(&text) {
            ensure!(rules.contains(&number), "{} cites rule {number}, which docs/layer-rules.md lacks", file.display());
            citations += 1;
        }
    }
    // Fewer would mean that the search does not find them any more.
    ensure!(citations > 500, "only {citations} citations were found");
    Ok(())
}
