//! What every store of tasks does, asked of each of them.

use std::sync::atomic::{AtomicU64, Ordering};

use a2a_pb::proto::{self as pb, TaskState};

use super::record::{Errand, Push, Record};
use super::store::{Draft, Keep, Outcome, Stage, Store};
use super::trail::Part;

/// A record of a task in a state.
pub(super) fn record(id: &str, state: TaskState, second: i64) -> Record {
    let task = pb::Task {
        id: id.to_owned(),
        context_id: "c".to_owned(),
        status: Some(pb::TaskStatus {
            state: state.into(),
            message: None,
            timestamp: Some(prost_types::Timestamp {
                seconds: second,
                nanos: 0,
            }),
        }),
        ..Default::default()
    };
    Record::new(task, Errand::default(), "ada")
}

/// A draft of a record that was written so often before, later than all drafts that were made.
pub(super) fn draft(record: &Record, version: u64, stage: Stage) -> Draft {
    use prost::Message as _;
    static DRAFTS: AtomicU64 = AtomicU64::new(1);
    Draft {
        id: record
            .task
            .as_ref()
            .map(|task| task.id.clone())
            .unwrap_or_default(),
        keep: Some(Keep {
            record: Some(record.encode_to_vec()),
            part: Part {
                version,
                draft: DRAFTS.fetch_add(1, Ordering::Relaxed),
                number: 0,
                first: 1,
                has_record: true,
                events: Vec::new(),
            },
            state: record.state(),
            time: record.time(),
            context: record.context().to_owned(),
            caller: record.caller.clone(),
            stage,
        }),
    }
}

/// Writes them all, which succeeds.
pub(super) async fn write(store: &impl Store, drafts: Vec<Draft>) {
    for outcome in store.write(drafts).await {
        assert_eq!(outcome.unwrap(), Outcome::Done);
    }
}

async fn read(store: &impl Store, id: &str) -> Option<Record> {
    store.read(id).await.unwrap().map(|stored| stored.record)
}

/// Checks a store, which is opened anew where it has to be another life of it.
pub(super) async fn check<S: Store>(open: impl AsyncFn() -> S) {
    let store = open().await;
    assert_eq!(read(&store, "nothing").await, None);
    assert_eq!(store.failure(), None);

    let at_work = record("t1", TaskState::Working, 1);
    let mut ended = record("t2", TaskState::Completed, 2);
    write(
        &store,
        vec![draft(&at_work, 0, Stage::AtWork), draft(&ended, 0, Stage::AtRest)],
    )
    .await;
    assert_eq!(read(&store, "t1").await.as_ref(), Some(&at_work));
    assert_eq!(read(&store, "t2").await.as_ref(), Some(&ended));

    // What is written later stands.
    let done = record("t1", TaskState::Completed, 3);
    write(&store, vec![draft(&done, 1, Stage::AtRest)]).await;
    ended.pushes.push(Push {
        config: Some(pb::TaskPushNotificationConfig {
            id: "p".to_owned(),
            ..Default::default()
        }),
        owed: true,
    });
    write(&store, vec![draft(&ended, 1, Stage::Owing)]).await;
    assert_eq!(read(&store, "t1").await.as_ref(), Some(&done));
    assert_eq!(read(&store, "t2").await.as_ref(), Some(&ended));

    // What is forgotten is gone, and what never was may be forgotten.
    let forget = |id: &str| Draft {
        id: id.to_owned(),
        keep: None,
    };
    write(&store, vec![forget("t1"), forget("nothing")]).await;
    assert_eq!(read(&store, "t1").await, None);

    // Another life finds what is there.
    drop(store);
    let store = open().await;
    assert_eq!(read(&store, "t2").await, Some(ended));
    assert_eq!(read(&store, "t1").await, None);
}

#[tokio::test]
async fn a_disk_keeps_what_every_store_must() {
    let directory = tempfile::TempDir::new().unwrap();
    let path = directory.path().join("puppet");
    check(async || super::Disk::open("puppet", &path, None).unwrap()).await;
}
