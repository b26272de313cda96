//! The planning agent as its callers see it: a real server on free ports, A2A over gRPC.

use a2a_pb::pbconv::{json_value_to_proto_value, proto_value_to_json_value};
use muster_a2a::grpc::Client;
use muster_agent_planning::{Config, defaults};
use muster_api::a2a::part::Content;
use muster_api::{a2a, extension};
use muster_runtime::{Listeners, Shutdown};
use serde_json::{Value, json};
use tokio::task::JoinSet;

struct Server {
    client: Client,
    shutdown: Shutdown,
    run: JoinSet<Result<(), muster_runtime::Error>>,
    next_message: u32,
}

impl Server {
    async fn start(mut config: Config) -> Self {
        config.agent.data_directory = std::path::PathBuf::new();
        let listeners = Listeners::ephemeral().expect("free ports");
        let url = format!("http://{}", listeners.data_address());
        let shutdown = Shutdown::new();
        let mut run = JoinSet::new();
        run.spawn(muster_agent_planning::run(config, listeners, shutdown.clone()));
        let endpoint = tonic::transport::Endpoint::from_shared(url).expect("a URL");
        let client = muster_a2a::grpc::client(endpoint.connect().await.expect("the agent listens"));
        Self {
            client,
            shutdown,
            run,
            next_message: 0,
        }
    }

    async fn ask(&mut self, skill: Option<&str>, content: Content) -> a2a::Task {
        self.next_message += 1;
        let message = a2a::Message {
            message_id: format!("m{}", self.next_message),
            role: a2a::Role::User.into(),
            parts: vec![a2a::Part {
                content: Some(content),
                ..Default::default()
            }],
            ..Default::default()
        };
        let request = a2a::SendMessageRequest {
            message: Some(message),
            ..Default::default()
        };
        let mut request = tonic::Request::new(request);
        if let Some(skill) = skill {
            let metadata = skill.parse().expect("ASCII");
            request.metadata_mut().insert(extension::SKILL_METADATA, metadata);
        }
        match self
            .client
            .send_message(request)
            .await
            .expect("an answer")
            .into_inner()
            .payload
        {
            Some(a2a::send_message_response::Payload::Task(task)) => task,
            other => panic!("no task: {other:?}"),
        }
    }

    async fn ask_json(&mut self, skill: &str, data: &Value) -> a2a::Task {
        self.ask(Some(skill), Content::Data(json_value_to_proto_value(data)))
            .await
    }

    async fn ask_text(&mut self, skill: Option<&str>, text: &str) -> a2a::Task {
        self.ask(skill, Content::Text(text.to_owned())).await
    }
}

fn result(task: &a2a::Task) -> Value {
    let status = task.status.as_ref().expect("a status");
    assert_eq!(status.state(), a2a::TaskState::Completed, "{status:?}");
    assert_eq!(task.artifacts[0].name, "result");
    match &task.artifacts[0].parts[0].content {
        Some(Content::Data(value)) => proto_value_to_json_value(value),
        other => panic!("no data: {other:?}"),
    }
}

/// The message of a rejected task, and the field that its metadata names.
fn rejection(task: &a2a::Task) -> (String, String) {
    let status = task.status.as_ref().expect("a status");
    assert_eq!(status.state(), a2a::TaskState::Rejected, "{status:?}");
    let message = status.message.as_ref().expect("a message");
    let text = match &message.parts[0].content {
        Some(Content::Text(text)) => text.clone(),
        other => panic!("no text: {other:?}"),
    };
    let metadata = message.metadata.as_ref().expect("metadata");
    (
        text,
        proto_value_to_json_value(&metadata.fields["field"])
            .as_str()
            .unwrap_or_default()
            .to_owned(),
    )
}

fn roof() -> Value {
    json!({
        "name": "Roof repair",
        "start_date": "2014-03-03",
        "avoid_dates": ["2014-03-05", "2014-03-06"],
        "tasks": [
            {"id": "survey", "duration_days": 1},
            {"id": "order", "duration_hours": 4, "depends_on": ["survey"]},
            {"id": "shingles", "duration_days": 3, "depends_on": ["order"], "weather_sensitive": true},
            {"id": "paint", "duration_days": 1, "depends_on": ["survey"]}
        ]
    })
}

