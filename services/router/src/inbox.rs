//! The durable inbox, for messages whose sender does not wait; and broadcasts, for answers of everybody who has a skill.
//!
//! Inside out: [`entry`] says what may happen to one message and [`queue`] to all of them, both pure; [`store`] keeps them, in
//! memory, on disk or in Redis; [`outcome`] reads a failed delivery; [`worker`] delivers; [`broadcast`] asks many at once;
//! [`grpc`] translates.
//!
//! **At least once.** A message is durable before its sender is told. It is delivered under a lease, which its router prolongs
//! while it works and others take over when it is dead, and its outcome is recorded only by who holds the lease. The agent may
//! therefore see a message twice, with the same id, after a crash; never is it lost, and never do two living routers deliver it
//! at once. Within one router the window of answered messages ([`crate::deduplication`]) covers what a lost record would repeat.
//!
//! **Waiting costs nothing.** A message is only lent out while somebody is there who serves its target, as this router sees
//! the fleet; the worker hears of those who join. So ten thousand messages for an absent agent are not tried ten thousand times,
//! and do not stand in the way of others. Consumers who fetch may wait as well ([`waiting`]).
//!
//! Rejected: a consumer in each agent that pulls from the router (agents of others know nothing of it, and choosing by load is
//! what the router is for; those who want to pull may, with `Receive`); a delivery count as the only bound (a message that waits
//! for an agent to be deployed has done nothing wrong: its time to live is its bound).

pub mod broadcast;
pub mod config;
pub mod entry;
pub mod grpc;
mod opening;
pub mod outcome;
pub mod queue;
pub mod store;
pub mod waiting;
pub mod worker;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream;
use http::HeaderMap;
use muster_rpc::backoff::Backoff;
use muster_runtime::trace;
use muster_runtime::trust::Access;
use muster_runtime::trust::caller::ANYBODY;
use muster_runtime::{Shutdown, Tasks};
use sha2::{Digest as _, Sha256};
use tokio::sync::Notify;

use crate::call;
use crate::forward::Forwarder;
use crate::message;
use crate::peek::Sent;
use crate::priority::Priority;
use crate::routing::Routing;
use crate::target::Target;
use entry::{Change, Delivery, Draft, Entry, Failure, Reason, Status};
use queue::{Counts, Filter, Page};
use store::{Kept, Store};
use waiting::Waiting;

pub use grpc::Service;
pub(crate) use opening::{Letterbox, open};

/// Changes of one request that are under way at once.
const AT_ONCE: usize = 16;

/// Entries of a list that are read at once for such a request.
const READ_AT_ONCE: usize = 100;

/// What the inbox is held to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Limits {
    /// Largest message.
    pub message_bytes: usize,
    /// Largest answer that is kept.
    pub answer_bytes: usize,
    /// How long a message may take when its sender does not say.
    pub default_ttl: Duration,
    /// How long it may take at most.
    pub most_ttl: Duration,
    /// How long a lease is.
    pub lease: Duration,
    /// Most deliveries at once.
    pub in_flight: usize,
    /// How long one may take.
    pub delivery: Duration,
    /// Pauses between attempts.
    pub pause: Backoff,
    /// Most agents of one broadcast.
    pub broadcast_agents: usize,
    /// Most entries that have not ended, for those who ask.
    pub total: usize,
}

/// Why the inbox did not do it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The router refuses the message.
    #[error(transparent)]
    Router(#[from] crate::error::Error),
    /// The store did not do it.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The page token is not one of this list.
    #[error("page_token: this is no token of this list and this filter; start again without one")]
    PageToken,
    /// More agents have the skill than a broadcast may reach.
    #[error("{agents} agents have the skill '{skill}'; one broadcast reaches {most} at most")]
    TooManyAgents {
        /// The skill.
        skill: String,
        /// How many have it.
        agents: usize,
        /// The limit.
        most: usize,
    },
}

impl Error {
    /// A field is at fault.
    #[must_use]
    pub fn field(field: &str, message: impl Into<String>) -> Self {
        Self::Router(crate::error::Error::InvalidField {
            field: field.to_owned(),
            message: message.into(),
        })
    }
}

/// A message that is to be taken in, as it comes.
#[derive(Debug, Clone)]
pub struct Letter {
    /// Whom it is for; empty: its tenant says so.
    pub target: String,
    /// The request to send it, encoded.
    pub request: Bytes,
    /// How urgent it is, if it is said.
    pub priority: Option<Priority>,
    /// How long it may take, if it is said.
    pub ttl: Option<Duration>,
    /// How long it is held back.
    pub delay: Duration,
    /// Who takes it out.
    pub delivery: Delivery,
    /// Headers of the call that brought it.
    pub headers: HeaderMap,
    /// What its sender may reach.
    pub access: Access,
}

