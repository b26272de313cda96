//! Spans on their way out: a bounded queue, and one task that sends what is in it in batches.
//!
//! Nobody waits for the queue. What finds it full is dropped and counted, and so is what the collector does not take: a
//! collector that is away costs spans, never a request. At a shutdown what is queued is sent, within the drain's deadline.
//!
//! A span wakes nobody but when it is the first of a batch or makes it full: waking the task that sends, on a thread of its own, costs a
//! request more than its spans do.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry_otlp::{WithExportConfig as _, WithTonicConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanExporter};
use tokio::sync::{Notify, mpsc, oneshot};
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
    ready: Arc<Ready>,
    /// Spans of a batch.
    batch: usize,
    dropped: Counter,
}

/// Whether it is time to send.
#[derive(Default)]
struct Ready {
    /// A batch is there, or somebody waits for what is.
    word: Notify,
    /// How many wait.
    flushes: AtomicUsize,
}

/// The end of the queue where spans come out.
pub(crate) struct Ended {
    items: mpsc::Receiver<Item>,
    ready: Arc<Ready>,
    batch: usize,
}

impl std::fmt::Debug for Queue {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Queue").finish_non_exhaustive()
    }
}

impl Queue {
    /// A queue for so many spans at most, that go out in batches of that size.
    pub(crate) fn new(most: usize, batch: usize, metrics: &Metrics) -> (Self, Ended) {
        let (sender, items) = mpsc::channel(most);
        let (ready, batch) = (Arc::<Ready>::default(), batch.min(most));
        let dropped = metrics.counter(SPANS, &[("outcome", "dropped".to_owned())]);
        dropped.increment(0); // shown before it is the first time
        let ended = Ended {
            items,
            ready: Arc::clone(&ready),
            batch,
        };
        let queue = Self {
            sender,
            ready,
            batch,
            dropped,
        };
        (queue, ended)
    }

    pub(super) fn put(&self, span: SpanData) {
        if self.sender.try_send(Item::Span(Box::new(span))).is_err() {
            self.dropped.increment(1);
        }
        // The first of a batch has been taken out already.
        if self.sender.max_capacity() - self.sender.capacity() + 1 >= self.batch {
            self.ready.word.notify_one();
        }
    }

    /// Waits until what is queued was sent, or until `deadline`.
    pub(crate) async fn flush(&self, deadline: Instant) {
        let (told, done) = oneshot::channel();
        let flushed = async {
            self.ready.flushes.fetch_add(1, Ordering::SeqCst);
            if self.sender.send(Item::Flush(told)).await.is_ok() {
                self.ready.word.notify_one();
                let _ended = done.await;
            }
        };
        if tokio::time::timeout_at(deadline, flushed).await.is_err() {
            tracing::warn!("the last spans were not exported by the drain deadline");
        }
    }
}

impl Ended {
    /// The next batch: what has come when it is full, somebody waits for it, or its first span is that old. `None` when there are no
    /// spans any more and will be none.
    async fn batch(&mut self, interval: Duration) -> Option<Batch> {
        let mut batch = Batch::default();
        batch.add(self.items.recv().await?);
        let old = tokio::time::sleep(interval);
        tokio::pin!(old);
        // What was said of the batch before may be heard only now, so that it is looked at.
        while batch.waiting.is_empty()
            && self.items.len() + 1 < self.batch
            && self.ready.flushes.load(Ordering::SeqCst) == 0
        {
            tokio::select! {
                () = &mut old => break,
                () = self.ready.word.notified() => {}
            }
        }
        while batch.spans.len() < self.batch && batch.waiting.is_empty() {
            match self.items.try_recv() {
                Ok(item) => batch.add(item),
                Err(_) => break,
            }
        }
        self.ready
            .flushes
            .fetch_sub(batch.waiting.len(), Ordering::SeqCst);
        Some(batch)
    }

    #[cfg(test)]
    pub(super) fn next(&mut self) -> Option<SpanData> {
        match self.items.try_recv() {
            Ok(Item::Span(span)) => Some(*span),
            Ok(Item::Flush(_)) | Err(_) => None,
        }
    }
}

/// What is sent at once, and who waits until it was.
#[derive(Default)]
struct Batch {
    spans: Vec<SpanData>,
    waiting: Vec<oneshot::Sender<()>>,
}

impl Batch {
    fn add(&mut self, item: Item) {
        match item {
            Item::Span(span) => self.spans.push(*span),
            Item::Flush(told) => self.waiting.push(told),
        }
    }
}

/// Sends spans to a collector.
pub(crate) struct Sender {
    exporter: opentelemetry_otlp::SpanExporter,
    queue: Ended,
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
        queue: Ended,
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
            interval: Duration::from_millis(config.batch_interval_milliseconds),
            exported,
            failed,
        })
    }

    /// Sends until nobody makes spans any more.
    pub(crate) async fn run(mut self) {
        let mut answers = true;
        while let Some(Batch { spans, waiting }) = self.queue.batch(self.interval).await {
            if !spans.is_empty() {
                let count = spans.len() as u64;
                let outcome = self.exporter.export(spans).await;
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
            for told in waiting {
                let _left = told.send(());
            }
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;
    use crate::trace::{Kind, Tracer};

    const HOUR: Duration = Duration::from_secs(3_600);

    fn tracer(batch: usize) -> (Tracer, Queue, Ended) {
        let (queue, ended) = Queue::new(8, batch, &Metrics::new(&[]).unwrap());
        let tracer = Tracer::new(1.0, Arc::new(SystemClock::default()), queue.clone());
        (tracer, queue, ended)
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_goes_when_it_is_full_or_its_first_span_is_old() {
        let (tracer, _queue, mut ended) = tracer(3);
        let begun = Instant::now();
        for _ in 0..4 {
            drop(tracer.span(Kind::Internal, || "x"));
        }
        assert_eq!(ended.batch(HOUR).await.unwrap().spans.len(), 3);
        assert_eq!(begun.elapsed(), Duration::ZERO, "nobody waits for more");
        assert_eq!(ended.batch(HOUR).await.unwrap().spans.len(), 1);
        assert_eq!(begun.elapsed(), HOUR);
    }

    #[tokio::test(start_paused = true)]
    async fn what_makes_a_batch_full_while_it_waits_sends_it() {
        let (tracer, _queue, mut ended) = tracer(3);
        let begun = Instant::now();
        let (batch, ()) = tokio::join!(ended.batch(HOUR), async {
            for _ in 0..3 {
                drop(tracer.span(Kind::Internal, || "x"));
                tokio::task::yield_now().await;
            }
        });
        assert_eq!((batch.unwrap().spans.len(), begun.elapsed()), (3, Duration::ZERO));
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_flushes_waits_for_what_was_there_and_for_nothing_else() {
        let (tracer, queue, mut ended) = tracer(8);
        drop(tracer.span(Kind::Internal, || "x"));
        let begun = Instant::now();
        let (batch, ()) = tokio::join!(
            async {
                let batch = ended.batch(HOUR).await.unwrap();
                let sent = batch.spans.len();
                batch.waiting.into_iter().for_each(|told| told.send(()).unwrap());
                sent
            },
            queue.flush(begun + HOUR)
        );
        assert_eq!((batch, begun.elapsed()), (1, Duration::ZERO));
        drop((tracer, queue));
        assert!(ended.batch(HOUR).await.is_none(), "no spans will come any more");
    }
}
