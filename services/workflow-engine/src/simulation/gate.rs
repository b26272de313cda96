//! Whether a process runs: it may be frozen for a while, and it may be dead.
//!
//! A process that shares a store with others cannot be dropped as a whole the way a single one is, with the runtime that it lives
//! in. It is cut off at its ports instead: whatever of it asks the world for anything waits there, until it thaws, or for ever.
//! What it had sent before is under way and arrives all the same, as over a network.

use tokio::sync::watch;

/// See the module.
pub(crate) struct Gate(watch::Sender<Pulse>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pulse {
    Runs,
    Frozen,
    Dead,
}

impl Default for Gate {
    fn default() -> Self {
        Self(watch::Sender::new(Pulse::Runs))
    }
}

impl Gate {
    /// Goes on as soon as the process runs.
    pub(crate) async fn pass(&self) {
        let mut pulse = self.0.subscribe();
        let _closed = pulse.wait_for(|pulse| *pulse == Pulse::Runs).await;
    }

    pub(crate) fn runs(&self) -> bool {
        *self.0.borrow() == Pulse::Runs
    }

    pub(crate) fn freeze(&self) {
        self.turn(Pulse::Runs, Pulse::Frozen);
    }

    pub(crate) fn thaw(&self) {
        self.turn(Pulse::Frozen, Pulse::Runs);
    }

    pub(crate) fn kill(&self) {
        self.0.send_replace(Pulse::Dead);
    }

    fn turn(&self, from: Pulse, to: Pulse) {
        self.0.send_if_modified(|pulse| {
            let turns = *pulse == from;
            if turns {
                *pulse = to;
            }
            turns
        });
    }
}
