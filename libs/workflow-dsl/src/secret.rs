//! Secrets: what a run knows of them, which is never what they are.
//!
//! A journal is read by people, copied and kept. Therefore no secret enters it: inside the interpreter each secret is a *marker*,
//! text such as `muster-secret~api.token~9f…~`, and only the adapter that carries a request out puts the secret in its place, at
//! the last moment. Markers can be stored, passed on and joined with other text, as in `"Bearer " + $secrets.token`; what
//! computes with them (a length, a hash, an encoding) computes with the marker.
//!
//! A marker cannot be forged: its last part is a MAC of the name under a nonce that is drawn when the run is accepted and pinned
//! with it. Text that looks like a marker and is not one of this run's, such as one that an answer contains, stays text. A
//! marker that was seen reveals nothing about that of another secret.
//!
//! A secret is text, or an object whose fields are secrets of their own (`$secrets.database.password`). The names of the fields are
//! known to the run, their values are not.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write as _;
use std::sync::Arc;

use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::Sha256;
use uuid::Uuid;

use crate::document::encode;

/// How each marker begins. All characters of a marker are unreserved in addresses and headers.
const BEGIN: &str = "muster-secret~";

/// What stands for `~` in a marker that is a part of an address: what it stands for is to be percent-encoded as well.
const ENCODED: &str = "%7E";

/// Hexadecimal digits of the MAC: 128 bits.
const DIGITS: usize = 32;

/// Longest name of a secret.
const LONGEST_NAME: usize = 128;

/// What makes the markers of a run its own. Pinned with the run; never shown.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Nonce(Arc<str>);

impl std::fmt::Debug for Nonce {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Nonce(…)")
    }
}

impl Nonce {
    /// A fresh one.
    #[must_use]
    pub fn fresh() -> Self {
        Self(format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple()).into())
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// Whether there is none: of runs from before there were secrets.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The marker of a secret, or of a part of one.
    #[must_use]
    pub fn marker(&self, path: &[&str]) -> String {
        let mut mac =
            Hmac::<Sha256>::new_from_slice(self.0.as_bytes()).expect("HMAC takes keys of any length");
        for part in path {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part.as_bytes());
        }
        let mut marker = BEGIN.to_owned();
        let plain =
            |character: char| character.is_ascii_alphanumeric() || matches!(character, '-' | '_' | '.');
        marker.extend(
            path.join(".")
                .chars()
                .filter(|character| plain(*character))
                .take(64),
        );
        marker.push('~');
        for byte in mac.finalize().into_bytes().iter().take(DIGITS / 2) {
            write!(marker, "{byte:02x}").expect("writing to a String cannot fail");
        }
        marker.push('~');
        marker
    }

    /// The secret called `name` with each of its parts replaced by its marker.
    #[must_use]
    pub fn marked(&self, name: &str, secret: &Value) -> Value {
        self.mark(&mut vec![name.to_owned()], secret)
    }

    fn mark(&self, path: &mut Vec<String>, secret: &Value) -> Value {
        match secret {
            Value::Object(fields) => fields
                .iter()
                .map(|(field, part)| {
                    (
                        field.clone(),
                        self.inside(path, field, |path| self.mark(path, part)),
                    )
                })
                .collect::<Map<_, _>>()
                .into(),
            Value::Array(items) => items
                .iter()
                .enumerate()
                .map(|(index, part)| self.inside(path, &index.to_string(), |path| self.mark(path, part)))
                .collect(),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => self
                .marker(&path.iter().map(String::as_str).collect::<Vec<_>>())
                .into(),
        }
    }

    fn inside<T>(&self, path: &mut Vec<String>, part: &str, work: impl FnOnce(&mut Vec<String>) -> T) -> T {
        path.push(part.to_owned());
        let result = work(path);
        path.pop();
        result
    }
}

/// What a run knows of its secrets.
#[derive(Debug, Clone, Default)]
pub struct Secrets {
    known: Option<Result<Arc<Value>, Arc<str>>>,
    nonce: Nonce,
}

impl Secrets {
    /// The secrets by name; only their shape is kept. Or why they are not there.
    #[must_use]
    pub fn new(nonce: Nonce, secrets: Result<&BTreeMap<String, Value>, String>) -> Self {
        let marked = |secrets: &BTreeMap<String, Value>| {
            let marked = secrets.iter();
            let marked = marked.map(|(name, secret)| (name.clone(), nonce.marked(name, secret)));
            Arc::new(Value::Object(marked.collect()))
        };
        Self {
            known: Some(secrets.map(marked).map_err(Arc::from)),
            nonce,
        }
    }

