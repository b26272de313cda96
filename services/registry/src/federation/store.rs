//! The own store, with the agents of other regions beside its own ones. What is written is the own store's alone.
//!
//! Own instances are read from the own store itself, so that whoever registers finds itself at once; those of other regions
//! from the union's tables. Both lists have the same order, so that the best of both are the best of all, page by page.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use muster_api::names;
use uuid::Uuid;

use super::hub::Hub;
use crate::discovery::{Found, Query, Rank};
use crate::instance::{Instance, Key, Origin, Profile, Report};
use crate::lease::{self, Agent, Census, Grant, Renewal, Statistics, Wanted};
use crate::reach::Reach;
use crate::store::{Error, Feed, Page, Since, Store, Watch};

/// See the module.
pub struct Federated {
    own: Arc<dyn Store>,
    hub: Arc<Hub>,
}

impl Federated {
    /// The own store with what the hub knows.
    #[must_use]
    pub fn new(own: Arc<dyn Store>, hub: Arc<Hub>) -> Self {
        Self { own, hub }
    }

    /// What is found in each of the other regions.
    fn found(&self, query: &Query) -> Vec<Found> {
        self.hub.with(|union, now| {
            let tables = union.tables();
            tables.map(|(_, table)| table.discover(now, query)).collect()
        })
    }

    /// Skills that are spelt like one that nobody has. What one registry does not know, another may.
    async fn nearest(&self, query: &Query, found: &[Found]) -> Result<Vec<String>, Error> {
        let mut missing = Vec::new();
        for skill in &query.skills {
            if !self.knows_skill(&query.namespace, skill, &query.reach).await? {
                missing.push(skill);
            }
        }
        let all: BTreeSet<&str> = found
            .iter()
            .flat_map(|found| found.nearest_skills.iter().map(String::as_str))
            .filter(|skill| !query.skills.contains(*skill))
            .collect();
        let mut nearest: Vec<String> = Vec::new();
        for skill in missing {
            for name in names::nearest(skill, all.iter().copied()) {
                if !nearest.iter().any(|known| known == name) {
                    nearest.push(name.to_owned());
                }
            }
        }
        Ok(nearest)
    }
}

/// Where a live agent is registered, or one instance of it, if that is another region.
#[must_use]
pub fn home(
    hub: &Hub,
    namespace: &Arc<str>,
    agent_id: &Arc<str>,
    instance_id: Option<Uuid>,
) -> Option<Arc<Origin>> {
    hub.with(|union, now| {
        let mut tables = union.tables();
        tables.find_map(|(origin, table)| {
            let agent = table.agent(now, namespace, agent_id, &Reach::All).ok()?;
            let is_wanted =
                |instance: &Instance| instance_id.is_none_or(|wanted| wanted == instance.key().instance_id);
            agent.instances.iter().any(is_wanted).then(|| Arc::clone(origin))
        })
    })
}

/// The best of all, at most so many.
fn best(query: &Query, found: Vec<Found>) -> Found {
    let mut more = found.iter().any(|found| found.more);
    let mut seen: BTreeSet<Key> = BTreeSet::new();
    let instances = found.into_iter().flat_map(|found| found.instances);
    // An instance that has just come over from another region may be in both for a moment.
    let mut instances: Vec<Instance> = instances
        .filter(|instance| seen.insert(instance.key().clone()))
        .collect();
    instances.sort_by_cached_key(|instance| Rank::of(query.sort, instance));
    more |= instances.len() > query.limit;
    instances.truncate(query.limit);
    Found {
        instances,
        more,
        nearest_skills: Vec::new(),
    }
}

/// One agent of those that are the same in several regions.
fn joined(agents: impl IntoIterator<Item = Agent>) -> Option<Agent> {
    let mut agents = agents.into_iter();
    let mut first = agents.next()?;
    let before = first.instances.len();
    for agent in agents {
        for instance in agent.instances {
            let is_known = |known: &Instance| known.key() == instance.key();
            if !first.instances.iter().any(is_known) {
                first.instances.push(instance);
            }
        }
    }
    if first.instances.len() > before {
        first.instances.sort_by(|one, other| one.key().cmp(other.key()));
    }
    Some(first)
}

#[async_trait::async_trait]
impl Store for Federated {
    async fn register(&self, lease: Uuid, profile: Arc<Profile>, report: Report) -> Result<Grant, Error> {
        self.own.register(lease, profile, report).await
    }

