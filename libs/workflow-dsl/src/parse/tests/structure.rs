//! What is said of documents whose structure is wrong, and of which place.

use super::*;

/// One thing wrong in the header `document`, whose fields are in line 1.
fn refuses_header(header: &str, place: &str, words: &[&str]) {
    refuses(
        &format!("document: {{{header}}}\ndo: [{{a: {{set: {{x: 1}}}}}}]\n"),
        place,
        words,
    );
}

#[test]
fn text_that_is_no_document() {
    refuses("", "1:1 ", &["empty", "'document' and 'do'"]);
    refuses("# only a comment\n", "1:1 ", &["empty"]);
    refuses("just text", "1:1 ", &["must be an object, found text"]);
    refuses("- a\n- b\n", "1:1 ", &["must be an object, found a list"]);
    refuses("a: [1, 2\nb: 3\n", "2:2 /a/1", &["not valid YAML"]);
    refuses("a: b\n---\nc: d\n", "2:1 ", &["a second document"]);
    refuses("a:\n  <<: {b: 1}\n", "2:3 /a", &["merge keys"]);
    refuses("? [a]\n: b\n", "1:3 ", &["a key must be text"]);
    refuses(
        "5: b\n",
        "1:1 ",
        &["a key must be text, found a number", "quotes"],
    );
    refuses(
        "a: !secret b\n",
        "1:4 /a",
        &["the tag '!secret' is not supported"],
    );
    refuses("a: .inf\n", "1:4 /a", &["no form in JSON"]);
    refuses("a: *b\n", "1:4 /a", &["not valid YAML"]);
}

#[test]
fn fields_of_the_top() {
    let rest = "document: {dsl: '1.0.1', namespace: default, name: sample, version: '1.0.0'}\n";
    refuses(rest, "1:1 ", &["the field 'do' of the document is missing"]);
    refuses("do: [{a: {set: {x: 1}}}]\n", "1:1 ", &["the field 'document'"]);
    refuses(
        &format!("{}ouput: {{}}\n", with_tasks("  - a: {set: {x: 1}}\n")),
        "4:1 /ouput",
        &[
            "no such field 'ouput'",
            "allowed are 'document'",
            "did you mean 'output'",
        ],
    );
    refuses(&format!("{rest}do: []\n"), "2:5 /do", &["at least one task"]);
    refuses(
        &format!("{rest}do: {{a: {{set: {{x: 1}}}}}}\n"),
        "2:5 /do",
        &["'do' must be a list, found an object"],
    );
    let evaluate = format!(
        "evaluate: {{mode: lose}}\n{}",
        with_tasks("  - a: {set: {x: 1}}\n")
    );
    refuses(
        &evaluate,
        "1:18 /evaluate/mode",
        &["'lose' is no mode", "'strict'", "'loose'"],
    );
}

#[test]
fn fields_of_the_header() {
    refuses_header(
        "namespace: a, name: b, version: '1.0.0'",
        "1:1 /document",
        &["the field 'dsl' of 'document'"],
    );
    refuses_header(
        "dsl: '1.1.0', namespace: a, name: b, version: '1.0.0'",
        "1:17 /document/dsl",
        &["1.0.x", "'1.1.0'"],
    );
    refuses_header(
        "dsl: 1.0, namespace: a, name: b, version: '1.0.0'",
        "1:17 /document/dsl",
        &["must be text, found a number; put it in quotes"],
    );
    refuses_header(
        "dsl: 1.0.0, namespace: A_b, name: b, version: '1.0.0'",
        "1:35 /document/namespace",
        &["a-z"],
    );
    refuses_header(
        "dsl: 1.0.0, namespace: a, name: b, version: '1'",
        "1:56 /document/version",
        &["semantic version"],
    );
    refuses_header(
        "dsl: 1.0.0, namespace: a, name: b, version: 1.0.0, tag: {}",
        "1:63 /document/tag",
        &["did you mean 'tags'"],
    );
    refuses_header(
        "dsl: 1.0.0, namespace: a, name: b, version: 1.0.0, name: c",
        "1:63 /document/name",
        &["already there at line 1"],
    );
}

#[test]
fn kinds_of_tasks() {
    refuses_tasks(
        "  - a: {swich: []}\n",
        "3:9 /do/0/a/swich",
        &["no such kind of task 'swich'", "did you mean 'switch'"],
    );
    refuses_tasks(
        "  - a: {then: end}\n",
        "3:5 /do/0/a",
        &["does not say what it does", "'call', 'for', 'do'"],
    );
    refuses_tasks(
        "  - a: {set: {x: 1}, wait: PT1S}\n",
        "3:22 /do/0/a/wait",
        &["'set' and 'wait'"],
    );
    refuses_tasks(
        "  - a: {set: {x: 1}, iff: .x}\n",
        "3:22 /do/0/a/iff",
        &["no such field 'iff'", "did you mean 'if'"],
    );
    refuses_tasks(
        "  - a: 5\n",
        "3:8 /do/0/a",
        &["'a' must be an object, found a number"],
    );
    refuses_tasks(
        "  - a: {set: {x: 1}}\n    b: {set: {x: 1}}\n",
        "3:5 /do/0",
        &["has 2 fields: 'a', 'b'"],
    );
    refuses_tasks("  - {}\n", "3:5 /do/0", &["has 0 fields"]);
    refuses_tasks(
        "  - a: {set: {x: 1}}\n  - a: {set: {x: 1}}\n",
        "4:5 /do/1/a",
        &["already a task 'a'"],
    );
    refuses_tasks("  - a: {set: {}}\n", "3:14 /do/0/a/set", &["at least one field"]);
    refuses_tasks(
        "  - a: {set: text}\n",
        "3:14 /do/0/a/set",
        &["one expression ${ … }"],
    );
    refuses_tasks(
        "  - a: {set: {x: 1}, metadata: 5}\n",
        "3:32 /do/0/a/metadata",
        &["must be an object"],
    );
    refuses_tasks(
        "  - a: {set: {x: 1}, export: {schema: {resource: {endpoint: x}}}}\n",
        "3:61 /do/0/a/export/schema/resource/endpoint",
        &["must begin with http://"],
    );
    refuses_tasks(
        "  - a: {set: {x: 1}, input: {from: 5}}\n",
        "3:36 /do/0/a/input/from",
        &["an expression or an object"],
    );
}

