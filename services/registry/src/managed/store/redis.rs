//! What is kept, in Redis, for all registries over it; and which of them keeps.
//!
//! ```text
//! entries   what was asked for, by key     state   id of the store, number of the last change
//! found     what the keeper has found      lease   of the keeper
//! ```
//!
//! All keys are in one slot, so that a script changes them together. An agent takes about a kilobyte, and there are ten thousand
//! at most.
//!
//! - **Everybody knows them all.** Replicas ask about once a second whether the number has changed, and read everything where it
//!   has. A feed with resume, as leases have, would be more than what changes once in a while needs.
//! - **One keeps.** The lease is one for all agents, with an epoch ([`muster_store::redis::lease`]). What is found is written under it, so
//!   that a keeper that was frozen and wakes changes nothing. A lease for each agent would spread the looks, of which one registry makes
//!   some hundred a second without effort, and cost as many renewals as there are agents.
//! - **Found, and written down.** Unlike other stores this one holds what was found: whoever takes over has to know whom an operator has
//!   taken out, and which lease to end when an agent is forgotten.

use std::time::Duration;

use async_trait::async_trait;
use muster_store::redis::lease::{self, Leases};
use muster_store::redis::{Call, Connection, Error as RedisError, Options, Script, Slot, cmd};
use uuid::Uuid;

use super::{Entries, Error, Found, Kept, Key, Known, News, Shared, Told, bytes};

static PUT: Script = Script::new(concat!(
    "#!lua\n",
    include_str!("redis/prelude.lua"),
    include_str!("redis/put.lua")
));
static PUT_NEW: Script = Script::new(concat!(
    "#!lua\n",
    include_str!("redis/prelude.lua"),
    include_str!("redis/put_new.lua")
));
static REMOVE: Script = Script::new(concat!(
    "#!lua flags=allow-oom\n",
    include_str!("redis/prelude.lua"),
    include_str!("redis/remove.lua")
));
static LOOK: Script = Script::new(include_str!("redis/look.lua"));
static TELL: Script = Script::new(include_str!("redis/tell.lua"));

/// The only partition: all keys of what is kept.
const PARTITION: u16 = 0;

/// See the module.
pub struct Redis {
    connection: Connection,
    /// For signs of life, which must not wait behind others.
    pulse: Connection,
    leases: Leases,
    slot: Slot,
    name: String,
    time_to_live: Duration,
}

impl Redis {
    /// In the Redis of this connection, under a prefix of keys. The keeper's lease lasts so long.
    #[must_use]
    pub fn new(connection: Connection, prefix: &str, time_to_live: Duration) -> Self {
        let prefix = format!("{prefix}:managed");
        let pulse = connection.with_options(Options {
            connect_within: time_to_live,
            answer_within: time_to_live,
            patience: time_to_live,
        });
        Self {
            slot: Slot::of_partition(&prefix, PARTITION),
            leases: Leases::new(pulse.clone(), prefix),
            pulse,
            connection,
            name: Uuid::now_v7().to_string(),
            time_to_live,
        }
    }

    fn all_keys(&self, script: &'static Script, last: &str) -> Call {
        script
            .call()
            .key(self.slot.key("entries"))
            .key(self.slot.key("found"))
            .key(self.slot.key(last))
    }

    /// A call that changes what is kept.
    fn change(&self, script: &'static Script, key: &Key) -> Call {
        self.all_keys(script, "state")
            .arg(Uuid::new_v4().to_string())
            .arg(bytes(key))
    }

    async fn put_with(&self, kept: &Kept, found: Vec<u8>) -> Result<(), Error> {
        let value = encoded(kept)?;
        let call = self.change(&PUT, &kept.key()).arg(value).arg(found);
        self.connection.call::<i64>(&call).await.map_err(failed)?;
        Ok(())
    }
}

#[async_trait]
impl Entries for Redis {
    async fn all(&self) -> Result<Vec<Kept>, Error> {
        let news = self.news(None).await?;
        let kept = news.into_iter().flat_map(|news| news.entries);
        Ok(kept.map(|(kept, _)| kept).collect())
    }

