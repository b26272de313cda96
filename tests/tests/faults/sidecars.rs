//! A mesh of two real Envoys: a router and an agent speak plaintext, each to its own sidecar, and the sidecars mutual TLS with
//! SPIFFE certificates. Calls and streams pass; a forged header, a wrong name and a plaintext caller do not.
//!
//! The agent is reached by its sidecar from 127.0.0.6, as by Istio's. Tests come from 127.0.0.1, as strangers would from elsewhere.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use muster_api::registry::registry_service_client::RegistryServiceClient;
use muster_api::registry::{Instance, RegisterRequest};
use muster_rpc::channel::{Config, direct};
use muster_runtime::clock::SystemClock;
use muster_runtime::server;
use muster_runtime::trust::{self, Mode, Native, Trust, Workload};
use muster_testkit::{Ports, Process, Program, http, wait_for};
use muster_tests::{Finished, PATIENCE, muster, tool};
use tempfile::TempDir;
use tonic::body::Body;

const PROXY: &str = "127.0.0.6";
const QUESTION: &str = "Seattle 2014-03-01 to 2014-03-02";
const FORGED: &str = "By=x;Hash=0;URI=spiffe://cluster.local/ns/agent-system/sa/router";
/// Served by every agent, to whom may call it.
const CARD: &str = "/.well-known/agent-card.json";

/// A registry, a router with a sidecar, and an agent with one.
struct Mesh {
    directory: TempDir,
    router: Program,
    /// Who asks.
    token: String,
    /// Where the agent itself listens, and where its sidecar does.
    agent: SocketAddr,
    inbound: SocketAddr,
    _ports: Ports,
    _running: Vec<Process>,
}

fn local(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

fn in_mesh(program: Program) -> Program {
    program
        .env("MUSTER__TRUST__MODE", "mesh")
        .env("MUSTER__TRUST__MESH__TRUSTED_PROXIES", format!("[\"{PROXY}\"]"))
}

impl Mesh {
    async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let certificates = directory.path().join("certificates");
        let made = certificates.to_str().unwrap();
        let _done = muster(&[], &["certs", "init", made]).await.success();
        // Whom the test's own clients trust.
        std::fs::copy(certificates.join("bundle.pem"), certificates.join("trusted.pem")).unwrap();
        let ports = Ports::reserve();
        let (outbound, inbound) = (local(ports.data), local(ports.health));

        let data = directory.path().display();
        let registry = Program::named("muster-registry");
        let nowhere = "http://127.0.0.1:1";
        let agent = in_mesh(Program::named("muster-agent-weather"))
            .env("MUSTER__AGENT__REGISTRY_URL", nowhere)
            .env("MUSTER__AGENT__DATA_DIRECTORY", format!("{data}/agents"));
        // No sidecar speaks for callers from outside: they have tokens.
        let tokens = directory.path().join("tokens").display().to_string();
        let _done = muster(&[], &["token", "keys", &tokens]).await.success();
        let key = format!("{tokens}/token-key.pem");
        let issue = [
            "token",
            "issue",
            "--key",
            &key,
            "--subject",
            "ada",
            "--role",
            "agent-writer",
        ];
        let token = muster(&[], &issue).await.success().stdout.trim().to_owned();
        let router = in_mesh(Program::named("muster-router"))
            .env("MUSTER__TRUST__TOKENS__JWKS_FILE", format!("{tokens}/jwks.json"))
            .env("MUSTER__ROUTER__REGISTRY_URL", registry.url())
            .env("MUSTER__ROUTER__DATA_DIRECTORY", format!("{data}/router"));

        let sidecar = |name: &str, text: String| {
            let path = directory.path().join(format!("{name}.yaml"));
            std::fs::write(&path, text).unwrap();
            Program::at(tool("envoy"))
                .arg("--config-path")
                .arg(path.display().to_string())
                .arg("--disable-hot-restart")
                .arg("--concurrency")
                .arg("1")
                .arg("--log-level")
                .arg("warn")
                .start()
        };
        let running = vec![
            registry.start_ready().await,
            agent.start_ready().await,
            sidecar(
                "inbound",
                inbound_of(inbound, agent.data_address(), &certificates),
            ),
            sidecar("outbound", outbound_to(outbound, inbound, &certificates)),
        ];
        for address in [inbound, outbound] {
            wait_for("a sidecar", PATIENCE, async || {
                tokio::net::TcpStream::connect(address).await.map(drop)
            })
            .await;
        }

        // A mesh turns connections round; here the agent is registered where the router's sidecar takes them.
        let card = as_sidecar(agent.data_address(), CARD).await;
        let card: muster_api::a2a::AgentCard = a2a_card(&card).unwrap_or_else(|| panic!("no card: {card}"));
        let instance = Instance {
            agent_id: "weather".to_owned(),
            endpoint: format!("http://{outbound}"),
            card: Some(card),
            ..Instance::default()
        };
        RegistryServiceClient::connect(registry.url())
            .await
            .unwrap()
            .register(RegisterRequest {
                instance: Some(instance),
            })
            .await
            .unwrap();
        let mut running = running;
        running.push(router.start_ready().await);
        let mesh = Self {
            agent: agent.data_address(),
            directory,
            router,
            token,
            inbound,
            _ports: ports,
            _running: running,
        };
        wait_for("an answer through both sidecars", PATIENCE, async || {
            let answer = mesh.send(&[]).await;
            if answer.code == 0 {
                Ok(())
            } else {
                Err(format!("{answer:?}"))
            }
        })
        .await;
        mesh
    }

    async fn send(&self, more: &[&str]) -> Finished {
        let environment = [
            ("MUSTER_ROUTER_URL".to_owned(), self.router.url()),
            ("MUSTER_TOKEN".to_owned(), self.token.clone()),
        ];
        let mut arguments = vec!["send", "--agent", "weather", QUESTION, "-o", "json"];
        arguments.extend(more);
        muster(&environment, &arguments).await
    }

    /// Asks the agent's sidecar for the agent's card as a workload with a certificate of its own.
    async fn ask_as(&self, service: &str, forged: Option<&str>) -> Result<(u16, String), String> {
        let directory = self.directory.path().join("certificates");
        let config = trust::Config {
            mode: Some(Mode::Native),
            native: Native {
                certificate: directory.join(format!("{service}.pem")),
                key: directory.join(format!("{service}-key.pem")),
                authorities: directory.join("trusted.pem"),
                ..Native::default()
            },
            ..trust::Config::default()
        };
        let clock = Arc::new(SystemClock::default());
        let trust = Trust::open(
            &config,
            &server::Config::default(),
            Workload::of_service(service),
            clock,
        )
        .unwrap();
        let client = direct(&Config::own_service(), &trust.to(Workload::Agent));
        let mut request = hyper::Request::get(format!("https://{}{CARD}", self.inbound));
        if let Some(forged) = forged {
            request = request.header("x-forwarded-client-cert", forged);
        }
        let request = request.body(Body::empty()).unwrap();
        let response = tower::ServiceExt::oneshot(client, request)
            .await
            .map_err(|error| error.to_string())?;
        let status = response.status().as_u16();
        let body = http_body_util::BodyExt::collect(response.into_body())
            .await
            .map_err(|error| error.to_string())?;
        Ok((status, String::from_utf8_lossy(&body.to_bytes()).into_owned()))
    }
}

