//! Clients of the three services.

use std::path::Path;
use std::sync::Arc;

use clap::ValueEnum;
use muster_api::a2a::a2a_service_client::A2aServiceClient;
use muster_api::admin::admin_service_client::AdminServiceClient;
use muster_api::registry::registry_service_client::RegistryServiceClient;
use muster_api::router::router_service_client::RouterServiceClient;
use muster_api::workflow::approval_service_client::ApprovalServiceClient;
use muster_api::workflow::schedule_service_client::ScheduleServiceClient;
use muster_api::workflow::workflow_service_client::WorkflowServiceClient;
use muster_rpc::channel::Security;
use muster_rpc::endpoint::Endpoint;
use muster_runtime::clock::SystemClock;
use muster_runtime::server;
use muster_runtime::trust::authority::describe;
use muster_runtime::trust::{self, Identity, Mode, Native, SpiffeId, Trust, Workload};
use tonic::metadata::AsciiMetadataValue;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::{Request, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::failure::Failure;
use crate::read;
use crate::trust::certs::{self, BUNDLE, OPERATOR};

/// Largest answer the command line takes: a chart or a large output, not a flood.
const MAX_ANSWER_BYTES: usize = 64 << 20;

/// A channel on which each call says who calls.
pub type Channel = InterceptedService<tonic::transport::Channel, Token>;

/// Who calls, if that is said; and the version of A2A that is spoken.
#[derive(Clone, Default)]
pub struct Token(Shown);

#[derive(Clone, Default)]
enum Shown {
    #[default]
    Nothing,
    /// The bearer token of whoever types.
    Given(AsciiMetadataValue),
    /// That of the services of this process.
    Own(Identity),
}

impl std::fmt::Debug for Token {
    /// Without the token.
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self.0 {
            Shown::Nothing => "Token(none)",
            Shown::Given(_) | Shown::Own(_) => "Token(redacted)",
        })
    }
}

impl Token {
    /// The token as it was given, or as a file has it.
    pub fn read(token: Option<&str>, file: Option<&Path>) -> Result<Self, Failure> {
        /// Largest file.
        const LARGEST: u64 = 64 << 10;
        let text = match (token, file) {
            (None, None) => return Ok(Self::default()),
            (Some(token), _) => token.to_owned(),
            (None, Some(path)) => {
                read::bounded_text(&format!("--token-file {}", path.display()), path, LARGEST)?
            }
        };
        let text = text.trim();
        if text.is_empty() {
            return Ok(Self::default());
        }
        let mut value = AsciiMetadataValue::try_from(format!("Bearer {text}"))
            .map_err(|_| Failure::usage("the token is none: it is not plain ASCII"))?;
        value.set_sensitive(true);
        Ok(Self(Shown::Given(value)))
    }

    /// That of the services of this process.
    pub const fn own(identity: Identity) -> Self {
        Self(Shown::Own(identity))
    }
}

impl Interceptor for Token {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        match &mut self.0 {
            Shown::Nothing => {}
            Shown::Given(token) => {
                request.metadata_mut().insert("authorization", token.clone());
            }
            Shown::Own(identity) => request = identity.call(request)?,
        }
        request.metadata_mut().insert(
            "a2a-version",
            AsciiMetadataValue::from_static(muster_a2a::SUPPORTED_VERSION),
        );
        Ok(request)
    }
}

/// Where the services answer.
#[derive(Debug, Clone)]
pub struct Endpoints {
    /// URL of the registry.
    pub registry: String,
    /// URL of the router.
    pub router: String,
    /// URL of the workflow engine.
    pub engine: String,
    /// Who we are to them, and who they have to be.
    pub trust: Trust,
    /// Who asks.
    pub token: Token,
}

/// Which service a call went to, for the error when it fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Service {
    /// The registry.
    Registry,
    /// The router.
    Router,
    /// The workflow engine.
    Engine,
}

impl Endpoints {
    /// A client of the registry.
    pub fn registry(&self) -> Result<RegistryServiceClient<Channel>, Failure> {
        Ok(RegistryServiceClient::new(self.channel(Service::Registry)?)
            .max_decoding_message_size(MAX_ANSWER_BYTES))
    }

    /// A client of the router's controls.
    pub fn router(&self) -> Result<RouterServiceClient<Channel>, Failure> {
        Ok(RouterServiceClient::new(self.channel(Service::Router)?)
            .max_decoding_message_size(MAX_ANSWER_BYTES))
    }

    /// A client of the agents, through the router.
    pub fn agents(&self) -> Result<A2aServiceClient<Channel>, Failure> {
        Ok(A2aServiceClient::new(self.channel(Service::Router)?).max_decoding_message_size(MAX_ANSWER_BYTES))
    }

    /// A client of the workflow engine.
    pub fn engine(&self) -> Result<WorkflowServiceClient<Channel>, Failure> {
        Ok(WorkflowServiceClient::new(self.channel(Service::Engine)?)
            .max_decoding_message_size(MAX_ANSWER_BYTES))
    }

