//! What decides who is found, of all instances of a namespace, in columns: a search reads few bytes of each instance, and of
//! most instances none.
//!
//! Each instance has a slot, and slots are in blocks. Of each block the best is known in every order, so that a search begins with
//! the blocks that have the best, and ends when no other block has a better one than those it has. That is after
//! few blocks where what is filtered has nothing to do with what is sorted by. Where it has, the search goes on through the
//! other blocks, so what it costs at most is one walk through a few bytes of every instance.
//!
//! A heartbeat writes into four columns. It reads its block again only if it made the block's best worse.
//!
//! Rejected: a sorted tree for every question that is asked. To make one takes tens of milliseconds where there are a hundred
//! thousand instances, in which nobody else gets the lock; it holds more memory than all columns; and every heartbeat has
//! to be moved in every one of them.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use crate::discovery::{Measures, Query, Rank, Sort};
use crate::instance::{Instance, Profile, Report, Status};

/// Which instance of a namespace. A slot is given anew after its instance has gone.
pub type Slot = u32;

/// Which card of a namespace.
pub type Place = u32;

/// Instances in a block.
const BLOCK: usize = 64;

/// What an order is by, what decides between equals, and the id, as a number because of thousands of idle instances nothing else
/// may be different.
type Numbers = (u64, u64, u128);

/// See the module. All columns have the same length.
#[derive(Debug, Default)]
pub struct Columns {
    /// `None` where nobody has the slot.
    profiles: Vec<Option<Arc<Profile>>>,
    cards: Vec<Place>,
    /// Bits of [`bit`]; none where nobody has the slot.
    statuses: Vec<u8>,
    /// Part of a hash, so that another region is told from the wanted one without reading its name.
    regions: Vec<u32>,
    ids: Vec<u128>,
    load: Vec<u64>,
    latency: Vec<u64>,
    reliability: Vec<u64>,
    cost: Vec<u64>,
    /// For each order the best of each block, with its slot; nothing where the block has nobody.
    best: [Vec<Option<(Numbers, usize)>>; Sort::ALL.len()],
    free: Vec<Slot>,
}

/// Which instances have a card that is wanted.
#[derive(Debug)]
pub struct Wanted {
    bits: Vec<u64>,
}

/// Who was found, best first, and how many instances were looked at.
#[derive(Debug)]
pub struct Picked<'a> {
    /// Who.
    pub profiles: Vec<&'a Arc<Profile>>,
    /// How many.
    pub visited: usize,
}

impl Picked<'_> {
    /// Nobody.
    pub const NONE: Self = Self {
        profiles: Vec::new(),
        visited: 0,
    };
}

impl FromIterator<Place> for Wanted {
    fn from_iter<T: IntoIterator<Item = Place>>(places: T) -> Self {
        let mut bits: Vec<u64> = Vec::new();
        for place in places {
            let word = place as usize / 64;
            if bits.len() <= word {
                bits.resize(word + 1, 0);
            }
            bits[word] |= 1 << (place % 64);
        }
        Self { bits }
    }
}

impl Wanted {
    fn contains(&self, place: Place) -> bool {
        let word = self.bits.get(place as usize / 64).copied().unwrap_or(0);
        word & (1 << (place % 64)) != 0
    }
}

