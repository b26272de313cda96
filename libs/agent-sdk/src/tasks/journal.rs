//! The tasks on this machine's disk: one record per task, in group commits.
//!
//! The table in memory is the truth; the disk follows it. Whoever needs to know that a task is durable asks for it and waits;
//! other changes are gathered for a moment, so that a task that comes and ends within it is written once. Records are taken
//! from the table when they are written, by one writer, so that an older state never replaces a newer one.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use muster_api::error::{Error, Reason};
use muster_runtime::data_directory;
use muster_store::{Batch, Database, Format, Keyspace, Limits};
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;

use super::table::Table;

/// How long changes are gathered that nobody waits for.
const GATHERING: Duration = Duration::from_millis(20);

/// Most records of one commit.
const AT_ONCE: usize = 256;

/// Where tasks are kept.
pub(crate) struct Disk {
    database: Database,
    tasks: Keyspace,
}

/// Has tasks written.
#[derive(Clone, Default)]
pub(crate) struct Journal {
    inner: Option<Arc<Inner>>,
}

struct Inner {
    pending: Mutex<Pending>,
    changed: Notify,
    closing: CancellationToken,
    database: Database,
}

#[derive(Default)]
struct Pending {
    dirty: BTreeSet<String>,
    waiting: Vec<oneshot::Sender<Result<(), Error>>>,
    is_closed: bool,
}

/// Writes what the journal is told.
pub(crate) struct Writer {
    inner: Arc<Inner>,
    disk: Disk,
    table: Arc<Mutex<Table>>,
}

impl Disk {
    /// Opens the store of an agent of that name in a directory, or makes it. Blocks while it recovers.
    pub(crate) fn open(name: &'static str, path: &Path) -> Result<Self, muster_runtime::Error> {
        let directory = data_directory::open(path)?;
        let failed = |error: muster_store::Error| muster_runtime::Error::DataDirectory {
            path: path.to_owned(),
            what: error.to_string(),
        };
        let format = Format {
            name,
            version: 1,
            oldest: 1,
        };
        let database = Database::open(directory, format, Limits::default()).map_err(failed)?;
        let tasks = database.keyspace("tasks").map_err(failed)?;
        Ok(Self { database, tasks })
    }

    /// Every task.
    pub(crate) fn entries(
        &self,
    ) -> impl Iterator<Item = Result<(String, Vec<u8>), muster_store::Error>> + use<> {
        self.tasks.range::<Vec<u8>>(..).map(|entry| {
            let (id, record) = entry?;
            Ok((String::from_utf8_lossy(&id).into_owned(), record))
        })
    }

    /// A journal of the table on this disk, and what writes it.
    pub(crate) fn journal(self, table: Arc<Mutex<Table>>) -> (Journal, Writer) {
        let inner = Arc::new(Inner {
            pending: Mutex::default(),
            changed: Notify::new(),
            closing: CancellationToken::new(),
            database: self.database.clone(),
        });
        let journal = Journal {
            inner: Some(Arc::clone(&inner)),
        };
        let writer = Writer {
            inner,
            disk: self,
            table,
        };
        (journal, writer)
    }
}

impl Journal {
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
            pending.waiting.push(sender);
        }
        inner.changed.notify_one();
        written
            .await
            .unwrap_or_else(|_| Err(unavailable("its writer has ended")))
    }

    /// The task will be durable soon.
    pub(crate) fn write_later(&self, id: &str) {
        if let Some(inner) = &self.inner {
            inner.pending.lock().dirty.insert(id.to_owned());
            inner.changed.notify_one();
        }
    }

    /// Writes what is still to be written, and ends.
    pub(crate) async fn close(&self) {
        let Some(inner) = &self.inner else { return };
        let (sender, written) = oneshot::channel();
        inner.pending.lock().waiting.push(sender);
        inner.closing.cancel();
        inner.changed.notify_one();
        // The writer logs what it cannot write.
        let _ = written.await;
    }

    /// Why nothing is written any more; `None` while it is.
    pub(crate) fn failure(&self) -> Option<String> {
        let inner = self.inner.as_ref()?;
        inner.database.failure().map(|failure| failure.to_string())
    }
}

impl Writer {
    /// Works until the journal is closed.
    pub(crate) async fn run(self) {
        loop {
            let is_closing = self.inner.closing.is_cancelled();
            let (ids, waiting) = self.take(is_closing);
            if ids.is_empty() && waiting.is_empty() {
                if is_closing {
                    return;
                }
                self.inner.changed.notified().await;
                self.gather().await;
                continue;
            }
            let written = self.write(&ids).await;
            if let Err(error) = &written {
                tracing::error!(%error, "tasks cannot be written");
            }
            for waiter in waiting {
                // Who does not wait any more needs not hear.
                let _ = waiter.send(written.clone());
            }
        }
    }

    /// Waits for a moment for what comes together, unless somebody waits for the disk.
    async fn gather(&self) {
        let timer = tokio::time::sleep(GATHERING);
        tokio::pin!(timer);
        loop {
            if !self.inner.pending.lock().waiting.is_empty() {
                return;
            }
            tokio::select! {
                () = self.inner.closing.cancelled() => return,
                () = &mut timer => return,
                () = self.inner.changed.notified() => {}
            }
        }
    }

    fn take(&self, is_closing: bool) -> (Vec<String>, Vec<oneshot::Sender<Result<(), Error>>>) {
        let mut pending = self.inner.pending.lock();
        let mut ids = Vec::new();
        while ids.len() < AT_ONCE
            && let Some(id) = pending.dirty.pop_first()
        {
            ids.push(id);
        }
        // Those wait for everything that was changed before, so for the last of it.
        let waiting = if pending.dirty.is_empty() {
            std::mem::take(&mut pending.waiting)
        } else {
            Vec::new()
        };
        pending.is_closed = is_closing && pending.dirty.is_empty();
        (ids, waiting)
    }

    async fn write(&self, ids: &[String]) -> Result<(), Error> {
        if ids.is_empty() {
            return Ok(());
        }
        let mut batch = Batch::new();
        {
            let table = self.table.lock();
            for id in ids {
                match table.encoded(id) {
                    Some(record) => batch.put(&self.disk.tasks, id.as_bytes(), record),
                    None => batch.remove(&self.disk.tasks, id.as_bytes()),
                }
            }
        }
        self.disk
            .database
            .commit(batch)
            .await
            .map_err(|error| unavailable(&error.to_string()))
    }
}

fn unavailable(what: &str) -> Error {
    Error::new(
        Reason::StoreUnavailable,
        format!("the task cannot be kept: {what}"),
    )
    .with_retry_after(Duration::from_secs(1))
}
