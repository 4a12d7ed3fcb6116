//! `cargo xtask conformance`: every scenario by every implementation, as a table.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{IsTerminal as _, Write as _};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, Result, bail};
use cofferdam_tests::conformance::peers::Peer;
use cofferdam_tests::conformance::{self, Lab, Verdict, Way, containerd};
use cofferdam_tests::{cofferdam as ours, paths, require};

use crate::{setup, table};

/// What one way made of one scenario.
type Results = BTreeMap<String, Vec<Verdict>>;

/// The verb.
pub(crate) fn run(words: &[&str]) -> Result<()> {
    let (mut write, mut alone, mut filter) = (false, false, "");
    for word in words {
        match *word {
            "--write" => write = true,
            "--alone" => alone = true,
            flag if flag.starts_with('-') => bail!("unknown option {flag}; see `cargo xtask help`"),
            text => filter = text,
        }
    }
    if write && (alone || !filter.is_empty()) {
        bail!("--write wants every scenario and every tool");
    }
    if !require::is_root() {
        bail!("owners, devices and attributes need root");
    }
    if !alone {
        let missing = setup::tools(setup::FOR_CONFORMANCE)?;
        if write && !missing.is_empty() {
            bail!("--write wants every tool, and these are not installed: {}", missing.join(", "));
        }
        if !missing.is_empty() {
            eprintln!("not compared, since they are not installed: {}", missing.join(", "));
        }
    }
    ours::binary()?;
    let peers: Vec<_> = Peer::ALL.into_iter().filter(|peer| !alone && peer.version().is_some()).collect();
    let ways: Vec<_> = Way::OURS.into_iter().chain(peers.iter().map(|&peer| Way::Peer(peer))).collect();
    let names: Vec<_> = conformance::names()?.into_iter().filter(|name| name.contains(filter)).collect();
    let results = measure(&names, &ways);
    containerd::stop();
    let results = results?;
    let report = report(&results, &ways, &peers);
    println!("{}", summary(&results, &ways));
    if write {
        let file = paths::workspace().join("CONFORMANCE.md");
        fs::write(&file, report)?;
        println!("written: {}", file.display());
    }
    let reasons = paths::target().join("conformance.txt");
    fs::write(&reasons, explain(&results, &ways))?;
    println!("what went wrong, and where: {}", reasons.display());
    let failed = |verdicts: &Vec<Verdict>| verdicts[..Way::OURS.len()].iter().any(|v| matches!(v, Verdict::Failed(_)));
    match results.values().filter(|verdicts| failed(verdicts)).count() {
        0 => Ok(()),
        count => bail!("{count} scenarios fail"),
    }
}

fn measure(names: &[String], ways: &[Way]) -> Result<Results> {
    let next = AtomicUsize::new(0);
    let results = Mutex::new(Ok(Results::new()));
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some(name) = names.get(index) else { return };
                    if std::io::stderr().is_terminal() {
                        eprint!("\r{} of {}", index + 1, names.len());
                        let _ = std::io::stderr().flush();
                    }
                    let verdicts = ways.iter().map(|&way| verdict(name, way)).collect::<Result<Vec<_>>>();
                    let Ok(mut results) = results.lock() else { return };
                    match (verdicts, &mut *results) {
                        (Ok(verdicts), Ok(all)) => _ = all.insert(name.clone(), verdicts),
                        (Err(error), Ok(_)) => *results = Err(error),
                        _ => {}
                    }
                }
            });
        }
    });
    if std::io::stderr().is_terminal() {
        eprintln!();
    }
    results.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn verdict(name: &str, way: Way) -> Result<Verdict> {
    Lab::new(name, way)?.run().with_context(|| format!("{name} by {}", way.name()))
}

