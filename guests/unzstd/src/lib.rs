//! The `unzstd` guest: the `decoder` world over `cofferdam_decode::zstd`.

/// What `wit-bindgen` makes of `wit/layer.wit`.
mod bindings {
    #![allow(missing_docs, unreachable_pub, unsafe_code, clippy::pedantic)]

    use super::Decoder;

    wit_bindgen::generate!({ path: "../../wit", world: "decoder" });
    export!(Decoder with_types_in self);
}

use bindings::cofferdam::layer::types::{Failure, Refusal};
use bindings::cofferdam::layer::{bounds, input, output};

struct Decoder;

/// The host's streams: the blob to read, the layer to write.
struct Blob;

impl cofferdam_decode::Source for Blob {
    fn read(&mut self, max: u32) -> Vec<u8> {
        input::read(0, max)
    }
}

impl cofferdam_decode::Target for Blob {
    fn write(&mut self, bytes: &[u8]) {
        output::write(bytes);
    }
}

impl bindings::Guest for Decoder {
    fn decode() -> Result<(), Failure> {
        cofferdam_decode::zstd::decode_within(&mut Blob, &mut Blob, bounds::window()).map_err(|failure| match failure {
            cofferdam_decode::Failure::Corrupt(reason) => Failure::Corrupt(reason),
            cofferdam_decode::Failure::Refused(reason) => Failure::Refused(Refusal { path: Vec::new(), reason }),
            cofferdam_decode::Failure::Limit(reason) => Failure::Limit(reason),
        })
    }
}
