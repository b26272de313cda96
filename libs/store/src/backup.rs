//! A copy of a database in one file, taken while the database works, and a directory made of such a file.
//!
//! What is relied upon:
//!
//! - **One moment.** A backup is read from one snapshot of all keyspaces: a batch is in it whole or not at all, and everything
//!   that was acknowledged before it began is in it. Nobody waits for it: writers go on, and what they write is not in it.
//! - **As it is stored.** What is encrypted in the database is so in the backup, with which keys it needs; they are neither in it
//!   nor needed to make or to restore it.
//! - **Bounded memory.** Writing and reading hold one block, whatever the size of the database.
//! - **All or nothing.** A file that is torn, cut off, altered or not one of ours is refused by name, and so is one of another
//!   service or version. A directory gets its name once everything in it is on disk; a crash leaves only a sibling of it, which
//!   the next attempt clears away.
//! - **Nothing is overwritten.** Only a directory that is absent or empty is restored into.
//!
//! The file is made of blocks, so that it can be a stream: whoever makes one needs to know neither how long it becomes nor how
//! to go back in it. See [`file`] for its layout.
//!
//! Rejected: copying the engine's files (they change, vanish and depend on the version of the engine, and a copy of several
//! files at different moments is no database), and compression of our own (a stream can be piped through `zstd`, which does it
//! better and in parallel).

pub mod file;
mod place;

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fjall::{PersistMode, Readable as _};
use jiff::Timestamp;
use muster_runtime::data_directory;

use self::file::{Block, Reader, Writer};
use self::place::Place;
use crate::database::is_sealed;
use crate::{Database, Format, Limits};

/// What a backup holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Name of the format of the data, such as `workflow-engine`.
    pub format: String,
    /// Version of that format.
    pub format_version: u32,
    /// The moment of the snapshot.
    pub taken_at: Timestamp,
    /// Size of the file.
    pub bytes: u64,
    /// SHA-256 of the whole file, in hex, as `sha256sum` prints it.
    pub sha256: String,
    /// The keyspaces, in order, and how many entries each has.
    pub keyspaces: Vec<(String, u64)>,
}

impl Summary {
    /// How many entries there are in all keyspaces.
    #[must_use]
    pub fn entries(&self) -> u64 {
        self.keyspaces.iter().map(|(_, entries)| entries).sum()
    }
}

/// A backup was not made, or not accepted. The first field is where: a file, or what a stream is called.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The file is something else.
    #[error("{}: is not a backup; name a file that `muster backup` has written", .0.display())]
    NotABackup(PathBuf),
    /// The file was written by a newer version of the software.
    #[error("{}: is a backup in version {found} of the file's layout, this software reads {supported}; use the newer software", path.display())]
    NewerLayout {
        /// The file.
        path: PathBuf,
        /// The version found.
        found: u32,
        /// The version that is understood.
        supported: u32,
    },
    /// The file holds data of another service, or of another version.
    #[error("{}: holds {found} data of format {found_version}, not {expected} data of format {expected_version}; use a backup of the same service, and the software that wrote it", path.display())]
    OtherFormat {
        /// The file.
        path: PathBuf,
        /// What it holds.
        found: String,
        /// In which version.
        found_version: u32,
        /// What is wanted.
        expected: String,
        /// In which version.
        expected_version: u32,
    },
    /// The file ends before its end.
    #[error("{}: ends at byte {position}, before the end of the backup; it was cut off: use another backup", path.display())]
    CutOff {
        /// The file.
        path: PathBuf,
        /// Its size.
        position: u64,
    },
    /// The file is not as it was written.
    #[error("{}: damaged between bytes {from} and {to}: {what}; use another backup", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where the damaged block begins.
        from: u64,
        /// Up to where was read.
        to: u64,
        /// What is wrong.
        what: &'static str,
    },
    /// An entry does not fit a block.
    #[error("{}: an entry of {bytes} bytes is over the {limit} that a backup takes", path.display())]
    TooLarge {
        /// The database.
        path: PathBuf,
        /// Size of its key and value.
        bytes: usize,
        /// The most that is taken.
        limit: usize,
    },
    /// There is something in the directory.
    #[error("{}: is not empty{}; name a directory that is empty or not there yet", path.display(), if *in_use { ", and a service uses it" } else { "" })]
    NotEmpty {
        /// The directory.
        path: PathBuf,
        /// Whether a process has it locked.
        in_use: bool,
    },
    /// The directory cannot be locked, or somebody else restores into the same one.
    #[error("{0}")]
    Directory(String),
    /// The database cannot be read or written.
    #[error(transparent)]
    Store(#[from] crate::Error),
    /// The operating system, or who takes the stream, refused.
    #[error("{}: cannot {action}: {source}", path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What was tried.
        action: &'static str,
        /// The answer.
        source: Arc<std::io::Error>,
    },
}

