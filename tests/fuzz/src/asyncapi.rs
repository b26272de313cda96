//! Descriptions of services in AsyncAPI, as others serve them: any text is a request or refused without a panic, the same each time, and
//! the variables of a description make of it no more than is allowed.
//!
//! The first byte of the input says what is named, the first line is the name, the rest is the description.

use std::collections::BTreeMap;
use std::sync::Arc;

use muster_workflow_dsl::document::UriTemplate;
use muster_workflow_dsl::request::{AsyncApi, Destination, Resource};
use muster_workflow_engine::caller::asyncapi;
use serde_json::{Map, Value, json};

/// See the module.
pub fn run(bytes: &[u8]) {
    let Some((which, rest)) = bytes.split_first() else {
        return;
    };
    let Ok(text) = std::str::from_utf8(rest) else {
        return;
    };
    let (name, description) = text.split_once('\n').unwrap_or((text, ""));
    let named = |bit: u8, name: &str| (which & (1 << bit) != 0).then(|| name.to_owned());
    let variables: Map<String, Value> = [("room".to_owned(), json!("a b")), ("port".to_owned(), json!(1))]
        .into_iter()
        .collect();
    let request = AsyncApi {
        document: Resource {
            name: None,
            endpoint: Destination {
                uri: "https://docs.example/asyncapi.yaml".to_owned(),
                authentication: None,
            },
        },
        operation: named(0, name),
        channel: named(1, name),
        server: named(2, "web"),
        variables,
        protocol: named(3, "https"),
        payload: named(4, "").map(|_| Arc::new(json!({"hello": "world"}))),
        headers: BTreeMap::new(),
        authentication: None,
    };
    let once = asyncapi::described(description, &request);
    if let Ok(http) = &once {
        let most = 8 * UriTemplate::LONGEST + description.len();
        assert!(
            http.endpoint.uri.len() <= most,
            "{} bytes",
            http.endpoint.uri.len()
        );
    }
    assert_eq!(once, asyncapi::described(description, &request));
}
