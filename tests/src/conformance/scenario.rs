//! A scenario: layers, and what must become of them.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};

use super::archive::{Archive, BLOCK};
use super::member::{KINDS, Member};
use super::stream::{Encoding, Form, skippable};
use super::words::{Word, words};
use crate::cofferdam::exit;
use crate::layers::digest;

/// A scenario, ready to run.
#[derive(Clone, Debug, Default)]
pub struct Scenario {
    /// Theme and name: the file's path without its end.
    pub name: String,
    /// What it shows, in a sentence or two.
    pub about: String,
    /// The rules of the contract that it is about.
    pub rules: Vec<String>,
    /// Lowest first.
    pub layers: Vec<Layer>,
    /// What all layers together make, in every way that makes a root filesystem.
    pub root: Expectation,
    /// What the last layer alone makes in the mode `preserve`, if it is said.
    pub preserve: Option<Expectation>,
    /// The same for `overlay`.
    pub overlay: Option<Expectation>,
    /// The layers' overlays, mounted, show something else than `root`: an overlay of one layer cannot know.
    pub overlay_alone: bool,
}

/// A layer, ready to extract.
#[derive(Clone, Debug)]
pub struct Layer {
    /// As it is stored.
    pub blob: Vec<u8>,
    /// As it is announced.
    pub media_type: String,
    /// Of the decoded bytes, unless the scenario lies.
    pub diff_id: String,
    /// Whether it holds whiteouts.
    pub markers: bool,
}

/// What must come of extracting.
#[derive(Clone, Debug, Default)]
pub struct Expectation {
    /// Exit codes of which one must come; empty where the extraction must succeed.
    pub refused: Vec<i32>,
    /// The tree then; after a refusal, what must still be there. None where anything is right.
    pub tree: Option<Vec<Member>>,
}

/// What a line belongs to.
enum Section {
    Head,
    Layer(Encoding, Parts),
    Expect(Part),
}

/// Which expectation.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Root,
    Preserve,
    Overlay,
}

/// A layer under construction.
#[derive(Default)]
struct Parts {
    blob: Vec<u8>,
    decoded: Vec<u8>,
    archive: Archive,
    ended: bool,
    markers: bool,
}

impl Scenario {
    /// Reads a scenario. `out` is the directory in which the destination lies.
    pub fn read(file: &Path, name: &str, out: &str) -> Result<Self> {
        let text = fs::read_to_string(file)?;
        Self::parse(&text, name, out).with_context(|| file.display().to_string())
    }

    fn parse(text: &str, name: &str, out: &str) -> Result<Self> {
        let mut scenario = Self { name: name.to_owned(), ..Self::default() };
        let mut section = Section::Head;
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if let Some(comment) = line.strip_prefix('#') {
                if matches!(section, Section::Head) {
                    scenario.about.push_str(comment);
                }
            } else if !line.is_empty() {
                scenario.line(&mut section, &words(line, out)?).with_context(|| format!("line {}", number + 1))?;
            }
        }
        scenario.close(section)?;
        scenario.about = scenario.about.trim().to_owned();
        let decided = scenario.root.tree.is_some() || !scenario.root.refused.is_empty();
        if scenario.layers.is_empty() || !decided || scenario.about.is_empty() {
            bail!("a scenario says what it shows, has layers, and ends with `tree` or `refused`");
        }
        Ok(scenario)
    }

    fn line(&mut self, section: &mut Section, line: &[Word]) -> Result<()> {
        let Some((first, rest)) = line.split_first() else { return Ok(()) };
        let expect = |part| Section::Expect(part);
        let next = match first.text() {
            Some("rule") => {
                self.rules.extend(rest.iter().filter_map(Word::text).map(|text| text.trim_end_matches(',').to_owned()));
                return Ok(());
            }
            Some("layer") => Section::Layer(Encoding::parse(rest)?, Parts::default()),
            Some("tree" | "refused") => expect(Part::Root),
            Some("preserve") => expect(Part::Preserve),
            Some("overlay") => expect(Part::Overlay),
            _ => return self.content(section, first, rest, line),
        };
        self.close(std::mem::replace(section, next))?;
        if let Section::Expect(part) = section {
            self.overlay_alone |=
                *part == Part::Overlay && line.iter().any(|word| matches!(word.text(), Some("alone" | "any")));
            let expectation = self.expectation(*part);
            expectation.refused.extend(line.iter().filter_map(Word::text).filter_map(|text| text.parse::<i32>().ok()));
            if line.iter().any(|word| word.text() == Some("any")) {
                expectation.refused.extend([exit::OK, exit::INTEGRITY, exit::REFUSED]);
            }
            // `refused` and `any` leave the tree open.
            if !line.iter().any(|word| matches!(word.text(), Some("refused" | "any"))) {
                expectation.tree.get_or_insert_default();
            }
        }
        Ok(())
    }

    fn expectation(&mut self, part: Part) -> &mut Expectation {
        match part {
            Part::Root => &mut self.root,
            Part::Preserve => self.preserve.get_or_insert_default(),
            Part::Overlay => self.overlay.get_or_insert_default(),
        }
    }

    fn content(&mut self, section: &mut Section, first: &Word, rest: &[Word], line: &[Word]) -> Result<()> {
        match section {
            Section::Head => bail!("nothing but comments and `rule` before the first layer"),
            Section::Layer(encoding, parts) => parts.line(encoding, first, rest, line),
            Section::Expect(part) => {
                let member = Member::parse(line)?;
                self.expectation(*part).tree.get_or_insert_default().push(member);
                Ok(())
            }
        }
    }

    fn close(&mut self, section: Section) -> Result<()> {
        if let Section::Layer(encoding, mut parts) = section {
            if !parts.ended {
                let end = encoding.end.unwrap_or(2) * BLOCK;
                parts.archive.bytes.resize(parts.archive.bytes.len() + end, 0);
            }
            // A blob without a single member would be no stream.
            if parts.blob.is_empty() {
                parts.member(&encoding)?;
            } else {
                parts.part(&encoding)?;
            }
            let lie = if encoding.wrong_diff_id { &b"another stream"[..] } else { &[] };
            self.layers.push(Layer {
                diff_id: digest(&[&parts.decoded[..], lie].concat()),
                blob: encoding.finish(parts.blob)?,
                media_type: encoding.media_type().to_owned(),
                markers: parts.markers,
            });
        }
        Ok(())
    }
}

