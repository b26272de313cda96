//! Native mode: mutual TLS 1.3 between services, each of which knows who the other is.
//!
//! A peer is who its certificate's SPIFFE id says, if an authority of that id's trust domain vouches for it: the authorities of one
//! domain cannot make workloads of another. Names of hosts do not matter between services. Who may call is decided in the
//! handshake, by the [`Roster`]; whom we have reached is decided there too, by what the caller expects.
//!
//! Certificates, keys and authorities are read again while the service runs. Each handshake takes what is there at that moment, and
//! what is wrong keeps the old. Sessions are not resumed, because a resumed one would carry over a decision that was made by what
//! has been replaced since; connections between services live long, so that their handshakes cost next to nothing.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use muster_rpc::channel::security::HTTP_2;
use muster_rpc::channel::{Handshake, Security};
use parking_lot::{Mutex, RwLock};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, verify_server_cert_signed_by_trust_anchor};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier};
use rustls::sign::SingleCertAndKey;
use rustls::time_provider::TimeProvider;
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, OtherError, RootCertStore,
    ServerConfig, SignatureScheme,
};

use super::certificates::{Contents, Error, Files, Material, Validity, unix_time, workload};
use super::roster::{Roster, Workload};
use super::spiffe::SpiffeId;
use crate::clock::SharedClock;

/// What we are, as it is now, and how it is read again.
pub(super) struct Identity {
    files: Files,
    roster: Arc<Roster>,
    /// Whether clients have to show a certificate.
    demanded: bool,
    trust_domain: String,
    provider: Arc<CryptoProvider>,
    clock: SharedClock,
    current: RwLock<Arc<Current>>,
    /// What is wrong with the files as they are now, where they could not be taken.
    refused: Mutex<Option<Refused>>,
}

/// An identity in use.
struct Current {
    contents: Contents,
    material: Material,
    server: Arc<ServerConfig>,
    /// Which of all that there were.
    generation: u64,
}

struct Refused {
    /// What was read, where it could be.
    contents: Option<Contents>,
    error: Error,
}

/// What came of a look at the files.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Reread {
    /// They are what they were.
    Same,
    /// They were replaced, and the new ones are in use.
    Replaced(SpiffeId),
    /// They cannot be used; the old ones stay.
    Refused(Error),
}

impl fmt::Debug for Identity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Identity")
            .field("files", &self.files)
            .finish_non_exhaustive()
    }
}

impl Identity {
    pub(super) fn open(
        files: Files,
        roster: Arc<Roster>,
        demanded: bool,
        trust_domain: String,
        clock: SharedClock,
    ) -> Result<Self, Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let contents = files.read()?;
        let material = Material::parse(&files, &contents, &trust_domain, &provider, clock.now())?;
        let rules = Rules {
            roster: &roster,
            demanded,
            provider: &provider,
            clock: &clock,
        };
        let current = Current {
            server: Arc::new(rules.server(&material)),
            contents,
            material,
            generation: 0,
        };
        Ok(Self {
            files,
            roster,
            demanded,
            trust_domain,
            provider,
            clock,
            current: RwLock::new(Arc::new(current)),
            refused: Mutex::new(None),
        })
    }

    fn current(&self) -> Arc<Current> {
        Arc::clone(&self.current.read())
    }

    /// How the next connection is accepted.
    pub(super) fn server(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.read().server)
    }

    /// Who we are, how long the certificate holds, and when the first authority ends.
    pub(super) fn standing(&self) -> (SpiffeId, Validity, Timestamp) {
        let current = self.current();
        let material = &current.material;
        (material.id.clone(), material.validity, material.authorities_end)
    }

    /// What is wrong with the files, where those in use are older ones.
    pub(super) fn refused(&self) -> Option<String> {
        self.refused
            .lock()
            .as_ref()
            .map(|refused| refused.error.to_string())
    }

    /// Looks at the files, which is blocking work.
    pub(super) fn reread(&self) -> Reread {
        let contents = match self.files.read() {
            Ok(contents) => contents,
            Err(error) => return self.refuse(None, error),
        };
        let current = self.current();
        if contents == current.contents {
            *self.refused.lock() = None;
            return Reread::Same;
        }
        let known = |refused: &Refused| refused.contents.as_ref() == Some(&contents);
        if self.refused.lock().as_ref().is_some_and(known) {
            return Reread::Same;
        }
        let parsed = Material::parse(
            &self.files,
            &contents,
            &self.trust_domain,
            &self.provider,
            self.clock.now(),
        );
        let material = match parsed {
            Ok(material) => material,
            Err(error) => return self.refuse(Some(contents), error),
        };
        let id = material.id.clone();
        let rules = Rules {
            roster: &self.roster,
            demanded: self.demanded,
            provider: &self.provider,
            clock: &self.clock,
        };
        *self.current.write() = Arc::new(Current {
            server: Arc::new(rules.server(&material)),
            contents,
            material,
            generation: current.generation + 1,
        });
        *self.refused.lock() = None;
        Reread::Replaced(id)
    }

    fn refuse(&self, contents: Option<Contents>, error: Error) -> Reread {
        let mut refused = self.refused.lock();
        let is_known = refused
            .as_ref()
            .is_some_and(|before| before.error == error && before.contents == contents);
        *refused = Some(Refused {
            contents,
            error: error.clone(),
        });
        if is_known {
            Reread::Same
        } else {
            Reread::Refused(error)
        }
    }

    /// How workloads are called that are expected to be these.
    pub(super) fn dial(self: &Arc<Self>, expected: Expected) -> Security {
        Security::always(Arc::new(Dial {
            identity: Arc::clone(self),
            expected,
            made: Mutex::new(None),
        }))
    }
}

