//! What Restate runs in `tests/compare-restate`, and the clients that call it in a closed loop.
//!
//! The runs do what those of `muster bench workflow` do: so many steps, each recorded before the next one begins. A step
//! is a side effect that does nothing (`noop`), or a durable call of another service that answers with the payload (`agent`).

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use hdrhistogram::Histogram;
use restate_sdk::prelude::*;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::task::JoinSet;

/// The other side of the comparison.
#[derive(Debug, Parser)]
enum Command {
    /// Serve the handlers.
    Serve {
        /// Where to listen.
        address: SocketAddr,
    },
    /// Call them, and print what was measured as JSON.
    Drive(Drive),
}

#[derive(Debug, clap::Args)]
struct Drive {
    /// Restate's ingress, `http://HOST:PORT`.
    #[arg(long)]
    ingress: String,
    /// What the steps do.
    #[arg(long, value_enum)]
    kind: Kind,
    /// Clients at once.
    #[arg(long)]
    clients: u32,
    /// Steps of a run.
    #[arg(long)]
    steps: u32,
    /// Bytes that go with each call and come back.
    #[arg(long)]
    payload: usize,
    /// Seconds that are measured.
    #[arg(long)]
    seconds: u64,
    /// Seconds before that.
    #[arg(long)]
    warm_up: u64,
    /// Processes whose cost is told, `NAME=PID`.
    #[arg(long)]
    process: Vec<String>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Kind {
    /// Durable calls of another service.
    Agent,
    /// Side effects that do nothing.
    Noop,
}

/// A run.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Wish {
    steps: u32,
    payload: String,
}

struct Bench;

#[restate_sdk::service]
impl Bench {
    #[handler]
    async fn agent(&self, context: Context<'_>, Json(wish): Json<Wish>) -> HandlerResult<String> {
        let mut payload = wish.payload;
        for _ in 0..wish.steps {
            payload = context.service_client::<EchoClient>().echo(payload).call().await?;
        }
        Ok(payload)
    }

    #[handler]
    async fn noop(&self, context: Context<'_>, Json(wish): Json<Wish>) -> HandlerResult<String> {
        for _ in 0..wish.steps {
            context.run(|| async { Ok(()) }).await?;
        }
        Ok(String::new())
    }
}

struct Echo;

#[restate_sdk::service]
impl Echo {
    #[handler]
    async fn echo(&self, _context: Context<'_>, payload: String) -> HandlerResult<String> {
        Ok(payload)
    }
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    match Command::parse() {
        Command::Serve { address } => {
            let endpoint = Endpoint::builder().bind(Bench).bind(Echo).build();
            HttpServer::new(endpoint).listen_and_serve(address).await;
            Ok(())
        }
        Command::Drive(drive) => measure(&drive).await,
    }
}

/// What the clients have seen since they are to count it.
struct Seen {
    latencies: Histogram<u64>,
}

async fn measure(drive: &Drive) -> Result<(), Failure> {
    let processes = drive
        .process
        .iter()
        .map(|text| text.split_once('=').ok_or(format!("'{text}' is not NAME=PID")))
        .collect::<Result<Vec<_>, _>>()?;
    let seen = Arc::new(Mutex::new(Seen {
        latencies: Histogram::new_with_bounds(1, 600_000_000, 3)?,
    }));
    let counts = Arc::new(AtomicBool::new(false));
    let handler = match drive.kind {
        Kind::Agent => "agent",
        Kind::Noop => "noop",
    };
    let url = format!("{}/Bench/{handler}", drive.ingress);
    let payload = match drive.kind {
        Kind::Agent => "x".repeat(drive.payload),
        Kind::Noop => String::new(),
    };
    let wish = Wish {
        steps: drive.steps,
        payload,
    };
    let mut clients = JoinSet::new();
    for _ in 0..drive.clients {
        let (url, wish) = (url.clone(), wish.clone());
        let (seen, counts) = (Arc::clone(&seen), Arc::clone(&counts));
        clients.spawn(async move { repeat(&url, &wish, &seen, &counts).await });
    }
    pass(&mut clients, Duration::from_secs(drive.warm_up)).await?;
    counts.store(true, Ordering::Relaxed);
    let begin = Instant::now();
    let before: Vec<Duration> = processes.iter().map(|(_, id)| processor(id)).collect();
    let own = processor("self");
    let mut most = vec![0; processes.len()];
    while begin.elapsed() < Duration::from_secs(drive.seconds) {
        pass(&mut clients, Duration::from_millis(100)).await?;
        for (most, (_, id)) in most.iter_mut().zip(&processes) {
            *most = resident(id).max(*most);
        }
    }
    let own = processor("self").saturating_sub(own);
    let after: Vec<Duration> = processes.iter().map(|(_, id)| processor(id)).collect();
    let window = begin.elapsed().as_secs_f64();
    clients.shutdown().await;

    let seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
    let latencies = &seen.latencies;
    let runs = latencies.len();
    let steps = runs * u64::from(drive.steps);
    let per_step = |time: Duration| time.as_secs_f64() * 1e6 / steps.max(1) as f64;
    let millis = |micros: u64| micros as f64 / 1000.0;
    let mut used = serde_json::Map::new();
    for (index, (name, _)) in processes.iter().enumerate() {
        let time = after[index].saturating_sub(before[index]);
        used.insert(
            (*name).to_owned(),
            json!({"processorMicrosPerStep": per_step(time), "residentBytes": most[index]}),
        );
    }
    used.insert(
        "clients".to_owned(),
        json!({"processorMicrosPerStep": per_step(own)}),
    );
    let result = json!({
        "step": handler,
        "clients": drive.clients,
        "steps": drive.steps,
        "seconds": window,
        "stepsPerSecond": steps as f64 / window,
        "runsPerSecond": runs as f64 / window,
        "runMillis": {
            "p50": millis(latencies.value_at_quantile(0.5)),
            "p90": millis(latencies.value_at_quantile(0.9)),
            "p99": millis(latencies.value_at_quantile(0.99)),
            "max": millis(latencies.max()),
            "count": runs,
        },
        "processes": used,
    });
    println!("{result:#}");
    Ok(())
}

/// Starts a run, waits for its end, starts the next; ends only with a failure.
async fn repeat(url: &str, wish: &Wish, seen: &Mutex<Seen>, counts: &AtomicBool) -> Failure {
    // Each client has a connection of its own.
    let client = reqwest::Client::new();
    loop {
        let start = Instant::now();
        let answer = async {
            let answer = client.post(url).json(wish).send().await?;
            answer.error_for_status()?.bytes().await
        };
        if let Err(error) = answer.await {
            return error.into();
        }
        let micros = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
        if counts.load(Ordering::Relaxed) {
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.latencies.saturating_record(micros);
        }
    }
}

/// Lets time pass; a client that fails ends the measurement.
async fn pass(clients: &mut JoinSet<Failure>, time: Duration) -> Result<(), Failure> {
    match tokio::time::timeout(time, clients.join_next()).await {
        Err(_) => Ok(()),
        Ok(Some(Ok(failure))) => Err(failure),
        Ok(Some(Err(error))) => Err(error.into()),
        Ok(None) => Err("there are no clients".into()),
    }
}

/// Time that a process has had on a processor; Linux tells it in hundredths of a second.
fn processor(id: &str) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let ticks: u64 = fields
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<u64>().ok())
        .sum();
    Duration::from_millis(ticks * 10)
}

/// Bytes that a process holds in memory.
fn resident(id: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes = line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
    kibibytes.unwrap_or(0) * 1024
}
