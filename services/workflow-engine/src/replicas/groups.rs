//! Groups of runs of which only so many may be under way, over all engines that share a store.
//!
//! Each engine keeps its own runs within such a limit by itself ([`crate::schedule`]); between engines, those that are under way
//! are members of the group in Redis. A run joins before it begins and leaves when it has ended, durably. Nothing is lost by a
//! crash between the two: whoever finds a group full looks at its members, and takes out those that have ended or are gone. So
//! a limit is never exceeded, and room that nobody uses is found.
//!
//! A run that finds no room gives its slot back and comes again a little later. Between engines no order is kept: of runs of the
//! same group that wait in several engines, any may be next.

use std::time::Duration;

use jiff::SignedDuration;
use muster_store::redis::{Connection, Script, Slot, cmd};

use crate::run::{RunId, Summary};
use crate::schedule::Limit;
use crate::store::{Error, Store};

/// When a run looks again that has found no room.
pub(crate) const AGAIN: SignedDuration = SignedDuration::from_millis(500);

/// How long leaving may take: whoever finds the group full does it otherwise.
const PATIENCE: Duration = Duration::from_secs(2);

static JOIN: Script = Script::new(include_str!("groups/join.lua"));
static LEAVE: Script = Script::new(include_str!("groups/leave.lua"));

/// See the module.
pub(crate) struct Groups {
    connection: Connection,
    slot: Slot,
}

impl Groups {
    pub(super) fn new(connection: Connection, prefix: &str) -> Self {
        Self {
            connection,
            slot: Slot::named(prefix, "groups"),
        }
    }

    /// Whether the run is in all of its groups, so that it may be under way. One that is in some of them stays there: it will
    /// have room in the others when theirs is found.
    pub(crate) async fn join(&self, store: &dyn Store, run: &Summary) -> Result<bool, Error> {
        for limit in &run.claim.limits {
            if !self.join_one(limit, run).await? {
                self.clear_up(store, limit).await?;
                if !self.join_one(limit, run).await? {
                    self.leave(run).await;
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    async fn join_one(&self, limit: &Limit, run: &Summary) -> Result<bool, Error> {
        let call = JOIN
            .call()
            .key(self.key(limit))
            .arg(run.id.as_str())
            .number(run.marks.retries)
            .number(limit.most);
        self.connection.call(&call).await.map_err(unavailable)
    }

    /// The run is not under way.
    pub(crate) async fn leave(&self, run: &Summary) {
        let all = async {
            for limit in &run.claim.limits {
                let retries = run.marks.retries.to_string();
                if let Err(error) = self.take_out(limit, run.id.as_str(), &retries).await {
                    tracing::debug!(run = %run.id, %error, "a group is left by whoever finds it full");
                }
            }
        };
        let _late = tokio::time::timeout(PATIENCE, all).await;
    }

    /// Takes those out that have ended.
    async fn clear_up(&self, store: &dyn Store, limit: &Limit) -> Result<(), Error> {
        let members: Vec<(String, String)> = self
            .connection
            .run(cmd("HGETALL").arg(self.key(limit)))
            .await
            .map_err(unavailable)?;
        for (id, retries) in members {
            let known = match id.parse::<RunId>() {
                Ok(id) => store.summary(&id).await?,
                Err(_) => None,
            };
            if known.is_none_or(|run| run.status.is_final()) {
                self.take_out(limit, &id, &retries).await?;
            }
        }
        Ok(())
    }

    /// Takes a run out, unless it has joined anew since.
    async fn take_out(&self, limit: &Limit, id: &str, retries: &str) -> Result<(), Error> {
        let call = LEAVE.call().key(self.key(limit)).arg(id).arg(retries);
        self.connection
            .call::<i64>(&call)
            .await
            .map(|_| ())
            .map_err(unavailable)
    }

    /// Keys of groups hold what callers say, of any length.
    fn key(&self, limit: &Limit) -> Vec<u8> {
        self.slot
            .key_of("group", &muster_workflow_dsl::digest(&limit.group))
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the form that map_err wants")]
fn unavailable(error: muster_store::redis::Error) -> Error {
    Error::Unavailable(error.to_string())
}
