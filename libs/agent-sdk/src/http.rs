//! A2A over HTTP: the bindings of [`muster_a2a`], and the card.

use std::sync::Arc;
use std::time::Duration;

use a2a_pb::pbconv;
use axum::Router;
use axum::routing::get;
use http::HeaderMap;
use muster_a2a::card::Served;
use muster_runtime::Error;

/// How long a card may be used without asking again.
const CARD_MAX_AGE: Duration = Duration::from_secs(60);

/// The route of the card.
pub(crate) fn card_route(card: &a2a::AgentCard) -> Result<Router, Error> {
    let served = Served::new(&pbconv::to_proto_agent_card(card))
        .map_err(|status| Error::Other(format!("the agent's card: {}", status.message())))?;
    let served = Arc::new(served);
    let answer = move |headers: HeaderMap| {
        let served = Arc::clone(&served);
        async move { served.respond(&headers, CARD_MAX_AGE) }
    };
    Ok(Router::new().route("/.well-known/agent-card.json", get(answer)))
}
