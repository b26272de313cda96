//! An instance of an agent: what it says of itself once ([`Profile`]) and again and again ([`Report`]).
//!
//! The types are parsed, not validated: whoever holds one knows that its fields are good. [`wire`] is the only way
//! in from the contract's messages and back. A profile never changes during a registration and is shared, so that
//! copying an [`Instance`] for a reader or a watcher is cheap however large its card is.

pub mod card;
mod origin;
pub mod wire;

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use muster_rpc::endpoint::Endpoint;
use muster_runtime::trust::SpiffeId;
use url::Url;
use uuid::Uuid;

pub use card::Card;
pub use origin::Origin;

/// Why an instance, or a request about one, was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct Error {
    /// Path of the field at fault in the request.
    pub field: String,
    /// What is wrong and what is allowed.
    pub message: String,
}

impl Error {
    /// The field is wrong in the way that the message says.
    pub fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            message: message.into(),
        }
    }
}

/// Whose instance of which agent. The order groups an agent's instances.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// Whose agent it is; a DNS label.
    pub namespace: Arc<str>,
    /// The agent; a DNS label.
    pub agent_id: Arc<str>,
    /// The instance.
    pub instance_id: Uuid,
}

/// What an instance says of itself when it registers.
#[derive(Debug, Clone, PartialEq)]
pub struct Profile {
    /// Who it is.
    pub key: Key,
    /// Its card, with at least one skill; shared with all instances that bring the same.
    pub card: Arc<Card>,
    /// Where it answers.
    pub endpoint: Endpoint,
    /// The URL at which it answers, where its binding has one.
    pub url: Option<Url>,
    /// Who it has proven to be.
    pub identity: Option<SpiffeId>,
    /// Region, or empty.
    pub region: String,
    /// Zone within the region, or empty.
    pub zone: String,
    /// The machine it runs on, where it says so.
    pub node: Option<String>,
    /// The build that runs.
    pub version: String,
    /// What answers at the endpoint.
    pub binding: Binding,
    /// Its share of new work beside the other instances of its agent, from 0 (none) to [`MAX_WEIGHT`].
    pub weight: u32,
    /// The registry of another region that keeps its lease; `None` for one of this registry's own.
    pub origin: Option<Arc<Origin>>,
}

/// The weight of an instance that names none.
pub const DEFAULT_WEIGHT: u32 = 100;
/// Largest weight.
pub const MAX_WEIGHT: u32 = 1_000;

/// A protocol binding of A2A.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Binding {
    /// gRPC.
    Grpc,
    /// JSON-RPC over HTTP.
    JsonRpc,
    /// HTTP with JSON.
    HttpJson,
}

impl Binding {
    /// Every binding.
    pub const ALL: [Self; 3] = [Self::Grpc, Self::JsonRpc, Self::HttpJson];

    /// Its name, as cards have it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Grpc => "GRPC",
            Self::JsonRpc => "JSONRPC",
            Self::HttpJson => "HTTP+JSON",
        }
    }
}

/// Readiness for work.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Status {
    /// Takes work.
    Active,
    /// Takes work, but others are preferred.
    Busy,
    /// Finishes what it has.
    Draining,
    /// Out of service by an operator's wish.
    Maintenance,
    /// Its lease ended without a goodbye; never what an instance says of itself.
    Offline,
}

impl Status {
    /// Every status.
    pub const ALL: [Self; 5] = [
        Self::Active,
        Self::Busy,
        Self::Draining,
        Self::Maintenance,
        Self::Offline,
    ];

    /// Those that a live instance reports.
    pub const REPORTED: [Self; 4] = [Self::Active, Self::Busy, Self::Draining, Self::Maintenance];

    /// Its name, in lower case.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Busy => "busy",
            Self::Draining => "draining",
            Self::Maintenance => "maintenance",
            Self::Offline => "offline",
        }
    }
}

/// A share of what an instance can do at once, from 0 (idle) to 1 (full).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Load(f64);

impl Load {
    /// Nothing to do.
    pub const IDLE: Self = Self(0.0);

    /// A load, unless the number is outside 0 to 1 or no number.
    #[must_use]
    pub fn new(load: f64) -> Option<Self> {
        // Adding 0 turns -0 into 0, which sorts and prints as people expect.
        (0.0..=1.0).contains(&load).then_some(Self(load + 0.0))
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> f64 {
        self.0
    }
}

/// What a heartbeat says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Report {
    /// Readiness for work.
    pub status: Status,
    /// How loaded it is.
    pub load: Load,
    /// Mean response time, once it has answered something.
    pub mean_latency: Option<Duration>,
    /// Tasks completed since it started.
    pub succeeded: u64,
    /// Tasks failed since it started.
    pub failed: u64,
}

impl Report {
    /// Ready and idle, without experience.
    pub const FRESH: Self = Self {
        status: Status::Active,
        load: Load::IDLE,
        mean_latency: None,
        succeeded: 0,
        failed: 0,
    };
}

/// A registered instance.
#[derive(Debug, Clone, PartialEq)]
pub struct Instance {
    /// What it said when it registered.
    pub profile: Arc<Profile>,
    /// What it said last. A drain that an operator asked for shows in the status.
    pub report: Report,
    /// When it registered.
    pub registered_at: Timestamp,
    /// When it was heard of last.
    pub last_heartbeat_at: Timestamp,
    /// Grows with every registration of the same key.
    pub epoch: u64,
}

impl Instance {
    /// Who it is.
    #[must_use]
    pub fn key(&self) -> &Key {
        &self.profile.key
    }
}
