//! Everybody who is there.

use std::time::Duration;

use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use muster_api::a2a::{AgentCard, AgentSkill};
use muster_api::registry::{Instance, RegisterRequest};
use muster_runtime::clock::{Clock as _, SystemClock};

use super::{AT_ONCE, Arguments, Client, refused, searching};
use crate::failure::Failure;

/// The card of an agent, about as long as those of real ones.
fn card(agent: u32) -> AgentCard {
    let skill = |id: String, name: &str| AgentSkill {
        description: format!("{name} in whatever order they come, with reasons and references for {id}"),
        tags: vec![format!("tag-{}", agent % 100), "benchmark".to_owned()],
        name: name.to_owned(),
        id,
        ..AgentSkill::default()
    };
    AgentCard {
        name: format!("Agent {agent}"),
        description: format!("Answers questions of kind {} about everything", agent % 1_000),
        version: "1.0.0".to_owned(),
        skills: vec![
            skill(format!("own-{agent}"), "Answers its own questions"),
            skill(
                format!("common-{}", agent % searching::COMMON),
                "Answers what many answer",
            ),
            skill("everything".to_owned(), "Answers what all answer"),
        ],
        ..AgentCard::default()
    }
}

/// Registers everybody; says the leases and how long it took.
pub async fn register(clients: &[Client], arguments: &Arguments) -> Result<(Vec<String>, Duration), Failure> {
    let clock = SystemClock::default();
    let began = clock.monotonic();
    let all =
        (0..arguments.agents).flat_map(|agent| (0..arguments.instances).map(move |number| (agent, number)));
    // Each instance with the next registry.
    let all = all.zip(clients.iter().cycle());
    let granted = stream::iter(all).map(|((agent, number), client)| {
        let mut client = client.clone();
        async move {
            let instance = Instance {
                agent_id: format!("agent-{agent}"),
                card: Some(card(agent)),
                endpoint: format!("http://10.{}.{}.{}:7411", number, agent >> 8 & 0xff, agent & 0xff),
                region: format!("region-{}", number % 3),
                version: "1.0.0".to_owned(),
                load: f64::from(agent % 80) / 100.0,
                ..Instance::default()
            };
            let request = RegisterRequest {
                instance: Some(instance),
            };
            let answer = client
                .register(request)
                .await
                .map_err(|status| refused(&status))?;
            let lease = answer.into_inner().lease;
            lease
                .map(|lease| lease.lease_id)
                .ok_or_else(|| Failure::failed("the registry granted no lease"))
        }
    });
    let leases = granted.buffer_unordered(AT_ONCE).try_collect().await?;
    Ok((leases, clock.monotonic().saturating_sub(began)))
}
