//! A registry and a router in this process, on free ports, and clients of both.

use std::net::SocketAddr;
use std::time::Duration;

use muster_a2a::grpc::Client;
use muster_api::a2a::{
    Message, Part, Role, SendMessageRequest, SendMessageResponse, Task, part, send_message_response,
};
use muster_api::error::{Error, Reason};
use muster_api::extension::{INSTANCE_METADATA, ROUTING};
use muster_api::registry::registry_service_client::RegistryServiceClient;
use muster_api::registry::{DeregisterRequest, Instance, ListAgentsRequest, RegisterRequest};
use muster_api::router::router_service_client::RouterServiceClient;
use muster_api::router::{GetStatusRequest, GetStatusResponse, InstanceStatistics};
use muster_router::Config;
use muster_runtime::{Listeners, Shutdown, server};
use muster_testkit::{FakeAgent, http, wait_for};
use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Value};
use tokio::task::JoinSet;
use tonic::transport::Channel;
use tonic::{Request, Status};

/// Long enough for a machine under load; nothing waits for it in vain.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Sends a JSON body as a client of A2A 1.0 does.
pub async fn post(
    address: SocketAddr,
    path: &str,
    body: &serde_json::Value,
) -> Result<http::Response, String> {
    let headers = [("content-type", "application/json"), ("a2a-version", "1.0")];
    let body = body.to_string().into();
    http::send(address, http::Method::POST, path, &headers, body).await
}

/// A service that runs in this process.
pub struct Service {
    pub address: SocketAddr,
    pub health: SocketAddr,
    pub metrics: SocketAddr,
    shutdown: Shutdown,
    running: JoinSet<Result<(), muster_runtime::Error>>,
}

impl Service {
    pub fn registry(port: u16) -> Self {
        Self::registry_with(|config| config.server.data_port = port)
    }

    pub fn registry_with(change: impl FnOnce(&mut muster_registry::Config)) -> Self {
        let mut config = muster_registry::Config {
            server: server::Config::on_ports(0, 0, 0),
            ..Default::default()
        };
        config.server.drain_timeout_seconds = 1;
        change(&mut config);
        let listeners = Listeners::bind(&config.server).expect("free ports");
        let (address, health, metrics) = addresses(&listeners);
        let shutdown = Shutdown::new();
        let mut running = JoinSet::new();
        running.spawn(muster_registry::run(config, listeners, shutdown.clone()));
        Self {
            address,
            health,
            metrics,
            shutdown,
            running,
        }
    }

    pub fn router(mut config: Config, registry: SocketAddr) -> Self {
        config.server.drain_timeout_seconds = 1;
        config.router.registry_url = format!("http://{registry}");
        let listeners = Listeners::ephemeral().expect("free ports");
        let (address, health, metrics) = addresses(&listeners);
        let shutdown = Shutdown::new();
        let mut running = JoinSet::new();
        running.spawn(muster_router::run(config, listeners, shutdown.clone()));
        Self {
            address,
            health,
            metrics,
            shutdown,
            running,
        }
    }

    /// Stops it and waits until it has.
    pub async fn stop(mut self) {
        self.shutdown.trigger();
        let ended = self
            .running
            .join_next()
            .await
            .expect("it ran")
            .expect("it did not panic");
        ended.expect("it ended well");
    }
}

fn addresses(listeners: &Listeners) -> (SocketAddr, SocketAddr, SocketAddr) {
    (
        listeners.data_address(),
        listeners.health_address(),
        listeners.metrics_address(),
    )
}

/// A registry, a router, and what talks to them.
pub struct Stack {
    pub registry: Option<Service>,
    pub router: Service,
    pub channel: Channel,
}

impl Stack {
    /// With the default settings, but owners in memory.
    pub async fn start() -> Self {
        Self::with(|_| {}).await
    }

    /// With settings changed.
    pub async fn with(change: impl FnOnce(&mut muster_router::config::Router)) -> Self {
        Self::configured(|config| change(&mut config.router)).await
    }

    pub async fn configured(change: impl FnOnce(&mut Config)) -> Self {
        Self::over(Service::registry(0), change).await
    }

    /// A router with settings changed, over this registry.
    pub async fn over(registry: Service, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::default();
        config.router.data_directory = std::path::PathBuf::new();
        change(&mut config);
        let router = Service::router(config, registry.address);
        let channel = channel(router.address);
        Self {
            registry: Some(registry),
            router,
            channel,
        }
    }

