//! `muster agents`: who is there, what they can do, how loaded they are.

mod card;
mod kept;
mod register;

use std::collections::BTreeMap;

use muster_api::registry::{
    Agent, DrainRequest, ForgetManagedAgentRequest, GetAgentRequest, GetStatisticsRequest,
    GetStatisticsResponse, Instance, InstanceStatus, ListAgentsRequest, Statistics,
};
use serde_json::{Value, json};
use tonic::Code;

use crate::cli::{AgentsCommand, InstanceState};
use crate::connect::{Endpoints, Service};
use crate::failure::Failure;
use crate::output::Output;

/// Runs `muster agents …`.
pub async fn run(command: AgentsCommand, endpoints: &Endpoints, output: &Output) -> Result<(), Failure> {
    match command {
        AgentsCommand::List { status, region } => list(&status, &region, endpoints, output).await,
        AgentsCommand::Get { id } => get(id, endpoints, output).await,
        AgentsCommand::Register(arguments) if arguments.keep => {
            register::run(arguments, endpoints, output).await
        }
        AgentsCommand::Register(arguments) => kept::register(arguments, endpoints, output).await,
        AgentsCommand::Kept { namespace } => kept::list(namespace, endpoints, output).await,
        AgentsCommand::Forget { card, id, namespace } => {
            let request = ForgetManagedAgentRequest {
                card_url: card,
                agent_id: id,
                namespace,
            };
            kept::forget(request, endpoints, output).await
        }
        AgentsCommand::Card(command) => card::run(command, output).await,
        AgentsCommand::Drain { id, instance } => drain(id, instance, endpoints, output).await,
    }
}

/// All agents with their instances in these statuses, page by page; none for all live ones. An empty region is any.
pub async fn all(
    endpoints: &Endpoints,
    statuses: &[InstanceStatus],
    region: &str,
) -> Result<Vec<Agent>, Failure> {
    let mut client = endpoints.registry()?;
    let mut agents = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = ListAgentsRequest {
            page_size: 100,
            page_token,
            namespace: String::new(),
            statuses: statuses.iter().map(|status| i32::from(*status)).collect(),
            region: region.to_owned(),
        };
        let page = client
            .list_agents(request)
            .await
            .map_err(|status| endpoints.failure(Service::Registry, &status))?
            .into_inner();
        agents.extend(page.agents);
        if page.next_page_token.is_empty() {
            return Ok(agents);
        }
        page_token = page.next_page_token;
    }
}

/// What there is in numbers; `None` from a registry that does not count.
pub async fn statistics(endpoints: &Endpoints) -> Result<Option<GetStatisticsResponse>, Failure> {
    let request = GetStatisticsRequest::default();
    match endpoints.registry()?.get_statistics(request).await {
        Ok(answer) => Ok(Some(answer.into_inner())),
        Err(status) if status.code() == Code::Unimplemented => Ok(None),
        Err(status) => Err(endpoints.failure(Service::Registry, &status)),
    }
}

async fn list(
    states: &[InstanceState],
    region: &str,
    endpoints: &Endpoints,
    output: &Output,
) -> Result<(), Failure> {
    let statuses: Vec<InstanceStatus> = states.iter().copied().map(InstanceStatus::from).collect();
    let agents = all(endpoints, &statuses, region).await?;
    let statistics = statistics(endpoints).await?;
    if output.is_json() {
        output.json(&json!({
            "agents": agents.iter().map(agent_json).collect::<Vec<_>>(),
            "statistics": statistics.as_ref().map(statistics_json),
        }));
        return Ok(());
    }
    if agents.is_empty() && !region.is_empty() {
        output.line("no such instance is in this region");
    } else if agents.is_empty() && statuses.is_empty() {
        output.line("no agent is registered");
    } else if agents.is_empty() {
        output.line("no instance is in this status");
    } else {
        table(&agents, &BTreeMap::new(), output);
    }
    if let Some(statistics) = statistics {
        if let Some(total) = &statistics.total {
            output.line(&summary(total));
        }
        if let Some(foreign) = foreign(&statistics) {
            output.line(&foreign);
        }
    }
    Ok(())
}

/// Agents of other regions in one line; `None` where no other region is followed.
pub fn foreign(statistics: &GetStatisticsResponse) -> Option<String> {
    let shown = statistics
        .foreign
        .as_ref()
        .filter(|_| !statistics.peers.is_empty())?;
    let regions: Vec<&str> = statistics.peers.iter().map(|peer| peer.region.as_str()).collect();
    Some(format!(
        "of other regions ({}): {}",
        regions.join(", "),
        summary(shown)
    ))
}

