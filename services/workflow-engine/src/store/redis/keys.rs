//! The keys of the store in Redis: the only place that knows their layout.
//!
//! Everything of a partition is in one slot:
//!
//! | key | what |
//! |---|---|
//! | `muster:{pNN}:lease` | who may write: see `muster_store::redis::lease` |
//! | `…:run:ID` | hash: head, token, summary, record, output, created, ended, first (entries forgotten), latest and base (states) |
//! | `…:journal:ID` | list of entries |
//! | `…:payloads:ID` | hash: span in 16 hexadecimal digits, colon, digest → payload |
//! | `…:created`, `…:unfinished`, `…:ended` | sorted sets of places |
//! | `…:approvals:ID` | hash: number → place, line feed, approval |
//! | `…:approvals-open`, `…:approvals-all` | sorted sets of places |
//! | `…:outbox` | stream of events on their way to the log |
//! | `…:spent`, `…:spent-order`, `…:spent-total:NAMESPACE` | what runs used by day, and the sum of it |
//!
//! Catalogue, schedules, answers and the log of events have a slot each. Members of sorted sets have score 0 and are found by
//! their bytes: a time in 16 hexadecimal digits, then an id. Scores are doubles, which do not hold every microsecond.

use jiff::Timestamp;
use muster_store::redis::{Slot, lease};

use crate::approval::{self, ApprovalId};
use crate::run::{Position, RunId};
use crate::store::WorkflowKey;
use crate::version;

/// Before everything that ids contain.
const BEFORE_IDS: char = ' ';

/// Length of a time in a place.
const TIME: usize = 16;

/// Names of the slots that no partition has.
pub(super) mod slots {
    pub(in super::super) const STORE: &str = "store";
    pub(in super::super) const CATALOGUE: &str = "catalogue";
    pub(in super::super) const SCHEDULES: &str = "schedules";
    pub(in super::super) const ANSWERS: &str = "answers";
    pub(in super::super) const LOG: &str = "log";
}

/// The keys of a partition.
pub(super) struct Partition {
    slot: Slot,
}

impl Partition {
    pub(super) fn new(prefix: &str, partition: u16) -> Self {
        Self {
            slot: Slot::of_partition(prefix, partition),
        }
    }

    pub(super) fn lease(&self) -> Vec<u8> {
        self.slot.key(lease::KEY)
    }

    pub(super) fn run(&self, id: &RunId) -> Vec<u8> {
        self.slot.key_of("run", id.as_str())
    }

    pub(super) fn journal(&self, id: &RunId) -> Vec<u8> {
        self.slot.key_of("journal", id.as_str())
    }

    pub(super) fn payloads(&self, id: &RunId) -> Vec<u8> {
        self.slot.key_of("payloads", id.as_str())
    }

    pub(super) fn approvals(&self, id: &RunId) -> Vec<u8> {
        self.slot.key_of("approvals", id.as_str())
    }

    pub(super) fn index(&self, index: Index) -> Vec<u8> {
        self.slot.key(index.name())
    }

    pub(super) fn outbox(&self) -> Vec<u8> {
        self.slot.key("outbox")
    }

    pub(super) fn spent(&self) -> Vec<u8> {
        self.slot.key("spent")
    }

    pub(super) fn spent_order(&self) -> Vec<u8> {
        self.slot.key("spent-order")
    }

    pub(super) fn spent_total(&self, namespace: &str) -> Vec<u8> {
        self.slot.key_of("spent-total", namespace)
    }
}

/// A sorted set that every partition has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Index {
    /// Every run by creation.
    Created,
    /// Those that have not ended, by creation.
    Unfinished,
    /// Those that have, by their end.
    Ended,
    /// Approvals that are open.
    ApprovalsOpen,
    /// All approvals.
    ApprovalsAll,
}

impl Index {
    const fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Unfinished => "unfinished",
            Self::Ended => "ended",
            Self::ApprovalsOpen => "approvals-open",
            Self::ApprovalsAll => "approvals-all",
        }
    }
}

/// Signed numbers as text of the same order.
pub(super) fn sortable(number: i64) -> String {
    format!("{:016x}", number.cast_unsigned() ^ (1 << 63))
}

fn unsortable(text: &str) -> Option<i64> {
    let number = u64::from_str_radix(text, 16).ok()?;
    Some((number ^ (1 << 63)).cast_signed())
}

