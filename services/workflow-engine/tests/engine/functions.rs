//! Functions of one's own: in the document, in catalogs, at addresses.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use muster_api::workflow::RunStatus;
use serde_json::json;

use crate::harness::{document, reason, send};
use crate::http::engine;
use crate::service::{Reply, Seen, Service};

fn with_use(section: &str, tasks: &str) -> String {
    document(tasks).replace("\ndo:\n", &format!("\nuse: {section}\ndo:\n"))
}

#[tokio::test]
async fn a_function_is_called_with_its_arguments() {
    let engine = engine().await;
    let service = Service::start(|seen: &Seen| Reply::json(&json!({"path": seen.path}))).await;
    let text = with_use(
        &format!(
            "{{functions: {{getPet: {{input: {{schema: {{document: {{required: [petId]}}}}}}, call: http, with: {{method: get, endpoint: '{}'}}, output: {{as: '.path'}}}}}}}}",
            service.url("/pets/{petId}")
        ),
        "  - first: {call: getPet, with: {petId: '${ .id }'}}\n  - second: {call: getPet, with: {petId: '${ . }'}, output: {as: '{got: .}'}}\n",
    );
    assert_eq!(
        engine.output(&text, r#"{"id": "a"}"#).await,
        json!({"got": "/pets/%2Fpets%2Fa"})
    );
    let error = engine
        .fault(&text.replace("with: {petId: '${ .id }'}", "with: {pet: 1}"))
        .await;
    assert!(error.r#type.ends_with("/validation"), "{error:?}");
    assert_eq!(error.instance, "/use/functions/getPet");
}

#[tokio::test]
async fn each_call_of_a_function_sends_its_own_messages() {
    let engine = engine().await;
    let tasks = send("weather", "x").replace("  - weather:\n", "");
    let text = with_use(
        &format!("\n  functions:\n    ask:\n{tasks}"),
        "  - one: {call: ask}\n  - two: {call: ask}\n  - each: {for: {in: '[1, 2]'}, do: [{three: {call: ask}}]}\n",
    );
    engine.output(&text, "").await;
    assert_eq!(engine.router.calls_by_message_id().len(), 4);
    assert_eq!(engine.router.calls().len(), 4);
}

#[tokio::test]
async fn a_restart_goes_on_inside_a_function() {
    let mut engine = engine().await;
    let tasks = send("weather", "x").replace("  - weather:\n", "");
    let text = with_use(
        &format!("\n  functions:\n    ask:\n{tasks}"),
        "  - one: {call: ask}\n",
    );
    engine.router.hold();
    engine.start_run(&text, "r", "").await.unwrap();
    engine.until_held(1).await;
    engine.restart().await;
    engine.router.release_all();
    engine.until("r", RunStatus::Completed).await;
    assert_eq!(engine.router.calls_by_message_id().len(), 1, "the same message");
}

/// A catalog whose functions change each time they are read.
async fn catalog() -> (Service, Arc<AtomicUsize>) {
    let read = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&read);
    let service = Service::start(move |seen: &Seen| match seen.path.as_str() {
        "/functions/log/1.0.0/function.yaml" => {
            let number = count.fetch_add(1, Ordering::SeqCst) + 1;
            Reply::text(
                200,
                &format!("input: {{schema: {{document: {{required: [message]}}}}}}\nset: {{logged: '${{ .message }}', edition: {number}}}\n"),
            )
        }
        "/functions/outer/1/function.yaml" => {
            let host = seen.header("host");
            Reply::text(200, &format!("call: 'http://{host}/functions/log/1.0.0/function.yaml'\nwith: {{message: '${{ .m }}'}}\n"))
        }
        "/functions/broken/1/function.yaml" => Reply::text(200, "sett: {a: 1}\n"),
        _ => Reply::text(404, "no such function"),
    })
    .await;
    (service, read)
}

#[tokio::test]
async fn a_function_of_a_catalog_is_pinned_when_the_run_begins() {
    let mut engine = engine().await;
    let (service, read) = catalog().await;
    let text = with_use(
        &format!(
            "{{catalogs: {{mine: {{endpoint: {{uri: '{}'}}}}}}}}",
            service.url("")
        ),
        "  - wait: {wait: PT1S}\n  - log: {call: 'log:1.0.0@mine', with: {message: hi}}\n",
    );
    engine.start_run(&text, "r", "").await.unwrap();
    assert_eq!(
        read.load(Ordering::SeqCst),
        1,
        "it is read before the run is acknowledged"
    );
    engine.stop().await;
    drop(service);
    engine.launch().await;
    let run = engine.until("r", RunStatus::Completed).await;
    assert_eq!(run.output_json, r#"{"edition":1,"logged":"hi"}"#);
}

#[tokio::test]
async fn what_was_pinned_is_what_a_retry_and_a_fork_go_on_with() {
    let engine = engine().await;
    let (service, read) = catalog().await;
    let fails = "  - log: {call: 'log:1.0.0@mine', with: {message: hi}}\n  - fail: {if: '.edition == 1', raise: {error: {type: \
                 'https://test.test/x', status: 500}}}\n";
    let catalogs = format!("{{catalogs: {{mine: {{endpoint: '{}'}}}}}}", service.url(""));
    engine
        .start_run(&with_use(&catalogs, fails), "r", "")
        .await
        .unwrap();
    engine.until("r", RunStatus::Faulted).await;
    drop(service);
    engine.retry("r", "log").await.unwrap();
    let run = engine.until("r", RunStatus::Faulted).await;
    assert_eq!(run.retries, 1);
    engine.fork("r", "fail", "f", r#"{"edition": 2}"#).await.unwrap();
    let run = engine.until("f", RunStatus::Completed).await;
    assert_eq!(run.output_json, r#"{"edition":2}"#);
    assert_eq!(read.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn functions_at_addresses_may_call_others() {
    let engine = engine().await;
    let (service, _) = catalog().await;
    let text = document(&format!(
        "  - a: {{call: '{}', with: {{m: hello}}}}\n",
        service.url("/functions/outer/1/function.yaml")
    ));
    assert_eq!(
        engine.output(&text, "").await,
        json!({"logged": "hello", "edition": 1})
    );
}

#[tokio::test]
async fn what_cannot_be_obtained_refuses_the_run() {
    let engine = engine().await;
    let (service, _) = catalog().await;
    let call = |function: &str| {
        with_use(
            &format!("{{catalogs: {{mine: {{endpoint: '{}'}}}}}}", service.url("")),
            &format!("  - a: {{call: '{function}'}}\n"),
        )
    };
    let refused = engine.start_run(&call("none:1@mine"), "", "").await.unwrap_err();
    assert_eq!(reason(&refused), "DEPENDENCY_UNAVAILABLE");
    assert!(
        refused.message().contains("'none:1@mine'") && refused.message().contains("404"),
        "{refused}"
    );
    let broken = engine
        .start_run(&call("broken:1@mine"), "", "")
        .await
        .unwrap_err();
    assert_eq!(reason(&broken), "INVALID_WORKFLOW");
    assert!(
        broken.message().contains("broken:1@mine") && broken.message().contains("'sett'"),
        "{broken}"
    );
}

#[tokio::test]
async fn a_schema_at_an_address_is_pinned_too() {
    let mut engine = engine().await;
    let service = Service::start(|_| Reply::text(200, "{required: [n]}\n")).await;
    let text = document(&format!(
        "  - wait: {{wait: PT1S}}\n  - a: {{input: {{schema: {{resource: {{endpoint: '{}'}}}}}}, set: {{n: '${{ .n }}'}}}}\n",
        service.url("/schema.yaml")
    ));
    engine.start_run(&text, "bad", "{}").await.unwrap();
    engine.start_run(&text, "good", r#"{"n": 1}"#).await.unwrap();
    engine.stop().await;
    drop(service);
    engine.launch().await;
    let error = engine.until("bad", RunStatus::Faulted).await.error.unwrap();
    assert!(error.r#type.ends_with("/validation"), "{error:?}");
    engine.until("good", RunStatus::Completed).await;
}
