//! Several replicas over one Redis.

use std::time::Duration;

use futures::future::join_all;
use muster_testkit::{RedisServer, wait_for};
use uuid::Uuid;

use super::{PATIENCE, Replica, TTL, lease, limits, loaded, next, next_change, profile, terms};
use crate::instance::{Report, Status};
use crate::lease::{self, Change, Departure};
use crate::reach::Reach;
use crate::store::{Error, Since, Store as _};

#[tokio::test]
async fn what_one_replica_is_told_all_show_and_tell() {
    let server = RedisServer::start().await;
    let (one, other) = (
        Replica::open(&server.url()).await,
        Replica::open(&server.url()).await,
    );
    let mut watch = other.store.watch(None).await.unwrap();
    let grant = one.add(1).await.unwrap();
    assert_eq!(
        next_change(&mut watch).await,
        Change::Upserted(grant.instance.clone())
    );
    other.shows(1).await;
    let found = other
        .store
        .agent(&"default".into(), &"agent".into(), &Reach::All)
        .await
        .unwrap();
    assert_eq!(found.instances, std::slice::from_ref(&grant.instance));

    // A lease is renewed wherever a heartbeat arrives.
    let renewal = other.store.renew(lease(1), loaded(0.5)).await.unwrap();
    assert_eq!(renewal.epoch, grant.instance.epoch);
    assert!(matches!(next_change(&mut watch).await, Change::Reported(told) if told.report == loaded(0.5)));
    assert_eq!(
        one.store.drain(&"default".into(), &"agent".into(), None).await,
        Ok(1)
    );
    assert!(
        matches!(next_change(&mut watch).await, Change::Reported(told) if told.report.status == Status::Draining)
    );
    assert!(
        other
            .store
            .renew(lease(1), Report::FRESH)
            .await
            .unwrap()
            .drain_requested
    );
    let told = next_change(&mut watch).await;
    assert!(
        matches!(told, Change::Reported(told) if told.report == Report { status: Status::Draining, ..Report::FRESH })
    );

    one.pass(TTL).await;
    let key = profile(1, None).key.clone();
    assert_eq!(
        next_change(&mut watch).await,
        Change::Removed(key, Departure::Expired)
    );
    other.shows(0).await;
    assert_eq!(other.store.census().await.unwrap().by_status[&Status::Offline], 1);
    let late = Replica::open(&server.url()).await;
    let seen = late.store.census().await.unwrap();
    assert_eq!(
        seen,
        other.store.census().await.unwrap(),
        "one that comes later knows it too"
    );
    let refused = Error::Lease(lease::Error::LeaseNotFound { lease: lease(1) });
    assert_eq!(other.store.renew(lease(1), Report::FRESH).await, Err(refused));
}

#[tokio::test]
async fn a_watcher_goes_on_at_another_replica_where_it_left_the_first() {
    let server = RedisServer::start().await;
    let (one, other) = (
        Replica::open(&server.url()).await,
        Replica::open(&server.url()).await,
    );
    let mut watch = one.store.watch(None).await.unwrap();
    let incarnation = watch.incarnation;
    one.add(1).await.unwrap();
    let revision = next(&mut watch).await.unwrap().revision;
    drop(watch);
    let second = one.add(2).await.unwrap();
    other.shows(2).await;
    let since = Since {
        incarnation,
        revision,
    };
    let mut resumed = other.store.watch(Some(since)).await.unwrap();
    assert_eq!((resumed.revision, resumed.snapshot.is_none()), (revision, true));
    let event = next(&mut resumed).await.unwrap();
    assert_eq!(
        (event.revision, event.change),
        (revision + 1, Change::Upserted(second.instance))
    );
}

