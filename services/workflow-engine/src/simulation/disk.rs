//! The simulated store: the one in memory, as slow and as unreliable as a disk, and a witness of everything that becomes durable.
//!
//! A life ends here where its plan says so: right before a commit becomes durable, or right after, when nobody has been told
//! yet. Whoever waits for that commit then waits for ever, which is not long.
//!
//! Where engines share it, it is as far away as a server: whoever is frozen gets no answer, what was sent arrives all the same,
//! and each write to a run is made under a fence, or refused ([`Seat`]). While nobody can reach it, writes fail; some of them
//! have been made, and only the answer is lost.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use muster_runtime::clock::Clock;
use muster_workflow_dsl::cloud_event::CloudEvent;
use muster_workflow_dsl::journal::{Event, EventKind};
use muster_workflow_dsl::usage::Usage;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::Notify;

use super::chance::decided;
use super::clock::Virtual;
use super::plan::{End, STARTS, TRIGGERED};
use super::sabotage::Sabotage;
use super::shared::{PARTITIONS, Seat};
use super::witness::{Invariant, Standing};
use super::world::World;
use crate::approval::{self, Approval, ApprovalId};
use crate::definitions::Definitions;
use crate::partition;
use crate::run::{Entry, Origin, Position, Record, RunId, Status, Summary};
use crate::snapshot::Snapshot;
use crate::store::answers::Answers;
use crate::store::approvals::Approvals;
use crate::store::erase::{Erase, Rewrite};
use crate::store::events::{Added, EventLog, Logged, Room, StarterState};
use crate::store::memory::Memory;
use crate::store::payloads::{self, Digest, Payload, Payloads};
use crate::store::schedules::Schedules;
use crate::store::spending::Spending;
use crate::store::{
    Again, Error, Filter, Page, SnapshotKind, Step, Store, Unfinished, Workflow, WorkflowKey,
};
use crate::timetable::{Name, Schedule};

/// How long a store that takes no more writes is left alone with it.
const AGONY: Duration = Duration::from_secs(5);

/// The store of one life.
pub(crate) struct Disk {
    world: Arc<World>,
    memory: Memory,
    clock: Virtual,
    definitions: Arc<Definitions>,
    life: usize,
    end: End,
    count: Mutex<Count>,
    /// Rings when the life is to end.
    pub(crate) crash: Notify,
    /// How it is reached, where others share it.
    seat: Option<Arc<Seat>>,
}

#[derive(Default)]
struct Count {
    commits: u64,
    reads: u64,
    full: bool,
    /// The last step that was acknowledged: its run before, and its entries.
    last: Option<(Summary, usize)>,
    /// The last event that was acknowledged.
    last_event: Option<String>,
    /// Steps that were acknowledged and are not durable.
    late: Vec<Step>,
}

impl Disk {
    pub(crate) fn new(
        world: Arc<World>,
        clock: Virtual,
        definitions: Arc<Definitions>,
        life: usize,
        end: End,
        seat: Option<Arc<Seat>>,
    ) -> Self {
        Self {
            memory: world.memory.clone(),
            world,
            clock,
            definitions,
            life,
            end,
            count: Mutex::default(),
            crash: Notify::new(),
            seat,
        }
    }

    async fn reach(&self) -> Result<(), Error> {
        match &self.seat {
            Some(seat) => seat.reach().await,
            None => Ok(()),
        }
    }

    /// How long a life goes on after the store has stopped to take writes.
    pub(crate) async fn over(&self) {
        self.crash.notified().await;
        if matches!(self.end, End::Full(_)) {
            tokio::time::sleep(AGONY).await;
        }
    }

    /// What a crash takes with it, of a store that does not keep its word.
    pub(crate) fn lose(&self) {
        let mut count = self.count.lock();
        if self.world.is_sabotaged(Sabotage::ForgetsAcknowledged)
            && let Some((before, entries)) = count.last.take()
        {
            self.memory.with(|state| state.take_back(before, entries));
        }
        if self.world.is_sabotaged(Sabotage::ForgetsEvent)
            && let Some(event) = count.last_event.take()
        {
            self.memory.with(|state| state.lose_event(&event));
        }
    }

