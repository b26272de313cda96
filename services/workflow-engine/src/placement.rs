//! Where work belongs: which engine works on a run, and on the schedule and the starts of a workflow.
//!
//! An engine that is alone works on everything. Engines that share a store each work on the partitions whose leases they hold
//! ([`crate::replicas`]). What an engine begins by itself it places where no other engine has to be asked: a run of its own
//! choice in a partition that it holds, a child beside its parent.

use std::sync::Arc;

use crate::error::Error;
use crate::partition;
use crate::replicas::{Owner, Replicas, Stay};
use crate::run::RunId;

/// How many ids are tried until one is of a partition that is held. With one partition of 1,024, the chance that none is found
/// is below one in ten million.
const MOST_TRIES: usize = 16_384;

/// See the module.
#[derive(Clone, Default)]
pub struct Placement {
    replicas: Option<Arc<Replicas>>,
}

impl Placement {
    /// Of an engine that is alone with its store.
    #[must_use]
    pub fn alone() -> Self {
        Self::default()
    }

    /// Of one that shares its store with others.
    pub(crate) fn shared(replicas: Arc<Replicas>) -> Self {
        Self {
            replicas: Some(replicas),
        }
    }

    /// The others, if the store is shared.
    pub(crate) fn replicas(&self) -> Option<&Arc<Replicas>> {
        self.replicas.as_ref()
    }

    /// Whether this engine works on the run.
    pub(crate) fn is_here(&self, run: &RunId) -> bool {
        let replicas = self.replicas.as_ref();
        replicas.is_none_or(|replicas| replicas.holds(replicas.partition_of(run)))
    }

    /// Epoch of the lease under which this engine works on the run, if the store is shared.
    pub(crate) fn epoch(&self, run: &RunId) -> Option<u64> {
        let replicas = self.replicas.as_ref()?;
        replicas.epoch(replicas.partition_of(run))
    }

    /// Whether this engine works on the schedule and the starts of the workflow with this name.
    pub(crate) fn is_name_here(&self, namespace: &str, name: &str) -> bool {
        let replicas = self.replicas.as_ref();
        replicas.is_none_or(|replicas| replicas.holds(replicas.partition_of_name(namespace, name)))
    }

    /// Keeps the run's partition here while something of it is begun.
    ///
    /// # Errors
    /// It is not here.
    pub(crate) async fn stay(&self, run: &RunId) -> Result<Option<Stay>, Error> {
        match &self.replicas {
            None => Ok(None),
            Some(replicas) => {
                let partition = replicas.partition_of(run);
                let stay = replicas.stay(partition).await;
                stay.map(Some).ok_or(Error::NotOwner { partition })
            }
        }
    }

    /// Refuses what is to be done to a run that is not here.
    pub(crate) fn check(&self, run: &RunId) -> Result<(), Error> {
        match &self.replicas {
            Some(replicas) if !self.is_here(run) => Err(Error::NotOwner {
                partition: replicas.partition_of(run),
            }),
            _ => Ok(()),
        }
    }

    /// An id for a run that is begun here.
    pub(crate) fn fresh(&self) -> RunId {
        if self
            .replicas
            .as_ref()
            .is_some_and(|replicas| !replicas.holds_any())
        {
            return RunId::fresh();
        }
        let mut tries = std::iter::repeat_with(RunId::fresh).take(MOST_TRIES);
        let here = tries.find(|id| self.is_here(id));
        here.unwrap_or_else(RunId::fresh)
    }

    /// The id of a run that belongs where `place` is.
    pub(crate) fn beside(&self, place: &RunId, id: RunId) -> RunId {
        match &self.replicas {
            None => id,
            Some(replicas) => partition::placed(id, replicas.partition_of(place)),
        }
    }

    /// The id of a run that belongs where the schedule of the workflow with this name is.
    pub(crate) fn beside_name(&self, namespace: &str, name: &str, id: RunId) -> RunId {
        match &self.replicas {
            None => id,
            Some(replicas) => partition::placed(id, replicas.partition_of_name(namespace, name)),
        }
    }

    /// Who works on the run.
    ///
    /// # Errors
    /// The store does not say.
    pub(crate) async fn owner(&self, run: &RunId) -> Result<Owner, Error> {
        match &self.replicas {
            None => Ok(Owner::Here),
            Some(replicas) => replicas.owner(replicas.partition_of(run)).await,
        }
    }
}
