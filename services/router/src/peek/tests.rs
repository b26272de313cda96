use std::collections::BTreeMap;

use muster_api::a2a::{self, SendMessageRequest, SendMessageResponse, StreamResponse, part, stream_response};
use proptest::prelude::*;
use prost::Message as _;
use prost_types::value::Kind;
use prost_types::{ListValue, Struct};

use super::*;
use crate::operation::{
    GetTask, ListTaskPushNotificationConfigs, METHODS, Operation, SendMessage, SendStreamingMessage, Tenanted,
};

fn data() -> impl Strategy<Value = prost_types::Value> {
    let leaf = prop_oneof![
        Just(None),
        Just(Some(Kind::NullValue(0))),
        any::<bool>().prop_map(|value| Some(Kind::BoolValue(value))),
        (-1e9..1e9).prop_map(|value| Some(Kind::NumberValue(value))),
        ".{0,8}".prop_map(|value| Some(Kind::StringValue(value))),
    ]
    .prop_map(|kind| prost_types::Value { kind });
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4)
                .prop_map(|values| Kind::ListValue(ListValue { values })),
            fields(inner).prop_map(Kind::StructValue),
        ]
        .prop_map(|kind| prost_types::Value { kind: Some(kind) })
    })
}

fn fields(inner: impl Strategy<Value = prost_types::Value>) -> impl Strategy<Value = Struct> {
    let key = prop_oneof![Just(ROUTING.to_owned()), ".{0,4}"];
    proptest::collection::btree_map(key, inner, 0..4).prop_map(|fields: BTreeMap<_, _>| Struct { fields })
}

fn metadata() -> impl Strategy<Value = Option<Struct>> {
    proptest::option::of(fields(data()))
}

fn part() -> impl Strategy<Value = a2a::Part> {
    let content = prop_oneof![
        Just(None),
        ".{0,20}".prop_map(|text| Some(part::Content::Text(text))),
        any::<Vec<u8>>().prop_map(|raw| Some(part::Content::Raw(raw))),
        ".{0,20}".prop_map(|url| Some(part::Content::Url(url))),
        data().prop_map(|data| Some(part::Content::Data(data))),
    ];
    (content, metadata(), ".{0,5}", ".{0,5}").prop_map(|(content, metadata, filename, media_type)| {
        a2a::Part {
            content,
            metadata,
            filename,
            media_type,
        }
    })
}

fn message() -> impl Strategy<Value = a2a::Message> {
    (
        (".{0,8}", ".{0,8}", ".{0,8}", -2..5_i32),
        proptest::collection::vec(part(), 0..4),
        metadata(),
        proptest::collection::vec(".{0,8}", 0..3),
    )
        .prop_map(
            |((message_id, context_id, task_id, role), parts, metadata, extensions)| a2a::Message {
                message_id,
                context_id,
                task_id,
                role,
                parts,
                metadata,
                reference_task_ids: extensions.clone(),
                extensions,
            },
        )
}

fn request() -> impl Strategy<Value = SendMessageRequest> {
    let configuration = proptest::option::of((any::<Option<i32>>(), any::<bool>()).prop_map(
        |(history_length, return_immediately)| a2a::SendMessageConfiguration {
            history_length,
            return_immediately,
            ..a2a::SendMessageConfiguration::default()
        },
    ));
    (
        ".{0,8}",
        proptest::option::of(message()),
        configuration,
        metadata(),
    )
        .prop_map(|(tenant, message, configuration, metadata)| SendMessageRequest {
            tenant,
            message,
            configuration,
            metadata,
        })
}

fn status() -> impl Strategy<Value = Option<a2a::TaskStatus>> {
    proptest::option::of(
        (0..12_i32, proptest::option::of(message())).prop_map(|(state, message)| a2a::TaskStatus {
            state,
            message,
            timestamp: Some(prost_types::Timestamp { seconds: 5, nanos: 1 }),
        }),
    )
}

fn event() -> impl Strategy<Value = StreamResponse> {
    use stream_response::Payload;
    let task =
        (".{0,8}", status(), proptest::collection::vec(message(), 0..3)).prop_map(|(id, status, history)| {
            Payload::Task(a2a::Task {
                id,
                status,
                history,
                ..a2a::Task::default()
            })
        });
    let update = (".{0,8}", status()).prop_map(|(task_id, status)| {
        Payload::StatusUpdate(a2a::TaskStatusUpdateEvent {
            task_id,
            status,
            ..a2a::TaskStatusUpdateEvent::default()
        })
    });
    let artifact = (".{0,8}", proptest::collection::vec(part(), 0..3)).prop_map(|(task_id, parts)| {
        let artifact = a2a::Artifact {
            parts,
            ..a2a::Artifact::default()
        };
        Payload::ArtifactUpdate(a2a::TaskArtifactUpdateEvent {
            task_id,
            artifact: Some(artifact),
            append: true,
            ..a2a::TaskArtifactUpdateEvent::default()
        })
    });
    let payload = prop_oneof![task, update, artifact, message().prop_map(Payload::Message)];
    proptest::option::of(payload).prop_map(|payload| StreamResponse { payload })
}

