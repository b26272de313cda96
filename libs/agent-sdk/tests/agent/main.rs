//! The SDK from outside: a real agent on port 0, spoken to over gRPC and HTTP, registering with a scripted registry.

#![allow(
    clippy::unwrap_used,
    reason = "the helpers of tests may panic as the tests do"
)]

mod again;
mod callers;
mod durable;
mod http;
mod pushing;
mod registering;
mod registry;
mod serving;
mod shared;
mod stage;
