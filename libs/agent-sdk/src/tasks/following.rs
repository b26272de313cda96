//! A task's events for somebody who follows it: as they happen where the task is here, read from the store where it is elsewhere.
//!
//! Events have numbers. A stream that begins here and whose task goes to another instance goes on at the store with the event
//! after the last one that it gave, so that its caller notices nothing. Where this instance has lost the task without knowing, what
//! it told last may not be what has become of it; then the stream goes on with the task as it is.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use a2a_pb::proto::{self as pb, TaskState};
use futures::StreamExt as _;
use muster_a2a::Events;
use muster_api::error::{Error, Reason};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;

use super::elsewhere::{LONGEST, SHORTEST};
use super::record::{is_settled, is_terminal};
use super::store::Store as _;
use super::table::{self, Follower};
use super::{Shared, Tasks};

/// Most streams of tasks of other instances.
const MOST_ELSEWHERE: usize = 256;

/// When a stream of events ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Until {
    /// Nobody works on the task any more.
    Settled,
    /// The task has ended.
    Ended,
}

/// Places for those who follow tasks of other instances.
pub(super) fn places() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(MOST_ELSEWHERE))
}

impl Tasks {
    /// A task as it is now, and what happens to it from here on.
    pub(super) async fn follow(&self, id: &str, until: Until) -> Result<Events, Status> {
        let here = self.openly(id, |table| {
            let is_here = self.shared.is_none() || table.holds(id);
            is_here.then(|| table.follow(id))
        });
        let here = here.await?;
        let (task, source) = match (here, &self.shared) {
            (None, Some(shared)) => {
                let stored = shared.redis.read(id).await?;
                let stored = stored.ok_or_else(|| *table::unknown(id))?;
                table::check_follow(id, stored.record.state()).map_err(|status| *status)?;
                let polling = Polling::begin(shared, stored.number, false)?;
                (stored.record.task.unwrap_or_default(), Source::Elsewhere(polling))
            }
            (Some(followed), _) => {
                let (task, follower) = followed.map_err(|status| *status)?;
                (task, Source::Here(follower))
            }
            (None, None) => return Err(*table::unknown(id)),
        };
        let first = snapshot(task);
        let is_over = is_last(&first, until);
        let following = Following {
            tasks: self.clone(),
            id: id.to_owned(),
            source,
            until,
        };
        let following = Some(following).filter(|_| !is_over);
        let events = futures::stream::unfold(following, |following| async {
            let mut following = following?;
            let event = following.next().await?;
            let goes_on = event.is_ok() && !matches!(following.source, Source::Over);
            Some((event, goes_on.then_some(following)))
        });
        Ok(futures::stream::iter([Ok(first)]).chain(events).boxed())
    }
}

/// A stream's end at the agent.
struct Following {
    tasks: Tasks,
    id: String,
    source: Source,
    until: Until,
}

/// Where the next event comes from.
enum Source {
    Here(Follower),
    Elsewhere(Polling),
    /// The last event was given.
    Over,
}

/// A look at the store, again and again.
struct Polling {
    shared: Shared,
    /// The number of the last event that was given.
    seen: u64,
    /// Whether what was given may not be true.
    is_lost: bool,
    /// Read, and not given yet.
    waiting: VecDeque<pb::StreamResponse>,
    pause: Duration,
    _place: OwnedSemaphorePermit,
}

/// What a look comes to.
enum Look {
    Event(Box<pb::StreamResponse>),
    Over,
    Later,
}

impl Following {
    async fn next(&mut self) -> Option<Result<pb::StreamResponse, Status>> {
        loop {
            let event = match &mut self.source {
                Source::Over => return None,
                Source::Here(follower) => match follower.events.recv().await {
                    Some(event) => {
                        follower.seen += 1;
                        pb::StreamResponse::clone(&event)
                    }
                    None => match self.go_on() {
                        Ok(true) => continue,
                        Ok(false) => return None,
                        Err(status) => return Some(Err(status)),
                    },
                },
                Source::Elsewhere(polling) => {
                    let look = tokio::select! {
                        look = polling.look(&self.id, self.until) => look,
                        () = self.tasks.closing.cancelled() => Err(shuts_down()),
                    };
                    match look {
                        Ok(Look::Event(event)) => *event,
                        Ok(Look::Later) => continue,
                        Ok(Look::Over) => return None,
                        Err(status) => return Some(Err(status)),
                    }
                }
            };
            if is_last(&event, self.until) {
                self.leave();
            }
            return Some(Ok(event));
        }
    }

