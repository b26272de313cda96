//! Authentication: how a call says who it is, and what becomes of that.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use muster_testkit::wait_for;
use serde_json::json;

use crate::harness::{PATIENCE, document};
use crate::secrets::{engine, mirror, with_secrets};
use crate::service::{Reply, Seen, Service};

fn authenticated(service: &Service, path: &str, authentication: &str) -> String {
    format!(
        "  - ask: {{call: http, with: {{method: get, endpoint: {{uri: '{}', authentication: {authentication}}}}}}}\n",
        service.url(path)
    )
}

#[tokio::test]
async fn basic_and_bearer_say_who_asks() {
    let (engine, _secrets) = engine(&[
        ("user", r#"{"username": "anna", "password": "s3cr3t:wörd"}"#),
        ("token", "t0ken-value"),
        ("bearer", r#"{"token": "t0ken-value"}"#),
        ("wrong", r#"{"name": "anna"}"#),
        ("text", "just text"),
    ])
    .await;
    let service = Service::start(mirror).await;
    let basic = "Basic YW5uYTpzM2NyM3Q6d8O2cmQ=";
    for (authentication, expected) in [
        ("{basic: {username: anna, password: 's3cr3t:wörd'}}", basic),
        ("{basic: {use: user}}", basic),
        (
            "{basic: {username: '${ $secrets.user.username }', password: '${ $secrets.user.password }'}}",
            basic,
        ),
        ("{bearer: {token: '${ $secrets.token }'}}", "Bearer t0ken-value"),
        ("{bearer: {use: bearer}}", "Bearer t0ken-value"),
        ("{bearer: {token: '${ .given }'}}", "Bearer g1ven"),
    ] {
        let text = with_secrets(
            "user, token, bearer",
            &authenticated(&service, "/", authentication),
        );
        let output = engine.output(&text, r#"{"given": "g1ven"}"#).await;
        assert_eq!(service.seen().last().unwrap().header("authorization"), expected);
        let shown = output["headers"]["authorization"].as_str().unwrap();
        assert!(!shown.contains(expected.split(' ').nth(1).unwrap()), "{shown}");
    }
    for (secret, words) in [
        ("wrong", "missing field `username`"),
        ("text", "must be an object"),
    ] {
        let text = with_secrets(
            secret,
            &authenticated(&service, "/", &format!("{{basic: {{use: {secret}}}}}")),
        );
        let error = engine.fault(&text).await;
        assert!(
            error.r#type.ends_with("/configuration") && error.detail.contains(words),
            "{error:?}"
        );
    }
}

#[tokio::test]
async fn reusable_authentications_and_what_was_sent() {
    let (engine, _secrets) = engine(&[("token", "t0ken-value")]).await;
    let service = Service::start(mirror).await;
    let text = document(&format!(
        "  - ask:\n      call: http\n      with:\n        method: post\n        endpoint: {{uri: '{}', authentication: {{use: mine}}}}\n        \
         body: {{again: '${{ $authorization.parameter }}', scheme: '${{ $authorization.scheme }}'}}\n      \
         output: {{as: '${{ {{scheme: $authorization.scheme}} }}'}}\n",
        service.url("/")
    ))
    .replace(
        "\ndo:\n",
        "\nuse: {secrets: [token], authentications: {mine: {bearer: {token: '${ $secrets.token }'}}}}\ndo:\n",
    );
    assert_eq!(engine.output(&text, "").await, json!({"scheme": "Bearer"}));
    assert_eq!(
        service.seen()[0].json(),
        json!({"again": "t0ken-value", "scheme": "Bearer"})
    );
    // What was sent is told with markers in the place of secrets.
    let text = text
        .replace(
            "output: {as: '${ {scheme: $authorization.scheme} }'}",
            "output: {as: .request}",
        )
        .replace(
            "method: post",
            "method: post\n        output: response\n        query: {key: '${ $secrets.token }'}",
        );
    let request = engine.output(&text, "").await;
    let sent = service.seen().last().unwrap().clone();
    assert_eq!(
        (sent.header("authorization"), sent.query.as_str()),
        ("Bearer t0ken-value", "key=t0ken-value")
    );
    let shown = request["headers"]["authorization"].as_str().unwrap();
    assert!(shown.starts_with("Bearer muster-secret~"), "{shown}");
    assert!(
        request["uri"]
            .as_str()
            .unwrap()
            .contains("?key=muster-secret~token~"),
        "{request}"
    );
    assert!(!request.to_string().contains("t0ken-value"), "{request}");
}

/// A service that asks for a digest, and checks it as RFC 7616 says.
fn digest_guard(algorithm: &'static str) -> impl Fn(&Seen) -> Reply {
    move |seen: &Seen| {
        let challenge = format!(
            "Digest realm=\"pets, all\", qop=\"auth\", algorithm={algorithm}, nonce=\"n0nce\", opaque=\"0paque\""
        );
        let given = seen.header("authorization");
        let field = |name: &str| {
            let from = given.find(&format!("{name}=")).map(|at| at + name.len() + 1)?;
            let rest = &given[from..];
            Some(match rest.strip_prefix('"') {
                Some(quoted) => quoted.split('"').next()?.to_owned(),
                None => rest.split(',').next()?.trim().to_owned(),
            })
        };
        let hash = |text: String| match algorithm {
            "SHA-256" => hex(&<sha2::Sha256 as sha2::Digest>::digest(text.as_bytes())),
            _ => hex(&<md5::Md5 as md5::Digest>::digest(text.as_bytes())),
        };
        let expected = || {
            let first = hash("anna:pets, all:s3cr3t-word".to_owned());
            let second = hash(format!("{}:{}?{}", seen.method, seen.path, seen.query));
            let (nc, cnonce) = (field("nc")?, field("cnonce")?);
            Some(hash(format!("{first}:n0nce:{nc}:{cnonce}:auth:{second}")))
        };
        if !given.is_empty()
            && expected() == field("response")
            && field("opaque").as_deref() == Some("0paque")
        {
            Reply::json(&json!("welcome"))
        } else {
            Reply::text(401, "who?").with("www-authenticate", &challenge)
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[tokio::test]
async fn a_digest_answers_the_challenge() {
    let (engine, _secrets) = engine(&[("user", r#"{"username": "anna", "password": "s3cr3t-word"}"#)]).await;
    for algorithm in ["SHA-256", "MD5"] {
        let service = Service::start(digest_guard(algorithm)).await;
        let text = with_secrets(
            "user",
            &authenticated(&service, "/pets?a=1", "{digest: {use: user}}"),
        );
        assert_eq!(engine.output(&text, "").await, json!("welcome"), "{algorithm}");
        assert_eq!(service.seen().len(), 2);
        let wrong = document(&authenticated(
            &service,
            "/pets?a=1",
            "{digest: {username: anna, password: wrong}}",
        ));
        let error = engine.fault(&wrong).await;
        assert!(error.r#type.ends_with("/authentication"), "{error:?}");
    }
    let other = Service::start(|_| Reply::text(401, "").with("www-authenticate", "Negotiate")).await;
    let text = with_secrets("user", &authenticated(&other, "/", "{digest: {use: user}}"));
    let error = engine.fault(&text).await;
    assert!(
        error.detail.contains("asks for no authentication by 'digest'"),
        "{error:?}"
    );
}

/// An authority that issues numbered tokens, and a service that takes the newest of them.
async fn authority() -> (Service, Arc<AtomicUsize>) {
    let issued = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&issued);
    let service = Service::start(move |seen| match seen.path.as_str() {
        "/realm/token" | "/realm/oauth2/token" | "/elsewhere/token" => {
            if seen.field("client_secret").is_some_and(|secret| secret == "wr0ng-secret") {
                return Reply {
                    status: 401,
                    ..Reply::json(&json!({"error": "invalid_client", "error_description": "not wr0ng-secret"}))
                };
            }
            let number = count.fetch_add(1, Ordering::SeqCst) + 1;
            Reply::json(&json!({"access_token": format!("issued-{number}"), "token_type": "Bearer", "expires_in": 3600}))
        }
        "/realm/.well-known/openid-configuration" => {
            let host = seen.header("host");
            Reply::json(&json!({"issuer": "x", "token_endpoint": format!("http://{host}/elsewhere/token")}))
        }
        _ => {
            let newest = format!("Bearer issued-{}", count.load(Ordering::SeqCst));
            if seen.header("authorization") == newest {
                mirror(seen)
            } else {
                Reply::text(401, "an old token")
            }
        }
    })
    .await;
    (service, issued)
}

#[tokio::test]
async fn a_token_is_obtained_once_and_again_when_it_is_refused() {
    let (engine, _secrets) = engine(&[("client", "cl1ent-secret")]).await;
    let (service, issued) = authority().await;
    let authentication = format!(
        "{{oauth2: {{authority: '{}', endpoints: {{token: /token}}, grant: client_credentials, client: {{id: me, secret: '${{ $secrets.client }}'}}, scopes: [read, write], audiences: [pets]}}}}",
        service.url("/{realm}")
    );
    let text = with_secrets("client", &authenticated(&service, "/pets", &authentication));
    let input = r#"{"realm": "realm"}"#;
    let output = engine.output(&text, input).await;
    let shown = output["headers"]["authorization"].as_str().unwrap();
    assert!(shown.starts_with("Bearer muster-secret~"), "{shown}");
    let asked = &service.seen()[0];
    assert_eq!(asked.path, "/realm/token");
    for (name, value) in [
        ("grant_type", "client_credentials"),
        ("client_id", "me"),
        ("client_secret", "cl1ent-secret"),
        ("scope", "read write"),
        ("audience", "pets"),
    ] {
        assert_eq!(asked.field(name).as_deref(), Some(value), "{asked:?}");
    }
    engine.output(&text, input).await;
    assert_eq!(issued.load(Ordering::SeqCst), 1, "the token is kept");
    issued.fetch_add(1, Ordering::SeqCst);
    engine.output(&text, input).await;
    assert_eq!(
        issued.load(Ordering::SeqCst),
        3,
        "it was refused, and another one obtained"
    );
}

#[tokio::test]
async fn an_authority_that_refuses_is_an_authentication_error_without_the_secret() {
    let (engine, _secrets) = engine(&[("client", r#"{"grant": "client_credentials", "authority": "X", "client": {"id": "me", "secret": "wr0ng-secret"}}"#)]).await;
    let (service, _) = authority().await;
    let given = format!(
        "{{oauth2: {{authority: '{}', grant: client_credentials, client: {{id: me, secret: '${{ $secrets.client.client.secret }}'}}}}}}",
        service.url("/realm")
    );
    let error = engine
        .fault(&with_secrets("client", &authenticated(&service, "/", &given)))
        .await;
    assert!(error.r#type.ends_with("/authentication"), "{error:?}");
    assert!(
        error.detail.contains("invalid_client") && !error.detail.contains("wr0ng"),
        "{error:?}"
    );
}

#[tokio::test]
async fn grants_and_client_authentications() {
    let (engine, _secrets) = engine(&[]).await;
    let (service, _) = authority().await;
    let base = service.url("/realm");
    let cases: [(&str, &[(&str, &str)]); 5] = [
        (
            "grant: password, username: anna, password: word, client: {id: a, secret: 'b c', authentication: client_secret_basic}",
            &[
                ("grant_type", "password"),
                ("username", "anna"),
                ("password", "word"),
            ],
        ),
        (
            "grant: refresh_token, subject: {token: old, type: x}, client: {id: a, authentication: none}",
            &[
                ("grant_type", "refresh_token"),
                ("refresh_token", "old"),
                ("client_id", "a"),
            ],
        ),
        (
            "grant: 'urn:ietf:params:oauth:grant-type:token-exchange', subject: {token: s, type: 'urn:s'}, actor: {token: t, type: 'urn:t'}, client: {id: a, authentication: none}",
            &[
                ("subject_token", "s"),
                ("subject_token_type", "urn:s"),
                ("actor_token", "t"),
                ("actor_token_type", "urn:t"),
            ],
        ),
        (
            "grant: client_credentials, client: {id: a, assertion: made.else.where, authentication: private_key_jwt}",
            &[
                ("client_assertion", "made.else.where"),
                (
                    "client_assertion_type",
                    "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
                ),
            ],
        ),
        (
            "grant: client_credentials, client: {id: a, secret: b, authentication: client_secret_jwt}",
            &[(
                "client_assertion_type",
                "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
            )],
        ),
    ];
    for (fields, expected) in cases {
        let text = document(&authenticated(
            &service,
            "/",
            &format!("{{oauth2: {{authority: '{base}', {fields}}}}}"),
        ));
        engine.output(&text, "").await;
        let seen = service.seen();
        let asked = seen
            .iter()
            .rev()
            .find(|seen| seen.path == "/realm/oauth2/token")
            .unwrap();
        for (name, value) in expected {
            assert_eq!(asked.field(name).as_deref(), Some(*value), "{fields}: {asked:?}");
        }
        if fields.contains("secret_basic") {
            assert_eq!(asked.header("authorization"), "Basic YTpiK2M=");
        }
    }
    let json = document(&authenticated(
        &service,
        "/",
        &format!(
            "{{oauth2: {{authority: '{base}', grant: client_credentials, client: {{id: j, secret: s}}, request: {{encoding: application/json}}}}}}"
        ),
    ));
    engine.output(&json, "").await;
    let seen = service.seen();
    let asked = seen.iter().rev().find(|seen| seen.method == "POST").unwrap();
    assert_eq!(asked.json()["client_secret"], "s");
}

#[tokio::test]
async fn openid_connect_is_told_where_tokens_are_issued() {
    let (engine, _secrets) = engine(&[]).await;
    let (service, _) = authority().await;
    let fields = "grant: client_credentials, client: {id: a, secret: b}";
    let base = service.url("/realm");
    let text = document(&authenticated(
        &service,
        "/",
        &format!("{{oidc: {{authority: '{base}', {fields}}}}}"),
    ));
    engine.output(&text, "").await;
    let paths: Vec<String> = service.seen().into_iter().map(|seen| seen.path).collect();
    assert_eq!(
        paths,
        ["/realm/.well-known/openid-configuration", "/elsewhere/token", "/"]
    );
    let text = document(&authenticated(
        &service,
        "/",
        &format!("{{oidc: {{authority: '{base}', {fields}, issuers: ['https://mine']}}}}"),
    ));
    let error = engine.fault(&text).await;
    assert!(error.detail.contains("issuers"), "{error:?}");
}

#[tokio::test]
async fn a_run_that_waits_for_an_authority_goes_on_after_a_restart() {
    let (mut engine, _secrets) = engine(&[]).await;
    let open = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let gate = Arc::clone(&open);
    let service = Service::start(
        move |seen| match (seen.path.as_str(), gate.load(Ordering::SeqCst)) {
            ("/oauth2/token", false) => Reply::silence(),
            ("/oauth2/token", true) => Reply::json(&json!({"access_token": "issued"})),
            _ => mirror(seen),
        },
    )
    .await;
    let text = document(&authenticated(
        &service,
        "/",
        &format!(
            "{{oauth2: {{authority: '{}', grant: client_credentials, client: {{id: a, secret: b}}}}}}",
            service.url("")
        ),
    ));
    engine.start_run(&text, "r", "").await.unwrap();
    service.until_seen(1).await;
    let activity = engine.run("r").await.activity;
    assert!(activity[0].contains("obtains a token first"), "{activity:?}");
    engine.stop().await;
    open.store(true, Ordering::SeqCst);
    engine.launch().await;
    wait_for("the run to complete", PATIENCE, async || {
        let run = engine.run("r").await;
        if run.status() == muster_api::workflow::RunStatus::Completed {
            Ok(())
        } else {
            Err(format!("{run:?}"))
        }
    })
    .await;
}
