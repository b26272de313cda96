//! Who may what at a router that tells its callers apart: an attacker gets nothing, on no binding, and leaves a line each time.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;

use muster_api::a2a::{GetTaskRequest, ListTasksRequest};
use muster_api::error::Reason;
use muster_api::router::inbox_service_client::InboxServiceClient;
use muster_api::router::router_service_client::RouterServiceClient;
use muster_api::router::{
    BroadcastRequest, CancelEntryRequest, EnqueueRequest, EntryStatus, GetEntryRequest, GetStatusRequest,
    ListEntriesRequest,
};
use muster_jose::token::{Secret, Signer};
use muster_runtime::trust::audit::chain;
use muster_runtime::trust::caller::ON_BEHALF_OF_METADATA;
use muster_runtime::trust::{Caller, Grants, Kind, Role};
use muster_testkit::http::{self, Method, Response};
use muster_testkit::{FakeAgent, Issuer, wait_for};
use serde_json::{Value, json};
use tonic::{Code, Request, Status};

use crate::harness::{PATIENCE, Service, Stack, error_in, message};

/// A router that wants tokens, with an agent, and who issues them.
struct Guarded {
    stack: Stack,
    agent: FakeAgent,
    issuer: Issuer,
}

impl Guarded {
    async fn start() -> Self {
        let issuer = Issuer::new();
        let stack = Stack::over(Service::registry(0), |config| {
            config.trust.tokens.required = true;
            config.trust.tokens.jwks_file = Some(issuer.key_set());
            config.trust.tokens.issuers = vec![Issuer::NAME.to_owned()];
            config.trust.tokens.max_failures_per_minute = 1_000;
            config.trust.audit.directory = Some(issuer.audit());
        })
        .await;
        let agent = FakeAgent::start("weather").await;
        let request = muster_api::registry::RegisterRequest {
            instance: Some(agent.instance(&["forecasting"])),
        };
        wait_for("the registration", PATIENCE, async || {
            stack.registry_client().register(request.clone()).await
        })
        .await;
        let guarded = Self { stack, agent, issuer };
        let admin = guarded.token("root", &["admin"], json!({}));
        wait_for("the router to see the agent", PATIENCE, async || {
            let answer = guarded
                .http(Method::GET, "/v1/status", Some(&admin), &[], None)
                .await;
            answer.status == 200 && !answer.json()["instances"].as_array().is_none_or(Vec::is_empty)
        })
        .await;
        guarded
    }

    fn token(&self, subject: &str, roles: &[&str], more: Value) -> String {
        self.issuer.token(subject, roles, &more)
    }

    async fn http(
        &self,
        method: Method,
        path: &str,
        token: Option<&str>,
        more: &[(&str, &str)],
        body: Option<Value>,
    ) -> Response {
        let bearer = token.map(|token| format!("Bearer {token}"));
        let mut headers = vec![("content-type", "application/json"), ("a2a-version", "1.0")];
        headers.extend(bearer.as_deref().map(|bearer| ("authorization", bearer)));
        headers.extend(more);
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        http::send(self.stack.router.address, method, path, &headers, body.into())
            .await
            .expect("an answer")
    }

    async fn send(&self, token: Option<&str>, id: &str) -> Response {
        let body = json!({"message": {"messageId": id, "role": "ROLE_USER", "parts": [{"text": "x"}]}});
        self.http(Method::POST, "/weather/message:send", token, &[], Some(body))
            .await
    }

    /// Stops the router; every line of its audit log.
    async fn lines(self) -> Vec<Value> {
        self.stack.router.stop().await;
        let log = self.issuer.audit().join("router");
        chain::verify(&log).expect("the chain is whole");
        chain::lines(&log).unwrap()
    }
}

fn bearing<T>(token: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    let value = format!("Bearer {token}").parse().unwrap();
    request.metadata_mut().insert("authorization", value);
    request
}

