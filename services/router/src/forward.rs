//! The core: every operation of A2A on its way from a caller to an agent and back, whatever the binding.
//!
//! The order of things for a message: check it, find out whom it is for, see whether it was answered before, wait
//! for a place, deliver it (`deliver`), keep the owner where the answer is a task, answer. Operations on a task
//! go to its owner; they have places of their own, so that a task can be read and cancelled while messages queue.
//!
//! A stream (`relay`) keeps its place and its instance until it ends; what the caller does not read is not read
//! from the agent either, and a caller who leaves cancels the call to the agent.

mod choose;
mod deliver;
mod failure;
mod relay;
mod scope;

use std::sync::Arc;
use std::time::Duration;

use futures::stream::BoxStream;
use http::HeaderMap;
use muster_api::a2a::{
    self, SendMessageRequest, SendMessageResponse, StreamResponse, TaskState, send_message_response,
};
use muster_rpc::deadline::Deadline;
use muster_rpc::retry_budget::RetryBudget;
use muster_runtime::clock::SharedClock;
use parking_lot::{Mutex, RwLock};
use prost::Message as _;
use sha2::{Digest as _, Sha256};
use tonic::Streaming;

use crate::admission::{Admission, Permit, Refused};
use crate::call::Call;
use crate::deduplication::{self, Role, Window};
use crate::error::Error;
use crate::fleet::{Key, View};
use crate::link::Links;
use crate::message;
use crate::metrics::Meters;
use crate::operation::{AboutTask, Operation, SendMessage, SendStreamingMessage, Single, SubscribeToTask};
use crate::ownership::Ownership;
pub use choose::{Chooser, Chosen};
pub use failure::{Failure, verdict_on_silence};
pub use scope::Scope;

/// Limits and preferences of the core.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Largest message that is taken.
    pub message_bytes: usize,
    /// Largest answer that is taken from an agent.
    pub answer_bytes: usize,
    /// How long a call with one answer may take when its caller does not say.
    pub default_deadline: Duration,
    /// How long any call with one answer may take.
    pub most_deadline: Duration,
    /// How long a stream may stay silent.
    pub stream_idle: Duration,
    /// Load above which others are preferred.
    pub max_load: f64,
    /// Most instances that one call tries.
    pub attempts: usize,
    /// The router's own region; empty for none.
    pub region: String,
}

/// An answer, and whose it is.
#[derive(Debug, Clone)]
pub struct Reply<M> {
    /// The answer.
    pub message: M,
    /// Who answered.
    pub instance: Key,
    /// The A2A extensions that the agent says are in use.
    pub extensions: HeaderMap,
}

impl<M> Reply<M> {
    fn map<N>(self, convert: impl FnOnce(M) -> N) -> Reply<N> {
        Reply {
            message: convert(self.message),
            instance: self.instance,
            extensions: self.extensions,
        }
    }
}

/// A stream of answers.
pub type Events = BoxStream<'static, Result<StreamResponse, Error>>;

/// When a call must have ended, and when its message must have reached an agent.
#[derive(Debug, Clone, Copy)]
struct Times {
    deadline: Option<Deadline>,
    expiry: Option<Deadline>,
}

/// The parts of a [`Forwarder`].
pub struct Parts {
    /// Limits and preferences.
    pub limits: Limits,
    /// The clock.
    pub clock: SharedClock,
    /// The fleet.
    pub view: Arc<RwLock<View>>,
    /// The ways to the instances.
    pub links: Arc<Links>,
    /// Places for messages.
    pub messages: Admission,
    /// Places for operations on tasks.
    pub operations: Admission,
    /// Answers that may be asked for again.
    pub window: Window<Reply<SendMessageResponse>>,
    /// Owners of tasks.
    pub ownership: Arc<Ownership>,
    /// How many attempts may move.
    pub budget: Mutex<RetryBudget>,
    /// What is counted.
    pub meters: Meters,
    /// A random number below its argument.
    pub random: Box<dyn Fn(usize) -> usize + Send + Sync>,
}

/// Forwards every operation of A2A.
pub struct Forwarder {
    parts: Parts,
}

