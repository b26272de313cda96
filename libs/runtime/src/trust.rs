//! The section `trust`: who may talk to whom, and how that is proven.
//!
//! Three modes. `loopback`: nothing protects the data port, which therefore listens on loopback only, or beyond it where the operator
//! says so ([`Config::allow_plaintext`]). `native`: mutual TLS 1.3 between all services ([`tls`]), with identities out of files
//! ([`certificates`]). `mesh`: plaintext to a sidecar, which has done the same and says who calls ([`mesh`]). In the two latter, who
//! may call is decided by [`roster`]; in all of them a request's extensions hold its [`Peer`].
//!
//! On whose behalf a request is made, and whether it may, is another question: the [`gate`] asks it of every request, by tokens
//! ([`token`]), roles and grants ([`policy`], [`grants`]), and the handler gets the answer as its [`Access`].
//!
//! Invariants:
//! - On an address beyond loopback the mode is `native` unless something else was asked for by name.
//! - Health and metrics stay plain: kubelets and scrapers have no certificate, and nothing of anybody's data is there.
//! - In native mode calls to our own services are never plaintext, whatever their addresses say.
//!
//! Rejected: deriving the mode from whether there are certificates, because a missing file would then take the protection away.

mod access;
pub mod audit;
pub mod authority;
pub mod caller;
mod certificates;
mod declared;
pub(crate) mod entrance;
pub(crate) mod gate;
pub mod grants;
pub mod identity;
pub mod mesh;
pub mod metrics;
pub mod peer;
pub mod policy;
pub mod refusals;
pub mod roster;
pub mod secret;
pub mod spiffe;
mod tls;
pub mod token;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use muster_rpc::channel::Security;
use serde::{Deserialize, Serialize};

use crate::clock::SharedClock;
use crate::config::Mistakes;
use crate::{Chassis, Error, health, reload, server};

pub use access::Access;
pub use caller::{Caller, Kind, Role, Roles};
pub use declared::Declared;
pub use grants::Grants;
pub use identity::Identity;
pub use peer::Peer;
pub use roster::{Identities, Roster, Workload};
pub use spiffe::SpiffeId;
pub(crate) use token::SECRETS;

use certificates::Files;
use metrics::Meters;
use tls::{Expected, Identity as Certified, Reread};

/// How long the look at an identity may take that a health check takes.
const CHECK_TIMEOUT: Duration = Duration::from_secs(1);

/// How peers are trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Everybody who reaches the data port, which is on the loopback interface.
    #[default]
    Loopback,
    /// Mutual TLS between all services.
    Native,
    /// A sidecar's word.
    Mesh,
}

/// Whether whoever connects has to say who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Demand {
    /// Who does not is refused.
    Required,
    /// Who does not is taken for a caller from outside, who proves by other means on whose behalf it calls.
    Optional,
}

/// The section `trust`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// How peers are trusted. Absent: as `enable_mtls` says.
    pub mode: Option<Mode>,
    /// Whether services speak mutual TLS, by themselves or through a sidecar. Absent: beyond loopback, unless `allow_plaintext`.
    pub enable_mtls: Option<bool>,
    /// Whether a service may listen beyond loopback without protection; for isolated networks only.
    pub allow_plaintext: bool,
    /// The trust domain that our workloads are of.
    pub trust_domain: String,
    /// The namespace that short names in `identities` and `callers` are of.
    pub namespace: String,
    /// Whether peers have to say who they are. Absent: with the registry and agents they do; the router and the engine have callers
    /// from outside.
    pub client_certificates: Option<Demand>,
    /// Which SPIFFE ids play which role.
    pub identities: Identities,
    /// Who may call this service, in the place of the table of roles; entries as in `identities`.
    pub callers: Option<Vec<String>>,
    /// Native mode.
    pub native: Native,
    /// Mesh mode.
    pub mesh: mesh::Config,
    /// The tokens of callers.
    pub tokens: token::Config,
    /// The audit log.
    pub audit: audit::Config,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            mode: None,
            enable_mtls: None,
            allow_plaintext: false,
            trust_domain: "cluster.local".to_owned(),
            namespace: "agent-system".to_owned(),
            client_certificates: None,
            identities: Identities::default(),
            callers: None,
            native: Native::default(),
            mesh: mesh::Config::default(),
            tokens: token::Config::default(),
            audit: audit::Config::default(),
        }
    }
}

