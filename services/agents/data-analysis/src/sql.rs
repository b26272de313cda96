//! One read-only SQL statement over a caller's table, which is called `data`, in an SQLite of its own in memory.
//!
//! The statement is a stranger's, so it runs in a cage:
//! * An **authorizer** allows `SELECT` (recursive CTEs too), reading `data`, and the functions of [`FUNCTIONS`].
//!   Everything else is refused while the statement is compiled: writes, `ATTACH`, `PRAGMA`, the schema tables,
//!   table-valued functions, and functions that load code or make large values out of nothing.
//! * **Time** is the caller's: `interrupted` is asked every [`STEPS_BETWEEN_CHECKS`] instructions of SQLite's machine.
//! * **Memory**: no value or row above [`MAX_VALUE_BYTES`], no temporary files, and [`HEAP_BYTES`] for all statements
//!   of the process together, which SQLite enforces itself.
//! * **Results**: at most `max_rows` rows (cut, and said so) and [`MAX_RESULT_BYTES`] (refused).
//!
//! Rejected: DataFusion (a cold build of many minutes); parsing the statement ourselves to judge it, where a parser
//! that differs from SQLite's in one corner is a hole.

use std::sync::{Arc, Mutex, PoisonError};

use rusqlite::config::DbConfig;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::limits::Limit;
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{Connection, ErrorCode, Row, ToSql};
use serde_json::Value;

use crate::table::{Cell, Kind, Table};

/// The name of the table in statements.
pub const TABLE: &str = "data";
/// Longest statement, in bytes.
pub const MAX_STATEMENT_BYTES: usize = 16 * 1024;
/// Largest string and largest row, in bytes.
pub const MAX_VALUE_BYTES: i32 = 1024 * 1024;
/// Largest result, in bytes of JSON text, about.
pub const MAX_RESULT_BYTES: usize = 2 * 1024 * 1024;
/// Rows of a result that is shown; the rest is cut.
pub const MAX_RESULT_ROWS: usize = 1_000;
/// SQLite's heap, for all statements of the process.
const HEAP_BYTES: i64 = 192 * 1024 * 1024;
/// How often a running statement asks whether it may go on.
const STEPS_BETWEEN_CHECKS: i32 = 1_000;
/// Most columns of a result.
const MAX_RESULT_COLUMNS: i32 = 250;

/// The functions that a statement may call.
pub const FUNCTIONS: &str = "\
    abs avg coalesce concat concat_ws count cume_dist date datetime dense_rank first_value glob \
    group_concat hex ifnull iif instr julianday lag last_value lead length like lower ltrim max min \
    nth_value ntile nullif percent_rank rank replace round row_number rtrim sign strftime string_agg \
    substr substring sum time total trim typeof unixepoch upper";

/// Asked while the statement runs; `true` ends it.
pub type Interrupt = Box<dyn FnMut() -> bool + Send>;

/// What a statement found.
#[derive(Debug, Clone, PartialEq)]
pub struct Output {
    /// Names of the columns, made unique.
    pub columns: Vec<String>,
    /// One JSON object per row.
    pub rows: Vec<Value>,
    /// Whether there were more rows.
    pub truncated: bool,
}

/// Why there is no result.
#[derive(Debug, thiserror::Error, PartialEq)]
pub enum Error {
    /// The statement wants more than reading.
    #[error("{0} is not allowed: a statement may only SELECT from the table `{TABLE}`")]
    Refused(String),
    /// SQLite does not understand it.
    #[error("{0} (the table is called `{TABLE}`; its columns: {1})")]
    Invalid(String, String),
    /// Two statements, or none.
    #[error("exactly one SELECT statement is expected")]
    NotOne,
    /// Too long.
    #[error("the statement has {0} bytes, and at most {MAX_STATEMENT_BYTES} are accepted")]
    TooLong(usize),
    /// Ran longer than it may.
    #[error("the statement was stopped: it ran longer than it may; select fewer rows or join less")]
    Interrupted,
    /// Needs more memory than it may.
    #[error("the statement needs more memory than it may use; select fewer rows or shorter values")]
    Memory,
    /// The result is too large.
    #[error("the result is larger than {MAX_RESULT_BYTES} bytes; select fewer columns, or aggregate")]
    ResultTooLarge,
    /// Bytes that are not text.
    #[error("column '{0}' of the result holds bytes, not text; wrap it in hex()")]
    Bytes(String),
}