impl Forwarder {
    /// A forwarder of these parts.
    #[must_use]
    pub fn new(parts: Parts) -> Arc<Self> {
        Arc::new(Self { parts })
    }

    /// The parts, for status and cards.
    #[must_use]
    pub const fn parts(&self) -> &Parts {
        &self.parts
    }

    /// Sends a message and waits for the answer; the same message is answered once.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn send_message(
        &self,
        call: &Call,
        request: SendMessageRequest,
    ) -> Result<Reply<SendMessageResponse>, Error> {
        let message = message::check(&request, self.parts.limits.message_bytes)?;
        let scope = self.scope_of_message(call, message).await?;
        let key = deduplication::Key {
            caller: call.caller.clone(),
            target: scope.name(),
            message: message.message_id.clone(),
        };
        let fingerprint = fingerprint(&request);
        let deadline = self.deadline(call);
        loop {
            match self.parts.window.enter(key.clone(), fingerprint, self.now())? {
                Role::Repeat(reply) => return Ok(Reply::clone(&reply)),
                Role::Follow(follow) => {
                    let left = deadline.remaining(self.now()).unwrap_or_default();
                    let outcome = tokio::time::timeout(left, follow.outcome()).await;
                    if let Some(outcome) = outcome.map_err(|_| exceeded("the same message sent before"))? {
                        return outcome.map(|reply| Reply::clone(&reply));
                    }
                }
                Role::Lead(lead) => {
                    let outcome = self
                        .send_once(call, &scope, &request, deadline)
                        .await
                        .map(Arc::new);
                    let bytes = outcome.as_ref().map_or(0, |reply| reply.message.encoded_len());
                    // The leader's own haste says nothing to those who wait longer: they take over.
                    if !matches!(
                        outcome,
                        Err(Error::DeadlineExceeded { .. } | Error::Expired { .. })
                    ) {
                        lead.report(outcome.clone(), bytes, self.now());
                    }
                    return outcome.map(|reply| Reply::clone(&reply));
                }
            }
        }
    }

    async fn send_once(
        &self,
        call: &Call,
        scope: &Scope,
        request: &SendMessageRequest,
        deadline: Deadline,
    ) -> Result<Reply<SendMessageResponse>, Error> {
        let times = Times {
            deadline: Some(deadline),
            expiry: call.expiry(),
        };
        let _permit = self.place(&self.parts.messages, call, times).await?;
        let (reply, _) = self.deliver::<SendMessage>(call, scope, request, times).await?;
        let reply = reply.map(|Single(answer)| answer);
        match &reply.message.payload {
            Some(send_message_response::Payload::Task(task)) => {
                let state = task.status.as_ref().map(|status| status.state());
                let has_ended = matches!(
                    state,
                    Some(
                        TaskState::Completed | TaskState::Failed | TaskState::Canceled | TaskState::Rejected
                    )
                );
                self.own(&task.id, &reply.instance, has_ended).await?;
            }
            Some(send_message_response::Payload::Message(_)) => {}
            None => return Err(empty_answer(&reply.instance)),
        }
        Ok(reply)
    }

    /// Sends a message and follows the answer.
    ///
    /// # Errors
    /// See [`Error`]; what goes wrong once the stream has begun is its last item.
    pub async fn send_streaming_message(
        self: &Arc<Self>,
        call: &Call,
        request: SendMessageRequest,
    ) -> Result<Reply<Events>, Error> {
        let message = message::check(&request, self.parts.limits.message_bytes)?;
        let scope = self.scope_of_message(call, message).await?;
        self.stream::<SendStreamingMessage>(&self.parts.messages, call, &scope, &request)
            .await
    }

    /// Follows a task.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn subscribe(
        self: &Arc<Self>,
        call: &Call,
        request: a2a::SubscribeToTaskRequest,
    ) -> Result<Reply<Events>, Error> {
        let scope = self.scope_of_task(call, &request).await?;
        self.stream::<SubscribeToTask>(&self.parts.operations, call, &scope, &request)
            .await
    }

    /// Does an operation on a task, at its owner.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn on_task<O, M>(&self, call: &Call, request: O::Request) -> Result<Reply<M>, Error>
    where
        O: Operation<Answer = Single<M>, Request: AboutTask>,
        M: prost::Message + Default + 'static,
    {
        let scope = self.scope_of_task(call, &request).await?;
        self.single::<O, M>(call, &scope, &request).await
    }

    /// Does an operation at the target.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn at_target<O, M>(&self, call: &Call, request: O::Request) -> Result<Reply<M>, Error>
    where
        O: Operation<Answer = Single<M>>,
        M: prost::Message + Default + 'static,
    {
        let scope = self.scope_of_target(call)?;
        self.single::<O, M>(call, &scope, &request).await
    }

    async fn single<O, M>(&self, call: &Call, scope: &Scope, request: &O::Request) -> Result<Reply<M>, Error>
    where
        O: Operation<Answer = Single<M>>,
        M: prost::Message + Default + 'static,
    {
        let times = Times {
            deadline: Some(self.deadline(call)),
            expiry: call.expiry(),
        };
        let _permit = self.place(&self.parts.operations, call, times).await?;
        let (reply, _) = self.deliver::<O>(call, scope, request, times).await?;
        Ok(reply.map(|Single(answer)| answer))
    }

    async fn stream<O>(
        self: &Arc<Self>,
        places: &Admission,
        call: &Call,
        scope: &Scope,
        request: &O::Request,
    ) -> Result<Reply<Events>, Error>
    where
        O: Operation<Answer = Streaming<StreamResponse>>,
    {
        let times = Times {
            deadline: call.deadline,
            expiry: call.expiry(),
        };
        let permit = self.place(places, call, times).await?;
        let (reply, flight) = self.deliver::<O>(call, scope, request, times).await?;
        let instance = reply.instance.clone();
        Ok(reply.map(|inbound| relay::events(self, inbound, instance, flight, permit, times.deadline)))
    }

    /// The task's owner is durable before its caller hears of it, or soon if the task has ended.
    async fn own(&self, task: &str, instance: &Key, has_ended: bool) -> Result<(), Error> {
        if task.is_empty() {
            return Err(Error::InvalidAnswer {
                agent: instance.agent.clone(),
                detail: "a task without an id".to_owned(),
            });
        }
        let (ownership, now) = (&self.parts.ownership, self.parts.clock.now());
        if has_ended {
            ownership.record_ended(task, instance, now).await
        } else {
            ownership.record(task, instance, now).await
        }
    }

    /// Waits for a place, no longer than the deadline and the time to live allow.
    async fn place(&self, places: &Admission, call: &Call, times: Times) -> Result<Permit, Error> {
        let now = self.now();
        let left = |limit: Option<Deadline>| match limit {
            Some(limit) => limit.remaining(now).unwrap_or_default(),
            None => Duration::MAX,
        };
        let patience = left(times.deadline)
            .min(left(times.expiry))
            .min(self.parts.limits.most_deadline);
        let entered = places.enter(call.routing.priority, patience).await;
        entered.map_err(|refused| match refused {
            Refused::Full(waiting) => Error::QueueFull { waiting },
            Refused::TimedOut if left(times.expiry) <= patience => expired(call, "in the queue"),
            Refused::TimedOut => exceeded("waiting in the queue"),
        })
    }

    fn deadline(&self, call: &Call) -> Deadline {
        call.deadline_or(
            self.parts.limits.default_deadline,
            self.parts.limits.most_deadline,
        )
    }

    fn now(&self) -> Duration {
        self.parts.clock.monotonic()
    }
}

fn fingerprint(request: &SendMessageRequest) -> deduplication::Fingerprint {
    let body = SendMessageRequest {
        tenant: String::new(),
        ..request.clone()
    };
    Sha256::digest(body.encode_to_vec()).into()
}

fn exceeded(what: &str) -> Error {
    Error::DeadlineExceeded {
        what: what.to_owned(),
    }
}

fn expired(call: &Call, place: &'static str) -> Error {
    Error::Expired {
        ttl_seconds: call.routing.ttl.unwrap_or_default().as_secs_f64(),
        place,
    }
}

fn empty_answer(instance: &Key) -> Error {
    Error::InvalidAnswer {
        agent: instance.agent.clone(),
        detail: "neither a task nor a message".to_owned(),
    }
}
