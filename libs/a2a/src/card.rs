//! A card as it is served: JSON with a tag, so that clients need not fetch what has not changed; and signatures of cards.
//!
//! [`canonical`] are the bytes that are signed, [`sign`] signs those that we serve, [`trust`] verifies those that we take in.

pub mod canonical;
pub mod sign;
pub mod trust;

use std::time::Duration;

use axum::response::{IntoResponse as _, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use muster_api::a2a::AgentCard;
use sha2::{Digest as _, Sha256};
use tonic::Status;

use crate::codec;

/// A card as it is sent, with the tag that tells whether it has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Served {
    /// JSON.
    pub body: String,
    /// `ETag`, in quotes.
    pub tag: HeaderValue,
}

impl Served {
    /// The card as JSON.
    ///
    /// # Errors
    /// When the card holds what JSON cannot.
    pub fn new(card: &AgentCard) -> Result<Self, Box<Status>> {
        let body = codec::encode::<a2a::AgentCard>(card)?.to_string();
        let digest = Sha256::digest(body.as_bytes());
        let hex: String = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        let tag = HeaderValue::from_str(&format!("\"{hex}\""))
            .map_err(|error| Box::new(Status::internal(error.to_string())))?;
        Ok(Self { body, tag })
    }

    /// The answer to a request with these headers: the card, or that the caller's copy is still good.
    #[must_use]
    pub fn respond(&self, headers: &HeaderMap, max_age: Duration) -> Response {
        let fresh = [
            (header::ETAG, self.tag.clone()),
            (header::CACHE_CONTROL, cache_control(max_age)),
        ];
        if self.is_held(headers) {
            return (StatusCode::NOT_MODIFIED, fresh).into_response();
        }
        let json = [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];
        (fresh, json, self.body.clone()).into_response()
    }

    /// Whether the caller has this version already.
    fn is_held(&self, headers: &HeaderMap) -> bool {
        let Ok(tag) = self.tag.to_str() else { return false };
        headers
            .get_all(header::IF_NONE_MATCH)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .any(|wanted| matches!(wanted.trim(), "*") || wanted.trim().trim_start_matches("W/") == tag)
    }
}

fn cache_control(age: Duration) -> HeaderValue {
    HeaderValue::from_str(&format!("public, max-age={}", age.as_secs())).expect("digits are a header value")
}

/// Reads a card that an agent serves.
///
/// # Errors
/// Says what is wrong with it.
pub fn parse(body: &[u8]) -> Result<AgentCard, String> {
    let value = serde_json::from_slice(body).map_err(|error| format!("the card is no JSON: {error}"))?;
    codec::decode::<a2a::AgentCard>(value).map_err(|status| format!("the card is none: {}", status.message()))
}

/// A refusal as the answer to a request for a card.
#[must_use]
pub fn refused(status: &Status) -> Response {
    crate::rest::failed(status)
}
