//! The tasks in Redis, shared by all instances of an agent: standalone, Sentinel or Cluster.
//!
//! ```text
//! leases            who lives, until when by Redis's clock          resting   who may be forgotten, longest untouched first
//! held:INSTANCE     the tasks that it works on                      bytes     of all records
//! wishes:INSTANCE   what others ask of it                           order, state:S, context:C, both:S:C   lists, by time of status
//! by:CALLER:…       the same lists of one caller, by a hash of its name
//! task:ID           record, version, who wrote it, who works on it  feed:ID   its events since, each with its number
//! format, id        of the store: the version of all this, and a random name by which routers know who shares it
//! sealed            the keys by which it is encrypted ([`sealed`](super::sealed)), as far as it is
//! ```
//!
//! What is relied upon:
//!
//! - **One slot for one agent.** All keys of an agent carry one hash tag, so that a script changes a task, its lists and its
//!   owner at once, on any form of Redis. An agent has thousands of tasks and not millions (`agent.max_stored_tasks`), and a Cluster
//!   spreads many agents. Agents of different ids or namespaces share no key.
//! - **Fenced.** An instance has a name of its own for each of its lives, and a lease under it. Every write names the version that
//!   it follows, and is refused where the task was written by anybody else since or the lease has been taken over: an instance
//!   that was frozen and wakes writes nothing, whatever it believes of the time. It also stops by itself before its lease ends
//!   ([`tenure`](super::tenure)).
//! - **Sent again, done once.** A version has one writer, and its drafts have numbers, so that a write that is sent twice finds itself. One
//!   whose answer was lost is known by its version: the next draft of that version, which says more, is written over it, and an
//!   earlier one that arrives late changes nothing ([`trail`](super::trail)).
//! - **Polled.** Whoever follows a task at another instance asks for the events after the last one that it has, again and again with
//!   pauses of 20 to 200 ms. Blocking reads of streams would stop everybody on the one multiplexed connection, and a connection
//!   for each follower costs Redis more than the questions.
//!
//! Rejected: forwarding calls to the owner over the network (instances would have to reach each other, and its death would have to
//! be told from its silence); a lease for each task (as many renewals as tasks).

#[cfg(test)]
mod tests;

use std::time::Duration;

use a2a_pb::proto::{self as pb, TaskState};
use async_trait::async_trait;
use futures::future::join_all;
use muster_api::error::{Error, Reason};
use muster_runtime::clock::SharedClock;
use muster_store::Keys;
use muster_store::redis::{
    Call, Connection, Error as RedisError, FromRedisValue, OpenError, Options, Script, Slot, cmd,
};
use parking_lot::Mutex;
use prost::Message as _;
use uuid::Uuid;

use super::page::{Key, Query};
use super::record::Record;
use super::sealed::{Kind, Sealing};
use super::store::{Draft, Outcome, Stage, Store, Stored, unavailable};
use super::table::Bounds;
use super::tenure::Tenure;
use super::whose;

/// Needs room, as tasks do.
static PROBE: Script = Script::new("#!lua\nredis.call('SET', ARGV[1] .. 'probe', '1')\nreturn 1\n");
static WRITE: Script = Script::new(include_str!("redis/write.lua"));
static READ: Script = Script::new(concat!(
    "#!lua flags=no-writes\n",
    include_str!("redis/contents.lua"),
    include_str!("redis/read.lua")
));
static CLAIM: Script = Script::new(concat!(
    "#!lua\n",
    include_str!("redis/contents.lua"),
    include_str!("redis/claim.lua")
));
static TAKE: Script = Script::new(concat!(
    "#!lua\n",
    include_str!("redis/contents.lua"),
    include_str!("redis/take.lua")
));
static BEAT: Script = Script::new(include_str!("redis/beat.lua"));
static LEAVE: Script = Script::new(include_str!("redis/leave.lua"));
static LOOK: Script = Script::new(include_str!("redis/look.lua"));
static WISH: Script = Script::new(include_str!("redis/wish.lua"));
static LIST: Script = Script::new(include_str!("redis/list.lua"));
static FOLLOW: Script = Script::new(include_str!("redis/follow.lua"));

