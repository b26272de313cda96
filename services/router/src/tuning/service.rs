//! Looks at what the links have measured, and does what the rules say.
//!
//! A change is in the audit log before it is made, and is not made where it cannot be; then what was measured in the period is gone, and
//! the next one decides anew.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use jiff::Timestamp;
use muster_runtime::telemetry::Optimizer;
use muster_runtime::trust::audit::Auditor;
use parking_lot::Mutex;

use super::ledger::{Change, Ledger, Place};
use super::{Bounds, Crowd, Period, Step, WHOLE, places, shares};
use crate::fleet::{Instance, Key};
use crate::forward::Forwarder;
use crate::link::Link;

/// What the audit log calls it.
const ACTION: &str = "tuning";

/// What is taken back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted {
    /// These changes.
    Numbers(Vec<u64>),
    /// All.
    All,
}

/// There is no change with this number that is in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unknown(pub u64);

/// What there is to tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// What is done about what is found.
    pub mode: Optimizer,
    /// What was changed, the oldest first.
    pub changes: Vec<Change>,
    /// What would be changed, and when that was found.
    pub proposals: Vec<(Timestamp, Place, Step)>,
}

/// See the module.
pub struct Tuner {
    forwarder: Arc<Forwarder>,
    mode: Optimizer,
    bounds: Bounds,
    auditor: Auditor,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    ledger: Ledger,
    /// What was measured at the last look, of which registration.
    seen: HashMap<Key, (u64, Period)>,
    proposals: Vec<(Timestamp, Place, Step)>,
}

/// An instance at a look.
struct Looked {
    instance: Arc<Instance>,
    link: Arc<Link>,
    period: Period,
}

impl Tuner {
    /// A tuner that does this within these bounds.
    #[must_use]
    pub fn new(forwarder: Arc<Forwarder>, mode: Optimizer, bounds: Bounds, auditor: Auditor) -> Arc<Self> {
        Arc::new(Self {
            forwarder,
            mode,
            bounds,
            auditor,
            state: Mutex::default(),
        })
    }

    /// What was done and found.
    #[must_use]
    pub fn report(&self) -> Report {
        let state = self.state.lock();
        Report {
            mode: self.mode,
            changes: state.ledger.changes().cloned().collect(),
            proposals: state.proposals.clone(),
        }
    }

    /// Looks at what was measured since the last time, and changes what is to be changed. Where blocking is allowed.
    ///
    /// # Errors
    /// The audit log cannot be written.
    pub fn look(&self) -> Result<(), String> {
        let mut state = self.state.lock();
        let agents = self.looked(&mut state);
        let has_agent = |agent: &str| agents.contains_key(agent);
        let is_there = |key: &Key, epoch: u64| {
            let mut instances = agents.get(&key.agent).into_iter().flatten();
            instances.any(|looked| *looked.instance.id == *key && looked.instance.epoch == epoch)
        };
        state.ledger.retain(is_there, has_agent);
        state.proposals.clear();
        let mut outcome = Ok(());
        for (agent, instances) in &agents {
            for (place, step, whole) in self.steps(&state.ledger, agent, instances) {
                outcome = outcome.and_then(|()| self.take(&mut state, place, step, whole));
            }
        }
        self.follow(&state.ledger);
        outcome
    }

    /// What was measured of every instance since the last look, by agent.
    fn looked(&self, state: &mut State) -> BTreeMap<String, Vec<Looked>> {
        let parts = self.forwarder.parts();
        let now = parts.clock.monotonic();
        let fleet: Vec<Arc<Instance>> = parts.view.read().instances().cloned().collect();
        let mut seen = HashMap::with_capacity(fleet.len());
        let mut agents: BTreeMap<String, Vec<Looked>> = BTreeMap::new();
        for instance in fleet {
            let link = parts.links.to(&instance, now);
            let total = link.measured().total();
            let before = match state.seen.get(&*instance.id) {
                Some((epoch, before)) if *epoch == instance.epoch => *before,
                _ => Period::default(),
            };
            seen.insert(instance.key(), (instance.epoch, total));
            agents.entry(instance.id.agent.clone()).or_default().push(Looked {
                period: total.since(before),
                instance,
                link,
            });
        }
        state.seen = seen;
        agents
    }

    /// What the rules say of one agent, with what each place has without any change.
    fn steps(&self, ledger: &Ledger, agent: &str, instances: &[Looked]) -> Vec<(Place, Step, u32)> {
        let of = |looked: &Looked| {
            let share = ledger.share(&looked.instance.id, looked.instance.epoch);
            (share, looked.period)
        };
        let measured: Vec<(u32, Period)> = instances.iter().map(of).collect();
        let mut steps = Vec::new();
        for (looked, step) in instances.iter().zip(shares(&measured, &self.bounds)) {
            if let Some(step) = step {
                let place = Place::Share(looked.instance.key(), looked.instance.epoch);
                steps.push((place, step, WHOLE));
            }
        }
        if let Some(crowd) = crowd(instances) {
            let now = ledger.places(agent).unwrap_or(crowd.declared);
            if let Some(step) = places(now, &crowd, &self.bounds) {
                steps.push((Place::Places(agent.to_owned()), step, crowd.declared));
            }
        }
        steps.retain(|(place, ..)| !ledger.is_held(place));
        steps
    }

