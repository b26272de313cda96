//! The table itself; its rules are the parent module's.

mod follow;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use muster_api::names;
use uuid::Uuid;

use super::{
    Agent, Census, Change, Departure, Error, Event, Grant, Moment, Renewal, Statistics, Terms, Wanted,
};
use crate::catalogue::Catalogue;
use crate::columns::Slot;
use crate::discovery::{self, Found, Query};
use crate::instance::{Card, Instance, Key, Profile, Report, Status};
use crate::offline::Offline;
use crate::reach::Reach;
use crate::tally::{Counts, Tally};

pub use follow::Told;

/// Most namespaces in the statistics.
const MOST_NAMESPACES: usize = 100;

/// The lease table.
#[derive(Debug)]
pub struct Table {
    terms: Terms,
    entries: BTreeMap<Key, Entry>,
    leases: HashMap<Uuid, Arc<Profile>>,
    deadlines: BTreeSet<(Duration, Uuid)>,
    per_node: HashMap<String, usize>,
    catalogue: Catalogue,
    tally: Tally,
    offline: Offline,
    revision: u64,
    expired: u64,
    events: Vec<Event>,
}

#[derive(Debug)]
struct Entry {
    instance: Instance,
    /// Where it is in the catalogue.
    slot: Slot,
    lease: Uuid,
    deadline: Duration,
    drain_requested: bool,
}

impl Table {
    /// An empty table whose next change has the revision after `revision`.
    #[must_use]
    pub fn new(terms: Terms, revision: u64) -> Self {
        Self {
            terms,
            entries: BTreeMap::new(),
            leases: HashMap::new(),
            deadlines: BTreeSet::new(),
            per_node: HashMap::new(),
            catalogue: Catalogue::default(),
            tally: Tally::default(),
            offline: Offline::new(terms.offline),
            revision,
            expired: 0,
            events: Vec::new(),
        }
    }

    /// Adds an instance, or replaces the one with the same key, whose lease ends silently. A drain that was asked
    /// for survives the replacement: the operator meant the instance, not its lease.
    pub fn register(
        &mut self,
        now: Moment,
        lease: Uuid,
        mut profile: Arc<Profile>,
        report: Report,
    ) -> Result<Grant, Error> {
        self.expire(now);
        let replaced = self.entries.get(&profile.key);
        let replaced_node = replaced.and_then(|entry| entry.instance.profile.node.as_deref());
        if replaced.is_none() && self.entries.len() >= self.terms.max_instances {
            return Err(Error::TableFull {
                limit: self.terms.max_instances,
            });
        }
        if let Some(node) = profile.node.as_deref().filter(|node| replaced_node != Some(node))
            && self
                .per_node
                .get(node)
                .is_some_and(|&count| count >= self.terms.max_per_node)
        {
            return Err(Error::NodeFull {
                node: node.to_owned(),
                limit: self.terms.max_per_node,
            });
        }
        self.share(&mut profile);
        let drain_requested = self.take(&profile.key).is_some_and(|entry| entry.drain_requested);
        self.offline.remove(&profile.key);
        let instance = Instance {
            report: in_effect(report, drain_requested),
            registered_at: now.wall,
            last_heartbeat_at: now.wall,
            epoch: self.revision + 1,
            profile,
        };
        let slot = self.catalogue.insert(&instance);
        self.insert(Entry {
            instance: instance.clone(),
            slot,
            lease,
            deadline: now.monotonic + self.terms.time_to_live,
            drain_requested,
        });
        self.publish(Change::Upserted(instance.clone()));
        Ok(Grant { lease, instance })
    }

    /// Renews a lease and takes the report.
    pub fn renew(&mut self, now: Moment, lease: Uuid, report: Report) -> Result<Renewal, Error> {
        self.expire(now);
        let profile = self.leases.get(&lease);
        let entry = profile.and_then(|profile| self.entries.get_mut(&profile.key));
        let entry = entry.ok_or(Error::LeaseNotFound { lease })?;
        self.deadlines.remove(&(entry.deadline, lease));
        entry.deadline = now.monotonic + self.terms.time_to_live;
        self.deadlines.insert((entry.deadline, lease));
        let report = in_effect(report, entry.drain_requested);
        entry.instance.last_heartbeat_at = now.wall;
        let renewal = Renewal {
            epoch: entry.instance.epoch,
            drain_requested: entry.drain_requested,
        };
        // Most say what they said before.
        if entry.instance.report != report {
            let (before, slot) = (entry.instance.clone(), entry.slot);
            entry.instance.report = report;
            let after = entry.instance.clone();
            self.reported(&before, after, slot);
        }
        Ok(renewal)
    }

