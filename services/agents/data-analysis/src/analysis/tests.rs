use super::*;
use crate::operation::parse;

const WEATHER: &[u8] = b"date,city,rain,temp\n2014-03-01,Seattle,2,8\n2014-03-02,Seattle,4,10\n\
    2014-03-01,New York,0,-2\n2014-03-02,New York,,1\n2014-03-03,New York,60,2\n";

fn report(operations: Value) -> Result<Report, Error> {
    let table = table::from_csv(WEATHER).unwrap();
    run(&table, &parse(None, Some(operations)).unwrap(), &|| {
        Box::new(|| false)
    })
}

#[test]
fn each_operation_answers_in_its_place() {
    let report = report(json!([
        "summary",
        {"type": "group_by", "by": ["city"], "aggregates": [{"function": "mean", "column": "temp", "as": "mean"}]},
        "correlation",
        "outliers",
        {"type": "sql", "name": "wet", "query": "SELECT count(*) AS days FROM data WHERE rain > 1"},
        {"type": "chart", "kind": "line", "x": "date", "y": "temp", "series": "city"},
        {"type": "chart", "kind": "bar", "x": "city", "y": "mean",
         "query": "SELECT city, avg(temp) AS mean FROM data GROUP BY city"},
    ]))
    .unwrap();
    let results = report.data["results"].as_array().unwrap();
    let names: Vec<&str> = results
        .iter()
        .map(|result| result["operation"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        [
            "summary",
            "group_by",
            "correlation",
            "outliers",
            "sql",
            "chart",
            "chart"
        ]
    );
    assert_eq!(report.data["table"]["rows"], 5);
    assert_eq!(results[0]["columns"][3]["mean"], 3.8);
    assert_eq!(results[0]["columns"][2]["missing"], 1);
    assert_eq!(
        results[0]["columns"][1]["most_common"][0],
        json!({"value": "New York", "count": 3})
    );
    assert_eq!(results[1]["rows"][0], json!({"city": "Seattle", "mean": 9.0}));
    assert_eq!(results[2]["matrix"][0][0], 1.0);
    assert_eq!(results[2]["pairs"][0]["rows"], 4);
    assert_eq!(
        results[3]["columns"][0]["outliers"][0],
        json!({"row": 5, "value": 60.0})
    );
    assert_eq!(
        (&results[4]["name"], &results[4]["rows"][0]["days"]),
        (&json!("wet"), &json!(3))
    );
    assert_eq!(results[5]["series"], json!(["Seattle", "New York"]));
    let files: Vec<&str> = report.charts.iter().map(|chart| chart.file.as_str()).collect();
    assert_eq!(files, ["chart.svg", "chart-2.svg"]);
    assert_eq!(report.summary.lines().count(), 8);
}

#[test]
fn mistakes_name_the_operation_and_the_field() {
    let refused = |operation: Value| report(json!(["summary", operation])).unwrap_err();
    let error = refused(json!({"type": "summary", "columns": ["tmp"]}));
    assert_eq!(error.field, "operations[1].columns");
    assert!(error.message.contains("did you mean 'temp'"), "{error}");
    assert_eq!(
        refused(json!({"type": "sql", "query": "DROP TABLE data"})).field,
        "operations[1].query"
    );
    assert_eq!(
        refused(json!({"type": "outliers", "threshold": -1})).field,
        "operations[1].threshold"
    );
    assert_eq!(
        refused(json!({"type": "correlation", "columns": ["city"]})).field,
        "operations[1].columns"
    );
    assert_eq!(
        refused(json!({"type": "chart", "kind": "line", "x": "date"})).field,
        "operations[1]"
    );
    let statement = "SELECT * FROM data WHERE 0";
    let empty = refused(json!({"type": "chart", "kind": "bar", "x": "a", "y": "b", "query": statement}));
    assert!(empty.message.contains("empty"), "{empty}");
}
