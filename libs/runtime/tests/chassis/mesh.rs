//! Behind a sidecar, from outside: the local proxy's word counts, and nobody else's.

use muster_runtime::server;
use muster_runtime::trust::{self, Demand, Mode, mesh};
use muster_testkit::http::{self, Method};

use crate::stage::{Running, start};

const ROUTER: &str = "By=spiffe://d/ns/n/sa/weather;Hash=0;URI=spiffe://d/ns/n/sa/router";

fn listening(demand: Option<Demand>, proxy: &str) -> Running {
    let config = trust::Config {
        mode: Some(Mode::Mesh),
        trust_domain: "d".to_owned(),
        namespace: "n".to_owned(),
        client_certificates: demand,
        mesh: mesh::Config {
            trusted_proxies: vec![proxy.to_owned()],
        },
        ..trust::Config::default()
    };
    start(&server::Config::default(), |chassis| {
        chassis.secure(&config).unwrap()
    })
}

async fn ask(running: &Running, said: &[&str]) -> (u16, String) {
    let headers: Vec<_> = said
        .iter()
        .map(|value| ("x-forwarded-client-cert", *value))
        .collect();
    let answer = http::send(
        running.data,
        Method::GET,
        "/.well-known/agent-card.json",
        &headers,
        Vec::new().into(),
    )
    .await;
    let answer = answer.unwrap();
    (answer.status.as_u16(), answer.text())
}

#[tokio::test]
async fn the_local_proxy_says_who_calls() {
    let running = listening(None, "127.0.0.1");
    let router = (200, "spiffe://d/ns/n/sa/router".to_owned());
    assert_eq!(ask(&running, &[ROUTER]).await, router);
    // What the client has sent stands before what the proxy appends, in the same line or its own.
    let forged = "URI=spiffe://d/ns/n/sa/muster";
    assert_eq!(ask(&running, &[&format!("{forged},{ROUTER}")]).await, router);
    assert_eq!(ask(&running, &[forged, ROUTER]).await, router);
    for (said, status, reason) in [
        (None, 401, "PEER_UNIDENTIFIED"),
        (Some("nonsense"), 401, "PEER_UNIDENTIFIED"),
        (Some("By=x;Hash=1"), 401, "PEER_UNIDENTIFIED"),
        (Some("URI=spiffe://d/ns/n/sa/planning"), 403, "PEER_REFUSED"),
        (Some("URI=spiffe://other/ns/n/sa/router"), 403, "PEER_REFUSED"),
    ] {
        let said: Vec<&str> = said.into_iter().collect();
        let (code, text) = ask(&running, &said).await;
        assert!(code == status && text.contains(reason), "{said:?}: {code} {text}");
    }
    let refused = running
        .health_client()
        .await
        .check(crate::stage::service(""))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), tonic::Code::Unauthenticated);
    assert_eq!(http::get(running.health, "/health").await.unwrap().status, 200);
    let metrics = running.metrics().await;
    assert!(
        metrics.contains(r#"connections_refused_total{why="peer_not_admitted"} 2"#),
        "{metrics}"
    );
    running.stop().await;
}

#[tokio::test]
async fn from_elsewhere_the_header_says_nothing() {
    let strict = listening(None, "127.0.0.6");
    assert_eq!(ask(&strict, &[ROUTER]).await.0, 401);
    strict.stop().await;
    let open = listening(Some(Demand::Optional), "127.0.0.6");
    assert_eq!(ask(&open, &[ROUTER]).await, (200, "nobody".to_owned()));
    open.stop().await;
    // And outside of a mesh nobody reads it.
    let alone = start(&server::Config::default(), |_| {});
    assert_eq!(ask(&alone, &[ROUTER]).await, (200, "nobody".to_owned()));
    alone.stop().await;
}
