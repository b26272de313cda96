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
//! What a change costs depends on the change and not on the fleet: skills are indexed by agent, and counted per agent, and
//! the agents that are to be forgotten stand in a line. A snapshot is applied to a copy of the view, which then takes the
//! view's place, so that messages are routed by the old one until the new one is whole.
//!
//! Rejected: asking the registry for each message (a second hop, and an outage of the registry becomes one of
//! everything); dropping the view after a time without the registry (the agents still work).

pub mod instance;
mod skills;
pub mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use muster_api::a2a::AgentCard;
use muster_api::names;

use crate::error::Error;
use crate::target::Target;
pub use instance::{Instance, Key, Report};
use skills::Skills;

/// How long an agent without instances is remembered.
const REMEMBERED: Duration = Duration::from_secs(3600);

/// Most agents without instances that are remembered.
const MOST_REMEMBERED: usize = 1000;

/// An agent, with the instances that are alive.
#[derive(Debug, Clone)]
struct Agent {
    /// The card of the instance that was heard of last.
    card: Arc<AgentCard>,
    /// What its instances can do, and how many of them each; of a deserted agent what they could.
    skills: BTreeMap<String, usize>,
    instances: BTreeMap<String, Arc<Instance>>,
    /// When the last instance left; `None` while there is one.
    deserted_at: Option<Duration>,
}

impl Agent {
    fn has_all(&self, required: &[&str]) -> bool {
        required.iter().all(|skill| self.skills.contains_key(*skill))
    }
}

/// What is known of the fleet. Plain data: times are given.
#[derive(Debug, Clone)]
pub struct View {
    namespace: String,
    grace: Duration,
    agents: BTreeMap<Arc<str>, Agent>,
    /// Which agents have which skill, deserted ones included.
    skills: Skills,
    /// How many instances there are.
    count: usize,
    /// Agents without instances, those that were left first at the front.
    deserted: BTreeSet<(Duration, Arc<str>)>,
    /// Instances that the registry has not confirmed since its stream was lost, and until when they stay.
    unconfirmed: BTreeMap<Key, Duration>,
    connected: bool,
    heard_at: Option<Duration>,
}

