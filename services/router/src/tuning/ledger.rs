//! What was changed, in force or taken back. Plain data.
//!
//! Each change has a number that is never given twice in a life of the router. Who takes one back takes back what came after it at the
//! same place too, and that place is left alone from then on: an operator has decided, and the evidence that led to the change is
//! still there.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use jiff::Timestamp;

use super::{Step, WHOLE};
use crate::fleet::Key;

/// Changes that are remembered.
const MOST_CHANGES: usize = 200;

/// Places that are left alone at most.
const MOST_HELD: usize = 10_000;

/// What is changed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// The share of an instance, in this registration of it.
    Share(Key, u64),
    /// The places of each instance of an agent.
    Places(String),
}

/// A change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Its number.
    pub number: u64,
    /// When it was made.
    pub at: Timestamp,
    /// Of what.
    pub place: Place,
    /// Which, and why.
    pub step: Step,
    /// Whether it was taken back.
    pub is_reverted: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Ledger {
    shares: BTreeMap<Key, (u64, u32)>,
    places: BTreeMap<String, u32>,
    held: BTreeSet<Place>,
    changes: VecDeque<Change>,
    last: u64,
}

impl Place {
    /// What kind of change that is.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Share(..) => "routing",
            Self::Places(_) => "concurrency",
        }
    }

    /// The agent.
    #[must_use]
    pub fn agent(&self) -> &str {
        match self {
            Self::Share(key, _) => &key.agent,
            Self::Places(agent) => agent,
        }
    }

    /// Whose it is.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Share(key, _) => format!("{}/{}", key.agent, key.instance),
            Self::Places(agent) => agent.clone(),
        }
    }
}

impl Ledger {
    /// The share of an instance in this registration of it.
    #[must_use]
    pub fn share(&self, key: &Key, epoch: u64) -> u32 {
        match self.shares.get(key) {
            Some((of, share)) if *of == epoch => *share,
            _ => WHOLE,
        }
    }

    /// The places of each instance of an agent, where fewer than its card says.
    #[must_use]
    pub fn places(&self, agent: &str) -> Option<u32> {
        self.places.get(agent).copied()
    }

    /// Whether a place is left alone.
    #[must_use]
    pub fn is_held(&self, place: &Place) -> bool {
        self.held.contains(place)
    }

    /// How many shares are smaller and how many agents have fewer places than without any change.
    #[must_use]
    pub fn in_force(&self) -> (usize, usize) {
        (self.shares.len(), self.places.len())
    }

    /// The changes that are remembered, the oldest first.
    pub fn changes(&self) -> impl Iterator<Item = &Change> {
        self.changes.iter()
    }

    /// Puts down a change. `whole` is what the place has without any.
    pub fn change(&mut self, place: Place, step: Step, whole: u32, at: Timestamp) {
        self.set(&place, step.to, whole);
        self.last += 1;
        if self.changes.len() >= MOST_CHANGES {
            self.changes.pop_front();
        }
        self.changes.push_back(Change {
            number: self.last,
            at,
            place,
            step,
            is_reverted: false,
        });
    }

    fn set(&mut self, place: &Place, to: u32, whole: u32) {
        match place {
            Place::Share(key, _) if to >= whole => drop(self.shares.remove(key)),
            Place::Share(key, epoch) => drop(self.shares.insert(key.clone(), (*epoch, to))),
            Place::Places(agent) if to >= whole => drop(self.places.remove(agent)),
            Place::Places(agent) => drop(self.places.insert(agent.clone(), to)),
        }
    }

    /// Forgets what was changed about those who are gone.
    pub fn retain(&mut self, is_there: impl Fn(&Key, u64) -> bool, has_agent: impl Fn(&str) -> bool) {
        self.shares.retain(|key, (epoch, _)| is_there(key, *epoch));
        self.places.retain(|agent, _| has_agent(agent));
        self.held.retain(|place| match place {
            Place::Share(key, epoch) => is_there(key, *epoch),
            Place::Places(agent) => has_agent(agent),
        });
    }

    /// Whether there is such a change that was not taken back.
    #[must_use]
    pub fn has(&self, number: u64) -> bool {
        let mut changes = self.changes.iter();
        changes.any(|change| change.number == number && !change.is_reverted)
    }

