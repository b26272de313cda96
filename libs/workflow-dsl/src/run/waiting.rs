//! What a run does or waits for, as data: one [`Blocker`] for each thing.
//!
//! Whoever asks why a run does not go on is told the exact thing, in a sentence for people and in fields for
//! programs. The interpreter knows the things that follow from a run's state; whoever drives it adds what only the
//! driver sees, such as the line before the slots or what a router says about a call. Each way to wait has a
//! [`BlockerKind`] of its own, whose name is stable.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Map, Value};

use super::compensate::{Compensation, Unwinding};
use super::control::{Cancelling, Paused};
use super::effect::child_id;
use super::state::{Activation, Body, Listening, Try};
use super::{Approval, Run, Status};
use crate::document::Kind;
use crate::journal::Problem;
use crate::request::Request;

/// One thing that a run does or waits for.
#[derive(Debug, Clone, PartialEq)]
pub struct Blocker {
    /// What kind of thing it is.
    pub kind: BlockerKind,
    /// JSON pointer of the task that waits; none for the run itself.
    pub task: Option<Arc<str>>,
    /// One sentence for people.
    pub message: String,
    /// Since when.
    pub since: Option<Timestamp>,
    /// When it ends, or is given up.
    pub until: Option<Timestamp>,
    /// More for programs; the keys of each kind are stable.
    pub details: Map<String, Value>,
}

/// The ways in which a run can wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BlockerKind {
    /// Waits in line for a slot, or behind a limit of its workflow, key or namespace, or of processes.
    Queued,
    /// A call is in flight and nothing is known to hold it up.
    Call,
    /// A call finds no agent, or none with the skill.
    NoAgent,
    /// A call finds only agents that have failed too often and are left alone for a while.
    BreakerOpen,
    /// A call finds only agents that have as much work as they take.
    AgentBusy,
    /// The router holds as many calls as it may.
    QueueFull,
    /// The router, or what it depends on, cannot be reached.
    RouterUnreachable,
    /// A task listens for events that have not come.
    Event,
    /// A run that the run has started has not ended.
    ChildRun,
    /// A process has not ended.
    Process,
    /// A `wait` has not ended.
    Timer,
    /// The next attempt of a `try` has not begun.
    Retry,
    /// People have been asked and have not decided.
    Approval,
    /// Someone holds the run until it is told to go on.
    Paused,
    /// The run was told to end in good order: handlers of what was in progress run.
    Cancelling,
    /// The run is going to end, and takes back what it did.
    Compensating,
    /// A budget is used up, and people have not decided about more.
    Budget,
    /// No engine works on the run at this moment.
    OwnerLost,
    /// The run cannot go on until people have looked at it.
    SetAside,
    /// The run has ended and waits for nothing.
    Ended,
}

impl BlockerKind {
    /// The stable name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Call => "call",
            Self::NoAgent => "no-agent",
            Self::BreakerOpen => "breaker-open",
            Self::AgentBusy => "agent-busy",
            Self::QueueFull => "queue-full",
            Self::RouterUnreachable => "router-unreachable",
            Self::Event => "event",
            Self::ChildRun => "child-run",
            Self::Process => "process",
            Self::Timer => "timer",
            Self::Retry => "retry",
            Self::Approval => "approval",
            Self::Paused => "paused",
            Self::Cancelling => "cancelling",
            Self::Compensating => "compensating",
            Self::Budget => "budget",
            Self::OwnerLost => "owner-lost",
            Self::SetAside => "set-aside",
            Self::Ended => "ended",
        }
    }
}

impl Blocker {
    /// A blocker of the run itself of which nothing more is known.
    #[must_use]
    pub fn new(kind: BlockerKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            task: None,
            message: message.into(),
            since: None,
            until: None,
            details: Map::new(),
        }
    }

    /// With one more detail.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.details.insert(key.to_owned(), value.into());
        self
    }

    /// Of this task, since then.
    fn of(mut self, activation: &Activation) -> Self {
        self.task = Some(Arc::clone(&activation.pointer));
        self.since = Some(activation.started);
        self
    }
}

impl Run {
    /// What the run does or waits for, in the order in which the tasks began; nothing unless it is under way.
    #[must_use]
    pub fn waiting(&self, now: Timestamp) -> Vec<Blocker> {
        let mut blockers: Vec<Blocker> = self.wishes().collect();
        if self.status == Status::Running {
            let things = self.activations.iter();
            blockers.extend(things.filter_map(|(id, activation)| self.blocker(*id, activation, now)));
        }
        blockers
    }

    /// What others want of the run, as far as it is under way.
    fn wishes(&self) -> impl Iterator<Item = Blocker> {
        let open = matches!(self.status, Status::Pending | Status::Running);
        let control = Some(&self.control).filter(|_| open);
        let paused = control.and_then(|control| control.paused.as_ref()).map(paused);
        let cancelling = control.and_then(|control| control.cancelling.as_ref());
        let unwinding = control.and_then(|control| control.unwinding.as_ref());
        let compensating = unwinding.map(|unwinding| self.compensating(unwinding));
        let cancelling = cancelling.filter(|_| compensating.is_none()).map(cancelling_now);
        [paused, cancelling, compensating].into_iter().flatten()
    }

