//! A stream on its way from an agent to a caller, event by event.
//!
//! The next event is fetched when the caller asks for it, so a slow caller slows the agent down and not the
//! router's memory up. Dropping the stream cancels the call to the agent, frees the place, and is no verdict on the
//! instance. A stream that has begun is never moved to another instance: the caller has seen part of it.
//!
//! A caller who asks for nothing any more, and does not leave either, would keep its place and the agent's for ever: no
//! time that the agent takes runs out while nobody waits for it. So between two events the relay lies where it can be taken
//! away, and all of them are looked at now and then ([`Forwarder::end_stalled`]). Rejected: a task that pumps events into a channel
//! with a limit on its sending, which costs every event of every stream a switch of tasks; a task with a timer for each stream, when
//! most end within milliseconds; a timer that is looked at when the stream is polled, which is not polled while hyper waits for room
//! in the caller's window.

use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream;
use muster_rpc::deadline::Deadline;
use muster_runtime::clock::SharedClock;
use parking_lot::Mutex;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use super::failure::Failure;
use super::{EncodedEvents, Forwarder, empty_answer, exceeded};
use crate::admission::Permit;
use crate::bridge::Inbound;
use crate::error::Error;
use crate::fleet::Key;
use crate::link::Flight;
use crate::measure::Verdict;
use crate::operation::Method;
use crate::peek::Held;

/// How often streams are looked at.
const OFTENEST: Duration = Duration::from_millis(50);
const SELDOMEST: Duration = Duration::from_secs(1);

/// The agent's side of a stream, and what it holds until it ends.
pub(super) struct Relay {
    forwarder: Arc<Forwarder>,
    method: &'static Method,
    inbound: Inbound,
    instance: Arc<Key>,
    /// On whose behalf its task is.
    caller: String,
    /// Resolves when the instance is lost.
    lost: CancellationToken,
    /// `None` once the verdict is given.
    flight: Option<Flight>,
    /// The task whose owner is kept already.
    owned: Option<String>,
    deadline: Option<Deadline>,
    /// Of a stream that is no message's.
    _permit: Option<Permit>,
}

/// What a relay is of.
pub(super) struct Of {
    /// The operation.
    pub(super) method: &'static Method,
    /// Who answers.
    pub(super) instance: Arc<Key>,
    /// On whose behalf its task is.
    pub(super) caller: String,
}

/// What becomes of a relay between two events.
enum Rest {
    /// The caller has its last event and has not asked for another since.
    Since(Duration, Box<Relay>),
    /// The caller waits for an event.
    Awaited,
    /// The caller asked for nothing for too long.
    GivenUp,
}

/// The caller's side of a stream.
struct Caller {
    rest: Arc<Mutex<Rest>>,
    clock: SharedClock,
    stall: Duration,
}

/// The streams that are under way. Those that have ended go when all are looked at.
#[derive(Default)]
pub(super) struct Streams(Mutex<Vec<Weak<Mutex<Rest>>>>);

impl Streams {
    fn add(&self, rest: &Arc<Mutex<Rest>>) {
        self.0.lock().push(Arc::downgrade(rest));
    }

    /// Takes away the relays whose callers have asked for nothing for so long. What they hold takes locks of others as it goes.
    fn give_up(&self, stall: Duration, now: Duration) -> Vec<Rest> {
        let streams: Vec<_> = {
            let mut all = self.0.lock();
            all.retain(|stream| stream.strong_count() > 0);
            all.iter().filter_map(Weak::upgrade).collect()
        };
        let mut given_up = Vec::new();
        for rest in streams {
            let mut rest = rest.lock();
            if matches!(&*rest, Rest::Since(since, _) if now.saturating_sub(*since) >= stall) {
                given_up.push(std::mem::replace(&mut *rest, Rest::GivenUp));
            }
        }
        given_up
    }
}

