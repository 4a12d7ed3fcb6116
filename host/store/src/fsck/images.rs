//! References, and what the images consist of that they stand for.

use std::collections::BTreeMap;

use cofferdam_core::digest::Digest;
use cofferdam_core::error::{Error, Result};
use cofferdam_documents::LayerDescriptor;

use super::{Check, Finding, Part, Problem, Users, sentence};
use crate::layout::BlobKind;
use crate::refs::ImageRef;

/// What the images in the store need.
#[derive(Default)]
pub(super) struct Needs {
    /// Which images need what.
    pub(super) users: Users,
    /// What is claimed of each layer, by its first image.
    pub(super) layers: BTreeMap<Digest, LayerDescriptor>,
    images: Vec<Image>,
}

/// An image: its reference, and its parts as far as they are known.
struct Image {
    reference: String,
    documents: Vec<(Part, Digest)>,
    layers: Vec<Digest>,
    /// Why the parts are not known to the end, unless a part of it says so itself.
    unknown: Option<String>,
}

impl Needs {
    pub(super) fn images_of(&self, part: Part, digest: &Digest) -> Vec<String> {
        self.users.get(&(part, digest.clone())).cloned().unwrap_or_default()
    }
}

impl Check<'_> {
    /// Reads all references, and what they name.
    pub(super) fn references(&self) -> Result<Needs> {
        let listing = self.storage.refs().list()?;
        self.count(|counts| counts.images = (listing.refs.len() + listing.unreadable.len()) as u64);
        for name in listing.unreadable {
            let what = match self.storage.refs().read(&name) {
                Err(error) => sentence(&error),
                Ok(_) => "it cannot be read".into(),
            };
            let subject = crate::refs::decoded(&name);
            let remedy = format!("with --repair it is moved aside; then pull it again: cofferdam pull {subject}");
            self.find(
                Finding::new(Part::Reference, Problem::Damaged, subject, what)
                    .at(format!("refs/{name}"))
                    .remedy(remedy),
            );
        }
        for name in listing.blank {
            let subject = crate::refs::decoded(&name);
            let what = "it is empty, as a power cut leaves one that was not to be durable; it counts for nothing";
            let remedy = format!("pull it again: cofferdam pull {subject}");
            self.find(
                Finding::new(Part::Reference, Problem::Leftover, subject, what)
                    .at(format!("refs/{name}"))
                    .remedy(remedy),
            );
        }
        let mut needs = Needs::default();
        for reference in &listing.refs {
            self.image(reference, &mut needs);
        }
        Ok(needs)
    }

    fn image(&self, reference: &ImageRef, needs: &mut Needs) {
        let mut image = Image {
            reference: reference.reference.clone(),
            documents: vec![(Part::Manifest, reference.manifest.clone())],
            layers: Vec::new(),
            unknown: None,
        };
        image.documents.extend(reference.index.clone().map(|index| (Part::Manifest, index)));
        if let Err(error) = self.parts(reference, &mut image, needs) {
            // Of what is missing or damaged, the part itself tells.
            if !matches!(error.root(), Error::NotFound { .. } | Error::DigestMismatch { .. }) {
                image.unknown = Some(sentence(&error));
            }
        }
        let documents = image.documents.iter().cloned();
        for part in documents.chain(image.layers.iter().map(|layer| (Part::Layer, layer.clone()))) {
            let users = needs.users.entry(part).or_default();
            if users.last() != Some(&image.reference) {
                users.push(image.reference.clone());
            }
        }
        needs.images.push(image);
    }

    fn parts(&self, reference: &ImageRef, image: &mut Image, needs: &mut Needs) -> Result<()> {
        let Some(manifest) = self.storage.read_document(BlobKind::Manifest, &reference.manifest)? else {
            return Ok(());
        };
        let (config, layers) = cofferdam_documents::image::named(&manifest, &reference.manifest)?;
        image.documents.push((Part::Config, config));
        image.layers.extend(layers);
        // The configuration last: the layers are known without it.
        for layer in self.storage.load_parts(reference)?.layers {
            needs.layers.entry(layer.digest.clone()).or_insert(layer);
        }
        Ok(())
    }

    /// Reports the images of which a part is missing or damaged now, after all repairs.
    pub(super) fn incomplete(&self) {
        for image in &self.needs.images {
            let mut lacks = Vec::new();
            for (part, digest) in &image.documents {
                if !self.is_good(*part, digest) {
                    lacks.push(format!("the {} {digest}", part.word()));
                }
            }
            for layer in &image.layers {
                // A tree is as good as a blob.
                if !self.is_good(Part::Layer, layer) && !self.is_whole(layer) {
                    lacks.push(format!("the layer {layer}"));
                }
            }
            let what = match (&lacks[..], &image.unknown) {
                ([], None) => continue,
                ([], Some(why)) => why.clone(),
                ([one], _) => format!("it lacks {one}"),
                ([one, rest @ ..], _) => format!("it lacks {one} and {} more parts", rest.len()),
            };
            let remedy =
                format!("pull it again, which fetches only what is missing: cofferdam pull {}", image.reference);
            self.find(Finding::new(Part::Image, Problem::Incomplete, &image.reference, what).remedy(remedy));
        }
    }
}
