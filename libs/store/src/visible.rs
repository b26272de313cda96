//! What readers see: the state after the last batch that is on disk, never the middle of the next one.
//!
//! The engine applies a batch key by key. Its own snapshots are meant to hide that, by a sequence number that moves on
//! when the batch is complete; but when it writes a table to a file, or merges files, it takes the next sequence number
//! and makes it visible at once (fjall 3.1.13, `upgrade_version` of lsm-tree), and with it the half of a batch that is
//! applied beside it. Therefore the writer alone takes snapshots, between two batches, and readers get copies of the
//! latest one. A reader that took half of a batch for the whole would find gaps where there are none, and go past what
//! it has not seen.
//!
//! Rejected: a lock that keeps readers out while a batch is applied (the engine syncs in the same step, so all readers
//! would wait for the disk).

use std::sync::{Arc, PoisonError, RwLock};

/// The latest state that is whole. Clones share it.
#[derive(Clone)]
pub(crate) struct Visible(Arc<RwLock<fjall::Snapshot>>);

impl Visible {
    /// Of an engine that nobody writes to.
    pub(crate) fn of(engine: &fjall::Database) -> Self {
        Self(Arc::new(RwLock::new(engine.snapshot())))
    }

    /// All that `engine` holds is whole: to be called by the writer only, and not while it writes.
    pub(crate) fn advance(&self, engine: &fjall::Database) {
        let snapshot = engine.snapshot();
        let former = std::mem::replace(
            &mut *self.0.write().unwrap_or_else(PoisonError::into_inner),
            snapshot,
        );
        drop(former);
    }

    pub(crate) fn snapshot(&self) -> fjall::Snapshot {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
