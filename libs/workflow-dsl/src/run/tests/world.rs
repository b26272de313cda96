//! A world for runs: agents that answer as they are told, a clock that jumps to the next thing that happens.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use rand::SeedableRng;
use rand::rngs::StdRng;
use serde_json::Value;
use uuid::Uuid;

use crate::cloud_event::CloudEvent;
use crate::document::Definition;
use crate::journal::{Event, Problem, Standard, Verdict};
use crate::request::Request;
use crate::run::{Approval, Effect, Run, Status, Stimulus};
use crate::usage::Usage;

/// How an agent reacts to a call.
#[derive(Debug, Clone)]
pub(super) enum Reply {
    /// After so many milliseconds.
    Answer(Value, i64),
    /// After so many milliseconds.
    Failure(Problem, i64),
    Silence,
}

/// A call as an agent sees it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Called {
    pub(super) agent: String,
    pub(super) attempt: u32,
    pub(super) message_id: Uuid,
    pub(super) step_key: Uuid,
    /// The first part's data, or the whole request.
    pub(super) data: Value,
}

type Agents = Box<dyn FnMut(&Called) -> Reply>;

/// What people say, and after how many milliseconds; nothing if they are silent.
type People = Box<dyn FnMut(&Approval) -> Option<(bool, i64)>>;

pub(super) struct World {
    pub(super) run: Run,
    pub(super) now: Timestamp,
    pub(super) journal: Vec<Event>,
    pub(super) calls: Vec<Called>,
    agents: Agents,
    people: People,
    random: StdRng,
    /// What agents will answer, and when.
    pending: BTreeMap<(u64, u32), (Timestamp, Reply)>,
    /// The log of events, and when each came. The first has position 1.
    pub(super) log: Vec<(Timestamp, Arc<CloudEvent>)>,
    /// Up to where each listening task has looked.
    looked: BTreeMap<u64, u64>,
}

pub(super) fn definition(tasks: &str) -> Arc<Definition> {
    let text = if tasks.contains("document: {dsl") {
        tasks.to_owned()
    } else {
        format!(
            "document: {{dsl: '1.0.0', namespace: test, name: test, version: '1.0.0'}}\n{}",
            unindented(tasks)
        )
    };
    Arc::new(crate::parse(&text).unwrap_or_else(|problems| panic!("{problems}\n{text}")))
}

/// Text without the indentation that its first line has.
fn unindented(text: &str) -> String {
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let indentation = lines
        .first()
        .map_or(0, |line| line.len() - line.trim_start().len());
    lines
        .iter()
        .map(|line| format!("{}\n", line.get(indentation..).unwrap_or_default()))
        .collect()
}

pub(super) fn problem_of(kind: Standard) -> Problem {
    Problem::standard(kind, "as told")
}

impl World {
    /// A world in which every agent answers at once with what it was sent.
    pub(super) fn new(tasks: &str) -> Self {
        Self::of(definition(tasks), |called| Reply::Answer(called.data.clone(), 0))
    }

    pub(super) fn of(definition: Arc<Definition>, agents: impl FnMut(&Called) -> Reply + 'static) -> Self {
        Self {
            run: Run::new("run-1", definition),
            now: "2026-03-01T12:00:00Z".parse().unwrap(),
            journal: Vec::new(),
            calls: Vec::new(),
            agents: Box::new(agents),
            people: Box::new(|_| None),
            random: StdRng::seed_from_u64(1),
            pending: BTreeMap::new(),
            log: Vec::new(),
            looked: BTreeMap::new(),
        }
    }

    /// With people who decide.
    pub(super) fn asking(mut self, people: impl FnMut(&Approval) -> Option<(bool, i64)> + 'static) -> Self {
        self.people = Box::new(people);
        self
    }

    pub(super) fn with_agents(tasks: &str, agents: impl FnMut(&Called) -> Reply + 'static) -> Self {
        Self::of(definition(tasks), agents)
    }

    /// Runs to the end, or until nothing more happens.
    pub(super) fn run(mut self, input: Value) -> Self {
        self.decide(Stimulus::Start { input });
        self.go_on();
        self
    }

