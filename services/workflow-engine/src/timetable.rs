//! Schedules: which runs begin by themselves, and when.
//!
//! A schedule belongs to a name in the catalogue. It is made, changed and ended by applying a document that is the
//! newest of its name then ([`crate::engine::Engine::apply`]); operators pause it, trigger it and backfill it.
//!
//! What is relied upon:
//!
//! - **An instant fires once.** A run that a schedule starts has an id that follows from the schedule's name and the
//!   instant. The run is started first and the schedule is written then, so that a crash between the two starts
//!   the same run again, which changes nothing.
//! - **Late rather than never.** The instant that is next is stored. What was due while the engine was down fires when it
//!   is back, once for all instants that have passed.
//! - **`after` counts from the end of the run before**, however it ended. The run is stored with the schedule, which looks at
//!   it when it is loaded, and is told of its end while the engine runs.
//!
//! Rejected: a run that waits and starts others. It would have a history without end, and a new version of the
//! document would not reach it.

mod controls;
mod keeper;

use std::fmt;

use jiff::Timestamp;
use muster_workflow_dsl::document;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::error::Error;
use crate::run::RunId;

pub use controls::{Backfill, Backfilled, TriggerRun};
pub(crate) use keeper::{Timetable, drive, load};

/// Most schedules of one engine.
pub const MOST_SCHEDULES: usize = 10_000;

/// Most instants that are backfilled at once.
pub const MOST_BACKFILLED: usize = 1_000;

/// Namespace of the ids of runs that schedules start.
const NAMESPACE: Uuid = Uuid::from_u128(0x2f0c_91d6_5e0b_4a58_8a3b_65c1_8f4e_7d20);

/// Which schedule: that of the workflow with this name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Name {
    /// `document.namespace`.
    pub namespace: String,
    /// `document.name`.
    pub name: String,
}

impl fmt::Display for Name {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.namespace, self.name)
    }
}

/// A schedule as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Schedule {
    /// Whose it is.
    #[serde(flatten)]
    pub name: Name,
    /// `document.version` of the document that says so.
    pub version: String,
    /// Digest of that document.
    pub digest: String,
    /// What it says.
    pub rule: document::Schedule,
    /// Since when it counts.
    pub anchor: Timestamp,
    /// When it fires next; none while it waits for a run to end, or if there is no next time.
    pub next: Option<Timestamp>,
    /// The run whose end it waits for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub awaits: Option<RunId>,
    /// Since when, and why, it does not fire.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<Pause>,
    /// What it has come to last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<Firing>,
    /// How often it has fired.
    pub fired: u64,
    /// How often it was written; what is written is checked against it.
    pub revision: u64,
}

/// Since when, and why, a schedule does not fire.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pause {
    /// Since when.
    pub since: Timestamp,
    /// Why, in the words of whoever paused it.
    pub reason: String,
}

/// One time that a schedule has fired.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Firing {
    /// The instant that it was for.
    pub scheduled_at: Timestamp,
    /// When it did.
    pub fired_at: Timestamp,
    /// The run that it has started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
    /// Why it has started none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

impl Schedule {
    /// A schedule that begins to count at `now`, as this document says.
    fn new(name: Name, version: String, digest: String, rule: document::Schedule, now: Timestamp) -> Self {
        let mut schedule = Self {
            name,
            version,
            digest,
            rule,
            anchor: now,
            next: None,
            awaits: None,
            paused: None,
            last: None,
            fired: 0,
            revision: 0,
        };
        schedule.begin(now);
        schedule
    }

    /// Says when it fires next, if it is to fire next after `now`.
    fn begin(&mut self, now: Timestamp) {
        self.next = match &self.rule {
            document::Schedule::After(delay) => later(now, *delay),
            rule => rule.next(self.anchor, now),
        };
    }

