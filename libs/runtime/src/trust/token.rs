//! The tokens of callers: which are taken, and what they say.
//!
//! Keys come from a JSON Web Key Set in a file or at a URL, and HS256 from a shared secret; each is read again when it changes. A
//! token that names a key which is not known has the set at the URL fetched again, at most once in
//! [`Config::jwks_pause_seconds`], so that strangers cannot have us ask for it all the time; while the URL does not answer, the keys
//! that it has named last are good for a day. A verified token is remembered by its hash until it expires, and for a minute at most:
//! then the keys are asked again, so that a key that was taken away is taken away. The one that was shown last on a connection is
//! remembered there as well, just as long ([`Familiar`]).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use muster_jose::key::{self, Public};
use muster_jose::token::{self, Expected, Keys, Refusal, Secret, Verified};
use muster_rpc::outbound::{self, Outbound};
use muster_rpc::reread::Reread;
use parking_lot::Mutex;
use quick_cache::sync::Cache;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use url::Url;

use super::caller::{Caller, Kind, Role, Roles};
use super::grants::Grants;
use super::secret::Hidden;
use crate::clock::SharedClock;
use crate::config::Mistakes;

/// The keys that are never printed.
pub(crate) const SECRETS: [&str; 2] = ["trust.tokens.jwt_secret_key", "trust.tokens.service_token"];

/// Largest key set, and largest file of a secret.
const LARGEST: u64 = 1 << 20;
/// How long a key set may take to come.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
/// How long keys are good that cannot be fetched again.
const STALE: Duration = Duration::from_secs(24 * 3600);
/// Verified tokens that are remembered.
const REMEMBERED: usize = 10_000;
/// How long a verified token is remembered at most.
const FRESH: Duration = Duration::from_secs(60);

/// The section `trust.tokens`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Whether every caller needs a token or a certificate; where `trust.mode` is not `loopback` that is so in any case.
    pub required: bool,
    /// A file with the public keys of who issues tokens: a JSON Web Key Set. Read again when it changes.
    pub jwks_file: Option<PathBuf>,
    /// The same at a URL, `https://…`; `http` on loopback alone.
    pub jwks_url: String,
    /// How often the set at the URL is fetched, in seconds.
    pub jwks_refresh_seconds: u64,
    /// How long to wait between two fetches at the least, in seconds.
    pub jwks_pause_seconds: u64,
    /// Who may issue tokens (`iss`); anybody with a key that is trusted where it is empty.
    pub issuers: Vec<String>,
    /// Whom tokens must be for (`aud`), one of these.
    pub audiences: Vec<String>,
    /// Seconds by which the clocks of issuers may differ from ours.
    pub clock_skew_seconds: u64,
    /// A shared secret for HS256, for development: 32 bytes at least.
    pub jwt_secret_key: Option<Hidden>,
    /// The same in a file, read again when it changes.
    pub jwt_secret_key_file: Option<PathBuf>,
    /// The claim with the roles: a list, or names with spaces between; `a.b` is `b` within `a`.
    pub roles_claim: String,
    /// The claim with the agents and skills that a caller may reach.
    pub targets_claim: String,
    /// The claim with the namespaces that a caller may reach.
    pub namespaces_claim: String,
    /// What callers may reach beside what their claims say, by subject; only what both allow.
    pub grants: BTreeMap<String, Grants>,
    /// The token with which this service calls others where no certificate says who it is.
    pub service_token: Option<Hidden>,
    /// The same in a file, read again when it changes.
    pub service_token_file: Option<PathBuf>,
    /// Tokens that are refused from one address in a minute before no new one is looked at.
    pub max_failures_per_minute: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            required: false,
            jwks_file: None,
            jwks_url: String::new(),
            jwks_refresh_seconds: 300,
            jwks_pause_seconds: 10,
            issuers: Vec::new(),
            audiences: vec!["muster".to_owned()],
            clock_skew_seconds: 60,
            jwt_secret_key: None,
            jwt_secret_key_file: None,
            roles_claim: "roles".to_owned(),
            targets_claim: "muster_targets".to_owned(),
            namespaces_claim: "muster_namespaces".to_owned(),
            grants: BTreeMap::new(),
            service_token: None,
            service_token_file: None,
            max_failures_per_minute: 60,
        }
    }
}

impl Config {
    /// Whether tokens are looked at.
    #[must_use]
    pub fn is_used(&self) -> bool {
        self.has_public_keys() || self.has_secret()
    }

