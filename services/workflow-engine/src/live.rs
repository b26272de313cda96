//! A run in memory: what it is pinned to, its summary, and the interpreter's state folded from the journal.
//!
//! Decisions that may compute for a while are made off the async threads ([`Pace`]). What is decided is kept as unwritten
//! entries until [`Live::write`] has made them durable; nothing of it may be acted upon before.

use std::sync::Arc;

use jiff::Timestamp;
use muster_runtime::clock::{Clock, SharedClock};
use muster_runtime::trace::Tracer;
use muster_workflow_dsl::Definition;
use muster_workflow_dsl::cloud_event::CloudEvent;
use muster_workflow_dsl::journal::chain::Chain;
use muster_workflow_dsl::journal::{Event, EventKind, Problem, Standard};
use muster_workflow_dsl::request::Request;
use muster_workflow_dsl::run::spending::Exhausted;
use muster_workflow_dsl::run::{self, Blocker, Effect, Observation, Run, Stimulus};
use muster_workflow_dsl::secret;
use muster_workflow_dsl::usage::Usage;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use serde_json::Value;

use crate::approval::Ledger;
use crate::caller::Kept;
use crate::config::Lifecycle;
use crate::definitions::{Definitions, Pinned};
use crate::floor::Accepted;
use crate::folding::{Folded, Journal};
use crate::lifecycle;
use crate::off_thread::off_thread;
use crate::pace::Pace;
use crate::run::{Compensation, Cut, Failure, Mark, Record, RunId, Status, Summary};
use crate::secrets::{Grant, Secrets};
use crate::snapshot::{self, Growth, Snapshot};
use crate::store::spending::Spent;
use crate::store::{self, Saved, Step, Store, Stored};
use crate::trail::Trail;

/// How many pointers of each list of compensations are kept with a summary.
const MOST_POINTERS: usize = 100;

/// Why a run cannot be taken up or go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Broken {
    /// The store refuses.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// What is stored does not make a run.
    #[error("{0}")]
    Damaged(String),
    /// The interpreter refuses.
    #[error("the interpreter cannot go on: {0}")]
    Interpreter(String),
}

/// See the module.
pub(crate) struct Live {
    pub(crate) summary: Summary,
    /// That of what is written.
    chain: Chain,
    record: Record,
    run: Run,
    unwritten: Vec<Vec<u8>>,
    approvals: Ledger,
    /// What was reported and is not written.
    used: Usage,
    /// Which of its doings are told as events.
    lifecycle: Lifecycle,
    /// What is to be told once it is written.
    untold: Vec<CloudEvent>,
    pace: Arc<Pace>,
    growth: Growth,
    /// The state after what is unwritten, where it is to be kept.
    state: Option<Vec<u8>>,
    /// Whether entries can be forgotten since the last write.
    was_cut: bool,
    trail: Option<Box<Trail>>,
}

impl Live {
    /// The run as it was accepted, which has no journal yet.
    pub(crate) async fn begin(
        store: &dyn Store,
        definitions: &Definitions,
        accepted: Accepted,
    ) -> Result<Self, Broken> {
        let Accepted { record, summary } = accepted;
        Self::of(
            store,
            definitions,
            record,
            summary,
            async |journal, definition| journal.earliest(definition).await,
        )
        .await
    }

    /// Folds the run from its journal; `None` if there is no such run.
    pub(crate) async fn load(
        store: &dyn Store,
        definitions: &Definitions,
        id: &RunId,
    ) -> Result<Option<Self>, Broken> {
        Self::folded(store, definitions, id, async |journal, definition| {
            let mut folded = journal.latest(definition).await?;
            journal.fold(&mut folded, journal.length(), |_, _| {}).await?;
            Ok(folded)
        })
        .await
    }

    /// The same from all that is left of the journal, all of it checked.
    pub(crate) async fn checked(
        store: &dyn Store,
        definitions: &Definitions,
        id: &RunId,
    ) -> Result<Option<Self>, Broken> {
        Self::folded(store, definitions, id, async |journal, definition| {
            journal.check_before_base().await?;
            let kept = journal.latest_snapshot().await?.transpose();
            let kept = kept.map_err(|why| Broken::Damaged(format!("the state that is kept of it: {why}")))?;
            let mut agrees = true;
            let mut compare = |run: &Run| {
                if let Some(kept) = kept.as_ref().filter(|kept| kept.mark.index == run.next_index()) {
                    agrees &= kept.state == run.snapshot();
                }
            };
            let mut folded = journal.earliest(definition).await?;
            journal
                .fold(&mut folded, journal.length(), |run, _| compare(run))
                .await?;
            compare(&folded.run);
            if agrees {
                return Ok(folded);
            }
            Err(Broken::Damaged(
                "the state that is kept of it is not the one of its journal".to_owned(),
            ))
        })
        .await
    }

