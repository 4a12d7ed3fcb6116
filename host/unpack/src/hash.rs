//! The stage that computes the DiffID.

use cofferdam_core::digest::{Algorithm, Digest, Hasher};
use crossbeam_channel::Receiver;

use super::chunk::Message;

/// Hashes all chunks; nothing when the decoder failed before the end.
pub(super) fn run(queue: &Receiver<Message>, algorithm: Algorithm) -> Option<Digest> {
    let mut hasher = Hasher::new(algorithm);
    while let Ok(message) = queue.recv() {
        match message {
            Message::Chunk(chunk) => hasher.update(&chunk),
            Message::End => return Some(hasher.finish()),
        }
    }
    None
}
