//! A registry, routers and agents, each a process of its own, and clients of them.

use std::time::Duration;

use muster_a2a::grpc::Client;
use muster_api::a2a::{
    Message, Part, Role, SendMessageRequest, SendMessageResponse, StreamResponse, part, send_message_response,
};
use muster_api::error::Error;
use muster_api::router::router_service_client::RouterServiceClient;
use muster_api::router::{GetStatusRequest, GetStatusResponse, InstanceStatistics};
use muster_testkit::{Process, Program, wait_for};
use muster_tests::PATIENCE;
use tempfile::TempDir;
use tokio::task::JoinSet;
use tonic::transport::{Channel, Endpoint};
use tonic::{Status, Streaming};

use crate::worker::{self, Gate};

/// A setting in its notation as an environment variable, without `MUSTER__`.
pub type Setting = (&'static str, &'static str);

/// See the module.
pub struct System {
    pub registry: Program,
    pub running_registry: Option<Process>,
    /// A second registry, where several are one by a Redis.
    pub other_registry: Option<Running>,
    pub routers: Vec<Running>,
    pub directory: TempDir,
}

/// A program that runs.
pub struct Running {
    pub program: Program,
    pub process: Process,
}

impl Running {
    /// Starts it, and waits until it is ready.
    pub async fn of(program: Program) -> Self {
        let process = program.start_ready().await;
        Self { program, process }
    }

    /// Its data port.
    pub fn port(&self) -> u16 {
        self.program.ports().data
    }

    /// The most memory that it has held so far, in bytes.
    pub fn most_memory(&self) -> u64 {
        let path = format!("/proc/{}/status", self.process.id().expect("it runs"));
        let status = std::fs::read_to_string(&path).expect("a process has a status");
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let line = line.expect("VmHWM is there").trim().trim_end_matches(" kB");
        line.parse::<u64>().expect("a number") * 1024
    }
}

/// A program with these settings.
pub fn configured(program: Program, settings: &[Setting]) -> Program {
    settings.iter().fold(program, |program, (name, value)| {
        program.env(format!("MUSTER__{name}"), *value)
    })
}

impl System {
    /// A registry and a router with the defaults, but for these settings of the one and of the other.
    pub async fn start(registry: &[Setting], router: &[Setting]) -> Self {
        Self::with_routers(1, registry, router).await
    }

    /// The same with so many routers, each with a data directory of its own.
    pub async fn with_routers(count: usize, registry: &[Setting], router: &[Setting]) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let registry = configured(Program::named("muster-registry"), registry);
        let running_registry = Some(registry.start_ready().await);
        let mut system = Self {
            registry,
            running_registry,
            other_registry: None,
            routers: Vec::new(),
            directory,
        };
        for _ in 0..count {
            system.add_router(&system.registry.url(), router).await;
        }
        system
    }

    /// Two registries that are one by the Redis at this URL, with a router each; agents register with the first.
    pub async fn over_redis(url: &str, settings: &[Setting]) -> Self {
        let registry = || {
            configured(Program::named("muster-registry"), settings)
                .env("MUSTER__REGISTRY__REDIS_CLUSTER_ENDPOINT", url)
        };
        let first = registry();
        let running_registry = Some(first.start_ready().await);
        let other = Running::of(registry()).await;
        let urls = [first.url(), other.program.url()];
        let mut system = Self {
            registry: first,
            running_registry,
            other_registry: Some(other),
            routers: Vec::new(),
            directory: tempfile::tempdir().expect("a temporary directory"),
        };
        for url in &urls {
            system.add_router(url, &[]).await;
        }
        system
    }

    async fn add_router(&mut self, registry: &str, settings: &[Setting]) {
        let own = self
            .directory
            .path()
            .join(format!("router-{}", self.routers.len()));
        let program = configured(Program::named("muster-router"), settings)
            .env("MUSTER__ROUTER__REGISTRY_URL", registry)
            .env("MUSTER__ROUTER__DATA_DIRECTORY", own.display().to_string());
        self.routers.push(Running::of(program).await);
    }

    /// Starts an agent of that id, and waits until every router knows it.
    pub async fn worker(&self, id: &str) -> Running {
        self.worker_with(id, &[]).await
    }

    /// The same with settings.
    pub async fn worker_with(&self, id: &str, settings: &[Setting]) -> Running {
        let program = Program::at(std::env::current_exe().expect("a running test has a path"));
        let own = self.directory.path().join(program.ports().data.to_string());
        let program = configured(program, settings)
            .arg(worker::TEST)
            .arg("--exact")
            .arg("--nocapture")
            .env(worker::ROLE, id)
            .env("MUSTER__AGENT__REGISTRY_URL", self.registry.url())
            .env("MUSTER__AGENT__DATA_DIRECTORY", own.display().to_string());
        let running = Running::of(program).await;
        for router in 0..self.routers.len() {
            wait_for("the router to know the agent", PATIENCE, async || {
                self.row(router, running.port()).await.map(|_| ())
            })
            .await;
        }
        running
    }

    /// A gate for workers.
    pub fn gate(&self, name: &str) -> Gate {
        Gate::at(self.directory.path().join(name))
    }

    /// What a router says of itself.
    pub async fn status(&self, router: usize) -> Result<GetStatusResponse, String> {
        router_status(&self.routers[router].program).await
    }

    /// What a router says of the instance on this port.
    pub async fn row(&self, router: usize, port: u16) -> Result<InstanceStatistics, String> {
        let rows = self.status(router).await?.instances;
        let own = format!(":{port}");
        let row = rows.iter().find(|row| row.endpoint.ends_with(&own));
        row.cloned().ok_or_else(|| format!("{rows:?}"))
    }

    /// Waits until the router knows so many instances.
    pub async fn knows(&self, router: usize, count: usize) {
        wait_for("the router's view", PATIENCE, async || {
            let rows = self.status(router).await?.instances;
            if rows.len() == count {
                Ok(())
            } else {
                Err(format!("{rows:?}"))
            }
        })
        .await;
    }

    /// A client of the first router.
    pub fn client(&self) -> Client {
        self.client_of(0)
    }

    /// A client of a router, with a connection of its own.
    pub fn client_of(&self, router: usize) -> Client {
        muster_a2a::grpc::client(channel(&self.routers[router].program))
    }

    /// Sends a message through the first router and waits for the answer.
    pub async fn send(&self, target: &str, text: &str) -> Result<SendMessageResponse, Status> {
        let sent = self.client().send_message(message(target, text)).await;
        sent.map(tonic::Response::into_inner)
    }

    /// The same, whose answer must be what was sent.
    pub async fn echo(&self, target: &str, words: &str) {
        self.echo_by(0, target, words).await;
    }

    /// The same through a router.
    pub async fn echo_by(&self, router: usize, target: &str, words: &str) {
        let request = message(target, &format!("echo {words}"));
        let answer = self.client_of(router).send_message(request).await;
        let answer = answer.unwrap_or_else(|status| panic!("{words}: {status:?}"));
        assert_eq!(said(answer.into_inner()), words);
    }
}