    /// Ends a lease; one that is gone already is no error.
    pub fn end(&mut self, now: Moment, lease: Uuid) {
        self.expire(now);
        if let Some(key) = self.held_by(lease)
            && self.take(&key).is_some()
        {
            self.publish(Change::Removed(key, Departure::Deregistered));
        }
    }

    /// Takes an agent's instances, or one of them, out of the choice; says how many drain now.
    pub fn drain(
        &mut self,
        now: Moment,
        namespace: &Arc<str>,
        agent_id: &Arc<str>,
        instance_id: Option<Uuid>,
    ) -> Result<u32, Error> {
        let agent = self.agent(now, namespace, agent_id, &Reach::All)?;
        let mut draining = 0;
        for key in agent.instances.iter().map(Instance::key) {
            let Some(entry) = self.entries.get_mut(key) else {
                continue;
            };
            if instance_id.is_some_and(|wanted| wanted != key.instance_id) {
                continue;
            }
            draining += 1;
            entry.drain_requested = true;
            let (before, slot) = (entry.instance.clone(), entry.slot);
            entry.instance.report = in_effect(before.report, true);
            let after = entry.instance.clone();
            self.reported(&before, after, slot);
        }
        match instance_id {
            Some(instance_id) if draining == 0 => Err(Error::InstanceNotFound {
                key: Key {
                    namespace: Arc::clone(namespace),
                    agent_id: Arc::clone(agent_id),
                    instance_id,
                },
            }),
            _ => Ok(draining),
        }
    }

    /// Ends the leases that are due; says how long until the next is.
    pub fn expire(&mut self, now: Moment) -> Option<Duration> {
        while let Some(&(deadline, lease)) = self.deadlines.first()
            && deadline <= now.monotonic
        {
            self.deadlines.remove(&(deadline, lease));
            if let Some(key) = self.held_by(lease)
                && let Some(entry) = self.take(&key)
            {
                self.expired += 1;
                self.offline.add(deadline, entry.instance);
                self.publish(Change::Removed(key, Departure::Expired));
            }
        }
        self.offline.expire(now.monotonic);
        let next = self.deadlines.first();
        next.map(|(deadline, _)| deadline.saturating_sub(now.monotonic))
    }

    /// Finds instances.
    pub fn discover(&mut self, now: Moment, query: &Query) -> Found {
        self.expire(now);
        let mut instances = self.live(query);
        if query.statuses.contains(&Status::Offline) {
            let offline = self.offline.namespace(&query.namespace, None);
            // Instances of one agent stand beside each other, and mostly have the same card.
            let mut last: Option<(&Arc<Card>, bool)> = None;
            let wanted = offline.filter(move |instance| {
                let card = &instance.profile.card;
                let known = last.filter(|(seen, _)| Arc::ptr_eq(seen, card));
                let (_, wanted) = *last.insert(known.unwrap_or_else(|| (card, query.wants(card))));
                wanted
            });
            instances = discovery::select(instances.iter().chain(wanted), query);
        }
        let more = instances.len() > query.limit;
        instances.truncate(query.limit);
        let nearest_skills = if instances.is_empty() {
            self.catalogue
                .nearest(&query.namespace, &query.skills, &query.reach)
        } else {
            Vec::new()
        };
        Found {
            instances,
            more,
            nearest_skills,
        }
    }

    /// The best live instances: one more than is asked for, where there are more.
    fn live(&self, query: &Query) -> Vec<Instance> {
        let namespace = &query.namespace;
        let counts = self.tally.namespace(namespace);
        let nobody = query.statuses.iter().all(|status| counts.of(*status) == 0);
        let elsewhere = |region: &String| self.tally.in_region(namespace, region) == 0;
        if nobody || query.region.as_ref().is_some_and(elsewhere) {
            return Vec::new();
        }
        let best = self.catalogue.best(query).profiles.into_iter();
        best.filter_map(|profile| self.entries.get(&profile.key))
            .map(|entry| entry.instance.clone())
            .collect()
    }

