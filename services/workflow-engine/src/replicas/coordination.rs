//! What engines that share a store agree upon: who lives, who works on which partition, and which runs are under way in groups.
//!
//! A port, so that engines can share a simulated store; a service uses [`InRedis`].

use std::time::Duration;

use async_trait::async_trait;
use futures::future::try_join;
use muster_store::redis::lease::{self, Grant, Lease, Leases};
use muster_store::redis::members::{Member, Members};
use muster_store::redis::{Error as RedisError, Script, Slot, cmd};

use crate::store::Error;
use crate::store::redis::Redis;

static JOIN: Script = Script::new(include_str!("groups/join.lua"));
static LEAVE: Script = Script::new(include_str!("groups/leave.lua"));
static SERVER: Script = Script::knowing_the_server("#!lua flags=no-writes\nreturn server()\n");

/// See the module. Every error is [`Error::Unavailable`].
#[async_trait]
pub(crate) trait Coordination: Send + Sync {
    /// How many partitions the store has.
    fn partitions(&self) -> u16;

    /// Makes sure that who is asked is still the one whose word counts.
    async fn confirm(&self);

    /// Which servers have what is of no partition.
    async fn servers(&self) -> Result<Servers, Error>;

    /// Finds out whether the store takes writes, also where no run writes.
    async fn probe(&self);

    /// Says that this engine lives, and will be heard again within `time_to_live`; answers all who live, in order of their names.
    async fn announce(&self, me: &Member, time_to_live: Duration) -> Result<Vec<Member>, Error>;

    /// Says that the engine with this name goes.
    async fn withdraw(&self, name: &str) -> Result<(), Error>;

    /// Takes the lease of a partition, unless somebody else has it.
    async fn acquire(
        &self,
        partition: u16,
        me: &Member,
        time_to_live: Duration,
    ) -> Result<Option<Grant>, Error>;

    /// Prolongs a lease: which server has it, as in [`Grant::server`]; none if somebody else has taken it.
    async fn renew(
        &self,
        partition: u16,
        owner: &str,
        epoch: u64,
        time_to_live: Duration,
    ) -> Result<Option<String>, Error>;

    /// Gives a lease back, unless it is somebody else's by now.
    async fn release(&self, partition: u16, owner: &str, epoch: u64) -> Result<(), Error>;

    /// Who has the lease of a partition.
    async fn lease(&self, partition: u16) -> Result<Lease, Error>;

    /// Who has each lease.
    async fn leases(&self) -> Result<Vec<Lease>, Error>;

    /// From now on this engine's writes to the partition are made under this lease, or not at all.
    fn fence(&self, partition: u16, owner: &str, epoch: u64);

    /// From now on this engine writes nothing to the partition.
    fn give_up(&self, partition: u16);

    /// Brings on their way what the partition's owners before had begun to send to the log of events.
    async fn relay(&self, partition: u16) -> Result<(), Error>;

    /// Makes a run one of those of a group that are under way, unless there are `most` of them; whether it is one.
    async fn join(&self, group: &str, most: u32, member: GroupMember<'_>) -> Result<bool, Error>;

    /// Takes a run out of a group, unless it has joined anew since.
    async fn leave(&self, group: &str, member: GroupMember<'_>) -> Result<(), Error>;

    /// The runs of a group, and how often each had been retried when it joined.
    async fn group(&self, group: &str) -> Result<Vec<(String, u32)>, Error>;
}

/// Which servers have what is of no partition, and is known in memory, too; each as in [`Grant::server`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Servers {
    /// The schedules.
    pub(crate) schedules: String,
    /// The groups.
    pub(crate) groups: String,
}

/// A run in a group.
#[derive(Debug, Clone, Copy)]
pub(crate) struct GroupMember<'a> {
    pub(crate) run: &'a str,
    /// How often it has been retried: a run that is retried joins anew.
    pub(crate) retries: u32,
}

/// By leases, members and groups in the Redis of the store.
pub(crate) struct InRedis {
    store: Redis,
    leases: Leases,
    members: Members,
    groups: Slot,
}