/// The section `trust.native`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Native {
    /// File of our certificate, and of those between it and the authority, in PEM.
    pub certificate: PathBuf,
    /// File of its private key, in PEM.
    pub key: PathBuf,
    /// File of the authorities of our trust domain, in PEM; several while one takes the place of another.
    pub authorities: PathBuf,
    /// Files of the authorities of other trust domains, by domain.
    pub federated_authorities: BTreeMap<String, PathBuf>,
    /// How often the files are looked at.
    pub reload_seconds: u64,
    /// How long before its end a certificate degrades the service's health; a third of its whole time where that is shorter.
    pub expiry_warning_seconds: u64,
    /// How long a client may take for its handshake.
    pub handshake_timeout_seconds: u64,
    /// Handshakes under way; with one more, the oldest is broken off.
    pub max_handshakes: usize,
}

impl Default for Native {
    fn default() -> Self {
        Self {
            certificate: PathBuf::new(),
            key: PathBuf::new(),
            authorities: PathBuf::new(),
            federated_authorities: BTreeMap::new(),
            reload_seconds: 10,
            expiry_warning_seconds: 7 * 24 * 3_600,
            handshake_timeout_seconds: 10,
            max_handshakes: 1_024,
        }
    }
}

impl Config {
    /// How peers are trusted, where a service listens like this.
    #[must_use]
    pub fn mode(&self, server: &server::Config) -> Mode {
        match (self.mode, self.enable_mtls) {
            (Some(mode), _) => mode,
            (None, Some(true)) => Mode::Native,
            (None, Some(false)) => Mode::Loopback,
            (None, None) if server.host.is_loopback() || self.allow_plaintext => Mode::Loopback,
            (None, None) => Mode::Native,
        }
    }

    /// Adds what is wrong.
    pub fn validate(&self, server: &server::Config, mistakes: &mut Mistakes) {
        self.tokens.validate(mistakes);
        self.audit.validate(mistakes);
        let mode = self.mode(server);
        match (self.mode, self.enable_mtls) {
            (Some(Mode::Loopback), Some(true)) => mistakes.add(
                "trust.enable_mtls",
                "is true, and trust.mode is 'loopback', which speaks no TLS; remove one of the two",
            ),
            (Some(Mode::Native | Mode::Mesh), Some(false)) => mistakes.add(
                "trust.enable_mtls",
                "is false, and trust.mode asks for mutual TLS; remove one of the two",
            ),
            _ => {}
        }
        if mode == Mode::Loopback && !server.host.is_loopback() && !self.allow_plaintext {
            mistakes.add(
                "server.host",
                format!(
                    "{} is not a loopback address and nothing protects it; listen on 127.0.0.1, set trust.mode to \
                     'native' or 'mesh', or set trust.allow_plaintext=true on an isolated network",
                    server.host
                ),
            );
        }
        if mode == Mode::Native {
            self.validate_native(server, mistakes);
        }
        if !spiffe::is_trust_domain(&self.trust_domain) {
            let what = format!(
                "'{}' is no trust domain: a-z, 0-9, '.', '-' and '_'",
                self.trust_domain
            );
            mistakes.add("trust.trust_domain", what);
        } else if !spiffe::is_segment(&self.namespace) {
            let what = format!(
                "'{}' is no part of a SPIFFE id: letters, 0-9, '.', '-' and '_'",
                self.namespace
            );
            mistakes.add("trust.namespace", what);
        } else {
            self.roster(Workload::Agent, mistakes);
        }
        self.mesh.networks(mistakes);
    }

