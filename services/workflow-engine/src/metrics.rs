//! What the engine counts and measures.
//!
//! Names of workflows, and of the servers and tools that they call, are what authors choose: the first so many have series of their
//! own.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use muster_runtime::Metrics;
use muster_runtime::metrics::{Bounded, Counter, Definition, Gauge, Histogram, Kind};
use muster_workflow_dsl::request::Request;
use parking_lot::Mutex;
use serde_json::Value;

use crate::caller;
use crate::optimize::measured::Measured;
use crate::optimize::{Findings, Sign};
use crate::run::{Status, Summary};
use crate::schedule::Counts;

const STARTED: &str = "workflow_runs_started_total";
const ENDED: &str = "workflow_runs_ended_total";
const ACTIVE: &str = "active_workflows";
const EXECUTIONS: &str = "workflow_executions_total";
const DURATION: &str = "workflow_duration_seconds";
const WAITED: &str = "workflow_queue_wait_seconds";
const RUNS: &str = "workflow_runs";
const SLOTS: &str = "workflow_slots";
const STEPS: &str = "workflow_steps_total";
const COMMIT_SECONDS: &str = "workflow_commit_duration_seconds";
const STORE_SECONDS: &str = "workflow_store_commit_seconds";
const STORE_BATCH: &str = "workflow_store_commit_batches";
const CALLS: &str = "workflow_calls_total";
const CALL_SECONDS: &str = "workflow_call_duration_seconds";
const TOOL_CALLS: &str = "mcp_tool_calls_total";
const TOOL_SECONDS: &str = "mcp_tool_duration_seconds";
const PARTITIONS: &str = "workflow_partitions";
const RENEWALS: &str = "workflow_lease_renewals_total";
const TAKEOVERS: &str = "workflow_takeovers_total";

const SCORE: &str = "workflow_performance_score";
const BOTTLENECKS: &str = "workflow_bottlenecks";
const CHANGES: &str = "workflow_tuning_changes_total";

/// Names of workflows with series of their own, at most.
const WORKFLOW_SERIES: usize = 100;