fn code<T>(answer: Result<T, Status>) -> Code {
    answer.map_or_else(|status| status.code(), |_| Code::Ok)
}

#[tokio::test]
async fn an_attacker_gets_nothing_and_leaves_a_line_each_time() {
    let guarded = Guarded::start().await;
    let ada = guarded.token("ada", &["agent-writer"], json!({}));
    let eve = guarded.token("eve", &["agent-writer"], json!({}));
    let reader = guarded.token("rob", &["agent-reader"], json!({}));
    let narrow = guarded.token("ned", &["agent-writer"], json!({"muster_targets": ["planning"]}));

    // Tokens that are none, on plain HTTP and on gRPC.
    let tokens = guarded.issuer.bad_tokens();
    for bad in &tokens {
        let answer = guarded.send(Some(&bad.token), bad.name).await;
        assert_eq!(answer.status, 401, "{}: {}", bad.name, answer.text());
        assert!(!answer.text().contains(&bad.token), "{}", bad.name);
        let status = guarded
            .stack
            .client()
            .send_message(bearing(&bad.token, message("weather", "x")))
            .await;
        assert_eq!(code(status), Code::Unauthenticated, "{}", bad.name);
    }
    assert_eq!(guarded.send(None, "nobody").await.status, 401);
    assert!(guarded.agent.calls().is_empty(), "nothing has reached the agent");
    let refused_logins = tokens.len() * 2 + 1;

    // A reader may not have agents work, on no binding.
    assert_eq!(guarded.send(Some(&reader), "r").await.status, 403);
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": {
        "message": {"messageId": "r", "role": "ROLE_USER", "parts": [{"text": "x"}]}}});
    let answer = guarded
        .http(Method::POST, "/weather", Some(&reader), &[], Some(body))
        .await;
    assert!(answer.text().contains("PERMISSION_DENIED"), "{}", answer.text());
    let mut client = guarded.stack.client();
    let answer = client
        .send_message(bearing(&reader, message("weather", "x")))
        .await;
    assert_eq!(code(answer), Code::PermissionDenied);
    // Nor has a writer an agent without a grant for it.
    assert_eq!(guarded.send(Some(&narrow), "n").await.status, 403);
    // Nor does it hear of that agent.
    for (token, seen) in [(&narrow, 0), (&reader, 1)] {
        let status = guarded
            .http(Method::GET, "/v1/status", Some(token), &[], None)
            .await
            .json();
        for rows in ["instances", "agents"] {
            assert_eq!(status[rows].as_array().map_or(0, Vec::len), seen, "{status}");
        }
        assert_eq!(status.to_string().contains("weather"), seen > 0, "{status}");
    }
    assert!(guarded.agent.calls().is_empty());

    // Another caller's task is not there, on no binding, and neither is her message in the inbox.
    let task = guarded.send(Some(&ada), "a1").await.json()["task"]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let path = format!("/weather/tasks/{task}");
    assert_eq!(
        guarded
            .http(Method::GET, &path, Some(&ada), &[], None)
            .await
            .status,
        200
    );
    assert_eq!(
        guarded
            .http(Method::GET, &path, Some(&eve), &[], None)
            .await
            .status,
        404
    );
    let cancel = format!("/tasks/{task}:cancel");
    assert_eq!(
        guarded
            .http(Method::POST, &cancel, Some(&eve), &[], Some(json!({})))
            .await
            .status,
        404
    );
    let get = GetTaskRequest {
        id: task.clone(),
        ..GetTaskRequest::default()
    };
    assert_eq!(
        code(client.get_task(bearing(&eve, get.clone())).await),
        Code::NotFound
    );
    let mut more = message("", "more");
    more.message.as_mut().unwrap().task_id.clone_from(&task);
    assert_eq!(
        code(client.send_message(bearing(&eve, more)).await),
        Code::NotFound
    );
    for (token, seen) in [(&ada, 1), (&eve, 0)] {
        let list = ListTasksRequest {
            tenant: "weather".to_owned(),
            ..ListTasksRequest::default()
        };
        let page = client
            .list_tasks(bearing(token, list))
            .await
            .unwrap()
            .into_inner();
        assert_eq!(
            (page.tasks.len(), page.total_size),
            (seen, i32::try_from(seen).unwrap())
        );
    }
    let mut inbox = InboxServiceClient::new(guarded.stack.channel.clone());
    let enqueue = EnqueueRequest {
        target: "nobody-yet".to_owned(),
        message: Some(message("", "later")),
        ..EnqueueRequest::default()
    };
    let entry = inbox
        .enqueue(bearing(&ada, enqueue))
        .await
        .unwrap()
        .into_inner()
        .entry
        .unwrap();
    let get = GetEntryRequest {
        entry_id: entry.entry_id.clone(),
    };
    assert_eq!(code(inbox.get_entry(bearing(&ada, get.clone())).await), Code::Ok);
    assert_eq!(code(inbox.get_entry(bearing(&eve, get)).await), Code::NotFound);
    let entries = inbox
        .list_entries(bearing(&eve, ListEntriesRequest::default()))
        .await;
    assert!(entries.unwrap().into_inner().entries.is_empty());

    // Nobody but our own services speaks for others.
    let admin = Caller::new(
        Kind::EndUser,
        Some("us"),
        "root",
        [Role::Admin].into_iter().collect(),
        Grants::default(),
    );
    let forged = admin.to_text();
    let answer = guarded
        .http(
            Method::GET,
            &path,
            Some(&eve),
            &[(ON_BEHALF_OF_METADATA, forged.as_str())],
            None,
        )
        .await;
    assert_eq!(answer.status, 403);

    let lines = guarded.lines().await;
    let count = |event: &str| lines.iter().filter(|line| line["event"] == event).count();
    assert_eq!(count("login_refused"), refused_logins, "{lines:#?}");
    assert_eq!(count("impersonation_refused"), 1);
    // Four that have no role or grant, and five for what is another's.
    assert_eq!(count("access_refused"), 9, "{lines:#?}");
    let text = json!(lines).to_string();
    for token in [&ada, &eve, &reader]
        .into_iter()
        .chain(tokens.iter().map(|bad| &bad.token))
    {
        assert!(!text.contains(token.as_str()), "a token is in the log");
    }
    assert!(
        lines
            .iter()
            .any(|line| line["user"] == "ada" && line["event"] == "access_allowed")
    );
}

