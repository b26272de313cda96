//! Our copy of the A2A contract and the official crate's types are the same wire format: every field that one
//! writes, the other knows by the same number, name and type.

use a2a_pb::proto;
use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage};

fn pool() -> DescriptorPool {
    DescriptorPool::decode(muster_api::FILE_DESCRIPTOR_SET).expect("the descriptor set is complete")
}

/// Decodes what the official types wrote with our descriptors, and asserts that nothing is unknown at any depth.
fn understood<M: prost::Message>(name: &str, message: &M) -> String {
    let descriptor = pool()
        .get_message_by_name(name)
        .unwrap_or_else(|| panic!("{name} is missing"));
    let dynamic = DynamicMessage::decode(descriptor, message.encode_to_vec().as_slice())
        .unwrap_or_else(|error| panic!("{name}: {error}"));
    let text = dynamic.to_text_format_with_options(
        &prost_reflect::text_format::FormatOptions::new()
            .print_message_fields_in_index_order(true)
            .skip_unknown_fields(false),
    );
    let again = dynamic.encode_to_vec();
    assert_eq!(again.len(), message.encoded_len(), "{name} lost something");
    text
}

fn message() -> proto::Message {
    let part = |content| proto::Part {
        content: Some(content),
        metadata: Some(prost_types::Struct::default()),
        filename: "f".into(),
        media_type: "m".into(),
    };
    proto::Message {
        message_id: "m".into(),
        context_id: "c".into(),
        task_id: "t".into(),
        role: proto::Role::Agent.into(),
        parts: vec![
            part(proto::part::Content::Text("x".into())),
            part(proto::part::Content::Raw(vec![1])),
            part(proto::part::Content::Url("u".into())),
            part(proto::part::Content::Data(prost_types::Value::from(1.5))),
        ],
        metadata: Some(prost_types::Struct::default()),
        extensions: vec!["e".into()],
        reference_task_ids: vec!["r".into()],
    }
}

fn status() -> proto::TaskStatus {
    proto::TaskStatus {
        state: proto::TaskState::AuthRequired.into(),
        message: Some(message()),
        timestamp: Some(prost_types::Timestamp { seconds: 1, nanos: 2 }),
    }
}

fn artifact() -> proto::Artifact {
    proto::Artifact {
        artifact_id: "a".into(),
        name: "n".into(),
        description: "d".into(),
        parts: message().parts,
        metadata: Some(prost_types::Struct::default()),
        extensions: vec!["e".into()],
    }
}

#[test]
fn messages_tasks_and_events_agree() {
    let task = proto::Task {
        id: "t".into(),
        context_id: "c".into(),
        status: Some(status()),
        artifacts: vec![artifact()],
        history: vec![message()],
        metadata: Some(prost_types::Struct::default()),
    };
    let text = understood("lf.a2a.v1.Task", &task);
    for expected in [
        "context_id",
        "TASK_STATE_AUTH_REQUIRED",
        "ROLE_AGENT",
        "artifact_id",
        "reference_task_ids",
        "media_type",
    ] {
        assert!(text.contains(expected), "{expected} is missing in {text}");
    }
    understood(
        "lf.a2a.v1.StreamResponse",
        &proto::StreamResponse {
            payload: Some(proto::stream_response::Payload::StatusUpdate(
                proto::TaskStatusUpdateEvent {
                    task_id: "t".into(),
                    context_id: "c".into(),
                    status: Some(status()),
                    metadata: Some(prost_types::Struct::default()),
                },
            )),
        },
    );
    understood(
        "lf.a2a.v1.StreamResponse",
        &proto::StreamResponse {
            payload: Some(proto::stream_response::Payload::ArtifactUpdate(
                proto::TaskArtifactUpdateEvent {
                    task_id: "t".into(),
                    context_id: "c".into(),
                    artifact: Some(artifact()),
                    append: true,
                    last_chunk: true,
                    metadata: Some(prost_types::Struct::default()),
                },
            )),
        },
    );
}

#[test]
fn requests_agree() {
    let text = understood(
        "lf.a2a.v1.SendMessageRequest",
        &proto::SendMessageRequest {
            tenant: "weather".into(),
            message: Some(message()),
            configuration: Some(proto::SendMessageConfiguration {
                accepted_output_modes: vec!["text/plain".into()],
                task_push_notification_config: Some(proto::TaskPushNotificationConfig {
                    tenant: "x".into(),
                    id: "i".into(),
                    task_id: "t".into(),
                    url: "u".into(),
                    token: "k".into(),
                    authentication: Some(proto::AuthenticationInfo {
                        scheme: "s".into(),
                        credentials: "c".into(),
                    }),
                }),
                history_length: Some(3),
                return_immediately: true,
            }),
            metadata: Some(prost_types::Struct::default()),
        },
    );
    for expected in ["tenant", "return_immediately", "history_length", "credentials"] {
        assert!(text.contains(expected), "{expected} is missing in {text}");
    }
    understood(
        "lf.a2a.v1.ListTasksRequest",
        &proto::ListTasksRequest {
            tenant: "x".into(),
            context_id: "c".into(),
            status: proto::TaskState::Working.into(),
            page_size: Some(1),
            page_token: "p".into(),
            history_length: Some(1),
            status_timestamp_after: Some(prost_types::Timestamp::default()),
            include_artifacts: Some(true),
        },
    );
}

#[test]
fn the_service_offers_every_a2a_operation() {
    let service = pool()
        .get_service_by_name("lf.a2a.v1.A2AService")
        .expect("the service");
    let methods: Vec<String> = service.methods().map(|method| method.name().to_owned()).collect();
    assert_eq!(
        methods,
        [
            "SendMessage",
            "SendStreamingMessage",
            "GetTask",
            "ListTasks",
            "CancelTask",
            "SubscribeToTask",
            "CreateTaskPushNotificationConfig",
            "GetTaskPushNotificationConfig",
            "ListTaskPushNotificationConfigs",
            "GetExtendedAgentCard",
            "DeleteTaskPushNotificationConfig"
        ]
    );
}
