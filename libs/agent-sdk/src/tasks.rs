//! The tasks that clients can ask about, at work and ended, in memory and in a store.
//!
//! ```text
//! tasks.rs         what the service and the executions do with tasks
//!   table.rs       the tasks as data, under one lock
//!   journal.rs     has them written
//!     store.rs     the port: embedded.rs on this machine's disk, redis.rs for all instances of the agent
//!   whose.rs       what of it a caller has
//!   elsewhere.rs   what is asked about tasks that are not here
//!   following.rs   a task's events, here or elsewhere
//!   sharing.rs     signs of life, wishes of other instances, and what dead ones have left
//! ```
//!
//! What is relied upon:
//!
//! - **Durable before it is told.** A task whose id a caller learns before its end (a stream, an answer at once, a push) is
//!   in the store before that, and each end and question is before anybody hears of it. A task that is answered when it has ended says
//!   all there is with the answer; it is written right after it, within [`GATHERING`](journal), and is lost only where
//!   the process is killed in between.
//! - **Nothing stays WORKING.** What a process had at work when it was killed ends FAILED, or is worked on again where its
//!   skill is idempotent, [`MOST_ATTEMPTS`] times at most, because a task may be what kills the process: at the next start, and
//!   in a shared store at another instance when the lease has ended.
//! - **One order of events.** See [`table`].
//! - **To each its own.** A caller's tasks and contexts are there for nobody else but admins. See [`whose`].
//! - **One instance at a time.** In a shared store whoever works on a task, changes it or pushes its events holds it, and
//!   what others write is refused.
//!
//! Without a store all of it is in memory, and a restart forgets it.

#[cfg(test)]
mod conformance;
mod elsewhere;
mod embedded;
mod following;
mod journal;
mod page;
pub(crate) mod record;
pub(crate) mod redis;
pub(crate) mod sealed;
mod sharing;
mod store;
pub(crate) mod table;
mod tenure;
#[cfg(test)]
mod tests;
mod trail;
pub(crate) mod whose;

use std::sync::Arc;

use a2a_pb::proto as pb;
use muster_api::error::{Error, Reason};
use muster_runtime::clock::SharedClock;
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use elsewhere::Hold;
pub(crate) use embedded::Disk;
pub(crate) use following::Until;
pub(crate) use journal::{Journal, Writer};
use record::{Errand, Push, Record, is_settled};
pub(crate) use sharing::Sharing;
use table::{Bounds, Cancelled, Event, Publication, Resumed, Table};
use whose::Whose;

use crate::push::{Pushes, Settle};
use crate::sent::Window;

/// How often work is begun again that a process did not survive.
pub(crate) const MOST_ATTEMPTS: u32 = 3;

/// Most tasks that wait to be taken up where instances die; more wait in the store.
const MOST_LEFT: usize = 64;

/// All tasks of one agent process. Clones share them.
#[derive(Clone)]
pub(crate) struct Tasks {
    table: Arc<Mutex<Table>>,
    journal: Journal,
    pushes: Pushes,
    clock: SharedClock,
    /// Says that an end was told.
    told: Arc<Notify>,
    /// The messages that came lately, with what they made.
    sent: Window,
    /// The process ends.
    closing: CancellationToken,
    /// Where the store is shared.
    shared: Option<Shared>,
}

/// What goes with a store that is shared.
#[derive(Clone)]
struct Shared {
    redis: Arc<redis::Redis>,
    /// Those who follow tasks of other instances.
    followers: Arc<Semaphore>,
    /// To whoever takes up what instances leave at work.
    left: mpsc::Sender<Record>,
}

