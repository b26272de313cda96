//! What is asked about tasks that are not held here, where instances share the store.
//!
//! Reading is answered from the store. To change a task that nobody works on, this instance takes it first ([`Tasks::hold`]), changes
//! it as if it had been its own, and gives it up with the write. What another instance works on only that one changes: it is
//! asked to, by a wish in the store, and whoever asks sees in the task itself what has become of it. If that instance dies meanwhile,
//! whoever takes the task over is asked again. All of it ends within `agent.redis.patience_seconds`.

use std::time::Duration;

use a2a_pb::proto as pb;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use muster_api::error::{Error, Reason};
use prost::Message as _;
use tonic::Status;

use super::page::Query;
use super::record::{Record, is_settled};
use super::redis::{Claim, Wish};
use super::store::{Store as _, Stored};
use super::whose::Whose;
use super::{Shared, Tasks, journal, table};

/// Pauses between two looks at a task of another instance: doubling from the first to the last.
pub(super) const SHORTEST: Duration = Duration::from_millis(20);
/// See [`SHORTEST`].
pub(super) const LONGEST: Duration = Duration::from_millis(200);

/// Tasks of a page that are read at once.
const READ_AT_ONCE: usize = 16;

/// Where a task can be changed.
pub(super) enum Hold {
    /// Here, as long as it is pinned; there are no pins where nobody shares the store.
    Here(Option<Pin>),
    /// At the instance that works on it.
    Elsewhere,
}

/// Keeps a task here while it is changed; then the store hears what is left to do.
pub(super) struct Pin {
    tasks: Tasks,
    id: String,
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.tasks.table.lock().unpin(&self.id);
        self.tasks.journal.write_later(&self.id);
    }
}

impl Tasks {
    /// What the store has of a task.
    pub(super) async fn read(&self, id: &str) -> Result<Option<Stored>, Error> {
        match &self.shared {
            None => Ok(None),
            Some(shared) => shared.redis.read(id).await,
        }
    }

    /// What the store has of a task where its word counts; `None` where the table's does.
    pub(super) async fn stored_elsewhere(&self, id: &str) -> Result<Option<Stored>, Status> {
        let Some(shared) = &self.shared else {
            return Ok(None);
        };
        if self.table.lock().holds(id) {
            return Ok(None);
        }
        let stored = shared.redis.read(id).await?;
        stored.map(Some).ok_or_else(|| *table::unknown(id))
    }

    fn pin(&self, id: &str) -> Option<Pin> {
        self.table.lock().pin(id).then(|| Pin {
            tasks: self.clone(),
            id: id.to_owned(),
        })
    }

    /// Has a task here that nobody works on elsewhere, so that it can be changed.
    pub(super) async fn hold(&self, id: &str) -> Result<Hold, Status> {
        let Some(shared) = &self.shared else {
            return Ok(Hold::Here(None));
        };
        if let Some(pin) = self.pin(id) {
            return Ok(Hold::Here(Some(pin)));
        }
        let _claiming = shared.redis.claiming.lock().await;
        if let Some(pin) = self.pin(id) {
            return Ok(Hold::Here(Some(pin)));
        }
        match shared.redis.claim(id).await? {
            Claim::Unknown => Err(*table::unknown(id)),
            Claim::Lost => Err(journal::lost(id).into()),
            Claim::Held => Ok(Hold::Elsewhere),
            Claim::Mine(stored) if is_settled(stored.record.state()) => {
                self.table.lock().adopt(&stored, self.clock.monotonic());
                Ok(Hold::Here(self.pin(id)))
            }
            // It was given to this instance without its knowing.
            Claim::Mine(stored) => {
                self.arrive(shared, &stored);
                Ok(Hold::Elsewhere)
            }
        }
    }

    /// Takes in a task that another instance held, or that this one holds in the eyes of the store alone.
    pub(super) fn arrive(&self, shared: &Shared, stored: &Stored) {
        let record: &Record = &stored.record;
        let Some(id) = record.task.as_ref().map(|task| task.id.as_str()) else {
            return;
        };
        self.table.lock().adopt(stored, self.clock.monotonic());
        if is_settled(record.state()) {
            self.journal.write_later(id);
        } else if shared.left.try_send(record.clone()).is_err() {
            // Too many at once; the next look into the store finds it again.
            self.table.lock().lose(id);
        }
    }

    /// Asks for something that a task's instance has to do. `None` where that is this one, or may be.
    async fn ask<T>(
        &self,
        wish: Wish,
        done: impl Fn(&Stored) -> Result<Option<T>, Box<Status>>,
    ) -> Result<Option<T>, Status> {
        let Some(shared) = &self.shared else {
            return Ok(None);
        };
        let redis = &shared.redis;
        let id = wish.task();
        let asking = async {
            let (mut asked, mut pause) = (String::new(), SHORTEST);
            loop {
                if self.table.lock().holds(id) {
                    return Ok(None);
                }
                let stored = redis.read(id).await?;
                let stored = stored.ok_or_else(|| *table::unknown(id))?;
                if let Some(done) = done(&stored).map_err(|status| *status)? {
                    return Ok(Some(done));
                }
                if stored.worker.is_empty() {
                    return Ok(None);
                }
                // One that has died is followed by another soon.
                if stored.worker != asked && redis.wish(&stored.worker, &wish).await? {
                    asked = stored.worker;
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST);
            }
        };
        match tokio::time::timeout(redis.patience(), asking).await {
            Ok(answer) => answer,
            Err(_) => Err(late(id, "did not do what was asked", redis.patience())),
        }
    }

