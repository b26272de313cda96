//! What every store must do, as one suite that each adapter runs.

mod schedules;

use jiff::{SignedDuration, Timestamp};
use muster_workflow_dsl::cloud_event::CloudEvent;
use muster_workflow_dsl::journal::Question;
use muster_workflow_dsl::usage::Usage;
use serde_json::json;

use crate::approval::{self, Approval, ApprovalId, State};
use crate::run::{Erased, Marks, Position, Record, RunId, Status, Summary};
use crate::schedule::Claim;
use crate::store::erase::Rewrite;
use crate::store::events::{FIRST_POSITION, Logged, Room, StarterState};
use crate::store::spending::Spent;
use crate::store::{
    Error, Filter, HISTORY_BYTES, Page, Saved, SnapshotKind, Span, Step, Store, Workflow, WorkflowKey,
};

/// A run created `second` seconds after the epoch.
pub(crate) fn run(id: &str, second: i64) -> (Record, Summary) {
    let id: RunId = id.parse().expect("a run id");
    let record = Record {
        id: id.clone(),
        document: "a: 1".into(),
        input: json!({"n": 1}),
        erased_input: None,
        nonce: muster_workflow_dsl::secret::Nonce::fresh(),
        resources: muster_workflow_dsl::Resources::from([("f:1@c".into(), "set: {a: 1}".into())]),
        hears_from: 0,
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
        chain: None,
        cut: None,
        spent: Usage::default(),
        claim: Claim::default(),
        marks: Marks::default(),
        origin: None,
    };
    (record, summary)
}

pub(crate) fn at(second: i64) -> Timestamp {
    Timestamp::UNIX_EPOCH + SignedDuration::from_secs(second)
}

pub(crate) fn step(before: &Summary, entries: &[&str], status: Status) -> Step {
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
        spent: None,
        events: Vec::new(),
        snapshot: None,
        payloads: Vec::new(),
    }
}

