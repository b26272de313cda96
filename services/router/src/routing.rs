//! The routing extension: what a caller wants beyond a target.
//!
//! One object under the extension's URI in the metadata of the request, or of its message:
//!
//! ```json
//! {"skills": ["a", "b"], "priority": "high", "ttl": 30, "region": "eu", "idempotency": true, "durable": true}
//! ```
//!
//! All fields are optional. `skills` must all be had by the agent; `priority` is `low`, `normal`, `high` or
//! `urgent`; `ttl` is how many seconds from now the message may take to reach an agent; `region` is preferred over
//! the router's own; `idempotency` says that the message may be delivered twice without harm, so that a failed
//! attempt may move to another instance; `durable` says that the same message is to be answered once for a day, whichever router
//! takes it and whether that was restarted meanwhile (see [`crate::durable`]). Unknown fields are refused: a misspelt `ttl` that is silently ignored
//! would deliver a message that its sender believes to be dead.

use std::collections::BTreeMap;
use std::time::Duration;

use muster_api::extension::ROUTING;
use muster_api::names;
use prost::Message as _;
use prost_types::value::Kind;
use prost_types::{Struct, Value};

use crate::error::Error;
use crate::priority::Priority;

const FIELDS: [&str; 6] = ["skills", "priority", "ttl", "region", "idempotency", "durable"];

/// Most skills that one message may require.
const MAX_SKILLS: usize = 32;

/// Longest skill or region.
const MAX_TEXT: usize = 128;

/// What a caller wants beyond a target.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Routing {
    /// Skills that the agent must have, all of them.
    pub skills: Vec<String>,
    /// How urgent it is.
    pub priority: Priority,
    /// How long the message may take to reach an agent.
    pub ttl: Option<Duration>,
    /// Region to prefer.
    pub region: Option<String>,
    /// Whether the caller allows a second delivery.
    pub idempotent: bool,
    /// Whether the caller relies on one answer across routers and restarts.
    pub durable: bool,
}

impl Routing {
    /// Reads the extension from the first of these metadata that carries it.
    ///
    /// # Errors
    /// Names the field at fault; a ttl that has passed is [`Error::Expired`].
    pub fn read<'a>(places: impl IntoIterator<Item = Option<&'a Struct>>) -> Result<Self, Error> {
        let value = places
            .into_iter()
            .flatten()
            .find_map(|metadata| metadata.fields.get(ROUTING));
        value.map_or_else(|| Ok(Self::default()), Self::of)
    }

    /// Reads the extension's value where it is encoded.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn decode(value: &[u8]) -> Result<Self, Error> {
        let value = Value::decode(value).map_err(|error| invalid("", &error.to_string()))?;
        Self::of(&value)
    }

    fn of(value: &Value) -> Result<Self, Error> {
        match &value.kind {
            None | Some(Kind::NullValue(_)) => Ok(Self::default()),
            Some(Kind::StructValue(object)) => Self::from_fields(&object.fields),
            Some(_) => Err(invalid("", "is no object")),
        }
    }

    fn from_fields(fields: &BTreeMap<String, Value>) -> Result<Self, Error> {
        let mut routing = Self::default();
        for (name, value) in fields {
            let kind = match &value.kind {
                None | Some(Kind::NullValue(_)) => continue,
                Some(kind) => kind,
            };
            match name.as_str() {
                "skills" => routing.skills = skills(kind)?,
                "priority" => routing.priority = priority(kind)?,
                "ttl" => routing.ttl = Some(ttl(kind)?),
                "region" => routing.region = Some(text("region", kind)?).filter(|region| !region.is_empty()),
                "idempotency" => routing.idempotent = boolean("idempotency", kind)?,
                "durable" => routing.durable = boolean("durable", kind)?,
                other => return Err(unknown(other)),
            }
        }
        Ok(routing)
    }
}

fn skills(kind: &Kind) -> Result<Vec<String>, Error> {
    let Kind::ListValue(list) = kind else {
        return Err(invalid("skills", "is no list of skill ids"));
    };
    if list.values.len() > MAX_SKILLS {
        return Err(invalid("skills", &format!("has more than {MAX_SKILLS} entries")));
    }
    let mut skills = Vec::with_capacity(list.values.len());
    for value in &list.values {
        let skill = match &value.kind {
            Some(kind) => text("skills", kind)?,
            None => String::new(),
        };
        if skill.is_empty() {
            return Err(invalid("skills", "has an empty entry"));
        }
        if !skills.contains(&skill) {
            skills.push(skill);
        }
    }
    Ok(skills)
}

fn priority(kind: &Kind) -> Result<Priority, Error> {
    let name = text("priority", kind)?;
    Priority::from_name(&name).ok_or_else(|| {
        let allowed = Priority::ALL.map(Priority::name);
        let nearest = names::suggestion(&name, allowed);
        invalid(
            "priority",
            &format!("is '{name}'; allowed are {}{nearest}", allowed.join(", ")),
        )
    })
}

