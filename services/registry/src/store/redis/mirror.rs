//! What a replica knows: the lease table as the feed tells it, and how far that is. Pure.
//!
//! The feed's changes have revisions without gaps, and each names the write that made the one before. So a mirror can tell whether
//! a change is the next one of the history that it knows. Where it is not, the mirror has to be read anew; it never guesses.

use std::time::Duration;

use jiff::Timestamp;
use uuid::Uuid;

use super::LONGEST_TICK;
use super::wire::Entry;
use crate::lease::{Event, Moment, Table};

/// A place in the history of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// Which life of the store counts the revision.
    pub(super) incarnation: Uuid,
    /// The last change.
    pub(super) revision: u64,
    /// The write that made it.
    pub(super) token: String,
}

/// How a change, or the store itself, does not go on where the mirror ends.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Astray {
    /// Changes are missing.
    #[error(
        "change {expected} was expected and {seen} came: the feed was cut, or Redis was away for too long"
    )]
    Gap {
        /// The revision that should have come.
        expected: u64,
        /// The one that came.
        seen: u64,
    },
    /// Redis goes on from another history: it failed over, or was set back.
    #[error("Redis has another history before change {revision}: it has failed over, or was set back")]
    Diverged {
        /// The first change that is known to be of another.
        revision: u64,
    },
    /// Redis holds another life of the store, or none: it was emptied.
    #[error("Redis was emptied, or begun anew by another registry")]
    Renewed,
    /// What Redis says to have, it does not tell.
    #[error("Redis has change {revision} and does not tell it")]
    Silent {
        /// The revision of that change.
        revision: u64,
    },
    /// The feed holds what is not understood.
    #[error("the feed holds what is not understood: {0}")]
    Unreadable(String),
}

/// Lease time as Redis said it, and when that was.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct LeaseTime {
    /// What Redis said.
    pub(super) said: Duration,
    /// When, on the replica's own clock.
    pub(super) heard_at: Duration,
}

