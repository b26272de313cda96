//! A store whose large values are kept apart: in the store itself, or outside of it.

mod passed_on;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use jiff::Timestamp;
use serde_json::Value;

use super::cut::{self, Cut, Kind, Place, Scissors, Unfit};
use super::{Bucket, Digest, Payload, Payloads, Room};
use crate::off_thread::off_thread;
use crate::run::{Entry, Position, Record, RunId, Summary};
use crate::store::erase::{Erase, Rewrite};
use crate::store::{
    Again, Error, Filter, HISTORY_BYTES, Page, SnapshotKind, Step, Store, Stored, Unfinished, Workflow,
    WorkflowKey,
};

/// Payloads that are read at the same time.
const AT_ONCE: usize = 8;

/// See the module.
pub struct Apart {
    store: Arc<dyn Store>,
    outside: Option<Arc<Bucket>>,
    /// Longest value that stays where it is, in bytes.
    threshold: usize,
}

/// What was read of payloads: by place and digest.
type Read = BTreeMap<(Place, Digest), String>;

impl Apart {
    /// Values longer than the threshold are kept in the bucket, and in the store where there is none.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, outside: Option<Arc<Bucket>>, threshold: usize) -> Self {
        Self {
            store,
            outside,
            threshold,
        }
    }

    fn scissors(&self, room: &Room) -> Scissors {
        Scissors {
            threshold: self.threshold,
            place: Place::of(room, self.outside.is_some()),
        }
    }

    /// Whether all of it is kept as it is.
    fn stays(&self, input: Option<&Value>, step: &Step) -> bool {
        let scissors = self.scissors(&Room::of(&step.summary));
        let mut values = input.into_iter().chain(&step.output);
        let states = step.snapshot.iter().map(|saved| &saved.bytes);
        !step
            .entries
            .iter()
            .chain(states)
            .any(|bytes| scissors.concern(bytes))
            && !values.any(|value| scissors.concern_value(value))
    }

    /// The step as it is kept. What was cut out of it is durable then, or part of it.
    async fn cut(&self, step: Step) -> Result<Step, Error> {
        if self.stays(None, &step) {
            return Ok(step);
        }
        Ok(self.cut_with(None, step).await?.1)
    }

    async fn cut_with(
        &self,
        record: Option<Record>,
        mut step: Step,
    ) -> Result<(Option<Record>, Step), Error> {
        let room = Room::of(&step.summary);
        let scissors = self.scissors(&room);
        let (record, mut step, payloads) = off_thread(move || {
            let mut payloads = cut::Payloads::default();
            for entry in &mut step.entries {
                *entry = scissors
                    .cut(entry, Kind::Entry, &mut payloads)
                    .unwrap_or_else(|| std::mem::take(entry));
            }
            if let Some(saved) = &mut step.snapshot
                && let Some(kept) = scissors.cut(&saved.bytes, Kind::State, &mut payloads)
            {
                saved.bytes = kept;
            }
            if let Some(output) = &mut step.output
                && let Some(kept) = scissors.cut_value(output, &mut payloads)
            {
                *output = kept;
            }
            let record = record.map(|mut record| {
                if let Some(kept) = scissors.cut_value(&record.input, &mut payloads) {
                    record.input = kept;
                }
                record
            });
            (record, step, payloads.into_list())
        })
        .await;
        match &self.outside {
            Some(bucket) if !payloads.is_empty() => bucket.put_payloads(&room, &payloads).await?,
            _ => step.payloads = payloads,
        }
        Ok((record, step))
    }

    /// Accepts a run as it is kept. Of one that is refused nothing stays outside.
    async fn create(&self, record: &Record, step: Step, has_begun: bool) -> Result<(), Error> {
        if self.stays(Some(&record.input), &step) {
            return self.create_kept(record, step, has_begun).await;
        }
        let room = Room::of(&step.summary);
        let (kept, step) = self.cut_with(Some(record.clone()), step).await?;
        let record = kept.unwrap_or_else(|| record.clone());
        let has_begun = has_begun || !step.payloads.is_empty();
        let created = self.create_kept(&record, step, has_begun).await;
        if let (Err(Error::Conflict(_) | Error::TooLarge { .. }), Some(bucket)) = (&created, &self.outside)
            && is_marked(&record)
            && let there = self.store.summary(&room.run).await?
            // Of two in the same microsecond, the other one.
            && there.is_none_or(|there| there.created_at.as_microsecond() != room.created_micros)
        {
            // What it has left is of no use, and no reason for another answer.
            let whole = room.whole_run();
            if let Err(error) = bucket.forget_payloads(&whole, &[]).await {
                tracing::warn!(run = %whole.run, %error, "a payload of a run that was not accepted stays");
            }
        }
        created
    }

    async fn create_kept(&self, record: &Record, step: Step, has_begun: bool) -> Result<(), Error> {
        if has_begun {
            self.store.create_with(record, step).await
        } else {
            self.store.create_run(record, &step.summary).await
        }
    }

    /// Whoever keeps what is at this place.
    fn keeper(&self, run: &RunId, place: Place) -> Result<&dyn Payloads, Error> {
        if !place.outside {
            return Ok(&*self.store);
        }
        let bucket = self.outside.as_deref().ok_or_else(|| {
            Error::Damaged(format!(
                "run '{run}': a payload of it is in an object store, and engine.payloads names none; set engine.payloads as it was \
                 when the run was written"
            ))
        })?;
        Ok(bucket)
    }

    /// Reads the payloads that these texts refer to, and those that these refer to.
    async fn read(&self, run: &RunId, texts: &[String]) -> Result<Read, Error> {
        let mut read = Read::new();
        let mut wanted = BTreeSet::new();
        for text in texts {
            if let Some(cut) = Cut::read(text).map_err(|unfit| unreadable(run, &unfit))? {
                let place = cut.place.ok_or_else(|| {
                    unreadable(run, &Unfit::Text("where its payloads are is missing".to_owned()))
                })?;
                let holes = cut.holes.into_iter();
                wanted.extend(holes.map(|hole| (place, hole.2)));
            }
        }
        while !wanted.is_empty() {
            let reads = wanted.into_iter().map(|(place, digest)| async move {
                let text = self.payload(run, place, &digest).await?;
                Ok::<_, Error>(((place, digest), text))
            });
            let found: Vec<_> = stream::iter(reads)
                .buffer_unordered(AT_ONCE)
                .try_collect()
                .await?;
            wanted = BTreeSet::new();
            for ((place, digest), text) in found {
                if let Some(cut) = Cut::read(&text).map_err(|unfit| unreadable(run, &unfit))? {
                    wanted.extend(cut.holes.into_iter().map(|hole| (place, hole.2)));
                }
                read.insert((place, digest), text);
            }
            wanted.retain(|key| !read.contains_key(key));
        }
        Ok(read)
    }

    /// A payload that is what was written.
    async fn payload(&self, run: &RunId, place: Place, digest: &Digest) -> Result<String, Error> {
        let keeper = self.keeper(run, place)?;
        let room = Room {
            run: run.clone(),
            created_micros: place.created,
            span: place.span,
        };
        let damaged = |what: &str| {
            let at = keeper.payload_place(&room, digest);
            Error::Damaged(format!(
                "run '{run}': its payload {digest} {what} ({at}); put it back from a backup, or delete the run"
            ))
        };
        let bytes = keeper.payload(&room, digest).await?;
        let bytes = bytes.ok_or_else(|| damaged("is gone"))?;
        let expected = digest.clone();
        let text = off_thread(move || {
            let text = String::from_utf8(bytes).ok()?;
            (Digest::of(&text) == expected).then_some(text)
        });
        text.await.ok_or_else(|| damaged("is not what was written"))
    }

    /// The texts with their holes filled.
    async fn whole(&self, run: &RunId, texts: Vec<String>) -> Result<Vec<String>, Error> {
        let read = self.read(run, &texts).await?;
        let whole = off_thread(move || {
            let whole = texts.into_iter().map(|text| {
                let place = Cut::read(&text)?.and_then(|cut| cut.place);
                let payload = |digest: &Digest| read.get(&(place?, digest.clone())).map(String::as_str);
                cut::filled(&text, &payload).map(std::borrow::Cow::into_owned)
            });
            whole.collect::<Result<_, _>>()
        });
        whole.await.map_err(|unfit: Unfit| unreadable(run, &unfit))
    }

    /// The value that is kept, where it is only a text in its place.
    async fn whole_value(&self, run: &RunId, kept: Value) -> Result<Value, Error> {
        match kept {
            Value::String(text) if text.starts_with(cut::MARK) => {
                let whole = self.whole(run, vec![text]).await?.pop().unwrap_or_default();
                serde_json::from_str(&whole)
                    .map_err(|error| unreadable(run, &Unfit::Text(format!("a large value: {error}"))))
            }
            kept => Ok(kept),
        }
    }

    /// Forgets the payloads of spans that are over. What the run was accepted with stays.
    async fn forget_before(&self, id: &RunId, span: u64) -> Result<(), Error> {
        let (Some(summary), Some(record)) = (self.store.summary(id).await?, self.store.record(id).await?)
        else {
            return Ok(());
        };
        let pinned = match record.input {
            Value::String(text) if text.starts_with(cut::MARK) => self.read(id, &[text]).await?,
            _ => Read::new(),
        };
        let pinned: Vec<Digest> = pinned.into_keys().map(|(_, digest)| digest).collect();
        let room = Room {
            span,
            ..Room::of(&summary)
        };
        self.forget(&room, &pinned).await
    }

    async fn forget(&self, room: &Room, except: &[Digest]) -> Result<(), Error> {
        if let Some(bucket) = &self.outside {
            bucket.forget_payloads(room, except).await?;
        }
        self.store.forget_payloads(room, except).await
    }
}

