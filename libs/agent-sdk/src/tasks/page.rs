//! Lists of tasks: which tasks and how many are asked for, newest first, with cursors that stay valid while tasks come and go.
//!
//! A cursor names the last task of a page by its sort key, not by its position, so that an insert shifts nothing; and whose tasks the
//! list has, so that it is good for that caller alone.

use a2a_pb::proto::{self as pb, TaskState};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use muster_api::error::Error;
use muster_api::time;
use tonic::Status;

use super::record::keep_last;
use super::whose::Whose;

/// Place of a task in the list: time of its last status in microseconds, then its id.
pub(super) type Key = (i64, String);

/// Tasks of a page where the caller does not say.
const DEFAULT_SIZE: usize = 50;
/// Most tasks of a page.
const MOST: usize = 100;

/// What a caller asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Query {
    /// Whose tasks.
    pub(super) whose: Whose,
    /// The last task of the page before.
    pub(super) after: Option<Key>,
    /// Most tasks of the page.
    pub(super) size: usize,
    /// Of this context alone; empty for all.
    pub(super) context: String,
    /// In this state alone; `Unspecified` for all.
    pub(super) state: TaskState,
    /// Whose status was set then or later.
    pub(super) newer_than: Option<i64>,
    history_length: Option<i32>,
    has_artifacts: bool,
}

impl Query {
    /// Reads a request for tasks of this caller, or of all.
    pub(super) fn read(request: &pb::ListTasksRequest, whose: Whose) -> Result<Self, Box<Status>> {
        let invalid =
            |field: &str, message: String| Box::new(Status::from(Error::invalid_field(field, message)));
        let after = match request.page_token.as_str() {
            "" => None,
            token => Some(decode(token, &whose).ok_or_else(|| {
                invalid(
                    "page_token",
                    "is not one that this agent made for this caller; start again without a page token"
                        .to_owned(),
                )
            })?),
        };
        let size = size(request.page_size).map_err(|message| invalid("page_size", message))?;
        if request.history_length.is_some_and(i32::is_negative) {
            return Err(invalid("history_length", "is negative".to_owned()));
        }
        let state = TaskState::try_from(request.status)
            .map_err(|_| invalid("status", format!("is {}, which is no state", request.status)))?;
        let newer_than = request
            .status_timestamp_after
            .as_ref()
            .and_then(time::from_proto)
            .map(jiff::Timestamp::as_microsecond);
        Ok(Self {
            whose,
            after,
            size,
            context: request.context_id.clone(),
            state,
            newer_than,
            history_length: request.history_length,
            has_artifacts: request.include_artifacts.unwrap_or(false),
        })
    }

    /// A task as the caller wants to see it.
    pub(super) fn shown(&self, mut task: pb::Task) -> pb::Task {
        if !self.has_artifacts {
            task.artifacts.clear();
        }
        keep_last(&mut task, self.history_length);
        task
    }

    /// The answer; `last` is the last task of the page where there are more.
    pub(super) fn answer(
        &self,
        tasks: Vec<pb::Task>,
        last: Option<&Key>,
        total: usize,
    ) -> pb::ListTasksResponse {
        pb::ListTasksResponse {
            tasks,
            next_page_token: last.map(|last| encode(last, &self.whose)).unwrap_or_default(),
            page_size: i32::try_from(self.size).unwrap_or(i32::MAX),
            total_size: i32::try_from(total).unwrap_or(i32::MAX),
        }
    }
}

/// How many tasks a page has.
fn size(asked: Option<i32>) -> Result<usize, String> {
    match asked {
        None | Some(0) => Ok(DEFAULT_SIZE),
        Some(asked) => match usize::try_from(asked) {
            Ok(size) => Ok(size.min(MOST)),
            Err(_) => Err(format!("is {asked}; 1 to {MOST} are allowed")),
        },
    }
}

/// No task's id and no name of a caller has a space.
fn encode((time, id): &Key, whose: &Whose) -> String {
    URL_SAFE_NO_PAD.encode(format!("{time} {id} {}", whose.name()))
}

fn decode(token: &str, whose: &Whose) -> Option<Key> {
    let text = String::from_utf8(URL_SAFE_NO_PAD.decode(token).ok()?).ok()?;
    let (time, rest) = text.split_once(' ')?;
    let (id, name) = rest.split_once(' ')?;
    (name == whose.name()).then_some((time.parse().ok()?, id.to_owned()))
}
