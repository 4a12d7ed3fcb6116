//! Everything again, while a neighbour swaps directories of the destination for links to the victim.
//!
//! Such a race may end well or with an error, but it ends, and the victim is as it was. CVE-2018-15664, CVE-2025-47290.

use std::fs;
use std::io::{Cursor, Write as _};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use cofferdam::sandbox::Sandbox;
use cofferdam::tree::Mode;
use cofferdam::unpack::{Layer, LayerExtractor, Unpacker};
use cofferdam_tests::cofferdam::exit;
use cofferdam_tests::{Cofferdam, paths};
use rustix::fs::{CWD, RenameFlags};
use tar::{Builder, EntryType, Header};

use crate::attack::{self, Attack, MODES, Scene, unpack};
use crate::attacker::Attacker;
use crate::claims;

/// How often the honest layers are extracted in each mode.
const ROUNDS: u32 = 3;

/// How many there are of each kind of entry in an honest layer.
const EACH: u32 = 30;

#[test]
fn liars_with_an_accomplice_are_contained() -> Result<()> {
    let scene = Scene::new()?;
    // Those that make something before they end; what the claim check refuses at once never meets the neighbour.
    let attacks: Vec<Attack> = [claims::roots(), claims::links_out_of_the_root(), claims::races()].concat();
    let attacker = Attacker::start(scene.path())?;
    let mut swaps = 0;
    for attack in &attacks {
        for &mode in attack.modes() {
            let dest = scene.dest(mode)?;
            let before = attacker.swaps()?;
            // Any end will do: that there is one, and that it is an error of ours if it is none, is the type's promise.
            let _ = attack.unpack(&dest, mode)?;
            swaps += attacker.swaps()? - before;
            scene.ensure_contained().with_context(|| format!("{}, {mode:?}", attack.name))?;
        }
    }
    attacker.stop()?;
    ensure!(swaps > attacks.len() as u64, "only {swaps} swaps while {} attacks were running", attacks.len());
    scene.ensure_same()
}

#[test]
fn cve_2018_15664_honest_layers_beside_an_attacker_harm_nobody() -> Result<()> {
    let scene = Scene::new()?;
    let unpacker = Unpacker::new(Arc::new(Sandbox::new(&attack::options())?), attack::limits());
    let layers = [lower()?, upper()?];
    let attacker = Attacker::start(scene.path())?;
    for mode in MODES {
        let (mut swaps, mut whole) = (0, 0);
        for round in 0..ROUNDS {
            for layers in courses(&layers, mode) {
                let dest = scene.dest(mode)?;
                let before = attacker.swaps()?;
                let outcome = extract(&unpacker, layers, &dest, mode);
                swaps += attacker.swaps()? - before;
                whole += u32::from(outcome.is_ok());
                let ended = || format!("{mode:?}, round {round}, which ended with {outcome:?}");
                scene.ensure_contained().with_context(ended)?;
            }
        }
        println!("{mode:?}: {swaps} swaps, {whole} extractions of {ROUNDS} rounds succeeded");
        ensure!(swaps > ROUNDS.into(), "{mode:?}: only {swaps} swaps while layers were extracted");
    }
    attacker.stop()?;
    scene.ensure_same()
}

/// Without the attacker, these layers are extracted: else the races above would show nothing.
#[test]
fn the_layers_of_the_races_are_honest() -> Result<()> {
    let scene = Scene::new()?;
    let unpacker = Unpacker::new(Arc::new(Sandbox::new(&attack::options())?), attack::limits());
    let layers = [lower()?, upper()?];
    for mode in MODES {
        for layers in courses(&layers, mode) {
            extract(&unpacker, layers, &scene.dest(mode)?, mode).with_context(|| format!("{mode:?}"))?;
        }
    }
    scene.ensure_contained()
}

/// One layer onto the other, or each of them alone.
fn courses(layers: &[Vec<u8>; 2], mode: Mode) -> Vec<&[Vec<u8>]> {
    if mode == Mode::Apply { vec![layers] } else { layers.chunks(1).collect() }
}

