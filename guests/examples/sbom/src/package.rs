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
    /// Nothing where it is not known: a file or a repository has none that its registry would know.
    pub(crate) version: Option<String>,
    pub(crate) architecture: Option<String>,
    pub(crate) license: Option<String>,
    /// Of dpkg and apk: the source package, and its version if that is another.
    pub(crate) source: Option<String>,
    /// Of npm: where it comes from, if that is no registry.
    pub(crate) origin: Option<Origin>,
}

/// Where a package comes from, as a URL without credentials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A repository, and which state of it: `git+https://host/path@commit`.
    Repository(String),
    /// An archive.
    Download(String),
}

/// What was read out of a file.
#[derive(Debug, Default)]
pub(crate) struct Reading {
    pub(crate) packages: Vec<Package>,
    /// Whether something in it could not be read that ought to be a package.
    pub(crate) damaged: bool,
}

/// Longer names and versions are no packages; longer licences are texts.
const LONGEST: usize = 256;

impl Package {
    /// A package, unless the name or version cannot be one's.
    pub(crate) fn new(kind: Kind, name: &str, version: &str) -> Option<Self> {
        let package = Self::unversioned(kind, name)?;
        plain(version).then(|| Self { version: Some(version.to_owned()), ..package })
    }

    /// A package whose version is not known.
    pub(crate) fn unversioned(kind: Kind, name: &str) -> Option<Self> {
        plain(name).then(|| Self {
            kind,
            name: name.to_owned(),
            version: None,
            architecture: None,
            license: None,
            source: None,
            origin: None,
        })
    }
}

impl Reading {
    /// What could not be read at all.
    pub(crate) fn none() -> Self {
        Self { packages: Vec::new(), damaged: true }
    }

    /// Takes a package, or that there ought to be one.
    pub(crate) fn take(&mut self, package: Option<Package>) {
        self.damaged |= package.is_none();
        self.packages.extend(package);
    }
}

fn plain(text: &str) -> bool {
    !text.is_empty() && text.len() <= LONGEST && !text.contains(char::is_control)
}

/// The text of an optional field, if it is one short line.
pub(crate) fn line(text: Option<&str>) -> Option<String> {
    text.map(str::trim).filter(|text| plain(text)).map(str::to_owned)
}
