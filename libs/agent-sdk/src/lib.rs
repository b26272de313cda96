//! Write an agent in one file: implement [`Agent`], describe it with a [`Card`], and call [`run`].
//!
//! The SDK is the imperative shell around an agent's idea. It serves A2A 1.0 on all three bindings from one port,
//! keeps task states, streams, cancels, bounds and refuses, registers with the registry, reports load, drains.
//! The agent sees a [`Request`], speaks through a [`Task`] while it works, and returns a [`Reply`] or a
//! [`Failure`]; it knows neither gRPC nor HTTP nor the registry.
//!
//! ```text
//! (muster-a2a)      the bindings: decode, call, encode
//!   service.rs      bounds, admission, every operation
//!     tasks.rs      the tasks, their followers, the store     push.rs    their events to webhooks
//!   execution.rs    one message at work
//!     Agent         the idea
//! ```
//!
//! Invariants that hold whatever an agent does:
//!
//! * A task always reaches a state in which nobody waits in vain: a panic, an error, a timeout or an answer that is
//!   too large end it as FAILED or REJECTED with a message.
//! * At most `agent.max_concurrent_tasks` handlers run; a message beyond that is refused with RESOURCE_EXHAUSTED
//!   before a task exists, so that a caller can go elsewhere at once. Queueing here as well as in the router was
//!   rejected: two queues hide each other's length.
//! * A message that its caller sends again within ten minutes is not worked on again.
//! * Stored tasks are bounded in number and in bytes; finished ones leave first.
//! * With a data directory tasks survive the process, and what was at work when it was killed ends or goes on. In Redis they are
//!   those of all instances of the agent: each answers for all, and one follows where another dies.
//! * All who follow a task see the same events in the same order.
//! * Registration never gives up and never stands in the way of serving.
//!
//! An answer has a fixed shape, on which workflows rely: `artifacts[0]` is named `result`, its first part is the
//! structured JSON, its second the summary for people, which is also the status message. Other artifacts follow.

mod agent;
mod card;
mod config;
mod events;
mod execution;
mod http;
mod input;
pub mod metrics;
mod opening;
mod pages;
mod push;
mod registration;
mod reply;
mod request;
mod running;
mod sent;
mod serve;
mod service;
mod task;
mod tasks;

pub use a2a::Part;
pub use agent::Agent;
pub use card::{Card, Extension, Skill};
pub use config::{AgentConfig, Config, NoSettings, Redis, Section};
pub use input::parse;
pub use reply::{Artifact, Failure, Reply};
pub use request::{File, Request};
pub use serve::run;
pub use task::{OpenArtifact, Task};
