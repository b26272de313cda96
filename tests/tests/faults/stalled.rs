//! Clients that stop reading a stream in the middle, over each binding. At the router they hold a place that others wait for, so
//! that they lose their streams after a while. An agent of the SDK does its work whoever reads, and tells it to the end.

use std::net::SocketAddr;

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::TokioIo;
use muster_api::a2a::stream_response::Payload;
use muster_api::a2a::{
    Artifact, ListTasksRequest, Part, StreamResponse, TaskArtifactUpdateEvent, TaskState, part,
};
use muster_api::error::Reason;
use muster_api::registry::RegisterRequest;
use muster_api::registry::registry_service_client::RegistryServiceClient;
use muster_testkit::{Answer, FakeAgent, wait_for};
use muster_tests::PATIENCE;
use serde_json::{Value, json};
use tokio::net::TcpSocket;
use tokio::task::JoinSet;

use crate::system::{System, channel, end_of, error_in, message, said};
use crate::worker::FLOOD;

/// What the kernel may hold for a client that does not read.
const LITTLE: u32 = 16 << 10;

/// What an agent says in a stream: more than fits into what is on the way.
fn flood() -> Vec<Result<StreamResponse, tonic::Status>> {
    let event = || StreamResponse {
        payload: Some(Payload::ArtifactUpdate(TaskArtifactUpdateEvent {
            task_id: "t".to_owned(),
            artifact: Some(Artifact {
                artifact_id: "a".to_owned(),
                parts: vec![Part {
                    content: Some(part::Content::Raw(vec![7; 256 << 10])),
                    ..Part::default()
                }],
                ..Artifact::default()
            }),
            ..TaskArtifactUpdateEvent::default()
        })),
    };
    (0..64).map(|_| Ok(event())).collect()
}

/// The two bindings that stream as server-sent events.
#[derive(Debug, Clone, Copy)]
enum Sse {
    JsonRpc,
    HttpJson,
}

impl Sse {
    const BOTH: [Self; 2] = [Self::JsonRpc, Self::HttpJson];

    /// Sends a message to a target (none at an agent itself), and reads no more than the head of the answer.
    async fn ask(self, address: SocketAddr, target: &str, text: &str) -> Unread {
        let id = uuid::Uuid::new_v4().to_string();
        let params = json!({"message": {"messageId": id, "role": "ROLE_USER", "parts": [{"text": text}]}});
        let slash = if target.is_empty() { "" } else { "/" };
        let (path, body) = match self {
            Self::JsonRpc => (
                format!("/{target}"),
                json!({"jsonrpc": "2.0", "id": 1, "method": "SendStreamingMessage", "params": params}),
            ),
            Self::HttpJson => (format!("{slash}{target}/message:stream"), params),
        };
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(LITTLE).unwrap();
        let stream = TokioIo::new(socket.connect(address).await.unwrap());
        let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.unwrap();
        let mut driver = JoinSet::new();
        driver.spawn(connection);
        let request = hyper::Request::post(path)
            .header("host", address.to_string())
            .header("content-type", "application/json")
            .header("a2a-version", "1.0")
            .body(Full::new(Bytes::from(body.to_string())))
            .unwrap();
        let answer = sender.send_request(request).await.unwrap();
        let (status, kind) = (answer.status(), answer.headers()["content-type"].clone());
        assert!(status == 200 && kind == "text/event-stream", "{status} {kind:?}");
        Unread {
            body: answer.into_body(),
            _driver: driver,
        }
    }
}

/// A stream of which nobody reads.
struct Unread {
    body: Incoming,
    _driver: JoinSet<hyper::Result<()>>,
}

impl Unread {
    /// Reads on to the end; the events.
    async fn rest(self) -> Vec<Value> {
        let read = tokio::time::timeout(PATIENCE, self.body.collect()).await;
        let bytes = read.expect("the stream ends").unwrap().to_bytes();
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        let events = text.lines().filter_map(|line| line.strip_prefix("data: "));
        events.map(|event| serde_json::from_str(event).unwrap()).collect()
    }
}

/// Waits until so many messages are in flight, while others are served.
async fn in_flight(system: &System, count: u64) {
    wait_for("messages in flight", PATIENCE, async || {
        system.echo("worker", "there is another place").await;
        let status = system.status(0).await?;
        if status.in_flight == count {
            Ok(())
        } else {
            Err(format!("{status:?}"))
        }
    })
    .await;
}