/// Runs the suite. `open` opens the same store again; all from before is closed by then.
pub(crate) async fn check<S: Store>(open: impl AsyncFn() -> S) {
    catalogue(&open).await;
    journal(&open).await;
    kept_states(&open).await;
    erased(&open).await;
    fences(&open().await).await;
    lists(&open().await).await;
    portions(&open().await).await;
    forgetting(&open().await).await;
    again(&open().await).await;
    approvals(&open).await;
    spending(&open).await;
    answers(&open).await;
    events(&open).await;
    schedules::check(&open).await;
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
        behalf: None,
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

async fn kept_states<S: Store>(open: &impl AsyncFn() -> S) {
    let (record, created) = run("long", 15);
    let (id, store) = (record.id.clone(), open().await);
    let saved = |text: &str, is_base| {
        let bytes = text.as_bytes().to_vec();
        Some(Saved { bytes, is_base })
    };
    store.create_run(&record, &created).await.unwrap();
    for kind in [SnapshotKind::Latest, SnapshotKind::Base] {
        assert_eq!(store.snapshot(&id, kind).await.unwrap(), None);
    }
    let first = Step {
        snapshot: saved("first", true),
        ..step(&created, &["0", "1", "2"], Status::Running)
    };
    store.append(first.clone()).await.unwrap();
    let second = Step {
        snapshot: saved("second", false),
        ..step(&first.summary, &["3"], Status::Running)
    };
    store.append(second.clone()).await.unwrap();
    let refused = Step {
        snapshot: saved("refused", true),
        ..first.clone()
    };
    store.append(refused).await.unwrap_err();
    // A step without a state leaves those that are kept.
    let last = step(&second.summary, &["4"], Status::Completed);
    store.append(last).await.unwrap();
    drop(store);

    let store = open().await;
    let kept = async |kind| store.snapshot(&id, kind).await.unwrap();
    assert_eq!(kept(SnapshotKind::Latest).await.as_deref(), Some(&b"second"[..]));
    assert_eq!(kept(SnapshotKind::Base).await.as_deref(), Some(&b"first"[..]));
    assert_eq!(store.forget_entries(&id, 3, 2).await.unwrap(), 2);
    assert_eq!(store.forget_entries(&id, 3, 2).await.unwrap(), 1);
    assert_eq!(store.forget_entries(&id, 3, 2).await.unwrap(), 0);
    let entries = store.history(&id, 3, 10).await.unwrap();
    let indexes: Vec<u64> = entries.iter().map(|entry| entry.index).collect();
    assert_eq!(indexes, [3, 4]);
    let gone = store.history(&id, 0, 10).await.unwrap_err();
    assert!(matches!(gone, Error::Damaged(_)), "{gone}");
    assert_eq!(
        store
            .forget_entries(&"nobody".parse().unwrap(), 3, 2)
            .await
            .unwrap(),
        0
    );

    store.forget_run(&id).await.unwrap();
    for kind in [SnapshotKind::Latest, SnapshotKind::Base] {
        assert_eq!(kept(kind).await, None);
    }
}

async fn erased<S: Store>(open: &impl AsyncFn() -> S) {
    let (record, created) = run("erased", 16);
    let (id, store) = (record.id.clone(), open().await);
    store.create_run(&record, &created).await.unwrap();
    let nothing = |summary: &Summary| Rewrite {
        summary: summary.clone(),
        record: None,
        first_index: 0,
        entries: Vec::new(),
        approvals: Vec::new(),
    };
    let unknown = nothing(&run("nobody", 1).1);
    assert!(matches!(store.rewrite(unknown).await, Err(Error::Conflict(_))));
    let whole = Step {
        snapshot: Some(Saved {
            bytes: b"state".to_vec(),
            is_base: true,
        }),
        approvals: vec![approval(&created, 1, 20, State::Approved)],
        ..step(&created, &["0", "1", "2"], Status::Completed)
    };
    store.append(whole.clone()).await.unwrap();
    let stale = nothing(&created);
    assert!(matches!(store.rewrite(stale).await, Err(Error::Conflict(_))));

    let mut summary = whole.summary.clone();
    summary.marks.erased = Some(Erased {
        at: at(2_000),
        by: "ada".into(),
    });
    store.rewrite(nothing(&summary)).await.unwrap();
    drop(store);
    let store = open().await;
    let mut closed = approval(&created, 1, 20, State::Approved);
    closed.comment = "gone".into();
    let rewrite = Rewrite {
        record: Some(record.erased()),
        first_index: 1,
        entries: vec![b"one".to_vec()],
        approvals: vec![closed.clone()],
        ..nothing(&summary)
    };
    store.rewrite(rewrite).await.unwrap();
    let entries = store.history(&id, 0, 10).await.unwrap().into_iter();
    let entries: Vec<Vec<u8>> = entries.map(|entry| entry.bytes).collect();
    assert_eq!(entries, [b"0".to_vec(), b"one".to_vec(), b"2".to_vec()]);
    assert_eq!(store.output(&id).await.unwrap(), None);
    assert_eq!(store.snapshot(&id, SnapshotKind::Latest).await.unwrap(), None);
    assert_eq!(store.snapshot(&id, SnapshotKind::Base).await.unwrap(), None);
    assert_eq!(store.record(&id).await.unwrap(), Some(record.erased()));
    assert_eq!(store.summary(&id).await.unwrap(), Some(summary.clone()));
    assert_eq!(store.approval(&closed.id).await.unwrap(), Some(closed));

    // Nothing goes on from it, and it can be forgotten.
    let more = step(&summary, &["3"], Status::Running);
    let ended_at = summary.ended_at.unwrap();
    assert!(matches!(
        store.reopen(more, ended_at).await,
        Err(Error::Conflict(_))
    ));
    assert!(store.ended_before(at(100_000), 100).await.unwrap().contains(&id));
    store.forget_run(&id).await.unwrap();
    assert_eq!(store.summary(&id).await.unwrap(), None);
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
        let page = store.unfinished(None, after.as_ref(), 2).await.unwrap();
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

fn event(id: &str, kind: &str) -> CloudEvent {
    let event = json!({"specversion": "1.0", "id": id, "source": "/t", "type": kind, "data": id});
    CloudEvent::check(event).expect("an event")
}

async fn events<S: Store>(open: &impl AsyncFn() -> S) {
    const ROOM: Room = Room {
        events: 6,
        bytes: 1 << 20,
    };
    let store = open().await;
    assert_eq!(store.next_position().await.unwrap(), FIRST_POSITION);
    let empty = store.events(5, None, 10).await.unwrap();
    assert_eq!((empty.entries.len(), empty.next), (0, Some(5)));
    let first = store
        .add_events(
            vec![event("1", "a"), event("2", "b"), event("1", "a")],
            at(1),
            ROOM,
        )
        .await
        .unwrap();
    assert!(first[0].position < first[1].position);
    assert_eq!((first[2].position, first[2].duplicate), (first[0].position, true));
    drop(store);

    let store = open().await;
    let again = store
        .add_events(vec![event("2", "b"), event("3", "a")], at(2), ROOM)
        .await
        .unwrap();
    assert_eq!((again[0].position, again[0].duplicate), (first[1].position, true));
    assert!(!again[1].duplicate && again[1].position > first[1].position);
    let ids = |page: &Page<Logged, u64>| -> Vec<String> {
        page.entries
            .iter()
            .map(|logged| logged.event.id().to_owned())
            .collect()
    };
    let all = store.events(FIRST_POSITION, None, 2).await.unwrap();
    assert_eq!(
        (ids(&all), all.next),
        (vec!["1".into(), "2".into()], Some(first[1].position + 1))
    );
    let rest = store.events(all.next.unwrap(), None, 2).await.unwrap();
    let end = store.next_position().await.unwrap();
    assert_eq!((ids(&rest), rest.next), (vec!["3".to_owned()], Some(end)));
    let a = ["a".to_owned(), "none".to_owned()];
    let typed = store.events(first[1].position, Some(&a), 10).await.unwrap();
    assert_eq!((ids(&typed), typed.next), (vec!["3".to_owned()], Some(end)));

    // With a step of a run, or not at all.
    let (record, created) = run("telling", 400);
    store.create_run(&record, &created).await.unwrap();
    let told = Step {
        events: vec![event("told", "c")],
        ..step(&created, &["zero"], Status::Running)
    };
    store.append(told.clone()).await.unwrap();
    assert!(matches!(store.append(told).await, Err(Error::Conflict(_))));
    let page = store.events(end, None, 10).await.unwrap();
    assert_eq!(ids(&page), ["told"]);

    // The oldest make room.
    let many = (0..5).map(|number| event(&format!("m{number}"), "m")).collect();
    store.add_events(many, at(3), ROOM).await.unwrap();
    let kept = store.events(FIRST_POSITION, None, 100).await.unwrap();
    assert!(kept.entries.len() <= 6 && ids(&kept).contains(&"m4".to_owned()));
    assert!(
        store
            .events(FIRST_POSITION, Some(&["b".to_owned()]), 10)
            .await
            .unwrap()
            .entries
            .is_empty()
    );
    let forgotten = store.forget_events(at(9), 100).await.unwrap();
    assert_eq!(forgotten, kept.entries.len());
    assert!(
        !store
            .add_events(vec![event("1", "a")], at(9), ROOM)
            .await
            .unwrap()[0]
            .duplicate,
        "it is forgotten"
    );

    let state = StarterState {
        next: 7,
        memory: json!([1]),
    };
    store.keep_starter("s", Some(&state)).await.unwrap();
    assert_eq!(store.starter("s").await.unwrap(), Some(state));
    store.keep_starter("s", None).await.unwrap();
    assert_eq!(store.starter("s").await.unwrap(), None);
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
        let page = store.unfinished(None, None, 100).await.unwrap();
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

/// Of this run, opened so many seconds after the epoch.
fn approval(run: &Summary, number: u64, second: i64, state: State) -> Approval {
    Approval {
        id: ApprovalId {
            run: run.id.clone(),
            number,
        },
        namespace: run.namespace.clone(),
        name: run.name.clone(),
        version: run.version.clone(),
        task: "/do/0/a".into(),
        question: Question {
            title: format!("title of {number}"),
            details: None,
            assignees: vec![format!("person-{number}")],
            deadline: None,
            escalation: None,
        },
        budget: None,
        raise: None,
        opened_at: at(second),
        escalated: false,
        state,
        decided_by: String::new(),
        comment: String::new(),
        closed_at: None,
    }
}

async fn approvals<S: Store>(open: &impl AsyncFn() -> S) {
    let store = open().await;
    let (record, created) = run("asking", 400);
    store.create_run(&record, &created).await.unwrap();
    let one = approval(&created, 1, 5_000, State::Open);
    let two = approval(&created, 2, 5_001, State::Open);
    let three = approval(&created, 3, 5_001, State::Open);
    let first = Step {
        approvals: vec![two.clone(), one.clone(), three.clone()],
        ..step(&created, &["asked"], Status::Waiting)
    };
    store.append(first.clone()).await.unwrap();
    let refused = Step {
        approvals: vec![approval(&created, 1, 5_000, State::Approved)],
        ..step(&created, &["too late"], Status::Waiting)
    };
    assert!(matches!(store.append(refused).await, Err(Error::Conflict(_))));
    drop(store);

    let store = open().await;
    assert_eq!(
        store.approval(&one.id).await.unwrap(),
        Some(one.clone()),
        "nothing of a refused step"
    );
    let mut listed = Vec::new();
    let mut after = None;
    loop {
        let page = store
            .approvals(&approval::Filter::default(), after.as_ref(), 2)
            .await
            .unwrap();
        listed.extend(page.entries);
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(
        listed,
        [one.clone(), two.clone(), three.clone()],
        "those that wait longest first"
    );

    let closed = approval(&created, 2, 5_001, State::Rejected);
    let last = Step {
        approvals: vec![closed.clone()],
        ..step(&first.summary, &["decided"], Status::Faulted)
    };
    store.append(last).await.unwrap();
    let all = approval::Filter {
        states: vec![State::Open, State::Rejected],
        run: Some(record.id.clone()),
        ..approval::Filter::default()
    };
    let page = store.approvals(&all, None, 10).await.unwrap();
    assert_eq!(
        page.entries,
        [three.clone(), closed, one.clone()],
        "the newest first"
    );
    let hers = approval::Filter {
        assignee: Some("person-3".into()),
        ..approval::Filter::default()
    };
    assert_eq!(store.approvals(&hers, None, 10).await.unwrap().entries, [three]);
    store.forget_run(&record.id).await.unwrap();
    assert_eq!(store.approval(&one.id).await.unwrap(), None);
    assert_eq!(store.approvals(&all, None, 10).await.unwrap().entries, []);
}

async fn spending<S: Store>(open: &impl AsyncFn() -> S) {
    let tokens = |tokens| Usage {
        tokens,
        cost_micros: 2 * tokens,
    };
    let store = open().await;
    for (id, day, used) in [("spender-1", 7, 10), ("spender-2", 7, 5), ("spender-2", 8, 1)] {
        let (record, created) = run(&format!("{id}.{day}"), 500);
        store.create_run(&record, &created).await.unwrap();
        // What counts is the last word about a day.
        let mut summary = created;
        for usage in [tokens(1), tokens(used)] {
            let step = Step {
                spent: Some(Spent { day, usage }),
                ..step(&summary, &["used"], Status::Running)
            };
            summary = step.summary.clone();
            store.append(step).await.unwrap();
        }
    }
    drop(store);
    let store = open().await;
    assert_eq!(store.spent("default", 7, 7).await.unwrap(), tokens(15));
    assert_eq!(store.spent("default", 1, 31).await.unwrap(), tokens(16));
    assert_eq!(store.spent("defaul", 1, 31).await.unwrap(), Usage::default());
    assert_eq!(store.forget_spending(8, 100).await.unwrap(), 2);
    assert_eq!(store.spent("default", 1, 31).await.unwrap(), tokens(1));
}

async fn answers<S: Store>(open: &impl AsyncFn() -> S) {
    let store = open().await;
    for (key, value, until) in [("a", 1, 10), ("a", 2, 30), ("b", 3, 20), ("c", 4, 40)] {
        store.keep_answer(key, &json!(value), at(until)).await.unwrap();
    }
    drop(store);
    let store = open().await;
    assert_eq!(store.answer("a", at(29)).await.unwrap(), Some(json!(2)));
    assert_eq!(store.answer("a", at(30)).await.unwrap(), None);
    assert_eq!(store.answer("d", at(0)).await.unwrap(), None);
    assert_eq!(store.forget_answers(at(10), 100, 100).await.unwrap(), 1);
    assert_eq!(
        store.answer("a", at(10)).await.unwrap(),
        Some(json!(2)),
        "the newer one stands"
    );
    assert_eq!(store.forget_answers(at(10), 1, 100).await.unwrap(), 2);
    assert_eq!(
        store.answer("b", at(10)).await.unwrap(),
        None,
        "more than may be kept"
    );
    assert_eq!(store.answer("c", at(10)).await.unwrap(), Some(json!(4)));
    assert_eq!(store.forget_answers(at(99), 100, 100).await.unwrap(), 1);
}
