//! The database of apk: `P:name`, `V:version`, `A:architecture`, `L:licence`, `o:origin`, a blank line behind each package.

use crate::package::{Kind, Package, line};

pub(crate) fn packages(text: &str) -> Vec<Package> {
    let package = |block: &str| {
        let get = |field: &str| block.lines().find_map(|line| line.strip_prefix(field));
        let package = Package::new(Kind::Apk, get("P:")?, get("V:")?)?;
        Some(Package { architecture: line(get("A:")), license: line(get("L:")), source: line(get("o:")), ..package })
    };
    text.split("\n\n").filter_map(package).collect()
}
