//! Calls of operations that documents describe: OpenAPI and AsyncAPI.

use serde_json::json;

use crate::harness::{Engine, document};
use crate::http::engine;
use crate::service::{Reply, Seen, Service};

const OPENAPI: &str = r"
openapi: 3.0.0
servers: [{url: /api}]
paths:
  /pets/{petId}:
    get:
      operationId: getPet
      parameters: [{name: petId, in: path, required: true, schema: {type: string}}, {name: tag, in: query, schema: {type: array}}]
    put:
      operationId: putPet
      parameters: [{name: petId, in: path, required: true, schema: {type: string}}]
      requestBody: {content: {application/json: {}}}
";

/// A service that describes itself and shows what it is asked.
async fn service(path: &'static str, description: &'static str) -> Service {
    Service::start(move |seen: &Seen| {
        if seen.path == path {
            Reply::text(200, description)
        } else if seen.path == "/api/pets/gone" {
            Reply::text(404, "no such pet")
        } else {
            Reply::json(&json!({
                "method": seen.method, "path": seen.path, "query": seen.query, "body": seen.json(),
                "authorized": !seen.header("authorization").is_empty(),
            }))
        }
    })
    .await
}

fn operation(service: &Service, operation: &str, more: &str) -> String {
    document(&format!(
        "  - ask: {{call: openapi, with: {{document: {{endpoint: '{}'}}, operationId: {operation}{more}}}}}\n",
        service.url("/openapi.yaml")
    ))
}

#[tokio::test]
async fn an_operation_is_called_as_its_document_says() {
    let (engine, service) = (engine().await, service("/openapi.yaml", OPENAPI).await);
    let get = operation(
        &service,
        "getPet",
        ", parameters: {petId: '${ .id }', tag: [a, b]}",
    );
    assert_eq!(
        engine.output(&get, r#"{"id": "x/y"}"#).await,
        json!({"method": "GET", "path": "/api/pets/x%2Fy", "query": "tag=a&tag=b", "body": null, "authorized": false})
    );
    let put = operation(
        &service,
        "putPet",
        ", parameters: {petId: 1, body: {name: Rex}}, authentication: {bearer: {token: '${ .t }'}}, output: response",
    );
    let output = engine.output(&put, r#"{"t": "t0ken"}"#).await;
    assert_eq!(output["statusCode"], 200);
    assert_eq!(output["content"]["body"], json!({"name": "Rex"}));
    assert_eq!(output["content"]["authorized"], true);
    assert_eq!(output["request"]["uri"], service.url("/api/pets/1"));
    let described = service
        .seen()
        .iter()
        .filter(|seen| seen.path == "/openapi.yaml")
        .count();
    assert_eq!(described, 1, "the document is read once");
}

#[tokio::test]
async fn what_an_operation_cannot_do_is_told() {
    let (engine, service) = (engine().await, service("/openapi.yaml", OPENAPI).await);
    for (text, kind, status, words) in [
        (
            operation(&service, "getPat", ""),
            "validation",
            400,
            "did you mean 'getPet'",
        ),
        (
            operation(&service, "getPet", ""),
            "validation",
            400,
            "needs the parameter 'petId'",
        ),
        (
            operation(&service, "getPet", ", parameters: {petId: gone}"),
            "communication",
            404,
            "no such pet",
        ),
        (
            operation(&service, "getPet", "").replace("/openapi.yaml", "/api/pets/gone"),
            "communication",
            404,
            "cannot be read",
        ),
    ] {
        let error = engine.fault(&text).await;
        assert!(error.r#type.ends_with(&format!("/{kind}")), "{error:?}");
        assert_eq!(error.status, status, "{error:?}");
        assert!(error.detail.contains(words), "{error:?}");
    }
}

#[tokio::test]
async fn a_document_may_be_a_file_of_the_operators() {
    let directory = tempfile::tempdir().unwrap();
    let service = service("/none", "").await;
    let description = OPENAPI.replace("url: /api", &format!("url: '{}'", service.url("/api")));
    std::fs::write(directory.path().join("pets.yaml"), description).unwrap();
    let path = directory.path().to_owned();
    let with_files = Engine::start_with(|settings| {
        settings.outbound.allow = vec!["127.0.0.0/8".into()];
        settings.resource_directory = Some(path);
    })
    .await;
    let text = document(
        "  - ask: {call: openapi, with: {document: {endpoint: {uri: 'file://pets.yaml'}}, operationId: getPet, parameters: {petId: 1}}}\n",
    );
    assert_eq!(with_files.output(&text, "").await["path"], "/api/pets/1");
    let error = engine().await.fault(&text).await;
    assert!(error.r#type.ends_with("/configuration"), "{error:?}");
    assert!(error.detail.contains("engine.resource_directory"), "{error:?}");
}

#[tokio::test]
async fn a_description_that_does_not_come_is_left_at_the_deadline() {
    let engine = engine().await;
    let service = Service::start(|_| Reply::silence()).await;
    let text = operation(&service, "getPet", "").replace("with:", "timeout: {after: PT1S}, with:");
    let error = engine.fault(&text).await;
    assert!(error.r#type.ends_with("/timeout"), "{error:?}");
    service.until_gone(1).await;
    let text = operation(&service, "getPet", "");
    engine.start_run(&text, "r", "").await.unwrap();
    service.until_seen(2).await;
    let activity = engine.run("r").await.activity;
    assert!(
        activity[0].contains("reads the document that describes the service"),
        "{activity:?}"
    );
    engine.cancel("r").await.unwrap();
    service.until_gone(2).await;
}

const ASYNCAPI: &str = r"
asyncapi: 3.0.0
servers:
  broker: {host: 'kafka.example', protocol: kafka}
  web: {host: HOST, pathname: '/{stage}', protocol: http, variables: {stage: {default: test}}}
channels:
  greetings: {address: greetings}
operations:
  greet: {action: receive, channel: {$ref: '#/channels/greetings'}}
";

#[tokio::test]
async fn a_message_is_published_over_http() {
    let engine = engine().await;
    let service = Service::start(|seen: &Seen| match seen.path.as_str() {
        "/asyncapi.yaml" => Reply::text(
            200,
            &ASYNCAPI.replace("HOST", &format!("'{}'", seen.header("host"))),
        ),
        _ => Reply::text(202, ""),
    })
    .await;
    let text = document(&format!(
        "  - say:\n      call: asyncapi\n      with:\n        document: {{endpoint: '{}'}}\n        operation: greet\n        \
         server: {{name: web, variables: {{stage: live}}}}\n        message: {{payload: {{hello: '${{ .who }}'}}, headers: {{x-a: b}}}}\n",
        service.url("/asyncapi.yaml")
    ));
    let output = engine.output(&text, r#"{"who": "world"}"#).await;
    assert_eq!(output, serde_json::Value::Null);
    let seen = service.seen();
    let sent = seen.last().unwrap();
    assert_eq!(
        (sent.method.as_str(), sent.path.as_str()),
        ("POST", "/live/greetings")
    );
    assert_eq!(
        (sent.json(), sent.header("x-a")),
        (json!({"hello": "world"}), "b")
    );
    assert_eq!(sent.header("content-type"), "application/json");
    let error = engine.fault(&text.replace("name: web", "name: broker")).await;
    assert!(error.r#type.ends_with("/configuration"), "{error:?}");
    assert!(error.detail.contains("speaks 'kafka'"), "{error:?}");
}
