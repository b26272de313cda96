//! The inbox in Redis: standalone, Sentinel or Cluster, shared by the replicas of the router.
//!
//! **Layout.** Everything is in one slot, `PREFIX:{inbox}:`. A hash `entry:ID` holds an entry's record (JSON), its message and
//! its answer, and the token of the write that it comes from. Sorted sets are the indexes: `ready:push:TARGET` in order of
//! urgency, `heads:push` with the first of each target, `due` by the time at which something happens by itself, `all` and one
//! for each status by sequence, `open` with the number of entries of each target.
//!
//! **Rules.** What may happen to an entry is decided by [`Entry`] alone, here as in the embedded store. An adapter reads an
//! entry, has it changed, and writes it if nobody has in between (`write.lua` compares the token); else it reads again. So a
//! lease is given to one of two who want it, and an outcome that comes too late finds another token in the entry. Times are
//! Redis's own, read in the same scripts, so that the routers' clocks do not matter. A write that is sent again because its
//! answer got lost is known by its token, and done once.
//!
//! **Rejected: Streams** with consumer groups. They lose here in four ways: a stream knows neither priority nor delay, which
//! would take a stream for each priority and target, and sorted sets besides for what is held back; entries are claimed by idle
//! time, which fences nobody, so that a holder that was frozen could still acknowledge; entries cannot be looked up by
//! their ids or by status, which enqueueing twice, cancelling and replaying need; and each group costs a round trip for each
//! stream that it may read. Rejected too: a slot for each target (the order over all targets, and the bound on all entries,
//! would span slots); one node of a Cluster does some ten thousands of these scripts a second, which is far more than agents.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use muster_store::redis::{Connection, Error as RedisError, Script, Slot, cmd};

use super::{Error, Kept, Lent, Store, token};
use crate::inbox::entry::{Change, Delivery, Draft, Entry, Millis, Policy, Refusal, State, Status};
use crate::inbox::queue::{
    Counts, Filter, Full, LOOKED_AT, Page, Refused, TARGETS_SHOWN, TICKED_AT_ONCE, Ticked, Wanted,
};

macro_rules! timed {
    ($flags:literal, $name:literal) => {
        Script::new(concat!(
            $flags,
            include_str!("redis/time.lua"),
            include_str!(concat!("redis/", $name))
        ))
    };
}

static WRITE: Script = Script::new(concat!("#!lua\n", include_str!("redis/write.lua")));
/// The same for what makes room.
static FREE: Script = Script::new(concat!(
    "#!lua flags=allow-oom\n",
    include_str!("redis/write.lua")
));
static BEGIN: Script = timed!("#!lua\n", "begin.lua");
static LOAD: Script = timed!("", "load.lua");
static FIRSTS: Script = timed!("", "firsts.lua");
static DUE: Script = timed!("", "due.lua");
static COUNTS: Script = timed!("", "counts.lua");
static PAGE: Script = Script::new(include_str!("redis/page.lua"));

/// Name of the slot.
const SLOT: &str = "inbox";

/// How often somebody else may come in between before it is given up.
const TRIES: usize = 32;

/// Entries of a list that are read at once.
const CHUNK: usize = 200;

/// Answered entries that make room for a message at once.
const EVICTED_AT_ONCE: usize = 32;

/// What `write.lua` answers where the room for messages is full.
const NO_BYTES: i64 = -3;

/// See the module.
pub struct Redis {
    connection: Connection,
    slot: Slot,
    policy: Policy,
    /// What is added to Redis's time; nothing outside of tests.
    ahead: AtomicU64,
}

/// An entry as it was read, and the token that it was written under.
#[derive(Debug, Clone)]
struct Known {
    entry: Entry,
    token: String,
}

/// How one entry is to be.
struct Write<'w> {
    before: Option<&'w Known>,
    after: Option<&'w Entry>,
    body: Option<&'w [u8]>,
    answer: Option<&'w [u8]>,
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Written {
    Done,
    Overtaken,
    Full(i64),
}

impl Redis {
    /// An inbox under a prefix of keys.
    #[must_use]
    pub fn new(connection: Connection, prefix: &str, policy: Policy) -> Self {
        Self {
            connection,
            slot: Slot::named(prefix, SLOT),
            policy,
            ahead: AtomicU64::new(0),
        }
    }

