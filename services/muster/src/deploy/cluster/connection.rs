//! Requests to the API, and what to do when they fail.
//!
//! The client is the HTTP client that is in the tree. Rejected: the crate `kube`, whose client changes the features of `tracing`, `rustls`,
//! `tower` and `serde_json` for everything that is built, and brings types for the whole API, of which nothing would be used: objects
//! are JSON here, so that kinds that no crate knows are deployed like the others. What is left of it is reading kubeconfigs.
//!
//! What an overloaded or restarting API server answers (429, 500, 502, 503, 504, a broken connection) is tried again, a bounded number
//! of times. Everything that is sent may be sent again: changes are server-side applies and deletions; the one thing that is created
//! otherwise is the lease, which notices.

use std::net::ToSocketAddrs as _;
use std::sync::Arc;
use std::time::Duration;

use reqwest::{Certificate, Identity, Method, Proxy, StatusCode};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::Mutex;
use url::Url;

use super::Error;
use super::credentials::{Credentials, Said};
use super::error::{Status, innermost};
use super::kubeconfig::Access;

const CONNECT: Duration = Duration::from_secs(10);
/// How long one attempt may take.
const ANSWER: Duration = Duration::from_secs(30);
const ATTEMPTS: u32 = 6;
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The connection to one API server.
pub struct Connection {
    client: reqwest::Client,
    /// What requests are sent to; with the name of its certificate, which may be another than that of its address.
    base: String,
    /// Its address, for people.
    server: Arc<str>,
    credentials: Credentials,
    acting_for: Vec<(&'static str, String)>,
    said: Mutex<Option<Said>>,
}

impl Connection {
    /// Prepares it; nothing is sent yet.
    pub async fn new(access: Access) -> Result<Self, Error> {
        let wrong = |what: String| Error::Kubeconfig(what);
        // Another part of the process may have been first, with the same one.
        let _installed = rustls::crypto::ring::default_provider().install_default();
        let mut said = None;
        if let Credentials::Program(program) = &access.credentials {
            said = Some(program.ask().await?);
        }
        let mut url =
            Url::parse(&access.server).map_err(|error| wrong(format!("{}: {error}", access.server)))?;
        let mut builder = reqwest::Client::builder()
            .connect_timeout(CONNECT)
            .timeout(ANSWER)
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("muster/", env!("CARGO_PKG_VERSION")));
        builder = match &access.proxy {
            None => builder,
            Some(proxy) => builder.proxy(
                Proxy::all(proxy).map_err(|error| wrong(format!("proxy-url: {}", innermost(&error))))?,
            ),
        };
        if let Some(name) = &access.server_name {
            let host = url
                .host_str()
                .unwrap_or_default()
                .trim_matches(['[', ']'])
                .to_owned();
            let port = url.port_or_known_default().unwrap_or(443);
            let addresses: Vec<_> = (host.as_str(), port)
                .to_socket_addrs()
                .map_err(|error| wrong(format!("{}: {error}", access.server)))?
                .collect();
            builder = builder.resolve_to_addrs(name, &addresses);
            url.set_host(Some(name))
                .map_err(|error| wrong(format!("tls-server-name: {error}")))?;
        }
        if let Some(roots) = &access.roots {
            let roots = Certificate::from_pem_bundle(roots)
                .map_err(|error| wrong(format!("certificate-authority: {}", innermost(&error))))?;
            builder = builder.tls_certs_only(roots);
        }
        if access.insecure {
            builder = builder.tls_danger_accept_invalid_certs(true);
        }
        let identity = access.identity.or_else(|| said.as_ref().and_then(Said::identity));
        if let Some(identity) = identity {
            let identity = Identity::from_pem(&identity)
                .map_err(|error| wrong(format!("client-certificate: {}", innermost(&error))))?;
            builder = builder.identity(identity);
        }
        let client = builder.build().map_err(|error| wrong(innermost(&error)))?;
        Ok(Self {
            client,
            base: url.to_string().trim_end_matches('/').to_owned(),
            server: access.server.into(),
            credentials: access.credentials,
            acting_for: access.acting_for,
            said: Mutex::new(said),
        })
    }

