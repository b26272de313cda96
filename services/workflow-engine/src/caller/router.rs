//! Calls through the router's gRPC.
//!
//! Those that nobody has answered are sent again, by [`patience`].

mod patience;
mod plain;

use std::ops::Deref;
use std::time::Duration;

use a2a_pb::protojson;
use muster_api::a2a::a2a_service_client::A2aServiceClient;
use muster_api::a2a::{
    CancelTaskRequest, ListTasksRequest, SendMessageRequest, StreamResponse, SubscribeToTaskRequest,
};
use muster_api::extension::{EPOCH_METADATA, SKILL_TARGET_PREFIX, STEP_KEY_METADATA};
use muster_api::json;
use muster_rpc::deadline::{self, Deadline};
use muster_runtime::clock::SharedClock;
use muster_runtime::trace;
use muster_runtime::trust::caller::ON_BEHALF_OF_METADATA;
use muster_runtime::trust::identity::Channel;
use muster_workflow_dsl::document::{Endpoint, Method};
use muster_workflow_dsl::request::A2a;
use serde_json::Value;
use tonic::metadata::MetadataMap;
use tonic::{Request, Status, Streaming};

use crate::behalf::Behalf;

use super::judgement::failure;
use super::stream::Stream;
use super::{Call, Failure, Kind, Progress, answer, message_id};

/// How long an agent may take to confirm that it stops.
const CANCEL_TIMEOUT: Duration = Duration::from_secs(5);

/// Version of the protocol that we speak.
const A2A_VERSION: (&str, &str) = ("a2a-version", "1.0");

/// Calls agents through the router.
pub struct Router {
    client: A2aServiceClient<Channel>,
    clock: SharedClock,
    /// How long a call that reaches no agent is repeated.
    patience: Duration,
    /// Largest answer.
    most_bytes: usize,
}

impl Router {
    /// Calls over `channel`.
    #[must_use]
    pub fn new(channel: Channel, clock: SharedClock, patience: Duration, most_bytes: usize) -> Self {
        // The limit of the channel is above ours, so that an answer over the limit is told apart from a broken one.
        let client = A2aServiceClient::new(channel)
            .max_decoding_message_size(most_bytes.saturating_mul(4))
            .max_encoding_message_size(most_bytes.saturating_mul(4));
        Self {
            client,
            clock,
            patience,
            most_bytes,
        }
    }

    fn request<T>(&self, message: T, call: &Addressed<'_>, deadline: Deadline) -> Request<T> {
        let mut request = Request::new(message);
        let metadata = request.metadata_mut();
        metadata.insert(
            A2A_VERSION.0,
            tonic::metadata::MetadataValue::from_static(A2A_VERSION.1),
        );
        let step_key = call.step_key.to_string();
        metadata.insert(STEP_KEY_METADATA, step_key.parse().expect("a UUID is ASCII"));
        // Not in the message: that is the same whoever sends it, or it would be another one.
        if let Some(epoch) = call.epoch {
            metadata.insert(EPOCH_METADATA, epoch.into());
        }
        name_caller(metadata, call.behalf.as_ref());
        deadline.apply(&mut request, self.clock.monotonic());
        trace::inject_request(&mut request);
        request
    }

    async fn send(
        &self,
        call: &Addressed<'_>,
        progress: &Progress,
        deadline: Deadline,
    ) -> Result<Value, Outcome> {
        let message = self.message(call)?;
        progress.begin();
        if let Some(task_id) = message.message.as_ref().map(|message| message.task_id.clone()) {
            progress.learn_task(&task_id);
        }
        let response = self
            .patiently(progress, deadline, || {
                let request = self.request(message.clone(), call, deadline);
                let mut client = self.client.clone();
                async move { client.send_message(request).await }
            })
            .await?
            .into_inner();
        Ok(answer::response(response.payload)?)
    }

