//! The scripted attacker: each attempt is refused, and the refusal is in the audit log where that can be read.
//!
//! What would lock others out is tried on parts of one's own.
//!
//! ```text
//! security.rs   the checks, and the audit logs as a whole
//!   entering.rs   who should not be let in
//!   owning.rs     who is let in, and wants what is not for it
//!   flooding.rs   who sends too much
//! ```

mod entering;
mod flooding;
mod owning;

use muster_runtime::trust::audit::chain;
use serde_json::json;

use super::attacker::PATIENCE;
use super::check::{Area, Check, Evidence, Need, Stop, Verdict};
use super::initialisation::agent_ids;
use super::target::Issuer;
use super::trial::{Trial, eventually};
use crate::connect::Service;

/// The checks.
pub const CHECKS: &[Check] = &[
    Check {
        area: Area::Security,
        name: "nobody gets in without a token or a certificate",
        needs: &[],
        run: |trial| Box::pin(entering::nobody(trial)),
    },
    Check {
        area: Area::Security,
        name: "an expired token is refused",
        needs: &[Need::TokenKey],
        run: |trial| Box::pin(entering::with_claim(trial, "an expired token", "exp", json!(1))),
    },
    Check {
        area: Area::Security,
        name: "an unsigned token is refused",
        needs: &[],
        run: |trial| Box::pin(entering::unsigned_token(trial)),
    },
    Check {
        area: Area::Security,
        name: "a token of a foreign key is refused",
        needs: &[],
        run: |trial| Box::pin(entering::foreign_token(trial)),
    },
    Check {
        area: Area::Security,
        name: "a token of another issuer is refused",
        needs: &[Need::TokenKey],
        run: |trial| {
            Box::pin(entering::with_claim(
                trial,
                "a token of another issuer",
                "iss",
                json!("somebody"),
            ))
        },
    },
    Check {
        area: Area::Security,
        name: "a token for another audience is refused",
        needs: &[Need::TokenKey],
        run: |trial| {
            Box::pin(entering::with_claim(
                trial,
                "a token for another audience",
                "aud",
                json!("others"),
            ))
        },
    },
    Check {
        area: Area::Security,
        name: "the public key is no secret to sign with",
        needs: &[Need::TokenKey],
        run: |trial| Box::pin(entering::confused_token(trial)),
    },
    Check {
        area: Area::Security,
        name: "a certificate of a foreign authority is refused",
        needs: &[Need::MutualTls],
        run: |trial| Box::pin(entering::foreign_certificate(trial)),
    },
    Check {
        area: Area::Security,
        name: "a reader has no agent work and starts no run",
        needs: &[Need::TokenKey],
        run: |trial| Box::pin(owning::reader(trial)),
    },
    Check {
        area: Area::Security,
        name: "a caller registers no agent",
        needs: &[Need::TokenKey],
        run: |trial| Box::pin(owning::registering(trial)),
    },
    Check {
        area: Area::Security,
        name: "another caller's task is not there",
        needs: &[Need::TokenKey],
        run: |trial| Box::pin(owning::others_task(trial)),
    },
    Check {
        area: Area::Security,
        name: "another caller's run is not there",
        needs: &[Need::TokenKey],
        run: |trial| Box::pin(owning::others_run(trial)),
    },
    Check {
        area: Area::Security,
        name: "nobody speaks for others by a header",
        needs: &[Need::TokenKey],
        run: |trial| Box::pin(entering::on_behalf_of(trial)),
    },
    Check {
        area: Area::Security,
        name: "nobody is a service by a header",
        needs: &[],
        run: |trial| Box::pin(entering::forwarded_certificate(trial)),
    },
    Check {
        area: Area::Security,
        name: "a message that is too large is refused",
        needs: &[],
        run: |trial| Box::pin(flooding::oversize(trial)),
    },
    Check {
        area: Area::Security,
        name: "who floods is limited, and others are not",
        needs: &[Need::TokenKey],
        run: |trial| Box::pin(flooding::flood(trial)),
    },
    Check {
        area: Area::Security,
        name: "who guesses tokens is looked at no longer",
        needs: &[Need::OwnStack],
        run: |trial| Box::pin(flooding::guessing(trial)),
    },
    Check {
        area: Area::Security,
        name: "the audit logs are whole and name no token",
        needs: &[Need::AuditLog],
        run: |trial| Box::pin(audit(trial)),
    },
];

fn issuer(trial: &Trial) -> Result<&Issuer, Stop> {
    let issuer = trial.target.issuer();
    issuer.ok_or_else(|| Stop::skipped(Need::TokenKey.describe()))
}

/// An agent to be called: the probe where there is one, else any.
async fn an_agent(trial: &Trial) -> Result<String, Stop> {
    let agents = agent_ids(trial).await?;
    let probe = super::target::probe::PROBE;
    if agents.contains(probe) {
        return Ok(probe.to_owned());
    }
    agents
        .into_iter()
        .next()
        .ok_or_else(|| Stop::failed("no agent is registered"))
}

async fn audit(trial: &mut Trial) -> Verdict {
    let mut lines = 0;
    let logs = [Service::Registry, Service::Router, Service::Engine]
        .into_iter()
        .flat_map(|service| {
            let directories = trial.target.audits(service);
            directories.into_iter().map(move |directory| (service, directory))
        });
    for (service, directory) in logs {
        if !directory.is_dir() {
            return Err(Stop::failed(format!(
                "the {} writes no audit log",
                service.name()
            )));
        }
        // While it is written, its last line may not be whole yet.
        let whole = eventually(PATIENCE, async || {
            chain::verify(&directory).map_err(|broken| broken.to_string())
        });
        whole.await.map_err(Stop::Failed)?;
        let written = chain::lines(&directory).map_err(|error| Stop::failed(error.to_string()))?;
        lines += written.len();
        // The beginning of every token: a header of JSON in Base64.
        if let Some(line) = written.iter().find(|line| line.to_string().contains("eyJ")) {
            return Err(Stop::failed(format!(
                "a token is in line {} of {}",
                line["sequence"],
                directory.display()
            )));
        }
    }
    Ok(
        Evidence::new(format!("{lines} lines, no chain is broken, no token is in them"))
            .figure("lines", lines),
    )
}
