//! What readers are told of a journal's entry: its outline, and everything as JSON.

use jiff::Timestamp;
use serde::Deserialize;

use crate::error::Error;
use crate::run::Entry;
use crate::store;

/// An entry for readers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) time: Timestamp,
    /// Such as `task.completed`.
    pub(crate) kind: String,
    /// JSON pointer of the task; empty for the run itself.
    pub(crate) task: String,
    /// Everything, as JSON.
    pub(crate) data: String,
}

/// What all events have.
#[derive(Deserialize)]
struct Outline {
    time: Timestamp,
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    task: String,
}

/// Reads an entry for readers. Only the outline is parsed: they may be many and large.
pub(crate) fn line(entry: Entry) -> Result<Line, Error> {
    let index = entry.index;
    let damaged = |what: String| {
        Error::Store(store::Error::Damaged(format!(
            "entry {index} of the journal: {what}"
        )))
    };
    let data = String::from_utf8(entry.bytes).map_err(|error| damaged(error.to_string()))?;
    let Outline { time, kind, task } =
        serde_json::from_str(&data).map_err(|error| damaged(error.to_string()))?;
    Ok(Line {
        time,
        kind,
        task,
        data,
    })
}
