//! What trust shows of itself.

use jiff::Timestamp;

use crate::metrics::{Definition, Kind, Metrics};

/// All of it.
pub const DEFINITIONS: &[Definition] = &[
    Definition {
        name: "certificate_expiry_timestamp_seconds",
        kind: Kind::Gauge,
        help: "When a certificate ends, in seconds since 1970: that of the service itself, or the first of its authorities' (certificate).",
    },
    Definition {
        name: "certificate_reloads_total",
        kind: Kind::Counter,
        help: "New certificate files that were found, by what came of it (outcome: replaced or refused).",
    },
    Definition {
        name: "tls_handshakes_total",
        kind: Kind::Counter,
        help: "Connections to the data port that began over TLS, by what came of it (outcome: accepted, refused, slow, crowded_out).",
    },
    Definition {
        name: "connections_refused_total",
        kind: Kind::Counter,
        help: "Who was turned away before there was a request to decide about, by why, as the audit log names it (connection_refused).",
    },
];

/// Counts and shows.
#[derive(Debug, Clone)]
pub(crate) struct Meters {
    metrics: Metrics,
}

/// What came of a handshake.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Outcome {
    /// It went well.
    Accepted,
    /// One side did not like the other.
    Refused,
    /// It took too long.
    Slow,
    /// Too many newer ones came.
    CrowdedOut,
}

impl Meters {
    pub(crate) const fn new(metrics: Metrics) -> Self {
        Self { metrics }
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "seconds of this millennium fit a double's 53 bits"
    )]
    pub(super) fn ends(&self, own: Timestamp, authority: Timestamp) {
        for (which, end) in [("own", own), ("authority", authority)] {
            self.metrics
                .gauge(
                    "certificate_expiry_timestamp_seconds",
                    &[("certificate", which.to_owned())],
                )
                .set(end.as_second() as f64);
        }
    }

    pub(super) fn reread(&self, replaced: bool) {
        let outcome = if replaced { "replaced" } else { "refused" };
        self.metrics
            .counter("certificate_reloads_total", &[("outcome", outcome.to_owned())])
            .increment(1);
    }

    pub(crate) fn handshake(&self, outcome: Outcome) {
        let outcome = match outcome {
            Outcome::Accepted => "accepted",
            Outcome::Refused => "refused",
            Outcome::Slow => "slow",
            Outcome::CrowdedOut => "crowded_out",
        };
        self.metrics
            .counter("tls_handshakes_total", &[("outcome", outcome.to_owned())])
            .increment(1);
    }

    pub(super) fn turned_away(&self, why: &'static str) {
        self.metrics
            .counter("connections_refused_total", &[("why", why.to_owned())])
            .increment(1);
    }
}