impl InRedis {
    pub(crate) fn new(store: Redis) -> Self {
        let connection = store.connection();
        // Nothing is written before there is a lease for it.
        store.share();
        Self {
            leases: Leases::new(connection.clone(), store.prefix()),
            members: Members::new(connection.clone(), store.slot()),
            groups: Slot::named(store.prefix(), "groups"),
            store,
        }
    }

    /// Keys of groups hold what callers say, of any length.
    fn group_key(&self, group: &str) -> Vec<u8> {
        self.groups.key_of("group", &muster_workflow_dsl::digest(group))
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the form that map_err wants")]
fn unavailable(error: RedisError) -> Error {
    Error::Unavailable(error.to_string())
}

#[async_trait]
impl Coordination for InRedis {
    fn partitions(&self) -> u16 {
        self.store.partitions()
    }

    async fn confirm(&self) {
        self.store.connection().confirm().await;
    }

    async fn servers(&self) -> Result<Servers, Error> {
        let connection = self.store.connection();
        let ask = |slot: &Slot| {
            let call = SERVER.call().key(slot.key("server"));
            async move { connection.call::<String>(&call).await }
        };
        let schedules = self.store.timetable();
        let asked = try_join(ask(&schedules), ask(&self.groups)).await;
        let (schedules, groups) = asked.map_err(unavailable)?;
        Ok(Servers { schedules, groups })
    }

    async fn probe(&self) {
        self.store.probe().await;
    }

    async fn announce(&self, me: &Member, time_to_live: Duration) -> Result<Vec<Member>, Error> {
        let announced = self.members.announce(me, time_to_live).await;
        announced.map_err(unavailable)
    }

    async fn withdraw(&self, name: &str) -> Result<(), Error> {
        self.members.withdraw(name).await.map_err(unavailable)
    }

    async fn acquire(
        &self,
        partition: u16,
        me: &Member,
        time_to_live: Duration,
    ) -> Result<Option<Grant>, Error> {
        let taken = self
            .leases
            .acquire(partition, &me.name, &me.address, time_to_live);
        Ok(taken.await.map_err(unavailable)?.ok())
    }

    async fn renew(
        &self,
        partition: u16,
        owner: &str,
        epoch: u64,
        time_to_live: Duration,
    ) -> Result<Option<String>, Error> {
        let renewed = self.leases.renew(partition, owner, epoch, time_to_live);
        renewed.await.map_err(unavailable)
    }

    async fn release(&self, partition: u16, owner: &str, epoch: u64) -> Result<(), Error> {
        let released = self.leases.release(partition, owner, epoch).await;
        released.map(|_| ()).map_err(unavailable)
    }

    async fn lease(&self, partition: u16) -> Result<Lease, Error> {
        self.leases.read(partition).await.map_err(unavailable)
    }

    async fn leases(&self) -> Result<Vec<Lease>, Error> {
        let leases = self.leases.read_all(self.store.partitions()).await;
        leases.map_err(unavailable)
    }

    fn fence(&self, partition: u16, owner: &str, epoch: u64) {
        self.store.fence(partition, lease::fence(epoch, owner));
    }

    fn give_up(&self, partition: u16) {
        self.store.give_up(partition);
    }

    async fn relay(&self, partition: u16) -> Result<(), Error> {
        self.store.relay(partition).await
    }

    async fn join(&self, group: &str, most: u32, member: GroupMember<'_>) -> Result<bool, Error> {
        let call = JOIN
            .call()
            .key(self.group_key(group))
            .arg(member.run)
            .number(member.retries)
            .number(most);
        let connection = self.store.connection();
        connection.call(&call).await.map_err(unavailable)
    }

    async fn leave(&self, group: &str, member: GroupMember<'_>) -> Result<(), Error> {
        let call = LEAVE
            .call()
            .key(self.group_key(group))
            .arg(member.run)
            .number(member.retries);
        let left = self.store.connection().call::<i64>(&call).await;
        left.map(|_| ()).map_err(unavailable)
    }

    async fn group(&self, group: &str) -> Result<Vec<(String, u32)>, Error> {
        let members = cmd("HGETALL").arg(self.group_key(group)).to_owned();
        self.store.connection().run(&members).await.map_err(unavailable)
    }
}
