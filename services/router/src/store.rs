//! Where the owners of tasks are kept: the port, its adapters, and the suite that every adapter passes.
//!
//! An owner is the instance that took a task on. It is kept until the task's retention ends, or until so many
//! newer ones have come that the bound is reached; then the oldest goes.

pub mod embedded;
pub mod memory;

use async_trait::async_trait;
use jiff::Timestamp;
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
    /// has an owner gets the new one.
    async fn put(&self, task: &str, owner: &Owner) -> Result<(), Error>;

    /// Forgets the tasks that were kept before `before`, and the oldest above `most`; a limited number of them at
    /// a time. Returns how many it forgot.
    async fn sweep(&self, before: Timestamp, most: usize) -> Result<usize, Error>;
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
        }
    }

    /// Runs the suite on an empty store.
    pub(crate) async fn run(store: &dyn Owners) {
        assert_eq!(store.get("t1").await.unwrap(), None);
        for second in 1..=5 {
            store
                .put(&format!("t{second}"), &owner("w1", second))
                .await
                .unwrap();
        }
        assert_eq!(store.get("t1").await.unwrap(), Some(owner("w1", 1)));

        // A new owner replaces the old one, also in the order of age.
        store.put("t1", &owner("w2", 6)).await.unwrap();
        assert_eq!(store.get("t1").await.unwrap(), Some(owner("w2", 6)));

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

        // Task ids are the agents' and may be any text.
        let strange = "täsk/\u{0}:1 \n";
        store.put(strange, &owner("w1", 7)).await.unwrap();
        assert_eq!(store.get(strange).await.unwrap(), Some(owner("w1", 7)));
    }
}
