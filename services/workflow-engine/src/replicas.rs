//! Engines that share a store: each works on some of its partitions, and any answers any call.
//!
//! ```text
//! members (who is alive) ── assignment (pure) ── which partitions should be here
//!                                                   │ give up what is too much, take what is free
//! leases (who may write) ───────────────────────────┘ adopt: put its runs on the floor, its schedules, its starts
//! ```
//!
//! What is relied upon:
//!
//! - **Leases decide, membership only wishes.** A partition is worked on by whoever holds its lease, and every write carries the
//!   lease's fence. A list of members that is out of date makes a partition wait, and never have two owners.
//! - **Taken over from the journal.** Who takes a partition reads its runs from the store, as after a restart of its own. Calls
//!   that were in flight are sent again under the same message ids.
//! - **Given up in order.** Runs of a partition that goes are stopped between two steps, and only then its lease is given back;
//!   who stops in order gives all back, and others need not wait for them to run out.
//! - **Another primary may be behind.** What the one before acknowledged last need not have reached it: a run may have ended here,
//!   and be under way there. Each renewal says which server has the lease: what another one has than the one that granted it is
//!   read anew. That is decided for each partition, because each server of a Cluster has some of them. Where the schedules are at
//!   another server they are read anew, and where the groups are, everything is, so that runs under way join theirs again. The
//!   same holds for a server that has started again, which may lack its last second.
//! - **A lease that has run out is still its owner's until somebody takes it.** While Redis cannot be reached nobody can take
//!   anything, so engines keep what they have. After that time, those of others are left alone for a while: their owners have
//!   just been as unable to renew them.
//!
//! The owner's name is kept in the data directory, whose lock says that no other living process has it. So an engine that was
//! killed and starts again on the same directory takes its own leases at once.
//!
//! Rejected: a leader that assigns partitions (it can fail, and a pure function needs none); consistent hashing without a bound
//! (of 64 partitions one of three engines may get half); giving up work when leases run out by the local clock (an outage of
//! Redis would stop and reload every run, and the fence protects without it).

mod assignment;
pub(crate) mod coordination;
pub(crate) mod groups;
pub(crate) mod name;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::future::join_all;
use muster_store::redis::lease::Grant;
use muster_store::redis::members::Member;
use parking_lot::RwLock;
use tokio::sync::{Notify, OwnedRwLockReadGuard};

use self::coordination::{Coordination, Servers};
use crate::engine::Engine;
use crate::error::Error;
use crate::peers::Peers;
use crate::run::RunId;
use crate::store;
use crate::{children, driver, partition, timetable};

/// Between two looks at who is alive.
const PAUSE: Duration = Duration::from_millis(250);

/// How often Sentinels are asked whether the primary is still the same.
const CONFIRM: Duration = Duration::from_millis(500);

/// Renewals in the time that a lease lasts: two may fail.
const RENEWALS: u32 = 3;

/// For how long what others had is left alone after Redis could not be reached: they announce themselves again meanwhile.
const QUIET: Duration = Duration::from_millis(1_500);

/// How long runs may take to stop where their partition is given up; the fence stops them then.
const LAST_MOMENTS: Duration = Duration::from_millis(1_500);

/// Beyond the end of a lease, for whoever waits for it.
const MARGIN: Duration = Duration::from_secs(2);

/// Who works on something.
#[derive(Debug, Clone)]
pub(crate) enum Owner {
    /// This engine.
    Here,
    /// Another one, which can be reached at this address.
    Peer(String),
    /// Nobody, at this moment.
    Nobody {
        /// Of which partition.
        partition: u16,
    },
}

/// As long as this is kept, the partition that it was given for is not given up.
pub(crate) type Stay = OwnedRwLockReadGuard<()>;

/// See the module.
pub(crate) struct Replicas {
    coordination: Arc<dyn Coordination>,
    pub(crate) peers: Arc<dyn Peers>,
    me: Member,
    time_to_live: Duration,
    /// The partitions that are worked on here, with their leases.
    held: RwLock<BTreeMap<u16, Grant>>,
    /// Their epochs, from before the first of their runs goes on until after the last one has stopped.
    epochs: RwLock<BTreeMap<u16, u64>>,
    /// Read by those who begin something, written by whoever gives something up.
    gate: Arc<tokio::sync::RwLock<()>>,
    /// Others who are alive.
    others: RwLock<Vec<Member>>,
    /// Whether what belongs to names is to be read again.
    is_stale: AtomicBool,
    settled: Notify,
}

