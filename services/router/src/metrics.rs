//! What the router counts. Recipients are agents that the registry knows, and the first so many of them have a label.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use muster_rpc::breaker;
use muster_runtime::Metrics;
use muster_runtime::metrics::{Bounded, Counter, Definition, Histogram, Kind};
use muster_runtime::recent::{Recent, Summary};
use parking_lot::{Mutex, RwLock};

use crate::calls::Calls;
use crate::inbox::entry::{Entry, State, Status};
use crate::inbox::queue::Counts;
use crate::operation::{METHODS, Method};

const SENT: &str = "a2a_messages_sent_total";
const REGION_SENT: &str = "router_region_sent_total";
const LATENCY: &str = "a2a_message_latency_seconds";
const QUEUE: &str = "router_queue_depth";
const QUEUE_WAIT: &str = "router_queue_wait_seconds";
const IN_FLIGHT: &str = "router_in_flight";
const AGENT_IN_FLIGHT: &str = "router_agent_in_flight";
const AGENT_PLACES: &str = "router_agent_places";
const BREAKERS: &str = "router_breakers";
const MOVED: &str = "router_moved_attempts_total";
const HEDGED: &str = "router_hedged_calls_total";
const EJECTED: &str = "router_breaker_openings_total";
const STALLED: &str = "router_stalled_streams_total";
const OUTCOMES: &str = "router_calls_total";
const LIMITED: &str = "router_limited_requests_total";
const LIMITS_ALONE: &str = "router_limits_alone";
const VIEW_AGE: &str = "router_view_age_seconds";
const VIEW_STALE: &str = "router_view_stale";
const TAKEN_OVER: &str = "router_durable_taken_over_total";
const INBOX_ENTRIES: &str = "router_inbox_entries";
const INBOX_TARGETS: &str = "router_inbox_target_entries";
const INBOX_OLDEST: &str = "router_inbox_oldest_pending_seconds";
const INBOX_ENDED: &str = "router_inbox_ended_total";
const INBOX_RETURNED: &str = "router_inbox_leases_lost_total";
const INBOX_DISPLACED: &str = "router_inbox_displaced_total";
const BROADCASTS: &str = "router_broadcasts_total";
const MATCHED: &str = "router_broadcast_agents_total";
const TUNED: &str = "router_tuning_changes_total";
const TUNING: &str = "router_tuning_in_force";

/// Agents with series of their own, at most; others are counted together.
const AGENT_SERIES: usize = 200;

/// Targets of the inbox with a series of their own, at most; others are counted together. Targets are what callers wrote.
const TARGET_SERIES: usize = 50;

/// Regions with a series of their own, at most.
const REGION_SERIES: usize = 50;

/// Name of the series of all others; no target has it.
const OTHERS: &str = "(others)";

