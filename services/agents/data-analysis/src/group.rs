//! Rows grouped by the values of some columns, with aggregates per group.
//!
//! Groups appear in the order in which their first row does. A missing key is a group of its own. Aggregates leave
//! missing values out; `count` without a column counts rows.

use std::collections::{HashMap, HashSet};

use serde::Deserialize;
use serde_json::Value;

use crate::statistics;
use crate::table::{self, Cell, Column, Table};

/// Most groups; beyond them the key is no key.
pub const MAX_GROUPS: usize = 10_000;

/// One figure per group.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Aggregate {
    /// What is computed.
    pub function: Function,
    /// Of which column; only `count` can do without.
    #[serde(default)]
    pub column: Option<String>,
    /// The figure's name; `FUNCTION_COLUMN` if absent.
    #[serde(default, rename = "as")]
    pub name: Option<String>,
}

impl Aggregate {
    fn label(&self) -> String {
        match (&self.name, &self.column) {
            (Some(name), _) => name.clone(),
            (None, Some(column)) => format!("{}_{column}", self.function.name()),
            (None, None) => self.function.name().to_owned(),
        }
    }
}

/// What can be computed of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Function {
    /// Values that are not missing, or rows.
    Count,
    /// Different values.
    Distinct,
    /// Sum.
    Sum,
    /// Arithmetic mean.
    Mean,
    /// Median.
    Median,
    /// Sample standard deviation.
    Std,
    /// Smallest.
    Min,
    /// Largest.
    Max,
}

impl Function {
    fn name(self) -> &'static str {
        match self {
            Self::Count => "count",
            Self::Distinct => "distinct",
            Self::Sum => "sum",
            Self::Mean => "mean",
            Self::Median => "median",
            Self::Std => "std",
            Self::Min => "min",
            Self::Max => "max",
        }
    }

    fn of_numbers(self, numbers: &[f64]) -> Value {
        let figure = match self {
            Self::Sum => statistics::sum(numbers),
            Self::Mean => statistics::mean(numbers),
            Self::Median => statistics::quantile(&statistics::sorted(numbers), 0.5),
            Self::Std => statistics::standard_deviation(numbers),
            Self::Min => statistics::quantile(&statistics::sorted(numbers), 0.0),
            Self::Max => statistics::quantile(&statistics::sorted(numbers), 1.0),
            Self::Count | Self::Distinct => return Value::from(numbers.len()),
        };
        Value::from(figure)
    }
}

/// Why the rows cannot be grouped so.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum Error {
    /// A column is not there or holds no numbers.
    #[error(transparent)]
    Table(#[from] table::Error),
    /// No key.
    #[error("'by' names no column; name at least one to group by")]
    NoKey,
    /// The function needs a column.
    #[error("'{0}' needs a 'column'; only count can do without")]
    NoColumn(&'static str),
    /// Two figures of one name.
    #[error("two columns of the result are called '{0}'; give one of them another name with 'as'")]
    SameName(String),
    /// The key has too many values.
    #[error("there are more than {MAX_GROUPS} groups; group by a column with fewer different values")]
    TooManyGroups,
}

/// Groups `table` by the columns `by`; each group becomes one JSON object of its keys and its figures.
///
/// # Errors
/// When a column is not there, or the key has too many values.
pub fn group(table: &Table, by: &[String], aggregates: &[Aggregate]) -> Result<Vec<Value>, Error> {
    let keys = by
        .iter()
        .map(|name| table.column(name))
        .collect::<Result<Vec<_>, _>>()?;
    if keys.is_empty() {
        return Err(Error::NoKey);
    }
    let figures = aggregates
        .iter()
        .map(|aggregate| figure(table, aggregate))
        .collect::<Result<Vec<_>, _>>()?;
    let mut names = HashSet::new();
    let key_names = keys.iter().map(|key| key.name.as_str());
    if let Some(twice) = key_names
        .chain(figures.iter().map(|figure| figure.name.as_str()))
        .find(|n| !names.insert(*n))
    {
        return Err(Error::SameName(twice.to_owned()));
    }
    let groups = members(&keys, table.rows())?;
    Ok(groups
        .iter()
        .map(|rows| {
            let first = rows.first().copied().unwrap_or_default();
            let keys = keys.iter().map(|key| {
                (
                    key.name.as_str(),
                    key.cells.get(first).map_or(Value::Null, Cell::json),
                )
            });
            let figures = figures
                .iter()
                .map(|figure| (figure.name.as_str(), figure.of(rows)));
            table::row_object(keys.chain(figures))
        })
        .collect())
}

/// The rows of each group, in the order of first appearance.
fn members(keys: &[&Column], rows: usize) -> Result<Vec<Vec<usize>>, Error> {
    let mut groups: Vec<Vec<usize>> = Vec::new();
    let mut index: HashMap<String, usize> = HashMap::new();
    for row in 0..rows {
        let values: Vec<Value> = keys
            .iter()
            .map(|key| key.cells.get(row).map_or(Value::Null, Cell::json))
            .collect();
        // JSON text tells "1" from 1 and separates the values beyond doubt.
        let group = *index
            .entry(Value::Array(values).to_string())
            .or_insert(groups.len());
        if group == groups.len() {
            if group == MAX_GROUPS {
                return Err(Error::TooManyGroups);
            }
            groups.push(Vec::new());
        }
        if let Some(members) = groups.get_mut(group) {
            members.push(row);
        }
    }
    Ok(groups)
}

struct Figure<'a> {
    name: String,
    function: Function,
    column: Option<&'a Column>,
}

