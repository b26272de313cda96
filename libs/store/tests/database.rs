//! The database from outside: durability, group commit, conditions, limits, damage.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use muster_store::{Batch, CommitError, Database, Entry, Error, Format, Keyspace, Limits};

const FORMAT: Format = Format {
    name: "test",
    version: 1,
    oldest: 1,
};

fn open(path: &Path) -> Result<Database, Error> {
    open_with(path, Limits::default())
}

fn open_with(path: &Path, limits: Limits) -> Result<Database, Error> {
    let directory = muster_runtime::data_directory::open(path).expect("the directory can be used");
    Database::open(directory, FORMAT, limits)
}

async fn put(database: &Database, keyspace: &Keyspace, key: &str, value: &str) -> Result<(), CommitError> {
    let mut batch = Batch::new();
    batch.put(keyspace, key, value);
    database.commit(batch).await
}

fn all(keyspace: &Keyspace) -> Vec<(String, String)> {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    keyspace
        .prefix("")
        .map(|entry| entry.unwrap())
        .map(|(key, value)| (text(key), text(value)))
        .collect()
}

#[tokio::test]
async fn what_was_committed_is_there_after_opening_again() {
    let directory = tempfile::tempdir().unwrap();
    {
        let database = open(directory.path()).unwrap();
        let first = database.keyspace("first").unwrap();
        let second = database.keyspace("second").unwrap();
        let mut batch = Batch::new();
        batch.put(&first, "a", "1");
        batch.put(&first, "b", "2");
        batch.put(&second, "a", "3");
        batch.put(&first, "a", "4");
        batch.remove(&first, "b");
        database.commit(batch).await.unwrap();
    }
    let database = open(directory.path()).unwrap();
    assert_eq!(
        all(&database.keyspace("first").unwrap()),
        [("a".into(), "4".into())]
    );
    assert_eq!(
        database.keyspace("second").unwrap().get("a").unwrap().unwrap(),
        b"3"
    );
    assert_eq!(database.keyspace("second").unwrap().get("b").unwrap(), None);
}

#[tokio::test]
async fn ranges_read_from_either_end_and_an_inverted_one_is_empty() {
    let directory = tempfile::tempdir().unwrap();
    let database = open(directory.path()).unwrap();
    let keyspace = database.keyspace("k").unwrap();
    for key in ["a", "b", "c", "d"] {
        put(&database, &keyspace, key, key).await.unwrap();
    }
    let keys = |entries: Vec<Result<Entry, Error>>| -> String {
        entries
            .into_iter()
            .map(|entry| String::from_utf8(entry.unwrap().0).unwrap())
            .collect()
    };
    assert_eq!(keys(keyspace.range("b".."d").collect()), "bc");
    assert_eq!(keys(keyspace.range("b"..).rev().take(2).collect()), "dc");
    let inverted = keyspace.range("d".."b");
    assert_eq!(keys(inverted.collect()), "");
}

#[tokio::test]
async fn of_many_who_expect_the_same_absence_one_wins() {
    let directory = tempfile::tempdir().unwrap();
    let database = open(directory.path()).unwrap();
    let keyspace = database.keyspace("k").unwrap();
    let attempts = (0..50).map(|number| {
        let mut batch = Batch::new();
        batch.expect_absent(&keyspace, "owner");
        batch.put(&keyspace, "owner", number.to_string());
        batch.put(&keyspace, format!("trace {number}"), "");
        database.commit(batch)
    });
    let results = futures_of(attempts).await;
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
    assert!(
        results
            .iter()
            .filter_map(|result| result.as_ref().err())
            .all(|error| {
                matches!(error, CommitError::Conflict { keyspace, key } if keyspace == "k" && key == "owner")
            })
    );
    // Nothing of a refused batch is there.
    assert_eq!(all(&keyspace).len(), 2);

    let mut batch = Batch::new();
    batch.expect_value(&keyspace, "owner", "nobody");
    batch.put(&keyspace, "owner", "me");
    assert!(matches!(
        database.commit(batch).await,
        Err(CommitError::Conflict { .. })
    ));
}

/// Polls all at once, so that they meet in one group.
async fn futures_of<T: Send + 'static>(
    futures: impl Iterator<Item = impl Future<Output = T> + Send>,
) -> Vec<T> {
    let mut pending: Vec<_> = futures.map(Box::pin).collect();
    let mut done: Vec<Option<T>> = pending.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        for (future, slot) in pending.iter_mut().zip(&mut done) {
            if slot.is_none()
                && let std::task::Poll::Ready(value) = future.as_mut().poll(context)
            {
                *slot = Some(value);
            }
        }
        if done.iter().all(Option::is_some) {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
    done.into_iter().flatten().collect()
}

#[tokio::test]
async fn a_queue_of_one_serves_hundreds() {
    let directory = tempfile::tempdir().unwrap();
    let data = muster_runtime::data_directory::open(directory.path()).unwrap();
    let limits = Limits {
        queued_batches: 1,
        ..Limits::default()
    };
    let database = Database::open(data, FORMAT, limits).unwrap();
    let keyspace = database.keyspace("k").unwrap();
    let writes = (0..300).map(|number| {
        let mut batch = Batch::new();
        batch.put(&keyspace, format!("{number:03}"), "x");
        database.commit(batch)
    });
    assert!(futures_of(writes).await.iter().all(Result::is_ok));
    assert_eq!(all(&keyspace).len(), 300);
}

#[tokio::test]
async fn batches_and_keys_have_a_limit() {
    let directory = tempfile::tempdir().unwrap();
    let data = muster_runtime::data_directory::open(directory.path()).unwrap();
    let limits = Limits {
        batch_bytes: 1000,
        ..Limits::default()
    };
    let database = Database::open(data, FORMAT, limits).unwrap();
    let keyspace = database.keyspace("k").unwrap();
    let error = put(&database, &keyspace, "a", &"x".repeat(1000))
        .await
        .unwrap_err();
    assert!(
        matches!(
            error,
            CommitError::TooLarge {
                bytes: 1001,
                limit: 1000
            }
        ),
        "{error}"
    );
    assert!(put(&database, &keyspace, "a", &"x".repeat(999)).await.is_ok());

    drop((database, keyspace));
    let database = open(directory.path()).unwrap();
    let keyspace = database.keyspace("k").unwrap();
    let error = put(&database, &keyspace, &"k".repeat(70_000), "")
        .await
        .unwrap_err();
    assert!(matches!(error, CommitError::TooLarge { .. }), "{error}");
}

#[test]
fn a_newer_format_is_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    drop(open(directory.path()).unwrap());
    fs::write(directory.path().join("format"), "test 2\n").unwrap();
    let error = open(directory.path()).err().unwrap().to_string();
    assert!(
        error.contains("format") && error.contains("test data of format 2"),
        "{error}"
    );
    assert!(error.contains(&directory.path().display().to_string()), "{error}");
}