/// What is known from one look to the next.
#[derive(Default)]
struct Looks {
    renewed: Option<Duration>,
    /// When the Sentinels were asked for the primary.
    confirmed: Option<Duration>,
    /// Which servers had what is of no partition.
    servers: Option<Servers>,
    /// Partitions that were given up here to be read anew: nobody else's, so that there is nobody to wait for.
    anew: BTreeSet<u16>,
    /// Until when others' partitions are left alone.
    quiet_until: Duration,
    is_failing: bool,
    /// Leases that are to be given back, with their epochs: what others wait for.
    owed: BTreeMap<u16, u64>,
    is_settled: bool,
}

impl Replicas {
    /// Of the engine with this name, which no two living processes share, reached by others at its address.
    pub(crate) fn new(
        coordination: Arc<dyn Coordination>,
        peers: Arc<dyn Peers>,
        me: Member,
        time_to_live: Duration,
    ) -> Self {
        Self {
            coordination,
            peers,
            me,
            time_to_live,
            held: RwLock::default(),
            epochs: RwLock::default(),
            gate: Arc::default(),
            others: RwLock::default(),
            is_stale: AtomicBool::new(false),
            settled: Notify::new(),
        }
    }

    pub(crate) fn partition_of(&self, run: &RunId) -> u16 {
        partition::of(run, self.partitions())
    }

    pub(crate) fn partition_of_name(&self, namespace: &str, name: &str) -> u16 {
        partition::of_name(namespace, name, self.partitions())
    }

    fn partitions(&self) -> u16 {
        self.coordination.partitions()
    }

    /// Whether this partition is worked on here.
    pub(crate) fn holds(&self, partition: u16) -> bool {
        self.held.read().contains_key(&partition)
    }

    /// Epoch of the lease under which a partition is worked on here.
    pub(crate) fn epoch(&self, partition: u16) -> Option<u64> {
        self.epochs.read().get(&partition).copied()
    }

    /// Whether any partition is worked on here.
    pub(crate) fn holds_any(&self) -> bool {
        !self.held.read().is_empty()
    }

    /// Whether others work on the store.
    pub(crate) fn has_others(&self) -> bool {
        !self.others.read().is_empty()
    }

    /// Keeps a partition here, if it is.
    pub(crate) async fn stay(&self, partition: u16) -> Option<Stay> {
        let stay = Arc::clone(&self.gate).read_owned().await;
        self.holds(partition).then_some(stay)
    }

    /// Who works on a partition.
    ///
    /// # Errors
    /// Redis does not say.
    pub(crate) async fn owner(&self, partition: u16) -> Result<Owner, Error> {
        if self.holds(partition) {
            return Ok(Owner::Here);
        }
        let lease = self.coordination.lease(partition).await?;
        if lease.owner.is_empty() || lease.owner == self.me.name || lease.remaining.is_zero() {
            return Ok(Owner::Nobody { partition });
        }
        Ok(Owner::Peer(lease.address))
    }

    /// Where all others who are alive can be reached.
    pub(crate) fn others(&self) -> Vec<String> {
        let others = self.others.read();
        others.iter().map(|other| other.address.clone()).collect()
    }

    /// Works on what should be here until the service stops, and gives it back then.
    pub(crate) async fn keep(self: Arc<Self>, engine: Arc<Engine>) {
        let mut looks = Looks::default();
        while !engine.shutdown.is_requested() {
            match self.look(&engine, &mut looks).await {
                Ok(()) => looks.is_failing = false,
                Err(error) => {
                    if !looks.is_failing {
                        tracing::warn!(%error, "leases cannot be renewed; what is held here is worked on as far as the store allows");
                    }
                    looks.is_failing = true;
                }
            }
            tokio::select! {
                biased;
                () = engine.shutdown.requested() => {}
                () = tokio::time::sleep(PAUSE) => {}
            }
        }
        self.leave(&engine).await;
    }

