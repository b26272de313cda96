//! Against real servers.

use std::time::Duration;

use futures::FutureExt as _;
use muster_store::redis::{Address, Options};
use muster_testkit::{RedisCluster, RedisSentinels, RedisServer, wait_for};

use super::*;
use crate::rate::Grants as _;
use crate::rate::gcra::{self, Rate};
use crate::store::answers::conformance::Bench;
use crate::store::answers::{Answers as _, Claim, Found};
use crate::store::{answers, conformance};

const PREFIX: &str = "muster:router:default";

async fn open_within(url: &str, options: Options) -> Result<Redis, OpenError> {
    let address: Address = url.parse().unwrap_or_else(|error| panic!("{url}: {error}"));
    Redis::open(Connection::new(address, options), PREFIX.to_owned()).await
}

async fn open(url: &str) -> Redis {
    let store = open_within(url, Options::default()).await;
    store.unwrap_or_else(|error| panic!("{error}"))
}

fn owner(instance: &str) -> Owner {
    Owner {
        agent: "weather".to_owned(),
        instance: instance.to_owned(),
        since: Timestamp::UNIX_EPOCH,
        caller: Some("user:us:ada".to_owned()),
    }
}

async fn time_of(store: &Redis) -> i64 {
    let (seconds, micros): (i64, i64) = store.connection().run(&cmd("TIME")).await.unwrap();
    seconds * 1000 + micros / 1000
}

/// Both suites, in real time: nobody can turn Redis's clock. And a limit.
async fn check(store: &Redis) {
    conformance::run(store).await;
    for given in [3, 2, 0] {
        let taken = store.take("callers:ada", Rate::new(1, 5), 3).await.unwrap();
        assert_eq!(taken.given, given);
    }
    let wait = |passed: u64| {
        async move {
            let end = time_of(store).await + i64::try_from(passed).unwrap();
            while time_of(store).await < end {}
            Timestamp::UNIX_EPOCH
        }
        .boxed()
    };
    answers::conformance::run(Bench { store, wait: &wait }).await;
}

#[tokio::test]
async fn standalone_keeps_what_every_store_must() {
    let server = RedisServer::start().await;
    check(&open(&server.url()).await).await;
}

#[tokio::test]
async fn a_cluster_keeps_what_every_store_must() {
    let cluster = RedisCluster::start().await;
    check(&open(&cluster.url()).await).await;
}

#[tokio::test]
async fn sentinels_keep_what_every_store_must() {
    let sentinels = RedisSentinels::start().await;
    check(&open(&sentinels.url()).await).await;
}

#[tokio::test]
async fn an_owner_is_seen_by_all_routers_and_forgotten_by_redis() {
    let server = RedisServer::start().await;
    let (one, other) = (open(&server.url()).await, open(&server.url()).await);
    let keep = SignedDuration::from_secs(3600);
    one.put("t", &owner("w1"), keep).await.unwrap();
    assert_eq!(other.get("t").await.unwrap(), Some(owner("w1")));
    let left = server.ask(&["PTTL", "muster:router:default:owner:t"]).await;
    let left: i64 = left.trim().parse().unwrap();
    assert!((3_500_000..=3_600_000).contains(&left), "{left}");
    let soon = SignedDuration::from_millis(50);
    one.put("t", &owner("w2"), soon).await.unwrap();
    wait_for("the owner to be forgotten", Duration::from_secs(10), async || {
        other.get("t").await.unwrap().is_none()
    })
    .await;
}

/// In real time, at a rate at which none of it passes.
#[tokio::test]
async fn redis_gives_as_the_algorithm_does_and_forgets_what_is_due() {
    let server = RedisServer::start().await;
    let (one, other) = (open(&server.url()).await, open(&server.url()).await);
    let rate = Rate::new(1, 5);
    let mut due = Duration::ZERO;
    for (store, wanted) in [(&one, 3), (&other, 3), (&one, 1)] {
        let expected = gcra::take(&mut due, rate, wanted, Duration::from_secs(1));
        let taken = store.take("callers:ada", rate, wanted).await.unwrap();
        assert_eq!(taken.given, expected.given);
        let passed = expected.retry_after.saturating_sub(taken.retry_after);
        assert!(passed < Duration::from_secs(50), "{taken:?}, {expected:?}");
        assert_eq!(taken.retry_after.is_zero(), expected.retry_after.is_zero());
    }
    let all = one.take("callers:grace", rate, 100).await.unwrap();
    assert_eq!(all.given, 5, "each has its own");
    let quick = Rate::new(600_000, 1);
    assert_eq!(one.take("quick", quick, 1).await.unwrap().given, 1);
    wait_for("it to be due", Duration::from_secs(10), async || {
        one.take("quick", quick, 1).await.unwrap().given == 1
    })
    .await;
    wait_for("it to be forgotten", Duration::from_secs(10), async || {
        let keys = server.ask(&["KEYS", "muster:router:default:rate:*"]).await;
        keys.lines().count() == 2
    })
    .await;
}

#[tokio::test]
async fn what_is_something_else_is_refused_by_name() {
    let server = RedisServer::start().await;
    drop(open(&server.url()).await);
    drop(open(&server.url()).await);
    server
        .ask(&["SET", "muster:router:default:format", "router 2"])
        .await;
    let refused = open_within(&server.url(), Options::default()).await;
    let Err(error @ OpenError::Foreign { .. }) = refused else {
        panic!("opened what newer software has written");
    };
    assert!(error.to_string().contains("router.redis.key_prefix"), "{error}");
}

#[tokio::test]
async fn while_redis_is_away_every_call_ends_and_afterwards_all_is_there() {
    let mut server = RedisServer::start().await;
    let options = Options {
        patience: Duration::from_millis(300),
        ..Options::default()
    };
    let store = open_within(&server.url(), options).await.unwrap();
    let keep = SignedDuration::from_secs(3600);
    store.put("t", &owner("w1"), keep).await.unwrap();
    server.kill().await;
    let claim = Claim {
        fingerprint: [1; 32],
        leader: "a".to_owned(),
        lease: Duration::from_secs(1),
        keep: Duration::from_secs(60),
    };
    let now = Timestamp::UNIX_EPOCH;
    for error in [
        store.get("t").await.unwrap_err(),
        store.put("t", &owner("w2"), keep).await.unwrap_err(),
        store.claim(&[1; 32], &claim, now).await.unwrap_err(),
        store.renew(&[1; 32], &claim, now).await.unwrap_err(),
    ] {
        assert!(error.to_string().contains("Redis at"), "{error}");
    }
    assert!(store.connection().health().is_err());
    server.restart().await;
    wait_for("Redis to be used again", Duration::from_secs(30), async || {
        store.get("t").await.is_ok_and(|found| found == Some(owner("w1")))
    })
    .await;
    store.probe().await;
    assert_eq!(store.connection().health(), Ok(()));
    let found = store.claim(&[1; 32], &claim, now).await.unwrap();
    assert_eq!(found, Found::Lead);
}
