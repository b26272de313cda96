//! What is said of wrong values: errors, durations, calls and expressions.

use super::*;

#[test]
fn tries_and_errors() {
    let catch = |catch: &str| format!("  - a: {{try: [{{b: {{set: {{x: 1}}}}}}], catch: {catch}}}\n");
    refuses_tasks(
        "  - a: {try: [{b: {set: {x: 1}}}]}\n",
        "3:5 /do/0/a",
        &["the field 'catch' of 'a'"],
    );
    refuses_tasks(
        &catch("{errors: {with: {status: '500'}}}"),
        "3:68 /do/0/a/catch/errors/with/status",
        &["from 100 to 599"],
    );
    refuses_tasks(
        &catch("{retry: patience}"),
        "3:51 /do/0/a/catch/retry",
        &["no such retry policy 'patience'", "defines none"],
    );
    refuses_tasks(
        &catch("{retry: {limit: {attempt: {count: 0}}}}"),
        "3:77 /do/0/a/catch/retry/limit/attempt/count",
        &["from 1 to 10000"],
    );
    refuses_tasks(
        &catch("{retry: {limit: {duration: PT1M}, jitter: {from: PT2S, to: PT1S}}}"),
        "3:85 /do/0/a/catch/retry/jitter",
        &["must not be above"],
    );
    refuses_tasks(
        &catch("{retry: {limit: {duration: PT1M}, backoff: {}}}"),
        "3:86 /do/0/a/catch/retry/backoff",
        &["is one of"],
    );
    refuses_tasks(
        &catch("{retry: {limit: {duration: PT1M}, backoff: {linear: {increment: 5}}}}"),
        "3:96 /do/0/a/catch/retry/backoff/linear/increment",
        &["no settings", "'increment'"],
    );
    refuses_tasks(
        "  - a: {raise: {error: brokn}}\n",
        "3:24 /do/0/a/raise/error",
        &["no such error 'brokn'"],
    );
    refuses_tasks(
        "  - a: {raise: {error: {status: 500}}}\n",
        "3:17 /do/0/a/raise/error",
        &["the field 'type'"],
    );
    refuses_tasks(
        "  - a: {raise: {error: {type: 'a b', status: 500}}}\n",
        "3:31 /do/0/a/raise/error/type",
        &["must be a URI"],
    );
    let timeout = format!(
        "use: {{timeouts: {{short: {{after: PT1S}}}}}}\ntimeout: shrt\n{}",
        with_tasks("  - a: {wait: PT1S}\n")
    );
    refuses(
        &timeout,
        "2:10 /timeout",
        &[
            "no such timeout 'shrt'; 'use' defines 'short'",
            "did you mean 'short'",
        ],
    );
    // The definition is wrong; the reference to it is not reported as well.
    let wrong = format!(
        "use: {{timeouts: {{short: {{after: 1s}}}}}}\ntimeout: short\n{}",
        with_tasks("  - a: {wait: PT1S}\n")
    );
    refuses(&wrong, "1:33 /use/timeouts/short/after", &["ISO 8601"]);
}

#[test]
fn durations() {
    refuses_tasks("  - a: {wait: 5s}\n", "3:15 /do/0/a/wait", &["ISO 8601", "PT30S"]);
    refuses_tasks("  - a: {wait: 5}\n", "3:15 /do/0/a/wait", &["ISO 8601"]);
    refuses_tasks("  - a: {wait: P1M}\n", "3:15 /do/0/a/wait", &["years and months"]);
    refuses_tasks("  - a: {wait: {}}\n", "3:15 /do/0/a/wait", &["at least one unit"]);
    refuses_tasks(
        "  - a: {wait: {second: 1}}\n",
        "3:16 /do/0/a/wait/second",
        &["did you mean 'seconds'"],
    );
    refuses_tasks(
        "  - a: {wait: {seconds: -1}}\n",
        "3:25 /do/0/a/wait/seconds",
        &["a whole number"],
    );
    refuses_tasks(
        "  - a: {wait: {days: 9999999}}\n",
        "3:22 /do/0/a/wait/days",
        &["ten years"],
    );
    refuses_tasks(
        "  - a: {wait: '${ .delay + }'}\n",
        "3:15 /do/0/a/wait",
        &["not a valid jq expression"],
    );
    refuses_tasks(
        "  - a: {set: {x: 1}, timeout: {after: PT0S}}\n",
        "3:39 /do/0/a/timeout/after",
        &["above zero"],
    );
}

