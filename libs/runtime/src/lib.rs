//! The chassis of every Muster service: what a service needs around its idea.
//!
//! A service parses its configuration ([`config`]), binds its ports ([`Listeners`]) before any heavy work, builds
//! a [`Chassis`] and hands it a [`Surface`] (its gRPC services and HTTP routes). The chassis serves them with
//! health, readiness, metrics and reflection, supervises the background tasks ([`Tasks`]) and drains on
//! [`Shutdown`].
//!
//! Invariants:
//! - Nothing here is global but what belongs to the process (the allocator, the log subscriber, the hook that logs
//!   panics, the name of the environment, where traces go): several services run in one process (`muster dev`), each with its own
//!   metrics, health and shutdown.
//! - Readiness is a latch and a set of checks; `grpc.health.v1` says the same as `/ready`.
//! - No task is detached: what was spawned is named, its panic is caught and told, and an essential task's end
//!   ends the service.
//!
//! Rejected: a global metrics recorder (two services in one process would share counters), `axum::serve` (no
//! bound on headers and streams, no forced end of a drain).

mod admin;
pub mod background;
pub mod chassis;
pub mod clock;
pub mod config;
pub mod data_directory;
mod entry;
mod error;
pub mod health;
mod http;
mod listeners;
mod machine;
pub mod metrics;
mod probe;
pub mod recent;
mod reload;
pub mod server;
mod shutdown;
mod surface;
mod tasks;
pub mod telemetry;
pub mod trace;
pub mod transcode;
pub mod trust;
pub mod workers;

/// Every program is made of many small and short-lived values: messages, headers, tasks. The allocator of glibc took a seventh
/// more processor time for a step of a workflow, and jemalloc hardly less than that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

pub use chassis::Chassis;
pub use entry::main;
pub use error::Error;
pub use health::{Health, Latch};
pub use listeners::Listeners;
pub use metrics::Metrics;
pub use shutdown::Shutdown;
pub use surface::Surface;
pub use tasks::Tasks;
pub use transcode::refused;
