//! What routing needs of an encoded message, read in one pass and without decoding the rest; and the one field that is
//! replaced. Pure.
//!
//! A message that is let through here is one that the official decoder takes, with the same values; the tests hold this
//! against that decoder. It is stricter in one respect: where the router looks, a field that is not repeated stands once.

use std::ops::Range;

use bytes::Bytes;
use muster_api::a2a::TaskState;
use muster_api::extension::ROUTING;

use crate::codec::Pieces;
use crate::operation::{About, Method};
use crate::wire::{self, Checked, Defect, Field, Fields, NOT_UTF8, Schema, TWICE, Value};

/// An encoded request, and where its tenant lies.
#[derive(Debug, Clone)]
pub struct Encoded {
    bytes: Bytes,
    /// Number of the field `tenant`.
    number: u32,
    /// The whole field; empty where there is none.
    field: Range<usize>,
    /// The text in it.
    tenant: Range<usize>,
}

impl Encoded {
    const fn new(bytes: Bytes, number: u32) -> Self {
        Self {
            bytes,
            number,
            field: 0..0,
            tenant: 0..0,
        }
    }

    fn found_tenant(&mut self, field: &Field<'_>, text: &str) {
        self.field = field.start..field.end;
        self.tenant = field.end - text.len()..field.end;
    }

    /// The tenant; empty for none.
    #[must_use]
    pub fn tenant(&self) -> &str {
        let text = self.bytes.get(self.tenant.clone()).unwrap_or_default();
        // It was text when it was found.
        std::str::from_utf8(text).unwrap_or_default()
    }

    /// The request for another tenant; empty for none. All other bytes are as they were.
    #[must_use]
    pub fn with_tenant(&self, tenant: &str) -> Pieces {
        let replaced = if tenant.is_empty() {
            Bytes::new()
        } else {
            let mut field = Vec::with_capacity(tenant.len() + 8);
            wire::put_text(self.number, tenant, &mut field);
            field.into()
        };
        Pieces([
            self.bytes.slice(..self.field.start),
            replaced,
            self.bytes.slice(self.field.end..),
        ])
    }

    /// How many bytes it has.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether it is empty.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

/// A request about a task or a target.
#[derive(Debug, Clone)]
pub struct Asked {
    /// The request.
    pub encoded: Encoded,
    /// The task's id; empty where it names none.
    pub task: String,
}

impl Asked {
    /// Reads a request of this operation.
    ///
    /// # Errors
    /// Names the field that is malformed or stands there twice.
    pub fn read(method: &Method, bytes: Bytes) -> Checked<Self> {
        let mut encoded = Encoded::new(bytes.clone(), method.tenant);
        let mut task = String::new();
        Schema::named(method.request).read(&bytes, 0, |field| {
            if field.number == method.tenant
                && let Some(text) = text(field)?
            {
                encoded.found_tenant(field, text);
                return Ok(true);
            }
            if let About::Task { number, .. } = method.about
                && field.number == number
                && let Some(text) = text(field)?
            {
                text.clone_into(&mut task);
                return Ok(true);
            }
            Ok(false)
        })?;
        Ok(Self { encoded, task })
    }
}

/// A request to send a message.
#[derive(Debug, Clone)]
pub struct Sent {
    /// The request.
    pub encoded: Encoded,
    /// The message in it, if there is one.
    pub message: Option<Message>,
    /// Whether there is a map in it, whose entries have no order.
    pub has_maps: bool,
    /// The routing extension's value in the metadata of the request or else of its message: a `google.protobuf.Value`.
    pub routing: Option<Bytes>,
}

/// What routing needs of a message.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Message {
    /// Its id.
    pub message_id: String,
    /// Its context; empty for a new one.
    pub context_id: String,
    /// Its task; empty for a new one.
    pub task_id: String,
    /// Number of its role.
    pub role: i32,
    /// How many parts it has.
    pub parts: usize,
    /// The first part that holds nothing.
    pub empty_part: Option<usize>,
}

impl Sent {
    /// The conversation that the message belongs to; empty for none.
    #[must_use]
    pub fn context(&self) -> &str {
        self.message.as_ref().map_or("", |message| &message.context_id)
    }

