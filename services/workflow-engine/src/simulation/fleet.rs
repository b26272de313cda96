//! Who carries calls from the engine to the simulated agents: by default nobody, the agent is simply there ([`Direct`]).
//!
//! A binary that knows the registry and the router puts theirs in between. A fleet belongs to a world, as the store does: it
//! outlives the lives of the engine, and each of the two times that a plan is carried out has one of its own. It has no tasks of
//! its own, because each life is a runtime that is dropped as a whole; whoever carries a call moves it on. What it must not do
//! is let the end of a run depend on anything but the answers of agents, which follow from the message id.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use muster_runtime::clock::{Clock, SharedClock};
use serde_json::Value;
use uuid::Uuid;

use super::agents::Worker;
use super::clock::Virtual;
use super::witness::{Invariant, Witness};
use super::world::epoch;
use crate::caller::Failure;

/// Carries calls to agents.
#[async_trait]
pub trait Fleet: Send + Sync {
    /// Carries one call to an agent and returns its answer. Dropping the future abandons the call.
    async fn deliver(&self, delivery: &Delivery<'_>) -> Result<Value, Undelivered>;
}

/// Makes the fleet of a world.
pub(crate) type Make = dyn Fn(Surroundings) -> Arc<dyn Fleet> + Send + Sync;

/// Where a fleet is.
#[derive(Debug)]
pub struct Surroundings {
    /// What decides all that happens.
    pub seed: u64,
    /// Whether nothing goes wrong in this world.
    pub is_calm: bool,
    /// Whom it tells.
    pub reporter: Reporter,
}

/// A call on its way to an agent.
pub struct Delivery<'a> {
    /// Id of the message: the same when it is sent again.
    pub message: Uuid,
    /// The agent's id.
    pub agent: &'a str,
    /// When the call must have ended, on `clock`'s monotonic time.
    pub deadline: Duration,
    /// The time. Monotonic is the time since the world began, over all lives.
    pub clock: SharedClock,
    pub(crate) worker: Worker<'a>,
}

impl Delivery<'_> {
    /// The agent's work on the call, at whichever instance; not all agents ever answer.
    ///
    /// # Errors
    /// What the agent answers when it fails.
    pub async fn work(&self) -> Result<Value, Failure> {
        self.worker.work().await
    }
}

/// Why a call has no answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Undelivered {
    /// The agent answered that it failed.
    Answered(Failure),
    /// It certainly reached nobody, and may be sent again after a while.
    NeverReached {
        /// When to send it again.
        retry_after: Duration,
        /// What happened.
        detail: String,
    },
    /// It broke off and may have been executed.
    BrokeOff {
        /// What happened.
        detail: String,
    },
    /// There was no answer in time.
    Late,
}

/// Tells the witness what happens between the engine and its agents.
#[derive(Clone)]
pub struct Reporter(Arc<Witness>);

impl fmt::Debug for Reporter {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Reporter").finish_non_exhaustive()
    }
}

impl Reporter {
    pub(crate) const fn new(witness: Arc<Witness>) -> Self {
        Self(witness)
    }

    /// Something happened.
    pub fn note(&self, now: Timestamp, what: &str) {
        self.0.note(now, what);
    }

    /// A promise was broken.
    pub fn accuse(&self, now: Timestamp, invariant: Invariant, detail: String) {
        self.0.accuse(now, invariant, detail);
    }

    /// An attempt of a call goes to an instance; `has_moved`: another one had it before.
    pub fn attempted(&self, now: Timestamp, what: &str, has_moved: bool) {
        self.0.attempted(now, what, has_moved);
    }
}

/// The agent is simply there.
pub(crate) struct Direct;

#[async_trait]
impl Fleet for Direct {
    async fn deliver(&self, delivery: &Delivery<'_>) -> Result<Value, Undelivered> {
        delivery.work().await.map_err(Undelivered::Answered)
    }
}

/// The time of a world, over all lives.
pub(crate) struct SinceTheBeginning(pub(crate) Virtual);

impl Clock for SinceTheBeginning {
    fn now(&self) -> Timestamp {
        self.0.now()
    }

    fn monotonic(&self) -> Duration {
        Duration::try_from(self.0.now().duration_since(epoch())).unwrap_or_default()
    }
}
