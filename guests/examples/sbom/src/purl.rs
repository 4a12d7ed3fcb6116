//! Package URLs, <https://github.com/package-url/purl-spec>.

use crate::package::{Kind, Origin, Package};

/// Which distribution a layer belongs to, as far as its `os-release` or the setting says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Distribution {
    id: Option<String>,
    version: Option<String>,
}

/// What both are at most.
const LONGEST: usize = 32;

impl Distribution {
    /// What `os-release` says, if it names one.
    pub(crate) fn of_release(release: &[(String, String)]) -> Option<Self> {
        let get = |name: &str| {
            let (_, value) = release.iter().find(|(n, _)| n == name)?;
            (!value.is_empty() && value.len() <= LONGEST && value.is_ascii()).then(|| value.to_ascii_lowercase())
        };
        get("ID").map(|id| Self { id: Some(id), version: get("VERSION_ID") })
    }

    /// Reads `ubuntu` or `ubuntu-24.04`: what is behind the last hyphen is the version if it begins with a digit.
    pub(crate) fn of_setting(text: &str) -> Option<Self> {
        let (id, version) = match text.rsplit_once('-') {
            Some((id, version)) if version.starts_with(|first: char| first.is_ascii_digit()) => (id, Some(version)),
            _ => (text, None),
        };
        let plain = |text: &str| {
            let letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte);
            !text.is_empty() && text.len() <= LONGEST && text.bytes().all(letter)
        };
        let valid = plain(id) && version.is_none_or(plain);
        valid.then(|| Self { id: Some(id.to_owned()), version: version.map(str::to_owned) })
    }

    /// The one whose name takes the most bytes in a URL.
    pub(crate) fn longest() -> Self {
        let name = Some(" ".repeat(LONGEST));
        Self { id: name.clone(), version: name }
    }
}

/// What a package is called in the report.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Name {
    /// Its package URL.
    Url(String),
    /// Something like it. A URL would say that this is a package of a certain distribution, or of the registry, and here
    /// nobody knows that.
    Local(String),
}

impl Name {
    pub(crate) fn of(package: &Package, distribution: &Distribution) -> Self {
        let version = package.version.as_ref().map(|version| format!("@{}", encode(version))).unwrap_or_default();
        let name = package.name.to_lowercase();
        match package.kind {
            Kind::Npm => {
                let (scope, name) =
                    name.split_once('/').map_or((None, name.as_str()), |(scope, name)| (Some(scope), name));
                let scope = scope.map(|scope| format!("{}/", encode(scope))).unwrap_or_default();
                let rest = format!("{scope}{}{version}", encode(name));
                match &package.origin {
                    Some(Origin::Repository(url)) => Self::Url(format!("pkg:npm/{rest}?vcs_url={}", encode(url))),
                    Some(Origin::Download(url)) => Self::Url(format!("pkg:npm/{rest}?download_url={}", encode(url))),
                    None if package.version.is_none() => Self::Local(format!("npm/{rest}")),
                    None => Self::Url(format!("pkg:npm/{rest}")),
                }
            }
            Kind::Python => Self::Url(format!("pkg:pypi/{}{version}", encode(&name.replace('_', "-")))),
            Kind::Deb | Kind::Apk => {
                let kind = if package.kind == Kind::Deb { "deb" } else { "apk" };
                let mut qualifiers = Vec::new();
                if let Some(architecture) = &package.architecture {
                    qualifiers.push(format!("arch={}", encode(architecture)));
                }
                if let (Some(id), Some(version)) = (&distribution.id, &distribution.version) {
                    qualifiers.push(format!("distro={}", encode(&format!("{id}-{version}"))));
                }
                let mark = if qualifiers.is_empty() { "" } else { "?" };
                let rest = format!("{}{version}{mark}{}", encode(&name), qualifiers.join("&"));
                match &distribution.id {
                    Some(vendor) => Self::Url(format!("pkg:{kind}/{}/{rest}", encode(vendor))),
                    None => Self::Local(format!("{kind}/{rest}")),
                }
            }
        }
    }

