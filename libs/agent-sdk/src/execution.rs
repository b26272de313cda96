//! One message at work: the agent's handler, watched until the task is settled.
//!
//! An execution is a task of the runtime of its own; callers come and go without it. Every way out of the handler ends in events
//! that settle the task: reply, failure, panic, timeout, an answer over the limit. Cancelling is the exception: there the
//! task has been settled already, and what the handler still says is dropped.

use std::any::Any;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use a2a_pb::pbconv;
use a2a_pb::proto as pb;
use futures::FutureExt as _;
use muster_runtime::clock::SharedClock;
use muster_runtime::trace::{self, FutureExt as _, Kind, Span, Subject, TraceContextExt as _, Tracer};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::events::Events;
use crate::metrics::Meters;
use crate::running::{Run, Running};
use crate::task::Update;
use crate::tasks::Tasks;
use crate::tasks::record::Errand;
use crate::{Agent, Card, Failure, Reply, Request, Task};

/// How long a cancelled handler may take to return before it is dropped.
const CANCEL_GRACE: Duration = Duration::from_secs(5);
/// Updates that a handler may be ahead of its task.
const UPDATES_AHEAD: usize = 4;
/// Most messages of one task.
const MAX_MESSAGES: usize = 100;

/// Bounds of one execution.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Largest answer: all artifacts together.
    pub(crate) answer_bytes: usize,
    /// Longest time of a handler.
    pub(crate) timeout: Duration,
}

/// Runs an agent's handler.
pub(crate) struct Executor<A> {
    pub(crate) agent: Arc<A>,
    pub(crate) card: Arc<Card>,
    pub(crate) tasks: Tasks,
    pub(crate) running: Running,
    pub(crate) limits: Limits,
    pub(crate) clock: SharedClock,
    pub(crate) meters: Meters,
    pub(crate) tracer: Tracer,
}

/// What is to be done.
pub(crate) struct Work {
    pub(crate) task_id: String,
    pub(crate) context_id: String,
    /// The context's name among those of all callers.
    pub(crate) conversation: String,
    /// What was said on the task before, oldest first.
    pub(crate) earlier: Vec<pb::Message>,
    /// What is said now.
    pub(crate) message: pb::Message,
    pub(crate) errand: Errand,
    /// The caller's wish.
    pub(crate) cancellation: CancellationToken,
    /// Whether the task says already that it is at work.
    pub(crate) is_follow_up: bool,
}

impl<A: Agent> Executor<A> {
    /// Starts working; the place is kept until the end.
    #[expect(
        clippy::disallowed_methods,
        reason = "it is counted by its place, and settles its task however it ends"
    )]
    pub(crate) fn start(self: &Arc<Self>, work: Work, run: Run) {
        let executor = Arc::clone(self);
        tokio::spawn(async move {
            let abandoned = Abandoned {
                tasks: executor.tasks.clone(),
                events: Some(executor.events(&work.task_id, &work.context_id)),
                task_id: work.task_id.clone(),
            };
            executor.work_traced(work).await;
            // Settled before its place is free, so that who is let in next finds the task as it ends.
            abandoned.disarm();
            drop(run);
        });
    }

    /// Makes the events of a task.
    pub(crate) fn events(&self, task_id: &str, context_id: &str) -> Events {
        Events::new(
            task_id,
            context_id,
            self.limits.answer_bytes,
            Arc::clone(&self.clock),
            self.meters.clone(),
        )
    }

    /// Works within a span, and with logs that say what they are about.
    async fn work_traced(&self, work: Work) {
        let started = self.clock.monotonic();
        let agent = self.card.id();
        let mut span = if self.tracer.is_on() {
            let state = Some(work.errand.tracestate.as_str()).filter(|state| !state.is_empty());
            let asked_within = trace::parsed(&work.errand.traceparent, state);
            self.tracer
                .within(&asked_within, Kind::Internal, || format!("invoke_agent {agent}"))
        } else {
            Span::default()
        };
        if span.is_recorded() {
            span.set("gen_ai.operation.name", "invoke_agent");
            span.set("gen_ai.agent.id", agent.to_owned());
            span.set("gen_ai.agent.name", self.card.name.clone());
            span.set("gen_ai.agent.version", self.card.version.clone());
            span.set("gen_ai.conversation.id", work.context_id.clone());
            span.set("muster.task.id", work.task_id.clone());
            if !work.errand.skill.is_empty() {
                span.set("muster.skill.id", work.errand.skill.clone());
            }
            if work.errand.attempts > 0 {
                span.set("muster.retry.count", i64::from(work.errand.attempts));
            }
        }
        let subject = trace::about(Subject {
            agent: Some(Arc::from(agent)),
            task: Some(Arc::from(work.task_id.as_str())),
            run: None,
        });
        let context = match span.place() {
            Some(place) => subject.with_remote_span_context(place.clone()),
            None => subject,
        };
        let failure = self.work(work).with_context(context).await;
        if let Some(failure) = failure {
            span.fail("task_failed", &failure);
        }
        self.meters.worked(self.clock.monotonic().saturating_sub(started));
    }

    /// Works; what it failed of, if it did.
    async fn work(&self, work: Work) -> Option<String> {
        let mut events = self.events(&work.task_id, &work.context_id);
        let id = work.task_id.clone();
        tracing::debug!(follow_up = work.is_follow_up, "a message is worked on");
        if !work.is_follow_up {
            self.tasks.publish(&id, events.working());
        }
        let result = match self.prepare(work) {
            Ok(live) => live.follow(&self.tasks, &id, &mut events).await,
            Err(failure) => Some(Err(failure)),
        };
        let result = result?;
        let failure = result.as_ref().err().map(ToString::to_string);
        tracing::debug!(failure, "a message was worked on");
        let closing = events.closing(result);
        self.tasks.settle(&id, closing).await;
        failure
    }

    fn prepare(&self, work: Work) -> Result<Live<impl Future<Output = Ended> + use<A>>, Failure> {
        if work.earlier.len() >= MAX_MESSAGES {
            return Err(Failure::rejected(format!(
                "the task has {MAX_MESSAGES} messages, as many as it may; start a new task"
            )));
        }
        let request = Request::read(
            pbconv::from_proto_message(&work.message),
            work.errand.metadata.as_ref().map(pbconv::from_proto_struct),
            &work.errand,
            &self.card,
        )?;
        let (sender, updates) = mpsc::channel(UPDATES_AHEAD);
        let task = Task {
            id: work.task_id,
            context_id: work.context_id,
            conversation: work.conversation,
            history: work.earlier.iter().map(pbconv::from_proto_message).collect(),
            cancellation: work.cancellation.clone(),
            updates: sender,
        };
        let agent = Arc::clone(&self.agent);
        let handling = async move { agent.handle(request, task).await };
        let signals = Signals {
            cancelled: work.cancellation,
            closing: self.running.closing().clone(),
            timeout: self.limits.timeout,
        };
        Ok(Live {
            updates,
            handler: signals.supervise(handling),
        })
    }
}

