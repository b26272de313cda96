//! All tasks of one agent process as data: no waiting, no disk.
//!
//! A task that is worked on or followed is *live*: decoded, with those who follow it. Every other one is *kept*: encoded, as
//! it is on disk, so that a bound in bytes is one of memory. Room is made by forgetting the tasks that nobody works on, longest
//! untouched first: those past their retention always, others when a bound is reached. A live task is never forgotten; when only
//! such are left, a new one is refused.
//!
//! Followers get a snapshot and every event after it, in one order for all, because both happen under the table's lock. What is
//! settled is published in two steps: [`Table::settle`] changes the task and says whom to tell, and the caller tells them when
//! it is durable.
//!
//! Where the store is shared ([`shared`]), the table has the tasks that this instance *holds*: those that it works on, changes, or
//! has not written yet. What it does not hold any more it forgets, but for tasks that have ended, which stay as copies as
//! long as there is room: nothing but where they are pushed to can change in them.
//!
//! Rejected: a shared broadcast of bounded length, in which a slow follower loses events of all; one list per task that
//! followers read by index, which has to be kept for the slowest of them.

mod shared;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use a2a_pb::proto::{self as pb, TaskState};
use muster_a2a::ProtocolError;
use muster_api::error::{Error, Reason};
use prost::Message as _;
use prost::bytes::Bytes;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::page::{Key, Query};
use super::record::{Errand, Push, Record, is_settled, is_terminal};
use super::store::Stage;
use super::trail::Trail;
use crate::reply::RESULT;

/// Events that a follower may be behind; more than one execution can have.
const FOLLOWER_EVENTS: usize = 2_048;
/// Most followers of one task.
const MOST_FOLLOWERS: usize = 64;
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
}

struct Entry {
    key: Key,
    state: TaskState,
    context: String,
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

#[derive(Clone)]
struct Sender {
    events: mpsc::Sender<Event>,
    fate: Arc<Fate>,
}

/// A follower's end.
pub(crate) struct Follower {
    pub(crate) events: mpsc::Receiver<Event>,
    pub(crate) fate: Arc<Fate>,
    /// How many events the task had had before.
    pub(crate) seen: u64,
}

/// Why there are no more events.
#[derive(Default)]
pub(crate) struct Fate {
    /// Nobody took them.
    pub(crate) is_overrun: AtomicBool,
    /// The task is another instance's by now, and what was told may not be what has become of it.
    pub(crate) is_lost: AtomicBool,
}

/// What is to be told, and whom, once it is durable.
pub(crate) struct Publication {
    events: Vec<Event>,
    followers: Vec<Sender>,
    waiters: Vec<oneshot::Sender<pb::Task>>,
    pub(crate) task: pb::Task,
    pub(crate) announced: bool,
    /// Of who worked on it.
    pub(crate) work: Option<CancellationToken>,
}

/// What a message to a task that waits for one finds.
pub(crate) struct Resumed {
    /// The task, at work again.
    pub(crate) task: pb::Task,
    /// What was said before, oldest first.
    pub(crate) earlier: Vec<pb::Message>,
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

    fn forget(&mut self, id: &str) {
        if let Some(entry) = self.by_id.remove(id) {
            self.bytes -= entry.size;
            self.by_age.remove(&entry.key);
            self.untouched.remove(&entry.tick);
        }
    }

    /// Takes a task back that could not be made durable before anybody knew of it.
    pub(crate) fn withdraw(&mut self, id: &str) {
        self.forget(id);
        if self.is_shared {
            self.withdrawn.insert(id.to_owned());
        }
    }

    /// Ids to be forgotten on disk, too.
    pub(crate) fn forgotten(&mut self) -> Vec<String> {
        std::mem::take(&mut self.forgotten)
    }

    fn make_room(&mut self, size: usize, now: Duration) -> Result<(), Box<Status>> {
        while let Some((id, touched)) = self.longest_untouched() {
            let expired = now.saturating_sub(touched) >= self.bounds.retention;
            if !expired && self.fits(size) {
                break;
            }
            self.forget(&id);
            if !self.is_shared {
                self.forgotten.push(id);
            }
        }
        if self.fits(size) {
            return Ok(());
        }
        let error = Error::new(
            Reason::AgentBusy,
            format!(
                "{} tasks in work fill the task store ({} tasks, {} bytes)",
                self.by_id.len(),
                self.bounds.tasks,
                self.bounds.bytes
            ),
        );
        Err(Box::new(error.with_retry_after(Duration::from_secs(1)).into()))
    }

    /// The kept task that was touched first. Skips the live ones, which are few.
    fn longest_untouched(&self) -> Option<(String, Duration)> {
        self.untouched
            .values()
            .filter_map(|id| Some((id, self.by_id.get(id)?)))
            .find(|(_, entry)| {
                // What a shared store may not have yet must not be forgotten.
                matches!(entry.body, Body::Kept(_)) && !(self.is_shared && entry.is_held)
            })
            .map(|(id, entry)| (id.clone(), entry.touched))
    }

    fn fits(&self, size: usize) -> bool {
        self.by_id.len() < self.bounds.tasks && self.bytes.saturating_add(size) <= self.bounds.bytes
    }

