//! See [`crate::store::Again`].

use async_trait::async_trait;
use jiff::Timestamp;
use muster_store::Batch;

use super::keys::{Journal, Runs};
use super::{Embedded, encode};
use crate::run::Record;
use crate::store::payloads::Room;
use crate::store::{Again, Error, Step};

#[async_trait]
impl Again for Embedded {
    async fn reopen(&self, step: Step, ended_at: Timestamp) -> Result<(), Error> {
        let mut batch = Batch::new();
        batch.remove(&self.ended, Runs::ended(ended_at, step.summary.id.as_str()));
        batch.put(
            &self.unfinished,
            Runs::Unfinished.at(&step.summary.position()),
            [],
        );
        self.append_to(batch, step).await
    }

    async fn create_with(&self, record: &Record, step: Step) -> Result<(), Error> {
        let id = &record.id;
        let Step {
            summary,
            entries,
            approvals,
            events,
            payloads,
            ..
        } = step;
        let position = summary.position();
        let mut batch = Batch::new();
        batch.expect_absent(&self.heads, Runs::Head.of(id));
        self.put_missing(&mut batch, &Room::of(&summary), payloads)
            .await?;
        let length = entries.len() as u64;
        for (index, bytes) in (0..).zip(entries) {
            batch.put(&self.journals, Journal::entry(id, index), bytes);
        }
        batch.put(&self.heads, Runs::Head.of(id), length.to_be_bytes());
        batch.put(&self.summaries, Runs::Summary.of(id), encode(&summary)?);
        batch.put(&self.created, Runs::Created.at(&position), []);
        batch.put(&self.unfinished, Runs::Unfinished.at(&position), []);
        batch.put(&self.journals, Journal::Record.of(id), encode(record)?);
        self.put_approvals(&mut batch, &approvals)?;
        self.commit_step(batch, events, summary.created_at, &format!("run '{id}'"))
            .await
    }
}