    /// Reads a request to send a message.
    ///
    /// # Errors
    /// Names the field that is malformed or stands there twice.
    pub fn read(bytes: Bytes) -> Checked<Self> {
        let mut encoded = Encoded::new(bytes.clone(), 1);
        let (mut message, mut has_maps) = (None, false);
        let (mut of_request, mut of_message) = (None, None);
        Schema::named("SendMessageRequest").read(&bytes, 0, |field| {
            let Value::Bytes(inner) = field.value else {
                return Ok(false);
            };
            match field.number {
                1 => {
                    if let Some(text) = text(field)? {
                        encoded.found_tenant(field, text);
                    }
                }
                2 => message = Some(read_message(inner, &mut of_message, &mut has_maps)?),
                4 => {
                    of_request = routing_in(inner, 1)?;
                    has_maps = true;
                }
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        let routing = of_request.or(of_message).map(|value| bytes.slice_ref(value));
        Ok(Self {
            encoded,
            message,
            has_maps,
            routing,
        })
    }
}

fn read_message<'b>(
    bytes: &'b [u8],
    routing: &mut Option<&'b [u8]>,
    has_maps: &mut bool,
) -> Checked<Message> {
    let mut message = Message::default();
    let part_schema = Schema::named("Part");
    Schema::named("Message").read(bytes, 1, |field| {
        match (field.number, field.value) {
            (1, Value::Bytes(_)) => take_text(field, &mut message.message_id)?,
            (2, Value::Bytes(_)) => take_text(field, &mut message.context_id)?,
            (3, Value::Bytes(_)) => take_text(field, &mut message.task_id)?,
            (4, Value::Varint(role)) => message.role = enumeration(role),
            (5, Value::Bytes(part)) => {
                let mut has_content = false;
                part_schema.read(part, 2, |field| {
                    has_content |= matches!(field.number, 1..=4);
                    // Its data and its metadata.
                    *has_maps |= matches!(field.number, 4 | 5);
                    Ok(false)
                })?;
                if !has_content && message.empty_part.is_none() {
                    message.empty_part = Some(message.parts);
                }
                message.parts += 1;
            }
            (6, Value::Bytes(metadata)) => {
                *routing = routing_in(metadata, 2)?;
                *has_maps = true;
            }
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(message)
}

/// The routing extension's value in metadata that lie this deep.
fn routing_in(metadata: &[u8], depth: usize) -> Checked<Option<&[u8]>> {
    let mut found = None;
    Schema::named("Struct").read(metadata, depth, |field| {
        if let Value::Bytes(entry) = field.value
            && let Some(value) = routing_entry(entry, depth + 1)?
            && found.replace(value).is_some()
        {
            return Err(Defect::new(TWICE).inside(ROUTING));
        }
        Ok(false)
    })?;
    Ok(found)
}

/// The value of an entry of metadata, where its key is the routing extension's.
fn routing_entry(entry: &[u8], depth: usize) -> Checked<Option<&[u8]>> {
    let mut fields = Fields::of(entry);
    let (mut is_routing, mut value, mut values) = (false, None, 0);
    while let Some(field) = fields.next(depth)? {
        match (field.number, field.value) {
            (1, Value::Bytes(key)) => is_routing = key == ROUTING.as_bytes(),
            (2, Value::Bytes(bytes)) => {
                value = Some(bytes);
                values += 1;
            }
            _ => {}
        }
    }
    if is_routing && values > 1 {
        return Err(Defect::new(TWICE).inside(ROUTING));
    }
    // An entry without a value has an empty one.
    Ok(is_routing.then(|| value.unwrap_or_default()))
}

/// What an answer holds, as far as the owner of a task depends on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Held {
    /// A task, or news of one.
    Task {
        /// Its id.
        id: String,
        /// Whether it has come to its end.
        has_ended: bool,
    },
    /// A message, or what is kept by nobody.
    Other,
    /// Neither a task nor a message, where there should be one of them.
    Nothing,
}

impl Held {
    /// Reads an answer to this operation, or an event of its stream.
    ///
    /// # Errors
    /// Names the field that is malformed, or stands twice where the router looks.
    pub fn read(method: &Method, bytes: &[u8]) -> Checked<Self> {
        let schema = Schema::named(method.answer);
        if !(matches!(method.about, About::Message) || method.is_streamed) {
            return schema.check(bytes, 0).map(|()| Self::Other);
        }
        let mut held = Self::Nothing;
        schema.read(bytes, 0, |field| {
            let Value::Bytes(inner) = field.value else {
                return Ok(false);
            };
            match field.number {
                1 => held = task("Task", inner)?,
                3 => held = task("TaskStatusUpdateEvent", inner)?,
                4 => held = task("TaskArtifactUpdateEvent", inner)?,
                2 => {
                    held = Self::Other;
                    return Ok(false);
                }
                _ => return Ok(false),
            }
            Ok(true)
        })?;
        Ok(held)
    }
}

/// A task or news of one: field 1 of each is the task's id, and field 3 its status, where it has one.
fn task(message: &str, bytes: &[u8]) -> Checked<Held> {
    let (mut id, mut has_ended) = (String::new(), false);
    let has_status = message != "TaskArtifactUpdateEvent";
    Schema::named(message).read(bytes, 1, |field| {
        match (field.number, field.value) {
            (1, Value::Bytes(_)) => take_text(field, &mut id)?,
            (3, Value::Bytes(status)) if has_status => has_ended = is_end(status)?,
            _ => return Ok(false),
        }
        Ok(true)
    })?;
    Ok(Held::Task { id, has_ended })
}

fn is_end(status: &[u8]) -> Checked<bool> {
    let mut state = 0;
    Schema::named("TaskStatus").read(status, 2, |field| match (field.number, field.value) {
        (1, Value::Varint(number)) => {
            state = enumeration(number);
            Ok(true)
        }
        _ => Ok(false),
    })?;
    Ok(matches!(
        TaskState::try_from(state),
        Ok(TaskState::Completed | TaskState::Failed | TaskState::Canceled | TaskState::Rejected)
    ))
}

/// The text of a field; `None` where it holds something else, which its schema refuses.
fn text<'b>(field: &Field<'b>) -> Checked<Option<&'b str>> {
    match field.value {
        Value::Bytes(bytes) => std::str::from_utf8(bytes)
            .map(Some)
            .map_err(|_| Defect::new(NOT_UTF8)),
        _ => Ok(None),
    }
}

fn take_text(field: &Field<'_>, into: &mut String) -> Checked<()> {
    if let Some(text) = text(field)? {
        text.clone_into(into);
    }
    Ok(())
}

/// Numbers of enumerations are 32 bits, of which more are cut off, as everywhere in protobuf.
#[expect(clippy::cast_possible_truncation, reason = "see above")]
const fn enumeration(number: u64) -> i32 {
    number as i32
}

#[cfg(test)]
mod tests;