/// Whether its input was cut.
fn is_marked(record: &Record) -> bool {
    let input = record.input.as_str();
    input.is_some_and(|text| text.starts_with(cut::MARK))
}

/// What cannot be told of a single payload.
fn unreadable(run: &RunId, unfit: &Unfit) -> Error {
    Error::Damaged(match unfit {
        Unfit::Text(what) => format!("run '{run}': {what}"),
        Unfit::Payload(digest) => format!("run '{run}': its payload {digest} does not fit where it belongs"),
    })
}

fn is_text(bytes: &[u8]) -> bool {
    bytes.starts_with(cut::MARK.as_bytes())
}

fn text(run: &RunId, bytes: Vec<u8>) -> Result<String, Error> {
    String::from_utf8(bytes).map_err(|error| unreadable(run, &Unfit::Text(error.to_string())))
}

#[async_trait]
impl Store for Apart {
    async fn add_workflow(&self, workflow: &Workflow, document: &str) -> Result<(), Error> {
        self.store.add_workflow(workflow, document).await
    }

    async fn document(&self, key: &WorkflowKey) -> Result<Option<String>, Error> {
        self.store.document(key).await
    }

    async fn workflow(&self, key: &WorkflowKey) -> Result<Option<Workflow>, Error> {
        self.store.workflow(key).await
    }

