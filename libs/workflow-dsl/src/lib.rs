//! Workflow documents: read, validated and interpreted.
//!
//! The language is the CNCF Serverless Workflow DSL 1.0, with jq as its expression language. [`parse()`] makes a
//! [`document::Definition`] of text, or says everything that is wrong with it; the interpreter turns a definition and
//! a journal into the next commands. All of it is plain data and functions: no I/O, no clock, no random source, so
//! that a run can be replayed anywhere and a document can be checked without an engine.

pub mod a2a;
pub mod cloud_event;
pub mod data;
pub mod document;
pub mod duration;
pub mod expression;
pub mod graph;
pub mod hearing;
pub mod journal;
pub mod problem;
pub mod rehearsal;
pub mod request;
pub mod run;
pub mod schema;
pub mod secret;
pub mod usage;

mod node;
mod parse;
mod stack;

pub use document::Definition;
pub use parse::{Resources, check, digest, parse, parse_with};
pub use problem::{Problem, Problems, Severity};
