//! The pipeline with its real guests: what comes out, and where each limit bites.

use std::io::{self, Read, Write as _};
use std::sync::{Arc, Mutex};

use cofferdam_core::digest::Digest;
use cofferdam_core::error::{Error, ErrorKind, GuestFailure, Result};
use cofferdam_core::limits::Limits;
use cofferdam_core::progress::{Event, Progress};
use cofferdam_sandbox::{Guest, Sandbox, SandboxOptions};
use cofferdam_tree::entry::Entry;

use super::{Compression, Layer, LayerExtractor, LayerReport, LayerVerifier, Listing, Unpacker};

fn unpacker(limits: Limits) -> Unpacker {
    Unpacker::new(Arc::new(Sandbox::new(&SandboxOptions::default()).unwrap()), limits)
}

/// A tar stream of regular files.
fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, *content).unwrap();
    }
    builder.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A zstd frame that wants a window of 2^`log` bytes and holds `bytes` (less than 128 KiB) as they are.
fn zstd(bytes: &[u8], log: u8) -> Vec<u8> {
    let block = u32::try_from(bytes.len()).unwrap() << 3 | 1;
    [&[0x28, 0xb5, 0x2f, 0xfd, 0, (log - 10) << 3], &block.to_le_bytes()[..3], bytes].concat()
}

fn list(unpacker: &Unpacker, layer: Layer) -> (Result<LayerReport>, Vec<Entry>) {
    let entries = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&entries);
    let (outcome, sink) = unpacker.extract(
        layer,
        Listing::new(move |entry| {
            seen.lock().unwrap().push(entry);
            Ok(())
        }),
    );
    drop(sink);
    (outcome, Arc::into_inner(entries).unwrap().into_inner().unwrap())
}

fn bytes(content: Vec<u8>) -> Layer {
    let size = content.len() as u64;
    Layer::new(io::Cursor::new(content)).with_size(size)
}

fn fails(limits: Limits, layer: Layer) -> Error {
    let (outcome, _) = list(&unpacker(limits), layer);
    outcome.unwrap_err()
}

#[test]
fn every_form_of_a_layer_gives_the_same() {
    let plain = tar(&[("a", b"one"), ("b/c", &vec![7; 100_000])]);
    let diff_id = Digest::of(&plain);
    let unpacker = unpacker(Limits::default());
    let forms = [
        (Compression::None, plain.clone()),
        (Compression::Gzip, gzip(&plain)),
        (Compression::Gzip, [gzip(&plain[..700]), gzip(&plain[700..])].concat()),
        (Compression::Zstd, zstd(&plain, 17)),
        (Compression::Zstd, [zstd(&plain[..700], 17), zstd(&plain[700..], 17)].concat()),
    ];
    for (compression, blob) in forms {
        let layer = bytes(blob.clone()).with_compression(compression).with_diff_id(diff_id.clone());
        let (report, entries) = list(&unpacker, layer.hashing_blob(cofferdam_core::Algorithm::Sha256));
        let report = report.unwrap();
        assert_eq!((report.diff_id, report.entries), (diff_id.clone(), 2));
        assert_eq!((report.blob, report.blob_bytes), (Some(Digest::of(&blob)), blob.len() as u64));
        assert_eq!(report.decoded_bytes, plain.len() as u64);
        let paths: Vec<_> = entries.iter().map(|entry| entry.path.as_bytes().to_vec()).collect();
        assert_eq!(paths, [b"a".to_vec(), b"b/c".to_vec()]);
        assert_eq!(unpacker.verify(bytes(blob)).unwrap().diff_id, diff_id);
    }
}

#[test]
fn a_layer_of_no_bytes_is_empty() {
    let (report, entries) = list(&unpacker(Limits::default()), bytes(Vec::new()));
    assert_eq!((report.unwrap().entries, entries.len()), (0, 0));
}

#[test]
fn a_wrong_diff_id_is_an_error_and_names_the_layer() {
    let layer = bytes(gzip(&tar(&[("a", b"")]))).with_diff_id(Digest::of(b"other")).named("layer X");
    let error = fails(Limits::default(), layer);
    assert!(matches!(error.root(), Error::DigestMismatch { .. }), "{error}");
    assert!(error.to_string().contains("layer X"), "{error}");
}

#[test]
fn media_type_and_bytes_must_agree() {
    let plain = tar(&[("a", b"x")]);
    for (said, blob) in [
        (Compression::Gzip, plain.clone()),
        (Compression::Zstd, gzip(&plain)),
        (Compression::None, gzip(&plain)),
        (Compression::Gzip, Vec::new()),
    ] {
        let error = fails(Limits::default(), bytes(blob).with_compression(said));
        assert_eq!(error.kind(), ErrorKind::Integrity, "{error}");
    }
}

#[test]
fn what_follows_the_archive_counts_for_the_diff_id() {
    let mut plain = tar(&[("a", b"x")]);
    plain.extend_from_slice(b"anything at all");
    let layer = bytes(plain.clone()).with_diff_id(Digest::of(&plain));
    let (report, entries) = list(&unpacker(Limits::default()), layer);
    assert_eq!((report.unwrap().entries, entries.len()), (1, 1));
}

