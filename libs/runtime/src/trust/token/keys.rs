//! Where the keys are that tokens are verified with, and how long they are good.

use std::sync::Arc;
use std::time::Duration;

use muster_jose::key::{self, Public};
use muster_jose::token::Secret;
use muster_rpc::outbound::{self, Outbound};
use muster_rpc::reread::Reread;
use parking_lot::Mutex;
use url::Url;

use super::config::key_url;
use super::{Config, Unverified};
use crate::clock::SharedClock;

/// Largest key set, and largest file of a secret.
pub(super) const LARGEST: u64 = 1 << 20;
/// How long a key set may take to come.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
/// How long keys are good that cannot be fetched again.
pub(super) const STALE: Duration = Duration::from_secs(24 * 3600);

/// Where the shared secret is.
pub(super) enum Source {
    Here(Arc<Secret>),
    File(Reread<Secret>),
}

impl Source {
    pub(super) fn get(&self, now: Duration) -> Result<Arc<Secret>, String> {
        match self {
            Self::Here(secret) => Ok(Arc::clone(secret)),
            Self::File(file) => file.get(now),
        }
    }
}

/// A key set at a URL.
pub(super) struct Remote {
    url: Url,
    outbound: Outbound,
    refresh: Duration,
    pause: Duration,
    known: Mutex<Known>,
    /// One fetch at a time.
    fetching: tokio::sync::Mutex<()>,
}

#[derive(Default, Clone)]
struct Known {
    keys: Arc<Vec<Public>>,
    fetched: Option<Duration>,
    tried: Option<Duration>,
}

/// Why keys are looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Want {
    /// A token is there.
    Token,
    /// A token names a key that is not known.
    UnknownKey,
}

impl Known {
    /// Whether the set is to be fetched now.
    fn is_due(&self, want: Want, now: Duration, refresh: Duration, pause: Duration) -> bool {
        let since = |then: Option<Duration>| then.map(|then| now.saturating_sub(then));
        let rested = since(self.tried).is_none_or(|since| since >= pause);
        let old = since(self.fetched).is_none_or(|since| since >= refresh);
        rested && (old || want == Want::UnknownKey)
    }

    /// The keys, as long as they are good.
    fn good(&self, now: Duration) -> Option<Arc<Vec<Public>>> {
        let fetched = self.fetched?;
        (now.saturating_sub(fetched) < STALE).then(|| Arc::clone(&self.keys))
    }
}

impl Remote {
    pub(super) fn new(config: &Config) -> Result<Self, String> {
        let url = key_url(&config.jwks_url)?;
        let host = url.host_str().unwrap_or_default();
        let allowed = outbound::Config {
            allow: vec![host.trim_matches(['[', ']']).to_owned()],
            certificate_authorities: None,
        };
        Ok(Self {
            outbound: Outbound::new(&allowed, "trust.tokens.jwks_url").map_err(|error| error.to_string())?,
            url,
            refresh: Duration::from_secs(config.jwks_refresh_seconds),
            pause: Duration::from_secs(config.jwks_pause_seconds),
            known: Mutex::default(),
            fetching: tokio::sync::Mutex::default(),
        })
    }

    pub(super) async fn keys(&self, want: Want, clock: &SharedClock) -> Result<Arc<Vec<Public>>, Unverified> {
        let is_due = |now| self.known.lock().is_due(want, now, self.refresh, self.pause);
        if is_due(clock.monotonic()) {
            let _one = self.fetching.lock().await;
            let now = clock.monotonic();
            // Somebody else may have fetched it meanwhile.
            if is_due(now) {
                self.known.lock().tried = Some(now);
                match tokio::time::timeout(FETCH_TIMEOUT, self.fetch()).await {
                    Ok(Ok(keys)) => {
                        let mut known = self.known.lock();
                        known.keys = Arc::new(keys);
                        known.fetched = Some(now);
                    }
                    Ok(Err(what)) => {
                        tracing::warn!(url = %outbound::without_credentials(&self.url), what, "the key set cannot be fetched")
                    }
                    Err(_) => {
                        tracing::warn!(url = %outbound::without_credentials(&self.url), "the key set does not come in time")
                    }
                }
            }
        }
        let known = self.known.lock().clone();
        known.good(clock.monotonic()).ok_or_else(|| {
            Unverified::NoKeys(format!(
                "{} does not give its keys",
                outbound::without_credentials(&self.url)
            ))
        })
    }

    async fn fetch(&self) -> Result<Vec<Public>, String> {
        let request = self
            .outbound
            .request(http::Method::GET, self.url.clone())
            .build()
            .map_err(|error| error.to_string())?;
        let mut response = self
            .outbound
            .send(request)
            .await
            .map_err(|error| error.to_string())?;
        if !response.status().is_success() {
            return Err(format!("it answers {}", response.status()));
        }
        let mut body = Vec::new();
        while let Some(piece) = response
            .chunk()
            .await
            .map_err(|error| outbound::described(&error))?
        {
            body.extend_from_slice(&piece);
            if body.len() as u64 > LARGEST {
                return Err(format!("it has more than {LARGEST} bytes"));
            }
        }
        key::key_set(&String::from_utf8_lossy(&body))
    }
}

/// A secret out of this text of a file.
pub(super) fn strong(text: &str) -> Result<Secret, String> {
    Secret::new(text).map_err(|what| format!("the secret {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_key_set_is_fetched_when_it_is_old_and_not_all_the_time() {
        let (refresh, pause) = (at(300), at(10));
        let mut known = Known::default();
        let due = |known: &Known, want, now| known.is_due(want, at(now), refresh, pause);
        assert!(due(&known, Want::Token, 0));
        known.tried = Some(at(0));
        assert!(!due(&known, Want::UnknownKey, 9), "it was just tried");
        assert!(due(&known, Want::Token, 10));
        known.fetched = Some(at(10));
        known.tried = Some(at(10));
        assert!(!due(&known, Want::Token, 309));
        assert!(due(&known, Want::UnknownKey, 20));
        assert!(due(&known, Want::Token, 310));
        assert!(known.good(at(11)).is_some());
        assert!(known.good(at(10) + STALE).is_none());
    }
}
