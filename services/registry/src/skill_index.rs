//! Which instances have which skill, so that a search reads the instances of the rarest skill and not all.
//!
//! The index holds exactly the live instances: it changes where instances come and go, in the lease table, and
//! nowhere else. It has no expiry of its own, so a heartbeat cannot renew an instance and forget its skills.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use muster_api::names;

use crate::instance::{Key, Profile};

/// The index, per namespace.
#[derive(Debug, Default)]
pub struct SkillIndex {
    namespaces: BTreeMap<Arc<str>, BTreeMap<String, BTreeSet<Key>>>,
}

impl SkillIndex {
    /// Adds an instance under all its skills.
    pub fn insert(&mut self, profile: &Profile) {
        let skills = self
            .namespaces
            .entry(Arc::clone(&profile.key.namespace))
            .or_default();
        for skill in &profile.skills {
            skills
                .entry(skill.clone())
                .or_default()
                .insert(profile.key.clone());
        }
    }

    /// Removes an instance; a skill that nobody has any more is forgotten.
    pub fn remove(&mut self, profile: &Profile) {
        let Some(skills) = self.namespaces.get_mut(&profile.key.namespace) else {
            return;
        };
        for skill in &profile.skills {
            if let Some(keys) = skills.get_mut(skill) {
                keys.remove(&profile.key);
                if keys.is_empty() {
                    skills.remove(skill);
                }
            }
        }
        if skills.is_empty() {
            self.namespaces.remove(&profile.key.namespace);
        }
    }

    /// The instances that have all the wanted skills; `None` when no skill is wanted, which is no filter.
    #[must_use]
    pub fn with_all(&self, namespace: &str, wanted: &BTreeSet<String>) -> Option<Vec<&Key>> {
        if wanted.is_empty() {
            return None;
        }
        let sets: Option<Vec<_>> = wanted
            .iter()
            .map(|skill| self.namespaces.get(namespace)?.get(skill))
            .collect();
        let mut sets = sets.unwrap_or_default();
        sets.sort_by_key(|set| set.len());
        let Some((rarest, others)) = sets.split_first() else {
            return Some(Vec::new());
        };
        let everywhere = |key: &&Key| others.iter().all(|set| set.contains(*key));
        Some(rarest.iter().filter(everywhere).collect())
    }

    /// Whether a live instance of the namespace has the skill.
    #[must_use]
    pub fn knows(&self, namespace: &str, skill: &str) -> bool {
        self.namespaces
            .get(namespace)
            .is_some_and(|skills| skills.contains_key(skill))
    }

    /// For each wanted skill that nobody has, the nearest that somebody has, without repetition.
    #[must_use]
    pub fn nearest(&self, namespace: &str, wanted: &BTreeSet<String>) -> Vec<String> {
        let Some(skills) = self.namespaces.get(namespace) else {
            return Vec::new();
        };
        let missing = wanted.iter().filter(|skill| !skills.contains_key(*skill));
        let mut nearest: Vec<String> = Vec::new();
        for name in missing.flat_map(|skill| names::nearest(skill, skills.keys().map(String::as_str))) {
            if !nearest.iter().any(|known| known == name) {
                nearest.push(name.to_owned());
            }
        }
        nearest
    }
}
