//! Agents that several registries keep together: all know them, and one at a time, the keeper, looks at them.
//!
//! - **Who keeps** says a lease, which is renewed several times within its life. A registry acts as the keeper only until the lease
//!   ends by its own clock, counted from before it asked; where it was frozen for longer it finds that out before it looks at
//!   anybody. What it has found is written under the lease's epoch, and refused where another one has followed.
//! - **Who follows** knows of each agent what the keeper has found, whom an operator has taken out above all, and looks at all of them
//!   at once. Their leases outlive a change of keepers: that one's lease is shorter than what is left of theirs.
//! - **What is asked of any registry** is written down for all. The keeper hears of it within a second.
//! - **A store that has begun anew**, because Redis lost it, is filled again by whoever notices.
//!
//! A look that was under way when the keeper lost its lease may have registered its agent once more, in the place of the next keeper's
//! lease. That one notices with its next heartbeat, long before the lease runs out, and registers again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use muster_runtime::Shutdown;
use parking_lot::Mutex;

use super::Managed;
use super::entry::{Entry, Found, Kept, Key};
use super::store::{Error, Known, News, Shared, Told};

/// Tries to renew the lease within its life.
const RENEWALS: u32 = 3;

/// Longest time until what another registry has been asked for is known here.
const LONGEST_TICK: Duration = Duration::from_secs(1);

/// See the module.
pub(super) struct Sharing {
    store: Arc<dyn Shared>,
    standing: Mutex<Standing>,
}

/// What a registry knows of its part.
#[derive(Debug, Default)]
struct Standing {
    /// The epoch of the keeper's lease, if it is this one's, and until when.
    tenure: Option<(u64, Duration)>,
    /// How much of the store is known.
    known: Option<Known>,
}

impl Sharing {
    pub(super) fn new(store: Arc<dyn Shared>) -> Self {
        Self {
            store,
            standing: Mutex::default(),
        }
    }

    /// The store.
    pub(super) fn store(&self) -> &dyn Shared {
        &*self.store
    }

    /// The epoch under which this registry is the keeper now.
    pub(super) fn epoch(&self, now: Duration) -> Option<u64> {
        let tenure = self.standing.lock().tenure;
        tenure.filter(|(_, until)| *until > now).map(|(epoch, _)| epoch)
    }

    fn lose(&self) {
        self.standing.lock().tenure = None;
    }
}

impl Managed {
    /// Takes part until the shutdown, then leaves.
    pub(super) async fn take_part(&self, sharing: &Sharing, shutdown: &Shutdown) {
        let tick = (sharing.store.time_to_live() / RENEWALS).min(LONGEST_TICK);
        let parts = async {
            loop {
                self.lead(sharing).await;
                self.learn(sharing).await;
                tokio::time::sleep(tick).await;
            }
        };
        tokio::select! {
            () = parts => {}
            () = shutdown.requested() => {}
        }
        let tenure = sharing.standing.lock().tenure.take();
        if let Some((epoch, _)) = tenure
            && let Err(error) = sharing.store.leave(epoch).await
        {
            tracing::warn!(%error, "the keeper's lease is not given back; others wait for its end");
        }
    }

    /// Becomes the keeper, or stays it.
    async fn lead(&self, sharing: &Sharing) {
        let asked = self.parts.clock.monotonic();
        let before = sharing.standing.lock().tenure.map(|(epoch, _)| epoch);
        let epoch = match sharing.store.lead(before).await {
            Ok(epoch) => epoch,
            // It may still be the keeper, until its time is over.
            Err(error) => {
                tracing::debug!(%error, "who keeps agents cannot be found out");
                return;
            }
        };
        let tenure = epoch.map(|epoch| (epoch, asked + sharing.store.time_to_live()));
        sharing.standing.lock().tenure = tenure;
        match (before, epoch) {
            (before, Some(epoch)) if before != Some(epoch) => {
                tracing::info!(epoch, "this registry keeps agents by their cards now");
                self.take_over(sharing).await;
            }
            (Some(_), None) => {
                tracing::warn!("another registry keeps agents by their cards now");
            }
            _ => {}
        }
    }

    /// Looks at all agents from where the last keeper has stopped.
    async fn take_over(&self, sharing: &Sharing) {
        let _changing = self.changing.lock().await;
        match sharing.store.news(None).await {
            Ok(Some(news)) => self.apply(sharing, news, true).await,
            Ok(None) => {}
            Err(error) => {
                // Without what the last keeper has found, this one would take in whom an operator has taken out.
                tracing::warn!(%error, "what is kept cannot be read; trying again");
                sharing.lose();
            }
        }
    }

