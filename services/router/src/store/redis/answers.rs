//! Answers in Redis: one hash for each message, which expires by itself, and one script on it for each call. Leases are of
//! Redis's own time.

use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use muster_store::redis::{Call, Script};

use super::{Redis, failed};
use crate::store::Error;
use crate::store::answers::{Answer, Answers, Claim, Found, Head, Id};

/// Fields: `f` fingerprint, `l` leader, `u` when its lease ends in milliseconds, `h` head and `b` bytes of the answer.
static CLAIM: Script = Script::new(
    "#!lua
local kept = redis.call('HMGET', KEYS[1], 'f', 'l', 'u', 'h', 'b')
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local found = 'lead'
if kept[1] then
  if kept[1] ~= ARGV[1] then return {'reused'} end
  if kept[4] then return {'answered', kept[4], kept[5]} end
  local left = tonumber(kept[3]) - now
  if kept[2] ~= ARGV[2] and left > 0 then return {'under way', string.format('%d', left)} end
  if kept[2] ~= ARGV[2] then found = 'taken over' end
end
redis.call('HSET', KEYS[1], 'f', ARGV[1], 'l', ARGV[2], 'u', string.format('%d', now + ARGV[3]))
redis.call('PEXPIRE', KEYS[1], ARGV[4])
return {found}
",
);

static RENEW: Script = Script::new(
    "#!lua
local kept = redis.call('HMGET', KEYS[1], 'l', 'h')
if kept[1] ~= ARGV[1] or kept[2] then return 0 end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('HSET', KEYS[1], 'u', string.format('%d', now + ARGV[2]))
return 1
",
);

static KEEP: Script = Script::new(
    "#!lua
local kept = redis.call('HMGET', KEYS[1], 'f', 'l')
if kept[1] and (kept[1] ~= ARGV[1] or kept[2] ~= ARGV[2]) then return 0 end
redis.call('HSET', KEYS[1], 'f', ARGV[1], 'l', ARGV[2], 'u', '0', 'h', ARGV[3], 'b', ARGV[4])
redis.call('PEXPIRE', KEYS[1], ARGV[5])
return 1
",
);

static LEAVE: Script = Script::new(
    "#!lua flags=allow-oom
local kept = redis.call('HMGET', KEYS[1], 'l', 'h')
if kept[1] == ARGV[1] and not kept[2] then redis.call('DEL', KEYS[1]) end
return 1
",
);

impl Redis {
    fn on(&self, script: &'static Script, id: &Id) -> Call {
        use std::fmt::Write as _;
        let name = id.iter().fold(String::new(), |mut name, byte| {
            // A string takes everything.
            let _written = write!(name, "{byte:02x}");
            name
        });
        script.call().key(self.key("message", &name))
    }
}

#[async_trait]
impl Answers for Redis {
    async fn claim(&self, id: &Id, claim: &Claim, _now: Timestamp) -> Result<Found, Error> {
        let call = self
            .on(&CLAIM, id)
            .arg(claim.fingerprint)
            .arg(claim.leader.as_str())
            .number(milliseconds(claim.lease))
            .number(milliseconds(claim.keep));
        let answer: Vec<Vec<u8>> = self.connection.call(&call).await.map_err(failed)?;
        found(answer)
    }

    async fn renew(&self, id: &Id, claim: &Claim, _now: Timestamp) -> Result<bool, Error> {
        let call = self
            .on(&RENEW, id)
            .arg(claim.leader.as_str())
            .number(milliseconds(claim.lease));
        self.connection.call(&call).await.map_err(failed)
    }

    async fn keep(&self, id: &Id, claim: &Claim, answer: &Answer, _now: Timestamp) -> Result<bool, Error> {
        let head = serde_json::to_vec(&answer.head)
            .map_err(|error| Error(format!("encode what is kept of an answer: {error}")))?;
        let call = self
            .on(&KEEP, id)
            .arg(claim.fingerprint)
            .arg(claim.leader.as_str())
            .arg(head)
            .arg(answer.bytes.as_slice())
            .number(milliseconds(claim.keep));
        self.connection.call(&call).await.map_err(failed)
    }

    async fn leave(&self, id: &Id, claim: &Claim) -> Result<(), Error> {
        let call = self.on(&LEAVE, id).arg(claim.leader.as_str());
        self.connection.call::<i64>(&call).await.map_err(failed)?;
        Ok(())
    }

    /// Redis forgets by itself.
    async fn sweep_answers(&self, _before: Timestamp) -> Result<usize, Error> {
        Ok(0)
    }
}

fn milliseconds(duration: Duration) -> i128 {
    i64::try_from(duration.as_millis())
        .unwrap_or(i64::MAX)
        .max(1)
        .into()
}

fn found(answer: Vec<Vec<u8>>) -> Result<Found, Error> {
    let damaged = |what: &str| Error(format!("the record of an answered message is damaged: {what}"));
    let mut parts = answer.into_iter();
    let what = parts.next().unwrap_or_default();
    let mut part = || parts.next().ok_or_else(|| damaged("a part of it is missing"));
    match what.as_slice() {
        b"lead" => Ok(Found::Lead),
        b"taken over" => Ok(Found::TakenOver),
        b"reused" => Ok(Found::Reused),
        b"under way" => {
            let left = part()?;
            let left = std::str::from_utf8(&left)
                .ok()
                .and_then(|left| left.parse().ok())
                .map(Duration::from_millis)
                .ok_or_else(|| damaged("its lease is no time"))?;
            Ok(Found::UnderWay { left })
        }
        b"answered" => {
            let (head, bytes) = (part()?, part()?);
            let head: Head = serde_json::from_slice(&head).map_err(|error| damaged(&error.to_string()))?;
            Ok(Found::Answered(Answer { head, bytes }))
        }
        _ => Err(damaged("it is none")),
    }
}
