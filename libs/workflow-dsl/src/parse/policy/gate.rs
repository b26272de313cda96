//! `approval`: what people are asked.

use crate::document::Template;
use crate::document::policy::{Budget, Escalation, Gate};
use crate::node::Content;
use crate::parse::Reader;
use crate::parse::catch::given;
use crate::parse::cursor::Cursor;
use crate::parse::expressions::Moment;
use crate::run::approval::{LONGEST_NAME, MOST_ASSIGNEES};
use crate::run::spending::OPERATORS;
use crate::usage::{self, Limits};
use serde_json::Value;

impl Reader {
    /// A question to people.
    pub(super) fn gate(&mut self, at: &Cursor<'_>) -> Option<Gate> {
        const ALLOWED: &[&str] = &["title", "details", "assignees", "deadline", "escalate"];
        let fields = self.fields(at, ALLOWED)?;
        let title = self.require(&fields, "title").and_then(|title| self.line(&title));
        let details = fields.get("details").map(|details| self.template(&details));
        let assignees = self
            .require(&fields, "assignees")
            .and_then(|people| self.people(&people));
        let deadline = fields
            .get("deadline")
            .map(|deadline| self.positive_duration(&deadline));
        let escalation = fields.get("escalate").map(|escalate| self.escalation(&escalate));
        Some(Gate {
            title: title?,
            details: given(details)?,
            assignees: assignees?,
            deadline: given(deadline)?,
            escalation: given(escalation)?,
        })
    }

    /// What a run may use before people are asked, and whom. Expressions in it see the input of the run.
    pub(super) fn budget(&mut self, at: &Cursor<'_>) -> Option<Budget> {
        const ALLOWED: &[&str] = &["tokens", "cost", "assignees", "deadline", "escalate"];
        let fields = self.fields(at, ALLOWED)?;
        let tokens = fields
            .get("tokens")
            .map(|tokens| self.integer(&tokens, 1, u64::MAX));
        let cost = fields.get("cost").map(|cost| self.money(&cost));
        if tokens.is_none() && cost.is_none() {
            self.wrong(at, "a budget needs 'tokens', 'cost' or both");
            return None;
        }
        self.during(Moment::WorkflowInput, |reader| {
            let assignees = fields.get("assignees").map(|people| reader.people(&people));
            let deadline = fields
                .get("deadline")
                .map(|deadline| reader.positive_duration(&deadline));
            let escalation = fields
                .get("escalate")
                .map(|escalate| reader.escalation(&escalate));
            Some(Budget {
                limits: Limits {
                    tokens: given(tokens)?,
                    cost_micros: given(cost)?,
                },
                gate: Gate {
                    title: Template::Literal(Value::from("the budget is used up")),
                    details: None,
                    assignees: given(assignees)?.unwrap_or_else(|| Template::Literal(Value::from(OPERATORS))),
                    deadline: given(deadline)?,
                    escalation: given(escalation)?,
                },
            })
        })
    }

    /// An amount of money above zero, in millionths.
    fn money(&mut self, at: &Cursor<'_>) -> Option<u64> {
        let amount = match &at.node.content {
            Content::Number(number) => number.as_f64().and_then(usage::micros),
            _ => None,
        };
        let amount = amount.filter(|micros| *micros > 0);
        if amount.is_none() {
            self.wrong(at, "'cost' must be an amount of money above zero, such as 2.5");
        }
        amount
    }

    fn escalation(&mut self, at: &Cursor<'_>) -> Option<Escalation> {
        let fields = self.fields(at, &["after", "to"])?;
        let after = self
            .require(&fields, "after")
            .and_then(|after| self.positive_duration(&after));
        let to = self.require(&fields, "to").and_then(|to| self.people(&to));
        Some(Escalation {
            after: after?,
            to: to?,
        })
    }

    fn line(&mut self, at: &Cursor<'_>) -> Option<Template> {
        if self.text(at)?.trim().is_empty() {
            self.wrong(at, "say in one line what is to be decided");
            return None;
        }
        self.template(at)
    }

    fn positive_duration(&mut self, at: &Cursor<'_>) -> Option<crate::document::Period> {
        let period = self.duration(at)?;
        if period.fixed().is_some_and(|duration| duration.is_zero()) {
            self.wrong(at, "the time must be above zero, or nobody could decide in it");
            return None;
        }
        Some(period)
    }

    /// Names of people, as far as the document knows them.
    fn people(&mut self, at: &Cursor<'_>) -> Option<Template> {
        let template = self.template(at)?;
        let named = |value: &Value| {
            value
                .as_str()
                .is_some_and(|name| !name.trim().is_empty() && name.len() <= LONGEST_NAME)
        };
        let good = match &template {
            Template::Literal(Value::Array(names)) => {
                (1..=MOST_ASSIGNEES).contains(&names.len()) && names.iter().all(named)
            }
            Template::Literal(name) => named(name),
            Template::Array(names) => names.len() <= MOST_ASSIGNEES,
            Template::Object(_) => false,
            Template::Expression(_) | Template::Attempt(..) => true,
        };
        if !good {
            let message = format!(
                "must be a name, or a list of 1 to {MOST_ASSIGNEES} names, each text of 1 to {LONGEST_NAME} bytes"
            );
            self.wrong(at, message);
            return None;
        }
        Some(template)
    }
}
