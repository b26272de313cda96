//! Delivers what waits: takes entries under leases, sends them as any message is sent, and records what became of them.
//!
//! One loop per router. A round does what is due in the store, then takes as many entries as there are places free, of targets
//! that somebody serves and that did not refuse just now, in their order of urgency over all targets. Rounds follow each other
//! when something happens: a message comes in, a delivery ends, an agent joins, a time comes; and about once a second in any
//! case, because another router may have put something into a shared store.
//!
//! A target that refuses work (nobody takes any now, all are busy) is left alone for a while as a whole, with everything that
//! waits for it: its next message would fare no better. A message that fails by itself is held back alone.
//!
//! At a shutdown nothing more is taken. Deliveries have most of the drain to end; those that have not are given up, and their
//! messages given back: they have failed in nothing, and another router, or this one when it is back, delivers them at once.

use std::collections::HashMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::{StreamExt as _, stream};
use http::{HeaderMap, HeaderName, HeaderValue};
use muster_rpc::deadline::Deadline;
use muster_runtime::trace::{self, Kind};
use muster_runtime::trust::caller::{ANYBODY, ON_BEHALF_OF};
use muster_runtime::trust::{Access, Caller};
use tokio::task::{Id, JoinError, JoinSet};
use tonic::Status as GrpcStatus;

use super::entry::{Change, Delivery, Entry, Reason, Status};
use super::outcome::{self, Next};
use super::queue::Wanted;
use super::store::{self, Lent};
use super::{Error, Inbox};
use crate::call::Call;
use crate::calls;
use crate::metrics::Binding;
use crate::peek::Sent;
use crate::routing::Routing;
use crate::target::Target;

/// Longest time between two rounds.
const POLL: Duration = Duration::from_secs(1);

/// Shortest, so that what is due in this very millisecond does not make a busy loop.
const BREATH: Duration = Duration::from_millis(2);

/// The pause after another router was faster with all that was there; more may have come since.
const OVERTAKEN: Duration = Duration::from_millis(50);

/// How long after an agent has joined the others are waited for that join with it.
const SETTLED: Duration = Duration::from_millis(10);

/// Targets that are looked at at once.
const HEADS: usize = 1_000;

/// Targets that are asked of the store at once, and entries that it lends at once.
const TARGETS_AT_ONCE: usize = 64;
const LENT_AT_ONCE: usize = 32;

/// The part of a drain in which deliveries may end; the rest is for giving back the others.
const FINISHED_WITHIN: f64 = 0.75;

/// Messages that are given back at once.
const RETURNED_AT_ONCE: usize = 16;

/// How often an outcome is tried to be recorded while the store does not answer.
const RECORDED_TRIES: u32 = 3;

/// A delivery that has ended.
struct Delivered {
    target: String,
    /// How long its target is to be left alone.
    pause: Option<Duration>,
}

/// Works until a shutdown is asked for, then waits for what is under way, for most of the time that the drain has.
///
/// # Errors
/// Never; the signature is that of a supervised task.
pub async fn run(inbox: Arc<Inbox>, drain: Duration) -> Result<(), Infallible> {
    let shutdown = inbox.shutdown.clone();
    let mut arrivals = inbox.forwarder.parts().flow.arrivals();
    let mut worker = Worker {
        inbox,
        under_way: JoinSet::new(),
        held: HashMap::new(),
        paused: HashMap::new(),
        is_ill: false,
    };
    while !shutdown.is_requested() {
        let wait = worker.round().await;
        let inbox = Arc::clone(&worker.inbox);
        tokio::select! {
            () = shutdown.requested() => {}
            Some(ended) = worker.under_way.join_next_with_id() => worker.ended(ended),
            () = inbox.wake.notified() => {}
            // The sender lives in the forwarder, which the inbox holds.
            _changed = arrivals.changed() => tokio::time::sleep(SETTLED).await,
            () = tokio::time::sleep(wait) => {}
        }
    }
    let patience = drain.mul_f64(FINISHED_WITHIN);
    let in_time = tokio::time::timeout(patience, async {
        while let Some(ended) = worker.under_way.join_next_with_id().await {
            worker.ended(ended);
        }
    });
    if in_time.await.is_err() {
        worker.give_back().await;
    }
    Ok(())
}

