//! What the registry counts: the names of its metrics, and the only place that writes them.
//!
//! Labels are bounded. A caller chooses the skills that it asks for, so only skills that exist are named, and only
//! the first so many; all others are `other`.

use std::collections::BTreeMap;

use jiff::Timestamp;
use muster_runtime::Metrics;
use muster_runtime::metrics::{Counter, Definition, Kind};
use parking_lot::RwLock;

use crate::federation::hub::Standing;
use crate::lease::Census;
use crate::store::Feed;

/// Most skills that get a label of their own.
const MAX_CAPABILITIES: usize = 200;
/// The label of all others.
const OTHER: &str = "other";

const DISCOVERIES: &str = "agent_discovery_requests_total";
const INSTANCES: &str = "muster_registry_instances";
const REGISTRATIONS: &str = "muster_registry_registrations_total";
const HEARTBEATS: &str = "muster_registry_heartbeats_total";
const EXPIRATIONS: &str = "muster_registry_expirations_total";
const WATCHERS: &str = "muster_registry_watchers";
const MANAGED: &str = "muster_registry_managed_agents";
const PEERS: &str = "muster_registry_federation_peers_connected";
const FOREIGN: &str = "muster_registry_federation_instances";
const PEER_LAG: &str = "muster_registry_federation_lag_seconds";
const RESYNCS: &str = "muster_registry_federation_resyncs_total";
const FULL_READS: &str = "muster_registry_store_full_reads_total";
const BEHIND: &str = "muster_registry_store_lag_changes";
const SILENT: &str = "muster_registry_store_lag_seconds";

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
    Definition {
        name: PEERS,
        kind: Kind::Gauge,
        help: "Registries of other regions that are followed now",
    },
    Definition {
        name: FOREIGN,
        kind: Kind::Gauge,
        help: "Instances of other regions that are shown, by region",
    },
    Definition {
        name: PEER_LAG,
        kind: Kind::Gauge,
        help: "For how long the registry of a region has not been heard, by region; 0 while it is followed",
    },
    Definition {
        name: RESYNCS,
        kind: Kind::Counter,
        help: "How often all instances of a region were read anew, by region",
    },
    Definition {
        name: FULL_READS,
        kind: Kind::Counter,
        help: "How often everything was read from Redis, at the start and where the feed of changes did not go on",
    },
    Definition {
        name: BEHIND,
        kind: Kind::Gauge,
        help: "Changes that Redis is known to have and that are not shown here yet",
    },
    Definition {
        name: SILENT,
        kind: Kind::Gauge,
        help: "For how long Redis has told nothing of its changes; up to a second where nothing changes",
    },
];

/// Writes the metrics. The series of what comes by the thousand are looked up once: to find one by its labels makes and
/// hashes several strings.
pub struct Observer {
    metrics: Metrics,
    // Both there from the start: a registry that starts again over a store of leases sees no registration.
    granted: Counter,
    denied: Counter,
    renewed: Counter,
    refused: Counter,
    searches: RwLock<BTreeMap<String, Searches>>,
}

/// Searches for one skill.
#[derive(Clone)]
struct Searches {
    found: Counter,
    empty: Counter,
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
        let heartbeats = |outcome: &str| metrics.counter(HEARTBEATS, &[("outcome", outcome.to_owned())]);
        let registrations = |outcome: &str| {
            let counter = metrics.counter(REGISTRATIONS, &[("outcome", outcome.to_owned())]);
            counter.increment(0); // shown before it is the first time
            counter
        };
        Self {
            granted: registrations("granted"),
            denied: registrations("refused"),
            renewed: heartbeats("renewed"),
            refused: heartbeats("refused"),
            searches: RwLock::default(),
            metrics,
        }
    }

    /// A search has been answered.
    pub fn discovery(&self, capability: Capability<'_>, found: bool) {
        let searches = match capability {
            Capability::Any => self.searches("any"),
            Capability::Several => self.searches("several"),
            Capability::Known(skill) => self.searches(skill),
            Capability::Unknown => self.searches(OTHER),
        };
        let counter = if found { searches.found } else { searches.empty };
        counter.increment(1);
    }

    /// The series of a skill, or that of all others where there are enough.
    fn searches(&self, skill: &str) -> Searches {
        if let Some(known) = self.searches.read().get(skill) {
            return known.clone();
        }
        let mut searches = self.searches.write();
        let name = if searches.len() < MAX_CAPABILITIES {
            skill
        } else {
            OTHER
        };
        let made = || {
            let series = |status: &str| {
                let labels = [("capability", name.to_owned()), ("status", status.to_owned())];
                self.metrics.counter(DISCOVERIES, &labels)
            };
            Searches {
                found: series("found"),
                empty: series("empty"),
            }
        };
        searches.entry(name.to_owned()).or_insert_with(made).clone()
    }

    /// A registration has been decided.
    pub fn registration(&self, granted: bool) {
        let counter = if granted { &self.granted } else { &self.denied };
        counter.increment(1);
    }

    /// A heartbeat has been decided.
    pub fn heartbeat(&self, renewed: bool) {
        let counter = if renewed { &self.renewed } else { &self.refused };
        counter.increment(1);
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

    /// It has been looked how it is with the registries of other regions.
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    pub fn federation(&self, standings: &[Standing], now: Timestamp) {
        let connected = standings.iter().filter(|peer| peer.stale_since.is_none());
        self.metrics.gauge(PEERS, &[]).set(connected.count() as f64);
        for peer in standings {
            let labels = [("region", peer.region.clone())];
            let lag = peer
                .stale_since
                .map_or(0.0, |since| now.duration_since(since).as_secs_f64().max(0.0));
            self.metrics.gauge(PEER_LAG, &labels).set(lag);
            self.metrics
                .gauge(FOREIGN, &labels)
                .set(peer.counts.live() as f64);
            self.metrics.counter(RESYNCS, &labels).absolute(peer.resyncs);
        }
    }

    /// It has been looked how the store follows its server.
    #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
    pub fn feed(&self, feed: &Feed) {
        self.metrics.counter(FULL_READS, &[]).absolute(feed.full_reads);
        self.metrics.gauge(BEHIND, &[]).set(feed.behind as f64);
        self.metrics.gauge(SILENT, &[]).set(feed.silent.as_secs_f64());
    }

    /// A stream begins to watch.
    #[must_use]
    pub fn watching(&self) -> Watching {
        let gauge = self.metrics.gauge(WATCHERS, &[]);
        gauge.increment(1.0);
        Watching(gauge)
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.0.decrement(1.0);
    }
}
