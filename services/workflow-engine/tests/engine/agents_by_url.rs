//! Agents by URL: an agent of the SDK, over each of its bindings.

use muster_api::workflow::RunStatus;
use muster_testkit::wait_for;
use serde_json::{Value, json};

use crate::harness::{Engine, PATIENCE, document};
use crate::puppet::{Cards, Stage};

async fn engine() -> Engine {
    Engine::start_with(|settings| settings.outbound.allow = vec!["127.0.0.0/8".to_owned()]).await
}

/// The binding with the address at which the agent speaks it.
fn bindings(agent: &Stage) -> [(&'static str, String); 3] {
    let address = agent.address;
    [
        ("JSONRPC", format!("http://{address}/jsonrpc")),
        ("HTTP+JSON", format!("http://{address}")),
        ("GRPC", address.to_string()),
    ]
}

/// A task that calls; `whom` is `server: …` or `agentCard: …`.
fn task(name: &str, whom: &str, method: &str, parameters: &str, more: &str) -> String {
    format!(
        "  - {name}:\n      call: a2a\n      with:\n        {whom}\n        method: {method}\n        parameters: {parameters}\n{more}"
    )
}

fn call(whom: &str, method: &str, parameters: &str) -> String {
    document(&task("ask", whom, method, parameters, ""))
}

fn say(text: &str) -> String {
    format!("{{message: {{parts: [{{text: '{text}'}}]}}}}")
}

#[tokio::test]
async fn every_method_works_over_every_binding() {
    let (engine, agent) = (engine().await, Stage::open().await);
    for binding in bindings(&agent) {
        let cards = Cards::with(std::slice::from_ref(&binding), None).await;
        let whom = format!("agentCard: {{endpoint: '{}'}}", cards.url());
        let ask =
            async |method: &str, parameters: &str| engine.output(&call(&whom, method, parameters), "").await;
        let (name, _) = &binding;

        let data = "{message: {parts: [{data: {n: 5, half: 0.5, none: null}}]}}";
        let done = ask("SendMessage", data).await;
        assert_eq!(done["status"]["state"], "TASK_STATE_COMPLETED", "{name}");
        assert_eq!(
            done["artifacts"][0]["parts"][0]["data"]["data"],
            json!({"n": 5, "half": 0.5, "none": null}),
            "{name}"
        );
        let streamed = ask("SendStreamingMessage", &say("hello")).await;
        assert_eq!(streamed["status"]["state"], "TASK_STATE_COMPLETED", "{name}");
        let events = ask("message/stream", &say("hello")).await;
        let events = events.as_array().unwrap();
        assert!(
            events.len() >= 3 && events[0].get("task").is_some(),
            "{name}: {events:?}"
        );
        let last = events.last().unwrap();
        assert_eq!(
            last["statusUpdate"]["status"]["state"], "TASK_STATE_COMPLETED",
            "{name}: {last}"
        );

        let id = &done["id"];
        let found = ask("tasks/get", &format!("{{id: {id}, historyLength: 1}}")).await;
        assert_eq!(&found["id"], id, "{name}");
        let listed = ask("ListTasks", "{pageSize: 2, includeArtifacts: false}").await;
        assert_eq!(listed["tasks"].as_array().map(Vec::len), Some(2), "{name}");

        let open = ask("SendMessage", &say("ask")).await;
        assert_eq!(open["status"]["state"], "TASK_STATE_INPUT_REQUIRED", "{name}");
        let snapshot = ask("SubscribeToTask", &format!("{{id: {}}}", open["id"])).await;
        assert_eq!(snapshot["id"], open["id"], "{name}");
        let cancelled = ask("CancelTask", &format!("{{id: {}}}", open["id"])).await;
        assert_eq!(cancelled["status"]["state"], "TASK_STATE_CANCELED", "{name}");
    }
}

#[tokio::test]
async fn what_an_agent_refuses_is_a_failure_of_the_standard_type_over_every_binding() {
    let (engine, agent) = (engine().await, Stage::open().await);
    for binding in bindings(&agent) {
        let cards = Cards::with(std::slice::from_ref(&binding), None).await;
        let whom = format!("agentCard: {{endpoint: '{}'}}", cards.url());
        for (method, parameters, kind, status) in [
            ("SendMessage", say("fail"), "runtime", 500),
            ("SendStreamingMessage", say("fail"), "runtime", 500),
            ("GetTask", "{id: nothing}".to_owned(), "runtime", 404),
            ("CancelTask", "{id: nothing}".to_owned(), "runtime", 404),
            ("SubscribeToTask", "{id: nothing}".to_owned(), "runtime", 404),
            (
                "CreateTaskPushNotificationConfig",
                "{taskId: nothing, url: 'https://example.com'}".to_owned(),
                "runtime",
                404,
            ),
            ("GetExtendedAgentCard", "{}".to_owned(), "runtime", 400),
        ] {
            let error = engine.fault(&call(&whom, method, &parameters)).await;
            let expected = format!("/{kind}");
            assert!(
                error.r#type.ends_with(&expected),
                "{binding:?} {method}: {error:?}"
            );
            let similar = error.status == status || status == 400 && error.status == 409;
            assert!(similar, "{binding:?} {method}: {error:?}");
        }
    }
}

#[tokio::test]
async fn an_agent_that_asks_back_is_answered_in_the_next_task() {
    let (engine, agent) = (engine().await, Stage::open().await);
    for binding in bindings(&agent) {
        let cards = Cards::with(std::slice::from_ref(&binding), None).await;
        let whom = format!("agentCard: {{endpoint: '{}'}}", cards.url());
        let tasks = task("ask", &whom, "SendMessage", &say("ask"), "")
            + "  - choose:\n      switch:\n        - open: {when: '.status.state == \"TASK_STATE_INPUT_REQUIRED\"', then: answer}\n        \
               - done: {then: end}\n"
            + &task(
                "answer",
                &whom,
                "SendMessage",
                "{message: {taskId: '${ .id }', contextId: '${ .contextId }', parts: [{text: Seattle}]}}",
                "",
            );
        let output = engine.output(&document(&tasks), "").await;
        assert_eq!(output["status"]["state"], "TASK_STATE_COMPLETED", "{binding:?}");
        let said = &output["artifacts"][0]["parts"][0]["data"];
        assert_eq!(said["now"], "Seattle", "{binding:?}");
        assert_eq!(said["heard"], json!(["ask", "which city?"]), "{binding:?}");
    }
}

#[tokio::test]
async fn an_agent_is_found_by_its_address_alone() {
    let (engine, agent) = (engine().await, Stage::open().await);
    let address = agent.address;
    let completed =
        |output: &Value| assert_eq!(output["status"]["state"], "TASK_STATE_COMPLETED", "{output}");
    // By the card at the well-known place, by JSON-RPC where there is none, by gRPC as the scheme says.
    for server in [
        format!("http://{address}"),
        format!("http://{address}/jsonrpc"),
        format!("grpc://{address}"),
    ] {
        completed(
            &engine
                .output(
                    &call(&format!("server: '{server}'"), "SendMessage", &say("x")),
                    "",
                )
                .await,
        );
    }
    let cards = Cards::with(&[("JSONRPC", format!("http://{address}/jsonrpc"))], None).await;
    let input = format!(r#"{{"host": "{}", "name": "puppet"}}"#, cards.address);
    for server in [
        format!("server: 'http://{}/team/{{name}}'", cards.address),
        "server: '${ \"http://\\(.host)/team/puppet\" }'".to_owned(),
        format!("server: {{uri: 'http://{}/team/puppet'}}", cards.address),
    ] {
        completed(
            &engine
                .output(&call(&server, "SendMessage", &say("x")), &input)
                .await,
        );
    }
    assert_eq!(cards.reads(), 1, "a card is kept for a while");
}

#[tokio::test]
async fn cards_that_lead_nowhere_say_why() {
    let engine = engine().await;
    let strange = Cards::with(&[("SMOKE", "x".to_owned())], None).await;
    let whom = |url: &str| {
        call(
            &format!("agentCard: {{endpoint: '{url}'}}"),
            "SendMessage",
            &say("x"),
        )
    };
    let error = engine.fault(&whom(&strange.url())).await;
    assert!(
        error.status == 502 && error.detail.contains("SMOKE 1.0"),
        "{error:?}"
    );
    let missing = format!("http://{}/cards/nobody.json", strange.address);
    assert_eq!(engine.fault(&whom(&missing)).await.status, 404);
    let nobody = Cards::with(&[("JSONRPC", "http://127.0.0.1:1/".to_owned())], None).await;
    for _ in 0..2 {
        assert_eq!(engine.fault(&whom(&nobody.url())).await.status, 503);
    }
    assert_eq!(nobody.reads(), 2, "a card that leads nowhere is read again");

    let strict = Engine::start().await;
    let error = strict.fault(&whom(&strange.url())).await;
    assert!(error.r#type.ends_with("/authorization"), "{error:?}");
}

#[tokio::test]
async fn credentials_go_where_the_document_says_and_nowhere_else() {
    let (engine, agent) = (engine().await, Stage::open().await);
    let only = Some("Bearer t0ken-of-the-test");
    let here = Cards::with(&[("GRPC", agent.address.to_string())], only).await;
    let whom = |cards: &Cards| {
        format!(
            "agentCard: {{endpoint: {{uri: '{}', authentication: {{bearer: {{token: t0ken-of-the-test}}}}}}}}",
            cards.url()
        )
    };
    let output = engine
        .output(&call(&whom(&here), "SendMessage", &say("x")), "")
        .await;
    assert_eq!(output["status"]["state"], "TASK_STATE_COMPLETED");
    let bare = call(
        &format!("agentCard: {{endpoint: '{}'}}", here.url()),
        "SendMessage",
        &say("x"),
    );
    let other = here.reads();
    // Found before, but not by whoever does not know the token: the agent itself decides then.
    engine.output(&bare, "").await;
    assert_eq!(here.reads(), other);

    let elsewhere = Cards::with(&[("JSONRPC", "http://127.0.0.2:9/".to_owned())], None).await;
    let error = engine
        .fault(&call(&whom(&elsewhere), "SendMessage", &say("x")))
        .await;
    assert!(error.r#type.ends_with("/authorization"), "{error:?}");
    assert!(error.detail.contains("not sent to another host"), "{error:?}");

    let unknown = Cards::with(&[("GRPC", agent.address.to_string())], Some("Bearer other")).await;
    let error = engine
        .fault(&call(&whom(&unknown), "SendMessage", &say("x")))
        .await;
    assert_eq!(
        (error.r#type.ends_with("/authentication"), error.status),
        (true, 401),
        "{error:?}"
    );
}

#[tokio::test]
async fn cancelling_the_run_reaches_the_agent_over_every_binding_and_method() {
    let (engine, agent) = (engine().await, Stage::open().await);
    let mut count = 0;
    for binding in bindings(&agent) {
        let cards = Cards::with(&[binding], None).await;
        let whom = format!("agentCard: {{endpoint: '{}'}}", cards.url());
        for method in ["SendMessage", "SendStreamingMessage"] {
            let id = format!("run-{count}");
            engine
                .start_run(&call(&whom, method, &say("wait")), &id, "")
                .await
                .unwrap();
            count += 1;
            agent.until(count, count - 1).await;
            engine.cancel(&id).await.unwrap();
            engine.until(&id, RunStatus::Cancelled).await;
            agent.until(count, count).await;
        }
    }
}

#[tokio::test]
async fn a_stream_tells_what_the_agent_does() {
    let (engine, agent) = (engine().await, Stage::open().await);
    let text = call(
        &format!("server: 'http://{}'", agent.address),
        "SendStreamingMessage",
        &say("wait"),
    );
    engine.start_run(&text, "watched", "").await.unwrap();
    wait_for("the agent's words", PATIENCE, async || {
        let activity = engine.run("watched").await.activity;
        let told = activity.iter().any(|line| line.contains("is working: waiting"));
        if told {
            Ok(())
        } else {
            Err(format!("{activity:?}"))
        }
    })
    .await;
    engine.cancel("watched").await.unwrap();
    agent.until(1, 1).await;
}
