//! The closed loop: each client sends a message, waits for its answer, and sends the next. So the load is what the way takes
//! and never more.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use muster_runtime::clock::{Clock as _, SystemClock};
use tokio::task::JoinSet;
use tonic::Status;

use super::client::Caller;
use super::outcome::Outcome;
use crate::bench::latency::{Latencies, add, latencies, merge};
use crate::bench::process::Used;
use crate::failure::Failure;

/// How long calls may take that are under way when the measurement ends.
const LAST_CALLS: Duration = Duration::from_secs(60);

/// How long a client waits that was refused, where that is let pass.
const PAUSE: Duration = Duration::from_millis(10);

/// What a refusal is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusals {
    /// A failure, as any other error.
    Fail,
    /// Part of what is measured.
    Pass,
}

/// How long something is measured.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    /// Before it counts.
    pub warm_up: Duration,
    /// While it counts.
    pub measured: Duration,
}

/// What was measured.
#[derive(Debug)]
pub struct Measured {
    /// How long the calls took that ended meanwhile.
    pub latencies: Latencies,
    /// For how long.
    pub window: Duration,
    /// What each process used meanwhile.
    pub used: Vec<(&'static str, Used)>,
}

const WARMS_UP: u8 = 0;
const COUNTS: u8 = 1;
const ENDS: u8 = 2;

/// Sends these clients to work. Afterwards no call is under way any more, so that the next measurement has the machine to
/// itself.
pub async fn measure(
    callers: Vec<Caller>,
    refusals: Refusals,
    times: Times,
    used: impl Fn() -> Vec<(&'static str, Used)>,
) -> Result<Measured, Failure> {
    let clock = SystemClock::default();
    let stage = Arc::new(AtomicU8::new(WARMS_UP));
    let mut clients = JoinSet::new();
    for caller in callers {
        clients.spawn(repeat(caller, refusals, Arc::clone(&stage)));
    }
    pass(&mut clients, times.warm_up).await?;
    let (begin, before) = (clock.monotonic(), used());
    stage.store(COUNTS, Ordering::Relaxed);
    pass(&mut clients, times.measured).await?;
    stage.store(ENDS, Ordering::Relaxed);
    let window = clock.monotonic().saturating_sub(begin);
    let after = used();
    let mut all = latencies()?;
    let ending = async {
        while let Some(ended) = clients.join_next().await {
            merge(&mut all, &joined(ended)?)?;
        }
        Ok::<(), Failure>(())
    };
    let seconds = LAST_CALLS.as_secs();
    let late = |_| Failure::failed(format!("a call did not end within {seconds} s"));
    tokio::time::timeout(LAST_CALLS, ending).await.map_err(late)??;
    if all.is_empty() {
        return Err(Failure::failed("no call ended while it was measured")
            .with_remedy("measure for longer with --seconds"));
    }
    let pairs = after.into_iter().zip(before);
    Ok(Measured {
        latencies: all,
        window,
        used: pairs
            .map(|((name, after), (_, before))| (name, after.since(before)))
            .collect(),
    })
}

/// Lets time pass; a client that fails ends the measurement.
async fn pass(clients: &mut JoinSet<Result<Latencies, Failure>>, time: Duration) -> Result<(), Failure> {
    tokio::select! {
        () = tokio::time::sleep(time) => Ok(()),
        Some(ended) = clients.join_next() => {
            joined(ended)?;
            Err(Failure::failed("a client ended before its time"))
        }
    }
}

fn joined(ended: Result<Result<Latencies, Failure>, tokio::task::JoinError>) -> Result<Latencies, Failure> {
    ended.map_err(|error| Failure::failed(format!("a client ended: {error}")))?
}

async fn repeat(mut caller: Caller, refusals: Refusals, stage: Arc<AtomicU8>) -> Result<Latencies, Failure> {
    let clock = SystemClock::default();
    let mut seen = latencies()?;
    loop {
        let start = clock.monotonic();
        let answer = caller.call().await;
        let took = clock.monotonic().saturating_sub(start);
        let stage = stage.load(Ordering::Relaxed);
        match answer {
            Ok(()) if stage == COUNTS => add(&mut seen, took),
            Ok(()) => {}
            Err(status) if refusals == Refusals::Pass && Outcome::of(&status) == Some(Outcome::Refused) => {
                tokio::time::sleep(PAUSE).await;
            }
            Err(status) => return Err(failure(&status)),
        }
        if stage == ENDS {
            return Ok(seen);
        }
    }
}

/// Why a call failed.
pub fn failure(status: &Status) -> Failure {
    let mut told = format!("a call failed: {:?}: {}", status.code(), status.message());
    let mut source: Option<&(dyn std::error::Error + 'static)> = std::error::Error::source(status);
    while let Some(error) = source {
        told.push_str(&format!(": {error}"));
        source = error.source();
    }
    Failure::failed(told)
}
