//! Writing over what is kept of a run, and forgetting the beginning of a journal.

use async_trait::async_trait;
use muster_store::redis::Script;

use super::keys::{self, Partition};
use super::{Redis, encode};
use crate::run::RunId;
use crate::store::Error;
use crate::store::erase::{Erase, Rewrite};

static REWRITE: Script = Script::new(include_str!("rewrite.lua"));
static FORGET: Script = Script::new(include_str!("forget_entries.lua"));

impl Redis {
    pub(super) async fn forget_first(&self, id: &RunId, before: u64, limit: usize) -> Result<usize, Error> {
        let partition = self.partition_of(id);
        let keys = Partition::new(self.prefix(), partition);
        let call = FORGET
            .call()
            .key(keys.lease())
            .key(keys.run(id))
            .key(keys.journal(id))
            .arg(self.fence_of(partition)?)
            .number(before)
            .number(limit as u64);
        let outcome: i64 = self.call(&call).await?;
        match usize::try_from(outcome) {
            Ok(count) => Ok(count),
            Err(_) => self.judge(outcome, partition, format!("run '{id}'")).map(|()| 0),
        }
    }
}

#[async_trait]
impl Erase for Redis {
    async fn rewrite(&self, rewrite: Rewrite) -> Result<(), Error> {
        let Rewrite {
            summary,
            record,
            first_index,
            entries,
            approvals,
        } = rewrite;
        let id = &summary.id;
        let partition = self.partition_of(id);
        let keys = Partition::new(self.prefix(), partition);
        let record = record.as_ref().map(encode).transpose()?.unwrap_or_default();
        let mut call = REWRITE
            .call()
            .key(keys.lease())
            .key(keys.run(id))
            .key(keys.journal(id))
            .key(keys.approvals(id))
            .arg(self.fence_of(partition)?)
            .number(summary.history_length)
            .arg(encode(&summary)?)
            .arg(record)
            .number(first_index);
        call.push_number(entries.len() as u64);
        for entry in entries {
            call.push(entry);
        }
        call.push_number(approvals.len() as u64);
        for approval in approvals {
            call.push_number(approval.id.number);
            call.push(keys::opened(&approval.position()));
            call.push(encode(&approval)?);
        }
        self.check_size(&call)?;
        let outcome: i64 = self.call(&call).await?;
        self.judge(outcome, partition, format!("run '{id}'"))
    }
}
