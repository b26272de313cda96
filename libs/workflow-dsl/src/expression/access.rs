//! How jaq reads and changes parts of a value: `.a`, `.[0]`, `.[]`, `.[1:3]` and their updates.

use std::collections::BTreeMap;
use std::rc::Rc;

use jaq_core::box_iter::{BoxIter, box_once};
use jaq_core::path::Opt;
use jaq_core::val::Range;
use jaq_core::{Exn, ValR, ValT, ValX};

use super::budget::{self, Exceeded};
use super::value::{Array, Object, Value};

type Error = jaq_core::Error<Value>;

/// Longest array that an assignment beyond its end may make.
const LONGEST_PADDED: usize = 100_000;

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Bool(value)
    }
}

impl From<isize> for Value {
    fn from(value: isize) -> Self {
        Self::Int(value as i64)
    }
}

impl From<usize> for Value {
    fn from(value: usize) -> Self {
        i64::try_from(value).map_or(Self::Float(value as f64), Self::Int)
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Self::Float(value)
    }
}

impl From<String> for Value {
    fn from(value: String) -> Self {
        Self::text(value)
    }
}

/// A slice in a path, which jq writes as an object.
impl From<Range<Self>> for Value {
    fn from(range: Range<Self>) -> Self {
        let bounds = [("start", range.start), ("end", range.end)];
        Self::object(
            bounds
                .into_iter()
                .map(|(name, bound)| (Rc::from(name), bound.unwrap_or(Self::Null)))
                .collect(),
        )
    }
}

/// An array of what the iterator yields; stops when the budget does.
impl FromIterator<Self> for Value {
    fn from_iter<I: IntoIterator<Item = Self>>(items: I) -> Self {
        Self::array(items.into_iter().take_while(|_| budget::spend(1)).collect())
    }
}

impl Value {
    /// `.[index]`; none where there is nothing.
    pub(super) fn get(&self, index: &Self) -> Result<Option<Self>, Error> {
        budget::spend(1);
        match (self, index) {
            (Self::Null, Self::Null | Self::Text(_) | Self::Int(_) | Self::Float(_) | Self::Object(_)) => {
                Ok(None)
            }
            (Self::Object(object), Self::Text(name)) => Ok(object.fields().get(name.as_str()).cloned()),
            (Self::Array(array), Self::Int(_) | Self::Float(_)) => {
                let items = array.items();
                Ok(position(index, items.len())
                    .and_then(|position| items.get(position))
                    .cloned())
            }
            (Self::Array(_), Self::Array(_)) => self.indices(index).map(Some),
            (Self::Array(_) | Self::Text(_), Self::Object(slice)) => {
                let bound = |name| slice.fields().get(name);
                self.clone().range(bound("start")..bound("end")).map(Some)
            }
            _ => Err(Error::index(self.clone(), index.clone())),
        }
    }

    /// Where `wanted` occurs in text or in an array.
    pub(super) fn indices(&self, wanted: &Self) -> Result<Self, Error> {
        let matches: Vec<usize> = match (self, wanted) {
            (Self::Null, _) => return Ok(Self::Null),
            (Self::Text(text), Self::Text(wanted)) => {
                budget::spend_bytes(text.len());
                if wanted.is_empty() {
                    return Ok(Self::Null);
                }
                let starts = text.char_indices().map(|(start, _)| start).enumerate();
                starts
                    .filter(|(_, start)| text[*start..].starts_with(wanted.as_str()))
                    .map(|(index, _)| index)
                    .collect()
            }
            (Self::Array(array), Self::Array(wanted)) if wanted.items().is_empty() => {
                let _ = array;
                return Ok(Self::Null);
            }
            (Self::Array(array), Self::Array(wanted)) => {
                let windows = array.items().windows(wanted.items().len()).enumerate();
                windows
                    .filter(|(_, window)| *window == wanted.items())
                    .map(|(index, _)| index)
                    .collect()
            }
            (Self::Array(array), wanted) => {
                let items = array.items().iter().enumerate();
                items
                    .filter(|(_, item)| *item == wanted)
                    .map(|(index, _)| index)
                    .collect()
            }
            _ => return Err(Error::index(self.clone(), wanted.clone())),
        };
        Ok(matches.into_iter().map(Self::from).collect())
    }
}

/// The position that a number means in a sequence of this length; negative ones count from the end.
fn position(index: &Value, length: usize) -> Option<usize> {
    let index = index.whole()?;
    if index < 0 {
        length.checked_sub(usize::try_from(index.unsigned_abs()).ok()?)
    } else {
        usize::try_from(index).ok()
    }
}

