//! The queues of all targets with their indexes, in memory. Pure: this is what the embedded store and the one in memory are
//! made of.
//!
//! Each entry stands in at most one place of each index, and all places follow from the entry itself: a change takes the old
//! entry out of all and puts the new one in. What has changed since it was last asked is told by [`Queue::take_changed`], so
//! that a store can write just that.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use super::entry::{Change, Delivery, Draft, Entry, Millis, Policy, Refusal, Status};

/// What happens by itself is done for so many entries at a time.
pub const TICKED_AT_ONCE: usize = 256;

/// How many entries one page of a list looks at, at most.
pub const LOOKED_AT: usize = 1_000;

/// Why a message is not taken in, or an entry not changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// There is no such entry.
    Unknown,
    /// The id was used with another message.
    IdReused,
    /// There are as many entries as may be.
    Full(Full),
    /// Something about the entry itself.
    Entry(Refusal),
}

/// What is full.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Full {
    /// The target's queue.
    Target(usize),
    /// All queues together.
    Total(usize),
    /// The room for messages, in bytes.
    Bytes(u64),
}

/// Which entries are meant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// In this state.
    pub status: Option<Status>,
    /// For this target.
    pub target: Option<String>,
    /// Of this caller.
    pub caller: Option<String>,
}

impl Filter {
    /// Whether an entry is meant.
    #[must_use]
    pub fn takes(&self, entry: &Entry) -> bool {
        self.status.is_none_or(|status| status == entry.status())
            && self.target.as_ref().is_none_or(|target| *target == entry.target)
            && self.caller.as_ref().is_none_or(|caller| *caller == entry.caller)
    }
}

/// A part of a list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// The entries.
    pub entries: Vec<Entry>,
    /// The sequence after which the next page begins; `None` at the end.
    pub next: Option<u64>,
}

/// A wish to be lent entries.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Of these targets.
    pub targets: Vec<String>,
    /// That are taken out in this way.
    pub delivery: Delivery,
    /// So many at most.
    pub most: usize,
    /// For that long.
    pub lease: Duration,
    /// By whom.
    pub by: String,
}

/// What happened by itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Ticked {
    /// Entries that are dead now, their time to live or their last lease having ended.
    pub dead: usize,
    /// Leases that ran out.
    pub returned: usize,
    /// Entries that were forgotten because there were too many.
    pub displaced: usize,
    /// How long until something happens again; `None`: nothing is waited for.
    pub next: Option<Duration>,
}

/// How much there is.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Counts {
    /// By status, in the order of [`Status::ALL`].
    pub by_status: [usize; 4],
    /// The targets with the most entries that have not ended.
    pub targets: Vec<(String, usize)>,
    /// How long the oldest pending entry waits.
    pub oldest: Duration,
}

/// Targets shown by [`Counts`].
pub const TARGETS_SHOWN: usize = 100;

/// A place in a target's queue.
type Place = (i64, u64, String);

/// See the module.
#[derive(Debug)]
pub struct Queue {
    policy: Policy,
    entries: HashMap<String, Entry>,
    ready: HashMap<(Delivery, String), BTreeSet<Place>>,
    /// The first of each of these, with its target.
    heads: BTreeMap<Delivery, BTreeSet<(Place, String)>>,
    due: BTreeSet<(Millis, String)>,
    all: BTreeMap<u64, String>,
    by_status: [BTreeMap<u64, String>; 4],
    open: HashMap<String, usize>,
    bytes: u64,
    next_sequence: u64,
    changed: BTreeSet<String>,
}

impl Queue {
    /// An empty one.
    #[must_use]
    pub fn new(policy: Policy) -> Self {
        Self {
            policy,
            entries: HashMap::new(),
            ready: HashMap::new(),
            heads: BTreeMap::new(),
            due: BTreeSet::new(),
            all: BTreeMap::new(),
            by_status: Default::default(),
            open: HashMap::new(),
            bytes: 0,
            next_sequence: 1,
            changed: BTreeSet::new(),
        }
    }

    /// Takes back an entry that was kept; it does not count as changed.
    pub fn restore(&mut self, entry: Entry) {
        self.next_sequence = self.next_sequence.max(entry.sequence.saturating_add(1));
        let id = entry.id.clone();
        self.put(entry);
        self.changed.remove(&id);
    }

    /// Ends the leases that this process gave to itself before it started.
    pub fn end_leases(&mut self, delivery: Delivery, now: Millis) {
        let lent: Vec<String> = self.by_status[Status::Delivering as usize]
            .values()
            .cloned()
            .collect();
        for id in lent {
            if let Some(entry) = self.entries.get(&id).cloned()
                && entry.delivery == delivery
                && let Some(entry) = entry.at_its_time(now, &self.policy)
            {
                self.put(entry);
            }
        }
    }

    /// An entry.
    #[must_use]
    pub fn get(&self, id: &str) -> Option<&Entry> {
        self.entries.get(id)
    }

