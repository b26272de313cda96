//! Tokens of OAuth 2.0 for the router itself (client credentials, RFC 6749, 4.4).
//!
//! A token is obtained when the first call needs it and kept until shortly before it ends. Callers who need the same one wait for
//! the one who obtains it; a failure is told to all who waited and is not kept. A token is kept under who and what it is for,
//! the client's secret included as a digest, so that a new secret means a new token.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderValue, header};
use muster_rpc::outbound::{self, Outbound};
use muster_runtime::clock::SharedClock;
use parking_lot::Mutex;
use reqwest::Method;
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use url::Url;

use super::demand::Authority;

/// How long an authority may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Largest answer of an authority, in bytes.
const LARGEST_ANSWER: usize = 256 * 1024;
/// How long before its end a token is not used any more, or a tenth of its life where that is shorter.
const MARGIN: Duration = Duration::from_secs(30);
/// Life of a token whose authority does not say.
const UNSAID: Duration = Duration::from_secs(60);
/// Most tokens that are kept; who they are for comes from cards.
const MOST_KEPT: usize = 1_024;
/// Longest text of an authority that is repeated.
const LONGEST_SAID: usize = 300;

/// Who asks.
#[derive(Clone, Copy)]
pub(super) struct Client<'c> {
    pub(super) id: &'c str,
    pub(super) secret: &'c str,
}

type Key = [u8; 32];
/// Held by who obtains it.
type Slot = Arc<tokio::sync::Mutex<Option<Arc<Token>>>>;

struct Token {
    text: String,
    /// Until when it is used, on the monotonic clock.
    until: Duration,
}

/// A token that a call was given.
pub(super) struct Issued {
    key: Key,
    token: Arc<Token>,
}

impl Issued {
    pub(super) fn text(&self) -> &str {
        &self.token.text
    }
}

impl std::fmt::Debug for Issued {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Issued(redacted)")
    }
}

/// See the module.
pub(super) struct Tokens {
    outbound: Outbound,
    clock: SharedClock,
    kept: Mutex<HashMap<Key, Slot>>,
}

impl Tokens {
    pub(super) fn new(outbound: Outbound, clock: SharedClock) -> Self {
        Self {
            outbound,
            clock,
            kept: Mutex::default(),
        }
    }

    /// A token of an authority, for these scopes.
    pub(super) async fn get(
        &self,
        agent: &str,
        authority: &Authority<'_>,
        scopes: &[&str],
        client: Client<'_>,
    ) -> Result<Issued, String> {
        let url = authority.url()?;
        let scope = scopes.join(" ");
        let key = key(&[agent, url.as_str(), &scope, client.id, client.secret]);
        let slot = self.slot(key);
        let mut kept = slot.lock().await;
        let now = self.clock.monotonic();
        if let Some(token) = kept.as_ref().filter(|token| token.until > now) {
            return Ok(Issued {
                key,
                token: Arc::clone(token),
            });
        }
        *kept = None;
        let token_url = match authority {
            Authority::Token(_) => url,
            Authority::Discovered(_) => self.discover(&url).await?,
        };
        let answer = self.obtain(&token_url, &scope, client).await?;
        let life = answer.expires_in.map_or(UNSAID, Duration::from_secs);
        let used_for = life.saturating_sub(MARGIN.min(life / 10));
        let token = Arc::new(Token {
            text: answer.access_token,
            until: self.clock.monotonic().saturating_add(used_for),
        });
        *kept = Some(Arc::clone(&token));
        Ok(Issued { key, token })
    }

    /// Uses a token no more.
    pub(super) fn forget(&self, issued: &Issued) {
        let slot = self.kept.lock().get(&issued.key).cloned();
        // Who holds the slot obtains another one already.
        if let Some(slot) = slot
            && let Ok(mut kept) = slot.try_lock()
            && kept.as_ref().is_some_and(|kept| Arc::ptr_eq(kept, &issued.token))
        {
            *kept = None;
        }
    }

    fn slot(&self, key: Key) -> Slot {
        let mut kept = self.kept.lock();
        if kept.len() >= MOST_KEPT && !kept.contains_key(&key) {
            kept.clear();
        }
        Arc::clone(kept.entry(key).or_default())
    }

