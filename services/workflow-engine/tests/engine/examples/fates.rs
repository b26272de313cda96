//! What becomes of each document in `tests/examples/`.
//!
//! The table is there once and is read twice: by the tests of a real engine beside it, and by the simulation
//! (`src/simulation/examples.rs`), which kills the engine at every commit of each.

use serde_json::{Value, json};

/// What becomes of an example.
pub(crate) enum Fate {
    /// It completes, with this input and this output.
    Completes(Value, Value),
    /// It faults, with this input and an error of this type and status.
    Faults(Value, &'static str, i32),
    /// With this input it waits for events; with these, each a type and its data, it completes with this part of its output.
    Hears(Value, Vec<(&'static str, Value)>, &'static str, Value),
    /// It completes with an event of this type and with this data.
    Emits(&'static str, Value),
    /// An event of this type and with this data starts it, and it completes with this part of its output.
    Starts(&'static str, Value, &'static str, Value),
    /// It works on an event of this type and with this data, and listens on until it is cancelled.
    Listens(&'static str, Value),
    /// Its schedule, triggered by hand or due, starts a run that completes with this output.
    Triggers(Value),
    /// It is refused when it is read, with these words.
    Refused(&'static str),
}

use Fate::{Completes, Emits, Faults, Hears, Listens, Refused, Starts, Triggers};

/// What becomes of each example, in the order of their files.
pub(crate) fn fates() -> Vec<(&'static str, Fate)> {
    let private = || json!({"title": "Private"});
    let dune = || json!({"id": 1, "title": "Dune"});
    let found = || json!([{"id": 1, "title": "Dune"}]);
    let asked = || json!({"bookId": 1, "token": "t0ken"});
    let mild = || ("test.library.climate.temperature", json!({"celsius": 20}));
    let hot = || ("test.library.climate.temperature", json!({"celsius": 31}));
    let dry = || ("test.library.climate.humidity", json!({"percent": 10}));
    vec![
        (
            "accumulate-room-readings",
            Hears(
                Value::Null,
                vec![
                    (
                        "test.library.climate.temperature",
                        json!({"room": 4, "celsius": 20}),
                    ),
                    ("test.library.climate.humidity", json!({"room": 4, "percent": 40})),
                ],
                "",
                json!({"report": "made"}),
            ),
        ),
        ("authentication-bearer", Completes(asked(), private())),
        ("authentication-bearer-uri-format", Completes(asked(), private())),
        ("authentication-oauth2", Completes(asked(), private())),
        ("authentication-oauth2-secret", Completes(asked(), private())),
        ("authentication-oidc", Completes(asked(), private())),
        ("authentication-oidc-secret", Completes(asked(), private())),
        ("authentication-reusable", Completes(asked(), private())),
        (
            "call-asyncapi-publish",
            Completes(json!({"book": {"id": 1}, "token": "t0ken"}), Value::Null),
        ),
        ("call-asyncapi-subscribe-consume-amount", Refused("subscription")),
        (
            "call-asyncapi-subscribe-consume-forever-foreach",
            Refused("subscription"),
        ),
        ("call-asyncapi-subscribe-consume-until", Refused("subscription")),
        ("call-asyncapi-subscribe-consume-while", Refused("subscription")),
        (
            "call-custom-function-cataloged",
            Completes(Value::Null, json!({"logged": "A book came back"})),
        ),
        (
            "call-custom-function-inline",
            Completes(Value::Null, json!({"id": 7, "title": "Emma"})),
        ),
        (
            "call-grpc",
            Completes(json!({"room": {"name": "reading"}}), json!({"status": "SERVING"})),
        ),
        ("call-http-endpoint-interpolation", Completes(asked(), dune())),
        (
            "call-http-endpoint-interpolation-shorthand",
            Completes(asked(), dune()),
        ),
        (
            "call-http-query-headers-expressions",
            Completes(json!({"title": "Dune"}), found()),
        ),
        (
            "call-http-query-parameters",
            Completes(json!({"title": "Dune"}), found()),
        ),
        (
            "call-http-redirect",
            Completes(json!({"title": "Dune"}), json!({"moved": "/books"})),
        ),
        ("call-http-shorthand-endpoint", Completes(Value::Null, dune())),
        (
            "call-mcp",
            Completes(
                Value::Null,
                json!({"content": [{"type": "text", "text": "posted with t0ken"}], "isError": false}),
            ),
        ),
        ("call-openapi", Completes(Value::Null, found())),
        ("call-openapi-redirect", Completes(Value::Null, found())),
        (
            "conditional-task",
            Faults(
                json!({"reader": {"age": 9}}),
                "https://library.test/errors/too-young",
                400,
            ),
        ),
        (
            "do-multiple",
            Completes(asked(), json!({"id": 1, "title": "Dune", "state": "lent"})),
        ),
        ("do-single", Completes(asked(), dune())),
        (
            "emit",
            Emits(
                "test.library.book.returned.v1",
                json!({"reader": {"name": "Ann"}, "books": [{"title": "Dune", "copies": 2}]}),
            ),
        ),
        (
            "for",
            Hears(
                json!({"books": [{"id": 1}], "clerk": "Ann"}),
                vec![("test.library.book.checked.v2", json!({}))],
                "/checked",
                json!(1),
            ),
        ),
        (
            "fork",
            Completes(json!({"room": {"number": 4}}), json!({"called": 4})),
        ),
        (
            "listen-to-all",
            Hears(
                Value::Null,
                vec![mild(), hot(), dry()],
                "",
                json!([{"celsius": 31}, {"percent": 10}]),
            ),
        ),
        (
            "listen-to-all read-envelope",
            Hears(Value::Null, vec![hot(), dry()], "/1/data", json!({"percent": 10})),
        ),
        (
            "listen-to-any",
            Hears(
                Value::Null,
                vec![("test.library.book.lost", json!({"id": 4}))],
                "",
                json!([{"id": 4}]),
            ),
        ),
        (
            "listen-to-any-filter",
            Hears(Value::Null, vec![mild(), dry()], "", json!([{"percent": 10}])),
        ),
        (
            "listen-to-any-forever-foreach",
            Listens("test.library.opened.v1", json!({"n": 3})),
        ),
        (
            "listen-to-any-until-condition",
            Hears(
                Value::Null,
                vec![mild(), hot(), dry()],
                "",
                json!([{"celsius": 20}, {"celsius": 31}, {"percent": 10}]),
            ),
        ),
        (
            "listen-to-any-until-consumed",
            Hears(
                Value::Null,
                vec![mild(), hot(), ("test.library.closed", json!({})), dry()],
                "",
                json!([{"celsius": 31}]),
            ),
        ),
        (
            "listen-to-one",
            Hears(
                json!({"room": 4}),
                vec![("test.library.opened.v1", json!({}))],
                "",
                json!({"lit": "/rooms/4"}),
            ),
        ),
        (
            "mock-service-extension",
            Completes(
                Value::Null,
                json!({"statusCode": 200, "headers": {"Content-Type": "application/json"}, "content": {"title": "Mock"}}),
            ),
        ),
        (
            "raise-inline",
            Faults(Value::Null, "https://library.test/errors/not-written", 500),
        ),
        (
            "raise-reusable",
            Faults(Value::Null, "https://library.test/errors/not-written", 500),
        ),
        ("run-container", Completes(Value::Null, json!("Hello\n"))),
        (
            "run-container-cleanup-always",
            Completes(Value::Null, json!("Hello\n")),
        ),
        (
            "run-container-cleanup-eventually",
            Completes(Value::Null, json!("Hello\n")),
        ),
        (
            "run-container-stdin-and-arguments",
            Completes(Value::Null, json!("read: Good morning\ngiven: one two\n")),
        ),
        (
            "run-container-with-name",
            Completes(Value::Null, json!("Hello\n")),
        ),
        (
            "run-container-with-pull-policy",
            Completes(Value::Null, json!("Hello\n")),
        ),
        (
            "run-return-all",
            Completes(
                Value::Null,
                json!({"code": 0, "stdout": "Hello\n", "stderr": "careful\n"}),
            ),
        ),
        ("run-return-code", Completes(Value::Null, json!(0))),
        ("run-return-none", Completes(Value::Null, Value::Null)),
        ("run-return-stderr", Completes(Value::Null, json!("careful\n"))),
        (
            "run-script-with-arguments",
            Completes(
                json!({"message": "A book came back"}),
                json!("A book came back\n"),
            ),
        ),
        (
            "run-script-with-stdin-and-arguments",
            Completes(
                Value::Null,
                json!({"title": "Dune", "shelf": "4", "side": "north"}),
            ),
        ),
        (
            "run-shell-stdin-and-arguments",
            Completes(Value::Null, json!("read: Good morning\ngiven: one two\n")),
        ),
        (
            "run-subflow",
            Completes(json!({"person": "Ann"}), json!({"registered": "Ann"})),
        ),
        ("schedule-cron", Triggers(json!({"inventory": "begun"}))),
        (
            "schedule-event-driven",
            Starts(
                "test.library.book.lost",
                json!({"book": {"id": 4, "shelf": {"number": 2}}}),
                "",
                json!({"book": 4, "shelf": 2, "text": "A book is lost."}),
            ),
        ),
        (
            "set",
            Starts(
                "test.library.opened.v1",
                json!({"n": 1}),
                "/opening/event/data",
                json!({"n": 1}),
            ),
        ),
        (
            "set-expression",
            Starts(
                "test.library.opened.v1",
                json!({"n": 2}),
                "/data",
                json!({"n": 2}),
            ),
        ),
        (
            "star-wars-homeworld",
            Completes(json!({"id": 2}), json!({"name": "Frank"})),
        ),
        (
            "switch-then-string",
            Completes(
                json!({"kind": "map"}),
                json!({"drawer": 1, "sheets": 2, "state": "rolled"}),
            ),
        ),
        (
            "try-catch",
            Completes(json!({"bookId": 404}), json!({"bookId": 404})),
        ),
        (
            "try-catch-retry-inline",
            Completes(json!({"bookId": "flaky"}), json!({"title": "At last"})),
        ),
        (
            "try-catch-retry-reusable",
            Completes(json!({"bookId": "flaky"}), json!({"title": "At last"})),
        ),
        (
            "try-catch-then",
            Completes(
                json!({"bookId": 1}),
                json!({"id": 1, "title": "Dune", "state": "lent"}),
            ),
        ),
        (
            "wait-duration-inline",
            Completes(json!({"n": 1}), json!({"n": 1})),
        ),
        (
            "wait-duration-iso8601",
            Completes(json!({"n": 1}), json!({"n": 1})),
        ),
    ]
}

/// The workflow that one of the examples runs.
pub(crate) const CHILD: &str = "document: {dsl: 1.0.3, namespace: examples, name: register-reader, version: 0.1.0}\ndo:\n  - keep: {set: \
                     {registered: '${ .reader }'}}\n";
