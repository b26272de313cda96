//! The tokens of callers: which are taken, and what they say.
//!
//! Keys come from a JSON Web Key Set in a file or at a URL, and HS256 from a shared secret; each is read again when it changes. A
//! token that names a key which is not known has the set at the URL fetched again, at most once in
//! [`Config::jwks_pause_seconds`], so that strangers cannot have us ask for it all the time; while the URL does not answer, the keys
//! that it has named last are good for a day. A verified token is remembered by its hash until it expires, and for a minute at most:
//! then the keys are asked again, so that a key that was taken away is taken away. The one that was shown last on a connection is
//! remembered there as well, just as long ([`Familiar`]).
//!
//! ```text
//! token.rs     verifies, and remembers what was verified
//!   config.rs    the section `trust.tokens`
//!   keys.rs      where keys are, and how long they are good
//!   claims.rs    what a token says of its caller
//! ```

mod claims;
mod config;
mod keys;

use std::sync::Arc;
use std::time::Duration;

use muster_jose::key::{self, Public};
use muster_jose::token::{self, Expected, Keys, Refusal, Secret, Verified};
use muster_rpc::reread::Reread;
use parking_lot::Mutex;
use quick_cache::sync::Cache;

use super::caller::Caller;
use crate::clock::SharedClock;

pub use config::Config;

use claims::caller_of;
use keys::{LARGEST, Remote, Source, Want, strong};

/// The keys that are never printed.
pub(crate) const SECRETS: [&str; 2] = ["trust.tokens.jwt_secret_key", "trust.tokens.service_token"];

/// Verified tokens that are remembered.
const REMEMBERED: usize = 10_000;
/// How long a verified token is remembered at most.
const FRESH: Duration = Duration::from_secs(60);

/// A verified token.
#[derive(Debug, Clone)]
pub(super) struct Remembered {
    pub(super) caller: Arc<Caller>,
    /// Until when, on the monotonic clock.
    until: Duration,
}

/// The authorization that was shown last on a connection, for as long as its token is remembered: who shows the same again is known
/// without a hash of it.
#[derive(Default)]
pub(crate) struct Familiar(Mutex<Option<(Box<[u8]>, Remembered)>>);

impl Familiar {
    /// Whose it is, if it is the one that was shown last and that still holds.
    pub(super) fn caller(&self, shown: &[u8], now: Duration) -> Option<Arc<Caller>> {
        let last = self.0.lock();
        let (bytes, known) = last.as_ref()?;
        (now < known.until && is_same(bytes, shown)).then(|| Arc::clone(&known.caller))
    }

    /// It was shown, and is good.
    pub(super) fn keep(&self, shown: &[u8], known: Remembered) {
        *self.0.lock() = Some((shown.into(), known));
    }
}

/// Whether both are the same, in a time that does not tell how far they are: callers may share a connection.
fn is_same(one: &[u8], other: &[u8]) -> bool {
    let difference = one
        .iter()
        .zip(other)
        .fold(0, |all, (one, other)| all | (one ^ other));
    one.len() == other.len() && std::hint::black_box(difference) == 0
}

/// Verifies tokens.
pub(super) struct Verifier {
    config: Config,
    clock: SharedClock,
    file: Option<Reread<Vec<Public>>>,
    remote: Option<Remote>,
    secret: Option<Source>,
    remembered: Cache<[u8; 32], Remembered>,
}

/// Why a token says nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unverified {
    /// It is not taken.
    #[error("the token is refused: {0}")]
    Refused(#[from] Refusal),
    /// There is nothing to verify it with.
    #[error("no token can be verified now: {0}")]
    NoKeys(String),
}

impl Unverified {
    /// A short stable name.
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Refused(refusal) => refusal.name(),
            Self::NoKeys(_) => "no_keys",
        }
    }
}

impl Verifier {
    /// A verifier, where tokens are looked at.
    ///
    /// # Errors
    /// Names the setting at fault; files must be readable at the start.
    pub(super) fn new(config: &Config, clock: SharedClock) -> Result<Option<Self>, String> {
        if !config.is_used() {
            return Ok(None);
        }
        let now = clock.monotonic();
        let file = config
            .jwks_file
            .as_ref()
            .map(|path| Reread::new(path, LARGEST, key::key_set));
        if let Some(file) = &file {
            file.get(now)
                .map_err(|what| format!("trust.tokens.jwks_file: {what}"))?;
        }
        let secret = match (&config.jwt_secret_key, &config.jwt_secret_key_file) {
            (Some(secret), _) => Some(Source::Here(Arc::new(
                Secret::new(secret.reveal())
                    .map_err(|what| format!("trust.tokens.jwt_secret_key: {what}"))?,
            ))),
            (None, Some(path)) => Some(Source::File(Reread::new(path, LARGEST, strong))),
            (None, None) => None,
        };
        if let Some(secret) = &secret {
            secret
                .get(now)
                .map_err(|what| format!("trust.tokens.jwt_secret_key_file: {what}"))?;
        }
        let remote = (!config.jwks_url.is_empty())
            .then(|| Remote::new(config))
            .transpose()
            .map_err(|what| format!("trust.tokens.jwks_url: {what}"))?;
        Ok(Some(Self {
            config: config.clone(),
            clock,
            file,
            remote,
            secret,
            remembered: Cache::new(REMEMBERED),
        }))
    }

