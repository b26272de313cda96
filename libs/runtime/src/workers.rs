//! Threads that each serve their share of a port's connections by a single-threaded runtime.
//!
//! A call that is only passed on is a handful of short tasks: the connection it came by, the call itself, the connection it goes
//! out by. On a runtime whose threads share their work, these wake each other across threads, and what one has queued the other writes
//! before there is more of it: that made up more than a third of the processor time of a hop. A connection that stays on one
//! thread, with the connections to agents that its calls use ([`current`]), wakes nobody else, and its task has its turn after all
//! of its calls have had theirs.
//!
//! A connection goes to the thread that has the fewest, and stays. One connection can use one processor, as with nginx and Envoy.
//! A handler that computes for long keeps its whole thread waiting: this is for services that do not. Background tasks and what has
//! no workers run on the process's own runtime; locks and channels work between all of them.

use std::cell::Cell;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::runtime::{Builder, Handle};

use crate::Shutdown;

thread_local! {
    static NUMBER: Cell<Option<usize>> = const { Cell::new(None) };
}

/// Which of a service's workers this thread is, from zero on; nothing on other threads.
#[must_use]
pub fn current() -> Option<usize> {
    NUMBER.get()
}

/// As many workers as there are processors that this process may use.
#[must_use]
pub fn one_for_each_processor() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// The workers of one port. They end when this is dropped, and with them what they are at.
pub(crate) struct Workers {
    all: Vec<Worker>,
    stop: Shutdown,
}

struct Worker {
    runtime: Handle,
    connections: Arc<AtomicUsize>,
}

/// A connection's place at a worker, until it is dropped.
pub(crate) struct Seat {
    pub(crate) runtime: Handle,
    connections: Arc<AtomicUsize>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Workers {
    /// Starts so many.
    pub(crate) fn start(name: &str, count: usize) -> io::Result<Self> {
        let stop = Shutdown::new();
        let workers = (0..count).map(|number| {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            let (handle, stop) = (runtime.handle().clone(), stop.clone());
            std::thread::Builder::new()
                .name(format!("{name} {number}"))
                .spawn(move || {
                    NUMBER.set(Some(number));
                    runtime.block_on(stop.requested());
                    // Not waiting for what blocks: nobody asks for it any more.
                    runtime.shutdown_background();
                })?;
            Ok(Worker {
                runtime: handle,
                connections: Arc::default(),
            })
        });
        let all = workers.collect::<io::Result<_>>();
        if all.is_err() {
            stop.trigger();
        }
        Ok(Self { all: all?, stop })
    }

    /// A place at the one that has the fewest connections; nothing where there is none.
    pub(crate) fn seat(&self) -> Option<Seat> {
        let least = |worker: &&Worker| worker.connections.load(Ordering::Relaxed);
        let worker = self.all.iter().min_by_key(least)?;
        worker.connections.fetch_add(1, Ordering::Relaxed);
        Some(Seat {
            runtime: worker.runtime.clone(),
            connections: Arc::clone(&worker.connections),
        })
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.stop.trigger();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn connections_are_spread_and_a_worker_knows_its_number() {
        let workers = Workers::start("test", 3).unwrap();
        let seats: Vec<_> = (0..6).map(|_| workers.seat().unwrap()).collect();
        let mut numbers = Vec::new();
        for seat in &seats {
            numbers.push(seat.runtime.spawn(async { current() }).await.unwrap());
        }
        assert_eq!(numbers, [0, 1, 2, 0, 1, 2].map(Some));
        assert_eq!(current(), None);
        drop(seats);
        let again = workers.seat().unwrap();
        assert_eq!(again.runtime.spawn(async { current() }).await.unwrap(), Some(0));
        assert!(Workers::start("none", 0).unwrap().seat().is_none());
    }
}
