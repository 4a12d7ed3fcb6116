//! Numbers: the octal and base-256 fields of headers, the decimals and times of extended headers.
//!
//! Octal is digits after leading spaces, ended by a space, a NUL or the field. Between them and the first NUL stand only
//! spaces; what stands behind that NUL is not looked at, as Go, GNU tar and libarchive do not: some writers leave there what
//! their buffer held before. A field of spaces and NULs alone counts as 0, as writers leave unused fields. With a NUL in front
//! of something else it is an error: GNU tar skips one NUL there, Go each, libarchive none. Base-256 is GNU's: the first byte has its high bit
//! set, the rest is two's complement, big-endian. GNU tar takes octal of other shapes too (base-64, a lone `-`); nobody
//! writes it, so it is an error here.

use crate::entry::Timestamp;

/// Why text is not the number that it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NumberError {
    /// It is not a number.
    Syntax,
    /// It is one, outside of what 64 bits hold.
    Range,
}

/// The number in a header field.
pub(crate) fn field(field: &[u8]) -> Result<i64, NumberError> {
    match field.split_first() {
        Some((first, rest)) if first & 0x80 != 0 => base256(*first, rest),
        _ => octal(field),
    }
}

/// The number in a field that must be octal.
pub(crate) fn octal(field: &[u8]) -> Result<i64, NumberError> {
    if field.iter().all(|&byte| matches!(byte, b' ' | 0)) {
        return Ok(0);
    }
    let text = field.split(|&byte| byte == 0).next().unwrap_or_default();
    let start = text.iter().position(|&byte| byte != b' ').ok_or(NumberError::Syntax)?;
    let digits = &text[start..];
    let end = digits.iter().position(|&byte| byte == b' ').unwrap_or(digits.len());
    let (digits, behind) = digits.split_at(end);
    if behind.iter().any(|&byte| byte != b' ') {
        return Err(NumberError::Syntax);
    }
    digits.iter().try_fold(0_i64, |value, &byte| match byte {
        b'0'..=b'7' => Ok(value.checked_mul(8).ok_or(NumberError::Range)? + i64::from(byte - b'0')),
        _ => Err(NumberError::Syntax),
    })
}

/// `first` holds the marker, the sign and the six highest bits.
fn base256(first: u8, rest: &[u8]) -> Result<i64, NumberError> {
    // Fields have at most 12 bytes: 94 bits and a sign.
    let sign = if first & 0x40 == 0 { 0 } else { -1_i128 };
    let value =
        rest.iter().fold((sign << 6) | i128::from(first & 0x3f), |value, &byte| (value << 8) | i128::from(byte));
    i64::try_from(value).map_err(|_| NumberError::Range)
}

/// A bare decimal: digits and nothing else.
pub(crate) fn decimal(text: &[u8]) -> Result<u64, NumberError> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return Err(NumberError::Syntax);
    }
    text.iter()
        .try_fold(0_u64, |value, &byte| value.checked_mul(10)?.checked_add(u64::from(byte - b'0')))
        .ok_or(NumberError::Range)
}

/// A PAX time, `-?d+(.d*)?`. Digits beyond nanoseconds are cut off, of a negative time too.
pub(crate) fn time(text: &[u8]) -> Result<Timestamp, NumberError> {
    let (negative, magnitude) = match text.strip_prefix(b"-") {
        Some(magnitude) => (true, magnitude),
        None => (false, text),
    };
    let (whole, fraction) = match magnitude.iter().position(|&byte| byte == b'.') {
        Some(dot) => (&magnitude[..dot], &magnitude[dot + 1..]),
        None => (magnitude, &[][..]),
    };
    if !fraction.iter().all(u8::is_ascii_digit) {
        return Err(NumberError::Syntax);
    }
    let seconds = i128::from(decimal(whole)?);
    let nanoseconds =
        (0..9).fold(0_u32, |value, digit| value * 10 + fraction.get(digit).map_or(0, |&byte| u32::from(byte - b'0')));
    let (seconds, nanoseconds) = match (negative, nanoseconds) {
        (false, _) => (seconds, nanoseconds),
        (true, 0) => (-seconds, 0),
        (true, _) => (-seconds - 1, 1_000_000_000 - nanoseconds),
    };
    Ok(Timestamp { seconds: i64::try_from(seconds).map_err(|_| NumberError::Range)?, nanoseconds })
}

#[cfg(test)]
mod tests {
    use super::NumberError::{Range, Syntax};
    use super::*;

