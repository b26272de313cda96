//! What operators do with schedules.

use std::sync::Arc;

use jiff::Timestamp;
use muster_workflow_dsl::document;
use serde_json::Value;

use super::{MOST_BACKFILLED, Name, Pause, Schedule};
use crate::engine::Engine;
use crate::error::Error;
use crate::off_thread::off_thread;
use crate::page::{self, List};
use crate::run::{RunId, Summary};
use crate::store::Page;

/// A run that a schedule is to start now.
#[derive(Debug, Clone, PartialEq)]
pub struct TriggerRun {
    /// Which schedule.
    pub name: Name,
    /// The caller's own id.
    pub id: Option<RunId>,
    /// The run's input.
    pub input: Option<Value>,
}

/// The runs for instants that have passed.
#[derive(Debug, Clone, PartialEq)]
pub struct Backfill {
    /// Which schedule.
    pub name: Name,
    /// The first instant.
    pub from: Timestamp,
    /// After the last instant.
    pub to: Timestamp,
    /// Their input.
    pub input: Option<Value>,
}

/// What came of a backfill.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Backfilled {
    /// The runs for all instants, in order.
    pub runs: Vec<RunId>,
    /// How many of them were there before.
    pub known: usize,
}

impl Engine {
    /// Refuses a document that would make one schedule too many.
    pub(crate) async fn bound_new_schedule(&self, text: &str) -> Result<(), Error> {
        self.catalogue().bound(text)?;
        let document = text.to_owned();
        if let Ok(definition) = off_thread(move || muster_workflow_dsl::parse(&document)).await
            && definition.workflow.schedule.is_some()
        {
            let header = &definition.workflow.header;
            let name = Name {
                namespace: header.namespace.clone(),
                name: header.name.clone(),
            };
            if self.store.schedule(&name).await?.is_none() {
                self.bound_schedules()?;
            }
        }
        Ok(())
    }

    /// Lists schedules by namespace and name.
    ///
    /// # Errors
    /// The token is not one of this list's.
    pub async fn schedules(
        &self,
        page_size: u32,
        page_token: &str,
    ) -> Result<(Vec<Schedule>, String), Error> {
        let after: Option<Name> = List::Schedules.cursor(&(), page_token)?;
        let Page { entries, next } = self
            .store
            .schedules(after.as_ref(), page::size(page_size))
            .await?;
        Ok((
            entries,
            next.map(|next| List::Schedules.token(&(), &next))
                .unwrap_or_default(),
        ))
    }

    /// Reads a schedule.
    ///
    /// # Errors
    /// There is none.
    pub async fn schedule(&self, name: &Name) -> Result<Schedule, Error> {
        self.schedule_of(name).await
    }

    /// Lets a schedule fire no more until it is resumed. Runs that it has started go on.
    ///
    /// # Errors
    /// There is none.
    pub async fn pause_schedule(&self, name: &Name, reason: String) -> Result<Schedule, Error> {
        let _turn = self.timetable.turn.lock().await;
        let mut schedule = self.schedule_of(name).await?;
        if schedule.paused.is_some() {
            return Ok(schedule);
        }
        schedule.paused = Some(Pause {
            since: self.clock.now(),
            reason,
        });
        self.keep(schedule).await
    }

    /// Lets a schedule fire again, from now on: the instants that have passed meanwhile are left out.
    ///
    /// # Errors
    /// There is none.
    pub async fn resume_schedule(&self, name: &Name) -> Result<Schedule, Error> {
        let _turn = self.timetable.turn.lock().await;
        let mut schedule = self.schedule_of(name).await?;
        if schedule.paused.take().is_none() {
            return Ok(schedule);
        }
        if schedule.awaits.is_none() {
            schedule.begin(self.clock.now());
        }
        self.keep(schedule).await
    }

    /// Starts a run of the schedule's workflow now; when the schedule fires next does not change.
    ///
    /// # Errors
    /// There is no such schedule, or the run is refused.
    pub async fn trigger_schedule(self: &Arc<Self>, wish: TriggerRun) -> Result<Summary, Error> {
        let schedule = self.schedule_of(&wish.name).await?;
        let id = wish.id.unwrap_or_else(|| self.placement.fresh());
        self.start_of_schedule(&schedule, id, self.clock.now(), wish.input)
            .await
    }

