//! Limits that routers share: one key for each caller or quota, which expires by itself, and one script on it for each grant, by
//! Redis's own clock.

use async_trait::async_trait;
use muster_store::redis::Script;
use sha2::{Digest as _, Sha256};

use super::{Redis, failed};
use crate::rate::Grants;
use crate::rate::gcra::{Rate, Taken};
use crate::store::Error;

/// As [`crate::rate::gcra::take`] has it. Times are in microseconds since a day in 2023, with a fraction: so a number of Lua has them
/// exactly to a fraction of a microsecond. It goes on in a Redis that is full: what it keeps is small and gone within minutes.
static TAKE: Script = Script::new(
    "#!lua flags=allow-oom
local time = redis.call('TIME')
local now = (time[1] - 1700000000) * 1000000 + time[2]
local interval, burst, wanted = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local base = math.max(tonumber(redis.call('GET', KEYS[1]) or 0), now)
local horizon = now + interval * burst
local given = math.max(0, math.min(wanted, math.floor((horizon - base) / interval)))
local after = base + given * interval
if given > 0 then
  local keep = math.max(1, math.ceil((after - now) / 1000))
  redis.call('SET', KEYS[1], string.format('%.3f', after), 'PX', string.format('%.0f', keep))
end
local again = 0
if given < wanted then again = math.max(0, after + interval - horizon) end
return {given, math.ceil(again)}
",
);

#[async_trait]
impl Grants for Redis {
    async fn take(&self, key: &str, rate: Rate, wanted: u32) -> Result<Taken, Error> {
        use std::fmt::Write as _;
        // Callers' names have any length, and are nobody's business there.
        let hash = Sha256::digest(key);
        let name = hash.iter().take(16).fold(String::new(), |mut name, byte| {
            // A string takes everything.
            let _written = write!(name, "{byte:02x}");
            name
        });
        let interval = rate.interval().as_nanos();
        let interval = format!("{}.{:03}", interval / 1000, interval % 1000);
        let call = TAKE
            .call()
            .key(self.key("rate", &name))
            .arg(interval)
            .number(rate.burst())
            .number(wanted);
        let (given, again): (u32, u64) = self.connection.call(&call).await.map_err(failed)?;
        Ok(Taken {
            given: given.min(wanted),
            retry_after: std::time::Duration::from_micros(again),
        })
    }
}