#[tokio::test]
async fn grants_hold_for_broadcasts_for_tasks_that_go_on_and_for_what_is_shown() {
    let guarded = Guarded::start().await;
    let ada = |more: Value| guarded.token("ada", &["agent-writer"], more);
    let whole = ada(json!({}));
    let nowhere = ada(json!({"muster_namespaces": ["other"]}));
    let narrow = ada(json!({"muster_targets": ["planning"]}));
    let own = ada(json!({"muster_targets": ["weather"]}));
    let skilled = ada(json!({"muster_targets": ["skill:forecasting"]}));

    // A broadcast reaches nobody outside of the caller's namespaces.
    let mut inbox = InboxServiceClient::new(guarded.stack.channel.clone());
    let broadcast = BroadcastRequest {
        skill: "forecasting".to_owned(),
        message: Some(message("", "all")),
        ..BroadcastRequest::default()
    };
    for (token, expected) in [
        (&nowhere, Code::PermissionDenied),
        (&narrow, Code::PermissionDenied),
        (&own, Code::PermissionDenied),
        (&skilled, Code::Ok),
    ] {
        let before = guarded.agent.calls().len();
        let answer = inbox.broadcast(bearing(token, broadcast.clone())).await;
        assert_eq!(code(answer), expected);
        let reached = guarded.agent.calls().len() - before;
        assert_eq!(reached, usize::from(expected == Code::Ok));
    }

    // A task that began with more grants is there for those who could have begun it, and not for others.
    let task = guarded.send(Some(&whole), "a1").await.json()["task"]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let before = guarded.agent.calls().len();
    let mut client = guarded.stack.client();
    for (token, expected) in [
        (&whole, Code::Ok),
        (&own, Code::Ok),
        (&skilled, Code::Ok),
        (&narrow, Code::NotFound),
        (&nowhere, Code::NotFound),
    ] {
        let get = GetTaskRequest {
            id: task.clone(),
            ..GetTaskRequest::default()
        };
        assert_eq!(code(client.get_task(bearing(token, get)).await), expected);
        let path = format!("/tasks/{task}");
        let read = guarded.http(Method::GET, &path, Some(token), &[], None).await;
        assert_eq!(read.status == 200, expected == Code::Ok, "{}", read.text());
        if expected == Code::NotFound {
            let mut more = message("", "more");
            more.message.as_mut().unwrap().task_id.clone_from(&task);
            assert_eq!(code(client.send_message(bearing(token, more)).await), expected);
        }
    }
    assert_eq!(
        guarded.agent.calls().len(),
        before,
        "no message has reached the agent"
    );

    // What is told of agents and targets is told to those who may reach them.
    let later = EnqueueRequest {
        target: "nobody-yet".to_owned(),
        message: Some(message("", "later")),
        ..EnqueueRequest::default()
    };
    inbox.enqueue(bearing(&whole, later)).await.unwrap();
    let mut router = RouterServiceClient::new(guarded.stack.channel.clone());
    for (token, agents, targets) in [(&whole, 1, 1), (&own, 1, 0), (&narrow, 0, 0), (&nowhere, 0, 0)] {
        let status = router.get_status(bearing(token, GetStatusRequest {})).await;
        let status = status.unwrap().into_inner();
        let rows = (status.instances.len(), status.agents.len());
        assert_eq!(rows, (agents, agents), "{status:?}");
        assert_eq!(status.calls.is_empty(), agents == 0, "{status:?}");
        let waiting = status.inbox.unwrap();
        assert_eq!((waiting.pending, waiting.targets.len()), (1, targets));
    }
}

