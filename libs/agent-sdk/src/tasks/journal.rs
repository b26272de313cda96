//! Has tasks written to their store, in groups.
//!
//! The table in memory is the truth of what is held here; the store follows it. Whoever needs to know that a task is durable asks
//! for it and waits; other changes are gathered for a moment, so that a task that comes and ends within it is written once.
//! Drafts are taken from the table when they are written, by one writer, so that an older state never replaces a newer one.
//!
//! What a store of this machine's disk cannot write it never will. What a shared one cannot write is tried again: those who wait
//! are told that it failed, and the change stays.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use muster_api::error::{Error, Reason};
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;

use super::store::{Draft, Outcome, Stage, Store, unavailable};
use super::table::Table;

/// How long changes are gathered that nobody waits for.
const GATHERING: Duration = Duration::from_millis(20);

/// Most records of one commit.
const AT_ONCE: usize = 256;

/// How long what could not be written waits for the next try, unless somebody asks before.
const PAUSE: Duration = Duration::from_millis(200);

/// Has tasks written. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct Journal {
    inner: Option<Arc<Inner>>,
}

struct Inner {
    pending: Mutex<Pending>,
    changed: Notify,
    closing: CancellationToken,
    store: Arc<dyn Store>,
}

type Waiter = oneshot::Sender<Result<(), Error>>;

#[derive(Default)]
struct Pending {
    dirty: BTreeSet<String>,
    /// Who waits for a task.
    waiting: BTreeMap<String, Vec<Waiter>>,
    /// Who waits for all that is dirty.
    flushing: Vec<Waiter>,
    is_writing: bool,
    is_closed: bool,
}

/// What is written at once, and who waits for it.
struct Round {
    ids: Vec<String>,
    waiting: BTreeMap<String, Vec<Waiter>>,
    flushing: Vec<Waiter>,
}

/// Writes what the journal is told.
pub(crate) struct Writer {
    inner: Arc<Inner>,
    table: Arc<Mutex<Table>>,
    /// Whether the last round failed: said once, not with every try.
    is_failing: bool,
}

impl Journal {
    /// A journal of the table in this store, and what writes it.
    pub(crate) fn new(store: Arc<dyn Store>, table: Arc<Mutex<Table>>) -> (Self, Writer) {
        let inner = Arc::new(Inner {
            pending: Mutex::default(),
            changed: Notify::new(),
            closing: CancellationToken::new(),
            store,
        });
        let journal = Self {
            inner: Some(Arc::clone(&inner)),
        };
        let is_failing = false;
        (
            journal,
            Writer {
                inner,
                table,
                is_failing,
            },
        )
    }

    /// The task is durable when this returns.
    pub(crate) async fn write(&self, id: &str) -> Result<(), Error> {
        let Some(inner) = &self.inner else { return Ok(()) };
        let (sender, written) = oneshot::channel();
        {
            let mut pending = inner.pending.lock();
            if pending.is_closed {
                return Err(unavailable("the agent shuts down"));
            }
            pending.dirty.insert(id.to_owned());
            pending.waiting.entry(id.to_owned()).or_default().push(sender);
        }
        inner.changed.notify_one();
        hear(written).await
    }

    /// The task will be durable soon.
    pub(crate) fn write_later(&self, id: &str) {
        if let Some(inner) = &self.inner {
            inner.pending.lock().dirty.insert(id.to_owned());
            inner.changed.notify_one();
        }
    }

    /// All that was to be durable soon is when this returns.
    pub(crate) async fn flush(&self) -> Result<(), Error> {
        let Some(inner) = &self.inner else { return Ok(()) };
        let (sender, written) = oneshot::channel();
        {
            let mut pending = inner.pending.lock();
            if pending.dirty.is_empty() && !pending.is_writing {
                return Ok(());
            }
            if pending.is_closed {
                return Err(unavailable("the agent shuts down"));
            }
            pending.flushing.push(sender);
        }
        inner.changed.notify_one();
        hear(written).await
    }

    /// Writes what is still to be written, and ends.
    pub(crate) async fn close(&self) {
        let Some(inner) = &self.inner else { return };
        let (sender, written) = oneshot::channel();
        inner.pending.lock().flushing.push(sender);
        inner.closing.cancel();
        inner.changed.notify_one();
        // The writer logs what it cannot write.
        let _ = written.await;
    }

    /// Why nothing is written any more; `None` while it is.
    pub(crate) fn failure(&self) -> Option<String> {
        self.inner.as_ref()?.store.failure()
    }
}

async fn hear(written: oneshot::Receiver<Result<(), Error>>) -> Result<(), Error> {
    written
        .await
        .unwrap_or_else(|_| Err(unavailable("its writer has ended")))
}

impl Writer {
    /// Works until the journal is closed.
    pub(crate) async fn run(mut self) {
        loop {
            let is_closing = self.inner.closing.is_cancelled();
            let round = self.take(is_closing);
            if round.ids.is_empty() && round.flushing.is_empty() {
                if is_closing {
                    return;
                }
                self.inner.changed.notified().await;
                self.gather().await;
                continue;
            }
            let failed = self.write(round).await;
            if !failed.is_empty() && !is_closing && self.inner.store.recovers() {
                self.inner.pending.lock().dirty.extend(failed);
                self.rest().await;
            }
        }
    }

