//! The table itself; its rules are the parent module's.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use muster_api::names;
use uuid::Uuid;

use super::{Agent, Census, Change, Departure, Error, Event, Grant, Moment, Renewal, Terms};
use crate::discovery::{self, Found, Query};
use crate::instance::{Instance, Key, Profile, Report, Status};
use crate::skill_index::SkillIndex;

/// The lease table.
#[derive(Debug)]
pub struct Table {
    terms: Terms,
    entries: BTreeMap<Key, Entry>,
    leases: HashMap<Uuid, Key>,
    deadlines: BTreeSet<(Duration, Uuid)>,
    per_node: HashMap<String, usize>,
    skills: SkillIndex,
    revision: u64,
    expired: u64,
    events: Vec<Event>,
}

#[derive(Debug)]
struct Entry {
    instance: Instance,
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
            skills: SkillIndex::default(),
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
        profile: Arc<Profile>,
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
        let drain_requested = self
            .take(&profile.key.clone())
            .is_some_and(|entry| entry.drain_requested);
        let instance = Instance {
            report: in_effect(report, drain_requested),
            registered_at: now.wall,
            last_heartbeat_at: now.wall,
            epoch: self.revision + 1,
            profile,
        };
        self.insert(Entry {
            instance: instance.clone(),
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
        let entry = self.leases.get(&lease).and_then(|key| self.entries.get_mut(key));
        let entry = entry.ok_or(Error::LeaseNotFound { lease })?;
        self.deadlines.remove(&(entry.deadline, lease));
        entry.deadline = now.monotonic + self.terms.time_to_live;
        self.deadlines.insert((entry.deadline, lease));
        let report = in_effect(report, entry.drain_requested);
        let changed = entry.instance.report != report;
        entry.instance.report = report;
        entry.instance.last_heartbeat_at = now.wall;
        let renewal = Renewal {
            epoch: entry.instance.epoch,
            drain_requested: entry.drain_requested,
        };
        if changed {
            let instance = entry.instance.clone();
            self.publish(Change::Upserted(instance));
        }
        Ok(renewal)
    }

    /// Ends a lease; one that is gone already is no error.
    pub fn end(&mut self, now: Moment, lease: Uuid) {
        self.expire(now);
        if let Some(key) = self.leases.get(&lease).cloned()
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
        let agent = self.agent(now, namespace, agent_id)?;
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
            let report = in_effect(entry.instance.report, true);
            if entry.instance.report != report {
                entry.instance.report = report;
                let instance = entry.instance.clone();
                self.publish(Change::Upserted(instance));
            }
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
        while let Some(&(deadline, lease)) = self.deadlines.first() {
            if deadline > now.monotonic {
                return Some(deadline - now.monotonic);
            }
            self.deadlines.remove(&(deadline, lease));
            if let Some(key) = self.leases.get(&lease).cloned()
                && self.take(&key).is_some()
            {
                self.expired += 1;
                self.publish(Change::Removed(key, Departure::Expired));
            }
        }
        None
    }

    /// Finds instances.
    pub fn discover(&mut self, now: Moment, query: &Query) -> Found {
        self.expire(now);
        let instances = match self.skills.with_all(&query.namespace, &query.skills) {
            Some(keys) => {
                let candidates = keys.into_iter().filter_map(|key| self.entries.get(key));
                discovery::select(candidates.map(|entry| &entry.instance), query)
            }
            None => discovery::select(self.namespace(&query.namespace, None), query),
        };
        let nearest_skills = if instances.is_empty() {
            self.skills.nearest(&query.namespace, &query.skills)
        } else {
            Vec::new()
        };
        Found {
            instances,
            nearest_skills,
        }
    }

    /// Whether a live instance has the skill.
    #[must_use]
    pub fn knows_skill(&self, namespace: &str, skill: &str) -> bool {
        self.skills.knows(namespace, skill)
    }

    /// One agent with its instances.
    pub fn agent(&mut self, now: Moment, namespace: &Arc<str>, agent_id: &Arc<str>) -> Result<Agent, Error> {
        self.expire(now);
        let first = Key {
            namespace: Arc::clone(namespace),
            agent_id: Arc::clone(agent_id),
            instance_id: Uuid::nil(),
        };
        let instances = self.entries.range(first..).map(|(_, entry)| &entry.instance);
        let same = |instance: &&Instance| {
            instance.key().namespace == *namespace && instance.key().agent_id == *agent_id
        };
        let instances: Vec<Instance> = instances.take_while(same).cloned().collect();
        if instances.is_empty() {
            let known = self
                .namespace(namespace, None)
                .map(|instance| &*instance.key().agent_id);
            return Err(Error::AgentNotFound {
                nearest: names::nearest(agent_id, known)
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

    /// Agents by id, after a given one, at most `limit`; and whether there are more.
    pub fn agents(
        &mut self,
        now: Moment,
        namespace: &Arc<str>,
        after: Option<&str>,
        limit: usize,
    ) -> (Vec<Agent>, bool) {
        self.expire(now);
        let mut agents: Vec<Agent> = Vec::new();
        for instance in self.namespace(namespace, after) {
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

    /// Counts.
    pub fn census(&mut self, now: Moment) -> Census {
        self.expire(now);
        let mut by_status: BTreeMap<Status, u64> = Status::ALL.map(|status| (status, 0)).into();
        for entry in self.entries.values() {
            *by_status.entry(entry.instance.report.status).or_default() += 1;
        }
        Census {
            by_status,
            expired: self.expired,
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
        let start = Key {
            namespace: Arc::clone(namespace),
            agent_id: after.unwrap_or_default().into(),
            instance_id: Uuid::max(),
        };
        self.entries
            .range((Bound::Excluded(start), Bound::Unbounded))
            .map(|(_, entry)| &entry.instance)
            .take_while(move |instance| instance.key().namespace == *namespace)
    }

    fn insert(&mut self, entry: Entry) {
        let profile = &entry.instance.profile;
        self.skills.insert(profile);
        if let Some(node) = &profile.node {
            *self.per_node.entry(node.clone()).or_default() += 1;
        }
        self.deadlines.insert((entry.deadline, entry.lease));
        self.leases.insert(entry.lease, profile.key.clone());
        self.entries.insert(profile.key.clone(), entry);
    }

    fn take(&mut self, key: &Key) -> Option<Entry> {
        let entry = self.entries.remove(key)?;
        self.leases.remove(&entry.lease);
        self.deadlines.remove(&(entry.deadline, entry.lease));
        self.skills.remove(&entry.instance.profile);
        if let Some(node) = &entry.instance.profile.node
            && let Some(count) = self.per_node.get_mut(node)
        {
            *count -= 1;
            if *count == 0 {
                self.per_node.remove(node);
            }
        }
        Some(entry)
    }

    fn publish(&mut self, change: Change) {
        self.revision += 1;
        self.events.push(Event {
            revision: self.revision,
            change,
        });
    }
}

/// What a report means for an instance that an operator drains: it takes no new work, whatever it says.
const fn in_effect(report: Report, drain_requested: bool) -> Report {
    match report.status {
        Status::Active | Status::Busy if drain_requested => Report {
            status: Status::Draining,
            ..report
        },
        Status::Active | Status::Busy | Status::Draining | Status::Maintenance => report,
    }
}
