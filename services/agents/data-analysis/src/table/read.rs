//! From CSV and JSON to a [`Table`].

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::{
    Cell, Column, Error, Kind, MAX_BYTES, MAX_CELL_BYTES, MAX_CELLS, MAX_COLUMNS, MAX_NAME_BYTES, MAX_ROWS,
    Table, days,
};

/// Reads CSV (RFC 4180) with a header. The delimiter is the one of `,` `;` tab and `|` that the header has most of.
///
/// # Errors
/// When the text is not CSV, or beyond the bounds of the module.
pub fn from_csv(bytes: &[u8]) -> Result<Table, Error> {
    bounded("bytes", bytes.len(), MAX_BYTES)?;
    let text = std::str::from_utf8(bytes).map_err(|error| Error::Csv {
        line: count_lines(bytes.get(..error.valid_up_to()).unwrap_or_default()),
        what: "is not UTF-8; save the file as UTF-8".to_owned(),
    })?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(delimiter(text))
        .trim(csv::Trim::All)
        .from_reader(text.as_bytes());
    let names = names(reader.headers().map_err(|error| csv_error(&error))?.iter())?;
    let mut cells: Vec<Vec<Cell>> = names.iter().map(|_| Vec::new()).collect();
    let mut rows = 0;
    for record in reader.records() {
        let record = record.map_err(|error| csv_error(&error))?;
        rows += 1;
        bounded("rows", rows, MAX_ROWS)?;
        bounded("cells", rows * names.len(), MAX_CELLS)?;
        for (column, text) in cells.iter_mut().zip(record.iter()) {
            check_length(text).map_err(|what| Error::Csv {
                line: record.position().map_or(0, csv::Position::line),
                what,
            })?;
            column.push(if is_missing(text) {
                Cell::Missing
            } else {
                Cell::Text(text.into())
            });
        }
    }
    assemble(names, cells, rows, Reading::Text)
}

/// Reads JSON rows: flat objects whose values are strings, numbers, booleans or null. A key that a row lacks is
/// missing there.
///
/// # Errors
/// When a row is not a flat object, or the table is beyond the bounds of the module.
pub fn from_rows(rows: &[Value]) -> Result<Table, Error> {
    bounded("rows", rows.len(), MAX_ROWS)?;
    let mut keys: Vec<&str> = Vec::new();
    let mut seen = HashSet::new();
    let mut objects: Vec<&Map<String, Value>> = Vec::with_capacity(rows.len());
    for (index, row) in rows.iter().enumerate() {
        let object = row.as_object().ok_or_else(|| Error::Row {
            row: index + 1,
            what: "is not an object; each row is {\"column\": value, …}".to_owned(),
        })?;
        keys.extend(object.keys().map(String::as_str).filter(|key| seen.insert(*key)));
        bounded("columns", keys.len(), MAX_COLUMNS)?;
        objects.push(object);
    }
    bounded("cells", rows.len() * keys.len(), MAX_CELLS)?;
    let names = names(keys.iter().copied())?;
    let cells = keys
        .iter()
        .map(|key| {
            let column = objects.iter().enumerate();
            column
                .map(|(index, row)| json_cell(index, key, row.get(*key)))
                .collect::<Result<Vec<_>, _>>()
        })
        .collect::<Result<Vec<_>, _>>()?;
    assemble(names, cells, rows.len(), Reading::Json)
}

fn json_cell(index: usize, key: &str, value: Option<&Value>) -> Result<Cell, Error> {
    let refused = |what: String| Error::Row { row: index + 1, what };
    match value {
        None | Some(Value::Null) => Ok(Cell::Missing),
        Some(Value::Bool(value)) => Ok(Cell::Boolean(*value)),
        Some(Value::Number(number)) => match (number.as_i64(), number.as_f64()) {
            (Some(value), _) => Ok(Cell::Integer(value)),
            (None, Some(value)) if value.is_finite() => Ok(Cell::Number(value)),
            _ => Err(refused(format!(
                "'{key}' is a number beyond the range of doubles"
            ))),
        },
        Some(Value::String(text)) => {
            check_length(text).map_err(refused)?;
            Ok(if is_missing(text) {
                Cell::Missing
            } else {
                Cell::Text(text.as_str().into())
            })
        }
        Some(Value::Array(_) | Value::Object(_)) => Err(refused(format!(
            "'{key}' is nested; a cell is a string, a number, a boolean or null"
        ))),
    }
}

