//! Promises broken on purpose, to see them caught. Only a simulation can ask for it.
//!
//! Each is put where the engine meets the world, and looks there as a defect of the engine or of a store would: the engine's
//! own code stays as it is.

use serde::Serialize;

/// A promise that is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sabotage {
    /// A crash takes the last step with it that the store had acknowledged.
    ForgetsAcknowledged,
    /// A crash takes the last event with it that a publisher was told to be there.
    ForgetsEvent,
    /// A step is acknowledged before it is durable, so that the next call is made before the last result is recorded.
    AcknowledgesEarly,
    /// Runs that wait are not found on recovery, and their timers with them.
    ForgetsTimers,
    /// The clock is fast, so that timers fire early.
    HurriesTimers,
    /// A timer's end is written twice.
    RepeatsTimer,
    /// An entry of the journal is left out.
    SkipsEntry,
    /// A call is made again whose result is recorded.
    RepeatsRecorded,
    /// A call that was in flight at a crash is sent again as another attempt.
    RaisesAttempt,
    /// A call that is in flight is made a second time.
    CallsTwice,
    /// One slot is not counted.
    MiscountsSlots,
    /// One slot of a namespace is not counted.
    MiscountsNamespace,
    /// Runs that are under way are not counted in their groups after a recovery.
    ForgetsGroups,
    /// A call that is sent again is answered otherwise.
    AnswersAnew,
    /// The state that is kept of a run is older than it says.
    KeepsOldState,
    /// A shared store takes writes of whoever has lost the lease.
    IgnoresFences,
    /// Engines that share a store do not count each other's runs in groups.
    ForgetsOthers,
    /// A schedule leaves an instant out.
    SkipsInstant,
    /// An event is found at two places of the log.
    RepeatsEvent,
}

impl Sabotage {
    /// All of them.
    pub const ALL: [Self; 19] = [
        Self::ForgetsAcknowledged,
        Self::ForgetsEvent,
        Self::AcknowledgesEarly,
        Self::ForgetsTimers,
        Self::HurriesTimers,
        Self::RepeatsTimer,
        Self::SkipsEntry,
        Self::RepeatsRecorded,
        Self::RaisesAttempt,
        Self::CallsTwice,
        Self::MiscountsSlots,
        Self::MiscountsNamespace,
        Self::ForgetsGroups,
        Self::AnswersAnew,
        Self::KeepsOldState,
        Self::IgnoresFences,
        Self::ForgetsOthers,
        Self::SkipsInstant,
        Self::RepeatsEvent,
    ];
}
