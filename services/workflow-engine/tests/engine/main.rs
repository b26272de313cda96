//! The engine from outside: a real server on free ports, a real gRPC client, and a scripted stand-in for the
//! router that counts what it is asked.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod again;
mod agents_by_url;
mod approvals;
mod authentication;
mod backups;
mod budgets;
mod caching;
mod calls;
mod cancelling;
mod catalogue;
mod children;
mod cloud_events;
mod conformance;
mod crashes;
mod described;
mod durability;
mod encryption;
mod erasing;
mod events;
mod examples;
mod fairness;
mod fleet;
mod functions;
mod golden;
mod grpc_calls;
mod grpc_service;
mod harness;
mod hostile;
mod http;
mod kinds;
mod limits;
mod mcp_calls;
mod mcp_server;
mod outside;
mod payloads;
mod processes;
mod puppet;
mod queued;
mod reading;
mod runs;
mod schedules;
mod scheduling;
mod seams;
mod searching;
mod secrets;
mod service;
mod snapshots;
mod starting;
mod steering;
mod transcoding;
mod verifying;
mod why;
mod why_details;
