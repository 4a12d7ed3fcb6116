//! What the verbs make of unusual names, options that do not apply, full disks, proxies, and stores that are damaged.

use std::fs::{self, OpenOptions};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use cofferdam_tests::cofferdam::exit;
use cofferdam_tests::layers::{self, Item};
use cofferdam_tests::layout::architecture;
use cofferdam_tests::{Cofferdam, OciLayout, Scratch, store};
use rustix::process::Signal;
use serde_json::Value;

/// A scratch directory with a store, and a layout with the image `v1` in each of these directories.
fn bench(layouts: &[&str]) -> Result<(Scratch, Cofferdam)> {
    let scratch = Scratch::new()?;
    for (index, name) in layouts.iter().enumerate() {
        fs::create_dir_all(scratch.join(name))?;
        let mut layout = OciLayout::create(scratch.join(name))?;
        let layer = layout.add_gzip(&layers::tar(&[Item::File("number", index.to_string().into_bytes())])?)?;
        layout.add_image("v1", &[layer])?;
    }
    let cofferdam = Cofferdam::new(scratch.join("store"))?;
    Ok((scratch, cofferdam))
}

fn references(cofferdam: &Cofferdam) -> Result<Vec<String>> {
    let images = cofferdam.ok(["images", "--json"])?.json()?;
    let images = images["images"].as_array().context("no images")?.clone();
    Ok(images.iter().filter_map(|image| image["reference"].as_str().map(str::to_owned)).collect())
}

/// However a layout is called, the store keeps its image under one name, and each directory's under another.
#[test]
fn an_image_of_a_layout_is_known_by_its_directory() -> Result<()> {
    let (scratch, cofferdam) = bench(&["one/l", "two/l", "a b é%41@c"])?;
    let in_dir = |dir: &str, arguments: &[&str]| {
        let run = cofferdam.spawn_with(arguments, |command| {
            command.current_dir(scratch.join(dir));
        });
        run?.wait()?.expect(exit::OK)
    };
    in_dir("one", &["pull", "oci:./l:v1"])?;
    in_dir("two", &["pull", "oci:l:v1"])?;
    in_dir(".", &["pull", "oci:a b é%41@c:v1"])?;
    let names = references(&cofferdam)?;
    ensure!(names.len() == 3, "{names:?}");
    ensure!(
        names.iter().all(|name| name.starts_with("oci:/") && name.bytes().all(|b| b.is_ascii_graphic())),
        "{names:?}"
    );
    in_dir(".", &["pull", "oci:one/../one/l:v1"])?;
    ensure!(references(&cofferdam)? == names, "one directory has two names: {:?}", references(&cofferdam)?);
    for (dir, name) in [("one", "oci:l:v1"), ("two", "oci:../two/l:v1"), (".", "oci:a b é%41@c:v1")] {
        in_dir(dir, &["inspect", name])?;
    }
    for name in &names {
        cofferdam.ok(["inspect", name])?;
    }
    in_dir("two", &["rm", "oci:./l:v1"])?;
    ensure!(references(&cofferdam)?.len() == 2, "{:?}", references(&cofferdam)?);
    // One whose directory is gone can still be removed by the name that it had.
    fs::remove_dir_all(scratch.join("one/l"))?;
    in_dir("one", &["rm", "oci:./l:v1"])?;
    ensure!(references(&cofferdam)?.len() == 1, "{:?}", references(&cofferdam)?);
    Ok(())
}

#[test]
fn an_option_is_never_silently_without_effect() -> Result<()> {
    let (scratch, cofferdam) = bench(&["l"])?;
    let (image, out) = (format!("oci:{}:v1", scratch.join("l").display()), scratch.join("out").display().to_string());
    for option in [
        ["--plain-http", "a.test"],
        ["--insecure", "a.test"],
        ["--user", "a.test=u:p"],
        ["--token-host", "a.test=b.test"],
    ] {
        for command in [vec!["pull", &image], vec!["unpack", &image, &out], vec!["unpack", "a.test/b:1", &out]] {
            let run = cofferdam.fails(exit::USAGE, command.into_iter().chain(option))?;
            ensure!(run.err().contains(option[0]), "{}", run.err());
        }
    }
    // An image in the store has a platform already.
    cofferdam.ok(["pull", &image])?;
    let stored = references(&cofferdam)?.remove(0);
    let digest = cofferdam.ok(["inspect", "--json", &stored])?.json()?["image"]["manifest_digest"].clone();
    let digest = digest.as_str().context("no digest")?;
    let own = format!("linux/{}", architecture());
    cofferdam.fails(exit::NOT_FOUND, ["unpack", digest, &out, "--platform", "linux/s390x"])?.has_hint()?;
    ensure!(!scratch.join("out").exists(), "another platform's image was unpacked");
    cofferdam.ok(["unpack", digest, &out, "--platform", &own])?;
    Ok(())
}

