//! Who watches at the engine's ports, and holds it to what it promises.
//!
//! The witness folds every journal by itself as its entries become durable. What the fold wants to be called may be called,
//! and nothing else; what it has wanted and wants no more is closed for ever. That is stricter than a list of calls and
//! results, and says at the call itself what is wrong with it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use muster_workflow_dsl::Definition;
use muster_workflow_dsl::journal::{Event, EventKind};
use muster_workflow_dsl::run::rewind::skipped;
use muster_workflow_dsl::run::{Effect, Run};
use parking_lot::Mutex;
use serde::Serialize;
use uuid::Uuid;

use super::trace::{Digest, Trace};
use super::{Figures, Outcome};
use crate::news::{Follower, News};
use crate::run::{RunId, Status, Summary};
use crate::schedule::Limit;
use crate::store::Step;
use crate::store::memory::State as Kept;
use crate::timetable::Name;

/// What the engine promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Invariant {
    /// A call whose result is in the journal is never made again.
    RecordedStepsStay,
    /// Only what the durable journal asks for is called, and under the message id that follows from it.
    CallsAreAskedFor,
    /// A call is repeated only after a crash.
    CallsAreMadeOnce,
    /// What was acknowledged is there after every crash.
    AcknowledgedIsDurable,
    /// Every run ends.
    RunsEnd,
    /// A run ends as it does without faults.
    OutputsAgree,
    /// No timer fires before its time.
    TimersWait,
    /// A timer fires once.
    TimersFireOnce,
    /// No more slots are used than there are, and no more runs of a group are under way than may be.
    LimitsHold,
    /// A journal has no gaps, can be folded, and its time does not go back.
    JournalsAreWhole,
    /// A good request is taken sooner or later.
    RequestsAreTaken,
    /// Of engines that share a store, only the one that has the lease of a run's partition writes to the run.
    FencesHold,
    /// A schedule starts one run for each of its instants, or one for all that have passed while nobody lived; an event starts
    /// one run.
    StartsHappenOnce,
    /// An attempt of a call that may not be repeated is with at most one instance that lives.
    DeliveredToOne,
    /// Nothing is sent to an instance that the registry has said to be gone.
    GoneAreLeftAlone,
    /// A call is not refused while an instance is known that lives and that may be called.
    AliveAreCalled,
    /// What was known last of the fleet goes on serving while the registry is away.
    StaleViewsServe,
}

/// What an engine is to a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It works on it, and nobody else may.
    Owner,
    /// It believes so; somebody else has taken the run over.
    Stray,
    /// It knows that it does not.
    Nobody,
}

/// A promise that was broken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// Which.
    pub invariant: Invariant,
    /// How.
    pub detail: String,
    /// When, in simulated time.
    pub time: Timestamp,
}

impl fmt::Display for Violation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            invariant,
            detail,
            time,
        } = self;
        write!(formatter, "{invariant:?} at {time}: {detail}")
    }
}

/// See the module.
pub(crate) struct Witness {
    state: Mutex<State>,
    /// Rings when somebody may want to look.
    news: Arc<News>,
    slots: usize,
    /// Slots that a namespace may hold.
    shares: BTreeMap<String, usize>,
}

#[derive(Default)]
struct State {
    trace: Trace,
    figures: Figures,
    violation: Option<Violation>,
    runs: BTreeMap<RunId, Seen>,
    /// Calls that journals ask for, and whose they are.
    wanted: BTreeMap<Uuid, RunId>,
    /// Calls that journals have asked for and ask for no more.
    closed: BTreeMap<Uuid, RunId>,
    /// Those of them whose run has written so, and has not been told yet that it is durable.
    given_up: BTreeMap<Uuid, RunId>,
    /// Calls that were made since their runs were last loaded.
    made: BTreeMap<Uuid, RunId>,
    /// Calls that were made before.
    made_before: BTreeSet<Uuid>,
    /// How many calls runs have in flight, in each life.
    in_flight: BTreeMap<usize, BTreeMap<RunId, usize>>,
    accepted: BTreeSet<RunId>,
    published: BTreeSet<String>,
    /// The instants for which schedules have started runs, and when they did.
    fired: BTreeMap<Name, BTreeMap<Timestamp, Timestamp>>,
    /// The runs that events have started.
    started: BTreeMap<String, RunId>,
}

