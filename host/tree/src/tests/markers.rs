//! Markers that are kept: as files beside the content, and as overlayfs has them.

use std::path::Path;

use cofferdam_core::error::ErrorKind;

use super::{Lab, RESOLVERS, is_root, options, snapshot, write};
use crate::{Marker, Mode};

/// The names of opaque directories.
fn opaque(root: &Path) -> String {
    let all = snapshot::full(root);
    let attribute =
        if rustix::process::geteuid().is_root() { "trusted.overlay.opaque=y" } else { "user.overlay.opaque=y" };
    let names = all.iter().filter(|(_, text)| text.contains(attribute)).map(|(name, _)| name.as_str());
    names.collect::<Vec<_>>().join(" ")
}

/// Layer, what the tree holds, which directories are opaque.
const OVERLAY: &[(&str, &str, &str)] = &[
    ("F x, W .wh.x", "x", ""),
    ("W .wh.x, F x", "x", ""),
    ("W .wh.x", "x[0:0]", ""),
    ("W .wh.x, W .wh.x", "x[0:0]", ""),
    ("F d/before, W .wh.d, F d/foo/bar", "d/ d/before d/foo/ d/foo/bar", "d"),
    ("W .wh.d, F d/foo/bar", "d/ d/foo/ d/foo/bar", "d"),
    ("F d/foo/bar, W .wh.d", "d/ d/foo/ d/foo/bar", "d"),
    ("D d, W .wh.d", "d/", "d"),
    ("W .wh.d, D d", "d/", "d"),
    ("W .wh.d, S d->e", "d->e", ""),
    ("W a/b/c/.wh..wh..opq", "a/ a/b/ a/b/c/", "a/b/c"),
    ("W a/b/.wh.c", "a/ a/b/ a/b/c[0:0]", ""),
    ("W d/.wh.x, W d/.wh..wh..opq", "d/", "d"),
    ("W d/.wh..wh..opq, W d/.wh.x", "d/", "d"),
    ("W d/e/.wh.x, F d/e/y, W d/e/.wh..wh..opq, W d/.wh..wh..opq", "d/ d/e/ d/e/y", "d"),
    ("W d/.wh..wh..opq, W d/e/.wh..wh..opq", "d/", "d"),
    ("W d/e/.wh..wh..opq, W d/.wh..wh..opq", "d/", "d"),
    ("W d/.wh.x, W .wh.d", "d[0:0]", ""),
    ("W .wh.d, W d/.wh.x, W d/.wh..wh..opq", "d[0:0]", ""),
    ("W d/.wh..wh..opq, W .wh.d", "d[0:0]", ""),
    ("F d/x, W d/.wh.y, W .wh.d", "d/ d/x", "d"),
    ("W .wh.a, F a/b/c", "a/ a/b/ a/b/c", "a"),
    ("F d, D d, F d/own", "d/ d/own", "d"),
    ("F d, F d/own", "d/ d/own", "d"),
    ("F d, W d/.wh.x", "d", ""),
    ("F d, W d/.wh..wh..opq", "d", ""),
    ("S l->e, W l/.wh.x", "e/ e/x[0:0] l->e", ""),
    ("W .wh..wh..opq, F x, W .wh.y", "x", "."),
    (r#"W .wh.h, F t "t", H h->t"#, "h=t t==h", ""),
];

#[test]
fn overlay() {
    for (layer, expected, expected_opaque) in OVERLAY {
        for resolver in RESOLVERS {
            let lab = Lab::new();
            write(&lab.dest(), options(Mode::Overlay, resolver), &[layer]).unwrap_or_else(|e| panic!("{layer}: {e}"));
            let found = (lab.listing(), opaque(&lab.dest()));
            assert_eq!((found.0.as_str(), found.1.as_str()), (*expected, *expected_opaque), "{layer}");
        }
    }
}

#[test]
fn an_overlay_refuses_what_only_lower_layers_can_tell() {
    for (layer, reason) in [("H y->x", "overlay"), ("C a 0 0", "0:0")] {
        let lab = Lab::new();
        let error = write(&lab.dest(), options(Mode::Overlay, RESOLVERS[0]), &[layer]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused);
        assert!(error.to_string().contains(reason), "{error}");
    }
}

#[test]
fn a_layer_cannot_set_the_attributes_of_overlays() {
    let lab = Lab::new();
    let layer = "D d trusted.overlay.opaque=y user.overlay.opaque=y user.containers.override_stat=0:0:0:file user.ok=1";
    write(&lab.dest(), options(Mode::Apply, RESOLVERS[0]), &[layer, layer]).unwrap();
    let mut xattrs = snapshot::xattrs(&lab.dest().join("d"));
    if !is_root() {
        // The writer's own.
        xattrs.remove("user.containers.override_stat");
    }
    assert_eq!(xattrs.keys().collect::<Vec<_>>(), ["user.ok"]);
}

#[test]
fn preserved_markers_are_files_and_in_the_record() {
    let layer = "W bin/.wh.sh, F bin/new-tool, W only/.wh..wh..opq, W .wh.x, W .wh.x, F x, F i/j/f";
    for resolver in RESOLVERS {
        let lab = Lab::new();
        let record = write(&lab.dest(), options(Mode::Preserve, resolver), &[layer]).unwrap().remove(0);
        assert_eq!(lab.listing(), ".wh.x bin/ bin/.wh.sh bin/new-tool i/ i/j/ i/j/f only/ only/.wh..wh..opq x",);
        let text = |path: &crate::entry::TreePath| path.to_string();
        let markers: Vec<_> = record
            .markers
            .iter()
            .map(|marker| match marker {
                Marker::Whiteout(path) => format!("-{path}"),
                Marker::Opaque(path) => format!("*{path}"),
                Marker::Replaced(path) => format!("!{path}"),
            })
            .collect();
        assert_eq!(markers, ["-bin/sh", "*only", "-x"]);
        assert_eq!(record.implied.iter().map(text).collect::<Vec<_>>(), ["bin", "i", "i/j"]);
        assert_eq!(record.marker_dirs.iter().map(text).collect::<Vec<_>>(), ["only"]);
        assert!(!record.root);
        assert_eq!((record.counts.entries, record.counts.files), (7, 3));
    }
}

#[test]
fn a_victim_whose_marker_has_too_long_a_name_is_in_the_record() {
    let lab = Lab::new();
    let layer = format!("W d/.wh.{}", "x".repeat(255));
    let record = write(&lab.dest(), options(Mode::Preserve, RESOLVERS[0]), &[&layer]).unwrap().remove(0);
    assert_eq!(record.markers.len(), 1);
    assert_eq!(lab.listing(), "d/");
}
