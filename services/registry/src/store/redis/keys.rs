//! The keys of the registry in Redis, all in one slot: the only place that knows their layout.
//!
//! | key | what |
//! |---|---|
//! | `muster:{registry}:state` | hash: format, incarnation, revision, last (token of the last change), expired, bytes (of profiles in the feed), and lease time: `tick` as it was last, `lag` behind Redis's clock, in milliseconds |
//! | `…:entries` | hash: id → lease, epoch, drain, times, status and report of each live instance |
//! | `…:profiles` | hash: id → what it said when it registered; of silent ones too |
//! | `…:leases` | hash: lease → id |
//! | `…:deadlines` | sorted set: lease by the lease time of its end |
//! | `…:agents` | sorted set: ids by their bytes, so that those of an agent are beside each other |
//! | `…:nodes`, `…:node-of` | hashes: node → how many say they run there; id → node |
//! | `…:offline`, `…:offline-order` | hash: id → lease time of the end, entry; sorted set of ids by it |
//! | `…:feed` | stream: the last changes; an entry's id is its revision |
//! | `…:answered:TOKEN` | what a registration or a drain was answered; goes by itself |
//!
//! An id is `NAMESPACE/AGENT/INSTANCE`: DNS labels and a UUID, which contain no slash.

use std::sync::Arc;

use muster_store::redis::{Call, Slot};
use uuid::Uuid;

use crate::instance::Key;

/// In the order in which scripts take them.
const NAMES: [&str; 11] = [
    "state",
    "entries",
    "profiles",
    "leases",
    "deadlines",
    "agents",
    "nodes",
    "node-of",
    "offline",
    "offline-order",
    "feed",
];

/// The character behind the one that ends an agent in an id.
const BEHIND: char = '0';

/// The keys of one store.
pub(super) struct Keys {
    slot: Slot,
}

impl Keys {
    /// Those under a prefix.
    pub(super) fn new(prefix: &str) -> Self {
        Self {
            slot: Slot::named(prefix, "registry"),
        }
    }

    pub(super) fn state(&self) -> Vec<u8> {
        self.slot.key("state")
    }

    pub(super) fn entries(&self) -> Vec<u8> {
        self.slot.key("entries")
    }

    pub(super) fn profiles(&self) -> Vec<u8> {
        self.slot.key("profiles")
    }

    pub(super) fn deadlines(&self) -> Vec<u8> {
        self.slot.key("deadlines")
    }

    pub(super) fn offline(&self) -> Vec<u8> {
        self.slot.key("offline")
    }

    pub(super) fn feed(&self) -> Vec<u8> {
        self.slot.key("feed")
    }

    /// Where the answer to a token is kept.
    pub(super) fn answered(&self, token: &str) -> Vec<u8> {
        self.slot.key_of("answered", token)
    }

    /// Gives a script what all that write take.
    pub(super) fn all(&self, call: Call) -> Call {
        NAMES
            .iter()
            .fold(call, |call, name| call.key(self.slot.key(name)))
    }
}

/// The id of an instance.
pub(super) fn id(key: &Key) -> String {
    format!("{}/{}/{}", key.namespace, key.agent_id, key.instance_id)
}

/// The instance of an id.
pub(super) fn key(id: &str) -> Option<Key> {
    let mut parts = id.split('/');
    let mut text = || parts.next().filter(|part| !part.is_empty());
    let (namespace, agent_id) = (Arc::from(text()?), Arc::from(text()?));
    let instance_id = Uuid::try_parse(text()?).ok()?;
    text().is_none().then_some(Key {
        namespace,
        agent_id,
        instance_id,
    })
}

/// From which id on those of an agent are, and the one behind them.
pub(super) fn of_agent(namespace: &str, agent_id: &str) -> [String; 2] {
    [
        format!("{namespace}/{agent_id}/"),
        format!("{namespace}/{agent_id}{BEHIND}"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_come_back_and_those_of_an_agent_are_between_its_bounds() {
        let of = |agent: &str| Key {
            namespace: "n".into(),
            agent_id: agent.into(),
            instance_id: Uuid::max(),
        };
        let [from, behind] = of_agent("n", "a");
        for (agent, inside) in [("a", true), ("a-b", false), ("a0", false), ("b", false)] {
            let text = id(&of(agent));
            assert_eq!(key(&text), Some(of(agent)));
            assert_eq!(
                (from.as_str()..behind.as_str()).contains(&text.as_str()),
                inside,
                "{agent}"
            );
        }
        for bad in [
            "",
            "n/a",
            "n/a/1",
            "n//00000000-0000-0000-0000-000000000001",
            "n/a/00000000-0000-0000-0000-000000000001/x",
        ] {
            assert_eq!(key(bad), None, "{bad}");
        }
    }
}
