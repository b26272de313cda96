//! JSON Web Tokens (RFC 7519) in the compact form of a JSON Web Signature, as RFC 8725 wants them read.
//!
//! - The algorithm is the key's ([`Public::has_algorithm`]); the header only helps to find the key. `none` is no algorithm of any
//!   key. HS256 is verified with a [`Secret`] alone, which is another type than a public key.
//! - The signature is verified before the claims are read.
//! - `exp` is needed; `nbf`, issuer and audience are checked where they are expected. Clocks may differ by a leeway.
//! - Headers that change the meaning (`crit`) are refused, and so are tokens of other kinds (`typ`).

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use serde_json::{Map, Value, json};

use crate::key::{Private, Public};

/// Longest token that is looked at, in bytes.
pub const LONGEST: usize = 8 << 10;

/// Shortest secret, in bytes: as long as the hash, as RFC 7518 demands.
pub const SHORTEST_SECRET: usize = 32;

/// A secret that was published with an example, and that everybody knows.
const PUBLISHED: &str = "production-secret-key";

/// Fewest different bytes of a secret; fewer are a pattern.
const FEWEST_BYTES: usize = 10;

/// A shared secret for HS256.
pub struct Secret(hmac::Key);

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret(redacted)")
    }
}

impl Secret {
    /// A secret out of this text.
    ///
    /// # Errors
    /// It is weak; the message does not contain it.
    pub fn new(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text.contains(PUBLISHED) {
            return Err(
                "is the value of a published example, which everybody knows; make one with `openssl rand -base64 48`"
                    .to_owned(),
            );
        }
        if text.len() < SHORTEST_SECRET {
            return Err(format!(
                "has {} bytes, and at least {SHORTEST_SECRET} are needed; make one with `openssl rand -base64 48`",
                text.len()
            ));
        }
        let different: std::collections::BTreeSet<u8> = text.bytes().collect();
        if different.len() < FEWEST_BYTES {
            return Err(
                "repeats a few letters and can be guessed; make one with `openssl rand -base64 48`"
                    .to_owned(),
            );
        }
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, text.as_bytes())))
    }
}

/// What tokens may be signed with.
#[derive(Debug, Clone, Copy, Default)]
pub struct Keys<'k> {
    /// Public keys.
    pub public: &'k [Public],
    /// The shared secret, where there is one.
    pub secret: Option<&'k Secret>,
}

/// What a token must say.
#[derive(Debug, Clone, Copy)]
pub struct Expected<'e> {
    /// Who may have issued it; nobody in particular where it is empty.
    pub issuers: &'e [String],
    /// Whom it must be for, one of these; nobody in particular where it is empty.
    pub audiences: &'e [String],
    /// Seconds by which clocks may differ.
    pub leeway: i64,
    /// Seconds since 1970.
    pub now: i64,
}

/// Why a token is not taken. The texts contain nothing secret and no more of the token than names.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It is no token.
    #[error("it is no JSON Web Token: {0}")]
    Malformed(&'static str),
    /// Its algorithm is none that is taken, or not that of its key.
    #[error("its algorithm '{0}' is not that of a key that is trusted here")]
    Algorithm(String),
    /// No key of that name is known.
    #[error("it is signed by the key '{0}', which is not known here")]
    UnknownKey(String),
    /// The signature does not fit.
    #[error("its signature is wrong")]
    Signature,
    /// It is past its time.
    #[error("it expired {0} s ago")]
    Expired(i64),
    /// It is before its time.
    #[error("it is not valid for another {0} s")]
    NotYet(i64),
    /// A claim is missing, or of another type.
    #[error("its claim '{0}' is missing or malformed")]
    Claim(&'static str),
    /// Somebody else has issued it.
    #[error("it was issued by '{0}', whom nobody trusts here")]
    Issuer(String),
    /// It is for somebody else.
    #[error("it is for another audience")]
    Audience,
}

impl Refusal {
    /// A short stable name, for logs and metrics.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "malformed",
            Self::Algorithm(_) => "algorithm",
            Self::UnknownKey(_) => "unknown_key",
            Self::Signature => "signature",
            Self::Expired(_) => "expired",
            Self::NotYet(_) => "not_yet_valid",
            Self::Claim(_) => "claim",
            Self::Issuer(_) => "issuer",
            Self::Audience => "audience",
        }
    }
}

/// The claims of a token that is good, and until when it is (seconds since 1970, without leeway).
#[derive(Debug, Clone, PartialEq)]
pub struct Verified {
    /// All claims.
    pub claims: Map<String, Value>,
    /// `sub`; not empty.
    pub subject: String,
    /// `exp`.
    pub expires: i64,
}

