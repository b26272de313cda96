//! The store in Redis, for several replicas of the registry: standalone, Sentinel or Cluster.
//!
//! **Written there, read here.** Every change is one script that decides in place: it is atomic, and limits hold across replicas.
//! Each change has a revision and goes into the feed, a bounded stream in the same slot. Every replica follows the feed and keeps
//! a [`Mirror`], the same table and indexes that the memory store has, from which it answers every reader and every watcher. A
//! replica answers a write after its own mirror shows it; the other replicas show it as soon as the feed has told them, about a
//! round trip later.
//!
//! **Nothing is guessed.** Changes have revisions without gaps and name the write before them. A replica that misses one, or
//! finds another history (Redis failed over to a server that had not heard everything), or another life of the store (Redis was
//! emptied), reads everything anew, and its watchers start over with a snapshot. A store that has forgotten changes goes on as
//! another incarnation behind all revisions that anybody knows, so that no watcher takes the one history for the other.
//!
//! **Lease time** is Redis's own clock, less the times in which no replica could reach it: it moves with each call, by
//! [`LONGEST_TICK`] at most. So neither an outage nor a clock that is set ends a lease that its agent could not renew. Leases end
//! by script, by whichever replica comes first; a replica itself ends none. So while Redis is away, reads go on, routing goes on,
//! writes are refused, and nobody disappears.
//!
//! **Sent again, done once.** A connection that breaks leaves open whether a write was done; it is sent again. Registrations and
//! drains carry a token by which Redis knows them again; the rest does the same when it is done twice. A lease that was replaced
//! or has ended renews nothing, however late a heartbeat arrives.
//!
//! What Redis loses, agents register again: a heartbeat under a lease that is not known is refused, as after a restart of a
//! registry that keeps its leases in memory. So it need not be durable.
//!
//! Rejected: a key for each lease that Redis expires by itself (its notifications are lost where nobody listens, so that
//! watchers would have gaps); writes computed by a replica and refused where the state has moved (under thousands of heartbeats
//! a second replicas would mostly refuse each other); publish and subscribe for the feed (who was away has no way back); a slot
//! for each namespace (no snapshot of all would be at one revision). The price: one server of a Cluster does the work.

mod follower;
mod heartbeats;
mod keys;
mod mirror;
mod opening;
mod reading;
mod scripts;
#[cfg(test)]
mod tests;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use muster_runtime::clock::SharedClock;
use muster_store::redis::{Call, Connection, Error as RedisError, FromRedisValue};
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use uuid::Uuid;

use self::heartbeats::Beat;
use self::keys::Keys;
use self::mirror::{LeaseTime, Mirror};
use super::watchers::{WatchLimits, Watchers};
use super::{Error, Feed, Page, Since, Store, Watch};
use crate::discovery::{Found, Query};
use crate::instance::{Instance, Key, Profile, Report};
use crate::lease::{self, Agent, Census, Grant, Moment, Renewal, Statistics, Table, Terms, Wanted};
use crate::reach::Reach;

pub use opening::Work;

/// Most by which lease time moves from one call to the next; scripts have the same.
const LONGEST_TICK: Duration = Duration::from_secs(2);

/// For how much longer than a write is tried again Redis keeps what it was answered.
const ANSWERS_OUTLIVE: Duration = Duration::from_secs(60);

/// How a store in Redis is laid out, and what holds in it. All replicas must have the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// What all of its keys start with; stores with different ones share a Redis.
    pub prefix: String,
    /// What leases are granted on.
    pub terms: Terms,
    /// Most changes that Redis keeps for replicas that were away; who has missed more reads everything anew.
    pub feed: usize,
}

/// The store in Redis. Clones share it.
#[derive(Clone)]
pub struct Redis {
    shared: Arc<Shared>,
}

struct Shared {
    connection: Connection,
    /// Another connection to the same Redis: reading the feed blocks it.
    feed: Connection,
    keys: Keys,
    options: Options,
    clock: SharedClock,
    mirror: Mutex<Mirror>,
    watchers: Watchers,
    /// How far the mirror is; `None` when nobody follows the feed any more.
    followed: watch::Sender<Option<(Uuid, u64)>>,
    beats: mpsc::Sender<Beat>,
    course: follower::Shown,
}

/// Which change a write has made, or found to be the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Made {
    incarnation: Uuid,
    revision: u64,
}

/// What a script answered, word by word.
struct Answer(std::vec::IntoIter<String>);

impl Answer {
    fn text(&mut self) -> Result<String, Error> {
        self.0
            .next()
            .ok_or_else(|| not_understood("an answer that is too short"))
    }