/// What such a store is called, and the version of its keys and values.
const FORMAT: &str = "agent-tasks 1";

/// How long the events of a task that nobody works on stay for those who follow it and are behind.
const FEED: Duration = Duration::from_secs(60);

/// Most wishes that an instance has not heard yet.
const MOST_WISHES: u32 = 1_024;

/// How long wishes wait for an instance at most.
const WISHES: Duration = Duration::from_secs(600);

/// Tasks that are taken over at once.
const TAKEN_AT_ONCE: u32 = 8;

/// Events that are read at once.
const FOLLOWED_AT_ONCE: u32 = 256;

/// Digits of a time in a place; enough for all microseconds that 64 bits count.
const DIGITS: usize = 20;

/// See the module.
pub(crate) struct Redis {
    connection: Connection,
    /// For signs of life, which must not wait behind large records nor longer than a lease.
    pulse: Connection,
    /// What the store is called, the same for all who share it and for nobody else.
    id: String,
    leases: Vec<u8>,
    base: Vec<u8>,
    sealing: Sealing,
    bounds: Bounds,
    lease: Duration,
    clock: SharedClock,
    me: Mutex<Me>,
    /// Held while a task is taken from the store, so that two who want it do not both.
    pub(super) claiming: tokio::sync::Mutex<()>,
}

/// This instance in the eyes of the store.
struct Me {
    name: String,
    tenure: Tenure,
    is_new: bool,
}

/// Where and whose tasks are.
pub(crate) struct Place<'a> {
    pub(crate) prefix: &'a str,
    pub(crate) namespace: &'a str,
    pub(crate) agent: &'a str,
}

/// What a sign of life is answered with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Beat {
    Alive {
        /// The tasks that this instance holds in the eyes of the store.
        held: Vec<String>,
        /// Instances whose leases have ended.
        ended: Vec<String>,
    },
    /// Everything that it held is another's.
    Lost,
}

/// What becomes of the wish to have a task.
#[derive(Debug)]
pub(super) enum Claim {
    Mine(Box<Stored>),
    Unknown,
    /// Another instance works on it.
    Held,
    /// This instance has no lease.
    Lost,
}

/// What an instance is asked for by another.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Wish {
    Cancel(String),
    PutPush(String, Box<pb::TaskPushNotificationConfig>),
    RemovePush(String, String),
}

/// What has happened to a task.
#[derive(Debug)]
pub(super) struct News {
    /// Number of its last event.
    pub(super) number: u64,
    pub(super) state: TaskState,
    /// Events with their numbers.
    pub(super) events: Vec<(u64, pb::StreamResponse)>,
}

impl Redis {
    /// Opens the store of an agent, or makes it, and says that this instance lives.
    ///
    /// # Errors
    /// Redis cannot be used, or holds something else under these keys.
    pub(crate) async fn open(
        connection: Connection,
        place: Place<'_>,
        keys: Option<Keys>,
        bounds: Bounds,
        lease: Duration,
        clock: SharedClock,
    ) -> Result<Self, OpenError> {
        for risk in connection.inspect().await? {
            let address = connection.address();
            tracing::warn!(address, "acknowledged tasks may be lost: {risk}");
        }
        let namespace = match place.namespace {
            "" => "default",
            namespace => namespace,
        };
        let slot = Slot::named(place.prefix, &format!("agent.{namespace}.{}", place.agent));
        check_format(&connection, &slot).await?;
        let sealing = Sealing::new(keys, slot.key(""));
        sealing.check(&connection, &slot.key("sealed")).await?;
        let id = Uuid::new_v4().to_string();
        let id = connection.mark(&slot.key("id"), &id).await?;
        let short = lease / 3;
        let pulse = connection.with_options(Options {
            connect_within: short,
            answer_within: short,
            patience: short,
        });
        let redis = Self {
            pulse,
            connection,
            id,
            leases: slot.key("leases"),
            base: slot.key(""),
            sealing,
            bounds,
            lease,
            clock,
            me: Mutex::new(Me {
                name: Uuid::now_v7().to_string(),
                tenure: Tenure::default(),
                is_new: true,
            }),
            claiming: tokio::sync::Mutex::default(),
        };
        let alive = redis.beat().await;
        alive.map_err(|error| OpenError::Unavailable(error.to_string()))?;
        Ok(redis)
    }

