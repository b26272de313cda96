//! How a call authenticates itself.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Template;

/// A way to authenticate.
#[derive(Debug, Clone)]
pub struct Authentication {
    /// Which.
    pub scheme: Scheme,
    /// With what.
    pub properties: AuthenticationProperties,
}

/// What a scheme needs, such as a user's name and password.
#[derive(Debug, Clone)]
pub enum AuthenticationProperties {
    /// An object with the fields of the scheme.
    Given(Template),
    /// `use`: the secret with this name holds them, as an object.
    Secret(String),
}

/// The ways to authenticate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scheme {
    /// A name and a password with each request.
    Basic,
    /// A token with each request.
    Bearer,
    /// A name, and proof that the password is known (RFC 7616).
    Digest,
    /// A token that an authority issues (RFC 6749).
    Oauth2,
    /// As [`Self::Oauth2`], with an authority that says where its endpoints are.
    Oidc,
}

impl Scheme {
    /// Each scheme with its name.
    pub const NAMES: [(&'static str, Self); 5] = [
        ("basic", Self::Basic),
        ("bearer", Self::Bearer),
        ("digest", Self::Digest),
        ("oauth2", Self::Oauth2),
        ("oidc", Self::Oidc),
    ];

    /// The name in documents.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Basic => "basic",
            Self::Bearer => "bearer",
            Self::Digest => "digest",
            Self::Oauth2 => "oauth2",
            Self::Oidc => "oidc",
        }
    }

    /// The name in the header `Authorization`.
    #[must_use]
    pub fn in_header(self) -> &'static str {
        match self {
            Self::Basic => "Basic",
            Self::Digest => "Digest",
            Self::Bearer | Self::Oauth2 | Self::Oidc => "Bearer",
        }
    }
}

impl fmt::Display for Scheme {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name())
    }
}
