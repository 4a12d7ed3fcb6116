//! What an extractor may claim: paths, sizes, numbers, lists, and more of them than anybody wants.

use std::path::Path;

use anyhow::{Result, ensure};
use cofferdam::tree::Mode;
use cofferdam_tests::Snapshot;

use crate::attack::{Attack, Ends, MODES, Scene};
use crate::script::{Claim, FOREVER, Node, Script, claim, many};

/// One claim, and how it ends.
fn one(name: &str, claim: Claim, ends: Ends) -> Attack {
    Attack::extractor(name, Script::extractor().put(claim).succeed(), ends)
}

/// A path, claimed for every kind of entry, and as the target of a hard link.
fn everywhere(name: &str, path: impl Into<crate::script::Bytes>, ends: Ends) -> Vec<Attack> {
    let path = path.into();
    let nodes = [
        Node::Directory,
        Node::File(0),
        Node::Sparse(10, vec![(0, 0)], 1),
        Node::Symlink("x".into()),
        Node::HardLink("x".into()),
        Node::CharDevice(1, 3),
        Node::Fifo,
        Node::Whiteout,
        Node::Opaque,
    ];
    let link = one(&format!("{name}, as a link's target"), claim("link", Node::HardLink(path.clone())), ends);
    let attack = |node: Node| one(&format!("{name}, {node:?}"), claim(path.clone(), node), ends);
    nodes.map(attack).into_iter().chain([link]).collect()
}

pub fn paths_out_of_the_root() -> Vec<Attack> {
    let refused = Ends::Refused("");
    let mut attacks = Vec::new();
    for path in ["..", "../victim/x", "a/../../victim/x", "a/..", "./x", "x/.", "/etc/passwd", "//x", "x/", "a//x"] {
        attacks.extend(everywhere(path, path, refused));
    }
    attacks.extend(everywhere("NUL", b"etc/x\0/../../victim", refused));
    attacks.extend(everywhere("a whiteout's name", "a/.wh.b", refused));
    attacks.extend(everywhere("the opaque marker's name", "a/.wh..wh..opq", refused));
    attacks
}

pub fn paths_without_measure() -> Vec<Attack> {
    let mut attacks = everywhere("1 MiB in one name", many("n", 1 << 20), Ends::Limit("path"));
    attacks.extend(everywhere("a million directories deep", many("d/", 1_000_000), Ends::Limit("path")));
    attacks.extend(everywhere("4 KiB in one name", many("n", 4000), Ends::Limit("component")));
    attacks.extend(everywhere("2000 deep", many("d/", 2000), Ends::Refused("")));
    attacks
}

pub fn roots() -> Vec<Attack> {
    let root = |name, node| one(name, claim("", node), Ends::Refused("root"));
    vec![
        root("a file as root", Node::File(0)),
        root("a link as root", Node::Symlink("../victim".into())),
        root("a hard link as root", Node::HardLink("a".into())),
        root("a device as root", Node::CharDevice(1, 3)),
        root("a removal of the root", Node::Whiteout),
        one("a hard link to the root", claim("link", Node::HardLink("".into())), Ends::Refused("root")),
    ]
}

/// A link to the victim, then everything that a guest can do through it.
pub fn links_out_of_the_root() -> Vec<Attack> {
    let mut attacks = Vec::new();
    for (target, what) in [("../victim", "relative"), ("../../../../../../../../victim", "far"), ("/", "absolute")] {
        let through = |node| {
            Script::extractor()
                .put(claim("out", Node::Symlink(target.into())))
                .put(Claim { mode: 0, ..claim("out/a/x", node) })
                .succeed()
        };
        for node in
            [Node::Directory, Node::File(0), Node::Symlink("y".into()), Node::Fifo, Node::Whiteout, Node::Opaque]
        {
            let name = format!("{node:?} through a link, {what}");
            attacks.push(Attack::extractor(name, through(node), Ends::Contained));
        }
        let link = through(Node::HardLink("out/etc/passwd".into()));
        let attack = Attack::extractor(format!("a hard link through a link, {what}"), link, Ends::Refused("hard link"));
        // Kept alone, the link may be to what a lower layer has; then it is noted.
        attacks.push(attack.preserved(Ends::Contained));
    }
    let overwrite = Script::extractor()
        .put(claim("x", Node::Symlink("../victim/f".into())))
        .put(claim("x", Node::File(4)))
        .content(b"evil")
        .put(claim("y", Node::Symlink("../victim".into())))
        .put(Claim { mode: 0o777, ..claim("y", Node::Directory).with("user.evil", "1") })
        .put(claim("z", Node::Symlink("../victim".into())))
        .put(claim("z", Node::Whiteout))
        .succeed();
    attacks.push(Attack::extractor("what a link points at, overwritten", overwrite, Ends::Contained));
    let around =
        Script::extractor().put(claim("l", Node::Symlink("l/l/l/l".into()))).put(claim("l/x", Node::File(0))).succeed();
    attacks.push(Attack::extractor("a link around in circles", around, Ends::Limit("symbolic links in a path")));
    attacks
}

