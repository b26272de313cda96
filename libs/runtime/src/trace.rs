//! Traces: spans of OpenTelemetry, from whoever calls through every service to the agent and back.
//!
//! A [`Tracer`] belongs to one service, so that several of them in one process are told apart by `service.name`. It is
//! off unless `telemetry.otlp.endpoint` is set, and then costs one comparison per request: no span, no string, no context. On, it makes
//! [`Span`]s, which end when they are dropped and go into a bounded queue ([`export`]).
//!
//! Most spans of a busy fleet are not sampled, so that those must cost next to nothing: a span's name comes from a function that only a
//! sampled one calls, its attributes are asked for only there ([`Span::is_recorded`]), and one that is not sampled is nothing on the heap.
//! It has no identifier of its own: within another one that is not sampled it is that one, and passes its place on. A root
//! that is not sampled has a place all the same, so that whoever is called does not decide anew.
//!
//! Who is called next learns of the trace by `traceparent` and `tracestate` (W3C): [`inject`] writes those of the current
//! span into what goes out, and [`FutureExt::with_context`] says which span is the current one. Services that do not trace
//! pass on what they got.
//!
//! The data types, the sampler, the identifiers and the propagation are the SDK's. Its spans and its processor are not used:
//! a step of a run has a span whose identifiers follow from the run ([`Tracer::derived`]), so that it is the same span whichever
//! engine works on it and however often that was killed, and the SDK's builder takes no identifiers; and its queue does
//! not tell how many spans it has dropped. Rejected: spans of the crate `tracing`, whose layer for OpenTelemetry is one for
//! the process and so knows one service only, and which every request would pay for.

pub(crate) mod export;
mod propagation;
mod span;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures::FutureExt as _;
use http::HeaderMap;
use jiff::Timestamp;
use opentelemetry::trace::{SpanContext, SpanId, Status, TraceFlags, TraceState};
use opentelemetry::{InstrumentationScope, Value};
use opentelemetry_sdk::trace::{
    IdGenerator as _, RandomIdGenerator, Sampler, SamplingDecision, ShouldSample, SpanData, SpanEvents,
    SpanLinks,
};

use crate::clock::SharedClock;

pub use opentelemetry::Context;
pub use opentelemetry::Value as Attribute;
pub use opentelemetry::trace::{FutureExt, SpanContext as Place, SpanKind as Kind, TraceContextExt, TraceId};
pub use propagation::{TRACEPARENT, TRACESTATE, inject, inject_place, inject_request, parsed, remote, texts};
pub use span::Span;
use span::{Open, State};

/// The parent of a span without one.
pub const NO_SPAN: SpanId = SpanId::INVALID;

/// Makes the spans of one service. Clones make them for the same one.
#[derive(Debug, Clone, Default)]
pub struct Tracer(Option<Arc<Inner>>);

#[derive(Debug)]
struct Inner {
    /// Decides about spans without a parent.
    roots: Sampler,
    ids: RandomIdGenerator,
    clock: SharedClockDebug,
    scope: InstrumentationScope,
    queue: export::Queue,
}

/// A clock that can be shown.
struct SharedClockDebug(SharedClock);

impl std::fmt::Debug for SharedClockDebug {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Clock")
    }
}

/// Whom and what a piece of work is about, for its logs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Subject {
    /// The run.
    pub run: Option<Arc<str>>,
    /// The task of a run, or of an agent.
    pub task: Option<Arc<str>>,
    /// The agent.
    pub agent: Option<Arc<str>>,
}

/// A span whose identifiers follow from what it is about: see [`Tracer::derived`].
#[derive(Debug, Clone)]
pub struct Derived {
    /// What kind it is.
    pub kind: Kind,
    /// Its name.
    pub name: Cow<'static, str>,
    /// What it is in the trace.
    pub place: Place,
    /// The span around it; invalid for none.
    pub parent: SpanId,
    /// When it began.
    pub started: Timestamp,
    /// When it ended.
    pub ended: Timestamp,
}

impl Tracer {
    /// One that is off.
    #[must_use]
    pub const fn off() -> Self {
        Self(None)
    }

    pub(crate) fn new(ratio: f64, clock: SharedClock, queue: export::Queue) -> Self {
        let scope = InstrumentationScope::builder("muster")
            .with_version(env!("CARGO_PKG_VERSION"))
            .build();
        Self(Some(Arc::new(Inner {
            roots: Sampler::TraceIdRatioBased(ratio),
            ids: RandomIdGenerator::default(),
            clock: SharedClockDebug(clock),
            scope,
            queue,
        })))
    }

