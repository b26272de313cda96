//! Errors that no one raises, retries that cannot help, failures that nobody would ever see.

use muster_api::names::suggestion;

use super::super::Reader;
use super::super::cursor::Cursor;
use super::walk;
use crate::document::{Backoff, Catch, ErrorTemplate, Kind, Retry, TaskList, Template, Try};
use crate::duration::spoken;
use crate::journal::Standard;
use crate::node::Content;
use crate::problem::quoted;

/// Statuses of errors that come again each time: whatever was sent is wrong.
const LASTING: [u16; 3] = [400, 401, 403];

impl Reader {
    /// A `try` with its `catch`; `at` is the task's definition.
    pub(super) fn doubt_attempt(&mut self, attempt: &Try, at: &Cursor<'_>) {
        let catch = &attempt.catch;
        if let Some(kind) = &catch.errors.kind {
            self.doubt_type(kind, &at.descend("/catch/errors/with/type"));
        }
        self.doubt_instance(attempt, at);
        if catch.retry.is_some() {
            self.doubt_retry(catch, at);
        }
        let filters = catch.errors != crate::document::ErrorFilter::default();
        let chooses = filters || catch.when.is_some() || catch.except_when.is_some();
        if !chooses && catch.retry.is_none() && catch.tasks.is_none() {
            let message = "this catches every error and does nothing about it, and the run goes on as if there were none; name \
                           the errors that are of no interest in 'errors', or handle them in 'do'";
            self.doubtful(&at.descend("/catch"), message);
        }
    }

    /// The error that a task raises.
    pub(super) fn doubt_error_type(&mut self, error: &ErrorTemplate, at: &Cursor<'_>) {
        let literal = error.kind.fixed();
        let place = at.descend("/raise/error");
        // A name stands for a definition, which has a place of its own.
        if let (Some(kind), Content::Object(_)) = (literal, &place.node.content) {
            self.doubt_type(kind, &place.descend("/type"));
        }
    }

    /// A type that looks like one of the language and is none.
    fn doubt_type(&mut self, kind: &str, at: &Cursor<'_>) {
        let Some(name) = kind.strip_prefix(Standard::BASE) else {
            return;
        };
        if Standard::by_uri(kind).is_none() {
            let names: Vec<&str> = Standard::names().collect();
            let nearest = suggestion(name, names.iter().copied());
            let message = format!(
                "the language has no error {}; there are {}{nearest}",
                quoted(name),
                names.join(", ")
            );
            self.problems.warning(at.place(), &at.pointer, message);
        }
    }

    /// A filter by the place of the failure where no task is.
    fn doubt_instance(&mut self, attempt: &Try, at: &Cursor<'_>) {
        let Some(instance) = &attempt.catch.errors.instance else {
            return;
        };
        // Functions and documents elsewhere have pointers of their own.
        if !instance.starts_with("/do/") || names_instance(&attempt.tasks, instance) {
            return;
        }
        let example = attempt.tasks.tasks.first().map(|task| task.pointer.as_str());
        let message = format!(
            "no task of this 'try' is at {}; the instance of an error is the pointer of the task that failed, such as {}",
            quoted(instance),
            quoted(example.unwrap_or_default())
        );
        let place = at.descend("/catch/errors/with/instance");
        self.problems.warning(place.place(), &place.pointer, message);
    }

    fn doubt_retry(&mut self, catch: &Catch, at: &Cursor<'_>) {
        let place = at.descend("/catch/retry");
        if let Some(what) = lasting(catch) {
            let message = format!(
                "{what} comes again at each attempt, because nothing changes in between; handle it in 'do', or retry other errors"
            );
            self.doubtful(&place, message);
        }
    }

    /// The delays of a retry policy; `at` is its definition.
    pub(in super::super) fn doubt_pauses(&mut self, retry: &Retry, at: &Cursor<'_>) {
        let Some(delay) = retry.delay.fixed() else { return };
        if delay.is_zero() && retry.backoff != Backoff::Constant {
            let message = "without a 'delay' there is nothing for the backoff to let grow; every attempt follows at once";
            self.doubtful(&at.descend("/backoff"), message);
        }
        let limit = retry.limit.duration.as_ref().and_then(|limit| limit.fixed());
        if let Some(limit) = limit
            && delay > limit
        {
            let message = format!(
                "nothing is ever tried again: the first retry would come after {}, and the limit is {}",
                spoken(delay),
                spoken(limit)
            );
            self.doubtful(at, message);
        }
    }
}

/// Which error of the filter, if it is one that a retry does not help against.
fn lasting(catch: &Catch) -> Option<String> {
    use Standard::{Authentication, Authorization, Configuration, Expression, Validation};
    let kind = catch.errors.kind.as_deref();
    match (kind.map(Standard::by_uri), catch.errors.status) {
        (Some(Some(kind)), _) => {
            let lasts = [
                Configuration,
                Validation,
                Expression,
                Authentication,
                Authorization,
            ]
            .contains(&kind);
            lasts.then(|| format!("an error of the type '{}'", kind.name()))
        }
        (None, Some(status)) if LASTING.contains(&status) => {
            Some(format!("an error with the status {status}"))
        }
        _ => None,
    }
}

/// Whether an error out of these tasks can have this instance.
fn names_instance(list: &TaskList, instance: &str) -> bool {
    let mut named = list.descendant(instance).is_some();
    walk(list, &mut |task| {
        if let Kind::Raise(error) = &task.kind {
            named |= match &error.instance {
                Some(Template::Literal(value)) => value.as_str() == Some(instance),
                other => other.is_some(),
            };
        }
    });
    named
}
