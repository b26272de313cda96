//! Redis that is away, restarted, emptied, full, or failed over.

use std::time::Duration;

use muster_testkit::{RedisCluster, RedisSentinels, RedisServer, wait_for};

use super::{PATIENCE, Replica, TTL, lease, loaded, next, next_change};
use crate::instance::Report;
use crate::lease::{self, Change};
use crate::store::{Error, Store as _};

/// Waits until writes are done again, with a heartbeat that says this.
async fn renewed(replica: &Replica, number: u128, load: f64) {
    wait_for("a heartbeat to be taken", PATIENCE, async || {
        replica.store.renew(lease(number), loaded(load)).await.map(drop)
    })
    .await;
}

#[tokio::test]
async fn while_redis_is_away_reads_go_on_writes_are_refused_and_no_lease_ends() {
    let mut server = RedisServer::start().await;
    let (one, other) = (
        Replica::hasty(&server.url()).await,
        Replica::hasty(&server.url()).await,
    );
    one.add(1).await.unwrap();
    other.shows(1).await;
    let mut watch = other.store.watch(None).await.unwrap();
    server.kill().await;
    let place = format!("127.0.0.1:{}", server.port());
    for refused in [
        one.add(2).await.err(),
        one.store.renew(lease(1), Report::FRESH).await.err(),
        one.store.end(lease(1)).await.err(),
        one.store
            .drain(&"default".into(), &"agent".into(), None)
            .await
            .err(),
        one.store.expire().await.err(),
    ] {
        let Some(Error::Unavailable(why)) = &refused else {
            panic!("{refused:?}");
        };
        assert!(
            why.contains(&place) && why.contains("check that it runs"),
            "{why}"
        );
    }
    assert!(one.store.health().is_err());
    assert_eq!((one.live(), other.live()), (1, 1));
    assert!(one.store.watch(None).await.is_ok());

    server.restart().await;
    renewed(&one, 1, 0.5).await;
    assert_eq!(one.store.health(), Ok(()));
    let told = next_change(&mut watch).await;
    assert!(
        matches!(told, Change::Reported(told) if told.report == loaded(0.5)),
        "the watch went on"
    );
}

#[tokio::test]
async fn time_in_which_nobody_reached_redis_ends_no_lease() {
    let server = RedisServer::start().await;
    let one = Replica::open(&server.url()).await;
    one.add(1).await.unwrap();
    drop(one);
    // An hour later.
    server
        .ask(&["HINCRBY", "muster:{registry}:state", "lag", "-3600000"])
        .await;
    let one = Replica::open(&server.url()).await;
    let left = one.store.expire().await.unwrap().expect("the lease");
    assert!(left <= TTL && left > TTL - Duration::from_secs(10), "{left:?}");
    one.store.renew(lease(1), Report::FRESH).await.unwrap();
    // A clock that is set back, by a day.
    server
        .ask(&["HINCRBY", "muster:{registry}:state", "lag", "86400000"])
        .await;
    let left = one.store.expire().await.unwrap().expect("the lease");
    assert!(left <= TTL && left > TTL - Duration::from_secs(10), "{left:?}");
    assert_eq!(one.live(), 1);
}

#[tokio::test]
async fn a_redis_that_was_emptied_is_begun_anew_and_agents_are_told_to_register() {
    let server = RedisServer::start().await;
    let (one, other) = (
        Replica::open(&server.url()).await,
        Replica::open(&server.url()).await,
    );
    let before = one.add(1).await.unwrap();
    other.shows(1).await;
    let mut watch = other.store.watch(None).await.unwrap();
    server.ask(&["FLUSHALL"]).await;
    let unknown = Error::Lease(lease::Error::LeaseNotFound { lease: lease(1) });
    assert_eq!(one.store.renew(lease(1), Report::FRESH).await, Err(unknown));
    assert_eq!(next(&mut watch).await, Err(Error::WatchInterrupted));
    other.shows(0).await;
    let again = one.add(1).await.unwrap();
    assert!(again.instance.epoch > before.instance.epoch);
    other.shows(1).await;
    let now = other.store.watch(None).await.unwrap();
    assert_ne!(now.incarnation, watch.incarnation);
}

