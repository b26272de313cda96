//! The cards of live instances, each kept once, which of them have a skill, a tag or a word, and who has them.
//!
//! A search by what agents can do reads cards, of which there are as many as versions of agents, and never instances, of
//! which there are many more: each term has the set of the cards with it, and the sets of a search are intersected. Of the
//! instances with these cards the best are picked in the [`Columns`]. The catalogue holds exactly the cards of live instances:
//! it changes where instances come, report and go, in the lease table, and nowhere else. It has no expiry of its own, so a
//! heartbeat cannot renew an instance and forget its skills.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use muster_api::names::{self, Outline};
use roaring::RoaringBitmap;
use slab::Slab;

use crate::columns::{Columns, Picked, Place, Slot, Wanted};
use crate::discovery::Query;
use crate::instance::{Card, Instance, Report};
use crate::reach::Reach;

/// Instances are picked out one by one, from all over the columns, where that is less than this part of them; more are found
/// faster by reading the columns from the best block on.
const SCATTERED: usize = 32;

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

/// The cards of one namespace, and its instances.
#[derive(Debug, Default)]
struct Shelf {
    instances: Columns,
    /// Of each slot, where it is among those with the same card.
    positions: Vec<u32>,
    places: HashMap<Arc<Card>, Place>,
    cards: Slab<Held>,
    skills: BTreeMap<Arc<str>, Listed>,
    /// The names of the skills side by side, so that the nearest of thousands are found in a walk through memory.
    names: Slab<(Outline, Arc<str>)>,
    tags: BTreeMap<String, RoaringBitmap>,
    words: BTreeMap<String, RoaringBitmap>,
}

#[derive(Debug)]
struct Held {
    card: Arc<Card>,
    members: Vec<Slot>,
}

/// The cards that have a skill, and how many instances have them.
#[derive(Debug)]
struct Listed {
    /// Where it is among the names.
    name: usize,
    cards: RoaringBitmap,
    instances: u64,
}

/// What fits the terms of a search.
enum Matching {
    /// The search names none, which is no filter.
    Everybody,
    /// Those with these cards.
    With(RoaringBitmap),
}

impl Catalogue {
    /// The card as it is kept already, or as it was given.
    #[must_use]
    pub fn share(&self, namespace: &str, card: &Arc<Card>) -> Arc<Card> {
        let shelf = self.namespaces.get(namespace);
        let known = shelf.and_then(|shelf| shelf.places.get_key_value(card));
        Arc::clone(known.map_or(card, |(known, _)| known))
    }

    /// The name of a namespace as it is kept already.
    #[must_use]
    pub fn namespace(&self, name: &str) -> Option<&Arc<str>> {
        self.namespaces.get_key_value(name).map(|(known, _)| known)
    }

    /// Adds an instance; says its slot.
    pub fn insert(&mut self, instance: &Instance) -> Slot {
        let namespace = Arc::clone(&instance.key().namespace);
        self.namespaces.entry(namespace).or_default().insert(instance)
    }

    /// Removes an instance; a card that nobody has any more is forgotten.
    pub fn remove(&mut self, namespace: &str, slot: Slot) {
        let Some(shelf) = self.namespaces.get_mut(namespace) else {
            return;
        };
        shelf.remove(slot);
        if shelf.cards.is_empty() {
            self.namespaces.remove(namespace);
        }
    }

    /// An instance says something else of itself.
    pub fn report(&mut self, namespace: &str, slot: Slot, report: &Report) {
        if let Some(shelf) = self.namespaces.get_mut(namespace) {
            shelf.instances.report(slot, report);
        }
    }

