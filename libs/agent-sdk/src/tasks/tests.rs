//! The table: pages, bounds, ends, followers.

mod hiding;

use std::sync::atomic::Ordering;
use std::time::Duration;

use a2a_pb::proto::{self as pb, TaskState};
use muster_a2a::ProtocolError;
use muster_api::error::{Error, Reason};
use proptest::prelude::*;
use tokio_util::sync::CancellationToken;

use super::record::{Errand, Record};
use super::store::Stage;
use super::table::{Bounds, Cancelled, Event, Table};
use super::whose::Whose;
use crate::reply::RESULT;

const RETENTION: Duration = Duration::from_secs(3600);

fn table(tasks: usize) -> Table {
    Table::new(Bounds {
        tasks,
        bytes: 100_000,
        retention: RETENTION,
    })
}

fn status(state: TaskState, second: i64) -> pb::TaskStatus {
    pb::TaskStatus {
        state: state.into(),
        message: None,
        timestamp: Some(prost_types::Timestamp {
            seconds: second,
            nanos: 0,
        }),
    }
}

fn task(id: &str, state: TaskState, second: i64) -> pb::Task {
    pb::Task {
        id: id.to_owned(),
        context_id: "c".to_owned(),
        status: Some(status(state, second)),
        history: vec![message("hi")],
        ..Default::default()
    }
}

fn message(text: &str) -> pb::Message {
    pb::Message {
        message_id: text.to_owned(),
        parts: vec![pb::Part {
            content: Some(pb::part::Content::Text(text.to_owned())),
            ..Default::default()
        }],
        ..Default::default()
    }
}

fn update(id: &str, state: TaskState, second: i64) -> pb::StreamResponse {
    pb::StreamResponse {
        payload: Some(pb::stream_response::Payload::StatusUpdate(
            pb::TaskStatusUpdateEvent {
                task_id: id.to_owned(),
                context_id: "c".to_owned(),
                status: Some(status(state, second)),
                metadata: None,
            },
        )),
    }
}

fn artifact(id: &str, artifact: &str, text: &str) -> pb::StreamResponse {
    pb::StreamResponse {
        payload: Some(pb::stream_response::Payload::ArtifactUpdate(
            pb::TaskArtifactUpdateEvent {
                task_id: id.to_owned(),
                artifact: Some(pb::Artifact {
                    artifact_id: artifact.to_owned(),
                    parts: message(text).parts,
                    ..Default::default()
                }),
                ..Default::default()
            },
        )),
    }
}

fn create(table: &mut Table, task: pb::Task, now: Duration) -> Result<(), Error> {
    create_of(table, task, "ada", now)
}

fn create_of(table: &mut Table, task: pb::Task, caller: &str, now: Duration) -> Result<(), Error> {
    let created = table.create(
        Record::new(task, Errand::default(), caller),
        CancellationToken::new(),
        true,
        now,
    );
    created.map_err(|status| Error::from_status(&status).unwrap())
}

/// A task that has ended.
fn put(table: &mut Table, id: &str, second: i64, now: Duration) {
    create(table, task(id, TaskState::Working, second), now).unwrap();
    table
        .settle(id, vec![update(id, TaskState::Completed, second)])
        .unwrap()
        .tell();
}

#[test]
fn reports_of_progress_take_each_others_place() {
    let mut table = table(10);
    create(&mut table, task("t", TaskState::Working, 1), Duration::ZERO).unwrap();
    let begun = table.bytes();
    let report = |second| {
        let status = pb::TaskStatus {
            message: Some(message(&"x".repeat(1_000))),
            ..status(TaskState::Working, second)
        };
        let mut report = update("t", TaskState::Working, second);
        if let Some(pb::stream_response::Payload::StatusUpdate(update)) = &mut report.payload {
            update.status = Some(status);
        }
        Event::new(report)
    };
    for second in 2..500 {
        assert!(table.publish("t", &report(second)));
    }
    assert!(table.bytes() < begun + 3_000, "{}", table.bytes());
    // A million bytes were reported, and there is room for others.
    put(&mut table, "u", 1, Duration::ZERO);
    put(&mut table, "v", 2, Duration::ZERO);
    assert!(table.find("u").is_some() && table.find("v").is_some());
    let done = vec![update("t", TaskState::Completed, 500)];
    table.settle("t", done).unwrap().tell();
    let kept: usize = ["t", "u", "v"]
        .iter()
        .map(|id| table.encoded(id).unwrap().len())
        .sum();
    assert_eq!(table.bytes(), kept);
}

