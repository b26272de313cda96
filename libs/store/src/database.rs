//! Opening, closing, and the way to the writer.

use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use fjall::compaction::Leveled;
use fjall::config::PartitioningPolicy;
use fjall::{KeyspaceCreateOptions, PersistMode};
use muster_runtime::clock::SystemClock;
use muster_runtime::data_directory::DataDirectory;
use tokio::sync::{mpsc, oneshot};

use crate::commit::{Failure, LONGEST_KEY, Observer, Request, Writer};
use crate::visible::Visible;
use crate::{Batch, CommitError, Error, Format, Keys, Keyspace, journal, layout, seal};

/// Where the engine's own files are, below the data directory.
const FILES: &str = "data";

/// A sorted file is ended at this size. Keys grow with time, so what is new overlaps only the last file, which is what merging
/// rewrites; with the 64 MiB that the engine would take, it is a multiple of what is new.
const TABLE_BYTES: u64 = 8 * 1024 * 1024;

/// How much memory and queue a database may use. The defaults suit a service that shares a laptop with seven others.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Memory for blocks read from disk.
    pub cache_bytes: u64,
    /// Memory per keyspace for what is not yet in sorted files; at most four such tables wait for the disk.
    pub memtable_bytes: u64,
    /// How many batches may wait for the writer.
    pub queued_batches: usize,
    /// Largest batch.
    pub batch_bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        const MIB: usize = 1024 * 1024;
        Self {
            cache_bytes: 2 * MIB as u64,
            memtable_bytes: 2 * MIB as u64,
            queued_batches: 1024,
            batch_bytes: 32 * MIB,
        }
    }
}

/// An open database. Clones share it; it closes when the last of them and of its keyspaces is gone, after the
/// batches that were handed over are written.
#[derive(Clone)]
pub struct Database {
    shared: Arc<Shared>,
}

/// In the order in which it is taken down: no more requests, the writer, the engine, the directory's lock.
pub(crate) struct Shared {
    requests: Option<mpsc::Sender<Request>>,
    writer: Option<JoinHandle<()>>,
    engine: fjall::Database,
    visible: Visible,
    failure: Failure,
    observer: Observer,
    keys: Option<Keys>,
    format: Format,
    limits: Limits,
    path: PathBuf,
    _directory: DataDirectory,
}

impl Shared {
    /// What has been committed by now.
    pub(crate) fn snapshot(&self) -> fjall::Snapshot {
        self.visible.snapshot()
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The keys by which values are encrypted and read, if they are.
    pub(crate) fn keys(&self) -> Option<&Keys> {
        self.keys.as_ref()
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.requests = None;
        if let Some(writer) = self.writer.take()
            && writer.join().is_err()
        {
            tracing::error!(path = %self.path.display(), "the store's writer ended by a panic");
        }
    }
}

impl Database {
    /// Opens the database in `directory`, or makes it. Reads what is to be recovered, so it may block for a while.
    ///
    /// # Errors
    /// The directory holds something else, a newer format or damaged files, or cannot be used.
    pub fn open(directory: DataDirectory, format: Format, limits: Limits) -> Result<Self, Error> {
        Self::open_with(directory, format, limits, None)
    }

    /// The same with keys by which what it holds is encrypted; see [`seal`](mod@crate::seal). What is there and is not encrypted
    /// is read as it is.
    ///
    /// # Errors
    /// As [`Self::open`]; or what it holds is encrypted, and a key that is needed is missing or another one.
    pub fn open_with(
        directory: DataDirectory,
        format: Format,
        limits: Limits,
        keys: Option<Keys>,
    ) -> Result<Self, Error> {
        format.check_or_mark(directory.path())?;
        let path = directory.path().join(FILES);
        layout::check(&path)?;
        journal::check(&path)?;
        let engine = guarded(&path, "open", || {
            fjall::Database::builder(&path)
                .cache_size(limits.cache_bytes)
                .worker_threads(1)
                .max_cached_files(Some(64))
                .manual_journal_persist(true)
                .open()
        })?;
        unlock(&engine, &path, keys.as_ref())?;
        if keys.is_some() {
            format.mark_sealed(directory.path())?;
        }
        let (requests, queue) = mpsc::channel(limits.queued_batches.max(1));
        let visible = Visible::of(&engine);
        let failure = Failure::default();
        let observer = Observer::default();
        let writer = Writer {
            engine: engine.clone(),
            keys: keys.clone(),
            visible: visible.clone(),
            directory: path.clone(),
            queue,
            failure: failure.clone(),
            group_bytes: limits.batch_bytes / 4,
            clock: SystemClock::default(),
            observer: Arc::clone(&observer),
        };
        let writer = std::thread::Builder::new()
            .name("store-writer".to_owned())
            .spawn(move || writer.run())
            .map_err(|error| Error::io(&path, "start the writer thread", error))?;
        Ok(Self {
            shared: Arc::new(Shared {
                requests: Some(requests),
                writer: Some(writer),
                engine,
                visible,
                failure,
                observer,
                keys,
                format,
                limits,
                path,
                _directory: directory,
            }),
        })
    }

