//! Each file of the `examples/` of `serverlessworkflow/specification` in a document of our own (`tests/examples/`, under the same
//! name): the same shape, with a local library in place of public services. The table ([`fates`]) says of each what becomes of it.
//!
//! Files of versions before 1.0, and of proposals that the language has not taken up, have no counterpart.

mod fates;

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use muster_api::workflow::{HistoryEvent, ListRunsRequest, RunStatus, TriggerScheduleRequest};
use muster_testkit::wait_for;
use serde_json::{Value, json};
use tonic::Code;

use crate::grpc_service::{self, Reflection};
use crate::harness::{Engine, PATIENCE, ended};
use crate::service::{Reply, Seen, Service};
use fates::Fate::{self, Completes, Emits, Faults, Hears, Listens, Refused, Starts, Triggers};
use fates::{CHILD, fates};

/// The contract of the gRPC service that one of them calls.
const HEALTH: &str = "syntax = \"proto3\"; package grpc.health.v1;
    service Health { rpc Check(HealthCheckRequest) returns (HealthCheckResponse); }
    message HealthCheckRequest { string service = 1; }
    message HealthCheckResponse {
      enum ServingStatus { UNKNOWN = 0; SERVING = 1; NOT_SERVING = 2; SERVICE_UNKNOWN = 3; }
      ServingStatus status = 1;
    }";

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/examples")
}

/// The library: what it answers to whom.
fn library(flaky: &AtomicUsize, seen: &Seen) -> Reply {
    let base = format!("http://{}", seen.header("host"));
    let dune = json!({"id": 1, "title": "Dune"});
    match (seen.method.as_str(), seen.path.as_str()) {
        ("GET", "/books/1") => Reply::json(&dune),
        ("GET", "/books/2") => Reply::json(&json!({"id": 2, "author": format!("{base}/authors/1")})),
        ("GET", "/books/7") => Reply::json(&json!({"id": 7, "title": "Emma"})),
        ("GET", "/authors/1") => Reply::json(&json!({"name": "Frank"})),
        ("GET", "/books") if seen.query == "title=Dune" => Reply::json(&json!([dune])),
        ("GET", "/old-books") => Reply {
            status: 302,
            ..Reply::json(&json!({"moved": "/books"})).with("location", &format!("{base}/books"))
        },
        ("GET", "/books/flaky") if flaky.fetch_add(1, Ordering::SeqCst) % 3 < 2 => Reply::text(503, "busy"),
        ("GET", "/books/flaky") => Reply::json(&json!({"title": "At last"})),
        ("GET", "/private/1") if seen.header("authorization") == "Bearer t0ken" => {
            Reply::json(&json!({"title": "Private"}))
        }
        ("PUT", "/books/1") => Reply::json(&seen.json()),
        ("PUT", path) if path.starts_with("/alarms/") => Reply::json(&json!({"called": seen.json()["room"]})),
        ("POST", "/loans") => Reply::json(&json!({"lent": seen.json()["book"]})),
        ("GET", "/realm/.well-known/openid-configuration") => Reply::json(&json!({
            "issuer": format!("{base}/realm"),
            "token_endpoint": format!("{base}/realm/auth/token"),
        })),
        ("POST", path) if path.ends_with("/token") => {
            Reply::json(&json!({"access_token": "t0ken", "token_type": "Bearer", "expires_in": 60}))
        }
        ("POST", path) if path.starts_with("/rooms/") => Reply::json(&json!({"lit": path})),
        ("POST", "/inventories") => Reply::json(&json!({"inventory": "begun"})),
        ("GET", "/health.proto") => Reply::text(200, HEALTH),
        ("GET", "/readings") => Reply::json(&json!({"logged": true})),
        ("GET", "/report") => Reply::json(&json!({"report": "made"})),
        ("POST", "/notices") => Reply::json(&seen.json()),
        ("POST", "/announcements") => Reply::text(204, ""),
        ("POST", "/log") => Reply::json(&json!({"logged": seen.json()["message"]})),
        ("GET", "/functions/log/1.0.0/function.yaml") => Reply::text(
            200,
            &format!(
                "call: http\nwith: {{ method: post, endpoint: '{base}/log', body: {{ message: '${{ .message }}' }} }}\n"
            ),
        ),
        ("GET", "/openapi.json") => Reply::json(&openapi(&base)),
        ("GET", "/asyncapi.json") => Reply::json(&asyncapi(seen.header("host"))),
        _ => Reply::text(404, "no such book"),
    }
}