/// A run as its journal tells it.
struct Seen {
    definition: Arc<Definition>,
    hears_from: u64,
    run: Run,
    events: Vec<Event>,
    retries: Vec<(u64, u64)>,
    /// Of each entry.
    digests: Vec<u64>,
    namespace: String,
    limits: Vec<Limit>,
    under_way: bool,
    wanted: BTreeSet<Uuid>,
    due: BTreeMap<u64, Timestamp>,
    ended: BTreeSet<u64>,
}

fn digest(bytes: &[u8]) -> u64 {
    let mut digest = Digest::default();
    digest.add(&String::from_utf8_lossy(bytes));
    digest.value()
}

type Broken = (Invariant, String);

impl Seen {
    /// Takes the next entry in.
    fn take(&mut self, bytes: &[u8], now: Timestamp, figures: &mut Figures) -> Result<&'static str, Broken> {
        let whole = |what: String| (Invariant::JournalsAreWhole, what);
        let event: Event = serde_json::from_slice(bytes).map_err(|error| whole(error.to_string()))?;
        let index = self.digests.len() as u64;
        if event.index != index {
            return Err(whole(format!("entry {} where {index} is expected", event.index)));
        }
        if self.events.last().is_some_and(|last| last.time > event.time) {
            return Err(whole(format!("entry {index} is older than the one before")));
        }
        self.watch_timers(&event, now, figures)?;
        self.digests.push(digest(bytes));
        let name = event.name();
        if let EventKind::RunRetried { to, .. } = &event.kind {
            self.retries.push((index, *to));
            self.events.push(event);
            self.fold_again().map_err(whole)?;
            self.due.clear();
            self.ended.clear();
        } else {
            let applied = self.run.apply(&event);
            applied.map_err(|mismatch| whole(format!("entry {index} ({name}): {mismatch}")))?;
            self.events.push(event);
        }
        Ok(name)
    }

    fn fold_again(&mut self) -> Result<(), String> {
        let id = self.run.id().to_owned();
        let mut run = Run::new(id, Arc::clone(&self.definition)).hearing_from(self.hears_from);
        let spans = skipped(&self.retries);
        for event in &self.events {
            if !spans.iter().any(|span| span.contains(&event.index)) {
                run.apply(event).map_err(|mismatch| mismatch.to_string())?;
            }
        }
        self.run = run;
        Ok(())
    }

    fn watch_timers(&mut self, event: &Event, now: Timestamp, figures: &mut Figures) -> Result<(), Broken> {
        let mut early = |due: Timestamp, what: &str| {
            figures.timers += 1;
            if event.time < due || now < due {
                let time = event.time.min(now);
                let detail = format!("{what} is due at {due} and came at {time}");
                return Err((Invariant::TimersWait, detail));
            }
            Ok(())
        };
        match &event.kind {
            EventKind::WaitStarted {
                task,
                activation,
                until,
            } => {
                let before = self.due.insert(*activation, *until);
                if before.is_some() {
                    return Err((Invariant::TimersFireOnce, format!("{task} waits twice")));
                }
            }
            EventKind::TaskCompleted { task, activation, .. } => {
                if !self.ended.insert(*activation) {
                    let detail = format!("{task} (activation {activation}) ends twice");
                    return Err((Invariant::TimersFireOnce, detail));
                }
                if let Some(due) = self.due.get(activation) {
                    early(*due, task)?;
                }
            }
            EventKind::TaskRetried { activation, due, .. } => {
                self.due.insert(*activation, *due);
            }
            EventKind::TaskStarted {
                task,
                parent: Some(parent),
                ..
            } => {
                // Who is cancelled handles the error at once, in place of the next attempt.
                let handles = task.rsplit('/').nth(3) == Some("catch");
                if let Some(due) = self.due.get(parent).filter(|_| !handles) {
                    early(*due, task)?;
                }
            }
            EventKind::ApprovalOpened {
                activation, question, ..
            } => {
                if let Some(deadline) = question.deadline {
                    self.due.insert(*activation, deadline);
                }
            }
            EventKind::ApprovalDecided { activation, .. } => {
                self.due.remove(activation);
            }
            EventKind::ApprovalExpired { task, activation, .. } => {
                if let Some(due) = self.due.remove(activation) {
                    early(due, task)?;
                }
            }
            _ => {}
        }
        Ok(())
    }
}

