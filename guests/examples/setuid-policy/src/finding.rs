//! What is said of one path.

use std::rc::Rc;

use cofferdam_sdk::Entry;
use serde_json::{Value, json};

use crate::capability;

/// What a file gives who executes it, and whose it is. Hard links share it.
#[derive(Debug)]
pub(crate) struct Rights {
    setuid: bool,
    setgid: bool,
    capabilities: Option<String>,
    mode: u32,
    uid: u32,
    gid: u32,
}

/// A path at which such a file is, or may be.
#[derive(Clone, Debug)]
pub(crate) struct Finding {
    pub(crate) rights: Rc<Rights>,
    /// Of a hard link: its target.
    pub(crate) link: Option<Vec<u8>>,
    /// Whether a link of the layer lies on the way to the path.
    pub(crate) behind: bool,
    /// Whether a link of the layer lies on the way to the target: it may be another file of the same name.
    pub(crate) vague: bool,
    pub(crate) allowed: bool,
}

impl Rights {
    /// Those of an entry, if it gives any.
    pub(crate) fn of(entry: &Entry) -> Option<Self> {
        let (setuid, setgid) = (entry.is_setuid(), entry.is_setgid());
        let capabilities = entry.attribute("security.capability").filter(|_| entry.is_file()).map(capability::describe);
        (setuid || setgid || capabilities.is_some()).then_some(Self {
            setuid,
            setgid,
            capabilities,
            mode: entry.mode,
            uid: entry.uid,
            gid: entry.gid,
        })
    }

    fn describe(&self) -> String {
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
        what.join(" and ")
    }
}

impl Finding {
    /// Why it refuses the layer.
    pub(crate) fn reason(&self) -> String {
        let link = self.link.as_ref().map(|target| {
            let which = if self.vague { "which may be one that" } else { "which" };
            format!("links to `{}`, {which} ", target.escape_ascii())
        });
        let why = if self.behind || self.vague {
            "; a link of the layer lies on the way, so the place is not known, and `allow` does not count"
        } else {
            ", and `allow` does not name it"
        };
        format!("{}{}{why}", link.unwrap_or_default(), self.rights.describe())
    }

    /// How many bytes it takes beside its path, in memory and in the report.
    pub(crate) fn bytes(&self) -> usize {
        const OVERHEAD: usize = 160;
        OVERHEAD + self.link.as_ref().map_or(0, Vec::len) + self.rights.capabilities.as_ref().map_or(0, String::len)
    }

    pub(crate) fn to_json(&self, path: &[u8]) -> Value {
        let rights = &self.rights;
        let mut value = json!({
            "path": String::from_utf8_lossy(path),
            "mode": format!("{:04o}", rights.mode),
            "uid": rights.uid,
            "gid": rights.gid,
            "setuid": rights.setuid,
            "setgid": rights.setgid,
            "allowed": self.allowed,
        });
        if str::from_utf8(path).is_err() {
            value["path-hex"] = hex(path).into();
        }
        if let Some(capabilities) = &rights.capabilities {
            value["capabilities"] = capabilities.as_str().into();
        }
        if let Some(target) = &self.link {
            value["link-to"] = String::from_utf8_lossy(target).into();
        }
        if self.behind || self.vague {
            value["unclear"] = true.into();
        }
        value
    }
}

fn hex(bytes: &[u8]) -> String {
    let digit = |value: u8| char::from_digit(value.into(), 16).unwrap_or_default();
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}