fn list(table: &Table, size: i32, token: &str) -> pb::ListTasksResponse {
    let request = pb::ListTasksRequest {
        page_size: Some(size),
        page_token: token.to_owned(),
        ..Default::default()
    };
    table.list(&request, Whose::All).unwrap()
}

fn ids(page: &pb::ListTasksResponse) -> Vec<&str> {
    page.tasks.iter().map(|task| task.id.as_str()).collect()
}

#[test]
fn pages_are_newest_first_and_stable_under_inserts() {
    let mut table = table(100);
    for second in 1..=5 {
        put(&mut table, &format!("t{second}"), second, Duration::ZERO);
    }
    let first = list(&table, 2, "");
    assert_eq!(ids(&first), ["t5", "t4"]);
    assert_eq!(first.total_size, 5);
    put(&mut table, "t9", 9, Duration::ZERO);
    let second = list(&table, 2, &first.next_page_token);
    assert_eq!(ids(&second), ["t3", "t2"]);
    let third = list(&table, 2, &second.next_page_token);
    assert_eq!(ids(&third), ["t1"]);
    assert_eq!(third.next_page_token, "");
}

#[test]
fn foreign_tokens_and_impossible_sizes_are_refused_and_large_ones_cut() {
    let table = table(10);
    for request in [
        pb::ListTasksRequest {
            page_token: "7".to_owned(),
            ..Default::default()
        },
        pb::ListTasksRequest {
            page_size: Some(-1),
            ..Default::default()
        },
    ] {
        let refused = table.list(&request, Whose::All).unwrap_err();
        assert_eq!(Error::from_status(&refused).unwrap().reason, Reason::InvalidField);
    }
    assert_eq!(list(&table, 0, "").page_size, 50);
    assert_eq!(list(&table, 1000, "").page_size, 100);
}

#[test]
fn room_is_made_by_the_longest_untouched_finished_task() {
    let mut table = table(2);
    let now = Duration::ZERO;
    create(&mut table, task("working", TaskState::Working, 1), now).unwrap();
    put(&mut table, "done", 2, now);
    create(&mut table, task("new", TaskState::Working, 3), now).unwrap();
    assert!(table.find("done").is_none());
    assert!(table.find("working").is_some());
    assert_eq!(table.forgotten(), ["done"]);
    let refused = create(&mut table, task("more", TaskState::Working, 4), now).unwrap_err();
    assert_eq!(refused.reason, Reason::AgentBusy);
}

#[test]
fn retention_ends_what_has_ended() {
    let mut table = table(100);
    put(&mut table, "done", 1, Duration::ZERO);
    create(&mut table, task("new", TaskState::Working, 2), RETENTION).unwrap();
    assert!(table.find("done").is_none());
}

#[test]
fn bytes_are_bounded_and_given_back() {
    let mut table = table(100);
    let large = |id: &str, length: usize| pb::Task {
        history: vec![message(&"x".repeat(length))],
        ..task(id, TaskState::Working, 1)
    };
    create(&mut table, large("large", 45_000), Duration::ZERO).unwrap();
    table
        .settle("large", vec![update("large", TaskState::Completed, 1)])
        .unwrap()
        .tell();
    create(&mut table, large("other", 45_000), Duration::ZERO).unwrap();
    assert!(table.find("large").is_none());
    assert!(create(&mut table, large("huge", 200_000), Duration::ZERO).is_err());
    table.withdraw("other");
    assert_eq!(table.bytes(), 0);
}