    /// Where it is, without password.
    pub(super) fn address(&self) -> &str {
        self.connection.address()
    }

    /// What the store is called.
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// How long a lease lasts.
    pub(super) fn lease(&self) -> Duration {
        self.lease
    }

    /// How long somebody waits for Redis or for another instance.
    pub(super) fn patience(&self) -> Duration {
        self.connection.options().patience
    }

    /// The name of this instance.
    pub(super) fn name(&self) -> String {
        self.me.lock().name.clone()
    }

    fn call(&self, script: &'static Script) -> Call {
        script.call().key(self.leases.clone()).arg(self.base.clone())
    }

    async fn ask<T: FromRedisValue>(&self, call: &Call) -> Result<T, Error> {
        self.connection.call(call).await.map_err(failed)
    }

    /// Says that this instance lives.
    pub(super) async fn beat(&self) -> Result<Beat, Error> {
        // A former primary that is alive believes that it is the primary; the Sentinels know. Where they do not answer, the sign of
        // life does not wait for them.
        let (beat, (), ()) = tokio::join!(self.beat_now(), self.connection.confirm(), self.pulse.confirm());
        beat
    }

    async fn beat_now(&self) -> Result<Beat, Error> {
        let asked = self.clock.monotonic();
        let (name, is_new) = {
            let me = self.me.lock();
            (me.name.clone(), me.is_new)
        };
        let call = self
            .call(&BEAT)
            .arg(name.as_str())
            .number(milliseconds(self.lease))
            .number(u8::from(is_new));
        let mut answer = self
            .pulse
            .call::<Vec<Vec<String>>>(&call)
            .await
            .map_err(failed)?
            .into_iter();
        let word = answer.next().and_then(|first| first.into_iter().next());
        let mut me = self.me.lock();
        if word.as_deref() != Some("alive") {
            // What comes now is another life, which can write what nobody has taken over.
            *me = Me {
                name: Uuid::now_v7().to_string(),
                tenure: Tenure::default(),
                is_new: true,
            };
            return Ok(Beat::Lost);
        }
        me.is_new = false;
        me.tenure.renew(asked, self.lease);
        let mut list = || answer.next().unwrap_or_default();
        Ok(Beat::Alive {
            held: list(),
            ended: list(),
        })
    }

    /// Where something failed, finds out whether it still does, so that [`Store::failure`] knows.
    pub(super) async fn probe(&self) {
        if self.connection.health().is_ok() {
            return;
        }
        let call = self.call(&PROBE);
        let probing = self.ask::<i64>(&call);
        // What it says is kept by the connection.
        let _ = tokio::time::timeout(self.lease / 3, probing).await;
    }

    /// Gives the lease back.
    pub(super) async fn leave(&self) {
        let name = {
            let mut me = self.me.lock();
            me.tenure.end();
            me.name.clone()
        };
        let call = self.call(&LEAVE).arg(name);
        if let Err(error) = self.pulse.call::<i64>(&call).await {
            tracing::warn!(%error, "the lease is not given back; others wait for its end");
        }
    }

    /// Takes a task that nobody works on.
    pub(super) async fn claim(&self, id: &str) -> Result<Claim, Error> {
        let call = self.call(&CLAIM).arg(self.name()).arg(id);
        let mut answer = self.ask::<Vec<Vec<u8>>>(&call).await?.into_iter();
        Ok(match answer.next().as_deref() {
            Some(b"mine") => Claim::Mine(Box::new(
                self.stored(id, answer)?
                    .ok_or_else(|| damaged(id, "it is empty"))?,
            )),
            Some(b"held") => Claim::Held,
            Some(b"unknown") => Claim::Unknown,
            _ => Claim::Lost,
        })
    }