#[tokio::test]
async fn callers_who_choose_the_same_id_for_a_message_are_not_in_each_others_way() {
    let guarded = Guarded::start().await;
    let [ada, eve] = ["ada", "eve"].map(|name| guarded.token(name, &["agent-writer"], json!({})));
    let mut inbox = InboxServiceClient::new(guarded.stack.channel.clone());
    let letter = |text: &str| {
        let mut message = message("", text);
        message.message.as_mut().unwrap().message_id = "1".to_owned();
        EnqueueRequest {
            target: "nobody-yet".to_owned(),
            message: Some(message),
            ..EnqueueRequest::default()
        }
    };
    let mut ids = Vec::new();
    for existed in [false, true] {
        for (token, text) in [(&ada, "of ada"), (&eve, "of eve")] {
            let taken = inbox
                .enqueue(bearing(token, letter(text)))
                .await
                .unwrap()
                .into_inner();
            assert_eq!(taken.existed, existed, "{text}");
            ids.push(taken.entry.unwrap().entry_id);
        }
    }
    assert_eq!(
        (&ids[0], &ids[1]),
        (&ids[2], &ids[3]),
        "the same again is the same"
    );
    assert_eq!(ids[0], "1");
    assert_ne!(ids[0], ids[1]);
    for token in [&ada, &eve] {
        let refused = inbox.enqueue(bearing(token, letter("something else"))).await;
        assert_eq!(error_in(&refused.unwrap_err()).reason, Reason::MessageIdReused);
    }
    let get = |id: &str| GetEntryRequest {
        entry_id: id.to_owned(),
    };
    for (token, text) in [(&ada, "of ada"), (&eve, "of eve")] {
        let got = inbox
            .get_entry(bearing(token, get("1")))
            .await
            .unwrap()
            .into_inner();
        let said = format!("{:?}", got.entry.unwrap().message);
        assert!(said.contains(text), "{said}");
    }
    assert_eq!(
        code(inbox.get_entry(bearing(&ada, get(&ids[1]))).await),
        Code::NotFound
    );
    // Nobody gets at another's place by calling a message like it.
    let mut like = letter("like it");
    like.message
        .as_mut()
        .unwrap()
        .message
        .as_mut()
        .unwrap()
        .message_id = ids[1].clone();
    let taken = inbox.enqueue(bearing(&ada, like)).await.unwrap().into_inner();
    assert_ne!(taken.entry.unwrap().entry_id, ids[1]);
    let cancel = CancelEntryRequest {
        entry_id: "1".to_owned(),
    };
    inbox.cancel_entry(bearing(&eve, cancel)).await.unwrap();
    for (token, status) in [(&ada, EntryStatus::Pending), (&eve, EntryStatus::Dead)] {
        let got = inbox
            .get_entry(bearing(token, get("1")))
            .await
            .unwrap()
            .into_inner();
        assert_eq!(got.entry.unwrap().status(), status);
    }
}

