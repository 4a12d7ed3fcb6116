//! Each trait through the harness, as a plugin's own tests use it.

use std::io::{Read, Write};

use cofferdam_sdk::testing::{Host, Sample};
use cofferdam_sdk::{
    Archive, Decoder, Entry, Extractor, Failure, Image, Input, Inspector, Interest, Layer, Node, Output, Tree,
    Verifier, bounds, log, settings,
};

/// Turns each byte around.
struct Invert;

impl Decoder for Invert {
    fn decode(input: &mut Input, output: &mut Output) -> Result<(), Failure> {
        let mut bytes = [0; 7];
        loop {
            let count = input.read(&mut bytes)?;
            if count == 0 {
                return Ok(());
            }
            if bytes[..count].contains(&0) {
                output.flush()?;
                return Err(Failure::corrupt("a zero"));
            }
            for byte in &mut bytes {
                *byte = !*byte;
            }
            output.write_all(&bytes[..count])?;
        }
    }
}

#[test]
fn a_decoder_reads_all_and_all_of_its_output_arrives() {
    let blob: Vec<u8> = (0..1_000_000_u32).map(|n| (n % 255) as u8 + 1).collect();
    let inverted: Vec<u8> = blob.iter().map(|byte| !byte).collect();
    for piece in [1, 1000, 1 << 20] {
        let run = Host::new().piece(piece).decode::<Invert>(&blob);
        assert_eq!((run.result, run.written == inverted), (Ok(()), true), "pieces of {piece}");
    }
    let run = Host::new().decode::<Invert>(b"abcdefg\0");
    assert_eq!((run.result, run.written.len()), (Err(Failure::corrupt("a zero")), 7));
}

/// Files as `name length\n` with the content behind.
struct Plain;

impl Extractor for Plain {
    fn extract(archive: &mut Archive, tree: &mut Tree) -> Result<(), Failure> {
        while let Some([name, size, skip]) = archive.array()? {
            tree.put(Entry::new([name], Node::File { size: size.into() }));
            archive.skip(skip.into());
        }
        assert_eq!(bounds::entry().depth, 256);
        Ok(())
    }
}

#[test]
fn an_extractor_puts_entries_whose_content_is_the_hosts() {
    let run = Host::new().piece(2).extract::<Plain>(b"a\x03\x00abcb\x01\x02x..c\x00\x00");
    assert_eq!(run.result, Ok(()));
    let names: Vec<_> = run.entries.iter().map(Entry::path_lossy).collect();
    assert_eq!(
        (names, run.contents),
        (vec!["a".into(), "b".into(), "c".into()], vec![b"abc".to_vec(), b"x".to_vec(), Vec::new()])
    );
    assert_eq!(Host::new().extract::<Plain>(b"a\x00").reason(), "the archive is cut short");
}

#[test]
#[should_panic = "cut short"]
fn an_extractor_cannot_put_more_than_there_is() {
    Host::new().extract::<Plain>(b"a\x04\x00abc");
}

#[test]
#[should_panic = "out of contract"]
fn an_extractor_cannot_put_outside() {
    Host::new().extract::<Plain>(b"/\x00\x00");
}

/// Counts and adds up what it asks for.
struct Sum(Vec<u8>, u64);

impl Inspector for Sum {
    fn begin(layer: Layer) -> Result<Self, Failure> {
        log::info(&layer.digest);
        let suffix = settings::get("suffix").ok_or("no suffix")?;
        Ok(Self(suffix.into_bytes(), settings::parsed("from", 0)?))
    }

    fn see(&mut self, entry: Entry) -> Result<Interest, Failure> {
        Ok(if entry.path.ends_with(&self.0) { Interest::Content } else { Interest::None })
    }

    fn content(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.1 += bytes.iter().map(|byte| u64::from(*byte)).sum::<u64>();
        Ok(())
    }

    fn finish(self) -> Result<Vec<u8>, Failure> {
        Ok(self.1.to_string().into_bytes())
    }
}

#[test]
fn an_inspector_sees_what_it_asks_for() {
    let layer = Sample::new().named("sha256:00", "").directory("x.n").file("a.n", [1, 2, 3]).file("b", [9]);
    for piece in [1, 2, 100] {
        let run = Host::new().piece(piece).setting("suffix", ".n").setting("from", "10").inspect::<Sum>(&layer);
        assert_eq!(run.report(), "16");
        assert_eq!((run.entries.len(), run.asked), (3, vec![b"x.n".to_vec(), b"a.n".to_vec()]));
        assert_eq!(run.log, [(log::Level::Info, "sha256:00".to_owned())]);
    }
    assert_eq!(Host::new().inspect::<Sum>(&layer).reason(), "no suffix");
    // Declared, and not set.
    assert_eq!(Host::new().setting("suffix", " ").inspect::<Sum>(&layer).reason(), "no suffix");
    let run = Host::new().setting("suffix", ".n").setting("from", "ten").inspect::<Sum>(&layer);
    assert_eq!(run.reason(), "the setting `from` cannot be `ten`");
}

struct Registry;

impl Verifier for Registry {
    fn verify(image: Image) -> Result<String, Failure> {
        if settings::list("trusted").contains(&image.registry) {
            return Ok(format!("{} is trusted", image.registry));
        }
        Err(format!("{} is not trusted", image.registry).into())
    }
}

#[test]
fn a_verifier_judges() {
    let image = Image { registry: "registry.example".to_owned(), ..Image::default() };
    let run = Host::new().setting("trusted", "a, registry.example").verify::<Registry>(&image);
    assert_eq!(run.result, Ok("registry.example is trusted".to_owned()));
    assert_eq!(Host::new().verify::<Registry>(&image).reason(), "registry.example is not trusted");
}

#[test]
fn a_layer_is_read_from_tar() {
    let mut header = [0; 512];
    header[..5].copy_from_slice(b"a/b/c");
    header[100..107].copy_from_slice(b"0004755");
    header[124..135].copy_from_slice(b"00000000003");
    header[257..265].copy_from_slice(b"ustar\x0000");
    header[156] = b'0';
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let mut tar = header.to_vec();
    tar.extend_from_slice(b"xyz");
    tar.resize(512 * 4, 0);
    let sample = Sample::from_blob(&tar).expect("a layer");
    assert_eq!(sample.entries.len(), 1);
    assert!(sample.entries[0].0.is_setuid() && sample.entries[0].1 == b"xyz");
    for cut in 1..515 {
        assert!(Sample::from_blob(&tar[..cut]).is_err(), "{cut} bytes");
    }
    assert!(Sample::from_blob(b"\x1f\x8b\x08").is_err());
}

#[test]
fn a_failure_that_went_through_io_comes_out_as_it_was() {
    let failure = Failure::limit("too much");
    assert_eq!(Failure::from(std::io::Error::from(failure.clone())), failure);
    let end = std::io::Error::from(std::io::ErrorKind::UnexpectedEof);
    assert!(matches!(Failure::from(end), Failure::Corrupt(_)));
}