    async fn put(&self, kept: &Kept) -> Result<(), Error> {
        self.put_with(kept, Vec::new()).await
    }

    async fn remove(&self, key: &Key) -> Result<(), Error> {
        let call = self.change(&REMOVE, key);
        self.connection.call::<i64>(&call).await.map_err(failed)?;
        Ok(())
    }

    fn failure(&self) -> Option<String> {
        self.connection.health().err()
    }
}

#[async_trait]
impl Shared for Redis {
    async fn news(&self, known: Option<&Known>) -> Result<Option<News>, Error> {
        let (id, number) = known.map_or(("?", 0), |known| (known.store.as_str(), known.change));
        let call = self.all_keys(&LOOK, "state").arg(id).number(number);
        let answer: Vec<Vec<u8>> = self.connection.call(&call).await.map_err(failed)?;
        let mut answer = answer.into_iter();
        let Some(store) = answer.next() else {
            return Ok(None);
        };
        let number = answer.next().unwrap_or_default();
        let known = Known {
            store: String::from_utf8_lossy(&store).into_owned(),
            change: String::from_utf8_lossy(&number).parse().map_err(damaged)?,
        };
        let mut entries = Vec::new();
        while let (Some(kept), Some(found)) = (answer.next(), answer.next()) {
            let kept: Kept = serde_json::from_slice(&kept).map_err(damaged)?;
            entries.push((kept, read(&found)?));
        }
        Ok(Some(News { known, entries }))
    }

    async fn found(&self, keys: &[Key]) -> Result<Vec<Option<Found>>, Error> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let mut command = cmd("HMGET");
        command.arg(self.slot.key("found"));
        for key in keys {
            command.arg(bytes(key));
        }
        let answer: Vec<Option<Vec<u8>>> = self.connection.run(&command).await.map_err(failed)?;
        let found = answer.into_iter();
        found.map(|found| read(&found.unwrap_or_default())).collect()
    }

    async fn put_new(&self, kept: &Kept) -> Result<bool, Error> {
        let call = self.change(&PUT_NEW, &kept.key()).arg(encoded(kept)?);
        let put: i64 = self.connection.call(&call).await.map_err(failed)?;
        Ok(put == 1)
    }

    async fn put_found(&self, kept: &Kept, found: &Found) -> Result<(), Error> {
        self.put_with(kept, encoded(found)?).await
    }

    async fn tell(&self, epoch: u64, key: &Key, found: &Found) -> Result<Told, Error> {
        let call = self
            .all_keys(&TELL, lease::KEY)
            .arg(lease::fence(epoch, &self.name))
            .arg(bytes(key))
            .arg(encoded(found)?);
        let said: String = self.connection.call(&call).await.map_err(failed)?;
        match said.as_str() {
            "told" => Ok(Told::Done),
            "gone" => Ok(Told::Gone),
            "lost" => Ok(Told::Lost),
            other => Err(damaged(format!("'{other}'"))),
        }
    }

    async fn lead(&self, epoch: Option<u64>) -> Result<Option<u64>, Error> {
        // A former primary that is alive believes that it is the primary; the Sentinels know. The sign of life does not wait for
        // them.
        let (standing, ()) = tokio::join!(self.beat(epoch), self.pulse.confirm());
        standing
    }

    async fn leave(&self, epoch: u64) -> Result<(), Error> {
        let released = self.leases.release(PARTITION, &self.name, epoch).await;
        released.map(drop).map_err(failed)
    }

    fn time_to_live(&self) -> Duration {
        self.time_to_live
    }
}

