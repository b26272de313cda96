//! Kept answers: a hash by key, each with its end before it, and a sorted set of ends, also of those that were replaced.

use async_trait::async_trait;
use jiff::Timestamp;
use muster_store::redis::{Script, Slot, cmd};
use serde_json::Value;

use super::keys::{self, slots};
use super::{Redis, decode, encode};
use crate::store::Error;
use crate::store::answers::Answers;

static KEEP: Script = Script::new(include_str!("answer_keep.lua"));
static FORGET: Script = Script::new(include_str!("answers_forget.lua"));

const ANSWERS: &str = "answers";
const ENDS: &str = "ends";

/// Length of an end.
const END: usize = 16;

impl Redis {
    fn answers(&self) -> Slot {
        Slot::named(self.prefix(), slots::ANSWERS)
    }
}

#[async_trait]
impl Answers for Redis {
    async fn answer(&self, key: &str, now: Timestamp) -> Result<Option<Value>, Error> {
        let answer: Option<Vec<u8>> = self
            .run(cmd("HGET").arg(self.answers().key(ANSWERS)).arg(key))
            .await?;
        let Some((end, text)) = answer.as_deref().and_then(|answer| answer.split_at_checked(END)) else {
            return Ok(None);
        };
        if end <= keys::time(now).as_bytes() {
            return Ok(None);
        }
        decode("a kept answer", text).map(Some)
    }

    async fn keep_answer(&self, key: &str, answer: &Value, until: Timestamp) -> Result<(), Error> {
        let slot = self.answers();
        let call = KEEP
            .call()
            .key(slot.key(ANSWERS))
            .key(slot.key(ENDS))
            .arg(key)
            .arg(keys::time(until))
            .arg(encode(answer)?);
        self.check_size(&call)?;
        self.call(&call).await
    }

    async fn forget_answers(&self, now: Timestamp, most: usize, limit: usize) -> Result<usize, Error> {
        let slot = self.answers();
        let call = FORGET
            .call()
            .key(slot.key(ANSWERS))
            .key(slot.key(ENDS))
            .arg(keys::time(now))
            .number(most as u64)
            .number(limit as u64);
        self.call(&call).await
    }
}
