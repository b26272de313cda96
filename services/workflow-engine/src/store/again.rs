//! Runs that do not begin at the beginning: an ended one that goes on, a new one with the journal of another.

use async_trait::async_trait;
use jiff::Timestamp;

use super::{Error, Step};
use crate::run::Record;

/// See the module.
#[async_trait]
pub trait Again {
    /// Writes one step of a run that had ended at `ended_at` and goes on with it; an [`Error::Conflict`] unless the journal
    /// ends right before the step, also when the run is being forgotten.
    async fn reopen(&self, step: Step, ended_at: Timestamp) -> Result<(), Error>;

    /// Accepts a run whose journal has the entries of this step already, all in one atomic step; an [`Error::Conflict`] if the id is taken.
    async fn create_with(&self, record: &Record, step: Step) -> Result<(), Error>;
}
