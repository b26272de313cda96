//! Approvals: people decide before a task begins what it is for.
//!
//! A task with a gate asks when it has started: the question is evaluated and recorded, and nothing else of the task has
//! happened by then, neither its extensions nor its call. Meanwhile the run waits for nothing that time or a call brings.
//! A decision, like an answer, is a stimulus, and only the first one counts. No or no answer in time is an error of the
//! task, which a `catch` around it can handle; a `try` that tries again asks again.
//!
//! What people take to decide is not the time of the run: see [`super::standing`].

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::current::{Current, Fault};
use super::effect::after;
use super::evaluate::{View, bounded};
use super::fold::Mismatch;
use super::state::{Activation, Body, Cause};
use super::{Run, retry};
use crate::document::Template;
use crate::document::policy::Gate;
use crate::journal::{Breach, Escalation, EventKind, Own, Problem, Question, Stage, Standard, Verdict};

/// At most so many names stand in one question.
pub const MOST_ASSIGNEES: usize = 32;

/// Longest name in a question, in bytes.
pub const LONGEST_NAME: usize = 256;

/// Longest title, in bytes.
const LONGEST_TITLE: usize = 1_000;

/// Largest details, as JSON in bytes: they are listed.
const LARGEST_DETAILS: usize = 64 * 1024;

/// At most so many approvals are open in one run.
const MOST_OPEN: usize = 1_000;

/// A question that is open.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Approval {
    /// Its number in the run: the index of the event that opened it.
    pub number: u64,
    /// JSON pointer of the task that waits for it.
    pub task: Arc<str>,
    /// Its activation.
    pub(super) activation: u64,
    /// What is asked.
    pub question: Question,
    /// The budget that is used up, if that is what is asked about.
    pub budget: Option<Breach>,
    /// Since when.
    pub opened: Timestamp,
    /// Whether more people have been asked.
    pub escalated: bool,
}

impl Approval {
    /// Its id: that of the run and the number.
    #[must_use]
    pub fn id(&self, run: &str) -> String {
        format!("{run}.{}", self.number)
    }

    /// All who have been asked.
    pub fn asked(&self) -> impl Iterator<Item = &str> {
        let later = self
            .question
            .escalation
            .iter()
            .filter(|_| self.escalated)
            .flat_map(|escalation| &escalation.to);
        self.question.assignees.iter().chain(later).map(String::as_str)
    }

    /// Moves the instants at which something about it is to be decided.
    fn postpone(&mut self, by: SignedDuration) {
        let later = |due: Timestamp| due.checked_add(by).unwrap_or(Timestamp::MAX);
        self.question.deadline = self.question.deadline.map(later);
        if let Some(escalation) = &mut self.question.escalation {
            escalation.due = later(escalation.due);
        }
    }

    /// The instants at which something about it is to be decided.
    pub(super) fn timers(&self) -> [Option<(Timestamp, Cause)>; 2] {
        let escalation = self.question.escalation.as_ref().filter(|_| !self.escalated);
        [
            self.question.deadline.map(|due| (due, Cause::ApprovalDeadline)),
            escalation.map(|escalation| (escalation.due, Cause::Escalation)),
        ]
    }
}

impl Run {
    /// The approvals that are open, in the order in which their tasks began.
    pub fn approvals(&self) -> impl Iterator<Item = &Approval> {
        let bodies = self.activations.values().map(|activation| &activation.body);
        let gates = bodies.filter(|_| self.asking > 0).filter_map(|body| match body {
            Body::Asked(approval) => Some(&**approval),
            _ => None,
        });
        gates.chain(self.spending.open.as_deref())
    }

    /// Moves the time that people have for what is open.
    pub(super) fn postpone_approvals(&mut self, by: SignedDuration) {
        if !by.is_positive() {
            return;
        }
        let gates = self.activations.iter();
        let gates = gates.filter(|(_, activation)| matches!(activation.body, Body::Asked(_)));
        let ids: Vec<u64> = gates.map(|(id, _)| *id).collect();
        for id in ids {
            self.change(id, |activation| {
                if let Body::Asked(approval) = &mut activation.body {
                    approval.postpone(by);
                }
            });
        }
        self.change_budget_question(|open| open.postpone(by));
    }

    fn asked(&self, number: u64) -> Option<(u64, &Activation)> {
        let asked = |body: &Body| matches!(body, Body::Asked(approval) if approval.number == number);
        let mut activations = self.activations.iter();
        let (id, activation) = activations.find(|(_, activation)| asked(&activation.body))?;
        Some((*id, activation))
    }

