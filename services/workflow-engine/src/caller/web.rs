//! Requests over HTTP: authenticated, bounded, through the one guarded way to the world.
//!
//! Adapters say what is to be sent; this sends it, authenticates it as the document says, and reads the answer up to the bound. It
//! judges only what concerns the authentication; what an answer means is the adapter's.

pub mod authentication;
pub(super) mod content;
pub mod digest;
mod oauth2;
mod resource;

use std::sync::Arc;

use futures::StreamExt as _;
use muster_runtime::clock::SharedClock;
use muster_workflow_dsl::request::Authentication;
use muster_workflow_dsl::secret::has_marker;
use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderName, HeaderValue, WWW_AUTHENTICATE};
use reqwest::{Method, StatusCode};
use serde_json::{Map, Value};
use url::Url;

use super::session::Session;
use super::{Failure, Kind};
use crate::config;
use crate::outbound::{Outbound, without_credentials};
use crate::secrets::Secrets;
use authentication::{Authenticator, Credentials};
use resource::Resources;

/// Sends requests.
pub struct Web {
    outbound: Outbound,
    secrets: Arc<Secrets>,
    authenticator: Authenticator,
    resources: Resources,
    /// Largest answer.
    most_bytes: usize,
}

/// What is to be sent, with secrets where they belong.
#[derive(Debug, Clone)]
pub struct Outgoing {
    /// The method.
    pub method: Method,
    /// Where to.
    pub url: Url,
    /// Headers, without those of the authentication.
    pub headers: HeaderMap,
    /// The body.
    pub body: Option<Vec<u8>>,
}

/// What came back.
#[derive(Debug, Clone)]
pub struct Incoming {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, read to its end.
    pub body: Vec<u8>,
}

impl Web {
    /// Sends over `outbound`.
    #[must_use]
    pub fn new(
        outbound: Outbound,
        secrets: Arc<Secrets>,
        clock: SharedClock,
        settings: &config::Engine,
    ) -> Self {
        Self {
            authenticator: Authenticator::new(outbound.clone(), Arc::clone(&clock)),
            resources: Resources::new(settings.resource_directory.clone(), clock),
            outbound,
            secrets,
            most_bytes: settings.max_payload_bytes,
        }
    }

    /// The secrets of a call.
    ///
    /// # Errors
    /// One of them is not there.
    pub async fn session(&self, call: &super::Call) -> Result<Session, Failure> {
        let needed = !call.grant.listed.is_empty()
            && serde_json::to_value(&*call.request).is_ok_and(|request| needs_secrets(&request));
        if needed {
            Session::open(&self.secrets, &call.grant).await
        } else {
            // What is not needed need not be there.
            Session::open(&self.secrets, &call.grant.without_secrets()).await
        }
    }

    /// Where connections are made.
    #[must_use]
    pub fn outbound(&self) -> &Outbound {
        &self.outbound
    }

    /// What a scheme sends in the header `Authorization`, for protocols besides HTTP requests of our own.
    ///
    /// # Errors
    /// There is no such value: what the scheme needs is missing, the authority refuses, or it is a digest, which answers a
    /// challenge.
    pub async fn authorization(
        &self,
        authentication: &Authentication,
        session: &mut Session,
    ) -> Result<String, Failure> {
        match self.authenticator.credentials(authentication, session).await? {
            Credentials::Header { value, .. } => Ok(value),
            Credentials::Digest(_) => {
                let detail = "authentication by 'digest' works for requests over HTTP only";
                Err(Failure::new(Kind::Configuration, 400, detail))
            }
        }
    }

    /// Sends a request and reads the answer. `finish` may complete the request once it is known what the authentication sends.
    ///
    /// # Errors
    /// There is no answer, or it is too large; or the authentication fails before anything is sent.
    pub async fn send(
        &self,
        authentication: Option<&Authentication>,
        session: &mut Session,
        finish: impl Fn(&Session) -> Result<Outgoing, Failure>,
    ) -> Result<Incoming, Failure> {
        let Some(authentication) = authentication else {
            let outgoing = finish(session)?;
            return self.exchange(&outgoing, None).await;
        };
        match self.authenticator.credentials(authentication, session).await? {
            Credentials::Header { value, reused } => {
                let outgoing = finish(session)?;
                let answer = self.exchange(&outgoing, Some(&value)).await?;
                // A token that was kept may have been revoked meanwhile.
                let Some(reused) = reused.filter(|_| answer.status == StatusCode::UNAUTHORIZED) else {
                    return Ok(answer);
                };
                self.authenticator.forget(&reused, &value);
                match self.authenticator.credentials(authentication, session).await? {
                    Credentials::Header { value, .. } => self.exchange(&finish(session)?, Some(&value)).await,
                    Credentials::Digest(_) => Ok(answer),
                }
            }
            Credentials::Digest(user) => {
                let outgoing = finish(session)?;
                let answer = self.exchange(&outgoing, None).await?;
                if answer.status != StatusCode::UNAUTHORIZED {
                    return Ok(answer);
                }
                let challenges = answer.headers.get_all(WWW_AUTHENTICATE).iter();
                let challenges = challenges.filter_map(|value| value.to_str().ok());
                let value = digest::answer(challenges, &user, &outgoing).map_err(|what| {
                    let detail = format!("'{}' {what}", without_credentials(&outgoing.url));
                    Failure::new(Kind::Authentication, 401, detail)
                })?;
                session.authorize(value.trim_start_matches("Digest "));
                self.exchange(&finish(session)?, Some(&value)).await
            }
        }
    }

