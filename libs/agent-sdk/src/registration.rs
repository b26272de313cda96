//! Staying found: registration, heartbeats, and goodbye.
//!
//! An instance holds a lease at the registry and renews it as often as the lease says, with the load and latency that
//! it really has. Whatever happens to the registry, the instance goes on serving and goes on trying: a lease that is
//! gone (expired, replaced, or forgotten by a restarted registry) is answered by registering again; silence by
//! backing off with jitter, so that a fleet does not return all at once. There is no last attempt. The log says each
//! change of standing once, not each attempt.
//!
//! While the registry is silent only heartbeats are tried. Registering instead was rejected: it would replace a
//! lease that may still stand and so make the instance vanish and return for everybody who watches.

use std::time::Duration;

use muster_api::registry::registry_service_client::RegistryServiceClient;
use muster_api::registry::{
    DeregisterRequest, HeartbeatRequest, HeartbeatResponse, Instance, InstanceStatus, Lease, RegisterRequest,
};
use muster_api::time::duration_from_proto;
use muster_rpc::backoff::Backoff;
use muster_rpc::endpoint::Endpoint;
use muster_runtime::trust::identity::Channel;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

use crate::metrics::Meters;
use crate::running::{Accepts, Running};

/// How long one call to the registry may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// How long saying goodbye may take; the lease ends by itself anyway.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(2);
/// Waits between attempts.
const BACKOFF: Backoff = Backoff::doubling(Duration::from_millis(250), Duration::from_secs(10));
/// Heartbeat interval where the lease gives none, and the range that is obeyed.
const DEFAULT_INTERVAL: Duration = Duration::from_secs(10);
const SHORTEST_INTERVAL: Duration = Duration::from_millis(50);
const LONGEST_INTERVAL: Duration = Duration::from_secs(300);

/// How the instance stands with the registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Nothing has come back yet.
    Unknown,
    /// A lease is held.
    Registered,
    /// The lease is gone; a new one is being asked for.
    Lost,
    /// The registry does not answer.
    Unreachable(String),
    /// The registry does not want this instance as it is.
    Refused(String),
}

impl Standing {
    /// What an error of the registry means.
    fn after(status: &Status) -> Self {
        match status.code() {
            Code::NotFound => Self::Lost,
            Code::InvalidArgument
            | Code::FailedPrecondition
            | Code::PermissionDenied
            | Code::Unauthenticated
            | Code::Unimplemented
            | Code::AlreadyExists
            | Code::OutOfRange
            | Code::ResourceExhausted => Self::Refused(status.message().to_owned()),
            Code::Ok
            | Code::Cancelled
            | Code::Unknown
            | Code::DeadlineExceeded
            | Code::Aborted
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss => Self::Unreachable(status.message().to_owned()),
        }
    }

    fn is_same_kind(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other)
    }
}

/// Keeps one instance registered.
pub(crate) struct Registration {
    registry: Endpoint,
    client: RegistryServiceClient<Channel>,
    instance: Instance,
    running: Running,
    meters: Meters,
    lease: Option<Lease>,
    standing: watch::Sender<Standing>,
    stop: CancellationToken,
    stopped: CancellationToken,
}

/// The other end of a [`Registration`], for health checks and for the drain.
#[derive(Clone)]
pub(crate) struct Handle {
    standing: watch::Receiver<Standing>,
    stop: CancellationToken,
    stopped: CancellationToken,
}

impl Registration {
    pub(crate) fn new(
        registry: Endpoint,
        channel: Channel,
        instance: Instance,
        running: Running,
        meters: Meters,
    ) -> (Self, Handle) {
        let registration = Self {
            client: RegistryServiceClient::new(channel),
            registry,
            instance,
            running,
            meters,
            lease: None,
            standing: watch::Sender::new(Standing::Unknown),
            stop: CancellationToken::new(),
            stopped: CancellationToken::new(),
        };
        let handle = Handle {
            standing: registration.standing.subscribe(),
            stop: registration.stop.clone(),
            stopped: registration.stopped.clone(),
        };
        (registration, handle)
    }

    /// Registers and keeps the lease until the handle says goodbye, then ends it.
    pub(crate) async fn keep(mut self) {
        let stop = self.stop.clone();
        let mut attempt = 0;
        while !stop.is_cancelled() {
            // Not interrupted by a goodbye: a registration that was dropped in flight would leave a lease behind
            // that nobody knows to end.
            match self.register().await {
                Ok(lease) => {
                    attempt = 0;
                    self.lease = Some(lease.clone());
                    self.stand(Standing::Registered);
                    if let Some(end) = stop.run_until_cancelled(self.hold(lease)).await {
                        self.lease = None;
                        self.stand(end);
                    }
                }
                Err(status) => self.stand(Standing::after(&status)),
            }
            stop.run_until_cancelled(pause(attempt)).await;
            attempt = attempt.saturating_add(1);
        }
        self.deregister().await;
        self.stopped.cancel();
    }

    async fn deregister(&mut self) {
        let Some(lease) = self.lease.take() else { return };
        let request = DeregisterRequest {
            lease_id: lease.lease_id,
        };
        match bounded(GOODBYE_TIMEOUT, self.client.deregister(request)).await {
            Ok(_) => tracing::info!(agent = self.instance.agent_id, "deregistered"),
            Err(status) => {
                let why = status.message();
                tracing::warn!(why, "could not deregister; the lease ends by itself");
            }
        }
        self.meters.registered(false);
    }