/// The router's metrics.
pub const DEFINITIONS: &[Definition] = &[
    Definition {
        name: SENT,
        kind: Kind::Counter,
        help: "Attempts to deliver, by operation and agent.",
    },
    Definition {
        name: REGION_SENT,
        kind: Kind::Counter,
        help: "Attempts to deliver, by the region they went to and whether it is the router's own (here, elsewhere).",
    },
    Definition {
        name: LATENCY,
        kind: Kind::Histogram(&[0.01, 0.05, 0.1, 0.5, 1.0, 5.0]),
        help: "Seconds from the place in flight to the answer (of a stream: to its start), moves included.",
    },
    Definition {
        name: QUEUE,
        kind: Kind::Gauge,
        help: "Calls that wait for a place.",
    },
    Definition {
        name: QUEUE_WAIT,
        kind: Kind::Histogram(&[0.001, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0]),
        help: "Seconds that a message waited for a place; zero of most.",
    },
    Definition {
        name: IN_FLIGHT,
        kind: Kind::Gauge,
        help: "Calls that are with an agent.",
    },
    Definition {
        name: AGENT_IN_FLIGHT,
        kind: Kind::Gauge,
        help: "Messages that are with an agent from this router, by recipient.",
    },
    Definition {
        name: AGENT_PLACES,
        kind: Kind::Gauge,
        help: "Messages that an agent may have from this router at once, declared or learned, by recipient.",
    },
    Definition {
        name: BREAKERS,
        kind: Kind::Gauge,
        help: "Instances by where their circuit breaker stands (closed, open, half-open) and recipient.",
    },
    Definition {
        name: MOVED,
        kind: Kind::Counter,
        help: "Attempts that moved to another instance.",
    },
    Definition {
        name: HEDGED,
        kind: Kind::Counter,
        help: "Calls that were sent to a second instance because the first took long.",
    },
    Definition {
        name: EJECTED,
        kind: Kind::Counter,
        help: "Breakers that opened, by agent.",
    },
    Definition {
        name: STALLED,
        kind: Kind::Counter,
        help: "Streams that were ended because their caller read nothing.",
    },
    Definition {
        name: OUTCOMES,
        kind: Kind::Counter,
        help: "Calls by binding and outcome (ok, or the error's code).",
    },
    Definition {
        name: LIMITED,
        kind: Kind::Counter,
        help: "Requests refused by a rate limit: of the caller, of the agent, or of the agent for each caller.",
    },
    Definition {
        name: LIMITS_ALONE,
        kind: Kind::Gauge,
        help: "1 while routers that share their limits (of callers, of agents) in Redis do not reach it, and each decides alone.",
    },
    Definition {
        name: VIEW_AGE,
        kind: Kind::Gauge,
        help: "Seconds since the registry was last heard.",
    },
    Definition {
        name: VIEW_STALE,
        kind: Kind::Gauge,
        help: "1 while the registry does not answer.",
    },
    Definition {
        name: INBOX_ENTRIES,
        kind: Kind::Gauge,
        help: "Entries of the inbox, by status. With a shared store, those of all routers.",
    },
    Definition {
        name: INBOX_TARGETS,
        kind: Kind::Gauge,
        help: "Entries that wait or are being delivered, by target, for the targets with the most.",
    },
    Definition {
        name: INBOX_OLDEST,
        kind: Kind::Gauge,
        help: "Seconds that the oldest pending entry has waited.",
    },
    Definition {
        name: INBOX_ENDED,
        kind: Kind::Counter,
        help: "Entries whose end this router recorded: done, or the reason for a dead letter.",
    },
    Definition {
        name: INBOX_RETURNED,
        kind: Kind::Counter,
        help: "Leases that ran out, their holder being dead or too slow.",
    },
    Definition {
        name: INBOX_DISPLACED,
        kind: Kind::Counter,
        help: "Ended entries that were forgotten before their retention, because there were too many.",
    },
    Definition {
        name: TAKEN_OVER,
        kind: Kind::Counter,
        help: "Durable messages that this router took over from a call that had died, such as one of a killed router.",
    },
    Definition {
        name: BROADCASTS,
        kind: Kind::Counter,
        help: "Broadcasts.",
    },
    Definition {
        name: MATCHED,
        kind: Kind::Counter,
        help: "Agents that broadcasts matched.",
    },
    Definition {
        name: TUNED,
        kind: Kind::Counter,
        help: "Changes that the router made by itself, by kind (routing: an instance's share; concurrency: an agent's places) and how (less, more, reverted).",
    },
    Definition {
        name: TUNING,
        kind: Kind::Gauge,
        help: "Such changes in force, by kind: instances with a smaller share, and agents with fewer places, than without.",
    },
];

/// How many ways there are for calls to come in, at most.
const BINDINGS: usize = 5;

/// How calls come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Binding {
    /// gRPC.
    Grpc,
    /// JSON-RPC over HTTP.
    JsonRpc,
    /// HTTP+JSON.
    HttpJson,
    /// The router itself, for the inbox.
    Inbox,
    /// The router itself, for a broadcast.
    Broadcast,
}

impl From<muster_a2a::Binding> for Binding {
    fn from(binding: muster_a2a::Binding) -> Self {
        match binding {
            muster_a2a::Binding::Grpc => Self::Grpc,
            muster_a2a::Binding::JsonRpc => Self::JsonRpc,
            muster_a2a::Binding::HttpJson => Self::HttpJson,
        }
    }
}

