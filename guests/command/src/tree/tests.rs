use std::io::Cursor;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::time::SystemTime;

use tar::{Builder, EntryType, Header};
use tempfile::TempDir;

use super::*;

/// A member: kind, name, and content or target.
type Member<'a> = (char, &'a str, &'a str);

fn archive(members: &[Member<'_>]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for &(kind, name, text) in members {
        let mut header = Header::new_ustar();
        let (kind, body) = match kind {
            'D' => (EntryType::Directory, ""),
            'F' => (EntryType::Regular, text),
            'S' => (EntryType::Symlink, ""),
            'H' => (EntryType::Link, ""),
            'P' => (EntryType::Fifo, ""),
            _ => (EntryType::Char, ""),
        };
        header.set_entry_type(kind);
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_700_000_000);
        header.set_size(body.len() as u64);
        let fields = header.as_ustar_mut().unwrap();
        fields.name[..name.len()].copy_from_slice(name.as_bytes());
        if kind.is_symlink() || kind.is_hard_link() {
            fields.linkname[..text.len()].copy_from_slice(text.as_bytes());
        }
        if kind == EntryType::Char {
            header.set_device_major(1).unwrap();
            header.set_device_minor(3).unwrap();
        }
        header.set_cksum();
        builder.append(&header, body.as_bytes()).unwrap();
    }
    builder.into_inner().unwrap()
}

