//! Where a restored directory grows until it gets its name.
//!
//! `.NAME.restoring` beside the directory holds a lock and, in `directory`, what becomes the directory. So two who restore into
//! the same directory do not meet, and what a crash has left is known to be nobody's and cleared away by the next attempt.
//! The last step is a rename, which the system does whole or not at all, and only onto nothing or an empty directory.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use muster_runtime::data_directory::{self, DataDirectory};

use super::Error;

/// Name of what becomes the directory.
const DRAFT: &str = "directory";

/// A locked place beside a directory; what is in it goes when it is dropped.
pub(super) struct Place {
    directory: PathBuf,
    parent: PathBuf,
    lock: DataDirectory,
}

impl Place {
    /// Refuses a directory that is there and not empty; else makes a place beside it.
    pub(super) fn reserve(directory: &Path) -> Result<Self, Error> {
        let directory = std::path::absolute(directory)
            .map_err(|error| Error::io(directory, "find its absolute path", error))?;
        refuse_unless_empty(&directory)?;
        let (Some(parent), Some(name)) = (directory.parent(), directory.file_name()) else {
            return Err(Error::NotEmpty {
                path: directory,
                in_use: false,
            });
        };
        let mut place = std::ffi::OsString::from(".");
        place.push(name);
        place.push(".restoring");
        let lock =
            data_directory::open(&parent.join(place)).map_err(|error| Error::Directory(error.to_string()))?;
        let parent = parent.to_owned();
        let place = Self {
            directory,
            parent,
            lock,
        };
        place.clear()?;
        Ok(place)
    }

    /// Where the directory is to be made.
    pub(super) fn draft(&self) -> PathBuf {
        self.lock.path().join(DRAFT)
    }

    /// Gives the directory its name, once all of it is on disk.
    pub(super) fn take(self) -> Result<(), Error> {
        let draft = self.draft();
        sync(&draft)?;
        fs::rename(&draft, &self.directory).map_err(|error| match error.kind() {
            ErrorKind::DirectoryNotEmpty | ErrorKind::AlreadyExists | ErrorKind::NotADirectory => {
                Error::NotEmpty {
                    path: self.directory.clone(),
                    in_use: is_locked(&self.directory),
                }
            }
            ErrorKind::ResourceBusy | ErrorKind::CrossesDevices => Error::io(
                &self.directory,
                "take the place of a mounted file system; name a directory below it",
                error,
            ),
            _ => Error::io(&self.directory, "give the restored directory this name", error),
        })?;
        sync_one(&self.parent)
    }

    /// Removes what a broken attempt has left.
    fn clear(&self) -> Result<(), Error> {
        let draft = self.draft();
        match fs::remove_dir_all(&draft) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(Error::io(&draft, "remove what is left of another attempt", error))
            }
            _ => Ok(()),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // The lock is held until after this, so nobody else is in there.
        let cleared = self.clear().map_err(|error| error.to_string()).and_then(|()| {
            fs::remove_file(self.lock.path().join("lock"))
                .and_then(|()| fs::remove_dir(self.lock.path()))
                .map_err(|error| error.to_string())
        });
        if let Err(error) = cleared {
            tracing::warn!(path = %self.lock.path().display(), error, "what a restore needed is left behind; remove it");
        }
    }
}

fn refuse_unless_empty(directory: &Path) -> Result<(), Error> {
    let refused = |in_use| Error::NotEmpty {
        path: directory.to_owned(),
        in_use,
    };
    match fs::read_dir(directory) {
        Ok(mut entries) => {
            if entries.next().is_some() {
                return Err(refused(is_locked(directory)));
            }
            Ok(())
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotADirectory => Err(refused(false)),
        Err(error) => Err(Error::io(directory, "list", error)),
    }
}

/// Whether a process has this data directory.
fn is_locked(directory: &Path) -> bool {
    File::open(directory.join("lock"))
        .is_ok_and(|lock| matches!(lock.try_lock(), Err(fs::TryLockError::WouldBlock)))
}

/// Brings a directory and all that is in it to the disk.
fn sync(directory: &Path) -> Result<(), Error> {
    let entries = fs::read_dir(directory).map_err(|error| Error::io(directory, "list", error))?;
    for entry in entries {
        let entry = entry.map_err(|error| Error::io(directory, "list", error))?;
        let kind = entry
            .file_type()
            .map_err(|error| Error::io(&entry.path(), "read", error))?;
        if kind.is_dir() {
            sync(&entry.path())?;
        } else {
            sync_one(&entry.path())?;
        }
    }
    sync_one(directory)
}

fn sync_one(path: &Path) -> Result<(), Error> {
    File::open(path)
        .and_then(|file| file.sync_all())
        .map_err(|error| Error::io(path, "bring to the disk", error))
}