    fn timed(&self, script: &'static Script) -> muster_store::redis::Call {
        let ahead = self.ahead.load(Ordering::Relaxed);
        script.call().key(self.slot.key("")).number(ahead)
    }

    async fn answer(&self, call: &muster_store::redis::Call) -> Result<std::vec::IntoIter<Vec<u8>>, Error> {
        let answer: Vec<Vec<u8>> = self.connection.call(call).await.map_err(unavailable)?;
        Ok(answer.into_iter())
    }

    /// An entry, and the time.
    async fn load(&self, id: &str) -> Result<(Millis, Option<Known>), Error> {
        let mut answer = self.answer(&self.timed(&LOAD).arg(id)).await?;
        let now = number(answer.next())?;
        Ok((now, known(answer.next(), answer.next())?))
    }

    /// Writes entries as far as nobody else has.
    async fn write(&self, script: &'static Script, writes: &[Write<'_>]) -> Result<Vec<Written>, Error> {
        if writes.is_empty() {
            return Ok(Vec::new());
        }
        let mut call = script
            .call()
            .key(self.slot.key(""))
            .arg(token())
            .number(self.policy.entries as u64)
            .number(self.policy.total as u64)
            .number(self.policy.bytes)
            .number(writes.len() as u64);
        for write in writes {
            write.push(&mut call, &self.policy)?;
        }
        let answers: Vec<i64> = self.connection.call(&call).await.map_err(unavailable)?;
        let read = |answer: i64| match answer {
            1 => Written::Done,
            0 => Written::Overtaken,
            full => Written::Full(full),
        };
        Ok(answers.into_iter().map(read).collect())
    }

    async fn write_one(&self, write: Write<'_>) -> Result<Written, Error> {
        let written = self.write(&WRITE, &[write]).await?;
        written.first().copied().ok_or_else(misread)
    }

    fn full(&self, code: i64) -> Error {
        Error::Full(match code {
            -1 => Full::Target(self.policy.entries),
            -2 => Full::Total(self.policy.total),
            _ => Full::Bytes(self.policy.bytes),
        })
    }

    /// Forgets some of the oldest answered entries; how many.
    async fn evict(&self) -> Result<usize, Error> {
        let filter = Filter {
            status: Some(Status::Done),
            ..Filter::default()
        };
        let page = self.list(&filter, 0, EVICTED_AT_ONCE).await?;
        let mut gone = 0;
        for entry in page.entries {
            gone += usize::from(self.purge(&entry.id).await.is_ok());
        }
        Ok(gone)
    }
}

impl Write<'_> {
    fn push(&self, call: &mut muster_store::redis::Call, policy: &Policy) -> Result<(), Error> {
        let former = self.before.map(|known| &known.entry);
        let Some(entry) = self.after.or(former) else {
            return Err(misread());
        };
        let order = |entry: Option<&Entry>| {
            let ready = entry.filter(|entry| entry.is_ready());
            ready.map_or_else(String::new, |entry| entry.order(policy).to_string())
        };
        let status = |entry: Option<&Entry>| entry.map_or("", |entry| entry.status().name());
        let record = match self.after {
            Some(entry) => serde_json::to_vec(entry)
                .map_err(|error| Error::Unavailable(format!("encode an entry: {error}")))?,
            None => Vec::new(),
        };
        let bytes = |entry: Option<&Entry>| i128::from(entry.map_or(0, Entry::bytes));
        call.push(entry.id.as_bytes());
        call.push(self.before.map_or("", |known| known.token.as_str()));
        call.push(record);
        call.push_number(entry.sequence);
        call.push(entry.target.as_bytes());
        call.push(entry.delivery.name());
        call.push(order(former));
        call.push(order(self.after));
        call.push(
            self.after
                .map_or_else(String::new, |entry| entry.due(policy).to_string()),
        );
        call.push(status(former));
        call.push(status(self.after));
        call.push_number(bytes(self.after) - bytes(former));
        let is_done = self.after.is_some_and(|entry| entry.status() == Status::Done);
        call.push(match self.body {
            Some(_) => "+",
            None if is_done => "-",
            None => "=",
        });
        call.push(self.body.unwrap_or_default());
        call.push(if self.answer.is_some() { "+" } else { "=" });
        call.push(self.answer.unwrap_or_default());
        Ok(())
    }
}