#[tokio::test]
async fn a_service_speaks_for_its_callers_who_are_told_apart() {
    let guarded = Guarded::start().await;
    let engine = guarded.token("workflow-engine", &["service"], json!({}));
    let of = |name: &str| {
        Caller::new(
            Kind::EndUser,
            Some("us"),
            name,
            [Role::AgentWriter].into_iter().collect(),
            Grants::default(),
        )
    };
    let (ada, eve) = (of("ada"), of("eve"));
    let send = async |caller: &Arc<Caller>, text: &str| {
        let mut request = bearing(&engine, message("weather", text));
        request.get_mut().message.as_mut().unwrap().message_id = "the-same".to_owned();
        let value = caller.to_text().parse().unwrap();
        request.metadata_mut().insert(ON_BEHALF_OF_METADATA, value);
        guarded.stack.client().send_message(request).await
    };
    send(&ada, "x").await.unwrap();
    // Answered once for each caller; what another one has sent under that id is another message.
    send(&ada, "x").await.unwrap();
    send(&eve, "y").await.unwrap();
    let reused = send(&ada, "z").await.unwrap_err();
    assert_eq!(error_in(&reused).reason, Reason::MessageIdReused);
    let calls = guarded.agent.calls();
    let said: Vec<_> = calls
        .iter()
        .map(|call| {
            let header = call
                .metadata
                .iter()
                .find(|(name, _)| name == ON_BEHALF_OF_METADATA);
            assert!(call.metadata.iter().all(|(name, _)| name != "authorization"));
            Caller::from_text(&header.unwrap().1).unwrap()
        })
        .collect();
    assert_eq!(said, [ada, eve]);
}

#[tokio::test]
async fn too_many_refused_tokens_from_one_address_end_the_looking_and_known_ones_go_on() {
    let directory = tempfile::tempdir().unwrap();
    let secret = directory.path().join("secret");
    std::fs::write(&secret, "a canary that nobody may ever see, 0123456789").unwrap();
    let stack = Stack::over(Service::registry(0), |config| {
        config.trust.tokens.required = true;
        config.trust.tokens.jwt_secret_key_file = Some(secret);
        config.trust.tokens.max_failures_per_minute = 3;
    })
    .await;
    let sign = |subject: &str| {
        let secret = Secret::new("a canary that nobody may ever see, 0123456789").unwrap();
        let claims = Issuer::claims(subject, &["agent-reader"], &json!({"iss": "muster"}));
        Signer::sign_with(&secret, &claims)
    };
    let ask = async |token: &str| {
        let bearer = format!("Bearer {token}");
        let headers = [("authorization", bearer.as_str())];
        let address = stack.router.address;
        http::send(address, Method::GET, "/v1/status", &headers, Vec::new().into())
            .await
            .unwrap()
    };
    let known = sign("ada");
    assert_eq!(ask(&known).await.status, 200);
    for number in 0..3 {
        assert_eq!(ask(&format!("no{number}")).await.status, 401);
    }
    let limited = ask("more").await;
    assert_eq!(limited.status, 429, "{}", limited.text());
    assert!(limited.text().contains("LOGIN_LIMITED"));
    assert_eq!(
        ask(&sign("eve")).await.status,
        429,
        "not even a good one, if it is new"
    );
    assert_eq!(ask(&known).await.status, 200);
}

