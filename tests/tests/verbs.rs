//! What the verbs make of unusual names, options that do not apply, full disks, proxies, and stores that are damaged.

use std::fs::{self, OpenOptions};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use cofferdam_tests::cofferdam::exit;
use cofferdam_tests::conformance::ordinary;
use cofferdam_tests::disk::Disk;
use cofferdam_tests::layers::{self, Item};
use cofferdam_tests::layout::architecture;
use cofferdam_tests::{Cofferdam, OciLayout, Scratch, Served, others, require, store, terminal};
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
    let taken = TcpStream::connect(TcpListener::bind("127.0.0.1:0")?.local_addr()?)?;
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

/// Rule 26: a default ACL and a group above the store and the destinations show nowhere in what is made below.
#[test]
fn a_directory_above_hands_nothing_on() -> Result<()> {
    const LIST: &[u8] = b"\x02\0\0\0\x01\0\x07\0\xff\xff\xff\xff\x02\0\x07\0\xe8\x03\0\0\x04\0\x05\0\xff\xff\xff\xff\
        \x10\0\x07\0\xff\xff\xff\xff\x20\0\x05\0\xff\xff\xff\xff";
    let scratch = Scratch::new()?;
    let above = scratch.dir("above")?;
    let layer = layers::tar(&[
        Item::Dir("etc"),
        Item::Mode("etc/shadow", 0o600, b"secret".to_vec()),
        Item::Symlink("etc/l", "shadow"),
        Item::Hardlink("etc/h", "etc/shadow"),
        Item::File("var/log/implied", Vec::new()),
    ])?;
    let removal = layers::tar(&[Item::Dir("etc"), Item::File("etc/.wh.l", Vec::new())])?;
    fs::write(scratch.join("layer.tar"), &layer)?;
    let mut layout = OciLayout::create(scratch.join("layout"))?;
    let blobs = [layout.add_gzip(&layer)?, layout.add_gzip(&removal)?];
    layout.add_image("v1", &blobs)?;
    let image = layout.source("v1");
    rustix::fs::setxattr(&above, "system.posix_acl_default", LIST, rustix::fs::XattrFlags::empty())
        .context("scratch files need a file system with ACLs")?;
    fs::set_permissions(&above, fs::Permissions::from_mode(0o2755))?;
    let place = |name: &str| above.join(name).to_string_lossy().into_owned();
    let cofferdam = Cofferdam::new(above.join("a/store"))?;
    cofferdam.ok(["pull", &image])?;
    cofferdam.ok(["mount-spec", &image])?;
    for (name, strategy) in [("copied", "copy"), ("applied", "apply")] {
        cofferdam.ok(["unpack", &image, &place(name), "--strategy", strategy])?;
    }
    for mode in ["apply", "preserve", "overlay"] {
        let layer = scratch.join("layer.tar").to_string_lossy().into_owned();
        cofferdam.ok(["layer", "extract", "--mode", mode, &layer, &place(mode)])?;
    }
    let mut todo = vec![above.clone()];
    let mut seen = 0;
    while let Some(directory) = todo.pop() {
        for entry in fs::read_dir(directory)? {
            let path = entry?.path();
            for list in ["system.posix_acl_access", "system.posix_acl_default"] {
                let there = rustix::fs::lgetxattr(&path, list, &mut [0_u8; 0][..]).is_ok();
                ensure!(!there, "{} has the attribute {list}", path.display());
            }
            let stat = fs::symlink_metadata(&path)?;
            if stat.is_dir() {
                ensure!(stat.mode() & 0o2000 == 0, "{} sets the group of what is made inside", path.display());
                todo.push(path);
            }
            seen += 1;
        }
    }
    ensure!(seen > 60, "only {seen} paths were looked at");
    Ok(())
}

