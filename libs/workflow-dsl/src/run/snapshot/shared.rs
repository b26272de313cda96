//! Values and variables that a state holds in several places, written once.
//!
//! Where the state has such a value it writes a number, and where it reads one it takes the value with that number. The
//! tables behind the numbers are those of the snapshot that the thread writes or reads just now: serde hands nothing
//! through to the parts. Equal values have one number, so that the bytes depend on what is held and not on how it came
//! to be shared.

use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::Arc;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use super::super::state::Scope;

thread_local! {
    static WRITTEN: RefCell<Option<Written>> = const { RefCell::new(None) };
    static READ: RefCell<Option<Read>> = const { RefCell::new(None) };
}

/// Begins to write no snapshot, or reads none: a defect, told as an error of the format.
const NO_SNAPSHOT: &str = "shared values belong to a snapshot";

/// The tables of a snapshot that is written.
#[derive(Default)]
struct Written {
    /// By their text.
    values: HashMap<String, usize>,
    /// Those that were met, so that each is turned into text once. They live longer than this.
    met: HashMap<*const Value, usize>,
    scopes: Vec<Variable>,
    known: HashMap<Variable, usize>,
    /// As `met`.
    met_scopes: HashMap<*const Scope, usize>,
}

/// The tables of a snapshot that is read.
struct Read {
    values: Vec<Arc<Value>>,
    scopes: Vec<Arc<Scope>>,
}

/// A variable, with its value and the one outside of it by their numbers.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Variable {
    name: String,
    value: usize,
    outer: Option<usize>,
}

/// The first line of a snapshot, as it is read.
#[derive(Deserialize)]
struct Head {
    values: Vec<Arc<Value>>,
    /// Outer ones first.
    scopes: Vec<Variable>,
}

impl Written {
    fn value(&mut self, value: &Arc<Value>) -> serde_json::Result<usize> {
        if let Some(number) = self.met.get(&Arc::as_ptr(value)) {
            return Ok(*number);
        }
        let next = self.values.len();
        let number = *self
            .values
            .entry(serde_json::to_string(&**value)?)
            .or_insert(next);
        self.met.insert(Arc::as_ptr(value), number);
        Ok(number)
    }

    fn scope(&mut self, innermost: &Arc<Scope>) -> serde_json::Result<usize> {
        let mut inward = Vec::new();
        let mut next = Some(innermost);
        let mut outer = None;
        while let Some(scope) = next {
            if let Some(number) = self.met_scopes.get(&Arc::as_ptr(scope)) {
                outer = Some(*number);
                break;
            }
            inward.push(scope);
            next = scope.outer.as_ref();
        }
        for scope in inward.into_iter().rev() {
            let variable = Variable {
                name: scope.name.clone(),
                value: self.value(&scope.value)?,
                outer,
            };
            let number = match self.known.get(&variable) {
                Some(number) => *number,
                None => {
                    self.known.insert(variable.clone(), self.scopes.len());
                    self.scopes.push(variable);
                    self.scopes.len() - 1
                }
            };
            self.met_scopes.insert(Arc::as_ptr(scope), number);
            outer = Some(number);
        }
        outer.ok_or_else(|| serde_json::Error::custom(NO_SNAPSHOT))
    }
}

/// While it lives, what the thread writes as JSON has its shared values in tables.
pub(in crate::run) struct Writing(());

impl Writing {
    pub(in crate::run) fn begin() -> Self {
        WRITTEN.set(Some(Written::default()));
        Self(())
    }

    /// The first line of the snapshot.
    pub(in crate::run) fn end(self, format: u32) -> Vec<u8> {
        let Written { values, scopes, .. } = WRITTEN.take().unwrap_or_default();
        let mut values: Vec<(usize, String)> =
            values.into_iter().map(|(text, number)| (number, text)).collect();
        values.sort_unstable_by_key(|(number, _)| *number);
        let values: Vec<String> = values.into_iter().map(|(_, text)| text).collect();
        let scopes = serde_json::to_string(&scopes).unwrap_or_default();
        format!(
            "{{\"format\":{format},\"values\":[{}],\"scopes\":{scopes}}}",
            values.join(",")
        )
        .into_bytes()
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        WRITTEN.set(None);
    }
}

/// While it lives, what the thread reads of JSON takes its shared values from tables.
pub(in crate::run) struct Reading(());

