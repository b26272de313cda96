//! Collects, looks for what is slow, and does what may be done about it by itself.

use std::collections::VecDeque;
use std::sync::Arc;

use jiff::Timestamp;
use parking_lot::Mutex;

use super::{Findings, Kind, analyse, slots};
use crate::engine::Engine;

/// Changes that are remembered.
const MOST_CHANGES: usize = 50;

/// What was changed, and why.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Change {
    pub(crate) at: Timestamp,
    pub(crate) what: String,
    pub(crate) evidence: String,
}

/// What is to be told of it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Report {
    pub(crate) findings: Findings,
    pub(crate) applies: bool,
    /// The oldest first.
    pub(crate) changes: Vec<Change>,
}

/// Remembers what was changed.
#[derive(Debug, Default)]
pub(crate) struct Monitor {
    changes: Mutex<VecDeque<Change>>,
}

impl Engine {
    /// What is found in what is measured by now.
    pub(crate) fn report(&self) -> Report {
        Report {
            findings: analyse(&self.meter.measured()),
            applies: self.settings.optimize.apply,
            changes: self.monitor.changes.lock().iter().cloned().collect(),
        }
    }

    /// Looks at how much is taken of what there is.
    pub(crate) fn look_at_load(&self) {
        self.meter.look(self.floor.counts());
    }

    /// Looks for what is slow, tells of it, does what may be done, and lets what was measured grow old.
    pub(crate) fn watch_performance(self: &Arc<Self>) {
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
        let settings = &self.settings;
        if settings.optimize.apply {
            let (now, configured) = (self.floor.counts().slots, settings.max_concurrent_workflows);
            let most = settings.optimize.most_slots(configured);
            let wanted = slots(now, configured, most, &measured.occupied);
            if wanted != now {
                self.floor.set_slots(wanted);
                let evidence = format!(
                    "{:.0} % of the slots were taken in the mean of {:.0} looks",
                    measured.occupied.mean * 100.0,
                    measured.occupied.count
                );
                let what = format!("{now} to {wanted} runs at the same time");
                tracing::info!(
                    what,
                    evidence,
                    kind = Kind::Resources.name(),
                    "an improvement is applied"
                );
                let mut changes = self.monitor.changes.lock();
                if changes.len() >= MOST_CHANGES {
                    changes.pop_front();
                }
                changes.push_back(Change {
                    at: self.clock.now(),
                    what,
                    evidence,
                });
            }
        }
        self.meter.age();
    }
}
