//! What makes no sense is refused before any agent is bothered, with a reason, a field and a remedy.

use std::time::Duration;

use bytes::{Buf as _, BufMut as _};
use muster_api::a2a::{GetTaskRequest, ListTasksRequest, SendMessageRequest, SendMessageResponse};
use muster_api::error::Reason;
use prost::Message as _;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::harness::{PATIENCE, Stack, carrying, error_in, list, message, number, reason_of, routed, text};

#[tokio::test]
async fn unknown_agents_and_skills_are_answered_with_the_nearest_names() {
    let stack = Stack::start().await;
    let _agent = stack.agent("weather", &["forecasting", "current"]).await;
    let _other = stack.agent("planning", &["scheduling"]).await;
    let error = error_in(&stack.send(message("wether", "x")).await.unwrap_err());
    assert_eq!(error.reason, Reason::AgentNotFound);
    assert!(
        error.message.contains("did you mean 'weather'?"),
        "{}",
        error.message
    );
    assert_eq!(error.metadata["nearest"], "weather");
    let error = error_in(&stack.send(message("skill:forcasting", "x")).await.unwrap_err());
    assert_eq!(error.reason, Reason::SkillNotFound);
    assert!(
        error.message.contains("did you mean 'forecasting'?"),
        "{}",
        error.message
    );
    assert_eq!(
        (&*error.metadata["skills"], &*error.metadata["nearest"]),
        ("forcasting", "forecasting")
    );
    let unmatched = routed(
        message("skill:forecasting", "x"),
        [("skills", list(&["scheduling", "current"]))],
    );
    let error = error_in(&stack.send(unmatched).await.unwrap_err());
    assert_eq!(error.reason, Reason::SkillNotFound);
    assert_eq!(
        error.message,
        "no registered agent has all of the skills scheduling, current, forecasting; 'weather' lacks scheduling"
    );
    let fact = |key: &str| error.metadata[key].as_str();
    assert_eq!(
        (fact("skills"), fact("nearest"), fact("lacking")),
        ("scheduling,current,forecasting", "weather", "scheduling")
    );
}

#[tokio::test]
async fn incomplete_messages_are_refused_by_field() {
    let stack = Stack::start().await;
    let agent = stack.agent("weather", &["forecasting"]).await;
    let broken = |change: fn(&mut SendMessageRequest)| {
        let mut request = message("weather", "x");
        change(&mut request);
        request
    };
    for (request, field) in [
        (broken(|request| request.message = None), "message"),
        (
            broken(|request| request.message.as_mut().unwrap().message_id.clear()),
            "message.messageId",
        ),
        (
            broken(|request| request.message.as_mut().unwrap().parts.clear()),
            "message.parts",
        ),
        (
            broken(|request| request.message.as_mut().unwrap().role = 2),
            "message.role",
        ),
        (broken(|request| request.tenant = "Weather!".to_owned()), "tenant"),
        (
            routed(message("weather", "x"), [("priority", text("hihg"))]),
            "metadata[\"urn:muster:a2a:routing:v1\"].priority",
        ),
    ] {
        let status = stack.send(request).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(error_in(&status).field.as_deref(), Some(field));
    }
    assert!(agent.calls().is_empty());
}

/// Bytes over gRPC, whatever they are.
#[derive(Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let mut item = vec![0; buffer.remaining()];
        buffer.copy_to_slice(&mut item);
        Ok(Some(item))
    }
}

async fn send_raw(stack: &Stack, path: &'static str, bytes: Vec<u8>) -> Result<Vec<u8>, Status> {
    let mut client = tonic::client::Grpc::new(stack.channel.clone());
    client.ready().await.expect("the router is there");
    let path = tonic::codegen::http::uri::PathAndQuery::from_static(path);
    let mut request = tonic::Request::new(bytes);
    request
        .metadata_mut()
        .insert("a2a-version", tonic::metadata::MetadataValue::from_static("1.0"));
    let answer = client.unary(request, path, Raw).await?;
    Ok(answer.into_inner())
}

const SEND: &str = "/lf.a2a.v1.A2AService/SendMessage";

#[tokio::test]
async fn bytes_that_are_no_message_are_refused_by_field_and_are_nobodys_fault() {
    let stack = Stack::start().await;
    let agent = stack.agent("weather", &["forecasting"]).await;
    let good = message("weather", "text").encode_to_vec();
    let place = good
        .windows(4)
        .position(|four| four == b"text")
        .expect("its text");
    let mut no_text = good.clone();
    no_text[place] = 0xff;
    for (bytes, field) in [
        (no_text, "message.parts.text"),
        ([good.as_slice(), &good].concat(), "tenant"),
        (good[..good.len() - 1].to_vec(), "request"),
        (vec![0xff; 100], "request"),
    ] {
        let status = send_raw(&stack, SEND, bytes).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
        assert_eq!(error_in(&status).field.as_deref(), Some(field));
    }
    assert!(agent.calls().is_empty());
    let row = stack.statistics(&agent.endpoint()).await;
    assert_eq!((row.failed_total, row.breaker.as_str()), (0, "closed"));
}

