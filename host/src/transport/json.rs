//! JSON of images, as RFC 8259 has it.

use serde::de::DeserializeOwned;

use crate::error::Escaped;

/// Reads a document. The error is the reason, for people: it does not grow with what the document says.
pub(super) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    // `serde_json` looks at the encoding of what it keeps only; others replace or refuse the rest.
    let text = std::str::from_utf8(bytes).map_err(|error| format!("it is not valid JSON: {error}"))?;
    serde_json::from_str(text)
        .map_err(|error| format!("it is not valid JSON: {}", Escaped(error.to_string().as_bytes())))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    struct Document {
        #[expect(dead_code, reason = "it is there to be read")]
        size: u64,
    }

    /// Found by fuzzing.
    #[test]
    fn all_of_a_document_is_utf_8() {
        assert!(parse::<Document>(b"{\"size\":1,\"other\":\"x\"}").is_ok());
        for bytes in [&b"{\"size\":1,\"other\":\"\xff\"}"[..], b"{\"size\":1,\"o\xec\":0}", b"\xff\xfe{\0}\0"] {
            assert!(parse::<Document>(bytes).is_err(), "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn what_a_document_says_does_not_fill_the_error() {
        let text = format!("{{\"size\":\"{}\\u001b[2J\"}}", "x".repeat(1 << 20));
        let error = parse::<Document>(text.as_bytes()).unwrap_err();
        assert!(error.len() < 1000 && !error.contains(char::is_control), "{} bytes", error.len());
        assert!(parse::<BTreeMap<String, u64>>(b"{\"a\":-1}").unwrap_err().contains("line 1"));
    }
}
