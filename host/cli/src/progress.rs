//! Progress on stderr: a bar per layer, a line now and then, or JSON lines.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::{self, IsTerminal as _, Write as _};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cofferdam::{Digest, Event, Progress};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle as BarStyle};
use serde_json::{Value, json};

use crate::args::ProgressStyle;
use crate::output::{bytes, compact, printable};

/// Work that ends sooner shows nothing.
const QUIET: Duration = Duration::from_millis(250);

/// Time between two lines of plain progress.
const LINE: Duration = Duration::from_secs(2);

/// Where events go, and what draws them.
pub(crate) fn start(style: ProgressStyle, quiet: bool) -> Progress {
    match style {
        _ if quiet => Progress::none(),
        ProgressStyle::None => Progress::none(),
        ProgressStyle::Json => Progress::new(|event| line(&compact(&described(&event)))),
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

/// The bars that are on the terminal, if there are any. There is one terminal.
static SCREEN: Mutex<Option<Screen>> = Mutex::new(None);

/// Where bars are drawn, until something else is printed.
#[derive(Clone)]
struct Screen {
    bars: MultiProgress,
    ended: Arc<AtomicBool>,
}

fn screen() -> MutexGuard<'static, Option<Screen>> {
    SCREEN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes all bars off the terminal, for good: what is printed next has it alone.
pub(crate) fn end() {
    if let Some(screen) = screen().take() {
        screen.ended.store(true, Ordering::SeqCst);
        // Nobody is left to tell when stderr is gone.
        let _ = screen.bars.clear();
        screen.bars.set_draw_target(ProgressDrawTarget::hidden());
    }
}

/// Where messages go: to stderr, above the bars, and with nothing in them that a terminal obeys but their own colours.
pub(crate) fn messages() -> impl io::Write {
    Messages
}

struct Messages;

impl io::Write for Messages {
    /// Takes one message, which ends in a line feed.
    fn write(&mut self, message: &[u8]) -> io::Result<usize> {
        let shown = harmless(&String::from_utf8_lossy(message));
        let write = || io::stderr().lock().write_all(shown.as_bytes());
        let bars = screen().as_ref().map(|screen| screen.bars.clone());
        bars.map_or_else(write, |bars| bars.suspend(write))?;
        Ok(message.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// A message, escaped but for the colours that its own parts have: what it quotes was escaped before.
fn harmless(message: &str) -> String {
    let (mut rest, end) = message.strip_suffix('\n').map_or((message, ""), |rest| (rest, "\n"));
    let mut shown = String::with_capacity(message.len());
    while let Some(at) = rest.find("\u{1b}[") {
        let (before, sequence) = rest.split_at(at);
        shown.push_str(&printable(before));
        let digits = sequence.get(2..).unwrap_or_default();
        let length = digits.find(|c: char| !c.is_ascii_digit() && c != ';').unwrap_or(digits.len());
        let colour = digits.get(length..).is_some_and(|tail| tail.starts_with('m'));
        let (sequence, tail) = sequence.split_at(if colour { length + 3 } else { 2 });
        shown.push_str(&if colour { Cow::Borrowed(sequence) } else { printable(sequence) });
        rest = tail;
    }
    shown.push_str(&printable(rest));
    shown.push_str(end);
    shown
}

/// A bar for each layer at which there is work, and one for what is no layer's.
struct Bars {
    screen: Screen,
    begin: Instant,
    /// Whether they are drawn.
    shown: bool,
    by_layer: BTreeMap<Option<Digest>, ProgressBar>,
}

fn bars() -> Progress {
    end();
    // Hidden until the work has taken a while. All are drawn together, so that each has a line of its own.
    let hidden = MultiProgress::with_draw_target(ProgressDrawTarget::hidden());
    let drawn = Screen { bars: hidden, ended: Arc::default() };
    *screen() = Some(drawn.clone());
    let bars = Bars { screen: drawn, begin: Instant::now(), shown: false, by_layer: BTreeMap::new() };
    let state = Arc::new(Mutex::new(bars));
    // Where nothing happens for long, nothing would show them. Without this thread, the next event does.
    let waiting = Arc::downgrade(&state);
    let show = move || {
        std::thread::sleep(QUIET);
        if let Some(state) = waiting.upgrade() {
            state.lock().unwrap_or_else(PoisonError::into_inner).show();
        }
    };
    drop(std::thread::Builder::new().name("progress".into()).spawn(show));
    Progress::new(move |event| state.lock().unwrap_or_else(PoisonError::into_inner).take(event))
}

impl Bars {
    fn take(&mut self, event: Event) {
        match event {
            Event::LayerStarted { layer, bytes } => {
                self.remove(layer.clone());
                let bar = self.bar(Some(layer), bytes);
                bar.tick();
            }
            Event::Downloaded { layer, bytes } => self.bar(Some(layer), None).set_position(bytes),
            Event::Extracted { layer, entries, .. } => self.bar(layer, None).set_message(format!("{entries} entries")),
            Event::LayerDone { layer } => self.remove(layer),
            Event::Merging { layer, of } => self.bar(None, None).set_message(format!("merging layer {layer} of {of}")),
            Event::Checked { done, of, bytes: read } => {
                self.bar(None, None).set_message(format!("{done} of {of} checked, {} read", bytes(read)));
            }
            _ => {}
        }
        self.show();
    }

    /// Draws them from now on, if the work has taken a while.
    fn show(&mut self) {
        if !self.shown && self.begin.elapsed() >= QUIET && !self.screen.ended.load(Ordering::SeqCst) {
            self.shown = true;
            self.screen.bars.set_draw_target(ProgressDrawTarget::stderr_with_hz(10));
            self.by_layer.values().for_each(ProgressBar::tick);
        }
    }

    /// The bar of a layer, or of what is none's. Without a size there is nothing to fill it with.
    fn bar(&mut self, layer: Option<Digest>, size: Option<u64>) -> ProgressBar {
        if let Some(bar) = self.by_layer.get(&layer) {
            return bar.clone();
        }
        let bar = match size {
            Some(size) => ProgressBar::with_draw_target(Some(size), ProgressDrawTarget::hidden()).with_style(style()),
            None => ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden()).with_style(spinner()),
        };
        let bar = self.screen.bars.add(bar);
        bar.set_prefix(layer.as_ref().map(short).unwrap_or_default());
        self.by_layer.insert(layer, bar.clone());
        bar
    }

    fn remove(&mut self, layer: Digest) {
        if let Some(bar) = self.by_layer.remove(&Some(layer)) {
            bar.finish_and_clear();
            self.screen.bars.remove(&bar);
        }
    }
}

fn spinner() -> BarStyle {
    BarStyle::with_template("{prefix} {spinner} {wide_msg}").unwrap_or_else(|_| BarStyle::default_spinner())
}

fn style() -> BarStyle {
    BarStyle::with_template("{prefix} {bar:24} {bytes:>10} of {total_bytes:<10} {wide_msg}")
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

    #[test]
    fn messages_have_their_own_colours_and_no_others() {
        assert_eq!(harmless("\u{1b}[33m WARN\u{1b}[0m é\n"), "\u{1b}[33m WARN\u{1b}[0m é\n");
        assert_eq!(harmless("a\u{202e}b\nc\u{9b}2J\n"), "a\\u{202e}b\\u{a}c\\u{9b}2J\n");
        assert_eq!(harmless("\u{1b}[2Jx\u{1b}]0;t\u{7}\u{1b}["), "\\u{1b}[2Jx\\u{1b}]0;t\\u{7}\\u{1b}[");
    }
}
