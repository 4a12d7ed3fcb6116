//! Decoded bytes on demand, for who cannot have the decoder run beside itself.

use crate::{Decode, Failure, Target};

/// The decoded stream of a decoder.
pub struct Pull<D> {
    decoder: D,
    decoded: Queue,
    at: usize,
    ended: bool,
}

#[derive(Default)]
struct Queue(Vec<u8>);

impl Target for Queue {
    fn write(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }
}

impl<D: Decode> Pull<D> {
    /// The stream that `decoder` gives.
    pub fn new(decoder: D) -> Self {
        Self { decoder, decoded: Queue::default(), at: 0, ended: false }
    }

    /// The next decoded bytes, none at the end. They stay until they are [consumed](Pull::consume).
    pub fn peek(&mut self) -> Result<&[u8], Failure> {
        while self.at == self.decoded.0.len() && !self.ended {
            self.decoded.0.clear();
            self.at = 0;
            self.ended = !self.decoder.step(&mut self.decoded)?;
        }
        Ok(self.decoded.0.get(self.at..).unwrap_or_default())
    }

    /// Drops bytes that were peeked at.
    pub fn consume(&mut self, count: usize) {
        self.at = self.decoded.0.len().min(self.at + count);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::testing::Pieces;

    #[test]
    fn what_is_pulled_is_what_is_pushed() {
        let content: Vec<u8> = (0..900_000_u32).flat_map(|n| (n / 7).to_le_bytes()).collect();
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&content).unwrap();
        let blob = encoder.finish().unwrap();
        let mut pull = Pull::new(crate::gzip::Decoder::new(Pieces { bytes: &blob, piece: 1000 }));
        let mut pulled = Vec::new();
        loop {
            let bytes = pull.peek().unwrap();
            if bytes.is_empty() {
                break;
            }
            let count = bytes.len().min(70_000);
            pulled.extend_from_slice(&bytes[..count]);
            pull.consume(count);
        }
        assert_eq!(pulled, content);
        assert!(pull.peek().unwrap().is_empty(), "the end stays the end");
        let mut cut = Pull::new(crate::gzip::Decoder::new(Pieces { bytes: &blob[..blob.len() - 1], piece: 1000 }));
        let end = loop {
            match cut.peek() {
                Ok([]) => break Ok(()),
                Ok(bytes) => {
                    let count = bytes.len();
                    cut.consume(count);
                }
                Err(failure) => break Err(failure),
            }
        };
        assert!(matches!(end, Err(Failure::Corrupt(_))));
    }
}
