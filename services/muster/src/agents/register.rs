//! `muster agents register --keep`: keeps an agent registered from here that knows nothing of Muster.
//!
//! For registries that may not or cannot reach the agent; else the registry keeps it by itself. This stands beside the agent: it
//! reads the card, registers the first way in that the router speaks, and renews the lease as long as the agent serves its
//! card. An agent that does not is given up, and registered again when it is back; a registry that is away or has forgotten is
//! asked again. Ended by a signal, it says goodbye.

use std::time::Duration;

use muster_a2a::join::{self, Wish};
use muster_api::registry::{
    DeregisterRequest, HeartbeatRequest, Instance, InstanceStatus, Lease, RegisterRequest,
};
use muster_api::time::duration_from_proto;
use muster_rpc::backoff::Backoff;
use muster_rpc::outbound::Outbound;
use muster_runtime::Shutdown;
use serde_json::json;
use tonic::Code;
use url::Url;

use super::card;
use crate::cli::RegisterArguments;
use crate::connect::{Endpoints, Service};
use crate::failure::Failure;
use crate::output::Output;

/// How long a goodbye may take.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(5);
/// Probes that fail in a row before the lease is let go; one may be lost.
const MOST_FAILED: u32 = 2;
/// Heartbeat interval where the lease gives none.
const DEFAULT_INTERVAL: Duration = Duration::from_secs(10);
/// Waits between attempts.
const BACKOFF: Backoff = Backoff::doubling(Duration::from_millis(250), Duration::from_secs(10));

/// Registers an agent and keeps it registered until a signal comes.
pub async fn run(
    arguments: RegisterArguments,
    endpoints: &Endpoints,
    output: &Output,
) -> Result<(), Failure> {
    let shutdown = Shutdown::on_signals();
    let outbound = card::outbound()?;
    let url = join::address(&arguments.card).map_err(|what| Failure::usage(format!("--card: {what}")))?;
    let found = card::fetch(&outbound, &url).await?;
    let wish = Wish {
        agent_id: arguments.id.unwrap_or_default(),
        namespace: arguments.namespace,
        binding: arguments.binding.unwrap_or_default(),
        region: arguments.region,
        zone: arguments.zone,
        weight: arguments.weight,
    };
    let instance = join::instance(&wish, &url, found.card).map_err(Failure::failed)?;
    let mut keeper = Keeper {
        outbound,
        url,
        instance,
        endpoints,
        output,
        is_announced: false,
    };
    tokio::select! {
        outcome = keeper.keep() => outcome,
        () = shutdown.requested() => Ok(()),
    }
}

struct Keeper<'k> {
    outbound: Outbound,
    url: Url,
    instance: Instance,
    endpoints: &'k Endpoints,
    output: &'k Output,
    is_announced: bool,
}

impl Keeper<'_> {
    /// Registers and renews, for ever; ends where the registry does not want the instance.
    async fn keep(&mut self) -> Result<(), Failure> {
        let mut attempt = 0;
        loop {
            if let Err(what) = join::fetch(&self.outbound, &self.url, None).await {
                self.aside(
                    "the agent does not serve its card; it is registered when it does",
                    &what,
                );
            } else {
                match self.register().await {
                    Ok(lease) => {
                        attempt = 0;
                        self.hold(&lease).await;
                    }
                    Err(status) if is_final(status.code()) => {
                        return Err(self.endpoints.failure(Service::Registry, &status));
                    }
                    Err(status) => {
                        self.aside("not registered; trying again", status.message());
                    }
                }
            }
            tokio::time::sleep(BACKOFF.delay(attempt, rand::random())).await;
            attempt = attempt.saturating_add(1);
        }
    }

    async fn register(&mut self) -> Result<Lease, tonic::Status> {
        let mut client = self
            .endpoints
            .registry()
            .map_err(|failure| tonic::Status::unavailable(failure.message))?;
        let request = RegisterRequest {
            instance: Some(self.instance.clone()),
        };
        let lease = client.register(request).await?.into_inner().lease;
        let lease = lease.ok_or_else(|| tonic::Status::internal("the registry granted no lease"))?;
        if !std::mem::replace(&mut self.is_announced, true) {
            self.announce();
        }
        Ok(lease)
    }

    fn aside(&self, what: &str, why: &str) {
        self.output
            .aside(&format!("{}: {what}: {why}", self.instance.agent_id));
    }

    fn announce(&self) {
        let instance = &self.instance;
        if self.output.is_json() {
            self.output.json_line(&json!({
                "agent": instance.agent_id,
                "instance": instance.instance_id,
                "binding": instance.binding,
                "endpoint": instance.endpoint,
            }));
        } else {
            self.output.line(&format!(
                "'{}' is registered over {} at {}; it stays until this command ends",
                instance.agent_id, instance.binding, instance.endpoint
            ));
        }
    }

    /// Renews a lease until it is gone, or the agent is.
    async fn hold(&self, lease: &Lease) {
        let _goodbye = Goodbye {
            endpoints: self.endpoints.clone(),
            lease: lease.lease_id.clone(),
        };
        let interval = lease
            .heartbeat_interval
            .as_ref()
            .and_then(duration_from_proto)
            .and_then(|interval| Duration::try_from(interval).ok())
            .unwrap_or(DEFAULT_INTERVAL);
        let mut failed = 0;
        loop {
            tokio::time::sleep(interval).await;
            if let Err(what) = join::fetch(&self.outbound, &self.url, None).await {
                failed += 1;
                self.aside("the agent does not serve its card", &what);
                if failed >= MOST_FAILED {
                    return;
                }
                continue;
            }
            failed = 0;
            let Ok(mut client) = self.endpoints.registry() else {
                return;
            };
            let request = HeartbeatRequest {
                lease_id: lease.lease_id.clone(),
                status: InstanceStatus::Active.into(),
                ..HeartbeatRequest::default()
            };
            match client.heartbeat(request).await {
                Ok(_) => {}
                Err(status) if status.code() == Code::NotFound => return,
                // The lease may still stand; the next heartbeat tells.
                Err(status) => self.aside("the lease was not renewed", status.message()),
            }
        }
    }
}

/// Whether asking again would be answered alike.
const fn is_final(code: Code) -> bool {
    matches!(
        code,
        Code::InvalidArgument | Code::PermissionDenied | Code::Unauthenticated | Code::Unimplemented
    )
}

/// Ends the lease when it is let go.
struct Goodbye {
    endpoints: Endpoints,
    lease: String,
}

impl Drop for Goodbye {
    fn drop(&mut self) {
        let (endpoints, lease_id) = (self.endpoints.clone(), std::mem::take(&mut self.lease));
        let goodbye = async move {
            if let Ok(mut client) = endpoints.registry() {
                // The lease ends by itself where nobody hears.
                let _ = client.deregister(DeregisterRequest { lease_id }).await;
            }
        };
        // On a thread of its own, because the command may be about to end.
        let ended = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            if let Ok(runtime) = runtime {
                let _ = runtime.block_on(async { tokio::time::timeout(GOODBYE_TIMEOUT, goodbye).await });
            }
        });
        let _ = ended.join();
    }
}
