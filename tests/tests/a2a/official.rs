//! The official Python and JavaScript clients with an agent of the SDK, alone and behind the router: every operation that they have,
//! over each binding. What they do is in `tests/interop/a2a_conversation.*`, which also says what they cannot.

use muster_runtime::trust::Role;
use muster_tests::Sdk;
use serde_json::json;

use crate::bench::{Bench, Subject};
use crate::driver::Binding;
use crate::guarded::Guarded;
use crate::puppet::Persona;

/// A whole conversation over each binding.
async fn converses(client: Sdk, subject: Subject) {
    let bench = Bench::start(subject, Binding::Grpc).await;
    let [whole, plain, strict] =
        [Persona::Whole, Persona::Plain, Persona::Strict].map(|persona| bench.url(persona));
    for binding in Binding::ALL {
        let arguments = [&whole, binding.name(), &plain, &strict];
        let said = client.run("a2a_conversation", &arguments).await;
        assert_eq!(
            said,
            json!({ "binding": binding.name(), "pushedAs": "application/a2a+json" }),
            "{client} with {subject:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_official_python_client_converses_with_an_agent() {
    converses(Sdk::Python, Subject::Agent).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_official_python_client_converses_with_the_router_before_grpc() {
    converses(Sdk::Python, Subject::Router(Binding::Grpc)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_official_python_client_converses_with_the_router_before_json_rpc() {
    converses(Sdk::Python, Subject::Router(Binding::JsonRpc)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_official_python_client_converses_with_the_router_before_http_json() {
    converses(Sdk::Python, Subject::Router(Binding::HttpJson)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_official_javascript_client_converses_with_an_agent() {
    converses(Sdk::JavaScript, Subject::Agent).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_official_javascript_client_converses_with_the_router_before_grpc() {
    converses(Sdk::JavaScript, Subject::Router(Binding::Grpc)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_official_javascript_client_converses_with_the_router_before_json_rpc() {
    converses(Sdk::JavaScript, Subject::Router(Binding::JsonRpc)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_official_javascript_client_converses_with_the_router_before_http_json() {
    converses(Sdk::JavaScript, Subject::Router(Binding::HttpJson)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_official_python_client_finds_in_the_card_what_it_has_to_show() {
    for binding in Binding::ALL {
        let guarded = Guarded::start(Subject::Router(Binding::Grpc), binding).await;
        let token = guarded.token("ada", Role::AgentWriter);
        let arguments = [guarded.url(), binding.name(), &token];
        let said = Sdk::Python.run("a2a_authenticated", &arguments).await;
        let done = "TASK_STATE_COMPLETED";
        assert_eq!(
            said,
            json!({ "binding": binding.name(), "schemes": ["bearer"], "states": [done, done] })
        );
    }
}