impl Witness {
    pub(crate) fn new(slots: usize, shares: BTreeMap<String, usize>) -> Self {
        Self {
            state: Mutex::default(),
            news: Arc::default(),
            slots,
            shares,
        }
    }

    /// Hears of every commit and of every promise that is broken.
    pub(crate) fn follow(&self) -> Follower {
        self.news.follow()
    }

    pub(crate) fn note(&self, now: Timestamp, what: &str) {
        self.state.lock().trace.note(now, what);
    }

    /// A promise was broken. Only the first one counts: others may follow from it.
    pub(crate) fn accuse(&self, now: Timestamp, invariant: Invariant, detail: String) {
        self.state.lock().accuse(now, invariant, detail);
        self.news.ring();
    }

    pub(crate) fn is_violated(&self) -> bool {
        self.state.lock().violation.is_some()
    }

    pub(crate) fn outcome(&self, seed: u64) -> Outcome {
        let state = self.state.lock();
        Outcome {
            seed,
            violation: state.violation.clone(),
            digest: state.trace.digest(),
            trace: state.trace.lines(),
            figures: Figures {
                runs: state.runs.len() as u64,
                ..state.figures
            },
        }
    }

    /// A life has begun, and everything of the one before is gone.
    pub(crate) fn begin_life(&self, now: Timestamp, life: usize) {
        let mut state = self.state.lock();
        state.figures.faults += u64::from(life > 0);
        state.interrupted(|_| true);
        state.trace.note(now, &format!("life {life} begins"));
    }

    /// An engine lives beside others, or lives anew.
    pub(crate) fn join(&self, now: Timestamp, life: usize, is_anew: bool) {
        let mut state = self.state.lock();
        state.figures.faults += u64::from(is_anew);
        state.trace.note(now, &format!("life {life} begins"));
    }

    /// An engine was frozen.
    pub(crate) fn disturbed(&self, now: Timestamp, what: &str) {
        let mut state = self.state.lock();
        state.figures.faults += 1;
        state.trace.note(now, what);
    }

    /// A life is over, and its calls are nobody's any more.
    pub(crate) fn gone(&self, now: Timestamp, life: usize) {
        let mut state = self.state.lock();
        state.in_flight.remove(&life);
        state.trace.note(now, &format!("life {life} is over"));
    }

    /// An attempt of a call goes to an instance.
    pub(crate) fn attempted(&self, now: Timestamp, what: &str, has_moved: bool) {
        let mut state = self.state.lock();
        state.figures.deliveries += 1;
        state.figures.moved += u64::from(has_moved);
        state.trace.note(now, what);
    }

    /// These runs are loaded anew by somebody, who sends again what was in flight.
    pub(crate) fn interrupted(&self, which: impl Fn(&RunId) -> bool) {
        self.state.lock().interrupted(which);
    }

    /// A schedule has started a run for this instant.
    pub(crate) fn fired(&self, now: Timestamp, name: &Name, scheduled_at: Timestamp) {
        let mut state = self.state.lock();
        state.trace.note(now, &format!("{name} fires for {scheduled_at}"));
        let before = state
            .fired
            .entry(name.clone())
            .or_default()
            .insert(scheduled_at, now);
        state.figures.starts += 1;
        if now < scheduled_at {
            let detail = format!("{name} fires for {scheduled_at} at {now}");
            state.accuse(now, Invariant::TimersWait, detail);
        }
        if before.is_some() {
            let detail = format!("{name} fires twice for {scheduled_at}");
            state.accuse(now, Invariant::StartsHappenOnce, detail);
        }
    }

    /// An event has started a run.
    pub(crate) fn started_on(&self, now: Timestamp, event: String, run: &RunId) {
        let mut state = self.state.lock();
        state.trace.note(now, &format!("event {event} starts {run}"));
        state.figures.starts += 1;
        if let Some(before) = state.started.insert(event.clone(), run.clone()) {
            let detail = format!("event {event} has started {before} and {run}");
            state.accuse(now, Invariant::StartsHappenOnce, detail);
        }
    }

    /// Whether the event has started its run.
    pub(crate) fn has_started(&self, event: &str) -> bool {
        self.state.lock().started.contains_key(event)
    }

