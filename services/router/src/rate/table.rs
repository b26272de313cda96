//! What is kept of all who are limited, in a bounded table: pure.
//!
//! An entry is forgotten only when it says nothing any more: all that was taken is due, no grant is left, and nobody asks for one.
//! Whoever comes back then finds exactly what a newcomer finds. So nobody gets around a limit by pushing others, or itself, out of
//! the table. Where the table is full of entries that still count, newcomers share one entry until there is room: they get less
//! than they should, and never more. Rejected: a cache that drops the least used, which lets an attacker with many names wash its
//! own entries out.
//!
//! Where routers share limits, an entry holds what was last *granted* by Redis: so many, for a short time, or a refusal and its
//! end. Both are acted on without asking again.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::gcra::{self, Rate, Taken};

/// How often a full table is looked through at most.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// The entry that newcomers share while there is no room. No key is empty.
const NEWCOMERS: &str = "";

/// The table.
#[derive(Debug)]
pub struct Table {
    capacity: usize,
    entries: HashMap<Arc<str>, Entry>,
    looked_at: Option<Duration>,
}

#[derive(Debug, Default)]
struct Entry {
    /// See [`gcra::take`]; of what is decided here.
    due: Duration,
    granted: Granted,
    /// Who asks Redis, one at a time.
    asking: Arc<tokio::sync::Mutex<()>>,
}

/// What Redis said last.
#[derive(Debug, Clone, Copy, Default)]
struct Granted {
    left: u32,
    until: Duration,
    refused_until: Duration,
}

/// What a call that costs one finds.
#[derive(Debug)]
pub enum Found {
    /// It may go on: the one is taken.
    Granted,
    /// There is nothing for so long.
    Refused(Duration),
    /// It is not known here. Whoever has the lock asks; the others look again afterwards.
    Unknown(Arc<tokio::sync::Mutex<()>>),
    /// Nothing can be kept of it: whoever comes asks for itself.
    NoRoom,
}

impl Entry {
    /// Whether it is told apart from none.
    fn counts(&self, now: Duration) -> bool {
        self.due > now
            || (self.granted.left > 0 && self.granted.until > now)
            || self.granted.refused_until > now
            || Arc::strong_count(&self.asking) > 1
    }
}

