//! Who may watch beside our own services: so many streams for each caller, and half of all together.
//!
//! Routers live by watching, and the number of streams is bounded. Whoever may look could take all of them, and a router that has lost
//! its stream would route by an old view.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

/// A caller may have this part of all streams, at least one.
const EACH: usize = 16;

/// The streams of callers who are none of our services. Clones share them.
#[derive(Debug, Clone)]
pub struct Guests {
    each: usize,
    all: usize,
    held: Arc<Mutex<HashMap<Arc<str>, usize>>>,
}

/// A stream of such a caller, until it is dropped.
#[derive(Debug)]
pub struct Seat {
    caller: Arc<str>,
    guests: Guests,
}

impl Guests {
    /// Beside our own services, where there are so many streams at all.
    #[must_use]
    pub fn of(watchers: usize) -> Self {
        Self {
            each: (watchers / EACH).max(1),
            all: (watchers / 2).max(1),
            held: Arc::default(),
        }
    }

    /// One more for a caller; the limit where that is too many.
    ///
    /// # Errors
    /// The caller has as many as it may, or all have.
    pub fn seat(&self, caller: Arc<str>) -> Result<Seat, usize> {
        let mut held = self.held.lock();
        if held.values().sum::<usize>() >= self.all {
            return Err(self.all);
        }
        let own = held.entry(Arc::clone(&caller)).or_default();
        if *own >= self.each {
            return Err(self.each);
        }
        *own += 1;
        Ok(Seat {
            caller,
            guests: self.clone(),
        })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut held = self.guests.held.lock();
        if let Some(own) = held.get_mut(&self.caller) {
            *own -= 1;
            if *own == 0 {
                held.remove(&self.caller);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_so_many_and_all_together_half() {
        let guests = Guests::of(64);
        let seat = |caller: &str| guests.seat(Arc::from(caller));
        let mut held: Vec<Seat> = (0..4).map(|_| seat("eve").unwrap()).collect();
        assert_eq!(seat("eve").unwrap_err(), 4);
        for caller in 0..7 {
            held.extend((0..4).map(|_| seat(&format!("mallory-{caller}")).unwrap()));
        }
        assert_eq!(seat("ada").unwrap_err(), 32);
        held.remove(0);
        let _again = seat("eve").unwrap();
        drop(held);
        assert_eq!(guests.held.lock().len(), 1, "nobody is remembered");
        assert!(Guests::of(1).seat(Arc::from("ada")).is_ok());
    }
}
