//! Against real servers.

use std::sync::Arc;
use std::time::Duration;

use a2a_pb::proto::{self as pb, TaskState};
use muster_api::error::Reason;
use muster_runtime::clock::{ManualClock, SharedClock, SystemClock};
use muster_store::Keys;
use muster_store::redis::{Address, Connection, Options};
use muster_testkit::{RedisCluster, RedisSentinels, RedisServer, wait_for};
use tokio_util::sync::CancellationToken;

use super::{Beat, Claim, Place, Redis, Wish};
use crate::tasks::conformance::{self, draft, record, write};
use crate::tasks::page::Query;
use crate::tasks::record::{Push, Record};
use crate::tasks::store::{Outcome, Stage, Store as _};
use crate::tasks::table::{Bounds, Event, Table};
use crate::tasks::whose::Whose;

const PATIENCE: Duration = Duration::from_secs(20);
const LEASE: Duration = Duration::from_secs(1);
const LONG: Duration = Duration::from_secs(600);

const BOUNDS: Bounds = Bounds {
    tasks: 1_000,
    bytes: 10_000_000,
    retention: Duration::from_secs(3_600),
};

struct Opening {
    agent: &'static str,
    keys: Option<Keys>,
    bounds: Bounds,
    lease: Duration,
    clock: SharedClock,
    patience: Duration,
}

impl Default for Opening {
    fn default() -> Self {
        Self {
            agent: "puppet",
            keys: None,
            bounds: BOUNDS,
            lease: LONG,
            clock: Arc::new(SystemClock::default()),
            patience: PATIENCE,
        }
    }
}

async fn open_with(url: &str, opening: Opening) -> Redis {
    let address: Address = url.parse().unwrap();
    let options = Options {
        patience: opening.patience,
        ..Options::default()
    };
    let place = Place {
        prefix: "muster",
        namespace: "",
        agent: opening.agent,
    };
    let connection = Connection::new(address, options);
    Redis::open(
        connection,
        place,
        opening.keys,
        opening.bounds,
        opening.lease,
        opening.clock,
    )
    .await
    .unwrap_or_else(|error| panic!("{error}"))
}

async fn open(url: &str) -> Redis {
    open_with(url, Opening::default()).await
}

async fn outcome(redis: &Redis, record: &Record, version: u64, stage: Stage) -> Outcome {
    let mut outcomes = redis.write(vec![draft(record, version, stage)]).await;
    outcomes.remove(0).unwrap()
}

/// Tries to write what must not be.
async fn is_refused(redis: &Redis, record: &Record, version: u64, stage: Stage) {
    let outcome = redis.write(vec![draft(record, version, stage)]).await.remove(0);
    let is_refused = matches!(&outcome, Ok(Outcome::Lost)) || outcome.is_err();
    assert!(is_refused, "{outcome:?}");
}

/// Waits until an instance sees that the lease of another has ended.
async fn sees_the_end_of(redis: &Redis, other: &str) {
    wait_for("the lease to end", PATIENCE, async || {
        match redis.beat().await.unwrap() {
            Beat::Alive { ended, .. } if ended.iter().any(|ended| ended == other) => Ok(()),
            beat => Err(format!("{beat:?}")),
        }
    })
    .await;
}

#[tokio::test]
async fn standalone_keeps_what_every_store_must() {
    let server = RedisServer::start().await;
    conformance::check(async || open(&server.url()).await).await;
}

#[tokio::test]
async fn a_cluster_keeps_what_every_store_must_and_takes_over() {
    let cluster = RedisCluster::start().await;
    conformance::check(async || open(&cluster.url()).await).await;
    the_older_life_writes_nothing(&cluster.url()).await;
    lists_are_those_of_the_table(&cluster.url()).await;
}

#[tokio::test]
async fn sentinels_keep_what_every_store_must() {
    let sentinels = RedisSentinels::start().await;
    conformance::check(async || open(&sentinels.url()).await).await;
}

#[tokio::test]
async fn an_instance_that_was_taken_for_dead_writes_nothing() {
    let server = RedisServer::start().await;
    the_older_life_writes_nothing(&server.url()).await;
}

