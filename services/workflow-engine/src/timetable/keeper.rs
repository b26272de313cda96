//! Keeping the schedules: firing what is due, and writing every change. One change at a time, so that what is read is what
//! is written.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;
use serde_json::{Map, Value};
use tokio::sync::{Mutex as Turn, Notify};

use super::{Firing, MOST_SCHEDULES, Name, Schedule, not_found};
use crate::catalogue::Reference;
use crate::engine::{Engine, Source, StartRun};
use crate::error::Error;
use crate::executor::sleep_until;
use crate::off_thread::off_thread;
use crate::run::{Origin, RunId, Summary};
use crate::store;

/// When a schedule is tried again whose run could not be accepted now.
const TRY_AGAIN: SignedDuration = SignedDuration::from_secs(1);

/// When the store is tried again that did not answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// Schedules read at once.
const PORTION: usize = 500;

/// What is known of the schedules without asking the store.
#[derive(Debug, Default)]
pub(crate) struct Timetable {
    /// Held while a schedule is read and written.
    pub(super) turn: Turn<()>,
    known: Mutex<Known>,
    bell: Notify,
}

#[derive(Debug, Default)]
struct Known {
    /// How many there are.
    count: usize,
    due: BTreeSet<(Timestamp, Name)>,
    /// When each is due.
    times: HashMap<Name, Timestamp>,
    /// Which schedule waits for the end of a run.
    awaited: HashMap<RunId, Name>,
    /// Runs of them that have ended.
    ended: Vec<(RunId, Name)>,
}

impl Known {
    fn set(&mut self, name: &Name, due: Option<Timestamp>) {
        if let Some(before) = self.times.remove(name) {
            self.due.remove(&(before, name.clone()));
        }
        if let Some(due) = due {
            self.times.insert(name.clone(), due);
            self.due.insert((due, name.clone()));
        }
    }
}

impl Timetable {
    /// A schedule is now so.
    fn learn(&self, schedule: &Schedule) {
        let mut known = self.known.lock();
        let due = schedule.next.filter(|_| schedule.paused.is_none());
        known.set(&schedule.name, due);
        known.awaited.retain(|_, name| *name != schedule.name);
        if let Some(run) = &schedule.awaits {
            known.awaited.insert(run.clone(), schedule.name.clone());
        }
        drop(known);
        self.bell.notify_one();
    }

    fn forget(&self, name: &Name) {
        let mut known = self.known.lock();
        known.set(name, None);
        known.awaited.retain(|_, other| other != name);
        known.count = known.count.saturating_sub(1);
    }

    /// Forgets all others.
    pub(crate) fn keep_those(&self, is_here: impl Fn(&Name) -> bool) {
        let mut known = self.known.lock();
        let known = &mut *known;
        known.due.retain(|(_, name)| is_here(name));
        known.times.retain(|name, _| is_here(name));
        known.awaited.retain(|_, name| is_here(name));
        known.ended.retain(|(_, name)| is_here(name));
    }

    /// A run is about to begin whose end a schedule will wait for.
    fn expect_end(&self, run: &RunId, name: &Name) {
        self.known.lock().awaited.insert(run.clone(), name.clone());
    }

    /// A run has ended, durably.
    pub(crate) fn run_ended(&self, run: &Summary) {
        let mut known = self.known.lock();
        if let Some(name) = known.awaited.remove(&run.id) {
            known.ended.push((run.id.clone(), name));
            drop(known);
            self.bell.notify_one();
        }
    }

    fn next_due(&self) -> Option<Timestamp> {
        self.known.lock().due.first().map(|(due, _)| *due)
    }

    fn take_due(&self, now: Timestamp) -> Option<Name> {
        let mut known = self.known.lock();
        let (_, name) = known.due.first().filter(|(due, _)| *due <= now).cloned()?;
        known.set(&name, None);
        Some(name)
    }

    fn take_ended(&self) -> Vec<(RunId, Name)> {
        std::mem::take(&mut self.known.lock().ended)
    }

    fn put_off(&self, name: &Name, until: Timestamp) {
        self.known.lock().set(name, Some(until));
    }
}

