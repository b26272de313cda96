//! Which instance gets the next attempt of a call.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::{Forwarder, Scope};
use crate::balance;
use crate::call::Call;
use crate::error::Error;
use crate::fleet::instance::Availability;
use crate::fleet::{Instance, Key};
use crate::link::{Flight, Link};
use crate::target::Target;

/// When to try again where nothing better is known: agents register and heartbeat within seconds.
const SOON: Duration = Duration::from_secs(1);

/// An instance that is about to get the call.
pub(super) struct Chosen {
    pub(super) instance: Arc<Instance>,
    pub(super) link: Arc<Link>,
    pub(super) flight: Flight,
}

impl Forwarder {
    /// Chooses among the instances that were not tried yet.
    pub(super) fn choose(&self, call: &Call, scope: &Scope, tried: &BTreeSet<Key>) -> Result<Chosen, Error> {
        let now = self.now();
        let instances = self.candidates(scope)?;
        let region = call
            .routing
            .region
            .as_deref()
            .unwrap_or(&self.parts.limits.region);
        let (mut untried, mut ejected) = (Vec::new(), Vec::new());
        for instance in instances.iter().filter(|instance| takes_work(scope, instance)) {
            if tried.contains(&instance.id) {
                continue;
            }
            let link = self.parts.links.to(instance);
            match link.next_chance(now) {
                Duration::ZERO => untried.push((Arc::clone(instance), link)),
                wait => ejected.push(wait),
            }
        }
        prefer_owner(scope, &mut untried);
        while !untried.is_empty() {
            let candidates: Vec<_> = untried
                .iter()
                .map(|(instance, link)| link.candidate(instance, region))
                .collect();
            let picked = balance::pick(&candidates, self.parts.limits.max_load, &self.parts.random);
            let Some((instance, link)) = picked.map(|index| untried.swap_remove(index)) else {
                break;
            };
            // Another call may have taken the breaker's only probe in the meantime.
            if let Some(flight) = link.start(now) {
                return Ok(Chosen {
                    instance,
                    link,
                    flight,
                });
            }
            ejected.push(SOON);
        }
        Err(nobody(scope, &instances, tried.len(), &ejected))
    }

    fn candidates(&self, scope: &Scope) -> Result<Vec<Arc<Instance>>, Error> {
        let view = self.parts.view.read();
        match scope {
            Scope::Serving { target, skills } => view.serving(target.as_ref(), skills),
            Scope::Owner(owner) if view.knows(&owner.agent) => {
                view.serving(Some(&Target::Agent(owner.agent.clone())), &[])
            }
            // The owner's agent is gone for so long that it is forgotten; it may yet come back.
            Scope::Owner(_) if view.is_known() => Ok(Vec::new()),
            Scope::Owner(_) => Err(Error::NoView),
        }
    }
}

/// New work goes to those who take it; a task's owner answers for its tasks until it is gone.
fn takes_work(scope: &Scope, instance: &Instance) -> bool {
    instance.availability != Availability::Leaving
        || matches!(scope, Scope::Owner(owner) if owner.instance == instance.id.instance)
}

/// While the owner can be asked, nobody else is.
fn prefer_owner(scope: &Scope, untried: &mut Vec<(Arc<Instance>, Arc<Link>)>) {
    if let Scope::Owner(owner) = scope
        && untried.iter().any(|(instance, _)| instance.id == owner.key())
    {
        untried.retain(|(instance, _)| instance.id == owner.key());
    }
}

fn nobody(scope: &Scope, instances: &[Arc<Instance>], tried: usize, ejected: &[Duration]) -> Error {
    let leaving = instances
        .iter()
        .filter(|instance| !takes_work(scope, instance))
        .count();
    let mut why = Vec::new();
    if instances.is_empty() {
        why.push("none is registered".to_owned());
    }
    for (count, what) in [
        (tried, "could not be reached just now"),
        (ejected.len(), "failed too often and is left alone for a while"),
        (leaving, "is draining or in maintenance"),
    ] {
        if count > 0 {
            why.push(format!("{count} {what}"));
        }
    }
    Error::NoInstance {
        target: scope.name(),
        why: why.join(", "),
        cause: if tried > 0 {
            "unreachable"
        } else if !ejected.is_empty() {
            "breaker"
        } else if leaving > 0 {
            "draining"
        } else {
            "none"
        },
        retry_after: if tried > 0 {
            SOON
        } else {
            ejected.iter().min().copied().unwrap_or(SOON).max(SOON)
        },
    }
}
