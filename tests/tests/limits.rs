//! Every limit is crossed by exactly one: at the limit the command goes on, one above it ends with 7 and says how the
//! limit is raised. The table is that of the library, so that a new limit without a case here is a failure.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use cofferdam::Limits;
use cofferdam_tests::cofferdam::exit;
use cofferdam_tests::layers::{self, Item};
use cofferdam_tests::{Cofferdam, OciLayout, Scratch, paths};
use serde_json::json;
use tar::{Builder, EntryType, Header};

/// What crosses a limit, and where the limit is.
enum Case {
    /// This command line needs exactly this much.
    Needs(u64, Vec<String>),
    /// This command line needs an amount that is not known beforehand, and no less than a multiple of the second number.
    Somewhere(Vec<String>, u64),
    /// Time cannot be hit exactly: this command line needs more than none, and less than the other.
    Time(Vec<String>, &'static str),
    /// No layer reaches it while the first-party guests do what they should. A unit test crosses it.
    Unit(&'static str, &'static str),
}

struct Bench {
    scratch: Scratch,
    cofferdam: Cofferdam,
}

/// A member of an archive to be.
#[derive(Clone)]
struct Member<'a> {
    name: &'a str,
    kind: EntryType,
    link: &'a str,
    records: &'a [(&'a str, &'a [u8])],
    content: &'a [u8],
}

const FILE: Member<'_> = Member { name: "f", kind: EntryType::Regular, link: "", records: &[], content: b"" };
const DIR: Member<'_> = Member { name: "d", kind: EntryType::Directory, ..FILE };