    fn number(&mut self) -> Result<u64, Error> {
        let text = self.text()?;
        text.parse()
            .map_err(|_| not_understood(&format!("'{text}' in place of a number")))
    }

    fn incarnation(&mut self) -> Result<Uuid, Error> {
        let text = self.text()?;
        Uuid::try_parse(&text).map_err(|_| not_understood(&format!("'{text}' in place of an incarnation")))
    }

    fn made(&mut self) -> Result<Made, Error> {
        Ok(Made {
            incarnation: self.incarnation()?,
            revision: self.number()?,
        })
    }
}

fn not_understood(what: &str) -> Error {
    Error::Unavailable(format!(
        "Redis holds or says what is not understood: {what}; is `registry.redis.key_prefix` that of a newer registry?"
    ))
}

fn unavailable(error: &RedisError) -> Error {
    Error::Unavailable(error.to_string())
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

impl Redis {
    /// Whether the last command succeeded, else why not.
    ///
    /// # Errors
    /// What the last failed try said.
    pub fn health(&self) -> Result<(), String> {
        let Shared { connection, feed, .. } = &*self.shared;
        connection.health().and_then(|()| feed.health())
    }

    /// The connection.
    #[must_use]
    pub fn connection(&self) -> &Connection {
        &self.shared.connection
    }

    /// Where Redis is, without password.
    #[must_use]
    pub fn address(&self) -> &str {
        self.shared.connection.address()
    }

    async fn call<T: FromRedisValue>(&self, call: &Call) -> Result<T, Error> {
        let called = self.shared.connection.call(call).await;
        called.map_err(|error| unavailable(&error))
    }

    async fn ask(&self, call: &Call) -> Result<Answer, Error> {
        let words: Vec<String> = self.call(call).await?;
        Ok(Answer(words.into_iter()))
    }

    /// Asks the mirror.
    fn read<T>(&self, question: impl FnOnce(&mut Table, Moment) -> T) -> T {
        let Shared { clock, mirror, .. } = &*self.shared;
        let (wall, monotonic) = (clock.now(), clock.monotonic());
        let mut mirror = mirror.lock();
        let (table, now) = mirror.table(wall, monotonic);
        question(table, now)
    }

    /// Waits until the mirror shows a write, so that whoever wrote it reads it. The write is done in any case.
    async fn shown(&self, made: Made) {
        let patience = self.shared.connection.options().answer_within;
        let mut followed = self.shared.followed.subscribe();
        let shows = followed.wait_for(|followed| {
            followed.is_none_or(|(incarnation, revision)| {
                incarnation == made.incarnation && revision >= made.revision
            })
        });
        if tokio::time::timeout(patience, shows).await.is_err() {
            tracing::debug!(revision = made.revision, "a write is done and not shown here yet");
        }
    }

    fn is_told_time(&self, said: Duration) {
        let heard_at = self.shared.clock.monotonic();
        let time = LeaseTime { said, heard_at };
        self.shared.mirror.lock().is_told_time(time);
    }

    /// The error of an agent, or an instance of it, that Redis does not have.
    fn unknown(&self, namespace: &Arc<str>, agent_id: &Arc<str>) -> lease::Error {
        let known = self.read(|table, now| table.agent(now, namespace, agent_id, &Reach::All));
        known.err().unwrap_or_else(|| lease::Error::AgentNotFound {
            namespace: Arc::clone(namespace),
            agent_id: Arc::clone(agent_id),
            nearest: Vec::new(),
        })
    }
}

#[async_trait::async_trait]
impl Store for Redis {
    async fn register(&self, lease: Uuid, profile: Arc<Profile>, report: Report) -> Result<Grant, Error> {
        let Terms {
            time_to_live,
            max_per_node,
            max_instances,
            ..
        } = self.shared.options.terms;
        let node = profile.node.clone().unwrap_or_default();
        let call = self
            .once(&scripts::REGISTER)
            .arg(keys::id(&profile.key))
            .arg(lease.to_string())
            .number(milliseconds(time_to_live))
            .number(max_per_node as u64)
            .number(max_instances as u64)
            .arg(node.as_str())
            .arg(wire::status(report.status))
            .arg(wire::report(&report))
            .arg(wire::profile(&profile));
        let mut answer = self.ask(&call).await?;
        match answer.text()?.as_str() {
            "granted" => {}
            "full" => {
                return Err(lease::Error::TableFull { limit: max_instances }.into());
            }
            "node" => {
                return Err(lease::Error::NodeFull {
                    node,
                    limit: max_per_node,
                }
                .into());
            }
            other => return Err(not_understood(other)),
        }
        let made = answer.made()?;
        let at = wire::time(&answer.text()?).map_err(|error| not_understood(&error.to_string()))?;
        let digit = answer.text()?;
        let status = wire::parse_status(&digit).ok_or_else(|| not_understood(&digit))?;
        self.shown(made).await;
        let instance = Instance {
            profile,
            report: Report { status, ..report },
            registered_at: at,
            last_heartbeat_at: at,
            epoch: made.revision,
        };
        Ok(Grant { lease, instance })
    }

    async fn renew(&self, lease: Uuid, report: Report) -> Result<Renewal, Error> {
        let (made, renewal) = self.beat(lease, report).await?;
        self.shown(made).await;
        renewal.ok_or(Error::Lease(lease::Error::LeaseNotFound { lease }))
    }

    async fn end(&self, lease: Uuid) -> Result<(), Error> {
        let call = self.writing(&scripts::END).arg(lease.to_string());
        let made = self.ask(&call).await?.made()?;
        self.shown(made).await;
        Ok(())
    }

    async fn drain(
        &self,
        namespace: &Arc<str>,
        agent_id: &Arc<str>,
        instance_id: Option<Uuid>,
    ) -> Result<u32, Error> {
        let instance = instance_id.map(|instance_id| Key {
            namespace: Arc::clone(namespace),
            agent_id: Arc::clone(agent_id),
            instance_id,
        });
        let [from, behind] = keys::of_agent(namespace, agent_id);
        let call = self
            .once(&scripts::DRAIN)
            .arg(from)
            .arg(behind)
            .arg(instance.as_ref().map(keys::id).unwrap_or_default());
        let mut answer = self.ask(&call).await?;
        self.shown(answer.made()?).await;
        let (living, draining) = (answer.number()?, answer.number()?);
        match instance {
            _ if living == 0 => Err(self.unknown(namespace, agent_id).into()),
            Some(key) if draining == 0 => Err(lease::Error::InstanceNotFound { key }.into()),
            _ => Ok(u32::try_from(draining).unwrap_or(u32::MAX)),
        }
    }

    async fn discover(&self, query: &Query) -> Result<Found, Error> {
        Ok(self.read(|table, now| table.discover(now, query)))
    }

    async fn holder(&self, lease: Uuid) -> Result<Option<Key>, Error> {
        Ok(self.read(|table, _| table.holder(lease)))
    }

    async fn knows_skill(&self, namespace: &str, skill: &str, reach: &Reach) -> Result<bool, Error> {
        Ok(self.read(|table, _| table.knows_skill(namespace, skill, reach)))
    }

    async fn agent(&self, namespace: &Arc<str>, agent_id: &Arc<str>, reach: &Reach) -> Result<Agent, Error> {
        Ok(self.read(|table, now| table.agent(now, namespace, agent_id, reach))?)
    }

    async fn agents(
        &self,
        namespace: &Arc<str>,
        after: Option<&str>,
        limit: usize,
        wanted: &Wanted,
    ) -> Result<Page, Error> {
        let (agents, more) = self.read(|table, now| table.agents(now, namespace, after, limit, wanted));
        Ok(Page { agents, more })
    }

    async fn statistics(
        &self,
        namespace: Option<&str>,
        most_skills: usize,
        reach: &Reach,
    ) -> Result<Statistics, Error> {
        Ok(self.read(|table, now| table.statistics(now, namespace, most_skills, reach)))
    }

    async fn watch(&self, since: Option<Since>) -> Result<Watch, Error> {
        // The place in the log is taken under the same lock as the snapshot: no gap, no repetition.
        self.read(|table, now| self.shared.watchers.open(since, || table.snapshot(now)))
    }

    async fn expire(&self) -> Result<Option<Duration>, Error> {
        let mut answer = self.ask(&self.writing(&scripts::EXPIRE)).await?;
        let (made, said, next) = (answer.made()?, answer.number()?, answer.text()?);
        self.is_told_time(Duration::from_millis(said));
        self.shown(made).await;
        Ok(next.parse().ok().map(Duration::from_millis))
    }

    async fn census(&self) -> Result<Census, Error> {
        Ok(self.read(Table::census))
    }

    fn feed(&self) -> Option<Feed> {
        let Shared {
            course,
            clock,
            mirror,
            ..
        } = &*self.shared;
        let revision = mirror.lock().place().revision;
        Some(course.feed(revision, clock.monotonic()))
    }
}
