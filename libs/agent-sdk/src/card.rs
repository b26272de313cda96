//! Who an agent is: its card, checked before anything is served or registered.
//!
//! The card that clients fetch is the official [`a2a::AgentCard`]; this module adds what is the same for every agent
//! of the SDK: the interfaces with the real address, the capabilities, and Muster's routing extension, in whose
//! parameters the idempotent skills are named. A2A has no field for idempotency, and the router must know it before
//! it moves a failed attempt to another instance.

use std::collections::{BTreeSet, HashMap};
use std::num::NonZeroU32;

use a2a::{AgentCapabilities, AgentCard, AgentExtension, AgentInterface, AgentSkill};
use muster_api::{extension, names};
use serde_json::json;

/// Longest name, id or version; cards are shown in tables and travel with every registration.
const MAX_NAME: usize = 128;
/// Longest description.
const MAX_DESCRIPTION: usize = 2_000;
/// Most skills of one agent.
const MAX_SKILLS: usize = 64;

/// Who an agent is and what it can do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Card {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) version: String,
    pub(crate) skills: Vec<Skill>,
    pub(crate) has_extended: bool,
    pub(crate) hidden_skills: Vec<Skill>,
    pub(crate) input_modes: Vec<String>,
    pub(crate) streams: bool,
    pub(crate) extensions: Vec<Extension>,
    pub(crate) sticky_contexts: bool,
    pub(crate) trace_in_metadata: bool,
    pub(crate) messages_per_minute: Option<NonZeroU32>,
    pub(crate) messages_per_minute_per_caller: Option<NonZeroU32>,
}

/// What an agent's configuration adds to its card.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Served<'s> {
    /// Whether it pushes.
    pub(crate) pushes: bool,
    /// Tasks that an instance works on at once.
    pub(crate) max_concurrency: u32,
    /// The store that it shares with other instances.
    pub(crate) shared_tasks: Option<&'s str>,
}

/// An extension of A2A that an agent understands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extension {
    pub(crate) uri: String,
    pub(crate) description: String,
    pub(crate) required: bool,
}

/// One thing that an agent can do, and by which it is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Skill {
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) description: String,
    pub(crate) tags: Vec<String>,
    pub(crate) examples: Vec<String>,
    pub(crate) idempotent: bool,
}

/// What is wrong with a card.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("agent card: {field}: {message}")]
pub struct Error {
    /// Path of the field at fault.
    pub field: String,
    /// What is wrong and what is allowed.
    pub message: String,
}

impl Card {
    /// A card without skills; add at least one with [`Card::skill`]. The id is a DNS label.
    #[must_use]
    pub fn new(
        id: impl Into<String>,
        name: impl Into<String>,
        description: impl Into<String>,
        version: impl Into<String>,
    ) -> Self {
        Self {
            id: id.into(),
            name: name.into(),
            description: description.into(),
            version: version.into(),
            skills: Vec::new(),
            has_extended: false,
            hidden_skills: Vec::new(),
            input_modes: vec!["application/json".to_owned(), "text/plain".to_owned()],
            streams: true,
            extensions: Vec::new(),
            sticky_contexts: false,
            trace_in_metadata: false,
            messages_per_minute: None,
            messages_per_minute_per_caller: None,
        }
    }

    /// Adds a skill.
    #[must_use]
    pub fn skill(mut self, skill: Skill) -> Self {
        self.skills.push(skill);
        self
    }

    /// Adds a skill that only the extended card shows, which is for callers who have proved who they are.
    #[must_use]
    pub fn extended_skill(mut self, skill: Skill) -> Self {
        self.hidden_skills.push(skill);
        self.extended()
    }

    /// Says that there is an extended card, also where no skill is on it (yet).
    #[must_use]
    pub fn extended(mut self) -> Self {
        self.has_extended = true;
        self
    }

    /// Adds a media type that messages may have parts of, beside JSON and plain text; `TYPE/*` is all of a kind.
    #[must_use]
    pub fn input_mode(mut self, media_type: impl Into<String>) -> Self {
        self.input_modes.push(media_type.into());
        self
    }

    /// Says that the agent does not stream: who asks for a stream is refused, and gets the task by sending without one. For agents
    /// whose answers have no steps. Without this it streams.
    #[must_use]
    pub const fn unstreamed(mut self) -> Self {
        self.streams = false;
        self
    }

