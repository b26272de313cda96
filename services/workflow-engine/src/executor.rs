//! The life of one run while it is worked on.
//!
//! Load and fold; then in turns: let the calls in flight be what the interpreter wants, wait for something to
//! happen (a call ends, a timer is due, a message comes), let the interpreter decide, write the decision, go on.
//! Effects start only after the entries that ask for them are durable: one write per step, with what ended and
//! what begins in it. Calls that end together are decided together.
//!
//! When only time can help, the run is parked and nothing of it stays in memory. When the service stops, or the run goes
//! on in another engine, calls in flight are dropped and agents are not told: whoever goes on sends the same messages again
//! under the same ids.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use muster_runtime::Shutdown;
use muster_runtime::clock::Clock;
use muster_workflow_dsl::journal::{Problem, Standard};
use muster_workflow_dsl::run::{Effect, Stimulus};
use muster_workflow_dsl::usage::Usage;

use crate::caller::{Call, Failure, Kind};
use crate::calls::{Calls, Key};
use crate::children::{self, Children};
use crate::engine::Engine;
use crate::error::Error;
use crate::floor::{Command, Job};
use crate::listening::{Listening, Wish};
use crate::live::{Broken, Live};
use crate::replicas::groups;
use crate::run::RunId;
use crate::schedule::Left;
use crate::store::{self, Store};
use crate::trail::Places;

/// The longest sleep: wall-clock time may be set, so it is looked at again.
const LONGEST_SLEEP: Duration = Duration::from_secs(30);

/// Time in the line that is worth an entry of the journal: what is shorter counts against the run's limits of time.
const QUEUED: Duration = Duration::from_secs(1);

/// Entries are forgotten in portions of so many.
const FORGOTTEN_AT_ONCE: usize = 1_000;

/// See [`Executor::timeout`].
const DEADLINE_SLACK: Duration = Duration::from_secs(1);

/// A run that is worked on.
pub(crate) struct Executor {
    engine: Arc<Engine>,
    job: Job,
    calls: Calls,
    /// Calls that were in flight in an earlier life.
    inherited: HashSet<Key>,
    listening: Listening,
    children: Children,
    shutdown: Shutdown,
}

/// What happened.
enum Happening {
    Command(Command),
    Ended(Key, Result<serde_json::Value, Failure>),
    Heard,
    /// A run that it has started has ended.
    ChildEnded(Key, children::Ended),
    /// What is under way has changed, and nothing is to be decided.
    Changed,
    Due,
    Stop,
}

/// How the work ended.
enum Outcome {
    Ended,
    /// Has left the floor already, or is in line again.
    Parked,
    Stopped,
}

impl Executor {
    pub(crate) fn new(engine: Arc<Engine>, job: Job) -> Self {
        let calls = Calls::new(
            Arc::clone(&engine.caller),
            Arc::clone(&engine.clock),
            Arc::clone(&engine.meter),
        );
        let listening = Listening::new(Arc::clone(&engine.events), job.id.clone());
        let children = Children::new(Arc::clone(&engine), job.id.clone());
        let shutdown = engine.shutdown.clone();
        Self {
            engine,
            job,
            calls,
            inherited: HashSet::new(),
            listening,
            children,
            shutdown,
        }
    }

    /// Works until the run ends, waits or cannot go on.
    pub(crate) async fn run(mut self) {
        let id = self.job.id.clone();
        let outcome = self.work().await;
        match outcome {
            Ok(Outcome::Ended) => {
                self.listening.end();
                self.engine.floor.leave(&id, Left::Ended);
                tokio::join!(self.calls.end(), self.children.end());
            }
            // Whoever was told before is given the time to hear it.
            Ok(Outcome::Parked) => {
                tokio::join!(self.calls.leave(), self.children.part());
            }
            Ok(Outcome::Stopped) | Err(Broken::Store(store::Error::NotOwner { .. })) => {
                self.calls.leave().await;
                self.engine.floor.leave(&id, Left::Ended);
            }
            // The run is well, and so are its calls: it goes on from its journal. A conflict is with a step of its own of which it
            // was not known whether it was written.
            Err(Broken::Store(error @ (store::Error::Unavailable(_) | store::Error::Conflict(_)))) => {
                let why = error.to_string();
                tracing::warn!(run = %id, error = why, "the run waits for the store");
                tokio::join!(self.calls.leave(), self.children.part());
                self.engine.floor.leave(&id, Left::SetAside(why));
                self.engine.stalled.add(id);
            }
            Err(broken) => {
                tracing::error!(run = %id, error = %broken, "the run is set aside; the others go on");
                self.listening.end();
                self.calls.end().await;
                self.engine.floor.leave(&id, Left::SetAside(broken.to_string()));
            }
        }
    }

