//! What each fuzz target does with its bytes. A target of libFuzzer calls one of these, and so does the suite, with the seeds and what
//! becomes of them by chance (`tests/tests/fuzz.rs`).

pub mod asyncapi;
pub mod backup;
pub mod card;
pub mod challenge;
pub mod cloud_event;
pub mod contract;
pub mod expression;
pub mod frame;
pub mod headers;
pub mod identity;
pub mod json;
pub mod log;
pub mod mcp;
pub mod openapi;
pub mod page;
pub mod peek;
pub mod question;
pub mod registration;
pub mod sse;
pub mod status;
pub mod table;
pub mod token;
pub mod transcode;
pub mod workflow;

/// Takes bytes, and panics over what must not be.
pub type Target = fn(&[u8]);

/// All of them, by name.
pub const TARGETS: [(&str, Target); 24] = [
    ("asyncapi", asyncapi::run),
    ("backup", backup::run),
    ("card", card::run),
    ("challenge", challenge::run),
    ("cloud_event", cloud_event::run),
    ("contract", contract::run),
    ("expression", expression::run),
    ("frame", frame::run),
    ("headers", headers::run),
    ("identity", identity::run),
    ("json", json::run),
    ("log", log::run),
    ("mcp", mcp::run),
    ("openapi", openapi::run),
    ("page", page::run),
    ("peek", peek::run),
    ("question", question::run),
    ("registration", registration::run),
    ("sse", sse::run),
    ("status", status::run),
    ("table", table::run),
    ("token", token::run),
    ("transcode", transcode::run),
    ("workflow", workflow::run),
];