/// The events that a relay fetches.
pub(super) fn events(relay: Relay) -> EncodedEvents {
    let stall = relay.forwarder.parts.limits.stream_stall;
    let forwarder = Arc::clone(&relay.forwarder);
    let clock = Arc::clone(&forwarder.parts.clock);
    let rest = Arc::new(Mutex::new(Rest::Since(clock.monotonic(), Box::new(relay))));
    forwarder.streams.add(&rest);
    let caller = Caller { rest, clock, stall };
    stream::unfold(Some(caller), |caller| async {
        let caller = caller?;
        let rest = std::mem::replace(&mut *caller.rest.lock(), Rest::Awaited);
        let mut relay = match rest {
            Rest::Since(_, relay) => relay,
            Rest::Awaited => return None,
            Rest::GivenUp => {
                let stall = caller.stall;
                return Some((Err(Error::StreamStalled { stall }), None));
            }
        };
        match relay.next().await {
            Some(Ok(event)) => {
                *caller.rest.lock() = Rest::Since(caller.clock.monotonic(), relay);
                Some((Ok(event), Some(caller)))
            }
            // After an error nothing follows, and everything is let go at once.
            Some(Err(error)) => Some((Err(error), None)),
            None => None,
        }
    })
    .boxed()
}

impl Forwarder {
    /// Ends the streams whose callers read nothing any more, and with each its place and its call. Does not end.
    pub async fn end_stalled(&self) {
        let stall = self.parts.limits.stream_stall;
        let mut interval = tokio::time::interval((stall / 8).clamp(OFTENEST, SELDOMEST));
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            for given_up in self.streams.give_up(stall, self.now()) {
                drop(given_up);
                self.parts.meters.stalled();
            }
        }
    }
}

impl Relay {
    pub(super) fn new(
        forwarder: &Arc<Forwarder>,
        of: Of,
        inbound: Inbound,
        flight: Option<Flight>,
        permit: Option<Permit>,
        deadline: Option<Deadline>,
    ) -> Self {
        let Of {
            method,
            instance,
            caller,
        } = of;
        Self {
            forwarder: Arc::clone(forwarder),
            method,
            inbound,
            instance,
            caller,
            lost: flight.as_ref().map(Flight::lost).unwrap_or_default(),
            flight,
            owned: None,
            deadline,
            _permit: permit,
        }
    }

    async fn next(&mut self) -> Option<Result<Bytes, Error>> {
        let idle = self.forwarder.parts.limits.stream_idle;
        let left = match self
            .deadline
            .map(|deadline| deadline.remaining(self.forwarder.now()))
        {
            Some(left) => left.unwrap_or_default(),
            None => Duration::MAX,
        };
        let message = tokio::select! {
            message = tokio::time::timeout(idle.min(left), self.inbound.message()) => message,
            () = self.lost.cancelled() => return Some(Err(self.failed(Failure::lost()))),
        };
        match message {
            Ok(Ok(Some(event))) => Some(self.pass(event).await),
            Ok(Ok(None)) => {
                if let Some(flight) = self.flight.take() {
                    flight.finished(self.forwarder.now());
                }
                None
            }
            Ok(Err(failure)) => Some(Err(self.failed(failure))),
            Err(_) => Some(Err(self.ran_out(left <= idle, idle))),
        }
    }

    fn failed(&mut self, failure: Failure) -> Error {
        self.verdict(failure.verdict());
        failure.into_error(&self.instance, self.method.is_repeatable)
    }

    fn ran_out(&mut self, of_deadline: bool, idle: Duration) -> Error {
        let agent = self.instance.agent.clone();
        if of_deadline {
            self.verdict(Verdict::Unknown);
            exceeded(&format!("the stream of agent '{agent}'"))
        } else {
            self.verdict(Verdict::Failed);
            Error::StreamIdle { agent, idle }
        }
    }

    /// Passes an event on, once the owner of its task is kept.
    async fn pass(&mut self, event: Bytes) -> Result<Bytes, Error> {
        match Held::read(self.method, &event) {
            Ok(Held::Task { id, .. }) => {
                if self.owned.as_ref() != Some(&id) {
                    self.forwarder
                        .own(&id, &self.instance, &self.caller, false)
                        .await?;
                    self.owned = Some(id);
                }
            }
            Ok(Held::Other) => {}
            Ok(Held::Nothing) => return Err(empty_answer(&self.instance)),
            Err(defect) => return Err(self.failed(Failure::NotA2a(defect.to_string()))),
        }
        Ok(event)
    }

    fn verdict(&mut self, verdict: Verdict) {
        if let Some(flight) = self.flight.take() {
            self.forwarder.end(flight, verdict, &self.instance.agent);
        }
    }
}
