//! CloudEvents in JSON and in headers: anything is taken or refused without a panic, and what is taken is an event that is taken again
//! as it was.
//!
//! The first byte of the input says which form it has; in the binary form, the lines up to an empty one are headers.

use http::{HeaderMap, HeaderName, HeaderValue};
use muster_workflow_dsl::cloud_event::CloudEvent;
use muster_workflow_engine::http::binary;
use serde_json::Value;

/// See the module.
pub fn run(bytes: &[u8]) {
    let Some((form, rest)) = bytes.split_first() else {
        return;
    };
    let event = if form % 2 == 0 {
        serde_json::from_slice(rest).ok()
    } else {
        of_headers(rest)
    };
    let Some(event) = event else { return };
    if let Ok(taken) = CloudEvent::check(event) {
        assert!(!taken.id().is_empty());
        let again = CloudEvent::check(taken.to_value()).expect("an event that was taken is one");
        assert_eq!(again, taken);
    }
}

fn of_headers(bytes: &[u8]) -> Option<Value> {
    let end = bytes.windows(2).position(|pair| pair == b"\n\n");
    let (head, body) = bytes.split_at(end.unwrap_or(bytes.len()));
    let mut headers = HeaderMap::new();
    for line in head.split(|byte| *byte == b'\n') {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let (name, value) = line.split_at(colon);
        let name = HeaderName::from_bytes(name).ok()?;
        headers.append(name, HeaderValue::from_bytes(value.get(1..)?).ok()?);
    }
    let content_type = headers.get("content-type").and_then(|value| value.to_str().ok());
    let content_type = content_type.unwrap_or_default().to_owned();
    binary::read(
        &headers,
        &content_type,
        &content_type,
        body.get(2..).unwrap_or_default(),
    )
    .ok()
}
