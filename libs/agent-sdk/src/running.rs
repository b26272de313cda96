//! The handlers that run now: how many may, who they are, and how loaded that makes the agent.
//!
//! Admission happens at the gate, before a task exists; the handler starts later, inside the official request
//! handler, which passes nothing through but headers. So the gate gets a [`Ticket`], sends its key along as a header,
//! and the execution claims the ticket's slot with it. A ticket that is dropped unclaimed frees its slot; an
//! execution whose ticket is gone, because its caller left in between, takes a free slot or none. Counting in the
//! execution alone was rejected: the task would exist before it could be refused.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Duration;

use muster_api::error::{Error, Reason};
use muster_runtime::clock::SharedClock;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::sync::CancellationToken;

/// When a refused caller may try again; about the time in which some slot of a busy agent comes free.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// All running handlers of one agent.
#[derive(Clone)]
pub(crate) struct Running {
    inner: Arc<Inner>,
}

struct Inner {
    agent: String,
    limit: u32,
    clock: SharedClock,
    slots: Arc<Semaphore>,
    state: Mutex<State>,
    /// Counts the runs; a change of it is what waiters look at.
    runs: watch::Sender<usize>,
    /// Set when time is up for every handler, because the process ends.
    closing: CancellationToken,
}

#[derive(Default)]
struct State {
    accepts: Accepts,
    next_ticket: u64,
    tickets: HashMap<u64, Weak<Claim>>,
    runs: HashMap<String, CancellationToken>,
    answered: u32,
    latency: Duration,
}

/// What the agent takes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Accepts {
    /// Everything.
    #[default]
    All,
    /// Messages of tasks that exist; an operator drains the instance.
    FollowUps,
    /// Nothing; the process is about to end.
    Nothing,
}

/// A place that the gate has reserved for a message.
pub(crate) struct Ticket {
    key: u64,
    claim: Arc<Claim>,
    running: Running,
}

struct Claim {
    slot: Mutex<Option<OwnedSemaphorePermit>>,
    task_id: OnceLock<String>,
}

/// A handler that runs; dropping it frees its slot and counts its time.
pub(crate) struct Run {
    task_id: String,
    cancellation: CancellationToken,
    started: Duration,
    running: Running,
    _slot: OwnedSemaphorePermit,
}

impl Running {
    pub(crate) fn new(agent: &str, limit: u32, clock: SharedClock) -> Self {
        let slots = usize::try_from(limit).unwrap_or(Semaphore::MAX_PERMITS);
        Self {
            inner: Arc::new(Inner {
                agent: agent.to_owned(),
                limit,
                clock,
                slots: Arc::new(Semaphore::new(slots.min(Semaphore::MAX_PERMITS))),
                state: Mutex::new(State::default()),
                runs: watch::Sender::new(0),
                closing: CancellationToken::new(),
            }),
        }
    }

    /// Reserves a place for a message, or says why there is none.
    pub(crate) fn admit(&self, follow_up: bool) -> Result<Ticket, Error> {
        let mut state = self.inner.state.lock();
        match state.accepts {
            Accepts::All => {}
            Accepts::FollowUps if follow_up => {}
            Accepts::FollowUps => return Err(self.leaving("is drained and takes no new tasks")),
            Accepts::Nothing => return Err(self.leaving("is shutting down")),
        }
        let slot = Arc::clone(&self.inner.slots)
            .try_acquire_owned()
            .map_err(|_| self.full())?;
        let claim = Arc::new(Claim {
            slot: Mutex::new(Some(slot)),
            task_id: OnceLock::new(),
        });
        let key = state.next_ticket;
        state.next_ticket += 1;
        state.tickets.insert(key, Arc::downgrade(&claim));
        drop(state);
        Ok(Ticket {
            key,
            claim,
            running: self.clone(),
        })
    }

    /// Starts the run of a task on the place that the gate reserved.
    pub(crate) fn begin(&self, ticket: Option<u64>, task_id: &str) -> Result<Run, Error> {
        let claim = ticket.and_then(|key| self.inner.state.lock().tickets.get(&key)?.upgrade());
        let reserved = claim.as_ref().and_then(|claim| {
            // A claim is used once, so its task id is set once.
            let _ = claim.task_id.set(task_id.to_owned());
            claim.slot.lock().take()
        });
        let slot = match reserved {
            Some(slot) => slot,
            None => Arc::clone(&self.inner.slots)
                .try_acquire_owned()
                .map_err(|_| self.full())?,
        };
        let cancellation = CancellationToken::new();
        let mut state = self.inner.state.lock();
        state.runs.insert(task_id.to_owned(), cancellation.clone());
        self.inner.runs.send_replace(state.runs.len());
        drop(state);
        Ok(Run {
            task_id: task_id.to_owned(),
            cancellation,
            started: self.inner.clock.monotonic(),
            running: self.clone(),
            _slot: slot,
        })
    }

    /// Signals the handler of a task to stop.
    pub(crate) fn cancel(&self, task_id: &str) {
        if let Some(cancellation) = self.inner.state.lock().runs.get(task_id) {
            cancellation.cancel();
        }
    }

    /// Resolves when no handler runs for the task.
    pub(crate) async fn ended(&self, task_id: &str) {
        let mut runs = self.inner.runs.subscribe();
        while self.inner.state.lock().runs.contains_key(task_id) {
            if runs.changed().await.is_err() {
                return;
            }
        }
    }