struct Worker {
    inbox: Arc<Inbox>,
    under_way: JoinSet<Delivered>,
    /// Entry and token of each of them.
    held: HashMap<Id, (String, String)>,
    /// Targets that are left alone, and until when on the monotonic clock.
    paused: HashMap<String, Duration>,
    /// Whether the store failed last.
    is_ill: bool,
}

impl Worker {
    /// One round; how long to wait for the next where nothing happens.
    async fn round(&mut self) -> Duration {
        while let Some(ended) = self.under_way.try_join_next_with_id() {
            self.ended(ended);
        }
        match self.take().await {
            Ok(wait) => {
                if std::mem::take(&mut self.is_ill) {
                    tracing::info!("the inbox's store works again");
                }
                wait.clamp(BREATH, POLL)
            }
            Err(error) => {
                if !std::mem::replace(&mut self.is_ill, true) {
                    tracing::warn!(%error, "the inbox delivers nothing while its store does not work");
                }
                POLL
            }
        }
    }

    async fn take(&mut self) -> Result<Duration, store::Error> {
        let inbox = Arc::clone(&self.inbox);
        let ticked = inbox.store.tick().await?;
        inbox.count_dead(ticked.dead);
        let meters = &inbox.forwarder.parts().meters;
        meters.inbox_ticked(ticked.dead, ticked.returned, ticked.displaced);
        let mut wait = ticked.next.unwrap_or(POLL);
        loop {
            let free = inbox.limits.in_flight.saturating_sub(self.under_way.len());
            if free == 0 {
                // The next round comes when a delivery ends.
                return Ok(POLL);
            }
            let now = inbox.forwarder.parts().clock.monotonic();
            self.paused.retain(|_, until| *until > now);
            let targets = self.targets(now, &mut wait).await?;
            if targets.is_empty() {
                return Ok(wait);
            }
            let wanted = Wanted {
                targets,
                delivery: Delivery::Push,
                most: free.min(LENT_AT_ONCE),
                lease: inbox.limits.lease,
                by: inbox.name.clone(),
            };
            let lent = inbox.store.lease(&wanted).await?;
            if lent.is_empty() {
                return Ok(wait.min(OVERTAKEN));
            }
            for lent in lent {
                let held = (lent.entry.id.clone(), lent.token.clone());
                let task = self.under_way.spawn(Arc::clone(&inbox).deliver(lent));
                self.held.insert(task.id(), held);
            }
        }
    }

    /// The first targets that somebody serves and that are not left alone. However many come before them whom nobody serves: whoever
    /// leaves messages for agents that are not there must not keep others waiting.
    async fn targets(&self, now: Duration, wait: &mut Duration) -> Result<Vec<String>, store::Error> {
        let inbox = &self.inbox;
        let mut skipped = 0;
        loop {
            let heads = inbox.store.heads(Delivery::Push, skipped, HEADS).await?;
            let is_last = heads.len() < HEADS;
            skipped += heads.len();
            for until in heads.iter().filter_map(|target| self.paused.get(target)) {
                *wait = (*wait).min(until.saturating_sub(now));
            }
            let mut targets = heads;
            targets.retain(|target| !self.paused.contains_key(target) && inbox.is_served(target));
            targets.truncate(TARGETS_AT_ONCE);
            if is_last || !targets.is_empty() {
                return Ok(targets);
            }
        }
    }

    /// Gives up what is under way.
    async fn give_back(&mut self) {
        self.under_way.shutdown().await;
        let held: Vec<_> = std::mem::take(&mut self.held).into_values().collect();
        tracing::warn!(
            messages = held.len(),
            "messages of the inbox are given back: they were with agents when the drain ended"
        );
        let inbox = &self.inbox;
        stream::iter(held)
            .for_each_concurrent(RETURNED_AT_ONCE, |(entry, token)| {
                inbox.return_unharmed(entry, token)
            })
            .await;
    }