#[async_trait]
impl Store for Redis {
    async fn enqueue(&self, draft: &Draft) -> Result<(Entry, bool), Error> {
        for _ in 0..TRIES {
            let mut answer = self.answer(&self.timed(&BEGIN).arg(draft.id.as_str())).await?;
            let now = number(answer.next())?;
            if let Some(known) = known(answer.next(), answer.next())? {
                return if known.entry.fingerprint == draft.fingerprint {
                    Ok((known.entry, true))
                } else {
                    Err(Error::IdReused(draft.id.clone()))
                };
            }
            let entry = Entry::new(draft, number(answer.next())?, now);
            let write = Write {
                before: None,
                after: Some(&entry),
                body: Some(&draft.body),
                answer: None,
            };
            match self.write_one(write).await? {
                Written::Done => return Ok((entry, false)),
                Written::Overtaken => {}
                // Answered messages make room for new ones.
                Written::Full(code) => {
                    if code != NO_BYTES || self.evict().await? == 0 {
                        return Err(self.full(code));
                    }
                }
            }
        }
        Err(contended(&draft.id))
    }

    async fn read(&self, id: &str) -> Result<Option<Kept>, Error> {
        let mut command = cmd("HMGET");
        command
            .arg(self.slot.key_of("entry", id))
            .arg("r")
            .arg("b")
            .arg("a");
        let parts: Vec<Option<Vec<u8>>> = self.connection.run(&command).await.map_err(unavailable)?;
        let mut parts = parts.into_iter();
        let Some(record) = parts.next().flatten() else {
            return Ok(None);
        };
        let mut payload = || parts.next().flatten().map(Bytes::from);
        Ok(Some(Kept {
            entry: entry(&record)?,
            body: payload(),
            answer: payload(),
        }))
    }

    async fn list(&self, filter: &Filter, after: u64, most: usize) -> Result<Page, Error> {
        let list = filter.status.map_or("all", Status::name);
        let (mut page, mut last, mut looked_at) = (Page::default(), after, 0);
        while looked_at < LOOKED_AT {
            let call = PAGE
                .call()
                .key(self.slot.key(""))
                .arg(list)
                .number(last)
                .number(CHUNK as u64);
            let records = self.answer(&call).await?;
            let is_last = records.len() < CHUNK;
            for record in records.filter(|record| !record.is_empty()) {
                if page.entries.len() == most {
                    page.next = Some(last);
                    return Ok(page);
                }
                let entry = entry(&record)?;
                last = entry.sequence;
                if filter.takes(&entry) {
                    page.entries.push(entry);
                }
            }
            if is_last {
                return Ok(page);
            }
            looked_at += CHUNK;
        }
        page.next = Some(last);
        Ok(page)
    }

    async fn lease(&self, wanted: &Wanted) -> Result<Vec<Lent>, Error> {
        let mut call = self
            .timed(&FIRSTS)
            .arg(wanted.delivery.name())
            .number(wanted.most as u64);
        for target in &wanted.targets {
            call.push(target.as_bytes());
        }
        let mut answer = self.answer(&call).await?;
        let now = number(answer.next())?;
        let mut offered = Vec::new();
        while let (Some(version), Some(record), Some(body)) = (answer.next(), answer.next(), answer.next()) {
            let Some(known) = known(Some(version), Some(record))? else {
                continue;
            };
            let lease = token();
            // One whose time is up waits for the next tick to be buried.
            if let Ok(entry) = known.entry.clone().lent(&lease, &wanted.by, wanted.lease, now) {
                let body = Bytes::from(body);
                offered.push((
                    known,
                    Lent {
                        entry,
                        token: lease,
                        body,
                    },
                ));
            }
        }
        let writes: Vec<Write<'_>> = offered
            .iter()
            .map(|(known, lent)| Write {
                before: Some(known),
                after: Some(&lent.entry),
                body: None,
                answer: None,
            })
            .collect();
        let written = self.write(&WRITE, &writes).await?;
        let lent = offered.into_iter().zip(written);
        Ok(lent
            .filter(|(_, written)| *written == Written::Done)
            .map(|((_, lent), _)| lent)
            .collect())
    }

