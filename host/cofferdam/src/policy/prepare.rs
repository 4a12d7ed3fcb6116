//! An image made ready for use under a policy: the plugins that the policy requires today, and the store and the unpacker with them.
//!
//! A stored image is held to today's policy, and not to the one of the day on which it was pulled: each plugin that is required for its
//! name now must have accepted it then, as the same component with the same settings and grants.

use std::sync::Arc;

use super::admit::Admit;
use super::panel::{Panel, readers};
use super::rules::{Policy, Requirement};
use crate::digest::Digest;
use crate::error::{Error, Result};
use crate::sandbox::Context;
use crate::store::{ImageObject, ImageRef, ImageStorage};
use crate::unpack::Unpacker;

/// A store and an unpacker for one image, with the plugins that read its layers and those that the policy requires.
#[derive(Debug)]
pub struct PreparedImage {
    /// The unpacker with these plugins: for [`crate::registry::pull`], [`crate::rootfs::unpack`] and [`crate::rootfs::mount_spec`].
    pub unpacker: Unpacker,
    /// The store, which extracts layers by that unpacker.
    pub storage: ImageStorage,
    panel: Panel,
    reference: String,
}

impl PreparedImage {
    /// Prepares the pull of an image that will have this name in the store. `by_hand` are verifiers and inspectors that are asked beside
    /// those of the policy. The pull needs [`PreparedImage::admission`].
    ///
    /// # Errors
    ///
    /// Those of [`Panel::of`], and [`crate::Error::Damaged`] if the plugins of the store cannot be read.
    pub fn for_pull(
        reference: &str,
        policy: &Policy,
        by_hand: (&[Requirement], &[Requirement]),
        storage: &ImageStorage,
        unpacker: &Unpacker,
    ) -> Result<Self> {
        let plugins = storage.plugins()?;
        let panel = Panel::of(reference, policy, by_hand, &plugins, unpacker.sandbox())?;
        let readers = readers(&plugins, unpacker.sandbox())?;
        let unpacker = unpacker.clone().with_extensions(panel.extensions(&readers)?);
        let storage = storage.clone().with_unpacker(Arc::new(unpacker.clone()));
        Ok(Self { unpacker, storage, panel, reference: reference.to_owned() })
    }

    /// Prepares the use of an image of the store, and checks that the policy lets it in today: all that are required for its name
    /// accepted it under that name. `asked_as` is what the image was asked for by: of one that was asked for by a digest alone, any of
    /// its names will do.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Refused`] if the policy does not let it in; those of [`PreparedImage::for_pull`].
    pub fn for_stored(
        image: &ImageObject,
        asked_as: &str,
        policy: &Policy,
        storage: &ImageStorage,
        unpacker: &Unpacker,
    ) -> Result<Self> {
        let mut entries: Vec<ImageRef> = storage.resolve(&image.reference)?.into_iter().collect();
        if asked_as.parse::<Digest>().is_ok() {
            entries.extend(storage.images()?.into_iter().filter(|entry| entry.reference != image.reference));
        }
        // What a name stands for by now may be another image, about which they were asked.
        entries.retain(|entry| entry.manifest == image.manifest_digest);
        if entries.is_empty() {
            let nameless = ImageRef::unnamed(image.manifest_digest.clone());
            entries.push(ImageRef { reference: image.reference.clone(), ..nameless });
        }
        let mut outcome = None;
        for entry in &entries {
            let prepared = Self::for_entry(entry, policy, storage, unpacker);
            if prepared.is_ok() {
                return prepared;
            }
            outcome.get_or_insert(prepared);
        }
        outcome.unwrap_or(Err(Error::Interrupted))
    }

    /// Prepares the use of an image under one name. What is required under the name by which it was pulled is required too.
    fn for_entry(entry: &ImageRef, policy: &Policy, storage: &ImageStorage, unpacker: &Unpacker) -> Result<Self> {
        let mut prepared = Self::for_pull(&entry.reference, policy, (&[], &[]), storage, unpacker)?;
        prepared.panel.check(&entry.reference, entry.decision.as_ref())?;
        if let Some(first) = &entry.pulled_as {
            let about = |error: Error| error.context(format!("`{}` was pulled as `{first}`", entry.reference));
            let plugins = storage.plugins()?;
            let mut panel = Panel::of(first, policy, (&[], &[]), &plugins, unpacker.sandbox()).map_err(about)?;
            panel.check(first, entry.decision.as_ref()).map_err(about)?;
            // Those who saw its layers then see what is extracted again, each once.
            let own = &prepared.panel.inspectors;
            panel.inspectors.retain(|other| own.iter().all(|inspector| inspector.identity() != other.identity()));
            let extensions = panel.extensions(prepared.unpacker.extensions())?;
            prepared.unpacker = prepared.unpacker.with_extensions(extensions);
            prepared.storage = prepared.storage.with_unpacker(Arc::new(prepared.unpacker.clone()));
        }
        Ok(prepared)
    }

