//! The log of events, in a slot of its own, and the way into it from the partitions.
//!
//! The log is a stream whose ids are the positions. One script adds to it, gives out positions and makes room, so whoever sees
//! a position sees all below it.
//!
//! **No position twice.** Journals, readers and starters remember positions, in other slots and in memory. A server that takes the
//! log over may lack the last events, and would give their positions out again, below the places of those who have read them. So
//! the log knows which server wrote to it last, and another one leaves out more positions than can have been lost.
//!
//! A step cannot write into the log's slot. Its events become durable in its partition's outbox, with the step; the relay reads
//! the outbox, adds what it finds to the log, which knows events by source and id, and then removes just these from the outbox.
//! Each part may be done again by anybody at any time. It runs after each step with events, again where that failed, and for
//! all partitions when the store is opened.

use std::collections::BTreeSet;

use async_trait::async_trait;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use jiff::Timestamp;
use muster_store::redis::{Call, Script, Slot, cmd};
use muster_workflow_dsl::cloud_event::CloudEvent;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::keys::{self, Partition, slots};
use super::steps::token;
use super::{Redis, decode, encode};
use crate::store::events::{Added, EventLog, FIRST_POSITION, Logged, PORTION_BYTES, Room, StarterState};
use crate::store::{Error, Page};

static ADD: Script = Script::knowing_the_server(concat!(
    "#!lua\n",
    include_str!("events_oldest.lua"),
    include_str!("events_add.lua")
));
static BEGIN: Script = Script::knowing_the_server(include_str!("events_begin.lua"));
static FORGET: Script = Script::new(concat!(
    "#!lua flags=allow-oom\n",
    include_str!("events_oldest.lua"),
    include_str!("events_forget.lua")
));
static READ: Script = Script::new(include_str!("events_read.lua"));

static KEEP_STARTER: Script = Script::new(include_str!("starter_keep.lua"));

/// Events that are forgotten with one call.
const FORGET_AT_ONCE: u64 = 1_000;

/// Events of an outbox that are carried at once, and their bytes as long as there is more than one.
const CARRIED_AT_ONCE: usize = 100;

/// Outboxes that are looked at at the same time.
const OUTBOXES_AT_ONCE: usize = 16;

/// Redis does not count further.
const LAST_POSITION: u64 = 1 << 53;

const EVENTS: &str = "events";
const NAMED: &str = "named";
const TYPED: &str = "typed";
const TAIL: &str = "tail";
const STARTERS: &str = "starters";

/// Partitions whose outbox may hold what should be in the log.
#[derive(Default)]
pub(super) struct Outboxes {
    waiting: Mutex<BTreeSet<u16>>,
    rung: Notify,
}

/// An event on its way: name, type, time and text.
struct Carried {
    name: String,
    kind: String,
    time: String,
    text: Vec<u8>,
}

impl Carried {
    fn new(event: &CloudEvent, time: Timestamp) -> Result<Self, Error> {
        Ok(Self {
            name: name(event),
            kind: event.kind().to_owned(),
            time: keys::time(time),
            text: encode(event)?,
        })
    }

    fn push(self, call: &mut Call) {
        call.push(self.name);
        call.push(self.kind);
        call.push(self.time);
        call.push(self.text);
    }
}

/// Source and id. They contain no control characters.
fn name(event: &CloudEvent) -> String {
    format!("{}\0{}", event.source(), event.id())
}

/// Adds events to a call, after their number.
pub(super) fn push(call: &mut Call, events: &[CloudEvent], time: Timestamp) -> Result<(), Error> {
    call.push_number(events.len() as u64);
    for event in events {
        Carried::new(event, time)?.push(call);
    }
    Ok(())
}

impl Redis {
    fn log(&self) -> Slot {
        Slot::named(self.prefix(), slots::LOG)
    }

    /// Makes the log, if it is not there.
    pub(super) async fn begin_log(&self) -> Result<(), Error> {
        let call = BEGIN.call().key(self.log().key(TAIL));
        self.call::<i64>(&call).await.map(drop)
    }

