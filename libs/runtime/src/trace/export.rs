//! Spans on their way out: a bounded queue, and one task that sends what is in it in batches.
//!
//! Nobody waits for the queue. What finds it full is dropped and counted, and so is what the collector does not take: a
//! collector that is away costs spans, never a request. At a shutdown what is queued is sent, within the drain's deadline.

use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry_otlp::{WithExportConfig as _, WithTonicConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanExporter};
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tonic::metadata::{MetadataKey, MetadataMap, MetadataValue};

use crate::Error;
use crate::metrics::{Counter, Metrics, SPANS};
use crate::telemetry::otlp::Config;

/// What goes through the queue.
#[derive(Debug)]
pub(crate) enum Item {
    Span(Box<SpanData>),
    /// Somebody waits until everything before it was sent.
    Flush(oneshot::Sender<()>),
}

/// Where spans are put that have ended.
#[derive(Clone)]
pub(crate) struct Queue {
    sender: mpsc::Sender<Item>,
    dropped: Counter,
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Queue").finish_non_exhaustive()
    }
}

impl Queue {
    pub(crate) fn new(most: usize, metrics: &Metrics) -> (Self, mpsc::Receiver<Item>) {
        let (sender, receiver) = mpsc::channel(most);
        let dropped = metrics.counter(SPANS, &[("outcome", "dropped".to_owned())]);
        dropped.increment(0); // shown before it is the first time
        (Self { sender, dropped }, receiver)
    }

    pub(super) fn put(&self, span: SpanData) {
        if self.sender.try_send(Item::Span(Box::new(span))).is_err() {
            self.dropped.increment(1);
        }
    }

    /// Waits until what is queued was sent, or until `deadline`.
    pub(crate) async fn flush(&self, deadline: Instant) {
        let (told, done) = oneshot::channel();
        let flushed = async {
            if self.sender.send(Item::Flush(told)).await.is_ok() {
                let _ended = done.await;
            }
        };
        if tokio::time::timeout_at(deadline, flushed).await.is_err() {
            tracing::warn!("the last spans were not exported by the drain deadline");
        }
    }
}

/// Sends spans to a collector.
pub(crate) struct Sender {
    exporter: opentelemetry_otlp::SpanExporter,
    queue: mpsc::Receiver<Item>,
    batch: usize,
    interval: Duration,
    exported: Counter,
    failed: Counter,
}

impl Sender {
    /// Sends to where the configuration says, as the service `name`. Within a tokio runtime.
    pub(crate) fn new(
        name: &'static str,
        environment: &'static str,
        config: &Config,
        queue: mpsc::Receiver<Item>,
        metrics: &Metrics,
    ) -> Result<Self, Error> {
        let wrong = |key: &str, what: String| Error::Other(format!("telemetry.otlp.{key}: {what}"));
        let endpoint = muster_rpc::endpoint::parse(&config.endpoint)
            .map_err(|error| wrong("endpoint", error.to_string()))?;
        let mut metadata = MetadataMap::new();
        for (key, value) in &config.headers {
            let key = MetadataKey::from_bytes(key.as_bytes())
                .map_err(|error| wrong("headers", error.to_string()))?;
            let value = MetadataValue::try_from(value.as_str())
                .map_err(|_| wrong("headers", format!("the value of '{key}' is no text in ASCII")))?;
            metadata.insert(key, value);
        }
        let mut exporter = opentelemetry_otlp::SpanExporter::builder()
            .with_tonic()
            .with_channel(muster_rpc::channel::connect_lazy(&endpoint))
            .with_metadata(metadata)
            .with_timeout(config.timeout())
            .build()
            .map_err(|error| wrong("endpoint", error.to_string()))?;
        exporter.set_resource(&resource(name, environment));
        let counter = |outcome: &str| metrics.counter(SPANS, &[("outcome", outcome.to_owned())]);
        let (exported, failed) = (counter("exported"), counter("failed"));
        exported.increment(0);
        failed.increment(0);
        Ok(Self {
            exporter,
            queue,
            batch: config.max_batch_spans,
            interval: Duration::from_millis(config.batch_interval_milliseconds),
            exported,
            failed,
        })
    }

    /// Sends until nobody makes spans any more.
    pub(crate) async fn run(mut self) {
        let mut answers = true;
        let mut batch = Vec::new();
        let mut waiting = Vec::new();
        loop {
            let is_open = self.gather(&mut batch, &mut waiting).await;
            if !batch.is_empty() {
                let count = batch.len() as u64;
                let outcome = self.exporter.export(std::mem::take(&mut batch)).await;
                // A collector that is away for an hour is told once.
                match &outcome {
                    Ok(()) => self.exported.increment(count),
                    Err(error) => {
                        self.failed.increment(count);
                        if answers {
                            tracing::warn!(%error, "spans cannot be exported; they are dropped until the collector takes them");
                        }
                    }
                }
                if outcome.is_ok() && !answers {
                    tracing::info!("spans are exported again");
                }
                answers = outcome.is_ok();
            }
            for told in waiting.drain(..) {
                let _left = told.send(());
            }
            if !is_open {
                return;
            }
        }
    }

    /// Gathers a batch: until it is full, somebody waits for it, or it is old enough. Whether there may be more.
    async fn gather(&mut self, batch: &mut Vec<SpanData>, waiting: &mut Vec<oneshot::Sender<()>>) -> bool {
        let mut end = None;
        while batch.len() < self.batch && waiting.is_empty() {
            let next = match end {
                None => self.queue.recv().await,
                Some(end) => match tokio::time::timeout_at(end, self.queue.recv()).await {
                    Ok(next) => next,
                    Err(_) => break,
                },
            };
            match next {
                None => return false,
                Some(Item::Span(span)) => {
                    batch.push(*span);
                    end = end.or_else(|| Some(Instant::now() + self.interval));
                }
                Some(Item::Flush(told)) => waiting.push(told),
            }
        }
        true
    }
}

fn resource(name: &'static str, environment: &'static str) -> Resource {
    let mut attributes = vec![
        KeyValue::new("service.namespace", "muster"),
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::new("service.instance.id", format!("{name}-{}", std::process::id())),
        KeyValue::new("deployment.environment.name", environment),
        KeyValue::new("process.pid", i64::from(std::process::id())),
    ];
    if let Ok(host) = sysinfo::System::host_name() {
        attributes.push(KeyValue::new("host.name", host));
    }
    Resource::builder_empty()
        .with_service_name(name)
        .with_attributes(attributes)
        .build()
}
