//! Budgets: what a run may use before people are asked.
//!
//! Answers say what they cost, and that is recorded with them. When a call is about to begin and the budget of the run, or of
//! its namespace, is used up, people are asked, once for the whole run; the call, and each further one, is held until they have
//! decided. Calls in flight go on, and so does everything that is no call. Yes raises the budget; after a no every call of the
//! run fails with an error that the document can handle, and nobody is asked again until the run is retried or forked.

use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::Run;
use super::approval::{self, Approval};
use super::current::Current;
use super::fold::Mismatch;
use super::state::{Body, Cause, Timer};
use crate::document::{Call, Kind, Launched};
use crate::journal::{Breach, EventKind, Own, Problem, Question, Verdict};
use crate::usage::{Limits, Usage};

/// Whom to ask about a budget that names nobody.
pub const OPERATORS: &str = "operators";

/// Seconds of a day.
const DAY: i64 = 24 * 60 * 60;

/// What a run has used, and what was decided about it.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Spending {
    spent: Usage,
    /// The day since the epoch of the last report, and what was used on it.
    today: (i64, Usage),
    /// By how much people have raised the budget of the run.
    raised: Usage,
    /// Up to where the run may go although the budget of its namespace is used up.
    waiver: Option<Limits>,
    /// What people are asked.
    pub(super) open: Option<Box<Approval>>,
    /// Whether they have said no.
    refused: bool,
}

/// The budget of the namespace is used up: what the interpreter cannot know by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exhausted {
    /// By how much of what.
    pub breach: Breach,
    /// Whom to ask.
    pub assignees: Vec<String>,
}

impl Spending {
    /// Whoever lets a run begin again wants it to go on: a no of before is asked about once more.
    pub(super) fn ask_again(&mut self) {
        self.refused = false;
    }
}

/// Whether tasks of this kind may cost something: calls, and runs of other workflows. The tasks of a function of one's own are
/// asked about themselves.
fn costs(kind: &Kind) -> bool {
    match kind {
        Kind::Call(call) => !matches!(call, Call::Function(_)),
        Kind::Run(launch) => matches!(launch.what, Launched::Workflow(_)),
        _ => false,
    }
}

impl Run {
    /// What the answers of the run, and the runs that it has waited for, have cost.
    #[must_use]
    pub fn spent(&self) -> Usage {
        self.spending.spent
    }

    /// The day since the epoch of the last report of its own, and what was used on it.
    #[must_use]
    pub fn spent_on_the_last_day(&self) -> (i64, Usage) {
        self.spending.today
    }

    /// Says whether the budget of the run's namespace is used up. What comes of it is recorded.
    pub fn know_namespace(&mut self, exhausted: Option<Exhausted>) {
        self.exhausted = exhausted;
    }

    /// What follows from a report; nothing if it has been counted, or nobody waits for the answer.
    pub(super) fn used(&self, id: u64, attempt: u32, usage: Usage) -> Option<EventKind> {
        let activation = self.activations.get(&id)?;
        let Body::Call(request) = &activation.body else {
            return None;
        };
        let counts = activation.place.attempt() == attempt && !activation.counted;
        counts.then(|| EventKind::UsageReported {
            task: Arc::clone(&activation.pointer),
            activation: id,
            usage,
            child: request.is_delegated(),
        })
    }

    pub(super) fn count_usage(
        &mut self,
        pointer: &str,
        id: u64,
        usage: Usage,
        time: Timestamp,
    ) -> Result<(), Mismatch> {
        let activation = self.expect(id, pointer)?;
        let Body::Call(request) = &activation.body else {
            return Err(self.mismatch(format!("{pointer} has nothing to report")));
        };
        if activation.counted {
            return Err(self.mismatch(format!("{pointer} has reported what it used")));
        }
        let child = request.is_delegated();
        self.change(id, |activation| activation.counted = true);
        let spending = &mut self.spending;
        spending.spent += usage;
        if child {
            return Ok(());
        }
        let day = time.as_second().div_euclid(DAY);
        if spending.today.0 == day {
            spending.today.1 += usage;
        } else {
            spending.today = (day, usage);
        }
        Ok(())
    }