/// The write-ahead file of a database that was written and closed.
async fn written(directory: &Path, entries: usize) -> PathBuf {
    let database = open(directory).unwrap();
    let keyspace = database.keyspace("k").unwrap();
    for number in 0..entries {
        put(&database, &keyspace, &format!("{number:03}"), "some value")
            .await
            .unwrap();
    }
    let path = database.path().to_owned();
    drop((database, keyspace));
    let mut files: Vec<PathBuf> = fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "jnl"))
        .collect();
    assert_eq!(files.len(), 1);
    files.remove(0)
}

/// Length of a batch of one entry as [`written`] writes it: start, item, end.
const BATCH_BYTES: u64 = 13 + (21 + 3 + 10) + 13;

#[tokio::test]
async fn a_torn_end_costs_only_what_was_never_acknowledged() {
    for torn in 1..BATCH_BYTES {
        let directory = tempfile::tempdir().unwrap();
        let journal = written(directory.path(), 3).await;
        let file = fs::OpenOptions::new().write(true).open(&journal).unwrap();
        file.set_len(3 * BATCH_BYTES - torn).unwrap();
        let database = open(directory.path()).unwrap();
        assert_eq!(
            all(&database.keyspace("k").unwrap()).len(),
            2,
            "{torn} bytes torn off"
        );
    }
}

#[tokio::test]
async fn damage_before_acknowledged_batches_is_refused_with_the_file() {
    for position in 0..BATCH_BYTES {
        let directory = tempfile::tempdir().unwrap();
        let journal = written(directory.path(), 3).await;
        let file = fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open(&journal)
            .unwrap();
        let mut byte = [0];
        file.read_exact_at(&mut byte, BATCH_BYTES + position).unwrap();
        file.write_all_at(&[byte[0] ^ 0x55], BATCH_BYTES + position)
            .unwrap();
        match open(directory.path()) {
            Err(error) => {
                assert!(matches!(error, Error::Damaged { .. }), "byte {position}: {error}");
                assert!(error.to_string().contains("data"), "byte {position}: {error}");
            }
            // Sequence numbers are outside the engine's checksum; the entries are all there.
            Ok(database) => assert_eq!(all(&database.keyspace("k").unwrap()).len(), 3, "byte {position}"),
        }
    }
}

#[tokio::test]
async fn what_does_not_belong_among_the_files_is_an_error_and_not_a_panic() {
    for stray in ["keyspaces/stray", "x.jnl", "7.jnl"] {
        let directory = tempfile::tempdir().unwrap();
        let journal = written(directory.path(), 1).await;
        fs::create_dir(journal.parent().unwrap().join(stray)).unwrap();
        let error = open(directory.path()).err().unwrap();
        assert!(matches!(error, Error::Damaged { .. }), "{error}");
        assert!(error.to_string().contains(stray), "{error}");
    }
}

/// Keys of a batch, all with the same value.
const WIDTH: usize = 200;

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_batch_is_seen_whole_or_not_at_all() {
    let directory = tempfile::tempdir().unwrap();
    // Small tables in memory, so that they are written to files all the time, beside the batches.
    let limits = Limits {
        memtable_bytes: 16 * 1024,
        ..Limits::default()
    };
    let database = open_with(directory.path(), limits).unwrap();
    let keyspace = database.keyspace("wide").unwrap();
    let key = |number: usize| format!("{number:04}");
    let commit = async |value: u64| {
        let mut batch = Batch::new();
        for number in 0..WIDTH {
            batch.put(&keyspace, key(number), value.to_string());
        }
        database.commit(batch).await.unwrap();
    };
    commit(0).await;
    let done = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let (told, read) = (std::sync::Arc::clone(&done), keyspace.clone());
    let reader = tokio::task::spawn_blocking(move || {
        let mut reads = 0_u64;
        while !told.load(std::sync::atomic::Ordering::SeqCst) {
            let number = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap().parse::<u64>().unwrap();
            let before = number(read.get(format!("{:04}", WIDTH / 2)).unwrap().unwrap());
            let seen: Vec<u64> = read.prefix("").map(|entry| number(entry.unwrap().1)).collect();
            assert_eq!(seen.len(), WIDTH);
            assert!(seen.iter().all(|value| *value == seen[0]), "{seen:?}");
            assert!(seen[0] >= before, "{} after {before}", seen[0]);
            reads += 1;
        }
        reads
    });
    for value in 1..400 {
        commit(value).await;
    }
    done.store(true, std::sync::atomic::Ordering::SeqCst);
    assert!(reader.await.unwrap() > 0);
}
