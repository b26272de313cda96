//! Which checks are made, one after the other, and what becomes of those that are not.
//!
//! One check at a time: what one does to the target must not be taken by another for the target's own doing. A check has a time of
//! its own, and all of them together have one; who presses Ctrl-C ends the one at work. What was not made is in the report all the
//! same, with the reason.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use muster_runtime::Shutdown;
use muster_runtime::clock::{Clock as _, SystemClock};

use super::check::{Area, Check, Done, Need, Stop, Verdict};
use super::trial::Trial;
use super::{failover, health, initialisation, load, monitoring, scaling, security};
use crate::output::Output;

/// What one check may take.
const LONGEST: Duration = Duration::from_secs(300);

/// Every check, in the order in which they are made.
pub fn all() -> impl Iterator<Item = &'static Check> {
    [
        initialisation::CHECKS,
        health::CHECKS,
        load::CHECKS,
        failover::CHECKS,
        security::CHECKS,
        monitoring::CHECKS,
        scaling::CHECKS,
    ]
    .into_iter()
    .flatten()
}

/// Those of these areas; all where none is named.
pub fn chosen(areas: &[Area]) -> Vec<&'static Check> {
    let is_chosen = |check: &&Check| areas.is_empty() || areas.contains(&check.area);
    all().filter(is_chosen).collect()
}

/// Prints which checks there are and what each needs.
pub fn list(checks: &[&Check], output: &Output) {
    let needs = |check: &Check| check.needs.iter().map(|need| need.describe()).collect::<Vec<_>>();
    if output.is_json() {
        let checks: Vec<_> = checks
            .iter()
            .map(|check| {
                serde_json::json!({"area": check.area.name(), "name": check.name, "needs": needs(check)})
            })
            .collect();
        output.json(&serde_json::json!({ "checks": checks }));
        return;
    }
    let rows = checks.iter().map(|check| {
        [
            check.area.name().to_owned(),
            check.name.to_owned(),
            needs(check).join("; "),
        ]
    });
    output.table(["AREA", "CHECK", "NEEDS"], rows.collect());
}

/// Makes the checks.
pub async fn carry_out(
    checks: &[&'static Check],
    trial: &mut Trial,
    deadline: Duration,
    shutdown: &Shutdown,
    output: &Output,
) -> Vec<Done> {
    let clock = SystemClock::default();
    let until = clock.monotonic() + deadline;
    let progress = Progress::new(checks.len(), output);
    let mut done = Vec::with_capacity(checks.len());
    for check in checks {
        progress.begins(check);
        let before = clock.monotonic();
        let left = until.saturating_sub(before);
        let verdict = if shutdown.is_requested() {
            Err(Stop::skipped("it was interrupted"))
        } else if left.is_zero() {
            Err(Stop::skipped(format!(
                "the time of {} s was over (--deadline)",
                deadline.as_secs()
            )))
        } else if let Some(need) = check.needs.iter().find(|need| trial.target.lacks(**need)) {
            Err(lacking(*need))
        } else {
            made(check, trial, left.min(LONGEST), shutdown).await
        };
        let came_out = Done::of(check, verdict, clock.monotonic().saturating_sub(before));
        progress.ended(&came_out);
        done.push(came_out);
    }
    progress.over();
    done
}

fn lacking(need: Need) -> Stop {
    Stop::skipped(format!("it needs {}", need.describe()))
}

/// Makes a check within this time.
async fn made(check: &Check, trial: &mut Trial, time: Duration, shutdown: &Shutdown) -> Verdict {
    tokio::select! {
        verdict = tokio::time::timeout(time, (check.run)(trial)) => verdict.unwrap_or_else(|_| {
            Err(Stop::failed(format!("it did not come to an end within {} s", time.as_secs())))
        }),
        () = shutdown.requested() => Err(Stop::skipped("it was interrupted")),
    }
}

/// What is shown on a terminal while checks are made.
struct Progress(Option<ProgressBar>);

impl Progress {
    fn new(count: usize, output: &Output) -> Self {
        if !output.is_terminal() {
            return Self(None);
        }
        let bar = ProgressBar::new(u64::try_from(count).unwrap_or(u64::MAX));
        if let Ok(style) = ProgressStyle::with_template("{spinner:.cyan} {pos}/{len} {msg}") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(80));
        Self(Some(bar))
    }

    fn begins(&self, check: &Check) {
        if let Some(bar) = &self.0 {
            bar.set_message(format!("{}: {}", check.area.name(), check.name));
        }
    }

    fn ended(&self, done: &Done) {
        if let Some(bar) = &self.0 {
            bar.println(format!(
                "{:>7}  {:>5.1} s  {}: {}",
                done.outcome.name(),
                done.took.as_secs_f64(),
                done.area.name(),
                done.name
            ));
            bar.inc(1);
        }
    }

    fn over(&self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_area_has_checks_and_no_two_have_one_name() {
        let names: BTreeSet<&str> = all().map(|check| check.name).collect();
        assert_eq!(names.len(), all().count());
        for area in Area::ALL {
            assert!(all().any(|check| check.area == area), "{area:?}");
            assert!(!chosen(&[area]).is_empty());
        }
        let order: Vec<Area> = all().map(|check| check.area).collect();
        assert!(order.is_sorted(), "{order:?}");
    }
}
