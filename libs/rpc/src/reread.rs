//! A file that an operator may replace while the service runs: keys, secrets.
//!
//! It is looked at when its content is wanted, at most once a second, and read again when its time or its length is another.
//! Nothing is kept of a file that is gone or that cannot be read, so that what was taken away is taken away. It is to be
//! replaced in one step (write beside it, then rename): a half-written one is read as it is.
//!
//! Rejected: being told by the kernel, which mounted volumes and network file systems do not do reliably.

use std::fmt;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

/// How long what was read is taken to be what is there.
const FRESH: Duration = Duration::from_secs(1);

/// What a file is taken for.
type Parse<T> = fn(&str) -> Result<T, String>;

/// See the module.
pub struct Reread<T> {
    path: PathBuf,
    most_bytes: u64,
    parse: Parse<T>,
    state: Mutex<State<T>>,
}

struct State<T> {
    looked_at: Option<Duration>,
    stamp: Option<(SystemTime, u64)>,
    /// The content, or what is wrong with it.
    content: Result<Arc<T>, String>,
}

impl<T> fmt::Debug for Reread<T> {
    /// Without the content, which may be secret.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Reread")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl<T> Reread<T> {
    /// The text at `path`, of at most so many bytes, as `parse` takes it. Nothing is read yet.
    pub fn new(path: impl Into<PathBuf>, most_bytes: u64, parse: Parse<T>) -> Self {
        Self {
            path: path.into(),
            most_bytes,
            parse,
            state: Mutex::new(State {
                looked_at: None,
                stamp: None,
                content: Err("it has not been read".to_owned()),
            }),
        }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is in it, on a monotonic clock. Reads a small file in place.
    ///
    /// # Errors
    /// It cannot be read, or is not what it is to be; the text names the file, and nothing of its content that `parse` does
    /// not name.
    pub fn get(&self, now: Duration) -> Result<Arc<T>, String> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let is_fresh = state
            .looked_at
            .is_some_and(|then| now.saturating_sub(then) < FRESH);
        if is_fresh {
            return state.content.clone();
        }
        state.looked_at = Some(now);
        let stamp = std::fs::metadata(&self.path)
            .and_then(|metadata| Ok((metadata.modified()?, metadata.len())))
            .map_err(|error| self.wrong(&error.to_string()));
        match stamp {
            Ok(stamp) if state.stamp == Some(stamp) => {}
            Ok(stamp) => {
                state.stamp = Some(stamp);
                state.content = self.read();
            }
            Err(what) => {
                state.stamp = None;
                state.content = Err(what);
            }
        }
        state.content.clone()
    }

    fn read(&self) -> Result<Arc<T>, String> {
        let mut text = String::new();
        let read = std::fs::File::open(&self.path).and_then(|file| {
            file.take(self.most_bytes.saturating_add(1))
                .read_to_string(&mut text)
        });
        read.map_err(|error| self.wrong(&error.to_string()))?;
        if text.len() as u64 > self.most_bytes {
            return Err(self.wrong(&format!("it has more than {} bytes", self.most_bytes)));
        }
        (self.parse)(&text)
            .map(Arc::new)
            .map_err(|what| self.wrong(&what))
    }

    fn wrong(&self, what: &str) -> String {
        format!("{}: {what}", self.path.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(text: &str) -> Result<u32, String> {
        text.trim().parse().map_err(|_| "it is no number".to_owned())
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_change_is_seen_within_a_second_and_what_is_gone_is_gone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("number");
        let file = Reread::new(&path, 8, number);
        assert!(file.get(at(0)).unwrap_err().contains("number"));
        std::fs::write(&path, "17").unwrap();
        assert!(file.get(at(0)).is_err(), "looked at once a second");
        assert_eq!(*file.get(at(1)).unwrap(), 17);
        std::fs::write(&path, "170").unwrap();
        assert_eq!(*file.get(at(2)).unwrap(), 170);
        for (second, wrong) in [(3, "x"), (4, "123456789")] {
            std::fs::write(&path, wrong).unwrap();
            let told = file.get(at(second)).unwrap_err();
            assert!(told.contains("number:"), "{told}");
        }
        std::fs::write(&path, "18").unwrap();
        assert_eq!(*file.get(at(5)).unwrap(), 18);
        std::fs::remove_file(&path).unwrap();
        assert!(file.get(at(6)).is_err());
    }
}