impl Columns {
    /// How many instances there are.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.profiles.len() - self.free.len()
    }

    /// What whoever has a slot has said once.
    #[must_use]
    pub fn profile(&self, slot: Slot) -> Option<&Arc<Profile>> {
        self.profiles.get(slot as usize)?.as_ref()
    }

    /// Adds an instance with the card at a place; says its slot.
    ///
    /// # Panics
    /// If there are four thousand million.
    pub fn insert(&mut self, instance: &Instance, card: Place) -> Slot {
        let slot = self.free.pop().unwrap_or_else(|| self.grow());
        let index = slot as usize;
        let profile = &instance.profile;
        self.profiles[index] = Some(Arc::clone(profile));
        self.cards[index] = card;
        self.regions[index] = hashed(&profile.region);
        self.ids[index] = profile.key.instance_id.as_u128();
        self.cost[index] = Measures::of(instance).cost;
        self.write(index, &instance.report);
        self.changed(index);
        slot
    }

    /// Removes an instance; says which card it had.
    pub fn remove(&mut self, slot: Slot) -> Place {
        let index = slot as usize;
        self.profiles[index] = None;
        self.statuses[index] = 0;
        self.changed(index);
        self.free.push(slot);
        self.cards[index]
    }

    /// An instance says something else of itself.
    pub fn report(&mut self, slot: Slot, report: &Report) {
        let index = slot as usize;
        self.write(index, report);
        self.changed(index);
    }

    fn write(&mut self, index: usize, report: &Report) {
        self.statuses[index] = bit(report.status);
        self.load[index] = Measures::load(report);
        self.latency[index] = Measures::latency(report);
        self.reliability[index] = Measures::reliability(report);
    }

    /// Who is the best of a block follows what is in a slot of it now.
    fn changed(&mut self, index: usize) {
        let block = index / BLOCK;
        for sort in Sort::ALL {
            let now = self.numbers(sort, index);
            let best = &self.best[sort as usize][block];
            let next = match (*best, now) {
                // The best may have become worse.
                (Some((_, slot)), _) if slot == index => {
                    let end = self.profiles.len().min((block + 1) * BLOCK);
                    let slots =
                        (block * BLOCK..end).filter_map(|slot| Some((self.numbers(sort, slot)?, slot)));
                    slots.min()
                }
                (Some((best, _)), Some(now)) if best <= now => continue,
                (_, Some(now)) => Some((now, index)),
                (_, None) => continue,
            };
            self.best[sort as usize][block] = next;
        }
    }

    /// Where in an order whoever has a slot is.
    fn numbers(&self, sort: Sort, slot: usize) -> Option<Numbers> {
        let (first, second) = self.measures(sort);
        (self.statuses[slot] != 0).then(|| (first[slot], second[slot], self.ids[slot]))
    }

    /// The best that fit of all, or of those whose cards are wanted: one more than is asked for, where there are more.
    #[must_use]
    pub fn best(&self, query: &Query, wanted: Option<&Wanted>) -> Picked<'_> {
        let mut choice = Choice::new(self, query, wanted);
        let best = self.best[query.sort as usize].iter().enumerate();
        let mut blocks: BinaryHeap<Reverse<(Numbers, usize)>> = best
            .filter_map(|(block, best)| Some(Reverse(((*best)?.0, block))))
            .collect();
        while let Some(Reverse((best, block))) = blocks.pop()
            && choice.has_place(best)
        {
            let end = self.profiles.len().min((block + 1) * BLOCK);
            for slot in block * BLOCK..end {
                choice.consider(slot);
            }
        }
        choice.picked()
    }

    /// The same of some slots.
    #[must_use]
    pub fn best_of(&self, query: &Query, slots: impl IntoIterator<Item = Slot>) -> Picked<'_> {
        let mut choice = Choice::new(self, query, None);
        for slot in slots {
            choice.consider(slot as usize);
        }
        choice.picked()
    }

    fn grow(&mut self) -> Slot {
        let slot = Slot::try_from(self.profiles.len()).expect("fewer than four thousand million instances");
        let length = self.profiles.len() + 1;
        self.profiles.push(None);
        self.cards.push(0);
        self.statuses.push(0);
        self.regions.push(0);
        self.ids.push(0);
        for measure in [
            &mut self.load,
            &mut self.latency,
            &mut self.reliability,
            &mut self.cost,
        ] {
            measure.push(0);
        }
        for best in &mut self.best {
            best.resize(length.div_ceil(BLOCK), None);
        }
        slot
    }

    /// What an order is by, and what decides between equals.
    const fn measures(&self, sort: Sort) -> (&Vec<u64>, &Vec<u64>) {
        match sort {
            Sort::Load => (&self.load, &self.latency),
            Sort::Latency => (&self.latency, &self.load),
            Sort::Reliability => (&self.reliability, &self.load),
            Sort::Cost => (&self.cost, &self.load),
        }
    }
}

