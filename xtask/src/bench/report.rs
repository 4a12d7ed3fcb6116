//! The figures as Markdown, and their place in BENCHMARKS.md.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};
use cofferdam_tests::paths;
use cofferdam_tests::require::find;
use cofferdam_tests::usage::Usage;
use serde_json::Value;

use super::{GuestStart, Row, Section};
use crate::{sh, table};

const BEGIN: &str = "<!-- bench:begin -->";
const END: &str = "<!-- bench:end -->";
/// What ratios are relative to.
const YARDSTICK: &str = "tar xzf";

/// Everything measured, with what it was measured on.
pub(super) fn render(
    sections: &[Section],
    start: &GuestStart,
    durability: &[Row],
    inspectors: &(String, Vec<Row>),
    binary: &Path,
    rounds: usize,
) -> Result<String> {
    let mut text = machine(binary, rounds)?;
    for section in sections {
        let rows = &section.rows;
        let yardstick = rows.iter().find(|row| row.name == YARDSTICK);
        let lines: Vec<_> = rows
            .iter()
            .map(|row| {
                let ratio = |of: fn(&Usage) -> std::time::Duration| {
                    yardstick.map_or_else(String::new, |base| format!("{:.2}", row.median(of) / base.median(of)))
                };
                vec![
                    row.name.clone(),
                    format!("{:.2}", row.median(|run| run.wall)),
                    ratio(|run| run.wall),
                    format!("{:.2}", row.median(Usage::cpu)),
                    ratio(Usage::cpu),
                    row.peak_mib().to_string(),
                ]
            })
            .collect();
        let head = ["tool", "wall s", "× tar", "CPU s", "× tar", "peak MiB"];
        let (name, entries, bytes) = (&section.layer, section.entries, section.bytes / 1_000_000);
        writeln!(text, "\n### {name}: {entries} entries, {bytes} MB as gzip\n\n{}", table::render(&head, &lines))?;
    }
    writeln!(text, "\n### What durability costs\n\n{}", durability_table(durability))?;
    let (image, inspectors) = inspectors;
    let title = format!("pull of the image `{image}` into a new store");
    writeln!(text, "\n### What inspectors cost\n\n{}", cost_table(&title, "× none", inspectors))?;
    write!(text, "\n### Loading the guests, second start\n\n{}", start_table(start))?;
    Ok(text)
}

fn durability_table(rows: &[Row]) -> String {
    cost_table("a new store, three layers", "× none", rows)
}

/// Medians, and ratios to the first row.
fn cost_table(title: &str, ratio: &str, rows: &[Row]) -> String {
    let lines: Vec<_> = rows
        .iter()
        .map(|row| {
            let factor =
                rows.first().map_or(f64::NAN, |first| row.median(|run| run.wall) / first.median(|run| run.wall));
            vec![row.name.clone(), format!("{:.2}", row.median(|run| run.wall)), format!("{factor:.2}")]
        })
        .collect();
    table::render(&[title, "wall s", ratio], &lines)
}

fn start_table(start: &GuestStart) -> String {
    let mut rows: Vec<_> =
        start.reported.iter().map(|(guest, time)| vec![format!("load {guest}"), format!("{time:.2}")]).collect();
    let whole = start.process.median(|run| run.wall) * 1e3;
    rows.push(vec!["whole process `cofferdam guest list`".into(), format!("{whole:.2}")]);
    table::render(&["what", "ms"], &rows)
}

/// Numbers in a JSON document whose names speak of loading, with the name of the guest that they stand beside.
pub(super) fn load_times(json: &[u8]) -> Vec<(String, f64)> {
    fn collect(value: &Value, guest: &str, found: &mut Vec<(String, f64)>) {
        match value {
            Value::Array(items) => items.iter().for_each(|item| collect(item, guest, found)),
            Value::Object(fields) => {
                let guest = fields.get("name").and_then(Value::as_str).unwrap_or(guest);
                for (key, value) in fields {
                    match value.as_f64() {
                        Some(number) if key.contains("load") => {
                            // Milliseconds, unless the name says otherwise.
                            let scale = if key.ends_with("_us") || key.contains("micro") { 1e-3 } else { 1.0 };
                            found.push((guest.to_owned(), number * scale));
                        }
                        _ => collect(value, guest, found),
                    }
                }
            }
            _ => {}
        }
    }
    let mut found = Vec::new();
    if let Ok(value) = serde_json::from_slice(json) {
        collect(&value, "all", &mut found);
    }
    found
}

fn machine(binary: &Path, rounds: usize) -> Result<String> {
    let uname = rustix::system::uname();
    let cores = std::thread::available_parallelism()?;
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or("unknown processor", |(_, name)| name);
    let filesystem =
        sh::output(sh::words("findmnt -n -o FSTYPE -T").arg(paths::target())).unwrap_or_else(|_| "file system".into());
    let words: Vec<_> = std::env::args().skip(1).collect();
    let mut text = format!(
        "`cargo xtask {}`\n\nMedians of {rounds} interleaved rounds; each layer's rounds have an ext4 of their own, in a file on {}, \
         from which nothing is removed meanwhile, and which is synced before each run. CPU is user and system time of all processes of a row; peak memory is that of \
         its largest process. Ratios are to `{YARDSTICK}`.\n\n* {cores} cores, {model}; Linux {} {}\n",
        words.join(" "),
        filesystem.trim(),
        uname.release().to_string_lossy(),
        uname.machine().to_string_lossy(),
    );
    let tools = ["tar", "bsdtar", "pigz", "igzip", "umoci", "zstd"].map(Path::new);
    for program in
        std::iter::once(binary).chain(tools.into_iter().filter(|tool| find(&tool.to_string_lossy()).is_some()))
    {
        let output = Command::new(program).arg("--version").output()?;
        let both = [output.stdout, output.stderr].concat();
        let both = String::from_utf8_lossy(&both);
        writeln!(text, "* {}", both.lines().next().unwrap_or_default().trim_matches([' ', '*']))?;
    }
    Ok(text)
}

/// Puts the report between the markers of BENCHMARKS.md.
pub(super) fn write(report: &str) -> Result<()> {
    let path = paths::workspace().join("BENCHMARKS.md");
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => format!("# Benchmarks\n\n{BEGIN}\n{END}\n"),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    fs::write(&path, between(&text, report)?)?;
    eprintln!("written into {}", path.display());
    Ok(())
}

fn between(text: &str, report: &str) -> Result<String> {
    let (before, rest) = text.split_once(BEGIN).with_context(|| format!("no {BEGIN} in BENCHMARKS.md"))?;
    let (_, after) = rest.split_once(END).with_context(|| format!("no {END} in BENCHMARKS.md"))?;
    Ok(format!("{before}{BEGIN}\n{}\n{END}{after}", report.trim_end()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_replaces_the_one_before() -> Result<()> {
        let text = format!("head\n{BEGIN}\nold\n{END}\ntail\n");
        let once = between(&text, "new\n")?;
        assert_eq!(once, format!("head\n{BEGIN}\nnew\n{END}\ntail\n"));
        assert_eq!(between(&once, "new\n")?, once);
        assert!(between("no markers", "new").is_err());
        Ok(())
    }

    #[test]
    fn load_times_are_found_wherever_they_stand() {
        let json = br#"{"schema": 1, "guests": [{"name": "untar", "load_ms": 0.5, "size": 7}, {"name": "gunzip", "load_us": 250}]}"#;
        assert_eq!(load_times(json), [("untar".to_owned(), 0.5), ("gunzip".to_owned(), 0.25)]);
        assert_eq!(load_times(b"not json"), []);
    }
}
