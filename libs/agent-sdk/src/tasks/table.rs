//! All tasks of one agent process as data: no waiting, no disk.
//!
//! A task that is worked on or followed is *live*: decoded, with those who follow it. Every other one is *kept*: encoded, as
//! it is on disk, so that a bound in bytes is one of memory. Room is made by forgetting the tasks that nobody works on, longest
//! untouched first: those past their retention always, others when a bound is reached. A live task is never forgotten; when only
//! such are left, a new one is refused.
//!
//! Followers get a snapshot and every event after it, in one order for all, because both happen under the table's lock. What is
//! settled is published in two steps: [`Table::settle`] changes the task and says whom to tell, and the caller tells them when
//! it is durable. In between the task is *hidden* ([`Table::is_hidden`]): nobody asks for it or changes it, so that nobody hears of what may
//! yet be lost, and no later event is told before it.
//!
//! Where the store is shared ([`shared`]), the table has the tasks that this instance *holds*: those that it works on, changes, or
//! has not written yet. What it does not hold any more it forgets, but for tasks that have ended, which stay as copies as
//! long as there is room: nothing but where they are pushed to can change in them.
//!
//! Rejected: a shared broadcast of bounded length, in which a slow follower loses events of all; one list per task that
//! followers read by index, which has to be kept for the slowest of them.

mod followers;
mod pushing;
mod room;
mod rules;
mod shared;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use a2a_pb::proto::{self as pb, TaskState};
use prost::Message as _;
use prost::bytes::Bytes;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::page::{Key, Query};
use super::record::{Errand, Record, is_settled, is_terminal};
use super::store::Stage;
use super::trail::Trail;
use super::whose::Whose;
use crate::reply::RESULT;

use followers::Sender;
pub(crate) use followers::{Follower, Publication};
use rules::damaged;
pub(crate) use rules::{at_work, check_cancel, check_follow, check_message, check_pushes, unknown};

/// Most addresses that one task's updates are pushed to.
const MOST_PUSHES: usize = 8;

/// What the table may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bounds {
    pub(crate) tasks: usize,
    pub(crate) bytes: usize,
    /// How long a task that nobody works on is kept.
    pub(crate) retention: Duration,
}

/// An event of a task, shared by all who see it.
pub(crate) type Event = Arc<pb::StreamResponse>;

/// All tasks.
pub(crate) struct Table {
    bounds: Bounds,
    by_id: HashMap<String, Entry>,
    by_age: BTreeSet<Key>,
    /// By last touch; the ticker makes keys unique.
    untouched: BTreeMap<u64, String>,
    ticker: u64,
    bytes: usize,
    /// Ids of what was forgotten and is to be forgotten on disk.
    forgotten: Vec<String>,
    /// Whether the store is, so that it forgets by itself and has tasks that are not here.
    is_shared: bool,
    /// What a shared store may have and must not keep.
    withdrawn: HashSet<String>,
    /// What turned out to be another instance's since somebody looked.
    lost: Vec<String>,
    /// How many drafts were made.
    drafts: u64,
}

struct Entry {
    key: Key,
    state: TaskState,
    context: String,
    /// Whose it is.
    caller: Arc<str>,
    body: Body,
    size: usize,
    tick: u64,
    touched: Duration,
    trail: Trail,
    /// Whether this process has to do with the task; false for a copy of one that has ended.
    is_held: bool,
    /// How many are about to change it.
    pins: usize,
    /// Who has to do with it, in the eyes of a shared store.
    known_stage: Stage,
    /// Its end is being written, and is told then.
    is_telling: bool,
    /// It is settled, somebody knows of it, and a shared store does not yet have it so: nobody is to hear of it before.
    is_secret: bool,
}

enum Body {
    Kept(Bytes),
    Live(Box<Live>),
}

struct Live {
    record: Record,
    followers: Vec<Sender>,
    waiters: Vec<oneshot::Sender<pb::Task>>,
    /// Of who works on it.
    work: Option<CancellationToken>,
    /// Whether a caller knows of the task, so that what is said of it has to be durable first.
    announced: bool,
}

/// What a message to a task that waits for one finds.
pub(crate) struct Resumed {
    /// The task, at work again.
    pub(crate) task: pb::Task,
    /// What those were told who follow it.
    pub(crate) update: Event,
    /// What was said before, oldest first.
    pub(crate) earlier: Vec<pb::Message>,
    /// Whose it is.
    pub(crate) caller: String,
}

/// How cancelling ends.
pub(crate) enum Cancelled {
    /// It is cancelled now.
    Now(Box<Publication>),
    /// It was before.
    Before(Box<pb::Task>),
}

