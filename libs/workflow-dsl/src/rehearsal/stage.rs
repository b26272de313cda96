//! The world around a dry run: answers from the case, and a clock that jumps to what happens next.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use serde_json::Value;

use super::{Answer, Case, Reply, means};
use crate::cloud_event::CloudEvent;
use crate::document::Definition;
use crate::journal::Verdict;
use crate::request::Request;
use crate::run::{Effect, Run, Status, Stimulus};
use crate::secret::{Nonce, Secrets, Unmarking};

/// At most so many things happen to a run that is tried.
const MOST_HAPPENINGS: usize = 10_000;

/// At most so many events of it are kept.
const MOST_EVENTS: usize = 200_000;

/// A call that was made.
#[derive(Debug, Clone, PartialEq)]
pub struct Called {
    /// JSON pointer of the task.
    pub task: Arc<str>,
    /// What was asked, as the journal has it.
    pub request: Value,
}

/// A line of what happened.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    /// How long after the beginning.
    pub after: Duration,
    /// Type of the event.
    pub event: &'static str,
    /// JSON pointer of the task it is about.
    pub task: Option<Arc<str>>,
}

/// A run on the stage.
pub(super) struct Stage<'c> {
    case: &'c Case,
    pub(super) run: Run,
    /// Puts secrets where the run has their marks: in a test everyone may see them.
    pub(super) unmarking: Unmarking,
    now: Timestamp,
    random: StdRng,
    /// What is awaited: when it comes, and what it is.
    pending: BTreeMap<Key, (Timestamp, Reply)>,
    pub(super) calls: Vec<Called>,
    pub(super) lines: Vec<Line>,
    cancelled: bool,
    /// The approvals that have been decided, or are.
    decided: BTreeSet<u64>,
    /// How often each task has asked people.
    asked: Vec<(Arc<str>, u64)>,
    /// The events that have come; the first has position 1.
    log: Vec<Arc<CloudEvent>>,
    /// How many of the events from outside are among them.
    arrived: usize,
    /// Those from outside, by time.
    coming: Vec<(Timestamp, Arc<CloudEvent>)>,
    /// Up to where each task that listens has looked.
    looked: BTreeMap<u64, u64>,
}

/// A call: its activation and attempt.
type Key = (u64, u32);

/// What happens next.
enum Next {
    Time(Timestamp),
    Answer(Timestamp, Key),
    Decision(Timestamp, u64, Verdict),
    Cancel(Timestamp),
    /// An event comes from outside.
    Arrives(Timestamp),
    /// A task hears an event: its activation, and the position.
    Hears(Timestamp, u64, u64),
}

impl<'c> Stage<'c> {
    pub(super) fn new(definition: &Arc<Definition>, case: &'c Case) -> Self {
        let nonce = Nonce::fresh();
        let run = Run::new("rehearsal", Arc::clone(definition));
        // Where the case gives none, those that the document lists are taken to be some text.
        let run = match case.secrets.is_empty() {
            true => run,
            false => run.with_secrets(Secrets::new(nonce.clone(), Ok(&case.secrets))),
        };
        let mut coming: Vec<(Timestamp, Arc<CloudEvent>)> = case
            .events
            .iter()
            .map(|arrival| (later(case.start, arrival.after), Arc::new(arrival.event.clone())))
            .collect();
        coming.sort_by_key(|(time, _)| *time);
        Self {
            case,
            run,
            unmarking: Unmarking::new(&nonce, &case.secrets),
            now: case.start,
            // The same for every case: what is random comes out the same each time.
            random: StdRng::seed_from_u64(0),
            pending: BTreeMap::new(),
            calls: Vec::new(),
            lines: Vec::new(),
            cancelled: false,
            decided: BTreeSet::new(),
            asked: Vec::new(),
            log: Vec::new(),
            arrived: 0,
            coming,
            looked: BTreeMap::new(),
        }
    }

