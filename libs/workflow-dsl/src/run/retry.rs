//! What becomes of an error inside a `try`.

use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rand::{Rng, RngExt};

use super::Run;
use super::effect::after;
use super::evaluate::View;
use super::state::{Activation, Scope, Try};
use serde_json::Value;

use crate::document::{Catch, ErrorFilter, Kind, LONGEST_DELAY, Period, Retry, Task};
use crate::journal::{EventKind, Problem, Standard};

/// How long each attempt of a `try` may take.
pub(super) fn attempt_limit(task: &Task) -> Option<&Period> {
    match &task.kind {
        Kind::Try(attempt) => attempt.catch.retry.as_ref()?.limit.attempt_duration.as_ref(),
        _ => None,
    }
}

/// When an attempt that begins at `start` times out, where that is computed; what the document says is known to the fold.
fn attempt_deadline(
    view: &View<'_>,
    task: &Task,
    input: &Value,
    start: Timestamp,
) -> Result<Option<Timestamp>, Problem> {
    let limit = attempt_limit(task).filter(|limit| limit.fixed().is_none());
    view.deadline(limit, input, start, "the duration limit of the attempt")
}

/// As [`attempt_deadline`], of the first attempt.
pub(super) fn first_deadline(
    view: &View<'_>,
    task: &Task,
    input: &Value,
) -> Result<Option<Timestamp>, Problem> {
    attempt_deadline(view, task, input, view.now)
}

/// What to do about `error`: try again, handle it, or fail with it. An error that is to be retried and has used up
/// its retries fails the `try`, unless there is a `catch.do` to handle it: a policy that only retries does not mean
/// that the failure is of no interest.
pub(super) fn on_error(
    run: &Run,
    task: &Task,
    (id, activation): (u64, &Activation),
    attempt: &Try,
    error: &Arc<Problem>,
    now: Timestamp,
    random: &mut dyn Rng,
) -> EventKind {
    let fault = |error: Problem| EventKind::TaskFaulted {
        task: Arc::clone(&activation.pointer),
        activation: id,
        error,
    };
    let Kind::Try(definition) = &task.kind else {
        return fault(error.as_ref().clone());
    };
    let catch = &definition.catch;
    let scope = Scope::inside(
        activation.scope.as_ref(),
        &catch.variable,
        Arc::new(error.to_value()),
    );
    let view = View {
        scope: Some(&scope),
        ..View::of(run, task, activation, now)
    };
    let again = match catches(&view, catch, error) {
        Ok(false) => return fault(error.as_ref().clone()),
        // Nothing is tried again that is being cancelled.
        Ok(true) => catch
            .retry
            .as_ref()
            .filter(|_| !run.is_interrupted(id))
            .map_or(Ok(None), |retry| {
                due(&view, retry, attempt, activation.idle, random)
            })
            .and_then(|due| {
                let Some(due) = due else { return Ok(None) };
                Ok(Some((due, attempt_deadline(&view, task, view.input, due)?)))
            }),
        Err(problem) => Err(problem),
    };
    let (task, error) = (Arc::clone(&activation.pointer), error.as_ref().clone());
    match again {
        Err(problem) => fault(problem.at(&task)),
        Ok(Some((due, attempt_deadline))) => EventKind::TaskRetried {
            task,
            activation: id,
            attempt: attempt.attempt.saturating_add(1),
            due,
            attempt_deadline,
            error,
        },
        Ok(None) if catch.retry.is_some() && catch.tasks.is_none() => fault(error),
        Ok(None) => EventKind::TaskCaught {
            task,
            activation: id,
            error,
        },
    }
}

fn catches(view: &View<'_>, catch: &Catch, error: &Problem) -> Result<bool, Problem> {
    Ok(matches(&catch.errors, error)
        && catch
            .when
            .as_ref()
            .map_or(Ok(true), |when| view.is_true(when, view.input))?
        && !catch
            .except_when
            .as_ref()
            .map_or(Ok(false), |when| view.is_true(when, view.input))?)
}

fn matches(filter: &ErrorFilter, error: &Problem) -> bool {
    let same = |wanted: &Option<String>, given: &Option<String>| wanted.is_none() || wanted == given;
    filter
        .kind
        .as_ref()
        .is_none_or(|kind| same_kind(kind, &error.kind))
        && filter.status.is_none_or(|status| status == error.status)
        && same(&filter.instance, &error.instance)
        && same(&filter.title, &error.title)
        && same(&filter.detail, &error.detail)
}

/// Whether two URIs name the same kind of error; those of the language have an older form.
fn same_kind(wanted: &str, given: &str) -> bool {
    wanted == given || Standard::by_uri(wanted).is_some_and(|kind| Standard::by_uri(given) == Some(kind))
}

/// When the next attempt begins; none if there is to be none. `idle` is how long the task's clock has stood still.
fn due(
    view: &View<'_>,
    retry: &Retry,
    attempt: &Try,
    idle: SignedDuration,
    random: &mut dyn Rng,
) -> Result<Option<Timestamp>, Problem> {
    let wanted = retry
        .when
        .as_ref()
        .map_or(Ok(true), |when| view.is_true(when, view.input))?
        && !retry
            .except_when
            .as_ref()
            .map_or(Ok(false), |when| view.is_true(when, view.input))?;
    // The first retry follows the first attempt.
    let number = attempt.attempt;
    if !wanted || number > retry.limit.most_retries() {
        return Ok(None);
    }
    let jitter = match &retry.jitter {
        None => Duration::ZERO,
        Some(jitter) => chosen(
            view.period(&jitter.from, view.input, "the 'from' of the jitter")?,
            view.period(&jitter.to, view.input, "the 'to' of the jitter")?,
            random,
        ),
    };
    let base = view.period(&retry.delay, view.input, "the delay of the retry")?;
    let delay = retry
        .backoff
        .delay(base, number)
        .saturating_add(jitter)
        .min(LONGEST_DELAY);
    let due = after(view.now, delay);
    let last = match &retry.limit.duration {
        None => Timestamp::MAX,
        Some(limit) => {
            let limit = view.period(limit, view.input, "the duration limit of the retries")?;
            let limit = after(view.started, limit);
            limit.checked_add(idle).unwrap_or(Timestamp::MAX)
        }
    };
    Ok((due <= last).then_some(due))
}

fn chosen(from: Duration, to: Duration, random: &mut dyn Rng) -> Duration {
    let nanoseconds = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    let (from, to) = (nanoseconds(from), nanoseconds(to));
    Duration::from_nanos(if from < to {
        random.random_range(from..=to)
    } else {
        from
    })
}
