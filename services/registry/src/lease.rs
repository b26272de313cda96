//! The lease table: every live instance, and until when it is believed. Plain data on given times.
//!
//! Invariants:
//!
//! * An instance is in the table exactly as long as its lease lasts. Every operation first ends the leases that are
//!   due at its `now`, so nobody sees or renews a dead one, however late a timer is.
//! * The catalogue, the tally and the counts per node follow the entries; only `insert` and `take` touch them,
//!   but for what a report changes in the catalogue and the tally.
//! * Whose lease ended is offline for a while ([`Offline`](crate::offline::Offline)): not in the table, and in no limit.
//! * The revision grows by one with every change that watchers see, and every change has an event. A heartbeat
//!   that changes nothing but its time is no event: with thousands of agents it would be all that watchers read.
//! * A table can also follow another store that decides ([`Told`]): then its own leases never end by themselves.
//! * Leases are measured on the monotonic clock. Wall time is for people; a clock that is set ends no lease.
//!
//! An epoch is the revision of its registration. It therefore grows with every registration of a key, and the table
//! need not remember the keys of instances that are gone. The first revision is given: the memory store derives
//! it from the time it starts, so that epochs grow across restarts as well.

mod table;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use muster_api::names;
use uuid::Uuid;

use crate::instance::{Instance, Key, Status};
use crate::offline;
use crate::reach::Reach;
use crate::tally::Counts;

pub use table::{Table, Told};

/// One moment on both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// For people and for the wire.
    pub wall: Timestamp,
    /// For leases.
    pub monotonic: Duration,
}

/// What leases are granted on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// How long a lease lasts without a heartbeat.
    pub time_to_live: Duration,
    /// Most instances that say they run on one node.
    pub max_per_node: usize,
    /// Most instances at all.
    pub max_instances: usize,
    /// For how long and how many of those are kept whose leases ended.
    pub offline: offline::Bounds,
}

/// Why the table refuses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The lease has ended or was replaced.
    #[error("lease {lease} has ended or was replaced; register again")]
    LeaseNotFound {
        /// The lease.
        lease: Uuid,
    },
    /// The node holds as many instances as it may.
    #[error("node '{node}' holds {limit} instances, as many as `registry.max_agents_per_node` allows")]
    NodeFull {
        /// The node.
        node: String,
        /// The limit.
        limit: usize,
    },
    /// The table holds as many instances as it may.
    #[error("the registry holds {limit} instances, as many as `registry.max_instances` allows")]
    TableFull {
        /// The limit.
        limit: usize,
    },
    /// No live agent has that id.
    #[error("no live agent '{agent_id}' in namespace '{namespace}'{}", names::suggestion(agent_id, nearest.iter().map(String::as_str)))]
    AgentNotFound {
        /// Whose agent.
        namespace: Arc<str>,
        /// The id.
        agent_id: Arc<str>,
        /// Ids that are spelt like it.
        nearest: Vec<String>,
    },
    /// The agent lives, but not that instance of it.
    #[error("agent '{}' has no live instance {}", key.agent_id, key.instance_id)]
    InstanceNotFound {
        /// The instance.
        key: Key,
    },
}

/// What a registration gives.
#[derive(Debug, Clone, PartialEq)]
pub struct Grant {
    /// The lease to keep.
    pub lease: Uuid,
    /// The instance as it is now found.
    pub instance: Instance,
}

/// What a heartbeat gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Renewal {
    /// The epoch of the registration.
    pub epoch: u64,
    /// Whether an operator wants the instance to finish what it has.
    pub drain_requested: bool,
}

/// Why an instance left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Departure {
    /// It said goodbye.
    Deregistered,
    /// Its lease ended.
    Expired,
    /// The registry of another region, which keeps its lease, names it no more or is not heard. It may be alive.
    Unheard,
}

/// What happened to an instance.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// It is new, or has registered again.
    Upserted(Instance),
    /// What it says of itself has changed, and nothing else.
    Reported(Instance),
    /// It left.
    Removed(Key, Departure),
}

impl Change {
    /// Whose it is.
    #[must_use]
    pub fn key(&self) -> &Key {
        match self {
            Self::Upserted(instance) | Self::Reported(instance) => instance.key(),
            Self::Removed(key, _) => key,
        }
    }
}

/// A change and the revision that it made.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// The revision after the change.
    pub revision: u64,
    /// The change.
    pub change: Change,
}

/// An agent with its live instances, at least one.
#[derive(Debug, Clone, PartialEq)]
pub struct Agent {
    /// Whose agent.
    pub namespace: Arc<str>,
    /// Its id.
    pub agent_id: Arc<str>,
    /// Its instances, by id.
    pub instances: Vec<Instance>,
}

/// Which instances a list shows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Those in these statuses; `None` for all live ones.
    pub statuses: Option<BTreeSet<Status>>,
    /// Those of this region; `None` for any.
    pub region: Option<String>,
    /// Those that there are for whoever asks.
    pub reach: Reach,
}

impl Wanted {
    fn takes(&self, instance: &Instance) -> bool {
        let in_region = |region: &String| *region == instance.profile.region;
        let in_status = |statuses: &BTreeSet<Status>| statuses.contains(&instance.report.status);
        self.reach.sees_instance(instance.key())
            && self.region.as_ref().is_none_or(in_region)
            && self.statuses.as_ref().is_none_or(in_status)
    }

    fn takes_offline(&self) -> bool {
        let statuses = self.statuses.as_ref();
        statuses.is_some_and(|statuses| statuses.contains(&Status::Offline))
    }
}

/// How many instances there are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Census {
    /// Instances by status, offline ones included.
    pub by_status: BTreeMap<Status, u64>,
    /// Leases that have ended without a goodbye, ever.
    pub expired: u64,
}

/// What there is, in numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Live instances of all that was asked for.
    pub total: Counts,
    /// Instances whose leases ended a short while ago.
    pub offline: u64,
    /// Namespaces that have live instances, those with the most first, with their offline ones; at most as many as asked for.
    pub namespaces: Vec<(Arc<str>, Counts, u64)>,
    /// How many there are.
    pub namespaces_total: usize,
    /// Skills with their namespace and the number of live instances that have them, those with the most first; at most as
    /// many as asked for.
    pub skills: Vec<(Arc<str>, String, u64)>,
    /// How many there are.
    pub skills_total: usize,
    /// Leases that have ended without a goodbye, ever and everywhere.
    pub expired: u64,
    /// The revision of the last change.
    pub revision: u64,
}
