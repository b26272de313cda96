//! Which instance has a task that no living owner is known of: one that began through another router, or whose instance came back
//! under another id.
//!
//! Routers that share no store know the owners of those tasks only whose answers they have seen. A client that changes from one
//! such router to another in the middle of a task names the agent (or a skill) with it, and the instances of that target are asked
//! for the task, some at a time, until one has it; from then on that one is known as the owner. With one instance nothing is
//! asked: it answers the request itself. What cannot be asked now may have the task, so that "not found" is said only when all
//! have said so; of instances whose cards say that they share a store, one says it for all.
//!
//! Rejected: to require a store that all routers share (a further server, for what the agents know anyway); the instance in the id of
//! the task (agents choose the ids); trying the request itself at one instance after the other (a message or a cancellation
//! would be given to those whom it does not concern).

use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt as _, stream};
use muster_api::a2a::GetTaskRequest;
use tonic::Code;

use super::choose::Chosen;
use super::deliver::{Delivery, Ended, upstream};
use super::failure::Failure;
use super::{Forwarder, Scope, Times, encode};
use crate::call::Call;
use crate::error::Error;
use crate::fleet::instance::by_store;
use crate::fleet::{Instance, Key};
use crate::measure::Verdict;
use crate::operation::{GetTask, Operation as _};
use crate::peek::Asked;
use crate::store::Owner;

/// Stores that are asked at once for one task.
const AT_ONCE: usize = 16;

/// Stores that are asked for one task; more count as such that could not be asked.
const MOST: usize = 256;

/// How long an instance may take to say whether it has a task.
const PATIENCE: Duration = Duration::from_secs(5);

/// What an instance says of a task.
enum Said {
    /// It has it.
    Has,
    /// It does not know it.
    HasNot,
    /// Something else, for instance that the caller may not see it.
    Other,
    /// Nothing: it could not be reached, takes nothing now, or did not answer in time.
    Nothing,
}

/// How asking one instance ended.
pub(super) enum Spoken {
    /// With its answer.
    Answered(bytes::Bytes),
    /// Without one.
    Failed(Failure),
    /// In silence, for this reason.
    Nothing(&'static str),
}

impl Forwarder {
    /// The owner of a task among those in the scope; the scope itself where there is at most one, who answers for itself.
    /// `caller` is on whose behalf the task was begun.
    pub(super) async fn locate(
        &self,
        call: &Call,
        scope: Scope,
        task: &str,
        caller: &str,
    ) -> Result<Scope, Error> {
        let Scope::Serving { target, skills } = &scope else {
            return Ok(scope);
        };
        let instances = self.parts.view.read().serving(target.as_ref(), skills)?;
        if instances.len() <= 1 {
            return Ok(scope);
        }
        let times = Times {
            deadline: Some(self.deadline(call)),
            expiry: None,
        };
        let _permit = self.place(call, times).await?;
        let mut stores = by_store(&instances);
        let mut unasked = stores.len().saturating_sub(MOST);
        stores.truncate(MOST);
        let request = GetTaskRequest {
            id: task.to_owned(),
            history_length: Some(0),
            ..GetTaskRequest::default()
        };
        let asked = Asked::read(GetTask::METHOD, encode(&request))?;
        let delivery = Delivery::new(GetTask::METHOD, call, &scope, &asked.encoded, times);
        let questions: Vec<_> = stores
            .into_iter()
            .map(|store| self.question(&delivery, store))
            .collect();
        let mut answers = stream::iter(questions).buffer_unordered(AT_ONCE);
        let mut other = None;
        while let Some(answer) = answers.next().await {
            let Some((key, said)) = answer else { continue };
            match said {
                Said::Has => {
                    let now = self.parts.clock.now();
                    self.parts.ownership.record(task, &key, caller, now).await?;
                    return Ok(self.owned_by(&key, caller));
                }
                Said::HasNot => {}
                Said::Other => other = Some(key),
                Said::Nothing => unasked += 1,
            }
        }
        match other {
            // Its answer to the request itself says more than the router could.
            Some(key) => Ok(self.owned_by(&key, caller)),
            None if unasked > 0 => Err(Error::TaskUnlocated {
                task: task.to_owned(),
                target: scope.name(),
                unasked,
            }),
            None => Err(Error::UnknownTask {
                task: task.to_owned(),
            }),
        }
    }

