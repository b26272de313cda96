//! The line of one namespace, and the choice between the lines.
//!
//! Within a namespace the highest class goes first; within a class, runs that are due again and runs that have not
//! begun take turns, each in their order. Between namespaces the next slot goes to the one that holds the smallest
//! part of what its weight entitles it to; among those that hold the same part, to the one that was served least, by
//! weight (stride scheduling: being served moves a namespace forward by the inverse of its weight). The first rule is
//! fair about slots that are held for long, the second about those that change hands all the time. A namespace that had
//! nothing to do starts where the others are, so that no credit is saved up.
//!
//! The last slots go only to namespaces that hold less than half of what they are entitled to, so that one that has
//! filled the line with long runs leaves room in which others begin at once. Rejected: a fixed number of slots that each
//! namespace may hold of the last ones. One that needs a few more than that then waits for each further slot until a
//! run of the others ends, although it is entitled to many more.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use muster_workflow_dsl::document::policy::Priority;

use crate::run::RunId;

/// A run's turn in its line: the higher class first, then the earlier.
pub(super) type Turn = (Reverse<Priority>, u64);

/// How far being served moves a namespace of weight 1.
const STRIDE: u128 = 1 << 64;

/// Parts of a slot that are told apart where slots held are compared by weight.
const PARTS: u64 = 1 << 20;

/// What the operator gives a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Its part, relative to the weights of the others.
    pub weight: u32,
    /// Slots that it may hold at once.
    pub most_slots: usize,
    /// Its runs that may wait for their first slot.
    pub most_pending: usize,
}

impl Default for Share {
    fn default() -> Self {
        Self {
            weight: 1,
            most_slots: usize::MAX,
            most_pending: usize::MAX,
        }
    }
}

/// Which of the two lines of a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Runs that have not begun.
    Pending,
    /// Runs that are due again.
    Ready,
}

/// The line of one namespace.
#[derive(Debug)]
pub(super) struct Line {
    pub(super) share: Share,
    pub(super) pending: BTreeMap<Turn, RunId>,
    pub(super) ready: BTreeMap<Turn, RunId>,
    /// Slots that its runs hold.
    pub(super) held: usize,
    /// Its runs that have not begun, wherever they wait, with places kept for them.
    pub(super) queued: usize,
    /// Its runs that have not ended.
    pub(super) members: usize,
    /// How far it has been served.
    pass: u128,
    served_ready_last: bool,
    /// Where it stands in [`Lines::open`], if it stands there.
    rank: Option<Rank>,
}

/// The smallest is served next: part of its share that is held, how far it has been served.
type Rank = (u64, u128);

/// The lines of all namespaces.
#[derive(Debug, Default)]
pub(super) struct Lines {
    shares: HashMap<Arc<str>, Share>,
    lines: HashMap<Arc<str>, Line>,
    /// Namespaces that have somebody to serve and may hold one more slot.
    open: BTreeSet<(Rank, Arc<str>)>,
    /// Weights of all namespaces that hold a slot or have somebody to serve.
    busy: u64,
    /// How far the last one that was served had been.
    now: u128,
}

impl Line {
    fn new(share: Share, pass: u128) -> Self {
        Self {
            share,
            pending: BTreeMap::new(),
            ready: BTreeMap::new(),
            held: 0,
            queued: 0,
            members: 0,
            pass,
            served_ready_last: false,
            rank: None,
        }
    }

    pub(super) fn insert(&mut self, kind: Kind, turn: Turn, id: RunId) {
        self.side(kind).insert(turn, id);
    }

    pub(super) fn remove(&mut self, kind: Kind, turn: &Turn) {
        self.side(kind).remove(turn);
    }

    fn side(&mut self, kind: Kind) -> &mut BTreeMap<Turn, RunId> {
        match kind {
            Kind::Pending => &mut self.pending,
            Kind::Ready => &mut self.ready,
        }
    }

    fn is_waiting(&self) -> bool {
        !self.pending.is_empty() || !self.ready.is_empty()
    }

    fn weight(&self) -> u64 {
        u64::from(self.share.weight.max(1))
    }

    /// Its weight, if it holds a slot or has somebody to serve.
    fn busy(&self) -> u64 {
        if self.is_waiting() || self.held > 0 {
            self.weight()
        } else {
            0
        }
    }

