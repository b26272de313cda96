//! Operations on a table, one after the other, into one answer.
//!
//! Pure but for the clock behind `interrupt`, which bounds each SQL statement. Everything here is CPU work of up to a
//! second or so; the agent runs it off the async threads.

use serde_json::{Value, json};

use crate::chart;
use crate::group;
use crate::operation::{Columns, Error, GroupBy, Operation, Outliers, Step};
use crate::sql;
use crate::statistics;
use crate::table::{self, Cell, Column, Table};

/// Rows of a grouped result that are shown.
const MAX_SHOWN_GROUPS: usize = 1_000;
/// Outliers of one column that are shown.
const MAX_SHOWN_OUTLIERS: usize = 100;
/// Most columns that are correlated with each other.
const MAX_CORRELATED: usize = 40;
/// Frequent values of a text column that are shown.
const MOST_COMMON: usize = 5;

/// The answer to all operations.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// `{table, results}`.
    pub data: Value,
    /// One line per operation, for people.
    pub summary: String,
    /// The charts, in the order of their operations.
    pub charts: Vec<Chart>,
}

/// A drawn chart.
#[derive(Debug, Clone, PartialEq)]
pub struct Chart {
    /// `chart.svg`, `chart-2.svg`, …
    pub file: String,
    /// SVG text.
    pub svg: String,
}

/// Runs `steps` on `table`; each SQL statement gets a new `interrupt`.
///
/// # Errors
/// Names the operation's field in the request (`operation` when there is one, else `operations[INDEX]`).
pub fn run(table: &Table, steps: &[Step], interrupt: &dyn Fn() -> sql::Interrupt) -> Result<Report, Error> {
    let mut lines = vec![format!(
        "{} rows, {} columns",
        table.rows(),
        table.columns().len()
    )];
    let mut results = Vec::new();
    let mut charts: Vec<Chart> = Vec::new();
    for (index, step) in steps.iter().enumerate() {
        let path = if steps.len() == 1 {
            "operation".to_owned()
        } else {
            format!("operations[{index}]")
        };
        let (mut result, line) = match &step.operation {
            Operation::Summary(columns) => summary(table, columns, &path)?,
            Operation::GroupBy(request) => group_by(table, request, &path)?,
            Operation::Correlation(columns) => correlation(table, columns, &path)?,
            Operation::Outliers(request) => outliers(table, request, &path)?,
            Operation::Sql(request) => select(table, &request.query, &path, interrupt())?,
            Operation::Chart(request) => {
                let (chart, result, line) = draw(table, request, &path, charts.len(), interrupt)?;
                charts.push(chart);
                (result, line)
            }
        };
        if let (Some(name), Some(object)) = (&step.name, result.as_object_mut()) {
            object.insert("name".to_owned(), Value::from(name.as_str()));
        }
        results.push(result);
        lines.push(line);
    }
    let data = json!({"table": table.describe(), "results": results});
    Ok(Report {
        data,
        summary: lines.join("\n"),
        charts,
    })
}

fn chosen<'a>(
    table: &'a Table,
    names: Option<&Vec<String>>,
    path: &str,
) -> Result<Option<Vec<&'a Column>>, Error> {
    let Some(names) = names else { return Ok(None) };
    let columns = names
        .iter()
        .map(|name| table.column(name))
        .collect::<Result<Vec<_>, _>>();
    columns
        .map(Some)
        .map_err(|error| Error::new(format!("{path}.columns"), error.to_string()))
}

fn chosen_numeric<'a>(
    table: &'a Table,
    names: Option<&Vec<String>>,
    path: &str,
) -> Result<Vec<&'a Column>, Error> {
    let refused = |message: String| Error::new(format!("{path}.columns"), message);
    let columns = match names {
        None => table.numeric_columns().collect(),
        Some(names) => names
            .iter()
            .map(|name| table.numeric(name))
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| refused(error.to_string()))?,
    };
    if columns.is_empty() {
        return Err(refused(
            "the table has no numeric column, and one is needed".to_owned(),
        ));
    }
    Ok(columns)
}