async fn the_older_life_writes_nothing(url: &str) {
    // Its own clock stands still: it does not know that time has passed.
    let frozen = Opening {
        agent: "frozen",
        lease: LEASE,
        clock: Arc::new(ManualClock::default()),
        ..Opening::default()
    };
    let older = open_with(url, frozen).await;
    let newer = open_with(
        url,
        Opening {
            agent: "frozen",
            ..Opening::default()
        },
    )
    .await;
    let at_work = record("t", TaskState::Working, 1);
    write(&older, vec![draft(&at_work, 0, Stage::AtWork)]).await;
    let second = record("second", TaskState::Working, 1);
    write(&older, vec![draft(&second, 0, Stage::AtWork)]).await;
    assert!(matches!(newer.claim("t").await.unwrap(), Claim::Held));
    let (taken, _) = newer.take(&older.name()).await.unwrap();
    assert!(taken.is_empty(), "it lives");

    let name = older.name();
    sees_the_end_of(&newer, &name).await;
    let (taken, has_more) = newer.take(&name).await.unwrap();
    assert!(!has_more);
    assert_eq!(taken.len(), 2);
    let first = taken.iter().find(|stored| stored.record == at_work).unwrap();
    assert_eq!((first.version, first.worker.as_str()), (2, newer.name().as_str()));
    let late = record("t", TaskState::Completed, 2);
    is_refused(&older, &late, 1, Stage::AtRest).await;
    is_refused(&older, &late, 2, Stage::AtRest).await;
    let other = record("other", TaskState::Working, 1);
    is_refused(&older, &other, 0, Stage::AtWork).await;
    assert_eq!(older.beat().await.unwrap(), Beat::Lost);
    // Its next life may write, and what it held is not its own.
    assert!(matches!(older.beat().await.unwrap(), Beat::Alive { held, .. } if held.is_empty()));
    assert_eq!(outcome(&older, &late, 2, Stage::AtRest).await, Outcome::Lost);
    assert_eq!(outcome(&newer, &late, 2, Stage::AtRest).await, Outcome::Done);
    assert_eq!(outcome(&older, &other, 0, Stage::AtRest).await, Outcome::Done);
}

#[tokio::test]
async fn writing_stops_before_the_lease_ends() {
    let server = RedisServer::start().await;
    let clock = Arc::new(ManualClock::default());
    let opening = Opening {
        lease: LEASE,
        clock: Arc::clone(&clock) as SharedClock,
        ..Opening::default()
    };
    let redis = open_with(&server.url(), opening).await;
    let at_work = record("t", TaskState::Working, 1);
    assert_eq!(outcome(&redis, &at_work, 0, Stage::AtWork).await, Outcome::Done);
    clock.advance(LEASE);
    let refused = redis
        .write(vec![draft(&at_work, 1, Stage::AtWork)])
        .await
        .remove(0);
    let error = refused.unwrap_err();
    assert_eq!(error.reason, Reason::StoreUnavailable);
    assert!(
        error.retry_after.is_some() && error.message.contains("lease"),
        "{error:?}"
    );
    // Nobody has taken anything over, so that it is all its own again.
    assert!(matches!(redis.beat().await.unwrap(), Beat::Alive { held, .. } if held == ["t"]));
    assert_eq!(outcome(&redis, &at_work, 1, Stage::AtWork).await, Outcome::Done);
}

#[tokio::test]
async fn a_write_that_is_sent_twice_is_one() {
    let server = RedisServer::start().await;
    let redis = open(&server.url()).await;
    let at_work = record("t", TaskState::Working, 1);
    for version in 0..2 {
        let draft = draft(&at_work, version, Stage::AtWork);
        for _ in 0..2 {
            write(&redis, vec![draft.clone()]).await;
        }
    }
    assert_eq!(redis.read("t").await.unwrap().unwrap().version, 2);
    assert_eq!(outcome(&redis, &at_work, 0, Stage::AtWork).await, Outcome::Lost);
    // Taken twice, it is taken once.
    assert_eq!(outcome(&redis, &at_work, 2, Stage::AtRest).await, Outcome::Done);
    for _ in 0..2 {
        let Claim::Mine(stored) = redis.claim("t").await.unwrap() else {
            panic!("nobody else is there")
        };
        assert_eq!(stored.version, 4);
    }
}

