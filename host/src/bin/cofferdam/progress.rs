//! Progress on stderr: a bar per layer, a line now and then, or JSON lines.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal as _, Write as _};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use cofferdam::{Digest, Event, Progress};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle as BarStyle};
use serde_json::{Value, json};

use crate::args::ProgressStyle;
use crate::output::{bytes, printable};

/// Work that ends sooner shows nothing.
const QUIET: Duration = Duration::from_millis(250);

/// Time between two lines of plain progress.
const LINE: Duration = Duration::from_secs(2);

/// Where events go, and what draws them.
pub(crate) fn start(style: ProgressStyle, quiet: bool) -> Progress {
    match style {
        _ if quiet => Progress::none(),
        ProgressStyle::None => Progress::none(),
        ProgressStyle::Json => Progress::new(|event| line(&described(&event).to_string())),
        ProgressStyle::Auto if !io::stderr().is_terminal() => plain(),
        ProgressStyle::Plain => plain(),
        ProgressStyle::Auto | ProgressStyle::Bar => bars(),
    }
}

fn line(text: &str) {
    // Nobody is left to tell when stderr is gone.
    let _ = writeln!(io::stderr().lock(), "{text}");
}

fn plain() -> Progress {
    let state = Mutex::new(Plain { begin: Instant::now(), last: None, total: None, layers: BTreeMap::new() });
    Progress::new(move |event| state.lock().unwrap_or_else(PoisonError::into_inner).take(event))
}

/// What is known of one layer.
#[derive(Default)]
struct Layer {
    downloaded: u64,
    entries: u64,
    done: bool,
    cached: bool,
}

struct Plain {
    begin: Instant,
    last: Option<Instant>,
    /// How many layers there are and how many bytes they have, once that is known.
    total: Option<(usize, u64)>,
    layers: BTreeMap<Option<Digest>, Layer>,
}

impl Plain {
    fn take(&mut self, event: Event) {
        match event {
            Event::Resolved { reference, manifest, layers, bytes: size } => {
                line(&format!("{} is {manifest}: {layers} layers, {}", printable(&reference), bytes(size)));
                self.total = Some((layers, size));
            }
            Event::LayerCached { layer } => self.layer(Some(layer)).cached = true,
            Event::LayerDone { layer } => {
                self.layer(Some(layer)).done = true;
                self.say(false);
            }
            Event::Downloaded { layer, bytes } => {
                self.layer(Some(layer)).downloaded = bytes;
                self.say(true);
            }
            Event::Extracted { layer, entries, .. } => {
                self.layer(layer).entries = entries;
                self.say(true);
            }
            Event::Merging { layer, of } => line(&format!("merging layer {layer} of {of}")),
            Event::Checked { done, of, bytes: read } => {
                self.say_now_and_then(|| format!("{done} of {of} checked, {} read", bytes(read)));
            }
            _ => {}
        }
    }

    fn layer(&mut self, digest: Option<Digest>) -> &mut Layer {
        self.layers.entry(digest).or_default()
    }

    fn say_now_and_then(&mut self, sentence: impl FnOnce() -> String) {
        let now = Instant::now();
        if now.duration_since(self.begin) >= QUIET && self.last.is_none_or(|last| now - last >= LINE) {
            self.last = Some(now);
            line(&sentence());
        }
    }

    fn say(&mut self, only_now_and_then: bool) {
        let now = Instant::now();
        let due = now.duration_since(self.begin) >= QUIET && self.last.is_none_or(|last| now - last >= LINE);
        if only_now_and_then && !due {
            return;
        }
        self.last = Some(now);
        line(&self.sentence());
    }

    fn sentence(&self) -> String {
        let sum = |of: fn(&Layer) -> u64| self.layers.values().map(of).sum::<u64>();
        let count = |of: fn(&Layer) -> bool| self.layers.values().filter(|layer| of(layer)).count();
        let (fetched, entries) = (sum(|layer| layer.downloaded), sum(|layer| layer.entries));
        let Some((layers, size)) = self.total else { return format!("{entries} entries extracted") };
        // What is there already is not fetched; how large it is, nobody said.
        let there = match count(|layer| layer.cached) {
            0 => String::new(),
            there => format!(" ({there} of them in the store already)"),
        };
        format!(
            "{} of {layers} layers done{there}, {} of {} fetched, {entries} entries extracted",
            count(|layer| layer.done || layer.cached),
            bytes(fetched),
            bytes(size)
        )
    }
}

