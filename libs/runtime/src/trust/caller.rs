//! On whose behalf a request is made.
//!
//! A [`Caller`] is what a token, a workload's certificate or the word of one of our own services says. It is made in one place
//! ([`super::gate`]) and travels with the request: in its extensions ([`super::Access`]), and to the next service as the header
//! [`ON_BEHALF_OF`], which the gate writes anew or takes away. So whoever reads that header behind the gate reads the gate's
//! word, and may keep it: the text of a caller is what an inbox entry or a run remembers of who has asked for it.

use std::fmt;
use std::sync::{Arc, LazyLock, OnceLock};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};

use super::grants::Grants;
use super::spiffe::SpiffeId;

/// Metadata key under which one of our services names the caller on whose behalf it calls.
pub const ON_BEHALF_OF_METADATA: &str = "muster-on-behalf-of";

/// The same as a header.
pub const ON_BEHALF_OF: HeaderName = HeaderName::from_static(ON_BEHALF_OF_METADATA);

/// Who calls where callers are not told apart: on a machine's own loopback.
pub const ANYBODY: &str = "anybody";

/// Who calls without having said who he is.
const UNKNOWN: &str = "unknown";

/// Longest text of a caller in a header.
const LONGEST: usize = 8 << 10;

/// What somebody may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// May look: agents, own tasks, own runs.
    AgentReader,
    /// May have agents work, too, and run workflows.
    AgentWriter,
    /// Is one of our services, whose word is taken for on whose behalf a call is.
    Service,
    /// May do everything, and sees everybody's.
    Admin,
    /// Is an agent: registers itself, takes out the messages that were left for it, and has other agents work as itself. On whose behalf
    /// that is, it may not say.
    Agent,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 5] = [
        Self::AgentReader,
        Self::AgentWriter,
        Self::Service,
        Self::Admin,
        Self::Agent,
    ];

    /// The name, as in claims and in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::AgentReader => "agent-reader",
            Self::AgentWriter => "agent-writer",
            Self::Service => "service",
            Self::Admin => "admin",
            Self::Agent => "agent",
        }
    }

    /// The role of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.name() == name)
    }

    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

impl fmt::Display for Role {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}

/// A set of roles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(from = "Vec<Role>", into = "Vec<Role>")]
pub struct Roles(u8);

impl Roles {
    /// Whether the role is one of them.
    #[must_use]
    pub const fn has(self, role: Role) -> bool {
        self.0 & role.bit() != 0
    }

    /// Each of them.
    pub fn iter(self) -> impl Iterator<Item = Role> {
        Role::ALL.into_iter().filter(move |role| self.has(*role))
    }
}

impl FromIterator<Role> for Roles {
    fn from_iter<I: IntoIterator<Item = Role>>(roles: I) -> Self {
        Self(roles.into_iter().fold(0, |bits, role| bits | role.bit()))
    }
}

impl From<Vec<Role>> for Roles {
    fn from(roles: Vec<Role>) -> Self {
        roles.into_iter().collect()
    }
}

impl From<Roles> for Vec<Role> {
    fn from(roles: Roles) -> Self {
        roles.iter().collect()
    }
}

/// What kind of caller it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A person or a program of others.
    EndUser,
    /// A workload of ours that calls for itself.
    Service,
}

/// On whose behalf a request is made. Cheap to clone behind its `Arc`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Who it is; [`ANYBODY`] where callers are not told apart.
    pub subject: Arc<str>,
    /// Who says so, of a token.
    pub issuer: Option<Arc<str>>,
    /// What kind of caller it is.
    pub kind: Kind,
    /// What it may do.
    pub roles: Roles,
    /// Which agents, skills and namespaces it may reach.
    pub grants: Grants,
    key: Arc<str>,
    header: Header,
}

/// A caller's text as a header, made when it is first asked for: a token's caller is the same for all requests with that token.
///
/// It follows from the other fields. So it makes no two callers differ, and a copy, which may get other grants, begins without it.
#[derive(Debug, Default)]
struct Header(OnceLock<Option<HeaderValue>>);

impl Clone for Header {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl PartialEq for Header {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Header {}

/// A caller on the wire and in stores. Fields are only added.
#[derive(Serialize, Deserialize)]
struct Written {
    sub: Arc<str>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    iss: Option<Arc<str>>,
    kind: Kind,
    roles: Roles,
    #[serde(flatten)]
    grants: Grants,
}

impl Caller {
    /// A caller. Its [`key`](Self::key) is made of kind, issuer and subject.
    #[must_use]
    pub fn new(kind: Kind, issuer: Option<&str>, subject: &str, roles: Roles, grants: Grants) -> Arc<Self> {
        let key = match kind {
            Kind::EndUser => format!("user:{}:{subject}", issuer.unwrap_or_default()),
            Kind::Service => format!("service:{subject}"),
        };
        Arc::new(Self {
            subject: Arc::from(subject),
            issuer: issuer.map(Arc::from),
            kind,
            roles,
            grants,
            key: Arc::from(key),
            header: Header::default(),
        })
    }

