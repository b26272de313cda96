//! Kept answers in the embedded store.
//!
//! Keys: `k` key → the answer and its end; `u` end key: when answers end.

use async_trait::async_trait;
use jiff::Timestamp;
use muster_store::Batch;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::keys::{sortable, unsortable};
use super::{Embedded, damaged, encode};
use crate::store::Error;
use crate::store::answers::Answers;

const KEY: u8 = b'k';
const END: u8 = b'u';

#[derive(Serialize, Deserialize)]
struct Answer {
    until: Timestamp,
    value: Value,
}

impl Embedded {
    fn answer_now(&self, key: &str) -> Result<Option<Answer>, Error> {
        self.get(&self.answers, named(key), || "a kept answer".to_owned())
    }

    /// What is to be forgotten: the ends, and the answers themselves where they have not been replaced.
    fn ended_answers(&self, now: Timestamp, most: usize, limit: usize) -> Result<(Batch, usize), Error> {
        let count = self.answers.prefix([END]).count();
        let mut surplus = count.saturating_sub(most);
        let (mut batch, mut forgotten) = (Batch::new(), 0);
        for entry in self.answers.prefix([END]).take(limit) {
            let (ending, _) = entry.map_err(damaged)?;
            let Some((micros, key)) = parts(&ending) else {
                return Err(Error::Damaged(format!(
                    "no answer is named by key {}",
                    ending.escape_ascii()
                )));
            };
            if micros > now.as_microsecond() && surplus == 0 {
                break;
            }
            surplus = surplus.saturating_sub(1);
            let key = key.to_owned();
            if self
                .answer_now(&key)?
                .is_some_and(|answer| answer.until.as_microsecond() <= micros)
            {
                batch.remove(&self.answers, named(&key));
            }
            batch.remove(&self.answers, ending);
            forgotten += 1;
        }
        Ok((batch, forgotten))
    }
}

#[async_trait]
impl Answers for Embedded {
    async fn answer(&self, key: &str, now: Timestamp) -> Result<Option<Value>, Error> {
        let key = key.to_owned();
        let answer = self.read(move |store| store.answer_now(&key)).await?;
        Ok(answer
            .filter(|answer| answer.until > now)
            .map(|answer| answer.value))
    }

    async fn keep_answer(&self, key: &str, answer: &Value, until: Timestamp) -> Result<(), Error> {
        let mut ending = vec![END];
        ending.extend(sortable(until.as_microsecond()).to_be_bytes());
        ending.extend(key.as_bytes());
        let answer = Answer {
            until,
            value: answer.clone(),
        };
        let mut batch = Batch::new();
        batch.put(&self.answers, named(key), encode(&answer)?);
        batch.put(&self.answers, ending, []);
        self.commit(batch, "a kept answer").await
    }

    async fn forget_answers(&self, now: Timestamp, most: usize, limit: usize) -> Result<usize, Error> {
        let (batch, forgotten) = self
            .read(move |store| store.ended_answers(now, most, limit))
            .await?;
        if forgotten > 0 {
            self.commit(batch, "kept answers").await?;
        }
        Ok(forgotten)
    }
}

fn named(key: &str) -> Vec<u8> {
    let mut bytes = vec![KEY];
    bytes.extend(key.as_bytes());
    bytes
}

fn parts(ending: &[u8]) -> Option<(i64, &str)> {
    let (micros, key) = ending.get(1..)?.split_first_chunk::<8>()?;
    Some((
        unsortable(u64::from_be_bytes(*micros)),
        std::str::from_utf8(key).ok()?,
    ))
}