#[tokio::test]
async fn fields_that_are_not_known_yet_pass() {
    let stack = Stack::start().await;
    let agent = stack.agent("weather", &["forecasting"]).await;
    let mut bytes = message("weather", "x").encode_to_vec();
    // Field 200, a number.
    bytes.extend([0xc0, 0x0c, 0x07]);
    let answer = send_raw(&stack, SEND, bytes).await.unwrap();
    assert!(
        SendMessageResponse::decode(answer.as_slice())
            .unwrap()
            .payload
            .is_some()
    );
    assert_eq!((agent.calls().len(), agent.calls()[0].tenant.as_str()), (1, ""));
}

#[tokio::test]
async fn an_operation_that_a2a_does_not_have_is_unimplemented() {
    let stack = Stack::start().await;
    let unknown = "/lf.a2a.v1.A2AService/Dance";
    let status = send_raw(&stack, unknown, Vec::new()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unimplemented);
    assert!(status.message().contains("Dance"), "{status:?}");
}

#[tokio::test]
async fn without_a_target_the_caller_hears_how_to_name_one() {
    let stack = Stack::start().await;
    assert_eq!(
        reason_of(stack.send(message("", "x")).await),
        Reason::TargetMissing
    );
    let nowhere = stack.client().list_tasks(ListTasksRequest::default()).await;
    assert_eq!(reason_of(nowhere), Reason::TargetMissing);
}

#[tokio::test]
async fn a_version_other_than_1_0_is_not_supported() {
    let stack = Stack::start().await;
    let _agent = stack.agent("weather", &["forecasting"]).await;
    let old = carrying(message("weather", "x"), [("a2a-version", "0.3")]);
    let status = stack.send(old).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition);
    let info = status.get_details_error_info().unwrap();
    assert_eq!(
        (info.domain.as_str(), info.reason.as_str()),
        ("a2a-protocol.org", "VERSION_NOT_SUPPORTED")
    );
}

#[tokio::test]
async fn too_large_a_message_is_refused_with_the_limit() {
    let stack = Stack::configured(|config| config.server.max_message_bytes = 2048).await;
    let _agent = stack.agent("weather", &["forecasting"]).await;
    stack.send(message("weather", &"x".repeat(1000))).await.unwrap();
    let error = error_in(
        &stack
            .send(message("weather", &"x".repeat(3000)))
            .await
            .unwrap_err(),
    );
    assert_eq!(error.reason, Reason::MessageTooLarge);
    assert_eq!(error.metadata["limit"], "2048");
}

#[tokio::test]
async fn a_message_whose_time_to_live_has_passed_is_refused() {
    let stack = Stack::start().await;
    let agent = stack.agent("weather", &["forecasting"]).await;
    let expired = routed(message("weather", "x"), [("ttl", number(0.0))]);
    assert_eq!(reason_of(stack.send(expired).await), Reason::MessageExpired);
    assert!(agent.calls().is_empty());
    let lives = routed(message("weather", "x"), [("ttl", number(60.0))]);
    stack.send(lives).await.unwrap();
}

#[tokio::test]
async fn an_unknown_task_without_a_target_is_a2as_task_not_found() {
    let stack = Stack::start().await;
    let _agent = stack.agent("weather", &["forecasting"]).await;
    let request = GetTaskRequest {
        id: "nobodys".to_owned(),
        ..GetTaskRequest::default()
    };
    let status = stack.client().get_task(request).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    assert_eq!(status.get_details_error_info().unwrap().reason, "TASK_NOT_FOUND");
    let empty = stack
        .client()
        .get_task(GetTaskRequest::default())
        .await
        .unwrap_err();
    assert_eq!(error_in(&empty).field.as_deref(), Some("id"));
}

#[tokio::test]
async fn a_router_that_has_heard_of_nobody_says_so() {
    let nobody = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let mut config = muster_router::Config::default();
    config.router.data_directory = std::path::PathBuf::new();
    let router = crate::harness::Service::router(config, nobody);
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{}", router.address)).unwrap();
    let channel = muster_testkit::wait_for("the router", PATIENCE, async || endpoint.connect().await).await;
    let mut client = muster_a2a::grpc::client(channel);
    let error = error_in(&client.send_message(message("weather", "x")).await.unwrap_err());
    assert_eq!(error.reason, Reason::DependencyUnavailable);
    assert_eq!(error.retry_after, Some(Duration::from_secs(2)));
}