fn ttl(kind: &Kind) -> Result<Duration, Error> {
    let seconds = match kind {
        Kind::NumberValue(seconds) if seconds.is_finite() => *seconds,
        _ => return Err(invalid("ttl", "is no number of seconds")),
    };
    match Duration::try_from_secs_f64(seconds) {
        Ok(ttl) if !ttl.is_zero() => Ok(ttl),
        Err(_) if seconds > 0.0 => Ok(Duration::MAX),
        _ => Err(Error::Expired {
            ttl_seconds: seconds,
            place: "already on arrival",
        }),
    }
}

fn boolean(field: &str, kind: &Kind) -> Result<bool, Error> {
    match kind {
        Kind::BoolValue(value) => Ok(*value),
        _ => Err(invalid(field, "is neither true nor false")),
    }
}

fn text(field: &str, kind: &Kind) -> Result<String, Error> {
    match kind {
        Kind::StringValue(text) if text.len() <= MAX_TEXT => Ok(text.clone()),
        Kind::StringValue(_) => Err(invalid(field, &format!("is longer than {MAX_TEXT} bytes"))),
        _ => Err(invalid(field, "is no text")),
    }
}

fn unknown(field: &str) -> Error {
    let shown: String = field.chars().take(64).collect();
    let nearest = names::suggestion(&shown, FIELDS);
    invalid(
        "",
        &format!("has no field '{shown}'; it has {}{nearest}", FIELDS.join(", ")),
    )
}

fn invalid(field: &str, message: &str) -> Error {
    let dot = if field.is_empty() { "" } else { "." };
    Error::InvalidField {
        field: format!("metadata[\"{ROUTING}\"]{dot}{field}"),
        message: message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use a2a_pb::pbconv::json_value_to_proto_value;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn read(object: &serde_json::Value) -> Result<Routing, Error> {
        let metadata = Struct {
            fields: BTreeMap::from([(ROUTING.to_owned(), json_value_to_proto_value(object))]),
        };
        let read = Routing::read([None, Some(&metadata)]);
        let encoded = metadata.fields[ROUTING].encode_to_vec();
        assert_eq!(format!("{:?}", Routing::decode(&encoded)), format!("{read:?}"));
        read
    }

    #[test]
    fn every_field_is_read() {
        let routing = read(&json!({
            "skills": ["a", "b", "a"], "priority": "urgent", "ttl": 1.5, "region": "eu", "idempotency": true,
            "durable": true,
        }))
        .unwrap();
        assert_eq!(
            routing,
            Routing {
                skills: vec!["a".to_owned(), "b".to_owned()],
                priority: Priority::Urgent,
                ttl: Some(Duration::from_millis(1500)),
                region: Some("eu".to_owned()),
                idempotent: true,
                durable: true,
            }
        );
        assert_eq!(Routing::read([None, None]).unwrap(), Routing::default());
        assert_eq!(read(&json!({"ttl": null})).unwrap(), Routing::default());
    }

    #[test]
    fn each_mistake_names_its_field() {
        for (object, field) in [
            (json!({"skills": "a"}), "skills"),
            (json!({"skills": [1]}), "skills"),
            (json!({"skills": [""]}), "skills"),
            (json!({"priority": "hihg"}), "priority"),
            (json!({"ttl": "soon"}), "ttl"),
            (json!({"region": 5}), "region"),
            (json!({"idempotency": "yes"}), "idempotency"),
            (json!({"durable": 1}), "durable"),
        ] {
            let Err(Error::InvalidField { field: named, .. }) = read(&object) else {
                panic!("accepted {object}");
            };
            assert!(named.ends_with(&format!(".{field}")), "{named}");
        }
        let message = read(&json!({"tll": 5})).unwrap_err().to_string();
        assert!(message.contains("did you mean 'ttl'"), "{message}");
        let message = read(&json!({"priority": "hihg"})).unwrap_err().to_string();
        assert!(message.contains("did you mean 'high'"), "{message}");
        assert!(read(&json!("high")).is_err());
    }

    #[test]
    fn a_ttl_that_has_passed_is_expired_and_not_malformed() {
        for ttl in [0.0, -5.0, -1e300] {
            assert!(
                matches!(read(&json!({"ttl": ttl})), Err(Error::Expired { .. })),
                "{ttl}"
            );
        }
        assert_eq!(read(&json!({"ttl": 1e300})).unwrap().ttl, Some(Duration::MAX));
    }

    proptest! {
        #[test]
        fn any_number_as_ttl_gives_an_answer(ttl in proptest::num::f64::ANY) {
            let metadata = Struct {
                fields: BTreeMap::from([(ROUTING.to_owned(), Value {
                    kind: Some(Kind::StructValue(Struct {
                        fields: BTreeMap::from([("ttl".to_owned(), Value { kind: Some(Kind::NumberValue(ttl)) })]),
                    })),
                })]),
            };
            if let Ok(routing) = Routing::read([Some(&metadata)]) {
                prop_assert!(routing.ttl.is_some_and(|ttl| !ttl.is_zero()));
            }
        }
    }
}