fn openapi(base: &str) -> Value {
    let ok = json!({"200": {"description": "found"}});
    let room = json!({"name": "room", "in": "query", "schema": {"type": "integer"}});
    let title = json!({"name": "title", "in": "query", "schema": {"type": "string"}});
    json!({
        "openapi": "3.0.3",
        "info": {"title": "Library", "version": "1.0.0"},
        "servers": [{"url": base}],
        "paths": {
            "/books": {"get": {"operationId": "findBooks", "parameters": [title], "responses": ok}},
            "/readings": {"get": {"operationId": "logReading", "parameters": [room], "responses": ok}},
            "/report": {"get": {"operationId": "makeReport", "responses": ok}},
        },
    })
}

fn asyncapi(host: &str) -> Value {
    json!({
        "asyncapi": "3.0.0",
        "info": {"title": "Library", "version": "1.0.0"},
        "servers": {"local": {"host": host, "protocol": "http"}},
        "channels": {"books": {"address": "/announcements"}},
        "operations": {"announceBook": {"action": "send", "channel": {"$ref": "#/channels/books"}}},
    })
}

/// Secrets of the namespace `examples`.
fn secrets(service: &Service) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let namespace = directory.path().join("examples");
    std::fs::create_dir_all(&namespace).unwrap();
    let login = json!({
        "authority": service.url("/realm"),
        "grant": "client_credentials",
        "client": {"id": "library", "secret": "open-sesame"},
    });
    std::fs::write(namespace.join("libraryLogin"), login.to_string()).unwrap();
    directory
}

/// A stand-in for the client of containers: one image greets, the other one is this machine's shell.
fn container_client(directory: &Path) -> String {
    let path = directory.join("client");
    let text = "#!/bin/sh\n[ \"$1\" = run ] || exit 0\nfor word in \"$@\"; do\n  shift\n  case \"$word\" in\n    \
                alpine) exec sh \"$@\";;\n    hello-world) echo Hello; echo careful >&2; exit 0;;\n  esac\ndone\nexit 125\n";
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path.display().to_string()
}

/// Writes a program that speaks MCP and posts messages.
fn mail_server(directory: &Path) {
    let hello = json!({"jsonrpc": "2.0", "id": 1, "result": {
        "protocolVersion": "2025-06-18", "capabilities": {"tools": {}}, "serverInfo": {"name": "mail", "version": "1"},
    }});
    let text = format!(
        "[ \"$*\" = '--transport stdio' ] || exit 2\nread hello\necho '{hello}'\nread initialized\nread asked\ncase \"$asked\" in\n  \
         *tools/call*'Hello, readers!'*post_message*) ;;\n  *) echo \"$asked\" >&2; exit 1;;\nesac\necho \
         '{{\"jsonrpc\":\"2.0\",\"id\":2,\"result\":{{\"content\":[{{\"type\":\"text\",\"text\":\"posted with '\"$TOKEN\"'\"}}],\"isError\":false}}}}'\n"
    );
    std::fs::write(directory.join("mail-server"), text).unwrap();
}

/// The documents beside the tests, with the addresses of these services and the place of these programs.
fn documents(service: &Service, grpc: &grpc_service::Service, programs: &Path) -> Vec<(String, String)> {
    let mut documents: Vec<(String, String)> = std::fs::read_dir(directory())
        .unwrap()
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            let text = std::fs::read_to_string(path).unwrap();
            let text = text.replace("GRPC", &grpc.address.port().to_string());
            let text = text.replace("PROGRAMS", &programs.display().to_string());
            (name, text.replace("LOCAL", service.url("").trim_end_matches('/')))
        })
        .collect();
    documents.sort();
    documents
}

