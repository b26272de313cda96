//! The engine's use cases: start, read and list runs. Those that steer them are [`crate::controls`]', and
//! [`crate::again`]'s.
//!
//! Nothing here knows gRPC or a kind of store. What a run does while it is worked on is [`crate::executor`]'s; who
//! is worked on when is [`crate::floor`]'s.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use muster_api::names::suggestion;
use muster_runtime::background::Background;
use muster_runtime::clock::SharedClock;
use muster_runtime::telemetry::Optimizer;
use muster_runtime::trace::Tracer;
use muster_runtime::trust::Caller as Identified;
use muster_runtime::trust::audit::Auditor;
use muster_runtime::{Shutdown, Tasks};
use muster_workflow_dsl::document::policy::{Concurrency, Priority};
use muster_workflow_dsl::expression::Variables;
use muster_workflow_dsl::run::Stimulus;
use muster_workflow_dsl::secret::Nonce;
use muster_workflow_dsl::usage::Usage;
use muster_workflow_dsl::{Definition, Problems};
use serde_json::Value;
use tokio::sync::oneshot;

use crate::behalf::{self, Behalf};
use crate::budget::Budgets;
use crate::caller::Caller;
use crate::caller::web::Web;
use crate::catalogue::{Catalogue, Reference};
use crate::config;
use crate::definitions::Definitions;
use crate::error::Error;
use crate::events::Events;
use crate::externals::Externals;
use crate::feed::Feed;
use crate::floor::{Accepted, Command, Floor, Sent};
use crate::labels;
use crate::live::Broken;
use crate::metrics::{Meter, Totals};
use crate::off_thread::off_thread;
use crate::optimize::monitor::Monitor;
use crate::page::{self, List};
use crate::placement::Placement;
use crate::random::SharedRandom;
use crate::run::{Entry, Marks, Origin, Position, Record, RunId, Status, Summary};
use crate::schedule::{Claim, Counts, Limit, NamespaceCounts, Place};
use crate::secrets::Secrets;
use crate::stalled::Stalled;
use crate::starters::Starters;
use crate::store::{self, Filter, Page, Step, Store, Stored, Workflow};
use crate::timetable::{self, Timetable};
use crate::trail::Asked;

/// Runs that are looked at for ids near to one that is not there.
const MOST_IDS: usize = 100;

/// Deepest input: what is nested deeper is an attack on whoever walks it.
const DEEPEST: usize = 64;

/// What the engine is made of.
pub struct Engine {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) caller: Arc<dyn Caller>,
    pub(crate) clock: SharedClock,
    pub(crate) random: SharedRandom,
    pub(crate) settings: config::Engine,
    pub(crate) secrets: Arc<Secrets>,
    externals: Externals,
    pub(crate) definitions: Definitions,
    pub(crate) feed: Feed,
    pub(crate) events: Arc<Events>,
    pub(crate) starters: Starters,
    pub(crate) floor: Floor,
    pub(crate) stalled: Stalled,
    pub(crate) meter: Arc<Meter>,
    pub(crate) budgets: Budgets,
    pub(crate) timetable: Timetable,
    pub(crate) placement: Placement,
    pub(crate) shutdown: Shutdown,
    pub(crate) tracer: Tracer,
    pub(crate) monitor: Monitor,
    pub(crate) background: Background,
    catalogue: Catalogue,
    pub(crate) tasks: Tasks,
}

/// What [`Engine::new`] needs.
pub struct Parts {
    /// Where documents and runs are kept.
    pub store: Arc<dyn Store>,
    /// Which of it is worked on here.
    pub placement: Placement,
    /// What runs emit and hear.
    pub events: Arc<Events>,
    /// How agents are called.
    pub caller: Arc<dyn Caller>,
    /// Time.
    pub clock: SharedClock,
    /// Chance.
    pub random: SharedRandom,
    /// Settings.
    pub settings: config::Engine,
    /// Where secrets come from.
    pub secrets: Arc<Secrets>,
    /// How what documents refer to is read.
    pub web: Arc<Web>,
    /// Counters.
    pub metrics: muster_runtime::Metrics,
    /// What is traced.
    pub tracer: Tracer,
    /// What is done about what is slow.
    pub optimizer: Optimizer,
    /// Says in the audit log what is done by itself.
    pub auditor: Auditor,
    /// Background work.
    pub tasks: Tasks,
    /// The wish to stop.
    pub shutdown: Shutdown,
}

/// What to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A document of the catalogue.
    Catalogue(Reference),
    /// A document's text.
    Document(String),
}

