//! The inbox of one process: in memory, or on this machine's disk, durable when it is answered, in group commits.
//!
//! The queue in memory is what is worked on; the disk follows it. Each change appends what has become of its entries to one
//! log, in the order in which they changed, and waits until a writer has committed them, with whatever else waited. Whoever
//! is answered has therefore been written, and all that came before it. A change that could not be written is refused, and
//! so is every one after it until the process starts again, as the database has it.
//!
//! Three keyspaces by the entry's id: `entries` (JSON, so that fields can be added), `messages` and `answers`, which only the
//! disk holds. A process that starts ends the leases of its predecessor, which nobody else can have: one process at a time
//! has the directory.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use muster_runtime::clock::SharedClock;
use muster_runtime::data_directory;
use muster_store::{Batch, Database, Format, Keyspace, Limits};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use super::{Error, Kept, Lent, Store, token};
use crate::inbox::entry::{Change, Delivery, Draft, Entry, Millis, Policy, State};
use crate::inbox::queue::{Counts, Filter, Page, Queue, Ticked, Wanted, millis_of};

const FORMAT: Format = Format {
    name: "router-inbox",
    version: 1,
    oldest: 1,
};

/// Most changes of one commit.
const AT_ONCE: usize = 256;

/// Bytes after which a commit takes no more changes.
const BYTES_AT_ONCE: usize = 8 << 20;

/// See the module.
pub struct Local {
    clock: SharedClock,
    state: Arc<Mutex<Held>>,
    disk: Option<Disk>,
}

struct Held {
    queue: Queue,
    /// Where there is no disk.
    payloads: HashMap<String, Payloads>,
}

#[derive(Default)]
struct Payloads {
    body: Option<Bytes>,
    answer: Option<Bytes>,
}

#[derive(Clone)]
struct Disk {
    database: Database,
    entries: Keyspace,
    messages: Keyspace,
    answers: Keyspace,
    /// As long as everybody waits for what he has sent, there are never more than there are callers.
    log: mpsc::UnboundedSender<Item>,
}

/// What is to become of an entry's record.
enum Item {
    /// It is written, with its message or answer where they are new.
    Put {
        id: String,
        record: Vec<u8>,
        body: Option<Bytes>,
        answer: Option<Bytes>,
        /// The message is not needed any more.
        drops_body: bool,
    },
    /// It goes, with all that belongs to it.
    Remove(String),
    /// Somebody waits for all before.
    Wait(oneshot::Sender<Result<(), Error>>),
}

/// Writes what changes.
pub struct Writer {
    disk: Disk,
    log: mpsc::UnboundedReceiver<Item>,
}

impl Local {
    /// One that is gone with the process.
    #[must_use]
    pub fn in_memory(policy: Policy, clock: SharedClock) -> Self {
        Self {
            clock,
            state: Arc::new(Mutex::new(Held {
                queue: Queue::new(policy),
                payloads: HashMap::new(),
            })),
            disk: None,
        }
    }

    /// Opens one in a directory, or makes it; and what writes it. Blocks while it recovers.
    ///
    /// # Errors
    /// The directory cannot be used, or holds something else.
    pub fn open(
        path: &Path,
        policy: Policy,
        clock: SharedClock,
    ) -> Result<(Self, Writer), muster_runtime::Error> {
        let directory = data_directory::open(path)?;
        let failed = |what: String| muster_runtime::Error::DataDirectory {
            path: path.to_owned(),
            what,
        };
        let database = Database::open(directory, FORMAT, Limits::default())
            .map_err(|error| failed(error.to_string()))?;
        let keyspace = |name| database.keyspace(name).map_err(|error| failed(error.to_string()));
        let (entries, messages, answers) =
            (keyspace("entries")?, keyspace("messages")?, keyspace("answers")?);
        let mut queue = Queue::new(policy);
        for kept in entries.range::<Vec<u8>>(..) {
            let (id, record) = kept.map_err(|error| failed(error.to_string()))?;
            let entry = serde_json::from_slice::<Entry>(&record);
            let entry = entry.map_err(|error| {
                failed(format!(
                    "entry '{}' of the inbox is damaged: {error}",
                    String::from_utf8_lossy(&id)
                ))
            })?;
            queue.restore(entry);
        }
        queue.end_leases(Delivery::Push, millis_of(clock.now()));
        let (log, received) = mpsc::unbounded_channel();
        let disk = Disk {
            database,
            entries,
            messages,
            answers,
            log,
        };
        let mut held = Held {
            queue,
            payloads: HashMap::new(),
        };
        // Nobody waits for these; a lease that is not written as ended is ended again by the next start.
        for item in held.changed(None, None)? {
            let _writer_is_there = disk.log.send(item);
        }
        let writer = Writer {
            // A sender of its own would keep the log open for ever.
            disk: Disk {
                log: mpsc::unbounded_channel().0,
                ..disk.clone()
            },
            log: received,
        };
        let local = Self {
            clock,
            state: Arc::new(Mutex::new(held)),
            disk: Some(disk),
        };
        Ok((local, writer))
    }

