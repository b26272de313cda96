//! The runs that a run has started and waits for.
//!
//! A child is created once, under an id that follows from its parent's message id, and goes on by itself. Its parent
//! holds no slot and no memory meanwhile. That nothing is lost between the two rests on looking, not on messages:
//! whenever a parent is put to work, also after a crash, it looks at its children; and when a child has ended, durably,
//! the parent is roused, which makes it look again. A child that is not there yet is created by the same look.
//!
//! Where the parent stops waiting, for whatever reason, the child is cancelled. A crash between the two is made good
//! when the engine starts ([`reconcile`]).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt as _};
use jiff::{SignedDuration, Timestamp};
use muster_api::json;
use muster_runtime::trace::{Context, FutureExt as _};
use muster_runtime::trust::Caller;
use muster_workflow_dsl::document::policy::Priority;
use muster_workflow_dsl::journal::{Problem, Standard};
use muster_workflow_dsl::request::{Child, Request};
use muster_workflow_dsl::run::{Effect, child_id};
use muster_workflow_dsl::secret::has_marker;
use muster_workflow_dsl::usage::Usage;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::behalf;
use crate::calls::Key;
use crate::catalogue::Reference;
use crate::controls::Wish;
use crate::engine::{Engine, Source, StartRun};
use crate::error::Error;
use crate::live::Live;
use crate::run::{Origin, Parent, Position, RunId, Status, Summary};
use crate::store;
use crate::trail::Places;

/// How deep runs may start runs that start runs.
pub const MOST_NESTED: u32 = 16;

/// Children of one run that are created, or looked at, at the same time.
const AT_ONCE: usize = 16;

/// When a child is tried again that could not be created because the line of runs is full.
const TRY_AGAIN: SignedDuration = SignedDuration::from_secs(1);

/// How long it takes to tell a child again that did not listen.
const TELL_AGAIN: Duration = Duration::from_millis(20);

/// Unfinished runs read at once when the engine starts.
const PORTION: usize = 500;

/// A child that its parent wants.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    pub(crate) key: Key,
    pub(crate) id: RunId,
    pub(crate) task: Arc<str>,
    pub(crate) request: Arc<Request>,
}

/// How a child has ended.
pub(crate) struct Ended {
    pub(crate) result: Result<Value, Problem>,
    /// What it has used.
    pub(crate) usage: Usage,
}

impl Ended {
    /// It has used nothing, or nobody waits for what it uses.
    fn free(result: Result<Value, Problem>) -> Self {
        Self {
            result,
            usage: Usage::default(),
        }
    }
}

/// What a look at a child has shown.
enum Seen {
    Ended(Ended),
    UnderWay,
    Later(Timestamp),
}

/// See the module.
pub(crate) struct Children {
    engine: Arc<Engine>,
    parent: RunId,
    /// Where the spans of the parent are, where anything is traced.
    places: Option<Places>,
    /// How many runs are above those.
    depth: u32,
    /// Class of the parent.
    priority: Priority,
    /// Those that were wanted when the parent was loaded, before anything was decided.
    remembered: Vec<Wanted>,
    /// Those that are wanted.
    wanted: BTreeMap<Key, Wanted>,
    /// Those that are being looked at.
    looking: BTreeSet<Key>,
    /// Those of them that are to be looked at again, because what is seen may have changed meanwhile.
    again: BTreeSet<Key>,
    /// Those of them that are not wanted any more.
    leaving: BTreeMap<Key, Wanted>,
    looks: FuturesUnordered<BoxFuture<'static, (Key, Seen)>>,
    /// Those that nobody waits for any more, until they know it.
    farewells: FuturesUnordered<BoxFuture<'static, ()>>,
    /// Those that could not be created, with the time to try again.
    later: BTreeMap<Key, Timestamp>,
    turns: Arc<Semaphore>,
}

impl Children {
    pub(crate) fn new(engine: Arc<Engine>, parent: RunId) -> Self {
        Self {
            engine,
            parent,
            places: None,
            depth: 1,
            priority: Priority::default(),
            remembered: Vec::new(),
            wanted: BTreeMap::new(),
            looking: BTreeSet::new(),
            again: BTreeSet::new(),
            leaving: BTreeMap::new(),
            looks: FuturesUnordered::new(),
            farewells: FuturesUnordered::new(),
            later: BTreeMap::new(),
            turns: Arc::new(Semaphore::new(AT_ONCE)),
        }
    }

    /// The parent has been loaded and wants these. What it decides first may be that it does not want them any more.
    pub(crate) fn remember(&mut self, wanted: Vec<Wanted>) {
        self.remembered = wanted;
    }

