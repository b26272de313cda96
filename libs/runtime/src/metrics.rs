//! Prometheus metrics of one service, without a global recorder.
//!
//! Every crate names its metrics in one table of [`Definition`]s; a name that is not in a table is refused in
//! debug builds, so that no dashboard query can miss one. Label values must come from bounded sets.

use std::sync::Arc;

pub use ::metrics::{Counter, Histogram};
use ::metrics::{Gauge, Key, Label, Level, Metadata, Recorder as _, SharedString};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use parking_lot::Mutex;
use sysinfo::{Pid, ProcessRefreshKind, ProcessesToUpdate, System};

use crate::Error;

/// What a metric is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Observations in buckets with these upper bounds.
    Histogram(&'static [f64]),
}

/// One metric: name with its unit, kind, and help.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Definition {
    /// The name, with its unit at the end.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// What it says, for `# HELP`.
    pub help: &'static str,
}

/// What every service has.
pub const STANDARD: &[Definition] = &[
    Definition {
        name: "agent_info",
        kind: Kind::Gauge,
        help: "Always 1; labels say which service, version and environment this is.",
    },
    Definition {
        name: "http_requests_total",
        kind: Kind::Counter,
        help: "Requests on the data port. A gRPC request counts when its stream ends, with its code as HTTP status.",
    },
    Definition {
        name: "http_request_duration_seconds",
        // From 0.1 s on the customary bounds; below, finer ones, because most answers come from memory.
        kind: Kind::Histogram(&[0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0]),
        help: "Seconds until the response's head; how long its body or stream takes is not in it.",
    },
    Definition {
        name: "memory_usage_bytes",
        kind: Kind::Gauge,
        help: "Resident memory of the process.",
    },
    Definition {
        name: "cpu_usage_percent",
        kind: Kind::Gauge,
        help: "CPU of the process since the last scrape; 100 is one core.",
    },
];

/// Makes and renders the metrics of one service; clones share them.
#[derive(Clone)]
pub struct Metrics {
    recorder: Arc<PrometheusRecorder>,
    handle: PrometheusHandle,
    known: Arc<Vec<Definition>>,
    process: Arc<Mutex<Option<System>>>,
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Metrics")
            .field("definitions", &self.known.len())
            .finish_non_exhaustive()
    }
}

/// Labels of one series: name and value.
pub type Labels<'a> = &'a [(&'static str, String)];

impl Metrics {
    /// Metrics with these definitions beside the standard ones.
    ///
    /// # Errors
    ///
    /// When a histogram has no buckets.
    pub fn new(definitions: &[Definition]) -> Result<Self, Error> {
        let known: Vec<Definition> = STANDARD
            .iter()
            .chain(crate::trust::metrics::DEFINITIONS)
            .chain(definitions)
            .copied()
            .collect();
        let mut builder = PrometheusBuilder::new();
        for definition in &known {
            if let Kind::Histogram(buckets) = definition.kind {
                builder = builder
                    .set_buckets_for_metric(Matcher::Full(definition.name.to_owned()), buckets)
                    .map_err(|error| Error::Other(format!("metric {}: {error}", definition.name)))?;
            }
        }
        let recorder = builder.build_recorder();
        let handle = recorder.handle();
        for definition in &known {
            let (name, help) = (definition.name.into(), SharedString::const_str(definition.help));
            match definition.kind {
                Kind::Counter => recorder.describe_counter(name, None, help),
                Kind::Gauge => recorder.describe_gauge(name, None, help),
                Kind::Histogram(_) => recorder.describe_histogram(name, None, help),
            }
        }
        Ok(Self {
            recorder: Arc::new(recorder),
            handle,
            known: Arc::new(known),
            process: Arc::new(Mutex::new(System::new().ok())), // a system that tells nothing costs two series, not the service
        })
    }

    /// A counter; the same name and labels give the same series.
    pub fn counter(&self, name: &'static str, labels: Labels<'_>) -> Counter {
        self.recorder.register_counter(&self.key(name, labels), &METADATA)
    }

    /// A gauge; the same name and labels give the same series.
    pub fn gauge(&self, name: &'static str, labels: Labels<'_>) -> Gauge {
        self.recorder.register_gauge(&self.key(name, labels), &METADATA)
    }

    /// A histogram; the same name and labels give the same series.
    pub fn histogram(&self, name: &'static str, labels: Labels<'_>) -> Histogram {
        self.recorder
            .register_histogram(&self.key(name, labels), &METADATA)
    }

    fn key(&self, name: &'static str, labels: Labels<'_>) -> Key {
        debug_assert!(
            self.known.iter().any(|known| known.name == name),
            "metric {name} has no definition"
        );
        let labels: Vec<Label> = labels
            .iter()
            .map(|(key, value)| Label::new(*key, value.clone()))
            .collect();
        Key::from_parts(name, labels)
    }

    /// Moves observations into their buckets; without it memory grows until the next scrape.
    pub(crate) fn upkeep(&self) {
        self.handle.run_upkeep();
    }

    /// Prometheus text, with the process's memory and CPU as of now.
    #[must_use]
    pub fn render(&self) -> String {
        if let Some((memory, cpu)) = self.process_usage() {
            self.gauge("memory_usage_bytes", &[]).set(memory);
            self.gauge("cpu_usage_percent", &[]).set(cpu);
        }
        self.handle.render()
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "bytes of memory fit a double's 53 bits"
    )]
    fn process_usage(&self) -> Option<(f64, f64)> {
        let pid = Pid::from_u32(std::process::id());
        let mut system = self.process.lock();
        let system = system.as_mut()?;
        let what = ProcessRefreshKind::nothing().with_memory().with_cpu();
        system.refresh_processes_specifics(ProcessesToUpdate::Some(&[pid]), false, what);
        let process = system.process(pid)?;
        Some((process.memory() as f64, f64::from(process.cpu_usage())))
    }
}

static METADATA: Metadata<'static> = Metadata::new("muster", Level::INFO, None);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_services_in_one_process_do_not_share_counters() {
        const MINE: &[Definition] = &[Definition {
            name: "things_total",
            kind: Kind::Counter,
            help: "Things.",
        }];
        let (first, second) = (Metrics::new(MINE).unwrap(), Metrics::new(MINE).unwrap());
        first
            .counter("things_total", &[("kind", "a".into())])
            .increment(2);
        second
            .counter("things_total", &[("kind", "a".into())])
            .increment(1);
        assert!(
            first.render().contains("things_total{kind=\"a\"} 2"),
            "{}",
            first.render()
        );
        assert!(second.render().contains("things_total{kind=\"a\"} 1"));
        assert!(first.render().contains("memory_usage_bytes "));
    }
}
