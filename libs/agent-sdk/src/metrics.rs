//! What an agent measures, under names that dashboards know.

use std::time::Duration;

use a2a_pb::proto::TaskState;
use http::HeaderMap;
use muster_api::error::Reason;
use muster_api::extension;
use muster_runtime::clock::SharedClock;
use muster_runtime::metrics::{Definition, Kind, Metrics};

use crate::running::Running;

const RECEIVED: &str = "a2a_messages_received_total";
const LATENCY: &str = "a2a_message_latency_seconds";
const REFUSED: &str = "agent_messages_refused_total";
const TASKS: &str = "agent_tasks_total";
const TAKEN_OVER: &str = "agent_tasks_taken_over_total";
const WORKED: &str = "agent_task_duration_seconds";
const PUSHED: &str = "agent_push_notifications_total";
const RUNNING: &str = "agent_tasks_running";
const LOAD: &str = "agent_load";
const REGISTERED: &str = "agent_registered";

/// Every metric that every agent has.
pub const DEFINITIONS: &[Definition] = &[
    Definition {
        name: RECEIVED,
        kind: Kind::Counter,
        help: "A2A calls received, by method and kind of sender",
    },
    Definition {
        name: LATENCY,
        kind: Kind::Histogram(&[0.01, 0.05, 0.1, 0.5, 1.0, 5.0]),
        help: "Time from an A2A call to its last answer, by method",
    },
    Definition {
        name: REFUSED,
        kind: Kind::Counter,
        help: "Messages refused before a task was made, by reason",
    },
    Definition {
        name: TASKS,
        kind: Kind::Counter,
        help: "Tasks settled, by state",
    },
    Definition {
        name: TAKEN_OVER,
        kind: Kind::Counter,
        help: "Tasks that this instance took over from instances that had died, where they share a store",
    },
    Definition {
        name: WORKED,
        kind: Kind::Histogram(&[0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0, 120.0, 600.0]),
        help: "Seconds that a handler worked on one message of a task",
    },
    Definition {
        name: PUSHED,
        kind: Kind::Counter,
        help: "Attempts to deliver a push notification, by outcome",
    },
    Definition {
        name: RUNNING,
        kind: Kind::Gauge,
        help: "Tasks that a handler works on now",
    },
    Definition {
        name: LOAD,
        kind: Kind::Gauge,
        help: "Running tasks by `agent.max_concurrent_tasks`, from 0 to 1",
    },
    Definition {
        name: REGISTERED,
        kind: Kind::Gauge,
        help: "1 while the registry holds a lease of this instance",
    },
];

/// The meters of one agent.
#[derive(Clone)]
pub(crate) struct Meters {
    metrics: Metrics,
    clock: SharedClock,
    running: Running,
}

/// The A2A methods that are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Method {
    Send,
    Stream,
    GetTask,
    ListTasks,
    CancelTask,
    Subscribe,
}

/// Who sends, in kinds: a label of caller names would grow without bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sender {
    /// A workflow's step.
    Workflow,
    /// Somebody through the router.
    Router,
    /// Somebody without it.
    Direct,
}

/// Records a call's time when it is dropped.
pub(crate) struct Timing {
    meters: Meters,
    method: Method,
    started: Duration,
}

impl Meters {
    pub(crate) fn new(metrics: Metrics, clock: SharedClock, running: Running) -> Self {
        Self {
            metrics,
            clock,
            running,
        }
    }

    pub(crate) fn received(&self, method: Method, sender: Sender) -> Timing {
        let labels = [
            ("message_type", method.name().to_owned()),
            ("sender", sender.name().to_owned()),
        ];
        self.metrics.counter(RECEIVED, &labels).increment(1);
        Timing {
            meters: self.clone(),
            method,
            started: self.clock.monotonic(),
        }
    }

    pub(crate) fn refused(&self, reason: Reason) {
        let labels = [("reason", reason.name().to_owned())];
        self.metrics.counter(REFUSED, &labels).increment(1);
    }

    pub(crate) fn pushed(&self, delivery: Delivery) {
        let labels = [("outcome", delivery.name().to_owned())];
        self.metrics.counter(PUSHED, &labels).increment(1);
    }

    /// So many tasks of an instance that has died are this one's now.
    pub(crate) fn taken_over(&self, tasks: usize) {
        self.metrics.counter(TAKEN_OVER, &[]).increment(tasks as u64);
    }

    pub(crate) fn task_ended(&self, state: TaskState) {
        // What a caller has cancelled, or asked for in vain, says nothing of how reliable the agent is.
        match state {
            TaskState::Completed => self.running.settled(false),
            TaskState::Failed => self.running.settled(true),
            _ => {}
        }
        let labels = [("state", state_name(state).to_owned())];
        self.metrics.counter(TASKS, &labels).increment(1);
    }

    pub(crate) fn worked(&self, took: Duration) {
        self.metrics.histogram(WORKED, &[]).record(took.as_secs_f64());
    }

    pub(crate) fn registered(&self, registered: bool) {
        self.metrics
            .gauge(REGISTERED, &[])
            .set(f64::from(u8::from(registered)));
    }

    /// Brings the gauges up to date.
    pub(crate) fn observe(&self) {
        let running = u32::try_from(self.running.count()).unwrap_or(u32::MAX);
        self.metrics.gauge(RUNNING, &[]).set(f64::from(running));
        self.metrics.gauge(LOAD, &[]).set(self.running.load());
    }
}

/// How an attempt to deliver a push notification ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Delivery {
    Arrived,
    Failed,
    GivenUp,
}

impl Delivery {
    const fn name(self) -> &'static str {
        match self {
            Self::Arrived => "arrived",
            Self::Failed => "failed",
            Self::GivenUp => "given_up",
        }
    }
}

impl Method {
    const fn name(self) -> &'static str {
        match self {
            Self::Send => "send_message",
            Self::Stream => "send_streaming_message",
            Self::GetTask => "get_task",
            Self::ListTasks => "list_tasks",
            Self::CancelTask => "cancel_task",
            Self::Subscribe => "subscribe_to_task",
        }
    }
}

impl Sender {
    /// Reads the kind off the headers that our own services set.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        if headers.contains_key(extension::STEP_KEY_METADATA) {
            Self::Workflow
        } else if headers.contains_key(extension::TARGET_METADATA)
            || headers.contains_key(extension::SKILL_METADATA)
        {
            Self::Router
        } else {
            Self::Direct
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Workflow => "workflow",
            Self::Router => "router",
            Self::Direct => "direct",
        }
    }
}

impl Drop for Timing {
    fn drop(&mut self) {
        let took = self.meters.clock.monotonic().saturating_sub(self.started);
        let labels = [("message_type", self.method.name().to_owned())];
        self.meters
            .metrics
            .histogram(LATENCY, &labels)
            .record(took.as_secs_f64());
    }
}

const fn state_name(state: TaskState) -> &'static str {
    match state {
        TaskState::Unspecified => "unspecified",
        TaskState::Submitted => "submitted",
        TaskState::Working => "working",
        TaskState::Completed => "completed",
        TaskState::Failed => "failed",
        TaskState::Canceled => "canceled",
        TaskState::InputRequired => "input_required",
        TaskState::Rejected => "rejected",
        TaskState::AuthRequired => "auth_required",
    }
}
