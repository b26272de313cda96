//! The handlers that run now: how many may, and how loaded that makes the agent.
//!
//! A place is taken before a task exists, so that an overloaded agent says no at once, and is kept until the task is settled.

use std::sync::Arc;
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
    runs: usize,
    answered: u32,
    latency: Duration,
    succeeded: u64,
    failed: u64,
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

/// A handler that runs; dropping it frees its place and counts its time.
pub(crate) struct Run {
    started: Duration,
    running: Running,
    _place: OwnedSemaphorePermit,
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

    /// Takes a place for a message, or says why there is none.
    pub(crate) fn admit(&self, follow_up: bool) -> Result<Run, Error> {
        {
            let state = self.inner.state.lock();
            match state.accepts {
                Accepts::All => {}
                Accepts::FollowUps if follow_up => {}
                Accepts::FollowUps => return Err(self.leaving("is drained and takes no new tasks")),
                Accepts::Nothing => return Err(self.leaving("is shutting down")),
            }
        }
        let place = Arc::clone(&self.inner.slots)
            .try_acquire_owned()
            .map_err(|_| self.full())?;
        Ok(self.begin(place))
    }

    /// Waits for a place, for work that an earlier process has left; `None` when the process ends before.
    pub(crate) async fn wait(&self) -> Option<Run> {
        let slots = Arc::clone(&self.inner.slots);
        tokio::select! {
            place = slots.acquire_owned() => place.ok().map(|place| self.begin(place)),
            () = self.inner.closing.cancelled() => None,
        }
    }

    fn begin(&self, place: OwnedSemaphorePermit) -> Run {
        let mut state = self.inner.state.lock();
        state.runs += 1;
        self.inner.runs.send_replace(state.runs);
        Run {
            started: self.inner.clock.monotonic(),
            running: self.clone(),
            _place: place,
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
        self.inner.state.lock().runs
    }

    /// Mean time of a handler since the start; zero until one has ended.
    pub(crate) fn mean_latency(&self) -> Duration {
        let state = self.inner.state.lock();
        state.latency.checked_div(state.answered).unwrap_or_default()
    }

    /// A task has been completed, or has failed.
    pub(crate) fn settled(&self, failed: bool) {
        let mut state = self.inner.state.lock();
        let total = if failed {
            &mut state.failed
        } else {
            &mut state.succeeded
        };
        *total = total.saturating_add(1);
    }

    /// How many tasks have been completed since the start, and how many have failed.
    pub(crate) fn outcomes(&self) -> (u64, u64) {
        let state = self.inner.state.lock();
        (state.succeeded, state.failed)
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

impl Drop for Run {
    fn drop(&mut self) {
        let inner = &self.running.inner;
        let took = inner.clock.monotonic().saturating_sub(self.started);
        let mut state = inner.state.lock();
        state.runs -= 1;
        state.answered = state.answered.saturating_add(1);
        state.latency = state.latency.saturating_add(took);
        inner.runs.send_replace(state.runs);
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
    fn beyond_the_limit_messages_are_refused_with_a_delay() {
        let running = running(2);
        let first = running.admit(false).unwrap();
        assert!((running.load() - 0.5).abs() < f64::EPSILON);
        let second = running.admit(false).unwrap();
        let refusal = running.admit(false).err().unwrap();
        assert_eq!(refusal.reason, Reason::AgentBusy);
        assert!(refusal.retry_after.is_some());
        drop(first);
        drop(running.admit(false).unwrap());
        drop(second);
        assert!(running.load().abs() < f64::EPSILON);
        assert_eq!(running.count(), 0);
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
    async fn who_waits_for_a_place_or_for_the_end_hears_of_it() {
        let running = running(1);
        let run = running.admit(false).unwrap();
        let (waited, ()) = tokio::join!(running.wait(), async { drop(run) });
        let (_, ()) = tokio::join!(running.idle(), async { drop(waited) });
        assert_eq!(running.count(), 0);
    }
}
