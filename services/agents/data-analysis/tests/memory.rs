//! Statements that want more memory than there is. SQLite's heap is that of the process, so they have one of their own, and one
//! after the other.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use muster_agent_data_analysis::sql::{Error, query};
use muster_agent_data_analysis::table::from_csv;

/// Ends the statement after so many questions.
fn refused(statement: &str, questions: usize) -> Error {
    let mut left = questions;
    let interrupt = Box::new(move || {
        left = left.saturating_sub(1);
        left == 0
    });
    let table = from_csv(b"city,rain\nSeattle,2.5\nOslo,1\n").unwrap();
    query(&table, statement, 1_000, interrupt).unwrap_err()
}

#[test]
fn a_statement_cannot_take_all_memory() {
    let doubling =
        "WITH RECURSIVE n(s) AS (SELECT 'xxxxxxxx' UNION ALL SELECT s || s FROM n) SELECT max(s) FROM n";
    assert_eq!(refused(doubling, 5_000), Error::Memory);

    let wide = "WITH RECURSIVE s(x) AS (SELECT 'xxxxxxxx' UNION ALL SELECT x || x FROM s LIMIT 16) \
                SELECT a.x, b.x FROM s a, s b ORDER BY length(a.x) + length(b.x) DESC";
    assert_eq!(refused(wide, 5_000), Error::ResultTooLarge);

    // 100,000 strings of half a megabyte would be 50 GB.
    let hoard = "WITH RECURSIVE s(x) AS (SELECT 'xxxxxxxx' UNION ALL SELECT x || x FROM s LIMIT 17), \
                 n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 100000) \
                 SELECT x || i FROM n, (SELECT x FROM s ORDER BY length(x) DESC LIMIT 1) ORDER BY 1 DESC";
    assert_eq!(refused(hoard, usize::MAX), Error::Memory);
}
