//! Heartbeats, evenly, each with something new.

use std::cell::RefCell;
use std::time::Duration;

use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use muster_api::registry::watch_agents_response::Change;
use muster_api::registry::{HeartbeatRequest, WatchAgentsRequest};
use muster_runtime::clock::{Clock as _, SystemClock};
use serde_json::{Value, json};
use tonic::Status;

use super::super::latency::{self, Latencies, at};
use super::super::pace;
use super::watching::next;
use super::{AT_ONCE, Client, Registries, number, refused};
use crate::failure::Failure;

/// Whoever sends them, and where to.
pub struct Beats<'a> {
    clients: &'a [Client],
    leases: &'a [String],
    rate: u32,
}

/// What was measured of heartbeats.
pub struct Beaten {
    /// How many; the watcher has read of each.
    pub sent: u64,
    took: Duration,
    processor: Duration,
    /// From before each was sent until the watcher had read of it.
    delays: Latencies,
}

impl<'a> Beats<'a> {
    /// To each of the registries its instances' heartbeats, so many a second in all.
    pub const fn new(clients: &'a [Client], leases: &'a [String], rate: u32) -> Self {
        Self {
            clients,
            leases,
            rate,
        }
    }

    /// The registry to which the heartbeat of this number goes.
    pub fn home(&self, sent: u64) -> usize {
        let lease = sent % self.leases.len().max(1) as u64;
        let home = lease % self.clients.len().max(1) as u64;
        usize::try_from(home).unwrap_or_default()
    }

    /// Sends the heartbeat of this number to a registry.
    pub async fn send(&self, sent: u64, registry: usize) -> Result<(), Status> {
        let count = self.leases.len().max(1) as u64;
        let lease = usize::try_from(sent % count).unwrap_or_default();
        let (Some(lease_id), Some(client)) = (self.leases.get(lease), self.clients.get(registry)) else {
            return Err(Status::not_found("nobody has registered"));
        };
        // Another load each time round, and none that the registrations had.
        let round = u32::try_from(sent / count % 1_000).unwrap_or_default();
        let request = HeartbeatRequest {
            lease_id: lease_id.clone(),
            load: 0.000_5 + f64::from(round) / 2_000.0,
            mean_latency_seconds: 0.01,
            // By which the watcher knows the heartbeat again.
            succeeded_total: sent + 1,
            ..HeartbeatRequest::default()
        };
        client.clone().heartbeat(request).await.map(drop)
    }

    /// Sends these, evenly.
    async fn evenly(&self, numbers: std::ops::Range<u64>, sending: impl Fn(u64)) -> Result<(), Failure> {
        pace::evenly(self.rate, numbers, async |due| {
            let beats = stream::iter(due).map(|sent| {
                sending(sent);
                self.send(sent, self.home(sent))
            });
            let all = beats.buffer_unordered(AT_ONCE).try_collect::<()>().await;
            all.map_err(|status| refused(&status))
        })
        .await
    }

    /// Sends heartbeats from this number on until it is dropped.
    pub async fn go_on(&self, from: u64) -> Result<(), Failure> {
        self.evenly(from..u64::MAX, |_| ()).await
    }

    /// Sends so many while somebody watches at the last registry.
    pub async fn watched(
        &self,
        registries: &Registries,
        total: u64,
        place: &WatchAgentsRequest,
    ) -> Result<Beaten, Failure> {
        let clock = SystemClock::default();
        let stream = registries.reader()?.clone().watch_agents(place.clone()).await;
        let mut stream = stream.map_err(|status| refused(&status))?.into_inner();
        next(&mut stream).await?;
        let before = registries.used();
        let began = clock.monotonic();
        let sent_at = RefCell::new(vec![Duration::ZERO; usize::try_from(total).unwrap_or_default()]);
        let sending = self.evenly(0..total, |sent| {
            let place = usize::try_from(sent).unwrap_or(usize::MAX);
            if let Some(at) = sent_at.borrow_mut().get_mut(place) {
                *at = clock.monotonic();
            }
        });
        let mut delays = latency::latencies()?;
        let watching = async {
            let mut told = 0;
            while told < total {
                let Some(Change::Reported(report)) = next(&mut stream).await?.change else {
                    continue;
                };
                told += 1;
                let place = usize::try_from(report.succeeded_total.saturating_sub(1));
                let sent_at = place.ok().and_then(|place| sent_at.borrow().get(place).copied());
                if let Some(sent_at) = sent_at {
                    latency::add(&mut delays, clock.monotonic().saturating_sub(sent_at));
                }
            }
            Ok::<(), Failure>(())
        };
        tokio::try_join!(sending, watching)?;
        Ok(Beaten {
            sent: total,
            took: clock.monotonic().saturating_sub(began),
            processor: registries.used().since(before).processor,
            delays,
        })
    }
}

impl Beaten {
    /// What all registries have used for them, of one core.
    pub fn share(&self) -> f64 {
        self.processor.as_secs_f64() / self.took.as_secs_f64()
    }

    fn micros_each(&self) -> f64 {
        self.processor.as_secs_f64() * 1e6 / number(self.sent.max(1))
    }

    pub fn json(&self) -> Value {
        json!({
            "perSecond": number(self.sent) / self.took.as_secs_f64(),
            "seconds": self.took.as_secs_f64(),
            "shareOfACore": self.share(),
            "processorMicrosEach": self.micros_each(),
            "seenAfterMillis": latency::quantiles(&self.delays),
        })
    }

    pub fn line(&self) -> String {
        let delay = |part| at(&self.delays, part).unwrap_or_default();
        format!(
            "{:.0} heartbeats a second for {:.1} s: {:.3} of a core, {:.1} µs each; read by a watcher after {:.2} ms (p50), {:.2} ms (p99)",
            number(self.sent) / self.took.as_secs_f64(),
            self.took.as_secs_f64(),
            self.share(),
            self.micros_each(),
            delay(0.5),
            delay(0.99),
        )
    }
}
