use super::*;
use proptest::prelude::*;
use serde_json::json;

fn composed(value: Value) -> Result<Message, Error> {
    compose(&serde_json::from_value(value).unwrap())
}

#[test]
fn facts_become_lines() {
    let message = composed(json!({
        "customer": "Ada Lovelace", "subject": "Your outdoor event",
        "introduction": "We have planned around the weather.",
        "facts": [
            "The plan is ready.",
            {"label": "rainy_days", "value": 3},
            {"label": "mean_temperature", "value": 11.23456},
            {"label": "dates", "value": ["2014-03-01", "2014-03-02"]},
            {"label": "indoors", "value": true},
            {"label": "milestones", "value": [{"name": "Tent", "day": 2}, {"name": "Music", "day": null}]},
        ],
        "closing": "Reply if a date does not suit you.",
    }))
    .unwrap();
    assert_eq!(
        message.body,
        "Dear Ada Lovelace,\n\nWe have planned around the weather.\n\n- The plan is ready.\n- Rainy days: 3\n\
         - Mean temperature: 11.23\n- Dates: 2014-03-01, 2014-03-02\n- Indoors: yes\n- Milestones:\n\
         \x20 - Day: 2, Name: Tent\n  - Day: not known, Name: Music\n\nReply if a date does not suit you.\n\n\
         Kind regards\nMuster customer service"
    );
    assert_eq!(
        (message.facts, message.subject.as_str()),
        (6, "Your outdoor event")
    );
}

#[test]
fn objects_nest_and_templates_are_filled() {
    let facts = json!({"a_b": {"c": [1, 2], "d": {"e": {"f": 1}}}});
    let message = composed(json!({"subject": "s", "facts": facts})).unwrap();
    assert!(
        message
            .body
            .contains("- A b:\n  - C: 1, 2\n  - D:\n    - E:\n      - F: 1"),
        "{}",
        message.body
    );
    let message = composed(json!({
        "customer": "Bo", "subject": "S", "facts": {"days": 2.50}, "template": "Hi {{customer}}: {{ days }} days.\n{{facts}}",
    }))
    .unwrap();
    assert_eq!(message.body, "Hi Bo: 2.5 days.\n- Days: 2.5");
}

#[test]
fn what_cannot_be_said_is_refused_by_field() {
    let field = |value: Value| composed(value).unwrap_err().field;
    assert_eq!(field(json!({"subject": " ", "facts": {"a": 1}})), "subject");
    assert_eq!(field(json!({"subject": "s"})), "facts");
    assert_eq!(field(json!({"subject": "s", "facts": 3})), "facts");
    assert_eq!(
        field(json!({"subject": "s", "facts": [{"label": "a"}]})),
        "facts[0]"
    );
    assert_eq!(
        field(json!({"subject": "s", "facts": vec![1; MAX_FACTS + 1]})),
        "facts"
    );
    assert_eq!(
        field(json!({"subject": "s".repeat(501), "facts": {"a": 1}})),
        "subject"
    );
    assert_eq!(
        field(json!({"subject": "s", "facts": {"a": "x".repeat(MAX_MESSAGE_BYTES)}})),
        "facts"
    );
    let error = composed(json!({"subject": "s", "facts": {"days": 1}, "template": "{{dayz}}"})).unwrap_err();
    assert!(error.message.contains("did you mean 'days'"), "{error}");
    assert_eq!(
        field(json!({"subject": "s", "template": "{{customer"})),
        "template"
    );
}

#[test]
fn control_characters_do_not_get_through() {
    let message = composed(json!({"subject": "a\r\nBcc: x", "facts": ["b\u{1b}[31m\r\nc"]})).unwrap();
    assert_eq!(message.subject, "a Bcc: x");
    assert!(message.body.contains("- b[31m c"));
}

proptest! {
    #[test]
    fn every_fact_is_told(labels in proptest::collection::btree_map("[a-z]{1,8}", "[A-Za-z0-9]{1,12}", 1..20)) {
        let message = composed(json!({"subject": "s", "facts": labels})).unwrap();
        for value in labels.values() {
            prop_assert!(message.body.contains(value.as_str()));
        }
        prop_assert_eq!(message.facts, labels.len());
    }
}