/// Work that nobody does any more, to be taken up.
pub(crate) type Left = mpsc::Receiver<Record>;

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
    ) -> Result<(Self, Option<Writer>, Left), String> {
        let table = Arc::new(Mutex::new(Table::new(bounds)));
        let mut left = Vec::new();
        let mut owed = Vec::new();
        let mut sent = Vec::new();
        let (journal, writer) = match disk {
            None => (Journal::default(), None),
            Some(disk) => {
                let mut loaded = table.lock();
                for entry in disk.entries() {
                    let (id, bytes) = entry.map_err(|error| error.to_string())?;
                    let record = loaded
                        .load(&id, bytes, clock.monotonic())
                        .map_err(|error| format!("what is stored of task '{id}' is damaged: {error}"))?;
                    let messages = record.sent.iter().cloned();
                    sent.extend(messages.map(|message| (message, id.clone())));
                    if !is_settled(record.state()) {
                        left.push(record);
                    } else if record.pushes.iter().any(|push| push.owed) {
                        owed.push(record);
                    }
                }
                drop(loaded);
                let (journal, writer) = Journal::new(Arc::new(disk), Arc::clone(&table));
                (journal, Some(writer))
            }
        };
        let tasks = Self {
            table,
            journal,
            pushes,
            clock,
            told: Arc::default(),
            sent: Window::default(),
            closing: CancellationToken::new(),
            shared: None,
        };
        tasks.sent.load(sent);
        for record in owed {
            tasks.push_snapshot(&record);
        }
        let (sender, receiver) = mpsc::channel(left.len().max(1));
        for record in left {
            // There is room for all.
            let _ = sender.try_send(record);
        }
        Ok((tasks, writer, receiver))
    }

    /// The tasks in a store that instances of the agent share, what writes them, and what takes part in the sharing.
    pub(crate) fn share(
        bounds: Bounds,
        redis: redis::Redis,
        pushes: Pushes,
        clock: SharedClock,
    ) -> (Self, Writer, Left, Sharing) {
        let redis = Arc::new(redis);
        let table = Arc::new(Mutex::new(Table::shared(bounds)));
        let (journal, writer) = Journal::new(Arc::clone(&redis) as Arc<dyn store::Store>, Arc::clone(&table));
        let (left, receiver) = mpsc::channel(MOST_LEFT);
        let tasks = Self {
            table,
            journal,
            pushes,
            clock,
            told: Arc::default(),
            sent: Window::default(),
            closing: CancellationToken::new(),
            shared: Some(Shared {
                redis,
                followers: following::places(),
                left,
            }),
        };
        let sharing = Sharing::new(tasks.clone());
        (tasks, writer, receiver, sharing)
    }

    /// What the store is called that instances share; none where each has its own.
    pub(crate) fn store_id(&self) -> Option<&str> {
        self.shared.as_ref().map(|shared| shared.redis.id())
    }

    /// The messages that came lately, with what they made.
    pub(crate) fn sent(&self) -> &Window {
        &self.sent
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
                return Err(self.not_begun(error).into());
            }
        } else {
            self.journal.write_later(&id);
        }
        Ok(())
    }

    /// Why a task is not begun. Callers that know no task to ask for may send the message again without fear: a Redis that is away is
    /// a dependency like others, and what a workflow waits for.
    fn not_begun(&self, error: Error) -> Error {
        if self.shared.is_none() || error.reason != Reason::StoreUnavailable {
            return error;
        }
        Error::new(
            Reason::DependencyUnavailable,
            format!("the task is not begun: {}", error.message),
        )
        .with_retry_after(error.retry_after.unwrap_or_default())
    }

    /// Does something with a task when it is hidden from nobody: what it has come to is durable and told.
    async fn openly<T>(&self, id: &str, act: impl FnOnce(&mut Table) -> T) -> Result<T, Status> {
        loop {
            let told = self.told.notified();
            tokio::pin!(told);
            told.as_mut().enable();
            let is_telling = {
                let mut table = self.table.lock();
                if !table.is_hidden(id) {
                    return Ok(act(&mut table));
                }
                table.is_telling(id)
            };
            if is_telling {
                told.await;
            } else if let Err(error) = self.journal.write(id).await
                && error.reason != Reason::OwnerUnavailable
            {
                return Err(error.into());
            }
        }
    }

    /// The context of a task that takes a message now, and its size in bytes.
    async fn check_message(&self, id: &str, context: &str) -> Result<(String, usize), Status> {
        match self.stored_elsewhere(id).await? {
            Some(stored) => elsewhere::check_message(id, context, &stored).map_err(|status| *status),
            None => {
                let checked = self.openly(id, |table| {
                    let context = table.check_message(id, context)?;
                    Ok((context, table.size(id)))
                });
                checked.await?.map_err(|status: Box<Status>| *status)
            }
        }
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
        let _pin = match self.hold(id).await? {
            Hold::Here(pin) => pin,
            Hold::Elsewhere => return Err(*table::at_work(id)),
        };
        let resumed = self.openly(id, |table| {
            let resumed = table.resume(id, message, errand, status, work)?;
            let pushes = table.pushes(id).unwrap_or_default();
            self.push(id, &pushes, std::slice::from_ref(&resumed.update), false);
            Ok(resumed)
        });
        let resumed = resumed.await?.map_err(|status: Box<Status>| *status)?;
        // The caller knows the task, and what it says now must not be lost.
        if let Err(error) = self.journal.write(id).await {
            if self.shared.is_some() {
                // What has become of it says the store; it is taken from there, by this instance or another.
                self.table.lock().lose(id);
                return Err(error.into());
            }
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
            if self.shared.is_some() {
                // It stays this instance's in the store, where the next look finds it.
                self.table.lock().lose(id);
            }
            return None;
        }
        revived
    }

    /// Something happened while the task is at work.
    pub(crate) fn publish(&self, id: &str, event: pb::StreamResponse) {
        let event: Event = Arc::new(event);
        {
            let mut table = self.table.lock();
            if !table.publish(id, &event) {
                return;
            }
            // Within the lock, so that the end of the task, which may come from elsewhere, is not pushed before it.
            let pushes = table.pushes(id).unwrap_or_default();
            self.push(id, &pushes, std::slice::from_ref(&event), false);
        }
        if self.shared.is_some() {
            // For those who ask at another instance.
            self.journal.write_later(id);
        }
    }

    /// The last events of a task's work; false when it had ended before.
    pub(crate) async fn settle(&self, id: &str, events: Vec<pb::StreamResponse>) -> bool {
        let publication = self.table.lock().settle(id, events);
        match publication {
            None => false,
            Some(publication) => {
                // Whoever waits hears of what went wrong by asking for the task.
                let _ = self.told(id, publication).await;
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
            self.reveal(id);
        }
    }

    /// The end of a task was told, or cannot be.
    fn reveal(&self, id: &str) {
        self.table.lock().told(id);
        self.told.notify_waiters();
    }

    /// Tells everybody what is durable now. Where instances share the store, what is not durable is not told: the end of a task
    /// may be another's to say by now.
    async fn told(&self, id: &str, publication: Publication) -> Result<(), Status> {
        self.table.lock().touch(id, self.clock.monotonic());
        if !publication.announced {
            self.journal.write_later(id);
        } else if let Err(error) = self.journal.write(id).await {
            if self.shared.is_some() {
                tracing::warn!(task_id = id, %error, "the end of a task is not told before it is durable");
                self.reveal(id);
                return Err(error.into());
            }
            tracing::error!(task_id = id, %error, "the end of a task is told and not durable");
        }
        self.push_all(id, &publication);
        publication.tell();
        self.reveal(id);
        Ok(())
    }

    /// Cancels a task.
    async fn cancel(
        &self,
        id: &str,
        event: impl FnOnce(&pb::Task) -> pb::StreamResponse,
    ) -> Result<(pb::Task, bool), Status> {
        if let Some(task) = self.cancel_elsewhere(id).await? {
            return Ok((task, false));
        }
        let _pin = match self.hold(id).await? {
            Hold::Here(pin) => pin,
            Hold::Elsewhere => return Err(journal::lost(id).into()),
        };
        self.cancel_here(id, event).await
    }

    /// Cancels a task that is here.
    #[expect(
        clippy::disallowed_methods,
        reason = "what was begun is told to all, also where who asked for it does not wait; it ends with the write"
    )]
    async fn cancel_here(
        &self,
        id: &str,
        event: impl FnOnce(&pb::Task) -> pb::StreamResponse,
    ) -> Result<(pb::Task, bool), Status> {
        let cancelled = self.openly(id, |table| table.cancel(id, event)).await?;
        match cancelled.map_err(|status| *status)? {
            Cancelled::Before(task) => Ok((*task, false)),
            Cancelled::Now(mut publication) => {
                if let Some(work) = publication.work.take() {
                    work.cancel();
                }
                let task = publication.task.clone();
                let (tasks, id) = (self.clone(), id.to_owned());
                let telling = tokio::spawn(async move { tasks.told(&id, *publication).await });
                let told = telling.await;
                told.unwrap_or_else(|error| Err(Status::internal(error.to_string())))?;
                Ok((task, true))
            }
        }
    }

    /// What there is of a task now.
    async fn find(&self, id: &str) -> Result<Option<Record>, Status> {
        match self.openly(id, |table| table.record(id)).await? {
            Some(record) => Ok(Some(record)),
            None => Ok(self.read(id).await?.map(|stored| stored.record)),
        }
    }

    /// Whose a task is.
    async fn caller_of(&self, id: &str) -> Result<Option<Arc<str>>, Status> {
        let here = self.table.lock().caller(id);
        match here {
            Some(caller) => Ok(Some(caller)),
            None => Ok(self.read(id).await?.map(|stored| Arc::from(stored.record.caller))),
        }
    }

    /// A page of the tasks of a caller, or of all.
    async fn list(
        &self,
        request: &pb::ListTasksRequest,
        whose: Whose,
    ) -> Result<pb::ListTasksResponse, Status> {
        match &self.shared {
            None => {
                let (page, hidden) = {
                    let table = self.table.lock();
                    let page = table.list(request, whose).map_err(|status| *status)?;
                    let hidden = table.hidden(&page);
                    (page, hidden)
                };
                for id in hidden {
                    self.openly(&id, |_| ()).await?;
                }
                Ok(page)
            }
            Some(shared) => self.list_shared(shared, request, whose).await,
        }
    }

    /// Resolves with the task when nobody works on it any more.
    pub(crate) async fn wait(&self, id: &str) -> Result<Option<oneshot::Receiver<pb::Task>>, Status> {
        self.openly(id, |table| table.wait(id)).await
    }

    /// The task when nobody works on it any more, where whoever worked on it here was not the one to end it.
    pub(crate) async fn outcome(&self, id: &str) -> Result<pb::Task, Status> {
        match &self.shared {
            None => Err(*table::unknown(id)),
            Some(shared) => self.outcome_elsewhere(shared, id).await,
        }
    }

    /// Says that a caller knows of the task; it is durable when this returns.
    pub(crate) async fn announce(&self, id: &str) -> Result<(), Status> {
        self.table.lock().announce(id);
        self.journal.write(id).await.map_err(Status::from)
    }

    /// Where a task's updates are pushed to.
    async fn pushes(&self, id: &str) -> Result<Vec<pb::TaskPushNotificationConfig>, Status> {
        let pushes = match self.stored_elsewhere(id).await? {
            Some(stored) => stored.record.pushes,
            None => self.table.lock().pushes(id).map_err(|status| *status)?,
        };
        Ok(pushes.into_iter().filter_map(|push| push.config).collect())
    }

    /// Adds or replaces an address; it is durable when this returns.
    async fn put_push(&self, id: &str, config: pb::TaskPushNotificationConfig) -> Result<(), Status> {
        if self.put_push_elsewhere(id, &config).await? {
            return Ok(());
        }
        let _pin = match self.hold(id).await? {
            Hold::Here(pin) => pin,
            Hold::Elsewhere => return Err(journal::lost(id).into()),
        };
        self.put_push_here(id, config).await
    }

    async fn put_push_here(&self, id: &str, config: pb::TaskPushNotificationConfig) -> Result<(), Status> {
        self.table.lock().put_push(id, config).map_err(|status| *status)?;
        self.journal.write(id).await.map_err(Status::from)
    }

    /// Removes an address; it is durable when this returns.
    async fn remove_push(&self, id: &str, config: &str) -> Result<(), Status> {
        if self.remove_push_elsewhere(id, config).await? {
            return Ok(());
        }
        let _pin = match self.hold(id).await? {
            Hold::Here(pin) => pin,
            Hold::Elsewhere => return Err(journal::lost(id).into()),
        };
        self.remove_push_here(id, config).await
    }

    async fn remove_push_here(&self, id: &str, config: &str) -> Result<(), Status> {
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
            let settle = owed.then(|| {
                let (tasks, task, name) = (self.clone(), id.to_owned(), config.id.clone());
                Box::new(move || {
                    tasks.table.lock().pushed(&task, &name);
                    tasks.journal.write_later(&task);
                }) as Settle
            });
            self.pushes.deliver(id, config, events, settle);
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

    /// Sends nothing more of tasks that are other instances'.
    fn forget_lost(&self) {
        let lost = self.table.lock().take_lost();
        for id in lost {
            self.pushes.forget_all(&id);
        }
    }

    /// Sends what receivers are still to be told and what is not under way already: of tasks of other instances, and of those whose end
    /// became durable later than it should have.
    fn push_owed(&self) {
        let owing = self.table.lock().owing();
        for mut record in owing {
            let Some(id) = record.task.as_ref().map(|task| task.id.clone()) else {
                continue;
            };
            record.pushes.retain(|push| {
                push.config
                    .as_ref()
                    .is_some_and(|config| !self.pushes.are_under_way(&id, &config.id))
            });
            self.push_snapshot(&record);
        }
    }

    /// Why nothing is kept any more; `None` while it is.
    pub(crate) fn failure(&self) -> Option<String> {
        self.journal.failure()
    }

    /// Ends every stream, writes what is still to be written, and leaves the rest to the other instances.
    pub(crate) async fn close(&self) {
        self.closing.cancel();
        self.table.lock().dismiss();
        self.journal.close().await;
        if let Some(shared) = &self.shared {
            shared.redis.leave().await;
        }
    }
}