    /// What is on disk of a task, or is to be; nothing where it is forgotten.
    #[cfg(test)]
    pub(crate) fn encoded(&self, id: &str) -> Option<Vec<u8>> {
        self.by_id.get(id).map(|entry| match &entry.body {
            Body::Kept(bytes) => bytes.to_vec(),
            Body::Live(live) => live.record.encode_to_vec(),
        })
    }

    /// The task as it is now.
    pub(crate) fn find(&self, id: &str) -> Option<pb::Task> {
        self.by_id
            .get(id)
            .and_then(Entry::record)
            .and_then(|record| record.task)
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
        self.note(id, &update);
        self.change(id);
        self.grow(id, grown);
        self.place(id);
        Ok(Resumed { task, earlier })
    }

    /// Something happened while the task is at work. Nothing after its end.
    pub(crate) fn publish(&mut self, id: &str, event: &Event) {
        let Some(entry) = self.by_id.get_mut(id) else {
            return;
        };
        let Body::Live(live) = &mut entry.body else { return };
        if is_settled(entry.state) {
            return;
        }
        live.publish(event);
        self.note(id, event);
        self.grow(id, event.encoded_len());
        self.place(id);
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

    /// A task as it is now and what happens to it from here on.
    pub(crate) fn follow(&mut self, id: &str) -> Result<(pb::Task, Follower), Box<Status>> {
        let state = self.state(id).ok_or_else(|| unknown(id))?;
        check_follow(id, state)?;
        let seen = self.by_id.get(id).map_or(0, |entry| entry.trail.number());
        let live = self.open(id)?;
        live.followers.retain(|follower| !follower.events.is_closed());
        if live.followers.len() >= MOST_FOLLOWERS {
            let error = Error::new(
                Reason::AgentBusy,
                format!("task '{id}' has {MOST_FOLLOWERS} followers, as many as it may"),
            );
            return Err(Box::new(error.with_retry_after(Duration::from_secs(5)).into()));
        }
        let (events, receiver) = mpsc::channel(FOLLOWER_EVENTS);
        let fate = Arc::<Fate>::default();
        live.followers.push(Sender {
            events,
            fate: Arc::clone(&fate),
        });
        live.announced = true;
        let task = live.record.task.clone().unwrap_or_default();
        let follower = Follower {
            events: receiver,
            fate,
            seen,
        };
        Ok((task, follower))
    }

    /// Resolves with the task when nobody works on it any more.
    pub(crate) fn wait(&mut self, id: &str) -> Option<oneshot::Receiver<pb::Task>> {
        let (sender, receiver) = oneshot::channel();
        match &mut self.by_id.get_mut(id)?.body {
            Body::Live(live) if live.work.is_some() => live.waiters.push(sender),
            _ => {
                // The receiver is here, so it hears.
                let _ = sender.send(self.find(id)?);
            }
        }
        Some(receiver)
    }

    /// A follower has left.
    pub(crate) fn unfollow(&mut self, id: &str) {
        if let Some(Body::Live(live)) = self.by_id.get_mut(id).map(|entry| &mut entry.body) {
            live.followers.retain(|follower| !follower.events.is_closed());
            self.rest(id);
        }
    }

    /// Ends every stream: the process ends.
    pub(crate) fn dismiss(&mut self) {
        for entry in self.by_id.values_mut() {
            if let Body::Live(live) = &mut entry.body {
                live.followers.clear();
            }
        }
    }

    /// Says that a caller knows of the task.
    pub(crate) fn announce(&mut self, id: &str) {
        if let Some(Body::Live(live)) = self.by_id.get_mut(id).map(|entry| &mut entry.body) {
            live.announced = true;
        }
    }

    /// A page of tasks.
    pub(crate) fn list(&self, request: &pb::ListTasksRequest) -> Result<pb::ListTasksResponse, Box<Status>> {
        let query = Query::read(request)?;
        let matches = |entry: &Entry| {
            (query.context.is_empty() || query.context == entry.context)
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

    /// Where a task's updates are pushed to.
    pub(crate) fn pushes(&self, id: &str) -> Result<Vec<Push>, Box<Status>> {
        let entry = self.by_id.get(id).ok_or_else(|| unknown(id))?;
        Ok(match &entry.body {
            // Asked for with every event, so that the task itself must not be copied for it.
            Body::Live(live) => live.record.pushes.clone(),
            Body::Kept(_) => entry.record().map(|record| record.pushes).unwrap_or_default(),
        })
    }

    /// Adds or replaces an address by its id.
    pub(crate) fn put_push(
        &mut self,
        id: &str,
        config: pb::TaskPushNotificationConfig,
    ) -> Result<(), Box<Status>> {
        let grown = config.encoded_len();
        let live = self.open(id)?;
        let pushes = &mut live.record.pushes;
        let known = pushes
            .iter()
            .position(|push| push.config.as_ref().is_some_and(|known| known.id == config.id));
        let push = Push {
            config: Some(config),
            owed: false,
        };
        let full = known.is_none() && pushes.len() >= MOST_PUSHES;
        if !full {
            match known.and_then(|place| pushes.get_mut(place)) {
                Some(place) => *place = push,
                None => pushes.push(push),
            }
        }
        live.announced = true;
        self.change(id);
        self.grow(id, grown);
        self.rest(id);
        if full {
            return Err(too_many_pushes());
        }
        Ok(())
    }

    /// Removes an address; none of that id is as good.
    pub(crate) fn remove_push(&mut self, id: &str, config: &str) -> Result<(), Box<Status>> {
        self.change_pushes(id, |pushes| {
            pushes.retain(|push| push.config.as_ref().is_none_or(|known| known.id != config));
        })
    }

    /// All was delivered to an address.
    pub(crate) fn pushed(&mut self, id: &str, config: &str) {
        // A task that is forgotten meanwhile needs no note.
        let _ = self.change_pushes(id, |pushes| {
            for push in pushes {
                if push.config.as_ref().is_some_and(|known| known.id == config) {
                    push.owed = false;
                }
            }
        });
    }

    fn change_pushes(&mut self, id: &str, change: impl FnOnce(&mut Vec<Push>)) -> Result<(), Box<Status>> {
        let live = self.open(id)?;
        change(&mut live.record.pushes);
        self.change(id);
        self.rest(id);
        Ok(())
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
    fn publish(&mut self, event: &Event) {
        self.record.apply(event);
        self.followers.retain(|follower| follower.tell(event));
    }
}

impl Sender {
    /// Whether the follower is still there.
    fn tell(&self, event: &Event) -> bool {
        match self.events.try_send(Arc::clone(event)) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Closed(_)) => false,
            Err(mpsc::error::TrySendError::Full(_)) => {
                self.fate.is_overrun.store(true, Ordering::Relaxed);
                false
            }
        }
    }
}

impl Publication {
    /// Tells everybody.
    pub(crate) fn tell(self) {
        for follower in &self.followers {
            for event in &self.events {
                if !follower.tell(event) {
                    break;
                }
            }
        }
        for waiter in self.waiters {
            // Who does not wait any more needs not hear.
            let _ = waiter.send(self.task.clone());
        }
    }

    /// What is told.
    pub(crate) fn events(&self) -> &[Event] {
        &self.events
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

pub(crate) fn unknown(id: &str) -> Box<Status> {
    let shown: String = id.chars().take(64).collect();
    Box::new(ProtocolError::TaskNotFound.status(format!("this agent knows no task '{shown}'")))
}

/// Whether a message to a task is taken.
pub(super) fn check_message(
    id: &str,
    said: &str,
    context: &str,
    state: TaskState,
    is_at_work: bool,
) -> Result<(), Box<Status>> {
    if !said.is_empty() && said != context {
        let message = format!(
            "is '{said}', but the task belongs to '{context}'; leave it out, or send what the task says"
        );
        return Err(Box::new(
            Error::invalid_field("message.context_id", message).into(),
        ));
    }
    if is_terminal(state) {
        Err(unsupported(format!(
            "task '{id}' has ended as {}; start a new one",
            state.as_str_name()
        )))
    } else if is_at_work {
        Err(at_work(id))
    } else {
        Ok(())
    }
}

/// A task takes no message now.
pub(super) fn at_work(id: &str) -> Box<Status> {
    unsupported(format!(
        "task '{id}' is at work and takes no message before it asks for one"
    ))
}

/// Whether a task in this state can be followed.
pub(super) fn check_follow(id: &str, state: TaskState) -> Result<(), Box<Status>> {
    if is_terminal(state) {
        return Err(unsupported(format!(
            "task '{id}' has ended as {}; read it with GetTask",
            state.as_str_name()
        )));
    }
    Ok(())
}

/// What cancelling a task in this state comes to: whether it is cancelled already.
pub(super) fn check_cancel(id: &str, state: TaskState) -> Result<bool, Box<Status>> {
    match state {
        TaskState::Canceled => Ok(true),
        ended if is_terminal(ended) => Err(Box::new(
            ProtocolError::TaskNotCancelable
                .status(format!("task '{id}' has ended as {}", ended.as_str_name())),
        )),
        _ => Ok(false),
    }
}

/// Whether an address of this id can be added to these.
pub(super) fn check_pushes(pushes: &[Push], id: &str) -> Result<(), Box<Status>> {
    let is_known = pushes
        .iter()
        .any(|push| push.config.as_ref().is_some_and(|known| known.id == id));
    if !is_known && pushes.len() >= MOST_PUSHES {
        return Err(too_many_pushes());
    }
    Ok(())
}

fn too_many_pushes() -> Box<Status> {
    let message = format!("the task has {MOST_PUSHES} of them, as many as it may; delete one");
    Box::new(Error::invalid_field("id", message).into())
}

fn unsupported(message: String) -> Box<Status> {
    Box::new(ProtocolError::UnsupportedOperation.status(message))
}

fn damaged(id: &str, error: &prost::DecodeError) -> Box<Status> {
    let error = Error::new(
        Reason::StoreUnavailable,
        format!("what is stored of task '{id}' is damaged: {error}"),
    );
    Box::new(error.into())
}