    /// Waits for a moment for what comes together, unless somebody waits for the store.
    async fn gather(&self) {
        self.wait(GATHERING).await;
    }

    /// Waits until what failed is tried again.
    async fn rest(&self) {
        self.wait(PAUSE).await;
    }

    async fn wait(&self, most: Duration) {
        let timer = tokio::time::sleep(most);
        tokio::pin!(timer);
        loop {
            if self.inner.pending.lock().is_awaited() {
                return;
            }
            tokio::select! {
                () = self.inner.closing.cancelled() => return,
                () = &mut timer => return,
                () = self.inner.changed.notified() => {}
            }
        }
    }

    fn take(&self, is_closing: bool) -> Round {
        let mut pending = self.inner.pending.lock();
        let pending = &mut *pending;
        // Whom somebody waits for goes first.
        let awaited = pending.waiting.keys().filter(|id| pending.dirty.contains(*id));
        let mut ids: Vec<String> = awaited.take(AT_ONCE).cloned().collect();
        for id in &ids {
            pending.dirty.remove(id);
        }
        while ids.len() < AT_ONCE
            && let Some(id) = pending.dirty.pop_first()
        {
            ids.push(id);
        }
        let waiting = ids
            .iter()
            .filter_map(|id| pending.waiting.remove_entry(id))
            .collect();
        // Those wait for everything that was changed before, so for the last of it.
        let flushing = if pending.dirty.is_empty() {
            std::mem::take(&mut pending.flushing)
        } else {
            Vec::new()
        };
        pending.is_writing = !ids.is_empty();
        pending.is_closed = is_closing && pending.dirty.is_empty();
        Round {
            ids,
            waiting,
            flushing,
        }
    }

    /// Writes a round and tells who waits; what could not be written.
    async fn write(&mut self, mut round: Round) -> Vec<String> {
        let drafts: Vec<Draft> = {
            let mut table = self.table.lock();
            round.ids.iter().filter_map(|id| table.draft(id)).collect()
        };
        let stages: Vec<(String, Option<Stage>)> = drafts
            .iter()
            .map(|draft| (draft.id.clone(), draft.keep.as_ref().map(|keep| keep.stage)))
            .collect();
        let wrote = !drafts.is_empty();
        let outcomes = if drafts.is_empty() {
            Vec::new()
        } else {
            self.inner.store.write(drafts).await
        };
        let (mut failed, mut first_error) = (Vec::new(), None);
        for ((id, stage), outcome) in stages.into_iter().zip(outcomes) {
            let result = self.settle(&id, stage, outcome);
            if let Err(error) = &result {
                if error.reason == Reason::OwnerUnavailable {
                    tracing::warn!(task_id = id, %error, "the work on a task is dropped");
                } else {
                    failed.push(id.clone());
                    first_error.get_or_insert_with(|| error.clone());
                }
            }
            tell(round.waiting.remove(&id), &result);
        }
        match &first_error {
            Some(error) if !self.is_failing => tracing::error!(%error, "tasks cannot be written"),
            None if self.is_failing && wrote => tracing::info!("tasks are written again"),
            Some(_) | None => {}
        }
        self.is_failing = first_error.is_some() || self.is_failing && !wrote;
        // Those of tasks of which there was nothing to say.
        for waiters in round.waiting.into_values() {
            tell(Some(waiters), &Ok(()));
        }
        tell(Some(round.flushing), &first_error.map_or(Ok(()), Err));
        failed
    }

    /// Brings the table to what became of a draft.
    fn settle(&self, id: &str, stage: Option<Stage>, outcome: Result<Outcome, Error>) -> Result<(), Error> {
        let mut table = self.table.lock();
        match outcome {
            Ok(Outcome::Done) => {
                if let Some(stage) = stage {
                    table.written(id, stage);
                }
                Ok(())
            }
            Ok(Outcome::Lost) => {
                table.lose(id);
                Err(lost(id))
            }
            Ok(Outcome::Full) => {
                table.failed(id);
                Err(Error::new(Reason::AgentBusy, "tasks in work fill the store of the agent's tasks; raise `agent.max_stored_tasks` or `agent.max_stored_bytes`")
                    .with_retry_after(Duration::from_secs(1)))
            }
            Err(error) => {
                match stage {
                    Some(_) => table.failed(id),
                    None => table.not_forgotten(id),
                }
                Err(error)
            }
        }
    }
}

impl Pending {
    fn is_awaited(&self) -> bool {
        !self.waiting.is_empty() || !self.flushing.is_empty()
    }
}

fn tell(waiters: Option<Vec<Waiter>>, result: &Result<(), Error>) {
    for waiter in waiters.into_iter().flatten() {
        // Who does not wait any more needs not hear.
        let _ = waiter.send(result.clone());
    }
}

/// The task is another instance's by now.
pub(super) fn lost(id: &str) -> Error {
    Error::new(
        Reason::OwnerUnavailable,
        format!("task '{id}' is with another instance of this agent by now; ask again"),
    )
    .with_retry_after(Duration::from_secs(1))
}