    /// Resolves when each partition is worked on by somebody, or after as long as it takes for the leases of the dead to run out.
    pub(crate) async fn settled(&self) {
        let patience = self.time_to_live + MARGIN;
        if tokio::time::timeout(patience, self.settled.notified())
            .await
            .is_err()
        {
            tracing::warn!(
                "some partitions have no owner yet; calls for their runs are refused until they have"
            );
        }
    }

    async fn look(&self, engine: &Arc<Engine>, looks: &mut Looks) -> Result<(), store::Error> {
        let now = engine.clock.monotonic();
        if looks
            .confirmed
            .is_none_or(|confirmed| now.saturating_sub(confirmed) >= CONFIRM)
        {
            looks.confirmed = Some(now);
            self.coordination.confirm().await;
        }
        if looks.is_failing {
            // Until a little after it can be reached again.
            looks.quiet_until = now + QUIET;
        }
        if looks
            .renewed
            .is_none_or(|renewed| now.saturating_sub(renewed) >= self.time_to_live / RENEWALS)
        {
            self.coordination.probe().await;
            self.renew(engine, looks).await?;
            looks.renewed = Some(now);
        }
        engine.meter.partitions(self.held.read().len());
        let members = self.coordination.announce(&self.me, self.time_to_live).await?;
        let wanted = self.wanted(&members);
        let others = members.into_iter().filter(|member| *member != self.me);
        *self.others.write() = others.collect();
        let held = self.held.read().clone();
        let excess: BTreeMap<u16, u64> = held
            .iter()
            .filter(|(partition, _)| !wanted.contains(partition))
            .map(|(partition, grant)| (*partition, grant.epoch))
            .collect();
        if !excess.is_empty() {
            self.give_up(engine, excess.keys().copied().collect()).await;
            looks.owed.extend(&excess);
            tracing::info!(count = excess.len(), "gave partitions up to other engines");
        }
        self.release(&mut looks.owed).await?;
        let is_quiet = now < looks.quiet_until;
        let missing = wanted.iter().filter(|partition| !held.contains_key(partition));
        let missing = missing.filter(|partition| !is_quiet || looks.anew.contains(partition));
        self.take(engine, missing.copied().collect(), looks).await?;
        looks.anew.retain(|partition| !self.holds(*partition));
        if self.is_stale.swap(false, Ordering::AcqRel)
            && let Err(error) = read_names(engine).await
        {
            self.is_stale.store(true, Ordering::Release);
            tracing::warn!(%error, "schedules and starts cannot be read; they are tried again");
        }
        if !looks.is_settled && self.all_have_owners(&wanted).await? {
            looks.is_settled = true;
            self.settled.notify_one();
        }
        Ok(())
    }

    /// The partitions that should be here, with these members.
    fn wanted(&self, members: &[Member]) -> BTreeSet<u16> {
        let names: Vec<&str> = members.iter().map(|member| member.name.as_str()).collect();
        let should = (0..).zip(assignment::assign(&names, self.partitions()));
        let here = should.filter(|(_, member)| names.get(*member).is_some_and(|name| *name == self.me.name));
        here.map(|(partition, _)| partition).collect()
    }

    async fn all_have_owners(&self, wanted: &BTreeSet<u16>) -> Result<bool, store::Error> {
        let is_complete = wanted.iter().all(|partition| self.holds(*partition));
        if !is_complete || !self.has_others() {
            return Ok(is_complete);
        }
        let leases = self.coordination.leases().await?;
        Ok(leases
            .iter()
            .all(|lease| !lease.owner.is_empty() && !lease.remaining.is_zero()))
    }

