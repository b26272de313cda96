//! Where a call goes: an address on the network, and how to authenticate there. The language calls it an endpoint.

use std::fmt;

use serde_json::Value;

use super::{Authentication, Template};
use crate::secret::encoded;

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

/// Text with variables in braces, such as `https://example.com/pets/{petId}`: of RFC 6570 the simple expansion, `{name}` and
/// `{first,second}`, and the reserved one, `{+path}`. A variable names a field of the task's input, as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UriTemplate {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Variables {
        names: Vec<String>,
        /// Whether characters with a meaning in addresses, such as the slash, stay as they are.
        reserved: bool,
    },
}

impl Part {
    /// What stands between two braces.
    fn variables(text: &str) -> Result<Self, String> {
        const OPERATORS: [char; 11] = ['#', '.', '/', ';', '?', '&', '=', '!', '@', '|', ','];
        let (reserved, list) = match text.strip_prefix('+') {
            Some(list) => (true, list),
            None => (false, text),
        };
        if list.starts_with(OPERATORS) {
            return Err(format!(
                "'{{{text}}}' is not supported: there are {{name}}, {{first,second}} and {{+name}}, which keeps slashes; write the \
                 characters between variables themselves, as in /{{id}}?q={{word}}"
            ));
        }
        let names: Vec<String> = list.split(',').map(str::to_owned).collect();
        let shaped = |name: &String| {
            let cut = name.rsplit_once(':').is_some_and(|(_, length)| {
                !length.is_empty() && length.bytes().all(|byte| byte.is_ascii_digit())
            });
            name.ends_with('*') || cut
        };
        if let Some(name) = names.iter().find(|name| shaped(name)) {
            return Err(format!(
                "'{{{name}}}' is not supported: a variable is replaced by its whole value; shape the value in 'input.from'"
            ));
        }
        if names.iter().any(String::is_empty) {
            return Err(format!(
                "'{{{text}}}' names no variable; variables are written as {{name}}"
            ));
        }
        Ok(Self::Variables { names, reserved })
    }
}

impl UriTemplate {
    /// Longest address that comes of a template, in bytes: a variable may stand in it often, and be replaced by much.
    pub const LONGEST: usize = 64 * 1024;

    /// Reads the template.
    ///
    /// # Errors
    /// A brace has no partner, or there is no variable between two, or more than this knows.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some(start) = rest.find(['{', '}']) {
            let (before, after) = rest.split_at(start);
            let variables = after
                .strip_prefix('{')
                .and_then(|after| after.split_once('}'))
                .filter(|(names, _)| !names.is_empty() && !names.contains('{'));
            let Some((names, behind)) = variables else {
                return Err(format!(
                    "in the address '{text}' a brace stands alone; variables are written as {{name}}"
                ));
            };
            if !before.is_empty() {
                parts.push(Part::Text(before.to_owned()));
            }
            parts.push(Part::variables(names)?);
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
    /// A field is neither text nor a number, a boolean or null; or the text becomes too long.
    pub fn expand(&self, values: &Value) -> Result<String, String> {
        let mut text = String::new();
        for part in &self.parts {
            let (names, reserved) = match part {
                Part::Text(literal) => {
                    text.push_str(literal);
                    continue;
                }
                Part::Variables { names, reserved } => (names, *reserved),
            };
            let mut first = true;
            for name in names {
                let value = match values.get(name) {
                    None | Some(Value::Null) => continue,
                    Some(Value::String(value)) => value.clone(),
                    Some(value @ (Value::Number(_) | Value::Bool(_))) => value.to_string(),
                    Some(Value::Array(_) | Value::Object(_)) => {
                        return Err(format!(
                            "'{{{name}}}' is replaced by text, a number or a boolean, not by an array or an object"
                        ));
                    }
                };
                if !std::mem::take(&mut first) {
                    text.push(',');
                }
                let mut part = String::new();
                encode(&mut part, &value, reserved);
                text.push_str(&if reserved { part } else { encoded(part) });
                if text.len() > Self::LONGEST {
                    return Err(format!(
                        "an address is longer than {} bytes with its variables replaced; send what is long in the body",
                        Self::LONGEST
                    ));
                }
            }
        }
        Ok(text)
    }
}

impl fmt::Display for UriTemplate {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.parts.iter().try_for_each(|part| match part {
            Part::Text(text) => formatter.write_str(text),
            Part::Variables { names, reserved } => {
                let operator = if *reserved { "+" } else { "" };
                write!(formatter, "{{{operator}{}}}", names.join(","))
            }
        })
    }
}

/// Appends `value` with everything but unreserved characters percent-encoded, and but reserved ones where those are kept.
pub(crate) fn encode(text: &mut String, value: &str, reserved: bool) {
    const HEXADECIMAL: [char; 16] = [
        '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F',
    ];
    const RESERVED: &[u8] = b":/?#[]@!$&'()*+,;=";
    for byte in value.bytes() {
        let plain = byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~');
        if plain || reserved && RESERVED.contains(&byte) {
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
    fn several_variables_and_reserved_characters() {
        let values = json!({"a": "x/y", "b": 2, "path": "p/q r?"});
        for (text, expected) in [
            ("/{a,b}", "/x%2Fy,2"),
            ("/{none,b,a}", "/2,x%2Fy"),
            ("/{none}", "/"),
            ("/{+path}", "/p/q%20r?"),
            ("/{+a,b}", "/x/y,2"),
        ] {
            let template = UriTemplate::parse(text).unwrap();
            assert_eq!(template.expand(&values).unwrap(), expected, "{text}");
            assert_eq!(template.to_string(), text);
        }
    }

    #[test]
    fn an_address_has_an_end() {
        let template = UriTemplate::parse(&"{a}".repeat(1_000)).unwrap();
        let error = template.expand(&json!({"a": "x".repeat(100_000)})).unwrap_err();
        assert!(error.contains("longer than 65536 bytes"), "{error}");
    }

    #[test]
    fn what_is_not_supported_is_refused_with_what_is() {
        for (text, said) in [
            ("http://h{/a}", "'{/a}' is not supported"),
            ("http://h{?a,b}", "as in /{id}?q={word}"),
            ("http://h/{a:3}", "'{a:3}' is not supported"),
            ("http://h/{a*}", "its whole value"),
            ("http://h/{a,}", "names no variable"),
            ("http://h/{+}", "names no variable"),
        ] {
            let error = UriTemplate::parse(text).unwrap_err();
            assert!(error.contains(said), "{text}: {error}");
        }
    }

    #[test]
    fn lonely_braces_are_refused() {
        for text in ["http://h/{", "http://h/}", "http://h/{}", "http://h/{a{b}}"] {
            assert!(UriTemplate::parse(text).is_err(), "{text}");
        }
    }
}
