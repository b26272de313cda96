//! What a task that emits, or listens, decides.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::current::{Current, Fault};
use super::evaluate::{View, bounded, fits, weight};
use super::fold::known_output;
use super::state::{Body, Cursor, Listening};
use super::{LARGEST_VALUE, MOST_EVENTS, Run};
use crate::cloud_event::{CloudEvent, SPECVERSION};
use crate::document::{Consume, Each, Kind, Listen, Read, Template, Until};
use crate::expression::Expression;
use crate::journal::{EventKind, EventName, Problem, Standard};
use crate::request::{self, Request};

/// Text attributes that an author may compute as another scalar.
const TEXTS: [&str; 6] = ["id", "source", "type", "subject", "datacontenttype", "dataschema"];

/// What a `foreach` makes of the output of its tasks.
#[derive(Default)]
struct Kept {
    /// What is kept of the event, if it is not the output as it stands.
    output: Option<Arc<Value>>,
    /// The new context, if there is one.
    context: Option<Arc<Value>>,
}

impl Current<'_> {
    /// `emit`: the event is complete, and the same however often it is handed to the log.
    pub(super) fn emit(&self, template: &Template) -> Result<EventKind, Fault> {
        let Value::Object(mut event) = self.view.template(template, &self.activation.input)? else {
            return Err(Problem::standard(Standard::Runtime, "an event is an object"));
        };
        event.retain(|name, value| name == "data" || !value.is_null());
        for name in TEXTS {
            if let Some(value @ (Value::Number(_) | Value::Bool(_))) = event.get_mut(name) {
                *value = Value::String(value.to_string());
            }
        }
        self.complete_event(&mut event);
        let event = CloudEvent::check(Value::Object(event))
            .map_err(|error| Problem::standard(Standard::Validation, format!("the event: {error}")))?;
        bounded(event.to_value(), "the event")?;
        Ok(EventKind::CallStarted {
            task: self.pointer(),
            activation: self.id,
            request: Request::Emit(request::Emit { event }),
        })
    }

    /// What the author left away.
    fn complete_event(&self, event: &mut Map<String, Value>) {
        let id = self
            .activation
            .place
            .message_id(self.view.run.id(), &self.activation.pointer);
        let mut complete = |name: &str, value: String| {
            event.entry(name).or_insert(Value::String(value));
        };
        complete("specversion", SPECVERSION.to_owned());
        complete("id", id.to_string());
        complete("time", muster_api::time::rfc3339(self.view.now));
        if event.contains_key("data") {
            event
                .entry("datacontenttype")
                .or_insert_with(|| "application/json".into());
        }
    }

    /// `listen` begins: what is expected of correlations is known from now on.
    pub(super) fn listen(&self, listen: &Listen) -> Result<EventKind, Fault> {
        let mut expect = BTreeMap::new();
        for correlation in listen.to.all_filters().flat_map(|filter| &filter.correlate) {
            if let Some(template) = &correlation.expect {
                let value = self.view.template(template, &self.activation.input)?;
                if value.is_null() {
                    let name = &correlation.name;
                    let detail = format!(
                        "'expect' of the correlation '{name}' is null, which no event can match; give a value, or leave it away"
                    );
                    return Err(Problem::standard(Standard::Expression, detail));
                }
                expect.insert(correlation.name.clone(), value);
            }
        }
        bounded(json!(expect), "what is expected of correlations")?;
        Ok(EventKind::ListenStarted {
            task: self.pointer(),
            activation: self.id,
            from: self.activation.hears_from,
            expect,
        })
    }

    /// What becomes of an event that this task hears; nothing if it is nothing to it.
    pub(super) fn heard(
        &self,
        listen: &Listen,
        listening: &Listening,
        position: u64,
        event: &CloudEvent,
    ) -> Option<EventKind> {
        // An expression that fails on an event does not match it.
        let evaluate = |expression: &Expression, value: &Value| self.view.value(expression, value).ok();
        let taken = listening.hearing.offer(&listen.to, event, &evaluate)?;
        Some(
            self.consumed(listen, listening, (position, event), &taken)
                .unwrap_or_else(|fault| self.fault(fault)),
        )
    }

    fn consumed(
        &self,
        listen: &Listen,
        listening: &Listening,
        (position, event): (u64, &CloudEvent),
        taken: &crate::hearing::Taken,
    ) -> Result<EventKind, Fault> {
        let mut hearing = listening.hearing.clone();
        hearing.take(taken);
        let (mut item, mut done) = (None, hearing.is_done(&listen.to));
        if !taken.until {
            if listening.count >= MOST_EVENTS {
                let detail = format!(
                    "a task listens to at most {MOST_EVENTS} events; let 'until' end it, and listen again in another task or run"
                );
                return Err(Problem::standard(Standard::Runtime, detail));
            }
            let value = match listen.read {
                Read::Data => event.data(),
                Read::Envelope => event.to_value(),
                Read::Raw => event.raw(),
            };
            let value = bounded(value, "the event")?;
            // With a `foreach`, what is kept of the event is known once its tasks have ended.
            if listen.each.is_none() {
                can_keep(listening, &value)?;
                done |= self.is_enough(listen, &listening.items, Some(&value))?;
            } else {
                can_judge(listen, listening, &value)?;
                done = false;
            }
            item = Some(value);
        }
        Ok(EventKind::EventConsumed {
            task: self.pointer(),
            activation: self.id,
            position,
            event: EventName {
                source: event.source().to_owned(),
                id: event.id().to_owned(),
                kind: event.kind().to_owned(),
            },
            filter: taken.filter,
            until: taken.until,
            item,
            correlations: taken.learned.clone(),
            done,
        })
    }

    /// The tasks for an event have ended with this output.
    pub(super) fn end_item(&self, listen: &Listen, listening: &Listening, output: &Arc<Value>) -> EventKind {
        self.item_ended(listen, listening, output)
            .unwrap_or_else(|fault| self.fault(fault))
    }

    fn item_ended(
        &self,
        listen: &Listen,
        listening: &Listening,
        output: &Arc<Value>,
    ) -> Result<EventKind, Fault> {
        let Kept {
            output: kept,
            context,
        } = self.kept(listen.each.as_ref(), output)?;
        can_keep(listening, kept.as_ref().unwrap_or(output))?;
        let done =
            listening.hearing.is_done(&listen.to) || self.is_enough(listen, &listening.events, None)?;
        Ok(EventKind::ItemCompleted {
            task: self.pointer(),
            activation: self.id,
            item: listening.count as u64 - 1,
            output: kept,
            context,
            done,
        })
    }

    /// What is kept of an event, if it is not its output as it stands, and the new context.
    fn kept(&self, each: Option<&Each>, output: &Arc<Value>) -> Result<Kept, Fault> {
        let Some(each) = each else {
            return Ok(Kept::default());
        };
        let scope = self.view.run.scope_inside(Some(self.id));
        let view = |shaped| View {
            scope: scope.as_ref(),
            raw_output: Some(output),
            output: shaped,
            ..View::of(self.view.run, self.task, self.activation, self.view.now)
        };
        let shape = |template| view(None).shared(template, output, "the event's output");
        let shaped = each.output.as_ref().map(shape).transpose()?;
        let kept = shaped.as_ref().unwrap_or(output);
        fits(each.schemas.output.as_ref(), kept, "the event's output")?;
        let export = |template| view(Some(kept)).shared(template, kept, "the context");
        let context = each.export.as_ref().map(export).transpose()?;
        if let Some(context) = &context {
            fits(each.schemas.export.as_ref(), context, "the exported context")?;
        }
        Ok(Kept {
            output: shaped,
            context,
        })
    }

    /// Whether the condition that ends the listening holds for these events, as they were read, and one more.
    fn is_enough(
        &self,
        listen: &Listen,
        events: &[Arc<Value>],
        more: Option<&Arc<Value>>,
    ) -> Result<bool, Fault> {
        let Consume::Any(Until::Condition(condition)) = &listen.to.consume else {
            return Ok(false);
        };
        let events = events.iter().chain(more).map(|event| event.as_ref().clone());
        self.view.is_true(condition, &events.collect())
    }
}