    async fn newest_workflow(&self, namespace: &str, name: &str) -> Result<Option<Workflow>, Error> {
        self.store.newest_workflow(namespace, name).await
    }

    async fn workflows(
        &self,
        after: Option<&WorkflowKey>,
        limit: usize,
    ) -> Result<Page<Workflow, WorkflowKey>, Error> {
        self.store.workflows(after, limit).await
    }

    async fn create_run(&self, record: &Record, summary: &Summary) -> Result<(), Error> {
        self.create(record, Step::to(summary.clone()), false).await
    }

    async fn append(&self, step: Step) -> Result<(), Error> {
        let step = self.cut(step).await?;
        self.store.append(step).await
    }

    async fn record(&self, id: &RunId) -> Result<Option<Record>, Error> {
        let Some(mut record) = self.store.record(id).await? else {
            return Ok(None);
        };
        record.input = self.whole_value(id, record.input).await?;
        Ok(Some(record))
    }

    async fn summary(&self, id: &RunId) -> Result<Option<Summary>, Error> {
        self.store.summary(id).await
    }

    async fn output(&self, id: &RunId) -> Result<Option<Value>, Error> {
        match self.store.output(id).await? {
            Some(output) => self.whole_value(id, output).await.map(Some),
            None => Ok(None),
        }
    }

    async fn stored(&self, id: &RunId) -> Result<Option<Stored>, Error> {
        let Some(mut stored) = self.store.stored(id).await? else {
            return Ok(None);
        };
        if let Some(record) = &mut stored.record {
            record.input = self.whole_value(id, record.input.take()).await?;
        }
        if let Some(output) = &mut stored.output {
            *output = self.whole_value(id, output.take()).await?;
        }
        Ok(Some(stored))
    }

    /// As bounded as any other, by what is whole.
    async fn history(&self, id: &RunId, from: u64, limit: usize) -> Result<Vec<Entry>, Error> {
        let entries = self.store.history(id, from, limit).await?;
        if !entries.iter().any(|entry| is_text(&entry.bytes)) {
            return Ok(entries);
        }
        let (mut portion, mut texts, mut bytes) = (Vec::new(), Vec::new(), 0_usize);
        for mut entry in entries {
            let cut = is_text(&entry.bytes);
            let kept = if cut {
                text(id, std::mem::take(&mut entry.bytes))?
            } else {
                String::new()
            };
            let read = Cut::read(&kept).map_err(|unfit| unreadable(id, &unfit))?;
            let whole = read.map_or(entry.bytes.len(), |cut| cut.whole_length());
            bytes = bytes.saturating_add(whole);
            if !portion.is_empty() && bytes > HISTORY_BYTES {
                break;
            }
            texts.push(kept);
            portion.push((entry, cut));
        }
        let whole = self.whole(id, texts).await?;
        let filled = portion.into_iter().zip(whole).map(|((entry, cut), whole)| {
            if cut {
                Entry {
                    bytes: whole.into_bytes(),
                    ..entry
                }
            } else {
                entry
            }
        });
        Ok(filled.collect())
    }