    /// `$secrets`: an object of markers. Where nobody has said what the secrets are, those that the document lists are
    /// taken to be text.
    ///
    /// # Errors
    /// Why the secrets are not there.
    pub fn value(&self, listed: &[String]) -> Result<Arc<Value>, String> {
        match &self.known {
            Some(Ok(known)) => Ok(Arc::clone(known)),
            Some(Err(why)) => Err(why.to_string()),
            None => {
                let text = Value::from("");
                let marked = listed
                    .iter()
                    .map(|name| (name.clone(), self.nonce.marked(name, &text)));
                Ok(Arc::new(Value::Object(marked.collect())))
            }
        }
    }

    /// The marker of what a call's authentication sends in the header `Authorization`.
    #[must_use]
    pub fn authorization(&self) -> String {
        self.nonce.marker(&AUTHORIZATION)
    }
}

/// The path of the marker for what the authentication of a call sends; no secret can have this name.
pub const AUTHORIZATION: [&str; 1] = ["$authorization"];

/// Puts secrets in the place of their markers. Belongs to whoever carries a request out.
#[derive(Clone, Default)]
pub struct Unmarking(HashMap<String, Value>);

/// A marker in a request that cannot be replaced.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the secret behind '{0}' is not known here; a secret goes only where the document names it in the call itself"
)]
pub struct Unknown(pub String);

impl Unmarking {
    /// Knows these secrets by name.
    #[must_use]
    pub fn new(nonce: &Nonce, secrets: &BTreeMap<String, Value>) -> Self {
        let mut known = HashMap::new();
        for (name, secret) in secrets {
            collect(&mut known, &nonce.marked(name, secret), secret);
        }
        Self(known)
    }

    /// Knows one more.
    pub fn learn(&mut self, marker: String, secret: impl Into<Value>) {
        self.0.insert(marker, secret.into());
    }

    /// Each marker with what it stands for.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(marker, secret)| (marker.as_str(), secret))
    }

    /// The text with secrets in the place of markers. What looks like a marker and is none stays.
    #[must_use]
    pub fn text<'t>(&self, text: &'t str) -> Cow<'t, str> {
        let mut result: Option<String> = None;
        let mut from = 0;
        for (start, marker) in markers(text) {
            let Some(secret) = self.0.get(marker) else {
                continue;
            };
            let result = result.get_or_insert_with(String::new);
            result.push_str(text.get(from..start).unwrap_or_default());
            match secret {
                Value::String(secret) => result.push_str(secret),
                other => result.push_str(&other.to_string()),
            }
            from = start + marker.len();
        }
        match result {
            None => Cow::Borrowed(text),
            Some(mut result) => {
                result.push_str(text.get(from..).unwrap_or_default());
                Cow::Owned(result)
            }
        }
    }

    /// The address with secrets in the place of markers. A marker that was encoded as a part of the address stands for the secret
    /// encoded in the same way, so that no secret ends a path or begins a query.
    #[must_use]
    pub fn address(&self, text: &str) -> String {
        let begin = BEGIN.replace('~', ENCODED);
        let mut result = String::new();
        let mut rest = text;
        while let Some((before, behind)) = rest.split_once(&begin) {
            result.push_str(before);
            let known = behind.split_once(ENCODED).and_then(|(name, behind)| {
                let (digits, behind) = behind.split_at_checked(DIGITS)?;
                let secret = self.0.get(&format!("{BEGIN}{name}~{digits}~"))?;
                Some((secret, behind.strip_prefix(ENCODED)?))
            });
            rest = match known {
                Some((Value::String(secret), behind)) => {
                    encode(&mut result, secret, false);
                    behind
                }
                Some((secret, behind)) => {
                    encode(&mut result, &secret.to_string(), false);
                    behind
                }
                None => {
                    result.push_str(&begin);
                    behind
                }
            };
        }
        result.push_str(rest);
        self.text(&result).into_owned()
    }

    /// The value with secrets in the place of markers; a text that is one marker becomes what the secret is. Names of fields are
    /// left as they are.
    #[must_use]
    pub fn value(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => match self.0.get(text.as_str()) {
                Some(secret) => secret.clone(),
                None => Value::String(self.text(text).into_owned()),
            },
            Value::Array(items) => items.iter().map(|item| self.value(item)).collect(),
            Value::Object(fields) => fields
                .iter()
                .map(|(name, value)| (name.clone(), self.value(value)))
                .collect::<Map<_, _>>()
                .into(),
            Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
        }
    }
}

/// Pairs each marker with what it stands for.
fn collect(known: &mut HashMap<String, Value>, marked: &Value, secret: &Value) {
    match (marked, secret) {
        (Value::Object(marked), Value::Object(secret)) => {
            for (name, marked) in marked {
                if let Some(secret) = secret.get(name) {
                    collect(known, marked, secret);
                }
            }
        }
        (Value::Array(marked), Value::Array(secret)) => {
            for (marked, secret) in marked.iter().zip(secret) {
                collect(known, marked, secret);
            }
        }
        (Value::String(marker), secret) => {
            known.insert(marker.clone(), secret.clone());
        }
        _ => {}
    }
}

