//! Against real servers.

mod failing;
mod replicas;

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use muster_api::a2a::{AgentCard, AgentSkill};
use muster_api::registry;
use muster_runtime::clock::SystemClock;
use muster_store::redis::{Address, Connection, OpenError, Options as Patience, Script, cmd};
use muster_testkit::{RedisCluster, RedisSentinels, RedisServer, wait_for};
use parking_lot::Mutex;
use tokio::task::JoinSet;
use uuid::Uuid;

use super::{Options, Redis, milliseconds};
use crate::instance::{Load, Profile, Report, wire};
use crate::lease::{Change, Event, Terms};
use crate::offline;
use crate::store::conformance::{self, Harness};
use crate::store::watchers::WatchLimits;
use crate::store::{Error, Store, Watch};

const PATIENCE: Duration = Duration::from_secs(60);
const TTL: Duration = Duration::from_secs(90);

/// Lets lease time pass: Redis's clock is further ahead of it.
static PASS: Script = Script::new(
    "#!lua\nredis.call('HINCRBY', KEYS[1], 'tick', ARGV[1])\nreturn redis.call('HINCRBY', KEYS[1], 'lag', -ARGV[1])\n",
);

fn terms() -> Terms {
    Terms {
        time_to_live: TTL,
        max_per_node: 2,
        max_instances: 1_000,
        offline: offline::Bounds {
            retention: Duration::from_secs(600),
            most: 10,
        },
    }
}

fn limits() -> WatchLimits {
    WatchLimits {
        queue: 1_000,
        watchers: 10,
    }
}

fn connection(url: &str, patience: Patience) -> Connection {
    let address: Address = url.parse().unwrap_or_else(|error| panic!("{url}: {error}"));
    Connection::new(address, patience)
}

/// A store as one more replica has it, with what runs for it.
struct Replica {
    store: Redis,
    _work: JoinSet<()>,
}

impl Replica {
    async fn open(url: &str) -> Self {
        Self::with(url, "muster", terms(), limits(), 1_000).await
    }

    /// One that soon gives up on a Redis that does not answer.
    async fn hasty(url: &str) -> Self {
        let patience = Patience {
            connect_within: Duration::from_secs(1),
            answer_within: Duration::from_secs(1),
            patience: Duration::from_secs(1),
        };
        let options = options("muster", terms(), 1_000);
        Self::of(Redis::open(connection(url, patience), options, limits(), clock()).await)
    }

    async fn with(url: &str, prefix: &str, terms: Terms, limits: WatchLimits, feed: usize) -> Self {
        let connection = connection(url, Patience::default());
        Self::of(Redis::open(connection, options(prefix, terms, feed), limits, clock()).await)
    }

    fn of(opened: Result<(Redis, super::Work), OpenError>) -> Self {
        let (store, work) = opened.unwrap_or_else(|error| panic!("{error}"));
        let mut tasks = JoinSet::new();
        tasks.spawn(work.run());
        Self { store, _work: tasks }
    }

    async fn pass(&self, time: Duration) {
        let call = PASS
            .call()
            .key(self.store.shared.keys.state())
            .number(milliseconds(time));
        self.store.call::<i64>(&call).await.unwrap();
        self.store.expire().await.unwrap();
    }

    async fn add(&self, number: u128) -> Result<crate::lease::Grant, Error> {
        self.store
            .register(lease(number), profile(number, None), Report::FRESH)
            .await
    }

    /// How many instances it shows.
    fn live(&self) -> usize {
        self.store.read(|table, now| table.snapshot(now)).1.len()
    }

    fn revision(&self) -> u64 {
        self.store.read(|table, _| table.revision())
    }

    /// Waits until it shows so many.
    async fn shows(&self, count: usize) {
        wait_for("the replica to show the instances", PATIENCE, async || {
            let live = self.live();
            (live == count).then_some(()).ok_or_else(|| format!("{live}"))
        })
        .await;
    }
}

fn options(prefix: &str, terms: Terms, feed: usize) -> Options {
    Options {
        prefix: prefix.to_owned(),
        terms,
        feed,
    }
}

fn clock() -> Arc<SystemClock> {
    Arc::new(SystemClock::default())
}

fn lease(number: u128) -> Uuid {
    Uuid::from_u128(1000 + number)
}