impl Binding {
    /// All of them.
    pub const ALL: [Self; BINDINGS] = [
        Self::Grpc,
        Self::JsonRpc,
        Self::HttpJson,
        Self::Inbox,
        Self::Broadcast,
    ];

    /// Its name in metrics and statistics.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Grpc => "grpc",
            Self::JsonRpc => "jsonrpc",
            Self::HttpJson => "http_json",
            Self::Inbox => "inbox",
            Self::Broadcast => "broadcast",
        }
    }
}

/// Counts and measures. Clones share the series.
///
/// The series that every call counts in are looked up once and kept: to find one by its labels makes and hashes several
/// strings.
#[derive(Clone, Debug)]
pub struct Meters {
    metrics: Metrics,
    totals: Arc<Totals>,
    calls: Arc<Calls>,
    /// Targets of the inbox with a series of their own.
    targets: Arc<Mutex<HashSet<String>>>,
    regions: Arc<RwLock<BTreeMap<String, Arc<ToRegion>>>>,
    /// Agents with series of their own.
    agents: Arc<Bounded>,
    /// Those that were in the fleet when it was last looked at.
    seen: Arc<Mutex<HashSet<String>>>,
    /// The last minutes, by agent.
    last: Arc<RwLock<HashMap<String, Arc<Recent>>>>,
    series: Arc<Series>,
}

/// Attempts that went to a region.
#[derive(Debug)]
struct ToRegion {
    sent: AtomicU64,
    counter: Counter,
}

/// What there is of one agent, over its instances.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AgentLoad {
    /// Messages that are with it.
    pub in_flight: u64,
    /// Messages that it may have.
    pub places: u64,
    /// Instances whose breakers are closed, open, half-open.
    pub breakers: [u64; 3],
}

#[derive(Default)]
struct Series {
    waited: OnceLock<Histogram>,
    /// By operation, in the order of [`METHODS`].
    operations: [PerOperation; METHODS.len()],
    /// Calls that went well, by binding.
    well: [OnceLock<Counter>; BINDINGS],
}

impl std::fmt::Debug for Series {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Series").finish_non_exhaustive()
    }
}

#[derive(Default)]
struct PerOperation {
    latency: OnceLock<Histogram>,
    /// By agent; the registry knows them, so there are not too many.
    sent: RwLock<HashMap<String, Counter>>,
}

#[derive(Debug, Default)]
struct Totals {
    received: AtomicU64,
    sent: AtomicU64,
    succeeded: AtomicU64,
    failed: AtomicU64,
}

impl Series {
    fn of(&self, method: &'static Method) -> Option<&PerOperation> {
        let place = METHODS.iter().position(|known| std::ptr::eq(*known, method))?;
        self.operations.get(place)
    }
}

impl Meters {
    /// Meters that write to these metrics.
    #[must_use]
    pub fn new(metrics: Metrics) -> Self {
        Self {
            metrics,
            totals: Arc::default(),
            calls: Arc::default(),
            targets: Arc::default(),
            regions: Arc::default(),
            agents: Arc::new(Bounded::new(AGENT_SERIES)),
            seen: Arc::default(),
            last: Arc::default(),
            series: Arc::default(),
        }
    }

    /// An attempt goes to an agent.
    pub fn sent(&self, method: &'static Method, agent: &str) {
        self.totals.sent.fetch_add(1, Ordering::Relaxed);
        let series = self.series.of(method).map(|series| &series.sent);
        if let Some(counter) = series.and_then(|sent| sent.read().get(agent).cloned()) {
            counter.increment(1);
            return;
        }
        let labels = [
            ("message_type", method.label.to_owned()),
            ("recipient", self.agents.label(agent).to_owned()),
        ];
        let counter = self.metrics.counter(SENT, &labels);
        counter.increment(1);
        if let Some(sent) = series {
            sent.write().insert(agent.to_owned(), counter);
        }
    }

