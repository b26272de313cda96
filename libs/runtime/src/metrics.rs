//! Prometheus metrics of one service, without a global recorder.
//!
//! Every crate names its metrics in one table of [`Definition`]s; a name that is not in a table is refused in
//! debug builds, so that no dashboard query can miss one. Label values must come from bounded sets; [`Bounded`] makes one of
//! what others choose.

mod exemplars;

use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt::Write as _;
use std::sync::Arc;

pub use ::metrics::{Counter, Gauge, Histogram};
use ::metrics::{Key, Label, Level, Metadata, Recorder as _, SharedString};
use jiff::Timestamp;
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use parking_lot::Mutex;
use sysinfo::{Pid, ProcessRefreshKind, ProcessesToUpdate, System};

use crate::trace::TraceId;
use crate::{Error, telemetry};
use exemplars::Exemplars;

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

/// See [`STANDARD`].
pub(crate) const REQUESTS: &str = "http_requests_total";
pub(crate) const REQUEST_SECONDS: &str = "http_request_duration_seconds";
pub(crate) const GRPC_HANDLED: &str = "grpc_server_handled_total";
pub(crate) const GRPC_HANDLING: &str = "grpc_server_handling_seconds";
pub(crate) const ERRORS: &str = "errors_total";
pub(crate) const BACKGROUND_RUNS: &str = "background_runs_total";
pub(crate) const BACKGROUND_SECONDS: &str = "background_duration_seconds";
pub(crate) const BACKGROUND_LAST: &str = "background_last_success_timestamp_seconds";
pub(crate) const SPANS: &str = "telemetry_spans_total";
const MEMORY: &str = "memory_usage_bytes";
const CPU: &str = "cpu_usage_percent";
const CPU_SECONDS: &str = "process_cpu_seconds_total";
const RESIDENT: &str = "process_resident_memory_bytes";
const STARTED: &str = "process_start_time_seconds";
const OPEN_FILES: &str = "process_open_fds";
const MOST_FILES: &str = "process_max_fds";
const WORKERS: &str = "tokio_workers";
const TOKIO_TASKS: &str = "tokio_tasks";
const TOKIO_QUEUE: &str = "tokio_global_queue_depth";
const TOKIO_BUSY: &str = "tokio_busy_seconds_total";

