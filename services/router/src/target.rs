//! Whom a message is for: an agent by its id, or any agent that has a skill (`skill:SKILL`).
//!
//! A client may say so in three places: the path of the URL, the request's tenant, the metadata `muster-target`.
//! Two places that name different targets are refused, because either choice would surprise somebody.

use std::fmt;

use muster_api::extension::{SKILL_TARGET_PREFIX, TARGET_METADATA};
use muster_api::names;

use crate::error::Error;

/// Longest skill id that is looked up.
const MAX_SKILL: usize = 128;

/// Whom a message is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Target {
    /// The agent of that id.
    Agent(String),
    /// Any agent that has the skill.
    Skill(String),
}

impl Target {
    /// Reads `AGENT` or `skill:SKILL`; `place` names where it stood.
    ///
    /// # Errors
    /// When it is neither a DNS label nor a skill.
    pub fn parse(text: &str, place: &str) -> Result<Self, Error> {
        let refused = |why: &str| {
            let shown: String = text.chars().take(80).collect();
            Err(Error::InvalidField {
                field: place.to_owned(),
                message: format!("'{shown}' is no target: {why}; expected an agent id or `skill:SKILL`"),
            })
        };
        match text.strip_prefix(SKILL_TARGET_PREFIX) {
            Some("") => refused("it names no skill"),
            Some(skill) if skill.len() > MAX_SKILL => refused("the skill is longer than 128 bytes"),
            Some(skill) if skill.chars().any(|c| c.is_control() || c.is_whitespace()) => {
                refused("a skill has no blanks")
            }
            Some(skill) => Ok(Self::Skill(skill.to_owned())),
            None if names::is_dns_label(text) => Ok(Self::Agent(text.to_owned())),
            None => refused("an agent id is lower-case letters, digits and hyphens, at most 63"),
        }
    }

    /// The one target that path, tenant and metadata name; `None` when none of them names any.
    ///
    /// # Errors
    /// When one of them is malformed, or two differ.
    pub fn from_places(
        path: Option<&str>,
        tenant: &str,
        metadata: Option<&str>,
    ) -> Result<Option<Self>, Error> {
        let places = [
            ("path", path.unwrap_or_default()),
            ("tenant", tenant),
            (TARGET_METADATA, metadata.unwrap_or_default()),
        ];
        let mut found: Option<(&str, Self)> = None;
        for (place, text) in places {
            let text = text.trim();
            if text.is_empty() {
                continue;
            }
            let target = Self::parse(text, place)?;
            match &found {
                Some((first, other)) if *other != target => {
                    return Err(Error::InvalidField {
                        field: place.to_owned(),
                        message: format!("names '{target}', but {first} names '{other}'; name one target"),
                    });
                }
                Some(_) => {}
                None => found = Some((place, target)),
            }
        }
        Ok(found.map(|(_, target)| target))
    }

    /// The skill, where the target is one.
    #[must_use]
    pub fn skill(&self) -> Option<&str> {
        match self {
            Self::Agent(_) => None,
            Self::Skill(skill) => Some(skill),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Agent(agent) => formatter.write_str(agent),
            Self::Skill(skill) => write!(formatter, "{SKILL_TARGET_PREFIX}{skill}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn places(path: &str, tenant: &str, metadata: &str) -> Result<Option<Target>, Error> {
        Target::from_places(Some(path), tenant, Some(metadata))
    }

    #[test]
    fn each_place_can_name_the_target() {
        let weather = Some(Target::Agent("weather".to_owned()));
        assert_eq!(places("weather", "", "").unwrap(), weather);
        assert_eq!(places("", "weather", "").unwrap(), weather);
        assert_eq!(places("", "", "weather").unwrap(), weather);
        assert_eq!(places("weather", "weather", "weather").unwrap(), weather);
        assert_eq!(places("", "", "").unwrap(), None);
        assert_eq!(
            places("skill:forecasting", "", "").unwrap(),
            Some(Target::Skill("forecasting".to_owned()))
        );
    }

    #[test]
    fn two_places_that_disagree_are_refused_by_name() {
        let Err(Error::InvalidField { field, message }) = places("", "weather", "planning") else {
            panic!("accepted");
        };
        assert_eq!(field, TARGET_METADATA);
        assert!(message.contains("tenant names 'weather'"), "{message}");
    }

    #[test]
    fn what_is_neither_an_agent_nor_a_skill_is_refused() {
        for text in ["Weather", "a.b", "skill:", "skill:a b", "agent://weather"] {
            assert!(Target::parse(text, "tenant").is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_accepted_target_survives_printing(text in ".{0,40}") {
            if let Ok(target) = Target::parse(&text, "tenant") {
                prop_assert_eq!(Target::parse(&target.to_string(), "tenant").unwrap(), target);
            }
        }
    }
}