    fn owned_by(&self, key: &Key, caller: &str) -> Scope {
        Scope::Owner(Owner {
            agent: key.agent.clone(),
            instance: key.instance.clone(),
            since: self.parts.clock.now(),
            caller: Some(caller.to_owned()),
        })
    }

    /// What a store says, by the first of its instances that says anything.
    async fn question(&self, delivery: &Delivery<'_>, store: Vec<Arc<Instance>>) -> Option<(Arc<Key>, Said)> {
        let mut silent = None;
        for instance in store {
            let key = Arc::clone(&instance.id);
            let said = match self.ask_one(delivery, instance, PATIENCE).await {
                Spoken::Answered(_) => Said::Has,
                Spoken::Failed(failure) => said(&failure),
                Spoken::Nothing(_) => Said::Nothing,
            };
            if !matches!(said, Said::Nothing) {
                return Some((key, said));
            }
            silent = Some((key, said));
        }
        silent
    }

    /// Asks one instance, unless it is left alone for having failed too often, for no longer than `patience`.
    pub(super) async fn ask_one(
        &self,
        delivery: &Delivery<'_>,
        instance: Arc<Instance>,
        patience: Duration,
    ) -> Spoken {
        let key = Arc::clone(&instance.id);
        let started = self.now();
        let link = self.parts.links.to(&instance, started);
        let Some(flight) = link.start(started) else {
            return Spoken::Nothing("it failed too often and is left alone for a while");
        };
        let deadline = delivery.times.deadline;
        let left = match deadline.map(|deadline| deadline.remaining(started)) {
            Some(left) => left.unwrap_or_default().min(patience),
            None => patience,
        };
        let chosen = Chosen {
            instance,
            link,
            flight,
        };
        let request = upstream(delivery, &chosen.instance, Some(left));
        self.sent(delivery, &chosen.instance);
        let outcome = self
            .attempt::<bytes::Bytes>(delivery.method, &chosen, request, Some(left))
            .await;
        let now = self.now();
        let (verdict, spoken) = match outcome {
            Ok((response, _)) => (
                Verdict::Answered(Some(now.saturating_sub(started))),
                Spoken::Answered(response.into_inner()),
            ),
            Err(Ended::TimedOut) => (
                Verdict::Silent(Some(left)),
                Spoken::Nothing("it did not answer in time"),
            ),
            Err(Ended::Failed(failure)) => (failure.verdict(), Spoken::Failed(failure)),
        };
        self.end(chosen.flight, verdict, &key.agent);
        spoken
    }
}

fn said(failure: &Failure) -> Said {
    match failure {
        Failure::Answered(status) if status.code() == Code::NotFound => Said::HasNot,
        Failure::Answered(_) | Failure::TooLarge(_) => Said::Other,
        Failure::NeverReached(_)
        | Failure::BrokeOff(_)
        | Failure::Refused(_)
        | Failure::NotA2a(_)
        | Failure::Unauthorized(_) => Said::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use tonic::Status;

    use super::*;

    #[test]
    fn only_not_found_says_that_it_has_not_the_task() {
        let of = |status| said(&Failure::of(status));
        assert!(matches!(of(Status::not_found("x")), Said::HasNot));
        assert!(matches!(of(Status::permission_denied("x")), Said::Other));
        assert!(matches!(of(Status::unavailable("x")), Said::Nothing));
        assert!(matches!(said(&Failure::lost()), Said::Nothing));
    }
}