    async fn folded(
        store: &dyn Store,
        definitions: &Definitions,
        id: &RunId,
        fold: impl AsyncFnOnce(&Journal<'_>, &Arc<Definition>) -> Result<Folded, Broken>,
    ) -> Result<Option<Self>, Broken> {
        match store.stored(id).await? {
            Some(Stored {
                summary,
                record: Some(record),
                ..
            }) => Ok(Some(Self::of(store, definitions, record, summary, fold).await?)),
            _ => Ok(None),
        }
    }

    async fn of(
        store: &dyn Store,
        definitions: &Definitions,
        record: Record,
        summary: Summary,
        fold: impl AsyncFnOnce(&Journal<'_>, &Arc<Definition>) -> Result<Folded, Broken>,
    ) -> Result<Self, Broken> {
        let Pinned { definition, pace } = definitions
            .pinned(&record.document, &record.resources)
            .await
            .map_err(|problems| Broken::Damaged(format!("its document is refused: {problems}")))?;
        let journal = Journal::open(store, &record, &summary).await?;
        let Folded { run, mark, growth } = fold(&journal, &definition).await?;
        Ok(Self {
            approvals: Ledger::of(&run, &summary),
            summary,
            chain: mark.chain,
            record,
            run,
            growth,
            state: None,
            was_cut: false,
            trail: None,
            unwritten: Vec::new(),
            used: Usage::default(),
            lifecycle: Lifecycle::None,
            untold: Vec::new(),
            pace,
        })
    }

    /// With what it is to know of its secrets when it decides.
    pub(crate) async fn with_secrets(self, secrets: &Secrets) -> Self {
        let grant = self.grant();
        if grant.listed.is_empty() {
            return self;
        }
        let read = secrets.read(&grant).await;
        let known = secret::Secrets::new(grant.nonce, read.as_ref().map_err(Clone::clone));
        Self {
            run: self.run.with_secrets(known),
            ..self
        }
    }

    /// Which secrets its calls may know.
    pub(crate) fn grant(&self) -> Grant {
        Grant::new(self.run.definition(), &self.record.nonce)
    }

    /// As this run, telling so much of what becomes of it.
    pub(crate) fn telling(mut self, lifecycle: Lifecycle) -> Self {
        self.lifecycle = lifecycle;
        if lifecycle != Lifecycle::None {
            self.run = self.run.observed();
        }
        self
    }

    /// As this run, with its doings told as spans, where anything is traced.
    pub(crate) fn traced(mut self, tracer: &Tracer) -> Self {
        self.trail = Trail::of(tracer, &self.summary, &self.run).map(Box::new);
        self
    }

    /// Whether the interpreter has not been started.
    pub(crate) fn is_new(&self) -> bool {
        self.run.status() == run::Status::Pending
    }

    /// Whether the interpreter is to be started.
    pub(crate) fn may_begin(&self) -> bool {
        self.is_new() && !self.run.is_paused()
    }

    /// Whether there is something to do for which a run needs a slot.
    pub(crate) fn has_work(&self, now: Timestamp) -> bool {
        self.may_begin()
            || self.run.due().is_some_and(|due| due <= now)
            // Whoever hears something gets its turn.
            || self.run.has_calls()
    }

    /// Where the run stands by its journal.
    pub(crate) fn status(&self) -> Status {
        status(&self.run)
    }

    /// What it resulted in by its journal, once it is completed.
    pub(crate) fn output(&self) -> Option<&Value> {
        self.run.output()
    }

    /// The input the run was accepted with.
    pub(crate) fn input(&self) -> Value {
        self.record.input.clone()
    }

    /// Lets the interpreter decide. What it decides is to be written before it is acted upon; what it leaves to chance
    /// follows from the seed.
    pub(crate) async fn decide(
        self,
        stimulus: Stimulus,
        clock: &SharedClock,
        seed: u64,
    ) -> Result<Self, Broken> {
        if self.pace.is_quick() {
            return self.decide_timed(stimulus, &**clock, seed);
        }
        let clock = Arc::clone(clock);
        off_thread(move || self.decide_timed(stimulus, &*clock, seed)).await
    }

    fn decide_timed(self, stimulus: Stimulus, clock: &dyn Clock, seed: u64) -> Result<Self, Broken> {
        let start = clock.monotonic();
        let live = self.decide_now(stimulus, clock.now(), seed)?;
        live.pace.took(clock.monotonic().saturating_sub(start));
        Ok(live)
    }

    fn decide_now(mut self, stimulus: Stimulus, now: Timestamp, seed: u64) -> Result<Self, Broken> {
        let mut random = StdRng::seed_from_u64(seed);
        let events = match self.run.decide(stimulus, now, &mut random) {
            Ok(events) => events,
            Err(run::Error::Input(what)) => {
                let error = Problem::standard(Standard::Validation, format!("the input {what}"));
                let event = Event {
                    index: self.run.next_index(),
                    time: now.max(self.run.time()),
                    kind: EventKind::RunFaulted { error },
                };
                let applied = self.run.apply(&event);
                applied.map_err(|mismatch| Broken::Interpreter(mismatch.to_string()))?;
                vec![event]
            }
            Err(error @ run::Error::Inconsistent(_)) => return Err(Broken::Interpreter(error.to_string())),
        };
        let mut observations = self.run.observations().into_iter().peekable();
        for event in &events {
            let seen = observations.next_if(|seen| seen.index == event.index);
            self.record(event, &seen.unwrap_or_default())?;
        }
        let reported = events.iter().filter_map(|event| match &event.kind {
            EventKind::UsageReported {
                usage, child: false, ..
            } => Some(*usage),
            _ => None,
        });
        self.used += reported.sum();
        self.summary.spent = self.run.spent();
        self.approvals.follow(&events, &self.run, &self.summary);
        self.sum_up(now);
        Ok(self)
    }

    fn sum_up(&mut self, now: Timestamp) {
        let summary = &mut self.summary;
        summary.status = status(&self.run);
        if summary.started_at.is_none() && self.run.has_begun() && !self.unwritten.is_empty() {
            summary.started_at = Some(now);
        }
        if summary.status.is_final() {
            summary.ended_at.get_or_insert(now);
            summary.failure = self.run.error().map(failure);
        }
        summary.marks.paused_by = match summary.status {
            Status::Paused => self.run.paused_by().map(str::to_owned),
            _ => None,
        };
        summary.marks.compensation = self.run.compensation().map(compensation);
    }

    /// As this run, with its state ready to be kept by the next write, if `fewest_entries` were written since the last one
    /// and it is worth it.
    pub(crate) async fn ready_to_be_saved(mut self, fewest_entries: u64) -> Self {
        for entry in &self.unwritten {
            self.growth.add(entry.len());
        }
        let ends = self.summary.status.is_final();
        if ends || !self.growth.is_due(fewest_entries) || self.summary.marks.retries != self.run.generation()
        {
            return self;
        }
        off_thread(move || {
            let state = self.run.snapshot();
            let written: usize = self.unwritten.iter().map(Vec::len).sum();
            self.growth = Growth::saved(state.len());
            // One that is too large now may not be so once it holds less.
            self.state = Some(state).filter(|state| state.len() + written <= snapshot::MOST_BYTES);
            self
        })
        .await
    }

    /// Keeps the state with this step, and cuts the history where it has outgrown its bound.
    fn save(&mut self, most_entries: u64) -> Result<Option<Saved>, store::Error> {
        let Some(state) = self.state.take() else {
            return Ok(None);
        };
        let mark = Mark {
            index: self.summary.history_length,
            chain: self.chain,
        };
        let last = self.summary.cut.map(|cut| cut.base);
        let since = last.map_or(0, |base| base.index);
        let is_base = mark.index.saturating_sub(since) >= most_entries;
        if is_base {
            let first = last.unwrap_or_else(|| Mark {
                index: 0,
                chain: self.record.chain(),
            });
            self.was_cut = first.index > 0;
            self.summary.cut = Some(Cut { first, base: mark });
        }
        let snapshot = Snapshot {
            mark,
            retries: self.run.generation(),
            state,
        };
        let bytes = snapshot.to_bytes();
        let bytes =
            bytes.map_err(|error| store::Error::Damaged(format!("a snapshot cannot be written: {error}")))?;
        Ok(Some(Saved { bytes, is_base }))
    }

    /// Index of the first entry that is to be kept, where others are to be forgotten since the last question.
    pub(crate) fn take_cut(&mut self) -> Option<u64> {
        std::mem::take(&mut self.was_cut).then(|| self.summary.first_entry())
    }

    /// Makes what was decided durable. A history is cut where it has `most_entries` since the last cut.
    /// Says what the run used since the last time, and on which day.
    pub(crate) async fn write(
        &mut self,
        store: &dyn Store,
        most_entries: u64,
    ) -> Result<(i64, Usage), store::Error> {
        let used = std::mem::take(&mut self.used);
        let (day, usage) = self.run.spent_on_the_last_day();
        let spent = (used != Usage::default()).then_some(Spent { day, usage });
        let entries = std::mem::take(&mut self.unwritten);
        let first_index = self.summary.history_length;
        self.summary.history_length += entries.len() as u64;
        self.chain = extended(self.chain, &entries, &self.record)?;
        self.summary.chain = Some(self.chain);
        let snapshot = self.save(most_entries)?;
        let output = self.run.output().cloned();
        store
            .append(Step {
                summary: self.summary.clone(),
                first_index,
                entries,
                output,
                approvals: self.approvals.take_changed(),
                spent,
                events: std::mem::take(&mut self.untold),
                snapshot,
                payloads: Vec::new(),
            })
            .await?;
        if let Some(trail) = &mut self.trail {
            trail.written(&self.summary);
        }
        Ok((day, used))
    }

    /// What was reported and is not written.
    pub(crate) fn used(&self) -> Usage {
        self.used
    }

    /// Says whether the budget of the run's namespace is used up.
    pub(crate) fn know_namespace(&mut self, exhausted: Option<Exhausted>) {
        self.run.know_namespace(exhausted);
    }

    /// Whether events are written with the next step.
    pub(crate) fn has_untold(&self) -> bool {
        !self.untold.is_empty()
    }

    /// Whether something is to be written.
    pub(crate) fn has_unwritten(&self) -> bool {
        !self.unwritten.is_empty()
    }

    /// What is to be under way now.
    pub(crate) fn effects(&self) -> Vec<Effect> {
        self.run.effects()
    }

    fn record(&mut self, event: &Event, seen: &Observation) -> Result<(), Broken> {
        let bytes = serde_json::to_vec(event).map_err(|error| Broken::Interpreter(error.to_string()))?;
        self.unwritten.push(bytes);
        if let Some(trail) = &mut self.trail {
            trail.follow(event);
        }
        if self.lifecycle != Lifecycle::None {
            let output = self.run.output();
            let told = lifecycle::observed(self.lifecycle, &self.summary, event, output, seen);
            self.untold.extend(told);
        }
        Ok(())
    }

    /// When the next timer is due.
    pub(crate) fn next_due(&self) -> Option<Timestamp> {
        self.run.due()
    }

    /// Whether the run waits for something that will be told to it, besides calls and time.
    pub(crate) fn waits_outside(&self) -> bool {
        self.run.waits_outside()
    }

    /// Which kept answer may stand for that of a call.
    pub(crate) fn kept(&self, task: &str, request: &Request) -> Option<Kept> {
        let task = self.run.definition().workflow.task(task)?;
        Kept::new(&self.summary.namespace, request, task.policy.cache?)
    }

    /// What the run does or waits for.
    pub(crate) fn waiting(&self, now: Timestamp) -> Vec<Blocker> {
        self.run.waiting(now)
    }
}

/// The chain with these entries more.
pub(crate) fn extended(chain: Chain, entries: &[Vec<u8>], record: &Record) -> Result<Chain, store::Error> {
    let mut entries = entries.iter();
    entries
        .try_fold(chain, |chain, entry| chain.extended(entry, &record.nonce))
        .map_err(|error| store::Error::Damaged(format!("what is to be written {error}")))
}

fn failure(problem: &Problem) -> Failure {
    Failure {
        kind: problem.kind.clone(),
        status: problem.status,
        instance: problem.instance.clone().unwrap_or_default(),
        title: problem.title.clone().unwrap_or_default(),
        detail: problem.detail.clone().unwrap_or_default(),
    }
}

fn compensation(report: run::Compensation) -> Compensation {
    let texts = |tasks: Vec<Arc<str>>| {
        let texts = tasks.into_iter().take(MOST_POINTERS);
        texts.map(|task| task.to_string()).collect()
    };
    let failed = report.failed.into_iter().take(MOST_POINTERS);
    Compensation {
        done: texts(report.done),
        failed: failed
            .map(|(task, error)| (task.to_string(), failure(&error)))
            .collect(),
        left: texts(report.left),
    }
}

/// A run that has not ended works while it has calls under way, and else waits for time to pass or for what it is told.
pub(crate) fn status(run: &Run) -> Status {
    match run.status() {
        run::Status::Pending | run::Status::Running if run.is_paused() => Status::Paused,
        run::Status::Pending => Status::Pending,
        run::Status::Completed => Status::Completed,
        run::Status::Faulted => Status::Faulted,
        run::Status::Cancelled => Status::Cancelled,
        run::Status::Running if run.has_calls() => Status::Running,
        run::Status::Running => Status::Waiting,
    }
}
