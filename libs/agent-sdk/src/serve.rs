//! From an agent and a configuration to a running service.

use std::sync::Arc;
use std::time::Duration;

use a2a_pb::pbconv;
use muster_a2a::card::sign::Signer;
use muster_a2a::{Face, Grpc};
use muster_api::a2a::AgentCard;
use muster_api::a2a::a2a_service_server::A2aServiceServer;
use muster_api::registry::Instance;
use muster_api::registry::registry_service_client::RegistryServiceClient;
use muster_rpc::endpoint;
use muster_rpc::outbound::Outbound;
use muster_runtime::background::Background;
use muster_runtime::health::Kind;
use muster_runtime::metrics::Definition;
use muster_runtime::trust::identity::Channel;
use muster_runtime::trust::{Declared, Identity, Role, Workload};
use muster_runtime::{Chassis, Error, Listeners, Shutdown, Surface};
use uuid::Uuid;

use crate::card::Served;
use crate::config::{AgentConfig, OUTBOUND, Section, authority};
use crate::execution::{Executor, Limits};
use crate::metrics::{DEFINITIONS, Meters};
use crate::opening::{self, Opened};
use crate::push::Pushes;
use crate::registration::{Beat, Handle, Registration};
use crate::running::Running;
use crate::service::Desk;
use crate::{Agent, Card, Config, http};

/// The check reads a value in memory; it cannot be late.
const CHECK_TIMEOUT: Duration = Duration::from_secs(1);

/// Serves an agent until shutdown is requested: listens, registers, works, drains.
///
/// # Errors
/// When the configuration, the agent or its card is no good, or serving fails.
pub async fn run<A: Agent, S: Section>(
    config: Config<S>,
    listeners: Listeners,
    shutdown: Shutdown,
    build: impl FnOnce(&S) -> Result<A, Error>,
) -> Result<(), Error> {
    let agent = Arc::new(build(&config.settings)?);
    let card = Arc::new(agent.card());
    card.check().map_err(|error| Error::Other(error.to_string()))?;

    // Logs and metrics name the agent. The chassis wants the name for the process's life; it is a few bytes, once.
    let name: &'static str = card.id().to_owned().leak();
    // So are the definitions: those of every agent, and its own.
    let definitions: &'static [Definition] = [DEFINITIONS, agent.metrics()].concat().leak();
    let mut chassis = Chassis::new(name, &config.server, &config.trust, definitions, shutdown)?;
    agent.measure(&chassis.metrics);
    let clock = Arc::clone(&chassis.clock);
    let running = Running::new(card.id(), config.agent.max_concurrent_tasks, Arc::clone(&clock));
    let meters = Meters::new(chassis.metrics.clone(), Arc::clone(&clock), running.clone());
    let outbound = (!config.agent.outbound.allow.is_empty())
        .then(|| Outbound::new(&config.agent.outbound, OUTBOUND))
        .transpose()
        .map_err(|error| Error::Other(error.to_string()))?;
    let pushes = Pushes::new(outbound, meters.clone());
    let opened = opening::open(name, &config.agent, pushes.clone(), &mut chassis, &listeners).await?;
    let Some(Opened {
        tasks,
        writer,
        left,
        sharing,
        directory,
    }) = opened
    else {
        return Ok(());
    };
    let has_store = writer.is_some();
    if let Some(writer) = writer {
        chassis.tasks.spawn("task writer", writer.run());
    }
    if let Some(sharing) = sharing {
        chassis.tasks.spawn("shared tasks", sharing.run(meters.clone()));
    }
    if let Some(directory) = directory {
        chassis.check_disk(directory);
    }
    if has_store {
        let checked = tasks.clone();
        chassis
            .health
            .check(Kind::Readiness, "store", CHECK_TIMEOUT, move || {
                let failure = checked.failure();
                async move { failure.map_or(Ok(()), Err) }
            });
    }

    let address = listeners.data_address();
    let host = config
        .agent
        .advertise_host
        .clone()
        .unwrap_or_else(|| address.ip().to_string());
    let base = format!(
        "{}://{}",
        chassis.trust.scheme(),
        authority(&host, address.port())
    );
    let shared_tasks = tasks.store_id().map(str::to_owned);
    let served = Served {
        pushes: pushes.are_allowed(),
        max_concurrency: config.agent.max_concurrent_tasks,
        shared_tasks: shared_tasks.as_deref(),
    };
    let signer = Signer::load(&config.agent.card_signing, "agent.card_signing").map_err(Error::Other)?;
    let declared = chassis.declared();
    let official_card = finished(&card.to_a2a(&base, served), declared, signer.as_ref())?;
    let extended_card = card.to_extended(&base, served);
    let extended_card = extended_card
        .map(|card| finished(&card, declared, signer.as_ref()))
        .transpose()?;

    let executor = Executor {
        agent,
        card: Arc::clone(&card),
        tasks: tasks.clone(),
        running: running.clone(),
        limits: Limits {
            answer_bytes: config.server.max_message_bytes,
            timeout: Duration::from_secs(config.agent.task_timeout_seconds),
        },
        clock,
        meters: meters.clone(),
        tracer: chassis.tracer.clone(),
    };
    let desk = Arc::new(Desk {
        executor: Arc::new(executor),
        pushes: pushes.clone(),
        max_message_bytes: config.server.max_message_bytes,
        extended_card: extended_card.map(Arc::new),
    });
    chassis.tasks.spawn("left tasks", Arc::clone(&desk).take_up(left));

    let instance = instance(&config.agent, &card, &official_card, base);
    let registry = endpoint::parse(&config.agent.registry_url)
        .map_err(|error| Error::Other(format!("agent.registry_url: {error}")))?;
    let identity = Identity::new(&config.trust.tokens, name, Role::Agent).map_err(Error::Other)?;
    let channel = identity.channel(&registry, &chassis.trust.to(Workload::Registry));
    let beat = Beat {
        background: Background::new(
            chassis.tasks.clone(),
            chassis.metrics.clone(),
            Arc::clone(&chassis.clock),
            chassis.shutdown.clone(),
        ),
        after_error: Duration::from_secs(config.agent.heartbeat_after_error_seconds),
    };
    let (registration, handle) = Registration::new(
        registry.authority().to_owned(),
        RegistryServiceClient::new(channel),
        instance,
        running.clone(),
        meters.clone(),
        beat,
    );
    attend(&mut chassis, registration, handle, running.clone(), meters);
    // The rest of the drain is for the answers of those that do not finish.
    let finish = config.server.drain_timeout() / 2;
    chassis.on_drain("tasks", move || async move {
        running.close(finish).await;
        pushes.close();
        tasks.close().await;
    });

    // Headroom for protobuf, so that the service sees what is a little too large and refuses it by name.
    let decode_limit = config.server.max_message_bytes.saturating_mul(2);
    let grpc = A2aServiceServer::new(Grpc(Arc::clone(&desk))).max_decoding_message_size(decode_limit);
    let face = Face {
        service: desk,
        body_limit: decode_limit,
    };
    let surface = Surface::new(muster_api::FILE_DESCRIPTOR_SET)
        .behind_router()
        .grpc(grpc)
        .http(muster_a2a::routes(face))
        .http(http::card_routes(&official_card, signer.as_ref())?);
    chassis.serve(listeners, surface).await
}

