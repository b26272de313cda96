use super::*;
use crate::table::from_csv;
use proptest::prelude::*;
use serde_json::json;

fn weather() -> Table {
    from_csv(
        b"city,\"rain \"\"mm\"\"\",day\nSeattle,2.5,2014-03-01\nOslo,,2014-03-02\nSeattle,1.5,2014-03-03\n",
    )
    .unwrap()
}

/// An interrupt after so many questions, so that tests need no clock.
fn after(checks: usize) -> Interrupt {
    let mut left = checks;
    Box::new(move || {
        left = left.saturating_sub(1);
        left == 0
    })
}

fn ask(statement: &str) -> Result<Output, Error> {
    query(&weather(), statement, 10, after(5_000))
}

#[test]
fn selects_answer() {
    let output =
        ask("SELECT city, sum(\"rain \"\"mm\"\"\") AS rain FROM data GROUP BY city ORDER BY city").unwrap();
    assert_eq!(output.columns, ["city", "rain"]);
    assert_eq!(
        output.rows,
        [
            json!({"city": "Oslo", "rain": null}),
            json!({"city": "Seattle", "rain": 4.0})
        ]
    );
    let output =
        ask("WITH wet AS (SELECT * FROM data WHERE city LIKE 'Sea%') SELECT count(*) FROM wet;").unwrap();
    assert_eq!(output.rows, [json!({"count(*)": 2})]);
    let output = ask("SELECT city, city, rank() OVER (ORDER BY day) AS city FROM data LIMIT 1").unwrap();
    assert_eq!(
        output.rows,
        [json!({"city": "Seattle", "city_2": "Seattle", "city_3": 1})]
    );
    assert_eq!(ask("SELECT 9e999 AS huge").unwrap().rows, [json!({"huge": null})]);
}

#[test]
fn rows_beyond_the_limit_are_cut_and_said_to_be() {
    let numbers =
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 50) SELECT i FROM n";
    let output = ask(numbers).unwrap();
    assert_eq!((output.rows.len(), output.truncated), (10, true));
}

#[test]
fn everything_but_reading_the_table_is_refused() {
    for (statement, what) in [
        ("ATTACH DATABASE '/tmp/x.db' AS x", "ATTACH"),
        ("PRAGMA journal_mode = DELETE", "PRAGMA"),
        ("SELECT * FROM pragma_database_list", "pragma_database_list"),
        ("SELECT sql FROM sqlite_master", "sqlite_master"),
        ("SELECT load_extension('x')", "load_extension"),
        ("SELECT randomblob(1000000000)", "randomblob"),
        ("SELECT printf('%.*c', 100000000, 'x')", "printf"),
        ("SELECT writefile('x', 'y')", "no such function"),
        ("DELETE FROM data", "changing rows"),
        ("INSERT INTO data VALUES (1, 2, 3)", "changing rows"),
        ("UPDATE data SET city = 'x'", "changing rows"),
        ("DROP TABLE data", "not allowed"),
        ("CREATE TABLE t (x)", "not allowed"),
        ("CREATE TEMP VIEW v AS SELECT 1", "not allowed"),
        ("VACUUM INTO '/tmp/x.db'", "exactly one"),
        ("SELECT count(*) FROM sqlite_master", "sqlite_master"),
        ("SELECT count(*) FROM dbstat", "dbstat"),
        ("SELECT value FROM json_each('[1]')", "json_each"),
        ("BEGIN", "not allowed"),
        ("SELECT 1; SELECT 2", "exactly one"),
        ("", "exactly one"),
        ("EXPLAIN SELECT 1", "exactly one"),
        ("SELECT x'00' AS b", "hex()"),
    ] {
        let error = ask(statement).unwrap_err().to_string();
        assert!(error.contains(what), "{statement}: {error}");
    }
}

#[test]
fn mistakes_name_the_columns() {
    let error = ask("SELECT rain FROM data").unwrap_err().to_string();
    assert!(
        error.contains("no such column: rain") && error.contains("city"),
        "{error}"
    );
    let error = ask("SELECT FROM").unwrap_err().to_string();
    assert!(error.contains("syntax error"), "{error}");
}

#[test]
fn endless_and_huge_statements_are_stopped() {
    let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";
    assert_eq!(ask(endless).unwrap_err(), Error::Interrupted);
    let cross = "SELECT count(*) FROM data a, data b, data c, data d, data e, data f, data g, data h, data i, \
                 data j, data k, data l, data m, data n, data o, data p";
    assert_eq!(ask(cross).unwrap_err(), Error::Interrupted);
}

#[test]
fn too_long_statements_are_refused() {
    let long = format!("SELECT '{}'", "x".repeat(MAX_STATEMENT_BYTES));
    assert!(matches!(ask(&long), Err(Error::TooLong(_))));
}

proptest! {
    #[test]
    fn no_statement_panics_or_writes(statement in "(SELECT|WITH|PRAGMA|x|\\*|FROM|data|\\(|\\)|,|'|\"|;| |1|city){0,20}") {
        let _ = query(&weather(), &statement, 10, after(50));
    }
}
