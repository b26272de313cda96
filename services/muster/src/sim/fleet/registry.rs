//! The registry of a simulated fleet, and those who register with it: the lease table itself, on given times.
//!
//! Time is played tick by tick up to the present, whenever somebody asks. A stretch in which nobody asked for long is left out:
//! whoever comes after it finds a registry that has been started anew meanwhile.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use muster_api::a2a::{AgentCapabilities, AgentCard, AgentExtension, AgentSkill};
use muster_api::extension::ROUTING;
use muster_api::registry::watch_agents_response::{Change, Snapshot};
use muster_api::registry::{self, WatchAgentsResponse};
use muster_registry::instance::{self, Profile, Report, Status, wire};
use muster_registry::lease::{Moment, Table, Terms};
use muster_registry::offline::Bounds;
use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Value};
use uuid::Uuid;

use super::weather::{Condition, Registry as Reach, Weather};

/// The agents that are called, and whether what they do may be done twice.
const AGENTS: [(&str, bool); 3] = [("flaky", true), ("silent", false), ("steady", true)];

/// Most instances of an agent.
const MOST_INSTANCES: usize = 3;

/// How often an instance is heard of.
const HEARTBEAT: Duration = Duration::from_secs(2);

/// What leases are granted on.
const TERMS: Terms = Terms {
    time_to_live: Duration::from_secs(6),
    max_per_node: 100,
    max_instances: 100,
    offline: Bounds {
        retention: Duration::from_secs(60),
        most: 100,
    },
};

/// By how much a registry that starts anew is ahead of what the one before can have come to.
const AHEAD: u64 = 1_000_000;

/// One instance of an agent.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) agent: &'static str,
    /// Which of its agent's.
    pub(super) number: usize,
    profile: Arc<Profile>,
}

/// All instances that a fleet may have, by their ids.
pub(super) fn members() -> Result<BTreeMap<String, Member>, instance::Error> {
    let all = (0..AGENTS.len()).flat_map(|agent| (0..MOST_INSTANCES).map(move |number| (agent, number)));
    let members = all.map(|(index, number)| {
        let (agent, is_idempotent) = AGENTS[index];
        let place = index * 10 + number + 1;
        let id = Uuid::from_u128(place as u128);
        let message = registry::Instance {
            agent_id: agent.to_owned(),
            instance_id: id.to_string(),
            card: Some(card(agent, is_idempotent)),
            endpoint: format!("http://127.0.0.1:{}", 7_000 + place),
            ..registry::Instance::default()
        };
        let (profile, _) = wire::registration(message, id)?;
        let member = Member {
            agent,
            number,
            profile: Arc::new(profile),
        };
        Ok((id.to_string(), member))
    });
    members.collect()
}

fn card(agent: &str, is_idempotent: bool) -> AgentCard {
    const SKILL: &str = "answer";
    let skills = is_idempotent.then(|| Value {
        kind: Some(Kind::StringValue(SKILL.to_owned())),
    });
    let list = Kind::ListValue(ListValue {
        values: skills.into_iter().collect(),
    });
    let parameters = [("idempotentSkills".to_owned(), Value { kind: Some(list) })];
    AgentCard {
        name: agent.to_owned(),
        skills: vec![AgentSkill {
            id: SKILL.to_owned(),
            ..AgentSkill::default()
        }],
        capabilities: Some(AgentCapabilities {
            extensions: vec![AgentExtension {
                uri: ROUTING.to_owned(),
                params: Some(Struct {
                    fields: parameters.into(),
                }),
                ..AgentExtension::default()
            }],
            ..AgentCapabilities::default()
        }),
        ..AgentCard::default()
    }
}

/// What an instance knows of its lease.
#[derive(Debug, Clone, Copy)]
struct Held {
    lease: Uuid,
    heard_at: Duration,
    status: Status,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Registry {
    weather: Weather,
    members: Arc<BTreeMap<String, Member>>,
    table: Table,
    revision: u64,
    /// Leases that were granted.
    granted: u128,
    held: BTreeMap<String, Held>,
    is_down: bool,
}

impl Registry {
    pub(super) fn new(weather: Weather, members: Arc<BTreeMap<String, Member>>) -> Self {
        Self {
            weather,
            members,
            table: Table::new(TERMS, 0),
            revision: 0,
            granted: 0,
            held: BTreeMap::new(),
            is_down: false,
        }
    }

    /// It is started anew, and knows nobody.
    pub(super) fn restart(&mut self) {
        self.revision += AHEAD;
        self.table = Table::new(TERMS, self.revision);
    }

    /// Everybody does what is due now. Returns what the registry tells those who follow it.
    pub(super) fn play(&mut self, at: Duration, wall: Timestamp) -> Vec<Change> {
        let now = Moment { wall, monotonic: at };
        let is_down = self.weather.registry(at) == Reach::Down;
        if is_down && !self.is_down {
            self.restart();
        }
        self.is_down = is_down;
        let members = Arc::clone(&self.members);
        for (id, member) in members.iter() {
            if member.number < self.weather.instances(member.agent) {
                self.visit(id, member, now);
            }
        }
        self.table.expire(now);
        let events = self.table.take_events();
        if let Some(last) = events.last() {
            self.revision = last.revision;
        }
        let changes = events.into_iter().map(WatchAgentsResponse::from);
        changes.filter_map(|response| response.change).collect()
    }

    /// What whoever begins to follow is told first.
    pub(super) fn snapshot(&mut self, at: Duration, wall: Timestamp) -> Change {
        let (_, instances) = self.table.snapshot(Moment { wall, monotonic: at });
        Change::Snapshot(Snapshot {
            instances: instances.iter().map(Into::into).collect(),
            ..Snapshot::default()
        })
    }

    fn visit(&mut self, id: &str, member: &Member, now: Moment) {
        let condition = self.weather.condition(member.agent, member.number, now.monotonic);
        let status = match condition {
            Condition::Well => Status::Active,
            Condition::Draining => Status::Draining,
            Condition::CutOff => return,
            Condition::Crashed | Condition::Vanished => {
                self.held.remove(id);
                return;
            }
            Condition::Left => {
                if let Some(held) = self.held.remove(id)
                    && !self.is_down
                {
                    self.table.end(now, held.lease);
                }
                return;
            }
        };
        if self.is_down {
            return;
        }
        let report = Report {
            status,
            ..Report::FRESH
        };
        if let Some(held) = self.held.get_mut(id) {
            let age = now.monotonic.saturating_sub(held.heard_at);
            if age < HEARTBEAT && held.status == status {
                return;
            }
            if self.table.renew(now, held.lease, report).is_ok() {
                held.heard_at = now.monotonic;
                held.status = status;
                return;
            }
        }
        self.granted += 1;
        let lease = Uuid::from_u128(self.granted);
        let granted = self
            .table
            .register(now, lease, Arc::clone(&member.profile), report);
        if granted.is_ok() {
            let held = Held {
                lease,
                heard_at: now.monotonic,
                status,
            };
            self.held.insert(id.to_owned(), held);
        }
    }
}
