//! The store in Redis: standalone, Sentinel or Cluster.
//!
//! Runs hash to partitions (see [`crate::partition`]), and everything of a partition is in one slot, so that a step is one call
//! of one script: all of it or nothing, on any form of Redis. Nothing spans two partitions in a step. What a step tells as
//! events waits in its partition's outbox and is carried to the log by an idempotent relay (see [`events`]): a crash in between
//! loses none and doubles none.
//!
//! **Sent again, done once.** A connection that breaks leaves open whether a step was written. Steps carry a random token that
//! Redis keeps beside what they wrote, and answers "done" to the same token; so the adapter sends again by itself until it
//! hears an answer or has no more patience, and only then says [`Error::Unavailable`].
//!
//! **Fenced.** Whoever has leases writes only to the partitions that they are of, and every script that writes to one checks that
//! the lease is still the same: who has lost it writes nothing, however late its words arrive.
//!
//! **What an answer promises** is Redis's to keep: with `appendonly yes` and `appendfsync always` nothing that was acknowledged
//! is lost by a restart; with `everysec` about a second of it may be when the machine fails; a failover to a replica can lose
//! what had not reached it. A store that opens warns of what it finds set.
//!
//! Rejected: transactions with WATCH (a round trip for each read, and retries under contention, where a script decides in
//! place); Redis Streams for journals (an append could not check its length); one slot for all (a Cluster would be one node).

mod answers;
mod catalogue;
mod erasing;
mod events;
mod forgetting;
mod keys;
mod merge;
mod opening;
mod payloads;
mod reading;
mod schedules;
mod spending;
mod steps;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use muster_store::redis::{Call, Cmd, Connection, Error as RedisError, FromRedisValue, Script, Slot};
use parking_lot::Mutex;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use self::steps::Kind;
use crate::approval::{self, Approval, ApprovalId};
use crate::partition;
use crate::run::{Entry, Position, Record, RunId, Summary};
use crate::store::approvals::Approvals;
use crate::store::events::Room;
use crate::store::{
    Again, Error, Filter, Page, SnapshotKind, Step, Store, Stored, Unfinished, Workflow, WorkflowKey,
};

pub use opening::{FORMAT_NAME, FORMAT_VERSION};

/// Needs room, as steps do.
static PROBE: Script = Script::new("#!lua\nredis.call('SET', KEYS[1], '1')\nreturn 1\n");

/// How a store in Redis is laid out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// What all of its keys start with; stores with different ones share a Redis.
    pub prefix: String,
    /// How many partitions it is made with; one that is there must have as many.
    pub partitions: u16,
    /// Largest step; the same as the embedded store's by default.
    pub step_bytes: usize,
    /// How much the log of events keeps when steps add to it.
    pub room: Room,
    /// The format that is written, where the store's is not newer already.
    pub format: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            prefix: "muster".to_owned(),
            partitions: partition::DEFAULT_COUNT,
            step_bytes: muster_store::Limits::default().batch_bytes,
            room: crate::config::Events::default().room(),
            format: FORMAT_VERSION,
        }
    }
}

/// The store in Redis. Clones share it.
#[derive(Clone)]
pub struct Redis {
    shared: Arc<Shared>,
}

struct Shared {
    connection: Connection,
    options: Options,
    format: u32,
    /// What writes to each partition are made under; none: it is not ours. Absent: nobody else is there, and nothing is checked.
    fences: Mutex<Option<BTreeMap<u16, String>>>,
    outboxes: events::Outboxes,
}

impl Redis {
    /// From now on writes are made only to partitions for which there is a lease.
    pub fn share(&self) {
        self.shared.fences.lock().get_or_insert_default();
    }

    /// From now on writes to this partition are made under this fence ([`muster_store::redis::lease::fence`]), or not at all.
    pub fn fence(&self, partition: u16, fence: String) {
        let mut fences = self.shared.fences.lock();
        fences.get_or_insert_default().insert(partition, fence);
    }

    /// From now on nothing is written to this partition.
    pub fn give_up(&self, partition: u16) {
        self.shared
            .fences
            .lock()
            .get_or_insert_default()
            .remove(&partition);
    }

    /// Which partitions may be written to.
    fn own(&self) -> Vec<u16> {
        match &*self.shared.fences.lock() {
            Some(fences) => fences.keys().copied().collect(),
            None => (0..self.partitions()).collect(),
        }
    }

    /// How many partitions the store has.
    #[must_use]
    pub fn partitions(&self) -> u16 {
        self.shared.options.partitions
    }

    /// The format of what is written.
    #[must_use]
    pub fn format(&self) -> u32 {
        self.shared.format
    }

    /// The connection.
    #[must_use]
    pub fn connection(&self) -> &Connection {
        &self.shared.connection
    }

    /// What all keys start with.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.shared.options.prefix
    }

    /// Writes a little, so that [`Store::health`] knows whether Redis takes writes.
    pub async fn probe(&self) {
        let written = self
            .call::<i64>(&PROBE.call().key(self.slot().key("probe")))
            .await;
        if let Err(error) = written {
            tracing::warn!(%error, "the store takes no writes");
        }
    }

    /// The slot of what is of the whole store.
    #[must_use]
    pub fn slot(&self) -> Slot {
        Slot::named(self.prefix(), keys::slots::STORE)
    }

    fn address(&self) -> &str {
        self.shared.connection.address()
    }

    /// The partition of a run.
    #[must_use]
    pub fn partition_of(&self, run: &RunId) -> u16 {
        partition::of(run, self.partitions())
    }

    /// What to write under, as scripts take it; empty where nothing is checked.
    fn fence_of(&self, partition: u16) -> Result<String, Error> {
        match &*self.shared.fences.lock() {
            None => Ok(String::new()),
            Some(fences) => fences
                .get(&partition)
                .cloned()
                .ok_or(Error::NotOwner { partition }),
        }
    }

    async fn run<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, Error> {
        self.shared.connection.run(command).await.map_err(unavailable)
    }

    async fn call<T: FromRedisValue>(&self, call: &Call) -> Result<T, Error> {
        self.shared.connection.call(call).await.map_err(unavailable)
    }

    fn check_size(&self, call: &Call) -> Result<(), Error> {
        let (bytes, limit) = (call.bytes(), self.shared.options.step_bytes);
        if bytes > limit {
            return Err(Error::TooLarge { bytes, limit });
        }
        Ok(())
    }
}

