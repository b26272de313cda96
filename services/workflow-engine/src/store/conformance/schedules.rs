//! What every store must do with schedules.

use std::time::Duration;

use muster_workflow_dsl::document;

use super::at;
use crate::store::{Error, Page, Store};
use crate::timetable::{Name, Schedule};

fn name(name: &str) -> Name {
    Name {
        namespace: "default".into(),
        name: name.into(),
    }
}

fn schedule(of: &str, revision: u64) -> Schedule {
    Schedule {
        name: name(of),
        version: "1.0.0".into(),
        digest: "d".into(),
        rule: document::Schedule::Every(Duration::from_secs(60)),
        anchor: at(1),
        next: Some(at(61)),
        awaits: None,
        paused: None,
        last: None,
        fired: 0,
        revision,
    }
}

/// Written once and read back, also after the store was opened again; a write that does not know the last one is
/// refused; lists go by name.
pub(super) async fn check<S: Store>(open: &impl AsyncFn() -> S) {
    let store = open().await;
    for of in ["b", "a", "ab"] {
        store.put_schedule(&schedule(of, 1)).await.unwrap();
    }
    let conflict = |result: Result<(), Error>| matches!(result, Err(Error::Conflict(_)));
    assert!(
        conflict(store.put_schedule(&schedule("a", 1)).await),
        "it is there"
    );
    assert!(
        conflict(store.put_schedule(&schedule("a", 3)).await),
        "one is missing"
    );
    assert!(
        conflict(store.put_schedule(&schedule("c", 2)).await),
        "it is not there"
    );
    let second = Schedule {
        fired: 1,
        ..schedule("a", 2)
    };
    store.put_schedule(&second).await.unwrap();
    drop(store);

    let store = open().await;
    assert_eq!(store.schedule(&name("a")).await.unwrap(), Some(second.clone()));
    assert_eq!(store.schedule(&name("c")).await.unwrap(), None);
    let first = store.schedules(None, 2).await.unwrap();
    assert_eq!(
        first,
        Page {
            entries: vec![second, schedule("ab", 1)],
            next: Some(name("ab")),
        }
    );
    let rest = store.schedules(first.next.as_ref(), 2).await.unwrap();
    assert_eq!((rest.entries, rest.next), (vec![schedule("b", 1)], None));

    assert!(
        conflict(store.remove_schedule(&name("a"), 1).await),
        "it has changed"
    );
    store.remove_schedule(&name("a"), 2).await.unwrap();
    assert_eq!(store.schedule(&name("a")).await.unwrap(), None);
    store.put_schedule(&schedule("a", 1)).await.unwrap();
}