/// Servers, and tools, with series of their own, at most.
const TOOL_SERIES: usize = 50;

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
        name: ACTIVE,
        kind: Kind::Gauge,
        help: "Runs that this engine works on now.",
    },
    Definition {
        name: EXECUTIONS,
        kind: Kind::Counter,
        help: "Runs that ended, by workflow_type (the workflow's name) and status.",
    },
    Definition {
        name: DURATION,
        kind: Kind::Histogram(&[1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 600.0, 1800.0]),
        help: "Seconds from a run's first step to its end, by workflow_type (the workflow's name).",
    },
    Definition {
        name: WAITED,
        kind: Kind::Histogram(&[0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 30.0, 300.0]),
        help: "Seconds from when a run was accepted to its first step, of runs that ended.",
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
        help: "Seconds until a step is durable: the wait for the group and its write.",
    },
    Definition {
        name: STORE_SECONDS,
        kind: Kind::Histogram(&[0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 1.0]),
        help: "Seconds that the embedded store took to write and sync one group of steps.",
    },
    Definition {
        name: STORE_BATCH,
        kind: Kind::Histogram(&[1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 500.0]),
        help: "Writes that shared one sync of the embedded store.",
    },
    Definition {
        name: CALLS,
        kind: Kind::Counter,
        help: "Calls of agents and others, by outcome.",
    },
    Definition {
        name: CALL_SECONDS,
        kind: Kind::Histogram(&[0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0]),
        help: "Seconds until a call was answered.",
    },
    Definition {
        name: TOOL_CALLS,
        kind: Kind::Counter,
        help: "Calls of tools over MCP, by server, tool and status.",
    },
    Definition {
        name: TOOL_SECONDS,
        kind: Kind::Histogram(&[0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0]),
        help: "Seconds until a tool has answered over MCP, by server and tool.",
    },
    Definition {
        name: SCORE,
        kind: Kind::Gauge,
        help: "From 0 to 100: how well calls go and how few steps are bottlenecks, as of the last look.",
    },
    Definition {
        name: BOTTLENECKS,
        kind: Kind::Gauge,
        help: "Steps that are bottlenecks, by sign (slow, unsteady, failing), as of the last look.",
    },
    Definition {
        name: CHANGES,
        kind: Kind::Counter,
        help: "Changes of the slots for runs that the engine made by itself, by how (less, more, reverted).",
    },
    Definition {
        name: PARTITIONS,
        kind: Kind::Gauge,
        help: "Partitions that this engine works on, where engines share a store.",
    },
    Definition {
        name: RENEWALS,
        kind: Kind::Counter,
        help: "Renewals of the leases on partitions, by outcome: renewed, lost to another engine, or failed because the store did not answer.",
    },
    Definition {
        name: TAKEOVERS,
        kind: Kind::Counter,
        help: "Partitions that this engine has begun to work on.",
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

/// Counts and measures. The series that every step counts in are looked up once.
pub(crate) struct Meter {
    metrics: Metrics,
    completed: AtomicU64,
    faulted: AtomicU64,
    cancelled: AtomicU64,
    steps: Counter,
    commit_seconds: Histogram,
    call_seconds: Histogram,
    called_well: Counter,
    waited: Histogram,
    partitions: Gauge,
    workflows: Bounded,
    servers: Bounded,
    tools: Bounded,
    measured: Mutex<Measured>,
}

/// How the store has written a group.
pub(crate) struct Grouped {
    seconds: Histogram,
    batches: Histogram,
}

impl Grouped {
    pub(crate) fn new(metrics: &Metrics) -> Self {
        Self {
            seconds: metrics.histogram(STORE_SECONDS, &[]),
            batches: metrics.histogram(STORE_BATCH, &[]),
        }
    }

    /// A group of so many batches was written.
    #[expect(
        clippy::cast_precision_loss,
        reason = "a group has far fewer than 2^53 batches"
    )]
    pub(crate) fn written(&self, batches: usize, took: Duration) {
        self.batches.record(batches as f64);
        self.seconds.record(took.as_secs_f64());
    }
}

impl Meter {
    pub(crate) fn new(metrics: Metrics) -> Self {
        Self {
            completed: AtomicU64::new(0),
            faulted: AtomicU64::new(0),
            cancelled: AtomicU64::new(0),
            steps: metrics.counter(STEPS, &[]),
            commit_seconds: metrics.histogram(COMMIT_SECONDS, &[]),
            call_seconds: metrics.histogram(CALL_SECONDS, &[]),
            called_well: metrics.counter(CALLS, &[("outcome", "ok".to_owned())]),
            waited: metrics.histogram(WAITED, &[]),
            partitions: metrics.gauge(PARTITIONS, &[]),
            workflows: Bounded::new(WORKFLOW_SERIES),
            servers: Bounded::new(TOOL_SERIES),
            tools: Bounded::new(TOOL_SERIES),
            measured: Mutex::default(),
            metrics,
        }
    }

    pub(crate) fn started(&self) {
        self.metrics.counter(STARTED, &[]).increment(1);
    }

    /// A run has ended, unless it has not.
    pub(crate) fn ended(&self, summary: &Summary) {
        let total = match summary.status {
            Status::Completed => &self.completed,
            Status::Faulted => &self.faulted,
            Status::Cancelled => &self.cancelled,
            Status::Pending | Status::Running | Status::Waiting | Status::Paused => return,
        };
        total.fetch_add(1, Ordering::Relaxed);
        let status = summary.status.name();
        self.metrics
            .counter(ENDED, &[("outcome", status.to_owned())])
            .increment(1);
        let kind = || ("workflow_type", self.workflows.label(&summary.name).to_owned());
        self.metrics
            .counter(EXECUTIONS, &[kind(), ("status", status.to_owned())])
            .increment(1);
        // One that was cancelled before it began has taken no time.
        let (Some(started), Some(ended)) = (summary.started_at, summary.ended_at) else {
            return;
        };
        let between = |from: Timestamp, to: Timestamp| to.duration_since(from).as_secs_f64().max(0.0);
        let took = between(started, ended);
        self.metrics.histogram(DURATION, &[kind()]).record(took);
        self.waited.record(between(summary.created_at, started));
        self.measured
            .lock()
            .run(&summary.name, took, summary.status == Status::Completed);
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
        self.metrics.gauge(ACTIVE, &[]).set(counts.running as f64);
        self.metrics.gauge(SLOTS, &[]).set(counts.slots as f64);
    }

