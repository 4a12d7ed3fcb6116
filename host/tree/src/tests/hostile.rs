//! Layers and neighbours that mean harm.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use cofferdam_core::Limits;
use cofferdam_core::error::{Error, ErrorKind};

use super::{Bytes, Lab, RESOLVERS, notation, open, options, snapshot, write};
use crate::cache::DirCache;
use crate::entry::{Entry, Metadata, Node, Sink as _, TreePath};
use crate::{Mode, Resolver, SafeRoot, TreeWriter, WriterOptions, remove_tree};

fn entry(path: &str, node: Node) -> Entry {
    let path = TreePath::parse(path.into(), &Limits::default()).unwrap();
    Entry { path, node, metadata: Metadata { mode: 0o755, ..Metadata::default() } }
}

/// Swaps a directory for a link to the victim, back and forth, until it is dropped.
struct Racer {
    done: Arc<AtomicBool>,
    swaps: Arc<AtomicUsize>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Racer {
    fn start(dest: std::path::PathBuf) -> Self {
        let (done, swaps) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let (over, count) = (Arc::clone(&done), Arc::clone(&swaps));
        let race = move || {
            let (dir, link) = (dest.join("a/b"), dest.join("link"));
            let exchange = || {
                let (from, to) = (rustix::fs::CWD, rustix::fs::CWD);
                rustix::fs::renameat_with(from, &dir, to, &link, rustix::fs::RenameFlags::EXCHANGE).is_ok()
            };
            while !over.load(Ordering::Relaxed) {
                if !link.is_symlink() {
                    let _ = std::fs::remove_dir_all(&link);
                    let _ = std::os::unix::fs::symlink("../../victim", &link);
                }
                if exchange() {
                    count.fetch_add(1, Ordering::Relaxed);
                    std::thread::yield_now();
                    exchange();
                }
            }
        };
        Self { done, swaps, thread: Some(std::thread::spawn(race)) }
    }
}

impl Drop for Racer {
    fn drop(&mut self) {
        self.done.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// CVE-2018-15664, CVE-2025-47290: another process swaps a directory for a link to the outside.
#[test]
fn cve_2018_15664_a_racer_gains_nothing() {
    for resolver in RESOLVERS {
        let lab = Lab::new();
        let dest = lab.dest();
        let racer = Racer::start(dest.clone());
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(1) || racer.swaps.load(Ordering::Relaxed) < 200 {
            assert!(start.elapsed() < Duration::from_secs(30), "the racer got to swap only {:?} times", racer.swaps);
            let mut writer = TreeWriter::new(open(&dest), options(Mode::Apply, resolver)).unwrap();
            // Errors are as good as success, as long as the victim stays as it is.
            for path in ["a", "a/b", "a/b/c", "a/b/c/d"].iter().cycle().take(16) {
                let _ = writer.put(entry(path, Node::Directory), &mut Bytes(b""));
                for name in ["hello", "secret", "new"] {
                    let file = entry(&format!("{path}/{name}"), Node::File { size: 4 });
                    let _ = writer.put(file, &mut Bytes(b"evil"));
                    let link = Node::HardLink { target: notation::path("a/b/hello") };
                    let _ = writer.put(entry(&format!("{path}/{name}-link"), link), &mut Bytes(b""));
                }
                let _ = writer.put(entry(&format!("{path}/hello"), Node::Whiteout), &mut Bytes(b""));
                let _ = writer.put(entry(path, Node::Opaque), &mut Bytes(b""));
            }
            let _ = writer.finish();
            let _ = remove_tree(open(&dest), b"a");
        }
        drop(racer);
        lab.assert_contained();
    }
}

/// A path costs what it costs: links that make it endless are refused long before it gets slow.
#[test]
fn links_cannot_buy_time() {
    for resolver in RESOLVERS {
        let lab = Lab::new();
        let mut writer = TreeWriter::new(open(&lab.dest()), options(Mode::Apply, resolver)).unwrap();
        writer.put(entry("d", Node::Directory), &mut Bytes(b"")).unwrap();
        let target = "d/../".repeat(800);
        for hop in 0..39 {
            let next = format!("{target}l{}", hop + 1);
            writer.put(entry(&format!("l{hop}"), Node::Symlink { target: next.into() }), &mut Bytes(b"")).unwrap();
        }
        let outcome = (0..100_000).try_for_each(|round| {
            // Replacing a link makes the writer forget what it knows.
            writer.put(entry("l39", Node::Symlink { target: format!("d/{round}").into() }), &mut Bytes(b""))?;
            writer.put(entry("l0/f", Node::File { size: 0 }), &mut Bytes(b""))
        });
        assert!(matches!(outcome, Err(Error::Limit { what: "steps in following links", .. })), "{outcome:?}");
        let (steps, entries) = (writer.steps, writer.record.counts.entries);
        assert_eq!(steps, Limits::default().link_steps + 16 * entries + 1, "{entries} entries");
        assert!(entries < 1000, "each pair of entries takes 31 000 steps or more, and {entries} were let through");
    }
}

/// Deals empty files to `dirs` directories of this depth, in turns, and tells how many components that took to walk, after
/// the round that makes the directories. Each turn may begin with entries of its own.
fn deal(
    writer: &mut TreeWriter,
    (dirs, depth, rounds): (usize, usize, usize),
    mut before: impl FnMut(&mut TreeWriter),
) -> u64 {
    let mut made = 0;
    for round in 0..=rounds {
        for dir in 0..dirs {
            before(writer);
            let path = format!("{dir}/{}{round}", "d/".repeat(depth - 1));
            writer.put(entry(&path, Node::File { size: 0 }), &mut Bytes(b"")).unwrap();
        }
        if round == 0 {
            made = writer.walked;
        }
    }
    writer.walked - made
}

/// Deep directories that take turns stay known.
#[test]
fn turns_between_deep_directories_walk_no_path_again() {
    for resolver in RESOLVERS {
        let lab = Lab::new();
        let mut writer = TreeWriter::new(open(&lab.dest()), options(Mode::Apply, resolver)).unwrap();
        // Each makes 10 directories known, and of all those no more than are kept.
        writer.cache = DirCache::with_most(4096);
        assert_eq!(deal(&mut writer, (200, 10, 2), |_| ()), 0);
    }
}

/// More directories than can be kept open cost in the measure in which they are too many.
#[test]
fn a_directory_too_many_does_not_defeat_all_that_are_known() {
    const DEPTH: usize = 20;
    const ROUNDS: usize = 10;
    for resolver in RESOLVERS {
        let lab = Lab::new();
        let mut writer = TreeWriter::new(open(&lab.dest()), options(Mode::Apply, resolver)).unwrap();
        writer.cache = DirCache::with_most(50);
        let dirs = 60;
        let walked = deal(&mut writer, (dirs, DEPTH, ROUNDS), |_| ());
        let all = (dirs * DEPTH * ROUNDS) as u64;
        assert!(walked < all / 2, "{resolver:?}: {walked} of {all} components");
    }
}

/// What is removed takes no more with it than what is known about itself.
#[test]
fn removals_elsewhere_leave_directories_known() {
    for (resolver, replacing) in RESOLVERS.into_iter().flat_map(|resolver| [(resolver, true), (resolver, false)]) {
        let lab = Lab::new();
        let mut writer = TreeWriter::new(open(&lab.dest()), options(Mode::Apply, resolver)).unwrap();
        writer.cache = DirCache::with_most(4096);
        writer.put(entry("link", Node::Symlink { target: "0".into() }), &mut Bytes(b"")).unwrap();
        writer.finish_layer().unwrap();
        let (dirs, depth, rounds) = (40, 20, 2);
        let walked = deal(&mut writer, (dirs, depth, rounds), |writer| {
            for path in ["x", "x/y"] {
                writer.put(entry(path, Node::Directory), &mut Bytes(b"")).unwrap();
            }
            // A path through a link is forgotten with each directory, and is not for that in the way of others.
            writer.put(entry("link/f", Node::File { size: 0 }), &mut Bytes(b"")).unwrap();
            let last = if replacing { entry("x", Node::File { size: 0 }) } else { entry("", Node::Opaque) };
            writer.put(last, &mut Bytes(b"")).unwrap();
        });
        let links = (dirs * rounds) as u64 * 4;
        assert!(walked <= links, "{resolver:?} {replacing}: {walked} of {links}");
    }
}

/// CVE-2026-95838: opaque markers cost quadratic time.
#[test]
fn cve_2026_95838_many_markers_cost_linear_time() {
    const LOWER: u64 = 100_000;
    const OWN: u64 = 1000;
    const MARKERS: u64 = 100_000;
    let lab = Lab::new();
    let mut writer = TreeWriter::new(open(&lab.dest()), options(Mode::Apply, Resolver::Auto)).unwrap();
    for number in 0..LOWER {
        writer.put(entry(&format!("d/{number}"), Node::File { size: 0 }), &mut Bytes(b"")).unwrap();
    }
    writer.finish_layer().unwrap();
    for number in 0..OWN {
        writer.put(entry(&format!("d/own{number}"), Node::File { size: 0 }), &mut Bytes(b"")).unwrap();
    }
    for _ in 0..MARKERS {
        writer.put(entry("d", Node::Opaque), &mut Bytes(b"")).unwrap();
        writer.put(entry("d", Node::Whiteout), &mut Bytes(b"")).unwrap();
        writer.put(entry("", Node::Opaque), &mut Bytes(b"")).unwrap();
    }
    // Each thing is looked at once, and `d` itself once more.
    assert_eq!(writer.visited, LOWER + OWN + 1);
    writer.finish().unwrap();
    assert_eq!(std::fs::read_dir(lab.dest().join("d")).unwrap().count() as u64, OWN);
}

/// Deeper than any path can be, and than any stack would take.
#[test]
fn depth_is_no_obstacle_to_removal() {
    const DEPTH: usize = 100_000;
    let lab = Lab::new();
    let mut dir = open(&lab.dest());
    for _ in 0..DEPTH {
        rustix::fs::mkdirat(&dir, "d", rustix::fs::Mode::RWXU).unwrap();
        drop(rustix::fs::openat(&dir, "f", rustix::fs::OFlags::CREATE, rustix::fs::Mode::RWXU).unwrap());
        dir = rustix::fs::openat(&dir, "d", rustix::fs::OFlags::DIRECTORY, rustix::fs::Mode::empty()).unwrap();
    }
    drop(dir);
    // By an opaque marker, which keeps what the layer itself has put in.
    std::fs::create_dir(lab.dest().join("x")).unwrap();
    std::fs::rename(lab.dest().join("d"), lab.dest().join("x/d")).unwrap();
    let on_a_small_stack = || {
        write(&lab.dest(), options(Mode::Apply, Resolver::Auto), &["F x/d/d/own, W x/.wh..wh..opq"]).unwrap();
    };
    small_stack(on_a_small_stack);
    assert_eq!(lab.listing(), "f x/ x/d/ x/d/d/ x/d/d/own");
    remove_tree(open(&lab.dest()), b"absent").unwrap();
    small_stack(|| remove_tree(open(&lab.dest()), b"x").unwrap());
    assert_eq!(lab.listing(), "f");
}

/// As deep as a path can be, by raised limits: made, linked across, and removed.
#[test]
fn a_tree_as_deep_as_a_path_is_made_and_removed() {
    const DEPTH: usize = 2000;
    let limits = Limits::default().with(|limits| limits.depth = DEPTH + 1);
    for resolver in RESOLVERS {
        let lab = Lab::new();
        let path = |depth: usize, name: &str| {
            TreePath::parse(format!("{}{name}", "d/".repeat(depth)).into_bytes(), &limits).unwrap()
        };
        let make = || {
            let options = WriterOptions { limits: limits.clone(), ..options(Mode::Apply, resolver) };
            let mut writer = TreeWriter::new(open(&lab.dest()), options).unwrap();
            let mut put = |path: TreePath, node: Node| {
                writer.put(Entry { path, node, metadata: Metadata::default() }, &mut Bytes(b"")).unwrap();
            };
            put(path(DEPTH, "f"), Node::File { size: 0 });
            put(path(DEPTH / 2, "link"), Node::HardLink { target: path(DEPTH, "f") });
            put(path(DEPTH / 2, "later"), Node::HardLink { target: path(DEPTH, "g") });
            put(path(DEPTH, "g"), Node::File { size: 0 });
            writer.finish().unwrap();
        };
        small_stack(make);
        let root = SafeRoot::new(open(&lab.dest()), resolver);
        assert_eq!(root.stat(path(DEPTH / 2, "link").as_bytes()).unwrap().unwrap().st_nlink, 2);
        assert_eq!(root.stat(path(DEPTH / 2, "later").as_bytes()).unwrap().unwrap().st_nlink, 2);
        small_stack(|| remove_tree(open(&lab.dest()), b"d").unwrap());
        assert_eq!(lab.listing(), "");
    }
}

fn small_stack(work: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        std::thread::Builder::new().stack_size(256 << 10).spawn_scoped(scope, work).unwrap().join().unwrap();
    });
}

#[test]
fn removal_does_not_follow_links() {
    let lab = Lab::new();
    write(
        &lab.dest(),
        options(Mode::Apply, Resolver::Auto),
        &["S d/l->../../victim, S m->../victim, D d/e 0000, F d/e/f"],
    )
    .unwrap();
    for name in [&b"d"[..], b"m"] {
        remove_tree(open(&lab.dest()), name).unwrap();
    }
    assert_eq!(lab.listing(), "");
}

/// CVE-2025-47290, GHSA-3wgq-wrwc-vqmv: a known parent outlives its directory.
#[test]
fn cve_2025_47290_ghsa_3wgq_wrwc_vqmv_what_is_known_about_a_path_does_not_outlive_it() {
    for (layers, expected) in [
        (&["D a, F a/x, S a->victim, F a/y"][..], "a->victim victim/ victim/y"),
        (&["D a/b, F a/b/x, S a->c, F a/b/y"], "a->c c/ c/b/ c/b/y"),
        (&["S a->b, F a/x, S a->c, F a/y"], "a->c b/ b/x c/ c/y"),
        (&["D b, S a->b, F a/c/x, S b->d, F a/c/y"], "a->b b->d d/ d/c/ d/c/y"),
        (&["F a/x", "F a/y, F a, F a/z"], "a/ a/z"),
        (&["F a/x", "D a/b, W .wh.a, F a/b/y"], "a/ a/b/ a/b/y"),
        (&["F a/b/x", "W a/.wh.b, F a/b/y"], "a/ a/b/ a/b/y"),
        (&["S l->a, F a/b/x", "W l/b/.wh.none, W .wh.l, F l/b/y"], "a/ a/b/ a/b/x l/ l/b/ l/b/y"),
        (&["D a, F a/x, H a->t, F t, F a/y"], "a/ a/y t"),
        // Directories beside and around the one that goes.
        (
            &["F a/b/x, F a.b/x, F a0/x, S a->a0, F a/y, F a/b/y, F a.b/y"],
            "a->a0 a.b/ a.b/x a.b/y a0/ a0/b/ a0/b/y a0/x a0/y",
        ),
        (&["F a/b/c/x", "W a/b/.wh.c, S a/b/c->/d, F a/b/c/y, F a/b/z"], "a/ a/b/ a/b/c->/d a/b/z d/ d/y"),
        (&["F a/b/c/x", "W a/.wh..wh..opq, S a/b->/d, F a/b/c/y"], "a/ a/b->/d d/ d/c/ d/c/y"),
        // A link that goes with its directory.
        (&["S a/l->/b, F a/l/x, F a, F a/l/y"], "a/ a/l/ a/l/y b/ b/x"),
        (&["S a/l->/b, F a/l/x", "F a/l/y, W .wh.a, F a/l/z"], "a/ a/l/ a/l/z b/ b/x b/y"),
        (&["S a/l->/b, F a/l/x", "F a/l/y, W a/.wh..wh..opq, F a/l/z"], "a/ a/l/ a/l/z b/ b/x b/y"),
    ] {
        for resolver in RESOLVERS {
            let lab = Lab::new();
            write(&lab.dest(), options(Mode::Apply, resolver), layers).unwrap();
            assert_eq!(lab.listing(), expected, "{layers:?}");
        }
    }
}

/// CVE-2024-21626 and its like: `/proc` links are links like others.
#[test]
fn proc_has_no_magic() {
    for target in ["/proc/self/root", "/proc/self/cwd", "/proc/self/fd/0"] {
        for resolver in RESOLVERS {
            let lab = Lab::new();
            write(&lab.dest(), options(Mode::Apply, resolver), &[&format!("S l->{target}, F l/x")]).unwrap();
            assert!(lab.dest().join(&target[1..]).join("x").is_file());
            lab.assert_contained();
        }
    }
}

#[test]
fn names_that_the_file_system_does_not_take_are_refused() {
    let long = "x".repeat(256);
    for layer in [format!("S l->{long}/y, F l/f"), format!("S l->{long}, F l/f")] {
        let lab = Lab::new();
        let error = write(&lab.dest(), options(Mode::Apply, Resolver::Auto), &[&layer]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
    }
}

#[test]
fn a_tree_is_read_as_by_a_chroot() {
    let lab = Lab::new();
    let layer = r#"F etc/x "in", S abs->/etc/x, S up->../../../etc, S out->../victim/hello, S loop->loop, P pipe, S a/b->../etc/"#;
    write(&lab.dest(), options(Mode::Apply, Resolver::Auto), &[layer]).unwrap();
    for resolver in RESOLVERS {
        let root = SafeRoot::new(open(&lab.dest()), resolver);
        for path in ["etc/x", "/etc/x", "abs", "up/x", "../../etc/../etc/./x", "a/b/x", "a/../abs"] {
            let file = std::fs::File::from(root.open_file(path.as_bytes()).unwrap());
            assert_eq!(std::io::read_to_string(file).unwrap(), "in", "{path} {resolver:?}");
        }
        for path in ["out", "none", "etc/x/y", "../victim/hello"] {
            let error = root.open_file(path.as_bytes()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NotFound, "{path} {resolver:?} {error}");
        }
        for path in ["loop", "pipe", "etc"] {
            assert_eq!(root.open_file(path.as_bytes()).unwrap_err().kind(), ErrorKind::Refused, "{path} {resolver:?}");
        }
        assert_eq!(root.read_link(b"up/../out").unwrap(), b"../victim/hello");
        assert!(root.stat(b"loop").unwrap().is_some());
        assert!(root.stat(b"etc/none").unwrap().is_none());
        assert!(root.stat(b"none/x").unwrap().is_none());
        assert!(root.open_dir(b"").is_ok() && root.open_dir(b"up").is_ok() && root.open_dir(b"/..").is_ok());
    }
    assert!(snapshot::listing(&lab.dest()).contains("etc/x=in"));
}
