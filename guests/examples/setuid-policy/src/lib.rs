//! An inspector that finds what gives who executes it more than they had: set-uid and set-gid files, and files with
//! capabilities, and hard links to them in the same layer, in whichever order they come.
//!
//! With the setting `mode = "refuse"` (the default) such a file refuses the layer, if its path does not match one of the
//! globs in `allow`, even if the layer replaces it later. With `mode = "report"` nothing is refused. Either way the report
//! lists what the layer holds in the end:
//!
//! ```json
//! {"findings": [{"path": "usr/bin/ping", "mode": "0755", "uid": 0, "gid": 0, "setuid": false, "setgid": false,
//!   "capabilities": "cap_net_raw=ep", "allowed": true}], "complete": true}
//! ```
//!
//! A path that is not UTF-8 is given in `path-hex` too. A hard link has a `link-to`.
//!
//! Where a link of the layer lies on the way to such a file, or on the way to the target of a hard link, the layer alone
//! does not say which place that is. `allow` never covers it, and it is listed as `"unclear": true`. Such a target counts as
//! found if the layer has a finding of the same name anywhere. In doubt a link is taken for one to a finding.
//!
//! What is in other layers is not seen: neither that a hard link's target there is set-uid, nor that a directory on the way
//! is a symbolic link there.
//!
//! All links of a layer are remembered. Of more than some ten thousand to hundred thousand, or of too many findings, `refuse`
//! fails, and `report` says `"complete": false`.

mod capability;
mod finding;
mod glob;
mod links;
mod paths;
mod settle;

use std::collections::BTreeMap;
use std::rc::Rc;

use cofferdam_sdk::{Entry, Failure, Inspector, Interest, Layer, Node, log, settings};
use finding::{Finding, Rights};
use glob::Glob;
use links::Links;
use serde_json::{Value, json};

cofferdam_sdk::inspector!(Policy);

struct Policy {
    refuse: bool,
    allow: Vec<Glob>,
    found: BTreeMap<Vec<u8>, Finding>,
    /// Those whose place is not known, and so neither when they are replaced.
    stray: Vec<(Vec<u8>, Finding)>,
    /// By name, one of each, also of what was replaced since: a hard link behind a link may have been made before.
    names: BTreeMap<Vec<u8>, Finding>,
    links: Links,
    bytes: usize,
    complete: bool,
}

/// Bounds what is remembered of findings, and so the report: a layer may hold millions of such files.
const BYTES: usize = 1 << 20;

impl Inspector for Policy {
    fn begin(_: Layer) -> Result<Self, Failure> {
        let refuse = match settings::get("mode").as_deref() {
            None | Some("" | "refuse") => true,
            Some("report") => false,
            Some(other) => return Err(format!("the setting `mode` is `{other}`: refuse or report").into()),
        };
        Ok(Self {
            refuse,
            allow: settings::list("allow").iter().map(|text| Glob::new(text)).collect(),
            found: BTreeMap::new(),
            stray: Vec::new(),
            names: BTreeMap::new(),
            links: Links::default(),
            bytes: 0,
            complete: true,
        })
    }

    fn see(&mut self, entry: Entry) -> Result<Interest, Failure> {
        // A removal concerns lower layers only.
        if entry.is_removal() {
            return Ok(Interest::None);
        }
        let behind = self.links.behind(&entry.path);
        if !behind {
            // A hard link to itself loses nothing.
            if matches!(&entry.node, Node::HardLink { target } if *target == entry.path) {
                return Ok(Interest::None);
            }
            self.replace(&entry);
        }
        let rights = Rights::of(&entry).map(Rc::new);
        match entry.node {
            Node::Symlink { .. } => {
                let room = self.links.symbolic(entry.path, behind);
                self.bounded(room, "too many links")?;
            }
            Node::HardLink { target } => self.see_hard_link(entry.path, behind, target)?,
            _ => {
                if let Some(rights) = rights {
                    let finding = Finding { rights, link: None, behind, vague: false, allowed: false };
                    self.take(entry.path, finding)?;
                }
            }
        }
        Ok(Interest::None)
    }

    fn finish(mut self) -> Result<Vec<u8>, Failure> {
        self.settle()?;
        let mut all: Vec<_> =
            self.found.iter().chain(self.stray.iter().map(|(path, finding)| (path, finding))).collect();
        all.sort_by_key(|(path, _)| *path);
        let findings: Vec<Value> = all.iter().map(|(path, finding)| finding.to_json(path)).collect();
        log::info(format!("{} files with more rights than who executes them", findings.len()));
        Ok(json!({ "findings": findings, "complete": self.complete }).to_string().into_bytes())
    }
}

impl Policy {
    /// Forgets what an entry replaces: what was at its path, what was below if it is no directory, and what is no directory
    /// on the way.
    fn replace(&mut self, entry: &Entry) {
        self.links.replace(&entry.path, entry.is_directory());
        if self.found.is_empty() {
            return;
        }
        self.found.remove(&entry.path);
        if !entry.is_directory() && paths::have_prefix(&self.found, &entry.path) {
            self.found.extract_if(paths::below(&entry.path), |_, _| true).for_each(drop);
        }
        for way in paths::ancestors(&entry.path) {
            self.found.remove(way);
        }
    }

    /// A hard link is one to what lies at its target now, or to what lies there in the end if nothing does.
    fn see_hard_link(&mut self, path: Vec<u8>, behind: bool, target: Vec<u8>) -> Result<(), Failure> {
        if !self.links.behind(&target)
            && let Some(other) = self.found.get(&target)
        {
            let finding = Finding { link: Some(target), behind, ..other.clone() };
            self.take(path, finding)
        } else {
            let room = self.links.hard(path, behind, target);
            self.bounded(room, "too many links")
        }
    }

    /// Remembers a finding, if it does not refuse the layer.
    fn take(&mut self, path: Vec<u8>, mut finding: Finding) -> Result<(), Failure> {
        let known = !finding.behind && !finding.vague;
        finding.allowed = known && self.allow.iter().any(|glob| glob.matches(&path));
        if self.refuse && !finding.allowed {
            return Err(Failure::refused_at(path, finding.reason()));
        }
        self.bytes += 2 * path.len() + finding.bytes();
        self.bounded(self.bytes <= BYTES, "too many set-uid, set-gid or capability files")?;
        if self.bytes > BYTES {
            return Ok(());
        }
        if !self.names.contains_key(paths::name(&path)) {
            self.names.insert(paths::name(&path).to_vec(), finding.clone());
        }
        if finding.behind {
            self.stray.push((path, finding));
        } else {
            self.found.insert(path, finding);
        }
        Ok(())
    }

    /// What was forgotten may be what refuses the layer.
    fn bounded(&mut self, room: bool, what: &str) -> Result<(), Failure> {
        self.complete &= room;
        if room || !self.refuse { Ok(()) } else { Err(Failure::limit(what)) }
    }
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;
