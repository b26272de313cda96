//! Values in messages: the beginning is enough.

use std::fmt;

use serde_json::Value as Json;

use super::Value;

/// At most so many bytes of a value are shown in a message.
pub(super) const LONGEST_QUOTE: usize = 120;

impl Value {
    fn quote(&self, into: &mut String) {
        if into.len() > LONGEST_QUOTE {
            return;
        }
        match self {
            Self::Array(array) => {
                into.push('[');
                for (index, item) in array.items.iter().enumerate() {
                    if index > 0 {
                        into.push(',');
                    }
                    if into.len() > LONGEST_QUOTE {
                        break;
                    }
                    item.quote(into);
                }
                into.push(']');
            }
            Self::Object(object) => {
                into.push('{');
                for (index, (name, value)) in object.fields.iter().enumerate() {
                    if index > 0 {
                        into.push(',');
                    }
                    if into.len() > LONGEST_QUOTE {
                        break;
                    }
                    into.push_str(&format!("{:?}:", shortened(name)));
                    value.quote(into);
                }
                into.push('}');
            }
            Self::Text(text) => into.push_str(&Json::from(shortened(text)).to_string()),
            scalar => into.push_str(&scalar.to_json().to_string()),
        }
    }
}

/// The beginning of `text`, cut at a character.
fn shortened(text: &str) -> &str {
    match text.char_indices().nth(LONGEST_QUOTE) {
        Some((end, _)) => &text[..end],
        None => text,
    }
}

/// For messages: the beginning of the value.
impl fmt::Display for Value {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // An error's message is text, and reads without quotes.
            Self::Text(text) => formatter.write_str(shortened(text)),
            other => {
                let mut text = String::new();
                other.quote(&mut text);
                let shown = shortened(&text);
                formatter.write_str(shown)?;
                if shown.len() < text.len() {
                    formatter.write_str("…")
                } else {
                    Ok(())
                }
            }
        }
    }
}