    /// Adds an extension of A2A. Messages of callers who do not use one that is required are refused.
    #[must_use]
    pub fn extension(mut self, extension: Extension) -> Self {
        self.extensions.push(extension);
        self
    }

    /// Asks that the messages of a context reach the same instance as long as that is there, because it keeps something of the
    /// conversation in memory. Without it the least loaded instance gets each.
    #[must_use]
    pub fn sticky_contexts(mut self) -> Self {
        self.sticky_contexts = true;
        self
    }

    /// Asks for the trace in the metadata of each message as well: for an agent that stands behind what takes headers away. The SDK
    /// reads it from there where no header came.
    #[must_use]
    pub const fn trace_in_metadata(mut self) -> Self {
        self.trace_in_metadata = true;
        self
    }

    /// Says how many messages a minute all instances together take; a tenth may come at once. The router refuses more.
    #[must_use]
    pub const fn messages_per_minute(mut self, most: NonZeroU32) -> Self {
        self.messages_per_minute = Some(most);
        self
    }

    /// Says how many messages a minute they take of each caller.
    #[must_use]
    pub const fn messages_per_minute_per_caller(mut self, most: NonZeroU32) -> Self {
        self.messages_per_minute_per_caller = Some(most);
        self
    }

    /// The agent's id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    pub(crate) fn has_skill(&self, id: &str) -> bool {
        self.all_skills().any(|skill| skill.id == id)
    }

    pub(crate) fn is_idempotent(&self, id: &str) -> bool {
        self.all_skills().any(|skill| skill.id == id && skill.idempotent)
    }

    /// The only skill, where there is one.
    pub(crate) fn only_skill(&self) -> Option<&str> {
        let mut skills = self.all_skills();
        let only = skills.next()?;
        skills.next().is_none().then_some(only.id.as_str())
    }

    pub(crate) fn skill_ids(&self) -> impl Iterator<Item = &str> {
        self.skills.iter().map(|skill| skill.id.as_str())
    }

    fn all_skills(&self) -> impl Iterator<Item = &Skill> {
        self.skills.iter().chain(&self.hidden_skills)
    }

    /// Whether a part of this media type is taken.
    pub(crate) fn takes(&self, media_type: &str) -> bool {
        let bare = media_type
            .split(';')
            .next()
            .unwrap_or_default()
            .trim()
            .to_ascii_lowercase();
        self.input_modes.iter().any(|mode| {
            let mode = mode.to_ascii_lowercase();
            mode == bare
                || mode == "*/*"
                || mode
                    .strip_suffix('*')
                    .is_some_and(|kind| kind.ends_with('/') && bare.starts_with(kind))
        })
    }

    /// Refuses what the registry or a client would stumble over, naming the field.
    pub(crate) fn check(&self) -> Result<(), Error> {
        if !names::is_dns_label(&self.id) {
            return Err(Error::new(
                "id",
                format!(
                    "'{}' is no DNS label (a-z, 0-9 and '-', at most 63 characters)",
                    self.id
                ),
            ));
        }
        check_text("name", &self.name, MAX_NAME)?;
        check_text("description", &self.description, MAX_DESCRIPTION)?;
        check_text("version", &self.version, MAX_NAME)?;
        if self.skills.is_empty() || self.skills.len() > MAX_SKILLS {
            return Err(Error::new(
                "skills",
                format!(
                    "{} skills given; an agent has 1 to {MAX_SKILLS}",
                    self.skills.len()
                ),
            ));
        }
        let mut seen = BTreeSet::new();
        for (index, skill) in self.all_skills().enumerate() {
            skill.check(&format!("skills[{index}]"))?;
            if !seen.insert(skill.id.as_str()) {
                return Err(Error::new(
                    format!("skills[{index}].id"),
                    format!("'{}' is given twice", skill.id),
                ));
            }
        }
        for (index, mode) in self.input_modes.iter().enumerate() {
            if !mode.contains('/') || mode.len() > MAX_NAME {
                return Err(Error::new(
                    format!("input_modes[{index}]"),
                    format!("'{mode}' is no media type such as text/csv"),
                ));
            }
        }
        for (index, extension) in self.extensions.iter().enumerate() {
            let is_uri = extension.uri.contains(':') && !extension.uri.contains([',', ' ']);
            if !is_uri || extension.uri.len() > MAX_DESCRIPTION {
                return Err(Error::new(
                    format!("extensions[{index}].uri"),
                    format!("'{}' is no URI", extension.uri),
                ));
            }
        }
        Ok(())
    }

    /// The official card of an instance that answers at `base` (`http://host:port`, or `https://host:port`).
    pub(crate) fn to_a2a(&self, base: &str, served: Served<'_>) -> AgentCard {
        let idempotent: Vec<&str> = self
            .skills
            .iter()
            .filter(|skill| skill.idempotent)
            .map(|skill| skill.id.as_str())
            .collect();
        let mut parameters = HashMap::from([
            ("idempotentSkills".to_owned(), json!(idempotent)),
            (
                extension::MAX_CONCURRENCY.to_owned(),
                json!(served.max_concurrency),
            ),
            (extension::STICKY_CONTEXTS.to_owned(), json!(self.sticky_contexts)),
            (extension::TELLS_CALLERS_APART.to_owned(), json!(true)),
        ]);
        if self.trace_in_metadata {
            parameters.insert(extension::TRACE_IN_METADATA.to_owned(), json!(true));
        }
        if let Some(store) = served.shared_tasks {
            parameters.insert(extension::SHARED_TASKS.to_owned(), json!(store));
        }
        for (name, quota) in [
            (extension::MESSAGES_PER_MINUTE, self.messages_per_minute),
            (
                extension::MESSAGES_PER_MINUTE_PER_CALLER,
                self.messages_per_minute_per_caller,
            ),
        ] {
            if let Some(most) = quota {
                parameters.insert(name.to_owned(), json!(most));
            }
        }
        let routing = AgentExtension {
            uri: extension::ROUTING.to_owned(),
            description: Some("Muster routing: skills, priority, ttl, region, idempotency".to_owned()),
            required: Some(false),
            params: Some(parameters),
        };
        let own = self.extensions.iter().map(|extension| AgentExtension {
            uri: extension.uri.clone(),
            description: Some(extension.description.clone()),
            required: Some(extension.required),
            params: None,
        });
        AgentCard {
            name: self.name.clone(),
            description: self.description.clone(),
            version: self.version.clone(),
            supported_interfaces: vec![
                // Without TLS a card has the bare address.
                AgentInterface::new(
                    base.strip_prefix("http://").unwrap_or(base),
                    a2a::TRANSPORT_PROTOCOL_GRPC,
                ),
                AgentInterface::new(format!("{base}/jsonrpc"), a2a::TRANSPORT_PROTOCOL_JSONRPC),
                AgentInterface::new(base, a2a::TRANSPORT_PROTOCOL_HTTP_JSON),
            ],
            capabilities: AgentCapabilities {
                streaming: Some(self.streams),
                push_notifications: Some(served.pushes),
                extensions: Some(std::iter::once(routing).chain(own).collect()),
                extended_agent_card: Some(self.has_extended),
            },
            default_input_modes: self.input_modes.clone(),
            default_output_modes: vec!["application/json".to_owned(), "text/plain".to_owned()],
            skills: self.skills.iter().map(Skill::to_a2a).collect(),
            provider: None,
            documentation_url: None,
            icon_url: None,
            security_schemes: None,
            security_requirements: None,
            signatures: None,
        }
    }

    /// The official card that shows everything; `None` where nothing is hidden.
    pub(crate) fn to_extended(&self, base: &str, served: Served<'_>) -> Option<AgentCard> {
        if self.hidden_skills.is_empty() {
            return None;
        }
        let mut card = self.to_a2a(base, served);
        card.skills = self.all_skills().map(Skill::to_a2a).collect();
        Some(card)
    }
}