impl Parts {
    fn line(&mut self, encoding: &Encoding, first: &Word, rest: &[Word], line: &[Word]) -> Result<()> {
        match first.text() {
            Some("pax") => self.archive.extension_of(b'x', rest),
            Some("global") => self.archive.extension_of(b'g', rest),
            Some("longname") => self.archive.extension_of(b'L', rest),
            Some("longlink") => self.archive.extension_of(b'K', rest),
            // The archive's bytes as they are.
            Some("bytes") => {
                self.archive.bytes.extend(rest.iter().flat_map(|word| word.bytes.clone()));
                Ok(())
            }
            Some("zeros") => {
                let count: usize = rest.first().and_then(Word::text).context("how many blocks?")?.parse()?;
                self.archive.bytes.resize(self.archive.bytes.len() + count * BLOCK, 0);
                Ok(())
            }
            // What is missing to a whole block.
            Some("zeros-to-block") => {
                let whole = self.archive.bytes.len().next_multiple_of(BLOCK);
                self.archive.bytes.resize(whole, 0);
                Ok(())
            }
            // The end marker, where something comes behind it.
            Some("end") => {
                self.ended = true;
                self.archive.bytes.resize(self.archive.bytes.len() + 2 * BLOCK, 0);
                Ok(())
            }
            // A new member or frame begins here.
            Some("member") => self.member(encoding),
            Some("skippable") => {
                self.part(encoding)?;
                if encoding.form != Form::Zstd {
                    bail!("only zstd has skippable frames");
                }
                self.blob.extend(skippable(&rest.iter().flat_map(|word| word.bytes.clone()).collect::<Vec<_>>()));
                Ok(())
            }
            // Bytes of the blob, between its members.
            Some("raw") => {
                self.part(encoding)?;
                self.blob.extend(rest.iter().flat_map(|word| word.bytes.clone()));
                Ok(())
            }
            Some(kind) if kind.len() == 1 && KINDS.contains(kind) => {
                let member = Member::parse(line)?;
                let name = member.path.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
                self.markers |= name.starts_with(b".wh.");
                self.archive.member(&member)
            }
            _ => bail!("`{}` is nothing that a layer holds", String::from_utf8_lossy(&first.bytes)),
        }
    }

    /// Ends a member, also an empty one.
    fn member(&mut self, encoding: &Encoding) -> Result<()> {
        let part = std::mem::take(&mut self.archive.bytes);
        self.blob.extend(encoding.encode(&part)?);
        self.decoded.extend(part);
        Ok(())
    }

    /// Ends a member, if anything has come since the last one.
    fn part(&mut self, encoding: &Encoding) -> Result<()> {
        if self.archive.bytes.is_empty() { Ok(()) } else { self.member(encoding) }
    }
}
