//! Facts, rendered as a message that a customer can read.
//!
//! Deterministic and complete: every fact that comes in stands in the message, in the order it came in, or the
//! request is refused. Labels become words (`rainy_days` → "Rainy days"), numbers lose digits beyond the second
//! decimal, lists and objects become indented lines. Control characters are dropped, so that a fact cannot fake a
//! header. With a `template`, its placeholders (`{{customer}}`, `{{subject}}`, `{{facts}}` and `{{LABEL}}` of any fact)
//! are filled and nothing else is added; an unknown placeholder is refused by name.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Most facts.
pub const MAX_FACTS: usize = 200;
/// Longest message, in bytes.
pub const MAX_MESSAGE_BYTES: usize = 64 * 1024;
const MAX_LINE_BYTES: usize = 500;
const MAX_DEPTH: usize = 3;

/// What to write, and to whom.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Notification {
    /// The customer's name, for the salutation.
    #[serde(default)]
    pub customer: Option<String>,
    /// What it is about, in one line.
    pub subject: String,
    /// A paragraph before the facts.
    #[serde(default)]
    pub introduction: Option<String>,
    /// An object (label → value), or a list of texts and of `{"label", "value"}` objects.
    #[serde(default)]
    pub facts: Option<Value>,
    /// A paragraph after the facts.
    #[serde(default)]
    pub closing: Option<String>,
    /// Who signs.
    #[serde(default)]
    pub sender: Option<String>,
    /// The whole text with placeholders, instead of salutation, paragraphs and signature.
    #[serde(default)]
    pub template: Option<String>,
}

/// A message, ready to be sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Message {
    /// To whom; empty if unknown.
    pub customer: String,
    /// The subject line.
    pub subject: String,
    /// The text.
    pub body: String,
    /// How many facts it tells.
    pub facts: usize,
}

/// Why there is no message: the field and what is wrong with it.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{field}: {message}")]
pub struct Error {
    /// Path of the field.
    pub field: String,
    /// What is expected.
    pub message: String,
}

fn refused(field: impl Into<String>, message: impl Into<String>) -> Error {
    Error {
        field: field.into(),
        message: message.into(),
    }
}

struct Fact {
    label: Option<String>,
    value: Value,
}

/// Writes the message.
///
/// # Errors
/// Names the field that is missing, malformed or too long.
pub fn compose(notification: &Notification) -> Result<Message, Error> {
    let subject = line("subject", &notification.subject)?;
    if subject.is_empty() {
        return Err(refused(
            "subject",
            "is empty; say in one line what the message is about",
        ));
    }
    let customer = line("customer", notification.customer.as_deref().unwrap_or_default())?;
    let facts = notification
        .facts
        .as_ref()
        .map_or_else(|| Ok(Vec::new()), facts)?;
    let has_text = notification.introduction.is_some() || notification.closing.is_some();
    if facts.is_empty() && !has_text && notification.template.is_none() {
        return Err(refused(
            "facts",
            "is empty; give at least one fact, or an introduction",
        ));
    }
    let list = facts.iter().map(rendered).collect::<Vec<_>>().join("\n");
    let body = match &notification.template {
        Some(template) => filled(template, &customer, &subject, &facts, &list)?,
        None => letter(notification, &customer, &list)?,
    };
    if body.len() > MAX_MESSAGE_BYTES {
        let message = format!(
            "make a message of {} bytes; at most {MAX_MESSAGE_BYTES} are sent",
            body.len()
        );
        return Err(refused("facts", message));
    }
    Ok(Message {
        customer,
        subject,
        body,
        facts: facts.len(),
    })
}

fn letter(notification: &Notification, customer: &str, list: &str) -> Result<String, Error> {
    let salutation = if customer.is_empty() {
        "Hello,".to_owned()
    } else {
        format!("Dear {customer},")
    };
    let sender = line(
        "sender",
        notification
            .sender
            .as_deref()
            .unwrap_or("Muster customer service"),
    )?;
    let paragraph = |text: &Option<String>| text.as_deref().map(clean).filter(|text| !text.is_empty());
    let paragraphs = [
        Some(salutation),
        paragraph(&notification.introduction),
        (!list.is_empty()).then(|| list.to_owned()),
        paragraph(&notification.closing),
        Some(format!("Kind regards\n{sender}")),
    ];
    Ok(paragraphs.into_iter().flatten().collect::<Vec<_>>().join("\n\n"))
}

fn filled(
    template: &str,
    customer: &str,
    subject: &str,
    facts: &[Fact],
    list: &str,
) -> Result<String, Error> {
    let template = clean(template);
    let mut text = String::new();
    let mut rest = template.as_str();
    while let Some((before, after)) = rest.split_once("{{") {
        text.push_str(before);
        let (name, after) = after
            .split_once("}}")
            .ok_or_else(|| refused("template", "has '{{' without '}}'"))?;
        match name.trim() {
            "customer" => text.push_str(customer),
            "subject" => text.push_str(subject),
            "facts" => text.push_str(list),
            name => match facts.iter().find(|fact| fact.label.as_deref() == Some(name)) {
                Some(fact) => text.push_str(&scalar(&fact.value)),
                None => return Err(refused("template", unknown(name, facts))),
            },
        }
        if text.len() > MAX_MESSAGE_BYTES {
            break;
        }
        rest = after;
    }
    text.push_str(rest);
    Ok(text)
}

