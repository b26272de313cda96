//! A program that says who we are (`exec` in a kubeconfig, `ExecCredential`, as the clouds do it).
//!
//! It is asked once, and again when what it said has ended or is refused, as [the documentation of Kubernetes][cached] has it. The crate
//! `kube` reads how it is called, but cannot ask it so: `ClientBuilder` of 5.0 runs it three times for each client (for the header, for the
//! certificate, for the end of both), keeps what has no end for ever, and never asks again when that is refused (`client::auth`); and its
//! errors quote what the program has printed. So it is asked here, and `kube` is given what it says as if the kubeconfig had said it.
//!
//! [cached]: https://kubernetes.io/docs/reference/access-authn-authz/authentication/#input-and-output-formats

use std::io::IsTerminal as _;
use std::process::Stdio;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use kube::config::{AuthInfo, ExecConfig, ExecInteractiveMode};
use muster_runtime::clock::{Clock as _, SystemClock};
use serde::Deserialize;
use serde_json::json;
use tokio::process::Command;

use super::Error;

/// How long before its end a token is no longer used, in seconds.
const MARGIN: i64 = 30;

/// What it says.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Said {
    token: Option<String>,
    expiration_timestamp: Option<Timestamp>,
    client_certificate_data: Option<String>,
    client_key_data: Option<String>,
}

impl Said {
    /// Whether it can still be used.
    pub fn is_fresh(&self) -> bool {
        let now = SystemClock::default().now();
        self.expiration_timestamp
            .is_none_or(|end| end.as_second() - now.as_second() > MARGIN)
    }

    /// Puts it where a kubeconfig has it.
    pub fn tell(&self, user: &mut AuthInfo) {
        user.token = self.token.clone().map(Into::into);
        if let (Some(certificate), Some(key)) = (&self.client_certificate_data, &self.client_key_data) {
            user.client_certificate_data = Some(STANDARD.encode(certificate));
            user.client_key_data = Some(STANDARD.encode(key).into());
        }
    }
}

/// Asks it.
pub async fn ask(program: &ExecConfig) -> Result<Said, Error> {
    let command = program.command.as_deref().unwrap_or_default();
    let wrong = |what: String| {
        let hint = program.install_hint.as_deref().unwrap_or_default();
        Error::Kubeconfig(format!("{command}: {what} {hint}").trim().to_owned())
    };
    let never = program.interactive_mode == Some(ExecInteractiveMode::Never);
    let interactive = !never && std::io::stdin().is_terminal();
    let mut information = json!({
        "apiVersion": program.api_version, "kind": "ExecCredential", "spec": {"interactive": interactive},
    });
    if let Some(cluster) = &program.cluster {
        information["spec"]["cluster"] = json!(cluster);
    }
    let variables = program.env.iter().flatten();
    let variables = variables.filter_map(|one| Some((one.get("name")?, one.get("value")?)));
    let done = Command::new(command)
        .args(program.args.iter().flatten())
        .envs(variables)
        .env("KUBERNETES_EXEC_INFO", information.to_string())
        .stdin(if interactive {
            Stdio::inherit()
        } else {
            Stdio::null()
        })
        .stderr(Stdio::inherit())
        .kill_on_drop(true)
        .output()
        .await
        .map_err(|error| wrong(error.to_string()))?;
    if !done.status.success() {
        return Err(wrong(format!("it ended with {}", done.status)));
    }
    #[derive(Deserialize)]
    struct Answer {
        status: Said,
    }
    // Its text is not quoted: it has secrets in it.
    let answer: Answer = serde_json::from_slice(&done.stdout)
        .map_err(|error| wrong(format!("it says no ExecCredential: line {}", error.line())))?;
    Ok(answer.status)
}
