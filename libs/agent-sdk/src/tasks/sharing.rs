//! An instance among others that share the store: it says that it lives, does what others ask of it, and takes over what dead ones
//! have left.
//!
//! - **Who lives** says its lease in Redis, by Redis's clock. Signs of life come three times within a lease. Whoever has not given one for
//!   that long is followed by whoever sees it first: work goes to [`Tasks`]'s left tasks as after a restart, and push
//!   notifications that were owed are sent from here. With nobody alive, the next instance that starts does it.
//! - **After an outage of Redis** others are left alone for the time of a lease: they could not give signs either, and need a
//!   moment to do so.
//! - **What Redis and this instance do not agree on** is looked for with each sign: what is this instance's in Redis alone, because
//!   an answer got lost, is taken in; what is its own in memory alone is written, which fails where it is another's.

use std::collections::HashSet;
use std::time::Duration;

use a2a_pb::proto::TaskState;
use muster_api::error::{Error, Reason};
use tonic::Code;

use super::redis::{Beat, Claim, Wish};
use super::tenure;
use super::{Shared, Tasks};
use crate::events;
use crate::metrics::Meters;

/// Between two looks at what others ask, while there is anything here that they could ask about.
const LOOK: Duration = Duration::from_millis(100);

/// Between two tries to give a sign of life while they fail.
const AGAIN: Duration = Duration::from_millis(250);

/// See the module.
pub(crate) struct Sharing {
    tasks: Tasks,
    /// When the next sign of life is due.
    due: Duration,
    /// Until when others are left alone.
    quiet_until: Duration,
    is_failing: bool,
}

impl Sharing {
    pub(super) fn new(tasks: Tasks) -> Self {
        Self {
            tasks,
            due: Duration::ZERO,
            quiet_until: Duration::ZERO,
            is_failing: false,
        }
    }

    /// Works until the tasks are closed.
    pub(crate) async fn run(mut self, meters: Meters) {
        let Some(shared) = self.tasks.shared.clone() else {
            return;
        };
        let closing = self.tasks.closing.clone();
        loop {
            tokio::select! {
                () = self.step(&shared, &meters) => {}
                () = closing.cancelled() => return,
            }
            tokio::select! {
                () = tokio::time::sleep(LOOK) => {}
                () = closing.cancelled() => return,
            }
        }
    }

    async fn step(&mut self, shared: &Shared, meters: &Meters) {
        let now = self.tasks.clock.monotonic();
        if now >= self.due {
            self.beat(shared, now, meters).await;
        }
        if !self.is_failing && self.tasks.table.lock().holds_any() {
            self.listen(shared, meters).await;
        }
        self.tasks.forget_lost();
        self.tasks.push_owed();
    }

    async fn beat(&mut self, shared: &Shared, now: Duration, meters: &Meters) {
        let lease = shared.redis.lease();
        let known = self.tasks.table.lock().known();
        match shared.redis.beat().await {
            Err(error) => {
                if !self.is_failing {
                    tracing::warn!(%error, "this instance cannot say that it lives");
                }
                self.is_failing = true;
                let now = self.tasks.clock.monotonic();
                self.due = now + AGAIN;
                self.quiet_until = now + lease;
            }
            Ok(Beat::Lost) => {
                let lost = self.tasks.table.lock().lose_all();
                tracing::warn!(
                    tasks = lost,
                    "other instances have taken over what this one held; its work is dropped"
                );
                self.due = now;
            }
            Ok(Beat::Alive { held, ended }) => {
                if self.is_failing {
                    tracing::info!(
                        address = shared.redis.address(),
                        "this instance says that it lives again"
                    );
                }
                self.is_failing = false;
                self.due = now + tenure::pause(lease);
                shared.redis.probe().await;
                self.agree(shared, &known, held).await;
                if now >= self.quiet_until {
                    for instance in ended {
                        self.follow_up(shared, &instance, meters).await;
                    }
                }
            }
        }
    }

    /// Brings together what this instance holds and what the store says of it.
    async fn agree(&self, shared: &Shared, known: &[String], held: Vec<String>) {
        let held: HashSet<String> = held.into_iter().collect();
        for id in known.iter().filter(|id| !held.contains(*id)) {
            self.tasks.table.lock().doubt(id);
            self.tasks.journal.write_later(id);
        }
        let _claiming = shared.redis.claiming.lock().await;
        for id in held {
            if self.tasks.table.lock().is_here(&id) {
                continue;
            }
            match shared.redis.claim(&id).await {
                Ok(Claim::Mine(stored)) => self.tasks.arrive(shared, &stored),
                Ok(Claim::Unknown | Claim::Held | Claim::Lost) => {}
                Err(error) => {
                    tracing::warn!(task_id = id, %error, "a task cannot be taken in");
                    return;
                }
            }
        }
    }

    /// Takes over what an instance has left.
    async fn follow_up(&self, shared: &Shared, instance: &str, meters: &Meters) {
        loop {
            let _claiming = shared.redis.claiming.lock().await;
            match shared.redis.take(instance).await {
                Ok((taken, has_more)) => {
                    if !taken.is_empty() {
                        tracing::info!(
                            instance,
                            tasks = taken.len(),
                            "tasks of an instance that has gone are taken over"
                        );
                        meters.taken_over(taken.len());
                    }
                    for stored in &taken {
                        self.tasks.arrive(shared, stored);
                    }
                    if !has_more {
                        return;
                    }
                }
                Err(error) => {
                    tracing::warn!(instance, %error, "tasks cannot be taken over");
                    return;
                }
            }
        }
    }

    /// Does what others ask.
    async fn listen(&self, shared: &Shared, meters: &Meters) {
        let Ok(wishes) = shared.redis.wishes().await else {
            // The next sign of life says what is wrong.
            return;
        };
        for wish in wishes {
            if let Err(error) = self.fulfil(&wish, meters).await {
                tracing::warn!(task_id = wish.task(), %error, "what another instance asked for is tried again");
                continue;
            }
            // Otherwise it is done again, which changes nothing.
            let _ = shared.redis.heard(&wish).await;
        }
    }

    /// Does it, or finds that it cannot be; whoever asks sees that in the task.
    async fn fulfil(&self, wish: &Wish, meters: &Meters) -> Result<(), Error> {
        if !self.tasks.table.lock().holds(wish.task()) {
            return Ok(());
        }
        let clock = &self.tasks.clock;
        let done = match wish {
            Wish::Cancel(id) => {
                let cancelled = self
                    .tasks
                    .cancel_here(id, |task| events::cancelled(clock, task))
                    .await;
                cancelled.map(|(_, is_new)| {
                    if is_new {
                        meters.task_ended(TaskState::Canceled);
                    }
                })
            }
            Wish::PutPush(id, config) => self.tasks.put_push_here(id, (**config).clone()).await,
            Wish::RemovePush(id, config) => self.tasks.remove_push_here(id, config).await,
        };
        match done {
            Err(status) if status.code() == Code::Unavailable => {
                Err(Error::new(Reason::StoreUnavailable, status.message()))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }
}
