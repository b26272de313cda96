//! Which instance gets the next attempt of a call. The choice is made of the view, of what was measured, of chance and of the
//! time, all of which are given, so that whoever simulates a router chooses by the same code.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use muster_runtime::trace::Kind;
use parking_lot::RwLock;
use sha2::{Digest as _, Sha256};

use super::{Forwarder, Scope, Times};
use crate::balance::{self, Candidate, Preferences};
use crate::call::Call;
use crate::error::Error;
use crate::fleet::instance::Availability;
use crate::fleet::{Instance, Key, View};
use crate::flow::lines::{Pace, Refused};
use crate::flow::{self, Flow, NoPlace, Waiting, Wish};
use crate::link::{Flight, Link, Links};
use crate::operation::Method;
use crate::quota::Spent;
use crate::regions::Regions;
use crate::store::Owner;
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
    /// What chooses for a call of this operation, and a caller with this preference. `spent` says of which agents the caller may
    /// have no more messages now.
    pub(super) fn chooser<'a>(
        &'a self,
        method: &Method,
        region: Option<&'a str>,
        context: &'a str,
        before: Option<&'a Key>,
        spent: Option<&'a IsSpent<'a>>,
    ) -> Chooser<'a> {
        let limits = &self.parts.limits;
        Chooser {
            view: &self.parts.view,
            links: &self.parts.links,
            region,
            regions: &limits.regions,
            context,
            before,
            preferences: limits.preferences,
            random: &self.parts.random,
            is_streamed: method.is_streamed,
            spent,
            now: self.now(),
        }
    }

    /// A place for a message at an instance, for which it waits where there is none, no longer than its deadline and its
    /// time to live allow.
    pub(super) async fn admit(
        &self,
        method: &'static Method,
        call: &Call,
        scope: &Scope,
        context: &str,
        before: Option<&Arc<Key>>,
        times: Times,
    ) -> Result<Chosen, Error> {
        let flow = &self.parts.flow;
        let looked = || {
            let spent = |instance: &Instance| self.parts.quotas.spent(instance, &call.caller);
            let chooser = self.chooser(
                method,
                call.routing.region.as_deref(),
                context,
                before.map(|key| &**key),
                Some(&spent),
            );
            let able = chooser.able(scope, &BTreeSet::new())?;
            let name = || flow::line(method, scope, able.only());
            if !flow.has(name)
                && let Some(chosen) = chooser.with_room(flow, &able)
            {
                self.parts.meters.waited(Duration::ZERO);
                return Ok(Ok(chosen));
            }
            let waiting = Waiting {
                wish: Wish {
                    method,
                    scope: scope.clone(),
                    caller: call.caller.as_str().into(),
                    region: call.routing.region.clone(),
                    context: context.to_owned(),
                    before: before.cloned(),
                },
                priority: call.routing.priority,
                pace: able.pace(),
            };
            Ok(Err(flow.join(name(), waiting, |wish| self.look(wish))))
        };
        let joined = match looked().inspect_err(|error| self.count_spent(error))? {
            Ok(chosen) => return Ok(chosen),
            Err(joined) => joined,
        };
        let (since, mut span) = (self.now(), self.parts.tracer.span(Kind::Internal, || "queue"));
        let placed = match joined {
            Ok(wait) => wait.place(self.patience(times)).await,
            Err(refused) => Err(refused),
        };
        self.parts.meters.waited(self.now().saturating_sub(since));
        if span.is_recorded() {
            span.set("muster.target", scope.name());
            match &placed {
                Ok(_) => {}
                Err(NoPlace::Refused(_)) => span.fail("resource_exhausted", "the queue takes no more"),
                Err(NoPlace::Nobody(error)) => span.fail("unavailable", &error.to_string()),
                Err(NoPlace::TimedOut) => span.fail("timeout", "no place came free in time"),
            }
        }
        drop(span);
        placed.map_err(|why| match why {
            NoPlace::Refused(Refused::Full(waiting)) => Error::QueueFull { waiting },
            NoPlace::Refused(Refused::Overloaded(waiting, retry_after)) => Error::Overloaded {
                target: scope.name(),
                waiting,
                retry_after,
            },
            NoPlace::Nobody(error) => {
                self.count_spent(&error);
                error
            }
            NoPlace::TimedOut => self.waited_too_long(call, times),
        })
    }

    /// Looks for a place for a call that waits; `None` while there is none.
    ///
    /// # Errors
    /// There is nobody any more who could take it.
    pub(crate) fn look(&self, wish: &Wish) -> Result<Option<Chosen>, Error> {
        let spent = |instance: &Instance| self.parts.quotas.spent(instance, &wish.caller);
        let before = wish.before.as_deref();
        let region = wish.region.as_deref();
        let chooser = self.chooser(wish.method, region, &wish.context, before, Some(&spent));
        let able = chooser.able(&wish.scope, &BTreeSet::new())?;
        Ok(chooser.with_room(&self.parts.flow, &able))
    }
}

