//! A package, of whatever kind.

/// Who installed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Deb,
    Apk,
    Npm,
    Python,
}

/// A package as its installer describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Package {
    pub(crate) kind: Kind,
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) architecture: Option<String>,
    pub(crate) license: Option<String>,
    /// Of dpkg and apk: the source package, and its version if that is another.
    pub(crate) source: Option<String>,
}

/// Longer names and versions are no packages; longer licences are texts.
const LONGEST: usize = 256;

impl Package {
    /// A package, unless the name or version cannot be one's.
    pub(crate) fn new(kind: Kind, name: &str, version: &str) -> Option<Self> {
        let plain = |text: &str| !text.is_empty() && text.len() <= LONGEST && !text.contains(char::is_control);
        (plain(name) && plain(version)).then(|| Self {
            kind,
            name: name.to_owned(),
            version: version.to_owned(),
            architecture: None,
            license: None,
            source: None,
        })
    }
}

/// The text of an optional field, if it is one short line.
pub(crate) fn line(text: Option<&str>) -> Option<String> {
    let text = text?.trim();
    (!text.is_empty() && text.len() <= LONGEST && !text.contains(char::is_control)).then(|| text.to_owned())
}
