//! Who works, who waits for a slot, who waits for time: plain data, driven from outside.
//!
//! A run holds one of the slots only while it works; a run that waits for time to pass is *parked* and costs no
//! more than its entry here. Two lines wait for slots: runs that were parked and are due again, and runs that have
//! not begun. They are served in turn, so that neither a crowd of new runs holds up those under way, nor runs that
//! wake all the time hold up the new ones. New runs start in the order in which they were accepted; the store keeps
//! that order, so this structure is rebuilt from it after a restart.
//!
//! Rejected: slots as semaphore permits inside the runs' tasks. That keeps a task alive for each run that waits,
//! and the order of the line cannot be read by the operator who asks for it.

use std::collections::{BTreeSet, HashMap, VecDeque};

use jiff::Timestamp;

use crate::run::RunId;

/// Where a run that has not ended is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// Has not begun; waits for a slot.
    Pending,
    /// Is due again; waits for a slot.
    Ready,
    /// Waits: until this time, if there is one, or until it is told something.
    Parked(Option<Timestamp>),
    /// Is being worked on.
    Active {
        /// Whether it holds a slot; the handling of a cancellation does not.
        slot: bool,
    },
    /// Cannot go on; says why.
    SetAside(String),
}

/// How a run leaves [`Place::Active`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Left {
    /// It has ended.
    Ended,
    /// It waits: until this time, if there is one, or until it is told something.
    Parked(Option<Timestamp>),
    /// It cannot go on; says why.
    SetAside(String),
}

/// What came of trying to take a run out of its turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seized {
    /// It is the caller's now and [`Place::Active`], without a slot.
    Taken,
    /// Somebody works on it.
    Active,
    /// It cannot go on; says why.
    SetAside(String),
    /// It is not among those that have not ended.
    Unknown,
}

/// No more runs are accepted now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{queued} runs wait for a slot, and {limit} may")]
pub struct Full {
    /// How many wait.
    pub queued: usize,
    /// How many may.
    pub limit: usize,
}

/// How many runs are where.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Hold a slot.
    pub running: usize,
    /// Have not begun.
    pub pending: usize,
    /// Wait for time to pass or to be told something, or for a slot after that.
    pub waiting: usize,
    /// Cannot go on.
    pub set_aside: usize,
    /// Slots there are.
    pub slots: usize,
}

/// See the module.
#[derive(Debug)]
pub struct Schedule {
    slots: usize,
    most_pending: usize,
    holding: usize,
    reserved: usize,
    places: HashMap<RunId, Place>,
    pending: VecDeque<RunId>,
    ready: VecDeque<RunId>,
    timers: BTreeSet<(Timestamp, RunId)>,
    /// How many are parked, those without a timer too.
    parked: usize,
    served_ready_last: bool,
}

impl Schedule {
    /// Nothing in it; `most_pending` may wait for their first slot.
    #[must_use]
    pub fn new(slots: usize, most_pending: usize) -> Self {
        Self {
            slots,
            most_pending,
            holding: 0,
            reserved: 0,
            places: HashMap::new(),
            pending: VecDeque::new(),
            ready: VecDeque::new(),
            timers: BTreeSet::new(),
            parked: 0,
            served_ready_last: false,
        }
    }

    /// Keeps a place in the line for a run that is about to become durable. Give it up or use it.
    ///
    /// # Errors
    /// The line is full.
    pub fn reserve(&mut self) -> Result<(), Full> {
        let queued = self.pending.len() + self.reserved;
        // Those for which a slot is free do not wait.
        let free = self.slots.saturating_sub(self.holding + self.ready.len());
        if queued >= self.most_pending.saturating_add(free) {
            return Err(Full {
                queued,
                limit: self.most_pending,
            });
        }
        self.reserved += 1;
        Ok(())
    }

    /// Gives a reserved place up.
    pub fn give_up(&mut self) {
        self.reserved = self.reserved.saturating_sub(1);
    }

    /// A run of [`Self::reserve`] is durable and waits for its first slot.
    pub fn admit(&mut self, id: RunId) {
        self.give_up();
        self.restore(id);
    }

    /// A run that had not begun is found in the store.
    pub fn restore(&mut self, id: RunId) {
        self.places.insert(id.clone(), Place::Pending);
        self.pending.push_back(id);
    }

    /// A run that had begun is found in the store; what it waits for is known once it is loaded.
    pub fn resume(&mut self, id: RunId) {
        self.places.insert(id.clone(), Place::Ready);
        self.ready.push_back(id);
    }

    /// A run is found that cannot go on.
    pub fn set_aside(&mut self, id: RunId, why: String) {
        self.places.insert(id, Place::SetAside(why));
    }