    fn compensating(&self, unwinding: &Unwinding) -> Blocker {
        let Compensation { done, failed, left } = self.compensation().unwrap_or_default();
        let cause = match (&unwinding.cause, &self.control.cancelling) {
            (Some(error), _) => format!("failed with {error}"),
            (None, Some(cancelling)) => format!("was cancelled{}", wish(&cancelling.by, &cancelling.reason)),
            (None, None) => "is ending".to_owned(),
        };
        let current = match &unwinding.current {
            Some(completed) => format!(", now {}", completed.task),
            None => String::new(),
        };
        let all = done.len() + failed.len() + left.len();
        let message = format!(
            "{cause} and takes back what it did: {} of {all} tasks{current}",
            done.len()
        );
        let pointers = |tasks: &[Arc<str>]| tasks.iter().map(|task| Value::from(&**task)).collect::<Vec<_>>();
        let failed: Vec<Arc<str>> = failed.into_iter().map(|(task, _)| task).collect();
        Blocker {
            task: unwinding
                .current
                .as_ref()
                .map(|completed| Arc::clone(&completed.task)),
            until: self.deadline,
            ..Blocker::new(BlockerKind::Compensating, message)
                .with("done", pointers(&done))
                .with("failed", pointers(&failed))
                .with("left", pointers(&left))
        }
    }

    /// The sentences of [`Self::waiting`].
    #[must_use]
    pub fn activity(&self, now: Timestamp) -> Vec<String> {
        let blockers = self.waiting(now).into_iter();
        blockers.map(|blocker| blocker.message).collect()
    }

    fn blocker(&self, id: u64, activation: &Activation, now: Timestamp) -> Option<Blocker> {
        match &activation.body {
            Body::Call(request) => Some(self.call(id, activation, request, now)),
            Body::Asked(approval) => Some(self.people(activation, approval, now)),
            Body::Held => {
                let open = self.spending.open.as_deref()?;
                Some(self.people(activation, open, now))
            }
            // No timer fires while the run is held.
            _ if self.is_paused() => None,
            Body::Listen(listening) if listening.waits() => self.listening(activation, listening, now),
            Body::Wait(until) => Some(timer(activation, *until, now)),
            Body::Try(Try {
                resume: Some(due),
                attempt,
                failed,
                ..
            }) => Some(retry(activation, *attempt, *due, failed.as_ref(), now)),
            _ => None,
        }
    }

    fn people(&self, activation: &Activation, approval: &Approval, now: Timestamp) -> Blocker {
        let id = approval.id(&self.id);
        let asked: Vec<&str> = approval.asked().collect();
        let question = &approval.question;
        let mut message = format!(
            "{} waits for approval {id} by {}: '{}', since {}",
            activation.pointer,
            asked.join(", "),
            question.title,
            instant(approval.opened, now)
        );
        if let Some(deadline) = question.deadline {
            message.push_str(&format!(", at most until {}", instant(deadline, now)));
        }
        if let Some(renews) = approval.budget.as_ref().and_then(|breach| breach.renews) {
            message.push_str(&format!("; the budget is renewed at {}", instant(renews, now)));
        }
        let kind = match approval.budget {
            None => BlockerKind::Approval,
            Some(_) => BlockerKind::Budget,
        };
        let mut blocker = Blocker::new(kind, message)
            .with("approval", id)
            .with("title", question.title.as_str())
            .with("assignees", asked)
            .with("escalated", approval.escalated)
            .of(activation);
        if let Some(escalation) = question.escalation.as_ref().filter(|_| !approval.escalated) {
            blocker = blocker.with("escalatesAt", muster_api::time::rfc3339(escalation.due));
        }
        if let Some(breach) = &approval.budget {
            blocker = blocker
                .with("namespace", breach.namespace.clone())
                .with("spent", breach.spent.to_value())
                .with("budget", breach.limits.to_value());
            if let Some(renews) = breach.renews {
                blocker = blocker.with("renewsAt", muster_api::time::rfc3339(renews));
            }
        }
        Blocker {
            since: Some(approval.opened),
            until: question.deadline,
            ..blocker
        }
    }