    /// An attempt goes to this region, which is another than the router's own, or not. Instances say what regions are called,
    /// so only so many are counted apart.
    pub fn sent_to(&self, region: &str, is_elsewhere: bool) {
        let known = self.regions.read().get(region).cloned();
        let counted = known.unwrap_or_else(|| {
            let mut regions = self.regions.write();
            let name = if regions.len() < REGION_SERIES {
                region
            } else {
                OTHERS
            };
            let made = || {
                let place = if is_elsewhere { "elsewhere" } else { "here" };
                let labels = [("region", name.to_owned()), ("place", place.to_owned())];
                Arc::new(ToRegion {
                    sent: AtomicU64::new(0),
                    counter: self.metrics.counter(REGION_SENT, &labels),
                })
            };
            Arc::clone(regions.entry(name.to_owned()).or_insert_with(made))
        });
        counted.sent.fetch_add(1, Ordering::Relaxed);
        counted.counter.increment(1);
    }

    /// Attempts that went to each region since the start.
    #[must_use]
    pub fn regions(&self) -> BTreeMap<String, u64> {
        let regions = self.regions.read();
        let counted = regions.iter();
        counted
            .map(|(region, to)| (region.clone(), to.sent.load(Ordering::Relaxed)))
            .collect()
    }

    /// An attempt at an agent has ended after that long, well or not.
    pub fn attempted(&self, agent: &str, now: Duration, took: Duration, is_well: bool) {
        let known = self.last.read().get(agent).cloned();
        let recent = known.or_else(|| {
            let mut all = self.last.write();
            if all.len() >= AGENT_SERIES && !all.contains_key(agent) {
                return None;
            }
            Some(Arc::clone(all.entry(agent.to_owned()).or_default()))
        });
        if let Some(recent) = recent {
            recent.answered(now, took);
            if !is_well {
                recent.failed(now);
            }
        }
    }

    /// What became of the last minutes' attempts at an agent.
    #[must_use]
    pub fn last(&self, agent: &str, now: Duration) -> Summary {
        let recent = self.last.read().get(agent).cloned();
        recent.map_or_else(Summary::default, |recent| recent.summary(now))
    }

    /// Forgets the last minutes of agents that have left.
    pub fn forget_others(&self, is_there: impl Fn(&str) -> bool) {
        self.last.write().retain(|agent, _| is_there(agent));
    }

    /// A delivery has ended, well or not.
    pub fn answered(&self, method: &'static Method, took: Duration) {
        let find = || {
            let labels = [("message_type", method.label.to_owned())];
            self.metrics.histogram(LATENCY, &labels)
        };
        match self.series.of(method) {
            Some(series) => series.latency.get_or_init(find).record(took.as_secs_f64()),
            None => find().record(took.as_secs_f64()),
        }
    }

    /// A message has waited so long for its place.
    pub fn waited(&self, waited: Duration) {
        let find = || self.metrics.histogram(QUEUE_WAIT, &[]);
        self.series.waited.get_or_init(find).record(waited.as_secs_f64());
    }

    /// What there is of every agent of the fleet. Those that have left are shown with nothing: a series that stays as it was
    /// would say that they are there.
    #[expect(clippy::cast_precision_loss, reason = "bounded counts")]
    pub fn fleet(&self, agents: &BTreeMap<String, AgentLoad>) {
        let mut seen = self.seen.lock();
        let gone = seen.drain().map(|agent| (agent, AgentLoad::default()));
        let mut shown: BTreeMap<String, AgentLoad> = gone.collect();
        for (agent, load) in agents {
            let label = self.agents.label(agent);
            let sum = shown.entry(label.to_owned()).or_default();
            sum.in_flight += load.in_flight;
            sum.places += load.places;
            for (all, own) in sum.breakers.iter_mut().zip(load.breakers) {
                *all += own;
            }
            seen.insert(label.to_owned());
        }
        for (agent, load) in shown {
            let set = |name, count: u64| {
                let labels = [("recipient", agent.clone())];
                self.metrics.gauge(name, &labels).set(count as f64);
            };
            set(AGENT_IN_FLIGHT, load.in_flight);
            set(AGENT_PLACES, load.places);
            for (state, count) in [
                breaker::State::Closed,
                breaker::State::Open,
                breaker::State::HalfOpen,
            ]
            .into_iter()
            .zip(load.breakers)
            {
                let labels = [("recipient", agent.clone()), ("state", state.name().to_owned())];
                self.metrics.gauge(BREAKERS, &labels).set(count as f64);
            }
        }
    }

