//! The benchmarks run and say what they have measured; how much that is, is no matter here.

use muster_tests::muster;

#[tokio::test]
async fn the_bench_of_workflows_measures_every_kind_of_step() {
    let arguments = [
        "bench",
        "workflow",
        "-o",
        "json",
        "--clients",
        "2",
        "--steps",
        "20",
        "--parked",
        "3",
        "--definitions",
        "2",
        "--seconds",
        "1",
        "--warm-up",
        "0",
    ];
    let result = muster(&[], &arguments).await.success().json();
    let rows = result["rows"].as_array().expect("rows");
    let kinds: Vec<_> = rows
        .iter()
        .map(|row| row["step"].as_str().expect("a kind"))
        .collect();
    assert_eq!(kinds, ["agent", "noop", "set"]);
    for row in rows {
        for figure in [
            &row["stepsPerSecond"],
            &row["runMillis"]["p99"],
            &row["engineMemory"]["loaded"]["residentBytes"],
        ] {
            assert!(figure.as_f64().is_some_and(|figure| figure > 0.0), "{row}");
        }
        let calls = row["step"] != "set";
        assert_eq!(row["stepMillis"].is_object(), calls, "{row}");
    }
    assert!(result["diskMillis"]["p50"].is_number(), "{result}");
    assert!(result["callMillis"]["p50"].is_number(), "{result}");
}

#[tokio::test]
async fn what_cannot_be_measured_is_refused() {
    for (arguments, told) in [
        (["--steps", "11"], "multiple of 10"),
        (["--steps", "10000"], "fewer than 10000 steps of `set`"),
        (["--clients", "0"], "0 is not in 1..=1000"),
        (["--kind", "nothing"], "possible values"),
        (["--data-dir", "/nowhere"], "/nowhere"),
    ] {
        let refused = muster(&[], &[&["bench", "workflow"], &arguments[..]].concat()).await;
        assert_eq!(refused.code, 2, "{refused:?}");
        assert!(refused.stderr.contains(told), "{refused:?}");
    }
}
