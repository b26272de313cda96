//! Opening the store: what is there is looked at before anything is written, and everything is read before anybody is answered.

use std::sync::Arc;

use muster_runtime::clock::SharedClock;
use muster_store::redis::{Connection, OpenError};
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

impl From<Error> for OpenError {
    fn from(error: Error) -> Self {
        Self::Unavailable(error.to_string())
    }
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
        for risk in connection.inspect().await? {
            tracing::info!(
                address = connection.address(),
                "agents would have to register again: {risk}"
            );
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
                course: super::follower::Shown::default(),
            }),
        };
        if let Some(head) = redis.look(None).await?
            && head.format != FORMAT
        {
            return Err(OpenError::Foreign {
                address: redis.address().to_owned(),
                key: String::from_utf8_lossy(&redis.shared.keys.state()).into_owned(),
                found: head.format,
                expected: FORMAT.to_owned(),
                remedy: "run the newer version, or choose another `registry.redis.key_prefix`".to_owned(),
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