    /// Lets those go that are not wanted any more.
    pub(crate) fn dismiss_all_but(&mut self, wanted: &[Wanted]) {
        let keep: BTreeSet<Key> = wanted.iter().map(|child| child.key).collect();
        let gone: Vec<Key> = self
            .wanted
            .keys()
            .filter(|key| !keep.contains(key))
            .copied()
            .collect();
        for key in gone {
            self.later.remove(&key);
            let Some(child) = self.wanted.remove(&key) else {
                continue;
            };
            // One that is being looked at may be about to be created, and is told when that is done.
            if self.looking.contains(&key) {
                self.leaving.insert(key, child);
            } else {
                self.dismiss(child);
            }
        }
        for child in std::mem::take(&mut self.remembered) {
            if keep.contains(&child.key) {
                self.remembered.push(child);
            } else {
                self.dismiss(child);
            }
        }
    }

    /// Makes the children those that are wanted.
    pub(crate) fn follow(&mut self, parent: &Summary, wanted: Vec<Wanted>) {
        self.depth = parent.parent().map_or(0, |parent| parent.depth) + 1;
        self.priority = parent.claim.priority;
        if self.places.is_none() {
            self.places = Places::of(&self.engine.tracer, parent);
        }
        self.dismiss_all_but(&wanted);
        self.remembered.clear();
        let now = self.engine.clock.now();
        for child in wanted {
            let waits = self.later.get(&child.key).is_some_and(|due| *due > now);
            let known = self.wanted.contains_key(&child.key) && !self.later.contains_key(&child.key);
            if !waits && !known {
                self.later.remove(&child.key);
                self.look_at(child.clone());
            }
            self.wanted.insert(child.key, child);
        }
    }

    /// Looks again at all that are under way.
    pub(crate) fn look(&mut self) {
        self.again.extend(&self.looking);
        let under_way = self.wanted.values();
        let due: Vec<Wanted> = under_way
            .filter(|child| !self.looking.contains(&child.key) && !self.later.contains_key(&child.key))
            .cloned()
            .collect();
        for child in due {
            self.look_at(child);
        }
    }

    fn look_at(&mut self, child: Wanted) {
        self.looking.insert(child.key);
        self.again.remove(&child.key);
        let (engine, turns) = (Arc::clone(&self.engine), Arc::clone(&self.turns));
        let (run, depth, priority) = (self.parent.clone(), self.depth, self.priority);
        let places = self.places.clone();
        let look = async move {
            // Closed only with this structure, which nobody would see.
            let _turn = turns.acquire_owned().await;
            let seen = match &*child.request {
                Request::Workflow(request) => {
                    let origin = Parent {
                        run,
                        task: child.task.to_string(),
                        awaited: request.awaited,
                        depth,
                    };
                    let within = match &places {
                        Some(places) => places.context_of_step(child.key.0, &child.task),
                        None => Context::current(),
                    };
                    let seen = see(&engine, &child.id, request, origin, priority);
                    seen.with_context(within).await
                }
                _ => Seen::UnderWay,
            };
            (child.key, seen)
        };
        self.looks.push(look.boxed());
    }

    /// A child of which nobody waits for the end any more, if it was waited for.
    fn dismiss(&mut self, child: Wanted) {
        if !matches!(&*child.request, Request::Workflow(request) if request.awaited) {
            return;
        }
        let engine = Arc::clone(&self.engine);
        let reason = format!("run {} does not wait for it any more", self.parent);
        self.farewells
            .push(async move { cancel(&engine, &child.id, &reason).await }.boxed());
    }

    /// The next thing that is to be decided on, or nothing where only what is under way has changed. Never, while nothing
    /// is under way here.
    pub(crate) async fn news(&mut self) -> Option<(Key, Ended)> {
        let (looks, farewells) = (&mut self.looks, &mut self.farewells);
        let (key, seen) = tokio::select! {
            biased;
            Some(looked) = looks.next() => looked,
            Some(()) = farewells.next() => return None,
            else => std::future::pending().await,
        };
        self.looking.remove(&key);
        if let Some(child) = self.leaving.remove(&key) {
            if matches!(seen, Seen::UnderWay) {
                self.dismiss(child);
            }
            return None;
        }
        let child = self.wanted.get(&key).cloned();
        match seen {
            Seen::Ended(ended) => {
                self.wanted.remove(&key);
                child.map(|_| (key, ended))
            }
            Seen::Later(due) => {
                self.later.extend(child.map(|_| (key, due)));
                None
            }
            Seen::UnderWay => {
                if let Some(child) = child.filter(|_| self.again.contains(&key)) {
                    self.look_at(child);
                }
                None
            }
        }
    }

    /// Whether the run may be parked as far as its children are concerned.
    pub(crate) fn is_idle(&self) -> bool {
        self.looks.is_empty() && self.farewells.is_empty()
    }

