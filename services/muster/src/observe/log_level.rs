//! `muster log-level`: what a service logs, and for how long.

use std::time::Duration;

use muster_api::admin::{GetLogLevelRequest, SetLogLevelRequest};
use serde_json::json;

use crate::cli::LogLevelArguments;
use crate::connect::Endpoints;
use crate::failure::Failure;
use crate::output::Output;

/// Runs `muster log-level`.
pub async fn run(
    arguments: LogLevelArguments,
    endpoints: &Endpoints,
    output: &Output,
) -> Result<(), Failure> {
    let LogLevelArguments {
        service,
        filter,
        revert_after,
    } = arguments;
    let mut client = endpoints.admin(service)?;
    let failed = |status: &tonic::Status| endpoints.failure(service, status);
    let time = |at: Option<prost_types::Timestamp>| {
        let at = at.and_then(|at| jiff::Timestamp::new(at.seconds, at.nanos).ok());
        at.map(muster_api::time::rfc3339)
    };
    let (previous, filter, reverts_at) = match filter {
        None => {
            let answer = client.get_log_level(GetLogLevelRequest {}).await;
            let answer = answer.map_err(|status| failed(&status))?.into_inner();
            (None, answer.filter, time(answer.reverts_at))
        }
        Some(filter) => {
            let seconds = revert_after.map(Duration::from_secs);
            let revert_after = seconds
                .map(prost_types::Duration::try_from)
                .transpose()
                .map_err(|error| Failure::usage(format!("--revert-after: {error}")))?;
            let request = SetLogLevelRequest { filter, revert_after };
            let answer = client.set_log_level(request).await;
            let answer = answer.map_err(|status| failed(&status))?.into_inner();
            (Some(answer.previous), answer.filter, time(answer.reverts_at))
        }
    };
    let name = service.name();
    if output.is_json() {
        output.json(&json!({
            "service": name, "filter": filter, "previous": previous, "revertsAt": reverts_at,
        }));
        return Ok(());
    }
    let until = reverts_at.map(|at| format!(", until {at}")).unwrap_or_default();
    match previous {
        None => output.line(&format!("{name} logs {filter}{until}")),
        Some(previous) => output.line(&format!("{name} logs {filter} in place of {previous}{until}")),
    }
    Ok(())
}
