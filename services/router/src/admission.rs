//! Who may go on to an agent now, who waits, and who is refused.
//!
//! A fixed number of calls may be with agents at once. The rest wait in a bounded queue, the more urgent first and
//! first come first served among equals, each no longer than its own deadline. When the queue is full, the newest
//! of the least urgent calls is refused: it is the one that would have waited longest.
//!
//! A place passes directly from the call that ends to the call that is next, so that a newcomer cannot slip in
//! between. Rejected: tokio's semaphore (no priorities, and its queue is unbounded).

mod queue;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;

use crate::priority::Priority;
use queue::{Position, Queue};

/// Why a call was not let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// The queue is full with this many calls.
    Full(usize),
    /// It waited for as long as it could.
    TimedOut,
}

/// The door to the agents. Clones are the same door.
#[derive(Debug, Clone)]
pub struct Admission {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    places: usize,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    in_flight: usize,
    waiting: Queue<oneshot::Sender<Word>>,
}

/// What a waiting call hears.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Word {
    /// A place is yours.
    Go,
    /// A more urgent call took your place in the queue.
    Displaced(usize),
}

/// A place among the calls in flight; dropping it passes it on.
#[derive(Debug)]
pub struct Permit {
    shared: Arc<Shared>,
}

impl Admission {
    /// A door that lets `places` calls through at once and lets `waiting` wait.
    #[must_use]
    pub fn new(places: usize, waiting: usize) -> Self {
        Self {
            shared: Arc::new(Shared {
                places: places.max(1),
                state: Mutex::new(State {
                    in_flight: 0,
                    waiting: Queue::new(waiting),
                }),
            }),
        }
    }

    /// Waits for a place, at most for `patience`.
    ///
    /// # Errors
    /// When the queue is full, or no place came free in time.
    pub fn enter(
        &self,
        priority: Priority,
        patience: Duration,
    ) -> impl Future<Output = Result<Permit, Refused>> + Send + use<> {
        let shared = Arc::clone(&self.shared);
        async move {
            let mut wait = match shared.join(priority)? {
                Joined::Permit(permit) => return Ok(permit),
                Joined::Queue(wait) => wait,
            };
            match tokio::time::timeout(patience, &mut wait.word).await {
                Ok(Ok(Word::Go)) => Ok(wait.take()),
                Ok(Ok(Word::Displaced(waiting))) => Err(Refused::Full(waiting)),
                // The sender lives in the queue for as long as this call waits, so only time ends the wait.
                Ok(Err(_)) | Err(_) => Err(Refused::TimedOut),
            }
        }
    }

    /// How many calls wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.shared.state.lock().waiting.len()
    }

    /// How many calls are in flight.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.shared.state.lock().in_flight
    }
}

enum Joined {
    Permit(Permit),
    Queue(Wait),
}

impl Shared {
    fn join(self: &Arc<Self>, priority: Priority) -> Result<Joined, Refused> {
        let mut state = self.state.lock();
        if state.in_flight < self.places {
            state.in_flight += 1;
            return Ok(Joined::Permit(Permit {
                shared: Arc::clone(self),
            }));
        }
        let waiting = state.waiting.len();
        let (sender, word) = oneshot::channel();
        let (position, displaced) = state
            .waiting
            .push(priority, sender)
            .map_err(|_| Refused::Full(waiting))?;
        if let Some(displaced) = displaced {
            // Who has just left needs no word.
            let _gone = displaced.send(Word::Displaced(waiting));
        }
        Ok(Joined::Queue(Wait {
            shared: Arc::clone(self),
            position,
            word,
            taken: false,
        }))
    }

    /// Passes a place on to the next who still waits, or frees it.
    fn pass_on(&self) {
        let mut state = self.state.lock();
        while let Some(next) = state.waiting.pop() {
            if next.send(Word::Go).is_ok() {
                return;
            }
        }
        state.in_flight -= 1;
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.shared.pass_on();
    }
}

/// A call's own place in the queue; leaves the queue when dropped.
struct Wait {
    shared: Arc<Shared>,
    position: Position,
    word: oneshot::Receiver<Word>,
    taken: bool,
}

impl Wait {
    fn take(mut self) -> Permit {
        self.taken = true;
        Permit {
            shared: Arc::clone(&self.shared),
        }
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        if self.taken {
            return;
        }
        let still_waiting = self.shared.state.lock().waiting.remove(self.position);
        // A place may have been given in the moment in which the caller gave up.
        if still_waiting.is_none() && self.word.try_recv() == Ok(Word::Go) {
            self.shared.pass_on();
        }
    }
}

#[cfg(test)]
mod tests;