/// What every service has.
pub const STANDARD: &[Definition] = &[
    Definition {
        name: "agent_info",
        kind: Kind::Gauge,
        help: "Always 1; labels say which service, version and environment this is.",
    },
    Definition {
        name: REQUESTS,
        kind: Kind::Counter,
        help: "Requests on the data port, by method, endpoint and status_code. A gRPC request counts when its stream ends, with its code as HTTP status.",
    },
    Definition {
        name: REQUEST_SECONDS,
        // From 0.1 s on the customary bounds; below, finer ones, because most answers come from memory.
        kind: Kind::Histogram(&[0.001, 0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0]),
        help: "Seconds until the response's head, by method and endpoint; how long its body or stream takes is not in it.",
    },
    Definition {
        name: GRPC_HANDLED,
        kind: Kind::Counter,
        help: "gRPC requests that ended, by grpc_service, grpc_method and grpc_code.",
    },
    Definition {
        name: GRPC_HANDLING,
        kind: Kind::Histogram(&[0.001, 0.005, 0.025, 0.1, 0.5, 1.0, 5.0, 30.0, 300.0]),
        help: "Seconds until a gRPC request has ended, streams included, by grpc_service, grpc_method and grpc_code.",
    },
    Definition {
        name: ERRORS,
        kind: Kind::Counter,
        help: "Requests that were refused or failed, and panics, by error_type and component.",
    },
    Definition {
        name: BACKGROUND_RUNS,
        kind: Kind::Counter,
        help: "How often a background service has done its work, by background and outcome (success, failure).",
    },
    Definition {
        name: BACKGROUND_SECONDS,
        kind: Kind::Histogram(&[0.001, 0.01, 0.1, 0.5, 1.0, 5.0, 30.0]),
        help: "Seconds that a background service took for its work, by background.",
    },
    Definition {
        name: BACKGROUND_LAST,
        kind: Kind::Gauge,
        help: "When a background service last did its work well, in seconds since 1970, by background.",
    },
    Definition {
        name: SPANS,
        kind: Kind::Counter,
        help: "Spans by outcome: exported, dropped because the queue was full, or failed to be exported.",
    },
    Definition {
        name: MEMORY,
        kind: Kind::Gauge,
        help: "Resident memory of the process.",
    },
    Definition {
        name: CPU,
        kind: Kind::Gauge,
        help: "CPU of the process since the last scrape; 100 is one core.",
    },
    Definition {
        name: CPU_SECONDS,
        kind: Kind::Counter,
        help: "CPU time that the process has used, in whole seconds.",
    },
    Definition {
        name: RESIDENT,
        kind: Kind::Gauge,
        help: "Resident memory of the process, under the name that client libraries of Prometheus give it.",
    },
    Definition {
        name: STARTED,
        kind: Kind::Gauge,
        help: "When the process was started, in seconds since 1970.",
    },
    Definition {
        name: OPEN_FILES,
        kind: Kind::Gauge,
        help: "File descriptors that the process has open.",
    },
    Definition {
        name: MOST_FILES,
        kind: Kind::Gauge,
        help: "File descriptors that the process may have open.",
    },
    Definition {
        name: WORKERS,
        kind: Kind::Gauge,
        help: "Worker threads of the asynchronous runtime.",
    },
    Definition {
        name: TOKIO_TASKS,
        kind: Kind::Gauge,
        help: "Tasks of the asynchronous runtime that have not ended.",
    },
    Definition {
        name: TOKIO_QUEUE,
        kind: Kind::Gauge,
        help: "Tasks that wait for a worker of the asynchronous runtime, in the queue that all share.",
    },
    Definition {
        name: TOKIO_BUSY,
        kind: Kind::Counter,
        help: "Time that all workers of the asynchronous runtime were busy, in whole seconds.",
    },
];