/// Whether the caller may have no more messages of an instance's agent now, and why.
pub type IsSpent<'a> = dyn Fn(&Instance) -> Option<Spent> + 'a;

/// What a choice is made of.
pub struct Chooser<'a> {
    /// The fleet.
    pub view: &'a RwLock<View>,
    /// The ways to the instances.
    pub links: &'a Links,
    /// The region that the call asks for, if it does.
    pub region: Option<&'a str>,
    /// How near regions are.
    pub regions: &'a Regions,
    /// The conversation that the call belongs to; empty for none.
    pub context: &'a str,
    /// The instance that has had the same message before, if one has.
    pub before: Option<&'a Key>,
    /// What the balancer goes by.
    pub preferences: Preferences,
    /// A random number below its argument.
    pub random: &'a dyn Fn(usize) -> usize,
    /// Whether a stream is to come back, so that only those can take the call who say that they stream.
    pub is_streamed: bool,
    /// Which agents have given the caller all that they give for now; `None`: the call is no message, and costs nothing.
    pub spent: Option<&'a IsSpent<'a>>,
    /// The time.
    pub now: Duration,
}

/// Instances that could take a call now, of which there is at least one.
pub struct Able {
    instances: Vec<(Arc<Instance>, Arc<Link>)>,
    /// The call can be taken by this one alone.
    is_bound: bool,
}

impl Able {
    /// The one instance that the call is bound to, if it is.
    #[must_use]
    pub fn only(&self) -> Option<&Instance> {
        let (instance, _) = self.instances.first()?;
        self.is_bound.then_some(&**instance)
    }

    /// How fast they answer all together, as far as it is known of each.
    #[must_use]
    pub fn pace(&self) -> Option<Pace> {
        let mut all: Option<Pace> = None;
        for (_, link) in &self.instances {
            let pace = link.pace()?;
            let before = all.unwrap_or(Pace {
                per_second: 0.0,
                answer: 0.0,
            });
            all = Some(Pace {
                per_second: before.per_second + pace.per_second,
                answer: before.answer.max(pace.answer),
            });
        }
        all
    }
}