    /// Adds events of which no two have the same name; positions, and whether each was there before.
    async fn add_to_log(&self, events: Vec<Carried>, room: Room) -> Result<Vec<Added>, Error> {
        let slot = self.log();
        let mut call = ADD
            .call()
            .key(slot.key(EVENTS))
            .key(slot.key(NAMED))
            .key(slot.key(TYPED))
            .key(slot.key(TAIL))
            .arg(token())
            .number(room.events)
            .number(room.bytes)
            .number(FORGET_AT_ONCE)
            .number(events.len() as u64);
        for event in events {
            event.push(&mut call);
        }
        self.check_size(&call)?;
        loop {
            let answer: Vec<u64> = self.call(&call).await?;
            // Room is made in portions.
            let Some((1, added)) = answer.split_first() else {
                continue;
            };
            let (pairs, _) = added.as_chunks::<2>();
            let added = pairs.iter().map(|[position, before]| Added {
                position: *position,
                duplicate: *before == 1,
            });
            return Ok(added.collect());
        }
    }

    /// Carries what is in a partition's outbox to the log.
    pub async fn relay(&self, partition: u16) -> Result<(), Error> {
        type Entry = (String, Vec<Vec<u8>>);
        let outbox = Partition::new(self.prefix(), partition).outbox();
        loop {
            let mut command = cmd("XRANGE");
            command
                .arg(&outbox)
                .arg("-")
                .arg("+")
                .arg("COUNT")
                .arg(CARRIED_AT_ONCE);
            let entries: Vec<Entry> = self.run(&command).await?;
            if entries.is_empty() {
                return Ok(());
            }
            let (mut events, mut names, mut done) = (Vec::new(), BTreeSet::new(), Vec::new());
            let mut bytes = 0;
            for (id, fields) in entries {
                let Some(event) = carried(fields) else {
                    return Err(Error::Damaged(format!(
                        "entry {id} of the outbox of partition {partition} is no event"
                    )));
                };
                bytes += event.text.len();
                if !events.is_empty() && bytes > PORTION_BYTES {
                    break;
                }
                done.push(id);
                if names.insert(event.name.clone()) {
                    events.push(event);
                }
            }
            self.add_to_log(events, self.shared.options.room).await?;
            let mut command = cmd("XDEL");
            command.arg(&outbox).arg(&done);
            self.run::<i64>(&command).await?;
        }
    }

    /// Carries what a step told. What does not succeed is tried again by [`Redis::keep_relaying`].
    pub(super) async fn relay_soon(&self, partition: u16) {
        if let Err(error) = self.relay(partition).await {
            tracing::warn!(partition, %error, "events wait in the outbox");
            self.shared.outboxes.waiting.lock().insert(partition);
            self.shared.outboxes.rung.notify_one();
        }
    }

    /// Carries what is in all outboxes.
    pub(super) async fn relay_all(&self) -> Result<(), Error> {
        stream::iter(0..self.partitions())
            .map(|partition| self.relay(partition))
            .buffer_unordered(OUTBOXES_AT_ONCE)
            .try_collect()
            .await
    }

    /// Carries on where carrying failed, as long as it is polled.
    pub async fn keep_relaying(&self) {
        loop {
            self.shared.outboxes.rung.notified().await;
            loop {
                let next = self.shared.outboxes.waiting.lock().pop_first();
                let Some(partition) = next else { break };
                // A call has patience of its own, and pauses between its tries.
                if let Err(error) = self.relay(partition).await {
                    self.shared.outboxes.waiting.lock().insert(partition);
                    tracing::warn!(partition, %error, "events still wait in the outbox");
                    tokio::time::sleep(self.connection().options().connect_within).await;
                }
            }
        }
    }

    async fn read_log(
        &self,
        from: u64,
        kinds: Option<&[String]>,
        limit: usize,
    ) -> Result<Page<Logged, u64>, Error> {
        let nothing = Page {
            entries: Vec::new(),
            next: Some(from),
        };
        // No type is wanted, or no position is so high.
        if from >= LAST_POSITION || kinds.is_some_and(<[_]>::is_empty) {
            return Ok(nothing);
        }
        let slot = self.log();
        let mut call = READ
            .call()
            .key(slot.key(EVENTS))
            .key(slot.key(TYPED))
            .key(slot.key(TAIL))
            .number(from)
            .number(limit as u64)
            .number(PORTION_BYTES as u64);
        for kind in kinds.unwrap_or_default() {
            call.push(kind.as_str());
        }
        let answer: Vec<Vec<u8>> = self.call(&call).await?;
        let damaged = || Error::Damaged("the log of events answers what is no event".to_owned());
        let number = |bytes: &[u8]| std::str::from_utf8(bytes).ok()?.parse::<u64>().ok();
        let (next, events) = answer.split_first().ok_or_else(damaged)?;
        let (events, _) = events.as_chunks::<3>();
        let entries = events.iter().map(|[position, time, text]| {
            let time = std::str::from_utf8(time).ok().and_then(keys::parse_time);
            Ok(Logged {
                position: number(position).ok_or_else(damaged)?,
                received_at: time.ok_or_else(damaged)?,
                event: decode("an event", text)?,
            })
        });
        Ok(Page {
            entries: entries.collect::<Result<_, Error>>()?,
            next: Some(number(next).ok_or_else(damaged)?),
        })
    }
}

