//! What was measured in a closed loop, as JSON and as a table.

use serde_json::{Value, json};

use super::client::Call;
use super::closed::Measured;
use super::fleet::{Telemetry, UNTOLD};
use crate::bench::latency::{self, Latencies, latencies, merge, number};
use crate::failure::Failure;
use crate::output::Output;

/// What was measured of one way with so many clients, over all rounds.
pub struct Row {
    /// How the messages were sent.
    pub call: Call,
    /// Clients at once.
    pub clients: u32,
    /// By which way.
    pub way: &'static str,
    latencies: Latencies,
    per_second: Vec<f64>,
    used: Vec<(&'static str, f64)>,
}

impl Row {
    /// Nothing yet.
    pub fn new(call: Call, clients: u32, way: &'static str) -> Result<Self, Failure> {
        Ok(Self {
            call,
            clients,
            way,
            latencies: latencies()?,
            per_second: Vec::new(),
            used: Vec::new(),
        })
    }

    /// Adds a round.
    pub fn add(&mut self, measured: &Measured) -> Result<(), Failure> {
        merge(&mut self.latencies, &measured.latencies)?;
        let calls = number(measured.latencies.len());
        self.per_second.push(calls / measured.window.as_secs_f64());
        for (name, used) in &measured.used {
            let micros = used.processor.as_secs_f64() * 1e6;
            match self.used.iter_mut().find(|(known, _)| known == name) {
                Some((_, sum)) => *sum += micros,
                None => self.used.push((name, micros)),
            }
        }
        Ok(())
    }

    /// Calls a second, the median over the rounds.
    fn per_second(&self) -> f64 {
        median(&self.per_second)
    }

    /// What it did of what went straight to the agent in the same round: the median over the rounds.
    fn ratio(&self, direct: Option<&Self>) -> f64 {
        let direct = direct.map_or(&[][..], |row| &row.per_second);
        let ratios: Vec<_> = self
            .per_second
            .iter()
            .zip(direct)
            .map(|(way, direct)| way / direct)
            .collect();
        median(&ratios)
    }

    /// Processor time per call, in microseconds.
    fn micros(&self, name: &str) -> Option<f64> {
        let (_, sum) = self.used.iter().find(|(known, _)| *known == name)?;
        Some(sum / number(self.latencies.len().max(1)))
    }

    fn json(&self, direct: Option<&Self>, untold: Option<&Self>) -> Value {
        let used = self
            .used
            .iter()
            .map(|(name, _)| ((*name).to_owned(), json!(self.micros(name))));
        json!({
            "call": self.call.name(),
            "clients": self.clients,
            "way": self.way,
            "callsPerSecond": self.per_second(),
            "callsPerSecondOfRounds": self.per_second,
            "ratioToDirect": self.ratio(direct),
            // Of a router that tells of itself, to one that does not, where that was measured.
            "ratioToTelemetryOff": untold.map(|untold| self.ratio(Some(untold))),
            "millis": latency::quantiles(&self.latencies),
            "processorMicrosPerCall": used.collect::<serde_json::Map<_, _>>(),
            // An error ends the benchmark.
            "errors": 0,
        })
    }
}

/// The value in the middle; of two of them the mean.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let at = |index: usize| sorted.get(index).copied().unwrap_or(f64::NAN);
    if sorted.len().is_multiple_of(2) {
        f64::midpoint(at(middle.wrapping_sub(1)), at(middle))
    } else {
        at(middle)
    }
}

fn direct<'a>(row: &Row, rows: &'a [Row]) -> Option<&'a Row> {
    rows.iter()
        .find(|other| other.way == super::DIRECT && other.call == row.call && other.clients == row.clients)
}

/// What a router's row is compared with that tells of itself.
fn untold<'a>(row: &Row, rows: &'a [Row]) -> Option<&'a Row> {
    let is_told = |telemetry: Telemetry| telemetry != Telemetry::Off && telemetry.way() == row.way;
    [Telemetry::Metrics, Telemetry::Traces, Telemetry::AllTraces]
        .into_iter()
        .any(is_told)
        .then_some(())?;
    rows.iter()
        .find(|other| other.way == UNTOLD && other.call == row.call && other.clients == row.clients)
}

/// The rows as JSON.
pub fn json(rows: &[Row]) -> Value {
    rows.iter()
        .map(|row| row.json(direct(row, rows), untold(row, rows)))
        .collect()
}

/// Prints the rows for people.
pub fn print(rows: &[Row], output: &Output) {
    let header = [
        "CALL",
        "CLIENTS",
        "WAY",
        "CALLS/S",
        "OF DIRECT",
        "P50 MS",
        "P99 MS",
        "HOP µS",
        "AGENT µS",
        "CLIENTS µS",
    ];
    let table = rows.iter().map(|row| {
        let millis = |part: f64| latency::at(&row.latencies, part).unwrap_or(f64::NAN);
        let micros = |name: &str| {
            let micros = row.micros(name);
            micros.map_or_else(|| "–".to_owned(), |micros| format!("{micros:.1}"))
        };
        [
            row.call.name().to_owned(),
            row.clients.to_string(),
            row.way.to_owned(),
            format!("{:.0}", row.per_second()),
            format!("{:.2}", row.ratio(direct(row, rows))),
            format!("{:.3}", millis(0.5)),
            format!("{:.3}", millis(0.99)),
            micros(super::HOP),
            micros(super::AGENT),
            micros(super::CLIENTS),
        ]
    });
    output.heading("Calls, their latencies, and processor time per call");
    output.table(header, table.collect());
    for row in rows {
        if let Some(untold) = untold(row, rows) {
            output.line(&format!(
                "{} with {} clients, {}: {:.3} of the calls of a router that measures nothing",
                row.way,
                row.clients,
                row.call.name(),
                row.ratio(Some(untold))
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert!((median(&[3.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
        assert!((median(&[4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < f64::EPSILON);
        assert!(median(&[]).is_nan());
    }
}
