//! etcd beside the registry: the same number of leases, kept alive at the same rate, on one node that this benchmark starts.
//!
//! etcd gets its best case: all leases are kept alive over one stream, where its own client has one for each process; a
//! keep-alive changes nothing and nobody watches, where a heartbeat of the registry carries a load that a watcher reads along.
//! The data directory is a temporary one. Granting is part of neither figure.
//!
//! The three messages are written down here by their field numbers in etcd's contract: a client library would bring a build of
//! all of it for these.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::time::Duration;

use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use muster_runtime::clock::{Clock as _, SystemClock};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::{IntoRequest as _, Status};
use tonic_prost::ProstCodec;

use super::pace;
use super::process::{End, Process};
use super::registry::{AT_ONCE, PATIENCE};
use crate::connect::{self, Channel};
use crate::failure::Failure;

const NAME: &str = "etcd";

/// How long the leases last: longer than it is measured.
const SECONDS_TO_LIVE: i64 = 86_400;

/// Keep-alives that may wait to be written.
const WAITING: usize = 10_000;

#[derive(Clone, PartialEq, prost::Message)]
struct Grant {
    #[prost(int64, tag = "1")]
    seconds_to_live: i64,
    #[prost(int64, tag = "2")]
    id: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Granted {
    #[prost(int64, tag = "2")]
    id: i64,
    #[prost(string, tag = "4")]
    error: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct KeepAlive {
    #[prost(int64, tag = "1")]
    id: i64,
}

/// What was measured.
pub struct Kept {
    pub sent: u64,
    pub took: Duration,
    /// Processor time of etcd.
    pub processor: Duration,
    /// Bytes that etcd held at the end.
    pub resident: u64,
}

impl Kept {
    /// Of one core.
    pub fn share(&self) -> f64 {
        self.processor.as_secs_f64() / self.took.as_secs_f64()
    }
}

/// Grants so many leases and keeps them alive, one after the other, at this rate.
pub async fn measure(leases: u32, rate: u32, seconds: u64, directory: &Path) -> Result<Kept, Failure> {
    let mut etcd = start(directory).await?;
    let outcome = keep_alive(&mut etcd, leases, rate, seconds).await;
    etcd.stop().await;
    outcome
}

async fn start(directory: &Path) -> Result<Process, Failure> {
    let failed = |error: std::io::Error| Failure::failed(format!("{NAME}: {error}"));
    // Both are held until both are known, so that they differ.
    let (clients, peers) = (free_port().map_err(failed)?, free_port().map_err(failed)?);
    let address = clients.local_addr().map_err(failed)?;
    let client_url = format!("http://{address}");
    let peer_url = format!("http://{}", peers.local_addr().map_err(failed)?);
    drop((clients, peers));
    let text = |path: &Path| path.display().to_string();
    let mut arguments: Vec<String> = ["route-part", "keeper", "--address"].map(str::to_owned).to_vec();
    arguments.extend([
        address.to_string(),
        "--log".to_owned(),
        text(&directory.join("log")),
        "--".to_owned(),
    ]);
    let options = [
        NAME,
        "--log-level=error",
        &format!("--data-dir={}", text(&directory.join("data"))),
        &format!("--listen-client-urls={client_url}"),
        &format!("--advertise-client-urls={client_url}"),
        &format!("--listen-peer-urls={peer_url}"),
        &format!("--initial-advertise-peer-urls={peer_url}"),
        &format!("--initial-cluster=default={peer_url}"),
    ];
    arguments.extend(options.map(str::to_owned));
    Process::start(NAME, &arguments, End::WithInput)
        .await
        .map_err(|failure| failure.with_remedy("`apt-get install etcd-server`, or leave out --with etcd"))
}

fn free_port() -> std::io::Result<TcpListener> {
    TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)))
}

async fn keep_alive(etcd: &mut Process, leases: u32, rate: u32, seconds: u64) -> Result<Kept, Failure> {
    let channel = connect::channel(&etcd.url())?;
    grant_all(&channel, leases).await?;

    let (queue, keep_alives) = mpsc::channel(WAITING);
    let mut grpc = Grpc::new(channel);
    grpc.ready()
        .await
        .map_err(|error| Failure::failed(format!("{NAME}: {error}")))?;
    // etcd answers the stream once something has come in it.
    let ended = |_| Failure::failed(format!("{NAME} ended the stream"));
    queue.send(KeepAlive { id: 1 }).await.map_err(ended)?;
    let request = ReceiverStream::new(keep_alives).into_request();
    let answers = grpc.streaming(
        request,
        path("LeaseKeepAlive"),
        ProstCodec::<KeepAlive, Granted>::default(),
    );
    let mut answers = answers.await.map_err(|status| refused(&status))?.into_inner();

    let clock = SystemClock::default();
    let (before, began) = (etcd.used(), clock.monotonic());
    let total = u64::from(rate) * seconds;
    let sending = pace::evenly(rate, 1..total, async |numbers| {
        for number in numbers {
            let id = 1 + i64::try_from(number % u64::from(leases.max(1))).unwrap_or_default();
            queue.send(KeepAlive { id }).await.map_err(ended)?;
        }
        Ok(())
    });
    let reading = async {
        for _ in 0..total {
            let answer = tokio::time::timeout(PATIENCE, answers.message()).await;
            let answer = answer.map_err(|_| Failure::failed(format!("{NAME} does not answer")))?;
            answer
                .map_err(|status| refused(&status))?
                .ok_or_else(|| Failure::failed(format!("{NAME} ended the stream")))?;
        }
        Ok::<(), Failure>(())
    };
    tokio::try_join!(sending, reading)?;
    Ok(Kept {
        sent: total,
        took: clock.monotonic().saturating_sub(began),
        processor: etcd.used().since(before).processor,
        resident: etcd.memory().resident,
    })
}

async fn grant_all(channel: &Channel, leases: u32) -> Result<(), Failure> {
    let grants = stream::iter(1..=i64::from(leases)).map(|id| {
        let mut grpc = Grpc::new(channel.clone());
        async move {
            grpc.ready()
                .await
                .map_err(|error| Failure::failed(format!("{NAME}: {error}")))?;
            let grant = Grant {
                seconds_to_live: SECONDS_TO_LIVE,
                id,
            };
            let codec = ProstCodec::<Grant, Granted>::default();
            let granted = grpc.unary(grant.into_request(), path("LeaseGrant"), codec).await;
            let granted = granted.map_err(|status| refused(&status))?.into_inner();
            if granted.id == id {
                return Ok(());
            }
            Err(Failure::failed(format!(
                "{NAME} granted no lease: {}",
                granted.error
            )))
        }
    });
    grants.buffer_unordered(AT_ONCE).try_collect().await
}

fn path(method: &str) -> PathAndQuery {
    format!("/etcdserverpb.Lease/{method}").parse().expect("a path")
}

fn refused(status: &Status) -> Failure {
    Failure::failed(format!("{NAME} refused: {}", status.message()))
}
