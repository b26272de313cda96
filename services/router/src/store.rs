//! Where the owners of tasks are kept: the port, its adapters, and the suite that every adapter passes. The same places keep
//! [`answers`].
//!
//! An owner is the instance that took a task on. It is kept until the task's retention ends, or until so many
//! newer ones have come that the bound is reached; then the oldest goes. In [`redis`] the owners are shared by routers,
//! retention ends by itself, and Redis has the bound.

pub mod answers;
pub mod embedded;
pub mod memory;
pub mod redis;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

use crate::fleet::Key;

/// Why an owner could not be read or kept.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct Error(pub String);

/// Who took a task on, and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The agent's id.
    pub agent: String,
    /// The instance's id.
    pub instance: String,
    /// When the router learnt of it.
    pub since: Timestamp,
    /// On whose behalf the task was begun; none of tasks that an earlier release has seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub caller: Option<String>,
}

impl Owner {
    /// The owning instance.
    #[must_use]
    pub fn key(&self) -> Key {
        Key {
            agent: self.agent.clone(),
            instance: self.instance.clone(),
        }
    }
}

/// Owners by task id.
#[async_trait]
pub trait Owners: Send + Sync + 'static {
    /// The owner of a task.
    async fn get(&self, task: &str) -> Result<Option<Owner>, Error>;

    /// Keeps the owner of a task; when it returns, the owner is as durable as the store can make it. A task that
    /// has an owner gets the new one, unless the old one is of another agent and has not been kept for `keep` yet: then the old
    /// one stays and is returned.
    async fn put(&self, task: &str, owner: &Owner, keep: SignedDuration) -> Result<Option<Owner>, Error>;

    /// Forgets the tasks that were kept before `before`, and the oldest above `most`; a limited number of them at
    /// a time. Returns how many it forgot.
    async fn sweep(&self, before: Timestamp, most: usize) -> Result<usize, Error>;
}

impl Owner {
    /// Whether a task of this owner cannot become that of another one: it is another agent's, and this one's time has not
    /// passed.
    fn withstands(&self, other: &Self, keep: SignedDuration) -> bool {
        self.agent != other.agent && other.since.duration_since(self.since) < keep
    }
}

/// How many owners one sweep forgets at most.
pub const SWEPT_AT_ONCE: usize = 1000;

#[cfg(test)]
pub(crate) mod conformance {
    //! What every store of owners must do.

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn owner(instance: &str, second: i64) -> Owner {
        Owner {
            agent: "weather".to_owned(),
            instance: instance.to_owned(),
            since: at(second),
            caller: (second % 2 == 0).then(|| format!("user::{second}")),
        }
    }

    const KEEP: SignedDuration = SignedDuration::from_secs(1000);

    async fn put(store: &dyn Owners, task: &str, owner: &Owner) {
        assert_eq!(store.put(task, owner, KEEP).await.unwrap(), None, "{task}");
    }

    /// Runs the suite on an empty store.
    pub(crate) async fn run(store: &dyn Owners) {
        assert_eq!(store.get("t1").await.unwrap(), None);
        put(store, "t1", &owner("w1", 1)).await;
        assert_eq!(store.get("t1").await.unwrap(), Some(owner("w1", 1)));

        // A new owner of the same agent replaces the old one, and keeping it twice is keeping it once.
        for _ in 0..2 {
            put(store, "t1", &owner("w2", 6)).await;
            assert_eq!(store.get("t1").await.unwrap(), Some(owner("w2", 6)));
        }

        // Another agent does not get the task.
        let thief = Owner {
            agent: "planning".to_owned(),
            ..owner("p1", 7)
        };
        assert_eq!(store.put("t1", &thief, KEEP).await.unwrap(), Some(owner("w2", 6)));
        assert_eq!(store.get("t1").await.unwrap(), Some(owner("w2", 6)));

        // Of many who claim a task at the same time, all of one agent have it.
        let claims = (0..8).map(|number| {
            let agent = if number % 2 == 0 { "weather" } else { "planning" };
            let owner = Owner {
                agent: agent.to_owned(),
                ..owner("x", 8)
            };
            async move { (agent, store.put("claimed", &owner, KEEP).await.unwrap()) }
        });
        let claims = futures::future::join_all(claims).await;
        let winner = store.get("claimed").await.unwrap().unwrap().agent;
        for (agent, other) in claims {
            assert_eq!(other.is_none(), agent == winner, "{agent} {other:?}");
        }

        // Task ids are the agents' and may be any text.
        for strange in ["täsk/\u{0}:1 \n", "{t1}", "*"] {
            put(store, strange, &owner("w1", 7)).await;
            assert_eq!(store.get(strange).await.unwrap(), Some(owner("w1", 7)));
        }
        assert_eq!(store.get("t1").await.unwrap(), Some(owner("w2", 6)));
    }

    /// What a store must do in addition, where forgetting is its own affair. On an empty store.
    pub(crate) async fn run_sweeps(store: &dyn Owners) {
        for second in 1..=5 {
            put(store, &format!("t{second}"), &owner("w1", second)).await;
        }
        put(store, "t1", &owner("w2", 6)).await;

        // By age: t2 goes, t1 is young again.
        assert_eq!(store.sweep(at(3), 100).await.unwrap(), 1);
        assert_eq!(store.get("t2").await.unwrap(), None);
        assert!(store.get("t1").await.unwrap().is_some());

        // By number: of t3, t4, t5, t1 the two youngest stay.
        assert_eq!(store.sweep(at(0), 2).await.unwrap(), 2);
        for (task, kept) in [("t3", false), ("t4", false), ("t5", true), ("t1", true)] {
            assert_eq!(store.get(task).await.unwrap().is_some(), kept, "{task}");
        }
        assert_eq!(store.sweep(at(0), 2).await.unwrap(), 0);

        // Whose time has passed does not keep another agent away.
        let other = Owner {
            agent: "planning".to_owned(),
            ..owner("p1", 1005)
        };
        put(store, "t5", &other).await;
        assert_eq!(store.get("t5").await.unwrap(), Some(other));
    }
}
