//! The verbs that change which plugins there are, killed at their steps: a note and its component are as before or as after, and
//! a component that no note names is all that the dead may leave.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use cofferdam_tests::operation::{Operation, Place};
use cofferdam_tests::small::Small;
use cofferdam_tests::{Cofferdam, Scratch, layers, store};
use serde_json::Value;

use crate::steps::kill_at_every_step;

/// What a name stands for: the version of the plugin, and whether it was granted a clock.
type State = Option<(String, bool)>;

/// Makes the plugin `p` in this version, as a directory beside the store. It has what a look from outside sees of an inspector.
fn plugin(store: &Path, version: &str) -> Result<String> {
    let dir = store.parent().context("a store in no directory")?.join(format!("p-{version}"));
    fs::create_dir_all(&dir)?;
    let bare = r#"(component (instance $i) (export "cofferdam:layer/inspection@0.1.0" (instance $i)))"#;
    fs::write(dir.join("p.wasm"), wat::parse_str(bare)?)?;
    let manifest = format!("name = 'p'\nversion = '{version}'\nworld = 'inspector'\n[capabilities]\nclock = true\n");
    fs::write(dir.join("plugin.toml"), manifest)?;
    Ok(dir.display().to_string())
}

fn add(cofferdam: &Cofferdam, version: &str) -> Result<()> {
    cofferdam.ok(["plugin", "add", &plugin(cofferdam.store(), version)?]).map(drop)
}

fn words<const N: usize>(words: [&str; N]) -> Vec<String> {
    words.map(str::to_owned).to_vec()
}

/// What `p` stands for. Fails unless each note can be read and names a component that is there, and each component is what its name
/// says.
fn state(store: &Path) -> Result<State> {
    let room = store.join("plugins");
    let mut found = None;
    for name in store::list(&room)? {
        let path = room.join(&name);
        if let Some(stem) = name.strip_suffix(".wasm") {
            let digest = layers::digest_of_file(&path)?;
            ensure!(stem == digest.replace(':', "-"), "{name} holds {digest}");
        } else if name.strip_suffix(".json").is_some() {
            let note: Value =
                serde_json::from_slice(&fs::read(&path)?).with_context(|| format!("{name} is no JSON"))?;
            let digest = note["digest"].as_str().context("a note without a digest")?;
            let component = room.join(format!("{}.wasm", digest.replace(':', "-")));
            ensure!(component.is_file(), "{name} names {digest}, which is not there");
            ensure!(name == "p.json" && note["name"] == "p", "{name}: {note}");
            let version = note["manifest"]["version"].as_str().context("a note without a version")?;
            found = Some((version.to_owned(), note["granted"]["clock"] == true));
        }
    }
    Ok(found)
}

/// Fails unless `p` stands for this, and nothing lies beside what that needs.
fn ensure_is(store: &Path, expected: State) -> Result<()> {
    let found = state(store)?;
    ensure!(found == expected, "{found:?}, not {expected:?}");
    let left = store::list(&store.join("plugins"))?;
    ensure!(left.len() == if expected.is_some() { 2 } else { 0 }, "in plugins/: {left:?}");
    Ok(())
}

/// What must hold of what the dead left; the rest is tried on a copy, so that the repetition finds it as it is.
fn ensure_left(place: &Place, allowed: [State; 2]) -> Result<()> {
    let store = place.cofferdam.store();
    let found = state(store)?;
    ensure!(allowed.contains(&found), "{found:?} is none of {allowed:?}");
    if !store.exists() {
        return Ok(());
    }
    let scratch = Scratch::new()?;
    let copy = Cofferdam::new(scratch.join("store"))?;
    ensure!(Command::new("cp").arg("-a").arg(store).arg(copy.store()).status()?.success(), "cannot copy the store");
    if copy.store().join("meta.json").exists() {
        copy.ok(["fsck"]).context("fsck of what was left")?;
    }
    copy.ok(["gc"]).context("gc of what was left")?;
    ensure_is(copy.store(), found).context("behind gc")?;
    copy.ok(["fsck"]).context("fsck behind gc").map(drop)
}

#[expect(clippy::unnecessary_wraps, reason = "the other state is that there is none")]
fn version(version: &str, clock: bool) -> State {
    Some((version.to_owned(), clock))
}

const NO_STORE: fn(&Small, &Cofferdam) -> Result<()> = |_, _| Ok(());
const ONE: fn(&Small, &Cofferdam) -> Result<()> = |_, cofferdam| add(cofferdam, "1");

/// The first plugin of a store that is not there yet.
const ADD: Operation = Operation {
    name: "plugin add",
    registry: false,
    before: NO_STORE,
    command: |_, place| Ok(words(["plugin", "add", &plugin(place.cofferdam.store(), "1")?])),
    between: |_, place| ensure_left(place, [None, version("1", false)]),
    after: |_, place| ensure_is(place.cofferdam.store(), version("1", false)),
    codes: &[0],
};

/// Another component in the place of one that was granted something.
const REPLACE: Operation = Operation {
    name: "plugin add --replace",
    before: |small, cofferdam| {
        ONE(small, cofferdam)?;
        cofferdam.ok(["plugin", "grant", "p", "--clock"]).map(drop)
    },
    command: |_, place| Ok(words(["plugin", "add", &plugin(place.cofferdam.store(), "2")?, "--replace"])),
    // Never the new one with the grants of the old one.
    between: |_, place| ensure_left(place, [version("1", true), version("2", false)]),
    after: |_, place| ensure_is(place.cofferdam.store(), version("2", false)),
    ..ADD
};

/// A grant.
const GRANT: Operation = Operation {
    name: "plugin grant",
    before: ONE,
    command: |_, _| Ok(words(["plugin", "grant", "p", "--clock"])),
    between: |_, place| ensure_left(place, [version("1", false), version("1", true)]),
    after: |_, place| ensure_is(place.cofferdam.store(), version("1", true)),
    ..ADD
};

/// A removal.
const REMOVE: Operation = Operation {
    name: "plugin rm",
    before: ONE,
    command: |_, _| Ok(words(["plugin", "rm", "p"])),
    between: |_, place| ensure_left(place, [version("1", false), None]),
    // Who finds no note has nothing to remove: what is left goes with the next collection.
    after: |_, place| {
        ensure!(state(place.cofferdam.store())?.is_none(), "it is still there");
        place.cofferdam.ok(["gc"])?;
        ensure_is(place.cofferdam.store(), None)
    },
    codes: &[0, 3],
    ..ADD
};

#[test]
fn plugin_add() -> Result<()> {
    kill_at_every_step(&ADD)
}

#[test]
fn plugin_replace() -> Result<()> {
    kill_at_every_step(&REPLACE)
}

#[test]
fn plugin_grant() -> Result<()> {
    kill_at_every_step(&GRANT)
}

#[test]
fn plugin_remove() -> Result<()> {
    kill_at_every_step(&REMOVE)
}
