//! The registry's view and the router, between the engine and its simulated agents.
//!
//! Each agent has a few instances that register, are heard of, die and come back as the seed says ([`weather`]). The registry is
//! its lease table ([`registry`]). The router is its own view, links with their breakers, choice of an instance, judgement of
//! failures and retry budget; what is written here is the loop around them, which goes as the router's own does, and what a
//! connection does. Between the two is the registry's stream: it is late, and breaks off.
//!
//! Invariants, told to the witness where they break:
//!
//! * An attempt that may not be repeated is with at most one instance that lives.
//! * Nothing is sent to whom the registry has said to be gone.
//! * A call is not refused while an instance is known that lives, takes work and has a closed breaker.
//! * That holds while the registry is away, too.
//!
//! That each would be seen to break is shown by [`Sabotage`].
//!
//! The time of a fleet goes on when somebody carries a call, because it outlives the runtimes of the engine's lives and can have
//! no task in any. All choices follow from the seed and from what they are about, or from the order of calls, which the seed
//! decides as well.
//!
//! Rejected: the forwarder as a whole. It calls over connections, and what would be found there is the transport's. Also
//! rejected: faults at the same times in the world without faults. Runs then end alike without having shown that the fleet makes
//! no difference to them.

mod registry;
mod told;
mod weather;

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use muster_api::registry::watch_agents_response::Change;
use muster_router::balance::Preferences;
use muster_router::error::Error;
use muster_router::fleet::{Key, View, watch};
use muster_router::forward::{Chooser, Chosen, Failure as Broken, Scope};
use muster_router::link::Links;
use muster_router::measure::Verdict;
use muster_router::regions::Regions;
use muster_router::target::Target;
use muster_rpc::breaker::{self, State as Breaker};
use muster_rpc::retry_budget::{self, RetryBudget};
use muster_workflow_engine::simulation::{
    Delivery, Fleet, Invariant, Simulation, Surroundings, Undelivered, decided,
};
use parking_lot::{Mutex, RwLock};
use serde_json::Value;
use tonic::Status;

use crate::failure::Failure;
use registry::{Member, Registry};
use told::Told;
use weather::{Condition, Kind, Registry as Reach, Weather};

/// How finely the fleet's time is played.
const TICK: Duration = Duration::from_millis(500);

/// How long the fleet has been there when the world begins.
const HEAD_START: Duration = Duration::from_secs(30);

/// A longer time in which nobody called is left out, but for its end.
const LONGEST_PLAYED: Duration = Duration::from_secs(120);

/// How long it takes to find that there is no machine at an address.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// How long the view keeps whom the registry does not confirm.
const GRACE: Duration = Duration::from_secs(5);

/// How late the registry's stream may be.
const MOST_LATE: u64 = 1_000;

/// Load above which others are preferred.
const PREFERENCES: Preferences = Preferences {
    max_load: 0.8,
    slow_start: Duration::ZERO,
};

/// Most instances that one call tries.
const ATTEMPTS: usize = 8;

/// When to try again where nothing better is known.
const SOON: Duration = Duration::from_secs(1);

/// An instance is left alone for less time than the engine waits for an agent, or what the agent answers would depend on how
/// others fared before.
const BREAKER: breaker::Config = breaker::Config {
    failures: 5,
    open_for: Duration::from_secs(5),
    probes: 1,
    successes: 1,
};

/// More than is needed, for the same reason.
const BUDGET: retry_budget::Config = retry_budget::Config {
    share: 0.2,
    minimum_per_second: 10.0,
    burst: 100.0,
};

/// A promise of the router broken on purpose, to see it caught.
#[cfg_attr(not(test), expect(dead_code, reason = "only tests break promises"))]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sabotage {
    /// A call that broke off moves on, whatever it does.
    MovesEverything,
    /// Who is said to be gone stays in the view.
    ForgetsDepartures,
    /// Nobody is called that has a breaker which counts a failure.
    RefusesTheTried,
    /// Nobody is called while the registry is away.
    RefusesWhenStale,
}

