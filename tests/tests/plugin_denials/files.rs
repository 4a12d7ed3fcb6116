//! Files: what was granted is read, the scratch directory is written, and nothing else is there.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use cofferdam::{Error, ErrorKind};
use cofferdam_tests::Scratch;

use crate::trial::Trial;

/// A directory `keys` with a file in it, beside a file that is not granted; and a trial that may read the former.
struct Site {
    dir: Scratch,
}

impl Site {
    fn new() -> Self {
        let dir = Scratch::new().expect("a scratch directory");
        fs::create_dir(dir.join("keys")).expect("a directory");
        fs::write(dir.join("keys/public"), "the key").expect("a file");
        fs::write(dir.join("secret"), "the secret").expect("a file");
        symlink("../secret", dir.join("keys/up")).expect("a link");
        symlink(dir.join("secret"), dir.join("keys/over")).expect("a link");
        symlink("public", dir.join("keys/inside")).expect("a link");
        Self { dir }
    }

    fn path(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    fn trial(&self, attempts: &[&str]) -> Trial {
        let root = self.dir.path().display().to_string();
        let attempts: Vec<_> = attempts.iter().map(|attempt| attempt.replace('~', &root)).collect();
        Trial::new(attempts.join("\n")).asks(&format!("read = ['{}']", self.path("keys")))
    }
}

#[test]
fn a_granted_directory_is_read() {
    let site = Site::new();
    let said = site.trial(&["read ~/keys/public", "read ~/keys/inside", "list ~/keys"]).run().said();
    assert_eq!(said, "the key; the key; [inside over public up]");
}

#[test]
fn nothing_outside_of_it_is_read() {
    let site = Site::new();
    for attempt in [
        "read ~/secret",
        "read ~/keys/../secret",
        "read ~/keys/./../secret",
        "read ~/keys/up",
        "read ~/keys/over",
        "read /etc/passwd",
        "read ~/keys/../../../../../../etc/passwd",
        "read /proc/self/environ",
        "read secret",
        "read ../secret",
        "list ~",
        "list /",
        "list ~/keys/..",
    ] {
        let said = site.trial(&[attempt]).run().said();
        assert!(said.starts_with("not: "), "{attempt}: {said}");
        assert!(!said.contains("secret"), "{attempt}: {said}");
    }
}

#[test]
fn nothing_in_it_is_changed() {
    let site = Site::new();
    fs::create_dir(site.dir.join("keys/empty")).expect("a directory");
    let before = listing(&site.dir.join("keys"));
    for attempt in [
        "write ~/keys/new 1",
        "write ~/keys/public 1",
        "sparse ~/keys/public 0",
        "mkdir ~/keys/d",
        "remove ~/keys/public",
        "rename ~/keys/public ~/keys/other",
        "symlink public ~/keys/link",
        "link ~/keys/public ~/keys/link",
        "times ~/keys/public",
    ] {
        let said = site.trial(&[attempt]).run().said();
        assert!(said.starts_with("not: "), "{attempt}: {said}");
        assert_eq!(listing(&site.dir.join("keys")), before, "{attempt}");
    }
}

fn listing(dir: &Path) -> Vec<(String, u64, std::time::SystemTime)> {
    let mut all: Vec<_> = fs::read_dir(dir)
        .expect("a directory")
        .map(|entry| {
            let entry = entry.expect("an entry");
            let metadata = entry.metadata().expect("metadata");
            (entry.file_name().to_string_lossy().into_owned(), metadata.len(), metadata.modified().expect("a time"))
        })
        .collect();
    all.sort();
    all
}

#[test]
fn a_directory_that_is_not_granted_is_not_there_and_the_failure_says_how_to_grant_it() {
    let site = Site::new();
    let keys = site.path("keys");
    let withheld = format!("read = ['{keys}']");
    let read = ["read ~/keys/public"];
    let said = site.trial(&read).withholds(&withheld).run();
    let denials = said.report.as_ref().expect("a report").denials.clone();
    assert_eq!(denials.len(), 1, "{denials:?}");
    assert!(said.said().starts_with("not: "));
    // One that must have it refuses, and the person who reads that learns what to do.
    let error = site.trial(&read).setting("must", "").withholds(&withheld).run().error();
    assert_eq!(error.kind(), ErrorKind::Refused);
    assert_eq!(error.hint(), Some(format!("if you trust it: cofferdam plugin grant hostile --read {keys}")));
    assert!(error.to_string().contains("refused"), "{error}");
}

#[test]
fn a_directory_that_is_missing_is_named() {
    let site = Site::new();
    for missing in ["gone", "secret"] {
        let path = site.path(missing);
        let outcome = Trial::new("").asks(&format!("read = ['{path}']")).run();
        assert!(outcome.report.is_none());
        let error = outcome.error();
        assert!(error.root().to_string().contains(&path), "{error:?}");
        assert!(matches!(error.root(), Error::NotFound { .. } | Error::Io { .. }), "{error:?}");
    }
}

/// A place for scratch directories, and what is left in it.
struct Place(Scratch);

impl Place {
    fn new() -> Self {
        Self(Scratch::new().expect("a scratch directory"))
    }