    /// What follows when somebody decides; nothing if it is not open.
    pub(super) fn decided(&self, number: u64, verdict: Verdict, now: Timestamp) -> Option<EventKind> {
        if let Some(open) = self.budget_approval(number) {
            return Some(EventKind::ApprovalDecided {
                task: Arc::clone(&open.task),
                activation: open.activation,
                approval: number,
                attempt_deadline: None,
                verdict,
                error: None,
            });
        }
        let (id, activation) = self.asked(number)?;
        let workflow = Arc::clone(&self.definition.workflow);
        let task = workflow.task(&activation.pointer)?;
        let extended = activation
            .extensions
            .iter()
            .any(|index| workflow.extension_tasks(*index, Stage::Before).is_some());
        let view = View::of(self, task, activation, now);
        let (attempt_deadline, error) = match retry::first_deadline(&view, task, &activation.input) {
            Ok(deadline) => (deadline.filter(|_| !extended), None),
            Err(_) if extended || !verdict.approved => (None, None),
            Err(problem) => (None, Some(problem.at(&activation.pointer))),
        };
        Some(EventKind::ApprovalDecided {
            task: Arc::clone(&activation.pointer),
            activation: id,
            approval: number,
            attempt_deadline: attempt_deadline.filter(|_| verdict.approved),
            verdict,
            error,
        })
    }

    /// What follows when the time to decide is over, or when more people are to be asked.
    pub(super) fn overdue(&self, id: u64, activation: &Activation, cause: Cause) -> Option<EventKind> {
        let Body::Asked(approval) = &activation.body else {
            return None;
        };
        let (task, activation, approval) = (Arc::clone(&activation.pointer), id, approval.number);
        Some(match cause {
            Cause::Escalation => EventKind::ApprovalEscalated {
                task,
                activation,
                approval,
            },
            _ => EventKind::ApprovalExpired {
                task,
                activation,
                approval,
            },
        })
    }

    pub(super) fn open_approval(
        &mut self,
        (pointer, id): (&str, u64),
        number: u64,
        (question, budget): (&Question, Option<&Breach>),
        time: Timestamp,
    ) -> Result<(), Mismatch> {
        let activation = self.expect(id, pointer)?;
        let approval = Approval {
            number,
            task: Arc::clone(&activation.pointer),
            activation: id,
            question: question.clone(),
            budget: budget.cloned(),
            opened: time,
            escalated: false,
        };
        if budget.is_some() {
            return self.ask_for_budget(pointer, id, approval);
        }
        if !matches!(activation.body, Body::Asking) || number != self.next_index {
            return Err(self.mismatch(format!("approval {number} of {pointer} is out of turn")));
        }
        self.change(id, |activation| activation.body = Body::Asked(Box::new(approval)));
        Ok(())
    }

    fn expect_asked(&self, pointer: &str, id: u64, number: u64) -> Result<&Approval, Mismatch> {
        match &self.expect(id, pointer)?.body {
            Body::Asked(approval) if approval.number == number => Ok(approval),
            _ => Err(self.mismatch(format!("approval {number} of {pointer} is not open"))),
        }
    }

    pub(super) fn escalate(&mut self, pointer: &str, id: u64, number: u64) -> Result<(), Mismatch> {
        if let Some(open) = self.budget_approval(number) {
            if open.escalated {
                return Err(self.mismatch(format!("approval {number} of {pointer} is escalated already")));
            }
            self.escalate_budget();
            return Ok(());
        }
        if self.expect_asked(pointer, id, number)?.escalated {
            return Err(self.mismatch(format!("approval {number} of {pointer} is escalated already")));
        }
        self.change(id, |activation| {
            if let Body::Asked(approval) = &mut activation.body {
                approval.escalated = true;
            }
        });
        Ok(())
    }

    pub(super) fn expire(&mut self, pointer: &str, id: u64, number: u64) -> Result<(), Mismatch> {
        if self.budget_approval(number).is_some() {
            self.close_budget(None);
            return Ok(());
        }
        let approval = self.expect_asked(pointer, id, number)?;
        let asked: Vec<&str> = approval.asked().collect();
        let detail = format!(
            "'{}' was not decided by {} in time",
            approval.question.title,
            asked.join(", ")
        );
        let problem = Problem::own(Own::ApprovalExpired, detail).at(pointer);
        self.change(id, |activation| activation.body = Body::Failed(Arc::new(problem)));
        Ok(())
    }

