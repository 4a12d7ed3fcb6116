//! An attack: a guest, what it does, under which limits, and how that must end.

use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use cofferdam::sandbox::{Guest, Sandbox, SandboxOptions};
use cofferdam::tree::{Mode, TreeWriter, WriterOptions};
use cofferdam::unpack::{Compression, Layer, LayerExtractor, Unpacker};
use cofferdam::{Error, ErrorKind, GuestFailure, Limits, ambient};
use cofferdam_tests::{Scratch, guests, paths};

use crate::script::Script;
use crate::victim::Victim;

/// Every way to write a tree.
pub const MODES: [Mode; 3] = [Mode::Apply, Mode::Preserve, Mode::Overlay];

/// Who attacks.
#[derive(Clone, Debug)]
pub enum Who {
    /// The component `hostile_extractor` or `hostile_decoder`, which does what its stream says.
    Scripted(Guest),
    /// A component in the text format.
    Written(Guest, String),
}

/// How an attack must end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ends {
    /// It changes nothing that it may not change, so it succeeds.
    Contained,
    /// With [`Error::Refused`], whose reason holds this.
    Refused(&'static str),
    /// With [`Error::Limit`], of which this was too much.
    Limit(&'static str),
    /// With [`Error::Corrupt`].
    Corrupt,
    /// With [`GuestFailure::TimeOut`].
    TimeOut,
    /// With [`GuestFailure::Memory`].
    Memory,
    /// With [`GuestFailure::Trap`], whose name holds this.
    Trap(&'static str),
    /// With [`GuestFailure::Misuse`], whose rule holds this.
    Misuse(&'static str),
    /// With [`GuestFailure::Load`].
    Load,
}

/// An attack.
#[derive(Clone, Debug)]
pub struct Attack {
    pub name: String,
    pub who: Who,
    pub stream: Vec<u8>,
    pub limits: Limits,
    pub ends: Ends,
    /// How it ends for a layer that is kept alone, where that differs.
    pub ends_preserved: Option<Ends>,
}

/// The limits of all attacks that say no others: the defaults, but for a guest's time, so that loops end soon.
pub fn limits() -> Limits {
    let mut limits = Limits::default();
    limits.guest_time = Duration::from_millis(800);
    limits
}

impl Attack {
    /// By the extractor that does what it is told.
    pub fn extractor(name: impl Into<String>, script: Script, ends: Ends) -> Self {
        Self {
            name: name.into(),
            who: Who::Scripted(Guest::Untar),
            stream: script.stream(),
            limits: limits(),
            ends,
            ends_preserved: None,
        }
    }

    /// By the decoder that does what it is told.
    pub fn decoder(name: impl Into<String>, script: Script, ends: Ends) -> Self {
        Self { who: Who::Scripted(Guest::Gunzip), ..Self::extractor(name, script, ends) }
    }

    /// By a component in the text format, in the place of `guest`, on a stream of 64 KiB.
    pub fn written(name: impl Into<String>, guest: Guest, text: String, ends: Ends) -> Self {
        let magic: &[u8] = if guest == Guest::Untar { b"tar:" } else { &[0x1f, 0x8b, 8, 0] };
        let stream = [magic, &vec![0; 65532]].concat();
        Self { who: Who::Written(guest, text), stream, ..Self::extractor(name, Script::extractor(), ends) }
    }

    /// Under other limits.
    pub fn under(mut self, change: impl FnOnce(&mut Limits)) -> Self {
        change(&mut self.limits);
        self
    }

    /// Ends otherwise for a layer that is kept alone.
    pub fn preserved(mut self, ends: Ends) -> Self {
        self.ends_preserved = Some(ends);
        self
    }

    fn guest(&self) -> Guest {
        match self.who {
            Who::Scripted(guest) | Who::Written(guest, _) => guest,
        }
    }

    /// The modes in which it differs: all for one that makes entries.
    pub fn modes(&self) -> &'static [Mode] {
        if matches!(self.who, Who::Scripted(Guest::Untar)) { &MODES } else { &MODES[..1] }
    }

    pub fn unpacker(&self) -> Result<Unpacker> {
        let sandbox = match &self.who {
            Who::Scripted(_) => scripted()?,
            Who::Written(guest, text) => {
                let component = wat::parse_str(text).with_context(|| self.name.clone())?;
                Arc::new(Sandbox::new(&options().with_guest(*guest, component))?)
            }
        };
        Ok(Unpacker::new(sandbox, self.limits.clone()))
    }

    /// Runs it onto a directory.
    pub fn unpack(&self, dest: &Path, mode: Mode) -> Result<cofferdam::Result<()>> {
        let size = self.stream.len() as u64;
        // Size and compression bound what the layer may claim to hold; of some attacks that is the point.
        let compression = if self.guest() == Guest::Untar { Compression::None } else { Compression::Gzip };
        let layer = Layer::new(Cursor::new(self.stream.clone())).with_size(size).with_compression(compression);
        Ok(unpack(&self.unpacker()?, layer, dest, mode))
    }

    /// Fails unless this is how it must end.
    pub fn judge(&self, outcome: cofferdam::Result<()>, mode: Mode) -> Result<()> {
        let ends = self.ends_preserved.filter(|_| mode == Mode::Preserve).unwrap_or(self.ends);
        let error = match outcome {
            Ok(()) if ends == Ends::Contained => return Ok(()),
            Ok(()) => bail!("{}: succeeded, and not with {ends:?}", self.name),
            Err(error) => error,
        };
        let failure = |ends: fn(&GuestFailure) -> Option<&str>, part: &str| match error.root() {
            Error::Guest { guest, failure } => {
                guest == self.guest().name() && ends(failure).is_some_and(|text| text.contains(part))
            }
            _ => false,
        };
        let right = match ends {
            Ends::Contained => false,
            Ends::Refused(part) => matches!(error.root(), Error::Refused { reason, .. } if reason.contains(part)),
            Ends::Limit(part) => matches!(error.root(), Error::Limit { what, .. } if what.contains(part)),
            Ends::Corrupt => matches!(error.root(), Error::Corrupt { .. }),
            Ends::TimeOut => failure(|f| matches!(f, GuestFailure::TimeOut).then_some(""), ""),
            Ends::Memory => failure(|f| matches!(f, GuestFailure::Memory(_)).then_some(""), ""),
            Ends::Trap(part) => failure(|f| if let GuestFailure::Trap(text) = f { Some(text) } else { None }, part),
            Ends::Misuse(part) => failure(|f| if let GuestFailure::Misuse(text) = f { Some(text) } else { None }, part),
            Ends::Load => failure(|f| matches!(f, GuestFailure::Load(_)).then_some(""), ""),
        };
        let kind = if ends == Ends::Corrupt { ErrorKind::Integrity } else { ErrorKind::Refused };
        ensure!(right && error.kind() == kind, "{}: ended with {error:?}, not with {ends:?}", self.name);
        ensure!(error.to_string().len() < 1000, "{}: a message of {} bytes", self.name, error.to_string().len());
        Ok(())
    }
}

/// Compiled guests are kept from one test to the next: each is a process of its own.
pub fn options() -> SandboxOptions {
    SandboxOptions::default().with_cache(paths::target().join("tmp/hostile-cache"))
}

/// One sandbox for all attacks by script.
fn scripted() -> Result<Arc<Sandbox>> {
    static SCRIPTED: OnceLock<Result<Arc<Sandbox>, String>> = OnceLock::new();
    let make = || -> Result<_> {
        let options = options()
            .with_guest(Guest::Untar, guests::hostile("extractor")?)
            .with_guest(Guest::Gunzip, guests::hostile("decoder")?);
        Ok(Arc::new(Sandbox::new(&options)?))
    };
    match SCRIPTED.get_or_init(|| make().map_err(|error| format!("{error:#}"))) {
        Ok(sandbox) => Ok(Arc::clone(sandbox)),
        Err(error) => bail!("no sandbox: {error}"),
    }
}

/// Unpacks one layer onto a directory.
pub fn unpack(unpacker: &Unpacker, layer: Layer, dest: &Path, mode: Mode) -> cofferdam::Result<()> {
    if mode == Mode::Apply {
        let mut extractor = LayerExtractor::new(dest).with_unpacker(unpacker.clone());
        extractor.extract(layer)?;
        return extractor.finalize();
    }
    let options = WriterOptions { limits: unpacker.limits().clone(), ..WriterOptions::new(mode) };
    let writer = TreeWriter::new(ambient::open_dest(dest)?, options)?;
    let (outcome, mut writer) = unpacker.extract(layer, writer);
    outcome?;
    writer.finish_layer()?;
    writer.finish()
}

/// Where attacks take place: a destination, a victim beside it, and an attic for what belongs to neither.
#[derive(Debug)]
pub struct Scene {
    scratch: Scratch,
    victim: Victim,
    dests: AtomicU32,
}

impl Scene {
    pub fn new() -> Result<Self> {
        let scratch = Scratch::new()?;
        let victim = Victim::make(scratch.join("victim"))?;
        fs::create_dir(scratch.join("attic"))?;
        Ok(Self { scratch, victim, dests: AtomicU32::new(0) })
    }

    pub fn victim(&self) -> &Victim {
        &self.victim
    }

    /// Where victim and destination lie.
    pub fn path(&self) -> &Path {
        self.scratch.path()
    }

    /// Something in the directory that is neither victim nor destination, and does not count.
    pub fn attic(&self, name: &str) -> PathBuf {
        self.scratch.join("attic").join(name)
    }

    /// A new destination: empty, or with something to remove for layers that remove. Made and taken away elsewhere, since
    /// we follow links where a neighbour may be at work.
    pub fn dest(&self, mode: Mode) -> Result<PathBuf> {
        let [dest, next] = ["dest", "attic/next"].map(|name| self.scratch.join(name));
        let number = self.dests.fetch_add(1, Ordering::Relaxed);
        let last = self.attic(&format!("last-{number}"));
        let _ = fs::rename(&dest, &last);
        let _ = fs::remove_dir_all(&last);
        let mut parts = vec![""];
        if mode == Mode::Apply {
            parts.extend(["a/b/c", "etc", "gone/deep/er"]);
        }
        for dir in parts {
            fs::create_dir_all(next.join(dir))?;
            if !dir.is_empty() {
                fs::write(next.join(dir).join("lower"), "below")?;
            }
        }
        fs::rename(&next, &dest).context("the last destination is still there")?;
        Ok(dest)
    }

    /// Runs attacks in all modes; each must end as it must, and leave the world as it was.
    pub fn withstands(self, attacks: Vec<Attack>) -> Result<()> {
        ensure!(!attacks.is_empty(), "nobody attacks");
        for attack in attacks {
            for &mode in attack.modes() {
                let outcome = attack.unpack(&self.dest(mode)?, mode)?;
                attack.judge(outcome, mode).with_context(|| format!("{mode:?}"))?;
                self.ensure_contained().with_context(|| format!("{}, {mode:?}", attack.name))?;
            }
        }
        self.ensure_same()
    }

    /// Fails unless the victim is the same to the last byte. Reads it, so it ends the scene.
    pub fn ensure_same(self) -> Result<()> {
        self.victim.ensure_same()
    }

    /// Fails if anything but the destination has changed.
    pub fn ensure_contained(&self) -> Result<()> {
        self.victim.ensure_untouched()?;
        for entry in fs::read_dir(self.scratch.path())? {
            let name = entry?.file_name();
            ensure!(["victim", "dest", "attic"].iter().any(|known| name == *known), "{} was made", name.display());
        }
        Ok(())
    }
}
