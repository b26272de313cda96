//! Questions to people.

use crate::document::{Period, Template};

/// `approval`: what people are asked before something goes on.
#[derive(Debug, Clone)]
pub struct Gate {
    /// `title`: one line that says what is to be decided.
    pub title: Template,
    /// `details`: what they should know to decide; any value.
    pub details: Option<Template>,
    /// `assignees`: whose decision it is; text, or an array of it.
    pub assignees: Template,
    /// `deadline`: how long they have; without one they have all the time in the world.
    pub deadline: Option<Period>,
    /// `escalate`: whom to ask as well when nothing is decided for a while.
    pub escalation: Option<Escalation>,
}

/// Whom to ask as well, and when.
#[derive(Debug, Clone)]
pub struct Escalation {
    /// `after`: how long after the question.
    pub after: Period,
    /// `to`: as `assignees`.
    pub to: Template,
}