/// What this router has done since it started.
#[derive(Debug, Default)]
pub struct Totals {
    /// Messages taken in.
    pub enqueued: AtomicU64,
    /// Messages delivered.
    pub delivered: AtomicU64,
    /// Messages that became dead letters.
    pub dead: AtomicU64,
    /// Broadcasts.
    pub broadcasts: AtomicU64,
    /// Agents that they matched.
    pub matched: AtomicU64,
}

/// The inbox.
pub struct Inbox {
    store: Arc<dyn Store>,
    forwarder: Arc<Forwarder>,
    limits: Limits,
    /// How this router signs its leases.
    name: String,
    /// Something may be there for the worker.
    wake: Notify,
    /// Consumers who wait.
    waiting: Waiting,
    /// For what goes on when a consumer has left.
    tasks: Tasks,
    shutdown: Shutdown,
    totals: Totals,
}

impl Inbox {
    /// An inbox over this store, which delivers with this forwarder.
    #[must_use]
    pub fn new(
        store: Arc<dyn Store>,
        forwarder: Arc<Forwarder>,
        limits: Limits,
        tasks: Tasks,
        shutdown: Shutdown,
    ) -> Arc<Self> {
        let name = format!("router {:08x}", rand::random::<u32>());
        Arc::new(Self {
            store,
            forwarder,
            limits,
            name,
            wake: Notify::new(),
            waiting: Waiting::default(),
            tasks,
            shutdown,
            totals: Totals::default(),
        })
    }

    /// What this router has done since it started.
    #[must_use]
    pub const fn totals(&self) -> &Totals {
        &self.totals
    }

    /// What it is held to.
    #[must_use]
    pub const fn limits(&self) -> &Limits {
        &self.limits
    }

