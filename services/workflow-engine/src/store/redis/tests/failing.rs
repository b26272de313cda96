//! Redis that is killed, full, or frozen.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use muster_store::redis::{Options as Patience, cmd};
use muster_testkit::{RedisCluster, RedisSentinels, RedisServer, wait_for};
use parking_lot::Mutex;
use tokio::task::JoinSet;

use super::{Redis, open, open_with, step};
use crate::run::{RunId, Summary};
use crate::store::conformance;
use crate::store::{Error, Store as _};

const PATIENCE: Duration = Duration::from_secs(60);

/// Writers that append one entry after the other until they are told to stop.
struct Writers {
    tasks: JoinSet<(RunId, u64)>,
    progress: Arc<Mutex<Vec<u64>>>,
    stop: Arc<AtomicBool>,
}

impl Writers {
    async fn start(store: &Redis, count: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let progress = Arc::new(Mutex::new(vec![0; count]));
        let mut tasks = JoinSet::new();
        for writer in 0..count {
            let (record, created) = conformance::run(&format!("writer-{writer}"), 1);
            store.create_run(&record, &created).await.unwrap();
            let (store, stop, progress) = (store.clone(), Arc::clone(&stop), Arc::clone(&progress));
            tasks.spawn(async move {
                let mut summary = created;
                while !stop.load(Ordering::Relaxed) {
                    summary = write_one(&store, summary).await;
                    progress.lock()[writer] = summary.history_length;
                }
                (record.id, summary.history_length)
            });
        }
        Self {
            tasks,
            progress,
            stop,
        }
    }

    /// Waits until every writer has written so many entries more.
    async fn go_on(&self, more: u64) {
        let before = self.progress.lock().clone();
        wait_for("the writers to go on", PATIENCE, async || {
            let now = self.progress.lock();
            now.iter().zip(&before).all(|(now, before)| *now >= before + more)
        })
        .await;
    }

    /// How many entries of each run were acknowledged.
    async fn stop(mut self) -> Vec<(RunId, u64)> {
        self.stop.store(true, Ordering::Relaxed);
        let mut written = Vec::new();
        while let Some(writer) = self.tasks.join_next().await {
            written.push(writer.expect("a writer that did not panic"));
        }
        written
    }
}

/// Appends the next entry; the run as it stands then.
async fn write_one(store: &Redis, summary: Summary) -> Summary {
    let next = step(&summary, &summary.history_length.to_string());
    match store.append(next.clone()).await {
        Ok(()) => next.summary,
        // Whether it was written is not known; nobody else writes the run.
        Err(Error::Unavailable(_)) => match store.summary(&summary.id).await {
            Ok(found) => found.expect("the run"),
            Err(_) => summary,
        },
        Err(error) => panic!("{error}"),
    }
}