/// What the router would read of a decoded message.
fn expected(message: &a2a::Message) -> Message {
    Message {
        message_id: message.message_id.clone(),
        context_id: message.context_id.clone(),
        task_id: message.task_id.clone(),
        role: message.role,
        parts: message.parts.len(),
        empty_part: message.parts.iter().position(|part| part.content.is_none()),
    }
}

fn routing(request: &SendMessageRequest) -> Option<prost_types::Value> {
    let of_message = request
        .message
        .as_ref()
        .and_then(|message| message.metadata.as_ref());
    [request.metadata.as_ref(), of_message]
        .into_iter()
        .flatten()
        .find_map(|metadata| metadata.fields.get(ROUTING).cloned())
}

fn agrees(sent: &Sent, request: &SendMessageRequest) -> Result<(), TestCaseError> {
    prop_assert_eq!(sent.encoded.tenant(), &request.tenant);
    prop_assert_eq!(&sent.message, &request.message.as_ref().map(expected));
    let found = sent
        .routing
        .as_ref()
        .map(|value| prost_types::Value::decode(value.as_ref()).unwrap());
    prop_assert_eq!(found, routing(request));
    Ok(())
}

fn held(event: &StreamResponse) -> Held {
    use stream_response::Payload;
    let ended = |status: &Option<a2a::TaskStatus>| {
        let state = status.as_ref().map(|status| status.state);
        matches!(state, Some(3 | 4 | 5 | 7))
    };
    match &event.payload {
        Some(Payload::Task(task)) => Held::Task {
            id: task.id.clone(),
            has_ended: ended(&task.status),
        },
        Some(Payload::StatusUpdate(update)) => Held::Task {
            id: update.task_id.clone(),
            has_ended: ended(&update.status),
        },
        Some(Payload::ArtifactUpdate(update)) => Held::Task {
            id: update.task_id.clone(),
            has_ended: false,
        },
        Some(Payload::Message(_)) => Held::Other,
        None => Held::Nothing,
    }
}

/// A message with a few bytes changed, cut or added: most are malformed, some are not.
fn damaged(mut bytes: Vec<u8>, damage: &[(proptest::sample::Index, u8, u8)]) -> Vec<u8> {
    for (place, action, byte) in damage {
        if bytes.is_empty() {
            bytes.push(*byte);
        }
        let place = place.index(bytes.len());
        match action % 4 {
            0 => bytes[place] = *byte,
            1 => bytes.insert(place, *byte),
            2 => {
                bytes.remove(place);
            }
            _ => bytes.truncate(place),
        }
    }
    bytes
}

fn damage() -> impl Strategy<Value = Vec<(proptest::sample::Index, u8, u8)>> {
    proptest::collection::vec(any::<(proptest::sample::Index, u8, u8)>(), 0..4)
}

