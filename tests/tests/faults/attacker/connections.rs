//! Who does not get as far as a request: handshakes, heads and bodies, streams, and guess after guess. Against registries, which have
//! nobody from outside; what stands before their requests stands before those of every service.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use muster_rpc::channel::{Config, direct};
use muster_runtime::clock::{Clock as _, ManualClock, SystemClock};
use muster_runtime::server;
use muster_runtime::trust::authority::{Authority, Scope, Wish};
use muster_runtime::trust::{self, Mode, Native, SpiffeId, Trust, Workload};
use muster_testkit::frames::{ECHO, ENHANCE_YOUR_CALM, goodbyes, rapid_resets};
use muster_testkit::http::{self, Method};
use muster_testkit::{Issuer, Process, Program};
use muster_tests::PATIENCE;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tonic::body::Body;
use tower::ServiceExt as _;

use super::is_written;
use super::table::{self, Attack};

const HOUR: Duration = Duration::from_secs(3_600);
const DOMAIN: &str = "cluster.local";
const OURS: &str = "agent-system";

/// An authority, and the files of those that it has certified.
struct Certificates {
    authority: Authority,
    directory: tempfile::TempDir,
    now: Timestamp,
}

impl Certificates {
    /// Made at this time.
    fn at(now: Timestamp) -> Self {
        let made = Self {
            authority: Authority::new(DOMAIN, &Scope::private(), HOUR * 240, now).unwrap(),
            directory: tempfile::tempdir().unwrap(),
            now,
        };
        made.trusts(&[&made]);
        made
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Who has these files takes whomever these authorities vouch for.
    fn trusts(&self, authorities: &[&Self]) {
        let all = authorities
            .iter()
            .map(|one| one.authority.own().certificate.clone());
        std::fs::write(self.path("bundle.pem"), all.collect::<String>()).unwrap();
    }

    /// A certificate; the section of the configuration that uses it.
    fn issue(&self, namespace: &str, service: &str, lifetime: Duration) -> Native {
        let wish = Wish {
            id: SpiffeId::of_service(DOMAIN, namespace, service).unwrap(),
            dns: vec!["localhost".to_owned()],
            addresses: vec!["127.0.0.1".parse().unwrap()],
            lifetime,
        };
        let issued = self.authority.issue(&wish, self.now).unwrap();
        let (certificate, key) = (
            self.path(&format!("{service}.pem")),
            self.path(&format!("{service}-key.pem")),
        );
        std::fs::write(&certificate, issued.certificate).unwrap();
        std::fs::write(&key, issued.key).unwrap();
        Native {
            certificate,
            key,
            authorities: self.path("bundle.pem"),
            ..Native::default()
        }
    }

    /// Asks a registry for its agents as a workload that has such a certificate; what went wrong.
    async fn ask(&self, address: SocketAddr, namespace: &str, service: &str) -> Result<(), String> {
        let config = trust::Config {
            mode: Some(Mode::Native),
            native: self.issue(namespace, service, HOUR),
            ..trust::Config::default()
        };
        // By its own clock its certificate holds.
        let clock = Arc::new(ManualClock::new(self.now));
        let trust = Trust::open(&config, &server::Config::default(), Workload::Operator, clock).unwrap();
        let client = direct(&Config::own_service(), &trust.to(Workload::Registry));
        let request = hyper::Request::get(format!("https://{address}/v1/agents"));
        let request = request.body(Body::empty()).unwrap();
        let answer = client.oneshot(request).await.map_err(|error| error.to_string())?;
        assert_eq!(answer.status(), 200);
        Ok(())
    }
}

/// A registry that writes an audit log.
struct Victim {
    program: Program,
    process: Process,
    audit: PathBuf,
}

impl Victim {
    async fn start(audit: &Path, settings: &[(&str, String)]) -> Self {
        let program = Program::named("muster-registry")
            .env("MUSTER__TRUST__AUDIT__DIRECTORY", audit.display().to_string());
        let program = settings.iter().fold(program, |program, (name, value)| {
            program.env(*name, value.as_str())
        });
        Self {
            process: program.start_ready().await,
            program,
            audit: audit.join("registry"),
        }
    }

    fn address(&self) -> SocketAddr {
        self.program.data_address()
    }

    /// That these are written down, one line at least for each reason, and counted; and that it runs on.
    async fn remembers(mut self, attacks: &[Attack]) {
        for attack in attacks {
            for reason in attack.reasons {
                let is_it = |line: &Value| line["event"] == attack.event && line["reason"] == *reason;
                is_written(&self.audit, reason, is_it).await;
            }
        }
        let metrics = ([127, 0, 0, 1], self.program.ports().metrics).into();
        table::are_counted(metrics, attacks).await;
        assert!(!self.process.has_ended());
    }
}

/// OpenSSL as a client that has no certificate.
async fn openssl(address: SocketAddr, version: &str) {
    let address = address.to_string();
    let ended = tokio::process::Command::new("openssl")
        .args([
            "s_client", "-connect", &address, version, "-alpn", "h2", "-ign_eof",
        ])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    // How it ends, is in the audit log: who has no certificate hears of it when all is said.
    let _ended = tokio::time::timeout(PATIENCE, ended)
        .await
        .expect("an end")
        .unwrap();
}

/// Sends this, and then nothing more; what the server says until it ends the connection.
async fn begins(address: SocketAddr, text: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // A server that has had enough does not read the rest.
    let _sent = stream.write_all(text.as_bytes()).await;
    let mut said = Vec::new();
    // However it ends.
    let _ended = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut said))
        .await
        .expect("the connection stays open");
    String::from_utf8_lossy(&said).into_owned()
}

