//! Agents of others that let in only who shows a certificate: the router shows the one that the operator has given it for them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use muster_api::a2a::{AgentCard, MutualTlsSecurityScheme, security_scheme::Scheme};
use muster_api::error::Reason;
use muster_runtime::clock::{Clock as _, SystemClock};
use muster_runtime::trust::SpiffeId;
use muster_runtime::trust::authority::{Authority, Scope, Wish};
use muster_testkit::{FakeAgent, wait_for};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;

use crate::credentials::{Guarded, asking, card, give};
use crate::harness::{PATIENCE, Stack, error_in, message};

/// Who issues certificates.
struct Issuer {
    authority: Authority,
    now: Timestamp,
}

impl Issuer {
    fn new() -> Self {
        let now = SystemClock::default().now();
        let lifetime = Duration::from_secs(86_400);
        Self {
            authority: Authority::new("d", &Scope::private(), lifetime, now).unwrap(),
            now,
        }
    }

    /// A certificate and its key, in PEM.
    fn issue(&self, name: &str) -> (String, String) {
        let wish = Wish {
            id: SpiffeId::of_service("d", "n", name).unwrap(),
            dns: vec!["localhost".to_owned()],
            addresses: vec!["127.0.0.1".parse().unwrap()],
            lifetime: Duration::from_secs(3_600),
        };
        let issued = self.authority.issue(&wish, self.now).unwrap();
        (issued.certificate.clone(), issued.key.clone())
    }

    /// Both in one text, as they are given to the router.
    fn client(&self, name: &str) -> String {
        let (certificate, key) = self.issue(name);
        certificate + &key
    }

    fn bundle(&self, directory: &Path) -> PathBuf {
        let path = directory.join("authority.pem");
        std::fs::write(&path, &self.authority.own().certificate).unwrap();
        path
    }
}

/// Stands before an agent and lets in only who shows a certificate of its issuer's.
struct Doorkeeper {
    address: SocketAddr,
    /// The certificates that it was shown.
    shown: Arc<Mutex<Vec<Vec<u8>>>>,
    through: Arc<tokio::sync::Mutex<JoinSet<()>>>,
    _server: JoinSet<()>,
}

impl Doorkeeper {
    async fn start(issuer: &Issuer, agent: SocketAddr, protocol: &'static [u8]) -> Self {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(issuer.authority.own().certificate.as_bytes()) {
            roots.add(certificate.unwrap()).unwrap();
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
        let (certificate, key) = issuer.issue("guarded");
        let chain = CertificateDer::pem_slice_iter(certificate.as_bytes()).collect::<Result<_, _>>();
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier.build().unwrap())
            .with_single_cert(
                chain.unwrap(),
                PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
            )
            .unwrap();
        config.alpn_protocols = vec![protocol.to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shown = Arc::<Mutex<Vec<Vec<u8>>>>::default();
        let through = Arc::<tokio::sync::Mutex<JoinSet<()>>>::default();
        let mut server = JoinSet::new();
        let (seen, passing) = (Arc::clone(&shown), Arc::clone(&through));
        server.spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (acceptor, seen) = (acceptor.clone(), Arc::clone(&seen));
                passing.lock().await.spawn(async move {
                    let Ok(mut stream) = acceptor.accept(stream).await else {
                        return;
                    };
                    let certificates = stream.get_ref().1.peer_certificates().unwrap();
                    seen.lock().unwrap().push(certificates[0].to_vec());
                    let mut agent = TcpStream::connect(agent).await.unwrap();
                    let _ended = tokio::io::copy_bidirectional(&mut stream, &mut agent).await;
                });
            }
        });
        Self {
            address,
            shown,
            through,
            _server: server,
        }
    }

    /// How many it has let in, and how many different certificates those have shown.
    fn let_in(&self) -> (usize, usize) {
        let shown = self.shown.lock().unwrap();
        let different: std::collections::BTreeSet<_> = shown.iter().collect();
        (shown.len(), different.len())
    }

    async fn hang_up(&self) {
        self.through.lock().await.shutdown().await;
    }
}

fn mutual_tls(card: AgentCard) -> AgentCard {
    asking(
        card,
        "mtls",
        Scheme::MtlsSecurityScheme(MutualTlsSecurityScheme::default()),
        &[],
    )
}

async fn stack(directory: &Path, authorities: PathBuf) -> Stack {
    Stack::with(|router| {
        router.credentials.directory = Some(directory.to_owned());
        router.outbound.allow = vec!["127.0.0.0/8".to_owned()];
        router.outbound.certificate_authorities = Some(authorities);
    })
    .await
}

async fn until_answered(stack: &Stack, agent: &str) {
    wait_for("the files to be read again", PATIENCE, async || {
        stack.send(message(agent, "hello")).await
    })
    .await;
}