    async fn snapshot(&self, id: &RunId, which: SnapshotKind) -> Result<Option<Vec<u8>>, Error> {
        match self.store.snapshot(id, which).await? {
            Some(bytes) if is_text(&bytes) => {
                let whole = self.whole(id, vec![text(id, bytes)?]).await?.pop();
                Ok(whole.map(String::into_bytes))
            }
            kept => Ok(kept),
        }
    }

    async fn forget_entries(&self, id: &RunId, before: u64, limit: usize) -> Result<usize, Error> {
        let count = self.store.forget_entries(id, before, limit).await?;
        if count == 0 && before > 0 {
            self.forget_before(id, before).await?;
        }
        Ok(count)
    }

    async fn runs(
        &self,
        filter: &Filter,
        before: Option<&Position>,
        limit: usize,
    ) -> Result<Page<Summary, Position>, Error> {
        self.store.runs(filter, before, limit).await
    }

    async fn unfinished(
        &self,
        partition: Option<u16>,
        after: Option<&Position>,
        limit: usize,
    ) -> Result<Page<Unfinished, Position>, Error> {
        self.store.unfinished(partition, after, limit).await
    }

    async fn ended_before(&self, time: Timestamp, limit: usize) -> Result<Vec<RunId>, Error> {
        self.store.ended_before(time, limit).await
    }

    /// What is outside goes first, and right before it the run is closed: it cannot be reopened while it is half gone.
    async fn forget_run(&self, id: &RunId) -> Result<(), Error> {
        if let Some(bucket) = &self.outside
            && let Some(summary) = self.store.summary(id).await?
            && summary.ended_at.is_some()
        {
            let closing = Rewrite {
                summary: summary.clone(),
                record: None,
                first_index: summary.first_entry(),
                entries: Vec::new(),
                approvals: Vec::new(),
            };
            match self.store.rewrite(closing).await {
                Ok(()) => {
                    let room = Room::of(&summary).whole_run();
                    bucket.forget_payloads(&room, &[]).await?;
                }
                // It was reopened, or its forgetting has gone beyond this: the store knows.
                Err(Error::Conflict(_)) => {}
                Err(error) => return Err(error),
            }
        }
        self.store.forget_run(id).await
    }

    fn health(&self) -> Result<(), String> {
        self.store.health()
    }

    fn takes_steps(&self) -> Result<(), String> {
        self.store.takes_steps()?;
        self.outside.as_ref().map_or(Ok(()), |bucket| bucket.health())
    }
}

#[async_trait]
impl Payloads for Apart {
    async fn put_payloads(&self, room: &Room, payloads: &[Payload]) -> Result<(), Error> {
        self.store.put_payloads(room, payloads).await
    }

    async fn payload(&self, room: &Room, digest: &Digest) -> Result<Option<Vec<u8>>, Error> {
        self.store.payload(room, digest).await
    }

    async fn forget_payloads(&self, room: &Room, except: &[Digest]) -> Result<(), Error> {
        self.forget(room, except).await
    }

    fn payload_place(&self, room: &Room, digest: &Digest) -> String {
        self.store.payload_place(room, digest)
    }
}

#[async_trait]
impl Again for Apart {
    async fn reopen(&self, step: Step, ended_at: Timestamp) -> Result<(), Error> {
        let step = self.cut(step).await?;
        self.store.reopen(step, ended_at).await
    }

    async fn create_with(&self, record: &Record, step: Step) -> Result<(), Error> {
        self.create(record, step, true).await
    }
}

#[async_trait]
impl Erase for Apart {
    /// What takes the place of what was said holds no large values. With the last of it, the payloads are forgotten: whoever is
    /// not told that this is done asks again.
    async fn rewrite(&self, rewrite: Rewrite) -> Result<(), Error> {
        let record = rewrite.record.as_ref();
        let is_last = record.is_some_and(|record| record.erased_input.is_some());
        let room = Room::of(&rewrite.summary).whole_run();
        self.store.rewrite(rewrite).await?;
        if is_last {
            self.forget(&room, &[]).await?;
        }
        Ok(())
    }
}
