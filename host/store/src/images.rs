//! Images by name: publish, list, resolve, load.

use std::time::{Duration, UNIX_EPOCH};

use cofferdam_core::ambient;
use cofferdam_core::cancel::Cancel;
use cofferdam_core::digest::Digest;
use cofferdam_core::error::{Error, Result};
use cofferdam_documents::Reference;
use cofferdam_documents::image::{ImageObject, LayerDescriptor};
use cofferdam_documents::{Document, DocumentKind, Platform};

use crate::durability::Durability;
use crate::file::{self, Flush};
use crate::layout::{self, BlobKind};
use crate::lease::Keeps;
use crate::manifest::not_found;
use crate::refs::ImageRef;
use crate::stage::{Draft, Staged};
use crate::storage::ImageStorage;
use crate::trees::Look;

impl ImageStorage {
    /// Lets a reference stand for an image, last of all: manifest and configuration must be there and right, and each layer
    /// as a blob of the declared size or as a tree. As far as [`ImageStorage::durability`] asks for it, all of
    /// that is on disk before the reference is. Replaces what the reference stood for. `pulled_at` is set by this. `held` is
    /// a [`super::Lease`] of all that the image consists of, or [`ImageStorage::in_use`], since before the caller looked for the
    /// first blob: what it found must still be there. [`Error::Usage`] if it does not keep all of it.
    pub fn publish(&self, image: ImageRef, held: &impl Keeps) -> Result<ImageObject> {
        self.writable()?;
        let object = self.load_image(&image)?;
        let parts = [&image.manifest, &object.config_digest].into_iter().chain(&image.index);
        if let Some(loose) = parts.chain(object.layer_digests()).find(|digest| !held.keeps(digest)) {
            let reason = format!("{} cannot be published: {loose} is not leased, and may be freed", image.reference);
            return Err(Error::Usage {
                reason,
                hint: Some("lease all digests of an image before looking for them".into()),
            });
        }
        if let Some(index) = &image.index
            && self.manifest_bytes(index)?.is_none()
        {
            return Err(not_found(index));
        }
        // What is replaced may be there for good. Then so is what takes its place, and all that it names.
        let replaces = !matches!(self.refs().get(&image.reference), Ok(None));
        let least = if replaces { Durability::Image } else { Durability::None };
        let storage = self.clone().with_durability(self.durability().max(least));
        storage.make_durable(&image, &object)?;
        let pulled_at = ambient::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        // Nobody who collects takes this one for the one that it replaces.
        let _gate = self.locks().gate(None)?;
        self.refs().set(&ImageRef { pulled_at, ..image }, storage.durability().flush())?;
        Ok(object)
    }

    /// Makes all that an image consists of durable, whoever wrote it, and whether that was done before or not; as far as
    /// that is wanted. In any case all of it must be there.
    fn make_durable(&self, image: &ImageRef, object: &ImageObject) -> Result<()> {
        let manifests = [Some(&image.manifest), image.index.as_ref()].into_iter().flatten();
        let documents = manifests.map(|digest| (BlobKind::Manifest, digest));
        for (kind, digest) in documents.chain([(BlobKind::Config, &object.config_digest)]) {
            if !self.secure(kind, digest)? {
                return Err(not_found(digest));
            }
        }
        let blobs = self.rooms().blobs(BlobKind::Layer);
        let mut trees = Vec::new();
        for layer in &object.layers {
            let held = layout::file_size(blobs, &BlobKind::Layer.file_name(&layer.digest));
            let right = held.is_some() && layer.size.is_none_or(|size| held == Some(size));
            if !right || !self.secure(BlobKind::Layer, &layer.digest)? {
                trees.push(layer);
            }
        }
        if self.durability().flush() == Flush::Now {
            BlobKind::ALL.into_iter().try_for_each(|kind| file::sync_dir(self.rooms().blobs(kind)))?;
        }
        self.secure_trees(&trees)
    }

    /// Makes a blob durable, if that is wanted. Says whether there is one.
    fn secure(&self, kind: BlobKind, digest: &Digest) -> Result<bool> {
        let (dir, name) = (self.rooms().blobs(kind), kind.file_name(digest));
        match self.durability().flush() {
            Flush::Now => file::sync(dir, &name).or_else(|error| {
                tracing::warn!(blob = name, %error, "a blob cannot be synced; it is written again");
                self.write_again(kind, digest)
            }),
            Flush::Later => Ok(layout::file_size(dir, &name).is_some()),
        }
    }