fn unavailable(error: RedisError) -> Error {
    match error {
        RedisError::Unexpected { .. } => Error::Damaged(error.to_string()),
        RedisError::Refused { .. } | RedisError::Unreachable { .. } | RedisError::Unknown { .. } => {
            Error::Unavailable(error.to_string())
        }
    }
}

fn encode(value: &impl Serialize) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(value).map_err(|error| Error::Damaged(format!("a value cannot be written: {error}")))
}

fn decode<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(bytes).map_err(|error| Error::Damaged(format!("{what} cannot be read: {error}")))
}

#[async_trait]
impl Store for Redis {
    async fn add_workflow(&self, workflow: &Workflow, document: &str) -> Result<(), Error> {
        self.add_to_catalogue(workflow, document).await
    }

    async fn document(&self, key: &WorkflowKey) -> Result<Option<String>, Error> {
        self.document_of(key).await
    }

    async fn workflow(&self, key: &WorkflowKey) -> Result<Option<Workflow>, Error> {
        self.workflow_of(key).await
    }

    async fn newest_workflow(&self, namespace: &str, name: &str) -> Result<Option<Workflow>, Error> {
        self.newest_of(namespace, name).await
    }

    async fn workflows(
        &self,
        after: Option<&WorkflowKey>,
        limit: usize,
    ) -> Result<Page<Workflow, WorkflowKey>, Error> {
        self.list_workflows(after, limit).await
    }

    async fn create_run(&self, record: &Record, summary: &Summary) -> Result<(), Error> {
        let step = Step::to(summary.clone());
        self.write(Kind::Create(record), step, format!("run '{}'", record.id))
            .await
    }

    async fn append(&self, step: Step) -> Result<(), Error> {
        let what = entry(&step);
        self.write(Kind::Append, step, what).await
    }

    async fn record(&self, id: &RunId) -> Result<Option<Record>, Error> {
        self.field(id, "record", reading::RECORD).await
    }

    async fn summary(&self, id: &RunId) -> Result<Option<Summary>, Error> {
        self.field(id, "summary", reading::SUMMARY).await
    }

    async fn output(&self, id: &RunId) -> Result<Option<Value>, Error> {
        self.field(id, "output", reading::OUTPUT).await
    }

    async fn stored(&self, id: &RunId) -> Result<Option<Stored>, Error> {
        self.stored_of(id).await
    }

    async fn history(&self, id: &RunId, from: u64, limit: usize) -> Result<Vec<Entry>, Error> {
        self.history_of(id, from, limit).await
    }

    async fn snapshot(&self, id: &RunId, which: SnapshotKind) -> Result<Option<Vec<u8>>, Error> {
        self.state_of(id, which).await
    }

    async fn forget_entries(&self, id: &RunId, before: u64, limit: usize) -> Result<usize, Error> {
        self.forget_first(id, before, limit).await
    }

    async fn runs(
        &self,
        filter: &Filter,
        before: Option<&Position>,
        limit: usize,
    ) -> Result<Page<Summary, Position>, Error> {
        self.list_runs(filter, before, limit).await
    }

    async fn unfinished(
        &self,
        partition: Option<u16>,
        after: Option<&Position>,
        limit: usize,
    ) -> Result<Page<Unfinished, Position>, Error> {
        self.list_unfinished(partition, after, limit).await
    }

    async fn ended_before(&self, time: Timestamp, limit: usize) -> Result<Vec<RunId>, Error> {
        self.list_ended(time, limit).await
    }

    async fn forget_run(&self, id: &RunId) -> Result<(), Error> {
        self.forget(id).await
    }

    fn health(&self) -> Result<(), String> {
        self.shared.connection.health()
    }
}

fn entry(step: &Step) -> String {
    format!("entry {} of run '{}'", step.first_index, step.summary.id)
}

#[async_trait]
impl Again for Redis {
    async fn reopen(&self, step: Step, ended_at: Timestamp) -> Result<(), Error> {
        let what = entry(&step);
        self.write(Kind::Reopen(ended_at), step, what).await
    }

    async fn create_with(&self, record: &Record, step: Step) -> Result<(), Error> {
        // Its entries begin at 0; it has neither ended nor used anything.
        let step = Step {
            first_index: 0,
            output: None,
            spent: None,
            ..step
        };
        self.write(Kind::Create(record), step, format!("run '{}'", record.id))
            .await
    }
}

#[async_trait]
impl Approvals for Redis {
    async fn approval(&self, id: &ApprovalId) -> Result<Option<Approval>, Error> {
        self.approval_of(id).await
    }

    async fn approvals(
        &self,
        filter: &approval::Filter,
        after: Option<&approval::Position>,
        limit: usize,
    ) -> Result<Page<Approval, approval::Position>, Error> {
        self.list_approvals(filter, after, limit).await
    }
}
