//! Redis plumbing: standalone, Sentinel or Cluster, chosen by one URL.
//!
//! What is relied upon:
//!
//! - **One multiplexed connection** per [`Connection`], shared by its clones. What callers send at the same time travels
//!   without waiting for each other's answers; there is no pool to size. It is made again when it breaks, by one caller for
//!   all who wait.
//! - **Every call ends.** A command has a deadline; what may have been lost is sent again with growing pauses until the
//!   caller's patience ends. So everything that is sent must be idempotent: a script that writes carries a token and answers
//!   the same when it comes twice.
//! - **Errors say what became of it**: [`Error::Refused`] did nothing and says what to do, [`Error::Unreachable`] was never
//!   taken, [`Error::Unknown`] may have been done.
//! - **Scripts by hash**, sent in full where Redis does not know them (after a restart or a failover).
//! - **Fenced leases** in the slot of what they guard: see [`lease`].
//!
//! Durability is Redis's: with `appendonly yes` and `appendfsync always` an answer means that it is on disk; with `everysec`
//! about a second of acknowledged work can be lost when the machine fails; without `appendonly`, all since the last snapshot.
//! A failover to a replica can lose what had not reached it. [`Connection::survey`] tells what is set.
//!
//! Rejected: the client crate's own reconnecting manager (its retries cannot be told from first tries, and it hides why a
//! connection fails), a pool (each connection costs Redis memory and gains nothing for commands that do not block), `WAIT`
//! after each write (it makes a failover lose less, at the price of a round trip, and still promises nothing).

mod address;
mod backoff;
mod connection;
mod error;
pub mod lease;
mod link;
pub mod members;
pub mod opening;
mod script;
pub mod settings;
mod slot;
mod survey;

pub use address::{Address, InvalidAddress};
pub use connection::{Connection, Options};
pub use error::Error;
pub use opening::OpenError;
pub use redis::{Cmd, FromRedisValue, Value, cmd};
pub use script::{Call, Script};
pub use settings::Settings;
pub use slot::Slot;
pub use survey::Survey;