#[test]
fn an_end_is_final_and_cancelling_is_one_of_them() {
    let mut table = table(10);
    create(&mut table, task("t", TaskState::Working, 1), Duration::ZERO).unwrap();
    let cancelled = table
        .cancel("t", |_| update("t", TaskState::Canceled, 2))
        .unwrap();
    let Cancelled::Now(publication) = cancelled else {
        panic!("it was at work")
    };
    assert!(publication.work.is_some());
    publication.tell();
    assert!(matches!(
        table
            .cancel("t", |_| update("t", TaskState::Canceled, 3))
            .unwrap(),
        Cancelled::Before(_)
    ));
    assert!(
        table
            .settle("t", vec![update("t", TaskState::Completed, 4)])
            .is_none()
    );
    assert!(!table.publish("t", &Event::new(update("t", TaskState::Working, 5))));
    assert_eq!(table.state("t"), Some(TaskState::Canceled));

    put(&mut table, "done", 6, Duration::ZERO);
    let refused = table.cancel("done", |_| update("done", TaskState::Canceled, 7));
    assert_eq!(
        refused.err().and_then(|status| ProtocolError::of(&status)),
        Some(ProtocolError::TaskNotCancelable)
    );
    let refused = table.follow("done").map(|_| ()).unwrap_err();
    assert_eq!(
        ProtocolError::of(&refused),
        Some(ProtocolError::UnsupportedOperation)
    );
}

#[test]
fn the_result_leads_the_artifacts() {
    let mut table = table(10);
    create(&mut table, task("t", TaskState::Working, 1), Duration::ZERO).unwrap();
    for name in ["chart", "log"] {
        assert!(table.publish("t", &Event::new(artifact("t", name, "x"))));
    }
    let last = vec![artifact("t", RESULT, "r"), update("t", TaskState::Completed, 2)];
    table.settle("t", last).unwrap().tell();
    let stored = table.find("t").unwrap().artifacts;
    let order: Vec<_> = stored
        .iter()
        .map(|artifact| artifact.artifact_id.as_str())
        .collect();
    assert_eq!(order, [RESULT, "chart", "log"]);
}

#[test]
fn a_message_finds_its_task_waiting_or_is_refused() {
    let mut table = table(10);
    create(&mut table, task("t", TaskState::Working, 1), Duration::ZERO).unwrap();
    let refusal = |table: &Table, id: &str, context: &str| {
        let refused = table.check_message(id, context).unwrap_err();
        ProtocolError::of(&refused)
    };
    assert_eq!(
        refusal(&table, "t", ""),
        Some(ProtocolError::UnsupportedOperation),
        "it is at work"
    );
    assert_eq!(refusal(&table, "nobody", ""), Some(ProtocolError::TaskNotFound));
    table
        .settle("t", vec![update("t", TaskState::InputRequired, 2)])
        .unwrap()
        .tell();
    assert_eq!(refusal(&table, "t", "other"), None, "a field is at fault");
    assert!(table.check_message("t", "c").is_ok());
    let resumed = table
        .resume(
            "t",
            &message("Seattle"),
            Errand::default(),
            status(TaskState::Working, 3),
            CancellationToken::new(),
        )
        .unwrap();
    assert_eq!((resumed.earlier.len(), resumed.task.history.len()), (1, 2));
    assert_eq!(table.state("t"), Some(TaskState::Working));
}

/// Writes what is to be written of a task, as a store that can; its stage.
fn write(table: &mut Table, id: &str) -> Option<Stage> {
    let stage = table.draft(id)?.keep?.stage;
    table.written(id, stage);
    Some(stage)
}

fn shared(tasks: usize) -> Table {
    Table::shared(Bounds {
        tasks,
        bytes: 100_000,
        retention: RETENTION,
    })
}

#[test]
fn before_a_shared_store_what_is_written_and_rests_is_given_up() {
    let mut table = shared(10);
    for (id, end) in [("t", TaskState::Completed), ("q", TaskState::InputRequired)] {
        create(&mut table, task(id, TaskState::Working, 1), Duration::ZERO).unwrap();
        assert_eq!(write(&mut table, id), Some(Stage::AtWork));
        assert_eq!(write(&mut table, id), None, "there is nothing new");
        assert!(table.publish(id, &Event::new(update(id, TaskState::Working, 2))));
        let part = table.draft(id).unwrap().keep.unwrap();
        assert!(part.record.is_none(), "progress costs an event");
        assert_eq!(part.part.events.len(), 1);
        table.failed(id);
        assert!(table.settle(id, vec![update(id, end, 3)]).is_some());
        assert!(table.is_secret(id) && !table.is_durable(id));
        let part = table.draft(id).unwrap().keep.unwrap();
        assert_eq!((part.part.events.len(), part.stage), (2, Stage::AtRest));
        assert!(part.record.is_some());
        table.written(id, part.stage);
        assert!(!table.holds(id) && !table.is_secret(id));
    }
    assert!(table.find("t").is_some(), "an end stays as a copy");
    assert!(table.draft("t").is_none(), "and is nobody's to write");
    assert!(table.find("q").is_none(), "a question may be answered elsewhere");
}