/// Every acknowledged entry is there, once, in order.
async fn check(store: &Redis, written: Vec<(RunId, u64)>) {
    for (id, acknowledged) in written {
        let history = store.history(&id, 0, 100_000).await.unwrap();
        assert_eq!(history.len() as u64, acknowledged, "{id}");
        for entry in history {
            assert_eq!(entry.bytes, entry.index.to_string().into_bytes(), "{id}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_when_redis_is_killed() {
    let mut server = RedisServer::start().await;
    let store = open(&server.url()).await;
    let writers = Writers::start(&store, 4).await;
    for _ in 0..3 {
        writers.go_on(20).await;
        server.restart().await;
    }
    writers.go_on(20).await;
    let written = writers.stop().await;
    server.restart().await;
    check(&open(&server.url()).await, written).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_whose_nodes_are_killed_is_written_again() {
    let mut cluster = RedisCluster::start().await;
    let store = open(&cluster.url()).await;
    let writers = Writers::start(&store, 6).await;
    writers.go_on(10).await;
    cluster.nodes[0].restart().await;
    cluster.agreed().await;
    writers.go_on(10).await;
    for node in &mut cluster.nodes {
        node.kill().await;
    }
    for node in &mut cluster.nodes {
        node.restart().await;
    }
    cluster.agreed().await;
    writers.go_on(10).await;
    let written = writers.stop().await;
    check(&store, written).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn writers_follow_a_failover() {
    let mut sentinels = RedisSentinels::start().await;
    let store = open(&sentinels.url()).await;
    let (record, created) = conformance::run("followed", 1);
    store.create_run(&record, &created).await.unwrap();
    // Replication is asynchronous: what the replica does not have yet is lost with the primary.
    wait_for("the replica to have the run", PATIENCE, async || {
        let count = async |server: &RedisServer| server.ask(&["DBSIZE"]).await;
        count(&sentinels.primary).await == count(&sentinels.replica).await
    })
    .await;
    sentinels.primary.kill().await;
    let next = step(&created, "0");
    wait_for("a step after the failover", PATIENCE, async || {
        match store.append(next.clone()).await {
            Ok(()) | Err(Error::Conflict(_)) => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    })
    .await;
    assert_eq!(store.history(&record.id, 0, 10).await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_lives_and_has_lost_its_place_is_left() {
    let sentinels = RedisSentinels::start().await;
    let store = open(&sentinels.url()).await;
    let used = async || {
        let information: String = store.run(cmd("INFO").arg("server")).await.unwrap();
        let line = information
            .lines()
            .find_map(|line| line.strip_prefix("tcp_port:"));
        line.unwrap_or_default().trim().to_owned()
    };
    assert_eq!(used().await, sentinels.primary.port().to_string());
    sentinels.fail_over().await;
    // It answers as before, and takes writes that it will lose.
    wait_for("the other server", PATIENCE, async || {
        store.connection().confirm().await;
        let port = used().await;
        (port == sentinels.replica.port().to_string())
            .then_some(())
            .ok_or(port)
    })
    .await;
    let (record, created) = conformance::run("kept", 1);
    store.create_run(&record, &created).await.unwrap();
    let kept = sentinels.replica.ask(&["DBSIZE"]).await;
    assert_ne!(kept.trim(), "0", "it is where it stays");
}

#[tokio::test]
async fn a_full_redis_refuses_with_the_reason_and_goes_on_when_there_is_room() {
    let server = RedisServer::start_with(&[("maxmemory", "8mb"), ("maxmemory-policy", "noeviction")]).await;
    let store = open(&server.url()).await;
    let (record, mut summary) = conformance::run("filling", 1);
    store.create_run(&record, &summary).await.unwrap();
    let large = "x".repeat(256 * 1024);
    let error = loop {
        let next = step(&summary, &large);
        match store.append(next.clone()).await {
            Ok(()) => summary = next.summary,
            Err(error) => break error,
        }
        assert!(summary.history_length < 100, "it is never full");
    };
    let says = |text: &str| text.contains("is full") && text.contains("maxmemory");
    assert!(
        matches!(&error, Error::Unavailable(text) if says(text)),
        "{error}"
    );
    assert!(store.health().is_err_and(|why| says(&why)));
    let found = store.summary(&record.id).await.unwrap();
    assert_eq!(found, Some(summary.clone()), "reading goes on");
    assert!(store.health().is_err_and(|why| says(&why)), "and proves nothing");
    server.ask(&["CONFIG", "SET", "maxmemory", "64mb"]).await;
    store.append(step(&summary, &large)).await.unwrap();
    assert_eq!(store.health(), Ok(()));
}

#[tokio::test]
async fn callers_of_a_frozen_redis_are_told_in_time_and_go_on_after_it() {
    let server = RedisServer::start().await;
    let patience = Patience {
        connect_within: Duration::from_millis(200),
        answer_within: Duration::from_millis(300),
        patience: Duration::from_secs(1),
    };
    let store = open_with(&server.url(), patience).await;
    let (record, created) = conformance::run("frozen", 1);
    store.create_run(&record, &created).await.unwrap();
    server.signal("STOP").await;
    let next = step(&created, "0");
    let told = tokio::time::timeout(PATIENCE, store.append(next.clone())).await;
    let told = told.expect("an answer");
    let says = |text: &str| text.contains(&server.port().to_string()) && text.contains("not known");
    assert!(
        matches!(&told, Err(Error::Unavailable(text)) if says(text)),
        "{told:?}"
    );
    assert!(store.health().is_err());
    server.signal("CONT").await;
    // It may have been written after all: its writer finds out.
    let again = store.append(next).await;
    assert!(matches!(again, Ok(()) | Err(Error::Conflict(_))), "{again:?}");
    assert_eq!(store.history(&record.id, 0, 10).await.unwrap().len(), 1);
    assert_eq!(store.health(), Ok(()));
}
