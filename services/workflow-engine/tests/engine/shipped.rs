//! The workflows that come with Muster (`services/muster/examples/`), crashed after every entry and failed at every step.
//!
//! What agents answer to them is recorded in `shipped/NAME.json`, from Muster's own agents; it never changes by itself. A new
//! example, or one that asks something else, is recorded by
//! `MUSTER_ROUTER_URL=http://127.0.0.1:7402 cargo test --workspace --test engine -- --ignored shipped` beside a `muster dev`.
//! What becomes of an example when one of its steps fails is said at its head, and in [`becomes`].

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use muster_api::a2a;
use muster_api::a2a::a2a_service_client::A2aServiceClient;
use muster_api::workflow::{HistoryEvent, Run, RunStatus};
use muster_testkit::{Answer, Call};
use prost::Message as _;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::crashes::recovers;
use crate::harness::{Engine, ended};

/// What becomes of a run when agents with this skill fail all the time.
enum Becomes {
    /// It faults at the task that asked, and nothing is compensated.
    Faulted,
    /// The task is tried so many times, and the run goes on without its answer.
    WithoutIt { attempts: usize },
}

/// As the head of each example says it.
fn becomes(example: &str, skill: &str) -> Becomes {
    match (example, skill) {
        ("resilience", "weather_forecasting") => Becomes::WithoutIt { attempts: 3 },
        ("resilience" | "trip" | "incident", _) => Becomes::Faulted,
        _ => panic!("say what becomes of {example} when {skill} fails: at its head, and here"),
    }
}

/// One answer of an agent.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Recorded {
    skill: String,
    data: Value,
    /// The task as it is encoded, in base64.
    task: String,
}

/// An example: its document, its input, and what agents answer to it.
struct Example {
    name: String,
    document: String,
    input: String,
    answers: Vec<Recorded>,
}

fn answers_of(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/engine/shipped");
    folder.join(format!("{name}.json"))
}

/// Every document in the directory, so that a new one is here by itself.
fn examples() -> Vec<Example> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../muster/examples");
    let files = fs::read_dir(&folder).unwrap();
    let paths = files.map(|entry| entry.unwrap().path());
    let documents = paths.filter(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    let examples = documents.map(|path| {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let answers = fs::read_to_string(answers_of(&name)).unwrap_or_else(|_| "[]".to_owned());
        Example {
            document: fs::read_to_string(&path).unwrap(),
            input: fs::read_to_string(path.with_extension("json")).unwrap(),
            answers: serde_json::from_str(&answers).unwrap(),
            name,
        }
    });
    let mut examples: Vec<Example> = examples.collect();
    assert!(!examples.is_empty());
    examples.sort_by(|one, other| one.name.cmp(&other.name));
    examples
}

/// Of which skill something is asked, and what.
fn asked(call: &Call) -> (String, String) {
    let skill = call.tenant.strip_prefix("skill:").unwrap_or(&call.tenant);
    (
        skill.to_owned(),
        call.data.clone().unwrap_or_default().to_string(),
    )
}

fn task(recorded: &Recorded) -> a2a::Task {
    let bytes = STANDARD.decode(&recorded.task).unwrap();
    a2a::Task::decode(bytes.as_slice()).unwrap()
}

impl Example {
    /// What was recorded; where nothing was, the call fails, and is kept among `unknown`.
    fn answer(&self, unknown: &Arc<Mutex<Vec<Call>>>) -> impl Fn(&Call) -> Answer + Send + Sync + use<> {
        let key = |recorded: &Recorded| (recorded.skill.clone(), recorded.data.to_string());
        let known: BTreeMap<(String, String), a2a::Task> = self
            .answers
            .iter()
            .map(|recorded| (key(recorded), task(recorded)))
            .collect();
        let unknown = Arc::clone(unknown);
        move |call| match known.get(&asked(call)) {
            Some(task) => {
                let payload = a2a::stream_response::Payload::Task(task.clone());
                Answer::Events(vec![Ok(a2a::StreamResponse {
                    payload: Some(payload),
                })])
            }
            None => {
                unknown.lock().unwrap().push(call.clone());
                Answer::Task(a2a::TaskState::Failed, "nothing is recorded for this".to_owned())
            }
        }
    }

    /// An engine with agents that answer as was recorded, but for those calls for which `fails` says so.
    async fn engine(&self, fails: impl Fn(&Call) -> bool + Send + Sync + 'static) -> Engine {
        let engine = Engine::start().await;
        let (unknown, name) = (Arc::default(), self.name.clone());
        let answer = self.answer(&unknown);
        engine.router.fall_back_to(Answer::compute(move |call| {
            if fails(call) {
                return Answer::Task(a2a::TaskState::Failed, "out of order".to_owned());
            }
            let answer = answer(call);
            let is_known = unknown.lock().unwrap().is_empty();
            assert!(is_known, "{name} asks {} what is not recorded", asked(call).0);
            answer
        }));
        engine
    }

    async fn run(&self, engine: &Engine) -> Run {
        engine
            .start_run(&self.document, "whole", &self.input)
            .await
            .unwrap();
        ended(engine, "whole").await
    }