impl Table {
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            by_id: HashMap::new(),
            by_age: BTreeSet::new(),
            untouched: BTreeMap::new(),
            ticker: 0,
            bytes: 0,
            forgotten: Vec::new(),
            is_shared: false,
            withdrawn: HashSet::new(),
            lost: Vec::new(),
            drafts: 0,
        }
    }

    /// Takes in a task that was kept on disk.
    pub(crate) fn load(
        &mut self,
        id: &str,
        bytes: Vec<u8>,
        now: Duration,
    ) -> Result<Record, prost::DecodeError> {
        let record = Record::decode(bytes.as_slice())?;
        self.insert(id, &record, Body::Kept(bytes.into()), now);
        Ok(record)
    }

    /// A new task, live and worked on.
    pub(crate) fn create(
        &mut self,
        record: Record,
        work: CancellationToken,
        announced: bool,
        now: Duration,
    ) -> Result<(), Box<Status>> {
        let id = record
            .task
            .as_ref()
            .map(|task| task.id.clone())
            .unwrap_or_default();
        self.make_room(record.encoded_len(), now)?;
        let live = Live {
            record: record.clone(),
            followers: Vec::new(),
            waiters: Vec::new(),
            work: Some(work),
            announced,
        };
        self.insert(&id, &record, Body::Live(Box::new(live)), now);
        self.change(&id);
        Ok(())
    }

    fn insert(&mut self, id: &str, record: &Record, body: Body, now: Duration) {
        self.forget(id);
        self.ticker += 1;
        let entry = Entry {
            key: (record.time(), id.to_owned()),
            state: record.state(),
            context: record.context().to_owned(),
            caller: Arc::from(record.caller.as_str()),
            body,
            size: record.encoded_len(),
            tick: self.ticker,
            touched: now,
            trail: Trail::default(),
            is_held: true,
            pins: 0,
            known_stage: Stage::AtWork,
            is_telling: false,
            is_secret: false,
        };
        self.bytes += entry.size;
        self.by_age.insert(entry.key.clone());
        self.untouched.insert(entry.tick, id.to_owned());
        self.by_id.insert(id.to_owned(), entry);
    }

    /// What is on disk of a task, or is to be; nothing where it is forgotten.
    #[cfg(test)]
    pub(crate) fn encoded(&self, id: &str) -> Option<Vec<u8>> {
        self.by_id.get(id).map(|entry| match &entry.body {
            Body::Kept(bytes) => bytes.to_vec(),
            Body::Live(live) => live.record.encode_to_vec(),
        })
    }

    /// What there is of a task now.
    pub(crate) fn record(&self, id: &str) -> Option<Record> {
        self.by_id.get(id).and_then(Entry::record)
    }

    /// The task as it is now.
    pub(crate) fn find(&self, id: &str) -> Option<pb::Task> {
        self.record(id).and_then(|record| record.task)
    }

    /// Whose a task is that is here.
    pub(crate) fn caller(&self, id: &str) -> Option<Arc<str>> {
        self.by_id.get(id).map(|entry| Arc::clone(&entry.caller))
    }

    /// The task's state.
    pub(crate) fn state(&self, id: &str) -> Option<TaskState> {
        self.by_id.get(id).map(|entry| entry.state)
    }

    /// The context of a task that takes a message now.
    pub(crate) fn check_message(&self, id: &str, context: &str) -> Result<String, Box<Status>> {
        let entry = self.by_id.get(id).ok_or_else(|| unknown(id))?;
        let is_at_work = matches!(&entry.body, Body::Live(live) if live.work.is_some());
        check_message(id, context, &entry.context, entry.state, is_at_work)?;
        Ok(entry.context.clone())
    }

    /// Bytes of a task with all that was said; 0 where it is not here.
    pub(crate) fn size(&self, id: &str) -> usize {
        self.by_id.get(id).map_or(0, |entry| match &entry.body {
            Body::Kept(bytes) => bytes.len(),
            Body::Live(live) => live.record.encoded_len(),
        })
    }

    /// Takes a task up again with a message, and has it work.
    pub(crate) fn resume(
        &mut self,
        id: &str,
        message: &pb::Message,
        errand: Errand,
        status: pb::TaskStatus,
        work: CancellationToken,
    ) -> Result<Resumed, Box<Status>> {
        self.check_message(id, &message.context_id)?;
        let grown = message.encoded_len();
        let live = self.open(id)?;
        let task = live.record.task.get_or_insert_default();
        // The agent's question joins the history when it is answered.
        let question = task.status.as_mut().and_then(|status| status.message.take());
        task.history.extend(question);
        let earlier = task.history.clone();
        task.history.push(message.clone());
        live.record.sent.extend(errand.sent.clone());
        live.record.errand = Some(errand);
        live.work = Some(work);
        let update = pb::StreamResponse {
            payload: Some(pb::stream_response::Payload::StatusUpdate(
                pb::TaskStatusUpdateEvent {
                    task_id: task.id.clone(),
                    context_id: task.context_id.clone(),
                    status: Some(status),
                    metadata: None,
                },
            )),
        };
        let update = Arc::new(update);
        live.publish(&update);
        let task = live.record.task.clone().unwrap_or_default();
        let caller = live.record.caller.clone();
        self.note(id, &update);
        self.change(id);
        self.grow(id, grown);
        self.place(id);
        Ok(Resumed {
            task,
            update,
            earlier,
            caller,
        })
    }

    /// Something happened while the task is at work; false after its end, when nothing more happens to it.
    #[must_use]
    pub(crate) fn publish(&mut self, id: &str, event: &Event) -> bool {
        let Some(entry) = self.by_id.get_mut(id) else {
            return false;
        };
        let Body::Live(live) = &mut entry.body else {
            return false;
        };
        if is_settled(entry.state) {
            return false;
        }
        let before = live.status_bytes();
        live.publish(event);
        let after = live.status_bytes();
        self.note(id, event);
        if matches!(event.payload, Some(pb::stream_response::Payload::StatusUpdate(_))) {
            // It takes the place of the one before.
            self.shrink(id, before);
            self.grow(id, after);
        } else {
            self.grow(id, event.encoded_len());
        }
        self.place(id);
        true
    }

    /// The task's last events, which leave it where nobody works on it. `None` when it is there already, by cancelling.
    pub(crate) fn settle(&mut self, id: &str, events: Vec<pb::StreamResponse>) -> Option<Publication> {
        let entry = self.by_id.get_mut(id)?;
        if is_settled(entry.state) {
            return None;
        }
        let Body::Live(live) = &mut entry.body else {
            return None;
        };
        let grown = events.iter().map(prost::Message::encoded_len).sum();
        for event in &events {
            live.record.apply(event);
        }
        if let Some(task) = &mut live.record.task {
            lead_with_result(task);
        }
        for push in &mut live.record.pushes {
            push.owed = true;
        }
        let publication = Publication {
            events: events.into_iter().map(Arc::new).collect(),
            followers: live.followers.clone(),
            waiters: std::mem::take(&mut live.waiters),
            task: live.record.task.clone().unwrap_or_default(),
            announced: live.announced,
            work: live.work.take(),
        };
        if is_terminal(live.record.state()) {
            // Their streams end with the events that they get.
            live.followers.clear();
        }
        for event in &publication.events {
            self.note(id, event);
        }
        self.change(id);
        if let Some(entry) = self.by_id.get_mut(id) {
            entry.is_telling = true;
            entry.is_secret = self.is_shared && publication.announced;
        }
        self.grow(id, grown);
        self.place(id);
        self.rest(id);
        Some(publication)
    }

    /// Cancels a task.
    pub(crate) fn cancel(
        &mut self,
        id: &str,
        event: impl FnOnce(&pb::Task) -> pb::StreamResponse,
    ) -> Result<Cancelled, Box<Status>> {
        let entry = self.by_id.get(id).ok_or_else(|| unknown(id))?;
        let task = self.find(id).ok_or_else(|| unknown(id))?;
        if check_cancel(id, entry.state)? {
            return Ok(Cancelled::Before(Box::new(task)));
        }
        let live = self.open(id)?;
        live.announced = true;
        // A task that waits for its caller is settled; cancelling is one more step.
        if let Some(entry) = self.by_id.get_mut(id) {
            entry.state = TaskState::Working;
        }
        let published = self.settle(id, vec![event(&task)]).ok_or_else(|| unknown(id))?;
        Ok(Cancelled::Now(Box::new(published)))
    }

    /// Those of a page that are hidden.
    pub(crate) fn hidden(&self, page: &pb::ListTasksResponse) -> Vec<String> {
        let ids = page.tasks.iter().map(|task| &task.id);
        ids.filter(|id| self.is_hidden(id)).cloned().collect()
    }

    /// A page of the tasks of a caller, or of all.
    pub(crate) fn list(
        &self,
        request: &pb::ListTasksRequest,
        whose: Whose,
    ) -> Result<pb::ListTasksResponse, Box<Status>> {
        let query = Query::read(request, whose)?;
        let matches = |entry: &Entry| {
            query.whose.has(&entry.caller)
                && (query.context.is_empty() || query.context == entry.context)
                && (query.state == TaskState::Unspecified || query.state == entry.state)
                && query.newer_than.is_none_or(|time| entry.key.0 >= time)
        };
        let matching = || {
            self.by_age
                .iter()
                .rev()
                .filter_map(|key| self.by_id.get(&key.1))
                .filter(|entry| matches(entry))
        };
        let mut page = matching()
            .filter(|entry| query.after.as_ref().is_none_or(|cursor| entry.key < *cursor))
            .peekable();
        let mut tasks = Vec::new();
        let mut last = None;
        while tasks.len() < query.size
            && let Some(entry) = page.next()
        {
            let Some(task) = entry.record().and_then(|record| record.task) else {
                continue;
            };
            tasks.push(query.shown(task));
            last = Some(&entry.key);
        }
        let more = page.peek().is_some();
        Ok(query.answer(tasks, last.filter(|_| more), matching().count()))
    }

    /// The task, decoded.
    fn open(&mut self, id: &str) -> Result<&mut Live, Box<Status>> {
        let entry = self.by_id.get_mut(id).ok_or_else(|| unknown(id))?;
        if let Body::Kept(bytes) = &entry.body {
            let record = Record::decode(bytes.as_ref()).map_err(|error| damaged(id, &error))?;
            entry.body = Body::Live(Box::new(Live {
                record,
                followers: Vec::new(),
                waiters: Vec::new(),
                work: None,
                announced: true,
            }));
        }
        match &mut entry.body {
            Body::Live(live) => Ok(live),
            Body::Kept(_) => Err(unknown(id)),
        }
    }

    /// Takes a task up again that an earlier process had begun.
    pub(crate) fn revive(&mut self, id: &str, work: CancellationToken) -> Result<Record, Box<Status>> {
        let live = self.open(id)?;
        live.work = Some(work);
        if let Some(errand) = &mut live.record.errand {
            errand.attempts += 1;
        }
        let record = live.record.clone();
        self.change(id);
        Ok(record)
    }

    fn grow(&mut self, id: &str, bytes: usize) {
        if let Some(entry) = self.by_id.get_mut(id) {
            entry.size += bytes;
            self.bytes += bytes;
        }
    }

    fn shrink(&mut self, id: &str, bytes: usize) {
        if let Some(entry) = self.by_id.get_mut(id) {
            let bytes = bytes.min(entry.size);
            entry.size -= bytes;
            self.bytes -= bytes;
        }
    }

    /// Brings the entry's place in the list to its task's status.
    fn place(&mut self, id: &str) {
        let Some(entry) = self.by_id.get_mut(id) else {
            return;
        };
        let Body::Live(live) = &entry.body else { return };
        entry.state = live.record.state();
        let time = live.record.time();
        if time != entry.key.0 {
            self.by_age.remove(&entry.key);
            entry.key.0 = time;
            self.by_age.insert(entry.key.clone());
        }
    }

    /// Encodes a task that nobody works on or follows.
    fn rest(&mut self, id: &str) {
        let Some(entry) = self.by_id.get_mut(id) else {
            return;
        };
        let Body::Live(live) = &entry.body else { return };
        if live.work.is_some() || !live.followers.is_empty() || !is_settled(entry.state) {
            return;
        }
        let bytes = live.record.encode_to_vec();
        self.bytes = self.bytes - entry.size + bytes.len();
        entry.size = bytes.len();
        entry.body = Body::Kept(bytes.into());
    }

    /// The task was changed now.
    pub(crate) fn touch(&mut self, id: &str, now: Duration) {
        let Some(entry) = self.by_id.get_mut(id) else {
            return;
        };
        self.untouched.remove(&entry.tick);
        self.ticker += 1;
        entry.tick = self.ticker;
        entry.touched = now;
        self.untouched.insert(entry.tick, id.to_owned());
    }

    /// Something has happened that a shared store has to hear of.
    fn note(&mut self, id: &str, event: &Event) {
        if self.is_shared
            && let Some(entry) = self.by_id.get_mut(id)
        {
            entry.trail.add(event);
        }
    }

    /// The record was changed.
    fn change(&mut self, id: &str) {
        if let Some(entry) = self.by_id.get_mut(id) {
            entry.trail.change();
        }
    }

    #[cfg(test)]
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Entry {
    fn record(&self) -> Option<Record> {
        match &self.body {
            Body::Live(live) => Some(live.record.clone()),
            // Written by this process or read at its start.
            Body::Kept(bytes) => Record::decode(bytes.as_ref()).ok(),
        }
    }
}

impl Live {
    fn status_bytes(&self) -> usize {
        let task = self.record.task.as_ref();
        let status = task.and_then(|task| task.status.as_ref());
        status.map_or(0, prost::Message::encoded_len)
    }

    fn publish(&mut self, event: &Event) {
        self.record.apply(event);
        self.followers.retain(|follower| follower.tell(event));
    }
}

/// The result is the first artifact of a finished task, whatever was sent before it.
fn lead_with_result(task: &mut pb::Task) {
    let place = task
        .artifacts
        .iter()
        .position(|artifact| artifact.artifact_id == RESULT);
    if let Some(place) = place
        && let Some(leading) = task.artifacts.get_mut(..=place)
    {
        leading.rotate_right(1);
    }
}
