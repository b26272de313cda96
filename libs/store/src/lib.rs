//! Embedded storage: one locked directory, one log-structured database in it, and group commit. For [`redis`], see there.
//!
//! A service that needs durable state opens a [`Database`] in its data directory, takes the [`Keyspace`]s it
//! needs, reads them directly and writes through [`Database::commit`]. What is relied upon:
//!
//! - **Durable before acknowledged.** `commit` answers after the batch is on disk (`fdatasync`), never before.
//! - **One fsync for many callers.** A single writer thread gathers the batches that wait while it syncs and
//!   writes them as one. Throughput grows with the number of callers; a lone caller waits for one fsync.
//! - **Atomic, conditional batches.** A batch is written whole or not at all, across keyspaces. It may carry
//!   expectations about keys (absent, or equal to a value), checked by the writer at the moment of writing, also
//!   against the batches before it in the same group: this is what fences a second owner of a journal.
//! - **Stops at the first failed write.** After an I/O error the state of the file is unknown, so everything
//!   after it is refused with the file's name until the process starts again and recovers what was acknowledged.
//! - **Formats are checked first.** A plain `format` file names what the directory holds and in which version; a
//!   newer version or another service's directory is refused before anything is opened or changed.
//! - **Damage is reported, a torn end is repaired.** See [`journal`](mod@crate::journal).
//! - **What is encrypted can be read with its keys alone.** See [`seal`](mod@crate::seal).
//! - **A backup is one moment.** [`Database::back_up`] streams all of it while it works; see [`backup`](mod@crate::backup).
//!
//! Rejected: SQLite (a C library in every service, and one writer that syncs per transaction), an own file format
//! (recovery and compaction are where such formats lose data), a commit timer that waits for more callers (it
//! delays the lone caller and gains nothing, because the fsync itself is the gathering time).

pub mod backup;
mod batch;
mod commit;
mod database;
mod error;
mod format;
pub mod journal;
mod keyspace;
mod layout;
pub mod redis;
mod seal;
mod visible;

pub use batch::Batch;
pub use database::{Database, Limits};
pub use error::{CommitError, Error};
pub use format::Format;
pub use keyspace::{Entries, Entry, Keyspace};
pub use seal::{BadKeys, Keys};