    /// Reads are quick, and some wait for their turn.
    async fn read(&self) -> Result<(), Error> {
        self.reach().await?;
        let number = {
            let mut count = self.count.lock();
            count.reads += 1;
            count.reads
        };
        let slow = decided(self.world.plan.seed, &[&"read", &self.life, &number]) % 8;
        if slow == 0 {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Ok(())
    }

    /// Makes something of a run durable, if this life may.
    async fn commit_of<T>(
        &self,
        run: &RunId,
        write: impl AsyncFnOnce(&Memory) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let written = self
            .commit(async |memory| {
                if let Some(seat) = &self.seat {
                    seat.may_write(run)?;
                    if seat.standing(run) != Standing::Owner {
                        let detail = format!("life {} writes to run {run}, which is another's", self.life);
                        let now = self.clock.now();
                        self.world.witness.accuse(now, Invariant::FencesHold, detail);
                    }
                }
                write(memory).await
            })
            .await;
        if written.is_err() {
            // It may be there, and its run is loaded again.
            self.world.witness.interrupted(|other| other == run);
        }
        written
    }

    /// Makes something durable, in the time that it takes; the life may end before or after.
    async fn commit<T>(&self, write: impl AsyncFnOnce(&Memory) -> Result<T, Error>) -> Result<T, Error> {
        self.reach().await?;
        let (number, full) = {
            let mut count = self.count.lock();
            let number = count.commits;
            count.commits += 1;
            if self.end == End::Full(number) {
                count.full = true;
                self.crash.notify_one();
            }
            (number, count.full)
        };
        if full {
            return Err(Error::Unavailable("the disk is full".to_owned()));
        }
        let time = |what: &str| {
            let chosen = decided(self.world.plan.seed, &[&what, &self.life, &number]);
            Duration::from_millis(if chosen.is_multiple_of(16) {
                chosen / 16 % 2_000
            } else {
                chosen / 16 % 4
            })
        };
        tokio::time::sleep(time("before")).await;
        if self.end == End::BeforeCommit(number) {
            self.crash.notify_one();
            std::future::pending::<()>().await;
        }
        let written = write(&self.memory).await;
        if self.end == End::AfterCommit(number) {
            self.crash.notify_one();
            std::future::pending::<()>().await;
        }
        tokio::time::sleep(time("after")).await;
        self.reach().await?;
        written
    }

    async fn write_step(&self, memory: &Memory, mut step: Step) -> Result<(), Error> {
        let mut whole = step.clone();
        if self.world.is_sabotaged(Sabotage::SkipsEntry) && step.entries.len() > 2 && step.first_index > 0 {
            step.entries.remove(1);
        }
        if self.world.is_sabotaged(Sabotage::RepeatsTimer) {
            repeat_timer(&mut step);
        }
        if self.world.is_sabotaged(Sabotage::KeepsOldState) {
            keep_old_state(memory, &mut whole).await?;
        }
        memory.append(whole).await?;
        self.world.witness.committed(self.clock.now(), &step);
        Ok(())
    }

    /// Makes durable what should have been long ago.
    async fn catch_up(&self) {
        let late = std::mem::take(&mut self.count.lock().late);
        for step in late {
            // The run's next step comes after it.
            let _ = self.write_step(&self.memory, step).await;
        }
    }

    async fn create(&self, record: &Record, summary: &Summary) {
        let pinned = self.definitions.pinned(&record.document, &record.resources).await;
        let (now, witness) = (self.clock.now(), &self.world.witness);
        if let Ok(pinned) = pinned {
            witness.created(now, summary, record.hears_from, pinned.definition);
        }
        let name = Name {
            namespace: summary.namespace.clone(),
            name: summary.name.clone(),
        };
        if let Some(Origin::Schedule { scheduled_at }) = &summary.origin
            && !summary.id.as_str().starts_with(TRIGGERED)
        {
            witness.fired(now, &name, *scheduled_at);
        }
        let events = record.input.as_array().into_iter().flatten();
        let ids = events.filter_map(|event| event.get("id")?.as_str());
        for id in ids.filter(|id| id.starts_with(STARTS)) {
            witness.started_on(now, id.to_owned(), &summary.id);
        }
    }
}

/// Puts the state that was kept before in the place of the one that is kept now.
async fn keep_old_state(memory: &Memory, step: &mut Step) -> Result<(), Error> {
    let id = &step.summary.id;
    let old = memory.snapshot(id, SnapshotKind::Latest).await?;
    let read = |bytes: &Vec<u8>| Snapshot::read(bytes).ok();
    if let Some(saved) = &mut step.snapshot
        && let (Some(old), Some(new)) = (old.as_ref().and_then(read), read(&saved.bytes))
    {
        let false_one = Snapshot {
            state: old.state,
            ..new
        };
        saved.bytes = false_one.to_bytes().unwrap_or_default();
    }
    Ok(())
}

/// Writes the end of a wait twice.
fn repeat_timer(step: &mut Step) {
    let parsed = |bytes: &Vec<u8>| serde_json::from_slice::<Event>(bytes).ok();
    let Some(last) = step.entries.last().and_then(parsed) else {
        return;
    };
    let Some(place) = step.entries.iter().position(|bytes| {
        parsed(bytes).is_some_and(|event| matches!(event.kind, EventKind::TaskCompleted { .. }))
    }) else {
        return;
    };
    let Some(mut event) = step.entries.get(place).and_then(parsed) else {
        return;
    };
    event.index = last.index + 1;
    event.time = last.time;
    if let Ok(bytes) = serde_json::to_vec(&event) {
        step.entries.push(bytes);
        step.summary.history_length += 1;
    }
}

#[async_trait]
impl Store for Disk {
    async fn add_workflow(&self, workflow: &Workflow, document: &str) -> Result<(), Error> {
        self.commit(async |memory| memory.add_workflow(workflow, document).await)
            .await
    }

