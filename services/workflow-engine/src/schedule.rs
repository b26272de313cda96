//! Who works, who waits for a slot, who waits for time: plain data, driven from outside.
//!
//! A run holds one of the slots only while it works; a run that waits for time to pass, or to be told something, is
//! *parked* and costs no more than its entry here. Two kinds of runs wait for slots: those that were parked and are
//! due again, and those that have not begun. Who is next is chosen in three steps: between namespaces by weighted
//! fairness, within one by priority class, within a class by turns between the two kinds, each in the order in which
//! they came ([`line`]). A run whose workflow, or whose key, has as many runs under way as it may have waits beside
//! the line ([`group`]). The store keeps order, class and limits of every run, so that this structure is rebuilt from
//! it after a restart.
//!
//! Each operation takes time in the logarithm of the number of runs and namespaces, except for the questions of
//! operators, which count.
//!
//! Rejected: slots as semaphore permits inside the runs' tasks. That keeps a task alive for each run that waits,
//! and the order of the line cannot be read by the operator who asks for it. Also rejected: ageing of low classes.
//! Strict classes are what the author asked for, and a namespace cannot starve another one with them.

mod claim;
mod group;
mod line;

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use jiff::Timestamp;

use crate::run::RunId;
pub use claim::{Claim, Limit};
use group::Groups;
pub use line::Share;
use line::{Kind, Lines, Turn};

/// The last part of the line, and of the slots, is kept for namespaces that have little of it: one in so many places.
const KEPT: usize = 10;

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
    /// It has ended, or goes on elsewhere.
    Ended,
    /// It waits: until this time, if there is one, or until it is told something.
    Parked(Option<Timestamp>),
    /// It has work to do and waits for a slot.
    Waits,
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

/// Runs that are to go on elsewhere.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Withdrawn {
    /// Those that are out of the schedule.
    pub idle: Vec<RunId>,
    /// Those that somebody still works on.
    pub at_work: Vec<RunId>,
}

/// No more runs are accepted now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    /// The line is full.
    #[error("{queued} runs wait for a slot, and {most} may")]
    Line {
        /// How many wait.
        queued: usize,
        /// How many may.
        most: usize,
    },
    /// The line is nearly full, and what is left of it is kept for namespaces that have little in it.
    #[error(
        "{queued} runs wait for a slot, {own} of them of namespace '{namespace}'; the last of {most} places are kept for others"
    )]
    Kept {
        /// Who is refused.
        namespace: Arc<str>,
        /// How many of its runs wait.
        own: usize,
        /// How many wait.
        queued: usize,
        /// How many may.
        most: usize,
    },
    /// The namespace has as many runs in the line as it may have.
    #[error("{queued} runs of namespace '{namespace}' wait for a slot, and {most} may")]
    Namespace {
        /// Who is refused.
        namespace: Arc<str>,
        /// How many of its runs wait.
        queued: usize,
        /// How many may.
        most: usize,
    },
}

/// What a run that has not begun waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hindrance {
    /// All slots are in use, or others are before it.
    Slots {
        /// Slots in use.
        held: usize,
        /// Slots there are.
        slots: usize,
        /// How many of the free ones are kept for namespaces that hold less than half of their share.
        kept: usize,
        /// Runs of its namespace that are before it.
        ahead: usize,
    },
    /// Its namespace holds as many slots as it may.
    Namespace {
        /// Which.
        namespace: Arc<str>,
        /// Slots that it may hold.
        most: usize,
        /// Runs of its namespace that are before it.
        ahead: usize,
    },
    /// As many runs of a group are under way as may be.
    Group {
        /// Which limit.
        limit: Limit,
        /// How many are.
        used: u32,
        /// Runs that wait for the same and are before it.
        ahead: usize,
    },
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

/// How the runs of a namespace stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamespaceCounts {
    /// Its name.
    pub namespace: Arc<str>,
    /// What the operator gives it.
    pub share: Share,
    /// Slots that its runs hold.
    pub running: usize,
    /// Its runs that have not begun.
    pub pending: usize,
}

