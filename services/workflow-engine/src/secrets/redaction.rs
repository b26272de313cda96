//! Keeping secrets out of what comes back.
//!
//! Services repeat what they are sent: in echoes, in errors, in links. Wherever a secret of the run stands in an answer, its marker is
//! put in its place, also where it stands percent-encoded or escaped. What a service computes from a secret cannot be
//! recognised. Fields of a secret that say what is public, such as a user's name, are not looked for.

use std::borrow::Cow;
use std::collections::BTreeMap;

use muster_workflow_dsl::secret::Nonce;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
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
        let escaped = Value::from(secret).to_string();
        let form: String = url::form_urlencoded::byte_serialize(secret.as_bytes()).collect();
        let mut forms = vec![
            secret.to_owned(),
            utf8_percent_encode(secret, NON_ALPHANUMERIC).to_string(),
            utf8_percent_encode(secret, percent_encoding::CONTROLS).to_string(),
            form,
            escaped.trim_matches('"').to_owned(),
        ];
        forms.sort();
        forms.dedup();
        let known = forms.into_iter().map(|form| (form, marker.to_owned()));
        self.known.extend(known);
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
                .find(|(secret, _)| rest.starts_with(secret.as_bytes()));
            let Some((secret, marker)) = found else {
                at += 1;
                continue;
            };
            let clean = clean.get_or_insert_with(Vec::new);
            clean.extend_from_slice(bytes.get(from..at).unwrap_or_default());
            clean.extend_from_slice(marker.as_bytes());
            at += secret.len();
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
}
