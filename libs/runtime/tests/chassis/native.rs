//! Mutual TLS on the data port, from outside: who gets in and who does not, new certificates while connections are open, and
//! clients that never finish.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt as _;
use jiff::Timestamp;
use muster_rpc::channel::security::Fixed;
use muster_rpc::channel::{Config as ChannelConfig, Direct, Security, direct};
use muster_runtime::clock::{Clock as _, ManualClock, SystemClock};
use muster_runtime::server;
use muster_runtime::trust::authority::{Authority, Scope, Wish};
use muster_runtime::trust::{self, Demand, Mode, Native, SpiffeId, Trust, Workload};
use muster_testkit::{http as plain, wait_for};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tower::ServiceExt as _;

use crate::stage::{PATIENCE, Running, start, start_as};

pub const HOUR: Duration = Duration::from_secs(3_600);

/// An authority and the files of workloads.
pub struct Workloads {
    authority: Authority,
    directory: TempDir,
    now: Timestamp,
}

impl Workloads {
    pub fn new() -> Self {
        Self::at(SystemClock::default().now())
    }

    pub fn at(now: Timestamp) -> Self {
        let workloads = Self {
            authority: Authority::new("d", &Scope::private(), HOUR * 240, now).unwrap(),
            directory: tempfile::tempdir().unwrap(),
            now,
        };
        let bundle = &workloads.authority.own().certificate;
        std::fs::write(workloads.path("bundle.pem"), bundle).unwrap();
        workloads
    }

