//! Sources that are much louder than the log's usual: events per minute against median and MAD.
//!
//! Events are counted by source and minute. The usual is the median of all counts above zero and their median absolute
//! deviation (MAD), which a few extreme minutes do not move, as they would move mean and standard deviation. A source
//! is anomalous when its loudest minute has a robust z-score `0.6745 × (count − median) / max(MAD, 1)` above
//! [`THRESHOLD`], at least [`MIN_EVENTS`] events, and the log has at least [`MIN_MINUTES`] counts to compare with.
//! There are counts for at most [`MAX_COUNTS`] pairs of source and minute; later pairs are left out.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;

use crate::finding::{Finding, Severity};
use crate::log::Log;

/// Robust z-score above which a minute is anomalous.
pub const THRESHOLD: f64 = 6.0;
/// Events below which a minute never is.
pub const MIN_EVENTS: u64 = 20;
/// Counts below which nothing is usual yet.
pub const MIN_MINUTES: usize = 10;
/// Most counts that are kept.
pub const MAX_COUNTS: usize = 100_000;

/// Events per source and minute.
#[derive(Debug, Clone, Default)]
pub struct Rates {
    counts: HashMap<(String, i64), Minute>,
}

#[derive(Debug, Clone, Copy)]
struct Minute {
    events: u64,
    first_line: usize,
}

/// A source with an unusual minute.
#[derive(Debug, Clone, PartialEq)]
pub struct Anomaly {
    /// The source.
    pub source: String,
    /// Start of its loudest minute, in minutes since 1970.
    pub minute: i64,
    /// Events in that minute.
    pub events: u64,
    /// Usual events per minute.
    pub median: f64,
    /// Robust z-score.
    pub score: f64,
    /// The first line of that minute.
    pub first_line: usize,
}

impl Rates {
    /// Counts an event that happened `times`.
    pub fn add(&mut self, source: &str, time: Timestamp, line: usize, times: u32) {
        let key = (source.to_owned(), time.as_second().div_euclid(60));
        if self.counts.len() >= MAX_COUNTS && !self.counts.contains_key(&key) {
            return;
        }
        let minute = self.counts.entry(key).or_insert(Minute {
            events: 0,
            first_line: line,
        });
        minute.events += u64::from(times);
        minute.first_line = minute.first_line.min(line);
    }

    /// The anomalous sources, in order of their names.
    #[must_use]
    pub fn anomalies(&self) -> Vec<Anomaly> {
        let mut counts: Vec<f64> = self
            .counts
            .values()
            .map(|minute| as_number(minute.events))
            .collect();
        if counts.len() < MIN_MINUTES {
            return Vec::new();
        }
        let median = median(&mut counts);
        let mut deviations: Vec<f64> = counts.iter().map(|count| (count - median).abs()).collect();
        let deviation = self::median(&mut deviations).max(1.0);
        let mut loudest: BTreeMap<&str, (i64, Minute)> = BTreeMap::new();
        for ((source, at), minute) in &self.counts {
            let known = loudest.entry(source).or_insert((*at, *minute));
            if (minute.events, std::cmp::Reverse(at)) > (known.1.events, std::cmp::Reverse(&known.0)) {
                *known = (*at, *minute);
            }
        }
        loudest
            .into_iter()
            .map(|(source, (at, minute))| Anomaly {
                source: source.to_owned(),
                minute: at,
                events: minute.events,
                median,
                score: 0.6745 * (as_number(minute.events) - median) / deviation,
                first_line: minute.first_line,
            })
            .filter(|anomaly| anomaly.score > THRESHOLD && anomaly.events >= MIN_EVENTS)
            .collect()
    }
}

impl Anomaly {
    /// As a finding.
    #[must_use]
    pub fn finding(&self, log: &Log<'_>) -> Finding {
        let time = |seconds| {
            Timestamp::from_second(seconds)
                .ok()
                .map(muster_api::time::rfc3339)
        };
        let start = self.minute.saturating_mul(60);
        Finding {
            rule: "rate_anomaly".to_owned(),
            title: format!(
                "Unusual rate: {} events in one minute, where {} are usual (score {:.1})",
                self.events, self.median, self.score
            ),
            severity: if self.score > 3.0 * THRESHOLD {
                Severity::Medium
            } else {
                Severity::Low
            },
            source: self.source.clone(),
            count: self.events,
            first_seen: time(start),
            last_seen: time(start.saturating_add(59)),
            users: Vec::new(),
            evidence: vec![log.quote(self.first_line)],
            mitre: Vec::new(),
            tactics: Vec::new(),
            recommended_response: "Find out what the source does, and limit its rate if nobody can say."
                .to_owned(),
        }
    }
}

fn as_number(count: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a log has far fewer than 2^53 events")]
    let number = count as f64;
    number
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let high = values.get(middle).copied().unwrap_or_default();
    if values.len().is_multiple_of(2) {
        let low = middle
            .checked_sub(1)
            .and_then(|index| values.get(index))
            .copied()
            .unwrap_or(high);
        (low + high) / 2.0
    } else {
        high
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn rates(counts: &[(&str, i64, u32)]) -> Rates {
        let mut rates = Rates::default();
        for &(source, minute, times) in counts {
            rates.add(source, Timestamp::from_second(minute * 60).unwrap(), 1, times);
        }
        rates
    }

    #[test]
    fn medians_agree_with_a_pencil() {
        assert!((median(&mut [3.0, 1.0, 2.0]) - 2.0).abs() < 1e-12);
        assert!((median(&mut [4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < 1e-12);
    }

    #[test]
    fn a_loud_source_stands_out_and_a_quiet_log_has_none() {
        let mut counts: Vec<(&str, i64, u32)> = (0..20).map(|minute| ("192.0.2.1", minute, 2)).collect();
        assert!(rates(&counts).anomalies().is_empty());
        counts.push(("192.0.2.9", 7, 40));
        let anomalies = rates(&counts).anomalies();
        assert_eq!(
            (anomalies.len(), anomalies[0].source.as_str(), anomalies[0].minute),
            (1, "192.0.2.9", 7)
        );
        assert!((anomalies[0].score - 0.6745 * 38.0).abs() < 1e-9);
        counts[20].2 = 19;
        assert!(
            rates(&counts).anomalies().is_empty(),
            "below the least number of events"
        );
        assert!(
            rates(&[("a", 1, 1000)]).anomalies().is_empty(),
            "nothing to compare with"
        );
    }

    proptest! {
        #[test]
        fn equal_rates_are_never_anomalous(minutes in 1..60i64, events in 1..500u32) {
            let counts: Vec<(&str, i64, u32)> = (0..minutes).map(|minute| ("a", minute, events)).collect();
            prop_assert!(rates(&counts).anomalies().is_empty());
        }
    }
}