/// Bounds of the schedule.
#[derive(Debug, Clone, Default)]
pub struct Bounds {
    /// Slots there are.
    pub slots: usize,
    /// Runs that may wait for their first slot.
    pub most_pending: usize,
    /// What namespaces are given; the others the default.
    pub shares: HashMap<Arc<str>, Share>,
}

/// A run that is to get, or has, its place.
#[derive(Debug, Clone)]
pub struct Newcomer {
    /// Its id.
    pub id: RunId,
    /// Its namespace.
    pub namespace: Arc<str>,
    /// What its turn depends on.
    pub claim: Arc<Claim>,
}

#[derive(Debug)]
struct Entry {
    place: Place,
    namespace: Arc<str>,
    claim: Arc<Claim>,
    turn: Turn,
    /// Since when it is due again and waits for a slot.
    due_since: Option<Timestamp>,
    /// Whether it has had a slot, and therefore is in its groups.
    begun: bool,
    /// Whether it waits for one of its groups, beside the line.
    is_beside: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Schedule {
    slots: usize,
    most_pending: usize,
    holding: usize,
    pending: usize,
    reserved: usize,
    parked: usize,
    ready: usize,
    set_aside: usize,
    sequence: u64,
    entries: HashMap<RunId, Entry>,
    lines: Lines,
    groups: Groups,
    timers: BTreeSet<(Timestamp, RunId)>,
    /// Runs that have become due since somebody was served.
    newly_due: Vec<RunId>,
}

impl Schedule {
    /// From now on so many runs may work at the same time, and at least one. Those that do already go on.
    pub fn set_slots(&mut self, slots: usize) {
        self.slots = slots.max(1);
    }

    /// Nothing in it.
    #[must_use]
    pub fn new(bounds: Bounds) -> Self {
        Self {
            slots: bounds.slots,
            most_pending: bounds.most_pending,
            holding: 0,
            pending: 0,
            reserved: 0,
            parked: 0,
            ready: 0,
            set_aside: 0,
            sequence: 0,
            entries: HashMap::new(),
            lines: Lines::new(bounds.shares),
            groups: Groups::default(),
            timers: BTreeSet::new(),
            newly_due: Vec::new(),
        }
    }

    /// Keeps a place in the line for a run that is about to become durable. Give it up or use it.
    ///
    /// # Errors
    /// The line is full, or the part of it that this namespace may fill.
    pub fn reserve(&mut self, namespace: &Arc<str>) -> Result<(), Full> {
        let queued = self.pending + self.reserved;
        // Those for which a slot is free do not wait.
        let free = self.slots.saturating_sub(self.holding + self.ready);
        let share = self.lines.share(namespace);
        let (own, in_use) = match self.lines.get(namespace) {
            Some(line) => (line.queued, line.held + line.ready.len()),
            None => (0, 0),
        };
        let own_free = free.min(share.most_slots.saturating_sub(in_use));
        let (most, kept) = (self.most_pending, self.most_pending / KEPT);
        let namespace_of = || Arc::clone(namespace);
        if queued >= most.saturating_add(free) {
            return Err(Full::Line { queued, most });
        }
        if own >= share.most_pending.saturating_add(own_free) {
            return Err(Full::Namespace {
                namespace: namespace_of(),
                queued: own,
                most: share.most_pending,
            });
        }
        if queued >= (most - kept).saturating_add(free) && own >= kept {
            return Err(Full::Kept {
                namespace: namespace_of(),
                own,
                queued,
                most,
            });
        }
        self.reserved += 1;
        self.lines.change(namespace, |line| line.queued += 1);
        Ok(())
    }

    /// Gives a reserved place up.
    pub fn give_up(&mut self, namespace: &Arc<str>) {
        self.reserved = self.reserved.saturating_sub(1);
        self.lines
            .change(namespace, |line| line.queued = line.queued.saturating_sub(1));
    }

    /// A run of [`Self::reserve`] is durable and waits for its first slot.
    pub fn admit(&mut self, run: Newcomer) {
        // First in, then out, so that its namespace is not forgotten in between.
        let namespace = Arc::clone(&run.namespace);
        self.restore(run);
        self.give_up(&namespace);
    }