    /// How much there is.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn counts(&self) -> Result<Counts, Error> {
        Ok(self.store.counts().await?)
    }

    /// Takes a message in: the entry, and whether it was there before.
    ///
    /// # Errors
    /// Names the field at fault; or there is no room, or the id was used with another message.
    pub async fn enqueue(&self, letter: Letter) -> Result<(Entry, bool), Error> {
        let draft = self.draft(letter)?;
        let (entry, existed) = self.take_in(draft).await?;
        if !existed {
            self.totals.enqueued.fetch_add(1, Ordering::Relaxed);
            self.announce(&entry);
        }
        Ok((entry, existed))
    }

    /// Ids are the callers' own, so that two may choose the same one: then the later entry has a mark of its caller behind it, by
    /// which it is known again when it is enqueued again. Its caller may ask for it without.
    async fn take_in(&self, mut draft: Draft) -> Result<(Entry, bool), Error> {
        let Some(marked) = marked(&draft.caller, &draft.id) else {
            return Ok(self.store.enqueue(&draft).await?);
        };
        if is_marked(&draft.id) || self.store.read(&marked).await?.is_some() {
            draft.id = marked;
            return Ok(self.store.enqueue(&draft).await?);
        }
        match self.store.enqueue(&draft).await {
            Err(store::Error::IdReused(id)) => {
                let other = self.store.read(&id).await?;
                if other.is_none_or(|other| other.entry.caller == draft.caller) {
                    return Err(store::Error::IdReused(id).into());
                }
                draft.id = marked;
                Ok(self.store.enqueue(&draft).await?)
            }
            taken => Ok(taken?),
        }
    }

    fn draft(&self, letter: Letter) -> Result<Draft, Error> {
        let sent = Sent::read(letter.request).map_err(crate::error::Error::from)?;
        let message = message::check(&sent, self.limits.message_bytes)?;
        let target = target_of(&letter.target, sent.encoded.tenant())?;
        let routing = sent.routing.as_deref();
        let routing = routing.map_or_else(|| Ok(Routing::default()), Routing::decode)?;
        let ttl = letter.ttl.or(routing.ttl).unwrap_or(self.limits.default_ttl);
        let most = self.limits.most_ttl;
        if ttl.is_zero() || ttl > most {
            let message = format!("must be more than 0 s and at most {} s", most.as_secs());
            return Err(Error::field("ttl", message));
        }
        if letter.delay > most {
            return Err(Error::field(
                "delay",
                format!("must be at most {} s", most.as_secs()),
            ));
        }
        // Whom it is for is kept beside it, however it was said.
        let body: Bytes = sent.encoded.with_tenant("").0.concat().into();
        let target = target.to_string();
        let mut headers = call::passed_on(&letter.headers);
        // Its delivery is part of the trace, however much later it is.
        trace::inject(&mut headers);
        let refused = |refusal| crate::error::Error::Refused(Box::new(refusal));
        let namespace = self.forwarder.parts().view.read().namespace().to_owned();
        letter.access.namespace(&namespace).map_err(refused)?;
        letter.access.target(&target).map_err(refused)?;
        let caller = letter.access.caller().key();
        Ok(Draft {
            id: message.message_id.clone(),
            fingerprint: fingerprint(&caller, &target, letter.delivery, &body),
            target,
            priority: letter.priority.unwrap_or(routing.priority),
            delivery: letter.delivery,
            caller: caller.as_ref().to_owned(),
            headers: text_headers(&headers),
            ttl,
            delay: letter.delay,
            body,
        })
    }

    /// All of an entry.
    ///
    /// # Errors
    /// There is none of that id.
    pub async fn read(&self, id: &str) -> Result<Kept, Error> {
        let kept = self.store.read(id).await?;
        kept.ok_or_else(|| store::Error::Unknown(id.to_owned()).into())
    }

    /// All of an entry that the caller may see.
    ///
    /// # Errors
    /// There is none of that id, or it is another caller's, who is not told of either.
    pub async fn read_for(&self, access: &Access, id: &str) -> Result<Kept, Error> {
        let caller = access.caller().key();
        if let Some(marked) = marked(&caller, id)
            && let Some(own) = self.store.read(&marked).await?
        {
            return Ok(own);
        }
        let kept = self.read(id).await?;
        if access.sees(Some(&kept.entry.caller), id) {
            Ok(kept)
        } else {
            Err(store::Error::Unknown(id.to_owned()).into())
        }
    }

    /// Entries after a place of the list, by sequence.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn list(&self, filter: &Filter, after: u64, most: usize) -> Result<Page, Error> {
        Ok(self.store.list(filter, after, most).await?)
    }

    /// Makes a pending entry dead.
    ///
    /// # Errors
    /// There is none of that id, or it is not pending.
    pub async fn cancel(&self, id: &str) -> Result<Entry, Error> {
        let entry = self.store.change(id, Change::Cancel, None).await?;
        self.forwarder.parts().meters.inbox_recorded(&entry);
        Ok(entry)
    }

    /// Puts a dead entry back.
    ///
    /// # Errors
    /// There is none of that id, it is not dead, or there is no room.
    pub async fn replay(&self, id: &str) -> Result<(), Error> {
        let entry = self.store.change(id, Change::Replay, None).await?;
        self.announce(&entry);
        Ok(())
    }

    /// Puts dead entries back, the oldest first: how many, and whether there are more.
    ///
    /// # Errors
    /// None could be put back.
    pub async fn replay_all(
        &self,
        target: Option<String>,
        caller: Option<String>,
        most: usize,
    ) -> Result<(usize, bool), Error> {
        let filter = Filter {
            status: Some(Status::Dead),
            target,
            caller,
        };
        self.each(&filter, most, |id| async move { self.replay(&id).await })
            .await
    }

    /// Forgets an entry that has ended.
    ///
    /// # Errors
    /// There is none of that id, or it has not ended.
    pub async fn purge(&self, id: &str) -> Result<(), Error> {
        Ok(self.store.purge(id).await?)
    }

    /// Forgets entries that have ended, the oldest first: how many, and whether there are more.
    ///
    /// # Errors
    /// None could be forgotten.
    pub async fn purge_all(&self, filter: &Filter, most: usize) -> Result<(usize, bool), Error> {
        self.each(filter, most, |id| async move { self.purge(&id).await })
            .await
    }

    /// Does one thing to the first entries that a filter finds; one that somebody else was faster with is passed over.
    async fn each<F: Future<Output = Result<(), Error>>>(
        &self,
        filter: &Filter,
        most: usize,
        act: impl Fn(String) -> F,
    ) -> Result<(usize, bool), Error> {
        let (mut done, mut after) = (0, 0);
        loop {
            let page = self
                .store
                .list(filter, after, READ_AT_ONCE.min(most - done))
                .await?;
            let ids: Vec<String> = page.entries.into_iter().map(|entry| entry.id).collect();
            let mut outcomes = stream::iter(ids).map(&act).buffered(AT_ONCE);
            while let Some(outcome) = outcomes.next().await {
                match outcome {
                    Ok(()) => done += 1,
                    Err(Error::Store(store::Error::Unknown(_) | store::Error::State(..))) => {}
                    Err(_) if done > 0 => return Ok((done, true)),
                    Err(error) => return Err(error),
                }
            }
            match page.next {
                None => return Ok((done, false)),
                Some(_) if done >= most => return Ok((done, true)),
                Some(next) => after = next,
            }
        }
    }

    /// An entry may be there for somebody.
    fn announce(&self, entry: &Entry) {
        match entry.delivery {
            Delivery::Push => self.wake.notify_one(),
            Delivery::Pull => self.waiting.announce(&entry.target),
        }
    }

    /// Ends an entry that a consumer has: it is done.
    ///
    /// # Errors
    /// The lease is lost.
    pub async fn acknowledge(&self, id: &str, token: String, answer: Option<Bytes>) -> Result<Entry, Error> {
        let (answer, kept, dropped) = self.kept(answer);
        let change = Change::Finish {
            token,
            by: (String::new(), String::new()),
            kept,
            dropped,
        };
        let entry = self.store.change(id, change, answer).await?;
        self.totals.delivered.fetch_add(1, Ordering::Relaxed);
        self.forwarder.parts().meters.inbox_recorded(&entry);
        Ok(entry)
    }

    /// Puts back an entry that a consumer has.
    ///
    /// # Errors
    /// The lease is lost.
    pub async fn release(
        &self,
        id: &str,
        token: String,
        reason: &str,
        delay: Duration,
        gives_up: bool,
    ) -> Result<Entry, Error> {
        let failure = Failure::new("ABORTED", "", reason);
        let change = if gives_up {
            Change::Bury {
                token,
                reason: Reason::Refused,
                failure,
            }
        } else {
            Change::Retry {
                token,
                delay,
                counts: !reason.is_empty(),
                failure: (!reason.is_empty()).then_some(failure),
            }
        };
        let entry = self.store.change(id, change, None).await?;
        self.count_dead(usize::from(entry.status() == Status::Dead));
        self.forwarder.parts().meters.inbox_recorded(&entry);
        self.announce(&entry);
        Ok(entry)
    }

    /// Prolongs a consumer's lease.
    ///
    /// # Errors
    /// The lease is lost.
    pub async fn extend(&self, id: &str, token: String, lease: Duration) -> Result<Entry, Error> {
        Ok(self
            .store
            .change(id, Change::Extend { token, lease }, None)
            .await?)
    }

    /// The answer as far as it is kept, its size, and the size of one that is not.
    fn kept(&self, answer: Option<Bytes>) -> (Option<Bytes>, u64, u64) {
        match answer {
            None => (None, 0, 0),
            Some(answer) if answer.len() > self.limits.answer_bytes => (None, 0, answer.len() as u64),
            Some(answer) => {
                let size = answer.len() as u64;
                (Some(answer), size, 0)
            }
        }
    }

    fn count_dead(&self, dead: usize) {
        self.totals.dead.fetch_add(dead as u64, Ordering::Relaxed);
    }
}

