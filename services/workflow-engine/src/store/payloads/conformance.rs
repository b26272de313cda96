//! What everyone who keeps payloads must do, and what every store must do whose payloads are kept apart.

use std::sync::Arc;

use muster_workflow_dsl::journal::chain::Chain;
use serde_json::{Value, json};

use super::{Apart, Bucket, Digest, Payload, Payloads, Room};
use crate::run::{Cut, Erased, Mark, Record, RunId, Status, Summary};
use crate::store::conformance::{at, run, step};
use crate::store::erase::{Erase as _, Rewrite};
use crate::store::{Error, HISTORY_BYTES, Saved, SnapshotKind, Step, Store};

/// Longest value that stays, in these tests.
const THRESHOLD: usize = 1_024;

/// Runs the suite for those who keep payloads; the store has the runs that the payloads are of.
pub(crate) async fn check_keeper(keeper: &dyn Payloads, store: &dyn Store) {
    let mut rooms = Vec::new();
    for id in ["kept", "kept.too"] {
        let (record, summary) = run(id, 77);
        store.create_run(&record, &summary).await.unwrap();
        rooms.push(Room::of(&summary));
    }
    let of_span = |number: usize, span: u64| Room {
        span,
        ..rooms[number].clone()
    };
    let (first, second) = (
        Payload::new("\"one\"".into()),
        Payload::new("[\"zwei\", \"ü\"]".into()),
    );
    let read = async |room: &Room, payload: &Payload| {
        let bytes = keeper.payload(room, &payload.digest).await.unwrap();
        bytes.map(|bytes| String::from_utf8(bytes).unwrap())
    };
    assert_eq!(read(&rooms[0], &first).await, None);
    for span in [0, 0, 5, 300, u64::from(u32::MAX)] {
        let room = of_span(0, span);
        keeper
            .put_payloads(&room, &[first.clone(), second.clone()])
            .await
            .unwrap();
    }
    keeper
        .put_payloads(&rooms[1], std::slice::from_ref(&first))
        .await
        .unwrap();
    keeper.put_payloads(&rooms[1], &[]).await.unwrap();
    for span in [0, 5, 300] {
        assert_eq!(read(&of_span(0, span), &first).await.as_ref(), Some(&first.text));
        assert_eq!(
            read(&of_span(0, span), &second).await.as_ref(),
            Some(&second.text)
        );
    }
    assert_eq!(read(&of_span(0, 6), &first).await, None);
    assert_eq!(read(&rooms[1], &second).await, None);

    let spared = [first.digest.clone()];
    for _ in 0..2 {
        keeper.forget_payloads(&of_span(0, 300), &spared).await.unwrap();
        assert_eq!(read(&rooms[0], &first).await.as_ref(), Some(&first.text));
        assert_eq!(read(&rooms[0], &second).await, None);
        assert_eq!(read(&of_span(0, 5), &first).await, None);
        assert_eq!(read(&of_span(0, 300), &second).await.as_ref(), Some(&second.text));
    }
    let place = keeper.payload_place(&rooms[0], &first.digest);
    assert!(
        place.contains("kept") && place.contains(first.digest.as_str()),
        "{place}"
    );
    for _ in 0..2 {
        keeper
            .forget_payloads(&rooms[0].clone().whole_run(), &[])
            .await
            .unwrap();
    }
    for span in [0, 300, u64::from(u32::MAX)] {
        assert_eq!(read(&of_span(0, span), &first).await, None);
    }
    assert_eq!(read(&rooms[1], &first).await.as_ref(), Some(&first.text));
    // So many that they are forgotten in portions.
    let many: Vec<Payload> = (0..250).map(|number| Payload::new(number.to_string())).collect();
    keeper.put_payloads(&rooms[1], &many).await.unwrap();
    keeper
        .forget_payloads(&rooms[1].clone().whole_run(), &[])
        .await
        .unwrap();
    for payload in &many {
        assert_eq!(read(&rooms[1], payload).await, None);
    }
}

fn large(letter: &str) -> Value {
    json!({"text": letter.repeat(2 * THRESHOLD)})
}

fn entry(index: u64, what: &Value) -> String {
    json!({"index": index, "type": "test", "time": "2026-01-01T00:00:00Z", "output": what}).to_string()
}

/// A run that was accepted with a large input, and its first step.
async fn begun(store: &dyn Store, id: &str) -> (Record, Step) {
    let (mut record, created) = run(id, 90);
    record.input = large("a");
    store.create_run(&record, &created).await.unwrap();
    let entries = [
        entry(0, &large("a")),
        entry(1, &json!("small")),
        entry(2, &large("b")),
    ];
    let entries: Vec<&str> = entries.iter().map(String::as_str).collect();
    let state = format!("{{\"head\":1}}\n{{\"values\":[1,{}]}}\n{{}}", large("b"));
    let first = Step {
        snapshot: Some(Saved {
            bytes: state.into_bytes(),
            is_base: false,
        }),
        ..step(&created, &entries, Status::Running)
    };
    store.append(first.clone()).await.unwrap();
    (record, first)
}

