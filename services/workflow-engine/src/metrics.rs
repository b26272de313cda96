//! What the engine counts and measures.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use muster_runtime::Metrics;
use muster_runtime::metrics::{Definition, Kind};

use crate::caller;
use crate::run::Status;
use crate::schedule::Counts;

const STARTED: &str = "workflow_runs_started_total";
const ENDED: &str = "workflow_runs_ended_total";
const RUNS: &str = "workflow_runs";
const SLOTS: &str = "workflow_slots";
const STEPS: &str = "workflow_steps_total";
const COMMIT_SECONDS: &str = "workflow_commit_duration_seconds";
const CALLS: &str = "workflow_calls_total";
const CALL_SECONDS: &str = "workflow_call_duration_seconds";

/// All of the engine's metrics.
pub const DEFINITIONS: &[Definition] = &[
    Definition {
        name: STARTED,
        kind: Kind::Counter,
        help: "Runs accepted.",
    },
    Definition {
        name: ENDED,
        kind: Kind::Counter,
        help: "Runs that ended, by outcome.",
    },
    Definition {
        name: RUNS,
        kind: Kind::Gauge,
        help: "Runs that have not ended, by where they are.",
    },
    Definition {
        name: SLOTS,
        kind: Kind::Gauge,
        help: "Runs that may work at the same time.",
    },
    Definition {
        name: STEPS,
        kind: Kind::Counter,
        help: "Steps written to journals.",
    },
    Definition {
        name: COMMIT_SECONDS,
        kind: Kind::Histogram(&[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0]),
        help: "Seconds until a step is on disk.",
    },
    Definition {
        name: CALLS,
        kind: Kind::Counter,
        help: "Calls of agents, by outcome.",
    },
    Definition {
        name: CALL_SECONDS,
        kind: Kind::Histogram(&[0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0]),
        help: "Seconds until an agent has answered.",
    },
];

/// Runs that ended since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// With an output.
    pub completed: u64,
    /// With an error.
    pub faulted: u64,
    /// By a caller's wish.
    pub cancelled: u64,
}

/// Counts and measures.
pub(crate) struct Meter {
    metrics: Metrics,
    completed: AtomicU64,
    faulted: AtomicU64,
    cancelled: AtomicU64,
}

impl Meter {
    pub(crate) fn new(metrics: Metrics) -> Self {
        Self {
            metrics,
            completed: AtomicU64::new(0),
            faulted: AtomicU64::new(0),
            cancelled: AtomicU64::new(0),
        }
    }

    pub(crate) fn started(&self) {
        self.metrics.counter(STARTED, &[]).increment(1);
    }

    pub(crate) fn ended(&self, status: Status) {
        let total = match status {
            Status::Completed => &self.completed,
            Status::Faulted => &self.faulted,
            Status::Cancelled => &self.cancelled,
            Status::Pending | Status::Running | Status::Waiting | Status::Paused => return,
        };
        total.fetch_add(1, Ordering::Relaxed);
        self.metrics
            .counter(ENDED, &[("outcome", status.name().to_owned())])
            .increment(1);
    }

    pub(crate) fn totals(&self) -> Totals {
        Totals {
            completed: self.completed.load(Ordering::Relaxed),
            faulted: self.faulted.load(Ordering::Relaxed),
            cancelled: self.cancelled.load(Ordering::Relaxed),
        }
    }

    #[expect(clippy::cast_precision_loss, reason = "no fleet has 2^53 runs")]
    pub(crate) fn counts(&self, counts: Counts) {
        let places = [
            ("running", counts.running),
            ("pending", counts.pending),
            ("waiting", counts.waiting),
            ("set_aside", counts.set_aside),
        ];
        for (place, count) in places {
            self.metrics
                .gauge(RUNS, &[("place", place.to_owned())])
                .set(count as f64);
        }
        self.metrics.gauge(SLOTS, &[]).set(counts.slots as f64);
    }

    pub(crate) fn step(&self, took: Duration) {
        self.metrics.counter(STEPS, &[]).increment(1);
        self.metrics
            .histogram(COMMIT_SECONDS, &[])
            .record(took.as_secs_f64());
    }

    pub(crate) fn call<T>(&self, outcome: &Result<T, caller::Failure>, took: Duration) {
        let outcome = match outcome.as_ref().map_err(|failure| failure.kind) {
            Ok(_) => "ok",
            Err(caller::Kind::Communication) => "communication",
            Err(caller::Kind::Timeout) => "timeout",
            Err(caller::Kind::Authentication) => "authentication",
            Err(caller::Kind::Authorization) => "authorization",
            Err(caller::Kind::Validation) => "validation",
            Err(caller::Kind::Configuration) => "configuration",
            Err(caller::Kind::Runtime) => "runtime",
        };
        self.metrics
            .counter(CALLS, &[("outcome", outcome.to_owned())])
            .increment(1);
        self.metrics
            .histogram(CALL_SECONDS, &[])
            .record(took.as_secs_f64());
    }
}
