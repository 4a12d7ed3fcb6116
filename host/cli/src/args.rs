//! The command line, defined once: help and completions are generated from it.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand, ValueEnum};
use cofferdam::Digest;
use cofferdam::limits::Unit;
use cofferdam::registry::RegistryHost;
use cofferdam::store::Durability;
use cofferdam::transport::Platform;
use cofferdam::tree::Lossy;

use crate::failure::{Failure, usage};

mod plugin;

pub(crate) use plugin::{AskArgs, PluginAddArgs, PluginCommand, PluginGrantArgs, PluginRevokeArgs, PluginTestArgs};

/// An OCI image store in which no native code parses an untrusted byte of a layer.
#[derive(Debug, Parser)]
#[command(name = "cofferdam", version, propagate_version = true, max_term_width = 100)]
#[command(after_help = "Exit codes: 0 ok, 1 failed, 2 usage, 3 not found, 4 authentication, 5 network, 6 integrity, \
7 refused (hostile or invalid content, limit, policy), 8 busy, 130 interrupted.")]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of every verb.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Global {
    /// Directory of the image store [default: `/var/lib/cofferdam` for root, else `$XDG_DATA_HOME/cofferdam`]
    #[arg(long, global = true, value_name = "DIR", env = "COFFERDAM_STORE")]
    pub(crate) store: Option<PathBuf>,
    /// Raise or lower a limit, as in `entries=8M` or `layer-bytes=64GiB`; `cofferdam limits` lists them (repeatable, all in
    /// one place; also `COFFERDAM_LIMITS`, separated by commas)
    #[arg(long, global = true, value_name = "NAME=VALUE")]
    pub(crate) limit: Vec<String>,
    /// The file that sets limits and the policy [default: `$XDG_CONFIG_HOME/cofferdam/config.toml`, if it is there]; that of the
    /// machine, `/etc/cofferdam/config.toml`, is read before it in any case
    #[arg(long, global = true, value_name = "FILE", env = "COFFERDAM_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// Whether the kernel is to confine this process to what its verb needs (Landlock)
    #[arg(long, global = true, value_name = "WHETHER", default_value = "auto")]
    pub(crate) confine: Confine,
    /// Print one JSON object instead of text
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// How progress is shown, on stderr
    #[arg(long, global = true, value_name = "STYLE", default_value = "auto")]
    pub(crate) progress: ProgressStyle,
    /// No progress, and no messages but errors
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub(crate) quiet: bool,
    /// More messages; twice for all
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub(crate) verbose: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Confine {
    /// As far as it can
    Auto,
    /// Yes, or do nothing at all
    Require,
    /// No
    Off,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProgressStyle {
    /// A bar on a terminal, a line now and then elsewhere
    Auto,
    /// A bar
    Bar,
    /// A line now and then
    Plain,
    /// JSON lines
    Json,
    /// Nothing
    None,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Fetch, verify and extract an image into the store
    Pull(PullArgs),
    /// Make an image's root filesystem
    Unpack(UnpackArgs),
    /// Print what to give to overlayfs to mount an image without copying it
    MountSpec(MountSpecArgs),
    /// List the images in the store
    Images,
    /// Show what is known of an image
    Inspect {
        /// The image: a reference in the store, or the digest of its manifest
        image: String,
    },
    /// Remove images from the store, and free what no other image needs
    Rm {
        /// The images: references in the store, or digests of their manifests
        #[arg(required = true)]
        images: Vec<String>,
    },
    /// Give an image in the store a further name
    Tag {
        /// The image: a reference in the store, or the digest of its manifest
        image: String,
        /// The name; what it stood for before loses it
        name: String,
    },
    /// Free what no image and no running operation needs
    Gc(GcArgs),
    /// Show what the store takes on disk, and for whom
    Df,
    /// Check that all in the store is what it says it is
    Fsck(FsckArgs),
    /// Work on one layer, without a store
    #[command(subcommand)]
    Layer(LayerCommand),
    /// The sandboxed components that read layers
    #[command(subcommand)]
    Guest(GuestCommand),
    /// Components that extend this program, and what they may do
    #[command(subcommand)]
    Plugin(PluginCommand),
    /// List the limits, with the values that they have
    Limits,
    /// Print a script that completes this command's words in a shell
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct FsckArgs {
    /// Repair what can be repaired without a network
    #[arg(long)]
    pub(crate) repair: bool,
    /// Decode all layers that images need, and compare them with their `DiffIDs`
    #[arg(long)]
    pub(crate) deep: bool,
    /// How many things are checked at once [default: as many as there are processors, at most 4]
    #[arg(long, value_name = "COUNT")]
    pub(crate) jobs: Option<NonZeroUsize>,
}

/// How registries are reached. Each option names the registry that it is for, with its port.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct AccessArgs {
    /// Reach this registry by HTTP, without any protection
    #[arg(long, value_name = "HOST")]
    pub(crate) plain_http: Vec<RegistryHost>,
    /// Reach this registry by HTTPS, and take whatever certificate it shows
    #[arg(long, value_name = "HOST")]
    pub(crate) insecure: Vec<RegistryHost>,
    /// Log in to this registry, when it asks (other users of the machine can see this; prefer `COFFERDAM_AUTH`)
    #[arg(long, value_name = "HOST=NAME:PASSWORD")]
    pub(crate) user: Vec<Secret>,
    /// Let this registry's password be sent to a token service at another host, which the registry names
    #[arg(long, value_name = "HOST=TOKENHOST", value_parser = token_host)]
    pub(crate) token_host: Vec<(RegistryHost, RegistryHost)>,
}

impl AccessArgs {
    /// Refuses options that say how registries are reached where none is: whoever gives one expects something of it.
    pub(crate) fn refuse(&self, image: &str) -> Result<(), Failure> {
        let given = [
            ("--plain-http", self.plain_http.is_empty()),
            ("--insecure", self.insecure.is_empty()),
            ("--user", self.user.is_empty()),
            ("--token-host", self.token_host.is_empty()),
        ];
        match given.iter().find(|(_, absent)| !absent) {
            Some((option, _)) => Err(usage(
                format!("{option} means nothing for `{image}`, since no registry is asked for it"),
                Some("name an image in a registry: docker://HOST/NAME:TAG".into()),
            )),
            None => Ok(()),
        }
    }
}

/// What must not be shown. It is read later than other words: what is said of one that is wrong holds the word.
#[derive(Clone)]
pub(crate) struct Secret(pub(crate) String);

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("…")
    }
}