    async fn document(&self, key: &WorkflowKey) -> Result<Option<String>, Error> {
        self.read().await?;
        self.memory.document(key).await
    }

    async fn workflow(&self, key: &WorkflowKey) -> Result<Option<Workflow>, Error> {
        self.read().await?;
        self.memory.workflow(key).await
    }

    async fn newest_workflow(&self, namespace: &str, name: &str) -> Result<Option<Workflow>, Error> {
        self.read().await?;
        self.memory.newest_workflow(namespace, name).await
    }

    async fn workflows(
        &self,
        after: Option<&WorkflowKey>,
        limit: usize,
    ) -> Result<Page<Workflow, WorkflowKey>, Error> {
        self.read().await?;
        self.memory.workflows(after, limit).await
    }

    async fn create_run(&self, record: &Record, summary: &Summary) -> Result<(), Error> {
        self.commit_of(&record.id, async |memory| {
            memory.create_run(record, summary).await?;
            self.create(record, summary).await;
            Ok(())
        })
        .await
    }

    async fn append(&self, step: Step) -> Result<(), Error> {
        let (id, entries) = (step.summary.id.clone(), step.entries.len());
        if self.world.is_sabotaged(Sabotage::AcknowledgesEarly) {
            self.catch_up().await;
            self.count.lock().late.push(step);
            return Ok(());
        }
        let before = self.memory.summary(&id).await?;
        self.commit_of(&id, async |memory| self.write_step(memory, step).await)
            .await?;
        self.world.witness.told(&id);
        self.count.lock().last = before.map(|before| (before, entries));
        Ok(())
    }

    async fn record(&self, id: &RunId) -> Result<Option<Record>, Error> {
        self.read().await?;
        self.memory.record(id).await
    }

    async fn summary(&self, id: &RunId) -> Result<Option<Summary>, Error> {
        self.read().await?;
        self.memory.summary(id).await
    }

    async fn output(&self, id: &RunId) -> Result<Option<Value>, Error> {
        self.read().await?;
        self.memory.output(id).await
    }

