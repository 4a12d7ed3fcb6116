//! One member: its header and the extensions in front of it, put together to an entry.

use crate::entry::{Attributes, Device, Entry, Extent, Node, Timestamp};
use crate::extension::Pending;
use crate::failure::Fault;
use crate::header::{Header, Kind};
use crate::limits::Limits;
use crate::marker::{self, Meaning};
use crate::name::{self, Climb};
use crate::pax::Records;
use crate::sparse::{self, Form};

/// What of a sparse map is still to be read from the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rest {
    Nothing,
    /// Continuation blocks of the old GNU form.
    Slots,
    /// The text in front of the body.
    Text,
}

/// The member at hand. One value serves all members, so that its buffers do.
#[derive(Debug)]
pub(crate) struct Member {
    kind: Kind,
    meaning: Meaning,
    /// The name as the archive spells it.
    pub(crate) raw: Vec<u8>,
    path: Vec<u8>,
    target: Vec<u8>,
    device: Device,
    /// Bytes in the archive: the effective size of a regular file, nothing for all else.
    pub(crate) body: u64,
    /// A size other than 0 that the archive gives to a member without a body.
    pub(crate) void_size: Option<u64>,
    /// The size of a sparse file.
    sparse: Option<u64>,
    pub(crate) extents: Vec<Extent>,
    mode: u32,
    uid: u32,
    gid: u32,
    modified: Timestamp,
    records: Records,
}

impl Default for Member {
    fn default() -> Self {
        Self {
            kind: Kind::Regular,
            meaning: Meaning::Ignored,
            raw: Vec::new(),
            path: Vec::new(),
            target: Vec::new(),
            device: Device { major: 0, minor: 0 },
            body: 0,
            void_size: None,
            sparse: None,
            extents: Vec::new(),
            mode: 0,
            uid: 0,
            gid: 0,
            modified: Timestamp::default(),
            records: Records::default(),
        }
    }
}

impl Member {
    /// Reads all that the header and the extensions say. [`Member::complete`] must follow, after the rest of the map.
    pub(crate) fn describe(
        &mut self,
        kind: Kind,
        header: &Header<'_>,
        pending: &Pending,
        limits: &Limits,
    ) -> Result<Rest, Fault> {
        self.kind = kind;
        self.set_name(header, pending, limits)?;
        let size = header.size()?;
        let size = self.records.size.unwrap_or(size);
        if header.is_untyped() && self.raw.ends_with(b"/") {
            self.kind = Kind::Directory;
        }
        // Builders write a link's target size here, and directories' sizes on disk. Go's reader drops it.
        (self.body, self.void_size) =
            if self.is_regular() { (size, None) } else { (0, Some(size).filter(|&size| size > 0)) };
        self.set_metadata(header)?;
        name::clean(&self.raw, Climb::Refuse, &mut self.path)?;
        self.meaning = marker::interpret(&mut self.path, limits)?;
        self.set_target(header, pending, limits)?;
        self.set_map(header, limits)
    }

    fn is_regular(&self) -> bool {
        matches!(self.kind, Kind::Regular | Kind::OldSparse)
    }

    /// `GNU.sparse.name` and `path` of the records, `L`, the header: the first that is there.
    fn set_name(&mut self, header: &Header<'_>, pending: &Pending, limits: &Limits) -> Result<(), Fault> {
        self.records.clear();
        match pending.name() {
            Some(name) => replace(&mut self.raw, name),
            None => header.name(&mut self.raw),
        }
        let payload = pending.records();
        self.records.parse(payload, limits)?;
        if let Some(path) = self.records.sparse.name.or(self.records.path) {
            replace(&mut self.raw, path.of(payload));
            if pending.name().is_some() {
                return Err(Fault::refused("two extended headers name one member"));
            }
        }
        if self.records.linkpath.is_some() && pending.link().is_some() {
            return Err(Fault::refused("two extended headers name the target of one link"));
        }
        if self.raw.is_empty() { Err(Fault::refused("an empty name")) } else { Ok(()) }
    }

    fn set_metadata(&mut self, header: &Header<'_>) -> Result<(), Fault> {
        let owner = |id: i64| {
            // -1 means "leave it" to chown.
            u32::try_from(id).ok().filter(|&id| id != u32::MAX).ok_or_else(|| Fault::refused("an owner out of range"))
        };
        let (uid, gid) = header.owner()?;
        self.uid = owner(self.records.uid.unwrap_or(uid))?;
        self.gid = owner(self.records.gid.unwrap_or(gid))?;
        self.mode = header.mode()?;
        let seconds = header.modified()?;
        self.modified = self.records.modified.unwrap_or(Timestamp { seconds, nanoseconds: 0 });
        if matches!(self.kind, Kind::CharacterDevice | Kind::BlockDevice) {
            self.device = header.device()?;
        }
        Ok(())
    }

