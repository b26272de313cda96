//! From the official executor trait to [`Agent`]: one stream of events for one message.
//!
//! The stream drives the handler itself, without a task of its own: when the official handler drops the stream, the
//! agent's handler is dropped with it, and nothing runs that nobody counts. Every way out of the handler ends in
//! events that settle the task: reply, failure, panic, timeout, an answer over the limit. Cancelling is the
//! exception: there [`AgentExecutor::cancel`] has published CANCELED already, and the stream ends without a word.

use std::any::Any;
use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use a2a::{A2AError, Message, Part, Role, StreamResponse, TaskState, TaskStatusUpdateEvent};
use a2a_server::{AgentExecutor, ExecutorContext};
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt as _, StreamExt as _};
use muster_runtime::clock::SharedClock;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::events::{self, Events};
use crate::gate::TICKET;
use crate::metrics::Meters;
use crate::running::{Run, Running};
use crate::task::Update;
use crate::task_store::is_settled;
use crate::{Agent, Card, Failure, Reply, Request, Task};

/// How long a cancelled handler may take to return before it is dropped.
const CANCEL_GRACE: Duration = Duration::from_secs(5);
/// Updates that a handler may be ahead of its subscribers.
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

/// Runs an agent for the official request handler.
pub(crate) struct Execution<A> {
    pub(crate) agent: Arc<A>,
    pub(crate) card: Arc<Card>,
    pub(crate) running: Running,
    pub(crate) limits: Limits,
    pub(crate) clock: SharedClock,
    pub(crate) meters: Meters,
}

impl<A: Agent> AgentExecutor for Execution<A> {
    fn execute(&self, context: ExecutorContext) -> BoxStream<'static, Result<StreamResponse, A2AError>> {
        let conversation = Conversation::of(&context);
        let mut events = Events::new(
            &context,
            self.limits.answer_bytes,
            Arc::clone(&self.clock),
            self.meters.clone(),
        );
        let mut queue = VecDeque::from(events.opening(&context, &conversation));
        let (live, run) = match self.start(context, conversation) {
            Ok((live, run)) => (Some(live), Some(run)),
            Err(failure) => {
                queue.extend(events.closing(Err(failure)));
                (None, None)
            }
        };
        let steps = Steps {
            queue,
            events,
            live,
            _run: run,
        };
        futures::stream::unfold(steps, |mut steps| async move {
            let event = steps.next().await?;
            // Lets subscribers read before the next event: the official broadcast holds few.
            tokio::task::yield_now().await;
            Some((Ok(event), steps))
        })
        .boxed()
    }

    fn cancel(&self, context: ExecutorContext) -> BoxStream<'static, Result<StreamResponse, A2AError>> {
        self.running.cancel(&context.task_id);
        self.meters.task_ended(&TaskState::Canceled);
        let message = Message::new(Role::Agent, vec![Part::text("cancelled by the caller")]);
        let update = TaskStatusUpdateEvent {
            status: events::status(
                &self.clock,
                TaskState::Canceled,
                Some(message),
                &context.task_id,
                &context.context_id,
            ),
            task_id: context.task_id,
            context_id: context.context_id,
            metadata: None,
        };
        futures::stream::iter([Ok(StreamResponse::StatusUpdate(update))]).boxed()
    }
}

impl<A: Agent> Execution<A> {
    fn start(&self, context: ExecutorContext, conversation: Conversation) -> Result<(Live, Run), Failure> {
        if conversation.earlier.len() >= MAX_MESSAGES {
            return Err(Failure::rejected(format!(
                "the task has {MAX_MESSAGES} messages, as many as it may; start a new task"
            )));
        }
        let request = Request::read(
            conversation.present,
            context.metadata,
            &context.service_params,
            &self.card,
        )?;
        let ticket = context
            .service_params
            .get(TICKET)
            .and_then(|keys| keys.first()?.parse().ok());
        let run = self
            .running
            .begin(ticket, &context.task_id)
            .map_err(|refusal| Failure::rejected(refusal.to_string()))?;
        let (sender, updates) = mpsc::channel(UPDATES_AHEAD);
        let task = Task {
            id: context.task_id,
            context_id: context.context_id,
            history: conversation.earlier,
            cancellation: run.cancellation().clone(),
            updates: sender,
        };
        let agent = Arc::clone(&self.agent);
        let handling = async move { agent.handle(request, task).await };
        let signals = Signals {
            cancelled: run.cancellation().clone(),
            closing: self.running.closing().clone(),
            timeout: self.limits.timeout,
        };
        let handler = signals.supervise(handling).boxed();
        Ok((Live { updates, handler }, run))
    }
}

/// What ends a handler that does not end by itself.
struct Signals {
    cancelled: CancellationToken,
    closing: CancellationToken,
    timeout: Duration,
}

impl Signals {
    /// Runs a handler to one of its ends; `None` when it was cancelled.
    async fn supervise(
        self,
        handling: impl Future<Output = Result<Reply, Failure>> + Send,
    ) -> Option<Result<Reply, Failure>> {
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

/// What was said before, and what is said now.
pub(crate) struct Conversation {
    pub(crate) earlier: Vec<Message>,
    pub(crate) present: Message,
    pub(crate) is_follow_up: bool,
}

impl Conversation {
    /// The official handler gives the stored task with the present message appended or without it, depending on
    /// the method; here both become the same. The agent's question joins the history when it is answered.
    fn of(context: &ExecutorContext) -> Self {
        let present = context
            .message
            .clone()
            .unwrap_or_else(|| Message::new(Role::User, Vec::new()));
        let stored = context.stored_task.as_ref();
        let mut earlier = stored.and_then(|task| task.history.clone()).unwrap_or_default();
        if earlier
            .last()
            .is_some_and(|last| last.message_id == present.message_id)
        {
            earlier.pop();
        }
        let is_follow_up = stored.is_some_and(|task| is_settled(&task.status.state));
        if is_follow_up {
            earlier.extend(stored.and_then(|task| task.status.message.clone()));
        }
        Self {
            earlier,
            present,
            is_follow_up,
        }
    }
}

/// The events of one execution, in order.
struct Steps {
    queue: VecDeque<StreamResponse>,
    events: Events,
    live: Option<Live>,
    /// Kept to the end of the stream: until it is dropped, the official handler takes no other message for the
    /// task, and [`Running::ended`] tells those who wait for that.
    _run: Option<Run>,
}

/// A handler at work.
struct Live {
    updates: mpsc::Receiver<Update>,
    handler: BoxFuture<'static, Option<Result<Reply, Failure>>>,
}

impl Steps {
    async fn next(&mut self) -> Option<StreamResponse> {
        loop {
            if let Some(event) = self.queue.pop_front() {
                return Some(event);
            }
            let live = self.live.as_mut()?;
            let ended = tokio::select! {
                biased;
                Some(update) = live.updates.recv() => match self.events.update(update) {
                    Ok(event) => return Some(event),
                    Err(failure) => Some(Err(failure)),
                },
                ended = &mut live.handler => ended,
            };
            self.settle(ended);
        }
    }

    /// Ends the execution: what the handler had still under way, then the result.
    fn settle(&mut self, ended: Option<Result<Reply, Failure>>) {
        let (Some(mut live), Some(mut result)) = (self.live.take(), ended) else {
            return;
        };
        live.updates.close();
        while let Ok(update) = live.updates.try_recv() {
            match self.events.update(update) {
                Ok(event) => self.queue.push_back(event),
                Err(failure) => result = Err(failure),
            }
        }
        self.queue.extend(self.events.closing(result));
    }
}