    /// The same with other grants.
    #[must_use]
    pub fn with_grants(&self, grants: Grants) -> Arc<Self> {
        Arc::new(Self {
            grants,
            ..self.clone()
        })
    }

    /// Whoever reaches a loopback interface on which nobody is told apart: an admin.
    #[must_use]
    pub fn anybody() -> Arc<Self> {
        static ANYONE: LazyLock<Arc<Caller>> = LazyLock::new(|| Caller::named(ANYBODY, &[Role::Admin]));
        Arc::clone(&ANYONE)
    }

    /// Somebody who has said nothing, on a path that everybody may use.
    #[must_use]
    pub fn unknown() -> Arc<Self> {
        static UNKNOWN_CALLER: LazyLock<Arc<Caller>> = LazyLock::new(|| Caller::named(UNKNOWN, &[]));
        Arc::clone(&UNKNOWN_CALLER)
    }

    /// Whether it is somebody who has not said who he is.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        &*self.key == UNKNOWN
    }

    /// One whose key is its name.
    fn named(name: &str, roles: &[Role]) -> Arc<Self> {
        Arc::new(Self {
            subject: Arc::from(name),
            issuer: None,
            kind: Kind::EndUser,
            roles: roles.iter().copied().collect(),
            grants: Grants::default(),
            key: Arc::from(name),
            header: Header::default(),
        })
    }

    /// A stable name that no two callers share: the scope of deduplication, fair turns, limits and ownership.
    #[must_use]
    pub fn key(&self) -> Arc<str> {
        Arc::clone(&self.key)
    }

    /// Whether it is nobody in particular, because callers are not told apart.
    #[must_use]
    pub fn is_anybody(&self) -> bool {
        &*self.key == ANYBODY
    }

    /// Whether it sees everybody's tasks, entries and runs.
    #[must_use]
    pub fn sees_all(&self) -> bool {
        self.roles.has(Role::Admin)
    }

    /// Whether it may do what is an agent's own; see [`super::Access::acts_as`].
    pub(super) fn acts_as(&self, target: &str) -> bool {
        // A certificate has no issuer of tokens, and names a workload.
        let workload = SpiffeId::parse(&self.subject)
            .ok()
            .filter(|_| self.issuer.is_none());
        let account = workload.as_ref().and_then(|id| id.path().rsplit('/').next());
        let is_agent = self.roles.has(Role::Agent) && account.unwrap_or(&self.subject) == target;
        let is_service =
            self.roles.has(Role::Service) && workload.is_none() && self.grants.reaches_target(target);
        let is_granted = (self.roles.has(Role::Agent) || self.roles.has(Role::Service))
            && self.grants.names_target(target);
        self.sees_all() || is_granted || is_agent || is_service
    }

    /// Whether something that this caller owns is its own, or may be seen all the same. What has no known owner is an
    /// admin's to see.
    #[must_use]
    pub fn may_see(&self, owner: Option<&str>) -> bool {
        self.sees_all() || owner == Some(&*self.key)
    }

    /// The text by which the caller travels and is kept.
    #[must_use]
    pub fn to_text(&self) -> String {
        let written = Written {
            sub: Arc::clone(&self.subject),
            iss: self.issuer.clone(),
            kind: self.kind,
            roles: self.roles,
            grants: self.grants.clone(),
        };
        URL_SAFE_NO_PAD.encode(serde_json::to_vec(&written).unwrap_or_default())
    }

    /// The same as a header; nothing for [`Self::anybody`].
    #[must_use]
    pub fn to_header(&self) -> Option<HeaderValue> {
        if self.is_anybody() {
            return None;
        }
        let made = || HeaderValue::from_str(&self.to_text()).ok();
        self.header.0.get_or_init(made).clone()
    }

