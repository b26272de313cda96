//! Between the wire's types and ours, for searches and for what is done to runs.

use jiff::Timestamp;
use muster_api::error::Error as ApiError;
use muster_api::time::from_proto;
use muster_api::workflow as proto;
use muster_runtime::trust::Access;

use super::convert;
use crate::again::ForkRun;
use crate::bulk::{Action, Bulk, Outcome};
use crate::controls::Wish;
use crate::error::Error;
use crate::labels;
use crate::run::{Compensation, InvalidId, RunId, Status};
use crate::store::{Filter, Span};

/// The search, its page size and its token.
pub(super) fn search(request: proto::ListRunsRequest) -> Result<(Filter, u32, String), Error> {
    let proto::ListRunsRequest {
        statuses,
        name,
        page_size,
        page_token,
        namespace,
        version,
        labels,
        error_type,
        created_after,
        created_before,
        ended_after,
        ended_before,
    } = request;
    let given = |text: String| (!text.is_empty()).then_some(text);
    let filter = Filter {
        statuses: self::statuses(&statuses)?,
        name: given(name),
        namespace: given(namespace),
        version: given(version),
        labels: labels
            .iter()
            .map(|label| labels::selector(label))
            .collect::<Result<_, _>>()?,
        error_type: given(error_type),
        caller: None,
        created: Span {
            from: time("created_after", created_after)?,
            to: time("created_before", created_before)?,
        },
        ended: Span {
            from: time("ended_after", ended_after)?,
            to: time("ended_before", ended_before)?,
        },
    };
    Ok((filter, page_size, page_token))
}

/// The same search among the runs that the caller may see.
pub(super) fn only_own(filter: Filter, access: &Access) -> Filter {
    if access.sees_all() {
        return filter;
    }
    Filter {
        caller: Some(access.caller().key().as_ref().to_owned()),
        ..filter
    }
}

fn time(field: &'static str, time: Option<prost_types::Timestamp>) -> Result<Option<Timestamp>, Error> {
    time.map(|time| from_proto(&time).ok_or_else(|| Error::field(field, "is no time")))
        .transpose()
}

/// None, where any is meant.
pub(super) fn statuses(numbers: &[i32]) -> Result<Vec<Status>, Error> {
    let mut statuses = Vec::new();
    for number in numbers {
        let unknown = || Error::field("statuses", format!("{number} is not a RunStatus; use 1 to 7"));
        statuses.push(
            match proto::RunStatus::try_from(*number).map_err(|_| unknown())? {
                // As if no status were named.
                proto::RunStatus::Unspecified => return Ok(Vec::new()),
                proto::RunStatus::Pending => Status::Pending,
                proto::RunStatus::Running => Status::Running,
                proto::RunStatus::Waiting => Status::Waiting,
                proto::RunStatus::Completed => Status::Completed,
                proto::RunStatus::Faulted => Status::Faulted,
                proto::RunStatus::Cancelled => Status::Cancelled,
                proto::RunStatus::Paused => Status::Paused,
            },
        );
    }
    Ok(statuses)
}

pub(super) fn fork(request: proto::ForkRunRequest, most_bytes: usize) -> Result<ForkRun, Error> {
    let proto::ForkRunRequest {
        run_id,
        from,
        new_run_id,
        input_json,
        by,
    } = request;
    let given = !input_json.is_empty();
    Ok(ForkRun {
        source: convert::run_id(&run_id)?,
        from,
        id: (!new_run_id.is_empty())
            .then(|| self::new_run_id(&new_run_id))
            .transpose()?,
        input: given
            .then(|| convert::input(&input_json, most_bytes))
            .transpose()?,
        by: Wish::new(by, String::new())?.by,
    })
}

pub(super) fn new_run_id(text: &str) -> Result<RunId, Error> {
    text.parse()
        .map_err(|error: InvalidId| Error::field("new_run_id", error.to_string()))
}

pub(super) fn bulk(request: proto::BulkRunsRequest) -> Result<Bulk, Error> {
    let proto::BulkRunsRequest {
        action,
        search,
        reason,
        by,
        dry_run,
    } = request;
    let wanted = match proto::BulkAction::try_from(action) {
        Ok(proto::BulkAction::Cancel) => Action::Cancel,
        Ok(proto::BulkAction::Terminate) => Action::Terminate,
        Ok(proto::BulkAction::Pause) => Action::Pause,
        Ok(proto::BulkAction::Resume) => Action::Resume,
        Ok(proto::BulkAction::Retry) => Action::Retry,
        Ok(proto::BulkAction::Delete) => Action::Delete,
        Ok(proto::BulkAction::Erase) => Action::Erase,
        Ok(proto::BulkAction::Unspecified) | Err(_) => {
            let message = "is none of cancel (1), terminate (2), pause (3), resume (4), retry (5), delete (6), erase (7)";
            return Err(Error::field("action", message));
        }
    };
    let (filter, page_size, page_token) = self::search(search.unwrap_or_default())?;
    Ok(Bulk {
        action: (!dry_run).then_some(wanted),
        filter,
        page_size,
        page_token,
        wish: Wish::new(by, reason)?,
    })
}

pub(super) fn outcome((id, result): Outcome<tonic::Status>) -> proto::BulkOutcome {
    let mut outcome = proto::BulkOutcome {
        run_id: id.into(),
        done: result.is_ok(),
        ..proto::BulkOutcome::default()
    };
    match result {
        Ok(status) => outcome.status = status.map(convert::status).unwrap_or_default().into(),
        Err(status) => {
            let reason = ApiError::from_status(&status).map(|error| error.reason.name().to_owned());
            outcome.reason = reason.unwrap_or_default();
            outcome.message = status.message().to_owned();
        }
    }
    outcome
}

pub(super) fn compensation(report: Compensation) -> proto::Compensation {
    let failed = report
        .failed
        .into_iter()
        .map(|(task, failure)| proto::CompensationFailure {
            task,
            error: Some(convert::failure(failure)),
        });
    proto::Compensation {
        done: report.done,
        failed: failed.collect(),
        left: report.left,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unspecified_among_the_statuses_means_any() {
        assert_eq!(
            statuses(&[4, 6, 7]).unwrap(),
            [Status::Completed, Status::Cancelled, Status::Paused]
        );
        assert_eq!(statuses(&[4, 0]).unwrap(), []);
        assert!(matches!(
            statuses(&[9]),
            Err(Error::Field {
                field: "statuses",
                ..
            })
        ));
    }

    #[test]
    fn a_search_is_read_field_by_field() {
        let request = proto::ListRunsRequest {
            namespace: "a".into(),
            labels: vec!["k=v".into(), "l".into()],
            created_after: Some(prost_types::Timestamp { seconds: 7, nanos: 0 }),
            page_size: 3,
            ..Default::default()
        };
        let (filter, size, _) = search(request).unwrap();
        assert_eq!((filter.namespace.as_deref(), size), (Some("a"), 3));
        assert_eq!(
            filter.labels,
            [("k".into(), Some("v".into())), ("l".into(), None)]
        );
        assert_eq!(filter.created.from, Timestamp::from_second(7).ok());
        let request = proto::ListRunsRequest {
            labels: vec!["a b".into()],
            ..Default::default()
        };
        assert!(matches!(
            search(request),
            Err(Error::Field { field: "labels", .. })
        ));
    }
}
