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
mod config;
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

use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use muster_rpc::channel::Security;

use crate::clock::SharedClock;
use crate::config::Mistakes;
use crate::{Chassis, Error, health, reload, server};

pub use access::Access;
pub use caller::{Caller, Kind, Role, Roles};
pub use config::{Config, Demand, Mode, Native};
pub use declared::Declared;
pub use grants::Grants;
pub use identity::Identity;
pub use peer::Peer;
pub use roster::{Identities, Roster, Workload};
pub use spiffe::SpiffeId;
pub(crate) use token::SECRETS;

use metrics::Meters;
use tls::{Expected, Identity as Certified, Reread};

/// How long the look at an identity may take that a health check takes.
const CHECK_TIMEOUT: Duration = Duration::from_secs(1);

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
