use std::io::Write;

use cofferdam_sdk::Failure;
use cofferdam_sdk::testing::{Host, Run};
use lzma_rust2::{CheckType, XzOptions, XzWriter};

use super::Xz;

/// Text that compresses, but not to nothing.
fn text(size: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let mut text = Vec::with_capacity(size);
    while text.len() < size {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        text.extend_from_slice(format!("line {} of the text\n", state >> 20).as_bytes());
    }
    text.truncate(size);
    text
}

fn compress(bytes: &[u8], check: CheckType) -> Vec<u8> {
    let mut options = XzOptions::with_preset(1);
    options.set_check_sum_type(check);
    let mut writer = XzWriter::new(Vec::new(), options).expect("a writer");
    writer.write_all(bytes).expect("memory");
    writer.finish().expect("memory")
}

fn decode(blob: &[u8]) -> Run<()> {
    Host::new().decode::<Xz>(blob)
}

fn is_corrupt(run: &Run<()>) -> bool {
    matches!(run.result, Err(Failure::Corrupt(_)))
}

#[test]
fn every_check_is_read() {
    let text = text(1_500_000);
    for check in [CheckType::None, CheckType::Crc32, CheckType::Crc64, CheckType::Sha256] {
        let blob = compress(&text, check);
        for piece in [1 << 20, 4096, 1] {
            let run = Host::new().piece(piece).decode::<Xz>(&blob);
            assert_eq!((run.result, run.written == text), (Ok(()), true), "{check:?} in pieces of {piece}");
        }
    }
}

#[test]
fn nothing_compresses_to_a_stream() {
    assert_eq!((decode(&compress(b"", CheckType::Crc32)).result, decode(b"").result.is_err()), (Ok(()), true));
}

#[test]
fn streams_stand_one_after_another_with_padding() {
    let (a, b) = (compress(b"first", CheckType::Crc64), compress(b"second", CheckType::Sha256));
    for (padding, good) in [(0, true), (4, true), (1 << 20, true), (1, false), (6, false)] {
        let padding = vec![0; padding];
        let between = decode(&[&a[..], &padding, &b].concat());
        let behind = decode(&[&a[..], &padding].concat());
        assert_eq!((between.result.is_ok(), behind.result.is_ok()), (good, good), "{} zeros", padding.len());
        if good {
            assert_eq!((between.written, behind.written), (b"firstsecond".to_vec(), b"first".to_vec()));
        } else {
            assert_eq!(behind.reason(), "padding that is not in fours");
        }
    }
    assert!(is_corrupt(&decode(&[&[0; 4][..], &a].concat())), "padding in front");
}

#[test]
fn garbage_behind_the_end_is_corrupt() {
    let blob = compress(b"text", CheckType::Crc64);
    for garbage in [&b"x"[..], b"\xfd7zXZ", b"\0\0\0\0garbage", &blob[..blob.len() - 1]] {
        assert!(is_corrupt(&decode(&[&blob[..], garbage].concat())), "{}", garbage.escape_ascii());
    }
}

#[test]
fn what_is_cut_short_is_corrupt() {
    let blob = compress(&text(2000), CheckType::Sha256);
    for cut in 0..blob.len() {
        let run = decode(&blob[..cut]);
        assert!(is_corrupt(&run), "{cut} bytes: {:?}", run.result);
    }
}

#[test]
fn no_bit_can_be_turned_unnoticed() {
    let text = text(2000);
    for check in [CheckType::Crc32, CheckType::Crc64, CheckType::Sha256] {
        let blob = compress(&text, check);
        for bit in 0..blob.len() * 8 {
            let mut blob = blob.clone();
            blob[bit / 8] ^= 1 << (bit % 8);
            let run = decode(&blob);
            // The range coder's first byte means nothing, and xz4rust takes any.
            let meaningless = bit / 8 == 30 && run.written == text;
            assert!(run.result.is_err() || meaningless, "{check:?}: bit {bit} was turned");
        }
    }
}

#[test]
fn random_bytes_are_no_stream() {
    let mut state = 7_u64;
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    let blob = compress(&text(5000), CheckType::Crc32);
    for _ in 0..300 {
        let mut bytes = blob[..32].to_vec();
        bytes.extend((0..500).map(|_| random()));
        assert!(decode(&bytes).result.is_err());
        assert!(is_corrupt(&decode(&bytes[32..])));
    }
}

#[test]
fn a_dictionary_beyond_the_bound_crosses_a_limit() {
    let blob = compress(&text(2000), CheckType::Crc32);
    let run = Host::new().window(64 << 10).decode::<Xz>(&blob);
    assert!(matches!(&run.result, Err(Failure::Limit(reason)) if reason.contains("dictionary")), "{:?}", run.result);
    assert_eq!(Host::new().window(1 << 20).decode::<Xz>(&blob).result, Ok(()));
}