impl Chooser<'_> {
    /// Chooses among the instances that were not tried yet, for a call that is no message.
    ///
    /// # Errors
    /// Nobody is known who could take the call, or nobody who was not tried takes it now.
    pub fn choose(&self, scope: &Scope, tried: &BTreeSet<Key>) -> Result<Chosen, Error> {
        let able = self.able(scope, tried)?;
        self.any_of(scope, tried, &able, |_, link| link.start(self.now))
    }

    /// Chooses among the instances that were not tried yet, for a message that moves: one with room before one without.
    ///
    /// # Errors
    /// As [`Self::choose`].
    pub fn move_on(&self, flow: &Arc<Flow>, scope: &Scope, tried: &BTreeSet<Key>) -> Result<Chosen, Error> {
        let able = self.able(scope, tried)?;
        if let Some(chosen) = self.with_room(flow, &able) {
            return Ok(chosen);
        }
        self.any_of(scope, tried, &able, |instance, link| {
            flow.start_beyond(instance, link, self.now)
        })
    }

    /// Chooses among those who have room; `None` where none has.
    #[must_use]
    pub fn with_room(&self, flow: &Arc<Flow>, able: &Able) -> Option<Chosen> {
        self.start(able, Link::has_room, |instance, link| {
            flow.start(instance, link, self.now)
        })
    }

    /// The instances that could take the call now, room or not.
    ///
    /// # Errors
    /// As [`Self::choose`]; or nobody is left but agents that have given the caller all that they give for now.
    pub fn able(&self, scope: &Scope, tried: &BTreeSet<Key>) -> Result<Able, Error> {
        let mut instances = self.candidates(scope)?;
        if self.is_streamed && !instances.is_empty() {
            instances.retain(|instance| instance.streams);
            if instances.is_empty() {
                return Err(Error::Unstreamed { target: scope.name() });
            }
        }
        let mut passed = Passed {
            registered: instances.len(),
            tried: tried.len(),
            ..Passed::default()
        };
        let mut untried = Vec::with_capacity(instances.len());
        for instance in instances {
            if !takes_work(scope, &instance) {
                passed.leaving += 1;
                continue;
            }
            if tried.contains(&*instance.id) {
                continue;
            }
            if let Some(spent) = self.spent.and_then(|spent| spent(&instance)) {
                passed.spent(spent);
                continue;
            }
            let link = self.links.to(&instance, self.now);
            match link.next_chance(self.now) {
                Duration::ZERO => untried.push((instance, link)),
                wait => passed.ejected(wait),
            }
        }
        let mut is_bound = prefer_owner(scope, &mut untried) || self.go_back(&mut untried);
        if !is_bound && !self.context.is_empty() {
            is_bound = self.stick(&mut untried);
        }
        if untried.is_empty() {
            return Err(passed.into_error(scope));
        }
        Ok(Able {
            instances: untried,
            is_bound,
        })
    }

    /// A message whose end nobody knows goes where it was, as long as that one can be asked. Whether it does.
    fn go_back(&self, untried: &mut Vec<(Arc<Instance>, Arc<Link>)>) -> bool {
        let Some(before) = self.before else {
            return false;
        };
        let is_there = untried.iter().any(|(instance, _)| *instance.id == *before);
        if is_there {
            untried.retain(|(instance, _)| *instance.id == *before);
        }
        is_there
    }

    fn distance(&self, instance: &Instance) -> u32 {
        self.regions.distance(self.region, &instance.region)
    }

    /// The messages of a context go to the instance that scores highest for it, if its agent asks for that: the same in every
    /// router of a region, and when an instance goes, only its own contexts move. Others never get what belongs to it. Those of
    /// the nearest region are scored; a context moves with its region, and not for load.
    fn stick(&self, untried: &mut Vec<(Arc<Instance>, Arc<Link>)>) -> bool {
        if !untried.iter().any(|(instance, _)| instance.has_sticky_contexts) {
            return false;
        }
        let score = |instance: &Instance| {
            let nearness = Reverse(self.distance(instance));
            (nearness, score(self.context, &instance.id.instance))
        };
        let Some((highest, _)) = untried.iter().max_by_key(|(instance, _)| score(instance)) else {
            return false;
        };
        let highest = Arc::clone(highest);
        if highest.has_sticky_contexts {
            untried.retain(|(instance, _)| instance.id == highest.id);
            true
        } else {
            untried.retain(|(instance, _)| !instance.has_sticky_contexts);
            false
        }
    }

    /// Starts the call at the best of them, whatever room it has.
    fn any_of(
        &self,
        scope: &Scope,
        tried: &BTreeSet<Key>,
        able: &Able,
        start: impl Fn(&Arc<Instance>, &Arc<Link>) -> Option<Flight>,
    ) -> Result<Chosen, Error> {
        self.start(able, |_| true, start).ok_or_else(|| {
            // Other calls have taken the breakers' only probes in the meantime.
            let passed = Passed {
                tried: tried.len(),
                ejected: able.instances.len(),
                ..Passed::default()
            };
            passed.into_error(scope)
        })
    }

    /// Starts the call at the best of those that `may` take it, and let it.
    fn start(
        &self,
        able: &Able,
        may: impl Fn(&Link) -> bool,
        start: impl Fn(&Arc<Instance>, &Arc<Link>) -> Option<Flight>,
    ) -> Option<Chosen> {
        let start = |(instance, link): &(Arc<Instance>, Arc<Link>)| {
            // Another call may have taken the last place, or the breaker's only probe, in the meantime.
            let flight = start(instance, link)?;
            Some(Chosen {
                instance: Arc::clone(instance),
                link: Arc::clone(link),
                flight,
            })
        };
        // Most agents have one instance: there is nothing to weigh.
        if let [only] = able.instances.as_slice() {
            return may(&only.1).then(|| start(only))?;
        }
        let mut from: Vec<_> = able.instances.iter().filter(|(_, link)| may(link)).collect();
        let mut candidates: Vec<Candidate<'_>> = from
            .iter()
            .map(|(instance, link)| link.candidate(instance, self.distance(instance), self.now))
            .collect();
        while let Some(picked) = balance::pick(&candidates, self.preferences, self.random) {
            candidates.swap_remove(picked);
            let chosen = start(from.swap_remove(picked));
            if chosen.is_some() {
                return chosen;
            }
        }
        None
    }

    fn candidates(&self, scope: &Scope) -> Result<Vec<Arc<Instance>>, Error> {
        let view = self.view.read();
        match scope {
            Scope::Serving { target, skills } => view.serving(target.as_ref(), skills),
            Scope::Owner(owner) if view.knows(&owner.agent) => {
                let mut all = view.serving(Some(&Target::Agent(owner.agent.clone())), &[])?;
                keep_who_may_have(owner, &mut all);
                Ok(all)
            }
            // The owner's agent is gone for so long that it is forgotten; it may yet come back.
            Scope::Owner(_) if view.is_known() => Ok(Vec::new()),
            Scope::Owner(_) => Err(Error::NoView),
        }
    }
}