    /// A run that had not begun is found in the store.
    pub fn restore(&mut self, run: Newcomer) {
        let id = run.id.clone();
        self.enter(run, Place::Pending, false);
        self.pending += 1;
        self.line_up(&id);
    }

    /// A run that had begun is found in the store; what it waits for is known once it is loaded.
    pub fn resume(&mut self, run: Newcomer) {
        let id = run.id.clone();
        self.groups.join(&run.claim.limits);
        self.enter(run, Place::Ready, true);
        self.ready += 1;
        self.line_up(&id);
    }

    /// A run that has not begun and is held is found in the store.
    pub fn hold(&mut self, run: Newcomer) {
        self.enter(run, Place::Parked(None), false);
        self.parked += 1;
    }

    /// A run is found that cannot go on, and of which nothing more is known.
    pub fn set_aside(&mut self, id: RunId, why: String) {
        let run = Newcomer {
            id,
            namespace: Arc::from(""),
            claim: Arc::default(),
        };
        self.enter(run, Place::SetAside(why), true);
        self.set_aside += 1;
    }

    fn enter(&mut self, run: Newcomer, place: Place, begun: bool) {
        let turn = (Reverse(run.claim.priority), self.sequence);
        self.sequence += 1;
        self.lines.change(&run.namespace, |line| {
            line.members += 1;
            line.queued += usize::from(place == Place::Pending);
        });
        let entry = Entry {
            place,
            namespace: run.namespace,
            claim: run.claim,
            turn,
            due_since: None,
            begun,
            is_beside: false,
        };
        self.entries.insert(run.id, entry);
    }

    /// Puts a run that waits for a slot into its namespace's line.
    fn line_up(&mut self, id: &RunId) {
        let Some(entry) = self.entries.get_mut(id) else {
            return;
        };
        entry.is_beside = false;
        let (turn, is_ready) = (entry.turn, entry.place == Place::Ready);
        if is_ready {
            self.newly_due.push(id.clone());
        }
        self.lines.change(&entry.namespace, |line| {
            let kind = if is_ready { Kind::Ready } else { Kind::Pending };
            line.insert(kind, turn, id.clone());
        });
    }

    /// The next run to work on, which gets a slot; `None` while there is no run or no slot.
    pub fn next(&mut self, now: Timestamp) -> Option<RunId> {
        self.wake(now);
        for id in std::mem::take(&mut self.newly_due) {
            if let Some(entry) = self
                .entries
                .get_mut(&id)
                .filter(|entry| entry.place == Place::Ready)
            {
                entry.due_since.get_or_insert(now);
            }
        }
        while self.holding < self.slots {
            let last = self.slots - self.holding <= self.slots / KEPT;
            let (namespace, kind, turn, id) = self.lines.take(last.then_some(self.slots))?;
            let Some(entry) = self.entries.get_mut(&id) else {
                continue;
            };
            if !entry.begun {
                let claim = Arc::clone(&entry.claim);
                if let Some(full) = self.groups.full(&claim.limits) {
                    entry.is_beside = true;
                    self.groups.wait(&claim.limits, full, turn, id);
                    self.offer(&claim);
                    continue;
                }
                self.groups.join(&entry.claim.limits);
                entry.begun = true;
            }
            entry.place = Place::Active { slot: true };
            self.no_longer(kind, &namespace);
            self.holding += 1;
            self.lines.served(&namespace);
            return Some(id);
        }
        None
    }

    /// Since when a run that has got a slot had been due. Said once.
    pub fn take_due_since(&mut self, id: &RunId) -> Option<Timestamp> {
        self.entries.get_mut(id)?.due_since.take()
    }

    /// Runs that wait for the groups of a run that has not joined them, though it might have, get their chance.
    fn offer(&mut self, claim: &Claim) {
        for next in self.groups.offer(&claim.limits) {
            self.line_up(&next);
        }
    }

    /// A run has left a line for good.
    fn no_longer(&mut self, kind: Kind, namespace: &Arc<str>) {
        match kind {
            Kind::Ready => self.ready = self.ready.saturating_sub(1),
            Kind::Pending => {
                self.pending = self.pending.saturating_sub(1);
                self.lines
                    .change(namespace, |line| line.queued = line.queued.saturating_sub(1));
            }
        }
    }

