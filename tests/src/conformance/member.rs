//! One entry of a layer, or of the tree that is expected, as a line: `KIND PATH [-> TARGET] [WORD…]`.

use anyhow::{Context as _, Result, bail, ensure};

use super::words::Word;

/// An entry.
#[derive(Clone, Debug, Default)]
pub struct Member {
    /// `D`irectory, `F`ile, `S`ymlink, `H`ard link, `C`haracter or `B`lock device, `P`ipe, `W`hiteout.
    pub kind: char,
    /// Its name, as it stands in the archive.
    pub path: Vec<u8>,
    /// Of a link.
    pub target: Vec<u8>,
    /// The 12 bits.
    pub mode: Option<u32>,
    /// User and group.
    pub owner: Option<(u64, u64)>,
    /// Seconds and nanoseconds.
    pub mtime: Option<(i64, u32)>,
    /// Major and minor number.
    pub device: Vec<u64>,
    /// Extended attributes.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// The body.
    pub content: Vec<u8>,
    /// What the header says that the body's size is, where it lies.
    pub size: Option<u64>,
    /// The most bytes that the file may take on disk: holes are kept.
    pub data: Option<u64>,
    /// Header fields that are set to exactly these bytes.
    pub fields: Vec<(String, Vec<u8>)>,
    /// Of a directory in an overlay: hides what is below.
    pub opaque: bool,
}

/// The kinds of entries.
pub const KINDS: &str = "DFSHCBPW";

impl Member {
    /// Reads a line's words.
    pub fn parse(words: &[Word]) -> Result<Self> {
        let [kind, path, rest @ ..] = words else { bail!("an entry needs a kind and a path") };
        let kind = kind.text().and_then(|text| text.chars().next()).context("an entry begins with its kind")?;
        let mut member = Self { kind, path: path.bytes.clone(), ..Self::default() };
        let mut rest = rest.iter();
        while let Some(word) = rest.next() {
            if word.text() == Some("->") {
                member.target.clone_from(&rest.next().context("`->` to nothing")?.bytes);
            } else if word.quoted {
                member.content.extend_from_slice(&word.bytes);
            } else {
                member.word(word).with_context(|| format!("`{}`", String::from_utf8_lossy(&word.bytes)))?;
            }
        }
        Ok(member)
    }

    fn word(&mut self, word: &Word) -> Result<()> {
        if let Some((name, value)) = word.pair() {
            return self.setting(name, value);
        }
        let text = word.text().context("a word that is no text")?;
        if text == "opaque" {
            self.opaque = true;
        } else if let Some(time) = text.strip_prefix('@') {
            let (seconds, fraction) = time.split_once('.').unwrap_or((time, ""));
            ensure!(fraction.len() <= 9, "more than nanoseconds");
            self.mtime = Some((seconds.parse()?, format!("{fraction:0<9}").parse()?));
        } else if let Some((uid, gid)) = text.split_once(':') {
            self.owner = Some((uid.parse()?, gid.parse()?));
        } else if matches!(self.kind, 'C' | 'B') && self.device.len() < 2 {
            self.device.push(text.parse()?);
        } else {
            self.mode = Some(u32::from_str_radix(text, 8)?);
        }
        Ok(())
    }

    fn setting(&mut self, name: &str, value: &[u8]) -> Result<()> {
        let number = || -> Result<u64> { Ok(std::str::from_utf8(value)?.parse()?) };
        match name.strip_suffix(':') {
            Some(field) => self.fields.push((field.to_owned(), value.to_vec())),
            None if name == "size" => self.size = Some(number()?),
            None if name == "data" => self.data = Some(number()?),
            None if name == "zeros" => self.content.extend(vec![0; usize::try_from(number()?)?]),
            None if name.contains('.') => self.xattrs.push((name.into(), value.to_vec())),
            None => bail!("no such setting"),
        }
        Ok(())
    }
}
