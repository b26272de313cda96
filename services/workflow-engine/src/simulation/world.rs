//! What outlives the engine: the store, what is left of the plan, and who watches.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use parking_lot::Mutex;

use super::fleet::{Fleet, Make, Reporter, Surroundings};
use super::plan::{Act, Plan, Planned};
use super::sabotage::Sabotage;
use super::shared::{Agreed, Seat};
use super::witness::{Invariant, Witness};
use crate::engine::Engine;
use crate::run::RunId;
use crate::store::memory::{Kept, Memory};

/// See the module.
pub(crate) struct World {
    pub(crate) plan: Arc<Plan>,
    pub(crate) sabotage: Option<Sabotage>,
    pub(crate) memory: Memory,
    pub(crate) witness: Arc<Witness>,
    /// Who carries calls to agents.
    pub(crate) fleet: Arc<dyn Fleet>,
    pub(crate) progress: Mutex<Progress>,
    /// What engines that share the store agree upon.
    pub(crate) agreed: Mutex<Agreed>,
    /// Those of them that live, by their addresses.
    pub(crate) living: Mutex<BTreeMap<String, Living>>,
}

/// An engine that shares the store, and lives.
#[derive(Clone)]
pub(crate) struct Living {
    pub(crate) engine: Arc<Engine>,
    pub(crate) seat: Arc<Seat>,
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
    /// What was done with each workflow that starts by itself.
    pub(crate) named: Vec<usize>,
}

/// When everything begins.
pub(crate) fn epoch() -> Timestamp {
    // 2026-01-01.
    Timestamp::from_second(1_767_225_600).unwrap_or(Timestamp::UNIX_EPOCH)
}

impl World {
    pub(crate) fn new(plan: Arc<Plan>, sabotage: Option<Sabotage>, fleet: &Make, is_calm: bool) -> Self {
        let shares = BTreeMap::from([("b".to_owned(), plan.share)]);
        let witness = Arc::new(Witness::new(plan.slots, shares));
        let surroundings = Surroundings {
            seed: plan.seed,
            is_calm,
            reporter: Reporter::new(Arc::clone(&witness)),
        };
        Self {
            fleet: fleet(surroundings),
            witness,
            progress: Mutex::new(Progress {
                now: epoch(),
                applied: 0,
                acts: vec![0; plan.runs.len()],
                named: vec![0; plan.names.len()],
            }),
            agreed: Mutex::default(),
            living: Mutex::default(),
            memory: Memory::default(),
            plan,
            sabotage,
        }
    }

    /// Who can be reached at an address.
    pub(crate) fn at(&self, address: &str) -> Option<Living> {
        self.living.lock().get(address).cloned()
    }

    pub(crate) fn is_sabotaged(&self, sabotage: Sabotage) -> bool {
        self.sabotage == Some(sabotage)
    }

    /// The runs whose ends do not depend on how long anything takes. Those that somebody cancels or retries end as it happens to;
    /// so do those that runs start, beside a branch that fails: where their ends matter, they are in the ends of these.
    fn comparable(&self) -> impl Iterator<Item = &RunId> {
        let is_steered = |run: &&Planned| {
            let mut acts = run.acts.iter();
            acts.any(|(_, act)| matches!(act, Act::Cancel | Act::Retry))
        };
        let runs = self.plan.runs.iter().filter(move |run| !is_steered(run));
        runs.map(|run| &run.id)
    }

    /// Runs end as they do in a life without faults.
    pub(crate) fn compare(&self, calm: &Self) {
        let now = self.progress.lock().now;
        let difference = self.memory.with(|mine| {
            calm.memory.with(|calm| {
                let said = |runs: &BTreeMap<RunId, Kept>, id| runs.get(id).map(end).unwrap_or_default();
                let mut ids = self
                    .comparable()
                    .filter(|id| said(&mine.runs, id) != said(&calm.runs, id));
                ids.next().map(|id| {
                    format!(
                        "run {id} ended as {:?}, and as {:?} without faults",
                        said(&mine.runs, id),
                        said(&calm.runs, id)
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

/// Which of several errors ends a run is a matter of time; that one does is not.
fn end(run: &Kept) -> String {
    let output = run.output.as_ref().map(ToString::to_string);
    format!("{} {}", run.summary.status.name(), output.unwrap_or_default())
}
