//! From an agent and a configuration to a running service.

use std::sync::Arc;
use std::time::Duration;

use a2a_pb::pbconv;
use a2a_pb::proto::a2a_service_server::A2aServiceServer;
use a2a_server::DefaultRequestHandler;
use muster_api::registry::Instance;
use muster_rpc::endpoint;
use muster_runtime::health::Kind;
use muster_runtime::{Chassis, Error, Listeners, Shutdown, Surface};
use uuid::Uuid;

use crate::config::{AgentConfig, Section, authority};
use crate::execution::{Execution, Limits};
use crate::gate::Gate;
use crate::grpc::Grpc;
use crate::metrics::{DEFINITIONS, Meters};
use crate::registration::{Handle, Registration};
use crate::running::Running;
use crate::task_store::{Bounds, TaskStore};
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
    let mut chassis = Chassis::new(name, &config.server, DEFINITIONS, shutdown)?;
    let clock = Arc::clone(&chassis.clock);
    let running = Running::new(card.id(), config.agent.max_concurrent_tasks, Arc::clone(&clock));
    let meters = Meters::new(chassis.metrics.clone(), Arc::clone(&clock), running.clone());
    let tasks = TaskStore::new(bounds(&config.agent), Arc::clone(&clock));

    let address = listeners.data_address();
    let host = config
        .agent
        .advertise_host
        .clone()
        .unwrap_or_else(|| address.ip().to_string());
    let authority = authority(&host, address.port());
    let official_card = card.to_a2a(&authority);

    let execution = Execution {
        agent,
        card: Arc::clone(&card),
        running: running.clone(),
        limits: Limits {
            answer_bytes: config.server.max_message_bytes,
            timeout: Duration::from_secs(config.agent.task_timeout_seconds),
        },
        clock,
        meters: meters.clone(),
    };
    let handler = DefaultRequestHandler::new(execution, tasks.clone())
        .with_capabilities(official_card.capabilities.clone());
    let gate = Gate {
        handler: Arc::new(handler),
        running: running.clone(),
        tasks,
        max_message_bytes: config.server.max_message_bytes,
        meters: meters.clone(),
    };

    let instance = instance(&config.agent, &card, &official_card, &authority);
    let registry = endpoint::parse(&config.agent.registry_url)
        .map_err(|error| Error::Other(format!("agent.registry_url: {error}")))?;
    let (registration, handle) = Registration::new(registry, instance, running.clone(), meters.clone());
    // The rest of the drain is for the answers of those that do not finish.
    let finish = config.server.drain_timeout() / 2;
    attend(&mut chassis, registration, handle, running, meters, finish);

    // Headroom for protobuf, so that the gate sees what is a little too large and refuses it by name.
    let decode_limit = config.server.max_message_bytes.saturating_mul(2);
    let grpc = A2aServiceServer::new(Grpc(gate.clone())).max_decoding_message_size(decode_limit);
    let surface = Surface::new(muster_api::FILE_DESCRIPTOR_SET)
        .grpc(grpc)
        .http(http::routes(gate, official_card));
    chassis.serve(listeners, surface).await
}

/// Hands what runs beside the requests to the chassis, and says what to do at the end: goodbye first, so that nobody
/// is sent here any more, then the tasks that still run.
fn attend(
    chassis: &mut Chassis,
    registration: Registration,
    handle: Handle,
    running: Running,
    meters: Meters,
    finish: Duration,
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
    chassis.on_drain("tasks", move || async move { running.close(finish).await });
}

fn bounds(config: &AgentConfig) -> Bounds {
    Bounds {
        tasks: config.max_stored_tasks,
        bytes: config.max_stored_bytes,
        retention: Duration::from_secs(config.task_retention_seconds),
    }
}

fn instance(config: &AgentConfig, card: &Card, official: &a2a::AgentCard, authority: &str) -> Instance {
    Instance {
        agent_id: card.id().to_owned(),
        instance_id: Uuid::now_v7().to_string(),
        namespace: config.namespace.clone(),
        card: Some(pbconv::to_proto_agent_card(official)),
        endpoint: format!("http://{authority}"),
        region: config.region.clone(),
        zone: config.zone.clone(),
        node: config.node.clone(),
        version: card.version.clone(),
        ..Instance::default()
    }
}
