//! What becomes of an error inside a `try`.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rand::{Rng, RngExt};

use super::Run;
use super::effect::after;
use super::evaluate::View;
use super::state::{Activation, Scope, Try};
use crate::document::{Catch, ErrorFilter, Jitter, Kind, Retry, Task};
use crate::journal::{EventKind, Problem};

/// At most so many retries where the policy gives no number.
const MOST_RETRIES: u32 = 1_000;

/// Longest delay before a retry.
const LONGEST_DELAY: Duration = Duration::from_secs(30 * 24 * 3600);

/// How long each attempt of a `try` may take.
pub(super) fn attempt_limit(task: &Task) -> Option<Duration> {
    match &task.kind {
        Kind::Try(attempt) => attempt
            .catch
            .retry
            .as_ref()
            .and_then(|retry| retry.limit.attempt_duration),
        _ => None,
    }
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
        Ok(true) => catch
            .retry
            .as_ref()
            .map_or(Ok(None), |retry| due(&view, retry, attempt, random)),
        Err(problem) => Err(problem),
    };
    let (task, error) = (Arc::clone(&activation.pointer), error.as_ref().clone());
    match again {
        Err(problem) => fault(problem.at(&task)),
        Ok(Some(due)) => EventKind::TaskRetried {
            task,
            activation: id,
            attempt: attempt.attempt.saturating_add(1),
            due,
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
    filter.kind.as_ref().is_none_or(|kind| *kind == error.kind)
        && filter.status.is_none_or(|status| status == error.status)
        && same(&filter.instance, &error.instance)
        && same(&filter.title, &error.title)
        && same(&filter.detail, &error.detail)
}

/// When the next attempt begins; none if there is to be none.
fn due(
    view: &View<'_>,
    retry: &Retry,
    attempt: &Try,
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
    if !wanted || number > retry.limit.attempts.unwrap_or(MOST_RETRIES) {
        return Ok(None);
    }
    let jitter = retry
        .jitter
        .map_or(Duration::ZERO, |jitter| chosen(jitter, random));
    let delay = retry
        .backoff
        .delay(retry.delay, number)
        .saturating_add(jitter)
        .min(LONGEST_DELAY);
    let due = after(view.now, delay);
    let last = retry
        .limit
        .duration
        .map_or(Timestamp::MAX, |limit| after(view.started, limit));
    Ok((due <= last).then_some(due))
}

fn chosen(Jitter { from, to }: Jitter, random: &mut dyn Rng) -> Duration {
    let nanoseconds = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    let (from, to) = (nanoseconds(from), nanoseconds(to));
    Duration::from_nanos(if from < to {
        random.random_range(from..=to)
    } else {
        from
    })
}
