//! By whatever a kubeconfig says: certificates, and programs that say who one is.

use muster_testkit::{Program, wait_for};
use muster_tests::{PATIENCE, muster};
use serde_json::json;

use crate::api_server::TOKEN;
use crate::operator::{Operator, overlay};

/// A kubeconfig with one context.
fn kubeconfig(operator: &Operator, cluster: serde_json::Value, user: serde_json::Value) {
    let config = json!({
        "current-context": "here",
        "clusters": [{"name": "here", "cluster": cluster}],
        "users": [{"name": "me", "user": user}],
        "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
    });
    operator.file("kubeconfig", &config.to_string());
}

#[tokio::test]
async fn mutual_tls_with_the_authority_and_the_certificate_of_the_kubeconfig() {
    let operator = Operator::new().await;
    let certificates = operator.server.directory().join("certificates");
    let directory = certificates.display().to_string();
    let made = muster(&[], &["certs", "init", &directory]).await;
    assert_eq!(made.code, 0, "{made:?}");
    let read = |name: &str| std::fs::read_to_string(certificates.join(name)).unwrap();
    let both = operator.file("server.pem", &(read("registry.pem") + &read("registry-key.pem")));
    let front = Program::at("haproxy");
    let port = front.ports().data;
    let config = operator.file(
        "haproxy.cfg",
        &format!(
            "defaults\n  mode http\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n\
             frontend tls\n  bind 127.0.0.2:{port} ssl crt {both} ca-file {directory}/bundle.pem verify required\n  default_backend api\n\
             backend api\n  http-request set-header Authorization \"Bearer {TOKEN}\"\n  server one {}\n",
            operator.server.address()
        ),
    );
    let _front = front.arg("-f").arg(config).start();
    wait_for("the front", PATIENCE, async || {
        tokio::net::TcpStream::connect(("127.0.0.2", port)).await.is_ok()
    })
    .await;
    let server = format!("https://127.0.0.2:{port}");
    let known = json!({"server": server, "certificate-authority": "certificates/bundle.pem", "tls-server-name": "registry.agent-system.svc"});
    let me =
        json!({"client-certificate": "certificates/muster.pem", "client-key": "certificates/muster-key.pem"});
    kubeconfig(&operator, known.clone(), me.clone());
    let checked = operator.asked(&["preflight", &overlay("local")]).await;
    assert_eq!(checked["checks"][0]["outcome"], "passed", "{checked}");
    // By way of a proxy, where the environment has one; and not, where it is not for this cluster.
    let mut environment = operator.environment();
    environment.push(("HTTPS_PROXY".to_owned(), "http://127.0.0.1:1".to_owned()));
    let by_proxy = muster(&environment, &["deploy", "status"]).await;
    assert_eq!(by_proxy.code, 5, "{by_proxy:?}");
    environment.push(("NO_PROXY".to_owned(), "127.0.0.2".to_owned()));
    let directly = muster(&environment, &["deploy", "status"]).await;
    assert_eq!(directly.code, 3, "{directly:?}");
    assert!(
        directly.stderr.contains("nothing has been applied"),
        "{directly:?}"
    );
    // Its certificate does not name its address; we have none ourselves; we know nothing of the authority.
    let mut unnamed = known.clone();
    unnamed.as_object_mut().unwrap().remove("tls-server-name");
    kubeconfig(&operator, unnamed, me.clone());
    let other = operator.deploy(&["status"]).await;
    assert_eq!(other.code, 5, "{other:?}");
    kubeconfig(&operator, known, json!({}));
    let nobody = operator.deploy(&["status"]).await;
    assert_eq!(nobody.code, 5, "{nobody:?}");
    kubeconfig(&operator, json!({"server": server}), me);
    let stranger = operator.deploy(&["status"]).await;
    assert_eq!(stranger.code, 5, "{stranger:?}");
    assert!(stranger.stderr.contains("does not answer"), "{stranger:?}");
}

#[tokio::test]
async fn of_several_kubeconfigs_some_need_not_be_there() {
    let operator = Operator::with_local().await;
    let mut environment = operator.environment();
    let known = operator.server.kubeconfig().display().to_string();
    let set = |environment: &mut Vec<(String, String)>, files: &str| {
        environment.retain(|(name, _)| name != "KUBECONFIG");
        environment.push(("KUBECONFIG".to_owned(), files.to_owned()));
    };
    set(&mut environment, &format!("/nowhere:{known}"));
    let found = muster(&environment, &["deploy", "status"]).await;
    assert_eq!(found.code, 0, "{found:?}");
    let other = muster(&environment, &["deploy", "status", "--context", "there"]).await;
    assert_eq!(other.code, 2, "{other:?}");
    assert!(
        other.stderr.contains("no context 'there', only here"),
        "{other:?}"
    );
    set(&mut environment, "/nowhere");
    let none = muster(&environment, &["deploy", "status"]).await;
    assert_eq!(none.code, 2, "{none:?}");
    assert!(none.stderr.contains("/nowhere"), "{none:?}");
}

#[tokio::test]
async fn a_program_says_who_we_are_and_is_asked_again_when_that_is_refused() {
    let operator = Operator::with_local().await;
    let asked = operator.server.directory().join("asked");
    // The first time it says what is out of date.
    let program = operator.file(
        "who-am-i",
        &format!(
            "#!/bin/sh\necho \"$KUBERNETES_EXEC_INFO\" >> {0}\n[ \"$(wc -l < {0})\" = 1 ] && token=old || token=$THE_TOKEN\n\
             printf '{{\"kind\": \"ExecCredential\", \"status\": {{\"token\": \"%s\"}}}}' \"$token\"\n",
            asked.display()
        ),
    );
    let cluster = json!({"server": format!("http://{}", operator.server.address())});
    let exec = |command: &str| {
        json!({"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "sh", "args": [command],
            "env": [{"name": "THE_TOKEN", "value": TOKEN}], "interactiveMode": "Never", "installHint": "ask the platform team"}})
    };
    kubeconfig(&operator, cluster.clone(), exec(&program));
    assert_eq!(operator.asked(&["status"]).await["well"], true);
    let told = std::fs::read_to_string(&asked).unwrap();
    assert_eq!(told.lines().count(), 2, "{told}");
    assert!(told.contains("ExecCredential"), "{told}");
    kubeconfig(&operator, cluster, exec("/nowhere"));
    let none = operator.deploy(&["status"]).await;
    assert_eq!(none.code, 2, "{none:?}");
    assert!(none.stderr.contains("ask the platform team"), "{none:?}");
}
