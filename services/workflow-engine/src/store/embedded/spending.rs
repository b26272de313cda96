//! What namespaces have used, in the embedded store.
//!
//! Keys: day, namespace, NUL, run → what the run used on that day.

use std::ops::Bound;

use async_trait::async_trait;
use muster_store::Batch;
use muster_workflow_dsl::usage::Usage;

use super::keys::sortable;
use super::{Embedded, damaged, encode};
use crate::run::RunId;
use crate::store::Error;
use crate::store::spending::{Spending, Spent};

impl Embedded {
    /// Writes what the run has used on a day.
    pub(super) fn put_spent(
        &self,
        batch: &mut Batch,
        namespace: &str,
        run: &RunId,
        spent: &Spent,
    ) -> Result<(), Error> {
        let mut key = of(spent.day, namespace);
        key.extend(run.as_str().as_bytes());
        batch.put(&self.spending, key, encode(&spent.usage)?);
        Ok(())
    }

    fn spent_now(&self, namespace: &str, from: i64, to: i64) -> Result<Usage, Error> {
        let mut sum = Usage::default();
        for day in from..=to {
            for entry in self.spending.prefix(of(day, namespace)) {
                let (_, bytes) = entry.map_err(damaged)?;
                sum += self.decode::<Usage>("what a run has used", &bytes)?;
            }
        }
        Ok(sum)
    }

    fn spent_before(&self, day: i64, limit: usize) -> Result<Vec<Vec<u8>>, Error> {
        let end = sortable(day).to_be_bytes().to_vec();
        let entries = self
            .spending
            .range((Bound::<Vec<u8>>::Unbounded, Bound::Excluded(end)));
        let keys = entries.take(limit).map(|entry| entry.map(|(key, _)| key));
        keys.collect::<Result<_, _>>().map_err(damaged)
    }
}

#[async_trait]
impl Spending for Embedded {
    async fn spent(&self, namespace: &str, from: i64, to: i64) -> Result<Usage, Error> {
        let namespace = namespace.to_owned();
        self.read(move |store| store.spent_now(&namespace, from, to))
            .await
    }

    async fn forget_spending(&self, day: i64, limit: usize) -> Result<usize, Error> {
        let keys = self.read(move |store| store.spent_before(day, limit)).await?;
        let count = keys.len();
        if count > 0 {
            let mut batch = Batch::new();
            for key in keys {
                batch.remove(&self.spending, key);
            }
            self.commit(batch, "what was used long ago").await?;
        }
        Ok(count)
    }
}

fn of(day: i64, namespace: &str) -> Vec<u8> {
    let mut key = sortable(day).to_be_bytes().to_vec();
    key.extend(namespace.as_bytes());
    key.push(0);
    key
}
