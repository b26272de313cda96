//! What is looked at: a stack of one's own, or something that runs.
//!
//! Of something that runs only what it says is known, and what the command line says of it. What is not known cannot be asked, and
//! the checks that need it are skipped.

pub mod collector;
pub mod hands;
pub mod local;
pub mod network;
pub mod probe;
pub mod process;
pub mod remote;

use std::path::PathBuf;

use muster_jose::token::Signer;
use muster_rpc::channel::Security;
use muster_rpc::channel::security::Fixed;
use muster_rpc::outbound;
use muster_runtime::clock::{Clock as _, SystemClock};
use serde_json::{Value, json};
use tonic::service::interceptor::InterceptedService;

use super::check::Need;
use crate::connect::{Channel, Endpoints, Service, Token};
use crate::failure::Failure;
use crate::trust::certs::BUNDLE;
use collector::Collector;
use local::Stack;

/// Where a part says how it is; empty where that is not known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Its name.
    pub name: String,
    /// URL of its health port.
    pub health: Option<String>,
    /// URL of its metrics.
    pub metrics: Option<String>,
}

/// Who signs callers' tokens.
#[derive(Debug)]
pub struct Issuer {
    /// The key.
    pub signer: Signer,
    /// What it is called.
    pub name: String,
    /// The public half as a JSON Web Key Set; everybody may know it.
    pub public: String,
}

impl Issuer {
    /// What a token of this subject with these roles says for the next ten minutes.
    pub fn claims(&self, subject: &str, roles: &[&str]) -> Value {
        let now = SystemClock::default().now().as_second();
        json!({
            "sub": subject, "iss": self.name, "aud": "muster", "iat": now, "exp": now + 600, "roles": roles,
        })
    }

    /// A token with these claims.
    pub fn sign(&self, claims: &Value) -> Result<String, Failure> {
        self.signer.sign(claims).map_err(Failure::failed)
    }

    /// A good token.
    pub fn token(&self, subject: &str, roles: &[&str]) -> Result<String, Failure> {
        self.sign(&self.claims(subject, roles))
    }
}

/// Whether a caller shows the operator's certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shows {
    /// It does.
    Certificate,
    /// It has none.
    Nothing,
}

/// What was started, or what runs.
pub enum Kind {
    /// A stack of one's own.
    Local(Box<Stack>),
    /// Something that runs.
    Running(Box<remote::Running>),
}

/// See the module.
pub struct Target {
    /// Where the services answer, to the operator.
    pub endpoints: Endpoints,
    /// Where the parts say how they are.
    pub places: Vec<Place>,
    /// Agents that must be there.
    pub expected: Vec<String>,
    /// Whether others may be disturbed.
    pub has_leave: bool,
    /// Which one it is.
    pub kind: Kind,
}

impl Target {
    /// A stack of one's own that has come up.
    pub fn local(stack: Stack) -> Result<Self, Failure> {
        let agents = local::AGENTS.iter().map(|part| part.name().to_owned());
        Ok(Self {
            endpoints: stack.endpoints()?,
            places: stack.places(),
            expected: agents.collect(),
            has_leave: true,
            kind: Kind::Local(Box::new(stack)),
        })
    }

    /// What it is, for people.
    pub fn describe(&self) -> String {
        match &self.kind {
            Kind::Local(stack) if stack.has_redis() => "a stack of its own, over Redis".to_owned(),
            Kind::Local(_) => "a stack of its own, embedded (redis-server is not installed)".to_owned(),
            Kind::Running(_) => format!(
                "{}, {}, {}",
                self.endpoints.registry, self.endpoints.router, self.endpoints.engine
            ),
        }
    }

    /// The stack of one's own.
    pub fn stack(&self) -> Result<&Stack, Failure> {
        match &self.kind {
            Kind::Local(stack) => Ok(stack),
            Kind::Running(_) => Err(Failure::failed(Need::OwnStack.describe())),
        }
    }

    /// The same, to change it.
    pub fn stack_mut(&mut self) -> Result<&mut Stack, Failure> {
        match &mut self.kind {
            Kind::Local(stack) => Ok(stack),
            Kind::Running(_) => Err(Failure::failed(Need::OwnStack.describe())),
        }
    }

