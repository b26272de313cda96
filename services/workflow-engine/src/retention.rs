//! Forgetting runs that ended long ago.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use muster_runtime::Shutdown;
use muster_runtime::clock::SharedClock;

use crate::store::answers::MOST_ANSWERS;
use crate::store::{Error, Store};

/// What was used is kept for so many days: the longest budget is of a month.
const KEPT_DAYS: i64 = 62;

/// Runs forgotten between two looks at the clock.
const AT_ONCE: usize = 100;

/// Forgets what is past its time. What cannot be forgotten now is forgotten the next time.
///
/// # Errors
/// What could not be forgotten, and why.
pub(crate) async fn clean_up(
    store: &dyn Store,
    clock: &SharedClock,
    retention: Duration,
    shutdown: &Shutdown,
) -> Result<(), String> {
    let retention = SignedDuration::try_from(retention).unwrap_or(SignedDuration::MAX);
    let horizon = clock.now().checked_sub(retention).unwrap_or(Timestamp::MIN);
    let mut failures = Vec::new();
    match sweep(store, horizon, shutdown).await {
        Ok(0) => {}
        Ok(count) => tracing::info!(count, "forgot runs that ended before {horizon}"),
        Err(error) => failures.push(format!("old runs: {error}")),
    }
    let answers = store.forget_answers(clock.now(), MOST_ANSWERS, AT_ONCE * AT_ONCE);
    if let Err(error) = answers.await {
        failures.push(format!("kept answers: {error}"));
    }
    let oldest = clock.now().as_second().div_euclid(24 * 60 * 60) - KEPT_DAYS;
    if let Err(error) = store.forget_spending(oldest, AT_ONCE * AT_ONCE).await {
        failures.push(format!("what was used long ago: {error}"));
    }
    if failures.is_empty() {
        Ok(())
    } else {
        Err(format!("cannot forget {}", failures.join(", nor ")))
    }
}

async fn sweep(store: &dyn Store, horizon: Timestamp, shutdown: &Shutdown) -> Result<usize, Error> {
    let mut count = 0;
    loop {
        let old = store.ended_before(horizon, AT_ONCE).await?;
        if old.is_empty() || shutdown.is_requested() {
            return Ok(count);
        }
        for id in old {
            store.forget_run(&id).await?;
            count += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::Status;
    use crate::store::conformance;
    use crate::store::embedded::Embedded;
    use crate::store::{Filter, Step};

    #[tokio::test]
    async fn a_sweep_forgets_what_ended_before_the_horizon_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let directory = muster_runtime::data_directory::open(directory.path()).unwrap();
        let store = Embedded::open(directory).unwrap();
        for number in 0..AT_ONCE as i64 + 5 {
            let (record, mut summary) = conformance::run(&format!("run-{number}"), number);
            store.create_run(&record, &summary).await.unwrap();
            if number != 3 {
                summary.status = Status::Completed;
                summary.ended_at = Some(summary.created_at);
                let step = Step::to(summary);
                store.append(step).await.unwrap();
            }
        }
        let horizon = Timestamp::UNIX_EPOCH + SignedDuration::from_secs(AT_ONCE as i64 + 2);
        let forgotten = sweep(&store, horizon, &Shutdown::new()).await.unwrap();
        assert_eq!(forgotten, AT_ONCE + 1);
        let left = store.runs(&Filter::default(), None, 100).await.unwrap().entries;
        let left: Vec<_> = left.iter().map(|run| run.id.as_str()).collect();
        assert_eq!(left, ["run-104", "run-103", "run-102", "run-3"]);
    }
}
