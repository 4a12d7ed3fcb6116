//! What a guest may do to its stream, its time, its memory and its log; and guests that say that all is well.

use std::io::{self, Cursor, Read};

use anyhow::{Result, ensure};
use cofferdam::sandbox::Guest;
use cofferdam::tree::Mode;
use cofferdam::unpack::Layer;
use cofferdam::{Digest, Error};

use crate::attack::{Attack, Ends, MODES, Scene, unpack};
use crate::script::{Bytes, FOREVER, Node, Script, claim, many};

const FULL: u64 = 1 << 20;

fn both(name: &str, ends: Ends, script: impl Fn(Script) -> Script) -> [Attack; 2] {
    [
        Attack::extractor(format!("{name}, extractor"), script(Script::extractor()), ends),
        Attack::decoder(format!("{name}, decoder"), script(Script::decoder()), ends),
    ]
}

pub fn reads() -> Vec<Attack> {
    [
        both("a read of nothing", Ends::Misuse("no bytes"), |s| s.read(0, 0, 1).succeed()),
        both("a read of more than 1 MiB", Ends::Misuse("1 MiB"), |s| s.read(0, FULL + 1, 1).succeed()),
        both("a read of 4 GiB", Ends::Misuse("1 MiB"), |s| s.read(0, u32::MAX.into(), 1).succeed()),
        both("skipping 2⁶⁴ - 1 bytes", Ends::Corrupt, |s| s.read(u64::MAX, 1, 1).content(&[0; 100])),
        both("reading past the end, for ever", Ends::Misuse("move nothing"), |s| s.read(0, FULL, FOREVER)),
        both("skipping past the end", Ends::Corrupt, |s| s.read(u64::MAX, 1, FOREVER)),
    ]
    .concat()
}

pub fn loops() -> Vec<Attack> {
    let mut attacks = [
        both("a loop", Ends::TimeOut, Script::spin),
        both("all memory", Ends::Memory, Script::grow),
        both("a panic", Ends::Trap("unreachable"), Script::panic),
        both("messages without end", Ends::Misuse("move nothing"), |s| s.log(many("m", 1000), FOREVER)),
        both("messages of 4 MB without end", Ends::Misuse("move nothing"), |s| s.log(many("m", 4_000_000), FOREVER)),
        both("messages of 5 MB", Ends::Misuse(""), |s| s.log(many("m", 5_000_000), 1)),
    ]
    .concat();
    let decoder = |name, script, ends| Attack::decoder(name, script, ends);
    let write = |bytes: Bytes| Script::decoder().write(bytes, FOREVER);
    attacks.extend([
        decoder("writes of nothing", write("".into()), Ends::Misuse("move nothing")),
        decoder("a write of more than 1 MiB", write(many("x", FULL + 1)), Ends::Misuse("1 MiB")),
        decoder("a write of 30 MiB", write(many("x", 30 << 20)), Ends::Misuse("")),
        decoder("writes without end", write(many("x", FULL)), Ends::Limit("decoded bytes"))
            .under(|limits| limits.layer_bytes = 20 << 20),
        // Each byte costs the host a microsecond, so the bytes that may be decoded would cost it hours.
        decoder("single bytes without end", write("x".into()), Ends::TimeOut),
    ]);
    attacks
}

/// Success that is none: the decoder left bytes unread, or the extractor did not look.
pub fn idleness() -> Vec<Attack> {
    let decoder = |name, script, ends| Attack::decoder(name, script, ends);
    let extractor = |name, script, ends| Attack::extractor(name, script, ends);
    let tail = &[0; 100][..];
    vec![
        decoder("a decoder that leaves bytes unread", Script::decoder().succeed().content(tail), Ends::Corrupt),
        decoder(
            "a decoder that wrote, and leaves one byte",
            Script::decoder().write("x", 1).succeed().content(b"!"),
            Ends::Corrupt,
        ),
        extractor(
            "a file of which the stream has nothing",
            Script::extractor().put(claim("f", Node::File(1))),
            Ends::Limit("decode"),
        ),
        extractor(
            "a sparse file of which the stream has nothing",
            Script::extractor().put(claim("f", Node::Sparse(9, vec![(8, 1)], 1))),
            Ends::Limit("decode"),
        ),
        extractor(
            "a failure of its own",
            Script::extractor().put(claim("f", Node::Fifo)).fail(0, "bad\n\u{1b}[2J".into(), "".into()),
            Ends::Corrupt,
        ),
        extractor(
            "a refusal of its own",
            Script::extractor().fail(1, "bad".into(), "../victim".into()),
            Ends::Refused("bad"),
        ),
        extractor(
            "a limit of its own",
            Script::extractor().fail(2, "bad".into(), "".into()),
            Ends::Refused("untar: bad"),
        ),
        decoder("a decoder's failure", Script::decoder().fail(0, "bad".into(), "".into()), Ends::Corrupt),
    ]
}

