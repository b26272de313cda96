//! Agent cards that name the router as the way in, so that any A2A client reaches any agent without knowing Muster.
//!
//! Two kinds: that of one target (an agent, or the agents of a skill), and the router's own, which lists the skills
//! of all. In a target's card the URLs of JSON-RPC and HTTP+JSON end in `/{target}`; the gRPC interface is the bare address with
//! the target as its tenant. Everything else is as the agent says it, except signatures, which would no longer fit (where a key
//! is configured the router's own takes their place), and what the agent asks for from who calls it: that is the
//! router ([`crate::credentials`]). Who calls the router finds in all its cards what the router asks for ([`Declared`]), as it is one
//! gate that all calls come through. So it is with the extended card, which the agent itself is asked for.
//!
//! A target's card says that it streams where one of the target's instances does: streams go to those alone.

use std::collections::BTreeMap;
use std::sync::Arc;

use muster_a2a::card::sign::Signer;
use muster_api::a2a::{AgentCapabilities, AgentCard, AgentExtension, AgentInterface, AgentSkill};
use muster_api::extension::ROUTING;
use muster_rpc::endpoint::Endpoint;
use muster_runtime::trust::Declared;

use crate::call::SUPPORTED_VERSION;
use crate::error::Error;
use crate::fleet::View;
use crate::target::Target;

/// Where clients reach the router, and what its cards are signed with.
#[derive(Clone)]
pub struct Front {
    /// Where clients reach the router.
    pub public: Endpoint,
    /// What they have to show there.
    pub declared: Declared,
    /// Signs the cards.
    pub signer: Option<Arc<Signer>>,
}

impl Front {
    /// The card of a target, with the router as the way in.
    ///
    /// # Errors
    /// When nobody is known by that name.
    pub fn of_target(&self, view: &View, target: &Target) -> Result<AgentCard, Error> {
        let serving = view.serving(Some(target), &[])?;
        let Some(first) = serving.first() else {
            return Err(Error::NoInstance {
                target: target.to_string(),
                why: "none is registered".to_owned(),
                cause: "none",
                retry_after: std::time::Duration::from_secs(1),
            });
        };
        let mut card = AgentCard::clone(&first.card);
        card.capabilities.get_or_insert_default().streaming =
            Some(serving.iter().any(|instance| instance.streams));
        Ok(self.through_router(card, target))
    }

    /// An agent's card, with the router as the way in.
    #[must_use]
    pub fn through_router(&self, mut card: AgentCard, target: &Target) -> AgentCard {
        if let Target::Skill(skill) = target {
            card.skills.retain(|known| known.id == *skill);
        }
        card.supported_interfaces = interfaces(&self.public, Some(target));
        card.signatures.clear();
        // What the agent asks for is the router's to bring.
        self.declared.say_in(&mut card);
        declare_routing(&mut card);
        card
    }

    /// The router's own card: the skills of all agents, by id.
    #[must_use]
    pub fn of_router(&self, view: &View) -> AgentCard {
        let mut skills: BTreeMap<&str, &AgentSkill> = BTreeMap::new();
        let mut agents = Vec::new();
        for (agent, card) in view.cards() {
            agents.push(agent);
            for skill in &card.skills {
                skills.entry(&skill.id).or_insert(skill);
            }
        }
        let mut card = AgentCard {
            name: "Muster router".to_owned(),
            description: format!(
                "The way to these agents: {}. Name one as tenant or path (`AGENT` or `skill:SKILL`).",
                if agents.is_empty() {
                    "none is registered now".to_owned()
                } else {
                    agents.join(", ")
                }
            ),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            supported_interfaces: interfaces(&self.public, None),
            capabilities: Some(AgentCapabilities {
                streaming: Some(true),
                push_notifications: Some(false),
                extended_agent_card: Some(false),
                extensions: Vec::new(),
            }),
            default_input_modes: vec!["text/plain".to_owned(), "application/json".to_owned()],
            default_output_modes: vec!["text/plain".to_owned(), "application/json".to_owned()],
            skills: skills.into_values().cloned().collect(),
            ..AgentCard::default()
        };
        self.declared.say_in(&mut card);
        declare_routing(&mut card);
        card
    }