    /// A schedule that was never held has these instants behind it; each has its run, or shares one that came later.
    pub(crate) fn covered(&self, now: Timestamp, name: &Name, instants: &[Timestamp]) {
        let mut state = self.state.lock();
        let fired = state.fired.get(name);
        let has_run = |instant: &&Timestamp| {
            let before = fired.and_then(|fired| fired.range(..=**instant).next_back());
            before.is_some_and(|(_, at)| *at >= **instant)
        };
        let missed = instants.iter().find(|instant| !has_run(instant)).copied();
        if let Some(instant) = missed {
            let detail = format!("{name} has not fired for {instant}");
            state.accuse(now, Invariant::StartsHappenOnce, detail);
            drop(state);
            self.news.ring();
        }
    }

    /// A run is durable.
    pub(crate) fn created(
        &self,
        now: Timestamp,
        summary: &Summary,
        hears_from: u64,
        definition: Arc<Definition>,
    ) {
        let mut state = self.state.lock();
        let id = &summary.id;
        state.trace.note(now, &format!("created {id}"));
        let run = Run::new(id.as_str().to_owned(), Arc::clone(&definition)).hearing_from(hears_from);
        let seen = Seen {
            definition,
            hears_from,
            run,
            events: Vec::new(),
            retries: Vec::new(),
            digests: Vec::new(),
            namespace: summary.namespace.clone(),
            limits: summary.claim.limits.clone(),
            under_way: false,
            wanted: BTreeSet::new(),
            due: BTreeMap::new(),
            ended: BTreeSet::new(),
        };
        state.runs.insert(id.clone(), seen);
    }

    /// A step is durable.
    pub(crate) fn committed(&self, now: Timestamp, step: &Step) {
        let mut state = self.state.lock();
        if let Err((invariant, detail)) = state.commit(now, step) {
            let detail = format!("run {}: {detail}", step.summary.id);
            state.accuse(now, invariant, detail);
        }
        drop(state);
        self.news.ring();
    }

    /// A call is made; it is in flight as long as what is returned lives.
    /// `standing`: what the life that makes it is to a run.
    pub(crate) fn called(
        self: &Arc<Self>,
        now: Timestamp,
        life: usize,
        message: Uuid,
        target: &str,
        standing: impl FnOnce(&RunId) -> Standing,
    ) -> InFlight {
        let mut state = self.state.lock();
        state.trace.note(now, &format!("call {target} {message}"));
        state.figures.calls += 1;
        state.figures.resent += u64::from(state.made_before.contains(&message));
        let late = state.given_up.get(&message).cloned();
        let wanted = state.wanted.get(&message).cloned();
        let asked = wanted.clone().or_else(|| state.closed.get(&message).cloned());
        let standing = asked.as_ref().map(standing);
        let run = wanted.or_else(|| late.clone());
        // One that was about to be sent may be, until the engine knows that it has given it up; and once.
        let is_closed = match late {
            Some(_) => state.made.contains_key(&message),
            None => state.closed.contains_key(&message),
        };
        if standing == Some(Standing::Stray) {
            // Whoever does not know yet that somebody else works on the run may send what was about to be sent.
            state.figures.strays += 1;
        } else if standing == Some(Standing::Nobody) {
            let detail = format!(
                "life {life} sends message {message} for a run that it has given up, or under an epoch that is not its own"
            );
            state.accuse(now, Invariant::FencesHold, detail);
        } else if is_closed {
            let detail = format!("message {message} to {target}");
            state.accuse(now, Invariant::RecordedStepsStay, detail);
        } else if run.is_none() {
            let detail = format!("message {message} to {target} is not in any journal");
            state.accuse(now, Invariant::CallsAreAskedFor, detail);
        } else if let Some(run) = &run
            && state.made.insert(message, run.clone()).is_some()
        {
            let detail = format!("message {message} to {target}");
            state.accuse(now, Invariant::CallsAreMadeOnce, detail);
        }
        let run = run.or(asked);
        if let Some(run) = &run {
            let in_flight = state.in_flight.entry(life).or_default();
            *in_flight.entry(run.clone()).or_default() += 1;
            self.check_slots(&mut state, now, life, run);
        }
        drop(state);
        if self.is_violated() {
            self.news.ring();
        }
        InFlight {
            witness: Arc::clone(self),
            life,
            run,
        }
    }

