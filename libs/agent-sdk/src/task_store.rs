//! The tasks that clients can still ask about: in memory, bounded in number and in bytes.
//!
//! The official store keeps everything for ever, in the order of ids. This one keeps its semantics (versions, a
//! terminal state never changes, cancelling is atomic) and adds what A2A asks of ListTasks: newest first, with
//! cursors that stay valid while tasks come and go. Room is made by forgetting the tasks that nobody works on,
//! longest untouched first: those past their retention always, others when a bound is reached. A task in work is
//! never forgotten; when only such are left, a new task is refused.
//!
//! A cursor names the last task of a page by its sort key, not by its position, so that an insert shifts nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use a2a::{A2AError, ListTasksRequest, ListTasksResponse, Task, TaskState};
use a2a_server::TaskStore as Official;
use a2a_server::pagination::resolve_page_size;
use a2a_server::task_store::TaskVersion;
use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use muster_api::error::{Error, Reason};
use muster_runtime::clock::SharedClock;
use parking_lot::Mutex;

use crate::{refusal, reply::RESULT, size};

/// What a store may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bounds {
    pub(crate) tasks: usize,
    pub(crate) bytes: usize,
    /// How long a task that nobody works on is kept.
    pub(crate) retention: Duration,
}

/// All tasks of one agent process.
#[derive(Clone)]
pub(crate) struct TaskStore {
    bounds: Bounds,
    clock: SharedClock,
    tasks: Arc<Mutex<Tasks>>,
}

#[derive(Default)]
struct Tasks {
    by_id: HashMap<String, Entry>,
    /// Sort key of the list: time of the last status, then id.
    by_age: BTreeSet<(i64, String)>,
    /// By last touch; the ticker makes keys unique.
    untouched: BTreeMap<u64, String>,
    ticker: u64,
    bytes: usize,
}

struct Entry {
    task: Task,
    version: TaskVersion,
    size: usize,
    tick: u64,
    touched: Duration,
}

impl TaskStore {
    pub(crate) fn new(bounds: Bounds, clock: SharedClock) -> Self {
        Self {
            bounds,
            clock,
            tasks: Arc::default(),
        }
    }

    /// The task as it is now.
    pub(crate) fn find(&self, task_id: &str) -> Option<Task> {
        self.tasks
            .lock()
            .by_id
            .get(task_id)
            .map(|entry| entry.task.clone())
    }

    /// The state of a task.
    pub(crate) fn state(&self, task_id: &str) -> Option<TaskState> {
        self.tasks
            .lock()
            .by_id
            .get(task_id)
            .map(|entry| entry.task.status.state.clone())
    }
}

#[async_trait]
impl Official for TaskStore {
    async fn create(&self, task: Task) -> Result<TaskVersion, A2AError> {
        let now = self.clock.monotonic();
        let mut tasks = self.tasks.lock();
        if tasks.by_id.contains_key(&task.id) {
            return Err(A2AError::invalid_request(format!(
                "task {} exists already",
                task.id
            )));
        }
        tasks.make_room(&self.bounds, size::task(&task), now)?;
        tasks.put(task, 1, now);
        Ok(1)
    }

    async fn update(&self, mut task: Task) -> Result<TaskVersion, A2AError> {
        let now = self.clock.monotonic();
        let mut tasks = self.tasks.lock();
        let Some(entry) = tasks.by_id.get(&task.id) else {
            return Err(A2AError::task_not_found(&task.id));
        };
        let state = &entry.task.status.state;
        if state.is_terminal() && *state != task.status.state {
            return Err(A2AError::invalid_request(format!(
                "task {} has ended as {state:?} and cannot become {:?}",
                task.id, task.status.state
            )));
        }
        let version = entry.version + 1;
        lead_with_result(&mut task);
        tasks.put(task, version, now);
        Ok(version)
    }

    async fn begin_cancel(&self, task_id: &str) -> Result<Task, A2AError> {
        let now = self.clock.monotonic();
        let timestamp = timestamp(self.clock.now());
        let mut tasks = self.tasks.lock();
        let Some(entry) = tasks.by_id.get(task_id) else {
            return Err(A2AError::task_not_found(task_id));
        };
        if entry.task.status.state.is_terminal() {
            return Err(A2AError::task_not_cancelable(task_id));
        }
        let version = entry.version + 1;
        let mut task = entry.task.clone();
        task.status.state = TaskState::Canceled;
        task.status.timestamp = timestamp;
        tasks.put(task.clone(), version, now);
        Ok(task)
    }

