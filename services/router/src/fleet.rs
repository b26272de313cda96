//! The router's own view of the fleet: who is alive, what they can do, how loaded they are.
//!
//! The registry streams it ([`watch`]); every message is routed from memory. When the registry is away, the last
//! view stays in use and says that it is stale. Two things soften the edges:
//!
//! - After a loss of the stream, the next snapshot may come from a registry that has just started and knows only
//!   those who have already registered again. Instances that it misses stay for a grace period, unconfirmed; one
//!   that is really gone costs a refused connection, which moves on to the next instance.
//! - An agent whose last instance left is remembered for a while without instances, so that its callers hear that
//!   nobody takes work now, and not that they misspelt the name.
//!
//! Rejected: asking the registry for each message (a second hop, and an outage of the registry becomes one of
//! everything); dropping the view after a time without the registry (the agents still work).

pub mod instance;
pub mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use muster_api::a2a::AgentCard;
use muster_api::names;

use crate::error::Error;
use crate::target::Target;
pub use instance::{Instance, Key};

/// How long an agent without instances is remembered.
const REMEMBERED: Duration = Duration::from_secs(3600);

/// Most agents without instances that are remembered.
const MOST_REMEMBERED: usize = 1000;

/// An agent, with the instances that are alive.
#[derive(Debug)]
struct Agent {
    /// The card of the instance that was heard of last.
    card: Arc<AgentCard>,
    skills: BTreeSet<String>,
    instances: BTreeMap<String, Arc<Instance>>,
    /// When the last instance left; `None` while there is one.
    deserted_at: Option<Duration>,
}

/// What is known of the fleet. Plain data: times are given.
#[derive(Debug)]
pub struct View {
    namespace: String,
    grace: Duration,
    agents: BTreeMap<String, Agent>,
    /// The ids of the agents that have a skill, so that a call for one among many agents need not look at all of them.
    by_skill: BTreeMap<String, BTreeSet<String>>,
    /// Instances that the registry has not confirmed since its stream was lost, and until when they stay.
    unconfirmed: BTreeMap<Key, Duration>,
    connected: bool,
    heard_at: Option<Duration>,
}

impl View {
    /// An empty view of the agents of one namespace.
    #[must_use]
    pub fn new(namespace: impl Into<String>, grace: Duration) -> Self {
        Self {
            namespace: namespace.into(),
            grace,
            agents: BTreeMap::new(),
            by_skill: BTreeMap::new(),
            unconfirmed: BTreeMap::new(),
            connected: false,
            heard_at: None,
        }
    }

    /// Takes over all live instances, as the registry knows them at the start of a stream.
    pub fn snapshot(&mut self, instances: Vec<Instance>, now: Duration) {
        let missing: Vec<Key> = self.keys();
        for key in missing {
            let until = now.saturating_add(self.grace);
            self.unconfirmed.entry(key).or_insert(until);
        }
        for instance in instances {
            self.upsert(instance, now);
        }
        self.heard(now);
    }

    /// Takes over an instance that is new or has changed.
    pub fn upsert(&mut self, instance: Instance, now: Duration) {
        self.heard(now);
        if instance.namespace != self.namespace {
            return;
        }
        let key = instance.key();
        self.unconfirmed.remove(&key);
        let agent = self.agents.entry(key.agent.clone()).or_insert_with(|| Agent {
            card: Arc::clone(&instance.card),
            skills: BTreeSet::new(),
            instances: BTreeMap::new(),
            deserted_at: None,
        });
        agent.card = Arc::clone(&instance.card);
        agent.deserted_at = None;
        agent.instances.insert(key.instance, Arc::new(instance));
        self.gather_skills(&key.agent);
    }

    /// Forgets an instance.
    pub fn remove(&mut self, namespace: &str, key: &Key, now: Duration) {
        self.heard(now);
        if namespace == self.namespace {
            self.forget(key, now);
        }
    }

    /// The stream from the registry broke.
    pub const fn disconnected(&mut self) {
        self.connected = false;
    }

