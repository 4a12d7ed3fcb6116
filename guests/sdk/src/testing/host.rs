//! What the plugin calls: a host in a thread-local, there while [`run`] runs.

use std::cell::RefCell;

use super::{Host, Run};
use crate::bounds::EntryBounds;
use crate::entry::Entry;
use crate::failure::Failure;
use crate::log::Level;

struct Active {
    host: Host,
    input: Vec<u8>,
    at: usize,
    written: Vec<u8>,
    log: Vec<(Level, String)>,
    put: Seen,
}

/// What an inspector was shown, or an extractor put.
#[derive(Default)]
pub(super) struct Seen {
    pub(super) entries: Vec<Entry>,
    pub(super) asked: Vec<Vec<u8>>,
    pub(super) contents: Vec<Vec<u8>>,
}

thread_local! {
    static ACTIVE: RefCell<Option<Active>> = const { RefCell::new(None) };
}

/// Runs a plugin with this host and input.
pub(super) fn run<T>(host: Host, input: &[u8], plugin: impl FnOnce() -> (Result<T, Failure>, Seen)) -> Run<T> {
    /// Takes the host away also if the plugin panics.
    struct Guard;
    impl Drop for Guard {
        fn drop(&mut self) {
            ACTIVE.take();
        }
    }
    let active =
        Active { host, input: input.to_vec(), at: 0, written: Vec::new(), log: Vec::new(), put: Seen::default() };
    let before = ACTIVE.replace(Some(active));
    assert!(before.is_none(), "a plugin that runs plugins");
    let guard = Guard;
    let (result, mut seen) = plugin();
    let active = ACTIVE.take();
    drop(guard);
    let Active { written, log, put, .. } = active.expect("set above");
    seen.entries.extend(put.entries);
    Run { result, log, entries: seen.entries, asked: seen.asked, contents: put.contents, written }
}

fn with<T>(what: &str, act: impl FnOnce(&mut Active) -> T) -> T {
    ACTIVE.with_borrow_mut(|active| match active {
        Some(active) => act(active),
        None => panic!("{what}: natively a plugin's host is there only inside of `cofferdam_sdk::testing::Host`"),
    })
}

pub(crate) fn read(skip: u64, max: u32) -> Vec<u8> {
    assert!((1..=1 << 20).contains(&max), "`max` is {max}");
    with("read", |active| {
        let left = active.input.len() - active.at;
        let skip = usize::try_from(skip).ok().filter(|&skip| skip <= left);
        active.at += skip.unwrap_or_else(|| panic!("the layer is cut short: the stream ends in skipped bytes"));
        let end = active.input.len().min(active.at + active.host.piece.min(max as usize));
        let bytes = active.input[active.at..end].to_vec();
        active.at = end;
        bytes
    })
}

pub(crate) fn write(bytes: &[u8]) {
    assert!(bytes.len() <= 1 << 20, "{} bytes in one write", bytes.len());
    with("write", |active| active.written.extend_from_slice(bytes));
}

pub(crate) fn put(entry: Entry) {
    let named = entry.path.split(|&byte| byte == b'/').all(|component| {
        !matches!(component, b"" | b"." | b"..") && !component.starts_with(b".wh.") && !component.contains(&0)
    });
    assert!(named || entry.path.is_empty(), "the path `{}` is out of contract", entry.path.escape_ascii());
    assert!(entry.mode <= 0o7777, "the mode {:o} is out of contract", entry.mode);
    with("put", |active| {
        let size = usize::try_from(entry.content_bytes()).ok().filter(|&size| size <= active.input.len() - active.at);
        let size = size.unwrap_or_else(|| panic!("the layer is cut short: the stream ends in a file's content"));
        active.put.contents.push(active.input[active.at..active.at + size].to_vec());
        active.put.entries.push(entry);
        active.at += size;
    });
}

/// A message outside of a run is nobody's.
pub(crate) fn log(level: Level, text: &str) {
    ACTIVE.with_borrow_mut(|active| {
        if let Some(active) = active {
            active.log.push((level, text.to_owned()));
        }
    });
}

pub(crate) fn setting(key: &str) -> Option<String> {
    ACTIVE.with_borrow(|active| {
        let settings = &active.as_ref()?.host.settings;
        settings.iter().rev().find(|(k, _)| k == key).map(|(_, value)| value.clone())
    })
}

pub(crate) fn entry_bounds() -> EntryBounds {
    ACTIVE.with_borrow(|active| active.as_ref().map(|active| active.host.entry_bounds).unwrap_or_default())
}

pub(crate) fn window() -> u64 {
    ACTIVE.with_borrow(|active| active.as_ref().map_or(128 << 20, |active| active.host.window))
}

#[cfg(feature = "http")]
pub(crate) fn http(request: &crate::http::Request) -> Result<crate::http::Response, crate::http::Error> {
    // Taken out while it answers, so that an answer may log.
    let mut network = with("http", |active| active.host.network.take());
    let answer = match &mut network {
        Some(network) => network(request),
        None => Err(crate::http::Error::Denied(request.url.clone())),
    };
    with("http", |active| active.host.network = network);
    answer
}
