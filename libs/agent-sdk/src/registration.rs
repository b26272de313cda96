//! Staying found: registration, heartbeats, and goodbye.
//!
//! An instance holds a lease at the registry and renews it as often as the lease says, with the load and latency that
//! it really has. Whatever happens to the registry, the instance goes on serving and goes on trying: a lease that is
//! gone (expired, replaced, or forgotten by a restarted registry) is answered by registering again; silence by
//! trying again. There is no last attempt. The log says each change of standing once, not each attempt.
//!
//! A heartbeat that has failed is sent again at once: most failures are a connection that broke, and a lease that stands for three
//! heartbeats should not lose a third of its life to one. After that it is sent every few seconds ([`Beat::after_error`]), with a little
//! chance in it, so that a fleet does not return all at once. A wait that grows further was rejected: what it spares a registry
//! that is away is little, and an instance that waits long is missed long after the registry is back. An instance that has no
//! lease begins as quickly and waits no longer than that either.
//!
//! While the registry is silent only heartbeats are tried. Registering instead was rejected: it would replace a
//! lease that may still stand and so make the instance vanish and return for everybody who watches.

use std::time::Duration;

use muster_api::registry::registry_service_client::RegistryServiceClient;
use muster_api::registry::{
    DeregisterRequest, HeartbeatRequest, HeartbeatResponse, Instance, InstanceStatus, Lease, RegisterRequest,
};
use muster_api::time::duration_from_proto;
use muster_runtime::background::Background;
use muster_runtime::trust::identity::Channel;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Response, Status};

use crate::metrics::Meters;
use crate::running::{Accepts, Running};

/// How long one call to the registry may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// How long saying goodbye may take; the lease ends by itself anyway.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(2);
/// The longest wait before the first attempt after a failure.
const AT_ONCE: Duration = Duration::from_millis(250);
/// How much of a wait chance may take away.
const CHANCE: f64 = 0.2;
/// Name among the background services.
const HEARTBEAT: &str = "heartbeat";
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

/// What an instance asks a registry.
pub(crate) trait Registry: Send + 'static {
    /// Asks for a lease.
    fn register(&mut self, instance: Instance) -> impl Future<Output = Result<Option<Lease>, Status>> + Send;

    /// Renews it.
    fn heartbeat(
        &mut self,
        request: HeartbeatRequest,
    ) -> impl Future<Output = Result<HeartbeatResponse, Status>> + Send;

    /// Ends it.
    fn deregister(&mut self, lease_id: String) -> impl Future<Output = Result<(), Status>> + Send;
}

impl Registry for RegistryServiceClient<Channel> {
    async fn register(&mut self, instance: Instance) -> Result<Option<Lease>, Status> {
        let instance = Some(instance);
        let response = Self::register(self, RegisterRequest { instance }).await?;
        Ok(response.into_inner().lease)
    }

    async fn heartbeat(&mut self, request: HeartbeatRequest) -> Result<HeartbeatResponse, Status> {
        Self::heartbeat(self, request).await.map(Response::into_inner)
    }

    async fn deregister(&mut self, lease_id: String) -> Result<(), Status> {
        Self::deregister(self, DeregisterRequest { lease_id })
            .await
            .map(drop)
    }
}

/// How heartbeats are counted, and how often they are tried.
#[derive(Clone)]
pub(crate) struct Beat {
    /// Counts them.
    pub(crate) background: Background,
    /// Until the next attempt, once two in a row have failed.
    pub(crate) after_error: Duration,
}

impl Beat {
    /// How long to wait after so many failures in a row, for a random number from 0 to 1.
    fn wait(&self, failures: u32, random: f64) -> Duration {
        if failures <= 1 {
            return AT_ONCE.min(self.after_error).mul_f64(random);
        }
        self.after_error.mul_f64(1.0 - CHANCE * random)
    }
}

/// Keeps one instance registered.
pub(crate) struct Registration<R> {
    /// What the log calls it.
    authority: String,
    registry: R,
    beat: Beat,
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

impl<R: Registry> Registration<R> {
    pub(crate) fn new(
        authority: String,
        registry: R,
        instance: Instance,
        running: Running,
        meters: Meters,
        beat: Beat,
    ) -> (Self, Handle) {
        let registration = Self {
            authority,
            registry,
            beat,
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
        let mut failures = 0;
        while !stop.is_cancelled() {
            // Not interrupted by a goodbye: a registration that was dropped in flight would leave a lease behind
            // that nobody knows to end.
            match self.register().await {
                Ok(lease) => {
                    failures = 0;
                    self.lease = Some(lease.clone());
                    self.stand(Standing::Registered);
                    if let Some(end) = stop.run_until_cancelled(self.hold(lease)).await {
                        self.lease = None;
                        self.stand(end);
                    }
                }
                Err(status) => self.stand(Standing::after(&status)),
            }
            failures = u32::saturating_add(failures, 1);
            let wait = self.beat.wait(failures, rand::random());
            stop.run_until_cancelled(tokio::time::sleep(wait)).await;
        }
        self.deregister().await;
        self.stopped.cancel();
    }

    async fn deregister(&mut self) {
        let Some(lease) = self.lease.take() else { return };
        match bounded(GOODBYE_TIMEOUT, self.registry.deregister(lease.lease_id)).await {
            Ok(()) => tracing::info!(agent = self.instance.agent_id, "deregistered"),
            Err(status) => {
                let why = status.message();
                tracing::warn!(why, "could not deregister; the lease ends by itself");
            }
        }
        self.meters.registered(false);
    }

    async fn register(&mut self) -> Result<Lease, Status> {
        let lease = bounded(CALL_TIMEOUT, self.registry.register(self.instance.clone())).await?;
        lease.ok_or_else(|| Status::internal("the registry granted no lease"))
    }

    /// Renews a lease until it is gone or refused.
    async fn hold(&mut self, mut lease: Lease) -> Standing {
        let mut failures = 0;
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
                    failures = 0;
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
                        failures = u32::saturating_add(failures, 1);
                        wait = self.beat.wait(failures, rand::random()).min(interval(&lease));
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
        let beat = bounded(CALL_TIMEOUT, self.registry.heartbeat(request));
        self.beat.background.measured(HEARTBEAT, beat).await
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
        let (agent, registry) = (&self.instance.agent_id, &self.authority);
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

async fn bounded<T>(limit: Duration, call: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
    tokio::time::timeout(limit, call)
        .await
        .unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time")))
}

#[cfg(test)]
mod tests;
