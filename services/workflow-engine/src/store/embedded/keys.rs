//! The keys of the embedded store: the only place that knows their layout.
//!
//! Texts inside keys are DNS labels and run ids, which contain no NUL, so NUL ends them. Numbers are big-endian,
//! so that the order of the bytes is that of the numbers.

use jiff::Timestamp;

use crate::run::{Position, RunId};
use crate::store::{SnapshotKind, WorkflowKey};
use crate::version;

/// Separates parts; sorts before everything inside them.
const END: u8 = 0;
/// After [`END`], so that a range up to here covers all that continues a prefix.
const AFTER_END: u8 = 1;

/// First byte in the keyspace of the catalogue.
#[derive(Clone, Copy)]
#[repr(u8)]
pub(super) enum Catalogue {
    Workflow = b'w',
    Document = b'd',
}

impl Catalogue {
    /// `None` if the version is not a semantic version: then nothing is kept under it.
    pub(super) fn of(self, key: &WorkflowKey) -> Option<Vec<u8>> {
        let mut bytes = self.named(&key.namespace, &key.name);
        bytes.extend(version::sort_key(&key.version)?);
        Some(bytes)
    }

    /// What all versions of one name start with.
    pub(super) fn named(self, namespace: &str, name: &str) -> Vec<u8> {
        let mut bytes = vec![self as u8];
        bytes.extend(namespace.as_bytes());
        bytes.push(END);
        bytes.extend(name.as_bytes());
        bytes.push(END);
        bytes
    }

    pub(super) fn all(self) -> [u8; 1] {
        [self as u8]
    }
}

/// First byte in the keyspace of summaries and indexes.
#[derive(Clone, Copy)]
#[repr(u8)]
pub(super) enum Runs {
    /// id → summary.
    Summary = b's',
    /// id → length of the journal, big-endian.
    Head = b'h',
    /// (creation, id): every run.
    Created = b'c',
    /// (creation, id): those that have not ended.
    Unfinished = b'u',
    /// (end, id): those that have.
    Ended = b'e',
}

impl Runs {
    pub(super) fn of(self, id: &RunId) -> Vec<u8> {
        let mut bytes = vec![self as u8];
        bytes.extend(id.as_str().as_bytes());
        bytes
    }

    pub(super) fn at(self, position: &Position) -> Vec<u8> {
        self.timed(position.created_micros, position.id.as_str())
    }

    /// Before every run that was created then, or later.
    pub(super) fn created(time: Timestamp) -> Vec<u8> {
        Self::Created.timed(time.as_microsecond(), "")
    }

    pub(super) fn ended(time: Timestamp, id: &str) -> Vec<u8> {
        Self::Ended.timed(time.as_microsecond(), id)
    }

    fn timed(self, micros: i64, id: &str) -> Vec<u8> {
        let mut bytes = vec![self as u8];
        bytes.extend(sortable(micros).to_be_bytes());
        bytes.extend(id.as_bytes());
        bytes
    }

    /// The position in a key of an index by time.
    pub(super) fn position(key: &[u8]) -> Option<Position> {
        let (time, id) = key.get(1..)?.split_first_chunk::<8>()?;
        let id = std::str::from_utf8(id).ok()?.parse().ok()?;
        let created_micros = unsortable(u64::from_be_bytes(*time));
        Some(Position { created_micros, id })
    }

    pub(super) fn first(self) -> [u8; 1] {
        [self as u8]
    }

    /// After the last key of this kind.
    pub(super) fn last(self) -> [u8; 1] {
        [self as u8 + 1]
    }
}

/// Signed numbers as unsigned ones of the same order.
pub(super) fn sortable(number: i64) -> u64 {
    number.cast_unsigned() ^ (1 << 63)
}

pub(super) fn unsortable(number: u64) -> i64 {
    (number ^ (1 << 63)).cast_signed()
}

/// Keys in the keyspace of events.
///
/// Attributes of events contain no control characters, so NUL ends them.
pub(super) struct Events;

impl Events {
    const AT: u8 = b'e';
    const TYPED: u8 = b't';
    const NAMED: u8 = b'i';
    const TAIL: u8 = b'h';
    const STARTER: u8 = b's';

    /// position → event.
    pub(super) fn at(position: u64) -> Vec<u8> {
        let mut bytes = Self::first();
        bytes.extend(position.to_be_bytes());
        bytes
    }

    /// Before the first event.
    pub(super) fn first() -> Vec<u8> {
        vec![Self::AT]
    }

    /// After the last event.
    pub(super) fn end() -> Vec<u8> {
        vec![Self::AT + 1]
    }

