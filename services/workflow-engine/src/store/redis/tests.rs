//! Against real servers.

mod carrying;
mod failing;
mod fencing;

use std::sync::Arc;
use std::time::Duration;

use muster_store::redis::{Address, Connection, OpenError, Options as Patience, cmd};
use muster_testkit::{RedisCluster, RedisSentinels, RedisServer};

use super::{FORMAT_NAME, FORMAT_VERSION, Options, Redis};
use crate::partition;
use crate::run::{Status, Summary};
use crate::store::payloads::Apart;
use crate::store::{Step, Store as _, conformance, payloads};

fn connection(url: &str, patience: Patience) -> Connection {
    let address: Address = url.parse().unwrap_or_else(|error| panic!("{url}: {error}"));
    Connection::new(address, patience)
}

/// A store on a Redis, as another process would open it.
async fn open(url: &str) -> Redis {
    open_with(url, Patience::default()).await
}

async fn open_with(url: &str, patience: Patience) -> Redis {
    let store = Redis::open(connection(url, patience), Options::default());
    store.await.unwrap_or_else(|error| panic!("{error}"))
}

/// A step with one entry.
fn step(before: &Summary, entry: &str) -> Step {
    let mut summary = before.clone();
    summary.history_length += 1;
    summary.status = Status::Running;
    Step {
        first_index: before.history_length,
        entries: vec![entry.as_bytes().to_vec()],
        ..Step::to(summary)
    }
}

#[tokio::test]
async fn standalone_keeps_what_every_store_must() {
    let server = RedisServer::start().await;
    conformance::check(async || open(&server.url()).await).await;
}

#[tokio::test]
async fn a_cluster_keeps_what_every_store_must() {
    let cluster = RedisCluster::start().await;
    conformance::check(async || open(&cluster.url()).await).await;
}

#[tokio::test]
async fn sentinels_keep_what_every_store_must() {
    let sentinels = RedisSentinels::start().await;
    conformance::check(async || open(&sentinels.url()).await).await;
}

#[tokio::test]
async fn payloads_are_kept_as_in_every_store() {
    let server = RedisServer::start().await;
    let store = open(&server.url()).await;
    payloads::conformance::check_keeper(&store, &store).await;
    payloads::conformance::check_apart(Arc::new(store), None).await;
    conformance::check(async || Apart::new(Arc::new(open(&server.url()).await), None, 1)).await;
}

#[tokio::test]
async fn a_cluster_keeps_payloads_beside_their_runs() {
    let cluster = RedisCluster::start().await;
    let store = open(&cluster.url()).await;
    payloads::conformance::check_keeper(&store, &store).await;
    payloads::conformance::check_apart(Arc::new(store), None).await;
}

#[tokio::test]
async fn a_store_of_the_version_before_becomes_one_of_this_version() {
    let server = RedisServer::start().await;
    let store = open(&server.url()).await;
    let key = b"muster:{store}:format";
    let set = |text: &str| {
        let mut command = cmd("SET");
        command.arg(&key[..]).arg(text);
        command
    };
    let old = format!("{FORMAT_NAME} 1 {}", partition::DEFAULT_COUNT);
    store.run::<()>(&set(&old)).await.unwrap();
    drop(store);
    let store = open(&server.url()).await;
    let now: String = store.run(cmd("GET").arg(&key[..])).await.unwrap();
    assert_eq!(
        now,
        format!("{FORMAT_NAME} {FORMAT_VERSION} {}", partition::DEFAULT_COUNT)
    );
    // One that writes what older software reads goes along with what is newer already, and leaves what is older.
    let careful = || Options {
        format: 1,
        ..Options::default()
    };
    let open_carefully = async || {
        Redis::open(connection(&server.url(), Patience::default()), careful())
            .await
            .unwrap()
    };
    assert_eq!(open_carefully().await.format(), FORMAT_VERSION);
    store.run::<()>(&set(&old)).await.unwrap();
    assert_eq!(open_carefully().await.format(), 1);
    let still: String = store.run(cmd("GET").arg(&key[..])).await.unwrap();
    assert_eq!(still, old);
    let other = format!("{FORMAT_NAME} 1 {}", partition::DEFAULT_COUNT + 1);
    store.run::<()>(&set(&other)).await.unwrap();
    let options = Options::default();
    let refused = Redis::open(connection(&server.url(), Patience::default()), options).await;
    assert!(matches!(refused, Err(OpenError::Foreign { .. })));
}

#[tokio::test]
async fn tls_is_checked_against_the_authorities_that_are_named() {
    let (server, authority) = RedisServer::start_tls().await;
    let url = server.url().replace("redis://", "rediss://");
    let address: Address = url.parse().unwrap();
    let named = address
        .clone()
        .with_authorities(std::fs::read(authority).unwrap());
    let connection = Connection::new(named, Patience::default());
    let store = Redis::open(connection, Options::default()).await.unwrap();
    let (record, created) = conformance::run("secret", 1);
    store.create_run(&record, &created).await.unwrap();
    let patience = Patience {
        patience: Duration::from_millis(300),
        ..Patience::default()
    };
    let opened = Redis::open(Connection::new(address, patience), Options::default()).await;
    let error = opened
        .err()
        .expect("Mozilla does not know the authority")
        .to_string();
    assert!(error.contains("certificate"), "{error}");
}

#[tokio::test]
async fn what_is_something_else_is_refused_by_name() {
    let server = RedisServer::start().await;
    drop(open(&server.url()).await);
    let reopen = async |options: Options| -> String {
        let opened = Redis::open(connection(&server.url(), Patience::default()), options).await;
        opened
            .err()
            .as_ref()
            .map(OpenError::to_string)
            .unwrap_or_default()
    };
    let other = Options {
        partitions: partition::DEFAULT_COUNT / 2,
        ..Options::default()
    };
    let error = reopen(other.clone()).await;
    assert!(
        error.contains("workflow-engine 2 64") && error.contains("partitions"),
        "{error}"
    );
    let elsewhere = Options {
        prefix: "other".into(),
        ..other
    };
    assert_eq!(
        reopen(elsewhere).await,
        "",
        "stores with different prefixes share a Redis"
    );
    for (found, word) in [
        ("workflow-engine 3 64", "newer"),
        ("router 1 64", "another prefix"),
    ] {
        server.ask(&["SET", "muster:{store}:format", found]).await;
        let error = reopen(Options::default()).await;
        assert!(error.contains(found) && error.contains(word), "{error}");
    }
}
