//! What the router counts. Recipients are agents that the registry knows, so the label is bounded.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use muster_runtime::Metrics;
use muster_runtime::metrics::{Counter, Definition, Histogram, Kind};
use parking_lot::RwLock;

use crate::operation::{METHODS, Method};

const SENT: &str = "a2a_messages_sent_total";
const LATENCY: &str = "a2a_message_latency_seconds";
const QUEUE: &str = "router_queue_depth";
const IN_FLIGHT: &str = "router_in_flight";
const MOVED: &str = "router_moved_attempts_total";
const HEDGED: &str = "router_hedged_calls_total";
const EJECTED: &str = "router_breaker_openings_total";
const STALLED: &str = "router_stalled_streams_total";
const OUTCOMES: &str = "router_calls_total";
const VIEW_AGE: &str = "router_view_age_seconds";
const VIEW_STALE: &str = "router_view_stale";

/// The router's metrics.
pub const DEFINITIONS: &[Definition] = &[
    Definition {
        name: SENT,
        kind: Kind::Counter,
        help: "Attempts to deliver, by operation and agent.",
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
        name: IN_FLIGHT,
        kind: Kind::Gauge,
        help: "Calls that are with an agent.",
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
        name: VIEW_AGE,
        kind: Kind::Gauge,
        help: "Seconds since the registry was last heard.",
    },
    Definition {
        name: VIEW_STALE,
        kind: Kind::Gauge,
        help: "1 while the registry does not answer.",
    },
];

/// How many ways there are for calls to come in, at most.
const BINDINGS: usize = 4;

/// How calls come in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Binding {
    /// gRPC.
    Grpc,
    /// JSON-RPC over HTTP.
    JsonRpc,
    /// HTTP+JSON.
    HttpJson,
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
    const fn label(self) -> &'static str {
        match self {
            Self::Grpc => "grpc",
            Self::JsonRpc => "jsonrpc",
            Self::HttpJson => "http_json",
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
    series: Arc<Series>,
}

#[derive(Default)]
struct Series {
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
            series: Arc::default(),
        }
    }

    /// An attempt goes to an agent.
    pub fn sent(&self, method: &'static Method, agent: &str) {
        let series = self.series.of(method).map(|series| &series.sent);
        if let Some(counter) = series.and_then(|sent| sent.read().get(agent).cloned()) {
            counter.increment(1);
            return;
        }
        let labels = [
            ("message_type", method.label.to_owned()),
            ("recipient", agent.to_owned()),
        ];
        let counter = self.metrics.counter(SENT, &labels);
        counter.increment(1);
        if let Some(sent) = series {
            sent.write().insert(agent.to_owned(), counter);
        }
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

    /// So many calls of a queue (`messages` or `operations`) wait, and so many are in flight.
    pub fn load(&self, queue: &'static str, waiting: usize, in_flight: usize) {
        #[expect(clippy::cast_precision_loss, reason = "bounded counts")]
        let (waiting, in_flight) = (waiting as f64, in_flight as f64);
        let labels = [("queue", queue.to_owned())];
        self.metrics.gauge(QUEUE, &labels).set(waiting);
        self.metrics.gauge(IN_FLIGHT, &labels).set(in_flight);
    }

    /// An attempt moved to another instance.
    pub fn moved(&self) {
        self.metrics.counter(MOVED, &[]).increment(1);
    }

    /// A call was sent to a second instance as well.
    pub fn hedged(&self) {
        self.metrics.counter(HEDGED, &[]).increment(1);
    }

    /// A stream was ended because its caller read nothing.
    pub fn stalled(&self) {
        self.metrics.counter(STALLED, &[]).increment(1);
    }

    /// A breaker opened.
    pub fn ejected(&self, agent: &str) {
        self.metrics
            .counter(EJECTED, &[("recipient", agent.to_owned())])
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

    /// How fresh the view of the fleet is.
    pub fn view(&self, age: Option<Duration>, stale: bool) {
        self.metrics
            .gauge(VIEW_AGE, &[])
            .set(age.unwrap_or_default().as_secs_f64());
        self.metrics
            .gauge(VIEW_STALE, &[])
            .set(f64::from(u8::from(stale)));
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
