//! Owners in memory: gone with the process, for tests and for routers that need not outlive one.

mod answers;

use std::collections::{BTreeSet, HashMap};

use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use parking_lot::Mutex;

use super::{Error, Owner, Owners, SWEPT_AT_ONCE};

pub use answers::MemoryAnswers;

/// Owners in memory.
#[derive(Debug, Default)]
pub struct Memory {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    owners: HashMap<String, Owner>,
    by_age: BTreeSet<(Timestamp, String)>,
}

#[async_trait]
impl Owners for Memory {
    async fn get(&self, task: &str) -> Result<Option<Owner>, Error> {
        Ok(self.state.lock().owners.get(task).cloned())
    }

    async fn put(&self, task: &str, owner: &Owner, keep: SignedDuration) -> Result<Option<Owner>, Error> {
        let mut state = self.state.lock();
        if let Some(before) = state.owners.get(task)
            && before.withstands(owner, keep)
        {
            return Ok(Some(before.clone()));
        }
        if let Some(before) = state.owners.insert(task.to_owned(), owner.clone()) {
            state.by_age.remove(&(before.since, task.to_owned()));
        }
        state.by_age.insert((owner.since, task.to_owned()));
        Ok(None)
    }

    async fn sweep(&self, before: Timestamp, most: usize) -> Result<usize, Error> {
        let mut state = self.state.lock();
        let mut swept = 0;
        while swept < SWEPT_AT_ONCE
            && let Some((since, _)) = state.by_age.first()
            && (*since < before || state.by_age.len() > most)
        {
            if let Some((_, task)) = state.by_age.pop_first() {
                state.owners.remove(&task);
            }
            swept += 1;
        }
        Ok(swept)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_conforms() {
        super::super::conformance::run(&Memory::default()).await;
        super::super::conformance::run_sweeps(&Memory::default()).await;
    }
}
