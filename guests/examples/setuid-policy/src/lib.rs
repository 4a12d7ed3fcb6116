//! An inspector that finds what gives who executes it more than they had: set-uid and set-gid files, and files with
//! capabilities, and hard links to them in the same layer.
//!
//! With the setting `mode = "refuse"` (the default) such a file refuses the layer, if its path does not match one of the
//! globs in `allow`. With `mode = "report"` nothing is refused. Either way the report lists them:
//!
//! ```json
//! {"findings": [{"path": "usr/bin/ping", "mode": "0755", "uid": 0, "gid": 0, "setuid": false, "setgid": false,
//!   "capabilities": "cap_net_raw=ep", "allowed": true}], "complete": true}
//! ```
//!
//! A path that is not UTF-8 is given in `path-hex` too.

mod capability;
mod glob;

use std::collections::BTreeMap;

use cofferdam_sdk::{Entry, Failure, Inspector, Interest, Layer, Node, log, settings};
use glob::Glob;
use serde_json::{Value, json};

cofferdam_sdk::inspector!(Policy);

struct Policy {
    refuse: bool,
    allow: Vec<Glob>,
    found: BTreeMap<Vec<u8>, Finding>,
    bytes: usize,
    complete: bool,
}

#[derive(Clone, Debug)]
struct Finding {
    setuid: bool,
    setgid: bool,
    capabilities: Option<String>,
    mode: u32,
    uid: u32,
    gid: u32,
    link: Option<Vec<u8>>,
    allowed: bool,
}

/// Bounds what is remembered, and so the report: a layer may hold millions of such files.
const BYTES: usize = 1 << 20;
const OVERHEAD: usize = 160;

impl Inspector for Policy {
    fn begin(_: Layer) -> Result<Self, Failure> {
        let refuse = match settings::get("mode").as_deref() {
            None | Some("refuse") => true,
            Some("report") => false,
            Some(other) => return Err(format!("the setting `mode` is `{other}`: refuse or report").into()),
        };
        let allow = settings::list("allow").iter().map(|text| Glob::new(text)).collect();
        Ok(Self { refuse, allow, found: BTreeMap::new(), bytes: 0, complete: true })
    }

    fn see(&mut self, entry: Entry) -> Result<Interest, Failure> {
        // What was at this path is replaced, unless this removes something of a lower layer.
        if !entry.is_removal() && !entry.is_directory() {
            self.found.remove(&entry.path);
        }
        if let Some(finding) = self.judge(&entry) {
            self.take(entry, finding)?;
        }
        Ok(Interest::None)
    }

    fn finish(self) -> Result<Vec<u8>, Failure> {
        let findings: Vec<Value> = self.found.iter().map(|(path, finding)| finding.to_json(path)).collect();
        log::info(format!("{} files with more rights than who executes them", findings.len()));
        Ok(json!({ "findings": findings, "complete": self.complete }).to_string().into_bytes())
    }
}

impl Policy {
    /// What is to be said of an entry, if anything.
    fn judge(&self, entry: &Entry) -> Option<Finding> {
        let allowed = self.allow.iter().any(|glob| glob.matches(&entry.path));
        if let Node::HardLink { target } = &entry.node {
            let other = self.found.get(target)?;
            return Some(Finding { link: Some(target.clone()), allowed, ..other.clone() });
        }
        let (setuid, setgid) = (entry.is_setuid(), entry.is_setgid());
        let capabilities = entry.attribute("security.capability").filter(|_| entry.is_file()).map(capability::describe);
        (setuid || setgid || capabilities.is_some()).then_some(Finding {
            setuid,
            setgid,
            capabilities,
            mode: entry.mode,
            uid: entry.uid,
            gid: entry.gid,
            link: None,
            allowed,
        })
    }

    fn take(&mut self, entry: Entry, finding: Finding) -> Result<(), Failure> {
        if self.refuse && !finding.allowed {
            return Err(Failure::refused_at(entry.path, finding.reason()));
        }
        self.bytes += 2 * entry.path.len() + finding.link.as_ref().map_or(0, Vec::len) + OVERHEAD;
        if self.bytes <= BYTES {
            self.found.insert(entry.path, finding);
        } else if self.refuse {
            // A hard link to a file that was forgotten would go unseen.
            return Err(Failure::limit("too many set-uid, set-gid or capability files"));
        } else {
            self.complete = false;
        }
        Ok(())
    }
}

impl Finding {
    fn reason(&self) -> String {
        let mut what = Vec::new();
        if self.setuid {
            what.push(format!("is set-uid (owner {})", self.uid));
        }
        if self.setgid {
            what.push(format!("is set-gid (group {})", self.gid));
        }
        if let Some(capabilities) = &self.capabilities {
            what.push(format!("has {capabilities}"));
        }
        let link = self.link.as_ref().map(|target| format!("links to `{}`, which ", target.escape_ascii()));
        format!("{}{}, and `allow` does not name it", link.unwrap_or_default(), what.join(" and "))
    }

    fn to_json(&self, path: &[u8]) -> Value {
        let mut value = json!({
            "path": String::from_utf8_lossy(path),
            "mode": format!("{:04o}", self.mode),
            "uid": self.uid,
            "gid": self.gid,
            "setuid": self.setuid,
            "setgid": self.setgid,
            "allowed": self.allowed,
        });
        if str::from_utf8(path).is_err() {
            value["path-hex"] = hex(path).into();
        }
        if let Some(capabilities) = &self.capabilities {
            value["capabilities"] = capabilities.as_str().into();
        }
        if let Some(target) = &self.link {
            value["link-to"] = String::from_utf8_lossy(target).into();
        }
        value
    }
}

fn hex(bytes: &[u8]) -> String {
    let digit = |value: u8| char::from_digit(value.into(), 16).unwrap_or_default();
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

#[cfg(test)]
mod tests;