#[tokio::test]
async fn limits_hold_for_all_together() {
    let server = RedisServer::start().await;
    let url = server.url();
    let replicas = join_all((0..3).map(|_| Replica::open(&url))).await;
    let registered = join_all((0..12_u128).map(|number| {
        let replica = &replicas[usize::try_from(number % 3).unwrap()];
        let profile = profile(number + 1, Some("node"));
        replica.store.register(lease(number + 1), profile, Report::FRESH)
    }))
    .await;
    let granted = registered.iter().filter(|grant| grant.is_ok()).count();
    assert_eq!(granted, terms().max_per_node);
    for refused in registered.into_iter().filter_map(Result::err) {
        assert!(
            matches!(refused, Error::Lease(lease::Error::NodeFull { limit: 2, .. })),
            "{refused}"
        );
    }
    for replica in &replicas {
        replica.shows(granted).await;
    }
}

#[tokio::test]
async fn thousands_of_heartbeats_travel_together_and_their_times_reach_every_replica() {
    const COUNT: u128 = 300;
    let server = RedisServer::start().await;
    let (one, other) = (
        Replica::open(&server.url()).await,
        Replica::open(&server.url()).await,
    );
    for grant in join_all((1..=COUNT).map(|number| one.add(number))).await {
        grant.unwrap();
    }
    other.shows(COUNT as usize).await;
    let (first, revision) = (one.store.read(|table, now| table.snapshot(now)).1, one.revision());
    for _ in 0..10 {
        let beats = (1..=COUNT).map(|number| one.store.renew(lease(number), Report::FRESH));
        for renewal in join_all(beats).await {
            renewal.unwrap();
        }
    }
    let calls = server.ask(&["INFO", "commandstats"]).await;
    let calls = calls
        .lines()
        .find_map(|line| line.strip_prefix("cmdstat_evalsha:calls="));
    let calls: u64 = calls
        .and_then(|rest| rest.split(',').next()?.parse().ok())
        .unwrap();
    assert!(
        calls < 1_000,
        "{calls} calls for 300 registrations and 3,000 heartbeats"
    );
    wait_for("the times of the heartbeats", PATIENCE, async || {
        let (_, now) = other.store.read(|table, now| table.snapshot(now));
        let fresh = now
            .iter()
            .zip(&first)
            .filter(|(now, before)| now.last_heartbeat_at > before.last_heartbeat_at)
            .count();
        (fresh == COUNT as usize)
            .then_some(())
            .ok_or_else(|| format!("{fresh}"))
    })
    .await;
    assert_eq!(other.revision(), revision, "nothing new is no change");
}

#[tokio::test]
async fn a_replica_that_missed_changes_reads_everything_anew_and_its_watchers_start_over() {
    let server = RedisServer::start().await;
    let one = Replica::open(&server.url()).await;
    one.add(1).await.unwrap();
    let other = Replica::open(&server.url()).await;
    let mut watch = other.store.watch(None).await.unwrap();
    // As if the feed had been cut while it was away.
    server
        .ask(&[
            "EVAL",
            "redis.call('HINCRBY', KEYS[1], 'revision', 10) return redis.call('HSET', KEYS[1], 'last', 'cut')",
            "1",
            "muster:{registry}:state",
        ])
        .await;
    one.add(2).await.unwrap();
    assert_eq!(next(&mut watch).await, Err(Error::WatchInterrupted));
    other.shows(2).await;
    one.shows(2).await;
    let again = other.store.watch(None).await.unwrap();
    assert_eq!(again.incarnation, watch.incarnation, "the revisions go on");
    assert_eq!(again.snapshot.map(|all| all.len()), Some(2));
}

