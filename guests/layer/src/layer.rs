//! The layer: a sequence of members up to the end marker, pulled one entry at a time.

use crate::BLOCK;
use crate::entry::Entry;
use crate::extension::Pending;
use crate::failure::{Failure, Fault};
use crate::header::{self, Extension, Header, Kind, Type};
use crate::limits::Limits;
use crate::member::{Member, Rest};
use crate::source::{Source, Window};
use crate::sparse;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// More may come.
    Reading,
    /// The end marker or the stream's end was seen.
    Ended,
    /// A failure was returned: what follows in the stream means nothing any more.
    Failed,
}

/// A layer being read. Memory does not grow with its size.
#[derive(Debug)]
pub struct Layer {
    limits: Limits,
    state: State,
    window: Window,
    pending: Pending,
    member: Member,
    /// Content of the last entry, which the caller takes from the source.
    content: u64,
}

impl Layer {
    /// A layer of which nothing was read yet.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            state: State::Reading,
            window: Window::default(),
            pending: Pending::default(),
            member: Member::default(),
            content: 0,
        }
    }

    /// Reads up to the next entry; nothing at the end of the archive, whose end marker is then read and nothing behind it.
    ///
    /// Before the next call the caller must have taken the entry's content, [`Entry::content_bytes`], from the same
    /// source, or have called [`Layer::skip_content`]. The padding behind it is read here. An ordinary member costs one
    /// read, of the padding before it and its header; one with an extended header two. Behind a member without a body that has a
    /// size, the next header is read at once.
    ///
    /// After a failure all further calls fail.
    pub fn next<S: Source>(&mut self, source: &mut S) -> Result<Option<Entry<'_>>, S::Error> {
        match self.state {
            State::Reading => {}
            State::Ended => return Ok(None),
            State::Failed => return Err(Failure::Corrupt("the layer was given up before".to_owned()).into()),
        }
        self.state = State::Failed;
        self.window.taken(std::mem::take(&mut self.content));
        while let Some(complete) = self.member(source)? {
            if complete {
                self.state = State::Reading;
                return Ok(Some(self.member.entry(&self.pending)));
            }
        }
        self.state = State::Ended;
        Ok(None)
    }

    /// Leaves the content of the last entry to the next read, which drops it.
    pub fn skip_content(&mut self) {
        self.window.skip(std::mem::take(&mut self.content));
    }

    /// Reads one member with all that stands in front of it. Says whether it is an entry; nothing at the archive's end.
    fn member<S: Source>(&mut self, source: &mut S) -> Result<Option<bool>, S::Error> {
        self.pending.clear();
        self.member.raw.clear();
        loop {
            let start = self.window.position();
            let Some(block) = self.window.block(source)? else {
                return self.at_end(start).map_err(S::Error::from);
            };
            if header::is_zero(&block) {
                self.at_end(start)?;
                return match self.window.block(source)? {
                    Some(block) if !header::is_zero(&block) => {
                        Err(Fault::refused("data behind a lone zero block").at(start, &[]).into())
                    }
                    _ => Ok(None),
                };
            }
            let failed = |fault: Fault| fault.at(start, &[]);
            let header = Header::new(&block).map_err(failed)?;
            header.check_unused().map_err(failed)?;
            match header.of_type() {
                Type::Extension(extension) => {
                    let size = header.size().map_err(failed)?;
                    self.extension(extension, size, start, source)?;
                }
                Type::Member(kind) => return self.body(kind, &header, start, source).map(Some),
                Type::Unknown(flag) => {
                    header.name(&mut self.member.raw);
                    let fault = Fault::refused(format!("the type `{}` is not allowed", flag.escape_ascii()));
                    return Err(fault.at(start, &self.member.raw).into());
                }
            }
        }
    }

    /// Checks that no body follows a member that has none but has a size: some readers would skip that many bytes. Looks at the
    /// next block, before the member becomes an entry.
    fn check_void<S: Source>(&mut self, size: u64, start: u64, source: &mut S) -> Result<(), S::Error> {
        let next = self.window.peek(source)?;
        if next.is_empty() || next.first_chunk().is_some_and(header::is_due) {
            return Ok(());
        }
        let fault =
            Fault::refused(format!("it has a size of {size} bytes, which only a file has, and no header follows"));
        Err(fault.at(start, &self.member.raw).into())
    }

    fn at_end(&self, start: u64) -> Result<Option<bool>, Failure> {
        if self.pending.is_empty() {
            Ok(None)
        } else {
            Err(Fault::corrupt("an extended header without a member").at(start, &[]))
        }
    }

    /// Reads the payload of an extension, and in the same go the header that must follow.
    fn extension<S: Source>(
        &mut self,
        extension: Extension,
        size: u64,
        start: u64,
        source: &mut S,
    ) -> Result<(), S::Error> {
        let failed = |fault: Fault| fault.at(start, &[]);
        let size = self.pending.admit(extension, size, &self.limits).map_err(failed)?;
        let padded = size.next_multiple_of(BLOCK);
        if self.window.fill(source, padded + BLOCK)? < padded {
            return Err(Failure::cut_short().into());
        }
        let (payload, padding) = self.window.take(padded).split_at_checked(size).unwrap_or_default();
        let is_name = matches!(extension, Extension::LongName | Extension::LongLink);
        if is_name && !payload.contains(&0) && padding.first().is_some_and(|&byte| byte != 0) {
            // Python reads a name on to the first NUL, through the padding.
            return Err(failed(Fault::corrupt("a long name that goes on in its padding")).into());
        }
        self.pending.take(extension, payload).map_err(failed)?;
        Ok(())
    }

    /// Reads what of a member's body is not content.
    fn body<S: Source>(
        &mut self,
        kind: Kind,
        header: &Header<'_>,
        start: u64,
        source: &mut S,
    ) -> Result<bool, S::Error> {
        let described = self.member.describe(kind, header, &self.pending, &self.limits);
        let mut rest = described.map_err(|fault| fault.at(start, &self.member.raw))?;
        let mut content = self.member.body;
        let mut text = sparse::Text::default();
        while rest != Rest::Nothing {
            if rest == Rest::Text {
                let fault = || sparse::malformed("no end").at(start, &self.member.raw);
                content = content.checked_sub(BLOCK as u64).ok_or_else(fault)?;
            }
            let block = self.window.block(source)?.ok_or_else(Failure::cut_short)?;
            let read = if rest == Rest::Text {
                let done = text.feed(&block, &mut self.member.extents, &self.limits);
                done.map(|done| if done { Rest::Nothing } else { Rest::Text })
            } else {
                let [slots @ .., more, _, _, _, _, _, _, _] = &block;
                self.member.slots(slots, *more != 0, &self.limits)
            };
            rest = read.map_err(|fault| fault.at(start, &self.member.raw))?;
        }
        if let Some(size) = self.member.void_size {
            self.check_void(size, start, source)?;
        }
        let is_entry = self.member.complete(content).map_err(|fault| fault.at(start, &self.member.raw))?;
        if is_entry {
            self.content = content;
        } else {
            self.window.skip(content);
        }
        self.window.pad(self.member.body);
        Ok(is_entry)
    }
}
