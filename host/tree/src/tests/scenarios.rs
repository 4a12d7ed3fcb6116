//! Scenarios of the field: layers on top of each other, applied one by one and merged from preserved trees.

use cofferdam_core::error::{Error, ErrorKind};

use super::{Lab, RESOLVERS, merge, options, snapshot, write};
use crate::Mode;

/// Name, layers, and what the tree holds then; `7` for refused.
type Case = (&'static str, &'static [&'static str], &'static str);

const WHITEOUTS: &[Case] = &[
    (
        "1",
        &["F file1, F a/file2, D b, F c/file3", "W .wh.file1, W a/.wh.file2, W .wh.b, F file4"],
        "a/ c/ c/file3 file4",
    ),
    ("2 first", &["F a/b/c/bar", "W a/.wh..wh..opq, D a, D a/b, D a/b/c, F a/b/c/foo"], "a/ a/b/ a/b/c/ a/b/c/foo"),
    ("2 last", &["F a/b/c/bar", "D a, D a/b, D a/b/c, F a/b/c/foo, W a/.wh..wh..opq"], "a/ a/b/ a/b/c/ a/b/c/foo"),
    ("3", &["F x", r#"F x "new", W .wh.x"#], "x=new"),
    ("3 first", &["F x", r#"W .wh.x, F x "new""#], "x=new"),
    (
        "4",
        &["F d/another/dir/x", "F d/some/dir/somewhere, W d/.wh..wh..opq"],
        "d/ d/some/ d/some/dir/ d/some/dir/somewhere",
    ),
    ("5", &["F dir1/link", "F dir1/file, W .wh.dir1"], "dir1/ dir1/file"),
    ("5 first", &["F dir1/link", "W .wh.dir1, F dir1/file"], "dir1/ dir1/file"),
    ("5 deep", &["F d/e/f/g, F d/e/h", "F d/e/f/own, W .wh.d"], "d/ d/e/ d/e/f/ d/e/f/own"),
    ("6 link", &["F etc/passwd, S localetc->/etc", "W .wh.localetc"], "etc/ etc/passwd"),
    ("6 through", &["F etc/passwd, S localetc->/etc", "W localetc/.wh.passwd"], "etc/ localetc->/etc"),
    ("6 both", &["F etc/passwd, S localetc->/etc", "W localetc/.wh.passwd, W .wh.localetc"], "etc/"),
    ("7 dangling", &["S localetc->/dne, F etc", "W localetc/.wh.etc"], "etc localetc->/dne"),
    ("7 parent", &["F etc", "W .wh.etc"], ""),
    ("9", &["F .hiddenroot", "W .wh..hiddenroot"], ""),
    ("9 bytes", &["F d/\\xff, F d/keep", "W d/.wh.\\xff"], "d/ d/keep"),
    ("11", &["S d->../../victim", "W d/.wh.hello, W d/.wh..wh..opq"], "d->../../victim"),
    ("listed directory", &["F d/low, D d 0700", "D d 0750, W .wh.d"], "d/"),
    ("root opaque", &["F a, F b/c", "F b/own, W .wh..wh..opq"], "b/ b/own"),
    ("own link", &["F e/x, F e/y", "S l->e, W l/.wh.x"], "e/ e/y l->e"),
    ("a file's whiteout does not reach own children", &["F p", "W .wh.p, F p/c"], "p/ p/c"),
    ("a missing parent is not made", &["F a", "W dne/deep/.wh.x, W dne/.wh..wh..opq"], "a"),
    ("a parent that is a file", &["F a", "W a/.wh.x, W a/.wh..wh..opq"], "a"),
    ("nothing lower", &["F x, W .wh.x, W .wh..wh..opq"], "x"),
    ("markers of nested directories", &["F a/b/c/x, F a/y", "W a/b/.wh..wh..opq, W a/.wh.b, W a/.wh..wh..opq"], "a/"),
    ("three layers", &["F x, F y", "W .wh.x", "F x/z, W .wh.y"], "x/ x/z"),
];

const PATHS: &[Case] = &[
    ("15", &[r#"F etc/x "1""#, r#"F etc/x "2""#], "etc/ etc/x=2"),
    ("15 names", &["F ..gitme, F \\xff, F n\u{fc}, F nu\u{308}"], "..gitme \\xff n\\xc3\\xbc nu\\xcc\\x88"),
    ("16", &["S localetc->/etc, F localetc/unbroken"], "etc/ etc/unbroken localetc->/etc"),
    (
        "16 dummy",
        &["D dummy, S localetc->/dummy/../etc, F localetc/unbroken"],
        "dummy/ etc/ etc/unbroken localetc->/dummy/../etc",
    ),
    ("17 absolute", &["S a->/b, F a/c/data"], "a->/b b/ b/c/ b/c/data"),
    ("17 up", &["S a->../b, F a/c/data"], "a->../b b/ b/c/ b/c/data"),
    ("17 far up", &["S a->../../../../test, F a/c/data"], "a->../../../../test test/ test/c/ test/c/data"),
    ("17 root", &["S a->/, F a/c/data"], "a->/ c/ c/data"),
    ("17 above", &["S a->/../../, F a/c/data"], "a->/../../ c/ c/data"),
    ("17 chain", &["S a->b, S b->/c, S c->d, F a/e"], "a->b b->/c c->d d/ d/e"),
    ("18", &["S lib->usr/lib", "F lib/x"], "lib->usr/lib usr/ usr/lib/ usr/lib/x"),
    ("18 run", &["S var/run->/run", "F var/run/a/f"], "run/ run/a/ run/a/f var/ var/run->/run"),
    (
        "19",
        &["D target, S escape->.., S absolute->/target", "F escape/absolute/file"],
        "absolute->/target escape->.. target/ target/file",
    ),
    (
        "20",
        &["D inner, S inner/go_up->.., S inner/go_up/escape->../victim, F inner/go_up/escape/new"],
        "escape->../victim inner/ inner/go_up->.. victim/ victim/new",
    ),
    ("21", &[r#"S loophole->../victim, F loophole/file, F loophole "x""#], "loophole=x victim/ victim/file"),
    ("21 link", &["S loophole->../victim, F loophole/file, H h->loophole/hello"], "7"),
    (
        "22",
        &[r#"D foo, D foo/tmp, F foo/tmp/b "1", S foo->/, F foo/tmp/b "2", D foo, F foo/tmp/b "3""#],
        "foo/ foo/tmp/ foo/tmp/b=3 tmp/ tmp/b=2",
    ),
    ("23", &["S foo->../victim, D foo 0777"], "foo/"),
    ("23 loop", &["S a->b, S b->a, F a/x"], "7"),
    ("23 whiteout in a loop", &["S a->b, S b->a", "W a/.wh.x"], "7"),
    ("24", &["F nondir, F nondir/foo/bar"], "nondir/ nondir/foo/ nondir/foo/bar"),
    ("24 link", &["S ln->real, F real, F ln/child"], "ln->real real/ real/child"),
    ("24 lower", &["F nondir", "F nondir/foo/bar"], "nondir/ nondir/foo/ nondir/foo/bar"),
    ("trailing slash in a target", &["S a->b/, F a/x"], "a->b/ b/ b/x"),
    ("dots in a target", &["S a->./b/./c/../d/., F a/x"], "a->./b/./c/../d/. b/ b/c/ b/d/ b/d/x"),
    ("directory over a lower link", &["S d->e, F e/x", "D d, F d/y"], "d/ d/y e/ e/x"),
    ("directory over a lower file", &["F d", "D d"], "d/"),
    ("file over a lower directory", &["F d/e/f", "F d"], "d"),
    ("link over a lower directory", &["F d/e/f", "S d->x"], "d->x"),
    ("file over a link", &["F t, S l->t", r#"F l "own""#], "l=own t"),
    ("replaced, then a directory again", &["F d/low", "F d, D d, F d/own"], "d/ d/own"),
    ("replaced, then implied again", &["F d/low", "F d, F d/own"], "d/ d/own"),
    ("implied, then listed", &["D d", "F d/x, D d 0700"], "d/ d/x"),
    ("a link to a marker's name", &["S a->.wh.b, F a/x"], "7"),
    ("implied directories that stay empty", &["S a->b/../c, F a/x"], "a->b/../c b/ c/ c/x"),
];

const LINKS: &[Case] = &[
    (
        "25",
        &[r#"F etc/passwd "p", S br/d1->../../etc, H br/my->br/d1/passwd"#],
        "br/ br/d1->../../etc br/my=p etc/ etc/passwd==br/my",
    ),
    ("26", &["H dotdot->victim/hello"], "7"),
    ("27", &[r#"S sym->../reg, F reg 0600 "r", H b->sym, H c->reg"#], "b->../reg c=r reg==c sym==b"),
    ("28 later", &[r#"H l->t, F t "t""#], "l=t t==l"),
    ("28 whiteout", &[r#"F t "t", H l->t, W .wh.t"#], "l=t t==l"),
    ("28 alone", &["H a->b"], "7"),
    ("28 removed", &["F x", "W .wh.x, H y->x"], "7"),
    ("28 removed later", &["F x", "H y->x, W .wh.x"], "7"),
    ("28 removed with its directory", &["F d/x", "H y->d/x, W d/.wh..wh..opq"], "7"),
    ("29", &[r#"F x "old", H y->x"#, r#"F x "new""#], "x=new y=old"),
    ("29 lower", &[r#"F x "x""#, "H y->x", "W .wh.x"], "y=x"),
    ("lower target replaced later", &[r#"F x "old""#, r#"H y->x, F x "new""#], "x=new y==x"),
    ("chain backwards", &[r#"H a->b, H b->c, H c->d, F d "d""#], "a=d b==a c==a d==a"),
    ("chain into a lower layer", &[r#"F d "d""#, "H a->b, H b->c, H c->d"], "a=d b==a c==a d==a"),
    ("cycle", &["H a->b, H b->a"], "7"),
    ("cycle over a lower file", &["F a", "H b->a, H a->b"], "7"),
    ("to itself", &[r#"F a "a", H a->a"#], "a=a"),
    ("to itself, lower", &[r#"F a "a""#, "H a->a"], "a=a"),
    ("to itself, lower, removed", &["F a", "H a->a, W .wh.a"], "7"),
    ("to itself, removed with its directory", &["F d/a", "H d/a->d/a, W .wh.d"], "7"),
    ("to itself, its directory replaced", &["F d/a", "H d/a->d/a, F d"], "d"),
    ("to itself, missing", &["H a->a"], "7"),
    ("to a directory", &["D d, H l->d"], "7"),
    ("to a lower directory", &["D d", "H l->d"], "7"),
    ("to the root", &["H l->."], "7"),
    ("to a sibling of the same inode", &[r#"F a "a", H b->a, H b->a, H a->b"#], "a=a b==a"),
    ("void: replaced by a file", &[r#"H a->later, F a "own", F b"#], "a=own b"),
    ("void: replaced by a directory", &["H a->later, F a/x"], "a/ a/x"),
    ("void: its directory replaced", &[r#"H d/a->later, F d "own""#], "d=own"),
    ("void: its directory replaced twice", &["H d/a->later, F d, D d"], "d/"),
    ("void: linked again", &[r#"H a->later, F t "t", H a->t"#], "a=t t==a"),
    ("through a link that waits", &[r#"H p->s, H q->p/x, S s->d, F d/x "x""#], "d/ d/x=x p->d q==d/x s==p"),
    ("to a link", &["F t, S s->t", "H l->s"], "l->t s==l t"),
    ("over a lower directory", &[r#"F d/x, F t "t""#, "H d->t"], "d=t t==d"),
    ("out of the directory it replaces", &["F d/t", "H d->d/t"], "7"),
    ("in a new directory", &[r#"F t "t""#, "H a/b/l->t"], "a/ a/b/ a/b/l=t t==a/b/l"),
    ("written over", &[r#"F a "1", H b->a, F a "2""#], "a=2 b=1"),
    ("lower written over", &[r#"F a "1", H b->a"#, r#"F b "2""#], "a=1 b=2"),
    (
        "target through what is missing",
        &[r#"F etc/x "x", S e->no/../etc"#, "H l->e/x"],
        "e->no/../etc etc/ etc/x=x l==etc/x",
    ),
    ("target in what is missing", &["F etc/x, S e->no/../no/etc", "H l->e/x"], "7"),
    (
        "target through a file",
        &[r#"F f "f", F etc/x "x", S e->f/../etc"#, "H l->e/x"],
        "e->f/../etc etc/ etc/x=x f=f l==etc/x",
    ),
    ("target through a link", &[r#"F etc/x "x", S e->/etc"#, "H l->e/x"], "e->/etc etc/ etc/x=x l==etc/x"),
];

fn check(cases: &[Case]) {
    for (name, layers, expected) in cases {
        for resolver in RESOLVERS {
            let lab = Lab::new();
            let applied = write(&lab.dest(), options(Mode::Apply, resolver), layers);
            let merged_lab = Lab::new();
            let merged = merge(&merged_lab, &merged_lab.dest(), &options(Mode::Apply, resolver), layers);
            lab.assert_contained();
            merged_lab.assert_contained();
            for (how, outcome, lab) in [("applied", applied.map(|_| ()), &lab), ("merged", merged, &merged_lab)] {
                match outcome {
                    Ok(()) => assert_eq!(lab.listing(), *expected, "{name}, {how}, {resolver:?}"),
                    Err(error) => {
                        assert_eq!("7", *expected, "{name}, {how}, {resolver:?}: {error}");
                        assert_eq!(error.kind(), ErrorKind::Refused, "{name}, {how}, {resolver:?}: {error}");
                    }
                }
            }
            if *expected != "7" {
                assert_same(&lab, &merged_lab, &format!("{name}, {resolver:?}"));
            }
        }
    }
}

/// All metadata too, but for the root's, which no layer lists.
fn assert_same(applied: &Lab, merged: &Lab, what: &str) {
    let [mut applied, mut merged] = [applied, merged].map(|lab| snapshot::full(&lab.dest()));
    applied.remove(".");
    merged.remove(".");
    assert_eq!(applied, merged, "{what}");
}

#[test]
fn whiteouts() {
    check(WHITEOUTS);
}

#[test]
fn paths() {
    check(PATHS);
}

#[test]
fn hard_links() {
    check(LINKS);
}

#[test]
fn the_root_takes_its_metadata() {
    let layers = ["D . 0711 @3 user.root=1, F x", "F y, W .wh.x"];
    let [applied, merged] = [Lab::new(), Lab::new()];
    write(&applied.dest(), options(Mode::Apply, RESOLVERS[0]), &layers).unwrap();
    merge(&merged, &merged.dest(), &options(Mode::Apply, RESOLVERS[0]), &layers).unwrap();
    let [applied, merged] = [applied, merged].map(|lab| snapshot::full(&lab.dest()));
    assert_eq!(applied, merged);
    assert!(applied["."].contains("mtime 3.") && applied["."].contains("user.root=1"), "{applied:?}");
}

/// What a way passes without need may be a link in a lower layer. A merge that cannot tell says so.
#[test]
fn what_is_only_passed_may_be_a_link_below() {
    let lower = r#"D deep/er, F deep/etc/x "deep", F etc/x "x", S gone->deep/er"#;
    for (upper, expected) in [
        ("S l->gone/../etc, W l/.wh.x", "deep/ deep/er/ deep/etc/ etc/ etc/x=x gone->deep/er l->gone/../etc"),
        (
            "S l->gone/../etc, H h->l/x",
            "deep/ deep/er/ deep/etc/ deep/etc/x=deep etc/ etc/x=x gone->deep/er h==deep/etc/x l->gone/../etc",
        ),
        (
            r#"S l->gone/../etc, F l/y "y""#,
            "deep/ deep/er/ deep/etc/ deep/etc/x=deep deep/etc/y=y etc/ etc/x=x gone->deep/er l->gone/../etc",
        ),
        (
            r#"S gone/l->../etc, F gone/l/y "y""#,
            "deep/ deep/er/ deep/er/l->../etc deep/etc/ deep/etc/x=deep deep/etc/y=y etc/ etc/x=x gone->deep/er",
        ),
    ] {
        for resolver in RESOLVERS {
            let (lab, merged_lab) = (Lab::new(), Lab::new());
            write(&lab.dest(), options(Mode::Apply, resolver), &[lower, upper]).unwrap();
            assert_eq!(lab.listing(), expected, "{upper}, {resolver:?}");
            match merge(&merged_lab, &merged_lab.dest(), &options(Mode::Apply, resolver), &[lower, upper]) {
                Ok(()) => assert_same(&lab, &merged_lab, upper),
                Err(error) => assert!(matches!(error.root(), Error::Unsupported { .. }), "{upper}: {error}"),
            }
        }
    }
}

/// P6, on layers that nobody thought of: 500 small images over few names, so that everything collides.
#[test]
fn applying_and_merging_agree() {
    let names = ["a", "b", "a/b", "b/a", "a/b/c", "c", "c/a"];
    let targets = ["a", "/b", "../c", "a/b", ".."];
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut pick = move |count: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % count as u64).unwrap()
    };
    let (mut compared, mut refused, mut ambiguous) = (0, 0, 0);
    for round in 0..500 {
        let mut layers = Vec::new();
        for _ in 0..2 + pick(2) {
            let mut entries = Vec::new();
            for number in 0..=pick(5) {
                let name = names[pick(names.len())];
                let (parent, last) = name.rsplit_once('/').map_or((String::new(), name), |(p, l)| (format!("{p}/"), l));
                entries.push(match pick(10) {
                    0 | 1 => format!("D {name} 07{}5", number % 8),
                    2..=4 => format!("F {name} \"{number}\""),
                    5 | 6 => format!("S {name}->{}", targets[pick(targets.len())]),
                    7 => format!("H {name}->{}", names[pick(names.len())]),
                    8 => format!("W {parent}.wh.{last}"),
                    _ => format!("W {name}/.wh..wh..opq"),
                });
            }
            layers.push(entries.join(", "));
        }
        let layers: Vec<&str> = layers.iter().map(String::as_str).collect();
        let resolver = RESOLVERS[round % 2];
        let (lab, merged_lab) = (Lab::new(), Lab::new());
        let applied = write(&lab.dest(), options(Mode::Apply, resolver), &layers);
        let merged = merge(&merged_lab, &merged_lab.dest(), &options(Mode::Apply, resolver), &layers);
        let what =
            format!("{layers:#?} {resolver:?} {:?}", merged.as_ref().err().map(|error| error.root().to_string()));
        match (applied, merged) {
            (Ok(_), Err(error)) if matches!(error.root(), Error::Unsupported { .. }) => ambiguous += 1,
            (Ok(_), Ok(())) => {
                compared += 1;
                assert_same(&lab, &merged_lab, &what);
            }
            (Err(error), Err(_)) => {
                refused += 1;
                assert_eq!(error.kind(), ErrorKind::Refused, "{what} {error}");
            }
            (Ok(_), Err(_)) => panic!("only applying worked: {what}"),
            (Err(error), Ok(())) => panic!("only merging worked: {what} {error}"),
        }
    }
    let counts = format!("{compared} compared, {refused} refused, {ambiguous} ambiguous");
    eprintln!("{counts}");
    assert!(compared > 150 && refused > 50 && ambiguous < compared / 2, "{counts}");
}
