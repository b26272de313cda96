//! Tokens that nobody may take, as attackers make them: for tests, and for `muster readiness`, which shows them to a fleet.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::key::Private;
use crate::token::{Secret, Signer};

/// One that nobody has signed.
#[must_use]
pub fn unsigned(claims: &Value) -> String {
    let encoded = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}.", encoded(&json!({ "alg": "none" })), encoded(claims))
}

/// One that is signed by a key of the attacker's, under this name of a key; its own where it is empty.
///
/// # Errors
/// The system has no random numbers.
pub fn foreign(claims: &Value, key_id: &str) -> Result<String, String> {
    let (key, _) = Private::generate()?;
    Signer::Key(key, key_id.to_owned()).sign(claims)
}

/// One that is signed with a public key set as if that were a shared secret.
///
/// # Errors
/// The key set is too short for that.
pub fn confused(claims: &Value, key_set: &str) -> Result<String, String> {
    Ok(Signer::sign_with(&Secret::new(key_set)?, claims))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key;
    use crate::token::{Expected, Keys, Refusal, verify};

    #[test]
    fn each_is_refused_for_what_is_wrong_with_it() {
        let (own, _) = Private::generate().unwrap();
        let key_set = own.key_set("k1").to_string();
        let public = key::key_set(&key_set).unwrap();
        let claims = json!({ "sub": "ada", "exp": 2_000_000_000, "roles": ["admin"] });
        let expected = Expected {
            issuers: &[],
            audiences: &[],
            leeway: 60,
            now: 1_700_000_000,
        };
        let keys = Keys {
            public: &public,
            secret: None,
        };
        let refused = |token: &str| verify(token, keys, &expected).unwrap_err();
        assert_eq!(refused(&unsigned(&claims)), Refusal::Algorithm("none".to_owned()));
        assert_eq!(refused(&foreign(&claims, "k1").unwrap()), Refusal::Signature);
        let confused = refused(&confused(&claims, &key_set).unwrap());
        assert_eq!(confused, Refusal::Algorithm("HS256".to_owned()));
        let good = Signer::Key(own, "k1".to_owned()).sign(&claims).unwrap();
        assert_eq!(verify(&good, keys, &expected).unwrap().subject, "ada");
    }
}