    /// Whether it makes spans.
    #[must_use]
    pub const fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// A span of a request that came in with these headers: part of its caller's trace, if it says so.
    #[must_use]
    pub fn incoming<N: Into<Cow<'static, str>>>(
        &self,
        kind: Kind,
        name: impl FnOnce() -> N,
        headers: &HeaderMap,
    ) -> Span {
        match &self.0 {
            None => Span::default(),
            Some(tracer) => tracer.span(kind, name, &remote(headers)),
        }
    }

    /// A span within the current one.
    #[must_use]
    pub fn span<N: Into<Cow<'static, str>>>(&self, kind: Kind, name: impl FnOnce() -> N) -> Span {
        match &self.0 {
            None => Span::default(),
            Some(tracer) => tracer.span(kind, name, &current()),
        }
    }

    /// A span within this one.
    #[must_use]
    pub fn within<N: Into<Cow<'static, str>>>(
        &self,
        parent: &Place,
        kind: Kind,
        name: impl FnOnce() -> N,
    ) -> Span {
        match &self.0 {
            None => Span::default(),
            Some(tracer) => tracer.span(kind, name, parent),
        }
    }

    /// The place of a span that follows from a seed: the same seed in the same trace gives the same place, here and in every other
    /// process. In the trace of `parent`; without one, in a trace that follows from the seed as well, and that is sampled
    /// as the ratio says. `None` if the tracer is off.
    #[must_use]
    pub fn derived(&self, parent: Option<&Place>, seed: &[&str]) -> Option<Place> {
        let tracer = self.0.as_deref()?;
        let digest = digest(seed);
        let span_id = SpanId::from_bytes(first(&digest[16..]));
        Some(match parent.filter(|parent| parent.is_valid()) {
            Some(parent) => SpanContext::new(
                parent.trace_id(),
                span_id,
                parent.trace_flags(),
                false,
                parent.trace_state().clone(),
            ),
            None => {
                let trace_id = TraceId::from_bytes(first(&digest));
                let flags = tracer.decide(trace_id);
                SpanContext::new(trace_id, span_id, flags, false, TraceState::NONE)
            }
        })
    }

    /// Records a span that has ended, with these attributes; `failed` is the type of the error and what it says.
    pub fn record(
        &self,
        span: Derived,
        attributes: impl IntoIterator<Item = (&'static str, Value)>,
        failed: Option<(&str, &str)>,
    ) {
        let Some(tracer) = &self.0 else { return };
        if !span.place.is_sampled() {
            return;
        }
        let data = tracer.data(span.kind, span.name, span.place, span.parent);
        let mut recorded = Span(State::Recorded(Box::new(Open {
            tracer: Arc::clone(tracer),
            data: SpanData {
                start_time: system_time(span.started),
                ..data
            },
        })));
        for (key, value) in attributes {
            recorded.set(key, value);
        }
        if let Some((kind, what)) = failed {
            recorded.fail(kind.to_owned(), what);
        }
        recorded.end_at(system_time(span.ended));
    }
}

impl Inner {
    fn span<N: Into<Cow<'static, str>>>(
        self: &Arc<Self>,
        kind: Kind,
        name: impl FnOnce() -> N,
        parent: &SpanContext,
    ) -> Span {
        let parent = Some(parent).filter(|parent| parent.is_valid());
        let (trace_id, flags, state) = match parent {
            Some(parent) if !parent.is_sampled() => return Span(State::Unsampled(parent.clone())),
            Some(parent) => (
                parent.trace_id(),
                TraceFlags::SAMPLED,
                parent.trace_state().clone(),
            ),
            None => {
                let trace_id = self.ids.new_trace_id();
                (trace_id, self.decide(trace_id), TraceState::NONE)
            }
        };
        let place = SpanContext::new(trace_id, self.ids.new_span_id(), flags, false, state);
        if !flags.is_sampled() {
            return Span(State::Unsampled(place));
        }
        let around = parent.map_or(SpanId::INVALID, SpanContext::span_id);
        let data = SpanData {
            parent_span_is_remote: parent.is_some_and(SpanContext::is_remote),
            ..self.data(kind, name().into(), place, around)
        };
        Span(State::Recorded(Box::new(Open {
            tracer: Arc::clone(self),
            data,
        })))
    }

    fn data(&self, kind: Kind, name: Cow<'static, str>, place: SpanContext, parent: SpanId) -> SpanData {
        let now = self.now();
        SpanData {
            span_context: place,
            parent_span_id: parent,
            parent_span_is_remote: false,
            span_kind: kind,
            name,
            start_time: now,
            end_time: now,
            attributes: Vec::new(),
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: Status::Unset,
            instrumentation_scope: self.scope.clone(),
        }
    }

    /// Whether a trace that begins here is sampled: as the ratio says. What is within another span is sampled as that is.
    fn decide(&self, trace: TraceId) -> TraceFlags {
        let result = self
            .roots
            .should_sample(None, trace, "", &Kind::Internal, &[], &[]);
        match result.decision {
            SamplingDecision::RecordAndSample => TraceFlags::SAMPLED,
            SamplingDecision::RecordOnly | SamplingDecision::Drop => TraceFlags::default(),
        }
    }

    fn now(&self) -> SystemTime {
        system_time(self.clock.0.now())
    }
}

