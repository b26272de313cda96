//! What a request says about who sends it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use muster_runtime::clock::SharedClock;
use muster_workflow_dsl::document::Scheme;
use muster_workflow_dsl::request::Authentication;
use parking_lot::Mutex;
use serde::Deserialize;

use super::super::session::Session;
use super::super::{Failure, Kind};
use super::oauth2::{self, Authority};
use crate::outbound::Outbound;

/// Most tokens that are kept.
const MOST_TOKENS: usize = 1000;

/// A token is not used any more when so little of its life is left.
const MARGIN: Duration = Duration::from_secs(30);

/// What a request is sent with.
pub(super) enum Credentials {
    /// The value of the header `Authorization`.
    Header {
        value: String,
        /// The key of the token, if it was kept from before.
        reused: Option<String>,
    },
    /// The answer to a challenge that is still to come.
    Digest(User),
}

/// A user with a password.
#[derive(Debug, Clone, Deserialize)]
pub struct User {
    /// Its name.
    pub username: String,
    /// Its password.
    pub password: String,
}

#[derive(Deserialize)]
struct Bearer {
    token: String,
}

/// Makes credentials, and keeps tokens as long as they are good.
pub(super) struct Authenticator {
    outbound: Outbound,
    clock: SharedClock,
    tokens: Mutex<HashMap<String, Slot>>,
}

/// A token, or the place of one that somebody is obtaining: others wait for it.
type Slot = Arc<tokio::sync::Mutex<Option<Token>>>;

#[derive(Clone)]
struct Token {
    value: String,
    /// On the monotonic clock.
    expires: Duration,
}

impl Authenticator {
    pub(super) fn new(outbound: Outbound, clock: SharedClock) -> Self {
        Self {
            outbound,
            clock,
            tokens: Mutex::default(),
        }
    }

    pub(super) async fn credentials(
        &self,
        authentication: &Authentication,
        session: &mut Session,
    ) -> Result<Credentials, Failure> {
        let (parameter, reused) = match authentication.scheme {
            Scheme::Basic => {
                let User { username, password } = session.properties(authentication)?;
                if username.contains(':') {
                    let detail = "authentication by 'basic': a user's name cannot contain ':'";
                    return Err(Failure::new(Kind::Configuration, 400, detail));
                }
                (STANDARD.encode(format!("{username}:{password}")), None)
            }
            Scheme::Bearer => (session.properties::<Bearer>(authentication)?.token, None),
            Scheme::Digest => return Ok(Credentials::Digest(session.properties(authentication)?)),
            scheme @ (Scheme::Oauth2 | Scheme::Oidc) => {
                let authority: Authority = session.properties(authentication)?;
                self.token(scheme, &authority, session).await?
            }
        };
        session.authorize(&parameter);
        Ok(Credentials::Header {
            value: format!("{} {parameter}", authentication.scheme.in_header()),
            reused,
        })
    }

    /// A token of the authority: one that is kept, or a new one.
    async fn token(
        &self,
        scheme: Scheme,
        authority: &Authority,
        session: &Session,
    ) -> Result<(String, Option<String>), Failure> {
        let key = authority.key(scheme);
        let slot = {
            let mut tokens = self.tokens.lock();
            if tokens.len() >= MOST_TOKENS && !tokens.contains_key(&key) {
                // Those that nobody is using at the moment: they are asked for again.
                tokens.retain(|_, slot| Arc::strong_count(slot) > 1);
            }
            Arc::clone(tokens.entry(key.clone()).or_default())
        };
        let mut kept = slot.lock().await;
        let now = self.clock.monotonic();
        if let Some(token) = kept.as_ref().filter(|token| token.expires > now + MARGIN) {
            return Ok((token.value.clone(), Some(key)));
        }
        let issued = oauth2::obtain(&self.outbound, scheme, authority, session, self.clock.now()).await?;
        let value = issued.access_token;
        *kept = issued.expires_in.map(|seconds| Token {
            value: value.clone(),
            expires: now + Duration::from_secs(seconds),
        });
        Ok((value, None))
    }

    /// Forgets a token that was refused.
    pub(super) fn forget(&self, key: &str, value: &str) {
        let slot = self.tokens.lock().get(key).cloned();
        if let Some(slot) = slot
            && let Ok(mut kept) = slot.try_lock()
            && kept.as_ref().is_some_and(|token| value.ends_with(&token.value))
        {
            *kept = None;
        }
    }
}