    /// What is known of something that runs.
    pub fn running(&self) -> Option<&remote::Running> {
        match &self.kind {
            Kind::Local(_) => None,
            Kind::Running(running) => Some(running),
        }
    }

    /// Who signs tokens, where that is known.
    pub fn issuer(&self) -> Option<&Issuer> {
        match &self.kind {
            Kind::Local(stack) => Some(stack.issuer()),
            Kind::Running(running) => running.issuer.as_ref(),
        }
    }

    /// What takes traces in this process.
    pub fn collector(&self) -> Option<&Collector> {
        match &self.kind {
            Kind::Local(stack) => Some(stack.collector()),
            Kind::Running(running) => running.collector.as_ref(),
        }
    }

    /// Where the replicas of a service write their audit logs.
    pub fn audits(&self, service: Service) -> Vec<PathBuf> {
        let (name, part) = match service {
            Service::Registry => ("registry", "registry"),
            Service::Router => ("router", "router-1"),
            Service::Engine => ("workflow-engine", "engine-1"),
        };
        match &self.kind {
            Kind::Local(stack) => vec![stack.audit(part).join(name)],
            Kind::Running(running) => {
                let Some(directory) = running.audit.as_deref() else {
                    return Vec::new();
                };
                let found = remote::audits(directory, name.as_ref());
                if found.is_empty() {
                    vec![directory.join(name)]
                } else {
                    found
                }
            }
        }
    }

    /// The directory with the certificates, where there is one.
    pub fn certificates(&self) -> Option<PathBuf> {
        match &self.kind {
            Kind::Local(stack) => Some(stack.certificates()),
            Kind::Running(running) => running.certificates.clone(),
        }
    }

    /// Whether it lacks what a check needs.
    pub fn lacks(&self, need: Need) -> bool {
        let is_local = matches!(self.kind, Kind::Local(_));
        let running = self.running();
        match need {
            Need::OwnStack => !is_local,
            Need::Leave => !is_local && !self.has_leave,
            Need::Harm(role) => self.harmed(role).is_none(),
            Need::Network => match running {
                Some(running) => !self.has_leave || running.hands.program.is_none(),
                None => !network::is_own(),
            },
            Need::HealthAddresses => !self.places.iter().any(|place| place.health.is_some()),
            Need::MetricsAddresses => !self.places.iter().any(|place| place.metrics.is_some()),
            Need::TokenKey => self.issuer().is_none(),
            Need::MutualTls => self.certificates().is_none(),
            Need::AuditLog => self.audits(Service::Router).is_empty(),
            Need::Prometheus => running.is_none_or(|running| running.prometheus.is_none()),
            Need::Alertmanager => {
                running.is_none_or(|running| running.alertmanager.is_none() || running.alert_listen.is_none())
            }
            Need::Traces => {
                running.is_some_and(|running| running.traces.is_none() && running.collector.is_none())
            }
        }
    }

    /// A client of HTTP that trusts the target's authority and shows no certificate.
    pub fn http(&self) -> Result<reqwest::Client, Failure> {
        let mut tls =
            outbound::tls(self.bundle().as_deref()).map_err(|error| Failure::failed(error.to_string()))?;
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .no_proxy()
            .timeout(std::time::Duration::from_secs(30))
            .build()
            .map_err(|error| Failure::failed(error.to_string()))
    }

    fn bundle(&self) -> Option<PathBuf> {
        self.certificates().map(|directory| directory.join(BUNDLE))
    }

    /// A channel to a service for a caller with this token, if any.
    pub fn channel(&self, service: Service, shows: Shows, token: Option<&str>) -> Result<Channel, Failure> {
        let token = Token::read(token, None)?;
        if shows == Shows::Certificate {
            let endpoints = Endpoints {
                token,
                ..self.endpoints.clone()
            };
            return endpoints.channel(service);
        }
        let tls =
            outbound::tls(self.bundle().as_deref()).map_err(|error| Failure::failed(error.to_string()))?;
        let handshake = Fixed::http2(&tls);
        let security = Security::by_scheme_with(std::sync::Arc::new(handshake));
        let endpoint = muster_rpc::endpoint::parse(self.endpoints.url(service))
            .map_err(|error| Failure::usage(error.to_string()))?;
        let channel = muster_rpc::channel::connect_lazy_secured(&endpoint, &security);
        Ok(InterceptedService::new(channel, token))
    }
}