    /// Another router over the registry of this one, with settings changed, that knows as many instances.
    pub async fn beside(&self, change: impl FnOnce(&mut muster_router::config::Router)) -> Self {
        let mut config = Config::default();
        config.router.data_directory = std::path::PathBuf::new();
        change(&mut config.router);
        let registry = self.registry.as_ref().expect("the registry runs");
        let router = Service::router(config, registry.address);
        let channel = channel(router.address);
        let other = Self {
            registry: None,
            router,
            channel,
        };
        let known = self.status().await.instances.len();
        wait_for("the other router to know as many", PATIENCE, async || {
            other
                .try_status()
                .await
                .is_ok_and(|status| status.instances.len() == known)
        })
        .await;
        other
    }

    /// The same with another router in the place of this one, which stops first.
    pub async fn again(self, change: impl FnOnce(&mut muster_router::config::Router)) -> Self {
        let Self { registry, router, .. } = self;
        router.stop().await;
        let registry = registry.expect("the registry runs");
        let known = {
            let mut client = RegistryServiceClient::new(channel(registry.address));
            let listed = client.list_agents(ListAgentsRequest::default()).await;
            listed.expect("the registry answers").into_inner().agents.len()
        };
        let stack = Self::over(registry, |config| change(&mut config.router)).await;
        wait_for("the router to know the agents", PATIENCE, async || {
            stack
                .try_status()
                .await
                .is_ok_and(|status| status.instances.len() >= known)
        })
        .await;
        stack
    }

    pub fn registry_client(&self) -> RegistryServiceClient<Channel> {
        let registry = self.registry.as_ref().expect("the registry runs");
        RegistryServiceClient::new(channel(registry.address))
    }

    /// Whether the router's metrics have this series with this value.
    pub async fn shows(&self, series: &str) -> bool {
        let metrics = http::get(self.router.metrics, "/metrics").await;
        metrics.is_ok_and(|metrics| metrics.text().lines().any(|line| line == series))
    }

    pub fn client(&self) -> Client {
        muster_a2a::grpc::client(self.channel.clone())
    }

    /// Starts a fake agent, registers it, and waits until the router knows it.
    pub async fn agent(&self, id: &str, skills: &[&str]) -> FakeAgent {
        let agent = FakeAgent::start(id).await;
        self.register(agent.instance(skills)).await;
        agent
    }

    /// Registers an instance, and waits until the router knows it. Returns the lease and instance ids.
    pub async fn register(&self, instance: Instance) -> (String, String) {
        let endpoint = instance.endpoint.clone();
        let request = RegisterRequest {
            instance: Some(instance),
        };
        let answer = wait_for("the registration", PATIENCE, async || {
            self.registry_client().register(request.clone()).await
        })
        .await
        .into_inner();
        wait_for("the router to see it", PATIENCE, async || {
            self.try_status().await.is_ok_and(|status| {
                // Of a URL the router shows the address, whatever it speaks there.
                let bare = |url: &str| url.split_once("://").map_or(url, |(_, rest)| rest).to_owned();
                let is_it = |shown: &str| {
                    let (registered, shown) = (bare(&endpoint), bare(shown));
                    registered == shown || registered.starts_with(&format!("{shown}/"))
                };
                status.instances.iter().any(|row| is_it(&row.endpoint))
            })
        })
        .await;
        let instance = answer.instance.expect("an instance");
        (answer.lease.expect("a lease").lease_id, instance.instance_id)
    }

    /// Ends a lease, and waits until the router has heard of it.
    pub async fn deregister(&self, lease: &str, instance: &str) {
        let request = DeregisterRequest {
            lease_id: lease.to_owned(),
        };
        self.registry_client()
            .deregister(request)
            .await
            .expect("deregistered");
        wait_for("the router to forget it", PATIENCE, async || {
            self.status()
                .await
                .instances
                .iter()
                .all(|row| row.instance_id != instance)
        })
        .await;
    }

    pub async fn status(&self) -> GetStatusResponse {
        self.try_status().await.expect("the router answers")
    }

    async fn try_status(&self) -> Result<GetStatusResponse, Status> {
        let mut client = RouterServiceClient::new(self.channel.clone());
        Ok(client.get_status(GetStatusRequest {}).await?.into_inner())
    }

    pub async fn statistics(&self, endpoint: &str) -> InstanceStatistics {
        let rows = self.status().await.instances;
        rows.into_iter()
            .find(|row| row.endpoint == endpoint)
            .expect("the instance is known")
    }

