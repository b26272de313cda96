//! Is everything up, registered, and does each find the others?

use std::collections::BTreeSet;
use std::time::Duration;

use muster_api::a2a::ListTasksRequest;
use muster_api::registry::{Instance, InstanceStatus};
use muster_api::router::GetStatusRequest as RouterStatusRequest;
use muster_api::workflow::GetStatusRequest as EngineStatusRequest;
use serde_json::Value;

use super::check::{Area, Check, Evidence, Need, Stop, Verdict};
use super::target::local::{Order, Size, Stack};
use super::trial::{Trial, completed, eventually};
use crate::agents;
use crate::connect::Service;
use crate::failure::Failure;

/// How long a service may take to answer, and a view to become complete.
const PATIENCE: Duration = Duration::from_secs(10);

/// The checks.
pub const CHECKS: &[Check] = &[
    Check {
        area: Area::Initialisation,
        name: "the registry serves",
        needs: &[],
        run: |trial| Box::pin(registry(trial)),
    },
    Check {
        area: Area::Initialisation,
        name: "the router serves",
        needs: &[],
        run: |trial| Box::pin(router(trial)),
    },
    Check {
        area: Area::Initialisation,
        name: "the engine serves",
        needs: &[],
        run: |trial| Box::pin(engine(trial)),
    },
    Check {
        area: Area::Initialisation,
        name: "the agents are registered",
        needs: &[],
        run: |trial| Box::pin(registered(trial)),
    },
    Check {
        area: Area::Initialisation,
        name: "the router knows every instance",
        needs: &[],
        run: |trial| Box::pin(known(trial)),
    },
    Check {
        area: Area::Initialisation,
        name: "every agent's card leads to the router",
        needs: &[],
        run: |trial| Box::pin(cards(trial)),
    },
    Check {
        area: Area::Initialisation,
        name: "every agent answers through the router",
        needs: &[],
        run: |trial| Box::pin(reached(trial)),
    },
    Check {
        area: Area::Initialisation,
        name: "a workflow reaches every agent",
        needs: &[],
        run: |trial| Box::pin(workflow(trial)),
    },
    Check {
        area: Area::Initialisation,
        name: "it comes up in order",
        needs: &[Need::OwnStack],
        run: |trial| Box::pin(in_order(trial)),
    },
    Check {
        area: Area::Initialisation,
        name: "it comes up in any order",
        needs: &[Need::OwnStack],
        run: |trial| Box::pin(in_any_order(trial)),
    },
];

/// The service says that it serves, and answers a call within the patience.
async fn serves(
    trial: &Trial,
    service: Service,
    call: impl Future<Output = Result<String, Failure>>,
) -> Verdict {
    let endpoints = &trial.target.endpoints;
    let url = endpoints.url(service);
    let name = service.name();
    let silent = || {
        Stop::failed(format!(
            "the {name} at {url} does not answer within {} s",
            PATIENCE.as_secs()
        ))
    };
    let is_serving = tokio::time::timeout(PATIENCE, endpoints.is_serving(service));
    if !is_serving.await.map_err(|_| silent())? {
        return Err(Stop::failed(format!(
            "the {name} at {url} does not say that it serves (grpc.health.v1)"
        )));
    }
    let said = tokio::time::timeout(PATIENCE, call).await.map_err(|_| silent())?;
    Ok(Evidence::new(format!("{url}: {}", said?)))
}

async fn registry(trial: &mut Trial) -> Verdict {
    let call = async {
        let agents = agents::all(&trial.target.endpoints, &[], "").await?;
        Ok(format!("{} agents", agents.len()))
    };
    serves(trial, Service::Registry, call).await
}

async fn router(trial: &mut Trial) -> Verdict {
    let endpoints = &trial.target.endpoints;
    let call = async {
        let status = endpoints.router()?.get_status(RouterStatusRequest {}).await;
        let status = status.map_err(|status| endpoints.failure(Service::Router, &status))?;
        Ok(format!("{} instances", status.into_inner().instances.len()))
    };
    serves(trial, Service::Router, call).await
}

