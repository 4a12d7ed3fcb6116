//! Plugins that are damaged on disk: what says so, what helps, and what goes on in spite of them.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use cofferdam_tests::cofferdam::exit;
use cofferdam_tests::layers::{self, Item};
use cofferdam_tests::{Cofferdam, OciLayout, Scratch, require, store};
use serde_json::Value;

use crate::bench::{Damage, damage, expect, findings};

struct Equipped {
    scratch: Scratch,
    cofferdam: Cofferdam,
}

impl Equipped {
    /// A store with the plugins `one` and `two`: components that nobody runs here.
    fn new() -> Result<Self> {
        let scratch = Scratch::new()?;
        let it = Self { cofferdam: Cofferdam::new(scratch.join("store"))?, scratch };
        for name in ["one", "two"] {
            let dir = it.scratch.dir(name)?;
            let bare = r#"(component (instance $i) (export "cofferdam:layer/inspection@0.1.0" (instance $i)))"#;
            fs::write(dir.join(format!("{name}.wasm")), wat::parse_str(bare)?)?;
            fs::write(dir.join("plugin.toml"), format!("name = '{name}'\nversion = '1'\nworld = 'inspector'\n"))?;
            it.cofferdam.ok(["plugin", "add", &it.source(name)])?;
        }
        Ok(it)
    }

    fn source(&self, name: &str) -> String {
        self.scratch.join(name).display().to_string()
    }

    fn note(&self, name: &str) -> PathBuf {
        self.cofferdam.store().join(format!("plugins/{name}.json"))
    }

    fn component(&self, name: &str) -> Result<PathBuf> {
        let note: Value = serde_json::from_slice(&fs::read(self.note(name))?)?;
        let digest = note["digest"].as_str().context("no digest")?;
        Ok(self.cofferdam.store().join(format!("plugins/{}.wasm", digest.replace(':', "-"))))
    }

    /// How many components there are.
    fn components(&self) -> Result<usize> {
        let names = store::list(&self.cofferdam.store().join("plugins"))?;
        Ok(names.iter().filter(|name| Path::new(name).extension().is_some_and(|ending| ending == "wasm")).count())
    }

    fn fsck(&self, args: &[&str], code: i32) -> Result<Vec<Value>> {
        findings(&self.cofferdam.run([&["fsck", "--json"], args].concat())?.expect(code)?)
    }
}

/// A damaged note is found, does not keep other plugins from being listed or removed, and is mended by the hint's words.
#[test]
fn a_damaged_note_is_found_and_stops_nobody_else() -> Result<()> {
    for how in Damage::ALL {
        let it = Equipped::new()?;
        let cofferdam = &it.cofferdam;
        ensure!(it.fsck(&[], exit::OK)?.is_empty());
        how.of(&it.note("one"))?;

        let listed = cofferdam.fails(exit::INTEGRITY, ["plugin", "list"])?;
        ensure!(listed.out().contains("two"), "{}", listed.out());
        ensure!(listed.err().contains("`one`") && listed.err().contains("fsck --repair"), "{}", listed.err());
        let listed = cofferdam.fails(exit::INTEGRITY, ["plugin", "list", "--json"])?.json()?;
        ensure!(listed["plugins"][0]["name"] == "two" && listed["plugins"][1].is_null(), "{listed}");
        ensure!(listed["damaged"][0]["error"].as_str().is_some_and(|error| error.contains("`one`")), "{listed}");

        let found = it.fsck(&[], exit::INTEGRITY)?;
        let finding = expect(&found, "plugin", "damaged")?;
        ensure!(finding["subject"] == "one" && finding["repaired"] == false, "{finding}");
        ensure!(finding["remedy"].as_str().is_some_and(|remedy| remedy.contains("plugin add")), "{finding}");
        ensure!(it.fsck(&[], exit::INTEGRITY)? == found, "a check has changed something");

        // `two` goes; its component may be that of `one` for all that anybody knows, and stays.
        cofferdam.ok(["plugin", "rm", "two"])?;
        ensure!(it.components()? == 2, "{how:?}");
        cofferdam.ok(["gc"])?;
        ensure!(it.components()? == 2, "{how:?}");

        if how == Damage::Cut {
            cofferdam.ok(["plugin", "add", &it.source("one")])?;
            ensure!(it.components()? == 1);
        } else if how == Damage::Flip {
            cofferdam.ok(["plugin", "rm", "one"])?;
            ensure!(it.components()? == 0);
        } else {
            let repaired = it.fsck(&["--repair"], exit::OK)?;
            ensure!(expect(&repaired, "plugin", "damaged")?["repaired"] == true, "{repaired:#?}");
            let reclaimable = cofferdam.ok(["df", "--json"])?.json()?["reclaimable"].clone();
            ensure!(reclaimable.as_u64().is_some_and(|bytes| bytes > 0), "{reclaimable}");
            let freed = cofferdam.ok(["gc", "--dry-run", "--json"])?.json()?["freed"].clone();
            ensure!(freed.as_array().is_some_and(|freed| freed.len() == 2), "{freed}");
            cofferdam.ok(["gc"])?;
            ensure!(it.components()? == 0, "{how:?}");
        }
        ensure!(damage(&it.fsck(&[], exit::OK)?).is_empty());
        cofferdam.ok(["plugin", "list"])?;
    }
    Ok(())
}