/// Runs `statement` over `table`.
///
/// # Errors
/// When the statement is not one `SELECT`, reads something else than the table, or hits a limit.
pub fn query(
    table: &Table,
    statement: &str,
    max_rows: usize,
    interrupted: Interrupt,
) -> Result<Output, Error> {
    if statement.len() > MAX_STATEMENT_BYTES {
        return Err(Error::TooLong(statement.len()));
    }
    let translate = |error: &rusqlite::Error| translate(error, table);
    let mut connection = load(table).map_err(|error| translate(&error))?;
    let refused = cage(&mut connection, interrupted).map_err(|error| translate(&error))?;
    let result = run(&connection, statement, max_rows, translate);
    let refused = refused.lock().unwrap_or_else(PoisonError::into_inner).take();
    match (result, refused) {
        (Err(_), Some(what)) => Err(Error::Refused(what)),
        (result, _) => result,
    }
}

fn load(table: &Table) -> rusqlite::Result<Connection> {
    let mut connection = Connection::open_in_memory()?;
    for pragma in [
        format!("PRAGMA hard_heap_limit = {HEAP_BYTES}"),
        "PRAGMA temp_store = MEMORY".to_owned(),
    ] {
        connection.prepare(&pragma)?.query([])?.next()?;
    }
    let columns: Vec<String> = table
        .columns()
        .iter()
        .map(|column| format!("{} {}", quoted(&column.name), sql_type(column.kind)))
        .collect();
    connection.execute_batch(&format!("CREATE TABLE {TABLE} ({})", columns.join(", ")))?;
    let transaction = connection.transaction()?;
    {
        let places = vec!["?"; columns.len()].join(", ");
        let mut insert = transaction.prepare(&format!("INSERT INTO {TABLE} VALUES ({places})"))?;
        for row in 0..table.rows() {
            let cells = table
                .columns()
                .iter()
                .map(|column| column.cells.get(row).unwrap_or(&Cell::Missing));
            insert.execute(rusqlite::params_from_iter(cells))?;
        }
    }
    transaction.commit()?;
    Ok(connection)
}

/// Locks the connection down; the answer holds what the authorizer refused first.
fn cage(connection: &mut Connection, interrupted: Interrupt) -> rusqlite::Result<Arc<Mutex<Option<String>>>> {
    connection.prepare("PRAGMA query_only = ON")?.query([])?.next()?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DQS_DML, false)?; // a misspelt "column" is an error, not text
    for (limit, value) in [
        (Limit::SQLITE_LIMIT_LENGTH, MAX_VALUE_BYTES),
        (Limit::SQLITE_LIMIT_SQL_LENGTH, 2 * 16 * 1024),
        (Limit::SQLITE_LIMIT_COLUMN, MAX_RESULT_COLUMNS),
        (Limit::SQLITE_LIMIT_EXPR_DEPTH, 100),
        (Limit::SQLITE_LIMIT_COMPOUND_SELECT, 20),
        (Limit::SQLITE_LIMIT_VDBE_OP, 100_000),
        (Limit::SQLITE_LIMIT_ATTACHED, 0),
        (Limit::SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 256),
        (Limit::SQLITE_LIMIT_VARIABLE_NUMBER, 0),
        (Limit::SQLITE_LIMIT_TRIGGER_DEPTH, 0),
        (Limit::SQLITE_LIMIT_WORKER_THREADS, 0),
    ] {
        connection.set_limit(limit, value)?;
    }
    connection.progress_handler(STEPS_BETWEEN_CHECKS, Some(interrupted))?;
    let refused = Arc::new(Mutex::new(None));
    let seen = Arc::clone(&refused);
    connection.authorizer(Some(move |context: AuthContext<'_>| {
        match forbidden(&context.action) {
            None => Authorization::Allow,
            Some(what) => {
                seen.lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .get_or_insert(what);
                Authorization::Deny
            }
        }
    }))?;
    Ok(refused)
}

/// What is wrong with an action, if anything.
fn forbidden(action: &AuthAction<'_>) -> Option<String> {
    match action {
        AuthAction::Select | AuthAction::Recursive => None,
        AuthAction::Read { table_name, .. } if table_name.eq_ignore_ascii_case(TABLE) => None,
        // Reported for a table none of whose columns is used: `count(*)` of a CTE, whose name is the statement's own.
        AuthAction::Read {
            table_name,
            column_name: "",
        } if !is_internal(table_name) => None,
        AuthAction::Read { table_name, .. } => Some(format!("reading '{table_name}'")),
        AuthAction::Function { function_name } => {
            let known = FUNCTIONS
                .split(' ')
                .any(|name| name.eq_ignore_ascii_case(function_name));
            (!known).then(|| format!("the function '{function_name}'"))
        }
        AuthAction::Attach { .. } | AuthAction::Detach { .. } => Some("ATTACH or DETACH".to_owned()),
        AuthAction::Pragma { pragma_name, .. } => Some(format!("PRAGMA {pragma_name}")),
        AuthAction::Insert { .. } | AuthAction::Update { .. } | AuthAction::Delete { .. } => {
            Some("changing rows".to_owned())
        }
        AuthAction::Transaction { .. } | AuthAction::Savepoint { .. } => Some("a transaction".to_owned()),
        _ => Some("changing the schema".to_owned()),
    }
}

