//! Looks at every agent that is kept, as often as instances send heartbeats, as long as the service runs.
//!
//! One task goes through the entries and has a bounded number of looks under way; each has a bound of its own in time. A look
//! is what an agent of the SDK does by itself: a card that is there renews the lease, a changed card or a lost
//! lease registers anew.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use muster_a2a::join::{self, Fetched};
use muster_api::registry as proto;
use muster_runtime::Shutdown;
use uuid::Uuid;

use super::Managed;
use super::entry::{Held, Kept, Key};
use crate::lease;
use crate::registry;
use crate::store;

/// Most looks that are under way.
const LOOKS_AT_ONCE: usize = 32;
/// Longest pause, so that a clock that was moved is noticed.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Shortest pause; timers count in milliseconds.
const TICK: Duration = Duration::from_millis(1);

/// A look that is to be made.
struct Look {
    key: Key,
    kept: Kept,
    held: Held,
    generation: u64,
    /// Under which this registry is the keeper, where there are others.
    epoch: Option<u64>,
}

impl Managed {
    /// Runs until the shutdown.
    ///
    /// # Errors
    /// None.
    pub async fn run(self: Arc<Self>, shutdown: Shutdown) -> Result<(), Infallible> {
        match &self.sharing {
            None => self.keep_looking(&shutdown).await,
            Some(sharing) => {
                tokio::join!(self.keep_looking(&shutdown), self.take_part(sharing, &shutdown));
            }
        }
        Ok(())
    }

    async fn keep_looking(&self, shutdown: &Shutdown) {
        let mut looks = FuturesUnordered::new();
        loop {
            let (due, pause) = self.due(LOOKS_AT_ONCE.saturating_sub(looks.len()));
            for look in due {
                looks.push(self.look(look));
            }
            tokio::select! {
                () = shutdown.requested() => return,
                Some(()) = looks.next(), if !looks.is_empty() => {}
                () = self.wake.notified() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// At most so many looks that are due, begun; and how long until the next is. Counts what is kept on the way.
    fn due(&self, most: usize) -> (Vec<Look>, Duration) {
        let now = self.parts.clock.monotonic();
        let mut due = Vec::new();
        let mut pause = LONGEST_PAUSE;
        let (mut present, mut absent) = (0, 0);
        let epoch = match &self.sharing {
            None => None,
            Some(sharing) => match sharing.epoch(now) {
                Some(epoch) => Some(epoch),
                // The keeper looks, and counts. When this one becomes it, it is woken.
                None => {
                    self.parts.observer.managed(0, 0);
                    return (due, pause);
                }
            },
        };
        for (key, entry) in self.entries.lock().iter_mut() {
            if entry.problem.is_none() && entry.held.lease.is_some() {
                present += 1;
            } else {
                absent += 1;
            }
            match entry.due() {
                Some(at) if at <= now && due.len() < most => due.push(Look {
                    key: key.clone(),
                    kept: entry.kept.clone(),
                    held: entry.held.clone(),
                    generation: entry.begin(),
                    epoch,
                }),
                // With no place for more, the end of a look is what is waited for.
                Some(at) if at > now => pause = pause.min(at.saturating_sub(now)),
                Some(_) | None => {}
            }
        }
        self.parts.observer.managed(present, absent);
        (due, pause.max(TICK))
    }

    /// Looks at one agent and takes over what comes of it.
    async fn look(&self, look: Look) {
        let Look {
            key,
            kept,
            held,
            generation,
            epoch,
        } = look;
        let before = held.lease;
        let outcome = self.renewed(&kept, held).await;
        let clock = &self.parts.clock;
        let (wall, now) = (clock.now(), clock.monotonic());
        let stray = {
            let mut entries = self.entries.lock();
            let current = entries.get_mut(&key).filter(|entry| entry.is_current(generation));
            match (current, outcome) {
                (Some(entry), Ok(held)) => {
                    if entry.seen(held, wall, now, self.interval) {
                        tracing::info!(agent = key.agent_id, card = key.card, "present");
                    }
                    None
                }
                (Some(entry), Err(problem)) => {
                    if entry.missed(problem.clone(), now, self.interval, rand::random()) {
                        let (agent, card) = (&key.agent_id, &key.card);
                        tracing::warn!(
                            agent,
                            card,
                            problem,
                            "absent; its lease runs out unless it comes back"
                        );
                    }
                    None
                }
                // Nobody keeps it any more, or somebody does so anew: a lease that this look has brought is nobody's.
                (None, Ok(held)) => held.lease.filter(|lease| Some(*lease) != before),
                (None, Err(_)) => None,
            }
        };
        self.end(stray).await;
        if let (Some(epoch), Some(sharing)) = (epoch, &self.sharing)
            && !self.tell(sharing, epoch, &key).await
        {
            let forgotten = {
                let mut entries = self.entries.lock();
                let is_current = entries
                    .get(&key)
                    .is_some_and(|entry| entry.is_current(generation));
                is_current.then(|| entries.remove(&key)).flatten()
            };
            self.end(forgotten.and_then(|entry| entry.held.lease)).await;
        }
    }

    /// What is to be held of an agent from now on.
    async fn renewed(&self, kept: &Kept, held: Held) -> Result<Held, String> {
        let url = join::address(&kept.card)?;
        let tag = held.tag.as_ref().filter(|_| held.instance.is_some());
        let (instance, tag) = match join::fetch(&self.parts.outbound, &url, tag).await? {
            Fetched::Unchanged => (held.instance.clone(), held.tag.clone()),
            Fetched::Card(found) => {
                let described = join::instance(&kept.wish(), &url, found.card)?;
                (Some(Arc::new(described)), found.tag)
            }
        };
        let Some(instance) = instance else {
            return Err("the agent answered 304 to who has no card".to_owned());
        };
        let is_same = held.instance.as_ref() == Some(&instance);
        if let Some(lease) = held.lease.filter(|_| is_same)
            && let Some(drains) = self.renew(lease, held.is_draining).await?
        {
            return Ok(Held {
                instance: Some(instance),
                tag,
                lease: Some(lease),
                is_draining: held.is_draining || drains,
            });
        }
        self.reach(&instance).await?;
        let lease = self
            .register(&instance, held.is_draining)
            .await
            .map_err(|error| error.to_string())?;
        if held.instance_id() != instance.instance_id {
            self.end(held.lease).await;
        }
        Ok(Held {
            instance: Some(instance),
            tag,
            lease: Some(lease),
            is_draining: held.is_draining,
        })
    }

    /// Renews a lease; says whether an operator drains the instance, or `None` when the lease is gone.
    async fn renew(&self, lease: Uuid, is_draining: bool) -> Result<Option<bool>, String> {
        let status = if is_draining {
            proto::InstanceStatus::Draining
        } else {
            proto::InstanceStatus::Active
        };
        let request = proto::HeartbeatRequest {
            lease_id: lease.to_string(),
            status: status.into(),
            ..proto::HeartbeatRequest::default()
        };
        match self.parts.registry.heartbeat(&request).await {
            Ok((_, renewal)) => Ok(Some(renewal.drain_requested)),
            Err(registry::Error::Store(store::Error::Lease(lease::Error::LeaseNotFound { .. }))) => Ok(None),
            Err(error) => Err(error.to_string()),
        }
    }
}