    async fn work(&mut self) -> Result<Outcome, Broken> {
        let Some(mut live) = self.load().await? else {
            return Ok(Outcome::Ended);
        };
        while self.job.slot && !self.may_be_under_way(&live).await? {
            let later = self.engine.clock.now() + groups::AGAIN;
            if self.engine.floor.park(&self.job, Some(later)) {
                return Ok(Outcome::Parked);
            }
            match self.job.mailbox.recv().await {
                Some(command) => live = self.obey(live, command).await?,
                None => return Ok(Outcome::Stopped),
            }
            if live.summary.status.is_final() {
                return Ok(Outcome::Ended);
            }
        }
        // Durable with the first thing that it does.
        live.summary.marks.lined_up &= !self.job.slot;
        if !live.is_new() {
            let effects = live.effects();
            self.children.remember(self.children_of(&effects));
            // What came due meanwhile, or was left undecided by a crash.
            let before = self.wanted(&live, &effects);
            self.inherited = before.iter().map(|(key, _)| *key).collect();
            let late = self.waited_in_line().map(|since| Stimulus::Queued { since });
            live = self
                .step(live, late.into_iter().chain([Stimulus::Tick]).collect())
                .await?;
            self.disown(before, &live);
        }
        loop {
            if live.may_begin() && self.job.slot && self.job.mailbox.is_empty() {
                let input = live.input();
                live = self.step(live, vec![Stimulus::Start { input }]).await?;
            }
            if live.summary.status.is_final() {
                return Ok(Outcome::Ended);
            }
            if !self.job.slot && live.has_work(self.engine.clock.now()) {
                self.children.dismiss_all_but(&self.children_of(&live.effects()));
                // It was taken out of its turn to be told something; for more than that it waits for a slot.
                if self.engine.floor.line_up(&self.job) {
                    return Ok(Outcome::Parked);
                }
                match self.job.mailbox.recv().await {
                    Some(command) => live = self.obey(live, command).await?,
                    None => return Ok(Outcome::Stopped),
                }
                continue;
            }
            if self.is_given_up() {
                return Ok(Outcome::Stopped);
            }
            let timer = self.follow(&live);
            self.listening.look().await?;
            if self.engine.floor.was_roused(&self.job.id) {
                self.children.look();
            }
            let due = timer.into_iter().chain(self.children.due()).min();
            if self.calls.is_empty()
                && self.children.is_idle()
                && !live.may_begin()
                && !self.listening.has_heard()
            {
                if due.is_none() && !live.waits_outside() {
                    return Err(Broken::Interpreter("it waits for nothing".to_owned()));
                }
                if due.is_none_or(|due| due > self.engine.clock.now())
                    && self.engine.floor.park(&self.job, due)
                {
                    return Ok(Outcome::Parked);
                }
            }
            live = match self.happening(due).await {
                Happening::Stop => return Ok(Outcome::Stopped),
                Happening::Command(command) => self.obey(live, command).await?,
                Happening::Heard => {
                    let heard = self.listening.take();
                    self.step(live, heard).await?
                }
                Happening::Due if timer.is_some_and(|timer| timer <= self.engine.clock.now()) => {
                    self.tick(live, timer).await?
                }
                // The time of a child that is to be tried again.
                Happening::Due | Happening::Changed => live,
                Happening::ChildEnded((activation, attempt), ended) => {
                    let used = (ended.usage != Usage::default()).then_some(Stimulus::Used {
                        activation,
                        attempt,
                        usage: ended.usage,
                    });
                    let returned = Stimulus::CallReturned {
                        activation,
                        attempt,
                        result: ended.result,
                    };
                    self.step(live, used.into_iter().chain([returned]).collect())
                        .await?
                }
                Happening::Ended(key, outcome) => {
                    let mut stimuli = returned(key, outcome);
                    while let Some((key, outcome)) = self.calls.try_ended() {
                        stimuli.extend(returned(key, outcome));
                    }
                    self.step(live, stimuli).await?
                }
            };
        }
    }

