//! Backups from outside: one moment of a busy database, what is refused, what a broken restore leaves.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use jiff::Timestamp;
use muster_runtime::data_directory;
use muster_store::backup::{self, Error};
use muster_store::{Batch, Database, Entry, Format, Keyspace, Limits};
use proptest::collection::{btree_map, vec};
use proptest::prelude::{ProptestConfig, any, proptest};
use proptest::sample::Index;

const FORMAT: Format = Format {
    name: "test",
    version: 7,
    oldest: 7,
};
const NOW: Timestamp = Timestamp::UNIX_EPOCH;

fn open(path: &Path) -> Database {
    Database::open(data_directory::open(path).unwrap(), FORMAT, Limits::default()).unwrap()
}

fn back_up(database: &Database) -> Vec<u8> {
    let mut file = Vec::new();
    database.back_up(NOW, &mut file).unwrap();
    file
}

fn restore(file: &[u8], directory: &Path) -> Result<backup::Summary, Error> {
    backup::restore(file, Path::new("the-file"), FORMAT, directory)
}

fn entries(keyspace: &Keyspace) -> Vec<Entry> {
    keyspace.range::<Vec<u8>>(..).map(Result::unwrap).collect()
}

/// A database with a little of everything, as a backup.
async fn some_backup() -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    let database = open(directory.path());
    let (first, second) = (
        database.keyspace("first").unwrap(),
        database.keyspace("second").unwrap(),
    );
    database.keyspace("void").unwrap();
    let mut batch = Batch::new();
    for number in 0_u32..20 {
        batch.put(&first, number.to_be_bytes(), "x".repeat(number as usize));
        batch.put(&second, number.to_be_bytes(), []);
    }
    database.commit(batch).await.unwrap();
    back_up(&database)
}

