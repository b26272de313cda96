//! One span: what is set on it while it is open, within bounds, and how it ends.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::SystemTime;

use opentelemetry::trace::{Link, SpanContext, Status};
use opentelemetry::{Array, KeyValue, StringValue, Value};
use opentelemetry_sdk::trace::SpanData;

use super::{Context, Inner, Place, TraceContextExt as _, TraceId};

/// Most attributes of a span, and most characters of one.
const MOST_ATTRIBUTES: usize = 32;
pub(super) const MOST_CHARACTERS: usize = 256;

/// Of a span: what happens, where it belongs, and when it began. Ends when it is dropped.
///
/// One that is not sampled has a place all the same, so that those who are called know not to sample either. The default is one of a
/// tracer that is off.
#[derive(Debug, Default)]
pub struct Span(pub(super) State);

#[derive(Debug, Default)]
pub(super) enum State {
    #[default]
    Off,
    /// The place of the outermost span that is not sampled.
    Unsampled(SpanContext),
    Recorded(Box<Open>),
}

#[derive(Debug)]
pub(super) struct Open {
    pub(super) tracer: Arc<Inner>,
    pub(super) data: SpanData,
}

impl Span {
    /// Whether what is set is kept. Ask before making an attribute that costs something.
    #[must_use]
    pub fn is_recorded(&self) -> bool {
        matches!(self.0, State::Recorded(_))
    }

    fn data(&mut self) -> Option<&mut SpanData> {
        match &mut self.0 {
            State::Recorded(open) => Some(&mut open.data),
            State::Off | State::Unsampled(_) => None,
        }
    }

    /// Sets an attribute. Texts are cut, and too many attributes are counted as dropped.
    pub fn set(&mut self, key: &'static str, value: impl Into<Value>) {
        let Some(data) = self.data() else { return };
        if data.attributes.len() >= MOST_ATTRIBUTES {
            data.dropped_attributes_count = data.dropped_attributes_count.saturating_add(1);
            return;
        }
        data.attributes.push(KeyValue::new(key, bounded(value.into())));
    }

    /// It fails: `error.type`, and what it says.
    pub fn fail(&mut self, kind: impl Into<StringValue>, what: &str) {
        if !self.is_recorded() {
            return;
        }
        self.set("error.type", Value::String(kind.into()));
        if let Some(data) = self.data() {
            data.status = Status::error(cut(what).into_owned());
        }
    }

    /// It has to do with another one that is not around it.
    pub fn link(&mut self, other: &Place) {
        if let Some(data) = self.data()
            && other.is_valid()
            && data.links.links.len() < MOST_ATTRIBUTES
        {
            data.links.links.push(Link::with_context(other.clone()));
        }
    }

    /// Where it is in its trace.
    #[must_use]
    pub fn place(&self) -> Option<&Place> {
        match &self.0 {
            State::Off => None,
            State::Unsampled(place) => Some(place),
            State::Recorded(open) => Some(&open.data.span_context),
        }
    }

    /// Its trace, if it is sampled.
    #[must_use]
    pub fn sampled_trace(&self) -> Option<TraceId> {
        let place = self.place().filter(|place| place.is_sampled());
        place.map(SpanContext::trace_id)
    }

    /// The current context with this span as the current one, for [`inside`] and [`FutureExt::with_context`]; `None` where nothing is
    /// traced.
    #[must_use]
    pub fn context(&self) -> Option<Context> {
        self.place()
            .map(|place| Context::current().with_remote_span_context(place.clone()))
    }

    pub(super) fn end_at(mut self, end: SystemTime) {
        if let State::Recorded(open) = std::mem::take(&mut self.0) {
            open.end(end);
        }
    }
}

impl Open {
    fn end(self, end: SystemTime) {
        self.tracer.queue.put(SpanData {
            end_time: end,
            ..self.data
        });
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        if let State::Recorded(open) = std::mem::take(&mut self.0) {
            let now = open.tracer.now();
            open.end(now);
        }
    }
}

fn bounded(value: Value) -> Value {
    match value {
        Value::String(text) => match cut(text.as_str()) {
            Cow::Borrowed(_) => Value::String(text),
            Cow::Owned(text) => Value::String(text.into()),
        },
        Value::Array(Array::String(mut texts)) => {
            texts.truncate(MOST_ATTRIBUTES);
            Value::Array(Array::String(texts))
        }
        other => other,
    }
}

fn cut(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(MOST_CHARACTERS) {
        None => text.into(),
        Some((end, _)) => text.get(..end).unwrap_or_default().to_owned().into(),
    }
}
