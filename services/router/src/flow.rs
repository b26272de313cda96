//! How many messages each instance has at once, and who waits until there is room.
//!
//! ```text
//! flow.rs        places, and how they pass from call to call
//!   limit.rs     how many places an instance has: declared or learned
//!   lines.rs     who waits, who is next, who is refused
//!   simulation.rs both together under overload, in virtual time: tests
//! ```
//!
//! What is relied upon:
//!
//! - An instance has no more messages from here than its limit, and all together no more than the router's. Only attempts that
//!   move from one instance to another are let through beyond that: few, by the retry budget.
//! - A place that comes free passes from the call that ends to the next that waits for that instance, under the lock of
//!   the lines, so that a newcomer cannot slip in between. A newcomer stands at the end of its line.
//! - Nobody waits for agents that take nothing: a call waits only where somebody is there and has no room, and what has changed
//!   since (an instance that joined, left, or may be tried again) is looked at every [`LOOK_AGAIN`].
//!
//! A call that waits holds no place, so that a slow agent takes nothing from the others. Operations on tasks have places of their
//! own ([`crate::admission`]) and count towards no instance's limit: they are short, and a task must be cancelled above all
//! where its agent is full.

pub mod limit;
pub mod lines;
#[cfg(test)]
mod simulation;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use muster_runtime::clock::SharedClock;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, oneshot, watch};

use crate::error::Error;
use crate::fleet::instance::Availability;
use crate::fleet::{Instance, Key, View};
use crate::forward::{Chosen, Scope};
use crate::link::{Flight, Link};
use crate::operation::Method;
use crate::priority::Priority;
use lines::{Bounds, Lines, Name, Pace, Position, Refused};

/// How often those who wait are looked at whom no place that came free has reached.
pub const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// Between the skills that a line asks for.
const AND: char = '\n';

/// Why a call got no place.
#[derive(Debug, Clone)]
pub enum NoPlace {
    /// It was refused or displaced.
    Refused(Refused),
    /// There is nobody any more who could take it.
    Nobody(Error),
    /// It waited for as long as it could.
    TimedOut,
}

/// The places of all instances.
pub struct Flow {
    /// Most messages with agents, all together.
    places: usize,
    in_flight: AtomicUsize,
    /// As many as are in `lines`, for those who need not look.
    waiting: AtomicUsize,
    lines: Mutex<Lines<Waiter>>,
    /// A place came free for which nobody was found, though somebody waits; or somebody has come who takes work.
    freed: Notify,
    /// Somebody has come who takes work.
    arrivals: watch::Sender<()>,
    clock: SharedClock,
    view: Arc<RwLock<View>>,
}

/// What a call wants of the instance that takes it.
pub struct Wish {
    /// The operation.
    pub method: &'static Method,
    /// Who may take it.
    pub scope: Scope,
    /// Who calls.
    pub caller: Arc<str>,
    /// The region that it prefers, if it says so.
    pub region: Option<String>,
    /// The conversation that it belongs to; empty for none.
    pub context: String,
    /// The instance that has had the same message before, if one has.
    pub before: Option<Arc<Key>>,
}

/// A call that waits.
struct Waiter {
    word: oneshot::Sender<Word>,
    wish: Wish,
}

enum Word {
    Go(Chosen),
    No(NoPlace),
}

impl fmt::Debug for Flow {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Flow")
            .field("in_flight", &self.in_flight())
            .field("waiting", &self.waiting())
            .finish_non_exhaustive()
    }
}

impl Flow {
    /// That many messages with agents at once.
    #[must_use]
    pub fn new(places: usize, bounds: Bounds, clock: SharedClock, view: Arc<RwLock<View>>) -> Arc<Self> {
        Arc::new(Self {
            places: places.max(1),
            in_flight: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            lines: Mutex::new(Lines::new(bounds)),
            freed: Notify::new(),
            arrivals: watch::Sender::new(()),
            clock,
            view,
        })
    }