/// A wish to run.
#[derive(Debug, Clone, PartialEq)]
pub struct StartRun {
    /// The caller's own id.
    pub id: Option<RunId>,
    /// What to run.
    pub source: Source,
    /// The input.
    pub input: Value,
    /// The class; that of the document where none is given.
    pub priority: Option<Priority>,
    /// Labels, beside those of the document.
    pub labels: BTreeMap<String, String>,
    /// Position in the log of events from which on it hears them; what comes from now on, where none is given.
    pub hears_from: Option<u64>,
    /// What it comes of, where no caller asks for it.
    pub origin: Option<Origin>,
    /// On whose behalf, if that is known.
    pub caller: Option<Arc<Identified>>,
}

/// A run with everything that can be told of it.
#[derive(Debug, Clone, PartialEq)]
pub struct View {
    /// Where it stands.
    pub summary: Summary,
    /// Its input.
    pub input: Value,
    /// Its output, once completed.
    pub output: Option<Value>,
    /// What it does or waits for, one line each.
    pub activity: Vec<String>,
}

/// What the engine is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Doing {
    /// Runs that have not ended.
    pub counts: Counts,
    /// The same by namespace.
    pub namespaces: Vec<NamespaceCounts>,
    /// Runs that ended since the start.
    pub totals: Totals,
}

