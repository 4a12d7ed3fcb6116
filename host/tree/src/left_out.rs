//! What a destination cannot hold of a layer: which of it may be lost, and the account of what was.
//!
//! An attribute of a foreign name space, a label, or a user attribute where the file system has none is left out and counted.
//! Two attributes are too dear for that: without `security.capability` a program does not work, and without the record of
//! owners an unprivileged tree is another one. Where they cannot be held the layer fails, unless losing them was allowed.

use std::collections::BTreeMap;

use cofferdam_core::error::Escaped;
use serde::{Deserialize, Serialize};

use super::override_stat;

/// The attribute that gives a program capabilities.
pub(super) const CAPABILITY: &str = "security.capability";

/// The most names that are counted apart, so that no layer can make the account large.
const NAMES: usize = 16;

/// What further names are counted under.
const OTHERS: &str = "(others)";

/// What a tree may lose where its destination cannot hold it. By default, nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Lossy {
    /// Capabilities of programs: `security.capability`.
    pub capabilities: bool,
    /// Owners, modes and devices, where an unprivileged process can only record them: `user.containers.override_stat`.
    pub owners: bool,
}

impl Lossy {
    /// The attributes that can be lost by permission only.
    pub const NAMES: [&'static str; 2] = [CAPABILITY, override_stat::NAME];

    /// The permission to lose the attribute of this name as well. None for another name.
    #[must_use]
    pub fn and(self, name: &str) -> Option<Self> {
        match name {
            CAPABILITY => Some(Self { capabilities: true, ..self }),
            override_stat::NAME => Some(Self { owners: true, ..self }),
            _ => None,
        }
    }
}

/// Extended attributes that were left out: how many, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LeftOut(BTreeMap<String, u64>);

impl LeftOut {
    /// Returns true if nothing was left out.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The names, escaped for people, and how many attributes of each were left out.
    pub fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.0.iter().map(|(name, count)| (name.as_str(), *count))
    }

    /// Counts what another account holds as well.
    pub fn add(&mut self, other: &Self) {
        for (name, count) in other.iter() {
            self.count(name, count);
        }
    }

    /// Returns true if all that is lost by permission only may be lost.
    pub fn is_within(&self, allowed: Lossy) -> bool {
        (allowed.capabilities || !self.0.contains_key(CAPABILITY))
            && (allowed.owners || !self.0.contains_key(override_stat::NAME))
    }

    /// Counts an attribute.
    pub(super) fn note(&mut self, name: &[u8]) {
        self.count(&Escaped(name).to_string(), 1);
    }

    fn count(&mut self, name: &str, count: u64) {
        // What is lost by permission is always told apart: it decides who may use the tree.
        let known = self.0.contains_key(name) || self.0.len() < NAMES || Lossy::NAMES.contains(&name);
        let slot = self.0.entry(if known { name } else { OTHERS }.to_owned()).or_default();
        *slot = slot.saturating_add(count);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_stays_small_and_loses_no_count() {
        let mut account = LeftOut::default();
        for number in 0..1000 {
            account.note(format!("com.example.{number}").as_bytes());
        }
        account.note(CAPABILITY.as_bytes());
        assert_eq!(account.iter().map(|(_, count)| count).sum::<u64>(), 1001);
        assert!(account.iter().count() <= NAMES + 2);
        let mut sum = account.clone();
        sum.add(&account);
        assert_eq!(sum.iter().map(|(_, count)| count).sum::<u64>(), 2002);
        assert!(!sum.is_within(Lossy::default()) && !sum.is_within(Lossy { owners: true, ..Lossy::default() }));
        assert!(sum.is_within(Lossy { capabilities: true, ..Lossy::default() }));
    }

    #[test]
    fn permissions_are_given_by_name() {
        for name in Lossy::NAMES {
            let mut account = LeftOut::default();
            account.note(name.as_bytes());
            assert!(!account.is_within(Lossy::default()) && account.is_within(Lossy::default().and(name).unwrap()));
        }
        assert_eq!(Lossy::default().and("user.note"), None);
    }
}