impl Reading {
    pub(in crate::run) fn begin(head: &[u8]) -> serde_json::Result<Self> {
        let Head { values, scopes } = serde_json::from_slice(head)?;
        let mut read = Read {
            values,
            scopes: Vec::with_capacity(scopes.len()),
        };
        for Variable { name, value, outer } in scopes {
            let outer = outer.map(|outer| read.scope(outer)).transpose()?;
            let scope = Scope {
                name,
                value: read.value(value)?,
                outer,
            };
            read.scopes.push(Arc::new(scope));
        }
        READ.set(Some(read));
        Ok(Self(()))
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        READ.set(None);
    }
}

impl Read {
    fn value(&self, number: usize) -> serde_json::Result<Arc<Value>> {
        let value = self.values.get(number).cloned();
        value.ok_or_else(|| serde_json::Error::custom(format!("it has no value {number}")))
    }

    fn scope(&self, number: usize) -> serde_json::Result<Arc<Scope>> {
        let scope = self.scopes.get(number).cloned();
        scope.ok_or_else(|| serde_json::Error::custom(format!("it has no variable {number}")))
    }
}

fn written<E: serde::ser::Error>(
    number: impl FnOnce(&mut Written) -> serde_json::Result<usize>,
) -> Result<usize, E> {
    WRITTEN.with_borrow_mut(|written| {
        let written = written.as_mut().ok_or_else(|| E::custom(NO_SNAPSHOT))?;
        number(written).map_err(E::custom)
    })
}

fn read<'de, D: Deserializer<'de>, T>(
    take: impl FnOnce(&Read) -> serde_json::Result<T>,
) -> Result<T, D::Error> {
    READ.with_borrow(|read| {
        let read = read.as_ref().ok_or_else(|| D::Error::custom(NO_SNAPSHOT))?;
        take(read).map_err(D::Error::custom)
    })
}

/// For serde: a value that may be shared.
pub(in crate::run) mod value {
    use super::*;

    pub(in crate::run) fn serialize<S: serde::Serializer>(
        value: &Arc<Value>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        written::<S::Error>(|written| written.value(value))?.serialize(serializer)
    }

    pub(in crate::run) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Arc<Value>, D::Error> {
        let number = usize::deserialize(deserializer)?;
        read::<D, _>(|read| read.value(number))
    }
}

/// For serde: a value that may be shared, or none.
pub(in crate::run) mod maybe_value {
    use super::*;

    #[expect(clippy::ref_option, reason = "serde passes a reference to the field")]
    pub(in crate::run) fn serialize<S: serde::Serializer>(
        value: &Option<Arc<Value>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let number = value
            .as_ref()
            .map(|value| written::<S::Error>(|written| written.value(value)));
        number.transpose()?.serialize(serializer)
    }

    pub(in crate::run) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Arc<Value>>, D::Error> {
        let number = Option::<usize>::deserialize(deserializer)?;
        number
            .map(|number| read::<D, _>(|read| read.value(number)))
            .transpose()
    }
}

/// For serde: values that may be shared.
pub(in crate::run) mod values {
    use super::*;

    pub(in crate::run) fn serialize<S: serde::Serializer>(
        values: &[Arc<Value>],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let numbers = values
            .iter()
            .map(|value| written::<S::Error>(|written| written.value(value)));
        numbers.collect::<Result<Vec<_>, _>>()?.serialize(serializer)
    }

    pub(in crate::run) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<Arc<Value>>, D::Error> {
        let numbers = Vec::<usize>::deserialize(deserializer)?;
        let values = numbers
            .into_iter()
            .map(|number| read::<D, _>(|read| read.value(number)));
        values.collect()
    }
}

/// For serde: variables that may be shared, or none.
pub(in crate::run) mod scope {
    use super::*;

    #[expect(clippy::ref_option, reason = "serde passes a reference to the field")]
    pub(in crate::run) fn serialize<S: serde::Serializer>(
        scope: &Option<Arc<Scope>>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let number = scope
            .as_ref()
            .map(|scope| written::<S::Error>(|written| written.scope(scope)));
        number.transpose()?.serialize(serializer)
    }

    pub(in crate::run) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<Arc<Scope>>, D::Error> {
        let number = Option::<usize>::deserialize(deserializer)?;
        number
            .map(|number| read::<D, _>(|read| read.scope(number)))
            .transpose()
    }
}
