//! What engines that share a simulated store agree upon, and how each of them reaches it.
//!
//! The world keeps members, leases and groups as Redis would, by its own clock ([`Agreed`]). Each life of an engine has a
//! [`Seat`]: its gate to everything that is outside of it, and the fences that it writes under. The store itself asks
//! [`Seat::may_write`] at the instant at which a write arrives, and the witness asks the world by itself who was right.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use muster_runtime::clock::Clock as _;
use muster_runtime::trust::identity::Channel;
use muster_store::redis::lease::{Grant, Lease};
use muster_store::redis::members::Member;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::chance::decided;
use super::clock::Virtual;
use super::gate::Gate;
use super::sabotage::Sabotage;
use super::witness::Standing;
use super::world::World;
use crate::engine::StartRun;
use crate::error::Error as EngineError;
use crate::partition;
use crate::peers::{NotStarted, Peers};
use crate::replicas::coordination::{Coordination, GroupMember, Servers};
use crate::run::RunId;
use crate::store::Error;

/// Partitions of a simulated store: few, so that there is more to say about each.
pub(crate) const PARTITIONS: u16 = 6;

/// How long whoever asks waits for a store that cannot be reached.
const PATIENCE: Duration = Duration::from_secs(4);

/// How long an engine waits for another.
const ANSWER: Duration = Duration::from_secs(5);

/// What all engines agree upon.
#[derive(Debug, Default)]
pub(crate) struct Agreed {
    /// Where each member can be reached, and until when it is believed to live.
    members: BTreeMap<String, (String, Timestamp)>,
    leases: BTreeMap<u16, Held>,
    groups: BTreeMap<String, BTreeMap<String, u32>>,
}

/// A lease.
#[derive(Debug, Clone, Default)]
struct Held {
    owner: String,
    address: String,
    epoch: u64,
    until: Timestamp,
}

impl Agreed {
    /// Whether a partition is whose it was under this lease.
    fn is_of(&self, partition: u16, owner: &str, epoch: u64) -> bool {
        let held = self.leases.get(&partition);
        held.is_some_and(|held| held.owner == owner && held.epoch == epoch)
    }
}

/// How one life of an engine reaches what it shares with others.
pub(crate) struct Seat {
    world: Arc<World>,
    clock: Virtual,
    /// Which life.
    pub(crate) life: usize,
    me: Member,
    pub(crate) gate: Gate,
    /// What it writes under: the epochs of its leases.
    fences: Mutex<BTreeMap<u16, u64>>,
    asked: Mutex<u64>,
    calls: Mutex<u64>,
    /// Before which calls, and for how long, it freezes.
    freezes: BTreeMap<u64, Duration>,
    frozen: watch::Sender<Option<Duration>>,
}

impl Seat {
    pub(crate) fn new(
        world: Arc<World>,
        clock: Virtual,
        life: usize,
        me: Member,
        freezes: BTreeMap<u64, Duration>,
    ) -> Self {
        let seed = world.plan.seed;
        Self {
            world,
            clock,
            life,
            me,
            gate: Gate::new(seed, life),
            fences: Mutex::default(),
            asked: Mutex::default(),
            calls: Mutex::default(),
            freezes,
            frozen: watch::Sender::default(),
        }
    }

    /// A call is about to be sent; it may be that the process freezes at this moment.
    pub(crate) async fn call(&self) {
        let number = {
            let mut calls = self.calls.lock();
            *calls += 1;
            *calls
        };
        if let Some(time) = self.freezes.get(&number).filter(|_| self.gate.runs()) {
            self.gate.freeze();
            self.frozen.send_replace(Some(*time));
        }
        self.gate.pass().await;
    }

    /// For how long the process is frozen since it was about to send a call.
    pub(crate) fn frozen(&self) -> watch::Receiver<Option<Duration>> {
        self.frozen.subscribe()
    }

    /// Gets through to the store, or hears that nobody can.
    pub(crate) async fn reach(&self) -> Result<(), Error> {
        self.gate.pass().await;
        if let Some(until) = self.world.plan.outage(self.clock.now()) {
            let left = until.duration_since(self.clock.now());
            let left = Duration::try_from(left).unwrap_or_default();
            tokio::time::sleep(left.min(PATIENCE)).await;
            self.gate.pass().await;
            if left > PATIENCE {
                return Err(Error::Unavailable("nobody can reach the store".to_owned()));
            }
        }
        Ok(())
    }

