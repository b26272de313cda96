//! Who may write, and how often it counts.

use std::time::Duration;

use muster_store::redis::lease::{Grant, Leases, fence};
use muster_testkit::{RedisServer, wait_for};

use super::super::steps::Kind;
use super::{Redis, open, step};
use crate::run::{Record, Status, Summary};
use crate::store::conformance;
use crate::store::{Error, Step, Store as _};

const TIME_TO_LIVE: Duration = Duration::from_millis(300);
const PATIENCE: Duration = Duration::from_secs(20);

fn leases(store: &Redis) -> Leases {
    Leases::new(store.connection().clone(), store.prefix())
}

fn run(store: &Redis) -> (Record, Summary, u16) {
    let (record, summary) = conformance::run("fenced", 1);
    let partition = store.partition_of(&record.id);
    (record, summary, partition)
}

#[tokio::test]
async fn an_older_epoch_writes_nothing() {
    let server = RedisServer::start().await;
    let (older, newer) = (open(&server.url()).await, open(&server.url()).await);
    let (record, created, partition) = run(&older);
    let (olds, news) = (leases(&older), leases(&newer));
    let first = olds.acquire(partition, "older", "a:1", TIME_TO_LIVE).await;
    older.fence(partition, fence(first.unwrap().unwrap().epoch, "older"));
    older.create_run(&record, &created).await.unwrap();
    let one = step(&created, "one");
    older.append(one.clone()).await.unwrap();

    // The older one sleeps until its lease has run out and is taken.
    let second = wait_for("the lease to run out", PATIENCE, async || {
        let taken = news.acquire(partition, "newer", "b:1", TIME_TO_LIVE).await;
        taken
            .unwrap()
            .map(|grant| grant.epoch)
            .map_err(|held| format!("{held:?}"))
    })
    .await;
    let late = older.append(step(&one.summary, "late")).await;
    let refused = |outcome: &Result<(), Error>| matches!(outcome, Err(Error::NotOwner { partition: named }) if *named == partition);
    assert!(refused(&late), "{late:?}");
    assert!(older.forget_run(&record.id).await.is_err());
    assert_eq!(newer.history(&record.id, 0, 10).await.unwrap().len(), 1);
    newer.fence(partition, fence(second, "newer"));
    newer.append(step(&one.summary, "two")).await.unwrap();
    // A failover that loses the last lease may give its epoch out again: to somebody else, then.
    older.fence(partition, fence(second, "older"));
    let again = older.append(step(&one.summary, "late")).await;
    assert!(refused(&again), "{again:?}");
    newer.give_up(partition);
    assert!(refused(&newer.append(step(&one.summary, "gone")).await));
}

#[tokio::test]
async fn a_lease_has_one_owner_and_its_epoch_only_grows() {
    let mut server = RedisServer::start().await;
    let store = open(&server.url()).await;
    let leases = leases(&store);
    let long = Duration::from_secs(600);
    let Grant {
        epoch: mine,
        server: first,
    } = leases.acquire(3, "me", "a:1", long).await.unwrap().unwrap();
    let held = leases.acquire(3, "you", "b:1", long).await.unwrap().unwrap_err();
    assert_eq!(
        (held.owner.as_str(), held.address.as_str(), held.epoch),
        ("me", "a:1", mine)
    );
    assert!(held.remaining > long - PATIENCE && held.remaining <= long);
    let told = leases.renew(3, "me", mine, long).await.unwrap();
    assert_eq!(told, Some(first.clone()), "the same server");
    assert!(leases.renew(3, "me", mine + 1, long).await.unwrap().is_none());
    assert!(leases.renew(3, "you", mine, long).await.unwrap().is_none());
    assert!(!leases.release(3, "you", mine).await.unwrap());
    // Its own again, at once; what it had before is of no use.
    let again = leases.acquire(3, "me", "a:2", long).await.unwrap().unwrap().epoch;
    assert!(again > mine && leases.renew(3, "me", mine, long).await.unwrap().is_none());
    assert!(leases.release(3, "me", again).await.unwrap());
    let yours = leases
        .acquire(3, "you", "b:1", TIME_TO_LIVE)
        .await
        .unwrap()
        .unwrap()
        .epoch;
    assert!(yours > again);
    // Run out and taken by nobody, it is still its owner's; taken by somebody, not any more.
    wait_for("the lease to run out", PATIENCE, async || {
        leases.read_all(4).await.unwrap()[3].remaining.is_zero()
    })
    .await;
    assert!(
        leases
            .renew(3, "you", yours, TIME_TO_LIVE)
            .await
            .unwrap()
            .is_some()
    );
    let last = wait_for("the lease to be mine", PATIENCE, async || {
        let taken = leases.acquire(3, "me", "a:3", long).await.unwrap();
        taken.map(|grant| grant.epoch).map_err(|held| format!("{held:?}"))
    })
    .await;
    assert!(last > yours && leases.renew(3, "you", yours, long).await.unwrap().is_none());
    let all = leases.read_all(4).await.unwrap();
    assert_eq!((all[0].owner.as_str(), all[0].epoch), ("", 0));
    assert_eq!((all[3].address.as_str(), all[3].epoch), ("a:3", last));
    // The lease outlives the server's end, and who holds it hears that it was another life that granted it.
    server.restart().await;
    let told = leases.renew(3, "me", last, long).await.unwrap();
    assert!(
        told.as_ref().is_some_and(|told| *told != first),
        "{told:?} after {first}"
    );
}

#[tokio::test]
async fn a_step_that_is_sent_twice_is_one() {
    let server = RedisServer::start().await;
    let store = open(&server.url()).await;
    let (record, created, partition) = run(&store);
    let send_twice = async |kind: Kind<'_>, step: Step| {
        let call = store.step(&kind, step, partition).unwrap();
        let once: i64 = store.call(&call).await.unwrap();
        let again: i64 = store.call(&call).await.unwrap();
        assert_eq!((once, again), (1, 1));
    };
    let mut beginning = step(&created, "none");
    beginning.summary = created.clone();
    beginning.entries.clear();
    send_twice(Kind::Create(&record), beginning).await;
    let mut end = step(&created, "zero");
    end.summary.status = Status::Faulted;
    end.summary.ended_at = Some(created.created_at);
    send_twice(Kind::Append, end.clone()).await;
    let mut more = step(&end.summary, "one");
    more.summary.ended_at = None;
    send_twice(Kind::Reopen(created.created_at), more.clone()).await;
    assert_eq!(store.history(&record.id, 0, 10).await.unwrap().len(), 2);
    assert_eq!(store.summary(&record.id).await.unwrap(), Some(more.summary));
    // An earlier step that comes late meets the later one.
    let late = store.append(step(&created, "zero")).await;
    assert!(matches!(late, Err(Error::Conflict(_))), "{late:?}");
}
