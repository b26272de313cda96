//! The section `trust`: how peers are trusted, and what goes with that.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::certificates::Files;
use super::roster::{Identities, Roster, Workload};
use super::{audit, mesh, spiffe, token};
use crate::config::Mistakes;
use crate::server;

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
    pub(super) fn demands_certificates(&self, role: Workload) -> bool {
        match self.client_certificates {
            Some(demand) => demand == Demand::Required,
            None => !role.has_end_callers(),
        }
    }

    pub(super) fn roster(&self, role: Workload, mistakes: &mut Mistakes) -> Roster {
        Roster::new(
            role,
            &self.identities,
            self.callers.as_deref(),
            &self.trust_domain,
            &self.namespace,
            mistakes,
        )
    }

    pub(super) fn files(&self) -> Files {
        Files {
            certificate: self.native.certificate.clone(),
            key: self.native.key.clone(),
            authorities: self.native.authorities.clone(),
            federated: self.native.federated_authorities.clone(),
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