    /// Which attempt of which step a message is, as the durable journals have it.
    #[cfg(test)]
    pub(crate) fn asked(&self, message: Uuid) -> Option<Asked> {
        let state = self.state.lock();
        let run = state.runs.get(state.wanted.get(&message)?)?;
        run.run.effects().into_iter().find_map(|effect| match effect {
            Effect::Call {
                message_id,
                task,
                step_key,
                attempt,
                ..
            } if message_id == message => Some(Asked {
                task,
                step_key,
                attempt,
            }),
            _ => None,
        })
    }

    /// Slots are each engine's own.
    fn check_slots(&self, state: &mut State, now: Timestamp, life: usize, run: &RunId) {
        let Some(in_flight) = state.in_flight.get(&life) else {
            return;
        };
        let used = in_flight.len();
        if used > self.slots {
            let detail = format!("{used} runs work, and there are {} slots", self.slots);
            state.accuse(now, Invariant::LimitsHold, detail);
        }
        let Some(namespace) = state.runs.get(run).map(|run| run.namespace.clone()) else {
            return;
        };
        let Some(most) = self.shares.get(&namespace) else {
            return;
        };
        let is_of = |run: &&RunId| state.runs.get(run).is_some_and(|run| run.namespace == namespace);
        let in_flight = state.in_flight.get(&life).into_iter().flatten();
        let used = in_flight.map(|(run, _)| run).filter(is_of).count();
        if used > *most {
            let detail = format!("{used} runs of namespace {namespace} work, and it may hold {most} slots");
            state.accuse(now, Invariant::LimitsHold, detail);
        }
    }

    /// The engine was told that the last step of the run is durable.
    pub(crate) fn told(&self, id: &RunId) {
        self.state.lock().given_up.retain(|_, run| run != id);
    }

    /// Somebody was told that the run is there, or that it stands like this.
    pub(crate) fn acknowledged(&self, now: Timestamp, summary: &Summary) {
        let mut state = self.state.lock();
        let id = &summary.id;
        state.figures.controls += 1;
        state.accepted.insert(id.clone());
        state
            .trace
            .note(now, &format!("acknowledged {id} {}", summary.history_length));
        let durable = state.runs.get(id).map(|run| run.digests.len() as u64);
        if durable.is_none_or(|durable| durable < summary.history_length) {
            let detail = format!("run {id} is not as far as somebody was told");
            state.accuse(now, Invariant::AcknowledgedIsDurable, detail);
            drop(state);
            self.news.ring();
        }
    }

    /// Somebody was told that the event is there.
    pub(crate) fn published(&self, now: Timestamp, id: String) {
        let mut state = self.state.lock();
        state.figures.events += 1;
        state.trace.note(now, &format!("published {id}"));
        state.published.insert(id);
    }

    /// What is found between two lives, or at the end, is what was seen to be written.
    pub(crate) fn verify(&self, now: Timestamp, kept: &Kept) {
        let mut state = self.state.lock();
        if let Some(detail) = state.missing(kept) {
            state.accuse(now, Invariant::AcknowledgedIsDurable, detail);
        }
    }
}

impl State {
    fn accuse(&mut self, now: Timestamp, invariant: Invariant, detail: String) {
        if self.violation.is_none() {
            self.trace
                .note(now, &format!("VIOLATION {invariant:?}: {detail}"));
            self.violation = Some(Violation {
                invariant,
                detail,
                time: now,
            });
        }
    }

    fn interrupted(&mut self, which: impl Fn(&RunId) -> bool) {
        let (gone, kept) = std::mem::take(&mut self.made)
            .into_iter()
            .partition::<BTreeMap<_, _>, _>(|(_, run)| which(run));
        self.made = kept;
        self.made_before.extend(gone.into_keys());
        self.given_up.retain(|_, run| !which(run));
    }

