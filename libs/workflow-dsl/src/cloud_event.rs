//! CloudEvents 1.0 in their JSON format: what one must look like, whoever it comes from.
//!
//! An event is kept as the JSON object that the format describes, attributes and data side by side. [`CloudEvent::check`] is
//! the only way to one, so that whoever holds one holds an event with an id, a source and a type.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The version of the specification that events are of.
pub const SPECVERSION: &str = "1.0";

/// Longest value of an attribute, in bytes.
pub const LONGEST_ATTRIBUTE: usize = 2_048;

/// Longest name of an attribute, in bytes.
pub const LONGEST_NAME: usize = 64;

/// Most attributes of one event, those of the specification included.
pub const MOST_ATTRIBUTES: usize = 64;

/// Deepest nesting of the data.
pub const DEEPEST_DATA: usize = 64;

/// The fields that hold the data.
const DATA: [&str; 2] = ["data", "data_base64"];

/// Attributes of the specification that are text.
const TEXTS: [&str; 8] = [
    "id",
    "source",
    "type",
    "specversion",
    "subject",
    "datacontenttype",
    "dataschema",
    "time",
];

/// An event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Value", into = "Value")]
pub struct CloudEvent(Map<String, Value>);

/// Why something is no event; names the attribute.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{attribute}' {message}")]
pub struct Error {
    /// Which attribute; empty for the event as a whole.
    pub attribute: String,
    /// What is wrong and what is allowed.
    pub message: String,
}

impl Error {
    fn new(attribute: &str, message: impl Into<String>) -> Self {
        Self {
            attribute: attribute.to_owned(),
            message: message.into(),
        }
    }
}

impl CloudEvent {
    /// The event that this object describes.
    ///
    /// # Errors
    /// The first attribute that is not as the specification wants it.
    pub fn check(value: Value) -> Result<Self, Error> {
        let Value::Object(mut fields) = value else {
            return Err(Error::new("event", "must be a JSON object"));
        };
        // Null is the same as not there, by the format.
        fields.retain(|name, value| !value.is_null() || name == "data");
        if fields.len() > MOST_ATTRIBUTES {
            let message = format!(
                "has {} attributes, and {MOST_ATTRIBUTES} are the most",
                fields.len()
            );
            return Err(Error::new("event", message));
        }
        for required in ["id", "source", "type", "specversion"] {
            if !fields.contains_key(required) {
                return Err(Error::new(
                    required,
                    "is missing; an event has id, source, type and specversion",
                ));
            }
        }
        for (name, value) in &fields {
            if !DATA.contains(&name.as_str()) {
                check_attribute(name, value)?;
            }
        }
        if fields.get("specversion").and_then(Value::as_str) != Some(SPECVERSION) {
            return Err(Error::new("specversion", "must be '1.0'"));
        }
        check_data(&fields)?;
        Ok(Self(fields))
    }

    /// The text of an attribute; empty if it is not there or no text.
    #[must_use]
    pub fn text(&self, name: &str) -> &str {
        self.0.get(name).and_then(Value::as_str).unwrap_or_default()
    }

    /// The id, unique among the events of its source.
    #[must_use]
    pub fn id(&self) -> &str {
        self.text("id")
    }

    /// Where it comes from.
    #[must_use]
    pub fn source(&self) -> &str {
        self.text("source")
    }

    /// What kind of event it is.
    #[must_use]
    pub fn kind(&self) -> &str {
        self.text("type")
    }

    /// An attribute, or the data.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// The data as JSON: binary data as Base64 text, null where there is none.
    #[must_use]
    pub fn data(&self) -> Value {
        let data = self.0.get("data").or_else(|| self.0.get("data_base64"));
        data.cloned().unwrap_or_default()
    }

    /// The data as text: text as it is, binary data as Base64, anything else as JSON.
    #[must_use]
    pub fn raw(&self) -> Value {
        match self.data() {
            Value::Null => Value::Null,
            Value::String(text) => Value::String(text),
            other => Value::String(other.to_string()),
        }
    }

    /// The whole event as JSON.
    #[must_use]
    pub fn to_value(&self) -> Value {
        Value::Object(self.0.clone())
    }
}

impl TryFrom<Value> for CloudEvent {
    type Error = Error;

    fn try_from(value: Value) -> Result<Self, Error> {
        Self::check(value)
    }
}

impl From<CloudEvent> for Value {
    fn from(event: CloudEvent) -> Self {
        Self::Object(event.0)
    }
}

impl fmt::Display for CloudEvent {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {} from {}", self.kind(), self.id(), self.source())
    }
}

/// Whether an attribute may have this name: lower-case letters and digits.
#[must_use]
pub fn is_attribute_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    !name.is_empty() && name.len() <= LONGEST_NAME && name.bytes().all(allowed)
}

