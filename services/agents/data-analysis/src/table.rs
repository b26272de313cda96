//! A caller's table: named, typed columns in memory, read from CSV or from JSON rows.
//!
//! **Bounds.** [`MAX_BYTES`] of input, [`MAX_ROWS`] × [`MAX_COLUMNS`], [`MAX_CELLS`] in all and [`MAX_CELL_BYTES`] in
//! one cell. A table beyond them is refused, never cut: an answer about half the data would look like an answer.
//!
//! **Types.** A column has one [`Kind`], inferred from its cells; missing cells (empty, `NA`, `N/A`, `NaN`, `null`,
//! `none`, in any case) take no part. The first kind that every cell fits wins:
//! 1. `integer`: 64-bit whole numbers. A digit string with a leading zero (`007`) is a name, not a number.
//! 2. `number`: finite decimal numbers.
//! 3. `boolean`: `true` or `false`.
//! 4. `date`: `YYYY-MM-DD`, or a date and time as RFC 3339 has it (time zone optional, UTC assumed).
//! 5. `text`: everything else, also a column with no value at all.
//!
//! JSON values keep their own type: a JSON string is never read as a number, but may be a date.

use jiff::civil;
use serde::Serialize;
use serde_json::{Map, Value};

mod read;

pub use read::{from_csv, from_rows};

/// Most bytes of CSV or JSON.
pub const MAX_BYTES: usize = 8 * 1024 * 1024;
/// Most rows.
pub const MAX_ROWS: usize = 100_000;
/// Most columns.
pub const MAX_COLUMNS: usize = 200;
/// Most cells, rows × columns.
pub const MAX_CELLS: usize = 500_000;
/// Most bytes of text in one cell.
pub const MAX_CELL_BYTES: usize = 32 * 1024;
/// Longest name of a column, in bytes.
pub const MAX_NAME_BYTES: usize = 200;

/// What all cells of a column are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// 64-bit whole numbers.
    Integer,
    /// Finite decimal numbers.
    Number,
    /// True or false.
    Boolean,
    /// Dates, with or without a time.
    Date,
    /// Anything.
    Text,
}

impl Kind {
    /// Whether arithmetic on the column makes sense.
    #[must_use]
    pub fn is_numeric(self) -> bool {
        matches!(self, Self::Integer | Self::Number)
    }
}

/// One value.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    /// No value.
    Missing,
    /// A whole number.
    Integer(i64),
    /// A finite number.
    Number(f64),
    /// True or false.
    Boolean(bool),
    /// Text or a date as it was written.
    Text(Box<str>),
}

impl Cell {
    /// The number in the cell, if it holds one.
    #[must_use]
    pub fn number(&self) -> Option<f64> {
        match self {
            #[expect(clippy::cast_precision_loss, reason = "statistics are computed in doubles")]
            Self::Integer(value) => Some(*value as f64),
            Self::Number(value) => Some(*value),
            Self::Missing | Self::Boolean(_) | Self::Text(_) => None,
        }
    }

    /// The cell as JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        match self {
            Self::Missing => Value::Null,
            Self::Integer(value) => Value::from(*value),
            Self::Number(value) => Value::from(*value),
            Self::Boolean(value) => Value::from(*value),
            Self::Text(value) => Value::from(&**value),
        }
    }

    /// The cell as a person reads it; missing is empty.
    #[must_use]
    pub fn label(&self) -> String {
        match self {
            Self::Missing => String::new(),
            Self::Integer(value) => value.to_string(),
            Self::Number(value) => value.to_string(),
            Self::Boolean(value) => value.to_string(),
            Self::Text(value) => value.to_string(),
        }
    }
}

/// A named column.
#[derive(Debug, Clone, PartialEq)]
pub struct Column {
    /// As in the header.
    pub name: String,
    /// What all its cells are.
    pub kind: Kind,
    /// One per row.
    pub cells: Vec<Cell>,
}

impl Column {
    /// The numbers in the column, without the missing ones.
    #[must_use]
    pub fn numbers(&self) -> Vec<f64> {
        self.cells.iter().filter_map(Cell::number).collect()
    }

    /// How many cells are missing.
    #[must_use]
    pub fn missing(&self) -> usize {
        self.cells
            .iter()
            .filter(|cell| matches!(cell, Cell::Missing))
            .count()
    }
}

/// Columns of equal length.
#[derive(Debug, Clone, PartialEq)]
pub struct Table {
    columns: Vec<Column>,
    rows: usize,
}

impl Table {
    /// The columns, in the header's order.
    #[must_use]
    pub fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// How many rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The column of that name (exact, or else the only one that differs in case).
    ///
    /// # Errors
    /// Names the columns that are near.
    pub fn column(&self, name: &str) -> Result<&Column, Error> {
        if let Some(column) = self.columns.iter().find(|column| column.name == name) {
            return Ok(column);
        }
        let mut alike = self
            .columns
            .iter()
            .filter(|column| column.name.eq_ignore_ascii_case(name));
        match (alike.next(), alike.next()) {
            (Some(column), None) => Ok(column),
            _ => Err(Error::UnknownColumn {
                name: name.to_owned(),
                hint: muster_api::names::suggestion(name, self.names()),
                known: listed(self.names()),
            }),
        }
    }