impl Engine {
    /// An engine that does nothing yet; the driver makes it work.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let Parts {
            store,
            placement,
            events,
            caller,
            clock,
            random,
            settings,
            secrets,
            web,
            metrics,
            tracer,
            optimizer,
            auditor,
            tasks,
            shutdown,
        } = parts;
        let catalogue = Catalogue::new(Arc::clone(&store), Arc::clone(&clock), settings.max_payload_bytes);
        Self {
            catalogue,
            definitions: Definitions::new(settings.workflow_timeout()),
            feed: Feed::default(),
            events,
            starters: Starters::default(),
            stalled: Stalled::default(),
            floor: Floor::new(settings.bounds()),
            background: Background::new(
                tasks.clone(),
                metrics.clone(),
                Arc::clone(&clock),
                shutdown.clone(),
            ),
            meter: Arc::new(Meter::new(metrics)),
            budgets: Budgets::new(&settings),
            timetable: Timetable::default(),
            placement,
            store,
            caller,
            clock,
            random,
            settings,
            externals: Externals::new(web, Arc::clone(&secrets)),
            secrets,
            tracer,
            monitor: Monitor::new(optimizer, auditor),
            tasks,
            shutdown,
        }
    }

    /// Adds a document to the catalogue; events from now on start its runs, if it says so.
    ///
    /// # Errors
    /// It is not valid, or its version has other content.
    pub async fn apply(&self, document: &str) -> Result<(Workflow, Problems), Error> {
        self.apply_for(document, None).await
    }

    /// The same on behalf of a caller.
    ///
    /// # Errors
    /// See [`Self::apply`]; or the caller may not reach the document's namespace.
    pub async fn apply_for(
        &self,
        document: &str,
        caller: Option<&Arc<Identified>>,
    ) -> Result<(Workflow, Problems), Error> {
        self.bound_new_schedule(document).await?;
        let position = self.events.next_position().await?;
        let (workflow, warnings) = self.catalogue.apply(document, caller).await?;
        self.watch_for_starts(&workflow, position).await?;
        let name = timetable::Name {
            namespace: workflow.key.namespace.clone(),
            name: workflow.key.name.clone(),
        };
        self.follow_newest(&name).await?;
        Ok((workflow, warnings))
    }

    /// What runs emit and hear.
    #[must_use]
    pub fn events(&self) -> &Arc<Events> {
        &self.events
    }

    /// The catalogue of documents.
    #[must_use]
    pub fn catalogue(&self) -> &Catalogue {
        &self.catalogue
    }

    /// Largest document and input.
    #[must_use]
    pub fn most_payload_bytes(&self) -> usize {
        self.settings.max_payload_bytes
    }

    /// Accepts a run and returns once it is durable; a run that exists and is the same is returned as it is.
    ///
    /// # Errors
    /// The document or the input is refused, the id is taken by another run, or too many wait.
    pub async fn start(self: &Arc<Self>, wish: StartRun) -> Result<View, Error> {
        bound_depth(&wish.input)?;
        if let Some(id) = &wish.id
            && let Some(known) = self.store.summary(id).await?
        {
            return self.same_run(known, &wish).await;
        }
        let (document, definition) = self.resolve(&wish.source).await?;
        behalf::check_namespace(wish.caller.as_ref(), &definition.workflow.header.namespace)?;
        let (resources, definition) = self
            .externals
            .obtain(&self.definitions, &document, definition)
            .await?;
        let id = wish.id.clone().unwrap_or_else(|| self.placement.fresh());
        let claim = self.claim(&definition, &wish).await?;
        let mut summary = self.new_summary(&id, &definition, claim);
        summary.marks.labels = labels::all(&definition.workflow.header.tags, &wish.labels)?;
        summary.marks.behalf = wish.caller.as_deref().and_then(Behalf::of);
        let hears_from = match wish.hears_from {
            Some(position) => position,
            None => self.events.next_position().await?,
        };
        summary.origin = wish.origin.clone();
        let record = Record {
            id,
            document,
            input: wish.input.clone(),
            erased_input: None,
            nonce: Nonce::fresh(),
            resources,
            hears_from,
        };
        summary.chain = Some(record.chain());
        match self.accept(record, summary.clone(), None).await {
            Ok(()) => Ok(View {
                activity: self.activity_of_new(&summary.id),
                summary,
                input: wish.input,
                output: None,
            }),
            // Somebody else was first with this id.
            Err(Error::Store(store::Error::Conflict(_))) => match self.store.summary(&summary.id).await? {
                Some(known) => self.same_run(known, &wish).await,
                None => Err(Error::Defect(format!(
                    "run '{}' is neither free nor taken",
                    summary.id
                ))),
            },
            Err(error) => Err(error),
        }
    }

    /// Makes a run durable and puts it in line, also when whoever asked for it goes away meanwhile.
    pub(crate) async fn accept(
        self: &Arc<Self>,
        record: Record,
        summary: Summary,
        beginning: Option<Step>,
    ) -> Result<(), Error> {
        let engine = Arc::clone(self);
        let (answer, accepted) = oneshot::channel();
        self.tasks.spawn("accept a run", async move {
            let _ = answer.send(engine.accept_now(record, summary, beginning).await);
        });
        accepted.await.map_err(|_| Error::ShuttingDown)?
    }

    /// Does work in the background, which is awaited when the service stops.
    pub(crate) fn spawn(&self, what: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(what, work);
    }

    async fn accept_now(
        &self,
        record: Record,
        summary: Summary,
        beginning: Option<Step>,
    ) -> Result<(), Error> {
        let _stay = self.placement.stay(&summary.id).await?;
        let reservation = self.floor.reserve(summary.namespace.as_str().into())?;
        match beginning {
            None => {
                self.store.create_run(&record, &summary).await?;
                reservation.admit_accepted(Accepted { record, summary });
            }
            Some(step) => {
                let told = !step.events.is_empty();
                self.store.create_with(&record, step).await?;
                if told {
                    self.events.ring();
                }
                reservation.admit(summary.newcomer());
            }
        }
        self.meter.started();
        Ok(())
    }

    async fn resolve(&self, source: &Source) -> Result<(String, Arc<Definition>), Error> {
        let document = match source {
            Source::Catalogue(reference) => {
                let workflow = self.catalogue.find(reference).await?;
                if let Some((document, definition)) = self.definitions.lately(&workflow.digest) {
                    self.catalogue.bound(&document)?;
                    return Ok((document.as_ref().to_owned(), definition));
                }
                self.catalogue.document(&workflow).await?
            }
            Source::Document(document) => document.clone(),
        };
        self.catalogue.bound(&document)?;
        let definition = self
            .definitions
            .get(&document)
            .await
            .map_err(Error::InvalidWorkflow)?;
        Ok((document, definition))
    }

    /// What the run's turn depends on. Keys are evaluated now and never again.
    pub(crate) async fn claim(&self, definition: &Arc<Definition>, wish: &StartRun) -> Result<Claim, Error> {
        let policy = &definition.workflow.header.policy;
        let priority = wish.priority.unwrap_or(policy.priority);
        if policy.concurrency.is_empty() {
            return Ok(Claim {
                priority,
                limits: Vec::new(),
            });
        }
        let (definition, input, now) = (Arc::clone(definition), wish.input.clone(), self.clock.now());
        let limits = off_thread(move || limits(&definition, &input, now)).await?;
        Ok(Claim { priority, limits })
    }

    pub(crate) fn new_summary(&self, id: &RunId, definition: &Definition, claim: Claim) -> Summary {
        let header = &definition.workflow.header;
        Summary {
            id: id.clone(),
            namespace: header.namespace.clone(),
            name: header.name.clone(),
            version: header.version.clone(),
            digest: definition.digest.clone(),
            status: Status::Pending,
            failure: None,
            created_at: self.clock.now(),
            started_at: None,
            ended_at: None,
            history_length: 0,
            cut: None,
            chain: None,
            spent: Usage::default(),
            claim,
            marks: Marks {
                asked: Asked::here(),
                ..Marks::default()
            },
            origin: None,
        }
    }

    /// The run that has the wished id, if it is what is wished. A reference to the newest version matches whatever
    /// version was the newest when the run was accepted.
    async fn same_run(&self, known: Summary, wish: &StartRun) -> Result<View, Error> {
        // Of another caller's run nothing is said but that its id is taken.
        if let Some(caller) = &wish.caller
            && !caller.may_see(known.caller_key())
        {
            return Err(Error::RunExists {
                id: known.id,
                difference: "caller",
            });
        }
        let same_document = match &wish.source {
            Source::Catalogue(reference) => {
                reference.namespace() == known.namespace
                    && reference.name == known.name
                    && (reference.version.is_empty() || reference.version == known.version)
            }
            Source::Document(document) => muster_workflow_dsl::digest(document) == known.digest,
        };
        let id = known.id.clone();
        if !same_document {
            return Err(Error::RunExists {
                id,
                difference: "document",
            });
        }
        let view = self.view(known).await?;
        if view.input == wish.input {
            Ok(view)
        } else {
            Err(Error::RunExists {
                id,
                difference: "input",
            })
        }
    }

    /// Reads a run.
    ///
    /// # Errors
    /// There is none; near ids are suggested.
    pub async fn get(&self, id: &RunId) -> Result<View, Error> {
        match self.store.stored(id).await? {
            Some(stored) => Ok(self.seen(stored).await),
            None => Err(self.unknown(id).await?),
        }
    }

    pub(crate) async fn summary(&self, id: &RunId) -> Result<Summary, Error> {
        match self.store.summary(id).await? {
            Some(summary) => Ok(summary),
            None => Err(self.unknown(id).await?),
        }
    }

    /// Says that there is no such run, and which one may be meant.
    async fn unknown(&self, id: &RunId) -> Result<Error, Error> {
        let recent = self.store.runs(&Filter::default(), None, MOST_IDS).await?.entries;
        let suggestion = suggestion(id.as_str(), recent.iter().map(|run| run.id.as_str()));
        Ok(Error::RunNotFound {
            id: id.clone(),
            suggestion,
        })
    }

    pub(crate) async fn view(&self, summary: Summary) -> Result<View, Error> {
        let stored = self.store.stored(&summary.id).await?;
        let (record, output) = stored.map_or((None, None), |stored| (stored.record, stored.output));
        let output = output.filter(|_| summary.has_output());
        let stored = Stored {
            summary,
            record,
            output,
        };
        Ok(self.seen(stored).await)
    }

    async fn seen(&self, stored: Stored) -> View {
        let Stored {
            summary,
            record,
            output,
        } = stored;
        let activity = self.activity(&summary).await;
        // Only a run that is being forgotten at this moment has none.
        let input = record.map_or(Value::Null, |record| record.input);
        View {
            summary,
            input,
            output,
            activity,
        }
    }

    /// Lists runs, newest first.
    ///
    /// # Errors
    /// The token is not one of this list's.
    pub async fn list(
        &self,
        filter: &Filter,
        page_size: u32,
        page_token: &str,
    ) -> Result<(Vec<Summary>, String), Error> {
        let before: Option<Position> = List::Runs.cursor(filter, page_token)?;
        let Page { entries, next } = self
            .store
            .runs(filter, before.as_ref(), page::size(page_size))
            .await?;
        Ok((
            entries,
            next.map(|next| List::Runs.token(filter, &next))
                .unwrap_or_default(),
        ))
    }

    /// Reads a portion of a run's journal.
    ///
    /// # Errors
    /// There is no such run, or the token is not one of this list's.
    pub async fn history(
        &self,
        id: &RunId,
        page_size: u32,
        page_token: &str,
    ) -> Result<(Vec<Entry>, String), Error> {
        let from = List::History.cursor::<u64>(id, page_token)?.unwrap_or(0);
        let length = self.summary(id).await?.history_length;
        let entries = self.entries(id, from, page::size(page_size)).await?;
        let next = entries
            .last()
            .map(|last| last.index + 1)
            .filter(|next| *next < length);
        Ok((
            entries,
            next.map(|next| List::History.token(id, &next))
                .unwrap_or_default(),
        ))
    }

    /// Reads entries of a run's journal from index `from` on, or from the first that is left.
    pub(crate) async fn entries(&self, id: &RunId, from: u64, limit: usize) -> Result<Vec<Entry>, Error> {
        let mut first = self.summary(id).await?.first_entry();
        loop {
            match self.store.history(id, from.max(first), limit).await {
                Ok(entries) => return Ok(entries),
                Err(error) => {
                    // Some may have been forgotten since.
                    let now = self.summary(id).await?.first_entry();
                    if now == first {
                        return Err(error.into());
                    }
                    first = now;
                }
            }
        }
    }

    /// Lets a run react to something and returns it as it is then, durably.
    pub(crate) async fn act(&self, id: &RunId, stimulus: Stimulus) -> Result<View, Error> {
        let (reply, answer) = oneshot::channel();
        let stimulus = Box::new(stimulus);
        match self.floor.command(id, Command::Act { stimulus, reply })? {
            Sent::Delivered => {}
            Sent::SetAside(why) => return Err(Error::SetAside { id: id.clone(), why }),
            Sent::Busy => return Err(Error::Defect(format!("run '{id}' does not answer; try again"))),
            Sent::Unknown => return Err(self.ended_meanwhile(id).await?),
        }
        match answer.await {
            Ok(outcome) => self.view(outcome?).await,
            Err(_) if self.shutdown.is_requested() => Err(Error::ShuttingDown),
            Err(_) => Err(self.ended_meanwhile(id).await?),
        }
    }

    /// Why a run was not there to be told something although it had not ended when it was looked up.
    async fn ended_meanwhile(&self, id: &RunId) -> Result<Error, Error> {
        self.placement.check(id)?;
        let summary = self.summary(id).await?;
        if summary.status.is_final() {
            return Ok(Error::RunEnded {
                id: summary.id,
                status: summary.status,
            });
        }
        if let Some((Place::SetAside(why), _)) = self.floor.place(id) {
            return Ok(Error::SetAside { id: summary.id, why });
        }
        Ok(Error::Defect(format!(
            "run '{id}' was not there to be told; try again"
        )))
    }

    /// What the engine is doing.
    #[must_use]
    pub fn doing(&self) -> Doing {
        Doing {
            counts: self.floor.counts(),
            namespaces: self.floor.namespaces(),
            totals: self.meter.totals(),
        }
    }
}

