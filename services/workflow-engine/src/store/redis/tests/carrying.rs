//! Events on their way from steps to the log.

use muster_testkit::RedisServer;
use muster_workflow_dsl::cloud_event::CloudEvent;
use serde_json::json;

use super::super::steps::Kind;
use super::{Redis, open, step};
use crate::run::RunId;
use crate::store::conformance;
use crate::store::events::{EventLog as _, FIRST_POSITION, Room};
use crate::store::{Step, Store as _};

fn event(id: &str) -> CloudEvent {
    let event = json!({"specversion": "1.0", "id": id, "source": "/t", "type": "t", "data": id});
    CloudEvent::check(event).expect("an event")
}

async fn ids(store: &Redis) -> Vec<String> {
    let page = store.events(FIRST_POSITION, None, 1_000).await.unwrap();
    assert!(page.entries.is_sorted_by(|a, b| a.position < b.position));
    page.entries
        .iter()
        .map(|logged| logged.event.id().to_owned())
        .collect()
}

/// A run that is there, and a step of it that tells something.
async fn telling(store: &Redis, name: &str) -> (RunId, Step) {
    let (record, created) = conformance::run(name, 1);
    store.create_run(&record, &created).await.unwrap();
    let told = Step {
        events: vec![event(&format!("{name}-1")), event(&format!("{name}-2"))],
        ..step(&created, "told")
    };
    (record.id, told)
}

/// Writes the step and crashes before its events are carried.
async fn write_only(store: &Redis, (id, told): (RunId, Step)) {
    let partition = store.partition_of(&id);
    let call = store.step(&Kind::Append, told, partition).unwrap();
    assert_eq!(store.call::<i64>(&call).await.unwrap(), 1);
}

#[tokio::test]
async fn a_crash_between_step_and_log_loses_no_event_and_doubles_none() {
    let server = RedisServer::start().await;
    let store = open(&server.url()).await;
    for name in ["a", "b", "c"] {
        let told = telling(&store, name).await;
        write_only(&store, told).await;
    }
    assert_eq!(ids(&store).await, Vec::<String>::new());
    let url = server.url();
    // Whoever opens the store carries them; two at the same time do it once.
    let (one, other) = tokio::join!(open(&url), open(&url));
    let mut carried = ids(&one).await;
    carried.sort();
    assert_eq!(carried, ["a-1", "a-2", "b-1", "b-2", "c-1", "c-2"]);
    assert_eq!(ids(&other).await.len(), 6);
    other.relay_all().await.unwrap();
    assert_eq!(ids(&one).await.len(), 6);
}

#[tokio::test]
async fn a_crash_between_log_and_outbox_doubles_no_event() {
    let server = RedisServer::start().await;
    let store = open(&server.url()).await;
    let told = telling(&store, "a").await;
    let room = Room {
        events: 100,
        bytes: 1 << 20,
    };
    // The log has one of them already, as if the relay had got no further.
    store
        .add_events(vec![event("a-1")], told.1.summary.created_at, room)
        .await
        .unwrap();
    write_only(&store, told).await;
    store.relay_all().await.unwrap();
    assert_eq!(ids(&store).await, ["a-1", "a-2"]);
    assert_eq!(server.ask(&["EXISTS", "muster:{p00}:outbox"]).await.trim(), "0");
}

#[tokio::test]
async fn a_server_that_takes_the_log_over_gives_no_position_out_twice() {
    let mut server = RedisServer::start().await;
    let store = open(&server.url()).await;
    let (_, created) = conformance::run("clock", 1);
    let room = Room {
        events: 1_000,
        bytes: 1 << 20,
    };
    let add = async |id: &str| {
        let added = store.add_events(vec![event(id)], created.created_at, room).await;
        added.unwrap()[0].position
    };
    let known = (add("a").await, add("b").await, add("c").await);
    assert_eq!(known, (1, 2, 3));
    server.restart().await;
    // As a replica has it that lacks the last two.
    let tail = format!("{}:{{log}}:tail", store.prefix());
    server.ask(&["HSET", &tail, "last", "1"]).await;
    let next = add("d").await;
    assert!(next > 3, "{next}");
    let page = store.events(4, None, 10).await.unwrap();
    let heard: Vec<&str> = page.entries.iter().map(|logged| logged.event.id()).collect();
    assert_eq!(heard, ["d"], "by whoever has read the three");
    assert_eq!((add("e").await, add("d").await), (next + 1, next));
}