    fn validate_native(&self, server: &server::Config, mistakes: &mut Mistakes) {
        let native = &self.native;
        for (key, path) in [
            ("certificate", &native.certificate),
            ("key", &native.key),
            ("authorities", &native.authorities),
        ] {
            if path.as_os_str().is_empty() {
                let why = if self.mode.is_none() && self.enable_mtls.is_none() {
                    format!(
                        "is missing: beyond loopback ({}) services speak mutual TLS. ",
                        server.host
                    )
                } else {
                    "is missing: ".to_owned()
                };
                mistakes.add(
                    format!("trust.native.{key}"),
                    format!(
                        "{why}Name the file (`muster certs init DIR` makes one for development), or choose another \
                         trust.mode ('mesh' with a sidecar), or set trust.allow_plaintext=true on an isolated network"
                    ),
                );
            }
        }
        for domain in native.federated_authorities.keys() {
            if !spiffe::is_trust_domain(domain) || *domain == self.trust_domain {
                mistakes.add(
                    "trust.native.federated_authorities",
                    format!("'{domain}' is not the name of another trust domain"),
                );
            }
        }
        for (key, seconds) in [
            ("reload_seconds", native.reload_seconds),
            ("handshake_timeout_seconds", native.handshake_timeout_seconds),
        ] {
            if !(1..=3_600).contains(&seconds) {
                mistakes.add(format!("trust.native.{key}"), "must be from 1 to 3600 seconds");
            }
        }
        if native.max_handshakes == 0 {
            mistakes.add("trust.native.max_handshakes", "must be at least 1");
        }
    }

    /// Whether a service of this role has nobody connect who does not say who it is, where peers say that at all.
    fn demands_certificates(&self, role: Workload) -> bool {
        match self.client_certificates {
            Some(demand) => demand == Demand::Required,
            None => !role.has_end_callers(),
        }
    }

    fn roster(&self, role: Workload, mistakes: &mut Mistakes) -> Roster {
        Roster::new(
            role,
            &self.identities,
            self.callers.as_deref(),
            &self.trust_domain,
            &self.namespace,
            mistakes,
        )
    }

    fn files(&self) -> Files {
        Files {
            certificate: self.native.certificate.clone(),
            key: self.native.key.clone(),
            authorities: self.native.authorities.clone(),
            federated: self.native.federated_authorities.clone(),
        }
    }
}

/// How a service proves who it is, and knows who the others are. Clones share it.
#[derive(Debug, Clone)]
pub struct Trust {
    state: Arc<State>,
}

#[derive(Debug)]
enum State {
    Loopback,
    Native {
        identity: Arc<Certified>,
        roster: Arc<Roster>,
        config: Native,
    },
    Mesh {
        roster: Arc<Roster>,
        proxies: Vec<IpNet>,
        demanded: bool,
    },
}

impl Trust {
    /// Everybody is trusted who gets here.
    #[must_use]
    pub fn loopback() -> Self {
        Self {
            state: Arc::new(State::Loopback),
        }
    }

    /// As this section says, for a service of this role; reads the files.
    ///
    /// # Errors
    /// The section is wrong, or a file is.
    pub fn open(
        config: &Config,
        server: &server::Config,
        role: Workload,
        clock: SharedClock,
    ) -> Result<Self, Error> {
        let mode = config.mode(server);
        if mode == Mode::Loopback {
            return Ok(Self::loopback());
        }
        let mut mistakes = Mistakes::default();
        config.validate(server, &mut mistakes);
        let roster = Arc::new(config.roster(role, &mut mistakes));
        let proxies = config.mesh.networks(&mut mistakes);
        if !mistakes.is_empty() {
            return Err(Error::Config(mistakes));
        }
        let demanded = config.demands_certificates(role);
        let state = if mode == Mode::Mesh {
            State::Mesh {
                roster,
                proxies,
                demanded,
            }
        } else {
            let identity = Certified::open(
                config.files(),
                Arc::clone(&roster),
                demanded,
                config.trust_domain.clone(),
                clock,
            );
            State::Native {
                identity: Arc::new(identity.map_err(|error| {
                    let mut mistakes = Mistakes::default();
                    mistakes.add("trust.native", error.to_string());
                    Error::Config(mistakes)
                })?),
                roster,
                config: config.native.clone(),
            }
        };
        Ok(Self {
            state: Arc::new(state),
        })
    }

    /// How peers are trusted.
    #[must_use]
    pub fn mode(&self) -> Mode {
        match &*self.state {
            State::Loopback => Mode::Loopback,
            State::Native { .. } => Mode::Native,
            State::Mesh { .. } => Mode::Mesh,
        }
    }

