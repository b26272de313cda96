//! See [`crate::store::erase`].

use async_trait::async_trait;
use muster_store::Batch;

use super::keys::{Journal, Runs};
use super::{Embedded, damaged, encode, erased};
use crate::store::Error;
use crate::store::erase::{Erase, Rewrite};

#[async_trait]
impl Erase for Embedded {
    async fn rewrite(&self, rewrite: Rewrite) -> Result<(), Error> {
        let Rewrite {
            summary,
            record,
            first_index,
            entries,
            approvals,
        } = rewrite;
        let id = summary.id.clone();
        let what = format!("run '{id}'");
        let head = self
            .read({
                let id = id.clone();
                move |store| store.heads.get(Runs::Head.of(&id)).map_err(damaged)
            })
            .await?;
        let closed = erased(summary.history_length);
        let open = summary.history_length.to_be_bytes();
        let head = head.filter(|head| *head == closed || *head == open);
        let head = head.ok_or_else(|| Error::Conflict(what.clone()))?;
        let mut batch = Batch::new();
        batch.expect_value(&self.heads, Runs::Head.of(&id), head);
        batch.put(&self.heads, Runs::Head.of(&id), closed);
        batch.put(&self.summaries, Runs::Summary.of(&id), encode(&summary)?);
        if let Some(record) = record {
            batch.put(&self.journals, Journal::Record.of(&id), encode(&record)?);
        }
        for (index, bytes) in (first_index..).zip(entries) {
            batch.put(&self.journals, Journal::entry(&id, index), bytes);
        }
        for held in [Journal::Output, Journal::Latest, Journal::Base] {
            batch.remove(&self.journals, held.of(&id));
        }
        self.put_approvals(&mut batch, &approvals)?;
        self.commit(batch, &what).await
    }
}
