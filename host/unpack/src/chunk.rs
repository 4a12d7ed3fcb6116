//! Decoded bytes between the stages: pooled buffers, shared by the consumers.

use std::ops::Deref;
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, bounded};

/// Buffers of this capacity circulate; a decoder hands over at most this much at a time without a new allocation.
pub(super) const CHUNK: usize = 256 << 10;

/// Chunks in flight between decoder and consumers.
pub(super) const IN_FLIGHT: usize = 8;

/// Buffers that are free. Without it, each chunk would be fresh pages from the kernel.
#[derive(Clone)]
pub(super) struct Pool {
    back: Sender<Vec<u8>>,
    free: Receiver<Vec<u8>>,
}

impl Pool {
    pub(super) fn new() -> Self {
        let (back, free) = bounded(2 * IN_FLIGHT);
        Self { back, free }
    }

    /// An empty buffer.
    pub(super) fn buffer(&self) -> Vec<u8> {
        self.free.try_recv().unwrap_or_else(|_| Vec::with_capacity(CHUNK))
    }

    /// Turns a filled buffer into a chunk, whose buffer comes back when the last consumer is done.
    pub(super) fn chunk(&self, bytes: Vec<u8>) -> Chunk {
        Chunk(Arc::new(Shared { bytes, back: self.back.clone() }))
    }
}

/// Decoded bytes that several stages read.
#[derive(Clone)]
pub(super) struct Chunk(Arc<Shared>);

struct Shared {
    bytes: Vec<u8>,
    back: Sender<Vec<u8>>,
}

impl Deref for Chunk {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0.bytes
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let mut bytes = std::mem::take(&mut self.bytes);
        if bytes.capacity() <= 2 * CHUNK {
            bytes.clear();
            let _ = self.back.try_send(bytes); // a full pool needs no more
        }
    }
}

/// What travels to a consumer. A queue that closes without [`Message::End`] was cut by a failure of the decoder.
pub(super) enum Message {
    Chunk(Chunk),
    End,
}
