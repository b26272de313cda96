//! What of a task is not in the store yet, where the store is shared: its events since the last write, and whether its record
//! has to be written again.
//!
//! What is kept of a task is a record and the events after it, each with its number. So progress costs an event and not the
//! whole task, and whoever follows the task at another instance reads the events in their order. The events in the store are
//! bounded in number and in bytes. The oldest leave first; where one leaves that the record does not have yet, the record is
//! written with it.
//!
//! Plain data: what is taken to be written stays here until it is known to be written, so that a write that fails loses nothing. One
//! that fails may have been done all the same, with its answer lost. So each draft has a number, later ones a greater one: the store
//! writes a later draft over an earlier one of the same version, of which nobody here knows, and leaves out the events that it has
//! from that; and an earlier one that was under way for long changes nothing any more.

use std::collections::VecDeque;

use prost::Message as _;

use super::table::Event;

/// Most events of a task that the store keeps beside its record: as many as a follower may be behind.
const MOST_EVENTS: usize = 2_048;

/// Most bytes of them; the newest stays in any case.
const MOST_BYTES: usize = 8 * 1024 * 1024;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Trail {
    /// How often the task has been written.
    version: u64,
    /// How many events it has had.
    number: u64,
    /// How many of them its record in the store has.
    recorded: u64,
    unsent: VecDeque<(u64, Event)>,
    /// Number of the newest event that the store is not to keep any more.
    dropped: u64,
    /// Numbers and sizes of the later ones that were added here, oldest first.
    sizes: VecDeque<(u64, usize)>,
    bytes: usize,
    is_changed: bool,
    /// What is being written now.
    writing: Option<Writing>,
}

#[derive(Debug, Clone, Copy)]
struct Writing {
    number: u64,
    has_record: bool,
}

/// What is to be written.
#[derive(Debug, Clone, Default)]
pub(crate) struct Part {
    /// How often the task was written before.
    pub(crate) version: u64,
    /// Of all drafts of the process, of which later ones have greater numbers; from 1.
    pub(crate) draft: u64,
    /// How many events it has had with these.
    pub(crate) number: u64,
    /// The oldest event that the store is to keep.
    pub(crate) first: u64,
    /// Whether the record goes with it.
    pub(crate) has_record: bool,
    /// Events that the store does not have, oldest first.
    pub(crate) events: Vec<(u64, Event)>,
}

impl Trail {
    /// Of a task that was taken from the store. Its record goes with the next write, as it may have been less than what was taken.
    pub(super) fn of(version: u64, number: u64) -> Self {
        Self {
            version,
            number,
            is_changed: true,
            ..Self::default()
        }
    }

    /// How many events the task has had.
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Whether the store knows the task.
    pub(super) fn is_known(&self) -> bool {
        self.version > 0
    }

    /// Whether the store has all of it.
    pub(super) fn is_clean(&self) -> bool {
        self.is_known() && !self.is_changed && self.unsent.is_empty() && self.writing.is_none()
    }

    /// The record was changed by something else than events, or ends with them.
    pub(super) fn change(&mut self) {
        self.is_changed = true;
    }

    /// Something has happened.
    pub(super) fn add(&mut self, event: &Event) {
        self.number += 1;
        let size = event.encoded_len();
        self.unsent.push_back((self.number, Event::clone(event)));
        self.sizes.push_back((self.number, size));
        self.bytes += size;
        while self.sizes.len() > 1
            && (self.sizes.len() > MOST_EVENTS || self.bytes > MOST_BYTES)
            && let Some((number, size)) = self.sizes.pop_front()
        {
            self.bytes -= size;
            self.dropped = number;
            if number > self.recorded {
                self.is_changed = true;
            }
            if self.unsent.front().is_some_and(|(oldest, _)| *oldest <= number) {
                self.unsent.pop_front();
            }
        }
    }

    /// What is to be written now, by the draft of this number; one write at a time.
    pub(super) fn take(&mut self, draft: u64) -> Part {
        let has_record = self.is_changed || !self.is_known();
        self.writing = Some(Writing {
            number: self.number,
            has_record,
        });
        self.is_changed = false;
        Part {
            version: self.version,
            draft,
            number: self.number,
            first: self.dropped + 1,
            has_record,
            events: self.unsent.iter().cloned().collect(),
        }
    }

    /// What was taken is written.
    pub(super) fn written(&mut self) {
        let Some(writing) = self.writing.take() else {
            return;
        };
        self.version += 1;
        if writing.has_record {
            self.recorded = writing.number;
        }
        while self
            .unsent
            .front()
            .is_some_and(|(number, _)| *number <= writing.number)
        {
            self.unsent.pop_front();
        }
    }

