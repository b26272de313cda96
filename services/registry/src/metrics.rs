//! What the registry counts: the names of its metrics, and the only place that writes them.
//!
//! Labels are bounded. A caller chooses the skills that it asks for, so only skills that exist are named, and only
//! the first so many; all others are `other`.

use std::collections::BTreeSet;

use muster_runtime::Metrics;
use muster_runtime::metrics::{Definition, Kind};
use parking_lot::Mutex;

use crate::lease::Census;

/// Most skills that get a label of their own.
const MAX_CAPABILITIES: usize = 200;

const DISCOVERIES: &str = "agent_discovery_requests_total";
const INSTANCES: &str = "muster_registry_instances";
const REGISTRATIONS: &str = "muster_registry_registrations_total";
const HEARTBEATS: &str = "muster_registry_heartbeats_total";
const EXPIRATIONS: &str = "muster_registry_expirations_total";
const WATCHERS: &str = "muster_registry_watchers";
const MANAGED: &str = "muster_registry_managed_agents";

/// Every metric of the registry.
pub const DEFINITIONS: &[Definition] = &[
    Definition {
        name: DISCOVERIES,
        kind: Kind::Counter,
        help: "Searches by skill (any, several, other, or the skill) and outcome (found, empty)",
    },
    Definition {
        name: INSTANCES,
        kind: Kind::Gauge,
        help: "Instances by status; offline are those whose leases ended a short while ago",
    },
    Definition {
        name: REGISTRATIONS,
        kind: Kind::Counter,
        help: "Registrations by outcome (granted, refused)",
    },
    Definition {
        name: HEARTBEATS,
        kind: Kind::Counter,
        help: "Heartbeats by outcome (renewed, refused)",
    },
    Definition {
        name: EXPIRATIONS,
        kind: Kind::Counter,
        help: "Leases that ended without a goodbye",
    },
    Definition {
        name: WATCHERS,
        kind: Kind::Gauge,
        help: "Streams that watch",
    },
    Definition {
        name: MANAGED,
        kind: Kind::Gauge,
        help: "Agents that the registry keeps by their cards, by state (present, absent)",
    },
];

/// Writes the metrics.
pub struct Observer {
    metrics: Metrics,
    capabilities: Mutex<BTreeSet<String>>,
}

/// Which skill a search is counted under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Capability<'a> {
    /// The search named no skill.
    Any,
    /// It named more than one.
    Several,
    /// It named one that exists.
    Known(&'a str),
    /// It named one that nobody has.
    Unknown,
}

/// Counts a watching stream for as long as it lives.
pub struct Watching(metrics::Gauge);

impl Observer {
    /// Writes to these metrics.
    #[must_use]
    pub fn new(metrics: Metrics) -> Self {
        Self {
            metrics,
            capabilities: Mutex::default(),
        }
    }

    /// A search has been answered.
    pub fn discovery(&self, capability: Capability<'_>, found: bool) {
        let capability = match capability {
            Capability::Any => "any".to_owned(),
            Capability::Several => "several".to_owned(),
            Capability::Known(skill) if self.has_label(skill) => skill.to_owned(),
            Capability::Known(_) | Capability::Unknown => "other".to_owned(),
        };
        let status = if found { "found" } else { "empty" };
        self.metrics
            .counter(
                DISCOVERIES,
                &[("capability", capability), ("status", status.to_owned())],
            )
            .increment(1);
    }

    /// A registration has been decided.
    pub fn registration(&self, granted: bool) {
        let outcome = if granted { "granted" } else { "refused" };
        self.metrics
            .counter(REGISTRATIONS, &[("outcome", outcome.to_owned())])
            .increment(1);
    }

    /// A heartbeat has been decided.
    pub fn heartbeat(&self, renewed: bool) {
        let outcome = if renewed { "renewed" } else { "refused" };
        self.metrics
            .counter(HEARTBEATS, &[("outcome", outcome.to_owned())])
            .increment(1);
    }

    /// The instances have been counted.
    pub fn census(&self, census: &Census) {
        for (status, count) in &census.by_status {
            let gauge = self
                .metrics
                .gauge(INSTANCES, &[("status", status.name().to_owned())]);
            #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
            gauge.set(*count as f64);
        }
        self.metrics.counter(EXPIRATIONS, &[]).absolute(census.expired);
    }

    /// The agents that are kept by their cards have been counted.
    pub fn managed(&self, present: usize, absent: usize) {
        for (state, count) in [("present", present), ("absent", absent)] {
            let gauge = self.metrics.gauge(MANAGED, &[("state", state.to_owned())]);
            #[expect(clippy::cast_precision_loss, reason = "at most ten thousand")]
            gauge.set(count as f64);
        }
    }

    /// A stream begins to watch.
    #[must_use]
    pub fn watching(&self) -> Watching {
        let gauge = self.metrics.gauge(WATCHERS, &[]);
        gauge.increment(1.0);
        Watching(gauge)
    }

    fn has_label(&self, skill: &str) -> bool {
        let mut capabilities = self.capabilities.lock();
        capabilities.contains(skill)
            || (capabilities.len() < MAX_CAPABILITIES && capabilities.insert(skill.to_owned()))
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}
