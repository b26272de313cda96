//! An agent that wants to know who calls, alone or behind a router that does. Who calls the router shows a token; the agent takes
//! a service's word, as that of the router.

use std::sync::Arc;

use muster_jose::token::{Secret, Signer};
use muster_runtime::clock::{Clock as _, SystemClock};
use muster_runtime::trust::caller::ON_BEHALF_OF_METADATA;
use muster_runtime::trust::{self, Caller, Grants, Kind, Role};
use serde_json::{Value, json};

use crate::bench::{CARD, Running, Subject, agent, join, registry, router, served};
use crate::driver::{Binding, Driver, get};
use crate::puppet::{Persona, Signals};

const SECRET: &str = "known to the router, to the agent and to this test";
const AUTHORIZATION: &str = "authorization";
/// Seconds that a token is good for.
const GOOD_FOR: i64 = 3_600;

/// See the module.
pub struct Guarded {
    subject: Subject,
    signer: Signer,
    /// A client that shows nothing.
    driver: Driver,
    /// Where its card is, and what it says.
    url: String,
    card: Value,
    _running: Running,
}

impl Guarded {
    /// Starts one and waits until it answers.
    pub async fn start(subject: Subject, binding: Binding) -> Self {
        let mut running = Running::new();
        let id = Persona::Whole.id();
        let signals = Arc::new(Signals::default());
        let (address, base) = match subject {
            Subject::Agent => {
                let agent = agent(Persona::Whole, &signals, &mut running, guard);
                (agent, String::new())
            }
            Subject::Router(upstream) => {
                let registry = registry(&mut running);
                // It takes whoever comes for the router, which shows certificates to agents and no tokens.
                let agent = agent(Persona::Whole, &signals, &mut running, |_| ());
                let router = router(registry, &mut running, guard);
                join(registry, id, agent, upstream).await;
                (router, format!("/{id}"))
            }
        };
        let path = format!("{base}{CARD}");
        served(address, &path).await;
        let card = get(address, &path, &[]).await.json();
        Self {
            subject,
            signer: Signer::Secret(Secret::new(SECRET).expect("a secret")),
            driver: Driver::of_card(binding, &card, address, &base),
            url: format!("http://{address}{base}"),
            card,
            _running: running,
        }
    }

    /// A client that shows this as its `authorization`, or nothing.
    pub fn showing(&self, authorization: Option<&str>) -> Driver {
        self.driver.header(AUTHORIZATION, authorization)
    }

    /// What its card is below.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its card, as everybody sees it.
    pub const fn card(&self) -> &Value {
        &self.card
    }

    /// A token of somebody.
    pub fn token(&self, subject: &str, role: Role) -> String {
        let token = self.signer.sign(&claims(subject, role, GOOD_FOR));
        token.expect("a token")
    }

    /// A client that calls for somebody.
    pub fn driver(&self, subject: &str, role: Role) -> Driver {
        match self.subject {
            Subject::Router(_) => self.showing(Some(&self.bearer(subject, role, GOOD_FOR))),
            Subject::Agent => {
                let roles = [role].into_iter().collect();
                let caller = Caller::new(Kind::EndUser, Some("muster"), subject, roles, Grants::default());
                self.showing(Some(&self.bearer("router", Role::Service, GOOD_FOR)))
                    .header(ON_BEHALF_OF_METADATA, Some(&caller.to_text()))
            }
        }
    }

    /// An `authorization` that nobody should take.
    pub fn expired(&self) -> String {
        self.bearer("ada", Role::Admin, -GOOD_FOR)
    }

    /// One that somebody else has signed.
    pub fn forged() -> String {
        let secret = Secret::new("a secret of somebody else, of the same length").expect("a secret");
        format!(
            "Bearer {}",
            Signer::sign_with(&secret, &claims("ada", Role::Admin, GOOD_FOR))
        )
    }

    fn bearer(&self, subject: &str, role: Role, seconds: i64) -> String {
        let token = self
            .signer
            .sign(&claims(subject, role, seconds))
            .expect("a token");
        format!("Bearer {token}")
    }
}

fn guard(trust: &mut trust::Config) {
    trust.tokens.required = true;
    trust.tokens.jwt_secret_key = Some(SECRET.to_owned().into());
    // The cases show more false ones than somebody who has mistyped.
    trust.tokens.max_failures_per_minute = 1_000_000;
}

fn claims(subject: &str, role: Role, seconds: i64) -> Value {
    let expires = SystemClock::default().now().as_second() + seconds;
    json!({ "sub": subject, "iss": "muster", "aud": "muster", "exp": expires, "roles": [role.name()] })
}
