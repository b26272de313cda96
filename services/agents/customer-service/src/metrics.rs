//! What the agent measures of its customers, where they or their desks say so.

use muster_runtime::metrics::{Definition, Kind, Metrics};
use parking_lot::Mutex;

const SATISFACTION: &str = "customer_satisfaction_score";
const RESOLUTION: &str = "issue_resolution_time_seconds";

/// How much the latest rating counts: the score is about the last twenty or so.
const WEIGHT: f64 = 0.1;

/// Every metric of this agent beside those that every agent has.
pub const DEFINITIONS: &[Definition] = &[
    Definition {
        name: SATISFACTION,
        kind: Kind::Gauge,
        help: "From 1 to 5, how satisfied customers said that they are, in the mean of the latest; absent until one says so.",
    },
    Definition {
        name: RESOLUTION,
        kind: Kind::Histogram(&[60.0, 300.0, 900.0, 1800.0, 3600.0, 7200.0, 14400.0]),
        help: "Seconds that a case had been open when it was answered, by issue_type (the skill) and complexity (1 to 10, or unknown), where callers say how long.",
    },
];

/// Writes them.
pub(crate) struct Meters {
    metrics: Metrics,
    score: Mutex<Option<f64>>,
}

impl Meters {
    pub(crate) fn new(metrics: Metrics) -> Self {
        Self {
            metrics,
            score: Mutex::default(),
        }
    }

    /// A customer said how satisfied they are.
    pub(crate) fn rated(&self, satisfaction: f64) {
        let mut score = self.score.lock();
        let mean = score.map_or(satisfaction, |score| score + WEIGHT * (satisfaction - score));
        *score = Some(mean);
        self.metrics.gauge(SATISFACTION, &[]).set(mean);
    }

    /// A case was answered that had been open so long. The kind is a skill of the card.
    pub(crate) fn resolved(&self, kind: &str, complexity: Option<u8>, seconds: f64) {
        let complexity = complexity.map_or_else(|| "unknown".to_owned(), |complexity| complexity.to_string());
        let labels = [("issue_type", kind.to_owned()), ("complexity", complexity)];
        self.metrics.histogram(RESOLUTION, &labels).record(seconds);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_score_is_a_mean_of_the_latest() {
        let metrics = Metrics::new(DEFINITIONS).unwrap();
        let meters = Meters::new(metrics.clone());
        assert!(
            !metrics.render().contains("\ncustomer_satisfaction_score "),
            "nobody has said anything"
        );
        meters.rated(4.0);
        meters.rated(2.0);
        meters.resolved("issue_resolution", Some(3), 600.0);
        let text = metrics.render();
        assert!(text.contains("customer_satisfaction_score 3.8"), "{text}");
        let bucket = r#"issue_resolution_time_seconds_bucket{issue_type="issue_resolution",complexity="3",le="900"} 1"#;
        assert!(text.contains(bucket), "{text}");
    }
}
