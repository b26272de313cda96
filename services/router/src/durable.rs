//! The same message is answered once for as long as a day, across routers and restarts, where its caller asks for that.
//!
//! A record in the store ([`crate::store::answers`]) is made before the message goes to an agent, and the answer is kept before
//! it is given. Who finds a record without an answer waits for it, looking again and again with growing pauses, and takes over
//! when the lease of whoever leads has ended without an answer: the message then goes to the agent again, under the same id.
//!
//! - **Once**, as far as the router can tell: a message goes to an agent a second time only where the router that sent it first
//!   died, or could not reach the store for as long as the lease lasts, before it had the answer. Agents that tell messages
//!   apart by their ids, and tasks that a step key names, cover that rest. What failed, or ran out of its caller's time, is over,
//!   and the next call with its id goes to an agent anew, as without durability.
//! - **A caller who leaves does not end it.** The call to the agent goes on in a task of its own ([`Worker`]), for as long as the
//!   caller had allowed, so that whoever asks again finds the answer.
//! - **An answer is not lost for want of a store.** One that cannot be kept is not given either: the caller is told to ask
//!   again. The worker tries on, so that it is found then.
//! - **Bounded**: the store in number and bytes, answers in size (of a larger one that is a task the id is kept, and the task
//!   is asked for when somebody asks again), waiting by the caller's deadline, what the worker has by the places in flight and in
//!   the queue.
//!
//! Rejected: keys of the agents' own in place of a record that is made first (it would be known only afterwards what was
//! sent); notifications by the store (a connection that blocks for each caller who waits, for what rarely happens).

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};
use muster_rpc::deadline::Deadline;
use muster_runtime::Shutdown;
use muster_runtime::clock::SharedClock;
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::deduplication::{Fingerprint, Key};
use crate::error::Error;
use crate::store;
use crate::store::SWEPT_AT_ONCE;
use crate::store::answers::{Answer, Answers, Claim, Found, Id};

/// For how long a router leads without a sign of life; the time after which others take over.
const LEASE: Duration = Duration::from_secs(10);

/// How often it gives one.
const RENEWAL: Duration = Duration::from_secs(3);

/// How long somebody who waits does so before the second look.
const FIRST_PAUSE: Duration = Duration::from_millis(20);

/// And at most between two looks.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// Calls that the worker has not taken yet; more wait.
const QUEUED: usize = 1024;

/// Tries to keep an answer that the store did not take, and the pause between two.
const TRIES: usize = 60;
const BETWEEN_TRIES: Duration = Duration::from_secs(1);

/// How much is kept, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How long an answer is given again.
    pub age: Duration,
    /// Largest answer that is kept as it is.
    pub answer_bytes: usize,
}

/// Answers that outlive the process.
pub struct Durable {
    store: Arc<dyn Answers>,
    limits: Limits,
    clock: SharedClock,
    work: mpsc::Sender<BoxFuture<'static, ()>>,
    taken_over: AtomicU64,
}

/// Does what must go on when its caller has left.
pub struct Worker {
    work: mpsc::Receiver<BoxFuture<'static, ()>>,
}

impl Worker {
    /// Works until a shutdown is asked for, and then until nothing is left.
    ///
    /// # Errors
    /// Never.
    pub async fn run(mut self, shutdown: Shutdown) -> Result<(), Infallible> {
        let mut running = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                () = shutdown.requested(), if !self.work.is_closed() => self.work.close(),
                Some(ended) = running.join_next(), if !running.is_empty() => report(ended),
                work = self.work.recv() => {
                    let Some(work) = work else { break };
                    running.spawn(work);
                }
            }
        }
        while let Some(ended) = running.join_next().await {
            report(ended);
        }
        Ok(())
    }
}

fn report(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a message was given up");
    }
}

/// What a call has to do.
pub enum Entered {
    /// The work.
    Lead(Lead),
    /// Nothing: this is the answer.
    Known(Answer),
}

