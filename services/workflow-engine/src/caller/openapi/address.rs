//! Addresses as descriptions of services write them: with variables in braces.
//!
//! A description is written by others. So each variable is replaced once, by a text in which nothing is replaced again, and the whole
//! is bounded: a handful of variables, each of which stands for ten of the next, would fill any memory.

use muster_workflow_dsl::document::UriTemplate;

use super::wrong;
use crate::caller::Failure;

/// The address with its variables replaced by what they stand for; those that stand for nothing stay.
pub(in crate::caller) fn filled<'v>(
    address: &str,
    value: impl Fn(&str) -> Option<&'v str>,
) -> Result<String, Failure> {
    let mut text = String::new();
    let mut rest = address;
    while let Some(begin) = rest.find('{') {
        let (before, variable) = rest.split_at(begin);
        text.push_str(before);
        // Up to the next brace of either kind, so that a row of them is read once.
        let behind = variable.strip_prefix('{').unwrap_or_default();
        let (name, after) = behind.split_at(behind.find(['{', '}']).unwrap_or(behind.len()));
        let replaced = after
            .strip_prefix('}')
            .and_then(|after| Some((value(name)?, after)));
        let (piece, after) = replaced.unwrap_or(("{", behind));
        text.push_str(piece);
        rest = after;
        bounded(&text)?;
    }
    text.push_str(rest);
    bounded(&text)?;
    Ok(text)
}

fn bounded(text: &str) -> Result<(), Failure> {
    if text.len() <= UriTemplate::LONGEST {
        return Ok(());
    }
    let most = UriTemplate::LONGEST;
    Err(wrong(format!(
        "an address in the document is longer than {most} bytes with its variables replaced"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_replaced_once() {
        let value = |name: &str| match name {
            "a" => Some("{b}"),
            "b" => Some("x"),
            _ => None,
        };
        let filled = |address| filled(address, value).unwrap();
        assert_eq!(filled("h://{b}/{a}/{c}/{{b}}{"), "h://x/{b}/{c}/{x}{");
        assert_eq!(filled(""), "");
    }

    #[test]
    fn an_address_has_an_end() {
        let long = "x".repeat(1_000);
        let row = filled(&"{".repeat(60_000), |_| Some(long.as_str())).unwrap();
        assert_eq!(row.len(), 60_000);
        let error = filled(&"{a}".repeat(1_000_000), |_| Some(long.as_str())).unwrap_err();
        assert!(error.detail.contains("longer than 65536 bytes"), "{error}");
    }
}
