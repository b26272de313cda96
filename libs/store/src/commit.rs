//! Group commit: one thread writes, everybody who waits shares its fsync.
//!
//! The writer takes the first batch that waits, then all others that are there already (up to a bound), checks the
//! expectations of each in order against the database *and* the batches before it in the group, merges those that
//! hold into one atomic write, syncs, and only then answers. The queue is bounded: who finds it full waits.

use std::collections::HashMap;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use fjall::PersistMode;
use muster_runtime::clock::{Clock as _, SystemClock};
use tokio::sync::{mpsc, oneshot};

use crate::batch::{Expectation, Expected, Write};
use crate::visible::Visible;
use crate::{Batch, CommitError, Keys, journal, seal};

/// The engine keeps a key's length in two bytes.
pub(crate) const LONGEST_KEY: usize = u16::MAX as usize;

pub(crate) struct Request {
    pub(crate) batch: Batch,
    pub(crate) answer: oneshot::Sender<Result<(), CommitError>>,
}

/// Why the store takes no more writes, once it does not.
#[derive(Clone, Default)]
pub(crate) struct Failure(Arc<OnceLock<(PathBuf, String)>>);

impl Failure {
    pub(crate) fn get(&self) -> Option<CommitError> {
        self.0.get().map(|(path, what)| CommitError::Stopped {
            path: path.clone(),
            what: what.clone(),
        })
    }

    fn set(&self, directory: &Path, what: String) -> CommitError {
        let (path, what) = self.0.get_or_init(|| {
            let path = journal::newest(directory);
            tracing::error!(path = %path.display(), error = %what, "the store stops: a write failed");
            (path, what)
        });
        CommitError::Stopped {
            path: path.clone(),
            what: what.clone(),
        }
    }
}

/// Identity of a key: number of its keyspace, and the key.
type Key = (u64, Vec<u8>);

pub(crate) struct Writer {
    pub(crate) engine: fjall::Database,
    pub(crate) keys: Option<Keys>,
    pub(crate) visible: Visible,
    pub(crate) directory: PathBuf,
    pub(crate) queue: mpsc::Receiver<Request>,
    pub(crate) failure: Failure,
    /// A group is closed once it holds so many bytes.
    pub(crate) group_bytes: usize,
    pub(crate) clock: SystemClock,
    pub(crate) observer: Observer,
}

/// Told of each group: how many batches it had, and how long its write and sync took.
pub(crate) type Observer = Arc<OnceLock<Box<dyn Fn(usize, Duration) + Send + Sync>>>;

impl Writer {
    /// Serves until all senders are gone and the queue is empty.
    pub(crate) fn run(mut self) {
        while let Some(first) = self.queue.blocking_recv() {
            let mut bytes = first.batch.bytes();
            let mut group = vec![first];
            while bytes < self.group_bytes {
                let Ok(next) = self.queue.try_recv() else { break };
                bytes += next.batch.bytes();
                group.push(next);
            }
            self.serve(group);
        }
    }

    fn serve(&self, group: Vec<Request>) {
        let (batches, answers): (Vec<_>, Vec<_>) = group
            .into_iter()
            .map(|request| (request.batch, request.answer))
            .unzip();
        // A panic of the engine must not leave callers waiting, and nothing that follows it can be trusted.
        let results =
            std::panic::catch_unwind(AssertUnwindSafe(|| self.write(batches))).unwrap_or_else(|_| {
                Err(self
                    .failure
                    .set(&self.directory, "the storage engine panicked".to_owned()))
            });
        match results {
            Ok(results) => {
                for (answer, result) in answers.into_iter().zip(results) {
                    // Whoever asked may have left; the batch counts all the same.
                    let _ = answer.send(result);
                }
            }
            Err(error) => {
                for answer in answers {
                    let _ = answer.send(Err(error.clone()));
                }
            }
        }
    }

    /// One result per batch, or what stops all of them.
    fn write(&self, batches: Vec<Batch>) -> Result<Vec<Result<(), CommitError>>, CommitError> {
        if let Some(stopped) = self.failure.get() {
            return Err(stopped);
        }
        let (start, count) = (self.clock.monotonic(), batches.len());
        let mut pending: HashMap<Key, Write> = HashMap::new();
        let mut results = Vec::with_capacity(batches.len());
        for batch in batches {
            let result = self.check(&batch, &pending)?;
            if result.is_ok() {
                for write in batch.writes {
                    pending.insert((write.keyspace.id(), write.key.clone()), write);
                }
            }
            results.push(result);
        }
        if !pending.is_empty() {
            let mut merged = self.engine.batch().durability(Some(PersistMode::SyncData));
            for write in pending.into_values() {
                match write.value {
                    Some(value) => merged.insert(&write.keyspace, write.key, value),
                    None => merged.remove(&write.keyspace, write.key),
                }
            }
            merged
                .commit()
                .map_err(|error| self.failure.set(&self.directory, error.to_string()))?;
            self.visible.advance(&self.engine);
            if let Some(observe) = self.observer.get() {
                observe(count, self.clock.monotonic().saturating_sub(start));
            }
        }
        Ok(results)
    }

    /// Whether the batch may be written: an inner error concerns this batch, an outer one everything.
    fn check(
        &self,
        batch: &Batch,
        pending: &HashMap<Key, Write>,
    ) -> Result<Result<(), CommitError>, CommitError> {
        for expectation in &batch.expectations {
            let id = (expectation.keyspace.id(), expectation.key.clone());
            let holds = if let Some(write) = pending.get(&id) {
                self.matches(write.value.as_deref(), expectation)?
            } else {
                let stored = expectation.keyspace.get(&expectation.key);
                let stored = stored.map_err(|error| self.failure.set(&self.directory, error.to_string()))?;
                self.matches(stored.as_deref(), expectation)?
            };
            if !holds {
                let keyspace = expectation.keyspace.name().to_string();
                return Ok(Err(CommitError::Conflict {
                    keyspace,
                    key: expectation.key.escape_ascii().to_string(),
                }));
            }
        }
        Ok(Ok(()))
    }
}

impl Writer {
    /// Whether it is as expected; how a value is stored makes no difference.
    fn matches(&self, stored: Option<&[u8]>, expectation: &Expectation) -> Result<bool, CommitError> {
        let Expectation {
            keyspace,
            key,
            expected,
        } = expectation;
        let (Expected::Value(value), Some(stored)) = (expected, stored) else {
            return Ok(*expected == Expected::Absent && stored.is_none());
        };
        let opened = seal::opened(self.keys.as_ref(), keyspace.name(), key, stored)
            .map_err(|what| self.failure.set(&self.directory, what))?;
        Ok(opened.as_deref().unwrap_or(stored) == value.as_slice())
    }
}
