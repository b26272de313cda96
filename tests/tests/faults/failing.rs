//! A Redis that fails over while it is used: to the replica that Sentinels promote, or within a Cluster.
//!
//! Replication is asynchronous: Redis alone promises nothing for what it has acknowledged in the moment before its primary dies. Here
//! the replica has all of it each time ([`Failing::lose_primary_of`]), so that nothing of what our services have acknowledged may be
//! lost either, and nothing be done twice that was acknowledged before.

use std::time::Duration;

use muster_api::error::Reason;
use muster_testkit::{RedisCluster, RedisSentinels};
use tonic::Status;

use crate::system::error_in;

/// Between two messages of those that flow during a fault: often, and few enough to look at each afterwards.
pub const PACE: Duration = Duration::from_millis(20);

/// See the module.
pub enum Failing {
    Sentinels(Box<RedisSentinels>),
    Cluster(RedisCluster),
}

impl Failing {
    /// A primary and a replica under three Sentinels.
    pub async fn sentinels() -> Self {
        Self::Sentinels(Box::new(RedisSentinels::start().await))
    }

    /// Three primaries with a replica each.
    pub async fn cluster() -> Self {
        Self::Cluster(RedisCluster::start_with_replicas().await)
    }

    /// Where it is. Settings are names for the whole of a test process.
    pub fn url(&self) -> &'static str {
        let url = match self {
            Self::Sentinels(sentinels) => sentinels.url(),
            Self::Cluster(cluster) => cluster.url(),
        };
        url.leak()
    }

    /// Kills the primary that has a key, and waits until its replica has taken over.
    pub async fn lose_primary_of(&mut self, key: &str) {
        match self {
            Self::Sentinels(sentinels) => sentinels.lose_primary().await,
            Self::Cluster(cluster) => cluster.lose_primary_of(key).await,
        }
    }
}

/// Whoever is refused while Redis fails over hears why, and when to come again.
pub fn is_refused_for_now(status: &Status) {
    let error = error_in(status);
    assert_eq!(error.reason, Reason::StoreUnavailable, "{status:?}");
    assert!(error.retry_after.is_some(), "{status:?}");
}