    async fn get(&self, task_id: &str) -> Result<Option<Task>, A2AError> {
        Ok(self.find(task_id))
    }

    async fn list(&self, request: &ListTasksRequest) -> Result<ListTasksResponse, A2AError> {
        let after = match request.page_token.as_deref() {
            None | Some("") => None,
            Some(token) => Some(decode(token).ok_or_else(invalid_token)?),
        };
        let page_size = resolve_page_size(request.page_size);
        let tasks = self.tasks.lock();
        let matching = || {
            tasks
                .by_age
                .iter()
                .rev()
                .filter_map(|key| Some((key, &tasks.by_id.get(&key.1)?.task)))
                .filter(|(_, task)| matches(request, task))
        };
        let total = matching().count();
        let mut page = matching()
            .filter(|(key, _)| after.as_ref().is_none_or(|cursor| *key < cursor))
            .peekable();
        let mut found = Vec::new();
        let mut last = None;
        while found.len() < page_size
            && let Some((key, task)) = page.next()
        {
            found.push(for_list(request, task));
            last = Some(key);
        }
        let more = page.peek().is_some();
        Ok(ListTasksResponse {
            tasks: found,
            next_page_token: last.filter(|_| more).map(encode).unwrap_or_default(),
            page_size: i32::try_from(page_size).unwrap_or(i32::MAX),
            total_size: i32::try_from(total).unwrap_or(i32::MAX),
        })
    }
}

impl Tasks {
    /// Inserts or replaces; the newest touch is now.
    fn put(&mut self, task: Task, version: TaskVersion, now: Duration) {
        self.forget(&task.id.clone());
        let size = size::task(&task);
        self.bytes += size;
        self.ticker += 1;
        self.by_age.insert(sort_key(&task));
        self.untouched.insert(self.ticker, task.id.clone());
        let entry = Entry {
            version,
            size,
            tick: self.ticker,
            touched: now,
            task,
        };
        self.by_id.insert(entry.task.id.clone(), entry);
    }

    fn forget(&mut self, task_id: &str) {
        if let Some(entry) = self.by_id.remove(task_id) {
            self.bytes -= entry.size;
            self.by_age.remove(&sort_key(&entry.task));
            self.untouched.remove(&entry.tick);
        }
    }

    fn make_room(&mut self, bounds: &Bounds, size: usize, now: Duration) -> Result<(), A2AError> {
        while let Some((id, touched)) = self.longest_untouched() {
            let expired = now.saturating_sub(touched) >= bounds.retention;
            if !expired && self.fits(bounds, size) {
                break;
            }
            self.forget(&id);
        }
        if self.fits(bounds, size) {
            return Ok(());
        }
        let error = Error::new(
            Reason::AgentBusy,
            format!(
                "{} tasks in work fill the task store ({} tasks, {} bytes)",
                self.by_id.len(),
                bounds.tasks,
                bounds.bytes
            ),
        );
        Err(refusal::to_a2a(&error.with_retry_after(Duration::from_secs(1))))
    }

    /// The task that nobody works on and that was touched first. Skips the tasks in work, which are few.
    fn longest_untouched(&self) -> Option<(String, Duration)> {
        self.untouched
            .values()
            .filter_map(|id| self.by_id.get(id))
            .find(|entry| is_settled(&entry.task.status.state))
            .map(|entry| (entry.task.id.clone(), entry.touched))
    }

    fn fits(&self, bounds: &Bounds, size: usize) -> bool {
        self.by_id.len() < bounds.tasks && self.bytes.saturating_add(size) <= bounds.bytes
    }
}

/// Whether nobody works on a task in this state: it has ended or waits for its caller.
pub(crate) fn is_settled(state: &TaskState) -> bool {
    state.is_terminal() || matches!(state, TaskState::InputRequired | TaskState::AuthRequired)
}