/// Rule 24, as root on a file system that has no attributes at all.
#[test]
fn what_a_file_system_cannot_hold_is_counted_or_asked_about() -> Result<()> {
    require!("root", "unshare", "setpriv");
    let scratch = Scratch::new()?;
    let place = scratch.dir("ramfs")?;
    let mount = "mount -t ramfs none \"$0\" && exec \"$@\"";
    let place = place.to_string_lossy().into_owned();
    let cofferdam = Cofferdam::new(scratch.join("store"))?.by(&["unshare", "-m", "sh", "-c", mount, &place]);
    let extract = |attributes: &[(&str, &[u8])], words: &[&str]| -> Result<_> {
        let layer = scratch.join("layer.tar");
        fs::write(&layer, layers::with_attributes("ping", attributes)?)?;
        let (layer, dest) = (layer.to_string_lossy().into_owned(), format!("{place}/dest"));
        cofferdam.run([&["--json", "layer", "extract", &*layer, &*dest], words].concat())
    };
    let foreign: &[(&str, &[u8])] = &[
        ("user.note", b"1"),
        ("security.selinux", b"label\0"),
        ("com.apple.provenance", b"1"),
        ("system.nfs4_acl", b""),
    ];
    let run = extract(foreign, &[])?.expect(exit::OK)?;
    let counted = &run.json()?["left_out"];
    for (name, _) in foreign {
        ensure!(counted[*name] == 1, "{counted}");
        ensure!(run.err().matches(name).count() == 1, "told once: {}", run.err());
    }
    let capability: &[(&str, &[u8])] = &[("security.capability", layers::CAPABILITY)];
    let run = extract(capability, &[])?.expect(exit::FAILED)?;
    ensure!(run.err().contains("--lossy security.capability") && run.err().contains("ping"), "{}", run.err());
    let run = extract(capability, &["--lossy", "security.capability"])?.expect(exit::OK)?;
    ensure!(run.json()?["left_out"]["security.capability"] == 1, "{}", run.out());
    extract(capability, &["--lossy", "user.note"])?.expect(exit::USAGE)?;
    Ok(())
}

/// An ordinary user cannot set capabilities. A tree that lost them by permission is not used without it.
#[test]
fn a_lossy_tree_is_never_believed_to_be_a_full_one() -> Result<()> {
    require!("root", "unshare", "setpriv");
    let scratch = Scratch::new_in(&others::base()?)?;
    let mut layout = OciLayout::create(scratch.join("layout"))?;
    let layer = layout.add_gzip(&layers::with_attributes("ping", &[("security.capability", layers::CAPABILITY)])?)?;
    layout.add_image("v1", &[layer])?;
    let image = layout.source("v1");
    let home = scratch.dir("home")?;
    ordinary::give(&home)?;
    fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o755))?;
    let cofferdam = Cofferdam::new(home.join("store"))?.for_others()?.by(ordinary::DROP);
    let cofferdam = cofferdam.setting("COFFERDAM_CACHE", &home.join("cache").to_string_lossy());
    let lossy = ["--lossy", "security.capability"];
    let run = cofferdam.fails(exit::FAILED, ["pull", &*image])?.has_hint()?;
    ensure!(run.err().contains("--lossy security.capability"), "{}", run.err());
    let run = cofferdam.ok([&["--json", "pull", &*image][..], &lossy].concat())?;
    ensure!(run.json()?["left_out"]["security.capability"] == 1, "{}", run.out());
    ensure!(run.err().matches("security.capability").count() == 1, "told once: {}", run.err());
    // Neither the tree nor what is made of it, in this order and in the other.
    let dest = |name: &str| home.join(name).to_string_lossy().into_owned();
    let store_name = references(&cofferdam)?.pop().context("no image")?;
    for (name, image) in [("layout", &image), ("store", &store_name)] {
        let (full, part) = (dest(&format!("{name}-full")), dest(&format!("{name}-part")));
        cofferdam.fails(exit::FAILED, ["unpack", image, &full])?.has_hint()?;
        let run = cofferdam.ok([&["--json", "unpack", &**image, &*part][..], &lossy].concat())?;
        ensure!(run.json()?["left_out"]["security.capability"] == 1, "{}", run.out());
    }
    let run = cofferdam.ok([&["mount-spec", &*store_name][..], &lossy].concat())?;
    ensure!(run.json()?["left_out"]["security.capability"] == 1, "{}", run.out());
    cofferdam.fails(exit::FAILED, ["mount-spec", &*store_name])?.has_hint()?;
    Ok(())
}

