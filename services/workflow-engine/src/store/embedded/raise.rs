//! What an older format kept elsewhere is moved when the store is opened, before anybody reads it.
//!
//! Each batch is moved whole or not at all, so after a crash the next start moves the rest. What decides is what is found, not
//! the format that the directory names: that one is raised first, and a copy that was restored says the newest, whatever it holds.

use std::ops::Bound;

use muster_store::{Batch, Database, Error, Keyspace};

use super::keys::Runs;

/// Keys that are moved in one batch.
const AT_ONCE: usize = 5_000;

/// Moves an index of runs out of the keyspace of the summaries.
pub(super) fn move_apart(
    database: &Database,
    summaries: &Keyspace,
    kind: Runs,
    index: &Keyspace,
) -> Result<(), Error> {
    let mut moved = 0;
    loop {
        let mut batch = Batch::new();
        let range = (
            Bound::Included(kind.first().to_vec()),
            Bound::Excluded(kind.last().to_vec()),
        );
        let mut count = 0;
        for entry in summaries.range(range).take(AT_ONCE) {
            let (key, value) = entry?;
            batch.remove(summaries, key.clone());
            batch.put(index, key, value);
            count += 1;
        }
        if count == 0 {
            break;
        }
        futures::executor::block_on(database.commit(batch))?;
        moved += count;
    }
    if moved > 0 {
        tracing::info!(path = %database.path().display(), keys = moved, "an index of runs has a place of its own now");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::super::{Embedded, FORMAT, INDEXES_APART};
    use super::*;
    use crate::run::{RunId, Status, Summary};
    use crate::store::{Filter, Step, Store as _, conformance};

    fn open(directory: &tempfile::TempDir, format: u32) -> Embedded {
        let directory = muster_runtime::data_directory::open(directory.path()).unwrap();
        Embedded::open_with(directory, format, None).unwrap()
    }

    /// What is found by each index.
    async fn found(store: &Embedded) -> [Vec<RunId>; 3] {
        let mut all: Vec<RunId> = Vec::new();
        let mut before = None;
        loop {
            let page = store
                .runs(&Filter::default(), before.as_ref(), 1_000)
                .await
                .unwrap();
            all.extend(page.entries.into_iter().map(|run| run.id));
            before = page.next;
            if before.is_none() {
                break;
            }
        }
        let unfinished = store.unfinished(None, None, 10_000).await.unwrap();
        [
            all,
            unfinished
                .entries
                .into_iter()
                .map(|run| run.unwrap().id)
                .collect(),
            store.ended_before(Timestamp::MAX, 10_000).await.unwrap(),
        ]
    }

    fn keys(keyspace: &Keyspace) -> usize {
        keyspace.range::<Vec<u8>>(..).count()
    }

    #[tokio::test]
    async fn the_older_layout_is_kept_until_the_format_is_raised_and_moved_then() {
        let directory = tempfile::tempdir().unwrap();
        let runs = (AT_ONCE + 10) as i64;
        let store = open(&directory, INDEXES_APART - 1);
        // All at once, so that many are on disk with one sync.
        let created = (0..runs).map(async |number| {
            let (record, summary) = conformance::run(&format!("run-{number}"), number);
            store.create_run(&record, &summary).await.unwrap();
            summary
        });
        let created: Vec<Summary> = futures::future::join_all(created).await;
        let mut ended = created.into_iter().next_back().unwrap();
        ended.status = Status::Completed;
        ended.ended_at = Some(Timestamp::from_second(5).unwrap());
        ended.history_length = 1;
        store
            .append(Step {
                entries: vec![b"0".to_vec()],
                ..Step::to(ended.clone())
            })
            .await
            .unwrap();
        let before = found(&store).await;
        assert_eq!(before.each_ref().map(Vec::len), [AT_ONCE + 10, AT_ONCE + 9, 1]);
        let kinds = ["heads", "created", "unfinished", "ended"];
        drop(store);

        let store = open(&directory, INDEXES_APART - 1);
        assert_eq!(found(&store).await, before);
        for kind in kinds {
            assert_eq!(keys(&store.database.keyspace(kind).unwrap()), 0, "{kind}");
        }
        drop(store);

        // As after a crash between two batches.
        let store = open(&directory, INDEXES_APART - 1);
        let heads = store.database.keyspace("heads").unwrap();
        let (key, value) = store.heads.prefix(Runs::Head.first()).next().unwrap().unwrap();
        let mut batch = Batch::new();
        batch.remove(&store.heads, key.clone());
        batch.put(&heads, key, value);
        store.database.commit(batch).await.unwrap();
        drop((store, heads));

        for _ in 0..2 {
            let store = open(&directory, FORMAT.version);
            assert_eq!(found(&store).await, before);
            assert_eq!(keys(&store.summaries), AT_ONCE + 10);
            let held = kinds.map(|kind| keys(&store.database.keyspace(kind).unwrap()));
            assert_eq!(held, [AT_ONCE + 10, AT_ONCE + 10, AT_ONCE + 9, 1]);
        }

        // The condition of an append goes on from the head that was moved.
        let store = open(&directory, FORMAT.version);
        let (_, mut next) = conformance::run("run-0", 0);
        next.history_length = 1;
        let step = |entries| Step {
            entries,
            ..Step::to(next.clone())
        };
        store.append(step(vec![b"0".to_vec()])).await.unwrap();
        store.append(step(vec![b"0".to_vec()])).await.unwrap_err();
        store.forget_run(&ended.id).await.unwrap();
        assert_eq!(keys(&store.ended), 0);
        assert_eq!(keys(&store.heads), AT_ONCE + 9);
    }
}