    /// Lets go of what has been kept long enough, and returns the instances that are lost by it. To be called every
    /// few seconds.
    pub fn sweep(&mut self, now: Duration) -> Vec<Key> {
        let overdue: Vec<Key> = self
            .unconfirmed
            .iter()
            // While the registry is away nobody can be confirmed, so nobody is given up either.
            .filter(|(_, until)| self.connected && **until <= now)
            .map(|(key, _)| key.clone())
            .collect();
        for key in &overdue {
            self.forget(key, now);
        }
        let forgotten: Vec<String> = self
            .agents
            .iter()
            .filter(|(_, agent)| {
                agent
                    .deserted_at
                    .is_some_and(|at| now.saturating_sub(at) >= REMEMBERED)
            })
            .map(|(id, _)| id.clone())
            .collect();
        for id in forgotten {
            self.forget_agent(&id);
        }
        self.bound_deserted();
        overdue
    }

    /// Whether the registry does not answer now.
    #[must_use]
    pub const fn is_stale(&self) -> bool {
        !self.connected
    }

    /// Whether anything was ever heard.
    #[must_use]
    pub const fn is_known(&self) -> bool {
        self.heard_at.is_some()
    }

    /// How long ago the registry was last heard; `None` when it never was.
    #[must_use]
    pub fn age(&self, now: Duration) -> Option<Duration> {
        self.heard_at.map(|at| now.saturating_sub(at))
    }

    /// All live instances, by agent and instance id.
    pub fn instances(&self) -> impl Iterator<Item = &Arc<Instance>> {
        self.agents.values().flat_map(|agent| agent.instances.values())
    }

    /// The agents that have instances, with their cards.
    pub fn cards(&self) -> impl Iterator<Item = (&str, &Arc<AgentCard>)> {
        self.agents
            .iter()
            .filter(|(_, agent)| !agent.instances.is_empty())
            .map(|(id, agent)| (id.as_str(), &agent.card))
    }

    /// One instance.
    #[must_use]
    pub fn instance(&self, key: &Key) -> Option<&Arc<Instance>> {
        self.agents.get(&key.agent)?.instances.get(&key.instance)
    }

    /// Whether an agent of that id is known, with instances or without.
    #[must_use]
    pub fn knows(&self, agent: &str) -> bool {
        self.agents.contains_key(agent)
    }

    /// The instances that serve a target and have all of `skills`, in whatever state they are; empty when the agent
    /// is known and deserted.
    ///
    /// # Errors
    /// When nobody is known by that name, with the nearest names; when each skill is known, but nobody has all.
    pub fn serving(&self, target: Option<&Target>, skills: &[String]) -> Result<Vec<Arc<Instance>>, Error> {
        let required = required(target, skills);
        let able = self.able(target, &required)?;
        Ok(able
            .iter()
            .flat_map(|agent| agent.instances.values())
            .filter(|instance| has_all(&instance.skills, &required))
            .cloned()
            .collect())
    }

    /// Whether somebody is known who serves a target and has all of `skills`.
    ///
    /// # Errors
    /// As [`Self::serving`].
    pub fn check(&self, target: Option<&Target>, skills: &[String]) -> Result<(), Error> {
        self.able(target, &required(target, skills)).map(|_| ())
    }

    /// The agents that are the target and have all of `required`, by id; at least one.
    fn able(&self, target: Option<&Target>, required: &[&str]) -> Result<Vec<&Agent>, Error> {
        if !self.is_known() {
            return Err(Error::NoView);
        }
        let mut fewest: Option<&BTreeSet<String>> = None;
        for skill in required {
            let have = self
                .by_skill
                .get(*skill)
                .ok_or_else(|| self.unknown_skill(skill))?;
            if fewest.is_none_or(|fewest| have.len() < fewest.len()) {
                fewest = Some(have);
            }
        }
        let mut able = match (target, fewest) {
            (Some(Target::Agent(id)), _) => vec![self.agents.get(id).ok_or_else(|| self.unknown_agent(id))?],
            (_, Some(fewest)) => fewest.iter().filter_map(|id| self.agents.get(id)).collect(),
            (_, None) => self.agents.values().collect(),
        };
        able.retain(|agent| has_all(&agent.skills, required));
        if able.is_empty() {
            return Err(self.unmatched(target, required));
        }
        Ok(able)
    }