/// A server, a store in it, and a table with a task that the store does not have yet.
async fn with_a_task() -> (RedisServer, Redis, Table) {
    let server = RedisServer::start().await;
    let redis = open(&server.url()).await;
    let mut table = Table::shared(BOUNDS);
    let new = record("t", TaskState::Submitted, 0);
    table
        .create(new, CancellationToken::new(), true, Duration::ZERO)
        .unwrap();
    (server, redis, table)
}

#[tokio::test]
async fn what_was_written_and_not_heard_of_is_written_over() {
    let (server, redis, mut table) = with_a_task().await;
    let mut unheard = Vec::new();
    for second in 1..=3 {
        assert!(table.publish("t", &Event::new(status("t", TaskState::Working, second))));
        let draft = table.draft("t").unwrap();
        unheard.push(draft.clone());
        // It is done, and the answer is lost.
        write(&redis, vec![draft]).await;
        table.failed("t");
    }
    table
        .settle("t", vec![status("t", TaskState::Completed, 4)])
        .unwrap();
    sync(&redis, &mut table, "t").await;
    // What has been under way for long changes nothing.
    write(&redis, unheard).await;
    let stored = redis.read("t").await.unwrap().unwrap();
    assert_eq!((stored.record.state(), stored.number), (TaskState::Completed, 4));
    assert_eq!((stored.version, stored.worker.as_str()), (1, ""));
    let news = redis.news("t", 0).await.unwrap().unwrap();
    let numbers: Vec<u64> = news.events.iter().map(|(number, _)| *number).collect();
    assert_eq!(numbers, [1, 2, 3, 4]);
    assert!(
        matches!(redis.beat().await.unwrap(), Beat::Alive { held, .. } if held.is_empty()),
        "nobody takes it up again"
    );
    write(
        &redis,
        vec![crate::tasks::store::Draft {
            id: "t".to_owned(),
            keep: None,
        }],
    )
    .await;
    let bytes = server.ask(&["GET", "muster:{agent.default.puppet}:bytes"]).await;
    assert_eq!(bytes.trim(), "0", "no event counts twice");
}

#[tokio::test]
async fn room_is_made_by_the_longest_untouched_task_that_nobody_works_on() {
    let server = RedisServer::start().await;
    let opening = Opening {
        bounds: Bounds { tasks: 2, ..BOUNDS },
        ..Opening::default()
    };
    let redis = open_with(&server.url(), opening).await;
    for (id, state, stage) in [
        ("working", TaskState::Working, Stage::AtWork),
        ("done", TaskState::Completed, Stage::AtRest),
        ("new", TaskState::Working, Stage::AtWork),
    ] {
        assert_eq!(
            outcome(&redis, &record(id, state, 1), 0, stage).await,
            Outcome::Done
        );
    }
    assert!(redis.read("done").await.unwrap().is_none());
    assert!(redis.read("working").await.unwrap().is_some());
    let more = record("more", TaskState::Working, 1);
    assert_eq!(outcome(&redis, &more, 0, Stage::AtWork).await, Outcome::Full);
    // Bytes are given back.
    for id in ["working", "new"] {
        let forget = crate::tasks::store::Draft {
            id: id.to_owned(),
            keep: None,
        };
        write(&redis, vec![forget]).await;
    }
    assert_eq!(
        server
            .ask(&["GET", "muster:{agent.default.puppet}:bytes"])
            .await
            .trim(),
        "0"
    );
    assert_eq!(outcome(&redis, &more, 0, Stage::AtWork).await, Outcome::Done);
}

