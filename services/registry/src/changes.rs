//! The changes that watchers may still be told: the last so many, for those who read slowly or were away. Pure.
//!
//! Invariants: the revisions in the log follow each other without a gap, and there are never more than the limit. So
//! whoever knows everything up to a revision can be told whether the log has what came after it, or whether only a
//! snapshot helps.
//!
//! The bound is a count. A change holds no card of its own (instances share them), so that 65,536 of them are about 10 MB.

use std::collections::VecDeque;

use crate::lease::Event;

/// See the module.
#[derive(Debug)]
pub struct Changes {
    limit: usize,
    /// The revision of the newest change, in the log or before it.
    latest: u64,
    log: VecDeque<Event>,
}

/// What came after that revision is not kept any more, or never was: start over with a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lost;

impl Changes {
    /// A log that begins after a revision and keeps at most `limit` changes.
    #[must_use]
    pub fn new(latest: u64, limit: usize) -> Self {
        Self {
            limit,
            latest,
            log: VecDeque::new(),
        }
    }

    /// The revision of the newest change.
    #[must_use]
    pub const fn latest(&self) -> u64 {
        self.latest
    }

    /// Adds a change. One that leaves a gap empties the log: what is before it would be told as if nothing was missing.
    pub fn push(&mut self, event: Event) {
        if event.revision != self.latest + 1 {
            self.log.clear();
        }
        self.latest = event.revision;
        self.log.push_back(event);
        while self.log.len() > self.limit {
            self.log.pop_front();
        }
    }

    /// At most `most` changes after a revision, in order; none when it is the latest.
    ///
    /// # Errors
    /// When some of them are not kept, or the revision is none that was reached.
    pub fn after(&self, revision: u64, most: usize) -> Result<Vec<Event>, Lost> {
        let missed = self.latest.checked_sub(revision).ok_or(Lost)?;
        let missed = usize::try_from(missed).map_err(|_| Lost)?;
        let start = self.log.len().checked_sub(missed).ok_or(Lost)?;
        Ok(self.log.range(start..).take(most).cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use crate::instance::Key;
    use crate::lease::{Change, Departure};

    fn event(revision: u64) -> Event {
        let key = Key {
            namespace: "n".into(),
            agent_id: "a".into(),
            instance_id: Uuid::from_u128(1),
        };
        Event {
            revision,
            change: Change::Removed(key, Departure::Expired),
        }
    }

    fn revisions(told: Result<Vec<Event>, Lost>) -> Result<Vec<u64>, Lost> {
        told.map(|events| events.iter().map(|event| event.revision).collect())
    }

    #[test]
    fn a_gap_empties_the_log() {
        let mut changes = Changes::new(7, 10);
        changes.push(event(8));
        changes.push(event(10));
        assert_eq!(revisions(changes.after(8, 10)), Err(Lost));
        assert_eq!(revisions(changes.after(9, 10)), Ok(vec![10]));
    }

    proptest! {
        #[test]
        fn exactly_what_was_missed_is_told_or_that_it_is_lost(
            begin in 0_u64..5, pushed in 0_u64..30, limit in 1_usize..10, asked in 0_u64..40, most in 1_usize..5,
        ) {
            let mut changes = Changes::new(begin, limit);
            for revision in begin + 1..=begin + pushed {
                changes.push(event(revision));
            }
            let latest = begin + pushed;
            prop_assert_eq!(changes.latest(), latest);
            let kept_from = latest - pushed.min(limit as u64);
            let expected = if (kept_from..=latest).contains(&asked) {
                Ok((asked + 1..=latest).take(most).collect())
            } else {
                Err(Lost)
            };
            prop_assert_eq!(revisions(changes.after(asked, most)), expected);
        }
    }
}