#[tokio::test]
async fn a_redis_that_was_set_back_goes_on_as_another() {
    let mut server = RedisServer::start_with(&[("appendonly", "no")]).await;
    let (one, other) = (
        Replica::hasty(&server.url()).await,
        Replica::hasty(&server.url()).await,
    );
    one.add(1).await.unwrap();
    server.ask(&["SAVE"]).await;
    let lost = one.add(2).await.unwrap();
    other.shows(2).await;
    let watch = other.store.watch(None).await.unwrap();
    server.restart().await;
    for replica in [&one, &other] {
        replica.shows(1).await;
    }
    renewed(&one, 1, 0.5).await;
    let now = other.store.watch(None).await.unwrap();
    assert_ne!(now.incarnation, watch.incarnation);
    assert!(now.revision > watch.revision, "revisions only grow");
    let again = one.add(2).await.unwrap();
    assert!(again.instance.epoch > lost.instance.epoch);
    other.shows(2).await;
}

#[tokio::test]
async fn a_full_redis_keeps_those_who_are_there() {
    let server = RedisServer::start().await;
    let one = Replica::open(&server.url()).await;
    one.add(1).await.unwrap();
    server.ask(&["CONFIG", "SET", "maxmemory", "1"]).await;
    let Err(Error::Unavailable(why)) = one.add(2).await else {
        panic!("a registration needs room");
    };
    assert!(why.contains("is full"), "{why}");
    one.store.renew(lease(1), loaded(0.5)).await.unwrap();
    one.store.end(lease(1)).await.unwrap();
    assert_eq!(one.live(), 0);
    server.ask(&["CONFIG", "SET", "maxmemory", "0"]).await;
    one.add(2).await.unwrap();
}

#[tokio::test]
async fn replicas_follow_a_failover() {
    let mut sentinels = RedisSentinels::start().await;
    let (one, other) = (
        Replica::open(&sentinels.url()).await,
        Replica::open(&sentinels.url()).await,
    );
    one.add(1).await.unwrap();
    wait_for("the replica to have the registration", PATIENCE, async || {
        let entries = sentinels
            .replica
            .ask(&["HLEN", "muster:{registry}:entries"])
            .await;
        entries.trim() == "1"
    })
    .await;
    sentinels.primary.kill().await;
    renewed(&one, 1, 0.5).await;
    wait_for("a registration after the failover", PATIENCE, async || {
        one.add(2).await.map(drop)
    })
    .await;
    other.shows(2).await;
    assert_eq!(one.live(), 2);
}

#[tokio::test]
async fn replicas_follow_a_cluster_that_loses_a_primary() {
    let mut cluster = RedisCluster::start_with_replicas().await;
    let (one, other) = (
        Replica::open(&cluster.url()).await,
        Replica::open(&cluster.url()).await,
    );
    one.add(1).await.unwrap();
    // The one that has the slot.
    let mut holder = None;
    for (index, node) in cluster.nodes.iter().enumerate().take(3) {
        let held = node.ask(&["EXISTS", "muster:{registry}:state"]).await;
        if held.trim() == "1" {
            holder = Some(index);
        }
    }
    let holder = holder.expect("a primary has the state");
    wait_for("its replica to have the registration", PATIENCE, async || {
        let information = cluster.nodes[holder + 3].ask(&["DBSIZE"]).await;
        information == cluster.nodes[holder].ask(&["DBSIZE"]).await
    })
    .await;
    cluster.nodes[holder].kill().await;
    renewed(&one, 1, 0.5).await;
    wait_for("a registration after the failover", PATIENCE, async || {
        one.add(2).await.map(drop)
    })
    .await;
    other.shows(2).await;
}
