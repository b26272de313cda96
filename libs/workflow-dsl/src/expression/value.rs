//! Values that cannot outgrow their bounds.
//!
//! jaq runs on any type that implements its traits. Its own value type shares subtrees without knowing their size, so
//! that sixty times `[., .]` makes a value of 2^60 nodes that overflows the first function that walks it. Here every
//! container knows its logical size and depth; one that would be too large or too deep is never made, and the
//! evaluation ends. Therefore whatever walks a value, be it recursion, comparison, printing or dropping, is bounded by
//! the same two numbers. Numbers are 64-bit integers where they fit and doubles otherwise, as in jq 1.6; the order of
//! the fields of an object is that of their names.

mod order;
mod quote;

use std::collections::BTreeMap;
use std::rc::Rc;

use serde_json::{Map, Number, Value as Json};

use super::budget::{self, Exceeded};

/// What a scalar adds to the size of a value; text adds its length.
const SCALAR: u64 = 8;

/// The largest integer below which a double can hold every integer.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// A JSON value of bounded size and depth.
#[derive(Debug, Clone)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Int(i64),
    Float(f64),
    Text(Rc<String>),
    Array(Rc<Array>),
    Object(Rc<Object>),
}

/// The elements of an array, with their shape.
#[derive(Debug, Clone, Default)]
pub(super) struct Array {
    items: Vec<Value>,
    shape: Shape,
}

/// The fields of an object, with their shape.
#[derive(Debug, Clone, Default)]
pub(super) struct Object {
    fields: BTreeMap<Rc<str>, Value>,
    shape: Shape,
}

/// Logical size, as if nothing were shared, and nesting. Of a container that has been changed in place the depth is
/// an upper bound.
#[derive(Debug, Clone, Copy, Default)]
struct Shape {
    size: u64,
    depth: u32,
}

impl Shape {
    fn within_bounds(self) -> bool {
        if self.depth >= budget::DEPTH {
            budget::exceed(Exceeded::Depth);
        } else if self.size > budget::SIZE {
            budget::exceed(Exceeded::Size);
        } else {
            return true;
        }
        false
    }

    fn add(&mut self, child: Self) {
        self.size = self.size.saturating_add(child.size);
        self.depth = self.depth.max(child.depth + 1);
    }

    fn remove(&mut self, child: Self) {
        self.size = self.size.saturating_sub(child.size);
    }
}

impl Array {
    pub(super) fn items(&self) -> &[Value] {
        &self.items
    }

    pub(super) fn into_items(this: Rc<Self>) -> Vec<Value> {
        Rc::try_unwrap(this).map_or_else(|shared| shared.items.clone(), |array| array.items)
    }
}

impl Object {
    pub(super) fn fields(&self) -> &BTreeMap<Rc<str>, Value> {
        &self.fields
    }

    pub(super) fn into_fields(this: Rc<Self>) -> BTreeMap<Rc<str>, Value> {
        Rc::try_unwrap(this).map_or_else(|shared| shared.fields.clone(), |object| object.fields)
    }

    /// Sets a field, or removes it.
    pub(super) fn set(this: &mut Rc<Self>, name: &Rc<str>, value: Option<Value>) {
        if Rc::get_mut(this).is_none() {
            budget::spend(this.fields.len() as u64);
        }
        let object = Rc::make_mut(this);
        let key_size = name.len() as u64;
        let old = match value {
            Some(value) => {
                object.shape.add(value.shape());
                object.shape.size = object.shape.size.saturating_add(key_size);
                object.fields.insert(Rc::clone(name), value)
            }
            None => object.fields.remove(name),
        };
        if let Some(old) = old {
            object.shape.remove(old.shape());
            object.shape.size = object.shape.size.saturating_sub(key_size);
        }
    }
}

impl Value {
    /// An array, or `null` and the end of the evaluation if it would be too large.
    pub(super) fn array(items: Vec<Self>) -> Self {
        let mut shape = Shape {
            size: SCALAR,
            depth: 0,
        };
        items.iter().for_each(|item| shape.add(item.shape()));
        Self::if_within(shape, || Self::Array(Rc::new(Array { items, shape })))
    }