/// Where an ordinary user cannot even record owners, the tree would be another one.
#[test]
fn owners_are_lost_by_permission_only() -> Result<()> {
    require!("root", "unshare", "setpriv");
    let scratch = Scratch::new_in(&others::base()?)?;
    let place = scratch.dir("ramfs")?.to_string_lossy().into_owned();
    let mount = "mount -t ramfs none \"$0\" && chmod 777 \"$0\" && exec \"$@\"";
    fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o755))?;
    let wrapper = [&["unshare", "-m", "sh", "-c", mount, &*place][..], ordinary::DROP].concat();
    let cofferdam = Cofferdam::new(scratch.join("store"))?.for_others()?.by(&wrapper).setting("COFFERDAM_CACHE", "");
    let layer = scratch.join("layer.tar");
    fs::write(&layer, layers::tar(&[Item::File("a", Vec::new()), Item::Dir("d")])?)?;
    let (layer, dest) = (layer.to_string_lossy().into_owned(), format!("{place}/dest"));
    let extract = ["--json", "layer", "extract", &*layer, &*dest];
    let run = cofferdam.fails(exit::FAILED, extract)?;
    ensure!(run.err().contains("--lossy user.containers.override_stat"), "{}", run.err());
    let run = cofferdam.ok([&extract[..], &["--lossy", "user.containers.override_stat"]].concat())?;
    ensure!(run.json()?["left_out"]["user.containers.override_stat"] == 2, "{}", run.out());
    Ok(())
}

/// What is printed of an image that was pulled names it, for every verb and each way of asking.
#[test]
fn what_pull_prints_is_a_name() -> Result<()> {
    let scratch = Scratch::new()?;
    let mut layout = OciLayout::create(scratch.join("a b"))?;
    let layer = layout.add_tar(&layers::tar(&[Item::File("f", b"x".to_vec())])?)?;
    let single = layout.add_image("single", std::slice::from_ref(&layer))?;
    let listed = layout.add_image_with("listed", &[layer], |mut config| {
        config.push(b'\n');
        config
    })?;
    let index = layout.add_index("index", std::slice::from_ref(&listed))?;
    let registry = Served::start(layout.dir())?;
    let host = registry.host().to_owned();
    let cofferdam = Cofferdam::new(scratch.join("store"))?;
    for (number, (name, manifest)) in [
        (format!("{host}/app:single"), &single),
        (format!("{host}/app:index"), &listed),
        (format!("{host}/app@{single}"), &single),
        (format!("{host}/app@{index}"), &listed),
        (format!("docker://{host}/app:index@{index}"), &listed),
        (layout.source("single"), &single),
        (layout.source("index"), &listed),
        (format!("oci:{}@{index}", layout.dir().display()), &listed),
    ]
    .into_iter()
    .enumerate()
    {
        let access: &[&str] = if name.starts_with("oci:") { &[] } else { &["--plain-http", &host] };
        let pull = |options: &[&str]| cofferdam.ok([&["pull", &name][..], access, options].concat());
        let printed = pull(&["-q"])?.out();
        let printed = printed.strip_suffix('\n').context("no line")?;
        ensure!(printed.matches('@').count() == 1 && printed.ends_with(&format!("@{manifest}")), "{printed}");
        ensure!(pull(&[])?.out().lines().next() == Some(printed), "another name without -q");
        ensure!(pull(&["--json"])?.json()?["name"] == printed, "another name as JSON");
        // As it was printed, and as `images` shows it.
        let rootfs = scratch.join(format!("rootfs-{number}"));
        for image in [printed.to_owned(), references(&cofferdam)?.remove(0)] {
            cofferdam.ok(["inspect", &image])?;
            cofferdam.ok(["mount-spec", &image])?;
            cofferdam.ok(["unpack", &image, &rootfs.display().to_string()])?;
            fs::remove_dir_all(&rootfs)?;
            cofferdam.ok(["tag", &image, "example.test/other:1"])?;
            cofferdam.ok(["rm", "example.test/other:1"])?;
        }
        cofferdam.ok([&["pull", printed][..], access].concat())?;
        for image in references(&cofferdam)? {
            cofferdam.ok(["rm", &image])?;
        }
        pull(&[])?;
        cofferdam.ok(["rm", printed])?;
        ensure!(references(&cofferdam)?.is_empty(), "it is still there");
    }
    Ok(())
}

