//! `muster bench route-part`: the agent, the forwarder, or the keeper of a proxy, as a process of its own.
//!
//! As with `muster bench part`, each says on standard output where it listens and ends when its standard input does. A proxy is
//! somebody else's program and knows nothing of that; so a keeper starts it in a process group of its own and kills the
//! group when the benchmark is gone, however that came about. Killing a proxy from the benchmark alone was rejected: the
//! workers of nginx outlive a master that is killed, and nothing outlives a benchmark that is.

use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, Subcommand};
use muster_api::a2a::a2a_service_server::A2aServiceServer;
use muster_api::a2a::{AgentCapabilities, AgentCard, AgentExtension, AgentInterface, AgentSkill};
use muster_api::extension::{MAX_CONCURRENCY, ROUTING};
use muster_api::registry::registry_service_client::RegistryServiceClient;
use muster_api::registry::{HeartbeatRequest, Instance, InstanceStatus, Lease, RegisterRequest};
use muster_runtime::Shutdown;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use prost_types::value::Kind;
use prost_types::{Struct, Value};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Server};
use tonic::{Code, Request, Response, Status};

use super::service::{Capacity, Echo, Forwarder, Messages, Served};
use crate::bench::part::{self, AGENT, Addresses};
use crate::bench::process::ASK_AGAIN;
use crate::failure::Failure;
use crate::output::Output;

/// Calls that may be open at once on one connection: more than there are clients, because the forwarder has but one.
pub const MOST_STREAMS: u32 = 10_000;

/// The range in which a heartbeat's interval is obeyed.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(50);
const LONGEST_INTERVAL: Duration = Duration::from_secs(300);

/// How much is told of what a proxy said.
const TOLD_BYTES: usize = 2_000;

/// Arguments of `muster bench route-part`.
#[derive(Debug, Args)]
pub struct Arguments {
    #[command(subcommand)]
    role: Role,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// An agent that answers with what it was asked.
    Echo(EchoArguments),
    /// A server that forwards each call to an agent.
    Forwarder(ForwarderArguments),
    /// A collector that drops the spans that it gets.
    Sink,
    /// Starts a program, and ends it with itself.
    Keeper(KeeperArguments),
}

#[derive(Debug, Args)]
struct EchoArguments {
    /// Where to register.
    #[arg(long)]
    registry: String,
    /// Calls that it works on at once; 0 for no limit.
    #[arg(long, default_value_t = 0)]
    concurrency: u32,
    /// Milliseconds that each takes, where they are limited.
    #[arg(long, default_value_t = 0)]
    service_time: u64,
    /// Says in its card how many calls it works on at once, where they are limited.
    #[arg(long)]
    declared: bool,
}

#[derive(Debug, Args)]
struct ForwarderArguments {
    /// Where the agent answers.
    #[arg(long)]
    agent: String,
}

#[derive(Debug, Args)]
struct KeeperArguments {
    /// Where the program will listen.
    #[arg(long)]
    address: SocketAddr,
    /// A file for what the program says.
    #[arg(long)]
    log: PathBuf,
    /// The program and its arguments.
    #[arg(last = true, required = true)]
    command: Vec<String>,
}

/// Runs `muster bench route-part`.
pub async fn run(arguments: Arguments, output: &Output) -> Result<(), Failure> {
    let shutdown = Shutdown::on_signals();
    part::end_with_standard_input(shutdown.clone())?;
    match arguments.role {
        Role::Echo(arguments) => echo(&arguments, &shutdown, output).await,
        Role::Forwarder(arguments) => {
            let agent = Arc::new(Forwarder::new(super::client::channel(&arguments.agent)?));
            let (listener, address) = listen().await?;
            say(address, output)?;
            serve(listener, agent, &shutdown).await
        }
        Role::Sink => {
            let (listener, address) = listen().await?;
            say(address, output)?;
            let serving = Server::builder()
                .add_service(TraceServiceServer::new(Sink))
                .serve_with_incoming(TcpIncoming::from(listener));
            tokio::select! {
                served = serving => served.map_err(|error| Failure::failed(error.to_string())),
                () = shutdown.requested() => Ok(()),
            }
        }
        Role::Keeper(arguments) => keep(arguments, &shutdown, output).await,
    }
}