    fn listening(&self, activation: &Activation, listening: &Listening, now: Timestamp) -> Option<Blocker> {
        let task = self.definition.workflow.task(&activation.pointer)?;
        let Kind::Listen(listen) = &task.kind else {
            return None;
        };
        let waits_for = listening.hearing.describe(&listen.to);
        let mut message = format!("{} waits for {waits_for}", activation.pointer);
        if listening.count > 0 {
            message.push_str(&format!("; it has heard {}", listening.count));
        }
        let deadline = self.deadline_of(activation);
        if let Some(deadline) = deadline {
            message.push_str(&format!(", at most until {}", instant(deadline, now)));
        }
        let correlations = listening.hearing.correlations().clone();
        let blocker = Blocker::new(BlockerKind::Event, message)
            .with("waitsFor", waits_for)
            .with("filters", self.filters(activation))
            .with("correlations", correlations.into_iter().collect::<Map<_, _>>())
            .with("heard", listening.count)
            .with("position", listening.from)
            .of(activation);
        Some(Blocker {
            until: deadline,
            ..blocker
        })
    }

    /// The strategy of a `listen` as its author wrote it.
    fn filters(&self, activation: &Activation) -> Value {
        let task = self.definition.workflow.raw.pointer(&activation.pointer);
        let to = task.and_then(|task| task.pointer("/listen/to"));
        to.cloned().unwrap_or_default()
    }

    fn call(&self, id: u64, activation: &Activation, request: &Request, now: Timestamp) -> Blocker {
        let (pointer, target) = (&activation.pointer, request.target());
        let child = child_id(activation.place.message_id(&self.id, pointer));
        let (kind, what) = match request {
            Request::Workflow(_) => (BlockerKind::ChildRun, format!("run {child} of {target} to end")),
            Request::Process(_) => (BlockerKind::Process, format!("the {target} to end")),
            _ => (
                BlockerKind::Call,
                format!("{target} to answer {}", request.operation()),
            ),
        };
        let since = instant(activation.started, now);
        let mut message = format!("{pointer} waits for {what} since {since}");
        let attempt = activation.place.attempt();
        if attempt > 1 {
            message.push_str(&format!(", attempt {attempt}"));
        }
        let deadline = self.deadline_of(activation).filter(|_| !self.is_paused());
        if let Some(deadline) = deadline {
            message.push_str(&format!(", at most until {}", instant(deadline, now)));
        }
        let mut blocker = Blocker::new(kind, message)
            .with("activation", id)
            .with("attempt", attempt)
            .with("target", target)
            .with("operation", request.operation());
        if kind == BlockerKind::ChildRun {
            blocker = blocker.with("run", child);
        }
        Blocker {
            until: deadline,
            ..blocker.of(activation)
        }
    }
}

fn paused(paused: &Paused) -> Blocker {
    let message = format!(
        "is paused{} since {}; `muster workflow resume` lets it go on",
        wish(&paused.by, &paused.reason),
        muster_api::time::rfc3339(paused.since)
    );
    Blocker {
        since: Some(paused.since),
        ..Blocker::new(BlockerKind::Paused, message)
            .with("by", paused.by.as_str())
            .with("reason", paused.reason.as_str())
    }
}

fn cancelling_now(cancelling: &Cancelling) -> Blocker {
    let message = format!(
        "is being cancelled{}: what handles its errors runs",
        wish(&cancelling.by, &cancelling.reason)
    );
    Blocker {
        since: Some(cancelling.since),
        ..Blocker::new(BlockerKind::Cancelling, message)
            .with("by", cancelling.by.as_str())
            .with("reason", cancelling.reason.as_str())
    }
}

/// By whom and why, as far as it was said.
pub(super) fn wish(by: &str, reason: &str) -> String {
    let by = if by.is_empty() {
        String::new()
    } else {
        format!(" by {by}")
    };
    let reason = if reason.is_empty() {
        String::new()
    } else {
        format!(" ({reason})")
    };
    by + &reason
}

fn timer(activation: &Activation, until: Timestamp, now: Timestamp) -> Blocker {
    let message = format!("{} waits until {}", activation.pointer, instant(until, now));
    Blocker {
        until: Some(until),
        ..Blocker::new(BlockerKind::Timer, message).of(activation)
    }
}

fn retry(
    activation: &Activation,
    attempt: u32,
    due: Timestamp,
    failed: Option<&(Arc<Problem>, Timestamp)>,
    now: Timestamp,
) -> Blocker {
    let mut message = format!(
        "{} waits until {} before attempt {attempt}",
        activation.pointer,
        instant(due, now)
    );
    if let Some((error, _)) = failed {
        message.push_str(&format!("; the last one failed: {error}"));
    }
    let blocker = Blocker::new(BlockerKind::Retry, message)
        .with("attempt", attempt)
        .of(activation);
    let blocker = Blocker {
        until: Some(due),
        ..blocker
    };
    match failed {
        Some((error, time)) => Blocker {
            since: Some(*time),
            ..blocker.with("error", error.to_value())
        },
        None => blocker,
    }
}

/// An instant, and how far it is.
pub(super) fn instant(time: Timestamp, now: Timestamp) -> String {
    let seconds = time.duration_since(now).as_secs();
    let distance = if seconds >= 0 {
        format!("in {seconds} s")
    } else {
        format!("{} s ago", -seconds)
    };
    format!("{} ({distance})", muster_api::time::rfc3339(time))
}