    fn unknown_skill(&self, skill: &str) -> Error {
        Error::UnknownSkill {
            skill: skill.to_owned(),
            nearest: owned(names::nearest(skill, self.by_skill.keys().map(String::as_str))),
        }
    }

    fn unknown_agent(&self, id: &str) -> Error {
        Error::UnknownAgent {
            agent: id.to_owned(),
            nearest: owned(names::nearest(id, self.agents.keys().map(String::as_str))),
        }
    }

    fn keys(&self) -> Vec<Key> {
        self.instances().map(|instance| instance.key()).collect()
    }

    const fn heard(&mut self, now: Duration) {
        self.connected = true;
        self.heard_at = Some(now);
    }

    fn forget(&mut self, key: &Key, now: Duration) {
        self.unconfirmed.remove(key);
        if let Some(agent) = self.agents.get_mut(&key.agent) {
            agent.instances.remove(&key.instance);
            if agent.instances.is_empty() {
                // The skills stay as they were, so that callers of a skill hear that nobody takes work now.
                agent.deserted_at.get_or_insert(now);
            } else {
                self.gather_skills(&key.agent);
            }
        }
    }

    /// An agent has the skills of its instances.
    fn gather_skills(&mut self, id: &str) {
        let Some(agent) = self.agents.get_mut(id) else {
            return;
        };
        let skills: BTreeSet<String> = agent
            .instances
            .values()
            .flat_map(|instance| instance.skills.iter().cloned())
            .collect();
        if skills == agent.skills {
            return;
        }
        let before = std::mem::replace(&mut agent.skills, skills);
        for gained in agent.skills.difference(&before) {
            let have = self.by_skill.entry(gained.clone()).or_default();
            have.insert(id.to_owned());
        }
        for lost in before.difference(&agent.skills) {
            take_skill(&mut self.by_skill, lost, id);
        }
    }

    fn forget_agent(&mut self, id: &str) {
        if let Some(agent) = self.agents.remove(id) {
            for skill in &agent.skills {
                take_skill(&mut self.by_skill, skill, id);
            }
        }
    }

    fn bound_deserted(&mut self) {
        let mut deserted: Vec<(Duration, String)> = self
            .agents
            .iter()
            .filter_map(|(id, agent)| agent.deserted_at.map(|at| (at, id.clone())))
            .collect();
        deserted.sort();
        let surplus = deserted.len().saturating_sub(MOST_REMEMBERED);
        for (_, id) in deserted.into_iter().take(surplus) {
            self.forget_agent(&id);
        }
    }

    fn unmatched(&self, target: Option<&Target>, required: &[&str]) -> Error {
        let named = match target {
            Some(Target::Agent(id)) => Some(id),
            _ => None,
        };
        let agents = self
            .agents
            .iter()
            .filter(|(id, _)| named.is_none_or(|named| named == *id));
        let lacking = agents.map(|(id, agent)| {
            let lacking = required.iter().filter(|skill| !agent.skills.contains(**skill));
            (id, lacking.copied().collect::<Vec<_>>())
        });
        // By name, so that the same fleet gets the same answer.
        let nearest = lacking.min_by_key(|(id, lacking)| (lacking.len(), *id));
        let (nearest, lacking) = nearest.map_or_else(Default::default, |(id, lacking)| (id.clone(), lacking));
        Error::UnmatchedSkills {
            skills: owned(required.to_vec()),
            of: named.map_or_else(String::new, |id| format!(" '{id}'")),
            nearest,
            lacking: owned(lacking),
        }
    }
}

/// All skills that are asked for.
fn required<'c>(target: Option<&'c Target>, skills: &'c [String]) -> Vec<&'c str> {
    let of_target = target.and_then(Target::skill);
    skills.iter().map(String::as_str).chain(of_target).collect()
}

fn has_all(have: &BTreeSet<String>, required: &[&str]) -> bool {
    required.iter().all(|skill| have.contains(*skill))
}

fn take_skill(by_skill: &mut BTreeMap<String, BTreeSet<String>>, skill: &str, agent: &str) {
    if let Some(have) = by_skill.get_mut(skill) {
        have.remove(agent);
        if have.is_empty() {
            by_skill.remove(skill);
        }
    }
}

fn owned(names: Vec<&str>) -> Vec<String> {
    names.into_iter().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests;