    pub(crate) fn text(&self) -> &str {
        let (Self::Url(text) | Self::Local(text)) = self;
        text
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

    fn name(package: Option<Package>, distribution: &Distribution) -> Name {
        Name::of(&package.expect("a package"), distribution)
    }

    #[test]
    fn urls_are_as_the_specification_writes_them() {
        let bookworm = [("ID".to_owned(), "debian".to_owned()), ("VERSION_ID".to_owned(), "12".to_owned())];
        let debian = Distribution::of_release(&bookworm).expect("it has an ID");
        let alpine = Distribution::of_setting("alpine").expect("a name");
        let url = |kind, name: &str, version: &str, architecture: Option<&str>, distribution: &Distribution| {
            let package = Package::new(kind, name, version).expect("a package");
            Name::of(&Package { architecture: architecture.map(str::to_owned), ..package }, distribution)
        };
        for (made, wanted) in [
            (
                url(Kind::Deb, "libstdc++6", "1:12.2.0-14+deb12u1", Some("amd64"), &debian),
                "pkg:deb/debian/libstdc%2B%2B6@1:12.2.0-14%2Bdeb12u1?arch=amd64&distro=debian-12",
            ),
            (
                url(Kind::Apk, "busybox", "1.36.1-r5", Some("x86_64"), &alpine),
                "pkg:apk/alpine/busybox@1.36.1-r5?arch=x86_64",
            ),
            (url(Kind::Npm, "@babel/core", "7.0.0", None, &debian), "pkg:npm/%40babel/core@7.0.0"),
            (url(Kind::Npm, "left-pad", "1.3.0", None, &alpine), "pkg:npm/left-pad@1.3.0"),
            (url(Kind::Python, "Foo_Bar", "1.0+x", None, &debian), "pkg:pypi/foo-bar@1.0%2Bx"),
        ] {
            assert_eq!(made, Name::Url(wanted.to_owned()));
        }
    }

    #[test]
    fn without_a_distribution_there_is_no_url() {
        let none = Distribution::default();
        assert_eq!(name(Package::new(Kind::Deb, "dpkg", "1.21"), &none), Name::Local("deb/dpkg@1.21".to_owned()));
        assert_eq!(name(Package::new(Kind::Apk, "a+", "1"), &none), Name::Local("apk/a%2B@1".to_owned()));
    }

    #[test]
    fn what_is_from_no_registry_says_where_it_is_from() {
        let url = |origin: Origin| {
            let package = Package::unversioned(Kind::Npm, "@s/a").expect("a package");
            Name::of(&Package { origin: Some(origin), ..package }, &Distribution::default()).text().to_owned()
        };
        assert_eq!(
            url(Origin::Repository("git+ssh://git@host/a.git@12ab".to_owned())),
            "pkg:npm/%40s/a?vcs_url=git%2Bssh:%2F%2Fgit%40host%2Fa.git%4012ab"
        );
        assert_eq!(
            url(Origin::Download("https://host/a.tgz".to_owned())),
            "pkg:npm/%40s/a?download_url=https:%2F%2Fhost%2Fa.tgz"
        );
        let nowhere = name(Package::unversioned(Kind::Npm, "@s/a"), &Distribution::default());
        assert_eq!(nowhere, Name::Local("npm/%40s/a".to_owned()));
    }

    #[test]
    fn a_setting_names_a_distribution() {
        let parts = |text| Distribution::of_setting(text).map(|d| (d.id.unwrap_or_default(), d.version));
        let of = |id: &str, version: Option<&str>| Some((id.to_owned(), version.map(str::to_owned)));
        assert_eq!(parts("ubuntu-24.04"), of("ubuntu", Some("24.04")));
        assert_eq!(parts("ubuntu"), of("ubuntu", None));
        assert_eq!(parts("linux-mint-21"), of("linux-mint", Some("21")));
        assert_eq!(parts("linux-mint"), of("linux-mint", None));
        for wrong in ["Ubuntu", "ubuntu 24.04", "-24.04", "debian/12", "é", &"x".repeat(33)] {
            assert_eq!(parts(wrong), None, "{wrong}");
        }
    }
}