    /// Writes a blob again, into another file. A sync that failed says once only that something was not written: done
    /// again, it would claim to have worked.
    fn write_again(&self, kind: BlobKind, digest: &Digest) -> Result<bool> {
        let (dir, name) = (self.rooms().blobs(kind), kind.file_name(digest));
        let Some(mut blob) = file::open(dir, &name)? else { return Ok(false) };
        let expected = self.expect(kind, digest.clone(), None)?;
        let mut staged = Staged::new(Draft::create(dir, expected, self.locks(), None)?);
        std::io::copy(&mut blob, &mut staged).map_err(|e| Error::io("write again", name.as_bytes(), e))?;
        staged.verify()?.commit_over().map(|()| true)
    }

    /// Makes trees durable: all, if that is wanted, and those without a blob of their layer unless nothing is to be durable.
    /// A tree is as good as a blob, if a power cut leaves it.
    fn secure_trees(&self, alone: &[&LayerDescriptor]) -> Result<()> {
        let promoted = self.durability() == Durability::Layer;
        if promoted {
            self.trees().promote_older(Duration::ZERO)?;
        }
        for layer in alone {
            let LayerDescriptor { digest, media_type, .. } = layer;
            let reader = self.unpacker().reader(media_type.as_deref(), &[])?;
            let synced = || match self.trees().look(layer, reader.as_ref())? {
                Look::Ready(_, record) => Ok(self.durability() == Durability::None || record.synced),
                Look::Unmeasured | Look::Otherwise | Look::Absent => Ok::<_, Error>(false),
            };
            if !synced()? && !promoted {
                self.trees().promote_older(Duration::ZERO)?;
            }
            if !synced()? {
                return Err(Error::NotFound { what: format!("layer {digest}"), hint: None });
            }
        }
        // Who noted that they are on disk may not have synced the note's name yet, or the tree's.
        if self.durability() != Durability::None && (promoted || !alone.is_empty()) {
            self.trees().sync_names()?;
        }
        Ok(())
    }

    /// All references in the store, in order. One that cannot be read is logged and left out.
    pub fn images(&self) -> Result<Vec<ImageRef>> {
        Ok(self.refs().list()?.refs)
    }

    /// What a reference stands for. `reference` is a name as it was published, or one that means the same (Docker Hub, its `library/`
    /// and the tag `latest` may be left out), or such a name with a digest, or a digest alone: of the manifest of an image in the
    /// store, or of the index from which that was chosen.
    ///
    /// # Errors
    /// [`Error::InvalidReference`] for what can be no name.
    pub fn resolve(&self, reference: &str) -> Result<Option<ImageRef>> {
        if let Ok(digest) = reference.parse::<Digest>() {
            return Ok(of_digest(self.images()?, &digest));
        }
        if let Some(image) = self.refs().get(reference)? {
            return Ok(Some(image));
        }
        let Ok(named) = reference.parse::<Reference>() else { return Ok(None) };
        if let Some(image) = self.refs().get(&named.to_string())? {
            return Ok(Some(image));
        }
        // Pulled by a tag, and asked for by what that stood for; or by another tag of the same.
        let Some(digest) = named.digest() else { return Ok(None) };
        let mut images = self.images()?;
        images.retain(|image| {
            let known = image.reference.parse::<Reference>();
            known.is_ok_and(|known| (known.registry(), known.repository()) == (named.registry(), named.repository()))
        });
        let with_the_tag = |image: &ImageRef| {
            image.has_digest(digest)
                && image.reference.parse::<Reference>().is_ok_and(|known| known.tag() == named.tag())
        };
        match images.iter().position(with_the_tag) {
            Some(at) => Ok(images.into_iter().nth(at)),
            None => Ok(of_digest(images, digest)),
        }
    }

    /// Gives an image a further name. What that stood for before loses it. The image keeps the name under which it was pulled, beside the new
    /// one ([`ImageRef::pulled_as`]). Blocks the thread.
    ///
    /// # Errors
    ///
    /// [`Error::NotFound`] if there is no such image; [`Error::Usage`] for a name with a digest that is not the image's.
    pub fn tag(&self, reference: &str, name: &str) -> Result<ImageObject> {
        super::refs::check_reference(name)?;
        let (_, lease) = self.lease_image(reference, &Cancel::new())?;
        let image = self.resolve(reference)?.ok_or_else(|| unknown(reference))?;
        let digest = name.rsplit_once('@').and_then(|(_, digest)| digest.parse::<Digest>().ok());
        if digest.is_some_and(|digest| !image.has_digest(&digest)) {
            return Err(Error::Usage {
                reason: format!("`{name}` names another image than {reference}, which is {}", image.manifest),
                hint: Some("give a name without a digest, or with that one".into()),
            });
        }
        self.publish(image.named(name), &lease)
    }

