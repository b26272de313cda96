//! The scenarios of the language's conformance kit (`ctk/features` of `serverlessworkflow/specification`), in documents of our
//! own: the same shape, the same steps, local services in place of public ones.
//!
//! Each test is one scenario, named after its feature. The kit's steps are the methods of [`Scenario`].

mod calls;

use muster_api::workflow::{HistoryEvent, RunError, RunStatus};
use serde_json::{Value, json};

use crate::harness::{Engine, document};

/// A scenario: the workflow has been executed.
struct Scenario {
    status: RunStatus,
    output: Value,
    error: Option<RunError>,
    history: Vec<HistoryEvent>,
}

impl Scenario {
    /// Given a workflow and its input, when it is executed.
    async fn executed(engine: &Engine, tasks: &str, input: Value) -> Self {
        let input = if input.is_null() {
            String::new()
        } else {
            input.to_string()
        };
        let run = engine.start_run(&document(tasks), "", &input).await.unwrap();
        let run = crate::harness::ended(engine, &run.run_id).await;
        Self {
            status: run.status(),
            output: serde_json::from_str(&run.output_json).unwrap_or_default(),
            error: run.error,
            history: engine.history(&run.run_id).await,
        }
    }

    /// Then the workflow should complete.
    #[track_caller]
    fn completes(&self) -> &Self {
        assert_eq!(self.status, RunStatus::Completed, "{:?}", self.error);
        self
    }

    /// Then the workflow should complete with output.
    #[track_caller]
    fn completes_with(&self, output: &Value) -> &Self {
        assert_eq!(&self.completes().output, output);
        self
    }

    /// Then the workflow should fault with error.
    #[track_caller]
    fn faults(&self) -> &RunError {
        assert_eq!(self.status, RunStatus::Faulted, "{}", self.output);
        self.error.as_ref().unwrap()
    }

    /// And the workflow output should have properties.
    #[track_caller]
    fn has_properties(&self, properties: &[&str]) -> &Self {
        for property in properties {
            let pointer = format!("/{}", property.replace('.', "/"));
            assert!(
                self.output.pointer(&pointer).is_some(),
                "{property} is not in {}",
                self.output
            );
        }
        self
    }