    /// The next run to work on, which gets a slot; `None` while there is no run or no slot.
    pub fn next(&mut self, now: Timestamp) -> Option<RunId> {
        self.wake(now);
        if self.holding >= self.slots {
            return None;
        }
        let ready_first = !self.served_ready_last || self.pending.is_empty();
        let (id, from_ready) = match (ready_first, self.ready.pop_front()) {
            (true, Some(id)) => (id, true),
            (false, Some(id)) => {
                self.ready.push_front(id);
                (self.pending.pop_front()?, false)
            }
            (_, None) => (self.pending.pop_front()?, false),
        };
        self.served_ready_last = from_ready;
        self.holding += 1;
        self.places.insert(id.clone(), Place::Active { slot: true });
        Some(id)
    }

    /// Moves parked runs that are due into the line.
    fn wake(&mut self, now: Timestamp) {
        while let Some((due, _)) = self.timers.first()
            && *due <= now
            && let Some((_, id)) = self.timers.pop_first()
        {
            self.parked = self.parked.saturating_sub(1);
            self.places.insert(id.clone(), Place::Ready);
            self.ready.push_back(id);
        }
    }

    /// When the next parked run is due.
    #[must_use]
    pub fn next_due(&self) -> Option<Timestamp> {
        self.timers.first().map(|(due, _)| *due)
    }

    /// Takes a run out of its turn, to cancel it.
    pub fn seize(&mut self, id: &RunId) -> Seized {
        match self.places.get(id) {
            None => return Seized::Unknown,
            Some(Place::Active { .. }) => return Seized::Active,
            Some(Place::SetAside(why)) => return Seized::SetAside(why.clone()),
            Some(Place::Pending) => self.pending.retain(|other| other != id),
            Some(Place::Ready) => self.ready.retain(|other| other != id),
            Some(Place::Parked(due)) => {
                if let Some(due) = *due {
                    self.timers.remove(&(due, id.clone()));
                }
                self.parked = self.parked.saturating_sub(1);
            }
        }
        self.places.insert(id.clone(), Place::Active { slot: false });
        Seized::Taken
    }

    /// A run that was worked on is not any more; its slot, if it had one, is free.
    pub fn leave(&mut self, id: &RunId, left: Left) {
        if let Some(Place::Active { slot: true }) = self.places.remove(id) {
            self.holding = self.holding.saturating_sub(1);
        }
        match left {
            Left::Ended => {}
            Left::Parked(due) => {
                self.places.insert(id.clone(), Place::Parked(due));
                self.timers.extend(due.map(|due| (due, id.clone())));
                self.parked += 1;
            }
            Left::SetAside(why) => self.set_aside(id.clone(), why),
        }
    }

    /// Where a run is; `None` once it has ended.
    #[must_use]
    pub fn place(&self, id: &RunId) -> Option<&Place> {
        self.places.get(id)
    }

    /// How many runs that have not begun are before this one.
    #[must_use]
    pub fn ahead_of(&self, id: &RunId) -> usize {
        self.pending.iter().take_while(|other| *other != id).count()
    }