    fn ended(&mut self, ended: Result<(Id, Delivered), JoinError>) {
        let id = ended.as_ref().map_or_else(JoinError::id, |(id, _)| *id);
        self.held.remove(&id);
        match ended {
            Ok((
                _,
                Delivered {
                    target,
                    pause: Some(pause),
                },
            )) => {
                let now = self.inbox.forwarder.parts().clock.monotonic();
                self.paused.insert(target, now.saturating_add(pause));
            }
            Ok(_) => {}
            // Its lease runs out, and that counts as a failure of the message.
            Err(error) => tracing::error!(%error, "a delivery of the inbox panicked"),
        }
    }
}

impl Inbox {
    /// Puts back an entry that has failed in nothing, to be lent out again at once.
    pub(super) async fn return_unharmed(&self, entry: String, token: String) {
        let change = Change::Retry {
            token,
            delay: Duration::ZERO,
            failure: None,
            counts: false,
        };
        match self.store.change(&entry, change, None).await {
            Ok(entry) => self.announce(&entry),
            Err(error) => {
                tracing::warn!(%error, entry, "a message is not given back; it waits until its lease has run out");
            }
        }
    }

    /// Whether somebody is there who takes work for a target.
    fn is_served(&self, target: &str) -> bool {
        let Ok(target) = Target::parse(target, "target") else {
            // It is taken, and becomes a dead letter that says why.
            return true;
        };
        let serving = self.forwarder.parts().view.read().serving(Some(&target), &[]);
        serving.is_ok_and(|instances| instances.iter().any(|instance| instance.takes_work()))
    }

    async fn deliver(self: Arc<Self>, lent: Lent) -> Delivered {
        let target = lent.entry.target.clone();
        let meters = &self.forwarder.parts().meters;
        meters.received();
        let sent = tokio::select! {
            sent = self.send(&lent) => sent,
            () = self.keep(&lent) => {
                tracing::warn!(entry = lent.entry.id, "the lease of a message was lost while it was being delivered");
                return Delivered { target, pause: None };
            }
        };
        let (change, answer, pause) = match sent {
            Ok((instance, answer)) => {
                meters.outcome(Binding::Inbox, None);
                meters.called(Binding::Inbox, &instance.0, true);
                let (answer, kept, dropped) = self.kept(Some(answer));
                let change = Change::Finish {
                    token: lent.token.clone(),
                    by: instance,
                    kept,
                    dropped,
                };
                (change, answer, None)
            }
            Err(error) => {
                let (change, pause) = self.failed(&lent, &error);
                (change, None, pause)
            }
        };
        self.record(&lent.entry, change, answer).await;
        Delivered { target, pause }
    }

    /// Sends the message; who answered, and the answer.
    async fn send(&self, lent: &Lent) -> Result<((String, String), bytes::Bytes), crate::error::Error> {
        let entry = &lent.entry;
        let sent = Sent::read(lent.body.clone())?;
        let routing = sent.routing.as_deref();
        let mut routing = routing.map_or_else(|| Ok(Routing::default()), Routing::decode)?;
        routing.priority = entry.priority();
        // Its time to live has been kept by the inbox.
        routing.ttl = None;
        let now = self.forwarder.parts().clock.monotonic();
        let call = Call {
            caller: entry.caller.clone(),
            access: access(entry),
            target: Some(Target::parse(&entry.target, "target")?),
            received: now,
            deadline: Some(Deadline::after(now, self.limits.delivery)),
            routing,
            passed_on: headers(&entry.headers),
        };
        let tracer = &self.forwarder.parts().tracer;
        let mut span = tracer.incoming(Kind::Consumer, || "deliver from inbox", &call.passed_on);
        if span.is_recorded() {
            span.set("messaging.operation.type", "process");
            span.set("messaging.destination.name", entry.target.clone());
            span.set("messaging.message.id", entry.id.clone());
        }
        let sending = std::pin::pin!(self.forwarder.send(call, sent));
        let reply = trace::inside(span.context(), sending).await;
        if span.is_recorded()
            && let Err(error) = &reply
        {
            span.fail("undelivered", &error.to_string());
        }
        let reply = reply?;
        let instance = (reply.instance.agent.clone(), reply.instance.instance.clone());
        // What came over the network lies in a larger buffer, which would be kept with it.
        Ok((instance, bytes::Bytes::copy_from_slice(&reply.message)))
    }

