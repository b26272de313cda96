//! A backup of the store as a stream, while the engine works.
//!
//! A thread of its own reads one snapshot and hands over one chunk after the other, at the pace of whoever takes them; nothing
//! else waits for it. The snapshot keeps what is deleted meanwhile on disk, so there is one backup at a time, and one that
//! nobody takes for a while is broken off. When the engine stops, so does the backup: it is of no use in part, and holds the data
//! directory.

use std::io::{self, BufWriter, ErrorKind, Write};
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, stream};
use muster_runtime::Shutdown;
use muster_runtime::clock::SharedClock;
use muster_store::Database;
use muster_store::backup::{Error as StoreError, Summary};
use tokio::runtime::Handle;
use tokio::sync::mpsc::error::SendTimeoutError;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinHandle;

use crate::error::Error;

/// Size of a chunk, except that the last may be smaller.
const CHUNK_BYTES: usize = 128 * 1024;

/// So many chunks wait to be taken.
const CHUNKS_AHEAD: usize = 4;

/// For so long a chunk may wait to be taken.
const PATIENCE: Duration = Duration::from_secs(60);

/// Makes backups of a store.
pub struct Backups {
    database: Option<Database>,
    clock: SharedClock,
    shutdown: Shutdown,
    places: Arc<Semaphore>,
    patience: Duration,
}

impl Backups {
    /// Of this database; without one every backup is refused, with what to do in its place.
    #[must_use]
    pub fn new(database: Option<Database>, clock: SharedClock, shutdown: Shutdown) -> Self {
        Self {
            database,
            clock,
            shutdown,
            places: Arc::new(Semaphore::new(1)),
            patience: PATIENCE,
        }
    }