    /// Where tokens are issued, as a description of OpenID Connect says: on the same host, which is the one that may be
    /// given the secret.
    async fn discover(&self, url: &Url) -> Result<Url, String> {
        #[derive(Deserialize)]
        struct Discovered {
            token_endpoint: String,
        }
        let request = self.outbound.request(Method::GET, url.clone());
        let (status, body) = self.exchange(url, request).await?;
        let shown = outbound::without_credentials(url);
        let found: Discovered = status
            .is_success()
            .then(|| serde_json::from_slice(&body).ok())
            .flatten()
            .ok_or_else(|| format!("'{shown}' answered {status} and does not say where tokens are issued"))?;
        let found: Url = found
            .token_endpoint
            .parse()
            .map_err(|error| format!("'{shown}' names no address for tokens: {error}"))?;
        if found.host_str() != url.host_str() || found.port_or_known_default() != url.port_or_known_default()
        {
            return Err(format!(
                "'{shown}' sends to another host for tokens, '{}'",
                outbound::without_credentials(&found)
            ));
        }
        Ok(found)
    }

    async fn obtain(&self, url: &Url, scope: &str, client: Client<'_>) -> Result<Answer, String> {
        let form = form(scope);
        let encoded = |text: &str| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
        let authorization = basic(&format!("{}:{}", encoded(client.id), encoded(client.secret)));
        let mut authorization =
            HeaderValue::from_str(&authorization).map_err(|_| "the client's id or secret cannot be sent")?;
        authorization.set_sensitive(true);
        let request = self
            .outbound
            .request(Method::POST, url.clone())
            .header(header::AUTHORIZATION, authorization)
            .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(form);
        let (status, body) = self.exchange(url, request).await?;
        let shown = outbound::without_credentials(url);
        if status.is_success() {
            let answer: Answer =
                serde_json::from_slice(&body).map_err(|_| format!("what '{shown}' answered is no token"))?;
            return match answer.token_type.as_deref() {
                None => Ok(answer),
                Some(kind) if kind.eq_ignore_ascii_case("bearer") => Ok(answer),
                Some(_) => Err(format!("'{shown}' issues tokens of another type than bearer")),
            };
        }
        // RFC 6749, 5.2; nothing else of the answer is repeated, because it may hold what was sent.
        let problem: Value = serde_json::from_slice(&body).unwrap_or_default();
        let text = |name: &str| problem.get(name).and_then(Value::as_str).unwrap_or_default();
        let said = [text("error"), text("error_description")].join(" ");
        let said = said.replace(client.secret, "(redacted)");
        let said: String = said.trim().chars().take(LONGEST_SAID).collect();
        Err(format!("'{shown}' issues none: {status} {said}"))
    }

    async fn exchange(
        &self,
        url: &Url,
        request: reqwest::RequestBuilder,
    ) -> Result<(http::StatusCode, Vec<u8>), String> {
        let request = request
            .header(header::ACCEPT, "application/json")
            .timeout(TIMEOUT)
            .build()
            .map_err(|error| outbound::described(&error))?;
        let mut response = self
            .outbound
            .send(request)
            .await
            .map_err(|failure| failure.to_string())?;
        let status = response.status();
        let mut body = Vec::new();
        while let Some(chunk) = response
            .chunk()
            .await
            .map_err(|error| outbound::described(&error))?
        {
            if body.len() + chunk.len() > LARGEST_ANSWER {
                let shown = outbound::without_credentials(url);
                return Err(format!(
                    "'{shown}' answered with more than {LARGEST_ANSWER} bytes"
                ));
            }
            body.extend_from_slice(&chunk);
        }
        Ok((status, body))
    }
}

#[derive(Deserialize)]
struct Answer {
    access_token: String,
    token_type: Option<String>,
    /// Seconds.
    expires_in: Option<u64>,
}

/// What is asked for.
fn form(scope: &str) -> String {
    let mut form = url::form_urlencoded::Serializer::new(String::new());
    form.append_pair("grant_type", "client_credentials");
    if !scope.is_empty() {
        form.append_pair("scope", scope);
    }
    form.finish()
}

/// Basic authentication of `USER:PASSWORD`.
pub(super) fn basic(pair: &str) -> String {
    format!("Basic {}", STANDARD.encode(pair))
}

fn key(parts: &[&str]) -> Key {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.len().to_be_bytes());
        hash.update(part.as_bytes());
    }
    hash.finalize().into()
}