pub fn sizes() -> Vec<Attack> {
    let limit = Ends::Limit("");
    let sparse =
        |name, size, extents: &[(u64, u64)], ends| one(name, claim("s", Node::Sparse(size, extents.to_vec(), 1)), ends);
    let (top, half) = (u64::MAX, 1 << 63);
    vec![
        one("a file of 2⁶⁴ - 1 bytes", claim("f", Node::File(top)), limit),
        one("a file of 2⁶³ bytes", claim("f", Node::File(half)), limit),
        one("a file larger than the layer", claim("f", Node::File(1 << 20)), limit),
        sparse("a hole of 2⁶⁴ - 1 bytes", top, &[], limit),
        sparse("extents behind the limit of a file", top, &[(half, 1)], limit),
        sparse("extents that end past 2⁶⁴", 1 << 30, &[(top, 2)], Ends::Refused("extents")),
        sparse("extents that end past 2⁶³", 1 << 30, &[(half, 1)], Ends::Refused("extents")),
        sparse("an extent of 2⁶⁴ - 1 bytes", 1 << 30, &[(1, top)], Ends::Refused("extents")),
        sparse("extents whose sum overflows", 1 << 30, &[(0, top), (0, top)], Ends::Refused("extents")),
        sparse("extents that overlap", 100, &[(0, 10), (9, 1)], Ends::Refused("extents")),
        sparse("extents that run backwards", 100, &[(10, 10), (0, 1)], Ends::Refused("extents")),
        sparse("extents larger than the layer", 1 << 30, &[(0, 1 << 29)], limit),
        one("10 001 extents", claim("s", Node::Sparse(10, vec![(0, 0)], 10_001)), Ends::Limit("extents")),
        one(
            "extents beyond what a call may carry",
            claim("s", Node::Sparse(10, vec![(0, 0)], 300_000)),
            Ends::Misuse(""),
        ),
    ]
}

pub fn numbers() -> Vec<Attack> {
    let file = || claim("f", Node::File(0));
    let refused = |name, claim| one(name, claim, Ends::Refused("range"));
    vec![
        one("13 bits of mode", Claim { mode: 0o10000, ..file() }, Ends::Refused("permissions")),
        one("32 bits of mode", Claim { mode: u32::MAX.into(), ..file() }, Ends::Refused("permissions")),
        refused("the user that is nobody", Claim { uid: u32::MAX.into(), ..file() }),
        refused("the group that is nobody", Claim { gid: u32::MAX.into(), ..file() }),
        refused("a second of 10⁹ nanoseconds", Claim { nanoseconds: 1_000_000_000, ..file() }),
        refused("4096 as a major number", claim("d", Node::CharDevice(4096, 0))),
        refused("2²⁰ as a minor number", claim("d", Node::BlockDevice(0, 1 << 20))),
        refused("2³² - 1 as a major number", claim("d", Node::CharDevice(u32::MAX.into(), u32::MAX.into()))),
        one("no target", claim("l", Node::Symlink("".into())), Ends::Refused("target")),
        one("a NUL in a target", claim("l", Node::Symlink(b"a\0b".into())), Ends::Refused("NUL")),
        one("a target of 4096 bytes", claim("l", Node::Symlink(many("t", 4096))), Ends::Limit("target")),
        one("a target of 3 MiB", claim("l", Node::Symlink(many("t", 3 << 20))), Ends::Limit("target")),
        one("the first second", Claim { seconds: i64::MIN, ..file() }, Ends::Contained),
        one("the last second", Claim { seconds: i64::MAX, nanoseconds: 999_999_999, ..file() }, Ends::Contained),
    ]
}

