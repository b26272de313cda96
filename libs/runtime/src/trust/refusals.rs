//! Who was refused, and why, since the start: for an operator who looks now. The audit log has every single one.
//!
//! Counts by reason are exact. Of callers only so many are told apart; who comes later counts among the others, so that a flood of names
//! takes no memory, and the table is at most an hour behind who has left: what was not refused for an hour makes room.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;

use crate::clock::SharedClock;

/// Callers that are told apart, by reason.
const MOST_CALLERS: usize = 1_000;

/// After how long without a refusal a caller makes room for another.
const FORGOTTEN: Duration = Duration::from_secs(3_600);

/// Callers that are told.
const TOLD: usize = 20;

/// Longest name that is kept, in characters.
const LONGEST: usize = 128;

/// Counts refusals. Clones share the counts.
#[derive(Clone)]
pub struct Refusals {
    clock: SharedClock,
    table: Arc<Mutex<Table>>,
}

impl std::fmt::Debug for Refusals {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Refusals").finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
struct Table {
    reasons: BTreeMap<&'static str, u64>,
    callers: HashMap<(&'static str, String), Count>,
}

#[derive(Debug)]
struct Count {
    times: u64,
    last: Timestamp,
    at: Duration,
}

/// Refusals of one caller for one reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// Why, as the audit log names it.
    pub reason: &'static str,
    /// Who: its name, or its address where it has proven none.
    pub who: String,
    /// How often.
    pub times: u64,
    /// When the last time was.
    pub last: Timestamp,
}

impl Refusals {
    /// None yet.
    #[must_use]
    pub fn new(clock: SharedClock) -> Self {
        Self {
            clock,
            table: Arc::default(),
        }
    }

    /// Somebody was refused.
    pub fn note(&self, reason: &'static str, who: &str) {
        let (last, at) = (self.clock.now(), self.clock.monotonic());
        let who: String = who.chars().take(LONGEST).collect();
        let mut table = self.table.lock();
        *table.reasons.entry(reason).or_default() += 1;
        let key = (reason, who);
        if let Some(count) = table.callers.get_mut(&key) {
            count.times = count.times.saturating_add(1);
            (count.last, count.at) = (last, at);
            return;
        }
        if table.callers.len() >= MOST_CALLERS {
            table
                .callers
                .retain(|_, count| at.saturating_sub(count.at) < FORGOTTEN);
        }
        if table.callers.len() < MOST_CALLERS {
            table.callers.insert(key, Count { times: 1, last, at });
        }
    }

    /// How many there were, by reason.
    #[must_use]
    pub fn reasons(&self) -> Vec<(&'static str, u64)> {
        let table = self.table.lock();
        table
            .reasons
            .iter()
            .map(|(reason, times)| (*reason, *times))
            .collect()
    }

    /// Those who were refused the most.
    #[must_use]
    pub fn callers(&self) -> Vec<Refused> {
        let table = self.table.lock();
        let mut all: Vec<Refused> = table
            .callers
            .iter()
            .map(|((reason, who), count)| Refused {
                reason,
                who: who.clone(),
                times: count.times,
                last: count.last,
            })
            .collect();
        drop(table);
        all.sort_by(|one, other| {
            let by_name = || (one.reason, &one.who).cmp(&(other.reason, &other.who));
            other.times.cmp(&one.times).then_with(by_name)
        });
        all.truncate(TOLD);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    #[test]
    fn the_most_refused_come_first_and_a_flood_of_names_takes_no_memory() {
        let clock = Arc::new(ManualClock::default());
        let refusals = Refusals::new(Arc::clone(&clock) as SharedClock);
        for _ in 0..3 {
            refusals.note("access_refused", "eve");
        }
        refusals.note("login_refused", "192.0.2.1");
        for number in 0..MOST_CALLERS * 2 {
            refusals.note("login_refused", &format!("{number}{}", "é".repeat(500)));
        }
        let flood = MOST_CALLERS as u64 * 2;
        assert_eq!(
            refusals.reasons(),
            [("access_refused", 3), ("login_refused", flood + 1)]
        );
        let callers = refusals.callers();
        assert_eq!(callers.len(), TOLD);
        assert_eq!(
            (callers[0].reason, callers[0].who.as_str(), callers[0].times),
            ("access_refused", "eve", 3)
        );
        assert_eq!(refusals.table.lock().callers.len(), MOST_CALLERS);
        // After an hour others find room.
        clock.advance(FORGOTTEN);
        for _ in 0..4 {
            refusals.note("access_refused", "mallory");
        }
        assert_eq!(refusals.callers()[0].who, "mallory");
        assert_eq!(refusals.callers().len(), 1);
    }
}