    /// Plays to the end of the run, or to where nothing more happens.
    ///
    /// # Errors
    /// Why the case cannot be played.
    pub(super) fn play(&mut self) -> Result<(), String> {
        self.decide(Stimulus::Start {
            input: self.case.input.clone(),
        })?;
        for _ in 0..MOST_HAPPENINGS {
            let Some(next) = self.next()? else { return Ok(()) };
            let (time, stimulus) = match next {
                Next::Time(due) => (due, Stimulus::Tick),
                Next::Arrives(due) => {
                    self.now = self.now.max(due);
                    let event = self.coming.get(self.arrived).map(|(_, event)| Arc::clone(event));
                    self.log.extend(event);
                    self.arrived += 1;
                    continue;
                }
                Next::Hears(due, activation, position) => {
                    self.looked.insert(activation, position);
                    let index = usize::try_from(position).unwrap_or(usize::MAX).saturating_sub(1);
                    let Some(event) = self.log.get(index).map(Arc::clone) else {
                        continue;
                    };
                    (
                        due,
                        Stimulus::Event {
                            activation,
                            position,
                            event,
                        },
                    )
                }
                Next::Cancel(due) => {
                    self.cancelled = true;
                    let reason = "the case cancels it".to_owned();
                    (
                        due,
                        Stimulus::Cancel {
                            by: String::new(),
                            reason,
                        },
                    )
                }
                Next::Decision(due, approval, verdict) => {
                    self.decided.insert(approval);
                    (due, Stimulus::Decide { approval, verdict })
                }
                Next::Answer(due, key) => {
                    let result = match self.pending.remove(&key) {
                        Some((_, Reply::Output(value))) => Ok(value),
                        Some((_, Reply::Failure(problem))) => Err(problem),
                        Some((_, Reply::Silence)) | None => continue,
                    };
                    let (activation, attempt) = key;
                    (
                        due,
                        Stimulus::CallReturned {
                            activation,
                            attempt,
                            result,
                        },
                    )
                }
            };
            self.now = self.now.max(time);
            self.decide(stimulus)?;
        }
        Err(format!(
            "it does not end: {MOST_HAPPENINGS} timers and answers were not enough"
        ))
    }

    /// How long it has taken.
    pub(super) fn took(&self) -> Duration {
        self.now
            .duration_since(self.case.start)
            .try_into()
            .unwrap_or_default()
    }

    fn decide(&mut self, stimulus: Stimulus) -> Result<(), String> {
        let events = self.run.decide(stimulus, self.now, &mut self.random);
        let events = events.map_err(|error| error.to_string())?;
        let after = self.took();
        self.lines.extend(events.iter().map(|event| Line {
            after,
            event: event.name(),
            task: event.task().map(Arc::from),
        }));
        if self.lines.len() > MOST_EVENTS {
            return Err(format!("it does not end: more than {MOST_EVENTS} events"));
        }
        Ok(())
    }

    fn next(&mut self) -> Result<Option<Next>, String> {
        let effects = self.run.effects();
        let wanted: BTreeSet<Key> = effects.iter().filter_map(key).collect();
        self.pending.retain(|key, _| wanted.contains(key));
        let mut next: Option<Next> = None;
        for effect in &effects {
            match effect {
                Effect::Timer { due } => next = sooner(next, Next::Time(*due)),
                Effect::Call {
                    task, request: made, ..
                } => {
                    if let Some(key) = key(effect).filter(|key| !self.pending.contains_key(key)) {
                        let request = serde_json::to_value(&**made).map_err(|error| error.to_string())?;
                        let made = &**made;
                        self.call(key, task, made, self.unmarking.value(&request))?;
                    }
                }
                Effect::Listen { .. } => {
                    if let Some((due, _)) = self.coming.get(self.arrived) {
                        next = sooner(next, Next::Arrives(*due));
                    }
                    if let Some((activation, position)) = self.heard(effect) {
                        next = sooner(next, Next::Hears(self.now, activation, position));
                    }
                }
            }
        }
        for (key, (due, reply)) in &self.pending {
            if *reply != Reply::Silence {
                next = sooner(next, Next::Answer(*due, *key));
            }
        }
        for (due, number, verdict) in self.decisions() {
            next = sooner(next, Next::Decision(due, number, verdict));
        }
        let ended = self.run.status() != Status::Running;
        if let Some(after) = self.case.cancel.filter(|_| !self.cancelled && !ended) {
            next = sooner(next, Next::Cancel(later(self.case.start, after)));
        }
        Ok(next)
    }