    /// Makes a change, or remembers it as one that would be made.
    fn take(&self, state: &mut State, place: Place, step: Step, whole: u32) -> Result<(), String> {
        let parts = self.forwarder.parts();
        let at = parts.clock.now();
        if self.mode != Optimizer::Apply {
            state.proposals.push((at, place, step));
            return Ok(());
        }
        let (kind, object) = (place.kind(), place.name());
        let because = format!("{} to {}: {}", step.from, step.to, step.evidence);
        self.auditor
            .changes(&format!("{ACTION} {kind}"), &object, &because)?;
        tracing::info!(
            kind,
            place = object,
            from = step.from,
            to = step.to,
            evidence = step.evidence,
            "an improvement is applied"
        );
        let how = if step.to < step.from { "less" } else { "more" };
        parts.meters.tuned(kind, how);
        state.ledger.change(place, step, whole, at);
        Ok(())
    }

    /// Takes changes back; their places are left alone from then on. Where blocking is allowed.
    ///
    /// # Errors
    /// One of them is none that is in force, and none is taken back.
    pub fn revert(&self, wanted: Wanted) -> Result<Vec<Change>, Unknown> {
        let mut state = self.state.lock();
        let reverted = match wanted {
            Wanted::All => state.ledger.revert_all(),
            Wanted::Numbers(numbers) => {
                if let Some(unknown) = numbers.iter().find(|number| !state.ledger.has(**number)) {
                    return Err(Unknown(*unknown));
                }
                let declared = self.declared();
                let whole = |place: &Place| match place {
                    Place::Share(..) => WHOLE,
                    Place::Places(agent) => declared.get(agent).copied().unwrap_or_default(),
                };
                let numbers: BTreeSet<u64> = numbers.into_iter().collect();
                // The first of a place takes the later ones with it.
                let each = numbers.into_iter();
                each.flat_map(|number| state.ledger.revert(number, whole))
                    .collect()
            }
        };
        let meters = &self.forwarder.parts().meters;
        for change in &reverted {
            let (kind, object) = (change.place.kind(), change.place.name());
            tracing::info!(
                kind,
                place = object,
                number = change.number,
                "a change is taken back"
            );
            meters.tuned(kind, "reverted");
        }
        self.follow(&state.ledger);
        Ok(reverted)
    }

    /// How many messages at once the cards of agents say.
    fn declared(&self) -> BTreeMap<String, u32> {
        let view = self.forwarder.parts().view.read();
        let instances = view.instances();
        instances
            .filter_map(|instance| Some((instance.id.agent.clone(), instance.max_concurrency?)))
            .collect()
    }

    /// Has the links do as the ledger says.
    fn follow(&self, ledger: &Ledger) {
        let parts = self.forwarder.parts();
        let now = parts.clock.monotonic();
        let fleet: Vec<Arc<Instance>> = parts.view.read().instances().cloned().collect();
        let mut agents: BTreeSet<String> = parts.links.ceilings().into_iter().collect();
        for instance in fleet {
            let share = ledger.share(&instance.id, instance.epoch);
            parts.links.to(&instance, now).set_share(share);
            if ledger.places(&instance.id.agent).is_some() {
                agents.insert(instance.id.agent.clone());
            }
        }
        for agent in agents {
            parts.links.set_ceiling(&agent, ledger.places(&agent));
        }
        let (shares, agents) = ledger.in_force();
        parts.meters.tuning(shares, agents);
        // There may be places now that were none.
        parts.flow.arrived();
    }
}

/// How full an agent is; `None` where the cards of its instances do not agree on how many messages they take, or say nothing.
fn crowd(instances: &[Looked]) -> Option<Crowd> {
    let declared = instances.first()?.instance.max_concurrency?;
    let mut all = Crowd {
        declared,
        alone: None,
        was_full: false,
        period: Period::default(),
    };
    for looked in instances {
        if looked.instance.max_concurrency != Some(declared) {
            return None;
        }
        all.was_full |= looked.link.take_was_full();
        all.period = all.period.and(looked.period);
        // The longest of them: less is blamed on company.
        all.alone = match (all.alone, looked.link.alone()) {
            (Some(one), Some(other)) => Some(one.max(other)),
            (one, other) => one.or(other),
        };
    }
    Some(all)
}
