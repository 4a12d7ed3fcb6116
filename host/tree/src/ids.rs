//! Short names for the places of a tree, so that remembering one costs eight bytes.
//!
//! A place is a *resolved* path: no component of it is a link. Its id is a keyed hash of its parent's id and its own name;
//! the key is random, so a layer cannot choose paths whose ids collide, and four million ids collide by chance with a
//! probability below 10⁻⁶.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher as _, BuildHasherDefault, Hasher, RandomState};

/// The id of a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct PathId(u64);

/// Makes ids. Ids of different makers do not compare.
#[derive(Debug, Default)]
pub(super) struct Ids(RandomState);

impl Ids {
    /// The root's id.
    pub(super) fn root(&self) -> PathId {
        PathId(self.0.hash_one(b"/"))
    }

    /// The id of `name` in the directory `parent`.
    pub(super) fn child(&self, parent: PathId, name: &[u8]) -> PathId {
        let mut hasher = self.0.build_hasher();
        hasher.write_u64(parent.0);
        hasher.write(name);
        PathId(hasher.finish())
    }
}

/// Passes an id on as its own hash.
#[derive(Debug, Default)]
pub(super) struct Identity(u64);

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(byte);
        }
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}

/// A set of places.
pub(super) type IdSet = HashSet<PathId, BuildHasherDefault<Identity>>;

/// Something about some places.
pub(super) type IdMap<T> = HashMap<PathId, T, BuildHasherDefault<Identity>>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_tells_where_a_component_ends() {
        let ids = Ids::default();
        let root = ids.root();
        let under = |path: &[&[u8]]| path.iter().fold(root, |id, name| ids.child(id, name));
        assert_eq!(under(&[b"a", b"b"]), under(&[b"a", b"b"]));
        assert_ne!(under(&[b"a", b"b"]), under(&[b"ab"]));
        assert_ne!(under(&[b"ab", b"c"]), under(&[b"a", b"bc"]));
    }
}
