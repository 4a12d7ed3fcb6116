//! Archives, byte for byte: each test says exactly what lies in each field.

use cofferdam_layer::{Device, Entry, Failure, Layer, Limits, Node, Source};

/// A header block. Fields are set as raw bytes or as octal; the checksum is right unless it was set.
#[derive(Clone)]
pub(crate) struct Block(pub(crate) [u8; 512], bool);

impl Block {
    /// A ustar header of mode 0644, owner 0, size 0.
    pub(crate) fn new(kind: u8, name: impl AsRef<[u8]>) -> Self {
        let mut block = Self([0; 512], true);
        block.set(0, name).octal(100, 8, 0o644).octal(108, 8, 0).octal(116, 8, 0).octal(124, 12, 0).octal(136, 12, 0);
        block.0[156] = kind;
        block.set(257, b"ustar\x0000");
        block
    }

    pub(crate) fn set(&mut self, at: usize, bytes: impl AsRef<[u8]>) -> &mut Self {
        let bytes = bytes.as_ref();
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    pub(crate) fn octal(&mut self, at: usize, width: usize, value: u64) -> &mut Self {
        let digits = width - 1;
        self.set(at, format!("{value:0digits$o}\0"))
    }

    pub(crate) fn mode(&mut self, value: u64) -> &mut Self {
        self.octal(100, 8, value)
    }

    pub(crate) fn size(&mut self, value: u64) -> &mut Self {
        self.octal(124, 12, value)
    }

    pub(crate) fn mtime(&mut self, value: u64) -> &mut Self {
        self.octal(136, 12, value)
    }

    pub(crate) fn link(&mut self, target: impl AsRef<[u8]>) -> &mut Self {
        self.set(157, target)
    }

    pub(crate) fn device(&mut self, major: u64, minor: u64) -> &mut Self {
        self.octal(329, 8, major).octal(337, 8, minor)
    }

    pub(crate) fn v7(&mut self) -> &mut Self {
        self.set(257, [0; 8])
    }

    pub(crate) fn gnu(&mut self) -> &mut Self {
        self.set(257, b"ustar  \0")
    }

    /// The checksum stays as it was set.
    pub(crate) fn keep_checksum(&mut self) -> &mut Self {
        self.1 = false;
        self
    }

    pub(crate) fn checksum(&self, signed: bool) -> i64 {
        let mut block = self.0;
        block[148..156].fill(b' ');
        block.iter().map(|&b| if signed { i64::from(b.cast_signed()) } else { i64::from(b) }).sum()
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut block = self.clone();
        if self.1 {
            block.set(148, format!("{:06o}\0 ", self.checksum(false)));
        }
        block.0.to_vec()
    }
}

/// An archive in the making.
#[derive(Clone, Default)]
pub(crate) struct Archive(pub(crate) Vec<u8>);

impl Archive {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn raw(mut self, bytes: impl AsRef<[u8]>) -> Self {
        self.0.extend_from_slice(bytes.as_ref());
        self
    }

    pub(crate) fn block(self, block: &Block) -> Self {
        self.raw(block.bytes())
    }

    /// A member with a body; its size is set in the header.
    pub(crate) fn body(self, block: &mut Block, body: impl AsRef<[u8]>) -> Self {
        let body = body.as_ref();
        self.block(block.size(body.len() as u64)).raw(body).pad()
    }

