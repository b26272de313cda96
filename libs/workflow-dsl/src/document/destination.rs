//! Where a call goes: an address on the network, and how to authenticate there. The language calls it an endpoint.

use std::fmt;

use serde_json::Value;

use super::{Authentication, Template};

/// An address on the network, and how to authenticate there.
#[derive(Debug, Clone)]
pub struct Destination {
    /// The address.
    pub uri: Uri,
    /// How to authenticate there.
    pub authentication: Option<Authentication>,
}

/// A document outside of the workflow.
#[derive(Debug, Clone)]
pub struct ExternalResource {
    /// Its name, for people.
    pub name: Option<String>,
    /// Where it is.
    pub endpoint: Destination,
}

/// An address: written down, perhaps with variables in it, or computed.
#[derive(Debug, Clone)]
pub enum Uri {
    /// Written down.
    Template(UriTemplate),
    /// Must yield text.
    Computed(Template),
}

impl Uri {
    /// The address, if it is written down without variables.
    #[must_use]
    pub fn fixed(&self) -> Option<&str> {
        match self {
            Self::Template(template) => template.fixed(),
            Self::Computed(_) => None,
        }
    }
}

/// Text with variables in braces, such as `https://example.com/pets/{petId}`: the simple string expansion of RFC 6570. A
/// variable names a field of the task's input, as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UriTemplate {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Variable(String),
}

impl UriTemplate {
    /// Reads the template.
    ///
    /// # Errors
    /// A brace has no partner, or there is nothing between two.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(start) = rest.find(['{', '}']) {
            let (before, after) = rest.split_at(start);
            let variable = after
                .strip_prefix('{')
                .and_then(|after| after.split_once('}'))
                .filter(|(name, _)| !name.is_empty() && !name.contains('{'));
            let Some((name, behind)) = variable else {
                return Err(format!(
                    "in the address '{text}' a brace stands alone; variables are written as {{name}}"
                ));
            };
            if !before.is_empty() {
                parts.push(Part::Text(before.to_owned()));
            }
            parts.push(Part::Variable(name.to_owned()));
            rest = behind;
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        Ok(Self { parts })
    }

    /// The text, if there are no variables in it.
    #[must_use]
    pub fn fixed(&self) -> Option<&str> {
        match self.parts.as_slice() {
            [] => Some(""),
            [Part::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// The text with the variables replaced by fields of `values`, percent-encoded; by nothing where there is no such field.
    ///
    /// # Errors
    /// A field is neither text nor a number, a boolean or null.
    pub fn expand(&self, values: &Value) -> Result<String, String> {
        let mut text = String::new();
        for part in &self.parts {
            match part {
                Part::Text(literal) => text.push_str(literal),
                Part::Variable(name) => match values.get(name) {
                    None | Some(Value::Null) => {}
                    Some(Value::String(value)) => encode(&mut text, value),
                    Some(value @ (Value::Number(_) | Value::Bool(_))) => {
                        encode(&mut text, &value.to_string())
                    }
                    Some(Value::Array(_) | Value::Object(_)) => {
                        return Err(format!(
                            "'{{{name}}}' in the address is replaced by text, a number or a boolean, not by an array or an object"
                        ));
                    }
                },
            }
        }
        Ok(text)
    }
}

impl fmt::Display for UriTemplate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.parts.iter().try_for_each(|part| match part {
            Part::Text(text) => formatter.write_str(text),
            Part::Variable(name) => write!(formatter, "{{{name}}}"),
        })
    }
}

/// Appends `value` with everything but unreserved characters percent-encoded.
fn encode(text: &mut String, value: &str) {
    const HEXADECIMAL: [char; 16] = [
        '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F',
    ];
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            text.push(char::from(byte));
        } else {
            text.push('%');
            text.extend([byte >> 4, byte & 15].map(|half| HEXADECIMAL[usize::from(half)]));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn variables_are_replaced_and_encoded() {
        let template = UriTemplate::parse("http://h/{pet.id}/{a b}{none}?q={n}&t={t}").unwrap();
        let values = json!({"pet.id": "ü/1", "n": 5, "t": true, "a b": "~x"});
        assert_eq!(
            template.expand(&values).unwrap(),
            "http://h/%C3%BC%2F1/~x?q=5&t=true"
        );
        assert_eq!(template.to_string(), "http://h/{pet.id}/{a b}{none}?q={n}&t={t}");
        assert_eq!(template.fixed(), None);
        let error = template.expand(&json!({"n": []})).unwrap_err();
        assert!(error.contains("'{n}'"), "{error}");
        assert_eq!(UriTemplate::parse("http://h").unwrap().fixed(), Some("http://h"));
    }

    #[test]
    fn lonely_braces_are_refused() {
        for text in ["http://h/{", "http://h/}", "http://h/{}", "http://h/{a{b}}"] {
            assert!(UriTemplate::parse(text).is_err(), "{text}");
        }
    }
}
