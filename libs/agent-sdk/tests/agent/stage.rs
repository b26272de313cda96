//! A running agent that does on command what agents do.

use std::time::Duration;

use a2a_pb::proto as pb;
use muster_a2a::grpc::Client;
use muster_agent_sdk::{
    Agent, Artifact, Card, Config, Failure, NoSettings, Part, Reply, Request, Skill, Task, run,
};
use muster_runtime::{Listeners, Shutdown};
use muster_testkit::wait_for;
use serde_json::json;
use tokio::task::JoinSet;

pub const PATIENCE: Duration = Duration::from_secs(20);

/// Does what the first word of the text says.
pub struct Puppet;

impl Agent for Puppet {
    fn card(&self) -> Card {
        Card::new("puppet", "Puppet", "Does what it is told", "1.2.3")
            .skill(Skill::new("act", "Act", "Acts").tags(["test"]).idempotent())
            .skill(Skill::new("order", "Order", "Has effects"))
    }

    async fn handle(&self, request: Request, task: Task) -> Result<Reply, Failure> {
        let heard: Vec<String> = task
            .history()
            .iter()
            .filter_map(|message| message.text().map(str::to_owned))
            .collect();
        if request.text().starts_with("again") {
            return Ok(Reply::input_required("and now?"));
        }
        if !heard.is_empty() {
            return Ok(Reply::completed("thank you").data(json!({ "heard": heard, "now": request.text() })));
        }
        match request.text() {
            "ask" => Ok(Reply::input_required("which city?").data(json!({ "known": ["Seattle"] }))),
            "wait" => {
                task.working("waiting").await;
                task.cancelled().await;
                Ok(Reply::completed("stopped"))
            }
            "ignore" => {
                task.working("ignoring").await;
                std::future::pending().await
            }
            "panic" => panic!("secret words"),
            "where" => Ok(Reply::completed(task.conversation())),
            "fail" => Err(Failure::failed("the instrument broke")),
            "reject" => Err(Failure::invalid_field("days", "at most 366")),
            "huge" => Ok(Reply::completed("x".repeat(5 << 20))),
            "artifacts" => {
                task.artifact(Artifact::text("log", "line 1")).await;
                let chart = Artifact::file("chart.svg", "image/svg+xml", "<svg/>").description("a chart");
                Ok(Reply::completed("drawn")
                    .data(json!({ "points": 3 }))
                    .artifact(chart))
            }
            "pieces" => {
                let mut text = task.open(Artifact::text("text", "one")).await;
                text.append(Part::text("two")).await;
                text.finish(Part::text("three")).await;
                Ok(Reply::completed("told"))
            }
            "many" => {
                for step in 0..500 {
                    task.working(format!("step {step}")).await;
                }
                Ok(Reply::completed("counted"))
            }
            text => Ok(Reply::completed(format!("echo {text}")).data(json!({
                "data": request.data(),
                "skill": request.skill,
                "files": request.files().len(),
            }))),
        }
    }
}

/// A puppet that serves.
pub struct Stage {
    pub address: std::net::SocketAddr,
    pub health: std::net::SocketAddr,
    pub metrics: std::net::SocketAddr,
    shutdown: Shutdown,
    served: JoinSet<Result<(), muster_runtime::Error>>,
}

impl Stage {
    /// Serves with these changes of the configuration; waits until it answers.
    pub async fn open(change: impl FnOnce(&mut Config<NoSettings>)) -> Self {
        let mut config = Config::<NoSettings>::on_ports(0, 0, 0);
        config.agent.registry_url = "http://127.0.0.1:1".to_owned();
        config.agent.data_directory = std::path::PathBuf::new();
        config.server.drain_timeout_seconds = 2;
        change(&mut config);
        let listeners = Listeners::ephemeral().unwrap();
        let shutdown = Shutdown::new();
        let (address, health, metrics) = (
            listeners.data_address(),
            listeners.health_address(),
            listeners.metrics_address(),
        );
        let mut served = JoinSet::new();
        served.spawn(run(config, listeners, shutdown.clone(), |_: &NoSettings| {
            Ok(Puppet)
        }));
        wait_for("the agent to be ready", PATIENCE, async || {
            let answer = muster_testkit::http::get(health, "/ready").await;
            answer.is_ok_and(|answer| answer.status.is_success())
        })
        .await;
        Self {
            address,
            health,
            metrics,
            shutdown,
            served,
        }
    }

    /// Tries to serve; the error says why it does not.
    pub async fn try_open(change: impl FnOnce(&mut Config<NoSettings>)) -> Result<(), muster_runtime::Error> {
        let mut config = Config::<NoSettings>::on_ports(0, 0, 0);
        change(&mut config);
        let listeners = Listeners::ephemeral().unwrap();
        let shutdown = Shutdown::new();
        let serving = run(config, listeners, shutdown, |_: &NoSettings| Ok(Puppet));
        tokio::time::timeout(PATIENCE, serving)
            .await
            .expect("it serves, or says why not")
    }

    pub fn client(&self) -> Client {
        let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{}", self.address)).unwrap();
        muster_a2a::grpc::client(endpoint.connect_lazy())
    }

    /// Asks it to stop and waits until it has.
    pub async fn close(mut self) {
        self.shutdown.trigger();
        self.served.join_next().await.unwrap().unwrap().unwrap();
    }
}

/// A message of one text.
pub fn say(text: &str) -> pb::SendMessageRequest {
    pb::SendMessageRequest {
        message: Some(pb::Message {
            message_id: uuid::Uuid::now_v7().to_string(),
            role: pb::Role::User.into(),
            parts: vec![text_part(text)],
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// A message that is answered at once, with the task still at work.
pub fn say_and_go(text: &str) -> pb::SendMessageRequest {
    pb::SendMessageRequest {
        configuration: Some(pb::SendMessageConfiguration {
            return_immediately: true,
            ..Default::default()
        }),
        ..say(text)
    }
}

pub fn text_part(text: &str) -> pb::Part {
    pb::Part {
        content: Some(pb::part::Content::Text(text.to_owned())),
        ..Default::default()
    }
}

/// The task of a response.
pub fn task(response: tonic::Response<pb::SendMessageResponse>) -> pb::Task {
    match response.into_inner().payload {
        Some(pb::send_message_response::Payload::Task(task)) => task,
        other => panic!("no task but {other:?}"),
    }
}

pub fn state(task: &pb::Task) -> pb::TaskState {
    task.status.as_ref().unwrap().state()
}

/// The text of a task's status.
pub fn said(task: &pb::Task) -> String {
    let message = task.status.as_ref().unwrap().message.as_ref();
    message.map(texts).unwrap_or_default()
}

pub fn texts(message: &pb::Message) -> String {
    let text = |part: &pb::Part| match &part.content {
        Some(pb::part::Content::Text(text)) => Some(text.clone()),
        _ => None,
    };
    message.parts.iter().filter_map(text).collect()
}