fn profile(number: u128, node: Option<&str>) -> Arc<Profile> {
    let message = registry::Instance {
        agent_id: "agent".to_owned(),
        card: Some(AgentCard {
            skills: vec![AgentSkill {
                id: "s".to_owned(),
                ..AgentSkill::default()
            }],
            ..AgentCard::default()
        }),
        endpoint: "http://127.0.0.1:7411".to_owned(),
        node: node.unwrap_or_default().to_owned(),
        ..registry::Instance::default()
    };
    Arc::new(wire::registration(message, Uuid::from_u128(number)).unwrap().0)
}

fn loaded(load: f64) -> Report {
    Report {
        load: Load::new(load).unwrap(),
        ..Report::FRESH
    }
}

async fn next(watch: &mut Watch) -> Result<Event, Error> {
    let next = tokio::time::timeout(PATIENCE, watch.events.next()).await;
    next.expect("a change in time").expect("the stream goes on")
}

async fn next_change(watch: &mut Watch) -> Change {
    next(watch).await.expect("nothing was lost").change
}

/// Some Redis, and the stores in it: each has a prefix of its own.
struct Servers<R> {
    _redis: R,
    url: String,
    opened: Mutex<Vec<Arc<Replica>>>,
}

impl<R> Servers<R> {
    fn of(redis: R, url: String) -> Self {
        Self {
            _redis: redis,
            url,
            opened: Mutex::default(),
        }
    }
}

async fn standalone() -> Servers<RedisServer> {
    let server = RedisServer::start_with(&[("appendfsync", "no")]).await;
    let url = server.url();
    Servers::of(server, url)
}

impl<R> Harness for Servers<R> {
    async fn store(&self, terms: Terms, limits: WatchLimits) -> Arc<dyn Store> {
        let prefix = format!("store-{}", self.opened.lock().len());
        let replica = Replica::with(&self.url, &prefix, terms, limits, 1_000).await;
        let store = replica.store.clone();
        self.opened.lock().push(Arc::new(replica));
        Arc::new(store)
    }

    async fn pass(&self, time: Duration) {
        let opened = self.opened.lock().last().cloned();
        if let Some(replica) = opened {
            replica.pass(time).await;
        }
    }
}

conformance::suite!(standalone().await);

#[tokio::test]
async fn a_cluster_does_what_every_store_must() {
    let cluster = RedisCluster::start().await;
    let url = cluster.url();
    all_cases(&Servers::of(cluster, url)).await;
}

#[tokio::test]
async fn sentinels_do_what_every_store_must() {
    let sentinels = RedisSentinels::start().await;
    let url = sentinels.url();
    all_cases(&Servers::of(sentinels, url)).await;
}

#[tokio::test]
async fn what_a_newer_registry_has_written_is_refused_by_name() {
    let server = RedisServer::start().await;
    drop(Replica::open(&server.url()).await);
    server
        .ask(&["HSET", "muster:{registry}:state", "format", "2"])
        .await;
    let patience = Patience::default();
    let opened = Redis::open(
        connection(&server.url(), patience),
        options("muster", terms(), 10),
        limits(),
        clock(),
    );
    let error = opened.await.err().expect("it is refused").to_string();
    assert!(
        error.contains("'2'") && error.contains("registry.redis.key_prefix"),
        "{error}"
    );
    drop(Replica::with(&server.url(), "other", terms(), limits(), 10).await);
}

#[tokio::test]
async fn what_is_sent_twice_is_done_once() {
    let server = RedisServer::start().await;
    let replica = Replica::open(&server.url()).await;
    let call = replica
        .store
        .once(&super::scripts::REGISTER)
        .arg(super::keys::id(&profile(1, None).key))
        .arg(lease(1).to_string())
        .number(90_000)
        .number(1)
        .number(1)
        .arg("")
        .arg("1")
        .arg(super::wire::report(&Report::FRESH))
        .arg(super::wire::profile(&profile(1, None)));
    let first: Vec<String> = replica.store.call(&call).await.unwrap();
    assert_eq!(first[0], "granted");
    replica.shows(1).await;
    let again = replica.add(1).await.unwrap();
    let late: Vec<String> = replica.store.call(&call).await.unwrap();
    assert_eq!(late, first, "what arrives late replaces nobody");
    assert_eq!(replica.revision(), again.instance.epoch);
    let length: u64 = {
        let mut command = cmd("XLEN");
        command.arg(replica.store.shared.keys.feed());
        replica.store.shared.connection.run(&command).await.unwrap()
    };
    assert_eq!(length, 2);
}