    /// Moves parked runs that are due into the line. They go to its end: their turn comes after those that wait.
    fn wake(&mut self, now: Timestamp) {
        while let Some((due, _)) = self.timers.first()
            && *due <= now
            && let Some((_, id)) = self.timers.pop_first()
        {
            self.parked = self.parked.saturating_sub(1);
            self.get_ready(&id);
        }
    }

    /// A run that is due again joins the line, at its end.
    fn get_ready(&mut self, id: &RunId) {
        if let Some(entry) = self.entries.get_mut(id) {
            entry.place = Place::Ready;
            entry.turn.1 = self.sequence;
            self.sequence += 1;
            self.ready += 1;
        }
        self.line_up(id);
    }

    /// When the next parked run is due.
    #[must_use]
    pub fn next_due(&self) -> Option<Timestamp> {
        self.timers.first().map(|(due, _)| *due)
    }

    /// A parked run has something to look at: it is due now. Anything else is left as it is; says where it is then.
    pub fn rouse(&mut self, id: &RunId) -> Option<&Place> {
        let entry = self.entries.get_mut(id)?;
        if let Place::Parked(due) = entry.place {
            if let Some(due) = due {
                self.timers.remove(&(due, id.clone()));
            }
            self.parked = self.parked.saturating_sub(1);
            self.get_ready(id);
        }
        self.place(id)
    }

    /// Takes a run out of its turn, to tell it something.
    pub fn seize(&mut self, id: &RunId) -> Seized {
        let Some(entry) = self.entries.get_mut(id) else {
            return Seized::Unknown;
        };
        let (namespace, turn) = (Arc::clone(&entry.namespace), entry.turn);
        match &entry.place {
            Place::Active { .. } => return Seized::Active,
            Place::SetAside(why) => return Seized::SetAside(why.clone()),
            Place::Pending | Place::Ready => {
                let kind = if entry.place == Place::Ready {
                    Kind::Ready
                } else {
                    Kind::Pending
                };
                let (claim, begun) = (Arc::clone(&entry.claim), entry.begun);
                if std::mem::take(&mut entry.is_beside) {
                    self.groups.forget(&claim.limits, turn);
                } else {
                    self.lines.change(&namespace, |line| line.remove(kind, &turn));
                    // It may have been on its way to its groups.
                    if !begun {
                        self.offer(&claim);
                    }
                }
                self.no_longer(kind, &namespace);
            }
            Place::Parked(due) => {
                if let Some(due) = *due {
                    self.timers.remove(&(due, id.clone()));
                }
                self.parked = self.parked.saturating_sub(1);
            }
        }
        if let Some(entry) = self.entries.get_mut(id) {
            entry.place = Place::Active { slot: false };
        }
        Seized::Taken
    }

    /// A run that was worked on is not any more; its slot, if it had one, is free.
    pub fn leave(&mut self, id: &RunId, left: Left) {
        let Some(entry) = self.entries.get_mut(id) else {
            return;
        };
        let namespace = Arc::clone(&entry.namespace);
        if entry.place == (Place::Active { slot: true }) {
            self.holding = self.holding.saturating_sub(1);
            self.lines
                .change(&namespace, |line| line.held = line.held.saturating_sub(1));
        }
        match left {
            Left::Ended => self.forget(id, &namespace),
            Left::Parked(due) => {
                entry.place = Place::Parked(due);
                entry.due_since = None;
                self.timers.extend(due.map(|due| (due, id.clone())));
                self.parked += 1;
            }
            Left::Waits => self.wait_again(id),
            // It is still under way as far as its groups are concerned: nobody knows what it had in hand.
            Left::SetAside(why) => {
                entry.place = Place::SetAside(why);
                self.set_aside += 1;
            }
        }
    }

    /// What set a run aside has passed; anything else is left as it is.
    pub fn take_up(&mut self, id: &RunId) {
        if matches!(self.place(id), Some(Place::SetAside(_))) {
            self.set_aside = self.set_aside.saturating_sub(1);
            self.wait_again(id);
        }
    }