#[tokio::test]
async fn each_example_runs_or_is_refused_as_the_table_says() {
    let flaky = AtomicUsize::new(0);
    let service = Service::start(move |seen| library(&flaky, seen)).await;
    let secrets = secrets(&service);
    let path = secrets.path().to_owned();
    let client = container_client(secrets.path());
    mail_server(secrets.path());
    let engine = Engine::start_with(|settings| {
        settings.outbound.allow = vec!["127.0.0.0/8".into()];
        settings.secrets.directory = Some(path);
        settings.mcp_stdio_commands = vec!["sh".into()];
        settings.run.shell = true;
        settings.run.script = true;
        settings.run.container = true;
        settings.run.container_program = client;
    })
    .await;
    engine.apply(CHILD).await;
    let fates = fates();
    let grpc = grpc_service::Service::start(Reflection::None).await;
    let documents = documents(&service, &grpc, secrets.path());
    let known: BTreeSet<&str> = fates.iter().map(|(name, _)| *name).collect();
    assert_eq!(known, documents.iter().map(|(name, _)| name.as_str()).collect());
    let mut wrong = Vec::new();
    for ((name, text), (_, fate)) in documents.iter().zip(&fates) {
        if let Err(why) = meets(&engine, name, text, fate).await {
            wrong.push(format!("{name}: {why}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Waits until a run of the workflow has completed; its output.
async fn output_of_the_first(engine: &Engine, name: &str) -> Value {
    let id = wait_for("a run to be started", PATIENCE, async || {
        let request = ListRunsRequest {
            name: name.to_owned(),
            ..Default::default()
        };
        let found = engine.search(request).await;
        found.into_iter().next().ok_or("there is none")
    })
    .await;
    let run = engine.until(&id, RunStatus::Completed).await;
    serde_json::from_str(&run.output_json).unwrap()
}

async fn meets(engine: &Engine, name: &str, text: &str, fate: &Fate) -> Result<(), String> {
    let read = muster_workflow_dsl::parse(text).map_err(|problems| problems.to_string());
    let (input, status) = match (fate, read) {
        (Refused(words), Err(problems)) if problems.contains(words) => {
            let refused = engine
                .start_run(text, "", "")
                .await
                .err()
                .map(|status| status.code());
            return if refused == Some(Code::InvalidArgument) {
                Ok(())
            } else {
                Err(format!("{refused:?}"))
            };
        }
        (Starts(kind, data, part, expected), Ok(_)) => {
            engine.apply(text).await;
            engine.publish(kind, data.clone()).await;
            let output = output_of_the_first(engine, name).await;
            return match output.pointer(part) {
                Some(value) if value == expected => Ok(()),
                _ => Err(format!("it completes with {output}")),
            };
        }
        (Triggers(expected), Ok(_)) => {
            engine.apply(text).await;
            let request = TriggerScheduleRequest {
                namespace: "examples".to_owned(),
                name: name.to_owned(),
                ..Default::default()
            };
            let started = engine.schedules().trigger_schedule(request).await;
            started.map_err(|status| status.to_string())?;
            let output = output_of_the_first(engine, name).await;
            return if output == *expected {
                Ok(())
            } else {
                Err(format!("it completes with {output}"))
            };
        }
        (_, Err(problems)) => return Err(problems),
        (Refused(words), Ok(_)) => return Err(format!("it is not refused with '{words}'")),
        (Completes(input, _) | Hears(input, ..), Ok(_)) => (input, RunStatus::Completed),
        (Emits(..), Ok(_)) => (&Value::Null, RunStatus::Completed),
        (Listens(..), Ok(_)) => (&Value::Null, RunStatus::Cancelled),
        (Faults(input, ..), Ok(_)) => (input, RunStatus::Faulted),
    };
    let input = if input.is_null() {
        String::new()
    } else {
        input.to_string()
    };
    let run = engine
        .start_run(text, "", &input)
        .await
        .map_err(|status| status.to_string())?;
    if let Hears(_, events, ..) = fate {
        engine.until_blocked(&run.run_id, "event").await;
        for (kind, data) in events {
            let mut event = json!({"source": "https://library.test/sensors", "type": kind, "data": data});
            if let Some(room) = data.get("room") {
                event["room"] = json!(room.to_string());
            }
            engine.publish_event(event).await.unwrap();
        }
    }
    if let Listens(kind, data) = fate {
        engine.until_blocked(&run.run_id, "event").await;
        engine.publish(kind, data.clone()).await;
        let worked_on = || async { engine.history(&run.run_id).await };
        wait_for("the event to be worked on", PATIENCE, async || {
            let history = worked_on().await;
            let posted =
                |event: &HistoryEvent| event.r#type == "task.completed" && event.task.ends_with("/post");
            history.iter().any(posted).then_some(()).ok_or("it is not")
        })
        .await;
        engine
            .cancel(&run.run_id)
            .await
            .map_err(|status| status.to_string())?;
    }
    let run = ended(engine, &run.run_id).await;
    if run.status() != status {
        return Err(format!("{:?}: {:?} {}", run.status(), run.error, run.output_json));
    }
    let output: Value = serde_json::from_str(&run.output_json).unwrap_or_default();
    match (fate, run.error) {
        (Completes(_, expected), _) if output == *expected => Ok(()),
        (Hears(_, _, part, expected), _) if output.pointer(part) == Some(expected) => Ok(()),
        (Listens(..), _) => Ok(()),
        (Emits(kind, data), _) if output["type"] == *kind && output["data"] == *data => Ok(()),
        (Completes(..) | Hears(..) | Emits(..), _) => Err(format!("it completes with {output}")),
        (Faults(_, kind, status), Some(error))
            if (error.r#type.as_str(), error.status) == (*kind, *status) =>
        {
            Ok(())
        }
        (_, error) => Err(format!("{error:?}")),
    }
}
