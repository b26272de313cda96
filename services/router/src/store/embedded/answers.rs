//! Answers on this machine's disk, in the database of the owners.
//!
//! Two keyspaces: `messages` maps a message to its record (the length of its header in four bytes, big-endian, the header as
//! JSON, the answer's bytes), `message_ages` orders them by when they were written (eight bytes of milliseconds, big-endian,
//! then the message) and says how many bytes each answer has, in eight bytes. Each record has one age. What is written depends
//! on what was read, so that of two who write at the same time the second one looks again.

use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use jiff::Timestamp;
use muster_store::{Batch, CommitError, Database, Keyspace};

use super::{Embedded, TIME_BYTES, age_key, blocking};
use crate::store::answers::{Answer, Answers, Claim, Claimed, Found, Id, Record, Room};
use crate::store::{Error, SWEPT_AT_ONCE};

/// Bytes of a header's length.
const LENGTH_BYTES: usize = 4;

/// Answers in an embedded database.
pub struct EmbeddedAnswers {
    database: Database,
    messages: Keyspace,
    ages: Keyspace,
    room: Room,
    /// How many records there are, and the bytes of their answers; counted at the start and kept up from then on.
    entries: AtomicUsize,
    bytes: AtomicUsize,
}

/// A record, and as what it is kept.
type Stored = Option<(Vec<u8>, Record)>;

impl EmbeddedAnswers {
    /// Answers in the database of these owners. Blocks while it counts what is there.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn open(owners: &Embedded, room: Room) -> Result<Self, Error> {
        let database = owners.database.clone();
        let messages = database.keyspace("messages").map_err(failed)?;
        let ages = database.keyspace("message_ages").map_err(failed)?;
        let (mut entries, mut bytes) = (0, 0_usize);
        for age in ages.range::<Vec<u8>>(..) {
            let (_, size) = age.map_err(failed)?;
            entries += 1;
            bytes = bytes.saturating_add(size_in(&size));
        }
        Ok(Self {
            database,
            messages,
            ages,
            room,
            entries: entries.into(),
            bytes: bytes.into(),
        })
    }

    async fn stored(&self, id: &Id) -> Result<Stored, Error> {
        let (messages, id) = (self.messages.clone(), *id);
        blocking(move || read(&messages, &id)).await
    }

    /// Puts `after` in the place of `before`; false if somebody else has written in the meantime.
    async fn replace(&self, id: &Id, before: Stored, after: Option<&Record>) -> Result<bool, Error> {
        let mut batch = Batch::new();
        let (mut entries, mut bytes) = (0, 0);
        match before {
            None => batch.expect_absent(&self.messages, id.as_slice()),
            Some((raw, before)) => {
                batch.expect_value(&self.messages, id.as_slice(), raw);
                batch.remove(&self.messages, id.as_slice());
                batch.remove(&self.ages, age_key(before.header.since, id));
                (entries, bytes) = (1, before.bytes.len());
            }
        }
        if let Some(after) = after {
            batch.put(&self.messages, id.as_slice(), encode(after)?);
            let size = u64::try_from(after.bytes.len()).unwrap_or(u64::MAX);
            batch.put(
                &self.ages,
                age_key(after.header.since, id),
                size.to_be_bytes().to_vec(),
            );
        }
        match self.database.commit(batch).await {
            Ok(()) => {}
            Err(CommitError::Conflict { .. }) => return Ok(false),
            Err(error) => return Err(Error(error.to_string())),
        }
        // First what is added, so that the count never falls below what is there.
        self.entries
            .fetch_add(usize::from(after.is_some()), Ordering::Relaxed);
        self.bytes
            .fetch_add(after.map_or(0, |after| after.bytes.len()), Ordering::Relaxed);
        subtract(&self.entries, entries);
        subtract(&self.bytes, bytes);
        Ok(true)
    }

    fn is_full(&self) -> bool {
        self.entries.load(Ordering::Relaxed) >= self.room.entries
            || self.bytes.load(Ordering::Relaxed) >= self.room.bytes
    }
}

#[async_trait]
impl Answers for EmbeddedAnswers {
    async fn claim(&self, id: &Id, claim: &Claim, now: Timestamp) -> Result<Found, Error> {
        loop {
            let before = self.stored(id).await?;
            let (record, follows) =
                match Record::claimed(before.as_ref().map(|(_, record)| record), claim, now) {
                    Claimed::Stays(found) => return Ok(found),
                    Claimed::Lead(record, follows) => (record, follows),
                };
            if before.is_none() && self.is_full() {
                return Ok(Found::Full);
            }
            if self.replace(id, before, Some(&record)).await? {
                return Ok(Found::leading(follows));
            }
        }
    }

    async fn renew(&self, id: &Id, claim: &Claim, now: Timestamp) -> Result<bool, Error> {
        loop {
            let before = self.stored(id).await?;
            let Some(renewed) = before.as_ref().and_then(|(_, record)| record.renewed(claim, now)) else {
                return Ok(false);
            };
            if self.replace(id, before, Some(&renewed)).await? {
                return Ok(true);
            }
        }
    }

    async fn keep(&self, id: &Id, claim: &Claim, answer: &Answer, now: Timestamp) -> Result<bool, Error> {
        loop {
            let before = self.stored(id).await?;
            let record = before.as_ref().map(|(_, record)| record);
            let Some(answered) = Record::answered(record, claim, answer, now) else {
                return Ok(false);
            };
            if self.replace(id, before, Some(&answered)).await? {
                return Ok(true);
            }
        }
    }

    async fn leave(&self, id: &Id, claim: &Claim) -> Result<(), Error> {
        loop {
            let before = self.stored(id).await?;
            let is_led = before.as_ref().is_some_and(|(_, record)| record.is_led_by(claim));
            if !is_led || self.replace(id, before, None).await? {
                return Ok(());
            }
        }
    }

