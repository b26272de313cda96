//! The tasks that clients can ask about, at work and ended, in memory and on disk.
//!
//! ```text
//! tasks.rs       what the service and the executions do with tasks
//!   table.rs     the tasks as data, under one lock
//!   journal.rs   the same on disk
//! ```
//!
//! What is relied upon:
//!
//! - **Durable before it is told.** A task whose id a caller learns before its end (a stream, an answer at once, a push) is
//!   on disk before that, and each end and question is before anybody hears of it. A task that is answered when it has ended says
//!   all there is with the answer; it is written right after it, within [`GATHERING`](journal), and is lost only where
//!   the process is killed in between.
//! - **Nothing stays WORKING.** What a process had at work when it was killed ends FAILED at the next start, or is worked on
//!   again where its skill is idempotent, [`MOST_ATTEMPTS`] times at most, because a task may be what kills the process.
//! - **One order of events.** See [`table`].
//!
//! Without a data directory all of it is in memory, and a restart forgets it.

mod journal;
mod page;
pub(crate) mod record;
pub(crate) mod table;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::sync::atomic::Ordering;

use a2a_pb::proto::{self as pb, TaskState};
use futures::StreamExt as _;
use muster_a2a::Events;
use muster_api::error::{Error, Reason};
use muster_runtime::clock::SharedClock;
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tonic::Status;

pub(crate) use journal::{Disk, Journal, Writer};
use record::{Errand, Push, Record, is_settled, is_terminal};
use table::{Bounds, Cancelled, Event, Follower, Publication, Resumed, Table};

use crate::push::Pushes;

/// How often work is begun again that a process did not survive.
pub(crate) const MOST_ATTEMPTS: u32 = 3;

/// All tasks of one agent process. Clones share them.
#[derive(Clone)]
pub(crate) struct Tasks {
    table: Arc<Mutex<Table>>,
    journal: Journal,
    pushes: Pushes,
    clock: SharedClock,
    /// The process ends.
    closing: CancellationToken,
}

/// When a stream of events ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Until {
    /// Nobody works on the task any more.
    Settled,
    /// The task has ended.
    Ended,
}

impl Tasks {
    /// The tasks on a disk, with what an earlier process left at work, and what writes them; or in memory alone.
    ///
    /// # Errors
    /// When the disk cannot be read.
    pub(crate) fn open(
        bounds: Bounds,
        disk: Option<Disk>,
        pushes: Pushes,
        clock: SharedClock,
    ) -> Result<(Self, Option<Writer>, Vec<Record>), String> {
        let table = Arc::new(Mutex::new(Table::new(bounds)));
        let mut left = Vec::new();
        let mut owed = Vec::new();
        let (journal, writer) = match disk {
            None => (Journal::default(), None),
            Some(disk) => {
                let mut loaded = table.lock();
                for entry in disk.entries() {
                    let (id, bytes) = entry.map_err(|error| error.to_string())?;
                    let record = loaded
                        .load(&id, bytes, clock.monotonic())
                        .map_err(|error| format!("what is stored of task '{id}' is damaged: {error}"))?;
                    if !is_settled(record.state()) {
                        left.push(record);
                    } else if record.pushes.iter().any(|push| push.owed) {
                        owed.push(record);
                    }
                }
                drop(loaded);
                let (journal, writer) = disk.journal(Arc::clone(&table));
                (journal, Some(writer))
            }
        };
        let tasks = Self {
            table,
            journal,
            pushes,
            clock,
            closing: CancellationToken::new(),
        };
        for record in owed {
            tasks.push_snapshot(&record);
        }
        Ok((tasks, writer, left))
    }

    /// A new task that is at work.
    pub(crate) async fn create(
        &self,
        record: Record,
        work: CancellationToken,
        announced: bool,
    ) -> Result<(), Status> {
        let id = record
            .task
            .as_ref()
            .map(|task| task.id.clone())
            .unwrap_or_default();
        let forgotten = {
            let mut table = self.table.lock();
            let created = table.create(record, work, announced, self.clock.monotonic());
            let forgotten = table.forgotten();
            created.map_err(|status| *status)?;
            forgotten
        };
        for forgotten in forgotten {
            self.journal.write_later(&forgotten);
        }
        if announced {
            if let Err(error) = self.journal.write(&id).await {
                self.table.lock().withdraw(&id);
                self.journal.write_later(&id);
                return Err(error.into());
            }
        } else {
            self.journal.write_later(&id);
        }
        Ok(())
    }