/// Verifies a token.
///
/// # Errors
/// Says why it is not taken.
pub fn verify(token: &str, keys: Keys<'_>, expected: &Expected<'_>) -> Result<Verified, Refusal> {
    if token.len() > LONGEST {
        return Err(Refusal::Malformed("it is too long"));
    }
    let (input, signature) = token
        .rsplit_once('.')
        .ok_or(Refusal::Malformed("it has no signature"))?;
    let (header, payload) = input
        .split_once('.')
        .ok_or(Refusal::Malformed("it has no payload"))?;
    let header = object(header, "its header is no JSON in base64url")?;
    let signature = URL_SAFE_NO_PAD
        .decode(signature)
        .map_err(|_| Refusal::Malformed("its signature is not in base64url"))?;
    check_signature(&header, input.as_bytes(), &signature, keys)?;
    let claims = object(payload, "its payload is no JSON in base64url")?;
    check_claims(claims, expected)
}

fn object(text: &str, wrong: &'static str) -> Result<Map<String, Value>, Refusal> {
    let bytes = URL_SAFE_NO_PAD
        .decode(text)
        .map_err(|_| Refusal::Malformed(wrong))?;
    serde_json::from_slice(&bytes).map_err(|_| Refusal::Malformed(wrong))
}

fn check_signature(
    header: &Map<String, Value>,
    input: &[u8],
    signature: &[u8],
    keys: Keys<'_>,
) -> Result<(), Refusal> {
    let text = |name: &str| header.get(name).and_then(Value::as_str);
    if header.contains_key("crit") {
        return Err(Refusal::Malformed(
            "it has a critical header, of which none is understood",
        ));
    }
    let of_kind = |kind: &str| {
        let kind = kind.to_ascii_lowercase();
        matches!(kind.trim_start_matches("application/"), "jwt" | "at+jwt")
    };
    if header
        .get("typ")
        .is_some_and(|kind| !kind.as_str().is_some_and(of_kind))
    {
        return Err(Refusal::Malformed("it is signed for something else (`typ`)"));
    }
    let algorithm = text("alg").ok_or(Refusal::Malformed("it names no algorithm"))?;
    let wrong_algorithm = || Refusal::Algorithm(shown(algorithm));
    if algorithm == "HS256" {
        let Some(Secret(key)) = keys.secret else {
            return Err(wrong_algorithm());
        };
        return hmac::verify(key, input, signature).map_err(|_| Refusal::Signature);
    }
    let id = text("kid");
    let named: Vec<&Public> = keys
        .public
        .iter()
        .filter(|key| id.is_none() || key.id.is_none() || key.id.as_deref() == id)
        .collect();
    let mut candidates = named.iter().filter(|key| key.has_algorithm(algorithm)).peekable();
    if candidates.peek().is_none() {
        let is_known = matches!(algorithm, "EdDSA" | "Ed25519" | "ES256" | "RS256");
        return Err(match id {
            Some(id) if named.is_empty() && is_known => Refusal::UnknownKey(shown(id)),
            _ => wrong_algorithm(),
        });
    }
    if candidates.any(|key| key.verifies(input, signature)) {
        Ok(())
    } else {
        Err(Refusal::Signature)
    }
}

fn check_claims(claims: Map<String, Value>, expected: &Expected<'_>) -> Result<Verified, Refusal> {
    let expires = seconds(&claims, "exp")?.ok_or(Refusal::Claim("exp"))?;
    let since = expected.now.saturating_sub(expires);
    if since > expected.leeway {
        return Err(Refusal::Expired(since));
    }
    if let Some(start) = seconds(&claims, "nbf")? {
        let left = start.saturating_sub(expected.now);
        if left > expected.leeway {
            return Err(Refusal::NotYet(left));
        }
    }
    let text = |name: &str| claims.get(name).and_then(Value::as_str);
    if !expected.issuers.is_empty() {
        let issuer = text("iss").unwrap_or_default();
        if !expected.issuers.iter().any(|one| one == issuer) {
            return Err(Refusal::Issuer(shown(issuer)));
        }
    }
    if !expected.audiences.is_empty() {
        let is_ours = |audience: &Value| {
            audience
                .as_str()
                .is_some_and(|audience| expected.audiences.iter().any(|one| one == audience))
        };
        let fits = match claims.get("aud") {
            Some(Value::Array(all)) => all.iter().any(is_ours),
            Some(one) => is_ours(one),
            None => false,
        };
        if !fits {
            return Err(Refusal::Audience);
        }
    }
    let subject = text("sub").filter(|subject| !subject.is_empty() && subject.len() <= 256);
    let subject = subject.ok_or(Refusal::Claim("sub"))?.to_owned();
    Ok(Verified {
        claims,
        subject,
        expires,
    })
}