    /// What was taken may not be written.
    pub(super) fn failed(&mut self) {
        if let Some(writing) = self.writing.take() {
            self.is_changed |= writing.has_record;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;

    use a2a_pb::proto as pb;
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        Event(usize),
        Change,
        /// What becomes of it, and how many events come in between.
        Write(Fate, usize),
        /// An earlier draft arrives that was given up.
        Arrive,
    }

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Fate {
        Done,
        /// It is done, and the answer is lost.
        Unheard,
        /// It is not done, or not yet.
        Failed,
    }

    fn step() -> impl Strategy<Value = Step> {
        let fate = prop_oneof![
            2 => Just(Fate::Done),
            1 => Just(Fate::Unheard),
            1 => Just(Fate::Failed),
        ];
        prop_oneof![
            4 => prop_oneof![Just(1), Just(700_000)].prop_map(Step::Event),
            1 => Just(Step::Change),
            3 => (fate, 0..3_usize).prop_map(|(fate, between)| Step::Write(fate, between)),
            1 => Just(Step::Arrive),
        ]
    }

    fn event(size: usize) -> Event {
        let artifact = pb::TaskArtifactUpdateEvent {
            task_id: "x".repeat(size),
            ..Default::default()
        };
        Arc::new(pb::StreamResponse {
            payload: Some(pb::stream_response::Payload::ArtifactUpdate(artifact)),
        })
    }

    /// What a store makes of it.
    #[derive(Default)]
    struct Store {
        version: u64,
        draft: u64,
        number: u64,
        recorded: u64,
        events: BTreeMap<u64, usize>,
    }

    impl Store {
        fn write(&mut self, part: &Part) {
            if part.draft <= self.draft {
                return;
            }
            assert!(
                [part.version, part.version + 1].contains(&self.version),
                "{part:?}"
            );
            self.version = part.version + 1;
            self.draft = part.draft;
            for (number, event) in part.events.iter().filter(|(number, _)| *number > self.number) {
                assert!(self.events.last_key_value().is_none_or(|(last, _)| last < number));
                self.events.insert(*number, event.encoded_len());
            }
            self.events = self.events.split_off(&part.first);
            self.number = part.number;
            if part.has_record {
                self.recorded = part.number;
            }
        }

        /// The record and the events after it are all that has happened until the last write, without a gap, and within the bounds.
        fn check(&self) -> Result<(), TestCaseError> {
            let after: Vec<u64> = self
                .events
                .range(self.recorded + 1..)
                .map(|(number, _)| *number)
                .collect();
            let wanted: Vec<u64> = (self.recorded + 1..=self.number).collect();
            prop_assert_eq!(after, wanted);
            prop_assert!(self.events.len() <= MOST_EVENTS);
            prop_assert!(self.events.values().sum::<usize>() <= MOST_BYTES);
            Ok(())
        }
    }

    proptest! {
        /// Whatever fails in between, and whatever of that is done all the same, at once or later.
        #[test]
        fn record_and_events_are_the_task(steps in prop::collection::vec(step(), 0..80)) {
            let (mut trail, mut store) = (Trail::default(), Store::default());
            let (mut happened, mut drafts) = (0, 0);
            let mut late = Vec::new();
            for step in steps {
                match step {
                    Step::Event(size) => {
                        trail.add(&event(size));
                        happened += 1;
                    }
                    Step::Change => trail.change(),
                    Step::Arrive => {
                        if let Some(part) = late.pop() {
                            // One that nothing was written after is done now.
                            store.write(&part);
                            store.check()?;
                        }
                    }
                    Step::Write(fate, between) => {
                        drafts += 1;
                        let part = trail.take(drafts);
                        prop_assert_eq!(part.number, happened);
                        for _ in 0..between {
                            trail.add(&event(700_000));
                            happened += 1;
                        }
                        if fate == Fate::Failed {
                            trail.failed();
                            late.push(part);
                            continue;
                        }
                        store.write(&part);
                        store.check()?;
                        prop_assert_eq!(store.number, part.number);
                        match fate {
                            Fate::Done => trail.written(),
                            _ => trail.failed(),
                        }
                    }
                }
            }
            store.write(&trail.take(drafts + 1));
            trail.written();
            prop_assert!(trail.is_clean());
            prop_assert_eq!((trail.number(), store.number), (happened, happened));
            store.check()?;
        }
    }
}