impl Durable {
    /// Answers in `store`, and the worker without which nothing is done.
    #[must_use]
    pub fn new(store: Arc<dyn Answers>, limits: Limits, clock: SharedClock) -> (Arc<Self>, Worker) {
        let (sender, receiver) = mpsc::channel(QUEUED);
        let durable = Self {
            store,
            limits,
            clock,
            work: sender,
            taken_over: AtomicU64::new(0),
        };
        (Arc::new(durable), Worker { work: receiver })
    }

    /// Messages that calls of this router have taken over from calls that had died.
    #[must_use]
    pub fn taken_over(&self) -> u64 {
        self.taken_over.load(Ordering::Relaxed)
    }

    /// Largest answer that is kept as it is.
    #[must_use]
    pub const fn answer_bytes(&self) -> usize {
        self.limits.answer_bytes
    }

    /// A call comes in. Waits while another one leads, until the deadline.
    ///
    /// # Errors
    /// When the id was used with another body, the store is full or does not answer, or the deadline passes.
    pub async fn enter(
        self: &Arc<Self>,
        key: &Key,
        fingerprint: Fingerprint,
        deadline: Deadline,
    ) -> Result<Entered, Error> {
        let left = self.left(deadline);
        let entering = self.wait_to_enter(key, fingerprint, deadline);
        let entered = tokio::time::timeout(left, entering).await;
        entered.unwrap_or_else(|_| Err(waited()))
    }