/// Whether text may stand for numbers and booleans (CSV) or is text (JSON strings).
#[derive(Clone, Copy, PartialEq)]
enum Reading {
    Text,
    Json,
}

fn assemble(
    names: Vec<String>,
    cells: Vec<Vec<Cell>>,
    rows: usize,
    reading: Reading,
) -> Result<Table, Error> {
    if names.is_empty() || rows == 0 {
        return Err(Error::Empty);
    }
    let columns = names
        .into_iter()
        .zip(cells)
        .map(|(name, cells)| typed(name, cells, reading))
        .collect();
    Ok(Table { columns, rows })
}

fn typed(name: String, cells: Vec<Cell>, reading: Reading) -> Column {
    let kind = match reading {
        Reading::Text => kind_of_texts(&cells),
        Reading::Json => kind_of_values(&cells),
    };
    let cells = cells.into_iter().map(|cell| as_kind(cell, kind)).collect();
    Column { name, kind, cells }
}

fn kind_of_texts(cells: &[Cell]) -> Kind {
    let all = |fits: fn(&str) -> bool| {
        let mut texts = cells.iter().filter_map(|cell| match cell {
            Cell::Text(text) => Some(&**text),
            _ => None,
        });
        texts.all(fits)
    };
    if cells.iter().all(|cell| matches!(cell, Cell::Missing)) {
        return Kind::Text;
    }
    if all(|text| integer(text).is_some()) {
        Kind::Integer
    } else if all(|text| number(text).is_some()) {
        Kind::Number
    } else if all(|text| boolean(text).is_some()) {
        Kind::Boolean
    } else if all(|text| days(text).is_some()) {
        Kind::Date
    } else {
        Kind::Text
    }
}

fn kind_of_values(cells: &[Cell]) -> Kind {
    let mut present = cells
        .iter()
        .filter(|cell| !matches!(cell, Cell::Missing))
        .peekable();
    if present.peek().is_none() {
        return Kind::Text;
    }
    let present: Vec<&Cell> = present.collect();
    let all = |fits: fn(&Cell) -> bool| present.iter().all(|cell| fits(cell));
    if all(|cell| matches!(cell, Cell::Integer(_))) {
        Kind::Integer
    } else if all(|cell| matches!(cell, Cell::Integer(_) | Cell::Number(_))) {
        Kind::Number
    } else if all(|cell| matches!(cell, Cell::Boolean(_))) {
        Kind::Boolean
    } else if all(|cell| matches!(cell, Cell::Text(text) if days(text).is_some())) {
        Kind::Date
    } else {
        Kind::Text
    }
}

/// The cell in the type of its column; `kind` was chosen so that every cell fits.
fn as_kind(cell: Cell, kind: Kind) -> Cell {
    match (kind, cell) {
        (_, Cell::Missing) => Cell::Missing,
        (Kind::Integer, Cell::Text(text)) => integer(&text).map_or(Cell::Missing, Cell::Integer),
        (Kind::Number, Cell::Text(text)) => number(&text).map_or(Cell::Missing, Cell::Number),
        (Kind::Number, cell @ Cell::Integer(_)) => cell.number().map_or(Cell::Missing, Cell::Number),
        (Kind::Boolean, Cell::Text(text)) => boolean(&text).map_or(Cell::Missing, Cell::Boolean),
        (Kind::Text | Kind::Date, cell @ (Cell::Integer(_) | Cell::Number(_) | Cell::Boolean(_))) => {
            Cell::Text(cell.label().into())
        }
        (_, cell) => cell,
    }
}

fn integer(text: &str) -> Option<i64> {
    (!has_leading_zero(text)).then(|| text.parse().ok()).flatten()
}

