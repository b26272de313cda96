//! The scripted attacker: one list of attacks, each with what is sent, what is answered, and the line of the audit log that says so. Every
//! attack carries a trace of its own, by which its line is found.
//!
//! What needs no identity to be refused (bytes that come slowly, streams that are reset, handshakes) is in `clients.rs`, `native.rs` and
//! the chassis' own tests.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use muster_jose::Private;
use muster_jose::token::{Secret, Signer};
use muster_runtime::clock::{Clock as _, SystemClock};
use muster_runtime::trust::audit::chain;
use muster_runtime::trust::caller::ON_BEHALF_OF_METADATA;
use muster_runtime::trust::{Caller, Grants, Kind, Role};
use muster_testkit::http::{self, Method, Response};
use muster_testkit::wait_for;
use muster_tests::{Dev, PATIENCE};
use serde_json::{Value, json};

/// More than a caller may send: twice the largest message, as JSON.
const TOO_MANY_BYTES: usize = 9 << 20;

/// One attack.
struct Attack {
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
    /// Event and a word of the line.
    line: (&'static str, &'static str),
}

/// A fleet that wants tokens, and who issues them.
struct Guarded {
    dev: Dev,
    signer: Signer,
    directory: tempfile::TempDir,
    router: SocketAddr,
}

fn claims(subject: &str, roles: &[&str], more: &Value) -> Value {
    let now = SystemClock::default().now().as_second();
    let mut claims =
        json!({"sub": subject, "iss": "us", "aud": "muster", "exp": now + 3_600, "roles": roles});
    if let (Value::Object(claims), Value::Object(more)) = (&mut claims, more) {
        claims.extend(more.clone());
    }
    claims
}

impl Guarded {
    async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (private, _) = Private::generate().unwrap();
        let file = |name: &str, text: &str| -> PathBuf {
            let path = directory.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let keys = file("keys.json", &private.key_set("k1").to_string());
        let signer = Signer::Key(private, "k1".to_owned());
        let service = signer
            .sign(&claims("muster", &["service"], &Value::Null))
            .unwrap();
        let service = file("service.token", &service);
        let config = format!(
            "[trust.tokens]\nrequired = true\njwks_file = {keys:?}\nissuers = [\"us\"]\nservice_token_file = {service:?}\n\
             max_failures_per_minute = 10000\n[trust.audit]\ndirectory = {:?}\n[router]\napi_rate_limit = 600\n",
            directory.path().join("audit")
        );
        let config = file("muster.toml", &config);
        let data = directory.path().join("data");
        let dev = Dev::start_with(&data, &["--config", config.to_str().unwrap()]).await;
        let url = dev.url("router");
        Self {
            router: url.trim_start_matches("http://").parse().unwrap(),
            dev,
            signer,
            directory,
        }
    }

    fn token(&self, subject: &str, roles: &[&str], more: &Value) -> String {
        self.signer.sign(&claims(subject, roles, more)).unwrap()
    }

    async fn send(&self, attack: &Attack, trace: u32) -> Response {
        let traceparent = format!("00-{trace:032x}-00f067aa0ba902b7-01");
        let bearer = attack.token.as_ref().map(|token| format!("Bearer {token}"));
        let mut headers = vec![
            ("content-type", "application/json"),
            ("a2a-version", "1.0"),
            ("traceparent", traceparent.as_str()),
        ];
        headers.extend(bearer.as_deref().map(|bearer| ("authorization", bearer)));
        headers.extend(attack.headers.iter().map(|(name, value)| (*name, value.as_str())));
        let body = if attack.body.is_null() {
            Vec::new()
        } else {
            attack.body.to_string().into_bytes()
        };
        http::send(
            self.router,
            attack.method.clone(),
            &attack.path,
            &headers,
            body.into(),
        )
        .await
        .unwrap_or_else(|error| panic!("{}: {error}", attack.name))
    }
}

fn message(id: &str) -> Value {
    let text = "Seattle 2014-03-01 to 2014-03-02";
    json!({"message": {"messageId": id, "role": "ROLE_USER", "parts": [{"text": text}]}})
}

/// The lines of the router's log.
fn lines(audit: &Path) -> Vec<Value> {
    let files = chain::files(&audit.join("router")).unwrap_or_default();
    let texts = files.iter().map(|file| std::fs::read_to_string(file).unwrap());
    let mut lines = Vec::new();
    for text in texts {
        // The last one may be under way.
        lines.extend(text.lines().filter_map(|line| serde_json::from_str(line).ok()));
    }
    lines
}

