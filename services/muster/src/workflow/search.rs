//! Which runs: the options of every command that searches.

use clap::Args;
use jiff::{SignedDuration, Timestamp};
use muster_api::workflow::{ListRunsRequest, RunStatus};
use muster_runtime::clock::{Clock as _, SystemClock};

use super::StatusFilter;
use crate::failure::Failure;

/// Criteria; a run must fit all of them.
#[derive(Debug, Clone, Default, Args)]
pub struct Search {
    /// Only runs of this status; may be repeated.
    #[arg(long, value_enum)]
    pub status: Vec<StatusFilter>,
    /// Only runs of this namespace.
    #[arg(long)]
    pub namespace: Option<String>,
    /// Only runs of this workflow.
    #[arg(long)]
    pub name: Option<String>,
    /// Only runs of this version of their workflow.
    #[arg(long = "workflow-version", value_name = "VERSION")]
    pub workflow_version: Option<String>,
    /// Only runs with this label: `KEY=VALUE`, or `KEY` for any value; may be repeated.
    #[arg(long, value_name = "KEY[=VALUE]")]
    pub label: Vec<String>,
    /// Only runs that failed with an error of this type: its URI, or the last part, such as `timeout`.
    #[arg(long, value_name = "TYPE")]
    pub error_type: Option<String>,
    /// Only runs accepted since then: a time (RFC 3339), or how long ago (`30m`, `2h`).
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// Only runs accepted before then.
    #[arg(long, value_name = "TIME")]
    pub before: Option<String>,
    /// Only runs that ended since then.
    #[arg(long, value_name = "TIME")]
    pub ended_since: Option<String>,
    /// Only runs that ended before then.
    #[arg(long, value_name = "TIME")]
    pub ended_before: Option<String>,
}

impl Search {
    /// The search as a request, of which page and size are to be set.
    pub fn request(self) -> Result<ListRunsRequest, Failure> {
        let time = |option: &str, text: Option<String>| {
            text.map(|text| instant(option, &text, SystemClock::default().now()))
                .transpose()
        };
        Ok(ListRunsRequest {
            statuses: self
                .status
                .iter()
                .map(|&status| RunStatus::from(status).into())
                .collect(),
            namespace: self.namespace.unwrap_or_default(),
            name: self.name.unwrap_or_default(),
            version: self.workflow_version.unwrap_or_default(),
            labels: self.label,
            error_type: self.error_type.unwrap_or_default(),
            created_after: time("--since", self.since)?,
            created_before: time("--before", self.before)?,
            ended_after: time("--ended-since", self.ended_since)?,
            ended_before: time("--ended-before", self.ended_before)?,
            ..ListRunsRequest::default()
        })
    }
}

/// An instant, or how long before `now`.
fn instant(option: &str, text: &str, now: Timestamp) -> Result<prost_types::Timestamp, Failure> {
    let ago = || {
        let ago: SignedDuration = text.parse().ok()?;
        now.checked_sub(ago).ok()
    };
    let time = text.parse::<Timestamp>().ok().or_else(ago);
    time.map(muster_api::time::to_proto).ok_or_else(|| {
        Failure::usage(format!(
            "{option}: '{text}' is neither a time such as 2026-03-01T12:00:00Z nor a duration such as 30m or 2h"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_instants_or_ages() {
        let now = Timestamp::from_second(10_000).unwrap();
        let seconds = |text| instant("--since", text, now).unwrap().seconds;
        assert_eq!(seconds("1970-01-01T00:01:00Z"), 60);
        assert_eq!(seconds("30m"), 10_000 - 1_800);
        assert_eq!(seconds("PT2H"), 10_000 - 7_200);
        assert!(instant("--since", "yesterday", now).is_err());
    }
}
