//! Writes that happen together or not at all.

use crate::Keyspace;

/// What must be true of a key for a batch to be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Expected {
    Absent,
    Value(Vec<u8>),
}

pub(crate) struct Expectation {
    pub(crate) keyspace: fjall::Keyspace,
    pub(crate) key: Vec<u8>,
    pub(crate) expected: Expected,
}

pub(crate) struct Write {
    pub(crate) keyspace: fjall::Keyspace,
    pub(crate) key: Vec<u8>,
    /// `None` removes the key.
    pub(crate) value: Option<Vec<u8>>,
}

/// Writes that happen together or not at all, and what must be true for them.
///
/// Expectations look at the state before the batch. Of two writes to one key the later counts.
#[derive(Default)]
pub struct Batch {
    pub(crate) expectations: Vec<Expectation>,
    pub(crate) writes: Vec<Write>,
    bytes: usize,
    longest_key: usize,
}

impl Batch {
    /// An empty batch.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets `key` to `value`.
    pub fn put(&mut self, keyspace: &Keyspace, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) {
        self.write(keyspace, key.into(), Some(value.into()));
    }

    /// Removes `key`, if it is there.
    pub fn remove(&mut self, keyspace: &Keyspace, key: impl Into<Vec<u8>>) {
        self.write(keyspace, key.into(), None);
    }

    /// The batch is written only if `key` is absent.
    pub fn expect_absent(&mut self, keyspace: &Keyspace, key: impl Into<Vec<u8>>) {
        self.expect(keyspace, key.into(), Expected::Absent);
    }

    /// The batch is written only if `key` holds exactly `value`.
    pub fn expect_value(&mut self, keyspace: &Keyspace, key: impl Into<Vec<u8>>, value: impl Into<Vec<u8>>) {
        self.expect(keyspace, key.into(), Expected::Value(value.into()));
    }

    /// Size of all keys and values.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether there is nothing to write.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    pub(crate) fn longest_key(&self) -> usize {
        self.longest_key
    }

    fn write(&mut self, keyspace: &Keyspace, key: Vec<u8>, value: Option<Vec<u8>>) {
        let value = value.map(|value| keyspace.sealed(&key, value));
        self.longest_key = self.longest_key.max(key.len());
        self.bytes += key.len() + value.as_ref().map_or(0, Vec::len);
        self.writes.push(Write {
            keyspace: keyspace.engine().clone(),
            key,
            value,
        });
    }

    fn expect(&mut self, keyspace: &Keyspace, key: Vec<u8>, expected: Expected) {
        self.expectations.push(Expectation {
            keyspace: keyspace.engine().clone(),
            key,
            expected,
        });
    }
}
