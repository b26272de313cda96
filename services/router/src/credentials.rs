//! What agents' cards ask for from who calls them: which of it is given, and where it is put on a call.
//!
//! ```text
//! credentials.rs           what a call carries: the first of the card's alternatives for which everything is there
//! credentials/demand.rs    what a card asks for, and where it goes on a call: pure
//! credentials/folder.rs    the operator's files
//! credentials/shown.rs     the certificates that agents are shown which ask for mutual TLS
//! credentials/token.rs     tokens of OAuth 2.0, obtained once and kept until shortly before they end
//! ```
//!
//! An operator gives credentials as files, in a folder of the agent's id: one for each security scheme of the card, called as
//! the card calls the scheme, and one called `hosts`, with the hosts that may be given them. Files are read again when they
//! change, so that what is replaced needs no restart.
//!
//! Why `hosts`: a card is what an agent says of itself, and whoever may register can say it is any agent. So neither where a
//! call goes nor where tokens are issued may decide on its own who is given a secret; the operator does.
//!
//! An agent that asks for a certificate is shown the one that all our services are shown where it has proven to be a workload of
//! ours, and, in mesh mode, by the sidecar on the way to any address that is no https: there is nothing to be given for these.
//!
//! A caller's own `authorization` is never passed on: it is for the router. What is in the files is in no log and in no error.
//!
//! Rejected: credentials in the configuration, where they would be printed with it; in the registry, which everybody reads.

mod demand;
mod folder;
mod shown;
mod token;

use std::path::PathBuf;
use std::sync::Arc;

use http::{HeaderValue, header};
use muster_api::a2a::AgentCard;
use muster_rpc::outbound::Outbound;
use muster_runtime::clock::SharedClock;
use muster_runtime::trust::Mode;
use serde::{Deserialize, Serialize};
use tonic::metadata::MetadataMap;
use tonic::{Code, Request};

use crate::bridge::Query;
use crate::fleet::Instance;
use demand::{Demand, Placed, Way};
use folder::{Folder, Secret};
pub use shown::Certificates;
use token::{Client, Tokens};

/// Section `router.credentials`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where credentials are, as `AGENT/SCHEME`, and the hosts that may be given them, in `AGENT/hosts`. Agents whose cards
    /// ask for credentials are not called where there is none.
    pub directory: Option<PathBuf>,
}

/// Why a call goes out without what the agent asks for, which is: not at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Missing {
    /// The operator has not given it, or the router cannot do it.
    Credentials(String),
    /// A token could not be obtained.
    Token(String),
}

/// What a call has been given that may have ended early.
#[derive(Debug, Default)]
pub struct Given {
    tokens: Vec<token::Issued>,
}

/// See the module.
pub struct Credentials {
    folder: Option<Arc<Folder>>,
    tokens: Tokens,
    /// Whether a sidecar shows certificates for the router.
    has_sidecar: bool,
    clock: SharedClock,
}

impl Credentials {
    /// Credentials as configured, for a router whose peers are trusted like this; tokens are obtained by this way.
    #[must_use]
    pub fn new(config: &Config, mode: Mode, outbound: Outbound, clock: SharedClock) -> Self {
        Self {
            has_sidecar: mode == Mode::Mesh,
            folder: config.directory.clone().map(Folder::new).map(Arc::new),
            tokens: Tokens::new(outbound, Arc::clone(&clock)),
            clock,
        }
    }

    /// The certificates among them, for who makes connections.
    #[must_use]
    pub fn certificates(&self) -> Certificates {
        Certificates::new(self.folder.clone(), Arc::clone(&self.clock))
    }

    /// Puts on a call what the instance's card asks for, for this skill where one was named; nothing where it asks for nothing.
    ///
    /// # Errors
    /// See [`Missing`].
    pub async fn attach<T>(
        &self,
        instance: &Instance,
        skill: Option<&str>,
        request: &mut Request<T>,
    ) -> Result<Given, Missing> {
        let demands = match demand::of_card(&instance.card, skill) {
            None => return Ok(Given::default()),
            Some(demands) => demands,
        };
        let mut first = None;
        for demand in demands {
            match self.look(instance, demand) {
                Ok(found) => return self.put(&instance.id.agent, found, request).await,
                Err(what) => {
                    first.get_or_insert(what);
                }
            }
        }
        let why = first.unwrap_or_else(|| "its card asks for something and does not say what".to_owned());
        Err(Missing::Credentials(why))
    }