    /// The card with the router's signature, where it has a key. The agent's own are gone: they are of the card that the agent
    /// serves itself, and the registry has checked them.
    ///
    /// # Errors
    /// There is something in the card that cannot be signed.
    pub fn signed(&self, mut card: AgentCard) -> Result<AgentCard, String> {
        if let Some(signer) = &self.signer {
            signer
                .sign(&mut card)
                .map_err(|what| format!("the card cannot be signed: {what}"))?;
        }
        Ok(card)
    }
}

fn interfaces(public: &Endpoint, target: Option<&Target>) -> Vec<AgentInterface> {
    let target = target.map(Target::to_string).unwrap_or_default();
    let interface = |url: String, binding: &str, tenant: &str| AgentInterface {
        url,
        protocol_binding: binding.to_owned(),
        tenant: tenant.to_owned(),
        protocol_version: SUPPORTED_VERSION.to_owned(),
    };
    vec![
        interface(format!("{public}/{target}"), "JSONRPC", ""),
        interface(
            if public.is_tls() {
                public.to_string()
            } else {
                public.authority().to_owned()
            },
            "GRPC",
            &target,
        ),
        // Clients append a path to it, so it has no slash at the end.
        interface(
            format!("{public}/{target}").trim_end_matches('/').to_owned(),
            "HTTP+JSON",
            "",
        ),
    ]
}

