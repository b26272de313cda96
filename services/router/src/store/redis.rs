//! Owners and answers in Redis: standalone, Sentinel or Cluster, shared by all routers of one prefix and namespace.
//!
//! One key for each task and message, so that a Cluster spreads them, and each call is one script on one key: all of it or nothing. What
//! callers write at the same time travels together over one connection.
//!
//! Retention is Redis's: keys expire. Nothing bounds their number but that and Redis's `maxmemory`, at which Redis refuses what
//! is new (with `noeviction`; another policy is warned of). A count that routers keep together would be one key that every
//! answer of every router writes to.
//!
//! While Redis does not answer, a call is tried again for as long as the connection has patience, and then refused.

mod answers;
mod rates;

use std::time::Duration;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use muster_store::redis::{Connection, Error as RedisError, OpenError, Options, Script, cmd};

use super::{Error, Owner, Owners};

/// What a router's store in Redis is called, and the version of its keys and values; raised when older software would misread
/// them.
const FORMAT: &str = "router 1";

/// How long callers wait for what can do without Redis.
const HASTE: Duration = Duration::from_millis(250);

/// Keeps an owner, unless the task is another agent's: then it answers that owner.
static KEEP: Script = Script::new(
    "#!lua
local before = redis.call('GET', KEYS[1])
if before and cjson.decode(before)['agent'] ~= ARGV[1] then return before end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return false
",
);

/// Needs room, as owners do.
static PROBE: Script = Script::new("#!lua\nredis.call('SET', KEYS[1], '1')\nreturn 1\n");

/// What routers share in Redis.
#[derive(Clone)]
pub struct Redis {
    connection: Connection,
    prefix: String,
}

impl Redis {
    /// Opens the store whose keys start with `prefix`, or makes it.
    ///
    /// # Errors
    /// Redis cannot be used, or holds something else under this prefix.
    pub async fn open(connection: Connection, prefix: String) -> Result<Self, OpenError> {
        for risk in connection.inspect().await? {
            let address = connection.address();
            tracing::warn!(address, "what routers share may be lost: {risk}");
        }
        let store = Self { connection, prefix };
        let key = store.key("format", "");
        let found = store.connection.mark(key.as_bytes(), FORMAT).await?;
        if found == FORMAT {
            return Ok(store);
        }
        Err(OpenError::Foreign {
            address: store.connection.address().to_owned(),
            key,
            found,
            expected: FORMAT.to_owned(),
            remedy: "choose another `router.redis.key_prefix`, or another Redis".to_owned(),
        })
    }

    /// The same for what callers wait for and what can do without: where Redis does not answer at once, it counts as away.
    #[must_use]
    pub fn hasty(&self) -> Self {
        let options = Options {
            connect_within: HASTE,
            answer_within: HASTE,
            patience: HASTE,
        };
        Self {
            connection: self.connection.with_options(options),
            prefix: self.prefix.clone(),
        }
    }

    /// The connection.
    #[must_use]
    pub const fn connection(&self) -> &Connection {
        &self.connection
    }

    /// Writes a little, so that the connection's health says whether Redis takes writes.
    pub async fn probe(&self) {
        let call = PROBE.call().key(self.key("probe", ""));
        if let Err(error) = self.connection.call::<i64>(&call).await {
            tracing::warn!(%error, "Redis takes no writes; tasks that begin and durable messages are refused");
        }
    }

    fn key(&self, kind: &str, id: &str) -> String {
        if id.is_empty() {
            return format!("{}:{kind}", self.prefix);
        }
        format!("{}:{kind}:{id}", self.prefix)
    }
}

#[async_trait]
impl Owners for Redis {
    async fn get(&self, task: &str) -> Result<Option<Owner>, Error> {
        let key = self.key("owner", task);
        let found: Option<Vec<u8>> = self.connection.run(cmd("GET").arg(&key)).await.map_err(failed)?;
        found.map(|owner| read(task, &owner)).transpose()
    }

    async fn put(&self, task: &str, owner: &Owner, keep: SignedDuration) -> Result<Option<Owner>, Error> {
        let value = serde_json::to_vec(owner).map_err(|error| Error(format!("encode an owner: {error}")))?;
        let call = KEEP
            .call()
            .key(self.key("owner", task))
            .arg(owner.agent.as_str())
            .arg(value)
            .number(keep.as_millis().max(1));
        let other: Option<Vec<u8>> = self.connection.call(&call).await.map_err(failed)?;
        other.map(|owner| read(task, &owner)).transpose()
    }

    /// Redis forgets by itself.
    async fn sweep(&self, _before: Timestamp, _most: usize) -> Result<usize, Error> {
        Ok(0)
    }
}

fn read(task: &str, owner: &[u8]) -> Result<Owner, Error> {
    serde_json::from_slice(owner)
        .map_err(|error| Error(format!("the owner of task {task} is damaged: {error}")))
}

fn failed(error: RedisError) -> Error {
    Error(error.to_string())
}

#[cfg(test)]
mod tests;
