//! Names: references, hosts, digests, platforms and layouts.

use cofferdam_core::Digest;
use cofferdam_documents::{LayoutName, LayoutSelector, Platform, Reference, RegistryHost};

use crate::claim::is_for_people;
use crate::stats::Stats;

static STATS: Stats<4> = Stats::new(["references", "digests", "other names", "no name at all"]);

/// Reads text as each of the names.
pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut outcome = 3;
    if platform(text) | layout(text) {
        outcome = 2;
    }
    if digest(text) {
        outcome = 1;
    }
    if reference(text) {
        outcome = 0;
    }
    STATS.count(outcome);
}

fn reference(text: &str) -> bool {
    let search = ["localhost:5000", "example.org"].map(|host| host.parse::<RegistryHost>().expect("a host"));
    let reference = match text.parse::<Reference>() {
        Ok(reference) => reference,
        Err(error) => {
            is_for_people(&error);
            assert!(Reference::candidates(text, &search).is_err() || long(text), "{text:?}");
            return false;
        }
    };
    // Printed in full it means the same, to whoever reads it.
    let shown = reference.to_string();
    assert_eq!(shown.parse::<Reference>().ok().as_ref(), Some(&reference), "{shown}");
    assert_eq!(Reference::candidates(&shown, &search).expect("a reference"), std::slice::from_ref(&reference));
    // A client reads it as it is written, so that no rule for another host would be for this one.
    let reached = RegistryHost::reached_by(reference.registry().as_str()).expect("a registry");
    let (host, _) = reached.parts();
    assert_eq!(&reached, reference.registry());
    assert!(reference.registry().as_str().starts_with(host), "{host}");
    let (authority, key) = (reference.registry().authority(), reference.manifest_key());
    assert!(
        authority.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b".-:[]".contains(&b)),
        "{authority}"
    );
    assert!(!authority.is_empty() && !authority.contains(".."), "{authority}");
    let repository = reference.repository();
    assert!((1..=255).contains(&repository.len()));
    for component in repository.split('/') {
        assert!(
            component.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b)),
            "{repository}"
        );
        assert!(component.starts_with(|c: char| c.is_ascii_alphanumeric()), "{repository}");
        assert!(component.ends_with(|c: char| c.is_ascii_alphanumeric()), "{repository}");
        assert!(!component.contains(".."), "{repository}");
    }
    assert!(!key.starts_with(['.', '-']) && !key.is_empty() && key.len() <= 7 + 128, "{key}");
    assert!(key.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-:".contains(&b)), "{key}");
    for candidate in Reference::candidates(text, &search).into_iter().flatten() {
        assert_eq!((candidate.tag(), candidate.digest()), (reference.tag(), reference.digest()));
    }
    true
}

/// `library/` may make a name too long for one registry that is none for another.
fn long(text: &str) -> bool {
    text.len() > 240
}

fn digest(text: &str) -> bool {
    if let Some(digest) = Digest::from_file_stem(text) {
        assert_eq!(digest.file_stem(), text);
    }
    match text.parse::<Digest>() {
        Ok(digest) => {
            assert_eq!(digest.to_string(), text);
            let stem = digest.file_stem();
            assert!(stem.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'), "{stem}");
            assert_eq!(Digest::from_file_stem(&stem), Some(digest));
            true
        }
        Err(error) => {
            is_for_people(&error);
            false
        }
    }
}

fn platform(text: &str) -> bool {
    match text.parse::<Platform>() {
        Ok(platform) => {
            let shown = platform.to_string();
            let again = shown.parse::<Platform>().ok();
            assert_eq!(again.as_ref(), Some(&platform), "{text:?} is shown as {shown:?}");
            assert_eq!(platform.distance(&platform), Some(0));
            true
        }
        Err(error) => {
            is_for_people(&error);
            false
        }
    }
}

fn layout(text: &str) -> bool {
    match text.parse::<LayoutName>() {
        Ok(name) => {
            assert!(!name.path().as_os_str().is_empty());
            if let LayoutSelector::Tag(tag) = name.selector() {
                assert!((1..=512).contains(&tag.len()) && tag.bytes().all(|b| b.is_ascii_graphic()));
            }
            !matches!(name.selector(), LayoutSelector::Only)
        }
        Err(error) => {
            is_for_people(&error);
            false
        }
    }
}
