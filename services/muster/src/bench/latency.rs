//! Latencies, counted in a histogram: what is measured may be millions of calls.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde_json::{Value, json};

use crate::failure::Failure;

/// Longest latency that is told apart; a longer one counts as this.
const LONGEST: Duration = Duration::from_secs(600);

/// Latencies, in microseconds.
pub type Latencies = Histogram<u64>;

/// An empty histogram of latencies, to three significant figures.
pub fn latencies() -> Result<Latencies, Failure> {
    let longest = u64::try_from(LONGEST.as_micros()).unwrap_or(u64::MAX);
    Histogram::new_with_bounds(1, longest, 3).map_err(|error| Failure::failed(error.to_string()))
}

/// Adds one.
pub fn add(latencies: &mut Latencies, latency: Duration) {
    latencies.saturating_record(u64::try_from(latency.as_micros()).unwrap_or(u64::MAX));
}

/// Adds all of another histogram.
pub fn merge(latencies: &mut Latencies, others: &Latencies) -> Result<(), Failure> {
    let added = latencies.add(others);
    added.map_err(|error| Failure::failed(error.to_string()))
}

/// The latency in milliseconds that this part of them does not exceed; `None` where there are none.
pub fn at(latencies: &Latencies, part: f64) -> Option<f64> {
    (!latencies.is_empty()).then(|| millis(latencies.value_at_quantile(part)))
}

/// The usual quantiles in milliseconds; nothing where nothing was measured.
pub fn quantiles(latencies: &Latencies) -> Value {
    if latencies.is_empty() {
        return Value::Null;
    }
    let at = |part: f64| millis(latencies.value_at_quantile(part));
    json!({
        "p50": at(0.5),
        "p90": at(0.9),
        "p99": at(0.99),
        "max": millis(latencies.max()),
        "mean": latencies.mean() / 1000.0,
        "count": latencies.len(),
    })
}

/// Microseconds as milliseconds.
pub fn millis(micros: u64) -> f64 {
    number(micros) / 1000.0
}

/// A count as a number to divide by.
#[expect(
    clippy::cast_precision_loss,
    reason = "counts and bytes, shown with few figures"
)]
pub fn number(count: u64) -> f64 {
    count as f64
}