#[tokio::test]
async fn agents_do_not_see_each_others_tasks() {
    let server = RedisServer::start().await;
    let other = Opening {
        agent: "other",
        ..Opening::default()
    };
    let (one, other) = (open(&server.url()).await, open_with(&server.url(), other).await);
    write(
        &one,
        vec![draft(&record("t", TaskState::Completed, 1), 0, Stage::AtRest)],
    )
    .await;
    assert!(other.read("t").await.unwrap().is_none());
    let all = Query::read(&pb::ListTasksRequest::default(), Whose::All).unwrap();
    assert_eq!(other.list(&all).await.unwrap(), (Vec::new(), 0));
    assert_eq!(one.list(&all).await.unwrap().1, 1);
    server
        .ask(&["SET", "muster:{agent.default.third}:format", "agent-tasks 7"])
        .await;
    let connection = Connection::new(server.url().parse().unwrap(), Options::default());
    let place = Place {
        prefix: "muster",
        namespace: "default",
        agent: "third",
    };
    let refused = Redis::open(
        connection,
        place,
        None,
        BOUNDS,
        LONG,
        Arc::new(SystemClock::default()),
    )
    .await;
    let error = refused.err().unwrap().to_string();
    assert!(
        error.contains("agent-tasks 7") && error.contains("key_prefix"),
        "{error}"
    );
}

#[tokio::test]
async fn what_callers_have_sent_is_encrypted_where_there_are_keys() {
    let server = RedisServer::start().await;
    let keys = Keys::parse(&format!("one {}A=", "a".repeat(42))).unwrap();
    let with = |keys: Option<&Keys>| Opening {
        keys: keys.cloned(),
        lease: LEASE,
        ..Opening::default()
    };
    let one = open_with(&server.url(), with(Some(&keys))).await;
    let mut secret = record("t", TaskState::Working, 1);
    secret.pushes.push(Push {
        config: Some(pb::TaskPushNotificationConfig {
            id: "p".to_owned(),
            token: "very secret".to_owned(),
            ..Default::default()
        }),
        owed: false,
    });
    assert_eq!(outcome(&one, &secret, 0, Stage::AtWork).await, Outcome::Done);
    let dump = server
        .ask(&["HGETALL", "muster:{agent.default.puppet}:task:t"])
        .await;
    assert!(!dump.contains("very secret"), "{dump}");

    let other = open_with(&server.url(), with(Some(&keys))).await;
    assert_eq!(other.read("t").await.unwrap().unwrap().record, secret);
    let taken = wait_for("the lease of the first to end", PATIENCE, async || {
        assert!(matches!(other.beat().await, Ok(Beat::Alive { .. })));
        let (taken, _) = other.take(&one.name()).await.unwrap();
        if taken.is_empty() {
            Err("nothing")
        } else {
            Ok(taken)
        }
    })
    .await;
    assert_eq!(taken[0].record, secret);
    let wish = Wish::PutPush("t".to_owned(), Box::new(secret.pushes[0].config.clone().unwrap()));
    assert!(one.wish(&other.name(), &wish).await.unwrap());
    assert_eq!(other.wishes().await.unwrap(), [wish]);
    let dump = server
        .ask(&[
            "HGETALL",
            &format!("muster:{{agent.default.puppet}}:wishes:{}", other.name()),
        ])
        .await;
    assert!(!dump.contains("very secret"), "{dump}");

    let connection = Connection::new(server.url().parse().unwrap(), Options::default());
    let place = Place {
        prefix: "muster",
        namespace: "",
        agent: "puppet",
    };
    let clock = Arc::new(SystemClock::default());
    let refused = Redis::open(connection, place, None, BOUNDS, LONG, clock).await;
    let error = refused.err().unwrap();
    assert!(
        !error.passes() && error.to_string().contains("encryption_key_file"),
        "{error}"
    );
}

fn status(id: &str, state: TaskState, second: i64) -> pb::StreamResponse {
    let status = record(id, state, second).task.unwrap().status;
    pb::StreamResponse {
        payload: Some(pb::stream_response::Payload::StatusUpdate(
            pb::TaskStatusUpdateEvent {
                task_id: id.to_owned(),
                context_id: "c".to_owned(),
                status,
                metadata: None,
            },
        )),
    }
}

/// Writes what is new of a task in a table.
async fn sync(redis: &Redis, table: &mut Table, id: &str) {
    let Some(draft) = table.draft(id) else { return };
    let stage = draft.keep.as_ref().map(|keep| keep.stage).unwrap();
    assert_eq!(redis.write(vec![draft]).await.remove(0).unwrap(), Outcome::Done);
    table.written(id, stage);
}

