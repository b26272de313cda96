//! Which service may call which, by their SPIFFE ids.
//!
//! An id plays a role: the registry, the router, the workflow engine, an agent, the operator's command line, or a program of others
//! that looks (a reader) or has agents work (a writer). Who may call whom is one table of roles ([`MAY_CALL`]), and what each is as a
//! caller another ([`Workload::role`]); which ids play which role is configuration. What is in neither is refused. An id that
//! plays one of the other roles is no agent, so that `*` for agents does not make the router one of them.

use serde::{Deserialize, Serialize};

use super::caller::Role;
use super::spiffe::{SpiffeId, is_segment, is_trust_domain};
use crate::config::Mistakes;

/// What a workload is to the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Workload {
    /// Knows which agents there are.
    Registry,
    /// Forwards messages.
    Router,
    /// Runs workflows.
    Engine,
    /// Answers messages.
    Agent,
    /// The operator's command line.
    Operator,
    /// A program that looks, and has agents work.
    Writer,
    /// A program that looks.
    Reader,
}

/// For each service, who may call it.
pub const MAY_CALL: &[(Workload, &[Workload])] = &[
    (
        Workload::Registry,
        &[
            // Registries of other regions.
            Workload::Registry,
            Workload::Router,
            Workload::Engine,
            Workload::Agent,
            Workload::Operator,
            Workload::Writer,
            Workload::Reader,
        ],
    ),
    (
        Workload::Router,
        &[
            Workload::Router,
            Workload::Engine,
            Workload::Agent,
            Workload::Operator,
            Workload::Writer,
            Workload::Reader,
        ],
    ),
    (
        Workload::Engine,
        &[
            Workload::Engine,
            Workload::Operator,
            Workload::Writer,
            Workload::Reader,
        ],
    ),
    (Workload::Agent, &[Workload::Router, Workload::Operator]),
];

impl Workload {
    /// The role of the service with this name; whatever is none of the control plane is an agent.
    #[must_use]
    pub fn of_service(name: &str) -> Self {
        match name {
            "registry" => Self::Registry,
            "router" => Self::Router,
            "workflow-engine" => Self::Engine,
            _ => Self::Agent,
        }
    }

    /// For people, and for the key of its ids in the section `trust.identities`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Registry => "registry",
            Self::Router => "router",
            Self::Engine => "workflow_engine",
            Self::Agent => "agents",
            Self::Operator => "operators",
            Self::Writer => "writers",
            Self::Reader => "readers",
        }
    }

    /// What it may do as a caller that calls for itself.
    #[must_use]
    pub const fn role(self) -> Role {
        match self {
            Self::Registry | Self::Router | Self::Engine => Role::Service,
            Self::Agent => Role::Agent,
            Self::Operator => Role::Admin,
            Self::Writer => Role::AgentWriter,
            Self::Reader => Role::AgentReader,
        }
    }

    /// Whether a service of this role may be called by who plays the other.
    #[must_use]
    pub fn admits(self, caller: Self) -> bool {
        MAY_CALL
            .iter()
            .any(|(service, callers)| *service == self && callers.contains(&caller))
    }

    /// Whether a service of this role has callers who are no workloads and prove who they are by other means.
    #[must_use]
    pub const fn has_end_callers(self) -> bool {
        matches!(self, Self::Router | Self::Engine)
    }
}

/// The section `trust.identities`: which SPIFFE ids play which role. Each entry is the name of a service account of our own
/// namespace (`router`), one of another (`NAMESPACE/NAME`), or a whole id (`spiffe://…`); in each, `*` stands for any one part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Identities {
    /// Registries.
    pub registry: Vec<String>,
    /// Routers.
    pub router: Vec<String>,
    /// Workflow engines.
    pub workflow_engine: Vec<String>,
    /// Agents, as far as they are none of the others.
    pub agents: Vec<String>,
    /// The operator's command line.
    pub operators: Vec<String>,
    /// Programs that look, and have agents work.
    pub writers: Vec<String>,
    /// Programs that look.
    pub readers: Vec<String>,
}

impl Default for Identities {
    fn default() -> Self {
        let one = |name: &str| vec![name.to_owned()];
        Self {
            registry: one("registry"),
            router: one("router"),
            workflow_engine: one("workflow-engine"),
            agents: one("*"),
            operators: one("muster"),
            writers: Vec::new(),
            readers: Vec::new(),
        }
    }
}

impl Identities {
    fn lists(&self) -> [(Workload, &[String]); 7] {
        // Agents last: who plays another role is none.
        [
            (Workload::Registry, &self.registry),
            (Workload::Router, &self.router),
            (Workload::Engine, &self.workflow_engine),
            (Workload::Operator, &self.operators),
            (Workload::Writer, &self.writers),
            (Workload::Reader, &self.readers),
            (Workload::Agent, &self.agents),
        ]
    }
}