#[tokio::test]
async fn lists_are_filled_with_the_callers_own_and_tell_nothing_of_others() {
    let guarded = Guarded::start().await;
    let [ada, eve, bob] = ["ada", "eve", "bob"].map(|name| guarded.token(name, &["agent-writer"], json!({})));
    for round in 0..5 {
        for (name, token) in [("ada", &ada), ("eve", &eve)] {
            let sent = guarded.send(Some(token), &format!("{name} {round}")).await;
            assert_eq!(sent.status, 200, "{}", sent.text());
        }
    }
    let mut client = guarded.stack.client();
    let mut list = async |token: &str, page_token: &str| {
        let list = ListTasksRequest {
            tenant: "weather".to_owned(),
            page_size: Some(2),
            page_token: page_token.to_owned(),
            ..ListTasksRequest::default()
        };
        let listed = client.list_tasks(bearing(token, list)).await;
        listed.map(tonic::Response::into_inner)
    };
    let (mut sizes, mut page_token) = (Vec::new(), String::new());
    loop {
        let page = list(&ada, &page_token).await.unwrap();
        assert_eq!(page.total_size, 5);
        sizes.push(page.tasks.len());
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
        let stolen = list(&eve, &page_token).await.unwrap_err();
        assert_eq!(error_in(&stolen).reason, Reason::InvalidPageToken);
    }
    assert_eq!(sizes, [2, 2, 1], "whatever stands between them");
    let page = list(&bob, "").await.unwrap();
    assert_eq!((page.tasks.len(), page.total_size), (0, 0));
}

#[tokio::test]
async fn every_card_declares_the_token_that_the_router_asks_for() {
    let guarded = Guarded::start().await;
    let address = guarded.stack.router.address;
    let get = async |path: &str| http::get(address, path).await.unwrap();
    for path in [
        "/.well-known/agent-card.json",
        "/weather/.well-known/agent-card.json",
        "/skill:forecasting/.well-known/agent-card.json",
    ] {
        let served = get(path).await;
        let card = served.json();
        let scheme = &card["securitySchemes"]["bearer"]["httpAuthSecurityScheme"];
        assert_eq!(
            (&scheme["scheme"], &scheme["bearerFormat"]),
            (&json!("bearer"), &json!("JWT")),
            "{card}"
        );
        let requirements = card["securityRequirements"].as_array().expect("a list");
        let names: Vec<Vec<&String>> = requirements
            .iter()
            .map(|one| one["schemes"].as_object().expect("schemes").keys().collect())
            .collect();
        assert_eq!(names, [["bearer"]], "{card}");
        assert_eq!(get(path).await.headers["etag"], served.headers["etag"], "{path}");
    }
    // So does the one that is for those whom the router knows.
    let ada = guarded.token("ada", &["agent-writer"], json!({}));
    let extended = guarded
        .http(Method::GET, "/weather/extendedAgentCard", Some(&ada), &[], None)
        .await
        .json();
    assert_eq!(extended["skills"][0]["id"], "hidden", "{extended}");
    assert!(extended["securitySchemes"]["bearer"].is_object(), "{extended}");
}