/// Simulations whose calls go through a fleet.
pub(super) fn simulation(sabotage: Option<Sabotage>) -> Result<Simulation, Failure> {
    let members = registry::members().map_err(|error| Failure::failed(error.to_string()))?;
    let members = Arc::new(members);
    let make = move |surroundings: Surroundings| {
        Arc::new(Simulated::new(surroundings, Arc::clone(&members), sabotage)) as Arc<dyn Fleet>
    };
    Simulation::with_fleet(make).map_err(|error| Failure::failed(error.to_string()))
}

/// See the module.
struct Simulated {
    weather: Weather,
    surroundings: Surroundings,
    members: Arc<BTreeMap<String, Member>>,
    sabotage: Option<Sabotage>,
    view: RwLock<View>,
    links: Links,
    budget: Mutex<RetryBudget>,
    state: Mutex<State>,
}

struct State {
    registry: Registry,
    /// Until when time was played.
    played: Duration,
    /// Whether the router follows the registry.
    is_following: bool,
    /// What the registry has sent, and when it arrives.
    on_the_way: VecDeque<(Duration, Change)>,
    told: Told,
    calls: u64,
    /// Who works on each call that is under way, and since when.
    at_work: BTreeMap<u64, Vec<(Key, Duration)>>,
}

/// How one attempt ended without an answer.
enum Ended {
    TimedOut,
    /// The agent's own failure, where it answered.
    Failed(Broken, Option<Undelivered>),
}

impl Simulated {
    fn new(
        surroundings: Surroundings,
        members: Arc<BTreeMap<String, Member>>,
        sabotage: Option<Sabotage>,
    ) -> Self {
        let weather = Weather {
            seed: surroundings.seed,
            is_calm: surroundings.is_calm,
        };
        Self {
            weather,
            members: Arc::clone(&members),
            // What is compared with must be right.
            sabotage: sabotage.filter(|_| !surroundings.is_calm),
            surroundings,
            view: RwLock::new(View::new("default", GRACE)),
            links: Links::new(BREAKER),
            budget: Mutex::new(RetryBudget::new(BUDGET, Duration::ZERO)),
            state: Mutex::new(State {
                registry: Registry::new(weather, members),
                played: Duration::ZERO,
                is_following: false,
                on_the_way: VecDeque::new(),
                told: Told::default(),
                calls: 0,
                at_work: BTreeMap::new(),
            }),
        }
    }

    fn is_sabotaged(&self, sabotage: Sabotage) -> bool {
        self.sabotage == Some(sabotage)
    }

    /// Plays what has happened until now, and says when that is.
    fn advance(&self, delivery: &Delivery<'_>) -> Duration {
        let now = delivery.clock.monotonic() + HEAD_START;
        let state = &mut *self.state.lock();
        if now.saturating_sub(state.played) > LONGEST_PLAYED {
            let whole = (now - HEAD_START).as_millis() / TICK.as_millis();
            state.played = TICK * u32::try_from(whole).unwrap_or(u32::MAX);
            state.registry.restart();
            self.stop_following(state);
        }
        while state.played + TICK <= now {
            state.played += TICK;
            self.play(state, delivery);
        }
        now
    }

    fn play(&self, state: &mut State, delivery: &Delivery<'_>) {
        let (at, wall) = (state.played, delivery.clock.now());
        let changes = state.registry.play(at, wall);
        if self.weather.registry(at) == Reach::There {
            let changes = if state.is_following {
                changes
            } else {
                vec![state.registry.snapshot(at, wall)]
            };
            state.is_following = true;
            for change in changes {
                let late = decided(self.weather.seed, &[&"late", &at.as_millis()]) % MOST_LATE;
                let before = state.on_the_way.back().map_or(at, |(arrival, _)| *arrival);
                let arrival = before.max(at + Duration::from_millis(late));
                state.on_the_way.push_back((arrival, change));
            }
        } else if state.is_following {
            self.stop_following(state);
            self.surroundings.reporter.note(wall, "the registry is away");
        }
        while let Some((_, change)) = state.on_the_way.pop_front_if(|(arrival, _)| *arrival <= at) {
            state.told.take(&change);
            if self.is_sabotaged(Sabotage::ForgetsDepartures) && matches!(change, Change::Removed(_)) {
                continue;
            }
            let lost = watch::apply(&mut self.view.write(), change, at);
            self.lose(state, lost);
        }
        let lost = self.view.write().sweep(at);
        self.lose(state, lost);
        let view = self.view.read();
        self.links.prune(|key| view.instance(key).is_some());
    }

