//! What every store must do, as one suite that each adapter runs.

use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use crate::run::{Marks, Position, Record, RunId, Status, Summary};
use crate::schedule::Claim;
use crate::store::{Error, Filter, HISTORY_BYTES, Page, Span, Step, Store, Workflow, WorkflowKey};

/// A run created `second` seconds after the epoch.
pub(crate) fn run(id: &str, second: i64) -> (Record, Summary) {
    let id: RunId = id.parse().expect("a run id");
    let record = Record {
        id: id.clone(),
        document: "a: 1".into(),
        input: json!({"n": 1}),
        nonce: muster_workflow_dsl::secret::Nonce::fresh(),
        resources: muster_workflow_dsl::Resources::from([("f:1@c".into(), "set: {a: 1}".into())]),
    };
    let summary = Summary {
        id,
        namespace: "default".into(),
        name: "demo".into(),
        version: "1.0.0".into(),
        digest: "d".into(),
        status: Status::Pending,
        failure: None,
        created_at: at(second),
        started_at: None,
        ended_at: None,
        history_length: 0,
        claim: Claim::default(),
        marks: Marks::default(),
    };
    (record, summary)
}

fn at(second: i64) -> Timestamp {
    Timestamp::UNIX_EPOCH + SignedDuration::from_secs(second)
}

fn step(before: &Summary, entries: &[&str], status: Status) -> Step {
    let mut summary = before.clone();
    summary.history_length += entries.len() as u64;
    summary.status = status;
    if status.is_final() {
        summary.ended_at = Some(at(1_000 + before.created_at.as_second()));
    }
    Step {
        summary,
        first_index: before.history_length,
        entries: entries.iter().map(|entry| entry.as_bytes().to_vec()).collect(),
        output: (status == Status::Completed).then(|| json!({"done": true})),
        approvals: Vec::new(),
    }
}

/// Runs the suite. `open` opens the same store again; all from before is closed by then.
pub(crate) async fn check<S: Store>(open: impl AsyncFn() -> S) {
    catalogue(&open).await;
    journal(&open).await;
    fences(&open().await).await;
    lists(&open().await).await;
    portions(&open().await).await;
    forgetting(&open().await).await;
    again(&open().await).await;
}