/// A collector that drops the spans that it gets: what it costs to make and send them is measured, and not what others do
/// with them.
struct Sink;

#[tonic::async_trait]
impl TraceService for Sink {
    async fn export(
        &self,
        _: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

async fn listen() -> Result<(TcpListener, SocketAddr), Failure> {
    let failed = |error: std::io::Error| Failure::failed(format!("cannot listen: {error}"));
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok((listener, address))
}

fn say(address: SocketAddr, output: &Output) -> Result<(), Failure> {
    let addresses = Addresses {
        data: address.to_string(),
        health: String::new(),
        metrics: String::new(),
    };
    part::say(&addresses, output)
}

async fn serve<M: Messages>(
    listener: TcpListener,
    messages: Arc<M>,
    shutdown: &Shutdown,
) -> Result<(), Failure> {
    let serving = Server::builder()
        .max_concurrent_streams(MOST_STREAMS)
        .add_service(A2aServiceServer::new(Served(messages)))
        .serve_with_incoming(TcpIncoming::from(listener).with_nodelay(Some(true)));
    tokio::select! {
        served = serving => served.map_err(|error| Failure::failed(error.to_string())),
        // Nobody waits for what it is at.
        () = shutdown.requested() => Ok(()),
    }
}

async fn echo(arguments: &EchoArguments, shutdown: &Shutdown, output: &Output) -> Result<(), Failure> {
    let capacity = (arguments.concurrency > 0).then(|| {
        let time = Duration::from_millis(arguments.service_time);
        Capacity::new(arguments.concurrency, time)
    });
    // Who works on any number at once says so; else the router would find out how many answer soonest, and refuse the rest.
    let declared = match arguments.concurrency {
        0 => Some(MOST_STREAMS),
        limited => arguments.declared.then_some(limited),
    };
    let echo = Arc::new(Echo::new(capacity));
    let (listener, address) = listen().await?;
    let registry = super::client::channel(&arguments.registry)?;
    say(address, output)?;
    tokio::select! {
        served = serve(listener, Arc::clone(&echo), shutdown) => served,
        failure = stay_found(registry, instance(address, declared), &echo) => Err(failure),
    }
}

/// What its card says of how many messages it takes at once.
fn declaration(concurrency: u32) -> AgentExtension {
    let value = Value {
        kind: Some(Kind::NumberValue(f64::from(concurrency))),
    };
    AgentExtension {
        uri: ROUTING.to_owned(),
        params: Some(Struct {
            fields: [(MAX_CONCURRENCY.to_owned(), value)].into(),
        }),
        ..AgentExtension::default()
    }
}

fn instance(address: SocketAddr, declared: Option<u32>) -> Instance {
    let endpoint = format!("http://{address}");
    let card = AgentCard {
        name: "Echo".to_owned(),
        description: "Answers with what it was asked".to_owned(),
        version: "1.0.0".to_owned(),
        supported_interfaces: vec![AgentInterface {
            url: endpoint.clone(),
            protocol_binding: "GRPC".to_owned(),
            protocol_version: "1.0".to_owned(),
            ..AgentInterface::default()
        }],
        capabilities: Some(AgentCapabilities {
            streaming: Some(true),
            extensions: declared.map(declaration).into_iter().collect(),
            ..AgentCapabilities::default()
        }),
        default_input_modes: vec!["text/plain".to_owned()],
        default_output_modes: vec!["text/plain".to_owned()],
        skills: vec![AgentSkill {
            id: "echo".to_owned(),
            name: "Echo".to_owned(),
            description: "Answers with what it was asked".to_owned(),
            tags: vec!["echo".to_owned()],
            ..AgentSkill::default()
        }],
        ..AgentCard::default()
    };
    Instance {
        agent_id: AGENT.to_owned(),
        instance_id: uuid::Uuid::now_v7().to_string(),
        card: Some(card),
        endpoint,
        version: "1.0.0".to_owned(),
        ..Instance::default()
    }
}

/// Registers and sends heartbeats until the registry refuses the instance.
async fn stay_found(registry: Channel, instance: Instance, echo: &Echo) -> Failure {
    let mut client = RegistryServiceClient::new(registry);
    let mut lease = match register(&mut client, &instance).await {
        Ok(lease) => lease,
        Err(status) => return Failure::failed(format!("cannot register: {}", status.message())),
    };
    loop {
        tokio::time::sleep(interval(&lease)).await;
        let request = HeartbeatRequest {
            lease_id: lease.lease_id.clone(),
            load: echo.load(),
            status: InstanceStatus::Active.into(),
            ..HeartbeatRequest::default()
        };
        match client.heartbeat(request).await {
            Ok(answer) => lease = answer.into_inner().lease.unwrap_or(lease),
            Err(status) if status.code() == Code::NotFound => {
                if let Ok(new) = register(&mut client, &instance).await {
                    lease = new;
                }
            }
            // The lease outlasts a heartbeat that got lost.
            Err(_) => {}
        }
    }
}

async fn register(client: &mut RegistryServiceClient<Channel>, instance: &Instance) -> Result<Lease, Status> {
    let request = RegisterRequest {
        instance: Some(instance.clone()),
    };
    let lease = client.register(request).await?.into_inner().lease;
    lease.ok_or_else(|| Status::internal("the registry granted no lease"))
}

fn interval(lease: &Lease) -> Duration {
    let given = lease.heartbeat_interval.as_ref();
    given
        .and_then(muster_api::time::duration_from_proto)
        .and_then(|interval| Duration::try_from(interval).ok())
        .unwrap_or(LONGEST_INTERVAL)
        .clamp(SHORTEST_INTERVAL, LONGEST_INTERVAL)
}

/// A process group, which is killed with this value.
struct Group(Option<u32>);

impl Drop for Group {
    fn drop(&mut self) {
        let id = self.0.and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        if let Some(id) = id {
            // It may be empty.
            let _ = kill_process_group(id, Signal::KILL);
        }
    }
}

async fn keep(arguments: KeeperArguments, shutdown: &Shutdown, output: &Output) -> Result<(), Failure> {
    let mut command = arguments.command.into_iter();
    let program = command
        .next()
        .ok_or_else(|| Failure::usage("there is no program to start"))?;
    let failed = |error: std::io::Error| Failure::failed(format!("{program}: {error}"));
    let log = File::create(&arguments.log).map_err(failed)?;
    let mut child = Command::new(&program)
        .args(command)
        .stdin(Stdio::null())
        .stdout(log.try_clone().map_err(failed)?)
        .stderr(log)
        .process_group(0)
        .spawn()
        .map_err(failed)?;
    let _group = Group(child.id());
    let status = tokio::select! {
        status = child.wait() => status.map_err(failed)?,
        failure = announce(arguments.address, output) => return Err(failure),
        () = shutdown.requested() => return Ok(()),
    };
    let said = last_words(&arguments.log);
    Err(Failure::failed(format!(
        "{program} has ended ({status}) and said:\n{said}"
    )))
}

/// Says where the program listens once it does.
async fn announce(address: SocketAddr, output: &Output) -> Failure {
    while TcpStream::connect(address).await.is_err() {
        tokio::time::sleep(ASK_AGAIN).await;
    }
    match say(address, output) {
        Ok(()) => std::future::pending().await,
        Err(failure) => failure,
    }
}

fn last_words(log: &Path) -> String {
    let bytes = std::fs::read(log).unwrap_or_default();
    let from = bytes.len().saturating_sub(TOLD_BYTES);
    let last = bytes.get(from..).unwrap_or_default();
    String::from_utf8_lossy(last).trim().to_owned()
}