/// Names in a directory.
fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[tokio::test]
async fn what_was_backed_up_is_what_is_restored() {
    let place = tempfile::tempdir().unwrap();
    let directory = place.path().join("deeper").join("restored");
    let file = some_backup().await;
    let summary = restore(&file, &directory).unwrap();
    assert_eq!(summary.bytes, file.len() as u64);
    assert_eq!(summary.taken_at, NOW);
    assert_eq!(summary.entries(), 40);
    let expected = [("first", 20), ("second", 20), ("void", 0)].map(|(name, count)| (name.to_owned(), count));
    assert_eq!(summary.keyspaces, expected);
    assert_eq!(
        names(directory.parent().unwrap()),
        ["restored"],
        "nothing else is left"
    );
    let database = open(&directory);
    assert_eq!(entries(&database.keyspace("first").unwrap()).len(), 20);
    assert_eq!(back_up(&database), file, "the same data is the same file");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_under_writers_is_one_moment_and_misses_nothing_acknowledged() {
    const WRITERS: u32 = 8;
    const PAIRS: usize = 5;
    let directory = tempfile::tempdir().unwrap();
    let database = open(directory.path());
    let left = database.keyspace("left").unwrap();
    let right = database.keyspace("right").unwrap();
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let mut writers = tokio::task::JoinSet::new();
    let acknowledged = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
    for writer in 0..WRITERS {
        let (database, left, right) = (database.clone(), left.clone(), right.clone());
        let (stop, acknowledged) = (stop.clone(), acknowledged.clone());
        writers.spawn(async move {
            let mut count = 0_u64;
            while !stop.load(std::sync::atomic::Ordering::SeqCst) {
                count += 1;
                // The head says how many entries there are; both sides always say the same.
                let mut batch = Batch::new();
                for side in [&left, &right] {
                    batch.put(
                        side,
                        [&b"h"[..], &writer.to_be_bytes()].concat(),
                        count.to_be_bytes(),
                    );
                    let key = [&b"e"[..], &writer.to_be_bytes(), &count.to_be_bytes()].concat();
                    batch.put(side, key, vec![7; 300]);
                }
                database.commit(batch).await.unwrap();
                acknowledged.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            }
        });
    }
    let mut files = Vec::new();
    let mut before = Vec::new();
    while files.len() < PAIRS || acknowledged.load(std::sync::atomic::Ordering::SeqCst) < 3_000 {
        let known = acknowledged.load(std::sync::atomic::Ordering::SeqCst);
        let database = database.clone();
        let file = tokio::task::spawn_blocking(move || back_up(&database))
            .await
            .unwrap();
        if files.len() == PAIRS {
            files.pop();
            before.pop();
        }
        files.push(file);
        before.push(known);
    }
    stop.store(true, std::sync::atomic::Ordering::SeqCst);
    writers.join_all().await;

    for (file, known) in files.iter().zip(before) {
        let place = tempfile::tempdir().unwrap();
        restore(file, &place.path().join("d")).unwrap();
        let restored = open(&place.path().join("d"));
        let left = entries(&restored.keyspace("left").unwrap());
        assert_eq!(
            left,
            entries(&restored.keyspace("right").unwrap()),
            "no half batch"
        );
        let heads = left.iter().filter(|(key, _)| key.first() == Some(&b'h'));
        let said: u64 = heads
            .map(|(_, value)| u64::from_be_bytes(value.as_slice().try_into().unwrap()))
            .sum();
        let held = left.iter().filter(|(key, _)| key.first() == Some(&b'e')).count() as u64;
        assert_eq!(said, held, "heads and entries agree");
        assert!(
            held >= known,
            "{known} were acknowledged before, {held} are in the backup"
        );
    }
}

#[tokio::test]
async fn each_kind_of_damage_is_refused_by_name_and_leaves_nothing() {
    let file = some_backup().await;
    let place = tempfile::tempdir().unwrap();
    let directory = place.path().join("d");
    let mut altered = file.clone();
    *altered.get_mut(file.len() / 2).unwrap() ^= 1;
    let mut newer = file.clone();
    *newer.get_mut(8).unwrap() = 2;
    let followed = [file.as_slice(), b"\0"].concat();
    let cut = file.get(..file.len() - 1).unwrap();
    let cases: [(&str, &[u8], &str); 7] = [
        ("altered", &altered, "the-file: damaged between bytes"),
        ("cut off", cut, "the-file: ends at byte"),
        ("empty", &[], "the-file: ends at byte 0"),
        ("followed by something", &followed, "something follows its end"),
        (
            "newer",
            &newer,
            "version 2 of the file's layout, this software reads 1",
        ),
        ("another file", b"SQLite format 3\0", "the-file: is not a backup"),
        ("a short other file", b"hello", "the-file: is not a backup"),
    ];
    for (what, bytes, expected) in cases {
        let error = restore(bytes, &directory).unwrap_err().to_string();
        assert!(error.contains(expected), "{what}: {error}");
        assert!(error.contains("the-file"), "{what}: {error}");
        assert_eq!(names(place.path()), Vec::<String>::new(), "{what}");
    }
    for (name, version) in [("other", 7), ("test", 8), ("test", 6)] {
        let format = Format {
            name,
            version,
            oldest: version,
        };
        let error = backup::restore(file.as_slice(), Path::new("the-file"), format, &directory).unwrap_err();
        assert!(matches!(error, Error::OtherFormat { .. }), "{error}");
        assert_eq!(names(place.path()), Vec::<String>::new());
    }
    let newer = Format { version: 8, ..FORMAT };
    backup::restore(file.as_slice(), Path::new("the-file"), newer, &directory).unwrap();
    let mark = fs::read_to_string(directory.join("format")).unwrap();
    assert_eq!(
        mark, "test 8\n",
        "what can be used of an older version is of this one then"
    );
}

#[tokio::test]
async fn only_an_empty_directory_is_restored_into() {
    let file = some_backup().await;
    let place = tempfile::tempdir().unwrap();

    let used = place.path().join("used");
    let database = open(&used);
    let error = restore(&file, &used).unwrap_err().to_string();
    assert!(error.contains("a service uses it"), "{error}");
    drop(database);
    let error = restore(&file, &used).unwrap_err().to_string();
    assert!(error.contains("used: is not empty; name a directory"), "{error}");
    open(&used);

    let a_file = place.path().join("file");
    fs::write(&a_file, "x").unwrap();
    assert!(
        restore(&file, &a_file)
            .unwrap_err()
            .to_string()
            .contains("file: is not empty")
    );

    let empty = place.path().join("empty");
    fs::create_dir(&empty).unwrap();
    restore(&file, &empty).unwrap();
    assert_eq!(back_up(&open(&empty)), file);
    assert_eq!(names(place.path()), ["empty", "file", "used"]);
}

#[tokio::test]
async fn what_a_crash_has_left_is_cleared_away_and_what_is_in_use_is_not() {
    let file = some_backup().await;
    let place = tempfile::tempdir().unwrap();
    let directory = place.path().join("d");
    let beside = place.path().join(".d.restoring");
    fs::create_dir_all(beside.join("directory").join("data")).unwrap();
    fs::write(beside.join("directory").join("data").join("1.jnl"), "half").unwrap();

    let lock = data_directory::open(&beside).unwrap();
    let error = restore(&file, &directory).unwrap_err().to_string();
    assert!(error.contains("another process uses it"), "{error}");
    assert!(beside.join("directory").join("data").join("1.jnl").exists());
    drop(lock);

    restore(&file, &directory).unwrap();
    assert_eq!(names(place.path()), ["d"]);
    assert_eq!(back_up(&open(&directory)), file);
}

/// Takes so many bytes, then is full.
struct Disk(usize);

impl Write for Disk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0 == 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let taken = bytes.len().min(self.0);
        self.0 -= taken;
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_full_disk_is_named_by_whoever_writes_and_the_database_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let database = open(directory.path());
    let keyspace = database.keyspace("k").unwrap();
    let mut batch = Batch::new();
    batch.put(&keyspace, "a", "b");
    database.commit(batch).await.unwrap();
    let file = back_up(&database);
    for room in 0..file.len() {
        let error = database.back_up(NOW, Disk(room)).unwrap_err();
        assert!(
            matches!(
                error,
                Error::Io {
                    action: "write the backup",
                    ..
                }
            ),
            "{room}: {error}"
        );
        let error = backup::copy(
            file.as_slice(),
            Path::new("from"),
            Disk(room),
            Path::new("to-file"),
        )
        .unwrap_err();
        assert!(
            error.to_string().starts_with("to-file: cannot write"),
            "{room}: {error}"
        );
    }
    let mut batch = Batch::new();
    batch.put(&keyspace, "c", "d");
    database.commit(batch).await.unwrap();
}

