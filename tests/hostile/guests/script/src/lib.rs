//! The script of a hostile guest, as it lies in the stream that the guest reads.
//!
//! ```text
//! stream = magic (4 bytes, not looked at) { frame [content of a file that the frame put] }
//! frame  = length (u64) code (u64) operands
//! bytes  = count (u64) length (u64) pattern        the pattern, `count` times
//! ```
//!
//! All numbers are 64 bits, little endian. The writer of scripts is `tests/tests/hostile/script.rs`.

/// Numbers of the operations.
pub mod code {
    /// Claims an entry, as often as it says. Extractors only.
    pub const PUT: u64 = 0;
    /// Reads.
    pub const READ: u64 = 1;
    /// Writes. Decoders only.
    pub const WRITE: u64 = 2;
    /// Sends messages.
    pub const LOG: u64 = 3;
    /// Loops without calling anybody.
    pub const SPIN: u64 = 4;
    /// Takes memory until there is none.
    pub const GROW: u64 = 5;
    /// Gives up, with a failure of its own choice.
    pub const FAIL: u64 = 6;
    /// Panics.
    pub const PANIC: u64 = 7;
    /// Says that all is well.
    pub const SUCCEED: u64 = 8;
}

/// The import that scripts come through.
pub trait Input {
    /// `input.read`.
    fn read(&mut self, skip: u64, max: u32) -> Vec<u8>;
}

/// Reads one frame; none at the end of the stream. `first` says whether the magic is still to be dropped.
pub fn frame(input: &mut impl Input, first: bool) -> Option<Operands> {
    if first {
        take(input, 4)?;
    }
    let length = take(input, 8)?;
    let length = u64::from_le_bytes(length.try_into().ok()?);
    Some(Operands { bytes: take(input, usize::try_from(length).ok()?)?, at: 0 })
}

fn take(input: &mut impl Input, count: usize) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(count);
    while bytes.len() < count {
        let max = u32::try_from((count - bytes.len()).min(1 << 20)).ok()?;
        let more = input.read(0, max);
        if more.is_empty() {
            return None;
        }
        bytes.extend_from_slice(&more);
    }
    Some(bytes)
}

/// The rest of a frame.
pub struct Operands {
    bytes: Vec<u8>,
    at: usize,
}

impl Operands {
    /// The next number.
    ///
    /// # Panics
    ///
    /// At the end of the frame: the script is wrong.
    pub fn number(&mut self) -> u64 {
        let bytes = self.bytes.get(self.at..self.at + 8).expect("a number");
        self.at += 8;
        u64::from_le_bytes(bytes.try_into().expect("eight bytes"))
    }

    /// The next number, in 32 bits.
    ///
    /// # Panics
    ///
    /// When it has more.
    pub fn small(&mut self) -> u32 {
        u32::try_from(self.number()).expect("a small number")
    }

    /// The next bytes.
    ///
    /// # Panics
    ///
    /// At the end of the frame: the script is wrong.
    pub fn bytes(&mut self) -> Vec<u8> {
        let (count, length) = (self.small() as usize, self.small() as usize);
        let pattern = self.bytes.get(self.at..self.at + length).expect("a pattern");
        self.at += length;
        pattern.repeat(count)
    }
}

/// Does nothing, for ever.
pub fn spin() -> ! {
    let mut n = 0_u64;
    loop {
        n = core::hint::black_box(n.wrapping_add(1));
    }
}

/// Takes memory, and touches it, for ever.
pub fn grow() -> ! {
    let mut all = Vec::new();
    loop {
        all.push(core::hint::black_box(vec![1_u8; 1 << 20]));
    }
}