/// A name with a digest never stands for anything else; a layout that is gone leaves its image under its name.
#[test]
fn names_stand_for_what_they_say() -> Result<()> {
    let (scratch, cofferdam) = bench(&["a b"])?;
    let image = format!("oci:{}:v1", scratch.join("a b").display());
    cofferdam.ok(["pull", &image])?;
    let other = layers::digest(b"other");
    cofferdam.fails(exit::USAGE, ["tag", &image, &format!("example.test/a@{other}")])?.has_hint()?;
    cofferdam.fails(exit::NOT_FOUND, ["inspect", &format!("oci:{}@{other}", scratch.join("a b").display())])?;
    fs::remove_dir_all(scratch.join("a b"))?;
    for (index, name) in [references(&cofferdam)?.remove(0), image].into_iter().enumerate() {
        cofferdam.ok(["unpack", &name, &scratch.join(format!("out-{index}")).display().to_string()])?;
    }
    Ok(())
}

/// A digest may fit several names; none but the one that was meant is removed.
#[test]
fn a_digest_removes_no_other_name() -> Result<()> {
    let (scratch, cofferdam) = bench(&["layout"])?;
    let image = format!("oci:{}:v1", scratch.join("layout").display());
    let name = cofferdam.ok(["pull", "-q", &image])?.out();
    let digest = name.trim().rsplit_once('@').context("no digest")?.1.to_owned();
    let tags = [1, 2, 3].map(|tag| format!("a.test/x:{tag}"));
    for tag in &tags {
        cofferdam.ok(["tag", &image, tag])?;
    }
    cofferdam.ok(["rm", &format!("a.test/x:3@{digest}")])?;
    ensure!(references(&cofferdam)?.iter().filter(|name| name.starts_with("a.test/")).eq(&tags[..2]));
    for (text, code) in [
        (format!("a.test/x:3@{digest}"), exit::NOT_FOUND),
        (format!("a.test/y@{digest}"), exit::NOT_FOUND),
        (format!("a.test/x@{digest}"), exit::USAGE),
        (digest.clone(), exit::USAGE),
    ] {
        let run = cofferdam.fails(code, ["rm", &text])?;
        ensure!(code == exit::NOT_FOUND || run.has_hint()?.err().contains("a.test/x:1"), "{text}");
    }
    ensure!(references(&cofferdam)?.len() == 3);
    cofferdam.ok(["rm", &image, "a.test/x:1"])?;
    cofferdam.ok(["rm", &format!("a.test/x@{digest}")])?;
    ensure!(references(&cofferdam)?.is_empty());
    Ok(())
}