    /// When there is something to try again.
    pub(crate) fn due(&self) -> Option<Timestamp> {
        self.later.values().min().copied()
    }

    /// The run is not worked on any more, and its children go on: those that were let go hear of it.
    pub(crate) async fn part(mut self) {
        while self.farewells.next().await.is_some() {}
    }

    /// The run has ended: so do its children.
    pub(crate) async fn end(mut self) {
        // Those that are being created first become ones that can be told.
        while let Some((key, _)) = self.looks.next().await {
            self.looking.remove(&key);
        }
        let all: Vec<Wanted> = std::mem::take(&mut self.wanted)
            .into_values()
            .chain(std::mem::take(&mut self.leaving).into_values())
            .chain(self.remembered.drain(..))
            .collect();
        for child in all {
            self.dismiss(child);
        }
        while self.farewells.next().await.is_some() {}
    }
}

/// The children among the effects of a run: in its partition, so that what passes between the two passes within one engine.
pub(crate) fn wanted(engine: &Engine, parent: &RunId, effects: &[Effect]) -> Vec<Wanted> {
    let place = |id: RunId| engine.placement.beside(parent, id);
    let children = effects.iter().filter_map(|effect| match effect {
        Effect::Call {
            activation,
            attempt,
            message_id,
            task,
            request,
            ..
        } if request.is_delegated() => Some(Wanted {
            key: (*activation, *attempt),
            // A UUID is one.
            id: place(child_id(*message_id).parse().ok()?),
            task: Arc::clone(task),
            request: Arc::clone(request),
        }),
        _ => None,
    });
    children.collect()
}

/// Looks at a child, which is created if it is not there.
async fn see(engine: &Arc<Engine>, id: &RunId, child: &Child, origin: Parent, priority: Priority) -> Seen {
    let (run, awaited) = (origin.run.clone(), child.awaited);
    let known = match engine.store.summary(id).await {
        Ok(Some(known)) => Ok(known),
        Ok(None) => create(engine, id, child, origin, priority).await,
        Err(error) => Err(error.into()),
    };
    match known {
        Ok(known) if known.parent().is_none_or(|parent| parent.run != run) => {
            let detail = format!("run '{id}' is there and is not of run '{run}'; somebody has taken its id");
            Seen::Ended(Ended::free(Err(problem(Standard::Runtime, 409, detail))))
        }
        Ok(_) if !awaited => Seen::Ended(Ended::free(Ok(json!({"run": id})))),
        Ok(known) if known.status.is_final() => match outcome(engine, &known).await {
            Ok(result) => Seen::Ended(Ended {
                result,
                usage: known.spent,
            }),
            Err(error) => refused(engine, error, child),
        },
        Ok(_) => Seen::UnderWay,
        Err(error) => refused(engine, error, child),
    }
}

async fn create(
    engine: &Arc<Engine>,
    id: &RunId,
    child: &Child,
    origin: Parent,
    priority: Priority,
) -> Result<Summary, Error> {
    if origin.depth > MOST_NESTED {
        let message =
            format!("runs start runs at most {MOST_NESTED} deep; a workflow that starts itself has to end");
        return Err(Error::field("run", message));
    }
    if has_marker(&child.input) {
        let message = "holds a secret; let the workflow that is run list it in its own 'use.secrets'";
        return Err(Error::field("input", message));
    }
    let (bytes, most) = (json::length(&*child.input), engine.settings.max_payload_bytes);
    if bytes > most {
        let message = format!("has {bytes} bytes, and at most {most} are taken ('engine.max_payload_bytes')");
        return Err(Error::field("input", message));
    }
    let parent = engine.store.summary(&origin.run).await?;
    let behalf = parent.as_ref().and_then(|parent| parent.marks.behalf.as_ref());
    let wish = StartRun {
        id: Some(id.clone()),
        source: Source::Catalogue(Reference {
            namespace: child.namespace.clone(),
            name: child.name.clone(),
            version: child.version.clone().unwrap_or_default(),
        }),
        input: child.input.as_ref().clone(),
        // What is urgent would wait for what is not.
        priority: (priority > Priority::Normal).then_some(priority),
        labels: BTreeMap::new(),
        hears_from: None,
        origin: Some(Origin::Run(origin)),
        caller: Some(behalf.map_or_else(Caller::anybody, behalf::caller)),
    };
    Ok(engine.start(wish).await?.summary)
}