impl Error {
    pub(crate) fn io(path: &Path, action: &'static str, source: std::io::Error) -> Self {
        Self::Io {
            path: path.to_owned(),
            action,
            source: Arc::new(source),
        }
    }
}

impl Database {
    /// Writes all that is committed by now to `to`, while the database works. `now` is noted as the backup's time.
    ///
    /// Blocks for as long as `to` takes, and keeps what is deleted or replaced meanwhile on disk: end it where nobody takes the
    /// stream any more.
    ///
    /// # Errors
    /// A file of the database cannot be read, or `to` refuses; what was written then is refused by [`restore`].
    pub fn back_up(&self, now: Timestamp, to: impl Write) -> Result<Summary, Error> {
        let snapshot = self.snapshot();
        let mut names: Vec<String> = self
            .engine()
            .list_keyspace_names()
            .iter()
            .map(ToString::to_string)
            .collect();
        names.sort_unstable();
        let mut writer = Writer::begin(to, self.path(), self.format(), now)?;
        for name in names {
            let keyspace = self.keyspace_named(&name)?;
            writer.keyspace(&name)?;
            for entry in snapshot.iter(keyspace.engine()) {
                let (key, value) = entry
                    .into_inner()
                    .map_err(|error| crate::Error::engine(self.path(), "read", error))?;
                writer.entry(&key, &value)?;
            }
        }
        writer.finish()
    }
}

/// Reads a whole backup from `from` and writes it to `to` as it is. The paths are what the two are called in errors.
///
/// # Errors
/// It is not a whole and unaltered backup, or one of the two refuses. What was written to `to` is of no use then.
pub fn copy(from: impl Read, path: &Path, to: impl Write, to_path: &Path) -> Result<Summary, Error> {
    let mut reader = Reader::begin(from, path, to, to_path)?;
    while reader.block()?.is_some() {}
    reader.finish()
}

/// Makes a data directory of a backup, for a service that is not running. `path` is what `from` is called in errors.
///
/// # Errors
/// The backup is not whole, unaltered and of this format, the directory is not empty, or something cannot be written. The
/// directory is as it was then.
pub fn restore(from: impl Read, path: &Path, format: Format, directory: &Path) -> Result<Summary, Error> {
    let mut reader = Reader::begin(from, path, std::io::sink(), path)?;
    reader.expect(format)?;
    let place = Place::reserve(directory)?;
    fill(&mut reader, format, &place.draft())?;
    let summary = reader.finish()?;
    place.take()?;
    Ok(summary)
}

/// Makes the database in `draft`, and closes it with all of it on disk.
fn fill<R: Read, W: Write>(reader: &mut Reader<R, W>, format: Format, draft: &Path) -> Result<(), Error> {
    let locked = data_directory::open(draft).map_err(|error| Error::Directory(error.to_string()))?;
    let database = Database::open(locked, format, Limits::default())?;
    let failed = |error| crate::Error::engine(draft, "write", error);
    let mut keyspace = None;
    while let Some(block) = reader.block()? {
        match block {
            Block::Keyspace(name) => keyspace = Some(database.keyspace_named(name)?),
            Block::Entries(entries) => {
                let Some(keyspace) = &keyspace else { continue };
                let mut batch = database.engine().batch();
                for (key, value) in entries {
                    batch.insert(keyspace.engine(), key, value);
                }
                batch.commit().map_err(failed)?;
            }
        }
    }
    database.engine().persist(PersistMode::SyncAll).map_err(failed)?;
    if is_sealed(database.engine()) {
        format.mark_sealed(draft)?;
    }
    Ok(())
}
