//! ProtoJSON to and from the wire types. The detour over the encoded message is the official crate's own way.

use a2a_pb::protojson_conv::{self, ProtoJsonPayload};
use http::header;
use muster_api::a2a::{self as pb, StreamResponse};
use muster_api::error::Error;
use muster_api::json::restore_integers;
use prost::Message as _;
use serde_json::{Value, json};
use tonic::Status;

use crate::error::ProtocolError;
use crate::service::{Answer, Head};

/// Parameters as the wire type.
pub(crate) fn decode<T: ProtoJsonPayload<Proto: prost::Message + Default>>(
    parameters: Value,
) -> Result<T::Proto, Box<Status>> {
    let invalid = |detail: String| Box::new(Status::from(Error::invalid_field("params", detail)));
    if !parameters.is_object() {
        return Err(invalid("is no JSON object".to_owned()));
    }
    let read: T::ProtoJson =
        serde_json::from_value(parameters).map_err(|error| invalid(error.to_string()))?;
    T::Proto::decode(read.encode_to_vec().as_slice()).map_err(|error| invalid(error.to_string()))
}

/// A wire type as JSON.
pub(crate) fn encode<T: ProtoJsonPayload>(message: &T::Proto) -> Result<Value, Box<Status>> {
    let invalid = |detail: String| {
        Box::new(ProtocolError::InvalidAgentResponse.status(format!("the answer is not A2A: {detail}")))
    };
    let native = T::try_from_proto(message).map_err(|error| invalid(error.to_string()))?;
    let mut value = protojson_conv::to_value(&native).map_err(|error| invalid(error.to_string()))?;
    restore_integers(&mut value);
    Ok(value)
}

/// One event of a stream as JSON.
///
/// # Errors
/// When it holds what JSON cannot.
pub fn event(event: &StreamResponse) -> Result<Value, Box<Status>> {
    encode::<a2a::StreamResponse>(event)
}

/// An answer as JSON; events are no single value.
pub(crate) fn single(answer: &Answer) -> Result<Value, Box<Status>> {
    match answer {
        Answer::Sent(response) => encode::<a2a::SendMessageResponse>(response),
        Answer::Task(task) => encode::<a2a::Task>(task),
        Answer::Tasks(tasks) => encode::<a2a::ListTasksResponse>(tasks).map(|value| whole_page(value, tasks)),
        Answer::PushConfig(config) => encode::<a2a::TaskPushNotificationConfig>(config),
        Answer::PushConfigs(configs) => encode::<a2a::ListTaskPushNotificationConfigsResponse>(configs),
        Answer::Card(card) => encode::<a2a::AgentCard>(card),
        Answer::Done | Answer::Events(_) => Ok(Value::Null),
    }
}

/// ProtoJSON leaves defaults out; A2A wants the fields of a page there always.
fn whole_page(mut value: Value, page: &pb::ListTasksResponse) -> Value {
    if let Value::Object(fields) = &mut value {
        for (name, default) in [
            ("tasks", json!([])),
            ("nextPageToken", json!("")),
            ("pageSize", json!(page.page_size)),
            ("totalSize", json!(page.total_size)),
        ] {
            fields.entry(name).or_insert(default);
        }
    }
    value
}

/// JSON by its own word. Asked for, because a browser sends other types across sites without asking; a body that says nothing
/// is taken for what the binding has.
pub(crate) fn check_media_type(head: &Head) -> Result<(), Box<Status>> {
    let Some(said) = head.headers.get(header::CONTENT_TYPE) else {
        return Ok(());
    };
    let said = String::from_utf8_lossy(said.as_bytes()).to_ascii_lowercase();
    let kind = said.split(';').next().unwrap_or_default().trim();
    if matches!(kind, "application/json" | "application/a2a+json") {
        return Ok(());
    }
    Err(Box::new(ProtocolError::ContentTypeNotSupported.status(format!(
        "the body is '{kind}'; send JSON with `content-type: application/json`, or `application/a2a+json` to HTTP+JSON"
    ))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_page_has_all_its_fields() {
        let page = pb::ListTasksResponse {
            page_size: 50,
            ..Default::default()
        };
        assert_eq!(
            single(&Answer::Tasks(page)).unwrap(),
            json!({"tasks": [], "nextPageToken": "", "pageSize": 50, "totalSize": 0})
        );
    }

    #[test]
    fn what_is_no_object_or_does_not_fit_is_refused_by_name() {
        for wrong in [json!([1]), json!({"id": 7})] {
            let refused = decode::<a2a::GetTaskRequest>(wrong).unwrap_err();
            assert_eq!(refused.code(), tonic::Code::InvalidArgument);
        }
        // A later version of the protocol may have more fields.
        let later = json!({"id": "t", "historyLength": 2, "mood": "good"});
        let read = decode::<a2a::GetTaskRequest>(later).unwrap();
        assert_eq!((read.id.as_str(), read.history_length), ("t", Some(2)));
    }
}