/// Polls a future within a context, where there is one. Of a pinned future it takes the reference, so that nobody carries it twice and
/// nothing goes on the heap.
pub async fn inside<F: Future + Unpin>(context: Option<Context>, mut future: F) -> F::Output {
    std::future::poll_fn(move |task| {
        let _current = context.clone().map(Context::attach);
        future.poll_unpin(task)
    })
    .await
}

/// The current span; an invalid one for none.
#[must_use]
pub fn current() -> Place {
    Context::map_current(|context| context.span().span_context().clone())
}

/// The current context with what a piece of work is about, for its logs.
#[must_use]
pub fn about(subject: Subject) -> Context {
    Context::current_with_value(subject)
}

/// The current context, of whose subject this is the task.
#[must_use]
pub fn about_task(task: Arc<str>) -> Context {
    Context::map_current(|context| {
        let subject = context.get::<Subject>().cloned().unwrap_or_default();
        context.with_value(Subject {
            task: Some(task),
            ..subject
        })
    })
}

/// A digest of texts of which none runs into the next.
fn digest(seed: &[&str]) -> [u8; 32] {
    use sha2::{Digest as _, Sha256};
    let mut digest = Sha256::new();
    for part in seed {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part.as_bytes());
    }
    digest.finalize().into()
}

/// The first bytes, which are never all zero: that would be no identifier.
fn first<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut taken = [0; N];
    for (to, from) in taken.iter_mut().zip(bytes) {
        *to = *from;
    }
    if taken.iter().all(|byte| *byte == 0) {
        taken[0] = 1;
    }
    taken
}

/// Times before 1970 are none that anything here happens at.
fn system_time(time: Timestamp) -> SystemTime {
    let since = u64::try_from(time.as_nanosecond()).unwrap_or_default();
    SystemTime::UNIX_EPOCH + Duration::from_nanos(since)
}

