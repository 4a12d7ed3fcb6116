//! Who is compared, and by which command.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use cofferdam_tests::images::Layer;
use cofferdam_tests::require::find;

/// The same layer in the forms that the tools take.
pub(super) struct Input<'a> {
    pub(super) gzip: &'a Layer,
    pub(super) zstd: Option<&'a Layer>,
    /// An OCI image of this layer alone, as umoci names it.
    pub(super) layout: String,
    pub(super) binary: &'a Path,
    pub(super) work: &'a Path,
}

/// A command that extracts the layer.
pub(super) struct Contender {
    pub(super) name: String,
    /// Whether it wants to create the destination itself.
    pub(super) makes_dest: bool,
    program: PathBuf,
    /// With `DEST` in the place of the destination.
    arguments: Vec<String>,
}

/// Replaced by the destination.
const DEST: &str = "\0DEST";

impl Contender {
    fn new(name: &str, program: impl Into<PathBuf>, arguments: &[&str]) -> Self {
        let arguments = arguments.iter().map(|&text| text.to_owned()).collect();
        Self { name: name.to_owned(), makes_dest: false, program: program.into(), arguments }
    }

    /// `decoder | tar`, by a shell, whose use of time includes both.
    fn pipe(name: &str, decoder: &str, layer: &Path) -> Self {
        let script = format!("{decoder} < \"$1\" | tar -x -C \"$2\"");
        Self::new(name, "sh", &["-c", &script, "sh", &layer.display().to_string(), DEST])
    }

    /// The command for this destination.
    pub(super) fn command(&self, dest: &Path) -> Command {
        let mut command = Command::new(&self.program);
        for argument in &self.arguments {
            if argument == DEST {
                command.arg(dest);
            } else {
                command.arg(argument);
            }
        }
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command
    }
}

/// Our binary with a store of its own.
pub(super) fn ours(binary: &Path, work: &Path) -> Command {
    let mut command = Command::new(binary);
    command.arg("--store").arg(work.join("store")).stdin(Stdio::null());
    command
}

/// All contenders that are installed, ours first in each form.
pub(super) fn contenders(input: &Input<'_>) -> Vec<Contender> {
    let extract = |name: &str, layer: &Layer| {
        let store = input.work.join("store").display().to_string();
        let blob = layer.path.display().to_string();
        let arguments =
            ["--store", &store, "--progress", "none", "layer", "extract", "--diff-id", &layer.diff_id, &blob, DEST];
        Contender::new(name, input.binary, &arguments)
    };
    let gzip = input.gzip.path.as_path();
    let file = gzip.display().to_string();
    let mut all = vec![
        extract("cofferdam, gzip", input.gzip),
        Contender::new("tar xzf", "tar", &["-xzf", &file, "-C", DEST]),
        Contender::new("bsdtar -xpf", "bsdtar", &["-xpf", &file, "-C", DEST]),
        Contender::pipe("pigz -dc \\| tar x", "pigz -dc", gzip),
        Contender::pipe("igzip -dc \\| tar x", "igzip -dc", gzip),
        Contender {
            makes_dest: true,
            ..Contender::new(
                "umoci raw unpack",
                "umoci",
                &["--log=warn", "raw", "unpack", "--image", &input.layout, DEST],
            )
        },
    ];
    if let Some(zstd) = input.zstd {
        all.push(extract("cofferdam, zstd", zstd));
        all.push(Contender::pipe("zstd -dc \\| tar x", "zstd -dc", &zstd.path));
    }
    let tool = |contender: &Contender| contender.name.split(' ').next().unwrap_or_default().to_owned();
    all.retain(|contender| contender.name.starts_with("cofferdam") || find(&tool(contender)).is_some());
    all
}
