//! The section `trust.tokens`: where keys are, what tokens must say, and which claims say what.

use std::collections::BTreeMap;
use std::path::PathBuf;

use muster_jose::token::Secret;
use serde::{Deserialize, Serialize};
use url::Url;

use crate::config::Mistakes;
use crate::trust::grants::Grants;
use crate::trust::secret::Hidden;

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

    pub(in crate::trust) const fn has_secret(&self) -> bool {
        self.jwt_secret_key.is_some() || self.jwt_secret_key_file.is_some()
    }

    /// Adds what is wrong.
    pub(in crate::trust) fn validate(&self, mistakes: &mut Mistakes) {
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

pub(super) fn key_url(text: &str) -> Result<Url, String> {
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

#[cfg(test)]
mod tests {
    use super::*;

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
