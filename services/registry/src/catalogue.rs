//! The cards of live instances, each kept once, and which of them have a skill, a tag or a word.
//!
//! A search by what agents can do reads cards, of which there are as many as versions of agents, and never instances, of
//! which there are many more. The catalogue holds exactly the cards of live instances: it changes where instances come and
//! go, in the lease table, and nowhere else. It has no expiry of its own, so a heartbeat cannot renew an instance and forget
//! its skills.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use muster_api::names;

use crate::instance::{Card, Key, Profile};

/// Which card of a namespace.
pub type Place = u32;

/// What a card is found by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Term {
    /// A skill's id.
    Skill(String),
    /// A tag of a skill, in lower case.
    Tag(String),
    /// A word of a name or a description, in lower case.
    Word(String),
}

/// See the module.
#[derive(Debug, Default)]
pub struct Catalogue {
    namespaces: BTreeMap<Arc<str>, Shelf>,
}

/// The cards of one namespace.
#[derive(Debug, Default)]
struct Shelf {
    places: HashMap<Arc<Card>, Place>,
    cards: BTreeMap<Place, Held>,
    next: Place,
    skills: BTreeMap<String, Listed>,
    tags: BTreeMap<String, BTreeSet<Place>>,
    words: BTreeMap<String, BTreeSet<Place>>,
}

#[derive(Debug)]
struct Held {
    card: Arc<Card>,
    members: BTreeSet<Key>,
}

/// The cards that have a skill, and how many instances have them.
#[derive(Debug, Default)]
struct Listed {
    cards: BTreeSet<Place>,
    instances: u64,
}

/// What fits the words of a search.
pub enum Matching<'a> {
    /// The search names none, which is no filter.
    Everybody,
    /// Nobody has all.
    Nobody,
    /// Those on some cards.
    Some(Selection<'a>),
}

/// The cards that have all terms of a search.
pub struct Selection<'a> {
    shelf: &'a Shelf,
    /// The term that the fewest cards have.
    pub rarest: Term,
    /// For each term the cards that have it, the fewest first.
    sets: Vec<&'a BTreeSet<Place>>,
}

impl Selection<'_> {
    /// Whether the instances on a card fit.
    #[must_use]
    pub fn contains(&self, place: Place) -> bool {
        self.sets.iter().all(|set| set.contains(&place))
    }

    /// The instances that fit, by card.
    pub fn keys(&self) -> impl Iterator<Item = &Key> {
        let (rarest, others) = self
            .sets
            .split_first()
            .map_or((None, &[][..]), |(first, rest)| (Some(first), rest));
        let places = rarest.into_iter().flat_map(|set| set.iter());
        places
            .filter(move |place| others.iter().all(|set| set.contains(place)))
            .filter_map(|place| self.shelf.cards.get(place))
            .flat_map(|held| &held.members)
    }
}

impl Catalogue {
    /// The card as it is kept already, or as it was given.
    #[must_use]
    pub fn share(&self, namespace: &str, card: &Arc<Card>) -> Arc<Card> {
        let shelf = self.namespaces.get(namespace);
        let known = shelf.and_then(|shelf| shelf.places.get_key_value(card));
        Arc::clone(known.map_or(card, |(known, _)| known))
    }

    /// Adds an instance under its card; says which card that is.
    pub fn insert(&mut self, profile: &Profile) -> Place {
        let namespace = Arc::clone(&profile.key.namespace);
        let shelf = self.namespaces.entry(namespace).or_default();
        let place = match shelf.places.get(&profile.card) {
            Some(place) => *place,
            None => shelf.put(&profile.card),
        };
        if let Some(held) = shelf.cards.get_mut(&place) {
            held.members.insert(profile.key.clone());
        }
        for skill in profile.card.skills() {
            if let Some(listed) = shelf.skills.get_mut(skill) {
                listed.instances += 1;
            }
        }
        place
    }

    /// Removes an instance; a card that nobody has any more is forgotten.
    pub fn remove(&mut self, profile: &Profile, place: Place) {
        let Some(shelf) = self.namespaces.get_mut(&profile.key.namespace) else {
            return;
        };
        for skill in profile.card.skills() {
            if let Some(listed) = shelf.skills.get_mut(skill) {
                listed.instances -= 1;
            }
        }
        if let Some(held) = shelf.cards.get_mut(&place) {
            held.members.remove(&profile.key);
            if held.members.is_empty() {
                shelf.drop(place);
            }
        }
        if shelf.cards.is_empty() {
            self.namespaces.remove(&profile.key.namespace);
        }
    }

