use serde_json::json;

use super::*;
use crate::document::Kind;

/// A strategy, in YAML flow style.
fn strategy(to: &str) -> Strategy {
    let document = format!(
        "document: {{dsl: '1.0.0', namespace: t, name: t, version: '1.0.0'}}\ndo: [{{a: {{listen: {{to: {to}}}}}}}]"
    );
    let definition = crate::parse(&document).unwrap_or_else(|problems| panic!("{problems}"));
    match &definition.workflow.tasks.tasks[0].kind {
        Kind::Listen(listen) => listen.to.clone(),
        other => panic!("{}", other.name()),
    }
}

fn event(more: &Value) -> CloudEvent {
    let mut event =
        json!({"specversion": "1.0", "id": "1", "source": "https://a.test/?q=1", "type": "com.a.b"});
    for (name, value) in more.as_object().unwrap() {
        event[name] = value.clone();
    }
    CloudEvent::check(event).unwrap()
}

fn evaluate(expression: &Expression, value: &Value) -> Option<Value> {
    expression
        .evaluate(value, &Variables::new(), Timestamp::UNIX_EPOCH)
        .ok()
}

/// Offers events and takes those that match; the index of the filter of each, `until` marked by a minus.
fn hear(to: &str, expect: &Value, events: &[Value]) -> (Vec<Option<i64>>, bool) {
    let strategy = strategy(to);
    let mut hearing = Hearing::new(&strategy, serde_json::from_value(expect.clone()).unwrap());
    let taken = events.iter().map(|more| {
        let event = event(more);
        let taken = hearing.offer(&strategy, &event, &evaluate);
        let interests = hearing.interests(&strategy);
        let admitted = interests
            .iter()
            .any(|interest| interest.admits(&event, Timestamp::UNIX_EPOCH));
        assert!(
            admitted || taken.is_none(),
            "an interest never hides what concerns: {more}"
        );
        let taken = taken?;
        hearing.take(&taken);
        let index = i64::try_from(taken.filter).unwrap();
        Some(if taken.until { -1 - index } else { index })
    });
    (taken.collect(), hearing.is_done(&strategy))
}

#[test]
fn attributes_are_text_patterns_or_expressions() {
    for (with, more, matches) in [
        ("{type: com.a.b}", json!({}), true),
        ("{type: com.a.b}", json!({"type": "comXaXb"}), false),
        ("{type: 'com\\.[ab]+\\..*'}", json!({}), true),
        ("{type: 'a.*'}", json!({}), false),
        ("{source: 'https://a.test/?q=1'}", json!({}), true),
        ("{source: '${ startswith(\"https://a.\") }'}", json!({}), true),
        ("{subject: '${ \"x\" }'}", json!({"subject": "x"}), true),
        ("{subject: x}", json!({}), false),
        ("{attempt: 3}", json!({"attempt": 3}), true),
        ("{attempt: '3'}", json!({"attempt": 3}), true),
        ("{last: true}", json!({"last": false}), false),
        ("{data: '${ .t > 38 }'}", json!({"data": {"t": 39}}), true),
        ("{data: '${ .t > 38 }'}", json!({"data": "hot"}), false),
        (
            "{data: {t: 39, at: {room: a}}}",
            json!({"data": {"t": 39, "at": {"room": "a", "x": 1}}}),
            true,
        ),
        ("{data: {t: '${ . > 38 }'}}", json!({"data": {"t": 38}}), false),
        ("{data: {t: 39}}", json!({}), false),
        ("{data: [1, 2]}", json!({"data": [1, 2]}), true),
        ("{data: [1, 2]}", json!({"data": [1, 2, 3]}), false),
    ] {
        let (taken, _) = hear(
            &format!("{{one: {{with: {with}}}}}"),
            &json!({}),
            std::slice::from_ref(&more),
        );
        assert_eq!(taken == [Some(0)], matches, "{with} of {more}");
    }
}

#[test]
fn one_all_and_any_have_enough_at_different_times() {
    let (a, b) = (json!({"type": "a"}), json!({"type": "b"}));
    let events = [b.clone(), a.clone(), a.clone(), b.clone()];
    let filters = "[{with: {type: a}}, {with: {type: b}}]";
    assert_eq!(
        hear("{one: {with: {type: a}}}", &json!({}), &events[..2]),
        (vec![None, Some(0)], true)
    );
    assert_eq!(
        hear(&format!("{{all: {filters}}}"), &json!({}), &events[1..]),
        (vec![Some(0), None, Some(1)], true)
    );
    assert_eq!(
        hear(
            &format!("{{any: {filters}}}"),
            &json!({}),
            std::slice::from_ref(&b)
        ),
        (vec![Some(1)], true)
    );
    assert_eq!(
        hear(
            "{any: [], until: {one: {with: {type: b}}}}",
            &json!({}),
            &[a.clone(), b.clone()]
        ),
        (vec![Some(0), Some(-1)], true)
    );
    assert_eq!(
        hear(
            "{any: [{with: {type: a}}], until: {all: [{with: {type: b}}, {with: {type: c}}]}}",
            &json!({}),
            &events
        ),
        (vec![Some(-1), Some(0), Some(0), None], false)
    );
    assert_eq!(
        hear(
            "{any: [], until: '${ false }'}",
            &json!({}),
            &[a, json!({"type": "io.serverlessworkflow.task.started.v1"})]
        ),
        (vec![Some(0), None], false),
        "the engine's own events are heard where they are named"
    );
}

#[test]
fn correlations_are_expected_or_learned_from_the_first() {
    let order = |id: Value| json!({"type": "order", "data": {"id": id}});
    let one = "{one: {with: {type: order}, correlate: {order: {from: .data.id}}}}";
    assert_eq!(
        hear(
            one,
            &json!({"order": 7}),
            &[order(json!(8)), order(json!(null)), order(json!("7"))]
        )
        .0,
        [None, None, Some(0)]
    );
    let both = "{all: [{with: {type: a}, correlate: {room: {from: .roomid}}}, {with: {type: b}, correlate: {room: {from: .roomid}}}]}";
    let reading = |kind: &str, room: u8| json!({"type": kind, "roomid": room});
    assert_eq!(
        hear(
            both,
            &json!({}),
            &[reading("a", 1), reading("b", 2), reading("a", 2), reading("b", 1)]
        ),
        (vec![Some(0), None, None, Some(1)], true)
    );
}

#[test]
fn what_is_waited_for_is_said() {
    let strategy = strategy(
        "{any: [{with: {type: 'a.*', data: '${ .t > 38 }'}, correlate: {order: {from: .data.id}}}], until: {one: {with: {type: end}}}}",
    );
    let hearing = Hearing::new(&strategy, BTreeMap::from([("order".to_owned(), json!(7))]));
    assert_eq!(
        hearing.describe(&strategy),
        "an event with type like a.*, data ${ .t > 38 }, correlation order (.data.id) = 7, until an event with type \"end\""
    );
}
