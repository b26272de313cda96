//! Section `router.inbox`: how much the inbox holds, for how long, and how it delivers.

use std::time::Duration;

use muster_rpc::backoff::Backoff;
use muster_runtime::config::Mistakes;
use serde::{Deserialize, Serialize};

use super::Limits;
use super::entry::Policy;

const MIB: u64 = 1 << 20;
const DAY: u64 = 24 * 60 * 60;

/// The pause after the first failure; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// Section `router.inbox`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Entries of one target that may wait or be delivered; one more is refused.
    pub max_entries: usize,
    /// The same of all targets together.
    pub max_total_entries: usize,
    /// Largest message that is taken in, in bytes.
    pub max_message_bytes: usize,
    /// Largest answer that is kept, in bytes.
    pub max_answer_bytes: usize,
    /// Bytes of messages and answers that are kept together.
    pub max_bytes: u64,
    /// Answered entries, and dead letters, that are kept; the oldest go.
    pub max_ended_entries: usize,
    /// How long a message may take to be delivered when its sender does not say.
    pub default_ttl_seconds: u64,
    /// How long a message may take at most, and may be held back.
    pub max_ttl_seconds: u64,
    /// How long answered entries are kept.
    pub done_retention_seconds: u64,
    /// How long dead letters are kept.
    pub dead_retention_seconds: u64,
    /// After how long a waiting message counts as one step more urgent.
    pub ageing_seconds: u64,
    /// How long an entry is its holder's without a sign of life.
    pub lease_seconds: u64,
    /// Messages that this router delivers at once.
    pub max_in_flight: usize,
    /// How long one delivery may take.
    pub delivery_seconds: u64,
    /// Failures after which a message is a dead letter.
    pub max_failures: u32,
    /// Longest pause between two attempts.
    pub max_pause_seconds: u64,
    /// Agents that one broadcast may reach.
    pub max_broadcast_agents: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_entries: 10_000,
            max_total_entries: 100_000,
            max_message_bytes: 1 << 20,
            max_answer_bytes: 1 << 20,
            max_bytes: 1024 * MIB,
            max_ended_entries: 10_000,
            default_ttl_seconds: DAY,
            max_ttl_seconds: 7 * DAY,
            done_retention_seconds: DAY,
            dead_retention_seconds: 7 * DAY,
            ageing_seconds: 300,
            lease_seconds: 30,
            max_in_flight: 64,
            delivery_seconds: 300,
            max_failures: 20,
            max_pause_seconds: 30,
            max_broadcast_agents: 100,
        }
    }
}

impl Settings {
    /// What entries are held to.
    #[must_use]
    pub const fn policy(&self) -> Policy {
        Policy {
            ageing: Duration::from_secs(self.ageing_seconds),
            done_retention: Duration::from_secs(self.done_retention_seconds),
            dead_retention: Duration::from_secs(self.dead_retention_seconds),
            failures: self.max_failures,
            entries: self.max_entries,
            total: self.max_total_entries,
            ended: self.max_ended_entries,
            bytes: self.max_bytes,
        }
    }

    /// What the inbox itself is held to.
    #[must_use]
    pub const fn limits(&self) -> Limits {
        Limits {
            message_bytes: self.max_message_bytes,
            answer_bytes: self.max_answer_bytes,
            default_ttl: Duration::from_secs(self.default_ttl_seconds),
            most_ttl: Duration::from_secs(self.max_ttl_seconds),
            lease: Duration::from_secs(self.lease_seconds),
            in_flight: self.max_in_flight,
            delivery: Duration::from_secs(self.delivery_seconds),
            pause: Backoff::doubling(FIRST_PAUSE, Duration::from_secs(self.max_pause_seconds)),
            broadcast_agents: self.max_broadcast_agents,
            total: self.max_total_entries,
        }
    }

    /// Reports what makes no sense, by its key.
    pub fn validate(&self, mistakes: &mut Mistakes) {
        let mut within = |key: &str, value: u64, least: u64, most: u64| {
            if !(least..=most).contains(&value) {
                mistakes.add(
                    format!("router.inbox.{key}"),
                    format!("is {value}, must be from {least} to {most}"),
                );
            }
        };
        within("max_entries", self.max_entries as u64, 1, 10_000_000);
        within("max_total_entries", self.max_total_entries as u64, 1, 10_000_000);
        // One commit takes a message and an answer together, and has a limit.
        within(
            "max_message_bytes",
            self.max_message_bytes as u64,
            1 << 10,
            8 * MIB,
        );
        within("max_answer_bytes", self.max_answer_bytes as u64, 0, 8 * MIB);
        within("max_bytes", self.max_bytes, MIB, MIB << 20);
        within("max_ended_entries", self.max_ended_entries as u64, 0, 10_000_000);
        within(
            "default_ttl_seconds",
            self.default_ttl_seconds,
            1,
            self.max_ttl_seconds,
        );
        within("max_ttl_seconds", self.max_ttl_seconds, 1, 365 * DAY);
        within(
            "done_retention_seconds",
            self.done_retention_seconds,
            0,
            365 * DAY,
        );
        within(
            "dead_retention_seconds",
            self.dead_retention_seconds,
            0,
            365 * DAY,
        );
        within("ageing_seconds", self.ageing_seconds, 1, 365 * DAY);
        within("lease_seconds", self.lease_seconds, 3, 3600);
        within("max_in_flight", self.max_in_flight as u64, 1, 10_000);
        within("delivery_seconds", self.delivery_seconds, 1, 7 * DAY);
        within("max_failures", u64::from(self.max_failures), 1, 1_000_000);
        within("max_pause_seconds", self.max_pause_seconds, 1, DAY);
        within(
            "max_broadcast_agents",
            self.max_broadcast_agents as u64,
            1,
            10_000,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mistake_is_reported_with_its_key() {
        let mut mistakes = Mistakes::default();
        Settings::default().validate(&mut mistakes);
        let bad = Settings {
            max_entries: 0,
            default_ttl_seconds: 9 * DAY,
            lease_seconds: 1,
            ..Settings::default()
        };
        bad.validate(&mut mistakes);
        let found: Vec<_> = mistakes.iter().map(|(key, _)| key.to_owned()).collect();
        assert_eq!(
            found,
            [
                "router.inbox.max_entries",
                "router.inbox.default_ttl_seconds",
                "router.inbox.lease_seconds"
            ]
        );
    }
}
