//! Holding and ending runs: pause, resume, cancel, terminate, delete.

use muster_workflow_dsl::run::Stimulus;

use crate::engine::{Engine, View};
use crate::error::Error;
use crate::run::{RunId, Summary};

/// Longest reason, in bytes: it is kept with the run and shown to people.
const LONGEST_REASON: usize = 2_048;

/// Longest name of whoever asks, in bytes.
const LONGEST_NAME: usize = 256;

/// Who wants something of a run, and why. Both may be empty.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wish {
    /// Who.
    pub by: String,
    /// Why.
    pub reason: String,
}

impl Wish {
    /// A wish of bounded length.
    ///
    /// # Errors
    /// It is too long; says which field.
    pub fn new(by: String, reason: String) -> Result<Self, Error> {
        let fields = [("by", &by, LONGEST_NAME), ("reason", &reason, LONGEST_REASON)];
        for (field, text, most) in fields {
            if text.len() > most {
                let message = format!("has {} bytes, and at most {most} are taken", text.len());
                return Err(Error::field(field, message));
            }
        }
        Ok(Self { by, reason })
    }
}

impl Engine {
    /// Holds a run and returns it as it is then, durably. One that is held already is left as it is.
    ///
    /// # Errors
    /// There is no such run, it has ended, or it cannot go on.
    pub async fn pause(&self, id: &RunId, wish: Wish) -> Result<View, Error> {
        let Wish { by, reason } = wish;
        self.control(id, Stimulus::Pause { by, reason }).await
    }

    /// Lets a held run go on and returns it as it is then, durably. One that is not held is left as it is.
    ///
    /// # Errors
    /// There is no such run, it has ended, or it cannot go on.
    pub async fn resume(&self, id: &RunId, wish: Wish) -> Result<View, Error> {
        let Wish { by, reason } = wish;
        self.control(id, Stimulus::Resume { by, reason }).await
    }

    /// Ends a run in good order and returns it as it is once that is durable: it may still have to handle and to compensate.
    ///
    /// # Errors
    /// There is no such run, it has ended, or it cannot go on.
    pub async fn cancel(&self, id: &RunId, wish: Wish) -> Result<View, Error> {
        let Wish { by, reason } = wish;
        self.control(id, Stimulus::Cancel { by, reason }).await
    }

    /// Ends a run at once and returns it as it is then, durably.
    ///
    /// # Errors
    /// There is no such run, it has ended, or it cannot go on.
    pub async fn terminate(&self, id: &RunId, wish: Wish) -> Result<View, Error> {
        let Wish { by, reason } = wish;
        self.control(id, Stimulus::Terminate { by, reason }).await
    }

    async fn control(&self, id: &RunId, stimulus: Stimulus) -> Result<View, Error> {
        let summary = self.summary(id).await?;
        if summary.status.is_final() {
            return Err(Error::RunEnded {
                id: summary.id,
                status: summary.status,
            });
        }
        self.act(id, stimulus).await
    }

    /// Forgets a run that has ended.
    ///
    /// # Errors
    /// There is no such run, or it has not ended.
    pub async fn delete(&self, id: &RunId) -> Result<(), Error> {
        let summary = self.summary(id).await?;
        self.at_rest(&summary).await?;
        match self.store.forget_run(id).await {
            // It has been retried in between.
            Err(crate::store::Error::Conflict(_)) => Err(active(&summary)),
            other => Ok(other?),
        }
    }

    /// Waits until nobody works on a run any more that has ended.
    pub(crate) async fn at_rest(&self, summary: &Summary) -> Result<(), Error> {
        if !summary.status.is_final() || !self.floor.until_gone(&summary.id).await {
            return Err(active(summary));
        }
        Ok(())
    }
}

pub(crate) fn active(summary: &Summary) -> Error {
    Error::RunActive {
        id: summary.id.clone(),
    }
}