    async fn wait_to_enter(
        self: &Arc<Self>,
        key: &Key,
        fingerprint: Fingerprint,
        deadline: Deadline,
    ) -> Result<Entered, Error> {
        let id = id(key);
        let claim = Claim {
            fingerprint,
            leader: format!("{:032x}", rand::random::<u128>()),
            lease: LEASE,
            keep: self.limits.age,
        };
        let mut pause = FIRST_PAUSE;
        loop {
            let found = self.store.claim(&id, &claim, self.clock.now()).await;
            match found.map_err(|error| unavailable(&error))? {
                found @ (Found::Lead | Found::TakenOver) => {
                    if found == Found::TakenOver {
                        tracing::info!(
                            message = key.message,
                            "a durable message is taken over from a call that has died"
                        );
                        self.taken_over.fetch_add(1, Ordering::Relaxed);
                    }
                    return Ok(Entered::Lead(Lead {
                        durable: Arc::clone(self),
                        message: key.message.clone(),
                        id,
                        claim: Some(claim),
                    }));
                }
                Found::Answered(answer) => return Ok(Entered::Known(answer)),
                Found::Reused => {
                    let message = key.message.clone();
                    return Err(Error::MessageIdReused { message });
                }
                Found::Full => return Err(Error::AnswersFull),
                Found::UnderWay { left } => {
                    let patience = self.left(deadline);
                    if patience.is_zero() {
                        return Err(waited());
                    }
                    // Just after its end, the lease has ended.
                    let until_it_ends = left.saturating_add(Duration::from_millis(1));
                    tokio::time::sleep(pause.min(until_it_ends).min(patience)).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    /// Has the worker do something.
    ///
    /// # Errors
    /// When the router is shutting down.
    pub async fn work(&self, work: impl Future<Output = ()> + Send + 'static) -> Result<(), Error> {
        self.work
            .send(Box::pin(work))
            .await
            .map_err(|_| Error::ShuttingDown)
    }

    /// Has the worker go on with what its caller has left. Where it takes no more, it is given up, as it was before.
    pub fn take_over(&self, work: impl Future<Output = ()> + Send + 'static) {
        let _full = self.work.try_send(Box::pin(work));
    }

    /// Forgets the answers that are too old. To be called now and then.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub async fn sweep(&self) -> Result<(), Error> {
        let age = SignedDuration::try_from(self.limits.age).unwrap_or(SignedDuration::MAX);
        let before = self.clock.now().saturating_sub(age).unwrap_or(Timestamp::MIN);
        let sweep = || self.store.sweep_answers(before);
        while sweep().await.map_err(|error| unavailable(&error))? == SWEPT_AT_ONCE {}
        Ok(())
    }

    fn left(&self, deadline: Deadline) -> Duration {
        deadline.remaining(self.clock.monotonic()).unwrap_or_default()
    }
}

/// The call that does the work for all with the same key. Dropping it leaves without an answer.
pub struct Lead {
    durable: Arc<Durable>,
    /// The message's id, for logs.
    message: String,
    id: Id,
    /// `None` once it leads no more.
    claim: Option<Claim>,
}

impl Lead {
    /// Does the work, with signs of life all the while.
    pub async fn working<T>(&self, work: impl Future<Output = T>) -> T {
        tokio::select! {
            biased;
            outcome = work => outcome,
            never = self.live() => match never {},
        }
    }

    async fn live(&self) -> Infallible {
        loop {
            tokio::time::sleep(RENEWAL).await;
            let Some(claim) = &self.claim else {
                return std::future::pending().await;
            };
            let Durable { store, clock, .. } = &*self.durable;
            match store.renew(&self.id, claim, clock.now()).await {
                Ok(true) => {}
                Ok(false) => {
                    tracing::warn!(
                        message = self.message,
                        "another router has taken a message over; the agent may get it twice"
                    );
                    return std::future::pending().await;
                }
                Err(error) => {
                    tracing::warn!(message = self.message, %error, "a message under way cannot be held");
                }
            }
        }
    }

    /// Keeps the answer. Whether it is the one that all get; if not, another router has taken over, and its answer is.
    ///
    /// # Errors
    /// When the store does not take it: it must not be given then. The worker tries on.
    pub async fn keep(mut self, answer: Answer) -> Result<bool, Error> {
        let Some(claim) = self.claim.take() else {
            return Ok(false);
        };
        let Durable { store, clock, .. } = &*self.durable;
        match store.keep(&self.id, &claim, &answer, clock.now()).await {
            Ok(is_kept) => Ok(is_kept),
            Err(error) => {
                let late = keep_late(
                    Arc::clone(store),
                    Arc::clone(clock),
                    self.id,
                    claim,
                    answer,
                    self.message.clone(),
                );
                if self.durable.work.try_send(Box::pin(late)).is_err() {
                    tracing::error!(message = self.message, "the answer to a durable message is lost");
                }
                Err(unavailable(&error))
            }
        }
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        let Some(claim) = self.claim.take() else { return };
        let (store, id) = (Arc::clone(&self.durable.store), self.id);
        let leave = async move {
            if let Err(error) = store.leave(&id, &claim).await {
                tracing::debug!(%error, "a message that failed is held until its lease ends");
            }
        };
        // Where the worker takes nothing, the lease ends by itself.
        let _left = self.durable.work.try_send(Box::pin(leave));
    }
}

async fn keep_late(
    store: Arc<dyn Answers>,
    clock: SharedClock,
    id: Id,
    claim: Claim,
    answer: Answer,
    message: String,
) {
    for _ in 0..TRIES {
        tokio::time::sleep(BETWEEN_TRIES).await;
        if let Ok(is_kept) = store.keep(&id, &claim, &answer, clock.now()).await {
            if !is_kept {
                tracing::warn!(
                    message,
                    "another router has taken a message over while the store was away; the agent may have got it twice"
                );
            }
            return;
        }
    }
    tracing::error!(
        message,
        "the answer to a durable message is lost: the store took it for too long not"
    );
}

/// Which record a message has.
fn id(key: &Key) -> Id {
    let mut hash = Sha256::new();
    for part in [&key.caller, &key.target, &key.message] {
        // With their lengths, so that what ends one does not begin the next.
        hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

fn waited() -> Error {
    Error::DeadlineExceeded {
        what: "the same message sent before".to_owned(),
    }
}

fn unavailable(error: &store::Error) -> Error {
    Error::Store {
        what: "whether the message was answered cannot be read or kept",
        detail: error.to_string(),
    }
}

#[cfg(test)]
mod tests;
