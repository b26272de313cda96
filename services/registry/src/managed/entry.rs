//! One agent that is kept by its card: what was asked for, what is held of it, and what a look at it changes.
//!
//! Plain data on times that are passed in. A look takes a copy of what is held, goes out, and brings back what is to be held
//! from then on, or why the agent was not found. What was changed meanwhile by somebody else (the agent is kept
//! anew, or no longer) has another generation, and the look's result is dropped.
//!
//! While an agent is not found its lease is not renewed, and it is looked for after growing pauses, at most as long as that
//! between two heartbeats: so one lost answer costs nothing, and an agent that is back is soon found.

use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use jiff::Timestamp;
use muster_a2a::join::Wish;
use muster_api::registry as proto;
use muster_rpc::backoff::Backoff;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// First pause after an agent was not found.
const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// Under which an agent is kept; the order is that of the list.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// Whose agent it is.
    pub namespace: String,
    /// Its id.
    pub agent_id: String,
    /// The address of its card.
    pub card: String,
}

/// What was asked for; the part that is written down.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// The address of the card.
    pub card: String,
    /// The agent's id.
    pub agent_id: String,
    /// Whose agent it is.
    pub namespace: String,
    /// How it is to be called; empty for the fastest way that the card lists.
    #[serde(default)]
    pub binding: String,
    /// Its region.
    #[serde(default)]
    pub region: String,
    /// Its zone.
    #[serde(default)]
    pub zone: String,
    /// Its share of new work.
    #[serde(default)]
    pub weight: Option<u32>,
    /// Since when it is kept.
    pub since: Timestamp,
}

impl Kept {
    /// Under which it is kept.
    #[must_use]
    pub fn key(&self) -> Key {
        Key {
            namespace: self.namespace.clone(),
            agent_id: self.agent_id.clone(),
            card: self.card.clone(),
        }
    }

    /// What its instance is beside the card.
    #[must_use]
    pub fn wish(&self) -> Wish {
        Wish {
            agent_id: self.agent_id.clone(),
            namespace: self.namespace.clone(),
            binding: self.binding.clone(),
            region: self.region.clone(),
            zone: self.zone.clone(),
            weight: self.weight,
        }
    }
}

/// What was found of an agent, as registries that share a store tell each other.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Found {
    /// The id of its instance; empty where it was never found.
    pub instance_id: String,
    /// How that is called.
    pub binding: String,
    /// Where that is.
    pub endpoint: String,
    /// Its lease; it may have run out.
    pub lease: Option<Uuid>,
    /// Whether an operator has taken the agent out.
    pub is_draining: bool,
    /// Why the last look did not find it.
    pub problem: Option<String>,
    /// When it was found last.
    pub seen_at: Option<Timestamp>,
}

/// What is held of an agent.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Held {
    /// The instance that its last card described.
    pub instance: Option<Arc<proto::Instance>>,
    /// The tag of that card.
    pub tag: Option<HeaderValue>,
    /// The lease of that instance; it may have run out.
    pub lease: Option<Uuid>,
    /// Whether an operator has taken the agent out. It stays out until it is forgotten, whatever becomes of its lease.
    pub is_draining: bool,
}

impl Held {
    /// The id of the instance; empty where there is none yet.
    #[must_use]
    pub fn instance_id(&self) -> &str {
        self.instance
            .as_ref()
            .map_or("", |instance| instance.instance_id.as_str())
    }
}

/// See the module.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry {
    /// What was asked for.
    pub kept: Kept,
    /// What is held.
    pub held: Held,
    /// Why the last look did not find it.
    pub problem: Option<String>,
    /// When it was found last.
    pub seen_at: Option<Timestamp>,
    generation: u64,
    /// Looks in a row that did not find it.
    failed: u32,
    /// When it is to be looked at next.
    due: Duration,
    is_looked_at: bool,
}

impl Entry {
    /// One of which nothing is known yet, to be looked at now.
    #[must_use]
    pub const fn new(kept: Kept, now: Duration) -> Self {
        Self {
            kept,
            held: Held {
                instance: None,
                tag: None,
                lease: None,
                is_draining: false,
            },
            problem: None,
            seen_at: None,
            generation: 0,
            failed: 0,
            due: now,
            is_looked_at: false,
        }
    }

    /// One of which another registry has told what it has found. Its card is unknown here, so that it is registered anew when
    /// this one is the first to look at it.
    #[must_use]
    pub fn found(kept: Kept, found: Option<Found>, due: Duration) -> Self {
        let mut entry = Self::new(kept, due);
        entry.learn(found.unwrap_or_default());
        entry
    }

    /// Takes over what another registry has found.
    pub fn learn(&mut self, found: Found) {
        let Found {
            instance_id,
            binding,
            endpoint,
            lease,
            is_draining,
            problem,
            seen_at,
        } = found;
        let instance = (!instance_id.is_empty()).then(|| {
            Arc::new(proto::Instance {
                agent_id: self.kept.agent_id.clone(),
                instance_id,
                binding,
                endpoint,
                ..proto::Instance::default()
            })
        });
        self.held = Held {
            instance,
            tag: None,
            lease,
            is_draining,
        };
        self.problem = problem;
        self.seen_at = seen_at;
    }

