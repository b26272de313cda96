//! A request, parsed: one table and what to do with it.
//!
//! The table comes inline (`csv` or `rows`), as one file (CSV or JSON), or as plain text that looks like CSV. What to
//! do comes as `operation` or `operations`, or as plain text: a SELECT statement or operations' names. Without either
//! the skill decides:
//!
//! | skill | default |
//! |---|---|
//! | `data_processing` | summary |
//! | `statistical_analysis` | summary, correlation (with two numeric columns or more), outliers (with one or more) |
//! | `visualization` | lines over the first date column, else bars over the first text column, else a histogram |
//!
//! Any skill does any operation: skills are how people find the agent, not a fence.

use serde::Deserialize;
use serde_json::Value;

use crate::chart::{ChartKind, MAX_BARS, Names, Request as ChartRequest};
use crate::operation::{Columns, Error, NAMES, Operation, Outliers, Sql, Step, parse};
use crate::statistics::OutlierMethod;
use crate::table::{self, Cell, Column, Kind, Table};

/// Find the agent to reshape, group or query a table.
pub const DATA_PROCESSING: &str = "data_processing";
/// Find the agent for figures.
pub const STATISTICAL_ANALYSIS: &str = "statistical_analysis";
/// Find the agent for charts.
pub const VISUALIZATION: &str = "visualization";

/// The data part.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Body {
    /// The table as CSV text with a header.
    #[serde(default)]
    pub csv: Option<String>,
    /// The table as a list of flat objects.
    #[serde(default)]
    pub rows: Option<Vec<Value>>,
    /// One operation: its name or an object.
    #[serde(default)]
    pub operation: Option<Value>,
    /// Several operations.
    #[serde(default)]
    pub operations: Option<Vec<Value>>,
}

/// A file of the message.
#[derive(Debug, Clone, Copy)]
pub struct File<'a> {
    /// Its name, if it has one.
    pub name: Option<&'a str>,
    /// Its media type, if it has one.
    pub media_type: Option<&'a str>,
    /// Its content.
    pub bytes: &'a [u8],
}

/// One table, unread, and what to do with it.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    source: Source,
    steps: Vec<Step>,
    skill: String,
}

