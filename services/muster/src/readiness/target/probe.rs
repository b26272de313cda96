//! An agent of this process, which a stack of one's own calls: it answers at once, or holds a call until it is told to let go.
//!
//! So a call is under way for exactly as long as a check wants it to be, and nothing depends on how fast a machine is.

use std::path::Path;
use std::sync::Arc;

use muster_agent_sdk::{
    Agent, Card, Config, Failure as AgentFailure, NoSettings, Reply, Request, Skill, Task,
};
use muster_runtime::{Error, Listeners, Shutdown, config};
use serde_json::{Value, json};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::failure::Failure;

/// The agent's id, which no other agent has.
pub const PROBE: &str = "readiness-probe";

/// See the module. It ends with this value.
pub struct Probe {
    held: watch::Sender<usize>,
    gate: Arc<Semaphore>,
    shutdown: Shutdown,
    _serving: JoinSet<Result<(), Error>>,
}

struct Holder {
    held: watch::Sender<usize>,
    gate: Arc<Semaphore>,
}

impl Agent for Holder {
    fn card(&self) -> Card {
        let about = "Answers a check of readiness, or holds it until the check says so";
        let skill = Skill::new("readiness_probe", "Readiness probe", about).idempotent();
        Card::new(PROBE, "Readiness probe", about, "1.0.0").skill(skill)
    }

    async fn handle(&self, request: Request, _task: Task) -> Result<Reply, AgentFailure> {
        if request.data().is_some_and(|data| data["hold"] == true) {
            self.held.send_modify(|held| *held += 1);
            let passed = self.gate.acquire().await;
            self.held.send_modify(|held| *held -= 1);
            match passed {
                Ok(permit) => permit.forget(),
                Err(_) => return Err(AgentFailure::failed("the probe has ended")),
            }
        }
        Ok(Reply::completed("done").data(json!({"text": request.text()})))
    }
}

impl Probe {
    /// Starts it with these settings, as a service of the SDK.
    pub fn start(settings: &[(String, String)], directory: &Path) -> Result<Self, Failure> {
        let mut settings = settings.to_vec();
        let own = directory.join("probe").display().to_string();
        settings.push(("agent.data_directory".to_owned(), own));
        let config: Config<NoSettings> = config::load(Config::default(), None, std::iter::empty(), &settings)
            .map_err(|mistakes| Failure::failed(format!("{PROBE}: {mistakes}")))?;
        let failed = |error: Error| Failure::failed(format!("{PROBE}: {error}"));
        let listeners = Listeners::ephemeral().map_err(failed)?;
        let (held, gate) = (watch::Sender::new(0), Arc::new(Semaphore::new(0)));
        let holder = Holder {
            held: held.clone(),
            gate: Arc::clone(&gate),
        };
        let shutdown = Shutdown::new();
        let mut serving = JoinSet::new();
        serving.spawn(muster_agent_sdk::run(
            config,
            listeners,
            shutdown.clone(),
            |_: &NoSettings| Ok(holder),
        ));
        Ok(Self {
            held,
            gate,
            shutdown,
            _serving: serving,
        })
    }

    /// Resolves when so many calls are held.
    pub async fn holds(&self, count: usize) {
        let mut held = self.held.subscribe();
        // It fails only where the agent is gone, and then whoever waits has a deadline.
        let _held = held.wait_for(|held| *held >= count).await;
    }

    /// Lets one call go.
    pub fn release(&self) {
        self.gate.add_permits(1);
    }

    /// What a call says that is to be held.
    pub fn hold() -> Value {
        json!({"hold": true})
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.shutdown.trigger();
    }
}
