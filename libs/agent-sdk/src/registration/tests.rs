//! A registry that goes away and comes back, on paused time.

use std::sync::Arc;

use jiff::SignedDuration;
use muster_api::error::{Error, Reason};
use muster_api::time::duration_to_proto;
use muster_runtime::clock::{ManualClock, SharedClock};
use muster_runtime::{Metrics, Shutdown, Tasks};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::*;
use crate::metrics::DEFINITIONS;

const INTERVAL: Duration = Duration::from_secs(30);
const AFTER_ERROR: Duration = Duration::from_secs(5);

/// A registry that is away for a while, and remembers when it was asked.
#[derive(Clone)]
struct Away {
    since: Instant,
    from: Duration,
    to: Duration,
    heartbeats: Arc<Mutex<Vec<Duration>>>,
    registrations: Arc<Mutex<Vec<Duration>>>,
}

impl Away {
    fn between(from: u64, to: u64) -> Self {
        Self {
            since: Instant::now(),
            from: Duration::from_secs(from),
            to: Duration::from_secs(to),
            heartbeats: Arc::default(),
            registrations: Arc::default(),
        }
    }

    fn asked(&self, list: &Mutex<Vec<Duration>>) -> Result<Lease, Status> {
        let now = self.since.elapsed();
        list.lock().push(now);
        if (self.from..self.to).contains(&now) {
            return Err(Status::unavailable("away"));
        }
        Ok(Lease {
            lease_id: "l".to_owned(),
            heartbeat_interval: Some(duration_to_proto(SignedDuration::from_secs(30))),
            ..Lease::default()
        })
    }
}

impl Registry for Away {
    async fn register(&mut self, _: Instance) -> Result<Option<Lease>, Status> {
        self.asked(&self.registrations).map(Some)
    }

    async fn heartbeat(&mut self, _: HeartbeatRequest) -> Result<HeartbeatResponse, Status> {
        let lease = Some(self.asked(&self.heartbeats)?);
        Ok(HeartbeatResponse {
            lease,
            ..HeartbeatResponse::default()
        })
    }

    async fn deregister(&mut self, _: String) -> Result<(), Status> {
        Ok(())
    }
}

/// Keeps an instance registered for so long; what is measured then, and how it stands.
async fn kept(registry: &Away, seconds: u64) -> (String, Result<(), String>) {
    let clock: SharedClock = Arc::new(ManualClock::default());
    let shutdown = Shutdown::new();
    let metrics = Metrics::new(DEFINITIONS).unwrap();
    let running = Running::new("weather", 1, Arc::clone(&clock));
    let beat = Beat {
        background: Background::new(
            Tasks::unsupervised(shutdown.clone()),
            metrics.clone(),
            Arc::clone(&clock),
            shutdown,
        ),
        after_error: AFTER_ERROR,
    };
    let meters = Meters::new(metrics.clone(), clock, running.clone());
    let (registration, handle) = Registration::new(
        "registry:1".to_owned(),
        registry.clone(),
        Instance::default(),
        running,
        meters,
        beat,
    );
    let looking = async {
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        let standing = handle.check();
        handle.goodbye().await;
        standing
    };
    let ((), standing) = tokio::join!(registration.keep(), looking);
    (metrics.render(), standing)
}

/// The waits between these moments.
fn waits(moments: &[Duration]) -> Vec<Duration> {
    moments.windows(2).map(|pair| pair[1] - pair[0]).collect()
}

fn is_steady(wait: &Duration) -> bool {
    (AFTER_ERROR.mul_f64(1.0 - CHANCE)..=AFTER_ERROR + Duration::from_millis(2)).contains(wait)
}

#[tokio::test(start_paused = true)]
async fn heartbeats_keep_their_rhythm_and_after_an_error_another_one() {
    let registry = Away::between(70, 120);
    let (measured, standing) = kept(&registry, 300).await;
    let moments = registry.heartbeats.lock().clone();
    assert_eq!(registry.registrations.lock().len(), 1, "the lease was kept");
    let first_failure = moments
        .iter()
        .position(|moment| *moment >= registry.from)
        .unwrap();
    let first_success = moments.iter().position(|moment| *moment >= registry.to).unwrap();
    let waits = waits(&moments);
    let is_rhythm = |wait: &Duration| (INTERVAL..=INTERVAL + Duration::from_millis(2)).contains(wait);
    assert!(waits[..first_failure].iter().all(is_rhythm), "{waits:?}");
    assert!(
        waits[first_failure] <= AT_ONCE + Duration::from_millis(2),
        "{waits:?}"
    );
    let steady = &waits[first_failure + 1..first_success];
    assert!(steady.len() >= 4 && steady.iter().all(is_steady), "{waits:?}");
    assert!(waits[first_success..].iter().all(is_rhythm), "{waits:?}");

    let (failed, went_well) = (
        first_success - first_failure,
        moments.len() + first_failure - first_success,
    );
    for (outcome, count) in [("failure", failed), ("success", went_well)] {
        let series =
            format!("background_runs_total{{background=\"heartbeat\",outcome=\"{outcome}\"}} {count}\n");
        assert!(measured.contains(&series), "{series}: {measured}");
    }
    assert_eq!(standing, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn who_has_no_lease_begins_as_quickly_and_waits_no_longer() {
    let registry = Away::between(0, 60);
    let (_, standing) = kept(&registry, 50).await;
    let waits = waits(&registry.registrations.lock());
    assert!(waits[0] <= AT_ONCE + Duration::from_millis(2), "{waits:?}");
    assert!(waits.len() >= 9 && waits[1..].iter().all(is_steady), "{waits:?}");
    assert_eq!(standing, Err("the registry does not answer: away".to_owned()));
}

#[test]
fn errors_are_told_apart_by_what_helps() {
    let after = |reason| Standing::after(&Status::from(Error::new(reason, "why")));
    assert_eq!(after(Reason::LeaseNotFound), Standing::Lost);
    assert_eq!(after(Reason::InvalidField), Standing::Refused("why".to_owned()));
    assert_eq!(after(Reason::NodeFull), Standing::Refused("why".to_owned()));
    assert_eq!(
        after(Reason::StoreUnavailable),
        Standing::Unreachable("why".to_owned())
    );
}

#[test]
fn the_leases_interval_is_obeyed_within_reason() {
    let lease = |seconds| Lease {
        heartbeat_interval: Some(duration_to_proto(SignedDuration::from_secs(seconds))),
        ..Lease::default()
    };
    assert_eq!(interval(&lease(30)), Duration::from_secs(30));
    assert_eq!(interval(&lease(0)), SHORTEST_INTERVAL);
    assert_eq!(interval(&lease(-5)), DEFAULT_INTERVAL);
    assert_eq!(interval(&lease(86_400)), LONGEST_INTERVAL);
    assert_eq!(interval(&Lease::default()), DEFAULT_INTERVAL);
}