    async fn change(&self, id: &str, change: Change, answer: Option<Bytes>) -> Result<Entry, Error> {
        for _ in 0..TRIES {
            let (now, known) = self.load(id).await?;
            let known = known.ok_or_else(|| Error::Unknown(id.to_owned()))?;
            let changed = known.entry.clone().changed(change.clone(), now, &self.policy);
            let entry = changed.map_err(|refusal| Error::of(id, Refused::Entry(refusal)))?;
            if entry == known.entry {
                return Ok(entry);
            }
            let write = Write {
                before: Some(&known),
                after: Some(&entry),
                body: None,
                answer: answer.as_deref(),
            };
            match self.write_one(write).await? {
                Written::Done => return Ok(entry),
                Written::Overtaken => {}
                Written::Full(code) => return Err(self.full(code)),
            }
        }
        Err(contended(id))
    }

    async fn purge(&self, id: &str) -> Result<(), Error> {
        for _ in 0..TRIES {
            let (_, known) = self.load(id).await?;
            let known = known.ok_or_else(|| Error::Unknown(id.to_owned()))?;
            let status = known.entry.status();
            if !status.has_ended() {
                return Err(Error::of(id, Refused::Entry(Refusal::State(status))));
            }
            let removal = Write::removal(&known);
            if self.write(&FREE, &[removal]).await?.first() == Some(&Written::Done) {
                return Ok(());
            }
        }
        Err(contended(id))
    }

    async fn tick(&self) -> Result<Ticked, Error> {
        let call = self
            .timed(&DUE)
            .number(TICKED_AT_ONCE as u64)
            .number(self.policy.ended as u64);
        let mut answer = self.answer(&call).await?;
        let now = number(answer.next())?;
        let next = answer.next().filter(|next| !next.is_empty());
        let next = next.map(|next| number(Some(next))).transpose()?;
        let due = usize::try_from(number(answer.next())?).unwrap_or(usize::MAX);
        let mut changes: Vec<(Known, Option<Entry>)> = Vec::new();
        let (mut seen, mut displaced_from) = (0, 0);
        while let (Some(version), Some(record)) = (answer.next(), answer.next()) {
            let is_due = seen < due;
            seen += 1;
            let Some(known) = known(Some(version), Some(record))? else {
                continue;
            };
            if is_due {
                let after = known.entry.clone().at_its_time(now, &self.policy);
                changes.push((known, after));
                displaced_from = changes.len();
            } else {
                changes.push((known, None));
            }
        }
        let writes: Vec<Write<'_>> = changes
            .iter()
            .map(|(known, after)| Write {
                after: after.as_ref(),
                ..Write::removal(known)
            })
            .collect();
        let written = self.write(&FREE, &writes).await?;
        let mut ticked = Ticked {
            next: next.map(|next| Duration::from_millis(next.saturating_sub(now))),
            ..Ticked::default()
        };
        for (index, ((known, after), written)) in changes.iter().zip(written).enumerate() {
            if written != Written::Done {
                continue;
            }
            let is_dead = after.as_ref().is_some_and(|entry| entry.status() == Status::Dead);
            ticked.dead += usize::from(is_dead);
            ticked.returned += usize::from(matches!(known.entry.state, State::Delivering { .. }));
            ticked.displaced += usize::from(index >= displaced_from);
        }
        Ok(ticked)
    }

    async fn heads(&self, delivery: Delivery, skipped: usize, most: usize) -> Result<Vec<String>, Error> {
        if most == 0 {
            return Ok(Vec::new());
        }
        let mut command = cmd("ZRANGE");
        command
            .arg(self.slot.key(&format!("heads:{}", delivery.name())))
            .arg(skipped)
            .arg(skipped.saturating_add(most - 1));
        self.connection.run(&command).await.map_err(unavailable)
    }

    async fn counts(&self) -> Result<Counts, Error> {
        let mut answer = self
            .answer(&self.timed(&COUNTS).number(TARGETS_SHOWN as u64))
            .await?;
        let now = number(answer.next())?;
        let mut counts = Counts::default();
        for count in &mut counts.by_status {
            *count = size(answer.next())?;
        }
        if let Some(record) = answer.next().filter(|record| !record.is_empty()) {
            let waited = now.saturating_sub(entry(&record)?.enqueued_at);
            counts.oldest = Duration::from_millis(waited);
        }
        while let (Some(target), Some(count)) = (answer.next(), answer.next()) {
            let target = String::from_utf8(target).map_err(|_| misread())?;
            counts.targets.push((target, size(Some(count))?));
        }
        Ok(counts)
    }

    fn failure(&self) -> Option<String> {
        self.connection.health().err()
    }
}

impl<'w> Write<'w> {
    const fn removal(known: &'w Known) -> Self {
        Self {
            before: Some(known),
            after: None,
            body: None,
            answer: None,
        }
    }
}

