//! What is said of `emit` and `listen`.

use super::{complaints, with_tasks};

/// One thing wrong among the tasks, at this pointer.
fn refuses_tasks(tasks: &str, pointer: &str, words: &[&str]) {
    let complaints = complaints(&with_tasks(tasks));
    let [(place, message)] = complaints.as_slice() else {
        panic!("expected one complaint at {pointer}, found {complaints:#?} in {tasks}");
    };
    let (_, actual) = place.rsplit_once(' ').unwrap();
    assert_eq!(actual, pointer, "{message} in {tasks}");
    for word in words {
        assert!(message.contains(word), "{word:?} is not in {message:?}");
    }
}

fn refuses_listen(to: &str, pointer: &str, words: &[&str]) {
    refuses_tasks(
        &format!("  - a:\n      listen:\n        to: {to}\n"),
        pointer,
        words,
    );
}

#[test]
fn what_is_emitted_is_an_event() {
    refuses_tasks(
        "  - a: {emit: {event: {with: {type: t}}}}\n",
        "/do/0/a/emit/event/with",
        &["the field 'source' of 'with' is missing"],
    );
    refuses_tasks(
        "  - a: {emit: {event: {with: {type: t, source: s, orderId: 1}}}}\n",
        "/do/0/a/emit/event/with/orderId",
        &["lower-case letters and digits", "'data'"],
    );
    refuses_tasks(
        "  - a: {emit: {event: {with: {type: t, source: s, extra: {a: 1}}}}}\n",
        "/do/0/a/emit/event/with/extra",
        &["must be text, a number, true or false"],
    );
    refuses_tasks(
        "  - a: {emit: {event: {with: {type: t, source: s}, cc: x}}}\n",
        "/do/0/a/emit/event/cc",
        &["no such field 'cc'"],
    );
    for (attribute, words) in [
        (
            "time: zzz",
            &["'time' must be a time such as '2026-03-01T12:00:00Z'"][..],
        ),
        ("time: 5", &["'time' must be text"]),
        ("specversion: '2.0'", &["must be '1.0'"]),
        ("dataschema: 'no uri at all'", &["must be a URI, without spaces"]),
        ("big: 99999999999", &["whole number of 32 bits"]),
    ] {
        let (name, _) = attribute.split_once(':').unwrap();
        refuses_tasks(
            &format!("  - a: {{emit: {{event: {{with: {{type: t, source: s, {attribute}}}}}}}}}\n"),
            &format!("/do/0/a/emit/event/with/{name}"),
            words,
        );
    }
    refuses_tasks(
        "  - a: {emit: {event: {with: {type: t, source: 'not a uri at all %%'}}}}\n",
        "/do/0/a/emit/event/with/source",
        &["'source' must be a URI"],
    );
}

#[test]
fn what_an_event_has_as_text_is_written_as_text() {
    let warns = |tasks: &str, pointer: &str, words: &str| {
        refuses_tasks(tasks, pointer, &[words]);
        assert!(crate::parse(&with_tasks(tasks)).is_ok(), "{tasks}");
    };
    for (attribute, words) in [
        (
            "type: 5, source: s",
            "'type' of an event is text, which 5 is not; write '5' in quotes",
        ),
        ("type: t, source: true", "write 'true' in quotes"),
        ("type: t, source: s, id: 5", "'id' of an event is text"),
        (
            "type: t, source: s, dataschema: 5",
            "'dataschema' of an event is text",
        ),
        ("type: t, source: 'https://a.b/{a}'", "no variables in braces"),
    ] {
        let name = if attribute.contains("{a}") || attribute.contains("true") {
            "source"
        } else {
            let (before, _) = attribute.split_once(": 5").unwrap();
            before.rsplit(' ').next().unwrap()
        };
        warns(
            &format!("  - a: {{emit: {{event: {{with: {{{attribute}}}}}}}}}\n"),
            &format!("/do/0/a/emit/event/with/{name}"),
            words,
        );
    }
    warns(
        "  - a: {listen: {to: {one: {with: {type: 5}}}}}\n",
        "/do/0/a/listen/to/one/with/type",
        "'type' of an event is text",
    );
}