    /// Takes a message in: the entry, and whether it was there before.
    ///
    /// # Errors
    /// The id was used with another message, or there is no room.
    pub fn enqueue(&mut self, draft: &Draft, now: Millis) -> Result<(Entry, bool), Refused> {
        if let Some(known) = self.entries.get(&draft.id) {
            return if known.fingerprint == draft.fingerprint {
                Ok((known.clone(), true))
            } else {
                Err(Refused::IdReused)
            };
        }
        let bytes = draft.body.len() as u64;
        while self.bytes.saturating_add(bytes) > self.policy.bytes
            && let Some(oldest) = self.oldest(Status::Done)
        {
            self.forget(&oldest);
        }
        self.room(&draft.target)?;
        if self.bytes.saturating_add(bytes) > self.policy.bytes {
            return Err(Refused::Full(Full::Bytes(self.policy.bytes)));
        }
        let entry = Entry::new(draft, self.next_sequence, now);
        self.next_sequence += 1;
        self.put(entry.clone());
        Ok((entry, false))
    }

    fn room(&self, target: &str) -> Result<(), Refused> {
        let full = |full| Err(Refused::Full(full));
        if self.open.get(target).copied().unwrap_or_default() >= self.policy.entries {
            return full(Full::Target(self.policy.entries));
        }
        let open = self.count(Status::Pending) + self.count(Status::Delivering);
        if open >= self.policy.total {
            return full(Full::Total(self.policy.total));
        }
        Ok(())
    }

    /// Lends out the first entries of the targets, with a token each.
    pub fn lease(&mut self, wanted: &Wanted, now: Millis, token: impl Fn() -> String) -> Vec<Entry> {
        let mut firsts: Vec<Place> = Vec::new();
        for target in &wanted.targets {
            let queue = self.ready.get(&(wanted.delivery, target.clone()));
            let alive = |place: &&Place| self.entries.get(&place.2).is_some_and(|it| it.expires_at > now);
            firsts.extend(
                queue
                    .into_iter()
                    .flatten()
                    .filter(alive)
                    .take(wanted.most)
                    .cloned(),
            );
        }
        firsts.sort_unstable();
        firsts.truncate(wanted.most);
        let mut lent = Vec::new();
        for (_, _, id) in firsts {
            let entry = self.entries.get(&id).cloned();
            let entry = entry.and_then(|entry| entry.lent(&token(), &wanted.by, wanted.lease, now).ok());
            if let Some(entry) = entry {
                self.put(entry.clone());
                lent.push(entry);
            }
        }
        lent
    }

    /// Changes an entry.
    ///
    /// # Errors
    /// There is no such entry, it may not be changed so, or there is no room to put it back.
    pub fn change(&mut self, id: &str, change: Change, now: Millis) -> Result<Entry, Refused> {
        let entry = self.entries.get(id).cloned().ok_or(Refused::Unknown)?;
        if change == Change::Replay && entry.status() == Status::Dead {
            self.room(&entry.target)?;
        }
        let entry = entry.changed(change, now, &self.policy).map_err(Refused::Entry)?;
        self.put(entry.clone());
        Ok(entry)
    }

    /// Forgets an entry that has ended.
    ///
    /// # Errors
    /// There is no such entry, or it has not ended.
    pub fn purge(&mut self, id: &str) -> Result<(), Refused> {
        let status = self.entries.get(id).ok_or(Refused::Unknown)?.status();
        if !status.has_ended() {
            return Err(Refused::Entry(Refusal::State(status)));
        }
        self.forget(id);
        Ok(())
    }

    /// Does what is due by now, for a limited number of entries.
    pub fn tick_at(&mut self, now: Millis) -> Ticked {
        let mut ticked = Ticked::default();
        for _ in 0..TICKED_AT_ONCE {
            let Some((_, id)) = self.due.first().filter(|(due, _)| *due <= now).cloned() else {
                break;
            };
            let Some(before) = self.entries.get(&id).cloned() else {
                break;
            };
            ticked.returned += usize::from(before.status() == Status::Delivering);
            match before.at_its_time(now, &self.policy) {
                Some(after) => {
                    ticked.dead += usize::from(after.status() == Status::Dead);
                    self.put(after);
                }
                None => self.forget(&id),
            }
        }
        for status in [Status::Done, Status::Dead] {
            while self.count(status) > self.policy.ended
                && ticked.displaced < TICKED_AT_ONCE
                && let Some(oldest) = self.oldest(status)
            {
                self.forget(&oldest);
                ticked.displaced += 1;
            }
        }
        let next = self.due.first().map(|(due, _)| due.saturating_sub(now));
        ticked.next = next.map(Duration::from_millis);
        ticked
    }

    /// The targets that have entries to be lent out, in the order of their first ones: so many at most, after the first `skipped`.
    #[must_use]
    pub fn heads(&self, delivery: Delivery, skipped: usize, most: usize) -> Vec<String> {
        let heads = self.heads.get(&delivery).into_iter().flatten();
        let heads = heads.skip(skipped).take(most);
        heads.map(|(_, target)| target.clone()).collect()
    }