    pub(super) fn close_approval(
        &mut self,
        (pointer, id, number): (&str, u64, u64),
        verdict: &Verdict,
        attempt_deadline: Option<Timestamp>,
        error: Option<&Problem>,
        time: Timestamp,
    ) -> Result<(), Mismatch> {
        if self.budget_approval(number).is_some() {
            self.close_budget(Some(verdict));
            return Ok(());
        }
        let approval = self.expect_asked(pointer, id, number)?;
        let rejected = (!verdict.approved).then(|| rejection(&approval.question, verdict).at(pointer));
        if let Some(problem) = rejected.as_ref().or(error) {
            let problem = Arc::new(problem.clone());
            self.change(id, |activation| activation.body = Body::Failed(problem));
            return Ok(());
        }
        let workflow = Arc::clone(&self.definition.workflow);
        let task = workflow
            .task(pointer)
            .ok_or_else(|| self.mismatch(format!("there is no task {pointer}")))?;
        self.change(id, |activation| {
            activation.begin(&workflow, task, time, attempt_deadline)
        });
        Ok(())
    }
}

fn rejection(question: &Question, verdict: &Verdict) -> Problem {
    let mut detail = format!("'{}' was rejected by {}", question.title, verdict.by);
    if !verdict.comment.is_empty() {
        detail.push_str(&format!(": {}", verdict.comment));
    }
    Problem::own(Own::ApprovalRejected, detail)
}

impl Current<'_> {
    /// Asks the people who are to decide about this task.
    pub(super) fn ask(&self, gate: &Gate) -> Result<EventKind, Fault> {
        if self.view.run.asking >= MOST_OPEN {
            let detail = format!(
                "a run has at most {MOST_OPEN} approvals open; decide some, or ask once for several tasks"
            );
            return Err(Problem::standard(Standard::Runtime, detail));
        }
        Ok(EventKind::ApprovalOpened {
            task: self.pointer(),
            activation: self.id,
            approval: self.view.run.next_index,
            question: question(&self.view, gate, &self.activation.input)?,
            budget: None,
        })
    }
}

/// The question with everything in it evaluated.
pub(super) fn question(view: &View<'_>, gate: &Gate, input: &Value) -> Result<Question, Problem> {
    let invalid = |detail: String| Problem::standard(Standard::Expression, detail);
    let mut title = match view.template(&gate.title, input)? {
        Value::String(text) => text,
        other => other.to_string(),
    };
    if title.trim().is_empty() {
        return Err(invalid("the title of the approval is empty".to_owned()));
    }
    if title.len() > LONGEST_TITLE {
        title.truncate(title.floor_char_boundary(LONGEST_TITLE));
        title.push('…');
    }
    let details = gate
        .details
        .as_ref()
        .map(|details| bounded(view.template(details, input)?, "the details of the approval"))
        .transpose()?;
    if let Some(details) = &details
        && muster_api::json::length(details) > LARGEST_DETAILS
    {
        let detail =
            format!("the details of the approval have more than {LARGEST_DETAILS} bytes; pass a reference");
        return Err(invalid(detail));
    }
    let time = |period, what| {
        let due = view.deadline(Some(period), input, view.now, what)?;
        Ok::<_, Problem>(due.unwrap_or_else(|| after(view.now, std::time::Duration::ZERO)))
    };
    let escalation = gate.escalation.as_ref().map(|escalation| {
        Ok::<_, Problem>(Escalation {
            due: time(&escalation.after, "the time until the escalation")?,
            to: people(view, &escalation.to, input)?,
        })
    });
    Ok(Question {
        title,
        details,
        assignees: people(view, &gate.assignees, input)?,
        deadline: gate
            .deadline
            .as_ref()
            .map(|deadline| time(deadline, "the deadline of the approval"))
            .transpose()?,
        escalation: escalation.transpose()?,
    })
}

/// The names of those who are asked.
fn people(view: &View<'_>, template: &Template, input: &Value) -> Result<Vec<String>, Problem> {
    let names = match view.template(template, input)? {
        Value::Array(names) => names,
        name => vec![name],
    };
    let named = |name: &Value| {
        let name = name.as_str()?;
        (!name.trim().is_empty() && name.len() <= LONGEST_NAME).then(|| name.to_owned())
    };
    let people: Option<Vec<String>> = names.iter().map(named).collect();
    people
        .filter(|people| (1..=MOST_ASSIGNEES).contains(&people.len()))
        .ok_or_else(|| {
            let detail = format!(
                "those who are to decide must be 1 to {MOST_ASSIGNEES} names, each text of 1 to {LONGEST_NAME} bytes"
            );
            Problem::standard(Standard::Expression, detail)
        })
}