    fn set_target(&mut self, header: &Header<'_>, pending: &Pending, limits: &Limits) -> Result<(), Fault> {
        if !matches!(self.kind, Kind::HardLink | Kind::Symlink) {
            return Ok(());
        }
        let of_records = self.records.linkpath.map(|span| span.of(pending.records()));
        let target = of_records.or(pending.link()).unwrap_or_else(|| header.link());
        if target.is_empty() {
            return Err(Fault::refused("a link to nothing"));
        }
        if self.kind == Kind::Symlink {
            // As `symlink(2)` takes it, whatever the limit on paths.
            if target.len() > 4095 {
                return Err(Fault::limit(4095, "bytes in the target of a symbolic link"));
            }
            replace(&mut self.target, target);
        } else if self.meaning == Meaning::Object {
            name::clean(target, Climb::Clamp, &mut self.target)?;
            if self.target.is_empty() {
                return Err(Fault::refused("a hard link to the root"));
            }
            if marker::interpret(&mut self.target, limits)? != Meaning::Object {
                return Err(Fault::refused("a hard link to a whiteout"));
            }
        }
        Ok(())
    }

    fn set_map(&mut self, header: &Header<'_>, limits: &Limits) -> Result<Rest, Fault> {
        self.extents.clear();
        self.sparse = None;
        if !self.records.sparse.is_present() {
            if self.kind != Kind::OldSparse {
                return Ok(Rest::Nothing);
            }
            let (size, slots, more) = header.old_sparse()?;
            self.sparse = Some(size);
            return self.slots(slots, more, limits);
        }
        if self.kind != Kind::Regular {
            return Err(Fault::corrupt("a sparse map of something else than a regular file"));
        }
        let (form, size) = self.records.sparse.form()?;
        self.sparse = Some(size);
        if form == Form::Body {
            return Ok(Rest::Text);
        }
        std::mem::swap(&mut self.extents, &mut self.records.sparse.extents);
        Ok(Rest::Nothing)
    }

    /// Takes slots of the old GNU form. A block that says that more follow must be full, so that the chain has an end.
    pub(crate) fn slots(&mut self, slots: &[u8], more: bool, limits: &Limits) -> Result<Rest, Fault> {
        match (sparse::slots(slots, &mut self.extents, limits)?, more) {
            (_, false) => Ok(Rest::Nothing),
            (true, true) => Ok(Rest::Slots),
            (false, true) => Err(sparse::malformed("a gap")),
        }
    }

    /// Checks what depends on the whole of the map; `content` is the body without it. Says whether there is an entry.
    pub(crate) fn complete(&mut self, content: u64) -> Result<bool, Fault> {
        if let Some(size) = self.sparse {
            sparse::check(&mut self.extents, size, content)?;
        }
        match self.meaning {
            Meaning::Ignored => Ok(false),
            Meaning::Object if self.path.is_empty() && self.kind != Kind::Directory => {
                // CVE-2021-29136.
                Err(Fault::refused("the root is a directory"))
            }
            Meaning::Object => Ok(true),
            Meaning::Whiteout | Meaning::Opaque => {
                let empty = self.body == 0 && self.sparse.unwrap_or(0) == 0;
                if self.kind == Kind::HardLink || self.is_regular() && empty {
                    Ok(true)
                } else {
                    Err(Fault::refused("a whiteout is an empty file or a hard link"))
                }
            }
        }
    }

    /// The entry.
    pub(crate) fn entry<'a>(&'a self, pending: &'a Pending) -> Entry<'a> {
        let node = match (self.meaning, self.kind, self.sparse) {
            (Meaning::Whiteout, ..) => Node::Whiteout,
            (Meaning::Opaque, ..) => Node::Opaque,
            (_, Kind::Regular | Kind::OldSparse, Some(size)) => Node::Sparse { size, extents: &self.extents },
            (_, Kind::Regular | Kind::OldSparse, None) => Node::File { size: self.body },
            (_, Kind::HardLink, _) => Node::HardLink { target: &self.target },
            (_, Kind::Symlink, _) => Node::Symlink { target: &self.target },
            (_, Kind::CharacterDevice, _) => Node::CharacterDevice(self.device),
            (_, Kind::BlockDevice, _) => Node::BlockDevice(self.device),
            (_, Kind::Directory, _) => Node::Directory,
            (_, Kind::Fifo, _) => Node::Fifo,
        };
        Entry {
            path: &self.path,
            node,
            mode: self.mode,
            uid: self.uid,
            gid: self.gid,
            modified: self.modified,
            attributes: Attributes { payload: pending.records(), spans: &self.records.attributes },
        }
    }
}

fn replace(buffer: &mut Vec<u8>, bytes: &[u8]) {
    buffer.clear();
    buffer.extend_from_slice(bytes);
}