    /// What the case decides of the approvals that are open.
    fn decisions(&mut self) -> Vec<(Timestamp, u64, Verdict)> {
        let open: Vec<(u64, Arc<str>, Timestamp)> = self
            .run
            .approvals()
            .map(|approval| (approval.number, Arc::clone(&approval.task), approval.opened))
            .filter(|(number, ..)| !self.decided.contains(number))
            .collect();
        let mut decisions = Vec::new();
        for (number, task, opened) in open {
            if !self.asked.iter().any(|(_, known)| *known == number) {
                self.asked.push((Arc::clone(&task), number));
            }
            let same = self.asked.iter().filter(|(asked, _)| *asked == task);
            let turn = same.take_while(|(_, known)| *known != number).count();
            let given = self
                .case
                .decisions
                .iter()
                .find(|(reference, _)| means(reference, &task));
            if let Some(decision) = given.and_then(|(_, given)| given.get(turn).or(given.last())) {
                decisions.push((later(opened, decision.after), number, decision.verdict.clone()));
            }
        }
        decisions
    }

    /// The next event that may concern a task that listens.
    fn heard(&self, effect: &Effect) -> Option<(u64, u64)> {
        let Effect::Listen {
            activation,
            from,
            interests,
            ..
        } = effect
        else {
            return None;
        };
        let looked = self.looked.get(activation).map_or(0, |looked| looked + 1);
        let mut log = (1_u64..).zip(&self.log);
        let (position, _) = log.find(|(position, event)| {
            *position >= looked.max(*from)
                && interests.iter().any(|interest| interest.admits(event, self.now))
        })?;
        Some((*activation, position))
    }

    fn call(&mut self, key: Key, task: &Arc<str>, made: &Request, request: Value) -> Result<(), String> {
        let emitted = match made {
            Request::Emit(emit) => Some(Arc::new(emit.event.clone())),
            _ => None,
        };
        let made = self.calls.iter().filter(|call| call.task == *task).count();
        let answers = self
            .case
            .answers
            .iter()
            .find(|(reference, _)| means(reference, task));
        let answer = answers.and_then(|(_, answers)| answers.get(made).or(answers.last()));
        if let (Some(event), None) = (&emitted, answer) {
            // What is emitted needs no answer: the log takes it.
            let output = Reply::Output(event.to_value());
            self.log.push(Arc::clone(event));
            self.calls.push(Called {
                task: Arc::clone(task),
                request,
            });
            self.pending.insert(key, (self.now, output));
            return Ok(());
        }
        let Some(Answer { after, reply }) = answer else {
            return Err(format!(
                "{task} makes a call that has no answer; add it to 'answers', or let the case end before: {request}"
            ));
        };
        self.calls.push(Called {
            task: Arc::clone(task),
            request,
        });
        self.pending.insert(key, (later(self.now, *after), reply.clone()));
        Ok(())
    }
}

/// What comes first; time before an answer at the same instant, as a call that is answered at its deadline is too late.
fn sooner(one: Option<Next>, other: Next) -> Option<Next> {
    let rank = |next: &Next| match next {
        Next::Time(due) => (*due, 0),
        Next::Cancel(due) => (*due, 1),
        Next::Decision(due, ..) => (*due, 2),
        Next::Arrives(due) => (*due, 2),
        Next::Answer(due, _) | Next::Hears(due, ..) => (*due, 3),
    };
    match one {
        Some(one) if rank(&one) <= rank(&other) => Some(one),
        _ => Some(other),
    }
}

fn later(time: Timestamp, duration: Duration) -> Timestamp {
    let later = SignedDuration::try_from(duration).ok();
    later
        .and_then(|duration| time.checked_add(duration).ok())
        .unwrap_or(Timestamp::MAX)
}

fn key(effect: &Effect) -> Option<Key> {
    match effect {
        Effect::Call {
            activation, attempt, ..
        } => Some((*activation, *attempt)),
        Effect::Listen { .. } | Effect::Timer { .. } => None,
    }
}