    /// The name in the store under which the image is used.
    pub fn reference(&self) -> &str {
        &self.reference
    }

    /// Who decides about the image when it is pulled: [`crate::registry::PullOptions::admission`].
    pub fn admission(&self) -> Admit {
        let (sandbox, limits) = (Arc::clone(self.unpacker.sandbox()), self.unpacker.limits().clone());
        let context = Context { scratch: Some(self.storage.scratch_dir()), ..Context::default() };
        Admit::new(self.reference.clone(), self.panel.clone(), sandbox, limits, context)
    }

    /// Returns true if no plugin is asked about the image.
    pub fn is_free(&self) -> bool {
        self.panel.is_empty()
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::disallowed_methods, reason = "tests write into the store by path")]

    use super::super::Rule;
    use super::*;
    use crate::error::ErrorKind;
    use crate::limits::Limits;
    use crate::sandbox::{Sandbox, SandboxOptions};

    /// Publishes an image without layers under these names.
    fn publish(storage: &ImageStorage, names: &[&str]) -> Vec<ImageObject> {
        let config = Digest::of(b"{}");
        std::fs::write(storage.config_path(&config.to_string()), "{}").unwrap();
        let manifest = serde_json::json!({
            "schemaVersion": 2, "layers": [],
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": config, "size": 2},
        })
        .to_string();
        let digest = Digest::of(manifest.as_bytes());
        storage.save_manifest_bytes(manifest.as_bytes(), &digest.to_string()).unwrap();
        let entry = |name: &&str| ImageRef {
            reference: (*name).to_owned(),
            manifest: digest.clone(),
            index: None,
            platform: None,
            pulled_at: 0,
            pulled_as: None,
            decision: None,
        };
        let held = storage.in_use_blocking().unwrap();
        names.iter().map(|name| storage.publish(entry(name), &held).unwrap()).collect()
    }

    fn rule(pattern: &str, change: impl FnOnce(&mut Rule)) -> Policy {
        let mut rule = Rule::new(&[pattern.to_owned()]).unwrap();
        change(&mut rule);
        Policy::new(vec![rule])
    }

    /// What the policy says today counts, whatever it said when the image was pulled; the library holds to it.
    #[test]
    fn a_stored_image_is_held_to_the_policy_of_today() {
        let temp = tempfile::tempdir().unwrap();
        let storage = ImageStorage::new(temp.path().join("images")).unwrap();
        let sandbox = Arc::new(Sandbox::new(&SandboxOptions::default()).unwrap());
        let unpacker = Unpacker::new(sandbox, Limits::default());
        let images = publish(&storage, &["docker.io/library/a:1", "registry.corp/a:1"]);
        let prepare = |image: &ImageObject, asked_as: &str, policy: &Policy| {
            PreparedImage::for_stored(image, asked_as, policy, &storage, &unpacker).map(|prepared| prepared.is_free())
        };
        let [hub, corp] = images.as_slice() else { panic!("{images:?}") };
        assert!(prepare(hub, &hub.reference, &Policy::default()).unwrap());
        let refused = rule("docker.io/**", |rule| rule.refuse = Some("not ours".into()));
        let error = prepare(hub, &hub.reference, &refused).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Refused);
        assert!(error.to_string().contains("not ours"), "{error}");
        assert!(prepare(corp, &corp.reference, &refused).unwrap());
        // By its digest, under the name that may be used.
        let digest = hub.manifest_digest.to_string();
        for image in [hub, corp] {
            assert!(prepare(image, &digest, &refused).unwrap());
        }
        let all = rule("**", |rule| rule.refuse = Some("nothing".into()));
        assert_eq!(prepare(hub, &digest, &all).unwrap_err().kind(), ErrorKind::Refused);
        // A plugin that is required and not there lets nothing in.
        let required = rule("docker.io/**", |rule| rule.verify = vec![Requirement::of("cosign")]);
        assert!(prepare(hub, &hub.reference, &required).is_err());
    }
}
