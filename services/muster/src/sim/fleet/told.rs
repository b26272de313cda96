//! What the registry has told the router, kept beside the router's own view to hold it to.
//!
//! It is folded from the same stream and on purpose knows less: who is there and takes work, and who has left. A second
//! [`View`](muster_router::fleet::View) would make the same mistakes.

use std::collections::{BTreeMap, BTreeSet};

use muster_api::registry::watch_agents_response::Change;
use muster_api::registry::{Instance, InstanceStatus};
use muster_router::fleet::Key;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Told {
    /// Those who are there, and whether they take work.
    there: BTreeMap<Key, bool>,
    gone: BTreeSet<Key>,
}

impl Told {
    /// Takes a change in.
    pub(super) fn take(&mut self, change: &Change) {
        match change {
            Change::Snapshot(snapshot) => {
                for instance in &snapshot.instances {
                    self.upsert(instance);
                }
            }
            Change::Upserted(instance) => self.upsert(instance),
            Change::Reported(report) => {
                let key = Key {
                    agent: report.agent_id.clone(),
                    instance: report.instance_id.clone(),
                };
                self.there
                    .entry(key)
                    .and_modify(|known| *known = takes_work(report.status()));
            }
            // The simulated router always begins with a snapshot.
            Change::Resumed(_) => {}
            Change::Removed(removal) => self.remove(Key {
                agent: removal.agent_id.clone(),
                instance: removal.instance_id.clone(),
            }),
        }
    }

    fn upsert(&mut self, instance: &Instance) {
        let key = Key {
            agent: instance.agent_id.clone(),
            instance: instance.instance_id.clone(),
        };
        self.gone.remove(&key);
        self.there.insert(key, takes_work(instance.status()));
    }

    /// It has left, or was given up.
    pub(super) fn remove(&mut self, key: Key) {
        self.there.remove(&key);
        self.gone.insert(key);
    }

    pub(super) fn is_gone(&self, key: &Key) -> bool {
        self.gone.contains(key)
    }

    /// Those of an agent who are there and take work.
    pub(super) fn takers<'a>(&'a self, agent: &'a str) -> impl Iterator<Item = &'a Key> {
        let there = self.there.iter();
        there
            .filter(move |(key, takes_work)| key.agent == agent && **takes_work)
            .map(|(key, _)| key)
    }
}

const fn takes_work(status: InstanceStatus) -> bool {
    matches!(status, InstanceStatus::Active | InstanceStatus::Busy)
}