    async fn sweep_answers(&self, before: Timestamp) -> Result<usize, Error> {
        let (messages, ages) = (self.messages.clone(), self.ages.clone());
        let (batch, swept, bytes) = blocking(move || overdue(&messages, &ages, before)).await?;
        if swept > 0 {
            match self.database.commit(batch).await {
                Ok(()) => {}
                // One of them is written just now: the next sweep finds the others.
                Err(CommitError::Conflict { .. }) => return Ok(0),
                Err(error) => return Err(Error(error.to_string())),
            }
            subtract(&self.entries, swept);
            subtract(&self.bytes, bytes);
        }
        Ok(swept)
    }
}

/// What is to be removed, of how many records, and the bytes of their answers.
fn overdue(messages: &Keyspace, ages: &Keyspace, before: Timestamp) -> Result<(Batch, usize, usize), Error> {
    let (mut batch, mut swept, mut bytes) = (Batch::new(), 0, 0_usize);
    let limit = age_key(before, &[]);
    for entry in ages.range::<Vec<u8>>(..).take(SWEPT_AT_ONCE) {
        let (age, size) = entry.map_err(failed)?;
        if age >= limit {
            break;
        }
        let id = age.get(TIME_BYTES..).unwrap_or_default();
        if let Some(raw) = messages.get(id).map_err(failed)? {
            batch.expect_value(messages, id, raw);
            batch.remove(messages, id);
        }
        batch.remove(ages, age.clone());
        swept += 1;
        bytes = bytes.saturating_add(size_in(&size));
    }
    Ok((batch, swept, bytes))
}

fn read(messages: &Keyspace, id: &Id) -> Result<Stored, Error> {
    let Some(raw) = messages.get(id).map_err(failed)? else {
        return Ok(None);
    };
    let damaged = |what: String| Error(format!("the record of an answered message is damaged: {what}"));
    let record = raw
        .split_first_chunk::<LENGTH_BYTES>()
        .and_then(|(length, rest)| {
            let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
            rest.split_at_checked(length)
        })
        .ok_or_else(|| damaged("it is cut off".to_owned()))
        .and_then(|(header, bytes)| {
            let header = serde_json::from_slice(header).map_err(|error| damaged(error.to_string()))?;
            let bytes = bytes.to_vec();
            Ok(Record { header, bytes })
        })?;
    Ok(Some((raw, record)))
}

fn encode(record: &Record) -> Result<Vec<u8>, Error> {
    let failed = |what: String| Error(format!("encode the record of an answered message: {what}"));
    let header = serde_json::to_vec(&record.header).map_err(|error| failed(error.to_string()))?;
    let length = u32::try_from(header.len()).map_err(|error| failed(error.to_string()))?;
    Ok([length.to_be_bytes().as_slice(), &header, &record.bytes].concat())
}

fn size_in(value: &[u8]) -> usize {
    let size = value.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes));
    usize::try_from(size).unwrap_or(usize::MAX)
}

fn subtract(count: &AtomicUsize, removed: usize) {
    let subtract = |count: usize| Some(count.saturating_sub(removed));
    // The closure always answers, so the update always succeeds.
    let _count = count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, subtract);
}

fn failed(error: muster_store::Error) -> Error {
    Error(error.to_string())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicI64;
    use std::time::Duration;

    use futures::FutureExt as _;

    use super::*;
    use crate::store::answers::conformance::{self, Bench, answer};

    const ROOM: Room = Room {
        entries: 100,
        bytes: 1 << 20,
    };

    fn open(path: &std::path::Path, room: Room) -> EmbeddedAnswers {
        EmbeddedAnswers::open(&Embedded::open(path).unwrap(), room).unwrap()
    }

    #[tokio::test]
    async fn it_conforms() {
        let directory = tempfile::tempdir().unwrap();
        let store = open(directory.path(), ROOM);
        let time = AtomicI64::new(1_000_000);
        let wait = |passed: u64| {
            let passed = i64::try_from(passed).unwrap();
            let now = time.fetch_add(passed, Ordering::Relaxed) + passed;
            std::future::ready(Timestamp::from_millisecond(now).unwrap()).boxed()
        };
        conformance::run(Bench {
            store: &store,
            wait: &wait,
        })
        .await;
        let directory = tempfile::tempdir().unwrap();
        let bounded = Room {
            entries: 3,
            bytes: 1000,
        };
        conformance::run_bounded(&open(directory.path(), bounded)).await;
    }

    #[tokio::test]
    async fn answers_and_their_number_survive_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let claim = Claim {
            fingerprint: [1; 32],
            leader: "a".to_owned(),
            lease: Duration::from_secs(1),
            keep: Duration::from_secs(3600),
        };
        let now = Timestamp::from_second(1).unwrap();
        let store = open(directory.path(), ROOM);
        assert_eq!(store.claim(&[1; 32], &claim, now).await.unwrap(), Found::Lead);
        assert!(store.keep(&[1; 32], &claim, &answer(b"yes"), now).await.unwrap());
        assert_eq!(store.claim(&[2; 32], &claim, now).await.unwrap(), Found::Lead);
        drop(store);
        let full = Room { entries: 2, ..ROOM };
        let store = open(directory.path(), full);
        assert_eq!(
            store.claim(&[1; 32], &claim, now).await.unwrap(),
            Found::Answered(answer(b"yes"))
        );
        let found = store.claim(&[3; 32], &claim, now).await.unwrap();
        assert_eq!(found, Found::Full);
        assert_eq!(store.bytes.load(Ordering::Relaxed), 3);
    }
}