    async fn renew(&self, engine: &Arc<Engine>, looks: &mut Looks) -> Result<(), store::Error> {
        let held = self.held.read().clone();
        let renewals = held.iter().map(|(partition, grant)| async move {
            let renewed = self
                .coordination
                .renew(*partition, &self.me.name, grant.epoch, self.time_to_live);
            (*partition, grant, renewed.await)
        });
        let (renewals, servers) = tokio::join!(join_all(renewals), self.coordination.servers());
        let (mut lost, mut moved, mut failure) = (BTreeSet::new(), BTreeSet::new(), None);
        let (mut well, mut failed) = (0, 0);
        for (partition, grant, renewed) in renewals {
            match renewed {
                Ok(Some(server)) => {
                    well += 1;
                    if server != grant.server {
                        moved.insert(partition);
                    }
                }
                Ok(None) => {
                    lost.insert(partition);
                }
                Err(error) => {
                    failed += 1;
                    failure = Some(error);
                }
            }
        }
        engine
            .meter
            .renewals([("renewed", well), ("lost", lost.len()), ("failed", failed)]);
        if !lost.is_empty() {
            tracing::warn!(count = lost.len(), "partitions were taken over by other engines");
            self.give_up(engine, lost).await;
        }
        match servers {
            Ok(servers) => {
                let last = looks
                    .servers
                    .replace(servers.clone())
                    .unwrap_or_else(|| servers.clone());
                if last.schedules != servers.schedules {
                    self.is_stale.store(true, Ordering::Release);
                }
                // Runs that are under way join their groups anew where they go on.
                if last.groups != servers.groups {
                    moved.extend(self.held.read().keys());
                }
            }
            Err(error) => failure = Some(error),
        }
        if !moved.is_empty() {
            tracing::warn!(
                count = moved.len(),
                "partitions are read anew: another server, or one that has started again, may be behind what was acknowledged"
            );
            self.give_up(engine, moved.clone()).await;
            looks.anew.extend(moved);
        }
        failure.map_or(Ok(()), Err)
    }

    /// Takes those that are free.
    async fn take(
        &self,
        engine: &Arc<Engine>,
        partitions: Vec<u16>,
        looks: &mut Looks,
    ) -> Result<(), store::Error> {
        if partitions.is_empty() {
            return Ok(());
        }
        // Somebody who was stopped is just going.
        let at_work = engine.floor.at_work();
        let left: BTreeSet<u16> = at_work.iter().map(|run| self.partition_of(run)).collect();
        let partitions = partitions
            .into_iter()
            .filter(|partition| !left.contains(partition));
        let takes = partitions.map(|partition| async move {
            let taken = self.coordination.acquire(partition, &self.me, self.time_to_live);
            (partition, taken.await)
        });
        let taken = join_all(takes).await;
        // Once for all of them.
        let budgets = match taken.iter().any(|(_, taken)| matches!(taken, Ok(Some(_)))) {
            true => engine.budgets.recover(&*engine.store, engine.clock.now()).await,
            false => Ok(()),
        };
        let (mut count, mut failure) = (0_usize, None);
        for (partition, taken) in taken {
            match taken {
                Ok(Some(grant)) => {
                    let epoch = grant.epoch;
                    match self.adopt(engine, partition, grant, budgets.clone()).await {
                        Ok(()) => count += 1,
                        Err(error) => {
                            tracing::warn!(partition, %error, "a partition cannot be read; it is tried again");
                            self.give_up(engine, BTreeSet::from([partition])).await;
                            looks.owed.insert(partition, epoch);
                        }
                    }
                }
                Ok(None) => {}
                Err(error) => failure = Some(error),
            }
        }
        if count > 0 {
            tracing::info!(count, "works on these partitions from now on");
            engine.meter.takeovers(count);
            self.is_stale.store(true, Ordering::Release);
        }
        failure.map_or(Ok(()), Err)
    }

    /// Begins to work on a partition whose lease is here: its runs go on from the store.
    /// `budgets`: whether those are known that its runs are held to.
    async fn adopt(
        &self,
        engine: &Arc<Engine>,
        partition: u16,
        grant: Grant,
        budgets: Result<(), store::Error>,
    ) -> Result<(), store::Error> {
        self.coordination.fence(partition, &self.me.name, grant.epoch);
        self.epochs.write().insert(partition, grant.epoch);
        budgets?;
        self.coordination.relay(partition).await?;
        engine.events.ring();
        driver::recover_runs(engine, Some(partition)).await?;
        self.held.write().insert(partition, grant);
        let reunited = Arc::clone(engine);
        engine.spawn("reconcile children", async move {
            children::reconcile(&reunited, Some(partition)).await;
        });
        Ok(())
    }