/// How long ago something was, as an instant: for spans of what was measured before they were made.
#[must_use]
pub fn ago(now: Timestamp, waited: Duration) -> Timestamp {
    let waited = jiff::SignedDuration::try_from(waited).unwrap_or(jiff::SignedDuration::ZERO);
    now.checked_sub(waited).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use http::HeaderName;
    use proptest::prelude::*;

    use super::span::MOST_CHARACTERS;
    use super::*;
    use crate::clock::ManualClock;
    use crate::metrics::Metrics;

    fn tracer(ratio: f64) -> (Tracer, export::Ended) {
        let (queue, spans) = export::Queue::new(4, 4, &Metrics::new(&[]).unwrap());
        (Tracer::new(ratio, Arc::new(ManualClock::default()), queue), spans)
    }

    fn ended(spans: &mut export::Ended) -> SpanData {
        spans.next().expect("a span has ended")
    }

    const CALLER: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn headers(traceparent: &str) -> HeaderMap {
        HeaderMap::from_iter([
            (HeaderName::from_static(TRACEPARENT), traceparent.parse().unwrap()),
            (HeaderName::from_static(TRACESTATE), "vendor=x".parse().unwrap()),
        ])
    }

    #[tokio::test]
    async fn a_trace_goes_from_the_caller_through_spans_to_whom_is_called() {
        let (tracer, mut spans) = tracer(0.0); // the caller's word counts
        let mut server = tracer.incoming(Kind::Server, || "served", &headers(CALLER));
        server.set("rpc.system", "grpc");
        let mut out = HeaderMap::new();
        async { inject(&mut out) }
            .with_context(server.context().unwrap())
            .await;
        let place = server.place().unwrap().clone();
        assert_eq!(
            remote(&out),
            SpanContext::new(
                place.trace_id(),
                place.span_id(),
                TraceFlags::SAMPLED,
                true,
                place.trace_state().clone(),
            )
        );
        assert_eq!(out[TRACESTATE], "vendor=x");
        server.fail("unavailable", "nobody is there");
        drop(server);
        let data = ended(&mut spans);
        assert_eq!(
            data.span_context.trace_id().to_string(),
            "0af7651916cd43dd8448eb211c80319c"
        );
        assert_eq!(data.parent_span_id.to_string(), "b7ad6b7169203331");
        assert!(data.parent_span_is_remote);
        assert_eq!(data.status, Status::error("nobody is there"));
    }

    #[test]
    fn what_the_caller_does_not_sample_nobody_does_and_it_is_passed_on() {
        let (tracer, mut spans) = tracer(1.0);
        let never = || -> String { panic!("nobody asks for the name of what is not recorded") };
        let caller = CALLER.replace("-01", "-00");
        let span = tracer.incoming(Kind::Server, never, &headers(&caller));
        assert!(!span.is_recorded());
        let within = tracer.within(span.place().unwrap(), Kind::Client, never);
        let (parent, state) = texts(within.place().unwrap()).unwrap();
        assert_eq!((parent, state.as_deref()), (caller, Some("vendor=x")));
        drop((span, within));
        assert!(spans.next().is_none());
        assert!(!Tracer::off().span(Kind::Client, never).is_recorded());
        assert!(Tracer::off().span(Kind::Client, never).context().is_none());
    }

    #[tokio::test]
    async fn what_is_not_sampled_here_is_so_for_all_within_and_whoever_is_called() {
        let (tracer, mut spans) = tracer(0.0);
        let root = tracer.span(Kind::Server, || "root");
        let place = root.place().unwrap().clone();
        assert!(place.is_valid() && !place.is_sampled() && !root.is_recorded());
        let within = std::pin::pin!(async {
            tokio::task::yield_now().await;
            let mut called = HeaderMap::new();
            inject(&mut called);
            (tracer.span(Kind::Client, || "within"), called)
        });
        let (within, called) = inside(root.context(), within).await;
        assert_eq!(within.place(), Some(&place));
        assert_eq!(remote(&called).trace_id(), place.trace_id());
        assert!(!remote(&called).is_sampled());
        assert!(!current().is_valid(), "the context is left");
        drop(root);
        assert!(spans.next().is_none());
    }

    #[test]
    fn so_many_roots_are_sampled_as_the_ratio_says() {
        let (tracer, _spans) = tracer(0.1);
        let sampled = (0..10_000)
            .filter(|_| tracer.span(Kind::Server, || "root").is_recorded())
            .count();
        // Six standard deviations to each side.
        assert!((820..=1_180).contains(&sampled), "{sampled}");
    }

    #[test]
    fn a_full_queue_drops_spans_and_attributes_are_bounded() {
        let (tracer, mut spans) = tracer(1.0);
        for _ in 0..10 {
            let mut span = tracer.span(Kind::Internal, || "x");
            for _ in 0..100 {
                span.set("long", "é".repeat(1_000));
            }
        }
        let data = ended(&mut spans);
        assert_eq!((data.attributes.len(), data.dropped_attributes_count), (32, 68));
        assert_eq!(data.attributes[0].value.as_str().chars().count(), MOST_CHARACTERS);
        assert_eq!(std::iter::from_fn(|| spans.next()).count(), 3);
    }

    proptest! {
        #[test]
        fn derived_places_follow_from_their_seeds(run in ".{0,20}", other in ".{0,20}", step in 0_u64..1000) {
            let (here, there) = (tracer(1.0).0, tracer(1.0).0);
            let root = here.derived(None, &[&run]).unwrap();
            prop_assert_eq!(&root, &there.derived(None, &[&run]).unwrap());
            let step = step.to_string();
            let place = here.derived(Some(&root), &[&run, &step]).unwrap();
            prop_assert_eq!(place.trace_id(), root.trace_id());
            prop_assert!(place.is_valid() && place.span_id() != root.span_id());
            prop_assert_eq!(&place, &there.derived(Some(&root), &[&run, &step]).unwrap());
            if run != other {
                prop_assert_ne!(here.derived(None, &[&other]).unwrap().trace_id(), root.trace_id());
            }
        }

        #[test]
        fn no_header_makes_it_panic(parent in "[ -~]{0,80}", state in "[ -~]{0,80}") {
            let place = parsed(&parent, Some(&state));
            if let Some((parent, state)) = texts(&place) {
                prop_assert_eq!(parsed(&parent, state.as_deref()), place);
            }
        }
    }
}