/// From where to where a slice of a sequence of this length goes.
fn slice(range: Range<&Value>, length: usize) -> Result<(usize, usize), Error> {
    let bound = |bound: Option<&Value>, default: usize| match bound {
        None | Some(Value::Null) => Ok(default),
        Some(number @ (Value::Int(_) | Value::Float(_))) => {
            let negative = number.whole().is_some_and(|whole| whole < 0);
            Ok(position(number, length)
                .unwrap_or(if negative { 0 } else { length })
                .min(length))
        }
        Some(other) => Err(Error::typ(other.clone(), "number")),
    };
    let (start, end) = (bound(range.start, 0)?, bound(range.end, length)?);
    Ok((start, end.max(start)))
}

impl ValT for Value {
    fn from_num(number: &str) -> ValR<Self> {
        let integer = number.parse().map(Self::Int);
        integer
            .or_else(|_| number.parse().map(Self::Float))
            .map_err(|_| Error::str(format!("'{number}' is not a number")))
    }

    fn from_map<I: IntoIterator<Item = (Self, Self)>>(fields: I) -> ValR<Self> {
        let mut object = BTreeMap::new();
        for (name, value) in fields {
            budget::spend(1);
            match name {
                Self::Text(name) => object.insert(Rc::from(name.as_str()), value),
                other => return Err(Error::str(format!("object keys must be strings, not {other}"))),
            };
        }
        Ok(Self::object(object))
    }

    fn key_values(self) -> BoxIter<'static, ValR<(Self, Self), Self>> {
        match self {
            Self::Array(array) => {
                let items = Array::into_items(array).into_iter().enumerate();
                Box::new(
                    items
                        .take_while(|_| budget::spend(1))
                        .map(|(index, item)| Ok((Self::from(index), item))),
                )
            }
            Self::Object(object) => {
                let fields = Object::into_fields(object).into_iter();
                let text = |name: Rc<str>| Self::Text(Rc::new(name.as_ref().to_owned()));
                Box::new(
                    fields
                        .take_while(|_| budget::spend(1))
                        .map(move |(name, value)| Ok((text(name), value))),
                )
            }
            other => box_once(Err(not_iterable(other))),
        }
    }

    fn values(self) -> Box<dyn Iterator<Item = ValR<Self>>> {
        match self {
            Self::Array(array) => Box::new(
                Array::into_items(array)
                    .into_iter()
                    .take_while(|_| budget::spend(1))
                    .map(Ok),
            ),
            Self::Object(object) => Box::new(
                Object::into_fields(object)
                    .into_values()
                    .take_while(|_| budget::spend(1))
                    .map(Ok),
            ),
            other => box_once(Err(not_iterable(other))),
        }
    }

    fn index(self, index: &Self) -> ValR<Self> {
        Ok(self.get(index)?.unwrap_or(Self::Null))
    }

    fn range(self, range: Range<&Self>) -> ValR<Self> {
        match self {
            Self::Null => Ok(Self::Null),
            Self::Array(array) => {
                let (start, end) = slice(range, array.items().len())?;
                Ok(array.items()[start..end].iter().cloned().collect())
            }
            Self::Text(text) => {
                budget::spend_bytes(text.len());
                let (start, end) = slice(range, text.chars().count())?;
                Ok(Self::text(text.chars().skip(start).take(end - start).collect()))
            }
            other => Err(Error::typ(other, "array or string")),
        }
    }

    fn map_values<'a, I: Iterator<Item = ValX<'a, Self>>>(
        self,
        opt: Opt,
        f: impl Fn(Self) -> I,
    ) -> ValX<'a, Self> {
        match self {
            Self::Array(array) => Array::into_items(array).into_iter().flat_map(f).collect(),
            Self::Object(object) => {
                let mut mapped = BTreeMap::new();
                for (name, value) in Object::into_fields(object) {
                    budget::spend(1);
                    if let Some(value) = f(value).next() {
                        mapped.insert(name, value?);
                    }
                }
                Ok(Self::object(mapped))
            }
            other => opt.fail(other, |other| Exn::from(not_iterable(other))),
        }
    }

    fn map_index<'a, I: Iterator<Item = ValX<'a, Self>>>(
        self,
        index: &Self,
        opt: Opt,
        f: impl Fn(Self) -> I,
    ) -> ValX<'a, Self> {
        budget::spend(1);
        match (self, index) {
            (value @ (Self::Null | Self::Object(_)), Self::Text(name)) => {
                let mut object = match value {
                    Self::Object(object) => object,
                    _ => Rc::default(),
                };
                let name: Rc<str> = Rc::from(name.as_str());
                let old = object.fields().get(&name).cloned().unwrap_or(Self::Null);
                let new = f(old).next().transpose()?;
                Object::set(&mut object, &name, new);
                Ok(Self::Object(object).checked())
            }
            (value @ (Self::Null | Self::Array(_)), Self::Int(_) | Self::Float(_)) => {
                let items = match value {
                    Self::Array(array) => Array::into_items(array),
                    _ => Vec::new(),
                };
                map_item(items, index, f)
            }
            (value @ (Self::Null | Self::Array(_)), Self::Object(bounds)) => {
                let bound = |name| bounds.fields().get(name);
                value.map_range(bound("start")..bound("end"), opt, f)
            }
            (value, index) => opt.fail(value, |value| Exn::from(Error::index(value, index.clone()))),
        }
    }

    fn map_range<'a, I: Iterator<Item = ValX<'a, Self>>>(
        self,
        range: Range<&Self>,
        opt: Opt,
        f: impl Fn(Self) -> I,
    ) -> ValX<'a, Self> {
        let mut items = match self {
            Self::Null => Vec::new(),
            Self::Array(array) => Array::into_items(array),
            other => return opt.fail(other, |other| Exn::from(Error::typ(other, "array"))),
        };
        budget::spend(items.len() as u64);
        let (start, end) = slice(range, items.len())?;
        let part = Self::array(items[start..end].to_vec());
        let new = match f(part).next().transpose()? {
            None => Vec::new(),
            Some(Self::Array(array)) => Array::into_items(array),
            Some(other) => return Err(Exn::from(Error::typ(other, "array"))),
        };
        items.splice(start..end, new);
        Ok(Self::array(items))
    }

    fn as_bool(&self) -> bool {
        !matches!(self, Self::Null | Self::Bool(false))
    }

    fn into_string(self) -> Self {
        match self {
            Self::Text(_) => self,
            other => Self::text(other.to_json_text()),
        }
    }
}

