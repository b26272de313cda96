//! The log of events in the embedded store.
//!
//! Positions are given out and batches handed to the database's queue under one lock, so that they become visible in order;
//! nobody waits for the disk under it, and events that come at the same time share an fsync. A batch that is refused leaves its
//! numbers unused.

use std::collections::BTreeSet;
use std::ops::Bound;
use std::pin::pin;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use futures::future::Either;
use jiff::Timestamp;
use muster_store::{Batch, Keyspace};
use muster_workflow_dsl::cloud_event::CloudEvent;
use serde::{Deserialize, Serialize};

use super::keys::Events;
use super::{Embedded, damaged, encode};
use crate::store::events::{Added, EventLog, FIRST_POSITION, Logged, PORTION_BYTES, Room, StarterState};
use crate::store::{Error, Page};

/// Events that are forgotten with one batch.
const FORGET_AT_ONCE: usize = 1_000;

/// Tries to add events while others add the same.
const TRIES: usize = 5;

/// The end of the log, and how much is in it.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Tail {
    next: u64,
    count: u64,
    bytes: u64,
}

impl Tail {
    /// As the store has it, or that of an empty log.
    pub(super) fn read(events: &Keyspace) -> Result<Self, muster_store::Error> {
        let empty = Self {
            next: FIRST_POSITION,
            count: 0,
            bytes: 0,
        };
        let stored = events.get(Events::tail())?;
        let stored = stored.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let mut tail: Self = stored.unwrap_or(empty);
        // A log is never written below what is in it, whatever is said of its end.
        let last = events.range((Bound::Included(Events::first()), Bound::Excluded(Events::end())));
        if let Some(entry) = last.into_iter().next_back() {
            let last = Events::position(&entry?.0).unwrap_or(FIRST_POSITION);
            tail.next = tail.next.max(last.saturating_add(1));
        }
        Ok(tail)
    }

    /// The position of the next event.
    pub(super) fn next(&self) -> u64 {
        self.next
    }
}

impl Embedded {
    /// Commits a batch with events in it. `expect` refuses events that are there.
    pub(super) async fn commit_with_events(
        &self,
        mut batch: Batch,
        events: Vec<CloudEvent>,
        now: Timestamp,
        expect_new: bool,
        what: &str,
    ) -> Result<Vec<u64>, Error> {
        let mut positions = Vec::with_capacity(events.len());
        let (count, mut bytes) = (events.len() as u64, 0);
        let mut tail = self.tail.lock().await;
        for event in events {
            let position = tail.next;
            tail.next += 1;
            let named = Events::named(event.source(), event.id());
            if expect_new {
                batch.expect_absent(&self.events, named.clone());
            }
            batch.put(&self.events, named, position.to_be_bytes());
            batch.put(&self.events, Events::typed(event.kind(), position), []);
            let logged = encode(&Logged {
                position,
                received_at: now,
                event,
            })?;
            bytes += logged.len() as u64;
            batch.put(&self.events, Events::at(position), logged);
            positions.push(position);
        }
        tail.count = tail.count.saturating_add(count);
        tail.bytes = tail.bytes.saturating_add(bytes);
        batch.put(&self.events, Events::tail(), encode(&*tail)?);
        // In the queue before anybody else has a position.
        let commit = pin!(self.commit(batch, what));
        let outcome = match futures::future::select(commit, std::future::ready(())).await {
            Either::Left((outcome, _)) => {
                drop(tail);
                outcome
            }
            Either::Right(((), commit)) => {
                drop(tail);
                commit.await
            }
        };
        if outcome.is_err() {
            let mut tail = self.tail.lock().await;
            tail.count = tail.count.saturating_sub(count);
            tail.bytes = tail.bytes.saturating_sub(bytes);
        }
        outcome.map(|()| {
            if let Some(last) = positions.last() {
                self.seen.fetch_max(last.saturating_add(1), Ordering::Release);
            }
            positions
        })
    }