    /// The best instances for a question: one more than is asked for, where there are more.
    #[must_use]
    pub fn best(&self, query: &Query) -> Picked<'_> {
        let shelf = self.namespaces.get(&query.namespace);
        shelf.map_or(Picked::NONE, |shelf| shelf.best(query))
    }

    /// Whether a live instance of the namespace has the skill that there is for whoever asks.
    #[must_use]
    pub fn knows(&self, namespace: &str, skill: &str, reach: &Reach) -> bool {
        let shelf = self.namespaces.get(namespace);
        shelf.is_some_and(|shelf| match reach {
            Reach::All => shelf.skills.contains_key(skill),
            Reach::Granted(_) => shelf.within(reach).contains_key(skill),
        })
    }

    /// For each wanted skill that nobody has, the nearest that somebody has, without repetition, as far as there is anybody for whoever
    /// asks.
    #[must_use]
    pub fn nearest(&self, namespace: &str, wanted: &BTreeSet<String>, reach: &Reach) -> Vec<String> {
        let Some(shelf) = self.namespaces.get(namespace) else {
            return Vec::new();
        };
        if !reach.is_all() {
            return nearest_within(&shelf.within(reach), wanted);
        }
        let missing = wanted
            .iter()
            .filter(|skill| !shelf.skills.contains_key(skill.as_str()));
        let known = || shelf.names.iter().map(|(_, (outline, name))| (*outline, &**name));
        let mut nearest: Vec<String> = Vec::new();
        for name in missing.flat_map(|skill| names::nearest_outlined(skill, known())) {
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
                skills.map(move |(skill, listed)| (name, &**skill, listed.instances))
            })
    }

    /// The same of the live instances that there are for whoever asks.
    pub fn skills_within<'a>(
        &'a self,
        namespace: Option<&'a str>,
        reach: &'a Reach,
    ) -> impl Iterator<Item = (&'a Arc<str>, &'a str, u64)> {
        let shelves = self.namespaces.iter();
        shelves
            .filter(move |(name, _)| namespace.is_none_or(|wanted| wanted == &***name))
            .flat_map(move |(name, shelf)| {
                let skills = shelf.within(reach).into_iter();
                skills.map(move |(skill, instances)| (name, skill, instances))
            })
    }
}

impl Shelf {
    fn having(&self, term: &Term) -> Option<&RoaringBitmap> {
        match term {
            Term::Skill(skill) => self.skills.get(skill.as_str()).map(|listed| &listed.cards),
            Term::Tag(tag) => self.tags.get(tag),
            Term::Word(word) => self.words.get(word),
        }
    }

    /// What has all these terms; `None` where no card has one of them.
    fn matching(&self, terms: &[Term]) -> Option<Matching> {
        let sets: Option<Vec<&RoaringBitmap>> = terms.iter().map(|term| self.having(term)).collect();
        let mut sets = sets?;
        sets.sort_by_key(|set| set.len());
        let Some((rarest, others)) = sets.split_first() else {
            return Some(Matching::Everybody);
        };
        let mut cards = (*rarest).clone();
        for other in others {
            cards &= *other;
        }
        Some(Matching::With(cards))
    }

