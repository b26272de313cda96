//! Keeping secrets out of what comes back.
//!
//! Services repeat what they are sent: in echoes, in errors, in links. Wherever a secret of the run stands in an answer, its marker is
//! put in its place, also where each of its characters stands as it is, percent-encoded, as in a form, escaped as in JSON or as in
//! HTML: programs differ in which characters they write in which way, so the characters are compared, and not whole forms of the
//! secret. What a service computes from a secret cannot be recognised. Fields of a secret that say what is public, such as a user's name, are not looked for.

use std::borrow::Cow;
use std::collections::BTreeMap;

use muster_workflow_dsl::secret::Nonce;
use serde_json::{Map, Value};

use super::SHORTEST;
use crate::caller::Failure;

/// Names of fields of a secret that say what is public: users, addresses, choices.
const PUBLIC: [&str; 12] = [
    "audiences",
    "authentication",
    "authority",
    "encoding",
    "endpoints",
    "grant",
    "id",
    "issuers",
    "request",
    "scopes",
    "type",
    "username",
];

/// Puts markers in the place of secrets.
#[derive(Default)]
pub struct Redaction {
    /// What is looked for and what is put there, the longest first.
    known: Vec<(String, String)>,
}

impl Redaction {
    /// Of these secrets.
    #[must_use]
    pub fn new(nonce: &Nonce, secrets: &BTreeMap<String, Value>) -> Self {
        let mut redaction = Self::default();
        for (name, secret) in secrets {
            redaction.collect(&nonce.marked(name, secret), secret);
        }
        redaction
    }

    /// Keeps one more text out.
    pub fn learn(&mut self, secret: &str, marker: &str) {
        if secret.len() < SHORTEST {
            return;
        }
        self.known.push((secret.to_owned(), marker.to_owned()));
        self.known
            .sort_by_key(|(secret, _)| std::cmp::Reverse(secret.len()));
    }

    fn collect(&mut self, marked: &Value, secret: &Value) {
        match (marked, secret) {
            (Value::Object(marked), Value::Object(secret)) => {
                let private = marked.iter().filter(|(name, _)| !PUBLIC.contains(&name.as_str()));
                for (name, marked) in private {
                    if let Some(secret) = secret.get(name) {
                        self.collect(marked, secret);
                    }
                }
            }
            (Value::Array(marked), Value::Array(secret)) => {
                for (marked, secret) in marked.iter().zip(secret) {
                    self.collect(marked, secret);
                }
            }
            (Value::String(marker), Value::String(secret)) => self.learn(secret, marker),
            _ => {}
        }
    }

    /// The bytes without secrets.
    #[must_use]
    pub fn bytes<'b>(&self, bytes: &'b [u8]) -> Cow<'b, [u8]> {
        let mut clean: Option<Vec<u8>> = None;
        let mut from = 0;
        let mut at = 0;
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            let found = self
                .known
                .iter()
                .find_map(|(secret, marker)| Some((written(rest, secret)?, marker)));
            let Some((length, marker)) = found else {
                at += 1;
                continue;
            };
            let clean = clean.get_or_insert_with(Vec::new);
            clean.extend_from_slice(bytes.get(from..at).unwrap_or_default());
            clean.extend_from_slice(marker.as_bytes());
            at += length;
            from = at;
        }
        match clean {
            None => Cow::Borrowed(bytes),
            Some(mut clean) => {
                clean.extend_from_slice(bytes.get(from..).unwrap_or_default());
                Cow::Owned(clean)
            }
        }
    }

    /// The text without secrets.
    #[must_use]
    pub fn text(&self, text: String) -> String {
        match self.bytes(text.as_bytes()) {
            Cow::Borrowed(_) => text,
            Cow::Owned(clean) => String::from_utf8_lossy(&clean).into_owned(),
        }
    }

    /// The value without secrets, in texts and in names of fields.
    #[must_use]
    pub fn value(&self, value: Value) -> Value {
        if self.known.is_empty() {
            return value;
        }
        match value {
            Value::String(text) => Value::String(self.text(text)),
            Value::Array(items) => items.into_iter().map(|item| self.value(item)).collect(),
            Value::Object(fields) => fields
                .into_iter()
                .map(|(name, value)| (self.text(name), self.value(value)))
                .collect::<Map<_, _>>()
                .into(),
            Value::Null | Value::Bool(_) | Value::Number(_) => value,
        }
    }

    /// The failure without secrets.
    #[must_use]
    pub fn failure(&self, failure: Failure) -> Failure {
        Failure {
            detail: self.text(failure.detail),
            ..failure
        }
    }
}

/// How many of the first bytes are the secret, however its characters are written. What a character can be written as may
/// begin with the character itself, as `&amp;` does, so all ways are followed.
fn written(bytes: &[u8], secret: &str) -> Option<usize> {
    let first = secret.chars().next()?;
    if character_written(bytes, first) == [None, None] {
        return None;
    }
    let mut ends = vec![0];
    for character in secret.chars() {
        let mut next = Vec::new();
        for end in ends {
            for length in character_written(bytes.get(end..)?, character)
                .into_iter()
                .flatten()
            {
                next.push(end + length);
            }
        }
        next.sort_unstable();
        next.dedup();
        if next.is_empty() {
            return None;
        }
        ends = next;
    }
    ends.last().copied()
}