/// A time of our clock as the official types have it.
pub(crate) fn timestamp(time: jiff::Timestamp) -> Option<DateTime<Utc>> {
    let nanoseconds = u32::try_from(time.subsec_nanosecond()).unwrap_or(0);
    DateTime::from_timestamp(time.as_second(), nanoseconds)
}

/// Cuts a history to its last messages; no number keeps all.
pub(crate) fn keep_last(task: &mut Task, length: Option<i32>) {
    if let (Some(length), Some(history)) = (length, &mut task.history) {
        let keep = usize::try_from(length).unwrap_or(0);
        history.drain(..history.len().saturating_sub(keep));
    }
}

/// The result is the first artifact of a finished task, whatever was sent before it.
fn lead_with_result(task: &mut Task) {
    if let Some(artifacts) = &mut task.artifacts
        && let Some(place) = artifacts
            .iter()
            .position(|artifact| artifact.artifact_id == RESULT)
        && let Some(leading) = artifacts.get_mut(..=place)
    {
        leading.rotate_right(1);
    }
}

fn sort_key(task: &Task) -> (i64, String) {
    let time = task.status.timestamp.map_or(0, |time| time.timestamp_micros());
    (time, task.id.clone())
}

fn matches(request: &ListTasksRequest, task: &Task) -> bool {
    let newer = |after: DateTime<Utc>| task.status.timestamp.is_some_and(|time| time > after);
    request
        .context_id
        .as_ref()
        .is_none_or(|context| context.is_empty() || *context == task.context_id)
        && request
            .status
            .as_ref()
            .is_none_or(|state| *state == TaskState::Unspecified || *state == task.status.state)
        && request.status_timestamp_after.is_none_or(newer)
}

/// A task as a list shows it: artifacts on request only, the last messages of the history if a number is given.
fn for_list(request: &ListTasksRequest, task: &Task) -> Task {
    let mut task = task.clone();
    if !request.include_artifacts.unwrap_or(false) {
        task.artifacts = None;
    }
    keep_last(&mut task, request.history_length);
    task
}

fn encode((time, id): &(i64, String)) -> String {
    URL_SAFE_NO_PAD.encode(format!("{time} {id}"))
}

fn decode(token: &str) -> Option<(i64, String)> {
    let text = String::from_utf8(URL_SAFE_NO_PAD.decode(token).ok()?).ok()?;
    let (time, id) = text.split_once(' ')?;
    Some((time.parse().ok()?, id.to_owned()))
}

