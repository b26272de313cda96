//! What callers have to show, as agent cards declare it (A2A's `securitySchemes` and `securityRequirements`).
//!
//! It follows from the same settings as the gate's decisions. Where the gate asks for nothing, nothing is declared, also where a token
//! would be looked at. Who has the choice finds the token first: official clients take the first alternative for which they have
//! something, and most callers have no certificate.
//!
//! In mesh mode the certificate is shown by the caller's sidecar; it is declared all the same, because without one there is no way in.

use muster_api::a2a::security_scheme::Scheme;
use muster_api::a2a::{
    AgentCard, HttpAuthSecurityScheme, MutualTlsSecurityScheme, SecurityRequirement, SecurityScheme,
    StringList,
};

use super::roster::Workload;
use super::{Config, Mode};
use crate::server;

/// One thing that is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Proof {
    Token,
    Certificate,
}

impl Proof {
    /// The scheme's name in cards.
    const fn name(self) -> &'static str {
        match self {
            Self::Token => "bearer",
            Self::Certificate => "mtls",
        }
    }

    fn scheme(self) -> SecurityScheme {
        let scheme = match self {
            Self::Token => Scheme::HttpAuthSecurityScheme(HttpAuthSecurityScheme {
                description: "A JSON Web Token of an issuer that is trusted here".to_owned(),
                scheme: "bearer".to_owned(),
                bearer_format: "JWT".to_owned(),
            }),
            Self::Certificate => Scheme::MtlsSecurityScheme(MutualTlsSecurityScheme {
                description: "A certificate of a workload that is known here".to_owned(),
            }),
        };
        SecurityScheme { scheme: Some(scheme) }
    }
}

/// What callers have to show: alternatives, of each of which everything. None where nobody has to show anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Declared(&'static [&'static [Proof]]);

impl Declared {
    /// What is asked for under these settings, by a service of this role.
    #[must_use]
    pub fn of(config: &Config, server: &server::Config, role: Workload) -> Self {
        use Proof::{Certificate, Token};

        let has_tokens = config.tokens.is_used();
        Self(match config.mode(server) {
            Mode::Loopback if config.tokens.required => &[&[Token]],
            Mode::Loopback => &[],
            Mode::Native | Mode::Mesh => match (config.demands_certificates(role), has_tokens) {
                (false, true) => &[&[Token], &[Certificate]],
                (true, true) => &[&[Certificate], &[Certificate, Token]],
                (_, false) => &[&[Certificate]],
            },
        })
    }

    /// Has a card say this, and nothing else, of who calls; what its skills ask for goes.
    pub fn say_in(self, card: &mut AgentCard) {
        let proofs = self.0.iter().copied().flatten();
        card.security_schemes = proofs
            .map(|proof| (proof.name().to_owned(), proof.scheme()))
            .collect();
        card.security_requirements = self
            .0
            .iter()
            .map(|alternative| SecurityRequirement {
                schemes: alternative
                    .iter()
                    .map(|proof| (proof.name().to_owned(), StringList::default()))
                    .collect(),
            })
            .collect();
        for skill in &mut card.skills {
            skill.security_requirements.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trust::Demand;

    /// The alternatives of a card, by the names of their schemes.
    fn declared(role: Workload, change: impl FnOnce(&mut Config)) -> Vec<Vec<String>> {
        let mut config = Config::default();
        change(&mut config);
        let mut card = AgentCard::default();
        Declared::of(&config, &server::Config::default(), role).say_in(&mut card);
        let alternatives = card.security_requirements.iter().map(|one| {
            let mut names: Vec<String> = one.schemes.keys().cloned().collect();
            assert!(names.iter().all(|name| card.security_schemes.contains_key(name)));
            names.sort();
            names
        });
        alternatives.collect()
    }

    #[test]
    fn a_card_asks_for_what_the_gate_asks_for() {
        const NONE: [[&str; 0]; 0] = [];
        let tokens = |config: &mut Config| config.tokens.jwks_url = "https://login.example/keys".to_owned();
        assert_eq!(declared(Workload::Router, |_| ()), NONE);
        // A token may be shown, and need not be.
        assert_eq!(declared(Workload::Router, tokens), NONE);
        let required = |config: &mut Config| {
            tokens(config);
            config.tokens.required = true;
        };
        assert_eq!(declared(Workload::Router, required), [["bearer"]]);
        for mode in [Mode::Native, Mode::Mesh] {
            let bare = |config: &mut Config| config.mode = Some(mode);
            let both = |config: &mut Config| {
                config.mode = Some(mode);
                tokens(config);
            };
            for role in [Workload::Router, Workload::Agent] {
                assert_eq!(declared(role, bare), [["mtls"]]);
            }
            assert_eq!(declared(Workload::Router, both), [["bearer"], ["mtls"]]);
            let demanding = [vec!["mtls"], vec!["bearer", "mtls"]];
            assert_eq!(declared(Workload::Agent, both), demanding);
            let stricter = |config: &mut Config| {
                both(config);
                config.client_certificates = Some(Demand::Required);
            };
            assert_eq!(declared(Workload::Router, stricter), demanding);
        }
    }
}
