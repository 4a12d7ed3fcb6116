//! The report: CycloneDX 1.6.

use std::collections::{BTreeMap, BTreeSet};

use cofferdam_sdk::Layer;
use serde_json::{Value, json};

use crate::package::Package;
use crate::purl::{Distribution, purl};

/// How many places are named for one package.
const PLACES: usize = 20;

/// What was found, by package URL: the package, and the files that name it.
pub(crate) struct Report {
    components: BTreeMap<String, (Package, BTreeSet<Vec<u8>>)>,
    unread: Vec<Value>,
}

impl Report {
    pub(crate) fn new(
        found: BTreeMap<Vec<u8>, Vec<Package>>,
        release: &[(String, String)],
        unread: &BTreeSet<Vec<u8>>,
    ) -> Self {
        let distribution = Distribution::new(release);
        let mut components: BTreeMap<String, (Package, BTreeSet<Vec<u8>>)> = BTreeMap::new();
        for (path, packages) in found {
            for package in packages {
                let (known, places) = components
                    .entry(purl(&package, &distribution))
                    .or_insert_with(|| (package.clone(), BTreeSet::new()));
                // What is installed says more than what a lock file says.
                known.license = known.license.take().or(package.license);
                if places.len() < PLACES {
                    places.insert(path.clone());
                }
            }
        }
        let unread = unread.iter().map(|path| property("unread", &String::from_utf8_lossy(path))).collect();
        Self { components, unread }
    }

    pub(crate) fn packages(&self) -> usize {
        self.components.len()
    }

    pub(crate) fn to_json(&self, layer: &Layer) -> Vec<u8> {
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
        let components: Vec<Value> = self.components.iter().map(component).collect();
        let mut bom = json!({
            "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
            "bomFormat": "CycloneDX",
            "specVersion": "1.6",
            "version": 1,
            "metadata": {
                "tools": {"components": [
                    {"type": "application", "name": "cofferdam-sbom", "version": env!("CARGO_PKG_VERSION")}
                ]},
                "component": subject,
            },
            "components": components,
        });
        if !self.unread.is_empty() {
            bom["metadata"]["properties"] = self.unread.clone().into();
        }
        bom.to_string().into_bytes()
    }
}

fn component((purl, (package, places)): (&String, &(Package, BTreeSet<Vec<u8>>))) -> Value {
    let mut component = json!({
        "type": "library",
        "bom-ref": purl,
        "name": package.name,
        "version": package.version,
        "purl": purl,
        "evidence": {"occurrences": places
            .iter()
            .map(|path| json!({"location": String::from_utf8_lossy(path)}))
            .collect::<Vec<_>>()},
    });
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