#[tokio::test]
async fn events_are_read_in_their_order_beside_the_record_and_after_its_end() {
    let (_server, redis, mut table) = with_a_task().await;
    sync(&redis, &mut table, "t").await;
    let mut told = Vec::new();
    for second in 1..=5 {
        let event = status("t", TaskState::Working, second);
        assert!(table.publish("t", &Event::new(event.clone())));
        told.push(event);
        if second % 2 == 0 {
            sync(&redis, &mut table, "t").await;
        }
    }
    let stored = redis.read("t").await.unwrap().unwrap();
    assert_eq!((stored.number, stored.worker), (4, redis.name()));
    assert_eq!(stored.record.state(), TaskState::Working);
    assert_eq!(stored.record.time(), 4_000_000);
    let last = status("t", TaskState::Completed, 6);
    told.push(last.clone());
    table.settle("t", vec![last]).unwrap();
    sync(&redis, &mut table, "t").await;
    assert!(!table.holds("t"));
    let stored = redis.read("t").await.unwrap().unwrap();
    assert_eq!((stored.number, stored.worker.as_str()), (6, ""));
    for seen in 0..=6_usize {
        let news = redis.news("t", seen as u64).await.unwrap().unwrap();
        assert_eq!((news.number, news.state), (6, TaskState::Completed));
        let numbers: Vec<u64> = news.events.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, (seen as u64 + 1..=6).collect::<Vec<_>>());
        let events: Vec<_> = news.events.into_iter().map(|(_, event)| event).collect();
        assert_eq!(events, told[seen..]);
    }
    assert!(redis.news("nothing", 0).await.unwrap().is_none());
}

#[tokio::test]
async fn lists_of_all_instances_are_those_of_one_table() {
    let server = RedisServer::start().await;
    lists_are_those_of_the_table(&server.url()).await;
}

/// The same tasks in a table and in the store: the same pages.
async fn lists_are_those_of_the_table(url: &str) {
    const CALLERS: [&str; 3] = ["ada", "eve", ""];
    let lists = || Opening {
        agent: "lists",
        ..Opening::default()
    };
    let (redis, other) = (open_with(url, lists()).await, open_with(url, lists()).await);
    let mut table = Table::shared(BOUNDS);
    for number in 0..30_i64 {
        let id = format!("t{number:02}");
        let mut record = record(&id, TaskState::Working, number / 3);
        record.task.as_mut().unwrap().context_id = format!("c{}", number % 4);
        record.caller = CALLERS[usize::try_from(number).unwrap() % CALLERS.len()].to_owned();
        let owner = if number % 2 == 0 { &redis } else { &other };
        table
            .create(record, CancellationToken::new(), true, Duration::ZERO)
            .unwrap();
        if number % 5 == 0 {
            let mut end = status(&id, TaskState::Completed, 40 - number);
            if let Some(pb::stream_response::Payload::StatusUpdate(update)) = &mut end.payload {
                update.context_id = format!("c{}", number % 4);
            }
            table.settle(&id, vec![end]).unwrap().tell();
        }
        let draft = table.draft(&id).unwrap();
        assert_eq!(owner.write(vec![draft]).await.remove(0).unwrap(), Outcome::Done);
        table.failed(&id);
    }
    let requests = [
        pb::ListTasksRequest::default(),
        pb::ListTasksRequest {
            context_id: "c1".to_owned(),
            ..Default::default()
        },
        pb::ListTasksRequest {
            status: TaskState::Completed.into(),
            ..Default::default()
        },
        pb::ListTasksRequest {
            context_id: "c0".to_owned(),
            status: TaskState::Working.into(),
            status_timestamp_after: Some(prost_types::Timestamp { seconds: 4, nanos: 0 }),
            ..Default::default()
        },
        pb::ListTasksRequest {
            context_id: "nobody's".to_owned(),
            ..Default::default()
        },
    ];
    let whose = [Whose::All, Whose::Of("ada".into()), Whose::Of("mallory".into())];
    let asked = requests
        .iter()
        .flat_map(|request| whose.iter().map(move |whose| (request, whose)));
    for (request, whose) in asked {
        let mut request = pb::ListTasksRequest {
            page_size: Some(4),
            ..request.clone()
        };
        loop {
            let wanted = table.list(&request, whose.clone()).unwrap();
            let query = Query::read(&request, whose.clone()).unwrap();
            let (keys, total) = redis.list(&query).await.unwrap();
            let ids: Vec<&str> = keys.iter().take(query.size).map(|(_, id)| id.as_str()).collect();
            let wanted_ids: Vec<&str> = wanted.tasks.iter().map(|task| task.id.as_str()).collect();
            assert_eq!(ids, wanted_ids, "{request:?}");
            assert_eq!(i32::try_from(total).unwrap(), wanted.total_size, "{request:?}");
            assert_eq!(keys.len() > query.size, !wanted.next_page_token.is_empty());
            if wanted.next_page_token.is_empty() {
                break;
            }
            request.page_token = wanted.next_page_token;
        }
    }
}

