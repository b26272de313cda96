//! A2A over HTTP: the bindings of [`muster_a2a`], and the card.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use http::HeaderMap;
use muster_a2a::card::Served;
use muster_a2a::card::sign::Signer;
use muster_api::a2a::AgentCard;
use muster_runtime::Error;

/// How long a card may be used without asking again.
const CARD_MAX_AGE: Duration = Duration::from_secs(60);

/// The routes of the card, and of the key that it is signed with.
pub(crate) fn card_routes(card: &AgentCard, signer: Option<&Signer>) -> Result<Router, Error> {
    let served = Served::new(card)
        .map_err(|status| Error::Other(format!("the agent's card: {}", status.message())))?;
    let served = Arc::new(served);
    let answer = move |headers: HeaderMap| {
        let served = Arc::clone(&served);
        async move { served.respond(&headers, CARD_MAX_AGE) }
    };
    let key_set = signer.map(Signer::route).unwrap_or_default();
    Ok(Router::new()
        .route("/.well-known/agent-card.json", get(answer))
        .merge(key_set))
}
