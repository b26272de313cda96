//! A request's message out of its path, its query and its body.
//!
//! Every refusal names the field: what a program sent wrong is to be found without reading our code.

use axum::body::{Body, Bytes};
use axum::extract::Query;
use http::{HeaderMap, Uri, header};
use prost_reflect::{
    DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, ReflectMessage as _, Value as Field,
};
use serde::de::DeserializeSeed as _;
use serde_json::{Map, Value, json};

use super::refusal::{self, Refusal};
use super::rule::{self, BodyIs, Rule};

/// The body, whole; the chassis bounds it.
pub(super) async fn read(headers: &HeaderMap, body: Body) -> Result<Bytes, Refusal> {
    let body = axum::body::to_bytes(body, usize::MAX)
        .await
        .map_err(|error| refusal::no_body(&error))?;
    if body.is_empty() {
        return Ok(body);
    }
    let said = headers
        .get(header::CONTENT_TYPE)
        .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned())
        .unwrap_or_default();
    // Asked for, because a browser sends other types across sites without asking.
    let kind = said
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    if kind == "application/json" || (kind.starts_with("application/") && kind.ends_with("+json")) {
        Ok(body)
    } else {
        Err(refusal::no_json(&said))
    }
}

/// The RPC's message.
pub(super) fn message(
    rule: &Rule,
    variables: &[(&str, String)],
    uri: &Uri,
    body: &[u8],
) -> Result<DynamicMessage, Refusal> {
    let mut message = match &rule.body {
        BodyIs::Nothing if body.is_empty() => DynamicMessage::new(rule.input.clone()),
        BodyIs::Nothing => {
            let hint = "this path takes none; its fields are in the path and in the query";
            return Err(refusal::field("body", hint));
        }
        BodyIs::Message => parse(&rule.input, body)?,
        BodyIs::Field(field) => {
            let mut message = DynamicMessage::new(rule.input.clone());
            if let Kind::Message(inner) = field.kind() {
                message.set_field(field, Field::Message(parse(&inner, body)?));
            }
            message
        }
    };
    for (name, values) in query(uri)? {
        if matches!(rule.body, BodyIs::Message) {
            return Err(refusal::field(
                &name,
                "is in the query; this path takes its fields in the body",
            ));
        }
        if rule.template.variables().any(|variable| variable == name) {
            return Err(refusal::field(
                &name,
                "is in the query; it belongs into the path alone",
            ));
        }
        set(&mut message, &name, &values)?;
    }
    for (name, value) in variables {
        let mut alone = DynamicMessage::new(rule.input.clone());
        set(&mut alone, name, std::slice::from_ref(value))?;
        let differs = leaf(&message, name).is_some_and(|said| Some(said) != leaf(&alone, name));
        if differs {
            return Err(refusal::field(
                name,
                format!("the path says '{value}' and the body something else"),
            ));
        }
        set(&mut message, name, std::slice::from_ref(value))?;
    }
    Ok(message)
}

/// A message out of JSON; an empty body is `{}`.
fn parse(descriptor: &MessageDescriptor, body: &[u8]) -> Result<DynamicMessage, Refusal> {
    let value: Value = if body.is_empty() {
        json!({})
    } else {
        serde_json::from_slice(body)
            .map_err(|error| refusal::field("body", format!("is no JSON: {error}")))?
    };
    if !value.is_object() {
        return Err(refusal::field("body", "must be a JSON object"));
    }
    names(descriptor, &value, "")?;
    let mut track = serde_path_to_error::Track::new();
    let read = descriptor
        .clone()
        .deserialize(serde_path_to_error::Deserializer::new(&value, &mut track));
    read.map_err(|error| {
        let path = track.path().to_string();
        refusal::field(if path == "." { "body" } else { &path }, error.to_string())
    })
}