    async fn stream(
        &self,
        call: &Addressed<'_>,
        progress: &Progress,
        deadline: Deadline,
    ) -> Result<Value, Outcome> {
        let message = self.message(call)?;
        progress.begin();
        let events = self
            .patiently(progress, deadline, || {
                let request = self.request(message.clone(), call, deadline);
                let mut client = self.client.clone();
                async move { client.send_streaming_message(request).await }
            })
            .await?
            .into_inner();
        self.follow(events, call.events, progress).await
    }

    async fn follow(
        &self,
        mut events: Streaming<StreamResponse>,
        all: bool,
        progress: &Progress,
    ) -> Result<Value, Outcome> {
        let mut stream = Stream::new(all, self.most_bytes);
        while let Some(event) = events.message().await? {
            stream.take(event, progress)?;
            if stream.waits_for_caller() {
                break;
            }
        }
        Ok(stream.end()?)
    }

    async fn subscribe(
        &self,
        call: &Addressed<'_>,
        progress: &Progress,
        deadline: Deadline,
    ) -> Result<Value, Outcome> {
        let mut message: SubscribeToTaskRequest =
            answer::request::<protojson::SubscribeToTaskRequest, _>(call.parameters)?;
        message.tenant.clone_from(&call.target);
        let events = self
            .patiently(progress, deadline, || {
                let request = self.request(message.clone(), call, deadline);
                let mut client = self.client.clone();
                async move { client.subscribe_to_task(request).await }
            })
            .await?
            .into_inner();
        self.follow(events, call.events, progress).await
    }

    /// The request with what the engine adds: the target, the message id, the step key.
    fn message(&self, call: &Addressed<'_>) -> Result<SendMessageRequest, Failure> {
        let mut request: SendMessageRequest =
            answer::request::<protojson::SendMessageRequest, _>(call.parameters)?;
        request.tenant.clone_from(&call.target);
        let message = request
            .message
            .as_mut()
            .ok_or_else(|| Failure::new(Kind::Validation, 400, "the parameters have no 'message'"))?;
        message.message_id = message_id(call.parameters, call);
        let step_key = prost_types::value::Kind::StringValue(call.step_key.to_string());
        request.metadata.get_or_insert_default().fields.insert(
            STEP_KEY_METADATA.to_owned(),
            prost_types::Value { kind: Some(step_key) },
        );
        Ok(request)
    }

    fn bound(&self, bytes: usize) -> Result<(), Failure> {
        if bytes <= self.most_bytes {
            return Ok(());
        }
        let limit = self.most_bytes;
        let detail = format!(
            "the agent's answer of {bytes} bytes is over the limit of {limit}; \
             ask for less, or raise 'engine.max_payload_bytes'"
        );
        Err(Failure::new(Kind::Runtime, 413, detail))
    }
}

/// A call of an agent, by its address.
struct Addressed<'a> {
    call: &'a Call,
    /// The agent: its id, or `skill:SKILL`.
    target: String,
    parameters: &'a Value,
    /// Whether all events of a stream are wanted.
    events: bool,
}

impl Deref for Addressed<'_> {
    type Target = Call;

    fn deref(&self) -> &Call {
        self.call
    }
}

fn target(endpoint: &Endpoint) -> String {
    match endpoint {
        Endpoint::Agent(id) => id.clone(),
        Endpoint::Skill(skill) => format!("{SKILL_TARGET_PREFIX}{skill}"),
        // Is not called through the router, which refuses it by name.
        Endpoint::Url(url) => url.clone(),
    }
}

/// Either our own judgement or the status that came back.
enum Outcome {
    Failure(Failure),
    Status(Box<Status>),
}

impl From<Failure> for Outcome {
    fn from(failure: Failure) -> Self {
        Self::Failure(failure)
    }
}

impl From<Status> for Outcome {
    fn from(status: Status) -> Self {
        Self::Status(Box::new(status))
    }
}

