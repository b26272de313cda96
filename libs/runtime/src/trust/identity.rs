//! How this service says who it is to others of ours where no certificate does.
//!
//! A token goes with each call: the one that the operator has given (`trust.tokens.service_token`), or one that the service makes for
//! itself out of the shared secret, for a few minutes. It goes to our own services alone, never to agents: an agent of others
//! could use it.

use std::sync::Arc;

use http::header;
use jiff::Timestamp;
use muster_jose::token::{Secret, Signer};
use muster_rpc::channel::Security;
use muster_rpc::endpoint::Endpoint;
use muster_rpc::reread::Reread;
use parking_lot::Mutex;
use serde_json::json;
use tonic::metadata::AsciiMetadataValue;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::{Request, Status};

use super::caller::Role;
use super::token;
use crate::clock::{Clock as _, SystemClock};

/// How long a token lasts that the service makes for itself, and how long before its end another one is made; in seconds.
const LASTS: i64 = 300;
const RENEWED: i64 = 60;

/// Largest file.
const LARGEST: u64 = 64 << 10;

/// A channel over which each call says who calls.
pub type Channel = InterceptedService<tonic::transport::Channel, Identity>;

/// See the module. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Identity(Option<Arc<Known>>);

#[derive(Debug)]
struct Known {
    source: Source,
    clock: SystemClock,
}

#[derive(Debug)]
enum Source {
    Given(AsciiMetadataValue),
    File(Reread<AsciiMetadataValue>),
    Made {
        name: String,
        role: Role,
        issuer: String,
        audience: String,
        secret: Made,
        last: Mutex<Option<(AsciiMetadataValue, i64)>>,
    },
}

#[derive(Debug)]
enum Made {
    Here(Secret),
    File(Reread<Secret>),
}

impl Identity {
    /// Who the service `name` is under this configuration; where it makes its tokens itself, with this role.
    ///
    /// # Errors
    /// Names the setting at fault.
    pub fn new(config: &token::Config, name: &str, role: Role) -> Result<Self, String> {
        let source = if let Some(token) = &config.service_token {
            Source::Given(
                bearer(token.reveal()).map_err(|what| format!("trust.tokens.service_token: {what}"))?,
            )
        } else if let Some(path) = &config.service_token_file {
            Source::File(Reread::new(path, LARGEST, bearer))
        } else if config.has_secret() {
            let secret = match (&config.jwt_secret_key, &config.jwt_secret_key_file) {
                (Some(secret), _) => Made::Here(
                    Secret::new(secret.reveal())
                        .map_err(|what| format!("trust.tokens.jwt_secret_key: {what}"))?,
                ),
                (None, Some(path)) => Made::File(Reread::new(path, LARGEST, Secret::new)),
                (None, None) => return Ok(Self(None)),
            };
            let first = |names: &[String]| names.first().cloned().unwrap_or_else(|| "muster".to_owned());
            Source::Made {
                name: name.to_owned(),
                role,
                issuer: first(&config.issuers),
                audience: first(&config.audiences),
                secret,
                last: Mutex::default(),
            }
        } else {
            return Ok(Self(None));
        };
        Ok(Self(Some(Arc::new(Known {
            source,
            clock: SystemClock::default(),
        }))))
    }

    /// A channel to one of our services, whose connections are secured like this. It connects at the first call.
    #[must_use]
    pub fn channel(&self, endpoint: &Endpoint, security: &Security) -> Channel {
        let channel = muster_rpc::channel::connect_lazy_secured(endpoint, security);
        InterceptedService::new(channel, self.clone())
    }

    fn header(&self) -> Result<Option<AsciiMetadataValue>, String> {
        let Some(known) = &self.0 else {
            return Ok(None);
        };
        let now = known.clock.now();
        match &known.source {
            Source::Given(value) => Ok(Some(value.clone())),
            Source::File(file) => file
                .get(known.clock.monotonic())
                .map(|value| Some((*value).clone())),
            Source::Made {
                name,
                role,
                issuer,
                audience,
                secret,
                last,
            } => {
                let mut last = last.lock();
                if let Some((value, until)) = &*last
                    && now.as_second() < *until - RENEWED
                {
                    return Ok(Some(value.clone()));
                }
                let until = now.as_second() + LASTS;
                let claims = claims(name, *role, (issuer, audience), now, until);
                let token = match secret {
                    Made::Here(secret) => Signer::sign_with(secret, &claims),
                    Made::File(file) => Signer::sign_with(&*file.get(known.clock.monotonic())?, &claims),
                };
                let value = bearer(&token)?;
                *last = Some((value.clone(), until));
                Ok(Some(value))
            }
        }
    }
}

fn claims(
    name: &str,
    role: Role,
    (issuer, audience): (&str, &str),
    now: Timestamp,
    until: i64,
) -> serde_json::Value {
    json!({
        "sub": name, "iss": issuer, "aud": audience, "iat": now.as_second(), "exp": until,
        "roles": [role.name()],
    })
}

fn bearer(token: &str) -> Result<AsciiMetadataValue, String> {
    let mut value = AsciiMetadataValue::try_from(format!("Bearer {}", token.trim()))
        .map_err(|_| "is no token: it is not plain ASCII".to_owned())?;
    value.set_sensitive(true);
    Ok(value)
}

impl Interceptor for Identity {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let header = self
            .header()
            .map_err(|what| Status::unauthenticated(format!("this service has no token to show: {what}")))?;
        if let Some(value) = header {
            request
                .metadata_mut()
                .insert(header::AUTHORIZATION.as_str(), value);
        }
        Ok(request)
    }
}
