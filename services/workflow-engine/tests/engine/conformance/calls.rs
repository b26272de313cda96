//! The kit's scenarios that call services, with a library on this machine.

use muster_api::workflow::RunStatus;
use serde_json::json;

use super::Scenario;
use crate::harness::Engine;
use crate::service::{Reply, Seen, Service};

async fn stage() -> (Engine, Service) {
    let service = Service::start(library).await;
    let engine = Engine::start_with(|settings| settings.outbound.allow = vec!["127.0.0.0/8".into()]).await;
    (engine, service)
}

fn library(seen: &Seen) -> Reply {
    let book = |id: u32| json!({"id": id, "title": format!("Book {id}"), "state": "on loan"});
    match seen.path.as_str() {
        "/books/1" => Reply::json(&book(1)),
        "/books/2" => Reply::json(&book(2)),
        "/books" if seen.query == "state=on+loan" || seen.query == "state=on%20loan" => {
            Reply::json(&json!([book(1), book(2)]))
        }
        // anna:secret
        "/login/anna/secret" if seen.header("authorization") == "Basic YW5uYTpzZWNyZXQ=" => {
            Reply::json(&json!({"in": true}))
        }
        "/openapi.json" => Reply::json(&json!({
            "openapi": "3.0.3",
            "info": {"title": "Library", "version": "1.0.0"},
            "servers": [{"url": format!("http://{}", seen.header("host"))}],
            "paths": {
                "/books": {"get": {
                    "operationId": "findBooksByState",
                    "parameters": [{"name": "state", "in": "query", "required": true, "schema": {"type": "string"}}],
                    "responses": {"200": {"description": "found"}},
                }},
                "/books/{bookId}": {"get": {
                    "operationId": "getBookById",
                    "parameters": [{"name": "bookId", "in": "path", "required": true, "schema": {"type": "integer"}}],
                    "responses": {"200": {"description": "found"}},
                }},
            },
        })),
        _ => Reply::text(404, "no such book"),
    }
}

const OF_A_RESPONSE: [&str; 7] = [
    "request",
    "request.method",
    "request.uri",
    "request.headers",
    "headers",
    "statusCode",
    "content",
];

#[tokio::test]
async fn call_http_with_content_as_output() {
    let (engine, service) = stage().await;
    let tasks = format!(
        "  - find: {{call: http, with: {{method: get, endpoint: {{uri: '{}'}}}}, output: {{as: '.[0]'}}}}\n",
        service.url("/books?state={state}")
    );
    let scenario = Scenario::executed(&engine, &tasks, json!({"state": "on loan"})).await;
    scenario.completes().has_properties(&["id", "title", "state"]);
}

#[tokio::test]
async fn call_http_with_the_response_as_output() {
    let (engine, service) = stage().await;
    let tasks = format!(
        "  - read: {{call: http, with: {{method: get, endpoint: {{uri: '{}'}}, output: response}}}}\n",
        service.url("/books/{bookId}")
    );
    let scenario = Scenario::executed(&engine, &tasks, json!({"bookId": 1})).await;
    scenario
        .completes()
        .has_properties(&OF_A_RESPONSE)
        .has_properties(&["content.id", "content.title", "content.state"]);
}

#[tokio::test]
async fn call_http_with_basic_authentication() {
    let (engine, service) = stage().await;
    let tasks = format!(
        "  - login: {{call: http, with: {{method: get, endpoint: {{uri: '{}', authentication: {{basic: {{username: '${{ .username }}', password: '${{ .password }}'}}}}}}}}}}\n",
        service.url("/login/{username}/{password}")
    );
    let scenario =
        Scenario::executed(&engine, &tasks, json!({"username": "anna", "password": "secret"})).await;
    scenario.completes_with(&json!({"in": true}));
}

#[tokio::test]
async fn data_flow_filters_the_output() {
    let (engine, service) = stage().await;
    let tasks = format!(
        "  - read: {{call: http, with: {{method: get, endpoint: {{uri: '{}'}}}}, output: {{as: .id}}}}\n",
        service.url("/books/{bookId}")
    );
    let scenario = Scenario::executed(&engine, &tasks, json!({"bookId": 1})).await;
    scenario.completes_with(&json!(1));
}

#[tokio::test]
async fn data_flow_with_outputs_that_are_no_objects() {
    let (engine, service) = stage().await;
    let tasks = format!(
        "  - one: {{call: http, with: {{method: get, endpoint: {{uri: '{}'}}}}, output: {{as: .id}}}}\n  \
         - two: {{call: http, with: {{method: get, endpoint: {{uri: '{}'}}}}, output: {{as: '{{ids: [$input, .id]}}'}}}}\n",
        service.url("/books/{bookId}"),
        service.url("/books/2")
    );
    let scenario = Scenario::executed(&engine, &tasks, json!({"bookId": 1})).await;
    scenario.completes_with(&json!({"ids": [1, 2]}));
}

/// Reads a book that is not there, and handles errors of this status. The kit names the type as it was before 1.0.
fn trying(service: &Service, status: u16) -> String {
    format!(
        "
  - attempt:
      try:
        - read: {{call: http, with: {{method: get, endpoint: {{uri: '{}'}}}}}}
      catch:
        errors: {{with: {{type: 'https://serverlessworkflow.io/dsl/errors/types/communication', status: {status}}}}}
        as: err
        do:
          - keep: {{set: {{error: '${{ $err }}'}}}}
",
        service.url("/books/by-title/{title}")
    )
}

#[tokio::test]
async fn try_handles_an_error_that_is_caught() {
    let (engine, service) = stage().await;
    let scenario = Scenario::executed(&engine, &trying(&service, 404), json!({"title": "Emma"})).await;
    scenario
        .completes()
        .has_properties(&["error", "error.type", "error.status", "error.title"]);
    assert_eq!(scenario.output["error"]["instance"], "/do/0/attempt/try/0/read");
}

#[tokio::test]
async fn try_fails_with_an_error_that_is_not_caught() {
    let (engine, service) = stage().await;
    let scenario = Scenario::executed(&engine, &trying(&service, 503), json!({"title": "Emma"})).await;
    assert_eq!(scenario.faults().status, 404);
    assert_eq!(scenario.status, RunStatus::Faulted);
}

#[tokio::test]
async fn call_openapi_with_content_as_output() {
    let (engine, service) = stage().await;
    let tasks = format!(
        "  - find: {{call: openapi, with: {{document: {{endpoint: '{}'}}, operationId: findBooksByState, parameters: {{state: '${{ .state }}'}}}}, output: {{as: '. | length'}}}}\n",
        service.url("/openapi.json")
    );
    let scenario = Scenario::executed(&engine, &tasks, json!({"state": "on loan"})).await;
    scenario.completes_with(&json!(2));
}

#[tokio::test]
async fn call_openapi_with_the_response_as_output() {
    let (engine, service) = stage().await;
    let tasks = format!(
        "  - read: {{call: openapi, with: {{document: {{endpoint: '{}'}}, operationId: getBookById, parameters: {{bookId: '${{ .bookId }}'}}, output: response}}}}\n",
        service.url("/openapi.json")
    );
    let scenario = Scenario::executed(&engine, &tasks, json!({"bookId": 1})).await;
    scenario
        .completes()
        .has_properties(&OF_A_RESPONSE)
        .has_properties(&["content.id", "content.title", "content.state"]);
}