/// What only reads makes no store, and fills no directory.
#[test]
fn reading_makes_nothing() -> Result<()> {
    let (scratch, _) = bench(&[])?;
    for dir in ["empty", "theirs/layers", "theirs/manifests", "other/documents"] {
        fs::create_dir_all(scratch.join(dir))?;
    }
    let out = scratch.join("out").display().to_string();
    let unpack = ["unpack", "a.test/b:1", &out];
    for (store, left) in [("absent", None), ("empty", Some(0)), ("other", Some(1)), ("theirs", Some(2))] {
        let store = scratch.join(store);
        let cofferdam = Cofferdam::new(&store)?;
        ensure!(cofferdam.ok(["images", "--json"])?.json()?["images"].as_array().is_some_and(Vec::is_empty));
        let mut verbs = vec![&["inspect", "a.test/b:1"][..], &["df"], &["fsck"], &["gc", "--dry-run"]];
        // These would work on it.
        if left != Some(2) {
            let more: [&[&str]; 6] = [
                &["rm", "a.test/b:1"],
                &["tag", "a.test/b:1", "a.test/b:2"],
                &unpack,
                &["mount-spec", "a.test/b:1"],
                &["plugin", "rm", "none"],
                &["plugin", "grant", "none", "--clock"],
            ];
            verbs.extend(more);
        }
        for verb in verbs {
            cofferdam.fails(exit::NOT_FOUND, verb)?.has_hint()?;
            let names = fs::read_dir(&store).ok().map(Iterator::count);
            ensure!(names == left, "{verb:?} left {names:?} in {}", store.display());
        }
    }
    // A check without repair says what is missing, and leaves it to a repair.
    let cofferdam = Cofferdam::new(scratch.join("theirs"))?;
    cofferdam.ok(["gc"])?;
    fs::remove_dir(cofferdam.store().join("local"))?;
    let run = cofferdam.fails(exit::INTEGRITY, ["fsck"])?;
    ensure!(run.out().contains("local") && !cofferdam.store().join("local").exists(), "{}", run.out());
    cofferdam.ok(["fsck", "--repair"])?;
    ensure!(cofferdam.store().join("local").exists());
    Ok(())
}

#[test]
fn rm_says_what_it_did_before_it_says_what_it_could_not_do() -> Result<()> {
    let (scratch, cofferdam) = bench(&["one", "two"])?;
    let image = |name: &str| format!("oci:{}:v1", scratch.join(name).display());
    for json in [false, true] {
        cofferdam.ok(["pull", &image("one")])?;
        cofferdam.ok(["pull", &image("two")])?;
        let options: &[&str] = if json { &["--json"] } else { &[] };
        let (one, two) = (image("one"), image("two"));
        let run = cofferdam.run([&["rm", &one, "missing.test/a:1", &two, "Not A Name"][..], options].concat())?;
        let run = run.expect(exit::NOT_FOUND)?;
        ensure!(references(&cofferdam)?.is_empty(), "the others stayed");
        if json {
            let said = run.json()?;
            ensure!(said["removed"].as_array().map(Vec::len) == Some(2), "{said}");
            let codes: Vec<_> = said["failed"].as_array().into_iter().flatten().map(|failed| &failed["code"]).collect();
            ensure!(codes == [3, 2] && said["failed"][0]["image"] == "missing.test/a:1", "{said}");
            serde_json::from_slice::<Value>(&run.stderr)?;
        } else {
            ensure!(run.out().lines().filter(|line| line.starts_with("removed oci:")).count() == 2, "{}", run.out());
            ensure!(run.err().matches("error: ").count() == 2 && run.err().contains("missing.test"), "{}", run.err());
        }
    }
    Ok(())
}

/// A new file system has a directory of its own, which is nobody's content.
#[test]
fn a_new_file_system_is_an_empty_destination() -> Result<()> {
    require!("root");
    let (scratch, cofferdam) = bench(&["l"])?;
    let image = format!("oci:{}:v1", scratch.join("l").display());
    for strategy in ["copy", "apply"] {
        let dest = scratch.dir(strategy)?;
        let _disk = Disk::tmpfs(&dest, "size=1m")?;
        fs::create_dir(dest.join("lost+found"))?;
        cofferdam.ok(["unpack", "--strategy", strategy, &image, &dest.display().to_string()])?;
        ensure!(fs::read(dest.join("number"))? == b"0" && dest.join("lost+found").is_dir());
        // The second time it holds something.
        cofferdam.fails(exit::USAGE, ["unpack", &image, &dest.display().to_string()])?.has_hint()?;
    }
    Ok(())
}

/// Characters that a terminal obeys, or that hide or reorder what is around them.
const OBEYED: &str =
    "\u{1b}[2J\u{7f}\u{85}\u{9b}31m\u{ad}\u{61c}\u{200b}\u{200f}\u{2028}\u{202e}\u{2066}\u{feff}\u{e0041}";