    /// The context of a task that takes a message now.
    pub(crate) fn check_message(&self, id: &str, context: &str) -> Result<String, Status> {
        self.table
            .lock()
            .check_message(id, context)
            .map_err(|status| *status)
    }

    /// Takes a task up again with a message.
    pub(crate) async fn resume(
        &self,
        id: &str,
        message: &pb::Message,
        errand: Errand,
        status: pb::TaskStatus,
        work: CancellationToken,
    ) -> Result<Resumed, Status> {
        let resumed = self
            .table
            .lock()
            .resume(id, message, errand, status, work)
            .map_err(|status| *status)?;
        // The caller knows the task, and what it says now must not be lost.
        if let Err(error) = self.journal.write(id).await {
            tracing::warn!(task_id = id, %error, "a message is taken that is not durable");
        }
        Ok(resumed)
    }

    /// Takes a task up again that an earlier process had begun.
    pub(crate) async fn revive(&self, id: &str, work: CancellationToken) -> Option<Record> {
        let revived = self.table.lock().revive(id, work).ok();
        // Counted before it begins, as it may be the end of this process, too.
        if let Err(error) = self.journal.write(id).await {
            tracing::error!(task_id = id, %error, "a task that was left is not taken up");
            return None;
        }
        revived
    }

    /// Something happened while the task is at work.
    pub(crate) fn publish(&self, id: &str, event: pb::StreamResponse) {
        let event: Event = Arc::new(event);
        let pushes = {
            let mut table = self.table.lock();
            table.publish(id, &event);
            table.pushes(id).unwrap_or_default()
        };
        self.push(id, &pushes, std::slice::from_ref(&event), false);
    }

    /// The last events of a task's work; false when it had ended before.
    pub(crate) async fn settle(&self, id: &str, events: Vec<pb::StreamResponse>) -> bool {
        let publication = self.table.lock().settle(id, events);
        match publication {
            None => false,
            Some(publication) => {
                self.told(id, publication).await;
                true
            }
        }
    }

    /// Ends a task whose work broke off so badly that nothing else could.
    pub(crate) fn abandon(&self, id: &str, events: Vec<pb::StreamResponse>) {
        let publication = self.table.lock().settle(id, events);
        if let Some(publication) = publication {
            self.journal.write_later(id);
            self.push_all(id, &publication);
            publication.tell();
        }
    }

    /// Tells everybody what is durable now.
    async fn told(&self, id: &str, publication: Publication) {
        self.table.lock().touch(id, self.clock.monotonic());
        if publication.announced {
            if let Err(error) = self.journal.write(id).await {
                tracing::error!(task_id = id, %error, "the end of a task is told and not durable");
            }
        } else {
            self.journal.write_later(id);
        }
        self.push_all(id, &publication);
        publication.tell();
    }

    /// Cancels a task.
    pub(crate) async fn cancel(
        &self,
        id: &str,
        event: impl FnOnce(&pb::Task) -> pb::StreamResponse,
    ) -> Result<(pb::Task, bool), Status> {
        let cancelled = self.table.lock().cancel(id, event).map_err(|status| *status)?;
        match cancelled {
            Cancelled::Before(task) => Ok((*task, false)),
            Cancelled::Now(mut publication) => {
                if let Some(work) = publication.work.take() {
                    work.cancel();
                }
                let task = publication.task.clone();
                self.told(id, *publication).await;
                Ok((task, true))
            }
        }
    }

    /// The task as it is now.
    pub(crate) fn find(&self, id: &str) -> Option<pb::Task> {
        self.table.lock().find(id)
    }

    /// A page of tasks.
    pub(crate) fn list(&self, request: &pb::ListTasksRequest) -> Result<pb::ListTasksResponse, Status> {
        self.table.lock().list(request).map_err(|status| *status)
    }

    /// Resolves with the task when nobody works on it any more.
    pub(crate) fn wait(&self, id: &str) -> Option<oneshot::Receiver<pb::Task>> {
        self.table.lock().wait(id)
    }

    /// Says that a caller knows of the task; it is durable when this returns.
    pub(crate) async fn announce(&self, id: &str) -> Result<(), Status> {
        self.table.lock().announce(id);
        self.journal.write(id).await.map_err(Status::from)
    }