    /// An object, under the same condition.
    pub(super) fn object(fields: BTreeMap<Rc<str>, Self>) -> Self {
        let mut shape = Shape {
            size: SCALAR,
            depth: 0,
        };
        for (name, value) in &fields {
            shape.size = shape.size.saturating_add(name.len() as u64);
            shape.add(value.shape());
        }
        Self::if_within(shape, || Self::Object(Rc::new(Object { fields, shape })))
    }

    /// Text, under the same condition; spends what it cost to write it.
    pub(super) fn text(text: String) -> Self {
        budget::spend_bytes(text.len());
        let shape = Shape {
            size: text.len() as u64,
            depth: 0,
        };
        Self::if_within(shape, || Self::Text(Rc::new(text)))
    }

    fn if_within(shape: Shape, value: impl FnOnce() -> Self) -> Self {
        if shape.within_bounds() {
            value()
        } else {
            Self::Null
        }
    }

    /// Itself, if a change in place has left it within its bounds.
    pub(super) fn checked(self) -> Self {
        if self.shape().within_bounds() {
            self
        } else {
            Self::Null
        }
    }

    /// Appends to an array in place where nobody else holds it.
    pub(super) fn extend(mut left: Rc<Array>, right: Rc<Array>) -> Self {
        let copied = if Rc::get_mut(&mut left).is_some() {
            0
        } else {
            left.items.len()
        };
        budget::spend((copied + right.items.len()) as u64);
        let mut shape = left.shape;
        right.items.iter().for_each(|item| shape.add(item.shape()));
        if !shape.within_bounds() {
            return Self::Null;
        }
        let array = Rc::make_mut(&mut left);
        array.items.extend(right.items.iter().cloned());
        array.shape = shape;
        Self::Array(left)
    }

    fn shape(&self) -> Shape {
        match self {
            Self::Text(text) => Shape {
                size: SCALAR + text.len() as u64,
                depth: 0,
            },
            Self::Array(array) => array.shape,
            Self::Object(object) => object.shape,
            Self::Null | Self::Bool(_) | Self::Int(_) | Self::Float(_) => Shape {
                size: SCALAR,
                depth: 0,
            },
        }
    }

    /// Roughly the length of the value as JSON, with shared subtrees counted as often as they occur.
    pub(super) fn size(&self) -> u64 {
        self.shape().size
    }