    /// The image that a reference stands for. [`Error::NotFound`] if there is none.
    pub fn image(&self, reference: &str) -> Result<ImageObject> {
        let image = self.resolve(reference)?.ok_or_else(|| unknown(reference))?;
        self.load_image(&image)
    }

    /// The image behind an entry of [`ImageStorage::images`], from verified bytes. What is damaged is set aside, so that pulling the
    /// image again fetches it.
    pub fn load_image(&self, image: &ImageRef) -> Result<ImageObject> {
        self.load_parts(image).map_err(|error| {
            let error = match error {
                Error::DigestMismatch { subject, expected, actual } => {
                    if expected == image.manifest {
                        self.complain_manifest(&expected);
                    } else {
                        self.complain(BlobKind::Config, &expected);
                    }
                    Error::Damaged { subject, reason: format!("it hashes to {actual}"), hint: String::new() }
                }
                // Something that is no file may have taken the place of one.
                Error::NotFound { what, hint } => match self.complain_documents(image) {
                    Some(reason) => Error::Damaged { subject: what, reason: reason.into(), hint: String::new() },
                    None => Error::NotFound { what, hint },
                },
                other => other,
            };
            Self::of_image(error, &image.reference)
        })
    }

    fn complain_documents(&self, image: &ImageRef) -> Option<&'static str> {
        let Ok(Some(manifest)) = self.read_document(BlobKind::Manifest, &image.manifest) else {
            return self.complain(BlobKind::Manifest, &image.manifest);
        };
        let (config, _) = cofferdam_documents::image::named(&manifest, &image.manifest).ok()?;
        self.complain(BlobKind::Config, &config)
    }

    /// Says of an error about a part of an image how that is mended.
    pub fn of_image(error: Error, reference: &str) -> Error {
        let advice = || format!("fetch it again: cofferdam pull {}", reference.escape_default());
        match error {
            Error::Context { context, source } => Self::of_image(*source, reference).context(context),
            Error::Damaged { subject, reason, .. } => Error::Damaged { subject, reason, hint: advice() },
            Error::NotFound { what, .. } => Error::NotFound { what, hint: Some(advice()) },
            other => other,
        }
    }

    /// [`ImageStorage::load_image`], as an error of its parts.
    pub(super) fn load_parts(&self, image: &ImageRef) -> Result<ImageObject> {
        let manifest =
            self.read_document(BlobKind::Manifest, &image.manifest)?.ok_or_else(|| not_found(&image.manifest))?;
        let config = cofferdam_documents::image::config_digest(&manifest, &image.manifest)?;
        let config = self.read_config(&config)?;
        let (reference, limits) = (&image.reference, self.limits());
        let object = ImageObject::parse(reference, &image.manifest, &manifest, config.as_bytes(), limits)?;
        Ok(object.chosen_for(self.stated_by_index(image).as_ref()))
    }

    /// Returns the platform that the index of an image has for it, if the index is there and says one.
    fn stated_by_index(&self, image: &ImageRef) -> Option<Platform> {
        let mut level = vec![(image.index.clone()?, None)];
        for _ in 0..self.limits().index_depth {
            let mut nested = Vec::new();
            for (digest, around) in level {
                let Some(bytes) = self.manifest_bytes(&digest).ok().flatten() else { continue };
                let Ok(Document::Index(index)) = Document::read(&bytes, &digest, None) else { continue };
                for entry in index.entries {
                    let Ok(descriptor) = entry.descriptor else { continue };
                    let platform = entry.platform.or_else(|| around.clone());
                    if descriptor.digest == image.manifest {
                        return platform;
                    }
                    if entry.kind == DocumentKind::Index {
                        nested.push((descriptor.digest, platform));
                    }
                }
            }
            level = nested;
        }
        None
    }
}

/// The image of which this digest is: of its manifest, or else of its index.
fn of_digest(images: Vec<ImageRef>, digest: &Digest) -> Option<ImageRef> {
    let by_index = images.iter().position(|image| image.index.as_ref() == Some(digest));
    let by_manifest = images.iter().position(|image| image.manifest == *digest);
    by_manifest.or(by_index).and_then(|at| images.into_iter().nth(at))
}

pub(super) fn unknown(reference: &str) -> Error {
    let shown: String = reference.chars().take(200).collect();
    Error::NotFound {
        what: format!("image {shown:?}"),
        hint: Some(format!("see what is there: cofferdam images; fetch it: cofferdam pull {}", shown.escape_default())),
    }
}