impl LeaseTime {
    /// What it is about now. It stands when Redis is not heard, as it does in Redis.
    pub(super) fn at(self, monotonic: Duration) -> Duration {
        let passed = monotonic.saturating_sub(self.heard_at);
        self.said.saturating_add(passed.min(LONGEST_TICK))
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Mirror {
    table: Table,
    place: Place,
    time: LeaseTime,
}

impl Mirror {
    /// A mirror that knows everything up to a place.
    pub(super) fn new(table: Table, place: Place, time: LeaseTime) -> Self {
        Self { table, place, time }
    }

    /// How far it is.
    pub(super) const fn place(&self) -> &Place {
        &self.place
    }

    /// Redis has said what its lease time is.
    pub(super) fn is_told_time(&mut self, time: LeaseTime) {
        // Answers may cross.
        if time.said >= self.time.said {
            self.time = time;
        }
    }

    /// The table, and the moment to ask it at.
    pub(super) fn table(&mut self, wall: Timestamp, monotonic: Duration) -> (&mut Table, Moment) {
        let now = Moment {
            wall,
            monotonic: self.time.at(monotonic),
        };
        (&mut self.table, now)
    }

    /// Takes changes over, up to the first that is not the next one.
    pub(super) fn follow(&mut self, entries: Vec<Entry>) -> Result<(), Astray> {
        for entry in entries {
            let expected = self.place.revision + 1;
            if entry.revision != expected {
                return Err(Astray::Gap {
                    expected,
                    seen: entry.revision,
                });
            }
            if entry.before != self.place.token {
                return Err(Astray::Diverged { revision: expected });
            }
            self.place.revision = expected;
            self.place.token = entry.token;
            self.table.follow(expected, entry.told);
        }
        Ok(())
    }

    /// The changes since the last call.
    pub(super) fn take_events(&mut self) -> Vec<Event> {
        self.table.take_events()
    }
}

/// Whether a store whose last change is `found` goes on from where the mirror is.
pub(super) fn check(known: &Place, found: &Place) -> Result<(), Astray> {
    if found.incarnation != known.incarnation {
        return Err(Astray::Renewed);
    }
    let same = found.revision == known.revision && found.token == known.token;
    if found.revision > known.revision || same {
        return Ok(());
    }
    Err(Astray::Diverged {
        revision: found.revision,
    })
}

/// Whether a store that is read anew must begin another incarnation first: it has forgotten changes that `known` names, and would
/// count the same revisions again.
pub(super) fn is_behind(known: &Place, found: &Place) -> bool {
    let same_revision = found.revision == known.revision && found.incarnation == known.incarnation;
    found.revision < known.revision || (same_revision && found.token != known.token)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instance::Key;
    use crate::lease::{Terms, Told};
    use crate::offline::Bounds;

    fn place(incarnation: u128, revision: u64, token: &str) -> Place {
        Place {
            incarnation: Uuid::from_u128(incarnation),
            revision,
            token: token.to_owned(),
        }
    }

    fn mirror(place: Place) -> Mirror {
        let terms = Terms {
            time_to_live: Duration::from_secs(1),
            max_per_node: 1,
            max_instances: 1,
            offline: Bounds {
                retention: Duration::ZERO,
                most: 0,
            },
        };
        Mirror::new(Table::new(terms, place.revision), place, LeaseTime::default())
    }

    fn entry(revision: u64, before: &str, token: &str) -> Entry {
        let key = Key {
            namespace: "n".into(),
            agent_id: "a".into(),
            instance_id: Uuid::from_u128(1),
        };
        Entry {
            revision,
            token: token.to_owned(),
            before: before.to_owned(),
            told: Told::Deregistered(key),
        }
    }

    #[test]
    fn only_the_next_change_of_the_same_history_is_taken() {
        let mut mirror = mirror(place(1, 7, "a"));
        mirror
            .follow(vec![entry(8, "a", "b"), entry(9, "b", "b")])
            .unwrap();
        assert_eq!(*mirror.place(), place(1, 9, "b"));
        assert_eq!(mirror.take_events().len(), 2);
        let gap = Astray::Gap {
            expected: 10,
            seen: 11,
        };
        assert_eq!(mirror.follow(vec![entry(11, "b", "c")]), Err(gap));
        let diverged = Astray::Diverged { revision: 10 };
        assert_eq!(mirror.follow(vec![entry(10, "other", "c")]), Err(diverged));
        assert_eq!(*mirror.place(), place(1, 9, "b"), "nothing of it was taken");
    }

    #[test]
    fn a_store_goes_on_or_has_another_history_or_is_another() {
        let known = place(1, 7, "a");
        assert_eq!(check(&known, &place(1, 7, "a")), Ok(()));
        assert_eq!(check(&known, &place(1, 8, "b")), Ok(()));
        assert_eq!(check(&known, &place(2, 8, "b")), Err(Astray::Renewed));
        for (revision, token) in [(7, "b"), (6, "a")] {
            let diverged = Astray::Diverged { revision };
            assert_eq!(check(&known, &place(1, revision, token)), Err(diverged));
            assert!(is_behind(&known, &place(1, revision, token)));
        }
        assert!(!is_behind(&known, &place(1, 8, "b")), "a gap is read over");
        assert!(!is_behind(&known, &place(2, 7, "b")));
        assert!(is_behind(&known, &place(2, 6, "b")), "revisions only grow");
    }

    #[test]
    fn lease_time_stands_while_redis_is_not_heard() {
        let time = LeaseTime {
            said: Duration::from_secs(100),
            heard_at: Duration::from_secs(5),
        };
        assert_eq!(time.at(Duration::from_secs(6)), Duration::from_secs(101));
        assert_eq!(
            time.at(Duration::from_secs(600)),
            Duration::from_secs(100) + LONGEST_TICK
        );
        assert_eq!(
            time.at(Duration::ZERO),
            Duration::from_secs(100),
            "a clock of before"
        );
        let in_scripts = format!("local LONGEST = {}\n", LONGEST_TICK.as_millis());
        assert!(include_str!("prelude.lua").contains(&in_scripts));
    }
}
