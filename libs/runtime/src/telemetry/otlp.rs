//! The section `telemetry.otlp`: where traces go. Off unless it names an endpoint.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::config::Mistakes;

/// The section `telemetry.otlp`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// The collector's address for OTLP over gRPC, such as `http://localhost:4317`. Empty: nothing is traced.
    pub endpoint: String,
    /// Headers for the collector, such as what it authenticates by. Never printed.
    pub headers: BTreeMap<String, String>,
    /// How long an export may take.
    pub timeout_seconds: u64,
    /// The share of traces that is recorded, from 0 to 1, of those whose caller does not say.
    pub sample_ratio: f64,
    /// Spans that wait to be exported, at most, for each service; more are dropped and counted.
    pub max_queued_spans: usize,
    /// Spans that are exported at once, at most.
    pub max_batch_spans: usize,
    /// How long a span may wait for others to be exported with it.
    pub batch_interval_milliseconds: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            endpoint: String::new(),
            headers: BTreeMap::new(),
            timeout_seconds: 10,
            sample_ratio: 0.1,
            max_queued_spans: 4_096,
            max_batch_spans: 512,
            batch_interval_milliseconds: 1_000,
        }
    }
}

impl Config {
    /// Whether anything is traced.
    #[must_use]
    pub fn is_on(&self) -> bool {
        !self.endpoint.is_empty()
    }

    /// How long an export may take.
    #[must_use]
    pub fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout_seconds)
    }

    /// Adds what is wrong.
    pub(super) fn validate(&self, mistakes: &mut Mistakes) {
        if self.is_on()
            && let Err(error) = muster_rpc::endpoint::parse(&self.endpoint)
        {
            mistakes.add("telemetry.otlp.endpoint", error.to_string());
        }
        for name in self.headers.keys() {
            if let Err(what) = http::HeaderName::try_from(name.as_str()) {
                mistakes.add("telemetry.otlp.headers", format!("'{name}': {what}"));
            } else if name.ends_with("-bin") {
                mistakes.add(
                    "telemetry.otlp.headers",
                    format!(
                        "'{name}': gRPC takes names that end in -bin for binary; send it under another name"
                    ),
                );
            }
        }
        if !(1..=60).contains(&self.timeout_seconds) {
            mistakes.add("telemetry.otlp.timeout_seconds", "must be from 1 to 60 seconds");
        }
        if !(0.0..=1.0).contains(&self.sample_ratio) {
            mistakes.add(
                "telemetry.otlp.sample_ratio",
                "must be from 0 (only traces whose caller records them) to 1 (all)",
            );
        }
        if !(1..=1_000_000).contains(&self.max_queued_spans) {
            mistakes.add("telemetry.otlp.max_queued_spans", "must be from 1 to 1000000");
        }
        if !(1..=10_000).contains(&self.max_batch_spans) {
            mistakes.add("telemetry.otlp.max_batch_spans", "must be from 1 to 10000");
        }
        if !(1..=60_000).contains(&self.batch_interval_milliseconds) {
            mistakes.add(
                "telemetry.otlp.batch_interval_milliseconds",
                "must be from 1 to 60000 milliseconds",
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_off_by_default_and_says_everything_that_is_wrong() {
        let mut mistakes = Mistakes::default();
        let default = Config::default();
        assert!(!default.is_on());
        default.validate(&mut mistakes);
        assert!(mistakes.is_empty(), "{mistakes}");
        let wrong = Config {
            endpoint: "localhost:4317".to_owned(),
            headers: BTreeMap::from([("a b".to_owned(), "x".to_owned())]),
            timeout_seconds: 0,
            sample_ratio: f64::NAN,
            max_queued_spans: 0,
            max_batch_spans: 0,
            batch_interval_milliseconds: 0,
        };
        wrong.validate(&mut mistakes);
        let keys: Vec<&str> = mistakes.iter().map(|(key, _)| key).collect();
        assert_eq!(keys.len(), 7, "{mistakes}");
    }
}