/// Refuses names that the message does not have, with the nearest; ProtoJSON's own refusal tells neither place nor
/// remedy.
fn names(descriptor: &MessageDescriptor, value: &Value, at: &str) -> Result<(), Refusal> {
    // Those have JSON forms of their own.
    if descriptor.package_name() == "google.protobuf" {
        return Ok(());
    }
    let Value::Object(entries) = value else {
        return Ok(());
    };
    for (name, value) in entries {
        let path = if at.is_empty() {
            name.clone()
        } else {
            format!("{at}.{name}")
        };
        let field = rule::field(descriptor, name)
            .map_err(|_| refusal::field(&path, rule::unknown(descriptor, &path, name)))?;
        if let (Kind::Message(inner), false) = (field.kind(), field.is_map()) {
            match value {
                Value::Array(items) => {
                    for (index, item) in items.iter().enumerate() {
                        names(&inner, item, &format!("{path}[{index}]"))?;
                    }
                }
                other => names(&inner, other, &path)?,
            }
        }
    }
    Ok(())
}

/// The query's parameters with all their values, in order.
fn query(uri: &Uri) -> Result<Vec<(String, Vec<String>)>, Refusal> {
    let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(uri)
        .map_err(|error| refusal::field("query", error.to_string()))?;
    let mut grouped: Vec<(String, Vec<String>)> = Vec::new();
    for (name, value) in pairs {
        match grouped.iter_mut().find(|(known, _)| *known == name) {
            Some((_, values)) => values.push(value),
            None => grouped.push((name, vec![value])),
        }
    }
    Ok(grouped)
}

/// Sets the field at a path of names from text.
fn set(message: &mut DynamicMessage, path: &str, values: &[String]) -> Result<(), Refusal> {
    let field = rule::field(&message.descriptor(), path).map_err(|why| refusal::field(path, why))?;
    let value = read_field(&field, path, values)?;
    let mut holder = message;
    let mut names = path.split('.').peekable();
    while let Some(name) = names.next() {
        let Ok(field) = rule::field(&holder.descriptor(), name) else {
            break;
        };
        if names.peek().is_none() {
            holder.set_field(&field, value);
            break;
        }
        match holder.get_field_mut(&field).as_message_mut() {
            Some(inner) => holder = inner,
            None => break,
        }
    }
    Ok(())
}

/// The value at a path of names, where it was said.
fn leaf(message: &DynamicMessage, path: &str) -> Option<Field> {
    let mut holder = message.clone();
    let mut names = path.split('.').peekable();
    loop {
        let field = rule::field(&holder.descriptor(), names.next()?).ok()?;
        if !holder.has_field(&field) {
            return None;
        }
        let value = holder.get_field(&field).into_owned();
        if names.peek().is_none() {
            return Some(value);
        }
        holder = value.as_message()?.clone();
    }
}

/// A field's value out of text, by the JSON form of its kind.
fn read_field(field: &FieldDescriptor, path: &str, values: &[String]) -> Result<Field, Refusal> {
    if field.is_map() {
        return Err(refusal::field(path, "is a map and has no form in a query"));
    }
    let read = |text: &String| json_of(field, text).map_err(|why| refusal::field(path, why));
    let value = if field.is_list() {
        Value::Array(values.iter().map(read).collect::<Result<_, _>>()?)
    } else if let [only] = values {
        read(only)?
    } else {
        return Err(refusal::field(
            path,
            "is there more than once and takes one value",
        ));
    };
    let parent = field.parent_message();
    let object = Value::Object(Map::from_iter([(field.json_name().to_owned(), value)]));
    let message = parent.clone().deserialize(&object).map_err(|error| {
        let said = values.join("', '");
        refusal::field(
            path,
            format!("'{said}' is not what {:?} takes: {error}", field.kind()),
        )
    })?;
    Ok(message.get_field(field).into_owned())
}

fn json_of(field: &FieldDescriptor, text: &str) -> Result<Value, String> {
    match field.kind() {
        Kind::Bool => text
            .parse()
            .map(Value::Bool)
            .map_err(|_| format!("'{text}' is neither true nor false")),
        Kind::Enum(names) => match text.parse::<i32>() {
            Ok(number) => Ok(json!(number)),
            Err(_) if names.get_value_by_name(text).is_some() => Ok(json!(text)),
            Err(_) => {
                let known: Vec<String> = names.values().map(|value| value.name().to_owned()).collect();
                Err(format!("'{text}' is unknown; known are {}", known.join(", ")))
            }
        },
        Kind::Message(inner) if inner.package_name() != "google.protobuf" => {
            Err("has fields of its own; name one, such as 'field.inner'".to_owned())
        }
        // ProtoJSON reads numbers, bytes and times from text.
        _ => Ok(json!(text)),
    }
}