/// The table of the registries of other regions, where there are any.
pub fn peers(statistics: &GetStatisticsResponse, output: &Output) {
    if statistics.peers.is_empty() {
        return;
    }
    let rows = statistics.peers.iter().map(|peer| {
        let counts = peer.statistics.unwrap_or_default();
        [
            peer.region.clone(),
            peer.registry_url.clone(),
            match time(peer.stale_since.as_ref()) {
                None => "followed".to_owned(),
                Some(since) => format!("STALE since {since}"),
            },
            counts.agents.to_string(),
            counts.instances.to_string(),
            peer.left_out.to_string(),
            peer.problem.clone(),
        ]
    });
    output.table(
        [
            "REGION",
            "REGISTRY",
            "STATE",
            "AGENTS",
            "INSTANCES",
            "LEFT OUT",
            "PROBLEM",
        ],
        rows.collect(),
    );
}

fn time(time: Option<&prost_types::Timestamp>) -> Option<String> {
    time.and_then(muster_api::time::from_proto)
        .map(muster_api::time::rfc3339)
}

impl From<InstanceState> for InstanceStatus {
    fn from(state: InstanceState) -> Self {
        match state {
            InstanceState::Active => Self::Active,
            InstanceState::Busy => Self::Busy,
            InstanceState::Draining => Self::Draining,
            InstanceState::Maintenance => Self::Maintenance,
            InstanceState::Offline => Self::Offline,
        }
    }
}

/// The numbers in one line, without those that are 0.
pub fn summary(statistics: &Statistics) -> String {
    let kinds = [
        ("active", statistics.active),
        ("busy", statistics.busy),
        ("draining", statistics.draining),
        ("in maintenance", statistics.maintenance),
        ("offline", statistics.offline),
    ];
    let kinds: Vec<String> = kinds
        .iter()
        .filter(|(_, count)| *count > 0)
        .map(|(kind, count)| format!("{count} {kind}"))
        .collect();
    let kinds = if kinds.is_empty() {
        String::new()
    } else {
        format!(" ({})", kinds.join(", "))
    };
    format!(
        "{} agents, {} instances{kinds}, mean load {:.0} %",
        statistics.agents,
        statistics.instances,
        statistics.mean_load * 100.0
    )
}

/// The numbers as JSON.
pub fn statistics_json(statistics: &GetStatisticsResponse) -> Value {
    let counts = |statistics: &Option<Statistics>| {
        statistics.as_ref().map(|statistics| {
            json!({
                "agents": statistics.agents,
                "instances": statistics.instances,
                "active": statistics.active,
                "busy": statistics.busy,
                "draining": statistics.draining,
                "maintenance": statistics.maintenance,
                "offline": statistics.offline,
                "meanLoad": statistics.mean_load,
            })
        })
    };
    let namespaces = statistics.namespaces.iter();
    let skills = statistics.skills.iter();
    let peers = statistics.peers.iter();
    json!({
        "foreign": counts(&statistics.foreign),
        "peers": peers
            .map(|peer| {
                json!({
                    "region": peer.region,
                    "registryUrl": peer.registry_url,
                    "connected": peer.connected,
                    "staleSince": time(peer.stale_since.as_ref()),
                    "statistics": counts(&peer.statistics),
                    "leftOut": peer.left_out,
                    "resyncsTotal": peer.resyncs_total,
                    "problem": peer.problem,
                })
            })
            .collect::<Vec<_>>(),
        "total": counts(&statistics.total),
        "namespaces": namespaces
            .map(|it| json!({"namespace": it.namespace, "statistics": counts(&it.statistics)}))
            .collect::<Vec<_>>(),
        "namespacesTotal": statistics.namespaces_total,
        "skills": skills
            .map(|it| json!({"namespace": it.namespace, "skill": it.skill, "instances": it.instances}))
            .collect::<Vec<_>>(),
        "skillsTotal": statistics.skills_total,
        "expiredTotal": statistics.expired_total,
        "revision": statistics.revision,
    })
}

/// Seconds to answer by instance id, as the router measures them; an instance's own mean is as old as its last
/// heartbeat.
pub type Latencies = BTreeMap<String, f64>;

/// The table of agents for people.
pub fn table(agents: &[Agent], latencies: &Latencies, output: &Output) {
    let rows = agents
        .iter()
        .map(|agent| {
            let skills: Vec<&str> = agent
                .card
                .iter()
                .flat_map(|card| &card.skills)
                .map(|skill| skill.id.as_str())
                .collect();
            let instances = &agent.instances;
            [
                agent.agent_id.clone(),
                instances.len().to_string(),
                statuses(instances),
                join(instances, |instance| format!("{:.0} %", instance.load * 100.0)),
                join(instances, |instance| {
                    let measured = latencies.get(&instance.instance_id).copied();
                    match measured
                        .filter(|seconds| *seconds > 0.0)
                        .unwrap_or(instance.mean_latency_seconds)
                    {
                        0.0 => "–".to_owned(),
                        seconds => format!("{:.1} ms", seconds * 1e3),
                    }
                }),
                join(instances, origin),
                join(instances, |instance| instance.endpoint.clone()),
                skills.join(", "),
            ]
        })
        .collect();
    output.table(
        [
            "AGENT",
            "INSTANCES",
            "STATUS",
            "LOAD",
            "MEAN ANSWER",
            "ORIGIN",
            "ENDPOINT",
            "SKILLS",
        ],
        rows,
    );
}

