//! Challenges: the ways to log in that an answer lists in `WWW-Authenticate`.
//!
//! Source: RFC 9110 section 11.6.1, read as leniently as its ambiguity allows, because registries write values without the
//! quotes they need, tabs or several spaces behind the scheme, and lists of schemes in one field or in several. A field
//! that cannot be read to its end still yields the challenges in front of the fault.

use http::header::{HeaderMap, WWW_AUTHENTICATE};

use cofferdam_core::error::Escaped;

/// The challenges of one answer.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Challenges {
    /// The first `Bearer` challenge that names a token service.
    pub(super) bearer: Option<Bearer>,
    /// Whether a `Basic` challenge is among them.
    pub(super) basic: bool,
    /// Why nothing can be answered, where nothing can.
    obstacle: Option<String>,
}

/// A request for a token (RFC 6750, and distribution's `spec/auth/token`).
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Bearer {
    /// The address of the token service, unchecked.
    pub(super) realm: String,
    /// The name of the registry at its token service.
    pub(super) service: Option<String>,
    /// What the token must allow, one each.
    pub(super) scopes: Vec<String>,
}

impl Challenges {
    /// Reads all `WWW-Authenticate` fields of an answer.
    pub(super) fn of(headers: &HeaderMap) -> Self {
        let mut found = Self::default();
        let mut schemes = Vec::new();
        let (mut unreadable, mut without_realm) = (None, false);
        for value in headers.get_all(WWW_AUTHENTICATE) {
            let (challenges, whole) = parse(&String::from_utf8_lossy(value.as_bytes()));
            if !whole {
                unreadable.get_or_insert_with(|| Escaped(value.as_bytes()).to_string());
            }
            for challenge in challenges {
                if challenge.scheme.eq_ignore_ascii_case("basic") {
                    found.basic = true;
                } else if challenge.scheme.eq_ignore_ascii_case("bearer") {
                    let bearer = challenge.bearer();
                    without_realm |= bearer.is_none();
                    found.bearer = found.bearer.take().or(bearer);
                } else {
                    schemes.push(challenge.scheme);
                }
            }
        }
        if !found.can_be_answered() {
            found.obstacle = Some(match unreadable {
                Some(text) => format!("its challenge `{text}` cannot be read"),
                None if without_realm => "its challenge `Bearer` names no token service".to_owned(),
                None if schemes.is_empty() => "it wants a login and does not say of which kind".to_owned(),
                None => {
                    let schemes = Escaped(schemes.join(", ").as_bytes()).to_string();
                    format!("it wants a login by {schemes}, and only Basic and Bearer are supported")
                }
            });
        }
        found
    }

    /// Returns true if one of the challenges has an answer.
    pub(super) fn can_be_answered(&self) -> bool {
        self.bearer.is_some() || self.basic
    }

    /// Returns the reason why none of the challenges has an answer.
    pub(super) fn obstacle(&self) -> &str {
        self.obstacle.as_deref().unwrap_or("its challenge cannot be answered")
    }
}

/// One challenge, as it was written.
#[derive(Debug, PartialEq, Eq)]
struct Challenge {
    scheme: String,
    parameters: Vec<(String, String)>,
}

impl Challenge {
    fn parameter(&self, name: &str) -> Option<&str> {
        let found = self.parameters.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    fn bearer(&self) -> Option<Bearer> {
        let scopes = self.parameter("scope").unwrap_or_default().split_whitespace();
        Some(Bearer {
            realm: self.parameter("realm")?.to_owned(),
            service: self.parameter("service").map(str::to_owned),
            scopes: scopes.map(str::to_owned).collect(),
        })
    }
}

/// Reads the challenges of one field. Returns false beside them if the field has a part that is none.
fn parse(text: &str) -> (Vec<Challenge>, bool) {
    let mut rest = Rest(text);
    let mut challenges: Vec<Challenge> = Vec::new();
    // Only what follows a comma, or begins the field, is the name of a scheme.
    let (mut whole, mut separated) = (true, true);
    loop {
        separated |= rest.skip_separators();
        if rest.0.is_empty() {
            return (challenges, whole);
        }
        let name = rest.token();
        if name.is_empty() {
            // Credentials in place of parameters (`token68`) have such characters too, and say nothing to us.
            whole &= challenges.last().is_some_and(|challenge| challenge.parameters.is_empty());
            rest.skip_item();
            continue;
        }
        rest.skip_blanks();
        if rest.skip("=") {
            rest.skip_blanks();
            let (value, closed) = rest.value();
            whole &= closed;
            match challenges.last_mut() {
                Some(challenge) => challenge.parameters.push((name.to_owned(), value)),
                None => whole = false,
            }
            separated = false;
        } else if separated {
            challenges.push(Challenge { scheme: name.to_owned(), parameters: Vec::new() });
            separated = false;
        }
    }
}

/// The part of a field that is still to be read.
struct Rest<'a>(&'a str);

