//! What each fuzz target does with its bytes. A target of libFuzzer calls one of these, and so does the suite, with the seeds and what
//! becomes of them by chance (`tests/tests/fuzz.rs`).

pub mod card;
pub mod cloud_event;
pub mod expression;
pub mod headers;
pub mod identity;
pub mod json;
pub mod peek;
pub mod registration;
pub mod sse;
pub mod token;
pub mod workflow;

/// Takes bytes, and panics over what must not be.
pub type Target = fn(&[u8]);

/// All of them, by name.
pub const TARGETS: [(&str, Target); 11] = [
    ("card", card::run),
    ("cloud_event", cloud_event::run),
    ("expression", expression::run),
    ("headers", headers::run),
    ("identity", identity::run),
    ("json", json::run),
    ("peek", peek::run),
    ("registration", registration::run),
    ("sse", sse::run),
    ("token", token::run),
    ("workflow", workflow::run),
];