    fn stop_following(&self, state: &mut State) {
        state.is_following = false;
        state.on_the_way.clear();
        self.view.write().disconnected();
    }

    fn lose(&self, state: &mut State, lost: impl IntoIterator<Item = Key>) {
        for key in lost {
            self.links.lose(&key);
            state.told.remove(key);
        }
    }

    /// Keeps the time going while a call is waited for.
    async fn go_on(&self, delivery: &Delivery<'_>) -> Infallible {
        loop {
            tokio::time::sleep(TICK).await;
            self.advance(delivery);
        }
    }

    fn condition(&self, key: &Key, now: Duration) -> Option<Condition> {
        let member = self.members.get(&key.instance)?;
        Some(self.weather.condition(member.agent, member.number, now))
    }

    /// Whether an instance still has what it has worked on since then.
    fn still_works(&self, key: &Key, since: Duration, now: Duration) -> bool {
        let Some(member) = self.members.get(&key.instance) else {
            return false;
        };
        let death = self.weather.death(member.agent, member.number, since);
        death.is_none_or(|death| now < death.from)
    }

    fn choose(&self, delivery: &Delivery<'_>, tried: &BTreeSet<Key>, now: Duration) -> Result<Chosen, Error> {
        let draws = Cell::new(0_u64);
        let random = |below: usize| {
            draws.set(draws.get() + 1);
            let about = (now.as_millis(), tried.len(), draws.get());
            let number = decided(
                self.weather.seed,
                &[&"pick", &delivery.message, &about.0, &about.1, &about.2],
            );
            usize::try_from(number % below.max(1) as u64).unwrap_or_default()
        };
        let scope = Scope::Serving {
            target: Some(Target::Agent(delivery.agent.to_owned())),
            skills: Vec::new(),
        };
        let regions = Regions::default();
        let chooser = Chooser {
            view: &self.view,
            links: &self.links,
            region: None,
            regions: &regions,
            context: "",
            before: None,
            preferences: PREFERENCES,
            random: &random,
            is_streamed: false,
            spent: None,
            now,
        };
        let chosen = chooser.choose(&scope, tried)?;
        let is_refused = match self.sabotage {
            Some(Sabotage::RefusesWhenStale) => self.view.read().is_stale(),
            Some(Sabotage::RefusesTheTried) => chosen.link.measured().total().failed > 0,
            _ => false,
        };
        if is_refused {
            return Err(Error::NoView);
        }
        Ok(chosen)
    }

    /// Holds the router to what it promises of a call that it refuses.
    fn watch_refusal(&self, delivery: &Delivery<'_>, tried: &BTreeSet<Key>, now: Duration) {
        let wall = delivery.clock.now();
        let (agent, reporter) = (delivery.agent, &self.surroundings.reporter);
        reporter.note(wall, &format!("refused {agent} {}", delivery.message));
        let state = self.state.lock();
        let view = self.view.read();
        let could_serve = |key: &&Key| {
            let is_up = self.condition(key, now).is_some_and(Condition::is_up);
            let is_open = view.instance(key).is_some_and(|instance| {
                self.links.to(instance, now).measured().breaker(now) != Breaker::Closed
            });
            !tried.contains(*key) && is_up && !is_open
        };
        let Some(key) = state.told.takers(agent).find(could_serve) else {
            return;
        };
        let invariant = if view.is_stale() {
            Invariant::StaleViewsServe
        } else {
            Invariant::AliveAreCalled
        };
        let detail = format!(
            "a call of {agent} is refused, and {} could serve it",
            key.instance
        );
        reporter.accuse(wall, invariant, detail);
    }

