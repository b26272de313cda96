//! Cards lead any client through the router.

use muster_a2a::card::trust::Keys;
use muster_testkit::{http, write_signing_key};
use serde_json::{Value, json};

use crate::harness::Stack;

fn interfaces(card: &Value) -> Vec<(String, String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let list = card["supportedInterfaces"].as_array().expect("a list");
    list.iter()
        .map(|one| {
            (
                text(&one["protocolBinding"]),
                text(&one["url"]),
                text(&one["tenant"]),
            )
        })
        .collect()
}

#[tokio::test]
async fn a_targets_card_names_the_router_and_its_url_works() {
    let stack = Stack::start().await;
    let agent = stack.agent("weather", &["forecasting", "alerts"]).await;
    let address = stack.router.address;
    for target in ["weather", "skill:alerts"] {
        let response = http::get(address, &format!("/{target}/.well-known/agent-card.json"))
            .await
            .unwrap();
        assert_eq!(response.headers["content-type"], "application/json");
        assert_eq!(response.headers["cache-control"], "public, max-age=30");
        let card = response.json();
        assert_eq!(card["name"], "weather");
        assert_eq!(
            interfaces(&card),
            [
                (
                    "JSONRPC".to_owned(),
                    format!("http://{address}/{target}"),
                    String::new()
                ),
                ("GRPC".to_owned(), address.to_string(), target.to_owned()),
                (
                    "HTTP+JSON".to_owned(),
                    format!("http://{address}/{target}"),
                    String::new()
                ),
            ]
        );
        let message = json!({"messageId": target, "role": "ROLE_USER", "parts": [{"text": "x"}]});
        let body =
            json!({"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": {"message": message}});
        crate::harness::post(address, &format!("/{target}"), &body)
            .await
            .unwrap();
    }
    assert_eq!(agent.calls().len(), 2);
}

#[tokio::test]
async fn the_routers_own_card_lists_all_skills_and_is_revalidated_by_its_tag() {
    let stack = Stack::with(|router| router.public_url = "http://agents.example:80".to_owned()).await;
    let _weather = stack.agent("weather", &["forecasting"]).await;
    let _planning = stack.agent("planning", &["scheduling"]).await;
    let path = "/.well-known/agent-card.json";
    let first = http::get(stack.router.address, path).await.unwrap();
    let card = first.json();
    let skills: Vec<&str> = card["skills"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|skill| skill["id"].as_str())
        .collect();
    assert_eq!(skills, ["forecasting", "scheduling"]);
    assert_eq!(interfaces(&card)[0].1, "http://agents.example:80/");

    let tag = first.headers["etag"].to_str().unwrap().to_owned();
    let headers = [("if-none-match", tag.as_str())];
    let ask = async || {
        http::send(stack.router.address, http::Method::GET, path, &headers, "".into())
            .await
            .unwrap()
    };
    assert_eq!(ask().await.status, 304);
    let _another = stack.agent("customer-service", &["inquiry"]).await;
    assert_eq!(ask().await.status, 200);
}

#[tokio::test]
async fn cards_are_signed_by_the_key_that_is_served() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("key.pem");
    write_signing_key(&path);
    let stack = Stack::with(|router| router.card_signing.key_file = Some(path)).await;
    let _weather = stack.agent("weather", &["forecasting"]).await;
    let get = async |path: &str| http::get(stack.router.address, path).await.unwrap();
    let keys = Keys::parse(&get("/.well-known/jwks.json").await.text()).unwrap();
    for path in [
        "/.well-known/agent-card.json",
        "/weather/.well-known/agent-card.json",
    ] {
        let served = get(path).await;
        let card = muster_a2a::card::parse(served.text().as_bytes()).unwrap();
        assert_eq!(keys.verify(&card), Ok(0), "{path}");
        assert_eq!(get(path).await.headers["etag"], served.headers["etag"], "{path}");
        let mut changed = card.clone();
        changed.supported_interfaces[0].url = "http://elsewhere.example/".to_owned();
        assert!(keys.verify(&changed).is_err(), "{path}");
    }
    // So is what the agent itself says to those whom it knows, and the way to it leads through here.
    let request = muster_api::a2a::GetExtendedAgentCardRequest {
        tenant: "weather".to_owned(),
    };
    let extended = stack.client().get_extended_agent_card(request).await.unwrap();
    let extended = extended.into_inner();
    assert_eq!(keys.verify(&extended), Ok(0));
    assert_eq!(extended.skills[0].id, "hidden");
    let router = stack.router.address.to_string();
    for way in &extended.supported_interfaces {
        assert!(way.url.contains(&router), "{way:?}");
    }
    let unsigned = Stack::start().await;
    let none = http::get(unsigned.router.address, "/.well-known/jwks.json").await;
    assert_ne!(none.unwrap().status, 200);
}

#[tokio::test]
async fn the_card_of_an_unknown_agent_is_not_found_with_the_nearest_name() {
    let stack = Stack::start().await;
    let _agent = stack.agent("weather", &["forecasting"]).await;
    let response = http::get(stack.router.address, "/wether/.well-known/agent-card.json")
        .await
        .unwrap();
    assert_eq!(response.status, 404);
    assert!(
        response.text().contains("did you mean 'weather'?"),
        "{}",
        response.text()
    );
}
