//! Whether a process runs: it may be frozen for a while, and it may be dead.
//!
//! A process that shares a store with others cannot be dropped as a whole the way a single one is, with the runtime that it lives
//! in. It is cut off at its ports instead: whatever of it asks the world for anything waits there, until it thaws, or for ever.
//! What it had sent before is under way and arrives all the same, as over a network.
//!
//! In which order those that wait go on once it thaws is the seed's to say; a [`tokio::sync::watch`] wakes them in another one
//! each time.

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::chance::decided;

/// See the module.
pub(crate) struct Gate {
    seed: u64,
    /// Of which life.
    life: usize,
    pulse: Mutex<Pulse>,
    thawed: Notify,
    /// How many waits there were.
    waits: Mutex<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pulse {
    Runs,
    Frozen,
    Dead,
}

impl Gate {
    /// Of a process that runs.
    pub(crate) fn new(seed: u64, life: usize) -> Self {
        Self {
            seed,
            life,
            pulse: Mutex::new(Pulse::Runs),
            thawed: Notify::new(),
            waits: Mutex::default(),
        }
    }

    /// Goes on as soon as the process runs.
    pub(crate) async fn pass(&self) {
        // One thread: nothing comes between the look and the wait.
        while !self.runs() {
            self.thawed.notified().await;
            for _ in 0..self.lag() {
                tokio::task::yield_now().await;
            }
        }
    }

    /// How many turns others get first.
    fn lag(&self) -> u64 {
        /// As many as it takes to hear an answer and to act upon it.
        const MOST: u64 = 6;
        let mut waits = self.waits.lock();
        *waits += 1;
        decided(self.seed, &[&"thaw", &self.life, &*waits]) % MOST
    }

    pub(crate) fn runs(&self) -> bool {
        *self.pulse.lock() == Pulse::Runs
    }

    pub(crate) fn freeze(&self) {
        self.turn(Pulse::Runs, Pulse::Frozen);
    }

    pub(crate) fn thaw(&self) {
        self.turn(Pulse::Frozen, Pulse::Runs);
        self.thawed.notify_waiters();
    }

    pub(crate) fn kill(&self) {
        *self.pulse.lock() = Pulse::Dead;
    }

    fn turn(&self, from: Pulse, to: Pulse) {
        let mut pulse = self.pulse.lock();
        if *pulse == from {
            *pulse = to;
        }
    }
}
