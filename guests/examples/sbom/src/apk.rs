//! The database of apk: `P:name`, `V:version`, `A:architecture`, `L:licence`, `o:origin`, a blank line behind each package.

use crate::package::{Kind, Package, Reading, line};

pub(crate) fn packages(text: &str) -> Reading {
    let mut reading = Reading::default();
    let lines: Vec<&str> = text.lines().collect();
    for block in lines.split(|line| line.trim().is_empty()).filter(|block| !block.is_empty()) {
        reading.take(package(block));
    }
    reading
}

fn package(block: &[&str]) -> Option<Package> {
    let get = |field: &str| block.iter().find_map(|line| line.strip_prefix(field)).map(str::trim);
    let package = Package::new(Kind::Apk, get("P:")?, get("V:")?)?;
    Some(Package { architecture: line(get("A:")), license: line(get("L:")), source: line(get("o:")), ..package })
}