    /// Takes over some of what another instance held, or of what is in the store's list of this one; and whether there is more.
    pub(super) async fn take(&self, other: &str) -> Result<(Vec<Stored>, bool), Error> {
        let call = self.call(&TAKE).arg(self.name()).arg(other).number(TAKEN_AT_ONCE);
        let mut answer = self.ask::<Vec<Vec<Vec<u8>>>>(&call).await?.into_iter();
        let mut head = answer.next().unwrap_or_default().into_iter();
        if head.next().as_deref() != Some(b"taken") {
            return Ok((Vec::new(), false));
        }
        let left = text(head.next());
        let mut taken = Vec::new();
        for task in answer {
            let mut task = task.into_iter();
            let id = text(task.next());
            match self.stored(&id, task) {
                Ok(task) => taken.extend(task),
                // It stays with this instance and nobody can read it; the others must not wait for it.
                Err(error) => tracing::error!(%error, "a task cannot be taken over"),
            }
        }
        Ok((taken, left != "0"))
    }

    /// What others ask of this instance.
    pub(super) async fn wishes(&self) -> Result<Vec<Wish>, Error> {
        let call = self.call(&LOOK).arg(self.name());
        let answer = self.pulse.call::<Vec<Vec<u8>>>(&call).await.map_err(failed)?;
        let (pairs, _) = answer.as_chunks::<2>();
        let wishes = pairs.iter().filter_map(|[wish, value]| {
            let name = std::str::from_utf8(wish).ok()?;
            match self.sealing.open(Kind::Wish, name, value.clone()) {
                Ok(value) => Wish::decode(wish, &value),
                Err(error) => {
                    tracing::error!(%error, "what another instance asks for cannot be read");
                    None
                }
            }
        });
        Ok(wishes.collect())
    }

    /// A wish needs not be told again.
    pub(super) async fn heard(&self, wish: &Wish) -> Result<(), Error> {
        let mut key = self.base.clone();
        key.extend(format!("wishes:{}", self.name()).into_bytes());
        let command = cmd("HDEL").arg(key).arg(wish.encode().0).to_owned();
        self.pulse.run::<i64>(&command).await.map(|_| ()).map_err(failed)
    }

    /// Asks another instance for something; false where it has gone.
    pub(super) async fn wish(&self, instance: &str, wish: &Wish) -> Result<bool, Error> {
        let (field, value) = wish.encode();
        let value = self.sealing.seal(Kind::Wish, &field, value);
        let call = self
            .call(&WISH)
            .arg(instance)
            .arg(field)
            .arg(value)
            .number(MOST_WISHES)
            .number(milliseconds(WISHES));
        match self.ask::<i64>(&call).await? {
            -1 => Err(Error::new(
                Reason::OwnerUnavailable,
                format!("the instance that works on the task has {MOST_WISHES} requests of others before it"),
            )
            .with_retry_after(Duration::from_secs(1))),
            heard => Ok(heard == 1),
        }
    }

    /// A page of a list: the places of one task more than the page has, and how many there are on all pages.
    pub(super) async fn list(&self, query: &Query) -> Result<(Vec<Key>, usize), Error> {
        let mut list = self.base.clone();
        let state = query.state as i32;
        let name = query.whose.name();
        if !name.is_empty() {
            list.extend(format!("by:{name}:").into_bytes());
        }
        let name = match (query.context.as_str(), query.state) {
            ("", TaskState::Unspecified) => "order".to_owned(),
            ("", _) => format!("state:{state}"),
            (context, TaskState::Unspecified) => format!("context:{context}"),
            (context, _) => format!("both:{state}:{context}"),
        };
        list.extend(name.into_bytes());
        let oldest = query.newer_than.map(|time| format!("{:0DIGITS$}", time.max(0)));
        let call = LIST
            .call()
            .key(self.leases.clone())
            .arg(list)
            .arg(
                query
                    .after
                    .as_ref()
                    .map(|(time, id)| place(*time, id))
                    .unwrap_or_default(),
            )
            .arg(oldest.unwrap_or_default())
            .number(query.size as u64 + 1);
        let (total, places): (i64, Vec<String>) = self.ask(&call).await?;
        let keys = places.iter().filter_map(|place| {
            let (time, id) = place.split_once(' ')?;
            Some((time.parse().ok()?, id.to_owned()))
        });
        Ok((keys.collect(), usize::try_from(total).unwrap_or_default()))
    }

