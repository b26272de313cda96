//! Who follows a task or waits for its end, and what they are told.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use a2a_pb::proto as pb;
use muster_api::error::{Error, Reason};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::rules::{check_follow, unknown};
use super::{Body, Event, Table};

/// Events that a follower may be behind; more than one execution can have.
const FOLLOWER_EVENTS: usize = 2_048;
/// Most followers of one task.
const MOST_FOLLOWERS: usize = 64;

#[derive(Clone)]
pub(super) struct Sender {
    events: mpsc::Sender<Event>,
    pub(super) fate: Arc<Fate>,
}

/// A follower's end.
pub(crate) struct Follower {
    pub(crate) events: mpsc::Receiver<Event>,
    pub(crate) fate: Arc<Fate>,
    /// How many events the task had had before.
    pub(crate) seen: u64,
}

/// Why there are no more events.
#[derive(Default)]
pub(crate) struct Fate {
    /// Nobody took them.
    pub(crate) is_overrun: AtomicBool,
    /// The task is another instance's by now, and what was told may not be what has become of it.
    pub(crate) is_lost: AtomicBool,
}

/// What is to be told, and whom, once it is durable.
pub(crate) struct Publication {
    pub(super) events: Vec<Event>,
    pub(super) followers: Vec<Sender>,
    pub(super) waiters: Vec<oneshot::Sender<pb::Task>>,
    pub(crate) task: pb::Task,
    pub(crate) announced: bool,
    /// Of who worked on it.
    pub(crate) work: Option<CancellationToken>,
}

impl Table {
    /// A task as it is now and what happens to it from here on.
    pub(crate) fn follow(&mut self, id: &str) -> Result<(pb::Task, Follower), Box<Status>> {
        let state = self.state(id).ok_or_else(|| unknown(id))?;
        check_follow(id, state)?;
        let seen = self.by_id.get(id).map_or(0, |entry| entry.trail.number());
        let live = self.open(id)?;
        live.followers.retain(|follower| !follower.events.is_closed());
        if live.followers.len() >= MOST_FOLLOWERS {
            let error = Error::new(
                Reason::AgentBusy,
                format!("task '{id}' has {MOST_FOLLOWERS} followers, as many as it may"),
            );
            return Err(Box::new(error.with_retry_after(Duration::from_secs(5)).into()));
        }
        let (events, receiver) = mpsc::channel(FOLLOWER_EVENTS);
        let fate = Arc::<Fate>::default();
        live.followers.push(Sender {
            events,
            fate: Arc::clone(&fate),
        });
        live.announced = true;
        let task = live.record.task.clone().unwrap_or_default();
        let follower = Follower {
            events: receiver,
            fate,
            seen,
        };
        Ok((task, follower))
    }

    /// Resolves with the task when nobody works on it any more.
    pub(crate) fn wait(&mut self, id: &str) -> Option<oneshot::Receiver<pb::Task>> {
        let (sender, receiver) = oneshot::channel();
        match &mut self.by_id.get_mut(id)?.body {
            Body::Live(live) if live.work.is_some() => live.waiters.push(sender),
            _ => {
                // The receiver is here, so it hears.
                let _ = sender.send(self.find(id)?);
            }
        }
        Some(receiver)
    }

    /// A follower has left.
    pub(crate) fn unfollow(&mut self, id: &str) {
        if let Some(Body::Live(live)) = self.by_id.get_mut(id).map(|entry| &mut entry.body) {
            live.followers.retain(|follower| !follower.events.is_closed());
            self.rest(id);
        }
    }

    /// Ends every stream: the process ends.
    pub(crate) fn dismiss(&mut self) {
        for entry in self.by_id.values_mut() {
            if let Body::Live(live) = &mut entry.body {
                live.followers.clear();
            }
        }
    }

    /// Says that a caller knows of the task.
    pub(crate) fn announce(&mut self, id: &str) {
        if let Some(Body::Live(live)) = self.by_id.get_mut(id).map(|entry| &mut entry.body) {
            live.announced = true;
        }
    }
}

impl Sender {
    /// Whether the follower is still there.
    pub(super) fn tell(&self, event: &Event) -> bool {
        match self.events.try_send(Arc::clone(event)) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Closed(_)) => false,
            Err(mpsc::error::TrySendError::Full(_)) => {
                self.fate.is_overrun.store(true, Ordering::Relaxed);
                false
            }
        }
    }
}

impl Publication {
    /// Tells everybody.
    pub(crate) fn tell(self) {
        for follower in &self.followers {
            for event in &self.events {
                if !follower.tell(event) {
                    break;
                }
            }
        }
        for waiter in self.waiters {
            // Who does not wait any more needs not hear.
            let _ = waiter.send(self.task.clone());
        }
    }

    /// What is told.
    pub(crate) fn events(&self) -> &[Event] {
        &self.events
    }
}
