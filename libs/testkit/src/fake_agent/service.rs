//! The A2A service of a fake agent.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use a2a_pb::pbconv;
use futures::stream::BoxStream;
use futures::{StreamExt as _, stream};
use muster_api::a2a;
use muster_api::a2a::a2a_service_server::A2aService;
use serde_json::json;
use tonic::{Request, Response, Status};

use super::{Answer, Call, State, lock};

/// The service; the state is the test's too.
pub(super) struct Service(pub(super) Arc<State>);

type Event = Result<a2a::StreamResponse, Status>;

impl Service {
    /// Records the call and decides its events.
    fn events(&self, call: &Call) -> Vec<Event> {
        let scripted = lock(&self.0.script).pop_front();
        let mut answer = scripted.unwrap_or_else(|| lock(&self.0.fallback).clone());
        while let Answer::Compute(function) = answer {
            answer = function(call);
        }
        let events = match answer {
            Answer::Echo => {
                let result = json!({"echo": call.text, "data": call.data});
                self.task_events(completed(call, &result, &call.text))
            }
            Answer::Metadata(metadata) => {
                let result = json!({"echo": call.text, "data": call.data});
                let fields = metadata.as_object().into_iter().flatten();
                let fields = fields
                    .map(|(name, value)| (name.clone(), value.clone()))
                    .collect();
                self.task_events(a2a::Task {
                    metadata: Some(pbconv::to_proto_struct(&fields)),
                    ..completed(call, &result, &call.text)
                })
            }
            Answer::Completed(data, text) => self.task_events(completed(call, &data, &text)),
            Answer::Task(state, text) => self.task_events(task(call, state, &text)),
            Answer::Message(text) => vec![Ok(response(a2a::stream_response::Payload::Message(message(
                call, &text,
            ))))],
            Answer::Status(status) => vec![Err(status)],
            Answer::Events(events) => events,
            Answer::Compute(_) => unreachable!("computed above"),
        };
        for event in events.iter().flatten() {
            self.remember(event);
        }
        events
    }

    /// A task that works, then its final state: what a streaming client sees.
    fn task_events(&self, task: a2a::Task) -> Vec<Event> {
        let mut working = task.clone();
        working.artifacts.clear();
        if let Some(status) = &mut working.status {
            status.state = a2a::TaskState::Working.into();
            status.message = None;
        }
        let artifacts = task.artifacts.iter().map(|artifact| {
            a2a::stream_response::Payload::ArtifactUpdate(a2a::TaskArtifactUpdateEvent {
                task_id: task.id.clone(),
                context_id: task.context_id.clone(),
                artifact: Some(artifact.clone()),
                last_chunk: true,
                ..Default::default()
            })
        });
        let ended = a2a::stream_response::Payload::StatusUpdate(a2a::TaskStatusUpdateEvent {
            task_id: task.id.clone(),
            context_id: task.context_id.clone(),
            status: task.status.clone(),
            metadata: None,
        });
        let payloads = std::iter::once(a2a::stream_response::Payload::Task(working))
            .chain(artifacts)
            .chain(std::iter::once(ended));
        let events = payloads.map(|payload| Ok(response(payload))).collect();
        lock(&self.0.tasks).insert(task.id.clone(), task);
        events
    }

    fn remember(&self, event: &a2a::StreamResponse) {
        if let Some(a2a::stream_response::Payload::Task(task)) = &event.payload {
            lock(&self.0.tasks)
                .entry(task.id.clone())
                .or_insert_with(|| task.clone());
        }
    }

    fn find(&self, id: &str) -> Result<a2a::Task, Status> {
        let found = lock(&self.0.tasks).get(id).cloned();
        found.ok_or_else(|| Status::not_found(format!("{} has no task {id}", self.0.id)))
    }
}

fn response(payload: a2a::stream_response::Payload) -> a2a::StreamResponse {
    a2a::StreamResponse {
        payload: Some(payload),
    }
}

fn part(content: a2a::part::Content) -> a2a::Part {
    a2a::Part {
        content: Some(content),
        ..Default::default()
    }
}

fn fresh(kind: &str) -> String {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    format!(
        "{kind}-{}-{}",
        std::process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    )
}

fn message(call: &Call, text: &str) -> a2a::Message {
    a2a::Message {
        message_id: fresh("answer"),
        context_id: context(call),
        role: a2a::Role::Agent.into(),
        parts: vec![part(a2a::part::Content::Text(text.to_owned()))],
        ..Default::default()
    }
}

fn context(call: &Call) -> String {
    let given = call
        .request
        .message
        .as_ref()
        .map(|message| message.context_id.clone());
    given
        .filter(|id| !id.is_empty())
        .unwrap_or_else(|| fresh("context"))
}

fn task(call: &Call, state: a2a::TaskState, text: &str) -> a2a::Task {
    let given = call
        .request
        .message
        .as_ref()
        .map(|message| message.task_id.clone());
    let status_message = message(call, text);
    a2a::Task {
        id: given.filter(|id| !id.is_empty()).unwrap_or_else(|| fresh("task")),
        context_id: status_message.context_id.clone(),
        status: Some(a2a::TaskStatus {
            state: state.into(),
            message: Some(status_message),
            timestamp: None,
        }),
        history: call.request.message.iter().cloned().collect(),
        ..Default::default()
    }
}

fn completed(call: &Call, data: &serde_json::Value, text: &str) -> a2a::Task {
    let result = a2a::Artifact {
        artifact_id: "result".to_owned(),
        name: "result".to_owned(),
        parts: vec![
            part(a2a::part::Content::Data(pbconv::json_value_to_proto_value(data))),
            part(a2a::part::Content::Text(text.to_owned())),
        ],
        ..Default::default()
    };
    a2a::Task {
        artifacts: vec![result],
        ..task(call, a2a::TaskState::Completed, text)
    }
}

