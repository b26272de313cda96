//! Forgetting an ended run, in portions that hold nobody up.

use muster_store::redis::Script;

use super::Redis;
use super::keys::{Index, Partition};
use crate::run::RunId;
use crate::store::Error;

static FORGET: Script = Script::new(include_str!("forget_run.lua"));

/// Entries and approvals that are forgotten with one call.
const PORTION: u64 = 1_000;

/// What the script answers.
const MORE: i64 = 1;
const NOT_ENDED: i64 = -2;

impl Redis {
    pub(super) async fn forget(&self, id: &RunId) -> Result<(), Error> {
        let what = format!("run '{id}'");
        let partition = self.partition_of(id);
        let keys = Partition::new(self.prefix(), partition);
        loop {
            let call = FORGET
                .call()
                .key(keys.lease())
                .key(keys.run(id))
                .key(keys.journal(id))
                .key(keys.index(Index::Created))
                .key(keys.index(Index::Ended))
                .key(keys.approvals(id))
                .key(keys.index(Index::ApprovalsOpen))
                .key(keys.index(Index::ApprovalsAll))
                .key(keys.payloads(id))
                .arg(self.fence_of(partition)?)
                .number(PORTION);
            match self.call::<i64>(&call).await? {
                MORE => {}
                NOT_ENDED => return Err(Error::Conflict(what)),
                // Nothing is left, also where it was not there.
                0 => return Ok(()),
                outcome => return self.judge(outcome, partition, what),
            }
        }
    }
}