    /// What other registries are told.
    #[must_use]
    pub fn telling(&self) -> Found {
        let instance = self.held.instance.as_deref();
        Found {
            instance_id: self.held.instance_id().to_owned(),
            binding: instance.map(|it| it.binding.clone()).unwrap_or_default(),
            endpoint: instance.map(|it| it.endpoint.clone()).unwrap_or_default(),
            lease: self.held.lease,
            is_draining: self.held.is_draining,
            problem: self.problem.clone(),
            seen_at: self.seen_at,
        }
    }

    /// Takes the place of an entry: a look at that one which is still out does not count.
    pub const fn follow(&mut self, before: &Self) {
        self.generation = before.generation + 1;
    }

    /// When a look is due; `None` while one is under way.
    #[must_use]
    pub const fn due(&self) -> Option<Duration> {
        if self.is_looked_at { None } else { Some(self.due) }
    }

    /// Begins a look; says its generation.
    pub const fn begin(&mut self) -> u64 {
        self.is_looked_at = true;
        self.generation
    }

    /// Whether a look of this generation still counts.
    #[must_use]
    pub const fn is_current(&self, generation: u64) -> bool {
        self.generation == generation
    }

    /// It was found. Says whether it was not before.
    pub fn seen(&mut self, held: Held, wall: Timestamp, now: Duration, interval: Duration) -> bool {
        let is_news = self.problem.take().is_some() || self.seen_at.is_none();
        self.held = held;
        self.seen_at = Some(wall);
        self.failed = 0;
        self.due = now.saturating_add(interval);
        self.is_looked_at = false;
        is_news
    }

    /// It was not found. Says whether it was before.
    pub fn missed(&mut self, problem: String, now: Duration, interval: Duration, random: f64) -> bool {
        let pauses = Backoff::doubling(FIRST_PAUSE.min(interval), interval);
        let pause = pauses.delay(self.failed, random);
        let is_news = self.problem.is_none();
        self.problem = Some(problem);
        self.failed = self.failed.saturating_add(1);
        // Not at once, however small the random number is.
        self.due = now.saturating_add(pause.max(FIRST_PAUSE.min(interval) / 4));
        self.is_looked_at = false;
        is_news
    }
}

#[cfg(test)]
pub(crate) fn kept(agent_id: &str, card: &str) -> Kept {
    Kept {
        card: card.to_owned(),
        agent_id: agent_id.to_owned(),
        namespace: "default".to_owned(),
        binding: "JSONRPC".to_owned(),
        region: "r".to_owned(),
        zone: String::new(),
        weight: Some(7),
        since: Timestamp::UNIX_EPOCH,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const INTERVAL: Duration = Duration::from_secs(30);

    #[test]
    fn a_look_says_what_is_news_and_when_the_next_is_due() {
        let now = Duration::from_secs(100);
        let mut entry = Entry::new(kept("a", "http://a/"), now);
        assert_eq!(entry.due(), Some(now));
        entry.begin();
        assert_eq!(entry.due(), None);
        assert!(entry.seen(Held::default(), Timestamp::UNIX_EPOCH, now, INTERVAL));
        assert_eq!(entry.due(), Some(now + INTERVAL));
        assert!(!entry.seen(Held::default(), Timestamp::UNIX_EPOCH, now, INTERVAL));
        assert!(entry.missed("gone".to_owned(), now, INTERVAL, 1.0));
        assert!(!entry.missed("gone".to_owned(), now, INTERVAL, 1.0));
        assert_eq!(entry.due(), Some(now + FIRST_PAUSE * 2));
        assert!(entry.seen(Held::default(), Timestamp::UNIX_EPOCH, now, INTERVAL));
    }

    #[test]
    fn what_is_told_is_what_is_learned() {
        let mut entry = Entry::new(kept("a", "http://a/"), Duration::ZERO);
        assert_eq!(entry.telling(), Found::default());
        let found = Found {
            instance_id: "i".to_owned(),
            binding: "GRPC".to_owned(),
            endpoint: "http://a:1".to_owned(),
            lease: Some(Uuid::nil()),
            is_draining: true,
            problem: Some("gone".to_owned()),
            seen_at: Some(Timestamp::UNIX_EPOCH),
        };
        entry.learn(found.clone());
        assert_eq!((entry.telling(), entry.held.tag), (found.clone(), None));
        let json = serde_json::to_string(&found).unwrap();
        assert_eq!(serde_json::from_str::<Found>(&json).unwrap(), found);
    }

    #[test]
    fn what_takes_an_entrys_place_does_not_take_its_looks() {
        let mut before = Entry::new(kept("a", "http://a/"), Duration::ZERO);
        let generation = before.begin();
        let mut after = Entry::new(kept("a", "http://a/"), Duration::ZERO);
        after.follow(&before);
        assert!(before.is_current(generation) && !after.is_current(generation));
    }

    proptest! {
        #[test]
        fn an_agent_that_is_missed_is_looked_for_again_within_a_heartbeat(
            failed in 0_u32..100, random in 0.0..=1.0, seconds in 1_u64..3_600,
        ) {
            let interval = Duration::from_secs(seconds);
            let mut entry = Entry::new(kept("a", "http://a/"), Duration::ZERO);
            for _ in 0..=failed {
                entry.missed(String::new(), Duration::ZERO, interval, random);
            }
            let due = entry.due().unwrap();
            prop_assert!(due > Duration::ZERO && due <= interval);
        }
    }
}