    /// The positions of events that are in the log.
    fn known_now(&self, events: &[CloudEvent]) -> Result<Vec<Option<u64>>, Error> {
        let known = events.iter().map(|event| {
            let bytes = self
                .events
                .get(Events::named(event.source(), event.id()))
                .map_err(damaged)?;
            Ok(bytes
                .and_then(|bytes| bytes.try_into().ok())
                .map(u64::from_be_bytes))
        });
        known.collect()
    }

    /// Forgets the oldest events until there is room for so many more.
    async fn make_room(&self, events: u64, bytes: u64, room: Room) -> Result<(), Error> {
        loop {
            let tail = *self.tail.lock().await;
            let fits = tail.count.saturating_add(events) <= room.events
                && tail.bytes.saturating_add(bytes) <= room.bytes;
            if fits || self.forget_oldest(Timestamp::MAX, FORGET_AT_ONCE).await? == 0 {
                return Ok(());
            }
        }
    }

    async fn forget_oldest(&self, before: Timestamp, limit: usize) -> Result<usize, Error> {
        let limit = limit.min(FORGET_AT_ONCE);
        let (batch, count, bytes) = self
            .read(move |store| {
                let (mut batch, mut count, mut bytes) = (Batch::new(), 0, 0);
                let all = (Bound::Included(Events::first()), Bound::Excluded(Events::end()));
                for entry in store.events.range(all).take(limit) {
                    let (key, value) = entry.map_err(damaged)?;
                    // What cannot be read is forgotten all the same.
                    if let Ok(logged) = serde_json::from_slice::<Logged>(&value) {
                        if logged.received_at >= before {
                            break;
                        }
                        let event = &logged.event;
                        batch.remove(&store.events, Events::named(event.source(), event.id()));
                        batch.remove(&store.events, Events::typed(event.kind(), logged.position));
                    }
                    batch.remove(&store.events, key);
                    count += 1;
                    bytes += value.len() as u64;
                }
                Ok((batch, count, bytes))
            })
            .await?;
        if count > 0 {
            self.commit(batch, "the log of events").await?;
            let mut tail = self.tail.lock().await;
            tail.count = tail.count.saturating_sub(count as u64);
            tail.bytes = tail.bytes.saturating_sub(bytes);
        }
        Ok(count)
    }

    fn events_now(
        &self,
        from: u64,
        kinds: Option<&[String]>,
        limit: usize,
    ) -> Result<Page<Logged, u64>, Error> {
        // The end first: whatever is up to there is seen by all that is read after it.
        let Some(last) = self.last_position_now()?.filter(|last| *last >= from) else {
            return Ok(Page {
                entries: Vec::new(),
                next: Some(from),
            });
        };
        let positions = match kinds {
            None => self.positions(Events::at(from), Events::at(last.saturating_add(1)), limit)?,
            Some(kinds) => {
                let mut positions = BTreeSet::new();
                for kind in kinds {
                    let range = (
                        Events::typed(kind, from),
                        Events::typed(kind, last.saturating_add(1)),
                    );
                    positions.extend(self.positions(range.0, range.1, limit)?);
                }
                positions.into_iter().take(limit).collect()
            }
        };
        let is_full = positions.len() >= limit;
        let (mut entries, mut bytes): (Vec<Logged>, usize) = (Vec::new(), 0);
        for position in positions {
            // Absent where it was forgotten since.
            let Some(value) = self.events.get(Events::at(position)).map_err(damaged)? else {
                continue;
            };
            bytes += value.len();
            if !entries.is_empty() && bytes > PORTION_BYTES {
                let next = Some(position);
                return Ok(Page { entries, next });
            }
            entries.push(self.decode("an event", &value)?);
        }
        let next = match entries.last() {
            Some(last) if is_full => last.position.saturating_add(1),
            _ => last.saturating_add(1),
        };
        Ok(Page {
            entries,
            next: Some(next),
        })
    }

    fn positions(&self, start: Vec<u8>, end: Vec<u8>, limit: usize) -> Result<Vec<u64>, Error> {
        let range = (Bound::Included(start), Bound::Excluded(end));
        let keys = self.events.range(range).take(limit);
        keys.map(|entry| {
            let (key, _) = entry.map_err(damaged)?;
            Events::position(&key)
                .ok_or_else(|| Error::Damaged(format!("{}: an event has no position", self.path().display())))
        })
        .collect()
    }

