//! Events: published, emitted, listened for; over gRPC and over plain HTTP.

use muster_api::workflow as proto;
use muster_api::workflow::RunStatus;
use muster_api::workflow::event_service_client::EventServiceClient;
use muster_testkit::wait_for;
use serde_json::{Value, json};
use tonic::Status;
use tonic::transport::{Channel, Endpoint};

use crate::harness::{Engine, PATIENCE, document, reason};
use crate::why::details;

impl Engine {
    pub fn events(&self) -> EventServiceClient<Channel> {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address())).unwrap();
        EventServiceClient::new(endpoint.connect_lazy()).max_decoding_message_size(16 << 20)
    }

    /// Publishes an event of this type; its position.
    pub async fn publish(&self, kind: &str, data: Value) -> u64 {
        self.publish_event(json!({"source": "/tests", "type": kind, "data": data}))
            .await
            .unwrap()
            .position
    }

    pub async fn publish_event(&self, event: Value) -> Result<proto::Published, Status> {
        let request = proto::PublishEventsRequest {
            events_json: vec![event.to_string()],
        };
        let mut answer = self.events().publish_events(request).await?.into_inner();
        Ok(answer.events.remove(0))
    }

    /// All events of a type that are in the log.
    pub async fn logged(&self, kind: &str) -> Vec<Value> {
        let (mut events, mut page_token) = (Vec::new(), String::new());
        loop {
            let request = proto::ListEventsRequest {
                r#type: kind.into(),
                page_size: 2,
                page_token,
                ..Default::default()
            };
            let page = self.events().list_events(request).await.unwrap().into_inner();
            assert!(page.events.len() <= 2);
            let read = page.events.iter();
            events.extend(read.map(|event| serde_json::from_str::<Value>(&event.event_json).unwrap()));
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return events;
            }
        }
    }

    pub async fn completed(&self, id: &str) -> Value {
        let run = self.until(id, RunStatus::Completed).await;
        serde_json::from_str(&run.output_json).unwrap()
    }
}

const ONE: &str = "  - hear: {listen: {to: {one: {with: {type: a}}}}}\n";

