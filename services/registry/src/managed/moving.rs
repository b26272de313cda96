//! Agents that were kept from this machine's disk, when their registry is given a store that several registries share.
//!
//! They are taken over before the registry serves, so that nobody is missed for a moment. What the shared store has under the
//! same key stays as it is: it is what another registry has been asked for since. The disk keeps its entries, and beside them a
//! note that they were taken over. So it happens once, however often the registry is started anew, and an agent that is
//! forgotten later stays forgotten. If the registry stops in the middle, nothing is noted and all are offered again, which changes
//! nothing for those that are there.
//!
//! A registry that goes back to its disk has the agents of then, and the note is taken away: what it keeps from then on is
//! taken over the next time.
//!
//! Rejected: removing from the disk what was taken over. Who has chosen a wrong Redis would have to register everybody again.

use std::path::Path;

use muster_store::redis::opening::OpenError;

use super::store::embedded::Embedded;
use super::store::{Entries as _, Shared};

/// What was done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Moved {
    /// Agents that are in the shared store because of it.
    pub taken: usize,
    /// Agents that were there already.
    pub known: usize,
}

/// Takes over what is kept in a directory, where there is something and nobody has taken it over yet.
///
/// # Errors
/// It cannot be read, or not written to the shared store, and may be another time; or what is in the directory is damaged.
pub async fn take_over(directory: &Path, shared: &dyn Shared) -> Result<Moved, OpenError> {
    let path = directory.to_owned();
    let opened = tokio::task::spawn_blocking(move || is_used(&path).then(|| Embedded::open(&path)));
    let opened = opened
        .await
        .map_err(|error| OpenError::Unavailable(format!("opening the store was broken off: {error}")))?;
    let Some(opened) = opened else {
        return Ok(Moved::default());
    };
    let kept =
        opened.map_err(|error| OpenError::Unavailable(format!("`registry.data_directory`: {error}")))?;
    if kept.is_moved() {
        return Ok(Moved::default());
    }
    let remedy =
        "restore it from a copy, or go on without its agents with an empty `registry.data_directory`";
    let all = kept.all().await.map_err(|error| {
        let path = directory.display();
        OpenError::Damaged(format!("`registry.data_directory` {path}: {error}; {remedy}"))
    })?;
    let mut moved = Moved::default();
    for agent in all {
        let put = shared.put_new(&agent).await;
        if put.map_err(|error| OpenError::Unavailable(error.to_string()))? {
            moved.taken += 1;
        } else {
            moved.known += 1;
        }
    }
    let noted = kept.set_moved(true).await;
    noted.map_err(|error| OpenError::Unavailable(format!("`registry.data_directory`: {error}")))?;
    Ok(moved)
}

/// Whether something is in the directory. One that is not there is not made for this.
fn is_used(directory: &Path) -> bool {
    std::fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_some())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use muster_store::redis::{Connection, Options};
    use muster_testkit::RedisServer;

    use super::super::entry::{Kept, kept};
    use super::super::store::redis::Redis;
    use super::*;

    #[tokio::test]
    async fn everybody_is_taken_over_once_and_what_is_there_stays() {
        let server = RedisServer::start().await;
        let connection = Connection::new(server.url().parse().unwrap(), Options::default());
        let shared = Redis::new(connection, "muster", Duration::from_secs(600));
        let directory = tempfile::tempdir().unwrap();
        let nowhere = directory.path().join("nowhere");
        assert_eq!(take_over(&nowhere, &shared).await.unwrap(), Moved::default());
        assert!(!nowhere.exists());

        let disk = Embedded::open(directory.path()).unwrap();
        let (one, other) = (kept("a", "http://a/"), kept("b", "http://b/"));
        disk.put(&one).await.unwrap();
        disk.put(&other).await.unwrap();
        drop(disk);
        let changed = Kept {
            weight: Some(7),
            ..other.clone()
        };
        shared.put(&changed).await.unwrap();
        let moved = take_over(directory.path(), &shared).await.unwrap();
        assert_eq!(moved, Moved { taken: 1, known: 1 });
        let all = async || {
            let mut all = shared.all().await.unwrap();
            all.sort_by_key(Kept::key);
            all
        };
        assert_eq!(all().await, [one.clone(), changed.clone()]);

        shared.remove(&one.key()).await.unwrap();
        let again = take_over(directory.path(), &shared).await.unwrap();
        assert_eq!(again, Moved::default());
        assert_eq!(all().await, [changed], "who was forgotten since stays forgotten");

        let disk = Embedded::open(directory.path()).unwrap();
        assert!(disk.is_moved());
        assert_eq!(disk.all().await.unwrap().len(), 2, "the disk keeps what it had");
        disk.set_moved(false).await.unwrap();
        drop(disk);
        let moved = take_over(directory.path(), &shared).await.unwrap();
        assert_eq!(moved, Moved { taken: 1, known: 1 });
    }

    #[tokio::test]
    async fn nothing_is_noted_before_everybody_is_there() {
        let mut server = RedisServer::start().await;
        let hasty = Options {
            patience: Duration::from_millis(300),
            ..Options::default()
        };
        let connection = Connection::new(server.url().parse().unwrap(), hasty);
        let shared = Redis::new(connection, "muster", Duration::from_secs(600));
        let directory = tempfile::tempdir().unwrap();
        let disk = Embedded::open(directory.path()).unwrap();
        disk.put(&kept("a", "http://a/")).await.unwrap();
        drop(disk);
        server.kill().await;
        let error = take_over(directory.path(), &shared).await.unwrap_err();
        assert!(error.passes(), "{error}");
        assert!(!Embedded::open(directory.path()).unwrap().is_moved());
    }
}