    /// A task as it is now, and what happens to it from here on.
    pub(crate) fn follow(&self, id: &str, until: Until) -> Result<Events, Status> {
        let (task, follower) = self.table.lock().follow(id).map_err(|status| *status)?;
        let first = pb::StreamResponse {
            payload: Some(pb::stream_response::Payload::Task(task)),
        };
        let following = Following {
            tasks: self.clone(),
            id: id.to_owned(),
            follower: Some(follower),
            until,
        };
        let events = futures::stream::unfold(Some(following), |following| async {
            let mut following = following?;
            let event = following.next().await?;
            let goes_on = event.is_ok() && following.follower.is_some();
            Some((event, goes_on.then_some(following)))
        });
        Ok(futures::stream::iter([Ok(first)]).chain(events).boxed())
    }

    /// Where a task's updates are pushed to.
    pub(crate) fn pushes(&self, id: &str) -> Result<Vec<pb::TaskPushNotificationConfig>, Status> {
        let pushes = self.table.lock().pushes(id).map_err(|status| *status)?;
        Ok(pushes.into_iter().filter_map(|push| push.config).collect())
    }

    /// Adds or replaces an address; it is durable when this returns.
    pub(crate) async fn put_push(
        &self,
        id: &str,
        config: pb::TaskPushNotificationConfig,
    ) -> Result<(), Status> {
        self.table.lock().put_push(id, config).map_err(|status| *status)?;
        self.journal.write(id).await.map_err(Status::from)
    }

    /// Removes an address; it is durable when this returns.
    pub(crate) async fn remove_push(&self, id: &str, config: &str) -> Result<(), Status> {
        self.table
            .lock()
            .remove_push(id, config)
            .map_err(|status| *status)?;
        self.pushes.forget(id, config);
        self.journal.write(id).await.map_err(Status::from)
    }

    fn push_all(&self, id: &str, publication: &Publication) {
        let pushes = self.table.lock().pushes(id).unwrap_or_default();
        self.push(id, &pushes, publication.events(), true);
    }

    /// Sends events to every address; `owed` are those whose delivery is noted on disk.
    fn push(&self, id: &str, pushes: &[Push], events: &[Event], owed: bool) {
        for config in pushes.iter().filter_map(|push| push.config.as_ref()) {
            let (tasks, task, name) = (self.clone(), id.to_owned(), config.id.clone());
            let delivered = move || {
                if owed {
                    tasks.table.lock().pushed(&task, &name);
                    tasks.journal.write_later(&task);
                }
            };
            self.pushes.deliver(id, config, events, delivered);
        }
    }

    /// What an earlier process did not deliver any more: where the task stands now.
    fn push_snapshot(&self, record: &Record) {
        let Some(task) = &record.task else { return };
        let snapshot: Event = Arc::new(pb::StreamResponse {
            payload: Some(pb::stream_response::Payload::Task(task.clone())),
        });
        let owed: Vec<Push> = record.pushes.iter().filter(|push| push.owed).cloned().collect();
        self.push(&task.id, &owed, &[snapshot], true);
    }

    /// Why nothing is kept any more; `None` while it is.
    pub(crate) fn failure(&self) -> Option<String> {
        self.journal.failure()
    }

    /// Ends every stream and writes what is still to be written.
    pub(crate) async fn close(&self) {
        self.closing.cancel();
        self.table.lock().dismiss();
        self.journal.close().await;
    }
}

/// A stream's end at the agent.
struct Following {
    tasks: Tasks,
    id: String,
    /// `None` when the last event was given.
    follower: Option<Follower>,
    until: Until,
}

impl Following {
    async fn next(&mut self) -> Option<Result<pb::StreamResponse, Status>> {
        let follower = self.follower.as_mut()?;
        let Some(event) = follower.events.recv().await else {
            if follower.overrun.load(Ordering::Relaxed) {
                let error = Error::new(
                    Reason::WatchOverrun,
                    format!("the stream of task '{}' was not read for too long", self.id),
                );
                return Some(Err(error.into()));
            }
            if self.tasks.closing.is_cancelled() {
                let error = Error::new(Reason::ShuttingDown, "the agent shuts down; subscribe again");
                return Some(Err(error
                    .with_retry_after(std::time::Duration::from_secs(1))
                    .into()));
            }
            return None;
        };
        if self.is_last(&event) {
            self.follower = None;
        }
        Some(Ok(pb::StreamResponse::clone(&event)))
    }

    fn is_last(&self, event: &pb::StreamResponse) -> bool {
        let Some(pb::stream_response::Payload::StatusUpdate(update)) = &event.payload else {
            return false;
        };
        let state = update
            .status
            .as_ref()
            .map_or(TaskState::Unspecified, pb::TaskStatus::state);
        match self.until {
            Until::Settled => is_settled(state),
            Until::Ended => is_terminal(state),
        }
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.follower = None;
        self.tasks.table.lock().unfollow(&self.id);
    }
}