    fn best(&self, query: &Query) -> Picked<'_> {
        let cards = match self.matching(&query.terms()) {
            None => return Picked::NONE,
            Some(Matching::Everybody) => return self.instances.best(query, None),
            Some(Matching::With(cards)) => cards,
        };
        if cards.len() == self.cards.len() as u64 {
            return self.instances.best(query, None);
        }
        match self.few(&cards) {
            Some(slots) => self.instances.best_of(query, slots),
            None => self
                .instances
                .best(query, Some(&cards.iter().collect::<Wanted>())),
        }
    }

    /// The skills of the instances that there are for whoever asks, with how many have each.
    fn within(&self, reach: &Reach) -> BTreeMap<&str, u64> {
        let mut skills = BTreeMap::new();
        for (_, held) in &self.cards {
            let members = held.members.iter();
            let seen = members.filter(|slot| {
                let profile = self.instances.profile(**slot);
                profile.is_some_and(|profile| reach.sees_instance(&profile.key))
            });
            let seen = seen.count() as u64;
            if seen > 0 {
                for skill in held.card.skills() {
                    *skills.entry(skill.as_str()).or_default() += seen;
                }
            }
        }
        skills
    }

    /// The instances with these cards, unless they are so many that they are not picked out one by one.
    fn few(&self, cards: &RoaringBitmap) -> Option<Vec<Slot>> {
        let most = self.instances.count() / SCATTERED;
        let mut slots = Vec::new();
        for held in cards.iter().filter_map(|place| self.cards.get(place as usize)) {
            if slots.len() + held.members.len() > most.max(SCATTERED) {
                return None;
            }
            slots.extend_from_slice(&held.members);
        }
        Some(slots)
    }

    fn insert(&mut self, instance: &Instance) -> Slot {
        let card = &instance.profile.card;
        let place = match self.places.get(card) {
            Some(place) => *place,
            None => self.put(card),
        };
        let slot = self.instances.insert(instance, place);
        if let Some(held) = self.cards.get_mut(place as usize) {
            if self.positions.len() <= slot as usize {
                self.positions.resize(slot as usize + 1, 0);
            }
            self.positions[slot as usize] = count(held.members.len());
            held.members.push(slot);
        }
        for skill in card.skills() {
            if let Some(listed) = self.skills.get_mut(skill.as_str()) {
                listed.instances += 1;
            }
        }
        slot
    }

    fn remove(&mut self, slot: Slot) {
        let place = self.instances.remove(slot);
        let Some(held) = self.cards.get_mut(place as usize) else {
            return;
        };
        let position = self.positions[slot as usize] as usize;
        held.members.swap_remove(position);
        if let Some(moved) = held.members.get(position) {
            self.positions[*moved as usize] = count(position);
        }
        for skill in held.card.skills() {
            if let Some(listed) = self.skills.get_mut(skill.as_str()) {
                listed.instances -= 1;
            }
        }
        if held.members.is_empty() {
            self.drop(place);
        }
    }

    fn put(&mut self, card: &Arc<Card>) -> Place {
        let place = count(self.cards.insert(Held {
            card: Arc::clone(card),
            members: Vec::new(),
        }));
        self.places.insert(Arc::clone(card), place);
        for skill in card.skills() {
            if let Some(listed) = self.skills.get_mut(skill.as_str()) {
                listed.cards.insert(place);
                continue;
            }
            let name: Arc<str> = skill.as_str().into();
            let listed = Listed {
                name: self.names.insert((Outline::of(skill), Arc::clone(&name))),
                cards: std::iter::once(place).collect(),
                instances: 0,
            };
            self.skills.insert(name, listed);
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
        let Some(held) = self.cards.try_remove(place as usize) else {
            return;
        };
        self.places.remove(&held.card);
        for skill in held.card.skills() {
            if let Some(listed) = self.skills.get_mut(skill.as_str()) {
                listed.cards.remove(place);
                if listed.cards.is_empty() {
                    self.names.remove(listed.name);
                    self.skills.remove(skill.as_str());
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

/// See [`Catalogue::nearest`].
fn nearest_within(known: &BTreeMap<&str, u64>, wanted: &BTreeSet<String>) -> Vec<String> {
    let missing = wanted.iter().filter(|skill| !known.contains_key(skill.as_str()));
    let mut nearest: Vec<String> = Vec::new();
    for name in missing.flat_map(|skill| names::nearest(skill, known.keys().copied())) {
        if !nearest.iter().any(|known| known == name) {
            nearest.push(name.to_owned());
        }
    }
    nearest
}

fn strike(index: &mut BTreeMap<String, RoaringBitmap>, term: &str, place: Place) {
    if let Some(cards) = index.get_mut(term) {
        cards.remove(place);
        if cards.is_empty() {
            index.remove(term);
        }
    }
}

/// Cards and instances of a namespace are counted with 32 bits: more would not fit into memory.
fn count(count: usize) -> u32 {
    u32::try_from(count).expect("fewer than four thousand million")
}