    /// As [`reach`](Self::reach), in the time that it takes.
    async fn ask(&self) -> Result<(), Error> {
        self.reach().await?;
        let number = {
            let mut asked = self.asked.lock();
            *asked += 1;
            *asked
        };
        if decided(self.world.plan.seed, &[&"ask", &self.life, &number]).is_multiple_of(8) {
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
        Ok(())
    }

    /// Whether the store takes a write of this life for the run now.
    pub(crate) fn may_write(&self, run: &RunId) -> Result<(), Error> {
        let partition = partition::of(run, PARTITIONS);
        match self.standing(run) {
            Standing::Owner => Ok(()),
            Standing::Stray if self.world.is_sabotaged(Sabotage::IgnoresFences) => Ok(()),
            Standing::Stray | Standing::Nobody => Err(Error::NotOwner { partition }),
        }
    }

    /// What this life is to the run, as the world knows.
    pub(crate) fn standing(&self, run: &RunId) -> Standing {
        let partition = partition::of(run, PARTITIONS);
        match self.fences.lock().get(&partition) {
            None => Standing::Nobody,
            Some(epoch) if self.world.agreed.lock().is_of(partition, &self.me.name, *epoch) => {
                Standing::Owner
            }
            Some(_) => Standing::Stray,
        }
    }

    /// The epoch of the lease that the run's partition is worked on under, by whomever.
    pub(crate) fn epoch(&self, run: &RunId) -> Option<u64> {
        let agreed = self.world.agreed.lock();
        let held = agreed.leases.get(&partition::of(run, PARTITIONS));
        held.map(|held| held.epoch)
    }

    fn until(&self, time_to_live: Duration) -> Timestamp {
        let later = SignedDuration::try_from(time_to_live).unwrap_or(SignedDuration::MAX);
        self.clock.now().saturating_add(later).unwrap_or(Timestamp::MAX)
    }

    fn lease_of(&self, partition: u16) -> Lease {
        let held = self.world.agreed.lock().leases.get(&partition).cloned();
        let held = held.unwrap_or_default();
        let left = held.until.duration_since(self.clock.now());
        Lease {
            partition,
            owner: held.owner,
            address: held.address,
            epoch: held.epoch,
            remaining: Duration::try_from(left).unwrap_or_default(),
        }
    }
}

#[async_trait]
impl Coordination for Seat {
    fn partitions(&self) -> u16 {
        PARTITIONS
    }

    async fn confirm(&self) {}

    async fn servers(&self) -> Result<Servers, Error> {
        Ok(Servers::default())
    }

    async fn probe(&self) {}

    async fn announce(&self, me: &Member, time_to_live: Duration) -> Result<Vec<Member>, Error> {
        self.ask().await?;
        let (now, until) = (self.clock.now(), self.until(time_to_live));
        let mut agreed = self.world.agreed.lock();
        agreed.members.retain(|_, (_, until)| *until > now);
        agreed
            .members
            .insert(me.name.clone(), (me.address.clone(), until));
        let members = agreed.members.iter().map(|(name, (address, _))| Member {
            name: name.clone(),
            address: address.clone(),
        });
        Ok(members.collect())
    }

    async fn withdraw(&self, name: &str) -> Result<(), Error> {
        self.ask().await?;
        self.world.agreed.lock().members.remove(name);
        Ok(())
    }

    async fn acquire(
        &self,
        partition: u16,
        me: &Member,
        time_to_live: Duration,
    ) -> Result<Option<Grant>, Error> {
        self.ask().await?;
        let (now, until) = (self.clock.now(), self.until(time_to_live));
        let epoch = {
            let mut agreed = self.world.agreed.lock();
            let held = agreed.leases.entry(partition).or_default();
            let is_free = held.owner.is_empty() || held.owner == me.name || held.until <= now;
            if !is_free {
                return Ok(None);
            }
            *held = Held {
                owner: me.name.clone(),
                address: me.address.clone(),
                epoch: held.epoch + 1,
                until,
            };
            held.epoch
        };
        let is_in = |run: &RunId| partition::of(run, PARTITIONS) == partition;
        let witness = &self.world.witness;
        witness.note(
            now,
            &format!("life {} takes partition {partition} ({epoch})", self.life),
        );
        witness.interrupted(is_in);
        self.gate.pass().await;
        Ok(Some(Grant {
            epoch,
            server: String::new(),
        }))
    }

