//! From a data part to an agent's own type, with errors that name the field.

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::Failure;

/// Reads `data` as a `T`; the failure names the path of the field at fault. Give `T` the attribute
/// `#[serde(deny_unknown_fields)]`, so that a misspelt field is refused by name and not silently ignored.
pub fn parse<T: DeserializeOwned>(data: &Value) -> Result<T, Failure> {
    serde_path_to_error::deserialize(data).map_err(|error| {
        let path = error.path().to_string();
        let cause = error.inner().to_string();
        if path == "." {
            Failure::invalid_field("data", cause)
        } else {
            Failure::invalid_field(path, cause)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[derive(Debug, PartialEq, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Trip {
        city: String,
        #[serde(default)]
        legs: Vec<Leg>,
    }

    #[derive(Debug, PartialEq, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Leg {
        days: u32,
    }

    #[test]
    fn a_fitting_value_is_read() {
        let trip: Trip = parse(&json!({ "city": "Seattle", "legs": [{ "days": 3 }] })).unwrap();
        assert_eq!(trip.legs, [Leg { days: 3 }]);
    }

    #[test]
    fn the_path_of_the_mistake_is_named() {
        let failure = |data| parse::<Trip>(&data).unwrap_err();
        let nested = failure(json!({ "city": "Seattle", "legs": [{ "days": 3 }, { "days": "x" }] }));
        assert_eq!(nested.field(), Some("legs[1].days"));
        let unknown = failure(json!({ "citi": "Seattle" }));
        assert_eq!(unknown.field(), Some("citi"));
        assert!(unknown.to_string().contains("expected"), "{unknown}");
        let missing = failure(json!({}));
        assert!(missing.to_string().contains("missing field `city`"), "{missing}");
    }
}