    /// What is there for one alternative.
    fn look<'c>(
        &self,
        instance: &'c Instance,
        demand: Result<Demand<'c>, String>,
    ) -> Result<Vec<(Placed<'c>, Arc<Secret>)>, String> {
        let (agent, now) = (&instance.id.agent, self.clock.monotonic());
        let mut found: Vec<(Placed<'_>, Arc<Secret>)> = Vec::new();
        for placed in demand?.schemes {
            let scheme = placed.scheme;
            let is_shown = instance.identity.is_some() || self.has_sidecar && !instance.endpoint.is_tls();
            if placed.way == Way::Certificate && is_shown {
                continue;
            }
            let Some(folder) = &self.folder else {
                return Err(format!(
                    "its security scheme '{scheme}' asks for {}; set `router.credentials.directory`, and put it there as \
                     {agent}/{scheme}",
                    placed.way.described()
                ));
            };
            if matches!(placed.way, Way::Query(_)) && instance.place.is_none() {
                return Err(format!(
                    "its security scheme '{scheme}' asks for a key in the query, which calls over gRPC do not have"
                ));
            }
            if placed.way == Way::Certificate && !instance.endpoint.is_tls() {
                return Err(format!(
                    "its security scheme '{scheme}' asks for a client's certificate, and its address is no https, where none is \
                     shown"
                ));
            }
            if found.iter().any(|(other, _)| other.way.is_at(&placed.way)) {
                return Err(format!(
                    "its security scheme '{scheme}' and another one want the same place on a call"
                ));
            }
            let secret = folder.secret(agent, scheme, now).map_err(|what| {
                format!(
                    "its security scheme '{scheme}' asks for {}: {what}",
                    placed.way.described()
                )
            })?;
            if (placed.way == Way::Certificate) != matches!(*secret, Secret::Certificate(_)) {
                return Err(format!(
                    "its security scheme '{scheme}' asks for {}, and what is in {agent}/{scheme} is something else",
                    placed.way.described()
                ));
            }
            folder.admits(agent, instance.endpoint.host(), instance.endpoint.port(), now)?;
            if let (Way::OAuth2(authority), Secret::Client { .. }) = (&placed.way, &*secret) {
                let url = authority.url()?;
                let port = url.port_or_known_default().unwrap_or_default();
                folder.admits(agent, url.host_str().unwrap_or_default(), port, now)?;
            }
            found.push((placed, secret));
        }
        Ok(found)
    }

    async fn put<T>(
        &self,
        agent: &str,
        found: Vec<(Placed<'_>, Arc<Secret>)>,
        request: &mut Request<T>,
    ) -> Result<Given, Missing> {
        let mut given = Given::default();
        let mut query = Query::default();
        let mut headers = std::mem::take(request.metadata_mut()).into_headers();
        for (placed, secret) in found {
            let scheme = placed.scheme;
            let wrong = |what: &str| {
                Missing::Credentials(format!("what is given for its security scheme '{scheme}' {what}"))
            };
            let sensitive = |text: &str| {
                let mut value =
                    HeaderValue::from_str(text).map_err(|_| wrong("cannot be sent as a header"))?;
                value.set_sensitive(true);
                Ok(value)
            };
            let text = || {
                secret
                    .text()
                    .ok_or_else(|| wrong("has several lines, where one was expected"))
            };
            match &placed.way {
                Way::Header(name) => {
                    headers.insert(name.clone(), sensitive(text()?)?);
                }
                Way::Cookie(name) => {
                    let text = text()?;
                    if text.contains([';', ' ', ',', '"']) {
                        return Err(wrong("cannot be the value of a cookie"));
                    }
                    headers.insert(header::COOKIE, sensitive(&format!("{name}={text}"))?);
                }
                Way::Query(name) => {
                    query.0.push(((*name).to_owned(), text()?.to_owned()));
                }
                // It is shown when a connection is made.
                Way::Certificate => {}
                Way::Bearer => {
                    headers.insert(header::AUTHORIZATION, sensitive(&format!("Bearer {}", text()?))?);
                }
                Way::Basic => {
                    let text = text()?;
                    if !text.contains(':') {
                        return Err(wrong("is no USER:PASSWORD"));
                    }
                    headers.insert(header::AUTHORIZATION, sensitive(&token::basic(text))?);
                }
                Way::OAuth2(authority) => {
                    let bearer = match &*secret {
                        // Somebody else obtains it.
                        Secret::Text(token) => format!("Bearer {token}"),
                        Secret::Certificate(_) => return Err(wrong("is a certificate")),
                        Secret::Client { id, secret } => {
                            let client = Client { id, secret };
                            let issued = self.tokens.get(agent, authority, &placed.scopes, client).await;
                            let issued = issued.map_err(|what| {
                                Missing::Token(format!("no token for its security scheme '{scheme}': {what}"))
                            })?;
                            let bearer = format!("Bearer {}", issued.text());
                            given.tokens.push(issued);
                            bearer
                        }
                    };
                    headers.insert(header::AUTHORIZATION, sensitive(&bearer)?);
                }
            }
        }
        *request.metadata_mut() = MetadataMap::from_headers(headers);
        request.extensions_mut().insert(query);
        Ok(given)
    }

    /// Whether a card asks for anything, for some skill at least. Cheap, because it is asked before every call.
    #[must_use]
    pub fn are_asked_for(card: &AgentCard) -> bool {
        !card.security_requirements.is_empty()
            || card
                .skills
                .iter()
                .any(|skill| !skill.security_requirements.is_empty())
    }

    /// Whether a call that has been given this may be refused because a token has ended early.
    #[must_use]
    pub const fn may_have_ended(given: &Given) -> bool {
        !given.tokens.is_empty()
    }

    /// Whether an agent's refusal may be about a token that has ended early: then that token is not used again, and the call
    /// may be made once more.
    #[must_use]
    pub fn renounce(&self, given: &Given, refused: Code) -> bool {
        if refused != Code::Unauthenticated || given.tokens.is_empty() {
            return false;
        }
        for token in &given.tokens {
            self.tokens.forget(token);
        }
        true
    }
}

#[cfg(test)]
mod tests;
