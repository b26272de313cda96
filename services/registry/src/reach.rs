//! What a caller has of the registry: agents of the namespaces and of the ids that it is granted. Pure.
//!
//! Whatever else there is looks to it as if it were not there: in searches, lists, names that are spelt like a wanted one,
//! counts and streams. What it changes outside of its grants is refused, and in the audit log. Our services and admins are granted
//! everything. A grant of a skill (`skill:forecast`) is one to have it done by whoever has it, and shows nobody.
//!
//! Searches look at it in [`Query::admits`](crate::discovery::Query::admits), which every way of searching ends in. Answers to who is
//! granted everything cost what they did. Others' counts and nearest names are made when they ask, from what they see.

use std::sync::Arc;

use muster_runtime::trust::{Access, Grants};

use crate::instance::Key;

/// See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Reach {
    /// Everything.
    #[default]
    All,
    /// What is granted.
    Granted(Arc<Grants>),
}

impl Reach {
    /// What whoever makes a request has.
    #[must_use]
    pub fn of(access: &Access) -> Self {
        let grants = &access.caller().grants;
        if access.sees_all() || *grants == Grants::default() {
            Self::All
        } else {
            Self::Granted(Arc::new(grants.clone()))
        }
    }

    /// Whether that is everything.
    #[must_use]
    pub const fn is_all(&self) -> bool {
        matches!(self, Self::All)
    }

    /// Whether an agent of a namespace is in it.
    #[must_use]
    pub fn sees(&self, namespace: &str, agent_id: &str) -> bool {
        match self {
            Self::All => true,
            Self::Granted(grants) => grants.reaches_namespace(namespace) && grants.reaches_target(agent_id),
        }
    }

    /// Whether an instance is.
    #[must_use]
    pub fn sees_instance(&self, key: &Key) -> bool {
        self.sees(&key.namespace, &key.agent_id)
    }
}

#[cfg(test)]
mod tests {
    use muster_runtime::trust::{Caller, Kind, Role};

    use super::*;

    #[test]
    fn grants_narrow_it_unless_whoever_asks_is_an_admin() {
        let list = |names: &[&str]| Some(names.iter().map(|name| Arc::from(*name)).collect());
        let grants = Grants {
            targets: list(&["weather*", "skill:plan"]),
            namespaces: list(&["default", "eu-*"]),
        };
        let of = |role, grants: &Grants| {
            let roles = [role].into_iter().collect();
            Reach::of(&Access::of(Caller::new(
                Kind::EndUser,
                None,
                "ada",
                roles,
                grants.clone(),
            )))
        };
        assert!(of(Role::Admin, &grants).is_all());
        assert!(of(Role::AgentReader, &Grants::default()).is_all());
        let reach = of(Role::AgentReader, &grants);
        for (namespace, agent, sees) in [
            ("default", "weather", true),
            ("", "weather-2", true),
            ("eu-1", "weather", true),
            ("us", "weather", false),
            ("default", "planning", false),
            ("default", "plan", false),
        ] {
            assert_eq!(reach.sees(namespace, agent), sees, "{namespace}/{agent}");
        }
    }
}