    async fn renew(&self, lease: Uuid, report: Report) -> Result<Renewal, Error> {
        self.own.renew(lease, report).await
    }

    async fn end(&self, lease: Uuid) -> Result<(), Error> {
        self.own.end(lease).await
    }

    async fn drain(
        &self,
        namespace: &Arc<str>,
        agent_id: &Arc<str>,
        instance_id: Option<Uuid>,
    ) -> Result<u32, Error> {
        self.own.drain(namespace, agent_id, instance_id).await
    }

    async fn discover(&self, query: &Query) -> Result<Found, Error> {
        let mut found = vec![self.own.discover(query).await?];
        found.extend(self.found(query));
        if found.iter().all(|found| found.instances.is_empty()) {
            return Ok(Found {
                instances: Vec::new(),
                more: false,
                nearest_skills: self.nearest(query, &found).await?,
            });
        }
        Ok(best(query, found))
    }

    async fn holder(&self, lease: Uuid) -> Result<Option<Key>, Error> {
        self.own.holder(lease).await
    }

    async fn knows_skill(&self, namespace: &str, skill: &str, reach: &Reach) -> Result<bool, Error> {
        let elsewhere = self.hub.with(|union, _| {
            let mut tables = union.tables();
            tables.any(|(_, table)| table.knows_skill(namespace, skill, reach))
        });
        Ok(elsewhere || self.own.knows_skill(namespace, skill, reach).await?)
    }

    async fn agent(&self, namespace: &Arc<str>, agent_id: &Arc<str>, reach: &Reach) -> Result<Agent, Error> {
        let own = match self.own.agent(namespace, agent_id, reach).await {
            Err(Error::Lease(error @ lease::Error::AgentNotFound { .. })) => Err(error),
            Ok(agent) => Ok(agent),
            Err(error) => return Err(error),
        };
        let foreign: Vec<Result<Agent, lease::Error>> = self.hub.with(|union, now| {
            let tables = union.tables();
            tables
                .map(|(_, table)| table.agent(now, namespace, agent_id, reach))
                .collect()
        });
        let mut known = Vec::new();
        let mut like_it = BTreeSet::new();
        for found in std::iter::once(own).chain(foreign) {
            match found {
                Ok(agent) => known.push(agent),
                Err(lease::Error::AgentNotFound { nearest, .. }) => like_it.extend(nearest),
                Err(error) => return Err(error.into()),
            }
        }
        joined(known).ok_or_else(|| {
            let nearest = names::nearest(agent_id, like_it.iter().map(String::as_str));
            let error = lease::Error::AgentNotFound {
                namespace: Arc::clone(namespace),
                agent_id: Arc::clone(agent_id),
                nearest: nearest.into_iter().map(str::to_owned).collect(),
            };
            error.into()
        })
    }

    async fn agents(
        &self,
        namespace: &Arc<str>,
        after: Option<&str>,
        limit: usize,
        wanted: &Wanted,
    ) -> Result<Page, Error> {
        let own = self.own.agents(namespace, after, limit, wanted).await?;
        let (mut all, mut more) = (own.agents, own.more);
        self.hub.with(|union, now| {
            for (_, table) in union.tables() {
                let (agents, has_more) = table.agents(now, namespace, after, limit, wanted);
                all.extend(agents);
                more |= has_more;
            }
        });
        // Stable: of an agent that is in several regions, the own part stays first.
        all.sort_by(|one, other| one.agent_id.cmp(&other.agent_id));
        let mut agents: Vec<Agent> = Vec::new();
        let mut same: Vec<Agent> = Vec::new();
        for agent in all {
            if same.first().is_some_and(|first| first.agent_id != agent.agent_id) {
                agents.extend(joined(std::mem::take(&mut same)));
            }
            same.push(agent);
        }
        agents.extend(joined(same));
        more |= agents.len() > limit;
        agents.truncate(limit);
        Ok(Page { agents, more })
    }

    async fn statistics(
        &self,
        namespace: Option<&str>,
        most_skills: usize,
        reach: &Reach,
    ) -> Result<Statistics, Error> {
        self.own.statistics(namespace, most_skills, reach).await
    }

    async fn watch(&self, since: Option<Since>) -> Result<Watch, Error> {
        self.hub.watch(since)
    }

    async fn expire(&self) -> Result<Option<Duration>, Error> {
        self.own.expire().await
    }

    async fn census(&self) -> Result<Census, Error> {
        self.own.census().await
    }

    fn feed(&self) -> Option<Feed> {
        self.own.feed()
    }
}