    /// The scheme of our own data port's address.
    #[must_use]
    pub fn scheme(&self) -> &'static str {
        match self.mode() {
            Mode::Native => "https",
            Mode::Loopback | Mode::Mesh => "http",
        }
    }

    /// The role that a workload plays; `None` where roles are not told apart, and for strangers.
    #[must_use]
    pub fn workload_of(&self, id: &SpiffeId) -> Option<Workload> {
        match &*self.state {
            State::Loopback => None,
            State::Native { roster, .. } | State::Mesh { roster, .. } => roster.workload_of(id),
        }
    }

    /// How those are called who play this role.
    #[must_use]
    pub fn to(&self, role: Workload) -> Security {
        self.dial(Expected::Plays(role))
    }

    /// How this workload is called, and no other.
    #[must_use]
    pub fn to_workload(&self, id: &SpiffeId) -> Security {
        self.dial(Expected::Is(id.clone()))
    }

    fn dial(&self, expected: Expected) -> Security {
        match &*self.state {
            State::Native { identity, .. } => identity.dial(expected),
            State::Loopback | State::Mesh { .. } => Security::by_scheme(),
        }
    }

    /// How connections of the data port are accepted: the settings of each handshake, and its bounds; `None` for plaintext.
    pub(crate) fn handshakes(&self, meters: Meters) -> Option<Handshakes> {
        match &*self.state {
            State::Native { identity, config, .. } => Some(Handshakes {
                identity: Arc::clone(identity),
                timeout: Duration::from_secs(config.handshake_timeout_seconds),
                most: config.max_handshakes,
                meters,
            }),
            State::Loopback | State::Mesh { .. } => None,
        }
    }

    /// Keeps the identity fresh, and tells how it stands.
    pub(crate) fn attend(&self, chassis: &Chassis) {
        let State::Native { identity, config, .. } = &*self.state else {
            return;
        };
        let (seen, clock) = (Arc::clone(identity), Arc::clone(&chassis.clock));
        let warning = Duration::from_secs(config.expiry_warning_seconds);
        chassis.health.check(
            health::Kind::Informational,
            "certificates",
            CHECK_TIMEOUT,
            move || {
                let (_, validity, _) = seen.standing();
                let now = clock.now();
                let outcome = match seen.refused() {
                    Some(what) => Err(format!("new files are not used: {what}")),
                    None if validity.is_ending(now, warning) => Err(format!(
                        "the certificate ends at {} ({} s from now)",
                        validity.end,
                        validity.left(now).as_secs()
                    )),
                    None => Ok(()),
                };
                async move { outcome }
            },
        );
        let (seen, clock) = (Arc::clone(identity), Arc::clone(&chassis.clock));
        chassis.health.check(
            health::Kind::Readiness,
            "certificate validity",
            CHECK_TIMEOUT,
            move || {
                let (_, validity, _) = seen.standing();
                let has_ended = clock.now() > validity.end;
                async move {
                    if has_ended {
                        Err(format!(
                            "the certificate ended at {}; put a new one in its place, it is taken up by itself",
                            validity.end
                        ))
                    } else {
                        Ok(())
                    }
                }
            },
        );
        let meters = Meters::new(chassis.metrics.clone());
        let every = Duration::from_secs(config.reload_seconds);
        chassis
            .tasks
            .spawn("certificates", keep_fresh(Arc::clone(identity), every, meters));
    }
}

/// Reads the files again and again.
async fn keep_fresh(identity: Arc<Certified>, every: Duration, meters: Meters) {
    let mut interval = tokio::time::interval(every);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut asked = reload::asked();
    loop {
        let (_, validity, authorities_end) = identity.standing();
        meters.ends(validity.end, authorities_end);
        tokio::select! {
            _ = interval.tick() => {}
            // The sender lives as long as the process.
            Ok(()) = asked.changed() => {}
        }
        let files = Arc::clone(&identity);
        match tokio::task::spawn_blocking(move || files.reread()).await {
            Ok(Reread::Same) => {}
            Ok(Reread::Replaced(id)) => {
                meters.reread(true);
                tracing::info!(%id, "new certificates are in use");
            }
            Ok(Reread::Refused(error)) => {
                meters.reread(false);
                tracing::error!(%error, "new certificates cannot be used; the old ones stay");
            }
            Err(error) => tracing::error!(%error, "certificates could not be read again"),
        }
    }
}