fn unknown(name: &str, facts: &[Fact]) -> String {
    let mut known = vec!["customer", "subject", "facts"];
    known.extend(facts.iter().filter_map(|fact| fact.label.as_deref()));
    let hint = muster_api::names::suggestion(name, known.iter().copied());
    format!(
        "has the placeholder '{{{{{name}}}}}', which nothing fills{hint} (known: {})",
        known.join(", ")
    )
}

fn facts(value: &Value) -> Result<Vec<Fact>, Error> {
    let facts: Vec<Fact> = match value {
        Value::Null => Vec::new(),
        Value::Object(object) => object
            .iter()
            .map(|(label, value)| Fact {
                label: Some(label.clone()),
                value: value.clone(),
            })
            .collect(),
        Value::Array(list) => list
            .iter()
            .enumerate()
            .map(|(index, value)| fact(index, value))
            .collect::<Result<_, _>>()?,
        _ => return Err(refused("facts", "must be an object (label: value) or a list")),
    };
    if facts.len() > MAX_FACTS {
        return Err(refused(
            "facts",
            format!("has {} entries; at most {MAX_FACTS} fit a message", facts.len()),
        ));
    }
    Ok(facts)
}

fn fact(index: usize, value: &Value) -> Result<Fact, Error> {
    match value {
        Value::Object(object) => match (
            object.get("label").and_then(Value::as_str),
            object.get("value"),
            object.len(),
        ) {
            (Some(label), Some(value), 2) => Ok(Fact {
                label: Some(label.to_owned()),
                value: value.clone(),
            }),
            _ => Err(refused(
                format!("facts[{index}]"),
                "must be text, or an object of exactly 'label' (text) and 'value'",
            )),
        },
        Value::Array(_) => Err(refused(format!("facts[{index}]"), "is a list; give it a label")),
        scalar => Ok(Fact {
            label: None,
            value: scalar.clone(),
        }),
    }
}

fn rendered(fact: &Fact) -> String {
    let mut lines = Vec::new();
    write(&mut lines, 0, fact.label.as_deref(), &fact.value);
    lines.join("\n")
}

/// One line for what fits one, and indented lines for what does not.
fn write(lines: &mut Vec<String>, depth: usize, label: Option<&str>, value: &Value) {
    let indent = "  ".repeat(depth);
    let head = label.map_or_else(String::new, |label| format!("{}: ", words(label)));
    let nested = match value {
        Value::Array(items) => items.iter().any(|item| item.is_object() || item.is_array()),
        Value::Object(_) => true,
        _ => false,
    };
    if !nested || depth >= MAX_DEPTH {
        lines.push(format!("{indent}- {head}{}", scalar(value)));
        return;
    }
    let head = head.trim_end().trim_end_matches(':');
    if !head.is_empty() {
        lines.push(format!("{indent}- {head}:"));
    }
    let depth = if head.is_empty() { depth } else { depth + 1 };
    match value {
        Value::Array(items) => {
            for item in items {
                let line = item
                    .as_object()
                    .filter(|object| object.values().all(is_flat))
                    .map(one_line);
                match line {
                    Some(line) => lines.push(format!("{}- {line}", "  ".repeat(depth))),
                    None => write(lines, depth, None, item),
                }
            }
        }
        Value::Object(object) => {
            for (label, value) in object {
                write(lines, depth, Some(label), value);
            }
        }
        _ => {}
    }
}

fn is_flat(value: &Value) -> bool {
    !value.is_object() && !value.is_array()
}

fn one_line(object: &serde_json::Map<String, Value>) -> String {
    object
        .iter()
        .map(|(label, value)| format!("{}: {}", words(label), scalar(value)))
        .collect::<Vec<_>>()
        .join(", ")
}

/// A value in one line.
fn scalar(value: &Value) -> String {
    match value {
        Value::Null => "not known".to_owned(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (None, Some(value)) if value.abs() < 1e15 => {
                let text = format!("{value:.2}");
                text.trim_end_matches('0').trim_end_matches('.').to_owned()
            }
            _ => number.to_string(),
        },
        Value::String(text) => clean(text).replace('\n', " "),
        Value::Array(items) if items.is_empty() => "none".to_owned(),
        Value::Array(items) => items.iter().map(scalar).collect::<Vec<_>>().join(", "),
        Value::Object(object) => one_line(object),
    }
}

/// `rainy_days` → `Rainy days`.
fn words(label: &str) -> String {
    let label = clean(label).replace(['_', '\n'], " ");
    let mut chars = label.trim().chars();
    chars
        .next()
        .map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

/// Without control characters but line breaks, and without space at the ends.
fn clean(text: &str) -> String {
    let text = text.replace("\r\n", "\n");
    text.chars()
        .filter(|&c| c == '\n' || !c.is_control())
        .collect::<String>()
        .trim()
        .to_owned()
}

fn line(field: &str, text: &str) -> Result<String, Error> {
    if text.len() > MAX_LINE_BYTES {
        return Err(refused(
            field,
            format!("has {} bytes; at most {MAX_LINE_BYTES} are accepted", text.len()),
        ));
    }
    Ok(clean(text).replace('\n', " "))
}

#[cfg(test)]
mod tests;
