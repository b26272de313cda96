//! Folding what is heard: the beginning of a `listen`, each event that it consumes, and the end of what is done for one.
//!
//! Each task knows from which position of the log on what begins inside it hears events. An event that is consumed moves it
//! on for the task that listens and for all around it, so that the next `listen` begins where this one ended: nothing that
//! comes while the run is busy is lost, and nothing is heard twice. The branches of a `fork` each have a position of their own.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;

use super::Mismatch;
use crate::document::{Kind, Listen};
use crate::hearing::{Hearing, Taken};
use crate::run::Run;
use crate::run::evaluate::weight;
use crate::run::state::{Body, Cursor, Item, Listening};

impl Run {
    /// From which position on a task that begins inside `owner` hears events.
    pub(in crate::run) fn hears_from(&self, owner: Option<u64>) -> u64 {
        let activation = owner.and_then(|id| self.activations.get(&id));
        activation.map_or(self.hears_from, |activation| activation.hears_from)
    }

    /// What begins next inside `id`, and around it, hears events from `position` on.
    fn hear_on(&mut self, id: u64, position: u64) {
        let mut next = Some(id);
        while let Some(id) = next {
            let Some(activation) = self.activations.get_mut(&id) else {
                break;
            };
            if !matches!(activation.body, Body::Fork(_)) {
                activation.hears_from = activation.hears_from.max(position);
            }
            next = activation.parent;
        }
        self.hears_from = self.hears_from.max(position);
    }

    pub(in crate::run) fn start_listening(
        &mut self,
        pointer: &str,
        id: u64,
        from: u64,
        expect: &BTreeMap<String, Value>,
    ) -> Result<(), Mismatch> {
        self.expect_ready(id, pointer, |kind| matches!(kind, Kind::Listen(_)))?;
        let workflow = Arc::clone(&self.definition.workflow);
        let Some(Kind::Listen(listen)) = workflow.task(pointer).map(|task| &task.kind) else {
            return Err(self.mismatch(format!("{pointer} does not listen")));
        };
        let hearing = Hearing::new(&listen.to, expect.clone());
        let interests = hearing.interests(&listen.to).into();
        self.change(id, |activation| {
            activation.body = Body::Listen(Box::new(Listening {
                from,
                hearing,
                interests,
                count: 0,
                items: Vec::new(),
                bytes: 2,
                events: Vec::new(),
                event_bytes: 2,
                current: None,
                done: false,
            }));
        });
        Ok(())
    }

    pub(in crate::run) fn consume(
        &mut self,
        pointer: &str,
        id: u64,
        (position, taken): (u64, &Taken),
        item: Option<&Arc<Value>>,
        done: bool,
    ) -> Result<(), Mismatch> {
        let workflow = Arc::clone(&self.definition.workflow);
        let listen = match workflow.task(pointer).map(|task| &task.kind) {
            Some(Kind::Listen(listen)) => listen,
            _ => return Err(self.mismatch(format!("{pointer} does not listen"))),
        };
        let waits = match &self.expect(id, pointer)?.body {
            Body::Listen(listening) => listening.waits() && listening.from <= position,
            _ => false,
        };
        if !waits || item.is_some() == taken.until {
            return Err(self.mismatch(format!("{pointer} does not wait for the event at {position}")));
        }
        let next = position.saturating_add(1);
        self.change(id, |activation| {
            let input = Arc::clone(&activation.input);
            if let Body::Listen(listening) = &mut activation.body {
                listening.from = next;
                listening.hearing.take(taken);
                listening.interests = listening.hearing.interests(&listen.to).into();
                listening.done = done;
                if let Some(item) = item {
                    listening.count += 1;
                    listening.begin(listen, item, &input);
                }
            }
        });
        self.hear_on(id, next);
        Ok(())
    }

    pub(in crate::run) fn complete_item(
        &mut self,
        pointer: &str,
        (id, index): (u64, u64),
        output: Option<&Arc<Value>>,
        context: Option<&Arc<Value>>,
        done: bool,
    ) -> Result<(), Mismatch> {
        let ended = match &self.expect(id, pointer)?.body {
            Body::Listen(listening) if listening.count as u64 == index.saturating_add(1) => {
                match listening.current.as_ref().map(|item| &item.cursor) {
                    Some(Cursor::Done(output)) => Some(Arc::clone(output)),
                    _ => None,
                }
            }
            _ => None,
        };
        let Some(ended) = ended else {
            return Err(self.mismatch(format!("no tasks for item {index} of {pointer} have ended")));
        };
        if let Some(context) = context {
            self.context = Arc::clone(context);
        }
        self.change(id, |activation| {
            if let Body::Listen(listening) = &mut activation.body {
                listening.current = None;
                listening.done = done;
                listening.keep(output.unwrap_or(&ended));
            }
        });
        Ok(())
    }
}

impl Listening {
    /// An event is there: it is kept, or something is done for it first.
    fn begin(&mut self, listen: &Listen, item: &Arc<Value>, input: &Arc<Value>) {
        let Some(each) = &listen.each else {
            self.keep(item);
            return;
        };
        if listen.judges_events() {
            self.event_bytes = self.event_bytes.saturating_add(weight(item)).saturating_add(1);
            self.events.push(Arc::clone(item));
        }
        self.current = Some(Item {
            value: Arc::clone(item),
            cursor: match &each.tasks {
                Some(_) => Cursor::first(input),
                None => Cursor::Done(Arc::clone(item)),
            },
        });
    }

    fn keep(&mut self, item: &Arc<Value>) {
        self.bytes = self.bytes.saturating_add(weight(item)).saturating_add(1);
        self.items.push(Arc::clone(item));
    }
}
