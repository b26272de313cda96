//! Opening the inbox where the router keeps everything else: in Redis, in the data directory, or in memory.

use std::sync::Arc;

use muster_runtime::clock::SharedClock;
use muster_runtime::{Chassis, Error, health};

use super::store::Store;
use super::store::local::{Local, Writer};
use super::store::redis::Redis;
use crate::config;
use crate::opening::Opened;

/// The directory in the data directory: the inbox has a database of its own, because one message may be as large as a million
/// owners, and the answers of one must not wait for the other's.
const DIRECTORY: &str = "inbox";

/// How often the store is asked whether it works.
const CHECKED: std::time::Duration = std::time::Duration::from_secs(1);

/// A store, and what writes it where it is this machine's disk.
pub(crate) struct Letterbox {
    store: Arc<dyn Store>,
    writer: Option<Writer>,
}

/// Opens it.
///
/// # Errors
/// The data directory cannot be used, or holds something else.
pub(crate) async fn open(
    settings: &config::Router,
    opened: &Opened,
    clock: SharedClock,
) -> Result<Letterbox, Error> {
    let policy = settings.inbox.policy();
    let alone = |store: Arc<dyn Store>| Letterbox { store, writer: None };
    match opened {
        Opened::Memory(..) => Ok(alone(Arc::new(Local::in_memory(policy, clock)))),
        Opened::Redis(shared) => {
            let prefix = settings.redis_prefix();
            let redis = Redis::new(shared.connection().clone(), &prefix, policy);
            Ok(alone(Arc::new(redis)))
        }
        Opened::Embedded(..) => {
            let directory = settings.data_directory.join(DIRECTORY);
            let opened = tokio::task::spawn_blocking(move || Local::open(&directory, policy, clock));
            let (store, writer) = opened
                .await
                .map_err(|error| Error::Other(format!("open the inbox: {error}")))??;
            Ok(Letterbox {
                store: Arc::new(store),
                writer: Some(writer),
            })
        }
    }
}

impl Letterbox {
    /// Has it looked after; the store. One that takes no writes does not put the router out of service, which does without.
    pub(crate) fn supervised(self, chassis: &Chassis) -> Arc<dyn Store> {
        if let Some(writer) = self.writer {
            let writing = async move {
                writer.run().await;
                Ok::<(), Error>(())
            };
            chassis.tasks.essential_until_shutdown("inbox writer", writing);
        }
        let checked = Arc::clone(&self.store);
        chassis
            .health
            .check(health::Kind::Informational, "inbox", CHECKED, move || {
                let health = checked.failure().map_or(Ok(()), Err);
                async move { health }
            });
        self.store
    }
}