fn mark(index: u64) -> Mark {
    Mark {
        index,
        chain: Chain::begin(&[]),
    }
}

/// Runs the suite for a store whose payloads are kept apart; `plain` is the store itself.
pub(crate) async fn check_apart(plain: Arc<dyn Store>, outside: Option<Arc<Bucket>>) {
    let store = Apart::new(Arc::clone(&plain), outside.clone(), THRESHOLD);
    let keeper: &dyn Payloads = match &outside {
        Some(bucket) => &**bucket,
        None => &*plain,
    };
    whole(&store, &*plain, keeper).await;
    portions(&store).await;
    spans(&store, keeper).await;
    erased(&store, keeper).await;
    damaged(&store, keeper).await;
    refused(&store, keeper).await;
}

async fn whole(store: &Apart, plain: &dyn Store, keeper: &dyn Payloads) {
    let (record, first) = begun(store, "apart").await;
    let id = &record.id;
    let last = Step {
        output: Some(large("b")),
        ..step(&first.summary, &[&entry(3, &large("b"))], Status::Completed)
    };
    store.append(last.clone()).await.unwrap();
    // What is kept is small, and what is read is whole.
    let kept = plain.history(id, 0, 10).await.unwrap();
    assert!(kept.iter().all(|entry| entry.bytes.len() < 300), "{kept:?}");
    assert!(plain.record(id).await.unwrap().unwrap().input.to_string().len() < 300);
    assert!(plain.output(id).await.unwrap().unwrap().to_string().len() < 300);
    let state = plain.snapshot(id, SnapshotKind::Latest).await.unwrap().unwrap();
    assert!(state.len() < 300);
    let entries: Vec<Vec<u8>> = store
        .history(id, 0, 10)
        .await
        .unwrap()
        .into_iter()
        .map(|entry| entry.bytes)
        .collect();
    assert_eq!(entries, [first.entries.clone(), last.entries].concat());
    assert_eq!(store.record(id).await.unwrap().as_ref(), Some(&record));
    assert_eq!(store.output(id).await.unwrap(), Some(large("b")));
    let state = store.snapshot(id, SnapshotKind::Latest).await.unwrap();
    assert_eq!(state, first.snapshot.map(|saved| saved.bytes));
    // A value that looks like what is kept stands for itself.
    let strange = plain.output(id).await.unwrap().unwrap();
    let (mut other, created) = run("strange", 91);
    other.input = strange;
    store.create_run(&other, &created).await.unwrap();
    assert_eq!(store.record(&other.id).await.unwrap().as_ref(), Some(&other));

    let room = Room::of(&last.summary);
    let digest = Digest::of(&large("b")["text"].to_string());
    assert!(keeper.payload(&room, &digest).await.unwrap().is_some());
    store.forget_run(id).await.unwrap();
    assert_eq!(keeper.payload(&room, &digest).await.unwrap(), None);
    assert_eq!(store.record(id).await.unwrap(), None);
    store.forget_run(id).await.unwrap();
    let held = store.forget_run(&other.id).await.unwrap_err();
    assert!(matches!(held, Error::Conflict(_)), "it has not ended: {held}");
    assert_eq!(store.record(&other.id).await.unwrap().as_ref(), Some(&other));
}

/// A portion of a history is bounded by what is whole.
async fn portions(store: &Apart) {
    let (record, created) = run("portioned", 92);
    store.create_run(&record, &created).await.unwrap();
    let most = json!("x".repeat(HISTORY_BYTES / 2 + 1));
    let entries: Vec<String> = (0..4).map(|index| entry(index, &most)).collect();
    let entries: Vec<&str> = entries.iter().map(String::as_str).collect();
    store
        .append(step(&created, &entries, Status::Running))
        .await
        .unwrap();
    let mut read = 0;
    while read < 4 {
        let portion = store.history(&record.id, read, 10).await.unwrap();
        assert_eq!(portion.len(), 1, "from {read}");
        assert_eq!(portion[0].index, read);
        read += 1;
    }
}