/// A user name and a password for one registry.
pub(crate) struct Credentials {
    pub(crate) registry: RegistryHost,
    pub(crate) user: String,
    pub(crate) password: String,
}

/// Reads `HOST=NAME:PASSWORD`.
///
/// What is wrong is said without the text: it holds a secret.
pub(crate) fn credentials(text: &str) -> Result<Credentials, String> {
    let parts = text.split_once('=').and_then(|(host, login)| Some((host, login.split_once(':')?)));
    let (registry, (user, password)) = parts.ok_or("it is not of the form HOST=NAME:PASSWORD")?;
    let registry = registry.parse().map_err(|_| "what stands before `=` is no registry")?;
    Ok(Credentials { registry, user: user.to_owned(), password: password.to_owned() })
}

fn token_host(text: &str) -> cofferdam::Result<(RegistryHost, RegistryHost)> {
    let (registry, host) = text.split_once('=').ok_or_else(|| cofferdam::Error::Usage {
        reason: format!("{text:?} is not of the form HOST=TOKENHOST"),
        hint: Some("name the registry, and the host that it sends to for tokens".into()),
    })?;
    Ok((registry.parse()?, host.parse()?))
}

/// What trees may lose.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct LossyArgs {
    /// Go on without this extended attribute where the file system or the user cannot hold it; without this, that is an error
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    pub(crate) lossy: Vec<LossyName>,
}

/// An attribute that is lost by permission only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum LossyName {
    /// Capabilities of programs
    #[value(name = "security.capability")]
    Capabilities,
    /// Owners, modes and devices, which an ordinary user can only record
    #[value(name = "user.containers.override_stat")]
    Owners,
}

impl LossyArgs {
    pub(crate) fn allowed(&self) -> Lossy {
        Lossy {
            capabilities: self.lossy.contains(&LossyName::Capabilities),
            owners: self.lossy.contains(&LossyName::Owners),
        }
    }
}