proptest! {
    #[test]
    fn it_agrees_with_the_decoder(request in request()) {
        let sent = Sent::read(request.encode_to_vec().into()).unwrap();
        agrees(&sent, &request)?;
    }

    #[test]
    fn what_it_takes_the_decoder_takes_with_the_same_values(request in request(), damage in damage()) {
        let bytes = damaged(request.encode_to_vec(), &damage);
        if let Ok(sent) = Sent::read(bytes.clone().into()) {
            let decoded = SendMessageRequest::decode(bytes.as_slice());
            prop_assert!(decoded.is_ok(), "{decoded:?}");
            agrees(&sent, &decoded.unwrap_or_default())?;
        }
    }

    #[test]
    fn replacing_the_tenant_changes_nothing_else(request in request(), tenant in ".{0,8}", unknown in any::<Option<u64>>()) {
        let mut bytes = request.encode_to_vec();
        if let Some(number) = unknown {
            prost::encoding::uint64::encode(60, &number, &mut bytes);
        }
        let sent = Sent::read(bytes.clone().into()).unwrap();
        let replaced = sent.encoded.with_tenant(&tenant);
        prop_assert_eq!(replaced.len(), replaced.to_vec().len());
        let replaced = replaced.to_vec();
        let mut wanted = request;
        wanted.set_tenant(tenant.clone());
        prop_assert_eq!(SendMessageRequest::decode(replaced.as_slice()).unwrap(), wanted);
        prop_assert_eq!(sent.encoded.with_tenant("").to_vec(), {
            let again = Sent::read(replaced.into()).unwrap();
            again.encoded.with_tenant("").to_vec()
        });
        if unknown.is_some() {
            prop_assert!(bytes.ends_with(&sent.encoded.with_tenant(&tenant).0[2]));
        }
    }

    #[test]
    fn answers_are_read_as_the_decoder_reads_them(event in event(), damage in damage()) {
        let whole = event.encode_to_vec();
        prop_assert_eq!(Held::read(SendStreamingMessage::METHOD, &whole).unwrap(), held(&event));
        let bytes = damaged(whole, &damage);
        if let Ok(found) = Held::read(SendStreamingMessage::METHOD, &bytes) {
            let decoded = StreamResponse::decode(bytes.as_slice());
            prop_assert!(decoded.is_ok(), "{decoded:?}");
            prop_assert_eq!(found, held(&decoded.unwrap_or_default()));
        }
        if Held::read(SendMessage::METHOD, &bytes).is_ok() {
            prop_assert!(SendMessageResponse::decode(bytes.as_slice()).is_ok());
        }
    }

    #[test]
    fn any_bytes_get_an_answer(bytes in any::<Vec<u8>>()) {
        let _ = Sent::read(bytes.clone().into());
        for method in METHODS {
            let _ = Asked::read(method, bytes.clone().into());
            let _ = Held::read(method, &bytes);
        }
    }
}

#[test]
fn requests_about_tasks_name_tenant_and_task_wherever_they_stand() {
    let request = a2a::GetTaskRequest {
        tenant: "weather".to_owned(),
        id: "t".to_owned(),
        history_length: Some(-1),
    };
    let asked = Asked::read(GetTask::METHOD, request.encode_to_vec().into()).unwrap();
    assert_eq!((asked.encoded.tenant(), asked.task.as_str()), ("weather", "t"));

    let request = a2a::ListTaskPushNotificationConfigsRequest {
        tenant: "weather".to_owned(),
        task_id: "t".to_owned(),
        page_size: 7,
        page_token: "p".to_owned(),
    };
    let asked = Asked::read(
        ListTaskPushNotificationConfigs::METHOD,
        request.encode_to_vec().into(),
    )
    .unwrap();
    assert_eq!((asked.encoded.tenant(), asked.task.as_str()), ("weather", "t"));
    let replaced = asked.encoded.with_tenant("own").to_vec();
    let wanted = a2a::ListTaskPushNotificationConfigsRequest {
        tenant: "own".to_owned(),
        ..request
    };
    assert_eq!(
        a2a::ListTaskPushNotificationConfigsRequest::decode(replaced.as_slice()).unwrap(),
        wanted
    );
}

#[test]
fn what_stands_twice_is_refused_by_name() {
    let message = |message_id: &str| SendMessageRequest {
        tenant: "weather".to_owned(),
        message: Some(a2a::Message {
            message_id: message_id.to_owned(),
            ..a2a::Message::default()
        }),
        ..SendMessageRequest::default()
    };
    let refused = |bytes: Vec<u8>| {
        let defect = Sent::read(bytes.into()).unwrap_err();
        (defect.field, defect.what)
    };
    let (one, other) = (message("a").encode_to_vec(), message("b").encode_to_vec());
    assert_eq!(
        refused([one.as_slice(), &other].concat()),
        ("tenant".to_owned(), TWICE)
    );
    let tenant = 9;
    assert_eq!(
        refused([one.as_slice(), &other[tenant..]].concat()),
        ("message".to_owned(), TWICE)
    );

    let twice = [&one[tenant + 2..], &other[tenant + 2..]].concat();
    let mut nested = Vec::new();
    prost::encoding::bytes::encode(2, &twice, &mut nested);
    assert_eq!(refused(nested), ("message.messageId".to_owned(), TWICE));

    let metadata = Struct {
        fields: [(ROUTING.to_owned(), prost_types::Value::default())].into(),
    }
    .encode_to_vec();
    let mut nested = Vec::new();
    prost::encoding::bytes::encode(4, &metadata.repeat(2), &mut nested);
    assert_eq!(refused(nested).1, TWICE);
}