    /// A client of the workflow engine's approvals.
    pub fn approvals(&self) -> Result<ApprovalServiceClient<Channel>, Failure> {
        Ok(ApprovalServiceClient::new(self.channel(Service::Engine)?)
            .max_decoding_message_size(MAX_ANSWER_BYTES))
    }

    /// A client of the workflow engine's schedules.
    pub fn schedules(&self) -> Result<ScheduleServiceClient<Channel>, Failure> {
        Ok(ScheduleServiceClient::new(self.channel(Service::Engine)?)
            .max_decoding_message_size(MAX_ANSWER_BYTES))
    }

    /// A lazy channel to a service.
    pub fn channel(&self, service: Service) -> Result<Channel, Failure> {
        let endpoint = muster_rpc::endpoint::parse(self.url(service))
            .map_err(|error| Failure::usage(error.to_string()))?;
        let security = self.trust.to(match service {
            Service::Registry => Workload::Registry,
            Service::Router => Workload::Router,
            Service::Engine => Workload::Engine,
        });
        let channel = muster_rpc::channel::connect_lazy_secured(&endpoint, &security);
        Ok(InterceptedService::new(channel, self.token.clone()))
    }

    /// Where a service answers.
    pub fn url(&self, service: Service) -> &str {
        match service {
            Service::Registry => &self.registry,
            Service::Router => &self.router,
            Service::Engine => &self.engine,
        }
    }

    /// Whether a service says of itself that it can do its work.
    pub async fn is_serving(&self, service: Service) -> bool {
        match self.channel(service) {
            Ok(channel) => says_serving(channel).await,
            Err(_) => false,
        }
    }

    /// A client of what every service lets its operator do.
    pub fn admin(&self, service: Service) -> Result<AdminServiceClient<Channel>, Failure> {
        Ok(AdminServiceClient::new(self.channel(service)?))
    }

    /// Turns a failed call to `service` into the command's failure.
    pub fn failure(&self, service: Service, status: &Status) -> Failure {
        Failure::from_status(service.name(), self.url(service), status)
    }
}

impl Service {
    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Registry => "registry",
            Self::Router => "router",
            Self::Engine => "engine",
        }
    }
}

/// A lazy channel to `url`, without a token.
pub fn channel(url: &str) -> Result<Channel, Failure> {
    let endpoint = muster_rpc::endpoint::parse(url).map_err(|error| Failure::usage(error.to_string()))?;
    Ok(unnamed(&endpoint, &Security::by_scheme()))
}

/// A lazy channel whose connections are secured like this, without a token.
pub fn unnamed(endpoint: &Endpoint, security: &Security) -> Channel {
    let channel = muster_rpc::channel::connect_lazy_secured(endpoint, security);
    InterceptedService::new(channel, Token::default())
}

/// Whether the service at `url` says of itself, by `grpc.health.v1`, that it can do its work.
pub async fn is_serving(url: &str) -> bool {
    // Everybody may ask.
    match channel(url) {
        Ok(channel) => says_serving(channel).await,
        Err(_) => false,
    }
}

/// Who the command line is, out of a directory that `muster certs` has made.
pub fn identity(directory: &Path) -> Result<Trust, Failure> {
    let certificate = directory.join(certs::certificate_file(OPERATOR));
    let wrong = |what: String| {
        Failure::usage(format!("--certificates: {}: {what}", certificate.display())).with_remedy(
            "`muster certs init DIR` makes such a directory, `muster certs issue DIR muster` one certificate",
        )
    };
    let text = std::fs::read(&certificate).map_err(|error| wrong(error.to_string()))?;
    let said = describe(&text).map_err(|error| wrong(error.to_string()))?;
    let uri = said.first().and_then(|said| said.uris.first());
    let id = uri.and_then(|uri| SpiffeId::parse(uri).ok());
    let id = id.ok_or_else(|| wrong("names no SPIFFE id".to_owned()))?;
    let (namespace, _) = id
        .service()
        .ok_or_else(|| wrong(format!("names {id}, which is no service account's")))?;
    let config = trust_of(directory, OPERATOR, id.trust_domain(), namespace);
    Trust::open(
        &config,
        &server::Config::default(),
        Workload::Operator,
        Arc::new(SystemClock::default()),
    )
    .map_err(|error| Failure::usage(format!("--certificates: {error}")))
}

/// The section `trust` of who has a certificate in such a directory.
pub fn trust_of(directory: &Path, name: &str, trust_domain: &str, namespace: &str) -> trust::Config {
    trust::Config {
        mode: Some(Mode::Native),
        trust_domain: trust_domain.to_owned(),
        namespace: namespace.to_owned(),
        native: Native {
            certificate: directory.join(certs::certificate_file(name)),
            key: directory.join(certs::key_file(name)),
            authorities: directory.join(BUNDLE),
            ..Native::default()
        },
        ..trust::Config::default()
    }
}

/// Whether the service at this channel says so.
pub async fn says_serving(channel: Channel) -> bool {
    let request = HealthCheckRequest {
        service: String::new(),
    };
    let answer = HealthClient::new(channel).check(request).await;
    answer.is_ok_and(|answer| answer.into_inner().status() == ServingStatus::Serving)
}