#[tokio::test]
async fn wishes_reach_the_instance_and_are_told_once() {
    let server = RedisServer::start().await;
    let (one, other) = (open(&server.url()).await, open(&server.url()).await);
    let config = pb::TaskPushNotificationConfig {
        id: "a b".to_owned(),
        task_id: "t".to_owned(),
        url: "http://hook".to_owned(),
        ..Default::default()
    };
    let mut wishes = vec![
        Wish::Cancel("t".to_owned()),
        Wish::PutPush("t".to_owned(), Box::new(config)),
        Wish::RemovePush("t".to_owned(), "a b".to_owned()),
    ];
    for wish in &wishes {
        for _ in 0..2 {
            assert!(one.wish(&other.name(), wish).await.unwrap());
        }
    }
    let mut heard = other.wishes().await.unwrap();
    let by_name = |wish: &Wish| wish.encode().0;
    heard.sort_by_key(by_name);
    wishes.sort_by_key(by_name);
    assert_eq!(heard, wishes);
    for wish in &heard {
        other.heard(wish).await.unwrap();
    }
    assert!(other.wishes().await.unwrap().is_empty());
    assert!(!one.wish("nobody", &wishes[0]).await.unwrap());
}

#[tokio::test]
async fn without_redis_everything_is_refused_in_time_and_nothing_is_lost_by_its_restart() {
    let mut server = RedisServer::start().await;
    let opening = Opening {
        patience: Duration::from_millis(300),
        ..Opening::default()
    };
    let redis = open_with(&server.url(), opening).await;
    let at_work = record("t", TaskState::Working, 1);
    write(&redis, vec![draft(&at_work, 0, Stage::AtWork)]).await;
    server.kill().await;
    let done = record("t", TaskState::Completed, 2);
    let refused = redis.write(vec![draft(&done, 1, Stage::AtRest)]).await.remove(0);
    assert_eq!(refused.unwrap_err().reason, Reason::StoreUnavailable);
    let refused = redis.read("t").await.unwrap_err();
    assert!(refused.retry_after.is_some());
    assert!(redis.failure().is_some());
    server.restart().await;
    let stored = redis.read("t").await.unwrap().unwrap();
    assert_eq!((stored.record, stored.worker), (at_work, redis.name()));
    assert_eq!(outcome(&redis, &done, 1, Stage::AtRest).await, Outcome::Done);
}

#[tokio::test]
async fn who_leaves_is_followed_at_once() {
    let server = RedisServer::start().await;
    let (one, other) = (open(&server.url()).await, open(&server.url()).await);
    let name = one.name();
    write(
        &one,
        vec![draft(&record("t", TaskState::Working, 1), 0, Stage::AtWork)],
    )
    .await;
    one.leave().await;
    sees_the_end_of(&other, &name).await;
    assert_eq!(other.take(&name).await.unwrap().0.len(), 1);
    other.leave().await;
    // One that holds nothing leaves nothing.
    write_nothing_and_leave(&server.url()).await;
}

async fn write_nothing_and_leave(url: &str) {
    let third = open(url).await;
    let name = third.name();
    third.leave().await;
    let fourth = open(url).await;
    let Beat::Alive { ended, .. } = fourth.beat().await.unwrap() else {
        panic!("it lives")
    };
    assert!(!ended.contains(&name), "{ended:?}");
}
