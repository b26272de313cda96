//! SPIFFE ids: `spiffe://TRUST_DOMAIN/PATH`, the names of workloads.
//!
//! The form is that of the SPIFFE specification and nothing wider: no port, no user, no query, no percent signs, no empty
//! segment, no `.` and `..`. Two ids are the same if their texts are, so there is nothing to normalise and nothing that two readers
//! could read differently.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Most bytes of an id, and of the name of a trust domain.
const LONGEST: usize = 2_048;
const LONGEST_DOMAIN: usize = 255;

const SCHEME: &str = "spiffe://";

/// Why a text is no SPIFFE id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It begins with something else.
    #[error("does not begin with spiffe://")]
    Scheme,
    /// It is too long.
    #[error("has more than {LONGEST} bytes")]
    Long,
    /// The trust domain is missing, too long, or has other letters.
    #[error("names no trust domain: 1 to {LONGEST_DOMAIN} of a-z, 0-9, '.', '-' and '_'")]
    Domain,
    /// A part of the path is empty, a dot or two, or has other letters.
    #[error(
        "has a path with a segment that is empty, '.', '..', or of other letters than a-z, A-Z, 0-9, '.', '-' and '_'"
    )]
    Path,
}

/// The name of a workload, or, without a path, of a trust domain. Clones share the text.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpiffeId {
    text: Arc<str>,
    /// Where the path begins, with its slash.
    path: usize,
}

impl SpiffeId {
    /// Reads an id.
    ///
    /// # Errors
    /// Says what is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, Error> {
        if text.len() > LONGEST {
            return Err(Error::Long);
        }
        let rest = text.strip_prefix(SCHEME).ok_or(Error::Scheme)?;
        let domain = rest.find('/').map_or(rest, |slash| &rest[..slash]);
        if !is_trust_domain(domain) {
            return Err(Error::Domain);
        }
        let path = SCHEME.len() + domain.len();
        if let Some(segments) = text[path..].strip_prefix('/')
            && !segments.split('/').all(is_segment)
        {
            return Err(Error::Path);
        }
        Ok(Self {
            text: Arc::from(text),
            path,
        })
    }

    /// The id of a service account in a namespace, as Istio names workloads.
    ///
    /// # Errors
    /// A part has letters that it may not have.
    pub fn of_service(trust_domain: &str, namespace: &str, service: &str) -> Result<Self, Error> {
        // A slash in a part would be a segment more.
        if [namespace, service].iter().any(|part| !is_segment(part)) {
            return Err(Error::Path);
        }
        Self::parse(&format!("{SCHEME}{trust_domain}/ns/{namespace}/sa/{service}"))
    }

    /// The trust domain.
    #[must_use]
    pub fn trust_domain(&self) -> &str {
        &self.text[SCHEME.len()..self.path]
    }

    /// The path with the slash that it begins with; empty for a trust domain itself.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.text[self.path..]
    }

    /// The whole text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The namespace and the service account, where the path is `/ns/NAMESPACE/sa/SERVICE`.
    #[must_use]
    pub fn service(&self) -> Option<(&str, &str)> {
        let mut segments = self.path().split('/').skip(1);
        match (
            segments.next(),
            segments.next(),
            segments.next(),
            segments.next(),
            segments.next(),
        ) {
            (Some("ns"), Some(namespace), Some("sa"), Some(service), None) => Some((namespace, service)),
            _ => None,
        }
    }
}

/// Whether a text can be the name of a trust domain.
#[must_use]
pub fn is_trust_domain(text: &str) -> bool {
    (1..=LONGEST_DOMAIN).contains(&text.len())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_".contains(&byte))
}

/// Whether a text can be one part of a path.
#[must_use]
pub fn is_segment(text: &str) -> bool {
    !matches!(text, "" | "." | "..")
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte))
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

impl fmt::Debug for SpiffeId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "SpiffeId({})", self.text)
    }
}

impl FromStr for SpiffeId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Self::parse(text)
    }
}

impl Serialize for SpiffeId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for SpiffeId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(|error| serde::de::Error::custom(format!("'{text}' {error}")))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ids_are_read_as_the_specification_has_them() {
        let id = SpiffeId::parse("spiffe://cluster.local/ns/agent-system/sa/router").unwrap();
        assert_eq!(id.trust_domain(), "cluster.local");
        assert_eq!(id.path(), "/ns/agent-system/sa/router");
        assert_eq!(id.service(), Some(("agent-system", "router")));
        assert_eq!(
            SpiffeId::of_service("cluster.local", "agent-system", "router").unwrap(),
            id
        );
        let domain = SpiffeId::parse("spiffe://d").unwrap();
        assert_eq!(
            (domain.trust_domain(), domain.path(), domain.service()),
            ("d", "", None)
        );
        for (wrong, why) in [
            ("https://d/a", Error::Scheme),
            ("SPIFFE://d/a", Error::Scheme),
            ("spiffe://", Error::Domain),
            ("spiffe:///a", Error::Domain),
            ("spiffe://D/a", Error::Domain),
            ("spiffe://d:1/a", Error::Domain),
            ("spiffe://u@d/a", Error::Domain),
            ("spiffe://d?a", Error::Domain),
            ("spiffe://d/", Error::Path),
            ("spiffe://d/a/", Error::Path),
            ("spiffe://d//a", Error::Path),
            ("spiffe://d/a/../b", Error::Path),
            ("spiffe://d/a%2fb", Error::Path),
            ("spiffe://d/a#b", Error::Path),
        ] {
            assert_eq!(SpiffeId::parse(wrong), Err(why), "{wrong}");
        }
        assert_eq!(
            SpiffeId::parse(&format!("spiffe://d/{}", "a".repeat(LONGEST))),
            Err(Error::Long)
        );
        assert_eq!(SpiffeId::of_service("d", "a/sa/b", "c"), Err(Error::Path));
    }

    proptest! {
        #[test]
        fn any_text_gives_an_answer_and_what_is_read_is_printed_again(text in "(spiffe://)?[a-z0-9.:@/?#%A-Z_-]{0,40}") {
            if let Ok(id) = SpiffeId::parse(&text) {
                prop_assert_eq!(id.to_string(), text.clone());
                prop_assert_eq!(format!("spiffe://{}{}", id.trust_domain(), id.path()), text);
            }
        }

        #[test]
        fn every_service_has_an_id(
            domain in "[a-z0-9][a-z0-9._-]{0,20}", namespace in "[a-z][a-z0-9-]{0,10}", service in "[a-z][a-z0-9-]{0,10}"
        ) {
            let id = SpiffeId::of_service(&domain, &namespace, &service).expect("well formed");
            prop_assert_eq!(id.service(), Some((namespace.as_str(), service.as_str())));
        }
    }
}
