//! Which agents are kept by their cards, written down: the port that adapters implement, and the suite that they pass.
//!
//! Only what was asked for is in here, and never what has been found: that is looked up anew. A store that several registries
//! share knows more ([`Shared`]): who of them keeps, and what that one has found.

pub mod embedded;
pub mod memory;
pub mod redis;

use std::time::Duration;

use async_trait::async_trait;

use super::entry::{Found, Kept, Key};

/// Why something could not be read or written down.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Error(pub String);

/// See the module.
#[async_trait]
pub trait Entries: Send + Sync + 'static {
    /// All that are kept, in no order; at most as many as `registry.max_managed_agents` has ever allowed.
    async fn all(&self) -> Result<Vec<Kept>, Error>;

    /// Writes down that an agent is kept; replaces what is under the same key. Durable when it returns, as far as the store
    /// can make it.
    async fn put(&self, kept: &Kept) -> Result<(), Error>;

    /// Forgets one; that there is none is no error.
    async fn remove(&self, key: &Key) -> Result<(), Error>;

    /// Why nothing can be written down; `None` while it can.
    fn failure(&self) -> Option<String>;
}

/// How much of a shared store is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// A random name; another one where the store was lost and has begun anew.
    pub store: String,
    /// How often what is kept has changed in it.
    pub change: u64,
}

/// All of a shared store.
#[derive(Debug, Clone, PartialEq)]
pub struct News {
    /// As of when.
    pub known: Known,
    /// All that are kept, with what was found of each.
    pub entries: Vec<(Kept, Option<Found>)>,
}

/// What became of what the keeper has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// It is written down.
    Done,
    /// The agent is kept no longer.
    Gone,
    /// Another registry is the keeper.
    Lost,
}

/// A store that several registries share: all know what is kept, and one at a time, the keeper, keeps it.
#[async_trait]
pub trait Shared: Entries {
    /// All that are kept; `None` where nothing has changed since.
    async fn news(&self, known: Option<&Known>) -> Result<Option<News>, Error>;

    /// What was found of these.
    async fn found(&self, keys: &[Key]) -> Result<Vec<Option<Found>>, Error>;

    /// As [`Entries::put`], unless something is under the same key already; whether it was written down.
    async fn put_new(&self, kept: &Kept) -> Result<bool, Error>;

    /// As [`Entries::put`], with what was found of the agent when it was admitted.
    async fn put_found(&self, kept: &Kept, found: &Found) -> Result<(), Error>;

    /// Writes down what the keeper of this epoch has found.
    async fn tell(&self, epoch: u64, key: &Key, found: &Found) -> Result<Told, Error>;

    /// Becomes the keeper, or stays it under the epoch that it has: the epoch, or `None` while another registry is.
    async fn lead(&self, epoch: Option<u64>) -> Result<Option<u64>, Error>;

    /// Is the keeper no longer.
    async fn leave(&self, epoch: u64) -> Result<(), Error>;

    /// For how long a registry is the keeper without saying so again.
    fn time_to_live(&self) -> Duration;
}

/// Between the parts of a key; in none of them, because the first two are DNS labels.
const BETWEEN: u8 = 0;

/// A key as stores have it.
fn bytes(key: &Key) -> Vec<u8> {
    let parts = [&key.namespace, &key.agent_id, &key.card].map(|part| part.as_bytes());
    parts.join(&BETWEEN)
}

#[cfg(test)]
pub(crate) mod conformance {
    //! What every such store must do.

    use super::super::entry::kept;
    use super::*;

    /// Runs the suite on an empty store.
    pub(crate) async fn run(store: &dyn Entries) {
        let sorted = async || {
            let mut all = store.all().await.unwrap();
            all.sort_by_key(Kept::key);
            all
        };
        assert_eq!(sorted().await, []);
        let (one, other) = (kept("a", "http://a/card?x=1"), kept("b", "http://a/card?x=1"));
        store.put(&other).await.unwrap();
        store.put(&one).await.unwrap();
        assert_eq!(sorted().await, [one.clone(), other.clone()]);

        let changed = Kept {
            weight: None,
            ..one.clone()
        };
        store.put(&changed).await.unwrap();
        assert_eq!(sorted().await, [changed, other.clone()]);

        store.remove(&one.key()).await.unwrap();
        store.remove(&one.key()).await.unwrap();
        assert_eq!(sorted().await, [other]);
        assert_eq!(store.failure(), None);
    }
}
