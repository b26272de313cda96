//! The schedules of workflows.

use async_trait::async_trait;

use super::{Error, Page};
use crate::timetable::{Name, Schedule};

/// Durable schedules.
#[async_trait]
pub trait Schedules: Send + Sync + 'static {
    /// Writes a schedule; a [`Error::Conflict`] unless the one that is there has the revision before it, which is 0 where
    /// there is none.
    async fn put_schedule(&self, schedule: &Schedule) -> Result<(), Error>;

    /// Removes a schedule; a [`Error::Conflict`] unless it has this revision.
    async fn remove_schedule(&self, name: &Name, revision: u64) -> Result<(), Error>;

    /// Reads a schedule.
    async fn schedule(&self, name: &Name) -> Result<Option<Schedule>, Error>;

    /// Lists schedules by namespace and name, from after `after`.
    async fn schedules(&self, after: Option<&Name>, limit: usize) -> Result<Page<Schedule, Name>, Error>;
}
