//! Fenced leases: who may write to a partition, told apart by an epoch that only grows.
//!
//! A lease is a hash in the slot of its partition: owner, address, epoch, and until when, by Redis's own clock, so that the
//! clocks of the owners do not matter. Each change is one script. Whoever writes to the partition checks in the same script
//! that the epoch is still its own: an owner that was frozen and wakes after somebody else has taken over can write nothing,
//! whatever it believes of the time. That is also why a lease that has run out, and that nobody has taken, may be renewed.
//!
//! An owner is a name that no two living processes share. It may take its own lease again at once, under a new epoch: so a
//! process that starts again need not wait, and an answer that got lost does no harm.
//!
//! **Which server says so** is told with each lease, and with each renewal: a server that was promoted, or that has started again,
//! may lack what was acknowledged last. It may still have the lease as it was, so that the owner is let on; whoever keeps in
//! memory what it wrote sees by the server's name that it has to read that anew. The name comes with the answer, from the
//! primary of the lease's slot, and so from the one that decides on the writes: what Sentinels or nodes of a Cluster believe of
//! each other at that moment does not matter.

use std::time::Duration;

use futures::future::try_join_all;

use super::{Connection, Error, Script, Slot};

static ACQUIRE: Script = Script::knowing_the_server(include_str!("lease/acquire.lua"));
static RENEW: Script = Script::knowing_the_server(include_str!("lease/renew.lua"));
static RELEASE: Script = Script::new(include_str!("lease/release.lua"));
static READ: Script = Script::new(include_str!("lease/read.lua"));

/// Name of the key in the partition's slot; its fields `epoch` and `owner` are what writers check ([`fence`]).
pub const KEY: &str = "lease";

/// What scripts that write under a lease compare with its fields `epoch` and `owner`, with a space between. The owner is part of
/// it because a failover may lose the last epoch, which is then given out twice.
#[must_use]
pub fn fence(epoch: u64, owner: &str) -> String {
    format!("{epoch} {owner}")
}

/// A lease as Redis has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The partition.
    pub partition: u16,
    /// Who has it; empty: nobody.
    pub owner: String,
    /// Where the owner can be reached.
    pub address: String,
    /// Raised each time it is taken.
    pub epoch: u64,
    /// For how long it is the owner's without renewal.
    pub remaining: Duration,
}

/// A lease that was granted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// Its epoch.
    pub epoch: u64,
    /// Which server has it, and which life of it: another one may be behind. Empty where that must not be read.
    pub server: String,
}

/// The leases of a store.
#[derive(Clone)]
pub struct Leases {
    connection: Connection,
    prefix: String,
}

impl Leases {
    /// Those under a prefix of keys.
    #[must_use]
    pub fn new(connection: Connection, prefix: impl Into<String>) -> Self {
        Self {
            connection,
            prefix: prefix.into(),
        }
    }

    fn key(&self, partition: u16) -> Vec<u8> {
        Slot::of_partition(&self.prefix, partition).key(KEY)
    }

    /// Takes the lease of a partition, or says who has it.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn acquire(
        &self,
        partition: u16,
        owner: &str,
        address: &str,
        time_to_live: Duration,
    ) -> Result<Result<Grant, Lease>, Error> {
        let call = ACQUIRE
            .call()
            .key(self.key(partition))
            .arg(owner)
            .arg(address)
            .number(milliseconds(time_to_live));
        let mut answer = self.connection.call::<Vec<String>>(&call).await?.into_iter();
        let taken = answer.next().is_some_and(|taken| taken == "1");
        if taken {
            return Ok(Ok(Grant {
                epoch: number(answer.next()),
                server: answer.next().unwrap_or_default(),
            }));
        }
        let mut text = || answer.next().unwrap_or_default();
        let (owner, address) = (text(), text());
        Ok(Err(Lease {
            partition,
            owner,
            address,
            epoch: number(answer.next()),
            remaining: Duration::from_millis(number(answer.next())),
        }))
    }

    /// Prolongs a lease: which server has it, as in [`Grant`]; none if somebody else has taken it.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn renew(
        &self,
        partition: u16,
        owner: &str,
        epoch: u64,
        time_to_live: Duration,
    ) -> Result<Option<String>, Error> {
        let call = RENEW
            .call()
            .key(self.key(partition))
            .arg(owner)
            .number(epoch)
            .number(milliseconds(time_to_live));
        self.connection.call(&call).await
    }

    /// Gives a lease back; false if it was somebody else's.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn release(&self, partition: u16, owner: &str, epoch: u64) -> Result<bool, Error> {
        let call = RELEASE.call().key(self.key(partition)).arg(owner).number(epoch);
        self.connection.call(&call).await
    }

    /// Reads the leases of so many partitions.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn read_all(&self, partitions: u16) -> Result<Vec<Lease>, Error> {
        try_join_all((0..partitions).map(|partition| self.read(partition))).await
    }

    /// Reads the lease of a partition.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn read(&self, partition: u16) -> Result<Lease, Error> {
        let call = READ.call().key(self.key(partition));
        let mut answer = self.connection.call::<Vec<String>>(&call).await?.into_iter();
        let mut text = || answer.next().unwrap_or_default();
        let (owner, address) = (text(), text());
        Ok(Lease {
            partition,
            owner,
            address,
            epoch: number(answer.next()),
            remaining: Duration::from_millis(number(answer.next())),
        })
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn number(text: Option<String>) -> u64 {
    text.and_then(|text| text.parse().ok()).unwrap_or_default()
}