    /// The tasks in the order in which they began.
    fn ran(&self) -> Vec<&str> {
        let started = self.history.iter().filter(|event| event.r#type == "task.started");
        started
            .map(|event| event.task.rsplit('/').next().unwrap())
            .collect()
    }

    /// And this task should run first, this one last.
    #[track_caller]
    fn runs_first_and_last(&self, first: &str, last: &str) -> &Self {
        let ran = self.ran();
        assert_eq!((ran.first(), ran.last()), (Some(&first), Some(&last)), "{ran:?}");
        self
    }

    /// And each of these tasks should run after the one before.
    #[track_caller]
    fn runs_in_order(&self, tasks: &[&str]) {
        assert_eq!(self.ran(), tasks);
    }
}

/// Three tasks that each add a name to what was there.
const ADDING: &str = "
  - addAnn: {set: {names: '${ .names + [\"Ann\"] }'}}
  - addBob: {set: {names: '${ .names + [\"Bob\"] }'}}
  - addCem: {set: {names: '${ .names + [\"Cem\"] }'}}
";

#[tokio::test]
async fn emit_an_event() {
    let engine = Engine::start().await;
    let tasks = "  - tell: {emit: {event: {with: {source: 'https://shop.test', type: com.shop.guest.greeted.v1, data: {text: '${ \"Good day, \\(.guest.first) \\(.guest.last)\" }'}}}}}\n";
    let guest = json!({"guest": {"first": "Ann", "last": "Cem"}});
    let scenario = Scenario::executed(&engine, tasks, guest).await;
    let output = &scenario
        .has_properties(&["id", "specversion", "time", "source", "type", "data"])
        .completes()
        .output;
    assert_eq!(output["source"], "https://shop.test");
    assert_eq!(output["type"], "com.shop.guest.greeted.v1");
    assert_eq!(output["data"], json!({"text": "Good day, Ann Cem"}));
}

#[tokio::test]
async fn do_with_tasks_in_sequence() {
    let engine = Engine::start().await;
    let inner = ADDING.replace('\n', "\n      ");
    let tasks = format!("  - group:\n      do:{}\n", inner.trim_end());
    let scenario = Scenario::executed(&engine, &tasks, Value::Null).await;
    scenario.completes_with(&json!({"names": ["Ann", "Bob", "Cem"]}));
}

#[tokio::test]
async fn fork_with_competing_branches() {
    let engine = Engine::start().await;
    let inner = ADDING.replace('\n', "\n          ");
    let tasks = format!(
        "  - race:\n      fork:\n        compete: true\n        branches:{}\n",
        inner.trim_end()
    );
    let scenario = Scenario::executed(&engine, &tasks, Value::Null).await;
    assert_eq!(scenario.completes().output["names"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn flow_in_implicit_sequence() {
    let engine = Engine::start().await;
    let scenario = Scenario::executed(&engine, ADDING, Value::Null).await;
    scenario
        .completes_with(&json!({"names": ["Ann", "Bob", "Cem"]}))
        .runs_in_order(&["addAnn", "addBob", "addCem"]);
}

#[tokio::test]
async fn flow_in_explicit_sequence() {
    let engine = Engine::start().await;
    let tasks = "
  - addAnn: {set: {names: '${ .names + [\"Ann\"] }'}, then: addBob}
  - addCem: {set: {names: '${ .names + [\"Cem\"] }'}, then: end}
  - addBob: {set: {names: '${ .names + [\"Bob\"] }'}, then: addCem}
";
    let scenario = Scenario::executed(&engine, tasks, Value::Null).await;
    scenario
        .completes_with(&json!({"names": ["Ann", "Bob", "Cem"]}))
        .runs_in_order(&["addAnn", "addBob", "addCem"]);
}

#[tokio::test]
async fn for_with_a_named_item_and_the_default_index() {
    let engine = Engine::start().await;
    let tasks = "
  - each:
      for: {each: guest, in: .guests}
      do:
        - seat: {set: {seated: '${ {guests: (.seated.guests + [$guest]), seats: (.seated.seats + [$index])} }'}}
";
    let scenario = Scenario::executed(&engine, tasks, json!({"guests": ["Ann", "Bob", "Cem"]})).await;
    scenario.completes_with(&json!({"seated": {"guests": ["Ann", "Bob", "Cem"], "seats": [0, 1, 2]}}));
}

#[tokio::test]
async fn raise_an_error_that_is_written_inline() {
    let engine = Engine::start().await;
    let tasks = "
  - refuse: {raise: {error: {status: 400, type: 'https://errors.test/house-rules', title: House rules}}}
";
    let scenario = Scenario::executed(&engine, tasks, Value::Null).await;
    let error = scenario.faults();
    assert_eq!(
        (
            error.status,
            error.r#type.as_str(),
            error.title.as_str(),
            error.instance.as_str()
        ),
        (
            400,
            "https://errors.test/house-rules",
            "House rules",
            "/do/0/refuse"
        )
    );
}

#[tokio::test]
async fn set_to_constants_and_to_what_the_input_has() {
    let engine = Engine::start().await;
    let tasks = "
  - describe: {set: {form: table, seats: '${ .plan.seats }', cloth: '${ .plan.cloth }'}}
";
    let plan = json!({"plan": {"seats": {"long": 4, "short": 1}, "cloth": {"red": 7, "blue": 9}}});
    let scenario = Scenario::executed(&engine, tasks, plan).await;
    let described =
        json!({"form": "table", "seats": {"long": 4, "short": 1}, "cloth": {"red": 7, "blue": 9}});
    scenario.completes_with(&described);
}

/// A choice by the day, with what stands in place of `MORE` behind its cases and of `THEN` behind each task.
const CHOOSING: &str = "
  - byDay:
      switch:
        - friday: {when: '.day == \"friday\"', then: serveFish}
        - sunday: {when: '.day == \"sunday\"', then: serveRoast}
MORE
  - serveFish: {set: {menu: '${ .menu + [\"fish\"] }'}THEN}
  - serveRoast: {set: {menu: '${ .menu + [\"roast\"] }'}THEN}
  - serveOther: {set: {menu: '${ .menu + [$input.day] }'}}
";

#[tokio::test]
async fn switch_with_a_case_that_matches() {
    let engine = Engine::start().await;
    let tasks = CHOOSING.replace("MORE\n", "").replace("THEN", ", then: end");
    let scenario = Scenario::executed(&engine, &tasks, json!({"day": "friday"})).await;
    scenario
        .completes_with(&json!({"menu": ["fish"]}))
        .runs_first_and_last("byDay", "serveFish");
}

#[tokio::test]
async fn switch_whose_then_is_the_default() {
    let engine = Engine::start().await;
    let tasks = CHOOSING.replace("MORE", "      then: end").replace("THEN", "");
    let scenario = Scenario::executed(&engine, &tasks, json!({"day": "monday"})).await;
    scenario
        .completes_with(&json!({"day": "monday"}))
        .runs_first_and_last("byDay", "byDay");
}

#[tokio::test]
async fn switch_with_an_explicit_default() {
    let engine = Engine::start().await;
    let tasks = CHOOSING
        .replace("MORE", "        - anyOther: {then: serveOther}")
        .replace("THEN", "");
    let scenario = Scenario::executed(&engine, &tasks, json!({"day": "monday"})).await;
    scenario
        .completes_with(&json!({"menu": ["monday"]}))
        .runs_first_and_last("byDay", "serveOther");
}

#[tokio::test]
async fn data_flow_filters_the_input() {
    let engine = Engine::start().await;
    let tasks = "
  - seat: {input: {from: .booking.guest.name}, set: {name: '${ . }'}}
";
    let booking = json!({"booking": {"guest": {"name": "Ann"}}});
    let scenario = Scenario::executed(&engine, tasks, booking).await;
    scenario
        .completes_with(&json!({"name": "Ann"}))
        .has_properties(&["name"]);
}