    /// How many messages are with agents.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::SeqCst)
    }

    /// How many wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }

    /// How many wait, by whom they wait for.
    #[must_use]
    pub fn by_target(&self) -> Vec<(Arc<str>, usize)> {
        self.lines.lock().by_target()
    }

    /// Whether calls wait in this line already, behind whom a newcomer stands.
    #[must_use]
    pub fn has(&self, name: impl FnOnce() -> Name) -> bool {
        self.waiting() > 0 && self.lines.lock().has(&name())
    }

    /// Starts a message at an instance that has room, unless its breaker is open.
    #[must_use]
    pub fn start(
        self: &Arc<Self>,
        instance: &Arc<Instance>,
        link: &Arc<Link>,
        now: Duration,
    ) -> Option<Flight> {
        let free = |taken: usize| (taken < self.places).then_some(taken + 1);
        self.in_flight
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, free)
            .ok()?;
        let flight = link.start_message(self, instance, now);
        if flight.is_none() {
            self.in_flight.fetch_sub(1, Ordering::SeqCst);
        }
        flight
    }

    /// Starts a message that moves to an instance, with room or without, unless its breaker is open.
    #[must_use]
    pub fn start_beyond(
        self: &Arc<Self>,
        instance: &Arc<Instance>,
        link: &Arc<Link>,
        now: Duration,
    ) -> Option<Flight> {
        let flight = link.start_moved(self, instance, now)?;
        self.in_flight.fetch_add(1, Ordering::SeqCst);
        Some(flight)
    }

    /// Joins a line. `choose` looks for a place; it is asked once the call stands in its line, because one may have come free
    /// since the caller looked.
    ///
    /// # Errors
    /// When the call is refused.
    pub fn join(
        self: &Arc<Self>,
        name: Name,
        waiting: Waiting,
        choose: impl Fn(&Wish) -> Result<Option<Chosen>, Error>,
    ) -> Result<Wait, NoPlace> {
        let name = Arc::new(name);
        let (sender, word) = oneshot::channel();
        let caller = Arc::clone(&waiting.wish.caller);
        let waiter = Waiter {
            word: sender,
            wish: waiting.wish,
        };
        let now = self.clock.monotonic();
        let mut lines = self.lines.lock();
        let whose = lines::Whose {
            caller: &caller,
            priority: waiting.priority,
        };
        let joined = lines.join(&name, whose, waiting.pace, waiter, now);
        self.waiting.store(lines.waiting(), Ordering::SeqCst);
        drop(lines);
        let (position, displaced) = joined.map_err(|(_, refused)| NoPlace::Refused(refused))?;
        for (waiter, refused) in displaced {
            waiter.tell(Word::No(NoPlace::Refused(refused)));
        }
        let wait = Wait {
            flow: Arc::clone(self),
            position,
            word,
        };
        self.offer(&name, &choose);
        Ok(wait)
    }

    /// Gives places to those at the head of a line, as long as `choose` finds any.
    fn offer(&self, name: &Name, choose: impl Fn(&Wish) -> Result<Option<Chosen>, Error>) {
        let now = self.clock.monotonic();
        let mut unwanted = Vec::new();
        let mut lines = self.lines.lock();
        while let Some((position, waiter)) = lines.head(name, now) {
            let word = match choose(&waiter.wish) {
                Ok(Some(chosen)) => Word::Go(chosen),
                Ok(None) => break,
                Err(nobody) => Word::No(NoPlace::Nobody(nobody)),
            };
            if let Some(waiter) = lines.serve(&position) {
                unwanted.extend(waiter.tell(word));
            }
        }
        self.waiting.store(lines.waiting(), Ordering::SeqCst);
        drop(lines);
        // Only now: a place that is given back is passed on, which takes the lock.
        drop(unwanted);
    }

    /// An instance takes work that did not before: those who wait for one are looked at at once.
    pub fn arrived(&self) {
        self.freed.notify_one();
        self.arrivals.send_replace(());
    }

    /// Changes whenever an instance takes work that did not before.
    #[must_use]
    pub fn arrivals(&self) -> watch::Receiver<()> {
        self.arrivals.subscribe()
    }

    /// Looks again at all who wait, for ever: every [`LOOK_AGAIN`], when a place came free for which nobody was found, and when
    /// somebody has come.
    pub async fn look_again(&self, choose: impl Fn(&Wish) -> Result<Option<Chosen>, Error>) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOOK_AGAIN) => {}
                () = self.freed.notified() => {}
            }
            if self.waiting() == 0 {
                continue;
            }
            let names = self.lines.lock().names(self.clock.monotonic());
            for name in names {
                self.offer(&name, &choose);
            }
        }
    }

    /// A message has ended at an instance: its place passes on.
    pub(crate) fn ended(self: &Arc<Self>, instance: &Arc<Instance>, link: &Arc<Link>) {
        let was = self.in_flight.fetch_sub(1, Ordering::SeqCst);
        if self.waiting() > 0 && !self.pass_on(instance, link) && was >= self.places {
            self.freed.notify_one();
        }
    }

    /// Whether somebody got a place.
    fn pass_on(self: &Arc<Self>, instance: &Arc<Instance>, link: &Arc<Link>) -> bool {
        if !self.takes_work(instance) {
            return false;
        }
        let now = self.clock.monotonic();
        let found_under = found_under(instance);
        let mut has_passed = false;
        let mut lines = self.lines.lock();
        let left = loop {
            let Some(flight) = self.start(instance, link, now) else {
                break None;
            };
            let mut chosen = Chosen {
                instance: Arc::clone(instance),
                link: Arc::clone(link),
                flight,
            };
            let left = loop {
                let names = found_under.iter().map(String::as_str);
                let Some(waiter) = lines.next_for(names, |name| fits(instance, name), now) else {
                    break Some(chosen);
                };
                match waiter.tell(Word::Go(chosen)) {
                    Some(back) => chosen = back,
                    None => break None,
                }
            };
            if left.is_some() {
                break left;
            }
            has_passed = true;
        };
        self.waiting.store(lines.waiting(), Ordering::SeqCst);
        drop(lines);
        if let Some(chosen) = left {
            chosen.flight.cancel();
            self.in_flight.fetch_sub(1, Ordering::SeqCst);
        }
        has_passed
    }

    /// As the registry says by now.
    fn takes_work(&self, instance: &Instance) -> bool {
        let view = self.view.read();
        view.instance(&instance.id)
            .is_some_and(|now| now.epoch == instance.epoch && now.availability != Availability::Leaving)
    }
}

