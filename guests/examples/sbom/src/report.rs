//! The report: CycloneDX 1.6.

use std::collections::{BTreeMap, BTreeSet};

use cofferdam_sdk::Layer;
use serde_json::{Value, json};

use crate::package::{Kind, Package};
use crate::purl::{Distribution, Name};

/// How many places are named for one package.
const PLACES: usize = 20;

/// Files that were not read.
#[derive(Default)]
pub(crate) struct Unread {
    pub(crate) paths: BTreeSet<Vec<u8>>,
    /// Whether there are more than are named.
    pub(crate) more: bool,
}

/// What was found, by name: the package, and the files that name it.
pub(crate) struct Report {
    components: BTreeMap<Name, (Package, BTreeSet<Vec<u8>>)>,
    properties: Vec<Value>,
}

impl Report {
    pub(crate) fn new(found: BTreeMap<Vec<u8>, Vec<Package>>, distribution: &Distribution, unread: &Unread) -> Self {
        let mut components: BTreeMap<Name, (Package, BTreeSet<Vec<u8>>)> = BTreeMap::new();
        for (path, packages) in found {
            for mut package in packages {
                let license = package.license.take();
                let name = Name::of(&package, distribution);
                let (known, places) = components.entry(name).or_insert_with(|| (package, BTreeSet::new()));
                // What is installed says more than what a lock file says.
                known.license = known.license.take().or(license);
                if places.len() < PLACES {
                    places.insert(path.clone());
                }
            }
        }
        let text = |path: &Vec<u8>| property("unread", &String::from_utf8_lossy(path));
        let mut properties: Vec<_> = unread.paths.iter().map(text).collect();
        if unread.more {
            properties.push(property("unread-more", "true"));
        }
        let nowhere = |name: &Name, package: &Package| {
            matches!(name, Name::Local(_)) && matches!(package.kind, Kind::Deb | Kind::Apk)
        };
        if components.iter().any(|(name, (package, _))| nowhere(name, package)) {
            properties.push(property("distribution", "unknown"));
        }
        Self { components, properties }
    }

    pub(crate) fn packages(&self) -> usize {
        self.components.len()
    }

    /// Writes the report, of about so many bytes: one component after another, since all of them at once as values would not
    /// fit into the memory of a plugin.
    pub(crate) fn to_json(&self, layer: &Layer, bytes: usize) -> Vec<u8> {
        let mut subject = json!({
            "type": "file",
            "name": if layer.digest.is_empty() { "layer" } else { &layer.digest },
        });
        if !layer.media_type.is_empty() {
            subject["mime-type"] = layer.media_type.as_str().into();
        }
        if let Some(hash) = layer.digest.strip_prefix("sha256:") {
            subject["hashes"] = json!([{"alg": "SHA-256", "content": hash}]);
        }
        let mut metadata = json!({
            "tools": {"components": [
                {"type": "application", "name": "cofferdam-sbom", "version": env!("CARGO_PKG_VERSION")}
            ]},
            "component": subject,
        });
        if !self.properties.is_empty() {
            metadata["properties"] = self.properties.clone().into();
        }
        let mut report = Vec::with_capacity(bytes + (64 << 10));
        report.extend_from_slice(
            br#"{"$schema":"http://cyclonedx.org/schema/bom-1.6.schema.json","bomFormat":"CycloneDX","specVersion":"1.6","version":1,"metadata":"#,
        );
        report.extend_from_slice(metadata.to_string().as_bytes());
        report.extend_from_slice(br#","components":["#);
        for (number, (name, (package, places))) in self.components.iter().enumerate() {
            if number > 0 {
                report.push(b',');
            }
            report.extend_from_slice(component(name, package, places.iter()).to_string().as_bytes());
        }
        report.extend_from_slice(b"]}");
        report
    }
}

/// How many bytes of the report a package takes at most that is found in this one place.
pub(crate) fn bytes(package: &Package, path: &Vec<u8>) -> usize {
    // The distribution is not known yet.
    component(&Name::of(package, &Distribution::longest()), package, [path].into_iter()).to_string().len()
}

fn component<'a>(name: &Name, package: &Package, places: impl Iterator<Item = &'a Vec<u8>>) -> Value {
    let mut component = json!({
        "type": "library",
        "bom-ref": name.text(),
        "name": package.name,
        "evidence": {"occurrences": places
            .map(|path| json!({"location": String::from_utf8_lossy(path)}))
            .collect::<Vec<_>>()},
    });
    if let Some(version) = &package.version {
        component["version"] = version.as_str().into();
    }
    if let Name::Url(url) = name {
        component["purl"] = url.as_str().into();
    }
    if let Some(license) = &package.license {
        component["licenses"] = json!([{"license": {"name": license}}]);
    }
    if let Some(source) = &package.source {
        component["properties"] = json!([property("source", source)]);
    }
    component
}

fn property(name: &str, value: &str) -> Value {
    json!({"name": format!("cofferdam:sbom:{name}"), "value": value})
}
