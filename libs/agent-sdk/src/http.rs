//! A2A over HTTP: the official routers for JSON-RPC, HTTP+JSON and the card, with our refusals made whole.
//!
//! JSON-RPC answers at `/` and at `/jsonrpc`, with or without a slash at the end: the card names the second, the
//! first is where clients look that know only host and port, and some clients append a slash to whatever they read.

use std::sync::Arc;

use a2a::AgentCard;
use a2a_server::StaticAgentCard;
use a2a_server::agent_card::agent_card_router;
use a2a_server::jsonrpc::jsonrpc_router;
use a2a_server::rest::rest_router;
use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use http::{HeaderValue, StatusCode, header};
use muster_api::error::Error;
use serde_json::{Value, json};

use crate::gate::Gate;
use crate::refusal;

/// Largest error answer that is read back; the official routers write a few hundred bytes.
const MAX_ERROR_BYTES: usize = 64 * 1024;

/// Everything that an agent answers over HTTP.
pub(crate) fn routes(gate: Gate, card: AgentCard) -> Router {
    let gate = Arc::new(gate);
    let jsonrpc = jsonrpc_router(Arc::clone(&gate));
    Router::new()
        .merge(jsonrpc.clone())
        .nest_service("/jsonrpc", jsonrpc)
        .merge(rest_router(gate))
        .layer(middleware::from_fn(whole_refusals))
        .merge(agent_card_router(Arc::new(StaticAgentCard::new(card))))
}

/// The official routers write every error with A2A's own reasons and statuses. Where the gate refused for a reason of
/// ours, the answer is written again with that reason.
async fn whole_refusals(request: Request, next: Next) -> Response {
    let (response, refused) = refusal::observed(next.run(request)).await;
    match refused {
        None => response,
        Some(error) => rewrite(response, &error).await,
    }
}

async fn rewrite(response: Response, error: &Error) -> Response {
    let (mut parts, body) = response.into_parts();
    let read = axum::body::to_bytes(body, MAX_ERROR_BYTES).await;
    let Some(mut answer) = read
        .ok()
        .and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok())
    else {
        return StatusCode::from_u16(error.reason.http_status())
            .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
            .into_response();
    };
    let details = refusal::details(error);
    if answer.get("jsonrpc").is_some() {
        answer["error"] = json!({ "code": refusal::CODE, "message": error.message, "data": details });
    } else {
        parts.status =
            StatusCode::from_u16(error.reason.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        answer["error"] = json!({
            "code": error.reason.http_status(),
            "status": upper_snake(&format!("{:?}", error.reason.code())),
            "message": error.message,
            "details": details,
        });
    }
    if let Some(delay) = error.retry_after {
        let seconds = delay.as_secs().max(1);
        parts
            .headers
            .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    parts.headers.remove(header::CONTENT_LENGTH);
    Response::from_parts(parts, Body::from(answer.to_string()))
}

/// `ResourceExhausted` as `RESOURCE_EXHAUSTED`.
fn upper_snake(name: &str) -> String {
    let mut snake = String::new();
    for (index, letter) in name.char_indices() {
        if letter.is_ascii_uppercase() && index > 0 {
            snake.push('_');
        }
        snake.push(letter.to_ascii_uppercase());
    }
    snake
}

#[cfg(test)]
mod tests {
    use super::upper_snake;

    #[test]
    fn code_names_are_as_google_rpc_writes_them() {
        assert_eq!(
            upper_snake(&format!("{:?}", tonic::Code::ResourceExhausted)),
            "RESOURCE_EXHAUSTED"
        );
    }
}
