//! What tests of several crates share: waiting for a condition, real processes, fake agents, real Redis, plain HTTP, tokens.
//!
//! Everything here panics with a full account (what was awaited, what a process said on stderr) in place of
//! returning errors: the caller is a test, and the account is what its reader needs. Nothing here sleeps for a
//! guessed time; [`wait_for`] is the one place that pauses, and it pauses only between two looks at a condition.
//!
//! The crate does not depend on `muster-runtime`, so that the runtime's own tests can use it.

mod fake_agent;
mod fake_bucket;
pub mod frames;
pub mod http;
mod issuer;
mod key;
mod poll;
mod ports;
mod process;
mod redis;

pub use fake_agent::{Answer, Call, FakeAgent};
pub use fake_bucket::FakeBucket;
pub use issuer::{BadToken, Issuer};
pub use key::write_signing_key;
pub use poll::{Outcome, wait_for};
pub use ports::Ports;
pub use process::{Process, Program};
pub use redis::{RedisCluster, RedisSentinels, RedisServer};