    async fn register(&mut self) -> Result<Lease, Status> {
        let request = RegisterRequest {
            instance: Some(self.instance.clone()),
        };
        let response = bounded(CALL_TIMEOUT, self.client.register(request)).await?;
        response
            .into_inner()
            .lease
            .ok_or_else(|| Status::internal("the registry granted no lease"))
    }

    /// Renews a lease until it is gone or refused.
    async fn hold(&mut self, mut lease: Lease) -> Standing {
        let mut silent = 0;
        let mut draining = self.running.accepts() == Accepts::FollowUps;
        // The registry has to learn of the drain again at once, since a new registration begins as active.
        let mut wait = if draining {
            Duration::ZERO
        } else {
            interval(&lease)
        };
        loop {
            tokio::time::sleep(wait).await;
            match self.heartbeat(&lease.lease_id, draining).await {
                Ok(response) => {
                    silent = 0;
                    self.stand(Standing::Registered);
                    let asked = response.drain_requested && !draining;
                    if asked {
                        self.drain();
                        draining = true;
                    }
                    if let Some(renewed) = response.lease.filter(|it| !it.lease_id.is_empty()) {
                        self.lease = Some(renewed.clone());
                        lease = renewed;
                    }
                    wait = if asked { Duration::ZERO } else { interval(&lease) };
                }
                Err(status) => match Standing::after(&status) {
                    Standing::Unreachable(why) => {
                        self.stand(Standing::Unreachable(why));
                        wait = BACKOFF.delay(silent, rand::random()).min(interval(&lease));
                        silent = silent.saturating_add(1);
                    }
                    end => return end,
                },
            }
        }
    }

    async fn heartbeat(&mut self, lease_id: &str, draining: bool) -> Result<HeartbeatResponse, Status> {
        let status = if draining {
            InstanceStatus::Draining
        } else {
            InstanceStatus::Active
        };
        let (succeeded_total, failed_total) = self.running.outcomes();
        let request = HeartbeatRequest {
            lease_id: lease_id.to_owned(),
            load: self.running.load(),
            status: status.into(),
            mean_latency_seconds: self.running.mean_latency().as_secs_f64(),
            succeeded_total,
            failed_total,
        };
        let response = bounded(CALL_TIMEOUT, self.client.heartbeat(request)).await?;
        Ok(response.into_inner())
    }

    /// An operator takes the instance out. It stays out until it is started again: a registry that has forgotten the
    /// wish must not put an instance back that somebody is about to stop.
    fn drain(&self) {
        tracing::info!("drain requested: running tasks are finished, new ones are refused");
        self.running.accept(Accepts::FollowUps);
    }

    fn stand(&self, standing: Standing) {
        let changed = self.standing.send_if_modified(|current| {
            let changed = !current.is_same_kind(&standing);
            *current = standing.clone();
            changed
        });
        if !changed {
            return;
        }
        self.meters.registered(standing == Standing::Registered);
        let (agent, registry) = (&self.instance.agent_id, self.registry.authority());
        match standing {
            Standing::Unknown => {}
            Standing::Registered => tracing::info!(agent, registry, "registered"),
            Standing::Lost => tracing::warn!(agent, registry, "the lease is gone; registering again"),
            Standing::Unreachable(why) => {
                tracing::warn!(
                    agent,
                    registry,
                    why,
                    "the registry does not answer; trying on, serving meanwhile"
                );
            }
            Standing::Refused(why) => {
                tracing::error!(
                    agent,
                    registry,
                    why,
                    "the registry refuses this instance; trying on, serving meanwhile"
                );
            }
        }
    }
}

impl Handle {
    /// Whether a lease is held; if not, why.
    pub(crate) fn check(&self) -> Result<(), String> {
        match &*self.standing.borrow() {
            Standing::Registered => Ok(()),
            Standing::Unknown => Err("not registered yet".to_owned()),
            Standing::Lost => Err("the lease is gone; registering again".to_owned()),
            Standing::Unreachable(why) => Err(format!("the registry does not answer: {why}")),
            Standing::Refused(why) => Err(format!("the registry refuses this instance: {why}")),
        }
    }

    /// Stops heartbeats and ends the lease, so that nobody is sent here any more.
    pub(crate) async fn goodbye(self) {
        self.stop.cancel();
        // Bounded by the timeouts of the calls that may be under way.
        self.stopped.cancelled().await;
    }
}

fn interval(lease: &Lease) -> Duration {
    lease
        .heartbeat_interval
        .as_ref()
        .and_then(duration_from_proto)
        .and_then(|interval| Duration::try_from(interval).ok())
        .unwrap_or(DEFAULT_INTERVAL)
        .clamp(SHORTEST_INTERVAL, LONGEST_INTERVAL)
}

async fn pause(attempt: u32) {
    tokio::time::sleep(BACKOFF.delay(attempt, rand::random())).await;
}

async fn bounded<T>(limit: Duration, call: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    tokio::time::timeout(limit, call)
        .await
        .unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::SignedDuration;
    use muster_api::error::{Error, Reason};
    use muster_api::time::duration_to_proto;

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
}