/// Makes and renders the metrics of one service; clones share them.
#[derive(Clone)]
pub struct Metrics {
    recorder: Arc<PrometheusRecorder>,
    handle: PrometheusHandle,
    known: Arc<Vec<Definition>>,
    process: Arc<Mutex<Option<System>>>,
    exemplars: Arc<Exemplars>,
    is_on: bool,
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
            exemplars: Arc::default(),
            is_on: telemetry::measured(),
            process: Arc::new(Mutex::new(System::new().ok())), // a system that tells nothing costs two series, not the service
        })
    }

    /// A counter; the same name and labels give the same series.
    pub fn counter(&self, name: &'static str, labels: Labels<'_>) -> Counter {
        if !self.is_on {
            return Counter::noop();
        }
        self.recorder.register_counter(&self.key(name, labels), &METADATA)
    }

    /// A gauge; the same name and labels give the same series.
    pub fn gauge(&self, name: &'static str, labels: Labels<'_>) -> Gauge {
        if !self.is_on {
            return Gauge::noop();
        }
        self.recorder.register_gauge(&self.key(name, labels), &METADATA)
    }

    /// A histogram; the same name and labels give the same series.
    pub fn histogram(&self, name: &'static str, labels: Labels<'_>) -> Histogram {
        if !self.is_on {
            return Histogram::noop();
        }
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

    /// Names a trace as an example of what a histogram counts, where scrapers ask for that.
    pub(crate) fn exemplify(
        &self,
        name: &'static str,
        labels: &[(&'static str, &str)],
        value: f64,
        trace: TraceId,
        now: Timestamp,
    ) {
        let buckets = self.known.iter().find_map(|known| match known.kind {
            Kind::Histogram(buckets) if known.name == name => Some(buckets),
            _ => None,
        });
        if let Some(buckets) = buckets {
            self.exemplars.put(name, labels, buckets, value, trace, now);
        }
    }

    /// Prometheus text, with what the process uses as of now.
    #[must_use]
    pub fn render(&self) -> String {
        self.observe_process();
        self.observe_runtime();
        self.handle.render()
    }

    /// The same as OpenMetrics, which has traces as examples beside the buckets.
    #[must_use]
    pub fn render_open(&self) -> String {
        let text = self.render();
        self.exemplars.add_to(&text)
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "bytes of memory and counts of files fit a double's 53 bits"
    )]
    fn observe_process(&self) {
        let pid = Pid::from_u32(std::process::id());
        let mut system = self.process.lock();
        let Some(system) = system.as_mut() else { return };
        let what = ProcessRefreshKind::nothing().with_memory().with_cpu();
        system.refresh_processes_specifics(ProcessesToUpdate::Some(&[pid]), false, what);
        let Some(process) = system.process(pid) else {
            return;
        };
        let set = |name, value: f64| self.gauge(name, &[]).set(value);
        set(MEMORY, process.memory() as f64);
        set(RESIDENT, process.memory() as f64);
        set(CPU, f64::from(process.cpu_usage()));
        set(STARTED, process.start_time() as f64);
        if let Some(files) = process.open_files() {
            set(OPEN_FILES, files as f64);
        }
        if let Some(files) = process.open_files_limit() {
            set(MOST_FILES, files as f64);
        }
        let seconds = process.accumulated_cpu_time() / 1_000;
        self.counter(CPU_SECONDS, &[]).absolute(seconds);
    }

    /// What tokio tells of itself. Not by the crate `tokio-metrics`: what that adds needs a build with `tokio_unstable`.
    #[expect(clippy::cast_precision_loss, reason = "no process has 2^53 tasks")]
    fn observe_runtime(&self) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return; // rendered outside of a runtime there is nothing to tell
        };
        let runtime = runtime.metrics();
        let set = |name, value: usize| self.gauge(name, &[]).set(value as f64);
        set(WORKERS, runtime.num_workers());
        set(TOKIO_TASKS, runtime.num_alive_tasks());
        set(TOKIO_QUEUE, runtime.global_queue_depth());
        let busy = (0..runtime.num_workers()).map(|worker| runtime.worker_total_busy_duration(worker));
        let busy: std::time::Duration = busy.sum();
        self.counter(TOKIO_BUSY, &[]).absolute(busy.as_secs());
    }
}

/// Values of a label that others choose: the first so many have one of their own, all others are `other`.
#[derive(Debug)]
pub struct Bounded {
    most: usize,
    known: Mutex<HashSet<Box<str>>>,
}

impl Bounded {
    /// What values beyond the bound are called.
    pub const OTHER: &'static str = "other";

    /// At most so many.
    #[must_use]
    pub fn new(most: usize) -> Self {
        Self {
            most,
            known: Mutex::default(),
        }
    }

    /// The value as a label.
    pub fn label<'v>(&self, value: &'v str) -> &'v str {
        let mut known = self.known.lock();
        if known.contains(value) {
            return value;
        }
        if known.len() < self.most {
            known.insert(value.into());
            return value;
        }
        Self::OTHER
    }
}

/// Definitions as rows of a table in Markdown, for documentation that a test compares with it.
#[must_use]
pub fn rows(definitions: &[Definition]) -> String {
    definitions.iter().fold(String::new(), |mut rows, definition| {
        let kind: Cow<'_, str> = match definition.kind {
            Kind::Counter => "counter".into(),
            Kind::Gauge => "gauge".into(),
            Kind::Histogram(buckets) => {
                let bounds: Vec<String> = buckets.iter().map(f64::to_string).collect();
                format!("histogram ({})", bounds.join(" ")).into()
            }
        };
        let help = definition.help.trim_end_matches('.').replace('|', "\\|");
        // Writing to a string cannot fail.
        let _ = writeln!(rows, "| `{}` | {kind} | {help} |", definition.name);
        rows
    })
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
        assert!(first.render().contains("process_open_fds "));
    }

    #[test]
    fn values_that_others_choose_are_bounded() {
        let bounded = Bounded::new(2);
        let labels = ["a", "b", "c", "a"].map(|value| bounded.label(value).to_owned());
        assert_eq!(labels, ["a", "b", "other", "a"]);
    }
}