pub fn lists() -> Vec<Attack> {
    let file = || claim("f", Node::File(0));
    let megabyte = || many("v", 1 << 20);
    vec![
        one("an attribute without a name", file().with("", "v"), Ends::Refused("name")),
        one("a NUL in a name", file().with(b"user.a\0b", "v"), Ends::Refused("name")),
        one("a name of 256 bytes", file().with(many("n", 256), "v"), Ends::Refused("name")),
        one("a value of 1 MiB", file().with("user.a", megabyte()), Ends::Limit("attributes")),
        one(
            "257 attributes",
            Claim { attributes_repeated: 257, ..file().with("user.a", "v") },
            Ends::Limit("attributes"),
        ),
        one(
            "the same MiB a thousand times",
            Claim { attributes_repeated: 1000, ..file().with("user.a", megabyte()) },
            Ends::Misuse(""),
        ),
        one("a million attributes", Claim { attributes_repeated: 1_000_000, ..file().with("", "") }, Ends::Misuse("")),
        one("a path of 30 MiB", claim(many("p", 30 << 20), Node::File(0)), Ends::Misuse("")),
        one("a target of 30 MiB", claim("l", Node::HardLink(many("p", 30 << 20))), Ends::Misuse("")),
        one("an attribute of 30 MiB", file().with(many("p", 30 << 20), ""), Ends::Misuse("")),
        Attack::extractor(
            "a message of 30 MiB",
            Script::extractor().log(many("m", 30 << 20), 1).succeed(),
            Ends::Misuse(""),
        ),
        Attack::extractor(
            "a failure of 30 MiB",
            Script::extractor().fail(1, many("m", 30 << 20), many("p", 1)),
            Ends::Misuse(""),
        ),
        Attack::extractor(
            "a failure's path of 3 MiB",
            Script::extractor().fail(1, many("\u{1b}", 99), many("p", 3 << 20)),
            Ends::Refused(""),
        ),
    ]
}

/// More than anybody wants, of everything that the host remembers or makes.
pub fn counts() -> Vec<Attack> {
    let names = Ends::Limit("names to remember");
    let few =
        |name: &str, claim: Claim, ends| one(name, claim.numbered(FOREVER), ends).under(|l| l.deferred_bytes = 10_000);
    let deep = format!("{}x", "d/".repeat(200));
    vec![
        one("entries without end", claim("f", Node::Fifo).numbered(FOREVER), Ends::Limit("entries"))
            .under(|limits| limits.entries = 500),
        one("the same entry without end", Claim { times: FOREVER, ..claim("f", Node::Fifo) }, Ends::Limit("entries"))
            .under(|limits| limits.entries = 500),
        few("directories without end", claim("d", Node::Directory), names),
        few("directories within directories, implied", claim(deep.as_str(), Node::Directory), names),
        few("links to what never comes", claim("l", Node::HardLink("never".into())), names),
        few("links to themselves", claim("l", Node::HardLink("l".into())), names),
        one(
            "metadata without end",
            claim("l", Node::Symlink(many("t", 4000))).numbered(FOREVER),
            Ends::Limit("may still decode to"),
        )
        .under(|limits| limits.layer_bytes = 1 << 20),
        one(
            "attributes without end",
            claim("f", Node::File(0)).with("user.a", many("v", 3000)).numbered(FOREVER),
            Ends::Limit("may still decode to"),
        )
        .under(|limits| limits.layer_bytes = 1 << 20),
    ]
}

/// Claims in the places that a neighbour swaps, again and again, and each made in another way.
pub fn races() -> Vec<Attack> {
    let rounds = |name: &str, claims: &[Claim]| {
        let mut script = Script::extractor();
        for _ in 0..20 {
            script = claims.iter().fold(script, |script, claim| script.put(claim.clone()));
        }
        Attack::extractor(name, script.succeed(), Ends::Contained)
    };
    let dir = |path: &str| claim(path, Node::Directory).with("user.evil", "1");
    let file = |path: &str| Claim { mode: 0o6777, ..claim(path, Node::File(0)).with("user.evil", "1") };
    vec![
        rounds("directories and files in them", &[dir("a"), dir("a/b"), file("a/b/f"), dir("a/b/c"), file("a/b/c/f")]),
        rounds(
            "modes",
            &[Claim { mode: 0, ..dir("a") }, Claim { mode: 0o777, ..dir("a/b") }, dir("etc"), file("etc/passwd")],
        ),
        rounds(
            "things replaced",
            &[dir("d/sub"), file("d"), claim("d/sub/f", Node::Fifo), claim("d", Node::Symlink("a/b".into()))],
        ),
        rounds(
            "removals",
            &[
                file("gone/deep/f"),
                claim("gone/deep", Node::Whiteout),
                claim("gone", Node::Opaque),
                claim("gone", Node::Whiteout),
                claim("a/b", Node::Whiteout),
            ],
        ),
        rounds(
            "links",
            &[
                file("a/f"),
                claim("etc/hosts", Node::HardLink("a/f".into())),
                claim("a/b/link", Node::HardLink("etc/hosts".into())),
            ],
        ),
        rounds(
            "specials",
            &[
                claim("a/b/x", Node::Fifo),
                claim("a/b/x", Node::Symlink("f".into())),
                claim("etc/x", Node::CharDevice(1, 3)),
            ],
        ),
        rounds(
            "sparse",
            &[claim("wide/f", Node::Sparse(1 << 20, vec![], 1)), claim("deep/0/1/f", Node::Sparse(1 << 20, vec![], 1))],
        ),
    ]
}