#[derive(Debug, Clone, PartialEq)]
enum Source {
    Csv { field: &'static str, bytes: Vec<u8> },
    Rows { field: &'static str, rows: Vec<Value> },
}

impl Job {
    /// Reads a request's parts.
    ///
    /// # Errors
    /// Names the field at fault.
    pub fn new(skill: Option<&str>, body: Body, text: &str, files: &[File<'_>]) -> Result<Self, Error> {
        let Body {
            csv,
            rows,
            operation,
            operations,
        } = body;
        let text = text.trim();
        let mut sources: Vec<Source> = Vec::new();
        sources.extend(csv.map(|csv| Source::Csv {
            field: "csv",
            bytes: csv.into_bytes(),
        }));
        sources.extend(rows.map(|rows| Source::Rows { field: "rows", rows }));
        for file in files {
            sources.push(file_source(file)?);
        }
        let text_is_the_table = sources.is_empty() && looks_like_csv(text);
        if text_is_the_table {
            sources.push(Source::Csv {
                field: "text",
                bytes: text.as_bytes().to_vec(),
            });
        }
        let mut steps = parse(operation, operations.map(Value::Array))?;
        if steps.is_empty() && !text_is_the_table {
            steps = from_text(text)?;
        }
        let missing = "no table: send it as 'csv' (text with a header), as 'rows' (a list of objects), or as one CSV \
                       or JSON file";
        let source = sources.pop().ok_or_else(|| Error::new("csv", missing))?;
        if !sources.is_empty() {
            return Err(Error::new(
                "csv",
                "more than one table was sent (csv, rows, files); send one",
            ));
        }
        Ok(Self {
            source,
            steps,
            skill: skill.unwrap_or(DATA_PROCESSING).to_owned(),
        })
    }

    /// Reads the table and settles what to do.
    ///
    /// # Errors
    /// When the table is malformed or too large.
    pub fn read(self) -> Result<(Table, Vec<Step>), Error> {
        let (field, table) = match &self.source {
            Source::Csv { field, bytes } => (*field, table::from_csv(bytes)),
            Source::Rows { field, rows } => (*field, table::from_rows(rows)),
        };
        let table = table.map_err(|error| Error::new(field, error.to_string()))?;
        let steps = if self.steps.is_empty() {
            usual(&self.skill, &table)?
        } else {
            self.steps
        };
        Ok((table, steps))
    }
}

fn file_source(file: &File<'_>) -> Result<Source, Error> {
    const FIELD: &str = "file";
    let named = |ending: &str| {
        file.name
            .is_some_and(|name| name.to_ascii_lowercase().ends_with(ending))
    };
    let typed = |part: &str| {
        file.media_type
            .is_some_and(|media_type| media_type.to_ascii_lowercase().contains(part))
    };
    let first = file.bytes.iter().find(|byte| !byte.is_ascii_whitespace());
    let is_json =
        typed("json") || named(".json") || (!typed("csv") && !named(".csv") && first == Some(&b'['));
    if !is_json {
        return Ok(Source::Csv {
            field: FIELD,
            bytes: file.bytes.to_vec(),
        });
    }
    if file.bytes.len() > table::MAX_BYTES {
        let message = format!(
            "has {} bytes, and at most {} are accepted",
            file.bytes.len(),
            table::MAX_BYTES
        );
        return Err(Error::new(FIELD, message));
    }
    let value: Value = serde_json::from_slice(file.bytes)
        .map_err(|error| Error::new(FIELD, format!("is not JSON: {error}")))?;
    match value {
        Value::Array(rows) => Ok(Source::Rows { field: FIELD, rows }),
        Value::Object(mut object) => match object.remove("rows") {
            Some(Value::Array(rows)) => Ok(Source::Rows { field: FIELD, rows }),
            _ => Err(Error::new(
                FIELD,
                "must be a list of objects, or an object with such a list as 'rows'",
            )),
        },
        _ => Err(Error::new(FIELD, "must be a list of objects")),
    }
}

/// A header with a delimiter, and at least one more line.
fn looks_like_csv(text: &str) -> bool {
    let mut lines = text.lines();
    let header = lines.next().unwrap_or_default();
    header.contains([',', ';', '\t', '|']) && lines.next().is_some() && !is_statement(text)
}

fn is_statement(text: &str) -> bool {
    let word = text.split_whitespace().next().unwrap_or_default();
    word.eq_ignore_ascii_case("select") || word.eq_ignore_ascii_case("with")
}

fn from_text(text: &str) -> Result<Vec<Step>, Error> {
    if is_statement(text) {
        let operation = Operation::Sql(Sql {
            query: text.to_owned(),
        });
        return Ok(vec![Step {
            name: None,
            operation,
        }]);
    }
    let words: Vec<Value> = text
        .split([',', ' ', '\n'])
        .filter(|word| !word.is_empty())
        .map(|word| Value::from(word.to_lowercase()))
        .collect();
    if words.is_empty() {
        return Ok(Vec::new());
    }
    let known = words
        .iter()
        .all(|word| word.as_str().is_some_and(|word| NAMES.contains(&word)));
    if !known {
        let message = format!(
            "is neither a SELECT statement over the table `data` nor a list of operations ({}); send nothing for the \
             skill's default",
            NAMES.join(", ")
        );
        return Err(Error::new("text", message));
    }
    parse(None, Some(Value::Array(words)))
}

fn usual(skill: &str, table: &Table) -> Result<Vec<Step>, Error> {
    let step = |operation| Step {
        name: None,
        operation,
    };
    let summary = step(Operation::Summary(Columns::default()));
    match skill {
        STATISTICAL_ANALYSIS => {
            let numeric = table.numeric_columns().count();
            let mut steps = vec![summary];
            if numeric >= 2 {
                steps.push(step(Operation::Correlation(Columns::default())));
            }
            if numeric >= 1 {
                let outliers = Outliers {
                    columns: None,
                    method: OutlierMethod::Iqr,
                    threshold: None,
                };
                steps.push(step(Operation::Outliers(outliers)));
            }
            Ok(steps)
        }
        VISUALIZATION => Ok(vec![step(Operation::Chart(usual_chart(table)?))]),
        _ => Ok(vec![summary]),
    }
}

fn usual_chart(table: &Table) -> Result<ChartRequest, Error> {
    const MOST_LINES: usize = 4;
    let names: Vec<String> = table
        .numeric_columns()
        .take(MOST_LINES)
        .map(|column| column.name.clone())
        .collect();
    let Some(first) = names.first().cloned() else {
        return Err(Error::new(
            "operation",
            "the table has no numeric column to draw; choose a chart with 'query'",
        ));
    };
    let of_kind = |kind| table.columns().iter().find(|column| column.kind == kind);
    let category = of_kind(Kind::Text).filter(|column| can_be_bars(column));
    let (kind, x, y) = match (of_kind(Kind::Date), category) {
        (Some(date), _) => (ChartKind::Line, date.name.clone(), Names::Many(names)),
        (None, Some(category)) => (ChartKind::Bar, category.name.clone(), Names::One(first)),
        (None, None) => (ChartKind::Histogram, first, Names::default()),
    };
    Ok(ChartRequest {
        kind,
        x,
        y,
        series: None,
        title: None,
        bins: None,
        width: 800,
        height: 480,
        query: None,
    })
}

/// Whether each value is there once, and there are not too many.
fn can_be_bars(column: &Column) -> bool {
    let mut labels: Vec<String> = column.cells.iter().map(Cell::label).collect();
    let rows = labels.len();
    labels.sort_unstable();
    labels.dedup();
    labels.len() == rows && rows <= MAX_BARS
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn body(value: Value) -> Body {
        serde_json::from_value(value).unwrap()
    }

    fn kinds(skill: &str, csv: &str) -> Vec<&'static str> {
        let job = Job::new(Some(skill), body(json!({"csv": csv})), "", &[]).unwrap();
        let (_, steps) = job.read().unwrap();
        steps.iter().map(|step| kind(&step.operation)).collect()
    }

    fn kind(operation: &Operation) -> &'static str {
        match operation {
            Operation::Summary(_) => "summary",
            Operation::GroupBy(_) => "group_by",
            Operation::Correlation(_) => "correlation",
            Operation::Outliers(_) => "outliers",
            Operation::Sql(_) => "sql",
            Operation::Chart(chart) => match chart.kind {
                ChartKind::Line => "line",
                ChartKind::Bar => "bar",
                ChartKind::Scatter => "scatter",
                ChartKind::Histogram => "histogram",
            },
        }
    }

    #[test]
    fn each_skill_has_a_default_that_fits_the_table() {
        assert_eq!(kinds(DATA_PROCESSING, "a,b\n1,2\n"), ["summary"]);
        assert_eq!(
            kinds(STATISTICAL_ANALYSIS, "a,b\n1,2\n"),
            ["summary", "correlation", "outliers"]
        );
        assert_eq!(kinds(STATISTICAL_ANALYSIS, "a,b\nx,y\n"), ["summary"]);
        assert_eq!(kinds(VISUALIZATION, "day,rain\n2014-03-01,2\n"), ["line"]);
        assert_eq!(kinds(VISUALIZATION, "city,rain\nOslo,2\nRoma,3\n"), ["bar"]);
        assert_eq!(kinds(VISUALIZATION, "city,rain\nOslo,2\nOslo,3\n"), ["histogram"]);
    }

    #[test]
    fn tables_come_inline_as_files_and_as_text() {
        let csv = File {
            name: Some("a.csv"),
            media_type: None,
            bytes: b"a,b\n1,2\n",
        };
        let json = File {
            name: None,
            media_type: Some("application/json"),
            bytes: b"[{\"a\": 1, \"b\": 2}]",
        };
        let object = File {
            name: Some("A.JSON"),
            media_type: None,
            bytes: b"{\"rows\": [{\"a\": 1, \"b\": 2}]}",
        };
        let jobs = [
            Job::new(None, body(json!({"rows": [{"a": 1, "b": 2}]})), "", &[]),
            Job::new(None, Body::default(), "a,b\n1,2", &[]),
            Job::new(None, Body::default(), "", &[csv]),
            Job::new(None, Body::default(), "select sum(a) from data", &[json]),
            Job::new(None, Body::default(), "summary, correlation", &[object]),
        ];
        for job in jobs {
            let (table, steps) = job.unwrap().read().unwrap();
            assert_eq!(
                (table.rows(), table.columns().len(), steps.is_empty()),
                (1, 2, false)
            );
        }
    }

    #[test]
    fn mistakes_name_their_field() {
        let refused = |value: Value, text: &str, files: &[File<'_>]| {
            Job::new(None, body(value), text, files)
                .and_then(Job::read)
                .unwrap_err()
        };
        let file = File {
            name: Some("a.json"),
            media_type: None,
            bytes: b"{",
        };
        assert!(refused(json!({}), "", &[]).message.contains("no table"));
        assert_eq!(refused(json!({"csv": "a,b\n1\n"}), "", &[]).field, "csv");
        assert_eq!(refused(json!({"csv": "a\n1", "rows": []}), "", &[]).field, "csv");
        assert_eq!(
            refused(json!({"csv": "a\n1"}), "please look at it", &[]).field,
            "text"
        );
        assert_eq!(refused(json!({}), "", &[file]).field, "file");
        assert_eq!(refused(json!({"rows": [1]}), "", &[]).field, "rows");
        assert_eq!(
            refused(json!({"csv": "a\n1", "operation": "sumary"}), "", &[]).field,
            "operation.type"
        );
    }
}
