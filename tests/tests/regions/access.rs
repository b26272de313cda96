//! Ways into each region, from outside of all.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use muster_a2a::grpc::Client;
use muster_api::a2a::{
    Message, Part, Role, SendMessageRequest, SendMessageResponse, TaskState, part, send_message_response,
};
use muster_api::workflow::workflow_service_client::WorkflowServiceClient;
use muster_api::workflow::{ExplainRunRequest, GetRunRequest, RunStatus, StartRunRequest, start_run_request};
use muster_rpc::channel::connect_lazy_secured;
use muster_runtime::clock::SystemClock;
use muster_runtime::server;
use muster_runtime::trust::{self, Mode, Native, Trust, Workload};
use tokio::time::{interval, timeout};
use tonic::Status;
use tonic::transport::Channel;

use crate::agent;
use crate::stack::{Place, REGIONS, Region};

/// How long a caller waits for an answer before it turns to the next region.
const ATTEMPT: Duration = Duration::from_secs(2);

/// Before each look at all partitions.
const LOOK: Duration = Duration::from_millis(250);

const PARTITIONS: usize = 64;

const PASSES: &str = "document: { dsl: 1.0.0, namespace: test, name: passes, version: 1.0.0 }\n\
    do:\n  - done: { set: { done: true } }\n";

const LISTENS: &str = "document: { dsl: 1.0.0, namespace: test, name: probe, version: 1.0.0 }\n\
    do:\n  - hear: { listen: { to: { one: { with: { type: never } } } } }\n";

type Engine = WorkflowServiceClient<Channel>;

/// Ways into each region, from outside.
#[derive(Clone)]
pub struct Access {
    routers: Vec<Client>,
    engines: Vec<Engine>,
}

impl Access {
    /// As the operator, who may see all.
    pub fn to(regions: &[Region], place: &Place) -> Self {
        let certificates = place.certificates();
        let config = trust::Config {
            mode: Some(Mode::Native),
            native: Native {
                certificate: certificates.join("muster.pem"),
                key: certificates.join("muster-key.pem"),
                authorities: certificates.join("bundle.pem"),
                ..Native::default()
            },
            ..trust::Config::default()
        };
        let clock = Arc::new(SystemClock::default());
        let trust = Trust::open(&config, &server::Config::default(), Workload::Operator, clock).unwrap();
        let channel = |region: &Region, port: u16, role: Workload| {
            let url = format!("https://{}", region.network.at(port));
            let endpoint = muster_rpc::endpoint::parse(&url).unwrap();
            connect_lazy_secured(&endpoint, &trust.to(role))
        };
        let routers = regions.iter().map(|region| {
            let port = region.router.ports().data;
            muster_a2a::grpc::client(channel(region, port, Workload::Router))
        });
        let engines = regions.iter().map(|region| {
            let port = region.engine.ports().data;
            WorkflowServiceClient::new(channel(region, port, Workload::Engine))
        });
        Self {
            routers: routers.collect(),
            engines: engines.collect(),
        }
    }

    /// The engine of a region.
    pub fn engine(&self, region: usize) -> Engine {
        self.engines[region].clone()
    }

    /// Sends a message through the router of a region; the answer must say the same.
    pub async fn send(&self, region: usize, text: &str) -> Result<(), String> {
        let mut client = self.routers[region].clone();
        let answer = timeout(ATTEMPT, client.send_message(message(text))).await;
        let answer = answer.map_err(|_| "no answer in time".to_owned())?;
        let answer = answer.map_err(|status| status.to_string())?.into_inner();
        if says(&answer, text) {
            Ok(())
        } else {
            Err(format!("{answer:?}"))
        }
    }

    /// Starts a run, or makes sure that it has been started.
    pub async fn start(&self, region: usize, id: &str, document: &str) -> Result<(), String> {
        let request = StartRunRequest {
            run_id: id.to_owned(),
            source: Some(start_run_request::Source::Document(document.to_owned())),
            ..Default::default()
        };
        let started = within(self.engine(region).start_run(request)).await;
        started.map(drop).map_err(|status| status.to_string())
    }

    /// How far a run is, which must not fail.
    pub async fn status(&self, region: usize, id: &str) -> Result<RunStatus, Status> {
        let request = GetRunRequest {
            run_id: id.to_owned(),
        };
        let run = within(self.engine(region).get_run(request)).await?;
        let run = run.into_inner().run.unwrap_or_default();
        let status = run.status();
        assert!(
            !matches!(status, RunStatus::Faulted | RunStatus::Cancelled),
            "{id} is {status:?}: {:?}",
            run.error
        );
        Ok(status)
    }

    /// Starts a run that waits for ever, in each partition.
    pub async fn watch_partitions(&self) {
        for partition in 0..PARTITIONS {
            let id = format!("probe.p{partition}");
            self.start(partition % REGIONS.len(), &id, LISTENS).await.unwrap();
        }
    }

    /// Whether new work is done, seen from a region.
    pub async fn does_new_work(&self, region: usize, id: &str) -> Result<(), String> {
        self.start(region, id, PASSES).await?;
        match self.status(region, id).await {
            Ok(RunStatus::Completed) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    }

    /// Whether all partitions are worked on, seen from a region. Takes its time: asked all the time, it is what engines work on.
    pub async fn works_on_all(&self, region: usize) -> Result<(), String> {
        let mut ticks = interval(LOOK);
        ticks.tick().await;
        ticks.tick().await;
        let all = (0..PARTITIONS).map(|partition| async move {
            let request = ExplainRunRequest {
                run_id: format!("probe.p{partition}"),
            };
            let told = within(self.engine(region).explain_run(request)).await;
            let told = told.map_err(|status| format!("partition {partition}: {status}"))?;
            let blockers = told.into_inner().blockers;
            let kinds: Vec<&str> = blockers.iter().map(|blocker| blocker.kind.as_str()).collect();
            if kinds == ["event"] {
                Ok(())
            } else {
                Err(format!("partition {partition}: {kinds:?}"))
            }
        });
        join_all(all).await.into_iter().collect()
    }
}

/// A call to an engine, which may take its time where it forwards to another.
async fn within<T>(call: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    let ended = timeout(2 * ATTEMPT, call).await;
    ended.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time")))
}

/// A message with a fresh id.
fn message(text: &str) -> SendMessageRequest {
    SendMessageRequest {
        tenant: agent::ID.to_owned(),
        message: Some(Message {
            message_id: uuid::Uuid::new_v4().to_string(),
            role: Role::User.into(),
            parts: vec![Part {
                content: Some(part::Content::Text(text.to_owned())),
                ..Part::default()
            }],
            ..Message::default()
        }),
        ..SendMessageRequest::default()
    }
}

fn says(answer: &SendMessageResponse, text: &str) -> bool {
    let Some(send_message_response::Payload::Task(task)) = &answer.payload else {
        return false;
    };
    let Some(status) = &task.status else {
        return false;
    };
    let part = status.message.as_ref().and_then(|message| message.parts.first());
    let said = part.and_then(|part| part.content.as_ref());
    status.state() == TaskState::Completed && matches!(said, Some(part::Content::Text(said)) if said == text)
}
