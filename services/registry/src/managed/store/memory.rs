//! What is kept, for as long as the process lives.

use std::collections::BTreeMap;

use async_trait::async_trait;
use parking_lot::Mutex;

use super::{Entries, Error, Kept, Key};

/// See the module.
#[derive(Debug, Default)]
pub struct Memory(Mutex<BTreeMap<Key, Kept>>);

#[async_trait]
impl Entries for Memory {
    async fn all(&self) -> Result<Vec<Kept>, Error> {
        Ok(self.0.lock().values().cloned().collect())
    }

    async fn put(&self, kept: &Kept) -> Result<(), Error> {
        self.0.lock().insert(kept.key(), kept.clone());
        Ok(())
    }

    async fn remove(&self, key: &Key) -> Result<(), Error> {
        self.0.lock().remove(key);
        Ok(())
    }

    fn failure(&self) -> Option<String> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_conforms() {
        super::super::conformance::run(&Memory::default()).await;
    }
}