#[test]
fn where_the_flow_goes() {
    refuses_tasks(
        "  - greet: {set: {x: 1}, then: gret}\n",
        "3:32 /do/0/greet/then",
        &[
            "no task 'gret' in this list",
            "'continue', 'exit', 'end' and its tasks 'greet'",
            "did you mean 'greet'",
        ],
    );
    // A task of another list is out of reach.
    let nested = "  - outer: {do: [{inner: {set: {x: 1}, then: other}}]}\n  - other: {set: {x: 1}}\n";
    refuses_tasks(
        nested,
        "3:46 /do/0/outer/do/0/inner/then",
        &["no task 'other' in this list", "'inner'"],
    );
    refuses_tasks(
        "  - a: {switch: [{c: {when: .x}}]}\n",
        "3:19 /do/0/a/switch/0/c",
        &["the field 'then' of 'c'"],
    );
    refuses_tasks(
        "  - a: {switch: [{c: {then: b}}]}\n",
        "3:29 /do/0/a/switch/0/c/then",
        &["no task 'b'"],
    );
    refuses_tasks(
        "  - a: {switch: []}\n",
        "3:17 /do/0/a/switch",
        &["at least one case"],
    );
    refuses_tasks(
        "  - a: {switch: [{c: {then: end}}, {d: {then: end}}]}\n",
        "3:36 /do/0/a/switch/1",
        &["'c'"],
    );
    refuses_tasks(
        "  - a: {fork: {branches: [{b: {set: {x: 1}, then: c}}, {c: {set: {x: 1}}}]}}\n",
        "3:51 /do/0/a/fork/branches/0/b/then",
        &["a branch of a fork"],
    );
}

#[test]
fn loops_and_branches() {
    refuses_tasks(
        "  - a: {for: {each: x}, do: [{b: {set: {x: 1}}}]}\n",
        "3:9 /do/0/a/for",
        &["the field 'in' of 'for'"],
    );
    refuses_tasks(
        "  - a: {for: {in: .x}}\n",
        "3:5 /do/0/a",
        &["the field 'do' of 'a' is missing"],
    );
    refuses_tasks(
        "  - a: {for: {in: .x, each: $y}, do: [{b: {set: {x: 1}}}]}\n",
        "3:29 /do/0/a/for/each",
        &["without '$'"],
    );
    refuses_tasks(
        "  - a: {for: {in: .x, each: input}, do: [{b: {set: {x: 1}}}]}\n",
        "3:29 /do/0/a/for/each",
        &["variable of the language"],
    );
    refuses_tasks(
        "  - a: {for: {in: .x, each: y, at: y}, do: [{b: {set: {x: 1}}}]}\n",
        "3:14 /do/0/a/for",
        &["different"],
    );
    refuses_tasks(
        "  - a: {fork: {branches: [{b: {set: {x: 1}}}], compete: maybe}}\n",
        "3:57 /do/0/a/fork/compete",
        &["true or false"],
    );
}

#[test]
fn schedules() {
    let with = |schedule: &str| format!("{}schedule: {schedule}\n", with_tasks("  - a: {set: {x: 1}}\n"));
    for good in [
        "{every: PT1H}",
        "{after: {minutes: 5}}",
        "{cron: '0 0 * * *'}",
        "{cron: '*/10 * * * * *'}",
    ] {
        let complaints = complaints(&with(good));
        assert!(complaints.is_empty(), "{good}: {complaints:?}");
    }
    refuses(
        &with("{}"),
        "4:11 /schedule",
        &["one of 'every', 'cron', 'after' and 'on'"],
    );
    refuses(
        &with("{every: PT1H, after: PT1H}"),
        "4:11 /schedule",
        &["one of 'every', 'cron', 'after' and 'on'"],
    );
    refuses(
        &with("{evry: PT1H, every: PT1H}"),
        "4:12 /schedule/evry",
        &["did you mean 'every'"],
    );
    refuses(
        &with("{every: PT1H, on: {one: {with: {type: a}}}}"),
        "4:12 /schedule/every",
        &["'every' cannot stand beside 'on'", "make two workflows"],
    );
    refuses(
        &with("{every: PT0.01S}"),
        "4:19 /schedule/every",
        &["at least 100 ms"],
    );
    refuses(
        &with("{every: '${ .x }'}"),
        "4:19 /schedule/every",
        &["cannot be computed"],
    );
    refuses(
        &with("{cron: '0 0 31 2 *'}"),
        "4:18 /schedule/cron",
        &["never comes"],
    );
    refuses(
        &with("{cron: daily}"),
        "4:18 /schedule/cron",
        &["not a cron expression", "'0 8 * * MON-FRI'"],
    );
}