    async fn history(&self, id: &RunId, from: u64, limit: usize) -> Result<Vec<Entry>, Error> {
        self.read().await?;
        self.memory.history(id, from, limit).await
    }

    async fn snapshot(&self, id: &RunId, which: SnapshotKind) -> Result<Option<Vec<u8>>, Error> {
        self.read().await?;
        self.memory.snapshot(id, which).await
    }

    async fn forget_entries(&self, id: &RunId, before: u64, limit: usize) -> Result<usize, Error> {
        self.commit_of(id, async |memory| memory.forget_entries(id, before, limit).await)
            .await
    }

    async fn runs(
        &self,
        filter: &Filter,
        before: Option<&Position>,
        limit: usize,
    ) -> Result<Page<Summary, Position>, Error> {
        self.read().await?;
        self.memory.runs(filter, before, limit).await
    }

    async fn unfinished(
        &self,
        partition: Option<u16>,
        after: Option<&Position>,
        limit: usize,
    ) -> Result<Page<Unfinished, Position>, Error> {
        self.read().await?;
        let mut page = self.memory.unfinished(partition, after, limit).await?;
        page.entries.retain(|run| match (partition, run) {
            (Some(partition), Ok(run)) => partition::of(&run.id, PARTITIONS) == partition,
            _ => true,
        });
        if self.world.is_sabotaged(Sabotage::ForgetsTimers) {
            page.entries
                .retain(|run| run.as_ref().is_ok_and(|run| run.status != Status::Waiting));
        }
        if self.world.is_sabotaged(Sabotage::ForgetsGroups) {
            for run in page.entries.iter_mut().flatten().filter(|run| run.is_under_way()) {
                run.claim.limits.clear();
            }
        }
        Ok(page)
    }

    async fn ended_before(&self, time: Timestamp, limit: usize) -> Result<Vec<RunId>, Error> {
        self.read().await?;
        self.memory.ended_before(time, limit).await
    }

    async fn forget_run(&self, id: &RunId) -> Result<(), Error> {
        self.memory.forget_run(id).await
    }

    fn health(&self) -> Result<(), String> {
        // As long as this life lasts, like a file that could not be written.
        if self.count.lock().full {
            return Err("the disk is full".to_owned());
        }
        self.memory.health()
    }
}

#[async_trait]
impl Again for Disk {
    async fn reopen(&self, step: Step, ended_at: Timestamp) -> Result<(), Error> {
        let id = step.summary.id.clone();
        self.commit_of(&id, async |memory| {
            memory.reopen(step.clone(), ended_at).await?;
            self.world.witness.committed(self.clock.now(), &step);
            Ok(())
        })
        .await
    }

    async fn create_with(&self, record: &Record, step: Step) -> Result<(), Error> {
        self.commit_of(&record.id, async |memory| {
            memory.create_with(record, step.clone()).await?;
            self.create(record, &step.summary).await;
            self.world.witness.committed(self.clock.now(), &step);
            Ok(())
        })
        .await
    }
}

#[async_trait]
impl Erase for Disk {
    async fn rewrite(&self, rewrite: Rewrite) -> Result<(), Error> {
        self.commit(async |memory| memory.rewrite(rewrite).await).await
    }
}

#[async_trait]
impl Payloads for Disk {
    async fn put_payloads(&self, room: &payloads::Room, payloads: &[Payload]) -> Result<(), Error> {
        self.commit(async |memory| memory.put_payloads(room, payloads).await)
            .await
    }

    async fn payload(&self, room: &payloads::Room, digest: &Digest) -> Result<Option<Vec<u8>>, Error> {
        self.read().await?;
        self.memory.payload(room, digest).await
    }

    async fn forget_payloads(&self, room: &payloads::Room, except: &[Digest]) -> Result<(), Error> {
        self.memory.forget_payloads(room, except).await
    }

    fn payload_place(&self, room: &payloads::Room, digest: &Digest) -> String {
        self.memory.payload_place(room, digest)
    }
}

#[async_trait]
impl Answers for Disk {
    async fn answer(&self, key: &str, now: Timestamp) -> Result<Option<Value>, Error> {
        self.memory.answer(key, now).await
    }