fn summary(table: &Table, request: &Columns, path: &str) -> Result<(Value, String), Error> {
    let columns =
        chosen(table, request.columns.as_ref(), path)?.unwrap_or_else(|| table.columns().iter().collect());
    let mut lines = Vec::new();
    let described: Vec<Value> = columns
        .iter()
        .map(|column| {
            if column.kind.is_numeric() {
                let figures = statistics::summarize(&column.numbers());
                lines.push(format!(
                    "{}: mean {}, median {}, min {}, max {}",
                    column.name,
                    shown(figures.mean),
                    shown(figures.median),
                    shown(figures.min),
                    shown(figures.max)
                ));
                merged(
                    json!({"column": column.name, "type": column.kind, "missing": column.missing()}),
                    &json!(figures),
                )
            } else {
                describe_values(column)
            }
        })
        .collect();
    let line = if lines.is_empty() {
        "no numeric column".to_owned()
    } else {
        lines.join("; ")
    };
    Ok((json!({"operation": "summary", "columns": described}), line))
}

fn describe_values(column: &Column) -> Value {
    let mut counts: std::collections::HashMap<String, usize> = std::collections::HashMap::new();
    for cell in column.cells.iter().filter(|cell| !matches!(cell, Cell::Missing)) {
        *counts.entry(cell.label()).or_default() += 1;
    }
    let distinct = counts.len();
    let mut counts: Vec<(String, usize)> = counts.into_iter().collect();
    counts.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    let common: Vec<Value> = counts
        .iter()
        .take(MOST_COMMON)
        .map(|(value, count)| json!({"value": value, "count": count}))
        .collect();
    let missing = column.missing();
    json!({"column": column.name, "type": column.kind, "missing": missing, "count": column.cells.len() - missing,
        "distinct": distinct, "most_common": common})
}

fn group_by(table: &Table, request: &GroupBy, path: &str) -> Result<(Value, String), Error> {
    let count = [group::Aggregate {
        function: group::Function::Count,
        column: None,
        name: None,
    }];
    let aggregates = request.aggregates.as_deref().unwrap_or(&count);
    let mut groups =
        group::group(table, &request.by, aggregates).map_err(|error| Error::new(path, error.to_string()))?;
    let total = groups.len();
    groups.truncate(MAX_SHOWN_GROUPS);
    let line = format!("{total} groups by {}", request.by.join(", "));
    let truncated = total > groups.len();
    Ok((
        json!({"operation": "group_by", "by": request.by, "groups": total, "rows": groups, "truncated": truncated}),
        line,
    ))
}

fn correlation(table: &Table, request: &Columns, path: &str) -> Result<(Value, String), Error> {
    let columns = chosen_numeric(table, request.columns.as_ref(), path)?;
    if columns.len() > MAX_CORRELATED {
        let message = format!(
            "are {} numeric columns; name at most {MAX_CORRELATED} of them",
            columns.len()
        );
        return Err(Error::new(format!("{path}.columns"), message));
    }
    let mut pairs = Vec::new();
    let mut matrix = vec![vec![Value::Null; columns.len()]; columns.len()];
    for (row, a) in columns.iter().enumerate() {
        for (place, b) in columns.iter().enumerate().skip(row) {
            let values = complete(a, b);
            let r = statistics::correlation(&values);
            set(&mut matrix, row, place, r);
            set(&mut matrix, place, row, r);
            if row != place {
                pairs.push((a.name.as_str(), b.name.as_str(), r, values.len()));
            }
        }
    }
    pairs.sort_by(|a, b| b.2.map_or(-1.0, f64::abs).total_cmp(&a.2.map_or(-1.0, f64::abs)));
    let line = match pairs.first() {
        Some((a, b, Some(r), rows)) => {
            format!("strongest correlation: {a} and {b}, r = {r:.3} over {rows} rows")
        }
        _ => "no two columns that vary together".to_owned(),
    };
    let names: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
    let pairs: Vec<Value> = pairs
        .iter()
        .map(|(a, b, r, rows)| json!({"a": a, "b": b, "r": r, "rows": rows}))
        .collect();
    Ok((
        json!({"operation": "correlation", "columns": names, "matrix": matrix, "pairs": pairs}),
        line,
    ))
}

fn set(matrix: &mut [Vec<Value>], row: usize, column: usize, value: Option<f64>) {
    if let Some(cell) = matrix.get_mut(row).and_then(|row| row.get_mut(column)) {
        *cell = Value::from(value);
    }
}

/// The rows in which both columns have a value.
fn complete(a: &Column, b: &Column) -> Vec<(f64, f64)> {
    a.cells
        .iter()
        .zip(&b.cells)
        .filter_map(|(a, b)| Some((a.number()?, b.number()?)))
        .collect()
}