    /// Whether a service has something to show to others.
    #[must_use]
    pub const fn has_identity(&self) -> bool {
        self.has_secret() || self.service_token.is_some() || self.service_token_file.is_some()
    }

    const fn has_public_keys(&self) -> bool {
        self.jwks_file.is_some() || !self.jwks_url.is_empty()
    }

    pub(super) const fn has_secret(&self) -> bool {
        self.jwt_secret_key.is_some() || self.jwt_secret_key_file.is_some()
    }

    /// Adds what is wrong.
    pub(super) fn validate(&self, mistakes: &mut Mistakes) {
        if self.required && !self.is_used() {
            mistakes.add(
                "trust.tokens.required",
                "no token could be verified; set trust.tokens.jwks_file, jwks_url or jwt_secret_key_file",
            );
        }
        if self.jwks_file.is_some() && !self.jwks_url.is_empty() {
            mistakes.add("trust.tokens.jwks_url", "is beside jwks_file; name one of them");
        }
        if !self.jwks_url.is_empty()
            && let Err(what) = key_url(&self.jwks_url)
        {
            mistakes.add("trust.tokens.jwks_url", what);
        }
        if let Some(secret) = &self.jwt_secret_key {
            if self.jwt_secret_key_file.is_some() {
                mistakes.add(
                    "trust.tokens.jwt_secret_key_file",
                    "is beside jwt_secret_key; name one of them",
                );
            }
            if let Err(what) = Secret::new(secret.reveal()) {
                mistakes.add("trust.tokens.jwt_secret_key", what);
            }
        }
        if self.service_token.is_some() && self.service_token_file.is_some() {
            mistakes.add(
                "trust.tokens.service_token_file",
                "is beside service_token; name one of them",
            );
        }
        for (key, value, least, most) in [
            ("jwks_refresh_seconds", self.jwks_refresh_seconds, 1, 86_400),
            ("jwks_pause_seconds", self.jwks_pause_seconds, 1, 3_600),
            ("clock_skew_seconds", self.clock_skew_seconds, 0, 600),
            (
                "max_failures_per_minute",
                u64::from(self.max_failures_per_minute),
                1,
                1_000_000,
            ),
        ] {
            if !(least..=most).contains(&value) {
                mistakes.add(
                    format!("trust.tokens.{key}"),
                    format!("must be from {least} to {most}"),
                );
            }
        }
        if self.is_used() && self.audiences.iter().all(String::is_empty) {
            mistakes.add(
                "trust.tokens.audiences",
                "is empty, so that tokens for any other service would do; name the audience of this installation",
            );
        }
        for (key, claim) in [
            ("roles_claim", &self.roles_claim),
            ("targets_claim", &self.targets_claim),
            ("namespaces_claim", &self.namespaces_claim),
        ] {
            if claim.is_empty() {
                mistakes.add(format!("trust.tokens.{key}"), "is empty; name the claim");
            }
        }
        for (subject, grants) in &self.grants {
            if let Some(what) = grants.problem() {
                mistakes.add(format!("trust.tokens.grants.{subject}"), what);
            }
        }
    }
}

fn key_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("is no URL: {error}"))?;
    let is_local = url.host().is_some_and(|host| match host {
        url::Host::Ipv4(address) => address.is_loopback(),
        url::Host::Ipv6(address) => address.is_loopback(),
        url::Host::Domain(name) => name == "localhost",
    });
    match url.scheme() {
        "https" => Ok(url),
        "http" if is_local => Ok(url),
        _ => Err(
            "must begin with https://, because whoever can change the keys on their way is let in".to_owned(),
        ),
    }
}

/// A caller out of the claims of a token that is good.
///
/// # Errors
/// Names the claim that is malformed.
fn caller_of(config: &Config, verified: &Verified) -> Result<Arc<Caller>, Refusal> {
    let claims = &verified.claims;
    let names = |claim: &str, wrong: &'static str| names_in(claims, claim).ok_or(Refusal::Claim(wrong));
    // Roles that are not ours are another application's.
    let roles: Roles = names(&config.roles_claim, "roles")?
        .unwrap_or_default()
        .iter()
        .filter_map(|name| Role::from_name(name))
        .collect();
    let list = |names: Option<Vec<String>>| names.map(|names| names.into_iter().map(Arc::from).collect());
    let mut grants = Grants {
        targets: list(names(&config.targets_claim, "targets")?),
        namespaces: list(names(&config.namespaces_claim, "namespaces")?),
    };
    if grants.problem().is_some() {
        return Err(Refusal::Claim("targets or namespaces"));
    }
    if let Some(more) = config.grants.get(&verified.subject) {
        grants = grants.and(more);
    }
    let issuer = claims.get("iss").and_then(Value::as_str);
    let kind = if roles.has(Role::Service) {
        Kind::Service
    } else {
        Kind::EndUser
    };
    Ok(Caller::new(kind, issuer, &verified.subject, roles, grants))
}

