use super::*;
use crate::table::from_csv;
use proptest::prelude::*;
use serde_json::{Value, json};

fn request(value: Value) -> Request {
    serde_json::from_value(value).unwrap()
}

fn drawn(csv: &str, value: Value) -> Result<String, Error> {
    svg(&plan(&from_csv(csv.as_bytes()).unwrap(), &request(value))?)
}

const WEATHER: &str = "day,city,rain,wind\n2014-03-02,Seattle,2,3\n2014-03-01,Seattle,1,4\n2014-03-01,Oslo,5,1\n2014-03-02,Oslo,,2\n";

#[test]
fn a_series_column_splits_lines_and_dates_are_in_order() {
    let table = from_csv(WEATHER.as_bytes()).unwrap();
    let plan = plan(
        &table,
        &request(json!({"kind": "line", "x": "day", "y": "rain", "series": "city"})),
    )
    .unwrap();
    assert_eq!(plan.axis, Axis::Dates);
    assert_eq!(plan.title, "rain by day and city");
    let names: Vec<&str> = plan.series.iter().map(|series| series.name.as_str()).collect();
    assert_eq!(names, ["Seattle", "Oslo"]);
    assert_eq!(plan.series[0].points, [(16_130.0, 1.0), (16_131.0, 2.0)]);
    assert_eq!((plan.points(), plan.skipped), (3, 1));
}

#[test]
fn a_histogram_counts_every_value_once() {
    let table = from_csv(b"x\n1\n2\n2\n3\n10\n").unwrap();
    let plan = plan(
        &table,
        &request(json!({"kind": "histogram", "x": "x", "bins": 3})),
    )
    .unwrap();
    assert_eq!(plan.series[0].points, [(2.5, 4.0), (5.5, 0.0), (8.5, 1.0)]);
    assert!((plan.bar_width - 3.0).abs() < 1e-9);
}

#[test]
fn every_kind_is_drawn() {
    for value in [
        json!({"kind": "line", "x": "day", "y": ["rain", "wind"]}),
        json!({"kind": "scatter", "x": "wind", "y": "rain"}),
        json!({"kind": "histogram", "x": "wind"}),
        json!({"kind": "bar", "x": "city", "y": "rain", "series": "day", "width": 200, "height": 150}),
    ] {
        let svg = drawn(WEATHER, value.clone()).unwrap();
        assert!(
            svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"),
            "{value}"
        );
    }
}

#[test]
fn text_is_escaped_and_shortened() {
    let csv = "name,n\n<script>alert(1)</script>,1\n\"a & \"\"b\"\"\",2\n";
    let title = format!("<b>{}\u{0}", "x".repeat(500));
    let svg = drawn(csv, json!({"kind": "bar", "x": "name", "y": "n", "title": title})).unwrap();
    assert!(
        !svg.contains("<script>") && !svg.contains("<b>") && !svg.contains('\u{0}'),
        "{svg}"
    );
    assert!(svg.contains("&lt;script&gt;") && svg.contains("a &amp;"));
    assert!(!svg.contains(&"x".repeat(MAX_TITLE)));
}

#[test]
fn what_cannot_be_drawn_is_refused_with_a_remedy() {
    let refused = |csv: &str, value: Value| drawn(csv, value).unwrap_err().to_string();
    let bars = "city,rain\nOslo,1\nOslo,2\n";
    assert!(refused(bars, json!({"kind": "bar", "x": "city", "y": "rain"})).contains("aggregate first"));
    assert!(refused(bars, json!({"kind": "line", "x": "city"})).contains("'y' is missing"));
    assert!(refused(bars, json!({"kind": "line", "x": "city", "y": "city"})).contains("numbers are needed"));
    assert!(refused(bars, json!({"kind": "line", "x": "town", "y": "rain"})).contains("no column 'town'"));
    assert!(
        refused(
            bars,
            json!({"kind": "bar", "x": "city", "y": "rain", "width": 9000})
        )
        .contains("'width'")
    );
    assert!(refused(bars, json!({"kind": "histogram", "x": "rain", "bins": 0})).contains("'bins'"));
    assert!(
        refused("x,y\n1,\n,2\n", json!({"kind": "line", "x": "x", "y": "y"})).contains("nothing to draw")
    );
    assert!(refused("x,y\n1,1e20\n", json!({"kind": "line", "x": "x", "y": "y"})).contains("1e15"));
    let many: String = (0..=MAX_BARS).map(|bar| format!("b{bar},1\n")).collect();
    assert!(
        refused(
            &format!("x,y\n{many}"),
            json!({"kind": "bar", "x": "x", "y": "y"})
        )
        .contains("bars")
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn no_numbers_break_a_chart(
        points in proptest::collection::vec((-1e15..1e15f64, prop_oneof![-1e-9..1e-9f64, -1e15..1e15f64, Just(7.0)]), 1..20),
        kind in prop_oneof![Just("line"), Just("scatter"), Just("histogram"), Just("bar")],
    ) {
        let rows: String = points.iter().map(|(x, y)| format!("{x},{y}\n")).collect();
        let value = if kind == "histogram" { json!({"kind": kind, "x": "y"}) } else { json!({"kind": kind, "x": "x", "y": "y"}) };
        match drawn(&format!("x,y\n{rows}"), value) {
            Ok(svg) => prop_assert!(svg.len() < 1_000_000),
            Err(Error::Repeated(_)) => {}
            Err(error) => prop_assert!(false, "{}", error),
        }
    }
}
