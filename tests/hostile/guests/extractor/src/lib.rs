//! An extractor that claims what its script says.

/// What `wit-bindgen` makes of `wit/layer.wit`. Borrowing, so that a thousand attributes may be the same megabyte.
mod bindings {
    #![allow(missing_docs, unreachable_pub, unsafe_code, clippy::pedantic)]

    use super::Liar;

    wit_bindgen::generate!({
        path: "../../../../wit/layer.wit",
        world: "extractor",
        ownership: Borrowing { duplicate_if_necessary: false },
    });
    export!(Liar with_types_in self);
}

use bindings::cofferdam::layer::types::{Failure, Refusal};
use bindings::cofferdam::layer::{input, log, tree};
use hostile_script::{Operands, code};

struct Liar;

struct Stream;

impl hostile_script::Input for Stream {
    fn read(&mut self, skip: u64, max: u32) -> Vec<u8> {
        input::read(skip, max)
    }
}

impl bindings::Guest for Liar {
    fn extract() -> Result<(), Failure> {
        let mut first = true;
        while let Some(mut frame) = hostile_script::frame(&mut Stream, first) {
            first = false;
            match frame.number() {
                code::PUT => put(&mut frame),
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

/// Claims an entry `times` times. With `numbered`, the number of the round follows its path and its target.
fn put(frame: &mut Operands) {
    let (times, numbered) = (frame.number(), frame.number() != 0);
    let (path, target) = (frame.bytes(), frame.bytes());
    let (kind, a, b) = (frame.number(), frame.number(), frame.number());
    let (repeat, count) = (frame.small() as usize, frame.number());
    let pairs: Vec<_> = (0..count).map(|_| (frame.number(), frame.number())).collect();
    let extents = pairs.iter().map(|&(offset, length)| tree::Extent { offset, length });
    let extents: Vec<_> = (0..repeat).flat_map(|_| extents.clone()).collect();
    let (mode, uid, gid) = (frame.small(), frame.small(), frame.small());
    let modified = tree::Timestamp { seconds: frame.number().cast_signed(), nanoseconds: frame.small() };
    let (repeat, count) = (frame.small() as usize, frame.number());
    let pairs: Vec<_> = (0..count).map(|_| (frame.bytes(), frame.bytes())).collect();
    let attributes = pairs.iter().map(|(name, value)| tree::Attribute { name, value });
    let attributes: Vec<_> = (0..repeat).flat_map(|_| attributes.clone()).collect();

    let (mut path, mut target) = (path, target);
    let (path_length, target_length) = (path.len(), target.len());
    for round in 0..times {
        if numbered {
            path.truncate(path_length);
            target.truncate(target_length);
            path.extend_from_slice(round.to_string().as_bytes());
            target.extend_from_slice(round.to_string().as_bytes());
        }
        #[expect(clippy::cast_possible_truncation, reason = "a device number, written as 64 bits")]
        let device = tree::Device { major: a as u32, minor: b as u32 };
        let node = match kind {
            0 => tree::Node::Directory,
            1 => tree::Node::File(a),
            2 => tree::Node::SparseFile(tree::Sparse { size: a, extents: &extents }),
            3 => tree::Node::Symlink(&target),
            4 => tree::Node::HardLink(&target),
            5 => tree::Node::CharacterDevice(device),
            6 => tree::Node::BlockDevice(device),
            7 => tree::Node::Fifo,
            8 => tree::Node::Whiteout,
            _ => tree::Node::Opaque,
        };
        tree::put(tree::Entry { path: &path, node, mode, uid, gid, modified, attributes: &attributes });
    }
}