    /// Goes on at the store where no more events come from here, if there is more to come.
    fn go_on(&mut self) -> Result<bool, Status> {
        let Source::Here(follower) = &self.source else {
            return Ok(false);
        };
        if follower.fate.is_overrun.load(Ordering::Relaxed) {
            return Err(overrun(&self.id));
        }
        if self.tasks.closing.is_cancelled() {
            return Err(shuts_down());
        }
        let Some(shared) = &self.tasks.shared else {
            return Ok(false);
        };
        let is_lost = follower.fate.is_lost.load(Ordering::Relaxed);
        self.source = Source::Elsewhere(Polling::begin(shared, follower.seen, is_lost)?);
        Ok(true)
    }

    fn leave(&mut self) {
        if matches!(std::mem::replace(&mut self.source, Source::Over), Source::Here(_)) {
            self.tasks.table.lock().unfollow(&self.id);
        }
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        self.leave();
    }
}

impl Polling {
    /// From the event after this one.
    fn begin(shared: &Shared, seen: u64, is_lost: bool) -> Result<Self, Status> {
        let place = Arc::clone(&shared.followers).try_acquire_owned().map_err(|_| {
            let error = Error::new(
                Reason::AgentBusy,
                format!("{MOST_ELSEWHERE} streams follow tasks of other instances, as many as may; ask their instances"),
            );
            Status::from(error.with_retry_after(Duration::from_secs(5)))
        })?;
        Ok(Self {
            shared: shared.clone(),
            seen,
            is_lost,
            waiting: VecDeque::new(),
            pause: SHORTEST,
            _place: place,
        })
    }

    async fn look(&mut self, id: &str, until: Until) -> Result<Look, Status> {
        if let Some(event) = self.waiting.pop_front() {
            self.seen += 1;
            return Ok(Look::Event(Box::new(event)));
        }
        let redis = &self.shared.redis;
        if self.is_lost {
            let stored = redis.read(id).await?;
            let stored = stored.ok_or_else(|| *table::unknown(id))?;
            self.is_lost = false;
            self.seen = stored.number;
            let task = stored.record.task.unwrap_or_default();
            return Ok(Look::Event(Box::new(snapshot(task))));
        }
        let news = redis.news(id, self.seen).await?;
        let news = news.ok_or_else(|| *table::unknown(id))?;
        if news.number < self.seen {
            self.is_lost = true;
            return Ok(Look::Later);
        }
        if news.number == self.seen {
            if is_over(news.state, until) {
                return Ok(Look::Over);
            }
            tokio::time::sleep(self.pause).await;
            self.pause = (self.pause * 2).min(LONGEST);
            return Ok(Look::Later);
        }
        self.pause = SHORTEST;
        for (number, event) in (self.seen + 1..).zip(news.events) {
            if event.0 != number {
                break;
            }
            self.waiting.push_back(event.1);
        }
        if self.waiting.is_empty() {
            return Err(overrun(id));
        }
        Ok(Look::Later)
    }
}

fn snapshot(task: pb::Task) -> pb::StreamResponse {
    pb::StreamResponse {
        payload: Some(pb::stream_response::Payload::Task(task)),
    }
}

fn is_last(event: &pb::StreamResponse, until: Until) -> bool {
    use pb::stream_response::Payload;
    let status = match &event.payload {
        Some(Payload::StatusUpdate(update)) => update.status.as_ref(),
        Some(Payload::Task(task)) => task.status.as_ref(),
        Some(Payload::ArtifactUpdate(_) | Payload::Message(_)) | None => return false,
    };
    is_over(
        status.map_or(TaskState::Unspecified, pb::TaskStatus::state),
        until,
    )
}

const fn is_over(state: TaskState, until: Until) -> bool {
    match until {
        Until::Settled => is_settled(state),
        Until::Ended => is_terminal(state),
    }
}

fn overrun(id: &str) -> Status {
    Error::new(
        Reason::WatchOverrun,
        format!("the stream of task '{id}' was not read for too long"),
    )
    .into()
}

fn shuts_down() -> Status {
    Error::new(Reason::ShuttingDown, "the agent shuts down; subscribe again")
        .with_retry_after(Duration::from_secs(1))
        .into()
}
