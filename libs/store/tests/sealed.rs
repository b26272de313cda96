//! Encrypted databases from outside.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::path::Path;

use jiff::Timestamp;
use muster_runtime::data_directory;
use muster_store::{Batch, CommitError, Database, Error, Format, Keys, Limits, backup};

const FORMAT: Format = Format {
    name: "test",
    version: 1,
    oldest: 1,
};

fn open(path: &Path, keys: Option<&Keys>) -> Result<Database, Error> {
    let directory = data_directory::open(path).unwrap();
    Database::open_with(directory, FORMAT, Limits::default(), keys.cloned())
}

/// Keys by their ids and the letter that all of each is.
fn keys(all: &[(&str, char)]) -> Keys {
    let lines = all
        .iter()
        .map(|(id, letter)| format!("{id} {}A=\n", letter.to_string().repeat(42)));
    Keys::parse(&lines.collect::<String>()).unwrap()
}

async fn put(database: &Database, key: &str, value: &str) {
    let keyspace = database.keyspace("values").unwrap();
    let mut batch = Batch::new();
    batch.put(&keyspace, key, value);
    database.commit(batch).await.unwrap();
}

fn values(database: &Database) -> Vec<(String, String)> {
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let keyspace = database.keyspace("values").unwrap();
    let all = keyspace.prefix([]).map(|entry| {
        let (key, value) = entry.unwrap();
        assert_eq!(keyspace.get(&key).unwrap().as_ref(), Some(&value));
        (text(key), text(value))
    });
    all.collect()
}

fn pairs(all: &[(&str, &str)]) -> Vec<(String, String)> {
    let all = all.iter();
    all.map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

#[tokio::test]
async fn keys_come_and_what_was_written_with_any_of_them_or_with_none_is_read() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    let plain = open(path, None).unwrap();
    put(&plain, "1", "plain").await;
    put(&plain, "empty", "").await;
    drop(plain);
    let (old, both) = (keys(&[("old", 'B')]), keys(&[("new", 'C'), ("old", 'B')]));
    let database = open(path, Some(&old)).unwrap();
    put(&database, "2", "sealed").await;
    drop(database);
    let database = open(path, Some(&both)).unwrap();
    put(&database, "3", "sealed anew").await;
    put(&database, "1", "no longer plain").await;
    let all = [
        ("1", "no longer plain"),
        ("2", "sealed"),
        ("3", "sealed anew"),
        ("empty", ""),
    ];
    assert_eq!(values(&database), pairs(&all));
    drop(database);

    assert!(matches!(open(path, None).err(), Some(Error::Sealed { .. })));
    let needed = open(path, Some(&old)).err().unwrap();
    assert!(
        matches!(&needed, Error::Sealed { id, .. } if id == "new"),
        "{needed}"
    );
    let wrong = keys(&[("new", 'C'), ("old", 'D')]);
    let wrong = open(path, Some(&wrong)).err().unwrap();
    assert!(
        matches!(&wrong, Error::WrongKey { id, .. } if id == "old"),
        "{wrong}"
    );
    let other_order = keys(&[("old", 'B'), ("new", 'C')]);
    assert_eq!(values(&open(path, Some(&other_order)).unwrap()), pairs(&all));
    assert_eq!(
        fs::read_to_string(path.join("format")).unwrap(),
        "test 1 sealed\n"
    );
}

#[tokio::test]
async fn what_is_expected_is_compared_with_what_it_means() {
    let directory = tempfile::tempdir().unwrap();
    let keys = keys(&[("a", 'B')]);
    let database = open(directory.path(), Some(&keys)).unwrap();
    let keyspace = database.keyspace("values").unwrap();
    put(&database, "head", "1").await;
    let step = |from: &str, to: &str| {
        let mut batch = Batch::new();
        batch.expect_value(&keyspace, "head", from);
        batch.put(&keyspace, "head", to);
        database.commit(batch)
    };
    // Some of these are one group, where the one before is not in the database yet.
    let (a, b, c) = tokio::join!(step("1", "2"), step("2", "3"), step("2", "4"));
    a.unwrap();
    b.unwrap();
    assert!(matches!(c, Err(CommitError::Conflict { .. })));
    assert_eq!(values(&database), pairs(&[("head", "3")]));
    let mut absent = Batch::new();
    absent.expect_absent(&keyspace, "head");
    let refused = database.commit(absent).await;
    assert!(matches!(refused, Err(CommitError::Conflict { .. })));
}

#[tokio::test]
async fn a_backup_holds_nothing_plain_and_is_restored_without_keys() {
    let place = tempfile::tempdir().unwrap();
    let keys = keys(&[("a", 'B')]);
    let database = open(&place.path().join("first"), Some(&keys)).unwrap();
    put(&database, "key", "what nobody else is to know").await;
    let mut file = Vec::new();
    database.back_up(Timestamp::UNIX_EPOCH, &mut file).unwrap();
    assert!(!file.windows(6).any(|window| window == b"nobody"));
    let restored = place.path().join("second");
    backup::restore(file.as_slice(), Path::new("file"), FORMAT, &restored).unwrap();
    assert_eq!(
        fs::read_to_string(restored.join("format")).unwrap(),
        "test 1 sealed\n"
    );
    assert!(matches!(open(&restored, None).err(), Some(Error::Sealed { .. })));
    let restored = open(&restored, Some(&keys)).unwrap();
    assert_eq!(
        values(&restored),
        pairs(&[("key", "what nobody else is to know")])
    );
}