/// Whom a caller expects at the other end.
#[derive(Debug, Clone)]
pub(super) enum Expected {
    /// Whoever plays this role.
    Plays(Workload),
    /// This one.
    Is(SpiffeId),
}

/// Where the settings of our calls come from.
struct Dial {
    identity: Arc<Identity>,
    expected: Expected,
    /// What was made last, and of which identity.
    made: Mutex<Option<(u64, Arc<ClientConfig>)>>,
}

impl fmt::Debug for Dial {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Dial").field(&self.expected).finish()
    }
}

impl Handshake for Dial {
    fn config(&self) -> Arc<ClientConfig> {
        let current = self.identity.current();
        let mut made = self.made.lock();
        if let Some((generation, settings)) = &*made
            && *generation == current.generation
        {
            return Arc::clone(settings);
        }
        let identity = &self.identity;
        let verifier = Servers {
            authorities: current.material.authorities.clone(),
            expected: self.expected.clone(),
            roster: Arc::clone(&identity.roster),
            provider: Arc::clone(&identity.provider),
        };
        let mut settings = ClientConfig::builder_with_details(
            Arc::clone(&identity.provider),
            Arc::new(Time(Arc::clone(&identity.clock))),
        )
        .with_protocol_versions(&[&TLS13])
        .expect("ring speaks TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(
            &current.material.certified,
        ))));
        settings.alpn_protocols = vec![HTTP_2.to_vec()];
        settings.resumption = Resumption::disabled();
        let settings = Arc::new(settings);
        *made = Some((current.generation, Arc::clone(&settings)));
        settings
    }
}

/// What the settings of a server are made of.
struct Rules<'r> {
    roster: &'r Arc<Roster>,
    demanded: bool,
    provider: &'r Arc<CryptoProvider>,
    clock: &'r SharedClock,
}

impl Rules<'_> {
    fn server(&self, material: &Material) -> ServerConfig {
        let chains = material
            .authorities
            .iter()
            .map(|(domain, roots)| {
                let verifier =
                    WebPkiClientVerifier::builder_with_provider(Arc::clone(roots), Arc::clone(self.provider))
                        .build()
                        .expect("there is an authority, and no list of revoked certificates");
                (domain.clone(), verifier)
            })
            .collect::<BTreeMap<_, _>>();
        let hints = material
            .authorities
            .values()
            .flat_map(|roots| roots.subjects())
            .collect();
        let verifier = Clients {
            chains,
            hints,
            demanded: self.demanded,
            roster: Arc::clone(self.roster),
            provider: Arc::clone(self.provider),
        };
        let time = Arc::new(Time(Arc::clone(self.clock)));
        let mut settings = ServerConfig::builder_with_details(Arc::clone(self.provider), time)
            .with_protocol_versions(&[&TLS13])
            .expect("ring speaks TLS 1.3")
            .with_client_cert_verifier(Arc::new(verifier))
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(&material.certified))));
        settings.alpn_protocols = vec![HTTP_2.to_vec(), b"http/1.1".to_vec()];
        settings.session_storage = Arc::new(NoServerSessionStorage {});
        settings.send_tls13_tickets = 0;
        settings
    }
}

/// The injected clock, for rustls.
struct Time(SharedClock);

impl fmt::Debug for Time {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Time")
    }
}

impl TimeProvider for Time {
    fn current_time(&self) -> Option<UnixTime> {
        Some(unix_time(self.0.now()))
    }
}

/// Why a peer is refused whose chain may be in order.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Unwanted(String);

fn unwanted(what: impl Into<String>) -> rustls::Error {
    CertificateError::Other(OtherError(Arc::new(Unwanted(what.into())))).into()
}

/// The authorities that vouch for an id.
fn authorities_of<'a, T>(
    authorities: &'a BTreeMap<String, T>,
    id: &SpiffeId,
) -> Result<&'a T, rustls::Error> {
    authorities
        .get(id.trust_domain())
        .ok_or_else(|| unwanted(format!("{id} is of a trust domain that is not ours")))
}

/// Verifies who calls.
#[derive(Debug)]
struct Clients {
    chains: BTreeMap<String, Arc<dyn ClientCertVerifier>>,
    hints: Vec<DistinguishedName>,
    demanded: bool,
    roster: Arc<Roster>,
    provider: Arc<CryptoProvider>,
}

impl ClientCertVerifier for Clients {
    fn client_auth_mandatory(&self) -> bool {
        self.demanded
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &self.hints
    }

    fn verify_client_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        let id = workload(certificate).map_err(unwanted)?;
        let verified =
            authorities_of(&self.chains, &id)?.verify_client_cert(certificate, intermediates, now)?;
        self.roster.admit(&id).map_err(unwanted)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// Verifies whom we have reached.
#[derive(Debug)]
struct Servers {
    authorities: BTreeMap<String, Arc<RootCertStore>>,
    expected: Expected,
    roster: Arc<Roster>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Servers {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let id = workload(certificate).map_err(unwanted)?;
        verify_server_cert_signed_by_trust_anchor(
            &ParsedCertificate::try_from(certificate)?,
            authorities_of(&self.authorities, &id)?,
            intermediates,
            now,
            self.provider.signature_verification_algorithms.all,
        )?;
        let (is_expected, wanted) = match &self.expected {
            Expected::Plays(role) => (
                self.roster.workload_of(&id) == Some(*role),
                format!("one of `trust.identities.{}`", role.name()),
            ),
            Expected::Is(expected) => (id == *expected, expected.to_string()),
        };
        if is_expected {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(unwanted(format!("{id} answers there, and not {wanted}")))
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}