fn extract(unpacker: &Unpacker, layers: &[Vec<u8>], dest: &Path, mode: Mode) -> cofferdam::Result<()> {
    if let ([layer], Mode::Preserve | Mode::Overlay) = (layers, mode) {
        return unpack(unpacker, Layer::new(Cursor::new(layer.clone())), dest, mode);
    }
    let mut extractor = LayerExtractor::new(dest).with_unpacker(unpacker.clone());
    for layer in layers {
        extractor.extract(Layer::new(Cursor::new(layer.clone())))?;
    }
    extractor.finalize()
}

/// Directories deep and wide, files, links, attributes and modes; most of it in the places that are swapped.
fn lower() -> Result<Vec<u8>> {
    let mut layer = Tar::new();
    for dir in ["a/", "a/b/", "a/b/c/", "etc/", "wide/", "gone/", "gone/deep/", "d/", "late/"] {
        layer.dir(dir, 0o755)?;
    }
    let mut deep = "deep/".to_owned();
    for level in 0..25 {
        layer.dir(&deep, 0o700)?;
        layer.file(&format!("{deep}f"), b"deep", 0o600)?;
        deep = format!("{deep}{level}/");
    }
    for number in 0..EACH {
        layer.file(&format!("wide/{number}"), b"wide", 0o644)?;
        layer.file(&format!("a/b/c/{number}"), &[7; 5000], 0o4755)?;
        layer.file(&format!("gone/deep/{number}"), b"gone", 0o644)?;
        layer.link(&format!("a/b/link{number}"), &format!("wide/{number}"))?;
        layer.link(&format!("etc/link{number}"), &format!("late/{number}"))?;
    }
    for number in 0..EACH {
        layer.file(&format!("late/{number}"), b"later", 0o600)?;
        layer.special(&format!("d/pipe{number}"), EntryType::Fifo)?;
        layer.symlink(&format!("etc/symlink{number}"), "../../victim/f")?;
        layer.file(&format!("etc/symlink{number}"), b"instead", 0o640)?;
    }
    // Directories again, with other modes and attributes, and a directory in the place of files and back.
    for mode in [0, 0o777, 0o1777, 0o2755, 0o755] {
        for dir in ["a/", "a/b/", "a/b/c/", "etc/", "wide/", "deep/0/"] {
            layer.dir(dir, mode)?;
        }
        layer.file("d", b"no directory", 0o644)?;
        layer.dir("d/", 0o755)?;
        layer.file("d/f", b"again", 0o644)?;
    }
    layer.finish()
}

/// Removals of all that, deep and wide, and new content in its place.
fn upper() -> Result<Vec<u8>> {
    let mut layer = Tar::new();
    layer.file("a/b/own", b"own", 0o644)?;
    for marker in ["gone/.wh.deep", ".wh.gone", "deep/.wh.0", "wide/.wh..wh..opq", "etc/.wh..wh..opq", "a/.wh.b"] {
        layer.file(marker, b"", 0o644)?;
    }
    for number in 0..EACH {
        layer.file(&format!("a/b/c/.wh.{number}"), b"", 0o644)?;
        layer.file(&format!("wide/new{number}"), b"new", 0o644)?;
        layer.file(&format!("gone/deep/new{number}"), b"new", 0o644)?;
    }
    layer.finish()
}

struct Tar(Builder<Vec<u8>>);

impl Tar {
    fn new() -> Self {
        Self(Builder::new(Vec::new()))
    }

    fn header(kind: EntryType, mode: u32, size: usize) -> Header {
        let mut header = Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_mtime(1_700_000_000);
        header.set_size(size as u64);
        header.set_uid(0);
        header.set_gid(0);
        header
    }

    fn dir(&mut self, name: &str, mode: u32) -> Result<()> {
        self.0.append_pax_extensions([("SCHILY.xattr.user.note", b"a directory".as_slice())])?;
        Ok(self.0.append_data(&mut Self::header(EntryType::Directory, mode, 0), name, [].as_slice())?)
    }

    fn file(&mut self, name: &str, content: &[u8], mode: u32) -> Result<()> {
        self.0.append_pax_extensions([("SCHILY.xattr.user.note", b"a file".as_slice())])?;
        Ok(self.0.append_data(&mut Self::header(EntryType::Regular, mode, content.len()), name, content)?)
    }

