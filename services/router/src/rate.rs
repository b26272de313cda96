//! How many requests a minute each caller may make, and the ways of limiting that agents' quotas ([`crate::quota`]) have in common
//! with it.
//!
//! ```text
//! rate.rs       who is limited, and where it is decided
//!   gcra.rs     the algorithm
//!   table.rs    what is kept of whom, bounded
//!   charged.rs  limits a service of gRPC that is no A2A
//! ```
//!
//! **One router** decides alone, in memory: a lock, a look into a table and a sum.
//!
//! **Routers that share a Redis** share the limits. A script in Redis decides by the same algorithm and by Redis's clock. It is not
//! asked for every request, but for a *grant*: what a quarter of a second's rate is, a quarter of the burst at most, and at least
//! one, or as many as wait. What is granted was taken there, so that all routers together never give more than the limit; it has to
//! be spent within [`LASTING`], so that in a stretch of time `t` the limit is that of `t` and one second. Of one caller one
//! request asks, and others wait for what it hears. A refusal is remembered until its end: a caller who goes on regardless costs Redis
//! nothing.
//!
//! Rejected: asking for every request. On one machine a round trip to Redis with its script took 25 µs where nothing else was to do
//! and its client cost nothing, over a network it takes hundreds, and the whole hop is to take no more than 150; and one Redis
//! decided 60,000 times a second at most, which would be the limit of all routers together. With grants a caller at the
//! default limit asks four times a second and not seventeen times, and one at a limit of 100 a second four times and not a
//! hundred times. Also rejected: counting in each router and telling Redis afterwards, by which each router lets a whole burst through
//! before it hears of the others'.
//!
//! **While Redis is away** each router decides alone, with the whole limit, so that callers get up to as many times the limit as
//! there are routers: an outage of Redis is to be no outage for callers. A metric says so. Redis is tried again once a second, by one
//! request that waits for it for a moment.

pub mod charged;
pub mod gcra;
pub mod table;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use muster_runtime::clock::SharedClock;
use muster_runtime::trust::Access;
use parking_lot::Mutex;

use crate::error::Error;
use crate::metrics::Meters;
use crate::store;
use gcra::{Rate, Taken};
use table::{Found, Table};

/// Requests a minute of each caller, where nothing is set.
pub const PER_MINUTE: u32 = 1_000;

/// Callers, or callers of agents, of whom something is kept at once. About 20 MB.
const MOST_KEPT: usize = 100_000;

/// How long what Redis has granted may be spent.
pub const LASTING: Duration = Duration::from_secs(1);

/// What part of a second's rate, and of the burst, is asked for at once.
const PARTS: u32 = 4;

/// After a failure, how long Redis is not asked.
const PAUSE: Duration = Duration::from_secs(1);

/// Decides for all routers together.
#[async_trait]
pub trait Grants: Send + Sync {
    /// Takes up to `wanted` of what the key has left.
    async fn take(&self, key: &str, rate: Rate, wanted: u32) -> Result<Taken, store::Error>;
}

/// Decides for keys, each of which has its own rate.
pub struct Limiter {
    table: Mutex<Table>,
    shared: Option<Shared>,
    clock: SharedClock,
    meters: Meters,
}

struct Shared {
    grants: Arc<dyn Grants>,
    /// What its keys start with.
    kind: &'static str,
    /// Until when it is not asked, because it did not answer.
    away_until: Mutex<Option<Duration>>,
}

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asks {
    /// As long as it answers.
    AsUsual,
    /// Though it did not answer the last time.
    ToTryItOut,
}

impl Shared {
    /// Whether to ask. Of those who come after a pause, the first tries it out.
    fn is_asked(&self, now: Duration) -> Option<Asks> {
        let mut away = self.away_until.lock();
        match *away {
            None => Some(Asks::AsUsual),
            Some(until) if until <= now => {
                *away = Some(now.saturating_add(PAUSE));
                Some(Asks::ToTryItOut)
            }
            Some(_) => None,
        }
    }

    /// Whether it has gone while somebody waited for a turn to ask, who had better not wait for it, too.
    fn has_gone(&self, asks: Asks) -> bool {
        asks == Asks::AsUsual && self.away_until.lock().is_some()
    }
}

/// What is asked for at once where so many wait for it.
fn grant(rate: Rate, waiting: usize) -> u32 {
    let by_rate = rate.each_minute() / 60 / PARTS;
    let usual = by_rate.min(rate.burst() / PARTS).max(1);
    usual.max(u32::try_from(waiting).unwrap_or(u32::MAX).min(rate.burst()))
}

impl Limiter {
    /// Decides alone, or together with the others that ask `grants`; there all of one `kind` share their keys.
    #[must_use]
    pub fn new(
        kind: &'static str,
        grants: Option<Arc<dyn Grants>>,
        clock: SharedClock,
        meters: Meters,
    ) -> Self {
        Self {
            table: Mutex::new(Table::new(MOST_KEPT)),
            shared: grants.map(|grants| Shared {
                grants,
                kind,
                away_until: Mutex::new(None),
            }),
            clock,
            meters,
        }
    }

