//! Workflows that events start: `schedule.on` of the newest version of each name in the catalogue.
//!
//! Each has a place in the log of events of its own, kept in the store together with the events that it has collected so far. An
//! event that completes what is waited for starts a run whose id follows from the workflow's name and the event's position;
//! only then is the place moved on. So an event starts its run once, whatever happens in between. The input of the run is the
//! list of its events, and it hears itself those that come after them. While runs are refused because too many wait, the place
//! stays where it is.
//!
//! With correlations, several sets of events are collected at once: an event goes to the oldest set that it fits, else it begins
//! a new one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use muster_runtime::trace::{self, Context, FutureExt as _, TraceContextExt as _};
use muster_workflow_dsl::Definition;
use muster_workflow_dsl::cloud_event::CloudEvent;
use muster_workflow_dsl::document::{Consume, Strategy, Until};
use muster_workflow_dsl::expression::{Expression, Variables};
use muster_workflow_dsl::hearing::{Correlations, Hearing};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::Notify;
use uuid::Uuid;

use crate::catalogue::Reference;
use crate::engine::{Engine, Source, StartRun};
use crate::error::Error;
use crate::off_thread::off_thread;
use crate::peers::NotStarted;
use crate::replicas::Owner;
use crate::run::RunId;
use crate::store::events::{Logged, StarterState};
use crate::store::{self, Page, Workflow, WorkflowKey};

/// Sets of events that are collected at once for one workflow; one more, and the oldest is given up.
const MOST_SETS: usize = 100;

/// Events in one set; one more, and the set is given up.
const MOST_TOGETHER: usize = 1_000;

/// What is collected for one workflow, as JSON in bytes; more, and the oldest sets are given up.
const MOST_BYTES: usize = 4 << 20;

/// Events read at once.
const PORTION: usize = 100;

/// Documents read at once after a start.
const DOCUMENTS: usize = 100;

/// How far the log may go on before that is kept, where nothing else is to be kept.
const LAZINESS: u64 = 1_000;

/// How long to wait when runs are refused or the store is.
const PAUSE: Duration = Duration::from_secs(1);

/// Namespace of the ids of runs that are started here.
const NAMESPACE: Uuid = Uuid::from_u128(0x3d0c_94a1_6f0e_4f57_9b63_2a1d_58e7_c40b);

/// See the module.
#[derive(Default)]
pub(crate) struct Starters {
    known: Mutex<BTreeMap<String, Arc<Starter>>>,
    changed: Notify,
}

impl Starters {
    /// Forgets all others.
    pub(crate) fn keep_those(&self, is_here: impl Fn(&str, &str) -> bool) {
        let mut known = self.known.lock();
        known.retain(|_, starter| is_here(&starter.reference.namespace, &starter.reference.name));
    }
}

/// A workflow that events start.
struct Starter {
    name: String,
    reference: Reference,
    definition: Arc<Definition>,
    /// Where it is, once that has been read.
    state: tokio::sync::Mutex<Option<StarterState>>,
}

/// A set of events that is not complete.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Set {
    hearing: Hearing,
    events: Vec<CloudEvent>,
}

/// What came of a look at the log.
#[derive(Debug, PartialEq, Eq)]
enum Look {
    /// All of it has been seen.
    End,
    /// There may be more.
    More,
    /// A run was refused for now.
    Refused,
}

impl Engine {
    /// A document has been applied, when the log of events ended at `position`: events from then on count for it.
    ///
    /// # Errors
    /// The store refuses.
    pub(crate) async fn watch_for_starts(&self, workflow: &Workflow, position: u64) -> Result<(), Error> {
        let WorkflowKey { namespace, name, .. } = &workflow.key;
        let Some(newest) = self.store.newest_workflow(namespace, name).await? else {
            return Ok(());
        };
        let starter = self.starter(&newest).await?;
        let full = full_name(&newest.key);
        match starter {
            None => {
                if self.starters.known.lock().remove(&full).is_some() {
                    self.store.keep_starter(&full, None).await?;
                }
            }
            Some(starter) => {
                if self.store.starter(&full).await?.is_none() {
                    let state = StarterState {
                        next: position,
                        memory: Value::Null,
                    };
                    self.store.keep_starter(&full, Some(&state)).await?;
                }
                self.starters.known.lock().insert(full, Arc::new(starter));
            }
        }
        self.starters.changed.notify_one();
        Ok(())
    }

