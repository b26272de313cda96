//! Attempts as traces have them: the span of each, and how its agent learns of it.
//!
//! An agent hears of the span by headers, and, where its card asks for that, in the metadata of the message too
//! ([`TRACE_IN_METADATA`](muster_api::extension::TRACE_IN_METADATA)). A router that does not trace passes on what the caller said,
//! by the same ways.

use muster_runtime::trace::{self, Kind, Span, TRACEPARENT, TRACESTATE};
use tonic::Request;
use tonic::metadata::MetadataMap;

use super::Forwarder;
use super::deliver::Delivery;
use crate::codec::Pieces;
use crate::fleet::Instance;
use crate::operation::About;
use crate::wire;

impl Forwarder {
    /// The span of an attempt: what `OpenTelemetry` has for calls of agents and for those over gRPC, and what tells slow ones apart.
    pub(super) fn span(&self, delivery: &Delivery<'_>, instance: &Instance, others: usize) -> Span {
        let (method, agent) = (delivery.method, &instance.id.agent);
        let is_message = method.about == About::Message;
        let mut span = self.parts.tracer.span(Kind::Client, || {
            let what = if is_message { "invoke_agent" } else { method.name };
            format!("{what} {agent}")
        });
        if !span.is_recorded() {
            return span;
        }
        if is_message {
            span.set("gen_ai.operation.name", "invoke_agent");
        }
        span.set("gen_ai.agent.id", agent.clone());
        span.set("gen_ai.agent.name", instance.card.name.clone());
        span.set("rpc.system", "grpc");
        span.set("rpc.service", "lf.a2a.v1.A2AService");
        span.set("rpc.method", method.name);
        span.set("server.address", instance.endpoint.to_string());
        span.set("muster.instance.id", instance.id.instance.clone());
        span.set("muster.retry.count", i64::try_from(others).unwrap_or(i64::MAX));
        let before = self.now().saturating_sub(delivery.call.received);
        span.set("muster.before_attempt_seconds", before.as_secs_f64());
        span
    }
}

/// Tells the agent of the span.
pub(super) fn tell(
    delivery: &Delivery<'_>,
    instance: &Instance,
    span: &Span,
    upstream: &mut Request<Pieces>,
) {
    // What the caller does not record has its place, which is in the headers that are passed on.
    if let Some(place) = span.place().filter(|place| !place.is_remote()) {
        let mut headers = std::mem::take(upstream.metadata_mut()).into_headers();
        trace::inject_place(place, &mut headers);
        *upstream.metadata_mut() = MetadataMap::from_headers(headers);
    }
    if instance.has_trace_in_metadata
        && delivery.method.about == About::Message
        && let Some(written) = in_metadata(upstream)
    {
        *upstream.get_mut() = written;
    }
}

/// The message with what the headers say of the trace; `None` where they say nothing.
fn in_metadata(upstream: &Request<Pieces>) -> Option<Pieces> {
    let metadata = upstream.metadata();
    let text = |name: &'static str| Some((name, metadata.get(name)?.to_str().ok()?));
    let texts: Vec<_> = [text(TRACEPARENT)?].into_iter().chain(text(TRACESTATE)).collect();
    // The message was looked through when it came, so that this does not fail.
    let written = wire::metadata::with_texts(&upstream.get_ref().to_vec(), &texts).ok()?;
    Some(Pieces::from(bytes::Bytes::from(written)))
}