impl Extension {
    /// An extension that callers may use.
    #[must_use]
    pub fn new(uri: impl Into<String>, description: impl Into<String>) -> Self {
        Self {
            uri: uri.into(),
            description: description.into(),
            required: false,
        }
    }

    /// Callers have to use it.
    #[must_use]
    pub fn required(mut self) -> Self {
        self.required = true;
        self
    }
}

impl Skill {
    /// A skill; its id is what callers ask for (`skill:ID`).
    #[must_use]
    pub fn new(id: impl Into<String>, name: impl Into<String>, description: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            name: name.into(),
            description: description.into(),
            tags: Vec::new(),
            examples: Vec::new(),
            idempotent: false,
        }
    }

    /// Adds keywords.
    #[must_use]
    pub fn tags<T: Into<String>>(mut self, tags: impl IntoIterator<Item = T>) -> Self {
        self.tags.extend(tags.into_iter().map(Into::into));
        self
    }

    /// Adds an example of what a caller may send.
    #[must_use]
    pub fn example(mut self, example: impl Into<String>) -> Self {
        self.examples.push(example.into());
        self
    }

    /// Declares that doing it twice does no harm: the router may move a failed attempt to another instance.
    #[must_use]
    pub fn idempotent(mut self) -> Self {
        self.idempotent = true;
        self
    }

    fn check(&self, path: &str) -> Result<(), Error> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        if self.id.is_empty() || self.id.len() > MAX_NAME || !self.id.chars().all(allowed) {
            return Err(Error::new(
                format!("{path}.id"),
                format!(
                    "'{}' is no skill id (letters, digits, '_', '-', '.', at most {MAX_NAME} characters)",
                    self.id
                ),
            ));
        }
        check_text(&format!("{path}.name"), &self.name, MAX_NAME)?;
        check_text(&format!("{path}.description"), &self.description, MAX_DESCRIPTION)
    }

    fn to_a2a(&self) -> AgentSkill {
        AgentSkill {
            id: self.id.clone(),
            name: self.name.clone(),
            description: self.description.clone(),
            tags: self.tags.clone(),
            examples: (!self.examples.is_empty()).then(|| self.examples.clone()),
            input_modes: None,
            output_modes: None,
            security_requirements: None,
        }
    }
}