    /// How much is taken of what there is.
    pub(crate) fn look(&self, counts: Counts) {
        self.measured.lock().occupied(counts.running, counts.slots);
    }

    /// So much was found.
    #[expect(clippy::cast_precision_loss, reason = "at most a few thousand")]
    pub(crate) fn found(&self, findings: &Findings) {
        self.metrics.gauge(SCORE, &[]).set(f64::from(findings.score));
        for sign in [Sign::Slow, Sign::Unsteady, Sign::Failing] {
            let count = findings
                .bottlenecks
                .iter()
                .filter(|found| found.sign == sign)
                .count();
            let labels = [("sign", sign.name().to_owned())];
            self.metrics.gauge(BOTTLENECKS, &labels).set(count as f64);
        }
    }

    /// The engine has changed something by itself, or somebody has taken that back.
    pub(crate) fn changed(&self, how: &'static str) {
        self.metrics
            .counter(CHANGES, &[("how", how.to_owned())])
            .increment(1);
    }

    /// What was measured by now counts less from now on.
    pub(crate) fn age(&self) {
        self.measured.lock().age();
    }

    pub(crate) fn step(&self, took: Duration) {
        self.steps.increment(1);
        self.commit_seconds.record(took.as_secs_f64());
    }

    /// A call of the task of a workflow has ended.
    pub(crate) fn call<T>(
        &self,
        (workflow, task): (&str, &str),
        request: &Request,
        outcome: &Result<T, caller::Failure>,
        took: Duration,
    ) {
        let failed = outcome.as_ref().err().map(|failure| failure.kind.name());
        match failed {
            None => self.called_well.increment(1),
            Some(kind) => {
                let labels = [("outcome", kind.to_owned())];
                self.metrics.counter(CALLS, &labels).increment(1);
            }
        }
        let seconds = took.as_secs_f64();
        self.call_seconds.record(seconds);
        self.measured
            .lock()
            .step(workflow, task, &request.target(), seconds, failed.is_none());
        if let Request::Mcp(call) = request {
            let tool = call
                .parameters
                .get("name")
                .and_then(Value::as_str)
                .unwrap_or(&call.method);
            let labels = [
                ("server", self.servers.label(&call.target()).to_owned()),
                ("tool", self.tools.label(tool).to_owned()),
                ("status", failed.unwrap_or("success").to_owned()),
            ];
            self.metrics.counter(TOOL_CALLS, &labels).increment(1);
            let [server, tool, _] = labels;
            self.metrics
                .histogram(TOOL_SECONDS, &[server, tool])
                .record(seconds);
        }
    }

    /// So many partitions are worked on here.
    pub(crate) fn partitions(&self, count: usize) {
        self.partitions
            .set(f64::from(u32::try_from(count).unwrap_or(u32::MAX)));
    }

    /// Leases were to be renewed, and so many were, were lost, or could not be asked about.
    pub(crate) fn renewals(&self, outcomes: [(&'static str, usize); 3]) {
        for (outcome, count) in outcomes {
            let labels = [("outcome", outcome.to_owned())];
            self.metrics.counter(RENEWALS, &labels).increment(count as u64);
        }
    }

    /// So many partitions are worked on here from now on.
    pub(crate) fn takeovers(&self, count: usize) {
        self.metrics.counter(TAKEOVERS, &[]).increment(count as u64);
    }

    /// What was measured of steps and runs, for who looks for improvements.
    pub(crate) fn measured(&self) -> Measured {
        self.measured.lock().clone()
    }
}