/// A time in seconds; fractions are allowed and cut off.
fn seconds(claims: &Map<String, Value>, name: &'static str) -> Result<Option<i64>, Refusal> {
    let Some(value) = claims.get(name) else {
        return Ok(None);
    };
    let whole = value.as_i64().or_else(|| {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "a time beyond the range is cut to its end"
        )]
        value.as_f64().map(|seconds| seconds as i64)
    });
    whole.map(Some).ok_or(Refusal::Claim(name))
}

/// A stranger's text, shortened and without what a terminal obeys.
fn shown(text: &str) -> String {
    text.chars()
        .filter(|letter| !letter.is_control())
        .take(80)
        .collect()
}

/// What signs tokens.
#[derive(Debug)]
pub enum Signer {
    /// A private key, and its name in the header; the thumbprint where it is empty.
    Key(Private, String),
    /// A shared secret.
    Secret(Secret),
}

impl Signer {
    /// A token with these claims.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub fn sign(&self, claims: &Value) -> Result<String, String> {
        let (key, id) = match self {
            Self::Key(key, id) if id.is_empty() => (key, key.thumbprint()),
            Self::Key(key, id) => (key, id.clone()),
            Self::Secret(secret) => return Ok(Self::sign_with(secret, claims)),
        };
        let input = input(
            &json!({ "alg": key.algorithm(), "typ": "JWT", "kid": id }),
            claims,
        );
        let signature = key.sign(input.as_bytes())?;
        Ok(format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    /// A token with these claims, under a shared secret.
    #[must_use]
    pub fn sign_with(Secret(key): &Secret, claims: &Value) -> String {
        let input = input(&json!({ "alg": "HS256", "typ": "JWT" }), claims);
        let tag = hmac::sign(key, input.as_bytes());
        format!("{input}.{}", URL_SAFE_NO_PAD.encode(tag.as_ref()))
    }
}

/// What is signed.
fn input(header: &Value, claims: &Value) -> String {
    let encoded = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}", encoded(header), encoded(claims))
}

