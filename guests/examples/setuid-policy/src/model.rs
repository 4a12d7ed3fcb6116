//! Random layers, made by a small model of the host's writer, to find what the inspector lets pass.

use std::collections::BTreeMap;

use cofferdam_sdk::testing::{Host, Sample};
use cofferdam_sdk::{Entry, Node};
use serde_json::Value;

use crate::Policy;
use crate::paths::name;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Made {
    Directory,
    File {
        setuid: bool,
    },
    Symlink(String),
    /// Holds the place of a hard link until the layer's end.
    Waiting(String),
}

/// A tree by real paths.
#[derive(Debug, Default)]
struct Tree(BTreeMap<String, Made>);

enum Way {
    To(String),
    Nowhere,
    Blocked,
    Endless,
}

impl Tree {
    /// Where a path's directory is, made on the way if that is wanted.
    fn resolve(&mut self, path: &str, make: bool) -> Way {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        let mut todo: Vec<String> = parent.split('/').rev().map(str::to_owned).collect();
        let (mut here, mut hops) = (String::new(), 0);
        while let Some(step) = todo.pop() {
            if step.is_empty() {
                continue;
            }
            let next = format!("{here}{step}");
            match self.0.get(&next).cloned() {
                Some(Made::Directory) => here = next + "/",
                Some(Made::Symlink(target)) => {
                    hops += 1;
                    if hops > 40 {
                        return Way::Endless;
                    }
                    todo.extend(target.split('/').rev().map(str::to_owned));
                    here = String::new();
                }
                Some(Made::Waiting(_)) if !make => return Way::Blocked,
                _ if make => {
                    self.0.insert(next.clone(), Made::Directory);
                    here = next + "/";
                }
                _ => return Way::Nowhere,
            }
        }
        Way::To(here + name)
    }

    fn remove(&mut self, place: &str) {
        let inside = format!("{place}/");
        self.0.retain(|path, _| path != place && !path.starts_with(&inside));
    }

    /// Makes an entry; tells whether the host would.
    fn put(&mut self, entry: &Entry) -> bool {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let Way::To(place) = self.resolve(&text(&entry.path), true) else { return false };
        let made = match &entry.node {
            Node::Directory if self.0.get(&place) == Some(&Made::Directory) => return true,
            Node::Directory => Made::Directory,
            Node::Symlink { target } => Made::Symlink(text(target)),
            Node::HardLink { target } => {
                let target = text(target);
                let waiting = Made::Waiting(target.clone());
                match self.resolve(&target, false) {
                    Way::To(other) if other == place => return true,
                    Way::To(other) if !matches!(self.0.get(&other), Some(Made::Waiting(_) | Made::Directory)) => {
                        self.remove(&place);
                        self.0.get(&other).cloned().unwrap_or(waiting)
                    }
                    _ => waiting,
                }
            }
            _ => Made::File { setuid: entry.is_setuid() },
        };
        self.remove(&place);
        self.0.insert(place, made);
        true
    }

    /// Makes the links that waited, and tells which files are set-uid then.
    fn finish(mut self) -> Vec<String> {
        loop {
            let before = self.0.clone();
            for (place, made) in &before {
                let Made::Waiting(target) = made else { continue };
                if let Way::To(other) = self.resolve(target, false)
                    && let Some(found @ (Made::File { .. } | Made::Symlink(_))) = self.0.get(&other).cloned()
                {
                    self.0.insert(place.clone(), found);
                }
            }
            if self.0 == before {
                break;
            }
        }
        self.0.into_iter().filter(|(_, made)| *made == Made::File { setuid: true }).map(|(path, _)| path).collect()
    }
}

/// A number below `bound`.
fn random(state: &mut u64, bound: u32) -> u32 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    u32::try_from(*state >> 33).unwrap_or_default() % bound
}

fn one_of<const N: usize>(state: &mut u64, texts: [&'static str; N]) -> &'static str {
    texts[random(state, u32::try_from(N).unwrap_or_default()) as usize]
}

fn path(state: &mut u64) -> String {
    let components: Vec<_> = (0..=random(state, 3)).map(|_| one_of(state, ["a", "b", "c"])).collect();
    components.join("/")
}

fn layer(state: &mut u64) -> Sample {
    (0..3 + random(state, 6)).fold(Sample::new(), |layer, _| {
        let (path, target) = (path(state), path(state));
        match random(state, 8) {
            0 => layer.directory(path),
            1 => layer.file(path, ""),
            2 | 3 => layer.file(path, "").mode(0o4755),
            4 | 5 => layer.symlink(path, format!("/{target}")),
            _ => layer.hard_link(path, target),
        }
    })
}

#[test]
fn nothing_passes_that_is_not_allowed() {
    let mut state = 5;
    let (mut accepted, mut refused) = (0, 0);
    for _ in 0..20_000 {
        let layer = layer(&mut state);
        let mut tree = Tree::default();
        if !layer.entries.iter().all(|(entry, _)| tree.put(entry)) {
            continue;
        }
        let setuid = tree.finish();
        let allow = one_of(&mut state, ["a/** b/**", "a a/** c", "a/b b a/c/a", "**"]);
        let globs: Vec<_> = allow.split(' ').map(crate::glob::Glob::new).collect();
        let run = Host::new().setting("allow", allow).inspect::<Policy>(&layer);
        if run.result.is_ok() {
            let allowed = |path: &String| globs.iter().any(|glob| glob.matches(path.as_bytes()));
            assert!(setuid.iter().all(allowed), "`{allow}` accepts {setuid:?}: {:#?}", layer.entries);
            accepted += usize::from(!setuid.is_empty());
        } else {
            refused += 1;
        }
        let run = Host::new().setting("mode", "report").inspect::<Policy>(&layer);
        let report: Value = serde_json::from_str(run.report()).expect("JSON");
        let findings = report["findings"].as_array().expect("a list");
        let is_listed = |path: &String| {
            let called = |finding: &Value| {
                finding["path"].as_str().is_some_and(|found| name(found.as_bytes()) == name(path.as_bytes()))
            };
            findings.iter().any(|finding| finding["path"] == **path || finding["unclear"] == true && called(finding))
        };
        assert!(setuid.iter().all(is_listed), "of {setuid:?} are listed {findings:#?}: {:#?}", layer.entries);
        // Where there are no links, the report says what is there, and no more.
        if layer.entries.iter().all(|(entry, _)| !matches!(entry.node, Node::Symlink { .. } | Node::HardLink { .. })) {
            assert_eq!(findings.len(), setuid.len(), "{findings:#?}: {:#?}", layer.entries);
        }
    }
    assert!(accepted > 500 && refused > 500, "{accepted} accepted, {refused} refused");
}

#[test]
fn the_model_knows_the_ways_of_links() {
    let layer = Sample::new()
        .hard_link("tmp/first", "usr/su")
        .file("usr/su", "")
        .mode(0o4755)
        .symlink("l", "/usr")
        .hard_link("tmp/second", "l/su")
        .hard_link("m", "l")
        .file("m/third", "")
        .mode(0o4755);
    let mut tree = Tree::default();
    assert!(layer.entries.iter().all(|(entry, _)| tree.put(entry)));
    assert_eq!(tree.finish(), ["tmp/first", "tmp/second", "usr/su", "usr/third"]);
}