/// The one target that the field and the message's tenant name.
fn target_of(field: &str, tenant: &str) -> Result<Target, Error> {
    let (field, tenant) = (field.trim(), tenant.trim());
    match (field.is_empty(), tenant.is_empty()) {
        (true, true) => Err(crate::error::Error::TargetMissing.into()),
        (false, true) => Ok(Target::parse(field, "target")?),
        (true, false) => Ok(Target::parse(tenant, "message.tenant")?),
        (false, false) => {
            let target = Target::parse(field, "target")?;
            if Target::parse(tenant, "message.tenant")? == target {
                return Ok(target);
            }
            let message =
                format!("names '{target}', but the message's tenant names '{tenant}'; name one target");
            Err(Error::field("target", message))
        }
    }
}

/// What is between an id and the mark of a caller, and how long that is.
const MARK: char = '@';
const MARK_DIGITS: usize = 16;

/// The id of a caller's entry where another one's has its message's id; `None` where callers are not told apart.
fn marked(caller: &str, id: &str) -> Option<String> {
    if caller == ANYBODY {
        return None;
    }
    let hash = Sha256::digest(caller);
    let bytes = hash.iter().take(MARK_DIGITS / 2);
    let mark: String = bytes.map(|byte| format!("{byte:02x}")).collect();
    Some(format!("{id}{MARK}{mark}"))
}

/// Whether an id looks like one that has a mark. A caller's own that does gets one, so that nobody takes what is another's.
fn is_marked(id: &str) -> bool {
    let mark = id.rsplit_once(MARK).map(|(_, mark)| mark);
    mark.is_some_and(|mark| mark.len() == MARK_DIGITS && mark.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// What makes two messages the same: those of two callers are never.
fn fingerprint(caller: &str, target: &str, delivery: Delivery, body: &[u8]) -> String {
    let mut hash = Sha256::new();
    // Entries of an earlier release, which told no callers apart, stay what they are.
    if caller != ANYBODY {
        hash.update(caller);
        hash.update([0]);
    }
    hash.update(target);
    hash.update([0]);
    hash.update(delivery.name());
    hash.update([0]);
    hash.update(body);
    let hash: [u8; 32] = hash.finalize().into();
    hash.iter().fold(String::with_capacity(64), |mut text, byte| {
        text.push_str(&format!("{byte:02x}"));
        text
    })
}

/// Headers as they are kept; those that are no text are nobody's we pass on.
fn text_headers(headers: &HeaderMap) -> Vec<(String, String)> {
    headers
        .iter()
        .filter_map(|(name, value)| Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned())))
        .collect()
}