    async fn exchange(&self, outgoing: &Outgoing, authorization: Option<&str>) -> Result<Incoming, Failure> {
        exchange(&self.outbound, outgoing, authorization, self.most_bytes).await
    }
}

/// Whether a request has markers in it, or an authentication that is a secret.
fn needs_secrets(request: &Value) -> bool {
    let named = |fields: &Map<String, Value>| fields.contains_key("scheme") && fields.contains_key("secret");
    has_marker(request)
        || match request {
            Value::Object(fields) => named(fields) || fields.values().any(needs_secrets),
            _ => false,
        }
}

/// Sends one request and reads the answer, which has at most so many bytes.
async fn exchange(
    outbound: &Outbound,
    outgoing: &Outgoing,
    authorization: Option<&str>,
    most_bytes: usize,
) -> Result<Incoming, Failure> {
    let invalid = |what: String| Failure::new(Kind::Validation, 400, what);
    let mut headers = outgoing.headers.clone();
    muster_runtime::trace::inject(&mut headers);
    let mut request = outbound
        .request(outgoing.method.clone(), outgoing.url.clone())
        .headers(headers);
    if let Some(authorization) = authorization {
        let mut value = HeaderValue::from_str(authorization)
            .map_err(|_| invalid("the credentials contain characters that no header may have".to_owned()))?;
        value.set_sensitive(true);
        request = request.header(AUTHORIZATION, value);
    }
    if let Some(body) = &outgoing.body {
        request = request.body(body.clone());
    }
    let shown = without_credentials(&outgoing.url);
    let request = request
        .build()
        .map_err(|_| invalid(format!("the request to '{shown}' is not a valid one")))?;
    let answer = outbound.send(request).await?;
    let too_large = |bytes: u64| {
        let detail = format!(
            "the answer of '{shown}' with {bytes} bytes or more is over the limit of {most_bytes}; ask for less, or raise \
             'engine.max_payload_bytes'"
        );
        Failure::new(Kind::Runtime, 413, detail)
    };
    if let Some(length) = answer
        .content_length()
        .filter(|length| *length > most_bytes as u64)
    {
        return Err(too_large(length));
    }
    let (status, headers) = (answer.status(), answer.headers().clone());
    let mut chunks = answer.bytes_stream();
    let mut body = Vec::new();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|error| {
            let detail = format!("the answer of '{shown}' broke off: {error}");
            Failure::new(Kind::Communication, 502, detail)
        })?;
        body.extend_from_slice(&chunk);
        if body.len() > most_bytes {
            return Err(too_large(body.len() as u64));
        }
    }
    Ok(Incoming {
        status,
        headers,
        body,
    })
}

/// An address on the network that a document named.
///
/// # Errors
/// It is none, or not one of HTTP.
pub fn address(text: &str) -> Result<Url, Failure> {
    let wrong = |what: &str| Failure::new(Kind::Validation, 400, format!("the address {what}"));
    let shown = muster_workflow_dsl::request::shown(text);
    let url = Url::parse(text).map_err(|error| wrong(&format!("'{shown}' is none: {error}")))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(wrong(&format!("'{shown}' must begin with http:// or https://")));
    }
    Ok(url)
}

/// A header that a document named.
///
/// # Errors
/// Its name or its value cannot be one.
pub fn header(name: &str, value: &str) -> Result<(HeaderName, HeaderValue), Failure> {
    let wrong = |what: String| Failure::new(Kind::Validation, 400, what);
    let parsed = name
        .parse::<HeaderName>()
        .map_err(|_| wrong(format!("'{name}' is not the name of a header")))?;
    let value = HeaderValue::from_str(value).map_err(|_| {
        wrong(format!(
            "the header '{name}' contains characters that no header may have"
        ))
    })?;
    Ok((parsed, value))
}