impl Error {
    fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            message: message.into(),
        }
    }
}

fn check_text(field: &str, text: &str, longest: usize) -> Result<(), Error> {
    if text.trim().is_empty() || text.len() > longest {
        return Err(Error::new(
            field,
            format!("has {} bytes; 1 to {longest} are allowed", text.len()),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn card() -> Card {
        Card::new("weather", "Weather", "Weather of two cities", "1.0.0").skill(
            Skill::new("forecast", "Forecast", "Days to come")
                .tags(["weather"])
                .idempotent(),
        )
    }

    const SERVED: Served<'_> = Served {
        pushes: true,
        max_concurrency: 16,
        shared_tasks: Some("5d3f"),
    };

    #[test]
    fn a_complete_card_passes_and_names_the_real_address_and_the_idempotent_skills() {
        card().check().unwrap();
        let official = card()
            .skill(Skill::new("order", "Order", "Has effects"))
            .messages_per_minute(NonZeroU32::new(60).unwrap())
            .trace_in_metadata()
            .to_a2a("http://127.0.0.1:7411", SERVED);
        let urls: Vec<_> = official
            .supported_interfaces
            .iter()
            .map(|interface| interface.url.as_str())
            .collect();
        assert_eq!(
            urls,
            [
                "127.0.0.1:7411",
                "http://127.0.0.1:7411/jsonrpc",
                "http://127.0.0.1:7411"
            ]
        );
        let extensions = official.capabilities.extensions.unwrap();
        assert_eq!(extensions[0].uri, extension::ROUTING);
        let parameters = extensions[0].params.as_ref().unwrap();
        assert_eq!(parameters["idempotentSkills"], json!(["forecast"]));
        assert_eq!(parameters[extension::SHARED_TASKS], json!("5d3f"));
        assert_eq!(parameters[extension::MESSAGES_PER_MINUTE], json!(60));
        assert_eq!(parameters[extension::TRACE_IN_METADATA], json!(true));
        assert!(!parameters.contains_key(extension::MESSAGES_PER_MINUTE_PER_CALLER));
    }

    #[test]
    fn each_mistake_is_named_by_its_field() {
        let skill = || Skill::new("s", "S", "does s");
        let mistakes = [
            (Card::new("Weather", "W", "d", "1").skill(skill()), "id"),
            (Card::new("weather", " ", "d", "1").skill(skill()), "name"),
            (Card::new("weather", "W", "", "1").skill(skill()), "description"),
            (Card::new("weather", "W", "d", "").skill(skill()), "version"),
            (Card::new("weather", "W", "d", "1"), "skills"),
            (card().skill(Skill::new("a b", "S", "d")), "skills[1].id"),
            (card().skill(Skill::new("s", "", "d")), "skills[1].name"),
            (card().skill(Skill::new("forecast", "F", "again")), "skills[1].id"),
        ];
        for (card, field) in mistakes {
            assert_eq!(card.check().unwrap_err().field, field);
        }
    }
}