#[tokio::test]
async fn a_plan_around_rainy_days_comes_back_with_dates_risks_and_a_table() {
    let mut server = Server::start(defaults()).await;
    let task = server.ask_json("timeline_estimation", &roof()).await;
    let plan = result(&task);
    assert_eq!(plan["finish_date"], "2014-03-09");
    assert_eq!(
        plan["tasks"][2]["interrupted_on"],
        json!(["2014-03-05", "2014-03-06"])
    );
    assert_eq!(plan["critical_path"], json!(["survey", "order", "shingles"]));
    assert_eq!(plan["milestones"][3]["percent"], 100.0);
    assert_eq!(plan["risks"][0]["task"], "shingles");
    assert_eq!(task.artifacts[1].name, "schedule.md");
    match &task.artifacts[0].parts[1].content {
        Some(Content::Text(summary)) => assert!(summary.contains("survey → order → shingles"), "{summary}"),
        other => panic!("no summary: {other:?}"),
    }
    server.shutdown.trigger();
    assert!(matches!(server.run.join_next().await, Some(Ok(Ok(())))));
}

#[tokio::test]
async fn a_person_types_a_list_and_needs_no_skill() {
    let mut server = Server::start(defaults()).await;
    let text = "Roof from 2014-03-03: survey 1d; order 4h after survey; roof 3d weather after order; avoid 2014-03-05";
    let plan = result(&server.ask_text(None, text).await);
    assert_eq!(
        (&plan["name"], &plan["finish_date"]),
        (&json!("Roof"), &json!("2014-03-08"))
    );
    let typed = result(
        &server
            .ask_text(Some("dependency_analysis"), &roof().to_string())
            .await,
    );
    assert_eq!(typed["waves"][1], json!(["order", "paint"]));
}

#[tokio::test]
async fn the_other_skills_answer_too() {
    let mut server = Server::start(defaults()).await;
    let mut request = roof();
    request["today"] = json!("2014-03-04");
    request["done"] = json!(["survey"]);
    let progress = result(&server.ask_json("progress_monitoring", &request).await);
    assert_eq!(
        (&progress["verdict"], &progress["days_behind"]),
        (&json!("behind"), &json!(0.5))
    );
    let optimized = result(&server.ask_json("plan_optimization", &roof()).await);
    assert!(!optimized["proposals"].as_array().unwrap().is_empty());
    let risks = result(&server.ask_json("risk_assessment", &roof()).await);
    assert_eq!(risks["risks"][0]["level"], "high");
    let resources = result(&server.ask_json("resource_planning", &roof()).await);
    assert_eq!(resources["overloads"], json!([]));
    let outline = json!({"outline": "Goal: Move\n1. Pack (1d)\n2. Drive (4h)"});
    let decomposed = result(&server.ask_json("goal_decomposition", &outline).await);
    assert_eq!(decomposed["tasks"][1]["depends_on"], json!(["pack"]));
}

#[tokio::test]
async fn bad_input_is_rejected_by_field() {
    type Bad = fn(&mut Value);
    let bad: [(&str, &str, Bad); 6] = [
        ("tasks[3].depends_on[0]", "did you mean 'survey'", |r| {
            r["tasks"][3]["depends_on"][0] = json!("survy")
        }),
        ("tasks[0].duration_days", "-2", |r| {
            r["tasks"][0]["duration_days"] = json!(-2)
        }),
        ("tasks[1].id", "unique", |r| r["tasks"][1]["id"] = json!("survey")),
        ("avoid_dates[0]", "no date", |r| {
            r["avoid_dates"][0] = json!("wet")
        }),
        ("tasks[0].depends_on", "survey → paint → survey", |r| {
            r["tasks"][0]["depends_on"] = json!(["paint"])
        }),
        ("tasks[0].length", "unknown field", |r| {
            r["tasks"][0]["length"] = json!(1)
        }),
    ];
    let mut server = Server::start(defaults()).await;
    for (field, hint, change) in bad {
        let mut request = roof();
        change(&mut request);
        let (message, named) = rejection(&server.ask_json("timeline_estimation", &request).await);
        assert_eq!(named, field, "{message}");
        assert!(message.contains(hint), "{message}");
    }
    let (message, field) = rejection(&server.ask_text(None, "- A (1d)\n- B (1d) after C").await);
    assert_eq!(field, "outline");
    assert!(message.contains("line 2"), "{message}");
    let (message, field) = rejection(&server.ask_text(None, "  ").await);
    assert_eq!(field, "message", "{message}");
    let (message, _) = rejection(&server.ask_text(None, "{\"tasks\": [").await);
    assert!(message.contains("begins like JSON"), "{message}");
}