    /// Hears of what other registries were asked for. Where this one is being asked for something, that comes first.
    async fn learn(&self, sharing: &Sharing) {
        let Ok(_changing) = self.changing.try_lock() else {
            return;
        };
        if let Err(error) = self.catch_up(sharing).await {
            tracing::debug!(%error, "what other registries keep cannot be read");
        }
    }

    /// The same, for somebody who holds the right to change.
    pub(super) async fn catch_up(&self, sharing: &Sharing) -> Result<(), Error> {
        let known = sharing.standing.lock().known.clone();
        if let Some(news) = sharing.store.news(known.as_ref()).await? {
            self.apply(sharing, news, false).await;
        }
        Ok(())
    }

    /// Takes over what the store holds; as one that follows another keeper, or to know it.
    async fn apply(&self, sharing: &Sharing, news: News, follows: bool) {
        let News { known, entries: told } = news;
        let before = sharing.standing.lock().known.clone();
        if before.is_some_and(|before| before.store != known.store) {
            self.refill(sharing, &told).await;
        } else {
            let there: BTreeSet<Key> = told.iter().map(|(kept, _)| kept.key()).collect();
            self.entries.lock().retain(|key, _| there.contains(key));
        }
        let now = self.parts.clock.monotonic();
        let is_keeper = sharing.epoch(now).is_some();
        {
            let mut entries = self.entries.lock();
            for (kept, found) in told {
                let key = kept.key();
                let is_new = entries.get(&key).is_none_or(|entry| entry.kept != kept);
                if is_new || follows {
                    let is_there = found
                        .as_ref()
                        .is_some_and(|found| found.problem.is_none() && found.lease.is_some());
                    let due = if is_there && !follows {
                        now.saturating_add(self.interval)
                    } else {
                        now
                    };
                    let mut entry = Entry::found(kept, found, due);
                    if let Some(before) = entries.get(&key) {
                        entry.follow(before);
                    }
                    entries.insert(key, entry);
                } else if !is_keeper && let (Some(entry), Some(found)) = (entries.get_mut(&key), found) {
                    entry.learn(found);
                }
            }
        }
        sharing.standing.lock().known = Some(known);
        self.wake.notify_one();
    }

    /// Writes down again what a store that was lost does not hold.
    async fn refill(&self, sharing: &Sharing, told: &[(Kept, Option<Found>)]) {
        let there: BTreeSet<Key> = told.iter().map(|(kept, _)| kept.key()).collect();
        let missing: Vec<_> = self
            .entries
            .lock()
            .iter()
            .filter(|(key, _)| !there.contains(*key))
            .map(|(_, entry)| (entry.kept.clone(), entry.telling()))
            .collect();
        if !missing.is_empty() {
            tracing::warn!(
                agents = missing.len(),
                "Redis has lost which agents are kept by their cards; writing them down again"
            );
        }
        for (kept, found) in missing {
            if let Err(error) = sharing.store.put_found(&kept, &found).await {
                tracing::warn!(%error, agent = kept.agent_id, card = kept.card, "it is not written down again");
            }
        }
    }

    /// Tells the others what this one, the keeper of this epoch, has found; whether the agent is still kept.
    pub(super) async fn tell(&self, sharing: &Sharing, epoch: u64, key: &Key) -> bool {
        let found = self.entries.lock().get(key).map(Entry::telling);
        let Some(found) = found else { return true };
        match sharing.store.tell(epoch, key, &found).await {
            Ok(Told::Done) => true,
            Ok(Told::Gone) => false,
            Ok(Told::Lost) => {
                sharing.lose();
                true
            }
            Err(error) => {
                tracing::debug!(%error, "what was found is not told");
                true
            }
        }
    }

    /// What the keeper has found of these agents, where that is another registry.
    pub(super) async fn found_elsewhere(&self, keys: &[Key]) -> Result<BTreeMap<Key, Found>, Error> {
        let Some(sharing) = &self.sharing else {
            return Ok(BTreeMap::new());
        };
        if sharing.epoch(self.parts.clock.monotonic()).is_some() {
            return Ok(BTreeMap::new());
        }
        let found = sharing.store.found(keys).await?;
        let found = keys.iter().cloned().zip(found);
        Ok(found.filter_map(|(key, found)| Some((key, found?))).collect())
    }
}