/// An image's words reach nobody's terminal as they are, in text or in JSON, and a large configuration takes no time.
#[test]
fn what_an_image_says_is_escaped() -> Result<()> {
    let (scratch, cofferdam) = bench(&[])?;
    let mut layout = OciLayout::create(scratch.join("l"))?;
    let layer = layout.add_tar(&layers::tar(&[Item::Dir("d/")])?)?;
    let said = format!("A={OBEYED}");
    let env: Vec<String> = (0..300).map(|n| format!("V{n}={}", "x".repeat(3000))).chain([said.clone()]).rev().collect();
    let config = |config: Vec<u8>| {
        let mut config: Value = serde_json::from_slice(&config).unwrap_or_default();
        config["config"] = serde_json::json!({ "Env": env, "User": OBEYED, "WorkingDir": "w".repeat(1 << 20) });
        config["config"]["Cmd"] = serde_json::json!([OBEYED]);
        serde_json::to_vec(&config).unwrap_or_default()
    };
    layout.add_image_with("v1", &[layer], config)?;
    let image = layout.source("v1");
    let harmless = |run: &cofferdam_tests::Run| {
        let all = run.out() + &run.err();
        let found = OBEYED.chars().find(|c| !c.is_ascii_graphic() && all.contains(*c));
        ensure!(found.is_none(), "{found:?} is printed by {}", run.line);
        ensure!(all.len() < 16 << 20, "{} bytes from {}", all.len(), run.line);
        Ok(())
    };
    harmless(&cofferdam.ok(["pull", &image])?)?;
    for verb in [&["pull", &image][..], &["inspect", &image], &["images"], &["mount-spec", &image]] {
        let run = cofferdam.ok([verb, &["--json"]].concat())?;
        harmless(&run)?;
        if verb[0] == "inspect" {
            ensure!(run.json()?["image"]["config"]["env"][0] == said, "the value is another one");
        }
        harmless(&cofferdam.ok(verb)?)?;
    }
    // Errors quote images too.
    let platform = format!("linux/{OBEYED}");
    for json in [&[][..], &["--json"]] {
        let run = cofferdam.run([&["unpack", &image, "out", "--platform", &platform][..], json].concat())?;
        harmless(&run.expect(exit::USAGE)?)?;
    }
    Ok(())
}

/// One grammar for sizes and times, and what helps where it was not kept to.
#[test]
fn values_are_written_in_one_way() -> Result<()> {
    let (scratch, cofferdam) = bench(&["l"])?;
    let limit = |run: &cofferdam_tests::Run, name: &str| -> Result<Value> {
        let limits = run.json()?["limits"].clone();
        let found = limits.as_array().into_iter().flatten().find(|limit| limit["name"] == name).cloned();
        Ok(found.context("no such limit")?["value"].clone())
    };
    let config = scratch.join("config.toml");
    for (size, bytes) in [("64kb", 64 << 10), ("2MiB", 2 << 20), ("3g", 3_i64 << 30)] {
        let setting = format!("layer-bytes={size}");
        fs::write(&config, format!("[limits]\nlayer-bytes = '{size}'\n"))?;
        let config = config.display().to_string();
        let by_option = cofferdam.ok(["limits", "--json", "--limit", &setting])?;
        let by_file = cofferdam.ok(["limits", "--json", "--config", &config])?;
        let by_variable =
            cofferdam.spawn_with(["limits", "--json"], |command| _ = command.env("COFFERDAM_LIMITS", &setting))?;
        for run in [by_option, by_file, by_variable.wait()?.expect(exit::OK)?] {
            ensure!(limit(&run, "layer-bytes")? == bytes, "{size}: {}", run.out());
        }
        cofferdam.ok(["pull", &format!("oci:{}:v1", scratch.join("l").display())])?;
        cofferdam.ok(["gc", "--dry-run", "--keep-storage", size, "--older-than", "1h30m"])?;
    }
    ensure!(limit(&cofferdam.ok(["limits", "--json", "--limit", "plugin-wait=1h30m"])?, "plugin-wait")? == 5_400_000);
    for words in [
        &["gc", "--keep-storage", "10X"][..],
        &["gc", "--older-than", "30"],
        &["limits", "--limit", "layer-bytes=10X"],
        &["pull", "a.test/b", "--token-host", "a.test"],
    ] {
        let run = cofferdam.fails(exit::USAGE, words)?.has_hint()?;
        ensure!(!run.err().contains("--help"), "no hint but the usual one: {}", run.err());
        let run = cofferdam.fails(exit::USAGE, [words, &["--json"]].concat())?;
        let error: Value = serde_json::from_slice(&run.stderr)?;
        ensure!(error["hint"].is_string() && error["code"] == 2, "{error}");
    }
    // A mistake in a file is said in one line, with its place.
    for (text, place) in [("[limits\n", ":1:8: "), ("\n[[policy]]\nimages = 7\n", ":3:10: "), ("x = 1\n", ":1:1: ")] {
        fs::write(&config, text)?;
        let run = cofferdam.fails(exit::USAGE, ["limits", "--config", &config.display().to_string()])?;
        ensure!(run.err().contains(&format!("config.toml{place}")), "{}", run.err());
        ensure!(run.err().lines().count() == 1 && !run.err().contains("\\u{a}"), "{}", run.err());
    }
    Ok(())
}

