//! File names that are not final: what is being written, and by whom.
//!
//! A staging name is `<stem>.<uuid>.<suffix>`, the uuid in its simple form. Ours carry a version 8 uuid ("custom",
//! RFC 9562); the reference writes version 4. So a name tells whether its owner keeps locks: what is ours and not locked
//! is dead, of what is not ours only its age can speak.

use uuid::{Builder, Uuid};

use cofferdam_core::digest::Digest;
use sha2::{Digest as _, Sha256};

const DAMAGED: &str = ".damaged";

/// What is staged under a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Staging {
    /// A blob.
    Blob,
    /// A tree.
    Tree,
    /// A tree that another one replaced. It may be mounted until the machine is started again, and stays as long.
    Replaced,
    /// A small file of the store's own: a reference, a record.
    Small,
}

impl Staging {
    /// Returns true for directories, false for files.
    pub(super) fn is_tree(self) -> bool {
        matches!(self, Self::Tree | Self::Replaced)
    }

    fn suffix(self) -> &'static str {
        match self {
            Self::Blob => "downloading",
            Self::Tree => "extracting",
            Self::Replaced => "replaced",
            Self::Small => "writing",
        }
    }
}

/// A staging name, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct StagingName {
    /// What it is for.
    pub(super) staging: Staging,
    /// The digest in it; small files have none.
    pub(super) digest: Option<Digest>,
    /// Whether this store made it, and so locks it.
    pub(super) ours: bool,
}

/// A name that nobody has: `<digest>.<uuid>.<suffix>`, or `<uuid>.writing` for small files.
pub(super) fn fresh(staging: Staging, digest: Option<&Digest>) -> String {
    let uuid = Builder::from_custom_bytes(Uuid::new_v4().into_bytes()).into_uuid();
    match digest {
        Some(digest) => format!("{}.{}.{}", digest.file_stem(), uuid.simple(), staging.suffix()),
        None => format!("{}.{}", uuid.simple(), staging.suffix()),
    }
}

/// A name that nobody has for a tree that was replaced in this boot of the machine: half of its uuid tells the boot.
pub(super) fn replaced(digest: &Digest, boot_id: &str) -> String {
    let mut bytes = Uuid::new_v4().into_bytes();
    bytes[BOOT..].copy_from_slice(&boot_bytes(boot_id));
    let uuid = Builder::from_custom_bytes(bytes).into_uuid();
    format!("{}.{}.{}", digest.file_stem(), uuid.simple(), Staging::Replaced.suffix())
}

/// Returns true if a name of [`replaced`] was made in this boot of the machine.
pub(super) fn was_replaced_in(name: &str, boot_id: &str) -> bool {
    let uuid = name.rsplit('.').nth(1).and_then(|uuid| Uuid::try_parse(uuid).ok());
    uuid.is_some_and(|uuid| uuid.into_bytes()[BOOT..] == boot_bytes(boot_id))
}

/// Where the bytes begin that tell the boot: behind those of the uuid's version and variant.
const BOOT: usize = 9;

fn boot_bytes(boot_id: &str) -> [u8; 16 - BOOT] {
    let hash = Sha256::digest(boot_id.as_bytes());
    std::array::from_fn(|at| hash[at])
}

/// The name of something that was found under `name` and is not what that says. Never swept: somebody may want to look at it.
pub(super) fn damaged(name: &str) -> String {
    format!("{name}.{}{DAMAGED}", Uuid::new_v4().simple())
}

/// Whether a name is one of [`damaged`].
pub(super) fn is_damaged(name: &str) -> bool {
    name.strip_suffix(DAMAGED)
        .and_then(|rest| rest.rsplit_once('.'))
        .is_some_and(|(_, uuid)| uuid.len() == 32 && Uuid::try_parse(uuid).is_ok())
}

/// Takes a staging name apart; nothing for any other name.
pub(super) fn parse(name: &str) -> Option<StagingName> {
    let (rest, suffix) = name.rsplit_once('.')?;
    let staging =
        [Staging::Blob, Staging::Tree, Staging::Replaced, Staging::Small].into_iter().find(|s| s.suffix() == suffix)?;
    let (digest, uuid) = match staging {
        Staging::Small => (None, rest),
        Staging::Blob | Staging::Tree | Staging::Replaced => {
            let (stem, uuid) = rest.rsplit_once('.')?;
            (Some(Digest::from_file_stem(stem)?), uuid)
        }
    };
    if uuid.len() != 32 {
        return None;
    }
    let uuid = Uuid::try_parse(uuid).ok()?;
    Some(StagingName { staging, digest, ours: uuid.get_version_num() == 8 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_whose_they_are() {
        let digest = Digest::of(b"x");
        for staging in [Staging::Blob, Staging::Tree] {
            let parsed = parse(&fresh(staging, Some(&digest))).unwrap();
            assert_eq!(parsed, StagingName { staging, digest: Some(digest.clone()), ours: true });
        }
        assert_eq!(
            parse(&fresh(Staging::Small, None)),
            Some(StagingName { staging: Staging::Small, digest: None, ours: true })
        );
        let foreign = format!("{}.{}.downloading", digest.file_stem(), Uuid::new_v4().simple());
        assert!(!parse(&foreign).unwrap().ours);
    }

    #[test]
    fn names_of_replaced_trees_tell_the_boot() {
        let digest = Digest::of(b"x");
        let name = replaced(&digest, "monday");
        let parsed = StagingName { staging: Staging::Replaced, digest: Some(digest.clone()), ours: true };
        assert_eq!(parse(&name), Some(parsed));
        assert!(was_replaced_in(&name, "monday") && !was_replaced_in(&name, "tuesday"));
        assert_ne!(replaced(&digest, "monday"), name);
    }

    #[test]
    fn final_names_and_strangers_are_not_staging_names() {
        let stem = Digest::of(b"x").file_stem();
        let uuid = Uuid::new_v4();
        for name in [
            format!("{stem}.tar.gz"),
            stem.clone(),
            format!("{stem}.downloading"),
            format!("{stem}.{}.partial", uuid.simple()),
            format!("{stem}.{}.downloading", uuid.hyphenated()),
            format!("notes.{}.downloading", uuid.simple()),
            "notes.writing".to_owned(),
        ] {
            assert_eq!(parse(&name), None, "{name}");
        }
    }
}