    #[test]
    fn octal_fields() {
        for (text, value) in [
            (&b"0000644\0"[..], 0o644),
            (b"   644 \0", 0o644),
            (b"644\0\0\0\0\0", 0o644),
            (b"00000644", 0o644),
            (b"77777777777\0", 0o77_777_777_777),
            (b"777777777777", 0o777_777_777_777),
            (b"644 \0 \0  ", 0o644),
            (b"\0\0\0\0\0\0\0\0", 0),
            (b"        ", 0),
            (b"    \0   ", 0),
            (b"644\0\x004\0\0", 0o644),
            (b"0000644\0junk", 0o644),
            (b"  644 \0\xff\xff", 0o644),
            (b"644\0-1 9", 0o644),
        ] {
            assert_eq!(field(text), Ok(value), "{}", text.escape_ascii());
        }
        for text in [
            &b"0000648\0"[..],
            b"-000644\0",
            b"+000644\0",
            b"0x00644\0",
            b"64 4\0\0\0\0",
            b"644 junk",
            b"644junk\0",
            b"\0\0\0\0junk",
            b"  \x00644",
            b"\x00000644\0",
            b"\t000644\0",
            b"644\n\0\0\0\0",
            b"abcdefg\0",
        ] {
            assert_eq!(field(text), Err(Syntax), "{}", text.escape_ascii());
        }
    }

    #[test]
    fn base_256_fields() {
        let wide = |high: u8, low: [u8; 8]| {
            let mut field = [if high == 0x80 { 0 } else { 0xff }; 12];
            field[0] = high;
            field[4..].copy_from_slice(&low);
            field
        };
        assert_eq!(field(&wide(0x80, 5_i64.to_be_bytes())), Ok(5));
        assert_eq!(field(&wide(0x80, i64::MAX.to_be_bytes())), Ok(i64::MAX));
        assert_eq!(field(&wide(0x80, u64::MAX.to_be_bytes())), Err(Range));
        assert_eq!(field(&wide(0xff, (-1_i64).to_be_bytes())), Ok(-1));
        assert_eq!(field(&wide(0xff, i64::MIN.to_be_bytes())), Ok(i64::MIN));
        assert_eq!(field(&wide(0xff, i64::MAX.to_be_bytes())), Err(Range));
        assert_eq!(field(&[0xbf; 12]), Err(Range));
        assert_eq!(field(&[0xc0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), Err(Range));
        assert_eq!(field(&[0x80, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]), Ok(0xffff_ffff));
        assert_eq!(field(&[0xff; 8]), Ok(-1));
    }

    #[test]
    fn decimals_are_bare() {
        assert_eq!(decimal(b"0"), Ok(0));
        assert_eq!(decimal(b"18446744073709551615"), Ok(u64::MAX));
        assert_eq!(decimal(b"18446744073709551616"), Err(Range));
        for text in [&b""[..], b" 1", b"1 ", b"+1", b"-1", b"1.0", b"0x1", b"1\0", b"\xd9\xa1"] {
            assert_eq!(decimal(text), Err(Syntax), "{}", text.escape_ascii());
        }
    }

    #[test]
    fn times_have_nanoseconds_and_a_sign() {
        let at = |seconds, nanoseconds| Ok(Timestamp { seconds, nanoseconds });
        assert_eq!(time(b"0"), at(0, 0));
        assert_eq!(time(b"1."), at(1, 0));
        assert_eq!(time(b"1350244992.023960108"), at(1_350_244_992, 23_960_108));
        assert_eq!(time(b"1.9999999999999"), at(1, 999_999_999));
        assert_eq!(time(b"-1.5"), at(-2, 500_000_000));
        assert_eq!(time(b"-0.000000001"), at(-1, 999_999_999));
        assert_eq!(time(b"-1.0000000009"), at(-1, 0));
        assert_eq!(time(b"-0"), at(0, 0));
        assert_eq!(time(b"9223372036854775807.999999999"), at(i64::MAX, 999_999_999));
        assert_eq!(time(b"-9223372036854775808"), at(i64::MIN, 0));
        assert_eq!(time(b"-9223372036854775808.1"), Err(Range));
        assert_eq!(time(b"9223372036854775808"), Err(Range));
        assert_eq!(time(b"18446744073709551615"), Err(Range));
        assert_eq!(time(b"99999999999999999999999999999999999999999"), Err(Range));
        for text in
            [&b""[..], b"-", b".", b".5", b"-.5", b"+1", b"1.-5", b"1.5.5", b"1e3", b" 1", b"1 ", b"--1", b"nan"]
        {
            assert_eq!(time(text), Err(Syntax), "{}", text.escape_ascii());
        }
    }
}
