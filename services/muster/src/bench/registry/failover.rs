//! One of two registries over one Redis is killed while heartbeats come to both.
//!
//! Whoever sent its heartbeats to the one that is gone sends them to the other, from the first that gets no answer on, as agents do
//! behind one name. Leases are in Redis, so nobody has to register again: a heartbeat whose lease is not known counts as lost.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use muster_api::registry::GetStatisticsRequest;
use muster_runtime::clock::{Clock as _, SystemClock};
use serde_json::{Value, json};
use tonic::Code;

use super::super::latency::{self, Latencies, at};
use super::super::pace;
use super::super::process::ASK_AGAIN;
use super::beats::Beats;
use super::{AT_ONCE, Arguments, PATIENCE, Registries, refused};
use crate::failure::Failure;

/// What was measured.
pub struct Outcome {
    /// From the first try of each heartbeat after the kill until it was answered.
    waits: Latencies,
    /// Those that had to be sent once more.
    moved: u64,
    /// Those whose lease the other registry did not know.
    lost: u64,
    /// Instances that the other registry has at the end.
    instances: u64,
}

/// Kills the first registry after a part of the time.
pub async fn measure(
    mut registries: Registries,
    arguments: &Arguments,
    leases: &[String],
) -> Result<Outcome, Failure> {
    let killed = Cell::new(false);
    let first = registries.processes.remove(0);
    let clients = registries.clients.clone();
    let sent = Sent {
        beats: Beats::new(&clients, leases, arguments.heartbeats),
        killed: &killed,
        waits: RefCell::new(latency::latencies()?),
        moved: Cell::new(0),
        lost: Cell::new(0),
    };
    let total = u64::from(arguments.heartbeats) * arguments.seconds;
    let sending = pace::evenly(arguments.heartbeats, 0..total, async |due| {
        let beats = stream::iter(due).map(|number| sent.one(number));
        beats.buffer_unordered(AT_ONCE).try_collect::<()>().await
    });
    let killing = async {
        tokio::time::sleep(Duration::from_secs(arguments.seconds) / 4).await;
        killed.set(true);
        first.stop().await;
        Ok::<(), Failure>(())
    };
    tokio::try_join!(sending, killing)?;
    let mut reader = registries.reader()?.clone();
    let counted = reader.get_statistics(GetStatisticsRequest::default()).await;
    let counted = counted.map_err(|status| refused(&status))?.into_inner();
    let outcome = Outcome {
        moved: sent.moved.get(),
        lost: sent.lost.get(),
        waits: sent.waits.into_inner(),
        instances: counted.total.map_or(0, |total| total.instances),
    };
    registries.stop().await;
    Ok(outcome)
}

/// What is known of the heartbeats that were sent.
struct Sent<'a> {
    beats: Beats<'a>,
    killed: &'a Cell<bool>,
    waits: RefCell<Latencies>,
    moved: Cell<u64>,
    lost: Cell<u64>,
}

impl Sent<'_> {
    /// Sends one until it is answered.
    async fn one(&self, number: u64) -> Result<(), Failure> {
        let clock = SystemClock::default();
        let began = clock.monotonic();
        let mut registry = self.beats.home(number);
        let mut tries: u64 = 0;
        let answer = loop {
            let answer = self.beats.send(number, registry).await;
            let has_time = clock.monotonic().saturating_sub(began) < PATIENCE;
            match answer {
                // The first is gone, or just going. A heartbeat that is sent twice changes nothing.
                Err(status) if status.code() != Code::NotFound && self.killed.get() && has_time => {
                    tries += 1;
                    if registry != 0 {
                        tokio::time::sleep(ASK_AGAIN).await;
                    }
                    registry = 1;
                }
                answer => break answer,
            }
        };
        if self.killed.get() {
            let waited = clock.monotonic().saturating_sub(began);
            latency::add(&mut self.waits.borrow_mut(), waited);
        }
        self.moved.set(self.moved.get() + u64::from(tries > 0));
        match answer {
            Err(status) if status.code() == Code::NotFound => {
                self.lost.set(self.lost.get() + 1);
                Ok(())
            }
            answer => answer.map_err(|status| refused(&status)),
        }
    }
}

impl Outcome {
    pub fn json(&self) -> Value {
        json!({
            "heartbeatMillis": latency::quantiles(&self.waits),
            "sentAgain": self.moved,
            "leasesLost": self.lost,
            "instances": self.instances,
        })
    }

    pub fn line(&self) -> String {
        let wait = |part| at(&self.waits, part).unwrap_or_default();
        format!(
            "one of two registries killed: {} heartbeats sent again, {} leases lost, {} instances still there; heartbeats answered after {:.2} ms (p50), {:.2} ms (p99), {:.2} ms at most",
            self.moved,
            self.lost,
            self.instances,
            wait(0.5),
            wait(0.99),
            wait(1.0),
        )
    }
}