async fn engine(trial: &mut Trial) -> Verdict {
    let endpoints = &trial.target.endpoints;
    let call = async {
        let status = endpoints.engine()?.get_status(EngineStatusRequest {}).await;
        let status = status.map_err(|status| endpoints.failure(Service::Engine, &status))?;
        Ok(format!("{} engines", status.into_inner().engines.max(1)))
    };
    serves(trial, Service::Engine, call).await
}

/// The instances that may get work, with their agents' ids.
pub async fn instances(trial: &Trial) -> Result<Vec<(String, Instance)>, Failure> {
    let agents = agents::all(&trial.target.endpoints, &[], "").await?;
    let of_agent = |agent: muster_api::registry::Agent| {
        let id = agent.agent_id;
        agent
            .instances
            .into_iter()
            .map(move |instance| (id.clone(), instance))
    };
    let working =
        |instance: &Instance| matches!(instance.status(), InstanceStatus::Active | InstanceStatus::Busy);
    let all = agents.into_iter().flat_map(of_agent);
    Ok(all.filter(|(_, instance)| working(instance)).collect())
}

/// Ids of the agents that have such an instance.
pub async fn agent_ids(trial: &Trial) -> Result<BTreeSet<String>, Failure> {
    Ok(instances(trial).await?.into_iter().map(|(id, _)| id).collect())
}

async fn registered(trial: &mut Trial) -> Verdict {
    let found = eventually(PATIENCE, async || {
        let found = agent_ids(trial).await.map_err(|failure| failure.message)?;
        let missing: Vec<&str> = trial
            .target
            .expected
            .iter()
            .map(String::as_str)
            .filter(|wanted| !found.contains(*wanted))
            .collect();
        match (missing.is_empty(), found.is_empty()) {
            (true, false) => Ok(found),
            (true, true) => Err("no agent is registered".to_owned()),
            (false, _) => Err(format!("not registered: {}", missing.join(", "))),
        }
    });
    let found = found.await.map_err(Stop::Failed)?;
    let names: Vec<&str> = found.iter().map(String::as_str).collect();
    Ok(Evidence::new(names.join(", ")).figure("agents", found.len()))
}

async fn known(trial: &mut Trial) -> Verdict {
    let mut client = trial.target.endpoints.router()?;
    let known = eventually(PATIENCE, async || {
        let wanted = instances(trial).await.map_err(|failure| failure.message)?;
        let status = client.get_status(RouterStatusRequest {}).await;
        let status = status.map_err(|status| status.message().to_owned())?.into_inner();
        if status.view_stale {
            return Err(format!(
                "the router's view is {:.0} s old: it does not hear the registry",
                status.view_age_seconds
            ));
        }
        let has = |id: &str| status.instances.iter().any(|instance| instance.instance_id == id);
        let missing: Vec<String> = wanted
            .iter()
            .filter(|(_, instance)| !has(&instance.instance_id))
            .map(|(agent, instance)| format!("{agent} at {}", instance.endpoint))
            .collect();
        if missing.is_empty() {
            Ok(wanted.len())
        } else {
            Err(format!("the router does not know {}", missing.join(", ")))
        }
    });
    let count = known.await.map_err(Stop::Failed)?;
    Ok(Evidence::new(format!("{count} instances, none stale")).figure("instances", count))
}

async fn cards(trial: &mut Trial) -> Verdict {
    let http = trial.target.http()?;
    let router = trial.target.endpoints.router.trim_end_matches('/').to_owned();
    let agents = agent_ids(trial).await?;
    let mut wrong = Vec::new();
    for agent in &agents {
        let url = format!("{router}/{agent}/.well-known/agent-card.json");
        let answer = async {
            let answer = http.get(&url).send().await.map_err(|error| error.to_string())?;
            let status = answer.status();
            let text = answer.text().await.map_err(|error| error.to_string())?;
            if !status.is_success() {
                return Err(format!("status {status}"));
            }
            let card: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
            let ways = card["supportedInterfaces"].as_array().map_or(0, Vec::len);
            if ways == 0 {
                return Err("its card names no way in".to_owned());
            }
            Ok(())
        };
        if let Err(what) = answer.await {
            wrong.push(format!("{agent}: {what}"));
        }
    }
    if wrong.is_empty() && !agents.is_empty() {
        Ok(Evidence::new(format!(
            "{} cards, each with a way in",
            agents.len()
        )))
    } else if agents.is_empty() {
        Err(Stop::failed("no agent is registered"))
    } else {
        Err(Stop::Failed(wrong.join("; ")))
    }
}

