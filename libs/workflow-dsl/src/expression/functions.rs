//! Functions on our values that jaq leaves to whoever brings the values.

use jaq_core::box_iter::box_once;
use jaq_core::{Exn, ValR, ValX};
use serde_json::Value as Json;

use super::budget;
use super::value::{Array, Value};

type Error = jaq_core::Error<Value>;

/// Longest regular expression.
const LONGEST_PATTERN: usize = 512;

/// Largest product of the counts in a regular expression such as `(a{10}){20}`: it is the number of copies that are
/// made of its innermost part.
const MOST_REPETITIONS: u64 = 1_000;

pub(super) fn length(value: Value) -> ValR<Value> {
    Ok(match &value {
        Value::Null => Value::Int(0),
        Value::Bool(_) => return Err(Error::str(format!("{value} has no length"))),
        Value::Int(number) => number
            .checked_abs()
            .map_or(Value::Float(-(*number as f64)), Value::Int),
        Value::Float(number) => Value::Float(number.abs()),
        Value::Text(text) => {
            budget::spend_bytes(text.len());
            Value::from(text.chars().count())
        }
        Value::Array(array) => Value::from(array.items().len()),
        Value::Object(object) => Value::from(object.fields().len()),
    })
}

pub(super) fn keys(value: Value) -> ValR<Value> {
    match &value {
        Value::Array(array) => Ok((0..array.items().len()).map(Value::from).collect()),
        Value::Object(object) => Ok(object
            .fields()
            .keys()
            .map(|name| Value::text(name.to_string()))
            .collect()),
        _ => Err(Error::typ(value, "array or object")),
    }
}

pub(super) fn has(value: Value, key: Value) -> ValR<Value> {
    match (&value, &key) {
        (Value::Object(object), Value::Text(name)) => {
            Ok(Value::Bool(object.fields().contains_key(name.as_str())))
        }
        (Value::Array(array), Value::Int(index)) => Ok(Value::Bool(
            usize::try_from(*index).is_ok_and(|index| index < array.items().len()),
        )),
        _ => Err(Error::index(value, key)),
    }
}

/// Whether `part` is part of `value`, as jq defines it.
pub(super) fn contains(value: &Value, part: &Value) -> bool {
    if !budget::spend(1) {
        return false;
    }
    match (value, part) {
        (Value::Text(text), Value::Text(part)) => {
            budget::spend_bytes(text.len());
            text.contains(part.as_str())
        }
        (Value::Array(array), Value::Array(parts)) => parts
            .items()
            .iter()
            .all(|part| array.items().iter().any(|item| contains(item, part))),
        (Value::Object(object), Value::Object(parts)) => parts.fields().iter().all(|(name, part)| {
            object
                .fields()
                .get(name)
                .is_some_and(|value| contains(value, part))
        }),
        _ => value == part,
    }
}

pub(super) fn fromjson(value: Value) -> ValR<Value> {
    let Value::Text(text) = &value else {
        return Err(Error::typ(value, "string"));
    };
    // Each byte of text may become a node.
    budget::spend(text.len() as u64 / 4 + 1);
    let json: Json =
        serde_json::from_str(text).map_err(|error| Error::str(format!("{value} is not JSON: {error}")))?;
    Value::from_json(&json).ok_or_else(|| Error::str("the JSON text is nested too deeply"))
}

pub(super) fn tonumber(value: Value) -> ValR<Value> {
    let Value::Text(text) = &value else {
        return if value.number().is_some() {
            Ok(value)
        } else {
            Err(Error::typ(value, "number"))
        };
    };
    let trimmed = text.trim();
    let integer = trimmed.parse().map(Value::Int);
    let number = integer.or_else(|_| trimmed.parse().map(Value::Float));
    number.map_err(|_| Error::str(format!("'{value}' is not a number")))
}

pub(super) fn implode(value: Value) -> ValR<Value> {
    let Value::Array(array) = &value else {
        return Err(Error::typ(value, "array"));
    };
    budget::spend(array.items().len() as u64);
    let character = |item: &Value| {
        let code = item.whole().and_then(|code| u32::try_from(code).ok());
        code.and_then(char::from_u32)
            .ok_or_else(|| Error::str(format!("{item} is not the code of a character")))
    };
    let text: Result<String, _> = array.items().iter().map(character).collect();
    text.map(Value::text)
}

pub(super) fn join(value: Value, separator: Value) -> ValR<Value> {
    let (Value::Array(array), Value::Text(separator)) = (&value, &separator) else {
        return Err(Error::str(format!(
            "cannot join {value} with {separator}: an array and a string are needed"
        )));
    };
    let mut joined = String::new();
    for (index, item) in array.items().iter().enumerate() {
        if index > 0 {
            joined.push_str(separator);
        }
        match item {
            Value::Null => {}
            Value::Text(text) => joined.push_str(text),
            Value::Array(_) | Value::Object(_) => {
                return Err(Error::str(format!(
                    "cannot join {item}: only scalars can be joined"
                )));
            }
            scalar => joined.push_str(&scalar.to_json_text()),
        }
        if joined.len() as u64 > budget::SIZE || !budget::spend(1) {
            break;
        }
    }
    Ok(Value::text(joined))
}

/// The text without what it begins with; as in jq, whatever is no text, or begins otherwise, stays as it is.
pub(super) fn without_start(value: Value, start: Value) -> ValR<Value> {
    let rest = match (&value, &start) {
        (Value::Text(text), Value::Text(start)) => text.strip_prefix(start.as_str()),
        _ => None,
    };
    Ok(rest.map(|rest| Value::text(rest.to_owned())).unwrap_or(value))
}