    /// What has happened to a task since its event of that number; `None` where it is not known.
    pub(super) async fn news(&self, id: &str, seen: u64) -> Result<Option<News>, Error> {
        let call = self.call(&FOLLOW).arg(id).number(seen).number(FOLLOWED_AT_ONCE);
        let answer = self.ask::<Vec<Vec<u8>>>(&call).await?;
        let (head, events) = match answer.as_slice() {
            [number, state, events @ ..] => ((number, state), events),
            _ => return Ok(None),
        };
        let (pairs, _) = events.as_chunks::<2>();
        let events = pairs.iter().map(|[number, event]| {
            let event = self.sealing.open(Kind::Event, id, event.clone())?;
            let event = pb::StreamResponse::decode(event.as_slice());
            Ok((
                count(number),
                event.map_err(|error| damaged(id, &error.to_string()))?,
            ))
        });
        Ok(Some(News {
            number: count(head.0),
            state: i32::try_from(count(head.1))
                .ok()
                .and_then(|state| TaskState::try_from(state).ok())
                .unwrap_or(TaskState::Unspecified),
            events: events.collect::<Result<_, Error>>()?,
        }))
    }

    /// Reads what a script says of a task; `None` where it says nothing.
    fn stored(&self, id: &str, mut parts: impl Iterator<Item = Vec<u8>>) -> Result<Option<Stored>, Error> {
        let Some(version) = parts.next() else {
            return Ok(None);
        };
        let number = count(&parts.next().unwrap_or_default());
        let worker = text(parts.next());
        let record = self
            .sealing
            .open(Kind::Record, id, parts.next().unwrap_or_default())?;
        let mut record =
            Record::decode(record.as_slice()).map_err(|error| damaged(id, &error.to_string()))?;
        for event in parts {
            let event = self.sealing.open(Kind::Event, id, event)?;
            let event = pb::StreamResponse::decode(event.as_slice());
            record.apply(&event.map_err(|error| damaged(id, &error.to_string()))?);
        }
        Ok(Some(Stored {
            record,
            version: count(&version),
            number,
            worker,
        }))
    }

    fn draft(&self, writer: &str, draft: Draft) -> Call {
        let call = self.call(&WRITE).arg(writer).arg(draft.id.as_str());
        let Some(keep) = draft.keep else {
            return call.arg("forget");
        };
        let part = keep.part;
        let stage = match keep.stage {
            Stage::AtWork => "work",
            Stage::Owing => "owe",
            Stage::AtRest => "rest",
        };
        let mut call = call
            .number(part.version)
            .number(part.draft)
            .number(part.number)
            .number(part.first)
            .number(keep.state as i32)
            .arg(place(keep.time, &draft.id))
            .arg(keep.context)
            .arg(stage)
            .number(self.bounds.tasks as u64)
            .number(self.bounds.bytes as u64)
            .number(milliseconds(self.bounds.retention))
            .number(milliseconds(FEED))
            .arg(whose::name_of(&keep.caller))
            .number(u8::from(keep.record.is_some()))
            .arg(
                self.sealing
                    .seal(Kind::Record, &draft.id, keep.record.unwrap_or_default()),
            );
        for (number, event) in part.events {
            call.push_number(number);
            call.push(self.sealing.seal(Kind::Event, &draft.id, event.encode_to_vec()));
        }
        call
    }
}

