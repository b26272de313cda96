//! The core: every operation of A2A on its way from a caller to an agent and back, whatever the binding.
//!
//! The order of things for a message: check it, find out whom it is for, see whether it was answered before (`once`, where
//! the caller wants to rely on that), wait for a place, deliver it (`deliver`), keep the owner where the answer is a task, answer. Operations on a task
//! go to its owner; they have places of their own, so that a task can be read and cancelled while messages queue.
//!
//! A message with one answer goes on when its caller leaves (`leading`): an agent that has begun goes on, too, and who sends it
//! again gets what came of it.
//!
//! A stream (`relay`) keeps its place and its instance until it ends; what the caller does not read is not read
//! from the agent either, and a caller who leaves cancels the call to the agent.
//!
//! Messages go through as the bytes that they came in ([`crate::peek`]): only the tenant is another on the other side.
//! Bindings that have decoded messages (JSON) encode them first and decode the answer: one core for all, at the price of
//! a second walk where JSON is parsed anyway.

mod choose;
mod deliver;
mod failure;
mod leading;
mod list;
mod once;
mod relay;
mod scope;
mod search;
mod traced;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::BoxStream;
use http::HeaderMap;
use muster_api::a2a::{self, SendMessageRequest, SendMessageResponse, StreamResponse};
use muster_rpc::deadline::Deadline;
use muster_rpc::retry_budget::RetryBudget;
use muster_runtime::clock::SharedClock;
use muster_runtime::trace::Tracer;
use muster_runtime::trust::Access;
use parking_lot::{Mutex, RwLock};
use prost::Message as _;
use sha2::{Digest as _, Sha256};

use crate::admission::{self, Admission, Permit};
use crate::balance::Preferences;
use crate::call::Call;
use crate::cards::Front;
use crate::credentials::Credentials;
use crate::deduplication::{self, Role, Window};
use crate::durable::Durable;
use crate::error::Error;
use crate::fleet::{Key, View};
use crate::flow::Flow;
use crate::link::Links;
use crate::message;
use crate::metrics::Meters;
use crate::operation::{
    GetExtendedAgentCard, ListTasks, Method, Operation, SendMessage, SendStreamingMessage, Single,
    SubscribeToTask,
};
use crate::ownership::Ownership;
use crate::peek::{self, Asked, Encoded, Held, Sent};
use crate::quota::Quotas;
use crate::rate;
use crate::regions::Regions;
use crate::target::Target;
pub use choose::{Chooser, Chosen, IsSpent};
use deliver::Delivery;
pub use failure::{Failure, finds_too_large};
use leading::Way;
use relay::{Relay, Streams};
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
    /// How long a caller may leave an event of a stream unread.
    pub stream_stall: Duration,
    /// What instances are chosen by.
    pub preferences: Preferences,
    /// After how long without an answer a call that may be done twice is sent to a second instance as well; `None`: never.
    pub hedge_after: Option<Duration>,
    /// Most instances that one call tries.
    pub attempts: usize,
    /// How near regions are.
    pub regions: Regions,
}

/// An answer, and whose it is.
#[derive(Debug, Clone)]
pub struct Reply<M> {
    /// The answer.
    pub message: M,
    /// Who answered.
    pub instance: Arc<Key>,
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

impl Reply<Bytes> {
    /// The answer decoded.
    fn decode<M: prost::Message + Default>(self) -> Result<Reply<M>, Error> {
        let message = decode(&self.message, &self.instance)?;
        Ok(self.map(|_| message))
    }
}

impl Reply<EncodedEvents> {
    /// The events decoded.
    fn decode_events(self) -> Reply<Events> {
        let instance = Arc::clone(&self.instance);
        self.map(|events| {
            events
                .map(move |event| event.and_then(|event| decode(&event, &instance)))
                .boxed()
        })
    }
}

/// What is passed on is as the decoder wants it, so that this does not fail.
fn decode<M: prost::Message + Default>(bytes: &Bytes, instance: &Key) -> Result<M, Error> {
    M::decode(bytes.as_ref()).map_err(|error| Error::InvalidAnswer {
        agent: instance.agent.clone(),
        detail: error.to_string(),
    })
}

/// A stream of answers.
pub type Events = BoxStream<'static, Result<StreamResponse, Error>>;

/// A stream of encoded answers.
pub type EncodedEvents = BoxStream<'static, Result<Bytes, Error>>;

/// When a call must have ended, and when its message must have reached an agent.
#[derive(Debug, Clone, Copy)]
struct Times {
    deadline: Option<Deadline>,
    expiry: Option<Deadline>,
}

impl Times {
    fn of_message(call: &Call, deadline: Deadline) -> Self {
        Self {
            deadline: Some(deadline),
            expiry: call.expiry(),
        }
    }

