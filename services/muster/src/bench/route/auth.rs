//! Who calls: the tokens by which a benchmark's router knows its callers, and the settings that make it ask for them.
//!
//! The key pair is made for the one run and its private half never leaves this process: the router gets the public one in a file, as it
//! does from whoever issues tokens elsewhere. Every way gets the same token, also those that do not look at it: all carry the same
//! bytes.

use std::path::Path;

use clap::ValueEnum;
use muster_jose::Private;
use muster_jose::token::Signer;
use muster_router::rate::gcra::MOST_PER_MINUTE;
use muster_runtime::clock::{Clock as _, SystemClock};
use muster_runtime::trust::Role;
use serde_json::json;
use tonic::metadata::AsciiMetadataKey;

use super::client::Metadata;
use crate::failure::Failure;

/// The one caller of measurements that need no second one.
pub const CALLER: &str = "bench";

/// How long tokens hold, in seconds: longer than any benchmark.
const LASTS: i64 = 7 * 24 * 3_600;

/// Whom tokens are for, as services expect it by default.
const AUDIENCE: &str = "muster";

/// How the router knows callers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Auth {
    /// By a bearer token, which it demands and verifies; each caller's requests are counted against a limit that is not reached.
    Token,
    /// Not at all.
    None,
}

impl Auth {
    /// Its name on the command line and in the results.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::None => "none",
        }
    }
}

/// What issues the tokens of one run, and the router's settings that go with them.
pub struct Tokens {
    signer: Option<Signer>,
    settings: Vec<(String, String)>,
}

impl Tokens {
    /// Makes the keys; the public one is put into `directory`.
    pub fn new(auth: Auth, directory: &Path) -> Result<Self, Failure> {
        if auth == Auth::None {
            return Ok(Self {
                signer: None,
                settings: Vec::new(),
            });
        }
        let (key, _) = Private::generate().map_err(Failure::failed)?;
        let file = directory.join("jwks.json");
        std::fs::write(&file, key.key_set("").to_string())
            .map_err(|error| Failure::failed(format!("{}: {error}", file.display())))?;
        let settings = [
            ("trust.tokens.jwks_file", file.display().to_string()),
            ("trust.tokens.required", true.to_string()),
            ("router.api_rate_limit", MOST_PER_MINUTE.to_string()),
        ];
        Ok(Self {
            signer: Some(Signer::Key(key, String::new())),
            settings: settings.map(|(key, value)| (key.to_owned(), value)).into(),
        })
    }

    /// The router's settings: these, and then `others`, which count where both name a key.
    pub fn settings(&self, others: &[(String, String)]) -> Vec<(String, String)> {
        self.settings.iter().chain(others).cloned().collect()
    }

    /// What a caller of this name shows: a token by which it may have agents work; nothing where nobody asks for it.
    pub fn shown_by(&self, subject: &str) -> Result<Vec<Metadata>, Failure> {
        let Some(signer) = &self.signer else {
            return Ok(Vec::new());
        };
        let now = SystemClock::default().now().as_second();
        let claims = json!({
            "sub": subject, "iss": "muster-bench", "aud": AUDIENCE, "iat": now, "exp": now.saturating_add(LASTS),
            "roles": [Role::AgentWriter.name()],
        });
        let token = signer.sign(&claims).map_err(Failure::failed)?;
        let value = format!("Bearer {token}").parse();
        let value = value.map_err(|_| Failure::failed("the token is not plain ASCII"))?;
        Ok(vec![(AsciiMetadataKey::from_static("authorization"), value)])
    }
}