/// How many of the first bytes are the character: as it is, and in another way.
fn character_written(bytes: &[u8], character: char) -> [Option<usize>; 2] {
    let mut buffer = [0; 4];
    let plain = character.encode_utf8(&mut buffer).as_bytes();
    let other = match bytes.first() {
        Some(b'+') if character == ' ' => Some(1),
        Some(b'%') => percent_encoded(bytes, plain),
        Some(b'\\') => escaped(bytes, character),
        Some(b'&') => entity(bytes, character),
        _ => None,
    };
    [bytes.starts_with(plain).then_some(plain.len()), other]
}

/// `%C3%BC`.
fn percent_encoded(bytes: &[u8], plain: &[u8]) -> Option<usize> {
    for (index, byte) in plain.iter().enumerate() {
        let digits = bytes.get(3 * index..)?.strip_prefix(b"%")?.get(..2)?;
        if hexadecimal(digits)? != u32::from(*byte) {
            return None;
        }
    }
    Some(3 * plain.len())
}

/// An escape of JSON and of programming languages.
fn escaped(bytes: &[u8], character: char) -> Option<usize> {
    const SHORT: [(u8, char); 9] = [
        (b'"', '"'),
        (b'\\', '\\'),
        (b'/', '/'),
        (b'\'', '\''),
        (b'b', '\u{8}'),
        (b'f', '\u{c}'),
        (b'n', '\n'),
        (b'r', '\r'),
        (b't', '\t'),
    ];
    let short = *bytes.get(1)?;
    if short != b'u' {
        return SHORT.contains(&(short, character)).then_some(2);
    }
    let mut units = [0; 2];
    let units = character.encode_utf16(&mut units);
    for (index, unit) in units.iter().enumerate() {
        let digits = bytes.get(6 * index..)?.strip_prefix(b"\\u")?.get(..4)?;
        if hexadecimal(digits)? != u32::from(*unit) {
            return None;
        }
    }
    Some(6 * units.len())
}

/// An entity of HTML.
fn entity(bytes: &[u8], character: char) -> Option<usize> {
    const LONGEST: usize = 12;
    const NAMED: [(&[u8], char); 5] = [
        (b"amp", '&'),
        (b"lt", '<'),
        (b"gt", '>'),
        (b"quot", '"'),
        (b"apos", '\''),
    ];
    let end = bytes.iter().take(LONGEST).position(|byte| *byte == b';')?;
    let name = bytes.get(1..end)?;
    let is_it = match name.strip_prefix(b"#") {
        None => NAMED.contains(&(name, character)),
        Some(number) => {
            let number = match number.strip_prefix(b"x").or_else(|| number.strip_prefix(b"X")) {
                Some(digits) => hexadecimal(digits),
                None => std::str::from_utf8(number)
                    .ok()
                    .and_then(|digits| digits.parse().ok()),
            };
            number == Some(u32::from(character))
        }
    };
    is_it.then_some(end + 1)
}

fn hexadecimal(digits: &[u8]) -> Option<u32> {
    let digits = std::str::from_utf8(digits).ok()?;
    u32::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn secrets_are_kept_out_of_what_comes_back() {
        let nonce = Nonce::fresh();
        let secrets = BTreeMap::from([
            ("token".to_owned(), json!("t0ken")),
            (
                "db".to_owned(),
                json!({"username": "admin", "password": "t0ken-long"}),
            ),
        ]);
        let redaction = Redaction::new(&nonce, &secrets);
        let back = redaction.value(json!({"echo t0ken": ["Bearer t0ken", "t0ken-long"], "role": "admin"}));
        let text = back.to_string();
        assert!(!text.contains("t0ken") && text.contains("\"admin\""), "{text}");
        let again = redaction.value(json!("to%20ken"));
        assert_eq!(again, json!("to%20ken"));
        assert_eq!(
            back[format!("echo {}", nonce.marker(&["token"]))][1],
            nonce.marker(&["db", "password"])
        );
    }

    #[test]
    fn a_secret_is_recognised_however_its_characters_are_written() {
        let nonce = Nonce::fresh();
        let secret = "S<e&c/r\"e+t=ü 😀'";
        let redaction = Redaction::new(&nonce, &BTreeMap::from([("key".to_owned(), json!(secret))]));
        let marker = nonce.marker(&["key"]);
        for written in [
            secret,
            "S\\u003ce\\u0026c/r\\\"e+t=\\u00fc \\uD83D\\ude00\\'",
            "S<e&c\\/r\\u0022e\\u002Bt=ü 😀'",
            "S%3Ce%26c%2Fr%22e%2Bt%3D%C3%BC%20%F0%9F%98%80%27",
            "S<e&c/r%22e+t=%c3%bc%20%f0%9f%98%80'",
            "S%3Ce%26c%2Fr%22e%2Bt%3D%C3%BC+%F0%9F%98%80%27",
            "S&lt;e&amp;c/r&quot;e+t=&#252; &#x1F600;&#39;",
            "S%3Ce&amp;c/r\\u0022e+t=%c3%bc+😀&apos;",
        ] {
            let text = redaction.text(format!("before {written} behind"));
            assert_eq!(text, format!("before {marker} behind"), "{written}");
        }
        let plain = Redaction::new(
            &nonce,
            &BTreeMap::from([("key".to_owned(), json!("x&amp;y%20\\n"))]),
        );
        assert_eq!(plain.text("x&amp;y%20\\n".to_owned()), marker);
        let other = "S<e&c/r\\u0022e+t=\\u00fd";
        assert_eq!(redaction.text(other.to_owned()), other);
    }
}