impl<'a> Rest<'a> {
    fn take(&mut self, until: impl Fn(char) -> bool) -> &'a str {
        let (taken, rest) = self.0.split_at(self.0.find(until).unwrap_or(self.0.len()));
        self.0 = rest;
        taken
    }

    fn skip(&mut self, text: &str) -> bool {
        let rest = self.0.strip_prefix(text);
        self.0 = rest.unwrap_or(self.0);
        rest.is_some()
    }

    fn skip_blanks(&mut self) {
        self.take(|c| !is_blank(c));
    }

    /// Skips blanks and commas. Returns true if there was a comma.
    fn skip_separators(&mut self) -> bool {
        self.take(|c| !is_blank(c) && c != ',').contains(',')
    }

    /// Skips what is left of an item that has no meaning here.
    fn skip_item(&mut self) {
        self.take(|c| is_blank(c) || c == ',');
    }

    fn token(&mut self) -> &'a str {
        self.take(|c| !(c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)))
    }

    /// Reads a value: in quotes, or up to a comma or a blank. Returns false beside it if the quotes are not closed.
    fn value(&mut self) -> (String, bool) {
        if !self.skip("\"") {
            return (self.take(|c| is_blank(c) || c == ',').to_owned(), true);
        }
        let mut value = String::new();
        let mut characters = self.0.chars();
        while let Some(character) = characters.next() {
            match character {
                '"' => {
                    self.0 = characters.as_str();
                    self.skip_item();
                    return (value, true);
                }
                '\\' => value.extend(characters.next()),
                other => value.push(other),
            }
        }
        self.0 = "";
        // Where it should have ended is anybody's guess.
        (String::new(), false)
    }
}

fn is_blank(c: char) -> bool {
    c == ' ' || c == '\t'
}

#[cfg(test)]
mod tests {
    use http::header::HeaderValue;

    use super::*;

    fn of(values: &[&str]) -> Challenges {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(WWW_AUTHENTICATE, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        Challenges::of(&headers)
    }

    #[test]
    fn a_request_for_a_token_is_read_in_every_spelling() {
        for values in [
            &[r#"Bearer realm="https://a/t?x=1,2",service="s",scope="repository:r:pull other""#][..],
            &[r#"bearer Realm="https://a/t?x=1,2",SERVICE=s,scope="repository:r:pull other""#],
            &["BEARER   realm = \"https://a/t?x=1,2\" ,\t, service\t=\ts , scope=\"repository:r:pull  other\","],
            &[r#"Bearer realm="https://a/t?x=1,2" service="s" scope="repository:r:pull other""#],
            &[r#"Bearer service="\s",scope="repository:r:pull other",realm="https://a/t?x=1,2", error="x""#],
            &[r#"Negotiate, Bearer realm="https://a/t?x=1,2",service="s",scope="repository:r:pull other", Basic"#],
            &[r#"Negotiate a/b+c==, Bearer realm="https://a/t?x=1,2",service=s,scope="repository:r:pull other""#],
            &["Negotiate", r#"Bearer realm="https://a/t?x=1,2",service=s,scope="repository:r:pull other""#],
            &[
                r#"Digest realm="Bearer realm=x, y", nonce="n", Bearer realm="https://a/t?x=1,2",service="s",scope="repository:r:pull other""#,
            ],
            &["Basic realm=\"x\"", r#"Bearer realm="https://a/t?x=1,2",service=s,scope="repository:r:pull other""#],
            &["Bearer service=x", r#"Bearer realm="https://a/t?x=1,2",service=s,scope="repository:r:pull other""#],
            &["\"", r#"Bearer realm="https://a/t?x=1,2",service=s,scope="repository:r:pull other""#],
        ] {
            let bearer = of(values).bearer.unwrap_or_else(|| panic!("{values:?}"));
            assert_eq!((&*bearer.realm, bearer.service.as_deref()), ("https://a/t?x=1,2", Some("s")), "{values:?}");
            assert_eq!(bearer.scopes, ["repository:r:pull", "other"], "{values:?}");
        }
        let unquoted = of(&["Bearer realm=http://a:1/token?x=1,service=b/c"]).bearer.unwrap();
        assert_eq!((&*unquoted.realm, unquoted.service.as_deref()), ("http://a:1/token?x=1", Some("b/c")));
    }

    #[test]
    fn a_request_for_a_password_is_read_in_every_spelling() {
        for values in [
            &["Basic"][..],
            &["basic realm=/"],
            &["Basic realm=x"],
            &["BASIC realm=\"x\","],
            &["Basic realm=\"x\", charset=\"UTF-8\""],
            &["Basic realm=\"Gr\u{fc}n\""],
            &["Basic realm=My Registry"],
            &["Basic\trealm=\"x"],
            &["Negotiate", "Basic realm=\"x\""],
            &["Digest realm=\"d\", nonce=\"n\", Basic realm=\"x\""],
            &["Bearer service=\"x\", Basic realm=x"],
            &[", ,Basic"],
        ] {
            let found = of(values);
            assert!(found.basic && found.bearer.is_none(), "{values:?}: {found:?}");
        }
        assert!(!of(&["Digest realm=\"x\" Basic"]).basic && !of(&["Digest realm=\"a, Basic\""]).basic);
    }

    #[test]
    fn a_challenge_that_cannot_be_answered_says_why() {
        for (values, reason) in [
            (&[][..], "does not say"),
            (&[""], "does not say"),
            (&["Negotiate abc/d=="], "Negotiate"),
            (&["Digest realm=\"x\"", "AWS4-HMAC-SHA256"], "Digest, AWS4-HMAC-SHA256"),
            (&["Bearer service=\"x\""], "no token service"),
            (&["Bearer realm=\"\""], "no token service"),
            (&["Bearer realm=\"https://a/t"], "cannot be read"),
            (&["\"\""], "cannot be read"),
            (&["realm=\"https://a/t\""], "cannot be read"),
        ] {
            let found = of(values);
            assert!(!found.can_be_answered() && found.obstacle().contains(reason), "{values:?}: {found:?}");
        }
    }
}