    /// Resolves when no handler runs at all.
    pub(crate) async fn idle(&self) {
        let mut runs = self.inner.runs.subscribe();
        // The sender lives in `self`, so waiting ends only with the condition.
        let _ = runs.wait_for(|count| *count == 0).await;
    }

    /// Takes nothing more, gives the handlers `time` to finish, and has those that are left end as failed.
    pub(crate) async fn close(&self, time: Duration) {
        self.accept(Accepts::Nothing);
        if tokio::time::timeout(time, self.idle()).await.is_err() {
            tracing::warn!(tasks = self.count(), "tasks do not finish in time and are ended");
            self.inner.closing.cancel();
            self.idle().await;
        }
    }

    /// Resolves when the process cannot wait for handlers any more.
    pub(crate) fn closing(&self) -> &CancellationToken {
        &self.inner.closing
    }

    /// Restricts or restores what is taken on.
    pub(crate) fn accept(&self, accepts: Accepts) {
        self.inner.state.lock().accepts = accepts;
    }

    /// What is taken on now.
    pub(crate) fn accepts(&self) -> Accepts {
        self.inner.state.lock().accepts
    }

    /// Sees every change of the number of runs.
    pub(crate) fn changes(&self) -> watch::Receiver<usize> {
        self.inner.runs.subscribe()
    }

    /// From 0 (idle) to 1 (full): taken slots by all slots.
    pub(crate) fn load(&self) -> f64 {
        let free = u32::try_from(self.inner.slots.available_permits()).unwrap_or(u32::MAX);
        f64::from(self.inner.limit.saturating_sub(free)) / f64::from(self.inner.limit.max(1))
    }

    /// How many handlers run.
    pub(crate) fn count(&self) -> usize {
        self.inner.state.lock().runs.len()
    }

    /// Mean time of a handler since the start; zero until one has ended.
    pub(crate) fn mean_latency(&self) -> Duration {
        let state = self.inner.state.lock();
        state.latency.checked_div(state.answered).unwrap_or_default()
    }

    fn full(&self) -> Error {
        Error::new(
            Reason::AgentBusy,
            format!(
                "agent '{}' runs {} tasks, as many as it may (`agent.max_concurrent_tasks`)",
                self.inner.agent, self.inner.limit
            ),
        )
        .with_retry_after(RETRY_AFTER)
    }

    fn leaving(&self, why: &str) -> Error {
        Error::new(
            Reason::ShuttingDown,
            format!("this instance of agent '{}' {why}", self.inner.agent),
        )
        .with_retry_after(RETRY_AFTER)
    }
}

impl Ticket {
    /// What the execution needs to claim the place.
    pub(crate) fn key(&self) -> u64 {
        self.key
    }

    /// The task that the place was used for, once it has been.
    pub(crate) fn task_id(&self) -> Option<&str> {
        self.claim.task_id.get().map(String::as_str)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.running.inner.state.lock().tickets.remove(&self.key);
    }
}

impl Run {
    pub(crate) fn cancellation(&self) -> &CancellationToken {
        &self.cancellation
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let inner = &self.running.inner;
        let took = inner.clock.monotonic().saturating_sub(self.started);
        let mut state = inner.state.lock();
        state.runs.remove(&self.task_id);
        state.answered = state.answered.saturating_add(1);
        state.latency = state.latency.saturating_add(took);
        inner.runs.send_replace(state.runs.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use muster_runtime::clock::SystemClock;

    fn running(limit: u32) -> Running {
        Running::new("weather", limit, Arc::new(SystemClock::default()))
    }

    #[test]
    fn a_ticket_reserves_a_slot_and_the_run_takes_it_over() {
        let running = running(2);
        let ticket = running.admit(false).unwrap();
        assert!((running.load() - 0.5).abs() < f64::EPSILON);
        let run = running.begin(Some(ticket.key()), "t1").unwrap();
        assert_eq!(ticket.task_id(), Some("t1"));
        drop(ticket);
        assert!((running.load() - 0.5).abs() < f64::EPSILON);
        drop(run);
        assert!(running.load().abs() < f64::EPSILON);
    }

    #[test]
    fn beyond_the_limit_messages_are_refused_with_a_delay() {
        let running = running(1);
        let ticket = running.admit(false).unwrap();
        let refusal = running.admit(false).err().unwrap();
        assert_eq!(refusal.reason, Reason::AgentBusy);
        assert!(refusal.retry_after.is_some());
        drop(ticket);
        running.admit(false).unwrap();
    }

    #[test]
    fn a_run_whose_ticket_is_gone_stays_within_the_limit() {
        let running = running(1);
        let lost = running.admit(false).unwrap().key();
        let _run = running.begin(Some(lost), "t1").unwrap();
        assert!(running.begin(Some(lost), "t2").is_err());
    }

    #[test]
    fn draining_takes_follow_ups_only_and_shutdown_nothing() {
        let running = running(4);
        running.accept(Accepts::FollowUps);
        assert_eq!(running.admit(false).err().unwrap().reason, Reason::ShuttingDown);
        running.admit(true).unwrap();
        running.accept(Accepts::Nothing);
        assert!(running.admit(true).is_err());
    }

    #[tokio::test]
    async fn waiters_see_the_end_of_a_run() {
        let running = running(1);
        let run = running.begin(None, "t1").unwrap();
        running.cancel("t1");
        assert!(run.cancellation().is_cancelled());
        let (waiting, dropping) = (running.ended("t1"), async { drop(run) });
        tokio::join!(waiting, dropping, running.idle());
        assert_eq!(running.count(), 0);
    }
}
