//! `cargo xtask demo`: a real image becomes a verified root file system, before one's eyes.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use cofferdam_tests::layers::digest_of_file;
use cofferdam_tests::layout::{LayerRef, layers_of};
use cofferdam_tests::registry::{Kind, Registry};
use cofferdam_tests::require::{find, is_root};
use cofferdam_tests::{Images, Snapshot, cofferdam, oracle, paths, scratch, tree};
use sha2::{Digest as _, Sha256};

use crate::{images, setup, sh, table};

/// An image in an OCI layout.
struct Source {
    layout: PathBuf,
    tag: &'static str,
    /// Whether it is the real one, that umoci and a shell can do something with.
    real: bool,
}

impl Source {
    fn name(&self) -> String {
        format!("oci:{}:{}", self.layout.display(), self.tag)
    }
}

/// The verb.
pub(crate) fn run() -> Result<()> {
    title("Building");
    setup::targets()?;
    let binary = cofferdam::binary()?;
    println!("{}", binary.display());

    title("Getting an image");
    let missing = setup::tools(setup::FOR_DEMO).unwrap_or_else(|error| {
        eprintln!("{error:#}");
        setup::FOR_DEMO.iter().map(|tool| tool.0).filter(|tool| find(tool).is_none()).collect()
    });
    let source = source();
    let dir = paths::target().join("demo");
    scratch::remove_tree(&dir);
    fs::create_dir_all(&dir)?;
    let (store, rootfs) = (dir.join("store"), dir.join("rootfs"));

    let has = |tool: &str| !missing.contains(&tool);
    let registry = if has("docker-registry") && has("skopeo") {
        title("Pushing it to a real registry");
        let registry = Registry::start(Kind::Plain)?;
        registry.push(&source.name(), "demo/image:1")?;
        println!("docker-registry listens on {} and holds demo/image:1", registry.host());
        Some(registry)
    } else {
        println!("no registry: {} missing; the layout itself is the source", missing.join(" and "));
        None
    };

    let command = |arguments: &[&str]| {
        let mut command = Command::new(binary);
        // The registry is on this machine, whatever proxies lead out of it.
        command.arg("--store").arg(&store).args(arguments).env("no_proxy", "127.0.0.1").current_dir(paths::workspace());
        command
    };
    let mut times = Vec::new();
    let image = match &registry {
        Some(registry) => registry.reference("demo/image:1"),
        None => source.name(),
    };
    if let Some(registry) = &registry {
        title("Pulling: fetched, verified and extracted at once, every layer decoded and parsed inside WebAssembly");
        let mut pull = command(&["pull", &image, "--plain-http", &registry.host()]);
        times.push(("pull", timed(&mut pull)?));
        times.push(("pull again, from the store", timed(&mut pull)?));
    }
    title("Unpacking");
    times.push(("unpack", timed(&mut command(&["unpack", &image, &rootfs.display().to_string()]))?));
    if let Some(mut registry) = registry {
        registry.stop();
    }

    title("Checking it with other programs");
    let layers = layers_of(&source.layout, source.tag)?;
    let count = |path: &Path| -> Result<usize> {
        Ok(sh::output(&mut command(&["layer", "list", &path.display().to_string()]))?.lines().count())
    };
    println!("{}", check_layers(&source, &layers, &store, count)?);
    check_tree(&source, &rootfs, has("umoci"))?;
    let rows: Vec<_> = times.iter().map(|(what, time)| vec![(*what).to_owned(), seconds(*time)]).collect();
    println!("\n{}", table::render(&["step", "seconds"], &rows));

    greet(&source, &rootfs)?;
    println!("\nThe root file system is in {}\nThe store is in {}", rootfs.display(), store.display());
    Ok(())
}

fn title(text: &str) {
    println!("\n\x1b[1m{text}\x1b[0m");
}

fn seconds(time: Duration) -> String {
    format!("{:.2}", time.as_secs_f64())
}

fn timed(command: &mut Command) -> Result<Duration> {
    let start = Instant::now();
    sh::run(command)?;
    Ok(start.elapsed())
}

/// Three layers of Debian with whiteouts where they can be made, else the few kilobytes that are committed.
fn source() -> Source {
    let made = match images::obstacle() {
        Some(why) => Err(why),
        None => images::make(&["edit"]).map_err(|error| format!("{error:#}")),
    };
    match made {
        Ok(()) => Source { layout: paths::images().join("oci/store"), tag: "edit", real: true },
        Err(why) => {
            println!("no image of Debian packages: {why}\nthe small committed one has to do");
            Source { layout: paths::hello_layout(), tag: "hello", real: false }
        }
    }
}

