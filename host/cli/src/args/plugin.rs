//! The words of plugins on the command line.

use std::path::PathBuf;

use clap::Subcommand;
use cofferdam::plugin::{Capabilities, HttpRule, World};

use super::AccessArgs;

/// Plugins that are asked by hand, beside those that the policy of the configuration file requires.
#[derive(Clone, Debug, Default, clap::Args)]
pub(crate) struct AskArgs {
    /// Ask this verifier whether the image may be used (repeatable)
    #[arg(long, value_name = "PLUGIN")]
    pub(crate) verify: Vec<String>,
    /// Show each layer to this inspector (repeatable)
    #[arg(long, value_name = "PLUGIN")]
    pub(crate) inspect: Vec<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PluginCommand {
    /// Add a plugin to the store, pinned by its digest
    Add(PluginAddArgs),
    /// List the plugins
    List,
    /// Show what a plugin is: its world, imports, limits, grants and digest. Nothing of it is run
    Inspect {
        /// The plugin's name in the store, or a file or directory: `./xz.wasm`, `./xz`
        plugin: String,
    },
    /// Grant a plugin some of what it asks for
    Grant(PluginGrantArgs),
    /// Take back what a plugin was granted
    Revoke(PluginRevokeArgs),
    /// Remove plugins
    Rm {
        /// The plugins' names
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Run a plugin once, and show what it saw, said, used and was denied
    Test(PluginTestArgs),
    /// Make a plugin to begin with: a crate in Rust, with a copy of the SDK, that builds as it is
    New {
        /// The world that it implements
        #[arg(long, value_name = "WORLD")]
        world: World,
        /// The directory, whose name is the plugin's; absent or empty
        directory: PathBuf,
    },
    /// Put a component and its manifest into one file, or into an OCI layout from which it can be published
    Pack {
        /// A directory with a `plugin.toml`, or a component that carries one
        plugin: PathBuf,
        /// The file, or `oci:DIR[:TAG]`
        #[arg(short, long, value_name = "TARGET")]
        output: String,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct PluginAddArgs {
    /// A component (`FILE.wasm`), a directory with a `plugin.toml` (`./DIR`), `oci:DIR[:TAG]`, or a reference in a registry
    pub(crate) source: String,
    /// What it is to be called [default: its own name]
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Take the place of another component of this name; what that was granted is not granted to this one
    #[arg(long)]
    pub(crate) replace: bool,
    #[command(flatten)]
    pub(crate) grants: GrantArgs,
    #[command(flatten)]
    pub(crate) access: AccessArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct PluginTestArgs {
    /// The plugin's name in the store, or a file or directory: `./xz.wasm`, `./xz`
    pub(crate) plugin: String,
    /// The layer that it is shown or reads [default: a small one]
    #[arg(long, value_name = "FILE", conflicts_with = "image")]
    pub(crate) layer: Option<PathBuf>,
    /// The image that a verifier is asked about; none of its layers is fetched
    #[arg(long, value_name = "IMAGE")]
    pub(crate) image: Option<String>,
    /// A setting (repeatable)
    #[arg(long, value_name = "KEY=VALUE", value_parser = setting)]
    pub(crate) setting: Vec<(String, String)>,
    #[command(flatten)]
    pub(crate) grants: GrantArgs,
    #[command(flatten)]
    pub(crate) access: AccessArgs,
}

fn setting(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("it is not of the form KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

#[derive(Debug, clap::Args)]
pub(crate) struct PluginGrantArgs {
    /// The plugin's name
    pub(crate) name: String,
    #[command(flatten)]
    pub(crate) grants: GrantArgs,
}

#[derive(Debug, clap::Args)]
pub(crate) struct PluginRevokeArgs {
    /// The plugin's name
    pub(crate) name: String,
    /// Take back everything
    #[arg(long)]
    pub(crate) all: bool,
    #[command(flatten)]
    pub(crate) grants: GrantArgs,
}

/// What plugins can be granted.
#[derive(Clone, Debug, Default, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "flags of a command line")]
pub(crate) struct GrantArgs {
    /// What a language's runtime wants in order to start; without any power
    #[arg(long)]
    pub(crate) runtime: bool,
    /// The time, and waiting
    #[arg(long)]
    pub(crate) clock: bool,
    /// Random numbers
    #[arg(long)]
    pub(crate) random: bool,
    /// A scratch directory of its own, emptied after each run
    #[arg(long)]
    pub(crate) write: bool,
    /// Reading this directory (absolute; repeatable)
    #[arg(long, value_name = "DIR")]
    pub(crate) read: Vec<String>,
    /// Requests to this server, as `https://HOST[:PORT]` or `GET,POST https://HOST`; `registry` is the registry of the image
    /// that is being verified (repeatable)
    #[arg(long, value_name = "RULE")]
    pub(crate) http: Vec<HttpRule>,
    /// The same for a server whose name may stand for a private address
    #[arg(long, value_name = "RULE")]
    pub(crate) http_private: Vec<HttpRule>,
    /// All that it asks for
    #[arg(long)]
    pub(crate) all_asked: bool,
}

impl GrantArgs {
    /// The set that they stand for, for a plugin that asks for `asked`.
    pub(crate) fn capabilities(&self, asked: &Capabilities) -> Capabilities {
        let all = if self.all_asked { asked.clone() } else { Capabilities::default() };
        Capabilities {
            runtime: self.runtime,
            clock: self.clock,
            random: self.random,
            write: self.write,
            read: self.read.iter().cloned().collect(),
            http: self.http.iter().chain(&self.http_private).cloned().collect(),
            http_private: self.http_private.iter().cloned().collect(),
        }
        .or(&all)
    }
}
