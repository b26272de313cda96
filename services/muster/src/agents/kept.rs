//! `muster agents register`, `kept` and `forget`: agents that the registry keeps by their cards.

use muster_api::registry::{
    ForgetManagedAgentRequest, ListManagedAgentsRequest, ManagedAgent, ManagedAgentState,
    RegisterByCardRequest,
};
use serde_json::{Value, json};

use crate::cli::RegisterArguments;
use crate::connect::{Endpoints, Service};
use crate::failure::Failure;
use crate::output::Output;

/// Has an agent kept, and says what became of it.
pub async fn register(
    arguments: RegisterArguments,
    endpoints: &Endpoints,
    output: &Output,
) -> Result<(), Failure> {
    let request = RegisterByCardRequest {
        card_url: arguments.card,
        agent_id: arguments.id.unwrap_or_default(),
        namespace: arguments.namespace,
        binding: arguments.binding.unwrap_or_default(),
        region: arguments.region,
        zone: arguments.zone,
        weight: arguments.weight,
    };
    let answer = endpoints.registry()?.register_by_card(request).await;
    let agent = answer
        .map_err(|status| endpoints.failure(Service::Registry, &status))?
        .into_inner()
        .agent
        .unwrap_or_default();
    if output.is_json() {
        output.json(&told(&agent));
    } else {
        output.line(&format!(
            "'{}' is registered over {} at {}; the registry keeps it as long as it serves {}",
            agent.agent_id, agent.binding, agent.endpoint, agent.card_url
        ));
        output.line(&format!(
            "to end that: muster agents forget --card {}",
            agent.card_url
        ));
    }
    Ok(())
}

/// Lists what is kept.
pub async fn list(namespace: String, endpoints: &Endpoints, output: &Output) -> Result<(), Failure> {
    let mut client = endpoints.registry()?;
    let mut agents = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = ListManagedAgentsRequest {
            page_size: 100,
            page_token,
            namespace: namespace.clone(),
        };
        let page = client
            .list_managed_agents(request)
            .await
            .map_err(|status| endpoints.failure(Service::Registry, &status))?
            .into_inner();
        agents.extend(page.agents);
        if page.next_page_token.is_empty() {
            break;
        }
        page_token = page.next_page_token;
    }
    if output.is_json() {
        output.json(&json!({ "agents": agents.iter().map(told).collect::<Vec<_>>() }));
    } else if agents.is_empty() {
        output.line("no agent is kept by its card");
    } else {
        let rows = agents.iter().map(|agent| {
            [
                agent.agent_id.clone(),
                state(agent).to_owned(),
                agent.binding.clone(),
                agent.endpoint.clone(),
                agent.card_url.clone(),
                agent.problem.clone(),
            ]
        });
        let head = ["AGENT", "STATE", "BINDING", "ENDPOINT", "CARD", "PROBLEM"];
        output.table(head, rows.collect());
    }
    Ok(())
}

/// Has an agent kept no longer.
pub async fn forget(
    request: ForgetManagedAgentRequest,
    endpoints: &Endpoints,
    output: &Output,
) -> Result<(), Failure> {
    let answer = endpoints.registry()?.forget_managed_agent(request).await;
    let agents = answer
        .map_err(|status| endpoints.failure(Service::Registry, &status))?
        .into_inner()
        .agents;
    if output.is_json() {
        output.json(&json!({ "agents": agents.iter().map(told).collect::<Vec<_>>() }));
    } else {
        for agent in &agents {
            output.line(&format!("'{}' is kept no longer", agent.agent_id));
        }
    }
    Ok(())
}

fn state(agent: &ManagedAgent) -> &'static str {
    match agent.state() {
        ManagedAgentState::Unspecified => "unknown",
        ManagedAgentState::Present => "present",
        ManagedAgentState::Absent => "absent",
    }
}

fn told(agent: &ManagedAgent) -> Value {
    json!({
        "agent": agent.agent_id,
        "namespace": agent.namespace,
        "card": agent.card_url,
        "state": state(agent),
        "problem": agent.problem,
        "instance": agent.instance_id,
        "binding": agent.binding,
        "endpoint": agent.endpoint,
    })
}
