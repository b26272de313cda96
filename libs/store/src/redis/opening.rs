//! Opening a store in Redis: looked at before anything is written, and waited for where Redis is away.
//!
//! What Redis itself says passes, whatever it is: it is not there, loads its data, has no primary, does not accept the
//! password (secrets rotate; one of the two sides is late). A process that ended for it would be started again by its
//! supervisor and have won nothing. What a store holds does not pass: another version, another format. Then the
//! configuration names a wrong place, and somebody has to correct it.

use std::time::Duration;

use muster_runtime::Latch;
use redis::cmd;

use super::backoff::Backoff;
use super::{Connection, Error};

/// Pauses between tries to open a store, each of which has a connection's patience.
const PAUSES: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));

/// Why a store cannot be opened.
#[derive(Debug, Clone, thiserror::Error)]
pub enum OpenError {
    /// Redis cannot be used now.
    #[error("{0}")]
    Redis(#[from] Error),
    /// The store cannot be read now.
    #[error("{0}")]
    Unavailable(String),
    /// Redis is older than what is needed.
    #[error("Redis at {address} is version {version}; 7.0 or newer is needed, or Valkey")]
    TooOld {
        /// Where.
        address: String,
        /// Its version.
        version: String,
    },
    /// What is there is not such a store.
    #[error("Redis at {address}: key {key} says '{found}', and '{expected}' is to be opened; {remedy}")]
    Foreign {
        /// Where.
        address: String,
        /// The key that says so.
        key: String,
        /// What it says.
        found: String,
        /// What it should say.
        expected: String,
        /// What to do.
        remedy: String,
    },
    /// What is there cannot be read.
    #[error("{0}")]
    Damaged(String),
}

impl OpenError {
    /// Whether another try may succeed without a change of the configuration.
    #[must_use]
    pub fn passes(&self) -> bool {
        match self {
            Self::Redis(_) | Self::Unavailable(_) => true,
            Self::TooOld { .. } | Self::Foreign { .. } | Self::Damaged(_) => false,
        }
    }
}

impl Connection {
    /// Sees that Redis is new enough; how it may lose what it has acknowledged, each with what to do.
    ///
    /// # Errors
    /// Redis cannot be used.
    pub async fn inspect(&self) -> Result<Vec<String>, OpenError> {
        let survey = self.survey().await?;
        if let Some(version) = survey.too_old() {
            return Err(OpenError::TooOld {
                address: self.address().to_owned(),
                version: version.to_owned(),
            });
        }
        Ok(survey.risks)
    }

    /// Writes the format of a store to `key` where there is none; what is there then.
    ///
    /// # Errors
    /// Redis cannot be used.
    pub async fn mark(&self, key: &[u8], format: &str) -> Result<String, Error> {
        let mut mark = cmd("SET");
        mark.arg(key).arg(format).arg("NX");
        self.run::<Option<String>>(&mark).await?;
        let found: Option<String> = self.run(cmd("GET").arg(key)).await?;
        Ok(found.unwrap_or_default())
    }

    /// Why a store is not open yet, for a [latch](muster_runtime::health::Health::latch_because).
    #[must_use]
    pub fn waits(&self) -> String {
        match self.health() {
            Ok(()) => format!("the store in Redis at {} is being opened", self.address()),
            Err(error) => error,
        }
    }
}

/// Opens a store: `attempt` once more for as long as what is wrong may pass, with growing pauses. The latch is told when it is
/// open.
///
/// # Errors
/// What does not pass by itself.
pub async fn persist<T, F>(latch: &Latch, mut attempt: impl FnMut() -> F) -> Result<T, OpenError>
where
    F: Future<Output = Result<T, OpenError>>,
{
    let mut backoff = Backoff::between(PAUSES.0, PAUSES.1);
    let mut told = String::new();
    loop {
        let error = match attempt().await {
            Ok(opened) => {
                latch.ready();
                return Ok(opened);
            }
            Err(error) if !error.passes() => return Err(error),
            Err(error) => error.to_string(),
        };
        if error != told {
            tracing::warn!(error, "the store cannot be opened yet; trying again");
            told = error;
        }
        tokio::time::sleep(backoff.pause()).await;
    }
}