fn number(text: &str) -> Option<f64> {
    if has_leading_zero(text) || !text.bytes().any(|byte| byte.is_ascii_digit()) {
        return None; // names such as `inf` parse as doubles, too
    }
    text.parse::<f64>().ok().filter(|value| value.is_finite())
}

/// `007` and `-01` are names; `0`, `0.5` and `-0.5` are numbers.
fn has_leading_zero(text: &str) -> bool {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text).as_bytes();
    matches!(digits, [b'0', next, ..] if next.is_ascii_digit())
}

fn boolean(text: &str) -> Option<bool> {
    match text {
        _ if text.eq_ignore_ascii_case("true") => Some(true),
        _ if text.eq_ignore_ascii_case("false") => Some(false),
        _ => None,
    }
}

fn is_missing(text: &str) -> bool {
    text.is_empty()
        || ["na", "n/a", "nan", "null", "none"]
            .iter()
            .any(|word| text.eq_ignore_ascii_case(word))
}

fn delimiter(text: &str) -> u8 {
    let header = text.lines().next().unwrap_or_default();
    let count = |delimiter: u8| {
        let mut quoted = false;
        header
            .bytes()
            .filter(|&byte| {
                quoted ^= byte == b'"';
                !quoted && byte == delimiter
            })
            .count()
    };
    // `max_by_key` returns the last of equals: the comma, which also stands when there is none of them.
    [b'|', b'\t', b';', b',']
        .into_iter()
        .max_by_key(|&delimiter| count(delimiter))
        .unwrap_or(b',')
}

fn names<'a>(header: impl Iterator<Item = &'a str>) -> Result<Vec<String>, Error> {
    let mut seen = HashSet::new();
    let mut names = Vec::new();
    for (index, name) in header.enumerate() {
        let name = name.trim();
        bounded("columns", index + 1, MAX_COLUMNS)?;
        if name.is_empty() {
            return Err(Error::Header(format!("column {} has no name", index + 1)));
        }
        if name.len() > MAX_NAME_BYTES {
            let what = format!(
                "the name of column {} is longer than {MAX_NAME_BYTES} bytes",
                index + 1
            );
            return Err(Error::Header(what));
        }
        if name.chars().any(char::is_control) {
            return Err(Error::Header(format!(
                "the name of column {} has a control character",
                index + 1
            )));
        }
        // SQL knows no case in names, so names that differ only by it would be ambiguous there.
        if !seen.insert(name.to_lowercase()) {
            return Err(Error::Header(format!(
                "the name '{name}' is there twice (case does not count)"
            )));
        }
        names.push(name.to_owned());
    }
    Ok(names)
}

fn check_length(text: &str) -> Result<(), String> {
    if text.len() > MAX_CELL_BYTES {
        return Err(format!(
            "a cell has {} bytes, and at most {MAX_CELL_BYTES} are accepted",
            text.len()
        ));
    }
    Ok(())
}

fn bounded(what: &'static str, actual: usize, limit: usize) -> Result<(), Error> {
    if actual > limit {
        Err(Error::TooLarge { what, actual, limit })
    } else {
        Ok(())
    }
}

fn csv_error(error: &csv::Error) -> Error {
    let line = error.position().map_or(1, csv::Position::line);
    let what = match error.kind() {
        csv::ErrorKind::UnequalLengths {
            expected_len, len, ..
        } => {
            format!(
                "has {len} fields, and the header has {expected_len}; quote fields that contain the delimiter"
            )
        }
        _ => error.to_string(),
    };
    Error::Csv { line, what }
}