/// Ids of a form: a trust domain and the parts of a path, `None` for any one part.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Pattern {
    trust_domain: String,
    parts: Vec<Option<String>>,
}

impl Pattern {
    fn parse(text: &str, trust_domain: &str, namespace: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "'{text}' is neither the name of a service account, nor NAMESPACE/NAME, nor spiffe://TRUST_DOMAIN/PATH, each with \
                 '*' for any one part"
            )
        };
        let (domain, path): (&str, Vec<&str>) = match text.strip_prefix("spiffe://") {
            Some(rest) => {
                let mut parts = rest.split('/');
                (parts.next().unwrap_or_default(), parts.collect())
            }
            None => match text.split_once('/') {
                Some((namespace, name)) => (trust_domain, vec!["ns", namespace, "sa", name]),
                None => (trust_domain, vec!["ns", namespace, "sa", text]),
            },
        };
        let good = |part: &&str| *part == "*" || is_segment(part);
        if !is_trust_domain(domain) || path.is_empty() || !path.iter().all(good) {
            return Err(wrong());
        }
        Ok(Self {
            trust_domain: domain.to_owned(),
            parts: path
                .into_iter()
                .map(|part| (part != "*").then(|| part.to_owned()))
                .collect(),
        })
    }

    fn matches(&self, id: &SpiffeId) -> bool {
        if id.trust_domain() != self.trust_domain {
            return false;
        }
        let mut parts = id.path().split('/').skip(1);
        let all = self.parts.iter().all(|wanted| {
            parts
                .next()
                .is_some_and(|part| wanted.as_ref().is_none_or(|wanted| wanted == part))
        });
        all && parts.next().is_none()
    }
}

/// Who plays which role, and who may call this service.
#[derive(Debug, Clone)]
pub struct Roster {
    role: Workload,
    plays: Vec<(Workload, Vec<Pattern>)>,
    /// In the place of the table, where the operator names the callers.
    callers: Option<Vec<Pattern>>,
}

impl Roster {
    /// The roster of a service of this role, whose own trust domain and namespace short names are of.
    ///
    /// # Errors
    /// All entries that are none, with their keys.
    pub(super) fn new(
        role: Workload,
        identities: &Identities,
        callers: Option<&[String]>,
        trust_domain: &str,
        namespace: &str,
        mistakes: &mut Mistakes,
    ) -> Self {
        let mut read = |key: &str, list: &[String]| -> Vec<Pattern> {
            list.iter()
                .filter_map(|text| {
                    Pattern::parse(text, trust_domain, namespace)
                        .map_err(|what| mistakes.add(key, what))
                        .ok()
                })
                .collect()
        };
        let plays = identities
            .lists()
            .into_iter()
            .map(|(role, list)| (role, read(&format!("trust.identities.{}", role.name()), list)))
            .collect();
        let callers = callers.map(|list| read("trust.callers", list));
        Self { role, plays, callers }
    }

    /// The role of this service.
    #[must_use]
    pub const fn role(&self) -> Workload {
        self.role
    }

    /// The role that a workload plays.
    #[must_use]
    pub fn workload_of(&self, id: &SpiffeId) -> Option<Workload> {
        self.plays
            .iter()
            .find(|(_, patterns)| patterns.iter().any(|pattern| pattern.matches(id)))
            .map(|(role, _)| *role)
    }

