//! What is asked of a fleet that wants tokens. Every request carries a trace of its own, by which its line is found.

use std::net::SocketAddr;

use muster_runtime::trust::audit::chain;
use muster_runtime::trust::caller::ON_BEHALF_OF_METADATA;
use muster_runtime::trust::{Caller, Grants, Kind, Role};
use muster_testkit::http::{self, Method, Response};
use muster_testkit::{Issuer, wait_for};
use muster_tests::{Dev, PATIENCE};
use serde_json::{Value, json};

use super::is_written;
use super::table::{self, Attack};

/// More than a caller may send: twice the largest message, as JSON.
const TOO_MANY_BYTES: usize = 9 << 20;

/// One request of an attacker's.
struct Attempt {
    /// Its row in the table.
    attack: Attack,
    /// What it is.
    name: &'static str,
    /// Who sends it: a token, or nobody.
    token: Option<String>,
    method: Method,
    path: String,
    /// Headers beside the usual ones.
    headers: Vec<(&'static str, String)>,
    body: Value,
    /// The status, and a word of the answer.
    answer: (u16, &'static str),
    /// A word of the line.
    why: &'static str,
}

/// A fleet that wants tokens, and who issues them.
struct Guarded {
    dev: Dev,
    issuer: Issuer,
    router: SocketAddr,
}

impl Guarded {
    async fn start() -> Self {
        let issuer = Issuer::new();
        let path = |name: &str| issuer.directory().join(name).display().to_string();
        std::fs::write(
            path("service.token"),
            issuer.token("muster", &["service"], &Value::Null),
        )
        .unwrap();
        let set = [
            "trust.tokens.required=true".to_owned(),
            format!("trust.tokens.jwks_file={}", issuer.key_set().display()),
            format!("trust.tokens.issuers=[\"{}\"]", Issuer::NAME),
            format!("trust.tokens.service_token_file={}", path("service.token")),
            format!("trust.audit.directory={}", issuer.audit().display()),
            "router.api_rate_limit=600".to_owned(),
        ];
        let arguments: Vec<&str> = set.iter().flat_map(|set| ["--set", set]).collect();
        let dev = Dev::start_with(&issuer.directory().join("data"), &arguments).await;
        let url = dev.url("router");
        Self {
            router: url.trim_start_matches("http://").parse().unwrap(),
            dev,
            issuer,
        }
    }

    fn token(&self, subject: &str, roles: &[&str]) -> String {
        self.issuer.token(subject, roles, &Value::Null)
    }

    async fn send(&self, attempt: &Attempt, trace: u32) -> Response {
        let traceparent = format!("00-{trace:032x}-00f067aa0ba902b7-01");
        let bearer = attempt.token.as_ref().map(|token| format!("Bearer {token}"));
        let mut headers = vec![
            ("content-type", "application/json"),
            ("a2a-version", "1.0"),
            ("traceparent", traceparent.as_str()),
        ];
        headers.extend(bearer.as_deref().map(|bearer| ("authorization", bearer)));
        headers.extend(
            attempt
                .headers
                .iter()
                .map(|(name, value)| (*name, value.as_str())),
        );
        let body = if attempt.body.is_null() {
            Vec::new()
        } else {
            attempt.body.to_string().into_bytes()
        };
        http::send(
            self.router,
            attempt.method.clone(),
            &attempt.path,
            &headers,
            body.into(),
        )
        .await
        .unwrap_or_else(|error| panic!("{}: {error}", attempt.name))
    }

    /// A caller's own message.
    async fn asks(&self, token: &str, id: &str) -> Response {
        let attempt = Attempt {
            attack: table::NOBODY,
            name: "a caller's own",
            token: Some(token.to_owned()),
            method: Method::POST,
            path: "/weather/message:send".to_owned(),
            headers: Vec::new(),
            body: message(id),
            answer: (200, ""),
            why: "",
        };
        self.send(&attempt, 1).await
    }
}

fn message(id: &str) -> Value {
    let text = "Seattle 2014-03-01 to 2014-03-02";
    json!({"message": {"messageId": id, "role": "ROLE_USER", "parts": [{"text": text}]}})
}

/// The whole list. `task` is ada's.
fn attempts(guarded: &Guarded, task: &str) -> Vec<Attempt> {
    let ada = guarded.token("ada", &["agent-writer"]);
    let eve = guarded.token("eve", &["agent-writer"]);
    let reader = guarded.token("rob", &["agent-reader"]);
    let narrow = json!({"muster_targets": ["planning"]});
    let narrow = guarded.issuer.token("ned", &["agent-writer"], &narrow);

    let send = |attack, name, token: Option<&str>, answer, why| Attempt {
        attack,
        name,
        token: token.map(str::to_owned),
        method: Method::POST,
        path: "/weather/message:send".to_owned(),
        headers: Vec::new(),
        body: message(name),
        answer,
        why,
    };
    let unknown = (401, "UNAUTHENTICATED");
    let nobody = |name, why| send(table::NOBODY, name, None, unknown, why);
    let role = |name, token: &str, why| send(table::ROLE, name, Some(token), (403, "PERMISSION_DENIED"), why);
    let on_task = |name, method, path: String| Attempt {
        method,
        path,
        body: Value::Null,
        ..send(
            table::OTHERS,
            name,
            Some(&eve),
            (404, "TASK_NOT_FOUND"),
            "another caller's",
        )
    };
    let with = |attempt: Attempt, header: &'static str, value: String| Attempt {
        headers: vec![(header, value)],
        ..attempt
    };
    let sidecar = "By=spiffe://d/ns/a/sa/router;Hash=0;URI=spiffe://d/ns/a/sa/workflow-engine";
    let root = Caller::new(
        Kind::EndUser,
        Some(Issuer::NAME),
        "root",
        [Role::Admin].into_iter().collect(),
        Grants::default(),
    );
    let mut large = message("too large");
    large["message"]["parts"][0]["text"] = json!("x".repeat(TOO_MANY_BYTES));
    large["target"] = json!("weather");

    let bad = guarded.issuer.bad_tokens().into_iter();
    let mut all: Vec<Attempt> = bad
        .map(|bad| send(table::TOKEN, bad.name, Some(&bad.token), unknown, bad.why))
        .collect();
    all.extend([
        nobody("nobody", "neither a token nor a certificate"),
        with(
            nobody("no bearer", "no bearer token"),
            "authorization",
            "Basic YWRhOmFkYQ==".to_owned(),
        ),
        with(
            nobody("a sidecar's header", "neither a token nor a certificate"),
            "x-forwarded-client-cert",
            sidecar.to_owned(),
        ),
        with(
            send(
                table::IMPERSONATION,
                "for somebody else",
                Some(&eve),
                (403, "PERMISSION_DENIED"),
                "only our own services",
            ),
            ON_BEHALF_OF_METADATA,
            root.to_text(),
        ),
        role("a reader sends", &reader, "agent-writer or admin is needed"),
        Attempt {
            path: "/weather".to_owned(),
            body: json!({"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": message("rpc")}),
            answer: (200, "PERMISSION_DENIED"),
            ..role(
                "a reader sends over JSON-RPC",
                &reader,
                "agent-writer or admin is needed",
            )
        },
        Attempt {
            path: "/v1/inbox".to_owned(),
            body: json!({"target": "weather", "message": message("inbox")}),
            ..role(
                "a reader fills the inbox",
                &reader,
                "agent-writer or admin is needed",
            )
        },
        Attempt {
            method: Method::PUT,
            path: "/v1/admin/log-level".to_owned(),
            body: json!({"filter": "off"}),
            ..role("a writer silences the log", &eve, "admin is needed")
        },
        Attempt {
            path: "/v1/tuning:revert".to_owned(),
            body: json!({"all": true}),
            ..role("a writer takes changes back", &eve, "admin is needed")
        },
        Attempt {
            method: Method::GET,
            path: "/v1/admin/refusals".to_owned(),
            body: Value::Null,
            ..role("a writer asks who was refused", &eve, "admin is needed")
        },
        role("an agent that is not granted", &narrow, "no grant for the target"),
        on_task("another's task", Method::GET, format!("/weather/tasks/{task}")),
        on_task(
            "another's task is cancelled",
            Method::POST,
            format!("/weather/tasks/{task}:cancel"),
        ),
        Attempt {
            path: "/v1/inbox".to_owned(),
            body: large,
            ..send(
                table::LARGE,
                "too large",
                Some(&ada),
                (413, "MESSAGE_TOO_LARGE"),
                "message_too_large",
            )
        },
    ]);
    all
}

/// Makes requests until one is refused, and some more; how many were.
async fn flood(guarded: &Guarded) -> u32 {
    let flooder = Attempt {
        attack: table::FLOOD,
        name: "a flood",
        token: Some(guarded.token("flo", &["agent-reader"])),
        method: Method::GET,
        path: "/weather/tasks".to_owned(),
        headers: Vec::new(),
        body: Value::Null,
        answer: (429, "RATE_LIMITED"),
        why: "more requests",
    };
    let mut limited = 0;
    for trace in 0..100 {
        let answer = guarded.send(&flooder, 10_000 + trace).await;
        if answer.status == 429 {
            assert!(answer.text().contains("RATE_LIMITED"), "{}", answer.text());
            limited += 1;
        }
    }
    assert!(limited > 1, "a tenth of 600 may come at once");
    limited
}

/// What an operator sees of all this in one look.
async fn are_seen(guarded: &Guarded, limited: u32) {
    let root = guarded.token("root", &["admin"]);
    let dev = &guarded.dev;
    let status = dev.muster(&["--token", &root, "status", "-o", "json"]).await;
    let status = status.success().json();
    let refusals = &status["router"]["refusals"];
    let callers = refusals["callers"]
        .as_array()
        .unwrap_or_else(|| panic!("{status}"));
    let refused = |reason: &str, who: &str| {
        let is_it = |row: &&Value| row["reason"] == reason && row["who"] == who;
        callers
            .iter()
            .find(is_it)
            .map_or(0, |row| row["times"].as_u64().unwrap())
    };
    assert_eq!(refused("rate_limited", "flo"), u64::from(limited), "{refusals}");
    assert_eq!(refused("login_refused", "127.0.0.1"), 11, "{refusals}");
    assert_eq!(refused("access_refused", "rob"), 3, "{refusals}");
    assert_eq!(refused("impersonation_refused", "eve"), 1, "{refusals}");
    assert_eq!(refused("message_too_large", "127.0.0.1"), 1, "{refusals}");
    let told = dev.muster(&["--token", &root, "status"]).await.success().stdout;
    assert!(
        told.contains("REFUSED CALLER") && told.contains("rate_limited"),
        "{told}"
    );
    // And what the security monitor makes of the log.
    std::fs::write(guarded.issuer.directory().join("root.token"), &root).unwrap();
    let export = "muster audit export audit/router --refused | muster --token-file root.token send --skill threat_detection --file -";
    let directory = guarded.issuer.directory();
    wait_for("what the security monitor finds", PATIENCE, async || {
        let found = dev.shell(directory, export).await;
        let missing: Vec<&str> = [
            "Many refused logins to Muster",
            "Somebody speaks for others",
            "A caller of Muster floods",
        ]
        .into_iter()
        .filter(|title| !found.stdout.contains(title))
        .collect();
        if found.code == 0 && missing.is_empty() {
            Ok(())
        } else {
            Err(format!("{missing:?}: {found:?}"))
        }
    })
    .await;
}

#[tokio::test]
async fn what_is_not_allowed_gets_nothing_and_leaves_a_line_each_time() {
    let guarded = Guarded::start().await;
    let ada = guarded.token("ada", &["agent-writer"]);
    let answer = guarded.asks(&ada, "own").await;
    let task = answer.json()["task"]["id"]
        .as_str()
        .unwrap_or_else(|| panic!("{}", answer.text()))
        .to_owned();

    let attempts = attempts(&guarded, &task);
    for (attempt, trace) in attempts.iter().zip(100_u32..) {
        let answer = guarded.send(attempt, trace).await;
        let (status, word) = attempt.answer;
        let text = answer.text();
        assert_eq!(answer.status.as_u16(), status, "{}: {text}", attempt.name);
        assert!(text.contains(word), "{}: {text}", attempt.name);
        let token = attempt.token.as_deref().filter(|token| token.len() > 20);
        assert!(
            token.is_none_or(|token| !text.contains(token)),
            "{}",
            attempt.name
        );
        assert!(!text.contains("rainy_dates"), "{}: {text}", attempt.name);
    }
    let limited = flood(&guarded).await;

    let log = guarded.issuer.audit().join("router");
    for (attempt, trace) in attempts.iter().zip(100_u32..) {
        let trace = format!("{trace:032x}");
        // What is turned away has no trace: whose it is, is not known yet.
        let is_its = |line: &Value| !attempt.attack.reasons.is_empty() || line["trace_id"] == trace.as_str();
        let is_it = |line: &Value| {
            line["event"] == attempt.attack.event && is_its(line) && line.to_string().contains(attempt.why)
        };
        is_written(&log, attempt.name, is_it).await;
    }
    let is_it = |line: &Value| {
        line["event"] == table::FLOOD.event && line["user"] == "flo" && line["trace_id"].is_string()
    };
    is_written(&log, table::FLOOD.what, is_it).await;
    are_seen(&guarded, limited).await;
    let metrics = guarded.dev.metrics_address("router");
    let rows = [
        table::NOBODY,
        table::TOKEN,
        table::IMPERSONATION,
        table::ROLE,
        table::OTHERS,
        table::FLOOD,
        table::LARGE,
    ];
    table::are_counted(metrics, &rows).await;

    let text = json!(chain::lines(&log).unwrap()).to_string();
    for attempt in &attempts {
        let token = attempt.token.as_deref().filter(|token| token.len() > 20);
        assert!(
            token.is_none_or(|token| !text.contains(token)),
            "{}: its token is in the log",
            attempt.name
        );
    }
    // A flood of refusals is two lines a minute.
    let lines = chain::lines(&log).unwrap();
    let of_the_flood = lines.iter().filter(|line| line["event"] == table::FLOOD.event);
    assert!(of_the_flood.count() <= 2, "{lines:#?}");
    assert_eq!(guarded.asks(&ada, "afterwards").await.status, 200);
}
