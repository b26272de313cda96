//! What outlives the engine: the store, what is left of the plan, and who watches.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use parking_lot::Mutex;

use super::plan::{Act, Plan};
use super::sabotage::Sabotage;
use super::witness::{Invariant, Witness};
use crate::run::{RunId, Summary};
use crate::store::memory::{Kept, Memory};

/// See the module.
pub(crate) struct World {
    pub(crate) plan: Arc<Plan>,
    pub(crate) sabotage: Option<Sabotage>,
    pub(crate) memory: Memory,
    pub(crate) witness: Arc<Witness>,
    pub(crate) progress: Mutex<Progress>,
}

/// How far people have come.
#[derive(Debug)]
pub(crate) struct Progress {
    /// The time between two lives.
    pub(crate) now: Timestamp,
    /// Documents that were applied.
    pub(crate) applied: usize,
    /// What was done to each run.
    pub(crate) acts: Vec<usize>,
}

/// When everything begins.
pub(crate) fn epoch() -> Timestamp {
    // 2026-01-01.
    Timestamp::from_second(1_767_225_600).unwrap_or(Timestamp::UNIX_EPOCH)
}

impl World {
    pub(crate) fn new(plan: Arc<Plan>, sabotage: Option<Sabotage>) -> Self {
        let shares = BTreeMap::from([("b".to_owned(), plan.share)]);
        Self {
            witness: Arc::new(Witness::new(plan.slots, shares)),
            progress: Mutex::new(Progress {
                now: epoch(),
                applied: 0,
                acts: vec![0; plan.runs.len()],
            }),
            memory: Memory::default(),
            plan,
            sabotage,
        }
    }

    pub(crate) fn is_sabotaged(&self, sabotage: Sabotage) -> bool {
        self.sabotage == Some(sabotage)
    }

    /// Whether somebody ends it, or the run that has started it: then it ends as it happens to.
    fn is_cut(&self, runs: &BTreeMap<RunId, Kept>, summary: &Summary) -> bool {
        let mut id = &summary.id;
        while let Some(parent) = runs.get(id).and_then(|run| run.summary.parent()) {
            id = &parent.run;
        }
        let planned = self.plan.runs.iter().find(|run| run.id == *id);
        planned.is_some_and(|run| run.acts.iter().any(|(_, act)| *act == Act::Cancel))
    }

    /// Runs end as they do in a life without faults.
    pub(crate) fn compare(&self, calm: &Self) {
        let now = self.progress.lock().now;
        let difference = self.memory.with(|mine| {
            calm.memory.with(|calm| {
                let counts = |runs: &BTreeMap<RunId, Kept>| {
                    let kept = runs.values().filter(|run| !self.is_cut(runs, &run.summary));
                    let ends = kept.map(|run| (run.summary.id.clone(), end(run)));
                    ends.collect::<BTreeMap<_, _>>()
                };
                let (mine, theirs) = (counts(&mine.runs), counts(&calm.runs));
                let ids = mine.keys().chain(theirs.keys());
                let mut ids = ids.filter(|id| mine.get(*id) != theirs.get(*id));
                ids.next().map(|id| {
                    let said = |ends: &BTreeMap<RunId, String>| ends.get(id).cloned().unwrap_or_default();
                    format!(
                        "run {id} ended as {:?}, and as {:?} without faults",
                        said(&mine),
                        said(&theirs)
                    )
                })
            })
        });
        if let Some(detail) = difference
            && !self.witness.is_violated()
        {
            self.witness.accuse(now, Invariant::OutputsAgree, detail);
        }
    }
}

fn end(run: &Kept) -> String {
    let output = run.output.as_ref().map(ToString::to_string).unwrap_or_default();
    let failure = run
        .summary
        .failure
        .as_ref()
        .map(|failure| format!("{} {} {}", failure.kind, failure.status, failure.instance));
    format!(
        "{} {output}{}",
        run.summary.status.name(),
        failure.unwrap_or_default()
    )
}