fn archive(members: &[Member<'_>]) -> Result<Vec<u8>> {
    let mut builder = Builder::new(Vec::new());
    for member in members {
        if !member.records.is_empty() {
            builder.append_pax_extensions(member.records.iter().copied())?;
        }
        let mut header = Header::new_ustar();
        header.set_entry_type(member.kind);
        header.set_mode(0o755);
        header.set_mtime(1_700_000_000);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(member.content.len() as u64);
        let fields = header.as_ustar_mut().context("not a ustar header")?;
        fields.name.get_mut(..member.name.len()).context("a long name")?.copy_from_slice(member.name.as_bytes());
        fields.linkname.get_mut(..member.link.len()).context("a long link")?.copy_from_slice(member.link.as_bytes());
        header.set_cksum();
        builder.append(&header, member.content)?;
    }
    Ok(builder.into_inner()?)
}

impl Bench {
    fn new() -> Result<Self> {
        let scratch = Scratch::new()?;
        Ok(Self { cofferdam: Cofferdam::new(scratch.join("store"))?, scratch })
    }

    fn file(&self, name: &str, bytes: &[u8]) -> Result<String> {
        let path = self.scratch.join(name);
        fs::write(&path, bytes)?;
        Ok(path.display().to_string())
    }

    fn list(&self, name: &str, members: &[Member<'_>]) -> Result<Vec<String>> {
        Ok(["layer".into(), "list".into(), self.file(name, &archive(members)?)?].into())
    }

    /// Unpacks into DEST, which stands for a new directory in each run.
    fn extract(&self, name: &str, members: &[Member<'_>]) -> Result<Vec<String>> {
        Ok(["layer".into(), "extract".into(), self.file(name, &archive(members)?)?, "DEST".into()].into())
    }

    fn verify(&self, name: &str, bytes: &[u8], settings: &[&str]) -> Result<Vec<String>> {
        let settings = settings.iter().map(|setting| format!("--limit={setting}"));
        Ok(["layer".into(), "verify".into(), self.file(name, bytes)?].into_iter().chain(settings).collect())
    }

    /// Whether the command gets by with `name=value`. If not, it must be for this reason.
    fn passes(&self, line: &[String], name: &str, value: &str) -> Result<bool> {
        let dest = tempfile::tempdir_in(self.scratch.path())?;
        let at = dest.path().join("dest").display().to_string();
        let line = line.iter().map(|word| if word == "DEST" { at.clone() } else { word.clone() });
        let run = self.cofferdam.run(line.chain(["--limit".to_owned(), format!("{name}={value}")]))?;
        if run.code() == Some(exit::OK) {
            return Ok(true);
        }
        let run = run.expect(exit::REFUSED)?;
        ensure!(run.err().contains(&format!("--limit {name}=")), "the hint for {name}={value} is not: {}", run.err());
        Ok(false)
    }

    fn crosses(&self, name: &str, case: &Case) -> Result<()> {
        match case {
            Case::Needs(exactly, line) => {
                ensure!(self.passes(line, name, &exactly.to_string())?, "{name}={exactly} is too little");
                ensure!(!self.passes(line, name, &(exactly - 1).to_string())?, "{name}={} is enough", exactly - 1);
            }
            Case::Somewhere(line, grain) => {
                let default = Limits::default();
                let (mut low, mut high) = (0, default.value(Limits::named(name)?));
                ensure!(self.passes(line, name, &high.to_string())?, "the default of {name} is too little");
                ensure!(!self.passes(line, name, "0")?, "{name}=0 is enough");
                while high - low > 1 {
                    let middle = low.midpoint(high);
                    if self.passes(line, name, &middle.to_string())? { high = middle } else { low = middle }
                }
                ensure!(high.is_multiple_of(*grain), "{name} is crossed at {high}");
            }
            Case::Time(line, enough) => {
                ensure!(self.passes(line, name, enough)?, "{name}={enough} is too little");
                ensure!(!self.passes(line, name, "0s")?, "{name}=0s is enough");
            }
            Case::Unit(file, test) => {
                let source = fs::read_to_string(paths::workspace().join(file))?;
                ensure!(source.contains(&format!("fn {test}()")), "{file} has no test {test}");
                ensure!(source.contains(&format!("The limit `{name}`")), "{file} does not say that it crosses {name}");
            }
        }
        Ok(())
    }

    fn case(&self, name: &str) -> Result<Case> {
        let two = [DIR, Member { name: "d/f", ..FILE }];
        Ok(match name {
            "layer-bytes" => Case::Needs(2048, self.verify(name, &archive(&[FILE, FILE])?, &[])?),
            "ratio" | "ratio-from" => {
                let zeros = vec![0; 1 << 20];
                let blob = layers::gzip(&zeros)?;
                if name == "ratio" {
                    Case::Needs((1_u64 << 20).div_ceil(blob.len() as u64), self.verify(name, &blob, &["ratio-from=1"])?)
                } else {
                    Case::Needs(1 << 20, self.verify(name, &blob, &["ratio=1"])?)
                }
            }
            "entries" => Case::Needs(2, self.list(name, &two)?),
            "free-entries" => {
                let blob = layers::gzip(&archive(&vec![FILE; 100])?)?;
                let file = self.file(name, &blob)?;
                Case::Needs(100 - blob.len() as u64 / 64, ["layer".into(), "list".into(), file].into())
            }
            // Three directories, of which the entry pays for two.
            "implied-directories" => Case::Needs(1, self.extract(name, &[Member { name: "a/b/c/f", ..FILE }])?),
            "path-bytes" => Case::Needs(7, self.list(name, &[Member { name: "abc/def", ..FILE }])?),
            "component-bytes" => Case::Needs(4, self.list(name, &[Member { name: "a/abcd/b", ..FILE }])?),
            "depth" => Case::Needs(300, self.deep(name)?),
            "entry-metadata-bytes" => {
                // `19 comment=0123456\n`
                Case::Needs(19, self.list(name, &[Member { records: &[("comment", b"0123456")], ..FILE }])?)
            }
            "xattr-bytes" => {
                Case::Needs(9, self.list(name, &[Member { records: &[("SCHILY.xattr.user.a", b"abc")], ..FILE }])?)
            }
            "xattrs" => {
                let records: &[(&str, &[u8])] = &[("SCHILY.xattr.user.a", b"1"), ("SCHILY.xattr.user.b", b"2")];
                Case::Needs(2, self.list(name, &[Member { records, ..FILE }])?)
            }
            "sparse-extents" => {
                let records: &[(&str, &[u8])] =
                    &[("GNU.sparse.size", b"9"), ("GNU.sparse.numblocks", b"2"), ("GNU.sparse.map", b"0,1,5,1")];
                Case::Needs(2, self.list(name, &[Member { records, content: b"xy", ..FILE }])?)
            }
            "file-bytes" => Case::Needs(5, self.list(name, &[Member { content: b"12345", ..FILE }])?),
            "link-hops" => {
                let link = |name, link| Member { name, link, kind: EntryType::Symlink, ..FILE };
                let members = [DIR, link("a", "b"), link("b", "c"), link("c", "d"), Member { name: "a/f", ..FILE }];
                Case::Needs(3, self.extract(name, &members)?)
            }
            "link-steps" => {
                // 1601 steps behind the link; three entries give 48.
                let target = format!("{}d", "d/../".repeat(800));
                let records: &[(&str, &[u8])] = &[("linkpath", target.as_bytes())];
                let link = Member { name: "a", link: "d", kind: EntryType::Symlink, records, ..FILE };
                Case::Somewhere(self.extract(name, &[DIR, link, Member { name: "a/f", ..FILE }])?, 1)
            }
            "deferred-bytes" => {
                // The root's name is empty, `d` one byte; each costs 64 more.
                Case::Needs(2 * 64 + 1, self.extract(name, &two)?)
            }
            "manifest-bytes" | "config-bytes" | "layers" | "index-depth" | "image-bytes" => self.document(name)?,
            "zstd-window" => {
                let tar = archive(&[FILE])?;
                // No checksum, no size; a window of 1 MiB; one raw block, the last.
                let block = u32::try_from(tar.len())? << 3 | 1;
                let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0, 10 << 3];
                frame.extend_from_slice(&block.to_le_bytes()[..3]);
                frame.extend_from_slice(&tar);
                Case::Needs(1 << 20, self.verify(name, &frame, &[])?)
            }
            "decoder-memory" => Case::Somewhere(self.verify(name, &layers::gzip(&archive(&[FILE])?)?, &[])?, 64 << 10),
            "guest-memory" => Case::Somewhere(self.list(name, &[FILE])?, 64 << 10),
            "guest-time" | "guest-time-per-mib" => {
                let blob = layers::gzip(&vec![0; 200 << 20])?;
                let other = if name == "guest-time" { "guest-time-per-mib=0s" } else { "guest-time=50ms" };
                Case::Time(self.verify(name, &blob, &[other])?, "60s")
            }
            "idle-calls" => Case::Unit("host/sandbox/src/tests.rs", "as_many_idle_calls_as_the_limit_says_are_served"),
            "log-messages" => Case::Unit("host/sandbox/src/confine.rs", "messages_beyond_the_limit_are_dropped"),
            other => bail!("nothing crosses the limit {other}"),
        })
    }

    /// A file 300 levels deep: more than by default, so that raising the limit reaches the guest.
    fn deep(&self, name: &str) -> Result<Vec<String>> {
        let path = vec!["d"; 300].join("/");
        self.extract(name, &[Member { records: &[("path", path.as_bytes())], ..FILE }])
    }

    /// Limits on documents.
    fn document(&self, name: &str) -> Result<Case> {
        let dir: PathBuf = self.scratch.join(name);
        let mut layout = OciLayout::create(&dir)?;
        let one = layout.add_tar(&layers::tar(&[Item::File("a", Vec::new())])?)?;
        let two = layout.add_tar(&layers::tar(&[Item::File("b", Vec::new())])?)?;
        let size = one.size + two.size;
        let digest = layout.add_image("v1", &[one, two])?;
        let line = || -> Vec<String> { ["unpack".into(), layout.source("v1"), "DEST".into()].into() };
        Ok(match name {
            "manifest-bytes" => Case::Needs(fs::metadata(layout.blob(&digest))?.len(), line()),
            "config-bytes" => {
                let manifest: serde_json::Value = serde_json::from_slice(&fs::read(layout.blob(&digest))?)?;
                Case::Needs(manifest["config"]["size"].as_u64().context("no size")?, line())
            }
            "layers" => Case::Needs(2, line()),
            // Two archives without compression: as many bytes declared as decoded.
            "image-bytes" => Case::Needs(size, line()),
            "index-depth" => {
                nest(&layout, &dir)?;
                Case::Needs(1, line())
            }
            other => bail!("{other} is not about documents"),
        })
    }
}

/// Puts the index of a layout into another index.
fn nest(layout: &OciLayout, dir: &Path) -> Result<()> {
    let inner: serde_json::Value = serde_json::from_slice(&fs::read(dir.join("index.json"))?)?;
    let mut manifest = inner["manifests"][0].clone();
    manifest["platform"] = json!({ "os": "linux", "architecture": cofferdam_tests::layout::architecture() });
    let media_type = "application/vnd.oci.image.index.v1+json";
    let bytes = serde_json::to_vec(&json!({ "schemaVersion": 2, "mediaType": media_type, "manifests": [manifest] }))?;
    let outer = json!({ "schemaVersion": 2, "manifests": [{
        "mediaType": media_type,
        "digest": layout.add(&bytes)?,
        "size": bytes.len(),
        "annotations": { "org.opencontainers.image.ref.name": "v1" },
    }]});
    Ok(fs::write(dir.join("index.json"), serde_json::to_vec(&outer)?)?)
}

/// Crossed by plugins, in `tests/tests/plugin_denials` and `tests/tests/plugins`.
const OF_PLUGINS: [&str; 8] = [
    "http-bytes",
    "http-requests",
    "plugin-bytes",
    "plugin-memory",
    "plugin-wait",
    "report-bytes",
    "scratch-bytes",
    "scratch-files",
];

#[test]
fn each_limit_is_crossed_by_one() -> Result<()> {
    let bench = Bench::new()?;
    let mut wrong = Vec::new();
    for limit in Limits::ALL.iter().filter(|limit| !OF_PLUGINS.contains(&limit.name)) {
        let outcome = bench.case(limit.name).and_then(|case| bench.crosses(limit.name, &case));
        if let Err(error) = outcome {
            wrong.push(format!("{}: {error:#}", limit.name));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

/// Whatever brings the layers, and however small each of them is: all that they decode to is the image's.
#[test]
fn the_limit_of_an_image_holds_on_every_path() -> Result<()> {
    let bench = Bench::new()?;
    let mut layout = OciLayout::create(bench.scratch.join("layout"))?;
    let mut decoded = 0;
    let mut parts = Vec::new();
    for name in ["a", "b", "c"] {
        let tar = layers::tar(&[Item::File(name, vec![0; 100_000])])?;
        decoded += tar.len();
        parts.push(layout.add_gzip(&tar)?);
    }
    layout.add_image("v1", &parts)?;
    let image = layout.source("v1");
    let enough = format!("image-bytes={decoded}");
    let too_few = format!("image-bytes={}", decoded - 1);
    let dest = bench.scratch.join("dest").display().to_string();
    let run = |line: &[&str]| -> Result<()> {
        let refused = bench.cofferdam.fails(exit::REFUSED, line.iter().copied().chain(["--limit", &too_few]))?;
        ensure!(refused.err().contains("--limit image-bytes="), "{line:?}: {}", refused.err());
        ensure!(!bench.scratch.join("dest").exists(), "{line:?} leaves a tree");
        Ok(())
    };
    // Nothing is there yet, or each layer's tree is.
    for line in [&["pull", &image][..], &["unpack", &image, &dest], &["unpack", "--strategy", "apply", &image, &dest]] {
        run(line)?;
    }
    bench.cofferdam.ok(["pull", &image, "--limit", &enough])?;
    for line in [&["pull", &image][..], &["unpack", &image, &dest], &["mount-spec", &image]] {
        run(line)?;
    }
    bench.cofferdam.ok(["mount-spec", &image, "--limit", &enough])?;
    Ok(())
}

#[test]
fn limits_come_from_file_environment_and_flags_in_this_order() -> Result<()> {
    let bench = Bench::new()?;
    let config = bench.file("config.toml", b"[limits]\nentries = 11\ndepth = 12\nlayer-bytes = \"13KiB\"\n")?;
    let run =
        bench.cofferdam.spawn_with(["limits", "--json", "--config", &config, "--limit", "entries=3"], |command| {
            command.env("COFFERDAM_LIMITS", "entries=2, depth=4");
        })?;
    let shown = run.wait()?.expect(exit::OK)?.json()?;
    let value = |name: &str| {
        let limits = shown["limits"].as_array().into_iter().flatten();
        limits.filter(|limit| limit["name"] == name).map(|limit| limit["value"].as_u64()).next().flatten()
    };
    ensure!(value("entries") == Some(3) && value("depth") == Some(4), "{shown}");
    ensure!(value("layer-bytes") == Some(13 << 10) && value("xattrs") == Some(256), "{shown}");
    let home = bench.scratch.dir("config/cofferdam")?;
    fs::write(home.join("config.toml"), "[limits]\nxattrs = 1\n")?;
    let run = bench.cofferdam.spawn_with(["limits"], |command| {
        command.env("XDG_CONFIG_HOME", bench.scratch.join("config"));
    })?;
    let text = run.wait()?.expect(exit::OK)?.out();
    ensure!(text.lines().any(|line| line.starts_with("xattrs") && line.contains(" 1 ")), "{text}");
    Ok(())
}

#[test]
fn a_limit_that_makes_no_sense_is_2() -> Result<()> {
    let bench = Bench::new()?;
    let fails = |args: &[&str], hint: &str| -> Result<()> {
        let run = bench.cofferdam.fails(exit::USAGE, args)?.has_hint()?;
        ensure!(run.err().contains(hint), "{args:?}: {}", run.err());
        Ok(())
    };
    fails(&["limits", "--limit", "entrie=1"], "did you mean entries?")?;
    fails(&["limits", "--limit", "entries"], "NAME=VALUE")?;
    fails(&["limits", "--limit", "entries=1GiB"], "a number")?;
    fails(&["--limit", "entries=1", "limits", "--limit", "depth=1"], "in one place")?;
    for (text, shown) in [("[limits]\nentrys = 1\n", "entries"), ("[limit]\n", "limit"), ("limits = 3\n", "limits")] {
        let config = bench.file("config.toml", text.as_bytes())?;
        let run = bench.cofferdam.fails(exit::USAGE, ["--config", &config, "limits"])?;
        ensure!(run.err().contains(shown) && run.err().contains("config.toml"), "{text}: {}", run.err());
    }
    bench.cofferdam.fails(exit::NOT_FOUND, ["--config", "/nowhere/config.toml", "limits"])?;
    Ok(())
}