/// Output that cannot be written is an error, of every verb that has any, and never a panic.
#[test]
fn a_full_disk_is_an_error() -> Result<()> {
    let (scratch, cofferdam) = bench(&["l"])?;
    let image = format!("oci:{}:v1", scratch.join("l").display());
    cofferdam.ok(["pull", &image])?;
    let layer = scratch.join("layer.tar");
    fs::write(&layer, layers::tar(&[Item::File("a", b"x".to_vec())])?)?;
    let layer = layer.display().to_string();
    for command in [
        &["layer", "list", &layer][..],
        &["layer", "list", "--json", &layer],
        &["layer", "verify", &layer],
        &["images"],
        &["images", "--json"],
        &["inspect", &image],
        &["guest", "list"],
        &["completions", "bash"],
    ] {
        let full = OpenOptions::new().write(true).open("/dev/full")?;
        let run = cofferdam.spawn_with(command, |command| {
            command.stdout(full);
        })?;
        let run = run.wait()?.expect(exit::FAILED)?;
        ensure!(run.err().contains("standard output"), "{command:?}: {}", run.err());
    }
    Ok(())
}

/// A reader that goes away has seen enough.
#[test]
fn a_closed_pipe_is_no_error() -> Result<()> {
    let (_scratch, cofferdam) = bench(&[])?;
    for command in [&["completions", "bash"][..], &["guest", "list"]] {
        let (reader, writer) = std::io::pipe()?;
        drop(reader);
        let run = cofferdam.spawn_with(command, |command| {
            command.stdout(writer);
        })?;
        let run = run.wait()?.expect(exit::OK)?;
        ensure!(run.stderr.is_empty(), "{}", run.err());
    }
    Ok(())
}

/// Takes one request and answers 404; gives back its first line.
fn answer_one(listener: TcpListener) -> thread::JoinHandle<Result<String>> {
    thread::spawn(move || {
        let (mut connection, _) = listener.accept()?;
        let mut line = String::new();
        let mut reader = BufReader::new(connection.try_clone()?);
        reader.read_line(&mut line)?;
        let mut header = line.clone();
        while !header.trim_end().is_empty() {
            header.clear();
            reader.read_line(&mut header)?;
        }
        connection.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")?;
        Ok(line)
    })
}

#[test]
fn the_environments_proxies_are_used() -> Result<()> {
    let (_scratch, cofferdam) = bench(&[])?;
    for (variable, other) in [("http_proxy", "HTTP_PROXY"), ("HTTP_PROXY", "HTTPS_PROXY"), ("ALL_PROXY", "HTTPS_PROXY")]
    {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = format!("http://{}", listener.local_addr()?);
        let proxy = answer_one(listener);
        let arguments = ["pull", "registry.test/a:1", "--plain-http", "registry.test"];
        let run = cofferdam.spawn_with(arguments, |command| {
            command.env(variable, &address).env(other, "http://127.0.0.1:9");
        })?;
        let run = run.wait()?.expect(exit::NOT_FOUND)?;
        let line = proxy.join().map_err(|_| anyhow::anyhow!("the proxy panicked"))??;
        ensure!(line.starts_with("GET http://registry.test/v2/a/manifests/1 "), "{variable}: {line}{}", run.err());
    }
    // What is excepted is reached without one.
    let exceptions: [fn(&str) -> String; 3] = [str::to_owned, |_| "127.0.0.0/8".to_owned(), |_| "x.test, *".to_owned()];
    for exception in exceptions {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let host = listener.local_addr()?.to_string();
        let registry = answer_one(listener);
        let run = cofferdam.spawn_with(["pull", &format!("{host}/a:1"), "--plain-http", &host], |command| {
            command.env("http_proxy", "http://127.0.0.1:9").env("no_proxy", exception(&host));
        })?;
        run.wait()?.expect(exit::NOT_FOUND)?;
        let line = registry.join().map_err(|_| anyhow::anyhow!("the registry panicked"))??;
        ensure!(line.starts_with("GET /v2/a/manifests/1 "), "{line}");
    }
    // What cannot be used is said before anything is asked.
    for variable in ["all_proxy", "HTTPS_PROXY", "http_proxy"] {
        let run = cofferdam.spawn_with(["pull", "registry.test/a:1"], |command| {
            command.env(variable, "socks5h://me:hunter2@127.0.0.1:9");
        })?;
        let run = run.wait()?.expect(exit::USAGE)?.has_hint()?;
        let said = run.err();
        ensure!(said.contains(variable) && said.contains("socks5h") && !said.contains("hunter2"), "{said}");
    }
    Ok(())
}