    /// Whether the limits of its groups let it, over all engines.
    async fn may_be_under_way(&mut self, live: &Live) -> Result<bool, store::Error> {
        match self.engine.placement.replicas() {
            Some(replicas) if !live.summary.claim.limits.is_empty() => {
                replicas.join_groups(&*self.engine.store, &live.summary).await
            }
            _ => Ok(true),
        }
    }

    /// Whether it goes on elsewhere. While a run waits for a store that is slow to answer, this engine may have given its
    /// partition up and have forgotten under which lease calls of it were made.
    fn is_given_up(&self) -> bool {
        self.job.mailbox.is_closed()
    }

    /// Since when the run waits for its slot, if that is long enough to matter.
    fn waited_in_line(&self) -> Option<Timestamp> {
        let since = self.job.due_since?;
        let waited = Duration::try_from(self.engine.clock.now().duration_since(since)).ok()?;
        (waited >= QUEUED).then_some(since)
    }

    async fn load(&mut self) -> Result<Option<Live>, Broken> {
        let (store, definitions) = (&*self.engine.store, &self.engine.definitions);
        let live = match self.job.accepted.take() {
            Some(accepted) => Some(Live::begin(store, definitions, *accepted).await?),
            None => Live::load(store, definitions, &self.job.id).await?,
        };
        match live.map(|live| live.telling(self.engine.events.lifecycle())) {
            // Only a run that decides needs to know its secrets.
            Some(live) => {
                let live = live.traced(&self.engine.tracer);
                let places = Places::of(&self.engine.tracer, &live.summary);
                self.calls.are_of(&live.summary.name, places);
                Ok(Some(live.with_secrets(&self.engine.secrets).await))
            }
            None => Ok(None),
        }
    }

    /// Tells those who were called in an earlier life, and are waited for no more, that it is so.
    fn disown(&mut self, before: Vec<(Key, Call)>, live: &Live) {
        let wanted = self.wanted(live, &live.effects()).into_iter();
        let kept: HashSet<Key> = wanted.map(|(key, _)| key).collect();
        for (key, call) in before {
            if !kept.contains(&key) {
                self.calls.disown(Call { resent: true, ..call });
            }
        }
    }

    /// Makes the calls in flight, and what is listened for, those that the run wants; returns when its next timer is due.
    fn follow(&mut self, live: &Live) -> Option<Timestamp> {
        let effects = live.effects();
        let children = self.children_of(&effects);
        self.children.follow(&live.summary, children);
        let wanted = self.wanted(live, &effects);
        self.calls.follow(wanted);
        self.listening.follow(wishes(&effects));
        live.next_due()
    }

    /// The runs that the run wants to have started.
    fn children_of(&self, effects: &[Effect]) -> Vec<children::Wanted> {
        children::wanted(&self.engine, &self.job.id, effects)
    }

    /// The calls that the run wants.
    fn wanted(&self, live: &Live, effects: &[Effect]) -> Vec<(Key, Call)> {
        let now = self.engine.clock.now();
        let epoch = self.engine.placement.epoch(&self.job.id);
        let mut wanted = Vec::new();
        for effect in effects {
            match effect {
                Effect::Call {
                    activation,
                    attempt,
                    message_id,
                    step_key,
                    request,
                    deadline,
                    task,
                } if !request.is_delegated() => {
                    let key = (*activation, *attempt);
                    let call = Call {
                        request: Arc::clone(request),
                        task: Arc::clone(task),
                        message_id: *message_id,
                        step_key: *step_key,
                        epoch,
                        timeout: self.timeout(*deadline, now),
                        resent: self.inherited.contains(&key),
                        grant: live.grant(),
                        kept: live.kept(task, request),
                        behalf: live.summary.marks.behalf.clone(),
                    };
                    wanted.push((key, call));
                }
                Effect::Call { .. } | Effect::Listen { .. } | Effect::Timer { .. } => {}
            }
        }
        wanted
    }