    fn last_position_now(&self) -> Result<Option<u64>, Error> {
        let all = (Bound::Included(Events::first()), Bound::Excluded(Events::end()));
        let last = self.events.range(all).next_back().transpose().map_err(damaged)?;
        Ok(last.and_then(|(key, _)| Events::position(&key)))
    }
}

#[async_trait]
impl EventLog for Embedded {
    async fn add_events(
        &self,
        events: Vec<CloudEvent>,
        now: Timestamp,
        room: Room,
    ) -> Result<Vec<Added>, Error> {
        for _ in 0..TRIES {
            let (events, known) = {
                let events = events.clone();
                self.read(move |store| {
                    let known = store.known_now(&events)?;
                    Ok((events, known))
                })
                .await?
            };
            // Those of one batch that are the same are one.
            let mut fresh: Vec<CloudEvent> = Vec::new();
            let mut places = Vec::with_capacity(events.len());
            for (event, known) in events.into_iter().zip(known) {
                let same = |other: &CloudEvent| other.source() == event.source() && other.id() == event.id();
                places.push(match (known, fresh.iter().position(same)) {
                    (Some(position), _) => Place::Known(position),
                    (None, Some(index)) => Place::Repeated(index),
                    (None, None) => {
                        fresh.push(event);
                        Place::Fresh(fresh.len() - 1)
                    }
                });
            }
            let positions = if fresh.is_empty() {
                Vec::new()
            } else {
                let bytes = fresh
                    .iter()
                    .map(|event| muster_api::json::length(event) as u64)
                    .sum();
                self.make_room(fresh.len() as u64, bytes, room).await?;
                let written = self
                    .commit_with_events(Batch::new(), fresh, now, true, "the log of events")
                    .await;
                match written {
                    // Somebody has added one of them since we looked.
                    Err(Error::Conflict(_)) => continue,
                    written => written?,
                }
            };
            let at = |index: usize| positions.get(index).copied().unwrap_or_default();
            let added = places.into_iter().map(|place| match place {
                Place::Known(position) => Added {
                    position,
                    duplicate: true,
                },
                Place::Repeated(index) => Added {
                    position: at(index),
                    duplicate: true,
                },
                Place::Fresh(index) => Added {
                    position: at(index),
                    duplicate: false,
                },
            });
            return Ok(added.collect());
        }
        Err(Error::Conflict("the same events again and again".to_owned()))
    }

    async fn events(
        &self,
        from: u64,
        kinds: Option<&[String]>,
        limit: usize,
    ) -> Result<Page<Logged, u64>, Error> {
        let kinds = kinds.map(<[String]>::to_vec);
        self.read(move |store| store.events_now(from, kinds.as_deref(), limit))
            .await
    }

    async fn next_position(&self) -> Result<u64, Error> {
        // Only what can be seen counts: an event that is being written is still to come.
        // Where none is being written, and none was whose writer has left, that is the end.
        let seen = self.seen.load(Ordering::Acquire);
        if self.tail.lock().await.next == seen {
            return Ok(seen);
        }
        let last = self.read(Self::last_position_now).await?;
        Ok(last.map_or(FIRST_POSITION, |last| last.saturating_add(1)))
    }

    async fn forget_events(&self, time: Timestamp, limit: usize) -> Result<usize, Error> {
        self.forget_oldest(time, limit).await
    }

    async fn starter(&self, name: &str) -> Result<Option<StarterState>, Error> {
        let key = Events::starter(name);
        self.read(move |store| store.get(&store.events, key, || "the state of a starter".to_owned()))
            .await
    }

    async fn keep_starter(&self, name: &str, state: Option<&StarterState>) -> Result<(), Error> {
        let mut batch = Batch::new();
        match state {
            Some(state) => batch.put(&self.events, Events::starter(name), encode(state)?),
            None => batch.remove(&self.events, Events::starter(name)),
        }
        self.commit(batch, "the state of a starter").await
    }
}

/// Where an event of a batch is, or will be.
enum Place {
    Known(u64),
    Repeated(usize),
    Fresh(usize),
}