#[test]
fn lies_in_the_places_of_the_races_are_harmless() -> Result<()> {
    let lies = races().into_iter().filter(|attack| attack.name != "specials" || cofferdam_tests::require::is_root());
    Scene::new()?.withstands(lies.collect())
}

#[test]
fn paths_that_leave_the_root_are_refused() -> Result<()> {
    Scene::new()?.withstands(paths_out_of_the_root())
}

#[test]
fn paths_without_measure_are_refused() -> Result<()> {
    Scene::new()?.withstands(paths_without_measure())
}

#[test]
fn the_root_stays_a_directory() -> Result<()> {
    Scene::new()?.withstands(roots())
}

#[test]
fn links_out_of_the_root_stay_inside() -> Result<()> {
    Scene::new()?.withstands(links_out_of_the_root())
}

#[test]
fn sizes_that_overflow_are_refused() -> Result<()> {
    Scene::new()?.withstands(sizes())
}

#[test]
fn numbers_out_of_range_are_refused() -> Result<()> {
    Scene::new()?.withstands(numbers())
}

#[test]
fn lists_beyond_what_a_call_may_carry_are_not_lifted() -> Result<()> {
    Scene::new()?.withstands(lists())
}

#[test]
fn whatever_can_be_counted_has_a_limit() -> Result<()> {
    Scene::new()?.withstands(counts())
}

/// The attributes by which overlayfs and rootless runtimes take a file for something else are not a layer's to set.
#[test]
fn attributes_of_the_runtime_cannot_be_forged() -> Result<()> {
    let scene = Scene::new()?;
    let forged =
        ["user.containers.override_stat", "trusted.overlay.opaque", "user.overlay.opaque", "trusted.overlay.redirect"];
    let mut file = claim("f", Node::File(0)).with("user.honest", "1");
    let mut dir = claim("d", Node::Directory);
    for name in forged {
        file = file.with(name, "0:0:0104755");
        dir = dir.with(name, "y");
    }
    let attack = Attack::extractor("forged", Script::extractor().put(file).put(dir).succeed(), Ends::Contained);
    for mode in MODES {
        let dest = scene.dest(mode)?;
        attack.judge(attack.unpack(&dest, mode)?, mode)?;
        let found = attributes(&dest, mode)?;
        ensure!(found.iter().any(|name| name == "user.honest"), "{mode:?}: no attribute at all: {found:?}");
        for name in found {
            // As an ordinary user, the writer records owners in this attribute: then the value is its own.
            let recorded = name == "user.containers.override_stat" && !cofferdam_tests::require::is_root();
            ensure!(recorded || !forged.contains(&name.as_str()), "{mode:?}: {name} was set");
        }
    }
    scene.ensure_contained()
}

fn attributes(dest: &Path, mode: Mode) -> Result<Vec<String>> {
    let snapshot = Snapshot::read(dest)?;
    let mut names = Vec::new();
    for path in ["f", "d"] {
        let entry = snapshot.entries.get(path.as_bytes()).ok_or_else(|| anyhow::anyhow!("{mode:?}: no {path}"))?;
        for (name, value) in &entry.xattrs {
            ensure!(value != b"0:0:0104755", "{mode:?}: {} is the layer's own word", String::from_utf8_lossy(name));
            names.push(String::from_utf8_lossy(name).into_owned());
        }
    }
    Ok(names)
}