    pub async fn send(
        &self,
        request: impl tonic::IntoRequest<SendMessageRequest>,
    ) -> Result<Answered, Status> {
        let response = self.client().send_message(request).await?;
        let instance = response
            .metadata()
            .get(INSTANCE_METADATA)
            .map(|value| value.to_str().expect("ascii").to_owned())
            .unwrap_or_default();
        Ok(Answered {
            instance,
            answer: response.into_inner(),
        })
    }
}

fn channel(address: SocketAddr) -> Channel {
    tonic::transport::Endpoint::from_shared(format!("http://{address}"))
        .expect("a URI")
        .connect_lazy()
}

/// The line between the router and an agent. Dropping it cuts every connection, as the end of a process would.
pub struct Line {
    address: SocketAddr,
    _connections: JoinSet<()>,
}

impl Line {
    pub async fn to(agent: &FakeAgent) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a free port");
        let address = listener.local_addr().expect("an address");
        let agent = agent.address();
        let mut connections = JoinSet::new();
        connections.spawn(async move {
            let mut open = JoinSet::new();
            while let Ok((mut inbound, _)) = listener.accept().await {
                open.spawn(async move {
                    if let Ok(mut outbound) = tokio::net::TcpStream::connect(agent).await {
                        // How a cut line ends is of no interest.
                        let _ended = tokio::io::copy_bidirectional(&mut inbound, &mut outbound).await;
                    }
                });
            }
        });
        Self {
            address,
            _connections: connections,
        }
    }

    /// The agent's instance, reached over this line.
    pub fn instance(&self, agent: &FakeAgent, skills: &[&str]) -> Instance {
        Instance {
            endpoint: format!("http://{}", self.address),
            ..agent.instance(skills)
        }
    }
}

/// An answer, and whose it is.
#[derive(Debug)]
pub struct Answered {
    pub instance: String,
    pub answer: SendMessageResponse,
}

impl Answered {
    pub fn task(self) -> Task {
        match self.answer.payload {
            Some(send_message_response::Payload::Task(task)) => task,
            other => panic!("no task: {other:?}"),
        }
    }

    pub fn text(self) -> String {
        let task = self.task();
        let message = task
            .status
            .and_then(|status| status.message)
            .expect("a status message");
        match message.parts.into_iter().next().and_then(|part| part.content) {
            Some(part::Content::Text(text)) => text,
            other => panic!("no text: {other:?}"),
        }
    }
}

/// A message with a fresh id for a target.
pub fn message(target: &str, text: &str) -> SendMessageRequest {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(1);
    SendMessageRequest {
        tenant: target.to_owned(),
        message: Some(Message {
            message_id: format!("m{}", NEXT.fetch_add(1, Ordering::Relaxed)),
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

/// The message with routing fields.
pub fn routed<const N: usize>(
    mut request: SendMessageRequest,
    fields: [(&str, Value); N],
) -> SendMessageRequest {
    let fields = fields
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
    let object = Value {
        kind: Some(Kind::StructValue(Struct { fields })),
    };
    request.metadata = Some(Struct {
        fields: [(ROUTING.to_owned(), object)].into(),
    });
    request
}

pub fn number(number: f64) -> Value {
    Value {
        kind: Some(Kind::NumberValue(number)),
    }
}

pub fn text(text: &str) -> Value {
    Value {
        kind: Some(Kind::StringValue(text.to_owned())),
    }
}

pub fn yes() -> Value {
    Value {
        kind: Some(Kind::BoolValue(true)),
    }
}

pub fn list(texts: &[&str]) -> Value {
    let values = texts.iter().map(|item| text(item)).collect();
    Value {
        kind: Some(Kind::ListValue(ListValue { values })),
    }
}

/// The request with metadata.
pub fn carrying<T, const N: usize>(message: T, metadata: [(&'static str, &str); N]) -> Request<T> {
    let mut request = Request::new(message);
    for (name, value) in metadata {
        request.metadata_mut().insert(name, value.parse().expect("ascii"));
    }
    request
}

/// The error of our catalogue in a status.
pub fn error_in(status: &Status) -> Error {
    Error::from_status(status).unwrap_or_else(|| panic!("not ours: {status:?}"))
}

pub fn reason_of<T: std::fmt::Debug>(outcome: Result<T, Status>) -> Reason {
    error_in(&outcome.expect_err("refused")).reason
}
