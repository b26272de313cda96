//! Opening the store: what is there is looked at before anything is written, and everything is read before anybody is answered.

use std::sync::Arc;

use muster_runtime::clock::SharedClock;
use muster_store::redis::{Connection, Error as RedisError};
use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};
use uuid::Uuid;

use super::follower::WAIT;
use super::heartbeats::{self, Beat};
use super::mirror::{LeaseTime, Mirror, Place};
use super::reading::FORMAT;
use super::{Keys, Options, Redis, Shared, WatchLimits, Watchers};
use crate::lease::Table;
use crate::store::Error;

/// Why the store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Redis cannot be used.
    #[error("{0}")]
    Redis(#[from] RedisError),
    /// Redis is older than what is needed.
    #[error("Redis at {address} is version {version}; 7.0 or newer is needed, or Valkey")]
    TooOld {
        /// Where.
        address: String,
        /// Its version.
        version: String,
    },
    /// What is there was written by a newer registry.
    #[error(
        "Redis at {address} holds the registry's store in format '{found}', and '{FORMAT}' is understood; run the newer version, or choose another `registry.redis.key_prefix`"
    )]
    Foreign {
        /// Where.
        address: String,
        /// The format that is there.
        found: String,
    },
    /// What is there cannot be read.
    #[error("{0}")]
    Store(#[from] Error),
}

/// What has to run for as long as the store is used.
#[must_use]
pub struct Work {
    redis: Redis,
    beats: mpsc::Receiver<Beat>,
}

impl Work {
    /// Follows the feed and carries heartbeats. Ends only when it is dropped; then writes are answered without waiting until
    /// they are shown here, and heartbeats are refused.
    pub async fn run(self) {
        let Self { redis, beats } = self;
        let _stopping = Stopping(redis.clone());
        tokio::join!(redis.follow(), redis.carry(beats));
    }
}

/// Says at its end that nobody follows any more.
struct Stopping(Redis);

impl Drop for Stopping {
    fn drop(&mut self) {
        self.0.shared.followed.send_replace(None);
    }
}

impl Redis {
    /// Opens the store, or makes it, and reads all of it.
    ///
    /// # Errors
    /// Redis cannot be used, or holds what is not understood under these keys.
    pub async fn open(
        connection: Connection,
        options: Options,
        limits: WatchLimits,
        clock: SharedClock,
    ) -> Result<(Self, Work), OpenError> {
        let survey = connection.survey().await?;
        let address = connection.address().to_owned();
        if let Some(version) = survey.too_old() {
            let version = version.to_owned();
            return Err(OpenError::TooOld { address, version });
        }
        for risk in &survey.risks {
            tracing::info!(address, "agents would have to register again: {risk}");
        }
        let (sender, beats) = mpsc::channel(heartbeats::WAITING);
        // Stands in until everything is read; nobody sees it.
        let nothing = Place {
            incarnation: Uuid::nil(),
            revision: 0,
            token: String::new(),
        };
        let mut blocking = connection.options();
        blocking.answer_within += WAIT;
        let redis = Self {
            shared: Arc::new(Shared {
                feed: connection.with_options(blocking),
                connection,
                keys: Keys::new(&options.prefix),
                mirror: Mutex::new(Mirror::new(
                    Table::new(options.terms, 0),
                    nothing,
                    LeaseTime::default(),
                )),
                watchers: Watchers::new(Uuid::nil(), 0, limits),
                options,
                clock,
                followed: watch::Sender::new(None),
                beats: sender,
            }),
        };
        if let Some(head) = redis.look(None).await?
            && head.format != FORMAT
        {
            return Err(OpenError::Foreign {
                address,
                found: head.format,
            });
        }
        let mirror = redis.read_all(None).await?;
        redis.replace(mirror);
        let work = Work {
            redis: redis.clone(),
            beats,
        };
        Ok((redis, work))
    }
}
