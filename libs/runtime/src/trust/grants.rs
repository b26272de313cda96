//! Which agents, skills and namespaces a caller may reach, beside what it may do there.
//!
//! A list that is absent allows everything; one that is there allows what it names, and nothing where it is empty. An entry is a
//! name, or the beginning of names with `*` at its end. Targets are written as callers write them: `weather` for an agent,
//! `skill:forecast` for a skill. Whoever may reach an agent may not reach it by its skills for that alone: a skill has whatever
//! agents have it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Entries of one list at most, and the longest.
const MOST: usize = 256;
const LONGEST: usize = 256;

/// What a caller may reach.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Grants {
    /// Agents and skills.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub targets: Option<Vec<Arc<str>>>,
    /// Namespaces of agents and workflows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespaces: Option<Vec<Arc<str>>>,
}

impl Grants {
    /// Whether an agent, or `skill:SKILL`, may be reached.
    #[must_use]
    pub fn reaches_target(&self, target: &str) -> bool {
        admits(self.targets.as_deref(), target)
    }

    /// Whether there is a list that has the target, by its name or the beginning of it.
    #[must_use]
    pub fn names_target(&self, target: &str) -> bool {
        self.targets.is_some() && self.reaches_target(target)
    }

    /// Whether what is in a namespace may be reached; an empty name is the namespace `default`.
    #[must_use]
    pub fn reaches_namespace(&self, namespace: &str) -> bool {
        let named = if namespace.is_empty() {
            "default"
        } else {
            namespace
        };
        admits(self.namespaces.as_deref(), named)
    }

    /// Both together: only what both allow.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        Self {
            targets: common(self.targets.as_deref(), other.targets.as_deref()),
            namespaces: common(self.namespaces.as_deref(), other.namespaces.as_deref()),
        }
    }

    /// What is wrong with the lists.
    pub(super) fn problem(&self) -> Option<String> {
        for list in [&self.targets, &self.namespaces].into_iter().flatten() {
            if list.len() > MOST {
                return Some(format!("has {} entries; at most {MOST} are taken", list.len()));
            }
            if let Some(wrong) = list
                .iter()
                .find(|entry| entry.is_empty() || entry.len() > LONGEST)
            {
                return Some(format!("'{wrong}' is no name of 1 to {LONGEST} letters"));
            }
        }
        None
    }
}

fn admits(list: Option<&[Arc<str>]>, name: &str) -> bool {
    list.is_none_or(|list| list.iter().any(|entry| matches(entry, name)))
}

fn matches(entry: &str, name: &str) -> bool {
    match entry.strip_suffix('*') {
        Some(beginning) => name.starts_with(beginning),
        None => entry == name,
    }
}

/// Of two lists, the entries that the other one admits.
fn common(one: Option<&[Arc<str>]>, other: Option<&[Arc<str>]>) -> Option<Vec<Arc<str>>> {
    let (one, other) = match (one, other) {
        (None, None) => return None,
        (Some(only), None) | (None, Some(only)) => return Some(only.to_vec()),
        (Some(one), Some(other)) => (one, other),
    };
    // An entry with a star is within another one whose beginning it has.
    let within = |entry: &&Arc<str>, list: &[Arc<str>]| list.iter().any(|outer| matches(outer, entry));
    let mut both: Vec<Arc<str>> = one.iter().filter(|entry| within(entry, other)).cloned().collect();
    both.extend(other.iter().filter(|entry| within(entry, one)).cloned());
    both.sort();
    both.dedup();
    Some(both)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn list(names: &[&str]) -> Option<Vec<Arc<str>>> {
        Some(names.iter().map(|name| Arc::from(*name)).collect())
    }

    #[test]
    fn nothing_said_allows_all_and_an_empty_list_nothing() {
        assert!(Grants::default().reaches_target("weather"));
        let none = Grants {
            targets: list(&[]),
            namespaces: list(&["default"]),
        };
        assert!(!none.reaches_target("weather"));
        assert!(none.reaches_namespace("") && !none.reaches_namespace("other"));
        let some = Grants {
            targets: list(&["weather", "skill:plan*"]),
            namespaces: None,
        };
        for (target, allowed) in [
            ("weather", true),
            ("weather2", false),
            ("skill:planning", true),
            ("skill:forecast", false),
        ] {
            assert_eq!(some.reaches_target(target), allowed, "{target}");
        }
    }

    proptest! {
        #[test]
        fn together_they_allow_what_both_allow(
            one in proptest::option::of(proptest::collection::vec("[ab]{0,2}[*]?", 0..4)),
            other in proptest::option::of(proptest::collection::vec("[ab]{0,2}[*]?", 0..4)),
            name in "[ab]{1,3}",
        ) {
            let of = |names: Option<Vec<String>>| Grants {
                targets: names.map(|names| names.iter().map(|name| Arc::from(name.as_str())).collect()),
                namespaces: None,
            };
            let (one, other) = (of(one), of(other));
            let both = one.reaches_target(&name) && other.reaches_target(&name);
            prop_assert_eq!(one.and(&other).reaches_target(&name), both);
        }
    }
}