/// Fires schedules until the service stops.
pub(crate) async fn drive(engine: Arc<Engine>) {
    // Engines that share a store learn the schedules that are theirs with the partitions.
    while engine.placement.replicas().is_none()
        && let Err(error) = load(&engine).await
    {
        tracing::error!(%error, "the schedules cannot be read; they are tried again");
        tokio::select! {
            biased;
            () = engine.shutdown.requested() => return,
            () = tokio::time::sleep(PATIENCE) => {}
        }
    }
    loop {
        for (run, name) in engine.timetable.take_ended() {
            if let Err(error) = engine.run_of_schedule_ended(&name, &run).await {
                tracing::error!(schedule = %name, %run, %error, "the schedule does not go on until the next start");
            }
        }
        while let Some(name) = engine.timetable.take_due(engine.clock.now()) {
            if let Err(error) = engine.fire(&name).await {
                if !engine.placement.is_name_here(&name.namespace, &name.name) {
                    continue;
                }
                tracing::error!(schedule = %name, %error, "the schedule could not fire; it is tried again");
                let patience = SignedDuration::try_from(PATIENCE).unwrap_or(TRY_AGAIN);
                engine.timetable.put_off(&name, engine.clock.now() + patience);
            }
            if engine.shutdown.is_requested() {
                return;
            }
        }
        let due = engine.timetable.next_due().unwrap_or(Timestamp::MAX);
        tokio::select! {
            biased;
            () = engine.shutdown.requested() => return,
            () = engine.timetable.bell.notified() => {}
            () = sleep_until(&*engine.clock, due) => {}
        }
    }
}