/// What a router says of itself.
pub async fn router_status(router: &Program) -> Result<GetStatusResponse, String> {
    let mut client = RouterServiceClient::connect(router.url())
        .await
        .map_err(|e| e.to_string())?;
    let status = client.get_status(GetStatusRequest {}).await;
    status.map(tonic::Response::into_inner).map_err(|e| e.to_string())
}

/// A connection of its own to a program.
pub fn channel(program: &Program) -> Channel {
    Endpoint::from_shared(program.url())
        .expect("a URL")
        .connect_lazy()
}

/// A message with a fresh id.
pub fn message(target: &str, text: &str) -> SendMessageRequest {
    SendMessageRequest {
        tenant: target.to_owned(),
        message: Some(Message {
            message_id: uuid::Uuid::new_v4().to_string(),
            role: Role::User.into(),
            parts: vec![Part {
                content: Some(part::Content::Text(text.to_owned())),
                ..Part::default()
            }],
            ..Message::default()
        }),
        ..SendMessageRequest::default()
    }
}

/// The summary in an answer.
pub fn said(answer: SendMessageResponse) -> String {
    let Some(send_message_response::Payload::Task(task)) = answer.payload else {
        panic!("no task: {answer:?}");
    };
    let message = task.status.and_then(|status| status.message);
    let part = message.and_then(|message| message.parts.into_iter().next());
    match part.and_then(|part| part.content) {
        Some(part::Content::Text(text)) => text,
        other => panic!("no text: {other:?}"),
    }
}

/// The error of our catalogue in a status.
pub fn error_in(status: &Status) -> Error {
    Error::from_status(status).unwrap_or_else(|| panic!("not ours: {status:?}"))
}

/// The status with which a stream ends; one that ends well, or not within the time, fails the test.
pub async fn end_of(events: &mut Streaming<StreamResponse>, within: Duration) -> Status {
    let reading = async {
        loop {
            match events.message().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("the stream ended as if all was well"),
                Err(status) => return status,
            }
        }
    };
    tokio::time::timeout(within, reading)
        .await
        .unwrap_or_else(|_| panic!("the stream is silent for {within:?}"))
}

/// The outcome of the call that ends next, within the time.
pub async fn outcome<T: 'static>(calls: &mut JoinSet<T>, within: Duration) -> T {
    let ended = tokio::time::timeout(within, calls.join_next()).await;
    let ended = ended.unwrap_or_else(|_| panic!("no call ends within {within:?}"));
    ended.expect("a call is under way").expect("it does not panic")
}

/// Takes the one with this port out.
pub fn take(running: &mut Vec<Running>, port: u16) -> Running {
    let index = running.iter().position(|one| one.port() == port);
    running.swap_remove(index.expect("it is one of them"))
}
