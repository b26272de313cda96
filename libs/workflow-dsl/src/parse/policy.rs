//! `metadata.muster`: see [`crate::document::policy`].

mod gate;

use std::time::Duration;

use muster_api::names::suggestion;

use super::Reader;
use super::catch::given;
use super::cursor::{Cursor, Fields};
use crate::document::policy::{Concurrency, KEY, Priority, Ratio, TaskPolicy, WorkflowPolicy};
use crate::document::{Call, Kind};
use crate::node::Content;
use crate::run::MOST_TASKS;

/// Fields of `document.metadata.muster`.
const OF_WORKFLOWS: &[&str] = &["priority", "concurrency", "maxIterations", "budget"];

/// Answers are kept for at most so long.
const LONGEST_TTL: Duration = Duration::from_secs(30 * 24 * 3600);

/// At most so many bounds of a workflow's runs.
const MOST_LIMITS: usize = 8;

/// Fields of a task's `metadata.muster`.
const OF_TASKS: &[&str] = &[
    "approval",
    "compensation",
    "maxIterations",
    "minSuccessRatio",
    "idempotent",
    "cache",
];

impl Reader {
    /// The policy in the metadata among `fields`, of the section `document`.
    pub(super) fn workflow_policy(&mut self, fields: &Fields<'_>) -> WorkflowPolicy {
        let Some(fields) = self.policy_fields(fields, OF_WORKFLOWS) else {
            return WorkflowPolicy::default();
        };
        WorkflowPolicy {
            priority: self.priority(&fields).unwrap_or_default(),
            concurrency: self.concurrency(&fields).unwrap_or_default(),
            max_iterations: self.max_iterations(&fields),
            budget: fields.get("budget").and_then(|budget| self.budget(&budget)),
        }
    }

    /// The policy in the metadata among `fields`, of a task of this kind.
    pub(super) fn task_policy(&mut self, fields: &Fields<'_>, kind: Option<&Kind>) -> TaskPolicy {
        let Some(fields) = self.policy_fields(fields, OF_TASKS) else {
            return TaskPolicy::default();
        };
        let approval = fields.get("approval").and_then(|approval| self.gate(&approval));
        TaskPolicy {
            approval: approval.map(Box::new),
            compensation: self.compensation(&fields),
            max_iterations: self.max_iterations(&fields),
            min_success: self.min_success(&fields, kind),
            cache: self.cache(&fields, kind),
        }
    }

    /// How long the answer of a call may stand for the next one.
    fn cache(&mut self, fields: &Fields<'_>, kind: Option<&Kind>) -> Option<Duration> {
        let declared = fields.get("idempotent");
        let idempotent = declared.as_ref().and_then(|field| self.boolean(field));
        for field in declared.iter().chain(&fields.get("cache")) {
            let reaches_out =
                |kind: &Kind| matches!(kind, Kind::Call(call) if !matches!(call, Call::Function(_)));
            if kind.is_some_and(|kind| !reaches_out(kind)) {
                let message = "only a call that reaches out can be idempotent and have its answer kept; in a function of \
                               one's own, say it of its tasks";
                self.wrong_name(field, message);
                return None;
            }
        }
        let field = fields.get("cache")?;
        if idempotent != Some(true) {
            self.wrong_name(
                &field,
                "only the answer of a call that may be repeated is kept; say so with 'idempotent: true'",
            );
            return None;
        }
        let settings = self.fields(&field, &["ttl"])?;
        let ttl = self.require(&settings, "ttl")?;
        let kept = self.duration(&ttl)?.fixed();
        let kept = kept.filter(|kept| !kept.is_zero() && *kept <= LONGEST_TTL);
        if kept.is_none() {
            self.wrong(
                &ttl,
                "'ttl' must be a duration above zero and of at most 30 days, such as PT1H",
            );
        }
        kept
    }

    fn max_iterations(&mut self, fields: &Fields<'_>) -> Option<u64> {
        let field = fields.get("maxIterations")?;
        self.integer(&field, 1, MOST_TASKS)
    }

    /// Which part of the branches of a `fork` must end well.
    fn min_success(&mut self, fields: &Fields<'_>, kind: Option<&Kind>) -> Option<Ratio> {
        let field = fields.get("minSuccessRatio")?;
        // What is wrong with the task itself is said where it is read.
        match kind? {
            Kind::Fork(fork) if !fork.compete => {}
            Kind::Fork(_) => {
                self.wrong_name(
                    &field,
                    "branches that compete need no ratio: the first to end decides, and one that fails fails the fork",
                );
                return None;
            }
            other => {
                let kind = other.name();
                self.wrong_name(
                    &field,
                    format!("'minSuccessRatio' is of tasks of the kind 'fork', not '{kind}'"),
                );
                return None;
            }
        }
        let ratio = match &field.node.content {
            Content::Number(number) => number.as_f64().and_then(Ratio::new),
            _ => None,
        };
        if ratio.is_none() {
            self.wrong(
                &field,
                "'minSuccessRatio' must be a number above 0 and at most 1, such as 0.5",
            );
        }
        ratio
    }

    fn priority(&mut self, fields: &Fields<'_>) -> Option<Priority> {
        let field = fields.get("priority")?;
        let text = self.text(&field)?;
        let priority = text.parse::<Priority>();
        priority
            .map_err(|error| {
                let nearest = suggestion(text, Priority::ALL.map(Priority::name));
                self.wrong(&field, format!("{error}{nearest}"));
            })
            .ok()
    }

    /// One bound, or a list of them.
    fn concurrency(&mut self, fields: &Fields<'_>) -> Option<Vec<Concurrency>> {
        let field = fields.get("concurrency")?;
        let items = match &field.node.content {
            Content::Array(_) => self.items(&field)?,
            _ => vec![field.clone()],
        };
        if items.is_empty() || items.len() > MOST_LIMITS {
            self.wrong(
                &field,
                format!("'concurrency' is one {{limit, key}}, or a list of 1 to {MOST_LIMITS}"),
            );
            return None;
        }
        let bounds: Vec<Option<Concurrency>> = items.iter().map(|item| self.bound(item)).collect();
        bounds.into_iter().collect()
    }

    fn bound(&mut self, at: &Cursor<'_>) -> Option<Concurrency> {
        let fields = self.fields(at, &["limit", "key"])?;
        let limit = self.require(&fields, "limit")?;
        let limit = self.integer(&limit, 1, u64::from(u32::MAX))?;
        let key = fields.get("key").map(|key| self.expression_field(&key));
        Some(Concurrency {
            limit: u32::try_from(limit).unwrap_or(u32::MAX),
            key: given(key)?,
        })
    }

    fn policy_fields<'n>(&mut self, fields: &Fields<'n>, allowed: &[&str]) -> Option<Fields<'n>> {
        let metadata = fields.get("metadata")?;
        // That it must be an object is said by whoever reads the metadata.
        let policy = metadata.child(KEY)?;
        self.fields(&policy, allowed)
    }
}