    /// Has somebody told of each group of batches that is written from now on: how many batches it had, and how long writing and
    /// syncing it took. On the writer's thread, which waits meanwhile. The first who asks is told.
    pub fn observe(&self, observe: impl Fn(usize, std::time::Duration) + Send + Sync + 'static) {
        let _first_wins = self.shared.observer.set(Box::new(observe));
    }

    /// The keyspace called `name`, made if it is not there. Meant for the few that a service knows by name.
    ///
    /// # Errors
    /// Its files cannot be made or read.
    pub fn keyspace(&self, name: &'static str) -> Result<Keyspace, Error> {
        self.keyspace_named(name)
    }

    pub(crate) fn keyspace_named(&self, name: &str) -> Result<Keyspace, Error> {
        let memtable = self.shared.limits.memtable_bytes;
        let engine = guarded(&self.shared.path, "open a keyspace", || {
            self.shared.engine.keyspace(name, || {
                KeyspaceCreateOptions::default()
                    .max_memtable_size(memtable)
                    .compaction_strategy(Arc::new(Leveled::default().with_table_target_size(TABLE_BYTES)))
                    // In one piece, the filter of a file is a hundred KiB that each read of a key takes from it, unless they
                    // are in the cache, which is small.
                    .filter_block_partitioning_policy(PartitioningPolicy::all(true))
                    .index_block_partitioning_policy(PartitioningPolicy::all(true))
            })
        })?;
        Ok(Keyspace::new(engine, Arc::clone(&self.shared)))
    }

    /// Writes `batch` and answers once it is on disk. Waits while the queue is full. A caller that stops waiting
    /// does not stop the batch.
    ///
    /// # Errors
    /// See [`CommitError`]; after [`CommitError::Stopped`] it is unknown whether the batch is on disk.
    pub async fn commit(&self, batch: Batch) -> Result<(), CommitError> {
        let limit = self.shared.limits.batch_bytes;
        let bytes = batch.bytes();
        if bytes > limit {
            return Err(CommitError::TooLarge { bytes, limit });
        }
        if batch.longest_key() > LONGEST_KEY {
            return Err(CommitError::TooLarge {
                bytes: batch.longest_key(),
                limit: LONGEST_KEY,
            });
        }
        if batch.is_empty() && batch.expectations.is_empty() {
            return Ok(());
        }
        if let Some(stopped) = self.failure() {
            return Err(stopped);
        }
        let (answer, result) = oneshot::channel();
        if let Some(requests) = &self.shared.requests
            && requests.send(Request { batch, answer }).await.is_ok()
            && let Ok(result) = result.await
        {
            return result;
        }
        let what = "its writer has ended".to_owned();
        Err(self.failure().unwrap_or(CommitError::Stopped {
            path: self.shared.path.clone(),
            what,
        }))
    }

    /// Why the store takes no more writes; `None` while it works. For a health check.
    #[must_use]
    pub fn failure(&self) -> Option<CommitError> {
        self.shared.failure.get()
    }

    pub(crate) fn engine(&self) -> &fjall::Database {
        &self.shared.engine
    }

    pub(crate) fn snapshot(&self) -> fjall::Snapshot {
        self.shared.snapshot()
    }

    pub(crate) fn format(&self) -> Format {
        self.shared.format
    }

    /// The directory of the engine's files.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.shared.path
    }
}

/// Checks that the keys are those that the database needs; writes down that it needs the one that writes, before anything is
/// written with it.
fn unlock(engine: &fjall::Database, path: &Path, keys: Option<&Keys>) -> Result<(), Error> {
    if keys.is_none() && !is_sealed(engine) {
        return Ok(());
    }
    let keyspace = guarded(path, "open a keyspace", || {
        engine.keyspace(seal::KEYSPACE, KeyspaceCreateOptions::default)
    })?;
    let mut needed = Vec::new();
    for entry in keyspace.iter() {
        let (id, known) = entry
            .into_inner()
            .map_err(|error| Error::engine(path, "read", error))?;
        needed.push((id.to_vec(), known.to_vec()));
    }
    seal::check(path, &needed, keys)?;
    let Some(keys) = keys else { return Ok(()) };
    let id = keys.writing().as_bytes();
    if !needed.iter().any(|(needed, _)| needed == id) {
        let written = keyspace
            .insert(id, keys.known())
            .and_then(|()| engine.persist(PersistMode::SyncAll));
        written.map_err(|error| Error::engine(path, "write", error))?;
        tracing::info!(path = %path.display(), key = keys.writing(), "values are encrypted with this key from now on");
    }
    Ok(())
}

/// Whether what it holds is encrypted.
pub(crate) fn is_sealed(engine: &fjall::Database) -> bool {
    engine.keyspace_exists(seal::KEYSPACE)
}

/// The engine trusts its own files and panics on some that cannot be; to us they are damaged.
fn guarded<T>(path: &Path, action: &'static str, run: impl FnOnce() -> fjall::Result<T>) -> Result<T, Error> {
    match std::panic::catch_unwind(AssertUnwindSafe(run)) {
        Ok(result) => result.map_err(|error| Error::engine(path, action, error)),
        Err(panic) => {
            let what = panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .unwrap_or("the storage engine panicked");
            Err(Error::damaged(path, format!("cannot {action}: {what}")))
        }
    }
}
