//! Approvals: what a run asks people, and what became of it.
//!
//! The journal of the run is the truth about them. What is kept beside it, written in the same atomic step, is the index by
//! which people find what they are asked without any run being in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use jiff::Timestamp;
use muster_workflow_dsl::journal::{Breach, Event, EventKind, Question};
use muster_workflow_dsl::run::Run;
use muster_workflow_dsl::usage::Limits;
use serde::{Deserialize, Serialize};

use crate::run::{RunId, Summary};

/// Id of an approval: that of the run, a dot and its number in the run.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ApprovalId {
    /// The run that asks.
    pub run: RunId,
    /// Its number in the run: the index of the entry that opened it.
    pub number: u64,
}

/// Text that cannot be an approval's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be the id of a run, a dot and a number, such as 'order-17.1'")]
pub struct InvalidApprovalId;

impl FromStr for ApprovalId {
    type Err = InvalidApprovalId;

    fn from_str(text: &str) -> Result<Self, InvalidApprovalId> {
        let (run, number) = text.rsplit_once('.').ok_or(InvalidApprovalId)?;
        let id = Self {
            run: run.parse().map_err(|_| InvalidApprovalId)?,
            number: number.parse().map_err(|_| InvalidApprovalId)?,
        };
        // One way to write it, so that it is one key.
        if id.to_string() == text {
            Ok(id)
        } else {
            Err(InvalidApprovalId)
        }
    }
}

impl fmt::Display for ApprovalId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}", self.run, self.number)
    }
}

/// Where an approval stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Waits for a decision.
    Open,
    /// Somebody said yes.
    Approved,
    /// Somebody said no.
    Rejected,
    /// Nobody decided in time.
    Expired,
    /// Nobody needs to know any more.
    Withdrawn,
}

impl State {
    /// The name in texts.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Approved => "approved",
            Self::Rejected => "rejected",
            Self::Expired => "expired",
            Self::Withdrawn => "withdrawn",
        }
    }
}

/// A question to people, and what became of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Approval {
    /// Its id.
    pub id: ApprovalId,
    /// `document.namespace` of the run.
    pub namespace: String,
    /// `document.name` of the run.
    pub name: String,
    /// `document.version` of the run.
    pub version: String,
    /// JSON pointer of the task that waits.
    pub task: String,
    /// What is asked.
    pub question: Question,
    /// The budget that is used up, if that is what is asked about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<Breach>,
    /// By how much it was raised, where whoever decided said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub raise: Option<Limits>,
    /// Since when.
    pub opened_at: Timestamp,
    /// Whether more people have been asked.
    pub escalated: bool,
    /// Where it stands.
    pub state: State,
    /// Who decided.
    pub decided_by: String,
    /// Why, in their words.
    pub comment: String,
    /// When it was closed.
    pub closed_at: Option<Timestamp>,
}

impl Approval {
    fn new(
        run: &Summary,
        number: u64,
        task: &str,
        (question, budget): (&Question, Option<&Breach>),
        opened_at: Timestamp,
        escalated: bool,
    ) -> Self {
        Self {
            id: ApprovalId {
                run: run.id.clone(),
                number,
            },
            namespace: run.namespace.clone(),
            name: run.name.clone(),
            version: run.version.clone(),
            task: task.to_owned(),
            question: question.clone(),
            budget: budget.cloned(),
            raise: None,
            opened_at,
            escalated,
            state: State::Open,
            decided_by: String::new(),
            comment: String::new(),
            closed_at: None,
        }
    }

    /// All who have been asked.
    #[must_use]
    pub fn asked(&self) -> Vec<String> {
        let later = self.question.escalation.iter().filter(|_| self.escalated);
        let later = later.flat_map(|escalation| &escalation.to);
        self.question.assignees.iter().chain(later).cloned().collect()
    }

    /// Its place among the approvals in the order in which they were opened.
    #[must_use]
    pub fn position(&self) -> Position {
        Position {
            opened_micros: self.opened_at.as_microsecond(),
            id: self.id.clone(),
        }
    }

    fn close(&mut self, state: State, time: Timestamp) {
        self.state = state;
        self.closed_at = Some(time);
    }
}

/// Place of an approval in the order in which they were opened.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Position {
    /// When it was opened, in microseconds.
    pub opened_micros: i64,
    /// Tells those of the same microsecond apart.
    pub id: ApprovalId,
}

/// Which approvals to list.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Only in these states; empty: open.
    pub states: Vec<State>,
    /// Only those that ask this one.
    pub assignee: Option<String>,
    /// Only of this run.
    pub run: Option<RunId>,
    /// Only of runs of this namespace.
    pub namespace: Option<String>,
}