    /// Stops to work on these partitions. Nothing of them is written from then on.
    async fn give_up(&self, engine: &Arc<Engine>, partitions: BTreeSet<u16>) {
        self.held
            .write()
            .retain(|partition, _| !partitions.contains(partition));
        // Whoever is just beginning something there does so first.
        drop(self.gate.write().await);
        let is_of = |run: &RunId| partitions.contains(&self.partition_of(run));
        let withdrawn = engine.floor.withdraw(is_of);
        let gone = join_all(withdrawn.at_work.iter().map(|run| engine.floor.until_gone(run)));
        if tokio::time::timeout(LAST_MOMENTS, gone).await.is_err() {
            tracing::warn!(
                "some runs of partitions that are given up do not stop in time; they cannot write any more"
            );
        }
        engine.events.subscriptions(|subscriptions| {
            for run in withdrawn.idle.iter().chain(&withdrawn.at_work) {
                subscriptions.end(run);
            }
        });
        for partition in &partitions {
            self.coordination.give_up(*partition);
            self.epochs.write().remove(partition);
        }
        engine
            .starters
            .keep_those(|namespace, name| engine.placement.is_name_here(namespace, name));
        engine
            .timetable
            .keep_those(|name| engine.placement.is_name_here(&name.namespace, &name.name));
    }

    /// Gives leases back; those for which that fails stay.
    async fn release(&self, leases: &mut BTreeMap<u16, u64>) -> Result<(), store::Error> {
        let releases = leases.iter().map(|(partition, epoch)| async move {
            let released = self.coordination.release(*partition, &self.me.name, *epoch);
            (*partition, released.await)
        });
        let mut failure = None;
        for (partition, released) in join_all(releases).await {
            match released {
                Ok(()) => {
                    leases.remove(&partition);
                }
                Err(error) => failure = Some(error),
            }
        }
        failure.map_or(Ok(()), Err)
    }

    /// Gives everything back, so that others need not wait.
    async fn leave(&self, engine: &Arc<Engine>) {
        let held = self.held.read().clone();
        let mut owed: BTreeMap<u16, u64> = held
            .into_iter()
            .map(|(partition, grant)| (partition, grant.epoch))
            .collect();
        self.give_up(engine, owed.keys().copied().collect()).await;
        let farewell = async {
            self.coordination.withdraw(&self.me.name).await?;
            self.release(&mut owed).await
        };
        match tokio::time::timeout(self.time_to_live, farewell).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(%error, "leases could not be given back; they end by themselves")
            }
            Err(_) => tracing::warn!("leases could not be given back in time; they end by themselves"),
        }
    }

    /// Notices what others have written to the log of events, as long as it is polled.
    pub(crate) async fn keep_noticing(self: Arc<Self>, engine: Arc<Engine>) {
        /// How often the log is looked at, where others write to it.
        const LOOK: Duration = Duration::from_millis(100);
        let mut known = 0;
        loop {
            tokio::time::sleep(LOOK).await;
            if !self.has_others() {
                continue;
            }
            // What fails here fails for whoever reads the log, too, and is told there.
            if let Ok(next) = engine.store.next_position().await
                && next != known
            {
                known = next;
                engine.events.ring();
            }
        }
    }

    /// Follows what the runs of others use up of the budgets of namespaces, as long as it is polled.
    pub(crate) async fn keep_counting(self: Arc<Self>, engine: Arc<Engine>) {
        /// How often what was used is read.
        const LOOK: Duration = Duration::from_secs(2);
        loop {
            tokio::time::sleep(LOOK).await;
            if !self.has_others() {
                continue;
            }
            if let Err(error) = engine.budgets.recover(&*engine.store, engine.clock.now()).await {
                tracing::debug!(%error, "what namespaces have used cannot be read");
            }
        }
    }
}

/// What belongs to the names of workflows that are here: schedules, and starts on events.
async fn read_names(engine: &Arc<Engine>) -> Result<(), Error> {
    timetable::load(engine).await?;
    engine.find_starters().await
}