    /// The workflow as one that events start, if it is.
    async fn starter(&self, workflow: &Workflow) -> Result<Option<Starter>, Error> {
        let Some(document) = self.store.document(&workflow.key).await? else {
            return Ok(None);
        };
        let definition = self
            .definitions
            .get(&document)
            .await
            .map_err(Error::InvalidWorkflow)?;
        if definition.workflow.starts_on.is_none() {
            return Ok(None);
        }
        let WorkflowKey {
            namespace,
            name,
            version,
        } = workflow.key.clone();
        Ok(Some(Starter {
            name: full_name(&workflow.key),
            reference: Reference {
                namespace,
                name,
                version,
            },
            definition,
            state: tokio::sync::Mutex::default(),
        }))
    }

    /// Finds the workflows of the catalogue that events start, as far as they are worked on here.
    pub(crate) async fn find_starters(&self) -> Result<(), Error> {
        let mut after: Option<WorkflowKey> = None;
        let mut newest: BTreeMap<String, Workflow> = BTreeMap::new();
        loop {
            let Page { entries, next } = self.store.workflows(after.as_ref(), DOCUMENTS).await?;
            // By version, so that the last one of each name counts.
            let here = entries.into_iter().filter(|workflow| {
                self.placement
                    .is_name_here(&workflow.key.namespace, &workflow.key.name)
            });
            newest.extend(here.map(|workflow| (full_name(&workflow.key), workflow)));
            after = next;
            if after.is_none() {
                break;
            }
        }
        for (name, workflow) in newest {
            match self.starter(&workflow).await {
                Ok(Some(starter)) => {
                    let mut known = self.starters.known.lock();
                    // One that is known has read on.
                    if known
                        .get(&name)
                        .is_none_or(|known| known.reference != starter.reference)
                    {
                        known.insert(name, Arc::new(starter));
                    }
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::error!(workflow = name, %error, "events do not start it: its document is refused")
                }
            }
        }
        self.starters.changed.notify_one();
        Ok(())
    }

    /// Starts runs on events until the service stops.
    pub(crate) async fn keep_starting(self: Arc<Self>) {
        // Engines that share a store find those that are theirs with the partitions.
        while self.placement.replicas().is_none()
            && let Err(error) = self.find_starters().await
        {
            tracing::warn!(%error, "the catalogue cannot be read; events start nothing yet");
            if self.rest().await {
                return;
            }
        }
        let mut news = self.events.news();
        while !self.shutdown.is_requested() {
            news.catch_up();
            let is_here = |starter: &&Arc<Starter>| {
                let Reference { namespace, name, .. } = &starter.reference;
                self.placement.is_name_here(namespace, name)
            };
            let known: Vec<Arc<Starter>> = self
                .starters
                .known
                .lock()
                .values()
                .filter(is_here)
                .cloned()
                .collect();
            let (mut more, mut refused) = (false, false);
            for starter in known {
                match self.look(&starter).await {
                    Ok(Look::End) => {}
                    Ok(Look::More) => more = true,
                    Ok(Look::Refused) => refused = true,
                    Err(error) => {
                        refused = true;
                        tracing::warn!(workflow = starter.name, %error, "events cannot start it now");
                    }
                }
            }
            if more {
                continue;
            }
            if refused {
                self.rest().await;
                continue;
            }
            tokio::select! {
                biased;
                () = self.shutdown.requested() => {}
                () = news.changed() => {}
                () = self.starters.changed.notified() => {}
            }
        }
    }

    /// Waits a little; whether the service stops.
    async fn rest(&self) -> bool {
        tokio::select! {
            biased;
            () = self.shutdown.requested() => true,
            () = tokio::time::sleep(PAUSE) => false,
        }
    }