    /// The column of that name, which must be numeric.
    ///
    /// # Errors
    /// As [`Self::column`], and when the column holds no numbers.
    pub fn numeric(&self, name: &str) -> Result<&Column, Error> {
        let column = self.column(name)?;
        if column.kind.is_numeric() {
            return Ok(column);
        }
        let numeric = self.columns.iter().filter(|column| column.kind.is_numeric());
        Err(Error::NotNumeric {
            name: column.name.clone(),
            kind: column.kind,
            known: listed(numeric.map(|column| column.name.as_str())),
        })
    }

    /// All numeric columns.
    pub fn numeric_columns(&self) -> impl Iterator<Item = &Column> {
        self.columns.iter().filter(|column| column.kind.is_numeric())
    }

    /// Size, names and types, as the answer shows them.
    #[must_use]
    pub fn describe(&self) -> Value {
        let columns: Vec<Value> = self
            .columns
            .iter()
            .map(|column| serde_json::json!({"name": column.name, "type": column.kind, "missing": column.missing()}))
            .collect();
        serde_json::json!({"rows": self.rows, "columns": columns})
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        self.columns.iter().map(|column| column.name.as_str())
    }
}

/// Rows as JSON objects, for answers.
#[must_use]
pub fn row_object<'a>(cells: impl IntoIterator<Item = (&'a str, Value)>) -> Value {
    Value::Object(
        cells
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect::<Map<_, _>>(),
    )
}

fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    const SHOWN: usize = 20;
    let mut names: Vec<&str> = names.take(SHOWN + 1).collect();
    if names.is_empty() {
        return "none".to_owned();
    }
    if names.len() > SHOWN {
        names.truncate(SHOWN);
        names.push("…");
    }
    names.join(", ")
}

/// Days since 1970-01-01 (with a fraction for the time of day) of a date as [`Kind::Date`] knows it.
#[must_use]
pub fn days(text: &str) -> Option<f64> {
    const SECONDS_PER_DAY: f64 = 86_400.0;
    if let Ok(time) = text.parse::<jiff::Timestamp>() {
        #[expect(
            clippy::cast_precision_loss,
            reason = "milliseconds since 1970 are far below 2^53"
        )]
        return Some(time.as_millisecond() as f64 / 1000.0 / SECONDS_PER_DAY);
    }
    let starts_like_a_date = text.len() >= 10 && text.as_bytes().get(4) == Some(&b'-');
    if !starts_like_a_date {
        return None;
    }
    let time = text.parse::<civil::DateTime>().ok()?;
    let time = jiff::tz::TimeZone::UTC.to_timestamp(time).ok()?;
    #[expect(
        clippy::cast_precision_loss,
        reason = "milliseconds since 1970 are far below 2^53"
    )]
    Some(time.as_millisecond() as f64 / 1000.0 / SECONDS_PER_DAY)
}

/// Why there is no table, or no such column.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum Error {
    /// Too much input.
    #[error("the table has {actual} {what}, and at most {limit} are accepted; send less, or aggregate first")]
    TooLarge {
        /// Bytes, rows, columns or cells.
        what: &'static str,
        /// How many there are.
        actual: usize,
        /// How many there may be.
        limit: usize,
    },
    /// The text is not CSV.
    #[error("line {line} of the CSV: {what}")]
    Csv {
        /// Counted from 1.
        line: u64,
        /// What is wrong with it.
        what: String,
    },
    /// A JSON row is not a flat object.
    #[error("row {row}: {what}")]
    Row {
        /// Counted from 1.
        row: usize,
        /// What is wrong with it.
        what: String,
    },
    /// A header cell is empty, too long or there twice.
    #[error("the header: {0}")]
    Header(String),
    /// There is no row or no column.
    #[error("the table is empty; it needs a header and at least one row")]
    Empty,
    /// No such column.
    #[error("there is no column '{name}'{hint} (columns: {known})")]
    UnknownColumn {
        /// As asked for.
        name: String,
        /// The nearest names.
        hint: String,
        /// What there is.
        known: String,
    },
    /// The column holds no numbers.
    #[error("column '{name}' holds {kind:?} values, and numbers are needed (numeric columns: {known})")]
    NotNumeric {
        /// As asked for.
        name: String,
        /// What it holds.
        kind: Kind,
        /// What there is.
        known: String,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_become_days() {
        assert_eq!(days("1970-01-02"), Some(1.0));
        assert_eq!(days("1970-01-01T12:00:00Z"), Some(0.5));
        assert_eq!(days("1970-01-01T12:00:00"), Some(0.5));
        for not_a_date in ["20140301", "2014", "14:00", "tomorrow", "2014-13-01", ""] {
            assert_eq!(days(not_a_date), None, "{not_a_date}");
        }
    }

    #[test]
    fn columns_are_found_by_name_and_near_names_are_offered() {
        let table = from_csv(b"City,temperature\nOslo,3\n").unwrap();
        assert_eq!(table.column("city").unwrap().name, "City");
        let error = table.column("temprature").unwrap_err().to_string();
        assert!(error.contains("did you mean 'temperature'"), "{error}");
        let error = table.numeric("City").unwrap_err().to_string();
        assert!(error.contains("numeric columns: temperature"), "{error}");
    }
}
