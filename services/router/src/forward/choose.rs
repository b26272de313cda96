//! Which instance gets the next attempt of a call. The choice is made of the view, of what was measured, of chance and of the
//! time, all of which are given, so that whoever simulates a router chooses by the same code.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;

use super::{Forwarder, Scope};
use crate::balance;
use crate::call::Call;
use crate::error::Error;
use crate::fleet::instance::Availability;
use crate::fleet::{Instance, Key, View};
use crate::link::{Flight, Link, Links};
use crate::target::Target;

/// When to try again where nothing better is known: agents register and heartbeat within seconds.
const SOON: Duration = Duration::from_secs(1);

/// An instance that is about to get the call.
#[derive(Debug)]
pub struct Chosen {
    /// The instance.
    pub instance: Arc<Instance>,
    /// The way to it.
    pub link: Arc<Link>,
    /// The call, as its link counts it.
    pub flight: Flight,
}

impl Forwarder {
    /// Chooses among the instances that were not tried yet.
    pub(super) fn choose(&self, call: &Call, scope: &Scope, tried: &BTreeSet<Key>) -> Result<Chosen, Error> {
        let limits = &self.parts.limits;
        let chooser = Chooser {
            view: &self.parts.view,
            links: &self.parts.links,
            region: call.routing.region.as_deref().unwrap_or(&limits.region),
            max_load: limits.max_load,
            random: &self.parts.random,
            now: self.now(),
        };
        chooser.choose(scope, tried)
    }
}

/// What a choice is made of.
pub struct Chooser<'a> {
    /// The fleet.
    pub view: &'a RwLock<View>,
    /// The ways to the instances.
    pub links: &'a Links,
    /// The preferred region; empty for none.
    pub region: &'a str,
    /// Load above which others are preferred.
    pub max_load: f64,
    /// A random number below its argument.
    pub random: &'a dyn Fn(usize) -> usize,
    /// The time.
    pub now: Duration,
}

impl Chooser<'_> {
    /// Chooses among the instances that were not tried yet.
    ///
    /// # Errors
    /// Nobody is known who could take the call, or nobody who was not tried takes it now.
    pub fn choose(&self, scope: &Scope, tried: &BTreeSet<Key>) -> Result<Chosen, Error> {
        let instances = self.candidates(scope)?;
        let (mut untried, mut ejected) = (Vec::new(), Vec::new());
        for instance in instances.iter().filter(|instance| takes_work(scope, instance)) {
            if tried.contains(&*instance.id) {
                continue;
            }
            let link = self.links.to(instance);
            match link.next_chance(self.now) {
                Duration::ZERO => untried.push((Arc::clone(instance), link)),
                wait => ejected.push(wait),
            }
        }
        prefer_owner(scope, &mut untried);
        while !untried.is_empty() {
            let candidates: Vec<_> = untried
                .iter()
                .map(|(instance, link)| link.candidate(instance, self.region))
                .collect();
            let picked = balance::pick(&candidates, self.max_load, self.random);
            let Some((instance, link)) = picked.map(|index| untried.swap_remove(index)) else {
                break;
            };
            // Another call may have taken the breaker's only probe in the meantime.
            if let Some(flight) = link.start(self.now) {
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
        let view = self.view.read();
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
    if let Scope::Owner(owner) = scope {
        let key = owner.key();
        if untried.iter().any(|(instance, _)| *instance.id == key) {
            untried.retain(|(instance, _)| *instance.id == key);
        }
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
