//! The database of dpkg: `status`, and the files of `status.d` in distroless images, which have no `Status`.

use crate::fields::stanzas;
use crate::package::{Kind, Package, line};

pub(crate) fn packages(text: &str) -> Vec<Package> {
    let package = |stanza: crate::fields::Stanza<'_>| {
        let installed = stanza.get("Status").is_none_or(|status| status.ends_with(" installed"));
        let package = Package::new(Kind::Deb, stanza.get("Package")?, stanza.get("Version")?)?;
        installed.then(|| Package {
            architecture: line(stanza.get("Architecture")),
            source: line(stanza.get("Source")),
            ..package
        })
    };
    stanzas(text).filter_map(package).collect()
}
