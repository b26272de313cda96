//! Erasing: what is written over what is stored of an ended run.

use async_trait::async_trait;

use super::Error;
use crate::approval::Approval;
use crate::run::{Record, Summary};

/// What is written over what is stored of an ended run, in one atomic step.
#[derive(Debug, Clone)]
pub struct Rewrite {
    /// Its summary.
    pub summary: Summary,
    /// What it is pinned to, where that changes.
    pub record: Option<Record>,
    /// Index of the first entry that changes.
    pub first_index: u64,
    /// The entries that change.
    pub entries: Vec<Vec<u8>>,
    /// The approvals that change.
    pub approvals: Vec<Approval>,
}

/// See the module.
#[async_trait]
pub trait Erase {
    /// Writes over what is stored of a run, and forgets its output and its states; an [`Error::Conflict`] if it is not there or
    /// its journal goes on. From the first time on, nothing is appended to the journal any more: it cannot be reopened.
    async fn rewrite(&self, rewrite: Rewrite) -> Result<(), Error>;
}
