//! What people are asked, as it is recorded.

use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::usage::{Limits, Usage};

/// A question to people, with everything in it evaluated.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Question {
    /// One line that says what is to be decided.
    pub title: String,
    /// What they should know to decide.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<Arc<Value>>,
    /// Whose decision it is.
    pub assignees: Vec<String>,
    /// When it is too late.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub deadline: Option<Timestamp>,
    /// Whom to ask as well, and when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub escalation: Option<Escalation>,
}

/// Whom to ask as well, and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Escalation {
    /// When.
    pub due: Timestamp,
    /// Whom.
    pub to: Vec<String>,
}

/// What somebody says to a question.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Yes or no.
    pub approved: bool,
    /// Who says so.
    pub by: String,
    /// Why, in their words.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub comment: String,
    /// By how much a budget is raised; if nothing is said, by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raise: Option<Limits>,
}

/// A budget that is used up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Breach {
    /// The namespace whose budget it is; none for that of the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// What was used.
    pub spent: Usage,
    /// What may be.
    pub limits: Limits,
    /// When it may be used anew; none where that is never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renews: Option<Timestamp>,
}
