//! `muster agents register`: lets an agent join that knows nothing of Muster, by its card.
//!
//! It stands beside the agent as long as that is to be found: it reads the card, registers the first way in that the router
//! speaks, and renews the lease as long as the agent serves its card. An agent that does not is given up when its lease ends,
//! and registered again when it is back; a registry that is away or has forgotten is asked again. Ended by a signal, it says
//! goodbye.

use std::time::Duration;

use http::StatusCode;
use muster_a2a::card;
use muster_api::a2a::{AgentCard, AgentInterface};
use muster_api::registry::{
    DeregisterRequest, HeartbeatRequest, Instance, InstanceStatus, Lease, RegisterRequest,
};
use muster_api::time::duration_from_proto;
use muster_rpc::backoff::Backoff;
use muster_rpc::outbound::{self, Outbound};
use muster_runtime::Shutdown;
use serde_json::json;
use tonic::Code;
use url::Url;
use uuid::Uuid;

use crate::cli::RegisterArguments;
use crate::connect::{Endpoints, Service};
use crate::failure::Failure;
use crate::output::Output;

/// Where a card is below the address of an agent.
const WELL_KNOWN: &str = ".well-known/agent-card.json";
/// Largest card, in bytes.
const MOST_OF_CARD: usize = 1024 * 1024;
/// How long the agent may take to serve its card.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);
/// Probes that fail in a row before the lease is let go; one may be lost.
const MOST_FAILED: u32 = 2;
/// Heartbeat interval where the lease gives none.
const DEFAULT_INTERVAL: Duration = Duration::from_secs(10);
/// Waits between attempts.
const BACKOFF: Backoff = Backoff::doubling(Duration::from_millis(250), Duration::from_secs(10));
/// Bindings, as cards name them, the fastest first.
const SPOKEN: [&str; 3] = ["GRPC", "JSONRPC", "HTTP+JSON"];

/// Registers an agent and keeps it registered until a signal comes.
pub async fn run(
    arguments: RegisterArguments,
    endpoints: &Endpoints,
    output: &Output,
) -> Result<(), Failure> {
    let shutdown = Shutdown::on_signals();
    let everywhere = outbound::Config {
        // Who types the address may go there.
        allow: vec!["*".to_owned(), "0.0.0.0/0".to_owned(), "::/0".to_owned()],
        ..outbound::Config::default()
    };
    let outbound =
        Outbound::new(&everywhere, "--card").map_err(|error| Failure::failed(error.to_string()))?;
    let url = card_url(&arguments.card)?;
    let card = fetch(&outbound, &url)
        .await
        .map_err(|what| Failure::unavailable(format!("--card {url}: {what}")))?;
    let instance = instance(&arguments, card)?;
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

/// The card's own address, where only that of the agent was given.
fn card_url(text: &str) -> Result<Url, Failure> {
    let mut url: Url = text
        .parse()
        .map_err(|error| Failure::usage(format!("--card {text}: {error}")))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(Failure::usage(format!(
            "--card {text}: http and https are spoken"
        )));
    }
    if matches!(url.path(), "" | "/") {
        url.set_path(WELL_KNOWN);
    }
    Ok(url)
}

async fn fetch(outbound: &Outbound, url: &Url) -> Result<AgentCard, String> {
    let request = outbound
        .request(reqwest::Method::GET, url.clone())
        .timeout(PROBE_TIMEOUT)
        .build()
        .map_err(|error| error.to_string())?;
    let mut response = outbound
        .send(request)
        .await
        .map_err(|failure| failure.to_string())?;
    if response.status() != StatusCode::OK {
        return Err(format!("the agent answered {}", response.status()));
    }
    let mut body = Vec::new();
    while let Some(chunk) = response
        .chunk()
        .await
        .map_err(|error| outbound::described(&error))?
    {
        body.extend_from_slice(&chunk);
        if body.len() > MOST_OF_CARD {
            return Err(format!("the card is larger than {MOST_OF_CARD} bytes"));
        }
    }
    card::parse(&body)
}