/// Everything in a text that has the form of a marker, with its place.
fn markers(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.match_indices(BEGIN).filter_map(move |(start, _)| {
        let rest = text.get(start + BEGIN.len()..)?;
        let name = rest.find('~')?;
        let end = name + 1 + DIGITS;
        let digits = rest.get(name + 1..end)?;
        let fits = digits.bytes().all(|byte| byte.is_ascii_hexdigit()) && rest.get(end..)?.starts_with('~');
        let marker = text.get(start..start + BEGIN.len() + end + 1)?;
        fits.then_some((start, marker))
    })
}

/// A part of an address that was percent-encoded; the markers in it say so.
#[must_use]
pub fn encoded(part: String) -> String {
    if part.contains(BEGIN) {
        part.replace('~', ENCODED)
    } else {
        part
    }
}

/// The address with its markers as they are elsewhere, to be shown.
#[must_use]
pub fn plain(address: &str) -> String {
    if address.contains(&BEGIN.replace('~', ENCODED)) {
        address.replace(ENCODED, "~")
    } else {
        address.to_owned()
    }
}

/// Whether something in the value has the form of a marker.
#[must_use]
pub fn has_marker(value: &Value) -> bool {
    match value {
        Value::String(text) => markers(text).next().is_some(),
        Value::Array(items) => items.iter().any(has_marker),
        Value::Object(fields) => fields.values().any(has_marker),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// Whether a secret can have this name.
#[must_use]
pub fn is_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    !name.is_empty() && name.len() <= LONGEST_NAME && name.bytes().all(allowed) && !name.starts_with('.')
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn secrets() -> BTreeMap<String, Value> {
        BTreeMap::from([
            ("token".to_owned(), json!("t0ken")),
            (
                "db".to_owned(),
                json!({"user": "u", "port": 5432, "hosts": ["a", "b"]}),
            ),
        ])
    }

    #[test]
    fn markers_go_out_as_what_they_stand_for() {
        let nonce = Nonce::fresh();
        let known = Secrets::new(nonce.clone(), Ok(&secrets()));
        let marked = known.value(&[]).unwrap();
        assert!(!marked.to_string().contains("t0ken") && !marked.to_string().contains("5432"));
        let unmarking = Unmarking::new(&nonce, &secrets());
        assert_eq!(unmarking.value(&marked), serde_json::to_value(secrets()).unwrap());
        let token = marked["token"].as_str().unwrap();
        let (port, text) = (marked["db"]["port"].as_str().unwrap(), "Bearer ");
        assert_eq!(
            unmarking.text(&format!("{text}{token}, {token}:{port}!")),
            "Bearer t0ken, t0ken:5432!"
        );
        assert!(has_marker(&json!([{"a": format!("x{token}y")}])));
    }

    #[test]
    fn what_is_not_a_marker_of_this_run_stays_text() {
        let nonce = Nonce::fresh();
        let unmarking = Unmarking::new(&nonce, &secrets());
        let foreign = Nonce::fresh().marker(&["token"]);
        let half = nonce.marker(&["token"]);
        let half = &half[..half.len() - 1];
        for text in [
            foreign.as_str(),
            half,
            "muster-secret~token~",
            "muster-secret~",
            "ümuster-secret~ü~x",
        ] {
            assert_eq!(unmarking.text(text), text);
        }
        assert!(!has_marker(&json!({"a": [half, "muster-secret~x~"]})));
        let nested = format!("{BEGIN}{}", nonce.marker(&["token"]));
        assert_eq!(unmarking.text(&nested), format!("{BEGIN}t0ken"));
    }

    #[test]
    fn a_path_is_not_another_one_that_looks_alike() {
        let nonce = Nonce::fresh();
        assert_ne!(nonce.marker(&["a.b"]), nonce.marker(&["a", "b"]));
        assert_ne!(nonce.marker(&["ab"]), nonce.marker(&["a", "b"]));
        assert_eq!(nonce.marker(&["a", "b"]), nonce.marker(&["a", "b"]));
        assert!(!is_name(AUTHORIZATION[0]) && !is_name("../x") && !is_name(".x") && is_name("api-Token_1.x"));
    }

    #[test]
    fn without_secrets_the_reason_is_told_and_without_anything_all_are_text() {
        let none = Secrets::new(Nonce::fresh(), Err("not granted".into()));
        assert_eq!(none.value(&[]), Err("not granted".to_owned()));
        let unknown = Secrets::default().value(&["a".into()]).unwrap();
        assert!(has_marker(&unknown));
    }
}
