//! Packages of npm: those that lie in `node_modules`, and those that a lock file names.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::value::MapAccessDeserializer;
use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::package::{Kind, Package, line};

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

/// What an installed package says of itself; nothing if it cannot be read. A manifest without a name or version, such as
/// those that only say what kind of modules lie there, is no package.
pub(crate) fn installed(text: &str) -> Option<Vec<Package>> {
    let manifest: Manifest = object(text)?;
    let package = |manifest: Manifest| {
        let package = Package::new(Kind::Npm, &manifest.name?, &manifest.version?)?;
        Some(Package { license: line(manifest.license.0.as_deref()), ..package })
    };
    Some(package(manifest).into_iter().collect())
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
    #[serde(default)]
    license: License,
    #[serde(default)]
    link: bool,
    /// By name; in `packages` the values are ranges of versions, which are left out here.
    #[serde(default)]
    dependencies: BTreeMap<String, Either<Box<Locked>>>,
}

/// What a lock file names; nothing if it cannot be read.
pub(crate) fn locked(text: &str) -> Option<Vec<Package>> {
    let lock: Lock = object(text)?;
    let mut packages = Vec::new();
    if lock.packages.is_empty() {
        lock.dependencies.into_iter().for_each(|(name, locked)| take(&name, locked, &mut packages));
    } else {
        for (path, locked) in lock.packages {
            if let Some((_, name)) = path.rsplit_once("node_modules/") {
                packages.extend(package(name, &locked));
            }
        }
    }
    Some(packages)
}

fn take(name: &str, locked: Locked, packages: &mut Vec<Package>) {
    packages.extend(package(name, &locked));
    for (name, nested) in locked.dependencies {
        if let Either::Object(locked) = nested {
            take(&name, *locked, packages);
        }
    }
}

fn package(name: &str, locked: &Locked) -> Option<Package> {
    let name = locked.name.as_deref().unwrap_or(name);
    let package = Package::new(Kind::Npm, name, locked.version.as_deref()?).filter(|_| !locked.link)?;
    Some(Package { license: line(locked.license.0.as_deref()), ..package })
}
