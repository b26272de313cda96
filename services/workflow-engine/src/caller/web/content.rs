//! What bodies hold: from values to bytes, and back.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use serde_json::{Map, Value};

use super::super::{Failure, Kind};
use crate::secrets::Redaction;

const FORM: &str = "application/x-www-form-urlencoded";

/// The type of content, without its parameters, in lower case.
pub(in crate::caller) fn content_type(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    Some(value.split(';').next()?.trim().to_ascii_lowercase())
}

fn is_json(kind: &str) -> bool {
    kind == "application/json" || kind == "text/json" || kind.ends_with("+json")
}

fn is_text(kind: &str) -> bool {
    const TEXTS: [&str; 6] = [
        FORM,
        "application/graphql",
        "application/javascript",
        "application/xml",
        "application/x-yaml",
        "application/yaml",
    ];
    kind.starts_with("text/") || kind.ends_with("+xml") || kind.ends_with("+yaml") || TEXTS.contains(&kind)
}

/// The body that a value stands for. The headers say how it is written; where they do not, text is text and all else JSON.
pub(in crate::caller) fn encode(body: &Value, headers: &mut HeaderMap) -> Result<Vec<u8>, Failure> {
    let Some(kind) = content_type(headers) else {
        let (kind, bytes) = match body {
            Value::String(text) => ("text/plain; charset=utf-8", text.clone().into_bytes()),
            other => ("application/json", other.to_string().into_bytes()),
        };
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        return Ok(bytes);
    };
    match body {
        Value::Object(fields) if kind == FORM => form(fields),
        // Text that is JSON already is what the author means.
        Value::String(text) if is_json(&kind) => {
            let is_json = serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok();
            Ok(if is_json { text.clone() } else { body.to_string() }.into_bytes())
        }
        Value::String(text) => Ok(text.clone().into_bytes()),
        other if is_json(&kind) || !is_text(&kind) || kind == FORM => Ok(other.to_string().into_bytes()),
        _ => {
            let detail =
                format!("a body of the type '{kind}' must be text; use tojson, or another content type");
            Err(Failure::new(Kind::Validation, 400, detail))
        }
    }
}

fn form(fields: &Map<String, Value>) -> Result<Vec<u8>, Failure> {
    let mut serializer = url::form_urlencoded::Serializer::new(String::new());
    for (name, value) in fields {
        for value in plain(name, value)? {
            serializer.append_pair(name, &value);
        }
    }
    Ok(serializer.finish().into_bytes())
}

/// A parameter of a query or a form as text: a value, or one for each item of a list. Nothing is left away.
pub(in crate::caller) fn plain(name: &str, value: &Value) -> Result<Vec<String>, Failure> {
    match value {
        Value::Null => Ok(Vec::new()),
        Value::String(text) => Ok(vec![text.clone()]),
        Value::Bool(_) | Value::Number(_) => Ok(vec![value.to_string()]),
        Value::Array(items) if items.iter().all(|item| !item.is_array() && !item.is_object()) => {
            let items = items.iter().map(|item| plain(name, item));
            Ok(items.collect::<Result<Vec<_>, _>>()?.concat())
        }
        Value::Array(_) | Value::Object(_) => {
            let detail =
                format!("the parameter '{name}' must be text, a number, a boolean or a list of these");
            Err(Failure::new(Kind::Validation, 400, detail))
        }
    }
}

/// The value in a body, without secrets: JSON as what it is, text as text, everything else in Base64.
pub(in crate::caller) fn decode(
    body: &[u8],
    headers: &HeaderMap,
    redaction: &Redaction,
) -> Result<Value, Failure> {
    if body.is_empty() {
        return Ok(Value::Null);
    }
    let kind = content_type(headers);
    let json = |body: &[u8]| serde_json::from_slice::<Value>(body);
    let text = |body: &[u8]| String::from_utf8(redaction.bytes(body).into_owned());
    let binary = || Value::String(raw(body, redaction));
    match kind.as_deref() {
        Some(kind) if is_json(kind) => match json(body) {
            Ok(value) => Ok(redaction.value(value)),
            Err(error) => {
                let detail = format!("the answer says that it is '{kind}', and is not: {error}");
                Err(Failure::new(Kind::Communication, 502, detail))
            }
        },
        Some(kind) if is_text(kind) => Ok(text(body).map_or_else(|_| binary(), Value::String)),
        Some(_) => Ok(binary()),
        None => Ok(match json(body) {
            Ok(value) => redaction.value(value),
            Err(_) => text(body).map_or_else(|_| binary(), Value::String),
        }),
    }
}

/// The body in Base64, without secrets.
pub(in crate::caller) fn raw(body: &[u8], redaction: &Redaction) -> String {
    STANDARD.encode(redaction.bytes(body))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn headers(kind: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if !kind.is_empty() {
            headers.insert(CONTENT_TYPE, kind.parse().unwrap());
        }
        headers
    }

    #[test]
    fn bodies_are_written_as_their_type_says() {
        for (kind, body, expected, written) in [
            ("", json!({"a": 1}), "{\"a\":1}", "application/json"),
            ("", json!("plain"), "plain", "text/plain; charset=utf-8"),
            (
                "application/json",
                json!("{\"a\": 1}"),
                "{\"a\": 1}",
                "application/json",
            ),
            (
                "application/json",
                json!("plain"),
                "\"plain\"",
                "application/json",
            ),
            (
                "application/problem+json; charset=utf-8",
                json!([1]),
                "[1]",
                "application/problem+json; charset=utf-8",
            ),
            (
                FORM,
                json!({"a": [1, "x y"], "b": true, "c": null}),
                "a=1&a=x+y&b=true",
                FORM,
            ),
            ("text/xml", json!("<a/>"), "<a/>", "text/xml"),
        ] {
            let mut headers = headers(kind);
            let bytes = encode(&body, &mut headers).unwrap();
            assert_eq!(String::from_utf8(bytes).unwrap(), expected, "{kind}");
            assert_eq!(headers[CONTENT_TYPE], written);
        }
        assert!(encode(&json!({"a": 1}), &mut headers("text/xml")).is_err());
        assert!(encode(&json!({"a": {}}), &mut headers(FORM)).is_err());
    }

    #[test]
    fn answers_are_read_as_their_type_says() {
        let none = Redaction::default();
        let read = |kind: &str, body: &[u8]| decode(body, &headers(kind), &none).unwrap();
        assert_eq!(read("application/json", b"{\"a\":1}"), json!({"a": 1}));
        assert_eq!(read("text/plain; charset=utf-8", b"5"), json!("5"));
        assert_eq!(read("", b"5"), json!(5));
        assert_eq!(read("", b"five"), json!("five"));
        assert_eq!(read("image/png", b"\xff\x00"), json!("/wA="));
        assert_eq!(read("text/plain", b"\xff\x00"), json!("/wA="));
        assert_eq!(read("application/json", b""), Value::Null);
        assert_eq!(
            decode(b"{", &headers("application/json"), &none)
                .unwrap_err()
                .status,
            502
        );
    }
}
