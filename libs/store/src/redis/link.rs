//! One connection as it is right now, to whatever kind of Redis.

use std::time::Duration;

use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::io::tcp::TcpSettings;
use redis::sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType};
use redis::{AsyncConnectionConfig, Client, Cmd, RedisError, TlsMode, Value};

use super::address::{Address, Mode};
use super::error::{Failure, is_unknown_script};
use super::script::Call;

/// Tries of the Cluster client itself, for slots that have moved.
const REDIRECTS: u32 = 4;

/// One connection. Clones share it.
#[derive(Clone)]
pub(super) enum Link {
    /// To one server: the only one.
    Server(MultiplexedConnection),
    /// To the primary that the Sentinels name.
    Primary {
        connection: MultiplexedConnection,
        /// Where that is.
        node: String,
    },
    /// To all nodes of a Cluster. It mends its own connections.
    Cluster(ClusterConnection),
}

/// What is sent.
#[derive(Clone, Copy)]
pub(super) enum Request<'a> {
    Command(&'a Cmd),
    Script(&'a Call),
}

/// Sent at once; and given up for good: what a connection that is closed has not sent yet must not be sent later, when what
/// it asked for has been asked again by another one, and more after it.
fn tcp_settings() -> TcpSettings {
    TcpSettings::default()
        .set_nodelay(true)
        .set_linger_time(Duration::ZERO)
}

impl Request<'_> {
    /// Whether it writes what a full Redis refuses. Single commands count as reading.
    pub(super) fn grows(self) -> bool {
        match self {
            Self::Command(_) => false,
            Self::Script(call) => call.grows(),
        }
    }
}

impl Link {
    /// Connects, within `patience`.
    pub(super) async fn connect(
        address: &Address,
        patience: Duration,
        answer_within: Duration,
    ) -> Result<Self, Failure> {
        let connecting = Self::connect_to(address, patience, answer_within);
        match tokio::time::timeout(patience, connecting).await {
            Ok(Ok(link)) => Ok(link),
            Ok(Err(error)) => Err(Failure::connecting(&address.to_string(), &error)),
            Err(_) => Err(Failure::unreachable(
                &address.to_string(),
                format!("no connection within {} s", patience.as_secs_f64()),
            )),
        }
    }

    async fn connect_to(
        address: &Address,
        patience: Duration,
        answer_within: Duration,
    ) -> Result<Self, RedisError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(patience))
            .set_response_timeout(Some(answer_within));
        match &address.mode {
            Mode::Standalone => {
                let node = address.only_node()?.set_tcp_settings(tcp_settings());
                let client = match address.certificates() {
                    Some(certificates) => Client::build_with_tls(node, certificates)?,
                    None => Client::open(node)?,
                };
                let connection = client.get_multiplexed_async_connection_with_config(&config);
                Ok(Self::Server(connection.await?))
            }
            Mode::Sentinel { primary } => {
                let node = Self::sentinels(address, primary)?.async_get_client().await?;
                let connection = node.get_multiplexed_async_connection_with_config(&config);
                Ok(Self::Primary {
                    connection: connection.await?,
                    node: node.get_connection_info().addr().to_string(),
                })
            }
            Mode::Cluster => {
                let mut builder = ClusterClient::builder(address.all_nodes()?)
                    .retries(REDIRECTS)
                    .tcp_settings(tcp_settings())
                    .connection_timeout(patience)
                    .response_timeout(answer_within);
                if let Some(certificates) = address.certificates() {
                    builder = builder.certs(certificates);
                }
                let client = builder.build()?;
                Ok(Self::Cluster(client.get_async_connection().await?))
            }
        }
    }

    /// Which server is the primary, in the words of the Sentinels; none where there are none.
    pub(super) async fn primary(address: &Address, patience: Duration) -> Option<String> {
        let Mode::Sentinel { primary } = &address.mode else {
            return None;
        };
        let mut sentinels = Self::sentinels(address, primary).ok()?;
        let found = tokio::time::timeout(patience, sentinels.async_get_client()).await;
        let node = found.ok()?.ok()?;
        Some(node.get_connection_info().addr().to_string())
    }

    /// Where this leads, where that is what Sentinels have said.
    pub(super) fn node(&self) -> Option<&str> {
        match self {
            Self::Primary { node, .. } => Some(node),
            Self::Server(_) | Self::Cluster(_) => None,
        }
    }

    fn sentinels(address: &Address, primary: &str) -> Result<SentinelClient, RedisError> {
        let mut builder =
            SentinelClientBuilder::new(address.sentinels(), primary, SentinelServerType::Master)?
                .set_client_to_redis_tcp_settings(tcp_settings())
                .set_client_to_redis_db(address.database);
        if address.tls {
            builder = builder
                .set_client_to_redis_tls_mode(TlsMode::Secure)
                .set_client_to_sentinel_tls_mode(TlsMode::Secure);
        }
        if let Some(certificates) = address.certificates() {
            builder = builder
                .set_client_to_redis_certificates(certificates.clone())
                .set_client_to_sentinel_certificates(certificates);
        }
        if let Some(username) = &address.username {
            builder = builder.set_client_to_redis_username(username);
        }
        if let Some(password) = &address.password {
            builder = builder.set_client_to_redis_password(password);
        }
        builder.build()
    }

    /// Sends it and waits for the answer.
    pub(super) async fn send(&mut self, request: Request<'_>) -> Result<Value, RedisError> {
        match request {
            Request::Command(command) => self.send_command(command).await,
            Request::Script(call) => match self.send_command(&call.by_hash()).await {
                Err(error) if is_unknown_script(&error) => self.send_command(&call.in_full()).await,
                answer => answer,
            },
        }
    }

    async fn send_command(&mut self, command: &Cmd) -> Result<Value, RedisError> {
        let answer = match self {
            Self::Server(connection) | Self::Primary { connection, .. } => {
                connection.req_packed_command(command).await?
            }
            Self::Cluster(connection) => connection.req_packed_command(command).await?,
        };
        answer.extract_error()
    }

    /// Whether it is to be given up where it breaks, rather than left to mend itself.
    pub(super) fn is_replaceable(&self, failure: &Failure) -> bool {
        match self {
            Self::Server(_) | Self::Primary { .. } => failure.breaks,
            Self::Cluster(_) => failure.breaks && matches!(failure.error, super::Error::Unreachable { .. }),
        }
    }
}
