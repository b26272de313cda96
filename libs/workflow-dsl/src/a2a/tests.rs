use super::*;

fn sent(parameters: Value) -> Value {
    translate(Method::SendMessage, &parameters).unwrap_or_else(|error| panic!("{error}"))
}

fn refused(method: Method, parameters: Value) -> (String, String) {
    let Err(Error { pointer, message }) = translate(method, &parameters) else {
        panic!("{parameters}")
    };
    (pointer, message)
}

#[test]
fn the_older_form_becomes_the_newer_one() {
    let made = sent(json!({
        "message": {
            "kind": "message",
            "role": "user",
            "messageId": "m-1",
            "contextId": "c-1",
            "parts": [
                {"kind": "text", "text": "hello"},
                {"type": "text", "text": "again", "metadata": {"a": 1}},
                {"kind": "data", "data": {"city": "Seattle"}},
                {"kind": "file", "file": {"name": "a.csv", "mimeType": "text/csv", "bytes": "YSxi"}},
                {"kind": "file", "file": {"uri": "https://files.example/a.csv"}},
            ],
        },
        "configuration": {"acceptedOutputModes": ["text/plain"], "blocking": false},
        "metadata": {"skill": "x"},
    }));
    let expected = json!({
        "message": {
            "role": "ROLE_USER",
            "messageId": "m-1",
            "contextId": "c-1",
            "parts": [
                {"text": "hello"},
                {"text": "again", "metadata": {"a": 1}},
                {"data": {"city": "Seattle"}},
                {"raw": "YSxi", "filename": "a.csv", "mediaType": "text/csv"},
                {"url": "https://files.example/a.csv"},
            ],
        },
        "configuration": {"acceptedOutputModes": ["text/plain"], "returnImmediately": true},
        "metadata": {"skill": "x"},
    });
    assert_eq!(made, expected);
}

#[test]
fn the_newer_form_stays_as_it_is() {
    let newer = json!({
        "message": {
            "role": "ROLE_AGENT",
            "messageId": "m-1",
            "parts": [{"text": "a"}, {"data": null}, {"raw": "YQ==", "filename": "f", "mediaType": "text/plain"}],
        },
        "configuration": {"returnImmediately": false, "historyLength": 3},
    });
    // `data: null` is no content: A2A's data part holds a value, and an absent one cannot be told from it.
    assert_eq!(refused(Method::SendMessage, newer.clone()).0, "/message/parts/1");
    let mut newer = newer;
    newer["message"]["parts"][1] = json!({"data": [1, 2]});
    assert_eq!(sent(newer.clone()), newer);
}

#[test]
fn a_message_is_from_the_user_unless_it_says_otherwise() {
    assert_eq!(
        sent(json!({"message": {"parts": [{"text": "a"}]}}))["message"]["role"],
        "ROLE_USER"
    );
    assert_eq!(
        sent(json!({"message": {"role": "agent", "parts": [{"text": "a"}]}}))["message"]["role"],
        "ROLE_AGENT"
    );
}

#[test]
fn task_methods_are_checked_and_states_translated() {
    let get = json!({"id": "t-1", "historyLength": 2});
    assert_eq!(translate(Method::GetTask, &get), Ok(get));
    let listed = translate(
        Method::ListTasks,
        &json!({"status": "input-required", "pageSize": 5}),
    );
    assert_eq!(
        listed,
        Ok(json!({"status": "TASK_STATE_INPUT_REQUIRED", "pageSize": 5}))
    );
    assert_eq!(
        refused(Method::CancelTask, json!({})).1,
        "the field 'id' is missing"
    );
    assert_eq!(
        refused(Method::GetTask, json!({"id": 7})),
        ("/id".into(), "must be text".into())
    );
}

#[test]
fn what_cannot_be_translated_is_named() {
    let part = |part: Value| json!({"message": {"parts": [part]}});
    for (parameters, pointer, message) in [
        (json!([]), "", "must be an object"),
        (json!({}), "", "'message' is missing"),
        (json!({"mesage": {}}), "/mesage", "did you mean 'message'"),
        (json!({"message": "hi"}), "/message", "must be an object"),
        (json!({"message": {}}), "/message", "'parts' is missing"),
        (
            json!({"message": {"parts": []}}),
            "/message/parts",
            "at least one part",
        ),
        (
            json!({"message": {"role": "robot", "parts": [{"text": "a"}]}}),
            "/message/role",
            "'user' and 'agent'",
        ),
        (part(json!({})), "/message/parts/0", "must have one of"),
        (
            part(json!({"text": "a", "data": 1})),
            "/message/parts/0",
            "only one of 'text', 'data'",
        ),
        (
            part(json!({"kind": "data", "text": "a"})),
            "/message/parts/0/kind",
            "says 'data'",
        ),
        (part(json!({"text": 5})), "/message/parts/0/text", "must be text"),
        (
            part(json!({"txt": "a"})),
            "/message/parts/0/txt",
            "did you mean 'text'",
        ),
        (
            part(json!({"file": {"name": "a"}})),
            "/message/parts/0/file",
            "either 'bytes'",
        ),
        (
            json!({"message": {"parts": [{"text": "a"}]}, "configuration": {"pushNotificationConfig": {}}}),
            "/configuration/pushNotificationConfig",
            "'url' is missing",
        ),
        (
            json!({"message": {"parts": [{"text": "a"}]}, "configuration": {"blocking": true, "returnImmediately": true}}),
            "/configuration",
            "give one of them",
        ),
    ] {
        let (actual_pointer, actual) = refused(Method::SendMessage, parameters.clone());
        assert_eq!(actual_pointer, pointer, "{parameters}");
        assert!(actual.contains(message), "{parameters}: {actual}");
    }
}

#[test]
fn before_evaluation_expressions_stand_for_anything() {
    for parameters in [
        json!("${ .parameters }"),
        json!({"message": "${ .message }", "configuration": "${ .c }"}),
        json!({"message": {"parts": "${ .parts }"}}),
        json!({"message": {"role": "${ .role }", "parts": ["${ .part }", {"data": "${ . }"}, {"file": "${ .file }"}]}}),
    ] {
        assert_eq!(check(Method::SendMessage, &parameters), Ok(()), "{parameters}");
        assert!(parameters.is_object() || translate(Method::SendMessage, &parameters).is_err());
    }
    let wrong = json!({"message": {"role": "${ .role }", "parts": [{"tekst": "a"}]}});
    assert_eq!(
        check(Method::SendMessage, &wrong).map_err(|error| error.pointer),
        Err("/message/parts/0/tekst".into())
    );
}
