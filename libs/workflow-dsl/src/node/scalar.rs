//! What a plain YAML scalar means, after the core schema of YAML 1.2.

use serde_json::Number;

use super::Content;

/// What an unquoted scalar stands for.
///
/// # Errors
/// A message for numbers that JSON cannot hold.
pub(super) fn resolve(text: &str) -> Result<Content, String> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Ok(Content::Null),
        "true" | "True" | "TRUE" => return Ok(Content::Bool(true)),
        "false" | "False" | "FALSE" => return Ok(Content::Bool(false)),
        _ => {}
    }
    if let Some(number) = integer(text).or_else(|| float(text)) {
        return number.map(Content::Number).ok_or_else(|| {
            format!(
                "the number '{}' does not fit 64 bits; put it in quotes if it is text",
                short(text)
            )
        });
    }
    if is_not_finite(text) {
        return Err(format!(
            "'{text}' has no form in JSON; put it in quotes if it is text"
        ));
    }
    Ok(Content::Text(text.to_owned()))
}

/// The integer that `text` spells, `Some(None)` if it spells one that is too large.
fn integer(text: &str) -> Option<Option<Number>> {
    if let Some(digits) = text.strip_prefix("0x") {
        return radix(digits, 16);
    }
    if let Some(digits) = text.strip_prefix("0o") {
        return radix(digits, 8);
    }
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    if !all_digits(unsigned) {
        return None;
    }
    let signed: Option<Number> = text.parse::<i64>().ok().map(Number::from);
    Some(signed.or_else(|| text.parse::<u64>().ok().map(Number::from)))
}

fn radix(digits: &str, radix: u32) -> Option<Option<Number>> {
    let spelled = !digits.is_empty() && digits.chars().all(|digit| digit.is_digit(radix));
    spelled.then(|| u64::from_str_radix(digits, radix).ok().map(Number::from))
}

/// The decimal fraction that `text` spells, `Some(None)` if it spells one that is too large.
fn float(text: &str) -> Option<Option<Number>> {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (unsigned, None),
    };
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((whole, fraction)) => (whole, fraction),
        None => (mantissa, ""),
    };
    let digits_around_point = (whole.is_empty() || all_digits(whole))
        && (fraction.is_empty() || all_digits(fraction))
        && !(whole.is_empty() && fraction.is_empty());
    let exponent_digits =
        exponent.is_none_or(|exponent| all_digits(exponent.strip_prefix(['-', '+']).unwrap_or(exponent)));
    if !digits_around_point || !exponent_digits {
        return None;
    }
    Some(text.parse::<f64>().ok().and_then(Number::from_f64))
}

fn all_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn is_not_finite(text: &str) -> bool {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    matches!(unsigned, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN")
}

fn short(text: &str) -> String {
    text.chars().take(40).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn scalars_mean_what_the_core_schema_says() {
        for (text, expected) in [
            ("", json!(null)),
            ("~", json!(null)),
            ("null", json!(null)),
            ("true", json!(true)),
            ("FALSE", json!(false)),
            ("yes", json!("yes")),
            ("on", json!("on")),
            ("0", json!(0)),
            ("-7", json!(-7)),
            ("+7", json!(7)),
            ("18446744073709551615", json!(u64::MAX)),
            ("0x1F", json!(31)),
            ("0o17", json!(15)),
            ("0xZ", json!("0xZ")),
            ("1.5", json!(1.5)),
            (".5", json!(0.5)),
            ("1e3", json!(1000.0)),
            ("1.", json!(1.0)),
            (".", json!(".")),
            ("-", json!("-")),
            ("1.0.0", json!("1.0.0")),
            ("1e", json!("1e")),
            ("e5", json!("e5")),
            ("2014-03-01", json!("2014-03-01")),
            ("PT5S", json!("PT5S")),
        ] {
            let content = resolve(text).unwrap_or_else(|message| panic!("{text}: {message}"));
            let node = super::super::Node {
                place: crate::problem::Place { line: 1, column: 1 },
                content,
            };
            assert_eq!(node.to_value(), expected, "{text}");
        }
    }

    #[test]
    fn numbers_that_json_cannot_hold_are_refused() {
        for text in [
            "18446744073709551616",
            "1e999",
            ".inf",
            "-.Inf",
            ".nan",
            "0xfffffffffffffffff",
        ] {
            assert!(resolve(text).is_err(), "{text}");
        }
    }
}