    /// Prolongs the lease again and again; ends when it is lost.
    async fn keep(&self, lent: &Lent) {
        loop {
            tokio::time::sleep(self.limits.lease / 3).await;
            let extend = Change::Extend {
                token: lent.token.clone(),
                lease: self.limits.lease,
            };
            match self.store.change(&lent.entry.id, extend, None).await {
                Ok(_) => {}
                Err(store::Error::Unavailable(what)) => {
                    tracing::debug!(entry = lent.entry.id, what, "a lease could not be prolonged yet");
                }
                Err(_) => return,
            }
        }
    }

    /// What a failed delivery means, and how long its target is to be left alone.
    fn failed(&self, lent: &Lent, error: &crate::error::Error) -> (Change, Option<Duration>) {
        let status = GrpcStatus::from(error.clone());
        let meters = &self.forwarder.parts().meters;
        meters.outcome(Binding::Inbox, Some(status.code()));
        let target = Target::parse(&lent.entry.target, "target").ok();
        let agent = calls::blamed(&self.forwarder.parts().view.read(), error, target.as_ref());
        meters.called(Binding::Inbox, &agent, false);
        let (token, failure) = (lent.token.clone(), outcome::failure(&status));
        match outcome::next(error) {
            Next::Never => {
                let reason = Reason::Refused;
                (
                    Change::Bury {
                        token,
                        reason,
                        failure,
                    },
                    None,
                )
            }
            Next::Later { counts, after } => {
                let pause = self.limits.pause;
                let attempt = if counts {
                    lent.entry.failures
                } else {
                    lent.entry.attempts.saturating_sub(1)
                };
                // At least half of the bound: a pause of nothing would be no pause for those who are busy.
                let backoff =
                    pause.bound(attempt).div_f64(2.0) + pause.delay(attempt, rand::random()).div_f64(2.0);
                let delay = backoff
                    .max(after.unwrap_or_default())
                    .min(pause.limit.max(backoff));
                let change = Change::Retry {
                    token,
                    delay,
                    failure: Some(failure),
                    counts,
                };
                (change, (!counts).then_some(delay))
            }
        }
    }

    async fn record(&self, entry: &Entry, change: Change, answer: Option<bytes::Bytes>) {
        for attempt in 0..RECORDED_TRIES {
            match self.store.change(&entry.id, change.clone(), answer.clone()).await {
                Ok(entry) => {
                    let is_done = entry.status() == Status::Done;
                    let is_dead = entry.status() == Status::Dead;
                    self.totals
                        .delivered
                        .fetch_add(u64::from(is_done), Ordering::Relaxed);
                    self.count_dead(usize::from(is_dead));
                    let meters = &self.forwarder.parts().meters;
                    meters.inbox_recorded(&entry);
                    return;
                }
                Err(store::Error::Unavailable(what)) => {
                    tracing::warn!(
                        entry = entry.id,
                        what,
                        "the outcome of a delivery could not be recorded yet"
                    );
                    tokio::time::sleep(self.limits.pause.bound(attempt)).await;
                }
                Err(error) => {
                    tracing::warn!(%error, "the outcome of a delivery came too late");
                    return;
                }
            }
        }
        tracing::error!(
            entry = entry.id,
            "the outcome of a delivery was not recorded; the message is delivered again when its lease has run out"
        );
    }

    /// Counts what there is, for the metrics.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn observe(&self) -> Result<(), Error> {
        let counts = self.counts().await?;
        self.forwarder.parts().meters.inbox(&counts);
        Ok(())
    }
}

/// What the sender of an entry may reach: it was written down with it, in the header that names the caller.
fn access(entry: &Entry) -> Access {
    let written = entry
        .headers
        .iter()
        .find(|(name, _)| name == ON_BEHALF_OF.as_str());
    let caller = match written {
        Some((_, text)) => Caller::from_text(text).unwrap_or_else(|_| Caller::unknown()),
        None if entry.caller == ANYBODY => Caller::anybody(),
        None => Caller::unknown(),
    };
    Access::of(caller)
}

/// Headers as they were kept. They were headers once, so that none is left out.
fn headers(kept: &[(String, String)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in kept {
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            headers.append(name, value);
        }
    }
    headers
}
