//! A disk that takes no more: the store names the file, takes nothing further, and loses nothing acknowledged.
//!
//! The system is made to refuse writes past a file size, in a process of its own: this test starts its own binary
//! again under a shell that sets the limit and ignores the signal that comes with it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::Path;
use std::process::Command;

use muster_store::{Batch, CommitError, Database, Format, Limits};

const DIRECTORY: &str = "STORE_TEST_DIRECTORY";
const FORMAT: Format = Format {
    name: "test",
    version: 1,
    oldest: 1,
};

fn open(path: &Path) -> Database {
    let directory = muster_runtime::data_directory::open(path).unwrap();
    // Everything stays in the write-ahead file, so that it is the file that meets the limit.
    let limits = Limits {
        memtable_bytes: 1 << 30,
        ..Limits::default()
    };
    Database::open(directory, FORMAT, limits).unwrap()
}

/// Does not compress.
fn noise(seed: u64, bytes: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes().first().copied().unwrap_or_default()
    };
    std::iter::repeat_with(next).take(bytes).collect()
}

/// Writes until it is refused; prints how many writes were acknowledged.
async fn fill(path: &Path) {
    const ENTRY: usize = 4 * 1024 * 1024;
    let database = open(path);
    let keyspace = database.keyspace("k").unwrap();
    let mut acknowledged = 0_u64;
    let error = loop {
        assert!(acknowledged < 100, "the limit was never met");
        let mut batch = Batch::new();
        batch.put(&keyspace, acknowledged.to_be_bytes(), noise(acknowledged, ENTRY));
        match database.commit(batch).await {
            Ok(()) => acknowledged += 1,
            Err(error) => break error,
        }
    };
    assert!(
        matches!(&error, CommitError::Stopped { path, .. } if path.extension().unwrap() == "jnl"),
        "{error}"
    );

    let mut batch = Batch::new();
    batch.put(&keyspace, "small", "enough to fit");
    assert!(matches!(
        database.commit(batch).await,
        Err(CommitError::Stopped { .. })
    ));
    assert!(database.failure().is_some());
    assert!(
        keyspace.get(0_u64.to_be_bytes()).unwrap().is_some(),
        "reading goes on"
    );
    std::fs::write(path.join("acknowledged"), acknowledged.to_string()).unwrap();
}

#[tokio::test]
async fn a_refused_write_stops_the_store_and_loses_nothing() {
    if let Some(directory) = std::env::var_os(DIRECTORY) {
        fill(Path::new(&directory)).await;
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    // In blocks of 512 bytes: a little more than the size to which the file is laid out at first.
    let script = "trap '' XFSZ; ulimit -f 140000; exec \"$0\" --exact a_refused_write_stops_the_store_and_loses_nothing";
    let output = Command::new("sh")
        .args(["-c", script])
        .arg(std::env::current_exe().unwrap())
        .env(DIRECTORY, directory.path())
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );

    let acknowledged: u64 = std::fs::read_to_string(directory.path().join("acknowledged"))
        .unwrap()
        .parse()
        .unwrap();
    assert!(acknowledged > 0);
    let database = open(directory.path());
    let keyspace = database.keyspace("k").unwrap();
    for number in 0..acknowledged {
        assert!(
            keyspace.get(number.to_be_bytes()).unwrap().is_some(),
            "entry {number} of {acknowledged}"
        );
    }
    assert!(database.failure().is_none(), "a new start takes writes again");
}