    /// Begins a backup of what is durable by now.
    ///
    /// # Errors
    /// Another backup is being taken, the engine stops, or the store is not its own.
    pub fn begin(&self) -> Result<impl Stream<Item = Result<Vec<u8>, Error>> + Send + use<>, Error> {
        if self.shutdown.is_requested() {
            return Err(Error::ShuttingDown);
        }
        let database = self.database.clone().ok_or(Error::BackupElsewhere)?;
        let place = Arc::clone(&self.places)
            .try_acquire_owned()
            .map_err(|_| Error::BackupRunning)?;
        let (sender, chunks) = mpsc::channel(CHUNKS_AHEAD);
        let writer = Chunks {
            to: sender,
            patience: self.patience,
            runtime: Handle::current(),
        };
        let now = self.clock.now();
        let making = tokio::task::spawn_blocking(move || {
            let made = database.back_up(now, BufWriter::with_capacity(CHUNK_BYTES, writer));
            match &made {
                Ok(Summary { bytes, sha256, .. }) => tracing::info!(bytes, sha256, "a backup was made"),
                Err(error) => tracing::warn!(%error, "a backup was broken off"),
            }
            // Before the next one may begin, so that there are never two snapshots.
            drop(database);
            drop(place);
            made
        });
        let taking = Taking {
            chunks,
            making,
            shutdown: self.shutdown.clone(),
            patience: self.patience,
        };
        Ok(stream::unfold(Some(taking), |taking| async move {
            let mut taking = taking?;
            match taking.next().await {
                Ok(Some(chunk)) => Some((Ok(chunk), Some(taking))),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        }))
    }
}

/// One backup, from the side of whoever takes it.
struct Taking {
    chunks: mpsc::Receiver<Vec<u8>>,
    making: JoinHandle<Result<Summary, StoreError>>,
    shutdown: Shutdown,
    patience: Duration,
}

impl Taking {
    /// The next chunk; nothing after the last of a whole backup.
    async fn next(&mut self) -> Result<Option<Vec<u8>>, Error> {
        let chunk = tokio::select! {
            biased;
            () = self.shutdown.requested() => return Err(Error::ShuttingDown),
            chunk = self.chunks.recv() => chunk,
        };
        if chunk.is_some() {
            return Ok(chunk);
        }
        match (&mut self.making).await {
            Ok(Ok(_)) => Ok(None),
            Ok(Err(StoreError::Io { source, .. })) if source.kind() == ErrorKind::TimedOut => {
                Err(Error::BackupStalled(self.patience))
            }
            Ok(Err(error)) => Err(Error::Backup(error)),
            Err(panic) => Err(Error::Defect(format!("the backup has broken off: {panic}"))),
        }
    }
}

/// Hands over what is written to it, chunk by chunk.
struct Chunks {
    to: mpsc::Sender<Vec<u8>>,
    patience: Duration,
    runtime: Handle,
}

impl Write for Chunks {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let chunk = bytes.get(..CHUNK_BYTES).unwrap_or(bytes);
        let sent = self.to.send_timeout(chunk.to_vec(), self.patience);
        match self.runtime.block_on(sent) {
            Ok(()) => Ok(chunk.len()),
            Err(SendTimeoutError::Timeout(_)) => Err(ErrorKind::TimedOut.into()),
            Err(SendTimeoutError::Closed(_)) => Err(ErrorKind::BrokenPipe.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use futures::StreamExt as _;
    use muster_runtime::clock::SystemClock;
    use muster_store::backup;
    use muster_store::{Batch, Limits};

    use super::*;
    use crate::store::embedded::FORMAT;

    /// Of a database with more than fits the chunks that may wait.
    async fn backups(directory: &Path) -> Backups {
        let directory = muster_runtime::data_directory::open(directory).unwrap();
        let database = Database::open(directory, FORMAT, Limits::default()).unwrap();
        let keyspace = database.keyspace("k").unwrap();
        for number in 0..2 * CHUNKS_AHEAD {
            let mut batch = Batch::new();
            batch.put(&keyspace, number.to_be_bytes(), vec![1; 2 * CHUNK_BYTES]);
            database.commit(batch).await.unwrap();
        }
        Backups::new(Some(database), Arc::new(SystemClock::default()), Shutdown::new())
    }

    #[tokio::test]
    async fn the_chunks_are_a_backup_and_none_is_larger_than_said() {
        let directory = tempfile::tempdir().unwrap();
        let backups = backups(directory.path()).await;
        let chunks: Vec<Vec<u8>> = backups.begin().unwrap().map(Result::unwrap).collect().await;
        assert!(chunks.iter().all(|chunk| chunk.len() <= CHUNK_BYTES));
        let file = chunks.concat();
        let name = Path::new("file");
        let summary = backup::copy(file.as_slice(), name, io::sink(), name).unwrap();
        assert_eq!(summary.keyspaces, [("k".to_owned(), 2 * CHUNKS_AHEAD as u64)]);
    }

    #[tokio::test]
    async fn there_is_one_backup_at_a_time_and_a_caller_that_leaves_makes_room() {
        let directory = tempfile::tempdir().unwrap();
        let backups = backups(directory.path()).await;
        let mut first = Box::pin(backups.begin().unwrap());
        first.next().await.unwrap().unwrap();
        assert!(matches!(backups.begin(), Err(Error::BackupRunning)));
        drop(first);
        let _freed = backups.places.acquire().await.unwrap();
    }

    #[tokio::test]
    async fn a_backup_that_nobody_takes_is_broken_off_and_says_so() {
        let directory = tempfile::tempdir().unwrap();
        let mut backups = backups(directory.path()).await;
        backups.patience = Duration::from_millis(1);
        let chunks = backups.begin().unwrap();
        drop(backups.places.acquire().await.unwrap());
        let told: Vec<_> = chunks.collect().await;
        assert!(
            matches!(told.last(), Some(Err(Error::BackupStalled(_)))),
            "{:?}",
            told.last()
        );
    }

    #[tokio::test]
    async fn a_stop_ends_a_backup() {
        let directory = tempfile::tempdir().unwrap();
        let backups = backups(directory.path()).await;
        let mut chunks = Box::pin(backups.begin().unwrap());
        chunks.next().await.unwrap().unwrap();
        backups.shutdown.trigger();
        assert!(matches!(chunks.next().await, Some(Err(Error::ShuttingDown))));
        assert!(chunks.next().await.is_none());
        assert!(matches!(backups.begin(), Err(Error::ShuttingDown)));
    }
}
