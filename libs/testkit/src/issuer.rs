//! Who issues the tokens that a server under test takes, and what an attacker shows in their place.

use std::path::{Path, PathBuf};

use muster_jose::token::Signer;
use muster_jose::{Private, forged};
use serde_json::{Value, json};
use tempfile::TempDir;

/// The name of its key.
const KEY: &str = "k1";

/// Until when its tokens are good: longer than any test, in the year 2100.
const FAR: i64 = 4_102_444_800;

/// A key with its public half in a file, in a directory that goes with it.
#[derive(Debug)]
pub struct Issuer {
    signer: Signer,
    key_set: String,
    directory: TempDir,
}

/// A token that must not be taken.
#[derive(Debug)]
pub struct BadToken {
    /// What is wrong with it.
    pub name: &'static str,
    /// The token.
    pub token: String,
    /// How the audit log begins to say so.
    pub why: &'static str,
}

impl Issuer {
    /// Who tokens say has issued them (`iss`); they are for `muster` (`aud`).
    pub const NAME: &'static str = "us";

    /// Makes a key.
    ///
    /// # Panics
    /// When there is no room for it.
    #[must_use]
    pub fn new() -> Self {
        let (key, _) = Private::generate().unwrap_or_else(|error| panic!("a key: {error}"));
        let key_set = key.key_set(KEY).to_string();
        let directory = tempfile::tempdir().unwrap_or_else(|error| panic!("a directory: {error}"));
        let issuer = Self {
            signer: Signer::Key(key, KEY.to_owned()),
            key_set,
            directory,
        };
        let path = issuer.key_set();
        std::fs::write(&path, &issuer.key_set).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        issuer
    }

    /// Where its keys are; other files may be beside them.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The file of its public keys.
    #[must_use]
    pub fn key_set(&self) -> PathBuf {
        self.directory().join("keys.json")
    }

    /// Where the audit log of a server can be.
    #[must_use]
    pub fn audit(&self) -> PathBuf {
        self.directory().join("audit")
    }

    /// What a good token says. Of `more`, claims are added or take the places of others.
    #[must_use]
    pub fn claims(subject: &str, roles: &[&str], more: &Value) -> Value {
        let mut claims =
            json!({"sub": subject, "iss": Self::NAME, "aud": "muster", "exp": FAR, "roles": roles});
        if let (Value::Object(claims), Value::Object(more)) = (&mut claims, more) {
            claims.extend(more.clone());
        }
        claims
    }

    /// A token that says that.
    ///
    /// # Panics
    /// When the system has no random numbers.
    #[must_use]
    pub fn token(&self, subject: &str, roles: &[&str], more: &Value) -> String {
        let claims = Self::claims(subject, roles, more);
        self.signer
            .sign(&claims)
            .unwrap_or_else(|error| panic!("{claims}: {error}"))
    }

    /// Tokens of an admin, as they say themselves, that must not be taken.
    ///
    /// # Panics
    /// When the system has no random numbers.
    #[must_use]
    pub fn bad_tokens(&self) -> Vec<BadToken> {
        let admin = |more: &Value| self.token("ada", &["admin"], more);
        let good = Self::claims("ada", &["admin"], &Value::Null);
        let made = |token: Result<String, String>| token.unwrap_or_else(|error| panic!("{error}"));
        let bad = |name, token: String, why| BadToken { name, token, why };
        vec![
            bad("nonsense", "nonsense".to_owned(), "malformed"),
            bad("expired", admin(&json!({"exp": 1})), "expired"),
            bad("too early", admin(&json!({"nbf": FAR})), "not_yet_valid"),
            bad("for another", admin(&json!({"aud": "other"})), "audience"),
            bad("of another", admin(&json!({"iss": "them"})), "issuer"),
            bad("unsigned", forged::unsigned(&good), "algorithm"),
            bad("foreign", made(forged::foreign(&good, KEY)), "signature"),
            bad(
                "confused",
                made(forged::confused(&good, &self.key_set)),
                "algorithm",
            ),
        ]
    }
}

impl Default for Issuer {
    fn default() -> Self {
        Self::new()
    }
}