    /// (type, position): every event.
    pub(super) fn typed(kind: &str, position: u64) -> Vec<u8> {
        let mut bytes = vec![Self::TYPED];
        bytes.extend(kind.as_bytes());
        bytes.push(END);
        bytes.extend(position.to_be_bytes());
        bytes
    }

    /// (source, id) → position.
    pub(super) fn named(source: &str, id: &str) -> Vec<u8> {
        let mut bytes = vec![Self::NAMED];
        bytes.extend(source.as_bytes());
        bytes.push(END);
        bytes.extend(id.as_bytes());
        bytes
    }

    /// The end of the log.
    pub(super) fn tail() -> Vec<u8> {
        vec![Self::TAIL]
    }

    /// name → how far a starter has come.
    pub(super) fn starter(name: &str) -> Vec<u8> {
        let mut bytes = vec![Self::STARTER];
        bytes.extend(name.as_bytes());
        bytes
    }

    /// The position in a key that ends with one.
    pub(super) fn position(key: &[u8]) -> Option<u64> {
        key.last_chunk::<8>().map(|bytes| u64::from_be_bytes(*bytes))
    }
}

/// What a run holds in the keyspace of journals.
#[derive(Clone, Copy)]
#[repr(u8)]
pub(super) enum Journal {
    Record = b'r',
    Output = b'o',
    Entry = b'e',
    Latest = b'l',
    Base = b'b',
}

impl Journal {
    pub(super) fn of(self, id: &RunId) -> Vec<u8> {
        let mut bytes = Self::start(id);
        bytes.push(self as u8);
        bytes
    }

    pub(super) fn entry(id: &RunId, index: u64) -> Vec<u8> {
        let mut bytes = Self::Entry.of(id);
        bytes.extend(index.to_be_bytes());
        bytes
    }

    pub(super) fn snapshot(kind: SnapshotKind) -> Self {
        match kind {
            SnapshotKind::Latest => Self::Latest,
            SnapshotKind::Base => Self::Base,
        }
    }

    /// The index in the key of an entry.
    pub(super) fn index(key: &[u8]) -> Option<u64> {
        key.last_chunk::<8>().map(|bytes| u64::from_be_bytes(*bytes))
    }

    /// Before everything a run holds.
    pub(super) fn start(id: &RunId) -> Vec<u8> {
        let mut bytes = id.as_str().as_bytes().to_vec();
        bytes.push(END);
        bytes
    }

    /// After everything a run holds.
    pub(super) fn end(id: &RunId) -> Vec<u8> {
        let mut bytes = id.as_str().as_bytes().to_vec();
        bytes.push(AFTER_END);
        bytes
    }
}

/// Keys of payloads: run, span of its history, digest.
pub(super) struct Payloads;

impl Payloads {
    pub(super) fn at(id: &RunId, span: u64, digest: &str) -> Vec<u8> {
        let mut bytes = Self::span(id, span);
        bytes.extend(digest.as_bytes());
        bytes
    }

    /// Before everything of a span.
    pub(super) fn span(id: &RunId, span: u64) -> Vec<u8> {
        let mut bytes = Journal::start(id);
        bytes.extend(span.to_be_bytes());
        bytes
    }

    /// The span and the digest of a run's payload.
    pub(super) fn parts<'k>(id: &RunId, key: &'k [u8]) -> Option<(u64, &'k str)> {
        let (span, digest) = key.get(Journal::start(id).len()..)?.split_first_chunk::<8>()?;
        Some((u64::from_be_bytes(*span), std::str::from_utf8(digest).ok()?))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn positions_sort_like_their_keys_and_come_back(
            a in (any::<i64>(), "[a-zA-Z0-9._-]{0,19}[a-zA-Z0-9_-]"),
            b in (any::<i64>(), "[a-zA-Z0-9._-]{0,19}[a-zA-Z0-9_-]"),
        ) {
            let position = |(created_micros, id): (i64, String)| Position { created_micros, id: id.parse().unwrap() };
            let (a, b) = (position(a), position(b));
            prop_assert_eq!(a.cmp(&b), Runs::Created.at(&a).cmp(&Runs::Created.at(&b)));
            prop_assert_eq!(Runs::position(&Runs::Created.at(&a)), Some(a));
        }

        #[test]
        fn no_run_sees_the_journal_of_another(a in "[a-z.]{0,3}[a-z]", b in "[a-z.]{0,3}[a-z]", index: u64) {
            let (a, b): (RunId, RunId) = (a.parse().unwrap(), b.parse().unwrap());
            let key = Journal::entry(&b, index);
            let inside = Journal::start(&a) <= key && key < Journal::end(&a);
            prop_assert_eq!(inside, a == b);
            prop_assert_eq!(Journal::index(&key), Some(index));
        }
    }
}
