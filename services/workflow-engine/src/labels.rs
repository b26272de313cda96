//! Labels of runs: short texts to search by.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::error::Error;

/// Labels of one run at most.
const MOST: usize = 32;

/// Longest key, in bytes.
const LONGEST_KEY: usize = 63;

/// Longest value, in bytes.
const LONGEST_VALUE: usize = 256;

/// The labels of a run: those that were given for it, and the tags of its document that can be labels.
pub(crate) fn all(
    tags: &Map<String, Value>,
    given: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, Error> {
    let mut labels = BTreeMap::new();
    for (key, value) in given {
        check(key, value).map_err(|message| Error::field("labels", message))?;
        labels.insert(key.clone(), value.clone());
    }
    if labels.len() > MOST {
        let message = format!("are {}, and a run has at most {MOST}", labels.len());
        return Err(Error::field("labels", message));
    }
    for (key, value) in tags {
        if let Value::String(value) = value
            && labels.len() < MOST
            && check(key, value).is_ok()
        {
            labels.entry(key.clone()).or_insert_with(|| value.clone());
        }
    }
    Ok(labels)
}

/// A label to search by: `key=value`, or `key` for any value.
pub(crate) fn selector(text: &str) -> Result<(String, Option<String>), Error> {
    let (key, value) = match text.split_once('=') {
        Some((key, value)) => (key, Some(value)),
        None => (text, None),
    };
    check(key, value.unwrap_or_default()).map_err(|message| Error::field("labels", message))?;
    Ok((key.to_owned(), value.map(str::to_owned)))
}

fn check(key: &str, value: &str) -> Result<(), String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-' | b'/');
    if key.is_empty() || key.len() > LONGEST_KEY || !key.bytes().all(allowed) {
        return Err(format!(
            "'{}' is no key of a label: 1 to {LONGEST_KEY} letters, digits, '.', '_', '-' and '/'",
            key.chars().take(LONGEST_KEY).collect::<String>()
        ));
    }
    if value.len() > LONGEST_VALUE {
        let bytes = value.len();
        return Err(format!(
            "the value of '{key}' has {bytes} bytes, and at most {LONGEST_VALUE} are taken"
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_given_goes_before_the_documents_tags() {
        let tags = json!({"team": "red", "tier": "one", "deep": {"no": 1}, "no key": "x"});
        let given = [("team".to_owned(), "blue".to_owned())].into();
        let labels = all(tags.as_object().unwrap(), &given).unwrap();
        let labels: Vec<_> = labels
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
            .collect();
        assert_eq!(labels, [("team", "blue"), ("tier", "one")]);
    }

    #[test]
    fn labels_are_bounded() {
        let many = (0..40)
            .map(|number| (number.to_string(), String::new()))
            .collect();
        assert!(all(&Map::new(), &many).is_err());
        for (key, value) in [("", ""), ("a b", ""), ("k", &*"x".repeat(300))] {
            assert!(
                all(&Map::new(), &[(key.to_owned(), value.to_owned())].into()).is_err(),
                "{key}"
            );
        }
        assert_eq!(
            selector("a=b=c").unwrap(),
            ("a".to_owned(), Some("b=c".to_owned()))
        );
        assert_eq!(selector("a").unwrap(), ("a".to_owned(), None));
        assert!(selector("=b").is_err());
    }
}