fn figure<'a>(table: &'a Table, aggregate: &Aggregate) -> Result<Figure<'a>, Error> {
    let function = aggregate.function;
    let column = match (&aggregate.column, function) {
        (None, Function::Count) => None,
        (None, _) => return Err(Error::NoColumn(function.name())),
        (Some(name), Function::Count | Function::Distinct) => Some(table.column(name)?),
        (Some(name), _) => Some(table.numeric(name)?),
    };
    Ok(Figure {
        name: aggregate.label(),
        function,
        column,
    })
}

impl Figure<'_> {
    fn of(&self, rows: &[usize]) -> Value {
        let Some(column) = self.column else {
            return Value::from(rows.len());
        };
        let cells = rows.iter().filter_map(|&row| column.cells.get(row));
        let present = cells.filter(|cell| !matches!(cell, Cell::Missing));
        match self.function {
            Function::Count => Value::from(present.count()),
            Function::Distinct => Value::from(present.map(Cell::label).collect::<HashSet<_>>().len()),
            _ => self
                .function
                .of_numbers(&present.filter_map(Cell::number).collect::<Vec<_>>()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn aggregate(function: Function, column: Option<&str>) -> Aggregate {
        Aggregate {
            function,
            column: column.map(str::to_owned),
            name: None,
        }
    }

    #[test]
    fn groups_have_the_figures_that_were_asked_for() {
        let table = table::from_csv(b"city,rain\nSeattle,2\nNew York,5\nSeattle,4\nSeattle,\n").unwrap();
        let figures = [
            aggregate(Function::Count, None),
            aggregate(Function::Count, Some("rain")),
            aggregate(Function::Mean, Some("rain")),
            aggregate(Function::Max, Some("rain")),
            aggregate(Function::Std, Some("rain")),
            aggregate(Function::Distinct, Some("rain")),
        ];
        let groups = group(&table, &["city".to_owned()], &figures).unwrap();
        let seattle = json!({"city": "Seattle", "count": 3, "count_rain": 2, "mean_rain": 3.0, "max_rain": 4.0,
            "std_rain": 2.0_f64.sqrt(), "distinct_rain": 2});
        assert_eq!(groups[0], seattle);
        assert_eq!(groups[1]["std_rain"], Value::Null);
        assert_eq!(groups.len(), 2);
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        let table = table::from_csv(b"city,rain\nSeattle,2\n").unwrap();
        let refused = |by: &[&str], figures: &[Aggregate]| {
            let by: Vec<String> = by.iter().map(|&name| name.to_owned()).collect();
            group(&table, &by, figures).unwrap_err().to_string()
        };
        assert!(refused(&[], &[]).contains("'by'"));
        assert!(refused(&["cty"], &[]).contains("did you mean 'city'"));
        assert!(
            refused(&["city"], &[aggregate(Function::Mean, Some("city"))]).contains("numbers are needed")
        );
        assert!(refused(&["city"], &[aggregate(Function::Sum, None)]).contains("needs a 'column'"));
        let twice = [aggregate(Function::Count, None), aggregate(Function::Count, None)];
        assert!(refused(&["city"], &twice).contains("called 'count'"));
    }

    proptest! {
        #[test]
        fn groups_partition_the_rows_and_their_sums_add_up(rows in proptest::collection::vec((0..5u8, -1000..1000i32), 1..80)) {
            let csv: String = rows.iter().map(|(key, value)| format!("k{key},{value}\n")).collect();
            let table = table::from_csv(format!("key,value\n{csv}").as_bytes()).unwrap();
            let figures = [aggregate(Function::Count, None), aggregate(Function::Sum, Some("value"))];
            let groups = group(&table, &["key".to_owned()], &figures).unwrap();
            let total = |name: &str| groups.iter().map(|group| group[name].as_f64().unwrap()).sum::<f64>();
            let expected: i32 = rows.iter().map(|(_, value)| value).sum();
            #[expect(clippy::cast_precision_loss, reason = "at most 80 rows")]
            let count = rows.len() as f64;
            prop_assert!((total("count") - count).abs() < 1e-9);
            prop_assert!((total("sum_value") - f64::from(expected)).abs() < 1e-6);
        }
    }
}