#[tokio::test]
async fn a_client_that_stops_reading_loses_its_stream_at_the_router_and_others_go_on() {
    let two_places = [
        ("ROUTER__STREAM_STALL_SECONDS", "2"),
        ("ROUTER__MAX_MESSAGES_IN_FLIGHT", "2"),
    ];
    let system = System::start(&[], &two_places).await;
    let _worker = system.worker("worker").await;
    let flooding = FakeAgent::start("flooding").await;
    flooding.fall_back_to(Answer::Events(flood()));
    let mut registry = RegistryServiceClient::new(channel(&system.registry));
    let instance = Some(flooding.instance(&["flood"]));
    registry.register(RegisterRequest { instance }).await.unwrap();
    system.knows(0, 2).await;

    let mut client = system.client();
    let events = client.send_streaming_message(message("flooding", "go")).await;
    let mut events = events.unwrap().into_inner();
    in_flight(&system, 1).await;
    in_flight(&system, 0).await;
    let error = error_in(&end_of(&mut events, PATIENCE).await);
    assert_eq!(error.reason, Reason::StreamStalled);

    for binding in Sse::BOTH {
        let router = system.routers[0].program.data_address();
        let stream = binding.ask(router, "flooding", "go").await;
        in_flight(&system, 1).await;
        in_flight(&system, 0).await;
        let last = stream.rest().await.pop().unwrap();
        assert!(
            last["error"].to_string().contains("STREAM_STALLED"),
            "{binding:?}: {last}"
        );
    }
}

#[tokio::test]
async fn an_agent_works_on_for_a_client_that_stops_reading_and_tells_it_all_when_it_reads_again() {
    let system = System::start(&[], &[]).await;
    let large = [("SERVER__MAX_MESSAGE_BYTES", "33554432")];
    let worker = system.worker_with("worker", &large).await;
    let client = muster_a2a::grpc::client(channel(&worker.program));
    let finished = async |count: usize| {
        wait_for("the work to be done", PATIENCE, async || {
            let answer = client
                .clone()
                .send_message(message("", "echo others"))
                .await
                .unwrap();
            assert_eq!(said(answer.into_inner()), "others");
            let ask = ListTasksRequest {
                status: TaskState::Completed.into(),
                page_size: Some(100),
                ..ListTasksRequest::default()
            };
            let listed = client
                .clone()
                .list_tasks(ask)
                .await
                .map_err(|status| status.to_string())?;
            let tasks = listed.into_inner().tasks;
            let flooded = tasks.iter().filter(|task| {
                let message = task.status.as_ref().and_then(|status| status.message.as_ref());
                format!("{message:?}").contains(FLOOD)
            });
            let done = flooded.count();
            (done == count).then_some(()).ok_or(format!("{done} of {count}"))
        })
        .await;
    };

    for (number, binding) in Sse::BOTH.into_iter().enumerate() {
        let stream = binding.ask(worker.program.data_address(), "", "flood 32").await;
        finished(number + 1).await;
        let events = stream.rest().await.into_iter().map(|event| match binding {
            Sse::JsonRpc => event["result"].clone(),
            Sse::HttpJson => event,
        });
        let events: Vec<Value> = events.collect();
        let artifacts = events.iter().filter(|event| event["artifactUpdate"].is_object());
        assert!(artifacts.count() >= 32, "{binding:?}");
        let last = &events.last().unwrap()["statusUpdate"]["status"]["state"];
        assert_eq!(last, "TASK_STATE_COMPLETED", "{binding:?}");
    }

    let mut reader = muster_a2a::grpc::client(channel(&worker.program));
    let begun = reader.send_streaming_message(message("", "flood 32")).await;
    let mut events = begun.unwrap().into_inner();
    finished(3).await;
    let (mut artifacts, mut last) = (0, None);
    while let Some(event) = events.message().await.unwrap() {
        artifacts += usize::from(matches!(event.payload, Some(Payload::ArtifactUpdate(_))));
        last = event.payload;
    }
    assert!(artifacts >= 32, "{artifacts}");
    let Some(Payload::StatusUpdate(end)) = last else {
        panic!("a stream ends with the task's end");
    };
    assert_eq!(end.status.unwrap().state(), TaskState::Completed);
}