/// A host that was mistyped is one line and a hint, at once, and not a row of attempts.
#[test]
fn a_mistyped_host_is_said_at_once() -> Result<()> {
    let (_scratch, cofferdam) = bench(&[])?;
    // Held, so that nobody else gets the port, and not listened on.
    let taken = std::net::TcpStream::connect(TcpListener::bind("127.0.0.1:0")?.local_addr()?)?;
    for host in ["there-is-no-such-host.invalid".to_owned(), taken.local_addr()?.to_string()] {
        let run = cofferdam.fails(exit::NETWORK, ["pull", &format!("{host}/a:1"), "--plain-http", &host])?;
        let said = run.err();
        ensure!(said.lines().count() == 2 && said.contains(&host) && said.contains("hint:"), "{said}");
    }
    let run = cofferdam.fails(exit::USAGE, ["pull", "127.1:5000/a:1"])?;
    ensure!(run.err().contains("127.0.0.1"), "{}", run.err());
    Ok(())
}

/// A damaged image is listed as what it is, hides no other, and is not passed over in silence.
#[test]
fn a_damaged_image_is_listed_and_is_an_error() -> Result<()> {
    let (scratch, cofferdam) = bench(&["one", "two"])?;
    for name in ["one", "two"] {
        cofferdam.ok(["pull", &format!("oci:{}:v1", scratch.join(name).display())])?;
    }
    let manifests = cofferdam.store().join("manifests");
    let victim =
        store::list(&manifests)?.into_iter().find(|name| name.starts_with("sha256-")).context("no manifest")?;
    let mut bytes = fs::read(manifests.join(&victim))?;
    bytes.push(b'\n');
    fs::write(manifests.join(&victim), bytes)?;
    let run = cofferdam.fails(exit::INTEGRITY, ["images", "--json"])?;
    let listed = run.json()?;
    let images = listed["images"].as_array().context("no images")?;
    let damaged: Vec<&Value> = images.iter().filter(|image| image["error"].is_string()).collect();
    ensure!((images.len(), damaged.len()) == (2, 1), "{listed}");
    let run = cofferdam.fails(exit::INTEGRITY, ["images"])?;
    ensure!(run.out().lines().count() == 3 && run.out().contains("damaged"), "{}", run.out());
    Ok(())
}

/// `--json` holds for errors too, whoever finds them.
#[test]
fn usage_errors_are_2_and_json_where_asked_for() -> Result<()> {
    let (_scratch, cofferdam) = bench(&[])?;
    let not_utf8: &std::ffi::OsStr = std::os::unix::ffi::OsStrExt::from_bytes(b"a.test=me:\xff");
    for (arguments, variable) in [
        (&["pull", "a@sha256:short", "--json"][..], None),
        (&["unpack", "oci:dir@sha256:short", "out", "--json"], None),
        (&["frobnicate", "--json"], None),
        (&["--json", "pull"], None),
        (&["images", "--json"], Some(("COFFERDAM_LOG", "=====".as_ref()))),
        (&["pull", "a.test/b:1", "--json"], Some(("COFFERDAM_AUTH", not_utf8))),
    ] {
        let run = cofferdam.spawn_with(arguments, |command| {
            command.envs(variable);
        })?;
        let run = run.wait()?.expect(exit::USAGE)?;
        let error: Value = serde_json::from_slice(&run.stderr).with_context(|| run.err())?;
        ensure!(error["schema"] == "cofferdam/error/v1" && error["code"] == 2, "{error}");
        ensure!(error["error"].as_str().is_some_and(|text| !text.is_empty() && !text.contains('\n')), "{error}");
    }
    Ok(())
}

/// The first Ctrl-C asks; where nobody listens, as here where nobody reads the output, a second one ends it.
#[test]
fn a_second_interrupt_ends_what_does_not_listen() -> Result<()> {
    let (scratch, cofferdam) = bench(&["l"])?;
    let (image, out) = (format!("oci:{}:v1", scratch.join("l").display()), scratch.join("out"));
    // A pipe that is full, so that the command waits for a reader that never comes.
    let (_reader, mut writer) = std::io::pipe()?;
    rustix::fs::fcntl_setfl(&writer, rustix::fs::OFlags::NONBLOCK)?;
    while writer.write(&[b' '; 4096]).is_ok() {}
    rustix::fs::fcntl_setfl(&writer, rustix::fs::OFlags::empty())?;
    let mut running = cofferdam.spawn_with(["unpack", "--json", &image, &out.display().to_string()], |command| {
        command.stdout(writer);
    })?;
    let patience = Instant::now();
    while !out.exists() {
        ensure!(!running.has_ended()?, "it ended by itself: {}", running.wait()?.err());
        ensure!(patience.elapsed() < Duration::from_mins(1), "nothing is unpacked");
        thread::sleep(Duration::from_millis(1));
    }
    // Signals that come together count as one: it is asked until it hears the second.
    let patience = Instant::now();
    while !running.has_ended()? {
        if patience.elapsed() > Duration::from_secs(30) {
            running.signal(Signal::KILL)?;
        } else {
            running.signal(Signal::INT)?;
        }
        thread::sleep(Duration::from_millis(5));
    }
    running.wait()?.expect(exit::INTERRUPTED)?;
    Ok(())
}