    /// Holds the router to what it promises of an attempt that it begins.
    fn watch_attempt(&self, delivery: &Delivery<'_>, call: u64, chosen: &Chosen, now: Duration) {
        let wall = delivery.clock.now();
        let (key, reporter) = (&*chosen.instance.id, &self.surroundings.reporter);
        let mut state = self.state.lock();
        if state.told.is_gone(key) {
            let detail = format!("{} of {} is gone and is called", key.instance, key.agent);
            reporter.accuse(wall, Invariant::GoneAreLeftAlone, detail);
        }
        if !self.condition(key, now).is_some_and(Condition::is_up) {
            return;
        }
        let at_work = state.at_work.entry(call).or_default();
        let other = at_work
            .iter()
            .find(|(other, since)| self.still_works(other, *since, now));
        if let Some((other, _)) = other.filter(|_| !chosen.instance.is_idempotent(None)) {
            let detail = format!(
                "message {} is with {} and with {} of {}",
                delivery.message, other.instance, key.instance, key.agent
            );
            reporter.accuse(wall, Invariant::DeliveredToOne, detail);
        }
        at_work.push((key.clone(), now));
    }

    /// What the connection to an instance does with the call.
    async fn attempt(&self, delivery: &Delivery<'_>, chosen: &Chosen, now: Duration) -> Result<Value, Ended> {
        let key = &*chosen.instance.id;
        let never = |detail: &str| Ended::Failed(Broken::NeverReached(detail.to_owned()), None);
        let Some(member) = self.members.get(&key.instance) else {
            return Err(never("nobody is there"));
        };
        match self.weather.condition(member.agent, member.number, now) {
            Condition::Left | Condition::Crashed => return Err(never("connection refused")),
            Condition::Vanished => {
                tokio::time::sleep(CONNECT_TIMEOUT).await;
                return Err(never("connection timed out"));
            }
            Condition::Well | Condition::Draining | Condition::CutOff => {}
        }
        let death = async {
            let Some(death) = self.weather.death(member.agent, member.number, now) else {
                return std::future::pending().await;
            };
            tokio::time::sleep(death.from.saturating_sub(now)).await;
            death
        };
        let answer = async {
            let death = tokio::select! {
                biased;
                answer = delivery.work() => return answer.map_err(answered),
                death = death => death,
            };
            if death.kind == Kind::Vanishes {
                // Whoever comes back at that address does not know the connection.
                tokio::time::sleep(death.until.saturating_sub(death.from)).await;
            }
            Err(Ended::Failed(
                Broken::BrokeOff("connection reset".to_owned()),
                None,
            ))
        };
        let lost = chosen.flight.lost();
        tokio::select! {
            biased;
            answer = answer => answer,
            () = lost.cancelled() => Err(Ended::Failed(Broken::lost(), None)),
            never = self.go_on(delivery) => match never {},
        }
    }

    async fn attempts(&self, delivery: &Delivery<'_>, call: u64) -> Result<Value, Undelivered> {
        let deadline = delivery.deadline + HEAD_START;
        let (mut tried, mut last) = (BTreeSet::new(), None);
        for _ in 0..ATTEMPTS {
            let now = self.advance(delivery);
            let chosen = match self.choose(delivery, &tried, now) {
                Ok(chosen) => chosen,
                Err(error) => {
                    self.watch_refusal(delivery, &tried, now);
                    return Err(last.unwrap_or_else(|| nobody(&error)));
                }
            };
            let left = deadline.saturating_sub(now);
            if left.is_zero() {
                return Err(Undelivered::Late);
            }
            let (key, has_moved) = (chosen.instance.key(), !tried.is_empty());
            let what = format!("attempt {} {} {}", key.agent, key.instance, delivery.message);
            let reporter = &self.surroundings.reporter;
            reporter.attempted(delivery.clock.now(), &what, has_moved);
            tried.insert(key);
            self.watch_attempt(delivery, call, &chosen, now);
            let outcome = tokio::time::timeout(left, self.attempt(delivery, &chosen, now)).await;
            let began = now;
            let now = self.advance(delivery);
            let (failure, own) = match outcome.unwrap_or(Err(Ended::TimedOut)) {
                Ok(answer) => {
                    let latency = now.saturating_sub(began);
                    chosen.flight.end(Verdict::Answered(Some(latency)), now);
                    return Ok(answer);
                }
                Err(Ended::TimedOut) => {
                    chosen.flight.end(Verdict::Silent(Some(left)), now);
                    return Err(Undelivered::Late);
                }
                Err(Ended::Failed(failure, own)) => (failure, own),
            };
            chosen.flight.end(failure.verdict(), now);
            reporter.note(delivery.clock.now(), &format!("failed {failure:?}"));
            let pay = || self.budget.lock().withdraw(now);
            let may_move = failure.may_move(chosen.instance.is_idempotent(None), pay)
                || self.is_sabotaged(Sabotage::MovesEverything);
            let error = own.or_else(|| match failure {
                Broken::NeverReached(_) => None,
                other => Some(Undelivered::BrokeOff {
                    detail: format!("{other:?}"),
                }),
            });
            match error {
                Some(error) if !may_move => return Err(error),
                error => last = error.or(last),
            }
        }
        Err(last.unwrap_or_else(|| nobody(&Error::NoView)))
    }
}