    async fn keep_answer(&self, key: &str, answer: &Value, until: Timestamp) -> Result<(), Error> {
        self.memory.keep_answer(key, answer, until).await
    }

    async fn forget_answers(&self, now: Timestamp, most: usize, limit: usize) -> Result<usize, Error> {
        self.memory.forget_answers(now, most, limit).await
    }
}

#[async_trait]
impl Approvals for Disk {
    async fn approval(&self, id: &ApprovalId) -> Result<Option<Approval>, Error> {
        self.read().await?;
        self.memory.approval(id).await
    }

    async fn approvals(
        &self,
        filter: &approval::Filter,
        after: Option<&approval::Position>,
        limit: usize,
    ) -> Result<Page<Approval, approval::Position>, Error> {
        self.read().await?;
        self.memory.approvals(filter, after, limit).await
    }
}

#[async_trait]
impl EventLog for Disk {
    async fn add_events(
        &self,
        events: Vec<CloudEvent>,
        now: Timestamp,
        room: Room,
    ) -> Result<Vec<Added>, Error> {
        let id = events.last().map(|event| event.id().to_owned());
        if self.world.is_sabotaged(Sabotage::RepeatsEvent) {
            let again = events.clone();
            // Another source is another event, which a log that knew none would take for the same one.
            let again = again.into_iter().filter_map(|event| {
                let mut event = Value::from(event);
                event["source"] = "/people/again".into();
                CloudEvent::try_from(event).ok()
            });
            self.memory.add_events(again.collect(), now, room).await?;
        }
        let added = self
            .commit(async |memory| memory.add_events(events, now, room).await)
            .await?;
        self.count.lock().last_event = id;
        Ok(added)
    }

    async fn events(
        &self,
        from: u64,
        kinds: Option<&[String]>,
        limit: usize,
    ) -> Result<Page<Logged, u64>, Error> {
        self.read().await?;
        self.memory.events(from, kinds, limit).await
    }

    async fn next_position(&self) -> Result<u64, Error> {
        self.read().await?;
        self.memory.next_position().await
    }

    async fn forget_events(&self, time: Timestamp, limit: usize) -> Result<usize, Error> {
        self.memory.forget_events(time, limit).await
    }

    async fn starter(&self, name: &str) -> Result<Option<StarterState>, Error> {
        self.read().await?;
        self.memory.starter(name).await
    }

    async fn keep_starter(&self, name: &str, state: Option<&StarterState>) -> Result<(), Error> {
        self.commit(async |memory| memory.keep_starter(name, state).await)
            .await
    }
}

#[async_trait]
impl Schedules for Disk {
    async fn put_schedule(&self, schedule: &Schedule) -> Result<(), Error> {
        let mut schedule = schedule.clone();
        if self.world.is_sabotaged(Sabotage::SkipsInstant)
            && let Some(next) = schedule.next
        {
            schedule.next = schedule.rule.next(schedule.anchor, next).or(Some(next));
        }
        self.commit(async |memory| memory.put_schedule(&schedule).await)
            .await
    }

    async fn remove_schedule(&self, name: &Name, revision: u64) -> Result<(), Error> {
        self.commit(async |memory| memory.remove_schedule(name, revision).await)
            .await
    }

    async fn schedule(&self, name: &Name) -> Result<Option<Schedule>, Error> {
        self.read().await?;
        self.memory.schedule(name).await
    }

    async fn schedules(&self, after: Option<&Name>, limit: usize) -> Result<Page<Schedule, Name>, Error> {
        self.read().await?;
        self.memory.schedules(after, limit).await
    }
}

#[async_trait]
impl Spending for Disk {
    async fn spent(&self, namespace: &str, from: i64, to: i64) -> Result<Usage, Error> {
        self.memory.spent(namespace, from, to).await
    }

    async fn forget_spending(&self, day: i64, limit: usize) -> Result<usize, Error> {
        self.memory.forget_spending(day, limit).await
    }
}