/// Hands what runs beside the requests to the chassis, and says what to do at the end: goodbye first, so that nobody
/// is sent here any more.
fn attend(
    chassis: &mut Chassis,
    registration: Registration<RegistryServiceClient<Channel>>,
    handle: Handle,
    running: Running,
    meters: Meters,
) {
    chassis.tasks.spawn("registration", registration.keep());
    let standing = handle.clone();
    chassis
        .health
        .check(Kind::Informational, "registry", CHECK_TIMEOUT, move || {
            let standing = standing.check();
            async move { standing }
        });
    let mut changes = running.changes();
    chassis.tasks.spawn("gauges", async move {
        loop {
            meters.observe();
            if changes.changed().await.is_err() {
                return;
            }
        }
    });
    chassis.on_drain("registration", move || async move {
        handle.goodbye().await;
    });
}

/// A card as it is served: with what callers have to show, and signed where there is a key.
fn finished(card: &a2a::AgentCard, declared: Declared, signer: Option<&Signer>) -> Result<AgentCard, Error> {
    let mut card = pbconv::to_proto_agent_card(card);
    declared.say_in(&mut card);
    if let Some(signer) = signer {
        let signed = signer.sign(&mut card);
        signed.map_err(|what| Error::Other(format!("the agent's card cannot be signed: {what}")))?;
    }
    Ok(card)
}

fn instance(config: &AgentConfig, card: &Card, official: &AgentCard, base: String) -> Instance {
    Instance {
        agent_id: card.id().to_owned(),
        instance_id: Uuid::now_v7().to_string(),
        namespace: config.namespace.clone(),
        card: Some(official.clone()),
        endpoint: base,
        region: config.region.clone(),
        zone: config.zone.clone(),
        node: config.node.clone(),
        version: card.version.clone(),
        ..Instance::default()
    }
}