#[async_trait]
impl Store for Redis {
    async fn write(&self, drafts: Vec<Draft>) -> Vec<Result<Outcome, Error>> {
        let (writer, left) = {
            let me = self.me.lock();
            (me.name.clone(), me.tenure.left(self.clock.monotonic()))
        };
        let late = || {
            unavailable(&format!(
                "this instance has no lease in Redis at {} and tries to get one",
                self.address()
            ))
        };
        if left.is_zero() {
            return drafts.iter().map(|_| Err(late())).collect();
        }
        let calls: Vec<Call> = drafts
            .into_iter()
            .map(|draft| self.draft(&writer, draft))
            .collect();
        let writes = calls.iter().map(|call| async move {
            match tokio::time::timeout(left, self.ask::<i64>(call)).await {
                Err(_) => None,
                Ok(Err(error)) => Some(Err(error)),
                Ok(Ok(1)) => Some(Ok(Outcome::Done)),
                Ok(Ok(-1)) => Some(Ok(Outcome::Full)),
                // The next sign of life says what has become of what it held.
                Ok(Ok(-2)) => None,
                Ok(Ok(_)) => Some(Ok(Outcome::Lost)),
            }
        });
        let outcomes = join_all(writes).await.into_iter();
        outcomes
            .map(|outcome| outcome.unwrap_or_else(|| Err(late())))
            .collect()
    }

    async fn read(&self, id: &str) -> Result<Option<Stored>, Error> {
        let call = self.call(&READ).arg(id);
        let answer = self.ask::<Vec<Vec<u8>>>(&call).await?;
        self.stored(id, answer.into_iter())
    }

    fn failure(&self) -> Option<String> {
        let health = self.pulse.health().and_then(|()| self.connection.health());
        health.err()
    }

    fn recovers(&self) -> bool {
        true
    }
}

impl Wish {
    /// The task that it is about.
    pub(super) fn task(&self) -> &str {
        match self {
            Self::Cancel(task) | Self::PutPush(task, _) | Self::RemovePush(task, _) => task,
        }
    }

    /// Its name, which is the same for the same wish, and what belongs to it.
    fn encode(&self) -> (String, Vec<u8>) {
        match self {
            Self::Cancel(task) => (format!("cancel {task}"), Vec::new()),
            Self::PutPush(task, config) => (format!("put {task} {}", config.id), config.encode_to_vec()),
            Self::RemovePush(task, config) => (format!("remove {task} {config}"), config.as_bytes().to_vec()),
        }
    }

    fn decode(field: &[u8], value: &[u8]) -> Option<Self> {
        let field = std::str::from_utf8(field).ok()?;
        let (kind, rest) = field.split_once(' ')?;
        let task = || rest.split_once(' ').map_or(rest, |(task, _)| task).to_owned();
        match kind {
            "cancel" => Some(Self::Cancel(rest.to_owned())),
            "put" => {
                let config = pb::TaskPushNotificationConfig::decode(value).ok()?;
                Some(Self::PutPush(task(), Box::new(config)))
            }
            "remove" => Some(Self::RemovePush(task(), String::from_utf8(value.to_vec()).ok()?)),
            _ => None,
        }
    }
}

async fn check_format(connection: &Connection, slot: &Slot) -> Result<(), OpenError> {
    let key = slot.key("format");
    let found = connection.mark(&key, FORMAT).await?;
    if found == FORMAT {
        return Ok(());
    }
    Err(OpenError::Foreign {
        address: connection.address().to_owned(),
        key: String::from_utf8_lossy(&key).into_owned(),
        found,
        expected: FORMAT.to_owned(),
        remedy: "run the version that made it, or choose another `agent.redis.key_prefix`".to_owned(),
    })
}

/// A task's place in lists: the order of places is that of (time, id).
fn place(time: i64, id: &str) -> String {
    format!("{:0DIGITS$} {id}", time.max(0))
}

pub(super) fn damaged(id: &str, what: &str) -> Error {
    unavailable(&format!("what Redis has of task '{id}' cannot be read: {what}"))
}

#[expect(clippy::needless_pass_by_value, reason = "the form that map_err wants")]
fn failed(error: RedisError) -> Error {
    unavailable(&error.to_string())
}

fn text(bytes: Option<Vec<u8>>) -> String {
    String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned()
}

fn count(digits: &[u8]) -> u64 {
    std::str::from_utf8(digits)
        .ok()
        .and_then(|digits| digits.parse().ok())
        .unwrap_or_default()
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