    /// How long a call may take: no longer than calls may take at all, and little more than the run waits for it. The
    /// little more lets the run's own timer decide at a deadline of the document: it knows whose deadline it is.
    fn timeout(&self, deadline: Option<Timestamp>, now: Timestamp) -> Duration {
        let longest = self.engine.settings.call_timeout();
        deadline.map_or(longest, |deadline| {
            let left = Duration::try_from(deadline.duration_since(now)).unwrap_or(Duration::ZERO);
            left.saturating_add(DEADLINE_SLACK).min(longest)
        })
    }

    /// Waits for something to happen.
    async fn happening(&mut self, due: Option<Timestamp>) -> Happening {
        let clock = Arc::clone(&self.engine.clock);
        let timer = async move {
            match due {
                Some(due) => sleep_until(&*clock, due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = self.shutdown.requested() => Happening::Stop,
            // Whose mailbox is closed goes on elsewhere.
            command = self.job.mailbox.recv() => command.map_or(Happening::Stop, Happening::Command),
            (key, outcome) = self.calls.ended() => Happening::Ended(key, outcome),
            () = std::future::ready(()), if self.listening.has_heard() => Happening::Heard,
            news = self.children.news() => match news {
                Some((key, ended)) => Happening::ChildEnded(key, ended),
                None => Happening::Changed,
            },
            () = timer => Happening::Due,
        }
    }

    /// Lets the interpreter see that time has passed. One that does not move on at a timer it asked for would be
    /// asked for ever.
    async fn tick(&mut self, live: Live, due: Option<Timestamp>) -> Result<Live, Broken> {
        let length = live.summary.history_length;
        let live = self.step(live, vec![Stimulus::Tick]).await?;
        if live.summary.history_length == length && live.next_due() == due {
            return Err(Broken::Interpreter(
                "its timer is due and nothing comes of it".to_owned(),
            ));
        }
        Ok(live)
    }

    async fn obey(&mut self, live: Live, command: Command) -> Result<Live, Broken> {
        match command {
            // It has been looked at before anything else was waited for, and is again.
            Command::Look => Ok(live),
            Command::Describe { reply } => {
                let mut blockers = live.waiting(self.engine.clock.now());
                self.calls.explain(&mut blockers);
                // Whoever asked may have left.
                let _ = reply.send(blockers);
                Ok(live)
            }
            Command::Act { stimulus, reply } => match self.step(live, vec![*stimulus]).await {
                Ok(live) => {
                    let _ = reply.send(Ok(live.summary.clone()));
                    Ok(live)
                }
                Err(broken) => {
                    let (id, why) = (self.job.id.clone(), broken.to_string());
                    let _ = reply.send(Err(Error::SetAside { id, why }));
                    Err(broken)
                }
            },
        }
    }

    /// Decides on what happened, writes the decision and tells watchers.
    async fn step(&mut self, live: Live, stimuli: Vec<Stimulus>) -> Result<Live, Broken> {
        let fallback = stimuli.first().map(instead);
        match self.decide_and_write(live, stimuli).await {
            Err(Broken::Store(store::Error::TooLarge { bytes, limit })) => {
                let Some(fallback) = fallback else {
                    return Err(Broken::Interpreter("nothing happened".into()));
                };
                tracing::warn!(run = %self.job.id, bytes, limit, "a step is too large to be written");
                let live = self
                    .load()
                    .await?
                    .ok_or_else(|| Broken::Damaged("it is gone".to_owned()))?;
                self.decide_and_write(live, vec![fallback]).await
            }
            other => other,
        }
    }

    async fn decide_and_write(&mut self, mut live: Live, stimuli: Vec<Stimulus>) -> Result<Live, Broken> {
        for stimulus in stimuli {
            let (namespace, now) = (&live.summary.namespace, self.engine.clock.now());
            let exhausted = self.engine.budgets.exhausted(namespace, now, live.used());
            live.know_namespace(exhausted);
            let seed = self.engine.random.number();
            live = live.decide(stimulus, &self.engine.clock, seed).await?;
        }
        if live.has_unwritten() {
            live = live
                .ready_to_be_saved(self.engine.settings.snapshot_entries)
                .await;
            let clock = &self.engine.clock;
            let start = clock.monotonic();
            let told = live.has_untold();
            let (day, used) = live
                .write(&*self.engine.store, self.engine.settings.history_entries)
                .await?;
            self.engine.budgets.add(&live.summary.namespace, day, used);
            if told {
                self.engine.events.ring();
            }
            self.engine.meter.step(clock.monotonic().saturating_sub(start));
            if let Some(first) = live.take_cut() {
                forget_entries(&*self.engine.store, &self.job.id, first).await?;
            }
            let ended = live.summary.status.is_final();
            self.engine.feed.publish(&self.job.id, live.summary.reached());
            if ended {
                self.engine.meter.ended(&live.summary);
                if let Some(replicas) = self.engine.placement.replicas() {
                    replicas.leave_groups(&live.summary).await;
                }
                self.engine.tell_parent(&live.summary);
                self.engine.timetable.run_ended(&live.summary);
            }
        }
        Ok(live)
    }
}

/// Forgets the entries before this one. A crash in between leaves some for the next time, or for when the run is
/// forgotten: nobody asks for them.
async fn forget_entries(store: &dyn Store, id: &RunId, first: u64) -> Result<(), store::Error> {
    while store.forget_entries(id, first, FORGOTTEN_AT_ONCE).await? > 0 {}
    Ok(())
}

/// What the run wants to listen for.
fn wishes(effects: &[Effect]) -> Vec<Wish> {
    let wishes = effects.iter().filter_map(|effect| match effect {
        Effect::Listen {
            activation,
            from,
            one_at_a_time,
            interests,
        } => Some(Wish {
            activation: *activation,
            from: *from,
            one_at_a_time: *one_at_a_time,
            interests: Arc::clone(interests),
        }),
        Effect::Call { .. } | Effect::Timer { .. } => None,
    });
    wishes.collect()
}

/// Sleeps until the clock shows `due`.
pub(crate) async fn sleep_until(clock: &dyn Clock, due: Timestamp) {
    loop {
        let left = due.duration_since(clock.now());
        if !left.is_positive() {
            return;
        }
        let left = Duration::try_from(left).unwrap_or(LONGEST_SLEEP);
        tokio::time::sleep(left.min(LONGEST_SLEEP)).await;
    }
}

/// What a call cost, if its answer says so, and the answer.
fn returned(key: Key, outcome: Result<serde_json::Value, Failure>) -> Vec<Stimulus> {
    let (activation, attempt) = key;
    let usage = match &outcome {
        Ok(answer) => Usage::reported(answer),
        Err(failure) => failure.usage,
    };
    let used = usage.map(|usage| Stimulus::Used {
        activation,
        attempt,
        usage,
    });
    used.into_iter().chain([ended(key, outcome)]).collect()
}

fn ended((activation, attempt): Key, outcome: Result<serde_json::Value, Failure>) -> Stimulus {
    Stimulus::CallReturned {
        activation,
        attempt,
        result: outcome.map_err(problem),
    }
}

/// What is decided on instead, where the decision is too large to be written: the answer that was too much counts
/// as failed, and everything else ends the run.
fn instead(stimulus: &Stimulus) -> Stimulus {
    const REASON: &str = "a step of the run became too large to be written";
    match stimulus {
        Stimulus::CallReturned {
            activation, attempt, ..
        }
        | Stimulus::Used {
            activation, attempt, ..
        } => ended(
            (*activation, *attempt),
            Err(Failure::new(Kind::Runtime, 413, REASON)),
        ),
        _ => Stimulus::Terminate {
            by: String::new(),
            reason: REASON.to_owned(),
        },
    }
}

fn problem(failure: Failure) -> Problem {
    let kind = match failure.kind {
        Kind::Communication => Standard::Communication,
        Kind::Timeout => Standard::Timeout,
        Kind::Authentication => Standard::Authentication,
        Kind::Authorization => Standard::Authorization,
        Kind::Validation => Standard::Validation,
        Kind::Configuration => Standard::Configuration,
        Kind::Runtime => Standard::Runtime,
    };
    Problem::standard(kind, failure.detail).with_status(failure.status)
}