#[test]
fn calls() {
    let with = |with: &str| format!("  - a: {{call: a2a, with: {{{with}}}}}\n");
    let message = "parameters: {message: {parts: [{text: hi}]}}";
    refuses_tasks(
        "  - a: {call: mine, with: {}}\n",
        "3:15 /do/0/a/call",
        &["no such function 'mine'"],
    );
    refuses_tasks(
        "  - a: {call: a2a}\n",
        "3:5 /do/0/a",
        &["the field 'with' of 'a'"],
    );
    refuses_tasks(
        &with(&format!("method: SendMessage, {message}")),
        "3:20 /do/0/a/with",
        &["whom it calls"],
    );
    refuses_tasks(
        &with(&format!("server: 'https://', method: SendMessage, {message}")),
        "3:35 /do/0/a/with/server",
        &["names no host"],
    );
    refuses_tasks(
        &with(&format!("server: weather, method: SendMessage, {message}")),
        "3:35 /do/0/a/with/server",
        &["agent://ID, skill://SKILL or a URL"],
    );
    refuses_tasks(
        &with(&format!(
            "server: {{uri: 'agent://w', authentication: {{bearer: {{token: '${{ .t }}'}}}}}}, method: SendMessage, {message}"
        )),
        "3:54 /do/0/a/with/server/authentication",
        &["is for agents by URL"],
    );
    refuses_tasks(
        &with(&format!("server: 'agent://w', method: message/sent, {message}")),
        "3:56 /do/0/a/with/method",
        &["did you mean 'message/send'"],
    );
    refuses_tasks(
        &with(&format!(
            "server: 'agent://w', method: tasks/resubscribe, {message}"
        )),
        "3:97 /do/0/a/with/parameters/message",
        &["no such field 'message'"],
    );
    refuses_tasks(
        &with("server: 'agent://w', method: SendMessage, parameters: {message: {parts: [{txt: hi}]}}"),
        "3:106 /do/0/a/with/parameters/message/parts/0/txt",
        &["did you mean 'text'"],
    );
}

#[test]
fn variables_and_expressions() {
    refuses_tasks(
        "  - a: {if: '.x |', set: {x: 1}}\n",
        "3:13 /do/0/a/if",
        &["not a valid jq expression"],
    );
    refuses_tasks(
        "  - a: {set: {x: ['${ .y | }']}}\n",
        "3:19 /do/0/a/set/x/0",
        &["not a valid jq expression"],
    );
    refuses_tasks(
        "  - a: {set: {x: '${ }'}}\n",
        "3:18 /do/0/a/set/x",
        &["must not be empty"],
    );
    refuses_tasks(
        "  - a: {if: true, set: {x: 1}}\n",
        "3:13 /do/0/a/if",
        &["must be text, found a boolean", "quotes"],
    );
    refuses_tasks(
        "  - a: {set: {x: '${ $contxt }'}}\n",
        "3:18 /do/0/a/set/x",
        &[
            "no variable '$contxt' here",
            "'$context', '$input'",
            "did you mean '$context'",
        ],
    );
    refuses_tasks(
        "  - a: {set: {x: '${ $secrets.key }'}}\n",
        "3:18 /do/0/a/set/x",
        &["no such secret 'key'", "'use.secrets' lists none"],
    );
    // The variables of a loop and of a catch end with it.
    let after = "  - a: {for: {in: .x}, do: [{b: {set: {x: '${ $item + $index }'}}}]}\n  - c: {set: {x: '${ $item }'}}\n";
    refuses_tasks(after, "4:18 /do/1/c/set/x", &["no variable '$item'"]);
    let in_try =
        "  - a: {try: [{b: {set: {x: '${ $error }'}}}], catch: {do: [{c: {set: {x: '${ $error }'}}}]}}\n";
    refuses_tasks(in_try, "3:29 /do/0/a/try/0/b/set/x", &["no variable '$error'"]);
}

#[test]
fn all_problems_are_told_in_the_order_of_the_text() {
    let text = "do:\n  - a: {wait: soon, then: nowhere}\n  - b: {sett: {}}\nfoo: 1\n";
    let places: Vec<String> = complaints(text).into_iter().map(|(place, _)| place).collect();
    assert_eq!(
        places,
        [
            "1:1 ",
            "2:15 /do/0/a/wait",
            "2:27 /do/0/a/then",
            "3:9 /do/1/b/sett",
            "4:1 /foo"
        ]
    );
}

#[test]
fn a_compensation_is_one_task_that_sees_what_it_takes_back() {
    let task = |compensation: &str| {
        format!(
            "document: {{dsl: '1.0.0', namespace: a, name: b, version: '1.0.0'}}\ndo:\n  - one: {{set: {{a: 1}}, metadata: {{muster: {{compensation: {compensation}}}}}}}\n"
        )
    };
    let good = crate::parse(&task("{do: [{undo: {set: {b: '${ $compensated.output }'}}}]}")).unwrap();
    let pointer = "/do/0/one/metadata/muster/compensation/do/0/undo";
    assert_eq!(
        good.workflow.task(pointer).map(|task| task.name.as_str()),
        Some("undo")
    );
    for (compensation, expected) in [
        ("{}", "the task does not say what it does"),
        ("[]", "must be an object"),
        ("{set: {b: '${ $compensted }'}}", "did you mean '$compensated'"),
        (
            "{set: {b: 1}, metadata: {muster: {compensation: {set: {c: 1}}}}}",
            "is not compensated itself",
        ),
    ] {
        let problems = crate::check(&task(compensation)).to_string();
        assert!(problems.contains(expected), "{compensation}: {problems}");
    }
    let outside = task("{set: {b: 1}}") + "  - two: {set: {c: '${ $compensated }'}}\n";
    assert!(crate::check(&outside).has_errors(), "only there");
}