    /// A run that has begun goes to the end of those that are due; one that has not gets its old turn.
    fn wait_again(&mut self, id: &RunId) {
        let Some(entry) = self.entries.get_mut(id) else {
            return;
        };
        if entry.begun {
            self.get_ready(id);
            return;
        }
        entry.place = Place::Pending;
        self.pending += 1;
        self.lines.change(&entry.namespace, |line| line.queued += 1);
        self.line_up(id);
    }

    fn forget(&mut self, id: &RunId, namespace: &Arc<str>) {
        let entry = self.entries.remove(id);
        self.lines
            .change(namespace, |line| line.members = line.members.saturating_sub(1));
        if let Some(entry) = entry.filter(|entry| entry.begun) {
            for next in self.groups.leave(&entry.claim.limits) {
                self.line_up(&next);
            }
        }
    }

    /// Takes all of these runs out of the schedule that nobody works on.
    pub fn withdraw(&mut self, is_of: impl Fn(&RunId) -> bool) -> Withdrawn {
        let mut withdrawn = Withdrawn::default();
        let of = self.entries.iter().filter(|(id, _)| is_of(id));
        let of: Vec<(RunId, Place)> = of.map(|(id, entry)| (id.clone(), entry.place.clone())).collect();
        for (id, place) in of {
            match place {
                Place::Active { .. } => {
                    withdrawn.at_work.push(id);
                    continue;
                }
                Place::SetAside(_) => self.take_up(&id),
                Place::Pending | Place::Ready | Place::Parked(_) => {}
            }
            self.seize(&id);
            self.leave(&id, Left::Ended);
            withdrawn.idle.push(id);
        }
        withdrawn
    }

    /// The runs that somebody works on.
    #[must_use]
    pub fn at_work(&self) -> Vec<RunId> {
        let at_work = self
            .entries
            .iter()
            .filter(|(_, entry)| matches!(entry.place, Place::Active { .. }));
        at_work.map(|(id, _)| id.clone()).collect()
    }

    /// Where a run is; `None` once it has ended.
    #[must_use]
    pub fn place(&self, id: &RunId) -> Option<&Place> {
        self.entries.get(id).map(|entry| &entry.place)
    }

    /// What a run waits for that has not begun, or that is due again.
    #[must_use]
    pub fn hindrance(&self, id: &RunId) -> Option<Hindrance> {
        let entry = self.entries.get(id)?;
        if entry.is_beside {
            let (limit, ahead) = self.groups.waits_for(&entry.claim.limits, entry.turn)?;
            return Some(Hindrance::Group {
                limit: limit.clone(),
                used: self.groups.under_way(&limit.group),
                ahead,
            });
        }
        let line = self.lines.get(&entry.namespace)?;
        let ahead = match entry.place {
            Place::Pending => line.pending.range(..entry.turn).count(),
            Place::Ready => line.ready.range(..entry.turn).count(),
            _ => return None,
        };
        Some(if line.held >= line.share.most_slots {
            Hindrance::Namespace {
                namespace: Arc::clone(&entry.namespace),
                most: line.share.most_slots,
                ahead,
            }
        } else {
            let kept = self.slots / KEPT;
            Hindrance::Slots {
                held: self.holding,
                slots: self.slots,
                kept: if self.holding < self.slots && !self.lines.holds_little(line, self.slots) {
                    kept
                } else {
                    0
                },
                ahead,
            }
        })
    }

    /// How many runs are where.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts {
            running: self.holding,
            pending: self.pending,
            waiting: self.parked + self.ready,
            set_aside: self.set_aside,
            slots: self.slots,
        }
    }

    /// How the runs of each namespace stand that has some.
    #[must_use]
    pub fn namespaces(&self) -> Vec<NamespaceCounts> {
        let named = self.lines.iter().filter(|(name, _)| !name.is_empty());
        let counts = named.map(|(name, line)| NamespaceCounts {
            namespace: Arc::clone(name),
            share: line.share,
            running: line.held,
            pending: line.queued,
        });
        let mut counts: Vec<NamespaceCounts> = counts.collect();
        counts.sort_by(|one, other| one.namespace.cmp(&other.namespace));
        counts
    }
}

#[cfg(test)]
mod tests;