/// The groups that a run with this input belongs to.
fn limits(definition: &Definition, input: &Value, now: Timestamp) -> Result<Vec<Limit>, Error> {
    let header = &definition.workflow.header;
    let bounds = header.policy.concurrency.iter();
    let limit = |bound: &Concurrency| {
        let mut group = format!("{}/{}", header.namespace, header.name);
        if let Some(key) = &bound.key {
            let value = key.evaluate(input, &Variables::new(), now).map_err(|error| {
                let message = format!("the workflow's concurrency key cannot be evaluated on it: {error}");
                Error::field("input_json", message)
            })?;
            // The expression belongs to the group: two bounds with different keys are different groups.
            group.push_str(&format!(" {} = {}", key.source(), shortened(&value.to_string())));
        }
        Ok(Limit {
            group: Arc::from(group),
            most: bound.limit,
        })
    };
    bounds.map(limit).collect()
}

/// A key as it stands, or its digest if it is long: it is kept with the run and shown to people.
fn shortened(key: &str) -> String {
    const LONGEST_KEY: usize = 200;
    if key.len() <= LONGEST_KEY {
        key.to_owned()
    } else {
        muster_workflow_dsl::digest(key)
    }
}

/// Refuses an input that is nested too deeply. Iterative, so that depth is no danger here.
pub(crate) fn bound_depth(input: &Value) -> Result<(), Error> {
    let mut pending = vec![(input, 0)];
    while let Some((value, depth)) = pending.pop() {
        if depth > DEEPEST {
            return Err(Error::field(
                "input_json",
                format!("is nested deeper than {DEEPEST} levels"),
            ));
        }
        match value {
            Value::Array(items) => pending.extend(items.iter().map(|item| (item, depth + 1))),
            Value::Object(fields) => pending.extend(fields.values().map(|item| (item, depth + 1))),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }
    Ok(())
}

impl From<Broken> for Error {
    fn from(broken: Broken) -> Self {
        match broken {
            Broken::Store(error) => Self::Store(error),
            Broken::Damaged(what) => Self::Store(store::Error::Damaged(what)),
            Broken::Interpreter(what) => Self::Defect(what),
        }
    }
}