/// One search under way: the best of those that were looked at.
struct Choice<'a, 'q> {
    columns: &'a Columns,
    first: &'a [u64],
    second: &'a [u64],
    wanted: Option<&'q Wanted>,
    statuses: u8,
    most_loaded: u64,
    region: Option<u32>,
    query: &'q Query,
    most: usize,
    /// The worst on top.
    best: BinaryHeap<Candidate<'a>>,
    /// Whoever's first measure is above this is not among the best.
    bar: u64,
    visited: usize,
}

/// Ordered as [`Rank`] is; the id of the agent is read only where all else is equal.
#[derive(Debug, Clone, Copy)]
struct Candidate<'a> {
    numbers: Numbers,
    profile: &'a Arc<Profile>,
}

impl Candidate<'_> {
    fn is_behind(&self, after: &Rank) -> bool {
        let numbers = (after.first, after.second, after.instance_id.as_u128());
        let order = self.numbers.cmp(&numbers);
        order.then_with(|| self.profile.key.agent_id.cmp(&after.agent_id)) == Ordering::Greater
    }
}

impl Ord for Candidate<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        let order = self.numbers.cmp(&other.numbers);
        order.then_with(|| self.profile.key.agent_id.cmp(&other.profile.key.agent_id))
    }
}

impl PartialOrd for Candidate<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Candidate<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Candidate<'_> {}

impl<'a, 'q> Choice<'a, 'q> {
    fn new(columns: &'a Columns, query: &'q Query, wanted: Option<&'q Wanted>) -> Self {
        let most_loaded = query.max_load.to_bits();
        let (first, second) = columns.measures(query.sort);
        Self {
            columns,
            first,
            second,
            wanted,
            statuses: query.statuses.iter().fold(0, |bits, status| bits | bit(*status)),
            most_loaded,
            region: query.region.as_deref().map(hashed),
            query,
            most: query.limit.saturating_add(1),
            best: BinaryHeap::new(),
            bar: if query.sort == Sort::Load {
                most_loaded
            } else {
                u64::MAX
            },
            visited: 0,
        }
    }

    /// Whether somebody with these numbers could be among the best.
    fn has_place(&self, numbers: Numbers) -> bool {
        let worst = self.best.peek().filter(|_| self.best.len() >= self.most);
        numbers.0 <= self.bar && worst.is_none_or(|worst| numbers <= worst.numbers)
    }

    fn consider(&mut self, slot: usize) {
        self.visited += 1;
        let columns = self.columns;
        let first = self.first[slot];
        if first > self.bar
            || columns.statuses[slot] & self.statuses == 0
            || columns.load[slot] > self.most_loaded
            || self.region.is_some_and(|region| columns.regions[slot] != region)
            || self
                .wanted
                .is_some_and(|wanted| !wanted.contains(columns.cards[slot]))
        {
            return;
        }
        let Some(profile) = &columns.profiles[slot] else {
            return;
        };
        let candidate = Candidate {
            numbers: (first, self.second[slot], columns.ids[slot]),
            profile,
        };
        let after = self.query.after.as_ref();
        if after.is_some_and(|after| !candidate.is_behind(after)) {
            return;
        }
        let is_full = self.best.len() >= self.most;
        if is_full && self.best.peek().is_some_and(|worst| candidate >= *worst) {
            return;
        }
        // Profiles are read last, because they are elsewhere in memory.
        if !self.query.admits(profile) {
            return;
        }
        if is_full {
            self.best.pop();
        }
        self.best.push(candidate);
        if self.best.len() >= self.most
            && let Some(worst) = self.best.peek()
        {
            self.bar = self.bar.min(worst.numbers.0);
        }
    }

    fn picked(self) -> Picked<'a> {
        let best = self.best.into_sorted_vec();
        Picked {
            profiles: best.into_iter().map(|candidate| candidate.profile).collect(),
            visited: self.visited,
        }
    }
}

const fn bit(status: Status) -> u8 {
    1 << status as u8
}

fn hashed(region: &str) -> u32 {
    let mut hasher = DefaultHasher::new();
    region.hash(&mut hasher);
    let bytes = hasher.finish().to_le_bytes();
    u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

#[cfg(test)]
mod tests;
