//! JSON of images, as RFC 8259 has it.

use std::fmt;

use serde::de::{DeserializeOwned, DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use cofferdam_core::error::Escaped;

/// Reads a document. The error is the reason, for people: it does not grow with what the document says.
pub(super) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    // `serde_json` looks at the encoding of what it keeps only; others replace or refuse the rest.
    let text = std::str::from_utf8(bytes).map_err(|error| format!("it is not valid JSON: {error}"))?;
    serde_json::from_str(text)
        .map_err(|error| format!("it is not valid JSON: {}", Escaped(error.to_string().as_bytes())))
}

/// What a visitor makes of values that have no members: of null, and of all others.
macro_rules! scalars {
    (absent: $absent:expr, others: $others:expr) => {
        fn visit_unit<E>(self) -> std::result::Result<Self::Value, E> {
            Ok($absent)
        }

        fn visit_bool<E>(self, _: bool) -> std::result::Result<Self::Value, E> {
            Ok($others)
        }

        fn visit_u64<E>(self, _: u64) -> std::result::Result<Self::Value, E> {
            Ok($others)
        }

        fn visit_i64<E>(self, _: i64) -> std::result::Result<Self::Value, E> {
            Ok($others)
        }

        fn visit_f64<E>(self, _: f64) -> std::result::Result<Self::Value, E> {
            Ok($others)
        }

        fn visit_str<E>(self, _: &str) -> std::result::Result<Self::Value, E> {
            Ok($others)
        }
    };
}
pub(super) use scalars;

/// A member of a document that is judged only where it is needed: a text, a number, or something else.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) enum Member {
    /// Missing, or null.
    #[default]
    Absent,
    /// A text.
    Text(String),
    /// A whole number that is not negative.
    Number(u64),
    /// Anything else. Its content is not kept.
    Odd,
}

impl Member {
    /// The text, if it is one.
    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }
}

impl<'de> Deserialize<'de> for Member {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(MemberVisitor)
    }
}

struct MemberVisitor;

impl<'de> Visitor<'de> for MemberVisitor {
    type Value = Member;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_unit<E>(self) -> Result<Member, E> {
        Ok(Member::Absent)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Member, E> {
        Ok(Member::Odd)
    }

    fn visit_u64<E>(self, value: u64) -> Result<Member, E> {
        Ok(Member::Number(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Member, E> {
        Ok(u64::try_from(value).map_or(Member::Odd, Member::Number))
    }

    fn visit_f64<E>(self, _: f64) -> Result<Member, E> {
        Ok(Member::Odd)
    }

    fn visit_str<E>(self, text: &str) -> Result<Member, E> {
        Ok(Member::Text(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Member, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Member::Odd)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Member, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Member::Odd)
    }
}

fn none<const COUNT: usize>() -> [Member; COUNT] {
    std::array::from_fn(|_| Member::Absent)
}

/// Reads the members of an object that have these names, and reads over the others. A member that comes twice is odd: two readers might
/// take two things for it. A value that is no object has no members.
pub(super) struct Named<const COUNT: usize>(pub(super) [&'static str; COUNT]);

impl<'de, const COUNT: usize> DeserializeSeed<'de> for Named<COUNT> {
    type Value = [Member; COUNT];

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, const COUNT: usize> Visitor<'de> for Named<COUNT> {
    type Value = [Member; COUNT];

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = none();
        while let Some(key) = map.next_key::<String>()? {
            let slot = self.0.iter().position(|name| *name == key).and_then(|at| found.get_mut(at));
            match slot {
                Some(slot) => {
                    let value = map.next_value()?;
                    *slot = if *slot == Member::Absent { value } else { Member::Odd };
                }
                None => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(found)
    }

    scalars!(absent: none(), others: none());

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(none())
    }
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