    fn now(&self) -> Millis {
        millis_of(self.clock.now())
    }

    /// Changes the queue, and answers when that is durable.
    async fn write<T>(
        &self,
        body: Option<Bytes>,
        answer: Option<Bytes>,
        change: impl FnOnce(&mut Queue, Millis) -> T,
    ) -> Result<T, Error> {
        let now = self.now();
        let (done, written) = {
            let mut held = self.state.lock();
            let done = change(&mut held.queue, now);
            let items = match &self.disk {
                None => {
                    held.keep(body, answer);
                    return Ok(done);
                }
                Some(_) => held.changed(body, answer),
            };
            let items = items.map_err(|error| Error::Unavailable(error.to_string()))?;
            // Also where nothing has changed: what is answered may be somebody else's change that is not written yet.
            let (sender, written) = oneshot::channel();
            if let Some(disk) = &self.disk {
                // Under the lock: the log has the order of the changes.
                for item in items.into_iter().chain([Item::Wait(sender)]) {
                    let _gone_at_shutdown = disk.log.send(item);
                }
            }
            (done, written)
        };
        let written = written.await;
        written.unwrap_or_else(|_| Err(Error::Unavailable("the router shuts down".to_owned())))?;
        Ok(done)
    }

    /// Message and answer of an entry.
    async fn payloads(&self, id: &str) -> Result<Payloads, Error> {
        let Some(disk) = &self.disk else {
            let held = self.state.lock();
            let payloads = held.payloads.get(id);
            return Ok(Payloads {
                body: payloads.and_then(|it| it.body.clone()),
                answer: payloads.and_then(|it| it.answer.clone()),
            });
        };
        let (messages, answers, id) = (disk.messages.clone(), disk.answers.clone(), id.to_owned());
        let read = tokio::task::spawn_blocking(move || {
            let body = messages.get(&id)?.map(Bytes::from);
            let answer = answers.get(&id)?.map(Bytes::from);
            Ok::<_, muster_store::Error>(Payloads { body, answer })
        });
        let read = read
            .await
            .map_err(|error| Error::Unavailable(format!("a read was broken off: {error}")))?;
        read.map_err(|error| Error::Unavailable(error.to_string()))
    }
}

impl Held {
    /// What has changed, for the log. A new entry has `body`, one that has been answered `answer`: there is one entry at most
    /// that either can belong to.
    fn changed(
        &mut self,
        body: Option<Bytes>,
        answer: Option<Bytes>,
    ) -> Result<Vec<Item>, muster_runtime::Error> {
        let mut items = Vec::new();
        let (mut body, mut answer) = (body, answer);
        for id in self.queue.take_changed() {
            let Some(entry) = self.queue.get(&id) else {
                items.push(Item::Remove(id));
                continue;
            };
            let record = serde_json::to_vec(entry)
                .map_err(|error| muster_runtime::Error::Other(format!("encode an entry: {error}")))?;
            items.push(Item::Put {
                body: if is_new(entry) { body.take() } else { None },
                answer: if is_done(entry) { answer.take() } else { None },
                drops_body: is_done(entry),
                record,
                id,
            });
        }
        Ok(items)
    }

    /// The same where there is no disk.
    fn keep(&mut self, body: Option<Bytes>, answer: Option<Bytes>) {
        let (mut body, mut answer) = (body, answer);
        for id in self.queue.take_changed() {
            let Some(entry) = self.queue.get(&id) else {
                self.payloads.remove(&id);
                continue;
            };
            let payloads = self.payloads.entry(id).or_default();
            if is_new(entry) && body.is_some() {
                payloads.body = body.take();
            }
            if is_done(entry) {
                payloads.body = None;
                payloads.answer = answer.take().or_else(|| payloads.answer.take());
            }
        }
    }
}