/// Header and claims of a token, without any look at its signature: for people alone.
///
/// # Errors
/// It is no token.
pub fn inspect(token: &str) -> Result<[Map<String, Value>; 2], Refusal> {
    let mut parts = token.split('.');
    let header = parts.next().unwrap_or_default();
    let payload = parts.next().ok_or(Refusal::Malformed("it has no payload"))?;
    Ok([
        object(header, "its header is no JSON in base64url")?,
        object(payload, "its payload is no JSON in base64url")?,
    ])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::key;

    const NOW: i64 = 1_000_000;
    const STRONG: &str = "0123456789abcdefghijklmnopqrstuvwxyz";

    fn expected() -> Expected<'static> {
        Expected {
            issuers: &[],
            audiences: &[],
            leeway: 60,
            now: NOW,
        }
    }

    fn claims() -> Value {
        json!({ "sub": "ada", "iss": "us", "aud": ["muster", "x"], "exp": NOW + 300, "nbf": NOW - 5 })
    }

    fn pair() -> (Signer, Vec<Public>) {
        let (key, _) = Private::generate().unwrap();
        let set = key::key_set(&key.key_set("k1").to_string()).unwrap();
        (Signer::Key(key, "k1".to_owned()), set)
    }

    fn public(keys: &[Public]) -> Keys<'_> {
        Keys {
            public: keys,
            secret: None,
        }
    }

    fn forged(token: &str, header: &Value) -> String {
        let rest = token.split_once('.').unwrap().1;
        format!("{}.{rest}", URL_SAFE_NO_PAD.encode(header.to_string()))
    }

    #[test]
    fn a_good_token_says_who_it_is_about() {
        let (signer, set) = pair();
        let token = signer.sign(&claims()).unwrap();
        let verified = verify(&token, public(&set), &expected()).unwrap();
        assert_eq!((verified.subject.as_str(), verified.expires), ("ada", NOW + 300));
        let secret = Secret::new(STRONG).unwrap();
        let token = Signer::Secret(Secret::new(STRONG).unwrap())
            .sign(&claims())
            .unwrap();
        let keys = Keys {
            public: &[],
            secret: Some(&secret),
        };
        assert!(verify(&token, keys, &expected()).is_ok());
        assert_eq!(inspect(&token).unwrap()[1]["sub"], "ada");
    }

    #[test]
    fn no_header_chooses_the_algorithm() {
        let (signer, set) = pair();
        let token = signer.sign(&claims()).unwrap();
        for algorithm in ["none", "None", "HS256", "HS512", "RS256", "ES256", ""] {
            let forged = forged(&token, &json!({ "alg": algorithm, "typ": "JWT", "kid": "k1" }));
            let refused = verify(&forged, public(&set), &expected()).unwrap_err();
            assert_eq!(refused.name(), "algorithm", "{algorithm}");
        }
        // The public key's text as the secret of HS256, which is what confusion means.
        let confused = json!({ "alg": "HS256", "typ": "JWT", "kid": "k1" });
        let input = format!(
            "{}.{}",
            URL_SAFE_NO_PAD.encode(confused.to_string()),
            URL_SAFE_NO_PAD.encode(claims().to_string())
        );
        let Signer::Key(key, _) = &signer else {
            unreachable!()
        };
        let mac = hmac::Key::new(hmac::HMAC_SHA256, key.key_set("k1").to_string().as_bytes());
        let tag = hmac::sign(&mac, input.as_bytes());
        let token = format!("{input}.{}", URL_SAFE_NO_PAD.encode(tag.as_ref()));
        for secret in [None, Some(Secret::new(STRONG).unwrap())] {
            let keys = Keys {
                public: &set,
                secret: secret.as_ref(),
            };
            assert!(verify(&token, keys, &expected()).is_err());
        }
        // An unsigned one, in all its forms.
        let body = URL_SAFE_NO_PAD.encode(claims().to_string());
        let none = URL_SAFE_NO_PAD.encode(json!({ "alg": "none" }).to_string());
        for token in [format!("{none}.{body}."), format!("{none}.{body}"), body] {
            assert!(verify(&token, public(&set), &expected()).is_err());
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        let (signer, set) = pair();
        let (stranger, _) = pair();
        let of = |change: &dyn Fn(&mut Value)| {
            let mut claims = claims();
            change(&mut claims);
            verify(&signer.sign(&claims).unwrap(), public(&set), &expected())
                .map(drop)
                .map_err(|refusal| refusal.name())
        };
        assert_eq!(of(&|claims| claims["exp"] = json!(NOW - 61)), Err("expired"));
        assert_eq!(of(&|claims| claims["exp"] = json!(NOW - 60)), Ok(()));
        assert_eq!(
            of(&|claims| claims["nbf"] = json!(NOW + 61)),
            Err("not_yet_valid")
        );
        assert_eq!(of(&|claims| claims["exp"] = json!("soon")), Err("claim"));
        assert_eq!(of(&|claims| claims["exp"] = Value::Null), Err("claim"));
        assert_eq!(of(&|claims| claims["sub"] = json!("")), Err("claim"));
        let foreign = stranger.sign(&claims()).unwrap();
        assert_eq!(
            verify(&foreign, public(&set), &expected()),
            Err(Refusal::Signature),
            "another key of that name"
        );
        let unknown = forged(&foreign, &json!({ "alg": "EdDSA", "kid": "k9" }));
        assert_eq!(
            verify(&unknown, public(&set), &expected()),
            Err(Refusal::UnknownKey("k9".to_owned()))
        );
        let token = signer.sign(&claims()).unwrap();
        let (us, them) = (["us".to_owned()], ["them".to_owned()]);
        let expecting = |issuers, audiences| Expected {
            issuers,
            audiences,
            ..expected()
        };
        let muster = ["muster".to_owned()];
        assert!(verify(&token, public(&set), &expecting(&us, &muster)).is_ok());
        assert_eq!(
            verify(&token, public(&set), &expecting(&them, &muster))
                .unwrap_err()
                .name(),
            "issuer"
        );
        assert_eq!(
            verify(&token, public(&set), &expecting(&us, &them)),
            Err(Refusal::Audience)
        );
        for header in [
            json!({ "alg": "EdDSA", "kid": "k1", "crit": ["b64"] }),
            json!({ "alg": "EdDSA", "kid": "k1", "typ": "JOSE" }),
        ] {
            let refused = verify(&forged(&token, &header), public(&set), &expected());
            assert_eq!(refused.unwrap_err().name(), "malformed");
        }
    }

    #[test]
    fn weak_secrets_are_refused_and_not_repeated() {
        for weak in [
            "production-secret-key",
            "production-secret-keyproduction-secret-key",
            "short",
            "abababababababababababababababababab",
        ] {
            let told = Secret::new(weak).unwrap_err();
            assert!(!told.contains(weak), "{told}");
        }
        let secret = Secret::new(STRONG).unwrap();
        assert!(!format!("{secret:?}").contains(STRONG));
    }

    proptest! {
        #[test]
        fn whatever_is_changed_is_refused(at in any::<prop::sample::Index>(), bit in 0_u8..6, noise in ".{0,40}") {
            let secret = Secret::new(STRONG).unwrap();
            let (signer, set) = pair();
            let keys = Keys { public: &set, secret: Some(&secret) };
            let mut bytes = signer.sign(&claims()).unwrap().into_bytes();
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            if let Ok(changed) = String::from_utf8(bytes) {
                prop_assert!(verify(&changed, keys, &expected()).is_err());
            }
            prop_assert!(verify(&noise, keys, &expected()).is_err());
        }
    }
}
