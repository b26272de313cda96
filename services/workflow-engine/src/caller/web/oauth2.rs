//! Tokens of OAuth 2.0 and OpenID Connect.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit as _, Mac as _};
use jiff::Timestamp;
use muster_workflow_dsl::document::Scheme;
use reqwest::Method;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue};
use serde::Deserialize;
use serde_json::{Value, json};
use sha2::Sha256;

use super::super::session::Session;
use super::super::{Failure, Kind};
use super::{Incoming, Outgoing, address, exchange};
use crate::outbound::Outbound;

/// Largest answer of an authority.
const MOST_BYTES: usize = 256 * 1024;

/// How long a signed assertion is good, in seconds.
const ASSERTION_SECONDS: i64 = 60;

const FORM: &str = "application/x-www-form-urlencoded";

/// Everything that is needed to obtain a token.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Authority {
    authority: String,
    grant: String,
    #[serde(default)]
    endpoints: Endpoints,
    #[serde(default)]
    client: Client,
    #[serde(default)]
    request: Request,
    #[serde(default)]
    issuers: Vec<String>,
    #[serde(default)]
    scopes: Vec<String>,
    #[serde(default)]
    audiences: Vec<String>,
    username: Option<String>,
    password: Option<String>,
    subject: Option<Given>,
    actor: Option<Given>,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct Endpoints {
    token: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct Client {
    id: Option<String>,
    secret: Option<String>,
    assertion: Option<String>,
    authentication: Option<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct Request {
    encoding: Option<String>,
}

/// A token that somebody obtained.
#[derive(Debug, Clone, Deserialize)]
struct Given {
    token: String,
    r#type: Option<String>,
}

/// A token of the authority.
#[derive(Debug, Deserialize)]
pub(super) struct Issued {
    pub(super) access_token: String,
    /// Seconds; a token of unknown life is used once.
    pub(super) expires_in: Option<u64>,
    id_token: Option<String>,
}

impl Authority {
    /// Tells tokens apart that were obtained in different ways.
    pub(super) fn key(&self, scheme: Scheme) -> String {
        // Only in memory, and only as a digest.
        muster_workflow_dsl::digest(&format!("{scheme} {self:?}"))
    }

    fn parameters(&self) -> BTreeMap<&'static str, String> {
        let mut parameters = BTreeMap::from([("grant_type", self.grant.clone())]);
        let mut put = |name, value: Option<&String>| {
            if let Some(value) = value {
                parameters.insert(name, value.clone());
            }
        };
        put("username", self.username.as_ref());
        put("password", self.password.as_ref());
        if self.grant == "refresh_token" {
            put(
                "refresh_token",
                self.subject.as_ref().map(|subject| &subject.token),
            );
        } else {
            put(
                "subject_token",
                self.subject.as_ref().map(|subject| &subject.token),
            );
            put(
                "subject_token_type",
                self.subject.as_ref().and_then(|subject| subject.r#type.as_ref()),
            );
            put("actor_token", self.actor.as_ref().map(|actor| &actor.token));
            put(
                "actor_token_type",
                self.actor.as_ref().and_then(|actor| actor.r#type.as_ref()),
            );
        }
        for (name, list) in [("scope", &self.scopes), ("audience", &self.audiences)] {
            if !list.is_empty() {
                parameters.insert(name, list.join(" "));
            }
        }
        parameters
    }

    /// Adds what the client says about itself; what goes into the header is returned.
    fn authenticate(
        &self,
        parameters: &mut BTreeMap<&'static str, String>,
        token_endpoint: &str,
        now: Timestamp,
    ) -> Result<Option<String>, Failure> {
        let Client {
            id,
            secret,
            assertion,
            authentication,
        } = &self.client;
        let method = authentication.as_deref().unwrap_or("client_secret_post");
        let needed = |value: &Option<String>, name: &str| {
            value.clone().ok_or_else(|| {
                let detail = format!("the client authentication '{method}' needs 'client.{name}'");
                Failure::new(Kind::Configuration, 400, detail)
            })
        };
        const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
        match method {
            "client_secret_basic" => {
                let encode =
                    |text: String| url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
                let (id, secret) = (encode(needed(id, "id")?), encode(needed(secret, "secret")?));
                return Ok(Some(format!(
                    "Basic {}",
                    STANDARD.encode(format!("{id}:{secret}"))
                )));
            }
            "client_secret_jwt" => {
                let signed = signed(
                    &needed(id, "id")?,
                    &needed(secret, "secret")?,
                    token_endpoint,
                    now,
                );
                parameters.insert("client_assertion", signed);
                parameters.insert("client_assertion_type", ASSERTION_TYPE.to_owned());
            }
            "private_key_jwt" => {
                parameters.insert("client_assertion", needed(assertion, "assertion")?);
                parameters.insert("client_assertion_type", ASSERTION_TYPE.to_owned());
            }
            "none" => {}
            "client_secret_post" => {
                if let Some(secret) = secret {
                    parameters.insert("client_secret", secret.clone());
                }
            }
            other => {
                let detail = format!("there is no client authentication '{other}'");
                return Err(Failure::new(Kind::Configuration, 400, detail));
            }
        }
        if let Some(id) = id {
            parameters.insert("client_id", id.clone());
        }
        Ok(None)
    }

    /// The token must come from one of the issuers that the document names.
    fn check_issuer(&self, issued: &Issued) -> Result<(), Failure> {
        if self.issuers.is_empty() {
            return Ok(());
        }
        let tokens = [Some(&issued.access_token), issued.id_token.as_ref()];
        let issuer = tokens.into_iter().flatten().find_map(|token| issuer(token));
        match issuer {
            Some(issuer) if self.issuers.contains(&issuer) => Ok(()),
            Some(issuer) => Err(refused(format!(
                "the token was issued by '{issuer}', which is not among 'issuers'"
            ))),
            None => Err(refused(
                "the token does not say who issued it, and 'issuers' asks for that".to_owned(),
            )),
        }
    }
}

fn refused(detail: String) -> Failure {
    Failure::new(Kind::Authentication, 401, detail)
}

/// The claim `iss` of a JWT. Its signature is for whom the token is sent to; here it is read as it came over TLS.
fn issuer(token: &str) -> Option<String> {
    let payload = token.split('.').nth(1)?;
    let payload: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()?;
    payload.get("iss")?.as_str().map(str::to_owned)
}

/// An assertion about the client, signed with its secret (RFC 7523).
fn signed(id: &str, secret: &str, audience: &str, now: Timestamp) -> String {
    let now = now.as_second();
    let claims = json!({
        "iss": id,
        "sub": id,
        "aud": audience,
        "jti": uuid::Uuid::new_v4().to_string(),
        "iat": now,
        "exp": now + ASSERTION_SECONDS,
    });
    let encode = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let unsigned = format!(
        "{}.{}",
        encode(json!({"alg": "HS256", "typ": "JWT"})),
        encode(claims)
    );
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("HMAC takes keys of any length");
    mac.update(unsigned.as_bytes());
    format!(
        "{unsigned}.{}",
        URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes())
    )
}

/// Asks the authority for a token.
pub(super) async fn obtain(
    outbound: &Outbound,
    scheme: Scheme,
    authority: &Authority,
    session: &Session,
    now: Timestamp,
) -> Result<Issued, Failure> {
    let base = authority.authority.trim_end_matches('/');
    let endpoint = match scheme {
        Scheme::Oidc => discover(outbound, base).await?,
        _ => match &authority.endpoints.token {
            Some(absolute) if absolute.contains("://") => absolute.clone(),
            Some(path) => format!("{base}/{}", path.trim_start_matches('/')),
            None => format!("{base}/oauth2/token"),
        },
    };
    let url = address(&endpoint)?;
    let mut parameters = authority.parameters();
    let authorization = authority.authenticate(&mut parameters, &endpoint, now)?;
    let encoding = authority.request.encoding.as_deref().unwrap_or(FORM);
    let body = if encoding == FORM {
        url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs(&parameters)
            .finish()
    } else {
        json!(parameters).to_string()
    };
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    let encoding = HeaderValue::from_str(encoding).map_err(|_| {
        Failure::new(
            Kind::Configuration,
            400,
            "'request.encoding' cannot be a content type",
        )
    })?;
    headers.insert(CONTENT_TYPE, encoding);
    let outgoing = Outgoing {
        method: Method::POST,
        url,
        headers,
        body: Some(body.into_bytes()),
    };
    let answer = exchange(outbound, &outgoing, authorization.as_deref(), MOST_BYTES)
        .await
        .map_err(|failure| session.redaction().failure(failure))?;
    let issued = read(&answer, &endpoint).map_err(|failure| session.redaction().failure(failure))?;
    authority.check_issuer(&issued)?;
    Ok(issued)
}

fn read(answer: &Incoming, endpoint: &str) -> Result<Issued, Failure> {
    let endpoint = muster_workflow_dsl::request::shown(endpoint);
    if answer.status.is_success() {
        return serde_json::from_slice(&answer.body).map_err(|_| {
            let detail = format!("what '{endpoint}' answered is not a token");
            Failure::new(Kind::Communication, 502, detail)
        });
    }
    // RFC 6749, section 5.2; nothing else of the answer is repeated, because it may hold what was sent.
    let problem: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let text = |name: &str| problem.get(name).and_then(Value::as_str).unwrap_or_default();
    let said = [text("error"), text("error_description")].join(" ");
    let said: String = said.trim().chars().take(300).collect();
    let status = answer.status.as_u16();
    let detail = format!("'{endpoint}' issues no token: {status} {said}");
    Err(if answer.status.is_server_error() || status == 429 {
        Failure::new(Kind::Communication, status, detail)
    } else {
        refused(detail)
    })
}

/// Where an authority of OpenID Connect issues tokens, as it says itself.
async fn discover(outbound: &Outbound, base: &str) -> Result<String, Failure> {
    #[derive(Deserialize)]
    struct Discovered {
        token_endpoint: String,
    }
    let url = address(&format!("{base}/.well-known/openid-configuration"))?;
    let shown = crate::outbound::without_credentials(&url);
    let outgoing = Outgoing {
        method: Method::GET,
        url,
        headers: HeaderMap::new(),
        body: None,
    };
    let answer = exchange(outbound, &outgoing, None, MOST_BYTES).await?;
    let discovered = answer
        .status
        .is_success()
        .then(|| serde_json::from_slice::<Discovered>(&answer.body).ok())
        .flatten();
    discovered
        .map(|discovered| discovered.token_endpoint)
        .ok_or_else(|| {
            let status = answer.status.as_u16();
            let detail = format!("'{shown}' answered {status} and does not say where tokens are issued");
            Failure::new(Kind::Communication, 502, detail)
        })
}
