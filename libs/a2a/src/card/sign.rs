//! Signing the cards that we serve: a JSON Web Signature (RFC 7515) over the canonical card, apart from its payload.
//!
//! One key signs, named in the protected header with its algorithm and, where one is set, the address of its key set. What
//! was signed is remembered: a signature of ECDSA is another each time, and the tag of a card, which covers its
//! signatures, must only change with the card.

use std::path::PathBuf;
use std::time::Duration;

use axum::Router;
use axum::response::IntoResponse as _;
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderValue, header};
use muster_api::a2a::{AgentCard, AgentCardSignature};
use muster_jose::Private;
use quick_cache::sync::Cache;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{cache_control, canonical, parse};
use crate::codec;

/// Where the key set is served.
const JWKS: &str = "/.well-known/jwks.json";
/// How long a key set may be used without asking again.
const JWKS_MAX_AGE: Duration = Duration::from_secs(300);
/// Most signatures that are remembered; more than there are cards of a router in use.
const MOST_REMEMBERED: usize = 4_096;

/// Section `card_signing` of whoever serves cards.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// A private key in PEM with PKCS#8, of Ed25519 or P-256; cards are not signed where there is none.
    pub key_file: Option<PathBuf>,
    /// How signatures name the key; its thumbprint (RFC 7638) where it is empty.
    pub key_id: String,
    /// Where the public key is found, for signatures to say (`jku`); they say nothing where it is empty.
    pub jwks_url: String,
}

/// Signs cards.
pub struct Signer {
    key: Private,
    /// The protected header, in base64url.
    protected: String,
    key_set: Value,
    /// Signatures by what they sign.
    made: Cache<[u8; 32], String>,
}

impl std::fmt::Debug for Signer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Signer")
            .field("protected", &self.protected)
            .finish_non_exhaustive()
    }
}

impl Signer {
    /// What the configuration at `section` says; `None` where nothing is signed.
    ///
    /// # Errors
    /// Names the setting and says what is wrong.
    pub fn load(config: &Config, section: &str) -> Result<Option<Self>, String> {
        let Some(path) = &config.key_file else {
            if config.key_id.is_empty() && config.jwks_url.is_empty() {
                return Ok(None);
            }
            return Err(format!(
                "{section}.key_file: is missing, although {section} says which key it is"
            ));
        };
        let key = Private::read(path).map_err(|what| format!("{section}.key_file: {what}"))?;
        Ok(Some(Self::new(key, &config.key_id, &config.jwks_url)))
    }

    fn new(key: Private, key_id: &str, jwks_url: &str) -> Self {
        let id = if key_id.is_empty() {
            key.thumbprint()
        } else {
            key_id.to_owned()
        };
        let mut header = json!({ "alg": key.algorithm(), "typ": "JOSE", "kid": id });
        if !jwks_url.is_empty() {
            header["jku"] = json!(jwks_url);
        }
        Self {
            protected: URL_SAFE_NO_PAD.encode(header.to_string()),
            key_set: key.key_set(&id),
            key,
            made: Cache::new(MOST_REMEMBERED),
        }
    }

    /// Signs a card as it is read by who fetches it; other signatures stay.
    ///
    /// # Errors
    /// The card has no canonical form.
    pub fn sign(&self, card: &mut AgentCard) -> Result<(), String> {
        let served = codec::encode::<a2a::AgentCard>(card).map_err(|status| status.message().to_owned())?;
        let read = parse(served.to_string().as_bytes())?;
        for form in canonical::forms(&read)? {
            let signature = self.signature(&form)?;
            card.signatures.push(AgentCardSignature {
                protected: self.protected.clone(),
                signature,
                header: None,
            });
        }
        Ok(())
    }

    fn signature(&self, form: &[u8]) -> Result<String, String> {
        let digest: [u8; 32] = Sha256::digest(form).into();
        self.made.get_or_insert_with(&digest, || {
            let input = signing_input(&self.protected, form);
            let signature = self.key.sign(input.as_bytes())?;
            Ok(URL_SAFE_NO_PAD.encode(signature))
        })
    }

    /// The public key, as a JSON Web Key Set.
    #[must_use]
    pub const fn key_set(&self) -> &Value {
        &self.key_set
    }

    /// The route of the key set.
    pub fn route<S: Clone + Send + Sync + 'static>(&self) -> Router<S> {
        let body = self.key_set.to_string();
        let answer = move || async move {
            let headers = [
                (
                    header::CONTENT_TYPE,
                    HeaderValue::from_static("application/jwk-set+json"),
                ),
                (header::CACHE_CONTROL, cache_control(JWKS_MAX_AGE)),
            ];
            (headers, body).into_response()
        };
        Router::new().route(JWKS, get(answer))
    }
}

/// What is signed: the protected header and the payload, both in base64url.
pub(super) fn signing_input(protected: &str, form: &[u8]) -> String {
    format!("{protected}.{}", URL_SAFE_NO_PAD.encode(form))
}

#[cfg(test)]
pub(super) mod tests {
    use ring::rand::SystemRandom;
    use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair};

    use super::*;

    /// A signer with a fresh key.
    pub(in crate::card) fn signer(algorithm: &str, id: &str) -> Signer {
        let random = SystemRandom::new();
        let key = if algorithm == "ES256" {
            let der = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
            let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der.as_ref(), &random);
            Private::Es256(Box::new(pair.unwrap()))
        } else {
            let der = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
            Private::Ed25519(Box::new(Ed25519KeyPair::from_pkcs8(der.as_ref()).unwrap()))
        };
        Signer::new(key, id, "")
    }

    #[test]
    fn a_card_that_does_not_change_keeps_its_signatures() {
        for algorithm in ["ES256", "EdDSA"] {
            let signer = signer(algorithm, "");
            let mut one = AgentCard {
                name: "a".to_owned(),
                ..AgentCard::default()
            };
            let mut other = one.clone();
            signer.sign(&mut one).unwrap();
            signer.sign(&mut other).unwrap();
            assert_eq!(one, other);
            assert_eq!(one.signatures.len(), 2, "both forms");
        }
    }

    #[test]
    fn a_key_is_read_from_pem_and_refused_by_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key.pem");
        let config = Config {
            key_file: Some(path.clone()),
            ..Config::default()
        };
        let refused = Signer::load(&config, "agent.card_signing").unwrap_err();
        assert!(refused.starts_with("agent.card_signing.key_file: "), "{refused}");
        let der = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        let text = base64::engine::general_purpose::STANDARD.encode(der.as_ref());
        std::fs::write(
            &path,
            format!("-----BEGIN PRIVATE KEY-----\n{text}\n-----END PRIVATE KEY-----\n"),
        )
        .unwrap();
        let signer = Signer::load(&config, "agent.card_signing").unwrap().unwrap();
        let key = &signer.key_set()["keys"][0];
        assert_eq!((&key["kty"], &key["alg"]), (&json!("OKP"), &json!("EdDSA")));
        let forgotten = Config {
            key_id: "k".to_owned(),
            ..Config::default()
        };
        assert!(Signer::load(&forgotten, "s").unwrap_err().contains("s.key_file"));
        assert!(Signer::load(&Config::default(), "s").unwrap().is_none());
    }
}
