//! Secrets: what a service is shown, and what nobody else is.

use std::path::Path;

use serde_json::{Value, json};

use crate::harness::{Engine, document};
use crate::service::{Reply, Seen, Service};

/// An engine with secrets of the namespace `test`, and the directory with them.
pub async fn engine(secrets: &[(&str, &str)]) -> (Engine, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    for (name, secret) in secrets {
        put(directory.path(), name, secret);
    }
    let path = directory.path().to_owned();
    let engine = Engine::start_with(|settings| {
        settings.outbound.allow = vec!["127.0.0.0/8".into()];
        settings.secrets.directory = Some(path);
    })
    .await;
    (engine, directory)
}

pub fn put(directory: &Path, name: &str, secret: &str) {
    let namespace = directory.join("test");
    std::fs::create_dir_all(&namespace).unwrap();
    std::fs::write(namespace.join(name), secret).unwrap();
}

/// A document that uses these secrets.
pub fn with_secrets(names: &str, tasks: &str) -> String {
    document(tasks).replace("\ndo:\n", &format!("\nuse: {{secrets: [{names}]}}\ndo:\n"))
}

/// A service that shows what it was sent.
pub fn mirror(seen: &Seen) -> Reply {
    Reply::json(&json!({
        "headers": seen.headers,
        "path": seen.path,
        "query": seen.query,
        "body": seen.body,
    }))
}

/// Everything the engine has kept of its runs, as text.
pub fn kept(directory: &Path) -> String {
    let mut text = String::new();
    for entry in std::fs::read_dir(directory).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            text.push_str(&kept(&path));
        } else if let Ok(bytes) = std::fs::read(&path) {
            text.push_str(&String::from_utf8_lossy(&bytes));
        }
    }
    text
}

pub async fn story(engine: &Engine, id: &str) -> String {
    let events = engine.history(id).await;
    format!("{events:?} {:?}", engine.run(id).await)
}

#[tokio::test]
async fn a_secret_reaches_the_service_and_nothing_else() {
    let (mut engine, _secrets) = engine(&[
        ("token", "s3cr3t-token\n"),
        (
            "db",
            r#"{"username": "anna", "password": "p&ss wörd", "port": 5432}"#,
        ),
    ])
    .await;
    let service = Service::start(mirror).await;
    let text = with_secrets(
        "token, db",
        &format!(
            "  - keep: {{set: {{kept: '${{ $secrets.token }}', all: '${{ $secrets.db }}'}}}}\n  - ask:\n      call: http\n      with:\n        \
             method: post\n        endpoint: {{uri: '${{ \"{}/\" + $secrets.token }}'}}\n        headers: {{x-key: '${{ \"Key \" + .kept }}'}}\n        \
             query: {{p: '${{ .all.password }}'}}\n        body: {{user: '${{ .all.username }}', port: '${{ .all.port }}', both: '${{ \"\\($secrets.token):\\(.kept)\" }}'}}\n",
            service.url("")
        ),
    );
    engine.start_run(&text, "r", "").await.unwrap();
    let run = engine
        .until("r", muster_api::workflow::RunStatus::Completed)
        .await;
    let seen = &service.seen()[0];
    assert_eq!(seen.path, "/s3cr3t-token");
    assert_eq!(seen.header("x-key"), "Key s3cr3t-token");
    assert_eq!(seen.query, "p=p%26ss+w%C3%B6rd");
    assert_eq!(
        seen.json(),
        json!({"user": "anna", "port": 5432, "both": "s3cr3t-token:s3cr3t-token"})
    );
    // The mirror showed the secrets; what was kept of its answer does not.
    let output: Value = serde_json::from_str(&run.output_json).unwrap();
    assert!(
        output["headers"]["x-key"]
            .as_str()
            .unwrap()
            .starts_with("Key muster-secret~token~"),
        "{output}"
    );
    let told = story(&engine, "r").await;
    engine.stop().await;
    let stored = kept(engine.data_directory());
    for confidential in ["s3cr3t-token", "p&ss wörd", "p%26ss"] {
        assert!(!told.contains(confidential), "{told}");
        assert!(!stored.contains(confidential), "{confidential} is on disk");
    }
}