impl Filter {
    /// Whether only open ones are asked for.
    #[must_use]
    pub fn open_only(&self) -> bool {
        self.states.iter().all(|state| *state == State::Open)
    }

    /// Whether the approval is to be listed.
    #[must_use]
    pub fn admits(&self, approval: &Approval) -> bool {
        let in_state = match self.states.as_slice() {
            [] => approval.state == State::Open,
            states => states.contains(&approval.state),
        };
        in_state
            && self
                .assignee
                .as_ref()
                .is_none_or(|name| approval.asked().contains(name))
            && self.run.as_ref().is_none_or(|run| approval.id.run == *run)
            && self
                .namespace
                .as_ref()
                .is_none_or(|namespace| approval.namespace == *namespace)
    }
}

/// The approvals of a run in memory: which are open, and which have changed since they were written.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    open: BTreeMap<u64, Approval>,
    changed: BTreeMap<u64, Approval>,
}

impl Ledger {
    /// Those that are open in a run that was folded from its journal.
    pub(crate) fn of(run: &Run, summary: &Summary) -> Self {
        let open = run.approvals().map(|approval| {
            let number = approval.number;
            let asked = (&approval.question, approval.budget.as_ref());
            let known = Approval::new(
                summary,
                number,
                &approval.task,
                asked,
                approval.opened,
                approval.escalated,
            );
            (number, known)
        });
        Self {
            open: open.collect(),
            changed: BTreeMap::new(),
        }
    }

    /// Those that are open.
    pub(crate) fn into_open(self) -> Vec<Approval> {
        self.open.into_values().collect()
    }

    /// Takes in what was decided.
    pub(crate) fn follow(&mut self, events: &[Event], run: &Run, summary: &Summary) {
        for event in events {
            let time = event.time;
            match &event.kind {
                EventKind::ApprovalOpened {
                    task,
                    approval,
                    question,
                    budget,
                    ..
                } => {
                    let asked = (question, budget.as_ref());
                    let opened = Approval::new(summary, *approval, task, asked, time, false);
                    self.changed.insert(*approval, opened.clone());
                    self.open.insert(*approval, opened);
                }
                EventKind::ApprovalEscalated { approval, .. } => {
                    if let Some(open) = self.open.get_mut(approval) {
                        open.escalated = true;
                        self.changed.insert(*approval, open.clone());
                    }
                }
                EventKind::ApprovalDecided {
                    approval, verdict, ..
                } => {
                    let state = if verdict.approved {
                        State::Approved
                    } else {
                        State::Rejected
                    };
                    if let Some(mut closed) = self.open.remove(approval) {
                        closed.close(state, time);
                        closed.decided_by.clone_from(&verdict.by);
                        closed.comment.clone_from(&verdict.comment);
                        closed.raise = verdict.raise;
                        self.changed.insert(*approval, closed);
                    }
                }
                EventKind::ApprovalExpired { approval, .. } => self.close(*approval, State::Expired, time),
                _ => {}
            }
        }
        if let Some(last) = events.last()
            && !self.open.is_empty()
        {
            let mut still = BTreeSet::new();
            for approval in run.approvals() {
                still.insert(approval.number);
                // A pause moves its time.
                if let Some(known) = self.open.get_mut(&approval.number)
                    && known.question != approval.question
                {
                    known.question.clone_from(&approval.question);
                    self.changed.insert(approval.number, known.clone());
                }
            }
            let gone: Vec<u64> = self
                .open
                .keys()
                .filter(|number| !still.contains(number))
                .copied()
                .collect();
            for number in gone {
                self.close(number, State::Withdrawn, last.time);
            }
        }
    }

    fn close(&mut self, number: u64, state: State, time: Timestamp) {
        if let Some(mut closed) = self.open.remove(&number) {
            closed.close(state, time);
            self.changed.insert(number, closed);
        }
    }

    /// Those that have changed, to be written.
    pub(crate) fn take_changed(&mut self) -> Vec<Approval> {
        std::mem::take(&mut self.changed).into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_a_run_and_a_number_and_written_in_one_way() {
        for good in ["order-17.1", "a.b.c.42", "0198.7"] {
            assert_eq!(good.parse::<ApprovalId>().unwrap().to_string(), good);
        }
        for bad in [
            "", "order", "order.", ".1", "order.01", "order.+1", "order.-1", "a b.1",
        ] {
            assert_eq!(bad.parse::<ApprovalId>(), Err(InvalidApprovalId), "{bad:?}");
        }
    }
}
