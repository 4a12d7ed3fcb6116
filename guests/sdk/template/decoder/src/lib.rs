//! A decoder for a compression that is simple enough to begin with: `RLE1`, then pairs of a count and a byte, and a count of 0
//! at the end.

use std::io::{Read, Write};

use cofferdam_sdk::{Decoder, Failure, Input, Output};

cofferdam_sdk::decoder!(Runs);

struct Runs;

impl Decoder for Runs {
    fn decode(input: &mut Input, output: &mut Output) -> Result<(), Failure> {
        let mut magic = [0; 4];
        input.read_exact(&mut magic)?;
        if &magic != b"RLE1" {
            return Err(Failure::corrupt("not what it is said to be"));
        }
        loop {
            let mut count = [0];
            input.read_exact(&mut count)?;
            if count == [0] {
                break;
            }
            let mut byte = [0];
            input.read_exact(&mut byte)?;
            output.write_all(&[byte[0]; 255][..count[0].into()])?;
        }
        if input.is_at_end() {
            Ok(())
        } else {
            Err(Failure::corrupt("garbage behind the end"))
        }
    }
}

#[cfg(test)]
mod tests {
    use cofferdam_sdk::Failure;
    use cofferdam_sdk::testing::Host;

    use super::Runs;

    #[test]
    fn runs_are_decoded() {
        let run = Host::new().piece(1).decode::<Runs>(b"RLE1\x03a\x01b\x00");
        assert_eq!((run.result, run.written), (Ok(()), b"aaab".to_vec()));
    }

    #[test]
    fn what_is_no_such_stream_is_corrupt() {
        let whole = b"RLE1\x03a\x01b\x00";
        let cuts = (0..whole.len()).map(|end| whole[..end].to_vec());
        for blob in cuts.chain([b"RLE2\x00".to_vec(), b"RLE1\x00x".to_vec()]) {
            let run = Host::new().decode::<Runs>(&blob);
            assert!(
                matches!(run.result, Err(Failure::Corrupt(_))),
                "{}",
                blob.escape_ascii()
            );
        }
    }
}
