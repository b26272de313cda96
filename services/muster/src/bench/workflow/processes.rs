//! The processes that a measurement of workflows needs.

use std::path::Path;

use muster_api::router::GetStatusRequest;
use muster_runtime::trust::Trust;

use crate::bench::part::Part;
use crate::bench::process::{ASK_AGAIN, Process, within};
use crate::connect::{Endpoints, Token};
use crate::failure::Failure;

/// How many runs the processes must be able to hold.
#[derive(Debug, Clone, Copy)]
pub struct Room {
    /// Clients at once.
    pub clients: u32,
    /// Runs that are parked.
    pub parked: u32,
}

/// Where the engine keeps its store.
#[derive(Debug, Clone)]
pub enum Keeping {
    /// In its data directory.
    Embedded,
    /// In Redis.
    Redis {
        /// Where that is.
        url: String,
        /// What all keys start with.
        prefix: String,
    },
}

/// Registry, router, engine and one agent.
pub struct Processes {
    /// The engine.
    pub engine: Process,
    /// The router.
    pub router: Process,
    /// The agent.
    pub agent: Process,
    registry: Process,
}

impl Processes {
    /// Starts all and waits until the router knows the agent. `directory` is for what they keep.
    pub async fn start(
        directory: &Path,
        store: &Keeping,
        more: &[(String, String)],
        room: Room,
    ) -> Result<Self, Failure> {
        let keep = |name: &str| directory.join(name).display().to_string();
        let tasks = 1000.max(2 * room.clients).to_string();
        let mut registry = Process::service(Part::Registry, &[]).await?;
        let mut router = Process::service(
            Part::Router,
            &[
                ("router.registry_url", registry.url()),
                ("router.data_directory", keep("router")),
            ],
        )
        .await?;
        let mut agent = Process::service(
            Part::Agent,
            &[
                ("agent.registry_url", registry.url()),
                ("agent.max_concurrent_tasks", tasks),
                ("agent.data_directory", keep("agents")),
            ],
        )
        .await?;
        let mut settings = vec![
            ("engine.router_url", router.url()),
            ("engine.data_directory", keep("engine")),
            (
                "engine.max_concurrent_workflows",
                100.max(room.clients).to_string(),
            ),
            ("engine.max_queued_runs", (room.parked + 10_000).to_string()),
            ("engine.workflow_timeout_seconds", (24 * 3600).to_string()),
            ("engine.outbound.allow", r#"["127.0.0.0/8"]"#.to_owned()),
        ];
        if let Keeping::Redis { url, prefix } = store {
            settings.push(("engine.redis_cluster_endpoint", url.clone()));
            settings.push(("engine.redis.key_prefix", prefix.clone()));
        }
        settings.extend(more.iter().map(|(key, value)| (key.as_str(), value.clone())));
        let mut engine = Process::service(Part::Engine, &settings).await?;
        for process in [&mut registry, &mut router, &mut agent, &mut engine] {
            process.ready().await?;
        }
        let processes = Self {
            engine,
            router,
            agent,
            registry,
        };
        let knows = async {
            let mut client = processes.endpoints().router()?;
            loop {
                let status = client.get_status(GetStatusRequest {}).await;
                if status.is_ok_and(|status| !status.into_inner().instances.is_empty()) {
                    return Ok::<(), Failure>(());
                }
                tokio::time::sleep(ASK_AGAIN).await;
            }
        };
        within(knows, "the agent's registration").await??;
        Ok(processes)
    }

    /// Where they answer.
    pub fn endpoints(&self) -> Endpoints {
        Endpoints {
            registry: self.registry.url(),
            router: self.router.url(),
            engine: self.engine.url(),
            trust: Trust::loopback(),
            token: Token::default(),
        }
    }

    /// Ends all, without waiting for what they are at.
    pub async fn stop(self) {
        for process in [self.engine, self.router, self.agent, self.registry] {
            process.stop().await;
        }
    }
}
