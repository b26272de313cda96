//! `traceparent` and `tracestate` (W3C), which tell whoever is called of the trace: read from and written to headers, gRPC metadata,
//! and texts as events and the metadata of A2A have them. What is nonsense is as if it were not there.

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator as _};
use opentelemetry::trace::{SpanContext, TraceFlags};
use opentelemetry_sdk::propagation::TraceContextPropagator;

use super::{Context, Place, TraceContextExt as _, current};

/// Headers of W3C's trace context; gRPC metadata, HTTP headers and the extension attributes of CloudEvents have the same names.
pub const TRACEPARENT: &str = "traceparent";
/// See [`TRACEPARENT`].
pub const TRACESTATE: &str = "tracestate";

/// What stands in `traceparent` and `tracestate`; an invalid place where nothing or nonsense does.
#[must_use]
pub fn remote(headers: &HeaderMap) -> Place {
    if !headers.contains_key(TRACEPARENT) {
        return SpanContext::NONE;
    }
    extract(&Headers(headers))
}

/// The same of texts, as events and metadata have them.
#[must_use]
pub fn parsed(traceparent: &str, tracestate: Option<&str>) -> Place {
    extract(&Texts {
        traceparent,
        tracestate,
    })
}

fn extract(from: &dyn Extractor) -> Place {
    let context = TraceContextPropagator::new().extract_with_context(&Context::new(), from);
    context.span().span_context().clone()
}

/// `traceparent` of a place, and `tracestate` if it has one; nothing of an invalid one.
#[must_use]
pub fn texts(place: &Place) -> Option<(String, Option<String>)> {
    place.is_valid().then(|| {
        let flags = place.trace_flags() & TraceFlags::SAMPLED;
        let parent = format!("00-{}-{}-{flags:02x}", place.trace_id(), place.span_id());
        let state = place.trace_state().header();
        (parent, Some(state).filter(|state| !state.is_empty()))
    })
}

/// Tells whoever gets these headers of the current span; leaves them as they are where there is none.
pub fn inject(headers: &mut HeaderMap) {
    Context::map_current(|context| {
        if context.span().span_context().is_valid() {
            TraceContextPropagator::new().inject_context(context, &mut HeadersMut(headers));
        }
    });
}

/// The same for a request over gRPC.
pub fn inject_request<T>(request: &mut tonic::Request<T>) {
    if current().is_valid() {
        let mut headers = std::mem::take(request.metadata_mut()).into_headers();
        inject(&mut headers);
        *request.metadata_mut() = tonic::metadata::MetadataMap::from_headers(headers);
    }
}

/// Tells whoever gets these headers of this span.
pub fn inject_place(place: &Place, headers: &mut HeaderMap) {
    let context = Context::new().with_remote_span_context(place.clone());
    TraceContextPropagator::new().inject_context(&context, &mut HeadersMut(headers));
}

struct Headers<'h>(&'h HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).and_then(|value| value.to_str().ok())
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(HeaderName::as_str).collect()
    }
}

struct HeadersMut<'h>(&'h mut HeaderMap);

impl Injector for HeadersMut<'_> {
    fn set(&mut self, key: &str, value: String) {
        let name = match key {
            TRACEPARENT => HeaderName::from_static(TRACEPARENT),
            TRACESTATE => HeaderName::from_static(TRACESTATE),
            _ => return,
        };
        match HeaderValue::try_from(value) {
            Ok(mut value) if !value.is_empty() => {
                // It differs with each call: in HPACK's table it would only displace what comes again.
                value.set_sensitive(true);
                self.0.insert(name, value);
            }
            _ => {
                self.0.remove(name);
            }
        }
    }
}

struct Texts<'t> {
    traceparent: &'t str,
    tracestate: Option<&'t str>,
}

impl Extractor for Texts<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        match key {
            TRACEPARENT => Some(self.traceparent),
            TRACESTATE => self.tracestate,
            _ => None,
        }
    }

    fn keys(&self) -> Vec<&str> {
        vec![TRACEPARENT, TRACESTATE]
    }
}