/// How the connections of a data port are accepted over TLS.
#[derive(Clone)]
pub(crate) struct Handshakes {
    identity: Arc<Certified>,
    /// How long one may take.
    pub(crate) timeout: Duration,
    /// How many may be under way.
    pub(crate) most: usize,
    /// Where they are counted.
    pub(crate) meters: Meters,
}

impl Handshakes {
    /// The settings of the next one.
    pub(crate) fn settings(&self) -> Arc<rustls::ServerConfig> {
        self.identity.server()
    }

    /// Who has shaken hands.
    pub(crate) fn peer(
        certificates: Option<&[rustls::pki_types::CertificateDer<'_>]>,
        address: std::net::SocketAddr,
    ) -> Peer {
        // The verifier has read the same name out of it.
        match certificates.and_then(<[_]>::first).map(certificates::workload) {
            Some(Ok(id)) => Peer::Workload { id, address },
            Some(Err(_)) | None => Peer::Anonymous { address },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mistakes(host: &str, change: impl FnOnce(&mut Config)) -> (Mode, Vec<String>) {
        let mut config = Config::default();
        change(&mut config);
        let server = server::Config {
            host: host.parse().unwrap(),
            ..server::Config::default()
        };
        let mut mistakes = Mistakes::default();
        config.validate(&server, &mut mistakes);
        let keys = mistakes.iter().map(|(key, _)| key.to_owned()).collect();
        (config.mode(&server), keys)
    }

    const NONE: [&str; 0] = [];
    const FILES: [&str; 3] = [
        "trust.native.certificate",
        "trust.native.key",
        "trust.native.authorities",
    ];

    #[test]
    fn beyond_loopback_tls_is_on_and_off_only_by_name() {
        let said = |mode, keys: &[&str]| (mode, keys.iter().map(|key| (*key).to_owned()).collect::<Vec<_>>());
        assert_eq!(mistakes("127.0.0.1", |_| ()), said(Mode::Loopback, &NONE));
        assert_eq!(mistakes("0.0.0.0", |_| ()), said(Mode::Native, &FILES));
        let plain = |config: &mut Config| config.allow_plaintext = true;
        assert_eq!(mistakes("0.0.0.0", plain), said(Mode::Loopback, &NONE));
        let off = |config: &mut Config| config.enable_mtls = Some(false);
        assert_eq!(mistakes("0.0.0.0", off), said(Mode::Loopback, &["server.host"]));
        let on = |config: &mut Config| config.enable_mtls = Some(true);
        assert_eq!(mistakes("127.0.0.1", on), said(Mode::Native, &FILES));
        let mesh = |config: &mut Config| {
            config.mode = Some(Mode::Mesh);
            config.enable_mtls = Some(true);
        };
        assert_eq!(mistakes("0.0.0.0", mesh), said(Mode::Mesh, &NONE));
        let contradiction = |config: &mut Config| {
            config.mode = Some(Mode::Loopback);
            config.enable_mtls = Some(true);
        };
        assert_eq!(
            mistakes("127.0.0.1", contradiction),
            said(Mode::Loopback, &["trust.enable_mtls"])
        );
    }

    #[test]
    fn each_mistake_is_named_by_its_key() {
        let (_, keys) = mistakes("127.0.0.1", |config| {
            config.mode = Some(Mode::Native);
            config.native = Native {
                certificate: "c".into(),
                key: "k".into(),
                authorities: "a".into(),
                reload_seconds: 0,
                handshake_timeout_seconds: 4_000,
                max_handshakes: 0,
                federated_authorities: BTreeMap::from([("cluster.local".to_owned(), "x".into())]),
                ..Native::default()
            };
            config.callers = Some(vec!["a b".to_owned()]);
            config.mesh.trusted_proxies = vec!["proxy".to_owned()];
        });
        assert_eq!(
            keys,
            [
                "trust.native.federated_authorities",
                "trust.native.reload_seconds",
                "trust.native.handshake_timeout_seconds",
                "trust.native.max_handshakes",
                "trust.callers",
                "trust.mesh.trusted_proxies"
            ]
        );
        let (_, keys) = mistakes("127.0.0.1", |config| config.trust_domain = "D".to_owned());
        assert_eq!(keys, ["trust.trust_domain"]);
    }
}
