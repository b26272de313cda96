//! jq's arithmetic: `+`, `-`, `*`, `/`, `%` and the sign.

use std::ops::{Add, Div, Mul, Neg, Rem, Sub};
use std::rc::Rc;

use jaq_core::ops::Math;

use super::budget::{self, Exceeded};
use super::value::{Object, Value};

type Error = jaq_core::Error<Value>;
type Outcome = jaq_core::ValR<Value>;

/// Integers as long as the result is one, doubles otherwise.
fn numbers(
    left: &Value,
    right: &Value,
    integers: fn(i64, i64) -> Option<i64>,
    floats: fn(f64, f64) -> f64,
) -> Option<Value> {
    match (left, right) {
        (Value::Int(left), Value::Int(right)) => Some(
            integers(*left, *right)
                .map_or_else(|| Value::Float(floats(*left as f64, *right as f64)), Value::Int),
        ),
        _ => Some(Value::Float(floats(left.number()?, right.number()?))),
    }
}

impl Value {
    /// The number as a double.
    pub(super) fn number(&self) -> Option<f64> {
        match self {
            Self::Int(value) => Some(*value as f64),
            Self::Float(value) => Some(*value),
            _ => None,
        }
    }

    /// The number without its fraction, saturating; none for what is not a number.
    pub(super) fn whole(&self) -> Option<i64> {
        match self {
            Self::Int(value) => Some(*value),
            Self::Float(value) if !value.is_nan() => Some(value.floor() as i64),
            _ => None,
        }
    }
}

impl Add for Value {
    type Output = Outcome;

    fn add(self, other: Self) -> Outcome {
        budget::spend(1);
        if let Some(sum) = numbers(&self, &other, i64::checked_add, |left, right| left + right) {
            return Ok(sum);
        }
        match (self, other) {
            (Self::Null, value) | (value, Self::Null) => Ok(value),
            (Self::Text(left), Self::Text(right)) => Ok(concatenated(left, &right)),
            (Self::Array(left), Self::Array(right)) => Ok(Self::extend(left, right)),
            (Self::Object(mut left), Self::Object(right)) => {
                budget::spend(right.fields().len() as u64);
                for (name, value) in right.fields() {
                    Object::set(&mut left, name, Some(value.clone()));
                }
                Ok(Self::Object(left).checked())
            }
            (left, right) => Err(Error::math(left, Math::Add, right)),
        }
    }
}

fn concatenated(mut left: Rc<String>, right: &str) -> Value {
    let copied = if Rc::get_mut(&mut left).is_some() {
        0
    } else {
        left.len()
    };
    budget::spend_bytes(copied + right.len());
    if (left.len() + right.len()) as u64 > budget::SIZE {
        budget::exceed(Exceeded::Size);
        return Value::Null;
    }
    Rc::make_mut(&mut left).push_str(right);
    Value::Text(left)
}

impl Sub for Value {
    type Output = Outcome;

    fn sub(self, other: Self) -> Outcome {
        budget::spend(1);
        if let Some(difference) = numbers(&self, &other, i64::checked_sub, |left, right| left - right) {
            return Ok(difference);
        }
        match (self, other) {
            (Self::Array(left), Self::Array(right)) => {
                let mut removed = right.items().to_vec();
                removed.sort();
                let kept = left
                    .items()
                    .iter()
                    .filter(|item| removed.binary_search(item).is_err());
                Ok(Self::array(kept.cloned().collect()))
            }
            (left, right) => Err(Error::math(left, Math::Sub, right)),
        }
    }
}

impl Mul for Value {
    type Output = Outcome;