fn check_attribute(name: &str, value: &Value) -> Result<(), Error> {
    if !is_attribute_name(name) {
        let message =
            format!("is no name of an attribute: 1 to {LONGEST_NAME} lower-case letters and digits");
        return Err(Error::new(name, message));
    }
    let text = match value {
        Value::String(text) => text,
        _ if TEXTS.contains(&name) => return Err(Error::new(name, "must be text")),
        Value::Bool(_) => return Ok(()),
        Value::Number(number)
            if number
                .as_i64()
                .is_some_and(|number| i32::try_from(number).is_ok()) =>
        {
            return Ok(());
        }
        _ => {
            return Err(Error::new(
                name,
                "must be text, true, false or a whole number of 32 bits; values of any other kind belong in 'data'",
            ));
        }
    };
    if text.is_empty() && TEXTS.contains(&name) {
        return Err(Error::new(name, "must not be empty"));
    }
    if text.len() > LONGEST_ATTRIBUTE {
        let message = format!("has {} bytes, and {LONGEST_ATTRIBUTE} are the most", text.len());
        return Err(Error::new(name, message));
    }
    if text.chars().any(char::is_control) {
        return Err(Error::new(name, "must have no control characters"));
    }
    if matches!(name, "source" | "dataschema") && text.contains(char::is_whitespace) {
        return Err(Error::new(name, "must be a URI, without spaces"));
    }
    if name == "time" && text.parse::<Timestamp>().is_err() {
        return Err(Error::new(name, "must be a time such as '2026-03-01T12:00:00Z'"));
    }
    Ok(())
}

fn check_data(fields: &Map<String, Value>) -> Result<(), Error> {
    match (fields.get("data"), fields.get("data_base64")) {
        (Some(_), Some(_)) => Err(Error::new("data", "and 'data_base64' exclude each other")),
        (_, Some(binary)) if !binary.as_str().is_some_and(is_base64) => {
            Err(Error::new("data_base64", "must be Base64 text"))
        }
        (Some(data), None) if is_deeper(data, DEEPEST_DATA) => {
            Err(Error::new("data", format!("nests more than {DEEPEST_DATA} deep")))
        }
        _ => Ok(()),
    }
}

fn is_base64(text: &str) -> bool {
    STANDARD.decode(text).is_ok()
}

fn is_deeper(value: &Value, levels: usize) -> bool {
    let Some(levels) = levels.checked_sub(1) else {
        return true;
    };
    match value {
        Value::Array(items) => items.iter().any(|item| is_deeper(item, levels)),
        Value::Object(fields) => fields.values().any(|item| is_deeper(item, levels)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(more: &Value) -> Value {
        let mut event = json!({"specversion": "1.0", "id": "1", "source": "/tests", "type": "t"});
        for (name, value) in more.as_object().unwrap() {
            event[name] = value.clone();
        }
        event
    }

    #[test]
    fn what_the_specification_allows_is_an_event() {
        for more in [
            json!({}),
            json!({"data": null}),
            json!({"data": {"n": [1]}, "datacontenttype": "application/json"}),
            json!({"data_base64": "AAE=", "subject": "s", "dataschema": "https://s.test/x"}),
            json!({"time": "2026-03-01T12:00:00.123+01:00", "tenant": "a b", "attempt": 3, "last": true, "gone": null}),
        ] {
            let event = CloudEvent::check(event(&more)).unwrap_or_else(|error| panic!("{more}: {error}"));
            assert_eq!((event.id(), event.source(), event.kind()), ("1", "/tests", "t"));
            assert_eq!(
                serde_json::from_value::<CloudEvent>(event.to_value()).unwrap(),
                event
            );
        }
    }

    #[test]
    fn what_it_does_not_allow_is_refused_by_name() {
        for (more, attribute) in [
            (json!({"id": null}), "id"),
            (json!({"source": ""}), "source"),
            (json!({"source": "a b"}), "source"),
            (json!({"type": 3}), "type"),
            (json!({"specversion": "0.3"}), "specversion"),
            (json!({"time": "yesterday"}), "time"),
            (json!({"orderId": "1"}), "orderId"),
            (json!({"size": 3.5}), "size"),
            (json!({"size": 1_u64 << 40}), "size"),
            (json!({"extra": {"a": 1}}), "extra"),
            (json!({"subject": "a\u{7}"}), "subject"),
            (json!({"subject": "x".repeat(LONGEST_ATTRIBUTE + 1)}), "subject"),
            (json!({"data": 1, "data_base64": "AAE="}), "data"),
            (json!({"data_base64": 1}), "data_base64"),
        ] {
            let error = CloudEvent::check(event(&more)).expect_err(&more.to_string());
            assert_eq!(error.attribute, attribute, "{error}");
        }
        assert_eq!(CloudEvent::check(json!([])).unwrap_err().attribute, "event");
    }

    #[test]
    fn data_is_read_as_json_or_as_text() {
        let read = |more: &Value| {
            let event = CloudEvent::check(event(more)).unwrap();
            (event.data(), event.raw())
        };
        assert_eq!(
            read(&json!({"data": {"a": 1}})),
            (json!({"a": 1}), json!("{\"a\":1}"))
        );
        assert_eq!(read(&json!({"data": "text"})), (json!("text"), json!("text")));
        assert_eq!(
            read(&json!({"data_base64": "AAE="})),
            (json!("AAE="), json!("AAE="))
        );
        assert_eq!(read(&json!({})), (json!(null), json!(null)));
    }
}