#[tonic::async_trait]
impl A2aService for Service {
    type SendStreamingMessageStream = BoxStream<'static, Event>;
    type SubscribeToTaskStream = BoxStream<'static, Event>;

    async fn send_message(
        &self,
        request: Request<a2a::SendMessageRequest>,
    ) -> Result<Response<a2a::SendMessageResponse>, Status> {
        use a2a::send_message_response::Payload as Unary;
        use a2a::stream_response::Payload as Streamed;

        let call = Call::read(&request, false);
        lock(&self.0.calls).push(call.clone());
        self.0.pass().await;
        let mut answer = None;
        for event in self.events(&call) {
            match event?.payload {
                Some(Streamed::Task(task)) => answer = Some(Unary::Task(self.find(&task.id)?)),
                Some(Streamed::Message(message)) => answer = Some(Unary::Message(message)),
                Some(Streamed::StatusUpdate(_) | Streamed::ArtifactUpdate(_)) | None => {}
            }
        }
        let mut response = Response::new(a2a::SendMessageResponse { payload: answer });
        if let Some(load) = *lock(&self.0.load) {
            let told = format!("TEXT application_utilization={load}");
            let told = told
                .parse()
                .map_err(|_| Status::internal("a number is no metadata"))?;
            response.metadata_mut().insert("endpoint-load-metrics", told);
        }
        Ok(response)
    }

    async fn send_streaming_message(
        &self,
        request: Request<a2a::SendMessageRequest>,
    ) -> Result<Response<Self::SendStreamingMessageStream>, Status> {
        let call = Call::read(&request, true);
        lock(&self.0.calls).push(call.clone());
        let events = self.events(&call);
        let state = Arc::clone(&self.0);
        let gated = stream::iter(events).then(move |event| {
            let state = Arc::clone(&state);
            async move {
                state.pass().await;
                event
            }
        });
        Ok(Response::new(gated.boxed()))
    }

    async fn get_task(&self, request: Request<a2a::GetTaskRequest>) -> Result<Response<a2a::Task>, Status> {
        self.find(&request.get_ref().id).map(Response::new)
    }

    async fn list_tasks(
        &self,
        _: Request<a2a::ListTasksRequest>,
    ) -> Result<Response<a2a::ListTasksResponse>, Status> {
        let tasks: Vec<a2a::Task> = lock(&self.0.tasks).values().cloned().collect();
        let total_size = i32::try_from(tasks.len()).unwrap_or(i32::MAX);
        Ok(Response::new(a2a::ListTasksResponse {
            tasks,
            total_size,
            page_size: total_size,
            ..Default::default()
        }))
    }

    async fn cancel_task(
        &self,
        request: Request<a2a::CancelTaskRequest>,
    ) -> Result<Response<a2a::Task>, Status> {
        let mut task = self.find(&request.get_ref().id)?;
        if let Some(status) = &mut task.status {
            status.state = a2a::TaskState::Canceled.into();
        }
        lock(&self.0.tasks).insert(task.id.clone(), task.clone());
        Ok(Response::new(task))
    }

    async fn subscribe_to_task(
        &self,
        request: Request<a2a::SubscribeToTaskRequest>,
    ) -> Result<Response<Self::SubscribeToTaskStream>, Status> {
        let task = self.find(&request.get_ref().id)?;
        let snapshot = Ok(response(a2a::stream_response::Payload::Task(task)));
        Ok(Response::new(stream::iter([snapshot]).boxed()))
    }

    async fn create_task_push_notification_config(
        &self,
        _: Request<a2a::TaskPushNotificationConfig>,
    ) -> Result<Response<a2a::TaskPushNotificationConfig>, Status> {
        Err(no_push())
    }

    async fn get_task_push_notification_config(
        &self,
        _: Request<a2a::GetTaskPushNotificationConfigRequest>,
    ) -> Result<Response<a2a::TaskPushNotificationConfig>, Status> {
        Err(no_push())
    }

    async fn list_task_push_notification_configs(
        &self,
        _: Request<a2a::ListTaskPushNotificationConfigsRequest>,
    ) -> Result<Response<a2a::ListTaskPushNotificationConfigsResponse>, Status> {
        Err(no_push())
    }

    async fn get_extended_agent_card(
        &self,
        _: Request<a2a::GetExtendedAgentCardRequest>,
    ) -> Result<Response<a2a::AgentCard>, Status> {
        // As an agent says it to those who reach it directly.
        Ok(Response::new(a2a::AgentCard {
            name: "extended".to_owned(),
            version: "1.0.0".to_owned(),
            supported_interfaces: vec![a2a::AgentInterface {
                url: "http://inside.example".to_owned(),
                protocol_binding: "JSONRPC".to_owned(),
                protocol_version: "1.0".to_owned(),
                ..Default::default()
            }],
            skills: vec![a2a::AgentSkill {
                id: "hidden".to_owned(),
                name: "hidden".to_owned(),
                ..Default::default()
            }],
            signatures: vec![a2a::AgentCardSignature::default()],
            ..Default::default()
        }))
    }

    async fn delete_task_push_notification_config(
        &self,
        _: Request<a2a::DeleteTaskPushNotificationConfigRequest>,
    ) -> Result<Response<()>, Status> {
        Err(no_push())
    }
}

fn no_push() -> Status {
    Status::failed_precondition("the fake agent sends no push notifications")
}