/// The router understands the routing extension whether the agent knows of it or not.
fn declare_routing(card: &mut AgentCard) {
    let capabilities = card.capabilities.get_or_insert_default();
    if !capabilities
        .extensions
        .iter()
        .any(|extension| extension.uri == ROUTING)
    {
        capabilities.extensions.push(AgentExtension {
            uri: ROUTING.to_owned(),
            description: "Required skills, priority, ttl, region, idempotency and durability of a message"
                .to_owned(),
            required: false,
            params: None,
        });
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use muster_a2a::card::Served;
    use muster_a2a::card::sign;
    use muster_a2a::card::trust::Keys;
    use muster_api::a2a::{SecurityRequirement, SecurityScheme, StringList};
    use muster_rpc::endpoint;
    use muster_runtime::server;
    use muster_runtime::trust::{self, Mode, Workload};

    use super::*;
    use crate::fleet::Instance;

    fn view() -> View {
        let mut view = View::new("default", Duration::ZERO);
        view.snapshot(
            vec![
                Instance::example("weather", "w1", &["forecasting", "current"]),
                Instance::example("planning", "p1", &["scheduling"]),
            ],
            Duration::ZERO,
        );
        view
    }

    fn front() -> Front {
        Front {
            public: endpoint::parse("http://router.example:7402").unwrap(),
            declared: Declared::default(),
            signer: None,
        }
    }

    #[test]
    fn a_targets_card_names_the_router_as_the_way_in() {
        let card = front()
            .of_target(&view(), &Target::Skill("forecasting".to_owned()))
            .unwrap();
        let ways: Vec<_> = card
            .supported_interfaces
            .iter()
            .map(|way| {
                (
                    way.protocol_binding.as_str(),
                    way.url.as_str(),
                    way.tenant.as_str(),
                )
            })
            .collect();
        assert_eq!(
            ways,
            [
                ("JSONRPC", "http://router.example:7402/skill:forecasting", ""),
                ("GRPC", "router.example:7402", "skill:forecasting"),
                ("HTTP+JSON", "http://router.example:7402/skill:forecasting", ""),
            ]
        );
        assert_eq!(card.skills.len(), 1);
        assert_eq!(card.capabilities.unwrap().extensions[0].uri, ROUTING);
        let unknown = front().of_target(&view(), &Target::Agent("wether".to_owned()));
        assert!(matches!(unknown, Err(Error::UnknownAgent { .. })));
    }

    #[test]
    fn a_target_streams_where_an_instance_does() {
        let mut view = view();
        let mut mute = Instance::example("nowcasting", "n1", &["current"]);
        mute.streams = false;
        view.upsert(mute, Duration::ZERO);
        let streams = |target: Target| {
            let card = front().of_target(&view, &target).unwrap();
            card.capabilities.unwrap().streaming
        };
        assert_eq!(streams(Target::Agent("weather".to_owned())), Some(true));
        assert_eq!(streams(Target::Agent("nowcasting".to_owned())), Some(false));
        assert_eq!(streams(Target::Skill("current".to_owned())), Some(true));
    }

    #[test]
    fn the_routers_card_lists_the_skills_of_all() {
        let card = front().of_router(&view());
        let skills: Vec<_> = card.skills.iter().map(|skill| skill.id.as_str()).collect();
        assert_eq!(skills, ["current", "forecasting", "scheduling"]);
        assert_eq!(card.supported_interfaces[0].url, "http://router.example:7402/");
    }

    #[test]
    fn cards_ask_for_what_the_router_asks_for_and_are_alike_each_time() {
        let mut trust = trust::Config {
            mode: Some(Mode::Native),
            ..trust::Config::default()
        };
        trust.tokens.jwks_url = "https://login.example/keys".to_owned();
        let directory = tempfile::tempdir().unwrap();
        let signing = sign::Config {
            key_file: Some(directory.path().join("key.pem")),
            ..sign::Config::default()
        };
        muster_testkit::write_signing_key(&directory.path().join("key.pem"));
        let front = Front {
            declared: Declared::of(&trust, &server::Config::default(), Workload::Router),
            signer: Signer::load(&signing, "s").unwrap().map(Arc::new),
            ..front()
        };
        let keys = Keys::parse(&front.signer.as_ref().unwrap().key_set().to_string()).unwrap();

        // An agent that asks for something itself, one of its skills for something else.
        let asks = |name: &str| SecurityRequirement {
            schemes: [(name.to_owned(), StringList::default())].into(),
        };
        let mut view = view();
        let mut needy = Instance::example("payer", "p1", &["pay"]);
        let mut card = AgentCard::clone(&needy.card);
        card.security_schemes = [("own".to_owned(), SecurityScheme::default())].into();
        card.security_requirements = vec![asks("own")];
        card.skills[0].security_requirements = vec![asks("its")];
        needy.card = Arc::new(card);
        view.upsert(needy, Duration::ZERO);

        let cards = [
            front.of_router(&view),
            front
                .of_target(&view, &Target::Agent("payer".to_owned()))
                .unwrap(),
            front.of_target(&view, &Target::Skill("pay".to_owned())).unwrap(),
        ];
        for card in cards {
            let mut names: Vec<&str> = card.security_schemes.keys().map(String::as_str).collect();
            names.sort_unstable();
            assert_eq!(names, ["bearer", "mtls"]);
            assert_eq!(card.security_requirements, [asks("bearer"), asks("mtls")]);
            assert!(
                card.skills
                    .iter()
                    .all(|skill| skill.security_requirements.is_empty())
            );
            let first = Served::new(&front.signed(card.clone()).unwrap()).unwrap();
            let read = muster_a2a::card::parse(first.body.as_bytes()).unwrap();
            assert_eq!(keys.verify(&read), Ok(0));
            assert_eq!(read.security_requirements, card.security_requirements);
            for _ in 0..16 {
                // Maps of the same content, in another order by chance.
                let again = AgentCard {
                    security_schemes: card.security_schemes.clone().into_iter().collect(),
                    ..card.clone()
                };
                assert_eq!(Served::new(&front.signed(again).unwrap()).unwrap(), first);
            }
        }
    }

    #[test]
    fn the_tag_changes_with_the_card_and_only_then() {
        let first = Served::new(&front().of_router(&view())).unwrap();
        assert_eq!(first, Served::new(&front().of_router(&view())).unwrap());
        let mut view = view();
        view.upsert(Instance::example("other", "o1", &["s"]), Duration::ZERO);
        assert_ne!(first.tag, Served::new(&front().of_router(&view)).unwrap().tag);
    }
}