    /// The name that jq gives to the type.
    pub(super) fn type_name(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "boolean",
            Self::Int(_) | Self::Float(_) => "number",
            Self::Text(_) => "string",
            Self::Array(_) => "array",
            Self::Object(_) => "object",
        }
    }

    /// The value from outside; `None` if it is too large or nested too deeply.
    pub(super) fn from_json(json: &Json) -> Option<Self> {
        Self::nested(json, budget::DEPTH)
    }

    fn nested(json: &Json, levels: u32) -> Option<Self> {
        let levels = levels.checked_sub(1)?;
        Some(match json {
            Json::Null => Self::Null,
            Json::Bool(value) => Self::Bool(*value),
            Json::Number(number) => number
                .as_i64()
                .map_or_else(|| Self::Float(number.as_f64().unwrap_or(f64::NAN)), Self::Int),
            Json::String(text) => Self::Text(Rc::new(text.clone())),
            Json::Array(items) => {
                let items: Option<Vec<_>> = items.iter().map(|item| Self::nested(item, levels)).collect();
                Self::array(items?)
            }
            Json::Object(fields) => {
                let fields = fields
                    .iter()
                    .map(|(name, value)| Some((Rc::from(name.as_str()), Self::nested(value, levels)?)));
                Self::object(fields.collect::<Option<_>>()?)
            }
        })
    }

    /// The value for outside. As in jq, what is not a number becomes `null` and infinity the largest double.
    pub(super) fn to_json(&self) -> Json {
        match self {
            Self::Null => Json::Null,
            Self::Bool(value) => Json::Bool(*value),
            Self::Int(value) => Json::from(*value),
            Self::Float(value) if value.fract() == 0.0 && value.abs() <= EXACT => Json::from(*value as i64),
            Self::Float(value) => {
                Number::from_f64(value.clamp(f64::MIN, f64::MAX)).map_or(Json::Null, Json::Number)
            }
            Self::Text(text) => Json::String(text.as_str().to_owned()),
            Self::Array(array) => array.items.iter().map(Self::to_json).collect(),
            Self::Object(object) => {
                let fields = object
                    .fields
                    .iter()
                    .map(|(name, value)| (name.to_string(), value.to_json()));
                Json::Object(fields.collect::<Map<_, _>>())
            }
        }
    }

    /// The value as the text of a JSON document.
    pub(super) fn to_json_text(&self) -> String {
        budget::spend_bytes(usize::try_from(self.size()).unwrap_or(usize::MAX));
        self.to_json().to_string()
    }

    fn rank(&self) -> u8 {
        match self {
            Self::Null => 0,
            Self::Bool(_) => 1,
            Self::Int(_) | Self::Float(_) => 2,
            Self::Text(_) => 3,
            Self::Array(_) => 4,
            Self::Object(_) => 5,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::quote::LONGEST_QUOTE;
    use super::*;
    use serde_json::json;

    #[test]
    fn json_survives_the_round_trip() {
        let json = json!({"a": [1, 2.5, "x", null, true], "b": {"c": -7}, "c": 1e300});
        assert_eq!(Value::from_json(&json).unwrap().to_json(), json);
    }

    #[test]
    fn integers_stay_integers_however_they_were_computed() {
        assert_eq!(Value::Float(4.0).to_json(), json!(4));
        assert_eq!(Value::Float(f64::NAN).to_json(), Json::Null);
        assert_eq!(Value::Float(f64::INFINITY).to_json(), json!(f64::MAX));
    }

    #[test]
    fn the_order_is_total_where_doubles_are_not_exact() {
        let large = 9_007_199_254_740_993_i64;
        assert!(Value::Int(large) > Value::Float(EXACT));
        assert!(Value::Int(large - 1) == Value::Float(EXACT));
        assert!(Value::Int(0) == Value::Float(-0.0));
        assert!(Value::Int(i64::MAX) < Value::Float(f64::INFINITY));
        assert!(Value::Float(f64::NAN) < Value::Int(i64::MIN));
        assert!(Value::Int(1) < Value::Float(1.5) && Value::Float(-1.5) < Value::Int(-1));
    }

    #[test]
    fn too_deep_is_refused_from_outside_and_ends_an_evaluation_inside() {
        let mut json = json!(1);
        for _ in 0..budget::DEPTH {
            json = json!([json]);
        }
        assert!(Value::from_json(&json).is_none());
        let (value, used) =
            budget::with(|| (0..budget::DEPTH).fold(Value::Int(1), |inner, _| Value::array(vec![inner])));
        assert!(matches!(value, Value::Null | Value::Array(_)));
        assert_eq!(used.exceeded, Some(Exceeded::Depth));
    }

    #[test]
    fn shared_subtrees_count_as_often_as_they_occur() {
        let (_, used) =
            budget::with(|| (0..60).fold(Value::Int(1), |inner, _| Value::array(vec![inner.clone(), inner])));
        assert_eq!(used.exceeded, Some(Exceeded::Size));
    }

    #[test]
    fn messages_show_the_beginning() {
        let long = Value::from_json(&json!(vec!["x".repeat(50); 1000])).unwrap();
        assert!(long.to_string().len() < 2 * LONGEST_QUOTE);
        assert_eq!(
            Value::from_json(&json!({"a": ["b"]})).unwrap().to_string(),
            r#"{"a":["b"]}"#
        );
    }
}