#[test]
fn what_a_shared_store_does_not_have_is_not_forgotten_for_room() {
    let mut table = shared(2);
    put(&mut table, "unwritten", 1, Duration::ZERO);
    put(&mut table, "written", 2, Duration::ZERO);
    write(&mut table, "written");
    create(&mut table, task("new", TaskState::Working, 3), Duration::ZERO).unwrap();
    assert!(table.find("written").is_none() && table.find("unwritten").is_some());
    assert!(table.forgotten().is_empty(), "the store forgets by itself");
    let refused = create(&mut table, task("more", TaskState::Working, 4), RETENTION).unwrap_err();
    assert_eq!(refused.reason, Reason::AgentBusy);
    table.withdraw("new");
    assert!(table.draft("new").unwrap().keep.is_none());
    table.not_forgotten("new");
    assert!(table.is_here("new") && table.draft("new").unwrap().keep.is_none());
    assert!(table.draft("new").is_none());
}

#[test]
fn a_pin_keeps_a_task_and_what_is_owed_stays_until_it_is_delivered() {
    let mut table = shared(10);
    create(&mut table, task("t", TaskState::Working, 1), Duration::ZERO).unwrap();
    let config = pb::TaskPushNotificationConfig {
        id: "p".to_owned(),
        ..Default::default()
    };
    table.put_push("t", config).unwrap();
    table
        .settle("t", vec![update("t", TaskState::InputRequired, 2)])
        .unwrap();
    assert!(table.pin("t"));
    assert_eq!(write(&mut table, "t"), Some(Stage::AtWork));
    table.unpin("t");
    assert_eq!(write(&mut table, "t"), Some(Stage::Owing));
    assert!(table.owing().is_empty(), "it is being told");
    table.told("t");
    assert_eq!(table.owing().len(), 1);
    table.pushed("t", "p");
    assert_eq!(write(&mut table, "t"), Some(Stage::AtRest));
    assert!(!table.pin("t"));
}

#[test]
fn what_is_lost_is_cancelled_and_who_follows_hears_why() {
    let mut table = shared(10);
    let work = CancellationToken::new();
    for id in ["t", "unwritten"] {
        let record = Record::new(task(id, TaskState::Working, 1), Errand::default(), "ada");
        table.create(record, work.clone(), true, Duration::ZERO).unwrap();
    }
    write(&mut table, "t");
    let (_, mut follower) = table.follow("t").unwrap();
    assert_eq!(table.lose_all(), 1, "what no store knows is nobody else's");
    assert!(work.is_cancelled() && table.holds("unwritten"));
    assert!(follower.events.try_recv().is_err());
    assert!(follower.fate.is_lost.load(Ordering::Relaxed));
    assert_eq!(table.take_lost(), ["t"]);
    table.lose("unwritten");
    assert_eq!(table.bytes(), 0);
}

/// What may happen to a task.
#[derive(Debug, Clone)]
enum Step {
    Progress,
    Artifact(u8),
    Follow,
    Leave(usize),
    Ask,
    Answer,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        Just(Step::Progress),
        (0..3_u8).prop_map(Step::Artifact),
        Just(Step::Follow),
        (0..4_usize).prop_map(Step::Leave),
        Just(Step::Ask),
        Just(Step::Answer),
    ]
}

