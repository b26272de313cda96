//! What a check is: a question about a target, what it needs, and how it came out.
//!
//! There are three outcomes. What cannot be asked of a target is skipped with the reason, and never passed: a report that says
//! less than it seems to is worse than none.

use std::fmt;
use std::pin::Pin;
use std::time::Duration;

use clap::ValueEnum;
use serde_json::{Map, Value};

use super::target::hands::Role;
use super::trial::Trial;
use crate::failure::Failure;

/// What a check is about, in the order in which they are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Area {
    /// Everything is up, registered, and finds the others.
    Initialisation,
    /// What is said of one's own health, in every state.
    Health,
    /// Real workflows, more and more at a time.
    Load,
    /// Parts that are killed and cut off.
    Failover,
    /// What is not let in.
    Security,
    /// What can be seen of it.
    Monitoring,
    /// Replicas that come and go.
    Scaling,
}

impl Area {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Initialisation,
        Self::Health,
        Self::Load,
        Self::Failover,
        Self::Security,
        Self::Monitoring,
        Self::Scaling,
    ];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Initialisation => "initialisation",
            Self::Health => "health",
            Self::Load => "load",
            Self::Failover => "failover",
            Self::Security => "security",
            Self::Monitoring => "monitoring",
            Self::Scaling => "scaling",
        }
    }
}

/// What a check needs of a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Processes that this command has started itself.
    OwnStack,
    /// A target that nobody else uses, or leave to disturb those who do.
    Leave,
    /// Leave to harm a part of this kind, and hands to do it; where it has replicas, there must be some.
    Harm(Role),
    /// Hands to cut a part off from the others.
    Network,
    /// Where the parts say how they are.
    HealthAddresses,
    /// Where the parts show their metrics.
    MetricsAddresses,
    /// The key that callers' tokens are signed with.
    TokenKey,
    /// Certificates by which the services know each other.
    MutualTls,
    /// The audit logs.
    AuditLog,
    /// A Prometheus.
    Prometheus,
    /// An Alertmanager, and where it can reach this command.
    Alertmanager,
    /// Where traces go.
    Traces,
}

impl Need {
    /// What is needed, in words.
    pub const fn describe(self) -> &'static str {
        match self {
            Self::OwnStack => "a stack of its own (`--target local`)",
            Self::Leave => "a stack of its own, or --destructive",
            Self::Harm(Role::Registry) => {
                "a stack of its own, or --destructive with --operate-with PROGRAM and --part registry=NAME"
            }
            Self::Harm(Role::Router) => {
                "two routers: a stack of its own over Redis, or --destructive with --operate-with PROGRAM and --part router=NAME"
            }
            Self::Harm(Role::Engine) => {
                "two engines: a stack of its own over Redis, or --destructive with --operate-with PROGRAM and --part engine=NAME"
            }
            Self::Harm(Role::Agent) => {
                "a stack of its own, or --destructive with --operate-with PROGRAM and --part agent=NAME of one of several instances"
            }
            Self::Harm(Role::Redis) => {
                "a stack of its own over Redis, or --destructive with --operate-with PROGRAM and --part redis=NAME"
            }
            Self::Network => {
                "a network of its own (as root, with `unshare`, `ip` and `iptables`), or --destructive with --operate-with PROGRAM"
            }
            Self::HealthAddresses => "the addresses of the health ports (--endpoints FILE)",
            Self::MetricsAddresses => "the addresses of the metrics ports (--endpoints FILE)",
            Self::TokenKey => "the key that tokens are signed with (--token-key FILE)",
            Self::MutualTls => "mutual TLS (--certificates DIR)",
            Self::AuditLog => "the audit logs (--audit-dir DIR)",
            Self::Prometheus => "a Prometheus (--prometheus URL)",
            Self::Alertmanager => {
                "an Alertmanager that reaches this command (--alertmanager URL and --alert-listen ADDRESS)"
            }
            Self::Traces => {
                "a store of traces (--traces URL), or that they are sent here (--traces-listen ADDRESS)"
            }
        }
    }
}

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It is as it must be.
    Passed,
    /// It is not.
    Failed,
    /// It could not be found out.
    Skipped,
}

impl Outcome {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Passed => "passed",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
        }
    }
}

/// What was seen, for people and in figures.
#[derive(Debug, Default)]
pub struct Evidence {
    /// In a sentence.
    pub text: String,
    /// What was measured.
    pub figures: Map<String, Value>,
}

impl Evidence {
    /// Something that was seen.
    pub fn new(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            figures: Map::new(),
        }
    }

    /// Adds a figure.
    pub fn figure(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.figures.insert(name.to_owned(), value.into());
        self
    }
}

/// Why a check did not pass.
#[derive(Debug)]
pub enum Stop {
    /// It is not as it must be.
    Failed(String),
    /// It cannot be found out here.
    Skipped(String),
}

impl Stop {
    /// It is not as it must be.
    pub fn failed(what: impl Into<String>) -> Self {
        Self::Failed(what.into())
    }

    /// It cannot be found out here.
    pub fn skipped(why: impl Into<String>) -> Self {
        Self::Skipped(why.into())
    }
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure.message)
    }
}

/// What a check comes to.
pub type Verdict = Result<Evidence, Stop>;

/// A check at work.
pub type Work<'t> = Pin<Box<dyn Future<Output = Verdict> + 't>>;

/// A question about a target.
pub struct Check {
    /// What it is about.
    pub area: Area,
    /// What must be so, in a few words; unique.
    pub name: &'static str,
    /// What it needs.
    pub needs: &'static [Need],
    /// How it is found out.
    pub run: for<'t> fn(&'t mut Trial) -> Work<'t>,
}

impl fmt::Debug for Check {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.area.name(), self.name)
    }
}

/// A check that was made, or could not be.
#[derive(Debug)]
pub struct Done {
    /// What it is about.
    pub area: Area,
    /// What must be so.
    pub name: &'static str,
    /// How it came out.
    pub outcome: Outcome,
    /// What was seen, what is wrong, or why it was skipped.
    pub told: String,
    /// What was measured.
    pub figures: Map<String, Value>,
    /// How long it took.
    pub took: Duration,
}

impl Done {
    /// What a check came to after so long.
    pub fn of(check: &Check, verdict: Verdict, took: Duration) -> Self {
        let (outcome, told, figures) = match verdict {
            Ok(evidence) => (Outcome::Passed, evidence.text, evidence.figures),
            Err(Stop::Failed(what)) => (Outcome::Failed, what, Map::new()),
            Err(Stop::Skipped(why)) => (Outcome::Skipped, why, Map::new()),
        };
        Self {
            area: check.area,
            name: check.name,
            outcome,
            told,
            figures,
            took,
        }
    }
}