    /// Whether a live instance has the skill that there is for whoever asks.
    #[must_use]
    pub fn knows_skill(&self, namespace: &str, skill: &str, reach: &Reach) -> bool {
        self.catalogue.knows(namespace, skill, reach)
    }

    /// Whose instance has a lease.
    #[must_use]
    pub fn holder(&self, lease: Uuid) -> Option<Key> {
        self.held_by(lease)
    }

    /// One agent with its instances.
    pub fn agent(
        &mut self,
        now: Moment,
        namespace: &Arc<str>,
        agent_id: &Arc<str>,
        reach: &Reach,
    ) -> Result<Agent, Error> {
        self.expire(now);
        let first = Key {
            namespace: Arc::clone(namespace),
            agent_id: Arc::clone(agent_id),
            instance_id: Uuid::nil(),
        };
        let seen = self.of_agent(&first).filter(|_| reach.sees_instance(&first));
        let instances: Vec<Instance> = seen.cloned().collect();
        if instances.is_empty() {
            let known = self
                .namespace(namespace, None)
                .map(Instance::key)
                .filter(|key| reach.sees_instance(key))
                .map(|key| &key.agent_id);
            // Instances of one agent stand beside each other and share its id.
            let mut last: Option<&Arc<str>> = None;
            let known = known.filter(|id| !last.replace(id).is_some_and(|last| Arc::ptr_eq(last, id)));
            return Err(Error::AgentNotFound {
                nearest: names::nearest(agent_id, known.map(|id| &**id))
                    .into_iter()
                    .map(str::to_owned)
                    .collect(),
                namespace: Arc::clone(namespace),
                agent_id: Arc::clone(agent_id),
            });
        }
        Ok(Agent {
            namespace: Arc::clone(namespace),
            agent_id: Arc::clone(agent_id),
            instances,
        })
    }

    /// Agents by id, after a given one, at most `limit`, with their instances that are wanted; and whether there are more.
    pub fn agents(
        &mut self,
        now: Moment,
        namespace: &Arc<str>,
        after: Option<&str>,
        limit: usize,
        wanted: &Wanted,
    ) -> (Vec<Agent>, bool) {
        self.expire(now);
        let live = self.namespace(namespace, after);
        let mut live = live.filter(|instance| wanted.takes(instance)).peekable();
        let listed = wanted.takes_offline();
        let offline = listed.then(|| self.offline.namespace(namespace, after));
        let offline = offline.into_iter().flatten();
        let mut offline = offline.filter(|instance| wanted.takes(instance)).peekable();
        let by_key = std::iter::from_fn(|| match (live.peek(), offline.peek()) {
            (Some(live), Some(gone)) if gone.key() < live.key() => offline.next(),
            (Some(_), _) => live.next(),
            (None, _) => offline.next(),
        });
        let mut agents: Vec<Agent> = Vec::new();
        for instance in by_key {
            if let Some(agent) = agents.last_mut()
                && agent.agent_id == instance.key().agent_id
            {
                agent.instances.push(instance.clone());
                continue;
            }
            if agents.len() == limit {
                return (agents, true);
            }
            agents.push(Agent {
                namespace: Arc::clone(namespace),
                agent_id: Arc::clone(&instance.key().agent_id),
                instances: vec![instance.clone()],
            });
        }
        (agents, false)
    }

    /// All live instances, and the revision at which they are so.
    pub fn snapshot(&mut self, now: Moment) -> (u64, Vec<Instance>) {
        self.expire(now);
        let instances = self
            .entries
            .values()
            .map(|entry| entry.instance.clone())
            .collect();
        (self.revision, instances)
    }

    /// The revision of the last change.
    #[must_use]
    pub const fn revision(&self) -> u64 {
        self.revision
    }

    /// Live instances of a namespace, or of all. Those of a table that decides may have ended since it was told the time.
    #[must_use]
    pub fn counts(&self, namespace: Option<&str>) -> Counts {
        namespace.map_or_else(|| self.tally.total(), |name| self.tally.namespace(name))
    }