    fn commit(&mut self, now: Timestamp, step: &Step) -> Result<(), Broken> {
        self.figures.commits += 1;
        self.figures.events += step.events.len() as u64;
        let id = &step.summary.id;
        let whole = |what: String| (Invariant::JournalsAreWhole, what);
        let seen = self.runs.get_mut(id);
        let seen = seen.ok_or_else(|| whole("nobody has created it".to_owned()))?;
        let length = seen.digests.len() as u64;
        if step.first_index != length {
            return Err(whole(format!(
                "a step at {} follows {length} entries",
                step.first_index
            )));
        }
        let mut names = Vec::new();
        for bytes in &step.entries {
            names.push(seen.take(bytes, now, &mut self.figures)?);
        }
        let text = format!(
            "commit {id} {length} {} {}",
            names.join(" "),
            step.summary.status.name()
        );
        self.trace.note(now, &text);
        let length = seen.digests.len() as u64;
        if step.summary.history_length != length {
            let said = step.summary.history_length;
            return Err(whole(format!(
                "{length} entries are written, and its summary says {said}"
            )));
        }
        seen.under_way = step.summary.is_under_way();
        self.figures.completed += u64::from(step.summary.status == Status::Completed);
        let effects = seen.run.effects().into_iter();
        let wanted: BTreeSet<Uuid> = effects
            .filter_map(|effect| match effect {
                Effect::Call { message_id, .. } => Some(message_id),
                Effect::Listen { .. } | Effect::Timer { .. } => None,
            })
            .collect();
        for gone in seen.wanted.difference(&wanted) {
            self.wanted.remove(gone);
            self.closed.insert(*gone, id.clone());
            self.given_up.insert(*gone, id.clone());
        }
        for message in &wanted {
            if self.closed.contains_key(message) {
                let detail = format!("message {message} is wanted again");
                return Err((Invariant::RecordedStepsStay, detail));
            }
            self.wanted.insert(*message, id.clone());
        }
        seen.wanted = wanted;
        self.check_groups(id)
    }

    fn check_groups(&self, id: &RunId) -> Result<(), Broken> {
        let limits = self.runs.get(id).map_or(&[][..], |run| &run.limits[..]);
        for limit in limits {
            let is_in =
                |run: &&Seen| run.under_way && run.limits.iter().any(|other| other.group == limit.group);
            let used = self.runs.values().filter(is_in).count();
            if used > usize::try_from(limit.most).unwrap_or(usize::MAX) {
                let detail = format!(
                    "{used} runs of group {} are under way, of {}",
                    limit.group, limit.most
                );
                return Err((Invariant::LimitsHold, detail));
            }
        }
        Ok(())
    }

    fn missing(&self, kept: &Kept) -> Option<String> {
        for (id, seen) in &self.runs {
            let Some(run) = kept.runs.get(id) else {
                return Some(format!("run {id} is gone"));
            };
            let digests: Vec<u64> = run.entries.iter().map(|bytes| digest(bytes)).collect();
            // Those before may be forgotten, and none else.
            let forgotten = usize::try_from(run.first).unwrap_or(usize::MAX);
            let allowed = run.first <= run.summary.first_entry();
            if !allowed || seen.digests.get(forgotten..) != Some(&digests[..]) {
                let (is, was) = (digests.len(), seen.digests.len());
                return Some(format!(
                    "run {id} has {is} entries that differ from the {was} that were written"
                ));
            }
        }
        if let Some(id) = self.accepted.iter().find(|id| !kept.runs.contains_key(id)) {
            return Some(format!(
                "run {id} is gone, and somebody was told that it is there"
            ));
        }
        let events = kept.event_ids();
        let lost = self.published.iter().find(|id| !events.contains(*id))?;
        Some(format!(
            "event {lost} is gone, and somebody was told that it is there"
        ))
    }
}

/// What a message is of.
#[cfg(test)]
pub(crate) struct Asked {
    /// JSON pointer of the task.
    pub(crate) task: Arc<str>,
    pub(crate) step_key: Uuid,
    /// From 1.
    pub(crate) attempt: u32,
}

/// A call in flight.
pub(crate) struct InFlight {
    witness: Arc<Witness>,
    life: usize,
    run: Option<RunId>,
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let Some(run) = &self.run else {
            return;
        };
        let mut state = self.witness.state.lock();
        if let Some(in_flight) = state.in_flight.get_mut(&self.life)
            && let Some(count) = in_flight.get_mut(run)
        {
            *count = count.saturating_sub(1);
            if *count == 0 {
                in_flight.remove(run);
            }
        }
    }
}
