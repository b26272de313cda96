//! Beginning again: retry a run that failed, fork a run from one of its steps.
//!
//! Both fold the journal once to find the place, and once more up to it; what they write is one entry. What the run
//! does then is decided by whoever works on it next, as after a crash.

use std::sync::Arc;

use muster_api::names::suggestion;
use muster_workflow_dsl::Definition;
use muster_workflow_dsl::journal::chain::Chain;
use muster_workflow_dsl::run::Run;
use muster_workflow_dsl::run::rewind::{Again, MOST_GENERATIONS, Refused, Trail};
use serde_json::Value;
use tokio::sync::oneshot;

use crate::approval::Ledger;
use crate::controls::{Wish, active};
use crate::engine::{Engine, Source, StartRun, View, bound_depth};
use crate::error::Error;
use crate::folding::Journal;
use crate::lifecycle;
use crate::live::{self, Broken};
use crate::run::{Forked, Marks, Record, RunId, Status, Summary};
use crate::store::{self, Step};
use crate::trail::Asked;

/// A wish for a run that shares the beginning of another.
#[derive(Debug, Clone, PartialEq)]
pub struct ForkRun {
    /// The other run.
    pub source: RunId,
    /// The step that begins first; empty: the beginning.
    pub from: String,
    /// The caller's own id for the new run.
    pub id: Option<RunId>,
    /// The input of that step, or of the run; as it was where none is given.
    pub input: Option<Value>,
    /// Who wants it.
    pub by: String,
}

/// A run as its journal tells it.
struct Past<'e> {
    journal: Journal<'e>,
    record: Record,
    definition: Arc<Definition>,
    run: Run,
    chain: Chain,
    trail: Trail,
    /// Whether the beginning of its history is gone.
    is_cut: bool,
}

impl Past<'_> {
    /// The run as it was before the entry with this index.
    async fn before(&self, index: u64) -> Result<Run, Broken> {
        let mut folded = self.journal.earliest(&self.definition).await?;
        self.journal.fold(&mut folded, index, |_, _| {}).await?;
        Ok(folded.run)
    }

    /// The pointer of a step that has begun, by its pointer or its name.
    fn step(&self, wanted: &str) -> Result<Arc<str>, Error> {
        let named = |pointer: &&str| {
            let task = self.definition.workflow.task(pointer);
            *pointer == wanted || task.is_some_and(|task| task.name == wanted)
        };
        let found: Vec<&str> = self.trail.tasks().filter(named).collect();
        match found.as_slice() {
            [one] => Ok(Arc::from(*one)),
            [] => {
                let names = self.trail.tasks().filter_map(|pointer| {
                    let task = self.definition.workflow.task(pointer)?;
                    Some(task.name.as_str())
                });
                let nearest = suggestion(wanted, names.chain(self.trail.tasks()));
                let since = if self.is_cut {
                    format!(
                        " since entry {}, where what is left of its history can be folded from",
                        self.journal.earliest_index()
                    )
                } else {
                    String::new()
                };
                let message = format!("no step '{wanted}' of the run has begun{since}{nearest}");
                Err(Error::field("from", message))
            }
            several => {
                let mut several = several.to_vec();
                several.sort_unstable();
                let message = format!(
                    "several steps are called '{wanted}'; name one of {}",
                    several.join(", ")
                );
                Err(Error::field("from", message))
            }
        }
    }
}

fn not_erased(summary: &Summary) -> Result<(), Error> {
    match summary.marks.erased {
        Some(_) => Err(Error::RunErased {
            id: summary.id.clone(),
        }),
        None => Ok(()),
    }
}