    /// The same of those that there are for whoever asks.
    #[must_use]
    pub fn counts_within(&self, namespace: Option<&str>, reach: &Reach) -> Counts {
        if reach.is_all() {
            return self.counts(namespace);
        }
        let tally = self.tally_within(namespace, reach);
        namespace.map_or_else(|| tally.total(), |name| tally.namespace(name))
    }

    /// Counts those that there are for whoever asks, of a namespace or of all.
    fn tally_within(&self, namespace: Option<&str>, reach: &Reach) -> Tally {
        let mut tally = Tally::default();
        let mut last: Option<&Key> = None;
        for (key, entry) in &self.entries {
            if namespace.is_some_and(|wanted| *wanted != *key.namespace) || !reach.sees_instance(key) {
                continue;
            }
            // Instances of one agent stand beside each other.
            let is_first = last
                .replace(key)
                .is_none_or(|last| (&last.namespace, &last.agent_id) != (&key.namespace, &key.agent_id));
            tally.add(&entry.instance, is_first);
        }
        tally
    }

    /// Counts.
    pub fn census(&mut self, now: Moment) -> Census {
        self.expire(now);
        let total = self.tally.total();
        let count = |status| match status {
            Status::Offline => self.offline.count(None),
            live => total.of(live),
        };
        Census {
            by_status: Status::ALL.map(|status| (status, count(status))).into(),
            expired: self.expired,
        }
    }

    /// What there is for whoever asks in a namespace, or in all, with at most so many skills. Costs what namespaces and skills
    /// there are, and nothing for instances, where that is everything; else one walk through the instances.
    pub fn statistics(
        &mut self,
        now: Moment,
        namespace: Option<&str>,
        most_skills: usize,
        reach: &Reach,
    ) -> Statistics {
        self.expire(now);
        let within;
        let tally = if reach.is_all() {
            &self.tally
        } else {
            within = self.tally_within(namespace, reach);
            &within
        };
        let total = namespace.map_or_else(|| tally.total(), |name| tally.namespace(name));
        let wanted = |name: &str| namespace.is_none_or(|wanted| wanted == name);
        let offline = |name: Option<&str>| self.offline.count_within(name, reach);
        let mut namespaces: Vec<_> = tally
            .namespaces()
            .filter(|(name, _)| wanted(name))
            .map(|(name, counts)| (Arc::clone(name), counts, offline(Some(name))))
            .collect();
        let mut skills: Vec<_> = if reach.is_all() {
            self.catalogue.skills(namespace).collect()
        } else {
            self.catalogue.skills_within(namespace, reach).collect()
        };
        let (namespaces_total, skills_total) = (namespaces.len(), skills.len());
        keep_most(&mut namespaces, MOST_NAMESPACES, |(name, counts, _)| {
            (Reverse(counts.live()), Arc::clone(name))
        });
        keep_most(&mut skills, most_skills, |(name, skill, count)| {
            (Reverse(*count), *name, *skill)
        });
        Statistics {
            total,
            offline: offline(namespace),
            namespaces,
            namespaces_total,
            skills: skills
                .into_iter()
                .map(|(name, skill, count)| (Arc::clone(name), skill.to_owned(), count))
                .collect(),
            skills_total,
            // Nobody knows any more whose those were.
            expired: if reach.is_all() { self.expired } else { 0 },
            revision: self.revision,
        }
    }