proptest! {
    /// Whatever others have: a caller's pages have its own tasks, each once, newest first, and say how many those are.
    #[test]
    fn a_callers_pages_are_those_of_its_own(
        owners in prop::collection::vec(0..4_usize, 0..40), size in 1..7_i32, in_context in any::<bool>(),
    ) {
        // The last one has been made before tasks had callers.
        const CALLERS: [&str; 4] = ["ada", "eve", "bob", ""];
        let mut table = table(100);
        for (number, owner) in owners.iter().enumerate() {
            let mut task = task(&format!("t{number:02}"), TaskState::Working, i64::try_from(number).unwrap());
            task.context_id = format!("c{}", number % 2);
            create_of(&mut table, task, CALLERS[*owner], Duration::ZERO).unwrap();
        }
        let everybody = CALLERS.iter().map(|caller| (Whose::Of((*caller).into()), *caller));
        for (whose, caller) in everybody.chain([(Whose::All, "all")]) {
            let wanted: Vec<String> = (0..owners.len())
                .rev()
                .filter(|number| !in_context || number % 2 == 0)
                .filter(|number| whose == Whose::All || !caller.is_empty() && CALLERS[owners[*number]] == caller)
                .map(|number| format!("t{number:02}"))
                .collect();
            let (mut seen, mut token) = (Vec::new(), String::new());
            loop {
                let request = pb::ListTasksRequest {
                    page_size: Some(size),
                    page_token: token,
                    context_id: if in_context { "c0".to_owned() } else { String::new() },
                    ..Default::default()
                };
                let page = table.list(&request, whose.clone()).unwrap();
                prop_assert_eq!(usize::try_from(page.total_size).unwrap(), wanted.len());
                seen.extend(page.tasks.into_iter().map(|task| task.id));
                token = page.next_page_token;
                if token.is_empty() {
                    break;
                }
                let stolen = pb::ListTasksRequest { page_token: token.clone(), ..Default::default() };
                let thief = Whose::Of("mallory".into());
                prop_assert!(table.list(&stolen, thief).is_err());
            }
            prop_assert_eq!(seen, wanted);
        }
    }

    /// Whoever follows, from wherever: the snapshot with the events after it is the task as it is in the end, and two
    /// followers saw the same events in the same order from where the later one came in. What is kept is never lost by resting.
    #[test]
    fn a_snapshot_and_its_events_are_the_task(steps in prop::collection::vec(step(), 0..60)) {
        let mut table = table(10);
        create(&mut table, task("t", TaskState::Working, 0), Duration::ZERO).unwrap();
        let mut followers = Vec::new();
        let mut second = 0;
        for step in steps {
            second += 1;
            let is_open = table.state("t") == Some(TaskState::Working);
            match step {
                Step::Progress => {
                    let event = update("t", TaskState::Working, second);
                    prop_assert_eq!(table.publish("t", &Event::new(event)), is_open);
                }
                Step::Artifact(number) => {
                    let event = artifact("t", &number.to_string(), &second.to_string());
                    prop_assert_eq!(table.publish("t", &Event::new(event)), is_open);
                }
                Step::Follow => followers.push(table.follow("t").unwrap()),
                Step::Leave(place) if place < followers.len() => {
                    drop(followers.remove(place));
                    table.unfollow("t");
                }
                Step::Ask if is_open => {
                    let events = vec![update("t", TaskState::InputRequired, second)];
                    table.settle("t", events).unwrap().tell();
                }
                Step::Answer if !is_open => {
                    table
                        .resume("t", &message("m"), Errand::default(), status(TaskState::Working, second), CancellationToken::new())
                        .unwrap();
                }
                Step::Leave(_) | Step::Ask | Step::Answer => {}
            }
        }
        let last = table.find("t").unwrap();
        let mut seen: Vec<Vec<Event>> = Vec::new();
        for (snapshot, mut follower) in followers {
            let mut record = Record::new(snapshot, Errand::default(), "ada");
            let mut events = Vec::new();
            while let Ok(event) = follower.events.try_recv() {
                record.apply(&event);
                events.push(event);
            }
            let task = record.task.unwrap();
            prop_assert_eq!(&task.status, &last.status);
            prop_assert_eq!(&task.artifacts, &last.artifacts);
            seen.push(events);
        }
        for pair in seen.windows(2) {
            prop_assert!(pair[0].ends_with(&pair[1]));
        }
        let encoded = table.encoded("t").unwrap();
        let mut other = super::table::Table::new(Bounds { tasks: 1, bytes: 1 << 20, retention: RETENTION });
        prop_assert_eq!(other.load("t", encoded, Duration::ZERO).unwrap().task.unwrap(), last);
    }
}