    fn mul(self, other: Self) -> Outcome {
        budget::spend(1);
        if let Some(product) = numbers(&self, &other, i64::checked_mul, |left, right| left * right) {
            return Ok(product);
        }
        match (self, other) {
            (Self::Text(text), times @ (Self::Int(_) | Self::Float(_)))
            | (times @ (Self::Int(_) | Self::Float(_)), Self::Text(text)) => Ok(repeated(&text, &times)),
            (Self::Object(left), Self::Object(right)) => Ok(merged(left, &right)),
            (left, right) => Err(Error::math(left, Math::Mul, right)),
        }
    }
}

/// As in jq: not more than zero times is `null`, a fraction of once is once.
fn repeated(text: &str, times: &Value) -> Value {
    let times = times.number().unwrap_or(0.0);
    if times.is_nan() || times <= 0.0 {
        return Value::Null;
    }
    let times = times.max(1.0) as u64;
    let length = (text.len() as u64).saturating_mul(times);
    if length > budget::SIZE {
        budget::exceed(Exceeded::Size);
        return Value::Null;
    }
    let fits = usize::try_from(times).ok().filter(|_| !text.is_empty());
    Value::text(fits.map_or_else(String::new, |times| text.repeat(times)))
}

/// Objects are merged into objects, anything else is replaced.
fn merged(mut left: Rc<Object>, right: &Rc<Object>) -> Value {
    budget::spend(right.fields().len() as u64);
    for (name, new) in right.fields() {
        let value = match (left.fields().get(name), new) {
            (Some(Value::Object(old)), Value::Object(new)) => merged(Rc::clone(old), new),
            _ => new.clone(),
        };
        Object::set(&mut left, name, Some(value));
    }
    Value::Object(left).checked()
}

impl Div for Value {
    type Output = Outcome;

    fn div(self, other: Self) -> Outcome {
        budget::spend(1);
        if let (Self::Text(text), Self::Text(separator)) = (&self, &other) {
            return Ok(split(text, separator));
        }
        if other.number() == Some(0.0) && self.number().is_some() {
            let message = format!("{self} cannot be divided by zero");
            return Err(Error::str(message));
        }
        let exact = |left: i64, right: i64| match left.checked_rem(right) {
            Some(0) => left.checked_div(right),
            _ => None,
        };
        numbers(&self, &other, exact, |left, right| left / right)
            .ok_or_else(|| Error::math(self, Math::Div, other))
    }
}

fn split(text: &str, separator: &str) -> Value {
    budget::spend_bytes(text.len());
    let part = |part: &str| Value::text(part.to_owned());
    Value::array(if text.is_empty() {
        Vec::new()
    } else if separator.is_empty() {
        text.chars()
            .map(|character| part(character.encode_utf8(&mut [0; 4])))
            .collect()
    } else {
        text.split(separator).map(part).collect()
    })
}

impl Rem for Value {
    type Output = Outcome;

    /// As in jq, of the numbers without their fractions.
    fn rem(self, other: Self) -> Outcome {
        budget::spend(1);
        let whole = |value: &Self| {
            value
                .number()
                .filter(|number| !number.is_nan())
                .map(|number| number as i64)
        };
        match (&self, &other) {
            (Self::Int(left), Self::Int(right)) if *right != 0 => {
                Ok(Self::Int(left.checked_rem(*right).unwrap_or(0)))
            }
            _ => match (whole(&self), whole(&other)) {
                (Some(_), Some(0)) => {
                    let message = format!("{self} cannot be divided by zero");
                    Err(Error::str(message))
                }
                (Some(left), Some(right)) => Ok(Self::Int(left.checked_rem(right).unwrap_or(0))),
                _ => Err(Error::math(self, Math::Rem, other)),
            },
        }
    }
}

impl Neg for Value {
    type Output = Outcome;

    fn neg(self) -> Outcome {
        budget::spend(1);
        match self {
            Self::Int(value) => Ok(value
                .checked_neg()
                .map_or(Self::Float(-(value as f64)), Self::Int)),
            Self::Float(value) => Ok(Self::Float(-value)),
            other => Err(Error::typ(other, "number")),
        }
    }
}