/// A damaged component is found, and removed by a repair; who is to be asked and cannot be run lets nothing in.
#[test]
fn a_damaged_component_is_found_and_its_plugin_is_not_done_without() -> Result<()> {
    require!("gzip");
    let it = Equipped::new()?;
    let cofferdam = &it.cofferdam;
    let mut layout = OciLayout::create(it.scratch.join("layout"))?;
    let layer = layout.add_gzip(&layers::tar(&[Item::File("a", b"a".to_vec())])?)?;
    layout.add_image("v1", &[layer])?;
    let config = it.scratch.join("config.toml");
    fs::write(&config, "[[policy]]\nimages = ['**']\ninspect = ['one']\n")?;
    let config = config.display().to_string();
    let pull = ["pull", &layout.source("v1"), "--config", &config].map(str::to_owned);
    for how in Damage::ALL {
        how.of(&it.component("one")?)?;
        let found = it.fsck(&[], exit::INTEGRITY)?;
        let component = expect(&found, "plugin-component", "damaged")?;
        ensure!(component["repaired"] == false, "{component}");
        ensure!(component["what"].as_str().is_some_and(|what| what.contains("`one`")), "{component}");
        let what = expect(&found, "plugin", "incomplete")?;
        ensure!(what["subject"] == "one", "{what}");
        let words = format!("cofferdam plugin add {}", it.source("one"));
        ensure!(what["remedy"].as_str().is_some_and(|remedy| remedy.contains(&words)), "{what}");
        cofferdam.fails(exit::INTEGRITY, &pull)?;

        // Only whoever has the component can bring it.
        let repaired = it.fsck(&["--repair"], exit::INTEGRITY)?;
        ensure!(expect(&repaired, "plugin-component", "damaged")?["repaired"] == true, "{repaired:#?}");
        ensure!(it.components()? == 1, "{how:?}: it is still there");
        let left = it.fsck(&[], exit::INTEGRITY)?;
        ensure!(damage(&left).len() == 1 && expect(&left, "plugin", "incomplete").is_ok(), "{left:#?}");
        cofferdam.fails(exit::INTEGRITY, &pull)?;
        cofferdam.ok(["plugin", "add", &it.source("one")])?;
        ensure!(damage(&it.fsck(&[], exit::OK)?).is_empty(), "{how:?}");
    }
    // A note that was set aside is none.
    fs::write(it.note("one"), "{")?;
    cofferdam.fails(exit::INTEGRITY, &pull)?;
    it.fsck(&["--repair"], exit::OK)?;
    cofferdam.fails(exit::NOT_FOUND, &pull)?;
    Ok(())
}