/// Refuses an item with which the task would keep more of the events than a run may.
fn can_keep(listening: &Listening, item: &Arc<Value>) -> Result<(), Fault> {
    let bytes = listening.bytes.saturating_add(weight(item));
    if bytes <= LARGEST_VALUE {
        return Ok(());
    }
    let detail = format!(
        "what the task keeps of the events has about {bytes} bytes; {LARGEST_VALUE} is the most, so keep less of each \
         with 'foreach.output.as'"
    );
    Err(Problem::standard(Standard::Runtime, detail))
}

/// Refuses an event with which the list that the condition is judged on would be larger than a run may have it.
fn can_judge(listen: &Listen, listening: &Listening, event: &Arc<Value>) -> Result<(), Fault> {
    let bytes = listening.event_bytes.saturating_add(weight(event));
    if bytes <= LARGEST_VALUE || !listen.judges_events() {
        return Ok(());
    }
    let detail = format!(
        "the events that 'until' is a condition on have about {bytes} bytes; {LARGEST_VALUE} is the most, so let 'until' end \
         the listening earlier, or end it by events"
    );
    Err(Problem::standard(Standard::Runtime, detail))
}

impl Run {
    /// What a task that has heard an event, or enough of them, does next.
    pub(super) fn next_of_listen(&self, current: &Current<'_>, listening: &Listening) -> Option<EventKind> {
        let Kind::Listen(listen) = &current.task.kind else {
            return None;
        };
        match &listening.current {
            Some(item) => match &item.cursor {
                Cursor::Done(output) => Some(current.end_item(listen, listening, output)),
                cursor => self.follow(current, cursor, current.view.now),
            },
            None if listening.done => {
                let output = known_output(current.activation, &current.task.kind)?;
                Some(current.complete(&output, true, None))
            }
            None => None,
        }
    }

    /// What becomes of an event that a task hears.
    pub(super) fn hear(
        &self,
        id: u64,
        (position, event): (u64, &CloudEvent),
        now: jiff::Timestamp,
    ) -> Option<EventKind> {
        let activation = self.activations.get(&id)?;
        let task = self.definition.workflow.task(&activation.pointer)?;
        let (Body::Listen(listening), Kind::Listen(listen)) = (&activation.body, &task.kind) else {
            return None;
        };
        if self.is_paused() || !listening.waits() || position < listening.from {
            return None;
        }
        let current = Current {
            id,
            task,
            activation,
            view: View::of(self, task, activation, now),
        };
        current.heard(listen, listening, position, event)
    }
}
