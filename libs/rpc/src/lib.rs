//! The client stack: what every caller of another service needs, one idea per file.
//!
//! [`endpoint`] reads addresses, [`channel`] opens connections, [`direct`] those of calls that cost little, [`gather`] lets them
//! write less often, [`outbound`] those that a caller
//! asked for, [`loss`] says of a call whose connection was lost whether it can have been done, [`deadline`] carries remaining time, [`sse`] reads event streams, [`reread`] files that an
//! operator replaces. [`backoff`], [`following`],
//! [`breaker`] and [`retry_budget`] are plain data and functions: they take the present time and random numbers
//! as arguments, so that a thousand schedules can be tried in a millisecond.
//!
//! These are parts and not a stack of tower layers, because their users differ in what they share: the router
//! keeps one breaker per instance and one budget for all, an agent's heartbeat needs the backoff alone.

pub mod backoff;
pub mod breaker;
pub mod channel;
pub mod deadline;
pub mod direct;
pub mod endpoint;
pub mod following;
pub mod gather;
pub mod loss;
pub mod outbound;
pub mod reread;
pub mod retry_budget;
pub mod sse;