    /// Takes a change back, and what came after it at the same place. `whole` says what a place has without any change. What was
    /// taken back, the newest first; nothing where there is no such change.
    pub fn revert(&mut self, number: u64, whole: impl Fn(&Place) -> u32) -> Vec<Change> {
        let found = self.changes.iter().find(|change| change.number == number);
        let Some(change) = found.filter(|change| !change.is_reverted).cloned() else {
            return Vec::new();
        };
        let mut reverted = Vec::new();
        for later in self.changes.iter_mut().rev() {
            if later.number >= number && later.place == change.place && !later.is_reverted {
                later.is_reverted = true;
                reverted.push(later.clone());
            }
        }
        self.set(&change.place, change.step.from, whole(&change.place));
        self.hold(change.place);
        reverted
    }

    /// Takes back all, also of what is remembered no more.
    pub fn revert_all(&mut self) -> Vec<Change> {
        let shares = std::mem::take(&mut self.shares);
        let places = std::mem::take(&mut self.places);
        for (key, (epoch, _)) in shares {
            self.hold(Place::Share(key, epoch));
        }
        for agent in places.into_keys() {
            self.hold(Place::Places(agent));
        }
        let mut reverted = Vec::new();
        for change in self.changes.iter_mut().rev() {
            if !std::mem::replace(&mut change.is_reverted, true) {
                reverted.push(change.clone());
            }
        }
        reverted
    }

    fn hold(&mut self, place: Place) {
        if self.held.len() < MOST_HELD {
            self.held.insert(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(instance: &str) -> Place {
        let key = Key {
            agent: "weather".to_owned(),
            instance: instance.to_owned(),
        };
        Place::Share(key, 7)
    }

    fn of(ledger: &Ledger, place: &Place) -> u32 {
        match place {
            Place::Share(key, epoch) => ledger.share(key, *epoch),
            Place::Places(agent) => ledger.places(agent).unwrap_or(16),
        }
    }

    fn step(ledger: &mut Ledger, place: &Place, to: u32) {
        let step = Step {
            from: of(ledger, place),
            to,
            evidence: "measured".to_owned(),
        };
        let whole = whole(place);
        ledger.change(place.clone(), step, whole, Timestamp::UNIX_EPOCH);
    }

    fn whole(place: &Place) -> u32 {
        match place {
            Place::Share(..) => WHOLE,
            Place::Places(_) => 16,
        }
    }

    #[test]
    fn who_takes_one_back_takes_back_what_came_after_it_there_and_the_place_is_left_alone() {
        let mut ledger = Ledger::default();
        let (one, other, agent) = (share("1"), share("2"), Place::Places("weather".to_owned()));
        for (place, to) in [(&one, 900), (&other, 900), (&one, 800), (&agent, 14), (&one, 700)] {
            step(&mut ledger, place, to);
        }
        assert_eq!(ledger.in_force(), (2, 1));
        let reverted: Vec<u64> = ledger
            .revert(3, whole)
            .iter()
            .map(|change| change.number)
            .collect();
        assert_eq!(reverted, [5, 3]);
        assert_eq!(
            (of(&ledger, &one), of(&ledger, &other), of(&ledger, &agent)),
            (900, 900, 14)
        );
        assert!(ledger.is_held(&one) && !ledger.is_held(&other));
        assert!(ledger.revert(3, whole).is_empty() && ledger.revert(99, whole).is_empty());
        assert_eq!((ledger.has(3), ledger.has(1)), (false, true));

        let all: Vec<u64> = ledger.revert_all().iter().map(|change| change.number).collect();
        assert_eq!(all, [4, 2, 1]);
        assert_eq!(ledger.in_force(), (0, 0));
        assert!(ledger.is_held(&other) && ledger.is_held(&agent));
    }

    #[test]
    fn a_registration_that_is_new_has_its_whole_share_and_what_is_gone_is_forgotten() {
        let mut ledger = Ledger::default();
        let place = share("1");
        step(&mut ledger, &place, 900);
        let Place::Share(key, _) = &place else {
            unreachable!()
        };
        assert_eq!((ledger.share(key, 7), ledger.share(key, 8)), (900, WHOLE));
        ledger.retain(|_, epoch| epoch == 8, |_| true);
        assert_eq!(ledger.in_force(), (0, 0));
        for number in 0..MOST_CHANGES as u64 * 2 {
            let to = if number % 2 == 0 { 800 } else { 900 };
            step(&mut ledger, &place, to);
        }
        assert_eq!(ledger.changes().count(), MOST_CHANGES);
    }
}