    /// The entries after a place of the list, by sequence.
    #[must_use]
    pub fn list(&self, filter: &Filter, after: u64, most: usize) -> Page {
        let index = match filter.status {
            Some(status) => &self.by_status[status as usize],
            None => &self.all,
        };
        let mut page = Page::default();
        let (mut looked_at, mut last) = (0, after);
        for (sequence, id) in index.range(after.saturating_add(1)..) {
            if page.entries.len() == most || looked_at == LOOKED_AT {
                page.next = Some(last);
                break;
            }
            looked_at += 1;
            last = *sequence;
            page.entries
                .extend(self.entries.get(id).filter(|it| filter.takes(it)).cloned());
        }
        page
    }

    /// How much there is.
    #[must_use]
    pub fn counts(&self, now: Millis) -> Counts {
        let mut targets: Vec<(String, usize)> = self
            .open
            .iter()
            .map(|(target, size)| (target.clone(), *size))
            .collect();
        targets.sort_unstable_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        targets.truncate(TARGETS_SHOWN);
        let oldest = self.by_status[Status::Pending as usize].values().next();
        let oldest = oldest.and_then(|id| self.entries.get(id));
        Counts {
            by_status: Status::ALL.map(|status| self.count(status)),
            targets,
            oldest: oldest.map_or(Duration::ZERO, |oldest| {
                Duration::from_millis(now.saturating_sub(oldest.enqueued_at))
            }),
        }
    }

    /// The ids of what has changed since this was asked last, gone ones too.
    pub fn take_changed(&mut self) -> BTreeSet<String> {
        std::mem::take(&mut self.changed)
    }

    fn count(&self, status: Status) -> usize {
        self.by_status[status as usize].len()
    }

    fn oldest(&self, status: Status) -> Option<String> {
        self.by_status[status as usize].values().next().cloned()
    }

    fn put(&mut self, entry: Entry) {
        self.take_out(&entry.id);
        let (id, order) = (entry.id.clone(), entry.order(&self.policy));
        if entry.is_ready() {
            let place = (order, entry.sequence, id.clone());
            self.line_up(entry.delivery, &entry.target, |queue| queue.insert(place));
        }
        self.due.insert((entry.due(&self.policy), id.clone()));
        self.all.insert(entry.sequence, id.clone());
        self.by_status[entry.status() as usize].insert(entry.sequence, id.clone());
        if !entry.status().has_ended() {
            *self.open.entry(entry.target.clone()).or_default() += 1;
        }
        self.bytes = self.bytes.saturating_add(entry.bytes());
        self.changed.insert(id.clone());
        self.entries.insert(id, entry);
    }

    /// Changes a target's queue, and keeps its first place among those of all.
    fn line_up(
        &mut self,
        delivery: Delivery,
        target: &str,
        change: impl FnOnce(&mut BTreeSet<Place>) -> bool,
    ) {
        let key = (delivery, target.to_owned());
        let queue = self.ready.entry(key).or_default();
        let before = queue.first().cloned();
        change(queue);
        let after = queue.first().cloned();
        if queue.is_empty() {
            self.ready.remove(&(delivery, target.to_owned()));
        }
        if before != after {
            let heads = self.heads.entry(delivery).or_default();
            if let Some(before) = before {
                heads.remove(&(before, target.to_owned()));
            }
            heads.extend(after.map(|after| (after, target.to_owned())));
        }
    }

    fn forget(&mut self, id: &str) {
        self.take_out(id);
        self.changed.insert(id.to_owned());
    }

    fn take_out(&mut self, id: &str) {
        let Some(entry) = self.entries.remove(id) else {
            return;
        };
        if entry.is_ready() {
            let place = (entry.order(&self.policy), entry.sequence, entry.id.clone());
            self.line_up(entry.delivery, &entry.target, |queue| queue.remove(&place));
        }
        self.due.remove(&(entry.due(&self.policy), entry.id.clone()));
        self.all.remove(&entry.sequence);
        self.by_status[entry.status() as usize].remove(&entry.sequence);
        if !entry.status().has_ended()
            && let Some(open) = self.open.get_mut(&entry.target)
        {
            *open -= 1;
            if *open == 0 {
                self.open.remove(&entry.target);
            }
        }
        self.bytes = self.bytes.saturating_sub(entry.bytes());
    }
}

/// The store's time of a wall clock.
#[must_use]
pub fn millis_of(time: jiff::Timestamp) -> Millis {
    u64::try_from(time.as_millisecond()).unwrap_or(0)
}

/// The wall clock's time of a store's.
#[must_use]
pub fn timestamp(time: Millis) -> jiff::Timestamp {
    let time = i64::try_from(time).unwrap_or(i64::MAX);
    jiff::Timestamp::from_millisecond(time).unwrap_or(jiff::Timestamp::MAX)
}

#[cfg(test)]
mod tests;