/// How a handler ended; `None` when it was cancelled.
type Ended = Option<Result<Reply, Failure>>;

/// Settles the task where the execution itself breaks off: a defect of ours must not leave a task at work for ever.
struct Abandoned {
    tasks: Tasks,
    events: Option<Events>,
    task_id: String,
}

impl Abandoned {
    fn disarm(mut self) {
        self.events = None;
    }
}

impl Drop for Abandoned {
    fn drop(&mut self) {
        if let Some(mut events) = self.events.take() {
            let failure = Failure::failed("the agent failed unexpectedly; its log says more");
            self.tasks.abandon(&self.task_id, events.closing(Err(failure)));
        }
    }
}

/// What ends a handler that does not end by itself.
struct Signals {
    cancelled: CancellationToken,
    closing: CancellationToken,
    timeout: Duration,
}

impl Signals {
    /// Runs a handler to one of its ends.
    async fn supervise(self, handling: impl Future<Output = Result<Reply, Failure>> + Send) -> Ended {
        let overdue = async {
            self.cancelled.cancelled().await;
            tokio::time::sleep(CANCEL_GRACE).await;
        };
        let result = tokio::select! {
            biased;
            result = AssertUnwindSafe(handling).catch_unwind() => result.unwrap_or_else(|panic| {
                tracing::error!(panic = panic_text(panic.as_ref()), "the agent's handler panicked");
                Err(Failure::failed("the agent failed unexpectedly; its log says more"))
            }),
            () = overdue => return None,
            () = self.closing.cancelled() => {
                Err(Failure::failed("the agent shuts down before the task is done; send it again"))
            }
            () = tokio::time::sleep(self.timeout) => Err(Failure::failed(format!(
                "the task took longer than {} s (`agent.task_timeout_seconds`)",
                self.timeout.as_secs()
            ))),
        };
        (!self.cancelled.is_cancelled()).then_some(result)
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no text")
}

/// A handler at work.
struct Live<F> {
    updates: mpsc::Receiver<Update>,
    handler: F,
}

impl<F: Future<Output = Ended>> Live<F> {
    /// Publishes what the handler says until it ends.
    async fn follow(self, tasks: &Tasks, id: &str, events: &mut Events) -> Ended {
        let Self { mut updates, handler } = self;
        tokio::pin!(handler);
        let mut ended = loop {
            tokio::select! {
                biased;
                Some(update) = updates.recv() => match events.update(update) {
                    Ok(event) => tasks.publish(id, event),
                    Err(failure) => return Some(Err(failure)),
                },
                ended = &mut handler => break ended,
            }
        };
        // What it had still under way.
        updates.close();
        while let Ok(update) = updates.try_recv() {
            match events.update(update) {
                Ok(event) => tasks.publish(id, event),
                Err(failure) => ended = ended.map(|_| Err(failure)),
            }
        }
        ended
    }
}