impl View {
    /// Whose agents these are.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// An empty view of the agents of one namespace.
    #[must_use]
    pub fn new(namespace: impl Into<String>, grace: Duration) -> Self {
        Self {
            namespace: namespace.into(),
            grace,
            agents: BTreeMap::new(),
            skills: Skills::default(),
            count: 0,
            deserted: BTreeSet::new(),
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

    /// Takes over an instance that is new or has changed. Whether it takes work now and did not before.
    pub fn upsert(&mut self, mut instance: Instance, now: Duration) -> bool {
        self.heard(now);
        if instance.namespace != self.namespace {
            return false;
        }
        instance.reported_at = now;
        let key = instance.key();
        self.unconfirmed.remove(&key);
        let id: Arc<str> = key.agent.as_str().into();
        let agent = self.agents.entry(Arc::clone(&id)).or_insert_with(|| Agent {
            card: Arc::clone(&instance.card),
            skills: BTreeMap::new(),
            instances: BTreeMap::new(),
            deserted_at: None,
        });
        if let Some(at) = agent.deserted_at.take() {
            self.deserted.remove(&(at, Arc::clone(&id)));
            // What those could do who left says nothing of the one that comes.
            for skill in std::mem::take(&mut agent.skills).into_keys() {
                self.skills.remove(&skill, &id);
            }
        }
        if let Some(sibling) = agent.instances.values().next() {
            instance.share(sibling);
        }
        agent.card = Arc::clone(&instance.card);
        let skills = Arc::clone(&instance.skills);
        let takes_work = instance.takes_work();
        let before = agent.instances.insert(key.instance, Arc::new(instance));
        let comes = takes_work && before.as_ref().is_none_or(|before| !before.takes_work());
        if before.is_none() {
            self.count += 1;
        }
        if before.as_ref().is_none_or(|before| before.skills != skills) {
            self.skills.gain(&mut agent.skills, &skills, &id);
            if let Some(before) = before {
                self.skills.lose(&mut agent.skills, &before.skills, &id);
            }
        }
        comes
    }

    /// Takes over what an instance says of itself. A report about another registration than the known one is not about
    /// the instance that is called. Whether it takes work now and did not before.
    pub fn report(&mut self, namespace: &str, key: &Key, report: Report, now: Duration) -> bool {
        self.heard(now);
        if namespace != self.namespace {
            return false;
        }
        let agent = self.agents.get_mut(key.agent.as_str());
        let known = agent.and_then(|agent| agent.instances.get_mut(&key.instance));
        if let Some(instance) = known.filter(|instance| instance.epoch == report.epoch) {
            self.unconfirmed.remove(key);
            let instance = Arc::make_mut(instance);
            let took_work = instance.takes_work();
            instance.availability = report.availability;
            instance.load = report.load;
            instance.reported_at = now;
            return instance.takes_work() && !took_work;
        }
        false
    }

    /// The stream goes on where the last one ended: everything that is known is confirmed by it.
    pub const fn resume(&mut self, now: Duration) {
        self.heard(now);
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
        while let Some((at, _)) = self.deserted.first()
            && (now.saturating_sub(*at) >= REMEMBERED || self.deserted.len() > MOST_REMEMBERED)
            && let Some((_, id)) = self.deserted.pop_first()
        {
            self.drop_agent(&id);
        }
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

    /// How many instances are alive.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.count
    }

    /// The agents that have instances, with their cards.
    pub fn cards(&self) -> impl Iterator<Item = (&str, &Arc<AgentCard>)> {
        self.agents
            .iter()
            .filter(|(_, agent)| !agent.instances.is_empty())
            .map(|(id, agent)| (&**id, &agent.card))
    }

    /// One instance.
    #[must_use]
    pub fn instance(&self, key: &Key) -> Option<&Arc<Instance>> {
        let agent = self.agents.get(key.agent.as_str())?;
        agent.instances.get(&key.instance)
    }

    /// Whether an agent of that id is known, with instances or without.
    #[must_use]
    pub fn knows(&self, agent: &str) -> bool {
        self.agents.contains_key(agent)
    }

    /// What an agent can do, or could while it had instances; `None` where no agent of that id is known.
    pub fn skills_of(&self, agent: &str) -> Option<impl Iterator<Item = &str>> {
        let agent = self.agents.get(agent)?;
        Some(agent.skills.keys().map(String::as_str))
    }

    /// The instances that serve a target and have all of `skills`, in whatever state they are; empty when the agent
    /// is known and deserted.
    ///
    /// # Errors
    /// When nobody is known by that name, with the nearest names; when each skill is known, but nobody has all.
    pub fn serving(&self, target: Option<&Target>, skills: &[String]) -> Result<Vec<Arc<Instance>>, Error> {
        let required = required(target, skills);
        let able = self.able(target, &required)?;
        let has_all =
            |instance: &&Arc<Instance>| required.iter().all(|skill| instance.skills.contains(*skill));
        Ok(able
            .iter()
            .flat_map(|agent| agent.instances.values())
            .filter(has_all)
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
        let mut having = Vec::with_capacity(required.len());
        for skill in required {
            let agents = self.skills.agents(skill);
            having.push(agents.ok_or_else(|| self.unknown_skill(skill))?);
        }
        let mut able: Vec<&Agent> = match (target, having.iter().min_by_key(|agents| agents.len())) {
            (Some(Target::Agent(id)), _) => {
                let agent = self.agents.get(id.as_str());
                vec![agent.ok_or_else(|| self.unknown_agent(id))?]
            }
            // Whoever has all has the rarest.
            (_, Some(rarest)) => rarest.iter().filter_map(|id| self.agents.get(id)).collect(),
            (_, None) => self.agents.values().collect(),
        };
        able.retain(|agent| agent.has_all(required));
        if able.is_empty() {
            return Err(self.unmatched(target, required, &having));
        }
        Ok(able)
    }

    fn unknown_skill(&self, skill: &str) -> Error {
        Error::UnknownSkill {
            skill: skill.to_owned(),
            nearest: owned(names::nearest(skill, self.skills.names())),
        }
    }

    /// Each skill is known, but nobody has all: names who lacks the fewest, and what.
    fn unmatched(&self, target: Option<&Target>, required: &[&str], having: &[&BTreeSet<Arc<str>>]) -> Error {
        let agents: BTreeSet<&str> = match target {
            Some(Target::Agent(id)) => [id.as_str()].into(),
            // Who has none of them is further away than any of these.
            _ => having
                .iter()
                .flat_map(|agents| agents.iter())
                .map(|id| &**id)
                .collect(),
        };
        let lacking = agents.into_iter().filter_map(|id| {
            let agent = self.agents.get(id)?;
            let lacking = required
                .iter()
                .filter(|skill| !agent.skills.contains_key(**skill));
            Some((id, lacking.copied().collect::<Vec<_>>()))
        });
        // By name, so that the same fleet gets the same answer.
        let nearest = lacking.min_by_key(|(id, lacking)| (lacking.len(), *id));
        let (nearest, lacking) = nearest.unwrap_or_default();
        Error::UnmatchedSkills {
            skills: owned(required.to_vec()),
            of: match target {
                Some(Target::Agent(id)) => format!(" '{id}'"),
                _ => String::new(),
            },
            nearest: nearest.to_owned(),
            lacking: owned(lacking),
        }
    }

    fn unknown_agent(&self, id: &str) -> Error {
        Error::UnknownAgent {
            agent: id.to_owned(),
            nearest: owned(names::nearest(id, self.agents.keys().map(|id| &**id))),
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
        let id: Arc<str> = key.agent.as_str().into();
        let Some(agent) = self.agents.get_mut(&id) else {
            return;
        };
        let Some(gone) = agent.instances.remove(&key.instance) else {
            return;
        };
        self.count -= 1;
        if agent.instances.is_empty() {
            // The skills stay as they were, so that callers of a skill hear that nobody takes work now.
            agent.deserted_at = Some(now);
            self.deserted.insert((now, id));
        } else {
            self.skills.lose(&mut agent.skills, &gone.skills, &id);
        }
    }

    fn drop_agent(&mut self, id: &Arc<str>) {
        if let Some(agent) = self.agents.remove(id) {
            for skill in agent.skills.keys() {
                self.skills.remove(skill, id);
            }
        }
    }
}

/// All skills that are asked for.
fn required<'c>(target: Option<&'c Target>, skills: &'c [String]) -> Vec<&'c str> {
    let of_target = target.and_then(Target::skill);
    skills.iter().map(String::as_str).chain(of_target).collect()
}

fn owned(names: Vec<&str>) -> Vec<String> {
    names.into_iter().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests;
