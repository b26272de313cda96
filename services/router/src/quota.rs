//! How many messages a minute an agent takes, all its instances together: of everybody, and of each caller.
//!
//! An agent says so in the parameters of its card's routing extension, or the operator says it for the agent, which then counts
//! in the place of the card. A tenth of it may come at once. A message costs one where it goes to the agent, whichever of its
//! instances gets it and however often it moves between them; operations on tasks cost nothing. While an agent gives a caller
//! nothing, it is passed over: a message for a skill goes to another agent that has it, and is refused where there is none.
//!
//! Quotas are an agent's own protection, so that they hold for everybody: for our own services, and for callers who are not told apart,
//! who are one caller.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::fleet::Instance;
use crate::rate::Limiter;
use crate::rate::gcra::{MOST_PER_MINUTE, Rate};

/// Messages a minute. `None`: no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Quota {
    /// Of all callers together.
    pub messages_per_minute: Option<u32>,
    /// Of each caller.
    pub messages_per_minute_per_caller: Option<u32>,
}

impl Quota {
    /// Whether it limits anything.
    #[must_use]
    pub const fn limits(&self) -> bool {
        self.messages_per_minute.is_some() || self.messages_per_minute_per_caller.is_some()
    }

    /// What is wrong with it: the field, and what it must be.
    pub fn mistakes(&self) -> impl Iterator<Item = (&'static str, String)> {
        [
            ("messages_per_minute", self.messages_per_minute),
            (
                "messages_per_minute_per_caller",
                self.messages_per_minute_per_caller,
            ),
        ]
        .into_iter()
        .filter_map(|(field, value)| {
            let value = value.filter(|value| !(1..=MOST_PER_MINUTE).contains(value))?;
            Some((field, format!("is {value}, must be from 1 to {MOST_PER_MINUTE}")))
        })
    }
}

/// Whose messages are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// Everybody's.
    All,
    /// The caller's.
    Callers,
}

/// An agent takes no more for now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spent {
    /// The agent.
    pub agent: String,
    /// Whose messages have reached their limit.
    pub whose: Whose,
    /// That limit.
    pub per_minute: u32,
    /// When it takes one more.
    pub retry_after: Duration,
}

/// The quotas of all agents.
pub struct Quotas {
    /// By the operator, by agent.
    set: BTreeMap<String, Quota>,
    limiter: Limiter,
}

impl Quotas {
    /// The quotas that the operator has set, by agent; others are those of the cards.
    #[must_use]
    pub const fn new(set: BTreeMap<String, Quota>, limiter: Limiter) -> Self {
        Self { set, limiter }
    }

    /// Whether the instance's agent takes no message of the caller now, as far as it is known here.
    #[must_use]
    pub fn spent(&self, instance: &Instance, caller: &str) -> Option<Spent> {
        self.limits(instance, caller).find_map(|(whose, key, rate)| {
            let retry_after = self.limiter.refused(&key, rate)?;
            Some(spent(instance, whose, rate, retry_after))
        })
    }

    /// A message of the caller goes to the instance.
    ///
    /// # Errors
    /// Its agent takes none now.
    pub async fn pay(&self, instance: &Instance, caller: &str) -> Result<(), Spent> {
        let mut paid: Option<(String, Rate)> = None;
        for (whose, key, rate) in self.limits(instance, caller) {
            if let Err(retry_after) = self.limiter.take(&key, rate).await {
                if let Some((key, rate)) = paid {
                    self.limiter.give_back(&key, rate);
                }
                return Err(spent(instance, whose, rate, retry_after));
            }
            paid = Some((key, rate));
        }
        Ok(())
    }

    /// Whether a message to the instance costs anything.
    #[must_use]
    pub fn costs(&self, instance: &Instance) -> bool {
        self.of(instance).limits()
    }

    fn of(&self, instance: &Instance) -> Quota {
        if self.set.is_empty() {
            return instance.quota;
        }
        self.set
            .get(&instance.id.agent)
            .copied()
            .unwrap_or(instance.quota)
    }

    /// What a message of the caller is counted in. Agents' ids have no line breaks.
    fn limits(&self, instance: &Instance, caller: &str) -> impl Iterator<Item = (Whose, String, Rate)> {
        let quota = self.of(instance);
        let agent = &instance.id.agent;
        let of_caller = quota.messages_per_minute_per_caller.map(|most| {
            (
                Whose::Callers,
                format!("{agent}\n{caller}"),
                Rate::per_minute(most),
            )
        });
        let of_all = quota
            .messages_per_minute
            .map(|most| (Whose::All, agent.clone(), Rate::per_minute(most)));
        of_caller.into_iter().chain(of_all)
    }
}

fn spent(instance: &Instance, whose: Whose, rate: Rate, retry_after: Duration) -> Spent {
    Spent {
        agent: instance.id.agent.clone(),
        whose,
        per_minute: rate.each_minute(),
        retry_after,
    }
}