    fn trial(&self, attempts: &str) -> Trial {
        Trial::new(attempts).scratch(&self.0.join("place"))
    }

    #[track_caller]
    fn is_empty(&self) {
        let left = fs::read_dir(self.0.join("place")).expect("the place").count();
        assert_eq!(left, 0, "a scratch directory is left");
    }
}

#[test]
fn the_scratch_directory_is_written_and_read() {
    let place = Place::new();
    let attempts = "list /scratch\nwrite /scratch/a 3\nread /scratch/a\nmkdir /scratch/d\nrename /scratch/a /scratch/d/b\nlist /scratch/d\nremove /scratch/d/b";
    assert_eq!(place.trial(attempts).run().said(), "[]; done; xxx; done; done; [b]; done");
    place.is_empty();
}

#[test]
fn it_is_empty_at_each_beginning_and_gone_at_each_end() {
    let place = Place::new();
    let begin = "list /scratch\nwrite /scratch/a 3\ndeep /scratch 60\n";
    assert_eq!(place.trial(begin).run().said(), "[]; done; done");
    for end in ["exit 0", "panic x", "spin", "recurse 0", "sleep 3600000", "grow"] {
        let trial = place.trial(&format!("{begin}{end}")).limit("guest-time", "200ms").limit("plugin-wait", "2s");
        trial.run().error();
        place.is_empty();
    }
    assert_eq!(place.trial("list /scratch").run().said(), "[]");
    let (inspected, _) = place.trial("list /scratch\nwrite /scratch/a 3").inspect();
    inspected.expect("an inspection");
    place.is_empty();
}

#[test]
fn without_the_grant_or_a_place_there_is_none() {
    let place = Place::new();
    let outcome = place.trial("write /scratch/a 3").withholds("write = true").run();
    assert!(outcome.said().starts_with("not: "));
    let error = Trial::new("").asks("write = true").run().error();
    assert!(matches!(error, Error::Usage { .. }), "{error:?}");
}

#[test]
fn bytes_have_a_limit() {
    let place = Place::new();
    let bytes = "bytes in a plugin's scratch directory";
    let within = place.trial("write /scratch/a 900000\nsparse /scratch/b 1000000000").limit("scratch-bytes", "1MiB");
    assert_eq!(within.run().said(), "done; done");
    for attempt in [
        // In one file, in many, and in one that has no name any more.
        "write /scratch/a 3000000".to_owned(),
        (0..30).map(|n| format!("write /scratch/{n} 100000")).collect::<Vec<_>>().join("\n"),
        "unlinked /scratch/a 3000000\nspin".to_owned(),
    ] {
        let trial = place.trial(&attempt).limit("scratch-bytes", "1MiB");
        assert_eq!(trial.run().limit(), bytes, "{attempt}");
        place.is_empty();
    }
    let (inspected, _) = place.trial("write /scratch/a 3000000").limit("scratch-bytes", "1MiB").inspect();
    assert!(matches!(inspected, Err(Error::Limit { what, .. }) if what == bytes));
}

#[test]
fn files_have_a_limit() {
    let place = Place::new();
    let trial = |attempt: &str| place.trial(attempt).limit("scratch-files", "100");
    assert_eq!(trial("many /scratch 100").run().said(), "done");
    for attempt in ["many /scratch 101", "deep /scratch 101", "mkdir /scratch/a\nmany /scratch/a 100"] {
        assert_eq!(trial(attempt).run().limit(), "files in a plugin's scratch directory", "{attempt}");
        place.is_empty();
    }
    // Deeper than anybody looks.
    let deep = place.trial("deep /scratch 300").run();
    assert_eq!(deep.limit(), "files in a plugin's scratch directory");
    place.is_empty();
}

#[test]
fn it_is_no_way_out() {
    let place = Place::new();
    fs::write(place.0.join("secret"), "the secret").expect("a file");
    fs::create_dir(place.0.join("place")).expect("a directory");
    let root = place.0.path().display().to_string();
    for attempt in [
        "read /scratch/../../secret".to_owned(),
        format!("read {root}/secret"),
        "symlink ../../secret /scratch/l\nread /scratch/l".to_owned(),
        format!("symlink {root}/secret /scratch/l\nread /scratch/l"),
        "symlink .. /scratch/l\nlist /scratch/l".to_owned(),
        "write /scratch/../x 1".to_owned(),
        "symlink ../../made /scratch/l\nwrite /scratch/l 1".to_owned(),
        "rename /scratch /scratch2".to_owned(),
    ] {
        let said = place.trial(&attempt).run().said();
        let last = said.rsplit("; ").next().expect("an outcome").to_owned();
        assert!(last.starts_with("not: "), "{attempt}: {said}");
        assert!(!place.0.join("made").exists() && !place.0.join("place/x").exists(), "{attempt}");
        place.is_empty();
    }
}