    async fn renew(
        &self,
        partition: u16,
        owner: &str,
        epoch: u64,
        time_to_live: Duration,
    ) -> Result<Option<String>, Error> {
        self.ask().await?;
        let until = self.until(time_to_live);
        let mut agreed = self.world.agreed.lock();
        if !agreed.is_of(partition, owner, epoch) {
            return Ok(None);
        }
        agreed.leases.entry(partition).or_default().until = until;
        Ok(Some(String::new()))
    }

    async fn release(&self, partition: u16, owner: &str, epoch: u64) -> Result<(), Error> {
        self.ask().await?;
        let mut agreed = self.world.agreed.lock();
        if agreed.is_of(partition, owner, epoch) {
            let held = agreed.leases.entry(partition).or_default();
            *held = Held {
                epoch: held.epoch,
                ..Held::default()
            };
        }
        Ok(())
    }

    async fn lease(&self, partition: u16) -> Result<Lease, Error> {
        self.ask().await?;
        Ok(self.lease_of(partition))
    }

    async fn leases(&self) -> Result<Vec<Lease>, Error> {
        self.ask().await?;
        Ok((0..PARTITIONS)
            .map(|partition| self.lease_of(partition))
            .collect())
    }

    fn fence(&self, partition: u16, _owner: &str, epoch: u64) {
        self.fences.lock().insert(partition, epoch);
    }

    fn give_up(&self, partition: u16) {
        self.fences.lock().remove(&partition);
    }

    async fn relay(&self, _partition: u16) -> Result<(), Error> {
        self.ask().await
    }

    async fn join(&self, group: &str, most: u32, member: GroupMember<'_>) -> Result<bool, Error> {
        self.ask().await?;
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let mut agreed = self.world.agreed.lock();
        let group = agreed.groups.entry(group.to_owned()).or_default();
        let has_room = group.contains_key(member.run) || group.len() < most;
        if has_room || self.world.is_sabotaged(Sabotage::ForgetsOthers) {
            group.insert(member.run.to_owned(), member.retries);
            return Ok(true);
        }
        Ok(false)
    }

    async fn leave(&self, group: &str, member: GroupMember<'_>) -> Result<(), Error> {
        self.ask().await?;
        let mut agreed = self.world.agreed.lock();
        let group = agreed.groups.entry(group.to_owned()).or_default();
        if group.get(member.run) == Some(&member.retries) {
            group.remove(member.run);
        }
        Ok(())
    }

    async fn group(&self, group: &str) -> Result<Vec<(String, u32)>, Error> {
        self.ask().await?;
        let agreed = self.world.agreed.lock();
        let members = agreed.groups.get(group).into_iter().flatten();
        Ok(members.map(|(run, retries)| (run.clone(), *retries)).collect())
    }
}

#[async_trait]
impl Peers for Seat {
    async fn start(&self, address: &str, wish: StartRun) -> Result<(), NotStarted> {
        self.gate.pass().await;
        let later = |what: &str| NotStarted {
            is_final: false,
            what: what.to_owned(),
        };
        let Some(other) = self.world.at(address) else {
            return Err(later("nobody is there"));
        };
        let answer = tokio::time::timeout(ANSWER, async {
            other.seat.gate.pass().await;
            let answer = other.engine.start(wish).await;
            other.seat.gate.pass().await;
            answer
        });
        let answer = answer.await;
        self.gate.pass().await;
        match answer {
            Err(_) => Err(later("no answer in time")),
            Ok(Ok(_) | Err(EngineError::RunExists { .. })) => Ok(()),
            Ok(Err(error)) => Err(NotStarted {
                is_final: matches!(
                    error,
                    EngineError::InvalidWorkflow(_) | EngineError::WorkflowNotFound { .. }
                ),
                what: error.to_string(),
            }),
        }
    }

    fn channel(&self, _address: &str) -> Option<Channel> {
        None
    }
}
