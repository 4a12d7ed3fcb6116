//! Packages of Python: `METADATA` of wheels, `PKG-INFO` of eggs.

use crate::fields::stanzas;
use crate::package::{Kind, Package, Reading, line};

/// The package that the metadata describe.
pub(crate) fn packages(text: &str) -> Reading {
    let mut reading = Reading::default();
    reading.take(package(text));
    reading
}

fn package(text: &str) -> Option<Package> {
    let fields = stanzas(text).next()?;
    let package = Package::new(Kind::Python, fields.get("Name")?, fields.get("Version")?)?;
    let license = line(fields.get("License-Expression")).or_else(|| line(fields.get("License")));
    Some(Package { license: license.filter(|license| license != "UNKNOWN"), ..package })
}