async fn catalogue<S: Store>(open: &impl AsyncFn() -> S) {
    let key = |name: &str, version: &str| WorkflowKey {
        namespace: "default".into(),
        name: name.into(),
        version: version.into(),
    };
    let workflow = |name: &str, version: &str| Workflow {
        key: key(name, version),
        digest: format!("digest of {name} {version}"),
        applied_at: at(1),
        title: String::new(),
    };
    let store = open().await;
    for (name, version) in [
        ("b", "1.10.0"),
        ("b", "1.9.0"),
        ("b", "2.0.0-rc.1"),
        ("ab", "3.0.0"),
        ("bb", "9.0.0"),
    ] {
        store
            .add_workflow(&workflow(name, version), version)
            .await
            .unwrap();
    }
    let again = store.add_workflow(&workflow("b", "1.9.0"), "other").await;
    assert!(matches!(again, Err(Error::Conflict(_))));
    drop(store);

    let store = open().await;
    assert_eq!(
        store.document(&key("b", "1.9.0")).await.unwrap().as_deref(),
        Some("1.9.0")
    );
    assert_eq!(
        store.workflow(&key("b", "1.9.0")).await.unwrap(),
        Some(workflow("b", "1.9.0"))
    );
    assert_eq!(store.workflow(&key("b", "1.9.1")).await.unwrap(), None);
    assert_eq!(store.workflow(&key("b", "newest")).await.unwrap(), None);
    let newest = store.newest_workflow("default", "b").await.unwrap().unwrap();
    assert_eq!(newest.key.version, "2.0.0-rc.1");
    assert_eq!(store.newest_workflow("default", "a").await.unwrap(), None);

    let mut versions = Vec::new();
    let mut after = None;
    loop {
        let Page { entries, next } = store.workflows(after.as_ref(), 2).await.unwrap();
        versions.extend(entries.into_iter().map(|workflow| workflow.key.version));
        after = next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(versions, ["3.0.0", "1.9.0", "1.10.0", "2.0.0-rc.1", "9.0.0"]);
}

async fn journal<S: Store>(open: &impl AsyncFn() -> S) {
    let (record, created) = run("journal", 10);
    let store = open().await;
    store.create_run(&record, &created).await.unwrap();
    let first = step(&created, &["zero", "one"], Status::Running);
    store.append(first.clone()).await.unwrap();
    drop(store);

    let store = open().await;
    assert_eq!(store.record(&record.id).await.unwrap(), Some(record.clone()));
    assert_eq!(
        store.summary(&record.id).await.unwrap(),
        Some(first.summary.clone())
    );
    let last = step(&first.summary, &["two"], Status::Completed);
    store.append(last.clone()).await.unwrap();
    let history = store.history(&record.id, 1, 10).await.unwrap();
    let history: Vec<_> = history
        .iter()
        .map(|entry| (entry.index, entry.bytes.as_slice()))
        .collect();
    assert_eq!(history, [(1, b"one".as_slice()), (2, b"two")]);
    assert_eq!(store.history(&record.id, 0, 1).await.unwrap().len(), 1);
    assert_eq!(store.history(&record.id, 3, 10).await.unwrap(), []);
    assert_eq!(store.history(&record.id, u64::MAX, 10).await.unwrap(), []);
    assert_eq!(
        store.output(&record.id).await.unwrap(),
        Some(json!({"done": true}))
    );
    assert_eq!(store.output(&"nobody".parse().unwrap()).await.unwrap(), None);
    assert_eq!(store.record(&"nobody".parse().unwrap()).await.unwrap(), None);
    assert_eq!(store.health(), Ok(()));
}

async fn fences(store: &impl Store) {
    let (record, created) = run("fenced", 20);
    store.create_run(&record, &created).await.unwrap();
    assert!(matches!(
        store.create_run(&record, &created).await,
        Err(Error::Conflict(_))
    ));

    let mine = step(&created, &["mine"], Status::Running);
    let (one, other) = tokio::join!(
        store.append(mine.clone()),
        store.append(step(&created, &["theirs", "more"], Status::Cancelled))
    );
    assert_eq!(
        u8::from(one.is_ok()) + u8::from(other.is_ok()),
        1,
        "one owner writes entry 0"
    );
    let ahead = Step {
        first_index: 5,
        ..mine.clone()
    };
    assert!(matches!(store.append(ahead).await, Err(Error::Conflict(_))));
    let unknown = step(&run("unknown", 0).1, &["x"], Status::Running);
    assert!(matches!(store.append(unknown).await, Err(Error::Conflict(_))));
}

async fn lists(store: &impl Store) {
    for (second, id) in (100..).zip(["l0", "l1", "l2", "l3", "l4"]) {
        let (record, created) = run(id, second);
        store.create_run(&record, &created).await.unwrap();
        if id == "l1" || id == "l3" {
            store
                .append(step(&created, &["end"], Status::Completed))
                .await
                .unwrap();
        }
    }
    let ours = |runs: &[Summary]| -> Vec<String> {
        runs.iter()
            .map(|run| run.id.to_string())
            .filter(|id| id.starts_with('l'))
            .collect()
    };
    let mut newest_first = Vec::new();
    let mut before: Option<Position> = None;
    loop {
        let page = store.runs(&Filter::default(), before.as_ref(), 2).await.unwrap();
        assert!(page.entries.len() <= 2);
        newest_first.extend(ours(&page.entries));
        before = page.next;
        if before.is_none() {
            break;
        }
    }
    assert_eq!(newest_first, ["l4", "l3", "l2", "l1", "l0"]);

    let completed = Filter {
        statuses: vec![Status::Completed],
        name: Some("demo".into()),
        ..Filter::default()
    };
    let page = store.runs(&completed, None, 100).await.unwrap();
    assert_eq!(ours(&page.entries), ["l3", "l1"]);
    let other = Filter {
        name: Some("other".into()),
        ..Filter::default()
    };
    assert_eq!(store.runs(&other, None, 100).await.unwrap().entries, []);

    let then = Filter {
        created: Span {
            from: Some(at(101)),
            to: Some(at(103)),
        },
        ..Filter::default()
    };
    let page = store.runs(&then, None, 1).await.unwrap();
    assert_eq!(ours(&page.entries), ["l2"]);
    let page = store.runs(&then, page.next.as_ref(), 1).await.unwrap();
    assert_eq!(ours(&page.entries), ["l1"]);
    let never = Filter {
        created: Span {
            from: Some(at(103)),
            to: Some(at(101)),
        },
        ..Filter::default()
    };
    assert_eq!(store.runs(&never, None, 1).await.unwrap().entries, []);

    let mut unfinished = Vec::new();
    let mut after: Option<Position> = None;
    loop {
        let page = store.unfinished(after.as_ref(), 2).await.unwrap();
        unfinished.extend(page.entries.into_iter().map(|run| run.unwrap()));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(ours(&unfinished), ["l0", "l2", "l4"]);
}

async fn portions(store: &impl Store) {
    let (record, created) = run("portions", 200);
    store.create_run(&record, &created).await.unwrap();
    let large = "x".repeat(HISTORY_BYTES * 2 / 3);
    store
        .append(step(&created, &[&large, &large, &large], Status::Running))
        .await
        .unwrap();
    assert_eq!(store.history(&record.id, 0, 10).await.unwrap().len(), 1);
    assert_eq!(store.history(&record.id, 2, 10).await.unwrap().len(), 1);
}

async fn forgetting(store: &impl Store) {
    let (record, created) = run("forgotten", 300);
    store.create_run(&record, &created).await.unwrap();
    assert!(
        matches!(store.forget_run(&record.id).await, Err(Error::Conflict(_))),
        "it has not ended"
    );
    store
        .append(step(&created, &["end"], Status::Faulted))
        .await
        .unwrap();

    let ended = at(1_300);
    assert!(!store.ended_before(ended, 100).await.unwrap().contains(&record.id));
    let due = store
        .ended_before(ended + SignedDuration::from_secs(1), 100)
        .await
        .unwrap();
    assert!(due.contains(&record.id));
    store.forget_run(&record.id).await.unwrap();
    store.forget_run(&record.id).await.unwrap();
    assert_eq!(store.summary(&record.id).await.unwrap(), None);
    assert_eq!(store.record(&record.id).await.unwrap(), None);
    assert_eq!(store.history(&record.id, 0, 10).await.unwrap(), []);
    assert!(
        !store
            .ended_before(at(9_999), 100)
            .await
            .unwrap()
            .contains(&record.id)
    );
    // The id may be used again.
    store.create_run(&record, &created).await.unwrap();
}

async fn again(store: &impl Store) {
    let (record, created) = run("again", 400);
    let first = step(&created, &["zero", "one"], Status::Pending);
    let beginning = first.summary.clone();
    store.create_with(&record, first.clone()).await.unwrap();
    assert!(matches!(
        store.create_with(&record, first).await,
        Err(Error::Conflict(_))
    ));
    assert_eq!(store.history(&record.id, 0, 10).await.unwrap().len(), 2);
    let last = step(&beginning, &["two"], Status::Faulted);
    store.append(last.clone()).await.unwrap();
    let ended_at = last.summary.ended_at.unwrap();
    let is_unfinished = async || {
        let page = store.unfinished(None, 100).await.unwrap();
        page.entries
            .iter()
            .any(|run| run.as_ref().is_ok_and(|run| run.id == record.id))
    };
    let is_ended = async || {
        store
            .ended_before(at(9_999), 100)
            .await
            .unwrap()
            .contains(&record.id)
    };
    assert!(!is_unfinished().await && is_ended().await);

    let mut open = step(&last.summary, &["three"], Status::Running);
    open.summary.ended_at = None;
    let stale = Step {
        first_index: 2,
        ..open.clone()
    };
    assert!(matches!(
        store.reopen(stale, ended_at).await,
        Err(Error::Conflict(_))
    ));
    store.reopen(open.clone(), ended_at).await.unwrap();
    assert!(is_unfinished().await && !is_ended().await);
    assert!(matches!(
        store.forget_run(&record.id).await,
        Err(Error::Conflict(_))
    ));
    assert!(matches!(
        store.reopen(open.clone(), ended_at).await,
        Err(Error::Conflict(_))
    ));

    let end = step(&open.summary, &["four"], Status::Completed);
    store.append(end).await.unwrap();
    assert!(!is_unfinished().await && is_ended().await);
    store.forget_run(&record.id).await.unwrap();
    assert_eq!(store.summary(&record.id).await.unwrap(), None);
}