/// What a child that could not be created or read means for its parent.
fn refused(engine: &Engine, error: Error, child: &Child) -> Seen {
    let detail = format!("{} cannot be run: {error}", child.target());
    let (kind, status) = match error {
        Error::TooManyRuns(_)
        | Error::ShuttingDown
        | Error::NotOwner { .. }
        | Error::Store(store::Error::Unavailable(_) | store::Error::NotOwner { .. }) => {
            let due = engine.clock.now().checked_add(TRY_AGAIN);
            return Seen::Later(due.unwrap_or(Timestamp::MAX));
        }
        Error::WorkflowNotFound { .. } => (Standard::Configuration, 404),
        Error::InvalidWorkflow(_) => (Standard::Configuration, 400),
        Error::Field { .. } => (Standard::Validation, 400),
        Error::Forbidden { .. } => (Standard::Authorization, 403),
        Error::RunExists { .. } => (Standard::Runtime, 409),
        _ => (Standard::Runtime, 500),
    };
    Seen::Ended(Ended::free(Err(problem(kind, status, detail))))
}

/// How a child has ended, as the answer that its parent waits for.
async fn outcome(engine: &Engine, child: &Summary) -> Result<Result<Value, Problem>, Error> {
    let Summary {
        id,
        namespace,
        name,
        version,
        ..
    } = child;
    let what = format!("run '{id}' of {namespace}/{name}@{version}");
    Ok(match (child.status, &child.failure) {
        (Status::Completed, _) => Ok(engine.store.output(id).await?.unwrap_or_default()),
        // Of the same type, so that a `catch` knows it; where it happened is told in words, because a pointer leads into
        // the document of the run that it is an error of.
        (Status::Faulted, Some(failure)) => Err(Problem {
            kind: failure.kind.clone(),
            status: failure.status,
            instance: None,
            title: (!failure.title.is_empty()).then(|| failure.title.clone()),
            detail: Some(format!(
                "{what} failed at {}: {}",
                failure.instance, failure.detail
            )),
        }
        .shortened()),
        (Status::Cancelled, _) => Err(problem(Standard::Runtime, 500, format!("{what} was cancelled"))),
        (status, _) => Err(problem(
            Standard::Runtime,
            500,
            format!("{what} ended as {}", status.name()),
        )),
    })
}

fn problem(kind: Standard, status: u16, detail: String) -> Problem {
    Problem::standard(kind, detail).with_status(status)
}

/// Ends a child; until it has heard, has ended, or the engine stops.
async fn cancel(engine: &Engine, id: &RunId, reason: &str) {
    let wish = || Wish {
        by: String::new(),
        reason: reason.to_owned(),
    };
    while let Err(error) = engine.cancel(id, wish()).await {
        match error {
            Error::Defect(_) => tokio::time::sleep(TELL_AGAIN).await,
            Error::RunEnded { .. }
            | Error::RunNotFound { .. }
            | Error::NotOwner { .. }
            | Error::ShuttingDown => return,
            error => {
                tracing::warn!(run = %id, %error, "a run that nobody waits for any more cannot be ended");
                return;
            }
        }
    }
}

impl Engine {
    /// A run has ended, durably: the one that waits for it is to look.
    pub(crate) fn tell_parent(&self, child: &Summary) {
        if let Some(parent) = child.awaiting_parent() {
            self.floor.rouse(&parent.run);
        }
    }
}

/// Ends the children whose parents do not wait for them any more: after a crash between the end of the waiting and the
/// end of the child.
/// Of one partition, or of all.
pub(crate) async fn reconcile(engine: &Engine, partition: Option<u16>) {
    if let Err(error) = reconcile_now(engine, partition).await {
        tracing::warn!(%error, "runs that nobody waits for any more may go on");
    }
}

async fn reconcile_now(engine: &Engine, partition: Option<u16>) -> Result<(), store::Error> {
    let mut families: BTreeMap<RunId, Vec<RunId>> = BTreeMap::new();
    let mut after: Option<Position> = None;
    loop {
        let page = engine
            .store
            .unfinished(partition, after.as_ref(), PORTION)
            .await?;
        for child in page.entries.into_iter().flatten() {
            if let Some(parent) = child.awaiting_parent() {
                families
                    .entry(parent.run.clone())
                    .or_default()
                    .push(child.id.clone());
            }
        }
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    for (parent, children) in families {
        let keep: BTreeSet<RunId> = match Live::load(&*engine.store, &engine.definitions, &parent).await {
            Ok(Some(live)) => wanted(engine, &parent, &live.effects())
                .into_iter()
                .map(|child| child.id)
                .collect(),
            Ok(None) => BTreeSet::new(),
            // People have to look at it, and at its children with it.
            Err(_) => continue,
        };
        let reason = format!("run {parent} does not wait for it any more");
        for child in children.iter().filter(|child| !keep.contains(child)) {
            cancel(engine, child, &reason).await;
        }
    }
    Ok(())
}
