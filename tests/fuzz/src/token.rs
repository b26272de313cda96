//! Tokens and the sets of keys that they are verified with: any text is answered without a panic, whatever key set is read; and nothing
//! that was not signed by one of the keys is taken.
//!
//! The first line of the input is a token, the rest a JSON Web Key Set.

use std::sync::LazyLock;

use muster_jose::key::{self, Public};
use muster_jose::token::{self, Expected, Keys, Secret};

/// Public keys of three kinds, of which nobody has the private ones.
const KEY_SET: &str = r#"{"keys": [
    {"kty": "OKP", "crv": "Ed25519", "kid": "e", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"},
    {"kty": "EC", "crv": "P-256", "kid": "p", "x": "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",
     "y": "4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"},
    {"kty": "RSA", "kid": "r", "e": "AQAB",
     "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw"}]}"#;

static KEYS: LazyLock<Vec<Public>> = LazyLock::new(|| key::key_set(KEY_SET).expect("a key set"));
static SECRET: LazyLock<Secret> =
    LazyLock::new(|| Secret::new("fuzzed 0123456789 abcdefghijklmnopqrstuvwxyz").expect("a strong secret"));

/// See the module.
pub fn run(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let (token, set) = text.split_once('\n').unwrap_or((text, ""));
    let expected = Expected {
        issuers: &[],
        audiences: &[],
        leeway: 60,
        now: 1_700_000_000,
    };
    let known = Keys {
        public: &KEYS,
        secret: Some(&SECRET),
    };
    assert!(
        token::verify(token, known, &expected).is_err(),
        "nobody has signed it: {token}"
    );
    let _said = token::inspect(token);
    if let Ok(keys) = key::key_set(set) {
        assert!(!keys.is_empty());
        let told = Keys {
            public: &keys,
            secret: None,
        };
        if let Ok(verified) = token::verify(token, told, &expected) {
            assert!(!verified.subject.is_empty() && verified.expires > expected.now - expected.leeway);
        }
    }
}
