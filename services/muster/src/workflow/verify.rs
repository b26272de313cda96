//! `muster workflow verify`: whether a run's journal is what was written.

use clap::Args;
use muster_api::workflow::{VerifyRunRequest, VerifyRunResponse};
use muster_workflow_dsl::journal::chain::Chain;
use serde_json::json;

use crate::connect::{Endpoints, Service};
use crate::failure::Failure;
use crate::output::Output;

/// Arguments of `muster workflow verify`.
#[derive(Debug, Args)]
pub struct Verification {
    /// The run's id.
    run: String,
    /// The digest that was printed when the run had ended, kept elsewhere since.
    #[arg(long, value_name = "DIGEST")]
    chain: Option<Chain>,
}

/// `muster workflow verify RUN`
pub async fn run(arguments: Verification, endpoints: &Endpoints, output: &Output) -> Result<(), Failure> {
    let request = VerifyRunRequest {
        run_id: arguments.run.clone(),
    };
    let answer = endpoints.engine()?.verify_run(request).await;
    let answer = answer.map_err(|status| endpoints.failure(Service::Engine, &status))?;
    let VerifyRunResponse {
        entries,
        chain,
        mut problems,
    } = answer.into_inner();
    if let Some(expected) = arguments.chain.filter(|expected| expected.to_string() != chain) {
        problems.push(format!(
            "the chain of digests ends with {}, and not with {expected}: it has grown since, or was written anew",
            if chain.is_empty() { "nothing" } else { &chain }
        ));
    }
    if output.is_json() {
        output.json(&json!({
            "id": arguments.run,
            "intact": problems.is_empty(),
            "entries": entries,
            "chain": chain,
            "problems": problems,
        }));
    } else if problems.is_empty() {
        output.line(&format!(
            "run {}: {entries} entries, as they were written",
            arguments.run
        ));
        if chain.is_empty() {
            output.line("  an earlier release has written them, without a chain of digests");
        } else {
            output.line(&format!("  chain {chain}"));
        }
    }
    if problems.is_empty() {
        return Ok(());
    }
    Err(Failure::failed(format!(
        "run {} is not what was written: {}",
        arguments.run,
        problems.join("; ")
    ))
    .with_remedy(
        "nothing was changed; restore a backup, or look at the journal with `muster workflow history`",
    ))
}
