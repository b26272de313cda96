//! A directory that one process owns.

use std::fs::{File, TryLockError};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::Error;

/// How often a lock that is held is tried again, and how long is waited before each time. A process that was being
/// started when its owner ended shares the lock until it executes its own program, which takes a moment on a busy machine.
const TRIES: u32 = 40;
const PAUSE: Duration = Duration::from_millis(25);

/// A writable directory, locked for this process until dropped.
#[derive(Debug)]
pub struct DataDirectory {
    path: PathBuf,
    _lock: File,
}

/// Creates the directory where it is missing, checks that it can be written and locks it. Blocks for up to a second
/// while another process has it.
///
/// # Errors
///
/// [`Error::DataDirectory`] says what is wrong: not a directory, not writable, or another process has it.
#[expect(
    clippy::disallowed_methods,
    reason = "before anything is served, and only while somebody else has the lock; the kernel has no lock with a time limit"
)]
pub fn open(path: &Path) -> Result<DataDirectory, Error> {
    let failed = |what: String| Error::DataDirectory {
        path: path.to_owned(),
        what,
    };
    std::fs::create_dir_all(path).map_err(|error| {
        failed(format!(
            "cannot be created: {error}; choose another or correct its permissions"
        ))
    })?;
    let lock_path = path.join("lock");
    let mut lock = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&lock_path)
        .map_err(|error| {
            failed(format!(
                "cannot be written: {error}; choose another or correct its permissions"
            ))
        })?;
    let mut locked = lock.try_lock();
    for _ in 0..TRIES {
        if !matches!(locked, Err(TryLockError::WouldBlock)) {
            break;
        }
        std::thread::sleep(PAUSE);
        locked = lock.try_lock();
    }
    match locked {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(failed(
                "another process uses it; stop that one or choose another directory".to_owned(),
            ));
        }
        Err(TryLockError::Error(error)) => return Err(failed(format!("cannot be locked: {error}"))),
    }
    // For people who look who has it; the lock itself is the kernel's.
    lock.set_len(0)
        .and_then(|()| writeln!(lock, "{}", std::process::id()))
        .map_err(|error| failed(format!("cannot be written: {error}")))?;
    Ok(DataDirectory {
        path: path.to_owned(),
        _lock: lock,
    })
}

impl DataDirectory {
    /// The path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_owner_is_refused_and_a_later_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let first = open(directory.path()).unwrap();
        let error = open(directory.path()).unwrap_err();
        assert!(error.to_string().contains("another process uses it"), "{error}");
        drop(first);
        open(directory.path()).unwrap();
    }

    #[test]
    fn an_owner_that_is_just_going_is_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let first = open(directory.path()).unwrap();
        // What a child shares with its parent between fork and exec.
        let shared = first._lock.try_clone().unwrap();
        drop(first);
        let (opening, opened) = std::sync::mpsc::channel();
        let path = directory.path().to_owned();
        let opener = std::thread::spawn(move || {
            opening.send(()).unwrap();
            open(&path).map(drop)
        });
        opened.recv().unwrap();
        drop(shared);
        opener.join().unwrap().unwrap();
    }

    #[test]
    fn a_file_in_the_way_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("file");
        std::fs::write(&path, "x").unwrap();
        let error = open(&path).unwrap_err();
        assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
        assert_eq!(error.exit_code(), 2);
    }
}