impl Router {
    /// Makes the call and returns the answer as ProtoJSON: the task, the message or the list.
    pub(super) async fn call(
        &self,
        request: &A2a,
        call: &Call,
        progress: &Progress,
    ) -> Result<Value, Failure> {
        let call = &Addressed {
            call,
            target: target(&request.endpoint),
            parameters: &request.parameters,
            events: request.events,
        };
        let deadline = Deadline::after(self.clock.monotonic(), call.timeout);
        let work = async {
            match request.method {
                Method::SendMessage => self.send(call, progress, deadline).await,
                Method::SendStreamingMessage => self.stream(call, progress, deadline).await,
                Method::SubscribeToTask => self.subscribe(call, progress, deadline).await,
                method => self.plain(method, call, progress, deadline).await,
            }
        };
        let outcome = tokio::time::timeout(call.timeout, work).await;
        let late = || {
            let seconds = call.timeout.as_secs_f64();
            Failure::new(
                Kind::Timeout,
                408,
                format!("'{}' did not answer within {seconds:.3} s", call.target),
            )
        };
        match outcome {
            Err(_) => Err(late()),
            Ok(Err(Outcome::Status(status))) if deadline::is_timer_of_tonic(&status) => Err(late()),
            Ok(Err(Outcome::Status(status))) => Err(failure(&call.target, &status)),
            Ok(Err(Outcome::Failure(failure))) => Err(failure),
            Ok(Ok(answer)) => {
                self.bound(json::length(&answer))?;
                Ok(answer)
            }
        }
    }

    /// Asks the agent to stop its task: one that is known, or one that grew out of the message.
    pub(super) async fn stop(&self, request: &A2a, call: &Call, progress: &Progress) -> Result<(), Failure> {
        if !matches!(request.method, Method::SendMessage | Method::SendStreamingMessage) {
            return Ok(());
        }
        let target = &target(&request.endpoint);
        let work = async {
            let tasks = match progress.task_id() {
                Some(task) if !call.resent => vec![task],
                _ => {
                    self.tasks_of(target, &message_id(&request.parameters, call), call)
                        .await?
                }
            };
            for id in tasks {
                let message = CancelTaskRequest {
                    tenant: target.clone(),
                    id,
                    ..CancelTaskRequest::default()
                };
                let mut client = self.client.clone();
                client.cancel_task(self.farewell(message, call)).await?;
            }
            Ok(())
        };
        deadline::enforce(
            CANCEL_TIMEOUT,
            &format!("cancelling the task of '{target}'"),
            work,
        )
        .await
        .map_err(|status| failure(target, &status))
    }

    /// The tasks that grew out of the message with this id, as far as the agent keeps their history and they are not over.
    async fn tasks_of(&self, target: &str, message: &str, call: &Call) -> Result<Vec<String>, Status> {
        let mut page_token = String::new();
        let mut tasks = Vec::new();
        for _ in 0..answer::MOST_PAGES {
            let asked = ListTasksRequest {
                tenant: target.to_owned(),
                page_size: Some(100),
                page_token,
                ..ListTasksRequest::default()
            };
            let mut client = self.client.clone();
            let page = client.list_tasks(self.farewell(asked, call)).await?.into_inner();
            tasks.extend(answer::grown_from(&page.tasks, message));
            if page.next_page_token.is_empty() {
                break;
            }
            page_token = page.next_page_token;
        }
        Ok(tasks)
    }

    fn farewell<T>(&self, message: T, call: &Call) -> Request<T> {
        let mut request = Request::new(message);
        let version = tonic::metadata::MetadataValue::from_static(A2A_VERSION.1);
        request.metadata_mut().insert(A2A_VERSION.0, version);
        name_caller(request.metadata_mut(), call.behalf.as_ref());
        let now = self.clock.monotonic();
        Deadline::after(now, CANCEL_TIMEOUT).apply(&mut request, now);
        request
    }
}

/// Says on whose behalf the call is.
fn name_caller(metadata: &mut MetadataMap, behalf: Option<&Behalf>) {
    if let Some(value) = behalf.and_then(|behalf| behalf.text.parse().ok()) {
        metadata.insert(ON_BEHALF_OF_METADATA, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_those_of_the_text() {
        let value = serde_json::json!({"a": [1, "é", null]});
        assert_eq!(json::length(&value), value.to_string().len());
    }
}
