//! Reading: one key, or a range in either direction.
//!
//! A batch is seen whole or not at all, and whoever has seen it sees it in every later read; see [`visible`](mod@crate::visible).

use std::ops::{Bound, RangeBounds};
use std::sync::Arc;

use fjall::Readable as _;

use crate::database::Shared;
use crate::{Error, seal};

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
            .get(&self.engine, key.as_ref())
            .map_err(|error| Error::engine(self.shared.path(), "read", error))?;
        value
            .map(|value| opened(&self.shared, self.engine.name(), key.as_ref(), &value))
            .transpose()
    }

    /// The value as it is stored.
    pub(crate) fn sealed(&self, key: &[u8], value: Vec<u8>) -> Vec<u8> {
        match self.shared.keys() {
            Some(keys) => keys.seal(self.engine.name(), key, &value),
            None => value,
        }
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
        self.entries(engine)
    }

    /// The entries whose keys start with `prefix`, like [`Self::range`].
    pub fn prefix(&self, prefix: impl AsRef<[u8]>) -> Entries {
        self.entries(Some(self.shared.snapshot().prefix(&self.engine, prefix)))
    }

    fn entries(&self, engine: Option<fjall::Iter>) -> Entries {
        Entries {
            engine,
            name: self.engine.name().to_string(),
            open: Arc::clone(&self.shared),
        }
    }
}

/// The value that is stored under this key.
fn opened(shared: &Shared, keyspace: &str, key: &[u8], stored: &[u8]) -> Result<Vec<u8>, Error> {
    match seal::opened(shared.keys(), keyspace, key, stored) {
        Ok(opened) => Ok(opened.unwrap_or_else(|| stored.to_vec())),
        Err(what) => Err(Error::damaged(shared.path(), what)),
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
    // Before `open`: it must let go of the database before the database closes.
    engine: Option<fjall::Iter>,
    /// Of the keyspace.
    name: String,
    open: Arc<Shared>,
}

impl Entries {
    fn step(
        &mut self,
        next: impl FnOnce(&mut fjall::Iter) -> Option<fjall::Guard>,
    ) -> Option<Result<Entry, Error>> {
        let entry = next(self.engine.as_mut()?)?.into_inner();
        let entry = entry
            .map_err(|error| Error::engine(self.open.path(), "read", error))
            .and_then(|(key, value)| {
                let value = opened(&self.open, &self.name, &key, &value)?;
                Ok((key.to_vec(), value))
            });
        if entry.is_err() {
            self.engine = None;
        }
        Some(entry)
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