#[tokio::test]
async fn a_run_waits_for_an_event_without_a_slot_and_says_for_which() {
    let engine = Engine::start().await;
    let tasks = "
  - hear:
      listen: {to: {one: {with: {type: paid}, correlate: {order: {from: .data.order, expect: '${ .id }'}}}}}
";
    engine
        .start_run(&document(tasks), "r", r#"{"id": 7}"#)
        .await
        .unwrap();
    let blocker = engine.until_blocked("r", "event").await;
    assert_eq!(blocker.task, "/do/0/hear");
    assert!(
        blocker
            .message
            .contains("waits for an event with type \"paid\", correlation order (.data.order) = 7"),
        "{blocker:?}"
    );
    assert_eq!(details(&blocker)["correlations"], json!({"order": 7}));
    wait_for("the run to hold no slot", PATIENCE, async || {
        let status = engine.status().await;
        if (status.running, status.waiting) == (0, 1) {
            Ok(())
        } else {
            Err(format!("{status:?}"))
        }
    })
    .await;
    assert_eq!(engine.run("r").await.status(), RunStatus::Waiting);

    engine.publish("paid", json!({"order": 8})).await;
    engine.publish("other", json!({"order": 7})).await;
    engine.publish("paid", json!({"order": 7, "sum": 3})).await;
    assert_eq!(engine.completed("r").await, json!([{"order": 7, "sum": 3}]));
}

#[tokio::test]
async fn nothing_is_lost_while_the_run_is_busy_or_the_engine_is_down() {
    let mut engine = Engine::start().await;
    engine.router.hold();
    let tasks = crate::harness::send("busy", "x")
        + "  - first: {listen: {to: {one: {with: {type: a}}}}, export: {as: .}}\n"
        + "  - second: {listen: {to: {all: [{with: {type: a}}, {with: {type: b}}]}}, output: {as: '$context + .'}}\n";
    engine.start_run(&document(&tasks), "busy", "").await.unwrap();
    engine.until_held(1).await;
    engine.publish("a", json!(1)).await;
    engine.publish("a", json!(2)).await;
    engine.restart().await;
    engine.router.release_all();
    engine.until_blocked("busy", "event").await;
    engine.restart().await;
    engine.publish("b", json!(3)).await;
    assert_eq!(engine.completed("busy").await, json!([1, 2, 3]));
    let history = engine.history("busy").await;
    let heard = history.iter().filter(|event| event.r#type == "event.consumed");
    assert_eq!(heard.count(), 3);
}

#[tokio::test]
async fn a_run_hears_what_comes_once_it_is_accepted_and_nothing_from_before() {
    let engine = Engine::start().await;
    engine.publish("a", json!("before")).await;
    engine.start_run(&document(ONE), "r", "").await.unwrap();
    engine.publish("a", json!("after")).await;
    assert_eq!(engine.completed("r").await, json!(["after"]));
}

#[tokio::test]
async fn one_run_emits_what_others_wait_for() {
    let engine = Engine::start().await;
    let listener = document(
        "  - hear: {listen: {to: {one: {with: {type: com.test.done, source: 'https://.*'}}}, read: envelope}, output: {as: '.[0]'}}\n",
    );
    for id in ["one", "two"] {
        engine.start_run(&listener, id, "").await.unwrap();
    }
    let emitter = document(
        "  - tell: {emit: {event: {with: {source: 'https://test.test', type: com.test.done, data: {n: '${ .n }'}}}}}\n",
    );
    let emitted = engine.output(&emitter, r#"{"n": 5}"#).await;
    assert_eq!(emitted["data"], json!({"n": 5}));
    for id in ["one", "two"] {
        assert_eq!(engine.completed(id).await, emitted);
    }
    assert_eq!(engine.logged("com.test.done").await, [emitted]);
}

#[tokio::test]
async fn events_are_heard_until_something_and_each_is_worked_on_in_order() {
    let mut engine = Engine::start().await;
    let tasks = "
  - hear:
      listen: {to: {any: [{with: {type: 'order\\..*'}}], until: {one: {with: {type: closing}}}}}
      foreach:
        item: order
        do:
          - nap: {wait: {milliseconds: 20}}
          - keep: {set: {n: '${ $order.n }', i: '${ $index }'}}
        output: {as: '[.n, .i]'}
";
    engine.start_run(&document(tasks), "r", "").await.unwrap();
    for n in 0..4 {
        engine.publish(&format!("order.{n}"), json!({"n": n})).await;
    }
    engine.restart().await;
    engine.publish("order.last", json!({"n": 4})).await;
    engine.publish("closing", json!({})).await;
    engine.publish("order.late", json!({"n": 5})).await;
    assert_eq!(
        engine.completed("r").await,
        json!([[0, 0], [1, 1], [2, 2], [3, 3], [4, 4]])
    );
}

#[tokio::test]
async fn a_listen_times_out_and_is_cancelled() {
    let engine = Engine::start().await;
    let tasks = "
  - guarded:
      try: [{hear: {listen: {to: {one: {with: {type: a}}}}, timeout: {after: {milliseconds: 20}}}}]
      catch: {errors: {with: {status: 408}}, do: [{late: {set: {late: true}}}]}
";
    assert_eq!(engine.output(&document(tasks), "").await, json!({"late": true}));
    engine.start_run(&document(ONE), "r", "").await.unwrap();
    engine.until_blocked("r", "event").await;
    engine.cancel("r").await.unwrap();
    assert_eq!(engine.run("r").await.status(), RunStatus::Cancelled);
    engine.publish("a", json!(1)).await;
    let failing = document(
        "  - hear:\n      listen: {to: {one: {with: {type: b}}}}\n      foreach: {do: [{bad: {raise: {error: {type: 'about:blank', status: 500, title: Bad}}}}]}\n",
    );
    engine.start_run(&failing, "f", "").await.unwrap();
    engine.publish("b", json!(1)).await;
    let run = engine.until("f", RunStatus::Faulted).await;
    assert_eq!(run.error.unwrap().instance, "/do/0/hear/foreach/do/0/bad");
}

#[tokio::test]
async fn many_runs_wait_for_their_own_event_and_each_gets_it() {
    let engine = Engine::start_with(|settings| settings.max_concurrent_workflows = 3).await;
    let tasks = "
  - hear:
      listen: {to: {one: {with: {type: paid}, correlate: {order: {from: .data.order, expect: '${ .id }'}}}}}
";
    for id in 0..30 {
        let input = json!({"id": id}).to_string();
        engine
            .start_run(&document(tasks), &format!("r{id}"), &input)
            .await
            .unwrap();
    }
    for id in (0..30).rev() {
        engine.publish("paid", json!({"order": id})).await;
    }
    for id in 0..30 {
        assert_eq!(engine.completed(&format!("r{id}")).await, json!([{"order": id}]));
    }
}

#[tokio::test]
async fn an_event_is_known_by_source_and_id_and_what_is_none_is_refused() {
    let mut engine = Engine::start_with(|settings| settings.events.max_event_bytes = 2_000).await;
    let event = json!({"id": "1", "source": "/tests", "type": "a", "data": 1});
    let first = engine.publish_event(event.clone()).await.unwrap();
    assert!(!first.duplicate);
    engine.restart().await;
    let again = engine.publish_event(event.clone()).await.unwrap();
    assert_eq!((again.position, again.duplicate), (first.position, true));
    let other = json!({"id": "1", "source": "/other", "type": "a", "data": 1});
    assert!(!engine.publish_event(other).await.unwrap().duplicate);
    assert_eq!(engine.logged("a").await.len(), 2);

    for (event, message) in [
        (json!({"type": "a"}), "'source' is missing"),
        (
            json!({"source": "/t", "type": "a", "orderId": 1}),
            "'orderId' is no name of an attribute",
        ),
        (json!([]), "must be a JSON object"),
        (
            json!({"source": "/t", "type": "a", "data": "x".repeat(3_000)}),
            "engine.events.max_event_bytes",
        ),
    ] {
        let refused = engine.publish_event(event).await.unwrap_err();
        assert_eq!(reason(&refused), "INVALID_FIELD");
        assert!(refused.message().contains(message), "{refused}");
    }
    let tasks = "  - tell: {emit: {event: {with: {source: /t, type: t, data: '${ .text }'}}}}\n";
    let input = json!({"text": "x".repeat(3_000)}).to_string();
    engine.start_run(&document(tasks), "large", &input).await.unwrap();
    let run = engine.until("large", RunStatus::Faulted).await;
    assert!(
        run.error
            .unwrap()
            .detail
            .contains("engine.events.max_event_bytes")
    );
}

#[tokio::test]
async fn the_log_keeps_as_many_as_it_may() {
    let engine = Engine::start_with(|settings| settings.events.max_events = 5).await;
    for n in 0..8 {
        engine.publish("a", json!(n)).await;
    }
    let kept: Vec<Value> = engine
        .logged("")
        .await
        .iter()
        .map(|event| event["data"].clone())
        .collect();
    assert!(kept.len() <= 5 && kept.last() == Some(&json!(7)), "{kept:?}");
}

#[tokio::test]
async fn the_log_is_followed_from_a_position_or_from_now() {
    let engine = Engine::start().await;
    let second = {
        engine.publish("a", json!(1)).await;
        engine.publish("a", json!(2)).await
    };
    let watch = async |from_position| {
        let request = proto::WatchEventsRequest {
            r#type: "a".into(),
            source: String::new(),
            from_position,
        };
        engine.events().watch_events(request).await.unwrap().into_inner()
    };
    let (mut replayed, mut live) = (watch(Some(second)).await, watch(None).await);
    engine.publish("b", json!(0)).await;
    engine.publish("a", json!(3)).await;
    let data = async |stream: &mut tonic::Streaming<proto::WatchEventsResponse>| {
        let event = stream.message().await.unwrap().unwrap().event.unwrap();
        serde_json::from_str::<Value>(&event.event_json).unwrap()["data"].clone()
    };
    assert_eq!(
        [data(&mut replayed).await, data(&mut replayed).await],
        [json!(2), json!(3)]
    );
    assert_eq!(data(&mut live).await, json!(3));
}

/// Events of one request, of requests one after the other, and of publishers.
const AT_ONCE: u64 = 50;
const IN_A_ROW: u64 = 10;
const PUBLISHERS: u64 = 3;

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn whoever_follows_the_log_while_many_publish_misses_nothing() {
    let engine = Engine::start().await;
    let all = PUBLISHERS * IN_A_ROW * (AT_ONCE + 1);
    let text = document(&format!(
        "  - hear: {{listen: {{to: {{any: [{{with: {{type: a}}}}], until: 'length == {all}'}}}}, output: {{as: 'map(.n) | unique | length'}}}}\n"
    ));
    engine.start_run(&text, "listener", "").await.unwrap();
    engine.until_blocked("listener", "event").await;
    let mut work = tokio::task::JoinSet::new();
    for follower in 0..3 {
        let request = proto::WatchEventsRequest {
            r#type: if follower == 0 { String::new() } else { "a".into() },
            from_position: Some(1),
            ..Default::default()
        };
        let mut stream = engine.events().watch_events(request).await.unwrap().into_inner();
        work.spawn(async move {
            for expected in 1..=all {
                let event = stream.message().await.unwrap().unwrap().event.unwrap();
                assert_eq!(event.position, expected, "follower {follower}");
            }
        });
    }
    for publisher in 0..PUBLISHERS {
        let mut events = engine.events();
        work.spawn(async move {
            for request in 0..2 * IN_A_ROW {
                // A large one and a small one in turns.
                let count = if request % 2 == 0 { AT_ONCE } else { 1 };
                let published = (0..count).map(|index| {
                    let number = (publisher * 2 * IN_A_ROW + request) * AT_ONCE + index;
                    json!({"source": "/tests", "type": "a", "id": number.to_string(), "data": {"n": number}})
                        .to_string()
                });
                let request = proto::PublishEventsRequest {
                    events_json: published.collect(),
                };
                events.publish_events(request).await.unwrap();
            }
        });
    }
    let ended = tokio::time::timeout(2 * PATIENCE, work.join_all()).await;
    ended.expect("all is published and heard");
    assert_eq!(engine.completed("listener").await, json!(all));
}

#[tokio::test]
async fn what_becomes_of_runs_is_told_where_that_is_wanted() {
    let engine = Engine::start_with(|settings| {
        settings.events.lifecycle = muster_workflow_engine::config::Lifecycle::Tasks;
    })
    .await;
    let listener = document(
        "  - hear: {listen: {to: {one: {with: {type: io.serverlessworkflow.workflow.completed.v1, subject: told}}}}, output: {as: '.[0].output'}}\n",
    );
    engine.start_run(&listener, "listener", "").await.unwrap();
    engine.until_blocked("listener", "event").await;
    engine
        .start_run(&document("  - one: {set: {n: 1}}\n"), "told", "")
        .await
        .unwrap();
    assert_eq!(engine.completed("listener").await, json!({"n": 1}));
    let started = engine.logged("io.serverlessworkflow.workflow.started.v1").await;
    let told = started.iter().find(|event| event["subject"] == "told").unwrap();
    assert_eq!(told["data"]["definition"]["version"], "1.0.0");
    assert_eq!(told["data"]["name"], "test-told.test");
    let tasks = engine.logged("io.serverlessworkflow.task.completed.v1").await;
    assert!(tasks.iter().any(|event| event["data"]["task"] == "/do/0/one"));
}

/// What was told of the tasks of a run: the last part of each pointer with what happened to it, in order.
async fn told_of_tasks(engine: &Engine, run: &str) -> Vec<(String, Value)> {
    let events = engine.logged("").await;
    let of_run = events.into_iter().filter(|event| event["subject"] == run);
    let told = of_run.filter_map(|event| {
        let kind = event["type"]
            .as_str()?
            .strip_prefix("io.serverlessworkflow.task.")?;
        let kind = kind.strip_suffix(".v1")?;
        let task = event["data"]["task"].as_str()?.rsplit('/').next()?;
        let kind = match event["data"]["status"].as_str() {
            Some(status) => format!("is {status}"),
            None => kind.to_owned(),
        };
        Some((format!("{task} {kind}"), event["data"].clone()))
    });
    told.collect()
}

async fn telling() -> Engine {
    Engine::start_with(|settings| {
        settings.events.lifecycle = muster_workflow_engine::config::Lifecycle::Tasks;
    })
    .await
}

fn lines(told: &[(String, Value)]) -> Vec<&str> {
    told.iter().map(|(line, _)| line.as_str()).collect()
}

const RESTS: &str = "  - around: {do: [{rest: {wait: {hours: 1}}}]}\n";

const BEGUN: [&str; 7] = [
    "around created",
    "around started",
    "around is running",
    "rest created",
    "rest started",
    "rest is running",
    "rest is waiting",
];

#[tokio::test]
async fn tasks_that_are_held_go_on_and_are_cancelled_are_told() {
    let engine = telling().await;
    engine.start_run(&document(RESTS), "held", "").await.unwrap();
    engine.until_blocked("held", "timer").await;
    engine.pause("held").await.unwrap();
    engine.resume("held").await.unwrap();
    engine.until_blocked("held", "timer").await;
    engine.cancel("held").await.unwrap();
    engine.until("held", RunStatus::Cancelled).await;
    let told = told_of_tasks(&engine, "held").await;
    let expected = [
        "around suspended",
        "around is suspended",
        "rest suspended",
        "rest is suspended",
        "around resumed",
        "around is running",
        "rest resumed",
        "rest is waiting",
        "rest cancelled",
        "rest is cancelled",
        "around cancelled",
        "around is cancelled",
    ];
    assert_eq!(lines(&told), [&BEGUN[..], &expected[..]].concat());
    for (line, field) in [
        ("rest suspended", "suspendedAt"),
        ("rest resumed", "resumedAt"),
        ("rest cancelled", "cancelledAt"),
    ] {
        let (_, data) = told.iter().find(|(told, _)| told == line).unwrap();
        assert!(data[field].is_string(), "{data}");
        assert_eq!(data["workflow"], "test-held.test");
        assert_eq!(data["task"], "/do/0/around/do/0/rest");
    }
}

#[tokio::test]
async fn tasks_that_end_with_another_are_told_as_cancelled() {
    let engine = telling().await;
    engine.start_run(&document(RESTS), "ended", "").await.unwrap();
    engine.until_blocked("ended", "timer").await;
    engine.terminate("ended").await.unwrap();
    engine.until("ended", RunStatus::Cancelled).await;
    let gone = [
        "rest cancelled",
        "rest is cancelled",
        "around cancelled",
        "around is cancelled",
    ];
    let told = told_of_tasks(&engine, "ended").await;
    assert_eq!(lines(&told), [&BEGUN[..], &gone[..]].concat());

    let late = format!("{}timeout: {{after: {{milliseconds: 50}}}}\n", document(RESTS));
    engine.start_run(&late, "late", "").await.unwrap();
    engine.until("late", RunStatus::Faulted).await;
    let told = told_of_tasks(&engine, "late").await;
    assert_eq!(lines(&told), [&BEGUN[..], &gone[..]].concat());

    let race =
        "  - race: {fork: {compete: true, branches: [{slow: {wait: {hours: 1}}}, {fast: {set: {n: 1}}}]}}\n";
    engine.start_run(&document(race), "race", "").await.unwrap();
    assert_eq!(engine.completed("race").await, json!({"n": 1}));
    let told = told_of_tasks(&engine, "race").await;
    let end = [
        "slow cancelled",
        "slow is cancelled",
        "fast completed",
        "fast is completed",
        "race completed",
        "race is completed",
    ];
    assert_eq!(lines(&told)[lines(&told).len() - end.len()..], end);
}

#[tokio::test]
async fn what_every_kind_of_task_yields_is_told_and_what_was_correlated() {
    let engine = telling().await;
    let kinds = "
  - rest: {wait: {milliseconds: 5}}
  - steps: {do: [{one: {set: {n: 1}}}]}
  - both: {fork: {branches: [{two: {set: {n: 2}}}]}}
  - tried: {try: [{three: {set: {n: 3}}}], catch: {}}
  - hear: {listen: {to: {one: {with: {type: a}, correlate: {key: {from: .data.key}, known: {from: .data.known, expect: k}}}}}, foreach: {do: [{work: {set: {n: 4}}}]}}
";
    engine
        .start_run(&document(&kinds[1..]), "kinds", r#"{"in": 0}"#)
        .await
        .unwrap();
    engine.until_blocked("kinds", "event").await;
    engine.publish("a", json!({"key": 7, "known": "k"})).await;
    engine.completed("kinds").await;
    let told = told_of_tasks(&engine, "kinds").await;
    for (task, output) in [
        ("rest", json!({"in": 0})),
        ("steps", json!({"n": 1})),
        ("both", json!([{"n": 2}])),
        ("tried", json!({"n": 3})),
        ("hear", json!([{"n": 4}])),
    ] {
        let line = format!("{task} completed");
        let (_, data) = told.iter().find(|(told, _)| *told == line).unwrap();
        assert_eq!(data["output"], output, "{line}");
    }
    let phases: Vec<&str> = lines(&told)
        .into_iter()
        .filter(|line| line.starts_with("hear is"))
        .collect();
    assert_eq!(
        phases,
        [
            "hear is running",
            "hear is waiting",
            "hear is running",
            "hear is completed"
        ]
    );
    let correlated = engine
        .logged("io.serverlessworkflow.workflow.correlation-completed.v1")
        .await;
    assert_eq!(
        correlated[0]["data"]["correlationKeys"],
        json!({"key": 7, "known": "k"})
    );
}