    /// Whether a workload may call this service.
    ///
    /// # Errors
    /// Says why not.
    pub fn admit(&self, id: &SpiffeId) -> Result<(), String> {
        let admitted = match &self.callers {
            Some(callers) => callers.iter().any(|pattern| pattern.matches(id)),
            None => self
                .workload_of(id)
                .is_some_and(|caller| self.role.admits(caller)),
        };
        if admitted {
            return Ok(());
        }
        Err(match (&self.callers, self.workload_of(id)) {
            (Some(_), _) => format!("{id} is not among `trust.callers`"),
            (None, None) => format!("{id} is in no list of `trust.identities`"),
            (None, Some(caller)) => format!(
                "{id} (of `trust.identities.{}`) may not call this service (of `trust.identities.{}`)",
                caller.name(),
                self.role.name()
            ),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roster(role: Workload, callers: Option<&[String]>, change: impl FnOnce(&mut Identities)) -> Roster {
        let mut identities = Identities::default();
        change(&mut identities);
        let mut mistakes = Mistakes::default();
        let roster = Roster::new(role, &identities, callers, "d", "ours", &mut mistakes);
        assert!(mistakes.is_empty(), "{mistakes}");
        roster
    }

    fn id(namespace: &str, name: &str) -> SpiffeId {
        SpiffeId::of_service("d", namespace, name).unwrap()
    }

    /// Who may call whom, in whole: a change of the table is to be seen here.
    #[test]
    fn each_service_admits_whom_the_table_names_and_nobody_else() {
        let callers = [
            "registry",
            "router",
            "workflow-engine",
            "muster",
            "billing",
            "reports",
            "weather",
        ];
        let admitted = |role| -> Vec<&str> {
            let roster = roster(role, None, |identities| {
                identities.writers = vec!["billing".to_owned()];
                identities.readers = vec!["reports".to_owned()];
            });
            callers
                .into_iter()
                .filter(|name| roster.admit(&id("ours", name)).is_ok())
                .collect()
        };
        assert_eq!(admitted(Workload::Registry), callers);
        assert_eq!(
            admitted(Workload::Router),
            [
                "router",
                "workflow-engine",
                "muster",
                "billing",
                "reports",
                "weather"
            ]
        );
        assert_eq!(
            admitted(Workload::Engine),
            ["workflow-engine", "muster", "billing", "reports"]
        );
        assert_eq!(admitted(Workload::Agent), ["router", "muster"]);
        let registry = roster(Workload::Registry, None, |_| ());
        for stranger in [
            id("theirs", "router"),
            SpiffeId::parse("spiffe://other/ns/ours/sa/router").unwrap(),
            SpiffeId::parse("spiffe://d/ns/ours/sa/router/x").unwrap(),
            SpiffeId::parse("spiffe://d/router").unwrap(),
            SpiffeId::parse("spiffe://d").unwrap(),
        ] {
            let refused = registry.admit(&stranger).unwrap_err();
            assert!(refused.contains("trust.identities"), "{refused}");
        }
    }

    #[test]
    fn a_workload_of_each_list_is_that_caller() {
        let roster = roster(Workload::Router, None, |identities| {
            identities.writers = vec!["billing".to_owned()];
            identities.readers = vec!["reports".to_owned(), "tenants/*".to_owned()];
        });
        let role = |namespace, name| roster.workload_of(&id(namespace, name)).map(Workload::role);
        assert_eq!(role("ours", "muster"), Some(Role::Admin));
        assert_eq!(role("ours", "billing"), Some(Role::AgentWriter));
        assert_eq!(role("ours", "reports"), Some(Role::AgentReader));
        assert_eq!(role("tenants", "x"), Some(Role::AgentReader));
        assert_eq!(role("ours", "weather"), Some(Role::Agent));
        assert_eq!(role("theirs", "weather"), None);
    }

    #[test]
    fn lists_name_others_and_callers_take_the_place_of_the_table() {
        let federated = "spiffe://other/ns/*/sa/registry";
        let roster_of = |callers| {
            roster(Workload::Registry, callers, |identities| {
                identities.registry.push(federated.to_owned());
                identities.agents = vec!["tenants/*".to_owned()];
            })
        };
        let far = SpiffeId::parse("spiffe://other/ns/eu/sa/registry").unwrap();
        let registry = roster_of(None);
        assert_eq!(registry.workload_of(&far), Some(Workload::Registry));
        assert_eq!(registry.workload_of(&id("tenants", "x")), Some(Workload::Agent));
        assert_eq!(registry.workload_of(&id("ours", "weather")), None);
        assert!(registry.admit(&far).is_ok());
        let only = ["router".to_owned()];
        let strict = roster_of(Some(&only));
        assert!(strict.admit(&id("ours", "router")).is_ok());
        assert!(strict.admit(&far).unwrap_err().contains("trust.callers"));
    }

    #[test]
    fn entries_that_are_none_are_named_by_their_keys() {
        let identities = Identities {
            router: vec!["a/b/c".to_owned(), "ok".to_owned()],
            agents: vec!["spiffe://D/x".to_owned(), "spiffe://d".to_owned(), String::new()],
            ..Identities::default()
        };
        let mut mistakes = Mistakes::default();
        let callers = ["a b".to_owned()];
        Roster::new(
            Workload::Agent,
            &identities,
            Some(&callers),
            "d",
            "ours",
            &mut mistakes,
        );
        let keys: Vec<_> = mistakes.iter().map(|(key, _)| key).collect();
        assert_eq!(
            keys,
            [
                "trust.identities.router",
                "trust.identities.agents",
                "trust.identities.agents",
                "trust.identities.agents",
                "trust.callers"
            ]
        );
    }
}
