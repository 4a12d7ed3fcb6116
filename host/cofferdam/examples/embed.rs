//! What a runtime does with the library: it opens a store, pulls an image with progress shown, keeps it, makes a root filesystem
//! and the list of directories for overlayfs, and gives up when a line is typed.
//!
//! ```text
//! cargo run --example embed -- /var/lib/runtime/images docker.io/library/debian:12 /tmp/rootfs
//! cargo run --example embed -- ./store oci:./layout:1.0 ./rootfs
//! ```

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "it talks to people")]

use std::env;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use cofferdam::registry::{AccessList, NetworkOptions, PullOptions, Pulled, Registries, pull};
use cofferdam::rootfs::{UnpackOptions, mount_spec, unpack};
use cofferdam::sandbox::{Sandbox, SandboxOptions};
use cofferdam::store::{Durability, ImageStorage};
use cofferdam::transport::{ImageSource, OciLayout};
use cofferdam::unpack::Unpacker;
use cofferdam::{Cancel, Error, Event, Limits, Progress, Result};

fn main() -> ExitCode {
    let words: Vec<_> = env::args().skip(1).collect();
    let [store, image, dest] = &words[..] else {
        eprintln!("usage: embed STORE IMAGE DEST");
        return ExitCode::from(2);
    };
    if let Err(error) = run(Path::new(store), image, Path::new(dest)) {
        eprintln!("error: {error}");
        let mut cause = std::error::Error::source(&error);
        while let Some(error) = cause {
            eprintln!("  because: {error}");
            cause = error.source();
        }
        if let Some(hint) = error.hint() {
            eprintln!("hint: {hint}");
        }
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

fn run(store: &Path, name: &str, dest: &Path) -> Result<()> {
    // Once for the program: compiling the guests takes 0.4 s, loading what was compiled 5 ms.
    let sandbox = Arc::new(Sandbox::new(&SandboxOptions::default().with_cache(store.join("guests")))?);
    let mut limits = Limits::default();
    limits.layer_bytes = 8 << 30;
    let unpacker = Unpacker::new(sandbox, limits.clone());
    let storage = ImageStorage::open(store, limits, Arc::new(unpacker.clone()))?.with_durability(Durability::Image);

    let (cancel, progress) = (given_up_by_a_line(), shown());
    let options = PullOptions { cancel: cancel.clone(), ..PullOptions::default() };
    // A pull comes with a lease: nobody frees the image between the pull and its use. For an image that is there already, there is
    // `ImageStorage::lease_image`.
    let Pulled { image, lease, .. } = with_runtime(pull_image(name, &storage, &unpacker, &options, &progress))?;
    println!("{} is {}", image.reference, image.manifest_digest);

    // These block: from an executor's thread, call them by `spawn_blocking`.
    let options = UnpackOptions { progress, cancel, ..UnpackOptions::default() };
    unpack(&image, &storage, &unpacker, dest, &options)?;
    println!("root filesystem: {}", dest.display());
    let spec = mount_spec(&image, &storage, &unpacker, &options)?;
    println!("or without a copy, for overlayfs, topmost first:");
    for directory in spec.lower_dirs() {
        println!("  {}", directory.display());
    }
    println!("run: {:?} {:?} in {:?}", image.config.entrypoint, image.config.cmd, image.config.working_dir);
    drop(lease);
    Ok(())
}

async fn pull_image(
    name: &str,
    storage: &ImageStorage,
    unpacker: &Unpacker,
    options: &PullOptions,
    progress: &Progress,
) -> Result<Pulled> {
    let limits = storage.limits().clone();
    let source: Box<dyn ImageSource> = match name.strip_prefix("oci:") {
        Some(layout) => Box::new(OciLayout::open(layout.parse()?, limits)?),
        // Passwords, plain HTTP and the like are decided for each registry by its own entry.
        None => Box::new(Registries::new(AccessList::new(), NetworkOptions::default(), limits)?.search(name, &[])?),
    };
    let pulled = pull(&*source, storage, Arc::new(unpacker.clone()), options, progress).await?;
    println!("{} layers downloaded, {} were there", pulled.downloaded_layers, pulled.cached_layers);
    Ok(pulled)
}

fn with_runtime<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    runtime.map_err(|e| Error::io("start", b"the runtime", e))?.block_on(work)
}

/// Events come from several threads, and many a second: what is shown is up to the embedder.
fn shown() -> Progress {
    Progress::new(|event| match event {
        Event::Resolved { layers, bytes, .. } => eprintln!("{layers} layers, {bytes} bytes"),
        Event::LayerStarted { layer, .. } => eprintln!("  {} …", &layer.hex()[..12]),
        Event::LayerCached { layer } | Event::LayerDone { layer } => eprintln!("  {} is there", &layer.hex()[..12]),
        Event::Merging { layer, of } => eprintln!("  merging {layer} of {of}"),
        _ => {}
    })
}

/// Gives up when a line is typed. All work that was given this ends soon after, with [`Error::Interrupted`], and leaves nothing.
fn given_up_by_a_line() -> Cancel {
    let cancel = Cancel::new();
    let given_up = cancel.clone();
    std::thread::spawn(move || {
        let mut line = String::new();
        if io::stdin().read_line(&mut line).is_ok_and(|bytes| bytes > 0) {
            let _ = writeln!(io::stderr(), "giving up");
            given_up.cancel();
        }
    });
    cancel
}
