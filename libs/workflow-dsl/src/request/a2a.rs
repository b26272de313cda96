//! What a call of an agent asks.

use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use serde_json::Value;

use super::Authentication;
use crate::document::{Endpoint, Method};

/// A method of an agent, over A2A.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct A2a {
    /// Who is called.
    #[serde(with = "as_text")]
    pub endpoint: Endpoint,
    /// Whether the address is that of the agent's card.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub card: bool,
    /// How to authenticate, with an agent by URL.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authentication: Option<Authentication>,
    /// Which method, by its name in A2A 1.0.
    pub method: Method,
    /// Whether all events of a stream are the output.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub events: bool,
    /// The request as A2A 1.0 JSON, without a message id unless the author gave one.
    pub parameters: Arc<Value>,
}

impl Serialize for Method {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl<'de> Deserialize<'de> for Method {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        Self::by_name(&name).ok_or_else(|| de::Error::custom(format!("there is no method '{name}'")))
    }
}

/// A value that is written as its text.
mod as_text {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::{Deserialize, Deserializer, Serializer, de};

    pub(super) fn serialize<T: Display, S: Serializer>(value: &T, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub(super) fn deserialize<'de, T, D>(deserializer: D) -> Result<T, D::Error>
    where
        T: FromStr<Err: Display>,
        D: Deserializer<'de>,
    {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(de::Error::custom)
    }
}