/// Learns what the store holds of what is worked on here.
pub(crate) async fn load(engine: &Arc<Engine>) -> Result<(), store::Error> {
    let _turn = engine.timetable.turn.lock().await;
    let mut after: Option<Name> = None;
    let mut count = 0;
    loop {
        let page = engine.store.schedules(after.as_ref(), PORTION).await?;
        let is_here = |schedule: &Schedule| {
            let Name { namespace, name } = &schedule.name;
            engine.placement.is_name_here(namespace, name)
        };
        for schedule in page.entries.into_iter().filter(is_here) {
            count += 1;
            engine.timetable.learn(&schedule);
            // One whose run has ended meanwhile, or was forgotten, goes on.
            if let Some(run) = schedule.awaits {
                let ended = engine
                    .store
                    .summary(&run)
                    .await?
                    .is_none_or(|run| run.status.is_final());
                if ended {
                    let mut known = engine.timetable.known.lock();
                    known.awaited.remove(&run);
                    known.ended.push((run, schedule.name));
                }
            }
        }
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    engine.timetable.known.lock().count = count;
    Ok(())
}

impl Engine {
    /// Writes a schedule and learns it.
    pub(super) async fn keep(&self, mut schedule: Schedule) -> Result<Schedule, Error> {
        schedule.revision += 1;
        self.store.put_schedule(&schedule).await?;
        self.timetable.learn(&schedule);
        Ok(schedule)
    }

    /// Reads a schedule that must be there.
    pub(super) async fn schedule_of(&self, name: &Name) -> Result<Schedule, Error> {
        self.store.schedule(name).await?.ok_or_else(|| not_found(name))
    }

    async fn fire(self: &Arc<Self>, name: &Name) -> Result<(), Error> {
        let _turn = self.timetable.turn.lock().await;
        let Some(mut schedule) = self.store.schedule(name).await? else {
            return Ok(());
        };
        let now = self.clock.now();
        let Some(scheduled_at) = schedule
            .next
            .filter(|next| *next <= now && schedule.paused.is_none())
        else {
            self.timetable.learn(&schedule);
            return Ok(());
        };
        let id = self.run_of_schedule(&schedule, scheduled_at);
        self.timetable.expect_end(&id, name);
        let started = self
            .start_of_schedule(&schedule, id.clone(), scheduled_at, None)
            .await;
        let (run, failure) = match started {
            Ok(run) => (Some(run), None),
            // It was started by another version.
            Err(Error::RunExists { id, .. }) => (self.store.summary(&id).await?, None),
            Err(Error::TooManyRuns(full)) => {
                tracing::warn!(schedule = %name, %full, "the schedule fires later");
                self.timetable.put_off(name, now + TRY_AGAIN);
                return Ok(());
            }
            Err(
                error @ (Error::Store(_) | Error::NotOwner { .. } | Error::ShuttingDown | Error::Defect(_)),
            ) => return Err(error),
            Err(error) => {
                tracing::warn!(schedule = %name, %error, "the schedule cannot start a run");
                (None, Some(error.to_string()))
            }
        };
        // A run that an earlier life had begun stands for the instants up to then, and not for those that have passed since.
        let fired_at = run.as_ref().map_or(now, |run| run.created_at.min(now));
        schedule.fired(Firing {
            scheduled_at,
            fired_at,
            // One that is there and gone again has fired all the same.
            run: failure.is_none().then_some(id),
            failure,
        });
        let ended_at = run.and_then(|run| run.ended_at);
        if let (Some(ended_at), true) = (ended_at, schedule.awaits.is_some()) {
            schedule.run_ended(ended_at);
        }
        self.keep(schedule).await?;
        Ok(())
    }

    /// Id of the run for an instant: where the schedule is, which hears of its end.
    pub(super) fn run_of_schedule(&self, schedule: &Schedule, instant: Timestamp) -> RunId {
        let Name { namespace, name } = &schedule.name;
        self.placement
            .beside_name(namespace, name, schedule.run_id(instant))
    }

    /// Starts a run for a schedule, or finds it.
    pub(super) async fn start_of_schedule(
        self: &Arc<Self>,
        schedule: &Schedule,
        id: RunId,
        scheduled_at: Timestamp,
        input: Option<Value>,
    ) -> Result<Summary, Error> {
        let Name { namespace, name } = schedule.name.clone();
        let wish = StartRun {
            id: Some(id),
            source: Source::Catalogue(Reference {
                namespace,
                name,
                version: schedule.version.clone(),
            }),
            input: input.unwrap_or_else(|| Value::Object(Map::new())),
            priority: None,
            labels: BTreeMap::new(),
            hears_from: None,
            origin: Some(Origin::Schedule { scheduled_at }),
            caller: None,
        };
        let wish = self.for_applier(wish).await;
        Ok(self.start(wish).await?.summary)
    }

    async fn run_of_schedule_ended(&self, name: &Name, run: &RunId) -> Result<(), Error> {
        let _turn = self.timetable.turn.lock().await;
        let Some(mut schedule) = self.store.schedule(name).await? else {
            return Ok(());
        };
        if schedule.awaits.as_ref() != Some(run) {
            return Ok(());
        }
        let ended_at = self.store.summary(run).await?.and_then(|run| run.ended_at);
        schedule.run_ended(ended_at.unwrap_or_else(|| self.clock.now()));
        self.keep(schedule).await?;
        Ok(())
    }

    /// Makes the schedule of a name what the newest document of that name says.
    pub(crate) async fn follow_newest(&self, name: &Name) -> Result<(), Error> {
        let _turn = self.timetable.turn.lock().await;
        let known = self.store.schedule(name).await?;
        let Some(newest) = self.store.newest_workflow(&name.namespace, &name.name).await? else {
            return Ok(());
        };
        let rule = self.rule(&newest.key).await?;
        match (known, rule) {
            (None, None) => {}
            (Some(known), None) => {
                self.store.remove_schedule(name, known.revision).await?;
                self.timetable.forget(name);
            }
            (Some(known), Some(_)) if known.digest == newest.digest => {}
            (Some(known), Some(rule)) => {
                let changed = known.rule != rule;
                let mut schedule = Schedule {
                    version: newest.key.version,
                    digest: newest.digest,
                    rule,
                    ..known
                };
                if changed {
                    let now = self.clock.now();
                    schedule.anchor = now;
                    schedule.awaits = None;
                    schedule.begin(now);
                }
                self.keep(schedule).await?;
            }
            (None, Some(rule)) => {
                let (version, now) = (newest.key.version, self.clock.now());
                self.keep(Schedule::new(name.clone(), version, newest.digest, rule, now))
                    .await?;
                self.timetable.known.lock().count += 1;
            }
        }
        Ok(())
    }

    async fn rule(
        &self,
        key: &store::WorkflowKey,
    ) -> Result<Option<muster_workflow_dsl::document::Schedule>, Error> {
        let document = self.store.document(key).await?;
        let document = document.ok_or_else(|| Error::Defect(format!("the text of {} is gone", key.name)))?;
        // As the catalogue reads it: what it refers to elsewhere does not matter here.
        let parsed = off_thread(move || muster_workflow_dsl::parse(&document)).await;
        let definition = parsed.map_err(Error::InvalidWorkflow)?;
        Ok(definition.workflow.schedule.clone())
    }

    /// Refuses one schedule too many.
    pub(crate) fn bound_schedules(&self) -> Result<(), Error> {
        let count = self.timetable.known.lock().count;
        if count < MOST_SCHEDULES {
            Ok(())
        } else {
            Err(Error::TooManySchedules { most: MOST_SCHEDULES })
        }
    }
}