/// Only what is taken in comes with a message, and is pending then.
fn is_new(entry: &Entry) -> bool {
    entry.attempts == 0 && matches!(entry.state, State::Pending { .. })
}

fn is_done(entry: &Entry) -> bool {
    matches!(entry.state, State::Done { .. })
}

impl Writer {
    /// Writes until the store is gone. It is stopped after those who may still have something to write.
    pub async fn run(mut self) {
        while let Some(first) = self.log.recv().await {
            self.commit(first).await;
        }
    }

    async fn commit(&mut self, first: Item) {
        let (mut batch, mut waiting) = (Batch::new(), Vec::new());
        let mut next = Some(first);
        let mut changes = 0;
        while let Some(item) = next {
            match item {
                Item::Wait(sender) => waiting.push(sender),
                item => {
                    changes += 1;
                    self.add(&mut batch, item);
                }
            }
            next = if changes < AT_ONCE && batch.bytes() < BYTES_AT_ONCE {
                self.log.try_recv().ok()
            } else {
                None
            };
        }
        let written = if batch.is_empty() {
            Ok(())
        } else {
            let committed = self.disk.database.commit(batch).await;
            committed.map_err(|error| Error::Unavailable(error.to_string()))
        };
        if let Err(error) = &written {
            tracing::error!(%error, "entries of the inbox cannot be written");
        }
        for sender in waiting {
            // Who does not wait any more needs not hear.
            let _gone = sender.send(written.clone());
        }
    }

    fn add(&self, batch: &mut Batch, item: Item) {
        let Disk {
            entries,
            messages,
            answers,
            ..
        } = &self.disk;
        match item {
            Item::Put {
                id,
                record,
                body,
                answer,
                drops_body,
            } => {
                if let Some(body) = body {
                    batch.put(messages, id.as_bytes(), body.to_vec());
                }
                if drops_body {
                    batch.remove(messages, id.as_bytes());
                }
                if let Some(answer) = answer {
                    batch.put(answers, id.as_bytes(), answer.to_vec());
                }
                batch.put(entries, id.into_bytes(), record);
            }
            Item::Remove(id) => {
                for keyspace in [entries, messages, answers] {
                    batch.remove(keyspace, id.as_bytes());
                }
            }
            Item::Wait(_) => {}
        }
    }
}

#[async_trait]
impl Store for Local {
    async fn enqueue(&self, draft: &Draft) -> Result<(Entry, bool), Error> {
        let body = Some(draft.body.clone());
        let taken = self
            .write(body, None, |queue, now| queue.enqueue(draft, now))
            .await?;
        taken.map_err(|refused| Error::of(&draft.id, refused))
    }

    async fn read(&self, id: &str) -> Result<Option<Kept>, Error> {
        let entry = self.state.lock().queue.get(id).cloned();
        let Some(entry) = entry else { return Ok(None) };
        let Payloads { body, answer } = self.payloads(id).await?;
        Ok(Some(Kept { entry, body, answer }))
    }

    async fn list(&self, filter: &Filter, after: u64, most: usize) -> Result<Page, Error> {
        Ok(self.state.lock().queue.list(filter, after, most))
    }

    async fn lease(&self, wanted: &Wanted) -> Result<Vec<Lent>, Error> {
        let entries = self
            .write(None, None, |queue, now| queue.lease(wanted, now, token))
            .await?;
        let mut lent = Vec::with_capacity(entries.len());
        for entry in entries {
            let State::Delivering { token, .. } = &entry.state else {
                continue;
            };
            let body = self.payloads(&entry.id).await?.body.unwrap_or_default();
            lent.push(Lent {
                token: token.clone(),
                entry,
                body,
            });
        }
        Ok(lent)
    }

    async fn change(&self, id: &str, change: Change, answer: Option<Bytes>) -> Result<Entry, Error> {
        let changed = self
            .write(None, answer, |queue, now| queue.change(id, change, now))
            .await?;
        changed.map_err(|refused| Error::of(id, refused))
    }