    /// Reads the text of a caller.
    ///
    /// # Errors
    /// It is none.
    pub fn from_text(text: &str) -> Result<Arc<Self>, &'static str> {
        const WRONG: &str = "is not a caller as our services write it";
        if text.len() > LONGEST {
            return Err(WRONG);
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| WRONG)?;
        let Written {
            sub,
            iss,
            kind,
            roles,
            grants,
        } = serde_json::from_slice(&bytes).map_err(|_| WRONG)?;
        Ok(Self::new(kind, iss.as_deref(), &sub, roles, grants))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_caller_survives_its_journey(
            subject in "[^\\x00]{1,40}", issuer in proptest::option::of(".{0,20}"), bits in 0_u8..32,
            targets in proptest::option::of(proptest::collection::vec("[a-z:*-]{1,12}", 0..4)), noise in ".{0,60}",
        ) {
            let roles = Role::ALL.into_iter().filter(|role| bits & role.bit() != 0).collect();
            let grants = Grants { targets: targets.map(|all| all.iter().map(|one| Arc::from(one.as_str())).collect()), namespaces: None };
            for kind in [Kind::EndUser, Kind::Service] {
                let caller = Caller::new(kind, issuer.as_deref(), &subject, roles, grants.clone());
                prop_assert_eq!(&*Caller::from_text(&caller.to_text()).unwrap(), &*caller);
                prop_assert_ne!(&*caller.key(), ANYBODY);
            }
            prop_assert!(Caller::from_text(&noise).is_err());
        }
    }

    #[test]
    fn an_agent_acts_under_its_own_name_and_a_service_by_its_token() {
        let caller = |issuer, subject: &str, role, targets: Option<&[&str]>| {
            let targets = targets.map(|targets| targets.iter().map(|target| Arc::from(*target)).collect());
            let grants = Grants {
                targets,
                namespaces: None,
            };
            Caller::new(
                Kind::Service,
                issuer,
                subject,
                [role].into_iter().collect(),
                grants,
            )
        };
        let certificate = "spiffe://d/ns/agents/sa/weather";
        for (who, acts) in [
            (caller(None, certificate, Role::Agent, None), true),
            (
                caller(None, "spiffe://d/ns/agents/sa/rogue", Role::Agent, None),
                false,
            ),
            (
                caller(
                    None,
                    "spiffe://d/ns/agents/sa/rogue",
                    Role::Agent,
                    Some(&["weather"]),
                ),
                true,
            ),
            (
                caller(
                    None,
                    "spiffe://d/ns/agents/sa/rogue",
                    Role::Agent,
                    Some(&["planning"]),
                ),
                false,
            ),
            // A service of ours is no agent, whatever its certificate's name.
            (
                caller(None, "spiffe://d/ns/agents/sa/router", Role::Service, None),
                false,
            ),
            (caller(None, certificate, Role::Service, None), false),
            (caller(Some("us"), "weather", Role::Agent, None), true),
            (caller(Some("us"), "rogue", Role::Agent, None), false),
            // The name of a workload in a token is a name.
            (caller(Some("us"), certificate, Role::Agent, None), false),
            (caller(Some("us"), "deployer", Role::Service, None), true),
            (
                caller(Some("us"), "deployer", Role::Service, Some(&["planning"])),
                false,
            ),
            (
                caller(Some("us"), "ada", Role::AgentWriter, Some(&["weather"])),
                false,
            ),
            (caller(Some("us"), "root", Role::Admin, None), true),
        ] {
            assert_eq!(who.acts_as("weather"), acts, "{who:?}");
            assert!(!who.acts_as("skill:forecast") || who.issuer.is_some(), "{who:?}");
        }
        assert!(Caller::anybody().acts_as("weather"));
    }

    #[test]
    fn a_caller_with_other_grants_travels_with_those() {
        let ada = Caller::new(
            Kind::EndUser,
            Some("us"),
            "ada",
            Roles::default(),
            Grants::default(),
        );
        let text = |caller: &Caller| caller.to_header().unwrap().to_str().unwrap().to_owned();
        assert_eq!(text(&ada), ada.to_text());
        let grants = Grants {
            targets: Some(vec![Arc::from("weather")]),
            namespaces: None,
        };
        let less = ada.with_grants(grants);
        assert_eq!(text(&less), less.to_text());
        assert_ne!(text(&less), text(&ada));
        assert!(Caller::anybody().to_header().is_none());
    }

    #[test]
    fn a_caller_sees_its_own_and_an_admin_everything() {
        let of = |subject, role| {
            Caller::new(
                Kind::EndUser,
                Some("us"),
                subject,
                [role].into_iter().collect(),
                Grants::default(),
            )
        };
        let (ada, eve, root) = (
            of("ada", Role::AgentWriter),
            of("eve", Role::AgentWriter),
            of("root", Role::Admin),
        );
        let owner = ada.key();
        assert!(ada.may_see(Some(&owner)) && root.may_see(Some(&owner)) && root.may_see(None));
        assert!(!eve.may_see(Some(&owner)) && !eve.may_see(None));
        assert!(Caller::anybody().may_see(Some(&owner)));
    }
}