    /// Takes one.
    ///
    /// # Errors
    /// There is none; there will be after that time.
    pub async fn take(&self, key: &str, rate: Rate) -> Result<(), Duration> {
        if let Some(shared) = &self.shared
            && let Some(asks) = shared.is_asked(self.now())
        {
            match self.ask(shared, asks, key, rate).await {
                Ok(Some(outcome)) => return outcome,
                Ok(None) => {}
                Err(error) => {
                    let was_there = shared.away_until.lock().replace(self.now() + PAUSE).is_none();
                    if was_there {
                        tracing::warn!(%error, "Redis does not answer; each router limits callers on its own");
                    }
                    self.meters.limits_alone(shared.kind, true);
                }
            }
        }
        match self.table.lock().take(key, rate, self.now()) {
            Taken {
                given: 0,
                retry_after,
            } => Err(retry_after),
            Taken { .. } => Ok(()),
        }
    }

    /// Gives one back that was taken, and for which nothing was done.
    pub fn give_back(&self, key: &str, rate: Rate) {
        let is_shared = self
            .shared
            .as_ref()
            .is_some_and(|shared| shared.away_until.lock().is_none());
        let mut table = self.table.lock();
        if is_shared {
            table.unspend(key);
        } else {
            table.untake(key, rate);
        }
    }

    /// For how long there is none, as far as it is known here; takes nothing.
    #[must_use]
    pub fn refused(&self, key: &str, rate: Rate) -> Option<Duration> {
        self.table.lock().refused(key, rate, self.now())
    }

    /// `None`: Redis has gone in the meantime.
    async fn ask(
        &self,
        shared: &Shared,
        asks: Asks,
        key: &str,
        rate: Rate,
    ) -> Result<Option<Result<(), Duration>>, store::Error> {
        let look = || {
            let found = self.table.lock().spend(key, self.now());
            match found {
                Found::Granted => Ok(Ok(())),
                Found::Refused(left) => Ok(Err(left)),
                Found::Unknown(asking) => Err(Some(asking)),
                Found::NoRoom => Err(None),
            }
        };
        let asking = match look() {
            Ok(outcome) => return Ok(Some(outcome)),
            Err(asking) => asking,
        };
        let _turn = match &asking {
            None => None,
            Some(asking) => {
                let turn = asking.lock().await;
                if let Ok(outcome) = look() {
                    return Ok(Some(outcome));
                }
                if shared.has_gone(asks) {
                    return Ok(None);
                }
                Some(turn)
            }
        };
        // The table has one of them.
        let waiting = asking.as_ref().map_or(1, |asking| Arc::strong_count(asking) - 1);
        let taken = shared
            .grants
            .take(&format!("{}:{key}", shared.kind), rate, grant(rate, waiting))
            .await?;
        if shared.away_until.lock().take().is_some() {
            tracing::info!("Redis answers again; routers share their limits");
        }
        self.meters.limits_alone(shared.kind, false);
        let own = u32::from(taken.given > 0);
        let others = Taken {
            given: taken.given - own,
            ..taken
        };
        if own == 0 || others.given > 0 {
            self.table.lock().granted(key, others, LASTING, self.now());
        }
        Ok(Some(if own > 0 { Ok(()) } else { Err(taken.retry_after) }))
    }

    fn now(&self) -> Duration {
        self.clock.monotonic()
    }
}

/// Limits the requests of each caller.
pub struct Callers {
    limiter: Limiter,
    /// `None`: nobody is limited.
    rate: Option<Rate>,
    /// Whether those who are not told apart are limited, all together.
    is_for_anybody: bool,
}

impl Callers {
    /// `per_minute` is what is set: nothing is [`PER_MINUTE`] for each caller who is told apart, and no limit for the others; a
    /// number is that for each, and for all together of those who are not told apart; 0 is no limit. `burst` is how many at once;
    /// nothing is a tenth.
    #[must_use]
    pub fn new(limiter: Limiter, per_minute: Option<u32>, burst: Option<u32>) -> Self {
        let rate = match per_minute.unwrap_or(PER_MINUTE) {
            0 => None,
            per_minute => Some(burst.map_or_else(
                || Rate::per_minute(per_minute),
                |burst| Rate::new(per_minute, burst),
            )),
        };
        Self {
            limiter,
            rate,
            is_for_anybody: per_minute.is_some(),
        }
    }

    /// Takes one request of the caller's. A refusal is written down by its access.
    ///
    /// # Errors
    /// It has made as many as it may.
    pub async fn charge(&self, access: &Access) -> Result<(), Error> {
        let Some(rate) = self.rate.filter(|_| self.is_limited(access)) else {
            return Ok(());
        };
        let caller = access.caller().key();
        self.limiter.take(&caller, rate).await.map_err(|retry_after| {
            self.limiter.meters.limited("caller");
            let per_minute = rate.each_minute();
            access.limited(&format!("{per_minute} a minute"));
            Error::RateLimited {
                per_minute,
                retry_after,
            }
        })
    }

    /// Callers are charged where their requests come in from outside. Our own services are not charged again for what they
    /// pass on.
    fn is_limited(&self, access: &Access) -> bool {
        !access.is_service() && (self.is_for_anybody || !access.caller().is_anybody())
    }
}

#[cfg(test)]
mod tests;
