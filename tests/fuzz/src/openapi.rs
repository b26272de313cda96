//! Descriptions of services in OpenAPI, as others serve them: any text is a request or refused without a panic, the same each time, and
//! neither the variables of a description nor its references make of it more than is allowed.
//!
//! The first byte of the input says which parameters are given, the first line which operation is called, the rest is the description.

use muster_workflow_dsl::document::{ResponseFormat, UriTemplate};
use muster_workflow_dsl::request::{Destination, OpenApi, Resource};
use muster_workflow_engine::caller::openapi;
use serde_json::{Value, json};

/// Where the description is.
const ADDRESS: &str = "https://docs.example/v1/openapi.yaml";

/// See the module.
pub fn run(bytes: &[u8]) {
    let Some((which, rest)) = bytes.split_first() else {
        return;
    };
    let Ok(text) = std::str::from_utf8(rest) else {
        return;
    };
    let (operation, description) = text.split_once('\n').unwrap_or((text, ""));
    let parameters = [
        ("id", json!("a/b")),
        ("tags", json!(["p", 2, true])),
        ("filter", json!({"age": 3, "name": "x&y"})),
        ("body", json!({"name": "Rex"})),
        ("none", Value::Null),
    ];
    let given = parameters
        .into_iter()
        .zip(0..)
        .filter(|(_, bit)| which & (1 << bit) != 0)
        .map(|((name, value), _)| (name.to_owned(), value));
    let request = OpenApi {
        document: Resource {
            name: None,
            endpoint: Destination {
                uri: ADDRESS.to_owned(),
                authentication: None,
            },
        },
        operation: operation.to_owned(),
        parameters: given.collect(),
        authentication: None,
        output: ResponseFormat::Content,
        redirect: false,
    };
    let once = openapi::described(description, ADDRESS, &request);
    if let Ok(http) = &once {
        let most = 8 * UriTemplate::LONGEST + description.len();
        assert!(
            http.endpoint.uri.len() <= most,
            "{} bytes",
            http.endpoint.uri.len()
        );
        assert!(!http.method.is_empty());
    }
    assert_eq!(once, openapi::described(description, ADDRESS, &request));
}