    /// Whom a token is known to be of, without any look at keys.
    pub(super) fn remembered(&self, token: &str) -> Option<Remembered> {
        let known = self.remembered.get(&hash(token))?;
        (self.clock.monotonic() < known.until).then_some(known)
    }

    /// Verifies a token.
    ///
    /// # Errors
    /// Says why it is not taken.
    pub(super) async fn verify(&self, token: &str) -> Result<Remembered, Unverified> {
        let mut outcome = self.look(token, Want::Token).await;
        if self.remote.is_some() && matches!(outcome, Err(Unverified::Refused(Refusal::UnknownKey(_)))) {
            outcome = self.look(token, Want::UnknownKey).await;
        }
        let verified = outcome?;
        let caller = caller_of(&self.config, &verified)?;
        let skew = i64::try_from(self.config.clock_skew_seconds).unwrap_or(0);
        let left = verified.expires.saturating_add(skew) - self.clock.now().as_second();
        let left = Duration::from_secs(u64::try_from(left).unwrap_or(0)).min(FRESH);
        let known = Remembered {
            caller,
            until: self.clock.monotonic().saturating_add(left),
        };
        self.remembered.insert(hash(token), known.clone());
        Ok(known)
    }

    async fn look(&self, token: &str, want: Want) -> Result<Verified, Unverified> {
        let now = self.clock.monotonic();
        let public = match (&self.file, &self.remote) {
            (Some(file), _) => file.get(now).map_err(Unverified::NoKeys)?,
            (None, Some(remote)) => remote.keys(want, &self.clock).await?,
            (None, None) => Arc::default(),
        };
        let secret = self.secret.as_ref().map(|source| source.get(now)).transpose();
        let secret = secret.map_err(Unverified::NoKeys)?;
        let keys = Keys {
            public: &public,
            secret: secret.as_deref(),
        };
        let expected = Expected {
            issuers: &self.config.issuers,
            audiences: &self.config.audiences,
            leeway: i64::try_from(self.config.clock_skew_seconds).unwrap_or(0),
            now: self.clock.now().as_second(),
        };
        Ok(token::verify(token, keys, &expected)?)
    }
}

fn hash(token: &str) -> [u8; 32] {
    use sha2::Digest as _;
    sha2::Sha256::digest(token.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use jiff::Timestamp;
    use muster_jose::Private;
    use serde_json::json;
    use tokio::task::JoinSet;

    use super::keys::STALE;
    use super::*;
    use crate::clock::ManualClock;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// A server of key sets: what it serves, how often it was asked, and where.
    async fn key_server(served: Arc<Mutex<String>>) -> (String, Arc<AtomicUsize>, JoinSet<()>) {
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&asked);
        let answer = move || {
            counted.fetch_add(1, Ordering::Relaxed);
            let body = served.lock().clone();
            async move { body }
        };
        let routes = axum::Router::new().route("/jwks", axum::routing::get(answer));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/jwks", listener.local_addr().unwrap());
        let mut server = JoinSet::new();
        server.spawn(async move { axum::serve(listener, routes).await.unwrap() });
        (url, asked, server)
    }

    #[tokio::test]
    async fn keys_at_a_url_are_kept_and_rotated_and_outlive_their_server_for_a_while() {
        let (first, _) = Private::generate().unwrap();
        let (second, _) = Private::generate().unwrap();
        let served = Arc::new(Mutex::new(first.key_set("k1").to_string()));
        let rotated = second.key_set("k2").to_string();
        let (url, asked, _server) = key_server(Arc::clone(&served)).await;
        let config = Config {
            jwks_url: url,
            ..Config::default()
        };
        let clock = Arc::new(ManualClock::new(Timestamp::from_second(1_000).unwrap()));
        let verifier = Verifier::new(&config, clock.clone()).unwrap().unwrap();
        let sign = |key: Private, id: &str, subject: &str| {
            let claims = json!({ "sub": subject, "aud": "muster", "exp": 1_000_000, "roles": "admin" });
            let signer = token::Signer::Key(key, id.to_owned());
            signer.sign(&claims).unwrap()
        };
        let old = sign(first, "k1", "ada");
        let new = sign(second, "k2", "ada");
        assert!(verifier.verify(&old).await.unwrap().caller.sees_all());
        assert!(verifier.remembered(&old).is_some());
        served.lock().clone_from(&rotated);
        // Nobody makes us ask all the time.
        for _ in 0..5 {
            assert_eq!(verifier.verify(&new).await.unwrap_err().name(), "unknown_key");
        }
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        clock.advance(at(10));
        assert!(verifier.verify(&new).await.is_ok());
        assert_eq!(asked.load(Ordering::Relaxed), 2);
        // What was taken away is refused as soon as nothing remembers it.
        assert!(verifier.remembered(&old).is_some());
        clock.advance(FRESH);
        assert!(verifier.remembered(&old).is_none());
        assert_eq!(verifier.verify(&old).await.unwrap_err().name(), "unknown_key");
        // From now on it says nothing that could be understood.
        served.lock().clear();
        clock.advance(at(3_600));
        assert!(
            verifier.verify(&new).await.is_ok(),
            "the keys that were known last are good"
        );
        clock.advance(STALE);
        assert_eq!(verifier.verify(&new).await.unwrap_err().name(), "no_keys");
    }
}
