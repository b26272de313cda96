//! The binary form: attributes as headers, the body as data.

use axum::http::HeaderMap;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value};

const PREFIX: &str = "ce-";

/// The event that the headers and the body are, in the JSON format.
///
/// # Errors
/// Says which header or part of the body is not as the binding has it.
pub fn read(headers: &HeaderMap, media_type: &str, content_type: &str, body: &[u8]) -> Result<Value, String> {
    let mut event = Map::new();
    for (name, value) in headers {
        let Some(name) = name.as_str().strip_prefix(PREFIX) else {
            continue;
        };
        let text = value
            .to_str()
            .map_err(|_| format!("the header '{PREFIX}{name}' is not ASCII; percent-encode it"))?;
        // Percent-encoded by the binding; quotes around a value are what older senders write.
        let text = text.trim().trim_matches('"');
        let text = percent_decode_str(text)
            .decode_utf8()
            .map_err(|_| format!("the header '{PREFIX}{name}' is not UTF-8 when decoded"))?;
        event.insert(name.to_owned(), Value::String(text.into_owned()));
    }
    if event.contains_key("data") || event.contains_key("data_base64") {
        return Err("'data' is the body, not a header".to_owned());
    }
    if !content_type.is_empty() {
        event.insert("datacontenttype".to_owned(), Value::from(content_type));
    }
    if let Some((name, data)) = data(media_type, body)? {
        event.insert(name.to_owned(), data);
    }
    Ok(Value::Object(event))
}

fn data(media_type: &str, body: &[u8]) -> Result<Option<(&'static str, Value)>, String> {
    if body.is_empty() {
        return Ok(None);
    }
    let is_json = media_type.is_empty() || media_type == "application/json" || media_type.ends_with("+json");
    if is_json {
        let data = serde_json::from_slice(body);
        let data = data.map_err(|error| format!("the body is '{media_type}' and not JSON: {error}"))?;
        return Ok(Some(("data", data)));
    }
    let is_text =
        media_type.starts_with("text/") || media_type.ends_with("+xml") || media_type == "application/xml";
    Ok(Some(match std::str::from_utf8(body) {
        Ok(text) if is_text => ("data", Value::from(text)),
        _ => ("data_base64", Value::from(STANDARD.encode(body))),
    }))
}
