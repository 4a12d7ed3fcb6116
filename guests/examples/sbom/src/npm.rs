//! Packages of npm: those that lie in `node_modules`, and those that a lock file names.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::origin;
use crate::package::{Kind, Origin, Package, Reading, line};

#[derive(Deserialize)]
struct Manifest {
    name: Option<String>,
    version: Option<String>,
    #[serde(default)]
    license: License,
}

/// A licence: a name, once also an object with a `type`. What else stands there says nothing.
#[derive(Default)]
struct License(Option<String>);

#[derive(Deserialize)]
struct LicenseObject {
    r#type: Option<String>,
}

impl<'de> Deserialize<'de> for License {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let object: Either<LicenseObject> = Either::deserialize(deserializer)?;
        Ok(Self(match object {
            Either::Text(name) => Some(name),
            Either::Object(object) => object.r#type,
            Either::Other => None,
        }))
    }
}

/// A text, an object that is read, or anything else. Read as it comes: serde's own untagged enums would keep a copy of each
/// object inside of an object.
enum Either<T> {
    Text(String),
    Object(T),
    Other,
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Either<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Any<T> {
            type Value = Either<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any value")
            }

            fn visit_str<E>(self, text: &str) -> Result<Either<T>, E> {
                Ok(Either::Text(text.to_owned()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Either<T>, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map)).map(Either::Object)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Either<T>, A::Error> {
                while items.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Either::Other)
            }

            fn visit_bool<E>(self, _: bool) -> Result<Either<T>, E> {
                Ok(Either::Other)
            }

            fn visit_i64<E>(self, _: i64) -> Result<Either<T>, E> {
                Ok(Either::Other)
            }

            fn visit_u64<E>(self, _: u64) -> Result<Either<T>, E> {
                Ok(Either::Other)
            }

            fn visit_f64<E>(self, _: f64) -> Result<Either<T>, E> {
                Ok(Either::Other)
            }

            fn visit_unit<E>(self) -> Result<Either<T>, E> {
                Ok(Either::Other)
            }
        }

        deserializer.deserialize_any(Any(PhantomData))
    }
}

/// Reads an object, not the array that serde would take for one.
fn object<'a, T: Deserialize<'a>>(text: &'a str) -> Option<T> {
    serde_json::from_str(text).ok().filter(|_| text.trim_start().starts_with('{'))
}

/// What an installed package says of itself. A manifest without a name or version, such as those that only say what kind
/// of modules lie there, is no package.
pub(crate) fn installed(text: &str) -> Reading {
    let Some(manifest) = object::<Manifest>(text) else { return Reading::none() };
    let mut reading = Reading::default();
    let said = |text: Option<String>| text.filter(|text| !text.is_empty());
    if let (Some(name), Some(version)) = (said(manifest.name), said(manifest.version)) {
        let package = Package::new(Kind::Npm, &name, &version);
        reading.take(package.map(|package| Package { license: line(manifest.license.0.as_deref()), ..package }));
    }
    reading
}

#[derive(Deserialize)]
struct Lock {
    /// Since npm 7: by path, such as `node_modules/a/node_modules/b`; the project itself under the empty path.
    #[serde(default)]
    packages: BTreeMap<String, Locked>,
    /// Before: by name, each with its own.
    #[serde(default)]
    dependencies: BTreeMap<String, Locked>,
}

#[derive(Deserialize)]
struct Locked {
    name: Option<String>,
    version: Option<String>,
    /// Where it was fetched from. Before npm 7 the version says so, if that is no registry.
    #[serde(default)]
    resolved: Resolved,
    #[serde(default)]
    license: License,
    #[serde(default)]
    link: bool,
    /// By name; in `packages` the values are ranges of versions, which are left out here.
    #[serde(default)]
    dependencies: BTreeMap<String, Either<Box<Locked>>>,
}

/// A URL, or the path that a link leads to; `false` where npm did not write it down.
#[derive(Default)]
struct Resolved(Option<String>);

impl<'de> Deserialize<'de> for Resolved {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text: Either<IgnoredAny> = Either::deserialize(deserializer)?;
        Ok(Self(if let Either::Text(text) = text { Some(text) } else { None }))
    }
}

/// What a lock file names.
pub(crate) fn locked(text: &str) -> Reading {
    let Some(lock) = object::<Lock>(text) else { return Reading::none() };
    let mut reading = Reading::default();
    if lock.packages.is_empty() {
        lock.dependencies.into_iter().for_each(|(name, locked)| take(&name, locked, &mut reading));
    } else {
        for (path, locked) in lock.packages {
            if let Some((_, name)) = path.rsplit_once("node_modules/") {
                take_one(name, &locked, &mut reading);
            }
        }
    }
    reading
}

fn take(name: &str, locked: Locked, reading: &mut Reading) {
    take_one(name, &locked, reading);
    for (name, nested) in locked.dependencies {
        if let Either::Object(locked) = nested {
            take(&name, *locked, reading);
        }
    }
}

/// Takes what is locked, unless it is a part of the project itself or has no version: what is optional may be unknown.
fn take_one(name: &str, locked: &Locked, reading: &mut Reading) {
    if let Some(version) = locked.version.as_deref().filter(|_| !locked.link) {
        reading.take(package(locked.name.as_deref().unwrap_or(name), version, locked));
    }
}

fn package(name: &str, version: &str, locked: &Locked) -> Option<Package> {
    // An alias in an old lock file: `npm:` and what it stands for, whose name may begin with another `@`.
    let (name, version) =
        version.strip_prefix("npm:").and_then(|real| real.rsplit_once('@')).unwrap_or((name, version));
    let package = if is_version(version) {
        let repository = |resolved: &&str| matches!(origin::of(resolved), Some(Origin::Repository(_)));
        let origin = locked.resolved.0.as_deref().filter(repository).and_then(origin::of);
        Package { origin, ..Package::new(Kind::Npm, name, version)? }
    } else {
        Package { origin: origin::of(version), ..Package::unversioned(Kind::Npm, name)? }
    };
    Some(Package { license: line(locked.license.0.as_deref()), ..package })
}

/// Whether this is a version, such as a registry has, and not the place of an archive or repository.
fn is_version(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-+".contains(&byte);
    text.starts_with(|first: char| first.is_ascii_digit()) && text.bytes().all(plain)
}