#[test]
fn decoded_bytes_have_a_limit_wherever_they_lie() {
    let limits = Limits::default().with(|limits| limits.layer_bytes = 100_000);
    let inside = gzip(&tar(&[("a", &vec![0; 200_000])]));
    let behind = gzip(&[tar(&[("a", b"")]), vec![0; 200_000]].concat());
    for blob in [inside, behind] {
        // Also when nobody knows how large the blob is.
        let unknown = Layer::new(io::Cursor::new(blob.clone()));
        for layer in [bytes(blob), unknown] {
            let error = fails(limits.clone(), layer);
            assert!(matches!(error.root(), Error::Limit { .. }), "{error}");
        }
    }
}

#[test]
fn expansion_has_a_limit_once_it_matters() {
    let blob = gzip(&tar(&[("a", &vec![0; 400_000])]));
    let strict = Limits::default().with(|limits| {
        limits.ratio = 10;
        limits.ratio_from = 100_000;
    });
    let error = fails(strict, Layer::new(io::Cursor::new(blob.clone())));
    assert!(matches!(error.root(), Error::Limit { limit: 10, .. }), "{error}");
    let lax = Limits::default().with(|limits| {
        limits.ratio = 10;
        limits.ratio_from = 1_000_000;
    });
    list(&unpacker(lax), Layer::new(io::Cursor::new(blob))).0.unwrap();
}

#[test]
fn a_claimed_size_beyond_the_budget_reaches_no_sink() {
    let mut header = tar::Header::new_ustar();
    header.set_path("huge").unwrap();
    header.set_size(1 << 33);
    header.set_mode(0o644);
    header.set_cksum();
    let blob = gzip(header.as_bytes());
    // 512 times a hundred bytes is less than the 1 GiB from which the ratio counts.
    let (outcome, entries) = list(&unpacker(Limits::default()), bytes(blob));
    let error = outcome.unwrap_err();
    assert!(matches!(error.root(), Error::Limit { limit, .. } if *limit <= 1 << 30), "{error}");
    assert!(entries.is_empty());
}

#[test]
fn entries_have_a_limit() {
    let blob = || bytes(tar(&[("a", b""), ("b", b""), ("c", b"")]));
    list(&unpacker(Limits::default().with(|limits| limits.entries = 3)), blob()).0.unwrap();
    let error = fails(Limits::default().with(|limits| limits.entries = 2), blob());
    assert!(matches!(error.root(), Error::Limit { what: "entries", limit: 2, .. }), "{error}");
}

#[test]
fn a_window_meets_the_decoders_memory() {
    let blob = || bytes(zstd(&tar(&[("a", b"x")]), 26));
    list(&unpacker(Limits::default()), blob()).0.unwrap();
    let error = fails(Limits::default().with(|limits| limits.decoder_memory = 16 << 20), blob());
    assert!(matches!(error.root(), Error::Guest { failure: GuestFailure::Memory(_), .. }), "{error}");
    let error = fails(Limits::default(), bytes(zstd(&tar(&[("a", b"x")]), 28)));
    assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
}

#[test]
fn a_broken_stream_is_corrupt_however_it_is_broken() {
    let plain = tar(&[("a", &[1; 5000])]);
    let good = gzip(&plain);
    let cut = good[..good.len() - 1].to_vec();
    let trailing = [good.as_slice(), b"x"].concat();
    let mut flipped = good.clone();
    let last = flipped.len() - 6;
    flipped[last] ^= 1;
    for blob in [cut, trailing, flipped, gzip(&plain[..700])] {
        let error = fails(Limits::default(), bytes(blob));
        assert_eq!(error.kind(), ErrorKind::Integrity, "{error}");
    }
}

/// Gives some bytes, then fails.
struct Failing(io::Cursor<Vec<u8>>);

impl Read for Failing {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buffer)? {
            0 => Err(io::Error::other("the cable is cut")),
            count => Ok(count),
        }
    }
}

#[test]
fn an_error_of_the_reader_is_what_is_reported() {
    let blob = gzip(&tar(&[("a", &[1; 5000])]));
    for cut in [0, 3, blob.len() / 2, blob.len()] {
        let error = fails(Limits::default(), Layer::new(Failing(io::Cursor::new(blob[..cut].to_vec()))));
        assert!(matches!(error.root(), Error::Io { .. }), "cut at {cut}: {error}");
    }
}

/// A sink that fails stops the pipeline, however much is still to come.
#[test]
fn an_error_of_the_sink_is_what_is_reported() {
    let files: Vec<_> = (0..50).map(|n| (format!("f{n}"), vec![1; 1 << 20])).collect();
    let files: Vec<_> = files.iter().map(|(name, content)| (name.as_str(), content.as_slice())).collect();
    let layer = bytes(tar(&files));
    let sink = Listing::new(|_| Err(Error::Unsupported { what: "this sink".into() }));
    let (outcome, _) = unpacker(Limits::default()).extract(layer, sink);
    let error = outcome.unwrap_err();
    assert!(matches!(error.root(), Error::Unsupported { .. }), "{error}");
}