    pub(super) fn decide(&mut self, stimulus: Stimulus) -> Vec<Event> {
        let events = self.run.decide(stimulus, self.now, &mut self.random).unwrap();
        self.journal.extend(events.iter().cloned());
        events
    }

    pub(super) fn go_on(&mut self) {
        for _ in 0..5_000 {
            if !self.step() {
                return;
            }
        }
        panic!("the run does not end: {:?}", self.run.activity(self.now));
    }

    /// Lets the next thing happen; `false` if there is none.
    pub(super) fn step(&mut self) -> bool {
        let effects = self.run.effects();
        assert!(
            self.run.status() != Status::Running || !effects.is_empty() || self.run.waits_outside(),
            "a run in progress waits for something"
        );
        let wanted: BTreeSet<_> = effects.iter().filter_map(key).collect();
        self.pending.retain(|key, _| wanted.contains(key));
        for effect in &effects {
            self.begin(effect);
        }
        let timer = effects.iter().find_map(|effect| match effect {
            Effect::Timer { due } => Some(*due),
            Effect::Call { .. } | Effect::Listen { .. } => None,
        });
        let heard = self.next_event(&effects);
        let answers = self
            .pending
            .iter()
            .filter(|(_, (_, reply))| !matches!(reply, Reply::Silence));
        let answer = answers
            .min_by_key(|(key, (due, _))| (*due, **key))
            .map(|(key, (due, _))| (*due, *key));
        let decision = self.next_decision();
        let next = timer.into_iter().chain(answer.map(|(due, _)| due)).min();
        if let Some((due, activation, position)) = heard
            && timer.is_none_or(|timer| due < timer)
            && answer.is_none_or(|(answered, _)| due <= answered)
            && decision.is_none_or(|(decided, ..)| due < decided)
        {
            self.now = self.now.max(due);
            self.looked.insert(activation, position);
            let index = usize::try_from(position - 1).unwrap();
            let event = Arc::clone(&self.log[index].1);
            self.decide(Stimulus::Event {
                activation,
                position,
                event,
            });
            return true;
        }
        if let Some((due, number, approved)) = decision
            && next.is_none_or(|next| due < next)
        {
            self.now = self.now.max(due);
            self.say(number, approved);
            return true;
        }
        match (timer, answer) {
            (None, None) => return false,
            (Some(due), answer) if answer.is_none_or(|(answered, _)| due <= answered) => {
                self.now = self.now.max(due);
                self.decide(Stimulus::Tick);
            }
            (_, Some((due, key))) => {
                self.now = self.now.max(due);
                let Some((_, reply)) = self.pending.remove(&key) else {
                    return false;
                };
                let result = match reply {
                    Reply::Answer(value, _) => Ok(value),
                    Reply::Failure(problem, _) => Err(problem),
                    Reply::Silence => return false,
                };
                if let Some(usage) = result.as_ref().ok().and_then(Usage::reported) {
                    self.decide(Stimulus::Used {
                        activation: key.0,
                        attempt: key.1,
                        usage,
                    });
                }
                self.decide(Stimulus::CallReturned {
                    activation: key.0,
                    attempt: key.1,
                    result,
                });
            }
            (Some(_), None) => return false,
        }
        true
    }

    fn next_decision(&mut self) -> Option<(Timestamp, u64, bool)> {
        let Self { run, people, .. } = self;
        let decisions = run.approvals().filter_map(|approval| {
            let (approved, delay) = people(approval)?;
            let due = approval.opened + SignedDuration::from_millis(delay);
            Some((due, approval.number, approved))
        });
        decisions.min()
    }

    /// Somebody decides.
    pub(super) fn say(&mut self, approval: u64, approved: bool) -> Vec<Event> {
        self.decide(Stimulus::Decide {
            approval,
            verdict: Verdict {
                approved,
                by: "ada".to_owned(),
                comment: String::new(),
                raise: None,
            },
        })
    }

    /// Forgets what agents were going to answer: nobody waits for it any more.
    pub(super) fn forget_calls(&mut self) {
        self.pending.clear();
    }