/// What a call brings to its line.
pub struct Waiting {
    /// Who may take it.
    pub wish: Wish,
    /// How urgent it is.
    pub priority: Priority,
    /// How fast those that it waits for answer, if that is known.
    pub pace: Option<Pace>,
}

impl Waiter {
    /// Gives back a place that the call no longer wants.
    fn tell(self, word: Word) -> Option<Chosen> {
        match self.word.send(word) {
            Err(Word::Go(chosen)) => Some(chosen),
            Ok(()) | Err(Word::No(_)) => None,
        }
    }
}

/// A call's own place in a line; leaves the line when dropped.
pub struct Wait {
    flow: Arc<Flow>,
    position: Position,
    word: oneshot::Receiver<Word>,
}

impl Wait {
    /// Waits for a place, at most for `patience`.
    ///
    /// # Errors
    /// When it is displaced, there is nobody any more who could take it, or it waited for as long as it could.
    pub async fn place(mut self, patience: Duration) -> Result<Chosen, NoPlace> {
        match tokio::time::timeout(patience, &mut self.word).await {
            Ok(Ok(Word::Go(chosen))) => Ok(chosen),
            Ok(Ok(Word::No(why))) => Err(why),
            // The sender is in the line for as long as this call waits, so only time ends the wait.
            Ok(Err(_)) | Err(_) => Err(NoPlace::TimedOut),
        }
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        let mut lines = self.flow.lines.lock();
        let waiter = lines.leave(&self.position);
        self.flow.waiting.store(lines.waiting(), Ordering::SeqCst);
        drop(lines);
        drop(waiter);
        // A place that was given in the moment in which the caller gave up lies in the channel and passes on with it.
    }
}

/// The line of calls of an operation for a scope; for calls that only one instance may take, that instance's.
#[must_use]
pub fn line(method: &Method, scope: &Scope, only: Option<&Instance>) -> Name {
    let name = |whom: String, also: &[String]| {
        let mut also: Vec<&str> = also.iter().map(String::as_str).collect();
        also.sort_unstable();
        Name {
            whom: whom.into(),
            also: also.join(&AND.to_string()).into(),
            streams: method.is_streamed,
        }
    };
    if let Some(only) = only {
        return name(of_instance(&only.id.instance), &[]);
    }
    match scope {
        Scope::Serving {
            target: Some(target),
            skills,
        } => name(target.to_string(), skills),
        Scope::Serving { target: None, skills } => match skills.split_first() {
            Some((first, others)) => name(of_skill(first), others),
            None => name(ANYBODY.to_owned(), &[]),
        },
        Scope::Owner(owner) => name(owner.agent.clone(), &[]),
    }
}

/// The line of those who take any agent. Neither an agent's id nor a skill's line is called so.
const ANYBODY: &str = "*";

fn of_instance(id: &str) -> String {
    format!("instance:{id}")
}

fn of_skill(id: &str) -> String {
    format!("{}{id}", muster_api::extension::SKILL_TARGET_PREFIX)
}

/// Whose lines an instance can serve; see [`line`].
fn found_under(instance: &Instance) -> Vec<String> {
    let own = [
        instance.id.agent.clone(),
        of_instance(&instance.id.instance),
        ANYBODY.to_owned(),
    ];
    let skills = instance.skills.iter().map(|skill| of_skill(skill));
    own.into_iter().chain(skills).collect()
}

/// Whether it can take the calls of a line under which it is found.
fn fits(instance: &Instance, name: &Name) -> bool {
    let has_all = name.also.is_empty() || name.also.split(AND).all(|skill| instance.skills.contains(skill));
    has_all && (instance.streams || !name.streams)
}
