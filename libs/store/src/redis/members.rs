//! Who works on a store: each process says now and then that it lives and where it can be reached, and hears who else does.
//!
//! One hash in one slot, and one script for both, by Redis's own clock. Whoever has not been heard for as long as it said is
//! left out and forgotten. Membership decides only who *should* have which lease; who *may* write is decided by the leases
//! alone, so that a list that is out of date costs time and nothing else.

use std::time::Duration;

use super::{Connection, Error, Script, Slot};

static ANNOUNCE: Script = Script::new(include_str!("members/announce.lua"));
static WITHDRAW: Script = Script::new(include_str!("members/withdraw.lua"));

const KEY: &str = "members";

/// A process that works on the store.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Member {
    /// A name that no two living processes share.
    pub name: String,
    /// Where it can be reached.
    pub address: String,
}

/// Those who work on a store.
#[derive(Clone)]
pub struct Members {
    connection: Connection,
    slot: Slot,
}

impl Members {
    /// Those of the store whose keys are in this slot.
    #[must_use]
    pub fn new(connection: Connection, slot: Slot) -> Self {
        Self { connection, slot }
    }

    /// Says that `member` lives, and will be heard again within `time_to_live`; answers all who live, in order of their names.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn announce(&self, member: &Member, time_to_live: Duration) -> Result<Vec<Member>, Error> {
        let call = ANNOUNCE
            .call()
            .key(self.slot.key(KEY))
            .arg(member.name.as_str())
            .arg(member.address.as_str())
            .number(u64::try_from(time_to_live.as_millis()).unwrap_or(u64::MAX));
        let answer: Vec<String> = self.connection.call(&call).await?;
        let (pairs, _) = answer.as_chunks::<2>();
        let alive = pairs.iter().map(|[name, address]| Member {
            name: name.clone(),
            address: address.clone(),
        });
        let mut alive: Vec<Member> = alive.collect();
        alive.sort();
        Ok(alive)
    }

    /// Says that the member with this name goes.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn withdraw(&self, name: &str) -> Result<(), Error> {
        let call = WITHDRAW.call().key(self.slot.key(KEY)).arg(name);
        self.connection.call::<i64>(&call).await.map(|_| ())
    }
}
