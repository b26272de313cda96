//! Reading: one key, or a range in either direction.
//!
//! A batch is seen whole or not at all, and whoever has seen it sees it in every later read; see [`visible`](mod@crate::visible).

use std::ops::{Bound, RangeBounds};
use std::path::PathBuf;
use std::sync::Arc;

use fjall::Readable as _;

use crate::Error;
use crate::database::Shared;

/// A key and its value.
pub type Entry = (Vec<u8>, Vec<u8>);

/// A named, ordered map from bytes to bytes in a [`Database`](crate::Database), which it keeps open.
///
/// Reads see what has been committed. They may touch the disk: where that matters, call them on a thread that may
/// block.
#[derive(Clone)]
pub struct Keyspace {
    engine: fjall::Keyspace,
    shared: Arc<Shared>,
}

impl Keyspace {
    pub(crate) fn new(engine: fjall::Keyspace, shared: Arc<Shared>) -> Self {
        Self { engine, shared }
    }

    pub(crate) fn engine(&self) -> &fjall::Keyspace {
        &self.engine
    }

    /// The value of `key`.
    ///
    /// # Errors
    /// A file cannot be read or is damaged.
    pub fn get(&self, key: impl AsRef<[u8]>) -> Result<Option<Vec<u8>>, Error> {
        let value = self
            .shared
            .snapshot()
            .get(&self.engine, key)
            .map_err(|error| Error::engine(self.shared.path(), "read", error))?;
        Ok(value.map(|value| value.to_vec()))
    }

    /// The entries whose keys are in `range`, in order of their keys, from either end.
    ///
    /// The iterator sees one moment in time and reads as it goes; the caller bounds how far.
    pub fn range<K: AsRef<[u8]>>(&self, range: impl RangeBounds<K>) -> Entries {
        let bound = |bound: Bound<&K>| bound.map(|key| key.as_ref().to_vec());
        let range = (bound(range.start_bound()), bound(range.end_bound()));
        // The engine panics on a range that ends before it starts; to us that is an empty one.
        let engine = if is_empty(&range) {
            None
        } else {
            Some(self.shared.snapshot().range::<Vec<u8>, _>(&self.engine, range))
        };
        Entries {
            engine,
            path: self.shared.path().to_owned(),
            _open: Arc::clone(&self.shared),
        }
    }

    /// The entries whose keys start with `prefix`, like [`Self::range`].
    pub fn prefix(&self, prefix: impl AsRef<[u8]>) -> Entries {
        let engine = Some(self.shared.snapshot().prefix(&self.engine, prefix));
        Entries {
            engine,
            path: self.shared.path().to_owned(),
            _open: Arc::clone(&self.shared),
        }
    }
}

fn is_empty((start, end): &(Bound<Vec<u8>>, Bound<Vec<u8>>)) -> bool {
    match (start, end) {
        (Bound::Included(start), Bound::Included(end)) => start > end,
        (Bound::Included(start) | Bound::Excluded(start), Bound::Included(end) | Bound::Excluded(end)) => {
            start >= end
        }
        (Bound::Unbounded, _) | (_, Bound::Unbounded) => false,
    }
}

/// Entries of a keyspace in the order of their keys. Ends after the first error.
pub struct Entries {
    // Before `_open`: it must let go of the database before the database closes.
    engine: Option<fjall::Iter>,
    path: PathBuf,
    _open: Arc<Shared>,
}

impl Entries {
    fn step(
        &mut self,
        next: impl FnOnce(&mut fjall::Iter) -> Option<fjall::Guard>,
    ) -> Option<Result<Entry, Error>> {
        let entry = next(self.engine.as_mut()?)?.into_inner();
        Some(match entry {
            Ok((key, value)) => Ok((key.to_vec(), value.to_vec())),
            Err(error) => {
                self.engine = None;
                Err(Error::engine(&self.path, "read", error))
            }
        })
    }
}

impl Iterator for Entries {
    type Item = Result<Entry, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        self.step(fjall::Iter::next)
    }
}

impl DoubleEndedIterator for Entries {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.step(fjall::Iter::next_back)
    }
}
