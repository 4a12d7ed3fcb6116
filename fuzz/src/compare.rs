//! The same archive, or not.

use crate::listing::Seen;

/// Says where two listings differ, in what both can tell.
pub fn difference(ours: &[Seen], theirs: &[Seen]) -> Option<String> {
    let understood = theirs.iter().all(|seen| seen.path.is_some());
    if ours.len() != theirs.len() {
        // An entry that the oracle does not understand may be one that the rules ignore.
        return understood.then(|| format!("{} entries here, {} there", ours.len(), theirs.len()));
    }
    ours.iter().zip(theirs).find_map(|(ours, theirs)| {
        let what = of_entry(ours, theirs)?;
        Some(format!("{what}\n  here:  {ours:?}\n  there: {theirs:?}"))
    })
}

fn of_entry(ours: &Seen, theirs: &Seen) -> Option<&'static str> {
    theirs.path.as_ref()?;
    if ours.path != theirs.path {
        return Some("the path");
    }
    if ours.kind != theirs.kind {
        return Some("the kind");
    }
    None.or_else(|| differ("the size", ours.size.as_ref(), theirs.size.as_ref()))
        .or_else(|| differ("the target", ours.link.as_ref(), theirs.link.as_ref()))
        .or_else(|| differ("the device", ours.device.as_ref(), theirs.device.as_ref()))
        .or_else(|| differ("the mode", ours.mode.as_ref(), theirs.mode.as_ref()))
        .or_else(|| differ("the owner", ours.uid.as_ref(), theirs.uid.as_ref()))
        .or_else(|| differ("the group", ours.gid.as_ref(), theirs.gid.as_ref()))
        .or_else(|| differ("the time", ours.modified.as_ref(), theirs.modified.as_ref()))
        .or_else(|| differ("the content", ours.content.as_ref(), theirs.content.as_ref()))
}

fn differ<T: PartialEq>(what: &'static str, ours: Option<&T>, theirs: Option<&T>) -> Option<&'static str> {
    matches!((ours, theirs), (Some(ours), Some(theirs)) if ours != theirs).then_some(what)
}