    /// Slots held, by weight.
    fn part(&self) -> u64 {
        (self.held as u64).saturating_mul(PARTS) / self.weight()
    }

    fn rank(&self) -> Option<Rank> {
        (self.is_waiting() && self.held < self.share.most_slots).then(|| (self.part(), self.pass))
    }

    /// Who is next: the higher class; within one, the two lines take turns.
    fn take(&mut self) -> Option<(Kind, Turn, RunId)> {
        let class = |line: &BTreeMap<Turn, RunId>| line.keys().next().map(|(class, _)| *class);
        let kind = match (class(&self.ready), class(&self.pending)) {
            (Some(ready), Some(pending)) if ready < pending => Kind::Ready,
            (Some(ready), Some(pending)) if pending < ready => Kind::Pending,
            (Some(_), Some(_)) if self.served_ready_last => Kind::Pending,
            (Some(_), _) => Kind::Ready,
            (None, _) => Kind::Pending,
        };
        let (turn, id) = self.side(kind).pop_first()?;
        self.served_ready_last = kind == Kind::Ready;
        Some((kind, turn, id))
    }
}

impl Lines {
    pub(super) fn new(shares: HashMap<Arc<str>, Share>) -> Self {
        Self {
            shares,
            ..Self::default()
        }
    }

    pub(super) fn get(&self, namespace: &str) -> Option<&Line> {
        self.lines.get(namespace)
    }

    /// What the operator gives the namespace.
    pub(super) fn share(&self, namespace: &str) -> Share {
        self.shares.get(namespace).copied().unwrap_or_default()
    }

    /// Each namespace that has runs which have not ended.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Line)> {
        self.lines.iter()
    }

    /// Changes the line of a namespace and keeps its rank true.
    pub(super) fn change<T>(&mut self, namespace: &Arc<str>, change: impl FnOnce(&mut Line) -> T) -> T {
        let (share, now) = (self.share(namespace), self.now);
        let line = self
            .lines
            .entry(Arc::clone(namespace))
            .or_insert_with(|| Line::new(share, now));
        let (was_waiting, was_busy) = (line.is_waiting(), line.busy());
        let result = change(line);
        self.busy = self.busy + line.busy() - was_busy;
        if !was_waiting {
            line.pass = line.pass.max(now);
        }
        let rank = line.rank();
        if rank != line.rank {
            if let Some(old) = line.rank {
                self.open.remove(&(old, Arc::clone(namespace)));
            }
            line.rank = rank;
            self.open.extend(rank.map(|rank| (rank, Arc::clone(namespace))));
        }
        if line.members == 0 && line.queued == 0 && line.held == 0 {
            self.lines.remove(namespace);
        }
        result
    }

    /// Half of what a namespace of weight 1 is entitled to of so many slots, in parts; never so little that one that
    /// holds nothing has it.
    fn half_share(&self, slots: usize) -> u64 {
        let parts = (slots as u64).saturating_mul(PARTS);
        (parts / self.busy.saturating_mul(2).max(1)).max(1)
    }

    /// Whether the line's namespace holds less than half of what it is entitled to of so many slots.
    pub(super) fn holds_little(&self, line: &Line, slots: usize) -> bool {
        line.part() < self.half_share(slots)
    }

    /// Who is next; if the last of so many slots are given out, among the namespaces that hold little of them. Not
    /// served yet: see [`Self::served`].
    pub(super) fn take(&mut self, last_of: Option<usize>) -> Option<(Arc<str>, Kind, Turn, RunId)> {
        let ((part, _), namespace) = self.open.first()?;
        if last_of.is_some_and(|slots| *part >= self.half_share(slots)) {
            return None;
        }
        let namespace = Arc::clone(namespace);
        let (kind, turn, id) = self.change(&namespace, Line::take)?;
        Some((namespace, kind, turn, id))
    }

    /// The namespace has been given a slot.
    pub(super) fn served(&mut self, namespace: &Arc<str>) {
        let pass = self.change(namespace, |line| {
            let before = line.pass;
            line.held += 1;
            line.pass += STRIDE / u128::from(line.share.weight.max(1));
            before
        });
        self.now = self.now.max(pass);
    }
}
