//! What a run at work listens for.
//!
//! It follows the interpreter's wishes, as the calls do: each task that listens reads the log from where it is, and hands the
//! interpreter what may concern it, in order. Once it has seen all there is, it is entered among the [`Subscriptions`], which
//! outlive the work: a run that is parked is woken by them, and goes on where an event may concern it.
//!
//! [`Subscriptions`]: crate::subscriptions::Subscriptions

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use muster_workflow_dsl::hearing::Interest;
use muster_workflow_dsl::run::Stimulus;

use crate::events::Events;
use crate::run::RunId;
use crate::store;

/// Events read at once.
const PORTION: usize = 100;

/// Events read at once for a task that takes one at a time.
const FEW: usize = 10;

/// A wish to listen.
pub(crate) struct Wish {
    pub(crate) activation: u64,
    pub(crate) from: u64,
    pub(crate) one_at_a_time: bool,
    pub(crate) interests: Arc<[Interest]>,
}

/// See the module.
pub(crate) struct Listening {
    events: Arc<Events>,
    run: RunId,
    listens: BTreeMap<u64, Listen>,
    /// What the interpreter is to hear next.
    heard: Vec<Stimulus>,
}

struct Listen {
    /// What the interpreter said.
    from: u64,
    /// All events below have been handed over, or are of no concern.
    seen: u64,
    one_at_a_time: bool,
    interests: Arc<[Interest]>,
    /// Whether it is among the subscriptions.
    entered: bool,
}

impl Listening {
    pub(crate) fn new(events: Arc<Events>, run: RunId) -> Self {
        Self {
            events,
            run,
            listens: BTreeMap::new(),
            heard: Vec::new(),
        }
    }

    /// Makes what is listened for what is wanted.
    pub(crate) fn follow(&mut self, wanted: Vec<Wish>) {
        let keep: BTreeSet<u64> = wanted.iter().map(|wish| wish.activation).collect();
        let unwanted: Vec<u64> = self
            .listens
            .keys()
            .filter(|known| !keep.contains(known))
            .copied()
            .collect();
        for activation in unwanted {
            self.listens.remove(&activation);
            self.leave(activation);
        }
        for wish in wanted {
            let known = self.listens.get(&wish.activation);
            if known.is_some_and(|known| {
                known.from == wish.from && Arc::ptr_eq(&known.interests, &wish.interests)
            }) {
                continue;
            }
            // From an earlier life of this run, which has looked at what came before.
            let resumed = self.leave(wish.activation).filter(|_| known.is_none());
            let listen = Listen {
                from: wish.from,
                seen: resumed.unwrap_or(0).max(wish.from),
                one_at_a_time: wish.one_at_a_time,
                interests: wish.interests,
                entered: false,
            };
            self.listens.insert(wish.activation, listen);
        }
    }

    fn leave(&self, activation: u64) -> Option<u64> {
        self.events
            .subscriptions(|subscriptions| subscriptions.leave(&self.run, activation))
    }

    /// Looks for events. When there are none for anybody, all are among the subscriptions.
    pub(crate) async fn look(&mut self) -> Result<(), store::Error> {
        if !self.heard.is_empty() {
            return Ok(());
        }
        for (activation, listen) in &mut self.listens {
            self.heard
                .extend(listen.look(&self.events, &self.run, *activation).await?);
        }
        Ok(())
    }

    /// Whether the interpreter has something to hear.
    pub(crate) fn has_heard(&self) -> bool {
        !self.heard.is_empty()
    }

    /// What the interpreter is to hear.
    pub(crate) fn take(&mut self) -> Vec<Stimulus> {
        std::mem::take(&mut self.heard)
    }

    /// The run listens no more.
    pub(crate) fn end(&self) {
        self.events
            .subscriptions(|subscriptions| subscriptions.end(&self.run));
    }
}

impl Listen {
    async fn look(
        &mut self,
        events: &Events,
        run: &RunId,
        activation: u64,
    ) -> Result<Vec<Stimulus>, store::Error> {
        loop {
            if self.entered {
                match events.subscriptions(|subscriptions| subscriptions.marked(run, activation)) {
                    None => return Ok(Vec::new()),
                    Some(position) => self.seen = self.seen.max(position),
                }
                self.entered = false;
            }
            let limit = if self.one_at_a_time { FEW } else { PORTION };
            let (mut found, next) = events.candidates(self.seen, &self.interests, limit).await?;
            if found.is_empty() {
                self.seen = self.seen.max(next);
                let entered = events.subscriptions(|subscriptions| {
                    subscriptions.enter(run, activation, &self.interests, self.seen)
                });
                // Else there is more to look at.
                self.entered = entered.is_ok();
                continue;
            }
            if self.one_at_a_time {
                found.truncate(1);
            }
            self.seen = match found.last() {
                Some(last) if self.one_at_a_time => last.position.saturating_add(1),
                _ => next,
            };
            let heard = found.into_iter().map(|logged| Stimulus::Event {
                activation,
                position: logged.position,
                event: Arc::new(logged.event),
            });
            return Ok(heard.collect());
        }
    }
}