/// A policy goes with an image, whatever further names it is given.
#[test]
fn a_further_name_steps_round_no_rule() -> Result<()> {
    let (scratch, cofferdam) = bench(&["l"])?;
    let image = format!("oci:{}:v1", scratch.join("l").display());
    let config = scratch.join("config.toml");
    fs::write(&config, "[[policy]]\nimages = ['oci:**', 'dev.test/**']\nrefuse = 'they are not for use'\n")?;
    let config = config.display().to_string();
    cofferdam.ok(["pull", &image])?;
    let digest = cofferdam.ok(["inspect", "--json", &image])?.json()?["image"]["manifest_digest"].clone();
    let digest = digest.as_str().context("no digest")?.to_owned();
    let mut out = 0;
    let mut ensure_refused = |name: &str| -> Result<()> {
        out += 1;
        let dest = scratch.join(format!("out-{out}")).display().to_string();
        cofferdam.fails(exit::REFUSED, ["unpack", name, &dest, "--config", &config])?;
        cofferdam.fails(exit::REFUSED, ["mount-spec", name, "--config", &config])?;
        cofferdam.fails(exit::REFUSED, ["tag", name, "free.test/late:1", "--config", &config])?;
        // Without the policy it is an image as any other.
        cofferdam.ok(["unpack", name, &dest])?;
        Ok(())
    };
    ensure_refused(&image)?;
    // Given while there was no policy, given on, and kept when the first name is gone.
    cofferdam.ok(["tag", &image, "free.test/a:1"])?;
    cofferdam.ok(["tag", "free.test/a:1", "free.test/b:1"])?;
    cofferdam.ok(["tag", &digest, "free.test/c:1"])?;
    for name in ["free.test/a:1", "free.test/b:1", "free.test/c:1", &digest] {
        ensure_refused(name)?;
    }
    cofferdam.ok(["rm", &image])?;
    cofferdam.ok(["rm", "free.test/a:1"])?;
    for name in ["free.test/b:1", &digest, &format!("free.test/b@{digest}")] {
        ensure_refused(name)?;
    }
    // A name that is not for use is not given either; one that is free stays so.
    let registry = Served::start(&scratch.join("l"))?;
    let free = format!("{}/app:v1", registry.host());
    cofferdam.ok(["pull", &free, "--plain-http", registry.host(), "--config", &config])?;
    cofferdam.fails(exit::REFUSED, ["tag", &free, "dev.test/a:1", "--config", &config])?;
    cofferdam.ok(["tag", &free, "free.test/d:1", "--config", &config])?;
    cofferdam.ok(["mount-spec", "free.test/d:1", "--config", &config])?;
    // By its digest it is used under one of the names that may be.
    cofferdam.ok(["mount-spec", &digest, "--config", &config])?;
    Ok(())
}