    /// The changes since the last call, in order.
    pub fn take_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// A namespace's instances by key, after those of an agent.
    fn namespace<'a>(
        &'a self,
        namespace: &'a Arc<str>,
        after: Option<&str>,
    ) -> impl Iterator<Item = &'a Instance> {
        in_namespace(&self.entries, namespace, after).map(|entry| &entry.instance)
    }

    /// The live instances of a key's agent.
    fn of_agent<'a>(&'a self, key: &'a Key) -> impl Iterator<Item = &'a Instance> {
        let first = Key {
            instance_id: Uuid::nil(),
            ..key.clone()
        };
        let instances = self.entries.range(first..).map(|(_, entry)| &entry.instance);
        instances.take_while(|instance| {
            instance.key().namespace == key.namespace && instance.key().agent_id == key.agent_id
        })
    }

    /// Whether an agent has a live instance.
    fn lives(&self, key: &Key) -> bool {
        self.of_agent(key).next().is_some()
    }

    fn held_by(&self, lease: Uuid) -> Option<Key> {
        self.leases.get(&lease).map(|profile| profile.key.clone())
    }

    /// Lets an instance that comes share its card and its names with those that have the same.
    fn share(&self, profile: &mut Arc<Profile>) {
        let card = self.catalogue.share(&profile.key.namespace, &profile.card);
        let sibling = self.of_agent(&profile.key).next();
        let agent_id = sibling.map_or(&profile.key.agent_id, |sibling| &sibling.key().agent_id);
        let namespace = self.catalogue.namespace(&profile.key.namespace);
        let namespace = namespace.unwrap_or(&profile.key.namespace);
        let is_shared = Arc::ptr_eq(&card, &profile.card)
            && Arc::ptr_eq(agent_id, &profile.key.agent_id)
            && Arc::ptr_eq(namespace, &profile.key.namespace);
        if !is_shared {
            let (agent_id, namespace) = (Arc::clone(agent_id), Arc::clone(namespace));
            let profile = Arc::make_mut(profile);
            profile.card = card;
            profile.key.agent_id = agent_id;
            profile.key.namespace = namespace;
        }
    }

    fn insert(&mut self, entry: Entry) {
        let (profile, instance) = (&entry.instance.profile, &entry.instance);
        self.tally.add(instance, !self.lives(&profile.key));
        if let Some(node) = &profile.node {
            *self.per_node.entry(node.clone()).or_default() += 1;
        }
        self.deadlines.insert((entry.deadline, entry.lease));
        self.leases.insert(entry.lease, Arc::clone(profile));
        self.entries.insert(profile.key.clone(), entry);
    }

    fn take(&mut self, key: &Key) -> Option<Entry> {
        let entry = self.entries.remove(key)?;
        self.leases.remove(&entry.lease);
        self.deadlines.remove(&(entry.deadline, entry.lease));
        let instance = &entry.instance;
        self.tally.remove(instance, !self.lives(key));
        self.catalogue.remove(&key.namespace, entry.slot);
        if let Some(node) = &instance.profile.node
            && let Some(count) = self.per_node.get_mut(node)
        {
            *count -= 1;
            if *count == 0 {
                self.per_node.remove(node);
            }
        }
        Some(entry)
    }

    /// What an instance says of itself has been taken over; where it is the same as before, nobody hears of it.
    fn reported(&mut self, before: &Instance, after: Instance, slot: Slot) {
        if before.report == after.report {
            return;
        }
        self.count_report(before, &after, slot);
        self.publish(Change::Reported(after));
    }

    /// Tally and catalogue follow what an instance says of itself.
    fn count_report(&mut self, before: &Instance, after: &Instance, slot: Slot) {
        self.tally.change(before, after);
        self.catalogue.report(&after.key().namespace, slot, &after.report);
    }

    fn publish(&mut self, change: Change) {
        self.revision += 1;
        self.events.push(Event {
            revision: self.revision,
            change,
        });
    }
}

/// A namespace's entries by key, after those of an agent.
fn in_namespace<'a>(
    entries: &'a BTreeMap<Key, Entry>,
    namespace: &'a Arc<str>,
    after: Option<&str>,
) -> impl Iterator<Item = &'a Entry> {
    let start = Key {
        namespace: Arc::clone(namespace),
        agent_id: after.unwrap_or_default().into(),
        instance_id: Uuid::max(),
    };
    entries
        .range((Bound::Excluded(start), Bound::Unbounded))
        .map(|(_, entry)| entry)
        .take_while(move |entry| entry.instance.key().namespace == *namespace)
}

/// Sorts, and keeps at most so many.
fn keep_most<T, K: Ord>(all: &mut Vec<T>, most: usize, key: impl Fn(&T) -> K) {
    if most < all.len() {
        all.select_nth_unstable_by_key(most, &key);
        all.truncate(most);
    }
    all.sort_unstable_by_key(&key);
}

/// What a report means for an instance that an operator drains: it takes no new work, whatever it says.
const fn in_effect(report: Report, drain_requested: bool) -> Report {
    match report.status {
        Status::Active | Status::Busy if drain_requested => Report {
            status: Status::Draining,
            ..report
        },
        Status::Active | Status::Busy | Status::Draining | Status::Maintenance | Status::Offline => report,
    }
}