/// What the agent answers, as the router reads it.
fn answered(failure: muster_workflow_engine::caller::Failure) -> Ended {
    let status = match failure.status {
        // It has too much to do, which says nothing about how it is.
        503 => Status::resource_exhausted(failure.detail.clone()),
        _ => Status::internal(failure.detail.clone()),
    };
    Ended::Failed(Broken::of(status), Some(Undelivered::Answered(failure)))
}

fn nobody(error: &Error) -> Undelivered {
    let retry_after = match error {
        Error::NoInstance { retry_after, .. } => *retry_after,
        _ => SOON,
    };
    Undelivered::NeverReached {
        retry_after,
        detail: error.to_string(),
    }
}

/// A call that is under way, until it is answered or given up.
struct UnderWay<'a> {
    fleet: &'a Simulated,
    call: u64,
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.fleet.state.lock().at_work.remove(&self.call);
    }
}

#[async_trait]
impl Fleet for Simulated {
    async fn deliver(&self, delivery: &Delivery<'_>) -> Result<Value, Undelivered> {
        let now = self.advance(delivery);
        self.budget.lock().called(now);
        let call = {
            let mut state = self.state.lock();
            state.calls += 1;
            state.calls
        };
        let _under_way = UnderWay { fleet: self, call };
        self.attempts(delivery, call).await
    }
}

#[cfg(test)]
mod tests {
    use muster_workflow_engine::simulation::Figures;

    use super::*;

    /// Seeds of a test run. More: `muster sim --seeds N`.
    const SEEDS: u64 = 40;

    #[test]
    fn no_promise_is_broken_and_calls_move() {
        let simulation = simulation(None).unwrap();
        let mut figures = Figures::default();
        for seed in 0..SEEDS {
            let outcome = simulation.run(seed);
            let trace = outcome.trace.join("\n");
            assert_eq!(outcome.violation, None, "seed {seed}\n{trace}");
            figures += outcome.figures;
        }
        assert!(
            figures.moved > 0 && figures.deliveries > figures.moved && figures.completed > SEEDS,
            "{figures:?}"
        );
    }

    #[test]
    fn a_seed_replays_exactly() {
        let (one, other) = (simulation(None).unwrap(), simulation(None).unwrap());
        for seed in 0..8 {
            assert_eq!(one.run(seed), other.run(seed));
        }
    }

    #[test]
    fn every_broken_promise_is_seen() {
        const MOST: u64 = 400;
        for (sabotage, invariant) in [
            (Sabotage::MovesEverything, Invariant::DeliveredToOne),
            (Sabotage::ForgetsDepartures, Invariant::GoneAreLeftAlone),
            (Sabotage::RefusesTheTried, Invariant::AliveAreCalled),
            (Sabotage::RefusesWhenStale, Invariant::StaleViewsServe),
        ] {
            let simulation = simulation(Some(sabotage)).unwrap();
            let mut outcomes = (0..MOST).map(|seed| simulation.run(seed));
            let violation = outcomes.find_map(|outcome| outcome.violation);
            let violation = violation.unwrap_or_else(|| panic!("{sabotage:?} is not seen in {MOST} seeds"));
            assert_eq!(violation.invariant, invariant, "{sabotage:?}: {violation}");
        }
    }
}