    /// Starts the runs for the instants of a past time. Those that have fired, or were backfilled before, are not started
    /// again.
    ///
    /// # Errors
    /// There is no such schedule, it has no instants of its own, there are too many of them, or a run is refused. What was
    /// started until then stays; the same request again goes on.
    pub async fn backfill_schedule(self: &Arc<Self>, wish: Backfill) -> Result<Backfilled, Error> {
        let schedule = self.schedule_of(&wish.name).await?;
        let instants = instants(&schedule, &wish, self.clock.now())?;
        let mut done = Backfilled::default();
        for instant in instants {
            let id = self.run_of_schedule(&schedule, instant);
            if self.store.summary(&id).await?.is_some() {
                done.known += 1;
            } else {
                self.start_of_schedule(&schedule, id.clone(), instant, wish.input.clone())
                    .await?;
            }
            done.runs.push(id);
        }
        Ok(done)
    }
}

/// The instants that are to be backfilled.
fn instants(schedule: &Schedule, wish: &Backfill, now: Timestamp) -> Result<Vec<Timestamp>, Error> {
    if matches!(schedule.rule, document::Schedule::After(_)) {
        let message = format!(
            "the schedule of {} counts from the end of its runs and has no times of its own",
            wish.name
        );
        return Err(Error::field("name", message));
    }
    if wish.from >= wish.to {
        return Err(Error::field("to", "must be after 'from'"));
    }
    if wish.to > now {
        return Err(Error::field(
            "to",
            "must not be in the future: what is to come fires by itself",
        ));
    }
    let before = wish.from.checked_sub(jiff::SignedDuration::from_nanos(1));
    let mut time = before.unwrap_or(wish.from);
    // What counts from a moment has instants before it, too.
    let mut anchor = schedule.anchor;
    if let document::Schedule::Every(interval) = schedule.rule {
        anchor = back(anchor, interval, wish.from);
    }
    let mut instants = Vec::new();
    while let Some(next) = schedule.rule.next(anchor, time).filter(|next| *next < wish.to) {
        if instants.len() == MOST_BACKFILLED {
            let message = format!(
                "there are more than {MOST_BACKFILLED} times from 'from' on; {} is the last that can be taken at once",
                muster_api::time::rfc3339(time)
            );
            return Err(Error::field("to", message));
        }
        instants.push(next);
        time = next;
    }
    Ok(instants)
}

/// An earlier anchor of the same phase, at least one interval before `time`.
fn back(anchor: Timestamp, interval: std::time::Duration, time: Timestamp) -> Timestamp {
    let (Ok(interval), passed) = (
        i128::try_from(interval.as_nanos()),
        anchor.as_nanosecond() - time.as_nanosecond(),
    ) else {
        return anchor;
    };
    if passed < 0 || interval == 0 {
        return anchor;
    }
    let steps = passed / interval + 2;
    Timestamp::from_nanosecond(anchor.as_nanosecond() - steps * interval).unwrap_or(anchor)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn backfill(rule: document::Schedule, from: &str, to: &str) -> Result<Vec<String>, String> {
        let name = Name {
            namespace: "default".into(),
            name: "backup".into(),
        };
        let now = at("2026-03-01T12:00:30Z");
        let schedule = Schedule::new(name.clone(), "1.0.0".into(), "d".into(), rule, now);
        let wish = Backfill {
            name,
            from: at(from),
            to: at(to),
            input: None,
        };
        let found = instants(&schedule, &wish, now).map_err(|error| error.to_string())?;
        Ok(found.iter().map(Timestamp::to_string).collect())
    }

    #[test]
    fn the_instants_of_a_past_time() {
        let every = || document::Schedule::Every(Duration::from_secs(60));
        let expected = ["2026-03-01T11:57:30Z", "2026-03-01T11:58:30Z"];
        assert_eq!(
            backfill(every(), "2026-03-01T11:57:30Z", "2026-03-01T11:59:30Z").unwrap(),
            expected
        );
        let cron = || document::Schedule::Cron("0 0 * * *".parse().unwrap());
        let expected = ["2026-02-27T00:00:00Z", "2026-02-28T00:00:00Z"];
        assert_eq!(
            backfill(cron(), "2026-02-27T00:00:00Z", "2026-03-01T00:00:00Z").unwrap(),
            expected
        );

        let refused = |rule, from, to| backfill(rule, from, to).unwrap_err();
        assert!(refused(every(), "2026-03-01T00:00:00Z", "2026-03-01T00:00:00Z").contains("after 'from'"));
        assert!(refused(every(), "2026-03-01T00:00:00Z", "2026-03-02T00:00:00Z").contains("in the future"));
        assert!(refused(every(), "2026-01-01T00:00:00Z", "2026-03-01T00:00:00Z").contains("more than 1000"));
        let after = document::Schedule::After(Duration::from_secs(1));
        assert!(
            refused(after, "2026-02-01T00:00:00Z", "2026-03-01T00:00:00Z").contains("no times of its own")
        );
    }
}
