//! Which agents are kept by their cards, written down: the port that adapters implement, and the suite that they pass.
//!
//! Only what was asked for is in here, and never what has been found: that is looked up anew.

pub mod embedded;
pub mod memory;

use async_trait::async_trait;

use super::entry::{Kept, Key};

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