    /// What is used up.
    fn breach(&self) -> Option<Breach> {
        let Spending {
            spent,
            raised,
            waiver,
            ..
        } = &self.spending;
        let budget = self.definition.workflow.header.policy.budget.as_ref();
        let limits = budget.map(|budget| budget.limits.raised(Limits::from(*raised)));
        if let Some(limits) = limits.filter(|limits| limits.reached_by(*spent)) {
            return Some(Breach {
                namespace: None,
                spent: *spent,
                limits,
                renews: None,
            });
        }
        let exhausted = self.exhausted.as_ref()?;
        let waived = waiver.is_some_and(|waiver| !waiver.reached_by(*spent));
        (!waived).then(|| exhausted.breach.clone())
    }

    /// What happens in place of a call that is about to begin, if something does.
    pub(super) fn hold(&self, current: &Current<'_>) -> Option<EventKind> {
        if !costs(&current.task.kind) {
            return None;
        }
        // What was done is taken back, and what is cancelled is handled, whatever it costs: nobody is to be asked about the end.
        if self.control.unwinding.is_some() || self.control.cancelling.is_some() {
            return None;
        }
        let (task, activation) = (current.pointer(), current.id);
        if self.spending.open.is_some() {
            return Some(EventKind::CallHeld { task, activation });
        }
        let breach = self.breach()?;
        if self.spending.refused {
            let detail = format!("{}, and more was refused", used_up(&breach));
            return Some(current.fault(Problem::own(Own::BudgetExceeded, detail)));
        }
        match self.budget_question(&breach, current.view.now) {
            Ok(question) => Some(EventKind::ApprovalOpened {
                task,
                activation,
                approval: self.next_index,
                question,
                budget: Some(breach),
            }),
            Err(problem) => Some(current.fault(problem)),
        }
    }

    fn budget_question(&self, breach: &Breach, now: Timestamp) -> Result<Question, Problem> {
        let details = Arc::new(json!({
            "namespace": breach.namespace,
            "spent": breach.spent.to_value(),
            "budget": breach.limits.to_value(),
        }));
        let budget = self.definition.workflow.header.policy.budget.as_ref();
        let mut question = match (&breach.namespace, budget) {
            (None, Some(budget)) => {
                let view = self.outermost(&self.input, now);
                approval::question(&view, &budget.gate, &self.input)?
            }
            _ => Question {
                title: String::new(),
                details: None,
                assignees: self
                    .exhausted
                    .as_ref()
                    .map_or_else(Vec::new, |exhausted| exhausted.assignees.clone()),
                deadline: None,
                escalation: None,
            },
        };
        question.title = format!("{}; let it use more?", used_up(breach));
        question.details = Some(details);
        if question.assignees.is_empty() {
            question.assignees.push(OPERATORS.to_owned());
        }
        Ok(question)
    }

    pub(super) fn hold_call(&mut self, pointer: &str, id: u64) -> Result<(), Mismatch> {
        if self.spending.open.is_none() {
            return Err(self.mismatch(format!("nothing holds {pointer}")));
        }
        self.expect_ready(id, pointer, costs)?;
        self.change(id, |activation| activation.body = Body::Held);
        Ok(())
    }

    pub(super) fn ask_for_budget(
        &mut self,
        pointer: &str,
        id: u64,
        approval: Approval,
    ) -> Result<(), Mismatch> {
        if self.spending.open.is_some() || approval.number != self.next_index {
            return Err(self.mismatch(format!(
                "approval {} of {pointer} is out of turn",
                approval.number
            )));
        }
        self.expect_ready(id, pointer, costs)?;
        self.change(id, |activation| activation.body = Body::Held);
        self.timers.extend(timers(&approval));
        self.spending.open = Some(Box::new(approval));
        Ok(())
    }