/// Reads a list that may be empty: it reaches the agent and changes nothing there.
async fn reached(trial: &mut Trial) -> Verdict {
    let mut client = trial.target.endpoints.agents()?;
    let agents = agent_ids(trial).await?;
    let mut silent = Vec::new();
    for agent in &agents {
        let request = ListTasksRequest {
            tenant: agent.clone(),
            page_size: Some(1),
            ..ListTasksRequest::default()
        };
        let answer = tokio::time::timeout(PATIENCE, client.list_tasks(request)).await;
        match answer {
            Ok(Ok(_)) => {}
            Ok(Err(status)) => silent.push(format!("{agent}: {}", status.message())),
            Err(_) => silent.push(format!("{agent}: no answer within {} s", PATIENCE.as_secs())),
        }
    }
    if agents.is_empty() {
        Err(Stop::failed("no agent is registered"))
    } else if silent.is_empty() {
        Ok(Evidence::new(format!("{} agents answer", agents.len())))
    } else {
        Err(Stop::Failed(silent.join("; ")))
    }
}

/// A document that reads a list of each agent, and so changes nothing.
pub fn reading(agents: &BTreeSet<String>) -> String {
    let steps: String = agents
        .iter()
        .map(|agent| {
            format!(
                "  - {agent}:\n      call: a2a\n      with: {{ server: \"agent://{agent}\", method: ListTasks, parameters: {{ pageSize: 1 }} }}\n"
            )
        })
        .collect();
    format!(
        "document: {{ dsl: 1.0.3, namespace: readiness, name: reach-every-agent, version: 1.0.0 }}\ndo:\n{steps}  - done: {{ set: {{ done: true }} }}\n"
    )
}

async fn workflow(trial: &mut Trial) -> Verdict {
    let agents = agent_ids(trial).await?;
    if agents.is_empty() {
        return Err(Stop::failed("no agent is registered"));
    }
    let mut client = trial.engine()?;
    let document = reading(&agents);
    let run = trial.made.run(&mut client, &document, "{}");
    let run = tokio::time::timeout(6 * PATIENCE, run)
        .await
        .map_err(|_| Stop::failed(format!("the run did not end within {} s", 6 * PATIENCE.as_secs())))?;
    run.and_then(completed).map_err(Stop::Failed)?;
    Ok(Evidence::new(format!(
        "engine → router → {} agents",
        agents.len()
    )))
}

fn ready_in(stack: &Stack) -> Evidence {
    let parts = stack.ready_in().iter();
    let said: Vec<String> = parts
        .map(|(name, took)| format!("{name} {:.2} s", took.as_secs_f64()))
        .collect();
    stack
        .ready_in()
        .iter()
        .fold(Evidence::new(said.join(", ")), |evidence, (name, took)| {
            evidence.figure(name, took.as_secs_f64())
        })
}

/// The stack has come up so before the first check.
async fn in_order(trial: &mut Trial) -> Verdict {
    Ok(ready_in(trial.target.stack()?))
}

async fn in_any_order(trial: &mut Trial) -> Verdict {
    let stack = Stack::start(Size::Single, Order::Chance(trial.options.seed)).await?;
    let endpoints = stack.endpoints()?;
    let agents = agents::all(&endpoints, &[], "").await?;
    let mut evidence = ready_in(&stack);
    evidence.text = format!("{}; {} agents registered", evidence.text, agents.len());
    Ok(evidence)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_that_reaches_every_agent_is_one() {
        let agents = ["weather", "a-b"].map(str::to_owned).into();
        let problems = muster_workflow_dsl::check(&reading(&agents));
        assert!(problems.is_empty(), "{problems}");
    }
}