fn extract_within(dest: &Path, mode: Mode, members: &[Member<'_>], limits: &Limits) -> Result<Made, Problem> {
    let bytes = archive(members);
    let size = bytes.len() as u64;
    let mut blob = Blob::new(Box::new(Cursor::new(bytes)), Some(size), None, limits).unwrap();
    extract(&mut blob, dest, mode, limits)
}

fn apply(dest: &Path, members: &[Member<'_>]) -> Result<Made, Problem> {
    extract_within(dest, Mode::Apply, members, &Limits::default())
}

/// All that is in a directory: files with their content, links with their target, directories with a slash.
fn shown(dest: &Path) -> Vec<String> {
    fn collect(dir: &Path, prefix: &str, found: &mut Vec<String>) {
        for entry in fs::read_dir(dir).unwrap() {
            let entry = entry.unwrap();
            let name = format!("{prefix}{}", entry.file_name().to_str().unwrap());
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                found.push(format!("{name}/"));
                collect(&entry.path(), &format!("{name}/"), found);
            } else if kind.is_symlink() {
                found.push(format!("{name}>{}", fs::read_link(entry.path()).unwrap().display()));
            } else {
                found.push(format!("{name}={}", fs::read_to_string(entry.path()).unwrap()));
            }
        }
    }
    let mut found = Vec::new();
    collect(dest, "", &mut found);
    found.sort();
    found
}

/// What layers make, one on the other.
fn made(layers: &[&[Member<'_>]]) -> Vec<String> {
    let dest = TempDir::new().unwrap();
    for layer in layers {
        apply(dest.path(), layer).unwrap();
    }
    shown(dest.path())
}

#[track_caller]
fn refused(layers: &[&[Member<'_>]]) {
    let dest = TempDir::new().unwrap();
    let (last, lower) = layers.split_last().unwrap();
    for layer in lower {
        apply(dest.path(), layer).unwrap();
    }
    match apply(dest.path(), last) {
        Err(problem) => assert_eq!(problem.code(), 7, "{problem}"),
        Ok(_) => panic!("{:?} was made", shown(dest.path())),
    }
}

#[test]
fn whiteouts_reach_lower_layers_only() {
    let lower: &[Member<'_>] = &[('F', "x", "old"), ('F', "d/a", ""), ('F', "d/b/c", "")];
    for upper in [&[('F', "x", "new"), ('F', ".wh.x", "")][..], &[('F', ".wh.x", ""), ('F', "x", "new")]] {
        assert_eq!(made(&[lower, upper]), ["d/", "d/a=", "d/b/", "d/b/c=", "x=new"]);
    }
    assert_eq!(made(&[lower, &[('F', ".wh.x", ""), ('F', ".wh.d", ""), ('F', ".wh.none", "")]]), [""; 0]);
    for upper in [&[('F', "d/b/n", ""), ('F', "d/.wh..wh..opq", "")][..], &[('F', ".wh.d", ""), ('F', "d/b/n", "")]] {
        assert_eq!(made(&[lower, upper]), ["d/", "d/b/", "d/b/n=", "x=old"]);
    }
    assert_eq!(made(&[&[('F', "x", ""), ('F', ".wh.x", "")]]), ["x="]);
}

#[test]
fn what_a_whiteout_leaves_is_what_its_content_implies() {
    let dest = TempDir::new().unwrap();
    apply(dest.path(), &[('D', "d", ""), ('F', "d/old", ""), ('D', "keep", ""), ('F', "keep/x", "")]).unwrap();
    apply(dest.path(), &[('F', "d/new", ""), ('F', ".wh.d", ""), ('F', "keep/.wh.x", "")]).unwrap();
    assert_eq!(shown(dest.path()), ["d/", "d/new=", "keep/"]);
    let time = |name: &str| fs::metadata(dest.path().join(name)).unwrap().modified().unwrap();
    assert_eq!(time("d"), SystemTime::UNIX_EPOCH);
    assert_eq!(fs::metadata(dest.path().join("keep")).unwrap().mtime(), 1_700_000_000);
}

#[test]
fn markers_are_preserved_as_files() {
    let dest = TempDir::new().unwrap();
    let layer =
        [('F', "a/.wh.x", ""), ('F', "a/.wh..wh..opq", ""), ('F', "n", ""), ('H', "h", "lower"), ('H', "i", "n")];
    let made = extract_within(dest.path(), Mode::Preserve, &layer, &Limits::default()).unwrap();
    assert_eq!(shown(dest.path()), ["a/", "a/.wh..wh..opq=", "a/.wh.x=", "i=", "n="]);
    assert_eq!(made.lower_links, 1);
    let again = extract_within(dest.path(), Mode::Preserve, &layer, &Limits::default());
    assert!(matches!(again, Err(Problem::Usage(_))), "onto something");
}

#[test]
fn links_lead_inside() {
    assert_eq!(made(&[&[('S', "l", "../../out"), ('F', "l/x", "")]]), ["l>../../out", "out/", "out/x="]);
    assert_eq!(made(&[&[('S', "d/l", "/etc"), ('F', "d/l/x", "")]]), ["d/", "d/l>../etc", "etc/", "etc/x="]);
    assert_eq!(made(&[&[('S', "a", "b"), ('F', "a", "x")]]), ["a=x"]);
    assert_eq!(made(&[&[('F', "n", ""), ('F', "n/x", "")]]), ["n/", "n/x="]);
    refused(&[&[('S', "a", "b"), ('S', "b", "a"), ('F', "a/x", "")]]);
    refused(&[&[('S', "l", ".wh.x"), ('F', "l/y", "")]]);
}

/// The destination's neighbours are there to be reached, as they are not under WASI.
#[test]
fn nothing_outside_is_reached() {
    let all = TempDir::new().unwrap();
    let (dest, victim) = (all.path().join("dest"), all.path().join("victim"));
    fs::create_dir(&victim).unwrap();
    fs::write(victim.join("hello"), "untouched").unwrap();
    fs::create_dir(&dest).unwrap();
    // As another program could leave it.
    symlink(&victim, dest.join("absolute")).unwrap();
    let _ = apply(&dest, &[('S', "l", "../victim"), ('F', "l/hello", "evil"), ('F', "absolute/new", "")]);
    let _ = apply(&dest, &[('F', "l/.wh.hello", ""), ('F', "absolute/.wh..wh..opq", ""), ('F', ".wh.absolute", "")]);
    let _ = apply(&dest, &[('S', "m", "../victim"), ('H', "h", "m/hello"), ('H', "i", "../victim/hello")]);
    assert_eq!(shown(&victim), ["hello=untouched"]);
    assert_eq!(fs::metadata(victim.join("hello")).unwrap().nlink(), 1);
    assert_eq!(fs::read_dir(all.path()).unwrap().count(), 2);
}

#[test]
fn hard_links_are_made_when_their_targets_are_known() {
    assert_eq!(made(&[&[('H', "a", "b"), ('H', "b", "c"), ('F', "c", "x")]]), ["a=x", "b=x", "c=x"]);
    assert_eq!(made(&[&[('H', "a", "b"), ('F', "b", "x"), ('F', "a", "own")]]), ["a=own", "b=x"]);
    assert_eq!(made(&[&[('H', "d/a", "b"), ('F', "d", "x"), ('F', "b", "")]]), ["b=", "d=x"]);
    assert_eq!(made(&[&[('F', "x", "1")], &[('H', "y", "x")], &[('F', ".wh.x", "")]]), ["y=1"]);
    assert_eq!(made(&[&[('F', "x", "1"), ('H', "x", "x")]]), ["x=1"]);
    for layer in [
        &[('H', "a", "b")][..],
        &[('H', "a", "b"), ('H', "b", "a")],
        &[('D', "d", ""), ('H', "a", "d")],
        &[('H', "a", "a")],
        &[('F', "d/x", ""), ('H', "d", "d/x")],
    ] {
        refused(&[layer]);
    }
    refused(&[&[('F', "x", "")], &[('H', "y", "x"), ('F', ".wh.x", "")]]);
}

#[test]
fn what_is_missing_is_passed_and_not_made() {
    let lower: &[Member<'_>] = &[('F', "etc/x", "1"), ('F', "etc/y", ""), ('S', "l", "gone/../etc"), ('F', "f", "")];
    let upper: &[Member<'_>] =
        &[('F', "l/.wh.y", ""), ('H', "h", "l/x"), ('S', "m", "f/../no/../etc"), ('H', "i", "m/x")];
    let all = ["etc/", "etc/x=1", "f=", "h=1", "i=1", "l>gone/../etc", "m>f/../no/../etc"];
    assert_eq!(made(&[lower, upper]), all);
    refused(&[&[('F', "etc/x", ""), ('S', "l", "gone/etc"), ('H', "h", "l/x")]]);
    let dest = TempDir::new().unwrap();
    let layer = [('S', "l", "gone/../etc"), ('F', "l/.wh.x", ""), ('F', "l/n", "")];
    extract_within(dest.path(), Mode::Preserve, &layer[..2], &Limits::default()).unwrap();
    assert_eq!(shown(dest.path()), ["etc/", "etc/.wh.x=", "l>gone/../etc"]);
}

#[test]
fn refused_entries_leave_nothing_under_their_names() {
    for layer in [
        &[('F', "f", ""), ('H', "a", "nothing"), ('H', "b", "c"), ('H', "c", "b")][..],
        &[('H', "a", "later"), ('F', "f", ""), ('F', "../g", "")],
        &[('F', "f", ""), ('D', "d", ""), ('H', "a", "d/x"), ('H', "b", "d")],
    ] {
        let dest = TempDir::new().unwrap();
        assert_eq!(apply(dest.path(), layer).unwrap_err().code(), 7);
        let left = shown(dest.path());
        assert!(left.iter().all(|line| line == "f=" || line == "d/"), "{left:?}");
    }
}

#[test]
fn a_chain_of_links_in_the_worst_order_takes_no_longer() {
    let names: Vec<String> = (0..20_000).map(|number| format!("l{number:05}")).collect();
    let mut layer: Vec<Member<'_>> = names.windows(2).map(|pair| ('H', &*pair[0], &*pair[1])).collect();
    layer.push(('F', &names[names.len() - 1], "end"));
    assert_eq!(made(&[&layer]).len(), names.len());
}

#[test]
fn links_to_absolute_paths_are_seen_from_where_they_lie() {
    let layer = [('S', "d/e/l", "/../x//y"), ('H', "same/e/h", "d/e/l"), ('H', "h", "d/e/l"), ('F', "h/in", "")];
    let dest = TempDir::new().unwrap();
    let made = apply(dest.path(), &layer).unwrap();
    assert_eq!((made.absolute, made.split), (1, 1));
    let seen = shown(dest.path());
    for expected in ["d/e/l>../../x//y", "same/e/h>../../x//y", "h>x//y", "x/y/in="] {
        assert!(seen.iter().any(|line| line == expected), "{expected} in {seen:?}");
    }
    let inode = |name: &str| fs::symlink_metadata(dest.path().join(name)).unwrap().ino();
    assert_eq!(inode("d/e/l"), inode("same/e/h"));
}

#[test]
fn times_are_kept() {
    let dest = TempDir::new().unwrap();
    apply(dest.path(), &[('D', "d", ""), ('S', "d/l", "f"), ('F', "d/f", ""), ('F', "implied/x", "")]).unwrap();
    let time = |name: &str| fs::symlink_metadata(dest.path().join(name)).unwrap().mtime();
    for name in ["d", "d/l", "d/f", "implied/x"] {
        assert_eq!(time(name), 1_700_000_000, "{name}");
    }
    assert_eq!(time("implied"), 0);
}

#[test]
fn what_cannot_be_made_is_counted_and_replaces_all_the_same() {
    let dest = TempDir::new().unwrap();
    let layer = [('F', "x", ""), ('C', "x", ""), ('P', "p", ""), ('H', "h", "x"), ('H', "later", "q"), ('P', "q", "")];
    let made = apply(dest.path(), &layer).unwrap();
    assert_eq!(shown(dest.path()), [""; 0]);
    assert_eq!((made.devices, made.pipes, made.unmade_links), (1, 2, 2));
    assert!(made.left_out().iter().any(|line| line == "left out: named pipes (2)"), "{:?}", made.left_out());
}

/// CVE-2026-95838: each directory is pruned once.
#[test]
fn markers_cost_what_is_there() {
    let dest = TempDir::new().unwrap();
    let names: Vec<String> = (0..300).map(|number| format!("d/{number}/f")).collect();
    let lower: Vec<Member<'_>> = names.iter().map(|name| ('F', &**name, "")).collect();
    apply(dest.path(), &lower).unwrap();
    let markers: Vec<String> = (0..300).map(|number| format!("d/{number}/.wh..wh..opq")).collect();
    let mut upper: Vec<Member<'_>> = vec![('F', "d/.wh..wh..opq", "")];
    upper.extend(markers.iter().map(|name| ('F', &**name, "")));
    apply(dest.path(), &upper).unwrap();
    assert_eq!(shown(dest.path()), ["d/"]);
}

#[test]
fn limits_are_crossed() {
    let limited = |setting: &str, layer: &[Member<'_>]| {
        let mut limits = Limits::default();
        limits.set(setting).unwrap();
        let dest = TempDir::new().unwrap();
        match extract_within(dest.path(), Mode::Apply, layer, &limits) {
            Err(problem @ Problem::Limit { .. }) => assert_eq!(problem.code(), 7),
            other => panic!("{setting}: {other:?}"),
        }
    };
    limited("entries=1", &[('F', "a", ""), ('F', "b", "")]);
    limited("file-bytes=1", &[('F', "a", "12")]);
    limited("implied-directories=0", &[('F', "a/b/c/d", "")]);
    limited("link-hops=1", &[('S', "a", "b"), ('S', "b", "c"), ('F', "a/x", "")]);
    limited("link-steps=0", &[('S', "a", &"b/../".repeat(18)), ('D', "b", ""), ('F', "a/x", ""), ('F', "a/y", "")]);
    limited("deferred-bytes=100", &[('F', "a/b/c", ""), ('F', "d/e/f", "")]);
    limited("depth=2", &[('S', "l", "a/b"), ('F', "l/x", "")]);
    limited("path-bytes=5", &[('S', "l", "a/b/c"), ('F', "l/x", "")]);
}