/// How many scenarios each way passes, by theme.
fn summary(results: &Results, ways: &[Way]) -> String {
    let mut head = vec!["theme"];
    head.extend(ways.iter().map(|way| way.name()));
    let mut rows = Vec::new();
    for theme in themes(results).into_iter().chain([String::new()]) {
        let verdicts = || results.iter().filter(|(name, _)| name.starts_with(&theme)).map(|(_, verdicts)| verdicts);
        let mut row = vec![if theme.is_empty() { "all".to_owned() } else { theme.clone() }];
        for column in 0..ways.len() {
            let of = |wanted: fn(&Verdict) -> bool| verdicts().filter(|verdicts| wanted(&verdicts[column])).count();
            let passed = of(|verdict| *verdict == Verdict::Passed);
            let failed = of(|verdict| matches!(verdict, Verdict::Failed(_)));
            row.push(format!("{passed}/{}", passed + failed));
        }
        rows.push(row);
    }
    table::render(&head, &rows)
}

fn themes(results: &Results) -> Vec<String> {
    let mut themes: Vec<_> = results.keys().filter_map(|name| Some(name.split_once('/')?.0.to_owned())).collect();
    themes.dedup();
    themes
}

fn mark(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Passed => "✓",
        Verdict::Failed(why) if why.starts_with("ESCAPED") => "escaped",
        Verdict::Failed(_) => "✗",
        Verdict::NotApplicable(_) => "–",
    }
}

fn report(results: &Results, ways: &[Way], peers: &[Peer]) -> String {
    let mut text = INTRODUCTION.to_owned();
    for peer in peers {
        let _ = writeln!(text, "* {}: {}", peer.name(), peer.version().unwrap_or_default());
    }
    let _ = write!(
        text,
        "\n## Summary\n\nScenarios passed, of those that the way can express.\n\n{}",
        summary(results, ways)
    );
    let mut head = vec!["scenario"];
    head.extend(ways.iter().map(|way| way.name()));
    for theme in themes(results) {
        let prefix = format!("{theme}/");
        let of_theme = results.iter().filter_map(|(name, verdicts)| Some((name.strip_prefix(&prefix)?, verdicts)));
        let rows: Vec<_> = of_theme
            .map(|(name, verdicts)| {
                let link = format!("[{name}](tests/conformance/{prefix}{name}.scenario)");
                std::iter::once(link).chain(verdicts.iter().map(|verdict| mark(verdict).to_owned())).collect()
            })
            .collect();
        let _ = write!(text, "\n## {theme}\n\n{}", table::render(&head, &rows));
    }
    text
}

fn explain(results: &Results, ways: &[Way]) -> String {
    let mut text = String::new();
    for (name, verdicts) in results {
        for (way, verdict) in ways.iter().zip(verdicts) {
            if let Verdict::Failed(why) = verdict {
                let _ = writeln!(text, "{name}: {}: {why}", way.name());
            }
        }
    }
    text
}

const INTRODUCTION: &str = "\
# Conformance

What extracting a layer means is tested by scenarios: layers written entry by entry, and what must become of them.
[tests/conformance](tests/conformance/README.md) holds them, one small file each. This table is made by
`cargo xtask conformance --write`, as root, on the machine where it is run; nothing in it is edited by hand.

The first nine columns are Cofferdam's: `apply` puts layers on top of each other, `preserve` and `overlay` extract the last
one alone (as overlays, all layers are also mounted and compared), `copy` merges preserved trees, `unpack` applies the
layers of an image, `mount` shows what overlayfs makes of its `mount-spec`; `user` and `user copy` do so without privileges, with what an ordinary user cannot make noted in
`user.containers.override_stat`, `userns` as the root of a user namespace that maps nobody else. The others are other tools, held to the same rules, which are stricter than what they promise; how
they refuse is their own affair. Ours run with a umask of 077, which must not show, the others with 022.

✓ as the rules say · ✗ otherwise · **escaped**: something outside of the destination changed · – cannot be expressed: GNU
tar and bsdtar know no whiteouts

";