/// The whole list. `task` is ada's.
fn attacks(guarded: &Guarded, task: &str) -> Vec<Attack> {
    let nothing = Value::Null;
    let ada = guarded.token("ada", &["agent-writer"], &nothing);
    let eve = guarded.token("eve", &["agent-writer"], &nothing);
    let reader = guarded.token("rob", &["agent-reader"], &nothing);
    let narrow = guarded.token("ned", &["agent-writer"], &json!({"muster_targets": ["planning"]}));
    let Signer::Key(own, _) = &guarded.signer else {
        unreachable!("it was made of a key")
    };
    let (stranger, _) = Private::generate().unwrap();
    let good = claims("ada", &["admin"], &nothing);
    let encoded = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let unsigned = format!("{}.{}.", encoded(&json!({"alg": "none"})), encoded(&good));
    let foreign = Signer::Key(stranger, "k1".to_owned()).sign(&good).unwrap();
    let public = Secret::new(&own.key_set("k1").to_string()).unwrap();
    let confused = Signer::sign_with(&public, &good);
    let admin = |more: Value| guarded.token("ada", &["admin"], &more);

    let send = |name, token: Option<&str>, answer, line| Attack {
        name,
        token: token.map(str::to_owned),
        method: Method::POST,
        path: "/weather/message:send".to_owned(),
        headers: Vec::new(),
        body: message(name),
        answer,
        line,
    };
    let login = |name, token: &str, why| {
        send(
            name,
            Some(token),
            (401, "UNAUTHENTICATED"),
            ("login_refused", why),
        )
    };
    let on_task = |name, method, path: String, token: &str| Attack {
        method,
        path,
        body: Value::Null,
        ..send(
            name,
            Some(token),
            (404, "TASK_NOT_FOUND"),
            ("access_refused", "another caller's"),
        )
    };
    let with = |attack: Attack, header: &'static str, value: String| Attack {
        headers: vec![(header, value)],
        ..attack
    };
    let sidecar = "By=spiffe://d/ns/a/sa/router;Hash=0;URI=spiffe://d/ns/a/sa/workflow-engine";
    let root = Caller::new(
        Kind::EndUser,
        Some("us"),
        "root",
        [Role::Admin].into_iter().collect(),
        Grants::default(),
    );
    let denied = (403, "PERMISSION_DENIED");
    let mut large = message("too large");
    large["message"]["parts"][0]["text"] = json!("x".repeat(TOO_MANY_BYTES));
    vec![
        send(
            "nobody",
            None,
            (401, "UNAUTHENTICATED"),
            ("login_refused", "neither a token nor a certificate"),
        ),
        with(
            send(
                "no bearer",
                None,
                (401, "UNAUTHENTICATED"),
                ("login_refused", "no bearer token"),
            ),
            "authorization",
            "Basic YWRhOmFkYQ==".to_owned(),
        ),
        login("nonsense", "nonsense", "malformed"),
        login("expired", &admin(json!({"exp": 1})), "expired"),
        login(
            "too early",
            &admin(json!({"nbf": 99_999_999_999_u64})),
            "not_yet_valid",
        ),
        login("for another", &admin(json!({"aud": "other"})), "audience"),
        login("of another", &admin(json!({"iss": "them"})), "issuer"),
        login("unsigned", &unsigned, "algorithm"),
        login("foreign", &foreign, "signature"),
        login("confused algorithms", &confused, "algorithm"),
        with(
            send(
                "a sidecar's header",
                None,
                (401, "UNAUTHENTICATED"),
                ("login_refused", "neither a token nor a certificate"),
            ),
            "x-forwarded-client-cert",
            sidecar.to_owned(),
        ),
        with(
            send(
                "for somebody else",
                Some(&eve),
                denied,
                ("impersonation_refused", "only our own services"),
            ),
            ON_BEHALF_OF_METADATA,
            root.to_text(),
        ),
        send(
            "a reader sends",
            Some(&reader),
            denied,
            ("access_refused", "agent-writer or admin is needed"),
        ),
        Attack {
            path: "/weather".to_owned(),
            body: json!({"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": message("rpc")}),
            ..send(
                "a reader sends over JSON-RPC",
                Some(&reader),
                (200, "PERMISSION_DENIED"),
                ("access_refused", "agent-writer or admin is needed"),
            )
        },
        Attack {
            path: "/v1/inbox".to_owned(),
            body: json!({"target": "weather", "message": message("inbox")}),
            ..send(
                "a reader fills the inbox",
                Some(&reader),
                denied,
                ("access_refused", "agent-writer or admin is needed"),
            )
        },
        Attack {
            method: Method::PUT,
            path: "/v1/admin/log-level".to_owned(),
            body: json!({"filter": "off"}),
            ..send(
                "a writer silences the log",
                Some(&eve),
                denied,
                ("access_refused", "admin is needed"),
            )
        },
        Attack {
            path: "/v1/tuning:revert".to_owned(),
            body: json!({"all": true}),
            ..send(
                "a writer takes changes back",
                Some(&eve),
                denied,
                ("access_refused", "admin is needed"),
            )
        },
        Attack {
            method: Method::GET,
            path: "/v1/admin/refusals".to_owned(),
            body: Value::Null,
            ..send(
                "a writer asks who was refused",
                Some(&eve),
                denied,
                ("access_refused", "admin is needed"),
            )
        },
        send(
            "an agent that is not granted",
            Some(&narrow),
            denied,
            ("access_refused", "no grant for the target"),
        ),
        on_task(
            "another's task",
            Method::GET,
            format!("/weather/tasks/{task}"),
            &eve,
        ),
        on_task(
            "another's task is cancelled",
            Method::POST,
            format!("/weather/tasks/{task}:cancel"),
            &eve,
        ),
        Attack {
            path: "/v1/inbox".to_owned(),
            body: {
                let mut request = json!({"target": "weather"});
                request["message"] = large.clone();
                request
            },
            ..send(
                "too large",
                Some(&ada),
                (413, "TOO_LARGE"),
                ("access_allowed", "InboxService/Enqueue"),
            )
        },
    ]
}