/// How much an instance is preferred for a context: highest random weight, by a hash that every router computes alike.
fn score(context: &str, instance: &str) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(context);
    hash.update([0]);
    hash.update(instance);
    hash.finalize().into()
}

/// New work goes to those who take it; a task's owner answers for its tasks until it is gone.
fn takes_work(scope: &Scope, instance: &Instance) -> bool {
    instance.availability != Availability::Leaving
        || matches!(scope, Scope::Owner(owner) if owner.instance == instance.id.instance)
}

/// As long as the owner is registered, its tasks are its own, however silent it is: of the others only those know them who share
/// its store, and what the rest say of them would be believed.
fn keep_who_may_have(owner: &Owner, instances: &mut Vec<Arc<Instance>>) {
    let key = owner.key();
    let Some(registered) = instances.iter().find(|instance| *instance.id == key) else {
        return;
    };
    let store = registered.shared_tasks.clone();
    instances.retain(|instance| *instance.id == key || (store.is_some() && instance.shared_tasks == store));
}

/// While the owner can be asked, nobody else is. Whether that is so.
fn prefer_owner(scope: &Scope, untried: &mut Vec<(Arc<Instance>, Arc<Link>)>) -> bool {
    let Scope::Owner(owner) = scope else {
        return false;
    };
    let key = owner.key();
    let is_there = untried.iter().any(|(instance, _)| *instance.id == key);
    if is_there {
        untried.retain(|(instance, _)| *instance.id == key);
    }
    is_there
}

/// Who was passed over, and why.
#[derive(Default)]
struct Passed {
    /// How many there are at all.
    registered: usize,
    tried: usize,
    leaving: usize,
    ejected: usize,
    /// When the first of those is tried again.
    soonest: Option<Duration>,
    /// The agent that gives the caller something again first.
    spent: Option<Spent>,
}

impl Passed {
    fn ejected(&mut self, wait: Duration) {
        self.ejected += 1;
        self.soonest = Some(self.soonest.map_or(wait, |soonest| soonest.min(wait)));
    }

    fn spent(&mut self, spent: Spent) {
        let is_sooner = |other: &Spent| spent.retry_after < other.retry_after;
        if self.spent.as_ref().is_none_or(is_sooner) {
            self.spent = Some(spent);
        }
    }

    fn into_error(self, scope: &Scope) -> Error {
        if let Some(spent) = self.spent {
            return Error::QuotaExceeded(spent);
        }
        let mut why = Vec::new();
        if self.registered == 0 && self.ejected == 0 {
            why.push("none is registered".to_owned());
        }
        for (count, what) in [
            (self.tried, "could not be reached just now"),
            (self.ejected, "failed too often and is left alone for a while"),
            (self.leaving, "is draining or in maintenance"),
        ] {
            if count > 0 {
                why.push(format!("{count} {what}"));
            }
        }
        let is_unreachable = self.tried > 0;
        Error::NoInstance {
            target: scope.name(),
            why: why.join(", "),
            cause: if is_unreachable {
                "unreachable"
            } else if self.ejected > 0 {
                "breaker"
            } else if self.leaving > 0 {
                "draining"
            } else {
                "none"
            },
            retry_after: self.soonest.filter(|_| !is_unreachable).unwrap_or(SOON).max(SOON),
        }
    }
}
