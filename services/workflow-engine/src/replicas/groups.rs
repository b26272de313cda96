//! Groups of runs of which only so many may be under way, over all engines that share a store.
//!
//! Each engine keeps its own runs within such a limit by itself ([`crate::schedule`]); between engines, those that are under way
//! are members of the group in the store. A run joins before it begins and leaves when it has ended, durably. Nothing is lost by
//! a crash between the two: whoever finds a group full looks at its members, and takes out those that have ended or are gone. So
//! a limit is never exceeded, and room that nobody uses is found.
//!
//! A run that finds no room gives its slot back and comes again a little later. Between engines no order is kept: of runs of the
//! same group that wait in several engines, any may be next.

use std::time::Duration;

use jiff::SignedDuration;

use super::Replicas;
use super::coordination::GroupMember;
use crate::run::{RunId, Summary};
use crate::schedule::Limit;
use crate::store::{Error, Store};

/// When a run looks again that has found no room.
pub(crate) const AGAIN: SignedDuration = SignedDuration::from_millis(500);

/// How long leaving may take: whoever finds the group full does it otherwise.
const PATIENCE: Duration = Duration::from_secs(2);

fn member(run: &Summary) -> GroupMember<'_> {
    GroupMember {
        run: run.id.as_str(),
        retries: run.marks.retries,
    }
}

impl Replicas {
    /// Whether the run is in all of its groups, so that it may be under way. One that is in some of them stays there: it will
    /// have room in the others when theirs is found.
    pub(crate) async fn join_groups(&self, store: &dyn Store, run: &Summary) -> Result<bool, Error> {
        for limit in &run.claim.limits {
            if !self.join(limit, run).await? {
                self.clear_up(store, limit).await?;
                if !self.join(limit, run).await? {
                    self.leave_groups(run).await;
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    async fn join(&self, limit: &Limit, run: &Summary) -> Result<bool, Error> {
        self.coordination
            .join(&limit.group, limit.most, member(run))
            .await
    }

    /// The run is not under way.
    pub(crate) async fn leave_groups(&self, run: &Summary) {
        let all = async {
            for limit in &run.claim.limits {
                if let Err(error) = self.coordination.leave(&limit.group, member(run)).await {
                    tracing::debug!(run = %run.id, %error, "a group is left by whoever finds it full");
                }
            }
        };
        let _late = tokio::time::timeout(PATIENCE, all).await;
    }

    /// Takes those out that have ended.
    async fn clear_up(&self, store: &dyn Store, limit: &Limit) -> Result<(), Error> {
        for (id, retries) in self.coordination.group(&limit.group).await? {
            let known = match id.parse::<RunId>() {
                Ok(id) => store.summary(&id).await?,
                Err(_) => None,
            };
            if known.is_none_or(|run| run.status.is_final()) {
                let gone = GroupMember { run: &id, retries };
                self.coordination.leave(&limit.group, gone).await?;
            }
        }
        Ok(())
    }
}