fn invalid_token() -> A2AError {
    refusal::invalid_field(
        "page_token",
        "is not one that this agent made; start again without a page token",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use a2a::{Artifact, Message, Part, Role, TaskStatus};
    use muster_runtime::clock::ManualClock;

    fn task(id: &str, state: TaskState, second: i64) -> Task {
        Task {
            id: id.to_owned(),
            context_id: "c".to_owned(),
            status: TaskStatus {
                state,
                message: None,
                timestamp: DateTime::from_timestamp(second, 0),
            },
            artifacts: None,
            history: Some(vec![Message::new(Role::User, vec![Part::text("hi")])]),
            metadata: None,
        }
    }

    fn store(tasks: usize) -> (TaskStore, Arc<ManualClock>) {
        let clock = Arc::new(ManualClock::default());
        let bounds = Bounds {
            tasks,
            bytes: 100_000,
            retention: Duration::from_secs(3600),
        };
        (TaskStore::new(bounds, clock.clone()), clock)
    }

    fn request() -> ListTasksRequest {
        ListTasksRequest {
            context_id: None,
            status: None,
            page_size: None,
            page_token: None,
            history_length: None,
            status_timestamp_after: None,
            include_artifacts: None,
            tenant: None,
        }
    }

    fn ids(response: &ListTasksResponse) -> Vec<&str> {
        response.tasks.iter().map(|task| task.id.as_str()).collect()
    }

    #[tokio::test]
    async fn pages_are_newest_first_and_stable_under_inserts() {
        let (store, _clock) = store(100);
        for second in 1..=5 {
            let task = task(&format!("t{second}"), TaskState::Completed, second);
            store.create(task).await.unwrap();
        }
        let first = ListTasksRequest {
            page_size: Some(2),
            ..request()
        };
        let page = store.list(&first).await.unwrap();
        assert_eq!(ids(&page), ["t5", "t4"]);
        assert_eq!(page.total_size, 5);

        store.create(task("t9", TaskState::Completed, 9)).await.unwrap();
        let second = ListTasksRequest {
            page_token: Some(page.next_page_token),
            ..first.clone()
        };
        let page = store.list(&second).await.unwrap();
        assert_eq!(ids(&page), ["t3", "t2"]);
        let third = ListTasksRequest {
            page_token: Some(page.next_page_token),
            ..first
        };
        let page = store.list(&third).await.unwrap();
        assert_eq!(ids(&page), ["t1"]);
        assert_eq!(page.next_page_token, "");
    }

    #[tokio::test]
    async fn a_foreign_page_token_is_refused() {
        let (store, _clock) = store(10);
        let request = ListTasksRequest {
            page_token: Some("7".to_owned()),
            ..request()
        };
        assert_eq!(
            store.list(&request).await.unwrap_err().code,
            a2a::error_code::INVALID_PARAMS
        );
    }

    #[tokio::test]
    async fn room_is_made_by_the_longest_untouched_finished_task() {
        let (store, _clock) = store(2);
        store
            .create(task("working", TaskState::Working, 1))
            .await
            .unwrap();
        store.create(task("done", TaskState::Completed, 2)).await.unwrap();
        store.create(task("new", TaskState::Working, 3)).await.unwrap();
        assert!(store.find("done").is_none());
        assert!(store.find("working").is_some());
        let refused = store
            .create(task("more", TaskState::Working, 4))
            .await
            .unwrap_err();
        assert_eq!(refusal::from_a2a(&refused).unwrap().reason, Reason::AgentBusy);
    }

    #[tokio::test]
    async fn retention_ends_what_has_ended() {
        let (store, clock) = store(100);
        store.create(task("done", TaskState::Completed, 1)).await.unwrap();
        clock.advance(Duration::from_secs(3600));
        store.create(task("new", TaskState::Working, 2)).await.unwrap();
        assert!(store.find("done").is_none());
    }

    #[tokio::test]
    async fn bytes_are_bounded_and_given_back() {
        let (store, _clock) = store(100);
        let mut large = task("large", TaskState::Completed, 1);
        large.history = Some(vec![Message::new(Role::User, vec![Part::raw(vec![0; 90_000])])]);
        store.create(large.clone()).await.unwrap();
        large.id = "other".to_owned();
        store.create(large.clone()).await.unwrap();
        assert!(store.find("large").is_none());
        large.id = "huge".to_owned();
        large.history = Some(vec![Message::new(Role::User, vec![Part::raw(vec![0; 200_000])])]);
        assert!(store.create(large).await.is_err());
        assert_eq!(store.tasks.lock().bytes, 0);
    }

    #[tokio::test]
    async fn an_end_is_final_and_cancelling_is_atomic() {
        let (store, _clock) = store(10);
        store.create(task("t", TaskState::Working, 1)).await.unwrap();
        let cancelled = store.begin_cancel("t").await.unwrap();
        assert_eq!(cancelled.status.state, TaskState::Canceled);
        assert!(store.begin_cancel("t").await.is_err());
        assert!(store.update(task("t", TaskState::Completed, 2)).await.is_err());
        assert_eq!(store.update(task("t", TaskState::Canceled, 2)).await.unwrap(), 3);
    }

    #[tokio::test]
    async fn the_result_leads_the_artifacts() {
        let (store, _clock) = store(10);
        let mut with = task("t", TaskState::Working, 1);
        store.create(with.clone()).await.unwrap();
        let artifact = |id: &str| Artifact {
            artifact_id: id.to_owned(),
            name: None,
            description: None,
            parts: Vec::new(),
            metadata: None,
            extensions: None,
        };
        with.artifacts = Some(vec![artifact("chart"), artifact("log"), artifact(RESULT)]);
        store.update(with).await.unwrap();
        let stored = store.find("t").unwrap().artifacts.unwrap();
        let order: Vec<_> = stored
            .iter()
            .map(|artifact| artifact.artifact_id.as_str())
            .collect();
        assert_eq!(order, [RESULT, "chart", "log"]);
    }
}
