//! Removing an image, and what only it needed.
//!
//! A reference can always be removed, also one that cannot be read. Then all is freed that no reference needs, what this removal
//! leaves and what earlier ones had to leave, unless somebody leases it ([`super::Lease`]), reads it or is at work on it. That
//! takes that every other image can be read to the end, so that it is known what those need. Where somebody keeps content that no
//! reference names (see `keep.rs`), only the parts of the removed image are freed, and of those none that another manifest
//! names. What is not freed stays for the next removal or collection.

use cofferdam_core::digest::Digest;
use cofferdam_core::error::Result;
use cofferdam_documents::Reference;

use crate::collect::{IN_USE, Taken};
use crate::images::unknown;
use crate::reach::{Known, Parts};
use crate::refs::ImageRef;
use crate::storage::ImageStorage;

/// What a removal did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Removed {
    /// Blobs that were freed.
    pub blobs: Vec<Digest>,
    /// Their bytes.
    pub bytes: u64,
    /// Layers whose trees were freed.
    pub trees: Vec<Digest>,
    /// Why something that may be unneeded was kept, if so.
    pub kept: Option<String>,
}

impl Removed {
    fn keep(why: impl Into<String>) -> Self {
        Self { kept: Some(why.into()), ..Self::default() }
    }

    fn of(taken: Taken, kept: Option<String>) -> Self {
        let busy = taken.kept.first().map(|(digest, why)| format!("{digest}: {why}"));
        Self {
            bytes: taken.blobs.iter().map(|blob| blob.size).sum(),
            blobs: taken.blobs.into_iter().map(|blob| blob.digest).collect(),
            trees: taken.trees.into_iter().map(|tree| tree.digest).collect(),
            kept: busy.or(kept),
        }
    }
}

/// Returns true if `asked` is a name with a tag and a digest, and `name` has another tag: the same image, but not the name that is to go.
fn has_another_tag(name: &str, asked: &str) -> bool {
    let (Ok(name), Ok(asked)) = (name.parse::<Reference>(), asked.parse::<Reference>()) else { return false };
    asked.tag().is_some() && asked.digest().is_some() && asked.tag() != name.tag()
}

impl ImageStorage {
    /// Removes a reference, and frees what neither another reference nor a lease needs. [`cofferdam_core::Error::NotFound`] if there is no
    /// such reference. What the caller leases or has open as a [`super::Tree`] is kept like anybody's; under
    /// [`ImageStorage::in_use`] nothing is freed. Blocks the thread.
    pub fn remove(&self, reference: &str) -> Result<Removed> {
        self.writable()?;
        let mut known = Known::default();
        let mut parts = Parts::default();
        let (name, manifest, incomplete) = match self.resolve(reference) {
            Ok(Some(image)) if has_another_tag(&image.reference, reference) => return Err(unknown(reference)),
            Ok(Some(image)) => {
                let (of_image, complete) = self.parts_of(&image, &mut known);
                parts = of_image;
                (image.reference, Some(image.manifest), (!complete).then_some("the image could not be read to the end"))
            }
            Ok(None) => return Err(unknown(reference)),
            // Whatever it stood for, it must not stand in the way for ever.
            Err(error) => {
                tracing::warn!(reference, %error, "removing a reference that cannot be read");
                (reference.to_owned(), None, Some("the reference could not be read"))
            }
        };
        // What the others need is read before the gate is taken: there it is only looked up.
        let _ = self.needed(&self.refs().list()?, &mut known);
        // Behind the gate: a pull may have published another image under this name since it was found by another text.
        let gate = self.locks().gate_alone(None)?;
        let is_it = |image: ImageRef| Some(&image.manifest) == manifest.as_ref();
        let replaced = name != reference && !self.refs().get(&name)?.is_some_and(is_it);
        if replaced || !self.refs().remove(&name)? {
            return Err(unknown(reference));
        }
        drop(gate);
        let Some(collecting) = self.collecting(None)? else { return Ok(Removed::keep(IN_USE)) };
        let unneeded = match self.needed(&self.refs().list()?, &mut known) {
            Ok(needed) => self.unneeded(&parts, &needed)?,
            Err(culprit) => Err(culprit),
        };
        let mut unneeded = match unneeded {
            Ok(unneeded) => unneeded,
            Err(culprit) => return Ok(Removed::keep(format!("what {culprit} needs is not known"))),
        };
        let leased = unneeded.drop_leased(&collecting.leased);
        let mut taken = Taken::default();
        // What has lost its name goes, whatever keeps the rest.
        let took = self.take(&unneeded, &mut taken);
        drop(collecting);
        took.and(self.discard(&taken, None))?;
        let incomplete = incomplete.filter(|_| self.keeps_unreferenced());
        let why = if leased { Some("somebody leases some of it") } else { incomplete };
        Ok(Removed::of(taken, why.map(Into::into)))
    }

    /// Removes the trees of local layouts that nobody has open; they are made again when they are needed. None while somebody uses
    /// the store as a whole. Blocks the thread.
    pub fn remove_local(&self) -> Result<Removed> {
        self.writable()?;
        let local = self.free_local(None)?;
        Ok(Removed {
            trees: local.freed.into_iter().map(|(_, digest)| digest).collect(),
            kept: local.kept.first().map(|(what, why)| format!("{what}: {why}")),
            ..Removed::default()
        })
    }
}
