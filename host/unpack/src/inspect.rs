//! A sink that shows each entry to inspectors before the sink behind it makes it.

use cofferdam_documents::plugin::InspectorReport;

use cofferdam_core::error::{Error, Result};
use cofferdam_sandbox::Inspection;
use cofferdam_tree::claim;
use cofferdam_tree::entry::{Content, Entry, Node, Sink};

/// A sink, and who looks at what goes into it.
pub(super) struct Inspected<S> {
    sink: S,
    inspections: Vec<Inspection>,
}

impl<S: Sink> Inspected<S> {
    pub(super) fn new(sink: S, inspections: Vec<Inspection>) -> Self {
        Self { sink, inspections }
    }

    /// The sink, and those who may still be asked for their reports.
    pub(super) fn into_parts(self) -> (S, Vec<Inspection>) {
        (self.sink, self.inspections)
    }
}

impl<S: Sink> Sink for Inspected<S> {
    fn put(&mut self, entry: Entry, content: &mut dyn Content) -> Result<()> {
        if self.inspections.is_empty() {
            return self.sink.put(entry, content);
        }
        let has_content = matches!(entry.node, Node::File { .. } | Node::Sparse { .. });
        let mut takers = Vec::new();
        for inspection in &mut self.inspections {
            let asked = inspection.see(shown(&entry)).map_err(|error| asking(inspection, error))?;
            if asked && has_content {
                takers.push(inspection);
            }
        }
        if takers.is_empty() {
            return self.sink.put(entry, content);
        }
        let mut tee = Tee { content, takers, failure: None };
        let outcome = self.sink.put(entry, &mut tee);
        // Its own error is what made the sink fail, or what the sink was too near the end to see.
        match tee.failure {
            Some(error) => Err(error),
            None => outcome,
        }
    }
}

fn asking(inspection: &Inspection, error: Error) -> Error {
    error.context(format!("asking the inspector `{}`", inspection.name()))
}

/// Ends inspections of a whole and verified layer.
pub(super) fn finish(inspections: Vec<Inspection>) -> Result<Vec<InspectorReport>> {
    inspections
        .into_iter()
        .map(|inspection| {
            let (plugin, identity) = (inspection.name().to_owned(), inspection.report_key().clone());
            let report = inspection
                .finish()
                .map_err(|error| error.context(format!("asking the inspector `{plugin}` for its report")))?;
            Ok(InspectorReport { plugin, identity, report })
        })
        .collect()
}

/// Content that some inspectors take too.
struct Tee<'a> {
    content: &'a mut dyn Content,
    takers: Vec<&'a mut Inspection>,
    failure: Option<Error>,
}

impl Content for Tee<'_> {
    fn chunk(&mut self) -> Result<&[u8]> {
        if self.failure.is_some() {
            // What is said here is not heard: the failure is.
            return Err(Error::Interrupted);
        }
        self.content.chunk()
    }

    fn advance(&mut self, count: usize) {
        if let (None, Ok(bytes)) = (&self.failure, self.content.chunk()) {
            let bytes = &bytes[..count.min(bytes.len())];
            for taker in &mut self.takers {
                if bytes.is_empty() {
                    break;
                }
                if let Err(error) = taker.content(bytes) {
                    self.failure.get_or_insert(asking(taker, error));
                }
            }
        }
        self.content.advance(count);
    }
}

/// An entry as inspectors see it: in the form in which an extractor claims it, and checked.
fn shown(entry: &Entry) -> claim::Entry {
    let device = |device: &cofferdam_tree::entry::Device| claim::Device { major: device.major, minor: device.minor };
    let node = match &entry.node {
        Node::Directory => claim::Node::Directory,
        Node::File { size } => claim::Node::File(*size),
        Node::Sparse { size, extents } => claim::Node::SparseFile(claim::Sparse {
            size: *size,
            extents: extents.iter().map(|e| claim::Extent { offset: e.offset, length: e.length }).collect(),
        }),
        Node::Symlink { target } => claim::Node::Symlink(target.clone()),
        Node::HardLink { target } => claim::Node::HardLink(target.as_bytes().to_vec()),
        Node::CharDevice(number) => claim::Node::CharacterDevice(device(number)),
        Node::BlockDevice(number) => claim::Node::BlockDevice(device(number)),
        Node::Fifo => claim::Node::Fifo,
        Node::Whiteout => claim::Node::Whiteout,
        Node::Opaque => claim::Node::Opaque,
    };
    let metadata = &entry.metadata;
    claim::Entry {
        path: entry.path.as_bytes().to_vec(),
        node,
        mode: metadata.mode.into(),
        uid: metadata.uid,
        gid: metadata.gid,
        modified: claim::Timestamp { seconds: metadata.mtime.seconds, nanoseconds: metadata.mtime.nanoseconds },
        attributes: (metadata.xattrs.iter())
            .map(|xattr| claim::Attribute { name: xattr.name.clone(), value: xattr.value.clone() })
            .collect(),
    }
}