/// Asks an agent as its sidecar would: from its address, saying that the router calls.
async fn as_sidecar(address: SocketAddr, path: &str) -> String {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(format!("{PROXY}:0").parse().unwrap()).unwrap();
    let mut stream = socket.connect(address).await.unwrap();
    let request = format!(
        "GET {path} HTTP/1.1\r\nhost: {address}\r\nx-forwarded-client-cert: {FORGED}\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

/// The card in an answer.
fn a2a_card(answer: &str) -> Option<muster_api::a2a::AgentCard> {
    let (_, body) = answer.split_once("\r\n\r\n")?;
    muster_a2a::card::parse(body.as_bytes()).ok()
}

#[tokio::test]
async fn two_sidecars_carry_calls_and_streams_and_nobody_else_gets_through() {
    let mesh = Mesh::start().await;
    let answer = mesh.send(&[]).await.success().json();
    assert_eq!(
        answer["task"]["status"]["state"], "TASK_STATE_COMPLETED",
        "{answer}"
    );
    let events = mesh.send(&["--stream"]).await.success().json_lines();
    assert!(events.len() > 1, "{events:?}");

    // The cards say what callers have to show: of the agent, what the router's sidecar shows for it.
    let asked = |card: &str| -> Vec<Vec<String>> {
        let card = muster_a2a::card::parse(card.as_bytes()).unwrap();
        let alternatives = card.security_requirements.into_iter();
        alternatives
            .map(|one| one.schemes.into_keys().collect())
            .collect()
    };
    let (_, own) = mesh.ask_as("router", None).await.unwrap();
    assert_eq!(asked(&own), [["mtls"]]);
    let way = http::get(mesh.router.data_address(), &format!("/weather{CARD}")).await;
    assert_eq!(asked(&way.unwrap().text()), [["bearer"], ["mtls"]]);

    // Past the sidecars: the header is a claim of anybody's, and no certificate stands behind it.
    let headers = [("x-forwarded-client-cert", FORGED)];
    let past = http::send(mesh.agent, http::Method::GET, CARD, &headers, Vec::new().into())
        .await
        .unwrap();
    assert_eq!(past.status, 401, "{}", past.text());
    assert!(past.text().contains("PEER_UNIDENTIFIED"), "{}", past.text());
    let past = http::send(
        mesh.router.data_address(),
        http::Method::GET,
        "/",
        &headers,
        Vec::new().into(),
    )
    .await;
    assert_ne!(
        past.unwrap().status,
        500,
        "a router has callers from outside; the header names nobody"
    );

    // Through the agent's sidecar: as the router, as one who may not, with and without a forged header before the true one.
    assert_eq!(mesh.ask_as("router", None).await.unwrap().0, 200);
    for forged in [None, Some(FORGED), Some("URI=\"")] {
        let (status, text) = mesh.ask_as("planning", forged).await.unwrap();
        assert!(
            status == 403 || (forged == Some("URI=\"") && status == 401),
            "{forged:?} {status} {text}"
        );
        assert!(text.contains("PEER_"), "{text}");
    }
    // In plaintext, and with a certificate of another authority.
    http::get(mesh.inbound, CARD).await.unwrap_err();
    let stranger = mesh.directory.path().join("elsewhere");
    let _done = muster(&[], &["certs", "init", stranger.to_str().unwrap()])
        .await
        .success();
    let ours = mesh.directory.path().join("certificates");
    for (from, to) in [
        ("router.pem", "stranger.pem"),
        ("router-key.pem", "stranger-key.pem"),
    ] {
        std::fs::copy(stranger.join(from), ours.join(to)).unwrap();
    }
    // The stranger trusts whoever answers, and is not trusted.
    let bundles =
        [&ours, &stranger].map(|directory| std::fs::read_to_string(directory.join("bundle.pem")).unwrap());
    std::fs::write(ours.join("trusted.pem"), bundles.concat()).unwrap();
    mesh.ask_as("stranger", None).await.unwrap_err();
}

/// The agent's sidecar: takes mutual TLS, and says whose certificate it has seen.
fn inbound_of(listen: SocketAddr, agent: SocketAddr, certificates: &Path) -> String {
    format!(
        r#"{}
      transport_socket:
        name: envoy.transport_sockets.tls
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          require_client_certificate: true
          common_tls_context:
            alpn_protocols: [h2]
            {}
            validation_context: {{ trusted_ca: {{ filename: "{}/bundle.pem" }} }}
  clusters:
  - name: app
    type: STATIC
    connect_timeout: 5s
    upstream_bind_config: {{ source_address: {{ address: {PROXY}, port_value: 0 }} }}
{}
"#,
        listener(listen, "APPEND_FORWARD"),
        own("weather", certificates),
        certificates.display(),
        upstream(agent),
    )
}

/// The router's sidecar: calls the agent's over mutual TLS, and wants the agent's name in its certificate.
fn outbound_to(listen: SocketAddr, inbound: SocketAddr, certificates: &Path) -> String {
    format!(
        r#"{}
  clusters:
  - name: app
    type: STATIC
    connect_timeout: 5s
    transport_socket:
      name: envoy.transport_sockets.tls
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
        common_tls_context:
          alpn_protocols: [h2]
          {}
          validation_context:
            trusted_ca: {{ filename: "{}/bundle.pem" }}
            match_typed_subject_alt_names:
            - {{ san_type: URI, matcher: {{ exact: "spiffe://cluster.local/ns/agent-system/sa/weather" }} }}
{}
"#,
        listener(listen, "SANITIZE"),
        own("router", certificates),
        certificates.display(),
        upstream(inbound),
    )
}

/// A sidecar's own certificate, in one line of YAML.
fn own(service: &str, certificates: &Path) -> String {
    let path = certificates.display();
    format!(
        r#"tls_certificates: [ {{ certificate_chain: {{ filename: "{path}/{service}.pem" }}, private_key: {{ filename: "{path}/{service}-key.pem" }} }} ]"#
    )
}

fn listener(listen: SocketAddr, forward: &str) -> String {
    format!(
        r#"static_resources:
  listeners:
  - name: in
    address: {{ socket_address: {{ address: {}, port_value: {} }} }}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: in
          codec_type: HTTP2
          forward_client_cert_details: {forward}
          set_current_client_cert_details: {{ subject: true, uri: true, dns: true }}
          route_config:
            virtual_hosts:
            - name: app
              domains: ["*"]
              routes: [ {{ match: {{ prefix: "/" }}, route: {{ cluster: app, timeout: 0s }} }} ]
          http_filters:
          - name: envoy.filters.http.router
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"#,
        listen.ip(),
        listen.port()
    )
}

fn upstream(address: SocketAddr) -> String {
    format!(
        r#"    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {{ http2_protocol_options: {{}} }}
    load_assignment:
      cluster_name: app
      endpoints:
      - lb_endpoints:
        - endpoint: {{ address: {{ socket_address: {{ address: {}, port_value: {} }} }} }}"#,
        address.ip(),
        address.port()
    )
}