fn outliers(table: &Table, request: &Outliers, path: &str) -> Result<(Value, String), Error> {
    let columns = chosen_numeric(table, request.columns.as_ref(), path)?;
    let threshold = request
        .threshold
        .unwrap_or_else(|| request.method.default_threshold());
    if !(threshold > 0.0 && threshold <= 1e6) {
        let message = format!("is {threshold}; it must be above 0 and at most 1,000,000");
        return Err(Error::new(format!("{path}.threshold"), message));
    }
    let mut total = 0;
    let results: Vec<Value> = columns
        .iter()
        .map(|column| {
            let fences = statistics::fences(&column.numbers(), request.method, threshold);
            let mut found: Vec<(usize, f64)> = match fences {
                None => Vec::new(),
                Some((low, high)) => (1..)
                    .zip(&column.cells)
                    .filter_map(|(row, cell)| Some((row, cell.number()?)))
                    .filter(|(_, value)| *value < low || *value > high)
                    .collect(),
            };
            let count = found.len();
            total += count;
            found.truncate(MAX_SHOWN_OUTLIERS);
            let rows: Vec<Value> = found.iter().map(|(row, value)| json!({"row": row, "value": value})).collect();
            json!({"column": column.name, "lower": fences.map(|f| f.0), "upper": fences.map(|f| f.1), "count": count,
                "outliers": rows, "truncated": count > found.len()})
        })
        .collect();
    let line = format!("{total} outliers in {} columns", columns.len());
    let result = json!({"operation": "outliers", "method": request.method, "threshold": threshold, "columns": results});
    Ok((result, line))
}

fn select(
    table: &Table,
    statement: &str,
    path: &str,
    interrupt: sql::Interrupt,
) -> Result<(Value, String), Error> {
    let output = sql::query(table, statement, sql::MAX_RESULT_ROWS, interrupt)
        .map_err(|error| Error::new(format!("{path}.query"), error.to_string()))?;
    let cut = if output.truncated { " (more were cut)" } else { "" };
    let line = format!("SQL: {} rows{cut}", output.rows.len());
    let result = json!({"operation": "sql", "columns": output.columns, "row_count": output.rows.len(),
        "rows": output.rows, "truncated": output.truncated});
    Ok((result, line))
}

fn draw(
    table: &Table,
    request: &chart::Request,
    path: &str,
    drawn: usize,
    interrupt: &dyn Fn() -> sql::Interrupt,
) -> Result<(Chart, Value, String), Error> {
    let selected = match &request.query {
        None => None,
        Some(query) => Some(
            selected(table, query, interrupt())
                .map_err(|message| Error::new(format!("{path}.query"), message))?,
        ),
    };
    let table = selected.as_ref().unwrap_or(table);
    let plan = chart::plan(table, request).map_err(|error| Error::new(path, error.to_string()))?;
    let svg = chart::svg(&plan).map_err(|error| Error::new(path, error.to_string()))?;
    let file = if drawn == 0 {
        "chart.svg".to_owned()
    } else {
        format!("chart-{}.svg", drawn + 1)
    };
    let series: Vec<&str> = plan.series.iter().map(|series| series.name.as_str()).collect();
    let result = json!({"operation": "chart", "kind": plan.kind, "title": plan.title, "file": file,
        "series": series, "points": plan.points(), "skipped": plan.skipped});
    let line = format!("{file}: {} ({} points)", plan.title, plan.points());
    Ok((Chart { file, svg }, result, line))
}

fn selected(table: &Table, query: &str, interrupt: sql::Interrupt) -> Result<Table, String> {
    let output = sql::query(table, query, chart::MAX_POINTS, interrupt).map_err(|error| error.to_string())?;
    if output.truncated {
        return Err(format!(
            "yields more than {} rows; aggregate further",
            chart::MAX_POINTS
        ));
    }
    table::from_rows(&output.rows).map_err(|error| format!("yields no table to draw: {error}"))
}

fn merged(mut object: Value, more: &Value) -> Value {
    if let (Some(object), Some(more)) = (object.as_object_mut(), more.as_object()) {
        object.extend(more.iter().map(|(key, value)| (key.clone(), value.clone())));
    }
    object
}

fn shown(value: Option<f64>) -> String {
    value.map_or_else(
        || "–".to_owned(),
        |value| {
            let text = format!("{value:.3}");
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        },
    )
}

#[cfg(test)]
mod tests;
