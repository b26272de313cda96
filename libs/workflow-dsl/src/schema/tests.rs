use serde_json::{Value, json};

use super::*;

fn compiled(schema: &Value) -> Schema {
    Schema::compile(schema).unwrap_or_else(|refusal| panic!("{refusal} at {}\n{schema}", refusal.pointer))
}

#[track_caller]
fn refused(schema: Value, pointer: &str, words: &str) {
    let refusal = Schema::compile(&schema).map(|_| ()).unwrap_err();
    assert_eq!(refusal.pointer, pointer, "{refusal}");
    assert!(refusal.message.contains(words), "{refusal}");
}

#[test]
fn a_violation_names_the_place_and_the_rule() {
    let schema = compiled(&json!({
        "type": "object",
        "required": ["orders"],
        "properties": {"orders": {"type": "array", "items": {"$ref": "#/$defs/order"}}},
        "$defs": {"order": {"type": "object", "properties": {"id": {"type": "string", "pattern": "^[A-Z]{2}[0-9]+$"}}}},
    }));
    assert_eq!(schema.check(&json!({"orders": [{"id": "AB1"}]})), Ok(()));
    let violation = schema
        .check(&json!({"orders": [{"id": "AB1"}, {"id": 7}]}))
        .unwrap_err();
    let text = violation.to_string();
    assert!(text.contains("/orders/1/id"), "{text}");
    assert!(text.contains("7 is not of type \"string\""), "{text}");
    assert!(text.contains("/type"), "{text}");
    let text = schema.check(&json!({})).unwrap_err().to_string();
    assert!(text.contains("the top") && text.contains("orders"), "{text}");
}

#[test]
fn messages_do_not_repeat_large_values() {
    let schema = compiled(&json!({"anyOf": [{"type": "string"}, {"type": "number"}]}));
    let text = schema
        .check(&json!({"secret": "x".repeat(100_000)}))
        .unwrap_err()
        .to_string();
    assert!(
        text.len() < 300 && text.contains("none of the alternatives"),
        "{text}"
    );
}

#[test]
fn a_tree_may_contain_itself() {
    let tree = json!({"type": "object", "properties": {"children": {"type": "array", "items": {"$ref": "#"}}}, "required": ["children"]});
    let schema = compiled(&tree);
    let mut value = json!({"children": []});
    for _ in 0..40 {
        value = json!({"children": [value]});
    }
    assert_eq!(schema.check(&value), Ok(()));
    let anchored = json!({"$ref": "#node", "$defs": {"n": {"$anchor": "node", "properties": {"next": {"$ref": "#node"}}, "type": "object"}}});
    assert!(compiled(&anchored).check(&json!({"next": {"next": 1}})).is_err());
}

#[test]
fn what_is_not_bounded_is_refused() {
    refused(json!({"$ref": "#"}), "", "refers to itself");
    let circle = json!({"$ref": "#/$defs/a", "$defs": {"a": {"anyOf": [{"$ref": "#/$defs/b"}]}, "b": {"not": {"$ref": "#/$defs/a"}}}});
    refused(circle, "/$defs/a", "refers to itself");
    refused(
        json!({"$ref": "https://example.com/schema.json"}),
        "/$ref",
        "nothing is fetched",
    );
    refused(json!({"$ref": "other.json#/a"}), "/$ref", "nothing is fetched");
    refused(
        json!({"properties": {"a": {"$ref": "#/$defs/b"}}}),
        "/properties/a/$ref",
        "leads nowhere",
    );
    refused(json!({"$dynamicRef": "#x"}), "/$dynamicRef", "use '$ref'");
    refused(
        json!({"items": {"$id": "https://x.example/y"}}),
        "/items/$id",
        "top",
    );
    refused(json!({"pattern": "(?=a)b"}), "/pattern", "not a valid");
    refused(json!({"type": "text"}), "/type", "not a valid JSON Schema");
    refused(json!("x"), "", "is an object");
    let many: Value = (0..3000).map(|index| (format!("p{index}"), json!({}))).collect();
    refused(json!({"properties": many}), "/properties/p2798", "at most 2000");
    let chain: Value = (0..200)
        .map(|index| {
            (
                format!("d{index}"),
                json!({"$ref": format!("#/$defs/d{}", index + 1)}),
            )
        })
        .collect();
    let mut chain = json!({"$defs": chain, "$ref": "#/$defs/d0"});
    chain["$defs"]["d200"] = json!({});
    assert!(
        Schema::compile(&chain)
            .unwrap_err()
            .message
            .contains("through each other")
    );
    assert!(Schema::compile(&json!({"pattern": "((a{1,100}){1,100}){1,100}"})).is_err());
}

/// Each definition offers the next one twice: 2^n ways to fail.
#[test]
fn exponential_schemas_are_refused() {
    let definitions: Value = (0..30)
        .map(|index| {
            let next = json!({"$ref": format!("#/$defs/d{}", index + 1)});
            (format!("d{index}"), json!({"anyOf": [next.clone(), next]}))
        })
        .collect();
    let mut schema = json!({"$ref": "#/$defs/d0", "$defs": definitions});
    schema["$defs"]["d30"] = json!({"type": "string"});
    refused(schema, "", "references expanded");
}

/// What recurses in two ways at one place would take 2^depth steps if the validator forgot.
#[test]
fn recursion_is_linear_in_the_value() {
    let branch = json!({"properties": {"a": {"$ref": "#"}}, "required": ["a"]});
    let schema = compiled(&json!({"anyOf": [branch.clone(), {"allOf": [branch.clone(), branch]}]}));
    let mut value = json!({});
    for _ in 0..80 {
        value = json!({"a": value});
    }
    assert!(matches!(schema.check(&value), Err(Violation::Rule { .. })));
    value = json!(1);
    for _ in 0..80 {
        value = json!({"a": value});
    }
    assert_eq!(schema.check(&value), Ok(()));
}

#[test]
fn a_large_value_needs_a_simple_schema() {
    let many: Value = (0..500)
        .map(|index| (format!("p{index}"), json!({"type": "string"})))
        .collect();
    let large = json!(vec![0; 200_000]);
    assert_eq!(
        compiled(&json!({"items": {"properties": many}})).check(&large),
        Err(Violation::Exceeded)
    );
    assert_eq!(
        compiled(&json!({"items": {"type": "integer"}})).check(&large),
        Ok(())
    );
}

#[test]
fn patterns_are_linear() {
    let schema = compiled(&json!({"type": "string", "pattern": "^(a+)+$"}));
    let text = format!("{}b", "a".repeat(200_000));
    assert!(matches!(schema.check(&json!(text)), Err(Violation::Rule { .. })));
}