/// Whether SQLite itself made the table, to tell about the database or the process.
fn is_internal(table: &str) -> bool {
    let table = table.to_ascii_lowercase();
    ["sqlite_", "pragma_", "dbstat", "fts", "rtree", "json_"]
        .iter()
        .any(|prefix| table.starts_with(prefix))
}

fn run(
    connection: &Connection,
    statement: &str,
    max_rows: usize,
    translate: impl Fn(&rusqlite::Error) -> Error,
) -> Result<Output, Error> {
    let mut prepared = connection.prepare(statement).map_err(|error| translate(&error))?;
    if !prepared.readonly() || prepared.column_count() == 0 || prepared.is_explain() != 0 {
        return Err(Error::NotOne);
    }
    let columns = unique(prepared.column_names());
    let mut output = Output {
        columns,
        rows: Vec::new(),
        truncated: false,
    };
    let mut bytes = 0;
    let mut rows = prepared.query([]).map_err(|error| translate(&error))?;
    while let Some(row) = rows.next().map_err(|error| translate(&error))? {
        if output.rows.len() == max_rows {
            output.truncated = true;
            break;
        }
        let object = object(row, &output.columns, &mut bytes).map_err(|error| match error {
            Unreadable::Known(error) => error,
            Unreadable::Sqlite(error) => translate(&error),
        })?;
        output.rows.push(object);
    }
    Ok(output)
}

enum Unreadable {
    Known(Error),
    Sqlite(rusqlite::Error),
}

fn object(row: &Row<'_>, columns: &[String], bytes: &mut usize) -> Result<Value, Unreadable> {
    let mut object = serde_json::Map::new();
    for (index, name) in columns.iter().enumerate() {
        let value = match row.get_ref(index).map_err(Unreadable::Sqlite)? {
            ValueRef::Null => Value::Null,
            ValueRef::Integer(value) => Value::from(value),
            ValueRef::Real(value) => Value::from(value), // an infinite one becomes null
            ValueRef::Text(text) => Value::from(String::from_utf8_lossy(text)),
            ValueRef::Blob(_) => return Err(Unreadable::Known(Error::Bytes(name.clone()))),
        };
        const SHORT_VALUE_BYTES: usize = 16;
        *bytes += name.len() + value.as_str().map_or(SHORT_VALUE_BYTES, str::len);
        if *bytes > MAX_RESULT_BYTES {
            return Err(Unreadable::Known(Error::ResultTooLarge));
        }
        object.insert(name.clone(), value);
    }
    Ok(Value::Object(object))
}

/// Names that can be keys of one object: a second `a` becomes `a_2`.
fn unique<'a>(names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut taken: Vec<String> = Vec::new();
    for name in names {
        let mut unique = name.to_owned();
        let mut count = 1;
        while taken.contains(&unique) {
            count += 1;
            unique = format!("{name}_{count}");
        }
        taken.push(unique);
    }
    taken
}

fn translate(error: &rusqlite::Error, table: &Table) -> Error {
    let columns = || {
        table
            .columns()
            .iter()
            .take(30)
            .map(|column| column.name.as_str())
            .collect::<Vec<_>>()
            .join(", ")
    };
    match error {
        rusqlite::Error::MultipleStatement | rusqlite::Error::Empty => Error::NotOne,
        rusqlite::Error::SqlInputError { error, msg, .. }
            if error.code != ErrorCode::AuthorizationForStatementDenied =>
        {
            Error::Invalid(msg.clone(), columns())
        }
        other => match other.sqlite_error_code() {
            Some(ErrorCode::OperationInterrupted) => Error::Interrupted,
            Some(ErrorCode::OutOfMemory | ErrorCode::TooBig) => Error::Memory,
            Some(ErrorCode::AuthorizationForStatementDenied) => Error::Refused("this".to_owned()),
            _ => Error::Invalid(other.to_string(), columns()),
        },
    }
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn sql_type(kind: Kind) -> &'static str {
    match kind {
        Kind::Integer | Kind::Boolean => "INTEGER",
        Kind::Number => "REAL",
        Kind::Date | Kind::Text => "TEXT",
    }
}

impl ToSql for Cell {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self {
            Self::Missing => ToSqlOutput::Borrowed(ValueRef::Null),
            Self::Integer(value) => ToSqlOutput::from(*value),
            Self::Number(value) => ToSqlOutput::from(*value),
            Self::Boolean(value) => ToSqlOutput::from(*value),
            Self::Text(value) => ToSqlOutput::Borrowed(ValueRef::Text(value.as_bytes())),
        })
    }
}

#[cfg(test)]
mod tests;
