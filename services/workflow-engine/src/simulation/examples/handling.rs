//! What becomes of an example when one of its calls fails.
//!
//! An error that nobody handles faults the run, with the error of the call and at its task, and nothing is tried again: that is
//! the rule, and every call to which it applies is named all the same. What a `try` handles is said with what comes of it.

use serde_json::{Value, json};

use super::mishap::Step;
use super::outcome::Expected;

/// Who handles the error of a call.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Handling {
    /// Nobody.
    Unhandled,
    /// With this status it is tried again, and faults the run once so many attempts have failed; with another, nobody.
    Retried { status: u16, attempts: u32 },
    /// With this status it is caught, and the run completes with this value in this part of its output; with another, nobody.
    Caught {
        status: u16,
        part: &'static str,
        value: Value,
    },
}

use Handling::{Caught, Retried, Unhandled};

/// The type of the errors that calls fail with here.
const COMMUNICATION: &str = "https://serverlessworkflow.io/spec/1.0.0/errors/communication";

/// Each task of the example that calls, by its name.
pub(crate) fn handlings(example: &str) -> Vec<(&'static str, Handling)> {
    let unhandled = |tasks: &[&'static str]| tasks.iter().map(|task| (*task, Unhandled)).collect();
    match example {
        "accumulate-room-readings" => unhandled(&["log", "report"]),
        "authentication-bearer"
        | "authentication-bearer-uri-format"
        | "authentication-oauth2"
        | "authentication-oauth2-secret"
        | "authentication-oidc"
        | "authentication-oidc-secret"
        | "authentication-reusable"
        | "call-http-endpoint-interpolation"
        | "call-http-endpoint-interpolation-shorthand"
        | "call-http-shorthand-endpoint"
        | "do-single" => unhandled(&["read"]),
        "call-asyncapi-publish" | "emit" => unhandled(&["announce"]),
        "call-custom-function-cataloged" => unhandled(&["function.yaml"]),
        "call-custom-function-inline" => unhandled(&["getBookById"]),
        "call-grpc" | "README health.yaml" => unhandled(&["check"]),
        "call-http-query-headers-expressions"
        | "call-http-query-parameters"
        | "call-http-redirect"
        | "call-openapi"
        | "call-openapi-redirect" => unhandled(&["find"]),
        "call-mcp" | "schedule-event-driven" => unhandled(&["tell"]),
        "do-multiple" => unhandled(&["read", "lend"]),
        // The first branch that fails fails the fork, also where one is to win.
        "fork" => unhandled(&["callClerk", "callGuard"]),
        "listen-to-any-forever-foreach" => unhandled(&["post"]),
        "listen-to-one" => unhandled(&["light"]),
        "run-container"
        | "run-container-cleanup-always"
        | "run-container-cleanup-eventually"
        | "run-container-stdin-and-arguments"
        | "run-container-with-name"
        | "run-container-with-pull-policy"
        | "run-return-all"
        | "run-return-code"
        | "run-return-none"
        | "run-return-stderr"
        | "run-shell-stdin-and-arguments" => unhandled(&["print"]),
        "run-script-with-arguments" => unhandled(&["log"]),
        "run-script-with-stdin-and-arguments" => unhandled(&["count"]),
        "schedule-cron" => unhandled(&["inventory"]),
        "star-wars-homeworld" => unhandled(&["getBook", "getAuthor"]),
        // Five retries after the first attempt.
        "try-catch-retry-inline" | "try-catch-retry-reusable" => vec![(
            "read",
            Retried {
                status: 503,
                attempts: 6,
            },
        )],
        // The error is swallowed: the output is what the `try` was given.
        "try-catch" => vec![(
            "read",
            Caught {
                status: 404,
                part: "",
                value: json!({"bookId": 404}),
            },
        )],
        // The error is told and kept, and nothing is lent: the output is what the handler has kept.
        "try-catch-then" => vec![
            (
                "read",
                Caught {
                    status: 404,
                    part: "/error/status",
                    value: json!(404),
                },
            ),
            ("lend", Unhandled),
        ],
        "README rain.yaml" | "README frugal.yaml" => unhandled(&["forecast"]),
        "README services.yaml" => unhandled(&["status"]),
        "README asking-back.yaml" => unhandled(&["ask", "answer"]),
        "README tools.yaml" => unhandled(&["search"]),
        "README order.yaml" => unhandled(&["announce"]),
        "README order.yaml (2)" => unhandled(&["label"]),
        _ => Vec::new(),
    }
}

impl Handling {
    /// What becomes of an example when the call of this step fails so, and how often it is called; without that, this is what
    /// comes of it, and it is called so often.
    pub(crate) fn expected(
        &self,
        step: &Step,
        status: u16,
        always: bool,
        usually: &(Expected, u32),
    ) -> (Expected, u32) {
        match self {
            Retried {
                status: handled,
                attempts,
            } if *handled == status => {
                if always {
                    (faulted(step, status), *attempts)
                } else {
                    usually.clone()
                }
            }
            Caught {
                status: handled,
                part,
                value,
            } if *handled == status => (Expected::Completed((*part).to_owned(), value.clone()), 1),
            _ => (faulted(step, status), 1),
        }
    }
}

fn faulted(step: &Step, status: u16) -> Expected {
    Expected::Faulted {
        kind: COMMUNICATION.to_owned(),
        status,
        task: Some(step.task.clone()),
    }
}
