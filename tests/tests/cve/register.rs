//! Every advisory has a test of its name.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use cofferdam_tests::{paths, store};

/// Every identifier of the contract's third section.
const ADVISORIES: [&str; 52] = [
    "CVE-2014-9356",
    "CVE-2014-9357",
    "CVE-2014-9358",
    "CVE-2017-14992",
    "CVE-2018-15664",
    "CVE-2018-20990",
    "CVE-2019-14271",
    "CVE-2021-21272",
    "CVE-2021-29136",
    "CVE-2021-32760",
    "CVE-2021-38511",
    "CVE-2021-41091",
    "CVE-2022-2879",
    "CVE-2024-3727",
    "CVE-2024-25621",
    "CVE-2025-4517",
    "CVE-2025-47290",
    "CVE-2025-58183",
    "CVE-2025-62518",
    "CVE-2026-11940",
    "CVE-2026-17106",
    "CVE-2026-32288",
    "CVE-2026-32766",
    "CVE-2026-33055",
    "CVE-2026-33056",
    "CVE-2026-41567",
    "CVE-2026-46703",
    "CVE-2026-47218",
    "CVE-2026-50163",
    "CVE-2026-53486",
    "CVE-2026-53655",
    "CVE-2026-59874",
    "CVE-2026-59875",
    "CVE-2026-95838",
    "CVE-2026-95839",
    "GHSA-3pv8-6f4r-ffg2",
    "GHSA-3wgq-wrwc-vqmv",
    "GHSA-697p-8837-37h3",
    "GHSA-7pxx-6hq6-x3jj",
    "GHSA-f689-h8m7-3jp2",
    "GHSA-g3rx-2m58-rr63",
    "GHSA-gcpm-8w8q-gp9v",
    "GHSA-m9f7-9w4p-gv38",
    "GHSA-vgfc-2cjj-9qwc",
    "GHSA-vqjp-4c8c-hfgg",
    "RUSTSEC-2026-0112",
    "RUSTSEC-2026-0113",
    "RUSTSEC-2026-0145",
    "boxlite: owners truncated",
    "containerd 0205398ac",
    "moby#53299",
    "nbc#85",
];

#[test]
fn every_advisory_has_a_test_of_its_name() -> Result<()> {
    let names = test_names()?;
    // Else nothing was found because nothing was read.
    ensure!(names.contains(&plain("every_advisory_has_a_test_of_its_name")), "this test is not among the tests");
    let without: Vec<_> = ADVISORIES.iter().filter(|id| !names.iter().any(|name| holds(name, &plain(id)))).collect();
    ensure!(without.is_empty(), "no test is named after {without:?}");
    ensure!(!names.iter().any(|name| holds(name, "cve_1999_1")), "names are compared wrongly");
    Ok(())
}

/// Whether a name holds an identifier that does not go on in it: `cve_2022_2879` is not in `cve_2022_28790`.
fn holds(name: &str, id: &str) -> bool {
    name.match_indices(id).any(|(at, _)| {
        let before = name[..at].chars().next_back();
        let after = name[at + id.len()..].chars().next();
        [before, after].into_iter().flatten().all(|c| !c.is_ascii_alphanumeric())
    })
}

/// In lower case, words joined by `_`.
fn plain(text: &str) -> String {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    words.collect::<Vec<_>>().join("_").to_ascii_lowercase()
}

/// The names of all scenarios and of all functions under `#[test]`.
fn test_names() -> Result<BTreeSet<String>> {
    let mut names: BTreeSet<_> = cofferdam_tests::conformance::names()?.iter().map(|name| plain(name)).collect();
    let root = paths::workspace();
    let mut todo: Vec<PathBuf> = ["host", "guests", "tests/src", "tests/tests"].map(|dir| root.join(dir)).into();
    while let Some(path) = todo.pop() {
        if path.is_dir() {
            for name in store::list(&path)?.iter().filter(|name| *name != "target") {
                todo.push(path.join(name));
            }
        } else if path.extension().is_some_and(|end| end == "rs") {
            let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
            let mut marked = false;
            for line in text.lines().map(str::trim) {
                let function = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ");
                if line == "#[test]" || line.starts_with("#[tokio::test") {
                    marked = true;
                } else if line.starts_with("#[ignore") {
                    marked = false;
                } else if let Some(function) = function {
                    let name = function.split(['(', '<']).next().unwrap_or_default();
                    names.extend(marked.then(|| plain(name)));
                    marked = false;
                }
            }
        }
    }
    Ok(names)
}
