//! What was measured, as JSON and as tables.

use std::time::Duration;

use serde_json::{Value, json};

use super::Case;
use crate::bench::latency::{Latencies, millis, number, quantiles};
use crate::bench::process::{Memory, Used};
use crate::output::Output;

/// What was measured of one case.
pub struct Row {
    /// What was run.
    pub case: Case,
    /// For how long.
    pub window: Duration,
    /// Steps that were done meanwhile.
    pub steps: u64,
    /// Runs that ended meanwhile.
    pub runs: u64,
    /// How long those runs took.
    pub run: Latencies,
    /// How long steps took.
    pub step: Latencies,
    /// How long it took to park the runs that are parked.
    pub parking: Duration,
    /// What each process used, by name.
    pub used: Vec<(&'static str, Used)>,
    /// What the engine held before anything ran.
    pub idle: Memory,
    /// What it held with the parked runs.
    pub parked: Memory,
    /// The most that it held while it was measured.
    pub loaded: Memory,
}

impl Row {
    fn per_second(&self, count: u64) -> f64 {
        number(count) / self.window.as_secs_f64()
    }

    fn per_step(&self, amount: f64) -> f64 {
        amount / number(self.steps.max(1))
    }

    /// The row as JSON.
    pub fn json(&self) -> Value {
        let used = self.used.iter().map(|(name, used)| {
            let micros = self.per_step(used.processor.as_secs_f64() * 1e6);
            let written = self.per_step(number(used.written));
            let used = json!({"processorMicrosPerStep": micros, "bytesWrittenPerStep": written});
            ((*name).to_owned(), used)
        });
        json!({
            "step": self.case.kind.name(),
            "clients": self.case.clients,
            "steps": self.case.steps,
            "parkedRuns": self.case.parked,
            "definitions": self.case.definitions,
            "seconds": self.window.as_secs_f64(),
            "stepsPerSecond": self.per_second(self.steps),
            "runsPerSecond": self.per_second(self.runs),
            "runMillis": quantiles(&self.run),
            "stepMillis": quantiles(&self.step),
            "parkingSeconds": self.parking.as_secs_f64(),
            "engineMemory": {
                "idle": memory(self.idle),
                "parked": memory(self.parked),
                "loaded": memory(self.loaded),
            },
            "processes": used.collect::<serde_json::Map<_, _>>(),
        })
    }
}

/// Prints the rows for people.
pub fn print(rows: &[Row], output: &Output) {
    let case = |row: &Row| {
        let more = |count: u32, what: &str| match count {
            0 => String::new(),
            count => format!(", {count} {what}"),
        };
        let definitions = if row.case.definitions > 1 {
            row.case.definitions
        } else {
            0
        };
        format!(
            "{} × {}{}{}",
            row.case.steps,
            row.case.kind.name(),
            more(row.case.parked, "parked"),
            more(definitions, "definitions")
        )
    };
    let latency = |latencies: &Latencies, part: f64| match latencies.is_empty() {
        true => "–".to_owned(),
        false => format!("{:.2}", millis(latencies.value_at_quantile(part))),
    };
    let header = [
        "STEPS OF A RUN",
        "CLIENTS",
        "STEPS/S",
        "RUNS/S",
        "RUN P50",
        "P90",
        "P99",
        "MAX",
        "STEP P50",
        "P90",
        "P99",
        "MAX",
    ];
    let table = rows.iter().map(|row| {
        [
            case(row),
            row.case.clients.to_string(),
            format!("{:.0}", row.per_second(row.steps)),
            format!("{:.1}", row.per_second(row.runs)),
            latency(&row.run, 0.5),
            latency(&row.run, 0.9),
            latency(&row.run, 0.99),
            latency(&row.run, 1.0),
            latency(&row.step, 0.5),
            latency(&row.step, 0.9),
            latency(&row.step, 0.99),
            latency(&row.step, 1.0),
        ]
    });
    output.heading("Latencies, in milliseconds");
    output.table(header, table.collect());
    let header = [
        "STEPS OF A RUN",
        "CLIENTS",
        "ENGINE",
        "ROUTER",
        "AGENT",
        "CLIENTS' OWN",
        "ENGINE WRITES",
        "ENGINE IDLE",
        "PARKED",
        "LOADED",
    ];
    let table = rows.iter().map(|row| {
        let used = |name: &str| {
            let found = row.used.iter().find(|(known, _)| *known == name);
            found.map_or_else(String::new, |(_, used)| {
                format!("{:.0} µs", row.per_step(used.processor.as_secs_f64() * 1e6))
            })
        };
        let engine = row.used.iter().find(|(name, _)| *name == "engine");
        let written = engine.map_or(0, |(_, used)| used.written);
        let mebibytes = |memory: Memory| format!("{:.0} MiB", number(memory.resident) / f64::from(1 << 20));
        [
            case(row),
            row.case.clients.to_string(),
            used("engine"),
            used("router"),
            used("agent"),
            used("clients"),
            format!("{:.1} KiB", row.per_step(number(written)) / 1024.0),
            mebibytes(row.idle),
            mebibytes(row.parked),
            mebibytes(row.loaded),
        ]
    });
    output.heading("Processor time and bytes written per step; resident memory of the engine");
    output.table(header, table.collect());
}

fn memory(memory: Memory) -> Value {
    json!({"residentBytes": memory.resident, "anonymousBytes": memory.anonymous})
}
