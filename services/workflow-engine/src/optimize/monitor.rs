//! Collects, looks for what is slow, and does what may be done about it by itself.
//!
//! What is done is in the audit log before, and can be taken back ([`Engine::revert_changes`]); then nothing more is done by itself in
//! this life of the engine. An engine that starts again has as many slots as are configured: what it measured is gone with it.

use std::collections::VecDeque;
use std::sync::Arc;

use jiff::Timestamp;
use muster_runtime::telemetry::Optimizer;
use muster_runtime::trust::audit::Auditor;
use parking_lot::Mutex;

use super::{Findings, Kind, analyse, slots};
use crate::engine::Engine;

/// Changes that are remembered.
const MOST_CHANGES: usize = 50;

/// What was changed, and why.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Change {
    pub(crate) number: u64,
    pub(crate) at: Timestamp,
    /// Slots before and after.
    pub(crate) from: usize,
    pub(crate) to: usize,
    pub(crate) evidence: String,
    pub(crate) is_reverted: bool,
}

impl Change {
    pub(crate) fn what(&self) -> String {
        format!("{} to {} runs at the same time", self.from, self.to)
    }
}

/// What is to be told of it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Report {
    pub(crate) findings: Findings,
    pub(crate) mode: Optimizer,
    /// The oldest first.
    pub(crate) changes: Vec<Change>,
}

/// Remembers what was changed.
#[derive(Debug, Default)]
pub(crate) struct Monitor {
    mode: Optimizer,
    auditor: Auditor,
    done: Mutex<Done>,
}

#[derive(Debug, Default)]
struct Done {
    changes: VecDeque<Change>,
    last: u64,
    /// Somebody has taken something back.
    is_held: bool,
}

impl Monitor {
    pub(crate) fn new(mode: Optimizer, auditor: Auditor) -> Self {
        Self {
            mode,
            auditor,
            done: Mutex::default(),
        }
    }

    /// Whether it looks at all.
    pub(crate) fn looks(&self) -> bool {
        self.mode != Optimizer::Off
    }
}

impl Engine {
    /// What is found in what is measured by now.
    pub(crate) fn report(&self) -> Report {
        Report {
            findings: analyse(&self.meter.measured()),
            mode: self.monitor.mode,
            changes: self.monitor.done.lock().changes.iter().cloned().collect(),
        }
    }

    /// Looks at how much is taken of what there is.
    pub(crate) fn look_at_load(&self) {
        self.meter.look(self.floor.counts());
    }

    /// Looks for what is slow, tells of it, does what may be done, and lets what was measured grow old.
    pub(crate) async fn watch_performance(self: &Arc<Self>) -> Result<(), String> {
        let measured = self.meter.measured();
        let findings = analyse(&measured);
        self.meter.found(&findings);
        for found in &findings.bottlenecks {
            tracing::info!(
                place = found.place,
                sign = found.sign.name(),
                evidence = found.evidence,
                "a bottleneck"
            );
        }
        let outcome = self.raise_slots(&measured.occupied).await;
        self.meter.age();
        outcome
    }

    /// Has more or fewer runs work at the same time, where that is to be done.
    async fn raise_slots(self: &Arc<Self>, occupied: &super::measured::Series) -> Result<(), String> {
        let monitor = &self.monitor;
        if monitor.mode != Optimizer::Apply || monitor.done.lock().is_held {
            return Ok(());
        }
        let configured = self.settings.max_concurrent_workflows;
        let most = self.settings.optimize.most_slots(configured);
        let now = self.floor.counts().slots;
        let wanted = slots(now, configured, most, occupied);
        if wanted == now {
            return Ok(());
        }
        let evidence = format!(
            "{:.0} % of the slots were taken in the mean of {:.0} looks",
            occupied.mean * 100.0,
            occupied.count
        );
        let auditor = monitor.auditor.clone();
        let because = format!("{now} to {wanted}: {evidence}");
        let written =
            tokio::task::spawn_blocking(move || auditor.changes("optimize slots", "engine", &because));
        written.await.map_err(|error| error.to_string())??;
        let mut done = monitor.done.lock();
        if done.is_held {
            return Ok(());
        }
        self.floor.set_slots(wanted);
        self.meter.changed(if wanted > now { "more" } else { "less" });
        done.last += 1;
        let change = Change {
            number: done.last,
            at: self.clock.now(),
            from: now,
            to: wanted,
            evidence,
            is_reverted: false,
        };
        tracing::info!(
            what = change.what(),
            evidence = change.evidence,
            kind = Kind::Resources.name(),
            "an improvement is applied"
        );
        if done.changes.len() >= MOST_CHANGES {
            done.changes.pop_front();
        }
        done.changes.push_back(change);
        Ok(())
    }

    /// Takes back changes from the first of these on, or all. What was taken back, the newest first.
    ///
    /// # Errors
    /// The number of one that is none which is in force; then none is taken back.
    pub(crate) fn revert_changes(&self, numbers: Option<&[u64]>) -> Result<Vec<Change>, u64> {
        let mut done = self.monitor.done.lock();
        let first = match numbers {
            None => 0,
            Some(numbers) => {
                let is_in_force =
                    |change: &Change, number: u64| change.number == number && !change.is_reverted;
                for number in numbers {
                    if !done.changes.iter().any(|change| is_in_force(change, *number)) {
                        return Err(*number);
                    }
                }
                numbers.iter().copied().min().unwrap_or_default()
            }
        };
        let mut reverted = Vec::new();
        for change in done.changes.iter_mut().rev() {
            if change.number >= first && !std::mem::replace(&mut change.is_reverted, true) {
                reverted.push(change.clone());
            }
        }
        if numbers.is_none() {
            self.floor.set_slots(self.settings.max_concurrent_workflows);
        } else if let Some(oldest) = reverted.last() {
            self.floor.set_slots(oldest.from);
        }
        done.is_held = true;
        for change in &reverted {
            self.meter.changed("reverted");
            tracing::info!(
                what = change.what(),
                number = change.number,
                "a change is taken back"
            );
        }
        Ok(reverted)
    }
}
