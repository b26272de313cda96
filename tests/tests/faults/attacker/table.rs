//! What is tried, what whoever tries it gets, and what remains of it: the table of the README, each row of which a test goes through.

use std::net::SocketAddr;

use muster_testkit::{http, wait_for};
use muster_tests::{PATIENCE, repository_file};

/// A row.
#[derive(Debug, PartialEq, Eq)]
pub struct Attack {
    /// What is tried.
    pub what: &'static str,
    /// What comes of it.
    gets: &'static str,
    /// The event of its line in the audit log.
    pub event: &'static str,
    /// The reasons in such lines, where each has its own.
    pub reasons: &'static [&'static str],
    /// The series that counts it; one for each reason where the label `why` is left open.
    metric: &'static str,
}

/// What the label `why` is left open by.
const BY_REASON: &str = "connections_refused_total{why}";

pub const NOBODY: Attack = Attack {
    what: "no token, a scheme other than bearer, or `x-forwarded-client-cert` without a proxy",
    gets: "401 `UNAUTHENTICATED`",
    event: "login_refused",
    reasons: &[],
    metric: "errors_total{error_type=\"unauthenticated\"}",
};

pub const TOKEN: Attack = Attack {
    what: "a token that is none, expired, too early, for or of another, unsigned, of a foreign key, or signed with the public key as a secret",
    gets: "401 `UNAUTHENTICATED`",
    event: "login_refused",
    reasons: &[],
    metric: "errors_total{error_type=\"unauthenticated\"}",
};

pub const GUESSES: Attack = Attack {
    what: "one token after the other from one address",
    gets: "429 `LOGIN_LIMITED`",
    event: "login_limited",
    reasons: &[],
    metric: "errors_total{error_type=\"resource_exhausted\"}",
};

pub const IMPERSONATION: Attack = Attack {
    what: "`muster-on-behalf-of` from who is no service of ours",
    gets: "403 `PERMISSION_DENIED`",
    event: "impersonation_refused",
    reasons: &[],
    metric: "errors_total{error_type=\"permission_denied\"}",
};

pub const ROLE: Attack = Attack {
    what: "a method that the caller's role has not, on each binding, or an agent that it has no grant for",
    gets: "403 `PERMISSION_DENIED`",
    event: "access_refused",
    reasons: &[],
    metric: "errors_total{error_type=\"permission_denied\"}",
};

pub const OTHERS: Attack = Attack {
    what: "another caller's task, to read or to cancel",
    gets: "404 `TASK_NOT_FOUND`",
    event: "access_refused",
    reasons: &[],
    metric: "errors_total{error_type=\"not_found\"}",
};

pub const FLOOD: Attack = Attack {
    what: "more requests than a caller may make",
    gets: "429 `RATE_LIMITED`",
    event: "rate_limited",
    reasons: &[],
    metric: "router_limited_requests_total{limit=\"caller\"}",
};

pub const LARGE: Attack = Attack {
    what: "a message that is too large",
    gets: "413 `MESSAGE_TOO_LARGE`",
    event: "connection_refused",
    reasons: &["message_too_large"],
    metric: "errors_total{error_type=\"too_large\"}",
};

pub const SLOW_BODY: Attack = Attack {
    what: "a body that comes byte by byte",
    gets: "408 `DEADLINE_EXCEEDED`",
    event: "connection_refused",
    reasons: &["slow_body"],
    metric: "errors_total{error_type=\"client_error\"}",
};

pub const HEAD: Attack = Attack {
    what: "a head that is too large, or comes byte by byte",
    gets: "the end of the connection",
    event: "connection_refused",
    reasons: &["head_too_large", "slow_beginning"],
    metric: BY_REASON,
};

pub const RESETS: Attack = Attack {
    what: "streams that are opened and reset without end",
    gets: "the end of the connection",
    event: "connection_refused",
    reasons: &["too_many_streams_or_resets"],
    metric: BY_REASON,
};

pub const CERTIFICATE: Attack = Attack {
    what: "no certificate, one that has ended, is of a foreign authority, or of a workload that may not call",
    gets: "no connection",
    event: "connection_refused",
    reasons: &[
        "no_certificate",
        "certificate_not_valid_now",
        "unknown_authority",
        "peer_not_admitted",
    ],
    metric: BY_REASON,
};

pub const OTHER_TLS: Attack = Attack {
    what: "no TLS, or an old one",
    gets: "no connection",
    event: "connection_refused",
    reasons: &["no_tls", "other_tls"],
    metric: BY_REASON,
};

pub const HANDSHAKES: Attack = Attack {
    what: "handshakes that do not end, and many of them",
    gets: "no connection",
    event: "connection_refused",
    reasons: &["slow_handshake", "too_many_handshakes"],
    metric: BY_REASON,
};

/// All of them, in the README's order.
const ALL: [Attack; 14] = [
    CERTIFICATE,
    OTHER_TLS,
    HANDSHAKES,
    NOBODY,
    TOKEN,
    GUESSES,
    IMPERSONATION,
    ROLE,
    OTHERS,
    FLOOD,
    LARGE,
    SLOW_BODY,
    HEAD,
    RESETS,
];

impl Attack {
    fn row(&self) -> String {
        let reasons: Vec<String> = self.reasons.iter().map(|reason| format!("`{reason}`")).collect();
        let reasons = if reasons.is_empty() {
            String::new()
        } else {
            format!(": {}", reasons.join(", "))
        };
        format!(
            "| {} | {} | `{}`{reasons} | `{}` |\n",
            self.what, self.gets, self.event, self.metric
        )
    }

    /// How the series begin that count it.
    fn series(&self) -> Vec<String> {
        if self.metric == BY_REASON {
            let of = |reason: &&str| format!("connections_refused_total{{why=\"{reason}\"}}");
            return self.reasons.iter().map(of).collect();
        }
        vec![self.metric.trim_end_matches('}').to_owned()]
    }
}

/// Waits until the metrics at an address have counted each of these.
pub async fn are_counted(metrics: SocketAddr, attacks: &[Attack]) {
    for series in attacks.iter().flat_map(Attack::series) {
        wait_for(&series, PATIENCE, async || {
            let text = http::get(metrics, "/metrics").await?.text();
            let found = text.lines().find(|line| line.starts_with(&series));
            match found.and_then(|line| line.rsplit_once(' ')) {
                Some((_, count)) if count != "0" => Ok(()),
                _ => Err(format!("{found:?}")),
            }
        })
        .await;
    }
}

#[test]
fn the_readme_has_every_attack_with_what_comes_of_it() {
    let readme = std::fs::read_to_string(repository_file("README.md")).unwrap();
    let listed = readme
        .split_once("<!-- attacks:begin -->\n")
        .and_then(|(_, rest)| rest.split_once("<!-- attacks:end -->"))
        .map(|(table, _)| table)
        .expect("the README has the markers");
    let mut expected = "| attack | gets | audit log | metrics |\n|---|---|---|---|\n".to_owned();
    expected.extend(ALL.iter().map(Attack::row));
    assert!(
        listed == expected,
        "put this table between the markers:\n{expected}"
    );
}