/// Changes one element; an element beyond the end is made, as in jq, with `null` before it.
fn map_item<'a, I: Iterator<Item = ValX<'a, Value>>>(
    mut items: Vec<Value>,
    index: &Value,
    f: impl Fn(Value) -> I,
) -> ValX<'a, Value> {
    budget::spend(items.len() as u64);
    let Some(position) = position(index, items.len()) else {
        return Err(Exn::from(Error::str(format!("index {index} is out of bounds"))));
    };
    let old = items.get(position).cloned().unwrap_or(Value::Null);
    match f(old).next().transpose()? {
        Some(new) if position < items.len() => items[position] = new,
        Some(new) => {
            if position > LONGEST_PADDED.max(items.len()) || !budget::spend(position as u64) {
                budget::exceed(Exceeded::Size);
                return Ok(Value::Null);
            }
            items.resize(position, Value::Null);
            items.push(new);
        }
        None if position < items.len() => drop(items.remove(position)),
        None => {}
    }
    Ok(Value::array(items))
}

fn not_iterable(value: Value) -> Error {
    Error::typ(value, "iterable (array or object)")
}

impl jaq_std::ValT for Value {
    fn into_seq<S: FromIterator<Self>>(self) -> Result<S, Self> {
        match self {
            Self::Array(array) => {
                budget::spend(array.items().len() as u64);
                Ok(Array::into_items(array).into_iter().collect())
            }
            other => Err(other),
        }
    }

    fn is_int(&self) -> bool {
        self.as_isize().is_some()
    }

    fn as_isize(&self) -> Option<isize> {
        match self {
            Self::Int(value) => isize::try_from(*value).ok(),
            // Below 2^63, so that the conversion is exact.
            Self::Float(value) if value.fract() == 0.0 && value.abs() < 9.2e18 => Some(*value as isize),
            _ => None,
        }
    }

    fn as_f64(&self) -> Option<f64> {
        self.number()
    }

    fn is_utf8_str(&self) -> bool {
        matches!(self, Self::Text(_))
    }

    fn as_bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Text(text) => Some(text.as_bytes()),
            _ => None,
        }
    }

    fn as_sub_str(&self, part: &[u8]) -> Self {
        Self::text(String::from_utf8_lossy(part).into_owned())
    }

    fn from_utf8_bytes(bytes: impl AsRef<[u8]> + Send + 'static) -> Self {
        Self::text(String::from_utf8_lossy(bytes.as_ref()).into_owned())
    }
}