    fn special(&mut self, name: &str, kind: EntryType) -> Result<()> {
        Ok(self.0.append_data(&mut Self::header(kind, 0o644, 0), name, [].as_slice())?)
    }

    fn link(&mut self, name: &str, target: &str) -> Result<()> {
        Ok(self.0.append_link(&mut Self::header(EntryType::Link, 0o644, 0), name, target)?)
    }

    fn symlink(&mut self, name: &str, target: &str) -> Result<()> {
        Ok(self.0.append_link(&mut Self::header(EntryType::Symlink, 0o777, 0), name, target)?)
    }

    fn finish(self) -> Result<Vec<u8>> {
        Ok(self.0.into_inner()?)
    }
}

/// How the command may end beside an attacker: well or with an error of its own, but with no signal and no panic.
const ANY_END: [i32; 5] = [exit::OK, exit::FAILED, exit::USAGE, exit::REFUSED, exit::BUSY];

/// The destination itself becomes a link to the victim while the command extracts into it.
#[test]
fn a_destination_that_is_swapped_away_is_still_the_one_that_is_filled() -> Result<()> {
    let scene = Scene::new()?;
    let cofferdam = Cofferdam::new(scene.attic("store"))?;
    let layer = scene.attic("layer.tar");
    fs::File::create(&layer)?.write_all(&[lower()?, vec![0; 64 << 20]].concat())?;
    let layer = layer.display().to_string();
    for mode in ["apply", "preserve", "overlay"] {
        let dest = scene.dest(Mode::Preserve)?;
        let link = scene.attic("link");
        let _ = fs::remove_file(&link);
        let _ = fs::rename(&link, scene.attic(&format!("old-{mode}")));
        symlink(scene.victim().path(), &link)?;
        let at = dest.display().to_string();
        let mut running = cofferdam.spawn(["layer", "extract", "--mode", mode, &layer, &at])?;
        // Where it leads before it is opened is the caller's own word: the attack begins when the command is inside.
        while fs::read_dir(&dest)?.next().is_none() {
            ensure!(!running.has_ended()?, "{mode}: {}", running.wait()?.err());
            std::thread::yield_now();
        }
        rustix::fs::renameat_with(CWD, &dest, CWD, &link, RenameFlags::EXCHANGE)?;
        ensure!(!running.has_ended()?, "{mode}: the command ended before the swap");
        let run = running.wait()?.expect(exit::OK)?;
        ensure!(dest.is_symlink(), "{mode}: {}", run.err());
        ensure!(link.join("d/f").exists(), "{mode}: the directory that was opened is not the one that was filled");
        fs::remove_file(&dest)?;
        scene.ensure_contained().context(mode)?;
    }
    scene.ensure_same()
}

/// The name of the destination is a link to the victim at any moment of an unpacking, and nothing or a directory at others.
#[test]
fn a_destination_whose_name_is_taken_harms_nobody() -> Result<()> {
    let scene = Scene::new()?;
    let cofferdam = Cofferdam::new(scene.attic("store"))?;
    let image = format!("oci:{}", paths::hello_layout().display());
    let dest = scene.path().join("dest");
    let mut swaps = 0_u64;
    for strategy in ["copy", "apply"] {
        for _ in 0..5 {
            let mut running =
                cofferdam.spawn(["unpack", "--strategy", strategy, &image, &dest.display().to_string()])?;
            while !running.has_ended()? {
                swaps += u64::from(symlink(scene.victim().path(), &dest).is_ok());
                let _ = fs::remove_file(&dest);
                let _ = fs::create_dir(&dest);
                let _ = fs::remove_dir(&dest);
            }
            running.wait()?.expect_one_of(&ANY_END)?;
            cofferdam_tests::scratch::remove_tree(&dest);
            let _ = fs::remove_file(&dest);
            scene.ensure_contained()?;
        }
    }
    ensure!(swaps > 10, "only {swaps} swaps while images were unpacked");
    scene.ensure_same()
}
