//! Writes the scripts of the hostile guests. Their format is drawn in `tests/hostile/guests/script`.

/// Bytes, told as a pattern and how often it comes.
#[derive(Clone, Debug, Default)]
pub struct Bytes {
    count: u64,
    pattern: Vec<u8>,
}

impl From<&[u8]> for Bytes {
    fn from(pattern: &[u8]) -> Self {
        Self { count: 1, pattern: pattern.to_vec() }
    }
}

impl<const N: usize> From<&[u8; N]> for Bytes {
    fn from(pattern: &[u8; N]) -> Self {
        Self::from(pattern.as_slice())
    }
}

impl From<&str> for Bytes {
    fn from(pattern: &str) -> Self {
        Self::from(pattern.as_bytes())
    }
}

/// `count` times `pattern`.
pub fn many(pattern: &str, count: u64) -> Bytes {
    Bytes { count, pattern: pattern.into() }
}

/// What a claimed entry is.
#[derive(Clone, Debug)]
pub enum Node {
    Directory,
    File(u64),
    /// Size, extents, and how often the list of extents comes.
    Sparse(u64, Vec<(u64, u64)>, u64),
    Symlink(Bytes),
    HardLink(Bytes),
    CharDevice(u64, u64),
    BlockDevice(u64, u64),
    Fifo,
    Whiteout,
    Opaque,
}

/// A claimed entry.
#[derive(Clone, Debug)]
pub struct Claim {
    pub path: Bytes,
    pub node: Node,
    pub mode: u64,
    pub uid: u64,
    pub gid: u64,
    pub seconds: i64,
    pub nanoseconds: u64,
    pub attributes: Vec<(Bytes, Bytes)>,
    /// How often the list of attributes comes.
    pub attributes_repeated: u64,
    /// How often the claim comes, and whether the number of the round follows its path and target.
    pub times: u64,
    pub numbered: bool,
}

/// A claim with nothing wrong about it.
pub fn claim(path: impl Into<Bytes>, node: Node) -> Claim {
    Claim {
        path: path.into(),
        node,
        mode: 0o755,
        uid: 0,
        gid: 0,
        seconds: 1_700_000_000,
        nanoseconds: 0,
        attributes: Vec::new(),
        attributes_repeated: 1,
        times: 1,
        numbered: false,
    }
}

impl Claim {
    pub fn with(mut self, name: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        self.attributes.push((name.into(), value.into()));
        self
    }

    /// Comes `times` times, each with its number behind path and target.
    pub fn numbered(self, times: u64) -> Self {
        Self { times, numbered: true, ..self }
    }
}

/// A stream that tells a guest what to do.
#[derive(Clone, Debug)]
pub struct Script(Vec<u8>);

/// For `times`: without an end.
pub const FOREVER: u64 = u64::MAX;

impl Script {
    /// For an extractor: an uncompressed layer.
    pub fn extractor() -> Self {
        Self(b"tar:".to_vec())
    }

    /// For a decoder: the host takes the blob for gzip.
    pub fn decoder() -> Self {
        Self(vec![0x1f, 0x8b, 8, 0])
    }

    pub fn put(self, claim: Claim) -> Self {
        let Claim { path, node, mode, uid, gid, seconds, nanoseconds, attributes, .. } = claim;
        let (mut kind, mut a, mut b, mut target, mut extents, mut repeat) = (0, 0, 0, Bytes::default(), Vec::new(), 1);
        match node {
            Node::Directory => {}
            Node::File(size) => (kind, a) = (1, size),
            Node::Sparse(size, list, times) => (kind, a, extents, repeat) = (2, size, list, times),
            Node::Symlink(to) => (kind, target) = (3, to),
            Node::HardLink(to) => (kind, target) = (4, to),
            Node::CharDevice(major, minor) => (kind, a, b) = (5, major, minor),
            Node::BlockDevice(major, minor) => (kind, a, b) = (6, major, minor),
            Node::Fifo => kind = 7,
            Node::Whiteout => kind = 8,
            Node::Opaque => kind = 9,
        }
        self.frame(0, |frame| {
            frame.numbers(&[claim.times, claim.numbered.into()]).bytes(&path).bytes(&target);
            frame.numbers(&[kind, a, b, repeat, extents.len() as u64]);
            for (offset, length) in extents {
                frame.numbers(&[offset, length]);
            }
            frame.numbers(&[mode, uid, gid, seconds.cast_unsigned(), nanoseconds]);
            frame.numbers(&[claim.attributes_repeated, attributes.len() as u64]);
            for (name, value) in &attributes {
                frame.bytes(name).bytes(value);
            }
        })
    }

    pub fn read(self, skip: u64, max: u64, times: u64) -> Self {
        self.frame(1, |frame| {
            frame.numbers(&[skip, max, times]);
        })
    }

    pub fn write(self, bytes: impl Into<Bytes>, times: u64) -> Self {
        self.frame(2, |frame| {
            frame.bytes(&bytes.into()).numbers(&[times]);
        })
    }

    pub fn log(self, text: Bytes, times: u64) -> Self {
        self.frame(3, |frame| {
            frame.bytes(&text).numbers(&[times]);
        })
    }

    pub fn spin(self) -> Self {
        self.frame(4, |_| {})
    }

    pub fn grow(self) -> Self {
        self.frame(5, |_| {})
    }

    /// Kind 0 is corrupt, 1 refused, 2 a limit.
    pub fn fail(self, kind: u64, text: Bytes, path: Bytes) -> Self {
        self.frame(6, |frame| {
            frame.numbers(&[kind]).bytes(&text).bytes(&path);
        })
    }

    pub fn panic(self) -> Self {
        self.frame(7, |_| {})
    }

    pub fn succeed(self) -> Self {
        self.frame(8, |_| {})
    }

    /// What lies in the stream at this place: a file's content, or what is never read.
    pub fn content(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// The stream.
    pub fn stream(self) -> Vec<u8> {
        self.0
    }

    fn frame(mut self, code: u64, operands: impl FnOnce(&mut Frame)) -> Self {
        let mut frame = Frame(Vec::new());
        operands(frame.numbers(&[code]));
        self.0.extend_from_slice(&(frame.0.len() as u64).to_le_bytes());
        self.0.extend_from_slice(&frame.0);
        self
    }
}

struct Frame(Vec<u8>);

impl Frame {
    fn numbers(&mut self, numbers: &[u64]) -> &mut Self {
        self.0.extend(numbers.iter().flat_map(|number| number.to_le_bytes()));
        self
    }

    fn bytes(&mut self, bytes: &Bytes) -> &mut Self {
        self.numbers(&[bytes.count, bytes.pattern.len() as u64]);
        self.0.extend_from_slice(&bytes.pattern);
        self
    }
}