    /// The open question about a budget, if it has this number.
    pub(super) fn budget_approval(&self, number: u64) -> Option<&Approval> {
        self.spending
            .open
            .as_deref()
            .filter(|approval| approval.number == number)
    }

    pub(super) fn escalate_budget(&mut self) {
        self.change_budget_question(|open| open.escalated = true);
    }

    /// Changes the open question about a budget and keeps its timers true.
    pub(super) fn change_budget_question(&mut self, change: impl FnOnce(&mut Approval)) {
        if let Some(open) = &mut self.spending.open {
            for timer in timers(open) {
                self.timers.remove(&timer);
            }
            change(open);
            self.timers.extend(timers(open));
        }
    }

    /// Nobody needs to know any more.
    pub(super) fn withdraw_budget_question(&mut self) {
        if let Some(open) = self.spending.open.take() {
            for timer in timers(&open) {
                self.timers.remove(&timer);
            }
        }
    }

    /// Decided, or too late: what was held goes on, or fails.
    pub(super) fn close_budget(&mut self, verdict: Option<&Verdict>) {
        let Some(open) = self.spending.open.take() else {
            return;
        };
        for timer in timers(&open) {
            self.timers.remove(&timer);
        }
        let spending = &mut self.spending;
        match (verdict.filter(|verdict| verdict.approved), &open.budget) {
            (Some(verdict), Some(breach)) => {
                let budget = self.definition.workflow.header.policy.budget.as_ref();
                if breach.namespace.is_some() {
                    let raise = verdict.raise.unwrap_or(breach.limits);
                    spending.waiver = Some(raise.beyond(spending.spent));
                } else {
                    let raise = verdict.raise.or(budget.map(|budget| budget.limits));
                    spending.raised += raise.map(Usage::from).unwrap_or_default();
                }
            }
            _ => spending.refused = true,
        }
        self.release();
    }

    /// The budget is a new one: what was held goes on, unless that is used up as well.
    pub(super) fn renew_budget(&mut self, pointer: &str, number: u64) -> Result<(), Mismatch> {
        let Some(open) = self.spending.open.take_if(|approval| approval.number == number) else {
            return Err(self.mismatch(format!("approval {number} of {pointer} is not open")));
        };
        for timer in timers(&open) {
            self.timers.remove(&timer);
        }
        self.release();
        Ok(())
    }

    fn release(&mut self) {
        let held: Vec<u64> = self
            .activations
            .iter()
            .filter(|(_, activation)| matches!(activation.body, Body::Held))
            .map(|(id, _)| *id)
            .collect();
        for id in held {
            self.change(id, |activation| activation.body = Body::Ready);
        }
    }

    /// What follows when the time to decide about a budget is over, or when more people are to be asked.
    pub(super) fn budget_overdue(&self, cause: Cause) -> Option<EventKind> {
        let open = self.spending.open.as_ref()?;
        let (task, approval) = (Arc::clone(&open.task), open.number);
        let activation = open.activation;
        Some(match cause {
            Cause::Escalation => EventKind::ApprovalEscalated {
                task,
                activation,
                approval,
            },
            Cause::Renewal => EventKind::BudgetRenewed {
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
}

fn timers(approval: &Approval) -> Vec<Timer> {
    let renews = approval.budget.as_ref().and_then(|breach| breach.renews);
    let renewal = renews.map(|due| (due, Cause::Renewal));
    let timers = approval.timers().into_iter().flatten();
    timers
        .chain(renewal)
        .map(|(due, cause)| Timer {
            due,
            owner: None,
            cause,
        })
        .collect()
}

fn used_up(breach: &Breach) -> String {
    let Breach {
        namespace,
        spent,
        limits,
        ..
    } = breach;
    match namespace {
        None => format!("the run has used {spent} of a budget of {limits}"),
        Some(name) => format!("namespace '{name}' has used {spent} of a budget of {limits}"),
    }
}