    /// Lets a workflow see a portion of the log.
    async fn look(self: &Arc<Self>, starter: &Arc<Starter>) -> Result<Look, store::Error> {
        let Some(strategy) = &starter.definition.workflow.starts_on else {
            return Ok(Look::End);
        };
        let mut held = starter.state.lock().await;
        let mut state = match held.take() {
            Some(state) => state,
            None => match self.store.starter(&starter.name).await? {
                Some(state) => state,
                // It was applied by an engine that did not get to keep its place.
                None => StarterState {
                    next: self.events.next_position().await?,
                    memory: Value::Null,
                },
            },
        };
        let kept = state.next;
        let kinds = kinds(strategy);
        let Page { entries, next } = self.store.events(state.next, kinds.as_deref(), PORTION).await?;
        let more = entries.len() == PORTION;
        let mut changed = false;
        for logged in entries {
            let position = logged.position;
            let Collected {
                memory,
                complete,
                took,
            } = self.collect(starter, &state, logged).await;
            if let Some(events) = complete
                && !self.start_on(starter, position, events).await
            {
                *held = Some(state);
                return Ok(Look::Refused);
            }
            state.next = position.saturating_add(1);
            if took {
                state.memory = memory;
                self.store.keep_starter(&starter.name, Some(&state)).await?;
                changed = true;
            }
        }
        state.next = next.unwrap_or(state.next).max(state.next);
        if !changed && state.next.saturating_sub(kept) >= LAZINESS {
            self.store.keep_starter(&starter.name, Some(&state)).await?;
        }
        *held = Some(state);
        Ok(if more { Look::More } else { Look::End })
    }

    /// What is collected with one more event; off the async threads, because filters are evaluated.
    async fn collect(&self, starter: &Arc<Starter>, state: &StarterState, logged: Logged) -> Collected {
        let (starter, memory, now) = (Arc::clone(starter), state.memory.clone(), self.clock.now());
        off_thread(move || {
            let sets: Vec<Set> = serde_json::from_value(memory).unwrap_or_default();
            collect(&starter, sets, logged.event, now)
        })
        .await
    }

    /// Starts the run; whether that is settled, one way or the other.
    async fn start_on(self: &Arc<Self>, starter: &Starter, position: u64, events: Vec<CloudEvent>) -> bool {
        let id = Uuid::new_v5(&NAMESPACE, format!("{}\n{position}", starter.name).as_bytes());
        let Ok(id) = id.to_string().parse::<RunId>() else {
            return true;
        };
        // In the trace of the event that came last.
        let text = |name| events.last().map(|event| event.text(name)).unwrap_or_default();
        let told = trace::parsed(
            text(trace::TRACEPARENT),
            Some(text(trace::TRACESTATE)).filter(|text| !text.is_empty()),
        );
        let within = if self.tracer.is_on() {
            Context::new().with_remote_span_context(told)
        } else {
            Context::new()
        };
        let wish = StartRun {
            id: Some(id.clone()),
            source: Source::Catalogue(starter.reference.clone()),
            input: events.into_iter().map(Value::from).collect(),
            priority: None,
            labels: BTreeMap::new(),
            hears_from: Some(position.saturating_add(1)),
            origin: None,
            caller: None,
        };
        let wish = self.for_applier(wish).await;
        let started = match self.placement.owner(&id).await {
            Ok(Owner::Here) => self.start(wish).with_context(within).await.map(|_| ()),
            Ok(Owner::Peer(address)) => {
                let started = self.start_at(&address, starter, position, wish);
                return started.with_context(within).await;
            }
            Ok(Owner::Nobody { partition }) => Err(Error::NotOwner { partition }),
            Err(error) => Err(error),
        };
        match started {
            Ok(()) => true,
            // It was started before, by an earlier version.
            Err(Error::RunExists { .. }) => true,
            Err(
                error @ (Error::TooManyRuns(_)
                | Error::Store(_)
                | Error::NotOwner { .. }
                | Error::ShuttingDown),
            ) => {
                tracing::info!(workflow = starter.name, position, %error, "a run on an event is refused for now");
                false
            }
            Err(error) => {
                tracing::error!(workflow = starter.name, position, %error, "no run comes of an event");
                true
            }
        }
    }
}

impl Engine {
    /// Has another engine start the run, whose partition it works on; whether that is settled.
    async fn start_at(&self, address: &str, starter: &Starter, position: u64, wish: StartRun) -> bool {
        let Some(replicas) = self.placement.replicas() else {
            return false;
        };
        match replicas.peers.start(address, wish).await {
            Ok(()) => true,
            Err(NotStarted { is_final: true, what }) => {
                tracing::error!(workflow = starter.name, position, %what, "no run comes of an event");
                true
            }
            Err(NotStarted { what, .. }) => {
                tracing::info!(workflow = starter.name, position, %what, "a run on an event is refused for now");
                false
            }
        }
    }
}