/// The text without what it ends with, under the same conditions.
pub(super) fn without_end(value: Value, end: Value) -> ValR<Value> {
    let rest = match (&value, &end) {
        (Value::Text(text), Value::Text(end)) => text.strip_suffix(end.as_str()),
        _ => None,
    };
    Ok(rest.map(|rest| Value::text(rest.to_owned())).unwrap_or(value))
}

/// Where in a sorted array the value is; where it is not, -1 minus the place at which it would be.
pub(super) fn position(value: Value, wanted: Value) -> ValR<Value> {
    let Value::Array(array) = &value else {
        return Err(Error::typ(value, "array"));
    };
    let comparisons = u64::from(usize::BITS - array.items().len().leading_zeros());
    budget::spend(comparisons.saturating_mul(1 + wanted.size() / 8));
    let index = |place: usize| i64::try_from(place).unwrap_or(i64::MAX);
    Ok(Value::Int(match array.items().binary_search(&wanted) {
        Ok(place) => index(place),
        Err(place) => -1 - index(place),
    }))
}

/// The bytes of a text in Base32 (RFC 4648).
pub(super) fn base32(value: Value) -> ValR<Value> {
    const ALPHABET: [char; 32] = [
        'A', 'B', 'C', 'D', 'E', 'F', 'G', 'H', 'I', 'J', 'K', 'L', 'M', 'N', 'O', 'P', 'Q', 'R', 'S', 'T',
        'U', 'V', 'W', 'X', 'Y', 'Z', '2', '3', '4', '5', '6', '7',
    ];
    let Value::Text(text) = &value else {
        return Err(Error::typ(value, "string"));
    };
    budget::spend_bytes(text.len());
    let mut encoded = String::new();
    for group in text.as_bytes().chunks(5) {
        let bits = (0..5).fold(0_u64, |bits, index| {
            (bits << 8) | u64::from(group.get(index).copied().unwrap_or_default())
        });
        let used = (group.len() * 8).div_ceil(5);
        encoded.extend((0..8).map(|place| {
            let five = usize::try_from((bits >> (35 - 5 * place)) & 31).unwrap_or_default();
            match ALPHABET.get(five) {
                Some(letter) if place < used => *letter,
                _ => '=',
            }
        }));
    }
    Ok(Value::text(encoded))
}

/// Arrays inside the array are replaced by their elements, down to this depth.
pub(super) fn flatten(value: Value, depth: i64) -> ValR<Value> {
    fn flat(array: &Array, depth: i64, into: &mut Vec<Value>) {
        for item in array.items() {
            match item {
                Value::Array(inner) if depth > 0 => flat(inner, depth - 1, into),
                item if budget::spend(1) => into.push(item.clone()),
                _ => return,
            }
        }
    }
    let Value::Array(array) = &value else {
        return Err(Error::typ(value, "array"));
    };
    let mut items = Vec::new();
    flat(array, depth, &mut items);
    Ok(Value::array(items))
}

/// The numbers from one to the other; ends the evaluation when nothing is left to spend.
pub(super) fn range<'a>(from: Value, to: Value, by: Value) -> jaq_core::ValXs<'a, Value> {
    let (Some(_), Some(_), Some(step)) = (from.number(), to.number(), by.number()) else {
        return box_once(Err(Exn::from(Error::str(format!(
            "range needs numbers, not {from}, {to}, {by}"
        )))));
    };
    let mut next: Option<ValX<'a, Value>> = Some(Ok(from));
    Box::new(std::iter::from_fn(move || {
        let current = match next.take()? {
            Ok(current) => current,
            Err(error) => return Some(Err(error)),
        };
        let inside = if step > 0.0 {
            current < to
        } else {
            step < 0.0 && current > to
        };
        if !inside {
            return None;
        }
        if !budget::spend(1) {
            return Some(Err(Exn::halt(0)));
        }
        next = Some((current.clone() + by.clone()).map_err(Exn::from));
        Some(Ok(current))
    }))
}

/// Passes the input on if matching it against the regular expression is affordable. The engine's time is the product
/// of the lengths of text and expanded pattern; counted repetitions multiply the latter.
pub(super) fn check_pattern(value: Value, pattern: Value) -> ValR<Value> {
    let Value::Text(text) = &pattern else {
        return Err(Error::typ(pattern, "string"));
    };
    if text.len() > LONGEST_PATTERN {
        let message = format!(
            "a regular expression has at most {LONGEST_PATTERN} bytes, this one {}",
            text.len()
        );
        return Err(Error::str(message));
    }
    let copies = repetitions(text);
    if copies > MOST_REPETITIONS {
        let message =
            format!("the counts in '{pattern}' multiply to {copies}; {MOST_REPETITIONS} is the most");
        return Err(Error::str(message));
    }
    let subject = if let Value::Text(subject) = &value {
        subject.len() as u64
    } else {
        0
    };
    let states = (text.len() as u64 + 1).saturating_mul(copies.max(1));
    budget::spend(states.saturating_mul(subject + 16) / 64);
    Ok(value)
}

/// The product of all numbers in braces; an upper bound for what nesting can multiply to.
fn repetitions(pattern: &str) -> u64 {
    let mut product = 1_u64;
    for braces in pattern.split('{').skip(1) {
        let inside = braces.split('}').next().unwrap_or_default();
        let largest = inside.split(|character: char| !character.is_ascii_digit());
        let largest = largest
            .filter(|digits| !digits.is_empty())
            .map(|digits| digits.parse().unwrap_or(u64::MAX))
            .max();
        product = product.saturating_mul(largest.unwrap_or(1).max(1));
    }
    product
}