/// With the entries before a cut go the payloads of their span, and what the run was accepted with stays.
async fn spans(store: &Apart, keeper: &dyn Payloads) {
    let (record, first) = begun(store, "spans").await;
    let id = &record.id;
    let mut summary = first.summary.clone();
    for (from, (first, base)) in [(3, (0, 4)), (4, (4, 5))] {
        summary.cut = Some(Cut {
            first: mark(first),
            base: mark(base),
        });
        let mut next = step(&summary, &[&entry(from, &large("c"))], Status::Running);
        let state = format!("{{\"values\":[{}]}}", large("b")).into_bytes();
        next.snapshot = Some(Saved {
            bytes: state,
            is_base: true,
        });
        summary = next.summary.clone();
        store.append(next).await.unwrap();
    }
    while store.forget_entries(id, 4, 2).await.unwrap() > 0 {}
    let of_span = |span| Room {
        span,
        ..Room::of(&summary)
    };
    let there = async |span, letter: &str| {
        let digest = Digest::of(&large(letter)["text"].to_string());
        keeper.payload(&of_span(span), &digest).await.unwrap().is_some()
    };
    assert!(there(0, "a").await, "the input");
    assert!(!there(0, "b").await);
    assert!(there(4, "b").await && there(4, "c").await && there(5, "c").await);
    assert_eq!(store.record(id).await.unwrap(), Some(record.clone()));
    let entries = store.history(id, 4, 10).await.unwrap();
    assert_eq!(entries.len(), 1);
    assert_eq!(entries[0].bytes, entry(4, &large("c")).into_bytes());
    for kind in [SnapshotKind::Latest, SnapshotKind::Base] {
        assert!(store.snapshot(id, kind).await.unwrap().is_some());
    }
}

async fn erased(store: &Apart, keeper: &dyn Payloads) {
    let (record, first) = begun(store, "erasing").await;
    let last = step(&first.summary, &[&entry(3, &large("d"))], Status::Completed);
    store.append(last.clone()).await.unwrap();
    let mut summary = last.summary.clone();
    summary.marks.erased = Some(Erased {
        at: at(3_000),
        by: "ada".into(),
    });
    let entries: Vec<Vec<u8>> = (0..4)
        .map(|index| entry(index, &Value::Null).into_bytes())
        .collect();
    let rewrite = Rewrite {
        summary: summary.clone(),
        record: None,
        first_index: 0,
        entries: entries.clone(),
        approvals: Vec::new(),
    };
    store.rewrite(rewrite.clone()).await.unwrap();
    assert_eq!(
        store.record(&record.id).await.unwrap(),
        Some(record.clone()),
        "it goes last"
    );
    let rewrite = Rewrite {
        record: Some(record.erased()),
        entries: Vec::new(),
        ..rewrite
    };
    for _ in 0..2 {
        store.rewrite(rewrite.clone()).await.unwrap();
        for letter in ["a", "b", "d"] {
            let digest = Digest::of(&large(letter)["text"].to_string());
            assert_eq!(keeper.payload(&Room::of(&summary), &digest).await.unwrap(), None);
        }
    }
    let left = store.history(&record.id, 0, 10).await.unwrap();
    let left: Vec<Vec<u8>> = left.into_iter().map(|entry| entry.bytes).collect();
    assert_eq!(left, entries);
    assert_eq!(store.record(&record.id).await.unwrap(), Some(record.erased()));
}

/// A payload that is gone is named, and harms nothing else.
async fn damaged(store: &Apart, keeper: &dyn Payloads) {
    let (record, first) = begun(store, "damaged").await;
    let (healthy, _) = begun(store, "healthy").await;
    let id = &record.id;
    keeper
        .forget_payloads(&Room::of(&first.summary).whole_run(), &[])
        .await
        .unwrap();
    let digest = Digest::of(&large("a")["text"].to_string());
    let named = |error: Error| {
        let Error::Damaged(what) = error else {
            panic!("{error}")
        };
        for part in ["run 'damaged'", digest.as_str(), "is gone", "delete the run"] {
            assert!(what.contains(part), "{part}: {what}");
        }
    };
    named(store.record(id).await.unwrap_err());
    named(store.history(id, 0, 1).await.unwrap_err());
    assert!(store.history(id, 1, 1).await.unwrap().len() == 1, "it is small");
    assert!(store.snapshot(id, SnapshotKind::Latest).await.is_err());
    assert_eq!(store.record(&healthy.id).await.unwrap(), Some(healthy));
}

/// Of a run that is not accepted nothing stays, and the run that has the id keeps what it has.
async fn refused(store: &Apart, keeper: &dyn Payloads) {
    let (record, first) = begun(store, "taken").await;
    let mut other = record.clone();
    other.input = large("z");
    let later: Summary = run("taken", 95).1;
    for summary in [&later, &run("taken", 90).1] {
        let taken = store.create_run(&other, summary).await;
        assert!(matches!(taken, Err(Error::Conflict(_))));
    }
    let digest = Digest::of(&large("z")["text"].to_string());
    assert_eq!(keeper.payload(&Room::of(&later), &digest).await.unwrap(), None);
    assert_eq!(store.record(&record.id).await.unwrap(), Some(record));
    // A step that comes too late leaves what is there.
    let stale = store.append(first.clone()).await;
    assert!(matches!(stale, Err(Error::Conflict(_))));
    assert_eq!(store.history(&first.summary.id, 0, 10).await.unwrap().len(), 3);
    let nobody: RunId = "nobody".parse().unwrap();
    assert_eq!(store.record(&nobody).await.unwrap(), None);
}
