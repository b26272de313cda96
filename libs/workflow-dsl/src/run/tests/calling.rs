//! Calls of services: what is asked of them, and what the journal knows of secrets.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::world::definition;
use super::*;
use crate::journal::Standard;
use crate::run::{Effect, Run, Stimulus};
use crate::secret::{Nonce, Secrets, Unmarking, has_marker};

const CALL: &str = "
    use: {secrets: [token, db]}
    do:
      - ask:
          call: http
          with:
            method: post
            endpoint:
              uri: http://h/{id}
              authentication: {basic: {username: '${ $secrets.db.user }', password: '${ $secrets.db.password }'}}
            headers: {X-Key: '${ \"Key \" + $secrets.token }', X-Count: 5, X-None: '${ .none }'}
            query: {all: '${ [.id, true] }'}
            body: {n: '${ .id }'}
          output: {as: '${ {got: ., by: $authorization.scheme} }'}
";

fn secrets() -> BTreeMap<String, Value> {
    BTreeMap::from([
        ("token".to_owned(), json!("t0ken")),
        ("db".to_owned(), json!({"user": "anna", "password": "pa55word"})),
    ])
}

#[test]
fn a_request_is_complete_and_holds_markers_for_secrets() {
    let nonce = Nonce::fresh();
    let mut world = World::with_agents(CALL, |called| Reply::Answer(called.data["body"].clone(), 0));
    let run = std::mem::replace(&mut world.run, Run::new("run-1", definition(CALL)));
    world.run = run.with_secrets(Secrets::new(nonce.clone(), Ok(&secrets())));
    let world = world.run(json!({"id": "a b"}));
    world.yields(json!({"got": {"n": "a b"}, "by": "Basic"}));
    let journal = serde_json::to_string(&world.journal).unwrap();
    assert!(
        !journal.contains("t0ken") && !journal.contains("pa55word"),
        "{journal}"
    );
    let asked = Unmarking::new(&nonce, &secrets()).value(&world.calls[0].data);
    assert_eq!(
        asked,
        json!({
            "function": "http",
            "method": "POST",
            "endpoint": {
                "uri": "http://h/a%20b",
                "authentication": {"scheme": "basic", "with": {"username": "anna", "password": "pa55word"}},
            },
            "headers": {"X-Key": "Key t0ken", "X-Count": "5"},
            "query": {"all": ["a b", true]},
            "body": {"n": "a b"},
        })
    );
}

#[test]
fn the_folded_journal_asks_for_the_same_call() {
    let mut world = World::with_agents(CALL, |_| Reply::Silence);
    let known = Secrets::new(Nonce::fresh(), Ok(&secrets()));
    world.run = Run::new("run-1", definition(CALL)).with_secrets(known);
    world.decide(Stimulus::Start {
        input: json!({"id": 1}),
    });
    let asked = world.run.effects();
    let mut folded = Run::new("run-1", definition(CALL));
    for event in &world.journal {
        let text = serde_json::to_string(event).unwrap();
        folded.apply(&serde_json::from_str(&text).unwrap()).unwrap();
    }
    assert_eq!(folded.effects(), asked);
    let [Effect::Call { request, .. }] = asked.as_slice() else {
        panic!("{asked:?}");
    };
    assert!(has_marker(&serde_json::to_value(request).unwrap()));
    let waiting = &folded.waiting(world.now)[0];
    assert!(
        waiting.message.contains("waits for http://h/1 to answer POST"),
        "{waiting:?}"
    );
}

#[test]
fn secrets_that_are_not_there_fail_the_task_that_needs_them() {
    let run = Run::new("run-1", definition(CALL)).with_secrets(Secrets::new(
        Nonce::fresh(),
        Err("nobody has granted 'token'".to_owned()),
    ));
    let mut world = World::with_agents(CALL, |_| Reply::Silence);
    world.run = run;
    let world = world.run(json!({"id": 1}));
    world.faults(Standard::Authorization, "nobody has granted 'token'");
}

#[test]
fn arguments_that_make_no_request_fail_the_task() {
    for (with, detail) in [
        ("endpoint: '${ 5 }'", "the address must be text"),
        ("endpoint: 'http://h/{list}'", "'{list}' is replaced by text"),
        (
            "endpoint: 'http://h', headers: '${ [1] }'",
            "the headers must be an object",
        ),
        (
            "endpoint: 'http://h', headers: {a: '${ .list }'}",
            "the header 'a' must be text",
        ),
        (
            "endpoint: 'http://h', query: '${ 1 }'",
            "the query must be an object",
        ),
    ] {
        let tasks = format!("do:\n  - ask: {{call: http, with: {{method: get, {with}}}}}\n");
        World::new(&tasks)
            .run(json!({"list": [1]}))
            .faults(Standard::Expression, detail);
    }
}