    /// What has all these terms.
    #[must_use]
    pub fn matching(&self, namespace: &str, terms: &[Term]) -> Matching<'_> {
        if terms.is_empty() {
            return Matching::Everybody;
        }
        let Some(shelf) = self.namespaces.get(namespace) else {
            return Matching::Nobody;
        };
        let sets: Option<Vec<_>> = terms
            .iter()
            .map(|term| Some((shelf.having(term)?, term)))
            .collect();
        let Some(mut sets) = sets else {
            return Matching::Nobody;
        };
        sets.sort_by_key(|(set, _)| set.len());
        let Some((_, rarest)) = sets.first() else {
            return Matching::Nobody;
        };
        Matching::Some(Selection {
            shelf,
            rarest: (*rarest).clone(),
            sets: sets.iter().map(|(set, _)| *set).collect(),
        })
    }

    /// Whether a card of the namespace has the term.
    #[must_use]
    pub fn has(&self, namespace: &str, place: Place, term: &Term) -> bool {
        let shelf = self.namespaces.get(namespace);
        shelf
            .and_then(|shelf| shelf.having(term))
            .is_some_and(|cards| cards.contains(&place))
    }

    /// Whether a live instance of the namespace has the skill.
    #[must_use]
    pub fn knows(&self, namespace: &str, skill: &str) -> bool {
        let shelf = self.namespaces.get(namespace);
        shelf.is_some_and(|shelf| shelf.skills.contains_key(skill))
    }

    /// For each wanted skill that nobody has, the nearest that somebody has, without repetition.
    #[must_use]
    pub fn nearest(&self, namespace: &str, wanted: &BTreeSet<String>) -> Vec<String> {
        let Some(shelf) = self.namespaces.get(namespace) else {
            return Vec::new();
        };
        let missing = wanted.iter().filter(|skill| !shelf.skills.contains_key(*skill));
        let mut nearest: Vec<String> = Vec::new();
        for name in missing.flat_map(|skill| names::nearest(skill, shelf.skills.keys().map(String::as_str))) {
            if !nearest.iter().any(|known| known == name) {
                nearest.push(name.to_owned());
            }
        }
        nearest
    }

    /// Every skill of one namespace, or of all, with the number of live instances that have it.
    pub fn skills<'a>(
        &'a self,
        namespace: Option<&'a str>,
    ) -> impl Iterator<Item = (&'a Arc<str>, &'a str, u64)> {
        let shelves = self.namespaces.iter();
        shelves
            .filter(move |(name, _)| namespace.is_none_or(|wanted| wanted == &***name))
            .flat_map(|(name, shelf)| {
                let skills = shelf.skills.iter();
                skills.map(move |(skill, listed)| (name, skill.as_str(), listed.instances))
            })
    }
}

impl Shelf {
    fn having(&self, term: &Term) -> Option<&BTreeSet<Place>> {
        match term {
            Term::Skill(skill) => self.skills.get(skill).map(|listed| &listed.cards),
            Term::Tag(tag) => self.tags.get(tag),
            Term::Word(word) => self.words.get(word),
        }
    }

    fn put(&mut self, card: &Arc<Card>) -> Place {
        // Wraps after four thousand million versions, past those that are still there.
        while self.cards.contains_key(&self.next) {
            self.next = self.next.wrapping_add(1);
        }
        let place = self.next;
        self.next = self.next.wrapping_add(1);
        self.places.insert(Arc::clone(card), place);
        let held = Held {
            card: Arc::clone(card),
            members: BTreeSet::new(),
        };
        self.cards.insert(place, held);
        for skill in card.skills() {
            self.skills.entry(skill.clone()).or_default().cards.insert(place);
        }
        for tag in card.tags() {
            self.tags.entry(tag.clone()).or_default().insert(place);
        }
        for word in card.words() {
            self.words.entry(word).or_default().insert(place);
        }
        place
    }

    fn drop(&mut self, place: Place) {
        let Some(held) = self.cards.remove(&place) else {
            return;
        };
        self.places.remove(&held.card);
        for skill in held.card.skills() {
            if let Some(listed) = self.skills.get_mut(skill) {
                listed.cards.remove(&place);
                if listed.cards.is_empty() {
                    self.skills.remove(skill);
                }
            }
        }
        for tag in held.card.tags() {
            strike(&mut self.tags, tag, place);
        }
        for word in held.card.words() {
            strike(&mut self.words, &word, place);
        }
    }
}

fn strike(index: &mut BTreeMap<String, BTreeSet<Place>>, term: &str, place: Place) {
    if let Some(cards) = index.get_mut(term) {
        cards.remove(&place);
        if cards.is_empty() {
            index.remove(term);
        }
    }
}