#[tokio::test]
async fn a_feed_that_is_gone_is_noticed_without_a_change() {
    let server = RedisServer::start().await;
    let one = Replica::open(&server.url()).await;
    one.add(1).await.unwrap();
    // A change that the feed does not tell.
    let script = "redis.call('HDEL', KEYS[2], ARGV[1]) redis.call('DEL', KEYS[3]) \
                  redis.call('HINCRBY', KEYS[1], 'revision', 1) return redis.call('HSET', KEYS[1], 'last', 'x')";
    let id = super::super::keys::id(&profile(1, None).key);
    let keys = ["state", "entries", "feed"].map(|name| format!("muster:{{registry}}:{name}"));
    let [state, entries, feed] = &keys;
    server
        .ask(&["EVAL", script, "3", state, entries, feed, &id])
        .await;
    one.shows(0).await;
}

#[tokio::test]
async fn a_short_feed_is_cut_and_whoever_keeps_up_does_not_notice() {
    const FEED: usize = 100;
    let server = RedisServer::start_with(&[("stream-node-max-entries", "10")]).await;
    let open = async || Replica::with(&server.url(), "muster", terms(), limits(), FEED).await;
    let (one, other) = (open().await, open().await);
    one.add(1).await.unwrap();
    other.shows(1).await;
    let mut watch = other.store.watch(None).await.unwrap();
    for step in 0..500_u32 {
        one.store
            .renew(lease(1), loaded(f64::from(step % 10) / 10.0))
            .await
            .unwrap();
        if step > 0 {
            assert!(
                matches!(next_change(&mut watch).await, Change::Reported(_)),
                "{step}"
            );
        }
    }
    let length = server.ask(&["XLEN", "muster:{registry}:feed"]).await;
    let length: usize = length.trim().parse().unwrap();
    assert!((FEED..FEED + 20).contains(&length), "{length}");
}

#[tokio::test]
async fn everything_is_read_whole_while_others_write() {
    let server = RedisServer::start_with(&[("appendfsync", "no")]).await;
    let one = Replica::open(&server.url()).await;
    for grant in join_all((1..=500).map(|number| one.add(number))).await {
        grant.unwrap();
    }
    let writing = async {
        for round in 0..20_u128 {
            for number in (1..=500).filter(|number| number % 20 == round) {
                one.store.end(lease(number)).await.unwrap();
                one.add(1_000 + number).await.unwrap();
                one.store.renew(lease(1_000 + number), loaded(0.3)).await.unwrap();
            }
        }
    };
    let reading = async {
        let mut opened = Vec::new();
        for _ in 0..5 {
            opened.push(Replica::open(&server.url()).await);
        }
        opened
    };
    let ((), opened) = tokio::join!(writing, reading);
    let (revision, expected) = one.store.read(|table, now| table.snapshot(now));
    for replica in opened {
        wait_for("the replica to be as far", PATIENCE, async || {
            replica.revision() == revision
        })
        .await;
        let shown = replica.store.read(|table, now| table.snapshot(now)).1;
        let plain = |instances: &[crate::instance::Instance]| -> Vec<(Uuid, u64, Report)> {
            let each = instances.iter();
            each.map(|it| (it.key().instance_id, it.epoch, it.report))
                .collect()
        };
        assert_eq!(plain(&shown), plain(&expected));
    }
}

#[tokio::test]
async fn a_lease_ends_when_it_is_due_by_whichever_replica_is_first() {
    let server = RedisServer::start().await;
    let brief = crate::lease::Terms {
        time_to_live: Duration::from_secs(2),
        ..terms()
    };
    let open = async || Replica::with(&server.url(), "muster", brief, limits(), 1_000).await;
    let (one, other) = (open().await, open().await);
    one.add(1).await.unwrap();
    let mut watch = one.store.watch(None).await.unwrap();
    let begun = tokio::time::Instant::now();
    wait_for("the lease to end", PATIENCE, async || {
        let next = other.store.expire().await.unwrap();
        next.map_or(Ok(()), |left| Err(format!("{left:?}")))
    })
    .await;
    let change = next_change(&mut watch).await;
    assert!(matches!(change, Change::Removed(_, Departure::Expired)));
    let passed = begun.elapsed();
    assert!(passed < Duration::from_secs(3), "{passed:?}");
}