fn join(instances: &[Instance], show: impl Fn(&Instance) -> String) -> String {
    const SHOWN: usize = 4;
    let mut shown: Vec<String> = instances.iter().take(SHOWN).map(show).collect();
    if instances.len() > SHOWN {
        shown.push(format!("… {} more", instances.len() - SHOWN));
    }
    shown.join("\n")
}

/// Where an instance is registered, and its region.
fn origin(instance: &Instance) -> String {
    match (&instance.origin, instance.region.as_str()) {
        (Some(origin), _) if origin.stale_since.is_some() => format!("{} STALE", origin.region),
        (Some(origin), _) => origin.region.clone(),
        (None, "") => "here".to_owned(),
        (None, region) => format!("here ({region})"),
    }
}

fn statuses(instances: &[Instance]) -> String {
    join(instances, |instance| status_name(instance).to_owned())
}

fn status_name(instance: &Instance) -> &'static str {
    match instance.status() {
        InstanceStatus::Unspecified => "unknown",
        InstanceStatus::Active => "active",
        InstanceStatus::Busy => "busy",
        InstanceStatus::Draining => "draining",
        InstanceStatus::Maintenance => "maintenance",
        InstanceStatus::Offline => "offline",
    }
}

async fn get(id: String, endpoints: &Endpoints, output: &Output) -> Result<(), Failure> {
    let request = GetAgentRequest {
        agent_id: id,
        namespace: String::new(),
    };
    let agent = endpoints
        .registry()?
        .get_agent(request)
        .await
        .map_err(|status| endpoints.failure(Service::Registry, &status))?
        .into_inner()
        .agent
        .ok_or_else(|| Failure::failed("the registry answered without an agent"))?;
    if output.is_json() {
        output.json(&agent_json(&agent));
        return Ok(());
    }
    table(std::slice::from_ref(&agent), &BTreeMap::new(), output);
    if let Some(card) = &agent.card {
        output.heading(&format!("{} {}", card.name, card.version));
        output.line(&card.description);
        let rows = card
            .skills
            .iter()
            .map(|skill| {
                [
                    skill.id.clone(),
                    skill.description.clone(),
                    skill.examples.join("\n"),
                ]
            })
            .collect();
        output.table(["SKILL", "WHAT IT DOES", "EXAMPLES"], rows);
    }
    Ok(())
}

async fn drain(
    id: String,
    instance: Option<String>,
    endpoints: &Endpoints,
    output: &Output,
) -> Result<(), Failure> {
    let request = DrainRequest {
        agent_id: id.clone(),
        instance_id: instance.unwrap_or_default(),
        namespace: String::new(),
    };
    let answer = endpoints
        .registry()?
        .drain(request)
        .await
        .map_err(|status| endpoints.failure(Service::Registry, &status))?
        .into_inner();
    if output.is_json() {
        output.json(&json!({"agent": id, "draining": answer.instances}));
    } else {
        output.line(&format!(
            "{id}: {} instance(s) draining; work in flight goes on",
            answer.instances
        ));
    }
    Ok(())
}

/// An agent as JSON.
pub fn agent_json(agent: &Agent) -> Value {
    let card = agent.card.as_ref().map(a2a_pb::pbconv::from_proto_agent_card);
    json!({
        "id": agent.agent_id,
        "namespace": agent.namespace,
        "card": card.and_then(|card| a2a_pb::protojson_conv::to_value(&card).ok()),
        "instances": agent.instances.iter().map(instance_json).collect::<Vec<_>>(),
    })
}

fn instance_json(instance: &Instance) -> Value {
    json!({
        "origin": instance.origin.as_ref().map(|origin| json!({
            "region": origin.region,
            "registryUrl": origin.registry_url,
            "staleSince": time(origin.stale_since.as_ref()),
        })),
        "id": instance.instance_id,
        "endpoint": instance.endpoint,
        "status": status_name(instance),
        "load": instance.load,
        "meanLatencySeconds": instance.mean_latency_seconds,
        "region": instance.region,
        "zone": instance.zone,
        "node": instance.node,
        "version": instance.version,
        "binding": instance.binding,
        "weight": instance.weight,
        "succeededTotal": instance.succeeded_total,
        "failedTotal": instance.failed_total,
        "epoch": instance.epoch,
        "registeredAt": time(instance.registered_at.as_ref()),
        "lastHeartbeatAt": time(instance.last_heartbeat_at.as_ref()),
    })
}
