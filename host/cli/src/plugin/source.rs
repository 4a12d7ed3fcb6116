//! Where a plugin's component is read from.

use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use cofferdam::plugin::{PluginManifest, manifest_in, pack};
use cofferdam::registry::{NetworkOptions, Registries, RetryPolicy, fetch_plugin};
use cofferdam::transport::OciLayout;
use cofferdam::{Digest, Error, ambient};

use crate::args::AccessArgs;
use crate::environment;
use crate::failure::{Failure, usage};
use crate::image_name::ImageName;
use crate::interrupt;
use crate::session::{Session, shown};

/// The manifest's name in a directory.
const MANIFEST: &str = "plugin.toml";

/// A plugin as it was named on the command line.
pub(super) enum Source {
    /// A component, or a directory with a manifest that names one.
    File(PathBuf),
    /// An artifact in a registry or a layout.
    Artifact(String),
}

/// A component that carries its manifest, and where it came from.
pub(super) struct Found {
    pub(super) component: Vec<u8>,
    pub(super) manifest: PluginManifest,
    pub(super) source: String,
}

impl Source {
    /// What is a path is one: with a slash in front, a dot in front, or the ending of a component. All else names an artifact.
    pub(super) fn parse(text: &str) -> Self {
        let is_path =
            text.starts_with(['/', '.']) || Path::new(text).extension().is_some_and(|ending| ending == "wasm");
        if is_path && !text.starts_with("oci:") { Self::File(text.into()) } else { Self::Artifact(text.to_owned()) }
    }

    /// Whether a registry is asked.
    pub(super) fn needs_network(&self) -> bool {
        matches!(self, Self::Artifact(name) if !name.starts_with("oci:"))
    }

    /// The path that is read, if one is.
    pub(super) fn path(&self) -> Option<PathBuf> {
        match self {
            Self::File(path) => Some(path.clone()),
            Self::Artifact(name) => match ImageName::parse(name) {
                Ok(ImageName::Layout(path, _)) => Some(path),
                _ => None,
            },
        }
    }

    /// Reads it.
    pub(super) fn read(&self, session: &Session, access: &AccessArgs) -> Result<Found, Failure> {
        let (component, source) = match self {
            Self::File(path) => {
                access.refuse(&shown(path))?;
                (from_files(session, path)?, shown(&ambient::absolute(path)?))
            }
            Self::Artifact(name) => {
                is_no_path(name)?;
                from_artifact(session, name, access)?
            }
        };
        let manifest = manifest_in(&component)?.ok_or_else(|| {
            let hint = "put a plugin.toml beside it, and give the directory: cofferdam plugin add DIR";
            usage(format!("{source} carries no manifest"), Some(hint.into()))
        })?;
        Ok(Found { component, manifest, source })
    }
}

/// A component by its file, or by the directory of its manifest, which is packed into it.
fn from_files(session: &Session, path: &Path) -> Result<Vec<u8>, Failure> {
    // A file, unless it is a directory: what cannot be opened as one says so itself.
    let manifest_path = path.join(MANIFEST);
    let (component, text) = match read(session, &manifest_path) {
        Ok(bytes) => {
            let text =
                String::from_utf8(bytes).map_err(|_| usage(format!("{} is not UTF-8", shown(&manifest_path)), None))?;
            let manifest = PluginManifest::parse(&text)
                .map_err(|error| error.context(format!("reading {}", shown(&manifest_path))))?;
            let file = manifest.component.unwrap_or_else(|| format!("{}.wasm", manifest.name));
            if file.contains('/') {
                return Err(usage("`component` names a file beside the manifest, without a path", None));
            }
            (read(session, &path.join(file))?, Some(text))
        }
        Err(error) if matches!(error.root(), Error::NotFound { .. }) || is_no_directory(&error) => {
            (read(session, path)?, None)
        }
        Err(error) => return Err(error.into()),
    };
    match text {
        Some(text) if manifest_in(&component)?.is_none() => Ok(pack(component, &text)?),
        _ => Ok(component),
    }
}

fn is_no_directory(error: &Error) -> bool {
    matches!(error.root(), Error::Io { source, .. } if source.kind() == std::io::ErrorKind::NotADirectory)
}

/// Refuses the name of an artifact that is a path here too: somebody in a registry could have taken the name.
fn is_no_path(name: &str) -> Result<(), Failure> {
    let relative = Path::new(name);
    if name.contains(':') || ambient::canonical(relative).is_err() {
        return Ok(());
    }
    let hint = format!("give the path as ./{name}, or the artifact as docker://{name}");
    Err(usage(format!("`{name}` is a path here, and may be the name of an artifact"), Some(hint)))
}

fn read(session: &Session, path: &Path) -> cofferdam::Result<Vec<u8>> {
    let limit = session.limits().plugin_bytes;
    let mut bytes = Vec::new();
    ambient::open_file(path)?
        .take(limit.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(|error| Error::io("read", path.as_os_str().as_bytes(), error))?;
    if bytes.len() as u64 > limit {
        return Err(Error::Limit { subject: shown(path), what: "bytes in a plugin's component", limit });
    }
    Ok(bytes)
}

/// A component from a registry or a layout, with the digest that it is pinned to.
fn from_artifact(session: &Session, name: &str, access: &AccessArgs) -> Result<(Vec<u8>, String), Failure> {
    let (limits, retry) = (session.limits(), RetryPolicy::default());
    let artifact = match ImageName::parse(name)? {
        ImageName::Layout(_, layout) => {
            access.refuse(name)?;
            let layout = OciLayout::open(layout, limits.clone())?;
            interrupt::block_on(fetch_plugin(&layout, &limits, &retry))?
        }
        ImageName::Reference(plain) | ImageName::Registry(plain) => {
            let mut network = NetworkOptions::default();
            environment::proxies(&mut network)?;
            let logins = crate::pull::logins(access)?;
            let registries = Registries::new(crate::pull::access_list(access, &logins)?, network, limits.clone())?;
            let source = registries.search(&plain, &[])?;
            interrupt::block_on(fetch_plugin(&source, &limits, &retry))?
        }
    };
    let pinned = |digest: &Digest| format!("{}@{digest}", name.split('@').next().unwrap_or(name));
    Ok((artifact.component, if name.starts_with("oci:") { name.to_owned() } else { pinned(&artifact.manifest) }))
}