#[test]
fn reads_out_of_contract_end_the_guest() -> Result<()> {
    Scene::new()?.withstands(reads())
}

#[test]
fn time_memory_and_calls_run_out() -> Result<()> {
    Scene::new()?.withstands(loops())
}

#[test]
fn success_without_work_is_found_out() -> Result<()> {
    Scene::new()?.withstands(idleness())
}

/// What the report says was hashed is every byte that the decoder wrote, whatever the extractor did with it, and every
/// byte of the blob.
#[test]
fn digests_are_over_all_bytes_whoever_read_them() -> Result<()> {
    let scene = Scene::new()?;
    let script = Script::extractor().put(claim("f", Node::Fifo)).succeed().content(b"what nobody asked for");
    let attack = Attack::extractor("leaves a tail", script, Ends::Contained);
    for (diff_id, right) in [(Digest::of(&attack.stream), true), (Digest::of(b"another"), false)] {
        for mode in MODES {
            let layer = Layer::new(Cursor::new(attack.stream.clone())).with_diff_id(diff_id.clone());
            let outcome = unpack(&attack.unpacker()?, layer, &scene.dest(mode)?, mode);
            match outcome {
                Ok(()) => ensure!(right, "{mode:?}: a wrong DiffID was accepted"),
                Err(error) => {
                    ensure!(!right && matches!(error.root(), Error::DigestMismatch { .. }), "{mode:?}: {error}");
                }
            }
        }
    }
    let report = attack
        .unpacker()?
        .verify(Layer::new(Cursor::new(attack.stream.clone())).hashing_blob(cofferdam::Algorithm::Sha256))?;
    ensure!(
        report.blob.as_ref() == Some(&report.diff_id) && report.blob_bytes == attack.stream.len() as u64,
        "{report:?}"
    );
    scene.ensure_contained()
}

/// A blob without an end, such as a pipe, whose decoder reads on and writes nothing.
#[test]
fn a_blob_without_end_has_a_limit() -> Result<()> {
    struct Endless(Cursor<Vec<u8>>);
    impl Read for Endless {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            match self.0.read(buffer)? {
                0 => Ok(buffer.len()),
                count => Ok(count),
            }
        }
    }
    let scene = Scene::new()?;
    let scripts = [Script::decoder().read(0, FULL, FOREVER), Script::decoder().read(u64::MAX, 1, 1)];
    for script in scripts {
        let attack = Attack::decoder("", script, Ends::Limit("bytes of the blob")).under(|l| l.layer_bytes = 20 << 20);
        let layer = Layer::new(Endless(Cursor::new(attack.stream.clone())));
        let outcome = unpack(&attack.unpacker()?, layer, &scene.dest(Mode::Apply)?, Mode::Apply);
        attack.judge(outcome, Mode::Apply)?;
    }
    scene.ensure_contained()
}

/// How much a blob may expand is bounded too where nobody knows how large it is.
#[test]
fn writes_beyond_the_ratio_are_refused() -> Result<()> {
    let scene = Scene::new()?;
    let script = Script::decoder().write(many("x", FULL), FOREVER);
    let attack = Attack::decoder("", script, Ends::Limit("each byte"))
        .under(|limits| (limits.ratio, limits.ratio_from) = (10, 1 << 20));
    let layer = Layer::new(Cursor::new(attack.stream.clone()));
    attack.judge(unpack(&attack.unpacker()?, layer, &scene.dest(Mode::Apply)?, Mode::Apply), Mode::Apply)?;
    scene.ensure_contained()
}

/// An extractor that never looks at its stream, which Rust could only do with a stream to tell it so.
#[test]
fn an_extractor_that_does_not_look_is_refused() -> Result<()> {
    let text = crate::component::extractor("", "(i32.const 0)");
    Scene::new()?.withstands(vec![Attack::written("blind", Guest::Untar, text, Ends::Refused("did not read"))])
}