    /// Has a task cancelled that another instance works on.
    pub(super) async fn cancel_elsewhere(&self, id: &str) -> Result<Option<pb::Task>, Status> {
        let cancelled = |stored: &Stored| {
            let is_cancelled = table::check_cancel(id, stored.record.state())?;
            Ok(stored.record.task.clone().filter(|_| is_cancelled))
        };
        self.ask(Wish::Cancel(id.to_owned()), cancelled).await
    }

    /// Has an address added at the instance that works on the task; whether that was so.
    pub(super) async fn put_push_elsewhere(
        &self,
        id: &str,
        config: &pb::TaskPushNotificationConfig,
    ) -> Result<bool, Status> {
        let is_there = |stored: &Stored| {
            let pushes = &stored.record.pushes;
            table::check_pushes(pushes, &config.id)?;
            let is_there = pushes.iter().any(|push| push.config.as_ref() == Some(config));
            Ok(is_there.then_some(()))
        };
        let wish = Wish::PutPush(id.to_owned(), Box::new(config.clone()));
        Ok(self.ask(wish, is_there).await?.is_some())
    }

    /// Has an address removed at the instance that works on the task; whether that was so.
    pub(super) async fn remove_push_elsewhere(&self, id: &str, config: &str) -> Result<bool, Status> {
        let is_gone = |stored: &Stored| {
            let mut configs = stored
                .record
                .pushes
                .iter()
                .filter_map(|push| push.config.as_ref());
            Ok((!configs.any(|known| known.id == config)).then_some(()))
        };
        let wish = Wish::RemovePush(id.to_owned(), config.to_owned());
        Ok(self.ask(wish, is_gone).await?.is_some())
    }

    /// A page of the tasks of all instances.
    pub(super) async fn list_shared(
        &self,
        shared: &Shared,
        request: &pb::ListTasksRequest,
        whose: Whose,
    ) -> Result<pb::ListTasksResponse, Status> {
        let query = Query::read(request, whose).map_err(|status| *status)?;
        // What was answered here just now is on the list, too.
        self.journal.flush().await?;
        let redis = &shared.redis;
        let (mut keys, total) = redis.list(&query).await?;
        let has_more = keys.len() > query.size;
        keys.truncate(query.size);
        // Made before they are read one after the other, so that nothing borrows from the list of keys.
        let reads: Vec<_> = keys.iter().map(|(_, id)| redis.read(id)).collect();
        let tasks: Vec<Option<Stored>> = stream::iter(reads).buffered(READ_AT_ONCE).try_collect().await?;
        let tasks = tasks
            .into_iter()
            .flatten()
            .filter(|stored| query.whose.has(&stored.record.caller))
            .filter_map(|stored| stored.record.task);
        let tasks = tasks.map(|task| query.shown(task)).collect();
        Ok(query.answer(tasks, keys.last().filter(|_| has_more), total))
    }

    /// The task when it is settled and the store has it, whoever settles it.
    pub(super) async fn outcome_elsewhere(&self, shared: &Shared, id: &str) -> Result<pb::Task, Status> {
        let waiting = async {
            let mut pause = SHORTEST;
            loop {
                let (holds, here) = {
                    let table = self.table.lock();
                    let is_durable = table.is_durable(id);
                    (table.holds(id), is_durable.then(|| table.find(id)).flatten())
                };
                if let Some(task) = here {
                    return Ok(task);
                }
                if !holds {
                    let stored = shared.redis.read(id).await?;
                    let record = stored.ok_or_else(|| *table::unknown(id))?.record;
                    if is_settled(record.state()) {
                        return record.task.ok_or_else(|| *table::unknown(id));
                    }
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST);
            }
        };
        match tokio::time::timeout(shared.redis.patience(), waiting).await {
            Ok(outcome) => outcome,
            Err(_) => Err(late(id, "has not ended it", shared.redis.patience())),
        }
    }
}

/// The context of a task in the store that takes a message, and its size in bytes.
pub(super) fn check_message(id: &str, said: &str, stored: &Stored) -> Result<(String, usize), Box<Status>> {
    let context = stored.record.context();
    table::check_message(
        id,
        said,
        context,
        stored.record.state(),
        !stored.worker.is_empty(),
    )?;
    Ok((context.to_owned(), stored.record.encoded_len()))
}

fn late(id: &str, what: &str, patience: Duration) -> Status {
    Error::new(
        Reason::OwnerUnavailable,
        format!(
            "task '{id}' is with another instance of this agent, which {what} within {} s; read it with GetTask",
            patience.as_secs_f64()
        ),
    )
    .with_metadata("task", id)
    .with_retry_after(Duration::from_secs(1))
    .into()
}