/// An extractor that says that all is well without having looked.
#[test]
fn an_extractor_that_reads_nothing_is_found_out() {
    let lazy = wat::parse_str(
        r#"(component
          (import "cofferdam:layer/types@0.1.0" (instance $types
            (type $r (record (field "path" (list u8)) (field "reason" string)))
            (export "refusal" (type $refusal (eq $r)))
            (type $f (variant (case "corrupt" string) (case "refused" $refusal) (case "limit" string)))
            (export "failure" (type $failure (eq $f)))))
          (alias export $types "failure" (type $failure))
          (core module $code (memory (export "memory") 1)
            (func (export "extract") (result i32) (i32.const 64))
            (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 0)))
          (core instance $i (instantiate $code))
          (alias core export $i "memory" (core memory $mem))
          (alias core export $i "realloc" (core func $realloc))
          (alias core export $i "extract" (core func $run))
          (func $extract (result (result (error $failure)))
            (canon lift (core func $run) (memory $mem) (realloc $realloc)))
          (export "extract" (func $extract)))"#,
    )
    .unwrap();
    let sandbox = Sandbox::new(&SandboxOptions::default().with_guest(Guest::Untar, lazy)).unwrap();
    let (outcome, _) = list(&Unpacker::new(Arc::new(sandbox), Limits::default()), bytes(tar(&[("a", b"x")])));
    let error = outcome.unwrap_err();
    assert!(matches!(error.root(), Error::Refused { .. }), "{error}");
}

#[test]
fn progress_ends_with_all_that_there_was() {
    let events = Arc::new(Mutex::new(Vec::new()));
    let seen = Arc::clone(&events);
    let progress = Progress::new(move |event| seen.lock().unwrap().push(event));
    let plain = tar(&[("a", b"x"), ("b", b"y")]);
    let layer = bytes(plain).with_progress(Some(Digest::of(b"blob")), progress);
    list(&unpacker(Limits::default()), layer).0.unwrap();
    let last = events.lock().unwrap().pop();
    assert!(
        matches!(&last, Some(Event::Extracted { layer: Some(layer), entries: 2, .. }) if *layer == Digest::of(b"blob")),
        "{last:?}"
    );
}

/// The names in a directory.
fn names(dir: &std::path::Path) -> Vec<String> {
    let mut names: Vec<_> =
        dir.read_dir().unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn an_extractor_applies_layers_one_after_the_other() {
    let temp = tempfile::tempdir().unwrap();
    let dest = temp.path().join("rootfs");
    let mut extractor = LayerExtractor::new(&dest);
    assert!(!dest.exists(), "made before there is a layer");
    let lower = gzip(&tar(&[("keep", b"12345"), ("gone", b"67")]));
    assert_eq!(extractor.extract_reader(io::Cursor::new(lower)).unwrap(), 7, "bytes of files, as the reference has it");
    let upper = tar(&[(".wh.gone", b""), ("new", b"3"), ("keep2", &[0; 1000])]);
    let file = tempfile::NamedTempFile::new().unwrap();
    rustix::io::pwrite(file.as_file(), &upper, 0).unwrap();
    assert_eq!(extractor.extract_tarball(file.path()).unwrap(), 1001, "of this layer alone");
    assert_eq!(extractor.extract_reader(io::Cursor::new(tar(&[]))).unwrap(), 0);
    // Whole before `finalize`, so that nothing is lost if nobody calls it.
    assert_eq!(names(&dest), ["keep", "keep2", "new"]);
    extractor.finalize().unwrap();
    assert_eq!(names(&dest), ["keep", "keep2", "new"]);
}

#[test]
fn an_extractor_that_failed_takes_no_more() {
    let temp = tempfile::tempdir().unwrap();
    let mut extractor = LayerExtractor::new(temp.path().join("rootfs"));
    let cut = gzip(&tar(&[("a", b"1")]))[..40].to_vec();
    assert_eq!(extractor.extract_reader(io::Cursor::new(cut)).unwrap_err().kind(), ErrorKind::Integrity);
    let good = tar(&[("b", b"1")]);
    assert_eq!(extractor.extract_reader(io::Cursor::new(good)).unwrap_err().kind(), ErrorKind::Usage);
}

#[test]
fn a_verifier_reads_every_form_of_a_layer() {
    let temp = tempfile::NamedTempFile::new().unwrap();
    let plain = tar(&[("a", b"1")]);
    let verifier = LayerVerifier::new(&Digest::of(&plain).to_string()).unwrap();
    for (blob, right) in [(plain.clone(), true), (gzip(&plain), true), (gzip(&tar(&[("a", b"2")])), false)] {
        temp.as_file().set_len(0).unwrap();
        rustix::io::pwrite(temp.as_file(), &blob, 0).unwrap();
        assert_eq!(verifier.verify_tarball(temp.path()).unwrap(), right);
    }
    temp.as_file().set_len(30).unwrap();
    assert_eq!(verifier.verify_tarball(temp.path()).unwrap_err().kind(), ErrorKind::Integrity);
}