    /// A stream may last for as long as its caller likes.
    fn of_stream(call: &Call) -> Self {
        Self {
            deadline: call.deadline,
            expiry: call.expiry(),
        }
    }
}

/// What a stream holds from before it begins.
enum Start {
    Message(Chosen),
    Operation(Permit),
}

/// The parts of a [`Forwarder`].
pub struct Parts {
    /// What cards say of the router.
    pub front: Front,
    /// Limits and preferences.
    pub limits: Limits,
    /// The clock.
    pub clock: SharedClock,
    /// The fleet.
    pub view: Arc<RwLock<View>>,
    /// The ways to the instances.
    pub links: Arc<Links>,
    /// What their cards ask for from who calls them.
    pub credentials: Credentials,
    /// Requests that each caller may make.
    pub callers: rate::Callers,
    /// Messages that each agent takes in a minute.
    pub quotas: Quotas,
    /// Places for messages, and who waits for them.
    pub flow: Arc<Flow>,
    /// Places for operations on tasks.
    pub operations: Admission,
    /// Answers that may be asked for again.
    pub window: Arc<Window<Reply<Bytes>>>,
    /// Answers that outlive the process, for those who ask for that.
    pub durable: Arc<Durable>,
    /// Owners of tasks.
    pub ownership: Arc<Ownership>,
    /// How many attempts may move.
    pub budget: Mutex<RetryBudget>,
    /// What is counted.
    pub meters: Meters,
    /// What is traced.
    pub tracer: Tracer,
    /// A random number below its argument.
    pub random: Box<dyn Fn(usize) -> usize + Send + Sync>,
}

/// Forwards every operation of A2A.
pub struct Forwarder {
    parts: Parts,
    streams: Streams,
}

impl Forwarder {
    /// A forwarder of these parts.
    #[must_use]
    pub fn new(parts: Parts) -> Arc<Self> {
        Arc::new(Self {
            parts,
            streams: Streams::default(),
        })
    }

    /// The parts, for status and cards.
    #[must_use]
    pub const fn parts(&self) -> &Parts {
        &self.parts
    }

    /// Takes a request of a caller's, once it comes in. What the router does by itself, such as delivering the inbox, is not
    /// charged again.
    ///
    /// # Errors
    /// It has made as many as it may.
    pub async fn charge(&self, access: &Access) -> Result<(), Error> {
        self.parts.callers.charge(access).await
    }

    /// Sends a message and waits for the answer; the same message is answered once.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn send_message(
        self: &Arc<Self>,
        call: Call,
        request: SendMessageRequest,
    ) -> Result<Reply<SendMessageResponse>, Error> {
        self.send(call, Sent::read(encode(&request))?).await?.decode()
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
        let reply = self.send_and_follow(call, Sent::read(encode(&request))?).await?;
        Ok(reply.decode_events())
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
        let method = SubscribeToTask::METHOD;
        let asked = Asked::read(method, encode(&request))?;
        Ok(self.follow(method, call, asked).await?.decode_events())
    }

    /// Does an operation with one answer: at the owner of its task, or at the target where it is about none.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn single<O, M>(&self, call: &Call, request: O::Request) -> Result<Reply<M>, Error>
    where
        O: Operation<Answer = Single<M>>,
        M: prost::Message + Default + 'static,
    {
        let asked = Asked::read(O::METHOD, encode(&request))?;
        self.ask(O::METHOD, call, asked).await?.decode()
    }