    /// What it asks, once each, in order of the first time.
    fn asks(&self, engine: &Engine) -> Vec<(String, String)> {
        let mut seen = BTreeSet::new();
        let calls = engine.router.calls();
        let asks = calls.iter().map(asked);
        asks.filter(|asked| seen.insert(asked.clone())).collect()
    }
}

#[tokio::test]
async fn a_crash_after_any_entry_changes_nothing_of_a_shipped_workflow() {
    for example in examples() {
        let engine = example.engine(|_| false).await;
        let run = example.run(&engine).await;
        completed(&example, &run);
        recovers(engine, 0).await;
    }
}

#[tokio::test]
async fn a_step_of_a_shipped_workflow_that_fails_comes_to_what_its_head_says() {
    for example in examples() {
        let whole = example.engine(|_| false).await;
        let expected = example.run(&whole).await;
        let asks = example.asks(&whole);
        assert!(!asks.is_empty(), "{}", example.name);
        for ask in asks {
            fails_once(&example, &ask, &expected).await;
            fails_always(&example, &ask).await;
        }
    }
}

/// The first message that asks this fails, whenever it is delivered, and no other.
async fn fails_once(example: &Example, ask: &(String, String), expected: &Run) {
    let (ask_of, first) = (ask.clone(), Mutex::new(None::<String>));
    let engine = example
        .engine(move |call| {
            asked(call) == ask_of && {
                let mut first = first.lock().unwrap();
                *first.get_or_insert_with(|| call.message_id.clone()) == call.message_id
            }
        })
        .await;
    let run = example.run(&engine).await;
    match becomes(&example.name, &ask.0) {
        Becomes::Faulted => faulted(example, ask, &engine, &run).await,
        Becomes::WithoutIt { .. } => {
            completed(example, &run);
            assert_eq!(
                run.output_json, expected.output_json,
                "{}: {}",
                example.name, ask.0
            );
        }
    }
}

/// Whatever asks this fails.
async fn fails_always(example: &Example, ask: &(String, String)) {
    let ask_of = ask.clone();
    let engine = example.engine(move |call| asked(call) == ask_of).await;
    let run = example.run(&engine).await;
    match becomes(&example.name, &ask.0) {
        Becomes::Faulted => faulted(example, ask, &engine, &run).await,
        Becomes::WithoutIt { attempts } => {
            completed(example, &run);
            let calls = engine.router.calls();
            let made = calls.iter().filter(|call| asked(call) == *ask).count();
            assert_eq!(made, attempts, "{}: {}", example.name, ask.0);
            assert!(run.output_json.contains("out of order"), "{}", run.output_json);
        }
    }
}

fn completed(example: &Example, run: &Run) {
    assert_eq!(
        run.status(),
        RunStatus::Completed,
        "{}: {:?}",
        example.name,
        run.error
    );
}

async fn faulted(example: &Example, ask: &(String, String), engine: &Engine, run: &Run) {
    let what = format!("{}: {}", example.name, ask.0);
    assert_eq!(run.status(), RunStatus::Faulted, "{what}");
    let error = run.error.as_ref().unwrap();
    assert_eq!(
        (error.r#type.as_str(), error.status),
        ("https://serverlessworkflow.io/spec/1.0.0/errors/runtime", 500),
        "{what}: {error:?}"
    );
    assert!(error.detail.contains("out of order"), "{what}: {error:?}");
    assert_eq!(run.compensation, None, "{what}: nothing was to be taken back");
    let history = engine.history("whole").await;
    let failed = |event: &HistoryEvent| event.r#type == "task.faulted" && event.task == error.instance;
    assert!(history.iter().any(failed), "{what}: {}", error.instance);
    let calls = engine.router.calls();
    let made = calls.iter().filter(|call| asked(call) == *ask).count();
    assert_eq!(made, 1, "{what} is not tried again");
}

#[tokio::test]
#[ignore = "records what agents answer, beside a running `muster dev`"]
async fn shipped_workflows_are_recorded() {
    let router = std::env::var("MUSTER_ROUTER_URL").unwrap();
    let mut agents = A2aServiceClient::connect(router).await.unwrap();
    for mut example in examples() {
        loop {
            let engine = Engine::start().await;
            let unknown: Arc<Mutex<Vec<Call>>> = Arc::default();
            engine
                .router
                .fall_back_to(Answer::compute(example.answer(&unknown)));
            example.run(&engine).await;
            let asks = std::mem::take(&mut *unknown.lock().unwrap());
            if asks.is_empty() {
                break;
            }
            for call in asks {
                let (skill, data) = asked(&call);
                let mut request = tonic::Request::new(call.request.clone());
                request.get_mut().tenant = format!("skill:{skill}");
                let answer = agents.send_message(request).await.unwrap().into_inner();
                let Some(a2a::send_message_response::Payload::Task(task)) = answer.payload else {
                    panic!("{skill} answers without a task");
                };
                let recorded = Recorded {
                    skill,
                    data: serde_json::from_str(&data).unwrap(),
                    task: STANDARD.encode(task.encode_to_vec()),
                };
                if !example
                    .answers
                    .iter()
                    .any(|known| known.data == recorded.data && known.skill == recorded.skill)
                {
                    example.answers.push(recorded);
                }
            }
        }
        let path = answers_of(&example.name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(
            path,
            serde_json::to_string_pretty(&example.answers).unwrap() + "\n",
        )
        .unwrap();
    }
}