/// An entry that was read; `None` where there was none.
fn known(token: Option<Vec<u8>>, record: Option<Vec<u8>>) -> Result<Option<Known>, Error> {
    let (Some(token), Some(record)) = (token, record) else {
        return Err(misread());
    };
    if token.is_empty() {
        return Ok(None);
    }
    Ok(Some(Known {
        entry: entry(&record)?,
        token: String::from_utf8(token).map_err(|_| misread())?,
    }))
}

fn entry(record: &[u8]) -> Result<Entry, Error> {
    serde_json::from_slice(record)
        .map_err(|error| Error::Unavailable(format!("an entry in Redis is damaged: {error}")))
}

fn number(text: Option<Vec<u8>>) -> Result<u64, Error> {
    let text = text.and_then(|text| String::from_utf8(text).ok());
    text.and_then(|text| text.parse().ok()).ok_or_else(misread)
}

fn size(text: Option<Vec<u8>>) -> Result<usize, Error> {
    Ok(usize::try_from(number(text)?).unwrap_or(usize::MAX))
}

fn misread() -> Error {
    Error::Unavailable("Redis answered what is not understood".to_owned())
}

fn contended(id: &str) -> Error {
    Error::Unavailable(format!(
        "entry '{id}' is being changed by others all the time; try again"
    ))
}

fn unavailable(error: RedisError) -> Error {
    Error::Unavailable(error.to_string())
}

#[cfg(test)]
mod tests {
    use muster_store::redis::Options;
    use muster_testkit::{RedisCluster, RedisSentinels, RedisServer};

    use super::super::conformance::{self, HELD_TO};
    use super::*;
    use crate::inbox::entry::tests::draft;
    use crate::priority::Priority;

    fn inbox(url: &str) -> Redis {
        let address = url.parse().unwrap();
        Redis::new(Connection::new(address, Options::default()), "test", HELD_TO)
    }

    async fn conforms(url: &str) {
        let redis = inbox(url);
        conformance::run(&redis, &|by| {
            let by = u64::try_from(by.as_millis()).unwrap();
            redis.ahead.fetch_add(by, Ordering::Relaxed);
        })
        .await;
        // Nothing is left behind but the counter.
        let bytes: Option<i64> = redis
            .connection
            .run(cmd("HGET").arg(redis.slot.key("totals")).arg("bytes"))
            .await
            .unwrap();
        assert_eq!(bytes, Some(0));
    }

    #[tokio::test]
    async fn redis_inbox_conforms() {
        let server = RedisServer::start().await;
        conforms(&server.url()).await;
        let keys = server.ask(&["KEYS", "*"]).await;
        assert!(
            keys.lines()
                .all(|key| key.ends_with(":sequence") || key.ends_with(":totals")),
            "{keys}"
        );
    }

    #[tokio::test]
    async fn redis_inbox_conforms_in_a_cluster() {
        let cluster = RedisCluster::start().await;
        conforms(&cluster.url()).await;
    }

    #[tokio::test]
    async fn redis_inbox_conforms_behind_sentinels() {
        let sentinels = RedisSentinels::start().await;
        conforms(&sentinels.url()).await;
    }

    #[tokio::test]
    async fn redis_inbox_lends_nothing_twice_to_many_who_ask_at_once() {
        let server = RedisServer::start().await;
        let routers: Vec<Redis> = (0..4).map(|_| inbox(&server.url())).collect();
        for number in 0..5 {
            let draft = draft(&format!("m{number}"), "weather", Priority::Normal);
            routers[0].enqueue(&draft).await.unwrap();
        }
        let mut lent = Vec::new();
        while lent.len() < 5 {
            let wanted = |by: usize| Wanted {
                targets: vec!["weather".to_owned()],
                delivery: Delivery::Push,
                most: 2,
                lease: Duration::from_secs(30),
                by: format!("r{by}"),
            };
            let wishes = routers
                .iter()
                .enumerate()
                .map(|(by, router)| async move { router.lease(&wanted(by)).await.unwrap() });
            for got in futures::future::join_all(wishes).await {
                lent.extend(got.into_iter().map(|lent| lent.entry.id));
            }
        }
        lent.sort();
        assert_eq!(lent, ["m0", "m1", "m2", "m3", "m4"]);
        assert!(routers[0].heads(Delivery::Push, 0, 9).await.unwrap().is_empty());
    }
}