fn carried(fields: Vec<Vec<u8>>) -> Option<Carried> {
    let (mut name, mut kind, mut time, mut text) = (None, None, None, None);
    let mut fields = fields.into_iter();
    while let (Some(field), Some(value)) = (fields.next(), fields.next()) {
        match field.as_slice() {
            b"n" => name = String::from_utf8(value).ok(),
            b"k" => kind = String::from_utf8(value).ok(),
            b"r" => time = String::from_utf8(value).ok(),
            b"e" => text = Some(value),
            _ => {}
        }
    }
    Some(Carried {
        name: name?,
        kind: kind?,
        time: time?,
        text: text?,
    })
}

#[async_trait]
impl EventLog for Redis {
    async fn add_events(
        &self,
        events: Vec<CloudEvent>,
        now: Timestamp,
        room: Room,
    ) -> Result<Vec<Added>, Error> {
        // Those of one batch that are the same are one.
        let mut fresh: Vec<Carried> = Vec::new();
        let mut places = Vec::with_capacity(events.len());
        for event in &events {
            let name = name(event);
            let same = fresh.iter().position(|other| other.name == name);
            places.push((same.unwrap_or(fresh.len()), same.is_some()));
            if same.is_none() {
                fresh.push(Carried::new(event, now)?);
            }
        }
        if fresh.is_empty() {
            return Ok(Vec::new());
        }
        let added = self.add_to_log(fresh, room).await?;
        let added = places.into_iter().map(|(index, repeated)| {
            let added = added
                .get(index)
                .ok_or_else(|| Error::Damaged("the log of events answers too little".to_owned()))?;
            Ok(Added {
                position: added.position,
                duplicate: added.duplicate || repeated,
            })
        });
        added.collect()
    }

    async fn events(
        &self,
        from: u64,
        kinds: Option<&[String]>,
        limit: usize,
    ) -> Result<Page<Logged, u64>, Error> {
        self.read_log(from, kinds, limit).await
    }

    async fn next_position(&self) -> Result<u64, Error> {
        let last: Option<u64> = self
            .run(cmd("HGET").arg(self.log().key(TAIL)).arg("last"))
            .await?;
        Ok(last.map_or(FIRST_POSITION, |last| last.saturating_add(1)))
    }

    async fn forget_events(&self, time: Timestamp, limit: usize) -> Result<usize, Error> {
        let slot = self.log();
        let call = FORGET
            .call()
            .key(slot.key(EVENTS))
            .key(slot.key(NAMED))
            .key(slot.key(TYPED))
            .key(slot.key(TAIL))
            .arg(keys::time(time))
            .number((limit as u64).min(FORGET_AT_ONCE));
        self.call(&call).await
    }

    async fn starter(&self, name: &str) -> Result<Option<StarterState>, Error> {
        let text: Option<Vec<u8>> = self
            .run(cmd("HGET").arg(self.log().key(STARTERS)).arg(name))
            .await?;
        text.map(|text| decode("the state of a starter", &text))
            .transpose()
    }

    async fn keep_starter(&self, name: &str, state: Option<&StarterState>) -> Result<(), Error> {
        let starters = self.log().key(STARTERS);
        match state {
            Some(state) => {
                let call = KEEP_STARTER
                    .call()
                    .key(starters)
                    .arg(name)
                    .number(state.next)
                    .arg(encode(state)?);
                self.call::<i64>(&call).await?;
            }
            None => {
                self.run::<i64>(cmd("HDEL").arg(starters).arg(name)).await?;
            }
        }
        Ok(())
    }
}