/// Each layer has a line of its own while it is fetched, and nothing is left when all are.
#[test]
fn bars_are_drawn_once_and_leave_nothing() -> Result<()> {
    let (scratch, cofferdam) = bench(&[])?;
    let mut layout = OciLayout::create(scratch.join("l"))?;
    let mut all = Vec::new();
    for seed in 0..3 {
        all.push(layout.add_tar(&layers::tar(&[Item::File("f", layers::noise(seed, 200_000))])?)?);
    }
    layout.add_image("v1", &all)?;
    let prefixes: Vec<String> = all.iter().map(|layer| layer.digest[7..19].to_owned()).collect();
    let seen = Arc::new(AtomicBool::new(false));
    let go = Arc::clone(&seen);
    // The end of each layer comes once the bars of all were seen.
    let registry = Served::start_with(layout.dir(), move |connection: &mut TcpStream, bytes: &[u8]| {
        let (begin, rest) = bytes.split_at(bytes.len() / 4);
        connection.write_all(begin)?;
        let mut rest = rest.chunks(64);
        while bytes.len() > 100_000 && !go.load(Ordering::SeqCst) && rest.len() > 1 {
            connection.write_all(rest.next().unwrap_or_default())?;
            thread::sleep(Duration::from_millis(1));
        }
        rest.try_for_each(|chunk| connection.write_all(chunk))
    })?;
    for (columns, lines) in [(100, 30), (70, 10)] {
        seen.store(false, Ordering::SeqCst);
        let (mut screen, program) = terminal::open(columns, lines)?;
        let image = format!("{}/app:v1", registry.host());
        let running = cofferdam.spawn_with(["pull", &image, "--plain-http", registry.host()], |command| {
            command.env("TERM", "xterm").stderr(program);
        })?;
        let mut last = Vec::new();
        while let Some(screen) = screen.see()? {
            last = screen.lines();
            let counts: Vec<usize> = prefixes
                .iter()
                .map(|prefix| last.iter().map(|line| line.matches(prefix.as_str()).count()).sum())
                .collect();
            ensure!(counts.iter().all(|count| *count <= 1), "a bar is drawn twice:\n{}", last.join("\n"));
            if counts == [1, 1, 1] {
                seen.store(true, Ordering::SeqCst);
            }
        }
        running.wait()?.expect(exit::OK)?;
        ensure!(seen.load(Ordering::SeqCst), "the bars of all layers were never there together");
        ensure!(last.iter().all(String::is_empty), "something is left:\n{}", last.join("\n"));
        cofferdam.ok(["rm", &image])?;
    }
    Ok(())
}

/// Root makes no exception for itself: what another user may have written vouches for nothing.
#[test]
fn a_store_of_another_user_is_refused_by_every_verb() -> Result<()> {
    require!("root");
    let (scratch, cofferdam) = bench(&["l"])?;
    let image = format!("oci:{}:v1", scratch.join("l").display());
    cofferdam.ok(["pull", &image])?;
    let store = cofferdam.store();
    let out = scratch.join("out").display().to_string();
    for part in ["", "refs"] {
        std::os::unix::fs::chown(store.join(part), Some(4242), None)?;
        for verb in [
            &["pull", &image][..],
            &["unpack", &image, &out],
            &["mount-spec", &image],
            &["images"],
            &["inspect", &image],
            &["tag", &image, "a.test/b:1"],
            &["rm", &image],
            &["gc"],
            &["df"],
            &["fsck"],
            &["plugin", "list"],
        ] {
            let run = cofferdam.fails(exit::REFUSED, verb)?.has_hint()?;
            let path = store.join(part).display().to_string();
            let path = path.trim_end_matches('/');
            ensure!(run.err().contains(path) && run.err().contains("4242"), "{verb:?}: {}", run.err());
        }
        std::os::unix::fs::chown(store.join(part), Some(0), None)?;
    }
    cofferdam.ok(["unpack", &image, &out])?;
    Ok(())
}