fn bars() -> Progress {
    let screen = MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(10));
    let begin = Instant::now();
    let state: Mutex<BTreeMap<Option<Digest>, ProgressBar>> = Mutex::default();
    Progress::new(move |event| {
        let mut bars = state.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::LayerStarted { layer, bytes } => {
                let bar = bytes.map_or_else(spinner, |bytes| ProgressBar::new(bytes).with_style(style()));
                bar.set_prefix(short(&layer));
                bars.insert(Some(layer), bar);
            }
            Event::Downloaded { layer, bytes } => {
                if let Some(bar) = bars.get(&Some(layer)) {
                    reveal(&screen, bar, begin);
                    bar.set_position(bytes);
                }
            }
            Event::Extracted { layer, entries, .. } => {
                // A layer that nobody announced has no size to fill a bar with.
                let bar = bars.entry(layer).or_insert_with(spinner);
                reveal(&screen, bar, begin);
                bar.set_message(format!("{entries} entries"));
            }
            Event::LayerDone { layer } => {
                if let Some(bar) = bars.remove(&Some(layer)) {
                    bar.finish_and_clear();
                    screen.remove(&bar);
                }
            }
            Event::Checked { done, of, bytes: read } => {
                let bar = bars.entry(None).or_insert_with(spinner);
                reveal(&screen, bar, begin);
                bar.set_message(format!("{done} of {of} checked, {} read", bytes(read)));
            }
            _ => {}
        }
    })
}

fn spinner() -> ProgressBar {
    ProgressBar::new_spinner()
}

/// Bars are drawn once the work has taken a while.
fn reveal(screen: &MultiProgress, bar: &ProgressBar, begin: Instant) {
    if bar.is_hidden() && begin.elapsed() >= QUIET {
        screen.add(bar.clone());
    }
}

fn style() -> BarStyle {
    BarStyle::with_template("{prefix} {bar:30} {bytes:>10} of {total_bytes:<10} {msg}")
        .unwrap_or_else(|_| BarStyle::default_bar())
}

fn short(digest: &Digest) -> String {
    digest.hex().chars().take(12).collect()
}

/// An event as JSON: its `schema` never changes its meaning.
fn described(event: &Event) -> Value {
    let mut object = match event {
        Event::Resolved { reference, manifest, layers, bytes } => json!({
            "event": "resolved", "reference": reference, "manifest": manifest, "layers": layers, "bytes": bytes,
        }),
        Event::LayerStarted { layer, bytes } => json!({ "event": "layer-started", "layer": layer, "bytes": bytes }),
        Event::LayerCached { layer } => json!({ "event": "layer-cached", "layer": layer }),
        Event::Downloaded { layer, bytes } => json!({ "event": "downloaded", "layer": layer, "bytes": bytes }),
        Event::Extracted { layer, entries, bytes } => {
            json!({ "event": "extracted", "layer": layer, "entries": entries, "bytes": bytes })
        }
        Event::LayerDone { layer } => json!({ "event": "layer-done", "layer": layer }),
        Event::Merging { layer, of } => json!({ "event": "merging", "layer": layer, "of": of }),
        Event::Checked { done, of, bytes } => json!({ "event": "checked", "done": done, "of": of, "bytes": bytes }),
        _ => json!({ "event": "other" }),
    };
    object["schema"] = "cofferdam/progress/v1".into();
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Totals are those of the image from the first line on, not of the layers that have begun.
    #[test]
    fn plain_progress_counts_against_the_whole_image() {
        let mut plain = Plain { begin: Instant::now(), last: None, total: None, layers: BTreeMap::new() };
        let [one, two, three] = ["1", "2", "3"].map(|text| Digest::of(text.as_bytes()));
        plain.take(Event::Extracted { layer: None, entries: 5, bytes: 0 });
        assert_eq!(plain.sentence(), "5 entries extracted");
        plain.layers.clear();
        let manifest = Digest::of(b"");
        plain.take(Event::Resolved { reference: "a".into(), manifest, layers: 3, bytes: 3 << 20 });
        plain.take(Event::LayerStarted { layer: one.clone(), bytes: Some(1 << 20) });
        plain.take(Event::Downloaded { layer: one.clone(), bytes: 1 << 19 });
        assert_eq!(plain.sentence(), "0 of 3 layers done, 512.00 KiB of 3.00 MiB fetched, 0 entries extracted");
        plain.take(Event::LayerCached { layer: two });
        plain.take(Event::Extracted { layer: Some(one.clone()), entries: 7, bytes: 9 });
        plain.take(Event::Downloaded { layer: one.clone(), bytes: 1 << 20 });
        plain.take(Event::LayerDone { layer: one });
        plain.take(Event::LayerDone { layer: three });
        assert_eq!(
            plain.sentence(),
            "3 of 3 layers done (1 of them in the store already), 1.00 MiB of 3.00 MiB fetched, 7 entries extracted"
        );
    }
}
