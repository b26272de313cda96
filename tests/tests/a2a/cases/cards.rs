//! Agent cards, public and extended.

use muster_runtime::trust::Role;
use serde_json::{Value, json};

use super::list;
use crate::bench::Bench;
use crate::driver::{Binding, Operation};
use crate::errors::{EXTENDED_CARD_NOT_CONFIGURED, UNSUPPORTED_OPERATION, refused};
use crate::puppet::Persona;

pub async fn card_is_discoverable(bench: &Bench) {
    let answer = bench.card(Persona::Whole, &[]).await;
    assert_eq!(
        (answer.status.as_u16(), answer.media_type().as_str()),
        (200, "application/json")
    );
    let card = answer.json();
    for field in ["name", "description", "version"] {
        assert!(
            card[field].as_str().is_some_and(|text| !text.is_empty()),
            "{field}: {card}"
        );
    }
    for field in [
        "supportedInterfaces",
        "defaultInputModes",
        "defaultOutputModes",
        "skills",
    ] {
        assert!(
            card[field].as_array().is_some_and(|list| !list.is_empty()),
            "{field}: {card}"
        );
    }
    assert!(card["capabilities"].is_object(), "capabilities: {card}");
    for skill in card["skills"].as_array().into_iter().flatten() {
        for field in ["id", "name", "description"] {
            assert!(skill[field].is_string(), "skills.{field}: {card}");
        }
        assert!(skill["tags"].is_array(), "skills.tags: {card}");
    }
}

pub async fn card_declares_the_binding(bench: &Bench) {
    let card = bench.card_json(Persona::Whole).await;
    let interfaces = card["supportedInterfaces"].as_array().expect("interfaces");
    let declared = interfaces
        .iter()
        .find(|interface| interface["protocolBinding"] == bench.binding.name());
    let declared = declared.unwrap_or_else(|| panic!("no {}: {card}", bench.binding.name()));
    assert_eq!(declared["protocolVersion"], "1.0", "{declared}");
    let url = declared["url"].as_str().unwrap_or_default();
    assert!(!url.is_empty(), "{declared}");
    assert_eq!(
        url.starts_with("http://"),
        bench.binding != Binding::Grpc,
        "gRPC has a bare host and port, the others a URL: {declared}"
    );
}

pub async fn card_is_cached(bench: &Bench) {
    let fresh = bench.card(Persona::Whole, &[]).await;
    let header = |name: &str| {
        let value = fresh.headers.get(name).and_then(|value| value.to_str().ok());
        value
            .unwrap_or_else(|| panic!("no {name}: {:?}", fresh.headers))
            .to_owned()
    };
    assert!(
        header("cache-control").contains("max-age="),
        "{:?}",
        fresh.headers
    );
    let tag = header("etag");
    for tags in [tag.clone(), format!("\"other\", {tag}"), format!("W/{tag}")] {
        let known = bench.card(Persona::Whole, &[("if-none-match", &tags)]).await;
        assert_eq!(known.status, 304, "If-None-Match: {tags}");
        assert!(known.body.is_empty());
    }
    let changed = bench
        .card(Persona::Whole, &[("if-none-match", "\"other\"")])
        .await;
    assert_eq!(changed.status, 200);
}

pub async fn credentials_are_declared(bench: &Bench) {
    let open = bench.card_json(Persona::Whole).await;
    for field in ["securitySchemes", "securityRequirements"] {
        assert!(open[field].is_null(), "nobody has to show anything: {open}");
    }
    let guarded = bench.guarded().await;
    let ada = guarded.driver("ada", Role::AgentReader);
    let extended = ada.ok(Operation::GetExtendedCard, json!({})).await;
    for card in [guarded.card(), &extended] {
        let declared = &card["securitySchemes"]["bearer"]["httpAuthSecurityScheme"];
        assert_eq!(
            (&declared["scheme"], &declared["bearerFormat"]),
            (&json!("bearer"), &json!("JWT")),
            "{card}"
        );
        let alternatives = list(card, "securityRequirements");
        assert!(
            alternatives.len() == 1 && alternatives[0]["schemes"]["bearer"].is_object(),
            "{card}"
        );
    }
}

pub async fn extended_card_is_served(bench: &Bench) {
    let card = bench.card_json(Persona::Whole).await;
    assert_eq!(card["capabilities"]["extendedAgentCard"], true, "{card}");
    let driver = bench.driver().await;
    let extended = driver.ok(Operation::GetExtendedCard, json!({})).await;
    assert_eq!(extended["name"], card["name"], "{extended}");
    let skills = |card: &Value| -> Vec<String> {
        let ids = list(card, "skills").iter().map(|skill| &skill["id"]);
        ids.map(|id| id.as_str().unwrap_or_default().to_owned()).collect()
    };
    assert_eq!(skills(&card), ["act"], "{card}");
    assert_eq!(skills(&extended), ["act", "hide"], "{extended}");
    assert!(extended["supportedInterfaces"].is_array(), "{extended}");
}

pub async fn extended_card_unsupported(bench: &Bench) {
    let card = bench.card_json(Persona::Plain).await;
    assert_ne!(card["capabilities"]["extendedAgentCard"], true, "{card}");
    let driver = bench.driver_of(Persona::Plain).await;
    let outcome = driver.call(Operation::GetExtendedCard, json!({})).await;
    refused(outcome, UNSUPPORTED_OPERATION, "an extended card");
}

pub async fn extended_card_not_configured(bench: &Bench) {
    let card = bench.card_json(Persona::Strict).await;
    assert_eq!(card["capabilities"]["extendedAgentCard"], true, "{card}");
    let driver = bench.driver_of(Persona::Strict).await;
    let driver = driver.header("a2a-extensions", Some(crate::puppet::REQUIRED_EXTENSION));
    let outcome = driver.call(Operation::GetExtendedCard, json!({})).await;
    refused(outcome, EXTENDED_CARD_NOT_CONFIGURED, "an extended card");
}