    /// How many runs are where.
    #[must_use]
    pub fn counts(&self) -> Counts {
        let set_aside = self
            .places
            .values()
            .filter(|place| matches!(place, Place::SetAside(_)))
            .count();
        Counts {
            running: self.holding,
            pending: self.pending.len(),
            waiting: self.parked + self.ready.len(),
            set_aside,
            slots: self.slots,
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;
    use proptest::prelude::*;

    use super::*;

    fn id(number: usize) -> RunId {
        format!("run-{number}").parse().unwrap()
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + SignedDuration::from_secs(second)
    }

    fn admitted(schedule: &mut Schedule, numbers: std::ops::Range<usize>) {
        for number in numbers {
            schedule.reserve().unwrap();
            schedule.admit(id(number));
        }
    }

    #[test]
    fn runs_begin_in_the_order_of_their_acceptance() {
        let mut schedule = Schedule::new(2, 10);
        admitted(&mut schedule, 0..4);
        assert_eq!(schedule.next(at(0)), Some(id(0)));
        assert_eq!(schedule.next(at(0)), Some(id(1)));
        assert_eq!(schedule.next(at(0)), None);
        assert_eq!(schedule.ahead_of(&id(3)), 1);
        schedule.leave(&id(1), Left::Ended);
        assert_eq!(schedule.next(at(0)), Some(id(2)));
        assert_eq!(schedule.place(&id(1)), None);
    }

    #[test]
    fn a_parked_run_holds_no_slot_and_comes_back_when_due() {
        let mut schedule = Schedule::new(1, 10);
        admitted(&mut schedule, 0..2);
        assert_eq!(schedule.next(at(0)), Some(id(0)));
        schedule.leave(&id(0), Left::Parked(Some(at(5))));
        assert_eq!(schedule.next_due(), Some(at(5)));
        assert_eq!(schedule.next(at(4)), Some(id(1)));
        assert_eq!(schedule.next(at(9)), None, "no slot");
        assert_eq!(schedule.place(&id(0)), Some(&Place::Ready));
        schedule.leave(&id(1), Left::Ended);
        assert_eq!(schedule.next(at(9)), Some(id(0)));
    }

    #[test]
    fn woken_and_new_runs_take_turns() {
        let mut schedule = Schedule::new(1, 10);
        admitted(&mut schedule, 0..3);
        for number in 10..13 {
            schedule.resume(id(number));
        }
        let mut order = Vec::new();
        while let Some(next) = schedule.next(at(0)) {
            schedule.leave(&next, Left::Ended);
            order.push(next);
        }
        assert_eq!(order, [10, 0, 11, 1, 12, 2].map(id));
    }

    #[test]
    fn the_line_is_bounded_and_counts_what_is_about_to_join() {
        let mut schedule = Schedule::new(1, 2);
        for _ in 0..3 {
            schedule.reserve().unwrap();
        }
        assert_eq!(schedule.reserve(), Err(Full { queued: 3, limit: 2 }));
        schedule.give_up();
        schedule.reserve().unwrap();
        // What the store holds is taken back, whatever the limit is now.
        schedule.restore(id(7));
        assert_eq!(schedule.counts().pending, 1);
    }

    #[test]
    fn a_run_can_be_seized_wherever_it_waits() {
        let mut schedule = Schedule::new(1, 10);
        admitted(&mut schedule, 0..3);
        assert_eq!(schedule.next(at(0)), Some(id(0)));
        assert_eq!(schedule.seize(&id(0)), Seized::Active);
        assert_eq!(schedule.seize(&id(1)), Seized::Taken);
        assert_eq!(schedule.seize(&id(1)), Seized::Active);
        schedule.leave(&id(0), Left::Parked(Some(at(5))));
        assert_eq!(schedule.seize(&id(0)), Seized::Taken);
        assert_eq!(
            schedule.counts(),
            Counts {
                running: 0,
                pending: 1,
                waiting: 0,
                set_aside: 0,
                slots: 1
            }
        );
        schedule.leave(&id(0), Left::SetAside("damaged".into()));
        assert_eq!(schedule.seize(&id(0)), Seized::SetAside("damaged".into()));
        assert_eq!(schedule.seize(&id(99)), Seized::Unknown);
        assert_eq!(schedule.next(at(9)), Some(id(2)));
    }

    #[derive(Debug, Clone)]
    enum Action {
        Start,
        Next,
        Leave(usize, u8),
        Seize(usize),
    }

    fn action() -> impl Strategy<Value = Action> {
        prop_oneof![
            Just(Action::Start),
            Just(Action::Next),
            (any::<usize>(), 0..3_u8).prop_map(|(run, how)| Action::Leave(run, how)),
            any::<usize>().prop_map(Action::Seize),
        ]
    }

    proptest! {
        #[test]
        fn no_run_is_lost_doubled_or_over_the_limit(actions in proptest::collection::vec(action(), 0..200)) {
            let (slots, limit) = (3, 5);
            let mut schedule = Schedule::new(slots, limit);
            let mut active: Vec<RunId> = Vec::new();
            let mut alive = 0_usize;
            for (step, action) in actions.into_iter().enumerate() {
                let now = at(step as i64);
                match action {
                    Action::Start => {
                        if schedule.reserve().is_ok() {
                            schedule.admit(id(step));
                            alive += 1;
                        }
                    }
                    Action::Next => {
                        if let Some(next) = schedule.next(now) {
                            prop_assert!(!active.contains(&next), "worked on twice");
                            active.push(next);
                        }
                    }
                    Action::Leave(run, how) if !active.is_empty() => {
                        let run = active.swap_remove(run % active.len());
                        let left = match how {
                            0 => Left::Ended,
                            1 => Left::Parked((step % 2 == 0).then(|| at(step as i64 + 3))),
                            _ => Left::SetAside("why".into()),
                        };
                        alive -= usize::from(left == Left::Ended);
                        schedule.leave(&run, left);
                    }
                    Action::Seize(run) => {
                        if step > 0 && schedule.seize(&id(run % step)) == Seized::Taken {
                            active.push(id(run % step));
                        }
                    }
                    Action::Leave(..) => {}
                }
                let counts = schedule.counts();
                prop_assert!(counts.running <= slots);
                prop_assert!(counts.pending <= limit + slots);
                let seized = active.len() - counts.running;
                let total = counts.running + seized + counts.pending + counts.waiting + counts.set_aside;
                prop_assert_eq!(total, alive);
            }
        }
    }
}