#[tokio::test]
async fn who_has_no_good_certificate_gets_no_connection_and_leaves_a_line_each() {
    let now = SystemClock::default().now();
    let ours = Certificates::at(now - HOUR * 48);
    let foreign = Certificates::at(now);
    foreign.trusts(&[&ours, &foreign]);
    // It holds all the time.
    let native = ours.issue(OURS, "registry", HOUR * 100);
    let today = Certificates { now, ..ours };
    let path = |path: PathBuf| path.display().to_string();
    let audit = tempfile::tempdir().unwrap();
    let victim = Victim::start(
        audit.path(),
        &[
            ("MUSTER__TRUST__MODE", "native".to_owned()),
            ("MUSTER__TRUST__NATIVE__CERTIFICATE", path(native.certificate)),
            ("MUSTER__TRUST__NATIVE__KEY", path(native.key)),
            ("MUSTER__TRUST__NATIVE__AUTHORITIES", path(native.authorities)),
            ("MUSTER__TRUST__NATIVE__HANDSHAKE_TIMEOUT_SECONDS", "2".to_owned()),
            ("MUSTER__TRUST__NATIVE__MAX_HANDSHAKES", "2".to_owned()),
        ],
    )
    .await;
    let address = victim.address();
    today.ask(address, OURS, "router").await.unwrap();

    openssl(address, "-tls1_3").await;
    foreign.ask(address, OURS, "router").await.unwrap_err();
    today.ask(address, "elsewhere", "stranger").await.unwrap_err();
    http::get(address, "/v1/agents").await.unwrap_err();
    openssl(address, "-tls1_2").await;
    assert_eq!(begins(address, "").await, "", "a handshake that never begins");
    let mut crowd = Vec::new();
    for _ in 0..6 {
        crowd.push(TcpStream::connect(address).await.unwrap());
    }
    for stream in &mut crowd {
        assert_eq!(stream.read(&mut [0; 8]).await.unwrap_or(0), 0);
    }
    // By whose clock it is still two days ago.
    let late = Certificates {
        now: now - HOUR * 48,
        ..today
    };
    late.ask(address, OURS, "router").await.unwrap_err();
    victim
        .remembers(&[table::CERTIFICATE, table::OTHER_TLS, table::HANDSHAKES])
        .await;
}

#[tokio::test]
async fn who_wears_a_service_down_is_let_go_and_leaves_a_line_each() {
    let issuer = Issuer::new();
    let victim = Victim::start(
        &issuer.audit(),
        &[
            ("MUSTER__TRUST__TOKENS__REQUIRED", "true".to_owned()),
            (
                "MUSTER__TRUST__TOKENS__JWKS_FILE",
                issuer.key_set().display().to_string(),
            ),
            ("MUSTER__TRUST__TOKENS__MAX_FAILURES_PER_MINUTE", "3".to_owned()),
            ("MUSTER__SERVER__HEAD_TIMEOUT_SECONDS", "1".to_owned()),
            ("MUSTER__SERVER__BODY_TIMEOUT_SECONDS", "1".to_owned()),
            ("MUSTER__SERVER__MAX_HEADER_BYTES", "8192".to_owned()),
        ],
    )
    .await;
    let address = victim.address();
    let bearer = format!("Bearer {}", issuer.token("root", &["admin"], &Value::Null));
    let asks = async |bearer: &str| {
        let headers = [("authorization", bearer)];
        let answer = http::send(address, Method::GET, "/v1/agents", &headers, "".into()).await;
        answer.unwrap()
    };
    assert_eq!(asks(&bearer).await.status, 200);

    let said = begins(address, "GET /v1/agents HTTP/1.1\r\nx-slow: ").await;
    assert!(said.is_empty() || said.starts_with("HTTP/1.1 408"), "{said}");
    let long = "x".repeat(64 << 10);
    let said = begins(
        address,
        &format!("GET /v1/agents HTTP/1.1\r\nx-long: {long}\r\n\r\n"),
    )
    .await;
    assert!(said.is_empty() || said.starts_with("HTTP/1.1 431"), "{said}");
    let head = format!(
        "POST /v1/agents/weather:drain HTTP/1.1\r\nhost: x\r\nauthorization: {bearer}\r\n\
         content-type: application/json\r\ncontent-length: 1000\r\n\r\n{{"
    );
    let said = begins(address, &head).await;
    assert!(said.starts_with("HTTP/1.1 408"), "{said}");
    assert!(said.contains("DEADLINE_EXCEEDED"), "{said}");
    let codes = goodbyes(address, &rapid_resets(ECHO, 60)).await;
    assert_eq!(codes.last(), Some(&ENHANCE_YOUR_CALM), "{codes:?}");

    for guess in 0..3 {
        assert_eq!(asks(&format!("Bearer guess-{guess}")).await.status, 401);
    }
    let limited = asks("Bearer guess-3").await;
    assert_eq!(limited.status, 429, "{}", limited.text());
    assert!(limited.text().contains("LOGIN_LIMITED"), "{}", limited.text());
    let is_it = |line: &Value| line["event"] == table::GUESSES.event && line["source_ip"] == "127.0.0.1";
    is_written(&victim.audit, table::GUESSES.what, is_it).await;
    assert_eq!(asks(&bearer).await.status, 200, "whoever was known goes on");
    victim
        .remembers(&[table::GUESSES, table::SLOW_BODY, table::HEAD, table::RESETS])
        .await;
}
