//! What stands around a message: what is needed to work on it again, and how long its caller waits.

use std::time::Duration;

use a2a_pb::proto as pb;
use http::HeaderMap;
use muster_a2a::Head;
use muster_api::error::Error;
use muster_api::extension;
use muster_rpc::deadline;
use muster_runtime::trace;
use tonic::Status;

use crate::tasks::record::Errand;

/// What came around a message and is needed to work on it again.
pub(super) fn errand(head: &Head, request: &pb::SendMessageRequest) -> Errand {
    let header = |name: &str| {
        let value = head.headers.get(name).and_then(|value| value.to_str().ok());
        value.unwrap_or_default().to_owned()
    };
    let (traceparent, tracestate) = asked_within(head, request);
    Errand {
        skill: header(extension::SKILL_METADATA),
        step_key: header(extension::STEP_KEY_METADATA),
        metadata: request.metadata.clone(),
        attempts: 0,
        traceparent,
        sent: None,
        tracestate: tracestate.unwrap_or_default(),
    }
}

/// The span that a message was sent within, as `traceparent` and `tracestate`: the current one, unless no header came and its metadata
/// name one.
fn asked_within(head: &Head, request: &pb::SendMessageRequest) -> (String, Option<String>) {
    let current = trace::texts(&trace::current());
    if head.headers.contains_key(trace::TRACEPARENT) {
        return current.unwrap_or_default();
    }
    let message = request.message.as_ref();
    let places = [
        request.metadata.as_ref(),
        message.and_then(|message| message.metadata.as_ref()),
    ];
    let named = places.into_iter().flatten().find_map(|metadata| {
        let text = |name: &str| match &metadata.fields.get(name)?.kind {
            Some(prost_types::value::Kind::StringValue(text)) => Some(text.as_str()),
            _ => None,
        };
        trace::texts(&trace::parsed(text(trace::TRACEPARENT)?, text(trace::TRACESTATE)))
    });
    named.or(current).unwrap_or_default()
}

/// How long the caller still waits, if it says so.
pub(super) fn time_left(headers: &HeaderMap) -> Result<Option<Duration>, Status> {
    let Some(value) = headers.get(deadline::HEADER) else {
        return Ok(None);
    };
    let text = String::from_utf8_lossy(value.as_bytes());
    match deadline::parse(&text) {
        Ok(left) => Ok(Some(left)),
        Err(error) => Err(Error::invalid_field(deadline::HEADER, error.to_string()).into()),
    }
}
