//! Reading the fields of one object of the parameters, and writing those of its translation.

use serde_json::Value;

use super::{Error, Request};
use crate::problem::{listed, quoted};

/// How values are looked at.
#[derive(Clone, Copy)]
pub(super) struct Walk {
    /// Whether text of the form `${ … }` stands for a value that is not known yet.
    pub(super) expressions_are_opaque: bool,
}

impl Walk {
    /// Whether `value` is not known yet.
    pub(super) fn passes_over(self, value: &Value) -> bool {
        self.expressions_are_opaque
            && value
                .as_str()
                .is_some_and(|text| crate::parse::embedded(text).is_some())
    }

    /// The text that `value` is; `None` if it is not known yet.
    pub(super) fn text<'v>(self, value: &'v Value, pointer: &str) -> Result<Option<&'v str>, Error> {
        if self.passes_over(value) {
            return Ok(None);
        }
        let wrong = || Error {
            pointer: pointer.to_owned(),
            message: "must be text".to_owned(),
        };
        value.as_str().map(Some).ok_or_else(wrong)
    }
}

/// One object of the parameters and its translation.
pub(super) struct Fields<'v> {
    pub(super) walk: Walk,
    given: &'v Request,
    pointer: String,
    made: Request,
}

impl<'v> Fields<'v> {
    /// The fields of `value`, which may only be those `allowed`.
    pub(super) fn of(walk: Walk, value: &'v Value, pointer: &str, allowed: &[&str]) -> Result<Self, Error> {
        let Some(given) = value.as_object() else {
            let message = format!("must be an object with {}", listed(allowed.iter().copied()));
            return Err(Error {
                pointer: pointer.to_owned(),
                message,
            });
        };
        if let Some(unknown) = given.keys().find(|key| !allowed.contains(&key.as_str())) {
            let nearest = muster_api::names::suggestion(unknown, allowed.iter().copied());
            let allowed = listed(allowed.iter().copied());
            let message = format!(
                "no such field {}; allowed are {allowed}{nearest}",
                quoted(unknown)
            );
            return Err(Error {
                pointer: crate::node::pointer_to(pointer, unknown),
                message,
            });
        }
        Ok(Self {
            walk,
            given,
            pointer: pointer.to_owned(),
            made: Request::new(),
        })
    }

    pub(super) fn get(&self, name: &str) -> Option<&'v Value> {
        self.given.get(name).filter(|value| !value.is_null())
    }

    pub(super) fn require(&self, name: &str) -> Result<&'v Value, Error> {
        self.get(name)
            .ok_or_else(|| self.error(&format!("the field '{name}' is missing")))
    }

    pub(super) fn put(&mut self, name: &str, value: Value) {
        self.made.insert(name.to_owned(), value);
    }

    pub(super) fn copy(&mut self, name: &str) {
        if let Some(value) = self.given.get(name) {
            self.put(name, value.clone());
        }
    }

    pub(super) fn copy_text(&mut self, name: &str) -> Result<(), Error> {
        self.copy_if(name, "must be text", Value::is_string)
    }

    pub(super) fn copy_integer(&mut self, name: &str) -> Result<(), Error> {
        self.copy_if(name, "must be a whole number, 0 or above", Value::is_u64)
    }

    pub(super) fn copy_boolean(&mut self, name: &str) -> Result<(), Error> {
        self.copy_if(name, "must be true or false", Value::is_boolean)
    }

    pub(super) fn copy_object(&mut self, name: &str) -> Result<(), Error> {
        self.copy_if(name, "must be an object", Value::is_object)
    }

    pub(super) fn copy_texts(&mut self, name: &str) -> Result<(), Error> {
        let texts = |value: &Value| {
            value
                .as_array()
                .is_some_and(|items| items.iter().all(Value::is_string))
        };
        self.copy_if(name, "must be a list of texts", texts)
    }

    fn copy_if(&mut self, name: &str, wrong: &str, fits: impl Fn(&Value) -> bool) -> Result<(), Error> {
        let Some(value) = self.get(name) else {
            return Ok(());
        };
        if !self.walk.passes_over(value) && !fits(value) {
            return Err(self.error_at(name, wrong));
        }
        self.put(name, value.clone());
        Ok(())
    }

    /// JSON pointer of a field.
    pub(super) fn at(&self, name: &str) -> String {
        crate::node::pointer_to(&self.pointer, name)
    }

    pub(super) fn error(&self, message: &str) -> Error {
        Error {
            pointer: self.pointer.clone(),
            message: message.to_owned(),
        }
    }

    pub(super) fn error_at(&self, name: &str, message: &str) -> Error {
        Error {
            pointer: self.at(name),
            message: message.to_owned(),
        }
    }

    pub(super) fn done(self) -> Value {
        Value::Object(self.made)
    }
}