impl Table {
    /// An empty table of so many entries, and at least one.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self {
            capacity: capacity.max(1),
            entries: HashMap::new(),
            looked_at: None,
        }
    }

    /// How many entries there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.entries.len()
    }

    /// Takes one by what is known here alone.
    pub fn take(&mut self, key: &str, rate: Rate, now: Duration) -> Taken {
        // Who is known is found by one look, which is what there is for nearly every request.
        if let Some(entry) = self.entries.get_mut(key) {
            return gcra::take(&mut entry.due, rate, 1, now);
        }
        gcra::take(&mut self.entry(key, now).due, rate, 1, now)
    }

    /// Gives one back that was [taken](Self::take), and for which nothing was done.
    pub fn untake(&mut self, key: &str, rate: Rate) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.due = entry.due.saturating_sub(rate.interval());
        }
    }

    /// Gives one back that was [spent](Self::spend), and for which nothing was done.
    pub fn unspend(&mut self, key: &str) {
        if let Some(entry) = self.entries.get_mut(key) {
            entry.granted.left = entry.granted.left.saturating_add(1);
        }
    }

    /// For how long there is nothing, as far as is known here; takes nothing.
    #[must_use]
    pub fn refused(&self, key: &str, rate: Rate, now: Duration) -> Option<Duration> {
        let entry = self.entries.get(key)?;
        let mut due = entry.due;
        let taken = gcra::take(&mut due, rate, 1, now);
        let by_grant = entry.granted.refused_until.saturating_sub(now);
        Some(taken.retry_after.max(by_grant)).filter(|after| !after.is_zero())
    }

    /// Spends one of what Redis has granted.
    pub fn spend(&mut self, key: &str, now: Duration) -> Found {
        if !self.entries.contains_key(key) && !self.has_room(now) {
            return Found::NoRoom;
        }
        let entry = self.entry(key, now);
        let granted = &mut entry.granted;
        if granted.left > 0 && granted.until > now {
            granted.left -= 1;
            return Found::Granted;
        }
        match granted.refused_until.saturating_sub(now) {
            Duration::ZERO => Found::Unknown(Arc::clone(&entry.asking)),
            refused => Found::Refused(refused),
        }
    }

    /// Redis has granted so many, to be spent within `lasting`.
    pub fn granted(&mut self, key: &str, taken: Taken, lasting: Duration, now: Duration) {
        // What is granted to one is nobody else's.
        let Some(entry) = self.entries.get_mut(key) else {
            return;
        };
        let granted = &mut entry.granted;
        if granted.until <= now {
            granted.left = 0;
        }
        if taken.given > 0 {
            granted.left = granted.left.saturating_add(taken.given);
            granted.until = now.saturating_add(lasting);
        } else {
            granted.refused_until = now.saturating_add(taken.retry_after);
        }
    }

    fn entry(&mut self, key: &str, now: Duration) -> &mut Entry {
        let key = if self.entries.contains_key(key) || self.has_room(now) {
            key
        } else {
            NEWCOMERS
        };
        // The name is copied for newcomers only.
        if !self.entries.contains_key(key) {
            self.entries.insert(key.into(), Entry::default());
        }
        self.entries.get_mut(key).expect("it is there or was just made")
    }

    fn has_room(&mut self, now: Duration) -> bool {
        if self.entries.len() < self.capacity {
            return true;
        }
        if self
            .looked_at
            .is_some_and(|at| now.saturating_sub(at) < LOOK_AGAIN)
        {
            return false;
        }
        self.looked_at = Some(now);
        self.entries.retain(|_, entry| entry.counts(now));
        self.entries.len() < self.capacity
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_was_granted_is_spent_within_its_time_and_a_refusal_holds_until_its_end() {
        let mut table = Table::new(10);
        let second = Duration::from_secs;
        assert!(matches!(table.spend("a", second(1)), Found::Unknown(_)));
        let all = Taken {
            given: 2,
            retry_after: Duration::ZERO,
        };
        table.granted("a", all, second(1), second(1));
        assert!(table.refused("a", Rate::new(60, 1), second(1)).is_none());
        for _ in 0..2 {
            assert!(matches!(table.spend("a", second(1)), Found::Granted));
        }
        assert!(matches!(table.spend("a", second(1)), Found::Unknown(_)));
        table.granted("a", all, second(1), second(1));
        assert!(
            matches!(table.spend("a", second(2)), Found::Unknown(_)),
            "too late"
        );
        let none = Taken {
            given: 0,
            retry_after: second(3),
        };
        table.granted("a", none, second(1), second(2));
        assert!(matches!(table.spend("a", second(4)), Found::Refused(left) if left == second(1)));
        assert!(matches!(table.spend("a", second(5)), Found::Unknown(_)));
        table.granted("b", all, second(1), second(5));
        assert!(
            matches!(table.spend("b", second(5)), Found::Unknown(_)),
            "nobody asked for it"
        );
    }

    #[test]
    fn who_asks_is_kept_in_a_full_table_and_others_ask_for_themselves() {
        let (mut table, now) = (Table::new(1), Duration::from_secs(1));
        let Found::Unknown(asking) = table.spend("a", now) else {
            panic!("unknown");
        };
        assert!(matches!(table.spend("b", now), Found::NoRoom));
        drop(asking);
        assert!(matches!(table.spend("b", now + LOOK_AGAIN), Found::Unknown(_)));
        assert_eq!(table.count(), 1);
    }

    proptest! {
        /// However small the table, nobody gets more than with a table of its own.
        #[test]
        fn nobody_escapes_a_full_table(
            capacity in 1usize..6,
            steps in proptest::collection::vec((0u64..4_000_000, 0u8..8), 1..300),
        ) {
            let rate = Rate::new(60, 3);
            let (mut table, mut now) = (Table::new(capacity), Duration::from_secs(1));
            let mut given: HashMap<u8, Vec<Duration>> = HashMap::new();
            for (micros, caller) in steps {
                now += Duration::from_micros(micros);
                if table.take(&format!("c{caller}"), rate, now).given == 1 {
                    given.entry(caller).or_default().push(now);
                }
                prop_assert!(table.count() <= capacity + 1);
            }
            for times in given.values() {
                for (first, from) in times.iter().enumerate() {
                    for (count, at) in times[first..].iter().enumerate() {
                        let most = 3 + (*at - *from).as_micros() / 1_000_000;
                        prop_assert!((count as u128) < most, "{} in {:?}", count + 1, *at - *from);
                    }
                }
            }
        }
    }
}