#[tokio::test]
async fn the_scripted_attacker_gets_nothing_and_leaves_a_line_each_time() {
    let guarded = Guarded::start().await;
    let ada = guarded.token("ada", &["agent-writer"], &Value::Null);
    let asked = Attack {
        name: "ada's own",
        token: Some(ada),
        method: Method::POST,
        path: "/weather/message:send".to_owned(),
        headers: Vec::new(),
        body: message("own"),
        answer: (200, ""),
        line: ("access_allowed", ""),
    };
    let answer = guarded.send(&asked, 1).await;
    let task = answer.json()["task"]["id"]
        .as_str()
        .unwrap_or_else(|| panic!("{}", answer.text()))
        .to_owned();

    let attacks = attacks(&guarded, &task);
    for (attack, trace) in attacks.iter().zip(100_u32..) {
        let answer = guarded.send(attack, trace).await;
        let (status, word) = attack.answer;
        let text = answer.text();
        assert_eq!(answer.status.as_u16(), status, "{}: {text}", attack.name);
        assert!(text.contains(word), "{}: {text}", attack.name);
        let token = attack.token.as_deref().filter(|token| token.len() > 20);
        assert!(token.is_none_or(|token| !text.contains(token)), "{}", attack.name);
        assert!(!text.contains("rainy_dates"), "{}: {text}", attack.name);
    }

    // A flood: what is above the limit is refused, and the caller is known by name to the operator alone.
    let flooder = Attack {
        name: "a flood",
        token: Some(guarded.token("flo", &["agent-reader"], &Value::Null)),
        method: Method::GET,
        path: "/weather/tasks".to_owned(),
        headers: Vec::new(),
        body: Value::Null,
        answer: (429, "RATE_LIMITED"),
        line: ("", ""),
    };
    let mut limited = 0;
    for trace in 0..100 {
        limited += u32::from(guarded.send(&flooder, 10_000 + trace).await.status == 429);
    }
    assert!(limited > 0, "a tenth of 600 may come at once");
    let root = guarded.token("root", &["admin"], &Value::Null);
    let status = guarded
        .dev
        .muster(&["--token", &root, "status", "-o", "json"])
        .await
        .success()
        .json();
    let refusals = &status["router"]["refusals"];
    let callers = refusals["callers"]
        .as_array()
        .unwrap_or_else(|| panic!("{status}"));
    let refused = |reason: &str, who: &str| {
        let is_it = |row: &&Value| {
            row["reason"] == reason && row["who"].as_str().is_some_and(|name| name.contains(who))
        };
        callers
            .iter()
            .find(is_it)
            .map_or(0, |row| row["times"].as_u64().unwrap())
    };
    assert_eq!(refused("rate_limited", "flo"), u64::from(limited), "{refusals}");
    assert_eq!(refused("login_refused", "127.0.0.1"), 11, "{refusals}");
    assert_eq!(refused("access_refused", "rob"), 3, "{refusals}");
    assert_eq!(refused("impersonation_refused", "eve"), 1, "{refusals}");
    let told = guarded
        .dev
        .muster(&["--token", &root, "status"])
        .await
        .success()
        .stdout;
    assert!(
        told.contains("REFUSED CALLER") && told.contains("rate_limited"),
        "{told}"
    );

    let audit = guarded.directory.path().join("audit");
    for (attack, trace) in attacks.iter().zip(100_u32..) {
        let (event, word) = attack.line;
        let trace = format!("{trace:032x}");
        wait_for(attack.name, PATIENCE, async || {
            let all: Vec<Value> = lines(&audit)
                .into_iter()
                .filter(|line| line["trace_id"] == trace.as_str())
                .collect();
            let is_it = |line: &&Value| line["event"] == event && line.to_string().contains(word);
            if all.iter().any(|line| is_it(&line)) {
                Ok(())
            } else {
                Err(format!("{all:?}"))
            }
        })
        .await;
    }
    let text = json!(lines(&audit)).to_string();
    for attack in &attacks {
        let token = attack.token.as_deref().filter(|token| token.len() > 20);
        assert!(
            token.is_none_or(|token| !text.contains(token)),
            "{}: its token is in the log",
            attack.name
        );
    }
}
