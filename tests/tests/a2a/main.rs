//! What A2A 1.0 demands, as one table of cases that runs on each binding against an agent of the SDK, and against the
//! router with each binding between it and the agent.
//!
//! ```text
//! main.rs, cases.rs   the table, and how it runs
//! cases/              the cases, by subject matter
//! driver.rs           a client of the raw wire for each binding, with one neutral form of answers
//! errors.rs           the protocol's errors, as each binding numbers them
//! puppet.rs           the agent, steered by the text of messages
//! bench.rs            agents, registry and router, on free ports
//! guarded.rs          the same where callers are told apart
//! musts.rs            what the protocol demands, and the cases that show it
//! official.rs         the official SDKs' clients with the same agents and the same router
//! stranger.rs         an agent that is none of ours
//! webhook.rs          where push notifications go to
//! gaps.rs             what is known not to hold yet
//! ```
//!
//! The cases say what the protocol says, not what the implementation does. One that does not hold is in the list of gaps,
//! which is exact: a listed case that holds fails the test as an unlisted one does that does not, so that the list only
//! shrinks. What fails by timing alone is listed apart, and may do either. All cases of a test run at once, each with tasks and contexts of its own.

mod bench;
mod cases;
mod driver;
mod errors;
mod gaps;
mod guarded;
mod musts;
mod official;
mod puppet;
mod stranger;
mod webhook;

use bench::Subject;
use driver::Binding;

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_keeps_to_the_protocol_over_grpc() {
    cases::run(Subject::Agent, Binding::Grpc).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_keeps_to_the_protocol_over_json_rpc() {
    cases::run(Subject::Agent, Binding::JsonRpc).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_keeps_to_the_protocol_over_http_json() {
    cases::run(Subject::Agent, Binding::HttpJson).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_router_keeps_to_the_protocol_over_grpc_before_grpc() {
    cases::run(Subject::Router(Binding::Grpc), Binding::Grpc).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_router_keeps_to_the_protocol_over_json_rpc_before_grpc() {
    cases::run(Subject::Router(Binding::Grpc), Binding::JsonRpc).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_router_keeps_to_the_protocol_over_http_json_before_grpc() {
    cases::run(Subject::Router(Binding::Grpc), Binding::HttpJson).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_router_keeps_to_the_protocol_over_grpc_before_json_rpc() {
    cases::run(Subject::Router(Binding::JsonRpc), Binding::Grpc).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_router_keeps_to_the_protocol_over_json_rpc_before_json_rpc() {
    cases::run(Subject::Router(Binding::JsonRpc), Binding::JsonRpc).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_router_keeps_to_the_protocol_over_http_json_before_json_rpc() {
    cases::run(Subject::Router(Binding::JsonRpc), Binding::HttpJson).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_router_keeps_to_the_protocol_over_grpc_before_http_json() {
    cases::run(Subject::Router(Binding::HttpJson), Binding::Grpc).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_router_keeps_to_the_protocol_over_json_rpc_before_http_json() {
    cases::run(Subject::Router(Binding::HttpJson), Binding::JsonRpc).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_router_keeps_to_the_protocol_over_http_json_before_http_json() {
    cases::run(Subject::Router(Binding::HttpJson), Binding::HttpJson).await;
}
