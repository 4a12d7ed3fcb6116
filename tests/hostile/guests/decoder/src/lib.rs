//! A decoder that does what its script says.

/// What `wit-bindgen` makes of `wit/layer.wit`.
mod bindings {
    #![allow(missing_docs, unreachable_pub, unsafe_code, clippy::pedantic)]

    use super::Liar;

    wit_bindgen::generate!({ path: "../../../../wit", world: "decoder" });
    export!(Liar with_types_in self);
}

use bindings::cofferdam::layer::types::{Failure, Refusal};
use bindings::cofferdam::layer::{input, log, output};
use hostile_script::{Operands, code};

struct Liar;

struct Blob;

impl hostile_script::Input for Blob {
    fn read(&mut self, skip: u64, max: u32) -> Vec<u8> {
        input::read(skip, max)
    }
}

impl bindings::Guest for Liar {
    fn decode() -> Result<(), Failure> {
        let mut first = true;
        while let Some(mut frame) = hostile_script::frame(&mut Blob, first) {
            first = false;
            match frame.number() {
                code::SUCCEED => return Ok(()),
                code::FAIL => return Err(failure(&mut frame)),
                other => act(other, &mut frame),
            }
        }
        Ok(())
    }
}

fn act(operation: u64, frame: &mut Operands) {
    match operation {
        code::READ => {
            let (skip, max, times) = (frame.number(), frame.small(), frame.number());
            for _ in 0..times {
                input::read(skip, max);
            }
        }
        code::WRITE => {
            let (bytes, times) = (frame.bytes(), frame.number());
            for _ in 0..times {
                output::write(&bytes);
            }
        }
        code::LOG => {
            let (text, times) = (frame.bytes(), frame.number());
            let text = String::from_utf8(text).expect("text");
            for _ in 0..times {
                log::message(log::Level::Warn, &text);
            }
        }
        code::SPIN => hostile_script::spin(),
        code::GROW => hostile_script::grow(),
        _ => panic!("as the script says"),
    }
}

fn failure(frame: &mut Operands) -> Failure {
    let (kind, text, path) = (frame.number(), frame.bytes(), frame.bytes());
    let reason = String::from_utf8(text).expect("text");
    match kind {
        0 => Failure::Corrupt(reason),
        1 => Failure::Refused(Refusal { path, reason }),
        _ => Failure::Limit(reason),
    }
}