fn full_name(key: &WorkflowKey) -> String {
    format!("{}/{}", key.namespace, key.name)
}

/// The types that a strategy names; none if any may concern it.
fn kinds(strategy: &Strategy) -> Option<Vec<String>> {
    let interests = Hearing::new(strategy, Correlations::new()).interests(strategy);
    let kinds = interests
        .iter()
        .map(|interest| interest.kind().map(str::to_owned));
    kinds.collect()
}

/// What became of an event.
struct Collected {
    /// What is collected now.
    memory: Value,
    /// The events that are complete with it.
    complete: Option<Vec<CloudEvent>>,
    /// Whether it belongs to anything.
    took: bool,
}

fn collect(starter: &Starter, mut sets: Vec<Set>, event: CloudEvent, now: Timestamp) -> Collected {
    let Some(strategy) = &starter.definition.workflow.starts_on else {
        return Collected {
            memory: Value::Null,
            complete: None,
            took: false,
        };
    };
    // Nothing is known before there is a run: expressions see the event alone.
    let evaluate =
        |expression: &Expression, value: &Value| expression.evaluate(value, &Variables::new(), now).ok();
    let fits = |set: &Set| set.hearing.offer(strategy, &event, &evaluate);
    let found = sets
        .iter()
        .enumerate()
        .find_map(|(index, set)| Some((index, fits(set)?)));
    let (index, taken) = match found {
        Some(found) => found,
        None => {
            let fresh = Set {
                hearing: Hearing::new(strategy, expected(strategy, now)),
                events: Vec::new(),
            };
            // What ends a set that has not begun is nothing.
            let Some(taken) = fits(&fresh).filter(|taken| !taken.until) else {
                return Collected {
                    memory: written(&starter.name, sets),
                    complete: None,
                    took: false,
                };
            };
            sets.push(fresh);
            (sets.len() - 1, taken)
        }
    };
    let mut complete = None;
    if let Some(set) = sets.get_mut(index) {
        set.hearing.take(&taken);
        if !taken.until {
            set.events.push(event);
        }
        let enough = set.hearing.is_done(strategy)
            || match &strategy.consume {
                Consume::Any(Until::Condition(condition)) => {
                    let events = set.events.iter().map(CloudEvent::to_value).collect();
                    condition
                        .is_true(&events, &Variables::new(), now)
                        .unwrap_or(false)
                }
                _ => false,
            };
        if enough {
            complete = Some(sets.remove(index).events);
        } else if set.events.len() > MOST_TOGETHER {
            tracing::warn!(
                workflow = starter.name,
                "more than {MOST_TOGETHER} events and not enough: they are given up"
            );
            sets.remove(index);
        }
    }
    Collected {
        memory: written(&starter.name, sets),
        complete,
        took: true,
    }
}

/// What correlations are expected to be, where that is a constant.
fn expected(strategy: &Strategy, now: Timestamp) -> Correlations {
    use muster_workflow_dsl::document::Template;
    let correlations = strategy.all_filters().flat_map(|filter| &filter.correlate);
    let expected = correlations.filter_map(|correlation| {
        let value = match correlation.expect.as_ref()? {
            Template::Literal(value) => value.clone(),
            Template::Expression(expression) => {
                expression.evaluate(&Value::Null, &Variables::new(), now).ok()?
            }
            _ => return None,
        };
        Some((correlation.name.clone(), value))
    });
    expected.collect()
}

/// The sets as they are kept, within the bounds.
fn written(name: &str, mut sets: Vec<Set>) -> Value {
    while sets.len() > MOST_SETS || !sets.is_empty() && muster_api::json::length(&sets) > MOST_BYTES {
        tracing::warn!(
            workflow = name,
            "too many events wait for others: the oldest set is given up"
        );
        sets.remove(0);
    }
    if sets.is_empty() {
        return Value::Null;
    }
    serde_json::to_value(sets).unwrap_or_default()
}