    /// [`Self::send_message`] for who has the request encoded.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn send(self: &Arc<Self>, call: Call, request: Sent) -> Result<Reply<Bytes>, Error> {
        let message = message::check(&request, self.parts.limits.message_bytes)?;
        let scope = self.scope_of_message(&call, message).await?;
        let key = Arc::new(message_key(&call, &scope, message));
        let fingerprint = fingerprint(&request);
        let deadline = self.deadline(&call);
        loop {
            match self.parts.window.enter(&key, fingerprint, self.now())? {
                Role::Repeat(reply) => return Ok(Reply::clone(&reply)),
                Role::Follow(follow) => {
                    let left = deadline.remaining(self.now()).unwrap_or_default();
                    let outcome = tokio::time::timeout(left, follow.outcome()).await;
                    if let Some(outcome) = outcome.map_err(|_| exceeded("the same message sent before"))? {
                        return outcome.map(|reply| Reply::clone(&reply));
                    }
                }
                Role::Lead(lead) if call.routing.durable => {
                    let way = Arc::new(Way::of(&lead));
                    let sent = self.send_durably(&call, &scope, &request, &key, deadline, &way);
                    return match Box::pin(sent).await {
                        // The next one asks for the task again; so do those who wait.
                        Ok((reply, false)) => Ok(reply),
                        sent => {
                            let outcome = sent.map(|(reply, _)| reply);
                            self.conclude(lead, &way, &outcome);
                            outcome
                        }
                    };
                }
                Role::Lead(lead) => return self.lead(call, scope, request, deadline, lead).await,
            }
        }
    }

    async fn send_once(
        &self,
        call: &Call,
        scope: &Scope,
        request: &Sent,
        deadline: Deadline,
        way: &Way,
    ) -> Result<Reply<Bytes>, Error> {
        let times = Times::of_message(call, deadline);
        let method = SendMessage::METHOD;
        let first = self
            .admit(method, call, scope, request.context(), way.before(), times)
            .await?;
        self.send_to(call, scope, request, times, first, way).await
    }

    /// Sends a message whose first place is taken.
    async fn send_to(
        &self,
        call: &Call,
        scope: &Scope,
        request: &Sent,
        times: Times,
        first: Chosen,
        way: &Way,
    ) -> Result<Reply<Bytes>, Error> {
        let delivery = Delivery::new(SendMessage::METHOD, call, scope, &request.encoded, times);
        let delivered = self.deliver_single(&delivery, Some(first)).await;
        way.has_gone(delivery.unsettled.into_inner());
        let (reply, held) = delivered?;
        match held {
            Held::Task { id, has_ended } => {
                let caller = scope.begun_by().unwrap_or(&call.caller);
                self.own(&id, &reply.instance, caller, has_ended).await?;
            }
            Held::Other => {}
            Held::Nothing => return Err(empty_answer(&reply.instance)),
        }
        Ok(reply)
    }

    /// [`Self::send_streaming_message`] for who has the request encoded.
    ///
    /// # Errors
    /// See [`Error`]; what goes wrong once the stream has begun is its last item.
    pub async fn send_and_follow(
        self: &Arc<Self>,
        call: &Call,
        request: Sent,
    ) -> Result<Reply<EncodedEvents>, Error> {
        let message = message::check(&request, self.parts.limits.message_bytes)?;
        let scope = self.scope_of_message(call, message).await?;
        if call.routing.durable {
            let key = message_key(call, &scope, message);
            return Box::pin(self.stream_durably(call, &scope, &request, &key)).await;
        }
        self.begin_stream(call, &scope, &request).await
    }

    /// A message's stream, once it has a place.
    async fn begin_stream(
        self: &Arc<Self>,
        call: &Call,
        scope: &Scope,
        request: &Sent,
    ) -> Result<Reply<EncodedEvents>, Error> {
        let times = Times::of_stream(call);
        let method = SendStreamingMessage::METHOD;
        let first = self
            .admit(method, call, scope, request.context(), None, times)
            .await?;
        self.stream(
            method,
            Start::Message(first),
            call,
            scope,
            &request.encoded,
            times,
        )
        .await
    }

    /// [`Self::subscribe`] for who has the request encoded.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn follow(
        self: &Arc<Self>,
        method: &'static Method,
        call: &Call,
        request: Asked,
    ) -> Result<Reply<EncodedEvents>, Error> {
        let scope = self.scope_of(method, call, &request).await?;
        self.follow_at(method, call, &scope, &request.encoded).await
    }

    async fn follow_at(
        self: &Arc<Self>,
        method: &'static Method,
        call: &Call,
        scope: &Scope,
        request: &Encoded,
    ) -> Result<Reply<EncodedEvents>, Error> {
        let times = Times::of_stream(call);
        let permit = self.place(call, times).await?;
        self.stream(method, Start::Operation(permit), call, scope, request, times)
            .await
    }

    /// Does an operation with one answer at the owner of its task, or at the target where it is about none, for who has
    /// the request encoded.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn ask(
        &self,
        method: &'static Method,
        call: &Call,
        request: Asked,
    ) -> Result<Reply<Bytes>, Error> {
        let scope = self.scope_of(method, call, &request).await?;
        let times = Times {
            deadline: Some(self.deadline(call)),
            expiry: call.expiry(),
        };
        let _permit = self.place(call, times).await?;
        if *method == *ListTasks::METHOD
            && let Some(listing) = self.listing(call, &scope, &request.encoded)?
        {
            return self.list(call, &scope, listing, times).await;
        }
        let delivery = Delivery::new(method, call, &scope, &request.encoded, times);
        let (reply, _) = self.deliver_single(&delivery, None).await?;
        if *method == *ListTasks::METHOD {
            return self.own_page(call, reply).await;
        }
        if *method == *GetExtendedAgentCard::METHOD {
            return self.own_card(call, reply);
        }
        Ok(reply)
    }

    /// An agent's extended card, with this router as the way in: the agent's addresses are for those who route to it.
    fn own_card(&self, call: &Call, reply: Reply<Bytes>) -> Result<Reply<Bytes>, Error> {
        let agent = reply.instance.agent.clone();
        let target = call
            .target
            .clone()
            .unwrap_or_else(|| Target::Agent(agent.clone()));
        let Reply { message, .. } = &reply;
        let card = decode(message, &reply.instance)?;
        let front = &self.parts.front;
        let card = front.signed(front.through_router(card, &target));
        let card = card.map_err(|detail| Error::InvalidAnswer { agent, detail })?;
        Ok(reply.map(|_| encode(&card)))
    }

    async fn stream(
        self: &Arc<Self>,
        method: &'static Method,
        start: Start,
        call: &Call,
        scope: &Scope,
        request: &Encoded,
        times: Times,
    ) -> Result<Reply<EncodedEvents>, Error> {
        let (first, permit) = match start {
            Start::Message(first) => (Some(first), None),
            Start::Operation(permit) => (None, Some(permit)),
        };
        let (reply, flight) = self
            .deliver_stream(method, call, scope, request, times, first)
            .await?;
        let instance = Arc::clone(&reply.instance);
        let caller = scope.begun_by().unwrap_or(&call.caller).to_owned();
        Ok(reply.map(|inbound| {
            let of = relay::Of {
                method,
                instance,
                caller,
            };
            let relay = Relay::new(self, of, inbound, flight, permit, times.deadline);
            relay::events(relay)
        }))
    }

    /// The task's owner is durable before its caller hears of it, or soon if the task has ended.
    async fn own(&self, task: &str, instance: &Key, caller: &str, has_ended: bool) -> Result<(), Error> {
        if task.is_empty() {
            return Err(Error::InvalidAnswer {
                agent: instance.agent.clone(),
                detail: "a task without an id".to_owned(),
            });
        }
        let (ownership, now) = (&self.parts.ownership, self.parts.clock.now());
        if has_ended {
            ownership.record_ended(task, instance, caller, now).await
        } else {
            ownership.record(task, instance, caller, now).await
        }
    }

    /// Waits for a place for an operation, no longer than the deadline and the time to live allow.
    async fn place(&self, call: &Call, times: Times) -> Result<Permit, Error> {
        let patience = self.patience(times);
        let entered = self.parts.operations.enter(call.routing.priority, patience).await;
        entered.map_err(|refused| match refused {
            admission::Refused::Full(waiting) => Error::QueueFull { waiting },
            admission::Refused::TimedOut => self.waited_too_long(call, times),
        })
    }

    fn patience(&self, times: Times) -> Duration {
        let now = self.now();
        let left = |limit: Option<Deadline>| match limit {
            Some(limit) => limit.remaining(now).unwrap_or_default(),
            None => Duration::MAX,
        };
        left(times.deadline)
            .min(left(times.expiry))
            .min(self.parts.limits.most_deadline)
    }

    fn waited_too_long(&self, call: &Call, times: Times) -> Error {
        match times.expiry {
            Some(expiry) if expiry.remaining(self.now()).is_none() => expired(call, "in the queue"),
            _ => exceeded("waiting in the queue"),
        }
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

fn message_key(call: &Call, scope: &Scope, message: &peek::Message) -> deduplication::Key {
    deduplication::Key {
        caller: call.caller.clone(),
        target: scope.name(),
        message: message.message_id.clone(),
    }
}

fn encode(request: &impl prost::Message) -> Bytes {
    request.encode_to_vec().into()
}

/// A hash of all but the tenant, which may name the same target in different ways. SHA-256, for which processors have
/// instructions: about a microsecond for a kilobyte, where a call takes some hundred.
///
/// The entries of a map come in any order, another one each time in some languages. So a message with maps is hashed as it is
/// encoded here, where they are sorted, together with its length, by which most fields differ that are not known here.
#[must_use]
pub fn fingerprint(request: &Sent) -> deduplication::Fingerprint {
    let mut hash = Sha256::new();
    let pieces = request.encoded.with_tenant("").0;
    if request.has_maps
        && let bytes = Bytes::from(pieces.concat())
        && let Ok(known) = SendMessageRequest::decode(bytes.clone())
    {
        hash.update(bytes.len().to_be_bytes());
        hash.update(known.encode_to_vec());
    } else {
        for piece in &pieces {
            hash.update(piece);
        }
    }
    hash.finalize().into()
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