    /// So many calls of a queue (`messages` or `operations`) wait, and so many are in flight.
    pub fn load(&self, queue: &'static str, waiting: usize, in_flight: usize) {
        #[expect(clippy::cast_precision_loss, reason = "bounded counts")]
        let (waiting, in_flight) = (waiting as f64, in_flight as f64);
        let labels = [("queue", queue.to_owned())];
        self.metrics.gauge(QUEUE, &labels).set(waiting);
        self.metrics.gauge(IN_FLIGHT, &labels).set(in_flight);
    }

    /// The router has changed something by itself, or somebody has taken that back.
    pub fn tuned(&self, kind: &'static str, how: &'static str) {
        let labels = [("kind", kind.to_owned()), ("how", how.to_owned())];
        self.metrics.counter(TUNED, &labels).increment(1);
    }

    /// So many shares and so many agents' places are changed.
    #[expect(clippy::cast_precision_loss, reason = "bounded counts")]
    pub fn tuning(&self, shares: usize, agents: usize) {
        for (kind, count) in [("routing", shares), ("concurrency", agents)] {
            let labels = [("kind", kind.to_owned())];
            self.metrics.gauge(TUNING, &labels).set(count as f64);
        }
    }

    /// An attempt moved to another instance.
    pub fn moved(&self) {
        self.metrics.counter(MOVED, &[]).increment(1);
    }

    /// A call was sent to a second instance as well.
    pub fn hedged(&self) {
        self.metrics.counter(HEDGED, &[]).increment(1);
    }

    /// A request was refused by a limit of this kind: `caller`, `agent` or `agent_caller`.
    pub fn limited(&self, limit: &'static str) {
        self.metrics
            .counter(LIMITED, &[("limit", limit.to_owned())])
            .increment(1);
    }

    /// Limits of this kind are decided alone, or by Redis.
    pub fn limits_alone(&self, kind: &'static str, is_alone: bool) {
        self.metrics
            .gauge(LIMITS_ALONE, &[("kind", kind.to_owned())])
            .set(f64::from(u8::from(is_alone)));
    }

    /// A stream was ended because its caller read nothing.
    pub fn stalled(&self) {
        self.metrics.counter(STALLED, &[]).increment(1);
    }

    /// A breaker opened.
    pub fn ejected(&self, agent: &str) {
        self.metrics
            .counter(EJECTED, &[("recipient", self.agents.label(agent).to_owned())])
            .increment(1);
    }

    /// A call has been answered to its caller; `code` is that of the error.
    pub fn outcome(&self, binding: Binding, code: Option<tonic::Code>) {
        let total = if code.is_none() {
            &self.totals.succeeded
        } else {
            &self.totals.failed
        };
        total.fetch_add(1, Ordering::Relaxed);
        let find = |outcome: String| {
            let labels = [("binding", binding.label().to_owned()), ("outcome", outcome)];
            self.metrics.counter(OUTCOMES, &labels)
        };
        match code {
            Some(code) => find(format!("{code:?}")).increment(1),
            None => {
                let find = || find("ok".to_owned());
                match self.series.well.get(binding as usize) {
                    Some(well) => well.get_or_init(find).increment(1),
                    None => find().increment(1),
                }
            }
        }
    }

    /// A call has come in.
    pub fn received(&self) {
        self.totals.received.fetch_add(1, Ordering::Relaxed);
    }

    /// A call of an agent has ended; empty: it reached none.
    pub fn called(&self, binding: Binding, agent: &str, is_well: bool) {
        self.calls.count(agent, binding, is_well);
    }

    /// The inbox holds so much.
    pub fn inbox(&self, counts: &Counts) {
        #[expect(clippy::cast_precision_loss, reason = "bounded counts")]
        let set = |name, label, value: String, count: usize| {
            self.metrics.gauge(name, &[(label, value)]).set(count as f64);
        };
        for (status, count) in Status::ALL.into_iter().zip(counts.by_status) {
            set(INBOX_ENTRIES, "status", status.name().to_owned(), count);
        }
        self.metrics
            .gauge(INBOX_OLDEST, &[])
            .set(counts.oldest.as_secs_f64());
        let mut known = self.targets.lock();
        let mut others = 0;
        for (target, size) in &counts.targets {
            if known.len() < TARGET_SERIES {
                known.insert(target.clone());
            }
            if known.contains(target) {
                set(INBOX_TARGETS, "target", target.clone(), *size);
            } else {
                others += size;
            }
        }
        set(INBOX_TARGETS, "target", OTHERS.to_owned(), others);
        let is_empty = |target: &&String| counts.targets.iter().all(|(shown, _)| shown != *target);
        for gone in known.iter().filter(is_empty) {
            set(INBOX_TARGETS, "target", gone.clone(), 0);
        }
    }

