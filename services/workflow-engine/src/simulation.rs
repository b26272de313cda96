//! Whole lives of the engine out of one seed, in one thread, on virtual time.
//!
//! A seed gives a [`plan`]: workflows, runs of them, schedules and events that start others, what [`people`] do with them and
//! when, and how each life of the engine ends (killed at an instant, killed right before or right after a commit becomes
//! durable, stopped in order, a store that takes no more writes). The plan is carried out twice by the engine's own code: once
//! without faults and once with them. What is simulated is only what lies behind its ports: the clock, chance, the store
//! ([`disk`]) and who is called ([`agents`]).
//!
//! One seed of four has two or three engines on one store ([`together`]): besides ending as above and living anew, each may be
//! frozen for a while, and the store may be out of reach. They share members, leases and groups ([`shared`]) by the same code
//! that shares them in Redis.
//!
//! A [`witness`] sits at those ports. It folds every journal by itself, knows from it which calls may be made, and holds the
//! engine to what it promises ([`Invariant`]). What it sees goes into a trace; the trace's digest is the same whenever the
//! seed is, which a test holds it to.
//!
//! How the same seed gives the same life: time is tokio's, paused, and moves when nobody has anything to do; whoever waits is
//! woken in the order of waiting; nothing is done on other threads; choices of the world that must not depend on the order of
//! events are functions of the seed and of what they are about ([`chance::decided`]). A life ends by dropping its runtime
//! with everything in it, wherever it waits; the store and the agents outlive it.
//!
//! Beside the seeds there are the example workflows, which are killed at each of their commits (`examples`).
//!
//! That the witness would see a fault is shown by [`Sabotage`]: each breaks one promise, and a test sees it caught.
//!
//! What is simulated is engines. The registry's view and the router are services of their own, on which this one must not
//! depend; both are plain structures on an injected clock, so a binary that knows all of them puts them as a [`Fleet`] between
//! the engine's port for calls and the simulated agents, which `muster sim` does.
//!
//! Rejected: a simulated network below gRPC (turmoil, madsim). They want their own runtime or a patched one, and what would
//! be found there is the transport's. Also rejected: faults by failpoints inside the engine. They test the places one has
//! thought of; a life that is dropped wherever it waits tests all of them.

mod agents;
mod chance;
mod clock;
mod disk;
mod document;
#[cfg(test)]
mod examples;
mod fleet;
mod gate;
mod life;
mod people;
mod plan;
mod sabotage;
mod shared;
mod together;
mod trace;
mod witness;
mod world;

use std::sync::Arc;

use serde::Serialize;

use crate::outbound::{self, Outbound};

pub use chance::decided;
pub use fleet::{Delivery, Fleet, Reporter, Surroundings, Undelivered};
pub use sabotage::Sabotage;
pub use witness::{Invariant, Violation};
use world::World;

/// What came of a seed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// The seed.
    pub seed: u64,
    /// The promise that was broken first.
    pub violation: Option<Violation>,
    /// Digest of everything that happened.
    pub digest: u64,
    /// Everything that happened, a line each.
    pub trace: Vec<String>,
    /// How much happened.
    pub figures: Figures,
}

/// How much happened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Figures {
    /// Runs, those of runs included.
    pub runs: u64,
    /// Those of them that completed.
    pub completed: u64,
    /// Lives of the engine that ended before their work was done.
    pub faults: u64,
    /// Steps that became durable.
    pub commits: u64,
    /// Calls that were made.
    pub calls: u64,
    /// Calls that were made again under the same message id, after a crash.
    pub resent: u64,
    /// Waits that ended.
    pub timers: u64,
    /// Events that people published or runs emitted.
    pub events: u64,
    /// Things that people did to runs.
    pub controls: u64,
    /// Runs that schedules and events started.
    pub starts: u64,
    /// Calls of an engine that did not know yet that another had taken over.
    pub strays: u64,
    /// Attempts of calls that a fleet gave to an instance.
    pub deliveries: u64,
    /// Those of them that another instance had had before.
    pub moved: u64,
}

impl std::ops::AddAssign for Figures {
    fn add_assign(&mut self, other: Self) {
        self.runs += other.runs;
        self.completed += other.completed;
        self.faults += other.faults;
        self.commits += other.commits;
        self.calls += other.calls;
        self.resent += other.resent;
        self.timers += other.timers;
        self.events += other.events;
        self.controls += other.controls;
        self.starts += other.starts;
        self.strays += other.strays;
        self.deliveries += other.deliveries;
        self.moved += other.moved;
    }
}

/// Carries seeds out.
pub struct Simulation {
    outbound: Outbound,
    fleet: Box<fleet::Make>,
}

impl Simulation {
    /// One that can carry out any seed. Agents are called directly.
    ///
    /// # Errors
    /// This build cannot make what documents connect with, although none of the simulated ones does.
    pub fn new() -> Result<Self, outbound::Error> {
        Self::with_fleet(|_| Arc::new(fleet::Direct))
    }

    /// One that can carry out any seed. Agents are called through what is made for each world.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn with_fleet(
        make: impl Fn(Surroundings) -> Arc<dyn Fleet> + Send + Sync + 'static,
    ) -> Result<Self, outbound::Error> {
        Ok(Self {
            outbound: Outbound::new(&outbound::Config::default(), crate::outbound::SETTING)?,
            fleet: Box::new(make),
        })
    }

    /// Carries a seed out.
    #[must_use]
    pub fn run(&self, seed: u64) -> Outcome {
        self.run_with(seed, None)
    }

    /// Carries a seed out with an engine or a world that breaks a promise.
    #[must_use]
    pub fn run_with(&self, seed: u64, sabotage: Option<Sabotage>) -> Outcome {
        let plan = Arc::new(plan::Plan::new(seed));
        let calm = Arc::new(World::new(
            Arc::new(plan.without_faults()),
            None,
            &*self.fleet,
            true,
        ));
        life::live_on(&calm, &self.outbound);
        let world = Arc::new(World::new(plan, sabotage, &*self.fleet, false));
        if !calm.witness.is_violated() {
            life::live_on(&world, &self.outbound);
            world.compare(&calm);
        }
        let told = if calm.witness.is_violated() { &calm } else { &world };
        told.witness.outcome(seed)
    }
}

#[cfg(test)]
mod tests;
