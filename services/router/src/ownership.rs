//! Which instance owns which task, so that every later call on the task reaches it.
//!
//! The first answer that is a task makes its sender the owner; that is durable before the caller hears of the task.
//! A task id that belongs to one agent cannot be taken over by another. Within an agent the owner may change: whichever
//! instance answers with the task last has it. A small cache spares the store the repeated news of a long stream.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;

use crate::error::Error;
use crate::fleet::Key;
use crate::store::{Owner, Owners, SWEPT_AT_ONCE};

/// Most owners that are remembered beside the store.
const CACHED: usize = 10_000;

/// Owners of tasks.
pub struct Ownership {
    store: Arc<dyn Owners>,
    retention: SignedDuration,
    most: usize,
    cache: Mutex<Cache>,
}

#[derive(Default)]
struct Cache {
    owners: HashMap<String, Owner>,
    order: VecDeque<String>,
}

impl Cache {
    fn keep(&mut self, task: &str, owner: &Owner) {
        if self.owners.insert(task.to_owned(), owner.clone()).is_none() {
            self.order.push_back(task.to_owned());
        }
        if self.order.len() > CACHED
            && let Some(oldest) = self.order.pop_front()
        {
            self.owners.remove(&oldest);
        }
    }
}

impl Ownership {
    /// Owners in `store`, each kept for `retention`, at most so many.
    #[must_use]
    pub fn new(store: Arc<dyn Owners>, retention: SignedDuration, most: usize) -> Self {
        Self {
            store,
            retention,
            most,
            cache: Mutex::default(),
        }
    }

    /// The owner of a task, if it is known.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub async fn of(&self, task: &str, now: Timestamp) -> Result<Option<Owner>, Error> {
        let cached = self.cache.lock().owners.get(task).cloned();
        let owner = match cached {
            Some(owner) => Some(owner),
            None => self.store.get(task).await.map_err(unavailable)?,
        };
        Ok(owner.filter(|owner| now.duration_since(owner.since) < self.retention))
    }

    /// An instance answered with a task: it is the owner from now on, durably.
    ///
    /// # Errors
    /// When the task belongs to another agent, or the store cannot write.
    pub async fn record(&self, task: &str, key: &Key, now: Timestamp) -> Result<(), Error> {
        match self.of(task, now).await? {
            Some(owner) if owner.agent != key.agent => {
                return Err(Error::InvalidAnswer {
                    agent: key.agent.clone(),
                    detail: format!("it claims task '{task}', which belongs to another agent"),
                });
            }
            Some(owner) if owner.instance == key.instance => return Ok(()),
            Some(_) | None => {}
        }
        let owner = Owner {
            agent: key.agent.clone(),
            instance: key.instance.clone(),
            since: now,
        };
        self.store.put(task, &owner).await.map_err(unavailable)?;
        self.cache.lock().keep(task, &owner);
        Ok(())
    }

    /// Forgets what is past its retention. To be called now and then.
    ///
    /// # Errors
    /// When the store cannot be read or written.
    pub async fn sweep(&self, now: Timestamp) -> Result<(), Error> {
        let before = now.saturating_sub(self.retention).unwrap_or(Timestamp::MIN);
        while self.store.sweep(before, self.most).await.map_err(unavailable)? == SWEPT_AT_ONCE {}
        Ok(())
    }
}

fn unavailable(error: crate::store::Error) -> Error {
    Error::Store { detail: error.0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::memory::Memory;

    fn key(agent: &str, instance: &str) -> Key {
        Key {
            agent: agent.to_owned(),
            instance: instance.to_owned(),
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn ownership() -> Ownership {
        Ownership::new(Arc::new(Memory::default()), SignedDuration::from_secs(100), 1000)
    }

    #[tokio::test]
    async fn the_owner_may_change_within_an_agent_and_not_beyond() {
        let ownership = ownership();
        ownership.record("t", &key("weather", "w1"), at(1)).await.unwrap();
        ownership.record("t", &key("weather", "w2"), at(2)).await.unwrap();
        assert_eq!(ownership.of("t", at(3)).await.unwrap().unwrap().instance, "w2");
        let stolen = ownership.record("t", &key("planning", "p1"), at(3)).await;
        assert!(matches!(stolen, Err(Error::InvalidAnswer { .. })));
        assert_eq!(ownership.of("t", at(3)).await.unwrap().unwrap().agent, "weather");
    }

    #[tokio::test]
    async fn after_its_retention_a_task_is_unknown_and_swept() {
        let ownership = ownership();
        ownership.record("t", &key("weather", "w1"), at(1)).await.unwrap();
        assert!(ownership.of("t", at(100)).await.unwrap().is_some());
        assert!(ownership.of("t", at(101)).await.unwrap().is_none());
        ownership.sweep(at(200)).await.unwrap();
        assert_eq!(ownership.store.get("t").await.unwrap(), None);
    }

    #[test]
    fn the_cache_is_bounded() {
        let mut cache = Cache::default();
        let owner = Owner {
            agent: "a".to_owned(),
            instance: "i".to_owned(),
            since: at(1),
        };
        for number in 0..CACHED + 100 {
            cache.keep(&number.to_string(), &owner);
        }
        assert_eq!((cache.owners.len(), cache.order.len()), (CACHED, CACHED));
    }
}