impl Engine {
    async fn past(&self, summary: &Summary) -> Result<Past<'_>, Error> {
        let id = &summary.id;
        let gone = || Error::RunNotFound {
            id: id.clone(),
            suggestion: String::new(),
        };
        let record = self.store.record(id).await?.ok_or_else(gone)?;
        let parsed = self.definitions.pinned(&record.document, &record.resources).await;
        let definition = parsed
            .map_err(|problems| Broken::Damaged(format!("its document is refused: {problems}")))
            .map_err(Error::from)?
            .definition;
        let journal = Journal::open(&*self.store, &record, summary).await?;
        let mut folded = journal.earliest(&definition).await?;
        let mut trail = Trail::default();
        journal
            .fold(&mut folded, journal.length(), |run, event| {
                trail.observe(run, event);
            })
            .await?;
        Ok(Past {
            journal,
            record,
            definition,
            run: folded.run,
            chain: folded.mark.chain,
            trail,
            is_cut: summary.cut.is_some(),
        })
    }

    /// Lets a run go on that has faulted or was cancelled, and returns it as it is then, durably.
    ///
    /// # Errors
    /// It has not ended so, the step has not begun, or what the run did before was taken back.
    pub async fn retry(self: &Arc<Self>, id: &RunId, from: String, wish: Wish) -> Result<View, Error> {
        let (engine, run) = (Arc::clone(self), id.clone());
        let (answer, retried) = oneshot::channel();
        // Also when whoever asked for it goes away meanwhile: what is durable must be in line.
        self.spawn("retry a run", async move {
            let _ = answer.send(engine.retry_now(&run, &from, wish).await);
        });
        let summary = retried.await.map_err(|_| Error::ShuttingDown)??;
        self.view(summary).await
    }

    async fn retry_now(&self, id: &RunId, from: &str, wish: Wish) -> Result<Summary, Error> {
        let mut summary = self.summary(id).await?;
        self.at_rest(&summary).await?;
        let refused = |why: String| Error::NotRetryable { id: id.clone(), why };
        let Some(ended_at) = summary.ended_at.filter(|_| summary.status != Status::Completed) else {
            return Err(refused("it has completed, and nothing of it failed".to_owned()));
        };
        not_erased(&summary)?;
        if summary.marks.retries >= MOST_GENERATIONS {
            return Err(refused(format!("it has been retried {MOST_GENERATIONS} times")));
        }
        let past = self.past(&summary).await?;
        let step = if from.is_empty() {
            None
        } else {
            Some(past.step(from)?)
        };
        let to = match &step {
            Some(step) => past.trail.start_of(step),
            None => past.trail.end(),
        };
        let to = match to {
            Some(to) => to,
            None if past.is_cut => {
                return Err(refused(
                    "what it failed of is before what is left of its history".to_owned(),
                ));
            }
            None => return Err(Error::Defect(format!("run '{id}' has ended without an end"))),
        };
        if let Some(task) = past.trail.undone_before(to) {
            let why = format!("{task} was compensated; it can go on from there or from a step before");
            return Err(refused(why));
        }
        let mut run = past.before(to).await?;
        let again = Again {
            length: past.journal.length(),
            next_activation: past.run.next_activation(),
            generation: past.run.generation(),
            ended: past.run.time(),
            by: wish.by,
            reason: wish.reason,
            asks: past.trail.asking_at(to).filter(|_| step.is_none()),
            from: step,
        };
        let event = run
            .retry(again, self.clock.now())
            .map_err(|mismatch| Error::Defect(mismatch.to_string()))?;
        let entries = vec![serde_json::to_vec(&event).map_err(|error| Error::Defect(error.to_string()))?];
        summary.chain = Some(live::extended(past.chain, &entries, &past.record)?);

        let _stay = self.placement.stay(id).await?;
        let newcomer = summary.newcomer();
        let reservation = self.floor.reserve(Arc::clone(&newcomer.namespace))?;
        let first_index = summary.history_length;
        summary.history_length += 1;
        summary.status = live::status(&run);
        summary.failure = None;
        summary.ended_at = None;
        summary.marks.retries = run.generation();
        summary.marks.lined_up = true;
        summary.marks.compensation = None;
        // One that had not begun is started now, which is told then.
        let events = if run.has_begun() {
            lifecycle::events(self.events.lifecycle(), &summary, &event, None)
        } else {
            Vec::new()
        };
        let told = !events.is_empty();
        let step = Step {
            summary: summary.clone(),
            first_index,
            entries,
            output: None,
            // What was withdrawn when the run ended is open again.
            approvals: Ledger::of(&run, &summary).into_open(),
            spent: None,
            events,
            snapshot: None,
            payloads: Vec::new(),
        };
        match self.store.reopen(step, ended_at).await {
            // Somebody else has retried or deleted it.
            Err(store::Error::Conflict(_)) => return Err(active(&self.summary(id).await?)),
            other => other?,
        }
        if told {
            self.events.ring();
        }
        reservation.admit(newcomer);
        self.feed.publish(id, summary.reached());
        Ok(summary)
    }

    /// Accepts a run that shares the beginning of another, and returns once it is durable. One that exists and is the same
    /// is returned as it is.
    ///
    /// # Errors
    /// There is no such run, the step has not begun, the input is refused, or the id is taken.
    pub async fn fork(self: &Arc<Self>, wish: ForkRun) -> Result<View, Error> {
        if let Some(input) = &wish.input {
            bound_depth(input)?;
        }
        let forked = Forked {
            run: wish.source.clone(),
            wish: muster_workflow_dsl::digest(&format!(
                "{}\n{}",
                wish.from,
                match &wish.input {
                    // As it was where none is given, and not null.
                    Some(Value::Null) => "null as input".to_owned(),
                    input => input.clone().unwrap_or_default().to_string(),
                }
            )),
        };
        if let Some(id) = &wish.id
            && let Some(known) = self.store.summary(id).await?
        {
            return self.same_fork(known, &forked).await;
        }
        let source = self.summary(&wish.source).await?;
        not_erased(&source)?;
        let id = wish.id.clone().unwrap_or_else(|| self.placement.fresh());
        let (record, beginning) = self.branch(&source, &id, &wish, &forked).await?;
        let summary = beginning.summary.clone();
        match self.accept(record, summary.clone(), Some(beginning)).await {
            Ok(()) => self.view(summary).await,
            // Somebody else was first with this id.
            Err(Error::Store(store::Error::Conflict(_))) => match self.store.summary(&id).await? {
                Some(known) => self.same_fork(known, &forked).await,
                None => Err(Error::Defect(format!("run '{id}' is neither free nor taken"))),
            },
            Err(error) => Err(error),
        }
    }

    async fn same_fork(&self, known: Summary, forked: &Forked) -> Result<View, Error> {
        if known.marks.forked.as_ref() == Some(forked) {
            return self.view(known).await;
        }
        Err(Error::RunExists {
            id: known.id,
            difference: "source, step or input",
        })
    }

    /// What the new run is accepted with.
    async fn branch(
        &self,
        source: &Summary,
        id: &RunId,
        wish: &ForkRun,
        forked: &Forked,
    ) -> Result<(Record, Step), Error> {
        let past = self.past(source).await?;
        if past.is_cut && !wish.from.is_empty() {
            let message = format!(
                "run '{}' has outgrown its history, and what came before the step is gone; fork it from the beginning (leave \
                 'from' empty), or retry it",
                source.id
            );
            return Err(Error::field("from", message));
        }
        let mut record = Record {
            id: id.clone(),
            ..past.record.clone()
        };
        let step = if wish.from.is_empty() {
            None
        } else {
            Some(past.step(&wish.from)?)
        };
        let index = step
            .as_deref()
            .and_then(|step| past.trail.start_of(step))
            .unwrap_or(0);
        let mut claim = source.claim.clone();
        let mut edited = wish.input.clone();
        if step.is_none() {
            record.hears_from = self.events.next_position().await?;
            if let Some(input) = edited.take() {
                record.input = input;
            }
            let start = StartRun {
                id: None,
                source: Source::Document(String::new()),
                input: record.input.clone(),
                priority: Some(source.claim.priority),
                labels: source.marks.labels.clone(),
                hears_from: None,
                origin: None,
                caller: None,
            };
            claim = self.claim(&past.definition, &start).await?;
        }
        // Nothing of the other's past is needed to begin at the beginning.
        let mut run = match index {
            0 => Run::new(id.as_str(), Arc::clone(&past.definition)),
            index => past.before(index).await?,
        };
        let now = self.clock.now();
        let event = run
            .fork(source.id.as_str(), wish.by.clone(), step.as_deref(), edited, now)
            .map_err(|refused| match refused {
                Refused::Inconsistent(mismatch) => Error::Defect(mismatch.to_string()),
                other => Error::field("input_json", other.to_string()),
            })?;
        let mut entries = past.journal.entries(index).await?;
        entries.push(serde_json::to_vec(&event).map_err(|error| Error::Defect(error.to_string()))?);
        let summary = Summary {
            history_length: entries.len() as u64,
            chain: Some(live::extended(record.chain(), &entries, &record)?),
            marks: Marks {
                asked: Asked::here(),
                labels: source.marks.labels.clone(),
                behalf: source.marks.behalf.clone(),
                forked: Some(forked.clone()),
                retries: run.generation(),
                ..Marks::default()
            },
            ..self.new_summary(id, &past.definition, claim)
        };
        let step = Step {
            approvals: Ledger::of(&run, &summary).into_open(),
            spent: None,
            events: lifecycle::events(self.events.lifecycle(), &summary, &event, None),
            snapshot: None,
            payloads: Vec::new(),
            summary,
            first_index: 0,
            entries,
            output: None,
        };
        Ok((record, step))
    }
}