impl Redis {
    async fn beat(&self, epoch: Option<u64>) -> Result<Option<u64>, Error> {
        let (owner, time) = (self.name.as_str(), self.time_to_live);
        if let Some(epoch) = epoch {
            let renewed = self.leases.renew(PARTITION, owner, epoch, time).await;
            if renewed.map_err(failed)?.is_some() {
                return Ok(Some(epoch));
            }
        }
        let taken = self.leases.acquire(PARTITION, owner, "", time).await;
        Ok(taken.map_err(failed)?.ok().map(|grant| grant.epoch))
    }
}

fn encoded(value: &impl serde::Serialize) -> Result<Vec<u8>, Error> {
    serde_json::to_vec(value).map_err(|error| Error(format!("encode an entry: {error}")))
}

/// What was found; nothing where nothing was written.
fn read(found: &[u8]) -> Result<Option<Found>, Error> {
    if found.is_empty() {
        return Ok(None);
    }
    serde_json::from_slice(found).map(Some).map_err(damaged)
}

#[expect(clippy::needless_pass_by_value, reason = "it maps errors")]
fn failed(error: RedisError) -> Error {
    Error(error.to_string())
}

fn damaged(what: impl std::fmt::Display) -> Error {
    Error(format!(
        "what Redis holds of agents that are kept is not understood: {what}"
    ))
}

#[cfg(test)]
mod tests {
    use muster_testkit::{RedisCluster, RedisSentinels, RedisServer, wait_for};

    use super::super::super::entry::kept;
    use super::*;

    const LONG: Duration = Duration::from_secs(600);

    fn store(url: &str, time_to_live: Duration) -> Redis {
        let connection = Connection::new(url.parse().unwrap(), Options::default());
        Redis::new(connection, "muster", time_to_live)
    }

    #[tokio::test]
    async fn it_conforms_on_every_form_of_redis() {
        let server = RedisServer::start().await;
        super::super::conformance::run(&store(&server.url(), LONG)).await;
        let cluster = RedisCluster::start().await;
        super::super::conformance::run(&store(&cluster.url(), LONG)).await;
        let sentinels = RedisSentinels::start().await;
        super::super::conformance::run(&store(&sentinels.url(), LONG)).await;
    }

    #[tokio::test]
    async fn one_keeps_what_all_know_and_writes_nothing_when_another_has_followed() {
        let mut server = RedisServer::start().await;
        let short = Duration::from_millis(300);
        let (one, other) = (store(&server.url(), short), store(&server.url(), LONG));
        let agent = kept("a", "http://a/");
        let (key, found) = (agent.key(), Found::default());
        let epoch = one.lead(None).await.unwrap().expect("it is free");
        one.put(&agent).await.unwrap();
        let known = other.news(None).await.unwrap().expect("something").known;
        assert_eq!(one.tell(epoch, &key, &found).await, Ok(Told::Done));
        assert_eq!(
            other.found(std::slice::from_ref(&key)).await,
            Ok(vec![Some(found.clone())])
        );
        assert!(
            other.news(Some(&known)).await.unwrap().is_none(),
            "what is found is no change"
        );

        let next = wait_for("the lease to end", Duration::from_secs(30), async || {
            other.lead(None).await.unwrap().ok_or("it is held")
        })
        .await;
        assert!(next > epoch);
        assert_eq!(one.tell(epoch, &key, &found).await, Ok(Told::Lost));
        assert_eq!(one.lead(Some(epoch)).await, Ok(None));
        assert_eq!(other.lead(Some(next)).await, Ok(Some(next)));
        one.remove(&key).await.unwrap();
        assert_eq!(other.tell(next, &key, &found).await, Ok(Told::Gone));
        other.leave(next).await.unwrap();
        assert!(one.lead(None).await.unwrap().is_some_and(|epoch| epoch > next));

        // What is in an emptied Redis is another store.
        server.ask(&["FLUSHALL"]).await;
        one.put(&agent).await.unwrap();
        let news = other.news(Some(&known)).await.unwrap().expect("something else");
        assert!(news.known.store != known.store && news.entries.len() == 1);
        server.kill().await;
        let hasty = store(&server.url(), short);
        assert!(hasty.lead(None).await.is_err());
    }
}
