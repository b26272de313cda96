//! Keys of signatures: private ones from PEM, public ones from and to JSON Web Keys.
//!
//! ES256 and EdDSA (Ed25519) are signed with, and RS256 is understood besides. A key has one algorithm, which follows from what
//! it is: a signature cannot choose. Shared secrets are not keys of this kind ([`crate::token::Secret`]), so that a public key is
//! never taken for one.

use std::fmt;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::rand::SystemRandom;
use ring::rsa::PublicKeyComponents;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, ED25519, EcdsaKeyPair, Ed25519KeyPair,
    KeyPair as _, RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey,
};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// Length of a coordinate of P-256, and of a key of Ed25519.
const COORDINATE: usize = 32;
/// What an uncompressed point begins with.
const UNCOMPRESSED: u8 = 4;

/// A private key.
pub enum Private {
    /// ECDSA on P-256 with SHA-256.
    Es256(Box<EcdsaKeyPair>),
    /// Ed25519.
    Ed25519(Box<Ed25519KeyPair>),
}

impl fmt::Debug for Private {
    /// Without the key.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Private({})", self.algorithm())
    }
}

impl Private {
    /// The key as a set of one public key under this id, or its thumbprint where the id is empty.
    #[must_use]
    pub fn key_set(&self, id: &str) -> Value {
        let mut jwk = self.jwk();
        let thumbprint = self.thumbprint();
        jwk["kid"] = json!(if id.is_empty() { &thumbprint } else { id });
        jwk["alg"] = json!(self.algorithm());
        jwk["use"] = json!("sig");
        json!({ "keys": [jwk] })
    }

    /// Reads a key from a file with PKCS#8 in PEM.
    ///
    /// # Errors
    /// Names the file and says what is wrong, and nothing of what is in it.
    pub fn read(path: &Path) -> Result<Self, String> {
        let der = PrivatePkcs8KeyDer::from_pem_file(path).map_err(|error| {
            format!(
                "{}: {error}; a private key in PEM with PKCS#8 is needed, as `openssl genpkey -algorithm ed25519` writes it",
                path.display()
            )
        })?;
        Self::of_pkcs8(der.secret_pkcs8_der()).ok_or_else(|| {
            format!(
                "{}: the key is neither of Ed25519 nor of the elliptic curve P-256",
                path.display()
            )
        })
    }

    /// A fresh key of Ed25519, and its PKCS#8 in PEM.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub fn generate() -> Result<(Self, String), String> {
        let none = || "the system has no random numbers".to_owned();
        let der = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|_| none())?;
        let key = Self::of_pkcs8(der.as_ref()).ok_or_else(none)?;
        let lines: Vec<String> = STANDARD
            .encode(der.as_ref())
            .as_bytes()
            .chunks(64)
            .map(|line| String::from_utf8_lossy(line).into_owned())
            .collect();
        let text = lines.join("\n");
        Ok((
            key,
            format!("-----BEGIN PRIVATE KEY-----\n{text}\n-----END PRIVATE KEY-----\n"),
        ))
    }

    /// A key in PKCS#8, of Ed25519 or P-256.
    #[must_use]
    pub fn of_pkcs8(der: &[u8]) -> Option<Self> {
        // OpenSSL leaves the public key out, so that there is nothing to check it against.
        if let Ok(pair) = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der) {
            return Some(Self::Ed25519(Box::new(pair)));
        }
        let random = SystemRandom::new();
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der, &random)
            .ok()
            .map(|pair| Self::Es256(Box::new(pair)))
    }

    /// Its algorithm, as headers name it.
    #[must_use]
    pub const fn algorithm(&self) -> &'static str {
        match self {
            Self::Es256(_) => "ES256",
            Self::Ed25519(_) => "EdDSA",
        }
    }

    /// A signature of these bytes.
    ///
    /// # Errors
    /// The system has no random numbers.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, String> {
        match self {
            Self::Es256(pair) => pair
                .sign(&SystemRandom::new(), message)
                .map(|signature| signature.as_ref().to_vec())
                .map_err(|_| "the system has no random numbers".to_owned()),
            Self::Ed25519(pair) => Ok(pair.sign(message).as_ref().to_vec()),
        }
    }

    /// The public key as a JSON Web Key, without its id.
    #[must_use]
    pub fn jwk(&self) -> Value {
        let encoded = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        match self {
            Self::Es256(pair) => {
                let point = pair.public_key().as_ref();
                let (x, y) = point
                    .get(1..)
                    .unwrap_or_default()
                    .split_at_checked(COORDINATE)
                    .unwrap_or_default();
                json!({ "kty": "EC", "crv": "P-256", "x": encoded(x), "y": encoded(y) })
            }
            Self::Ed25519(pair) => {
                json!({ "kty": "OKP", "crv": "Ed25519", "x": encoded(pair.public_key().as_ref()) })
            }
        }
    }

    /// The thumbprint of the public key (RFC 7638), which names it where nobody does.
    #[must_use]
    pub fn thumbprint(&self) -> String {
        // The members of the key are those of the thumbprint; the canonical form has them in order.
        let members = serde_json_canonicalizer::to_vec(&self.jwk()).unwrap_or_default();
        URL_SAFE_NO_PAD.encode(Sha256::digest(members))
    }
}

