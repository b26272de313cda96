//! Faults that registry and router have to bear, each with real processes and seen from outside: what does a client notice?
//!
//! ```text
//! system.rs          a registry, routers and agents as processes, and clients of them
//! worker.rs          the agent: this executable, started again
//! agents.rs          agents that are killed, hang, or can no longer be reached
//! control_plane.rs   a registry that is away, also for longer than any lease; two routers that share nothing
//! failing.rs         a Redis that fails over, by Sentinels or within a Cluster
//! behind.rs          engines over a Cluster of which a server is followed by one that lacks the last writes
//! redis.rs           registries that are one by a Redis, which is lost, emptied, or fails over
//! two_routers.rs     two routers over one Redis, which fails over; routers that are killed
//! front.rs           one address for two routers
//! runs.rs            runs whose calls go through two routers, which are stopped and killed
//! waiting.rs         services that start while their Redis is away
//! kept.rs            two registries that keep an agent by its card, of which the keeper is killed
//! shared_tasks.rs    instances that share their tasks in a Redis, of which one is killed or frozen; the Redis restarts, or fails over
//! inbox.rs           routers that are killed while messages wait; their Redis fails over
//! native.rs          services that speak mutual TLS with each other, new certificates under way, strangers
//! sidecars.rs        a mesh of two Envoys, and what does not get through it
//! regions.rs         three regions, of which a part is away
//! attacker.rs        the scripted attacker: each attack with its answer and its line in the audit log
//! stalled.rs         clients that stop reading
//! clients.rs         clients that send slowly, too much, or nonsense
//! ```
//!
//! Nothing here measures time. Where a test has a bound, it is part of a promise: a deadline, or a lease.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod agents;
mod attacker;
mod behind;
mod clients;
mod control_plane;
mod failing;
mod front;
mod inbox;
mod kept;
mod native;
mod redis;
mod regions;
mod runs;
mod shared_tasks;
mod sidecars;
mod stalled;
mod system;
mod two_routers;
mod waiting;
mod worker;