    /// The next event that a task hears: when, which task, and its position.
    fn next_event(&self, effects: &[Effect]) -> Option<(Timestamp, u64, u64)> {
        let listens = effects.iter().filter_map(|effect| {
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
            let log = (1..).zip(&self.log);
            let (position, (time, _)) = log
                .skip_while(|(position, _)| *position < looked.max(*from))
                .find(|(_, (_, event))| interests.iter().any(|interest| interest.admits(event, self.now)))?;
            Some(((*time).max(self.now), *activation, position))
        });
        listens.min()
    }

    /// An event comes, so many milliseconds from now.
    pub(super) fn publish(mut self, kind: &str, data: Value, after: i64) -> Self {
        let id = self.log.len().to_string();
        let event = serde_json::json!({"specversion": "1.0", "id": id, "source": "/tests", "type": kind, "data": data});
        let event = CloudEvent::check(event).unwrap();
        let time = self.now + SignedDuration::from_millis(after);
        self.log.push((time, Arc::new(event)));
        self
    }

    fn begin(&mut self, effect: &Effect) {
        let Effect::Call {
            activation,
            attempt,
            message_id,
            step_key,
            request,
            ..
        } = effect
        else {
            return;
        };
        if self.pending.contains_key(&(*activation, *attempt)) {
            return;
        }
        let parameters = match &**request {
            Request::A2a(call) => Value::clone(&call.parameters),
            // The log takes it at once, and once.
            Request::Emit(emit) => {
                if !self.log.iter().any(|(_, event)| event.id() == emit.event.id()) {
                    self.log.push((self.now, Arc::new(emit.event.clone())));
                }
                let reply = Reply::Answer(emit.event.to_value(), 0);
                self.pending.insert((*activation, *attempt), (self.now, reply));
                return;
            }
            Request::Workflow(child) => Value::clone(&child.input),
            other => serde_json::to_value(other).unwrap(),
        };
        let called = Called {
            agent: request.target(),
            attempt: *attempt,
            message_id: *message_id,
            step_key: *step_key,
            data: parameters
                .pointer("/message/parts/0/data")
                .unwrap_or(&parameters)
                .clone(),
        };
        let reply = (self.agents)(&called);
        self.calls.push(called);
        let delay = match &reply {
            Reply::Answer(_, delay) | Reply::Failure(_, delay) => *delay,
            Reply::Silence => 0,
        };
        let due = self.now + SignedDuration::from_millis(delay);
        self.pending.insert((*activation, *attempt), (due, reply));
    }

    #[track_caller]
    pub(super) fn yields(&self, expected: Value) {
        assert_eq!(self.run.error(), None);
        assert_eq!(
            self.run.status(),
            Status::Completed,
            "{:?}",
            self.run.activity(self.now)
        );
        assert_eq!(self.run.output(), Some(&expected));
    }

    #[track_caller]
    pub(super) fn faults(&self, kind: Standard, detail: &str) -> &Problem {
        assert_eq!(self.run.status(), Status::Faulted, "{:?}", self.run.output());
        let error = self.run.error().unwrap();
        assert_eq!(error.kind, kind.uri(), "{error}");
        assert!(
            error.detail.as_deref().unwrap_or_default().contains(detail),
            "{error}"
        );
        error
    }

    /// Types of events with the last part of their tasks' pointers, such as `task.started a`.
    pub(super) fn story(&self) -> Vec<String> {
        let name = |event: &Event| match event.task() {
            Some(task) => format!("{} {}", event.name(), task.rsplit('/').next().unwrap_or_default()),
            None => event.name().to_owned(),
        };
        self.journal.iter().map(name).collect()
    }

    pub(super) fn count(&self, line: &str) -> usize {
        self.story().iter().filter(|told| *told == line).count()
    }

    /// Seconds since the run began.
    pub(super) fn elapsed(&self) -> f64 {
        self.now.duration_since(self.journal[0].time).as_secs_f64()
    }
}

pub(super) fn key(effect: &Effect) -> Option<(u64, u32)> {
    match effect {
        Effect::Call {
            activation, attempt, ..
        } => Some((*activation, *attempt)),
        Effect::Listen { .. } | Effect::Timer { .. } => None,
    }
}