/// A public key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Public {
    /// Its id, where it has one.
    pub id: Option<String>,
    material: Material,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Material {
    /// The uncompressed point.
    Es256(Vec<u8>),
    Ed25519(Vec<u8>),
    /// Modulus and exponent.
    Rs256(Vec<u8>, Vec<u8>),
}

impl Public {
    /// Reads a JSON Web Key; `None` for one of another kind or for another use.
    ///
    /// # Errors
    /// It is of a kind that is understood, and malformed.
    pub fn of_jwk(key: &Value) -> Result<Option<Self>, String> {
        let text = |name: &str| key.get(name).and_then(Value::as_str);
        let number = |name: &str| {
            let encoded = text(name).ok_or_else(|| format!("'{name}' is missing"))?;
            URL_SAFE_NO_PAD
                .decode(encoded.trim_end_matches('='))
                .map_err(|_| format!("'{name}' is not in base64url"))
        };
        let coordinate = |name: &str| {
            let bytes = number(name)?;
            if bytes.len() == COORDINATE {
                Ok(bytes)
            } else {
                Err(format!("'{name}' has {} bytes, not {COORDINATE}", bytes.len()))
            }
        };
        if text("use").is_some_and(|purpose| purpose != "sig") {
            return Ok(None);
        }
        let material = match (text("kty"), text("crv")) {
            (Some("EC"), Some("P-256")) => {
                let mut point = vec![UNCOMPRESSED];
                point.extend(coordinate("x")?);
                point.extend(coordinate("y")?);
                Material::Es256(point)
            }
            (Some("OKP"), Some("Ed25519")) => Material::Ed25519(coordinate("x")?),
            (Some("RSA"), _) => Material::Rs256(number("n")?, number("e")?),
            _ => return Ok(None),
        };
        let public = Self {
            id: text("kid").map(str::to_owned),
            material,
        };
        // A key for one algorithm is for no other.
        let is_meant = text("alg").is_none_or(|algorithm| public.has_algorithm(algorithm));
        Ok(is_meant.then_some(public))
    }

    /// Whether signatures of this algorithm can be its own. The algorithm follows from the key, and never from the signature
    /// alone.
    #[must_use]
    pub fn has_algorithm(&self, algorithm: &str) -> bool {
        match self.material {
            Material::Es256(_) => algorithm == "ES256",
            Material::Ed25519(_) => matches!(algorithm, "EdDSA" | "Ed25519"),
            Material::Rs256(..) => algorithm == "RS256",
        }
    }

    /// Whether it has signed these bytes.
    #[must_use]
    pub fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        match &self.material {
            Material::Es256(point) => UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point)
                .verify(message, signature)
                .is_ok(),
            Material::Ed25519(key) => UnparsedPublicKey::new(&ED25519, key)
                .verify(message, signature)
                .is_ok(),
            Material::Rs256(n, e) => PublicKeyComponents { n, e }
                .verify(&RSA_PKCS1_2048_8192_SHA256, message, signature)
                .is_ok(),
        }
    }
}

/// Reads a JSON Web Key Set; keys of kinds that are not understood are left out.
///
/// # Errors
/// It is none, or none of its keys can be used.
pub fn key_set(text: &str) -> Result<Vec<Public>, String> {
    let set: Value = serde_json::from_str(text).map_err(|error| format!("it is no JSON: {error}"))?;
    let keys = set
        .get("keys")
        .and_then(Value::as_array)
        .ok_or("it is no JSON Web Key Set: it has no list 'keys'")?;
    let mut found = Vec::new();
    for (index, key) in keys.iter().enumerate() {
        let key = Public::of_jwk(key).map_err(|what| format!("keys[{index}]: {what}"))?;
        found.extend(key);
    }
    if found.is_empty() {
        return Err("no key in it is for signatures of Ed25519, P-256 or RSA".to_owned());
    }
    Ok(found)
}