    /// The outcome of a delivery of the inbox was recorded.
    pub fn inbox_recorded(&self, entry: &Entry) {
        let outcome = match &entry.state {
            State::Pending { .. } | State::Delivering { .. } => return,
            State::Done { .. } => "done",
            State::Dead { reason, .. } => reason.name(),
        };
        self.metrics
            .counter(INBOX_ENDED, &[("outcome", outcome.to_owned())])
            .increment(1);
    }

    /// Times have passed in the inbox.
    pub fn inbox_ticked(&self, dead: usize, returned: usize, displaced: usize) {
        if dead > 0 {
            let labels = [("outcome", "expired".to_owned())];
            self.metrics.counter(INBOX_ENDED, &labels).increment(dead as u64);
        }
        for (name, count) in [(INBOX_RETURNED, returned), (INBOX_DISPLACED, displaced)] {
            if count > 0 {
                self.metrics.counter(name, &[]).increment(count as u64);
            }
        }
    }

    /// A broadcast goes to so many agents.
    pub fn broadcast(&self, agents: usize) {
        self.metrics.counter(BROADCASTS, &[]).increment(1);
        self.metrics.counter(MATCHED, &[]).increment(agents as u64);
    }

    /// So many durable messages were taken over since the start.
    pub fn taken_over(&self, total: u64) {
        self.metrics.counter(TAKEN_OVER, &[]).absolute(total);
    }

    /// How fresh the view of the fleet is.
    pub fn view(&self, age: Option<Duration>, stale: bool) {
        self.metrics
            .gauge(VIEW_AGE, &[])
            .set(age.unwrap_or_default().as_secs_f64());
        self.metrics
            .gauge(VIEW_STALE, &[])
            .set(f64::from(u8::from(stale)));
    }

    /// Calls by agent and binding.
    #[must_use]
    pub fn calls(&self) -> &Calls {
        &self.calls
    }

    /// Calls that came in since the start.
    #[must_use]
    pub fn received_total(&self) -> u64 {
        self.totals.received.load(Ordering::Relaxed)
    }

    /// Attempts to deliver since the start.
    #[must_use]
    pub fn sent_total(&self) -> u64 {
        self.totals.sent.load(Ordering::Relaxed)
    }

    /// Calls answered since the start.
    #[must_use]
    pub fn succeeded_total(&self) -> u64 {
        self.totals.succeeded.load(Ordering::Relaxed)
    }

    /// Calls failed since the start, refusals included.
    #[must_use]
    pub fn failed_total(&self) -> u64 {
        self.totals.failed.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_that_left_has_nothing_and_too_many_share_a_series() {
        let metrics = Metrics::new(DEFINITIONS).unwrap();
        let meters = Meters::new(metrics.clone());
        let load = AgentLoad {
            in_flight: 1,
            places: 4,
            breakers: [1, 0, 0],
        };
        let all = |count: usize| {
            (0..count)
                .map(|number| (format!("agent-{number:03}"), load))
                .collect()
        };
        meters.fleet(&all(AGENT_SERIES + 3));
        let has = |line: &str| assert!(metrics.render().contains(line), "{line}: {}", metrics.render());
        has("router_agent_places{recipient=\"agent-000\"} 4\n");
        has("router_agent_places{recipient=\"other\"} 12\n");
        has("router_breakers{recipient=\"agent-000\",state=\"closed\"} 1\n");
        meters.fleet(&BTreeMap::new());
        has("router_agent_places{recipient=\"agent-000\"} 0\n");
        has("router_agent_places{recipient=\"other\"} 0\n");
    }
}