#[test]
fn strategies_are_one_of_three() {
    refuses_listen(
        "{}",
        "/do/0/a/listen/to",
        &["exactly one of 'one', 'all' and 'any'; found none"],
    );
    refuses_listen(
        "{one: {with: {type: t}}, any: []}",
        "/do/0/a/listen/to",
        &["found 'one', 'any'"],
    );
    refuses_listen("{any: []}", "/do/0/a/listen/to/any", &["say 'until'"]);
    refuses_listen("{all: []}", "/do/0/a/listen/to/all", &["at least one filter"]);
    refuses_listen(
        "{all: [{with: {type: t}}], until: .x}",
        "/do/0/a/listen/to/until",
        &["'until' belongs to 'any'"],
    );
    refuses_listen(
        "{any: [], until: {any: [{with: {type: t}}], until: .x}}",
        "/do/0/a/listen/to/until/until",
        &["no 'until' of their own"],
    );
    refuses_listen(
        "{any: [], until: 5}",
        "/do/0/a/listen/to/until",
        &["'until' is an expression"],
    );
}

#[test]
fn filters_are_about_attributes() {
    refuses_listen(
        "{one: {with: {}}}",
        "/do/0/a/listen/to/one/with",
        &["at least one attribute"],
    );
    refuses_listen(
        "{one: {}}",
        "/do/0/a/listen/to/one",
        &["the field 'with' of 'one' is missing"],
    );
    refuses_listen(
        "{one: {with: {type: 'a(b'}}}",
        "/do/0/a/listen/to/one/with/type",
        &["is no regular expression"],
    );
    refuses_listen(
        "{one: {with: {type: t}, correlate: {c: {}}}}",
        "/do/0/a/listen/to/one/correlate/c",
        &["the field 'from' of 'c' is missing"],
    );
    refuses_listen(
        "{any: [{with: {type: t}, correlate: {c: {from: .a, expect: 1}}}, {with: {type: u}, correlate: {c: {from: .a, expect: 2}}}]}",
        "/do/0/a/listen/to",
        &["different values of the correlation 'c'"],
    );
}

#[test]
fn a_schedule_on_events_sees_the_event_alone() {
    let document = |on: &str| {
        let header = "document: {dsl: '1.0.1', namespace: default, name: sample, version: '1.0.0'}";
        format!("{header}\nschedule: {{on: {on}}}\ndo: [{{a: {{set: {{x: 1}}}}}}]\n")
    };
    assert_eq!(
        complaints(&document("{one: {with: {type: t, data: '${ .n > 1 }'}}}")),
        []
    );
    let complaints = complaints(&document("{one: {with: {data: '${ .n > $context.n }'}}}"));
    let [(place, message)] = complaints.as_slice() else {
        panic!("{complaints:#?}");
    };
    assert!(place.ends_with("/schedule/on/one/with/data"), "{place}");
    assert!(
        message.contains("'$context' is not available in the workflow's schedule"),
        "{message}"
    );
}

#[test]
fn reading_and_iterating_have_their_words() {
    refuses_tasks(
        "  - a: {listen: {to: {one: {with: {type: t}}}, read: envelop}}\n",
        "/do/0/a/listen/read",
        &["'data', 'envelope', 'raw'", "did you mean 'envelope'"],
    );
    refuses_tasks(
        "  - a: {listen: {to: {one: {with: {type: t}}}}, foreach: {item: x, at: x}}\n",
        "/do/0/a/foreach",
        &["'item' and 'at' must name different variables"],
    );
    refuses_tasks(
        "  - a: {listen: {to: {one: {with: {type: t}}}}, foreach: {do: [{b: {set: {x: '${ $evnt }'}}}]}}\n",
        "/do/0/a/foreach/do/0/b/set/x",
        &["no variable '$evnt'", "'$item', '$index'"],
    );
}