    /// It has fired for its next instant, or could not.
    fn fired(&mut self, firing: Firing) {
        self.next = None;
        match (&self.rule, &firing.run) {
            (document::Schedule::After(_), Some(run)) => self.awaits = Some(run.clone()),
            _ => self.begin(firing.fired_at),
        }
        self.fired += u64::from(firing.run.is_some());
        self.last = Some(firing);
    }

    /// The run that it has waited for ended then.
    fn run_ended(&mut self, ended_at: Timestamp) {
        self.awaits = None;
        if self.paused.is_none() {
            self.begin(ended_at);
        }
    }

    /// Id of the run for an instant.
    #[must_use]
    pub fn run_id(&self, instant: Timestamp) -> RunId {
        run_id(&self.name, instant)
    }
}

/// Id of the run that the schedule of this name starts for an instant.
fn run_id(name: &Name, instant: Timestamp) -> RunId {
    let text = format!(
        "schedule\n{}\n{}\n{}",
        name.namespace,
        name.name,
        instant.as_microsecond()
    );
    RunId::from(Uuid::new_v5(&NAMESPACE, text.as_bytes()))
}

fn later(time: Timestamp, delay: std::time::Duration) -> Option<Timestamp> {
    time.checked_add(jiff::SignedDuration::try_from(delay).ok()?).ok()
}

fn not_found(name: &Name) -> Error {
    Error::ScheduleNotFound {
        name: name.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn schedule(rule: document::Schedule) -> Schedule {
        let name = Name {
            namespace: "default".into(),
            name: "backup".into(),
        };
        Schedule::new(name, "1.0.0".into(), "d".into(), rule, at("2026-03-01T12:00:00Z"))
    }

    fn firing(schedule: &Schedule, fired_at: &str) -> Firing {
        let scheduled_at = schedule.next.unwrap();
        Firing {
            scheduled_at,
            fired_at: at(fired_at),
            run: Some(schedule.run_id(scheduled_at)),
            failure: None,
        }
    }

    #[test]
    fn what_was_missed_fires_once_and_the_phase_is_kept() {
        let mut every = schedule(document::Schedule::Every(Duration::from_secs(60)));
        assert_eq!(every.next, Some(at("2026-03-01T12:01:00Z")));
        every.fired(firing(&every, "2026-03-01T15:30:20Z"));
        assert_eq!(every.next, Some(at("2026-03-01T15:31:00Z")));
        assert_eq!(every.fired, 1);
    }

    #[test]
    fn after_waits_for_the_end_of_the_run_before() {
        let mut after = schedule(document::Schedule::After(Duration::from_secs(60)));
        assert_eq!(after.next, Some(at("2026-03-01T12:01:00Z")));
        after.fired(firing(&after, "2026-03-01T12:01:00Z"));
        assert_eq!(after.next, None);
        assert!(after.awaits.is_some());
        after.run_ended(at("2026-03-01T13:00:00Z"));
        assert_eq!(
            (after.next, after.awaits.clone()),
            (Some(at("2026-03-01T13:01:00Z")), None)
        );
        // One that could not be started is followed by the next.
        let failed = Firing {
            run: None,
            failure: Some("no such workflow".into()),
            ..firing(&after, "2026-03-01T13:01:00Z")
        };
        after.fired(failed);
        assert_eq!((after.next, after.fired), (Some(at("2026-03-01T13:02:00Z")), 1));
    }

    #[test]
    fn each_instant_of_each_schedule_has_its_run() {
        let one = schedule(document::Schedule::Every(Duration::from_secs(60)));
        let other = Name {
            namespace: "default".into(),
            name: "backup2".into(),
        };
        let (early, late) = (at("2026-03-01T12:00:00Z"), at("2026-03-01T12:00:00.000001Z"));
        assert_eq!(one.run_id(early), one.run_id(early));
        assert_ne!(one.run_id(early), one.run_id(late));
        assert_ne!(one.run_id(early), run_id(&other, early));
    }
}
