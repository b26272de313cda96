//! Ends leases when they are due and keeps the gauges up to date, as long as the service runs.
//!
//! The store never shows a lease that has ended; this task is for those who wait for news, the watchers. It wakes
//! at the earliest deadline, and once a second in any case: the sweep bounds what a missed deadline costs
//! (a renewal in another replica, a store that did not answer), and refreshes the gauges.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use muster_runtime::Shutdown;

use crate::metrics::Observer;
use crate::store::{self, Store};

/// Longest pause.
const SWEEP: Duration = Duration::from_secs(1);
/// Shortest pause; timers count in milliseconds.
const TICK: Duration = Duration::from_millis(1);

/// Runs until the shutdown.
pub async fn run(
    store: Arc<dyn Store>,
    observer: Arc<Observer>,
    shutdown: Shutdown,
) -> Result<(), Infallible> {
    let mut answered = true;
    loop {
        let round = round(&*store, &observer).await;
        // A store that is away for an hour is told once, not 3600 times.
        match &round {
            Err(error) if answered => {
                tracing::warn!(%error, "leases cannot be kept up; trying again every second")
            }
            Ok(_) if !answered => tracing::info!("leases are kept up again"),
            Ok(_) | Err(_) => {}
        }
        answered = round.is_ok();
        let pause = round.ok().flatten().unwrap_or(SWEEP).clamp(TICK, SWEEP);
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = shutdown.requested() => return Ok(()),
        }
    }
}

async fn round(store: &dyn Store, observer: &Observer) -> Result<Option<Duration>, store::Error> {
    let next = store.expire().await?;
    observer.census(&store.census().await?);
    if let Some(feed) = store.feed() {
        observer.feed(&feed);
    }
    Ok(next)
}

#[cfg(test)]
mod tests {
    use futures::StreamExt as _;
    use jiff::{SignedDuration, Timestamp};
    use muster_api::{a2a, registry as proto};
    use muster_runtime::Metrics;
    use muster_runtime::clock::Clock;
    use tokio::task::JoinSet;
    use tokio::time::Instant;
    use uuid::Uuid;

    use super::*;
    use crate::instance::wire;
    use crate::lease::{Change, Departure};
    use crate::metrics;
    use crate::store::memory::MemoryStore;

    /// A clock that follows tokio's paused time.
    struct Paused(Instant);

    impl Clock for Paused {
        fn now(&self) -> Timestamp {
            let passed = SignedDuration::try_from(self.monotonic()).expect("a short test");
            Timestamp::UNIX_EPOCH.checked_add(passed).expect("a short test")
        }

        fn monotonic(&self) -> Duration {
            self.0.elapsed()
        }
    }

    fn silent() -> proto::Instance {
        proto::Instance {
            agent_id: "silent".to_owned(),
            card: Some(a2a::AgentCard {
                skills: vec![a2a::AgentSkill {
                    id: "s".to_owned(),
                    ..Default::default()
                }],
                ..Default::default()
            }),
            endpoint: "http://127.0.0.1:9".to_owned(),
            ..Default::default()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn watchers_hear_of_an_end_when_it_is_due() {
        let start = Instant::now();
        let settings = crate::Settings::default();
        let store: Arc<dyn Store> = Arc::new(MemoryStore::new(
            Arc::new(Paused(start)),
            settings.terms(),
            settings.watch_limits(),
        ));
        let observer = Arc::new(Observer::new(Metrics::new(metrics::DEFINITIONS).unwrap()));
        let shutdown = Shutdown::new();
        let mut upkeep = JoinSet::new();
        upkeep.spawn(run(Arc::clone(&store), observer, shutdown.clone()));

        tokio::time::advance(Duration::from_millis(12_345)).await;
        let (profile, report) = wire::registration(silent(), Uuid::from_u128(1)).unwrap();
        store
            .register(Uuid::from_u128(2), Arc::new(profile), report)
            .await
            .unwrap();
        let mut watch = store.watch(None).await.unwrap();
        let change = watch.events.next().await.unwrap().unwrap().change;
        assert!(matches!(change, Change::Removed(_, Departure::Expired)));
        let late = start.elapsed() - Duration::from_millis(12_345 + 90_000);
        assert!(late < Duration::from_millis(10), "{late:?}");

        shutdown.trigger();
        assert!(matches!(upkeep.join_next().await, Some(Ok(Ok(())))));
    }
}
