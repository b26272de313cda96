//! What a caller asks for: parsed once, from JSON, into typed operations.

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::chart;
use crate::group::Aggregate;
use crate::statistics::OutlierMethod;

/// Most operations of one request.
pub const MAX_OPERATIONS: usize = 16;

/// The operations' names.
pub const NAMES: [&str; 6] = ["summary", "group_by", "correlation", "outliers", "sql", "chart"];

/// One operation, with the name that the caller gives its result.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// Repeated in the result.
    pub name: Option<String>,
    /// What is done.
    pub operation: Operation,
}

/// What can be done with a table.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Operation {
    /// Figures of each column.
    Summary(Columns),
    /// Figures of groups of rows.
    GroupBy(GroupBy),
    /// Pearson's correlation of each pair of columns.
    Correlation(Columns),
    /// Values far from the others.
    Outliers(Outliers),
    /// One SELECT over the table `data`.
    Sql(Sql),
    /// A chart as SVG.
    Chart(chart::Request),
}

/// Which columns; all that fit if absent.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Columns {
    /// Their names.
    #[serde(default)]
    pub columns: Option<Vec<String>>,
}

/// How to group.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupBy {
    /// The columns whose values make a group.
    pub by: Vec<String>,
    /// Figures per group; the number of rows if absent.
    #[serde(default)]
    pub aggregates: Option<Vec<Aggregate>>,
}

/// How to tell outliers.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outliers {
    /// In which columns; all numeric ones if absent.
    #[serde(default)]
    pub columns: Option<Vec<String>>,
    /// By which method.
    #[serde(default = "iqr")]
    pub method: OutlierMethod,
    /// How far is far; 1.5 for `iqr` and 3 for `zscore` if absent.
    #[serde(default)]
    pub threshold: Option<f64>,
}

fn iqr() -> OutlierMethod {
    OutlierMethod::Iqr
}

/// A statement.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sql {
    /// One SELECT.
    pub query: String,
}

/// A request that makes no sense: the field at fault and what to do.
#[derive(Debug, thiserror::Error, PartialEq)]
#[error("{field}: {message}")]
pub struct Error {
    /// Path of the field.
    pub field: String,
    /// What is wrong, and what is expected.
    pub message: String,
}

impl Error {
    /// A refusal of `field`.
    pub fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            message: message.into(),
        }
    }
}

/// The operations of a request object, which may hold one as `operation` or several as `operations`; an operation is
/// its name, or an object with its name as `type`, its parameters and perhaps a `name` for its result.
///
/// # Errors
/// Names the field.
pub fn parse(operation: Option<Value>, operations: Option<Value>) -> Result<Vec<Step>, Error> {
    match (operation, operations) {
        (Some(_), Some(_)) => Err(Error::new(
            "operation",
            "is given beside 'operations'; give one of them",
        )),
        (None, None) => Ok(Vec::new()),
        (Some(one), None) => Ok(vec![step(one, "operation")?]),
        (None, Some(Value::Array(many))) if many.is_empty() || many.len() > MAX_OPERATIONS => {
            let message = format!("has {} entries; give 1 to {MAX_OPERATIONS}", many.len());
            Err(Error::new("operations", message))
        }
        (None, Some(Value::Array(many))) => many
            .into_iter()
            .enumerate()
            .map(|(index, value)| step(value, &format!("operations[{index}]")))
            .collect(),
        (None, Some(_)) => Err(Error::new(
            "operations",
            "must be a list; a single one goes into 'operation'",
        )),
    }
}

fn step(value: Value, path: &str) -> Result<Step, Error> {
    let mut object = match value {
        Value::String(name) => Map::from_iter([("type".to_owned(), Value::String(name))]),
        Value::Object(object) => object,
        _ => {
            let message = format!(
                "must be an operation's name ({}) or an object with 'type'",
                NAMES.join(", ")
            );
            return Err(Error::new(path, message));
        }
    };
    let name = match object.remove("name") {
        None => None,
        Some(Value::String(name)) if name.len() <= 100 => Some(name),
        Some(_) => {
            return Err(Error::new(
                format!("{path}.name"),
                "must be text of at most 100 bytes",
            ));
        }
    };
    let kind = match object.get("type") {
        Some(Value::String(kind)) => kind.clone(),
        _ => {
            return Err(Error::new(
                format!("{path}.type"),
                format!("is missing; it is one of {}", NAMES.join(", ")),
            ));
        }
    };
    if !NAMES.contains(&kind.as_str()) {
        let hint = muster_api::names::suggestion(&kind, NAMES);
        let message = format!(
            "'{kind}' is not an operation{hint} (operations: {})",
            NAMES.join(", ")
        );
        return Err(Error::new(format!("{path}.type"), message));
    }
    match serde_json::from_value(Value::Object(object)) {
        Ok(operation) => Ok(Step { name, operation }),
        Err(error) => Err(Error::new(path, format!("{kind}: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_and_objects_are_operations() {
        let steps = parse(
            None,
            Some(json!(["summary", {"type": "sql", "name": "wet", "query": "SELECT 1"}])),
        )
        .unwrap();
        assert_eq!(steps[0].operation, Operation::Summary(Columns::default()));
        assert_eq!(steps[1].name.as_deref(), Some("wet"));
        let steps = parse(Some(json!({"type": "outliers", "method": "zscore"})), None).unwrap();
        assert!(
            matches!(&steps[0].operation, Operation::Outliers(outliers) if outliers.method == OutlierMethod::Zscore)
        );
    }

    #[test]
    fn mistakes_name_their_field() {
        let refused = |operations: Value| parse(None, Some(operations)).unwrap_err().to_string();
        assert!(
            refused(json!(["sumary"]))
                .starts_with("operations[0].type: 'sumary' is not an operation; did you")
        );
        assert!(refused(json!([{"type": "sql"}])).contains("operations[0]: sql: missing field `query`"));
        assert!(refused(json!([{"type": "summary", "colums": []}])).contains("unknown field `colums`"));
        assert!(refused(json!([3])).contains("operations[0]: must be"));
        assert!(refused(json!([])).contains("give 1 to 16"));
        assert!(refused(json!("summary")).contains("must be a list"));
        assert!(parse(Some(json!("summary")), Some(json!([]))).is_err());
    }
}
