//! The log of events.

use std::collections::BTreeMap;

use async_trait::async_trait;
use jiff::Timestamp;
use muster_workflow_dsl::cloud_event::CloudEvent;

use super::Memory;
use crate::store::events::{Added, EventLog, FIRST_POSITION, Logged, PORTION_BYTES, Room, StarterState};
use crate::store::{Error, Page};

/// Events that make room together, so that it is not made for each.
const FORGET_AT_ONCE: usize = 1_000;

/// The log, and how far those have come who start runs of it.
#[derive(Debug, Clone)]
pub(super) struct Log {
    events: BTreeMap<u64, Logged>,
    /// By source and id.
    named: BTreeMap<(String, String), u64>,
    next: u64,
    bytes: u64,
    starters: BTreeMap<String, StarterState>,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            events: BTreeMap::new(),
            named: BTreeMap::new(),
            next: FIRST_POSITION,
            bytes: 0,
            starters: BTreeMap::new(),
        }
    }
}

fn name(event: &CloudEvent) -> (String, String) {
    (event.source().to_owned(), event.id().to_owned())
}

fn length(event: &CloudEvent) -> u64 {
    muster_api::json::length(event) as u64
}

impl Log {
    /// Adds an event at the end; its position.
    pub(super) fn add(&mut self, event: CloudEvent, received_at: Timestamp) -> u64 {
        let position = self.next;
        self.next += 1;
        self.bytes += length(&event);
        self.named.insert(name(&event), position);
        let logged = Logged {
            position,
            received_at,
            event,
        };
        self.events.insert(position, logged);
        position
    }

    #[cfg(any(test, feature = "simulation"))]
    pub(super) fn ids(&self) -> std::collections::BTreeSet<String> {
        self.events
            .values()
            .map(|logged| logged.event.id().to_owned())
            .collect()
    }

    #[cfg(any(test, feature = "simulation"))]
    pub(super) fn lose(&mut self, id: &str) {
        self.events.retain(|_, logged| logged.event.id() != id);
        self.named.retain(|(_, known), _| known != id);
    }

    fn forget_first(&mut self) {
        if let Some((position, logged)) = self.events.pop_first() {
            self.bytes = self.bytes.saturating_sub(length(&logged.event));
            let name = name(&logged.event);
            if self.named.get(&name) == Some(&position) {
                self.named.remove(&name);
            }
        }
    }

    fn add_all(&mut self, events: Vec<CloudEvent>, now: Timestamp, room: Room) -> Vec<Added> {
        let is_new = |event: &&CloudEvent| !self.named.contains_key(&name(event));
        let (count, bytes) = events
            .iter()
            .filter(is_new)
            .fold((0, 0), |(count, bytes), event| (count + 1, bytes + length(event)));
        while !self.events.is_empty()
            && (self.events.len() as u64 + count > room.events || self.bytes + bytes > room.bytes)
        {
            for _ in 0..FORGET_AT_ONCE {
                self.forget_first();
            }
        }
        let added = events
            .into_iter()
            .map(|event| match self.named.get(&name(&event)) {
                Some(position) => Added {
                    position: *position,
                    duplicate: true,
                },
                None => Added {
                    position: self.add(event, now),
                    duplicate: false,
                },
            });
        added.collect()
    }

    fn read(&self, from: u64, kinds: Option<&[String]>, limit: usize) -> Page<Logged, u64> {
        let is_wanted =
            |logged: &&Logged| kinds.is_none_or(|kinds| kinds.iter().any(|kind| kind == logged.event.kind()));
        let (mut entries, mut bytes): (Vec<Logged>, usize) = (Vec::new(), 0);
        for logged in self
            .events
            .range(from..)
            .map(|(_, logged)| logged)
            .filter(is_wanted)
        {
            bytes += muster_api::json::length(&logged.event);
            if entries.len() >= limit || (!entries.is_empty() && bytes > PORTION_BYTES) {
                let next = entries.last().map(|last| last.position.saturating_add(1));
                return Page { entries, next };
            }
            entries.push(logged.clone());
        }
        Page {
            entries,
            next: Some(from.max(self.next)),
        }
    }
}

#[async_trait]
impl EventLog for Memory {
    async fn add_events(
        &self,
        events: Vec<CloudEvent>,
        now: Timestamp,
        room: Room,
    ) -> Result<Vec<Added>, Error> {
        Ok(self.with(|state| state.log.add_all(events, now, room)))
    }

    async fn events(
        &self,
        from: u64,
        kinds: Option<&[String]>,
        limit: usize,
    ) -> Result<Page<Logged, u64>, Error> {
        Ok(self.with(|state| state.log.read(from, kinds, limit)))
    }

    async fn next_position(&self) -> Result<u64, Error> {
        Ok(self.with(|state| state.log.next))
    }

    async fn forget_events(&self, time: Timestamp, limit: usize) -> Result<usize, Error> {
        Ok(self.with(|state| {
            let mut forgotten = 0;
            while forgotten < limit
                && let Some((_, first)) = state.log.events.first_key_value()
                && first.received_at < time
            {
                state.log.forget_first();
                forgotten += 1;
            }
            forgotten
        }))
    }

    async fn starter(&self, name: &str) -> Result<Option<StarterState>, Error> {
        Ok(self.with(|state| state.log.starters.get(name).cloned()))
    }

    async fn keep_starter(&self, name: &str, state: Option<&StarterState>) -> Result<(), Error> {
        self.with(|memory| match state {
            Some(state) => {
                memory.log.starters.insert(name.to_owned(), state.clone());
            }
            None => {
                memory.log.starters.remove(name);
            }
        });
        Ok(())
    }
}
