//! Package URLs, <https://github.com/package-url/purl-spec>.

use crate::package::{Kind, Package};

/// Which distribution a layer belongs to, as far as its `os-release` says.
#[derive(Clone, Debug, Default)]
pub(crate) struct Distribution {
    id: Option<String>,
    version: Option<String>,
}

impl Distribution {
    /// What both are at most in a URL.
    pub(crate) const LONGEST: usize = 3 * (2 * 32 + 1);

    pub(crate) fn new(release: &[(String, String)]) -> Self {
        let get = |name: &str| {
            let (_, value) = release.iter().find(|(n, _)| n == name)?;
            (!value.is_empty() && value.len() <= 32 && value.is_ascii()).then(|| value.to_ascii_lowercase())
        };
        Self { id: get("ID"), version: get("VERSION_ID") }
    }

    /// The vendor of its packages. A layer without an `os-release` does not say; most are of these two.
    fn vendor(&self, kind: Kind) -> &str {
        self.id.as_deref().unwrap_or(if kind == Kind::Apk { "alpine" } else { "debian" })
    }
}

/// The URL of a package.
pub(crate) fn purl(package: &Package, distribution: &Distribution) -> String {
    let version = encode(&package.version);
    match package.kind {
        Kind::Npm => {
            let name = package.name.to_lowercase();
            let (scope, name) = name.split_once('/').map_or((None, name.as_str()), |(scope, name)| (Some(scope), name));
            let scope = scope.map(|scope| format!("{}/", encode(scope))).unwrap_or_default();
            format!("pkg:npm/{scope}{}@{version}", encode(name))
        }
        Kind::Python => format!("pkg:pypi/{}@{version}", encode(&package.name.to_lowercase().replace('_', "-"))),
        Kind::Deb | Kind::Apk => {
            let kind = if package.kind == Kind::Deb { "deb" } else { "apk" };
            let vendor = distribution.vendor(package.kind);
            let mut qualifiers = Vec::new();
            if let Some(architecture) = &package.architecture {
                qualifiers.push(format!("arch={}", encode(architecture)));
            }
            if let (Some(id), Some(version)) = (&distribution.id, &distribution.version) {
                qualifiers.push(format!("distro={}", encode(&format!("{id}-{version}"))));
            }
            let mark = if qualifiers.is_empty() { "" } else { "?" };
            let name = encode(&package.name.to_lowercase());
            format!("pkg:{kind}/{}/{name}@{version}{mark}{}", encode(vendor), qualifiers.join("&"))
        }
    }
}

/// Percent-encodes all but what the specification leaves as it is.
fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b".-_~:".contains(&byte) {
            encoded.push(byte.into());
        } else {
            let digit = |value: u8| char::from_digit(value.into(), 16).unwrap_or_default().to_ascii_uppercase();
            encoded.extend(['%', digit(byte >> 4), digit(byte & 15)]);
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_as_the_specification_writes_them() {
        let bookworm = [("ID".to_owned(), "debian".to_owned()), ("VERSION_ID".to_owned(), "12".to_owned())];
        let debian = Distribution::new(&bookworm);
        let none = Distribution::default();
        let url = |kind, name: &str, version: &str, architecture: Option<&str>, distribution: &Distribution| {
            let package = Package::new(kind, name, version).expect("a package");
            purl(&Package { architecture: architecture.map(str::to_owned), ..package }, distribution)
        };
        for (made, wanted) in [
            (
                url(Kind::Deb, "libstdc++6", "1:12.2.0-14+deb12u1", Some("amd64"), &debian),
                "pkg:deb/debian/libstdc%2B%2B6@1:12.2.0-14%2Bdeb12u1?arch=amd64&distro=debian-12",
            ),
            (url(Kind::Deb, "dpkg", "1.21", None, &none), "pkg:deb/debian/dpkg@1.21"),
            (
                url(Kind::Apk, "busybox", "1.36.1-r5", Some("x86_64"), &none),
                "pkg:apk/alpine/busybox@1.36.1-r5?arch=x86_64",
            ),
            (url(Kind::Npm, "@babel/core", "7.0.0", None, &debian), "pkg:npm/%40babel/core@7.0.0"),
            (url(Kind::Npm, "left-pad", "1.3.0", None, &none), "pkg:npm/left-pad@1.3.0"),
            (url(Kind::Python, "Foo_Bar", "1.0+x", None, &none), "pkg:pypi/foo-bar@1.0%2Bx"),
        ] {
            assert_eq!(made, wanted);
        }
    }
}