    async fn purge(&self, id: &str) -> Result<(), Error> {
        let purged = self.write(None, None, |queue, _| queue.purge(id)).await?;
        purged.map_err(|refused| Error::of(id, refused))
    }

    async fn tick(&self) -> Result<Ticked, Error> {
        self.write(None, None, Queue::tick_at).await
    }

    async fn heads(&self, delivery: Delivery, skipped: usize, most: usize) -> Result<Vec<String>, Error> {
        Ok(self.state.lock().queue.heads(delivery, skipped, most))
    }

    async fn counts(&self) -> Result<Counts, Error> {
        Ok(self.state.lock().queue.counts(self.now()))
    }

    fn failure(&self) -> Option<String> {
        let disk = self.disk.as_ref()?;
        disk.database.failure().map(|failure| failure.to_string())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use muster_runtime::clock::ManualClock;
    use tokio::task::JoinSet;

    use super::super::conformance::{self, HELD_TO};
    use super::*;
    use crate::inbox::entry::tests::draft;
    use crate::priority::Priority;

    fn clock() -> Arc<ManualClock> {
        Arc::new(ManualClock::new(jiff::Timestamp::from_second(1_000_000).unwrap()))
    }

    fn open(path: &Path, clock: &Arc<ManualClock>) -> (Local, JoinSet<()>) {
        let (local, writer) = Local::open(path, HELD_TO, Arc::<ManualClock>::clone(clock)).unwrap();
        let mut running = JoinSet::new();
        running.spawn(writer.run());
        (local, running)
    }

    #[tokio::test]
    async fn in_memory_it_conforms() {
        let clock = clock();
        let local = Local::in_memory(HELD_TO, Arc::<ManualClock>::clone(&clock));
        conformance::run(&local, &|by| clock.advance(by)).await;
    }

    #[tokio::test]
    async fn on_disk_it_conforms() {
        let (directory, clock) = (tempfile::tempdir().unwrap(), clock());
        let (local, _writer) = open(directory.path(), &clock);
        conformance::run(&local, &|by| clock.advance(by)).await;
    }

    #[tokio::test]
    async fn what_was_acknowledged_survives_and_leases_of_the_dead_do_not() {
        let (directory, clock) = (tempfile::tempdir().unwrap(), clock());
        let (local, mut writer) = open(directory.path(), &clock);
        for id in ["lent", "waits", "done"] {
            local
                .enqueue(&draft(id, "weather", Priority::Normal))
                .await
                .unwrap();
        }
        let wanted = |most, delivery| Wanted {
            targets: vec!["weather".to_owned()],
            delivery,
            most,
            lease: Duration::from_secs(30),
            by: "r".to_owned(),
        };
        let mut pulled = draft("pulled", "weather", Priority::Normal);
        pulled.delivery = Delivery::Pull;
        local.enqueue(&pulled).await.unwrap();
        assert_eq!(local.lease(&wanted(1, Delivery::Pull)).await.unwrap().len(), 1);
        let lent = local.lease(&wanted(3, Delivery::Push)).await.unwrap();
        let finish = Change::Finish {
            token: lent[2].token.clone(),
            by: (String::new(), String::new()),
            kept: 3,
            dropped: 0,
        };
        let answer = Bytes::from_static(b"yes");
        local.change("done", finish, Some(answer.clone())).await.unwrap();
        let retry = Change::Retry {
            token: lent[1].token.clone(),
            delay: Duration::ZERO,
            failure: None,
            counts: false,
        };
        local.change("waits", retry, None).await.unwrap();
        drop(local);
        writer.shutdown().await;

        let (local, _writer) = open(directory.path(), &clock);
        let done = local.read("done").await.unwrap().unwrap();
        assert_eq!((done.answer, done.body), (Some(answer), None));
        let counts = local.counts().await.unwrap().by_status;
        assert_eq!(counts, [2, 1, 1, 0], "the consumer's lease holds");
        let lent = local.lease(&wanted(9, Delivery::Push)).await.unwrap();
        let attempts: Vec<u32> = lent.iter().map(|it| it.entry.attempts).collect();
        assert_eq!((lent.len(), attempts), (2, vec![2, 2]));
        assert_eq!(lent[0].body, "body of lent");
        let (next, _) = local
            .enqueue(&draft("next", "weather", Priority::Normal))
            .await
            .unwrap();
        assert!(next.sequence > lent[1].entry.sequence);
    }
}