/// Hashes each blob as it lies in the store, and what `gzip` and `zstd` make of it. The store's own word is not taken.
fn check_layers(
    source: &Source,
    layers: &[LayerRef],
    store: &Path,
    count: impl Fn(&Path) -> Result<usize>,
) -> Result<String> {
    let mut rows = Vec::new();
    for (index, layer) in layers.iter().enumerate() {
        let name = layer.digest.replace(':', "-");
        let stored = store.join("layers").join(format!("{name}.tar.gz"));
        let (place, blob) = if stored.exists() {
            ("store", stored)
        } else {
            ("layout", source.layout.join("blobs").join(layer.digest.replacen(':', "/", 1)))
        };
        let found = digest_of_file(&blob)?;
        ensure!(found == layer.digest, "{} hashes to {found}, not to {}", blob.display(), layer.digest);
        let diff_id = match decoded_digest(&blob, &layer.media_type)? {
            Some(found) => {
                ensure!(found == layer.diff_id, "{} decodes to {found}, not to {}", blob.display(), layer.diff_id);
                format!("{} ✓", short(&found))
            }
            None => format!("{} (no decoder at hand)", short(&layer.diff_id)),
        };
        rows.push(vec![
            (index + 1).to_string(),
            format!("{} ✓ in {place}", short(&layer.digest)),
            diff_id,
            layer.size.to_string(),
            count(&blob)?.to_string(),
        ]);
    }
    Ok(table::render(&["layer", "digest of the blob", "DiffID", "bytes", "entries"], &rows))
}

fn short(digest: &str) -> &str {
    digest.get(..19).unwrap_or(digest)
}

/// The digest of a decoded layer, by the programs of this machine; nothing if there is none for it.
fn decoded_digest(blob: &Path, media_type: &str) -> Result<Option<String>> {
    let program = match media_type.rsplit('+').next() {
        Some("gzip") => "gzip",
        Some("zstd") => "zstd",
        _ => return Ok(Some(digest_of_file(blob)?)),
    };
    if find(program).is_none() {
        return Ok(None);
    }
    let input = fs::File::open(blob)?;
    let mut child = Command::new(program).arg("-dc").stdin(input).stdout(Stdio::piped()).spawn()?;
    let mut output = child.stdout.take().context("no output")?;
    let (mut hasher, mut buffer) = (Sha256::new(), vec![0; 1 << 17]);
    loop {
        match output.read(&mut buffer)? {
            0 => break,
            count => hasher.update(&buffer[..count]),
        }
    }
    ensure!(child.wait()?.success(), "{program} cannot decode {}", blob.display());
    Ok(Some(hasher.finalize().iter().fold("sha256:".to_owned(), |text, byte| format!("{text}{byte:02x}"))))
}

fn check_tree(source: &Source, rootfs: &Path, umoci: bool) -> Result<()> {
    let ours = Snapshot::read(rootfs)?;
    let (entries, bytes) = (ours.entries.len(), ours.content_bytes());
    println!("the root file system has {entries} entries and {:.1} MB in files", to_mega(bytes));
    if source.real && umoci {
        let images = Images::read(&paths::images())?;
        let theirs = Snapshot::read(&oracle::umoci(&images, "store", source.tag)?)?;
        tree::ensure_same(("ours", &ours), ("umoci's", &theirs), |_, _| false)?;
        println!(
            "it equals what `umoci unpack` makes of the image, in type, mode, owner, mtime, content, links, attributes \
             and devices of all {entries} entries ✓"
        );
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "for people")]
fn to_mega(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

/// Runs a program of the image, where that is possible.
fn greet(source: &Source, rootfs: &Path) -> Result<()> {
    if !(source.real && is_root() && find("chroot").is_some()) {
        return Ok(());
    }
    title("Running a program of it");
    let script = ". /etc/os-release; echo \"$PRETTY_NAME\"; python3 -c 'import sys; print(\"Python\", sys.version)'; \
                  dpkg-query -f '.' -W | wc -c | sed 's/$/ packages/'";
    let mut chroot = Command::new("chroot");
    chroot.arg(rootfs).args(["/bin/sh", "-c", script]).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    print!("{}", sh::output(&mut chroot)?);
    Ok(())
}