fn count_lines(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|&&byte| byte == b'\n').count() as u64 + 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn kinds(csv: &str) -> Vec<Kind> {
        from_csv(csv.as_bytes())
            .unwrap()
            .columns()
            .iter()
            .map(|column| column.kind)
            .collect()
    }

    #[test]
    fn types_are_inferred_from_all_cells() {
        let csv =
            "i,n,b,d,t,zip,empty\n1,1.5,true,2014-03-01,x,007,\n-2,2,FALSE,2014-03-02T10:00:00Z,3,010,NA\n";
        use Kind::{Boolean, Date, Integer, Number, Text};
        assert_eq!(kinds(csv), [Integer, Number, Boolean, Date, Text, Text, Text]);
        assert_eq!(kinds("a,b\n1,inf\nx,2\n"), [Text, Text]);
    }

    #[test]
    fn missing_cells_do_not_change_the_type() {
        let table = from_csv(b"a,b\n1,NA\n,2.5\nnull,N/A\n").unwrap();
        assert_eq!(table.column("a").unwrap().kind, Kind::Integer);
        assert_eq!(table.column("a").unwrap().missing(), 2);
        assert_eq!(table.column("b").unwrap().numbers(), [2.5]);
    }

    #[test]
    fn delimiters_and_byte_order_marks_are_recognised() {
        for csv in [
            "a;b\n1;2\n",
            "a\tb\n1\t2\n",
            "\u{feff}a|b\n1|2\n",
            "\"a,x\";b\n1;2\n",
        ] {
            assert_eq!(from_csv(csv.as_bytes()).unwrap().columns().len(), 2, "{csv}");
        }
    }

    #[test]
    fn json_rows_keep_their_types_and_may_lack_keys() {
        let rows = [
            json!({"a": 1, "s": "1"}),
            json!({"a": 2.5, "d": "2014-03-01"}),
            json!({"a": null}),
        ];
        let table = from_rows(&rows).unwrap();
        assert_eq!(table.column("a").unwrap().kind, Kind::Number);
        assert_eq!(
            table.column("a").unwrap().cells,
            [Cell::Number(1.0), Cell::Number(2.5), Cell::Missing]
        );
        assert_eq!(table.column("s").unwrap().kind, Kind::Text);
        assert_eq!(table.column("d").unwrap().kind, Kind::Date);
        let mixed = from_rows(&[json!({"a": 1}), json!({"a": "x"})]).unwrap();
        assert_eq!(
            mixed.column("a").unwrap().cells,
            [Cell::Text("1".into()), Cell::Text("x".into())]
        );
    }

    #[test]
    fn bad_tables_are_refused_with_the_place() {
        let refused = |csv: &str| from_csv(csv.as_bytes()).unwrap_err().to_string();
        assert!(
            refused("a,b\n1,2\n3\n").contains("line 3"),
            "{}",
            refused("a,b\n1,2\n3\n")
        );
        assert!(refused("a,A\n1,2\n").contains("twice"));
        assert!(refused("a,\n1,2\n").contains("column 2 has no name"));
        assert!(refused("a,b\n").contains("empty"));
        assert!(refused("").contains("empty"));
        assert!(from_csv(b"a\n\xff\n").unwrap_err().to_string().contains("line 2"));
        assert!(
            from_rows(&[json!({"a": [1]})])
                .unwrap_err()
                .to_string()
                .contains("row 1: 'a' is nested")
        );
        assert!(
            from_rows(&[json!(3)])
                .unwrap_err()
                .to_string()
                .contains("not an object")
        );
        let long = format!("a\n{}\n", "x".repeat(MAX_CELL_BYTES + 1));
        assert!(refused(&long).contains("line 2"));
        let wide: Vec<String> = (0..=MAX_COLUMNS).map(|index| format!("c{index}")).collect();
        assert!(refused(&wide.join(",")).contains("columns"));
        let tall = format!("a\n{}", "1\n".repeat(MAX_ROWS + 1));
        assert!(refused(&tall).contains("rows"));
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "(?s).{0,200}") {
            let _ = from_csv(text.as_bytes());
        }

        #[test]
        fn numbers_survive_csv(values in proptest::collection::vec(-1e12..1e12f64, 1..50)) {
            let csv = format!("x\n{}\n", values.iter().map(f64::to_string).collect::<Vec<_>>().join("\n"));
            let table = from_csv(csv.as_bytes()).unwrap();
            prop_assert_eq!(table.column("x").unwrap().numbers(), values);
        }
    }
}