/// The instance that the card describes.
fn instance(arguments: &RegisterArguments, card: AgentCard) -> Result<Instance, Failure> {
    let interface = interface(&card, arguments.binding.as_deref())?;
    let endpoint = match interface.protocol_binding.as_str() {
        // A card has the bare address.
        "GRPC" if !interface.url.contains("://") => format!("http://{}", interface.url),
        _ => interface.url.clone(),
    };
    let agent_id = arguments.id.clone().unwrap_or_else(|| label(&card.name));
    // The same agent at the same place is the same instance, whoever registers it.
    let place = format!("{agent_id} {endpoint}");
    Ok(Instance {
        instance_id: Uuid::new_v5(&Uuid::NAMESPACE_URL, place.as_bytes()).to_string(),
        agent_id,
        namespace: arguments.namespace.clone(),
        binding: interface.protocol_binding.clone(),
        endpoint,
        region: arguments.region.clone(),
        zone: arguments.zone.clone(),
        version: card.version.clone(),
        weight: arguments.weight,
        card: Some(card),
        ..Instance::default()
    })
}

/// The way in that is used: what was asked for, or the fastest that the card lists.
fn interface<'c>(card: &'c AgentCard, binding: Option<&str>) -> Result<&'c AgentInterface, Failure> {
    let speaks = |interface: &&AgentInterface| {
        matches!(interface.protocol_version.as_str(), "" | "1.0")
            || interface.protocol_version.starts_with("1.0.")
    };
    let known = |wanted: &str| {
        card.supported_interfaces
            .iter()
            .filter(speaks)
            .find(|interface| interface.protocol_binding == wanted)
    };
    let found = match binding {
        Some(wanted) => known(wanted),
        None => SPOKEN.into_iter().find_map(known),
    };
    found.ok_or_else(|| {
        let listed: Vec<String> = card
            .supported_interfaces
            .iter()
            .map(|interface| format!("{} {}", interface.protocol_binding, interface.protocol_version))
            .collect();
        Failure::failed(format!(
            "the card of '{}' has no interface of A2A 1.0 over {}; it lists {}",
            card.name,
            binding.map_or_else(|| SPOKEN.join(", "), str::to_owned),
            if listed.is_empty() {
                "none".to_owned()
            } else {
                listed.join(", ")
            }
        ))
    })
}

/// A name as a DNS label.
fn label(name: &str) -> String {
    let mut label = String::new();
    for letter in name.chars() {
        if letter.is_ascii_alphanumeric() {
            label.push(letter.to_ascii_lowercase());
        } else if !label.is_empty() && !label.ends_with('-') {
            label.push('-');
        }
    }
    label.truncate(63);
    label.trim_matches('-').to_owned()
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
            if let Err(what) = fetch(&self.outbound, &self.url).await {
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
            if let Err(what) = fetch(&self.outbound, &self.url).await {
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
                let _ = runtime.block_on(async { tokio::time::timeout(PROBE_TIMEOUT, goodbye).await });
            }
        });
        let _ = ended.join();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn card(interfaces: &[(&str, &str, &str)]) -> AgentCard {
        AgentCard {
            name: "The  Ägent 2".to_owned(),
            supported_interfaces: interfaces
                .iter()
                .map(|(url, binding, version)| AgentInterface {
                    url: (*url).to_owned(),
                    protocol_binding: (*binding).to_owned(),
                    protocol_version: (*version).to_owned(),
                    ..AgentInterface::default()
                })
                .collect(),
            ..AgentCard::default()
        }
    }

    #[test]
    fn the_fastest_way_of_the_right_version_is_taken_or_the_one_that_is_asked_for() {
        let card = card(&[
            ("http://a/rest", "HTTP+JSON", "1.0"),
            ("http://a/rpc", "JSONRPC", "1.0"),
            ("a:1", "GRPC", "0.3"),
        ]);
        assert_eq!(interface(&card, None).unwrap().url, "http://a/rpc");
        assert_eq!(interface(&card, Some("HTTP+JSON")).unwrap().url, "http://a/rest");
        let refused = interface(&card, Some("GRPC")).unwrap_err().message;
        assert!(refused.contains("GRPC 0.3"), "{refused}");
    }

    #[test]
    fn a_name_becomes_a_label_and_an_address_the_cards() {
        assert_eq!(label("The  Ägent 2!"), "the-gent-2");
        assert_eq!(
            card_url("http://127.0.0.1:9").unwrap().as_str(),
            "http://127.0.0.1:9/.well-known/agent-card.json"
        );
        assert_eq!(card_url("http://a/card.json").unwrap().path(), "/card.json");
        assert!(card_url("ftp://a").is_err());
    }
}
