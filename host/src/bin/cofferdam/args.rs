//! The command line, defined once: help and completions are generated from it.

use std::path::PathBuf;

use clap::{Parser, Subcommand, ValueEnum};
use cofferdam::Digest;
use cofferdam::unpack::Compression;

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
    /// Directory of the image store [default: /var/lib/cofferdam for root, else $XDG_DATA_HOME/cofferdam]
    #[arg(long, global = true, value_name = "DIR", env = "COFFERDAM_STORE")]
    pub(crate) store: Option<PathBuf>,
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
    /// Work on one layer, without a store
    #[command(subcommand)]
    Layer(LayerCommand),
    /// The sandboxed components that read layers
    #[command(subcommand)]
    Guest(GuestCommand),
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
    #[arg(long, value_name = "TYPE", value_parser = compression)]
    pub(crate) media_type: Option<Compression>,
    /// What the decoded bytes must hash to
    #[arg(long, value_name = "DIGEST", value_parser = digest)]
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

fn compression(text: &str) -> Result<Compression, String> {
    Compression::from_media_type(text).map_err(|error| error.to_string())
}

fn digest(text: &str) -> Result<Digest, String> {
    text.parse().map_err(|error: cofferdam::Error| error.to_string())
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory as _;
        super::Args::command().debug_assert();
    }
}