#[tokio::test]
async fn an_agent_over_http_is_shown_the_certificate_that_the_operator_gave_for_it() {
    let directory = tempfile::tempdir().unwrap();
    let issuer = Issuer::new();
    let agent = Guarded::start(|_, _| true).await;
    let door = Doorkeeper::start(&issuer, agent.address, b"http/1.1").await;
    let stack = stack(directory.path(), issuer.bundle(directory.path())).await;
    let mut instance = agent.instance("JSONRPC", mutual_tls(card().await));
    instance.endpoint = format!("https://{}/rpc", door.address);
    stack.register(instance).await;

    // Nobody has given anything.
    let error = error_in(&stack.send(message("guarded", "hello")).await.unwrap_err());
    assert_eq!(error.reason, Reason::CredentialsMissing);
    assert!(
        error.message.contains("'mtls'") && error.message.contains("certificate"),
        "{error}"
    );
    // A text that is none.
    let mine = issuer.client("router");
    let host = "127.0.0.2\n";
    give(
        directory.path(),
        "guarded",
        &[("mtls", "open-sesame"), ("hosts", host)],
    );
    wait_for("the text to be read", PATIENCE, async || {
        let error = error_in(&stack.send(message("guarded", "hello")).await.unwrap_err());
        if error.message.contains("something else") {
            Ok(())
        } else {
            Err(error.message)
        }
    })
    .await;
    // For another host.
    give(directory.path(), "guarded", &[("mtls", &mine)]);
    wait_for("the certificate to be read", PATIENCE, async || {
        let error = error_in(&stack.send(message("guarded", "hello")).await.unwrap_err());
        if error.message.contains("may not be given") {
            Ok(())
        } else {
            Err(error.message)
        }
    })
    .await;
    assert_eq!(door.let_in(), (0, 0));
    assert!(agent.seen().is_empty(), "it was not called");

    // Corrected, it is called.
    give(directory.path(), "guarded", &[("hosts", "127.0.0.1\n")]);
    until_answered(&stack, "guarded").await;
    stack.send(message("guarded", "again")).await.unwrap();
    assert_eq!(door.let_in().1, 1);
    let calls = agent.seen().len();
    assert_eq!(calls, 2);

    // A new one is shown on the next connection, and a stranger's is not let in.
    give(directory.path(), "guarded", &[("mtls", &issuer.client("router"))]);
    wait_for("the new certificate to be shown", PATIENCE, async || {
        door.hang_up().await;
        let _outcome = stack.send(message("guarded", "hello")).await;
        let let_in = door.let_in();
        if let_in.1 == 2 {
            Ok(())
        } else {
            Err(format!("{let_in:?}"))
        }
    })
    .await;
    give(
        directory.path(),
        "guarded",
        &[("mtls", &Issuer::new().client("router"))],
    );
    wait_for("the stranger's to be refused", PATIENCE, async || {
        door.hang_up().await;
        match stack.send(message("guarded", "hello")).await {
            Ok(_) => Err("it was let in"),
            Err(_) => Ok(()),
        }
    })
    .await;
    assert_eq!(door.let_in().1, 2);
}

#[tokio::test]
async fn so_is_one_over_grpc_and_without_https_nothing_is_shown() {
    let directory = tempfile::tempdir().unwrap();
    let issuer = Issuer::new();
    let stack = stack(directory.path(), issuer.bundle(directory.path())).await;
    let agent = FakeAgent::start("secretive").await;
    let mut instance = agent.instance(&["s"]);
    let plain = instance.endpoint.clone();
    let door = Doorkeeper::start(
        &issuer,
        plain.trim_start_matches("http://").parse().unwrap(),
        b"h2",
    )
    .await;
    instance.endpoint = format!("https://{}", door.address);
    instance.card = instance.card.map(mutual_tls);
    let files = [
        ("mtls", issuer.client("router")),
        ("hosts", "127.0.0.1".to_owned()),
    ];
    let files = files.each_ref().map(|(name, text)| (*name, text.as_str()));
    give(directory.path(), "secretive", &files);
    let (lease, id) = stack.register(instance.clone()).await;
    stack
        .send(message("secretive", "hello"))
        .await
        .expect("an answer");
    stack
        .send(message("secretive", "again"))
        .await
        .expect("an answer");
    assert_eq!(door.let_in().1, 1);
    assert_eq!(agent.calls().len(), 2);
    stack.deregister(&lease, &id).await;

    instance.endpoint = plain;
    stack.register(instance).await;
    let error = error_in(&stack.send(message("secretive", "hello")).await.unwrap_err());
    assert_eq!(error.reason, Reason::CredentialsMissing);
    assert!(error.message.contains("no https"), "{error}");
    assert_eq!(agent.calls().len(), 2, "it was not called");
}