#[tokio::test]
async fn a_secret_that_is_not_there_is_named_and_comes_later() {
    let (engine, secrets) = engine(&[]).await;
    let service = Service::start(mirror).await;
    let text = with_secrets(
        "token",
        &format!(
            "  - ask: {{call: http, with: {{method: get, endpoint: '{}', headers: {{a: '${{ $secrets.token }}'}}}}}}\n",
            service.url("/")
        ),
    );
    let error = engine.fault(&text).await;
    assert!(error.r#type.ends_with("/errors/authorization"), "{error:?}");
    assert_eq!(error.status, 403);
    assert!(error.detail.contains("test/token"), "{error:?}");
    put(secrets.path(), "token", "now it is");
    engine.output(&text, "").await;
    assert_eq!(service.seen()[0].header("a"), "now it is");
    // A call that needs no secret is made without.
    let none = with_secrets(
        "absent",
        &format!(
            "  - ask: {{call: http, with: {{method: get, endpoint: '{}'}}}}\n",
            service.url("/")
        ),
    );
    engine.output(&none, "").await;
    // Neither is one obtained that only an expression of the document reads, nor one for the authentication.
    for tasks in [
        "  - make: {set: {made: '${ $secrets.absent }'}}\n".to_owned(),
        format!(
            "  - ask: {{call: http, with: {{method: get, endpoint: {{uri: '{}', authentication: {{bearer: {{use: absent}}}}}}}}}}\n",
            service.url("/")
        ),
    ] {
        let error = engine.fault(&with_secrets("absent", &tasks)).await;
        assert!(error.r#type.ends_with("/errors/authorization"), "{error:?}");
        assert_eq!(error.status, 403);
    }
    // Another namespace is granted nothing.
    let error = engine
        .fault(&text.replace("namespace: test", "namespace: other"))
        .await;
    assert!(
        error
            .detail
            .contains("the namespace 'other' has no secret 'token'"),
        "{error:?}"
    );
}

#[tokio::test]
async fn what_looks_like_a_marker_is_text() {
    let (engine, _secrets) = engine(&[("token", "s3cr3t-token"), ("other", "0ther-secret")]).await;
    let service = Service::start(mirror).await;
    let text = with_secrets(
        "token, other",
        &format!(
            "  - ask: {{call: http, with: {{method: post, endpoint: '{}', body: '${{ . }}'}}}}\n",
            service.url("/")
        ),
    );
    // A marker of another run, and one whose name was changed.
    let output = engine
        .output(
            &with_secrets("token", "  - a: {set: {m: '${ $secrets.token }'}}\n"),
            "",
        )
        .await;
    let foreign = output["m"].as_str().unwrap().to_owned();
    let forged = foreign.replace("~token~", "~other~");
    engine.output(&text, &json!([foreign, forged]).to_string()).await;
    assert_eq!(service.seen()[0].json(), json!([foreign, forged]));
}

#[tokio::test]
async fn a_secret_does_not_go_into_a_message_to_an_agent() {
    let (engine, _secrets) = engine(&[("token", "s3cr3t-token")]).await;
    let text = with_secrets(
        "token",
        "  - ask: {call: a2a, with: {server: 'agent://a', method: SendMessage, parameters: {message: {parts: [{text: '${ $secrets.token }'}]}}}}\n",
    );
    let error = engine.fault(&text).await;
    assert!(error.r#type.ends_with("/configuration"), "{error:?}");
    assert!(engine.router.calls().is_empty());
}

#[tokio::test]
async fn a_secret_in_an_address_is_encoded_and_recognised_however_it_comes_back() {
    let secret = "a/b#c?d<e>&\"fü g";
    let (engine, _secrets) = engine(&[("odd", secret)]).await;
    let service = Service::start(|seen| {
        let escaped = seen.path.replace("%3C", "\\u003c").replace("%26", "&amp;");
        Reply::json(&json!({"path": seen.path, "query": seen.query, "escaped": escaped}))
    })
    .await;
    let tasks = format!(
        "  - ask:\n      call: http\n      input: {{from: '${{ {{t: $secrets.odd}} }}'}}\n      with: {{method: get, endpoint: '{}', query: {{q: '${{          .t }}'}}}}\n",
        service.url("/echo/{t}")
    );
    let run = engine
        .start_run(&with_secrets("odd", &tasks), "r", "")
        .await
        .unwrap();
    let run = engine
        .until(&run.run_id, muster_api::workflow::RunStatus::Completed)
        .await;
    let seen = service.seen().remove(0);
    assert_eq!(seen.path, "/echo/a%2Fb%23c%3Fd%3Ce%3E%26%22f%C3%BC%20g");
    let sent: Vec<(String, String)> = url::form_urlencoded::parse(seen.query.as_bytes())
        .into_owned()
        .collect();
    assert_eq!(sent, [("q".to_owned(), secret.to_owned())]);
    let output: Value = serde_json::from_str(&run.output_json).unwrap();
    for (field, begins) in [
        ("path", "/echo/muster-secret~odd~"),
        ("query", "q=muster-secret~odd~"),
        ("escaped", "/echo/muster-secret~odd~"),
    ] {
        assert!(output[field].as_str().unwrap().starts_with(begins), "{output}");
    }
    let story = story(&engine, "r").await;
    for part in ["c%3Fd", "c?d", "u003ce", "fü"] {
        assert!(!story.contains(part), "{part}: {story}");
    }
}