/// A time in the places of events, and before every place of that time.
pub(super) fn time(time: Timestamp) -> String {
    sortable(time.as_microsecond())
}

pub(super) fn parse_time(text: &str) -> Option<Timestamp> {
    Timestamp::from_microsecond(unsortable(text)?).ok()
}

/// The place of a run by creation.
pub(super) fn created(position: &Position) -> String {
    format!("{}{}", sortable(position.created_micros), position.id)
}

/// The place of a run by its end.
pub(super) fn ended(ended_at: Timestamp, id: &RunId) -> String {
    format!("{}{id}", time(ended_at))
}

/// The time and the run of a place.
pub(super) fn position(place: &str) -> Option<Position> {
    let (time, id) = place.split_at_checked(TIME)?;
    Some(Position {
        created_micros: unsortable(time)?,
        id: id.parse().ok()?,
    })
}

/// The place of an approval.
pub(super) fn opened(position: &approval::Position) -> String {
    let ApprovalId { run, number } = &position.id;
    format!(
        "{}{run}{BEFORE_IDS}{number:016x}",
        sortable(position.opened_micros)
    )
}

/// The approval of a place.
pub(super) fn approval(place: &str) -> Option<approval::Position> {
    let (time, rest) = place.split_at_checked(TIME)?;
    let (run, number) = rest.rsplit_once(BEFORE_IDS)?;
    Some(approval::Position {
        opened_micros: unsortable(time)?,
        id: ApprovalId {
            run: run.parse().ok()?,
            number: u64::from_str_radix(number, 16).ok()?,
        },
    })
}

/// The place of what a run used on a day.
pub(super) fn spent(day: i64, namespace: &str, run: &RunId) -> String {
    format!("{}{namespace}{BEFORE_IDS}{run}", sortable(day))
}

/// The day and the namespace of such a place.
pub(super) fn spender(place: &str) -> Option<(i64, &str)> {
    let (day, rest) = place.split_at_checked(TIME)?;
    let (namespace, _) = rest.split_once(BEFORE_IDS)?;
    Some((unsortable(day)?, namespace))
}

/// The field of a payload.
pub(super) fn payload(span: u64, digest: &str) -> String {
    format!("{span:016x}:{digest}")
}

/// The span and the digest of such a field.
pub(super) fn payload_parts(field: &str) -> Option<(u64, &str)> {
    let (span, digest) = field.split_once(':')?;
    Some((u64::from_str_radix(span, 16).ok()?, digest))
}

/// The place of a document in the catalogue; `None` if the version is not a semantic version.
pub(super) fn workflow(key: &WorkflowKey) -> Option<Vec<u8>> {
    let mut place = named(&key.namespace, &key.name);
    place.extend(version::sort_key(&key.version)?);
    Some(place)
}

/// What the places of all versions of a name start with. Names are DNS labels and contain no NUL.
pub(super) fn named(namespace: &str, name: &str) -> Vec<u8> {
    format!("{namespace}\0{name}\0").into_bytes()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn places_sort_like_positions_and_come_back(
            a in (any::<i64>(), "[a-zA-Z0-9._-]{0,19}[a-zA-Z0-9_-]", any::<u64>()),
            b in (any::<i64>(), "[a-zA-Z0-9._-]{0,19}[a-zA-Z0-9_-]", any::<u64>()),
        ) {
            let of = |(micros, id, _): &(i64, String, u64)| Position { created_micros: *micros, id: id.parse().unwrap() };
            prop_assert_eq!(of(&a).cmp(&of(&b)), created(&of(&a)).cmp(&created(&of(&b))));
            prop_assert_eq!(position(&created(&of(&a))), Some(of(&a)));
            let asked = |(micros, run, number): &(i64, String, u64)| approval::Position {
                opened_micros: *micros,
                id: ApprovalId { run: run.parse().unwrap(), number: *number },
            };
            prop_assert_eq!(asked(&a).cmp(&asked(&b)), opened(&asked(&a)).cmp(&opened(&asked(&b))));
            prop_assert_eq!(approval(&opened(&asked(&a))), Some(asked(&a)));
            let used = spent(a.0, "ns-1", &of(&b).id);
            prop_assert_eq!(spender(&used), Some((a.0, "ns-1")));
        }
    }
}