#[derive(Debug, clap::Args)]
pub(crate) struct PullArgs {
    /// The image: `REF`, `docker://REF`, or `oci:DIR[:TAG]`
    pub(crate) image: String,
    /// The platform, as os/arch[/variant] [default: this machine's]
    #[arg(long, value_name = "PLATFORM")]
    pub(crate) platform: Option<Platform>,
    /// Layers that are fetched at once
    #[arg(long, value_name = "COUNT", default_value = "3")]
    pub(crate) parallel: NonZeroUsize,
    /// What outlives a power cut when this returns: `none`, the `image`, or the extracted `layer`s too
    #[arg(long, value_name = "WHAT", default_value_t)]
    pub(crate) durability: Durability,
    #[command(flatten)]
    pub(crate) lossy: LossyArgs,
    #[command(flatten)]
    pub(crate) asked: AskArgs,
    #[command(flatten)]
    pub(crate) access: AccessArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct UnpackArgs {
    /// The image: a reference in the store, `docker://REF` (pulled first), or `oci:DIR[:TAG]`
    pub(crate) image: String,
    /// Where the root filesystem appears: absent, or an empty directory
    pub(crate) dest: PathBuf,
    /// How it is made; the result is the same
    #[arg(long, value_name = "STRATEGY", default_value = "copy")]
    pub(crate) strategy: UnpackStrategy,
    /// Return only when a power cut cannot harm the root filesystem any more; costs the time that the disk takes
    #[arg(long)]
    pub(crate) sync: bool,
    #[command(flatten)]
    pub(crate) lossy: LossyArgs,
    /// The platform, as os/arch[/variant] [default: this machine's]
    #[arg(long, value_name = "PLATFORM")]
    pub(crate) platform: Option<Platform>,
    #[command(flatten)]
    pub(crate) access: AccessArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct MountSpecArgs {
    /// The image: a reference in the store, or `docker://REF` (pulled first)
    pub(crate) image: String,
    /// The platform, as os/arch[/variant] [default: this machine's]
    #[arg(long, value_name = "PLATFORM")]
    pub(crate) platform: Option<Platform>,
    #[command(flatten)]
    pub(crate) lossy: LossyArgs,
    #[command(flatten)]
    pub(crate) access: AccessArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum UnpackStrategy {
    /// Merge the layers' trees in the store
    Copy,
    /// Apply the layers' blobs one after the other
    Apply,
}

#[derive(Debug, clap::Args)]
pub(crate) struct GcArgs {
    /// Only say what would be done
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Also remove images that were not used for so long, as in `30d`, `12h` or `1h30m`
    #[arg(long, value_name = "AGE", value_parser = age)]
    pub(crate) older_than: Option<Duration>,
    /// Also remove images, the least recently used first, until the store takes at most so much, as in `10G`
    #[arg(long, value_name = "SIZE", value_parser = size)]
    pub(crate) keep_storage: Option<u64>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum LayerCommand {
    /// Unpack a layer onto a directory
    Extract(ExtractArgs),
    /// List a layer's entries
    List(LayerArgs),
    /// Decode a layer and check its digest
    Verify(LayerArgs),
}

#[derive(Debug, clap::Args)]
pub(crate) struct LayerArgs {
    /// The layer: a file, or `-` for standard input
    pub(crate) layer: PathBuf,
    /// What the layer is said to be; the bytes must agree. Without it the bytes decide.
    #[arg(long, value_name = "TYPE")]
    pub(crate) media_type: Option<String>,
    /// What the decoded bytes must hash to
    #[arg(long, value_name = "DIGEST")]
    pub(crate) diff_id: Option<Digest>,
}

#[derive(Debug, clap::Args)]
pub(crate) struct ExtractArgs {
    #[command(flatten)]
    pub(crate) layer: LayerArgs,
    /// The directory to unpack onto; it is made when absent
    pub(crate) dest: PathBuf,
    /// What becomes of whiteouts
    #[arg(long, value_name = "MODE", default_value = "apply")]
    pub(crate) mode: ExtractMode,
    #[command(flatten)]
    pub(crate) lossy: LossyArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExtractMode {
    /// They remove what lower layers put into DEST
    Apply,
    /// They stay, as files named `.wh.*`
    Preserve,
    /// They become the device nodes and attributes of overlayfs
    Overlay,
}

#[derive(Debug, Subcommand)]
pub(crate) enum GuestCommand {
    /// List the guests, and how long they take to load
    List,
    /// Show what guests import and export
    Inspect {
        /// One guest instead of all
        name: Option<String>,
    },
    /// Write the guests' components to a directory
    Export {
        /// The directory; it is made when absent
        directory: PathBuf,
    },
}

/// Reads an age, as the limits' times are written.
fn age(text: &str) -> cofferdam::Result<Duration> {
    Unit::Time.parse(text).map(Duration::from_millis)
}

/// Reads a size, as the limits' bytes are written.
fn size(text: &str) -> cofferdam::Result<u64> {
    Unit::Bytes.parse(text)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory as _;
        super::Args::command().debug_assert();
    }

    #[test]
    fn ages_and_sizes_have_units() {
        use std::time::Duration;
        assert_eq!(super::age("30d").unwrap(), Duration::from_hours(720));
        assert_eq!(super::age("0s").unwrap(), Duration::ZERO);
        for (text, bytes) in [("10G", 10 << 30), ("5", 5), ("3MiB", 3 << 20), ("3mb", 3 << 20)] {
            assert_eq!(super::size(text).unwrap(), bytes);
        }
        for text in ["", "d", "30", "3.5d", "-1d", "99999999999999999999s", "1é", "18446744073709551615w"] {
            assert!(super::age(text).is_err(), "{text}");
        }
        for text in ["", "G", "1.5G", "-1", "1X", "1GG", "18446744073709551615T"] {
            assert!(super::size(text).is_err_and(|error| error.hint().is_some()), "{text}");
        }
    }
}