/// The names in a claim: `None` where it is malformed, `Some(None)` where there is none.
#[expect(clippy::option_option, reason = "absent and malformed are two things")]
fn names_in(claims: &Map<String, Value>, path: &str) -> Option<Option<Vec<String>>> {
    // A claim of exactly that name goes first: names that are URLs have dots.
    let mut found = claims.get(path);
    if found.is_none() {
        let mut parts = path.split('.');
        found = parts.next().and_then(|part| claims.get(part));
        for part in parts {
            found = found.and_then(|value| value.get(part));
        }
    }
    match found {
        None | Some(Value::Null) => Some(None),
        Some(Value::String(names)) => Some(Some(names.split_whitespace().map(str::to_owned).collect())),
        Some(Value::Array(names)) => names
            .iter()
            .map(|name| name.as_str().map(str::to_owned))
            .collect::<Option<Vec<_>>>()
            .map(Some),
        Some(_) => None,
    }
}

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

/// Where the shared secret is.
enum Source {
    Here(Arc<Secret>),
    File(Reread<Secret>),
}

impl Source {
    fn get(&self, now: Duration) -> Result<Arc<Secret>, String> {
        match self {
            Self::Here(secret) => Ok(Arc::clone(secret)),
            Self::File(file) => file.get(now),
        }
    }
}

/// A key set at a URL.
struct Remote {
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
enum Want {
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
    fn new(config: &Config) -> Result<Self, String> {
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

    async fn keys(&self, want: Want, clock: &SharedClock) -> Result<Arc<Vec<Public>>, Unverified> {
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

fn strong(text: &str) -> Result<Secret, String> {
    Secret::new(text).map_err(|what| format!("the secret {what}"))
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

    use super::*;
    use crate::clock::ManualClock;

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

    #[test]
    fn claims_become_roles_and_grants() {
        let config = Config {
            roles_claim: "realm.roles".to_owned(),
            grants: [(
                "ada".to_owned(),
                Grants {
                    targets: Some(vec![Arc::from("weather")]),
                    namespaces: None,
                },
            )]
            .into(),
            ..Config::default()
        };
        let of = |claims: Value| {
            let Value::Object(claims) = claims else {
                unreachable!()
            };
            caller_of(
                &config,
                &Verified {
                    claims,
                    subject: "ada".to_owned(),
                    expires: 0,
                },
            )
        };
        let ada = of(json!({
            "iss": "us", "realm": { "roles": ["agent-writer", "other"] }, "muster_targets": "weather planning",
            "muster_namespaces": ["a*"],
        }))
        .unwrap();
        assert!(ada.roles.has(Role::AgentWriter) && !ada.roles.has(Role::Admin));
        assert!(ada.grants.reaches_target("weather") && !ada.grants.reaches_target("planning"));
        assert!(ada.grants.reaches_namespace("ab") && !ada.grants.reaches_namespace("b"));
        assert_eq!(&*ada.key(), "user:us:ada");
        assert_eq!(
            of(json!({ "realm": { "roles": [1] } })),
            Err(Refusal::Claim("roles"))
        );
        let service = of(json!({ "realm": { "roles": "service" } })).unwrap();
        assert_eq!(service.kind, Kind::Service);
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

    #[test]
    fn mistakes_are_named_and_secrets_are_not() {
        let config = Config {
            required: true,
            jwks_url: "http://keys.example/jwks".to_owned(),
            jwt_secret_key: Some(Hidden::from("canary".to_owned())),
            jwt_secret_key_file: Some(PathBuf::from("x")),
            audiences: Vec::new(),
            max_failures_per_minute: 0,
            ..Config::default()
        };
        let mut mistakes = Mistakes::default();
        config.validate(&mut mistakes);
        let told = mistakes.to_string();
        for key in [
            "jwks_url",
            "jwt_secret_key:",
            "jwt_secret_key_file",
            "audiences",
            "max_failures_per_minute",
        ] {
            assert!(told.contains(&format!("trust.tokens.{key}")), "{key}: {told}");
        }
        assert!(!told.contains("canary") && !format!("{config:?}").contains("canary"));
    }
}