    /// Takes the authority of others for one of its own.
    pub fn trust_authority_of(&self, other: &Self) {
        let both = [self.authority.own(), other.authority.own()].map(|own| own.certificate.clone());
        std::fs::write(self.path("bundle.pem"), both.concat()).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes a certificate for this service, and says the section that uses it.
    pub fn config(&self, service: &str) -> trust::Config {
        self.issue(service, service, HOUR);
        trust::Config {
            mode: Some(Mode::Native),
            trust_domain: "d".to_owned(),
            namespace: "n".to_owned(),
            native: Native {
                certificate: self.path(&format!("{service}.pem")),
                key: self.path(&format!("{service}-key.pem")),
                authorities: self.path("bundle.pem"),
                reload_seconds: 1,
                ..Native::default()
            },
            ..trust::Config::default()
        }
    }

    /// Writes a certificate for this service into the files of another.
    pub fn issue(&self, service: &str, file: &str, lifetime: Duration) {
        let wish = Wish {
            id: SpiffeId::of_service("d", "n", service).unwrap(),
            dns: vec!["localhost".to_owned()],
            addresses: vec!["127.0.0.1".parse().unwrap()],
            lifetime,
        };
        let issued = self.authority.issue(&wish, self.now).unwrap();
        std::fs::write(self.path(&format!("{file}-key.pem")), issued.key).unwrap();
        std::fs::write(self.path(&format!("{file}.pem")), issued.certificate).unwrap();
    }

    fn trust(&self, service: &str) -> Trust {
        let clock = Arc::new(ManualClock::new(self.now));
        let config = self.config(service);
        Trust::open(
            &config,
            &server::Config::default(),
            Workload::of_service(service),
            clock,
        )
        .unwrap()
    }

    /// Connects anew as this service, expecting an agent, and asks who it is.
    pub async fn asks(&self, service: &str, address: SocketAddr) -> Result<String, String> {
        ask(&client(&self.trust(service).to(Workload::Agent)), address).await
    }
}

fn client(security: &Security) -> Direct {
    direct(&ChannelConfig::own_service(), security)
}

async fn ask(client: &Direct, address: SocketAddr) -> Result<String, String> {
    let request = http::Request::get(format!("https://{address}/.well-known/agent-card.json"))
        .body(tonic::body::Body::empty())
        .unwrap();
    let response = client
        .clone()
        .oneshot(request)
        .await
        .map_err(|error| told(&error))?;
    let body = response
        .into_body()
        .collect()
        .await
        .map_err(|error| told(&error))?;
    Ok(String::from_utf8(body.to_bytes().to_vec()).unwrap())
}

fn told(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text
}

/// An agent that listens with this section.
fn listening(config: &trust::Config) -> Running {
    let running = start(&server::Config::default(), |chassis| {
        chassis.secure(config).unwrap()
    });
    running.latch.ready();
    running
}

/// What health says of the certificates.
async fn standing(running: &Running) -> String {
    let answer = plain::get(running.health, "/ready").await.unwrap();
    answer.json()["checks"]["certificates"]["status"]
        .as_str()
        .unwrap()
        .to_owned()
}

#[tokio::test]
async fn those_get_in_whom_the_table_admits_and_nobody_else() {
    let (ours, theirs) = (Workloads::new(), Workloads::new());
    let running = listening(&ours.config("weather"));
    let address = running.data;
    assert_eq!(
        ours.asks("router", address).await.unwrap(),
        "spiffe://d/ns/n/sa/router"
    );

    for refused in [
        ours.asks("planning", address).await,
        theirs.asks("router", address).await,
        plain::get(address, "/.well-known/agent-card.json")
            .await
            .map(|answer| answer.text()),
    ] {
        refused.unwrap_err();
    }
    // Without a certificate, though it would trust whoever answers.
    let bundle = ours.path("bundle.pem");
    let settings = muster_rpc::outbound::tls(Some(&bundle)).unwrap();
    let nobody = Security::by_scheme_with(Arc::new(Fixed::http2(&settings)));
    ask(&client(&nobody), address).await.unwrap_err();
    // Who answers is not whom the caller wants.
    let other = client(&ours.trust("router").to(Workload::Registry));
    let told = ask(&other, address).await.unwrap_err();
    assert!(
        told.contains("spiffe://d/ns/n/sa/weather answers there"),
        "{told}"
    );
    let exactly = |name| SpiffeId::of_service("d", "n", name).unwrap();
    let router = ours.trust("router");
    ask(&client(&router.to_workload(&exactly("weather"))), address)
        .await
        .unwrap();
    ask(&client(&router.to_workload(&exactly("planning"))), address)
        .await
        .unwrap_err();

    let metrics = running.metrics().await;
    assert!(
        metrics.contains(r#"tls_handshakes_total{outcome="refused"}"#),
        "{metrics}"
    );
    assert!(metrics.contains(r#"certificate_expiry_timestamp_seconds{certificate="own"}"#));
    assert_eq!(running.readiness().await.0, 200, "health stays plain");
    running.stop().await;

    // Callers from outside, where they are wanted, are nobody; a wrong certificate is still refused.
    let config = trust::Config {
        client_certificates: Some(Demand::Optional),
        ..ours.config("weather")
    };
    let open = listening(&config);
    assert_eq!(ask(&client(&nobody), open.data).await.unwrap(), "nobody");
    ours.asks("planning", open.data).await.unwrap_err();
    open.stop().await;
}

#[tokio::test]
async fn a_workload_has_the_role_that_the_table_gives_it() {
    let workloads = Workloads::new();
    let mut config = workloads.config("router");
    config.identities.writers = vec!["billing".to_owned()];
    config.identities.readers = vec!["reports".to_owned()];
    config.client_certificates = Some(Demand::Required);
    let mut trust = config.clone();
    trust.identities.agents = vec!["weather".to_owned()];
    let running = start_as("router", &server::Config::default(), |chassis| {
        chassis.secure(&trust).unwrap();
    });
    running.latch.ready();
    // What is in no table of policies is for admins; who is known and none is told so.
    for (service, expected) in [
        ("muster", 200),
        ("billing", 403),
        ("reports", 403),
        ("weather", 403),
    ] {
        let client = client(&workloads.trust(service).to(Workload::Router));
        let request = http::Request::post(format!("https://{}/echo", running.data))
            .body(tonic::body::Body::new("x".to_owned()))
            .unwrap();
        let answer = client.oneshot(request).await.map_err(|error| told(&error));
        assert_eq!(answer.unwrap().status().as_u16(), expected, "{service}");
    }
    let stranger = client(&workloads.trust("planning").to(Workload::Router));
    ask(&stranger, running.data).await.unwrap_err();
    running.stop().await;
}

#[tokio::test]
async fn new_certificates_are_taken_up_under_open_connections_and_wrong_ones_are_not() {
    let workloads = Workloads::new();
    let running = listening(&workloads.config("weather"));
    let router = workloads.trust("router");
    let exactly = |name| client(&router.to_workload(&SpiffeId::of_service("d", "n", name).unwrap()));
    let open = exactly("weather");
    ask(&open, running.data).await.unwrap();

    // By half: the key of another.
    let key = workloads.path("weather-key.pem");
    let good = std::fs::read(&key).unwrap();
    workloads.issue("planning", "other", HOUR);
    std::fs::copy(workloads.path("other-key.pem"), &key).unwrap();
    wait_for("the wrong key to be told", PATIENCE, async || {
        standing(&running).await == "degraded"
    })
    .await;
    ask(&exactly("weather"), running.data).await.unwrap();
    std::fs::write(&key, good).unwrap();
    wait_for("the old files to be good again", PATIENCE, async || {
        standing(&running).await == "healthy"
    })
    .await;

    workloads.issue("planning", "weather", HOUR);
    wait_for("the new certificate", PATIENCE, async || {
        ask(&exactly("planning"), running.data).await.is_ok()
    })
    .await;
    ask(&open, running.data).await.unwrap();
    ask(&exactly("weather"), running.data).await.unwrap_err();
    let metrics = running.metrics().await;
    assert!(
        metrics.contains(r#"certificate_reloads_total{outcome="refused"} 1"#),
        "{metrics}"
    );
    assert!(
        metrics.contains(r#"certificate_reloads_total{outcome="replaced"} 1"#),
        "{metrics}"
    );
    running.stop().await;
}

#[tokio::test]
async fn an_authority_is_replaced_while_both_are_trusted() {
    let (old, new) = (Workloads::new(), Workloads::new());
    let running = listening(&old.config("weather"));
    new.asks("router", running.data).await.unwrap_err();
    let both = [old.authority.own(), new.authority.own()].map(|own| own.certificate.clone());
    std::fs::write(old.path("bundle.pem"), both.concat()).unwrap();
    std::fs::write(new.path("bundle.pem"), both.concat()).unwrap();
    wait_for("the new authority", PATIENCE, async || {
        new.asks("router", running.data).await.is_ok()
    })
    .await;
    old.asks("router", running.data).await.unwrap();
    running.stop().await;
}

#[tokio::test]
async fn the_end_of_a_certificate_is_told_before_and_refused_after() {
    let now: Timestamp = "2030-01-01T00:00:00Z".parse().unwrap();
    let workloads = Workloads::at(now);
    let clock = Arc::new(ManualClock::new(now));
    let config = workloads.config("weather");
    let running = start(&server::Config::default(), |chassis| {
        chassis.clock = Arc::clone(&clock) as _;
        chassis.secure(&config).unwrap();
    });
    running.latch.ready();
    workloads.asks("router", running.data).await.unwrap();
    assert_eq!(standing(&running).await, "healthy");
    clock.advance(HOUR * 5 / 6);
    assert_eq!(
        (standing(&running).await.as_str(), running.readiness().await.0),
        ("degraded", 200)
    );
    clock.advance(HOUR);
    assert_eq!(running.readiness().await.0, 503);
    // Its clients' certificates have ended by its clock, as its own has by theirs.
    workloads.asks("router", running.data).await.unwrap_err();
    let late = Trust::open(&config, &server::Config::default(), Workload::Agent, clock).unwrap_err();
    assert!(late.to_string().contains("weather.pem"), "{late}");
    running.stop().await;
}

#[tokio::test]
async fn who_does_not_finish_the_handshake_keeps_nobody_out() {
    let workloads = Workloads::new();
    let mut config = workloads.config("weather");
    config.native.max_handshakes = 3;
    config.native.handshake_timeout_seconds = 3_600;
    let crowded = server::Config {
        max_connections: 1,
        ..server::Config::default()
    };
    let running = start(&crowded, |chassis| chassis.secure(&config).unwrap());
    running.latch.ready();
    let mut silent = Vec::new();
    for number in 0..8 {
        let mut stream = TcpStream::connect(running.data).await.unwrap();
        // Some begin one: the head of a record, and nothing of it.
        if number % 2 == 0 {
            stream.write_all(&[22, 3, 1, 2, 0]).await.unwrap();
        }
        silent.push(stream);
    }
    // All the places that there are to connections are free for who means it.
    workloads.asks("router", running.data).await.unwrap();
    // Those in excess were let go, the oldest first.
    assert_eq!(silent[0].read(&mut [0; 64]).await.unwrap_or(0), 0);
    let metrics = running.metrics().await;
    assert!(
        metrics.contains(r#"tls_handshakes_total{outcome="crowded_out"}"#),
        "{metrics}"
    );
    // A stop waits for none of them.
    running.stop().await;
}

#[tokio::test]
async fn an_old_tls_is_not_spoken() {
    let workloads = Workloads::new();
    let config = trust::Config {
        client_certificates: Some(Demand::Optional),
        ..workloads.config("weather")
    };
    let running = listening(&config);
    let mut stream = TcpStream::connect(running.data).await.unwrap();
    // A greeting that offers TLS 1.2 and nothing newer: no list of versions among its extensions.
    let hello = client_hello_of_tls_1_2();
    stream.write_all(&hello).await.unwrap();
    let mut answer = [0; 7];
    stream.read_exact(&mut answer).await.unwrap();
    // A fatal alert: protocol_version.
    assert_eq!((answer[0], answer[5], answer[6]), (21, 2, 70), "{answer:?}");
    running.stop().await;
}

/// The least that is a greeting of TLS 1.2.
pub fn client_hello_of_tls_1_2() -> Vec<u8> {
    let mut body = vec![3, 3];
    body.extend([7; 32]); // its random
    body.push(0); // no session
    body.extend([0, 2, 0xc0, 0x2b]); // ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
    body.extend([1, 0]); // no compression
    let extensions = [
        0, 10, 0, 4, 0, 2, 0, 23, // groups: secp256r1
        0, 13, 0, 4, 0, 2, 4, 3, // signatures: ecdsa_secp256r1_sha256
    ];
    body.extend([0, 16]);
    body.extend(extensions);
    let length = |bytes: usize| u16::try_from(bytes).unwrap().to_be_bytes();
    let mut handshake = vec![1, 0];
    handshake.extend(length(body.len()));
    handshake.extend(body);
    let mut record = vec![22, 3, 1];
    record.extend(length(handshake.len()));
    record.extend(handshake);
    record
}
