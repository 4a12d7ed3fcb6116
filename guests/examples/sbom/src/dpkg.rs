//! The database of dpkg: `status`, and the files of `status.d` in distroless images, which have no `Status`.

use crate::fields::{Stanza, stanzas};
use crate::package::{Kind, Package, Reading, line};

pub(crate) fn packages(text: &str) -> Reading {
    let mut reading = Reading::default();
    for stanza in stanzas(text) {
        // `want flag state`. In all other states, also those between two steps of an installation, files are there.
        let state = stanza.get("Status").and_then(|status| status.split_whitespace().last());
        if stanza.get("Package").is_none() || !matches!(state, Some("not-installed" | "config-files")) {
            reading.take(package(&stanza));
        }
    }
    // What has no fields has no stanzas either.
    reading.damaged |= reading.packages.is_empty() && stanzas(text).next().is_none() && !text.trim().is_empty();
    reading
}

fn package(stanza: &Stanza<'_>) -> Option<Package> {
    let package = Package::new(Kind::Deb, stanza.get("Package")?, stanza.get("Version")?)?;
    let (architecture, source) = (line(stanza.get("Architecture")), line(stanza.get("Source")));
    Some(Package { architecture, source, ..package })
}
