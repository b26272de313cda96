//! Answers in memory: gone with the process.

use std::collections::{BTreeSet, HashMap};

use async_trait::async_trait;
use jiff::Timestamp;
use parking_lot::Mutex;

use crate::store::answers::{Answer, Answers, Claim, Claimed, Found, Id, Record, Room};
use crate::store::{Error, SWEPT_AT_ONCE};

/// Answers in memory.
#[derive(Debug)]
pub struct MemoryAnswers {
    room: Room,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    records: HashMap<Id, Record>,
    by_age: BTreeSet<(Timestamp, Id)>,
    bytes: usize,
}

impl State {
    fn put(&mut self, id: &Id, record: Record) {
        self.remove(id);
        self.by_age.insert((record.header.since, *id));
        self.bytes += record.bytes.len();
        self.records.insert(*id, record);
    }

    fn remove(&mut self, id: &Id) {
        if let Some(record) = self.records.remove(id) {
            self.by_age.remove(&(record.header.since, *id));
            self.bytes -= record.bytes.len();
        }
    }
}

impl MemoryAnswers {
    /// An empty store of this size.
    #[must_use]
    pub fn new(room: Room) -> Self {
        Self {
            room,
            state: Mutex::default(),
        }
    }
}

#[async_trait]
impl Answers for MemoryAnswers {
    async fn claim(&self, id: &Id, claim: &Claim, now: Timestamp) -> Result<Found, Error> {
        let mut state = self.state.lock();
        let before = state.records.get(id);
        match Record::claimed(before, claim, now) {
            Claimed::Stays(found) => Ok(found),
            Claimed::Lead(record, follows) => {
                let is_full = state.records.len() >= self.room.entries || state.bytes >= self.room.bytes;
                if before.is_none() && is_full {
                    return Ok(Found::Full);
                }
                state.put(id, record);
                Ok(Found::leading(follows))
            }
        }
    }

    async fn renew(&self, id: &Id, claim: &Claim, now: Timestamp) -> Result<bool, Error> {
        let mut state = self.state.lock();
        let renewed = state
            .records
            .get(id)
            .and_then(|record| record.renewed(claim, now));
        let leads = renewed.is_some();
        if let Some(renewed) = renewed {
            state.put(id, renewed);
        }
        Ok(leads)
    }

    async fn keep(&self, id: &Id, claim: &Claim, answer: &Answer, now: Timestamp) -> Result<bool, Error> {
        let mut state = self.state.lock();
        let answered = Record::answered(state.records.get(id), claim, answer, now);
        let is_kept = answered.is_some();
        if let Some(answered) = answered {
            state.put(id, answered);
        }
        Ok(is_kept)
    }

    async fn leave(&self, id: &Id, claim: &Claim) -> Result<(), Error> {
        let mut state = self.state.lock();
        if state
            .records
            .get(id)
            .is_some_and(|record| record.is_led_by(claim))
        {
            state.remove(id);
        }
        Ok(())
    }

    async fn sweep_answers(&self, before: Timestamp) -> Result<usize, Error> {
        let mut state = self.state.lock();
        let mut swept = 0;
        while swept < SWEPT_AT_ONCE
            && let Some((since, id)) = state.by_age.first().copied()
            && since < before
        {
            state.remove(&id);
            swept += 1;
        }
        Ok(swept)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, Ordering};

    use futures::FutureExt as _;

    use super::*;
    use crate::store::answers::conformance::{self, Bench};

    #[tokio::test]
    async fn it_conforms() {
        let store = MemoryAnswers::new(Room {
            entries: 100,
            bytes: 1 << 20,
        });
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
        let bounded = MemoryAnswers::new(Room {
            entries: 3,
            bytes: 1000,
        });
        conformance::run_bounded(&bounded).await;
    }
}