    /// Where it leads.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// What proves who we are. `anew`: what a program said before was refused.
    async fn authorization(&self, anew: bool) -> Result<Option<String>, Error> {
        Ok(match &self.credentials {
            Credentials::None => None,
            Credentials::Token(token) => Some(format!("Bearer {token}")),
            Credentials::TokenFile(path) => {
                let token = std::fs::read_to_string(path)
                    .map_err(|error| Error::Kubeconfig(format!("{}: {error}", path.display())))?;
                Some(format!("Bearer {}", token.trim()))
            }
            Credentials::Password(encoded) => Some(format!("Basic {encoded}")),
            Credentials::Program(program) => {
                let mut said = self.said.lock().await;
                if anew || said.as_ref().is_none_or(|said| !said.is_fresh()) {
                    *said = Some(program.ask().await?);
                }
                let token = said.as_ref().and_then(|said| said.token.as_ref());
                token.map(|token| format!("Bearer {token}"))
            }
        })
    }

    /// One request, tried again where that may help.
    pub async fn call(
        &self,
        what: &str,
        method: Method,
        path: &str,
        content: Option<(&str, &Value)>,
    ) -> Result<Value, Error> {
        let mut pause = FIRST_PAUSE;
        let mut attempt = 0;
        let mut anew = false;
        loop {
            attempt += 1;
            let (error, wait) = match self.attempt(what, &method, path, content, anew).await {
                Ok(value) => return Ok(value),
                Err(error @ Error::Unreachable { .. }) => (error, Duration::ZERO),
                Err(error) => match error.code() {
                    Some(401) if !anew && matches!(self.credentials, Credentials::Program(_)) => {
                        anew = true;
                        continue;
                    }
                    Some(429 | 500 | 502..=504) => {
                        let wait = error.retry_after();
                        (error, wait)
                    }
                    _ => return Err(error),
                },
            };
            if attempt >= ATTEMPTS {
                return Err(error);
            }
            tokio::time::sleep(pause.max(wait).min(LONGEST_PAUSE)).await;
            pause *= 2;
        }
    }

    async fn attempt(
        &self,
        what: &str,
        method: &Method,
        path: &str,
        content: Option<(&str, &Value)>,
        anew: bool,
    ) -> Result<Value, Error> {
        let mut request = self
            .client
            .request(method.clone(), format!("{}{path}", self.base));
        if let Some(authorization) = self.authorization(anew).await? {
            request = request.header("authorization", authorization);
        }
        for (name, value) in &self.acting_for {
            request = request.header(*name, value);
        }
        if let Some((kind, body)) = content {
            request = request.header("content-type", kind).body(body.to_string());
        }
        let unreachable = |error: reqwest::Error| Error::Unreachable {
            server: self.server.to_string(),
            cause: innermost(&error),
        };
        let answer = request.send().await.map_err(unreachable)?;
        let code = answer.status();
        let body = answer.bytes().await.map_err(unreachable)?;
        if code.is_success() {
            return serde_json::from_slice(&body).map_err(|error| Error::Nonsense {
                what: what.to_owned(),
                cause: error.to_string(),
            });
        }
        Err(Error::Refused {
            what: what.to_owned(),
            status: Box::new(refusal(code, &body)),
        })
    }
}

/// What a refusal says; what stands between may refuse too, and says it in other words.
fn refusal(code: StatusCode, body: &[u8]) -> Status {
    const MOST_LETTERS: usize = 400;
    let said = Status::deserialize(&mut serde_json::Deserializer::from_slice(body)).ok();
    let mut status = said.unwrap_or_default();
    if status.message.is_empty() {
        let text = String::from_utf8_lossy(body);
        status.message = format!(
            "{code}: {}",
            text.trim().chars().take(MOST_LETTERS).collect::<String>()
        );
    }
    status.code = code.as_u16();
    status
}