    pub(crate) fn pad(mut self) -> Self {
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub(crate) fn file(self, name: impl AsRef<[u8]>, body: impl AsRef<[u8]>) -> Self {
        self.body(&mut Block::new(b'0', name), body)
    }

    pub(crate) fn dir(self, name: impl AsRef<[u8]>) -> Self {
        self.block(&Block::new(b'5', name))
    }

    pub(crate) fn symlink(self, name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Self {
        self.block(Block::new(b'2', name).link(target))
    }

    pub(crate) fn hard_link(self, name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Self {
        self.block(Block::new(b'1', name).link(target))
    }

    /// `x` with records.
    pub(crate) fn pax(self, records: &[(&str, &[u8])]) -> Self {
        self.body(&mut Block::new(b'x', "PaxHeaders/x"), records_of(records))
    }

    pub(crate) fn global(self, records: &[(&str, &[u8])]) -> Self {
        self.body(&mut Block::new(b'g', "pax_global_header"), records_of(records))
    }

    /// `L`, as GNU tar writes it: with a NUL behind the name.
    pub(crate) fn long_name(self, name: impl AsRef<[u8]>) -> Self {
        self.body(Block::new(b'L', "././@LongLink").gnu(), [name.as_ref(), b"\0"].concat())
    }

    /// `K`.
    pub(crate) fn long_link(self, target: impl AsRef<[u8]>) -> Self {
        self.body(Block::new(b'K', "././@LongLink").gnu(), [target.as_ref(), b"\0"].concat())
    }

    /// The archive with its end marker.
    pub(crate) fn end(self) -> Vec<u8> {
        self.raw([0; 1024]).0
    }
}

/// PAX records.
pub(crate) fn records_of(records: &[(&str, &[u8])]) -> Vec<u8> {
    let mut payload = Vec::new();
    for (key, value) in records {
        let rest = key.len() + value.len() + 3;
        let length = (rest..rest + 20).find(|length| *length == rest + length.to_string().len()).unwrap();
        payload.extend_from_slice(format!("{length} {key}=").as_bytes());
        payload.extend_from_slice(value);
        payload.push(b'\n');
    }
    payload
}

/// One line per entry: letter, path, and what matters for the kind; files with their content.
pub(crate) fn list(archive: &[u8]) -> Result<Vec<String>, Failure> {
    let mut lines = Vec::new();
    read(archive, usize::MAX, |entry, content| lines.push(line(entry, content)))?;
    Ok(lines)
}

pub(crate) fn line(entry: &Entry<'_>, content: &[u8]) -> String {
    let path = entry.path.escape_ascii();
    match entry.node {
        Node::Directory => format!("D {path}"),
        Node::File { .. } => format!("F {path} {:?}", content.escape_ascii().to_string()),
        Node::Sparse { size, extents } => {
            let map: Vec<_> = extents.iter().map(|e| format!("{}+{}", e.offset, e.length)).collect();
            format!("Z {path} {size} [{}] {:?}", map.join(" "), content.escape_ascii().to_string())
        }
        Node::Symlink { target } => format!("S {path} {}", target.escape_ascii()),
        Node::HardLink { target } => format!("H {path} {}", target.escape_ascii()),
        Node::CharacterDevice(Device { major, minor }) => format!("C {path} {major}:{minor}"),
        Node::BlockDevice(Device { major, minor }) => format!("B {path} {major}:{minor}"),
        Node::Fifo => format!("P {path}"),
        Node::Whiteout => format!("W {path}"),
        Node::Opaque => format!("O {path}"),
    }
}

/// A source that hands out at most `chunk` bytes at a time and checks the contract.
pub(crate) struct Chunks<'a> {
    pub(crate) rest: &'a [u8],
    pub(crate) chunk: usize,
}

impl Source for Chunks<'_> {
    type Error = Failure;

    fn read(&mut self, skip: u64, max: u32, into: &mut Vec<u8>) -> Result<(), Failure> {
        assert!((1..=1 << 20).contains(&max), "read of {max} bytes");
        self.rest.read(skip, max.min(u32::try_from(self.chunk).unwrap_or(u32::MAX)), into)
    }
}

/// Reads an archive and gives each entry with its content to `each`, in chunks of at most `chunk` bytes.
pub(crate) fn read(archive: &[u8], chunk: usize, mut each: impl FnMut(&Entry<'_>, &[u8])) -> Result<(), Failure> {
    let mut source = Chunks { rest: archive, chunk };
    let mut layer = Layer::new(Limits::default());
    while let Some(entry) = layer.next(&mut source)? {
        let content = usize::try_from(entry.content_bytes()).ok().filter(|&length| length <= source.rest.len());
        let Some(length) = content else {
            return Err(Failure::Corrupt("the content is cut short".to_owned()));
        };
        let (content, rest) = source.rest.split_at(length);
        each(&entry, content);
        source.rest = rest;
    }
    Ok(())
}

/// The archive is read, and these are its entries.
#[track_caller]
pub(crate) fn accepts(archive: &[u8], lines: &[&str]) {
    match list(archive) {
        Ok(found) => assert_eq!(found, lines),
        Err(failure) => panic!("refused: {failure}"),
    }
}

/// The archive is corrupt, refused or over a limit.
#[track_caller]
pub(crate) fn fails(archive: &[u8]) -> Failure {
    match list(archive) {
        Ok(found) => panic!("read as {found:?}"),
        Err(failure) => failure,
    }
}

/// The archive breaks a rule (and is not merely broken).
#[track_caller]
pub(crate) fn refuses(archive: &[u8]) {
    let failure = fails(archive);
    assert!(matches!(failure, Failure::Refused { .. }), "{failure:?}");
}

/// The archive is broken.
#[track_caller]
pub(crate) fn corrupt(archive: &[u8]) {
    let failure = fails(archive);
    assert!(matches!(failure, Failure::Corrupt(_)), "{failure:?}");
}

/// The archive crosses a limit.
#[track_caller]
pub(crate) fn limits(archive: &[u8]) {
    let failure = fails(archive);
    assert!(matches!(failure, Failure::Limit(_)), "{failure:?}");
}
