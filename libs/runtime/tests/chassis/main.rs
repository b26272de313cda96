//! The chassis from outside: a real one on free ports, plain HTTP and gRPC clients, and a process of its own.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod drain;
mod floods;
mod grpc;
mod grpc_service;
mod health;
mod mesh;
mod native;
mod process;
mod requests;
mod stage;
mod turned_away;