#[tokio::test]
async fn every_prefix_and_every_flipped_bit_is_noticed() {
    let file = some_backup().await;
    let name = Path::new("f");
    let check = |bytes: &[u8]| backup::copy(bytes, name, io::sink(), name);
    check(&file).unwrap();
    for length in 0..file.len() {
        assert!(
            matches!(check(file.get(..length).unwrap()), Err(Error::CutOff { .. })),
            "{length}"
        );
    }
    for place in 0..file.len() {
        for bit in 0..8 {
            let mut altered = file.clone();
            *altered.get_mut(place).unwrap() ^= 1 << bit;
            check(&altered).unwrap_err();
        }
    }
}

#[tokio::test]
async fn the_digest_is_that_of_the_file() {
    use sha2::Digest as _;
    let file = some_backup().await;
    let name = Path::new("f");
    let mut copied = Vec::new();
    let summary = backup::copy(file.as_slice(), name, &mut copied, name).unwrap();
    assert_eq!(copied, file);
    let digest: String = sha2::Sha256::digest(&file)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert_eq!(summary.sha256, digest);
}

proptest! {
    // Each case makes two databases on disk.
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn any_keys_and_values_come_back_and_any_altered_byte_is_noticed(
        contents in vec(btree_map(vec(any::<u8>(), 1..300), vec(any::<u8>(), 0..3_000), 0..40), 3),
        large in 0_usize..200_000,
        place in any::<Index>(),
        change in 1_u8..,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let directory = tempfile::tempdir().unwrap();
        let database = open(directory.path());
        for (name, contents) in ["a", "b", "c"].into_iter().zip(&contents) {
            let keyspace = database.keyspace(name).unwrap();
            let mut batch = Batch::new();
            batch.put(&keyspace, [0; 400], vec![7; large]);
            for (key, value) in contents {
                batch.put(&keyspace, key.clone(), value.clone());
            }
            runtime.block_on(database.commit(batch)).unwrap();
        }
        let mut file = back_up(&database);
        let restored = directory.path().join("restored");
        restore(&file, &restored).unwrap();
        let other = open(&restored);
        for name in ["a", "b", "c"] {
            assert_eq!(entries(&other.keyspace(name).unwrap()), entries(&database.keyspace(name).unwrap()));
        }
        let place = place.index(file.len());
        *file.get_mut(place).unwrap() ^= change;
        restore(&file, &directory.path().join("altered")).unwrap_err();
        assert!(!directory.path().join("altered").exists());
    }
}
